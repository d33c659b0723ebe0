//! Return codes: `enum drbd_ret_code` (above 100) and `enum drbd_state_rv`
//! (4 and below) share one signed number.

use crate::dialect::Dialect;

pub const NO_ERROR: i32 = 101;
pub const ERR_LOCAL_ADDR: i32 = 102;
pub const ERR_PEER_ADDR: i32 = 103;
pub const ERR_OPEN_DISK: i32 = 104;
pub const ERR_DISCARD_IMPOSSIBLE: i32 = 123;
pub const ERR_MANDATORY_TAG: i32 = 126;
pub const ERR_DISK_CONFIGURED: i32 = 124;
pub const ERR_NET_CONFIGURED: i32 = 125;
pub const ERR_MINOR_INVALID: i32 = 127;
pub const ERR_INTR: i32 = 129;
pub const ERR_PAUSE_IS_SET: i32 = 134;
pub const ERR_PAUSE_IS_CLEAR: i32 = 135;
pub const ERR_NO_DISK: i32 = 138;
pub const ERR_CONNECTED: i32 = 151;
pub const ERR_PERM: i32 = 152;
pub const ERR_RES_NOT_KNOWN: i32 = 158;
pub const ERR_RES_IN_USE: i32 = 159;
pub const ERR_MINOR_CONFIGURED: i32 = 160;
pub const ERR_MINOR_OR_VOLUME_EXISTS: i32 = 161;
pub const ERR_INVALID_REQUEST: i32 = 162;
pub const ERR_MD_UNCLEAN: i32 = 165;
pub const ERR_LOCAL_AND_PEER_ADDR: i32 = 173;
pub const ERR_ALREADY_EXISTS: i32 = 174;
pub const SS_CW_NO_NEED: i32 = 4;
pub const SS_SUCCESS: i32 = 1;
pub const SS_NOTHING_TO_DO: i32 = 2;
pub const SS_TWO_PRIMARIES: i32 = -1;
pub const SS_NO_UP_TO_DATE_DISK: i32 = -2;
pub const SS_CONNECTED_OUTDATES: i32 = -6;
pub const SS_RESYNC_RUNNING: i32 = -8;
pub const SS_NEED_CONNECTION: i32 = -15;
pub const SS_ALREADY_STANDALONE: i32 = -9;
pub const SS_DEVICE_IN_USE: i32 = -12;
pub const SS_IN_TRANSIENT_STATE: i32 = -18;
/// 9 only; the same number is `SS_OUTDATE_WO_CONN` in 8.4.
pub const SS_INTERRUPTED: i32 = -21;

