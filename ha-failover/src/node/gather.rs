//! Facts from the system, in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drbd_md::Target;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, geteuid, sysconf};
use node_ops::holders::{self, Holder};

use super::{Node, drbd};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::{
    BackingDisk, ContainerState, Disk, Drbd, Facts, Module, MountFacts, StoreMount, WholeDisk,
};
use crate::ledger::{Ledger, OwnerRecord, StateDir};
use crate::managers;
use crate::planner::UUID_JUST_CREATED;

/// A dump of the kernel's state answers within this, or something is badly wrong.
const SNAPSHOT: Duration = Duration::from_secs(10);
/// A process that began so short a time ago may be passing.
const YOUNG: Duration = Duration::from_secs(10);
/// Who is there longer is not passing.
const PASSING: Duration = Duration::from_secs(2);

impl Node {
    pub(super) fn gather(&self) -> Result<Facts> {
        if !geteuid().is_root() {
            // Half of what matters cannot be seen; a plan says so and nothing else.
            return Ok(Facts {
                node: self.name.clone(),
                resource: self.resource.name.clone(),
                boot_id: self.boot_id.clone(),
                ..Facts::default()
            });
        }
        let module = self.module();
        let state = if module.loaded {
            Some(self.state_of_drbd()?)
        } else {
            None
        };
        let running = state.as_ref().and_then(|s| s.resource(&self.resource.name));
        let drbd = running.map(drbd::facts);
        let mount = self.mount()?;
        let mut facts = Facts {
            node: self.name.clone(),
            resource: self.resource.name.clone(),
            boot_id: self.boot_id.clone(),
            privileged: true,
            conf: self.conf.facts.clone(),
            ledger: self.state.ledger()?,
            open: self.journal.open_operation()?,
            timings: self.timings(),
            missing_programs: self.missing_programs(),
            ..Facts::default()
        };
        let known = |name: &str| self.names.iter().any(|n| n == name);
        if let Some(state) = &state {
            let names = state.resources.iter().map(|r| r.name.to_string());
            facts.strangers = names.filter(|name| !known(name)).collect();
        }
        facts.differs = running.map_or_else(Vec::new, |r| self.differences(r));
        facts.also_ours = self.also_ours();
        facts.managers = self.managers()?;
        facts.disks = self.disks(drbd.as_ref(), &facts.ledger);
        facts.backing = self.backing(&facts.ledger);
        facts.whole_disks = self.whole_disks();
        if !drbd.as_ref().is_some_and(Drbd::connected) {
            let mut words = self.split_brain_words().into_iter();
            facts.split_brain = words.find_map(|word| fs::read_to_string(word).ok());
        }
        if mount.store.as_ref().is_some_and(|s| s.fs_type == "btrfs") {
            facts.store = OwnerRecord::read(&self.resource.mount)?;
            facts.snapshots = self.snapshot_facts()?;
            facts.lxcpath = self.defined()?;
        }
        facts.containers = self.container_facts(mount.store.is_some() && mount.lxcpath_exists);
        facts.bridges = self.bridges(&facts)?;
        facts.mount = mount;
        facts.mount.holders = self.foreign_holders(&facts);
        facts.module = module;
        facts.drbd = drbd;
        Ok(facts)
    }

    fn module(&self) -> Module {
        let loaded = node_ops::modules::is_loaded("drbd").unwrap_or(false);
        Module {
            loaded,
            helper: loaded
                .then(|| node_ops::modules::parameter("drbd", "usermode_helper").ok())
                .flatten(),
            wanted_helper: self.helper.clone(),
        }
    }

    /// The resource as the kernel shows it; `None` when it has none of that name.
    pub(super) fn snapshot(&self) -> Result<Option<Drbd>> {
        let state = self.state_of_drbd()?;
        Ok(state.resource(&self.resource.name).map(drbd::facts))
    }

    fn state_of_drbd(&self) -> Result<drbd_nl::State> {
        self.with_drbd(|drbd| drbd.snapshot(SNAPSHOT)).map_err(|e| {
            let kind = match e.kind() {
                drbd_nl::ErrorKind::Permission => ErrorKind::Permission,
                _ => ErrorKind::Observe,
            };
            Error::new(kind, "DRBD's state cannot be read").caused_by(e)
        })
    }

