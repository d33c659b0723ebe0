//! Adjusting: ours against `drbdadm -d adjust` of 8.4 and 9, operation by operation.
//!
//! What runs is told to drbdadm in the words of `drbdsetup show`, by a stand-in for it, and to us as
//! the same values.
#![cfg(feature = "drbd-nl")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
#[path = "common/plain.rs"]
mod plain;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use common::Random;
use drbd_conf::{Config, NodeView, Running, RunningConnection, RunningVolume, Step};
use drbd_nl::{
    Dialect, DiskOptions, MetaDisk, NetOptions, Operation, PeerDeviceOptions, ResourceOptions,
};
use plain::{Plain, ours, theirs};

/// What runs after the steps that bring a resource up, for us and in drbdsetup's words.
fn running(view: &NodeView, dialect: Dialect) -> (Running, String) {
    let mut run = Running::default();
    let mut text = format!("resource \"{}\" {{\n", view.resource);
    let secret = |net: &drbd_conf::Settings| {
        net.get("shared-secret")
            .map(|s| format!("shared-secret \"{}\"; ", s.raw()))
            .unwrap_or_default()
    };
    macro_rules! shown {
        ($type:ty, $options:expr, $not:expr) => {{
            let mut t = String::new();
            for info in <$type>::INFO {
                if let Some(value) = $options.get(info.name)
                    && !$not.contains(&info.name)
                {
                    let unit = if info.name == "size" { "s" } else { "" };
                    let quoted = match info.name {
                        "cram-hmac-alg" | "verify-alg" | "cpu-mask" => format!("\"{value}\""),
                        _ => format!("{value}{unit}"),
                    };
                    let _ = write!(t, "{} {quoted}; ", info.name);
                }
            }
            t
        }};
    }
    let steps = view.up(dialect).unwrap();
    let operations = steps.into_iter().filter_map(|s| match s {
        Step::Drbd(o) => Some(o),
        _ => None,
    });
    let mut minors = Vec::new();
    for o in operations {
        match o {
            Operation::NewResource { options, .. } => {
                let _ = writeln!(
                    text,
                    "options {{ {} }}",
                    shown!(ResourceOptions, options, [""])
                );
                run.options = options;
            }
            Operation::NewMinor {
                volume,
                minor,
                options,
                ..
            } => {
                minors.push((volume.0, minor.0, options.diskless == Some(true)));
                run.volumes.push(RunningVolume::new(volume.0, minor.0));
            }
            Operation::Attach {
                minor,
                backing_dev,
                meta_disk,
                options,
            } => {
                let v = run.volumes.iter_mut().find(|v| v.minor == minor.0).unwrap();
                v.disk = Some((backing_dev, meta_disk, options));
            }
            Operation::NewPeer {
                peer_node_id,
                options,
                ..
            } => {
                let mut c = RunningConnection::default();
                c.peer_node_id = Some(peer_node_id.0);
                c.options = options;
                c.peer_devices = minors
                    .iter()
                    .map(|(v, _, _)| (*v, PeerDeviceOptions::default()))
                    .collect();
                run.connections.push(c);
            }
            Operation::NewPath {
                peer_node_id,
                addresses,
                ..
            } => {
                let c = run.connections.iter_mut();
                let mut of = c.filter(|c| c.peer_node_id == Some(peer_node_id.0));
                of.next().unwrap().paths.push(addresses);
            }
            Operation::ChangePeerDeviceOptions {
                peer_node_id,
                volume,
                options,
                ..
            } => {
                let c = run.connections.iter_mut();
                let mut of = c.filter(|c| c.peer_node_id == Some(peer_node_id.0));
                let devices = &mut of.next().unwrap().peer_devices;
                devices.iter_mut().find(|(v, _)| *v == volume.0).unwrap().1 = options;
            }
            Operation::Connect {
                connection,
                options,
                ..
            } if dialect == Dialect::V84 => {
                let mut c = RunningConnection::default();
                c.paths = vec![connection.addresses.unwrap()];
                c.options = options;
                run.connections.push(c);
            }
            _ => {}
        }
    }
    let address = |a: &drbd_nl::Address| a.to_string().replacen(':', " ", 1);
    text.push_str("_this_host {\n");
    if dialect == Dialect::V9 {
        let _ = writeln!(text, "node-id {};", view.node_id.unwrap());
    }
    for v in &run.volumes {
        let _ = writeln!(text, "volume {} {{ device minor {};", v.number, v.minor);
        if let Some((disk, meta, options)) = &v.disk {
            let _ = writeln!(text, "disk \"{}\";", disk.display());
            let _ = match meta {
                MetaDisk::Internal => writeln!(text, "meta-disk internal;"),
                MetaDisk::Flexible(p) if dialect == Dialect::V84 => {
                    writeln!(text, "flexible-meta-disk \"{}\";", p.display())
                }
                MetaDisk::Flexible(p) => writeln!(text, "meta-disk \"{}\";", p.display()),
                MetaDisk::Indexed(p, i) => {
                    writeln!(text, "meta-disk \"{}\" [ {i} ];", p.display())
                }
                other => panic!("{other:?}"),
            };
            let _ = writeln!(text, "disk {{ {} }}", shown!(DiskOptions, options, [""]));
        } else if minors
            .iter()
            .any(|(n, _, diskless)| *n == v.number && *diskless)
        {
            text.push_str("disk none;\n");
        }
        text.push_str("}\n");
    }
    if dialect == Dialect::V84 {
        for c in &run.connections {
            let _ = writeln!(text, "address {};", address(&c.paths[0].local));
        }
        text.push_str("}\n");
        for (c, peer) in run.connections.iter().zip(&view.peers) {
            let _ = writeln!(
                text,
                "_remote_host {{ address {}; }}",
                address(&c.paths[0].remote)
            );
            let options = shown!(NetOptions, c.options, ["shared-secret"]);
            let _ = writeln!(text, "net {{ {options}{} }}", secret(&peer.net));
        }
    } else {
        text.push_str("}\n");
        for (c, peer) in run.connections.iter().zip(&view.peers) {
            let _ = writeln!(
                text,
                "connection {{ _peer_node_id {};",
                c.peer_node_id.unwrap()
            );
            for p in &c.paths {
                let (local, remote) = (address(&p.local), address(&p.remote));
                let _ = writeln!(
                    text,
                    "path {{ _this_host {local}; _remote_host {remote}; }}"
                );
            }
            let options = shown!(NetOptions, c.options, ["shared-secret"]);
            let _ = writeln!(
                text,
                "net {{ {options}{} _name \"{}\"; }}",
                secret(&peer.net),
                peer.name
            );
            for (volume, options) in &c.peer_devices {
                let options = shown!(PeerDeviceOptions, options, [""]);
                let _ = writeln!(text, "volume {volume} {{ disk {{ {options} }} }}");
            }
            text.push_str("}\n");
        }
    }
    text.push_str("}\n");
    (run, text)
}

