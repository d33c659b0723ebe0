//! Reads what DRBD sends: outcomes, dumps, events.

use super::Dialect;
use crate::events::{Action, Event, EventKind, HelperEvent, LegacyEvent};
use crate::model::{
    Address, AddressPair, ConnectionInfo, ConnectionState, ConnectionStatistics, DeviceInfo,
    DeviceOptions, DeviceStatistics, DiskFlags, DiskOptions, DiskState, MetaDisk, Minor,
    NetOptions, NodeId, Path, PeerDeviceFlags, PeerDeviceInfo, PeerDeviceOptions,
    PeerDeviceStatistics, ReplicationState, ResourceInfo, ResourceName, ResourceOptions,
    ResourceStatistics, ResyncSuspended, Role, Sectors, Suspended, Text, Uuid, VolumeNumber,
    WriteOrdering,
};
use crate::schema::{
    self, NO_MINOR, cfg_context as ctx, cmd, connection_info, connection_statistics, device_info,
    device_statistics, disk_conf, path_info, peer_device_info, peer_device_statistics,
    resource_info, resource_statistics, state_info, tla,
};
use crate::wire::{Attr, Attrs, DrbdHeader, Endian, GenlHeader, NlMsg, WireError};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A DRBD message with its headers read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a, E> {
    pub(crate) dialect: Dialect,
    pub(crate) command: u8,
    pub(crate) seq: u32,
    pub(crate) minor: Option<Minor>,
    pub(crate) ret_code: i32,
    pub(crate) attrs: Attrs<'a, E>,
    nests: Nests<'a>,
}

