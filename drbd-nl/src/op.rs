//! What one can ask of DRBD: [`Operation`], and what became of it: [`Outcome`].

use crate::model::{
    AddressPair, DiskOptions, MetaDisk, Minor, NetOptions, NodeId, PeerDeviceOptions, ResourceName,
    ResourceOptions, Text, VolumeNumber,
};
use std::fmt;
use std::path::PathBuf;

/// A change to DRBD's configuration or state, ready to be run, printed,
/// compared or stored.
///
/// An operation means the same on both kernels where it can; what a kernel
/// does not have is refused before anything is sent
/// ([`ErrorKind::Unsupported`](crate::ErrorKind)).
///
/// There is no "force". What drbdsetup's `--force` does on promotion is
/// three different decisions with different costs, so it is three
/// operations: [`InitializeFromHere`](Self::InitializeFromHere),
/// [`DeclareDataCurrent`](Self::DeclareDataCurrent) and
/// [`PromoteUnfenced`](Self::PromoteUnfenced). The kernel cannot tell them
/// apart; who reads a plan or a journal can.
///
/// # Privileges
/// All need CAP_NET_ADMIN, and CAP_SYS_ADMIN in the initial user namespace.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Operation {
    /// Creates a resource (on 8.4 with its one connection, not configured yet).
    ///
    /// [`Outcome::AlreadyThere`] when the name is taken; its settings are
    /// then left as they are.
    NewResource {
        /// Its name.
        resource: ResourceName,
        /// This node's id; DRBD 9 needs one, 8.4 ignores it.
        node_id: Option<NodeId>,
        /// Settings.
        options: ResourceOptions,
    },
    /// Changes settings of a resource.
    ChangeResourceOptions {
        /// The resource.
        resource: ResourceName,
        /// What to start from.
        base: Base,
        /// What to set.
        options: ResourceOptions,
    },
    /// Deletes a resource without volumes and connections.
    DelResource {
        /// The resource.
        resource: ResourceName,
    },
    /// Creates a volume, without a disk.
    ///
    /// [`Outcome::AlreadyThere`] when this minor is this volume already.
    NewMinor {
        /// The resource.
        resource: ResourceName,
        /// Number of the volume.
        volume: VolumeNumber,
        /// Its minor.
        minor: Minor,
    },
    /// Deletes a volume that has no disk attached (and, on 8.4, is not connected).
    DelMinor {
        /// Its minor.
        minor: Minor,
    },
    /// Attaches a disk. Its activity log must have been applied if the node
    /// was lost as Primary ([`ErrorKind::MetadataUnclean`](crate::ErrorKind)).
    ///
    /// A second attach to the same minor is refused before it is sent when
    /// the kernel says that a disk is there: DRBD 9.3.3 corrupts itself on it.
    Attach {
        /// The minor.
        minor: Minor,
        /// The disk.
        backing_dev: PathBuf,
        /// Where its metadata is.
        meta_disk: MetaDisk,
        /// Settings.
        options: Box<DiskOptions>,
    },
    /// Changes settings of an attached disk.
    ChangeDiskOptions {
        /// The minor.
        minor: Minor,
        /// What to start from.
        base: Base,
        /// What to set.
        options: Box<DiskOptions>,
    },
    /// Detaches the disk. Waits for I/O on it.
    Detach {
        /// The minor.
        minor: Minor,
    },
    /// Connects to a peer: on 8.4 one CONNECT, on 9 what is missing of
    /// NEW_PEER and NEW_PATH, then CONNECT.
    ///
    /// Returns when the connection is configured; the peer may be reached
    /// later (wait for it with a [`Watcher`](crate::Watcher)).
    /// [`Outcome::AlreadyThere`] when exactly this connection is configured
    /// already; its settings are then left as they are on 8.4. On 9 a
    /// connection that existed StandAlone gets the settings given here.
    Connect {
        /// Which resource, which peer; the addresses are needed unless the
        /// connection exists (9).
        connection: ConnectionRef,
        /// Name of the connection (9 requires one; the peer's host name is usual).
        name: Option<Text>,
        /// Settings.
        options: Box<NetOptions>,
    },
    /// Connects like [`Connect`](Self::Connect), as the victim of a split brain.
    ///
    /// # Cost
    /// **What was written here since the two sides parted is thrown away**
    /// and overwritten from the peer. The kernel refuses on a Primary.
    ConnectDiscardingLocalData {
        /// Which resource, which peer.
        connection: ConnectionRef,
        /// Name of the connection (9).
        name: Option<Text>,
        /// Settings.
        options: Box<NetOptions>,
    },
    /// Changes settings of a connection.
    ChangeNetOptions {
        /// The connection.
        connection: ConnectionRef,
        /// What to start from.
        base: Base,
        /// What to set.
        options: Box<NetOptions>,
    },
    /// Disconnects: the connection becomes StandAlone. On 8.4 it is then
    /// gone from the dumps.
    Disconnect {
        /// The connection.
        connection: ConnectionRef,
    },
    /// Disconnects and forgets the connection (on 8.4 the same as
    /// [`Disconnect`](Self::Disconnect)).
    DelConnection {
        /// The connection.
        connection: ConnectionRef,
    },
    /// Creates a connection, without a path (9 only; [`Connect`](Self::Connect)
    /// does it when needed).
    NewPeer {
        /// The resource.
        resource: ResourceName,
        /// The peer's node id.
        peer_node_id: NodeId,
        /// Name of the connection.
        name: Text,
        /// Settings.
        options: Box<NetOptions>,
    },
    /// Adds a path to a connection (9 only).
    NewPath {
        /// The resource.
        resource: ResourceName,
        /// The peer's node id.
        peer_node_id: NodeId,
        /// The path.
        addresses: AddressPair,
    },
    /// Removes a path of a connection (9 only).
    DelPath {
        /// The resource.
        resource: ResourceName,
        /// The peer's node id.
        peer_node_id: NodeId,
        /// The path.
        addresses: AddressPair,
    },
    /// Changes settings of a volume towards a peer (9 only; on 8.4 they are
    /// in [`DiskOptions`]).
    ChangePeerDeviceOptions {
        /// The resource.
        resource: ResourceName,
        /// The peer's node id.
        peer_node_id: NodeId,
        /// The volume.
        volume: VolumeNumber,
        /// What to start from.
        base: Base,
        /// What to set.
        options: PeerDeviceOptions,
    },
    /// Makes this node Primary, if DRBD agrees that its data is current and
    /// no peer is Primary.
    ///
    /// On 8.4 every volume is promoted in turn; if one is refused, those
    /// promoted by this call are demoted again.
    Primary {
        /// The resource.
        resource: ResourceName,
    },
    /// Becomes Primary as the source of the very first sync.
    ///
    /// # Cost
    /// None on day 0, when no side has ever held data: the caller proves it
    /// with [`Resource::day_zero`](crate::Resource::day_zero). On any other
    /// day this is [`DeclareDataCurrent`](Self::DeclareDataCurrent).
    InitializeFromHere {
        /// The resource.
        resource: ResourceName,
    },
    /// Becomes Primary by declaring the local data current although DRBD
    /// knows that it is not (`Outdated`, `Inconsistent`).
    ///
    /// # Cost
    /// **Everything that was acknowledged elsewhere since this data was
    /// current is lost**; peers are overwritten when they come back, or
    /// split brain is found. An `Inconsistent` disk may hold a mixture that
    /// never existed at any moment.
    DeclareDataCurrent {
        /// The resource.
        resource: ResourceName,
    },
    /// Becomes Primary although the peer could not be fenced.
    ///
    /// # Cost
    /// **If the peer is alive, both serve: split brain.** What one of them
    /// acknowledged from then on will have to be thrown away.
    PromoteUnfenced {
        /// The resource.
        resource: ResourceName,
    },
    /// Makes this node Secondary. Refused while a volume is open
    /// ([`ErrorKind::Busy`](crate::ErrorKind)).
    Secondary {
        /// The resource.
        resource: ResourceName,
    },
    /// Makes this node Secondary although volumes are open (9 only).
    ///
    /// # Cost
    /// **Who has it open gets I/O errors** until they close; what they had
    /// not synced is lost to them. No promotion until the last close. End
    /// the holders as well.
    DemoteFailingIo {
        /// The resource.
        resource: ResourceName,
    },
    /// Takes a whole resource down: demote, disconnect, detach, delete.
    ///
    /// Stops half way when something is refused; the texts say where.
    Down {
        /// The resource.
        resource: ResourceName,
    },
}

