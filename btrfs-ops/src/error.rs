//! What failed, on what, and what the kernel said.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::types::SubvolId;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed request: what was tried, on what, and what the kernel said.
///
/// [`kind`](Self::kind) is for code, `Display` for people: it prints every
/// layer on one line, and so there is no separate
/// [`source`](std::error::Error::source).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    op: &'static str,
    target: String,
    cause: Cause,
    note: Option<String>,
}

enum Cause {
    /// errno of a system call, with what it means here if that is not plain.
    Os {
        source: io::Error,
        meaning: Option<&'static str>,
    },
    /// Decided by this crate, without a system call that failed.
    Message(String),
    /// A stream ended too early.
    EarlyEnd(String),
    /// The subvolume is mounted somewhere.
    Mounted(Vec<MountedAt>),
}

/// A mount that shows a subvolume or a directory inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MountedAt {
    /// Where, as seen in that mount namespace.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub mount_point: PathBuf,
    /// A process in the mount namespace, for `/proc/PID/root` or `nsenter`.
    pub pid: u32,
    /// True if it is the mount namespace of the calling process.
    pub own_namespace: bool,
}

/// What a caller may want to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The path or descriptor is not on a Btrfs file system.
    NotBtrfs,
    /// On Btrfs, but not the root directory of a subvolume.
    NotSubvolume,
    /// No such path, or no subvolume with this id (`ENOENT`).
    NotFound,
    /// The name is taken (`EEXIST`).
    AlreadyExists,
    /// The name or number cannot be that of a subvolume.
    InvalidName,
    /// A capability, ownership or directory permission is missing.
    Permission,
    /// The subvolume, its parent or the whole file system is read-only.
    ReadOnly,
    /// Subvolumes are nested in this one (`ENOTEMPTY`).
    NotEmpty,
    /// The subvolume, or a directory in it, is mounted.
    Mounted,
    /// The subvolume was received and carries its origin's UUID.
    ReceivedUuidSet,
    /// Source and destination are on different file systems (`EXDEV`).
    OtherFileSystem,
    /// An exclusive operation, an active send or a swap file is in the way.
    Busy,
    /// No space, or a quota is used up (`ENOSPC`, `EDQUOT`).
    NoSpace,
    /// The device failed, or what it holds is damaged (`EIO`, `EUCLEAN`). After
    /// a write that failed the whole file system is read-only.
    Device,
    /// A size that a file system or device cannot have.
    InvalidSize,
    /// The caller asked to stop, or the other end of a stream went away
    /// (`EPIPE`).
    Cancelled,
    /// A send stream that breaks its format, or that asks for what a receiver
    /// must not do.
    BadStream,
    /// What an incremental stream builds on is not here.
    MissingParent,
    /// Those who write could not be stopped, or could not go on.
    Freeze,
    /// This kernel does not have the request.
    Unsupported,
    /// The deadline passed. What was asked for may still happen.
    TimedOut,
    /// The kernel answered what it should not.
    Malformed,
    /// Anything else; see [`Error::raw_os_error`].
    Other,
}

