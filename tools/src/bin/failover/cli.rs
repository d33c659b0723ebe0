//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Failover of LXC containers on Btrfs on DRBD: checked, planned, resumable.
///
/// Every command that changes something gathers facts, makes a plan, prints it
/// and then runs it. A plan that does not hold is refused with all reasons at
/// once. A run that was cut short is carried on by running the same command
/// again: it looks first.
#[derive(Debug, Parser)]
#[command(name = "failover", version, max_term_width = 100, after_help = EXIT)]
pub(crate) struct Cli {
    /// The placement file.
    #[arg(long, global = true, default_value = ha_failover::placement::DEFAULT_PATH, value_name = "FILE")]
    pub(crate) placement: PathBuf,
    /// This node's name [default: the host name].
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Print JSON: one document for `status` and `plan`, one event a line for what runs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// For tests: ends as by `kill -9` at `before:STEP` or `after:STEP`.
    #[arg(long, global = true, hide = true, value_name = "WHEN:STEP")]
    pub(crate) die_at: Option<String>,
}

const EXIT: &str = "\
Exit status:
  0  done, or nothing to do
  1  error: a step failed and there was nothing to undo, or undoing failed too
  2  usage
  3  refused: findings; nothing was changed
  4  undone: a step failed and everything before it was taken back
  5  unknown: a step outlived its deadline; run the same command again";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows what this node sees. Changes nothing.
    Status {
        /// Only this resource.
        resource: Option<String>,
    },
    /// Prints the plan of a command, or why it is refused, and runs nothing.
    Plan {
        #[command(subcommand)]
        request: PlanCommand,
    },
    #[command(flatten)]
    Request(RequestCommand),
    #[command(flatten)]
    Group(GroupCommand),
    /// At boot: as `up`, with time for a peer that boots too; then serves what is this node's, if the peer agrees.
    Boot {
        /// Only these resources.
        resources: Vec<String>,
    },
    /// Before the node goes down: stops what it serves and takes the resources out of the kernel.
    Shutdown {
        /// Only these resources.
        resources: Vec<String>,
    },
    /// Lists the snapshots of the mounted store.
    Snapshots {
        /// The resource.
        resource: String,
        /// Only of this container.
        container: Option<String>,
    },
    /// Reports how the space of the mounted store is used.
    Space {
        /// The resource.
        resource: String,
    },
    /// Waits until both disks are UpToDate, with progress.
    WaitSync {
        /// The resource.
        resource: String,
        /// How long.
        #[arg(long, default_value = "300s", value_parser = duration, value_name = "TIME")]
        deadline: Duration,
    },
    /// Makes a container of the placement on a Btrfs subvolume of the mounted store.
    CreateContainer {
        /// The resource.
        resource: String,
        /// The container's name.
        name: String,
        /// The tree to copy into its root file system.
        #[arg(long, value_name = "DIR")]
        rootfs: PathBuf,
        /// Its configuration in liblxc's format, without `lxc.rootfs.*`.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How long the copy may take.
        #[arg(long, default_value = "10m", value_parser = duration, value_name = "TIME")]
        deadline: Duration,
    },
}

/// What can be planned.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    #[command(flatten)]
    Request(RequestCommand),
    #[command(flatten)]
    Group(GroupCommand),
}

