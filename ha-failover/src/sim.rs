//! A simulated pair of nodes, for tests of programs built on this crate.
//!
//! [`Cluster`] keeps two nodes with DRBD's rules for roles, a replicated store,
//! mounts, containers, ledgers and journals; [`SimWorld`] is one node of it, for
//! an [`Executor`](crate::Executor). Time is simulated. After every action the
//! cluster checks that at most one node serves; [`Cluster::violations`] tells.
//! What passes here still has to pass on real nodes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use crate::error::Result;
use crate::evidence::{FenceEvidence, Fencer, Power};
use crate::facts::{
    BackingDisk, Conf, ConfVolume, ContainerFacts, ContainerState, Disk, Drbd, Facts, Link,
    MountFacts, Role, SnapshotFacts, StoreMount, VolumeFacts,
};
use crate::journal::{self, Record};
use crate::ledger::{Current, Ledger, OwnerRecord, Tombstone};
use crate::placement::Resource;
use crate::plan::Action;
use crate::world::{Done, Failure, FailureKind, World};

const FSID: &str = "11111111-2222-3333-4444-555555555555";

/// Two nodes and what they share.
#[derive(Clone, Debug)]
pub struct Cluster {
    resource: Resource,
    nodes: BTreeMap<String, Node>,
    link: bool,
    /// Both have written while they were apart.
    diverged: bool,
    now: Duration,
    violations: Vec<String>,
    faults: Vec<Fault>,
}

