//! A configuration file, line by line: read, changed and written without loss.
//!
//! liblxc's own save rewrites the whole file from what it has in memory; this
//! changes the lines it is told to and leaves every other byte as it is. And
//! it says what is wrong with a file that liblxc rejects as a whole: which
//! line, and which key it should have been.
//!
//! ```
//! use lxc_rs::ConfigFile;
//!
//! let mut file = ConfigFile::parse(b"# web\nlxc.uts.name = m1\nlxc.environment = A=1\n");
//! file.set("lxc.uts.name", "web");
//! file.push("lxc.environment", "B=2");
//! assert_eq!(
//!     file.to_bytes(),
//!     b"# web\nlxc.uts.name = web\nlxc.environment = A=1\nlxc.environment = B=2\n",
//! );
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::config;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::path::LxcPath;

/// The lines of a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    lines: Vec<Line>,
}

/// One line, its end included, and where key and value are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    bytes: Vec<u8>,
    item: Option<(Range<usize>, Range<usize>)>,
}

/// An item and the line it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item<'a> {
    /// Number of the line, from 1.
    pub line: usize,
    /// The key.
    pub key: &'a str,
    /// The value, without white space around it and without one pair of quotes.
    pub value: &'a OsStr,
}

impl ConfigFile {
    /// Takes any bytes apart: what is not an item is kept as it is.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        Self {
            lines: lines.map(Line::parse).collect(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] or [`ErrorKind::NoPermission`].
    pub fn read(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let text = fs::read(file)
            .map_err(|error| Error::io("config file", "cannot be read", error).at(file))?;
        Ok(Self::parse(&text))
    }

    /// Writes a file: all of it or nothing, and on disk when this returns. An
    /// existing one keeps its mode and owner; a new one is for root only.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] or [`ErrorKind::NoPermission`].
    pub fn write(&self, file: impl AsRef<Path>) -> Result<()> {
        let file = file.as_ref();
        let written = match config::replace_with(file, &self.to_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::File::options()
                .write(true)
                .create_new(true)
                .open(file)
                .and_then(|_| config::replace_with(file, &self.to_bytes())),
            written => written,
        };
        written.map_err(|error| Error::io("config file", "cannot be written", error).at(file))
    }

    /// The bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lines
            .iter()
            .flat_map(|line| line.bytes.iter().copied())
            .collect()
    }

    /// All items, in the order of the lines.
    pub fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let numbered = (1..).zip(&self.lines);
        numbered.filter_map(|(line, text)| {
            let (key, value) = text.item()?;
            Some(Item { line, key, value })
        })
    }

    /// The value of a key that has one: that of the last line, which counts. An
    /// empty value is none.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&OsStr> {
        self.list(key).last()
    }

    /// All values of a key that is a list. An empty one empties the list before it.
    pub fn list(&self, key: &str) -> impl DoubleEndedIterator<Item = &OsStr> {
        let values = self.lines.iter().filter_map(Line::item);
        let values: Vec<_> = values
            .filter(|(own, _)| *own == key)
            .map(|(_, value)| value)
            .collect();
        let cleared = values.iter().rposition(|value| value.is_empty());
        values.into_iter().skip(cleared.map_or(0, |at| at + 1))
    }

    /// Gives a key that has one value this value: its last line is changed,
    /// earlier ones go, and without one a line is added. A newline or NUL byte
    /// in the value is not for liblxc; it is left out.
    pub fn set(&mut self, key: &str, value: impl AsRef<OsStr>) {
        let is = |line: &Line| line.item().is_some_and(|(own, _)| own == key);
        let Some(last) = self.lines.iter().rposition(is) else {
            return self.push(key, value);
        };
        if let Some(line) = self.lines.get_mut(last) {
            line.set(value.as_ref());
        }
        let mut index = 0;
        self.lines.retain(|line| {
            index += 1;
            !is(line) || index - 1 == last
        });
    }

    /// Adds a line, after the last one of the same key or at the end.
    pub fn push(&mut self, key: &str, value: impl AsRef<OsStr>) {
        let is = |line: &Line| line.item().is_some_and(|(own, _)| own == key);
        let at = self
            .lines
            .iter()
            .rposition(is)
            .map_or(self.lines.len(), |at| at + 1);
        if let Some(before) = at.checked_sub(1).and_then(|at| self.lines.get_mut(at))
            && !before.bytes.ends_with(b"\n")
        {
            before.bytes.push(b'\n');
        }
        let value = one_line(value.as_ref());
        let text = [key.as_bytes(), b" = ", &value, b"\n"].concat();
        self.lines.insert(at, Line::parse(&text));
    }

    /// Takes all lines of a key away; how many there were.
    pub fn remove(&mut self, key: &str) -> usize {
        let before = self.lines.len();
        self.lines
            .retain(|line| line.item().is_none_or(|(own, _)| own != key));
        before - self.lines.len()
    }

    /// What liblxc would not take, or would not take as it is meant: keys it
    /// does not know, with the right one where that can be told, and lines
    /// that are nothing. Included files are not looked into.
    ///
    /// Whether a key exists is asked of the liblxc in use.
    #[must_use]
    pub fn check(&self, lxcpath: &LxcPath) -> Vec<Finding> {
        let known = lxcpath.config_keys();
        let mut findings = Vec::new();
        for (number, line) in (1..).zip(&self.lines) {
            let text = line.bytes.trim_ascii();
            match line.item() {
                Some((key, _)) => {
                    let Some(problem) = problem(key, &known, lxcpath) else {
                        continue;
                    };
                    findings.push(Finding {
                        line: number,
                        key: key.to_owned(),
                        problem,
                    });
                }
                None if text.is_empty() || text.starts_with(b"#") => {}
                None => findings.push(Finding {
                    line: number,
                    key: String::from_utf8_lossy(text).into_owned(),
                    problem: Problem::NotAnItem,
                }),
            }
        }
        findings
    }
}