/// Values that are what `base` says, but for some that `variation` chooses anew.
struct Choice {
    base: Random,
    variation: Option<Random>,
}

impl Choice {
    fn new(seed: u64, variation: Option<u64>) -> Choice {
        Choice {
            base: Random::new(seed),
            variation: variation.map(|v| Random::new(seed.wrapping_mul(7919) + v)),
        }
    }
    fn below(&mut self, n: u64) -> u64 {
        let chosen = self.base.below(n);
        let Some(v) = &mut self.variation else {
            return chosen;
        };
        if v.chance(9) { v.below(n) } else { chosen }
    }
    fn some(&mut self, name: &str, values: &[&str], out: &mut String) {
        // Absent as often as each of the values.
        let which = self.below(values.len() as u64 + 2) as usize;
        if let Some(value) = values.get(which) {
            let _ = write!(out, "{name} {value}; ");
        }
    }
}

fn disk_options(c: &mut Choice, v9: bool, size: bool) -> String {
    let mut o = String::new();
    if size {
        c.some("size", &["1G", "2097152s", "100M"], &mut o);
    }
    c.some(
        "on-io-error",
        &["pass_on", "detach", "call-local-io-error"],
        &mut o,
    );
    c.some("al-extents", &["1237", "257", "6007"], &mut o);
    c.some("disk-flushes", &["yes", "no"], &mut o);
    c.some("disk-timeout", &["0", "50"], &mut o);
    c.some("resync-rate", &["250", "10M", "10240k"], &mut o);
    c.some("c-fill-target", &["100", "1M", "2048s"], &mut o);
    c.some("c-max-rate", &["100M", "4G"], &mut o);
    if !v9 {
        c.some("fencing", &["resource-only", "dont-care"], &mut o);
        // Not the default: drbdadm takes it for a change, again and again.
        c.some("max-bio-bvecs", &["1", "2"], &mut o);
    }
    o
}

