//! A resource as the operations that bring it up, or take it down.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use drbd_nl::{
    AddressPair, Base, ConnectionRef, DeviceOptions, Dialect, DiskOptions, Minor, NetOptions,
    NodeId, Operation, OptionError, OptionInfo, PeerDeviceOptions, ResourceName, ResourceOptions,
    VolumeNumber,
};
use nix::net::if_::if_nametoindex;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Address, Family, MetaDisk, Setting, Settings};
use crate::view::{NodeView, PeerView, VolumeView, is_device, is_peer_device};

/// One step of bringing a resource up or down.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// A call of the driver.
    Drbd(Operation),
    /// Applying the activity log of a disk, which has to precede its attach.
    ///
    /// Does nothing to a disk that was detached cleanly. What carries it out is not in this crate;
    /// `drbd-md` does.
    ApplyActivityLog {
        /// The resource it is for.
        resource: String,
        /// The minor it will be attached to.
        minor: u32,
        /// The disk with the data.
        disk: PathBuf,
        /// Where its metadata is.
        meta_disk: MetaDisk,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Drbd(operation) => operation.fmt(f),
            Step::ApplyActivityLog {
                resource,
                minor,
                disk,
                meta_disk,
            } => write!(
                f,
                "apply-al {resource} minor {minor} of {}, metadata {meta_disk}",
                disk.display()
            ),
        }
    }
}

impl From<Operation> for Step {
    fn from(operation: Operation) -> Step {
        Step::Drbd(operation)
    }
}

/// Which of the driver's settings a section's option becomes.
pub(crate) trait Target: Default {
    fn put(&mut self, name: &str, value: &str) -> Result<(), OptionError>;
    /// What is otherwise in the other.
    fn others(&self, other: &Self) -> impl Iterator<Item = &'static OptionInfo>;
}

macro_rules! target {
    ($($type:ty),*) => {$(
        impl Target for $type {
            fn others(&self, other: &Self) -> impl Iterator<Item = &'static OptionInfo> {
                self.differing(other)
            }
            fn put(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
                self.set(name, value)
            }
        }
    )*};
}

target!(
    DeviceOptions,
    ResourceOptions,
    DiskOptions,
    NetOptions,
    PeerDeviceOptions
);

/// Where the metadata is, as the model has it.
pub(crate) fn meta_disk(meta: &MetaDisk) -> drbd_nl::MetaDisk {
    match meta {
        MetaDisk::Internal => drbd_nl::MetaDisk::Internal,
        MetaDisk::Flexible(path) => drbd_nl::MetaDisk::Flexible(path.clone()),
        MetaDisk::Indexed(path, i) => drbd_nl::MetaDisk::Indexed(path.clone(), *i),
    }
}

/// The number of an interface of this machine, which the address of one of its links goes by; it may
/// stand there itself.
fn scope(interface: &str) -> nix::Result<u32> {
    match if_nametoindex(interface) {
        Err(e) => interface.parse().map_err(|_| e),
        found => found,
    }
}

impl NodeView {
    /// Returns the steps that bring the resource up: objects, disks, then connections.
    ///
    /// The order is that of `drbdadm up`. Running the steps on a node where the resource is up
    /// already changes nothing.
    ///
    /// # Errors
    /// `Ambiguous` if 8.4 is asked to connect to several peers; `Unsupported` if the dialect has
    /// no place for a setting, a node id is missing that DRBD 9 needs, or an address names an
    /// interface (`[fe80::1%eth0]`) that this machine does not have.
    pub fn up(&self, dialect: Dialect) -> Result<Vec<Step>> {
        self.adjust(None, dialect)
    }

    /// Returns the steps that create the resource and its minors, without disks.
    ///
    /// # Errors
    /// As [`NodeView::up`].
    pub fn create(&self, dialect: Dialect) -> Result<Vec<Step>> {
        let node_id = match dialect {
            Dialect::V84 => None,
            Dialect::V9 => Some(self.need_node_id(self.node_id, &self.node)?),
        };
        let resource = self.name()?;
        let options = self.collect(self.options.iter())?;
        let mut steps = vec![
            Operation::NewResource {
                resource: resource.clone(),
                node_id,
                options,
            }
            .into(),
        ];
        for v in &self.volumes {
            steps.push(self.new_minor(v, dialect)?);
        }
        Ok(steps)
    }

