//! Ours against `drbdadm` of 8.4: what it would run, and what it reads.
#![cfg(feature = "drbd-nl")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::Random;
use drbd_conf::{Config, MetaDisk, Step};
use drbd_nl::{Dialect, DiskOptions, NetOptions, Operation, OptionError, ResourceOptions};

fn drbdadm() -> Option<PathBuf> {
    common::utils("DRBDADM84", "drbdadm-84")
}

fn run(drbdadm: &Path, file: &Path, node: &str, args: &[&str]) -> Output {
    Command::new(drbdadm)
        .env("__DRBD_NODE__", node)
        .arg("-c")
        .arg(file)
        .arg("-d")
        .args(args)
        .output()
        .unwrap()
}

/// A step in a form that both sides can be brought into.
#[derive(Debug, PartialEq)]
enum Plain {
    NewResource(String, ResourceOptions),
    NewMinor(String, u32, u32),
    ApplyAl(u32, String),
    Attach(u32, String, String, Box<DiskOptions>),
    Connect(String, String, String, Box<NetOptions>),
    Other(String),
}

fn meta_words(disk: &Path, meta: &MetaDisk) -> String {
    match meta {
        MetaDisk::Internal => format!("{} internal", disk.display()),
        MetaDisk::Flexible(path) => format!("{} flexible", path.display()),
        MetaDisk::Indexed(path, i) => format!("{} {i}", path.display()),
        other => panic!("{other}"),
    }
}

fn ours(step: Step) -> Plain {
    match step {
        Step::ApplyActivityLog {
            minor,
            disk,
            meta_disk,
            ..
        } => {
            // drbdmeta is given the device with the metadata.
            Plain::ApplyAl(minor, meta_words(&disk, &meta_disk))
        }
        Step::Drbd(Operation::NewResource {
            resource, options, ..
        }) => Plain::NewResource(resource.to_string(), options),
        Step::Drbd(Operation::NewMinor {
            resource,
            volume,
            minor,
            ..
        }) => Plain::NewMinor(resource.to_string(), minor.0, volume.0),
        Step::Drbd(Operation::Attach {
            minor,
            backing_dev,
            meta_disk,
            options,
        }) => {
            let meta = match meta_disk {
                drbd_nl::MetaDisk::Internal => MetaDisk::Internal,
                drbd_nl::MetaDisk::Flexible(path) => MetaDisk::Flexible(path),
                drbd_nl::MetaDisk::Indexed(path, i) => MetaDisk::Indexed(path, i),
                other => panic!("{other:?}"),
            };
            let meta = meta_words(&backing_dev, &meta);
            Plain::Attach(minor.0, backing_dev.display().to_string(), meta, options)
        }
        Step::Drbd(Operation::Connect {
            connection,
            options,
            ..
        }) => {
            let ends = connection.addresses.unwrap();
            Plain::Connect(
                connection.resource.to_string(),
                ends.local.to_string(),
                ends.remote.to_string(),
                options,
            )
        }
        other => Plain::Other(other.to_string()),
    }
}

/// Reads one line of a dry run.
fn theirs(line: &str) -> Plain {
    let words = common::words_of(line);
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    let program = words.remove(0).rsplit('/').next().unwrap();
    let (options, words): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.starts_with("--"));
    fn collect<T: Default>(
        options: &[&str],
        set: impl Fn(&mut T, &str, &str) -> Result<(), OptionError>,
    ) -> T {
        let mut t = T::default();
        for o in options {
            let (name, value) = o[2..].split_once('=').unwrap();
            set(&mut t, name, value).unwrap();
        }
        t
    }
    let n = |s: &str| s.parse::<u32>().unwrap();
    match (program, &words[..]) {
        ("drbdmeta", [minor, "v08", device, index, "apply-al"]) => {
            let index = index
                .strip_prefix("flex-external")
                .map_or(*index, |_| "flexible");
            Plain::ApplyAl(n(minor), format!("{device} {index}"))
        }
        (_, ["new-resource", name]) => {
            Plain::NewResource((*name).into(), collect(&options, ResourceOptions::set))
        }
        (_, ["new-minor", name, minor, volume]) => {
            Plain::NewMinor((*name).into(), n(minor), n(volume))
        }
        (_, ["attach", minor, disk, meta, index]) => Plain::Attach(
            n(minor),
            (*disk).into(),
            format!("{meta} {index}"),
            Box::new(collect(&options, DiskOptions::set)),
        ),
        (_, ["connect", name, a, b]) => Plain::Connect(
            (*name).into(),
            (*a).into(),
            (*b).into(),
            Box::new(collect(&options, NetOptions::set)),
        ),
        _ => Plain::Other(line.into()),
    }
}

