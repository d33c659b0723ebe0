//! Where a container's root file system is, and what keeps it there.
#![allow(unsafe_code, reason = "one ioctl of Btrfs")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};

use crate::layout;

/// The inode number of every Btrfs subvolume's root directory
/// (`BTRFS_FIRST_FREE_OBJECTID`, btrfs_tree.h).
const SUBVOLUME_ROOT: u64 = 256;

/// The value of `lxc.rootfs.path`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Rootfs {
    /// The driver that is named, for example `btrfs`; `None` if liblxc picks
    /// one, which is `dir` for every directory, a Btrfs subvolume included.
    pub driver: Option<String>,
    /// The path after the driver.
    pub path: PathBuf,
}

impl Rootfs {
    /// Splits a value as liblxc does: the first colon ends the driver.
    pub(crate) fn parse(value: &OsStr) -> Self {
        let bytes = value.as_bytes();
        let (driver, path) = match bytes.iter().position(|byte| *byte == b':') {
            Some(colon) => (Some(&bytes[..colon]), &bytes[colon + 1..]),
            None => (None, bytes),
        };
        Self {
            driver: driver.map(|driver| String::from_utf8_lossy(driver).into_owned()),
            path: PathBuf::from(OsString::from_vec(path.to_vec())),
        }
    }

    /// Finds the value in the text of a configuration. liblxc itself only
    /// tells the path: `get_config_item` leaves the driver out.
    pub(crate) fn in_config(text: &[u8]) -> Option<Self> {
        last_value(text, 0).map(|value| Self::parse(&value))
    }

    /// Whether the path is a Btrfs subvolume.
    #[must_use]
    pub fn is_subvolume(&self) -> bool {
        is_subvolume(&self.path)
    }

    /// How many subvolumes there are inside this one. Btrfs snapshots, and so
    /// LXC's, do not contain them: they have empty directories in their place.
    ///
    /// # Errors
    ///
    /// The errno of the question; `ENOTTY` for something else than Btrfs.
    ///
    /// # Kernel support
    ///
    /// 4.18.
    #[doc(alias = "BTRFS_IOC_GET_SUBVOL_ROOTREF")]
    pub fn nested_subvolumes(&self) -> io::Result<usize> {
        nested_subvolumes(&self.path)
    }

    /// As it stands in a configuration: driver, colon, path.
    #[must_use]
    pub fn to_value(&self) -> OsString {
        let mut value = OsString::new();
        if let Some(driver) = &self.driver {
            value.push(driver);
            value.push(":");
        }
        value.push(&self.path);
        value
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

/// `struct btrfs_ioctl_get_subvol_rootref_args`, linux/btrfs.h.
#[repr(C)]
struct RootRefs {
    /// In and out: the smallest id of interest.
    least: u64,
    /// Id of a subvolume, and of the directory it is in.
    refs: [[u64; 2]; 255],
    count: u8,
    unused: [u8; 7],
}

const _: () = assert!(size_of::<RootRefs>() == 4096);

nix::ioctl_readwrite!(btrfs_subvolume_refs, 0x94, 61, RootRefs);

fn nested_subvolumes(path: &Path) -> io::Result<usize> {
    let dir = File::open(path)?;
    let mut refs = RootRefs {
        least: 0,
        refs: [[0; 2]; 255],
        count: 0,
        unused: [0; 7],
    };
    let mut found = 0;
    loop {
        // SAFETY: reads and writes one `RootRefs`, whose size is asserted above.
        let asked = unsafe { btrfs_subvolume_refs(dir.as_raw_fd(), &mut refs) };
        found += usize::from(refs.count);
        match asked {
            // There are more than fit; `least` is now behind the last one.
            Err(Errno::EOVERFLOW) if refs.count > 0 => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(found),
        }
    }
}

/// How deep includes are followed.
const DEEP: u32 = 8;

/// The value of the last `lxc.rootfs.path` in a configuration and what it includes.
fn last_value(text: &[u8], depth: u32) -> Option<OsString> {
    let mut found = None;
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let value = OsStr::from_bytes(line[equals + 1..].trim_ascii());
        match line[..equals].trim_ascii_end() {
            b"lxc.rootfs.path" => found = Some(value.to_owned()),
            b"lxc.include" if depth < DEEP => {
                for file in included(Path::new(value)) {
                    let text = fs::read(file).unwrap_or_default();
                    found = last_value(&text, depth + 1).or(found);
                }
            }
            _ => {}
        }
    }
    found
}

/// A file, or the `.conf` files of a directory.
fn included(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return vec![path.to_owned()];
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "conf")
    });
    files.sort();
    files
}

/// Whether a container's directory holds snapshots.
pub(crate) fn has_snapshots(dir: &Path) -> bool {
    fs::read_dir(layout::snapshots_dir(dir)).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
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
        assert_eq!(parse("/a/rootfs"), (None, "/a/rootfs".into()));
    }

    #[test]
    fn the_last_line_counts_and_includes_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let common = dir.path().join("a.conf");
        fs::write(&common, "lxc.rootfs.path = dir:/included\n").unwrap();
        let text = format!(
            "lxc.rootfs.path = btrfs:/own\nlxc.include = {}\n",
            dir.path().display()
        );
        let rootfs = Rootfs::in_config(text.as_bytes()).unwrap();
        assert_eq!(
            (rootfs.driver.as_deref(), rootfs.path.to_str()),
            (Some("dir"), Some("/included"))
        );
        let text = format!("lxc.include={}\n  lxc.rootfs.path=/own\n", common.display());
        let rootfs = Rootfs::in_config(text.as_bytes()).unwrap();
        assert_eq!((rootfs.driver, rootfs.path.to_str()), (None, Some("/own")));
        assert_eq!(Rootfs::in_config(b"# lxc.rootfs.path = /x\n"), None);
        // One that includes itself ends.
        fs::write(&common, format!("lxc.include = {}\n", common.display())).unwrap();
        assert_eq!(Rootfs::in_config(&fs::read(&common).unwrap()), None);
    }
}
