//! The whole grammar of 9: what we make of it against what `drbdadm` dumps and would do.
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
use drbd_conf::{Config, ErrorKind, NodeView, Step};
use drbd_nl::{Dialect, Operation};
use dumped::{CRASHED, Oracle, differs, views};

fn drbdadm() -> Option<Oracle> {
    common::utils("DRBDADM", "drbdadm").map(|program| Oracle {
        program,
        dialect: Dialect::V9,
    })
}

#[test]
fn the_demos_configuration_is_dumped_as_by_drbdadm() {
    let Some(drbdadm) = drbdadm() else { return };
    // drbdadm of 9 refuses the old section of the post.
    let dir = tempfile::tempdir().unwrap();
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../story/seed");
    fs::create_dir(dir.path().join("drbd.d")).unwrap();
    let file = dir.path().join("drbd.conf");
    fs::copy(seed.join("drbd.conf"), &file).unwrap();
    let common = fs::read_to_string(seed.join("drbd.d/global_common.conf")).unwrap();
    let common = common
        .replace("syncer", "disk")
        .replace("rate 200M", "resync-rate 200M");
    let (before, after) = common.split_once("disk {").unwrap();
    let common = format!("{before}{}", after.split_once('}').unwrap().1);
    fs::write(dir.path().join("drbd.d/global_common.conf"), common).unwrap();
    let found = drbdadm.compare(&file, &["node1", "node2"]);
    let steps = found
        .expect("not ambiguous")
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(steps > 10, "{steps}");
}

const DISK: Options = &[
    ("size", &["1G", "2048"]),
    ("on-io-error", &["pass_on", "call-local-io-error", "detach"]),
    ("disk-barrier", &["", "yes", "no"]),
    ("no-disk-flushes", &[""]),
    ("disk-drain", &["yes", "no"]),
    ("no-md-flushes", &[""]),
    ("al-extents", &["67", "1237"]),
    ("al-updates", &["", "no"]),
    ("disk-timeout", &["0", "6000"]),
    ("read-balancing", &["prefer-local", "1M-striping"]),
    ("discard-zeroes-if-aligned", &["yes", "no"]),
    ("rs-discard-granularity", &["0", "65536"]),
    ("disable-write-same", &["", "no"]),
];

const PEER_DEVICE: Options = &[
    ("resync-rate", &["1", "200M", "10240K"]),
    ("c-plan-ahead", &["0", "20"]),
    ("c-delay-target", &["1", "100"]),
    ("c-fill-target", &["24M", "2048s", "100"]),
    ("c-max-rate", &["4G", "102400"]),
    ("c-min-rate", &["0", "10M"]),
    ("bitmap", &["no", "yes"]),
];

const NET: Options = &[
    ("protocol", &["A", "B", "C", "c"]),
    ("timeout", &["1", "600"]),
    ("max-epoch-size", &["1", "8K"]),
    ("max-buffers", &["32", "8K"]),
    ("connect-int", &["1", "120"]),
    ("ping-int", &["10"]),
    ("ping-timeout", &["5", "300"]),
    ("sndbuf-size", &["0", "1M"]),
    ("rcvbuf-size", &["512K"]),
    ("ko-count", &["0", "200"]),
    ("allow-two-primaries", &["", "yes", "no"]),
    ("cram-hmac-alg", &["sha1", "\"sha256\""]),
    ("shared-secret", &["abc", "\"a b<c&d\"", "\"a\\\"b\\\\c\""]),
    ("after-sb-0pri", &["disconnect", "discard-least-changes"]),
    ("after-sb-1pri", &["consensus", "violently-as0p"]),
    ("after-sb-2pri", &["disconnect", "call-pri-lost-after-sb"]),
    ("always-asbp", &["", "no"]),
    (
        "rr-conflict",
        &["disconnect", "retry-connect", "auto-discard"],
    ),
    ("data-integrity-alg", &["md5"]),
    ("no-tcp-cork", &[""]),
    ("on-congestion", &["block", "pull-ahead"]),
    ("congestion-fill", &["0", "100k"]),
    ("congestion-extents", &["67", "65534"]),
    ("csums-alg", &["crc32c"]),
    ("verify-alg", &["sha1"]),
    ("use-rle", &["", "no"]),
    ("csums-after-crash-only", &["yes"]),
    ("socket-check-timeout", &["0", "300"]),
    ("fencing", &["resource-only", "resource-and-stonith"]),
    ("transport", &["tcp", "\"lb-tcp\""]),
    ("allow-remote-read", &["no"]),
];

