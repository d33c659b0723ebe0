//! `failover` on two real nodes: the story, crashes, refusals.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::Cluster;

/// Day 0, handover, loss of the owner, takeover, return, handover back.
#[test]
fn the_story() {
    let Some(cluster) = Cluster::boot("failover-story") else {
        return;
    };
    cluster.serve();
    cluster.assert_serves("node1");
    assert_eq!(cluster.epochs("node1"), "node1 1\n");

    // Planned handover.
    let (source, target) = cluster.hand_over("node1", "node2");
    let source = source.ok("release").show("release");
    let target = target.ok("handover").show("handover");
    assert_eq!(target.end()["epoch"], 2, "{target:#?}");
    assert!(source.end()["gap_ms"].as_u64().is_some());
    cluster.assert_serves("node2");
    assert_eq!(cluster.epochs("node2"), "node1 1\nnode2 2\n");
    // Run again, both sides find nothing to do.
    assert!(
        cluster
            .failover("node1", &["release", "r0"])
            .ok("again")
            .steps()
            .is_empty()
    );
    assert!(
        cluster
            .failover("node2", &["handover", "r0"])
            .ok("again")
            .steps()
            .is_empty()
    );
    // The owner cannot be started twice.
    let refused = cluster.failover("node1", &["start", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["peer-primary".to_owned()])
    );
    // Nothing is taken from a living peer.
    let refused = cluster.failover("node1", &["takeover", "r0"]);
    assert_eq!(refused.status, Some(3), "{refused:#?}");
    assert!(
        refused.codes().contains(&"peer-connected".to_owned()),
        "{refused:#?}"
    );

    // Loss of the owner, and takeover on the fence agent's evidence.
    cluster.node("node2").kill().unwrap();
    let taken = cluster
        .failover("node1", &["takeover", "r0"])
        .ok("takeover")
        .show("takeover");
    assert_eq!(taken.end()["epoch"], 3, "{taken:#?}");
    let evidence = taken
        .events
        .iter()
        .find(|e| e["event"] == "evidence")
        .unwrap();
    assert!(
        evidence["text"]
            .as_str()
            .unwrap()
            .contains("reads back off"),
        "{evidence}"
    );
    cluster.assert_serves("node1");
    assert!(cluster.epochs("node1").ends_with("node1 3\n"));

    // The dead node returns while the link is down: DRBD alone would let it serve stale data.
    cluster.lab.wire("repl").cut_all();
    cluster.reboot("node2");
    let up = cluster.failover("node2", &["up", "r0"]).ok("up");
    assert!(
        up.steps().contains(&"apply-activity-log".to_owned()),
        "{up:#?}"
    );
    assert_eq!(
        cluster.status("node2")["facts"]["drbd"]["volumes"]["0"]["disk"],
        "UpToDate"
    );
    let refused = cluster.failover("node2", &["start", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["ask-the-peer".to_owned()])
    );
    let refused = cluster.failover("node2", &["handover", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["not-connected".to_owned()])
    );
    let refused = cluster.failover("node2", &["plan", "takeover", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["data-may-be-stale".to_owned()])
    );

    // The link comes back: it resyncs, and still does not serve.
    cluster.lab.wire("repl").heal_all();
    cluster
        .failover("node2", &["wait-sync", "r0", "--deadline", "120s"])
        .ok("resync");
    let refused = cluster.failover("node2", &["start", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["peer-primary".to_owned()])
    );
    cluster.assert_serves("node1");

    // And back.
    let (source, target) = cluster.hand_over("node1", "node2");
    source.ok("release back");
    let target = target.ok("handover back");
    assert_eq!(target.end()["epoch"], 4);
    cluster.assert_serves("node2");
    assert_eq!(
        cluster.epochs("node2"),
        "node1 1\nnode2 2\nnode1 3\nnode2 4\n"
    );
}

/// With a fencing policy in drbd.conf the kernel asks `drbd-helper`, which answers "off" only on evidence.
#[test]
fn fencing_policy() {
    let conf = common::DRBD_CONF.replace(
        "protocol C;",
        "protocol C;\n    disk { fencing resource-and-stonith; }",
    );
    let Some(cluster) = Cluster::boot_with("failover-fencing", &conf, common::PLACEMENT) else {
        return;
    };
    cluster.serve();
    // The module calls another program: said before anything is configured with it.
    let parameter = "/sys/module/drbd/parameters/usermode_helper";
    let node = cluster.node("node2");
    let ours = node.read_file(parameter).unwrap();
    node.write_file(
        "/run/set-helper",
        format!("printf %s /bin/true > {parameter}"),
        0o755,
    )
    .unwrap();
    node.run_ok(["/bin/busybox", "sh", "/run/set-helper"])
        .unwrap();
    let refused = cluster.failover("node2", &["up", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["module-helper-differs".to_owned()])
    );
    let back = format!(
        "printf %s {} > {parameter}",
        String::from_utf8(ours).unwrap().trim()
    );
    node.write_file("/run/set-helper", back, 0o755).unwrap();
    node.run_ok(["/bin/busybox", "sh", "/run/set-helper"])
        .unwrap();

    cluster.node("node1").kill().unwrap();
    cluster
        .failover("node2", &["takeover", "r0"])
        .ok("takeover")
        .show("takeover, fencing");
    cluster.assert_serves("node2");
    let log = node
        .run_ok(["/bin/busybox", "dmesg"])
        .unwrap()
        .stdout_text();
    assert!(log.contains("fence-peer helper returned 7"), "{log}");
    assert!(
        node.read_file("/run/ha-failover/fenced/r0").is_err(),
        "the word is taken back"
    );
}

