//! What do subvolumes, snapshots and streams cost, compared with the bare
//! requests of the kernel and with btrfs-progs?
//!
//! Unit: milliseconds or microseconds of wall clock and of processor time,
//! median (least to most) of runs that alternate with the rival's; ratios are of
//! processor time where nothing waits for a disk. The rivals: the same requests by
//! `ioctl` and nothing around them (`raw.rs`), `btrfs`, and the crate
//! btrfs-stream for parsing. A bare process start stands beside what forks.
//! Aims, and how ours came out, are in the lines that begin with "aim".
//!
//! Without more it runs in a node of the lab, which is slow at system calls: by
//! then every rival is. To measure this machine give it a directory on a Btrfs
//! with 4 GiB of room, as root, with btrfs-progs installed:
//!
//! `BTRFS_BENCH_DIR=/mnt/btrfs cargo bench -p benches --bench btrfs`
//!
//! Behind ` -- `, `list`, `calls` or `streams` runs that part alone.

mod calls;
mod list;
mod raw;
mod streams;

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use uml_lab::Lab;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// How much of everything.
#[derive(Clone, Copy)]
struct Scale {
    samples: usize,
    subvolumes: usize,
    calls: usize,
    content: usize,
    files: usize,
}

const ONCE: Scale = Scale {
    samples: 1,
    subvolumes: 200,
    calls: 5,
    content: 2 << 20,
    files: 20,
};
const IN_NODE: Scale = Scale {
    samples: 5,
    subvolumes: 10_000,
    calls: 50,
    content: 64 << 20,
    files: 1000,
};
const HERE: Scale = Scale {
    samples: 9,
    subvolumes: 10_000,
    calls: 200,
    content: 400 << 20,
    files: 5000,
};

fn main() -> Result<()> {
    let mut arguments: Vec<_> = std::env::args().collect();
    if let [_, word, scale, parts @ ..] = &arguments[..]
        && word == "--in-node"
    {
        let scale = if scale == "once" { ONCE } else { IN_NODE };
        return all(Path::new("/mnt"), scale, parts);
    }
    // `cargo bench -- --test` and `cargo test --benches`: does it run at all?
    let once = !arguments.iter().any(|argument| argument == "--bench")
        || arguments.iter().any(|argument| argument == "--test");
    let mut parts = arguments.split_off(1);
    parts.retain(|argument| !argument.starts_with("--"));
    if let Some(dir) = std::env::var_os("BTRFS_BENCH_DIR") {
        return all(Path::new(&dir), if once { ONCE } else { HERE }, &parts);
    }
    let lab = Lab::builder()
        .name("bench-btrfs")
        .packages(["btrfs-progs"])
        .node("node1", |node| node.memory("512M").disk("2G"))
        .start()?;
    let node = lab.node("node1");
    node.run_ok([
        "sh",
        "-c",
        "mkfs.btrfs -q /dev/ubda && mount /dev/ubda /mnt",
    ])?;
    let scale = if once { "once" } else { "all" };
    let command = uml_lab::Command::new(std::env::current_exe()?)
        .args(["--in-node", scale])
        .args(parts)
        .deadline(Duration::from_secs(1800));
    print!("{}", node.run_ok(command)?.stdout_text());
    Ok(())
}

type Part = fn(&Path, Scale) -> Result<()>;

fn all(dir: &Path, scale: Scale, parts: &[String]) -> Result<()> {
    let all: [(&str, Part); 3] = [
        ("list", list::run),
        ("calls", calls::run),
        ("streams", streams::run),
    ];
    for (part, run) in all {
        if parts.is_empty() || parts.iter().any(|wanted| wanted == part) {
            run(dir, scale)?;
        }
    }
    Ok(())
}

/// Something to be timed.
type Run<'r> = (&'r str, &'r mut dyn FnMut() -> Result<()>);

/// Milliseconds, medians.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    /// Of this process and of programs that it ran, in the kernel included: on
    /// a machine that is busy with other things, the better measure.
    processor: f64,
}

impl Took {
    /// How often `rival` fits into this, in processor time; where that is
    /// counted in ticks, and was none, in wall clock.
    fn times(self, rival: Self) -> f64 {
        if self.processor > 0.0 && rival.processor > 0.0 {
            self.processor / rival.processor
        } else {
            self.wall / rival.wall
        }
    }
}

/// Runs them in turn and says what they took.
fn alternate<const N: usize>(samples: usize, runs: [Run<'_>; N]) -> Result<[Took; N]> {
    alternate_after(&mut || (), samples, runs)
}

/// The same, where each finds the processor's caches full of something else: not
/// of what the one before it left there, which serves some of them and not others.
fn alternate_cold<const N: usize>(samples: usize, runs: [Run<'_>; N]) -> Result<[Took; N]> {
    let mut other = vec![0u64; (64 << 20) / size_of::<u64>()];
    let mut fill = || other.iter_mut().step_by(8).for_each(|word| *word += 1);
    alternate_after(&mut fill, samples, runs)
}

fn alternate_after<const N: usize>(
    first: &mut dyn FnMut(),
    samples: usize,
    mut runs: [Run<'_>; N],
) -> Result<[Took; N]> {
    let mut times: [[Vec<f64>; 2]; N] = std::array::from_fn(|_| [Vec::new(), Vec::new()]);
    for _ in 0..samples {
        for ((_, run), [wall, used]) in runs.iter_mut().zip(&mut times) {
            first();
            let (begun, before) = (Instant::now(), processor()?);
            run()?;
            used.push((processor()? - before) * 1e3);
            wall.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut took = [Took {
        wall: 0.0,
        processor: 0.0,
    }; N];
    for (((name, _), [wall, used]), took) in runs.iter().zip(&mut times).zip(&mut took) {
        took.wall = show(name, wall, "ms");
        took.processor = show("processor time", used, "ms");
    }
    Ok(took)
}

/// Seconds of processor time that this process and its ended children used.
fn processor() -> Result<f64> {
    let mut sum = 0.0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            sum += time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        }
    }
    Ok(sum)
}

fn show(name: &str, times: &mut [f64], unit: &str) -> f64 {
    times.sort_by(f64::total_cmp);
    let (least, most) = (times[0], times[times.len() - 1]);
    let median = times[times.len() / 2];
    println!("{name:>44}: {median:9.3} {unit} ({least:.3} to {most:.3})");
    median
}

fn aim(what: &str, reached: f64, aim: &str) {
    println!("aim: {what}: {reached:.2} ({aim})");
}

fn quiet(program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Result<()> {
    let mut command = Command::new(program);
    arguments.iter().for_each(|argument| {
        command.arg(argument);
    });
    let status = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    status
        .success()
        .then_some(())
        .ok_or_else(|| format!("{program}: {status}").into())
}
