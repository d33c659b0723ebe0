//! What the story needs to find inside a node before it begins: the files that an operator would
//! have put there, the container's root file system, and the bridge.
//!
//! This part of the program runs *in* the nodes: the lab shows the host's files there, so the demo
//! starts itself a second time.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use node_ops::links::{self, Cidr};

/// The workload program, linked statically.
pub const WORKLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/workload"));
/// The program that stands in for every tool that must not be called.
pub const RECORDER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/recorder"));

/// Where the workload program stands in a node.
pub const WORKLOAD_PATH: &str = "/opt/story/workload";

/// A container with what serves in it.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The container's name.
    pub name: &'static str,
    /// The resource whose store carries it.
    pub resource: &'static str,
    /// Where that store is mounted.
    pub mount: &'static str,
    /// The last byte of its addresses, IP and MAC.
    host: u8,
    /// Whether a database keeps the records, rather than plain files.
    pub database: bool,
}

/// The services of the full story; the short one has only the first.
pub const SERVICES: [Service; 3] = [
    Service {
        name: "app",
        resource: "r0",
        mount: "/srv/store1",
        host: 10,
        database: false,
    },
    Service {
        name: "db",
        resource: "r0",
        mount: "/srv/store1",
        host: 11,
        database: true,
    },
    Service {
        name: "web",
        resource: "r1",
        mount: "/srv/store2",
        host: 12,
        database: false,
    },
];

impl Service {
    /// Address of the container, and the port it serves on.
    #[must_use]
    pub fn address(&self) -> String {
        format!("10.1.0.{}:{PORT}", self.host)
    }

    /// The prepared root file system, to be copied into the container's subvolume.
    #[must_use]
    pub fn rootfs(&self) -> String {
        format!("/opt/story/{}/rootfs", self.name)
    }

    /// The prepared configuration of the container.
    #[must_use]
    pub fn config(&self) -> String {
        format!("/opt/story/{}/config", self.name)
    }

    /// The directory of its records, as the node that serves sees it.
    #[must_use]
    pub fn data(&self) -> String {
        self.data_of(self.name)
    }

    /// The same of a container with another name.
    #[must_use]
    pub fn data_of(&self, name: &str) -> String {
        format!("{}/containers/{name}/rootfs/data", self.mount)
    }

    /// The container's configuration; `programs` is the directory of this program.
    fn configuration(&self, programs: &Path, changes: Changes) -> String {
        let mut text = CONTAINER
            .replace("{name}", self.name)
            .replace("{host}", &self.host.to_string())
            .replace("{hex}", &format!("{:02x}", self.host));
        if changes.no_fsync {
            text.push_str("lxc.environment = WORKLOAD_NO_FSYNC=1\n");
        }
        if self.database {
            // This program is linked with the libraries of the host, which the container borrows.
            text.push_str("lxc.init.cmd = /programs/story in-node database\n");
            let programs = programs.display().to_string();
            for (source, target) in [
                (programs.as_str(), "programs"),
                ("/lib", "lib"),
                ("/lib64", "lib64"),
            ] {
                text.push_str(&format!(
                    "lxc.mount.entry = {source} {target} none bind,ro,create=dir 0 0\n"
                ));
            }
        }
        text
    }
}

/// The port that every service listens on.
pub const PORT: u16 = 7000;
/// Where the database is, inside its container.
pub const DATABASE: &str = "/data/records.db";

const DRBD_CONF: &str = include_str!("../seed/drbd.conf");
const GLOBAL_COMMON: &str = include_str!("../seed/drbd.d/global_common.conf");
const PLACEMENT: &str = include_str!("../stage/placement.toml");
const PLACEMENT_FULL: &str = include_str!("../stage/placement-full.toml");
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
    /// Set the stage of the full story: both resources, all services.
    #[arg(long)]
    pub full: bool,
    /// Disks forget at a power cut what was not flushed; a matter of the lab alone.
    #[arg(skip)]
    pub power_cut: bool,
    /// The tools that the project replaces are there, for who moves a store by hand; a matter of the
    /// lab alone.
    #[arg(skip)]
    pub by_hand: bool,
}