impl Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The errno, if a system call failed.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.0.cause {
            Cause::Os { source, .. } => source.raw_os_error(),
            Cause::Message(_) | Cause::EarlyEnd(_) | Cause::Mounted(_) => None,
        }
    }

    /// Where the subvolume is mounted, for [`ErrorKind::Mounted`].
    #[must_use]
    pub fn mounts(&self) -> &[MountedAt] {
        match &self.0.cause {
            Cause::Mounted(mounts) => mounts,
            Cause::Os { .. } | Cause::Message(_) | Cause::EarlyEnd(_) => &[],
        }
    }

    pub(crate) fn message(
        kind: ErrorKind,
        op: &'static str,
        target: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        let cause = Cause::Message(text.into());
        Self(Box::new(Inner {
            kind,
            op,
            target: target.into(),
            cause,
            note: None,
        }))
    }

    pub(crate) fn mounted(op: &'static str, target: String, mounts: Vec<MountedAt>) -> Self {
        let kind = ErrorKind::Mounted;
        Self(Box::new(Inner {
            kind,
            op,
            target,
            cause: Cause::Mounted(mounts),
            note: None,
        }))
    }

    /// The same error with something to know beside it.
    pub(crate) fn noted(mut self, note: impl Into<String>) -> Self {
        self.0.note = Some(note.into());
        self
    }

    /// The same message, as that of a stream that ended too early.
    pub(crate) fn early_end(mut self) -> Self {
        if let Cause::Message(text) = self.0.cause {
            self.0.cause = Cause::EarlyEnd(text);
        }
        self
    }

    pub(crate) fn is_early_end(&self) -> bool {
        matches!(self.0.cause, Cause::EarlyEnd(_))
    }

    /// With what the errno means whatever the request was.
    pub(crate) fn explained(mut self) -> Self {
        if let Cause::Os { source, meaning } = &mut self.0.cause
            && let Some(raw) = source.raw_os_error()
        {
            *meaning = explain_any(Errno::from_raw(raw)).map(|(_, text)| text);
        }
        self
    }

    /// An errno of an ordinary system call.
    pub(crate) fn os(op: &'static str, target: impl Into<String>, errno: Errno) -> Self {
        Self::with_meaning(op, target.into(), errno, general_kind(errno), None)
    }

    /// An `io::Error` of the standard library.
    pub(crate) fn io(op: &'static str, target: impl Into<String>, source: io::Error) -> Self {
        let kind = source
            .raw_os_error()
            .map_or(ErrorKind::Other, |raw| general_kind(Errno::from_raw(raw)));
        let cause = Cause::Os {
            source,
            meaning: None,
        };
        Self(Box::new(Inner {
            kind,
            op,
            target: target.into(),
            cause,
            note: None,
        }))
    }

    /// What the reader of a stream said: an error of this crate as it is.
    pub(crate) fn from_reader(target: impl Into<String>, source: io::Error) -> Self {
        match source.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::io("read stream", target, source),
        }
    }

    /// An errno of a Btrfs ioctl on `fd`, which is asked whether it is Btrfs
    /// when the errno leaves that open.
    pub(crate) fn ioctl(
        request: Request,
        target: impl Into<String>,
        fd: BorrowedFd<'_>,
        errno: Errno,
    ) -> Self {
        let target = target.into();
        if matches!(errno, Errno::ENOTTY | Errno::EINVAL | Errno::EOPNOTSUPP)
            && crate::is_btrfs(fd) == Some(false)
        {
            let meaning = Some("not on a Btrfs file system");
            let kind = ErrorKind::NotBtrfs;
            return Self::with_meaning(request.op(), target, errno, kind, meaning);
        }
        let (kind, meaning) = request.explain(errno);
        Self::with_meaning(request.op(), target, errno, kind, meaning)
    }

    fn with_meaning(
        op: &'static str,
        target: String,
        errno: Errno,
        kind: ErrorKind,
        meaning: Option<&'static str>,
    ) -> Self {
        let source = io::Error::from_raw_os_error(errno as i32);
        Self(Box::new(Inner {
            kind,
            op,
            target,
            cause: Cause::Os { source, meaning },
            note: None,
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            op,
            target,
            cause,
            note,
            ..
        } = &*self.0;
        write!(f, "{op} {target}")?;
        match cause {
            Cause::Os {
                source,
                meaning: Some(meaning),
            } => write!(f, ": {meaning}: {source}"),
            Cause::Os {
                source,
                meaning: None,
            } => write!(f, ": {source}"),
            Cause::Message(text) | Cause::EarlyEnd(text) => write!(f, ": {text}"),
            Cause::Mounted(mounts) => {
                f.write_str(": mounted at")?;
                for (i, at) in mounts.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma} {}", at.mount_point.display())?;
                    if !at.own_namespace {
                        write!(f, " (mount namespace of process {})", at.pid)?;
                    }
                }
                Ok(())
            }
        }?;
        note.iter().try_for_each(|note| write!(f, " ({note})"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &format_args!("{self}"))
            .finish()
    }
}

impl std::error::Error for Error {}