const RESOURCE: Options = &[
    ("cpu-mask", &["f", "0001"]),
    ("on-no-data-accessible", &["io-error", "suspend-io"]),
    ("auto-promote", &["", "no"]),
    ("auto-promote-timeout", &["20"]),
    ("peer-ack-window", &["2048s", "1M"]),
    ("peer-ack-delay", &["100"]),
    ("twopc-timeout", &["50"]),
    ("twopc-retry-timeout", &["3"]),
    ("max-io-depth", &["4000"]),
    ("quorum", &["off", "majority", "all", "2"]),
    ("on-no-quorum", &["io-error", "suspend-io"]),
    ("quorum-minimum-redundancy", &["off", "1"]),
    (
        "on-suspended-primary-outdated",
        &["force-secondary", "disconnect"],
    ),
];

/// What `common`, a template and a resource have alike.
fn sections(r: &mut Random, plugins: bool, out: &mut String) {
    section(r, "options", &[RESOURCE], 6, out);
    section(r, "net", &[NET], 8, out);
    if r.chance(3) {
        // drbdadm loses "stacked-timeouts" where nothing is beside it.
        let more = r.pick(&[
            "",
            "wfc-timeout 9; stacked-timeouts;",
            "become-primary-on both;",
        ]);
        let _ = writeln!(out, "startup {{ {} {more} }}", options(r, &STARTUP[1..], 2));
    }
    section(r, "handlers", &[HANDLERS], 5, out);
    if r.chance(4) {
        let plugin = match plugins && r.chance(2) {
            true => "plugin { zlib level 9; lzma contexts 4; }",
            false => "",
        };
        let _ = writeln!(out, "proxy {{ {} {plugin} }}", options(r, PROXY, 2));
    }
}

fn disk(r: &mut Random, out: &mut String) {
    section(r, "disk", &[DISK, PEER_DEVICE], 8, out);
}

/// What a resource has to do with others.
enum Kind {
    Any,
    /// Others can be stacked on it or wait for it: on two named hosts, from this one on, with these
    /// volumes if it matters.
    Lower(usize, Option<Vec<u64>>),
    /// Stacked on these, which have these volumes; none if theirs has no number.
    StackedOn(Vec<u64>, Vec<u64>),
    /// Synchronised after this one, or after its volume of this number.
    After(u64, Option<u64>),
}

const NODES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

/// Volumes, at the resource or in each host: what is written in front, and what in a host.
struct Volumes {
    numbers: Vec<u64>,
    minor: u64,
    in_hosts: bool,
    implicit: bool,
}

impl Volumes {
    fn new(r: &mut Random, minor: &mut u64, kind: &Kind) -> Volumes {
        let numbers: Vec<u64> = match kind {
            Kind::StackedOn(_, numbers) | Kind::Lower(_, Some(numbers)) => numbers.clone(),
            _ if r.chance(3) => Vec::new(),
            _ => (0..1 + r.below(3)).map(|v| v * 2 + r.below(2)).collect(),
        };
        let implicit = numbers.is_empty();
        let numbers = if implicit { vec![0] } else { numbers };
        let first = *minor;
        *minor += numbers.len() as u64;
        // The device of what others are stacked on is the same on each host; else drbdadm would take
        // that of the last one on each.
        let in_hosts = !matches!(kind, Kind::Lower(..)) && r.chance(2);
        Volumes {
            numbers,
            minor: first,
            in_hosts,
            implicit,
        }
    }

    fn text(&self, r: &mut Random, resource: u64, device_only: bool, out: &mut String) {
        for (i, n) in self.numbers.iter().enumerate() {
            let minor = self.minor + i as u64;
            let mut items = match r.below(4) {
                0 => format!("device /dev/drbd{minor} minor {minor};"),
                1 => format!("device minor {minor};"),
                2 => format!("device /dev/drbd_{resource}_{n} minor {minor};"),
                _ => format!("device /dev/drbd{minor};"),
            };
            if !device_only {
                let _ = write!(items, " disk /dev/vg/{resource}_{n};");
                let meta = match r.below(5) {
                    0 => format!(" meta-disk /dev/meta{resource}_{n};"),
                    1 => format!(" meta-disk /dev/meta[{}];", resource * 10 + n),
                    2 => format!(" flexible-meta-disk /dev/flex{resource}_{n};"),
                    3 => String::new(),
                    _ => " meta-disk internal;".into(),
                };
                items.push_str(&meta);
            }
            if !self.implicit && r.chance(4) {
                let _ = write!(items, " disk {{ {} }}", options(r, DISK, 6));
            }
            let _ = match self.implicit {
                true => writeln!(out, "{items}"),
                false => writeln!(out, "volume {n} {{ {items} }}"),
            };
        }
    }
}

