//! Statements to the model: what each keyword takes, where it may stand, and what has to agree.

mod complete;
mod connection;
mod options;
mod resource;
mod words;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Problem, Result};
use crate::model::{Config, Global, Resource, Sections, Settings, Shared, Volumes};
use crate::name::Name;
use crate::source::{Sources, Span};
use crate::syntax::{Reader, Statement};
use words::{Checked, Seen, Words, bad_value, integer, integer32, unknown};

/// Includes nested more deeply than this are taken for a mistake.
const INCLUDE_DEPTH_MAX: usize = 32;

/// Stands where a problem has no place; never looked up.
const NOWHERE: Span = Span {
    file: 0,
    start: 0,
    end: 0,
};

/// What a resource does not keep after volumes and sections were handed down.
struct Draft {
    volumes: Volumes,
    meshes: Vec<Mesh>,
    /// What stands for `common`.
    template: Option<Arc<Sections>>,
    /// Nothing is wrong with any of its hosts so far.
    whole: bool,
}

/// Hosts that are all connected to each other.
struct Mesh {
    hosts: Vec<(String, Span)>,
    net: Settings,
}

/// Reads files and collects what they say, and everything that is wrong with it.
#[derive(Default)]
pub(crate) struct Builder {
    sources: Sources,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    global: Global,
    common: Sections,
    resources: Vec<Resource>,
    /// One for each resource.
    drafts: Vec<Draft>,
    /// Names of the resources, and where they are.
    names: HashMap<Name, Span>,
    /// Hosts with one name, by it: mostly they are a few, again and again.
    hosts: HashMap<Name, Arc<[Name]>>,
    /// Stands in every resource until all texts are there.
    shared: Arc<Shared>,
    /// Real paths of the files being read now, outermost first.
    open: Vec<PathBuf>,
    /// Real paths of all files read.
    read: HashSet<PathBuf>,
    common_at: Option<Span>,
    /// `template-file`s, by their real paths.
    templates: HashMap<PathBuf, Arc<Sections>>,
    /// Whether any resource refers to another one.
    refers: bool,
    /// What an unusual error is about; the first one of these kinds wins.
    kind: Option<ErrorKind>,
    io: Option<io::Error>,
}

impl Builder {
    pub(crate) fn load(path: &Path) -> Result<Config> {
        let mut b = Builder::default();
        match std::fs::read(path) {
            Ok(bytes) => {
                let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                b.file(path, real, bytes);
            }
            Err(e) => {
                let text = format!("{} cannot be read: {e}", path.display());
                let problem = Problem::error(NOWHERE, "io", text).nowhere();
                let diagnostics = vec![problem.locate(&b.sources)];
                return Err(Error::new(ErrorKind::Io, diagnostics, Some(e)));
            }
        }
        b.finish()
    }

    pub(crate) fn parse(text: &str, name: &Path) -> Result<Config> {
        let mut b = Builder::default();
        b.file(name, name.to_owned(), text.into());
        b.finish()
    }

