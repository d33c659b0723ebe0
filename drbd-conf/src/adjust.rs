//! From what runs to what the file says: the steps that `drbdadm adjust` would take.

use std::collections::HashSet;
use std::path::PathBuf;

use drbd_nl::{
    AddressPair, Base, ConnectionRef, ConnectionState, DeviceOptions, Dialect, DiskOptions, Minor,
    NetOptions, NodeId, Operation, PeerDeviceOptions, ResizeOptions, ResourceName, ResourceOptions,
    Text, VolumeNumber,
};

use crate::error::{Error, ErrorKind, Result};
use crate::expand::{Step, Target, meta_disk};
use crate::model::MetaDisk;
use crate::view::{NodeView, PeerView, VolumeView};

/// One resource as it runs: what an adjustment starts from.
///
/// Made from what the kernel says: `Running::from(&drbd_nl_resource)`, of a
/// [`snapshot`](drbd_nl::Drbd::snapshot).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Running {
    /// Settings of the resource.
    pub options: ResourceOptions,
    /// The volumes.
    pub volumes: Vec<RunningVolume>,
    /// The connections that are configured, 8.4 has at most one.
    pub connections: Vec<RunningConnection>,
}

/// A volume as it runs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RunningVolume {
    /// Its number.
    pub number: u32,
    /// Its minor.
    pub minor: u32,
    /// Disk, place of the metadata and settings, if one is attached.
    pub disk: Option<(PathBuf, drbd_nl::MetaDisk, Box<DiskOptions>)>,
}

impl RunningVolume {
    /// A volume without a disk.
    pub fn new(number: u32, minor: u32) -> RunningVolume {
        RunningVolume {
            number,
            minor,
            disk: None,
        }
    }
}

/// A connection as it runs.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RunningConnection {
    /// The peer's node id (9).
    pub peer_node_id: Option<u32>,
    /// It does not try to connect.
    pub stand_alone: bool,
    /// Addresses, local and remote.
    pub paths: Vec<AddressPair>,
    /// Settings. Without the privilege to see it the secret is missing, and then differs.
    pub options: Box<NetOptions>,
    /// Settings of each volume towards this peer (9).
    pub peer_devices: Vec<(u32, PeerDeviceOptions)>,
}

impl From<&drbd_nl::Resource> for Running {
    fn from(r: &drbd_nl::Resource) -> Running {
        let volume = |d: &drbd_nl::Device| RunningVolume {
            number: d.volume.0,
            minor: d.minor.0,
            disk: d.backing_dev.clone().map(|disk| {
                let meta = d.meta_disk.clone().unwrap_or(drbd_nl::MetaDisk::Internal);
                (disk, meta, Box::new(d.options.clone().unwrap_or_default()))
            }),
        };
        let connection = |c: &drbd_nl::Connection| RunningConnection {
            peer_node_id: c.peer_node_id.map(|id| id.0),
            stand_alone: c.state == ConnectionState::StandAlone,
            paths: c.paths.iter().map(|p| p.addresses.clone()).collect(),
            options: Box::new(c.options.clone().unwrap_or_default()),
            peer_devices: c
                .peer_devices
                .iter()
                .map(|d| (d.volume.0, d.options.clone().unwrap_or_default()))
                .collect(),
        };
        Running {
            options: r.options.clone().unwrap_or_default(),
            volumes: r.devices.iter().map(volume).collect(),
            connections: r.connections.iter().map(connection).collect(),
        }
    }
}

/// What has to come before what, over all resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Resource,
    ResourceOptions,
    DiskDown,
    DiskUp,
    NetDisconnect,
    NetDown,
    NetUp,
    NetPath,
    Net,
    PeerDevice,
    Disk,
    /// 8.4 has its connections last.
    NetDisconnect84,
    NetConnect,
}

/// Returns the steps that turn what runs into what the views say, over several resources at once:
/// first objects of all, then disks, then connections.
///
/// Each view comes with its resource as it runs, or `None` if it does not.
///
/// # Errors
/// As [`NodeView::adjust`].
pub fn adjust_all<'a>(
    views: impl IntoIterator<Item = (&'a NodeView, Option<&'a Running>)>,
    dialect: Dialect,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for (view, running) in views {
        Adjustment {
            view,
            dialect,
            name: view.name()?,
            steps: &mut steps,
            set: HashSet::new(),
            new_minors: Vec::new(),
        }
        .all(running)?;
    }
    Ok(in_order(steps))
}

