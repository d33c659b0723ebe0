//! DRBD's numbers, under their C names: commands, top level attributes,
//! attributes of each nest, return codes.
//!
//! Source: `include/uapi/linux/drbd_genl.h`, `include/linux/drbd.h` (8.4)
//! and LINBIT's drbd-headers (9). Where the two families give one number two
//! meanings, the [`Dialect`](crate::Dialect) decides.

#![allow(
    missing_docs,
    reason = "the names are DRBD's own; the header they come from explains them"
)]

pub mod codes;

/// Name of the generic netlink family of DRBD 8.4 and 9.
pub const FAMILY: &str = "drbd";
/// Multicast group of state changes.
pub const GROUP_EVENTS: &str = "events";
/// "Not addressed by minor".
pub const NO_MINOR: u32 = u32::MAX;
/// `DRBD_GENLA_F_MANDATORY`: refuse the request if you do not know this attribute.
pub const MANDATORY: u16 = 0x4000;
/// `DRBD_GENL_F_SET_DEFAULTS`: start from defaults, not from what is set.
pub const SET_DEFAULTS: u32 = 1;
/// `NOTIFY_CONTINUES`: more messages of the same change follow.
pub const NOTIFY_CONTINUES: u32 = 0x8000;

/// Generic netlink's own family.
pub mod ctrl {
    pub const GENL_ID_CTRL: u16 = 16;
    pub const CTRL_CMD_NEWFAMILY: u8 = 1;
    pub const CTRL_CMD_DELFAMILY: u8 = 2;
    pub const CTRL_CMD_GETFAMILY: u8 = 3;
    pub const CTRL_ATTR_FAMILY_ID: u16 = 1;
    pub const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    pub const CTRL_ATTR_VERSION: u16 = 3;
    pub const CTRL_ATTR_HDRSIZE: u16 = 4;
    pub const CTRL_ATTR_MAXATTR: u16 = 5;
    pub const CTRL_ATTR_OPS: u16 = 6;
    pub const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
    pub const CTRL_ATTR_OP_ID: u16 = 1;
    pub const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
    pub const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
}

/// Commands (`genlmsghdr.cmd`).
pub mod cmd {
    pub const EVENT: u8 = 1;
    pub const GET_STATUS: u8 = 2;
    pub const NEW_MINOR: u8 = 5;
    pub const DEL_MINOR: u8 = 6;
    pub const NEW_RESOURCE: u8 = 7;
    pub const DEL_RESOURCE: u8 = 8;
    pub const RESOURCE_OPTS: u8 = 9;
    pub const CONNECT: u8 = 10;
    pub const DISCONNECT: u8 = 11;
    pub const ATTACH: u8 = 12;
    pub const RESIZE: u8 = 13;
    pub const PRIMARY: u8 = 14;
    pub const SECONDARY: u8 = 15;
    pub const NEW_C_UUID: u8 = 16;
    pub const START_OV: u8 = 17;
    pub const DETACH: u8 = 18;
    pub const INVALIDATE: u8 = 19;
    pub const INVAL_PEER: u8 = 20;
    pub const PAUSE_SYNC: u8 = 21;
    pub const RESUME_SYNC: u8 = 22;
    pub const SUSPEND_IO: u8 = 23;
    pub const RESUME_IO: u8 = 24;
    pub const OUTDATE: u8 = 25;
    pub const GET_TIMEOUT_TYPE: u8 = 26;
    pub const DOWN: u8 = 27;
    pub const CHG_DISK_OPTS: u8 = 28;
    pub const CHG_NET_OPTS: u8 = 29;
    pub const GET_RESOURCES: u8 = 30;
    pub const GET_DEVICES: u8 = 31;
    pub const GET_CONNECTIONS: u8 = 32;
    pub const GET_PEER_DEVICES: u8 = 33;
    pub const RESOURCE_STATE: u8 = 34;
    pub const DEVICE_STATE: u8 = 35;
    pub const CONNECTION_STATE: u8 = 36;
    pub const PEER_DEVICE_STATE: u8 = 37;
    pub const GET_INITIAL_STATE: u8 = 38;
    pub const HELPER: u8 = 40;
    pub const INITIAL_STATE_DONE: u8 = 41;
    pub const FORGET_PEER: u8 = 42;
    pub const CHG_PEER_DEVICE_OPTS: u8 = 43;
    pub const NEW_PEER: u8 = 44;
    pub const NEW_PATH: u8 = 45;
    pub const DEL_PEER: u8 = 46;
    pub const DEL_PATH: u8 = 47;
    pub const PATH_STATE: u8 = 48;
    pub const RENAME_RESOURCE: u8 = 49;
    pub const GET_PATHS: u8 = 50;
}

