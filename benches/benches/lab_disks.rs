//! What does it cost a disk of a node that it can lose its cache, or take
//! faults?
//!
//! Unit: milliseconds of wall clock for one block of 4 KiB, written past the
//! node's cache and flushed (`dd oflag=direct,dsync`), and without the flush;
//! less the time of a `dd` that writes one block. The rival is the plain disk of
//! the same node. A node is slow, so this counts a few samples itself instead of
//! using criterion.
//!
//! `cargo bench -p benches --bench lab_disks`

use std::error::Error;
use std::time::Instant;

use uml_lab::{Disk, Lab, Node};

const BLOCKS: u32 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let once = benches::once();
    let (samples, blocks) = if once { (1, 10) } else { (5, BLOCKS) };
    let lab = Lab::builder()
        .name("bench-disks")
        .node("node1", |n| {
            n.disk("64M")
                .disk(Disk::new("64M").power_cut())
                .disk(Disk::new("64M").faults())
                .disk(Disk::new("64M").power_cut().faults())
        })
        .start()?;
    let node = lab.node("node1");
    println!("{samples} samples of {blocks} blocks, median (least to most), in ms a block");
    let kinds = ["plain", "power_cut", "faults", "power_cut, faults"];
    for (flags, what) in [("direct,dsync", "flushed"), ("direct", "not flushed")] {
        for (disk, kind) in kinds.iter().enumerate() {
            let mut times = Vec::new();
            for _ in 0..samples {
                let start = write(&node, disk, flags, 1)?;
                let all = write(&node, disk, flags, 1 + blocks)?;
                times.push((all - start) * 1000.0 / f64::from(blocks));
            }
            times.sort_by(f64::total_cmp);
            let (least, most) = (times[0], times[times.len() - 1]);
            let median = times[times.len() / 2];
            println!("{what:>12}, {kind:<18} {median:.3} ({least:.3} to {most:.3})");
        }
    }
    Ok(())
}

fn write(node: &Node, disk: usize, flags: &str, blocks: u32) -> Result<f64, uml_lab::Error> {
    let to = format!("of={}", node.disk(disk).device().display());
    let (flags, count) = (format!("oflag={flags}"), format!("count={blocks}"));
    let start = Instant::now();
    node.run_ok([
        "dd",
        "if=/dev/zero",
        "bs=4096",
        "conv=notrunc",
        &to,
        &flags,
        &count,
    ])?;
    Ok(start.elapsed().as_secs_f64())
}
