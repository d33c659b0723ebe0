//! A failed request: what was tried, on what, and what the kernel said.

use crate::dialect::Dialect;
use crate::model::{Rejected, Text};
use crate::schema::codes;
use crate::wire::WireError;
use std::{fmt, io};

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A failed request: what was tried, on what, and every layer of the answer.
///
/// [`Error::kind`] is for code, `Display` for people.
pub struct Error(Box<Inner>);

struct Inner {
    op: String,
    target: String,
    cause: Cause,
    /// What happened besides, such as volumes promoted and demoted again.
    notes: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Cause {
    /// errno of a system call.
    System {
        call: &'static str,
        source: io::Error,
    },
    /// `NLMSG_ERROR`, with the extended-acknowledgement text.
    Netlink {
        source: io::Error,
        extack: Option<Text>,
    },
    /// DRBD answered and said no.
    Refused {
        dialect: Dialect,
        ret_code: i32,
        info: Vec<Text>,
    },
    /// Refused here, before anything was sent.
    Local { kind: ErrorKind, text: String },
    /// A reply that breaks the protocol.
    Malformed(WireError),
}

/// What a caller would branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The DRBD module is not loaded (or was unloaded since).
    ModuleNotLoaded,
    /// CAP_NET_ADMIN or CAP_SYS_ADMIN is missing.
    Permission,
    /// No such resource, minor, connection or volume.
    NotFound,
    /// The name, minor, volume or address is taken.
    AlreadyExists,
    /// In use: held open, mounted, still configured.
    Busy,
    /// The activity log must be applied before the disk can be attached (165).
    MetadataUnclean,
    /// There is no current data to be Primary with (-2).
    NoCurrentData,
    /// The peer is Primary (-1).
    PeerIsPrimary,
    /// A state change is under way; trying again may help (-18).
    Transient,
    /// DRBD said no for another reason; see [`Error::ret_code`].
    Refused,
    /// The request makes no sense, or a value is out of its range.
    InvalidInput,
    /// The running kernel does not have this.
    Unsupported,
    /// The deadline passed while nothing had been changed.
    Timeout,
    /// An answer that breaks the protocol. If it answered a change, whether
    /// that happened is not known.
    Malformed,
    /// The operating system said no; see [`Error::raw_os_error`].
    Os,
}

impl Error {
    pub(crate) fn new(op: impl Into<String>, target: impl Into<String>, cause: Cause) -> Self {
        Self(Box::new(Inner {
            op: op.into(),
            target: target.into(),
            cause,
            notes: Vec::new(),
        }))
    }

    pub(crate) fn local(
        op: impl Into<String>,
        target: impl Into<String>,
        kind: ErrorKind,
        text: impl Into<String>,
    ) -> Self {
        Self::new(
            op,
            target,
            Cause::Local {
                kind,
                text: text.into(),
            },
        )
    }