/// The nests of a message by number, so that it is gone through once. A
/// message of DRBD has up to seven.
#[derive(Clone, Copy, Debug, Default)]
struct Nests<'a> {
    first: [(u16, &'a [u8]); 8],
    count: usize,
}

impl<'a, E: Endian> Message<'a, E> {
    pub(crate) fn read(dialect: Dialect, msg: &NlMsg<'a>) -> Result<Self, WireError> {
        let genl = GenlHeader::read(msg.body)?;
        let drbd = DrbdHeader::read::<E>(genl.body)?;
        let attrs = Attrs::new(drbd.body);
        let mut nests = Nests::default();
        for attr in attrs {
            let attr = attr?;
            if let Some(place) = nests.first.get_mut(nests.count) {
                *place = (attr.number, attr.payload);
            }
            nests.count += 1;
        }
        Ok(Self {
            dialect,
            command: genl.command,
            seq: msg.seq,
            minor: (drbd.minor != NO_MINOR).then_some(Minor(drbd.minor)),
            ret_code: drbd.ret_code(),
            attrs,
            nests,
        })
    }

    /// The nest with this number, if there is one.
    fn nest(&self, number: u16) -> Result<Option<Attrs<'a, E>>, WireError> {
        let Nests { first, count } = &self.nests;
        let Some(known) = first.get(..*count) else {
            return Ok(self.attrs.find(number)?.map(|attr| attr.nest()));
        };
        // A later one overrides, as in the kernel.
        let found = known.iter().rev().find(|(own, _)| *own == number);
        Ok(found.map(|(_, payload)| Attrs::new(payload)))
    }

    /// Every info text, in order: there may be several nests with several each.
    pub(crate) fn info_texts(&self) -> Result<Vec<Text>, WireError> {
        let mut texts = Vec::new();
        for attr in self.attrs {
            let attr = attr?;
            if attr.number == tla::CFG_REPLY {
                for inner in attr.nest() {
                    let inner = inner?;
                    if inner.number == schema::cfg_reply::INFO_TEXT {
                        texts.push(Text::from_bytes(inner.string()));
                    }
                }
            }
        }
        Ok(texts)
    }

    /// The answer to GET_TIMEOUT_TYPE.
    pub(crate) fn timeout_type(&self) -> Result<Option<u32>, WireError> {
        let nest = self.nest(tla::TIMEOUT_PARMS)?;
        nest.and_then(|nest| nest.find(schema::timeout_parms::TIMEOUT_TYPE).transpose())
            .map(|attr| attr?.u32())
            .transpose()
    }

    pub(crate) fn context(&self) -> Result<Context, WireError> {
        let mut context = Context::default();
        let (mut local, mut remote) = (None, None);
        for attr in self.nest(tla::CFG_CONTEXT)?.into_iter().flatten() {
            let attr = attr?;
            match attr.number {
                ctx::CTX_VOLUME => context.volume = Some(VolumeNumber(attr.u32()?)),
                ctx::CTX_RESOURCE_NAME => {
                    context.resource = Some(ResourceName::from_kernel(attr.string()));
                }
                ctx::CTX_MY_ADDR => local = Some(address(&attr)),
                ctx::CTX_PEER_ADDR => remote = Some(address(&attr)),
                ctx::CTX_CONN_NAME => context.name = Some(Text::from_bytes(attr.string())),
                ctx::CTX_PEER_NODE_ID => context.peer_node_id = Some(NodeId(attr.u32()?)),
                _ => {}
            }
        }
        context.addresses = local
            .zip(remote)
            .map(|(local, remote)| AddressPair { local, remote });
        Ok(context)
    }

    pub(crate) fn resource(&self) -> Result<Option<ResourceInfo>, WireError> {
        let Some(nest) = self.nest(tla::RESOURCE_INFO)? else {
            return Ok(None);
        };
        let mut info = ResourceInfo {
            role: Role::Unknown,
            suspended: Suspended::default(),
            fail_io: None,
        };
        for attr in nest {
            let attr = attr?;
            match attr.number {
                resource_info::RES_ROLE => info.role = attr.u32()?.into(),
                resource_info::RES_SUSP => info.suspended.user = attr.bool()?,
                resource_info::RES_SUSP_NOD => info.suspended.no_data = attr.bool()?,
                resource_info::RES_SUSP_FEN => info.suspended.fencing = attr.bool()?,
                resource_info::RES_SUSP_QUORUM => info.suspended.quorum = Some(attr.bool()?),
                resource_info::RES_FAIL_IO => info.fail_io = Some(attr.bool()?),
                _ => {}
            }
        }
        Ok(Some(info))
    }

    pub(crate) fn resource_statistics(&self) -> Result<Option<ResourceStatistics>, WireError> {
        let Some(nest) = self.nest(tla::RESOURCE_STATISTICS)? else {
            return Ok(None);
        };
        let write_ordering = nest
            .find(resource_statistics::RES_STAT_WRITE_ORDERING)?
            .map(|attr| attr.u32().map(WriteOrdering::from))
            .transpose()?;
        Ok(Some(ResourceStatistics { write_ordering }))
    }

    /// Settings of a resource, and this node's id.
    pub(crate) fn resource_options(
        &self,
    ) -> Result<(Option<ResourceOptions>, Option<NodeId>), WireError> {
        let Some(nest) = self.nest(tla::RESOURCE_OPTS)? else {
            return Ok((None, None));
        };
        let node_id = match self.dialect {
            Dialect::V84 => None,
            Dialect::V9 => nest
                .find(schema::res_opts::NODE_ID)?
                .map(|a| a.u32())
                .transpose()?,
        };
        Ok((
            Some(ResourceOptions::decode(self.dialect, nest)?),
            node_id.map(NodeId),
        ))
    }

    pub(crate) fn device(&self) -> Result<Option<DeviceInfo>, WireError> {
        let Some(nest) = self.nest(tla::DEVICE_INFO)? else {
            return Ok(None);
        };
        let mut info = DeviceInfo {
            disk_state: DiskState::Diskless,
            intentional_diskless: None,
            quorum: None,
            backing_dev: None,
            open: None,
        };
        for attr in nest {
            let attr = attr?;
            match attr.number {
                device_info::DEV_DISK_STATE => {
                    info.disk_state = DiskState::from_wire(self.dialect, attr.u32()?);
                }
                device_info::IS_INTENTIONAL_DISKLESS => {
                    info.intentional_diskless = Some(attr.bool()?);
                }
                device_info::DEV_HAS_QUORUM => info.quorum = Some(attr.bool()?),
                device_info::BACKING_DEV_PATH => info.backing_dev = device_path(&attr),
                device_info::DEV_IS_OPEN => info.open = Some(attr.bool()?),
                _ => {}
            }
        }
        Ok(Some(info))
    }

    pub(crate) fn device_statistics(&self) -> Result<Option<DeviceStatistics>, WireError> {
        use device_statistics as nr;
        let Some(nest) = self.nest(tla::DEVICE_STATISTICS)? else {
            return Ok(None);
        };
        let mut s = DeviceStatistics::default();
        for attr in nest {
            let attr = attr?;
            match attr.number {
                nr::DEV_SIZE => s.size = Sectors(attr.u64()?),
                nr::DEV_READ => s.read = Sectors(attr.u64()?),
                nr::DEV_WRITE => s.written = Sectors(attr.u64()?),
                nr::DEV_AL_WRITES => s.al_writes = attr.u64()?,
                nr::DEV_BM_WRITES => s.bm_writes = attr.u64()?,
                nr::DEV_UPPER_PENDING => s.upper_pending = attr.u32()?,
                nr::DEV_LOWER_PENDING => s.lower_pending = attr.u32()?,
                nr::DEV_UPPER_BLOCKED => s.upper_blocked = attr.bool()?,
                nr::DEV_LOWER_BLOCKED => s.lower_blocked = attr.bool()?,
                nr::DEV_AL_SUSPENDED => s.al_suspended = attr.bool()?,
                nr::DEV_EXPOSED_DATA_UUID => s.exposed_data_uuid = Uuid::from_wire(attr.u64()?),
                nr::DEV_CURRENT_UUID => s.current_uuid = Uuid::from_wire(attr.u64()?),
                nr::DEV_DISK_FLAGS => s.disk_flags = DiskFlags::from_bits_retain(attr.u32()?),
                nr::HISTORY_UUIDS => {
                    s.history_uuids = attr
                        .payload
                        .chunks_exact(8)
                        .filter_map(|chunk| chunk.try_into().ok())
                        .filter_map(|bytes| Uuid::from_wire(E::u64(bytes)))
                        .collect();
                }
                _ => {}
            }
        }
        Ok(Some(s))
    }

    /// Where the disk and its metadata are, and its settings.
    pub(crate) fn disk(&self) -> Result<Option<(PathBuf, MetaDisk, DiskOptions)>, WireError> {
        let Some(nest) = self.nest(tla::DISK_CONF)? else {
            return Ok(None);
        };
        let (mut backing, mut meta, mut index) = (PathBuf::new(), PathBuf::new(), 0);
        for attr in nest {
            let attr = attr?;
            match attr.number {
                disk_conf::BACKING_DEV => backing = path(&attr),
                disk_conf::META_DEV => meta = path(&attr),
                disk_conf::META_DEV_IDX => index = attr.i32()?,
                _ => {}
            }
        }
        let options = DiskOptions::decode(self.dialect, nest)?;
        Ok(Some((backing, meta_disk(meta, index), options)))
    }

    pub(crate) fn connection(&self) -> Result<Option<ConnectionInfo>, WireError> {
        let Some(nest) = self.nest(tla::CONNECTION_INFO)? else {
            return Ok(None);
        };
        let mut info = ConnectionInfo {
            state: ConnectionState::StandAlone,
            peer_role: Role::Unknown,
        };
        for attr in nest {
            let attr = attr?;
            match attr.number {
                connection_info::CONN_CONNECTION_STATE => info.state = attr.u32()?.into(),
                connection_info::CONN_ROLE => info.peer_role = attr.u32()?.into(),
                _ => {}
            }
        }
        Ok(Some(info))
    }

    pub(crate) fn connection_statistics(&self) -> Result<Option<ConnectionStatistics>, WireError> {
        use connection_statistics as nr;
        let Some(nest) = self.nest(tla::CONNECTION_STATISTICS)? else {
            return Ok(None);
        };
        let mut s = ConnectionStatistics::default();
        for attr in nest {
            let attr = attr?;
            match attr.number {
                nr::CONN_CONGESTED => s.congested = attr.bool()?,
                nr::AP_IN_FLIGHT => s.application_in_flight = Some(Sectors(attr.u64()?)),
                nr::RS_IN_FLIGHT => s.resync_in_flight = Some(Sectors(attr.u64()?)),
                _ => {}
            }
        }
        Ok(Some(s))
    }

    pub(crate) fn net_options(&self) -> Result<Option<NetOptions>, WireError> {
        self.nest(tla::NET_CONF)?
            .map(|nest| NetOptions::decode(self.dialect, nest))
            .transpose()
    }

    /// The paths of a connection in a dump of DRBD 9: pairs in one nest.
    pub(crate) fn paths(&self) -> Result<Vec<Path>, WireError> {
        let mut paths = Vec::new();
        let mut local = None;
        for attr in self.nest(tla::PATH_PARMS)?.into_iter().flatten() {
            let attr = attr?;
            match attr.number {
                schema::path_parms::MY_ADDR => local = Some(address(&attr)),
                schema::path_parms::PEER_ADDR => {
                    if let Some(local) = local.take() {
                        let addresses = AddressPair {
                            local,
                            remote: address(&attr),
                        };
                        paths.push(Path::new(addresses, None));
                    }
                }
                _ => {}
            }
        }
        Ok(paths)
    }

    pub(crate) fn peer_device(&self) -> Result<Option<PeerDeviceInfo>, WireError> {
        use peer_device_info as nr;
        let Some(nest) = self.nest(tla::PEER_DEVICE_INFO)? else {
            return Ok(None);
        };
        let mut info = PeerDeviceInfo {
            replication: ReplicationState::Off,
            peer_disk_state: DiskState::DUnknown,
            resync_suspended: ResyncSuspended::default(),
            peer_intentional_diskless: None,
        };
        for attr in nest {
            let attr = attr?;
            let suspended = &mut info.resync_suspended;
            match attr.number {
                nr::PEER_REPL_STATE => info.replication = attr.u32()?.into(),
                nr::PEER_DISK_STATE => {
                    info.peer_disk_state = DiskState::from_wire(self.dialect, attr.u32()?);
                }
                nr::PEER_RESYNC_SUSP_USER => suspended.user = attr.u32()? != 0,
                nr::PEER_RESYNC_SUSP_PEER => suspended.peer = attr.u32()? != 0,
                nr::PEER_RESYNC_SUSP_DEPENDENCY => suspended.dependency = attr.u32()? != 0,
                nr::PEER_RESYNC_SUSP_MAX_PARALLEL => {
                    suspended.max_parallel = Some(attr.u32()? != 0);
                }
                nr::PEER_IS_INTENTIONAL_DISKLESS => {
                    info.peer_intentional_diskless = Some(attr.bool()?);
                }
                _ => {}
            }
        }
        Ok(Some(info))
    }

    pub(crate) fn peer_device_statistics(&self) -> Result<Option<PeerDeviceStatistics>, WireError> {
        use peer_device_statistics as nr;
        let Some(nest) = self.nest(tla::PEER_DEVICE_STATISTICS)? else {
            return Ok(None);
        };
        let mut s = PeerDeviceStatistics::default();
        let (mut dt0, mut db0, mut dt1, mut db1) = (None, None, None, None);
        for attr in nest {
            let attr = attr?;
            let sectors = || attr.u64().map(Sectors);
            match attr.number {
                nr::PEER_DEV_RECEIVED => s.received = sectors()?,
                nr::PEER_DEV_SENT => s.sent = sectors()?,
                nr::PEER_DEV_PENDING => s.pending = attr.u32()?,
                nr::PEER_DEV_UNACKED => s.unacked = attr.u32()?,
                nr::PEER_DEV_OUT_OF_SYNC => s.out_of_sync = sectors()?,
                nr::PEER_DEV_RESYNC_FAILED => s.resync_failed = sectors()?,
                nr::PEER_DEV_BITMAP_UUID => s.bitmap_uuid = Uuid::from_wire(attr.u64()?),
                nr::PEER_DEV_FLAGS => s.flags = PeerDeviceFlags::from_bits_retain(attr.u32()?),
                nr::PEER_DEV_RS_TOTAL => s.resync_total = Some(sectors()?),
                nr::PEER_DEV_OV_START_SECTOR => s.verify_start = Some(sectors()?),
                nr::PEER_DEV_OV_STOP_SECTOR => s.verify_stop = Some(sectors()?),
                nr::PEER_DEV_OV_POSITION => s.verify_position = Some(sectors()?),
                nr::PEER_DEV_OV_LEFT => s.verify_left = Some(sectors()?),
                nr::PEER_DEV_OV_SKIPPED => s.verify_skipped = Some(sectors()?),
                nr::PEER_DEV_RS_SAME_CSUM => s.resync_same_checksum = Some(attr.u64()?),
                nr::PEER_DEV_RS_DT_START_MS => s.resync_elapsed_ms = Some(attr.u64()?),
                nr::PEER_DEV_RS_PAUSED_MS => s.resync_paused_ms = Some(attr.u64()?),
                nr::PEER_DEV_RS_DT0_MS => dt0 = Some(attr.u64()?),
                nr::PEER_DEV_RS_DB0_SECTORS => db0 = Some(sectors()?),
                nr::PEER_DEV_RS_DT1_MS => dt1 = Some(attr.u64()?),
                nr::PEER_DEV_RS_DB1_SECTORS => db1 = Some(sectors()?),
                nr::PEER_DEV_RS_C_SYNC_RATE => s.resync_wanted_rate = Some(attr.u32()?),
                nr::PEER_DEV_UUID_FLAGS => s.uuid_flags = Some(attr.u64()?),
                _ => {}
            }
        }
        s.resync_recent = dt0.zip(db0);
        s.resync_recent_long = dt1.zip(db1);
        Ok(Some(s))
    }

    pub(crate) fn peer_device_options(&self) -> Result<Option<PeerDeviceOptions>, WireError> {
        self.nest(tla::PEER_DEVICE_OPTS)?
            .map(|nest| PeerDeviceOptions::decode(self.dialect, nest))
            .transpose()
    }

    pub(crate) fn path_established(&self) -> Result<Option<bool>, WireError> {
        let Some(nest) = self.nest(tla::PATH_INFO)? else {
            return Ok(None);
        };
        nest.find(path_info::PATH_ESTABLISHED)?
            .map(|attr| attr.bool())
            .transpose()
    }

    /// An event: a notification, or part of the initial state.
    pub(crate) fn event(&self) -> Result<Event, WireError> {
        let nh_type = self
            .nest(tla::NOTIFICATION_HEADER)?
            .and_then(|nest| nest.find(schema::notification_header::NH_TYPE).transpose())
            .transpose()?
            .map_or(Ok(0), |attr| attr.u32())?;
        let continues = nh_type & schema::NOTIFY_CONTINUES != 0;
        let action = Action::from(nh_type & !schema::NOTIFY_CONTINUES);
        let Context {
            resource,
            volume,
            peer_node_id,
            name,
            addresses,
        } = self.context()?;
        let missing = |what| WireError { what, at: 0 };
        let no_resource = missing("event without resource");
        let no_volume = missing("event without volume");
        let kind = match self.command {
            cmd::RESOURCE_STATE => EventKind::Resource {
                resource: resource.ok_or(no_resource)?,
                info: self.resource()?,
                statistics: self.resource_statistics()?,
                new_name: self
                    .nest(tla::RENAME_RESOURCE_INFO)?
                    .and_then(|n| {
                        n.find(schema::rename_resource_info::RES_NEW_NAME)
                            .transpose()
                    })
                    .transpose()?
                    .map(|attr| ResourceName::from_kernel(attr.string())),
            },
            cmd::DEVICE_STATE => EventKind::Device {
                resource: resource.ok_or(no_resource)?,
                volume: volume.ok_or(no_volume)?,
                minor: self.minor,
                info: self.device()?,
                statistics: self.device_statistics()?,
            },
            cmd::CONNECTION_STATE => EventKind::Connection {
                resource: resource.ok_or(no_resource)?,
                peer_node_id,
                name,
                addresses,
                info: self.connection()?,
                statistics: self.connection_statistics()?,
            },
            cmd::PEER_DEVICE_STATE => EventKind::PeerDevice {
                resource: resource.ok_or(no_resource)?,
                volume: volume.ok_or(no_volume)?,
                peer_node_id,
                info: self.peer_device()?,
                statistics: self.peer_device_statistics()?,
            },
            cmd::PATH_STATE => EventKind::Path {
                resource: resource.ok_or(no_resource)?,
                peer_node_id,
                addresses: addresses.ok_or(missing("path event without addresses"))?,
                established: self.path_established()?,
            },
            cmd::HELPER => {
                let (mut name, mut status) = (Text::default(), None);
                for attr in self.nest(tla::HELPER)?.into_iter().flatten() {
                    let attr = attr?;
                    match attr.number {
                        schema::helper::HELPER_NAME => name = Text::from_bytes(attr.string()),
                        schema::helper::HELPER_STATUS => status = Some(attr.u32()?),
                        _ => {}
                    }
                }
                EventKind::Helper(HelperEvent {
                    resource,
                    minor: self.minor,
                    volume,
                    peer_node_id,
                    name,
                    // A call carries a zero that means nothing.
                    status: status.filter(|_| action == Action::Response),
                })
            }
            cmd::INITIAL_STATE_DONE => EventKind::InitialStateDone,
            cmd::EVENT if self.dialect == Dialect::V84 => {
                EventKind::Legacy(Box::new(self.legacy(resource)?))
            }
            command => EventKind::Unknown { command },
        };
        Ok(Event {
            seq: self.seq,
            action,
            continues,
            kind,
        })
    }

    /// 8.4's older kind of event, and its answer to GET_STATUS.
    pub(crate) fn legacy(&self, resource: Option<ResourceName>) -> Result<LegacyEvent, WireError> {
        use state_info as nr;
        /// A bit of the bitmap is 4 KiB.
        const SECTORS_A_BIT: u64 = 8;
        let mut event = LegacyEvent {
            resource,
            minor: self.minor,
            ..LegacyEvent::default()
        };
        for attr in self.nest(tla::STATE_INFO)?.into_iter().flatten() {
            let attr = attr?;
            let bits = || {
                attr.u64()
                    .map(|bits| Some(Sectors(bits.saturating_mul(SECTORS_A_BIT))))
            };
            match attr.number {
                nr::SIB_REASON => event.reason = attr.u32()?,
                nr::CURRENT_STATE => event.state = Some(attr.u32()?),
                nr::PREV_STATE => event.previous_state = Some(attr.u32()?),
                nr::NEW_STATE => event.new_state = Some(attr.u32()?),
                nr::CAPACITY => event.capacity = Some(Sectors(attr.u64()?)),
                nr::ED_UUID => event.exposed_data_uuid = Uuid::from_wire(attr.u64()?),
                nr::UUIDS => {
                    event.uuids = attr
                        .payload
                        .chunks_exact(8)
                        .filter_map(|chunk| chunk.try_into().ok())
                        .map(E::u64)
                        .collect();
                }
                nr::DISK_FLAGS => {
                    event.disk_flags = Some(DiskFlags::from_bits_retain(attr.u32()?));
                }
                nr::BITS_TOTAL => event.total = bits()?,
                nr::BITS_OOS => event.out_of_sync = bits()?,
                nr::BITS_RS_TOTAL => event.resync_total = bits()?,
                nr::BITS_RS_FAILED => event.resync_failed = bits()?,
                nr::HELPER => event.helper = Some(Text::from_bytes(attr.string())),
                nr::HELPER_EXIT_CODE => event.helper_status = Some(attr.u32()?),
                number @ nr::SEND_CNT..=nr::RS_PENDING_CNT => {
                    let value = if number <= nr::BM_WRIT_CNT {
                        attr.u64()?
                    } else {
                        u64::from(attr.u32()?)
                    };
                    let at = usize::from(number - nr::SEND_CNT);
                    if let Some(counter) = event.counters.get_mut(at) {
                        *counter = Some(value);
                    }
                }
                _ => {}
            }
        }
        Ok(event)
    }

    /// The answer to GET_STATUS.
    pub(crate) fn status84(&self) -> Result<Option<Box<LegacyEvent>>, WireError> {
        if self.dialect != Dialect::V84 || self.command != cmd::GET_STATUS {
            return Ok(None);
        }
        Ok(Some(Box::new(self.legacy(self.context()?.resource)?)))
    }

    /// Settings of a volume (9).
    pub(crate) fn device_options(&self) -> Result<Option<DeviceOptions>, WireError> {
        self.nest(tla::DEVICE_CONF)?
            .map(|nest| DeviceOptions::decode(self.dialect, nest))
            .transpose()
    }
}

