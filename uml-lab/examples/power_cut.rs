//! Does a program that appends to a log keep what it acknowledged, when the
//! power goes? Once with fsync, once without.
//!
//! ```text
//! $ cargo run -p uml-lab --example power_cut
//! with fsync, seed 1: acknowledged 31, found 31: nothing lost
//! with fsync, seed 2: acknowledged 32, found 32: nothing lost
//! with fsync, seed 3: acknowledged 34, found 35: nothing lost
//! without, seed 1: acknowledged 333, found 0: LOST 333
//! without, seed 2: acknowledged 146, found 0: LOST 146
//! without, seed 3: acknowledged 752, found 0: LOST 752
//! ```
//!
//! The program is a shell script; put yours in its place. Changes nothing on
//! this machine, except that Debian packages are unpacked below the Cargo target
//! directory (or `UML_LAB_CACHE`).

use std::error::Error;
use std::io::{BufRead, BufReader};

use uml_lab::{Command, Disk, Lab, Node};

fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Lab::builder()
        .name("power-cut")
        .packages(["e2fsprogs"])
        .node("node1", |n| n.disk(Disk::new("64M").power_cut()));
    if let Some(dir) = std::env::var_os("UML_LAB_CACHE") {
        builder = builder.cache_dir(dir);
    }
    let lab = builder.start()?;
    let node = lab.node("node1");
    let mut broken = false;
    for (what, sync) in [("with fsync", "sync /mnt/log"), ("without", "true")] {
        for seed in 1..4 {
            node.run_ok(["mkfs.ext4", "-qF", "/dev/ubda"])?;
            let acknowledged = append(&node, sync, seed)?;
            let found = records(&node)?;
            let lost = acknowledged.saturating_sub(found);
            let verdict = match lost {
                0 => "nothing lost".to_owned(),
                _ => format!("LOST {lost}"),
            };
            println!("{what}, seed {seed}: acknowledged {acknowledged}, found {found}: {verdict}");
            broken |= lost > 0 && sync != "true";
        }
    }
    if broken {
        return Err("an acknowledged record was lost".into());
    }
    Ok(())
}

/// Appends records until the power goes; returns how many were acknowledged.
fn append(node: &Node, sync: &str, seed: u64) -> Result<u64, Box<dyn Error>> {
    let script = "mount /dev/ubda /mnt && sync -f /mnt; n=0; while :; do n=$((n+1)); \
                  echo $n >>/mnt/log && $SYNC && echo $n; done";
    let command = Command::new("sh").args(["-c", script]).env("SYNC", sync);
    let program = node.spawn(command)?;
    let mut lines = BufReader::new(program.stdout()).lines();
    let mut acknowledged = 0;
    while acknowledged < 30 + seed {
        acknowledged = lines.next().ok_or("the program ended")??.parse()?;
    }
    node.power_cut(seed)?;
    // What it said up to its end counts; then the node is gone, an error.
    for line in lines.map_while(Result::ok) {
        acknowledged = line.parse()?;
    }
    node.boot()?;
    Ok(acknowledged)
}

fn records(node: &Node) -> Result<u64, Box<dyn Error>> {
    let script = "mount /dev/ubda /mnt && { cat /mnt/log 2>/dev/null; umount /mnt; }";
    let output = node.run_ok(["sh", "-c", script])?;
    let mut count = 0;
    for line in output.stdout_text().lines() {
        count += 1;
        if line != count.to_string() {
            return Err(format!("record {count} is torn: {line:?}").into());
        }
    }
    Ok(count)
}
