//! The full story: both resources, one primary on each node, several services, and more that goes wrong.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, HOSTS, RESOURCES, other};
use crate::ending::Cause;
use crate::plot::lose_and_return;

/// What r1's disks have, in bytes, after they were changed for larger ones. Btrfs takes no new size below
/// 256 MiB.
const GROWN: u64 = 320 << 20;

/// Tells it.
pub(crate) fn tell(cluster: &mut Cluster) -> Result<()> {
    snapshots(cluster)?;
    evacuate(cluster)?;
    lose_and_return(cluster, HOSTS[0].0)?;
    cluster.read_stores()?;
    balance(cluster)?;
    partition(cluster)?;
    hang(cluster)?;
    cold_starts(cluster)?;
    grow(cluster)?;
    split_brain(cluster)
}

/// A container is kept, restored as another one, and the snapshot deleted, while it serves on.
fn snapshots(cluster: &mut Cluster) -> Result<()> {
    let owner = cluster.owner("r0")?;
    let stage = &mut cluster.stage;
    stage.act("a snapshot of the database's container: kept, restored, deleted");
    stage.failover(owner, &["snapshot", "r0", "db", "--name", "monday"], 0)?;
    let list = stage.failover(owner, &["snapshots", "r0"], 0)?;
    let first = list.lines().next().unwrap_or_default();
    let list: Value = serde_json::from_str(first).context("the list of snapshots")?;
    ensure!(
        list["snapshots"]["db"][0]["name"] == "monday",
        "the snapshot is not listed: {list}"
    );
    let restore = [
        "restore-snapshot",
        "r0",
        "db",
        "monday",
        "--into",
        "db-monday",
    ];
    stage.failover(owner, &restore, 0)?;
    stage.failover(owner, &["space", "r0"], 0)?;
    stage.failover(owner, &["delete-snapshot", "r0", "db", "monday"], 0)?;
    cluster.restored("r0", "db", "db-monday")?;
    cluster.writes(100)
}

/// One node is emptied, as for maintenance, and gets its store back.
fn evacuate(cluster: &mut Cluster) -> Result<()> {
    let (empty, target) = (HOSTS[0].0, HOSTS[1].0);
    cluster
        .stage
        .act(&format!("{empty} is emptied: both stores on {target}"));
    let marks = cluster.marks();
    let armed = cluster.stage.begin_failover(target, &["evacuate", empty])?;
    armed.wait_for_step("await-peer-secondary")?;
    cluster.stage.failover(empty, &["evacuate", empty], 0)?;
    cluster.stage.finish(armed, 0)?;
    cluster.served_by("r0", target)?;
    cluster.note_gaps(&marks, Cause::Planned, &["r0"]);
    balance(cluster)
}

/// Every store goes back to the node that the placement names.
fn balance(cluster: &mut Cluster) -> Result<()> {
    let mut moved = Vec::new();
    for (resource, home) in RESOURCES {
        let owner = cluster.owner(resource)?;
        if owner != home {
            moved.push((resource, owner, home));
        }
    }
    for (resource, from, home) in moved {
        cluster
            .stage
            .act(&format!("balanced: {resource} goes home to {home}"));
        let marks = cluster.marks();
        let armed = cluster.stage.begin_failover(home, &["balance", "--take"])?;
        armed.wait_for_step("await-peer-secondary")?;
        cluster.stage.failover(from, &["balance", "--give"], 0)?;
        cluster.stage.finish(armed, 0)?;
        cluster.served_by(resource, home)?;
        cluster.note_gaps(&marks, Cause::Planned, &[resource]);
    }
    Ok(())
}

/// The nodes lose sight of each other: each goes on with what it serves, nobody takes anything.
fn partition(cluster: &mut Cluster) -> Result<()> {
    cluster
        .stage
        .act("the replication link dies, both nodes live: nobody becomes a second primary");
    cluster.part_nodes()?;
    for (resource, _) in RESOURCES {
        let owner = cluster.owner(resource)?;
        for verb in ["start", "handover"] {
            cluster.stage.failover(other(owner), &[verb, resource], 3)?;
        }
    }
    cluster.writes(100)?;
    cluster.join_nodes()?;
    cluster.writes(100)?;
    cluster.read_stores()
}

/// A node stands still for longer than DRBD waits, and goes on as if nothing had been.
fn hang(cluster: &mut Cluster) -> Result<()> {
    let (still, awake) = (HOSTS[0].0, HOSTS[1].0);
    cluster.stage.act(&format!("{still} hangs, and goes on"));
    cluster
        .stage
        .lab_does(&format!("hang: {still}"), |lab| lab.node(still).hang())?;
    for (resource, owner) in RESOURCES {
        cluster.await_status(awake, resource, "loss of the link", |status| {
            status["facts"]["drbd"]["link"] != "Connected"
        })?;
        if owner == awake {
            continue;
        }
        // Nothing is known about it: asking the peer leads nowhere, and is refused.
        cluster.stage.failover(awake, &["start", resource], 3)?;
    }
    cluster
        .stage
        .lab_does(&format!("resume: {still}"), |lab| lab.node(still).resume())?;
    for (resource, owner) in RESOURCES {
        cluster
            .stage
            .failover(other(owner), &["wait-sync", resource], 0)?;
    }
    cluster.writes(100)?;
    cluster.read_stores()
}

