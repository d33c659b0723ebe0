//! Mount tables, mounting and unmounting.
//!
//! Btrfs is mounted by the path of its device only. A label or UUID is found on
//! the disk below DRBD too, and mounting that would write behind DRBD's back.
//! What was mounted is checked before it is attached to its place, so a wrong
//! mount is never seen by anyone.

mod btrfs;
mod mkfs;
mod source;
mod table;
mod verbs;

pub use btrfs::{BtrfsOnDevice, Fsid, find_btrfs};
pub use mkfs::{Overwrite, mkfs_btrfs};
pub use table::{DeviceNumber, Mount, NamespaceTable, all_namespaces, table, table_of};
pub use verbs::{MountOptions, Mounted, mount_btrfs, unmount};

pub(crate) use table::{block_device, unescape};
pub(crate) use verbs::mount_id;