/// A resource of one of the kinds the grammar has; tells which volumes it has if they have numbers.
fn resource(r: &mut Random, n: u64, minor: &mut u64, kind: &Kind, out: &mut String) -> Vec<u64> {
    let _ = writeln!(out, "resource \"res-{n}.x\" {{");
    if r.chance(6) {
        let _ = writeln!(out, "template-file \"template{}\";", r.below(2));
    }
    sections(r, true, out);
    let volumes = Volumes::new(r, minor, kind);
    let port = 7000 + n;
    if let Kind::StackedOn(lower, _) = kind {
        disk(r, out);
        for (i, l) in lower.iter().enumerate() {
            let _ = writeln!(
                out,
                "stacked-on-top-of res-{l}.x {{ address 10.0.1.{i}:{port};"
            );
            volumes.text(r, n, true, out);
            out.push_str("}\n");
        }
        if lower.len() == 1 {
            let _ = writeln!(out, "on delta {{ address 198.51.100.4:{port};");
            volumes.text(r, n, false, out);
            out.push_str("}\n");
        }
        out.push_str("}\n");
        return Vec::new();
    }
    let first = match kind {
        Kind::Lower(first, _) => *first,
        _ => 0,
    };
    let any = matches!(kind, Kind::Any);
    let floating = any && r.chance(6);
    let count = match any && !floating {
        true => [2, 2, 3, 4][r.below(4) as usize],
        false => 2,
    };
    let ids = count > 2 || r.chance(2);
    let explicit = count > 2 || r.chance(3);
    let mesh = explicit && r.chance(2) && !floating;
    let ipv6 = r.chance(4);
    // What is link-local has to say where.
    let (prefix, scope) = match r.chance(2) {
        true => ("fe80", "%lo"),
        false => ("2001:db8:7", ""),
    };
    let old_proxy = !explicit && !floating && r.chance(5);
    if !volumes.in_hosts {
        volumes.text(r, n, false, out);
    }
    let nodes = &NODES[first..first + count];
    match kind {
        Kind::After(other, volume) => {
            let volume = volume.map(|v| format!("/{v}")).unwrap_or_default();
            let _ = writeln!(out, "disk {{ resync-after res-{other}.x{volume}; }}");
        }
        _ => disk(r, out),
    }
    let address = |host: usize| match ipv6 {
        true => format!("ipv6 [{}::{}{}]:{port}", prefix, host + 1, scope),
        false => format!("198.51.100.{}:{port}", host + 1),
    };
    for (host, name) in nodes.iter().enumerate() {
        let _ = match floating {
            true => writeln!(out, "floating {} {{", address(host)),
            false => {
                let more = if r.chance(6) {
                    format!(" {name}-b")
                } else {
                    String::new()
                };
                writeln!(out, "on {name}{more} {{ address {};", address(host))
            }
        };
        if ids || explicit && !mesh {
            let _ = writeln!(out, "node-id {};", host * 3);
        }
        if r.chance(5) {
            let _ = writeln!(out, "options {{ {} }}", options(r, RESOURCE, 5));
        }
        if volumes.in_hosts {
            volumes.text(r, n, false, out);
        } else if !volumes.implicit && host == 2 && r.chance(2) {
            for v in &volumes.numbers {
                let _ = writeln!(out, "volume {v} {{ disk none; }}");
            }
        }
        if old_proxy {
            let proxy = proxy(r, host + 1, port);
            let _ = writeln!(out, "{proxy}");
        }
        out.push_str("}\n");
    }
    if mesh {
        let net = if r.chance(2) {
            format!("net {{ {} }}", options(r, NET, 10))
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "connection-mesh {{ hosts {}; {net} }}",
            nodes.join(" ")
        );
    } else if explicit {
        for a in 0..count {
            for b in a + 1..count {
                let ends = [(nodes[a], a), (nodes[b], b)];
                connection(r, ends, port, &address, floating, &volumes, out);
            }
        }
    }
    out.push_str("}\n");
    match volumes.implicit {
        true => Vec::new(),
        false => volumes.numbers,
    }
}

