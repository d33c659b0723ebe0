//! The commands of a stream, done to a subvolume and to nothing else.
//!
//! Every path is resolved below the root of the subvolume, without symbolic
//! links, without magic links and without mounts. What is opened is looked at
//! before: a device that the stream made is never opened.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{
    AtFlags, FallocateFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, fallocate, open, openat,
    openat2, renameat2,
};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, futimens, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use super::decompress::decompress;
use crate::stream::{Command, Time};
use crate::types::Uuid;
use crate::uapi::{self, Encoding};

/// Why a command was not done.
#[derive(Debug)]
pub(super) enum Failed {
    /// A system call.
    Os(Errno),
    /// What the command asks for must not be done, or makes no sense.
    Refused(String),
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        match errno {
            // Of openat2 alone: the answer to a way out.
            Errno::EXDEV | Errno::ELOOP => {
                Self::Refused("the path leads out of the subvolume or through a link".to_owned())
            }
            errno => Self::Os(errno),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(raw) => Self::Os(Errno::from_raw(raw)),
            None => Self::Refused(error.to_string()),
        }
    }
}

fn refuse<T>(text: impl Into<String>) -> Result<T, Failed> {
    Err(Failed::Refused(text.into()))
}

const BENEATH: ResolveFlag = ResolveFlag::RESOLVE_BENEATH
    .union(ResolveFlag::RESOLVE_NO_SYMLINKS)
    .union(ResolveFlag::RESOLVE_NO_MAGICLINKS)
    .union(ResolveFlag::RESOLVE_NO_XDEV);

const ACL_DEFAULT: &CStr = c"system.posix_acl_default";
/// What a new inode inherits from its directory, and a stream does not count on.
const INHERITED: [&CStr; 3] = [
    c"system.posix_acl_access",
    ACL_DEFAULT,
    c"btrfs.compression",
];
const CAPABILITY: &str = "security.capability";

/// Finds the root directory of a subvolume that content is shared with.
pub(super) type FindSource<'f> = dyn FnMut(Uuid) -> crate::Result<OwnedFd> + 'f;

/// What may be done, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    pub(super) refuse_devices: bool,
    pub(super) always_decompress: bool,
}

/// One subvolume that is being filled.
#[derive(Debug)]
pub(super) struct Target {
    root: OwnedFd,
    uuid: Option<Uuid>,
    rules: Rules,
    /// The directory of the last path that was not in the root directory.
    directory: Option<(PathBuf, OwnedFd)>,
    /// The file of the last path that was opened for writing.
    file: Option<(PathBuf, File)>,
    /// The last file that content was shared from, and whose it is.
    shared: Option<(Option<Uuid>, PathBuf, File)>,
    sources: HashMap<Uuid, OwnedFd>,
    /// The root directory has something that new inodes inherit.
    root_inherits: bool,
    /// The last capability that was set: a change of owner removes it.
    capability: Option<(PathBuf, Vec<u8>)>,
    /// What the times of the root directory are to be in the end: new inodes get
    /// their first, temporary name there, after the stream has set them.
    root_times: Option<(TimeSpec, TimeSpec)>,
    /// Compressed writes that were decompressed here.
    pub(super) decompressed: u64,
    /// Commands without an effect.
    pub(super) ignored: u64,
}

