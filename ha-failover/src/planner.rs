//! `plan(facts, placement, request)`: pure, and all findings at once.
//!
//! A plan is made from what is observed, so a rerun after a crash plans only
//! what is left: a container that is stopped already is not stopped again, a
//! store that is mounted already is not mounted again. The journal is asked only
//! for what cannot be observed, such as which containers ran when it all began.

use std::path::PathBuf;
use std::time::Duration;

use crate::evidence::Power;
use crate::facts::{
    BackingDisk, ConfProblem, ContainerState, Disk, Drbd, Facts, Link, Replication, Role,
};
use crate::finding::{Code, Finding, Refusal};
use crate::placement::{Fence, Resource};
use crate::plan::{Action, EvidenceNeed, Plan, Request, Step, Takeover, Undo, settle};

/// DRBD's current generation of metadata that was never used (`UUID_JUST_CREATED`).
pub(crate) const UUID_JUST_CREATED: u64 = 4;

/// Time for what only touches local records and memory.
const QUICK: Duration = Duration::from_secs(10);

/// Plans a request, or refuses it with every reason at once.
///
/// Pure: the same arguments give the same plan.
///
/// # Errors
///
/// A [`Refusal`] when at least one finding is an error.
pub fn plan(facts: &Facts, resource: &Resource, request: &Request) -> Result<Plan, Refusal> {
    let mut planner = Planner {
        facts,
        resource,
        findings: Vec::new(),
        steps: Vec::new(),
        undo: Vec::new(),
        evidence: None,
    };
    if planner.everywhere() {
        match request {
            Request::Prepare => planner.prepare(),
            Request::Up => planner.up(),
            Request::Down => planner.down(),
            Request::Initialize { wait_sync } => planner.initialize(*wait_sync),
            Request::Start => planner.start(),
            Request::Stop => planner.stop(),
            Request::Release { peer_placement } => planner.release(peer_placement.as_deref()),
            Request::Handover { peer_placement } => planner.handover(peer_placement.as_deref()),
            Request::Takeover(takeover) => planner.takeover(takeover),
        }
    }
    let resumes = facts.open.as_ref().map(|open| {
        format!(
            "{} {} of {}, cut short after {}",
            open.request,
            open.id,
            open.began,
            open.last.as_deref().unwrap_or("no step")
        )
    });
    let mut findings = planner.findings;
    if settle(&mut findings) {
        return Err(Refusal {
            request: request.name().to_owned(),
            resource: resource.name.clone(),
            findings,
        });
    }
    let mut steps = planner.steps;
    for step in &mut steps {
        step.predicted_ms = facts.timings.get(step.action.name()).copied();
    }
    Ok(Plan {
        request: request.clone(),
        resource: resource.name.clone(),
        node: facts.node.clone(),
        boot_id: facts.boot_id.clone(),
        evidence: planner.evidence,
        findings,
        steps,
        undo: planner.undo,
        running: running(facts),
        resumes,
    })
}

