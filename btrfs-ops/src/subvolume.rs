//! One subvolume, held by a descriptor of its root directory.
//!
//! A snapshot costs a transaction commit (milliseconds), creating a subvolume
//! does not (tens of microseconds). Snapshots into the same directory wait for
//! each other; into different directories they share commits.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::fstatfs;

use crate::error::{Error, ErrorKind, Request, Result};
use crate::maintain::QgroupId;
use crate::search;
use crate::types::{Generation, SubvolId, Uuid, check_name};
use crate::uapi;

/// May the content of a subvolume be changed?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Access {
    /// No: `BTRFS_SUBVOL_RDONLY` is set.
    ReadOnly,
    /// Yes.
    ReadWrite,
}

impl Access {
    pub(crate) fn from_read_only(read_only: bool) -> Self {
        if read_only {
            Self::ReadOnly
        } else {
            Self::ReadWrite
        }
    }
}

/// What [`Subvolume::make_writable`] does with a received UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceivedUuid {
    /// Fail if there is one.
    Refuse,
    /// Forget it. The subvolume stops being a base for incremental receives.
    Clear,
}

/// State of one subvolume (`struct btrfs_ioctl_get_subvol_info_args`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SubvolumeInfo {
    /// Its id.
    pub id: SubvolId,
    /// The subvolume it is nested in; `None` for the top level.
    pub parent: Option<SubvolId>,
    /// Inode of the directory, in the parent, that holds its name.
    pub dir_id: u64,
    /// Its name there, as bytes; empty for the top level.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub name: OsString,
    /// Read-only or not.
    pub access: Access,
    /// Transaction of the last change to its tree; also counts being
    /// snapshotted and changes of flags.
    pub generation: Generation,
    /// Its own UUID; `None` on a top level made long ago.
    pub uuid: Option<Uuid>,
    /// The subvolume this is a snapshot of.
    pub parent_uuid: Option<Uuid>,
    /// The subvolume, on the sender's side, this was received from.
    pub received_uuid: Option<Uuid>,
    /// Transaction of the last change to its content.
    pub ctransid: Generation,
    /// Transaction it was created in.
    pub otransid: Generation,
    /// The sender's `ctransid`, if it was received.
    pub stransid: Option<Generation>,
    /// Transaction in which it was received.
    pub rtransid: Option<Generation>,
    /// When its content changed last.
    pub ctime: Option<SystemTime>,
    /// When it was created.
    pub otime: Option<SystemTime>,
    /// When it was sent, by the sender's clock.
    pub stime: Option<SystemTime>,
    /// When it was received.
    pub rtime: Option<SystemTime>,
}

impl SubvolumeInfo {
    /// Nothing but an id.
    pub(crate) fn blank(id: SubvolId) -> Self {
        Self {
            id,
            parent: None,
            dir_id: 0,
            name: OsString::new(),
            access: Access::ReadWrite,
            generation: Generation(0),
            uuid: None,
            parent_uuid: None,
            received_uuid: None,
            ctransid: Generation(0),
            otransid: Generation(0),
            stransid: None,
            rtransid: None,
            ctime: None,
            otime: None,
            stime: None,
            rtime: None,
        }
    }

    fn from_args(args: &uapi::SubvolInfoArgs) -> Self {
        let some = |transid: u64| (transid != 0).then_some(Generation(transid));
        let time = |stamp: uapi::Timespec| search::time(stamp.sec, stamp.nsec);
        Self {
            id: SubvolId::from_kernel(args.treeid),
            parent: (args.parent_id != 0).then_some(SubvolId::from_kernel(args.parent_id)),
            dir_id: args.dirid,
            name: OsString::from_vec(uapi::until_nul(&args.name).to_vec()),
            access: Access::from_read_only(args.flags & uapi::ROOT_SUBVOL_RDONLY != 0),
            generation: Generation(args.generation),
            uuid: Uuid::from_bytes(args.uuid),
            parent_uuid: Uuid::from_bytes(args.parent_uuid),
            received_uuid: Uuid::from_bytes(args.received_uuid),
            ctransid: Generation(args.ctransid),
            otransid: Generation(args.otransid),
            stransid: some(args.stransid),
            rtransid: some(args.rtransid),
            ctime: time(args.ctime),
            otime: time(args.otime),
            stime: time(args.stime),
            rtime: time(args.rtime),
        }
    }
}