/// What concerns all resources.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Empties a node: run on the other one it takes everything over, run on that node it gives everything away.
    Evacuate {
        /// The node to be emptied. (The field must not be called as the global option `--node`.)
        #[arg(value_name = "NODE")]
        empty: String,
        /// A copy of the other node's placement file, to compare before anything stops.
        #[arg(long, value_name = "FILE")]
        peer_placement: Option<PathBuf>,
    },
    /// Brings each resource back to its owner in the placement: this node's part of it.
    Balance {
        /// Only take what is this node's (run this first, on both).
        #[arg(long, conflicts_with = "give")]
        take: bool,
        /// Only give away what is the other's.
        #[arg(long)]
        give: bool,
        /// A copy of the other node's placement file, to compare before anything stops.
        #[arg(long, value_name = "FILE")]
        peer_placement: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RequestCommand {
    /// Before day 0: makes one partition on each disk that drbd.conf uses by its first partition.
    Partition {
        /// The resource.
        resource: String,
        /// Dangerous: your word that what is on the disks may be destroyed.
        #[arg(long, value_name = "TEXT")]
        erase: Option<String>,
    },
    /// Takes larger disks into use, while the containers run: first on the node that does not serve, then on the one that does.
    Grow {
        /// The resource.
        resource: String,
        /// What the peer's disk offers in bytes, as `facts.backing` of its `status --json` says; refused early if that is too little.
        #[arg(long, value_name = "BYTES")]
        peer_offers: Option<u64>,
        /// Wait until the peer has the new part too.
        #[arg(long)]
        wait_sync: bool,
    },
    /// Takes over what drbdadm and lxc-start run, as it runs; on both nodes. Stops and starts nothing.
    Adopt {
        /// The resource.
        resource: String,
    },
    /// Leaves what runs to drbdadm and lxc-*, as it runs; on both nodes. Stops and starts nothing.
    HandBack {
        /// The resource.
        resource: String,
    },
    /// After a split brain, run on both nodes: gives up what the victim has written since, and keeps it aside.
    ResolveSplitBrain {
        /// The resource.
        resource: String,
        /// The node whose changes since the split are given up.
        #[arg(long, value_name = "NODE")]
        victim: String,
        /// On the victim: a directory of this node for what would be lost, as Btrfs streams.
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        /// Dangerous: your word that the victim's changes may go, and why.
        #[arg(long, value_name = "TEXT")]
        accept: String,
    },
    /// Keeps a container as it is now: a read-only snapshot in the store.
    Snapshot {
        /// The resource.
        resource: String,
        /// The container.
        container: String,
        /// The snapshot's name [default: the time, as 20261231T235959Z].
        #[arg(long)]
        name: Option<String>,
    },
    /// Makes a new container of a snapshot.
    RestoreSnapshot {
        /// The resource.
        resource: String,
        /// The container that was kept.
        container: String,
        /// The snapshot.
        name: String,
        /// The new container's name.
        #[arg(long, value_name = "NAME")]
        into: String,
    },
    /// Deletes a snapshot.
    DeleteSnapshot {
        /// The resource.
        resource: String,
        /// The container that was kept.
        container: String,
        /// The snapshot.
        name: String,
    },
    /// Loads the module, makes the mount point, creates metadata on blank disks, then as `up`.
    Prepare {
        /// The resource.
        resource: String,
    },
    /// Applies the activity log where needed, attaches, connects, looks for the peer. Never promotes.
    Up {
        /// The resource.
        resource: String,
    },
    /// Takes the resource out of the kernel; refused while it serves.
    Down {
        /// The resource.
        resource: String,
    },
    /// Day 0, once: makes this fresh disk the source, with a Btrfs, mounted, in epoch 1.
    Initialize {
        /// The resource.
        resource: String,
        /// Wait until the peer has all data.
        #[arg(long)]
        wait_sync: bool,
    },
    /// Serves what this node owns: promotes, mounts, starts the containers, or what is left of it.
    Start {
        /// The resource.
        resource: String,
    },
    /// Stops the containers, unmounts, demotes.
    Stop {
        /// The resource.
        resource: String,
    },
    /// Planned handover, the side that serves: stops, then waits for the peer or takes back.
    Release {
        /// The resource.
        resource: String,
        #[command(flatten)]
        peer: PeerPlacement,
    },
    /// Planned handover, the side that will serve: arms, waits for the peer to let go, serves.
    Handover {
        /// The resource.
        resource: String,
        #[command(flatten)]
        peer: PeerPlacement,
    },
    /// Serves without the peer's consent: fences it, promotes, mounts, starts.
    Takeover {
        /// The resource.
        resource: String,
        /// Dangerous: your word that the peer is off, in place of fencing. If it is wrong, two nodes serve.
        #[arg(long, value_name = "TEXT")]
        attest: Option<String>,
        /// Dangerous: accept that the local data may be past, and what the peer acknowledged since is lost.
        #[arg(long, value_name = "TEXT")]
        declare_data_current: Option<String>,
        /// Dangerous: promote against the fencing policy of drbd.conf.
        #[arg(long, value_name = "TEXT")]
        promote_unfenced: Option<String>,
    },
}

/// The other node's placement, to compare before anything stops.
#[derive(Debug, Args)]
pub(crate) struct PeerPlacement {
    /// A copy of the other node's placement file.
    #[arg(long, value_name = "FILE")]
    pub(crate) peer_placement: Option<PathBuf>,
    /// The digest that the other node's `status --json` shows.
    #[arg(long, value_name = "HEX", conflicts_with = "peer_placement")]
    pub(crate) peer_placement_digest: Option<String>,
}

impl RequestCommand {
    pub(crate) fn resource(&self) -> &str {
        match self {
            RequestCommand::Partition { resource, .. }
            | RequestCommand::Grow { resource, .. }
            | RequestCommand::Adopt { resource }
            | RequestCommand::HandBack { resource }
            | RequestCommand::ResolveSplitBrain { resource, .. }
            | RequestCommand::Snapshot { resource, .. }
            | RequestCommand::RestoreSnapshot { resource, .. }
            | RequestCommand::DeleteSnapshot { resource, .. }
            | RequestCommand::Prepare { resource }
            | RequestCommand::Up { resource }
            | RequestCommand::Down { resource }
            | RequestCommand::Initialize { resource, .. }
            | RequestCommand::Start { resource }
            | RequestCommand::Stop { resource }
            | RequestCommand::Release { resource, .. }
            | RequestCommand::Handover { resource, .. }
            | RequestCommand::Takeover { resource, .. } => resource,
        }
    }
}

/// `90s`, `5m`, `500ms`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    ha_failover::placement::parse_duration(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn there_is_no_force() {
        let help = Cli::command().render_long_help().to_string();
        assert!(!help.contains("force"), "{help}");
        assert!(Cli::try_parse_from(["failover", "takeover", "r0", "--force"]).is_err());
        let cli = Cli::try_parse_from(["failover", "evacuate", "node1"]).unwrap();
        assert_eq!(cli.node, None, "the node to be emptied is not this one");
        let cli = Cli::try_parse_from(["failover", "plan", "release", "r0", "--json"]).unwrap();
        assert!(cli.json && matches!(cli.command, Command::Plan { .. }));
    }
}
