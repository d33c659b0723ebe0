//! The state machine: what DRBD does when it is asked, and what it says
//! about it.

use super::encode::{self, About, Object, Voice};
use super::socket::{Item, Shared};
use crate::dialect::Dialect;
use crate::dialect::decode::{Context, Message};
use crate::events::Action;
use crate::model::{
    AddressPair, Connection, ConnectionState, Device, DeviceOptions, DiskOptions, DiskState,
    Generations, MetaDisk, Minor, NetOptions, NodeId, Path, PeerDevice, PeerDeviceOptions,
    Relation, ReplicationState, ResizeOptions, Resource, ResourceName, ResourceOptions, Role,
    Sectors, State, Text, Uuid, VolumeNumber, WriteOrdering,
};
use crate::schema::{self, NOTIFY_CONTINUES, cmd, codes, ctrl, tla};
use crate::watch::{ObjectKey, difference};
use crate::wire::{Messages, NLM_F_DUMP, NLM_F_EXCL, NLMSG_DONE, NLMSG_ERROR, Native};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

const GROUP: u32 = 7;

#[derive(Debug)]
pub(super) enum Fault {
    Refuse(i32, Vec<Text>),
    Errno(i32),
    Silence,
    Delay(Duration),
}

/// A disk, attached or not: what its metadata says.
#[derive(Clone, Debug)]
struct Disk {
    size: Sectors,
    generations: Generations,
    /// What it becomes when it is attached.
    state: DiskState,
    /// What the peer lacks.
    out_of_sync: Sectors,
}

#[derive(Debug)]
struct Node {
    name: String,
    voice: Voice,
    loaded: bool,
    state: State,
    disks: BTreeMap<PathBuf, Disk>,
    open: BTreeSet<Minor>,
    /// Resources whose next connection throws the local data away.
    discard: BTreeSet<ResourceName>,
    seq: u32,
    ports: u32,
    sockets: Vec<Weak<Shared>>,
    faults: VecDeque<Fault>,
    /// How many announcements get lost, and whether somebody says so.
    lost: (usize, bool),
    /// How many arrive the other way round, and those that wait.
    reordered: (usize, Vec<Vec<u8>>),
}

#[derive(Debug)]
pub(super) struct Cluster {
    nodes: Vec<Node>,
    cut: BTreeSet<(usize, usize)>,
    pub(super) held: bool,
    uuid: u64,
}

/// A refusal, or a success other than the usual.
struct Verdict(i32, Vec<Text>);

type Done = Result<(), Verdict>;

fn refuse(code: i32, text: &str) -> Done {
    Err(verdict(code, text))
}

fn verdict(code: i32, text: &str) -> Verdict {
    let texts = if text.is_empty() {
        Vec::new()
    } else {
        vec![text.into()]
    };
    Verdict(code, texts)
}

