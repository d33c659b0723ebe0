//! Keeps a container's root file system as it is, thins out what was kept before, then starts the
//! container. Makes and deletes subvolumes below `LXCPATH/NAME/before`.
//!
//! ```text
//! # snapshot_before_start /srv/store1/containers app
//! kept as 20260310T120000Z
//! deleted 20260308T091500Z
//! app: RUNNING
//! ```

use std::time::Duration;

use btrfs_ops::retention::{Item, Schedule};
use btrfs_ops::{Access, DeleteOptions, Subvolume};
use jiff::{Timestamp, Zoned, civil::DateTime, tz::TimeZone};
use lxc_rs::{Container, LxcPath, StartOptions};

const FORMAT: &str = "%Y%m%dT%H%M%SZ";
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [lxcpath, name] = &arguments[..] else {
        return Err("usage: snapshot_before_start LXCPATH NAME".into());
    };
    let container = Container::open(&LxcPath::new(lxcpath)?, name.as_str())?;
    let rootfs = Subvolume::open(format!("{lxcpath}/{name}/rootfs"))?;
    let kept = format!("{lxcpath}/{name}/before");
    std::fs::create_dir_all(&kept)?;

    let now = Zoned::now();
    let label = now
        .with_time_zone(TimeZone::UTC)
        .strftime(FORMAT)
        .to_string();
    rootfs.snapshot_path(format!("{kept}/{label}"), Access::ReadOnly)?;
    println!("kept as {label}");

    let mut items = Vec::new();
    for entry in std::fs::read_dir(&kept)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // What has another name is not ours to delete.
        if let Ok(taken) = DateTime::strptime(FORMAT, &name) {
            let taken: Timestamp = taken.to_zoned(TimeZone::UTC)?.timestamp();
            items.push(Item::new(name, taken));
        }
    }
    let policy: Schedule = "min latest, 24h 7d 4w".parse()?;
    let parent = std::fs::File::open(&kept)?;
    for verdict in policy.judge(&items, &now).iter().filter(|v| !v.keep()) {
        btrfs_ops::delete(&parent, &verdict.key, &DeleteOptions::new())?;
        println!("deleted {}", verdict.key);
    }

    container.start(&StartOptions::new(), LIMIT)?.done()?;
    println!("{name}: {}", container.state()?);
    Ok(())
}
