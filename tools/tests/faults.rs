//! The faults that a pair of nodes has in its life, one after the other, on real nodes: see docs/faults.md.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Cluster, DRBD_CONF, PLACEMENT, Run, WRITER, conf_with};
use serde_json::Value;
use uml_lab::{Command, Disk, DiskFault, Policy};

/// Served by node1, its container writes numbers, both disks the same.
fn serve(name: &str, conf: &str, disks: &[Disk]) -> Option<Cluster> {
    let cluster = Cluster::boot_among(name, conf, PLACEMENT, disks, &[])?;
    let node = cluster.node("node1");
    node.write_file("/run/rootfs/rc", WRITER, 0o644).unwrap();
    cluster.serve();
    cluster.await_more_numbers("node1", 0);
    Some(cluster)
}

fn plain() -> Disk {
    Disk::new("192M")
}

fn sh(cluster: &Cluster, node: &str, script: &str) -> String {
    let command = Command::new("/bin/busybox")
        .args(["sh", "-c", script])
        .deadline(common::DEADLINE);
    cluster.node(node).run_ok(command).unwrap().stdout_text()
}

fn message(run: &Run) -> String {
    let of = |e: &Value| format!("{} {}\n", e["message"], e["note"]);
    run.events.iter().map(of).collect()
}

fn local(facts: &Value) -> &Value {
    &facts["drbd"]["volumes"]["0"]["disk"]
}

/// DRBD has noticed that it does not reach the peer.
fn await_link_lost(cluster: &Cluster, node: &str) {
    cluster.await_status(node, "alone", |f| f["drbd"]["link"] != "Connected");
}

/// Connected again, both disks the same, nobody split.
fn await_together(cluster: &Cluster) {
    for node in ["node1", "node2"] {
        cluster.await_status(node, "in sync", |f| {
            f["drbd"]["link"] == "Connected"
                && local(f) == "UpToDate"
                && f["drbd"]["volumes"]["0"]["peer_disk"] == "UpToDate"
                && f["split_brain"].is_null()
        });
    }
    cluster.on_both(&["wait-sync", "r0"]);
}

/// A placement with another fence agent, a script of node2.
fn agent(cluster: &Cluster, status: &str, off: &str) -> [&'static str; 2] {
    let node = cluster.node("node2");
    for (path, script) in [("/run/agent-status", status), ("/run/agent-off", off)] {
        node.write_file(path, format!("#!/bin/sh\n{script}\n"), 0o755)
            .unwrap();
    }
    let placement = PLACEMENT
        .replace(
            "/run/lab/power\", \"status",
            "/run/agent-status\", \"status",
        )
        .replace("/run/lab/power\", \"off", "/run/agent-off\", \"off")
        .replace(
            "method = \"command\"",
            "method = \"command\"\ndeadline = \"2s\"",
        );
    node.write_file("/run/agent.toml", placement, 0o644)
        .unwrap();
    ["--placement", "/run/agent.toml"]
}

/// Two runs of a command at the same moment.
fn twice(cluster: &Cluster, first: (&str, &[&str]), second: (&str, &[&str])) -> [Run; 2] {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| cluster.failover(second.0, second.1));
        let run = cluster.failover(first.0, first.1);
        [run, other.join().unwrap()]
    })
}