    /// Returns the steps that attach the disks: for each, its activity log first.
    ///
    /// # Errors
    /// As [`NodeView::up`].
    pub fn attach(&self, dialect: Dialect) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for v in &self.volumes {
            // Diskless nodes have nothing to attach.
            let (Some(disk), Some(meta_disk)) = (&v.disk, &v.meta_disk) else {
                continue;
            };
            steps.push(Step::ApplyActivityLog {
                resource: self.resource.to_string(),
                minor: v.minor,
                disk: disk.to_path_buf(),
                meta_disk: meta_disk.clone(),
            });
            let options = self.disk_options(v, dialect)?;
            steps.push(
                Operation::Attach {
                    minor: Minor(v.minor),
                    backing_dev: disk.to_path_buf(),
                    meta_disk: self::meta_disk(meta_disk),
                    options: Box::new(options),
                }
                .into(),
            );
        }
        Ok(steps)
    }

    /// Returns the steps that connect to every peer.
    ///
    /// # Errors
    /// As [`NodeView::up`].
    pub fn connect(&self, dialect: Dialect) -> Result<Vec<Step>> {
        if dialect == Dialect::V84 && self.peers.len() > 1 {
            self.peer()?;
        }
        let mut steps = Vec::new();
        for peer in &self.peers {
            let options = self.net_options(peer, dialect)?;
            let connection = self.connection(peer, dialect)?;
            let name = (dialect == Dialect::V9).then(|| peer.connection.as_str().into());
            steps.push(
                Operation::Connect {
                    connection,
                    name,
                    options: Box::new(options),
                }
                .into(),
            );
            if dialect == Dialect::V84 {
                continue;
            }
            let peer_node_id = self.need_node_id(peer.node_id, &peer.name)?;
            for (volume, settings) in &peer.peer_devices {
                if settings.is_empty() {
                    continue;
                }
                let options = self.collect(settings.iter())?;
                // After the connection: the step before creates the peer devices these belong to.
                steps.push(
                    Operation::ChangePeerDeviceOptions {
                        resource: self.name()?,
                        peer_node_id,
                        volume: VolumeNumber(*volume),
                        base: Base::Current,
                        options,
                    }
                    .into(),
                );
            }
        }
        Ok(steps)
    }

    /// Returns the steps that end the connections to every peer.
    ///
    /// # Errors
    /// As [`NodeView::up`].
    pub fn disconnect(&self, dialect: Dialect) -> Result<Vec<Step>> {
        self.peers
            .iter()
            .map(|p| {
                Ok(Operation::Disconnect {
                    connection: self.connection(p, dialect)?,
                }
                .into())
            })
            .collect()
    }

    /// Returns the steps that detach every disk.
    pub fn detach(&self) -> Vec<Step> {
        let with_disk = self.volumes.iter().filter(|v| v.disk.is_some());
        with_disk
            .map(|v| {
                Operation::Detach {
                    minor: Minor(v.minor),
                }
                .into()
            })
            .collect()
    }

    /// Returns the step that takes the resource down: demote, disconnect, detach, delete.
    ///
    /// # Errors
    /// `Invalid` if the driver does not take the name of the resource.
    pub fn down(&self) -> Result<Vec<Step>> {
        Ok(vec![
            Operation::Down {
                resource: self.name()?,
            }
            .into(),
        ])
    }

    pub(crate) fn name(&self) -> Result<ResourceName> {
        ResourceName::new(&self.resource)
            .map_err(|e| Error::plain(ErrorKind::Invalid, "bad-name", e.to_string(), None))
    }

    pub(crate) fn need_node_id(&self, id: Option<u32>, node: &str) -> Result<NodeId> {
        id.map(NodeId).ok_or_else(|| {
            let text = format!(
                "resource {}: DRBD 9 needs a node-id for {node}",
                self.resource
            );
            let remedy = Some("write \"node-id N;\" into each \"on\" section".to_owned());
            Error::plain(ErrorKind::Unsupported, "no-node-id", text, remedy)
        })
    }

    pub(crate) fn collect<'s, T: Target>(
        &self,
        settings: impl Iterator<Item = &'s Setting>,
    ) -> Result<T> {
        let mut target = T::default();
        for s in settings {
            target.put(s.name, s.raw()).map_err(|e| {
                let text = format!("resource {}: {e}", self.resource);
                Error::plain(ErrorKind::Unsupported, "unsupported-option", text, None)
            })?;
        }
        Ok(target)
    }

    /// `fencing` is in `disk` for 8.4 and in `net` for 9; it is taken from where it is written.
    pub(crate) fn disk_options(&self, v: &VolumeView, dialect: Dialect) -> Result<DiskOptions> {
        match dialect {
            Dialect::V84 => {
                let fencing = self.peers.first().and_then(|p| p.net.get("fencing"));
                let fencing = fencing.filter(|_| v.options.get("fencing").is_none());
                self.collect(v.options.iter().chain(fencing))
            }
            Dialect::V9 => self.collect(
                v.options
                    .iter()
                    .filter(|s| !is_peer_device(s) && !is_device(s) && s.name != "fencing"),
            ),
        }
    }

    pub(crate) fn net_options(&self, peer: &PeerView, dialect: Dialect) -> Result<NetOptions> {
        match dialect {
            Dialect::V84 => self.collect(peer.net.iter().filter(|s| s.name != "fencing")),
            Dialect::V9 => {
                let of_disk = |v: &VolumeView| Settings::get(&v.options, "fencing").cloned();
                let fencing = self.volumes.iter().find_map(of_disk);
                let fencing = fencing.filter(|_| peer.net.get("fencing").is_none());
                self.collect(peer.net.iter().chain(&fencing))
            }
        }
    }

    pub(crate) fn connection(&self, peer: &PeerView, dialect: Dialect) -> Result<ConnectionRef> {
        let mut connection = ConnectionRef::only(self.name()?);
        if dialect == Dialect::V9 {
            connection = connection.peer_node_id(self.need_node_id(peer.node_id, &peer.name)?);
        }
        if let Some((local, remote)) = peer.paths.first() {
            let (local, remote) = (self.address(local)?, self.address(remote)?);
            connection = connection.addresses(AddressPair { local, remote });
        }
        Ok(connection)
    }

    pub(crate) fn address(&self, address: &Address) -> Result<drbd_nl::Address> {
        let unsupported = |text: String| {
            let text = format!("resource {}: {address}: {text}", self.resource);
            Error::plain(ErrorKind::Unsupported, "bad-address", text, None)
        };
        if let (Some(interface), SocketAddr::V6(mut socket)) = (&address.interface, address.socket)
        {
            let scope = scope(interface).map_err(|e| unsupported(e.to_string()))?;
            socket.set_scope_id(scope);
            return Ok(SocketAddr::V6(socket).into());
        }
        match address.family {
            Family::Ipv4 | Family::Ipv6 => Ok(address.socket.into()),
            _ => address
                .to_string()
                .parse()
                .map_err(|e| unsupported(format!("{e}"))),
        }
    }
}
