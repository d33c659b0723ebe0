//! Prints every resource with its volumes and peers; changes nothing.
//!
//! ```text
//! $ status
//! r0: Primary
//!   volume 0: UpToDate, 65504 KiB
//!   ipv4:10.0.254.2:7788: Connected, Secondary
//!     volume 0: Established, UpToDate
//! ```

use drbd_nl::Drbd;
use std::time::Duration;

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    for r in Drbd::open()?.snapshot(Duration::from_secs(60))?.resources {
        println!("{}: {}", r.name, r.role);
        for d in &r.devices {
            let size = d.statistics.size.0 / 2;
            println!("  volume {}: {}, {size} KiB", d.volume, d.disk_state);
        }
        for c in &r.connections {
            println!("  {c}: {}, {}", c.state, c.peer_role);
            for p in &c.peer_devices {
                let (volume, disk) = (p.volume, p.peer_disk_state);
                println!("    volume {volume}: {}, {disk}", p.replication);
            }
        }
    }
    Ok(())
}
