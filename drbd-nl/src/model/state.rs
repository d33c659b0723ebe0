//! Resources, devices, connections, peer devices and paths.

use super::address::AddressPair;
use super::enums::{ConnectionState, DiskState, ReplicationState, Role, WriteOrdering};
use super::ids::{Minor, NodeId, ResourceName, Sectors, Text, Uuid, VolumeNumber};
use super::options::{DeviceOptions, DiskOptions, NetOptions, PeerDeviceOptions, ResourceOptions};
use crate::op::ConnectionRef;
use bitflags::bitflags;
use std::path::PathBuf;

/// Everything DRBD has configured on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct State {
    /// The resources, by name.
    pub resources: Vec<Resource>,
    /// Whether nothing moved while this was read. Several dumps make one
    /// state; when a change was announced between them they are taken again,
    /// a few times. A node that never rests gives `false`: then two objects
    /// may be from slightly different moments.
    pub consistent: bool,
}

impl State {
    /// Nothing at all.
    pub(crate) fn empty() -> Self {
        Self {
            resources: Vec::new(),
            consistent: true,
        }
    }

    /// The resource of this name.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| r.name == *name)
    }

    /// The device with this minor, and its resource.
    #[must_use]
    pub fn device(&self, minor: Minor) -> Option<(&Resource, &Device)> {
        self.resources
            .iter()
            .find_map(|r| r.devices.iter().find(|d| d.minor == minor).map(|d| (r, d)))
    }

    /// The same in a state that is in order, as ours are.
    pub(crate) fn by_name(&self, name: &ResourceName) -> Option<&Resource> {
        let at = self.resources.binary_search_by(|r| r.name.cmp(name)).ok()?;
        self.resources.get(at)
    }

    /// As [`State::by_name`].
    pub(crate) fn by_name_mut(&mut self, name: &ResourceName) -> Option<&mut Resource> {
        let at = self.resources.binary_search_by(|r| r.name.cmp(name)).ok()?;
        self.resources.get_mut(at)
    }
}

/// A resource: volumes that have one role and go to the same peers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Resource {
    /// Its name.
    pub name: ResourceName,
    /// Its role on this node. On 8.4 each volume has a role of its own;
    /// this is the highest of them.
    pub role: Role,
    /// Why I/O is frozen, if it is.
    pub suspended: Suspended,
    /// A Primary that fails I/O because it was demoted by force (9.1.7).
    pub fail_io: Option<bool>,
    /// How writes are ordered.
    pub write_ordering: Option<WriteOrdering>,
    /// This node's id in the resource (9).
    pub node_id: Option<NodeId>,
    /// Settings; `None` where they were not asked for (as in the
    /// [`Watcher`](crate::Watcher)).
    pub options: Option<ResourceOptions>,
    /// The volumes, by number.
    pub devices: Vec<Device>,
    /// The connections. 8.4 has at most one, and none while it is not configured.
    pub connections: Vec<Connection>,
}

impl Resource {
    pub(crate) fn new(name: ResourceName) -> Self {
        Self {
            name,
            role: Role::Unknown,
            suspended: Suspended::default(),
            fail_io: None,
            write_ordering: None,
            node_id: None,
            options: None,
            devices: Vec::new(),
            connections: Vec::new(),
        }
    }

    /// The volume of this number.
    #[must_use]
    pub fn device(&self, volume: VolumeNumber) -> Option<&Device> {
        self.devices.iter().find(|d| d.volume == volume)
    }

