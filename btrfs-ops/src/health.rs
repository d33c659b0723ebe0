//! Is the file system all right? For a monitor that asks often.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::{Error, Result};
use crate::filesystem::{DeviceStats, Space, device_stats, devices_between, space_of, stats_of};
use crate::subvolume::DIRECTORY;
use crate::types::{Bytes, Uuid};
use crate::uapi;

/// Something that a monitor should tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Alarm {
    /// It is read-only and was not when the probe began: a transaction was
    /// aborted. Nothing will be written until it is mounted again.
    BecameReadOnly,
    /// Error counters of this device went up since the last look.
    DeviceErrors(u64),
    /// A device is missing.
    DeviceMissing,
    /// Metadata uses its emergency reserve: the file system is all but full.
    ReserveUsed(Bytes),
    /// Less than this is unallocated, and what is allocated for metadata is
    /// nearly full.
    MetadataNearlyFull(Bytes),
}

/// One look at a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Health {
    /// What is wrong; empty if nothing is.
    pub alarms: Vec<Alarm>,
    /// It is read-only, wanted or not.
    pub read_only: bool,
    /// What keeps other such operations out: `balance`, `resize`, ...
    pub exclusive_operation: Option<String>,
    /// Error counters, as the kernel has them since the device was made.
    pub counters: Vec<DeviceStats>,
    /// Errors of each device since the last look, all counters together.
    pub new_errors: BTreeMap<u64, u64>,
    /// How space is used.
    pub space: Space,
}

/// Looks at one mounted file system again and again. It holds nothing open
/// between two looks, so that it can be unmounted, and starts no program. A look
/// at a file system on one device takes ten system calls.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut probe = btrfs_ops::HealthProbe::new("/srv/store1")?;
/// loop {
///     for alarm in probe.look()?.alarms {
///         eprintln!("/srv/store1: {alarm:?}");
///     }
///     std::thread::sleep(std::time::Duration::from_secs(10));
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct HealthProbe {
    path: PathBuf,
    fsid: Uuid,
    began_read_only: bool,
    last: BTreeMap<u64, DeviceStats>,
}

impl HealthProbe {
    /// Begins with the counters as they are: older errors are no alarm.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotBtrfs`](crate::ErrorKind::NotBtrfs),
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let fd = open(&path)?;
        Ok(Self {
            fsid: crate::filesystem_info(&fd)?.fsid,
            began_read_only: is_read_only(&path, &fd)?,
            last: device_stats(&fd)?
                .into_iter()
                .map(|stats| (stats.device, stats))
                .collect(),
            path,
        })
    }

    /// Looks once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotBtrfs`](crate::ErrorKind::NotBtrfs) also if another file
    /// system is mounted there by now.
    pub fn look(&mut self) -> Result<Health> {
        let fd = open(&self.path)?;
        let info = uapi::fs_info(fd.as_fd(), 0).map_err(|errno| {
            Error::ioctl(
                crate::error::Request::FilesystemInfo,
                self.shown(),
                fd.as_fd(),
                errno,
            )
        })?;
        if Uuid::from_bytes(info.fsid) != Some(self.fsid) {
            let text = "another file system is mounted there";
            return Err(Error::message(
                crate::ErrorKind::NotBtrfs,
                "health",
                self.shown(),
                text,
            ));
        }
        let mut alarms = Vec::new();
        let read_only = is_read_only(&self.path, &fd)?;
        if read_only && !self.began_read_only {
            alarms.push(Alarm::BecameReadOnly);
        }
        let devices = devices_between(fd.as_fd(), 1, info.max_id)?;
        let counters = stats_of(fd.as_fd(), &devices)?;
        if (counters.len() as u64) < info.num_devices {
            alarms.push(Alarm::DeviceMissing);
        }
        let sum = |stats: &DeviceStats| {
            [
                stats.write_errors,
                stats.read_errors,
                stats.flush_errors,
                stats.corruption_errors,
                stats.generation_errors,
            ]
            .iter()
            .fold(0u64, |sum, count| sum.saturating_add(*count))
        };
        let mut new_errors = BTreeMap::new();
        for stats in &counters {
            // Less than before: somebody reset them.
            let before = self.last.get(&stats.device).map_or(0, sum);
            let new = sum(stats).checked_sub(before).unwrap_or_else(|| sum(stats));
            if new > 0 {
                alarms.push(Alarm::DeviceErrors(stats.device));
            }
            new_errors.insert(stats.device, new);
            self.last.insert(stats.device, *stats);
        }
        let space = space_of(fd.as_fd(), &devices)?;
        let reserve = space.reserve_used();
        if reserve.0 > 0 {
            alarms.push(Alarm::ReserveUsed(reserve));
        }
        if space.metadata_nearly_full() {
            alarms.push(Alarm::MetadataNearlyFull(space.unallocated));
        }
        // Linux 5.10.
        let exclusive_operation =
            read_short(&format!("/sys/fs/btrfs/{}/exclusive_operation", self.fsid))
                .filter(|name| !name.is_empty() && name != "none");
        Ok(Health {
            alarms,
            read_only,
            exclusive_operation,
            counters,
            new_errors,
            space,
        })
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

fn open(path: &Path) -> Result<std::os::fd::OwnedFd> {
    nix::fcntl::open(path, DIRECTORY, nix::sys::stat::Mode::empty())
        .map_err(|errno| Error::os("health", path.display().to_string(), errno))
}

/// A file of sysfs, in three system calls.
fn read_short(path: &str) -> Option<String> {
    let mut buffer = [0; 64];
    let count = fs::File::open(path).ok()?.read(&mut buffer).ok()?;
    let text = std::str::from_utf8(buffer.get(..count)?).ok()?;
    Some(text.trim().to_owned())
}

fn is_read_only(path: &Path, fd: impl AsFd) -> Result<bool> {
    let stat =
        fstatvfs(fd).map_err(|errno| Error::os("health", path.display().to_string(), errno))?;
    Ok(stat.flags().contains(FsFlags::ST_RDONLY))
}

/// What this kernel, this file system and this caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Capabilities {
    /// Trees can be searched: complete listings, parents by UUID, qgroups.
    pub tree_search: bool,
    /// The latest version of send streams that the kernel writes.
    pub send_version: u32,
    /// The kernel says when one deleted subvolume is cleaned (Linux 6.13).
    pub wait_for_one: bool,
    /// `rmdir` deletes empty subvolumes (Linux 4.18).
    pub rmdir_subvolume: bool,
    /// The exclusive operation can be read (Linux 5.10).
    pub exclusive_operation: bool,
}

impl Capabilities {
    /// Finds out by trying, without changing anything.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotBtrfs`](crate::ErrorKind::NotBtrfs).
    pub fn probe(fs: impl AsFd) -> Result<Self> {
        let fs = fs.as_fd();
        let info = crate::filesystem_info(fs)?;
        let features = Path::new("/sys/fs/btrfs/features");
        let version = fs::read_to_string(features.join("send_stream_version")).ok();
        Ok(Self {
            tree_search: crate::maintain::default_subvolume(fs).is_ok(),
            send_version: version
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(1),
            wait_for_one: uapi::pending_deletions(fs).is_ok(),
            rmdir_subvolume: features.join("rmdir_subvol").exists(),
            exclusive_operation: Path::new("/sys/fs/btrfs")
                .join(info.fsid.to_string())
                .join("exclusive_operation")
                .exists(),
        })
    }
}
