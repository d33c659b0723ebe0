//! Mounting and unmounting.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;

use super::btrfs::{Fsid, find_btrfs};
use super::source::check_device;
use super::table::{DeviceNumber, Mount, table};
use crate::error::{Error, ErrorKind, Result};
use crate::{Outcome, holders, sys};

const MOUNT: &str = "mount";
const UNMOUNT: &str = "unmount";

/// How to mount. By default: the top level (`subvolid=5`), whatever the file
/// system's default subvolume is, writable, on an empty directory.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct MountOptions {
    subvolume: Option<PathBuf>,
    read_only: bool,
    no_atime: bool,
    over_content: bool,
    more: Vec<(String, Option<String>)>,
}

impl MountOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows this subvolume, by its path below the top level.
    pub fn subvolume(mut self, path: impl Into<PathBuf>) -> Self {
        self.subvolume = Some(path.into());
        self
    }

    /// Makes superblock and mount read-only. Btrfs may still write to the device
    /// then, to replay its log.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Does not update access times.
    pub fn no_atime(mut self) -> Self {
        self.no_atime = true;
        self
    }

    /// Accepts a target directory with entries, which the mount then hides.
    pub fn over_content(mut self) -> Self {
        self.over_content = true;
        self
    }

    /// Passes a further option of Btrfs, such as `commit` with `5`, or a flag
    /// with `None`. See btrfs(5).
    pub fn option(mut self, key: impl Into<String>, value: Option<&str>) -> Self {
        self.more.push((key.into(), value.map(str::to_owned)));
        self
    }

    /// The subvolume's path from the top level, as a mount table shows it.
    fn root(&self) -> PathBuf {
        let wanted = self.subvolume.as_deref().unwrap_or(Path::new(""));
        let parts = wanted
            .components()
            .filter(|part| matches!(part, Component::Normal(_)));
        Path::new("/").join(parts.collect::<PathBuf>())
    }
}

/// The result of [`mount_btrfs`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mounted {
    /// Whether it was mounted now or had been before.
    pub outcome: Outcome,
    /// The file system.
    pub fsid: Fsid,
    /// The mount's line in the mount table.
    pub mount: Mount,
}

/// Mounts the Btrfs on the block device `device` at the directory `target`.
///
/// The mount is made first, checked (it is Btrfs, and the kernel uses this very
/// device for it), and then attached to `target`. If the same is mounted there
/// already, with the same subvolume and access, that is success. Blocks as long
/// as the kernel does: it may read much and replay a log.
///
/// # Errors
///
/// [`ErrorKind::NotBlockDevice`] for anything but the absolute path of a block
/// device; labels and UUIDs are refused, links made of them too.
/// [`ErrorKind::NotReady`] for a DRBD device that is Secondary.
/// [`ErrorKind::WrongFileSystem`] if there is no Btrfs on it, or the kernel
/// took another device for it. [`ErrorKind::AlreadyMounted`] if something else
/// is at `target`, or a copy of the file system, with its UUID, is mounted. [`ErrorKind::NotFound`], [`ErrorKind::NotDirectory`],
/// [`ErrorKind::NotEmpty`] for the target.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
///
/// # Kernel support
///
/// Linux 5.2.
#[doc(alias = "fsopen", alias = "fsmount", alias = "move_mount")]
pub fn mount_btrfs(device: &Path, target: &Path, options: &MountOptions) -> Result<Mounted> {
    let number = check_device(MOUNT, device)?;
    let shown = || format!("{} at {}", device.display(), target.display());
    let refuse = |kind, text: String| Err(Error::message(kind, MOUNT, shown(), text));
    if let Some(wanted) = &options.subvolume
        && wanted.components().any(|part| part == Component::ParentDir)
    {
        let text = format!("subvolume {} contains '..'", wanted.display());
        return refuse(ErrorKind::InvalidArgument, text);
    }
    let place = open_directory(MOUNT, target)?;
    if let Some(there) = mount_rooted_at(place.as_fd())? {
        return same(&there, number, options, &place).map_or_else(
            || {
                let text = format!(
                    "{} of {} {} is mounted there",
                    there.root.display(),
                    there.fs_type.display(),
                    there.source.display()
                );
                refuse(ErrorKind::AlreadyMounted, text)
            },
            |fsid| {
                Ok(Mounted {
                    outcome: Outcome::AlreadyThere,
                    fsid,
                    mount: there.clone(),
                })
            },
        );
    }
    if !options.over_content && !is_empty(target)? {
        let text = "the target directory is not empty, and the mount would hide its entries";
        return refuse(ErrorKind::NotEmpty, text.into());
    }
    let Some(on_device) = find_btrfs(device)? else {
        return refuse(
            ErrorKind::WrongFileSystem,
            "there is no Btrfs on the device".into(),
        );
    };

    let mount = make(device, options)?;
    let root = openat(
        &mount,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| Error::os(MOUNT, shown(), errno))?;
    let fsid = sys::btrfs_fsid(root.as_fd())
        .map(Fsid::from_bytes)
        .map_err(|errno| {
            Error::os(MOUNT, shown(), errno).with_text("what was mounted is not Btrfs")
        })?;
    // Or the mount would stay busy for as long as this function runs.
    drop(root);
    if fsid != on_device.fsid {
        let text = format!(
            "the kernel mounted {fsid}, but the device holds {}",
            on_device.fsid
        );
        return refuse(ErrorKind::WrongFileSystem, text);
    }
    if !devices_of(fsid)?.contains(&number) {
        let text = format!("the kernel uses another device for {fsid}, which has the same UUID");
        return refuse(ErrorKind::WrongFileSystem, text);
    }
    sys::move_mount(mount.as_fd(), place.as_fd())
        .map_err(|errno| Error::os(MOUNT, shown(), errno).with_text("cannot attach the mount"))?;
    let id = mount_id(mount.as_fd())?;
    let mount = table()?
        .into_iter()
        .find(|row| Some(row.id) == id)
        .ok_or_else(|| {
            let text = "mounted, but it is not in the mount table: something else unmounted it";
            Error::message(ErrorKind::Other, MOUNT, shown(), text)
        })?;
    Ok(Mounted {
        outcome: Outcome::Done,
        fsid,
        mount,
    })
}