fn in_order(mut steps: Vec<(Stage, Step)>) -> Vec<Step> {
    steps.sort_by_key(|(stage, _)| *stage);
    steps.into_iter().map(|(_, step)| step).collect()
}

impl NodeView {
    /// Returns the steps that turn what runs into what this view says: those of `drbdadm adjust`.
    ///
    /// None if there is nothing to do. `running` is `None` if the resource does not run. Settings
    /// that are not in the file go back to DRBD's default. A disk at another place is detached and
    /// the new one attached; a connection to other addresses is ended and made anew; what the file
    /// does not have is taken away.
    ///
    /// Printing the steps is the dry run; carrying out the [`Step::Drbd`] ones in order, with
    /// [`Drbd::run`](drbd_nl::Drbd::run), and the others with `drbd-md`, is the adjustment.
    ///
    /// # Errors
    /// As [`NodeView::up`].
    pub fn adjust(&self, running: Option<&Running>, dialect: Dialect) -> Result<Vec<Step>> {
        adjust_all([(self, running)], dialect)
    }
}

struct Adjustment<'a> {
    view: &'a NodeView,
    dialect: Dialect,
    name: ResourceName,
    steps: &'a mut Vec<(Stage, Step)>,
    /// Peer devices (node id, volume) whose settings are set already.
    set: HashSet<(u32, u32)>,
    /// Volumes that are made, or made anew: they have no settings towards any peer.
    new_minors: Vec<u32>,
}

