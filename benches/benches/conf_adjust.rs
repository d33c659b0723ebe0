//! How fast is a configuration read, and an adjustment found to be needless?
//!
//! Units: MB of a configuration parsed in a second, for 1 MB and 10 MB; seconds
//! for 1 000 resources, DRBD 9: to resolve them and compare them with what
//! runs, and the same with reading the file. All of processor time, so that
//! what else the machine does counts less. Rival: `drbdadm -d adjust all`,
//! which is told what runs by a file instead of by drbdsetup, so that no
//! kernel is asked on either side, and has to read its file each time; a bare
//! process start is shown beside it. Aims: 50 MB/s; resolving and adjusting at
//! least 20 times faster. Compare within one run only.
//!
//! `cargo bench -p benches --bench conf_adjust`

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use benches::allocations::{Counting, allocations};
use drbd_conf::{Config, NodeView, Running, RunningConnection, RunningVolume, Step, adjust_all};
use drbd_nl::{Dialect, Operation};
use nix::sys::resource::{UsageWho, getrusage};
use uml_lab::Lab;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const AIM: f64 = 20.0;

fn resource(i: usize, out: &mut String) -> std::fmt::Result {
    let (port, minor) = (7000 + i % 50_000, i);
    writeln!(
        out,
        "resource r{i} {{ # the {i}th\n  net {{ protocol C; max-buffers 8000; }}\n  \
         volume 0 {{\n    device /dev/drbd{minor};\n    disk /dev/vg/r{i};\n    meta-disk internal;\n  }}\n  \
         on alpha {{\n    node-id 0;\n    address 10.0.{0}.1:{port};\n  }}\n  \
         on beta {{\n    node-id 1;\n    address 10.0.{0}.2:{port};\n  }}\n}}",
        i / 50_000
    )
}

fn text(resources: usize) -> Result<String, std::fmt::Error> {
    let mut out = String::from("global { usage-count no; disable-ip-verification; }\n");
    for i in 0..resources {
        resource(i, &mut out)?;
    }
    Ok(out)
}

/// What runs when a resource is up, and how drbdsetup shows it.
fn running(view: &NodeView, show: &mut String) -> Result<Running, Box<dyn Error>> {
    let mut run = Running::default();
    let mut connection = RunningConnection::default();
    for step in view.up(Dialect::V9)? {
        let Step::Drbd(operation) = step else {
            continue;
        };
        match operation {
            Operation::NewMinor { volume, minor, .. } => {
                run.volumes.push(RunningVolume::new(volume.0, minor.0));
            }
            Operation::Attach {
                backing_dev,
                meta_disk,
                options,
                ..
            } => {
                if let Some(v) = run.volumes.last_mut() {
                    v.disk = Some((backing_dev, meta_disk, options));
                }
            }
            Operation::NewPeer {
                peer_node_id,
                options,
                ..
            } => {
                connection.peer_node_id = Some(peer_node_id.0);
                connection.options = options;
                connection.peer_devices = vec![(0, Default::default())];
            }
            Operation::NewPath { addresses, .. } => connection.paths.push(addresses),
            _ => {}
        }
    }
    let address = |a: &drbd_nl::Address| a.to_string().replacen(':', " ", 1);
    let path = connection.paths.first().ok_or("no path")?;
    writeln!(
        show,
        "resource \"{}\" {{ _this_host {{ node-id 0; volume 0 {{ device minor {}; disk \"/dev/vg/{0}\"; \
         meta-disk internal; }} }} connection {{ _peer_node_id 1; path {{ _this_host {}; _remote_host {}; }} \
         net {{ protocol C; max-buffers 8000; _name \"beta\"; }} volume 0 {{ disk {{ resync-rate 250k; }} }} }} }}",
        view.resource,
        view.volumes[0].minor,
        address(&path.local),
        address(&path.remote)
    )?;
    run.connections.push(connection);
    Ok(run)
}

fn drbdadm(dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    if let Some(path) = std::env::var_os("DRBDADM") {
        return Ok(path.into());
    }
    if let Some(found) = ["/sbin/drbdadm", "/usr/sbin/drbdadm"]
        .map(PathBuf::from)
        .into_iter()
        .find(|p| p.is_file())
    {
        return Ok(found);
    }
    let lab = Lab::builder()
        .name("bench")
        .packages(["drbd-utils"])
        .node("node1", |n| n)
        .start()?;
    let path = dir.join("drbdadm");
    fs::write(&path, lab.node("node1").read_file("/sbin/drbdadm")?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Processor time used so far, by this process and by those it waited for.
fn used() -> Result<Duration, Box<dyn Error>> {
    let mut sum = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            sum += Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).try_into()?);
        }
    }
    Ok(sum)
}

