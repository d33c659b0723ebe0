//! drbd.conf: parse, resolve for one node, and expand into typed operations.