    /// Whether there are connections, and all of them are up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.connections.is_empty() && self.connections.iter().all(Connection::is_connected)
    }

    /// Whether everything is connected, and every volume is current here and
    /// at every peer that is meant to have a copy, with nothing under way.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        let here = |device: &Device| {
            device.disk_state == DiskState::UpToDate || device.intentional_diskless == Some(true)
        };
        let there = |peer: &PeerDevice| {
            peer.replication == ReplicationState::Established
                && (peer.peer_disk_state == DiskState::UpToDate
                    || peer.peer_intentional_diskless == Some(true))
        };
        self.is_connected()
            && self.devices.iter().all(here)
            && self.connections.iter().all(|connection| {
                connection.peer_devices.len() == self.devices.len()
                    && connection.peer_devices.iter().all(there)
            })
    }

    /// Whether every volume and every peer's volume are on day 0: connected,
    /// `Inconsistent` on both sides, and metadata that was never used.
    ///
    /// This is what [`Operation::InitializeFromHere`](crate::Operation)
    /// relies on: only then is nothing lost by declaring one side current.
    /// The kernel does not send the peer's generation, so the peer is judged
    /// by what the handshake made of it: two generations that were never used
    /// stay `Established`, one that was used makes this side a sync target
    /// or drops the connection.
    ///
    /// # Errors
    /// What speaks against it, all of it.
    pub fn day_zero(&self) -> Result<(), Vec<String>> {
        let mut against = Vec::new();
        if self.devices.is_empty() {
            against.push(format!("{} has no volumes", self.name));
        }
        if self.connections.is_empty() {
            against.push(format!(
                "{} is not connected, so the peer's data is unknown",
                self.name
            ));
        }
        for device in &self.devices {
            let object = format!("{}/{}", self.name, device.volume);
            if device.disk_state != DiskState::Inconsistent {
                against.push(format!(
                    "{object} is {}, not Inconsistent",
                    device.disk_state
                ));
            }
            if !device
                .statistics
                .current_uuid
                .is_some_and(Uuid::is_just_created)
            {
                let uuid = device
                    .statistics
                    .current_uuid
                    .map_or("none".into(), |uuid| uuid.to_string());
                against.push(format!("{object} has held data before (generation {uuid})"));
            }
        }
        for connection in &self.connections {
            if connection.state != ConnectionState::Connected {
                against.push(format!(
                    "{} is {} to {connection}, so the peer's data is unknown",
                    self.name, connection.state
                ));
            }
            if connection.peer_role == Role::Primary {
                against.push(format!("{connection} is Primary for {}", self.name));
            }
            for peer in &connection.peer_devices {
                if peer.peer_disk_state != DiskState::Inconsistent {
                    against.push(format!(
                        "{}/{} is {} on {connection}, not Inconsistent",
                        self.name, peer.volume, peer.peer_disk_state
                    ));
                }
                if peer.replication != ReplicationState::Established {
                    against.push(format!(
                        "{}/{} is {} with {connection}, not Established",
                        self.name, peer.volume, peer.replication
                    ));
                }
            }
        }
        if against.is_empty() {
            Ok(())
        } else {
            Err(against)
        }
    }
}

/// Reasons why I/O on a resource is frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Suspended {
    /// Asked for (`suspend-io`).
    pub user: bool,
    /// No data to be had (`on-no-data-accessible suspend-io`).
    pub no_data: bool,
    /// The fence-peer handler has not answered yet.
    pub fencing: bool,
    /// No quorum (9).
    pub quorum: Option<bool>,
}

impl Suspended {
    /// Whether I/O is frozen at all.
    #[must_use]
    pub fn any(&self) -> bool {
        self.user || self.no_data || self.fencing || self.quorum == Some(true)
    }
}

/// A volume on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Device {
    /// Its minor: `/dev/drbdN`.
    pub minor: Minor,
    /// Its number in the resource.
    pub volume: VolumeNumber,
    /// State of the disk below it.
    pub disk_state: DiskState,
    /// Meant to have no disk (9).
    pub intentional_diskless: Option<bool>,
    /// Whether it has quorum (9).
    pub quorum: Option<bool>,
    /// Whether somebody has it open (9.2.11).
    pub open: Option<bool>,
    /// The disk below, if attached (and reported).
    pub backing_dev: Option<PathBuf>,
    /// Where its metadata is, if attached and asked for.
    pub meta_disk: Option<MetaDisk>,
    /// Settings of the disk, if attached and asked for.
    pub options: Option<DiskOptions>,
    /// Settings of the volume, if asked for (9).
    pub device_options: Option<DeviceOptions>,
    /// Size, counters, generations.
    pub statistics: DeviceStatistics,
    /// Since which generation the bitmap counts what the peer lacks: of an
    /// 8.4 that is not connected (in a snapshot). Otherwise it is in
    /// [`PeerDeviceStatistics`].
    pub bitmap_uuid: Option<Uuid>,
    /// What the peer lacks, as far as an 8.4 knows that is not connected (in
    /// a snapshot). Otherwise it is in [`PeerDeviceStatistics`].
    pub out_of_sync: Option<Sectors>,
}