fn connection(
    r: &mut Random,
    ends: [(&str, usize); 2],
    port: u64,
    address: &dyn Fn(usize) -> String,
    floating: bool,
    volumes: &Volumes,
    out: &mut String,
) {
    out.push_str("connection {\n");
    let proxies = r.chance(6);
    let end = |r: &mut Random, (name, host): (&str, usize), path: u64| {
        if floating {
            return format!("address {};", address(host));
        }
        let mut line = format!("host {name}");
        let _ = match (path, r.below(3)) {
            (0, 0) => Ok(()),
            (0, 1) => write!(line, " port {}", port + 1000),
            _ => write!(line, " address ipv4 10.{}.0.{}:{port}", path + 1, host + 1),
        };
        match proxies {
            true => format!("{line} via {}", proxy(r, host + 1, port + 100 * path)),
            false => line + ";",
        }
    };
    let paths = if floating { 0 } else { r.below(3) };
    if paths == 0 {
        for host in ends {
            let _ = writeln!(out, "{}", end(r, host, 0));
        }
    }
    for path in 0..paths {
        let [a, b] = ends.map(|host| end(r, host, path));
        let _ = writeln!(out, "path {{ {a} {b} }}");
    }
    section(r, "net", &[NET], 10, out);
    section(r, "disk", &[PEER_DEVICE], 5, out);
    if r.chance(3) {
        let volume = volumes.numbers[0];
        let _ = writeln!(
            out,
            "volume {volume} {{ disk {{ {} }} }}",
            options(r, PEER_DEVICE, 3)
        );
    }
    out.push_str("}\n");
}

/// A configuration of up to four resources on up to four nodes.
fn generated(r: &mut Random) -> String {
    let mut out = String::from("global { usage-count no; disable-ip-verification;");
    out.push_str(r.pick(&[
        " ",
        "minor-count 5; ",
        "dialog-refresh 3; udev-always-use-vnr; ",
    ]));
    out.push_str("}\n");
    if r.chance(2) {
        out.push_str("common {\n");
        sections(r, false, &mut out);
        disk(r, &mut out);
        out.push_str("}\n");
    }
    let (mut minor, mut n) = (0, 0);
    let mut one = |r: &mut Random, kind: &Kind| {
        if r.chance(6) {
            out.push_str("skip resource x { on { } \"}\" }\n");
        }
        n += 1;
        resource(r, n - 1, &mut minor, kind, &mut out)
    };
    let more = match r.below(10) {
        0 => {
            let numbers = one(r, &Kind::Lower(0, None));
            one(r, &Kind::StackedOn(vec![0], numbers));
            r.below(2)
        }
        1 => {
            // Both ends are stacked.
            let numbers = one(r, &Kind::Lower(0, None));
            one(r, &Kind::Lower(2, Some(numbers.clone())));
            one(r, &Kind::StackedOn(vec![0, 1], numbers));
            0
        }
        2 => {
            let mut numbers = one(r, &Kind::Lower(0, None));
            let volume = numbers.pop();
            one(r, &Kind::After(0, volume));
            r.below(2)
        }
        _ => 1 + r.below(4),
    };
    for _ in 0..more {
        one(r, &Kind::Any);
    }
    out
}

fn compare_generated(first: u64, count: u64) {
    let Some(drbdadm) = drbdadm() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("drbd.conf");
    let (mut steps, mut refused, mut stacked, mut after) = (0, 0, 0, 0);
    for seed in first..first + count {
        let r = &mut Random::new(seed);
        for name in ["template0", "template1"] {
            let mut text = String::from("common {\n");
            sections(r, false, &mut text);
            disk(r, &mut text);
            fs::write(dir.path().join(name), text + "}\n").unwrap();
        }
        let text = generated(r);
        fs::write(&file, &text).unwrap();
        let nodes: &[&str] = match text.contains("floating ") {
            true => &["alpha", "198.51.100.1", "gamma"],
            false => &NODES,
        };
        match drbdadm.compare(&file, nodes) {
            Some(found) => steps += found.unwrap_or_else(|e| panic!("seed {seed}\n{text}\n{e}")),
            None => refused += 1,
        }
        stacked += u64::from(text.contains("stacked-on"));
        after += u64::from(text.contains("resync-after"));
    }
    println!(
        "{count} configurations, {steps} steps, {refused} ambiguous, {stacked} stacked, {after} after another"
    );
    let some = count / 20;
    assert!(
        stacked > some && after > some,
        "the generator lost its variety"
    );
    assert!(steps as u64 > 20 * count && refused < count / 3);
}