#[derive(Clone, Debug)]
struct Node {
    powered: bool,
    boot: u32,
    loaded: bool,
    configured: bool,
    attached: bool,
    wants_link: bool,
    /// Connects as the one whose changes are given up.
    discards: bool,
    /// DRBD has told of a split brain.
    split_brain: bool,
    /// The versions of the data that were kept aside.
    kept: Vec<u64>,
    role: Role,
    disk: Disk,
    metadata: bool,
    needs_log: bool,
    /// What is on the disk: a version, and the record in the store.
    data: Data,
    mounted: bool,
    running: BTreeSet<String>,
    ledger: Ledger,
    journal: Vec<Record>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Data {
    version: u64,
    owner: Option<Rc<OwnerRecord>>,
    made: bool,
    snapshots: BTreeSet<(String, String)>,
    /// Containers beside those of the placement.
    restored: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Fault {
    node: String,
    step: String,
    kind: FailureKind,
}

impl Cluster {
    /// Two nodes after day 0: the resource up on both, in sync, and served by its owner.
    ///
    /// # Panics
    ///
    /// When the resource does not have the two nodes that a placement file must have.
    #[must_use]
    #[allow(clippy::panic, reason = "documented, for tests")]
    pub fn serving(resource: &Resource) -> Self {
        let mut record = OwnerRecord::new(&resource.owner, 1, resource.canonical());
        record.fsid = Some(FSID.into());
        let data = Data {
            version: 1,
            owner: Some(Rc::new(record)),
            made: true,
            ..Data::default()
        };
        let nodes = resource
            .nodes
            .keys()
            .map(|name| {
                let serves = *name == resource.owner;
                let node = Node {
                    powered: true,
                    boot: 1,
                    loaded: true,
                    configured: true,
                    attached: true,
                    wants_link: true,
                    discards: false,
                    split_brain: false,
                    kept: Vec::new(),
                    role: if serves {
                        Role::Primary
                    } else {
                        Role::Secondary
                    },
                    disk: Disk::UpToDate,
                    metadata: true,
                    needs_log: false,
                    data: data.clone(),
                    mounted: serves,
                    running: if serves {
                        resource.containers.iter().map(|c| c.name.clone()).collect()
                    } else {
                        BTreeSet::new()
                    },
                    ledger: Ledger {
                        version: 1,
                        epoch: 1,
                        owner: Some(resource.owner.clone()),
                        serving: serves,
                        fsid: serves.then(|| FSID.into()),
                        current: Some(Current::new("boot-1", "then", None)),
                        handed_back: false,
                        helper_before: None,
                        backing: BTreeMap::new(),
                        tombstone: None,
                    },
                    journal: Vec::new(),
                };
                (name.clone(), node)
            })
            .collect();
        Cluster {
            resource: resource.clone(),
            nodes,
            link: true,
            diverged: false,
            now: Duration::ZERO,
            violations: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Where the store has been mounted or served twice at once, if it ever was.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// The nodes where the store is mounted and all containers run.
    #[must_use]
    pub fn serves(&self) -> Vec<&str> {
        self.nodes
            .iter()
            .filter(|(_, n)| {
                n.powered && n.mounted && n.running.len() == self.resource.containers.len()
            })
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The version of the data on a node: grows with each write of a serving node.
    #[must_use]
    pub fn data_version(&self, node: &str) -> Option<u64> {
        self.nodes.get(node).map(|n| n.data.version)
    }

    /// A node's ledger.
    #[must_use]
    pub fn ledger(&self, node: &str) -> Option<&Ledger> {
        self.nodes.get(node).map(|n| &n.ledger)
    }

    /// Cuts or mends the replication link.
    pub fn set_link(&mut self, up: bool) {
        self.link = up;
        self.settle();
    }

    /// Lets whoever serves write once.
    pub fn write(&mut self) {
        let serving: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.powered && n.mounted && n.role == Role::Primary)
            .map(|(name, _)| name.clone())
            .collect();
        self.diverged |= serving.len() > 1;
        for name in serving {
            let next = self
                .nodes
                .values()
                .map(|n| n.data.version)
                .max()
                .unwrap_or(0)
                + 1;
            self.store(&name, |data| data.version = next);
        }
    }

    /// Takes a node's power away.
    pub fn power_off(&mut self, node: &str) {
        if let Some(n) = self.nodes.get_mut(node) {
            n.powered = false;
            n.needs_log = n.role == Role::Primary;
            n.role = Role::Secondary;
            n.loaded = false;
            n.configured = false;
            n.attached = false;
            n.wants_link = false;
            n.mounted = false;
            n.running.clear();
        }
        self.settle();
    }

    /// Boots a node that is off: nothing is configured on it.
    pub fn power_on(&mut self, node: &str) {
        if let Some(n) = self.nodes.get_mut(node).filter(|n| !n.powered) {
            n.powered = true;
            n.boot += 1;
        }
    }

    /// Makes the next attempt of a step on a node fail in this way, with nothing done.
    pub fn fail_next(&mut self, node: &str, step: &str, kind: FailureKind) {
        self.faults.push(Fault {
            node: node.into(),
            step: step.into(),
            kind,
        });
    }

    fn peer_name(&self, node: &str) -> String {
        self.resource
            .peer_of(node)
            .map(str::to_owned)
            .unwrap_or_default()
    }

    fn connected(&self) -> bool {
        self.link
            && self
                .nodes
                .values()
                .all(|n| n.powered && n.configured && n.wants_link)
    }

    /// What DRBD does by itself after a change: resync, or give up after split brain.
    fn settle(&mut self) {
        if !self.connected() {
            return;
        }
        let primaries = self
            .nodes
            .values()
            .filter(|n| n.role == Role::Primary)
            .count();
        if primaries > 1 {
            let diverged = self.diverged;
            for node in self.nodes.values_mut() {
                node.wants_link = false;
                node.split_brain |= diverged;
            }
            return;
        }
        let diverged = self.diverged;
        let victims = self.nodes.values().filter(|n| n.discards).count();
        if diverged && victims != 1 {
            for node in self.nodes.values_mut() {
                node.wants_link = false;
                node.split_brain = true;
            }
            return;
        }
        self.diverged = false;
        let best = self
            .nodes
            .iter()
            .filter(|(_, n)| n.attached)
            .max_by_key(|(_, n)| {
                (
                    !n.discards,
                    n.role == Role::Primary,
                    n.disk == Disk::UpToDate,
                    n.data.version,
                )
            })
            .map(|(name, n)| (name.clone(), n.data.clone(), n.disk));
        if let Some((_, data, Disk::UpToDate)) = best {
            for node in self.nodes.values_mut().filter(|n| n.attached) {
                if node.data != data {
                    node.data.clone_from(&data);
                }
                node.disk = Disk::UpToDate;
            }
        }
        for node in self.nodes.values_mut() {
            node.discards = false;
            node.split_brain = false;
        }
    }

    /// The versions of the data that a node has kept aside.
    #[must_use]
    pub fn kept(&self, node: &str) -> &[u64] {
        self.nodes.get(node).map_or(&[], |n| &n.kept)
    }

    /// Writes on a node, replicated while connected.
    fn store(&mut self, node: &str, change: impl Fn(&mut Data)) {
        let connected = self.connected();
        for (name, n) in &mut self.nodes {
            if name == node || connected {
                change(&mut n.data);
            }
        }
    }

    fn audit(&mut self, after: &str) {
        let mounted: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.powered && n.mounted)
            .map(|(n, _)| n.clone())
            .collect();
        let running: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.powered && !n.running.is_empty())
            .map(|(n, _)| n.clone())
            .collect();
        if mounted.len() > 1 || running.len() > 1 {
            self.violations.push(format!(
                "after {after}: mounted on {mounted:?}, containers on {running:?}"
            ));
        }
        for (name, n) in &self.nodes {
            if n.powered && !n.running.is_empty() && !n.mounted {
                self.violations.push(format!(
                    "after {after}: containers on {name} without the store"
                ));
            }
        }
    }
}

/// One node of a [`Cluster`].
#[derive(Clone, Debug)]
pub struct SimWorld {
    cluster: Rc<RefCell<Cluster>>,
    node: String,
}

impl SimWorld {
    /// Looks at a shared cluster from one of its nodes.
    #[must_use]
    pub fn new(cluster: &Rc<RefCell<Cluster>>, node: &str) -> Self {
        SimWorld {
            cluster: Rc::clone(cluster),
            node: node.into(),
        }
    }
}

fn failed<T>(message: impl Into<String>) -> std::result::Result<T, Failure> {
    Err(Failure::new(FailureKind::Failed, message))
}

impl World for SimWorld {
    fn facts(&mut self) -> Result<Facts> {
        let cluster = self.cluster.borrow();
        let node = &cluster.nodes[&self.node];
        let peer_name = cluster.peer_name(&self.node);
        let peer = &cluster.nodes[&peer_name];
        let connected = cluster.connected();
        let peer_disk = if connected { peer.disk } else { Disk::Unknown };
        let mut facts = Facts {
            node: self.node.clone(),
            resource: cluster.resource.name.clone(),
            boot_id: format!("boot-{}", node.boot),
            privileged: true,
            ledger: node.ledger.clone(),
            open: journal::open_operation(&node.journal),
            ..Facts::default()
        };
        facts.conf = Conf {
            path: "/etc/drbd.conf".into(),
            peer: Some(peer_name),
            protocol: Some("C".into()),
            ..Conf::default()
        };
        facts.conf.volumes.insert(
            0,
            ConfVolume {
                minor: 0,
                device: "/dev/drbd0".into(),
                disk: "/dev/vda".into(),
                peer_minor: Some(0),
            },
        );
        facts.module.loaded = node.loaded;
        facts.split_brain = node.split_brain.then(|| "then".into());
        if node.configured {
            let mut drbd = Drbd::bare();
            drbd.role = node.role;
            drbd.link = Some(match (connected, node.wants_link) {
                (true, _) => Link::Connected,
                (false, true) => Link::Connecting,
                (false, false) => Link::StandAlone,
            });
            drbd.peer_role = if connected { peer.role } else { Role::Unknown };
            let disk = if node.attached {
                node.disk
            } else {
                Disk::Diskless
            };
            drbd.volumes.insert(0, VolumeFacts::new(0, disk, peer_disk));
            facts.drbd = Some(drbd);
        }
        if !node.attached {
            let disk = if node.metadata {
                BackingDisk::Metadata {
                    just_created: false,
                    needs_activity_log: node.needs_log,
                    current_uuid: 0,
                    consistent: true,
                }
            } else {
                BackingDisk::Blank
            };
            facts.disks.insert(0, disk);
        }
        facts.mount = MountFacts {
            point_exists: true,
            lxcpath_exists: node.mounted,
            store: node.mounted.then(|| StoreMount {
                source: "/dev/drbd0".into(),
                fs_type: "btrfs".into(),
                fsid: Some(FSID.into()),
                ..StoreMount::default()
            }),
            ..MountFacts::default()
        };
        if node.mounted {
            for (container, name) in &node.data.snapshots {
                let mut snapshot = SnapshotFacts::default();
                snapshot.name.clone_from(name);
                snapshot.taken = Some("then".into());
                facts
                    .snapshots
                    .entry(container.clone())
                    .or_default()
                    .push(snapshot);
            }
            let placed = cluster.resource.containers.iter().map(|c| &c.name);
            facts.lxcpath = placed.chain(&node.data.restored).cloned().collect();
        }
        facts.store = node.data.owner.as_deref().cloned().filter(|_| node.mounted);
        for spec in &cluster.resource.containers {
            let state = node.mounted.then(|| {
                if node.running.contains(&spec.name) {
                    ContainerState::Running
                } else {
                    ContainerState::Stopped
                }
            });
            facts
                .containers
                .insert(spec.name.clone(), ContainerFacts::new(state));
        }
        Ok(facts)
    }

    fn perform(
        &mut self,
        action: &Action,
        evidence: Option<&FenceEvidence>,
        _deadline: Duration,
    ) -> std::result::Result<Done, Failure> {
        let mut cluster = self.cluster.borrow_mut();
        cluster.now += Duration::from_millis(10);
        if let Some(i) = cluster
            .faults
            .iter()
            .position(|f| f.node == self.node && f.step == action.name())
        {
            let fault = cluster.faults.remove(i);
            return Err(Failure::new(
                fault.kind,
                format!("{} made to fail", fault.step),
            ));
        }
        let result = cluster.act(&self.node, action, evidence);
        cluster.settle();
        let after = format!("{} on {}", action.name(), self.node);
        cluster.audit(&after);
        result
    }

    fn journal(&mut self, record: &Record) -> Result<()> {
        let mut cluster = self.cluster.borrow_mut();
        if let Some(node) = cluster.nodes.get_mut(&self.node) {
            node.journal.push(record.clone());
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.cluster.borrow().now
    }

    fn wall(&self) -> String {
        format!("simulated {} ms", self.cluster.borrow().now.as_millis())
    }
}

impl Cluster {
    #[allow(clippy::too_many_lines, reason = "one arm an action")]
    fn act(
        &mut self,
        name: &str,
        action: &Action,
        evidence: Option<&FenceEvidence>,
    ) -> std::result::Result<Done, Failure> {
        let peer_name = self.peer_name(name);
        let connected = self.connected();
        let peer_role = self.nodes[&peer_name].role;
        let now = format!("simulated {} ms", self.now.as_millis());
        if action.needs_evidence() && evidence.is_none() {
            return failed("no evidence");
        }
        if let Action::Claim { takeover } = action {
            let node = &self.nodes[name];
            if !node.mounted || node.role != Role::Primary {
                return failed("not mounted");
            }
            let old = node.data.owner.as_ref();
            if old.is_some_and(|o| o.owner == name)
                && node.ledger.owner.as_deref() == Some(name)
                && node.ledger.serving
            {
                return Ok(Done::already());
            }
            let epoch = match old {
                Some(o) if o.owner == name => o.epoch,
                old => old.map_or(0, |o| o.epoch).max(node.ledger.epoch) + 1,
            };
            let mut record = OwnerRecord::new(name, epoch, self.resource.canonical());
            record.fsid = Some(FSID.into());
            let tombstone = takeover.then(|| Tombstone::new(&peer_name, epoch, &now, "simulated"));
            record.tombstone.clone_from(&tombstone);
            let record = Rc::new(record);
            self.store(name, |data| data.owner = Some(Rc::clone(&record)));
            let node = self.nodes.get_mut(name).expect("checked above");
            node.ledger.epoch = epoch;
            node.ledger.owner = Some(name.into());
            node.ledger.serving = true;
            node.ledger.tombstone = tombstone;
            return Ok(Done::now());
        }
        if let Action::Snapshot { .. }
        | Action::RestoreSnapshot { .. }
        | Action::DeleteSnapshot { .. } = action
        {
            if !self.nodes[name].mounted {
                return failed("not mounted");
            }
            self.store(name, |data| match action {
                Action::Snapshot { container, name } => {
                    data.snapshots.insert((container.clone(), name.clone()));
                }
                Action::DeleteSnapshot { container, name } => {
                    data.snapshots.remove(&(container.clone(), name.clone()));
                }
                Action::RestoreSnapshot { into, .. } => {
                    data.restored.insert(into.clone());
                }
                _ => {}
            });
            return Ok(Done::now());
        }
        let node = self.nodes.get_mut(name).expect("a node of the placement");
        if !node.powered {
            return failed("no power");
        }
        let already = |so: bool| if so { Done::already() } else { Done::now() };
        match action {
            Action::EnsureDirectory { .. }
            | Action::Announce { .. }
            | Action::CheckContainers
            | Action::Settle
            | Action::SetHelper { .. }
            | Action::GrowPartition { .. }
            | Action::MoveMetadata { .. }
            | Action::GrowDevice { .. }
            | Action::GrowStore { .. }
            | Action::AwaitSync => Ok(Done::now()),
            Action::RecordAdopted { helper_before } => {
                node.ledger.handed_back = false;
                node.ledger.helper_before.clone_from(helper_before);
                Ok(Done::now())
            }
            Action::RecordHandedBack => {
                node.ledger.hand_back();
                Ok(Done::now())
            }
            Action::Partition { .. } => {
                node.metadata = false;
                Ok(Done::now())
            }
            Action::LoadModule { .. } => {
                node.loaded = true;
                Ok(Done::now())
            }
            Action::CreateMetadata { .. } => {
                node.metadata = true;
                Ok(Done::now())
            }
            Action::ApplyActivityLog { .. } => {
                node.needs_log = false;
                Ok(Done::now())
            }
            Action::Attach => {
                if node.needs_log {
                    return failed("attach: refused with code 165");
                }
                node.configured = true;
                node.attached = true;
                Ok(Done::now())
            }
            Action::Connect | Action::AwaitVictim => {
                node.wants_link = true;
                Ok(Done::now())
            }
            Action::ConnectDiscarding => {
                if node.role == Role::Primary {
                    return failed("refused: Primary");
                }
                node.discards = true;
                node.wants_link = true;
                Ok(Done::now())
            }
            Action::PromoteToRescue { .. } => {
                if connected {
                    return failed("connected");
                }
                node.role = Role::Primary;
                Ok(Done::now())
            }
            Action::KeepAside { .. } => {
                if node.role != Role::Primary {
                    return failed("not Primary");
                }
                node.kept.push(node.data.version);
                Ok(Done::now())
            }
            Action::Disconnect => {
                node.wants_link = false;
                Ok(Done::now())
            }
            Action::TakeDown => {
                node.configured = false;
                node.attached = false;
                node.wants_link = false;
                node.ledger.current = None;
                Ok(Done::now())
            }
            Action::InitializeFromHere | Action::MakeFilesystem { .. } => {
                node.data.made = true;
                node.disk = Disk::UpToDate;
                node.role = Role::Primary;
                Ok(Done::now())
            }
            Action::Promote
            | Action::PromoteFenced
            | Action::DeclareDataCurrent { .. }
            | Action::PromoteUnfenced { .. } => {
                if node.role == Role::Primary {
                    return Ok(Done::already());
                }
                if connected && peer_role == Role::Primary {
                    return Err(Failure::new(
                        FailureKind::PeerPrimary,
                        "refused with code -1 (SS_TWO_PRIMARIES)",
                    ));
                }
                if *action == Action::Promote && !connected {
                    return failed("not connected, so without the peer's consent");
                }
                if matches!(action, Action::DeclareDataCurrent { .. }) {
                    node.disk = Disk::UpToDate;
                }
                if node.disk != Disk::UpToDate {
                    return failed("refused with code -2 (SS_NO_UP_TO_DATE_DISK)");
                }
                node.role = Role::Primary;
                Ok(Done::now())
            }
            Action::Demote => {
                if node.mounted {
                    return failed("refused with code -12 (SS_DEVICE_IN_USE)");
                }
                let was = node.role;
                node.role = Role::Secondary;
                Ok(already(was == Role::Secondary))
            }
            Action::AwaitPeerSecondary | Action::AwaitPeerPrimary => {
                let wanted = if *action == Action::AwaitPeerPrimary {
                    Role::Primary
                } else {
                    Role::Secondary
                };
                if connected && peer_role == wanted {
                    Ok(Done::now())
                } else if !connected && *action == Action::AwaitPeerSecondary {
                    failed("the connection was lost")
                } else {
                    self.now += Duration::from_secs(1);
                    Err(Failure::new(
                        FailureKind::Pending,
                        format!("the peer is not {wanted}"),
                    ))
                }
            }
            Action::Mount { .. } => {
                if node.role != Role::Primary {
                    return failed("mount: EMEDIUMTYPE, not Primary");
                }
                let was = node.mounted;
                node.mounted = true;
                Ok(already(was))
            }
            Action::Unmount { .. } => {
                if !node.running.is_empty() {
                    return failed("unmount: EBUSY");
                }
                let was = node.mounted;
                node.mounted = false;
                Ok(already(!was))
            }
            Action::VerifyStore => {
                if !node.mounted {
                    return failed("not mounted");
                }
                node.ledger.fsid = Some(FSID.into());
                Ok(Done::now())
            }
            Action::StartContainer { name } => {
                if !node.mounted {
                    return failed(format!("container {name}: the store is not mounted"));
                }
                Ok(already(!node.running.insert(name.clone())))
            }
            Action::AwaitReady { name } => {
                if node.running.contains(name) {
                    Ok(Done::now())
                } else {
                    failed("not running")
                }
            }
            Action::StopContainer { name } => Ok(already(!node.running.remove(name))),
            Action::VerifyGone { name } => {
                if node.running.contains(name) {
                    failed("still there")
                } else {
                    Ok(Done::now())
                }
            }
            Action::RecordReleased => {
                node.ledger.serving = false;
                Ok(Done::now())
            }
            Action::RecordPeerOwns => {
                node.ledger.serving = false;
                node.ledger.owner = Some(peer_name);
                node.ledger.epoch += 1;
                Ok(Done::now())
            }
            Action::RecordSeen => {
                if connected && node.disk == Disk::UpToDate {
                    node.ledger.current =
                        Some(Current::new(format!("boot-{}", node.boot), now, None));
                    if peer_role == Role::Primary {
                        node.ledger.owner = Some(peer_name);
                        node.ledger.serving = false;
                    }
                }
                Ok(Done::now())
            }
            Action::Claim { .. }
            | Action::Snapshot { .. }
            | Action::RestoreSnapshot { .. }
            | Action::DeleteSnapshot { .. } => unreachable_here(),
        }
    }
}

fn unreachable_here() -> std::result::Result<Done, Failure> {
    failed("handled above")
}

/// The power switch of a simulated cluster.
#[derive(Clone, Debug)]
pub struct SimFencer {
    cluster: Rc<RefCell<Cluster>>,
}

impl SimFencer {
    /// A switch that works.
    #[must_use]
    pub fn new(cluster: &Rc<RefCell<Cluster>>) -> Self {
        SimFencer {
            cluster: Rc::clone(cluster),
        }
    }
}

impl Fencer for SimFencer {
    fn status(&mut self, node: &str) -> Result<Power> {
        let on = self
            .cluster
            .borrow()
            .nodes
            .get(node)
            .is_some_and(|n| n.powered);
        Ok(if on { Power::On } else { Power::Off })
    }

    fn off(&mut self, node: &str) -> Result<()> {
        self.cluster.borrow_mut().power_off(node);
        Ok(())
    }

    fn describe(&self) -> String {
        "the simulated switch".into()
    }
}

#[cfg(test)]
mod tests;
