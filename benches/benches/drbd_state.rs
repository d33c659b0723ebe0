//! What does it cost to ask DRBD for its state, compared with drbdsetup?
//!
//! Unit: milliseconds for one query in a lab node with 1, 100 and 1 000
//! resources of one volume each: `Drbd::snapshot`, a watcher's model read
//! again, `drbdsetup status`, and `/bin/true` for what a program costs at
//! all. Ratios count, and only within a run: a user-mode kernel is slow at
//! system calls, of which a state of N objects takes about N + 30 (one receive
//! for each object and each of four dumps; drbdsetup takes two for each).
//!
//! `cargo bench -p benches --bench drbd_state`

use drbd_nl::{
    DeviceOptions, Drbd, Minor, NodeId, Operation, ResourceName, ResourceOptions, VolumeNumber,
};
use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};
use uml_lab::Lab;

const LIMIT: Duration = Duration::from_secs(300);

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::var("COUNTS").is_ok() {
        return inside();
    }
    // `cargo bench -- --test` and `cargo test --benches`: does it run at all?
    let once = !std::env::args().any(|arg| arg == "--bench")
        || std::env::args().any(|arg| arg == "--test");
    let lab = Lab::builder()
        .name("bench-drbd")
        .packages(["drbd-utils"])
        .node("node1", |n| n.memory("512M").disk("16M"))
        .start()?;
    let node = lab.node("node1");
    node.load_module("drbd", ["usermode_helper=/bin/true"])?;
    let program = std::env::current_exe()?;
    let counts = if once { "1,10" } else { "1,100,1000" };
    let output = node.run_ok(
        uml_lab::Command::new(&program)
            .env("COUNTS", counts)
            .env("SAMPLES", if once { "1" } else { "5" })
            .deadline(Duration::from_secs(1800)),
    )?;
    print!("{}", output.stdout_text());
    Ok(())
}

/// Median of so many runs, in milliseconds.
fn median(
    samples: usize,
    mut run: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..samples {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn program(name: &str, args: &[&str]) -> Result<(), Box<dyn Error>> {
    let output = Command::new(name).args(args).output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{name}: {output:?}").into())
    }
}

fn inside() -> Result<(), Box<dyn Error>> {
    let drbd = Drbd::open()?;
    let samples: usize = std::env::var("SAMPLES")?.parse()?;
    println!("median of {samples}, milliseconds; how often drbdsetup's time ours is");
    println!("resources  snapshot  watcher  drbdsetup status  /bin/true  ratio");
    let mut made = 0;
    for count in std::env::var("COUNTS")?.split(',') {
        let count: u32 = count.parse()?;
        while made < count {
            let resource = ResourceName::new(&format!("r{made:04}"))?;
            for operation in [
                Operation::NewResource {
                    resource: resource.clone(),
                    node_id: Some(NodeId(0)),
                    options: ResourceOptions::new(),
                },
                Operation::NewMinor {
                    resource,
                    volume: VolumeNumber(0),
                    minor: Minor(made),
                    options: DeviceOptions::new(),
                },
            ] {
                let outcome = drbd.run(&operation, LIMIT)?;
                assert_eq!(outcome, drbd_nl::Outcome::Done, "{operation}");
            }
            made += 1;
        }
        let mut watcher = drbd.watch()?;
        let snapshot = median(samples, || {
            let state = drbd.snapshot(LIMIT)?;
            assert_eq!(state.resources.len(), usize::try_from(count)?);
            Ok(())
        })?;
        let model = median(samples, || {
            watcher.refresh()?;
            Ok(())
        })?;
        let theirs = median(samples, || program("drbdsetup", &["status", "--verbose"]))?;
        let nothing = median(samples, || program("/bin/true", &[]))?;
        println!(
            "{count:>9}  {snapshot:>8.2}  {model:>7.2}  {theirs:>16.2}  {nothing:>9.2}  {:>5.1}",
            theirs / snapshot
        );
    }
    Ok(())
}