impl Target {
    /// `uuid` is what the stream calls this subvolume, `base` what it is a
    /// snapshot of.
    pub(super) fn new(
        root: OwnedFd,
        uuid: Option<Uuid>,
        base: Option<BorrowedFd<'_>>,
        rules: Rules,
    ) -> Self {
        let fresh = base.is_none();
        let root_times = base.and_then(|base| fstat(base).ok()).map(|stat| {
            (
                TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
                TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
            )
        });
        if fresh {
            for name in INHERITED {
                let _ = uapi::remove_xattr_of(root.as_fd(), name);
            }
        }
        let has = |name| uapi::xattr_of::<4096>(root.as_fd(), name).is_ok();
        let root_inherits = !fresh && INHERITED[1..].iter().any(|name| has(name));
        Self {
            root,
            uuid,
            rules,
            directory: None,
            file: None,
            shared: None,
            sources: HashMap::new(),
            root_inherits,
            capability: None,
            root_times,
            decompressed: 0,
            ignored: 0,
        }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Notes what has to be known of a command that was done before.
    pub(super) fn skip(&mut self, command: &Command<'_>) {
        if let Command::Utimes {
            path, atime, mtime, ..
        } = command
            && path.as_os_str().is_empty()
        {
            self.root_times = Some((spec(*atime), spec(*mtime)));
        }
    }

    /// The last thing, when all commands are done.
    pub(super) fn finish(self) -> Result<OwnedFd, Errno> {
        if let Some((atime, mtime)) = &self.root_times {
            futimens(&self.root, atime, mtime)?;
        }
        Ok(self.root)
    }

    /// Does one command.
    pub(super) fn apply(
        &mut self,
        command: &Command<'_>,
        find: &mut FindSource<'_>,
    ) -> Result<(), Failed> {
        match *command {
            Command::Mkfile { path, .. } => self.mkfile(path),
            Command::Mkdir { path, .. } => {
                let (parent, name) = self.place(path)?;
                mkdirat(parent, name, Mode::S_IRWXU)?;
                self.disinherit(path)
            }
            Command::Mknod {
                path, mode, rdev, ..
            } => {
                let kind = SFlag::from_bits_truncate(mode as libc::mode_t) & SFlag::S_IFMT;
                if !matches!(kind, SFlag::S_IFCHR | SFlag::S_IFBLK) {
                    return refuse(format!("mode {mode:o} is not that of a device"));
                }
                if self.rules.refuse_devices {
                    return refuse("devices are refused");
                }
                self.mknod(path, kind, rdev)
            }
            Command::Mkfifo { path, .. } => self.mknod(path, SFlag::S_IFIFO, 0),
            Command::Mksock { path, .. } => self.mknod(path, SFlag::S_IFSOCK, 0),
            Command::Symlink { path, target, .. } => {
                let (parent, name) = self.place(path)?;
                symlinkat(target, parent, name)?;
                self.disinherit(path)
            }
            Command::Rename { path, to } => self.rename(path, to),
            Command::Link { path, target } => {
                let (from_dir, from) = self.place(target)?;
                let from_dir = from_dir.try_clone_to_owned()?;
                let (to_dir, to) = self.place(path)?;
                // Without following: a link to a symbolic link is one to itself.
                Ok(linkat(from_dir, from, to_dir, to, AtFlags::empty())?)
            }
            Command::Unlink { path } => {
                self.forget(path);
                let (parent, name) = self.place(path)?;
                Ok(unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?)
            }
            Command::Rmdir { path } => {
                self.forget(path);
                let (parent, name) = self.place(path)?;
                Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
            }
            Command::SetXattr { path, name, value } => self.set_xattr(path, name, value),
            Command::RemoveXattr { path, name } => self.remove_xattr(path, name),
            Command::Write { path, offset, data } => {
                Ok(self.writable(path)?.write_all_at(data, offset)?)
            }
            Command::Clone {
                path,
                offset,
                len,
                clone_uuid,
                clone_path,
                clone_offset,
                ..
            } => {
                self.share(clone_uuid, clone_path, find)?;
                self.writable(path)?;
                let (Some((_, to)), Some((_, _, from))) = (&self.file, &self.shared) else {
                    return refuse("no file is open");
                };
                uapi::clone_range(to.as_fd(), offset, from.as_fd(), clone_offset, len)
                    .map_err(Failed::Os)
            }
            Command::Truncate { path, size } => Ok(self.writable(path)?.set_len(size)?),
            Command::Chmod { path, mode } => self.chmod(path, mode),
            Command::Chown { path, uid, gid } => self.chown(path, uid, gid),
            Command::Utimes {
                path, atime, mtime, ..
            } => self.utimes(path, atime, mtime),
            Command::Fallocate {
                path,
                mode,
                offset,
                len,
            } => {
                let convert = |value: u64| i64::try_from(value).map_err(|_| Errno::EFBIG);
                let (offset, len) = (convert(offset)?, convert(len)?);
                let mode = FallocateFlags::from_bits(mode.cast_signed()).ok_or(Errno::EINVAL)?;
                Ok(fallocate(self.writable(path)?, mode, offset, len)?)
            }
            // Nothing defines what the bits mean to a receiver.
            Command::Fileattr { .. } => {
                self.ignored += 1;
                Ok(())
            }
            Command::EncodedWrite { path, .. } => self.encoded_write(path, command),
            Command::UpdateExtent { .. } => {
                refuse("the stream was made without content and cannot be received")
            }
            Command::Subvol { .. } | Command::Snapshot { .. } | Command::End => {
                refuse("not a command about something in a subvolume")
            }
        }
    }

    /// The directory of `path`, and its name there.
    fn place<'p>(&mut self, path: &'p Path) -> Result<(BorrowedFd<'_>, &'p OsStr), Failed> {
        let bytes = path.as_os_str().as_bytes();
        let Some(slash) = bytes.iter().rposition(|&b| b == b'/') else {
            if bytes.is_empty() {
                return refuse("this cannot be done to the root directory");
            }
            return Ok((self.root.as_fd(), path.as_os_str()));
        };
        let (directory, name) = (&bytes[..slash], &bytes[slash + 1..]);
        let (directory, name) = (OsStr::from_bytes(directory), OsStr::from_bytes(name));
        if !matches!(&self.directory, Some((at, _)) if at.as_os_str() == directory) {
            let how = OpenHow::new()
                .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                .resolve(BENEATH);
            let fd = openat2(&self.root, directory, how)?;
            self.directory = Some((PathBuf::from(directory), fd));
        }
        match &self.directory {
            Some((_, fd)) => Ok((fd.as_fd(), name)),
            None => refuse("no directory is open"),
        }
    }