/// Faults that take seconds each, on one pair of nodes.
#[test]
fn one_after_the_other() {
    let Some(cluster) = serve("failover-faults", &conf_with(""), &[plain()]) else {
        return;
    };

    // The clocks of the nodes are an hour apart, and jump during a handover: nothing depends on them.
    cluster.node("node1").shift_clock(-3_600_000).unwrap();
    let mut target = cluster.spawn("node2", &["handover", "r0"]);
    target.until("await-peer-secondary");
    cluster.node("node2").shift_clock(3_600_000).unwrap();
    cluster.failover("node1", &["release", "r0"]).ok("release");
    let target = target.wait().ok("handover");
    assert_eq!(target.end()["epoch"], 2);
    assert!(
        target.end()["ms"].as_u64().unwrap() < 600_000,
        "{target:#?}"
    );
    cluster.node("node2").shift_clock(-7_200_000).unwrap();
    let (source, target) = cluster.hand_over("node2", "node1");
    source.ok("release");
    target.ok("handover");
    for node in ["node1", "node2"] {
        cluster.node(node).shift_clock(0).unwrap();
    }

    // The target lacks a bridge: refused there before anything is armed, so nothing stops here.
    sh(
        &cluster,
        "node2",
        "/bin/busybox ip link set br0 down; /bin/busybox brctl delbr br0",
    );
    let refused = cluster.failover("node2", &["handover", "r0"]);
    assert_eq!(refused.codes(), ["bridge-missing"], "{refused:#?}");
    cluster
        .node("node2")
        .run_test("common::furnish_node")
        .unwrap();
    // A configuration that no node could load any more: refused before anything stops.
    let config = "/srv/store1/containers/app/config";
    let good = cluster.node("node1").read_file(config).unwrap();
    sh(
        &cluster,
        "node1",
        &format!("echo 'lxc.no.such.key = 1' >> {config}"),
    );
    let refused = cluster.failover("node1", &["release", "r0"]);
    // Its processes are nobody's that way, so they are named, too.
    let codes = refused.codes();
    let (status, told) = (
        refused.status,
        codes.contains(&"container-config".to_owned()),
    );
    assert_eq!((status, told), (Some(3), true), "{refused:#?}");
    cluster
        .node("node1")
        .write_file(config, good, 0o644)
        .unwrap();

    // Who passes through the store, as another `failover` that looks at it, holds up nobody.
    let look = "exec 3</srv/store1/containers/app/config; sleep 1.5";
    let look = uml_lab::Command::new("/bin/busybox").args(["sh", "-c", look]);
    let passing = cluster.node("node1").spawn(look).unwrap();
    let plan = cluster.failover("node1", &["plan", "release", "r0"]);
    assert_eq!(plan.status, Some(0), "{plan:#?}");
    passing.wait(common::DEADLINE).unwrap();

    // The same command twice at once: one does it, the other says who does.
    let mut target = cluster.spawn("node2", &["handover", "r0"]);
    target.until("await-peer-secondary");
    let second = cluster.failover("node2", &["handover", "r0"]);
    assert!(message(&second).contains("held by process"), "{second:#?}");
    let release: &[&str] = &["release", "r0"];
    let both = twice(&cluster, ("node1", release), ("node1", release));
    target.wait().ok("handover");
    let done = both.iter().filter(|r| r.status == Some(0)).count();
    let told = both
        .iter()
        .filter(|r| message(r).contains("held by process"))
        .count();
    assert!(done == 2 || (done, told) == (1, 1), "{both:#?}");
    cluster.assert_serves("node2");
    // On both nodes at once, when nobody serves: one of them does.
    cluster.failover("node2", &["stop", "r0"]).ok("stop");
    let start: &[&str] = &["start", "r0"];
    let both = twice(&cluster, ("node1", start), ("node2", start));
    assert_eq!(both[1].status, Some(0), "the owner starts: {both:#?}");
    let code = &both[0].codes()[0];
    assert!(
        code == "owned-by-peer" || code == "peer-primary",
        "{both:#?}"
    );
    cluster.assert_serves("node2");
    let (source, target) = cluster.hand_over("node2", "node1");
    source.ok("release");
    target.ok("handover");

    // A frozen container answers no shutdown: said before anything stops.
    let lxc = |verb: &str| format!("/bin/lxc-{verb} -P /srv/store1/containers -n app");
    sh(&cluster, "node1", &lxc("freeze"));
    let refused = cluster.failover("node1", &["release", "r0"]);
    assert_eq!(refused.codes(), ["container-state"], "{refused:#?}");
    sh(&cluster, "node1", &lxc("unfreeze"));
    // One that ignores the shutdown is killed at its deadline, and the store comes free.
    sh(
        &cluster,
        "node1",
        &format!("/bin/busybox sed -i s/SIGUSR1/SIGWINCH/ {config}"),
    );
    let stop = cluster
        .failover("node1", &["stop", "r0"])
        .ok("stop")
        .show("ignores shutdown");
    assert!(
        message(&stop).contains("did not shut down within"),
        "{stop:#?}"
    );
    sh(
        &cluster,
        "node2",
        "! /bin/busybox ps | /bin/busybox grep -q '[s]leep 1000'",
    );
    cluster.failover("node1", &["start", "r0"]).ok("start");
    sh(
        &cluster,
        "node1",
        &format!("/bin/busybox sed -i s/SIGWINCH/SIGUSR1/ {config}"),
    );

    // No room for a snapshot: said, and the handover goes on without one.
    cluster.node("node1").fill("/srv/store1", 0).unwrap();
    let full = cluster.failover("node1", &["snapshot", "r0", "app", "--name", "full"]);
    eprintln!(
        "snapshot of a full store: {:?} {}",
        full.status,
        full.end()["message"]
    );
    let (source, target) = cluster.hand_over("node1", "node2");
    source.ok("release of a full store");
    target.ok("handover of a full store");
    cluster.node("node2").unfill("/srv/store1").unwrap();
    let (source, target) = cluster.hand_over("node2", "node1");
    source.ok("release");
    target.ok("handover");

    // Neither reaches the other and both live: nobody else begins to serve, whatever the agent pretends.
    cluster.lab.wire("repl").cut_all();
    await_link_lost(&cluster, "node2");
    let refused = cluster.failover("node2", &["start", "r0"]);
    assert_eq!(refused.status, Some(3), "{refused:#?}");
    let operator = PLACEMENT.replace("method = \"command\"", "method = \"operator\"");
    let operator: Vec<&str> = operator
        .lines()
        .filter(|l| !l.contains("/run/lab/power"))
        .collect();
    let node2 = cluster.node("node2");
    node2
        .write_file("/run/operator.toml", operator.join("\n"), 0o644)
        .unwrap();
    let refused = cluster.failover(
        "node2",
        &["--placement", "/run/operator.toml", "takeover", "r0"],
    );
    assert_eq!(refused.codes(), ["no-fence-method"], "{refused:#?}");
    for (what, status, off, says) in [
        ("lies", "exit 0", "exit 0", "reads back as on"),
        ("fails", "exit 0", "exit 1", "exit status 1"),
        ("cannot tell", "exit 3", "exit 0", "exit status 3"),
        (
            "does not answer",
            "exit 0",
            "exec sleep 1000",
            "no answer within 2 s",
        ),
        (
            "is late",
            "test -e /run/late && exit 2; exit 0",
            "(sleep 4; touch /run/late) & exec sleep 1000",
            "no answer within 2 s",
        ),
    ] {
        let placement = agent(&cluster, status, off);
        let refused = cluster.failover("node2", &[&placement[..], &["takeover", "r0"]].concat());
        eprintln!("an agent that {what}: {}", message(&refused));
        assert_eq!(refused.status, Some(1), "{what}: {refused:#?}");
        assert!(
            message(&refused).contains(says),
            "{what}: {}",
            message(&refused)
        );
        assert!(refused.steps().is_empty(), "{what}: {refused:#?}");
    }
    // The late success is nobody's any more.
    sh(&cluster, "node2", "/bin/busybox sleep 5; test -e /run/late");
    assert_eq!(
        cluster.status("node2")["facts"]["drbd"]["role"],
        "Secondary"
    );
    cluster.assert_serves("node1");

    // The kernel asks a program of the operator before the resync, and goes by its word; what that
    // program is told by `failover`, which would wait for DRBD, is a refusal.
    let asks = format!("{} --json status r0 > /run/asked; exit 4", common::FAILOVER);
    let handlers = format!(
        "[before-resync-target]\nrun = [\"/bin/sh\", \"-c\", \"{asks}\"]\ndecides = true\n"
    );
    node2
        .write_file("/etc/ha-failover/handlers.toml", handlers, 0o644)
        .unwrap();
    cluster.lab.wire("repl").heal_all();
    cluster.await_status("node2", "given up", |f| {
        matches!(f["drbd"]["link"].as_str(), None | Some("StandAlone"))
    });
    let asked = String::from_utf8(node2.read_file("/run/asked").unwrap()).unwrap();
    assert!(asked.contains("called from a handler of DRBD"), "{asked}");
    sh(
        &cluster,
        "node2",
        "/bin/busybox rm /etc/ha-failover/handlers.toml",
    );
    for node in ["node1", "node2"] {
        cluster.failover(node, &["up", "r0"]).ok("up");
    }
    await_together(&cluster);
    cluster.assert_serves("node1");
}