impl fmt::Display for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes()))
    }
}

impl Line {
    fn parse(bytes: &[u8]) -> Self {
        Self {
            item: Self::split(bytes),
            bytes: bytes.to_vec(),
        }
    }

    /// Where key and value are.
    fn split(bytes: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
        let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let equals = bytes.iter().position(|byte| *byte == b'=')?;
        let key = start..start + bytes.get(start..equals)?.trim_ascii_end().len();
        let name = str::from_utf8(bytes.get(key.clone())?).ok()?;
        if name.is_empty() || name.starts_with('#') || name.contains(char::is_whitespace) {
            return None;
        }
        let after = bytes.get(equals + 1..)?;
        let value = after.trim_ascii();
        let begin = equals + 1 + (after.len() - after.trim_ascii_start().len());
        let mut value = begin..begin + value.len();
        let quoted = bytes.get(value.clone())?;
        if let [first @ (b'"' | b'\''), .., last] = quoted
            && first == last
        {
            value = value.start + 1..value.end - 1;
        }
        Some((key, value))
    }

    fn item(&self) -> Option<(&str, &OsStr)> {
        let (key, value) = self.item.clone()?;
        let key = str::from_utf8(self.bytes.get(key)?).ok()?;
        Some((key, OsStr::from_bytes(self.bytes.get(value)?)))
    }

    fn set(&mut self, value: &OsStr) {
        let Some((_, old)) = self.item.clone() else {
            return;
        };
        let new = one_line(value);
        let quoted = old.start.checked_sub(1).and_then(|at| self.bytes.get(at));
        if old.is_empty() && !matches!(quoted, Some(b'"' | b'\'')) {
            let sign = self.bytes.iter().position(|byte| *byte == b'=');
            let sign = sign.map_or(old.start, |at| at + 1);
            let spaces = self.bytes[sign..].iter();
            let spaces = spaces.take_while(|byte| b" \t".contains(byte)).count();
            self.bytes
                .splice(sign..sign + spaces, [b" ", &new[..]].concat());
        } else {
            self.bytes.splice(old, new);
        }
        self.item = Self::split(&self.bytes);
    }
}

fn one_line(value: &OsStr) -> Vec<u8> {
    let bytes = value.as_bytes().iter().copied();
    bytes.filter(|byte| !b"\n\0".contains(byte)).collect()
}

