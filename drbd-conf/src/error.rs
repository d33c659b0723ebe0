//! Diagnostics: errors and warnings with the place they are about.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::source::{Location, Sources, Span};

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// It works, but something else is meant, or it will not work elsewhere.
    Warning,
    /// It cannot work.
    Error,
}

/// One finding about a configuration: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// A stable word for this kind of finding; see the list in the crate's README.
    pub code: &'static str,
    /// What was found, and what was expected.
    pub message: String,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
    /// Where it is; `None` if it is about the whole configuration.
    pub location: Option<Location>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.location {
            write!(f, "{at}: ")?;
        }
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {} [{}]", self.message, self.code)?;
        if let Some(at) = &self.location {
            let number = at.line.to_string();
            let gap = " ".repeat(number.len());
            // Tabs stay tabs, so that the caret stands under the word whatever their width is.
            let indent: String = at
                .text
                .chars()
                .take(at.column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(
                f,
                "\n {number} | {}\n {gap} | {indent}{}",
                at.text,
                "^".repeat(at.width)
            )?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n   = {remedy}")?;
        }
        Ok(())
    }
}

/// A finding before its place has been looked up. One word wide, since nearly every result of this
/// crate could be one and is not.
#[derive(Clone, Debug)]
pub(crate) struct Problem(Box<Found>);

#[derive(Clone, Debug)]
struct Found {
    severity: Severity,
    code: &'static str,
    message: String,
    remedy: Option<String>,
    span: Option<Span>,
}

impl Problem {
    pub(crate) fn error(span: Span, code: &'static str, message: impl Into<String>) -> Problem {
        let message = message.into();
        Problem(Box::new(Found {
            severity: Severity::Error,
            code,
            message,
            remedy: None,
            span: Some(span),
        }))
    }

    pub(crate) fn warning(span: Span, code: &'static str, message: impl Into<String>) -> Problem {
        let mut problem = Problem::error(span, code, message);
        problem.0.severity = Severity::Warning;
        problem
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Problem {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// It is about no place in a file.
    pub(crate) fn nowhere(mut self) -> Problem {
        self.0.span = None;
        self
    }

    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }

    pub(crate) fn message(self) -> String {
        self.0.message
    }

    pub(crate) fn locate(self, sources: &Sources) -> Diagnostic {
        let found = *self.0;
        Diagnostic {
            severity: found.severity,
            code: found.code,
            message: found.message,
            remedy: found.remedy,
            location: found.span.map(|s| sources.location(s)),
        }
    }
}

/// Why a configuration cannot be used: one or more diagnostics, or a file that cannot be read.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    diagnostics: Vec<Diagnostic>,
    source: Option<io::Error>,
}

/// What a caller may want to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration file, or one that it includes by its full name, cannot be read, or a file
    /// cannot be written.
    Io,
    /// The text breaks the grammar.
    Syntax,
    /// A file includes itself, directly or through others.
    IncludeCycle,
    /// The text is well formed, but what it says cannot be: a missing statement, a value out of
    /// range, the same minor twice, …
    Invalid,
    /// No such node in the resource.
    UnknownNode,
    /// What is asked for is not in this configuration, such as one peer where there are several.
    Ambiguous,
    /// This version of the library cannot do it.
    Unsupported,
}

impl Error {
    pub(crate) fn new(
        kind: ErrorKind,
        diagnostics: Vec<Diagnostic>,
        source: Option<io::Error>,
    ) -> Error {
        Error(Box::new(Inner {
            kind,
            diagnostics,
            source,
        }))
    }

    /// Makes an error that has no place in a file.
    pub(crate) fn plain(
        kind: ErrorKind,
        code: &'static str,
        message: String,
        remedy: Option<String>,
    ) -> Error {
        let severity = Severity::Error;
        Error::new(
            kind,
            vec![Diagnostic {
                severity,
                code,
                message,
                remedy,
                location: None,
            }],
            None,
        )
    }

    /// Makes an error about a file that cannot be read or written.
    pub(crate) fn io(message: String, e: io::Error) -> Error {
        let mut error = Error::plain(ErrorKind::Io, "io", message, None);
        error.0.source = Some(e);
        error
    }

    /// Returns what kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the errno, if a file could not be read.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.source.as_ref().and_then(io::Error::raw_os_error)
    }

    /// Returns everything that is wrong, in the order of the text; at least one.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0.diagnostics
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.0.diagnostics.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{d}")?;
        }
        Ok(())
    }
}

/// The cause is part of the message; `source()` is `None`.
impl StdError for Error {}