/// Both nodes are lost one after the other, the second as the new owner: what it wrote where the first one
/// wrote before is marked in its activity log, so that the first one is given it. The copies are compared.
#[test]
fn what_a_new_owner_writes_is_noted() {
    let Some(cluster) = serve("failover-noted", DRBD_CONF, &[plain()]) else {
        return;
    };
    let target = |node: &str| drbd_md::Target::internal(cluster.node(node).disk_path(0));
    cluster.await_more_numbers("node1", 20);
    cluster.node("node1").kill().unwrap();
    await_link_lost(&cluster, "node2");
    cluster
        .failover("node2", &["takeover", "r0"])
        .ok("takeover");
    let taken = cluster.numbers("node2");
    cluster.await_more_numbers("node2", taken + 20);
    let written = cluster.numbers("node2");
    cluster.node("node2").kill().unwrap();
    let log = drbd_md::activity_log_state(&target("node2")).unwrap();
    assert!(!log.active.is_empty(), "{log:?}");
    for node in ["node1", "node2"] {
        cluster.reboot(node);
        cluster.failover(node, &["up", "r0"]).ok("up");
    }
    await_together(&cluster);
    cluster.failover("node2", &["start", "r0"]).ok("start");
    let (source, other) = cluster.hand_over("node2", "node1");
    source.ok("release");
    other.ok("handover");
    let there = cluster.numbers("node1");
    assert!(there + 1 >= written, "{there} of {written}");
    cluster.failover("node1", &["stop", "r0"]).ok("stop");
    await_together(&cluster);
    let size = drbd_md::read(&target("node1")).unwrap().effective_size;
    let data = |node: &str| {
        let mut bytes = std::fs::read(cluster.node(node).disk_path(0)).unwrap();
        bytes.truncate(usize::try_from(size.bytes()).unwrap());
        bytes
    };
    let (one, two) = (data("node1"), data("node2"));
    let differ = one.chunks(4096).zip(two.chunks(4096));
    let differ: Vec<_> = differ.enumerate().filter(|(_, (a, b))| a != b).collect();
    let places: Vec<_> = differ.iter().map(|(n, _)| n).collect();
    assert!(!one.is_empty() && differ.is_empty(), "blocks {places:?}");
}

