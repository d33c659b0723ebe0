//! Prints every resource with its volumes and peers; changes nothing.
//!
//! ```text
//! $ status
//! r0: Primary
//!   /dev/drbd0 volume 0: UpToDate on /dev/vg0/r0 (64 MiB)
//!   ipv4:10.0.254.2:7788: Connected, Secondary
//!     volume 0: Established, UpToDate, 0 KiB out of sync
//! ```

use drbd_nl::Drbd;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let drbd = Drbd::open()?;
    for resource in drbd.snapshot(Duration::from_secs(10))?.resources {
        println!("{}: {}", resource.name, resource.role);
        for device in &resource.devices {
            let disk = device.backing_dev.as_deref();
            println!(
                "  {} volume {}: {} on {} ({} MiB)",
                device.minor.device_path().display(),
                device.volume,
                device.disk_state,
                disk.map_or("no disk".into(), |path| path.display().to_string()),
                device.statistics.size.0 / 2048,
            );
        }
        for connection in &resource.connections {
            println!(
                "  {connection}: {}, {}",
                connection.state, connection.peer_role
            );
            for peer in &connection.peer_devices {
                print!(
                    "    volume {}: {}, {}",
                    peer.volume, peer.replication, peer.peer_disk_state
                );
                println!(", {} KiB out of sync", peer.out_of_sync().0 / 2);
            }
        }
    }
    Ok(())
}
