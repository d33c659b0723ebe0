//! Writing: changes to a file that leave everything else as it is, and new resource files.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Problem, Result};
use crate::model::{Config, MetaDisk};
use crate::schema::{self, Section};
use crate::source::Sources;
use crate::syntax::{self, Body, Statement};

/// The text of one configuration file, to be changed in places.
///
/// Comments, layout and everything that is not touched stay as they are. A place is named by the
/// words in front of the blocks around it:
///
/// ```
/// let mut file = drbd_conf::Document::parse("resource r0 { # ours\n  net { timeout 60; }\n}\n", "r0.res")?;
/// file.set(&["resource r0", "net"], "timeout", "50")?;
/// file.set(&["resource r0", "disk"], "on-io-error", "detach")?;
/// file.remove(&["resource r0", "startup"], "become-primary-on")?;
/// assert_eq!(
///     file.text(),
///     "resource r0 { # ours\n  net { timeout 50; }\n  disk {\n    on-io-error detach;\n  }\n}\n"
/// );
/// # Ok::<(), drbd_conf::Error>(())
/// ```
#[derive(Clone)]
pub struct Document {
    name: PathBuf,
    text: String,
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The text can hold secrets.
        f.debug_struct("Document")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A word, or a string in quotes where it has to be one.
pub(crate) fn quoted(value: &str) -> String {
    let bare = !value.is_empty()
        && value.len() <= 128
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-'));
    if bare {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Where a statement, or the end of a block, is in the text.
enum Found {
    /// A statement: from its first word to after its `;` or `}`.
    Statement(usize, usize),
    /// The block is there and has no such statement: from its `{` to its `}`, and where the last
    /// statement in it begins.
    Block(usize, usize, Option<usize>),
    /// So many of the blocks are there; then as `Block`.
    Missing(usize, usize, usize, Option<usize>),
}

impl Document {
    /// Takes a text. `name` is what messages call it.
    ///
    /// # Errors
    /// `Syntax` if it is not made of statements and blocks. What they mean is not looked at.
    pub fn parse(text: impl Into<String>, name: impl AsRef<Path>) -> Result<Document> {
        let text = text.into();
        let name = name.as_ref().to_owned();
        let checked = syntax::tokens(&text, 0);
        checked.map(drop).map_err(|problem| {
            let mut sources = Sources::default();
            sources.add(&name, Arc::new(text.clone()));
            Error::new(ErrorKind::Syntax, vec![problem.locate(&sources)], None)
        })?;
        Ok(Document { name, text })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// `Io`, and as [`Document::parse`].
    pub fn open(path: impl AsRef<Path>) -> Result<Document> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|e| unwritten(path, "read", e))?;
        Document::parse(text, path)
    }

    /// Returns the text as it is now.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the words of every statement in a block, and those in front of every block in it. No
    /// block is the whole file.
    ///
    /// ```
    /// let file = drbd_conf::Document::parse("resource r0 { protocol C; net { } }", "r0.res")?;
    /// assert_eq!(file.heads(&[]), ["resource r0"]);
    /// assert_eq!(file.heads(&["resource r0"]), ["protocol C", "net"]);
    /// # Ok::<(), drbd_conf::Error>(())
    /// ```
    pub fn heads(&self, block: &[&str]) -> Vec<String> {
        let Ok(tokens) = syntax::tokens(&self.text, 0) else {
            return Vec::new();
        };
        let statements = syntax::statements(&tokens).unwrap_or_default();
        let mut here = &statements[..];
        for name in block {
            let inner = here.iter().find_map(|s| match &s.body {
                Body::Block(inner) if is(s, name) => Some(inner),
                _ => None,
            });
            here = inner.map_or(&[], |inner| &inner[..]);
        }
        let head = |s: &Statement<'_>| {
            let words: Vec<&str> = s.words.iter().map(|w| &*w.text).collect();
            words.join(" ")
        };
        here.iter().map(head).collect()
    }

    /// Returns what a statement of a block sets: the words after `keyword`.
    pub fn get(&self, block: &[&str], keyword: &str) -> Option<String> {
        let value = |head: String| match head.split_once(' ') {
            Some((k, value)) if k == keyword => Some(value.to_owned()),
            None if head == keyword => Some(String::new()),
            _ => None,
        };
        self.heads(block).into_iter().find_map(value)
    }

    /// Rewrites the old forms in `common` and in every resource: the `syncer` section, options under
    /// a former name, and those without a meaning. Tells what was done, a line each.
    ///
    /// # Errors
    /// `Invalid` if a new value is one that no string can have.
    pub fn modernize(&mut self) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for block in self.heads(&[]) {
            if block != "common" && !block.starts_with("resource ") {
                continue;
            }
            for old in self.heads(&[&block, "syncer"]) {
                let (name, value) = old.split_once(' ').unwrap_or((&old, "yes"));
                let Some(now) = schema::find_syncer(name) else {
                    continue;
                };
                let section = now.spec.section.keyword();
                self.set(&[&block, section], now.spec.name, value)?;
                done.push(format!(
                    "{block}: syncer {{ {old}; }} is now {section} {{ {} {value}; }}",
                    now.spec.name
                ));
            }
            if self.remove(&[&block], "syncer")? {
                done.push(format!("{block}: the syncer section is gone"));
            }
            for section in [Section::Disk, Section::Net, Section::Handlers] {
                let place = [&block, section.keyword()];
                for old in self.heads(&place) {
                    let (name, value) = old.split_once(' ').unwrap_or((&old, "yes"));
                    let Some(now) = schema::find(section, name) else {
                        continue;
                    };
                    let ignored = matches!(now.spec.kind, schema::Kind::Ignored);
                    if !now.renamed && !ignored {
                        continue;
                    }
                    self.remove(&place, name)?;
                    if ignored {
                        done.push(format!("{block}: {name} is gone"));
                        continue;
                    }
                    let value = if now.negated { "no" } else { value };
                    self.set(&place, now.spec.name, value)?;
                    done.push(format!("{block}: {name} is now {} {value}", now.spec.name));
                }
            }
        }
        Ok(done)
    }