    pub(crate) fn note(mut self, note: String) -> Self {
        self.0.notes.push(note);
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &self.0.cause {
            Cause::System { source, .. } | Cause::Netlink { source, .. } => {
                match source.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => ErrorKind::Permission,
                    Some(libc::EOPNOTSUPP) => ErrorKind::Unsupported,
                    _ => ErrorKind::Os,
                }
            }
            Cause::Refused { ret_code, .. } => match *ret_code {
                codes::ERR_RES_NOT_KNOWN | codes::ERR_MINOR_INVALID => ErrorKind::NotFound,
                codes::ERR_LOCAL_ADDR
                | codes::ERR_PEER_ADDR
                | codes::ERR_LOCAL_AND_PEER_ADDR
                | codes::ERR_DISK_CONFIGURED
                | codes::ERR_NET_CONFIGURED
                | codes::ERR_MINOR_OR_VOLUME_EXISTS
                | codes::ERR_ALREADY_EXISTS => ErrorKind::AlreadyExists,
                codes::SS_DEVICE_IN_USE
                | codes::ERR_RES_IN_USE
                | codes::ERR_MINOR_CONFIGURED
                | 114
                | 115 => ErrorKind::Busy,
                codes::ERR_MD_UNCLEAN => ErrorKind::MetadataUnclean,
                codes::SS_NO_UP_TO_DATE_DISK => ErrorKind::NoCurrentData,
                codes::SS_TWO_PRIMARIES => ErrorKind::PeerIsPrimary,
                codes::SS_IN_TRANSIENT_STATE => ErrorKind::Transient,
                codes::ERR_PERM => ErrorKind::Permission,
                codes::ERR_INVALID_REQUEST | 126 => ErrorKind::InvalidInput,
                _ => ErrorKind::Refused,
            },
            Cause::Local { kind, .. } => *kind,
            Cause::Malformed(_) => ErrorKind::Malformed,
        }
    }

    /// What was tried, as in `new-minor`.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.0.op
    }

    /// The object it was tried on, as in `r0/0 minor 0`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.0.target
    }

    /// The errno, if the operating system or netlink refused.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.0.cause {
            Cause::System { source, .. } | Cause::Netlink { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// The kernel's extended-acknowledgement text.
    #[must_use]
    pub fn extended_text(&self) -> Option<&Text> {
        match &self.0.cause {
            Cause::Netlink { extack, .. } => extack.as_ref(),
            _ => None,
        }
    }

    /// DRBD's return code, if DRBD refused.
    #[must_use]
    pub fn ret_code(&self) -> Option<i32> {
        match &self.0.cause {
            Cause::Refused { ret_code, .. } => Some(*ret_code),
            _ => None,
        }
    }

    /// The C name of [`Error::ret_code`], if this version knows it.
    #[must_use]
    pub fn ret_code_name(&self) -> Option<&'static str> {
        match &self.0.cause {
            Cause::Refused {
                dialect, ret_code, ..
            } => codes::name(*dialect, *ret_code),
            _ => None,
        }
    }

    /// Every text that DRBD sent along.
    #[must_use]
    pub fn info(&self) -> &[Text] {
        match &self.0.cause {
            Cause::Refused { info, .. } => info,
            _ => &[],
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            op,
            target,
            cause,
            notes,
        } = &*self.0;
        f.write_str(op)?;
        if !target.is_empty() {
            write!(f, " {target}")?;
        }
        f.write_str(": ")?;
        match cause {
            Cause::System { call, source } => write!(f, "{call}: {source}")?,
            Cause::Netlink { source, extack } => {
                write!(f, "the kernel refused: {source}")?;
                if let Some(text) = extack {
                    write!(f, " ({text})")?;
                }
                if self.kind() == ErrorKind::Permission {
                    f.write_str("; this needs CAP_NET_ADMIN and CAP_SYS_ADMIN (root)")?;
                }
            }
            Cause::Refused {
                dialect,
                ret_code,
                info,
            } => {
                match codes::name(*dialect, *ret_code) {
                    Some(name) => write!(f, "refused with code {ret_code} ({name})")?,
                    None => write!(f, "refused with code {ret_code}")?,
                }
                if let Some(meaning) = codes::meaning(*dialect, *ret_code) {
                    write!(f, ": {meaning}")?;
                }
                for (nr, text) in info.iter().enumerate() {
                    f.write_str(if nr == 0 { "; drbd says: " } else { "; " })?;
                    write!(f, "{}", text.to_string().trim_end_matches("\\n"))?;
                }
            }
            Cause::Local { text, .. } => f.write_str(text)?,
            Cause::Malformed(error) => write!(f, "unexpected answer: {error}")?,
        }
        notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind())
            .field("op", &self.0.op)
            .field("target", &self.0.target)
            .field("cause", &self.0.cause)
            .field("notes", &self.0.notes)
            .finish()
    }
}

impl std::error::Error for Error {}

impl From<Rejected> for Cause {
    fn from(error: Rejected) -> Self {
        let kind = match &error {
            Rejected::Unsupported { .. } => ErrorKind::Unsupported,
            Rejected::OutOfRange { .. } => ErrorKind::InvalidInput,
        };
        Self::Local {
            kind,
            text: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_object_and_the_code() {
        let refused = |dialect, ret_code| {
            Error::new(
                "new-minor",
                "r0/0 minor 0",
                Cause::Refused {
                    dialect,
                    ret_code,
                    info: vec!["one".into(), "two\n".into()],
                },
            )
        };
        let error = refused(Dialect::V84, 161);
        assert_eq!(
            error.to_string(),
            "new-minor r0/0 minor 0: refused with code 161 (ERR_MINOR_OR_VOLUME_EXISTS): \
             the minor or volume exists already; drbd says: one; two"
        );
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            refused(Dialect::V84, -21).ret_code_name(),
            Some("SS_OUTDATE_WO_CONN")
        );
        assert_eq!(
            refused(Dialect::V9, -21).ret_code_name(),
            Some("SS_INTERRUPTED")
        );
        assert_eq!(refused(Dialect::V84, -25).ret_code_name(), None);
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
