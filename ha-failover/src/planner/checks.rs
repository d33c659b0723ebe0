//! What must hold, and what should be known.

use super::Planner;
use crate::facts::{ConfProblem, ContainerState, Disk, Drbd, Link, Replication, Role};
use crate::finding::Code;

impl<'a> Planner<'a> {
    /// What must hold for every request; `false` when there is no point in looking further.
    pub(super) fn everywhere(&mut self) -> bool {
        let facts = self.facts;
        let name = self.name();
        if let Err(e) = self.resource.peer_of(&facts.node) {
            self.error(
                Code::NodeNotInPlacement,
                &name,
                e.to_string(),
                e.how_to_go_on().unwrap_or("correct the placement"),
            );
            return false;
        }
        if !facts.privileged {
            self.error(
                Code::NotPrivileged,
                &facts.node,
                "not running as root (CAP_SYS_ADMIN and CAP_NET_ADMIN are needed)",
                "run it as root",
            );
            return false;
        }
        self.drbd_conf();
        true
    }

    pub(super) fn drbd_conf(&mut self) {
        let facts = self.facts;
        let conf = &facts.conf;
        let path = conf.path.display().to_string();
        match &conf.problem {
            Some(ConfProblem::Unusable(text)) => {
                self.error(
                    Code::DrbdConfUnusable,
                    path,
                    text,
                    "correct the file at the place it names",
                );
                return;
            }
            Some(ConfProblem::NoResource(text)) => {
                self.error(
                    Code::DrbdConfNoResource,
                    path,
                    text,
                    format!(
                        "add resource {} to drbd.conf or correct the placement",
                        self.name()
                    ),
                );
                return;
            }
            Some(ConfProblem::NoSuchNode(text)) => {
                self.error(
                    Code::DrbdConfNoSuchNode,
                    path,
                    text,
                    "the names after `on` must be what `uname -n` prints on each node",
                );
                return;
            }
            None => {}
        }
        let peer = self.peer();
        if let Some(theirs) = conf.peer.as_ref().filter(|theirs| **theirs != peer) {
            self.error(
                Code::PlacementDisagreesWithDrbdConf,
                &path,
                format!(
                    "the peer of {} is `{theirs}` in drbd.conf and `{peer}` in the placement",
                    facts.node
                ),
                "use the same names in both files",
            );
        }
        for (node, address) in [(&facts.node, &conf.address), (&peer, &conf.peer_address)] {
            let placed = self
                .resource
                .nodes
                .get(node.as_str())
                .map(|n| n.address.to_string());
            if let (Some(placed), Some(address)) = (placed, address)
                && placed != *address
            {
                self.error(
                    Code::PlacementDisagreesWithDrbdConf,
                    &path,
                    format!("{node} has the address {address} in drbd.conf and {placed} in the placement"),
                    "use the same address in both files",
                );
            }
        }
        let Some(volume) = conf.volumes.get(&self.resource.volume) else {
            let has: Vec<_> = conf.volumes.keys().map(u16::to_string).collect();
            self.error(
                Code::PlacementDisagreesWithDrbdConf,
                &path,
                format!(
                    "{} has no volume {}; it has {}",
                    self.name(),
                    self.resource.volume,
                    has.join(", ")
                ),
                "correct `volume` in the placement",
            );
            return;
        };
        if let Some(theirs) = volume.peer_minor.filter(|theirs| *theirs != volume.minor) {
            self.warn(
                Code::DrbdConfAdvice,
                &path,
                format!(
                    "{} is minor {} here and {theirs} on {peer}",
                    self.name(),
                    volume.minor
                ),
                "use the same minor on both nodes, or never name the device by hand",
            );
        }
        if conf.two_primaries {
            self.error(
                Code::DrbdConfPromotes,
                &path,
                "allow-two-primaries is on",
                "remove it: Btrfs mounted twice destroys itself",
            );
        }
        if !conf.become_primary_on.is_empty() {
            self.warn(
                Code::DrbdConfPromotes,
                &path,
                format!("become-primary-on {}: DRBD's own boot script would promote without asking the peer", conf.become_primary_on.join(" ")),
                "remove it and keep drbd.service off; this tool promotes",
            );
        }
        for (number, _) in facts.backing.iter().filter(|(_, b)| b.may_skip_log) {
            self.warn(
                Code::ActivityLogMayBeSkipped,
                self.name(),
                format!(
                    "volume {number}: DRBD 9 metadata with room for one peer: after a change of roles DRBD may not note in its activity log where it writes; if this node is lost then, {peer} can miss those writes without knowing"
                ),
                "make the metadata anew with room for two (`drbdadm create-md --max-peers 2`), on one node at a time, and let it resync",
            );
        }
        for advice in &conf.advice {
            self.warn(
                Code::DrbdConfAdvice,
                &path,
                advice,
                "change it when convenient; it works as it is",
            );
        }
        if let Some(protocol) = conf.protocol.as_ref().filter(|p| *p != "C") {
            self.warn(
                Code::WeakPromise,
                &path,
                format!("protocol {protocol}: an acknowledged write may exist on this node only"),
                "use protocol C if no acknowledged write may be lost",
            );
        }
    }

