//! A whole file system: identity, devices, space, commits.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statfs::fstatfs;

use crate::error::{Error, ErrorKind, Request, Result, id_target};
use crate::list::is_live_or_pending;
use crate::subvolume::target;
use crate::types::{Bytes, Generation, SubvolId, Uuid};
use crate::uapi;

/// Is `fd` on a Btrfs file system? `None` if that cannot be found out.
pub(crate) fn is_btrfs(fd: BorrowedFd<'_>) -> Option<bool> {
    // The type's width differs by architecture; the magic is 32 bits.
    fstatfs(fd)
        .ok()
        .map(|s| s.filesystem_type().0 as u32 == uapi::BTRFS_SUPER_MAGIC)
}

/// Identity and geometry (`struct btrfs_ioctl_fs_info_args`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FilesystemInfo {
    /// UUID of the file system. Equality of this, not of `st_dev`, says that two
    /// descriptors are on the same file system.
    pub fsid: Uuid,
    /// Last committed transaction; `None` before Linux 5.10.
    pub generation: Option<Generation>,
    /// The label, as bytes; empty if none was given.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub label: OsString,
    /// Number of devices.
    pub devices: u64,
    /// Size of a metadata node.
    pub node_size: Bytes,
    /// Size of a sector.
    pub sector_size: Bytes,
}

/// Reads identity and geometry of the file system that `fd` is on.
///
/// # Errors
///
/// [`ErrorKind::NotBtrfs`].
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = std::fs::File::open("/srv/store1")?;
/// println!("fsid {}", btrfs_ops::filesystem_info(&store)?.fsid);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "BTRFS_IOC_FS_INFO")]
pub fn filesystem_info(fd: impl AsFd) -> Result<FilesystemInfo> {
    let fd = fd.as_fd();
    let request = Request::FilesystemInfo;
    let wrap = |errno| Error::ioctl(request, target(fd), fd, errno);
    let args = uapi::fs_info(fd, uapi::FS_INFO_FLAG_GENERATION).map_err(wrap)?;
    let fsid = Uuid::from_bytes(args.fsid).ok_or_else(|| {
        Error::message(
            ErrorKind::Malformed,
            request.op(),
            target(fd),
            "the fsid is zero",
        )
    })?;
    // Flags come back as those the kernel knows and has answered.
    let answered = args.flags & uapi::FS_INFO_FLAG_GENERATION != 0;
    Ok(FilesystemInfo {
        fsid,
        generation: answered.then_some(Generation(args.generation)),
        label: label(fd)?,
        devices: args.num_devices,
        node_size: Bytes(args.nodesize.into()),
        sector_size: Bytes(args.sectorsize.into()),
    })
}

/// Reads the label; empty if none was given.
///
/// # Errors
///
/// [`ErrorKind::NotBtrfs`].
#[doc(alias = "BTRFS_IOC_GET_FSLABEL")]
pub fn label(fd: impl AsFd) -> Result<OsString> {
    let fd = fd.as_fd();
    require_btrfs(fd)?;
    let bytes = uapi::get_label(fd).map_err(|e| Error::ioctl(Request::Label, target(fd), fd, e))?;
    Ok(OsString::from_vec(bytes))
}

/// Changes the label; an empty one removes it. Commits a transaction.
///
/// # Errors
///
/// [`ErrorKind::InvalidName`] if it is longer than 255 bytes or contains a NUL
/// or newline; [`ErrorKind::ReadOnly`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_SET_FSLABEL")]
pub fn set_label(fd: impl AsFd, label: impl AsRef<OsStr>) -> Result<()> {
    let (fd, label) = (fd.as_fd(), label.as_ref());
    let bytes = label.as_bytes();
    if bytes.len() > 255 || bytes.iter().any(|b| matches!(b, 0 | b'\n')) {
        let text = "a label has at most 255 bytes, and no NUL or newline";
        let shown = label.display().to_string();
        return Err(Error::message(
            ErrorKind::InvalidName,
            Request::Label.op(),
            shown,
            text,
        ));
    }
    require_btrfs(fd)?;
    uapi::set_label(fd, bytes).map_err(|e| Error::ioctl(Request::Label, target(fd), fd, e))
}

/// Other file systems have the same requests for their labels.
fn require_btrfs(fd: BorrowedFd<'_>) -> Result<()> {
    if is_btrfs(fd) == Some(true) {
        return Ok(());
    }
    let text = "not on a Btrfs file system";
    Err(Error::message(
        ErrorKind::NotBtrfs,
        Request::Label.op(),
        target(fd),
        text,
    ))
}