fn raw(qgroups: &[QgroupId]) -> Vec<u64> {
    qgroups.iter().map(|qgroup| qgroup.raw()).collect()
}

/// A subvolume, held by a descriptor of its root directory.
///
/// The descriptor keeps meaning this subvolume when it is renamed. Dropping the
/// value closes the descriptor and changes nothing on disk. Usable from several
/// threads: it holds nothing but the descriptor.
#[derive(Debug)]
pub struct Subvolume {
    // Invariant: was the root directory of a subvolume when it was opened.
    fd: OwnedFd,
}

impl AsFd for Subvolume {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Subvolume> for OwnedFd {
    fn from(subvolume: Subvolume) -> Self {
        subvolume.fd
    }
}

impl Subvolume {
    /// Opens the subvolume whose root directory is `path`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], [`ErrorKind::Permission`] (the directory cannot
    /// be read), [`ErrorKind::NotBtrfs`], [`ErrorKind::NotSubvolume`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        const OP: &str = "open subvolume";
        let path = path.as_ref();
        let fd = nix::fcntl::open(path, DIRECTORY, Mode::empty()).map_err(|errno| match errno {
            Errno::ENOTDIR => {
                let text = "not a directory";
                Error::message(
                    ErrorKind::NotSubvolume,
                    OP,
                    path.display().to_string(),
                    text,
                )
            }
            errno => Error::os(OP, path.display().to_string(), errno),
        })?;
        Self::check(OP, fd, || path.display().to_string())
    }