/// Is what is at the target what was asked for? Then its fsid.
fn same(
    there: &Mount,
    device: DeviceNumber,
    options: &MountOptions,
    place: &OwnedFd,
) -> Option<Fsid> {
    let matches = there.fs_type == "btrfs"
        && there.root == options.root()
        && there.is_read_only() == options.read_only;
    if !matches {
        return None;
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = openat(place, ".", flags, Mode::empty()).ok()?;
    let fsid = sys::btrfs_fsid(root.as_fd()).map(Fsid::from_bytes).ok()?;
    devices_of(fsid).ok()?.contains(&device).then_some(fsid)
}

/// Makes a mount that is attached nowhere.
fn make(device: &Path, options: &MountOptions) -> Result<OwnedFd> {
    let shown = || device.display().to_string();
    let c_string = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| {
            let text = "an option contains a NUL byte";
            Error::message(ErrorKind::InvalidArgument, MOUNT, shown(), text)
        })
    };
    let fs = sys::fsopen(c"btrfs").map_err(|errno| match errno {
        Errno::ENODEV => Error::os(MOUNT, shown(), errno)
            .with_kind(ErrorKind::Unsupported)
            .with_text("this kernel has no Btrfs, or its module is not loaded"),
        errno => Error::os(MOUNT, shown(), errno),
    })?;
    // The kernel says more than an errno, if it is asked.
    let explain = |what: &str, errno: Errno| {
        let said = kernel_log(&fs);
        let text = if said.is_empty() {
            what.to_owned()
        } else {
            format!("{what}: {said}")
        };
        Error::os(MOUNT, shown(), errno).with_text(text)
    };
    let set = |key: &str, value: Option<&OsStr>| {
        let key_c = c_string(key.as_bytes())?;
        let value = value.map(|value| c_string(value.as_bytes())).transpose()?;
        sys::fsconfig_set(fs.as_fd(), &key_c, value.as_deref())
            .map_err(|errno| explain(&format!("option {key}"), errno))
    };
    set("source", Some(device.as_os_str()))?;
    match &options.subvolume {
        Some(_) => set("subvol", Some(options.root().as_os_str()))?,
        None => set("subvolid", Some(OsStr::new("5")))?,
    }
    if options.read_only {
        set("ro", None)?;
    }
    for (key, value) in &options.more {
        set(key, value.as_deref().map(OsStr::new))?;
    }
    sys::fsconfig_create(fs.as_fd()).map_err(|errno| {
        let error = explain("the kernel refused", errno);
        match (errno, &options.subvolume) {
            (Errno::EEXIST, _) => error.with_kind(ErrorKind::AlreadyMounted).with_text(
                "another device with the same UUID is mounted; with DRBD that is its backing disk",
            ),
            (Errno::ENOENT, Some(path)) => {
                error.with_text(format!("there is no subvolume {}", path.display()))
            }
            _ => error,
        }
    })?;
    let mut attributes = 0;
    if options.read_only {
        attributes |= sys::MOUNT_ATTR_RDONLY;
    }
    if options.no_atime {
        attributes |= sys::MOUNT_ATTR_NOATIME;
    }
    sys::fsmount(fs.as_fd(), attributes).map_err(|errno| explain("cannot make a mount", errno))
}