impl Adjustment<'_> {
    fn push(&mut self, stage: Stage, operation: Operation) {
        self.steps.push((stage, operation.into()));
    }

    fn all(&mut self, running: Option<&Running>) -> Result<()> {
        if self.dialect == Dialect::V84 && self.view.peers.len() > 1 {
            self.view.peer()?;
        }
        match running {
            None => {
                for step in self.view.new_resource(self.dialect)? {
                    self.steps.push((Stage::Resource, step));
                }
            }
            Some(running) => {
                let options: ResourceOptions = self.view.collect(self.view.options.iter())?;
                if differs(&options, &running.options, self.dialect, |_| false) {
                    let resource = self.name.clone();
                    let base = Base::Defaults;
                    self.push(
                        Stage::ResourceOptions,
                        Operation::ChangeResourceOptions {
                            resource,
                            base,
                            options,
                        },
                    );
                }
            }
        }
        let none = Running::default();
        let running = running.unwrap_or(&none);
        match self.dialect {
            Dialect::V84 => {
                self.volumes(running)?;
                self.net84(running)
            }
            _ => {
                self.net9(running)?;
                self.volumes(running)?;
                self.new_peer_devices()
            }
        }
    }

    fn volumes(&mut self, running: &Running) -> Result<()> {
        let (conf, kern) = (&self.view.volumes, &running.volumes);
        let same =
            conf.len() == kern.len() && conf.iter().zip(kern).all(|(c, k)| c.number == k.number);
        if same && conf.is_sorted_by_key(|c| c.number) {
            return conf
                .iter()
                .zip(kern)
                .try_for_each(|(c, k)| self.volume(Some(c), Some(k)));
        }
        // Those that are not in the file have no number in it, either: drbdadm goes by number.
        let mut numbers: Vec<u32> = self.view.volumes.iter().map(|v| v.number).collect();
        numbers.extend(running.volumes.iter().map(|v| v.number));
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let conf = self.view.volumes.iter().find(|v| v.number == number);
            let kern = running.volumes.iter().find(|v| v.number == number);
            self.volume(conf, kern)?;
        }
        Ok(())
    }

    fn volume(&mut self, conf: Option<&VolumeView>, kern: Option<&RunningVolume>) -> Result<()> {
        let attached = kern.and_then(|k| k.disk.as_ref());
        let replaced = conf.is_none_or(|c| kern.is_some_and(|k| k.minor != c.minor));
        let wanted = conf.and_then(|c| Some((c, c.disk.as_ref()?, c.meta_disk.as_ref()?)));
        let options = match conf {
            Some(c) => self.view.disk_options(c, self.dialect)?,
            None => DiskOptions::default(),
        };
        let same_disk = match (wanted, attached) {
            (Some((_, disk, meta)), Some((d, m, kern_options))) => {
                // Fixed as long as the disk is attached.
                let bvecs = self.dialect == Dialect::V84
                    && differs(&options, kern_options.as_ref(), self.dialect, |name| {
                        name != "max-bio-bvecs"
                    });
                // Comparing paths part by part takes its time; mostly they are the same text.
                (disk.as_os_str() == d.as_os_str() || **disk == **d)
                    && meta_disk(meta) == *m
                    && !bvecs
            }
            (None, None) => true,
            _ => false,
        };
        let down = match self.dialect {
            // drbdadm of 8.4 has one stage for all that goes before.
            Dialect::V84 => Stage::Resource,
            _ => Stage::DiskDown,
        };
        if let Some(k) = kern {
            let minor = Minor(k.minor);
            if attached.is_some() && (replaced || !same_disk) {
                self.push(down, Operation::Detach { minor });
            }
            if replaced {
                self.push(down, Operation::DelMinor { minor });
            }
        }
        let Some(conf) = conf else { return Ok(()) };
        let minor = Minor(conf.minor);
        if kern.is_none() || replaced {
            self.new_minors.push(conf.number);
            let step = self.view.new_minor(conf, self.dialect)?;
            self.steps.push((Stage::DiskUp, step));
        }
        if kern.is_none() || replaced || !same_disk {
            for step in self.view.attach_volume(conf, self.dialect)? {
                self.steps.push((Stage::Disk, step));
            }
            return Ok(());
        }
        let Some((_, _, kern_options)) = attached else {
            return Ok(());
        };
        let fixed = |name: &str| matches!(name, "size" | "max-bio-bvecs");
        if differs(&options, kern_options.as_ref(), self.dialect, fixed) {
            let mut options = options.clone();
            (options.size, options.max_bio_bvecs) = (None, None);
            let base = Base::Defaults;
            let options = Box::new(options);
            self.push(
                Stage::Disk,
                Operation::ChangeDiskOptions {
                    minor,
                    base,
                    options,
                },
            );
        }
        if options.size.unwrap_or(0) != kern_options.size.unwrap_or(0) {
            let mut resize = ResizeOptions::default();
            resize.size = options.size;
            let options = resize;
            self.push(Stage::Disk, Operation::Resize { minor, options });
        }
        Ok(())
    }

    fn net84(&mut self, running: &Running) -> Result<()> {
        let kern = running.connections.first();
        let Some(peer) = self.view.peers.first() else {
            return Ok(());
        };
        let connection = self.view.connection(peer, self.dialect)?;
        let options = self.view.net_options(peer, self.dialect)?;
        let same = kern.is_some_and(|k| k.paths.first() == connection.addresses.as_ref());
        if !same {
            if let Some(k) = kern {
                let connection = ConnectionRef::only(self.name.clone());
                let connection = match k.paths.first() {
                    Some(path) => connection.addresses(path.clone()),
                    None => connection,
                };
                self.push(Stage::NetDisconnect84, Operation::Disconnect { connection });
            }
            let options = Box::new(options);
            self.push(
                Stage::NetConnect,
                Operation::Connect {
                    connection,
                    name: None,
                    options,
                },
            );
        } else if kern.is_some_and(|k| net_differs(&options, &k.options, self.dialect)) {
            self.change_net(connection, options);
        }
        Ok(())
    }

    fn change_net(&mut self, connection: ConnectionRef, options: NetOptions) {
        let base = Base::Defaults;
        let options = Box::new(options);
        let stage = match self.dialect {
            Dialect::V84 => Stage::NetConnect,
            _ => Stage::Net,
        };
        self.push(
            stage,
            Operation::ChangeNetOptions {
                connection,
                base,
                options,
            },
        );
    }

    fn net9(&mut self, running: &Running) -> Result<()> {
        for k in &running.connections {
            let wanted = |p: &&PeerView| p.node_id.is_some() && p.node_id == k.peer_node_id;
            if !self.view.peers.iter().any(|p| wanted(&p)) {
                let connection = self.reference(k.peer_node_id);
                self.push(Stage::NetDown, Operation::DelConnection { connection });
            }
        }
        let view = self.view;
        for peer in &view.peers {
            let id = view.need_node_id(peer.node_id, &peer.name)?;
            let kern = running
                .connections
                .iter()
                .find(|k| k.peer_node_id == Some(id.0));
            let mut options = view.net_options(peer, self.dialect)?;
            let Some(k) = kern else {
                self.new_peer(peer, id, options)?;
                self.push_connect(id);
                self.peer_devices(peer, id, None)?;
                continue;
            };
            let mut connect = k.stand_alone;
            let fixed = |name: &str| !matches!(name, "transport" | "load-balance-paths");
            if options_named(&options) && differs(&options, &*k.options, self.dialect, fixed) {
                // Cannot be changed while there is the peer.
                let connection = self.reference(Some(id.0));
                self.push(Stage::NetDown, Operation::DelConnection { connection });
                self.new_peer(peer, id, options)?;
                self.push_connect(id);
                self.peer_devices(peer, id, None)?;
                continue;
            }
            if net_differs(&options, &k.options, self.dialect) {
                (options.transport, options.load_balance_paths) = (None, None);
                self.change_net(self.reference(Some(id.0)), options);
            }
            connect |= self.paths(peer, id, k)?;
            if connect {
                self.push_connect(id);
            }
            self.peer_devices(peer, id, Some(k))?;
        }
        Ok(())
    }

    fn reference(&self, id: Option<u32>) -> ConnectionRef {
        let connection = ConnectionRef::only(self.name.clone());
        match id {
            Some(id) => connection.peer_node_id(NodeId(id)),
            None => connection,
        }
    }

    fn push_connect(&mut self, id: NodeId) {
        let connection = self.reference(Some(id.0));
        self.push(
            Stage::NetConnect,
            Operation::Connect {
                connection,
                name: None,
                options: Box::default(),
            },
        );
    }

    fn new_peer(&mut self, peer: &PeerView, id: NodeId, options: NetOptions) -> Result<()> {
        let resource = self.name.clone();
        let options = Box::new(options);
        self.push(
            Stage::NetUp,
            Operation::NewPeer {
                resource,
                peer_node_id: id,
                name: Text::from(peer.connection.as_str()),
                options,
            },
        );
        for addresses in self.view.addresses(peer)? {
            let resource = self.name.clone();
            self.push(
                Stage::NetPath,
                Operation::NewPath {
                    resource,
                    peer_node_id: id,
                    addresses,
                },
            );
        }
        Ok(())
    }

    /// Adds and removes paths; tells whether the connection has to be made anew.
    fn paths(&mut self, peer: &PeerView, id: NodeId, k: &RunningConnection) -> Result<bool> {
        let wanted = self.view.addresses(peer)?;
        if wanted == k.paths {
            return Ok(false);
        }
        let (resource, peer_node_id) = (self.name.clone(), id);
        for addresses in wanted.iter().filter(|w| !k.paths.contains(w)).cloned() {
            let resource = resource.clone();
            self.push(
                Stage::NetPath,
                Operation::NewPath {
                    resource,
                    peer_node_id,
                    addresses,
                },
            );
        }
        let gone: Vec<_> = k.paths.iter().filter(|p| !wanted.contains(p)).collect();
        for addresses in gone.iter().map(|p| (*p).clone()) {
            let resource = resource.clone();
            self.push(
                Stage::NetDown,
                Operation::DelPath {
                    resource,
                    peer_node_id,
                    addresses,
                },
            );
        }
        // The last path cannot be taken from a connection that is tried.
        let last = k.paths.len() == 1 && gone.len() == 1;
        if last && !k.stand_alone {
            let connection = self.reference(Some(id.0));
            self.push(Stage::NetDisconnect, Operation::Disconnect { connection });
        }
        Ok(last)
    }

    fn peer_devices(
        &mut self,
        peer: &PeerView,
        id: NodeId,
        kern: Option<&RunningConnection>,
    ) -> Result<()> {
        for (volume, settings) in &peer.peer_devices {
            let options: PeerDeviceOptions = self.view.collect(settings.iter())?;
            let now = kern.and_then(|k| k.peer_devices.iter().find(|(v, _)| v == volume));
            let change = match now {
                Some((_, now)) => differs(&options, now, self.dialect, |_| false),
                // A volume that is new to a connection has no settings yet.
                None => kern.is_some() || !settings.is_empty(),
            };
            if change {
                self.set.insert((id.0, *volume));
                self.change_peer_device(id, *volume, options);
            }
        }
        Ok(())
    }

    fn change_peer_device(&mut self, id: NodeId, volume: u32, options: PeerDeviceOptions) {
        let resource = self.name.clone();
        self.push(
            Stage::PeerDevice,
            Operation::ChangePeerDeviceOptions {
                resource,
                peer_node_id: id,
                volume: VolumeNumber(volume),
                base: Base::Defaults,
                options,
            },
        );
    }

    fn new_peer_devices(&mut self) -> Result<()> {
        let view = self.view;
        for volume in std::mem::take(&mut self.new_minors) {
            for peer in &view.peers {
                let id = view.need_node_id(peer.node_id, &peer.name)?;
                let mut of = peer.peer_devices.iter().filter(|(v, _)| *v == volume);
                if let Some((_, settings)) = of.next()
                    && !settings.is_empty()
                    && self.set.insert((id.0, volume))
                {
                    let options = view.collect(settings.iter())?;
                    self.change_peer_device(id, volume, options);
                }
            }
        }
        Ok(())
    }
}

