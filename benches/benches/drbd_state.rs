//! What does it cost to ask DRBD for its state?
//!
//! Units: milliseconds and system calls for one query in a lab node with 1,
//! 100 and 1 000 resources of one volume each. Ours: `Drbd::snapshot`, which
//! keeps a deadline by a thread and looks for events meanwhile; the same
//! without a limit ("unlimited"), which takes no thread; and
//! `Watcher::refresh`, which asks on the socket it has. Rivals: a C loop that
//! sends the same dumps and receives the bytes, for each of the three, one
//! message a call and (as we do) up to 32 (it has no deadline, and opens a
//! socket for each snapshot); and `drbdsetup status`, with `/bin/true` beside
//! it for what a program costs at all. Then: how long a watcher takes from a
//! loss of events to a right model, and how often it asks for that.
//!
//! Aims: at most 1.15 times the C loop and two system calls more; 20 times
//! faster than `drbdsetup status` less `/bin/true`; one dump after a loss.
//! Ratios count, and only within a run: a user-mode kernel is slow at system
//! calls, of which a state of N objects takes one for each object in each dump.
//!
//! `cargo bench -p benches --bench drbd_state`; needs `cc`. The system calls
//! are counted by strace in a run of its own.

use benches::rival::{c_loop, median, output, samples_of, timed};
use drbd_nl::schema::cmd;
use drbd_nl::socket::{Connector, Deadline, Kernel, Received, Transport};
use drbd_nl::{
    DeviceOptions, Drbd, Minor, NodeId, Operation, ResourceName, ResourceOptions, Update,
    VolumeNumber,
};
use std::error::Error;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uml_lab::Lab;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(300);
/// Changes that a watcher does not look at before it is asked to be right.
const LOST: u32 = 100;

fn main() -> Result<()> {
    if let Ok(query) = std::env::var("QUERY") {
        return ask(&query, std::env::var("SAMPLES")?.parse()?).map(drop);
    }
    if std::env::var("COUNTS").is_ok() {
        return inside();
    }
    let once = benches::once();
    let program = std::env::current_exe()?;
    let rival = c_loop("drbd_rival")?;
    let lab = Lab::builder()
        .name("bench-drbd")
        .packages(["drbd-utils", "strace"])
        .node("node1", |n| n.memory("512M").disk("16M"))
        .start()?;
    let node = lab.node("node1");
    node.load_module("drbd", ["usermode_helper=/bin/true"])?;
    let output = node.run_ok(
        uml_lab::Command::new(&program)
            .env("COUNTS", if once { "1,10" } else { "1,100,1000" })
            .env("SAMPLES", if once { "1" } else { "9" })
            .env("RIVAL", rival.to_str().ok_or("a path that is no text")?)
            .deadline(Duration::from_secs(1800)),
    )?;
    print!("{}", output.stdout_text());
    Ok(())
}

/// Asks in one of our two ways, some times; the median.
fn ask(query: &str, samples: usize) -> Result<f64> {
    let drbd = Drbd::open()?;
    let mut watcher = drbd.watch()?;
    let times = timed(samples, || match query {
        "snapshot" => drbd.snapshot(LIMIT).map(drop).map_err(Into::into),
        "unlimited" => drbd.snapshot(Duration::MAX).map(drop).map_err(Into::into),
        _ => watcher.refresh().map(drop).map_err(Into::into),
    });
    times.map(median)
}

/// The dumps that a query takes.
fn dumps(drbd: &Drbd, query: &str) -> Vec<String> {
    let mut commands = vec![cmd::GET_INITIAL_STATE];
    if query != "refresh" {
        commands = vec![
            cmd::GET_RESOURCES,
            cmd::GET_DEVICES,
            cmd::GET_CONNECTIONS,
            cmd::GET_PEER_DEVICES,
        ];
        if drbd.family().has(cmd::GET_PATHS) {
            commands.push(cmd::GET_PATHS);
        }
    }
    commands.iter().map(ToString::to_string).collect()
}

/// The rival's command line for a query; how many messages it takes at once.
fn rival_args(drbd: &Drbd, query: &str, samples: usize, batch: usize) -> Vec<String> {
    let socket = if query == "refresh" { "once" } else { "each" };
    let mut args = vec![
        drbd.family().id.to_string(),
        samples.to_string(),
        socket.to_owned(),
        batch.to_string(),
    ];
    args.extend(dumps(drbd, query));
    args
}

/// System calls of one query: those of a run of eleven less those of a run of one.
fn system_calls(args: &[String], query: &str, times: impl Fn(usize) -> Vec<String>) -> Result<f64> {
    let mut totals = Vec::new();
    for samples in [1, 11] {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-c", "-U", "calls,name", "-o", "/tmp/calls"])
            .args(args)
            .args(times(samples))
            .env("QUERY", query)
            .env("SAMPLES", samples.to_string());
        output(&mut command)?;
        let table = std::fs::read_to_string("/tmp/calls")?;
        let total = table
            .lines()
            .find(|line| line.trim_end().ends_with("total"));
        let number = total.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        totals.push(number.ok_or_else(|| format!("strace said {table}"))?);
    }
    Ok((totals[1] - totals[0]) / 10.0)
}

