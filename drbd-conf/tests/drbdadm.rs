//! Ours against `drbdadm` of 8.4: what it would run, what it dumps, and what it reads.
#![cfg(feature = "drbd-nl")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
#[path = "common/dumped.rs"]
mod dumped;
#[path = "common/plain.rs"]
mod plain;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::{HANDLERS, Options, PROXY, Random, STARTUP, options, proxy, section};
use drbd_nl::Dialect;
use dumped::Oracle;

fn drbdadm() -> Option<Oracle> {
    common::utils("DRBDADM84", "drbdadm-84").map(|program| Oracle {
        program,
        dialect: Dialect::V84,
    })
}

#[test]
fn the_demos_configuration_is_brought_up_as_by_drbdadm() {
    let Some(drbdadm) = drbdadm() else { return };
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../story/seed/drbd.conf");
    let nodes = ["node1", "node2"];
    let found = drbdadm.compare(&seed.canonicalize().unwrap(), &nodes);
    let steps = found.expect("taken").unwrap_or_else(|e| panic!("{e}"));
    assert!(steps > 10, "{steps}");
}

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

const SYNCER: Options = &[
    ("rate", &["10M", "333"]),
    ("al-extents", &["257"]),
    ("verify-alg", &["sha1"]),
    ("use-rle", &["", "no"]),
    ("cpu-mask", &["3"]),
    ("c-plan-ahead", &["7"]),
];

/// What the second resource has to do with the first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    None,
    Stacked,
    After,
}

/// What `common` and a resource have alike.
fn sections(r: &mut Random, syncer: bool, floating: bool, out: &mut String) {
    // The old section must not name what another one names: the order would decide.
    if syncer {
        let _ = writeln!(out, "syncer {{ {} }}", options(r, SYNCER, 2));
    } else {
        section(r, "disk", &[DISK], 4, out);
        section(r, "net", &[NET], 4, out);
        section(r, "options", &[RESOURCE], 4, out);
    }
    if r.chance(2) {
        let promoted = match floating {
            true => "",
            false => "become-primary-on alpha;",
        };
        let more = r.pick(&["", "stacked-timeouts;", promoted]);
        let _ = writeln!(out, "startup {{ {} {more} }}", options(r, STARTUP, 4));
    }
    section(r, "handlers", &[&HANDLERS[..12]], 4, out);
    if r.chance(4) {
        let plugin = r.pick(&["", "plugin { zlib level 9; lzma contexts 4; }"]);
        let _ = writeln!(out, "proxy {{ {} {plugin} }}", options(r, PROXY, 2));
    }
}