/// Something in a configuration file that liblxc does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Finding {
    /// Number of the line, from 1.
    pub line: usize,
    /// The key as it stands there, or the line if it is no item.
    pub key: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Problem {
    /// A key of liblxc before 3.0, and what it is called now. A container that
    /// has it cannot be loaded.
    Renamed {
        /// The key to write instead.
        now: String,
    },
    /// A key of an earlier release that has no successor.
    Removed,
    /// No key of this liblxc, but very near to one. A container that has it
    /// cannot be loaded.
    Misspelt {
        /// The key that was probably meant.
        meant: String,
    },
    /// No key of this liblxc. A container that has it cannot be loaded.
    Unknown,
    /// Not `key = value`, not a comment. liblxc passes over it in silence.
    NotAnItem,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.key)?;
        match &self.problem {
            Problem::Renamed { now } => write!(f, " is called {now} since liblxc 3.0"),
            Problem::Removed => f.write_str(" is gone and has no successor"),
            Problem::Misspelt { meant } => write!(f, " is no key; {meant} is"),
            Problem::Unknown => f.write_str(" is no key of this liblxc"),
            Problem::NotAnItem => f.write_str(" is neither an item nor a comment"),
        }
    }
}

/// Keys before 3.0 and since, from the upgrade notes. `lxc.network` comes
/// with and without a number and is handled apart.
const RENAMED: &[(&str, &str)] = &[
    ("lxc.aa_allow_incomplete", "lxc.apparmor.allow_incomplete"),
    ("lxc.aa_profile", "lxc.apparmor.profile"),
    ("lxc.console", "lxc.console.path"),
    ("lxc.devttydir", "lxc.tty.dir"),
    ("lxc.haltsignal", "lxc.signal.halt"),
    ("lxc.id_map", "lxc.idmap"),
    ("lxc.init_cmd", "lxc.init.cmd"),
    ("lxc.init_gid", "lxc.init.gid"),
    ("lxc.init_uid", "lxc.init.uid"),
    ("lxc.limit", "lxc.prlimit"),
    ("lxc.logfile", "lxc.log.file"),
    ("lxc.loglevel", "lxc.log.level"),
    ("lxc.mount", "lxc.mount.fstab"),
    ("lxc.pts", "lxc.pty.max"),
    ("lxc.rebootsignal", "lxc.signal.reboot"),
    ("lxc.rootfs", "lxc.rootfs.path"),
    ("lxc.rootfs.backend", "lxc.rootfs.path"),
    ("lxc.se_context", "lxc.selinux.context"),
    ("lxc.seccomp", "lxc.seccomp.profile"),
    ("lxc.stopsignal", "lxc.signal.stop"),
    ("lxc.syslog", "lxc.log.syslog"),
    ("lxc.tty", "lxc.tty.max"),
    ("lxc.utsname", "lxc.uts.name"),
];
const REMOVED: &[&str] = &["lxc.kmsg", "lxc.pivotdir"];
/// Parts of `lxc.network` that are called differently in `lxc.net`.
const PARTS: &[(&str, &str)] = &[("ipv4", "ipv4.address"), ("ipv6", "ipv6.address")];

fn problem(key: &str, known: &[String], lxcpath: &LxcPath) -> Option<Problem> {
    // Other than keys of containers, liblxc passes over it.
    if !key.starts_with("lxc") {
        return Some(Problem::NotAnItem);
    }
    // A name that this library has is right, whatever it was once.
    if is_known(key, known, lxcpath) {
        return None;
    }
    if let Some(part) = key.strip_prefix("lxc.network") {
        return Some(Problem::Renamed { now: network(part) });
    }
    let exact = RENAMED.iter().find(|(old, _)| *old == key);
    let prefix = || {
        let mut with_parts = RENAMED.iter().filter(|(old, _)| *old == "lxc.limit");
        with_parts.find(|(old, _)| {
            key.strip_prefix(old)
                .is_some_and(|rest| rest.starts_with('.'))
        })
    };
    if let Some((old, now)) = exact.or_else(prefix) {
        let now = format!("{now}{}", &key[old.len()..]);
        return Some(Problem::Renamed { now });
    }
    if REMOVED.contains(&key) {
        return Some(Problem::Removed);
    }
    let mut parts = key.splitn(3, '.').skip(1);
    if let (Some(second), Some(rest)) = (parts.next(), parts.next())
        && distance(second, "network") <= 2
    {
        return Some(Problem::Misspelt {
            meant: network(&format!(".{rest}")),
        });
    }
    match nearest(key, known) {
        Some(meant) => Some(Problem::Misspelt { meant }),
        None => Some(Problem::Unknown),
    }
}