/// A line that loses, delays, reorders, flaps, or carries one way only: nobody else serves, nothing is lost.
#[test]
#[ignore = "deep"]
fn deep_bad_lines() {
    let Some(cluster) = serve("failover-lines", &conf_with(""), &[plain()]) else {
        return;
    };
    let wire = cluster.lab.wire("repl");
    let s = Duration::from_secs;
    let policy = Policy::new;
    for (what, direction, policy) in [
        ("to node2 cut", Some(("node1", "node2")), policy().cut()),
        ("to node1 cut", Some(("node2", "node1")), policy().cut()),
        ("30 % loss", None, policy().loss(0.3).seed(7)),
        ("2 s late", None, policy().delay(s(2))),
        (
            "reordered",
            None,
            policy().reorder(0.3, Duration::from_millis(50)).seed(8),
        ),
        ("flapping", None, policy().flap(s(3), s(3))),
    ] {
        let before = cluster.numbers("node1");
        match direction {
            Some((from, to)) => wire.set(from, to, policy),
            None => wire.set_all(policy),
        }
        let begun = std::time::Instant::now();
        while begun.elapsed() < s(25) {
            // Who does not serve asks to, again and again.
            let refused = cluster.failover("node2", &["start", "r0"]);
            assert_eq!(refused.status, Some(3), "{what}: {refused:#?}");
            assert_eq!(
                cluster.status("node2")["facts"]["drbd"]["role"],
                "Secondary",
                "{what}"
            );
            std::thread::sleep(s(2));
        }
        wire.heal_all();
        await_together(&cluster);
        cluster.await_more_numbers("node1", before);
        cluster.assert_serves("node1");
        eprintln!("{what}: {} numbers", cluster.numbers("node1") - before);
    }
    let (source, target) = cluster.hand_over("node1", "node2");
    source.ok("release");
    target.ok("handover");
    cluster.numbers("node2");
}

