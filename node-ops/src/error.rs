//! What failed, on what, and what the system said.

use std::fmt;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use crate::holders::Holder;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed request: what was tried, on what, and what the system said.
///
/// [`kind`](Self::kind) is for code, `Display` for people: it prints every
/// layer, and so there is no separate [`source`](std::error::Error::source).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    op: &'static str,
    target: String,
    /// What it means here, or what the kernel said beside the errno.
    text: Option<String>,
    source: Option<io::Error>,
    holders: Vec<Holder>,
}

/// What a caller may want to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// In use; [`Error::holders`] says by whom, as far as that can be seen.
    Busy,
    /// No such path, link, process or parameter.
    NotFound,
    /// A capability or permission is missing.
    Permission,
    /// Something else is mounted at the target.
    AlreadyMounted,
    /// The name is taken by something else.
    AlreadyExists,
    /// The source of a mount is not the path of a block device.
    NotBlockDevice,
    /// The target is not a directory.
    NotDirectory,
    /// The target directory has entries that the mount would hide.
    NotEmpty,
    /// An argument that cannot be right, refused before anything was done.
    InvalidArgument,
    /// The device does not hold the file system that was asked for.
    WrongFileSystem,
    /// The device holds a file system or other data already.
    HasData,
    /// The device cannot be opened now; a DRBD device is Secondary, for example.
    NotReady,
    /// The kernel has no module of this name.
    ModuleNotFound,
    /// The kernel does not have what this needs.
    Unsupported,
    /// Read-only where something was to be written.
    ReadOnly,
    /// The deadline passed.
    TimedOut,
    /// A program that was started failed.
    ProgramFailed,
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
        self.0.source.as_ref().and_then(io::Error::raw_os_error)
    }

    /// Who is in the way, for [`ErrorKind::Busy`]. Empty if nobody was found:
    /// then it was somebody who has gone, or it is inside the kernel.
    #[must_use]
    pub fn holders(&self) -> &[Holder] {
        &self.0.holders
    }

    fn new(kind: ErrorKind, op: &'static str, target: String) -> Self {
        let inner = Inner {
            kind,
            op,
            target,
            text: None,
            source: None,
            holders: Vec::new(),
        };
        Self(Box::new(inner))
    }

    /// Decided here, without a system call that failed.
    pub(crate) fn message(
        kind: ErrorKind,
        op: &'static str,
        target: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(kind, op, target.into()).with_text(text)
    }

    pub(crate) fn os(op: &'static str, target: impl Into<String>, errno: Errno) -> Self {
        Self::io(op, target, errno.into())
    }

    pub(crate) fn io(op: &'static str, target: impl Into<String>, source: io::Error) -> Self {
        let mut error = Self::new(kind_of(&source), op, target.into());
        error.0.source = Some(source);
        error
    }

    /// For the calls of the standard library on one path.
    pub(crate) fn path(op: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::io(op, path.display().to_string(), source)
    }

    /// Adds what it means, or what the kernel said.
    pub(crate) fn with_text(mut self, text: impl Into<String>) -> Self {
        self.0.text = Some(text.into());
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn with_holders(mut self, holders: Vec<Holder>) -> Self {
        self.0.holders = holders;
        self
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::ENXIO) => ErrorKind::NotFound,
        Some(Errno::EPERM | Errno::EACCES) => ErrorKind::Permission,
        Some(Errno::EBUSY | Errno::ETXTBSY) => ErrorKind::Busy,
        Some(Errno::EEXIST) => ErrorKind::AlreadyExists,
        Some(Errno::ENOTDIR) => ErrorKind::NotDirectory,
        Some(Errno::ENOTEMPTY) => ErrorKind::NotEmpty,
        Some(Errno::ENOTBLK) => ErrorKind::NotBlockDevice,
        Some(Errno::EROFS) => ErrorKind::ReadOnly,
        Some(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENOTTY | Errno::EAFNOSUPPORT) => {
            ErrorKind::Unsupported
        }
        Some(Errno::ETIMEDOUT) => ErrorKind::TimedOut,
        Some(Errno::EMEDIUMTYPE) => ErrorKind::NotReady,
        _ => ErrorKind::Other,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            op,
            target,
            text,
            source,
            holders,
            ..
        } = &*self.0;
        write!(f, "{op} {target}")?;
        if let Some(text) = text {
            write!(f, ": {text}")?;
        }
        if let Some(source) = source {
            write!(f, ": {source}")?;
        }
        for (i, holder) in holders.iter().enumerate() {
            write!(f, "{}{holder}", if i == 0 { "; held by " } else { "; " })?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_is_printed() {
        let error = Error::os("mount", "/dev/drbd0", Errno::EMEDIUMTYPE).with_text("not now");
        assert_eq!(error.kind(), ErrorKind::NotReady);
        assert_eq!(error.raw_os_error(), Some(libc::EMEDIUMTYPE));
        let text = error.to_string();
        assert!(text.starts_with("mount /dev/drbd0: not now: "), "{text}");
        assert!(text.contains("os error 124"), "{text}");
        assert!(size_of::<Error>() == size_of::<usize>());
    }
}