/// The new name of `lxc.network` and what follows it.
fn network(part: &str) -> String {
    let mut parts: Vec<&str> = part.split('.').skip(1).collect();
    let number = match parts.first() {
        Some(first) if first.parse::<u32>().is_ok() => parts.remove(0),
        _ => "0",
    };
    let rest = parts.join(".");
    let rest = PARTS
        .iter()
        .find(|(old, _)| *old == rest)
        .map_or(rest.as_str(), |(_, new)| new);
    match rest {
        "" => "lxc.net".to_owned(),
        rest => format!("lxc.net.{number}.{rest}"),
    }
}

/// Whether liblxc would look at a key at all: it has it, or one that takes
/// parts of its own (`lxc.net.0.type`, `lxc.cgroup2.pids.max`).
fn is_known(key: &str, known: &[String], lxcpath: &LxcPath) -> bool {
    if lxcpath.knows_config_item(key) {
        return true;
    }
    if let Some(part) = key.strip_prefix("lxc.net.") {
        let Some((number, part)) = part.split_once('.') else {
            return part.parse::<u32>().is_ok();
        };
        return number.parse::<u32>().is_ok() && NET.contains(&part);
    }
    let open = [
        "lxc.cgroup.",
        "lxc.cgroup2.",
        "lxc.prlimit.",
        "lxc.sysctl.",
        "lxc.proc.",
    ];
    open.iter().any(|open| {
        key.len() > open.len()
            && key.starts_with(open)
            && known.iter().any(|known| *known == open[..open.len() - 1])
    })
}

/// What a network can have, which liblxc has no question for.
const NET: &[&str] = &[
    "type",
    "link",
    "l2proxy",
    "flags",
    "name",
    "hwaddr",
    "mtu",
    "ipv4.address",
    "ipv4.gateway",
    "ipv6.address",
    "ipv6.gateway",
    "script.up",
    "script.down",
    "macvlan.mode",
    "ipvlan.mode",
    "ipvlan.isolation",
    "veth.pair",
    "veth.mode",
    "veth.ipv4.route",
    "veth.ipv6.route",
    "veth.vlan.id",
    "veth.vlan.tagged.id",
    "veth.n_rxqueues",
    "veth.n_txqueues",
    "vlan.id",
    "phys",
];

/// The key that differs by the fewest letters, if they are few.
fn nearest(key: &str, known: &[String]) -> Option<String> {
    let parts: Vec<&str> = key.split('.').collect();
    let mut candidates: Vec<String> = known.to_vec();
    // With the number that stands there, or the first one.
    let number = parts.get(2).filter(|part| part.parse::<u32>().is_ok());
    for part in NET {
        candidates.push(format!("lxc.net.{}.{part}", number.unwrap_or(&"0")));
    }
    let (distance, best) = candidates
        .into_iter()
        .map(|candidate| (distance(key, &candidate), candidate))
        .min()?;
    (distance <= 2 + key.len() / 10).then_some(best)
}

