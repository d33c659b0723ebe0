//! DRBD's metadata on disk: read, create, change, apply the activity log, dump and restore.
//!
//! What `drbdmeta` does, as a library, for the parts a failover needs. A node that was lost while
//! primary cannot attach its disk again before its activity log has been applied:
//!
//! ```no_run
//! use drbd_md::{Target, activity_log_state, apply_activity_log};
//!
//! let disk = Target::internal("/dev/sdb1");
//! if activity_log_state(&disk)?.attach_refused {
//!     let applied = apply_activity_log(&disk)?;
//!     println!("{} extents marked out of sync", applied.extents.len());
//! }
//! # Ok::<(), drbd_md::Error>(())
//! ```
//!
//! A blank disk gets metadata; one that is not blank is refused, until what is to be lost is
//! named:
//!
//! ```no_run
//! use drbd_md::{CreateOptions, Overwrite, Target, create};
//!
//! let disk = Target::internal("/dev/sdb1");
//! let options = CreateOptions::default().overwrite(Overwrite::named("btrfs"));
//! println!("{} left for data", create(&disk, &options)?.usable);
//! # Ok::<(), drbd_md::Error>(())
//! ```
//!
//! The trap: the driver does not know that these functions run. Block devices are opened
//! exclusively, which fails while DRBD has them attached; with a regular file there is no such
//! guard but a lock among users of this crate.
//!
//! Every change is: read, check, write, flush, read back. What a crash in the middle leaves is said at
//! each function; it is the old state, the new one, or one that is named and refused until the call
//! is repeated.
//!
//! Not here: format v07, bitmaps of other than 4 KiB a bit, logs in persistent memory.

mod activity_log;
mod apply;
mod blkid;
mod change;
#[cfg(test)]
mod crash;
mod create;
mod device;
mod dump;
mod error;
mod layout;
mod probe;
mod resize;
mod superblock;
mod units;

use std::path::{Path, PathBuf};

pub use activity_log::LogFormat;
pub use apply::{ActivityLogState, Applied, activity_log_state, apply_activity_log};
pub use change::{Generations, convert, forget_peer, invalidate, outdate, set_generations, wipe};
pub use create::{CreateOptions, Created, Overwrite, create};
pub use dump::{Dump, DumpError, dump, dump_to_string};
pub use error::{Error, ErrorKind, Result};
pub use layout::Placement;
pub use probe::{Found, Signature, probe};
pub use resize::{LastKnown, Moved, internal_usable, move_after_grow, read_before_grow};
pub use superblock::{Flags, Format, Peer, PeerFlags, Superblock};
pub use units::{Sectors, Uuid};

use device::{Access, Device};
use error::Cause;

/// A device, or regular file, and where on it the metadata is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub(crate) path: PathBuf,
    pub(crate) placement: Placement,
}

impl Target {
    /// Metadata at the end of the device that holds the data (`meta-disk internal`).
    pub fn internal(path: impl Into<PathBuf>) -> Target {
        Target {
            path: path.into(),
            placement: Placement::Internal,
        }
    }

    /// Metadata that fills a device of its own (`meta-disk /dev/…`, without an index).
    pub fn flexible_external(path: impl Into<PathBuf>) -> Target {
        Target {
            path: path.into(),
            placement: Placement::FlexibleExternal,
        }
    }

    /// Metadata in one of the slots of 128 MiB of a device of its own (`meta-disk /dev/…[N]`).
    pub fn indexed(path: impl Into<PathBuf>, slot: u32) -> Target {
        Target {
            path: path.into(),
            placement: Placement::Indexed(slot),
        }
    }

    /// Returns the device that holds the metadata.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where on the device the metadata is.
    pub fn placement(&self) -> Placement {
        self.placement
    }
}

/// Reads the superblock of a device of format v08 or v09.
///
/// The device may be in use; the driver writes the superblock seldom, so the answer may be old.
///
/// # Errors
/// `NoMetadata` if there is none of these formats at its place, `Corrupt` if there is one whose
/// numbers do not fit the device (as after the device was resized), `TooSmall`, and the errors of
/// opening and reading.
///
/// # Privileges
/// Permission to read the device.
pub fn read(target: &Target) -> Result<Superblock> {
    let device = Device::open(&target.path, Access::Read, "read metadata of")?;
    let at = layout::superblock_offset(target.placement, device.size());
    probe::superblock(target, &device)?.ok_or_else(|| device.error(at, Cause::NoMetadata))
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
