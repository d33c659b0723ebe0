//! Shared by the tests: the oracles, and a seeded generator.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError, RwLock};

use uml_lab::Lab;

/// A child that another test starts has what is open here until its own program runs, and a program
/// that is open for writing cannot run: nobody starts one while somebody writes one.
static PROGRAMS: RwLock<()> = RwLock::new(());

/// Makes a program, or several.
pub(crate) fn make_programs<R>(make: impl FnOnce() -> R) -> R {
    let _alone = PROGRAMS.write().unwrap_or_else(PoisonError::into_inner);
    make()
}

/// Runs a program, and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Output {
    let piped = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = {
        let _no_writer = PROGRAMS.read().unwrap_or_else(PoisonError::into_inner);
        piped.spawn().unwrap()
    };
    child.wait_with_output().unwrap()
}

/// Finds a program of drbd-utils: the environment's word, its usual places, or Debian's package,
/// which a node of the lab has. A dry run needs no kernel, so it runs here even if it came from a
/// node. `None`, with a printed reason, if there is none and `LAB_REQUIRED` is not 1.
pub(crate) fn utils(variable: &str, program: &str) -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("drbd-utils");
    let places = ["/lib/drbd", "/usr/lib/drbd", "/sbin", "/usr/sbin"].map(PathBuf::from);
    let found = places
        .iter()
        .chain([&kept])
        .map(|p| p.join(program))
        .find(|p| p.is_file());
    if found.is_some() {
        return found;
    }
    let lab = Lab::builder()
        .name("drbdadm")
        // It is to run on this host.
        .root("/", [])
        .packages(["drbd-utils"])
        .node("node1", |n| n)
        .start_for_test()?;
    fs::create_dir_all(&kept).unwrap();
    // drbdadm-84 looks for drbdsetup beside itself, and is the last to be complete.
    for name in [
        "/lib/drbd/drbdsetup-84",
        "/lib/drbd/drbdadm-84",
        "/sbin/drbdadm",
    ] {
        let bytes = lab.node("node1").read_file(name).unwrap();
        let name = Path::new(name).file_name().unwrap();
        make_programs(|| {
            let mut new = tempfile::Builder::new()
                .permissions(fs::Permissions::from_mode(0o755))
                .tempfile_in(&kept)
                .unwrap();
            new.write_all(&bytes).unwrap();
            new.into_temp_path().persist(kept.join(name)).unwrap();
        });
    }
    Some(kept.join(program))
}

/// A small generator of pseudo-random numbers, so that a failure is repeated by its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % n
    }
    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
    pub(crate) fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

/// How many cases a differential test tries: `DRBD_CONF_CASES`, or so many.
pub(crate) fn cases(default: u64) -> u64 {
    let set = std::env::var("DRBD_CONF_CASES").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Splits a line of a dry run, which is escaped for the shell by backslashes.
pub(crate) fn words_of(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' => words.push(String::new()),
            '\\' => words.last_mut().unwrap().extend(chars.next()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words
}

/// Names of options, and values they take; an empty one is none.
pub(crate) type Options = &'static [(&'static str, &'static [&'static str])];

pub(crate) const STARTUP: Options = &[
    ("wfc-timeout", &["0", "15"]),
    ("degr-wfc-timeout", &["60"]),
    ("outdated-wfc-timeout", &["2"]),
    ("wait-after-sb", &["", "yes"]),
];

pub(crate) const HANDLERS: Options = &[
    (
        "fence-peer",
        &["/bin/true", "\"/usr/lib/drbd/x.sh -a; echo b\""],
    ),
    ("unfence-peer", &["/bin/true"]),
    ("split-brain", &["\"notify root\""]),
    ("initial-split-brain", &["\"notify <root>\""]),
    ("local-io-error", &["\"halt -f\""]),
    ("pri-on-incon-degr", &["\"a\""]),
    ("pri-lost-after-sb", &["\"b\""]),
    ("pri-lost", &["\"c\""]),
    ("before-resync-target", &["\"d\""]),
    ("after-resync-target", &["\"e\""]),
    ("before-resync-source", &["\"f\""]),
    ("out-of-sync", &["\"g\""]),
    ("quorum-lost", &["\"h\""]),
    ("disconnected", &["\"i\""]),
];

/// Some options of a list, each at most once, with white space and comments in between.
pub(crate) fn options(r: &mut Random, list: Options, one_in: u64) -> String {
    let mut out = String::new();
    for (name, values) in list {
        if r.chance(one_in) {
            let value = r.pick(values);
            let gap = match value.is_empty() {
                true => "",
                false => r.pick(&[" ", "\n\t", "  "]),
            };
            let end = r.pick(&["; ", ";\n", " ; # it's {so}\n"]);
            let _ = write!(out, "{name}{gap}{value}{end}");
        }
    }
    out
}

/// A section, or none.
pub(crate) fn section(
    r: &mut Random,
    name: &str,
    lists: &[Options],
    one_in: u64,
    out: &mut String,
) {
    if r.chance(2) {
        let all: String = lists.iter().map(|l| options(r, l, one_in)).collect();
        let _ = writeln!(out, "{name} {{ {all} }}");
    }
}

pub(crate) const PROXY: Options = &[
    ("memlimit", &["100M"]),
    ("read-loops", &["3"]),
    ("bwlimit", &["10"]),
    ("ping-timeout", &["5"]),
];

/// DRBD Proxy on the side of one of the hosts.
pub(crate) fn proxy(r: &mut Random, host: usize, port: u64) -> String {
    let options = match r.chance(2) {
        true => format!("options {{ {} }}", options(r, PROXY, 2)),
        false => String::new(),
    };
    format!(
        "proxy on pxy{host} {{ inside 10.8.0.{host}:{port}; outside 10.9.0.{host}:{port}; {options} }}"
    )
}