    /// Takes over a descriptor of a subvolume's root directory.
    ///
    /// It must have been opened for reading, not with `O_PATH`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotBtrfs`], [`ErrorKind::NotSubvolume`].
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let target = target(fd.as_fd());
        Self::check("open subvolume", fd, || target)
    }

    fn check(op: &'static str, fd: OwnedFd, target: impl FnOnce() -> String) -> Result<Self> {
        match what_is(fd.as_fd()) {
            Ok(What::Subvolume) => Ok(Self { fd }),
            Ok(What::OtherFileSystem) => {
                let text = "not on a Btrfs file system";
                Err(Error::message(ErrorKind::NotBtrfs, op, target(), text))
            }
            Ok(What::Inside) => {
                let text = "not the root directory of a subvolume";
                Err(Error::message(ErrorKind::NotSubvolume, op, target(), text))
            }
            Err(errno) => Err(Error::os(op, target(), errno)),
        }
    }

    /// Creates an empty subvolume `name` in the directory `parent`.
    ///
    /// It is durable after [`sync`](crate::sync) or the next commit (30 s by
    /// default); creating it does not wait for one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`], [`ErrorKind::AlreadyExists`],
    /// [`ErrorKind::NotBtrfs`], [`ErrorKind::ReadOnly`],
    /// [`ErrorKind::Permission`], [`ErrorKind::NoSpace`].
    ///
    /// # Privileges
    ///
    /// Write permission on `parent`, as for `mkdir`.
    ///
    /// # Kernel support
    ///
    /// Linux 3.6.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = std::fs::File::open("/srv/store1")?;
    /// let rootfs = btrfs_ops::Subvolume::create(&store, "rootfs")?;
    /// println!("subvolume {}", rootfs.id()?);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "BTRFS_IOC_SUBVOL_CREATE_V2")]
    pub fn create(parent: impl AsFd, name: impl AsRef<OsStr>) -> Result<Self> {
        Self::create_in_qgroups(parent, name, &[])
    }

    /// Creates a subvolume as [`create`](Self::create) does, from its beginning
    /// a member of these qgroups, beside the one of its own.
    ///
    /// The kernel ignores groups that do not exist, and all of them while quotas
    /// are off: [`qgroups`](crate::qgroups) says which exist.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    #[doc(alias = "BTRFS_SUBVOL_QGROUP_INHERIT")]
    pub fn create_in_qgroups(
        parent: impl AsFd,
        name: impl AsRef<OsStr>,
        qgroups: &[QgroupId],
    ) -> Result<Self> {
        let (parent, name) = (parent.as_fd(), name.as_ref());
        let bytes = check_name(Request::Create.op(), name)?;
        uapi::subvol_create(parent, bytes, &raw(qgroups))
            .map_err(|e| Error::ioctl(Request::Create, target_in(parent, name), parent, e))?;
        open_new(Request::Create, parent, name)
    }

    /// Creates an empty subvolume at `path`: [`create`](Self::create) in the
    /// directory part of `path`.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), and [`ErrorKind::NotFound`] if the directory
    /// does not exist.
    pub fn create_path(path: impl AsRef<Path>) -> Result<Self> {
        let (parent, name) = split(Request::Create.op(), path.as_ref())?;
        Self::create(parent, name)
    }

    /// Takes a snapshot of this subvolume, as `name` in the directory `parent`.
    ///
    /// The snapshot holds what was written before, synced or not, and it is
    /// durable when this returns: the kernel commits a transaction for it.
    /// Nested subvolumes are not part of it; an empty directory is left where
    /// they were. On a frozen file system (`fsfreeze`) this blocks until it is
    /// thawed.
    ///
    /// A read-only snapshot of a received subvolume keeps its received UUID, a
    /// writable one does not.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`ErrorKind::OtherFileSystem`] if `parent`
    /// is not on the same Btrfs, [`ErrorKind::Busy`] if a swap file is active
    /// in it.
    ///
    /// # Privileges
    ///
    /// Write permission on `parent`; the source must belong to the caller, or
    /// the caller has `CAP_SYS_ADMIN`.
    ///
    /// # Kernel support
    ///
    /// Linux 2.6.38.
    #[doc(alias = "BTRFS_IOC_SNAP_CREATE_V2")]
    pub fn snapshot(
        &self,
        parent: impl AsFd,
        name: impl AsRef<OsStr>,
        access: Access,
    ) -> Result<Self> {
        self.snapshot_in_qgroups(parent, name, access, &[])
    }

    /// Takes a snapshot as [`snapshot`](Self::snapshot) does, from its beginning
    /// a member of these qgroups, beside the one of its own; see
    /// [`create_in_qgroups`](Self::create_in_qgroups). The sums of a group that
    /// a snapshot is put into are wrong, and its limits do not hold, until
    /// [`rescan_quotas`](crate::rescan_quotas).
    ///
    /// # Errors
    ///
    /// As [`snapshot`](Self::snapshot).
    #[doc(alias = "BTRFS_SUBVOL_QGROUP_INHERIT")]
    pub fn snapshot_in_qgroups(
        &self,
        parent: impl AsFd,
        name: impl AsRef<OsStr>,
        access: Access,
        qgroups: &[QgroupId],
    ) -> Result<Self> {
        let (parent, name) = (parent.as_fd(), name.as_ref());
        let bytes = check_name(Request::Snapshot.op(), name)?;
        let read_only = access == Access::ReadOnly;
        uapi::snap_create(parent, self.as_fd(), bytes, read_only, &raw(qgroups)).map_err(
            |errno| {
                let both = format!("{} as {}", target(self.as_fd()), target_in(parent, name));
                Error::ioctl(Request::Snapshot, both, parent, errno)
            },
        )?;
        open_new(Request::Snapshot, parent, name)
    }

    /// Takes a snapshot at `path`: [`snapshot`](Self::snapshot) in the directory
    /// part of `path`.
    ///
    /// # Errors
    ///
    /// As [`snapshot`](Self::snapshot), and [`ErrorKind::NotFound`] if the
    /// directory does not exist.
    pub fn snapshot_path(&self, path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let (parent, name) = split(Request::Snapshot.op(), path.as_ref())?;
        self.snapshot(parent, name, access)
    }

    /// The state of this subvolume.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if it has been deleted.
    ///
    /// # Kernel support
    ///
    /// Linux 4.18.
    #[doc(alias = "BTRFS_IOC_GET_SUBVOL_INFO")]
    pub fn info(&self) -> Result<SubvolumeInfo> {
        info(self)
    }

    /// The id of this subvolume. Works on a deleted one too.
    ///
    /// # Errors
    ///
    /// None is known for a descriptor of a subvolume.
    #[doc(alias = "BTRFS_IOC_INO_LOOKUP")]
    pub fn id(&self) -> Result<SubvolId> {
        containing(self)
    }

    /// Read-only or not.
    ///
    /// # Errors
    ///
    /// None is known for a descriptor of a subvolume.
    #[doc(alias = "BTRFS_IOC_SUBVOL_GETFLAGS")]
    pub fn access(&self) -> Result<Access> {
        Ok(Access::from_read_only(
            self.flags()? & uapi::SUBVOL_RDONLY != 0,
        ))
    }

    /// Makes the subvolume read-only. Commits a transaction if that changes
    /// something.
    ///
    /// Files that are open for writing stay so, and their writers go on: stop
    /// or freeze them first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Permission`], [`ErrorKind::ReadOnly`] (the whole file
    /// system is).
    ///
    /// # Privileges
    ///
    /// The owner of the subvolume, or `CAP_FOWNER`.
    #[doc(alias = "BTRFS_IOC_SUBVOL_SETFLAGS")]
    pub fn make_read_only(&self) -> Result<()> {
        let flags = self.flags()?;
        if flags & uapi::SUBVOL_RDONLY == 0 {
            self.set_flags(flags | uapi::SUBVOL_RDONLY)?;
        }
        Ok(())
    }

    /// Makes the subvolume writable. Commits a transaction if that changes
    /// something.
    ///
    /// The kernel leaves the received UUID in place, and a later incremental
    /// receive would take the changed subvolume for the sender's original. So
    /// one that has a received UUID is refused, or the UUID is cleared. A
    /// writable [`snapshot`](Self::snapshot) is the better way to get something
    /// to write to: it keeps the base and starts without the UUID.
    ///
    /// The kernel clears a UUID only on a writable subvolume, so this is two
    /// steps; if the second fails the error says so, and the subvolume is
    /// writable with its UUID.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReceivedUuidSet`]; [`ErrorKind::Permission`] also while it
    /// is being sent.
    ///
    /// # Privileges
    ///
    /// The owner of the subvolume, or `CAP_FOWNER`.
    #[doc(alias = "BTRFS_IOC_SET_RECEIVED_SUBVOL")]
    pub fn make_writable(&self, received: ReceivedUuid) -> Result<()> {
        let origin = self.info()?.received_uuid;
        if let (Some(uuid), ReceivedUuid::Refuse) = (origin, received) {
            return Err(Error::message(
                ErrorKind::ReceivedUuidSet,
                Request::SetFlags.op(),
                target(self.as_fd()),
                format!(
                    "it was received from {uuid}; take a writable snapshot instead, or clear the \
                     received uuid"
                ),
            ));
        }
        let flags = self.flags()?;
        if flags & uapi::SUBVOL_RDONLY != 0 {
            self.set_flags(flags & !uapi::SUBVOL_RDONLY)?;
        }
        if origin.is_some() {
            let fd = self.as_fd();
            uapi::set_received(fd, [0; 16], 0)
                .map_err(|e| Error::ioctl(Request::SetReceived, target(fd), fd, e))?;
        }
        Ok(())
    }

    fn flags(&self) -> Result<u64> {
        let fd = self.as_fd();
        uapi::subvol_getflags(fd).map_err(|e| Error::ioctl(Request::GetFlags, target(fd), fd, e))
    }

    fn set_flags(&self, flags: u64) -> Result<()> {
        let fd = self.as_fd();
        uapi::subvol_setflags(fd, flags)
            .map_err(|e| Error::ioctl(Request::SetFlags, target(fd), fd, e))
    }
}

