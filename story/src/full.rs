//! The full story: both resources, one primary on each node, several services, and every fault.

use anyhow::Result;

use crate::cluster::{Cluster, HOSTS, other};
use crate::plot::lose_and_return;

/// Tells it.
pub(crate) fn tell(cluster: &mut Cluster) -> Result<()> {
    move_both(cluster)?;
    lose_and_return(cluster, HOSTS[0].0)?;
    cluster.read_stores()?;
    partition(cluster)?;
    cold_starts(cluster)
}

/// One node is emptied for maintenance, and gets its store back.
fn move_both(cluster: &mut Cluster) -> Result<()> {
    let (first, second) = (HOSTS[0].0, HOSTS[1].0);
    cluster
        .stage
        .act(&format!("{first} is emptied: both stores on {second}"));
    cluster.hand_over("r0")?;
    cluster.stage.act("and balanced again");
    cluster.hand_over("r0")
}

/// The nodes lose sight of each other: each goes on with what it serves, nobody takes anything.
fn partition(cluster: &mut Cluster) -> Result<()> {
    cluster
        .stage
        .act("the replication link dies, both nodes live: nobody becomes a second primary");
    cluster.part_nodes()?;
    for (resource, _) in cluster.resources() {
        let owner = cluster.owner(resource)?;
        for verb in ["start", "handover"] {
            cluster.stage.failover(other(owner), &[verb, resource], 3)?;
        }
    }
    cluster.writes(200)?;
    cluster.join_nodes()?;
    cluster.writes(100)
}

/// Both nodes go down one after the other and come back in both orders: the newer data serves.
fn cold_starts(cluster: &mut Cluster) -> Result<()> {
    let (older, newer) = (HOSTS[0].0, HOSTS[1].0);
    for older_first in [true, false] {
        cluster.stage.act(&format!(
            "{older} goes down, {newer} serves on and goes down too"
        ));
        cluster.kill(older)?;
        for (resource, _) in cluster.resources() {
            if cluster.owner(resource)? == older {
                cluster.take_over(newer, resource, &[])?;
            }
        }
        cluster.writes(200)?;
        cluster.kill(newer)?;
        if older_first {
            cluster.stage.act(&format!(
                "cold start, {older} comes first: its data is old, it must not serve"
            ));
            cluster.boot(older)?;
            for (resource, _) in cluster.resources() {
                cluster.stage.failover(older, &["up", resource], 0)?;
                cluster.stage.failover(older, &["takeover", resource], 3)?;
            }
            cluster.boot(newer)?;
        } else {
            cluster
                .stage
                .act(&format!("cold start, {newer} comes first"));
            cluster.boot(newer)?;
        }
        for (resource, _) in cluster.resources() {
            cluster.stage.failover(newer, &["up", resource], 0)?;
            let verb = if older_first { "start" } else { "takeover" };
            cluster.stage.failover(newer, &[verb, resource], 0)?;
            cluster.served_by(resource, newer)?;
        }
        if older_first {
            for (resource, _) in cluster.resources() {
                cluster.stage.failover(older, &["wait-sync", resource], 0)?;
            }
        } else {
            cluster.return_of(older)?;
        }
        cluster.stage.act("balanced again");
        cluster.hand_over("r0")?;
        cluster.writes(100)?;
    }
    Ok(())
}