/// What `drbdadm up all` does on a node, by our expansion: first all objects, then all disks, then
/// all connections.
fn up_all(config: &Config, node: &str) -> Vec<Plain> {
    let views: Vec<_> = config
        .resources
        .iter()
        .map(|r| r.for_node(node).unwrap_or_else(|e| panic!("{node}: {e}")))
        .collect();
    let mut steps = Vec::new();
    for v in &views {
        steps.extend(v.create(Dialect::V84).unwrap_or_else(|e| panic!("{e}")));
    }
    for v in &views {
        steps.extend(v.attach(Dialect::V84).unwrap_or_else(|e| panic!("{e}")));
    }
    for v in &views {
        steps.extend(v.connect(Dialect::V84).unwrap_or_else(|e| panic!("{e}")));
    }
    steps.into_iter().map(ours).collect()
}

/// Compares expansion and dump on each node.
fn compare(drbdadm: &Path, file: &Path, nodes: &[&str], about: &str) {
    let config = Config::load(file).unwrap_or_else(|e| panic!("{about}\n{e}"));
    for node in nodes {
        let out = run(drbdadm, file, node, &["up", "all"]);
        let text = String::from_utf8(out.stdout).unwrap();
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{about}\ndrbdadm refused: {errors}");
        let theirs: Vec<Plain> = text.lines().map(theirs).collect();
        let ours = up_all(&config, node);
        for (a, b) in ours.iter().zip(&theirs) {
            assert_eq!(a, b, "{about}\non {node}; ours left, theirs right");
        }
        assert_eq!(
            ours.len(),
            theirs.len(),
            "{about}\non {node}: {ours:#?}\n{text}"
        );

        // What drbdadm dumps, read by us, means the same.
        let out = run(drbdadm, file, node, &["dump", "all"]);
        assert!(
            out.status.success(),
            "{about}\n{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let dump = String::from_utf8(out.stdout).unwrap();
        let again = Config::parse(&dump, "dump").unwrap_or_else(|e| panic!("{about}\n{dump}\n{e}"));
        assert_eq!(up_all(&again, node), ours, "{about}\n{dump}");
        for (a, b) in config.resources.iter().zip(&again.resources) {
            let list = |s: &drbd_conf::Settings| -> BTreeMap<&str, String> {
                s.iter().map(|s| (s.name, s.raw().to_owned())).collect()
            };
            assert_eq!(
                list(&a.sections.handlers),
                list(&b.sections.handlers),
                "{about}"
            );
            assert_eq!(
                list(&a.sections.startup),
                list(&b.sections.startup),
                "{about}"
            );
            assert_eq!(
                a.sections.become_primary_on, b.sections.become_primary_on,
                "{about}"
            );
        }
    }
}

#[test]
fn the_demos_configuration_is_brought_up_as_by_drbdadm() {
    let Some(drbdadm) = drbdadm() else { return };
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../story/seed/drbd.conf");
    compare(
        &drbdadm,
        &seed.canonicalize().unwrap(),
        &["node1", "node2"],
        "seed",
    );
}

type Options = &'static [(&'static str, &'static [&'static str])];

const DISK: Options = &[
    ("size", &["1G", "2048", "100M"]),
    ("on-io-error", &["pass_on", "call-local-io-error", "detach"]),
    (
        "fencing",
        &["dont-care", "resource-only", "resource-and-stonith"],
    ),
    ("max-bio-bvecs", &["0", "1", "128"]),
    ("disk-barrier", &["", "yes", "no"]),
    ("no-disk-flushes", &[""]),
    ("disk-drain", &["yes", "no"]),
    ("no-md-flushes", &[""]),
    ("resync-rate", &["1", "200M", "10240K", "100"]),
    ("al-extents", &["67", "1237", "6007"]),
    ("al-updates", &["", "no"]),
    ("c-plan-ahead", &["0", "20", "300"]),
    ("c-delay-target", &["1", "100"]),
    ("c-fill-target", &["0", "24M", "2048s", "100"]),
    ("c-max-rate", &["4G", "102400", "100M"]),
    ("c-min-rate", &["0", "10M"]),
    ("disk-timeout", &["0", "6000"]),
    (
        "read-balancing",
        &["prefer-local", "round-robin", "1M-striping"],
    ),
    ("discard-zeroes-if-aligned", &["yes", "no"]),
    ("rs-discard-granularity", &["0", "1M", "65536"]),
    ("disable-write-same", &["", "no"]),
];

