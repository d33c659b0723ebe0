//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use btrfs_ops::retention::Schedule;
use clap::{Args, Parser, Subcommand};

/// Backups of LXC containers on Btrfs: snapshots, incremental sends, retention, restores.
///
/// Snapshots are DIR/CONTAINER/TIME, read-only, with the container's configuration beside them as
/// TIME.config. A target has the same layout: a directory on another Btrfs, a directory of stream
/// files, or a directory on another machine that is reached through a command.
#[derive(Debug, Parser)]
#[command(name = "backup", version, max_term_width = 100, after_help = EXIT)]
pub(crate) struct Cli {
    /// Print one JSON document.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT: &str = "\
Exit status:
  0  done, or nothing to do
  1  error
  2  usage";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Freezes containers, takes a snapshot of each, lets them go on.
    Snapshot {
        /// The containers; all that run from a subvolume if none is named.
        containers: Vec<String>,
        /// Where the containers are.
        #[arg(long, value_name = "DIR")]
        lxcpath: PathBuf,
        /// Where the snapshots go, on the same file system.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// Snapshots of running containers without freezing them.
        #[arg(long)]
        no_freeze: bool,
        /// How long freezing a container may take.
        #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
        deadline: Duration,
    },
    /// Sends what the target lacks, as differences where it can.
    Send {
        /// The containers; all if none is named.
        containers: Vec<String>,
        /// Where the snapshots are.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        #[command(flatten)]
        target: Target,
    },
    /// Receives from standard input; what `send --via` runs on the other machine.
    Receive {
        /// The directory for the snapshot.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// What it is called.
        #[arg(long, value_name = "TIME")]
        name: String,
        /// So many bytes of configuration come before the stream.
        #[arg(long, value_name = "N")]
        config_bytes: u64,
    },
    /// Lists snapshots.
    List {
        /// Where the snapshots, or their stream files, are.
        dir: PathBuf,
    },
    /// Reads stream files to their end: checksums, paths, completeness.
    Verify {
        /// Stream files, or directories with some.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Deletes snapshots, or stream files, that the policy does not ask for.
    Prune {
        /// Where they are.
        dir: PathBuf,
        /// For example "min 2d, 14d 8w *m": everything of two days, then 14 daily, 8 weekly, all
        /// monthly ones.
        #[arg(long, value_name = "POLICY")]
        policy: Schedule,
        /// Says what it would do.
        #[arg(long)]
        dry_run: bool,
        /// Keeps the newest snapshot that this target has too: the base of the next difference.
        #[command(flatten)]
        target: OptionalTarget,
    },
    /// Makes a container of a snapshot.
    Restore {
        #[command(flatten)]
        what: What,
        /// The name of the container to be made.
        #[arg(long, value_name = "NAME")]
        name: String,
    },
    /// Restores into a container that is thrown away, starts it, runs a command in it.
    RestoreTest {
        #[command(flatten)]
        what: What,
        /// The command that must succeed in the container.
        #[arg(long, default_value = "true", value_name = "COMMAND")]
        run: String,
        /// How long starting it, and how long the command, may take.
        #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
        deadline: Duration,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The directory to send to.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Keep stream files there, on whatever file system.
    #[arg(long, conflicts_with = "via")]
    pub(crate) files: bool,
    /// This program on another machine, for example "ssh host backup". Split at blanks; the
    /// directory may have some.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) via: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct OptionalTarget {
    /// A target whose last common snapshot is kept.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// It has stream files.
    #[arg(long, requires = "to", conflicts_with = "via")]
    pub(crate) files: bool,
    /// It is reached through this command.
    #[arg(long, requires = "to", value_name = "COMMAND")]
    pub(crate) via: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct What {
    /// The container whose snapshot it is.
    pub(crate) container: String,
    /// Where the snapshots, or their stream files, are.
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The snapshot [default: the newest].
    #[arg(long, value_name = "TIME")]
    pub(crate) snapshot: Option<String>,
    /// Where containers are.
    #[arg(long, value_name = "DIR")]
    pub(crate) lxcpath: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not like 500ms, 30s, 5m or 2h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let milliseconds = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}
