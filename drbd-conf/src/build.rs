//! Statements to the model: what each keyword takes, where it may stand, and what has to agree.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Problem, Result};
use crate::lint;
use crate::model::{
    Address, After, Config, Connection, Family, Global, Host, HostName, MetaDisk, MinorOf, Minors,
    PathEnd, Resource, Sections, Setting, Settings, Value, Volume,
};
use crate::schema::{self, Kind as OptionKind, Section, Unit};
use crate::source::{Sources, Span};
use crate::syntax::{self, Body, Kind, Statement, Token, missing_semicolon};

/// Includes nested more deeply than this are taken for a mistake.
const INCLUDE_DEPTH_MAX: usize = 32;

type Checked<T> = std::result::Result<T, Problem>;

/// The words of one statement, read from left to right.
struct Words<'s, 'a> {
    statement: &'s Statement<'a>,
    at: usize,
}

impl<'s, 'a> Words<'s, 'a> {
    /// Starts after the keyword.
    fn of(statement: &'s Statement<'a>) -> Self {
        Words { statement, at: 1 }
    }

    fn peek(&self) -> Option<&'s Token<'a>> {
        self.statement.words.get(self.at)
    }

    fn next(&mut self) -> Option<&'s Token<'a>> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    /// The next word or string.
    fn expect(&mut self, what: &str) -> Checked<&'s Token<'a>> {
        match self.peek() {
            Some(token) if token.kind != Kind::Punctuation => {
                self.at += 1;
                Ok(token)
            }
            _ => Err(self.expected(what)),
        }
    }

    fn punctuation(&mut self, c: &str) -> Checked<()> {
        match self.peek() {
            Some(t) if t.kind == Kind::Punctuation && t.text == c => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.expected(&format!("\"{c}\""))),
        }
    }

    fn take(&mut self, keyword: &str) -> bool {
        let found = self
            .peek()
            .is_some_and(|t| t.kind == Kind::Word && t.text == keyword);
        self.at += usize::from(found);
        found
    }

    /// "expected …, found …" at the next word.
    fn expected(&self, what: &str) -> Problem {
        match self.peek() {
            Some(t) => Problem::error(
                t.span,
                "syntax",
                format!("expected {what}, found {}", t.shown()),
            ),
            None => {
                let found = match self.statement.body {
                    Body::None => "\";\"",
                    Body::Block(_) => "\"{\"",
                };
                let text = format!("expected {what}, found {found}");
                Problem::error(self.statement.after, "syntax", text)
            }
        }
    }

    /// There must be nothing more, and then `;`.
    fn end(&self) -> Checked<()> {
        let last = self.at - 1;
        match (self.peek(), &self.statement.body) {
            (None, Body::None) => Ok(()),
            (Some(t), _) => Err(missing_semicolon(&self.statement.words, last, &t.shown())),
            (None, Body::Block(_)) => Err(missing_semicolon(&self.statement.words, last, "\"{\"")),
        }
    }

    /// There must be nothing more, and then a block.
    fn block(&self) -> Checked<&'s [Statement<'a>]> {
        match (self.peek(), &self.statement.body) {
            (None, Body::Block(block)) => Ok(block),
            _ => Err(self.expected("\"{\"")),
        }
    }
}

/// A problem with a value: what was expected.
fn bad_value(token: &Token<'_>, code: &'static str, expected: &str) -> Problem {
    Problem::error(
        token.span,
        code,
        format!("expected {expected}, found {}", token.shown()),
    )
}

fn integer(token: &Token<'_>, what: &str, max: u64) -> Checked<u64> {
    let n = token
        .text
        .parse()
        .ok()
        .filter(|_| token.text.bytes().all(|b| b.is_ascii_digit()));
    match n {
        Some(n) if n <= max => Ok(n),
        Some(n) => {
            let text = format!("{what} {n} is out of range; at most {max}");
            Err(Problem::error(token.span, "out-of-range", text))
        }
        None => Err(bad_value(token, "syntax", &format!("{what} (a number)"))),
    }
}

fn integer32(token: &Token<'_>, what: &str, max: u32) -> Checked<u32> {
    Ok(integer(token, what, max.into())? as u32)
}