    /// What `drbdadm adjust` would do; nothing where the configuration cannot be used.
    fn differences(&self, running: &drbd_nl::Resource) -> Vec<String> {
        let dialect = self.with_drbd(|drbd| Ok(drbd.family().dialect));
        let Ok(dialect) = dialect else {
            return Vec::new();
        };
        self.conf.differences(running, dialect)
    }

    /// The other resources of the placement that this tool runs on this node.
    fn also_ours(&self) -> Vec<String> {
        let others = self.names.iter().filter(|n| **n != self.resource.name);
        others
            .filter(|name| {
                let ledger = StateDir::at(&self.local.state_dir, name).ledger();
                ledger.is_ok_and(|l| l.owner.is_some() && !l.handed_back)
            })
            .cloned()
            .collect()
    }

    fn managers(&self) -> Result<Vec<managers::Conflict>> {
        let device = self.device();
        let store = managers::Store {
            resource: Some(&self.resource.name),
            device: Some(&device),
            mount: Some(&self.resource.mount),
        };
        managers::conflicts(Path::new("/"), &store).map_err(|e| {
            Error::io(
                ErrorKind::Observe,
                "who else acts on the store cannot be seen",
                e,
            )
        })
    }

    fn disks(&self, drbd: Option<&Drbd>, ledger: &Ledger) -> BTreeMap<u16, BackingDisk> {
        self.conf
            .targets
            .iter()
            .filter(|(number, _)| {
                drbd.and_then(|d| d.volumes.get(number))
                    .is_none_or(|v| v.disk == Disk::Diskless)
            })
            .map(|(number, target)| {
                let noted = ledger.backing.get(number).map(|b| b.size);
                let minor = self.conf.facts.volumes.get(number).map(|v| v.minor);
                (*number, backing_disk(target, noted, minor))
            })
            .collect()
    }

    fn whole_disks(&self) -> BTreeMap<u16, WholeDisk> {
        let volumes = self.conf.facts.volumes.iter();
        volumes
            .filter_map(|(number, volume)| {
                let (disk, part) = node_ops::partitions::split_name(&volume.disk)?;
                disk.exists()
                    .then(|| (*number, whole_disk(disk, volume.disk.clone(), part)))
            })
            .collect()
    }

    pub(super) fn mount(&self) -> Result<MountFacts> {
        let target = &self.resource.mount;
        let table = node_ops::mounts::table().map_err(|e| {
            Error::new(ErrorKind::Observe, "the mount table cannot be read").caused_by(e)
        })?;
        let device = self.device();
        let mut facts = MountFacts {
            point_exists: target.is_dir(),
            ..MountFacts::default()
        };
        let is_store = |source: &std::ffi::OsStr| {
            !device.as_os_str().is_empty() && source == device.as_os_str()
        };
        for mount in &table {
            if mount.mount_point == *target {
                if is_store(&mount.source) {
                    facts.occupied_by = None;
                    facts.store = Some(store_mount(target, mount));
                } else {
                    facts.store = None;
                    facts.occupied_by = Some(mount.source.to_string_lossy().into_owned());
                }
            } else if is_store(&mount.source) {
                facts.elsewhere.push(mount.mount_point.clone());
            }
        }
        if facts.store.is_some() {
            facts.lxcpath_exists = self.resource.lxcpath.is_dir();
        } else if facts.occupied_by.is_none() {
            facts.point_has_entries =
                fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
        }
        Ok(facts)
    }

    fn bridges(&self, facts: &Facts) -> Result<BTreeMap<String, bool>> {
        let links = node_ops::links::list().map_err(|e| {
            Error::new(
                ErrorKind::Observe,
                "the network interfaces cannot be listed",
            )
            .caused_by(e)
        })?;
        let there: BTreeSet<_> = links
            .iter()
            .filter(|l| l.kind.as_deref() == Some("bridge"))
            .map(|l| l.name.as_str())
            .collect();
        let placed = self
            .resource
            .containers
            .iter()
            .flat_map(|c| &c.addresses)
            .map(|a| &a.bridge);
        let configured = facts.containers.values().flat_map(|c| &c.bridges);
        Ok(placed
            .chain(configured)
            .map(|name| (name.clone(), there.contains(name.as_str())))
            .collect())
    }

