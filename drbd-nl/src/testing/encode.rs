//! The model as the messages a kernel sends: what `dialect::decode` reads.

use crate::dialect::Dialect;
use crate::dialect::decode::meta_wire;
use crate::model::{
    AddressPair, Connection, ConnectionState, Device, DeviceOptions, DiskOptions, NetOptions,
    NodeId, Path, PeerDevice, PeerDeviceOptions, Resource, ResourceName, ResourceOptions, Sectors,
    Text, Uuid, VolumeNumber,
};
use crate::schema::{
    NO_MINOR, cfg_context as ctx, cfg_reply, cmd, codes, connection_info, connection_statistics,
    ctrl, device_info, device_statistics, disk_conf, helper, net_conf, notification_header,
    path_info, path_parms, peer_device_info, peer_device_statistics, rename_resource_info,
    res_opts, resource_info, resource_statistics, state_info, timeout_parms, tla,
};
use crate::wire::{Endian, MessageBuilder, NLM_F_MULTI, Native, Nest};
use std::os::unix::ffi::OsStrExt;

type Out<'a> = Nest<'a, Native>;

/// An attribute number that no kernel uses.
const STRANGE: u16 = 0x1fff;

/// How a kernel speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    pub(super) dialect: Dialect,
    pub(super) family: u16,
    /// Adds attributes that no reader knows.
    pub(super) strange: bool,
}