impl Device {
    pub(crate) fn new(minor: Minor, volume: VolumeNumber) -> Self {
        Self {
            minor,
            volume,
            disk_state: DiskState::Diskless,
            intentional_diskless: None,
            quorum: None,
            open: None,
            backing_dev: None,
            meta_disk: None,
            options: None,
            device_options: None,
            statistics: DeviceStatistics::default(),
            bitmap_uuid: None,
            out_of_sync: None,
        }
    }
}

/// Where the metadata of a disk is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum MetaDisk {
    /// At the end of the disk itself (`internal`).
    Internal,
    /// On a device of its own (`flexible-meta-disk`).
    Flexible(PathBuf),
    /// In a slot of 128 MiB of a shared device (`meta-disk DEV [N]`).
    Indexed(PathBuf, u32),
    /// Another index, kept as received (-1 is the old internal format).
    Other(PathBuf, i32),
}

/// A connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Connection {
    /// The peer's node id (9).
    pub peer_node_id: Option<NodeId>,
    /// Its name, usually the peer's host name (9).
    pub name: Option<Text>,
    /// State of the connection.
    pub state: ConnectionState,
    /// The peer's role.
    pub peer_role: Role,
    /// The paths; on 8.4 exactly one.
    pub paths: Vec<Path>,
    /// Settings, if asked for. Without CAP_SYS_ADMIN there is no secret.
    pub options: Option<NetOptions>,
    /// Congestion and data in flight.
    pub statistics: ConnectionStatistics,
    /// The volumes as seen over this connection, by number.
    pub peer_devices: Vec<PeerDevice>,
}

impl Connection {
    pub(crate) fn new(peer_node_id: Option<NodeId>) -> Self {
        Self {
            peer_node_id,
            name: None,
            state: ConnectionState::StandAlone,
            peer_role: Role::Unknown,
            paths: Vec::new(),
            options: None,
            statistics: ConnectionStatistics::default(),
            peer_devices: Vec::new(),
        }
    }

    /// Whether it is up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state == ConnectionState::Connected
    }

    /// What an [`Operation`](crate::Operation) needs to name this connection.
    #[must_use]
    pub fn reference(&self, resource: &ResourceName) -> ConnectionRef {
        ConnectionRef {
            resource: resource.clone(),
            peer_node_id: self.peer_node_id,
            addresses: self.paths.first().map(|path| path.addresses.clone()),
        }
    }

    /// The volume of this number.
    #[must_use]
    pub fn peer_device(&self, volume: VolumeNumber) -> Option<&PeerDevice> {
        self.peer_devices.iter().find(|d| d.volume == volume)
    }
}

impl std::fmt::Display for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(name) = self.name.as_ref().filter(|name| !name.is_empty()) {
            write!(f, "{name}")
        } else if let Some(id) = self.peer_node_id {
            write!(f, "peer node {id}")
        } else if let Some(path) = self.paths.first() {
            write!(f, "{}", path.addresses.remote)
        } else {
            f.write_str("the peer")
        }
    }
}

/// A pair of addresses of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Path {
    /// The two ends.
    pub addresses: AddressPair,
    /// Whether it is up (9; `None` where the kernel does not say).
    pub established: Option<bool>,
}

impl Path {
    pub(crate) fn new(addresses: AddressPair, established: Option<bool>) -> Self {
        Self {
            addresses,
            established,
        }
    }
}

