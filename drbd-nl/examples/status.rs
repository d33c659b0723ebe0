//! Prints every resource with its volumes and peers; changes nothing.
//!
//! ```text
//! $ status
//! r0: Primary
//!   volume 0 (/dev/drbd0): UpToDate, 64 MiB
//!   ipv4:10.0.254.2:7788: Connected, Secondary
//!     volume 0: Established, UpToDate, 0 KiB out of sync
//! ```

use drbd_nl::Drbd;
use std::time::Duration;

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    for r in Drbd::open()?.snapshot(Duration::from_secs(60))?.resources {
        println!("{}: {}", r.name, r.role);
        for d in &r.devices {
            let (path, size) = (d.minor.device_path(), d.statistics.size.0 / 2048);
            let path = path.display();
            println!(
                "  volume {} ({path}): {}, {size} MiB",
                d.volume, d.disk_state
            );
        }
        for c in &r.connections {
            println!("  {c}: {}, {}", c.state, c.peer_role);
            for p in &c.peer_devices {
                let differs = p.out_of_sync().0 / 2;
                print!("    volume {}: {}, ", p.volume, p.replication);
                println!("{}, {differs} KiB out of sync", p.peer_disk_state);
            }
        }
    }
    Ok(())
}