fn general_kind(errno: Errno) -> ErrorKind {
    match errno {
        Errno::ENOENT | Errno::ESTALE => ErrorKind::NotFound,
        Errno::EEXIST => ErrorKind::AlreadyExists,
        Errno::EPERM | Errno::EACCES => ErrorKind::Permission,
        Errno::EROFS => ErrorKind::ReadOnly,
        Errno::ENOTEMPTY => ErrorKind::NotEmpty,
        Errno::EXDEV => ErrorKind::OtherFileSystem,
        Errno::ETXTBSY | Errno::EBUSY => ErrorKind::Busy,
        Errno::EPIPE | Errno::ECANCELED => ErrorKind::Cancelled,
        Errno::ENOSPC | Errno::EDQUOT => ErrorKind::NoSpace,
        Errno::EIO | Errno::EUCLEAN => ErrorKind::Device,
        Errno::ENAMETOOLONG => ErrorKind::InvalidName,
        Errno::ENOTTY | Errno::EOPNOTSUPP => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    }
}

/// The requests that this crate makes, for what an errno means to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Create,
    Snapshot,
    Delete,
    Info,
    GetFlags,
    SetFlags,
    List,
    Sync,
    WaitCleaned,
    FilesystemInfo,
    DeviceStats,
    Space,
    Label,
    Resize,
    Send,
    SetReceived,
    DefaultSubvolume,
    Scrub,
    Balance,
    Quota,
    Open,
}

