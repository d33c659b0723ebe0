//! How long does it take to bring a resource up, compared with drbdadm?
//!
//! Unit: milliseconds in a lab node, for a resource with one volume and one
//! peer that does not answer: reading drbd.conf, applying the activity log,
//! resource, minor, disk, connection. Ours: `drbd-conf`, `drbd-md` and
//! `Drbd::run`. Rival: `drbdadm up`, with `/bin/true` beside it for what a
//! program costs at all: drbdadm starts drbdsetup and drbdmeta for each step.
//! Both are taken down again, which is not timed.
//!
//! Aim: 10 times faster.
//!
//! `cargo bench -p benches --bench drbd_configure`

use drbd_conf::{Config, Step};
use drbd_nl::{ConnectionState, Dialect, DiskState, Drbd, Outcome, ResourceName};
use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};
use uml_lab::Lab;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(120);
const AIM: f64 = 10.0;
const CONF: &str = "/etc/drbd.conf";
const TEXT: &str = r#"
global { usage-count no; }
resource r0 {
  net { protocol C; max-buffers 8000; }
  device /dev/drbd0; disk /dev/ubda; meta-disk internal;
  on node1 { address 10.77.0.1:7788; }
  on node2 { address 10.77.0.2:7788; }
}
"#;
const TEXT_9: &str = r#"
global { usage-count no; }
resource r0 {
  net { protocol C; max-buffers 8000; }
  device /dev/drbd0 minor 0; disk /dev/ubda; meta-disk internal;
  on node1 { node-id 0; address 10.77.0.1:7788; }
  on node2 { node-id 1; address 10.77.0.2:7788; }
}
"#;

fn main() -> Result<()> {
    if let Ok(samples) = std::env::var("SAMPLES") {
        return inside(samples.parse()?);
    }
    let once = benches::once();
    let lab = Lab::builder()
        .name("bench-configure")
        .packages(["drbd-utils"])
        .node("node1", |n| n.disk("32M"))
        .wire("repl", |w| w.port("node1", "10.77.0.1/24"))
        .start()?;
    let node = lab.node("node1");
    node.load_module("drbd", ["usermode_helper=/bin/true"])?;
    let output = node.run_ok(
        uml_lab::Command::new(std::env::current_exe()?)
            .env("SAMPLES", if once { "1" } else { "15" })
            .deadline(Duration::from_secs(900)),
    )?;
    print!("{}", output.stdout_text());
    Ok(())
}

fn program(name: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(name).args(args).output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{name} {args:?}: {output:?}").into())
    }
}

/// Median, least and most milliseconds.
fn spread(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[0], times[times.len() - 1]]
}

fn timed(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// What drbdadm does for `up r0`.
fn up(drbd: &Drbd) -> Result<()> {
    let view = Config::load(CONF)?.require("r0")?.for_node("node1")?;
    for step in view.up(drbd.family().dialect)? {
        match step {
            Step::Drbd(operation) => {
                let outcome = drbd.run(&operation, LIMIT)?;
                if outcome != Outcome::Done {
                    return Err(format!("{operation}: {outcome}").into());
                }
            }
            Step::ApplyActivityLog { .. } => {
                drbd_md::apply_activity_log(&drbd_md::Target::internal("/dev/ubda"))?;
            }
            other => return Err(format!("{other}: not expected").into()),
        }
    }
    Ok(())
}

/// Looks whether it is up, and takes it down.
fn down(drbd: &Drbd) -> Result<()> {
    let r0 = ResourceName::new("r0")?;
    let state = drbd.snapshot(LIMIT)?;
    let resource = state.resource("r0").ok_or("there is no r0")?;
    assert_eq!(resource.devices[0].disk_state, DiskState::Inconsistent);
    assert_ne!(resource.connections[0].state, ConnectionState::StandAlone);
    let _ = drbd.down(&r0, LIMIT)?;
    Ok(())
}

fn inside(samples: usize) -> Result<()> {
    let drbd = Drbd::open()?;
    let (text, options) = match drbd.family().dialect {
        Dialect::V84 => (TEXT, drbd_md::CreateOptions::default()),
        Dialect::V9 => (TEXT_9, drbd_md::CreateOptions::v09(1)),
    };
    std::fs::write(CONF, text)?;
    drbd_md::create(&drbd_md::Target::internal("/dev/ubda"), &options)?;
    let (mut ours, mut theirs, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that both find the node as busy.
    for _ in 0..samples {
        ours.push(timed(|| up(&drbd))?);
        down(&drbd)?;
        theirs.push(timed(|| program("drbdadm", &["up", "r0"]))?);
        down(&drbd)?;
        nothing.push(timed(|| program("/bin/true", &[]))?);
    }
    println!(
        "DRBD {:?}, {samples} samples, median (least to most), milliseconds",
        drbd.family().dialect
    );
    let (ours, theirs) = (spread(ours), spread(theirs));
    for (what, [median, least, most]) in [
        ("ours", ours),
        ("drbdadm up", theirs),
        ("/bin/true", spread(nothing)),
    ] {
        println!("{what:>12}: {median:.2} ({least:.2} to {most:.2})");
    }
    let ratio = theirs[0] / ours[0];
    let met = if ratio >= AIM { "met" } else { "missed" };
    println!("{ratio:.1} times faster; aim {AIM}, {met}");
    Ok(())
}