/// An object with what it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Object<'a> {
    Resource(&'a Resource),
    Device(&'a Resource, &'a Device),
    Connection(&'a Resource, &'a Connection),
    PeerDevice(&'a Resource, &'a Connection, &'a PeerDevice),
    Path(&'a Resource, &'a Connection, &'a Path),
}

/// What a message is about.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) resource: Option<ResourceName>,
    pub(super) volume: Option<VolumeNumber>,
    pub(super) minor: Option<u32>,
    pub(super) peer: Option<NodeId>,
    pub(super) name: Option<Text>,
    pub(super) addresses: Option<AddressPair>,
}

impl Voice {
    pub(super) fn message(
        self,
        command: u8,
        flags: u16,
        minor: Option<u32>,
        ret_code: i32,
        fill: impl FnOnce(&mut Out<'_>),
    ) -> Vec<u8> {
        let ret_code = u32::from_ne_bytes(ret_code.to_ne_bytes());
        let version = self.dialect.version();
        let mut builder = MessageBuilder::<Native>::genl(self.family, flags, command, version)
            .drbd(minor.unwrap_or(NO_MINOR), ret_code);
        fill(&mut builder.attrs());
        // Nothing the model holds is too long for an attribute; were it, an
        // empty message is what a reader has to cope with as well.
        builder.finish(0, 0).unwrap_or_default()
    }

    fn nest(self, top: &mut Out<'_>, number: u16, fill: impl FnOnce(&mut Out<'_>)) {
        top.nest(number, |nest| {
            fill(nest);
            if self.strange {
                nest.bytes(STRANGE, b"strange");
            }
        });
    }

    fn context(self, top: &mut Out<'_>, about: &About) {
        self.nest(top, tla::CFG_CONTEXT, |nest| {
            if let Some(volume) = about.volume {
                nest.u32(ctx::CTX_VOLUME, volume.0);
            }
            if let Some(name) = &about.resource {
                nest.string(ctx::CTX_RESOURCE_NAME, name.as_bytes());
            }
            if let Some(pair) = &about.addresses {
                nest.bytes(ctx::CTX_MY_ADDR, &pair.local.to_wire(Native::BIG));
                nest.bytes(ctx::CTX_PEER_ADDR, &pair.remote.to_wire(Native::BIG));
            }
            if let Some(name) = &about.name {
                nest.string(ctx::CTX_CONN_NAME, name.as_bytes());
            }
            if let Some(peer) = about.peer {
                nest.u32(ctx::CTX_PEER_NODE_ID, peer.0);
            }
        });
    }

    /// An answer of DRBD.
    pub(super) fn answer(self, command: u8, minor: u32, ret_code: i32, texts: &[Text]) -> Vec<u8> {
        self.message(command, 0, Some(minor), ret_code, |top| {
            for text in texts {
                self.nest(top, tla::CFG_REPLY, |nest| {
                    nest.string(cfg_reply::INFO_TEXT, text.as_bytes());
                });
            }
        })
    }

    pub(super) fn timeout_type(self, minor: u32, number: u32) -> Vec<u8> {
        let command = cmd::GET_TIMEOUT_TYPE;
        self.message(command, 0, Some(minor), codes::NO_ERROR, |top| {
            self.nest(top, tla::TIMEOUT_PARMS, |nest| {
                nest.u32(timeout_parms::TIMEOUT_TYPE, number);
            });
        })
    }

    /// 8.4's answer to GET_STATUS.
    pub(super) fn status84(self, minor: u32, bitmap: Option<Uuid>, bits: u64) -> Vec<u8> {
        self.message(cmd::GET_STATUS, 0, Some(minor), codes::NO_ERROR, |top| {
            self.nest(top, tla::STATE_INFO, |nest| {
                nest.u32(state_info::SIB_REASON, 1);
                let mut uuids = Vec::new();
                for uuid in [None, bitmap, None, None] {
                    uuids.extend(Native::put64(uuid.map_or(0, |uuid| uuid.0)));
                }
                nest.bytes(state_info::UUIDS, &uuids)
                    .u64(state_info::BITS_OOS, bits)
                    .u64(state_info::BITS_RS_TOTAL, bits);
            });
        })
    }

    /// An object of a dump, with its settings.
    pub(super) fn dumped(self, command: u8, object: Object<'_>) -> Vec<u8> {
        let about = object.about(self.dialect, command == cmd::GET_PATHS);
        let flags = NLM_F_MULTI;
        self.message(command, flags, about.minor, codes::NO_ERROR, |top| {
            self.context(top, &about);
            self.settings(top, object);
            self.information(top, object);
        })
    }

    /// An announcement.
    pub(super) fn event(self, object: Object<'_>, nh_type: u32) -> Vec<u8> {
        let about = object.about(self.dialect, true);
        let command = match object {
            Object::Resource(_) => cmd::RESOURCE_STATE,
            Object::Device(..) => cmd::DEVICE_STATE,
            Object::Connection(..) => cmd::CONNECTION_STATE,
            Object::PeerDevice(..) => cmd::PEER_DEVICE_STATE,
            Object::Path(..) => cmd::PATH_STATE,
        };
        self.message(command, 0, about.minor, codes::NO_ERROR, |top| {
            self.context(top, &about);
            self.header(top, nh_type);
            self.information(top, object);
        })
    }

    /// The end of an object.
    pub(super) fn destroyed(self, command: u8, about: &About, nh_type: u32) -> Vec<u8> {
        self.message(command, 0, about.minor, codes::NO_ERROR, |top| {
            self.context(top, about);
            self.header(top, nh_type);
        })
    }

    pub(super) fn renamed(self, about: &About, new_name: &ResourceName) -> Vec<u8> {
        self.message(cmd::RESOURCE_STATE, 0, None, codes::NO_ERROR, |top| {
            self.context(top, about);
            self.header(top, 6);
            self.nest(top, tla::RENAME_RESOURCE_INFO, |nest| {
                nest.string(rename_resource_info::RES_NEW_NAME, new_name.as_bytes());
            });
        })
    }

    pub(super) fn helper(self, about: &About, name: &str, response: bool) -> Vec<u8> {
        self.message(cmd::HELPER, 0, about.minor, codes::NO_ERROR, |top| {
            self.context(top, about);
            self.header(top, if response { 5 } else { 4 });
            self.nest(top, tla::HELPER, |nest| {
                nest.string(helper::HELPER_NAME, name.as_bytes())
                    .u32(helper::HELPER_STATUS, 0);
            });
        })
    }

    pub(super) fn initial_state_done(self) -> Vec<u8> {
        let command = cmd::INITIAL_STATE_DONE;
        self.message(command, 0, None, codes::NO_ERROR, |top| self.header(top, 0))
    }

    fn header(self, top: &mut Out<'_>, nh_type: u32) {
        self.nest(top, tla::NOTIFICATION_HEADER, |nest| {
            nest.u32(notification_header::NH_TYPE, nh_type);
        });
    }

    fn settings(self, top: &mut Out<'_>, object: Object<'_>) {
        let dialect = self.dialect;
        match object {
            Object::Resource(r) => self.nest(top, ResourceOptions::TLA, |nest| {
                if let Some(id) = r.node_id {
                    nest.u32(res_opts::NODE_ID, id.0);
                }
                if let Some(options) = &r.options {
                    options.encode(dialect, nest);
                }
            }),
            Object::Device(_, d) => {
                if let (Some(disk), Some(meta), Some(options)) =
                    (&d.backing_dev, &d.meta_disk, &d.options)
                {
                    self.nest(top, DiskOptions::TLA, |nest| {
                        let (meta_dev, index) = meta_wire(meta, disk);
                        nest.string(disk_conf::BACKING_DEV, disk.as_os_str().as_bytes())
                            .string(disk_conf::META_DEV, meta_dev.as_os_str().as_bytes())
                            .i32(disk_conf::META_DEV_IDX, index);
                        options.encode(dialect, nest);
                    });
                }
                if let Some(options) = &d.device_options {
                    self.nest(top, DeviceOptions::TLA, |nest| {
                        options.encode(dialect, nest)
                    });
                }
            }
            Object::Connection(_, c) => {
                self.nest(top, NetOptions::TLA, |nest| {
                    if let (Dialect::V9, Some(name)) = (dialect, &c.name) {
                        nest.string(net_conf::NAME, name.as_bytes());
                    }
                    if let Some(options) = &c.options {
                        options.encode(dialect, nest);
                    }
                });
                if dialect == Dialect::V9 {
                    self.nest(top, tla::PATH_PARMS, |nest| {
                        for path in &c.paths {
                            let AddressPair { local, remote } = &path.addresses;
                            nest.bytes(path_parms::MY_ADDR, &local.to_wire(Native::BIG));
                            nest.bytes(path_parms::PEER_ADDR, &remote.to_wire(Native::BIG));
                        }
                    });
                }
            }
            Object::PeerDevice(_, _, p) => {
                if let Some(options) = &p.options {
                    self.nest(top, PeerDeviceOptions::TLA, |nest| {
                        options.encode(dialect, nest);
                    });
                }
            }
            Object::Path(..) => {}
        }
    }

    fn information(self, top: &mut Out<'_>, object: Object<'_>) {
        match object {
            Object::Resource(r) => self.resource(top, r),
            Object::Device(_, d) => self.device(top, d),
            Object::Connection(_, c) => self.connection(top, c),
            Object::PeerDevice(_, _, p) => self.peer_device(top, p),
            Object::Path(_, _, p) => self.nest(top, tla::PATH_INFO, |nest| {
                let up = p.established.unwrap_or(false);
                nest.u8(path_info::PATH_ESTABLISHED, u8::from(up));
            }),
        }
    }

    fn resource(self, top: &mut Out<'_>, r: &Resource) {
        use resource_info as nr;
        self.nest(top, tla::RESOURCE_INFO, |nest| {
            let s = &r.suspended;
            nest.u32(nr::RES_ROLE, r.role.into())
                .u8(nr::RES_SUSP, u8::from(s.user))
                .u8(nr::RES_SUSP_NOD, u8::from(s.no_data))
                .u8(nr::RES_SUSP_FEN, u8::from(s.fencing));
            if let Some(quorum) = s.quorum {
                nest.u8(nr::RES_SUSP_QUORUM, u8::from(quorum));
            }
            if let Some(fail_io) = r.fail_io {
                nest.u8(nr::RES_FAIL_IO, u8::from(fail_io));
            }
        });
        self.nest(top, tla::RESOURCE_STATISTICS, |nest| {
            let ordering = r.write_ordering.map_or(0, u32::from);
            nest.u32(resource_statistics::RES_STAT_WRITE_ORDERING, ordering);
        });
    }

    fn device(self, top: &mut Out<'_>, d: &Device) {
        use device_info as info;
        use device_statistics as nr;
        self.nest(top, tla::DEVICE_INFO, |nest| {
            let state = d.disk_state.to_wire(self.dialect).unwrap_or_default();
            nest.u32(info::DEV_DISK_STATE, state);
            for (number, flag) in [
                (info::IS_INTENTIONAL_DISKLESS, d.intentional_diskless),
                (info::DEV_HAS_QUORUM, d.quorum),
                (info::DEV_IS_OPEN, d.open),
            ] {
                if let Some(flag) = flag {
                    nest.u8(number, u8::from(flag));
                }
            }
            if self.dialect == Dialect::V9 {
                let disk = d.backing_dev.as_ref();
                let disk = disk.map_or(&b"none"[..], |path| path.as_os_str().as_bytes());
                nest.string(info::BACKING_DEV_PATH, disk);
            }
        });
        let s = &d.statistics;
        let uuid = |uuid: Option<Uuid>| uuid.map_or(0, |uuid| uuid.0);
        self.nest(top, tla::DEVICE_STATISTICS, |nest| {
            nest.u64(nr::DEV_SIZE, s.size.0)
                .u64(nr::DEV_READ, s.read.0)
                .u64(nr::DEV_WRITE, s.written.0)
                .u64(nr::DEV_AL_WRITES, s.al_writes)
                .u64(nr::DEV_BM_WRITES, s.bm_writes)
                .u32(nr::DEV_UPPER_PENDING, s.upper_pending)
                .u32(nr::DEV_LOWER_PENDING, s.lower_pending)
                .u8(nr::DEV_UPPER_BLOCKED, u8::from(s.upper_blocked))
                .u8(nr::DEV_LOWER_BLOCKED, u8::from(s.lower_blocked))
                .u8(nr::DEV_AL_SUSPENDED, u8::from(s.al_suspended))
                .u64(nr::DEV_EXPOSED_DATA_UUID, uuid(s.exposed_data_uuid))
                .u64(nr::DEV_CURRENT_UUID, uuid(s.current_uuid))
                .u32(nr::DEV_DISK_FLAGS, s.disk_flags.bits());
            let mut history = Vec::new();
            for uuid in &s.history_uuids {
                history.extend(Native::put64(uuid.0));
            }
            nest.bytes(nr::HISTORY_UUIDS, &history);
        });
    }

    fn connection(self, top: &mut Out<'_>, c: &Connection) {
        self.nest(top, tla::CONNECTION_INFO, |nest| {
            nest.u32(connection_info::CONN_CONNECTION_STATE, c.state.into())
                .u32(connection_info::CONN_ROLE, c.peer_role.into());
        });
        self.nest(top, tla::CONNECTION_STATISTICS, |nest| {
            let s = &c.statistics;
            nest.u8(connection_statistics::CONN_CONGESTED, u8::from(s.congested));
            if self.dialect == Dialect::V9 {
                let flight = |n: Option<Sectors>| n.map_or(0, |n| n.0);
                nest.u64(
                    connection_statistics::AP_IN_FLIGHT,
                    flight(s.application_in_flight),
                )
                .u64(
                    connection_statistics::RS_IN_FLIGHT,
                    flight(s.resync_in_flight),
                );
            }
        });
    }

    fn peer_device(self, top: &mut Out<'_>, p: &PeerDevice) {
        use peer_device_info as info;
        use peer_device_statistics as nr;
        self.nest(top, tla::PEER_DEVICE_INFO, |nest| {
            let disk = p.peer_disk_state.to_wire(self.dialect).unwrap_or_default();
            let suspended = &p.resync_suspended;
            nest.u32(info::PEER_REPL_STATE, p.replication.into())
                .u32(info::PEER_DISK_STATE, disk)
                .u32(info::PEER_RESYNC_SUSP_USER, u32::from(suspended.user))
                .u32(info::PEER_RESYNC_SUSP_PEER, u32::from(suspended.peer))
                .u32(
                    info::PEER_RESYNC_SUSP_DEPENDENCY,
                    u32::from(suspended.dependency),
                );
            if let Some(diskless) = p.peer_intentional_diskless {
                nest.u8(info::PEER_IS_INTENTIONAL_DISKLESS, u8::from(diskless));
            }
            if let Some(parallel) = suspended.max_parallel {
                nest.u32(info::PEER_RESYNC_SUSP_MAX_PARALLEL, u32::from(parallel));
            }
        });
        let s = &p.statistics;
        self.nest(top, tla::PEER_DEVICE_STATISTICS, |nest| {
            nest.u64(nr::PEER_DEV_RECEIVED, s.received.0)
                .u64(nr::PEER_DEV_SENT, s.sent.0)
                .u32(nr::PEER_DEV_PENDING, s.pending)
                .u32(nr::PEER_DEV_UNACKED, s.unacked)
                .u64(nr::PEER_DEV_OUT_OF_SYNC, s.out_of_sync.0)
                .u64(nr::PEER_DEV_RESYNC_FAILED, s.resync_failed.0)
                .u64(
                    nr::PEER_DEV_BITMAP_UUID,
                    s.bitmap_uuid.map_or(0, |uuid| uuid.0),
                )
                .u32(nr::PEER_DEV_FLAGS, s.flags.bits());
            // 8.4 tells of none of these.
            if self.dialect == Dialect::V84 {
                return;
            }
            let sectors = |n: Option<Sectors>| n.map(|n| n.0);
            let (recent, long) = (s.resync_recent, s.resync_recent_long);
            for (number, value) in [
                (nr::PEER_DEV_RS_TOTAL, sectors(s.resync_total)),
                (nr::PEER_DEV_OV_START_SECTOR, sectors(s.verify_start)),
                (nr::PEER_DEV_OV_STOP_SECTOR, sectors(s.verify_stop)),
                (nr::PEER_DEV_OV_POSITION, sectors(s.verify_position)),
                (nr::PEER_DEV_OV_LEFT, sectors(s.verify_left)),
                (nr::PEER_DEV_OV_SKIPPED, sectors(s.verify_skipped)),
                (nr::PEER_DEV_RS_SAME_CSUM, s.resync_same_checksum),
                (nr::PEER_DEV_RS_DT_START_MS, s.resync_elapsed_ms),
                (nr::PEER_DEV_RS_PAUSED_MS, s.resync_paused_ms),
                (nr::PEER_DEV_RS_DT0_MS, recent.map(|(ms, _)| ms)),
                (nr::PEER_DEV_RS_DB0_SECTORS, sectors(recent.map(|(_, n)| n))),
                (nr::PEER_DEV_RS_DT1_MS, long.map(|(ms, _)| ms)),
                (nr::PEER_DEV_RS_DB1_SECTORS, sectors(long.map(|(_, n)| n))),
                (nr::PEER_DEV_UUID_FLAGS, s.uuid_flags),
            ] {
                if let Some(value) = value {
                    nest.u64(number, value);
                }
            }
            if let Some(rate) = s.resync_wanted_rate {
                nest.u32(nr::PEER_DEV_RS_C_SYNC_RATE, rate);
            }
        });
    }
}

impl Object<'_> {
    /// Paths are named where they are what it is about, and for 8.4's
    /// connections, which have no other name.
    pub(super) fn about(self, dialect: Dialect, paths: bool) -> About {
        let of = |r: &Resource| About {
            resource: Some(r.name.clone()),
            ..About::default()
        };
        let over = |r: &Resource, c: &Connection| About {
            peer: c.peer_node_id,
            name: c.name.clone().filter(|_| dialect == Dialect::V9),
            ..of(r)
        };
        match self {
            Self::Resource(r) => of(r),
            Self::Device(r, d) => About {
                volume: Some(d.volume),
                minor: Some(d.minor.0),
                ..of(r)
            },
            Self::Connection(r, c) => About {
                addresses: (dialect == Dialect::V84)
                    .then(|| c.paths.first().map(|path| path.addresses.clone()))
                    .flatten(),
                ..over(r, c)
            },
            Self::PeerDevice(r, c, p) => About {
                volume: Some(p.volume),
                ..over(r, c)
            },
            Self::Path(r, c, p) => About {
                addresses: paths.then(|| p.addresses.clone()),
                ..over(r, c)
            },
        }
    }
}

