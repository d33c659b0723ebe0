//! DRBD's generic netlink interface, typed: commands, state and events.
