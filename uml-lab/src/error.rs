//! The crate's one error type.

use std::fmt;
use std::io;

use crate::Output;

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller would branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// This machine lacks something a lab needs: a kernel, a package and the
    /// means to get it, permission to confine. Tests skip on it.
    Missing,
    /// The lab was described wrongly: a bad name, size or address.
    Invalid,
    /// A node did not become ready.
    Boot,
    /// The node is not running, or was lost meanwhile.
    NodeDown,
    /// It took longer than allowed.
    Deadline,
    /// A program could not be started in a node.
    Spawn,
    /// A program ran and reported failure.
    Failed,
    /// The host refused something the lab needed.
    Host,
}

/// Something that did not work: in which node, at which step, why, and what
/// the node's console said last.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    node: Option<String>,
    step: String,
    detail: Option<String>,
    source: Option<io::Error>,
    console: Vec<String>,
    output: Option<Output>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, step: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            node: None,
            step: step.into(),
            detail: None,
            source: None,
            console: Vec::new(),
            output: None,
        }))
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    pub(crate) fn os(mut self, source: impl Into<io::Error>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn node(mut self, name: &str) -> Self {
        self.0.node = Some(name.to_owned());
        self
    }

    pub(crate) fn console(mut self, lines: Vec<String>) -> Self {
        self.0.console = lines;
        self
    }

    pub(crate) fn with_output(mut self, output: Output) -> Self {
        self.0.output = Some(output);
        self
    }

    /// Returns what went wrong, for code.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the name of the node it happened in, or to.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// Returns errno, where a system call failed, in the node or on the host.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.source.as_ref()?.raw_os_error()
    }

    /// Returns what a program had written when it failed or was stopped.
    #[must_use]
    pub fn output(&self) -> Option<&Output> {
        self.0.output.as_ref()
    }

    /// Returns the last lines of the node's console.
    #[must_use]
    pub fn console_lines(&self) -> &[String] {
        &self.0.console
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(node) = &inner.node {
            write!(f, "node {node}: ")?;
        }
        f.write_str(&inner.step)?;
        if let Some(detail) = &inner.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        if let Some(output) = &inner.output {
            for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
                write_tail(f, name, bytes)?;
            }
        }
        if !inner.console.is_empty() {
            write!(f, "\nlast console lines:")?;
            for line in &inner.console {
                write!(f, "\n  {line}")?;
            }
        }
        Ok(())
    }
}

/// Shows the end of what a program wrote; the beginning is rarely what failed.
fn write_tail(f: &mut fmt::Formatter<'_>, name: &str, bytes: &[u8]) -> fmt::Result {
    const LINES: usize = 60;
    const BYTES: usize = 16 * 1024;
    if bytes.is_empty() {
        return Ok(());
    }
    let tail = &bytes[bytes.len().saturating_sub(BYTES)..];
    let text = String::from_utf8_lossy(tail);
    if text
        .chars()
        .filter(|c| c.is_control() || *c == '\u{fffd}')
        .count()
        > text.len() / 8
    {
        return write!(f, "\n{name}: {} bytes, not text", bytes.len());
    }
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(LINES);
    write!(f, "\n{name}:")?;
    if skipped > 0 || tail.len() < bytes.len() {
        write!(f, "\n  (the last lines of {} bytes)", bytes.len())?;
    }
    for line in &lines[skipped..] {
        write!(f, "\n  {line}")?;
    }
    Ok(())
}

// `unwrap()` in a test prints this: the text serves better than the fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_node_step_cause_and_console() {
        let error = Error::new(ErrorKind::Boot, "boot")
            .detail("mount /proc")
            .os(io::Error::from_raw_os_error(16))
            .node("node1")
            .console(vec!["Kernel panic".to_owned()]);
        assert_eq!(
            error.to_string(),
            "node node1: boot: mount /proc: Device or resource busy (os error 16)\n\
             last console lines:\n  Kernel panic"
        );
        assert_eq!(error.kind(), ErrorKind::Boot);
        assert_eq!(error.raw_os_error(), Some(16));
        assert_eq!(error.node_name(), Some("node1"));
    }
}