/// Is `path` the root directory of a subvolume?
///
/// False for anything else that exists, on any file system, and for the empty
/// directory a snapshot has where a nested subvolume was.
///
/// # Errors
///
/// [`ErrorKind::NotFound`], [`ErrorKind::Permission`] of the path itself.
pub fn is_subvolume(path: impl AsRef<Path>) -> Result<bool> {
    const OP: &str = "is subvolume";
    let path = path.as_ref();
    let wrap = |errno| Error::os(OP, path.display().to_string(), errno);
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, flags, Mode::empty()).map_err(wrap)?;
    Ok(what_is(fd.as_fd()).map_err(wrap)? == What::Subvolume)
}

/// The state of the subvolume that contains `fd`: any file in it will do.
///
/// # Errors
///
/// [`ErrorKind::NotBtrfs`]; [`ErrorKind::NotFound`] if the subvolume has been
/// deleted; [`ErrorKind::NotSubvolume`] for the empty directory a snapshot has
/// where a nested subvolume was.
///
/// # Kernel support
///
/// Linux 4.18.
#[doc(alias = "BTRFS_IOC_GET_SUBVOL_INFO")]
pub fn info(fd: impl AsFd) -> Result<SubvolumeInfo> {
    let fd = fd.as_fd();
    let args = uapi::subvol_info(fd).map_err(|e| Error::ioctl(Request::Info, target(fd), fd, e))?;
    Ok(SubvolumeInfo::from_args(&args))
}