/// What a change of settings starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Base {
    /// What is set now: settings not named stay.
    #[default]
    Current,
    /// DRBD's defaults: settings not named are reset.
    Defaults,
}

/// Names a connection: by the peer's node id (9), by its addresses, or as
/// the only one of its resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConnectionRef {
    /// The resource.
    pub resource: ResourceName,
    /// The peer's node id (9; 8.4 ignores it).
    pub peer_node_id: Option<NodeId>,
    /// The addresses of a path.
    pub addresses: Option<AddressPair>,
}

impl ConnectionRef {
    /// The only connection of a resource.
    #[must_use]
    pub fn only(resource: ResourceName) -> Self {
        Self {
            resource,
            peer_node_id: None,
            addresses: None,
        }
    }

    /// With the peer's node id (9).
    #[must_use]
    pub fn peer_node_id(mut self, id: NodeId) -> Self {
        self.peer_node_id = Some(id);
        self
    }

    /// With the addresses of a path.
    #[must_use]
    pub fn addresses(mut self, addresses: AddressPair) -> Self {
        self.addresses = Some(addresses);
        self
    }
}

impl fmt::Display for ConnectionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.resource)?;
        if let Some(id) = self.peer_node_id {
            write!(f, " peer-node-id {id}")?;
        }
        if let Some(addresses) = &self.addresses {
            write!(f, " {addresses}")?;
        }
        Ok(())
    }
}

