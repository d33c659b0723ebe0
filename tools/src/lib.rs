//! The programs: failover, and what the kernel and the tests need around it.
