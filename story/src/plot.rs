//! The plot: the story as it is told, and the four ways in which it is broken on purpose.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::by_hand;
use crate::cluster::{Cluster, other};
use crate::ending::{Cause, Ending};
use crate::full;
use crate::stage::Changes;

/// The resource of the short story, and of every sabotage.
const R0: &str = "r0";

/// Which story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// One resource, one service: handover, loss, takeover, return.
    Short,
    /// Both resources, several services, and more that goes wrong.
    Full,
    /// One service; both nodes lose power in mid-write, this many times, each time by the next seed.
    PowerCuts {
        /// The first seed.
        seed: u64,
        /// How many times.
        times: u64,
        /// Whether the workload makes a record durable before it acknowledges it.
        fsync: bool,
    },
    /// One service, moved by `failover` and by the commands of the post in turn.
    ByHand {
        /// How many times there and back with each.
        rounds: u64,
    },
    /// Broken on purpose: protocol A, and the link dies just before the node does.
    ProtocolA,
    /// Broken on purpose: a node that missed the newest writes is made to take over.
    StaleTakeover,
    /// Broken on purpose: a node takes over because somebody swears that the other one is off, which
    /// it is not.
    TwoOwners,
}

/// Plays a story.
pub fn play(plot: Plot) -> Result<Ending> {
    let begin = Instant::now();
    let changes = Changes {
        protocol_a: plot == Plot::ProtocolA,
        no_fsync: matches!(plot, Plot::PowerCuts { fsync: false, .. }),
        full: plot == Plot::Full,
        power_cut: matches!(plot, Plot::PowerCuts { .. }),
        by_hand: matches!(plot, Plot::ByHand { .. }),
    };
    let mut cluster = Cluster::begin(begin, changes)?;
    let played = match plot {
        Plot::Short => short(&mut cluster),
        Plot::Full => full::tell(&mut cluster),
        Plot::PowerCuts { seed, times, .. } => power_cuts(&mut cluster, seed, times),
        Plot::ByHand { rounds } => by_hand::compare(&mut cluster, R0, rounds),
        Plot::ProtocolA => protocol_a(&mut cluster),
        Plot::StaleTakeover => stale_takeover(&mut cluster),
        Plot::TwoOwners => two_owners(&mut cluster),
    };
    match played {
        Ok(()) => cluster.end(),
        Err(error) => {
            cluster.show_kernel_logs();
            Err(error)
        }
    }
}

/// The story itself.
fn short(cluster: &mut Cluster) -> Result<()> {
    let owner = cluster.owner(R0)?;
    let target = other(owner);
    cluster
        .stage
        .act(&format!("planned handover: {owner} -> {target}"));
    cluster.hand_over(R0)?;
    let lost = target;
    lose_and_return(cluster, lost)?;

    cluster.stage.act(&format!("handover back to {lost}"));
    cluster.hand_over(R0)?;
    cluster.writes(300)?;
    cluster.read_stores()?;
    cluster
        .stage
        .act("once more, so that the other copy is read as well");
    cluster.hand_over(R0)?;
    let enough = 2000_usize.saturating_sub(cluster.acknowledged());
    cluster.writes(enough.max(100))
}

/// `lost` is lost in mid-write, the other node takes over what it served, and `lost` returns.
pub(crate) fn lose_and_return(cluster: &mut Cluster, lost: &'static str) -> Result<()> {
    let mut taken = Vec::new();
    for (resource, _) in cluster.resources() {
        if cluster.owner(resource)? == lost {
            taken.push(resource);
        }
    }
    cluster.stage.act(&format!("{lost} is lost in mid-write"));
    let marks = cluster.marks();
    cluster.kill(lost)?;
    let target = other(lost);
    cluster
        .stage
        .act(&format!("takeover by {target}, with evidence"));
    for resource in &taken {
        cluster.take_over(target, resource, &[])?;
    }
    cluster.note_gaps(&marks, Cause::NodeLoss, &taken);
    let unanswered = cluster.note_unanswered(&marks);
    ensure!(
        unanswered > 0 || cluster.pauses(),
        "no record was on its way when {lost} was lost; nothing was shown"
    );

    cluster.stage.act(&format!(
        "{lost} returns: applies its log, resyncs, does not serve"
    ));
    cluster.return_of(lost)?;
    for resource in &taken {
        cluster.stage.failover(lost, &["start", resource], 3)?;
    }
    cluster.writes(300)
}

/// Both nodes lose power at once, and start cold: the disks hold what was flushed, and some of the
/// rest. What was answered must be there, if the workload flushed it before it answered.
fn power_cuts(cluster: &mut Cluster, seed: u64, times: u64) -> Result<()> {
    for seed in seed..seed + times {
        let owner = cluster.owner(R0)?;
        cluster
            .stage
            .act(&format!("both nodes lose power in mid-write, seed {seed}"));
        cluster.cut_power(owner, seed)?;
        cluster.cut_power(other(owner), !seed)?;
        cluster.stage.act("cold start");
        for node in [owner, other(owner)] {
            cluster.boot(node)?;
            cluster.stage.failover(node, &["up", R0], 0)?;
        }
        cluster.stage.failover(owner, &["start", R0], 0)?;
        cluster.served_by(R0, owner)?;
        cluster
            .stage
            .failover(other(owner), &["wait-sync", R0], 0)?;
    }
    Ok(())
}

/// With protocol A a write is acknowledged while the other node has not seen it.
fn protocol_a(cluster: &mut Cluster) -> Result<()> {
    let lost = cluster.owner(R0)?;
    cluster.stage.act(&format!(
        "the replication link dies, then {lost}; protocol A"
    ));
    cluster.stage.lab_does("cut the replication wire", |lab| {
        lab.wire("replication").cut_all();
        Ok(())
    })?;
    cluster.writes(40)?;
    cluster.kill(lost)?;
    cluster.take_over(other(lost), R0, &[])
}

/// The other node misses writes, and is made to serve all the same.
fn stale_takeover(cluster: &mut Cluster) -> Result<()> {
    let lost = cluster.owner(R0)?;
    let stale = other(lost);
    cluster
        .stage
        .act(&format!("{stale} is lost, {lost} goes on alone"));
    cluster.kill(stale)?;
    cluster.writes(300)?;
    cluster
        .stage
        .act(&format!("{lost} is lost too, {stale} boots alone"));
    cluster.kill(lost)?;
    cluster.boot(stale)?;
    cluster.stage.failover(stale, &["up", R0], 0)?;
    cluster
        .stage
        .act("a takeover must be refused, and is then forced by name");
    cluster.stage.failover(stale, &["takeover", R0], 3)?;
    let known = "sabotage: the data is known to be old";
    cluster.take_over(stale, R0, &["--declare-data-current", known])
}

/// Somebody swears that a node is off while it serves.
fn two_owners(cluster: &mut Cluster) -> Result<()> {
    let honest = cluster.owner(R0)?;
    let second = other(honest);
    cluster
        .stage
        .act("the replication link dies, both nodes live");
    cluster.part_nodes()?;
    cluster
        .stage
        .act(&format!("{second} is told under oath that {honest} is off"));
    let oath = "sabotage: a false oath that the peer is off";
    let takeover = ["takeover", R0, "--attest", oath];
    cluster.stage.failover(second, &takeover, 0)?;
    // Both answer to the same address now; which of them the client reaches is left to chance.
    cluster.writes(100)
}