/// One device of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Device {
    /// Its number in the file system.
    pub id: u64,
    /// Its UUID in the file system.
    pub uuid: Option<Uuid>,
    /// The path the kernel knows it by; `None` if the device is missing. It may
    /// be another name of the device than the one given to `mount`.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::option"))]
    pub path: Option<PathBuf>,
    /// Its size as Btrfs uses it.
    pub total: Bytes,
    /// How much of that is allocated to block groups.
    pub allocated: Bytes,
}

/// Lists the devices of the file system that `fd` is on.
///
/// # Errors
///
/// [`ErrorKind::NotBtrfs`].
#[doc(alias = "BTRFS_IOC_DEV_INFO")]
pub fn devices(fd: impl AsFd) -> Result<Vec<Device>> {
    let fd = fd.as_fd();
    let wrap = |errno| Error::ioctl(Request::FilesystemInfo, target(fd), fd, errno);
    let fs = uapi::fs_info(fd, 0).map_err(wrap)?;
    // Device 0 exists while one is being replaced.
    devices_between(fd, 0, fs.max_id)
}

pub(crate) fn devices_between(fd: BorrowedFd<'_>, least: u64, most: u64) -> Result<Vec<Device>> {
    let wrap = |errno| Error::ioctl(Request::FilesystemInfo, target(fd), fd, errno);
    let mut devices = Vec::new();
    // Numbers have gaps where devices were removed.
    for id in least..=most {
        let args = match uapi::dev_info(fd, id) {
            Ok(args) => args,
            Err(Errno::ENODEV) => continue,
            Err(errno) => return Err(wrap(errno)),
        };
        let path = uapi::until_nul(&args.path);
        devices.push(Device {
            id: args.devid,
            uuid: Uuid::from_bytes(args.uuid),
            path: (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path))),
            total: Bytes(args.total_bytes),
            allocated: Bytes(args.bytes_used),
        });
    }
    Ok(devices)
}

/// Error counters of one device. They survive unmounting: compare them with an
/// earlier reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DeviceStats {
    /// The device's number in the file system.
    pub device: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Flushes that failed.
    pub flush_errors: u64,
    /// Blocks whose checksum or content was wrong.
    pub corruption_errors: u64,
    /// Blocks whose transaction number was wrong: a write was lost.
    pub generation_errors: u64,
}

impl DeviceStats {
    /// True if any counter is above zero.
    #[must_use]
    pub fn any(&self) -> bool {
        self.write_errors != 0
            || self.read_errors != 0
            || self.flush_errors != 0
            || self.corruption_errors != 0
            || self.generation_errors != 0
    }
}

/// Reads the error counters of all devices that are present.
///
/// # Errors
///
/// [`ErrorKind::NotBtrfs`].
#[doc(alias = "BTRFS_IOC_GET_DEV_STATS")]
pub fn device_stats(fd: impl AsFd) -> Result<Vec<DeviceStats>> {
    let fd = fd.as_fd();
    stats_of(fd, &devices(fd)?)
}

pub(crate) fn stats_of(fd: BorrowedFd<'_>, devices: &[Device]) -> Result<Vec<DeviceStats>> {
    let mut all = Vec::new();
    for device in devices {
        match uapi::dev_stats(fd, device.id) {
            Ok([write, read, flush, corruption, generation]) => all.push(DeviceStats {
                device: device.id,
                write_errors: write,
                read_errors: read,
                flush_errors: flush,
                corruption_errors: corruption,
                generation_errors: generation,
            }),
            Err(Errno::ENODEV) => {}
            Err(errno) => {
                return Err(Error::ioctl(Request::DeviceStats, target(fd), fd, errno));
            }
        }
    }
    Ok(all)
}

/// What a block group holds (`BTRFS_BLOCK_GROUP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum BlockGroupKind {
    /// File content.
    Data,
    /// The chunk tree.
    System,
    /// Everything else.
    Metadata,
    /// Data and metadata together (`mkfs.btrfs --mixed`).
    Mixed,
    /// The part of metadata kept for emergencies; used above zero is an alarm.
    GlobalReserve,
    /// A combination without a name here, as received.
    Other(u64),
}