#[test]
fn generated_configurations_are_dumped_and_brought_up_as_by_drbdadm() {
    compare_generated(1, common::cases(120));
}

/// A step in the words of drbdadm's dry run.
fn verb(step: &Step) -> String {
    let of = |d: &drbd_nl::PeerDeviceRef| {
        format!("{} {} {}", d.resource, d.peer_node_id.unwrap(), d.volume)
    };
    let to = |c: &drbd_nl::ConnectionRef| format!("{} {}", c.resource, c.peer_node_id.unwrap());
    let Step::Drbd(operation) = step else {
        return "apply-al".into();
    };
    match operation {
        Operation::Primary { resource } => format!("primary {resource}"),
        Operation::Secondary { resource } => format!("secondary {resource}"),
        Operation::Down { resource } => format!("down {resource}"),
        Operation::Invalidate { minor, .. } => format!("invalidate {minor}"),
        Operation::Outdate { minor } => format!("outdate {minor}"),
        Operation::SuspendIo { minor, .. } => format!("suspend-io {minor}"),
        Operation::ResumeIo { minor } => format!("resume-io {minor}"),
        Operation::Resize { minor, options } => {
            let size = options.size.map(|s| format!(" {s}")).unwrap_or_default();
            format!("resize {minor}{size}")
        }
        Operation::NewCurrentUuid { minor, .. } => format!("new-current-uuid {minor}"),
        Operation::Detach { minor } => format!("detach {minor}"),
        Operation::Attach { minor, .. } => format!("attach {minor}"),
        Operation::Verify { peer_device, .. } => format!("verify {}", of(peer_device)),
        Operation::InvalidatePeer { peer_device, .. } => {
            format!("invalidate-remote {}", of(peer_device))
        }
        Operation::PauseSync { peer_device } => format!("pause-sync {}", of(peer_device)),
        Operation::ResumeSync { peer_device } => format!("resume-sync {}", of(peer_device)),
        Operation::Disconnect { connection } => format!("disconnect {}", to(connection)),
        Operation::Connect { connection, .. } => format!("connect {}", to(connection)),
        other => panic!("{other}"),
    }
}

/// A line of drbdadm's dry run; none for what it does if there is no kernel object.
fn of_dry_run(line: &str) -> Option<String> {
    let words = common::words_of(line);
    if words[0].ends_with("drbdmeta") {
        return line.ends_with(" apply-al").then(|| "apply-al".into());
    }
    let size = words.iter().find_map(|w| w.strip_prefix("--size="));
    let plain: Vec<_> = words
        .iter()
        .skip(1)
        .filter(|w| !w.starts_with("--"))
        .collect();
    let mut text = match plain[0].as_str() {
        "check-resize" => return None,
        "attach" => format!("attach {}", plain[1]),
        // With the resource, though it is about the minor.
        "outdate" => format!("outdate {}", plain[2]),
        _ => plain
            .iter()
            .map(|w| w.as_str())
            .collect::<Vec<_>>()
            .join(" "),
    };
    if let Some(size) = size.filter(|_| plain[0] == "resize") {
        let mut parsed = drbd_nl::DiskOptions::default();
        parsed.set("size", size).unwrap();
        let _ = write!(text, " {}", parsed.size.unwrap());
    }
    Some(text)
}