/// The owner stands still: for a moment nothing happens; for longer it is taken over, and what it does when
/// it goes on is not served.
#[test]
#[ignore = "deep"]
fn deep_the_owner_hangs_and_goes_on() {
    let conf = conf_with("fencing resource-and-stonith;");
    let Some(cluster) = serve("failover-standstill", &conf, &[plain()]) else {
        return;
    };
    for seconds in [5, 15] {
        let before = cluster.numbers("node1");
        cluster.node("node1").hang().unwrap();
        std::thread::sleep(Duration::from_secs(seconds));
        let refused = cluster.failover("node2", &["start", "r0"]);
        assert_eq!(refused.status, Some(3), "{seconds}: {refused:#?}");
        cluster.node("node1").resume().unwrap();
        await_together(&cluster);
        let thawed = cluster.status("node1")["facts"]["drbd"]["suspended"].clone();
        assert!(thawed.is_null(), "{seconds}: {thawed}");
        cluster.await_more_numbers("node1", before);
        cluster.assert_serves("node1");
    }
    let stood = cluster.numbers("node1");
    cluster.node("node1").hang().unwrap();
    await_link_lost(&cluster, "node2");
    std::thread::sleep(Duration::from_secs(60));
    let word = "the test: node1 stands still";
    cluster
        .failover("node2", &["takeover", "r0", "--attest", word])
        .ok("takeover");
    let taken = cluster.numbers("node2");
    assert!(
        taken + 1 >= stood,
        "{taken} of {stood}: what was acknowledged is there"
    );
    cluster.node("node1").resume().unwrap();
    // Its container goes on, and its next write waits for ever: the peer is not fenced as far as it knows.
    cluster.await_more_numbers("node2", taken);
    await_link_lost(&cluster, "node1");
    let frozen = || {
        let status = cluster.status("node1");
        (
            status["facts"]["drbd"]["suspended"].clone(),
            status["summary"].clone(),
        )
    };
    let (suspended, summary) = frozen();
    assert!(suspended.is_string(), "{suspended} {summary}");
    let refused = cluster.failover("node1", &["release", "r0"]);
    assert!(
        refused.codes().contains(&"io-suspended".to_owned()),
        "{refused:#?}"
    );
    let at = sh(
        &cluster,
        "node1",
        "/bin/busybox tail -n 1 /srv/store1/containers/app/rootfs/log",
    );
    std::thread::sleep(Duration::from_secs(5));
    let later = sh(
        &cluster,
        "node1",
        "/bin/busybox tail -n 1 /srv/store1/containers/app/rootfs/log",
    );
    assert_eq!(at, later, "it writes no more");
    // Switched off at last, it returns as the one that has to ask.
    cluster.node("node1").kill().unwrap();
    cluster.node("node1").boot().unwrap();
    cluster.furnish("node1", &conf, PLACEMENT);
    cluster.failover("node1", &["boot", "r0"]).ok("boot");
    cluster.assert_serves("node2");
}