/// How a block group is spread over devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Profile {
    /// One copy.
    Single,
    /// Two copies, which may be on one device.
    Dup,
    /// Striped.
    Raid0,
    /// Two copies on two devices.
    Raid1,
    /// Three copies.
    Raid1c3,
    /// Four copies.
    Raid1c4,
    /// Mirrored and striped.
    Raid10,
    /// Single parity.
    Raid5,
    /// Double parity.
    Raid6,
    /// A combination without a name here, as received.
    Other(u64),
}

/// Space of one kind and profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SpaceGroup {
    /// What it holds.
    pub kind: BlockGroupKind,
    /// How it is spread; one logical byte takes two on the devices with
    /// [`Profile::Dup`].
    pub profile: Profile,
    /// Allocated to this kind, in logical bytes.
    pub allocated: Bytes,
    /// Of that, used.
    pub used: Bytes,
}

/// Space of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Space {
    /// One row for each kind and profile in use.
    pub groups: Vec<SpaceGroup>,
    /// Size of all devices.
    pub total: Bytes,
    /// Not allocated to any block group, over all devices. When this is zero,
    /// metadata can be full while data has room.
    pub unallocated: Bytes,
}

impl Space {
    /// Less than an eighth of what is allocated for metadata is free, the
    /// emergency reserve not counted, and not enough is unallocated for another block group of 256 MiB, or of a tenth
    /// of a small file system. Snapshots and deletions may fail then while there
    /// is room for content.
    #[must_use]
    pub fn metadata_nearly_full(&self) -> bool {
        let metadata = self
            .groups
            .iter()
            .filter(|group| matches!(group.kind, BlockGroupKind::Metadata | BlockGroupKind::Mixed));
        let (allocated, used) = metadata.fold((0u64, 0u64), |(allocated, used), group| {
            (allocated + group.allocated.0, used + group.used.0)
        });
        let reserve = self
            .groups
            .iter()
            .find(|group| group.kind == BlockGroupKind::GlobalReserve)
            .map_or(0, |group| group.allocated.0);
        let free = allocated.saturating_sub(used).saturating_sub(reserve);
        let room = (256 << 20).min(self.total.0 / 10);
        free < allocated / 8 && self.unallocated.0 < room
    }

    /// Used bytes of the emergency reserve: above zero means that metadata is
    /// all but full.
    #[must_use]
    pub fn reserve_used(&self) -> Bytes {
        let reserve = |group: &&SpaceGroup| group.kind == BlockGroupKind::GlobalReserve;
        Bytes(
            self.groups
                .iter()
                .filter(reserve)
                .map(|group| group.used.0)
                .sum(),
        )
    }
}

/// Reads how space is allocated and used. `statvfs` (what `df` shows) misleads
/// on Btrfs.
///
/// # Errors
///
/// [`ErrorKind::NotBtrfs`].
#[doc(alias = "BTRFS_IOC_SPACE_INFO")]
pub fn space(fd: impl AsFd) -> Result<Space> {
    let fd = fd.as_fd();
    space_of(fd, &devices(fd)?)
}

pub(crate) fn space_of(fd: BorrowedFd<'_>, devices: &[Device]) -> Result<Space> {
    let rows = uapi::space_info(fd).map_err(|e| Error::ioctl(Request::Space, target(fd), fd, e))?;
    let groups = rows
        .into_iter()
        .map(|row| SpaceGroup {
            kind: group_kind(row.flags),
            profile: profile(row.flags),
            allocated: Bytes(row.total_bytes),
            used: Bytes(row.used_bytes),
        })
        .collect();
    let total = devices.iter().map(|d| d.total.0).sum();
    let unallocated = devices
        .iter()
        .map(|d| d.total.0.saturating_sub(d.allocated.0))
        .sum();
    Ok(Space {
        groups,
        total: Bytes(total),
        unallocated: Bytes(unallocated),
    })
}

/// `BTRFS_BLOCK_GROUP_DATA`, `_SYSTEM`, `_METADATA`, and
/// `BTRFS_SPACE_INFO_GLOBAL_RSV`, btrfs_tree.h.
fn group_kind(flags: u64) -> BlockGroupKind {
    const GLOBAL_RSV: u64 = 1 << 49;
    match flags & (0b111 | GLOBAL_RSV) {
        1 => BlockGroupKind::Data,
        2 => BlockGroupKind::System,
        4 => BlockGroupKind::Metadata,
        5 => BlockGroupKind::Mixed,
        other if other & GLOBAL_RSV != 0 => BlockGroupKind::GlobalReserve,
        other => BlockGroupKind::Other(other),
    }
}