/// The id of the subvolume that contains `fd`.
pub(crate) fn containing(fd: impl AsFd) -> Result<SubvolId> {
    let fd = fd.as_fd();
    let id =
        uapi::containing_tree(fd).map_err(|e| Error::ioctl(Request::Info, target(fd), fd, e))?;
    Ok(SubvolId::from_kernel(id))
}

/// What a descriptor is, as far as this crate asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Subvolume,
    /// On Btrfs, but not the root of a subvolume.
    Inside,
    OtherFileSystem,
}

/// Works on `O_PATH` descriptors too.
pub(crate) fn what_is(fd: BorrowedFd<'_>) -> Result<What, Errno> {
    let statfs = fstatfs(fd)?;
    // The type's width differs by architecture; the magic is 32 bits.
    if statfs.filesystem_type().0 as u32 != uapi::BTRFS_SUPER_MAGIC {
        return Ok(What::OtherFileSystem);
    }
    let stat = fstat(fd)?;
    let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    // `BTRFS_FIRST_FREE_OBJECTID`, in whatever width `ino_t` has.
    let root = stat.st_ino == 256;
    Ok(if directory && root {
        What::Subvolume
    } else {
        What::Inside
    })
}

/// How a subvolume's directory is opened.
pub(crate) const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// Opens what was just made in `parent`.
fn open_new(request: Request, parent: BorrowedFd<'_>, name: &OsStr) -> Result<Subvolume> {
    let flags = DIRECTORY | OFlag::O_NOFOLLOW;
    let fd = openat(parent, name, flags, Mode::empty()).map_err(|errno| {
        let target = format!(
            "{} (made, but it cannot be opened)",
            target_in(parent, name)
        );
        Error::os(request.op(), target, errno)
    })?;
    Subvolume::check(request.op(), fd, || target_in(parent, name))
}

/// Opens the directory part of `path` and returns the name in it. Takes the
/// bytes as they are: `Path` would drop a last `.` and hide a wrong name.
pub(crate) fn split<'a>(op: &'static str, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes
        .iter()
        .rposition(|&b| b != b'/')
        .map_or(0, |last| last + 1);
    let start = bytes[..end]
        .iter()
        .rposition(|&b| b == b'/')
        .map_or(0, |slash| slash + 1);
    let name = OsStr::from_bytes(&bytes[start..end]);
    check_name(op, name)?;
    let parent = match OsStr::from_bytes(&bytes[..start]) {
        empty if empty.is_empty() => Path::new("."),
        parent => Path::new(parent),
    };
    let fd = nix::fcntl::open(parent, DIRECTORY, Mode::empty())
        .map_err(|errno| Error::os(op, parent.display().to_string(), errno))?;
    Ok((fd, name))
}

/// The path of a descriptor, for messages.
pub(crate) fn target(fd: BorrowedFd<'_>) -> String {
    path_of(fd).map_or_else(
        || format!("descriptor {}", fd.as_raw_fd()),
        |path| path.display().to_string(),
    )
}

/// The path of a name in a directory, for messages.
pub(crate) fn target_in(parent: BorrowedFd<'_>, name: &OsStr) -> String {
    path_of(parent)
        .unwrap_or_default()
        .join(name)
        .display()
        .to_string()
}

fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
}
