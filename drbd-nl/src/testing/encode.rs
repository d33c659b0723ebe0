//! The model as the messages a kernel sends: what `dialect::decode` reads.

use crate::dialect::Dialect;
use crate::dialect::decode::meta_wire;
use crate::model::{
    AddressPair, Connection, ConnectionState, Device, DeviceOptions, DiskOptions, NetOptions,
    NodeId, Path, PeerDevice, PeerDeviceOptions, Resource, ResourceName, ResourceOptions, Text,
    Uuid, VolumeNumber,
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
                let flight = |n: Option<crate::model::Sectors>| n.map_or(0, |n| n.0);
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
            if let Some(total) = s.resync_total.filter(|_| self.dialect == Dialect::V9) {
                nest.u64(nr::PEER_DEV_RS_TOTAL, total.0);
            }
            if let Some(left) = s.verify_left {
                nest.u64(nr::PEER_DEV_OV_LEFT, left.0);
            }
            if let Some(flags) = s.uuid_flags {
                nest.u64(nr::PEER_DEV_UUID_FLAGS, flags);
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
