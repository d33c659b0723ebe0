//! What went wrong, on which device, at which byte.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::probe::Signature;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation: what was tried, on which device, where on it, and why it failed.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    op: &'static str,
    device: PathBuf,
    offset: Option<u64>,
    cause: Cause,
}

#[derive(Debug)]
pub(crate) enum Cause {
    Os(io::Error),
    NotADevice,
    InUse(io::Error),
    ReadOnly(io::Error),
    TooSmall {
        size: u64,
        needed: u64,
    },
    TooLarge {
        size: u64,
        limit: u64,
    },
    NoMetadata,
    Occupied {
        found: Vec<Signature>,
        named: Vec<String>,
    },
    NotThere {
        named: String,
        found: Vec<Signature>,
    },
    Corrupt(String),
    /// The work of an earlier call was cut short.
    Interrupted(&'static str),
    /// The state of the metadata forbids the operation.
    State(String),
    Unsupported(String),
    InvalidOption(String),
    Verify {
        wrote: usize,
    },
}

/// What a caller may want to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The path does not exist.
    NotFound,
    /// The caller may not open the device.
    PermissionDenied,
    /// The path is neither a block device nor a regular file.
    NotADevice,
    /// Somebody else holds the device: it is mounted, attached to DRBD, part of a volume group, …
    InUse,
    /// The device, or the medium, cannot be written.
    ReadOnly,
    /// The device cannot hold the metadata.
    TooSmall,
    /// The device is larger than the format can describe.
    TooLarge,
    /// There is no DRBD metadata at the place where it has to be.
    NoMetadata,
    /// Something is on the device that the caller did not name for overwriting.
    WouldOverwrite,
    /// The caller named something for overwriting that is not on the device.
    NotThere,
    /// The metadata or the activity log contradicts itself.
    Corrupt,
    /// An earlier call was cut short and has to be repeated before anything else.
    Interrupted,
    /// The metadata is in a state that forbids the operation, such as a log that was not applied.
    WrongState,
    /// This version of the library cannot do it for this format, or lacks a system library.
    Unsupported,
    /// An option has a value outside the limits of the format.
    InvalidOption,
    /// What was read back differs from what was written.
    VerifyFailed,
    /// Any other error of the operating system.
    Io,
}

impl Error {
    pub(crate) fn new(op: &'static str, device: &Path, offset: Option<u64>, cause: Cause) -> Self {
        Error(Box::new(Inner {
            op,
            device: device.to_owned(),
            offset,
            cause,
        }))
    }

    pub(crate) fn os(op: &'static str, device: &Path, offset: Option<u64>, e: io::Error) -> Self {
        Self::new(op, device, offset, Cause::Os(e))
    }

    /// Returns what kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match &self.0.cause {
            Cause::Os(e) => match e.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Io,
            },
            Cause::NotADevice => ErrorKind::NotADevice,
            Cause::InUse(_) => ErrorKind::InUse,
            Cause::ReadOnly(_) => ErrorKind::ReadOnly,
            Cause::TooSmall { .. } => ErrorKind::TooSmall,
            Cause::TooLarge { .. } => ErrorKind::TooLarge,
            Cause::NoMetadata => ErrorKind::NoMetadata,
            Cause::Occupied { .. } => ErrorKind::WouldOverwrite,
            Cause::NotThere { .. } => ErrorKind::NotThere,
            Cause::Corrupt(_) => ErrorKind::Corrupt,
            Cause::Interrupted(_) => ErrorKind::Interrupted,
            Cause::State(_) => ErrorKind::WrongState,
            Cause::Unsupported(_) => ErrorKind::Unsupported,
            Cause::InvalidOption(_) => ErrorKind::InvalidOption,
            Cause::Verify { .. } => ErrorKind::VerifyFailed,
        }
    }

    /// Returns the device or file the operation was about.
    pub fn device(&self) -> &Path {
        &self.0.device
    }

    /// Returns the byte offset on the device, where the failure has one.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Returns the errno, where the operating system gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.io().and_then(io::Error::raw_os_error)
    }

    /// Returns what was found on the device, if that is why the operation was refused.
    pub fn found(&self) -> &[Signature] {
        match &self.0.cause {
            Cause::Occupied { found, .. } | Cause::NotThere { found, .. } => found,
            _ => &[],
        }
    }

    fn io(&self) -> Option<&io::Error> {
        match &self.0.cause {
            Cause::Os(e) | Cause::InUse(e) | Cause::ReadOnly(e) => Some(e),
            _ => None,
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, found: &[Signature]) -> fmt::Result {
    if found.is_empty() {
        return f.write_str("nothing");
    }
    for (i, s) in found.iter().enumerate() {
        write!(f, "{}{s}", if i == 0 { "" } else { ", " })?;
    }
    Ok(())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            op,
            device,
            offset,
            cause,
        } = &*self.0;
        write!(f, "{op} {}", device.display())?;
        if let Some(at) = offset {
            write!(f, " at byte {at}")?;
        }
        f.write_str(": ")?;
        match cause {
            Cause::Os(e) => e.fmt(f),
            Cause::NotADevice => f.write_str("not a block device or regular file"),
            Cause::InUse(_) => {
                f.write_str("in use (mounted, attached to DRBD, or held by another program)")
            }
            Cause::ReadOnly(_) => f.write_str("read-only"),
            Cause::TooSmall { size, needed } => {
                write!(f, "too small: {size} bytes, at least {needed} are needed")
            }
            Cause::TooLarge { size, limit } => {
                write!(
                    f,
                    "too large: {size} bytes, at most {limit} can be described"
                )
            }
            Cause::NoMetadata => f.write_str("no DRBD metadata"),
            Cause::Occupied { found, named } => {
                f.write_str("would overwrite ")?;
                list(f, found)?;
                if named.is_empty() {
                    f.write_str("; name it to overwrite it")
                } else {
                    write!(f, "; only {} named for overwriting", named.join(", "))
                }
            }
            Cause::NotThere { named, found } => {
                write!(f, "{named} was named for overwriting, but found: ")?;
                list(f, found)
            }
            Cause::Interrupted(what) => f.write_str(what),
            Cause::Corrupt(what)
            | Cause::State(what)
            | Cause::Unsupported(what)
            | Cause::InvalidOption(what) => f.write_str(what),
            Cause::Verify { wrote } => {
                write!(f, "read back something else than the {wrote} bytes written")
            }
        }
    }
}

/// The cause is part of the message; `source()` is `None`.
impl StdError for Error {}