impl Cluster {
    pub(super) fn new<'a>(dialect: Dialect, nodes: impl IntoIterator<Item = &'a str>) -> Self {
        let node = |name: &str| Node {
            name: name.to_owned(),
            voice: Voice {
                dialect,
                family: 28,
                strange: false,
            },
            loaded: true,
            state: State::empty(),
            disks: BTreeMap::new(),
            open: BTreeSet::new(),
            discard: BTreeSet::new(),
            seq: 1,
            ports: 1000,
            sockets: Vec::new(),
            faults: VecDeque::new(),
            lost: (0, false),
            reordered: (0, Vec::new()),
        };
        Self {
            nodes: nodes.into_iter().map(node).collect(),
            cut: BTreeSet::new(),
            held: false,
            uuid: 0x1000,
        }
    }

    #[allow(clippy::panic, reason = "a mistake of the test that uses it")]
    pub(super) fn index(&self, name: &str) -> usize {
        self.nodes
            .iter()
            .position(|node| node.name == name)
            .unwrap_or_else(|| panic!("the fake cluster has no node {name}"))
    }

    fn fresh_uuid(&mut self) -> Uuid {
        self.uuid += 0x10;
        Uuid(self.uuid)
    }

    // ---- what a test does -------------------------------------------------

    pub(super) fn add_disk(&mut self, node: &str, path: PathBuf, sectors: u64) {
        let at = self.index(node);
        let disk = Disk {
            size: Sectors(sectors),
            generations: Generations {
                current: Uuid::JUST_CREATED,
                bitmap: None,
                history: Vec::new(),
            },
            state: DiskState::Inconsistent,
            out_of_sync: Sectors(sectors),
        };
        self.nodes[at].disks.insert(path, disk);
    }

    pub(super) fn write(&mut self, node: &str, minor: Minor, sectors: u64) -> bool {
        let at = self.index(node);
        let Some((resource, device)) = self.nodes[at].state.device(minor) else {
            return false;
        };
        let (name, volume) = (resource.name.clone(), device.volume);
        let current = device.disk_state == DiskState::UpToDate;
        if resource.role != Role::Primary || resource.suspended.any() || !current {
            return false;
        }
        let peer = resource
            .connections
            .iter()
            .flat_map(|c| &c.peer_devices)
            .find(|p| p.volume == volume && p.replication != ReplicationState::Off);
        let reached = peer.is_some_and(|p| p.peer_disk_state != DiskState::Diskless);
        if !reached {
            let fresh = self.fresh_uuid();
            if let Some(disk) = self.disk_mut(at, minor) {
                if disk.out_of_sync.0 == 0 {
                    let was = std::mem::replace(&mut disk.generations.current, fresh);
                    disk.generations.bitmap = Some(was);
                }
                disk.out_of_sync = Sectors((disk.out_of_sync.0 + sectors).min(disk.size.0));
            }
            self.refresh(at, &name, volume);
        }
        self.step(at, |state| {
            if let Some(device) = device_mut(state, &name, volume) {
                device.statistics.written.0 += sectors;
            }
        });
        true
    }

    pub(super) fn set_open(&mut self, node: &str, minor: Minor, open: bool) {
        let at = self.index(node);
        let node = &mut self.nodes[at];
        if open {
            node.open.insert(minor);
        } else {
            node.open.remove(&minor);
        }
        if node.voice.dialect == Dialect::V9
            && let Some((name, volume)) = self.key(at, minor)
        {
            self.step(at, |state| {
                if let Some(device) = device_mut(state, &name, volume) {
                    device.open = Some(open);
                }
            });
        }
    }

    pub(super) fn fail_disk(&mut self, node: &str, minor: Minor) {
        let at = self.index(node);
        self.drop_disk(at, minor, DiskState::Failed);
    }

    pub(super) fn cut(&mut self, one: &str, other: &str) {
        let (a, b) = (self.index(one), self.index(other));
        self.cut.insert((a.min(b), a.max(b)));
        let broken: Vec<_> = self
            .names(a)
            .into_iter()
            .filter(|name| self.peer_of(a, name).is_some_and(|(peer, _)| peer == b))
            .collect();
        for at in [a, b] {
            for name in &broken {
                self.disconnected(at, name, ConnectionState::NetworkFailure);
            }
        }
    }

    pub(super) fn heal(&mut self, one: &str, other: &str) {
        let (a, b) = (self.index(one), self.index(other));
        self.cut.remove(&(a.min(b), a.max(b)));
        self.negotiate();
    }

    pub(super) fn unload(&mut self, node: &str) {
        let at = self.index(node);
        for name in self.names(at) {
            // A module that is in use cannot be unloaded; so nothing is in use.
            self.nodes[at].open.clear();
            let _ = self.down(at, &name);
        }
        let node = &mut self.nodes[at];
        node.loaded = false;
        let bytes = encode::family(node.voice, ctrl::CTRL_CMD_DELFAMILY, GROUP);
        node.each(|socket| socket.push(Item::Datagram(bytes.clone())));
    }

    pub(super) fn load(&mut self, node: &str) {
        let at = self.index(node);
        let node = &mut self.nodes[at];
        node.loaded = true;
        node.voice.family += 1;
        let bytes = encode::family(node.voice, ctrl::CTRL_CMD_NEWFAMILY, GROUP);
        node.each(|socket| socket.push(Item::Datagram(bytes.clone())));
    }

    pub(super) fn fault(&mut self, node: &str, fault: Fault) {
        let at = self.index(node);
        self.nodes[at].faults.push_back(fault);
    }

    pub(super) fn lose(&mut self, node: &str, announcements: usize, told: bool) {
        let at = self.index(node);
        self.nodes[at].lost = (announcements, told);
    }

    pub(super) fn reorder(&mut self, node: &str, announcements: usize) {
        let at = self.index(node);
        self.nodes[at].reordered = (announcements, Vec::new());
    }

    pub(super) fn speak_strangely(&mut self, node: &str) {
        let at = self.index(node);
        self.nodes[at].voice.strange = true;
    }

    pub(super) fn decree(
        &mut self,
        node: &str,
        resource: &ResourceName,
        volume: VolumeNumber,
        disk: DiskState,
    ) {
        let at = self.index(node);
        self.step(at, |state| {
            if let Some(device) = device_mut(state, resource, volume) {
                device.disk_state = disk;
            }
        });
    }

    pub(super) fn state(&self, node: &str) -> State {
        self.nodes[self.index(node)].state.clone()
    }

    pub(super) fn attach(&mut self, node: usize, socket: &Arc<Shared>) -> u32 {
        let node = &mut self.nodes[node];
        node.sockets.retain(|socket| socket.strong_count() > 0);
        node.sockets.push(Arc::downgrade(socket));
        node.ports += 1;
        node.ports
    }

    // ---- saying it ----------------------------------------------------------

    /// Changes the state of a node, and announces the differences as one change.
    fn step(&mut self, at: usize, change: impl FnOnce(&mut State)) {
        let node = &mut self.nodes[at];
        let old = node.state.clone();
        change(&mut node.state);
        node.state.sort();
        let changes = difference(&bare(&old), &bare(&node.state));
        let mut messages = Vec::new();
        for change in &changes {
            let (state, nh_type) = match change.action {
                Action::Destroy => (&old, 3),
                Action::Create => (&node.state, 1),
                _ => (&node.state, 2),
            };
            let Some(object) = find(state, &change.object) else {
                continue;
            };
            messages.push((object, nh_type));
        }
        let last = messages.len().saturating_sub(1);
        let voice = node.voice;
        let bytes: Vec<_> = messages
            .into_iter()
            .enumerate()
            .map(|(nr, (object, nh_type))| {
                let continues = if nr < last { NOTIFY_CONTINUES } else { 0 };
                if nh_type == 3 {
                    let about = object.about(voice.dialect, true);
                    let command = match object {
                        Object::Resource(_) => cmd::RESOURCE_STATE,
                        Object::Device(..) => cmd::DEVICE_STATE,
                        Object::Connection(..) => cmd::CONNECTION_STATE,
                        Object::PeerDevice(..) => cmd::PEER_DEVICE_STATE,
                        Object::Path(..) => cmd::PATH_STATE,
                    };
                    voice.destroyed(command, &about, nh_type | continues)
                } else {
                    voice.event(object, nh_type | continues)
                }
            })
            .collect();
        for bytes in bytes {
            node.announce(bytes);
        }
    }

    /// Calls the helper program, which answers at once.
    fn helper(&mut self, at: usize, name: &ResourceName, volume: Option<VolumeNumber>, what: &str) {
        let node = &mut self.nodes[at];
        let found = node.state.by_name(name);
        let peer = found.and_then(|r| r.connections.first()?.peer_node_id);
        let minor = volume.and_then(|volume| Some(found?.device(volume)?.minor.0));
        let about = About {
            resource: Some(name.clone()),
            volume,
            minor,
            peer,
            ..About::default()
        };
        for response in [false, true] {
            let bytes = node.voice.helper(&about, what, response);
            node.announce(bytes);
        }
    }

    // ---- finding it ---------------------------------------------------------

    fn names(&self, at: usize) -> Vec<ResourceName> {
        let resources = self.nodes[at].state.resources.iter();
        resources.map(|r| r.name.clone()).collect()
    }

    fn key(&self, at: usize, minor: Minor) -> Option<(ResourceName, VolumeNumber)> {
        let (resource, device) = self.nodes[at].state.device(minor)?;
        Some((resource.name.clone(), device.volume))
    }

    fn disk_mut(&mut self, at: usize, minor: Minor) -> Option<&mut Disk> {
        let node = &mut self.nodes[at];
        let path = node.state.device(minor)?.1.backing_dev.clone()?;
        node.disks.get_mut(&path)
    }

    fn disk(&self, at: usize, name: &ResourceName, volume: VolumeNumber) -> Option<&Disk> {
        let node = &self.nodes[at];
        let device = node.state.by_name(name)?.device(volume)?;
        node.disks.get(device.backing_dev.as_ref()?)
    }

    /// The node at the other end that is connected, and the volumes of both.
    fn peer_of(&self, at: usize, name: &ResourceName) -> Option<(usize, Vec<VolumeNumber>)> {
        let ours = self.nodes[at].state.by_name(name)?;
        if !ours.connections.iter().any(encode::up) {
            return None;
        }
        self.other_end(at, name, encode::up)
    }

    fn other_end(
        &self,
        at: usize,
        name: &ResourceName,
        wanted: impl Fn(&Connection) -> bool,
    ) -> Option<(usize, Vec<VolumeNumber>)> {
        let ours = self.nodes[at].state.by_name(name)?;
        let pairs: Vec<&AddressPair> = paths(ours).collect();
        (0..self.nodes.len())
            .filter(|other| *other != at)
            .find_map(|other| {
                let theirs = self.nodes[other].state.by_name(name)?;
                let meets = paths(theirs).any(|t| {
                    pairs
                        .iter()
                        .any(|o| o.local == t.remote && o.remote == t.local)
                });
                if !meets || !theirs.connections.iter().any(&wanted) {
                    return None;
                }
                let volumes = ours.devices.iter().map(|d| d.volume);
                let both = volumes.filter(|v| theirs.device(*v).is_some()).collect();
                Some((other, both))
            })
    }

    // ---- meeting ------------------------------------------------------------

    /// Brings together who waits for each other.
    fn negotiate(&mut self) {
        for at in 0..self.nodes.len() {
            for name in self.names(at) {
                let waiting = |c: &Connection| c.state == ConnectionState::Connecting;
                let ours = self.nodes[at].state.by_name(&name);
                if !ours.is_some_and(|r| r.connections.iter().any(waiting)) {
                    continue;
                }
                let Some((other, volumes)) = self.other_end(at, &name, waiting) else {
                    continue;
                };
                if !self.cut.contains(&(at.min(other), at.max(other))) {
                    self.meet(at, other, &name, &volumes);
                }
            }
        }
    }

    fn role(&self, at: usize, name: &ResourceName) -> Role {
        let found = self.nodes[at].state.by_name(name);
        found.map_or(Role::Unknown, |resource| resource.role)
    }

    fn disk_state(&self, at: usize, name: &ResourceName, volume: VolumeNumber) -> DiskState {
        let found = self.nodes[at].state.by_name(name);
        found
            .and_then(|resource| resource.device(volume))
            .map_or(DiskState::Diskless, |device| device.disk_state)
    }

    fn meet(&mut self, a: usize, b: usize, name: &ResourceName, volumes: &[VolumeNumber]) {
        let relation = |cluster: &Self, volume| {
            let ours = cluster.disk(a, name, volume)?;
            let theirs = cluster.disk(b, name, volume)?;
            Some(ours.generations.relation(&theirs.generations))
        };
        let discards = |node: &mut Node| node.discard.remove(name);
        let (we, they) = (discards(&mut self.nodes[a]), discards(&mut self.nodes[b]));
        let both_primary =
            self.role(a, name) == Role::Primary && self.role(b, name) == Role::Primary;
        let apart = volumes.iter().any(|volume| {
            matches!(
                relation(self, *volume),
                Some(Relation::SplitBrain | Relation::Unrelated)
            )
        });
        let solved = we != they;
        let dialect = self.nodes[a].voice.dialect;
        for at in [a, b] {
            if dialect == Dialect::V84 || (apart && !solved) || both_primary {
                self.connection(at, name, |c| c.state = ConnectionState::Connected);
            }
        }
        if (apart && !solved) || both_primary {
            for at in [a, b] {
                if apart {
                    self.helper(at, name, volumes.first().copied(), "initial-split-brain");
                    self.helper(at, name, volumes.first().copied(), "split-brain");
                }
                self.disconnected(at, name, ConnectionState::Disconnecting);
            }
            return;
        }
        let mut resyncs = Vec::new();
        for volume in volumes {
            match relation(self, *volume) {
                Some(Relation::OursIsNewer) => resyncs.push((a, b, *volume)),
                Some(Relation::TheirsIsNewer) => resyncs.push((b, a, *volume)),
                Some(Relation::SplitBrain | Relation::Unrelated) if we => {
                    resyncs.push((b, a, *volume));
                }
                Some(Relation::SplitBrain | Relation::Unrelated) => resyncs.push((a, b, *volume)),
                _ => {}
            }
        }
        for (at, other) in [(a, b), (b, a)] {
            let role = self.role(other, name);
            let states: Vec<_> = volumes
                .iter()
                .map(|volume| (*volume, self.disk_state(other, name, *volume)))
                .collect();
            self.connection(at, name, |c| {
                c.state = ConnectionState::Connected;
                c.peer_role = role;
                for path in &mut c.paths {
                    path.established = path.established.map(|_| true);
                }
                for peer in &mut c.peer_devices {
                    if let Some((_, disk)) = states.iter().find(|(v, _)| *v == peer.volume) {
                        peer.replication = ReplicationState::Established;
                        peer.peer_disk_state = *disk;
                    }
                }
            });
        }
        for (source, target, volume) in resyncs {
            self.start_resync(source, target, name, volume);
        }
    }

    fn start_resync(
        &mut self,
        source: usize,
        target: usize,
        name: &ResourceName,
        volume: VolumeNumber,
    ) {
        let size = self
            .disk(target, name, volume)
            .map_or(Sectors(0), |d| d.size);
        let differs = self
            .disk(source, name, volume)
            .map_or(size, |d| d.out_of_sync);
        let left = if differs.0 == 0 { size } else { differs };
        let (ours, theirs) = (ReplicationState::WFBitMapS, ReplicationState::WFBitMapT);
        self.peer_device(source, name, volume, |p| p.replication = ours);
        self.peer_device(target, name, volume, |p| p.replication = theirs);
        self.helper(source, name, Some(volume), "before-resync-source");
        self.helper(target, name, Some(volume), "before-resync-target");
        self.peer_device(source, name, volume, |p| {
            p.replication = ReplicationState::SyncSource;
            p.peer_disk_state = DiskState::Inconsistent;
            p.statistics.out_of_sync = left;
            p.statistics.resync_total = Some(left);
        });
        self.step(target, |state| {
            if let Some(device) = device_mut(state, name, volume) {
                device.disk_state = DiskState::Inconsistent;
            }
            if let Some(peer) = peer_device_mut(state, name, volume) {
                peer.replication = ReplicationState::SyncTarget;
                peer.peer_disk_state = DiskState::UpToDate;
                peer.statistics.out_of_sync = left;
                peer.statistics.resync_total = Some(left);
            }
        });
        self.keep_disk_state(target, name, volume);
        if !self.held {
            self.resync(u64::MAX);
        }
    }

    pub(super) fn resync(&mut self, sectors: u64) {
        for source in 0..self.nodes.len() {
            for name in self.names(source) {
                let Some((target, volumes)) = self.peer_of(source, &name) else {
                    continue;
                };
                for volume in volumes {
                    self.resync_volume(source, target, &name, volume, sectors);
                }
            }
        }
    }

    fn resync_volume(
        &mut self,
        source: usize,
        target: usize,
        name: &ResourceName,
        volume: VolumeNumber,
        sectors: u64,
    ) {
        let found = self.nodes[source].state.by_name(name);
        let peer = found.and_then(|r| r.connections.iter().find_map(|c| c.peer_device(volume)));
        let Some(peer) = peer.filter(|p| p.replication == ReplicationState::SyncSource) else {
            return;
        };
        let left = peer.statistics.out_of_sync.0.saturating_sub(sectors);
        if left > 0 {
            // Progress is not announced.
            for at in [source, target] {
                if let Some(peer) = peer_device_mut(&mut self.nodes[at].state, name, volume) {
                    peer.statistics.out_of_sync = Sectors(left);
                }
            }
            return;
        }
        let current = self
            .disk(source, name, volume)
            .map(|d| d.generations.current);
        for at in [source, target] {
            let Some(minor) = self.minor(at, name, volume) else {
                continue;
            };
            if let (Some(disk), Some(current)) = (self.disk_mut(at, minor), current) {
                let was = std::mem::replace(&mut disk.generations.current, current);
                disk.generations
                    .history
                    .extend(disk.generations.bitmap.take());
                if was != current && !was.is_just_created() {
                    disk.generations.history.insert(0, was);
                }
                disk.out_of_sync = Sectors(0);
                disk.state = DiskState::UpToDate;
            }
            self.refresh(at, name, volume);
        }
        let settle = |p: &mut PeerDevice| {
            p.replication = ReplicationState::Established;
            p.peer_disk_state = DiskState::UpToDate;
            p.statistics.out_of_sync = Sectors(0);
            p.statistics.resync_total = None;
        };
        self.step(target, |state| {
            if let Some(device) = device_mut(state, name, volume) {
                device.disk_state = DiskState::UpToDate;
            }
            if let Some(peer) = peer_device_mut(state, name, volume) {
                settle(peer);
            }
        });
        self.peer_device(source, name, volume, settle);
    }

    /// What the metadata keeps of a volume's state.
    fn keep_disk_state(&mut self, at: usize, name: &ResourceName, volume: VolumeNumber) {
        let state = self.disk_state(at, name, volume);
        let minor = self.minor(at, name, volume);
        if let Some(disk) = minor.and_then(|minor| self.disk_mut(at, minor)) {
            disk.state = state;
        }
    }

    /// Copies the generations of the disk into what is told about it.
    fn refresh(&mut self, at: usize, name: &ResourceName, volume: VolumeNumber) {
        let Some(disk) = self.disk(at, name, volume).cloned() else {
            return;
        };
        let state = &mut self.nodes[at].state;
        if let Some(device) = device_mut(state, name, volume) {
            device.statistics.size = disk.size;
            device.statistics.current_uuid = Some(disk.generations.current);
            device
                .statistics
                .history_uuids
                .clone_from(&disk.generations.history);
        }
        if let Some(peer) = peer_device_mut(state, name, volume) {
            peer.statistics.bitmap_uuid = disk.generations.bitmap;
            if peer.replication == ReplicationState::Off {
                peer.statistics.out_of_sync = disk.out_of_sync;
            }
        }
    }

    fn minor(&self, at: usize, name: &ResourceName, volume: VolumeNumber) -> Option<Minor> {
        Some(self.nodes[at].state.by_name(name)?.device(volume)?.minor)
    }

    fn connection(&mut self, at: usize, name: &ResourceName, f: impl FnOnce(&mut Connection)) {
        self.step(at, |state| {
            if let Some(c) = state
                .by_name_mut(name)
                .and_then(|r| r.connections.first_mut())
            {
                f(c);
            }
        });
    }

    fn peer_device(
        &mut self,
        at: usize,
        name: &ResourceName,
        volume: VolumeNumber,
        f: impl FnOnce(&mut PeerDevice),
    ) {
        self.step(at, |state| {
            if let Some(peer) = peer_device_mut(state, name, volume) {
                f(peer);
            }
        });
    }

    /// One side of a connection ends; it waits for the peer again unless it
    /// was asked for.
    fn disconnected(&mut self, at: usize, name: &ResourceName, why: ConnectionState) {
        for volume in self.volumes(at, name) {
            self.keep_disk_state(at, name, volume);
        }
        self.connection(at, name, |c| {
            c.state = why;
            c.peer_role = Role::Unknown;
            for path in &mut c.paths {
                path.established = path.established.map(|_| false);
            }
            for peer in &mut c.peer_devices {
                peer.replication = ReplicationState::Off;
                peer.peer_disk_state = DiskState::DUnknown;
                peer.statistics.resync_total = None;
            }
        });
        if why == ConnectionState::Disconnecting {
            self.connection(at, name, |c| c.state = ConnectionState::StandAlone);
            if self.nodes[at].voice.dialect == Dialect::V84 {
                self.step(at, |state| {
                    if let Some(resource) = state.by_name_mut(name) {
                        resource.connections.clear();
                    }
                });
            }
        } else {
            self.connection(at, name, |c| c.state = ConnectionState::Unconnected);
            self.connection(at, name, |c| c.state = ConnectionState::Connecting);
        }
    }

    fn volumes(&self, at: usize, name: &ResourceName) -> Vec<VolumeNumber> {
        let found = self.nodes[at].state.by_name(name);
        found.map_or(Vec::new(), |r| r.devices.iter().map(|d| d.volume).collect())
    }

    fn hang_up(&mut self, at: usize, name: &ResourceName) {
        let peer = self.peer_of(at, name);
        self.disconnected(at, name, ConnectionState::Disconnecting);
        if let Some((other, _)) = peer {
            self.disconnected(other, name, ConnectionState::TearDown);
        }
    }

    // ---- doing it -----------------------------------------------------------

    /// How long the request will take.
    pub(super) fn delay(&mut self, at: usize, datagram: &[u8]) -> Duration {
        let node = &mut self.nodes[at];
        match node.faults.front() {
            Some(Fault::Delay(delay)) if changes(datagram) => {
                let delay = *delay;
                node.faults.pop_front();
                delay
            }
            _ => Duration::ZERO,
        }
    }

    /// Carries out a request; the answers.
    pub(super) fn request(&mut self, at: usize, port: u32, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for msg in Messages::<Native>::new(datagram).flatten() {
            let node = &mut self.nodes[at];
            let mut replies = if msg.kind == ctrl::GENL_ID_CTRL {
                if node.loaded {
                    vec![encode::family(node.voice, ctrl::CTRL_CMD_NEWFAMILY, GROUP)]
                } else {
                    vec![encode::control(NLMSG_ERROR, -libc::ENOENT)]
                }
            } else if msg.kind != node.voice.family || !node.loaded {
                vec![encode::control(NLMSG_ERROR, -libc::ENOENT)]
            } else {
                match Message::<Native>::read(node.voice.dialect, &msg) {
                    Ok(message) if msg.flags & NLM_F_DUMP == NLM_F_DUMP => {
                        self.dump(at, message.command)
                    }
                    Ok(message) => self.change(at, &message, msg.flags),
                    Err(_) => vec![encode::control(NLMSG_ERROR, -libc::EINVAL)],
                }
            };
            for reply in &mut replies {
                let command = reply.get(16).copied();
                // The initial state has no port, as from the real kernel.
                let state = msg.flags & NLM_F_DUMP == NLM_F_DUMP
                    && command != Some(0)
                    && reply.get(4..6) == Some(&self.nodes[at].voice.family.to_ne_bytes()[..])
                    && datagram.get(16) == Some(&cmd::GET_INITIAL_STATE);
                if let Some(seq) = reply.get_mut(8..12) {
                    seq.copy_from_slice(&msg.seq.to_ne_bytes());
                }
                if let (false, Some(to)) = (state, reply.get_mut(12..16)) {
                    to.copy_from_slice(&port.to_ne_bytes());
                }
            }
            answers.extend(replies);
        }
        answers
    }

    fn dump(&self, at: usize, command: u8) -> Vec<Vec<u8>> {
        let Node { voice, state, .. } = &self.nodes[at];
        let mut replies = Vec::new();
        for resource in &state.resources {
            let mut objects = Vec::new();
            let all = command == cmd::GET_INITIAL_STATE;
            if all || command == cmd::GET_RESOURCES {
                objects.push(Object::Resource(resource));
            }
            if all || command == cmd::GET_CONNECTIONS {
                let connections = resource.connections.iter();
                objects.extend(connections.map(|c| Object::Connection(resource, c)));
            }
            let paths = all && voice.dialect == Dialect::V9 || command == cmd::GET_PATHS;
            for c in resource.connections.iter().filter(|_| paths) {
                objects.extend(c.paths.iter().map(|path| Object::Path(resource, c, path)));
            }
            if all || command == cmd::GET_DEVICES {
                objects.extend(resource.devices.iter().map(|d| Object::Device(resource, d)));
            }
            if all || command == cmd::GET_PEER_DEVICES {
                for c in &resource.connections {
                    let peers = c.peer_devices.iter();
                    objects.extend(peers.map(|peer| Object::PeerDevice(resource, c, peer)));
                }
            }
            let last = objects.len().saturating_sub(1);
            for (nr, object) in objects.into_iter().enumerate() {
                let continues = if nr < last { NOTIFY_CONTINUES } else { 0 };
                replies.push(if all {
                    voice.event(object, continues)
                } else {
                    voice.dumped(command, object)
                });
            }
        }
        if command == cmd::GET_INITIAL_STATE {
            replies.push(voice.initial_state_done());
        }
        replies.push(encode::control(NLMSG_DONE, 0));
        replies
    }

    fn change(&mut self, at: usize, message: &Message<'_, Native>, flags: u16) -> Vec<Vec<u8>> {
        let voice = self.nodes[at].voice;
        let number = message.minor.map_or(schema::NO_MINOR, |minor| minor.0);
        let answer =
            |code, texts: &[Text]| vec![voice.answer(message.command, number, code, texts)];
        let asks = [cmd::GET_STATUS, cmd::GET_TIMEOUT_TYPE].contains(&message.command);
        if !asks && let Some(fault) = self.nodes[at].faults.pop_front() {
            match fault {
                Fault::Refuse(code, texts) => return answer(code, &texts),
                Fault::Errno(errno) => return vec![encode::control(NLMSG_ERROR, -errno)],
                Fault::Silence => return Vec::new(),
                Fault::Delay(_) => {}
            }
        }
        let Ok(context) = message.context() else {
            return vec![encode::control(NLMSG_ERROR, -libc::EINVAL)];
        };
        match message.command {
            cmd::GET_TIMEOUT_TYPE => return vec![voice.timeout_type(number, 0)],
            cmd::GET_STATUS => {
                let Some((name, volume)) = self.key(at, Minor(number)) else {
                    return answer(codes::ERR_MINOR_INVALID, &[]);
                };
                let disk = self.disk(at, &name, volume);
                let bitmap = disk.and_then(|disk| disk.generations.bitmap);
                let bits = disk.map_or(0, |disk| disk.out_of_sync.0 / 8);
                return vec![voice.status84(number, bitmap, bits)];
            }
            _ => {}
        }
        let result = self.carry_out(at, message, &context, flags);
        self.negotiate();
        match result {
            Ok(()) => answer(codes::NO_ERROR, &[]),
            Err(Verdict(code, texts)) => answer(code, &texts),
        }
    }

    fn carry_out(
        &mut self,
        at: usize,
        message: &Message<'_, Native>,
        context: &Context,
        flags: u16,
    ) -> Done {
        let broken = |_| verdict(codes::ERR_INVALID_REQUEST, "malformed");
        let dialect = self.nodes[at].voice.dialect;
        let flag = |nest: u16, number: u16| -> bool {
            let nest = message.attrs.find(nest).ok().flatten();
            let attr = nest.and_then(|nest| nest.nest().find(number).ok().flatten());
            attr.is_some_and(|attr| attr.bool().unwrap_or(false))
        };
        let defaults = message.ret_code & 1 != 0;
        match message.command {
            cmd::NEW_RESOURCE => {
                let name = context.resource.clone().ok_or_else(no_name)?;
                if self.nodes[at].state.by_name(&name).is_some() {
                    return if flags & NLM_F_EXCL != 0 {
                        refuse(codes::ERR_INVALID_REQUEST, "resource exists")
                    } else {
                        Ok(())
                    };
                }
                let (options, node_id) = message.resource_options().map_err(broken)?;
                let mut all = ResourceOptions::defaults(dialect);
                all.overlay(&options.unwrap_or_default());
                self.step(at, |state| {
                    let mut resource = Resource::new(name);
                    resource.role = Role::Secondary;
                    resource.node_id = node_id;
                    resource.options = Some(all);
                    resource.write_ordering = Some(WriteOrdering::Flush);
                    if dialect == Dialect::V9 {
                        resource.suspended.quorum = Some(false);
                        resource.fail_io = Some(false);
                    }
                    state.resources.push(resource);
                });
                Ok(())
            }
            cmd::NEW_MINOR => self.new_minor(at, message, context, flags),
            cmd::DEL_MINOR
            | cmd::ATTACH
            | cmd::DETACH
            | cmd::CHG_DISK_OPTS
            | cmd::RESIZE
            | cmd::OUTDATE
            | cmd::INVALIDATE
            | cmd::NEW_C_UUID
            | cmd::SUSPEND_IO
            | cmd::RESUME_IO => self.on_minor(at, message, defaults),
            cmd::START_OV | cmd::INVAL_PEER | cmd::PAUSE_SYNC | cmd::RESUME_SYNC => {
                let key = match dialect {
                    Dialect::V84 => message.minor.and_then(|minor| self.key(at, minor)),
                    Dialect::V9 => context.resource.clone().zip(context.volume),
                };
                let (name, volume) = key.ok_or_else(|| verdict(codes::ERR_MINOR_INVALID, ""))?;
                self.on_peer_device(at, message.command, &name, volume)
            }
            cmd::PRIMARY | cmd::SECONDARY => {
                let force = flag(tla::SET_ROLE_PARMS, schema::set_role_parms::FORCE);
                let (name, only) = match dialect {
                    Dialect::V84 => {
                        let minor = message.minor.unwrap_or(Minor(schema::NO_MINOR));
                        let key = self.key(at, minor);
                        let key = key.ok_or_else(|| verdict(codes::ERR_MINOR_INVALID, ""))?;
                        (key.0, Some(key.1))
                    }
                    Dialect::V9 => (self.known(at, context)?, None),
                };
                if message.command == cmd::PRIMARY {
                    self.promote(at, &name, only, force)
                } else {
                    self.demote(at, &name, only)
                }
            }
            _ => {
                let name = match (dialect, &context.resource, &context.addresses) {
                    // 8.4's connections are named by their addresses alone.
                    (Dialect::V84, None, Some(pair)) => self.nodes[at]
                        .state
                        .resources
                        .iter()
                        .find(|r| paths(r).any(|path| path == pair))
                        .map(|r| r.name.clone())
                        .ok_or_else(|| verdict(codes::ERR_INVALID_REQUEST, "unknown connection"))?,
                    _ => self.known(at, context)?,
                };
                self.on_resource(at, message, context, &name, defaults, &flag)
            }
        }
    }

    fn known(&self, at: usize, context: &Context) -> Result<ResourceName, Verdict> {
        let name = context.resource.clone().ok_or_else(no_name)?;
        match self.nodes[at].state.by_name(&name) {
            Some(_) => Ok(name),
            None => Err(verdict(codes::ERR_RES_NOT_KNOWN, "unknown resource")),
        }
    }

    fn new_minor(
        &mut self,
        at: usize,
        message: &Message<'_, Native>,
        context: &Context,
        flags: u16,
    ) -> Done {
        let name = self.known(at, context)?;
        let dialect = self.nodes[at].voice.dialect;
        let minor = message.minor.unwrap_or(Minor(schema::NO_MINOR));
        let volume = context.volume.unwrap_or_default();
        if minor.0 >= 1 << 20 || volume.0 > 65_535 {
            return refuse(codes::ERR_INVALID_REQUEST, "out of range");
        }
        match self.key(at, minor) {
            Some(key) if key == (name.clone(), volume) && flags & NLM_F_EXCL == 0 => return Ok(()),
            Some(_) => return refuse(codes::ERR_MINOR_OR_VOLUME_EXISTS, ""),
            None => {}
        }
        if self.volumes(at, &name).contains(&volume) {
            return refuse(codes::ERR_MINOR_OR_VOLUME_EXISTS, "");
        }
        let given = message.device_options();
        let given = given.map_err(|_| verdict(codes::ERR_INVALID_REQUEST, "malformed"))?;
        self.step(at, |state| {
            let Some(resource) = state.by_name_mut(&name) else {
                return;
            };
            let mut device = Device::new(minor, volume);
            if dialect == Dialect::V9 {
                let mut options = DeviceOptions::defaults(dialect);
                options.overlay(&given.unwrap_or_default());
                device.intentional_diskless = options.diskless;
                device.device_options = Some(options);
                device.quorum = Some(true);
                device.open = Some(false);
            }
            resource.devices.push(device);
            for connection in &mut resource.connections {
                connection.peer_devices.push(peer_device(dialect, volume));
            }
        });
        Ok(())
    }

    fn on_minor(&mut self, at: usize, message: &Message<'_, Native>, defaults: bool) -> Done {
        let minor = message.minor.unwrap_or(Minor(schema::NO_MINOR));
        let Some((name, volume)) = self.key(at, minor) else {
            return refuse(codes::ERR_MINOR_INVALID, "unknown minor");
        };
        let state = self.disk_state(at, &name, volume);
        let dialect = self.nodes[at].voice.dialect;
        match message.command {
            cmd::DEL_MINOR => {
                let resource = self.nodes[at].state.by_name(&name);
                let connected = resource.is_some_and(|r| !r.connections.is_empty());
                if state != DiskState::Diskless || (dialect == Dialect::V84 && connected) {
                    return refuse(codes::ERR_MINOR_CONFIGURED, "");
                }
                self.step(at, |state| {
                    if let Some(resource) = state.by_name_mut(&name) {
                        resource.devices.retain(|d| d.volume != volume);
                        for connection in &mut resource.connections {
                            connection.peer_devices.retain(|p| p.volume != volume);
                        }
                    }
                });
                Ok(())
            }
            cmd::ATTACH => self.attach_disk(at, message, &name, volume),
            cmd::DETACH if state == DiskState::Diskless => {
                Err(Verdict(codes::SS_NOTHING_TO_DO, vec![]))
            }
            cmd::DETACH => {
                let elsewhere = self.peer_is_current(at, &name, volume);
                if self.role(at, &name) == Role::Primary && !elsewhere {
                    return refuse(codes::SS_NO_UP_TO_DATE_DISK, "");
                }
                let passing = match dialect {
                    Dialect::V84 => DiskState::Failed,
                    Dialect::V9 => DiskState::Detaching,
                };
                self.drop_disk(at, minor, passing);
                Ok(())
            }
            cmd::SUSPEND_IO | cmd::RESUME_IO => {
                let suspend = message.command == cmd::SUSPEND_IO;
                self.step(at, |state| {
                    if let Some(resource) = state.by_name_mut(&name) {
                        resource.suspended.user = suspend;
                    }
                });
                Ok(())
            }
            _ if state == DiskState::Diskless => refuse(codes::ERR_NO_DISK, ""),
            cmd::CHG_DISK_OPTS => {
                let given = message.disk().ok().flatten().map(|(_, _, options)| options);
                if let Some(device) = device_mut(&mut self.nodes[at].state, &name, volume) {
                    let mut options = match device.options.take() {
                        Some(options) if !defaults => options,
                        _ => DiskOptions::defaults(dialect),
                    };
                    options.overlay(&given.unwrap_or_default());
                    device.options = Some(options);
                }
                Ok(())
            }
            cmd::RESIZE => {
                let nest = message.attrs.find(tla::RESIZE_PARMS).ok().flatten();
                let wanted = nest
                    .and_then(|nest| ResizeOptions::decode(dialect, nest.nest()).ok())
                    .and_then(|options| options.size)
                    .filter(|size| *size > 0);
                let limit = self.disk(at, &name, volume).map_or(0, |disk| disk.size.0);
                if wanted.is_some_and(|wanted| wanted > limit) {
                    return refuse(111, "");
                }
                let size = Sectors(wanted.unwrap_or(limit));
                let peer = self.peer_of(at, &name).map(|(other, _)| other);
                for node in [Some(at), peer].into_iter().flatten() {
                    self.step(node, |state| {
                        if let Some(device) = device_mut(state, &name, volume) {
                            device.statistics.size = size;
                        }
                    });
                }
                Ok(())
            }
            cmd::OUTDATE => {
                if self.peer_of(at, &name).is_some() {
                    return refuse(codes::SS_CONNECTED_OUTDATES, "");
                }
                self.step(at, |state| {
                    if let Some(device) = device_mut(state, &name, volume) {
                        device.disk_state = DiskState::Outdated;
                    }
                });
                self.keep_disk_state(at, &name, volume);
                Ok(())
            }
            cmd::INVALIDATE => match self.peer_of(at, &name) {
                Some((other, _)) if self.peer_is_current(at, &name, volume) => {
                    self.start_resync(other, at, &name, volume);
                    Ok(())
                }
                _ => refuse(codes::SS_NEED_CONNECTION, ""),
            },
            _ => {
                if self.peer_of(at, &name).is_some() {
                    return refuse(codes::ERR_CONNECTED, "");
                }
                let fresh = self.fresh_uuid();
                if let Some(disk) = self.disk_mut(at, minor) {
                    let was = std::mem::replace(&mut disk.generations.current, fresh);
                    disk.generations.bitmap = Some(was);
                }
                self.refresh(at, &name, volume);
                Ok(())
            }
        }
    }

    fn peer_is_current(&self, at: usize, name: &ResourceName, volume: VolumeNumber) -> bool {
        self.peer_of(at, name)
            .is_some_and(|(other, _)| self.disk_state(other, name, volume) == DiskState::UpToDate)
    }

    fn attach_disk(
        &mut self,
        at: usize,
        message: &Message<'_, Native>,
        name: &ResourceName,
        volume: VolumeNumber,
    ) -> Done {
        if self.disk_state(at, name, volume) != DiskState::Diskless {
            return refuse(codes::ERR_DISK_CONFIGURED, "");
        }
        let Some((path, meta, given)) = message.disk().ok().flatten() else {
            return refuse(codes::ERR_MANDATORY_TAG, "required attribute missing");
        };
        let node = &self.nodes[at];
        let Some(disk) = node.disks.get(&path).cloned() else {
            return refuse(codes::ERR_OPEN_DISK, "no such disk");
        };
        if let MetaDisk::Other(..) = meta {
            return refuse(116, "");
        }
        let devices = node.state.resources.iter().flat_map(|r| &r.devices);
        if devices
            .filter_map(|d| d.backing_dev.as_ref())
            .any(|p| *p == path)
        {
            return refuse(114, "");
        }
        let mut options = DiskOptions::defaults(node.voice.dialect);
        options.overlay(&given);
        self.step(at, |state| {
            if let Some(device) = device_mut(state, name, volume) {
                device.disk_state = DiskState::Attaching;
                device.backing_dev = Some(path);
                device.meta_disk = Some(meta);
                device.options = Some(options);
                device.statistics.size = disk.size;
            }
        });
        self.refresh(at, name, volume);
        let differs = disk.out_of_sync;
        self.step(at, |state| {
            if let Some(device) = device_mut(state, name, volume) {
                device.disk_state = disk.state;
            }
            if let Some(peer) = peer_device_mut(state, name, volume) {
                peer.statistics.out_of_sync = differs;
            }
        });
        if let Some((other, _)) = self.peer_of(at, name) {
            let state = disk.state;
            self.peer_device(other, name, volume, |p| p.peer_disk_state = state);
            let ours = self.disk(at, name, volume).map(|d| d.generations.clone());
            let theirs = self
                .disk(other, name, volume)
                .map(|d| d.generations.clone());
            match ours
                .zip(theirs)
                .map(|(ours, theirs)| ours.relation(&theirs))
            {
                Some(Relation::OursIsNewer) => self.start_resync(at, other, name, volume),
                Some(Relation::TheirsIsNewer) => self.start_resync(other, at, name, volume),
                _ => {}
            }
        }
        Ok(())
    }

    fn drop_disk(&mut self, at: usize, minor: Minor, passing: DiskState) {
        let Some((name, volume)) = self.key(at, minor) else {
            return;
        };
        self.keep_disk_state(at, &name, volume);
        let peer = self.peer_of(at, &name).map(|(other, _)| other);
        for (state, gone) in [(passing, false), (DiskState::Diskless, true)] {
            self.step(at, |model| {
                if let Some(device) = device_mut(model, &name, volume) {
                    device.disk_state = state;
                    if gone {
                        device.backing_dev = None;
                        device.meta_disk = None;
                        device.options = None;
                    }
                }
            });
            if let Some(other) = peer {
                self.peer_device(other, &name, volume, |p| p.peer_disk_state = state);
            }
        }
    }

    fn on_peer_device(
        &mut self,
        at: usize,
        command: u8,
        name: &ResourceName,
        volume: VolumeNumber,
    ) -> Done {
        let Some((other, _)) = self.peer_of(at, name) else {
            return refuse(codes::SS_NEED_CONNECTION, "");
        };
        let peer = peer_device_mut(&mut self.nodes[at].state, name, volume);
        let Some(peer) = peer.map(|peer| peer.clone()) else {
            return refuse(codes::ERR_INVALID_REQUEST, "unknown volume");
        };
        match command {
            cmd::PAUSE_SYNC | cmd::RESUME_SYNC => {
                let pause = command == cmd::PAUSE_SYNC;
                if peer.resync_suspended.user == pause {
                    return refuse(
                        if pause {
                            codes::ERR_PAUSE_IS_SET
                        } else {
                            codes::ERR_PAUSE_IS_CLEAR
                        },
                        "",
                    );
                }
                self.peer_device(at, name, volume, |p| p.resync_suspended.user = pause);
                self.peer_device(other, name, volume, |p| p.resync_suspended.peer = pause);
            }
            cmd::INVAL_PEER => {
                if peer.replication != ReplicationState::Established {
                    return refuse(codes::SS_RESYNC_RUNNING, "");
                }
                self.start_resync(at, other, name, volume);
            }
            _ => {
                for replication in [ReplicationState::VerifyS, ReplicationState::Established] {
                    self.peer_device(at, name, volume, |p| p.replication = replication);
                }
            }
        }
        Ok(())
    }

    fn promote(
        &mut self,
        at: usize,
        name: &ResourceName,
        only: Option<VolumeNumber>,
        force: bool,
    ) -> Done {
        let volumes: Vec<_> = match only {
            Some(volume) => vec![volume],
            None => self.volumes(at, name),
        };
        let stale: Vec<_> = volumes
            .iter()
            .copied()
            .filter(|volume| {
                self.disk_state(at, name, *volume) != DiskState::UpToDate
                    && !self.peer_is_current(at, name, *volume)
            })
            .collect();
        let primary = self.role(at, name) == Role::Primary;
        if primary && (stale.is_empty() || !force) {
            return Err(Verdict(codes::SS_NOTHING_TO_DO, vec![]));
        }
        let peer = self.peer_of(at, name);
        let resource = self.nodes[at].state.by_name(name);
        let options = resource.and_then(|r| r.connections.first()?.options.as_ref());
        let two = options.is_some_and(|options| options.allow_two_primaries == Some(true));
        if let Some((other, _)) = peer
            && self.role(other, name) == Role::Primary
            && !two
        {
            return refuse(codes::SS_TWO_PRIMARIES, "");
        }
        let hopeless =
            |volume: &VolumeNumber| self.disk_state(at, name, *volume) == DiskState::Diskless;
        if !stale.is_empty() && (!force || stale.iter().any(hopeless)) {
            return refuse(codes::SS_NO_UP_TO_DATE_DISK, "");
        }
        for volume in &stale {
            let fresh = self.fresh_uuid();
            let minor = self.minor(at, name, *volume);
            if let Some(disk) = minor.and_then(|minor| self.disk_mut(at, minor)) {
                let was = std::mem::replace(&mut disk.generations.current, fresh);
                if !was.is_just_created() {
                    disk.generations.bitmap = Some(was);
                }
                disk.state = DiskState::UpToDate;
            }
            self.refresh(at, name, *volume);
        }
        self.step(at, |state| {
            if let Some(resource) = state.by_name_mut(name) {
                resource.role = Role::Primary;
                for device in &mut resource.devices {
                    if stale.contains(&device.volume) {
                        device.disk_state = DiskState::UpToDate;
                    }
                }
            }
        });
        if let Some((other, _)) = peer {
            self.connection(other, name, |c| c.peer_role = Role::Primary);
            for volume in stale {
                if self.disk(other, name, volume).is_some() {
                    self.start_resync(at, other, name, volume);
                }
            }
        }
        Ok(())
    }

    fn demote(&mut self, at: usize, name: &ResourceName, only: Option<VolumeNumber>) -> Done {
        if self.role(at, name) != Role::Primary {
            return Err(Verdict(codes::SS_NOTHING_TO_DO, vec![]));
        }
        for volume in only.map_or_else(|| self.volumes(at, name), |volume| vec![volume]) {
            let minor = self.minor(at, name, volume).unwrap_or_default();
            if self.nodes[at].open.contains(&minor) {
                let text = format!("drbd{minor} opened by a test (pid 1)");
                return refuse(codes::SS_DEVICE_IN_USE, &text);
            }
        }
        self.step(at, |state| {
            if let Some(resource) = state.by_name_mut(name) {
                resource.role = Role::Secondary;
            }
        });
        if let Some((other, _)) = self.peer_of(at, name) {
            self.connection(other, name, |c| c.peer_role = Role::Secondary);
        }
        Ok(())
    }

    fn down(&mut self, at: usize, name: &ResourceName) -> Done {
        match self.demote(at, name, None) {
            Err(Verdict(code, texts)) if code < 0 => return Err(Verdict(code, texts)),
            _ => {}
        }
        let resource = self.nodes[at].state.by_name(name);
        if resource.is_some_and(|r| !r.connections.is_empty()) {
            self.hang_up(at, name);
        }
        for volume in self.volumes(at, name) {
            let minor = self.minor(at, name, volume).unwrap_or_default();
            if self.disk_state(at, name, volume) != DiskState::Diskless {
                self.drop_disk(at, minor, DiskState::Failed);
            }
        }
        self.step(at, |state| {
            if let Some(resource) = state.by_name_mut(name) {
                resource.connections.clear();
            }
        });
        for volume in self.volumes(at, name) {
            self.step(at, |state| {
                if let Some(resource) = state.by_name_mut(name) {
                    resource.devices.retain(|d| d.volume != volume);
                }
            });
        }
        self.step(at, |state| state.resources.retain(|r| r.name != *name));
        Ok(())
    }

    fn on_resource(
        &mut self,
        at: usize,
        message: &Message<'_, Native>,
        context: &Context,
        name: &ResourceName,
        defaults: bool,
        flag: &dyn Fn(u16, u16) -> bool,
    ) -> Done {
        let dialect = self.nodes[at].voice.dialect;
        let broken = |_| verdict(codes::ERR_INVALID_REQUEST, "malformed");
        let Some(resource) = self.nodes[at].state.by_name(name).cloned() else {
            return refuse(codes::ERR_RES_NOT_KNOWN, "unknown resource");
        };
        let found = resource
            .connections
            .iter()
            .find(|c| c.peer_node_id == context.peer_node_id);
        let known =
            || found.ok_or_else(|| verdict(codes::ERR_INVALID_REQUEST, "unknown connection"));
        match message.command {
            cmd::DEL_RESOURCE => {
                if !resource.devices.is_empty() || !resource.connections.is_empty() {
                    return refuse(codes::ERR_RES_IN_USE, "");
                }
                self.step(at, |state| state.resources.retain(|r| r.name != *name));
                Ok(())
            }
            cmd::DOWN => self.down(at, name),
            cmd::RESOURCE_OPTS => {
                let (given, _) = message.resource_options().map_err(broken)?;
                if let Some(resource) = self.nodes[at].state.by_name_mut(name) {
                    let mut options = match resource.options.take() {
                        Some(options) if !defaults => options,
                        _ => ResourceOptions::defaults(dialect),
                    };
                    options.overlay(&given.unwrap_or_default());
                    resource.options = Some(options);
                }
                Ok(())
            }
            cmd::RENAME_RESOURCE => {
                let nest = message
                    .attrs
                    .find(tla::RENAME_RESOURCE_PARMS)
                    .map_err(broken)?;
                let number = schema::rename_resource_parms::NEW_RESOURCE_NAME;
                let attr = nest.and_then(|nest| nest.nest().find(number).ok().flatten());
                let new_name = attr.map(|attr| ResourceName::from_kernel(attr.string()));
                let new_name = new_name.ok_or_else(no_name)?;
                if self.nodes[at].state.by_name(&new_name).is_some() {
                    return refuse(codes::ERR_ALREADY_EXISTS, "");
                }
                let node = &mut self.nodes[at];
                let about = Object::Resource(&resource).about(dialect, false);
                if let Some(resource) = node.state.by_name_mut(name) {
                    resource.name = new_name.clone();
                }
                node.state.sort();
                let bytes = node.voice.renamed(&about, &new_name);
                node.announce(bytes);
                Ok(())
            }
            cmd::FORGET_PEER if resource.connections.is_empty() => Ok(()),
            cmd::FORGET_PEER => refuse(codes::ERR_NET_CONFIGURED, ""),
            cmd::CONNECT if dialect == Dialect::V84 => {
                if found.is_some() {
                    return refuse(codes::ERR_NET_CONFIGURED, "");
                }
                let Some(pair) = context.addresses.clone() else {
                    return refuse(codes::ERR_INVALID_REQUEST, "addresses missing");
                };
                let taken = self.nodes[at]
                    .state
                    .resources
                    .iter()
                    .any(|r| paths(r).any(|p| *p == pair));
                if taken {
                    return refuse(codes::ERR_LOCAL_ADDR, "");
                }
                let given = message.net_options().map_err(broken)?;
                self.make_connection(at, name, None, None, given, Some(pair));
                let number = schema::net_conf::DISCARD_MY_DATA;
                self.dial(at, name, flag(tla::NET_CONF, number))
            }
            cmd::NEW_PEER => {
                let Some(peer) = context.peer_node_id else {
                    return refuse(codes::ERR_INVALID_REQUEST, "peer node id missing");
                };
                if peer.0 >= 32 || resource.node_id == Some(peer) {
                    return refuse(codes::ERR_INVALID_REQUEST, "peer node id out of range");
                }
                if found.is_some() {
                    return refuse(codes::ERR_INVALID_REQUEST, "connection exists");
                }
                let given = message.net_options().map_err(broken)?;
                let conn_name = connection_name(message);
                self.make_connection(at, name, Some(peer), conn_name, given, None);
                Ok(())
            }
            cmd::CHG_NET_OPTS => {
                known()?;
                let given = message.net_options().map_err(broken)?;
                let state = &mut self.nodes[at].state;
                if let Some(c) = state
                    .by_name_mut(name)
                    .and_then(|r| r.connection_mut(context.peer_node_id))
                {
                    let mut options = match c.options.take() {
                        Some(options) if !defaults => options,
                        _ => NetOptions::defaults(dialect),
                    };
                    options.overlay(&given.unwrap_or_default());
                    c.options = Some(options);
                    // The name is one of the settings, and none is its default.
                    let kept = c.name.take().filter(|_| !defaults);
                    c.name = connection_name(message).or(kept);
                }
                Ok(())
            }
            cmd::CHG_PEER_DEVICE_OPTS => {
                known()?;
                let given = message.peer_device_options().map_err(broken)?;
                let volume = context.volume.unwrap_or_default();
                if let Some(p) = peer_device_mut(&mut self.nodes[at].state, name, volume) {
                    let mut options = match p.options.take() {
                        Some(options) if !defaults => options,
                        _ => PeerDeviceOptions::defaults(dialect),
                    };
                    options.overlay(&given.unwrap_or_default());
                    p.options = Some(options);
                }
                Ok(())
            }
            cmd::NEW_PATH | cmd::DEL_PATH => {
                let connection = known()?;
                let pair = path_of(message)
                    .ok_or_else(|| verdict(codes::ERR_MANDATORY_TAG, "addresses missing"))?;
                let there = connection.paths.iter().any(|p| p.addresses == pair);
                let new = message.command == cmd::NEW_PATH;
                if new == there {
                    let code = if new {
                        codes::ERR_LOCAL_AND_PEER_ADDR
                    } else {
                        codes::ERR_INVALID_REQUEST
                    };
                    return refuse(code, "");
                }
                self.step(at, |state| {
                    let found = state.by_name_mut(name);
                    if let Some(c) = found.and_then(|r| r.connection_mut(context.peer_node_id)) {
                        if new {
                            c.paths.push(Path::new(pair, Some(false)));
                        } else {
                            c.paths.retain(|p| p.addresses != pair);
                        }
                    }
                });
                Ok(())
            }
            cmd::CONNECT => {
                let connection = known()?;
                if connection.state != ConnectionState::StandAlone {
                    return refuse(codes::ERR_NET_CONFIGURED, "");
                }
                if connection.paths.is_empty() {
                    return refuse(codes::ERR_INVALID_REQUEST, "connection endpoint(s) missing");
                }
                let number = schema::connect_parms::DISCARD_MY_DATA;
                self.dial(at, name, flag(tla::CONNECT_PARMS, number))
            }
            cmd::DISCONNECT | cmd::DEL_PEER => {
                let connection = known()?;
                if connection.state == ConnectionState::StandAlone {
                    if message.command == cmd::DISCONNECT {
                        return Err(Verdict(codes::SS_NOTHING_TO_DO, vec![]));
                    }
                } else {
                    self.hang_up(at, name);
                }
                if message.command == cmd::DEL_PEER {
                    self.step(at, |state| {
                        if let Some(r) = state.by_name_mut(name) {
                            r.connections
                                .retain(|c| c.peer_node_id != context.peer_node_id);
                        }
                    });
                }
                Ok(())
            }
            _ => refuse(137, "unknown command"),
        }
    }

    fn make_connection(
        &mut self,
        at: usize,
        name: &ResourceName,
        peer: Option<NodeId>,
        conn_name: Option<Text>,
        given: Option<NetOptions>,
        pair: Option<AddressPair>,
    ) {
        let dialect = self.nodes[at].voice.dialect;
        let mut options = NetOptions::defaults(dialect);
        options.overlay(&given.unwrap_or_default());
        self.step(at, |state| {
            let Some(resource) = state.by_name_mut(name) else {
                return;
            };
            let mut connection = Connection::new(peer);
            connection.name = conn_name;
            connection.options = Some(options);
            connection
                .paths
                .extend(pair.map(|pair| Path::new(pair, None)));
            if dialect == Dialect::V9 {
                connection.statistics.application_in_flight = Some(Sectors(0));
                connection.statistics.resync_in_flight = Some(Sectors(0));
            }
            let volumes = resource.devices.iter().map(|device| device.volume);
            connection.peer_devices = volumes.map(|v| peer_device(dialect, v)).collect();
            resource.connections.push(connection);
        });
        for volume in self.volumes(at, name) {
            self.refresh(at, name, volume);
        }
    }

    fn dial(&mut self, at: usize, name: &ResourceName, discard: bool) -> Done {
        if discard {
            if self.role(at, name) == Role::Primary {
                return refuse(codes::ERR_DISCARD_IMPOSSIBLE, "");
            }
            self.nodes[at].discard.insert(name.clone());
        }
        self.connection(at, name, |c| c.state = ConnectionState::Unconnected);
        self.connection(at, name, |c| c.state = ConnectionState::Connecting);
        Ok(())
    }
}