fn net_options(c: &mut Choice, v9: bool) -> String {
    let mut o = String::new();
    c.some("protocol", &["A", "B", "C"], &mut o);
    c.some("timeout", &["60", "50"], &mut o);
    c.some("max-buffers", &["2048", "8000", "8K"], &mut o);
    c.some("cram-hmac-alg", &["sha1", "sha256"], &mut o);
    c.some("shared-secret", &["one", "two"], &mut o);
    c.some(
        "after-sb-0pri",
        &["disconnect", "discard-zero-changes"],
        &mut o,
    );
    c.some("allow-two-primaries", &["yes", "no"], &mut o);
    c.some("congestion-fill", &["0", "1G", "100k"], &mut o);
    if v9 {
        c.some("fencing", &["resource-only", "dont-care"], &mut o);
        c.some("ko-count", &["7", "3"], &mut o);
    }
    o
}

/// One resource on two nodes, or on three in DRBD 9.
fn generated(seed: u64, variation: Option<u64>, v9: bool) -> String {
    let c = &mut Choice::new(seed, variation);
    let mut out = String::from("global { usage-count no; disable-ip-verification; }\n");
    let mut options = String::new();
    c.some(
        "on-no-data-accessible",
        &["io-error", "suspend-io"],
        &mut options,
    );
    c.some("cpu-mask", &["f", "3"], &mut options);
    if v9 {
        c.some("auto-promote", &["yes", "no"], &mut options);
        c.some("quorum", &["off", "majority"], &mut options);
        c.some("twopc-timeout", &["300", "100"], &mut options);
    }
    let _ = writeln!(out, "resource r0 {{ options {{ {options} }}");
    let _ = writeln!(out, "disk {{ {} }}", disk_options(c, v9, false));
    let _ = writeln!(out, "net {{ {} }}", net_options(c, v9));
    let three = v9 && c.below(2) == 0;
    let mut volumes = Vec::new();
    for n in 0..3 {
        if n == 0 || c.below(3) != 0 {
            volumes.push(n);
        }
    }
    for v in &volumes {
        let minor = 10 * v + c.below(2);
        let disk = ["/dev/one", "/dev/two"][c.below(2) as usize];
        let meta = ["internal", "internal", "/dev/meta", "/dev/meta[1]"][c.below(4) as usize];
        let meta = match meta {
            "/dev/meta" => format!("/dev/meta{v}"),
            "/dev/meta[1]" => format!("/dev/meta[{v}]"),
            other => other.to_owned(),
        };
        let _ = writeln!(
            out,
            "volume {v} {{ device /dev/drbd{minor}; disk {disk}{v}; meta-disk {meta}; }}"
        );
    }
    let nodes: &[&str] = if three { &["a", "b", "c"] } else { &["a", "b"] };
    for (id, node) in nodes.iter().enumerate() {
        let port = 7788 + c.below(2);
        let _ = write!(out, "on {node} {{ address 10.0.0.{}:{port};", id + 1);
        if v9 {
            let _ = write!(out, " node-id {id};");
        }
        if *node == "c" && c.below(2) == 0 {
            for v in &volumes {
                let _ = write!(out, " volume {v} {{ disk none; }}");
            }
        }
        out.push_str(" }\n");
    }
    if v9 && (three || c.below(2) == 0) {
        let _ = writeln!(out, "connection-mesh {{ hosts {}; }}", nodes.join(" "));
    }
    out.push_str("}\n");
    out
}

struct Oracle {
    dir: tempfile::TempDir,
    drbdadm: PathBuf,
}