/// The containers that an undo brings back: those that ran when the operation began.
fn running(facts: &Facts) -> Vec<String> {
    match &facts.open {
        Some(open) if matches!(open.request.as_str(), "release" | "stop") => open.running.clone(),
        _ => facts
            .containers
            .iter()
            .filter(|(_, c)| c.running())
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

/// Whether nobody tries to reach the peer (8.4 shows no connection at all then).
fn given_up(drbd: &Drbd) -> bool {
    matches!(drbd.link, None | Some(Link::StandAlone))
}

struct Planner<'a> {
    facts: &'a Facts,
    resource: &'a Resource,
    findings: Vec<Finding>,
    steps: Vec<Step>,
    undo: Vec<Undo>,
    evidence: Option<EvidenceNeed>,
}

impl<'a> Planner<'a> {
    fn error(
        &mut self,
        code: Code,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings
            .push(Finding::error(code, subject, evidence, remedy));
    }

    fn warn(
        &mut self,
        code: Code,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings
            .push(Finding::warning(code, subject, evidence, remedy));
    }

    fn name(&self) -> String {
        self.resource.name.clone()
    }

    fn peer(&self) -> String {
        self.resource
            .peer_of(&self.facts.node)
            .map_or_else(|_| "the peer".into(), str::to_owned)
    }

    /// The device that carries the store.
    fn device(&self) -> PathBuf {
        self.facts
            .conf
            .volumes
            .get(&self.resource.volume)
            .map(|v| v.device.clone())
            .unwrap_or_default()
    }

    fn step(&mut self, action: Action, deadline: Duration) {
        self.steps.push(Step::new(action, deadline));
    }

    /// Adds to the undo, once the step added last has begun (or `from` has).
    fn undo(&mut self, from: usize, action: Action, deadline: Duration) {
        self.undo.push(Undo {
            action,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            once_begun: from,
        });
    }

    // ---- checks ----------------------------------------------------------

    /// What must hold for every request; `false` when there is no point in looking further.
    fn everywhere(&mut self) -> bool {
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

    fn drbd_conf(&mut self) {
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
    fn module(&mut self) {
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
        if !module.loaded {
            return;
        }
        if let Some(helper) = module
            .helper
            .as_ref()
            .filter(|h| module.wanted_helper.as_os_str() != h.as_str())
        {
            self.error(
                Code::ModuleHelperDiffers,
                "module drbd",
                format!("it calls {helper} for its handlers, not {}", module.wanted_helper.display()),
                format!(
                    "printf %s {} > /sys/module/drbd/parameters/usermode_helper (no newline), or name {helper} in the placement by local.usermode_helper",
                    module.wanted_helper.display()
                ),
            );
        }
    }

    /// The resource in the kernel, or the finding that it is not there.
    fn running_resource(&mut self) -> Option<&'a Drbd> {
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

    fn connected(&mut self, drbd: &Drbd) {
        let name = self.name();
        let peer = self.peer();
        match drbd.link {
            Some(Link::Connected) => {}
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

    fn local_disk(&mut self, drbd: &Drbd) {
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

    fn both_in_sync(&mut self, drbd: &Drbd) {
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

    fn compare_placement(&mut self, theirs: Option<&str>) {
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
    fn fit_to_serve(&mut self) {
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

    fn mounted_store(&mut self, store: &crate::facts::StoreMount) {
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

    /// Whether this node serves: store mounted and Primary.
    fn is_primary(&self) -> bool {
        self.facts
            .drbd
            .as_ref()
            .is_some_and(|d| d.role == Role::Primary)
    }

    fn open_is(&self, request: &str) -> bool {
        self.facts
            .open
            .as_ref()
            .is_some_and(|open| open.request == request)
    }

    // ---- requests --------------------------------------------------------

    fn prepare(&mut self) {
        self.configure(true);
    }

    fn up(&mut self) {
        self.configure(false);
    }

    /// Module, metadata, activity log, attach, connect; ends as Secondary.
    fn configure(&mut self, create: bool) {
        let facts = self.facts;
        let drbd_deadline = self.resource.deadlines.drbd;
        self.module();
        if facts.conf.problem.is_some() {
            return;
        }
        if !facts.mount.point_exists {
            let path = self.resource.mount.clone();
            self.step(Action::EnsureDirectory { path }, QUICK);
        }
        if !facts.module.loaded {
            let helper = facts.module.wanted_helper.clone();
            self.step(Action::LoadModule { helper }, Duration::from_secs(30));
        }
        let attached = facts.drbd.as_ref().is_some_and(Drbd::attached);
        if !attached {
            for (&number, conf) in &facts.conf.volumes {
                let disk = conf.disk.clone();
                let subject = disk.display().to_string();
                if facts
                    .drbd
                    .as_ref()
                    .and_then(|d| d.volumes.get(&number))
                    .is_some_and(|v| v.disk != Disk::Diskless)
                {
                    continue;
                }
                match facts.disks.get(&number) {
                    Some(BackingDisk::Blank) if create => {
                        self.step(Action::CreateMetadata { volume: number, disk }, Duration::from_secs(120));
                    }
                    Some(BackingDisk::Blank) => self.error(
                        Code::MetadataMissing,
                        subject,
                        format!("volume {number} of {} has no DRBD metadata", self.name()),
                        format!("if this disk is new, run `failover prepare {}`; otherwise find out what happened to it", self.name()),
                    ),
                    Some(BackingDisk::Metadata { needs_activity_log: true, .. }) => {
                        self.step(Action::ApplyActivityLog { volume: number, disk }, Duration::from_secs(120));
                    }
                    Some(BackingDisk::Metadata { .. }) => {}
                    Some(BackingDisk::Other { what }) => self.error(
                        Code::DiskNotBlank,
                        subject,
                        format!("it holds {what}"),
                        "if that is not needed any more, erase it by hand (`wipefs --all DEVICE`) and run the command again",
                    ),
                    Some(BackingDisk::Unusable { why }) => self.error(Code::DiskUnusable, subject, why, "check `disk` in drbd.conf and what uses the device"),
                    None => {}
                }
            }
            self.step(Action::Attach, drbd_deadline);
        }
        let link = facts.drbd.as_ref().and_then(|d| d.link);
        if matches!(link, None | Some(Link::StandAlone)) {
            self.step(Action::Connect, drbd_deadline);
        }
        if link != Some(Link::Connected) {
            self.step(Action::Settle, self.resource.deadlines.connect);
        }
        self.step(Action::RecordSeen, QUICK);
    }

    fn down(&mut self) {
        let name = self.name();
        if self.facts.mount.store.is_some() || !self.facts.mount.elsewhere.is_empty() {
            self.error(
                Code::Serving,
                &name,
                "its store is mounted",
                format!("run `failover stop {name}` first"),
            );
        } else if self.is_primary() {
            self.error(
                Code::Serving,
                &name,
                "this node is Primary",
                format!("run `failover stop {name}` first"),
            );
        }
        if self.facts.drbd.is_some() {
            self.step(Action::TakeDown, self.resource.deadlines.drbd);
        }
    }

    fn initialize(&mut self, wait_sync: bool) {
        let name = self.name();
        let deadlines = self.resource.deadlines.clone();
        let Some(drbd) = self.running_resource() else {
            return;
        };
        self.connected(drbd);
        let resuming = self.open_is("initialize") && drbd.role == Role::Primary;
        let ledger = &self.facts.ledger;
        if !resuming {
            let fresh = drbd.all_disks(Disk::Inconsistent)
                && drbd.all_peer_disks(Disk::Inconsistent)
                && drbd.volumes.values().all(|v| {
                    v.current_uuid == Some(UUID_JUST_CREATED) && v.replication == Replication::Idle
                })
                && drbd.role == Role::Secondary
                && drbd.peer_role != Role::Primary
                && ledger.epoch == 0
                && ledger.fsid.is_none();
            if !fresh {
                let seen: Vec<_> = drbd
                    .volumes
                    .iter()
                    .map(|(n, v)| {
                        format!(
                            "volume {n} {}/{} generation {}",
                            v.disk,
                            v.peer_disk,
                            v.current_uuid
                                .map_or("unknown".into(), |u| format!("{u:016X}"))
                        )
                    })
                    .collect();
                self.error(
                    Code::NotDayZero,
                    &name,
                    format!("these are not two fresh disks: {}, epoch {}", seen.join(", "), ledger.epoch),
                    format!("if it was initialised before, use `failover start {name}` or `handover`; to begin anew, take it down on both nodes, wipe both metadata areas and remove both ledgers"),
                );
            }
        }
        if self
            .facts
            .missing_programs
            .iter()
            .any(|p| p == "mkfs.btrfs")
            && ledger.fsid.is_none()
        {
            self.error(
                Code::ProgramMissing,
                "mkfs.btrfs",
                "the program is not there",
                "install btrfs-progs",
            );
        }
        self.fit_to_mount_only();
        let device = self.device();
        if drbd.role != Role::Primary {
            self.step(Action::InitializeFromHere, deadlines.promote);
        }
        if ledger.fsid.is_none() && self.facts.mount.store.is_none() {
            self.step(
                Action::MakeFilesystem {
                    device: device.clone(),
                },
                Duration::from_secs(120),
            );
        }
        if self.facts.mount.store.is_none() {
            self.step(
                Action::Mount {
                    device,
                    target: self.resource.mount.clone(),
                },
                deadlines.mount,
            );
        }
        self.step(
            Action::EnsureDirectory {
                path: self.resource.lxcpath.clone(),
            },
            QUICK,
        );
        self.step(Action::VerifyStore, QUICK);
        self.step(Action::Claim { takeover: false }, QUICK);
        if wait_sync {
            self.step(Action::AwaitSync, deadlines.sync);
            self.step(Action::RecordSeen, QUICK);
        }
    }

    /// The mount point without the containers, which do not exist on day 0.
    fn fit_to_mount_only(&mut self) {
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

    /// Promote by `promote`, mount, verify, claim, start: what is left of it, and its undo.
    fn serve(&mut self, promote: Option<Action>, takeover: bool) {
        let facts = self.facts;
        let resource = self.resource;
        let deadlines = &resource.deadlines;
        let target = resource.mount.clone();
        // What an earlier run that was cut short has done is undone with the rest.
        let resuming = ["handover", "takeover", "start"]
            .iter()
            .any(|r| self.open_is(r));
        let mut undo = Vec::new();
        if let Some(action) = promote {
            undo.push((self.steps.len(), Action::Demote, deadlines.demote));
            self.steps
                .push(Step::new(action, deadlines.promote).in_gap());
        } else if resuming {
            undo.push((0, Action::Demote, deadlines.demote));
        }
        if facts.mount.store.is_none() {
            undo.push((
                self.steps.len(),
                Action::Unmount {
                    target: target.clone(),
                },
                deadlines.unmount,
            ));
            let device = self.device();
            self.steps
                .push(Step::new(Action::Mount { device, target }, deadlines.mount).in_gap());
        } else if resuming {
            undo.push((0, Action::Unmount { target }, deadlines.unmount));
        }
        self.steps
            .push(Step::new(Action::VerifyStore, QUICK).in_gap());
        self.steps
            .push(Step::new(Action::CheckContainers, QUICK).in_gap());
        let claim = self.steps.len();
        self.steps
            .push(Step::new(Action::Claim { takeover }, QUICK).in_gap());
        for container in &resource.containers {
            let name = container.name.clone();
            let running = facts
                .containers
                .get(&name)
                .is_some_and(crate::facts::ContainerFacts::running);
            if running {
                if resuming {
                    undo.push((
                        0,
                        Action::StopContainer { name: name.clone() },
                        container.stop_deadline,
                    ));
                }
            } else {
                undo.push((
                    self.steps.len(),
                    Action::StopContainer { name: name.clone() },
                    container.stop_deadline,
                ));
                self.steps.push(
                    Step::new(
                        Action::StartContainer { name: name.clone() },
                        container.start_deadline,
                    )
                    .in_gap(),
                );
                // Announced before the probe: the probe may come from outside.
                if !container.addresses.is_empty() {
                    self.steps.push(
                        Step::new(Action::Announce { name: name.clone() }, QUICK)
                            .in_gap()
                            .optional(),
                    );
                }
            }
            if container.ready.is_some() {
                self.steps.push(
                    Step::new(Action::AwaitReady { name }, container.start_deadline).in_gap(),
                );
            }
        }
        let claimed = if resuming { 0 } else { claim };
        for (from, action, deadline) in undo.into_iter().rev() {
            self.undo(from, action, deadline);
        }
        if !self.undo.is_empty() {
            self.undo(claimed, Action::RecordReleased, QUICK);
        }
    }

    fn start(&mut self) {
        let name = self.name();
        let peer = self.peer();
        let ledger = &self.facts.ledger;
        let Some(drbd) = self.running_resource() else {
            return;
        };
        if drbd.connected() && drbd.peer_role == Role::Primary {
            self.error(
                Code::PeerPrimary,
                &name,
                format!("{peer} is Primary and serves"),
                format!(
                    "run `failover handover {name}` here and `failover release {name}` on {peer}"
                ),
            );
            return;
        }
        if drbd.role != Role::Primary {
            if ledger.owner.as_deref() == Some(&peer) {
                self.error(
                    Code::OwnedByPeer,
                    &name,
                    format!("{peer} owns it since epoch {}", ledger.epoch),
                    format!("start it there, or run `failover handover {name}` here while both are connected"),
                );
            }
            if drbd.connected() {
                self.both_in_sync(drbd);
            } else if given_up(drbd) {
                self.connected(drbd);
            } else {
                let evidence = if ledger.serving {
                    format!(
                        "this node served in epoch {} when it was lost, and {peer} does not answer: it may have taken over since, and this data may be past",
                        ledger.epoch
                    )
                } else {
                    format!(
                        "{peer} does not answer, so nobody can tell whether it took over since epoch {}",
                        ledger.epoch
                    )
                };
                self.error(
                    Code::AskThePeer,
                    &name,
                    evidence,
                    format!("bring {peer} or the link up and run `failover up {name}`; if {peer} is off for good, `failover takeover {name}` says what it needs"),
                );
            }
        } else {
            self.primary_with_reason(
                drbd,
                &[
                    "initialize",
                    "start",
                    "handover",
                    "takeover",
                    "release",
                    "stop",
                ],
            );
        }
        self.fit_to_serve();
        self.serve(
            (drbd.role != Role::Primary).then_some(Action::Promote),
            false,
        );
    }

    /// A Primary must be so for a reason this node recorded, unless the kernel vouches for it.
    fn primary_with_reason(&mut self, drbd: &Drbd, requests: &[&str]) {
        let ours = self.facts.ledger.owner.as_deref() == Some(&self.facts.node);
        let open = requests.iter().any(|r| self.open_is(r));
        if !ours && !open && !drbd.connected() {
            self.error(
                Code::PrimaryWithoutRecord,
                self.name(),
                "this node is Primary without its peer, and nothing recorded says that it should be",
                "somebody promoted by hand; find out who, and demote it before anything is mounted",
            );
        }
    }

    /// Stop the containers, unmount, demote: what is left of it, and the way back.
    fn leave(&mut self) {
        let facts = self.facts;
        let resource = self.resource;
        let deadlines = &resource.deadlines;
        let running = running(facts);
        let mut back = Vec::new();
        for container in resource.containers.iter().rev() {
            let name = container.name.clone();
            let state = facts.containers.get(&name).and_then(|c| c.state.clone());
            // Stopped by a run that was cut short: an undo still has to bring it back.
            let mut from = running.contains(&name).then_some(0);
            match state.clone() {
                Some(ContainerState::Running) => {
                    from = Some(self.steps.len());
                    self.steps.push(
                        Step::new(
                            Action::StopContainer { name: name.clone() },
                            container.stop_deadline,
                        )
                        .in_gap(),
                    );
                }
                Some(ContainerState::Frozen) => self.error(
                    Code::ContainerState,
                    format!("container {name}"),
                    "FROZEN: it will not answer a shutdown",
                    "thaw it (lxc-unfreeze) and run the command again",
                ),
                Some(ContainerState::Other(word)) => self.error(
                    Code::ContainerState,
                    format!("container {name}"),
                    format!("{word}: between two states"),
                    "wait until it has settled and run the command again",
                ),
                _ => {}
            }
            if let Some(from) = from {
                if facts.mount.store.is_some() && state != Some(ContainerState::Running) {
                    self.steps
                        .push(Step::new(Action::VerifyGone { name: name.clone() }, QUICK).in_gap());
                }
                back.push((
                    from,
                    Action::StartContainer { name },
                    container.start_deadline,
                ));
            }
        }
        let device = self.device();
        let target = resource.mount.clone();
        let mut from = 0;
        if facts.mount.store.is_some() {
            from = self.steps.len();
            self.steps.push(
                Step::new(
                    Action::Unmount {
                        target: target.clone(),
                    },
                    deadlines.unmount,
                )
                .in_gap(),
            );
        }
        back.push((from, Action::Mount { device, target }, deadlines.mount));
        let mut from = 0;
        if self.is_primary() {
            from = self.steps.len();
            self.steps
                .push(Step::new(Action::Demote, deadlines.demote).in_gap());
        }
        back.push((from, Action::Promote, deadlines.promote));
        for (from, action, deadline) in back.into_iter().rev() {
            self.undo(from, action, deadline);
        }
    }

    fn holders(&mut self) {
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

    fn stop(&mut self) {
        let Some(drbd) = self.running_resource() else {
            return;
        };
        self.holders();
        if drbd.role != Role::Primary && self.facts.mount.store.is_none() {
            if self.facts.ledger.serving {
                self.step(Action::RecordReleased, QUICK);
            }
            return;
        }
        self.leave();
        self.step(Action::RecordReleased, QUICK);
    }

    fn release(&mut self, peer_placement: Option<&str>) {
        let name = self.name();
        let peer = self.peer();
        let Some(drbd) = self.running_resource() else {
            return;
        };
        self.compare_placement(peer_placement);
        if drbd.role != Role::Primary {
            let ours = self.facts.ledger.owner.as_deref() == Some(&self.facts.node);
            if drbd.connected() && drbd.peer_role == Role::Primary {
                // The peer has it already: only the record is missing, if that.
                if ours || self.facts.ledger.serving {
                    self.step(Action::RecordPeerOwns, QUICK);
                }
                return;
            }
            if !self.open_is("release") {
                self.error(
                    Code::NotPrimary,
                    &name,
                    "this node does not serve it",
                    format!(
                        "nothing to release here; `failover status {name}` on both nodes shows who does",
                    ),
                );
                return;
            }
        }
        self.connected(drbd);
        self.both_in_sync(drbd);
        if drbd.role == Role::Primary {
            self.holders();
            if let Some(store) = &self.facts.mount.store
                && store.read_only
            {
                self.warn(
                    Code::StoreReadOnly,
                    self.resource.mount.display().to_string(),
                    "mounted read-only, perhaps after I/O errors",
                    "handing it over is right; look at the kernel log afterwards",
                );
            }
        }
        self.leave();
        self.steps
            .push(Step::new(Action::AwaitPeerPrimary, self.resource.deadlines.take_back).in_gap());
        self.step(Action::RecordPeerOwns, QUICK);
        if self
            .facts
            .conf
            .fencing
            .as_deref()
            .is_none_or(|f| f == "dont-care")
        {
            self.warn(
                Code::WeakPromise,
                &name,
                format!("fencing dont-care: every write acknowledged while connected to {peer} is on both disks; one acknowledged while disconnected is on one"),
                "`fencing resource-and-stonith` holds writes until the peer is fenced",
            );
        }
    }

    fn handover(&mut self, peer_placement: Option<&str>) {
        let name = self.name();
        let peer = self.peer();
        self.compare_placement(peer_placement);
        self.fit_to_serve();
        let Some(drbd) = self.running_resource() else {
            return;
        };
        if drbd.role == Role::Primary {
            self.primary_with_reason(drbd, &["handover", "takeover"]);
            if self.facts.ledger.owner.as_deref() == Some(&self.facts.node)
                && !self.open_is("handover")
            {
                self.warn(
                    Code::NothingToDo,
                    &name,
                    "this node serves it already",
                    format!("`failover start {name}` starts what does not run"),
                );
                return;
            }
            self.serve(None, false);
            return;
        }
        self.connected(drbd);
        self.both_in_sync(drbd);
        self.step(Action::AwaitPeerSecondary, self.resource.deadlines.handover);
        self.serve(Some(Action::Promote), false);
        if drbd.connected() && drbd.peer_role == Role::Secondary {
            self.warn(
                Code::PeerNotPrimary,
                &name,
                format!("{peer} does not serve it now"),
                "this node will serve at once",
            );
        }
    }

    fn takeover(&mut self, takeover: &Takeover) {
        let name = self.name();
        let peer = self.peer();
        let facts = self.facts;
        self.fit_to_serve();
        let Some(drbd) = self.running_resource() else {
            return;
        };
        let resuming = self.open_is("takeover");
        if drbd.role == Role::Primary {
            self.primary_with_reason(drbd, &["takeover", "start", "handover"]);
            if facts.ledger.owner.as_deref() == Some(&facts.node) && !resuming {
                self.warn(
                    Code::NothingToDo,
                    &name,
                    "this node serves it already",
                    format!("`failover start {name}` starts what does not run"),
                );
                return;
            }
        }
        // A link that still looks connected to a peer whose power is off is only not yet noticed.
        let dead = takeover.peer_power == Some(Power::Off) && takeover.attest.is_none();
        if drbd.connected() && !dead {
            self.error(
                Code::PeerConnected,
                &name,
                format!("{peer} is connected and {}", drbd.peer_role),
                format!("it is alive: run `failover handover {name}` here and `failover release {name}` there"),
            );
            if drbd.peer_role == Role::Primary {
                self.error(
                    Code::PeerPrimary,
                    &name,
                    format!("{peer} is Primary"),
                    "two owners destroy the data of one of them",
                );
            }
        }
        let declared = takeover.declare_data_current.as_ref();
        if drbd.role != Role::Primary {
            self.local_data(drbd, declared.is_some(), resuming);
        }
        match (&takeover.attest, &self.resource.fence) {
            (Some(text), _) => {
                self.warn(
                    Code::AttestedOnly,
                    &peer,
                    format!("only attested to be off: {text}"),
                    "if that is wrong two nodes serve, and the changes of one are lost; fence it instead where you can",
                );
                self.evidence = Some(EvidenceNeed { node: peer.clone(), from: format!("attested {text}") });
            }
            (None, Fence::Operator) => self.error(
                Code::NoFenceMethod,
                &peer,
                "the placement has no fence command, so nothing can prove that it is off",
                format!("switch {peer} off by hand and say so: `failover takeover {name} --attest \"who: what was done\"`"),
            ),
            (None, Fence::Command { off, .. }) => {
                if let Some(Power::Unknown(why)) = &takeover.peer_power {
                    self.warn(
                        Code::PeerWasPowered,
                        &peer,
                        format!("the fence agent cannot tell its power state ({why})"),
                        "the takeover ends if that stays so after fencing",
                    );
                }
                if takeover.peer_power == Some(Power::On) {
                    self.warn(
                        Code::PeerWasPowered,
                        &peer,
                        "it is powered now: if it served after the link was lost, what it acknowledged since is not here",
                        "where a living path exists, prefer `release` there; it will be switched off by the first step",
                    );
                }
                self.evidence = Some(EvidenceNeed {
                    node: peer.clone(),
                    from: format!("`{}`, then read back", off.join(" ").replace("{node}", &peer)),
                });
            }
        }
        let mut promote = None;
        if drbd.role != Role::Primary {
            let attested = takeover.attest.is_some();
            if attested && !given_up(drbd) {
                self.steps
                    .push(Step::new(Action::Disconnect, self.resource.deadlines.drbd).in_gap());
            }
            promote = Some(match (declared, &takeover.promote_unfenced) {
                (Some(accepted), _) if !drbd.all_disks(Disk::UpToDate) => {
                    Action::DeclareDataCurrent {
                        accepted: accepted.clone(),
                    }
                }
                (_, Some(accepted)) => Action::PromoteUnfenced {
                    accepted: accepted.clone(),
                },
                _ => Action::PromoteFenced,
            });
        }
        self.serve(promote, true);
        if given_up(drbd) || takeover.attest.is_some() {
            self.step(Action::Connect, self.resource.deadlines.drbd);
            if let Some(last) = self.steps.last_mut() {
                last.optional = true;
            }
        }
    }

    /// Whether the local data may be served without asking the peer.
    fn local_data(&mut self, drbd: &Drbd, declared: bool, resuming: bool) {
        let name = self.name();
        let facts = self.facts;
        let accept = format!(
            "`failover takeover {name} --declare-data-current \"who: I accept losing what {} acknowledged since\"`",
            self.peer()
        );
        let findings_before = self.findings.len();
        if !drbd.all_disks(Disk::UpToDate) {
            let states: Vec<_> = drbd
                .volumes
                .iter()
                .map(|(n, v)| format!("volume {n} {}", v.disk))
                .collect();
            let inconsistent = drbd.volumes.values().any(|v| v.disk < Disk::Outdated);
            self.error(
                Code::DiskNotUpToDate,
                &name,
                format!(
                    "the local disk is not UpToDate: {}{}",
                    states.join(", "),
                    if inconsistent {
                        "; it is no point in time at all"
                    } else {
                        ""
                    }
                ),
                format!(
                    "find the node with the good data; the only way on here is dangerous: {accept}"
                ),
            );
        }
        if given_up(drbd) && !resuming {
            self.error(
                Code::SplitBrainSuspected,
                &name,
                "the connection was given up (StandAlone), perhaps because the data diverged",
                format!("compare both nodes first; the way on without that: {accept}"),
            );
        }
        let current = drbd.in_sync()
            || facts
                .ledger
                .current
                .as_ref()
                .is_some_and(|c| c.boot_id == facts.boot_id && !c.boot_id.is_empty());
        if !current {
            let when = facts.ledger.current.as_ref().map_or_else(
                || "it was never seen to be".to_owned(),
                |c| {
                    format!(
                        "it was last seen to be at {}, before this node's last boot",
                        c.at
                    )
                },
            );
            self.error(
                Code::DataMayBeStale,
                &name,
                format!(
                    "nothing shows that the local data was current when the link was lost: {when}"
                ),
                format!("connect to the peer if its disk can still be read; otherwise {accept}"),
            );
        }
        if declared {
            // The named operation turns these into warnings; its words stand in the journal.
            for finding in &mut self.findings[findings_before..] {
                finding.severity = crate::finding::Severity::Warning;
                finding.remedy = "accepted by the operator".into();
            }
        }
    }
}

#[cfg(test)]
mod tests;
