//! Snapshots of containers: read-only subvolumes in the store, each with what it needs to become a
//! container again. They move with the store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use btrfs_ops::{Access, DeleteOptions, Subvolume};
use lxc_rs::{Container, LxcPath};
use serde::{Deserialize, Serialize};

use super::Node;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::facts::SnapshotFacts;
use crate::ledger::{STORE_DIR, read_json, write_json};
use crate::world::{Done, Failure, FailureKind, World};

type Performed = std::result::Result<Done, Failure>;

const SNAPSHOTS: &str = "snapshots";
/// In a container's directory for as long as it is being made of a snapshot.
const UNFINISHED: &str = ".restoring";

/// What a snapshot is beside its subvolume.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    taken: String,
    epoch: u64,
    node: String,
    /// The container's configuration as it was.
    config: String,
}

/// How the space of a store is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SpaceReport {
    /// Bytes of the device.
    pub total: u64,
    /// Bytes not given to data or metadata yet.
    pub unallocated: u64,
    /// One row for data, metadata, system.
    pub groups: Vec<SpaceRow>,
    /// Bytes of metadata's emergency reserve in use: above zero is an alarm.
    pub reserve_used: u64,
    /// Errors the device has had, by kind; empty when it had none.
    pub device_errors: Vec<String>,
    /// Snapshots by container.
    pub snapshots: BTreeMap<String, usize>,
}

/// Space of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SpaceRow {
    /// `Data`, `Metadata`, `System`, with its profile.
    pub kind: String,
    /// Bytes given to it.
    pub allocated: u64,
    /// Bytes of them in use.
    pub used: u64,
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Failed, message)
}

fn btrfs(e: &btrfs_ops::Error) -> Failure {
    let failure = failed(chain(e));
    match e.raw_os_error() {
        Some(libc::ENOSPC) => {
            failure.remedy("make room in the store; deleting snapshots frees what only they hold")
        }
        Some(libc::EROFS) => failure.remedy("the store takes no writes: look at the kernel log"),
        _ => failure,
    }
}

fn io(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |e| failed(format!("{what} {path}: {e}"))
}

impl Node {
    fn snapshot_dir(&self, container: &str) -> PathBuf {
        self.resource
            .mount
            .join(STORE_DIR)
            .join(SNAPSHOTS)
            .join(container)
    }

    pub(super) fn snapshot_facts(&self) -> Result<BTreeMap<String, Vec<SnapshotFacts>>> {
        let mut all = BTreeMap::new();
        for container in names(&self.resource.mount.join(STORE_DIR).join(SNAPSHOTS))? {
            let dir = self.snapshot_dir(&container);
            let mut snapshots = Vec::new();
            for name in names(&dir)? {
                if !dir.join(&name).is_dir() {
                    continue;
                }
                let kept: Option<Kept> = read_json(&meta(&dir, &name))?;
                snapshots.push(match kept {
                    Some(kept) => SnapshotFacts {
                        name,
                        taken: Some(kept.taken),
                        epoch: kept.epoch,
                        node: kept.node,
                    },
                    None => SnapshotFacts {
                        name,
                        ..SnapshotFacts::default()
                    },
                });
            }
            snapshots.sort_by(|a, b| (&a.taken, &a.name).cmp(&(&b.taken, &b.name)));
            all.insert(container, snapshots);
        }
        Ok(all)
    }

    /// The containers below the lxcpath: directories with a configuration.
    pub(super) fn defined(&self) -> Result<Vec<String>> {
        let lxcpath = &self.resource.lxcpath;
        let mut all = names(lxcpath)?;
        all.retain(|name| lxcpath.join(name).join("config").is_file());
        Ok(all)
    }