/// What the dangerous options are for, and what they cost: a wrong word makes two owners.
#[test]
fn dangerous_options() {
    let Some(cluster) = Cluster::boot("failover-danger") else {
        return;
    };
    cluster.serve();
    cluster.lab.wire("repl").cut_all();
    // Saying nothing is not an attestation.
    let usage = cluster.failover("node2", &["takeover", "r0", "--attest", "yes"]);
    assert_eq!(usage.status, Some(2), "{usage:#?}");
    let mut taken = cluster.failover(
        "node2",
        &[
            "takeover",
            "r0",
            "--attest",
            "the test: node1 is off (it is not)",
        ],
    );
    for _ in 0..10 {
        if taken.codes() != ["peer-connected", "peer-primary"] {
            break;
        }
        // DRBD notices a silent link after its ping interval.
        std::thread::sleep(std::time::Duration::from_secs(2));
        taken = cluster.failover(
            "node2",
            &[
                "takeover",
                "r0",
                "--attest",
                "the test: node1 is off (it is not)",
            ],
        );
    }
    let taken = taken.ok("takeover on a wrong word");
    let plan = taken.events.iter().find(|e| e["event"] == "plan").unwrap();
    assert!(
        plan["plan"]["findings"]
            .to_string()
            .contains("attested-only"),
        "{plan}"
    );
    let record = cluster
        .node("node2")
        .read_file("/srv/store1/.ha-failover/owner.json")
        .unwrap();
    assert!(
        String::from_utf8(record)
            .unwrap()
            .contains("the test: node1 is off")
    );
    let begun = std::time::Instant::now();
    while cluster.serving() != ["node1", "node2"] {
        assert!(
            begun.elapsed() < common::DEADLINE,
            "two owners, as the option says"
        );
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    // Both write: for DRBD 9 two that are Primary are no split brain before that.
    for node in ["node1", "node2"] {
        let write = "echo $$ > /srv/store1/written; sync";
        let node = cluster.node(node);
        node.run_ok(["/bin/busybox", "sh", "-c", write]).unwrap();
    }
    // The link comes back: DRBD gives the connection up and tells its handler, and we say what that means.
    cluster.lab.wire("repl").heal_all();
    for node in ["node1", "node2"] {
        let begun = std::time::Instant::now();
        loop {
            let refused = cluster.failover(node, &["plan", "release", "r0"]);
            assert_eq!(refused.status, Some(3));
            if refused.codes().contains(&"split-brain".to_owned()) {
                break;
            }
            assert!(begun.elapsed() < common::DEADLINE, "{refused:#?}");
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
    }

    // node2's changes are given up, and kept aside as what everybody can read.
    let accept = [
        "--victim",
        "node2",
        "--accept",
        "the test: node2 was not asked",
    ];
    let resolve = [&["resolve-split-brain", "r0"], &accept[..]].concat();
    let refused = cluster.failover("node2", &resolve);
    assert_eq!(refused.codes(), ["nothing-kept"], "{refused:#?}");
    let mut survivor = cluster.spawn("node1", &resolve);
    survivor.until("await-victim");
    // The other one is not at it yet, and meets the survivor as it is: DRBD finds the same again.
    let told = "/run/ha-failover/split-brain";
    let busybox = |script: String| {
        let command = ["/bin/busybox", "sh", "-c", &script];
        cluster.node("node1").run_ok(command).unwrap();
    };
    busybox(format!("rm {told}/*"));
    let up = ["up", "r0", "--die-at", "before:settle"];
    let killed = cluster.failover("node2", &up);
    assert_eq!(killed.status, None, "{killed:#?}");
    busybox(format!("until ls {told}/*; do sleep 0.1; done"));
    let keep = [&resolve[..], &["--keep", "/run/kept"]].concat();
    cluster
        .failover("node2", &keep)
        .ok("resolve, victim")
        .show("victim");
    survivor.wait().ok("resolve, survivor");
    cluster.failover("node2", &["wait-sync", "r0"]).ok("resync");
    cluster.assert_serves("node1");
    assert_eq!(
        cluster.epochs("node1"),
        "node1 1\n",
        "nothing of node2 is left in the store"
    );
    let node1 = cluster.node("node1");
    let node2 = cluster.node("node2");
    let stream = node2.read_file("/run/kept/r0/container-app.btrfs").unwrap();
    node1.write_file("/run/app.btrfs", stream, 0o600).unwrap();
    node1
        .run_ok([
            "/bin/btrfs",
            "receive",
            "-f",
            "/run/app.btrfs",
            "/srv/store1",
        ])
        .unwrap();
    let kept = node1.read_file("/srv/store1/container-app/epochs").unwrap();
    assert_eq!(String::from_utf8(kept).unwrap(), "node1 1\nnode2 2\n");
    // Run again, nothing is to do.
    let again = cluster.failover("node2", &keep).ok("again");
    assert!(again.steps().is_empty(), "{again:#?}");
}
