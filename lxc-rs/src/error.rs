//! The one error type of the crate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::log::LogLine;

/// A failed call: what was tried, on which container, and what liblxc logged.
#[derive(Debug)]
pub struct Error(Box<Inner>);

/// The result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    call: &'static str,
    container: Option<String>,
    path: Option<PathBuf>,
    detail: String,
    source: Option<Source>,
    log: Vec<LogLine>,
}

#[derive(Debug)]
enum Source {
    Os(io::Error),
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// What a caller would branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The container has no configuration file.
    NotDefined,
    /// The container, or something in its place, is there already.
    AlreadyDefined,
    /// The container runs, and the call needs a stopped one.
    AlreadyRunning,
    /// The container is stopped, and the call needs a running one.
    NotRunning,
    /// A creation was cut off: the file `partial` is still there.
    PartialCreate,
    /// liblxc rejects the configuration, or a key or value given to it.
    ConfigRejected,
    /// The configuration file changed since it was read.
    ConfigChanged,
    /// The root file system that the configuration names is not there.
    RootfsMissing,
    /// The directory is not on a Btrfs file system.
    NotBtrfs,
    /// The root file system is a Btrfs subvolume named without `btrfs:`, or
    /// its driver cannot do what the configuration wants.
    WrongDriver,
    /// The owner of the root file system is nobody inside, by `lxc.idmap`.
    NotMapped,
    /// The bridge that the configuration names does not exist.
    BridgeMissing,
    /// Snapshots depend on the container.
    HasSnapshots,
    /// There is no such snapshot.
    SnapshotMissing,
    /// Subvolumes inside the root file system would be lost.
    NestedSubvolumes,
    /// The container's cgroup has no such file.
    NoCgroupItem,
    /// The process lacks a privilege.
    NoPermission,
    /// The running liblxc cannot do this, or is too old, or is not there.
    Unsupported,
    /// The deadline passed and the outcome is unknown (see [`Outcome`](crate::Outcome)).
    Timeout,
    /// Not a name a container can have.
    InvalidName,
    /// Not a directory that can hold containers.
    InvalidPath,
    /// An argument that no container could accept.
    InvalidInput,
    /// The command to attach could not be executed; `raw_os_error` says why.
    ExecFailed,
    /// What the caller does to fill a new root file system failed.
    Populate,
    /// The helper process could not be run or did not answer.
    Helper,
    /// liblxc said no; the log lines say why, as far as it told.
    Refused,
    /// A system call of ours failed.
    Io,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, call: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Inner {
            kind,
            call,
            container: None,
            path: None,
            detail,
            source: None,
            log: Vec::new(),
        }))
    }

    /// A failed system call; permission problems get their own kind.
    pub(crate) fn io(call: &'static str, detail: impl Into<String>, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::NoPermission,
            _ => ErrorKind::Io,
        };
        Self::new(kind, call, detail).os(error)
    }

    pub(crate) fn on(mut self, container: &str, lxcpath: &Path) -> Self {
        self.0.container = Some(container.to_owned());
        self.0.path = Some(lxcpath.to_owned());
        self
    }

    pub(crate) fn at(mut self, path: &Path) -> Self {
        self.0.path = Some(path.to_owned());
        self
    }

    pub(crate) fn os(mut self, error: io::Error) -> Self {
        self.0.source = Some(Source::Os(error));
        self
    }

    pub(crate) fn because(mut self, cause: Box<dyn std::error::Error + Send + Sync>) -> Self {
        self.0.source = Some(Source::Other(cause));
        self
    }

    pub(crate) fn with_log(mut self, log: Vec<LogLine>) -> Self {
        self.0.log = log;
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn add_detail(&mut self, detail: &str) {
        self.0.detail.push_str("; ");
        self.0.detail.push_str(detail);
    }

    /// What a caller would branch on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The call that failed, for example `start`.
    #[must_use]
    pub fn call(&self) -> &'static str {
        self.0.call
    }

    /// The container it was about.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        self.0.container.as_deref()
    }

    /// The lxcpath it was about, or the path if there was no container.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Everything liblxc logged during this call, from level INFO on.
    #[must_use]
    pub fn log(&self) -> &[LogLine] {
        &self.0.log
    }

    /// The log lines that can be the reason, in the order they were written:
    /// the first is the cause, later ones are what followed from it.
    pub fn causes(&self) -> impl Iterator<Item = &LogLine> {
        self.0.log.iter().filter(|line| line.is_cause())
    }

    /// The errno behind a failed system call of ours. liblxc reports none.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.0.source {
            Some(Source::Os(error)) => error.raw_os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.write_str(inner.call)?;
        match (&inner.container, &inner.path) {
            (Some(container), Some(path)) => write!(f, " {container} in {}", path.display())?,
            (Some(container), None) => write!(f, " {container}")?,
            (None, Some(path)) => write!(f, " {}", path.display())?,
            (None, None) => {}
        }
        write!(f, ": {}", inner.detail)?;
        if let Some(Source::Os(error)) = &inner.source {
            write!(f, ": {error}")?;
        }
        for (index, cause) in self.causes().take(4).enumerate() {
            f.write_str(if index == 0 { "; liblxc: " } else { " < " })?;
            f.write_str(&cause.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(Source::Other(cause)) => Some(&**cause),
            // Shown by `Display`.
            Some(Source::Os(_)) | None => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn one_word_and_the_first_cause_first() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let log = LogLine::parse_all(
            "lxc-rs 1 ERROR a - a.c:f:1 - first\nlxc-rs 1 ERROR a - a.c:g:2 - second\n",
        );
        let error = Error::new(ErrorKind::Refused, "start", "liblxc refused")
            .on("m1", Path::new("/srv/lxc"))
            .with_log(log);
        assert_eq!(
            error.to_string(),
            "start m1 in /srv/lxc: liblxc refused; liblxc: first < second"
        );
    }
}
