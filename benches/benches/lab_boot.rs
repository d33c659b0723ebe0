//! How long until two nodes have run a program?
//!
//! Unit: seconds of wall clock from `LabBuilder::start` to the end of
//! `/bin/true` on both nodes, packages unpacked already. Aim: at most 8 s on
//! two processors. Beside it, the part a lab spends again and again: one more
//! `/bin/true`, and node loss with boot. A boot takes seconds, so this counts a
//! few samples itself instead of using criterion.
//!
//! `cargo bench -p benches --bench lab_boot`

use std::error::Error;
use std::time::Instant;

use uml_lab::{Lab, LabBuilder};

const AIM: f64 = 8.0;

fn main() -> Result<(), Box<dyn Error>> {
    let once = benches::once();
    let samples = if once { 1 } else { 5 };
    // Unpacks what is missing, which is not the question.
    drop(lab().start()?);

    let mut ready = Vec::new();
    let mut programs = Vec::new();
    let mut again = Vec::new();
    for _ in 0..samples {
        let start = Instant::now();
        let lab = lab().start()?;
        for node in lab.nodes() {
            node.run_ok("/bin/true")?;
        }
        ready.push(start.elapsed().as_secs_f64());

        let node = lab.node("node1");
        let start = Instant::now();
        node.run_ok("/bin/true")?;
        programs.push(start.elapsed().as_secs_f64());

        let start = Instant::now();
        node.kill()?;
        node.boot()?;
        again.push(start.elapsed().as_secs_f64());
    }
    let processors = std::thread::available_parallelism()?;
    println!("{samples} samples on {processors} processors, median (least to most), in seconds");
    for (what, times) in [
        ("two nodes ready", &mut ready),
        ("run /bin/true", &mut programs),
        ("kill, boot", &mut again),
    ] {
        times.sort_by(f64::total_cmp);
        let (least, most) = (times[0], times[times.len() - 1]);
        println!(
            "{what:>16}: {:.2} ({least:.2} to {most:.2})",
            times[times.len() / 2]
        );
    }
    let met = if ready[ready.len() / 2] <= AIM {
        "met"
    } else {
        "missed"
    };
    println!("aim for two nodes: at most {AIM} s, {met}");
    Ok(())
}

fn lab() -> LabBuilder {
    Lab::builder()
        .name("bench")
        .node("node1", |n| n.disk("256M"))
        .node("node2", |n| n.disk("256M"))
        .wire("wire", |w| {
            w.port("node1", "10.0.0.1/24").port("node2", "10.0.0.2/24")
        })
}