    /// Sets a statement of the form `KEYWORD VALUE;` in a block. Blocks that are not there are made.
    ///
    /// The value is put in quotes if it needs them.
    ///
    /// # Errors
    /// `Invalid` if the value or a name has a character that no string can have, or the outermost
    /// block is not there and is not one that can be made.
    pub fn set(&mut self, block: &[&str], keyword: &str, value: &str) -> Result<()> {
        if value.contains('\n') || value.contains('\0') || value.len() > 255 {
            let text = format!("{keyword}: a value of one line and at most 255 bytes is possible");
            return Err(Error::plain(ErrorKind::Invalid, "bad-value", text, None));
        }
        let statement = format!("{keyword} {};", quoted(value));
        let (text, before) = (self.text.clone(), self.text.clone());
        match find(&text, block, keyword)? {
            Found::Statement(from, to) => self.text.replace_range(from..to, &statement),
            Found::Block(open, close, last) => self.insert(open, close, last, &[], &statement),
            Found::Missing(depth, open, close, last) => {
                self.insert(open, close, last, &block[depth..], &statement);
            }
        }
        if let Err(e) = Document::parse(self.text.as_str(), &self.name) {
            self.text = before;
            return Err(e);
        }
        Ok(())
    }

    /// Removes a statement, or a block by the words in front of it. Tells whether it was there.
    ///
    /// # Errors
    /// None that a document which was parsed can have.
    pub fn remove(&mut self, block: &[&str], keyword: &str) -> Result<bool> {
        let Found::Statement(from, to) = find(&self.text, block, keyword)? else {
            return Ok(false);
        };
        // With the line, if nothing else is on it.
        let start = self.text[..from].rfind('\n').map_or(0, |i| i + 1);
        let end = self.text[to..]
            .find('\n')
            .map_or(self.text.len(), |i| to + i);
        let alone =
            self.text[start..from].trim().is_empty() && self.text[to..end].trim().is_empty();
        if alone {
            self.text
                .replace_range(start..(end + 1).min(self.text.len()), "");
        } else {
            self.text.replace_range(from..to, "");
        }
        Ok(true)
    }

