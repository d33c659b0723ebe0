//! Benches: each states its question and its rival. What they share is here.

pub mod allocations;
pub mod recorded;