const NAMES: &[(i32, &str, &str)] = &[
    (4, "SS_CW_NO_NEED", "nothing to do cluster wide"),
    (3, "SS_CW_SUCCESS", "done cluster wide"),
    (2, "SS_NOTHING_TO_DO", "nothing to do"),
    (1, "SS_SUCCESS", "done"),
    (0, "SS_UNKNOWN_ERROR", "unknown error"),
    (
        -1,
        "SS_TWO_PRIMARIES",
        "the peer is Primary and two primaries are not allowed",
    ),
    (-2, "SS_NO_UP_TO_DATE_DISK", "no access to UpToDate data"),
    (-4, "SS_NO_LOCAL_DISK", "no local disk"),
    (-5, "SS_NO_REMOTE_DISK", "no remote disk"),
    (
        -6,
        "SS_CONNECTED_OUTDATES",
        "refusing to be Outdated while Connected",
    ),
    (
        -7,
        "SS_PRIMARY_NOP",
        "refusing to be Primary while the peer is not outdated",
    ),
    (
        -8,
        "SS_RESYNC_RUNNING",
        "a resync or verify is already active",
    ),
    (-9, "SS_ALREADY_STANDALONE", "already StandAlone"),
    (-10, "SS_CW_FAILED_BY_PEER", "the peer refused"),
    (-11, "SS_IS_DISKLESS", "the device is diskless"),
    (
        -12,
        "SS_DEVICE_IN_USE",
        "the device is held open by someone",
    ),
    (-13, "SS_NO_NET_CONFIG", "no network configuration"),
    (-14, "SS_NO_VERIFY_ALG", "a verify-alg is needed"),
    (
        -15,
        "SS_NEED_CONNECTION",
        "a connection to the peer is needed",
    ),
    (
        -16,
        "SS_LOWER_THAN_OUTDATED",
        "the disk state is lower than Outdated",
    ),
    (-17, "SS_NOT_SUPPORTED", "the peer does not support this"),
    (
        -18,
        "SS_IN_TRANSIENT_STATE",
        "in a transient state, try again",
    ),
    (
        -19,
        "SS_CONCURRENT_ST_CHG",
        "a concurrent state change happened",
    ),
    (
        -20,
        "SS_O_VOL_PEER_PRI",
        "the peer is Primary on another volume",
    ),
    (
        -22,
        "SS_PRIMARY_READER",
        "the peer may not become Primary while the device is open",
    ),
    (-23, "SS_TIMEOUT", "timed out"),
    (
        -24,
        "SS_WEAKLY_CONNECTED",
        "this node lacks connections others have",
    ),
    (-25, "SS_NO_QUORUM", "no quorum"),
    (
        -26,
        "SS_ATTACH_NO_BITMAP",
        "the disk has no bitmap for a peer",
    ),
    (
        -27,
        "SS_HANDSHAKE_DISCONNECT",
        "disconnect decided in the handshake",
    ),
    (-28, "SS_HANDSHAKE_RETRY", "retry decided in the handshake"),
    (101, "NO_ERROR", "done"),
    (102, "ERR_LOCAL_ADDR", "the local address is already in use"),
    (103, "ERR_PEER_ADDR", "the remote address is already in use"),
    (104, "ERR_OPEN_DISK", "cannot open the data device"),
    (105, "ERR_OPEN_MD_DISK", "cannot open the metadata device"),
    (
        107,
        "ERR_DISK_NOT_BDEV",
        "the data device is not a block device",
    ),
    (
        108,
        "ERR_MD_NOT_BDEV",
        "the metadata device is not a block device",
    ),
    (111, "ERR_DISK_TOO_SMALL", "the data device is too small"),
    (
        112,
        "ERR_MD_DISK_TOO_SMALL",
        "the metadata device is too small",
    ),
    (
        114,
        "ERR_BDCLAIM_DISK",
        "the data device is in use (mounted or claimed)",
    ),
    (
        115,
        "ERR_BDCLAIM_MD_DISK",
        "the metadata device is in use (mounted or claimed)",
    ),
    (
        116,
        "ERR_MD_IDX_INVALID",
        "invalid combination of device, metadata and index",
    ),
    (118, "ERR_IO_MD_DISK", "I/O error on the metadata"),
    (119, "ERR_MD_INVALID", "no valid metadata found"),
    (
        120,
        "ERR_AUTH_ALG",
        "cram-hmac-alg is not known to this kernel",
    ),
    (121, "ERR_AUTH_ALG_ND", "cram-hmac-alg is not a digest"),
    (122, "ERR_NOMEM", "out of memory"),
    (
        123,
        "ERR_DISCARD_IMPOSSIBLE",
        "a Primary cannot discard its data",
    ),
    (124, "ERR_DISK_CONFIGURED", "a disk is attached already"),
    (
        125,
        "ERR_NET_CONFIGURED",
        "the connection is configured already (disconnect first)",
    ),
    (
        126,
        "ERR_MANDATORY_TAG",
        "an attribute is missing, fixed or invalid",
    ),
    (127, "ERR_MINOR_INVALID", "no such minor"),
    (129, "ERR_INTR", "interrupted"),
    (130, "ERR_RESIZE_RESYNC", "no resize during a resync"),
    (131, "ERR_NO_PRIMARY", "one node must be Primary to resize"),
    (132, "ERR_RESYNC_AFTER", "invalid resync-after"),
    (
        133,
        "ERR_RESYNC_AFTER_CYCLE",
        "resync-after would make a cycle",
    ),
    (134, "ERR_PAUSE_IS_SET", "the sync is paused already"),
    (135, "ERR_PAUSE_IS_CLEAR", "the sync is not paused"),
    (137, "ERR_PACKET_NR", "unknown request"),
    (138, "ERR_NO_DISK", "a disk is needed"),
    (139, "ERR_NOT_PROTO_C", "protocol C is needed"),
    (140, "ERR_NOMEM_BITMAP", "out of memory for the bitmap"),
    (
        141,
        "ERR_INTEGRITY_ALG",
        "data-integrity-alg is not known to this kernel",
    ),
    (
        142,
        "ERR_INTEGRITY_ALG_ND",
        "data-integrity-alg is not a digest",
    ),
    (143, "ERR_CPU_MASK_PARSE", "invalid cpu-mask"),
    (
        144,
        "ERR_CSUMS_ALG",
        "csums-alg is not known to this kernel",
    ),
    (145, "ERR_CSUMS_ALG_ND", "csums-alg is not a digest"),
    (
        146,
        "ERR_VERIFY_ALG",
        "verify-alg is not known to this kernel",
    ),
    (147, "ERR_VERIFY_ALG_ND", "verify-alg is not a digest"),
    (
        148,
        "ERR_CSUMS_RESYNC_RUNNING",
        "csums-alg cannot change during a resync",
    ),
    (
        149,
        "ERR_VERIFY_RUNNING",
        "verify-alg cannot change during a verify",
    ),
    (
        150,
        "ERR_DATA_NOT_CURRENT",
        "only the data last in use may be attached",
    ),
    (151, "ERR_CONNECTED", "the connection must be StandAlone"),
    (152, "ERR_PERM", "permission denied"),
    (153, "ERR_NEED_APV_93", "the peer must speak protocol 93"),
    (
        154,
        "ERR_STONITH_AND_PROT_A",
        "fencing resource-and-stonith does not go with protocol A",
    ),
    (
        155,
        "ERR_CONG_NOT_PROTO_A",
        "on-congestion needs protocol A",
    ),
    (
        156,
        "ERR_PIC_AFTER_DEP",
        "the sync is paused by resync-after",
    ),
    (157, "ERR_PIC_PEER_DEP", "the sync is paused by the peer"),
    (158, "ERR_RES_NOT_KNOWN", "no such resource"),
    (
        159,
        "ERR_RES_IN_USE",
        "the resource still has minors or connections",
    ),
    (
        160,
        "ERR_MINOR_CONFIGURED",
        "the minor is still in use (detach and disconnect first)",
    ),
    (
        161,
        "ERR_MINOR_OR_VOLUME_EXISTS",
        "the minor or volume exists already",
    ),
    (162, "ERR_INVALID_REQUEST", "invalid request"),
    (163, "ERR_NEED_APV_100", "the peer must speak protocol 100"),
    (
        164,
        "ERR_NEED_ALLOW_TWO_PRI",
        "two primaries exist; allow-two-primaries cannot be cleared",
    ),
    (
        165,
        "ERR_MD_UNCLEAN",
        "unclean metadata; apply the activity log before attaching",
    ),
    (
        166,
        "ERR_MD_LAYOUT_CONNECTED",
        "the activity log layout cannot change while connected",
    ),
    (
        167,
        "ERR_MD_LAYOUT_TOO_BIG",
        "the activity log would be too big",
    ),
    (
        168,
        "ERR_MD_LAYOUT_TOO_SMALL",
        "the activity log would be too small",
    ),
    (
        169,
        "ERR_MD_LAYOUT_NO_FIT",
        "the activity log would not fit",
    ),
    (
        170,
        "ERR_IMPLICIT_SHRINK",
        "the device would shrink without being told to",
    ),
    (171, "ERR_INVALID_PEER_NODE_ID", "invalid peer node id"),
    (
        172,
        "ERR_CREATE_TRANSPORT",
        "cannot create the transport (is its module missing?)",
    ),
    (
        173,
        "ERR_LOCAL_AND_PEER_ADDR",
        "the pair of addresses is already in use",
    ),
    (174, "ERR_ALREADY_EXISTS", "exists already"),
    (175, "ERR_APV_TOO_LOW", "the peer's protocol is too old"),
    (176, "ERR_PATH_COLLISION", "the path collides with another"),
];

/// C name of a return code; `None` for one this version does not know.
#[must_use]
pub fn name(dialect: Dialect, code: i32) -> Option<&'static str> {
    entry(dialect, code).map(|(name, _)| name)
}

/// What a return code means, in words.
#[must_use]
pub fn meaning(dialect: Dialect, code: i32) -> Option<&'static str> {
    entry(dialect, code).map(|(_, meaning)| meaning)
}

/// Whether a return code says that the request succeeded.
#[must_use]
pub fn is_success(code: i32) -> bool {
    code == NO_ERROR || (SS_SUCCESS..=SS_CW_NO_NEED).contains(&code)
}

fn entry(dialect: Dialect, code: i32) -> Option<(&'static str, &'static str)> {
    if code == SS_INTERRUPTED {
        return Some(match dialect {
            Dialect::V84 => (
                "SS_OUTDATE_WO_CONN",
                "a connection is needed to be outdated",
            ),
            Dialect::V9 => ("SS_INTERRUPTED", "interrupted"),
        });
    }
    if dialect == Dialect::V84 && code < SS_INTERRUPTED {
        return None;
    }
    NAMES
        .iter()
        .find(|(nr, ..)| *nr == code)
        .map(|(_, name, meaning)| (*name, *meaning))
}
