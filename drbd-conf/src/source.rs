//! The files that were read, and places in them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A range of bytes in one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub(crate) file: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// From the start of this one to the end of `other`.
    pub(crate) fn to(self, other: Span) -> Span {
        Span {
            end: other.end.max(self.end),
            ..self
        }
    }
}

struct SourceFile {
    name: PathBuf,
    text: Arc<String>,
    index: OnceLock<Index>,
}

/// What is looked up in a text once a place of it is to be shown.
struct Index {
    /// Where each line starts.
    lines: Vec<u32>,
    /// A secret may be in it, so that lines have to be looked at before they are shown.
    secret: bool,
}

impl SourceFile {
    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let starts = self.text.match_indices('\n').map(|(i, _)| i as u32 + 1);
            Index {
                lines: std::iter::once(0).chain(starts).collect(),
                secret: self.text.contains("shared-secret"),
            }
        })
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text can hold secrets.
        self.name.fmt(f)
    }
}

/// All files of one configuration, in the order in which they were opened.
#[derive(Debug, Default)]
pub(crate) struct Sources(Vec<SourceFile>);

/// A place in a configuration file, with the line it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The file, as it was named to [`Config::load`](crate::Config::load) or found by an include.
    pub file: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// How many characters of the line are meant; at least 1.
    pub width: usize,
    /// The whole line. A shared secret in it is replaced by asterisks.
    pub text: String,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl Sources {
    /// Adds a file. `None` if it is too large to be addressed (4 GiB).
    pub(crate) fn add(&mut self, name: &Path, text: Arc<String>) -> Option<u32> {
        u32::try_from(text.len()).ok()?;
        let id = u32::try_from(self.0.len()).ok()?;
        self.0.push(SourceFile {
            name: name.to_owned(),
            text,
            index: OnceLock::new(),
        });
        Some(id)
    }

    pub(crate) fn text(&self, file: u32) -> &str {
        &self.0[file as usize].text
    }

    pub(crate) fn name(&self, file: u32) -> &Path {
        &self.0[file as usize].name
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|f| f.name.as_path())
    }

    /// Finds line and column of a span.
    pub(crate) fn location(&self, span: Span) -> Location {
        let text = self.text(span.file);
        let start = (span.start as usize).min(text.len());
        let Index { lines, secret } = self.0[span.file as usize].index();
        let line = lines.partition_point(|l| *l as usize <= start);
        let line_start = lines[line - 1] as usize;
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let end = (span.end as usize).clamp(start, line_end);
        Location {
            file: self.name(span.file).to_owned(),
            line,
            column: 1 + text[line_start..start].chars().count(),
            width: text[start..end].chars().count().max(1),
            text: match secret {
                true => masked(text, line_start, line_end),
                false => text[line_start..line_end].to_owned(),
            },
        }
    }
}

/// The line from `start` to `end`, with the value of every `shared-secret` made unreadable.
///
/// Works on the text, not on the parsed statement, since it also has to hold in files that do not
/// parse. The value may stand on a later line than the word.
fn masked(text: &str, start: usize, end: usize) -> String {
    const WORD: &str = "shared-secret";
    /// How far in front of the line the word is looked for.
    const BEFORE: usize = 4096;
    let mut line = text[start..end].to_owned();
    let mut from = start.saturating_sub(BEFORE);
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    from = text[from..start].rfind(WORD).map_or(start, |i| from + i);
    for (at, _) in text[from..end].match_indices(WORD) {
        let after = from + at + WORD.len();
        let rest = &text[after..];
        let skipped = rest.len() - rest.trim_start().len();
        let value = after + skipped;
        let len = match rest[skipped..].strip_prefix('"') {
            Some(quoted) => 1 + quoted.find(['"', '\n']).map_or(quoted.len(), |i| i + 1),
            None => rest[skipped..]
                .find([';', '\n', ' ', '\t'])
                .unwrap_or(rest.len() - skipped),
        };
        let (a, b) = (value.max(start), (value + len).min(end));
        if a < b {
            let stars = "*".repeat(text[a..b].chars().count());
            // The line may have become shorter by masking an earlier value with wider characters,
            // so it is rebuilt from its end, whose length did not change.
            let tail = line.len() - (end - b);
            let head = tail - (b - a);
            line.replace_range(head..tail, &stars);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    fn at(text: &str, what: &str) -> Location {
        let mut s = Sources::default();
        let file = s.add(Path::new("f"), Arc::new(text.into())).unwrap();
        let start = text.find(what).unwrap() as u32;
        s.location(Span {
            file,
            start,
            end: start + what.len() as u32,
        })
    }

    #[test]
    fn columns_count_characters() {
        let l = at("a\n  \u{e4}\u{f6} xyz;\n", "xyz");
        assert_eq!((l.line, l.column, l.width), (2, 6, 3));
        assert_eq!(l.text, "  \u{e4}\u{f6} xyz;");
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(
            at("shared-secret hunter2 oops;", "oops").text,
            "shared-secret ******* oops;"
        );
        assert_eq!(
            at("shared-secret \"a b\u{e4}\"; x", "x").text,
            "shared-secret ******; x"
        );
        assert_eq!(
            at("shared-secret\n  hunter2;\n", "hunter2").text,
            "  *******;"
        );
        let two = at("{ shared-secret \u{e4}\u{e4}; shared-secret b; x }", "x");
        assert_eq!(two.text, "{ shared-secret **; shared-secret *; x }");
    }
}