/// What may stand in an `on`, `floating` or `stacked-on-top-of` block so far.
#[derive(Default)]
struct Seen(HashMap<&'static str, Span>);

impl Seen {
    fn once(&mut self, what: &'static str, span: Span) -> Checked<()> {
        if self.0.insert(what, span).is_some() {
            let what = what.trim_end_matches(" {}");
            let text = format!("a second \"{what}\" in the same place");
            return Err(Problem::error(span, "duplicate-statement", text));
        }
        Ok(())
    }
}

/// A resource with what it does not keep after volumes and sections were handed down.
struct Draft {
    resource: Resource,
    volumes: Vec<Volume>,
    meshes: Vec<Mesh>,
    template: Option<(String, Span)>,
}

/// Hosts that are all connected to each other.
struct Mesh {
    hosts: Vec<(String, Span)>,
    net: Settings,
}

#[derive(Default)]
pub(crate) struct Builder {
    sources: Sources,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    global: Global,
    common: Sections,
    drafts: Vec<Draft>,
    /// Names of the resources, and where they are.
    names: HashMap<String, Span>,
    /// Real paths of the files being read now, outermost first.
    open: Vec<PathBuf>,
    /// Real paths of all files read.
    read: Vec<PathBuf>,
    common_at: Option<Span>,
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
                b.file(path, real, &bytes);
            }
            Err(e) => {
                let text = format!("{}: cannot be read", path.display());
                let problem = Problem {
                    span: None,
                    ..Problem::error(NOWHERE, "io", text)
                };
                let diagnostics = vec![problem.locate(&b.sources)];
                return Err(Error::new(ErrorKind::Io, diagnostics, Some(e)));
            }
        }
        b.finish()
    }

    pub(crate) fn parse(text: &str, name: &Path) -> Result<Config> {
        let mut b = Builder::default();
        b.file(name, name.to_owned(), text.as_bytes());
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
    fn file(&mut self, name: &Path, real: PathBuf, bytes: &[u8]) {
        self.open.push(real.clone());
        self.read.push(real);
        // Comments may be in any encoding; strings are checked by the lexer.
        let text = String::from_utf8_lossy(bytes).into_owned();
        // The statements borrow from the text while errors are collected in `self`.
        let shared: Arc<str> = text.as_str().into();
        if let Some(file) = self.sources.add(name, text) {
            match syntax::statements(&shared, file) {
                Ok(statements) => self.top(&statements),
                Err(problem) => {
                    self.kind.get_or_insert(ErrorKind::Syntax);
                    self.errors.push(problem);
                }
            }
        } else {
            self.kind.get_or_insert(ErrorKind::Io);
            let text = format!("{}: larger than 4 GiB", name.display());
            self.errors.push(Problem {
                span: None,
                ..Problem::error(NOWHERE, "io", text)
            });
        }
        self.open.pop();
    }

    fn top(&mut self, statements: &[Statement<'_>]) {
        for st in statements {
            let result = match st.keyword() {
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
            };
            self.check(result);
        }
    }

    fn include(&mut self, st: &Statement<'_>) -> Checked<()> {
        let mut w = Words::of(st);
        let pattern = w.expect("a file name")?;
        w.end()?;
        let span = pattern.span;
        let base = self
            .sources
            .name(span.file)
            .parent()
            .unwrap_or(Path::new(""))
            .to_owned();
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
        match std::fs::read(path) {
            Ok(bytes) => {
                self.file(path, real, &bytes);
                Ok(())
            }
            Err(e) => {
                self.kind.get_or_insert(ErrorKind::Io);
                let text = format!("{} cannot be read: {e}", path.display());
                self.io.get_or_insert(e);
                Err(Problem::error(span, "io", text))
            }
        }
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
            "cmd-timeout-short" | "cmd-timeout-medium" | "cmd-timeout-long" => {
                integer(w.expect("a number")?, "timeout", u32::MAX.into())?;
            }
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
        self.common = sections;
        Ok(())
    }

    /// Handles a section that a resource and `common` both have; `None` if it is something else.
    fn section(
        &mut self,
        st: &Statement<'_>,
        sections: &mut Sections,
        seen: &mut Seen,
    ) -> Option<Checked<()>> {
        let section = match st.keyword() {
            "options" => Section::Options,
            "disk" if st.words.len() == 1 => Section::Disk,
            "net" => Section::Net,
            "startup" => Section::Startup,
            "handlers" => Section::Handlers,
            "proxy" => Section::Proxy,
            "syncer" => return Some(self.syncer(st, sections, seen)),
            "protocol" => return Some(self.protocol(st, sections, seen)),
            _ => return None,
        };
        Some((|| {
            let block = Words::of(st).block()?;
            let what = if section == Section::Disk {
                "disk {}"
            } else {
                section.keyword()
            };
            seen.once(what, st.span())?;
            self.settings(section, block, sections);
            Ok(())
        })())
    }

    /// `protocol C;` in front of 8.4 stood in the resource itself.
    fn protocol(
        &mut self,
        st: &Statement<'_>,
        sections: &mut Sections,
        seen: &mut Seen,
    ) -> Checked<()> {
        seen.once("protocol", st.span())?;
        let setting = self.setting(Section::Net, st)?;
        sections.net.0.extend(setting);
        Ok(())
    }

    fn syncer(
        &mut self,
        st: &Statement<'_>,
        sections: &mut Sections,
        seen: &mut Seen,
    ) -> Checked<()> {
        let block = Words::of(st).block()?;
        seen.once("syncer", st.span())?;
        let mut now = Vec::new();
        for st in block {
            let resolved = schema::find_syncer(st.keyword())
                .ok_or_else(|| unknown(st, "an option of the old syncer section"));
            let Some(resolved) = self.check(resolved) else {
                continue;
            };
            let result = self.value(resolved, st);
            let Some(setting) = self.check(result) else {
                continue;
            };
            let section = setting.section;
            now.push(format!(
                "{} {{ {} {}; }}",
                section.keyword(),
                setting.name,
                setting.raw
            ));
            sections.get_mut(section).0.push(setting);
        }
        let text = "\"syncer\" is a section of DRBD before 8.4; the tools of DRBD 9 refuse it";
        let problem = Problem::warning(st.span(), "syncer", text);
        self.warnings.push(if now.is_empty() {
            problem.remedy("remove the section")
        } else {
            problem.remedy(format!("write {} instead", now.join(" ")))
        });
        Ok(())
    }

    /// Reads a section into `sections`, going on after an error.
    fn settings(&mut self, section: Section, block: &[Statement<'_>], sections: &mut Sections) {
        for st in block {
            let result = match (section, st.keyword()) {
                (Section::Startup, "become-primary-on") => {
                    sections.become_primary_on = Vec::new();
                    let mut w = Words::of(st);
                    loop {
                        match w.expect("a host name") {
                            Ok(name) => sections.become_primary_on.push(name.text.to_string()),
                            Err(problem) => break Err(problem),
                        }
                        if w.peek().is_none() {
                            break w.end();
                        }
                    }
                    .inspect(|()| self.warnings.push(lint::become_primary_on(st.span())))
                }
                (Section::Startup, "stacked-timeouts") => {
                    sections.stacked_timeouts = true;
                    Words::of(st).end()
                }
                // Lines of a plugin are not for us.
                (Section::Proxy, "plugin") => Words::of(st).block().map(|_| ()),
                (Section::Net, "discard-my-data" | "tentative") => {
                    let text = format!(
                        "\"{}\" is not a setting but a wish at connect",
                        st.keyword()
                    );
                    Err(Problem::error(st.span(), "not-a-setting", text))
                }
                _ => self
                    .setting(section, st)
                    .map(|s| sections.get_mut(section).0.extend(s)),
            };
            self.check(result);
        }
        let settings = sections.get_mut(section);
        for (i, s) in settings.0.iter().enumerate() {
            if settings.0[..i]
                .iter()
                .any(|t| t.name == s.name && t.span.file == s.span.file)
                && s.name != "protocol"
            {
                let text = format!("\"{}\" is set more than once; the last one counts", s.name);
                self.warnings
                    .push(Problem::warning(s.span, "duplicate-option", text));
            }
        }
    }

    /// One option. `None` if it is accepted and means nothing any more.
    fn setting(&mut self, section: Section, st: &Statement<'_>) -> Checked<Option<Setting>> {
        let name = st.keyword();
        let Some(resolved) = schema::find(section, name) else {
            let text = format!("unknown option \"{name}\" in {}", section.keyword());
            let problem = Problem::error(st.span(), "unknown-option", text);
            return Err(match schema::similar(section, name) {
                Some(like) => problem.remedy(format!("\"{like}\" is similar")),
                None => problem,
            });
        };
        if matches!(resolved.spec.kind, OptionKind::Ignored) {
            let text = format!("\"{name}\" has no meaning any more and is ignored");
            self.warnings
                .push(Problem::warning(st.span(), "deprecated-option", text).remedy("remove it"));
            return Ok(None);
        }
        if resolved.renamed {
            let new = resolved.spec.name;
            let now = if resolved.negated {
                format!("{new} no")
            } else {
                new.to_owned()
            };
            let text = format!("\"{name}\" is an old name");
            self.warnings.push(
                Problem::warning(st.span(), "deprecated-option", text)
                    .remedy(format!("write \"{now}\" instead")),
            );
        }
        self.value(resolved, st).map(Some)
    }

    /// Reads and checks the value of an option.
    fn value(&mut self, resolved: schema::Resolved, st: &Statement<'_>) -> Checked<Setting> {
        let spec = resolved.spec;
        let mut w = Words::of(st);
        let done = |value: Value, raw: String| Setting {
            section: spec.section,
            name: spec.name,
            value,
            raw,
            span: st.span(),
        };
        if resolved.negated {
            w.end()?;
            return Ok(done(Value::Flag(false), "no".into()));
        }
        if matches!(spec.kind, OptionKind::Flag) && w.peek().is_none() {
            w.end()?;
            return Ok(done(Value::Flag(true), "yes".into()));
        }
        let token = match spec.kind {
            OptionKind::Flag => w.expect("\"yes\", \"no\" or \";\"")?,
            _ => w.expect(&format!("a value for {}", spec.name))?,
        };
        let mut raw = token.text.to_string();
        let value = match spec.kind {
            OptionKind::Flag | OptionKind::Ignored => match &*token.text {
                "yes" => Value::Flag(true),
                "no" => Value::Flag(false),
                _ => return Err(bad_value(token, "bad-value", "\"yes\", \"no\" or \";\"")),
            },
            OptionKind::Number { min, max, unit } => {
                let Some(value) = schema::parse_number(&token.text, unit) else {
                    let what = format!("a number for {}", spec.name);
                    return Err(bad_value(token, "bad-value", &what));
                };
                if !(min..=max).contains(&value) {
                    let unit = match unit {
                        Unit::Sectors => " sectors",
                        Unit::Kib => " KiB",
                        _ => "",
                    };
                    let text = format!(
                        "{} {raw} is out of range; {min} to {max}{unit} are possible",
                        spec.name
                    );
                    return Err(Problem::error(token.span, "out-of-range", text));
                }
                Value::Number { value, unit }
            }
            OptionKind::Words(words) => {
                if spec.name == "protocol" {
                    raw.make_ascii_uppercase();
                }
                if !words.contains(&raw.as_str()) {
                    let what = format!("one of {}", words.join(", "));
                    return Err(bad_value(token, "bad-value", &what));
                }
                Value::Word(raw.clone())
            }
            OptionKind::NumberOrWord(words) => match schema::parse_number(&token.text, Unit::One) {
                Some(value @ 1..=32) => Value::Number {
                    value,
                    unit: Unit::One,
                },
                None if words.contains(&raw.as_str()) => Value::Word(raw.clone()),
                _ => {
                    let what = format!("a number from 1 to 32 or one of {}", words.join(", "));
                    return Err(bad_value(token, "bad-value", &what));
                }
            },
            OptionKind::Text(max) => {
                if raw.len() > max {
                    let text = format!("{} has {} bytes; {max} are possible", spec.name, raw.len());
                    return Err(Problem::error(token.span, "out-of-range", text));
                }
                Value::Text(raw.clone())
            }
            OptionKind::Device => Value::After(after(token)?),
        };
        w.end()?;
        Ok(done(value, raw))
    }

    fn resource(&mut self, st: &Statement<'_>) -> Checked<()> {
        let mut w = Words::of(st);
        let name = w.expect("the name of the resource")?;
        let block = w.block()?;
        check_resource_name(name)?;
        let span = st.span().to(name.span);
        if let Some(first) = self.names.insert(name.text.to_string(), span) {
            let at = self.sources.location(first);
            let text = format!("resource \"{}\" is defined twice", name.text);
            return Err(Problem::error(name.span, "duplicate-resource", text)
                .remedy(format!("the first one is at {at}")));
        }
        let mut draft = Draft {
            resource: Resource {
                name: name.text.to_string(),
                sections: Sections::default(),
                hosts: Vec::new(),
                connections: Vec::new(),
                location: self.sources.location(span),
                span,
                minors: Arc::default(),
            },
            volumes: Vec::new(),
            meshes: Vec::new(),
            template: None,
        };
        let mut seen = Seen::default();
        for st in block {
            let mut sections = std::mem::take(&mut draft.resource.sections);
            let handled = self.section(st, &mut sections, &mut seen);
            draft.resource.sections = sections;
            let result = match handled {
                Some(result) => result,
                None => self.resource_item(st, &mut draft, &mut seen),
            };
            self.check(result);
        }
        self.drafts.push(draft);
        Ok(())
    }

    fn resource_item(
        &mut self,
        st: &Statement<'_>,
        draft: &mut Draft,
        seen: &mut Seen,
    ) -> Checked<()> {
        match st.keyword() {
            "skip" => Ok(()),
            "on" | "floating" | "stacked-on-top-of" => self.host(st, draft),
            "volume" => {
                let volume = self.volume(st)?;
                add_volume(&mut draft.volumes, volume)
            }
            "device" | "disk" | "meta-disk" | "flexible-meta-disk" => {
                let what = if st.keyword() == "flexible-meta-disk" {
                    "meta-disk"
                } else {
                    keyword_of_volume(st.keyword())
                };
                seen.once(what, st.span())?;
                let volume = implicit_volume(&mut draft.volumes, st.span())?;
                self.volume_item(st, volume)
            }
            "connection" => {
                let connection = self.connection(st)?;
                draft.resource.connections.push(connection);
                Ok(())
            }
            "connection-mesh" => {
                let mesh = self.mesh(st)?;
                draft.meshes.push(mesh);
                Ok(())
            }
            "template-file" => {
                let mut w = Words::of(st);
                let name = w.expect("a file name")?;
                w.end()?;
                draft.template = Some((name.text.to_string(), name.span));
                Ok(())
            }
            "ignore-on" => {
                let mut w = Words::of(st);
                w.expect("a host name")?;
                w.end()?;
                let text = "\"ignore-on\" has no meaning any more";
                self.warnings.push(
                    Problem::warning(st.span(), "deprecated-option", text).remedy("remove it"),
                );
                Ok(())
            }
            _ => Err(unknown(
                st,
                "protocol, on, disk, net, startup, handlers, options, volume or connection",
            )),
        }
    }

    fn host(&mut self, st: &Statement<'_>, draft: &mut Draft) -> Checked<()> {
        let mut w = Words::of(st);
        let mut host = Host {
            name: HostName::Floating,
            address: None,
            node_id: None,
            volumes: Vec::new(),
            options: Settings::default(),
            proxy: false,
            span: st.span(),
        };
        let block = match st.keyword() {
            "floating" => {
                host.address = Some(address(&mut w)?);
                if w.peek().is_none() && matches!(st.body, Body::None) {
                    &[][..]
                } else {
                    w.block()?
                }
            }
            "stacked-on-top-of" => {
                host.name = HostName::StackedOnTopOf(w.expect("a resource")?.text.to_string());
                w.block()?
            }
            _ => {
                let mut names = vec![w.expect("a host name")?.text.to_string()];
                while w.peek().is_some_and(|t| t.kind != Kind::Punctuation) {
                    names.push(w.expect("a host name")?.text.to_string());
                }
                host.name = HostName::On(names);
                w.block()?
            }
        };
        for name in host.names() {
            if draft
                .resource
                .hosts
                .iter()
                .any(|h| h.names().contains(&name))
            {
                let text = format!("a second section for host \"{name}\"");
                return Err(Problem::error(st.span(), "duplicate-host", text));
            }
        }
        let before = self.errors.len();
        let mut seen = Seen::default();
        for st in block {
            let result = self.host_item(st, &mut host, &mut seen);
            self.check(result);
        }
        // What is missing is only said if nothing else is wrong with the section.
        if self.errors.len() == before
            && host.address.is_none()
            && draft.resource.connections.is_empty()
        {
            let text = format!("expected an \"address\" for {}", host.shown());
            self.errors.push(
                Problem::error(st.span(), "missing-statement", text)
                    .remedy("address 10.0.0.1:7788;"),
            );
        }
        draft.resource.hosts.push(host);
        Ok(())
    }

    fn host_item(&mut self, st: &Statement<'_>, host: &mut Host, seen: &mut Seen) -> Checked<()> {
        let mut w = Words::of(st);
        match st.keyword() {
            "skip" => Ok(()),
            "address" => {
                seen.once("address", st.span())?;
                if host.name == HostName::Floating {
                    let text = "a floating host has its address in front of the block";
                    return Err(Problem::error(st.span(), "syntax", text));
                }
                host.address = Some(address(&mut w)?);
                w.end()
            }
            "alternate-link-address" => {
                address(&mut w)?;
                w.end()
            }
            "node-id" => {
                seen.once("node-id", st.span())?;
                host.node_id = Some(integer32(w.expect("a node id")?, "node-id", 31)?);
                w.end()
            }
            "proxy" => {
                host.proxy = true;
                self.proxy(st)
            }
            "options" => {
                let mut sections = Sections::default();
                self.settings(Section::Options, w.block()?, &mut sections);
                host.options = sections.options;
                Ok(())
            }
            "volume" => {
                let volume = self.volume(st)?;
                add_volume(&mut host.volumes, volume)
            }
            "device" | "disk" | "meta-disk" | "flexible-meta-disk" => {
                let what = match st.body {
                    Body::Block(_) => "disk {}",
                    Body::None => keyword_of_volume(st.keyword()),
                };
                seen.once(what, st.span())?;
                let volume = implicit_volume(&mut host.volumes, st.span())?;
                self.volume_item(st, volume)
            }
            _ => Err(unknown(
                st,
                "device, disk, meta-disk, address, volume, node-id or options",
            )),
        }
    }

    /// `proxy on HOST { inside …; outside …; options { … } }`
    fn proxy(&mut self, st: &Statement<'_>) -> Checked<()> {
        let mut w = Words::of(st);
        if !w.take("on") {
            return Err(w.expected("\"on\""));
        }
        self.proxy_block(w)
    }

    fn proxy_block(&mut self, mut w: Words<'_, '_>) -> Checked<()> {
        w.expect("a host name")?;
        while w.peek().is_some_and(|t| t.kind != Kind::Punctuation) {
            w.expect("a host name")?;
        }
        for st in w.block()? {
            let mut w = Words::of(st);
            let result = match st.keyword() {
                "inside" | "outside" => address(&mut w).and_then(|_| w.end()),
                "options" => w.block().map(|block| {
                    self.settings(Section::Proxy, block, &mut Sections::default());
                }),
                _ => Err(unknown(st, "inside, outside or options")),
            };
            self.check(result);
        }
        Ok(())
    }

    fn volume(&mut self, st: &Statement<'_>) -> Checked<Volume> {
        let mut w = Words::of(st);
        let number = integer32(w.expect("a volume number")?, "volume", 65535)?;
        let block = w.block()?;
        let mut volume = empty_volume(number, false, st.span());
        let mut seen = Seen::default();
        for st in block {
            let result = match st.keyword() {
                "skip" => Ok(()),
                "device" | "disk" | "meta-disk" | "flexible-meta-disk" => {
                    let what = match st.body {
                        Body::Block(_) => "disk {}",
                        Body::None => keyword_of_volume(st.keyword()),
                    };
                    seen.once(what, st.span())
                        .and_then(|()| self.volume_item(st, &mut volume))
                }
                "tiebreaker" => {
                    let mut w = Words::of(st);
                    w.expect("\"yes\" or \"no\"").and_then(|_| w.end())
                }
                _ => Err(unknown(st, "device, disk or meta-disk")),
            };
            self.check(result);
        }
        Ok(volume)
    }

    /// `device`, `disk` or `meta-disk` of a volume.
    fn volume_item(&mut self, st: &Statement<'_>, volume: &mut Volume) -> Checked<()> {
        let mut w = Words::of(st);
        match (st.keyword(), &st.body) {
            ("disk", Body::Block(block)) if st.words.len() == 1 => {
                let mut sections = Sections::default();
                self.settings(Section::Disk, block, &mut sections);
                volume.options.0.extend(sections.disk.0);
                Ok(())
            }
            ("disk", _) => {
                let disk = w.expect("a device or \"{\"")?;
                w.end()?;
                volume.diskless = disk.text == "none";
                volume.disk = (!volume.diskless).then(|| PathBuf::from(&*disk.text));
                Ok(())
            }
            ("device", _) => device(w, volume),
            (keyword, _) => {
                let disk = w.expect("\"internal\" or a device")?;
                let path = PathBuf::from(&*disk.text);
                volume.meta_disk = Some(if disk.text == "internal" {
                    MetaDisk::Internal
                } else if keyword == "meta-disk" && w.peek().is_some() {
                    w.punctuation("[")?;
                    let index = integer32(w.expect("an index")?, "index", 255)?;
                    w.punctuation("]")?;
                    MetaDisk::Indexed(path, index)
                } else {
                    MetaDisk::Flexible(path)
                });
                w.end()
            }
        }
    }

    fn connection(&mut self, st: &Statement<'_>) -> Checked<Connection> {
        let mut w = Words::of(st);
        if let Some(name) = w.peek().filter(|t| t.kind != Kind::Punctuation) {
            let text = "connections have no names any more; this one is ignored";
            self.warnings
                .push(Problem::warning(name.span, "deprecated-option", text));
            w.next();
        }
        let block = w.block()?;
        let mut connection = Connection {
            paths: Vec::new(),
            net: Settings::default(),
            disk: Settings::default(),
            volumes: Vec::new(),
        };
        let mut ends = Vec::new();
        let mut seen = Seen::default();
        for st in block {
            let mut w = Words::of(st);
            let result = match st.keyword() {
                "skip" => Ok(()),
                "host" | "address" => self.path_end(st).map(|end| ends.push(end)),
                "path" => self.path(st).map(|path| connection.paths.push(path)),
                "net" => w.block().and_then(|block| {
                    seen.once("net", st.span())?;
                    let mut sections = Sections::default();
                    self.settings(Section::Net, block, &mut sections);
                    connection.net = sections.net;
                    Ok(())
                }),
                "disk" => w.block().map(|block| {
                    let mut sections = Sections::default();
                    self.settings(Section::Disk, block, &mut sections);
                    connection.disk = sections.disk;
                }),
                "volume" => (|| {
                    let number = integer32(w.expect("a volume number")?, "volume", 65535)?;
                    let mut sections = Sections::default();
                    for st in w.block()? {
                        if st.keyword() != "disk" {
                            return Err(unknown(st, "disk"));
                        }
                        self.settings(Section::Disk, Words::of(st).block()?, &mut sections);
                    }
                    connection.volumes.push((number, sections.disk));
                    Ok(())
                })(),
                _ => Err(unknown(st, "host, path, net, disk or volume")),
            };
            self.check(result);
        }
        if !ends.is_empty() {
            connection.paths.insert(0, two(ends, st.span())?);
        }
        if connection.paths.is_empty() {
            let text = "expected two \"host\" statements or a \"path\" in this connection";
            return Err(Problem::error(st.span(), "missing-statement", text));
        }
        Ok(connection)
    }

    fn path(&mut self, st: &Statement<'_>) -> Checked<[PathEnd; 2]> {
        let mut ends = Vec::new();
        for st in Words::of(st).block()? {
            match st.keyword() {
                "host" | "address" => ends.push(self.path_end(st)?),
                "skip" => {}
                _ => return Err(unknown(st, "host")),
            }
        }
        two(ends, st.span())
    }

    /// `host NAME [address A | port P] [via proxy on …]`
    fn path_end(&mut self, st: &Statement<'_>) -> Checked<PathEnd> {
        let mut w = Words::of(st);
        let mut end = PathEnd {
            host: String::new(),
            address: None,
            port: None,
            proxy: false,
            span: st.span(),
        };
        if st.keyword() == "address" {
            end.address = Some(address(&mut w)?);
        } else {
            end.host = w.expect("a host name")?.text.to_string();
            if w.take("address") {
                end.address = Some(address(&mut w)?);
            } else if w.take("port") {
                end.port = Some(port(w.expect("a port")?)?);
            }
        }
        if w.take("via") {
            if w.take("outside-address") {
                address(&mut w)?;
            } else if w.take("proxy") {
                end.proxy = true;
                if !w.take("on") {
                    return Err(w.expected("\"on\""));
                }
                self.proxy_block(w)?;
                return Ok(end);
            } else {
                return Err(w.expected("\"proxy\" or \"outside-address\""));
            }
        }
        w.end()?;
        Ok(end)
    }

    fn mesh(&mut self, st: &Statement<'_>) -> Checked<Mesh> {
        let mut hosts = Vec::new();
        let mut net = Settings::default();
        for st in Words::of(st).block()? {
            let mut w = Words::of(st);
            match st.keyword() {
                "hosts" => {
                    while w.peek().is_some() {
                        let host = w.expect("a host name")?;
                        hosts.push((host.text.to_string(), host.span));
                    }
                    w.end()?;
                }
                "net" => {
                    let mut sections = Sections::default();
                    self.settings(Section::Net, w.block()?, &mut sections);
                    net = sections.net;
                }
                "disk" => {
                    w.block()?;
                }
                "skip" => {}
                _ => return Err(unknown(st, "hosts or net")),
            }
        }
        if hosts.len() < 2 {
            let text = "expected at least two \"hosts\" in this mesh";
            return Err(Problem::error(st.span(), "missing-statement", text));
        }
        Ok(Mesh { hosts, net })
    }

    /// Hands down what is inherited, checks what has to agree, and ends.
    fn finish(mut self) -> Result<Config> {
        let mut drafts = std::mem::take(&mut self.drafts);
        for draft in &mut drafts {
            self.complete(draft);
        }
        let minors = self.check_across(&drafts);
        let minors = Arc::new(minors);
        let mut resources = Vec::with_capacity(drafts.len());
        for mut draft in drafts {
            draft.resource.minors = Arc::clone(&minors);
            resources.push(draft.resource);
        }
        if !self.errors.is_empty() {
            let syntax = self.errors.iter().any(|p| p.code == "syntax");
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
        self.warnings.extend(lint::resources(&resources));
        let sources = &self.sources;
        let warnings = self
            .warnings
            .into_iter()
            .map(|p| p.locate(sources))
            .collect();
        Ok(Config {
            global: self.global,
            common: self.common,
            resources,
            sources: self.sources,
            warnings,
        })
    }

    fn complete(&mut self, draft: &mut Draft) {
        let Draft {
            resource,
            volumes,
            meshes,
            template,
        } = draft;
        if let Some((name, span)) = template {
            let text = format!("template-file {name} is not read by this version");
            self.warnings
                .push(Problem::warning(*span, "template-file", text));
        }
        for Mesh { hosts, net } in meshes.drain(..) {
            for (i, (a, at)) in hosts.iter().enumerate() {
                for (b, bt) in &hosts[i + 1..] {
                    let end = |host: &String, span: &Span| PathEnd {
                        host: host.clone(),
                        address: None,
                        port: None,
                        proxy: false,
                        span: *span,
                    };
                    resource.connections.push(Connection {
                        paths: vec![[end(a, at), end(b, bt)]],
                        net: net.clone(),
                        disk: Settings::default(),
                        volumes: Vec::new(),
                    });
                }
            }
        }
        // common → resource
        let common = &self.common;
        let sections = &mut resource.sections;
        sections.options.inherit(&common.options);
        sections.disk.inherit(&common.disk);
        sections.net.inherit(&common.net);
        sections.startup.inherit(&common.startup);
        sections.handlers.inherit(&common.handlers);
        sections.proxy.inherit(&common.proxy);
        if sections.become_primary_on.is_empty() {
            sections
                .become_primary_on
                .clone_from(&common.become_primary_on);
        }
        sections.stacked_timeouts |= common.stacked_timeouts;

        let numbers = |h: &Host| h.volumes.iter().map(|v| v.number).collect::<Vec<_>>();
        for host in &mut resource.hosts {
            self.errors.extend(inherit_volumes(volumes, host));
            // resource → host's volume; then the volume of the resource, as drbdadm does it.
            for volume in &mut host.volumes {
                volume.options.inherit(&resource.sections.disk);
                if let Some(from) = volumes.iter().find(|v| v.number == volume.number) {
                    self.warnings
                        .extend(lint::ambiguous(&volume.options, &from.options));
                    volume.options.inherit(&from.options);
                }
            }
            self.errors.extend(incomplete(host));
        }
        if let Some((first, others)) = resource.hosts.split_first() {
            for host in others {
                if numbers(first) != numbers(host) {
                    let list = |h: &Host| {
                        let n: Vec<_> = numbers(h).iter().map(u32::to_string).collect();
                        if n.is_empty() {
                            "none".into()
                        } else {
                            n.join(", ")
                        }
                    };
                    let text = format!(
                        "volumes of {} ({}) are not those of {} ({})",
                        host.shown(),
                        list(host),
                        first.shown(),
                        list(first)
                    );
                    self.errors
                        .push(Problem::error(host.span, "volumes-differ", text));
                }
            }
        }
        for connection in &resource.connections {
            for end in connection.paths.iter().flatten() {
                let known = end.host.is_empty()
                    || resource.hosts.iter().any(|h| h.names().contains(&end.host));
                if !known {
                    let names: Vec<_> = resource.hosts.iter().map(Host::shown).collect();
                    let text = format!(
                        "no host \"{}\" in resource {}; it has: {}",
                        end.host,
                        resource.name,
                        names.join(", ")
                    );
                    self.errors
                        .push(Problem::error(end.span, "unknown-host", text));
                }
            }
        }
    }

    /// Minors and addresses have to be unique on each host.
    fn check_across(&mut self, drafts: &[Draft]) -> Minors {
        let mut minors: HashMap<(String, u32), String> = HashMap::new();
        let mut addresses: HashMap<(String, SocketAddr), String> = HashMap::new();
        let mut all = Minors::default();
        let by_name: HashMap<&str, &Resource> = drafts
            .iter()
            .map(|d| (d.resource.name.as_str(), &d.resource))
            .collect();
        for draft in drafts {
            let r = &draft.resource;
            for host in &r.hosts {
                // What is stacked is on the hosts of the lower resource.
                let names = match &host.name {
                    HostName::StackedOnTopOf(lower) => {
                        let Some(lower) = by_name.get(lower.as_str()) else {
                            let text = format!("no resource \"{lower}\" to be stacked on");
                            self.errors
                                .push(Problem::error(host.span, "unknown-resource", text));
                            continue;
                        };
                        lower.hosts.iter().flat_map(Host::names).collect()
                    }
                    _ => host.names(),
                };
                if let Some(address) = &host.address {
                    let scopes = if address.is_local() {
                        names.clone()
                    } else {
                        vec![String::new()]
                    };
                    for scope in scopes {
                        let user = addresses.insert((scope, address.socket), r.name.clone());
                        if let Some(other) = user {
                            let text = format!(
                                "{address} is used by resource {other} already, and by {}",
                                r.name
                            );
                            self.errors.push(
                                Problem::error(host.span, "address-used-twice", text)
                                    .remedy("give each resource a port of its own"),
                            );
                            break;
                        }
                    }
                }
                for volume in &host.volumes {
                    let Some(minor) = volume.minor else { continue };
                    for name in &names {
                        let user = format!("{}/{}", r.name, volume.number);
                        all.0.push(MinorOf {
                            host: name.clone(),
                            resource: r.name.clone(),
                            volume: volume.number,
                            minor,
                        });
                        if let Some(other) = minors.insert((name.clone(), minor), user.clone()) {
                            let text = format!(
                                "minor {minor} is used on {name} by {other} already, and by {user}"
                            );
                            self.errors
                                .push(Problem::error(volume.span, "minor-used-twice", text));
                            break;
                        }
                    }
                }
            }
        }
        all
    }
}

/// Stands where a problem has no place; never looked up.
const NOWHERE: Span = Span {
    file: 0,
    start: 0,
    end: 0,
};

fn unknown(st: &Statement<'_>, expected: &str) -> Problem {
    let text = format!("expected {expected}, found {}", st.words[0].shown());
    Problem::error(st.span(), "syntax", text)
}

fn check_resource_name(name: &Token<'_>) -> Checked<()> {
    let text = &*name.text;
    let why = if text.is_empty() {
        "the name of a resource cannot be empty"
    } else if text.len() > 127 {
        "the name of a resource has at most 127 bytes"
    } else if text == "all" {
        "\"all\" means every resource and cannot be the name of one"
    } else if text == "." || text == ".." || text.contains(['/', '*', '"', '\\']) {
        "the name of a resource cannot contain / * \" or \\"
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "the name of a resource cannot contain white space"
    } else {
        return Ok(());
    };
    Err(Problem::error(name.span, "bad-name", why))
}

/// `resync-after`: `-1`, a minor, `RESOURCE` or `RESOURCE/VOLUME`.
fn after(token: &Token<'_>) -> Checked<After> {
    let text = &*token.text;
    if text == "-1" {
        return Ok(After::Nothing);
    }
    if let Ok(minor) = text.parse() {
        return Ok(After::Minor(minor));
    }
    let (resource, volume) = match text.rsplit_once('/') {
        Some((resource, volume)) => match volume.parse() {
            Ok(n) => (resource, Some(n)),
            Err(_) => {
                let what = "a resource, RESOURCE/VOLUME, or a minor";
                return Err(bad_value(token, "bad-value", what));
            }
        },
        None => (text, None),
    };
    Ok(After::Volume {
        resource: resource.to_owned(),
        volume,
    })
}

fn port(token: &Token<'_>) -> Checked<u16> {
    match token.text.parse() {
        Ok(n @ 1..) if token.text.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
        _ => Err(bad_value(token, "out-of-range", "a port from 1 to 65535")),
    }
}

/// `[ipv4|ipv6|sdp|ssocks|sci] ADDRESS:PORT`, IPv6 in brackets.
fn address(w: &mut Words<'_, '_>) -> Checked<Address> {
    const WHAT: &str = "an address like 10.0.0.1:7788 or ipv6 [fd00::1]:7788";
    let family = match w.peek().map(|t| &*t.text) {
        Some("ipv4") => Some(Family::Ipv4),
        Some("ipv6") => Some(Family::Ipv6),
        Some("sdp") => Some(Family::Sdp),
        Some("ssocks" | "sci") => Some(Family::Ssocks),
        _ => None,
    };
    if family.is_some() {
        w.next();
    }
    let family = family.unwrap_or(Family::Ipv4);
    let mut interface = None;
    let ip = if family == Family::Ipv6 {
        w.punctuation("[")?;
        let mut text = String::new();
        let first = w.peek().map(|t| t.span);
        while let Some(t) = w.next() {
            if t.kind == Kind::Punctuation && t.text == "]" {
                break;
            }
            text.push_str(&t.text);
        }
        let (ip, scope) = match text.split_once('%') {
            Some((ip, scope)) => (ip, Some(scope.to_owned())),
            None => (text.as_str(), None),
        };
        interface = scope;
        match ip.parse::<Ipv6Addr>() {
            Ok(ip) => IpAddr::V6(ip),
            Err(_) => {
                let at = first.unwrap_or(w.statement.after);
                let text = format!("expected an IPv6 address, found \"{text}\"");
                return Err(Problem::error(at, "bad-address", text));
            }
        }
    } else {
        let token = w.expect(WHAT)?;
        match token.text.parse::<Ipv4Addr>() {
            Ok(ip) => IpAddr::V4(ip),
            Err(_) => return Err(bad_value(token, "bad-address", WHAT)),
        }
    };
    w.punctuation(":")?;
    let port = port(w.expect("a port")?)?;
    Ok(Address {
        family,
        socket: SocketAddr::new(ip, port),
        interface,
    })
}

/// `device /dev/drbdN [minor N];` or `device minor N;`
fn device(mut w: Words<'_, '_>, volume: &mut Volume) -> Checked<()> {
    if !w.take("minor") {
        let name = w.expect("/dev/drbdN or \"minor\"")?;
        let path = match name.text.strip_prefix("/dev/") {
            Some(_) => name.text.to_string(),
            None => format!("/dev/{}", name.text),
        };
        let Some(rest) = path.strip_prefix("/dev/drbd") else {
            return Err(bad_value(
                name,
                "bad-device",
                "a device name that starts with /dev/drbd",
            ));
        };
        let of_name = rest
            .parse::<u32>()
            .ok()
            .filter(|_| rest.bytes().all(|b| b.is_ascii_digit()));
        volume.device = Some(PathBuf::from(&path));
        if !w.take("minor") {
            let Some(minor) = of_name else {
                let text = format!("{path} has no minor number in its name");
                return Err(Problem::error(name.span, "bad-device", text)
                    .remedy(format!("device {path} minor 0;")));
            };
            volume.minor = Some(minor);
            return w.end();
        }
        let number = w.expect("a minor")?;
        let minor = integer32(number, "minor", MINOR_MAX)?;
        if of_name.map_or(!rest.starts_with('_'), |n| n != minor) {
            let text = format!("{path} cannot have minor {minor}");
            return Err(
                Problem::error(number.span, "bad-device", text).remedy(format!(
                    "device /dev/drbd{minor} minor {minor}; or a name that starts with /dev/drbd_"
                )),
            );
        }
        volume.minor = Some(minor);
        return w.end();
    }
    volume.minor = Some(integer32(w.expect("a minor")?, "minor", MINOR_MAX)?);
    w.end()
}

/// Most minors a device number has room for (20 bits).
const MINOR_MAX: u32 = (1 << 20) - 1;

fn keyword_of_volume(keyword: &str) -> &'static str {
    match keyword {
        "device" => "device",
        "disk" => "disk",
        _ => "meta-disk",
    }
}

fn empty_volume(number: u32, implicit: bool, span: Span) -> Volume {
    Volume {
        number,
        device: None,
        minor: None,
        disk: None,
        diskless: false,
        meta_disk: None,
        options: Settings::default(),
        implicit,
        span,
    }
}

const MIXED: &str = "\"volume\" blocks and device, disk or meta-disk outside of them";

fn implicit_volume(volumes: &mut Vec<Volume>, span: Span) -> Checked<&mut Volume> {
    if volumes.is_empty() {
        volumes.push(empty_volume(0, true, span));
    }
    match &mut volumes[..] {
        [volume] if volume.implicit => Ok(volume),
        _ => Err(Problem::error(
            span,
            "mixed-volumes",
            format!("both {MIXED}"),
        )),
    }
}

fn add_volume(volumes: &mut Vec<Volume>, volume: Volume) -> Checked<()> {
    if volumes.iter().any(|v| v.implicit) {
        return Err(Problem::error(
            volume.span,
            "mixed-volumes",
            format!("both {MIXED}"),
        ));
    }
    match volumes.binary_search_by_key(&volume.number, |v| v.number) {
        Ok(_) => {
            let text = format!("a second volume {}", volume.number);
            Err(Problem::error(volume.span, "duplicate-statement", text))
        }
        Err(at) => {
            volumes.insert(at, volume);
            Ok(())
        }
    }
}

/// Volumes of the resource complete those of the host.
fn inherit_volumes(from: &[Volume], host: &mut Host) -> Option<Problem> {
    for s in from {
        let at = match host.volumes.binary_search_by_key(&s.number, |v| v.number) {
            Ok(at) => at,
            Err(at) => {
                host.volumes
                    .insert(at, empty_volume(s.number, s.implicit, s.span));
                at
            }
        };
        let t = &mut host.volumes[at];
        if t.disk.is_none() && !t.diskless {
            t.disk.clone_from(&s.disk);
            t.diskless = s.diskless;
        }
        if t.device.is_none() && t.minor.is_none() {
            t.device.clone_from(&s.device);
            t.minor = s.minor;
        }
        if t.meta_disk.is_none() {
            t.meta_disk.clone_from(&s.meta_disk);
        }
    }
    let mixed =
        host.volumes.iter().any(|v| v.implicit) && host.volumes.iter().any(|v| v.number != 0);
    mixed.then(|| Problem::error(host.span, "mixed-volumes", format!("both {MIXED}")))
}

/// Says what a host's volumes lack.
fn incomplete(host: &Host) -> Vec<Problem> {
    let mut missing = Vec::new();
    // What is stacked has the lower device as its disk, and internal metadata.
    let stacked = matches!(host.name, HostName::StackedOnTopOf(_));
    if host.volumes.is_empty() {
        missing.push((host.span, "a \"device\" or \"volume\"", String::new()));
    }
    for v in &host.volumes {
        let of = if v.implicit {
            String::new()
        } else {
            format!(" volume {}", v.number)
        };
        if v.minor.is_none() {
            missing.push((v.span, "a \"device\"", of.clone()));
        }
        if v.disk.is_none() && !v.diskless && !stacked {
            missing.push((v.span, "a \"disk\"", of.clone()));
        }
        if v.meta_disk.is_none() && !v.diskless && !stacked {
            missing.push((v.span, "a \"meta-disk\"", of));
        }
    }
    missing
        .into_iter()
        .map(|(span, what, of)| {
            let text = format!("expected {what} for {}{of}", host.shown());
            Problem::error(span, "missing-statement", text)
        })
        .collect()
}

fn two(ends: Vec<PathEnd>, span: Span) -> Checked<[PathEnd; 2]> {
    let count = ends.len();
    ends.try_into().map_err(|_| {
        let text = format!("expected two \"host\" statements, found {count}");
        Problem::error(span, "missing-statement", text)
    })
}
