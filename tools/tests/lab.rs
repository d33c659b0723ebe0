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