/// A volume as seen over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PeerDevice {
    /// Number of the volume.
    pub volume: VolumeNumber,
    /// State of the replication.
    pub replication: ReplicationState,
    /// State of the peer's disk.
    pub peer_disk_state: DiskState,
    /// Why the resync is paused, if it is.
    pub resync_suspended: ResyncSuspended,
    /// The peer is meant to have no disk (9).
    pub peer_intentional_diskless: Option<bool>,
    /// Settings, if asked for (9).
    pub options: Option<PeerDeviceOptions>,
    /// Counters and resync progress.
    pub statistics: PeerDeviceStatistics,
}

impl PeerDevice {
    pub(crate) fn new(volume: VolumeNumber) -> Self {
        Self {
            volume,
            replication: ReplicationState::Off,
            peer_disk_state: DiskState::DUnknown,
            resync_suspended: ResyncSuspended::default(),
            peer_intentional_diskless: None,
            options: None,
            statistics: PeerDeviceStatistics::default(),
        }
    }

    /// Sectors that differ from the peer as far as this node knows.
    #[must_use]
    pub fn out_of_sync(&self) -> Sectors {
        self.statistics.out_of_sync
    }
}

/// Reasons why a resync is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ResyncSuspended {
    /// Asked for here.
    pub user: bool,
    /// Asked for there.
    pub peer: bool,
    /// Another device comes first (`resync-after`).
    pub dependency: bool,
    /// Too many resyncs at once (9.3.3).
    pub max_parallel: Option<bool>,
}

/// `resource_info`: what events say about a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ResourceInfo {
    /// Role on this node.
    pub role: Role,
    /// Why I/O is frozen.
    pub suspended: Suspended,
    /// Fails I/O (9.1.7).
    pub fail_io: Option<bool>,
}

/// `resource_statistics`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ResourceStatistics {
    /// How writes are ordered.
    pub write_ordering: Option<WriteOrdering>,
}

/// `device_info`: what events say about a volume on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DeviceInfo {
    /// State of the disk.
    pub disk_state: DiskState,
    /// Meant to have no disk (9).
    pub intentional_diskless: Option<bool>,
    /// Has quorum (9).
    pub quorum: Option<bool>,
    /// The disk (9.1.1).
    pub backing_dev: Option<PathBuf>,
    /// Somebody has it open (9.2.11).
    pub open: Option<bool>,
}

/// `connection_info`: what events say about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// State of the connection.
    pub state: ConnectionState,
    /// The peer's role.
    pub peer_role: Role,
}

/// `peer_device_info`: what events say about a volume over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PeerDeviceInfo {
    /// State of the replication.
    pub replication: ReplicationState,
    /// State of the peer's disk.
    pub peer_disk_state: DiskState,
    /// Why the resync is paused.
    pub resync_suspended: ResyncSuspended,
    /// The peer is meant to have no disk (9).
    pub peer_intentional_diskless: Option<bool>,
}

/// `connection_statistics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConnectionStatistics {
    /// The send queue is full.
    pub congested: bool,
    /// Application data in flight, in sectors (9).
    pub application_in_flight: Option<Sectors>,
    /// Resync data in flight, in sectors (9).
    pub resync_in_flight: Option<Sectors>,
}

bitflags! {
    /// Flags of the metadata (`MDF_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DiskFlags: u32 {
        /// `MDF_CONSISTENT`.
        const CONSISTENT = 0x1;
        /// `MDF_PRIMARY_IND`: was Primary.
        const PRIMARY_INDICATOR = 0x2;
        /// `MDF_CONNECTED_IND`: was connected (8.4).
        const CONNECTED_INDICATOR = 0x4;
        /// `MDF_FULL_SYNC` (8.4).
        const FULL_SYNC = 0x8;
        /// `MDF_WAS_UP_TO_DATE`.
        const WAS_UP_TO_DATE = 0x10;
        /// `MDF_PEER_OUT_DATED` (8.4).
        const PEER_OUTDATED = 0x20;
        /// `MDF_CRASHED_PRIMARY`.
        const CRASHED_PRIMARY = 0x40;
        /// `MDF_AL_CLEAN`: the activity log needs no applying.
        const AL_CLEAN = 0x80;
        /// `MDF_AL_DISABLED`.
        const AL_DISABLED = 0x100;
        /// `MDF_PRIMARY_LOST_QUORUM` (9).
        const PRIMARY_LOST_QUORUM = 0x200;
        /// `MDF_HAVE_QUORUM` (9).
        const HAVE_QUORUM = 0x400;
        const _ = !0;
    }
}