    /// Puts a statement, in new blocks if need be, in front of a `}`.
    fn insert(
        &mut self,
        open: usize,
        close: usize,
        last: Option<usize>,
        blocks: &[&str],
        what: &str,
    ) {
        let indent_of = |at: usize| {
            let start = self.text[..at].rfind('\n').map_or(0, |i| i + 1);
            let line = &self.text[start..at];
            line[..line.len() - line.trim_start().len()].to_owned()
        };
        let outermost = open == usize::MAX;
        let in_one_line = !outermost && !self.text[open..close].contains('\n');
        if in_one_line && blocks.is_empty() {
            let gap = if self.text[..close].ends_with(' ') {
                ""
            } else {
                " "
            };
            self.text.insert_str(close, &format!("{gap}{what} "));
            return;
        }
        let indent = match last {
            _ if outermost => String::new(),
            Some(at) if !in_one_line => indent_of(at),
            _ => indent_of(open) + "  ",
        };
        let mut new = String::new();
        for (i, block) in blocks.iter().enumerate() {
            let _ = writeln!(new, "{indent}{}{block} {{", "  ".repeat(i));
        }
        let _ = writeln!(new, "{indent}{}{what}", "  ".repeat(blocks.len()));
        for i in (0..blocks.len()).rev() {
            let _ = writeln!(new, "{indent}{}}}", "  ".repeat(i));
        }
        if outermost {
            if !self.text.is_empty() && !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            self.text.push_str(&new);
            return;
        }
        let line = self.text[..close].rfind('\n').map_or(0, |i| i + 1);
        if self.text[line..close].trim().is_empty() && line > open {
            self.text.insert_str(line, &new);
        } else {
            let closing = indent_of(open);
            self.text.insert_str(close, &format!("\n{new}{closing}"));
        }
    }

    /// Writes the file: all of it or nothing, readable by its owner alone if it holds a secret.
    ///
    /// On return it is on stable storage.
    ///
    /// # Errors
    /// `Io`.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save(path.as_ref(), &self.text)
    }
}

/// Whether the words in front of a statement are these.
fn is(statement: &Statement<'_>, name: &str) -> bool {
    let words = statement.words.iter().map(|w| &*w.text);
    words.eq(name.split_whitespace())
}

fn find(text: &str, block: &[&str], keyword: &str) -> Result<Found> {
    let broken =
        |problem: Problem| Error::plain(ErrorKind::Syntax, "syntax", problem.message(), None);
    let tokens = syntax::tokens(text, 0).map_err(broken)?;
    let statements = syntax::statements(&tokens).map_err(broken)?;
    let (mut here, mut open, mut close) = (&statements[..], usize::MAX, text.len());
    for (depth, name) in block.iter().enumerate() {
        let inner = here.iter().find_map(|s| match &s.body {
            Body::Block(inner) if is(s, name) => Some((s, inner)),
            _ => None,
        });
        let Some((statement, inner)) = inner else {
            let last = here.last().map(|s| s.span().start as usize);
            return Ok(Found::Missing(depth, open, close, last));
        };
        open = statement.after.start as usize;
        close = statement.end as usize - 1;
        here = inner;
    }
    let wanted = |s: &&Statement<'_>| match &s.body {
        Body::None => s.keyword() == keyword,
        Body::Block(_) => is(s, keyword),
    };
    Ok(match here.iter().find(wanted) {
        Some(s) => Found::Statement(s.span().start as usize, s.end as usize),
        None => Found::Block(open, close, here.last().map(|s| s.span().start as usize)),
    })
}

fn unwritten(path: &Path, what: &str, e: io::Error) -> Error {
    let text = format!("{} cannot be {what}: {e}", path.display());
    Error::io(text, e)
}

/// Whether a shared secret is set anywhere. A text that does not parse may hold one.
fn holds_secret(text: &str) -> bool {
    let Ok(tokens) = syntax::tokens(text, 0) else {
        return true;
    };
    let statements = syntax::statements(&tokens).unwrap_or_default();
    let mut left: Vec<&Statement<'_>> = statements.iter().collect();
    while let Some(s) = left.pop() {
        if s.keyword() == "shared-secret" {
            return true;
        }
        if let Body::Block(inner) = &s.body {
            left.extend(inner);
        }
    }
    false
}

fn save(path: &Path, text: &str) -> Result<()> {
    let secret = holds_secret(text);
    let mode = match fs::metadata(path) {
        Ok(meta) => meta.permissions().mode() & 0o777,
        Err(_) => 0o644,
    };
    let mode = if secret { 0o600 } else { mode };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Not taken for a resource file by an include of "*.res".
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = (|| {
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let dir = path.parent().filter(|d| !d.as_os_str().is_empty());
        fs::File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&new);
        unwritten(path, "written", e)
    })
}