/// Top level attributes: each is a nest.
pub mod tla {
    pub const CFG_REPLY: u16 = 1;
    pub const CFG_CONTEXT: u16 = 2;
    pub const DISK_CONF: u16 = 3;
    pub const RESOURCE_OPTS: u16 = 4;
    pub const NET_CONF: u16 = 5;
    pub const SET_ROLE_PARMS: u16 = 6;
    pub const RESIZE_PARMS: u16 = 7;
    pub const STATE_INFO: u16 = 8;
    pub const START_OV_PARMS: u16 = 9;
    pub const NEW_C_UUID_PARMS: u16 = 10;
    pub const TIMEOUT_PARMS: u16 = 11;
    pub const DISCONNECT_PARMS: u16 = 12;
    pub const DETACH_PARMS: u16 = 13;
    pub const DEVICE_CONF: u16 = 14;
    pub const RESOURCE_INFO: u16 = 15;
    pub const DEVICE_INFO: u16 = 16;
    pub const CONNECTION_INFO: u16 = 17;
    pub const PEER_DEVICE_INFO: u16 = 18;
    pub const RESOURCE_STATISTICS: u16 = 19;
    pub const DEVICE_STATISTICS: u16 = 20;
    pub const CONNECTION_STATISTICS: u16 = 21;
    pub const PEER_DEVICE_STATISTICS: u16 = 22;
    pub const NOTIFICATION_HEADER: u16 = 23;
    pub const HELPER: u16 = 24;
    pub const INVALIDATE_PARMS: u16 = 25;
    pub const FORGET_PEER_PARMS: u16 = 26;
    pub const PEER_DEVICE_OPTS: u16 = 27;
    pub const PATH_PARMS: u16 = 28;
    pub const CONNECT_PARMS: u16 = 29;
    pub const PATH_INFO: u16 = 30;
    pub const RENAME_RESOURCE_PARMS: u16 = 31;
    pub const RENAME_RESOURCE_INFO: u16 = 32;
    pub const INVAL_PEER_PARAMS: u16 = 33;
    pub const SUSPEND_IO_PARAMS: u16 = 34;
}

/// `drbd_cfg_reply`.
pub mod cfg_reply {
    pub const INFO_TEXT: u16 = 1;
}

/// `drbd_cfg_context`.
pub mod cfg_context {
    pub const CTX_VOLUME: u16 = 1;
    pub const CTX_RESOURCE_NAME: u16 = 2;
    pub const CTX_MY_ADDR: u16 = 3;
    pub const CTX_PEER_ADDR: u16 = 4;
    pub const CTX_CONN_NAME: u16 = 5;
    pub const CTX_PEER_NODE_ID: u16 = 6;
}

/// `disk_conf`: what is not an option.
pub mod disk_conf {
    pub const BACKING_DEV: u16 = 1;
    pub const META_DEV: u16 = 2;
    pub const META_DEV_IDX: u16 = 3;
}

/// `net_conf`: what is not an option.
pub mod net_conf {
    /// 8.4.
    pub const DISCARD_MY_DATA: u16 = 25;
    /// 8.4.
    pub const TENTATIVE: u16 = 28;
    /// 9: name of the connection.
    pub const NAME: u16 = 31;
}