/// Disks that fail: the owner's, the other one, the owner's without a link, both.
#[test]
#[ignore = "deep"]
fn deep_disks_fail() {
    let breakable = [Disk::new("192M").faults()];
    let conf = conf_with("on-io-error detach;");
    let Some(cluster) = serve("failover-disks", &conf, &breakable) else {
        return;
    };
    let disk = |node: &str| cluster.node(node).disk(0);
    let again = |node: &str| {
        disk(node).heal().unwrap();
        if cluster.failover(node, &["up", "r0"]).status != Some(0) {
            panic!("{node}: {:#}", cluster.status(node));
        }
        await_together(&cluster);
    };

    // The other one's: it may not serve.
    disk("node2").inject(DiskFault::FailWrites).unwrap();
    cluster.await_status("node2", "without a disk", |f| local(f) == "Diskless");
    let before = cluster.numbers("node1");
    let refused = cluster.failover("node2", &["handover", "r0"]);
    assert!(
        refused.codes().contains(&"disk-not-up-to-date".to_owned()),
        "{refused:#?}"
    );
    let refused = cluster.failover("node1", &["release", "r0"]);
    assert!(
        refused
            .codes()
            .contains(&"peer-disk-not-up-to-date".to_owned()),
        "{refused:#?}"
    );
    cluster.await_more_numbers("node1", before);
    again("node2");

    // The owner's: the service goes on over the other one's disk, and is handed over there.
    disk("node1").inject(DiskFault::Fail).unwrap();
    cluster.await_status("node1", "without a disk", |f| local(f) == "Diskless");
    let before = cluster.numbers("node1");
    cluster.await_more_numbers("node1", before);
    let (source, target) = cluster.hand_over("node1", "node2");
    source.ok("release without a disk");
    target.ok("handover from a node without a disk");
    cluster.assert_serves("node2");
    assert!(cluster.numbers("node2") > before);
    again("node1");

    // The owner's, and the link: nothing is left to read or write. Nothing hangs, and nobody serves twice.
    let (source, target) = cluster.hand_over("node2", "node1");
    source.ok("release");
    target.ok("handover");
    cluster.lab.wire("repl").cut_all();
    await_link_lost(&cluster, "node1");
    disk("node1").inject(DiskFault::Fail).unwrap();
    cluster.await_status("node1", "without a disk", |f| local(f) != "UpToDate");
    let status = cluster.status("node1");
    eprintln!("disk and link: {}", status["summary"]);
    let refused = cluster.failover("node1", &["release", "r0"]);
    assert_eq!(refused.status, Some(3), "{refused:#?}");
    // Btrfs takes no more writes; that is told, and nothing is started or stopped by itself.
    cluster.await_status("node1", "read-only", |f| {
        f["mount"]["store"]["read_only"] == true
    });
    let refused = cluster.failover("node1", &["start", "r0"]);
    assert!(
        refused.codes().contains(&"store-read-only".to_owned()),
        "{refused:#?}"
    );
    // The way on: the owner is switched off and the other one serves what both had.
    await_link_lost(&cluster, "node2");
    cluster
        .failover("node2", &["takeover", "r0"])
        .ok("takeover");
    cluster.assert_serves("node2");
    cluster.lab.wire("repl").heal_all();

    // Both disks of a pair: the one that serves says so, and every command ends.
    disk("node2").inject(DiskFault::Fail).unwrap();
    cluster.await_status("node2", "without a disk", |f| local(f) != "UpToDate");
    cluster.await_status("node2", "read-only", |f| {
        f["mount"]["store"]["read_only"] == true
    });
    let refused = cluster.failover("node2", &["release", "r0"]);
    assert_eq!(refused.status, Some(3), "{refused:#?}");
}

