//! What the story needs to find inside a node before it begins: the files that an operator would
//! have put there, the container's root file system, and the bridge.
//!
//! This part of the program runs *in* the nodes: the lab shows the host's files there, so the demo
//! starts itself a second time.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use node_ops::links::{self, Cidr};

/// The workload program, linked statically.
pub const WORKLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workload"));
/// The program that stands in for every tool that must not be called.
pub const RECORDER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/recorder"));

/// Where the workload program stands in a node.
pub const WORKLOAD_PATH: &str = "/opt/story/workload";
/// The prepared root file system of the container, to be copied into its subvolume.
pub const ROOTFS: &str = "/opt/story/app/rootfs";
/// The prepared configuration of the container.
pub const CONFIG: &str = "/opt/story/app/config";
/// Address of the container, and port of the workload in it.
pub const SERVICE: &str = "10.1.0.10:7000";

const DRBD_CONF: &str = include_str!("../seed/drbd.conf");
const GLOBAL_COMMON: &str = include_str!("../seed/drbd.d/global_common.conf");
const PLACEMENT: &str = include_str!("../stage/placement.toml");
const CONTAINER: &str = include_str!("../stage/container.conf");

/// What differs from the story as it is told.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Changes {
    /// Replicate with protocol A instead of C.
    #[arg(long)]
    pub protocol_a: bool,
    /// Let the workload acknowledge records that it has not made durable.
    #[arg(long)]
    pub no_fsync: bool,
}

/// Puts everything in place on this node, whose bridge gets `address`.
pub fn dress(address: &str, changes: Changes) -> Result<()> {
    let mut drbd_conf = DRBD_CONF.to_owned();
    if changes.protocol_a {
        drbd_conf = drbd_conf.replace("protocol C;", "protocol A;");
    }
    let mut container = CONTAINER.to_owned();
    if changes.no_fsync {
        container.push_str("lxc.environment = WORKLOAD_NO_FSYNC=1\n");
    }
    for (path, content, mode) in [
        ("/etc/drbd.conf", drbd_conf.as_bytes(), 0o600),
        (
            "/etc/drbd.d/global_common.conf",
            GLOBAL_COMMON.as_bytes(),
            0o644,
        ),
        (
            "/etc/ha-failover/placement.toml",
            PLACEMENT.as_bytes(),
            0o644,
        ),
        (CONFIG, container.as_bytes(), 0o644),
        (WORKLOAD_PATH, WORKLOAD, 0o755),
        (&format!("{ROOTFS}/sbin/init"), WORKLOAD, 0o755),
    ] {
        write(Path::new(path), content, mode)?;
    }
    for directory in ["data", "dev", "proc", "sys", "tmp"] {
        let path = Path::new(ROOTFS).join(directory);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    // The mount point is the operator's to make, once, on both nodes.
    fs::create_dir_all("/srv/store1").context("/srv/store1")?;

    // The seed's disks have the names that a SCSI disk and its first partition have.
    for (name, disk) in [("/dev/sdb1", "/dev/ubda"), ("/dev/sdc1", "/dev/ubdb")] {
        match symlink(disk, name) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("linking {name} to {disk}"));
            }
            _ => {}
        }
    }
    bridge(address)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    write().with_context(|| path.display().to_string())
}

/// Makes the bridge of the seed, with the service wire as its port.
fn bridge(address: &str) -> Result<()> {
    let (ip, prefix) = address
        .split_once('/')
        .context("an address needs its prefix")?;
    let address = Cidr::new(
        ip.parse().context("address")?,
        prefix.parse().context("prefix")?,
    )?;
    links::create_bridge("br0")?;
    links::add_port("br0", "vec1")?;
    links::set_up("br0")?;
    links::add_address("br0", address)?;
    Ok(())
}

/// The messages of this node's kernel, one line each.
pub fn kernel_log() -> Result<String> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .context("/dev/kmsg")?;
    let mut text = String::new();
    let mut record = [0; 8192];
    // One record a read: `<numbers>;<message>`, and nothing more once all are read.
    while let Ok(length @ 1..) = log.read(&mut record) {
        let record = String::from_utf8_lossy(&record[..length]);
        let message = record
            .split_once(';')
            .map_or(&*record, |(_, message)| message);
        text.push_str(message.lines().next().unwrap_or_default());
        text.push('\n');
    }
    Ok(text)
}