const NET: Options = &[
    ("protocol", &["A", "B", "C", "c"]),
    ("timeout", &["1", "60", "600"]),
    ("max-epoch-size", &["1", "8K"]),
    ("max-buffers", &["32", "8K", "131072"]),
    ("unplug-watermark", &["1", "128K"]),
    ("connect-int", &["1", "120"]),
    ("ping-int", &["10"]),
    ("ping-timeout", &["5", "300"]),
    ("sndbuf-size", &["0", "1M", "10M"]),
    ("rcvbuf-size", &["512K"]),
    ("ko-count", &["0", "200"]),
    ("allow-two-primaries", &["", "yes", "no"]),
    ("cram-hmac-alg", &["sha1", "\"sha256\""]),
    (
        "shared-secret",
        &["abc", "\"with.some+more=signs\"", "\"a\\\"b\\\\c\""],
    ),
    (
        "after-sb-0pri",
        &[
            "disconnect",
            "discard-zero-changes",
            "discard-least-changes",
        ],
    ),
    ("after-sb-1pri", &["consensus", "violently-as0p"]),
    ("after-sb-2pri", &["disconnect", "call-pri-lost-after-sb"]),
    ("always-asbp", &["", "no"]),
    ("rr-conflict", &["disconnect", "call-pri-lost", "violently"]),
    ("data-integrity-alg", &["md5"]),
    ("no-tcp-cork", &[""]),
    ("on-congestion", &["block", "pull-ahead"]),
    ("congestion-fill", &["0", "1G", "100k"]),
    ("congestion-extents", &["67", "65534"]),
    ("csums-alg", &["crc32c"]),
    ("verify-alg", &["sha1"]),
    ("use-rle", &["", "yes", "no"]),
    ("csums-after-crash-only", &["yes"]),
    ("socket-check-timeout", &["0", "300"]),
];

const RESOURCE: Options = &[
    ("cpu-mask", &["f", "0001"]),
    ("on-no-data-accessible", &["io-error", "suspend-io"]),
];

const STARTUP: Options = &[
    ("wfc-timeout", &["0", "15"]),
    ("degr-wfc-timeout", &["60"]),
    ("outdated-wfc-timeout", &["2"]),
    ("wait-after-sb", &["", "yes"]),
];

const HANDLERS: Options = &[
    (
        "fence-peer",
        &["/bin/true", "\"/usr/lib/drbd/x.sh -a; echo b\""],
    ),
    ("split-brain", &["\"notify root\""]),
    ("local-io-error", &["\"halt -f\""]),
];

const SYNCER: Options = &[
    ("rate", &["10M", "333"]),
    ("al-extents", &["257"]),
    ("verify-alg", &["sha1"]),
    ("use-rle", &["", "no"]),
    ("cpu-mask", &["3"]),
    ("c-plan-ahead", &["7"]),
];

/// Some options of a list, each at most once, with white space and comments in between.
fn options(r: &mut Random, list: Options, one_in: u64) -> String {
    let mut out = String::new();
    for (name, values) in list {
        if r.chance(one_in) {
            let value = r.pick(values);
            let gap = r.pick(&[" ", "\n\t", "  "]);
            let end = r.pick(&["", " ", " # it's {so}\n"]);
            let value = if value.is_empty() {
                String::new()
            } else {
                format!("{gap}{value}")
            };
            let semicolon = if end.contains('#') {
                format!(";{end}")
            } else {
                format!("{end};\n")
            };
            let _ = write!(out, "{name}{value}{semicolon}");
        }
    }
    out
}

fn section(r: &mut Random, name: &str, list: Options, out: &mut String) {
    if r.chance(2) {
        let _ = writeln!(out, "{name} {{ {} }}", options(r, list, 4));
    }
}

