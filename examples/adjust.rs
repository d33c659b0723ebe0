//! Prints what would make a running resource what drbd.conf says, and with `--run` does it: what
//! `drbdadm adjust` does. Changes the kernel's settings, not the data.
//!
//! ```text
//! # adjust r0 node1
//! disk-options 0: resync-rate 102400
//! net-options r0 ipv4:10.0.254.1:7788 ipv4:10.0.254.2:7788: max-buffers 8000
//! ```

use std::time::Duration;

use drbd_conf::{Config, Running, Step};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [resource, node, rest @ ..] = &arguments[..] else {
        return Err("usage: adjust RESOURCE NODE [--run]".into());
    };
    let limit = Duration::from_secs(30);
    let view = Config::load("/etc/drbd.conf")?
        .require(resource)?
        .for_node(node)?;
    let drbd = drbd_nl::Drbd::open()?;
    let state = drbd.snapshot(limit)?;
    let running = state.resource(resource).map(Running::from);
    for step in view.adjust(running.as_ref(), drbd.family().dialect)? {
        println!("{step}");
        if rest.contains(&"--run".to_owned()) {
            match &step {
                Step::Drbd(operation) => println!("  {}", drbd.run(operation, limit)?),
                other => return Err(format!("{other}: a matter for drbd-md").into()),
            }
        }
    }
    Ok(())
}