/// Generic netlink's answer about the family, or its announcement.
pub(super) fn family(voice: Voice, command: u8, group: u32) -> Vec<u8> {
    let mut builder = MessageBuilder::<Native>::genl(ctrl::GENL_ID_CTRL, 0, command, 2);
    let commands: &[u8] = match voice.dialect {
        Dialect::V84 => &[2, 5, 6, 7, 30, 31, 32, 33, 38],
        Dialect::V9 => &[5, 6, 7, 30, 31, 32, 33, 38, 42, 44, 49, 50],
    };
    builder
        .attrs()
        .string(
            ctrl::CTRL_ATTR_FAMILY_NAME,
            crate::schema::FAMILY.as_bytes(),
        )
        .bytes(ctrl::CTRL_ATTR_FAMILY_ID, &Native::put16(voice.family))
        .u32(ctrl::CTRL_ATTR_VERSION, voice.dialect.version().into())
        .u32(ctrl::CTRL_ATTR_HDRSIZE, 8)
        .u32(ctrl::CTRL_ATTR_MAXATTR, 34)
        .nest(ctrl::CTRL_ATTR_OPS, |ops| {
            for (at, command) in (1..).zip(commands) {
                ops.nest(at, |op| {
                    op.u32(ctrl::CTRL_ATTR_OP_ID, u32::from(*command));
                });
            }
        })
        .nest(ctrl::CTRL_ATTR_MCAST_GROUPS, |groups| {
            groups.nest(1, |nest| {
                nest.u32(ctrl::CTRL_ATTR_MCAST_GRP_ID, group).string(
                    ctrl::CTRL_ATTR_MCAST_GRP_NAME,
                    crate::schema::GROUP_EVENTS.as_bytes(),
                );
            });
        });
    builder.finish(0, 0).unwrap_or_default()
}

