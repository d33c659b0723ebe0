//! This host, without policy: mounts, who holds them, links and bridges, ARP,
//! kernel modules, partitions.
//!
//! ```no_run
//! use node_ops::mounts::{self, MountOptions};
//! use node_ops::{ErrorKind, modules};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! modules::load("drbd", &[("usermode_helper", "/bin/true")])?;
//! let target = Path::new("/srv/store1");
//! mounts::mount_btrfs(Path::new("/dev/drbd0"), target, &MountOptions::new())?;
//! match mounts::unmount(target) {
//!     Err(error) if error.kind() == ErrorKind::Busy => {
//!         for holder in error.holders() {
//!             eprintln!("{holder}");
//!         }
//!     }
//!     other => drop(other?),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The verbs say what they found: [`Outcome::Done`] if they changed something,
//! [`Outcome::AlreadyThere`] if it was as asked for. They never force: a mount
//! that is in use stays, and the error names who uses it.
//!
//! Everything here concerns the namespaces of the calling thread, unless the
//! name says otherwise; [`netns::in_network_namespace_of`] runs link and ARP
//! functions in those of another process.
//!
//! # What it does not do
//!
//! It decides nothing: which mount to give up first, whom to stop and how long
//! to wait is up to the caller. The watchdog, the clock and running ssh are not
//! here yet.

pub mod arp;
mod error;
pub mod holders;
pub mod host;
pub mod links;
pub mod modules;
pub mod mounts;
pub mod netns;
pub mod partitions;
pub mod process;
mod sys;
#[cfg(feature = "serde")]
mod text;

pub use error::{Error, ErrorKind, Result};

/// What a verb found when it succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Outcome {
    /// Something was changed.
    Done,
    /// Nothing was to do.
    AlreadyThere,
}

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
