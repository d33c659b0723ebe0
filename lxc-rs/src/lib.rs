//! liblxc, safe: containers of an lxcpath, their state, their configuration
//! and their life cycle.
//!
//! ```no_run
//! use std::time::Duration;
//! use lxc_rs::{AttachCommand, Container, ContainerName, CreateSpec, LxcPath, StartOptions};
//!
//! let store = LxcPath::new("/srv/store1/containers")?;
//! let spec = CreateSpec::new(ContainerName::new("m1")?)
//!     .config("lxc.net.0.type", "empty")
//!     .tree("/srv/images/debian");
//! let m1 = Container::create(&store, spec, Duration::from_secs(60))?.done()?;
//! m1.start(&StartOptions::new(), Duration::from_secs(30))?.done()?;
//! let hostname = AttachCommand::new("hostname");
//! let output = m1.attach_run(&hostname, Duration::from_secs(10))?.done()?;
//! assert_eq!(output.stdout, b"m1\n");
//! m1.shutdown(Duration::from_secs(60))?.done()?;
//! # Ok::<(), lxc_rs::Error>(())
//! ```
//!
//! # What runs where
//!
//! Queries ([`Container::state`], [`Container::init_pidfd`], configuration
//! items) are calls into liblxc in this process; they do not fork. Everything
//! that changes something runs in a **helper process**, a small program of
//! ours that the crate carries inside itself and executes from memory. liblxc
//! forks in those verbs and goes on working in the child, which is not allowed
//! in a program with threads; it waits for its children by itself, which a
//! program that ignores SIGCHLD or collects every child breaks; it sets umask
//! and environment variables; and it can hang. In the helper none of this
//! touches the caller: it has one thread, default signals, its own log, and it
//! can be killed at the deadline.
//!
//! # Errors and deadlines
//!
//! liblxc says yes or no. Why is only in its log, so every [`Error`] of a verb
//! carries the lines of exactly that call. A verb that outlives its deadline
//! is neither an error nor a success but [`Outcome::Unknown`].
//!
//! # What this crate does not do
//!
//! It does not speak liblxc's private socket protocol, does not run `lxc-*`
//! programs, and does not run functions of the calling program inside a
//! container. The README lists which traps of liblxc are closed, and where.

mod attach;
mod checkpoint;
mod clone;
mod config;
mod config_file;
mod container;
mod create;
mod error;
mod events;
mod foreground;
mod idmap;
pub mod layout;
mod list;
mod live;
mod log;
mod os;
pub mod partial;
mod path;
mod rootfs;
mod runner;
mod snapshot;
mod state;
mod sys;
mod template;
mod tree;
mod wire;

pub use attach::{AttachChild, AttachCommand, AttachOutput, Namespace};
pub use clone::CloneOptions;
pub use config_file::{ConfigFile, Finding, Item, Problem};
pub use container::{Container, StartOptions};
pub use create::CreateSpec;
pub use error::{Error, ErrorKind, Result};
pub use events::{StateEvent, StateEvents};
pub use foreground::Foreground;
pub use layout::Snapshot;
pub use list::{Listed, active, list, names, states};
pub use live::{Console, Mount};
pub use log::{LogLevel, LogLine};
pub use path::{ContainerName, LxcPath, global_config_item};
pub use rootfs::Rootfs;
pub use snapshot::{RestoreOptions, SnapshotOptions};
pub use state::{Outcome, State, Unknown};
pub use sys::Version;
pub use template::{Backing, Template};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
