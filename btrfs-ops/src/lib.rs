//! Btrfs subvolumes and snapshots by ioctl.
//!
//! ```no_run
//! use btrfs_ops::{Access, DeleteOptions, Scope, Subvolume};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Subvolume::open("/srv/store1")?;
//! let rootfs = Subvolume::create(&store, "rootfs")?;
//! rootfs.snapshot(&store, "before-upgrade", Access::ReadOnly)?;
//! for subvolume in btrfs_ops::list(&store, Scope::Below)?.subvolumes {
//!     println!("{} {}", subvolume.info.id, subvolume.path.display());
//! }
//! btrfs_ops::delete(&store, "before-upgrade", &DeleteOptions::new().durable())?;
//! # Ok(())
//! # }
//! ```
//!
//! Verbs take descriptors, so that a path that changes under them cannot lead
//! them elsewhere; `*_path` functions open the directory part of a path for
//! callers that have one. Names are bytes and are checked before the kernel
//! sees them. Which way is taken where the kernel offers a privileged and an
//! unprivileged one is found by trying, and each function says what it needs.
//!
//! The traps that this crate deals with are described where they are dealt
//! with: asynchronous deletion and mounted subvolumes at [`delete`], the
//! received UUID at [`Subvolume::make_writable`], what a snapshot holds at
//! [`Subvolume::snapshot`].
//!
//! # What it does not do
//!
//! It does not make file systems or mount them, does not add, replace or remove
//! devices, and starts no program.

mod delete;
mod error;
mod filesystem;
mod group;
mod health;
mod incremental;
mod list;
mod maintain;
mod mounts;
mod nested;
mod progress;
mod receive;
mod resize;
pub mod retention;
mod search;
mod send;
pub mod stream;
mod subvolume;
#[cfg(feature = "serde")]
mod text;
mod tree;
mod types;
mod uapi;

pub use delete::{DeleteOptions, Deleted, delete, delete_by_id, delete_path};
pub use error::{Error, ErrorKind, MountedAt, Result};
pub use filesystem::{
    BlockGroupKind, Device, DeviceStats, FilesystemInfo, Profile, Space, SpaceGroup, device_stats,
    devices, filesystem_info, label, set_label, space, sync, wait_cleaned,
};
pub use group::{Freeze, GroupSnapshot, Member, snapshot_group};
pub use health::{Alarm, Capabilities, Health, HealthProbe};
pub use incremental::{Common, Relation, SendPlan, Unusable, incremental};
#[doc(hidden)]
pub use list::list_by_walking;
pub use list::{Listed, Listing, Method, Scope, Unreachable, list};
pub use maintain::{
    BalanceFilter, BalanceStatus, Qgroup, QgroupId, ScrubCounters, assign_qgroup, balance,
    balance_cancel, balance_pause, balance_resume, balance_status, create_qgroup,
    default_subvolume, disable_quotas, enable_quotas, limit_qgroup, qgroups, quota_rescan_runs,
    remove_qgroup, rescan_quotas, scrub, scrub_all, scrub_cancel, scrub_status,
    set_default_subvolume,
};
pub use nested::{NestedSnapshot, delete_nested, exchange};
pub use progress::Progress;
pub use receive::{
    Partial, ReceiveOptions, Received, ReceivedOnto, ReceivedSubvolume, origin, partial_receives,
    receive, remove_partial_receives,
};
pub use resize::{Resized, Size, resize};
pub use send::{Estimate, SendOptions, SendStream, Sent};
pub use subvolume::{Access, ReceivedUuid, Subvolume, SubvolumeInfo, info, is_subvolume};
pub use tree::SubvolumeTree;
pub use types::{Bytes, Generation, SubvolId, Uuid};

pub(crate) use filesystem::is_btrfs;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
