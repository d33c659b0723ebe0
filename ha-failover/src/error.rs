//! The crate's error: what was tried, on what, and every layer below it.

use std::fmt;
use std::io;

/// A failed call of this crate.
///
/// `Display` is for people and names the object; [`Error::kind`] is for code.
/// A cause is in [`std::error::Error::source`], never in both.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller may want to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The placement file cannot be read or does not follow the format.
    Placement,
    /// A name that the placement file does not have.
    UnknownResource,
    /// `drbd.conf` cannot be read, parsed, or has no such resource or node.
    DrbdConf,
    /// The state directory (ledger, journal, lock) cannot be used.
    State,
    /// Another process works on the same resource on this node.
    Locked,
    /// The caller lacks a privilege.
    Permission,
    /// A fact could not be gathered from the system.
    Observe,
    /// A fence agent could not be run or its answer proves nothing.
    Fence,
    /// An argument that cannot be right.
    Usage,
}

impl Error {
    /// Makes an error from its parts.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            remedy: None,
            source: None,
        }))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.0.remedy = Some(text.into());
        self
    }

    /// Adds the error below this one.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn io(kind: ErrorKind, message: impl Into<String>, source: io::Error) -> Self {
        let kind = if source.kind() == io::ErrorKind::PermissionDenied {
            ErrorKind::Permission
        } else {
            kind
        };
        Error::new(kind, message).caused_by(source)
    }

    /// What a caller may want to branch on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn how_to_go_on(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// This error and all its causes in one line, outermost first.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|e| e as &(dyn std::error::Error + 'static))
    }
}

/// Joins an error and its causes by `: `, leaving out a cause that the error above it quotes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = cause.source();
    }
    text
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
