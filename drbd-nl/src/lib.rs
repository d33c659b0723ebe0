//! DRBD's kernel interface as a library: state, events and every change, by
//! generic netlink, for DRBD 8.4 and DRBD 9. No process is started, no text
//! is parsed.
//!
//! ```no_run
//! use drbd_nl::{ConnectionState, Drbd, ResourceName};
//! use std::time::Duration;
//!
//! let drbd = Drbd::open()?;
//! let r0 = ResourceName::new("r0").expect("a valid name");
//! let mut watcher = drbd.watch()?;
//! watcher.wait_for(Duration::from_secs(30), |state| {
//!     state.resource("r0").is_some_and(|r| {
//!         r.connections.iter().any(|c| c.state == ConnectionState::Connected)
//!     })
//! })?;
//! println!("{}", drbd.primary(&r0, Duration::from_secs(10))?);
//! # Ok::<(), drbd_nl::Error>(())
//! ```
//!
//! - [`Drbd`] is the handle: [`Drbd::snapshot`] reads a [`State`],
//!   [`Drbd::run`] carries out an [`Operation`].
//! - [`Watcher`] keeps a [`State`] current by events and waits for what one
//!   asks; [`RawEvents`] is the stream below it.
//! - [`model`] is what is there, one for both kernels; [`Dialect`] tells
//!   which of the two it is.
//! - [`wire`] and [`schema`] are bytes and numbers, for who wants to look.
//!
//! - Decisions are functions of the model: [`Resource::promotion_obstacles`],
//!   [`Resource::demotion_risks`], [`split_brain`], [`PeerDevice::progress`].
//! - Feature `testing`: a kernel that is not there, for tests of programs
//!   that use this crate.
//!
//! # A status printer
//!
//! ```no_run
//! # use drbd_nl::Drbd;
//! # use std::time::Duration;
//! for r in Drbd::open()?.snapshot(Duration::from_secs(60))?.resources {
//!     println!("{}: {}", r.name, r.role);
//!     for d in &r.devices {
//!         println!("  volume {}: {}", d.volume, d.disk_state);
//!     }
//!     for c in &r.connections {
//!         println!("  {c}: {}, {}", c.state, c.peer_role);
//!         for p in &c.peer_devices {
//!             println!("    volume {}: {}", p.volume, p.peer_disk_state);
//!         }
//!     }
//! }
//! # Ok::<(), drbd_nl::Error>(())
//! ```
//!
//! # An event watcher
//!
//! ```no_run
//! # use drbd_nl::{Drbd, Update};
//! for update in Drbd::open()?.watch()? {
//!     match update? {
//!         Update::Changed(changes) | Update::Resynced(changes) => {
//!             for change in changes {
//!                 println!("{:?} {}", change.action, change.object);
//!             }
//!         }
//!         Update::Helper(helper) => println!("helper {}", helper.name),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok::<(), drbd_nl::Error>(())
//! ```
//!
//! # A promotion that says why not
//!
//! ```no_run
//! # use drbd_nl::Drbd;
//! # use std::time::Duration;
//! let (drbd, limit) = (Drbd::open()?, Duration::from_secs(60));
//! let state = drbd.snapshot(limit)?;
//! let r0 = state.resource("r0").ok_or("there is no r0")?;
//! let obstacles = r0.promotion_obstacles();
//! if obstacles.is_empty() {
//!     println!("{}", drbd.primary(&r0.name, limit)?);
//! }
//! for obstacle in obstacles {
//!     println!("not now: {obstacle}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The same as programs, which the tests run on a real kernel, are in
//! `examples/`.
//!
//! What this crate does not do: load the module, read or write metadata on
//! disk, read drbd.conf, promote on its own.

mod client;
pub mod codec;
mod dialect;
mod dump;
mod error;
mod events;
mod exchange;
#[cfg(feature = "serde")]
pub mod json;
pub mod model;
mod op;
mod recover;
mod run;
pub mod schema;
pub mod socket;
#[cfg(feature = "tokio")]
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod watch;
pub mod wire;
mod workers;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use client::{Drbd, Family};
pub use dialect::{Dialect, Release};
pub use error::{Error, ErrorKind, Result};
pub use events::{
    Action, Event, EventKind, HelperEvent, LegacyEvent, RawEvent, RawEvents, SplitBrain,
};
pub use model::{
    Address, AddressPair, AfterSplitBrain, Connection, ConnectionInfo, ConnectionState,
    ConnectionStatistics, DemotionRisk, Device, DeviceInfo, DeviceOptions, DeviceStatistics,
    DiskFlags, DiskOptions, DiskState, FencingPolicy, Generations, InvalidAddress, InvalidName,
    InvalidateOptions, InvalidatePeerOptions, KeySerial, MetaDisk, Minor, NetOptions,
    NewUuidOptions, NodeId, Obstacle, OnCongestion, OnIoError, OnNoData,
    OnSuspendedPrimaryOutdated, OptionError, OptionInfo, Path, PeerDevice, PeerDeviceFlags,
    PeerDeviceInfo, PeerDeviceOptions, PeerDeviceStatistics, Protocol, Quorum, ReadBalancing,
    Rejected, Relation, ReplicationState, ResizeOptions, Resource, ResourceInfo, ResourceName,
    ResourceOptions, ResourceStatistics, ResyncAfter, ResyncProgress, ResyncSuspended, Role,
    RrConflict, Secret, Sectors, Setting, State, SuspendIoOptions, Suspended, Text, TimeoutType,
    Unit, UnknownAttr, UnknownWord, Uuid, VerifyOptions, VolumeNumber, WriteOrdering, split_brain,
};
pub use op::{Base, ConnectionRef, Operation, Outcome, PeerDeviceRef, Report};
pub use recover::{DiscardPlan, Loss};
#[cfg(feature = "tokio")]
pub use stream::{EventStream, Updates};
pub use watch::{Change, ObjectKey, Update, Watcher};