#[test]
fn verbs_are_those_of_drbdadm() {
    type Verb = (&'static str, fn(&NodeView) -> drbd_conf::Result<Vec<Step>>);
    const V9: Dialect = Dialect::V9;
    let verbs: &[Verb] = &[
        ("down", NodeView::down),
        ("primary", NodeView::primary),
        ("secondary", NodeView::secondary),
        ("invalidate", |v| Ok(v.invalidate())),
        ("invalidate-remote", |v| v.invalidate_remote(V9)),
        ("outdate", |v| Ok(v.outdate())),
        ("verify", |v| v.verify(V9)),
        ("pause-sync", |v| v.pause_sync(V9)),
        ("resume-sync", |v| v.resume_sync(V9)),
        ("suspend-io", |v| Ok(v.suspend_io())),
        ("resume-io", |v| Ok(v.resume_io())),
        ("resize", |v| v.resize(V9)),
        ("attach", |v| v.attach(V9)),
        ("detach", |v| Ok(v.detach())),
        ("disconnect", |v| v.disconnect(V9)),
        ("connect", |v| v.reconnect(V9)),
    ];
    let Some(drbdadm) = drbdadm() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("drbd.conf");
    let (mut configurations, mut steps) = (0, 0);
    for seed in 1.. {
        let r = &mut Random::new(seed);
        let text = generated(r);
        // Templates and what is stacked or floating change nothing here.
        let other = [
            "template",
            "stacked-on",
            "floating",
            "via proxy",
            "proxy on",
        ];
        if other.iter().any(|o| text.contains(o)) {
            continue;
        }
        fs::write(&file, &text).unwrap();
        if drbdadm.run(&file, "alpha", &["down", "all"]).is_err() {
            continue;
        }
        let config = Config::load(&file).unwrap();
        for node in ["alpha", "gamma"] {
            let views = views(&config, node, false).unwrap();
            for (name, ours) in verbs.iter().filter(|_| !views.is_empty()) {
                let theirs = drbdadm.run(&file, node, &[name, "all"]);
                // Without a disk it refuses some, or dies.
                if let Err(said) = &theirs
                    && (said.contains("requires a local disk") || said == CRASHED)
                {
                    continue;
                }
                let theirs = theirs.unwrap_or_else(|e| panic!("seed {seed}\n{text}\n{name}: {e}"));
                let mut theirs: Vec<_> = theirs.lines().filter_map(of_dry_run).collect();
                let mut found: Vec<_> = views
                    .iter()
                    .flat_map(|v| ours(v).unwrap())
                    .map(|s| verb(&s))
                    .collect();
                // In which order several resources and volumes are taken is no matter of a verb.
                found.sort();
                theirs.sort();
                if let Some(differs) = differs(&found, &theirs) {
                    panic!("seed {seed}\n{text}\n{name} on {node}: {differs}");
                }
                steps += found.len();
            }
        }
        configurations += 1;
        if configurations == 8 {
            break;
        }
    }
    assert!(steps > 300, "{steps}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let text = |more: &str, interface: &str| {
        format!(
            "resource r0 {{ device /dev/drbd0; disk /dev/vdb; {more} \
             on alpha {{ node-id 0; address ipv6 [fe80::1%{interface}]:7788; }} \
             on beta {{ node-id 1; address ipv6 [fe80::2%{interface}]:7788; }} }}"
        )
    };
    let parse =
        |more: &str, interface: &str| Config::parse(&text(more, interface), "r0.res").unwrap();
    let view = |c: &Config| c.require("r0").unwrap().for_node("alpha").unwrap();
    for known in ["lo", "1"] {
        assert!(view(&parse("", known)).up(Dialect::V9).is_ok());
    }
    let error = view(&parse("", "nosuch0")).up(Dialect::V9).unwrap_err();
    assert!(error.to_string().contains("nosuch0"), "{error}");
    assert!(parse("", "lo").dump_84().is_ok());
    let error = parse("connection { host alpha; host beta; }", "lo").dump_84();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);

    let proxy = |n| format!("via proxy on p{n} {{ inside 10.8.0.{n}:7; outside 10.9.0.{n}:7; }}");
    let path = |p| {
        let address = |n| format!("address 10.{p}.0.{n}:7788");
        let end = |host, n| format!("host {host} {} {}", address(n), proxy(n));
        format!("path {{ {} {} }}", end("alpha", 1), end("beta", 2))
    };
    let one = parse(&format!("connection {{ {} }}", path(1)), "lo");
    let warned = |c: &Config| c.warnings().iter().any(|w| w.code == "proxy");
    assert!(warned(&one) && !warned(&parse("", "lo")));
    assert_eq!(view(&one).proxy_up("p1").unwrap().len(), 1);
    assert!(view(&one).proxy_up("p2").unwrap().is_empty());
    let two = parse(&format!("connection {{ {} {} }}", path(1), path(2)), "lo");
    let error = view(&two).proxy_up("p1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
#[ignore = "deep: more of the same"]
fn deep_generated_configurations_are_dumped_and_brought_up_as_by_drbdadm() {
    compare_generated(1000, common::cases(3000));
}