    pub(super) fn take_snapshot(&self, container: &str, name: &str) -> Performed {
        self.ensure_mounted()?;
        let lxcpath = LxcPath::new(&self.resource.lxcpath).map_err(|e| failed(chain(&e)))?;
        let opened = Container::open(&lxcpath, container).map_err(|e| failed(chain(&e)))?;
        let rootfs = opened
            .rootfs()
            .map_err(|e| failed(chain(&e)))?
            .ok_or_else(|| failed(format!("container {container}: no root file system")))?;
        if !rootfs.is_subvolume() {
            return Err(failed(format!(
                "container {container}: {} is no Btrfs subvolume",
                rootfs.path.display()
            ))
            .remedy("make the container by `failover create-container`"));
        }
        let file = opened.config_file();
        let config = fs::read_to_string(&file).map_err(io("configuration", &file))?;
        let dir = self.snapshot_dir(container);
        fs::create_dir_all(&dir).map_err(io("directory", &dir))?;
        let target = dir.join(name);
        // What a run that was cut short has left has no record, and is of another moment.
        btrfs_ops::delete_path(&target, &DeleteOptions::new().absent_is_success())
            .map_err(|e| btrfs(&e))?;
        self.wanted()?;
        let source = Subvolume::open(&rootfs.path).map_err(|e| btrfs(&e))?;
        source
            .snapshot_path(&target, Access::ReadOnly)
            .map_err(|e| btrfs(&e))?;
        let ledger = self.state.ledger().map_err(|e| failed(e.chain()))?;
        let kept = Kept {
            version: 1,
            taken: self.wall(),
            epoch: ledger.epoch,
            node: self.name.clone(),
            config,
        };
        write_json(&meta(&dir, name), &kept).map_err(|e| failed(e.chain()))?;
        self.flush_store()?;
        Ok(Done::now().note(target.display().to_string()))
    }

    pub(super) fn restore_snapshot(&self, container: &str, name: &str, into: &str) -> Performed {
        self.ensure_mounted()?;
        let kept_in = self.snapshot_dir(container);
        let kept: Kept = read_json(&meta(&kept_in, name))
            .map_err(|e| failed(e.chain()))?
            .ok_or_else(|| failed(format!("container {container}: no snapshot `{name}`")))?;
        let dir = self.resource.lxcpath.join(into);
        let marker = dir.join(UNFINISHED);
        let rootfs = dir.join("rootfs");
        if dir.exists() && !marker.exists() {
            return Err(failed(format!("{}: it is there already", dir.display())));
        }
        fs::create_dir_all(&dir).map_err(io("directory", &dir))?;
        File::create(&marker).map_err(io("file", &marker))?;
        btrfs_ops::delete_path(&rootfs, &DeleteOptions::new().absent_is_success())
            .map_err(|e| btrfs(&e))?;
        self.wanted()?;
        let source = Subvolume::open(kept_in.join(name)).map_err(|e| btrfs(&e))?;
        source
            .snapshot_path(&rootfs, Access::ReadWrite)
            .map_err(|e| btrfs(&e))?;
        let text = config_for(&kept.config, &self.resource.lxcpath, container, into);
        let (new, config) = (dir.join("config.new"), dir.join("config"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &config)?;
            fs::remove_file(&marker)?;
            File::open(&dir)?.sync_all()
        };
        write().map_err(io("configuration", &config))?;
        self.flush_store()?;
        Ok(Done::now().note(dir.display().to_string()))
    }

    pub(super) fn delete_snapshot(&self, container: &str, name: &str) -> Performed {
        self.ensure_mounted()?;
        let dir = self.snapshot_dir(container);
        let record = meta(&dir, name);
        // The record last: without it nobody would know what the subvolume was.
        let options = DeleteOptions::new().absent_is_success().durable();
        btrfs_ops::delete_path(dir.join(name), &options).map_err(|e| btrfs(&e))?;
        match fs::remove_file(&record) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("file", &record)(e));
            }
            _ => {}
        }
        let _ = fs::remove_dir(&dir);
        Ok(Done::now())
    }

    fn flush_store(&self) -> std::result::Result<(), Failure> {
        let mount = &self.resource.mount;
        let dir = File::open(mount).map_err(io("directory", mount))?;
        btrfs_ops::sync(&dir).map_err(|e| btrfs(&e))
    }

    /// How the space of the mounted store is used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when the store is not mounted here; [`ErrorKind::Observe`].
    pub fn space(&mut self) -> Result<SpaceReport> {
        let facts = self.facts()?;
        if facts.mount.store.is_none() {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "{}: the store of {} is not mounted here",
                    self.resource.mount.display(),
                    self.resource.name
                ),
            )
            .remedy("run it on the node that serves it"));
        }
        let mount = self.resource.mount.clone();
        let observe = |e: btrfs_ops::Error| {
            Error::new(
                ErrorKind::Observe,
                format!("{}: its space cannot be read", mount.display()),
            )
            .caused_by(e)
        };
        let dir = File::open(&mount).map_err(|e| {
            Error::io(
                ErrorKind::Observe,
                format!("{}: cannot be opened", mount.display()),
                e,
            )
        })?;
        let space = btrfs_ops::space(&dir).map_err(observe)?;
        Ok(SpaceReport {
            total: space.total.0,
            unallocated: space.unallocated.0,
            reserve_used: space.reserve_used().0,
            groups: space
                .groups
                .iter()
                .map(|g| SpaceRow {
                    kind: format!("{:?}, {:?}", g.kind, g.profile),
                    allocated: g.allocated.0,
                    used: g.used.0,
                })
                .collect(),
            device_errors: device_errors(&dir),
            snapshots: facts
                .snapshots
                .iter()
                .map(|(c, all)| (c.clone(), all.len()))
                .collect(),
        })
    }
}

