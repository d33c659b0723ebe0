//! The examples, run on real nodes as their heads say.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../tools/tests/common/mod.rs"]
mod common;

use std::path::Path;

use common::{Cluster, DEADLINE, DRBD_CONF, FAILOVER, PLACEMENT};
use uml_lab::Command;

const ADJUST: &str = env!("CARGO_BIN_EXE_adjust");
const AUTOMATIC_TAKEOVER: &str = env!("CARGO_BIN_EXE_automatic_takeover");
const CLUSTER_STATUS: &str = env!("CARGO_BIN_EXE_cluster_status");
const HAND_OVER: &str = env!("CARGO_BIN_EXE_hand_over");
const SNAPSHOT_BEFORE_START: &str = env!("CARGO_BIN_EXE_snapshot_before_start");
const WHO_HOLDS: &str = env!("CARGO_BIN_EXE_who_holds");

/// Runs an example to its end, which must be good; returns what it printed.
fn run(cluster: &Cluster, node: &str, program: &str, arguments: &[&str]) -> String {
    let command = Command::new(program).args(arguments).deadline(DEADLINE);
    let output = cluster.node(node).run(command).unwrap();
    let text = output.stdout_text();
    assert!(
        output.status.success(),
        "{program}: {text}{}",
        output.stderr_text()
    );
    text
}

#[test]
fn the_examples_do_what_they_say() {
    assert!(
        Path::new(FAILOVER).exists(),
        "{FAILOVER} is not there; build it with: cargo build -p tools"
    );
    let helper = Path::new(FAILOVER).with_file_name("drbd-helper");
    let local = format!("[local]\nusermode_helper = {:?}\n[[resource]]", helper);
    let placement = PLACEMENT.replacen("[[resource]]", &local, 1);
    let Some(cluster) = Cluster::boot_with("examples", DRBD_CONF, &placement) else {
        return;
    };
    cluster.serve();

    let text = run(&cluster, "node1", CLUSTER_STATUS, &["node1"]);
    for line in [
        "r0: Primary, peer Secondary, in sync",
        "  mounted at /srv/store1",
        "  app: RUNNING",
        "  epoch 1, owned by node1",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in {text}");
    }

    let text = run(&cluster, "node1", WHO_HOLDS, &["/srv/store1"]);
    assert!(text.contains("process "), "{text}");
    assert_eq!(
        run(&cluster, "node2", WHO_HOLDS, &["/dev/shm"]).trim(),
        "nobody"
    );

    // What runs is what is written; then it is not; then it is made so.
    let adjust = |rest: &[&str]| {
        let arguments = [&["r0", "node1"], rest].concat();
        run(&cluster, "node1", ADJUST, &arguments)
    };
    assert_eq!(adjust(&[]), "");
    let more = DRBD_CONF.replace("net {", "net { max-buffers 4000;");
    cluster
        .node("node1")
        .write_file("/etc/drbd.conf", more, 0o600)
        .unwrap();
    assert!(adjust(&[]).contains("max-buffers"));
    assert!(adjust(&["--run"]).contains("max-buffers"));
    assert_eq!(adjust(&[]), "");

    // A handover by two programs that are not ours.
    let take = Command::new(HAND_OVER).args(["take", "r0", "node2"]);
    let take = cluster.node("node2").spawn(take).unwrap();
    // The giving side waits for the taking side, so no order is needed but that both run.
    run(&cluster, "node1", HAND_OVER, &["give", "r0", "node1"]);
    let taken = take.wait(DEADLINE).unwrap();
    assert!(
        taken.status.success(),
        "{}{}",
        taken.stdout_text(),
        taken.stderr_text()
    );
    cluster.assert_serves("node2");

    // Nobody does anything, and yet node1 serves after node2 was lost.
    let arguments = ["r0", "node1", "1"];
    let watch = Command::new(AUTOMATIC_TAKEOVER).args(arguments);
    let watch = cluster.node("node1").spawn(watch).unwrap();
    cluster.node("node2").kill().unwrap();
    let watched = watch.wait(DEADLINE).unwrap();
    let text = watched.stdout_text();
    assert!(watched.status.success(), "{text}{}", watched.stderr_text());
    assert!(text.contains("r0: peer lost"), "{text}");
    assert!(text.contains("evidence: node2 was "), "{text}");
    cluster.assert_serves("node1");

    let node = cluster.node("node1");
    let lxcpath = "/srv/store1/containers";
    node.run_ok(["/usr/bin/lxc-stop", "-P", lxcpath, "-n", "app", "-k"])
        .unwrap();
    let text = run(&cluster, "node1", SNAPSHOT_BEFORE_START, &[lxcpath, "app"]);
    let label = text.lines().next().unwrap();
    let label = label.strip_prefix("kept as ").unwrap();
    let list = node
        .run_ok(["/usr/bin/btrfs", "subvolume", "list", "-r", "/srv/store1"])
        .unwrap()
        .stdout_text();
    let kept = format!("containers/app/before/{label}");
    assert!(list.contains(&kept), "{list}");
    assert!(text.contains("app: RUNNING"), "{text}");
}