    fn missing_programs(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let runs = |path: &Path| {
            fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        if !runs(&self.helper) {
            missing.push(self.helper.display().to_string());
        }
        let mkfs = [
            "/usr/sbin/mkfs.btrfs",
            "/sbin/mkfs.btrfs",
            "/usr/bin/mkfs.btrfs",
        ];
        if !mkfs.iter().any(|p| runs(Path::new(p))) {
            missing.push("mkfs.btrfs".into());
        }
        missing
    }

    /// Who holds the mount and is not a container of the placement. Who has only just begun may be passing,
    /// as another `failover` that looks at the store: such a one has to be there for a while.
    fn foreign_holders(&self, facts: &Facts) -> Vec<String> {
        if facts.mount.store.is_none() {
            return Vec::new();
        }
        let passing = |holder: &Holder| match holder {
            Holder::Process(process) => age(process.pid).is_some_and(|age| age < YOUNG),
            _ => false,
        };
        let begun = Instant::now();
        loop {
            let found = self.foreign_holders_now(facts);
            if !found.iter().any(passing) || begun.elapsed() > PASSING {
                return found.iter().map(ToString::to_string).collect();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn foreign_holders_now(&self, facts: &Facts) -> Vec<Holder> {
        let Ok(holders) = holders::of_mount(&self.resource.mount) else {
            return Vec::new();
        };
        let inits: Vec<u32> = facts
            .containers
            .values()
            .filter_map(|c| c.init_pid)
            .filter_map(|pid| u32::try_from(pid).ok())
            .collect();
        let namespaces: BTreeSet<_> = inits
            .iter()
            .filter_map(|pid| namespace(*pid, "pid"))
            .collect();
        let mounts: BTreeSet<_> = inits
            .iter()
            .filter_map(|pid| namespace(*pid, "mnt"))
            .collect();
        let monitors: BTreeSet<u32> = inits.iter().filter_map(|pid| parent(*pid)).collect();
        let ours = |pid: u32| {
            monitors.contains(&pid)
                || namespace(pid, "pid").is_some_and(|ns| namespaces.contains(&ns))
                || namespace(pid, "mnt").is_some_and(|ns| mounts.contains(&ns))
        };
        holders
            .into_iter()
            .filter(|holder| match holder {
                Holder::Process(process) => {
                    let monitor = process.lxc_monitor.as_ref().is_some_and(|m| {
                        m.lxcpath == self.resource.lxcpath
                            && self
                                .resource
                                .containers
                                .iter()
                                .any(|c| m.container == *c.name)
                    });
                    !monitor && !ours(process.pid) && !has_ended(process.pid)
                }
                Holder::Mount(mount) => mount.own_namespace || !ours(mount.pid),
                _ => true,
            })
            .collect()
    }
}

impl ContainerState {
    pub(super) fn from_lxc(state: lxc_rs::State) -> Self {
        match state {
            lxc_rs::State::Stopped => ContainerState::Stopped,
            lxc_rs::State::Running => ContainerState::Running,
            lxc_rs::State::Frozen => ContainerState::Frozen,
            other => ContainerState::Other(other.as_str().to_owned()),
        }
    }
}

fn store_mount(target: &Path, mount: &node_ops::mounts::Mount) -> StoreMount {
    let dir = fs::File::open(target).ok();
    let devices = dir.as_ref().and_then(|dir| btrfs_ops::devices(dir).ok());
    let size = devices.map(|all| all.iter().map(|d| d.total.0).sum());
    let device_errors = dir.as_ref().map(super::snapshots::device_errors);
    let fsid = dir
        .and_then(|dir| btrfs_ops::filesystem_info(&dir).ok())
        .map(|info| info.fsid.to_string());
    let free = nix::sys::statvfs::statvfs(target)
        .ok()
        .map(|s| s.blocks_available().saturating_mul(s.fragment_size()));
    StoreMount {
        source: mount.source.clone().into(),
        fs_type: mount.fs_type.to_string_lossy().into_owned(),
        fsid,
        read_only: mount.is_read_only() || mount.is_superblock_read_only(),
        size,
        free,
        device_errors: device_errors.unwrap_or_default(),
    }
}

fn whole_disk(disk: PathBuf, partition: PathBuf, number: u32) -> WholeDisk {
    let mut facts = WholeDisk {
        exists: partition.exists(),
        number,
        ..WholeDisk::default()
    };
    match node_ops::partitions::disk(&disk) {
        Ok(seen) => {
            let there = seen.partitions.iter();
            facts.holds = there
                .map(|p| format!("partition {} of {} MiB", p.number, p.size >> 20))
                .collect();
            if seen.read_only {
                facts.problem = Some("the kernel takes no writes for it".into());
            }
        }
        Err(e) => facts.problem = Some(crate::error::chain(&e)),
    }
    if facts.exists {
        match node_ops::partitions::room(&disk, number) {
            Ok(room) => facts.room = Some((room.partition.size, room.possible.max(room.in_table))),
            Err(e) => facts.no_room = Some(crate::error::chain(&e)),
        }
    }
    match drbd_md::probe(&Target::internal(&disk)) {
        Ok(found) => facts
            .holds
            .extend(found.signatures.iter().map(ToString::to_string)),
        Err(e) if facts.problem.is_none() => facts.problem = Some(crate::error::chain(&e)),
        Err(_) => {}
    }
    facts.disk = disk;
    facts.partition = partition;
    facts
}

fn backing_disk(target: &Target, noted: Option<u64>, minor: Option<u32>) -> BackingDisk {
    let found = match drbd_md::probe(target) {
        Ok(found) => found,
        Err(e) => {
            return BackingDisk::Unusable {
                why: crate::error::chain(&e),
            };
        }
    };
    if found.metadata.is_none() {
        if let Some(from) = super::grow::size_before(target, noted, minor) {
            return BackingDisk::Grown { from };
        }
        if found.is_empty() {
            return BackingDisk::Blank;
        }
        let what: Vec<_> = found.signatures.iter().map(ToString::to_string).collect();
        return BackingDisk::Other {
            what: what.join(", "),
        };
    }
    match drbd_md::read(target) {
        Ok(superblock) => {
            let uuid = superblock.current_uuid.map_or(0, |u| u.0);
            BackingDisk::Metadata {
                just_created: uuid & !1 == UUID_JUST_CREATED,
                needs_activity_log: superblock.needs_activity_log_applied(),
                current_uuid: uuid,
                consistent: superblock.flags.contains(drbd_md::Flags::CONSISTENT),
            }
        }
        Err(e) => BackingDisk::Unusable {
            why: crate::error::chain(&e),
        },
    }
}

/// How long ago a process began.
fn age(pid: u32) -> Option<Duration> {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have any character; what follows it begins with field 3.
    let (_, fields) = stat.rsplit_once(") ")?;
    let begun: u64 = fields.split(' ').nth(22 - 3)?.parse().ok()?;
    let begun =
        Duration::from_secs(begun) / u32::try_from(ticks).ok().filter(|ticks| *ticks > 0)?;
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some(Duration::from(now).saturating_sub(begun))
}

/// The identity of a process's namespace.
fn namespace(pid: u32, kind: &str) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}

/// Whether a process has ended since it was seen; one that was not waited for yet has ended, too. Which
/// container it was of can no longer be told, and it holds nothing.
fn has_ended(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/ns/mnt"))
        .is_err_and(|error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)))
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .and_then(|rest| rest.trim().parse().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    #[test]
    fn how_old_a_process_is() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let young = super::age(child.id()).unwrap();
        let init = super::age(1).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(young < init && young < super::YOUNG * 30, "{young:?}");
        assert_eq!(super::age(child.id()), None);
    }

    #[test]
    fn what_has_ended() {
        assert!(!super::has_ended(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        // A zombie, until it is waited for.
        let stat = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        assert!(super::has_ended(child.id()));
        child.wait().unwrap();
        assert!(super::has_ended(child.id()));
    }
}