impl Node {
    /// A live event: numbered, and maybe lost or late.
    fn announce(&mut self, bytes: Vec<u8>) {
        self.seq += 1;
        let seq = self.seq;
        let (left, told) = &mut self.lost;
        if *left > 0 {
            *left -= 1;
            if *told {
                *told = false;
                self.each(|socket| socket.push(Item::Overrun));
            }
            return;
        }
        let (count, waiting) = &mut self.reordered;
        let mut bytes = bytes;
        if let Some(place) = bytes.get_mut(8..12) {
            place.copy_from_slice(&seq.to_ne_bytes());
        }
        if *count > 0 {
            waiting.insert(0, bytes);
            if waiting.len() == *count {
                *count = 0;
                for late in std::mem::take(waiting) {
                    self.each(|socket| socket.push(Item::Datagram(late.clone())));
                }
            }
            return;
        }
        self.each(|socket| socket.push(Item::Datagram(bytes.clone())));
    }

    fn each(&mut self, f: impl Fn(&Shared)) {
        self.sockets.retain(|socket| socket.strong_count() > 0);
        for socket in self.sockets.iter().filter_map(Weak::upgrade) {
            if socket.joined() {
                f(&socket);
            }
        }
    }
}

/// Whether a request may change something.
fn changes(datagram: &[u8]) -> bool {
    let dump = datagram.get(7).is_some_and(|flags| flags & 3 == 3);
    let family = datagram.get(4..6) != Some(&ctrl::GENL_ID_CTRL.to_ne_bytes()[..]);
    family && !dump && datagram.get(16) != Some(&cmd::GET_STATUS)
}