/// `BTRFS_BLOCK_GROUP_RAID0` to `_RAID1C4`, btrfs_tree.h.
fn profile(flags: u64) -> Profile {
    match flags & 0x7f8 {
        0 => Profile::Single,
        0x008 => Profile::Raid0,
        0x010 => Profile::Raid1,
        0x020 => Profile::Dup,
        0x040 => Profile::Raid10,
        0x080 => Profile::Raid5,
        0x100 => Profile::Raid6,
        0x200 => Profile::Raid1c3,
        0x400 => Profile::Raid1c4,
        other => Profile::Other(other),
    }
}

/// Writes everything of this file system to its devices and commits. Blocks
/// until that is done; the promise then covers everything before the call.
///
/// # Errors
///
/// [`ErrorKind::NotBtrfs`], [`ErrorKind::Device`].
#[doc(alias = "BTRFS_IOC_SYNC")]
pub fn sync(fd: impl AsFd) -> Result<()> {
    let fd = fd.as_fd();
    uapi::sync(fd).map_err(|errno| Error::ioctl(Request::Sync, target(fd), fd, errno))
}

/// Waits until a deleted subvolume is cleaned: its space is free.
///
/// Commits first, as the cleaner starts after a commit (without that the wait
/// was seen to take a minute). Polls, so the timeout holds.
///
/// Without `CAP_SYS_ADMIN` the kernel does not say when one subvolume is
/// cleaned; then this waits until no deletion at all is pending.
///
/// # Errors
///
/// [`ErrorKind::TimedOut`]; [`ErrorKind::AlreadyExists`] if the subvolume is
/// not deleted (seen with `CAP_SYS_ADMIN` only); [`ErrorKind::Permission`]
/// without it before Linux 6.13.
#[doc(alias = "BTRFS_IOC_SUBVOL_SYNC_WAIT")]
pub fn wait_cleaned(fs: impl AsFd, id: SubvolId, timeout: Duration) -> Result<()> {
    let begun = Instant::now();
    sync(&fs)?;
    wait_cleaned_since(fs.as_fd(), id, begun, timeout)
}

pub(crate) fn wait_cleaned_since(
    fs: BorrowedFd<'_>,
    id: SubvolId,
    begun: Instant,
    timeout: Duration,
) -> Result<()> {
    let request = Request::WaitCleaned;
    let shown = || format!("{} of {}", id_target(id), target(fs));
    let mut step = Duration::from_millis(1);
    loop {
        match is_live_or_pending(fs, id) {
            Ok(None) => return Ok(()),
            Ok(Some(true)) => {
                let text = "the subvolume is not deleted";
                return Err(Error::message(
                    ErrorKind::AlreadyExists,
                    request.op(),
                    shown(),
                    text,
                ));
            }
            Ok(Some(false)) => {}
            Err(error) if error.kind() == ErrorKind::Permission => {
                match uapi::pending_deletions(fs) {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    // Before 6.13 the search is the only way.
                    Err(Errno::ENOTTY) => {
                        let text = "deleted, but seeing when it is cleaned needs CAP_SYS_ADMIN \
                                    (or Linux 6.13)";
                        return Err(Error::message(
                            ErrorKind::Permission,
                            request.op(),
                            shown(),
                            text,
                        ));
                    }
                    Err(errno) => return Err(Error::ioctl(request, shown(), fs, errno)),
                }
            }
            Err(error) => return Err(error),
        }
        let left = timeout.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let text = "deleted, but not cleaned before the deadline";
            return Err(Error::message(
                ErrorKind::TimedOut,
                request.op(),
                shown(),
                text,
            ));
        }
        thread::sleep(left.min(step));
        step = (step * 2).min(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_names() {
        assert_eq!(group_kind(1), BlockGroupKind::Data);
        assert_eq!(group_kind(0x22), BlockGroupKind::System);
        assert_eq!(group_kind(4 | 1 << 49), BlockGroupKind::GlobalReserve);
        assert_eq!(group_kind(1 << 49), BlockGroupKind::GlobalReserve);
        assert_eq!(group_kind(6), BlockGroupKind::Other(6));
        assert_eq!(profile(0x24), Profile::Dup);
        assert_eq!(profile(0x18), Profile::Other(0x18));
    }
}
