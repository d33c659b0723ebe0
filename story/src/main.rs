//! `./demo`: plays the story on real nodes, prints plans, timeline and verdict.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum, error};
use story::database;
use story::plot::{Plot, play};
use story::stage::{Changes, DATABASE, PORT, dress, kernel_log};

/// Plays the whole story of a two-node cluster on real kernels, and judges it: from blank disks to a
/// container, a planned handover, the loss of a node in mid-write, the takeover, and the return.
///
/// Exit status: 0 if nothing was lost and nobody served twice, 1 if the promise was broken, 2 if
/// the story could not be played.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Play both resources and several services: moves, lost node and link, hang, cold starts, split
    /// brain. Takes longer.
    #[arg(long, conflicts_with = "sabotage")]
    full: bool,
    /// Break the promise on purpose; the verdict must notice.
    #[arg(long, value_name = "HOW")]
    sabotage: Option<Sabotage>,
    /// Cut the power of both nodes in mid-write this many times instead; the promise must hold, unless
    /// `--sabotage no-fsync` breaks it (which cuts it twice if nothing is said here).
    #[arg(long, value_name = "TIMES", conflicts_with = "full")]
    power_cuts: Option<u64>,
    /// Move the service this many times there and back with `failover`, and as often with the commands
    /// of the post, and compare how long it is away.
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["full", "sabotage", "power_cuts"])]
    by_hand: Option<u64>,
    /// The seed of the first power cut: which of the writes that were not flushed survive it.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Write verdict, downtimes and timeline as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the timeline as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// A promise that is broken on purpose, to show that the verdict can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sabotage {
    /// The workload acknowledges records that are not durable, and both nodes lose power.
    NoFsync,
    /// The resource is replicated with protocol A, and the link dies just before the node does.
    ProtocolA,
    /// A node that missed the newest writes is made to take over.
    StaleTakeover,
    /// A node takes over because somebody swears that the other one is off, which it is not.
    TwoOwners,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// What the demo runs inside the nodes.
    #[command(hide = true, subcommand)]
    InNode(InNode),
}

#[derive(Debug, Subcommand)]
enum InNode {
    /// Puts the files, disks and bridge in place that the story begins with.
    Dress {
        /// Address of the bridge, with the length of its prefix.
        address: String,
        #[command(flatten)]
        changes: Changes,
    },
    /// Prints what the node's kernel has said.
    KernelLog,
    /// Serves records from a database, as the init of its container.
    Database,
    /// Checks a database and prints its records.
    ReadDatabase {
        /// The database.
        path: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("\nthe story could not be played: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    if let Some(Part::InNode(part)) = &options.part {
        match part {
            InNode::Dress { address, changes } => dress(address, *changes)?,
            InNode::KernelLog => print!("{}", kernel_log()?),
            InNode::Database => database::serve(Path::new(DATABASE), PORT)?,
            InNode::ReadDatabase { path } => {
                for (writer, lines) in database::read(path)? {
                    for line in String::from_utf8_lossy(&lines).lines() {
                        println!("{writer} {line}");
                    }
                }
            }
        }
        return Ok(true);
    }
    let seed = options.seed;
    let cuts = |times, fsync| Plot::PowerCuts { seed, times, fsync };
    let plot = match (options.sabotage, options.power_cuts) {
        (Some(Sabotage::NoFsync), times) => cuts(times.unwrap_or(2), false),
        (Some(_), Some(_)) => Options::command()
            .error(
                error::ErrorKind::ArgumentConflict,
                "--power-cuts goes with --sabotage no-fsync alone",
            )
            .exit(),
        (Some(Sabotage::ProtocolA), None) => Plot::ProtocolA,
        (Some(Sabotage::StaleTakeover), None) => Plot::StaleTakeover,
        (Some(Sabotage::TwoOwners), None) => Plot::TwoOwners,
        (None, Some(times)) => cuts(times, true),
        (None, None) if options.full => Plot::Full,
        (None, None) => match options.by_hand {
            Some(rounds) => Plot::ByHand { rounds },
            None => Plot::Short,
        },
    };
    let ending = play(plot)?;
    println!("\n{ending}");
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&ending).context("writing the result as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, ending.to_svg()).with_context(|| path.display().to_string())?;
    }
    let kept = ending.verdict.kept();
    match (options.sabotage, kept) {
        (None, true) => println!("The promise was kept: nothing lost, one owner at any time."),
        (None, false) => println!("THE PROMISE WAS BROKEN."),
        (Some(_), false) => println!("The sabotage shows, as it must."),
        (Some(_), true) => println!("THE SABOTAGE WENT UNNOTICED."),
    }
    Ok(kept)
}
