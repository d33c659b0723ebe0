//! Makes this node Primary for a resource, or says why it is not to be.
//! Changes the role, nothing else.
//!
//! ```text
//! $ promote r0
//! r0: not now: ipv4:10.0.254.2:7788 is Primary
//! ```

use drbd_nl::Drbd;
use std::time::Duration;

pub(crate) fn promote(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let (drbd, limit) = (Drbd::open()?, Duration::from_secs(60));
    let state = drbd.snapshot(limit)?;
    let resource = state.resource(name).ok_or("there is no such resource")?;
    let obstacles = resource.promotion_obstacles();
    if obstacles.is_empty() {
        println!("{name}: {}", drbd.primary(&resource.name, limit)?);
    }
    for obstacle in obstacles {
        println!("{name}: not now: {obstacle}");
    }
    Ok(())
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    promote(&std::env::args().nth(1).ok_or("usage: promote RESOURCE")?)
}
