//! The program that runs in the nodes, as bytes (see `build.rs`).

/// Empty on machines without user-mode kernels.
pub(crate) static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent"));