impl Request {
    pub(crate) fn op(self) -> &'static str {
        match self {
            Self::Create => "create subvolume",
            Self::Snapshot => "snapshot",
            Self::Delete => "delete subvolume",
            Self::Info => "subvolume info",
            Self::GetFlags => "read subvolume flags",
            Self::SetFlags => "set subvolume flags",
            Self::List => "list subvolumes",
            Self::Sync => "sync",
            Self::WaitCleaned => "wait until cleaned",
            Self::FilesystemInfo => "file system info",
            Self::DeviceStats => "device statistics",
            Self::Space => "space info",
            Self::Label => "file system label",
            Self::Resize => "resize",
            Self::Send => "send",
            Self::SetReceived => "set received uuid",
            Self::DefaultSubvolume => "default subvolume",
            Self::Scrub => "scrub",
            Self::Balance => "balance",
            Self::Quota => "quota",
            Self::Open => "open subvolume",
        }
    }

    /// What this errno means as an answer to this request, as observed.
    fn explain(self, errno: Errno) -> (ErrorKind, Option<&'static str>) {
        use ErrorKind as K;
        let (kind, text) = match (self, errno) {
            (Self::Snapshot, Errno::EINVAL) => (K::NotSubvolume, "the source is not a subvolume"),
            (Self::Snapshot, Errno::EPERM) => (K::Permission, "the source belongs to another user"),
            (Self::Snapshot, Errno::EXDEV) => (
                K::OtherFileSystem,
                "source and destination are on different file systems",
            ),
            (Self::Snapshot, Errno::ETXTBSY) => (K::Busy, "the source has an active swap file"),
            (Self::Create | Self::Snapshot, Errno::EROFS) => (
                K::ReadOnly,
                "the directory is in a read-only subvolume or file system",
            ),
            (Self::Delete, Errno::EINVAL) => (
                K::NotSubvolume,
                "not a subvolume, or the top level, which cannot be deleted",
            ),
            (Self::Delete, Errno::ENOTEMPTY) => (
                K::NotEmpty,
                "subvolumes are nested in it; delete those first",
            ),
            (Self::Delete, Errno::EPERM) => (
                K::Permission,
                "not permitted: it is the default subvolume, is being sent, has an active swap \
                 file, or CAP_SYS_ADMIN (or mount option user_subvol_rm_allowed) is missing",
            ),
            (Self::Delete, Errno::EROFS) => (
                K::ReadOnly,
                "it, its directory or the file system is read-only",
            ),
            (Self::GetFlags | Self::SetFlags, Errno::EINVAL) => {
                (K::NotSubvolume, "not the root directory of a subvolume")
            }
            (Self::SetFlags, Errno::EPERM) => (
                K::Permission,
                "not permitted: another user's, or it is being sent",
            ),
            (Self::SetFlags, Errno::EROFS) => (K::ReadOnly, "the file system is read-only"),
            (Self::Info, Errno::ENOTTY) => (
                K::NotSubvolume,
                "an empty directory where a nested subvolume was when the snapshot was taken, \
                 or a kernel before 4.18",
            ),
            (Self::Info, Errno::ENOENT) => (K::NotFound, "the subvolume has been deleted"),
            (Self::Send, Errno::EPERM) => (
                K::Permission,
                "not permitted: the snapshot, its parent or a clone source is not read-only, or \
                 CAP_SYS_ADMIN is missing",
            ),
            (Self::Send, Errno::EPIPE) => (K::Cancelled, "the reader of the stream went away"),
            (Self::Send, Errno::EPROTO) => (
                K::Unsupported,
                "this kernel does not have this version of the stream",
            ),
            (Self::Send, Errno::EAGAIN) => (
                K::Busy,
                "a balance is moving what is to be sent, or it is being deduplicated",
            ),
            (Self::Send, Errno::EINVAL | Errno::EOPNOTSUPP) => (
                K::Unsupported,
                "this kernel does not have this version or kind of stream, or does not write into \
                 such a file (not into /dev/null)",
            ),
            (Self::Resize, Errno::EINVAL | Errno::EFBIG) => (
                K::InvalidSize,
                "the size is below 256 MiB or beyond the end of the device",
            ),
            (Self::Resize | Self::Scrub, Errno::ENODEV) => {
                (K::NotFound, "the file system has no such device")
            }
            (Self::Resize, Errno::ENOSPC) => {
                (K::NoSpace, "what is stored does not fit into this size")
            }
            (Self::SetReceived, Errno::EROFS) => (
                K::ReadOnly,
                "it has to be set before the subvolume is made read-only",
            ),
            (Self::DefaultSubvolume, Errno::ENOENT) => (K::NotFound, "no subvolume has this id"),
            (Self::Scrub | Self::Balance, Errno::ENOTCONN) => (K::NotFound, "none is running"),
            (Self::Scrub | Self::Balance, Errno::EINPROGRESS) => (K::Busy, "one is running"),
            (Self::Scrub | Self::Balance, Errno::ECANCELED) => {
                (K::Cancelled, "cancelled or paused by a request")
            }
            (Self::Balance, Errno::ENOSPC) => (
                K::NoSpace,
                "no unallocated space to move block groups to; begin with those least used",
            ),
            (Self::Quota, Errno::ENOTCONN) => (K::NotFound, "quotas are not enabled"),
            (Self::Quota, Errno::EBUSY) => {
                (K::Busy, "the group has members or usage, or a rescan runs")
            }
            (Self::Resize | Self::Scrub | Self::Balance | Self::DefaultSubvolume, Errno::EBUSY) => {
                (
                    K::Busy,
                    "another exclusive operation runs on this file system",
                )
            }
            (
                Self::List
                | Self::Label
                | Self::Resize
                | Self::DefaultSubvolume
                | Self::Scrub
                | Self::Balance
                | Self::Quota,
                Errno::EPERM,
            ) => (K::Permission, "needs CAP_SYS_ADMIN"),
            (Self::Open, Errno::EPERM) => {
                (K::Permission, "needs CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH")
            }
            (Self::Open, Errno::ENOENT | Errno::ESTALE) => {
                (K::NotFound, "no subvolume has this id")
            }
            _ => match explain_any(errno) {
                Some(explained) => explained,
                None => return (general_kind(errno), None),
            },
        };
        (kind, Some(text))
    }
}

/// What this errno means as an answer to any request.
fn explain_any(errno: Errno) -> Option<(ErrorKind, &'static str)> {
    Some(match errno {
        Errno::EROFS => (ErrorKind::ReadOnly, "read-only"),
        Errno::ENOSPC => (
            ErrorKind::NoSpace,
            "no space left for data or metadata; delete the oldest snapshots and wait until they \
             are cleaned",
        ),
        Errno::EDQUOT => (ErrorKind::NoSpace, "a quota is used up"),
        Errno::EIO => (
            ErrorKind::Device,
            "the device failed, or a checksum is wrong; see the device statistics, and whether \
             the file system is read-only by now",
        ),
        Errno::EUCLEAN => (
            ErrorKind::Device,
            "what the device holds is damaged; see the kernel's log, and `btrfs check`",
        ),
        Errno::ENOTTY => (
            ErrorKind::Unsupported,
            "this kernel does not have the request",
        ),
        _ => return None,
    })
}

/// How errors name a subvolume that is known by its id only.
pub(crate) fn id_target(id: SubvolId) -> String {
    format!("id {id}")
}