fn no_name() -> Verdict {
    verdict(codes::ERR_INVALID_REQUEST, "resource name missing")
}

fn peer_device(dialect: Dialect, volume: VolumeNumber) -> PeerDevice {
    let mut peer = PeerDevice::new(volume);
    if dialect == Dialect::V9 {
        peer.peer_intentional_diskless = Some(false);
        peer.options = Some(PeerDeviceOptions::defaults(dialect));
        peer.statistics.uuid_flags = Some(1 << 5);
    }
    peer
}

fn device_mut<'s>(
    state: &'s mut State,
    name: &ResourceName,
    volume: VolumeNumber,
) -> Option<&'s mut Device> {
    let devices = &mut state.by_name_mut(name)?.devices;
    devices.iter_mut().find(|d| d.volume == volume)
}

fn peer_device_mut<'s>(
    state: &'s mut State,
    name: &ResourceName,
    volume: VolumeNumber,
) -> Option<&'s mut PeerDevice> {
    let connections = &mut state.by_name_mut(name)?.connections;
    let mut peers = connections.iter_mut().flat_map(|c| &mut c.peer_devices);
    peers.find(|p| p.volume == volume)
}

fn paths(resource: &Resource) -> impl Iterator<Item = &AddressPair> {
    let paths = resource.connections.iter().flat_map(|c| &c.paths);
    paths.map(|path| &path.addresses)
}

