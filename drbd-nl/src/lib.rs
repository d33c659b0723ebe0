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