/// `res_opts`: what is not an option.
pub mod res_opts {
    pub const NODE_ID: u16 = 4;
    pub const DRBD8_COMPAT_MODE: u16 = 15;
}

/// `set_role_parms`.
pub mod set_role_parms {
    /// `assume_uptodate` in 8.4, `force` in 9.
    pub const FORCE: u16 = 1;
}

/// `path_parms`.
pub mod path_parms {
    pub const MY_ADDR: u16 = 1;
    pub const PEER_ADDR: u16 = 2;
}

/// `connect_parms` (9).
pub mod connect_parms {
    pub const TENTATIVE: u16 = 1;
    pub const DISCARD_MY_DATA: u16 = 2;
}

/// `disconnect_parms`.
pub mod disconnect_parms {
    pub const FORCE_DISCONNECT: u16 = 1;
}

/// `detach_parms`.
pub mod detach_parms {
    pub const FORCE_DETACH: u16 = 1;
    /// 9.
    pub const INTENTIONAL_DISKLESS_DETACH: u16 = 2;
}

/// `timeout_parms`.
pub mod timeout_parms {
    pub const TIMEOUT_TYPE: u16 = 1;
}

/// `forget_peer_parms` (9).
pub mod forget_peer_parms {
    pub const FORGET_PEER_NODE_ID: u16 = 1;
}

/// `rename_resource_parms` (9).
pub mod rename_resource_parms {
    pub const NEW_RESOURCE_NAME: u16 = 1;
}

/// `resource_info`.
pub mod resource_info {
    pub const RES_ROLE: u16 = 1;
    pub const RES_SUSP: u16 = 2;
    pub const RES_SUSP_NOD: u16 = 3;
    pub const RES_SUSP_FEN: u16 = 4;
    pub const RES_SUSP_QUORUM: u16 = 5;
    pub const RES_FAIL_IO: u16 = 6;
}

/// `device_info`.
pub mod device_info {
    pub const DEV_DISK_STATE: u16 = 1;
    pub const IS_INTENTIONAL_DISKLESS: u16 = 2;
    pub const DEV_HAS_QUORUM: u16 = 3;
    pub const BACKING_DEV_PATH: u16 = 4;
    pub const DEV_IS_OPEN: u16 = 5;
}

/// `connection_info`.
pub mod connection_info {
    pub const CONN_CONNECTION_STATE: u16 = 1;
    pub const CONN_ROLE: u16 = 2;
}

/// `peer_device_info`.
pub mod peer_device_info {
    pub const PEER_REPL_STATE: u16 = 1;
    pub const PEER_DISK_STATE: u16 = 2;
    pub const PEER_RESYNC_SUSP_USER: u16 = 3;
    pub const PEER_RESYNC_SUSP_PEER: u16 = 4;
    pub const PEER_RESYNC_SUSP_DEPENDENCY: u16 = 5;
    pub const PEER_IS_INTENTIONAL_DISKLESS: u16 = 6;
    pub const PEER_RESYNC_SUSP_MAX_PARALLEL: u16 = 7;
}

/// `resource_statistics`.
pub mod resource_statistics {
    pub const RES_STAT_WRITE_ORDERING: u16 = 1;
}

/// `device_statistics`.
pub mod device_statistics {
    pub const DEV_SIZE: u16 = 1;
    pub const DEV_READ: u16 = 2;
    pub const DEV_WRITE: u16 = 3;
    pub const DEV_AL_WRITES: u16 = 4;
    pub const DEV_BM_WRITES: u16 = 5;
    pub const DEV_UPPER_PENDING: u16 = 6;
    pub const DEV_LOWER_PENDING: u16 = 7;
    pub const DEV_UPPER_BLOCKED: u16 = 8;
    pub const DEV_LOWER_BLOCKED: u16 = 9;
    pub const DEV_AL_SUSPENDED: u16 = 10;
    pub const DEV_EXPOSED_DATA_UUID: u16 = 11;
    pub const DEV_CURRENT_UUID: u16 = 12;
    pub const DEV_DISK_FLAGS: u16 = 13;
    pub const HISTORY_UUIDS: u16 = 14;
}