/// A new resource file.
///
/// ```
/// use drbd_conf::{MetaDisk, ResourceFile, Section};
///
/// let file = ResourceFile::new("r0")
///     .set(Section::Net, "protocol", "C")
///     .volume(0, 0, "/dev/sdb1", MetaDisk::Internal)
///     .host("node1", "10.0.254.1:7788", Some(0))
///     .host("node2", "10.0.254.2:7788", Some(1));
/// println!("{}", file.text()?);
/// # Ok::<(), drbd_conf::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ResourceFile {
    name: String,
    settings: Vec<(Section, String, Secretive)>,
    volumes: Vec<(u32, u32, PathBuf, MetaDisk)>,
    hosts: Vec<(String, String, Option<u32>)>,
}

/// A value that does not show itself.
#[derive(Clone)]
struct Secretive(String);

impl std::fmt::Debug for Secretive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

impl ResourceFile {
    /// A resource without anything.
    pub fn new(name: impl Into<String>) -> ResourceFile {
        ResourceFile {
            name: name.into(),
            settings: Vec::new(),
            volumes: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// Sets an option for the whole resource.
    pub fn set(mut self, section: Section, name: &str, value: impl Into<String>) -> ResourceFile {
        self.settings
            .push((section, name.to_owned(), Secretive(value.into())));
        self
    }

    /// Adds a volume that is the same on every host: number, minor, disk and metadata.
    pub fn volume(
        mut self,
        number: u32,
        minor: u32,
        disk: impl Into<PathBuf>,
        meta_disk: MetaDisk,
    ) -> ResourceFile {
        self.volumes.push((number, minor, disk.into(), meta_disk));
        self
    }

    /// Adds a host: its name as `uname -n` has it, `IPv4:PORT` or `[IPv6]:PORT`, and its node id for
    /// DRBD 9. Three or more are all connected to each other.
    pub fn host(
        mut self,
        name: impl Into<String>,
        address: impl Into<String>,
        node_id: Option<u32>,
    ) -> ResourceFile {
        self.hosts.push((name.into(), address.into(), node_id));
        self
    }

    /// Returns the text.
    ///
    /// # Errors
    /// What [`Config::parse`] finds wrong with it.
    pub fn text(&self) -> Result<String> {
        let mut t = format!("resource {} {{\n", quoted(&self.name));
        let sections = [
            Section::Options,
            Section::Net,
            Section::Disk,
            Section::Startup,
            Section::Handlers,
            Section::Proxy,
        ];
        // Writing to a String does not fail.
        for section in sections {
            let of = self.settings.iter().filter(|(s, _, _)| *s == section);
            let lines: Vec<String> = of
                .map(|(_, n, v)| format!("        {n} {};\n", quoted(&v.0)))
                .collect();
            if !lines.is_empty() {
                let _ = write!(
                    t,
                    "    {} {{\n{}    }}\n",
                    section.keyword(),
                    lines.concat()
                );
            }
        }
        for (number, minor, disk, meta) in &self.volumes {
            let disk = quoted(&disk.to_string_lossy());
            let meta = match meta {
                MetaDisk::Internal => "internal".to_owned(),
                MetaDisk::Flexible(path) => quoted(&path.to_string_lossy()),
                MetaDisk::Indexed(path, i) => format!("{} [{i}]", quoted(&path.to_string_lossy())),
            };
            let _ = write!(
                t,
                "    volume {number} {{\n        device /dev/drbd{minor};\n        disk {disk};\n        \
                 meta-disk {meta};\n    }}\n"
            );
        }
        for (name, address, id) in &self.hosts {
            let family = if address.starts_with('[') {
                "ipv6 "
            } else {
                ""
            };
            let id = id
                .map(|id| format!("        node-id {id};\n"))
                .unwrap_or_default();
            let name = quoted(name);
            let _ = write!(
                t,
                "    on {name} {{\n        address {family}{address};\n{id}    }}\n"
            );
        }
        if self.hosts.len() > 2 {
            let names: Vec<String> = self.hosts.iter().map(|(n, _, _)| quoted(n)).collect();
            let _ = write!(
                t,
                "    connection-mesh {{\n        hosts {};\n    }}\n",
                names.join(" ")
            );
        }
        t.push_str("}\n");
        Config::parse(&t, format!("{}.res", self.name))?;
        Ok(t)
    }

    /// Writes the file: all of it or nothing, readable by its owner alone if it holds a secret.
    ///
    /// # Errors
    /// As [`ResourceFile::text`], and `Io`.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save(path.as_ref(), &self.text()?)
    }
}