/// How many letters have to be put in, taken out or replaced.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for column in 0..other.len() {
            let replaced = diagonal + usize::from(other[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

impl std::str::FromStr for ConfigFile {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Self::parse(text.as_bytes()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"# head\n\nlxc.uts.name=m1\r\n\tlxc.net.0.type = veth # not a remark\n\
        lxc.environment = A=1\nrubbish \xff\nlxc.environment = \"B = 2\"\nlxc.uts.name = m2";

    #[test]
    fn nothing_is_lost() {
        for text in [TEXT, b"", b"\n", b"no end", b"\0\xff=\n=x\n = \n"] {
            assert_eq!(ConfigFile::parse(text).to_bytes(), text);
        }
        let file = ConfigFile::parse(TEXT);
        let items: Vec<_> = file.items().map(|item| (item.line, item.key)).collect();
        assert_eq!(
            items,
            [
                (3, "lxc.uts.name"),
                (4, "lxc.net.0.type"),
                (5, "lxc.environment"),
                (7, "lxc.environment"),
                (8, "lxc.uts.name")
            ]
        );
        assert_eq!(file.get("lxc.uts.name").unwrap(), "m2");
        assert_eq!(file.get("lxc.net.0.type").unwrap(), "veth # not a remark");
        assert_eq!(
            file.list("lxc.environment").collect::<Vec<_>>(),
            ["A=1", "B = 2"]
        );
        assert_eq!(file.get("lxc.none"), None);
    }

    #[test]
    fn only_what_is_said_changes() {
        let mut file = ConfigFile::parse(TEXT);
        file.set("lxc.net.0.type", "empty");
        file.push("lxc.environment", "C=\n3");
        file.push("lxc.new", "x");
        file.set("lxc.uts.name", "web");
        assert_eq!(file.remove("lxc.none"), 0);
        assert_eq!(
            file.to_bytes(),
            b"# head\n\n\tlxc.net.0.type = empty\nlxc.environment = A=1\nrubbish \xff\n\
            lxc.environment = \"B = 2\"\nlxc.environment = C=3\nlxc.uts.name = web\nlxc.new = x\n"
        );
        assert_eq!(file.remove("lxc.environment"), 3);
        let mut file =
            ConfigFile::parse(b"lxc.environment=A=1\nlxc.environment =\nlxc.environment= B=2\n");
        assert_eq!(file.list("lxc.environment").collect::<Vec<_>>(), ["B=2"]);
        file.set("lxc.environment", "C=3");
        assert_eq!(file.to_bytes(), b"lxc.environment= C=3\n");
        let mut file = ConfigFile::parse(b"lxc.uts.name =\n");
        file.set("lxc.uts.name", "m1");
        assert_eq!(file.to_bytes(), b"lxc.uts.name = m1\n");
        let mut file = ConfigFile::parse(b"lxc.uts.name = ''");
        assert_eq!(file.get("lxc.uts.name"), None);
        file.set("lxc.uts.name", "m1");
        assert_eq!(file.get("lxc.uts.name").unwrap(), "m1");
    }

    #[test]
    fn files_are_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        let mut config = ConfigFile::parse(TEXT);
        config.write(&file).unwrap();
        assert_eq!(ConfigFile::read(&file).unwrap(), config);
        config.set("lxc.uts.name", "web");
        config.write(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), config.to_bytes());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = config.write(dir.path().join("no/config")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert!(ConfigFile::read(dir.path()).is_err());
    }

    #[test]
    fn what_is_wrong_and_what_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let store = LxcPath::new(dir.path()).unwrap();
        let findings = |text: &str| -> Vec<(usize, Problem)> {
            let findings = ConfigFile::parse(text.as_bytes()).check(&store);
            findings
                .into_iter()
                .map(|finding| (finding.line, finding.problem))
                .collect()
        };
        let renamed = |now: &str| Problem::Renamed {
            now: now.to_owned(),
        };
        let misspelt = |meant: &str| Problem::Misspelt {
            meant: meant.to_owned(),
        };
        for right in [
            "lxc.uts.name = x",
            "lxc.net.0.type = veth",
            "lxc.net.3.ipv4.address = 10.0.0.1/24",
            "lxc.mount.auto = proc",
            "lxc.include = /x",
            "lxc.cgroup2.pids.max = 5",
            "# lxc.network = x",
            "",
        ] {
            assert_eq!(findings(right), [], "{right}");
        }
        assert_eq!(
            findings("\nlxc.network.type = veth"),
            [(2, renamed("lxc.net.0.type"))]
        );
        assert_eq!(
            findings("lxc.network.2.ipv4 = x"),
            [(1, renamed("lxc.net.2.ipv4.address"))]
        );
        assert_eq!(findings("lxc.utsname = x"), [(1, renamed("lxc.uts.name"))]);
        assert_eq!(
            findings("lxc.limit.nofile = 9"),
            [(1, renamed("lxc.prlimit.nofile"))]
        );
        assert_eq!(findings("lxc.pivotdir = x"), [(1, Problem::Removed)]);
        assert_eq!(
            findings("lxc.betwork.type = veth"),
            [(1, misspelt("lxc.net.0.type"))]
        );
        assert_eq!(
            findings("lxc.net.0.tpye = veth"),
            [(1, misspelt("lxc.net.0.type"))]
        );
        assert_eq!(
            findings("lxc.rootfs.pth = x"),
            [(1, misspelt("lxc.rootfs.path"))]
        );
        assert_eq!(
            findings("lxc.nothing.like.any.key = x"),
            [(1, Problem::Unknown)]
        );
        assert_eq!(
            findings("uts.name = x\nhello\n"),
            [(1, Problem::NotAnItem), (2, Problem::NotAnItem)]
        );
        let text = ConfigFile::parse(b"lxc.utsname = x").check(&store)[0].to_string();
        assert_eq!(
            text,
            "line 1: lxc.utsname is called lxc.uts.name since liblxc 3.0"
        );
    }
}