    /// The module, for requests that configure.
    pub(super) fn module(&mut self) {
        let module = &self.facts.module;
        self.helper_is_there();
        if !module.loaded {
            return;
        }
        if let Some(helper) = self.other_helper() {
            let wanted = module.wanted_helper.display();
            self.error(
                Code::ModuleHelperDiffers,
                "module drbd",
                format!("it calls {helper} for its handlers, not {wanted}"),
                format!(
                    "`failover adopt {}` takes over what runs; or printf %s {wanted} > /sys/module/drbd/parameters/usermode_helper (no newline), or name {helper} in the placement by local.usermode_helper",
                    self.name()
                ),
            );
        }
    }

    /// The program that the kernel calls for its handlers, if it is not the one that it should call.
    pub(super) fn other_helper(&self) -> Option<String> {
        let module = &self.facts.module;
        let wanted = module.wanted_helper.as_os_str();
        module.helper.clone().filter(|h| wanted != h.as_str())
    }

    pub(super) fn helper_is_there(&mut self) {
        let module = &self.facts.module;
        if !module.wanted_helper.as_os_str().is_empty()
            && self
                .facts
                .missing_programs
                .iter()
                .any(|p| module.wanted_helper.as_os_str() == p.as_str())
        {
            self.error(
                Code::ProgramMissing,
                module.wanted_helper.display().to_string(),
                "the program the kernel calls for DRBD's handlers is not there",
                "install it beside `failover`, or name it in the placement by local.usermode_helper",
            );
        }
    }