impl Oracle {
    fn new(dialect: Dialect) -> Option<Oracle> {
        let dir = tempfile::tempdir().unwrap();
        let drbdadm = if dialect == Dialect::V9 {
            common::utils("DRBDADM", "drbdadm")?
        } else {
            // It runs the drbdsetup that lies beside it.
            let there = dir.path().join("drbdadm-84");
            let found = common::utils("DRBDADM84", "drbdadm-84")?;
            let show = dir.path().join("show");
            let stand_in = dir.path().join("drbdsetup-84");
            common::make_programs(|| {
                fs::copy(found, &there).unwrap();
                let script = format!("#!/bin/sh\nexec cat {}\n", show.display());
                fs::write(&stand_in, script).unwrap();
                fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
            });
            there
        };
        Some(Oracle { dir, drbdadm })
    }

    fn run(
        &self,
        config: &str,
        show: &str,
        args: &[&str],
        node: &str,
    ) -> (bool, Vec<Plain>, String) {
        let file = self.dir.path().join("drbd.conf");
        let running = self.dir.path().join("show");
        fs::write(&file, config).unwrap();
        fs::write(&running, show).unwrap();
        let out = common::output(
            Command::new(&self.drbdadm)
                .env("__DRBD_NODE__", node)
                .env("DRBD_DRIVER_VERSION_OVERRIDE", "9.2.18")
                .env("FAKE_DRBDSETUP_SHOW", &running)
                .arg("-c")
                .arg(&file)
                .arg("-d")
                .args(args),
        );
        let text = String::from_utf8(out.stdout).unwrap();
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        (
            out.status.success(),
            text.lines().filter_map(theirs).collect(),
            text + &errors,
        )
    }
}

fn compare(dialect: Dialect, count: u64) {
    let Some(oracle) = Oracle::new(dialect) else {
        return;
    };
    let v9 = dialect == Dialect::V9;
    let (mut nothing, mut steps) = (0, 0);
    for seed in 1..=count {
        let text = generated(seed, None, v9);
        let config = Config::parse(&text, "drbd.conf").unwrap_or_else(|e| panic!("{text}\n{e}"));
        let node = ["a", "b"][(seed % 2) as usize];
        let view = config.require("r0").unwrap().for_node(node).unwrap();
        // What runs is sometimes just that, sometimes another version of it, sometimes nothing.
        let before = match seed % 5 {
            0 => None,
            1 => Some(text.clone()),
            n => Some(generated(seed, Some(n), v9)),
        };
        let started = before.as_ref().map(|before| {
            let config = Config::parse(before, "before.conf").unwrap();
            running(
                &config.require("r0").unwrap().for_node(node).unwrap(),
                dialect,
            )
        });
        let (now, show) = match &started {
            Some((running, show)) => (Some(running), show.as_str()),
            None => (None, ""),
        };
        let about = format!("seed {seed} on {node}\n{text}\nrunning:\n{show}");
        let (ok, expected, output) = oracle.run(&text, show, &["adjust", "r0"], node);
        assert!(ok, "{about}\n{output}");
        let found: Vec<Plain> = view
            .adjust(now, dialect)
            .unwrap_or_else(|e| panic!("{about}\n{e}"))
            .into_iter()
            .map(|s| ours(s, dialect))
            .collect();
        if found != expected {
            let at = found
                .iter()
                .zip(&expected)
                .take_while(|(a, b)| a == b)
                .count();
            panic!(
                "{about}\n{output}\nstep {at}: ours {:#?}\ntheirs {:#?}",
                found.get(at),
                expected.get(at)
            );
        }
        if seed % 5 == 1 {
            assert!(found.is_empty(), "{about}\nnot idempotent: {found:#?}");
        }
        nothing += u64::from(found.is_empty());
        steps += found.len();
    }
    println!("{count} adjustments, {steps} steps, {nothing} without any");
    assert!(steps as u64 > 3 * count && nothing >= count / 5);
}

#[test]
fn adjustments_are_those_of_drbdadm_84() {
    compare(Dialect::V84, common::cases(60));
}

#[test]
fn adjustments_are_those_of_drbdadm_9() {
    compare(Dialect::V9, common::cases(60));
}

#[test]
#[ignore = "deep: more of the same"]
fn deep_adjustments_are_those_of_drbdadm() {
    for dialect in [Dialect::V84, Dialect::V9] {
        compare(dialect, common::cases(1000));
    }
}
