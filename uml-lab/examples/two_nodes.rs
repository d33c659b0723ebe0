//! Two nodes, a wire, a cut, a loss, and boot again on the same disk.
//!
//! ```text
//! $ cargo run -p uml-lab --example two_nodes
//! ready after 4.1 s
//! node1 -> node2: Linux node2 6.1.176
//! the wire is cut: node2 does not answer
//! the wire is healed: node2 answers
//! node2 is lost
//! node2 is back, on its disk: written before the loss
//! ```
//!
//! Changes nothing on this machine, except that the Debian packages nodes need
//! are unpacked below the Cargo target directory (or `UML_LAB_CACHE`).

use std::error::Error;
use std::time::{Duration, Instant};

use uml_lab::{Command, ErrorKind, Lab};

fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Lab::builder()
        .name("two-nodes")
        .packages(["busybox-static"])
        .node("node1", |n| n)
        .node("node2", |n| n.disk("64M"))
        .wire("wire", |w| {
            w.port("node1", "10.0.0.1/24").port("node2", "10.0.0.2/24")
        });
    if let Some(dir) = std::env::var_os("UML_LAB_CACHE") {
        builder = builder.cache_dir(dir);
    }
    let start = Instant::now();
    let lab = builder.start()?;
    println!("ready after {:.1} s", start.elapsed().as_secs_f64());
    let (node1, node2) = (lab.node("node1"), lab.node("node2"));

    // A tiny server on node2, asked from node1 over the wire.
    let server = ["busybox", "nc", "-ll", "-p", "7000", "-e", "uname", "-snr"];
    let _server = node2.spawn(server)?;
    let ask = || {
        let client = Command::new("busybox").args(["nc", "-w", "3", "10.0.0.2", "7000"]);
        node1.run(client.deadline(Duration::from_secs(10)))
    };
    let mut answer = ask()?;
    while !answer.status.success() {
        answer = ask()?; // the server is still starting
    }
    println!("node1 -> node2: {}", answer.stdout_text().trim());

    lab.wire("wire").cut("node1", "node2");
    match ask() {
        Ok(output) if output.status.success() => return Err("the cut wire carried".into()),
        Err(error) if error.kind() != ErrorKind::Deadline => return Err(error.into()),
        _ => println!("the wire is cut: node2 does not answer"),
    }
    lab.wire("wire").heal("node1", "node2");
    while !matches!(ask(), Ok(output) if output.status.success()) {}
    println!("the wire is healed: node2 answers");

    node2.write_file("/dev/ubda", "written before the loss\n", 0o600)?;
    node2.run_ok(["blockdev", "--flushbufs", "/dev/ubda"])?;
    node2.kill()?;
    println!("node2 is lost");
    node2.boot()?;
    let disk = node2.run_ok(["head", "-n", "1", "/dev/ubda"])?;
    print!("node2 is back, on its disk: {}", disk.stdout_text());
    Ok(())
}