    /// The resource in the kernel, or the finding that it is not there.
    pub(super) fn running_resource(&mut self) -> Option<&'a Drbd> {
        let name = self.name();
        if !self.facts.module.loaded {
            self.error(
                Code::ModuleNotLoaded,
                "module drbd",
                "DRBD is not in this kernel",
                format!("run `failover up {name}`; it loads the module"),
            );
            return None;
        }
        match &self.facts.drbd {
            Some(drbd) => {
                if let Some(by) = &drbd.suspended {
                    self.error(
                        Code::IoSuspended,
                        &name,
                        format!("its I/O is suspended ({by}); a mount would hang"),
                        "settle that first, then resume I/O",
                    );
                }
                Some(drbd)
            }
            None => {
                if self.facts.conf.problem.is_none() {
                    self.error(
                        Code::ResourceDown,
                        &name,
                        "not configured in the kernel",
                        format!("run `failover up {name}`"),
                    );
                }
                None
            }
        }
    }

    pub(super) fn connected(&mut self, drbd: &Drbd) {
        let name = self.name();
        let peer = self.peer();
        match drbd.link {
            Some(Link::Connected) => {}
            // One side may go on calling the other (9).
            _ if self.facts.split_brain.is_some() => self.split_brain(),
            None | Some(Link::StandAlone) => self.error(
                Code::SplitBrainSuspected,
                &name,
                format!("the connection to {peer} is not configured (StandAlone): somebody disconnected it, or DRBD gave it up because the data diverged"),
                format!("compare both nodes' `failover status`; if nothing diverged, run `failover up {name}`"),
            ),
            _ => self.error(
                Code::NotConnected,
                &name,
                format!("no connection to {peer}"),
                format!("bring {peer} and the replication link up; `failover takeover` is for a peer that is off"),
            ),
        }
    }

    pub(super) fn split_brain(&mut self) {
        let name = self.name();
        let peer = self.peer();
        let when = self.facts.split_brain.clone().unwrap_or_default();
        self.error(
            Code::SplitBrain,
            &name,
            format!("split brain: both nodes have written on their own, and DRBD has given the connection up ({when})"),
            format!(
                "decide whose changes are given up; then on that node `failover resolve-split-brain {name} --victim ITS-NAME --keep DIRECTORY --accept \"who: why\"`, and the same on the other one ({peer} or this)"
            ),
        );
    }

    pub(super) fn local_disk(&mut self, drbd: &Drbd) {
        let name = self.name();
        if drbd.all_disks(Disk::UpToDate) {
            return;
        }
        let states: Vec<_> = drbd
            .volumes
            .iter()
            .map(|(n, v)| match v.out_of_sync_kib {
                Some(kib) if kib > 0 => format!("volume {n} {} with {kib} KiB out of sync", v.disk),
                _ => format!("volume {n} {}", v.disk),
            })
            .collect();
        let remedy = if drbd
            .volumes
            .values()
            .any(|v| v.replication == Replication::SyncTarget)
        {
            "a resync is running; wait until it ends"
        } else {
            "connect to a peer with good data and let it resync"
        };
        self.error(
            Code::DiskNotUpToDate,
            name,
            format!("the local disk is not UpToDate: {}", states.join(", ")),
            remedy,
        );
    }

    /// Connected, and this node's data is the newer: a resync to the peer may still run.
    pub(super) fn newest_here(&mut self, drbd: &Drbd) {
        self.local_disk(drbd);
        let name = self.name();
        let peer = self.peer();
        if drbd
            .volumes
            .values()
            .any(|v| v.replication == Replication::Busy)
        {
            self.error(
                Code::ResyncRunning,
                &name,
                format!("this node and {peer} are settling whose data is newer, or a verify runs"),
                "run the command again in a moment",
            );
        } else if !drbd.all_peer_disks(Disk::UpToDate) {
            self.warn(
                Code::PeerDiskNotUpToDate,
                &name,
                format!("the disk of {peer} is being brought up to date; until then every write is on one disk only"),
                format!("`failover wait-sync {name}` waits for it"),
            );
        }
    }

    pub(super) fn both_in_sync(&mut self, drbd: &Drbd) {
        self.local_disk(drbd);
        if !drbd.connected() {
            return;
        }
        let name = self.name();
        let peer = self.peer();
        if !drbd.all_peer_disks(Disk::UpToDate) {
            let states: Vec<_> = drbd
                .volumes
                .iter()
                .map(|(n, v)| match v.out_of_sync_kib {
                    Some(kib) if kib > 0 => {
                        format!("volume {n} {} with {kib} KiB to go", v.peer_disk)
                    }
                    _ => format!("volume {n} {}", v.peer_disk),
                })
                .collect();
            self.error(
                Code::PeerDiskNotUpToDate,
                &name,
                format!("the disk of {peer} is not UpToDate: {}", states.join(", ")),
                "wait until the resync ends",
            );
        }
        if drbd
            .volumes
            .values()
            .any(|v| v.replication == Replication::Busy)
        {
            self.error(
                Code::ResyncRunning,
                &name,
                "a verify or a paused resync is running",
                "wait until it ends",
            );
        }
    }

    pub(super) fn compare_placement(&mut self, theirs: Option<&str>) {
        let ours = self.resource.digest();
        if let Some(theirs) = theirs.filter(|t| *t != ours) {
            let peer = self.peer();
            self.error(
                Code::PlacementDiffers,
                self.name(),
                format!("the placement here is {ours}, on {peer} it is {theirs}"),
                "make the two files equal (all but [local]); `failover plan --peer-placement FILE` shows where they differ",
            );
        }
    }

    /// Whether the store could be mounted and the containers started here.
    pub(super) fn fit_to_serve(&mut self) {
        let mount = &self.facts.mount;
        let point = self.resource.mount.display().to_string();
        if let Some(source) = &mount.occupied_by {
            self.error(
                Code::MountPointOccupied,
                &point,
                format!("{source} is mounted there"),
                "unmount it",
            );
        } else if mount.store.is_none() {
            if !mount.point_exists {
                self.error(
                    Code::MountPointMissing,
                    &point,
                    "the mount point is not a directory",
                    format!("run `failover prepare {}` or make it", self.name()),
                );
            } else if mount.point_has_entries {
                self.error(
                    Code::MountPointNotEmpty,
                    &point,
                    "the mount point has entries that the mount would hide",
                    "look what wrote there while the store was away, and move it",
                );
            }
        }
        for place in &mount.elsewhere {
            self.error(
                Code::StoreMountedElsewhere,
                place.display().to_string(),
                format!("the device of {} is mounted here too", self.name()),
                "unmount it",
            );
        }
        if let Some(store) = &mount.store {
            self.mounted_store(&store.clone());
        }
        let wanted = self
            .resource
            .containers
            .iter()
            .flat_map(|c| c.addresses.iter().map(move |a| (&a.bridge, &c.name)));
        for (bridge, container) in wanted {
            if self.facts.bridges.get(bridge) == Some(&false) {
                self.error(
                    Code::BridgeMissing,
                    bridge,
                    format!("container {container} needs bridge {bridge} and this host has none"),
                    "make the bridge, with the interface of the service network as its port",
                );
            }
        }
        for (name, container) in &self.facts.containers {
            let subject = format!("container {name}");
            if let Some(problem) = &container.problem {
                self.error(
                    Code::ContainerConfig,
                    &subject,
                    problem,
                    "correct its configuration in the store",
                );
            }
            if container.state == Some(ContainerState::Missing) {
                self.error(
                    Code::ContainerMissing,
                    &subject,
                    format!("it has no configuration below {}", self.resource.lxcpath.display()),
                    format!("`failover create-container {} {name} ...`, or take it out of the placement", self.resource.name),
                );
            }
            if container.autostart {
                self.warn(
                    Code::ContainerAutostart,
                    &subject,
                    "lxc.start.auto is on: lxc-autostart would start it at boot",
                    "set lxc.start.auto = 0",
                );
            }
            for bridge in &container.bridges {
                if self.facts.bridges.get(bridge) == Some(&false) {
                    self.error(
                        Code::BridgeMissing,
                        bridge,
                        format!("{subject} names it in its configuration and this host has none"),
                        "make the bridge",
                    );
                }
            }
        }
    }

    pub(super) fn mounted_store(&mut self, store: &crate::facts::StoreMount) {
        let point = self.resource.mount.display().to_string();
        if store.fs_type != "btrfs" {
            self.error(
                Code::NotBtrfs,
                &point,
                format!(
                    "{} is {}, not Btrfs",
                    self.resource.lxcpath.display(),
                    store.fs_type
                ),
                "mount the resource's Btrfs there; containers need subvolumes",
            );
        }
        if store.read_only {
            self.error(
                Code::StoreReadOnly,
                &point,
                "mounted read-only, perhaps after I/O errors",
                "look at the kernel log; unmount and mount again when the disk is good",
            );
        }
        if !store.device_errors.is_empty() {
            self.warn(
                Code::StoreErrors,
                &point,
                format!(
                    "its device has had errors: {}",
                    store.device_errors.join(", ")
                ),
                "look at the kernel log and the disk; a scrub finds what is damaged",
            );
        }
        if store.free == Some(0) {
            self.warn(
                Code::StoreFull,
                &point,
                "the store is full",
                "make room before the containers need it",
            );
        }
        if let (Some(known), Some(now)) = (&self.facts.ledger.fsid, &store.fsid)
            && known != now
        {
            self.error(
                Code::StoreIdDiffers,
                &point,
                format!("the file system is {now}, this node's ledger knows {known}"),
                "find out which disk this is before anything writes to it",
            );
        }
    }

    /// The mount point without the containers, which do not exist on day 0.
    pub(super) fn fit_to_mount_only(&mut self) {
        let point = self.resource.mount.display().to_string();
        let mount = &self.facts.mount;
        if let Some(source) = &mount.occupied_by {
            self.error(
                Code::MountPointOccupied,
                point,
                format!("{source} is mounted there"),
                "unmount it",
            );
        } else if mount.store.is_none() && !mount.point_exists {
            self.error(
                Code::MountPointMissing,
                point,
                "the mount point is not a directory",
                format!("run `failover prepare {}` or make it", self.name()),
            );
        } else if mount.store.is_none() && mount.point_has_entries {
            self.error(
                Code::MountPointNotEmpty,
                point,
                "the mount point has entries that the mount would hide",
                "look what wrote there, and move it",
            );
        }
    }

    /// A Primary must be so for a reason that this node recorded.
    pub(super) fn primary_with_reason(&mut self, drbd: &Drbd, requests: &[&str]) {
        let ours = self.facts.ledger.owner.as_deref() == Some(&self.facts.node);
        let open = requests.iter().any(|r| self.open_is(r));
        if !ours && !open && drbd.role == Role::Primary {
            let alone = if drbd.connected() {
                ""
            } else {
                " without its peer"
            };
            self.error(
                Code::PrimaryWithoutRecord,
                self.name(),
                format!("this node is Primary{alone}, and nothing recorded says that it should be"),
                format!("somebody promoted it by other means: find out who; `failover adopt {}` takes over what runs", self.name()),
            );
        }
    }

    pub(super) fn holders(&mut self) {
        for holder in &self.facts.mount.holders {
            self.error(
                Code::MountHeld,
                self.resource.mount.display().to_string(),
                format!("held by {holder}"),
                "end that first; nothing has been stopped yet",
            );
        }
        for place in &self.facts.mount.elsewhere {
            self.error(
                Code::StoreMountedElsewhere,
                place.display().to_string(),
                "the store is mounted here too and would keep the device busy",
                "unmount it",
            );
        }
    }
}