/// A configuration of a few resources on two nodes.
fn generated(r: &mut Random) -> String {
    let floating = r.chance(8);
    let mut out = String::from("global { usage-count no; disable-ip-verification;");
    out.push_str(r.pick(&[
        " }\n",
        "minor-count 5; }\n",
        "dialog-refresh 3; }\n",
        "cmd-timeout-short 7; cmd-timeout-medium 8; cmd-timeout-long 9; }\n",
    ]));
    if r.chance(2) {
        out.push_str("common {\n");
        let syncer = r.chance(2);
        sections(r, syncer, floating, &mut out);
        out.push_str("}\n");
    }
    // The first one is what the second is stacked on, or waits for.
    let relation = match r.below(10) {
        _ if floating => Relation::None,
        0 => Relation::Stacked,
        1 => Relation::After,
        _ => Relation::None,
    };
    let related = relation != Relation::None;
    let mut minor = [0u64, 0];
    let mut first = Vec::new();
    for n in 0..1 + u64::from(related) + r.below(3) {
        if r.chance(6) {
            out.push_str("skip ignored { resource x { on } = }\n");
        }
        let stacked = relation == Relation::Stacked && n == 1;
        let _ = writeln!(out, "resource \"res-{n}.x\" {{");
        sections(r, false, floating, &mut out);
        if relation == Relation::After && n == 1 {
            let after = match first[..] {
                [] => "res-0.x".to_owned(),
                [.., v] => format!("res-0.x/{v}"),
            };
            let _ = writeln!(out, "syncer {{ after {after}; }}");
        }
        let numbers: Vec<u64> = match r.chance(2) {
            _ if stacked => first.clone(),
            true => (0..1 + r.below(3)).map(|v| v * 3).collect(),
            false => Vec::new(),
        };
        if n == 0 {
            first.clone_from(&numbers);
        }
        let explicit = !numbers.is_empty();
        let volumes = if explicit { numbers } else { vec![0] };
        // What is written once for both hosts, and what in each.
        let same_minor = !stacked && minor[0] == minor[1] && (n == 0 && related || r.chance(2));
        let shared_disk = !stacked && r.chance(3);
        let shared_meta = !stacked && r.chance(3);
        let meta = |r: &mut Random, v: u64| match r.below(4) {
            0 => format!("meta-disk /dev/meta{n}_{v};"),
            1 => format!("meta-disk /dev/meta[{}];", n * 10 + v),
            2 => format!("flexible-meta-disk /dev/flex{n}_{v};"),
            _ => "meta-disk internal;".into(),
        };
        let device = |r: &mut Random, m: u64| match r.below(4) {
            0 => format!("device /dev/drbd{m} minor {m};"),
            1 => format!("device minor {m};"),
            2 => format!("device /dev/drbd_{n}_{m} minor {m};"),
            _ => format!("device /dev/drbd{m};"),
        };
        let volume = |v: u64, items: &str, out: &mut String| {
            let _ = match explicit {
                _ if items.is_empty() => Ok(()),
                true => writeln!(out, "volume {v} {{ {items} }}"),
                false => writeln!(out, "{items}"),
            };
        };
        for (i, v) in volumes.iter().enumerate() {
            let mut items = String::new();
            if same_minor {
                items.push_str(&device(r, minor[0] + i as u64));
            }
            if shared_disk {
                let _ = write!(items, " disk /dev/disk{n}_{v};");
            }
            if shared_meta {
                items.push_str(&meta(r, *v));
            }
            volume(*v, &items, &mut out);
        }
        let ipv6 = !floating && r.chance(4);
        let prefix = r.pick(&["fd00::", "fe80::"]);
        let scope = if prefix == "fe80::" { "%lo" } else { "" };
        let proxies = !floating && r.chance(6);
        for host in 0..2usize {
            let port = 7000 + n;
            let address = match ipv6 {
                true => format!("ipv6 [{prefix}{}{scope}]:{port}", host + 1),
                false => format!("{}10.0.0.{}:{port}", r.pick(&["", "ipv4 "]), host + 1),
            };
            let name = match (stacked, host) {
                (true, 1) => "gamma",
                _ => ["alpha", "beta"][host],
            };
            let below = stacked && host == 0;
            let more = match r.chance(4) {
                true => format!(" {name}-b"),
                false => String::new(),
            };
            let _ = match floating {
                true => writeln!(out, "floating {address} {{"),
                false if below => writeln!(out, "stacked-on-top-of res-0.x {{ address {address};"),
                false => writeln!(out, "on {name}{more} {{ address {address};"),
            };
            for (i, v) in volumes.iter().enumerate() {
                let mut items = String::new();
                if !same_minor {
                    items.push_str(&device(r, minor[host] + i as u64));
                }
                if !below && (!shared_disk || r.chance(5)) {
                    let _ = write!(items, " disk /dev/own{host}_{n}_{v};");
                }
                if !below && !shared_meta {
                    items.push_str(&meta(r, *v));
                }
                if explicit && !below && r.chance(3) {
                    let _ = write!(items, " disk {{ {} }}", options(r, DISK, 6));
                }
                volume(*v, &items, &mut out);
            }
            if proxies {
                let _ = writeln!(out, "{}", proxy(r, host + 1, port));
            }
            out.push_str("}\n");
        }
        minor[0] += volumes.len() as u64;
        minor[1] += volumes.len() as u64 + u64::from(!same_minor && r.chance(3));
        out.push_str("}\n");
    }
    out
}

fn compare_generated(first: u64, count: u64) {
    let Some(drbdadm) = drbdadm() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("drbd.conf");
    let (mut steps, mut stacked, mut after) = (0, 0, 0);
    for seed in first..first + count {
        let text = generated(&mut Random::new(seed));
        fs::write(&file, &text).unwrap();
        // Floating hosts are known by their addresses.
        let nodes: &[&str] = match text.contains("floating ") {
            true => &["10.0.0.1", "10.0.0.2"],
            false => &["alpha", "beta", "gamma"],
        };
        let found = drbdadm.compare(&file, nodes).expect("taken");
        steps += found.unwrap_or_else(|e| panic!("seed {seed}\n{text}\n{e}"));
        stacked += u64::from(text.contains("stacked-on"));
        after += u64::from(text.contains("after res-"));
    }
    println!("{count} configurations, {steps} steps, {stacked} stacked, {after} after another");
    let some = count / 20;
    assert!(steps as u64 > 10 * count && stacked > some && after > some);
}

#[test]
fn generated_configurations_are_dumped_and_brought_up_as_by_drbdadm() {
    compare_generated(1, common::cases(120));
}

#[test]
#[ignore = "deep: more of the same"]
fn deep_generated_configurations_are_dumped_and_brought_up_as_by_drbdadm() {
    compare_generated(1000, common::cases(3000));
}
