//! What one can ask of DRBD: [`Operation`], and what became of it: [`Outcome`].

use crate::model::{
    AddressPair, DeviceOptions, DiskOptions, InvalidateOptions, InvalidatePeerOptions, MetaDisk,
    Minor, NetOptions, NewUuidOptions, NodeId, PeerDeviceOptions, ResizeOptions, ResourceName,
    ResourceOptions, Setting, SuspendIoOptions, Text, VerifyOptions, VolumeNumber,
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
        /// Settings (9 only).
        options: DeviceOptions,
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
    /// Detaches a disk that does not answer any more.
    ///
    /// # Cost
    /// I/O in flight on it is given up: what it still does, it does behind
    /// DRBD's back. Do not use the disk for anything else before it rests.
    DetachFailingIo {
        /// The minor.
        minor: Minor,
    },
    /// Detaches the disk for good: the volume is meant to have none from
    /// now on (9 only).
    DetachForGood {
        /// The minor.
        minor: Minor,
    },
    /// Makes a device as large as its disks allow, or as asked for; on both
    /// nodes when connected. Peers resync the new part unless it is sworn
    /// clean. Shrinking needs an explicit size.
    Resize {
        /// The minor.
        minor: Minor,
        /// How.
        options: ResizeOptions,
    },
    /// Declares the local data useless: it is overwritten from a peer.
    ///
    /// # Cost
    /// **The local copy is gone** until the resync is done.
    Invalidate {
        /// The minor.
        minor: Minor,
        /// How (9 only).
        options: InvalidateOptions,
    },
    /// Declares the local data Outdated: no Primary here until it was
    /// resynced. Refused while connected or Primary.
    Outdate {
        /// The minor.
        minor: Minor,
    },
    /// Makes a new data generation: peers that are not connected will be
    /// resynced. With `clear_bitmap` on day 0: no first sync.
    ///
    /// # Cost
    /// With `clear_bitmap`, what differs between the two sides stays different.
    NewCurrentUuid {
        /// The minor.
        minor: Minor,
        /// How.
        options: NewUuidOptions,
    },
    /// Freezes I/O: of the volume on 8.4, of its resource on 9. Whoever
    /// writes waits.
    SuspendIo {
        /// The minor.
        minor: Minor,
        /// How (9.3 only).
        options: SuspendIoOptions,
    },
    /// Lets I/O go on.
    ResumeIo {
        /// The minor.
        minor: Minor,
    },
    /// Compares a volume with the peer's, block by block, online. Needs
    /// `verify-alg`; what differs is marked out of sync, not resynced.
    Verify {
        /// Which volume, which peer.
        peer_device: PeerDeviceRef,
        /// What.
        options: VerifyOptions,
    },
    /// Declares the peer's data useless: it is overwritten from here.
    ///
    /// # Cost
    /// **The peer's copy is gone** until the resync is done.
    InvalidatePeer {
        /// Which volume, which peer.
        peer_device: PeerDeviceRef,
        /// How (9 only).
        options: InvalidatePeerOptions,
    },
    /// Pauses the resync. [`Outcome::AlreadyThere`] when it is paused here already.
    PauseSync {
        /// Which volume, which peer.
        peer_device: PeerDeviceRef,
    },
    /// Lets the resync go on. [`Outcome::AlreadyThere`] when it is not paused here.
    ResumeSync {
        /// Which volume, which peer.
        peer_device: PeerDeviceRef,
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
    /// Connects like [`Connect`](Self::Connect), only to see whether the two
    /// sides fit: the connection is dropped before anything is resynced.
    ConnectTentatively {
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
    /// Disconnects without the peer's consent.
    ///
    /// # Cost
    /// The peer is not asked to outdate its data, and may go on as if it
    /// had the newest.
    DisconnectUnilaterally {
        /// The connection.
        connection: ConnectionRef,
    },
    /// Disconnects and forgets the connection (on 8.4 the same as
    /// [`Disconnect`](Self::Disconnect)).
    DelConnection {
        /// The connection.
        connection: ConnectionRef,
    },
    /// [`DelConnection`](Self::DelConnection) without the peer's consent, as
    /// [`DisconnectUnilaterally`](Self::DisconnectUnilaterally).
    DelConnectionUnilaterally {
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
    /// Renames a resource (9.0.28).
    RenameResource {
        /// What it is called now.
        resource: ResourceName,
        /// What it will be called.
        new_name: ResourceName,
    },
    /// Frees the place of a peer that will not come back in the metadata of
    /// every volume (9 only). Refused while there is a connection to it.
    ForgetPeer {
        /// The resource.
        resource: ResourceName,
        /// The peer.
        peer_node_id: NodeId,
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

/// Names a volume as seen over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PeerDeviceRef {
    /// The resource.
    pub resource: ResourceName,
    /// The volume.
    pub volume: VolumeNumber,
    /// The peer's node id (9; not needed when there is one peer. 8.4 ignores it).
    pub peer_node_id: Option<NodeId>,
}

impl PeerDeviceRef {
    /// The volume over the only connection of its resource.
    #[must_use]
    pub fn only(resource: ResourceName, volume: VolumeNumber) -> Self {
        Self {
            resource,
            volume,
            peer_node_id: None,
        }
    }

    /// With the peer's node id (9).
    #[must_use]
    pub fn peer_node_id(mut self, id: NodeId) -> Self {
        self.peer_node_id = Some(id);
        self
    }
}

impl fmt::Display for PeerDeviceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.resource, self.volume)?;
        match self.peer_node_id {
            Some(id) => write!(f, " peer-node-id {id}"),
            None => Ok(()),
        }
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
            Self::DetachFailingIo { .. } => "detach-failing-io",
            Self::DetachForGood { .. } => "detach-for-good",
            Self::Resize { .. } => "resize",
            Self::Invalidate { .. } => "invalidate",
            Self::Outdate { .. } => "outdate",
            Self::NewCurrentUuid { .. } => "new-current-uuid",
            Self::SuspendIo { .. } => "suspend-io",
            Self::ResumeIo { .. } => "resume-io",
            Self::Verify { .. } => "verify",
            Self::InvalidatePeer { .. } => "invalidate-remote",
            Self::PauseSync { .. } => "pause-sync",
            Self::ResumeSync { .. } => "resume-sync",
            Self::ConnectDiscardingLocalData { .. } => "connect-discarding-local-data",
            Self::ConnectTentatively { .. } => "connect-tentatively",
            Self::ChangeNetOptions { .. } => "net-options",
            Self::Disconnect { .. } => "disconnect",
            Self::DisconnectUnilaterally { .. } => "disconnect-unilaterally",
            Self::DelConnection { .. } => "del-connection",
            Self::DelConnectionUnilaterally { .. } => "del-connection-unilaterally",
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
            Self::RenameResource { .. } => "rename-resource",
            Self::ForgetPeer { .. } => "forget-peer",
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
                ..
            } => {
                format!("{resource}/{volume} minor {minor}")
            }
            Self::DelMinor { minor }
            | Self::ChangeDiskOptions { minor, .. }
            | Self::Detach { minor }
            | Self::DetachFailingIo { minor }
            | Self::DetachForGood { minor }
            | Self::Resize { minor, .. }
            | Self::Invalidate { minor, .. }
            | Self::Outdate { minor }
            | Self::NewCurrentUuid { minor, .. }
            | Self::SuspendIo { minor, .. }
            | Self::ResumeIo { minor } => format!("minor {minor}"),
            Self::Verify { peer_device, .. }
            | Self::InvalidatePeer { peer_device, .. }
            | Self::PauseSync { peer_device }
            | Self::ResumeSync { peer_device } => peer_device.to_string(),
            Self::RenameResource { resource, new_name } => format!("{resource} to {new_name}"),
            Self::ForgetPeer {
                resource,
                peer_node_id,
            } => format!("{resource} peer-node-id {peer_node_id}"),
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
            | Self::ConnectTentatively { connection, .. }
            | Self::ChangeNetOptions { connection, .. }
            | Self::Disconnect { connection }
            | Self::DisconnectUnilaterally { connection }
            | Self::DelConnection { connection }
            | Self::DelConnectionUnilaterally { connection } => connection.to_string(),
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
        // Those that go back to their default are shown without a value's.
        macro_rules! list {
            ($name:ident, $options:expr) => {
                $name::INFO
                    .iter()
                    .filter_map(|info| match $options.setting(info.name)? {
                        Setting::Leave => None,
                        Setting::Set(value) => Some((info.name, value)),
                        Setting::Default => Some((info.name, "(default)".to_owned())),
                    })
                    .collect()
            };
        }
        match self {
            Self::NewResource { options, .. } | Self::ChangeResourceOptions { options, .. } => {
                list!(ResourceOptions, options)
            }
            Self::NewMinor { options, .. } => list!(DeviceOptions, options),
            Self::Attach { options, .. } | Self::ChangeDiskOptions { options, .. } => {
                list!(DiskOptions, options)
            }
            Self::Connect { options, .. }
            | Self::ConnectDiscardingLocalData { options, .. }
            | Self::ConnectTentatively { options, .. }
            | Self::ChangeNetOptions { options, .. }
            | Self::NewPeer { options, .. } => list!(NetOptions, options),
            Self::ChangePeerDeviceOptions { options, .. } => list!(PeerDeviceOptions, options),
            Self::Resize { options, .. } => list!(ResizeOptions, options),
            Self::Verify { options, .. } => list!(VerifyOptions, options),
            Self::NewCurrentUuid { options, .. } => list!(NewUuidOptions, options),
            Self::Invalidate { options, .. } => list!(InvalidateOptions, options),
            Self::InvalidatePeer { options, .. } => list!(InvalidatePeerOptions, options),
            Self::SuspendIo { options, .. } => list!(SuspendIoOptions, options),
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
            options: DeviceOptions::new(),
        };
        assert_eq!(minor.to_string(), "new-minor r0/0 minor 0");
        let mut options = ResizeOptions::new().size(2048u64);
        options.reset("al-stripes").unwrap();
        let resize = Operation::Resize {
            minor: Minor(1),
            options,
        };
        assert_eq!(
            resize.to_string(),
            "resize minor 1 --size=2048 --al-stripes=(default)"
        );
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