impl Changes {
    /// The services on this stage.
    #[must_use]
    pub fn services(&self) -> &'static [Service] {
        if self.full { &SERVICES } else { &SERVICES[..1] }
    }
}

/// Puts everything in place on this node, whose bridge gets `address`.
pub fn dress(address: &str, changes: Changes) -> Result<()> {
    // The post asks for a rate of 200M; DRBD's controller, which came later, yields to the writes of
    // the clients until a resync takes minutes.
    let mut drbd_conf = DRBD_CONF.replace(
        "protocol C;",
        "protocol C;\n        disk { c-plan-ahead 0; c-min-rate 0; }",
    );
    if changes.protocol_a {
        drbd_conf = drbd_conf.replace("protocol C;", "protocol A;");
    }
    let placement = if changes.full {
        PLACEMENT_FULL
    } else {
        PLACEMENT
    };
    for (path, content, mode) in [
        ("/etc/drbd.conf", drbd_conf.as_bytes(), 0o600),
        (
            "/etc/drbd.d/global_common.conf",
            GLOBAL_COMMON.as_bytes(),
            0o644,
        ),
        (
            "/etc/ha-failover/placement.toml",
            placement.as_bytes(),
            0o644,
        ),
        (WORKLOAD_PATH, WORKLOAD, 0o755),
    ] {
        write(Path::new(path), content, mode)?;
    }
    let program = std::env::current_exe().context("finding this program")?;
    let programs = program.parent().context("a program has a directory")?;
    for service in changes.services() {
        let config = service.configuration(programs, changes);
        write(Path::new(&service.config()), config.as_bytes(), 0o644)?;
        let rootfs = service.rootfs();
        let rootfs = Path::new(&rootfs);
        if !service.database {
            write(&rootfs.join("sbin/init"), WORKLOAD, 0o755)?;
        }
        for directory in ["data", "dev", "proc", "sys", "tmp"] {
            let path = rootfs.join(directory);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        // The mount point is the operator's to make, once, on both nodes.
        fs::create_dir_all(service.mount).context(service.mount)?;
    }

    // The seed's disks have the names that a SCSI disk and its first partition have.
    // The short story goes without partitions, and calls the whole disk its first one.
    let mut links = vec![("/dev/sdb1", "/dev/ubda"), ("/dev/sdc1", "/dev/ubdb")];
    if changes.full {
        links = vec![
            ("/dev/sdb", "/dev/ubda"),
            ("/dev/sdb1", "/dev/ubda1"),
            ("/dev/sdc", "/dev/ubdb"),
            ("/dev/sdc1", "/dev/ubdb1"),
        ];
    }
    for (name, disk) in links {
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

/// The messages of this node's kernel, one line each; the last ones tell which tasks wait in the
/// kernel, and where.
pub fn kernel_log() -> Result<String> {
    // A kernel without the key has nothing to add to its log.
    let _ = std::fs::write("/proc/sysrq-trigger", "w");
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .context("/dev/kmsg")?;
    let mut text = String::new();
    let mut record = [0; 8192];
    // One record a read: `<level>,<number>,<microseconds>,<flags>;<message>`, and nothing more once
    // all are read.
    while let Ok(length @ 1..) = log.read(&mut record) {
        let record = String::from_utf8_lossy(&record[..length]);
        let (head, message) = record.split_once(';').unwrap_or(("", &record));
        let at: u64 = head.split(',').nth(2).map_or(Ok(0), str::parse)?;
        let seconds = Duration::from_micros(at).as_secs_f64();
        let message = message.lines().next().unwrap_or_default();
        text.push_str(&format!("{seconds:9.3} {message}\n"));
    }
    Ok(text)
}