/// What became of an operation that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[must_use = "an operation may have an unknown outcome"]
pub enum Outcome {
    /// Done.
    Done,
    /// It was so before; nothing changed.
    AlreadyThere,
    /// The kernel did not answer in time. It may still do it; observe
    /// before deciding what to do.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::AlreadyThere => "already there",
            Self::Unknown => "unknown",
        })
    }
}

/// An outcome with what the kernel said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// What became of it.
    pub outcome: Outcome,
    /// Texts that came with the success.
    pub info: Vec<Text>,
}

impl Operation {
    /// The word for this operation, as drbdsetup's command is called where
    /// there is one.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NewResource { .. } => "new-resource",
            Self::ChangeResourceOptions { .. } => "resource-options",
            Self::DelResource { .. } => "del-resource",
            Self::NewMinor { .. } => "new-minor",
            Self::DelMinor { .. } => "del-minor",
            Self::Attach { .. } => "attach",
            Self::ChangeDiskOptions { .. } => "disk-options",
            Self::Detach { .. } => "detach",
            Self::Connect { .. } => "connect",
            Self::ConnectDiscardingLocalData { .. } => "connect-discarding-local-data",
            Self::ChangeNetOptions { .. } => "net-options",
            Self::Disconnect { .. } => "disconnect",
            Self::DelConnection { .. } => "del-connection",
            Self::NewPeer { .. } => "new-peer",
            Self::NewPath { .. } => "new-path",
            Self::DelPath { .. } => "del-path",
            Self::ChangePeerDeviceOptions { .. } => "peer-device-options",
            Self::Primary { .. } => "primary",
            Self::InitializeFromHere { .. } => "initialize-from-here",
            Self::DeclareDataCurrent { .. } => "declare-data-current",
            Self::PromoteUnfenced { .. } => "promote-unfenced",
            Self::Secondary { .. } => "secondary",
            Self::DemoteFailingIo { .. } => "demote-failing-io",
            Self::Down { .. } => "down",
        }
    }

    /// The object it is about, in words.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::NewResource { resource, .. }
            | Self::ChangeResourceOptions { resource, .. }
            | Self::DelResource { resource }
            | Self::Primary { resource }
            | Self::InitializeFromHere { resource }
            | Self::DeclareDataCurrent { resource }
            | Self::PromoteUnfenced { resource }
            | Self::Secondary { resource }
            | Self::DemoteFailingIo { resource }
            | Self::Down { resource } => resource.to_string(),
            Self::NewMinor {
                resource,
                volume,
                minor,
            } => {
                format!("{resource}/{volume} minor {minor}")
            }
            Self::DelMinor { minor }
            | Self::ChangeDiskOptions { minor, .. }
            | Self::Detach { minor } => format!("minor {minor}"),
            Self::Attach {
                minor,
                backing_dev,
                meta_disk,
                ..
            } => {
                let meta = match meta_disk {
                    MetaDisk::Internal => "internal".to_owned(),
                    MetaDisk::Flexible(path) => format!("{} flexible", path.display()),
                    MetaDisk::Indexed(path, index) => format!("{}[{index}]", path.display()),
                    MetaDisk::Other(path, index) => format!("{}[{index}]", path.display()),
                };
                format!(
                    "minor {minor} to {}, metadata {meta}",
                    backing_dev.display()
                )
            }
            Self::Connect { connection, .. }
            | Self::ConnectDiscardingLocalData { connection, .. }
            | Self::ChangeNetOptions { connection, .. }
            | Self::Disconnect { connection }
            | Self::DelConnection { connection } => connection.to_string(),
            Self::NewPeer {
                resource,
                peer_node_id,
                name,
                ..
            } => {
                format!("{resource} peer-node-id {peer_node_id} ({name})")
            }
            Self::NewPath {
                resource,
                peer_node_id,
                addresses,
            }
            | Self::DelPath {
                resource,
                peer_node_id,
                addresses,
            } => {
                format!("{resource} peer-node-id {peer_node_id} {addresses}")
            }
            Self::ChangePeerDeviceOptions {
                resource,
                peer_node_id,
                volume,
                ..
            } => {
                format!("{resource}/{volume} peer-node-id {peer_node_id}")
            }
        }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        fn list<'a>(
            infos: &'static [crate::model::OptionInfo],
            get: impl Fn(&str) -> Option<String> + 'a,
        ) -> impl Iterator<Item = (&'static str, String)> + 'a {
            infos
                .iter()
                .filter_map(move |info| get(info.name).map(|value| (info.name, value)))
        }
        match self {
            Self::NewResource { options, .. } | Self::ChangeResourceOptions { options, .. } => {
                list(ResourceOptions::INFO, |name| options.get(name)).collect()
            }
            Self::Attach { options, .. } | Self::ChangeDiskOptions { options, .. } => {
                list(DiskOptions::INFO, |name| options.get(name)).collect()
            }
            Self::Connect { options, .. }
            | Self::ConnectDiscardingLocalData { options, .. }
            | Self::ChangeNetOptions { options, .. }
            | Self::NewPeer { options, .. } => {
                list(NetOptions::INFO, |name| options.get(name)).collect()
            }
            Self::ChangePeerDeviceOptions { options, .. } => {
                list(PeerDeviceOptions::INFO, |name| options.get(name)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// `new-minor r0/0 minor 0`: the word, the object, then the settings as
/// `--name=value` (a secret is not shown).
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.target())?;
        let base = match self {
            Self::ChangeResourceOptions { base, .. }
            | Self::ChangeDiskOptions { base, .. }
            | Self::ChangeNetOptions { base, .. }
            | Self::ChangePeerDeviceOptions { base, .. } => *base,
            _ => Base::Current,
        };
        if base == Base::Defaults {
            f.write_str(" --set-defaults")?;
        }
        if let Self::NewResource {
            node_id: Some(id), ..
        } = self
        {
            write!(f, " node-id {id}")?;
        }
        self.settings()
            .iter()
            .try_for_each(|(name, value)| write!(f, " --{name}={value}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn operations_print_themselves() {
        let r0 = ResourceName::new("r0").unwrap();
        let minor = Operation::NewMinor {
            resource: r0.clone(),
            volume: VolumeNumber(0),
            minor: Minor(0),
        };
        assert_eq!(minor.to_string(), "new-minor r0/0 minor 0");
        let connect = Operation::Connect {
            connection: ConnectionRef::only(r0).addresses(AddressPair {
                local: "10.0.254.1:7788".parse().unwrap(),
                remote: "10.0.254.2:7788".parse().unwrap(),
            }),
            name: None,
            options: Box::new(
                NetOptions::new()
                    .shared_secret(Secret::new("hunter2"))
                    .ko_count(3u32),
            ),
        };
        assert_eq!(
            connect.to_string(),
            "connect r0 ipv4:10.0.254.1:7788 ipv4:10.0.254.2:7788 \
             --shared-secret=(not shown) --ko-count=3"
        );
        assert!(!format!("{connect:?}").contains("hunter2"));
    }
}