/// What the kernel wrote for this context, without the prefix of its kind.
fn kernel_log(fs: &OwnedFd) -> String {
    let Ok(fs) = fs.try_clone() else {
        return String::new();
    };
    let mut fs = File::from(fs);
    let mut lines = Vec::new();
    let mut line = [0u8; 1024];
    // One line each time, then ENODATA.
    while let Ok(length @ 1..) = fs.read(&mut line) {
        let text = String::from_utf8_lossy(&line[..length]);
        let text = text.trim_end();
        lines.push(
            text.split_once(' ')
                .map_or(text, |(_, rest)| rest)
                .to_owned(),
        );
    }
    lines.join("; ")
}

/// The block devices that the kernel uses for a mounted Btrfs.
pub(crate) fn devices_of(fsid: Fsid) -> Result<Vec<DeviceNumber>> {
    let dir = PathBuf::from(format!("/sys/fs/btrfs/{fsid}/devices"));
    let wrap = Error::path("list devices in", &dir);
    let mut devices = Vec::new();
    for entry in fs::read_dir(&dir).map_err(&wrap)? {
        let file = entry.map_err(&wrap)?.path().join("dev");
        let text = fs::read_to_string(&file).map_err(Error::path("read", &file))?;
        let number = text.trim().split_once(':').and_then(|(major, minor)| {
            Some(DeviceNumber {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
            })
        });
        devices.push(number.ok_or_else(|| {
            let text = "not a device number";
            Error::message(
                ErrorKind::Malformed,
                "read",
                file.display().to_string(),
                text,
            )
        })?);
    }
    Ok(devices)
}

/// Unmounts what is mounted at `target`: the last mount, if there are several.
///
/// Never lazily and never by force. When it returns, the mount is gone, and if
/// it was the last one of its file system in all mount namespaces then
/// everything is on the device. Mounts of other namespaces stay: they are among
/// [`holders::of_device`].
///
/// # Errors
///
/// [`ErrorKind::Busy`] with [`Error::holders`]; nothing was changed then.
/// [`ErrorKind::NotFound`] if there is no such path. A directory where nothing
/// is mounted is not an error.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
pub fn unmount(target: &Path) -> Result<Outcome> {
    // Resolved once, so that what is looked at is what is unmounted.
    let path = fs::canonicalize(target).map_err(Error::path(UNMOUNT, target))?;
    if !table()?.iter().any(|mount| mount.mount_point == path) {
        return Ok(Outcome::AlreadyThere);
    }
    match umount2(&path, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(Outcome::Done),
        Err(errno @ Errno::EBUSY) => {
            let error = Error::os(UNMOUNT, path.display().to_string(), errno);
            Err(match holders::of_mount(&path) {
                Ok(holders) if holders.iter().any(|holder| holder.blocks_unmount()) => {
                    let blocks = |holder: &holders::Holder| holder.blocks_unmount();
                    error.with_holders(holders.into_iter().filter(blocks).collect())
                }
                Ok(_) => error.with_text("no holder was found; it may have gone meanwhile"),
                Err(why) => error.with_text(format!("who holds it cannot be found ({why})")),
            })
        }
        Err(errno) => Err(Error::os(UNMOUNT, path.display().to_string(), errno)),
    }
}

/// Opens a directory without keeping it busy for reading.
fn open_directory(op: &'static str, path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| {
        let error = Error::os(op, path.display().to_string(), errno);
        match errno {
            Errno::ENOENT => error.with_text("the target directory does not exist"),
            _ => error,
        }
    })
}

/// The mount whose root directory `fd` is, if it is one.
fn mount_rooted_at(fd: BorrowedFd<'_>) -> Result<Option<Mount>> {
    let id = mount_id(fd)?;
    let link = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let path = fs::read_link(&link).map_err(Error::path("read", &link))?;
    let row = table()?.into_iter().find(|mount| Some(mount.id) == id);
    Ok(row.filter(|mount| mount.mount_point == path))
}

/// Number of the mount that a descriptor was opened through.
pub(crate) fn mount_id(fd: BorrowedFd<'_>) -> Result<Option<u64>> {
    let path = PathBuf::from(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
    let text = fs::read_to_string(&path).map_err(Error::path("read", &path))?;
    Ok(holders::fdinfo_mount_id(&text))
}

fn is_empty(directory: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(directory).map_err(Error::path(MOUNT, directory))?;
    Ok(entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_options() {
        for (subvolume, root) in [
            ("a/b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("./a", "/a"),
            ("/", "/"),
            ("", "/"),
        ] {
            assert_eq!(
                MountOptions::new().subvolume(subvolume).root(),
                Path::new(root)
            );
        }
        assert_eq!(MountOptions::new().root(), Path::new("/"));
    }
}