    fn check<T>(&mut self, result: Checked<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problem) => {
                self.errors.push(problem);
                None
            }
        }
    }

    /// Reads the statements of one file.
    fn file(&mut self, name: &Path, real: PathBuf, bytes: Vec<u8>) {
        self.open.push(real.clone());
        self.read.insert(real);
        self.statements(name, bytes, Builder::top);
        self.open.pop();
    }

    /// Hands the outermost statements of a text to `each`, one at a time.
    fn statements(
        &mut self,
        name: &Path,
        bytes: Vec<u8>,
        mut each: impl FnMut(&mut Builder, &Statement<'_>) -> Checked<()>,
    ) {
        // Comments may be in any encoding; strings are checked by the lexer.
        let lossy = |e: FromUtf8Error| String::from_utf8_lossy(e.as_bytes()).into_owned();
        let text = Arc::new(String::from_utf8(bytes).unwrap_or_else(lossy));
        // The statements borrow from the text while errors are collected in `self`.
        if let Some(file) = self.sources.add(name, Arc::clone(&text)) {
            let mut reader = Reader::of(&text, file);
            loop {
                let result = match reader.next() {
                    Ok(None) => break,
                    Ok(Some(st)) => each(self, &st),
                    Err(problem) => {
                        self.kind.get_or_insert(ErrorKind::Syntax);
                        Err(problem)
                    }
                };
                self.check(result);
            }
        } else {
            self.kind.get_or_insert(ErrorKind::Io);
            let text = format!("{}: larger than 4 GiB", name.display());
            self.errors
                .push(Problem::error(NOWHERE, "io", text).nowhere());
        }
    }

    fn top(&mut self, st: &Statement<'_>) -> Checked<()> {
        match st.keyword() {
            "global" => self.global(st),
            "common" => self.common(st),
            "resource" => self.resource(st),
            "include" => self.include(st),
            "skip" => Ok(()),
            word if word.starts_with("require-drbd-module-version-") => {
                let mut w = Words::of(st);
                w.expect("a version").and_then(|_| w.end())
            }
            _ => Err(unknown(st, "global, common, resource, include or skip")),
        }
    }

    /// The directory that names in a file are relative to.
    fn directory(&self, file: u32) -> PathBuf {
        let name = self.sources.name(file);
        name.parent().unwrap_or(Path::new("")).to_owned()
    }

    fn include(&mut self, st: &Statement<'_>) -> Checked<()> {
        let mut w = Words::of(st);
        let pattern = w.expect("a file name")?;
        w.end()?;
        let span = pattern.span;
        let base = self.directory(span.file);
        let full = base.join(&*pattern.text);
        let Some(full_text) = full.to_str() else {
            return Err(Problem::error(
                span,
                "io",
                "the directory's name is not UTF-8",
            ));
        };
        let is_pattern = pattern.text.contains(['*', '?', '[']);
        let paths: Vec<PathBuf> = if is_pattern {
            let options = glob::MatchOptions {
                require_literal_separator: true,
                require_literal_leading_dot: true,
                ..Default::default()
            };
            // The directory of the including file is not part of the pattern.
            let prefix = glob::Pattern::escape(&base.to_string_lossy());
            let joined = if pattern.text.starts_with('/') || prefix.is_empty() {
                pattern.text.to_string()
            } else {
                format!("{}/{}", prefix.trim_end_matches('/'), pattern.text)
            };
            let found = glob::glob_with(&joined, options)
                .map_err(|e| Problem::error(span, "syntax", format!("bad pattern: {e}")))?;
            let mut paths: Vec<PathBuf> = found.filter_map(std::result::Result::ok).collect();
            paths.sort();
            paths
        } else {
            vec![PathBuf::from(full_text)]
        };
        for path in paths {
            self.include_file(&path, span)?;
        }
        Ok(())
    }

    fn include_file(&mut self, path: &Path, span: Span) -> Checked<()> {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.open.contains(&real) {
            self.kind.get_or_insert(ErrorKind::IncludeCycle);
            let chain: Vec<_> = self.open.iter().map(|p| p.display().to_string()).collect();
            let text = format!("{} includes itself", path.display());
            return Err(Problem::error(span, "include-cycle", text)
                .remedy(format!("included by: {}", chain.join(", then "))));
        }
        if self.read.contains(&real) {
            // drbdadm reads every file once, too.
            return Ok(());
        }
        if self.open.len() >= INCLUDE_DEPTH_MAX {
            let text = format!("more than {INCLUDE_DEPTH_MAX} files include each other");
            return Err(Problem::error(span, "include-depth", text));
        }
        let bytes = self.read_file(path, span)?;
        self.file(path, real, bytes);
        Ok(())
    }

    fn read_file(&mut self, path: &Path, span: Span) -> Checked<Vec<u8>> {
        // A pipe or device would not end.
        let read = match std::fs::metadata(path) {
            Ok(meta) if !meta.is_file() => Err(io::Error::other("not a regular file")),
            Ok(_) => std::fs::read(path),
            Err(e) => Err(e),
        };
        read.map_err(|e| {
            self.kind.get_or_insert(ErrorKind::Io);
            let text = format!("{} cannot be read: {e}", path.display());
            self.io.get_or_insert(e);
            Problem::error(span, "io", text)
        })
    }

    /// What a `template-file` has in its `common` section, which is all there may be in it.
    fn template(&mut self, path: &Path, span: Span) -> Checked<Arc<Sections>> {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(read) = self.templates.get(&real) {
            return Ok(Arc::clone(read));
        }
        let bytes = self.read_file(path, span)?;
        let mut found = None;
        self.statements(path, bytes, |b, st| {
            if st.keyword() != "common" || found.is_some() {
                return Err(unknown(st, "one common section and nothing else"));
            }
            found = Some(b.common_sections(Words::of(st).block()?));
            Ok(())
        });
        let sections = Arc::new(found.unwrap_or_default());
        self.templates.insert(real, Arc::clone(&sections));
        Ok(sections)
    }

    fn global(&mut self, st: &Statement<'_>) -> Checked<()> {
        for st in Words::of(st).block()? {
            let result = self.global_item(st);
            self.check(result);
        }
        Ok(())
    }

    fn global_item(&mut self, st: &Statement<'_>) -> Checked<()> {
        let mut w = Words::of(st);
        let timeout = |w: &mut Words<'_, '_>| integer32(w.expect("a number")?, "timeout", u32::MAX);
        match st.keyword() {
            "disable-ip-verification" => self.global.disable_ip_verification = true,
            "udev-always-use-vnr" => self.global.udev_always_use_vnr = true,
            "usage-count" => {
                let value = w.expect("\"yes\", \"no\" or \"ask\"")?;
                if !["yes", "no", "ask"].contains(&&*value.text) {
                    return Err(bad_value(value, "bad-value", "\"yes\", \"no\" or \"ask\""));
                }
                self.global.usage_count = Some(value.text.to_string());
            }
            "minor-count" => {
                self.global.minor_count = Some(integer(w.expect("a number")?, "minor-count", 255)?);
            }
            "dialog-refresh" => {
                let value = w.expect("a number")?;
                self.global.dialog_refresh = Some(integer(value, "dialog-refresh", 600)?);
            }
            "cmd-timeout-short" => self.global.cmd_timeouts[0] = Some(timeout(&mut w)?),
            "cmd-timeout-medium" => self.global.cmd_timeouts[1] = Some(timeout(&mut w)?),
            "cmd-timeout-long" => self.global.cmd_timeouts[2] = Some(timeout(&mut w)?),
            _ => {
                return Err(unknown(
                    st,
                    "usage-count, minor-count, dialog-refresh, disable-ip-verification or another \
                     setting of the tools",
                ));
            }
        }
        w.end()
    }

    fn common(&mut self, st: &Statement<'_>) -> Checked<()> {
        let block = Words::of(st).block()?;
        if self.common_at.replace(st.span()).is_some() {
            let text = "a second \"common\" section";
            return Err(Problem::error(st.span(), "duplicate-statement", text));
        }
        self.common = self.common_sections(block);
        Ok(())
    }

    fn common_sections(&mut self, block: &[Statement<'_>]) -> Sections {
        let mut sections = Sections::default();
        let mut seen = Seen::default();
        for st in block {
            let result = match self.section(st, &mut sections, &mut seen) {
                Some(result) => result,
                None if st.keyword() == "skip" => Ok(()),
                None => Err(unknown(st, "a section such as net, disk or handlers")
                    .remedy("hosts and volumes belong into a resource")),
            };
            self.check(result);
        }
        sections
    }

    /// Hands down what is inherited, checks what has to agree, and ends.
    fn finish(mut self) -> Result<Config> {
        let mut resources = std::mem::take(&mut self.resources);
        self.stacked(&mut resources);
        let drafts = std::mem::take(&mut self.drafts);
        for (resource, draft) in resources.iter_mut().zip(drafts) {
            self.complete(resource, draft);
        }
        self.check_across(&resources);
        if !self.errors.is_empty() {
            let syntax = self.errors.iter().any(|p| p.code() == "syntax");
            let other = if syntax {
                ErrorKind::Syntax
            } else {
                ErrorKind::Invalid
            };
            let kind = self.kind.unwrap_or(other);
            let sources = &self.sources;
            let diagnostics = self.errors.into_iter().map(|p| p.locate(sources)).collect();
            return Err(Error::new(kind, diagnostics, self.io));
        }
        let volumes = match self.refers {
            true => complete::volumes_on_hosts(&resources),
            false => HashMap::new(),
        };
        let shared = Arc::new(Shared {
            sources: self.sources,
            volumes,
        });
        for resource in &mut resources {
            resource.shared = Arc::clone(&shared);
        }
        Ok(Config {
            global: self.global,
            common: self.common,
            resources,
            shared,
            noticed: self.warnings,
            warnings: OnceLock::new(),
        })
    }
}