/// Both nodes go down one after the other and come back in both orders: the newer data serves.
fn cold_starts(cluster: &mut Cluster) -> Result<()> {
    let (older, newer) = (HOSTS[0].0, HOSTS[1].0);
    for first in [older, newer] {
        cluster.stage.act(&format!(
            "{older} goes down, {newer} serves on and goes down too"
        ));
        cluster.kill(older)?;
        for (resource, _) in RESOURCES {
            if cluster.owner(resource)? == older {
                cluster.take_over(newer, resource, &[])?;
            }
        }
        cluster.writes(100)?;
        cluster.kill(newer)?;
        if first == older {
            cluster.change_disks("r1", GROWN)?;
        }
        cluster.stage.act(&format!(
            "cold start, {first} comes first: alone it cannot know that its data is the newest"
        ));
        cluster.boot(first)?;
        for (resource, _) in RESOURCES {
            cluster.stage.failover(first, &["up", resource], 0)?;
            cluster.stage.failover(first, &["takeover", resource], 3)?;
        }
        cluster
            .stage
            .act(&format!("{} comes too, {newer} serves", other(first)));
        cluster.boot(other(first))?;
        for (resource, _) in RESOURCES {
            cluster.stage.failover(other(first), &["up", resource], 0)?;
        }
        for (resource, _) in RESOURCES {
            cluster.stage.failover(newer, &["start", resource], 0)?;
        }
        for (resource, _) in RESOURCES {
            cluster.served_by(resource, newer)?;
        }
        for (resource, _) in RESOURCES {
            cluster.stage.failover(older, &["wait-sync", resource], 0)?;
        }
        cluster.read_stores()?;
        balance(cluster)?;
    }
    Ok(())
}

/// The larger disks that came while both nodes were off are taken into use, under the running service.
fn grow(cluster: &mut Cluster) -> Result<()> {
    let resource = "r1";
    let owner = cluster.owner(resource)?;
    cluster.stage.act(&format!(
        "{resource} grows: partitions, DRBD, Btrfs, while it serves"
    ));
    for arguments in [
        (other(owner), &["grow", resource][..]),
        (owner, &["grow", resource, "--wait-sync"]),
    ] {
        cluster.stage.failover(arguments.0, arguments.1, 0)?;
    }
    for (host, _) in HOSTS {
        let status = cluster.status(host, resource)?;
        let size = status["facts"]["drbd"]["volumes"]["0"]["size"].as_u64();
        // Partitions begin at 1 MiB, and DRBD's metadata is at their end.
        ensure!(
            size.is_some_and(|size| size > GROWN - (2 << 20)),
            "{host}: {resource} has {size:?} bytes"
        );
    }
    cluster.writes(100)?;
    cluster.read_stores()
}

/// Made on purpose: somebody swears falsely, both nodes serve, and one side is given up, but kept
/// aside. Its client has stopped before: what is written here is on the loser's account.
fn split_brain(cluster: &mut Cluster) -> Result<()> {
    let resource = "r1";
    let survivor = cluster.owner(resource)?;
    let victim = other(survivor);
    cluster.stage.act(&format!(
        "split brain on purpose: {resource}'s client stops, and {victim} is told that {survivor} is off"
    ));
    cluster.retire(resource)?;
    cluster.part_nodes()?;
    let oath = "the full story: a false oath that the peer is off";
    cluster
        .stage
        .failover(victim, &["takeover", resource, "--attest", oath], 0)?;
    let kept = "/var/lib/ha-failover/kept";
    let mark = "/srv/store2/containers/web/rootfs/data/mark";
    for node in [survivor, victim] {
        cluster
            .stage
            .lab
            .node(node)
            .write_file(mark, format!("written on {node}"), 0o644)?;
    }
    cluster.stage.lab_does("heal the replication wire", |lab| {
        lab.wire("replication").heal_all();
        Ok(())
    })?;
    for node in [survivor, victim] {
        cluster.await_status(node, resource, "split brain", |status| {
            status["facts"]["split_brain"].is_string()
        })?;
    }
    cluster.stage.act(&format!(
        "resolved: {victim}'s changes are given up, and kept aside"
    ));
    let reason = "the full story: it was told a lie";
    let resolve = [
        "resolve-split-brain",
        resource,
        "--victim",
        victim,
        "--accept",
        reason,
    ];
    let waits = cluster.stage.begin_failover(survivor, &resolve)?;
    waits.wait_for_step("await-victim")?;
    let keep = [&resolve[..], &["--keep", kept]].concat();
    cluster.stage.failover(victim, &keep, 0)?;
    cluster.stage.finish(waits, 0)?;
    cluster
        .stage
        .failover(victim, &["wait-sync", resource], 0)?;
    let stream = format!("{kept}/{resource}/container-web.btrfs");
    let stream = cluster.stage.lab.node(victim).read_file(&stream)?;
    let lost = format!("written on {victim}");
    ensure!(
        stream
            .windows(lost.len())
            .any(|part| part == lost.as_bytes()),
        "what {victim} wrote is not in what was kept"
    );
    let mark = cluster.stage.lab.node(survivor).read_file(mark)?;
    ensure!(
        mark == format!("written on {survivor}").into_bytes(),
        "{survivor} does not hold what it wrote"
    );
    cluster.join_nodes()?;
    cluster.writes(100)
}
