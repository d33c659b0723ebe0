//! Where a container's root file system is, and what keeps it there.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};

/// The inode number of every Btrfs subvolume's root directory
/// (`BTRFS_FIRST_FREE_OBJECTID`, btrfs_tree.h).
const SUBVOLUME_ROOT: u64 = 256;

/// Storage drivers that liblxc takes as a prefix, `driver:path`.
const DRIVERS: [&str; 9] = [
    "btrfs",
    "dir",
    "loop",
    "lvm",
    "nbd",
    "overlay",
    "overlayfs",
    "rbd",
    "zfs",
];

/// The value of `lxc.rootfs.path`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rootfs {
    /// The driver that is named, for example `btrfs`; `None` if liblxc picks
    /// one, which is `dir` for every directory, a Btrfs subvolume included.
    pub driver: Option<String>,
    /// The path after the driver.
    pub path: PathBuf,
}

impl Rootfs {
    pub(crate) fn parse(value: &OsStr) -> Self {
        let bytes = value.as_bytes();
        let named = bytes
            .iter()
            .position(|byte| *byte == b':')
            .and_then(|colon| {
                let (driver, rest) = (&bytes[..colon], &bytes[colon + 1..]);
                let driver = DRIVERS
                    .into_iter()
                    .find(|known| known.as_bytes() == driver)?;
                Some((driver.to_owned(), rest))
            });
        let (driver, path) = match named {
            Some((driver, path)) => (Some(driver), path),
            None => (None, bytes),
        };
        Self {
            driver,
            path: PathBuf::from(OsString::from_vec(path.to_vec())),
        }
    }

    /// Whether the path is a Btrfs subvolume.
    #[must_use]
    pub fn is_subvolume(&self) -> bool {
        is_subvolume(&self.path)
    }

    /// Whether this is a subvolume that liblxc will treat as a plain
    /// directory: then its snapshots are copies by rsync, and a clone as a
    /// snapshot is an overlay over the live original.
    #[must_use]
    pub fn loses_btrfs(&self) -> bool {
        !matches!(self.driver.as_deref(), Some("btrfs")) && self.is_subvolume()
    }
}

pub(crate) fn is_subvolume(path: &Path) -> bool {
    let btrfs = statfs(path).is_ok_and(|info| info.filesystem_type() == BTRFS_SUPER_MAGIC);
    btrfs && fs::metadata(path).is_ok_and(|meta| meta.is_dir() && meta.ino() == SUBVOLUME_ROOT)
}

/// Whether a container's directory holds snapshots.
pub(crate) fn has_snapshots(dir: &Path) -> bool {
    fs::read_dir(dir.join("snaps")).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_and_path() {
        let parse = |value: &str| {
            let rootfs = Rootfs::parse(OsStr::new(value));
            (rootfs.driver, rootfs.path)
        };
        assert_eq!(
            parse("btrfs:/a/rootfs"),
            (Some("btrfs".into()), "/a/rootfs".into())
        );
        assert_eq!(parse("/a:b/rootfs"), (None, "/a:b/rootfs".into()));
        assert_eq!(parse("/a/rootfs"), (None, "/a/rootfs".into()));
    }
}