/// The path in a request: as a dump's, but one.
fn connection_name(message: &Message<'_, Native>) -> Option<Text> {
    let nest = message.attrs.find(tla::NET_CONF).ok().flatten()?;
    let name = nest.nest().find(schema::net_conf::NAME).ok().flatten()?;
    Some(Text::from_bytes(name.string()))
}

fn path_of(message: &Message<'_, Native>) -> Option<AddressPair> {
    let found = message.paths().ok()?;
    found.into_iter().next().map(|path| path.addresses)
}

/// Without settings and with what is not announced left out.
fn bare(state: &State) -> State {
    let mut state = state.clone();
    for resource in &mut state.resources {
        resource.options = None;
        for device in &mut resource.devices {
            device.options = None;
            device.device_options = None;
            device.meta_disk = None;
        }
        for connection in &mut resource.connections {
            connection.options = None;
            for peer in &mut connection.peer_devices {
                peer.options = None;
            }
        }
    }
    state
}

fn find<'s>(state: &'s State, key: &ObjectKey) -> Option<Object<'s>> {
    let over = |resource: &ResourceName, peer: &Option<NodeId>| {
        let found = state.by_name(resource)?;
        let connection = found.connections.iter().find(|c| c.peer_node_id == *peer)?;
        Some((found, connection))
    };
    Some(match key {
        ObjectKey::Resource { resource } => Object::Resource(state.by_name(resource)?),
        ObjectKey::Device { resource, volume } => {
            let found = state.by_name(resource)?;
            Object::Device(found, found.device(*volume)?)
        }
        ObjectKey::Connection {
            resource,
            peer_node_id,
        } => {
            let (found, connection) = over(resource, peer_node_id)?;
            Object::Connection(found, connection)
        }
        ObjectKey::PeerDevice {
            resource,
            peer_node_id,
            volume,
        } => {
            let (found, connection) = over(resource, peer_node_id)?;
            Object::PeerDevice(found, connection, connection.peer_device(*volume)?)
        }
        // 8.4 has no events about paths.
        ObjectKey::Path {
            resource,
            peer_node_id: Some(peer),
            addresses,
        } => {
            let (found, connection) = over(resource, &Some(*peer))?;
            let path = connection
                .paths
                .iter()
                .find(|p| p.addresses == *addresses)?;
            Object::Path(found, connection, path)
        }
        ObjectKey::Path { .. } => return None,
    })
}