    /// Drops what is held open under `path` or below it.
    fn forget(&mut self, path: &Path) {
        if matches!(&self.directory, Some((at, _)) if at.starts_with(path)) {
            self.directory = None;
        }
        if matches!(&self.file, Some((at, _)) if at.starts_with(path)) {
            self.file = None;
        }
        if matches!(&self.shared, Some((uuid, at, _)) if *uuid == self.uuid && at.starts_with(path))
        {
            self.shared = None;
        }
        if matches!(&self.capability, Some((at, _)) if at.starts_with(path)) {
            self.capability = None;
        }
    }

    fn mkfile(&mut self, path: &Path) -> Result<(), Failed> {
        let (parent, name) = self.place(path)?;
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        self.file = Some((path.to_owned(), File::from(fd)));
        self.disinherit(path)
    }

    fn mknod(&mut self, path: &Path, kind: SFlag, rdev: u64) -> Result<(), Failed> {
        let (parent, name) = self.place(path)?;
        // The stream has the kernel's form of the number, which is the low half
        // of the C library's.
        let rdev = libc::dev_t::from(u32::try_from(rdev).map_err(|_| Errno::EINVAL)?);
        mknodat(parent, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, rdev)?;
        self.disinherit(path)
    }

    /// Takes from a new inode what its directory gave it.
    fn disinherit(&mut self, path: &Path) -> Result<(), Failed> {
        let in_root = !path.as_os_str().as_bytes().contains(&b'/');
        if in_root && !self.root_inherits {
            return Ok(());
        }
        for name in INHERITED {
            match self.change_xattr(path, |at| match at {
                At::Fd(fd) => uapi::remove_xattr_of(fd, name),
                At::Path(path) => uapi::remove_xattr(path, name),
            }) {
                Ok(())
                | Err(Failed::Os(
                    Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EPERM,
                )) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rename(&mut self, path: &Path, to: &Path) -> Result<(), Failed> {
        let (from_dir, from_name) = self.place(path)?;
        let from_dir = from_dir.try_clone_to_owned()?;
        let (to_dir, to_name) = self.place(to)?;
        renameat2(&from_dir, from_name, to_dir, to_name, RenameFlags::empty())?;
        let file = match self.file.take() {
            Some((at, file)) if at == path => Some((to.to_owned(), file)),
            other => other.filter(|(at, _)| !at.starts_with(to)),
        };
        let capability = match self.capability.take() {
            Some((at, value)) if at == path => Some((to.to_owned(), value)),
            other => other,
        };
        self.forget(path);
        self.forget(to);
        (self.file, self.capability) = (file, capability);
        // Of a directory that was above the file.
        self.file = self
            .file
            .take()
            .filter(|(at, _)| at == to || !at.starts_with(path));
        Ok(())
    }

    /// The file at `path`, open for writing.
    fn writable(&mut self, path: &Path) -> Result<&File, Failed> {
        if !matches!(&self.file, Some((at, _)) if at == path) {
            let file = open_regular(self.root.as_fd(), path, OFlag::O_RDWR)?;
            self.file = Some((path.to_owned(), file));
        }
        match &self.file {
            Some((_, file)) => Ok(file),
            None => refuse("no file is open"),
        }
    }

    /// The file at `path` if it is open.
    fn opened(&self, path: &Path) -> Option<&File> {
        match &self.file {
            Some((at, file)) if at == path => Some(file),
            _ => None,
        }
    }

    /// Opens the file that content is to be shared from.
    fn share(
        &mut self,
        uuid: Option<Uuid>,
        path: &Path,
        find: &mut FindSource<'_>,
    ) -> Result<(), Failed> {
        if matches!(&self.shared, Some((of, at, _)) if *of == uuid && at == path) {
            return Ok(());
        }
        let root = match uuid {
            own if own == self.uuid => self.root.as_fd(),
            None => return refuse("the source of shared content has no uuid"),
            Some(uuid) => match self.sources.entry(uuid) {
                Entry::Occupied(entry) => (*entry.into_mut()).as_fd(),
                Entry::Vacant(entry) => {
                    let found = find(uuid).map_err(|e| Failed::Refused(e.to_string()))?;
                    (*entry.insert(found)).as_fd()
                }
            },
        };
        let file = open_regular(root, path, OFlag::O_RDONLY)?;
        self.shared = Some((uuid, path.to_owned(), file));
        Ok(())
    }

    fn set_xattr(&mut self, path: &Path, name: &OsStr, value: &[u8]) -> Result<(), Failed> {
        let c_name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        self.change_xattr(path, |at| match at {
            At::Fd(fd) => uapi::set_xattr_of(fd, &c_name, value),
            At::Path(path) => uapi::set_xattr(path, &c_name, value),
        })?;
        if name == CAPABILITY {
            self.capability = Some((path.to_owned(), value.to_owned()));
        }
        if path.as_os_str().is_empty() && INHERITED[1..].contains(&c_name.as_c_str()) {
            self.root_inherits = true;
        }
        Ok(())
    }

    fn remove_xattr(&mut self, path: &Path, name: &OsStr) -> Result<(), Failed> {
        let c_name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        if name == CAPABILITY {
            self.capability = None;
        }
        let done = self.change_xattr(path, |at| match at {
            At::Fd(fd) => uapi::remove_xattr_of(fd, &c_name),
            At::Path(path) => uapi::remove_xattr(path, &c_name),
        });
        match done {
            // A change of owner took it already.
            Err(Failed::Os(Errno::ENODATA)) if name == CAPABILITY => Ok(()),
            other => other,
        }
    }

    /// Calls `change` with the way to reach `path` itself.
    fn change_xattr(
        &mut self,
        path: &Path,
        change: impl FnOnce(At<'_>) -> Result<(), Errno>,
    ) -> Result<(), Failed> {
        if path.as_os_str().is_empty() {
            return change(At::Fd(self.root.as_fd())).map_err(Failed::Os);
        }
        if let Some(file) = self.opened(path) {
            return change(At::Fd(file.as_fd())).map_err(Failed::Os);
        }
        let (parent, name) = self.place(path)?;
        // The last part is not followed by the calls that take this.
        let mut through = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        through.extend(name.as_bytes());
        let through = CString::new(through).map_err(|_| Errno::EINVAL)?;
        change(At::Path(&through)).map_err(Failed::Os)
    }

    fn chmod(&mut self, path: &Path, mode: u64) -> Result<(), Failed> {
        if mode & !0o17_7777 != 0 {
            return refuse(format!("mode {mode:o} has unknown bits"));
        }
        let mode = Mode::from_bits_truncate(mode as libc::mode_t & 0o7777);
        if path.as_os_str().is_empty() {
            return Ok(fchmod(&self.root, mode)?);
        }
        if let Some(file) = self.opened(path) {
            return Ok(fchmod(file, mode)?);
        }
        let (parent, name) = self.place(path)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let at = openat(parent, name, flags, Mode::empty())?;
        if SFlag::from_bits_truncate(fstat(&at)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK {
            return refuse("the mode of a symbolic link cannot be changed");
        }
        let through = format!("/proc/self/fd/{}", at.as_raw_fd());
        let follow = FchmodatFlags::FollowSymlink;
        Ok(fchmodat(
            nix::fcntl::AT_FDCWD,
            through.as_str(),
            mode,
            follow,
        )?)
    }

    fn chown(&mut self, path: &Path, uid: u64, gid: u64) -> Result<(), Failed> {
        // All ones would mean "leave it".
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let (Some(uid), Some(gid)) = (id(uid), id(gid)) else {
            return refuse(format!("{uid} or {gid} is not an id of a user or group"));
        };
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        if path.as_os_str().is_empty() {
            return Ok(fchown(&self.root, uid, gid)?);
        }
        if let Some(file) = self.opened(path) {
            fchown(file, uid, gid)?;
        } else {
            let (parent, name) = self.place(path)?;
            fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        match self.capability.take() {
            Some((at, value)) if at == path => self.set_xattr(path, OsStr::new(CAPABILITY), &value),
            other => {
                self.capability = other;
                Ok(())
            }
        }
    }

    fn utimes(&mut self, path: &Path, atime: Time, mtime: Time) -> Result<(), Failed> {
        let (atime, mtime) = (spec(atime), spec(mtime));
        if path.as_os_str().is_empty() {
            self.root_times = Some((atime, mtime));
            return Ok(futimens(&self.root, &atime, &mtime)?);
        }
        if let Some(file) = self.opened(path) {
            return Ok(futimens(file, &atime, &mtime)?);
        }
        let (parent, name) = self.place(path)?;
        let flag = UtimensatFlags::NoFollowSymlink;
        Ok(utimensat(parent, name, &atime, &mtime, flag)?)
    }

    fn encoded_write(&mut self, path: &Path, command: &Command<'_>) -> Result<(), Failed> {
        let Command::EncodedWrite {
            offset,
            unencoded_file_len,
            unencoded_len,
            unencoded_offset,
            compression,
            encryption,
            data,
            ..
        } = *command
        else {
            return Ok(());
        };
        if encryption != 0 {
            return refuse(format!("encryption {encryption} is unknown"));
        }
        let end = unencoded_offset.checked_add(unencoded_file_len);
        if end.is_none_or(|end| end > unencoded_len) {
            return refuse("the part of the content is larger than the content");
        }
        let always = self.rules.always_decompress;
        let file = self.writable(path)?;
        if !always {
            let encoding = Encoding {
                offset,
                len: unencoded_file_len,
                unencoded_len,
                unencoded_offset,
                compression,
                encryption,
            };
            match uapi::encoded_write(file.as_fd(), encoding, data) {
                Ok(()) => return Ok(()),
                // Not this kernel, this sector size, this place, this caller.
                Err(
                    Errno::ENOTTY
                    | Errno::EINVAL
                    | Errno::EOPNOTSUPP
                    | Errno::EPERM
                    | Errno::ENOBUFS,
                ) => {}
                Err(errno) => return Err(Failed::Os(errno)),
            }
        }
        let content = if compression == 0 {
            data.to_vec()
        } else {
            decompress(compression, data, unencoded_len).map_err(Failed::Refused)?
        };
        let from = usize::try_from(unencoded_offset).map_err(|_| Errno::EFBIG)?;
        let count = usize::try_from(unencoded_file_len).map_err(|_| Errno::EFBIG)?;
        let Some(part) = content.get(from..from.saturating_add(count)) else {
            return refuse("the content is shorter than it says");
        };
        file.write_all_at(part, offset)?;
        self.decompressed += 1;
        Ok(())
    }
}

/// `UTIME_NOW` and `UTIME_OMIT` do not get past the decoder.
fn spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.sec, time.nsec.into())
}

/// How extended attributes reach an inode.
enum At<'a> {
    Fd(BorrowedFd<'a>),
    Path(&'a CStr),
}

/// Opens a regular file below `root`, and nothing else.
fn open_regular(root: BorrowedFd<'_>, path: &Path, access: OFlag) -> Result<File, Failed> {
    if path.as_os_str().is_empty() {
        return refuse("the root directory is not a file");
    }
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(BENEATH);
    let at = openat2(root, path, how)?;
    if SFlag::from_bits_truncate(fstat(&at)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return refuse("not a regular file");
    }
    // The inode that was looked at, whatever the path is by now.
    let through = format!("/proc/self/fd/{}", at.as_raw_fd());
    let fd = open(through.as_str(), access | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(File::from(fd))
}