/// A configuration of a few resources on two nodes.
fn generated(seed: u64) -> String {
    let mut r = Random::new(seed);
    let mut out = String::from("global { usage-count no; disable-ip-verification; }\n");
    // The old section must not name what another one names: the order would decide.
    let syncer_common = r.chance(4);
    if r.chance(2) {
        out.push_str("common {\n");
        if syncer_common {
            let _ = writeln!(out, "syncer {{ {} }}", options(&mut r, SYNCER, 2));
        } else {
            section(&mut r, "disk", DISK, &mut out);
            section(&mut r, "net", NET, &mut out);
            section(&mut r, "options", RESOURCE, &mut out);
        }
        section(&mut r, "startup", STARTUP, &mut out);
        section(&mut r, "handlers", HANDLERS, &mut out);
        out.push_str("}\n");
    }
    let mut minor = [0u64, 0];
    for n in 0..1 + r.below(3) {
        if r.chance(6) {
            out.push_str("skip ignored { resource x { on } = }\n");
        }
        let _ = writeln!(out, "resource \"res-{n}.x\" {{");
        section(&mut r, "disk", DISK, &mut out);
        section(&mut r, "net", NET, &mut out);
        section(&mut r, "options", RESOURCE, &mut out);
        section(&mut r, "startup", STARTUP, &mut out);
        section(&mut r, "handlers", HANDLERS, &mut out);
        let explicit = r.chance(2);
        let volumes: Vec<u64> = if explicit {
            (0..1 + r.below(3)).map(|v| v * 3).collect()
        } else {
            vec![0]
        };
        // What is written once for both hosts, and what in each.
        let same_minor = minor[0] == minor[1] && r.chance(2);
        let shared_disk = r.chance(3);
        let meta = |r: &mut Random, v: u64| match r.below(4) {
            0 => format!("meta-disk /dev/meta{n}_{v};"),
            1 => format!("meta-disk /dev/meta[{}];", n * 10 + v),
            2 => format!("flexible-meta-disk /dev/flex{n}_{v};"),
            _ => "meta-disk internal;".into(),
        };
        let shared_meta = r.chance(3);
        let device = |r: &mut Random, m: u64| match r.below(4) {
            0 => format!("device /dev/drbd{m} minor {m};"),
            1 => format!("device minor {m};"),
            2 => format!("device /dev/drbd_{n}_{m} minor {m};"),
            _ => format!("device /dev/drbd{m};"),
        };
        let mut at_resource = BTreeMap::new();
        for (i, v) in volumes.iter().enumerate() {
            let mut items = String::new();
            if same_minor {
                items.push_str(&device(&mut r, minor[0] + i as u64));
            }
            if shared_disk {
                let _ = write!(items, " disk /dev/disk{n}_{v};");
            }
            if shared_meta {
                items.push_str(&meta(&mut r, *v));
            }
            at_resource.insert(*v, items);
        }
        for (v, items) in &at_resource {
            if items.is_empty() {
                continue;
            }
            let _ = match explicit {
                true => writeln!(out, "volume {v} {{ {items} }}"),
                false => writeln!(out, "{items}"),
            };
        }
        let ipv6 = r.chance(4);
        let floating = r.chance(6);
        for host in 0..2usize {
            let port = 7000 + n;
            let address = match ipv6 {
                true => format!("ipv6 [fd00::{}]:{port}", host + 1),
                false => format!("{}10.0.0.{}:{port}", r.pick(&["", "ipv4 "]), host + 1),
            };
            if floating && !ipv6 {
                let _ = writeln!(out, "floating {address} {{");
            } else {
                let names = ["alpha", "beta"][host];
                let more = if r.chance(4) {
                    format!(" {names}-b")
                } else {
                    String::new()
                };
                let _ = writeln!(out, "on {names}{more} {{ address {address};");
            }
            for (i, v) in volumes.iter().enumerate() {
                let mut items = String::new();
                if !same_minor {
                    items.push_str(&device(&mut r, minor[host] + i as u64));
                }
                if !shared_disk || r.chance(5) {
                    let _ = write!(items, " disk /dev/own{host}_{n}_{v};");
                }
                if !shared_meta {
                    items.push_str(&meta(&mut r, *v));
                }
                if explicit && r.chance(3) {
                    let _ = write!(items, " disk {{ {} }}", options(&mut r, DISK, 6));
                }
                let _ = match explicit {
                    true => writeln!(out, "volume {v} {{ {items} }}"),
                    false => writeln!(out, "{items}"),
                };
            }
            out.push_str("}\n");
        }
        minor[0] += volumes.len() as u64;
        minor[1] += volumes.len() as u64 + u64::from(!same_minor && r.chance(3));
        out.push_str("}\n");
    }
    out
}

#[test]
fn generated_configurations_are_brought_up_as_by_drbdadm() {
    let Some(drbdadm) = drbdadm() else { return };
    let cases: u64 = std::env::var("DRBD_CONF_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(300);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("drbd.conf");
    let mut steps = 0;
    for seed in 1..=cases {
        let text = generated(seed);
        fs::write(&file, &text).unwrap();
        // Floating hosts are known by their addresses; a node that has only some of the resources
        // is not what is compared here.
        let floating = text.contains("floating ");
        let named = text.contains("\non ");
        let nodes: &[&str] = match (floating, named) {
            (true, true) => continue,
            (true, false) => &["10.0.0.1", "10.0.0.2"],
            _ => &["alpha", "beta"],
        };
        compare(&drbdadm, &file, nodes, &format!("seed {seed}\n{text}"));
        steps += nodes.len();
    }
    assert!(steps as u64 > cases, "the generator lost its variety");
}