/// `drbd_cfg_context`, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) resource: Option<ResourceName>,
    pub(crate) volume: Option<VolumeNumber>,
    pub(crate) peer_node_id: Option<NodeId>,
    pub(crate) name: Option<Text>,
    pub(crate) addresses: Option<AddressPair>,
}

fn address<E: Endian>(attr: &Attr<'_, E>) -> Address {
    Address::from_wire(attr.payload, E::BIG)
}

fn path<E: Endian>(attr: &Attr<'_, E>) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(attr.string()))
}

/// DRBD says "none" for no disk.
fn device_path<E: Endian>(attr: &Attr<'_, E>) -> Option<PathBuf> {
    let name = attr.string();
    (!name.is_empty() && name != b"none").then(|| path(attr))
}

const INDEX_FLEX_EXTERNAL: i32 = -2;
const INDEX_FLEX_INTERNAL: i32 = -3;

fn meta_disk(path: PathBuf, index: i32) -> MetaDisk {
    match index {
        INDEX_FLEX_INTERNAL => MetaDisk::Internal,
        INDEX_FLEX_EXTERNAL => MetaDisk::Flexible(path),
        other => match u32::try_from(other) {
            Ok(slot) => MetaDisk::Indexed(path, slot),
            Err(_) => MetaDisk::Other(path, other),
        },
    }
}

/// Device and index of the metadata, as ATTACH wants them.
pub(crate) fn meta_wire<'a>(
    meta: &'a MetaDisk,
    backing: &'a std::path::Path,
) -> (&'a std::path::Path, i32) {
    match meta {
        MetaDisk::Internal => (backing, INDEX_FLEX_INTERNAL),
        MetaDisk::Flexible(path) => (path, INDEX_FLEX_EXTERNAL),
        MetaDisk::Indexed(path, slot) => (path, i32::try_from(*slot).unwrap_or(i32::MAX)),
        MetaDisk::Other(path, index) => (path, *index),
    }
}
