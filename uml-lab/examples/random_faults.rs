//! A client and a server through faults that a seed picks: the answers that
//! come have to be right, and in the end one has to come.
//!
//! ```text
//! $ cargo run -p uml-lab --example random_faults -- 7
//! schedule of seed 7
//!    0.889 node2: hang
//!    2.289 node2: resume
//!    ...
//!    6.634 wire, client to node2: duplicate 1 %, reorder 1 % by 45ms, seed 451642872
//!    ...
//! 15 answers, 2 failures, then sound again: node2
//! ```
//!
//! The same seed plays the same faults. Ends with the time line of everything
//! that happened if an answer was wrong. Changes nothing on this machine, except
//! that Debian packages are unpacked below the Cargo target directory (or
//! `UML_LAB_CACHE`).

use std::error::Error;
use std::time::Duration;

use uml_lab::{Command, ErrorKind, Lab, Menu, Node, Schedule};

fn main() -> Result<(), Box<dyn Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(1), |text| text.parse())?;
    let mut builder = Lab::builder()
        .name("random-faults")
        .packages(["busybox-static"])
        .node("client", |n| n)
        .node("node2", |n| n)
        .wire("wire", |w| {
            w.port("client", "10.0.0.1/24").port("node2", "10.0.0.2/24")
        });
    if let Some(dir) = std::env::var_os("UML_LAB_CACHE") {
        builder = builder.cache_dir(dir);
    }
    let lab = builder.start()?;
    let server = ["busybox", "nc", "-ll", "-p", "7000", "-e", "uname", "-n"];
    let (client, node2) = (lab.node("client"), lab.node("node2"));
    drop(node2.spawn(server)?);

    let menu = Menu::new(Duration::from_secs(1))
        .hang("node2")
        .wire("wire", "client", "node2");
    let schedule = Schedule::random(seed, &menu, 5);
    print!("{schedule}");
    let (mut right, mut failed) = (0, 0);
    std::thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let faults = scope.spawn(|| lab.play(&schedule));
        while !faults.is_finished() {
            match ask(&client)?.as_deref() {
                Some("node2\n") => right += 1,
                Some(wrong) => return Err(format!("{wrong:?}\n{}", lab.timeline()).into()),
                None => failed += 1,
            }
        }
        Ok(faults.join().map_err(|_| "the schedule panicked")??)
    })?;
    let last = loop {
        if let Some(answer) = ask(&client)? {
            break answer;
        }
    };
    println!(
        "{right} answers, {failed} failures, then sound again: {}",
        last.trim()
    );
    Ok(())
}

/// Asks the server; `None` if it does not answer.
fn ask(client: &Node) -> Result<Option<String>, Box<dyn Error>> {
    let command = Command::new("busybox").args(["nc", "-w", "2", "10.0.0.2", "7000"]);
    match client.run(command.deadline(Duration::from_secs(10))) {
        Ok(output) if output.status.success() => Ok(Some(output.stdout_text())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Deadline => Ok(None),
        Err(error) => Err(error.into()),
    }
}