fn inside() -> Result<()> {
    let drbd = Drbd::open()?;
    let samples: usize = std::env::var("SAMPLES")?.parse()?;
    let rival = std::env::var("RIVAL")?;
    let own = std::env::current_exe()?.display().to_string();
    println!("DRBD {:?}, median of {samples}", drbd.family().dialect);
    println!(
        "resources  query         ours ms  C loop ms  ratio  of 32 ms  ratio  us/resource  calls  \
         C calls  drbdsetup ms  true ms  times faster"
    );
    let mut made = 0;
    for count in std::env::var("COUNTS")?.split(',') {
        let count: u32 = count.parse()?;
        while made < count {
            make(&drbd, made)?;
            made += 1;
        }
        assert_eq!(
            drbd.snapshot(LIMIT)?.resources.len(),
            usize::try_from(count)?
        );
        let mut status = Command::new("drbdsetup");
        status.args(["status", "--verbose", "--statistics"]);
        let theirs = median(timed(samples, || output(&mut status).map(drop))?);
        let mut nothing = Command::new("/bin/true");
        let nothing = median(timed(samples, || output(&mut nothing).map(drop))?);
        for query in ["snapshot", "unlimited", "refresh"] {
            let ours = ask(query, samples)?;
            let floor = |batch| -> Result<f64> {
                let args = rival_args(&drbd, query, samples, batch);
                Ok(median(samples_of(Command::new(&rival).args(args))?))
            };
            let (floor, batched) = (floor(1)?, floor(32)?);
            let calls = system_calls(std::slice::from_ref(&own), query, |_| Vec::new())?;
            let least = system_calls(std::slice::from_ref(&rival), query, |n| {
                rival_args(&drbd, query, n, 1)
            })?;
            println!(
                "{count:>9}  {query:<10} {ours:>10.2} {floor:>10.2} {:>6.2} {batched:>9.2} {:>6.2} \
                 {:>12.1} {calls:>6.1} {least:>8.1} {theirs:>13.2} {nothing:>8.2} {:>13.1}",
                ours / floor,
                ours / batched,
                ours * 1000.0 / f64::from(count),
                (theirs - nothing) / ours
            );
        }
    }
    lose(made)
}

fn new_resource(number: u32) -> Result<Operation> {
    Ok(Operation::NewResource {
        resource: ResourceName::new(&format!("r{number:04}"))?,
        node_id: Some(NodeId(0)),
        options: ResourceOptions::new(),
    })
}

fn make(drbd: &Drbd, number: u32) -> Result<()> {
    for operation in [
        new_resource(number)?,
        Operation::NewMinor {
            resource: ResourceName::new(&format!("r{number:04}"))?,
            volume: VolumeNumber(0),
            minor: Minor(number),
            options: DeviceOptions::new(),
        },
    ] {
        let outcome = drbd.run(&operation, LIMIT)?;
        assert_eq!(outcome, drbd_nl::Outcome::Done, "{operation}");
    }
    Ok(())
}

/// The kernel, and how often its initial state was asked for.
#[derive(Clone, Debug, Default)]
struct Counted(Arc<AtomicU64>);

#[derive(Debug)]
struct CountedSocket(<Kernel as Connector>::Transport, Arc<AtomicU64>);

impl Connector for Counted {
    type Transport = CountedSocket;

    fn open(&self) -> io::Result<CountedSocket> {
        Ok(CountedSocket(Kernel.open()?, Arc::clone(&self.0)))
    }
}

impl Transport for CountedSocket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        if datagram.get(16) == Some(&cmd::GET_INITIAL_STATE) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        self.0.send(datagram)
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, deadline: Deadline) -> io::Result<Received> {
        self.0.receive(buffer, deadline)
    }

    fn join(&mut self, group: u32) -> io::Result<()> {
        self.0.join(group)
    }

    fn port(&self) -> u32 {
        self.0.port()
    }

    fn set_receive_buffer(&mut self, bytes: usize) {
        self.0.set_receive_buffer(bytes);
    }
}

/// Loses events, and becomes right again.
fn lose(resources: u32) -> Result<()> {
    let counted = Counted::default();
    let drbd = Drbd::with_connector(counted.clone())?;
    let mut watcher = drbd.watch()?;
    watcher.set_receive_buffer(4096);
    for number in resources..resources + LOST {
        assert_eq!(
            drbd.run(&new_resource(number)?, LIMIT)?,
            drbd_nl::Outcome::Done
        );
    }
    let before = counted.0.load(Ordering::Relaxed);
    let start = Instant::now();
    // What was announced before the loss comes first.
    let mut resynced = false;
    while !resynced {
        let update = watcher.next_update(LIMIT)?.ok_or("nothing was lost")?;
        resynced = matches!(update, Update::Resynced(_));
    }
    let took = start.elapsed().as_secs_f64() * 1000.0;
    assert_eq!(
        watcher.state().resources.len(),
        usize::try_from(resources + LOST)?
    );
    let dumps = counted.0.load(Ordering::Relaxed) - before;
    println!(
        "after a loss among {LOST} changes, {resources} resources and {LOST} more: right after \
         {took:.2} ms and {dumps} dumps (aim: 1)"
    );
    Ok(())
}