bitflags! {
    /// Flags kept for a peer (`MDF_PEER_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PeerDeviceFlags: u32 {
        /// `MDF_PEER_CONNECTED`.
        const CONNECTED = 0x1;
        /// `MDF_PEER_OUTDATED`.
        const OUTDATED = 0x2;
        /// `MDF_PEER_FENCING`.
        const FENCING = 0x4;
        /// `MDF_PEER_FULL_SYNC`.
        const FULL_SYNC = 0x8;
        /// `MDF_PEER_DEVICE_SEEN`.
        const DEVICE_SEEN = 0x10;
        /// `MDF_NODE_EXISTS`.
        const NODE_EXISTS = 0x10000;
        const _ = !0;
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for DiskFlags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.bits())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for PeerDeviceFlags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.bits())
    }
}

/// `device_statistics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DeviceStatistics {
    /// Usable size.
    pub size: Sectors,
    /// Read from the disk.
    pub read: Sectors,
    /// Written to the disk.
    pub written: Sectors,
    /// Activity log transactions.
    pub al_writes: u64,
    /// Bitmap writes.
    pub bm_writes: u64,
    /// Application requests not completed.
    pub upper_pending: u32,
    /// Requests to the disk not completed.
    pub lower_pending: u32,
    /// Application I/O is blocked.
    pub upper_blocked: bool,
    /// Disk I/O is blocked.
    pub lower_blocked: bool,
    /// The activity log is suspended.
    pub al_suspended: bool,
    /// Generation the application sees.
    pub exposed_data_uuid: Option<Uuid>,
    /// Current generation of the disk.
    pub current_uuid: Option<Uuid>,
    /// Flags of the metadata.
    pub disk_flags: DiskFlags,
    /// Earlier generations, newest first.
    pub history_uuids: Vec<Uuid>,
}

/// `peer_device_statistics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PeerDeviceStatistics {
    /// Received from the peer.
    pub received: Sectors,
    /// Sent to the peer.
    pub sent: Sectors,
    /// Requests the peer has not answered.
    pub pending: u32,
    /// Requests of the peer not answered.
    pub unacked: u32,
    /// Differs from the peer, as far as this node knows.
    pub out_of_sync: Sectors,
    /// Resync of these failed.
    pub resync_failed: Sectors,
    /// Generation since which the bitmap counts.
    pub bitmap_uuid: Option<Uuid>,
    /// Flags kept for the peer.
    pub flags: PeerDeviceFlags,
    /// What there was to resync or verify at the start (9; on 8.4 in a snapshot).
    pub resync_total: Option<Sectors>,
    /// First sector of the verify (9).
    pub verify_start: Option<Sectors>,
    /// Last sector of the verify (9).
    pub verify_stop: Option<Sectors>,
    /// Where the verify is (9).
    pub verify_position: Option<Sectors>,
    /// What is left to verify (9).
    pub verify_left: Option<Sectors>,
    /// What the verify skipped (9).
    pub verify_skipped: Option<Sectors>,
    /// Found equal by checksum, in bits of the bitmap (9).
    pub resync_same_checksum: Option<u64>,
    /// Milliseconds since the resync or verify started (9).
    pub resync_elapsed_ms: Option<u64>,
    /// Milliseconds it was paused (9).
    pub resync_paused_ms: Option<u64>,
    /// Length in ms, and sectors done, of the shorter recent window (9).
    pub resync_recent: Option<(u64, Sectors)>,
    /// Length in ms, and sectors done, of the longer recent window (9).
    pub resync_recent_long: Option<(u64, Sectors)>,
    /// Rate the controller asks for, in KiB/s (9).
    pub resync_wanted_rate: Option<u32>,
    /// Flags of the peer's generations (9).
    pub uuid_flags: Option<u64>,
}