fn options_named(options: &NetOptions) -> bool {
    options.transport.is_some() || options.load_balance_paths.is_some()
}

/// Tells whether two sets of settings mean something else, where what is not set is the default.
fn differs<T: Target>(a: &T, b: &T, dialect: Dialect, skip: impl Fn(&str) -> bool) -> bool {
    a.others(b)
        .any(|info| info.number(dialect).is_some() && !skip(info.name))
}

/// As [`differs`], but for what cannot be changed.
fn net_differs(a: &NetOptions, b: &NetOptions, dialect: Dialect) -> bool {
    differs(a, b, dialect, |name| {
        matches!(name, "transport" | "load-balance-paths")
    })
}

impl NodeView {
    fn new_resource(&self, dialect: Dialect) -> Result<Vec<Step>> {
        let mut steps = self.create(dialect)?;
        steps.truncate(1);
        Ok(steps)
    }

    pub(crate) fn new_minor(&self, v: &VolumeView, dialect: Dialect) -> Result<Step> {
        let mut options = DeviceOptions::default();
        if dialect == Dialect::V9 && v.disk.is_none() {
            options.diskless = Some(true);
        }
        for s in v.options.iter().filter(|s| crate::view::is_device(s)) {
            options.put(s.name, s.raw()).map_err(|e| {
                let text = format!("resource {}: {e}", self.resource);
                Error::plain(ErrorKind::Unsupported, "unsupported-option", text, None)
            })?;
        }
        Ok(Operation::NewMinor {
            resource: self.name()?,
            volume: VolumeNumber(v.number),
            minor: Minor(v.minor),
            options,
        }
        .into())
    }

    fn attach_volume(&self, v: &VolumeView, dialect: Dialect) -> Result<Vec<Step>> {
        let only = NodeView {
            volumes: vec![v.clone()],
            ..self.clone()
        };
        only.attach(dialect)
    }

    fn addresses(&self, peer: &PeerView) -> Result<Vec<AddressPair>> {
        let pair = |(local, remote): &(crate::Address, crate::Address)| {
            let (local, remote) = (self.address(local)?, self.address(remote)?);
            Ok(AddressPair { local, remote })
        };
        peer.paths.iter().map(pair).collect()
    }
}

/// Where the metadata is, as the model has it.
impl From<&MetaDisk> for drbd_nl::MetaDisk {
    fn from(meta: &MetaDisk) -> drbd_nl::MetaDisk {
        meta_disk(meta)
    }
}
