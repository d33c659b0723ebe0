//! The rival: the same handover with the commands of the post, between the same nodes, of the same
//! container, seen by the same client.

use anyhow::{Context, Result};

use crate::cluster::{Cluster, other};

/// Moves the store `rounds` times to the other node and back, with `failover` and then by hand.
///
/// By hand it always goes back to where it was: `failover` would refuse a Primary that nothing it
/// recorded explains.
pub(crate) fn compare(cluster: &mut Cluster, resource: &'static str, rounds: u64) -> Result<()> {
    cluster.put_by_hand()?;
    for round in 1..=rounds {
        for _ in 0..2 {
            act(cluster, resource, round, "failover")?;
            cluster.hand_over(resource)?;
        }
        for _ in 0..2 {
            act(cluster, resource, round, "the commands of the post")?;
            cluster.hand_over_by_hand(resource)?;
        }
    }
    Ok(())
}

fn act(cluster: &mut Cluster, resource: &str, round: u64, with: &str) -> Result<()> {
    let owner = cluster.owner(resource).context("nothing to move")?;
    let target = other(owner);
    cluster
        .stage
        .act(&format!("round {round}, with {with}: {owner} -> {target}"));
    Ok(())
}