/// Median, least and most seconds of some runs, each of them done so many times.
fn time(
    samples: usize,
    times: u32,
    mut run: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<[f64; 3], Box<dyn Error>> {
    let mut all = Vec::new();
    for _ in 0..samples {
        let start = used()?;
        for _ in 0..times {
            run()?;
        }
        all.push((used()? - start).as_secs_f64() / f64::from(times));
    }
    let mut times = all;
    times.sort_by(f64::total_cmp);
    Ok([times[times.len() / 2], times[0], times[times.len() - 1]])
}

fn main() -> Result<(), Box<dyn Error>> {
    let once = benches::once();
    let (samples, count) = if once { (1, 50) } else { (5, 1000) };
    for resources in if once { [10, 100] } else { [3_400, 34_000] } {
        let large = text(resources)?;
        let megabytes = large.len() as f64 / 1e6;
        let [parse, least, most] = time(samples, 5, || {
            Config::parse(&large, "large.conf")?;
            Ok(())
        })?;
        let (allocated, parsed) = allocations(|| Config::parse(&large, "large.conf"));
        parsed?;
        println!(
            "parse {megabytes:.1} MB: {:.1} ({:.1} to {:.1}) MB/s, {:.1} allocations a resource",
            megabytes / parse,
            megabytes / most,
            megabytes / least,
            allocated as f64 / resources as f64
        );
    }

    let dir = std::env::temp_dir().join(format!("conf-adjust-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let result = compare(&dir, samples, count);
    fs::remove_dir_all(&dir)?;
    result
}

fn compare(dir: &Path, samples: usize, count: usize) -> Result<(), Box<dyn Error>> {
    let (file, shown) = (dir.join("drbd.conf"), dir.join("show"));
    let config = text(count)?;
    fs::write(&file, &config)?;
    let parsed = Config::load(&file)?;
    let mut show = String::new();
    let mut runs = Vec::new();
    for r in &parsed.resources {
        runs.push(running(&r.for_node("alpha")?, &mut show)?);
    }
    fs::write(&shown, show)?;
    let adjust = |config: &Config| -> Result<(), Box<dyn Error>> {
        let views: Vec<_> = config
            .resources
            .iter()
            .map(|r| r.for_node("alpha"))
            .collect::<Result<_, _>>()?;
        let steps = adjust_all(views.iter().zip(runs.iter().map(Some)), Dialect::V9)?;
        if steps.is_empty() {
            Ok(())
        } else {
            Err(format!("{} steps", steps.len()).into())
        }
    };
    let ours = time(samples, 20, || adjust(&parsed))?;
    let (allocated, adjusted) = allocations(|| adjust(&parsed));
    adjusted?;
    let read = time(samples, 20, || adjust(&Config::load(&file)?))?;
    let program = drbdadm(dir)?;
    let theirs = time(samples, 5, || {
        let out = Command::new(&program)
            .env("__DRBD_NODE__", "alpha")
            .env("DRBD_DRIVER_VERSION_OVERRIDE", "9.2.18")
            .env("FAKE_DRBDSETUP_SHOW", &shown)
            .arg("-c")
            .arg(&file)
            .args(["-d", "adjust", "all"])
            .stdin(Stdio::null())
            .output()?;
        if out.status.success() && out.stdout.is_empty() {
            return Ok(());
        }
        Err(format!(
            "drbdadm: {}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        )
        .into())
    })?;
    let bare = time(samples, 5, || {
        Command::new("/bin/true").status()?;
        Ok(())
    })?;
    println!(
        "{count} resources, nothing to adjust, {samples} samples, median (least to most), in seconds \
         of processor time"
    );
    for (what, [median, least, most]) in [
        ("ours", ours),
        ("ours, file read", read),
        ("drbdadm", theirs),
        ("/bin/true", bare),
    ] {
        println!("{what:>16}: {median:.4} ({least:.4} to {most:.4})");
    }
    let ratio = theirs[0] / ours[0];
    let met = if ratio >= AIM { "met" } else { "missed" };
    let with = theirs[0] / read[0];
    println!(
        "{ratio:.1} times faster; aim {AIM}, {met}; with reading the file {with:.1} times; \
         {:.1} allocations a resource",
        allocated as f64 / count as f64
    );
    Ok(())
}