/// The errors a Btrfs's devices have had, in words; empty when they had none or cannot be asked.
pub(super) fn device_errors(dir: &File) -> Vec<String> {
    let mut words = Vec::new();
    for stats in btrfs_ops::device_stats(dir).unwrap_or_default() {
        for (count, what) in [
            (stats.write_errors, "failed writes"),
            (stats.read_errors, "failed reads"),
            (stats.flush_errors, "failed flushes"),
            (stats.corruption_errors, "corrupt blocks"),
            (stats.generation_errors, "lost writes"),
        ] {
            if count > 0 {
                words.push(format!("device {}: {count} {what}", stats.device));
            }
        }
    }
    words
}

fn meta(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.json"))
}

/// The names in a directory, sorted; none when it is not there.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(all),
        Err(e) => {
            return Err(Error::io(
                ErrorKind::Observe,
                format!("{}: cannot be read", dir.display()),
                e,
            ));
        }
    };
    for entry in entries.flatten() {
        if let Ok(name) = entry.file_name().into_string() {
            all.push(name);
        }
    }
    all.sort();
    Ok(all)
}

/// A container's configuration for a copy of it under another name.
fn config_for(text: &str, lxcpath: &Path, old: &str, new: &str) -> String {
    let (from, to) = (lxcpath.join(old), lxcpath.join(new));
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let mut out = String::new();
    for line in text.lines() {
        let changed = line.split_once('=').and_then(|(key, _)| match key.trim() {
            "lxc.rootfs.path" => Some(format!("lxc.rootfs.path = btrfs:{to}/rootfs")),
            "lxc.uts.name" => Some(format!("lxc.uts.name = {new}")),
            key if key.starts_with("lxc.net.") && key.ends_with(".hwaddr") => Some(format!(
                "{key} = {}",
                hardware_address(&format!("{new} {key}"))
            )),
            _ => None,
        });
        let line = match changed {
            Some(line) => line,
            None => line
                .replace(&format!("{from}/"), &format!("{to}/"))
                .replace(&format!("{from} "), &format!("{to} ")),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// An address in the range that LXC uses, the same for the same name.
fn hardware_address(name: &str) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in name.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let [_, a, b, c] = hash.to_be_bytes();
    format!("00:16:3e:{a:02x}:{b:02x}:{c:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_a_configuration_of_its_own() {
        let text = "\
# made by hand
lxc.uts.name = app
lxc.rootfs.path = btrfs:/srv/store1/containers/app/rootfs
lxc.net.0.hwaddr = 00:16:3e:00:00:14
lxc.net.0.ipv4.address = 10.1.0.20/24
lxc.mount.fstab = /srv/store1/containers/app/fstab
lxc.log.file=/var/log/app/application
";
        let made = config_for(text, Path::new("/srv/store1/containers"), "app", "app-old");
        let expected = format!(
            "\
# made by hand
lxc.uts.name = app-old
lxc.rootfs.path = btrfs:/srv/store1/containers/app-old/rootfs
lxc.net.0.hwaddr = {}
lxc.net.0.ipv4.address = 10.1.0.20/24
lxc.mount.fstab = /srv/store1/containers/app-old/fstab
lxc.log.file=/var/log/app/application
",
            hardware_address("app-old lxc.net.0.hwaddr")
        );
        assert_eq!(made, expected);
        assert_ne!(hardware_address("a"), hardware_address("b"));
    }
}