/// NLMSG_DONE or NLMSG_ERROR with this code.
pub(super) fn control(kind: u16, code: i32) -> Vec<u8> {
    let mut bytes = Vec::from(Native::put32(20));
    bytes.extend(Native::put16(kind));
    bytes.extend(Native::put16(NLM_F_MULTI));
    bytes.extend([0; 8]);
    bytes.extend(Native::put32(u32::from_ne_bytes(code.to_ne_bytes())));
    bytes
}

/// Whether the peer has been reached.
pub(super) fn up(connection: &Connection) -> bool {
    connection.state == ConnectionState::Connected
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::codec::{Decoded, Reply, decode};
    use crate::events::{Action, Event, EventKind, HelperEvent, LegacyEvent};
    use crate::model::{
        ConnectionStatistics, DeviceStatistics, DiskFlags, DiskState, MetaDisk, Minor,
        PeerDeviceFlags, PeerDeviceStatistics, ReplicationState, ResyncSuspended, Role, State,
        Suspended, TimeoutType, WriteOrdering,
    };

    const FAMILY: u16 = 28;
    const FLAGS: usize = 20;

    /// A resource in which every number is another one, and one flag is set.
    fn full(dialect: Dialect, set: usize, meta_disk: MetaDisk) -> Resource {
        let nine = dialect == Dialect::V9;
        let (mut numbers, mut flags) = (100u32.., 0..FLAGS);
        let mut short = || numbers.next().unwrap();
        let mut flag = || flags.next().unwrap() == set;
        let mut resource = Resource::new(ResourceName::from_kernel(b"r\xff"));
        resource.role = Role::Primary;
        resource.suspended = Suspended {
            user: flag(),
            no_data: flag(),
            fencing: flag(),
            quorum: nine.then_some(flag()),
        };
        resource.fail_io = nine.then_some(flag());
        resource.write_ordering = Some(WriteOrdering::from(2));
        resource.node_id = nine.then_some(NodeId(short()));
        resource.options = Some(ResourceOptions::defaults(dialect));

        let mut device = Device::new(Minor(short()), VolumeNumber(short()));
        device.disk_state = DiskState::Consistent;
        device.intentional_diskless = nine.then_some(flag());
        device.quorum = nine.then_some(flag());
        device.open = nine.then_some(flag());
        device.backing_dev = Some("/dev/sdb".into());
        device.meta_disk = Some(meta_disk);
        device.options = Some(DiskOptions::defaults(dialect));
        device.device_options = nine.then(|| DeviceOptions::defaults(dialect));
        device.statistics = DeviceStatistics {
            size: Sectors(short().into()),
            read: Sectors(short().into()),
            written: Sectors(short().into()),
            al_writes: short().into(),
            bm_writes: short().into(),
            upper_pending: short(),
            lower_pending: short(),
            upper_blocked: flag(),
            lower_blocked: flag(),
            al_suspended: flag(),
            exposed_data_uuid: Some(Uuid(short().into())),
            current_uuid: Some(Uuid(short().into())),
            disk_flags: DiskFlags::from_bits_retain(short()),
            history_uuids: vec![Uuid(short().into()), Uuid(short().into())],
        };
        resource.devices = vec![device];

        let mut connection = Connection::new(nine.then_some(NodeId(short())));
        connection.name = nine.then(|| "n1".into());
        connection.state = ConnectionState::Connected;
        connection.peer_role = Role::Secondary;
        let addresses = AddressPair {
            local: "10.0.0.1:7788".parse().unwrap(),
            remote: "[fd77::1]:7788".parse().unwrap(),
        };
        connection.paths = vec![Path::new(addresses, nine.then_some(flag()))];
        connection.options = Some(NetOptions::defaults(dialect));
        let flight = |n: u32| nine.then_some(Sectors(n.into()));
        connection.statistics = ConnectionStatistics {
            congested: flag(),
            application_in_flight: flight(short()),
            resync_in_flight: flight(short()),
        };

        let mut peer = PeerDevice::new(resource.devices[0].volume);
        peer.replication = ReplicationState::SyncTarget;
        peer.peer_disk_state = DiskState::Outdated;
        peer.resync_suspended = ResyncSuspended {
            user: flag(),
            peer: flag(),
            dependency: flag(),
            max_parallel: nine.then_some(flag()),
        };
        peer.peer_intentional_diskless = nine.then_some(flag());
        peer.options = nine.then(|| PeerDeviceOptions::defaults(dialect));
        let mut long = || u64::from(short());
        let (received, sent) = (Sectors(long()), Sectors(long()));
        peer.statistics = PeerDeviceStatistics {
            received,
            sent,
            out_of_sync: Sectors(long()),
            resync_failed: Sectors(long()),
            bitmap_uuid: Some(Uuid(long())),
            resync_total: nine.then_some(Sectors(long())),
            verify_start: nine.then_some(Sectors(long())),
            verify_stop: nine.then_some(Sectors(long())),
            verify_position: nine.then_some(Sectors(long())),
            verify_left: nine.then_some(Sectors(long())),
            verify_skipped: nine.then_some(Sectors(long())),
            resync_same_checksum: nine.then_some(long()),
            resync_elapsed_ms: nine.then_some(long()),
            resync_paused_ms: nine.then_some(long()),
            resync_recent: nine.then_some((long(), Sectors(long()))),
            resync_recent_long: nine.then_some((long(), Sectors(long()))),
            uuid_flags: nine.then_some(long()),
            pending: short(),
            unacked: short(),
            flags: PeerDeviceFlags::from_bits_retain(short()),
            resync_wanted_rate: nine.then_some(short()),
        };
        connection.peer_devices = vec![peer];
        resource.connections = vec![connection];
        resource
    }

    fn objects(r: &Resource) -> [Object<'_>; 5] {
        let c = &r.connections[0];
        [
            Object::Resource(r),
            Object::Device(r, &r.devices[0]),
            Object::Connection(r, c),
            Object::PeerDevice(r, c, &c.peer_devices[0]),
            Object::Path(r, c, &c.paths[0]),
        ]
    }

    fn voice(dialect: Dialect, strange: bool) -> Voice {
        let family = FAMILY;
        Voice {
            dialect,
            family,
            strange,
        }
    }

    fn event(dialect: Dialect, bytes: &[u8]) -> Event {
        match &mut decode::<Native>(dialect, FAMILY, bytes).unwrap()[..] {
            [Decoded::Event(event)] => event.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn reply(dialect: Dialect, bytes: &[u8]) -> Reply {
        match &mut decode::<Native>(dialect, FAMILY, bytes).unwrap()[..] {
            [Decoded::Reply(reply)] => *reply.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Without what only a dump tells.
    fn announced(dialect: Dialect, mut r: Resource) -> Resource {
        (r.options, r.node_id) = (None, None);
        for d in &mut r.devices {
            (d.meta_disk, d.options, d.device_options) = (None, None, None);
            d.backing_dev = d.backing_dev.take().filter(|_| dialect == Dialect::V9);
        }
        for c in &mut r.connections {
            c.options = None;
            c.peer_devices.iter_mut().for_each(|p| p.options = None);
        }
        r
    }

    #[test]
    fn what_is_announced_is_read() {
        for (dialect, set) in [Dialect::V84, Dialect::V9]
            .into_iter()
            .flat_map(|dialect| (0..=FLAGS).map(move |set| (dialect, set)))
        {
            let resource = full(dialect, set, MetaDisk::Internal);
            let mut state = State::empty();
            for object in objects(&resource) {
                if dialect == Dialect::V84 && matches!(object, Object::Path(..)) {
                    continue;
                }
                let bytes = voice(dialect, set % 2 == 0).event(object, 0x8002);
                let event = event(dialect, &bytes);
                assert_eq!((event.action, event.continues), (Action::Change, true));
                assert_eq!(state.apply(event).len(), 1);
            }
            assert_eq!(state.resources, [announced(dialect, resource)]);
        }
    }

    #[test]
    fn what_is_dumped_is_read() {
        for (dialect, meta_disk) in [Dialect::V84, Dialect::V9].into_iter().flat_map(|dialect| {
            [
                MetaDisk::Internal,
                MetaDisk::Flexible("/dev/sdc".into()),
                MetaDisk::Indexed("/dev/sdc".into(), 3),
                MetaDisk::Other("/dev/sdc".into(), -1),
            ]
            .map(|meta_disk| (dialect, meta_disk))
        }) {
            let r = full(dialect, FLAGS, meta_disk);
            let commands = [
                cmd::GET_RESOURCES,
                cmd::GET_DEVICES,
                cmd::GET_CONNECTIONS,
                cmd::GET_PEER_DEVICES,
                cmd::GET_PATHS,
            ];
            for (object, command) in objects(&r).into_iter().zip(commands) {
                let bytes = voice(dialect, false).dumped(command, object);
                let reply = reply(dialect, &bytes);
                assert_eq!((reply.command, reply.ret_code), (command, codes::NO_ERROR));
                assert_eq!(reply.resource_name.as_ref(), Some(&r.name));
                match object {
                    Object::Resource(r) => {
                        assert_eq!(reply.resource_options, r.options);
                        assert_eq!(reply.node_id, r.node_id);
                        let ordering = reply.resource_statistics.unwrap().write_ordering;
                        assert_eq!(ordering, r.write_ordering);
                    }
                    Object::Device(_, d) => {
                        let parts = (&d.backing_dev, &d.meta_disk, &d.options);
                        let disk = reply.disk.unwrap();
                        assert_eq!(parts, (&Some(disk.0), &Some(disk.1), &Some(disk.2)));
                        assert_eq!(reply.device_options, d.device_options);
                        assert_eq!(reply.device_statistics.as_ref(), Some(&d.statistics));
                        assert_eq!((reply.minor, reply.volume), (Some(d.minor), Some(d.volume)));
                    }
                    Object::Connection(_, c) => {
                        assert_eq!(reply.net_options, c.options);
                        assert_eq!(reply.connection_name, c.name);
                        assert_eq!(reply.peer_node_id, c.peer_node_id);
                        assert_eq!(reply.connection_statistics.as_ref(), Some(&c.statistics));
                        let paths = match dialect {
                            Dialect::V84 => reply.addresses.into_iter().collect(),
                            Dialect::V9 => reply.paths.into_iter().map(|p| p.addresses).collect(),
                        };
                        let pairs: Vec<_> = c.paths.iter().map(|p| p.addresses.clone()).collect();
                        assert_eq!(pairs, Vec::from_iter::<Vec<_>>(paths));
                    }
                    Object::PeerDevice(_, _, p) => {
                        assert_eq!(reply.peer_device_options, p.options);
                        assert_eq!(reply.peer_device_statistics.as_ref(), Some(&p.statistics));
                    }
                    Object::Path(..) => assert_eq!(reply.path_established, Some(false)),
                }
            }
        }
    }

    #[test]
    fn answers_are_read() {
        for number in 0..3 {
            let bytes = voice(Dialect::V9, true).timeout_type(5, number);
            let reply = reply(Dialect::V9, &bytes);
            assert_eq!(reply.timeout_type, Some(TimeoutType::from(number)));
            assert_eq!((reply.minor, reply.status84), (Some(Minor(5)), None));
        }
        let texts = ["one".into(), "two".into()];
        let bytes = voice(Dialect::V9, true).answer(cmd::ATTACH, NO_MINOR, -2, &texts);
        let answer = reply(Dialect::V9, &bytes);
        assert_eq!((answer.ret_code, answer.minor), (-2, None));
        assert_eq!((&answer.info[..], answer.timeout_type), (&texts[..], None));

        let bytes = voice(Dialect::V84, true).status84(5, Some(Uuid(77)), 3);
        let status = *reply(Dialect::V84, &bytes).status84.unwrap();
        // A bit is 4 KiB.
        let sectors = Some(Sectors(24));
        let expected = LegacyEvent {
            minor: Some(Minor(5)),
            reason: 1,
            uuids: vec![0, 77, 0, 0],
            out_of_sync: sectors,
            resync_total: sectors,
            ..LegacyEvent::default()
        };
        assert_eq!(status, expected);
        // Which other commands have no use for, nor the other family.
        assert_eq!(reply(Dialect::V9, &bytes).status84, None);
    }

    #[test]
    fn what_has_no_object_is_read() {
        let about = About {
            resource: Some(ResourceName::from_kernel(b"r0")),
            volume: Some(VolumeNumber(3)),
            minor: Some(5),
            peer: Some(NodeId(7)),
            ..About::default()
        };
        for response in [false, true] {
            let bytes = voice(Dialect::V9, true).helper(&about, "fence-peer", response);
            let expected = HelperEvent {
                resource: about.resource.clone(),
                minor: Some(Minor(5)),
                volume: about.volume,
                peer_node_id: about.peer,
                name: "fence-peer".into(),
                status: response.then_some(0),
            };
            assert_eq!(event(Dialect::V9, &bytes).kind, EventKind::Helper(expected));
        }
        let name = ResourceName::from_kernel(b"r9");
        let renamed = event(
            Dialect::V9,
            &voice(Dialect::V9, true).renamed(&about, &name),
        );
        let EventKind::Resource { new_name, .. } = renamed.kind else {
            panic!("{renamed:?}");
        };
        assert_eq!((renamed.action, new_name), (Action::Rename, Some(name)));
        // The older kind of event, of 8.4 alone.
        let numbers = state_info::SIB_REASON..=state_info::RS_PENDING_CNT;
        let bytes = voice(Dialect::V84, false).message(cmd::EVENT, 0, Some(5), 0, |top| {
            top.nest(tla::CFG_CONTEXT, |nest| {
                nest.string(ctx::CTX_RESOURCE_NAME, b"r0");
            });
            top.nest(tla::STATE_INFO, |nest| {
                for number in numbers {
                    let value = 100 + u64::from(number);
                    // As `struct state_info` has them.
                    match number {
                        state_info::HELPER => nest.string(number, b"fence-peer"),
                        state_info::UUIDS => nest.bytes(number, &Native::put64(value)),
                        3 | 4 | 9..=12 | 15..=20 => nest.u64(number, value),
                        _ => nest.u32(number, 100 + u32::from(number)),
                    };
                }
            });
        });
        let bits = |number: u64| Some(Sectors((100 + number) * 8));
        let expected = LegacyEvent {
            resource: about.resource,
            minor: Some(Minor(5)),
            reason: 101,
            state: Some(102),
            capacity: Some(Sectors(103)),
            exposed_data_uuid: Some(Uuid(104)),
            previous_state: Some(105),
            new_state: Some(106),
            uuids: vec![107],
            disk_flags: Some(DiskFlags::from_bits_retain(108)),
            total: bits(9),
            out_of_sync: bits(10),
            resync_total: bits(11),
            resync_failed: bits(12),
            helper: Some("fence-peer".into()),
            helper_status: Some(114),
            counters: std::array::from_fn(|at| Some(115 + u64::try_from(at).unwrap())),
        };
        let legacy = event(Dialect::V84, &bytes).kind;
        assert_eq!(legacy, EventKind::Legacy(Box::new(expected)));
        let command = cmd::EVENT;
        assert_eq!(
            event(Dialect::V9, &bytes).kind,
            EventKind::Unknown { command }
        );
    }
}