/// A resync that is cut short by the link, by its target, by its source: half of a copy is never served.
#[test]
#[ignore = "deep"]
fn deep_a_resync_is_interrupted() {
    let conf = DRBD_CONF.replace(
        "protocol C;",
        "protocol C;\n    disk { c-plan-ahead 0; resync-rate 4M; }",
    );
    let Some(cluster) = serve("failover-resync", &conf, &[plain()]) else {
        return;
    };
    let reboot = |node: &str| {
        cluster.node(node).boot().unwrap();
        cluster.furnish(node, &conf, PLACEMENT);
        cluster.failover(node, &["up", "r0"]).ok("up");
    };
    for (round, cause) in ["the link", "the target", "the source"]
        .into_iter()
        .enumerate()
    {
        // node2 misses enough for a resync of many seconds.
        cluster.node("node2").kill().unwrap();
        let fill = format!(
            "/bin/busybox dd if=/dev/urandom of=/srv/store1/fill bs=1M count=70 2>&1; /bin/busybox sync; echo {round}"
        );
        sh(&cluster, "node1", &fill);
        reboot("node2");
        cluster.await_status("node2", "a target", |f| {
            f["drbd"]["volumes"]["0"]["replication"] == "SyncTarget"
        });
        let never = |why: &str| {
            assert_eq!(
                local(&cluster.status("node2")["facts"]),
                "Inconsistent",
                "{cause}: {why}"
            );
            for attempt in [
                &["start", "r0"][..],
                &["handover", "r0"],
                &["takeover", "r0", "--attest", "the test: node1 is off"],
            ] {
                let refused = cluster.failover("node2", attempt);
                assert_eq!(
                    refused.status,
                    Some(3),
                    "{cause}, {why}: {attempt:?}: {refused:#?}"
                );
            }
        };
        never("meanwhile");
        match cause {
            "the link" => {
                cluster.lab.wire("repl").cut_all();
                await_link_lost(&cluster, "node2");
                never("interrupted");
                cluster.lab.wire("repl").heal_all();
            }
            "the target" => {
                cluster.node("node2").kill().unwrap();
                reboot("node2");
                // Read before it meets its source again, or while it goes on: never good.
                assert_ne!(local(&cluster.status("node2")["facts"]), "Outdated");
            }
            _ => {
                cluster.node("node1").kill().unwrap();
                await_link_lost(&cluster, "node2");
                never("interrupted");
                let refused = cluster.failover("node2", &["takeover", "r0"]);
                assert!(
                    refused.codes().contains(&"disk-not-up-to-date".to_owned()),
                    "{refused:#?}"
                );
                reboot("node1");
                cluster.await_connected("node1", "r0");
                cluster.failover("node1", &["start", "r0"]).ok("start");
            }
        }
        await_together(&cluster);
        cluster.assert_serves("node1");
    }
    // What was copied in pieces is whole.
    let sum = "/bin/busybox md5sum /srv/store1/fill";
    let before = sh(&cluster, "node1", sum);
    let (source, target) = cluster.hand_over("node1", "node2");
    source.ok("release");
    target.ok("handover");
    assert_eq!(sh(&cluster, "node2", sum), before);
}

/// DRBD goes away under a command: it ends with a word about it, and the next one knows what to do.
#[test]
#[ignore = "deep"]
fn deep_the_module_goes() {
    let Some(cluster) = serve("failover-rmmod", &conf_with(""), &[plain()]) else {
        return;
    };
    let mut armed = cluster.spawn("node2", &["handover", "r0"]);
    armed.until("await-peer-secondary");
    cluster.node("node2").run_test("down_by_hand").unwrap();
    sh(&cluster, "node2", "/bin/busybox rmmod drbd");
    let run = armed.wait();
    eprintln!("armed, and the module went: {}", run.end());
    assert!(matches!(run.status, Some(1 | 4)), "{run:#?}");
    let refused = cluster.failover("node2", &["handover", "r0"]);
    assert!(
        refused.codes().contains(&"module-not-loaded".to_owned()),
        "{refused:#?}"
    );
    cluster.assert_serves("node1");
    cluster.failover("node2", &["up", "r0"]).ok("up");
    await_together(&cluster);
    let (source, target) = cluster.hand_over("node1", "node2");
    source.ok("release");
    target.ok("handover");
}

/// Inside a node: what somebody does who does not know of `failover`.
#[test]
#[ignore = "runs inside a node"]
fn down_by_hand() {
    let drbd = drbd_nl::Drbd::open().unwrap();
    let resource = drbd_nl::ResourceName::new("r0").unwrap();
    let operation = drbd_nl::Operation::Down { resource };
    let outcome = drbd.run(&operation, Duration::from_secs(20)).unwrap();
    assert_eq!(outcome, drbd_nl::Outcome::Done);
}