/// `connection_statistics`.
pub mod connection_statistics {
    pub const CONN_CONGESTED: u16 = 1;
    pub const AP_IN_FLIGHT: u16 = 2;
    pub const RS_IN_FLIGHT: u16 = 3;
}

/// `peer_device_statistics`.
pub mod peer_device_statistics {
    pub const PEER_DEV_RECEIVED: u16 = 1;
    pub const PEER_DEV_SENT: u16 = 2;
    pub const PEER_DEV_PENDING: u16 = 3;
    pub const PEER_DEV_UNACKED: u16 = 4;
    pub const PEER_DEV_OUT_OF_SYNC: u16 = 5;
    pub const PEER_DEV_RESYNC_FAILED: u16 = 6;
    pub const PEER_DEV_BITMAP_UUID: u16 = 7;
    pub const PEER_DEV_FLAGS: u16 = 9;
    pub const PEER_DEV_RS_TOTAL: u16 = 10;
    pub const PEER_DEV_OV_START_SECTOR: u16 = 11;
    pub const PEER_DEV_OV_STOP_SECTOR: u16 = 12;
    pub const PEER_DEV_OV_POSITION: u16 = 13;
    pub const PEER_DEV_OV_LEFT: u16 = 14;
    pub const PEER_DEV_OV_SKIPPED: u16 = 15;
    pub const PEER_DEV_RS_SAME_CSUM: u16 = 16;
    pub const PEER_DEV_RS_DT_START_MS: u16 = 17;
    pub const PEER_DEV_RS_PAUSED_MS: u16 = 18;
    pub const PEER_DEV_RS_DT0_MS: u16 = 19;
    pub const PEER_DEV_RS_DB0_SECTORS: u16 = 20;
    pub const PEER_DEV_RS_DT1_MS: u16 = 21;
    pub const PEER_DEV_RS_DB1_SECTORS: u16 = 22;
    pub const PEER_DEV_RS_C_SYNC_RATE: u16 = 23;
    pub const PEER_DEV_UUID_FLAGS: u16 = 24;
}

/// `drbd_notification_header`.
pub mod notification_header {
    pub const NH_TYPE: u16 = 1;
}

/// `drbd_helper_info`.
pub mod helper {
    pub const HELPER_NAME: u16 = 1;
    pub const HELPER_STATUS: u16 = 2;
}

/// `drbd_path_info`.
pub mod path_info {
    pub const PATH_ESTABLISHED: u16 = 1;
}

/// `rename_resource_info`.
pub mod rename_resource_info {
    pub const RES_NEW_NAME: u16 = 1;
}

/// `state_info` of 8.4.
pub mod state_info {
    pub const SIB_REASON: u16 = 1;
    pub const CURRENT_STATE: u16 = 2;
    pub const CAPACITY: u16 = 3;
    pub const ED_UUID: u16 = 4;
    pub const PREV_STATE: u16 = 5;
    pub const NEW_STATE: u16 = 6;
    pub const UUIDS: u16 = 7;
    pub const DISK_FLAGS: u16 = 8;
    pub const BITS_TOTAL: u16 = 9;
    pub const BITS_OOS: u16 = 10;
    pub const BITS_RS_TOTAL: u16 = 11;
    pub const BITS_RS_FAILED: u16 = 12;
    pub const HELPER: u16 = 13;
    pub const HELPER_EXIT_CODE: u16 = 14;
    pub const SEND_CNT: u16 = 15;
    pub const BM_WRIT_CNT: u16 = 20;
    pub const RS_PENDING_CNT: u16 = 23;
}
