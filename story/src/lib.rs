//! The demo: plays the whole story on real nodes, with real kernels, and judges it.
//!
//! `./demo` runs it. What the story needs besides the project's own crates and programs is here: a
//! workload that acknowledges only what is durable, a client that keeps every acknowledgement, a
//! recorder in the place of each program that must not be called, and the verdict.

mod by_hand;
pub mod client;
mod cluster;
pub mod database;
pub mod ending;
mod full;
pub mod play;
pub mod plot;
pub mod record;
pub mod stage;
pub mod verdict;

/// The examples of the project's README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;