/// A container with more processes than one signal reaches, and one that waits for a disk that does not
/// answer: the first is killed to the last, the second is told and not passed over.
#[test]
#[ignore = "deep"]
fn deep_containers_that_do_not_stop() {
    let conf = conf_with("").replace(
        "on node1 { device /dev/drbd0; disk /dev/ubda;",
        "on node1 { device /dev/drbd0; disk /dev/dm-0;",
    );
    let placement = PLACEMENT.replace("stop_deadline = \"10s\"", "stop_deadline = \"6s\"");
    let Some(cluster) =
        Cluster::boot_among("failover-stubborn", &conf, &placement, &[plain()], &[])
    else {
        return;
    };
    let node = cluster.node("node1");
    node.load_module::<&str>("dm_mod", []).unwrap();
    let dm = "d='/sbin/dmsetup --noudevsync --noudevrules'; ";
    sh(
        &cluster,
        "node1",
        &format!(
            "{dm} $d create frost --table \"0 $(cat /sys/block/ubda/size) linear /dev/ubda 0\""
        ),
    );
    // Sixty processes that start each other and ignore every signal they may, once the writer has begun.
    let bomb = "\
/bin/busybox cat > /bomb <<'END'
trap '' TERM INT HUP USR1 USR2 PWR
while true; do /bin/busybox sleep 0.2 & /bin/busybox sh /bomb & wait; done
END
(/bin/busybox sleep 5; /bin/busybox sh /bomb) &
";
    node.write_file("/run/rootfs/rc", format!("{WRITER}{bomb}"), 0o644)
        .unwrap();
    let config = node.read_file("/run/app.config").unwrap();
    let config = format!(
        "{}lxc.cgroup2.pids.max = 60\n",
        String::from_utf8(config).unwrap()
    );
    node.write_file("/run/app.config", config, 0o644).unwrap();
    cluster.serve();
    cluster.await_more_numbers("node1", 0);
    let many = "/bin/busybox ps | /bin/busybox grep -c '[b]omb'";
    let begun = std::time::Instant::now();
    while sh(&cluster, "node1", &format!("{many} || true"))
        .trim()
        .parse::<u32>()
        .unwrap()
        < 10
    {
        assert!(begun.elapsed() < common::DEADLINE, "no bomb");
        std::thread::sleep(Duration::from_secs(1));
    }
    let stop = cluster
        .failover("node1", &["stop", "r0"])
        .ok("stop")
        .show("fork bomb");
    assert_eq!(
        cluster.status("node1")["facts"]["drbd"]["role"],
        "Secondary",
        "{stop:#?}"
    );
    sh(
        &cluster,
        "node1",
        "! /bin/busybox ps | /bin/busybox grep -q '[b]omb'",
    );

    // No bomb any more: a writer that is in the middle of an fsync for ever.
    cluster.failover("node1", &["start", "r0"]).ok("start");
    let rc = "/srv/store1/containers/app/rootfs/rc";
    cluster.failover("node1", &["stop", "r0", "--die-at", "after:stop-container"]);
    node.write_file(rc, WRITER, 0o644).unwrap();
    cluster.failover("node1", &["start", "r0"]).ok("start");
    let before = cluster.numbers("node1");
    cluster.await_more_numbers("node1", before);
    sh(
        &cluster,
        "node1",
        &format!("{dm} $d suspend --nolockfs --noflush frost"),
    );
    std::thread::sleep(Duration::from_secs(2));
    let run = cluster.failover("node1", &["stop", "r0"]);
    eprintln!("waits for its disk: {}", run.end());
    assert_eq!(run.status, Some(5), "{run:#?}");
    assert!(
        run.steps().len() <= 2,
        "nothing was done after it: {run:#?}"
    );
    sh(&cluster, "node1", &format!("{dm} $d resume frost"));
    let begun = std::time::Instant::now();
    while cluster.failover("node1", &["stop", "r0"]).status != Some(0) {
        assert!(begun.elapsed() < common::DEADLINE);
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(
        cluster.status("node1")["facts"]["drbd"]["role"],
        "Secondary"
    );
}
