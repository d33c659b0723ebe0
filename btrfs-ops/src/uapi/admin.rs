//! Requests that change a whole file system: size, default subvolume, scrub,
//! balance, quota.

use std::mem::{offset_of, size_of};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::{request_code_none, request_code_read, request_code_readwrite, request_code_write};

use super::{MAGIC, Request, VolArgs, call, put_name};

/// `BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS`: what a request *returns*, without an
/// errno, when another exclusive operation runs.
const EXCL_RUN_IN_PROGRESS: i32 = 8;

/// `BTRFS_BALANCE_DATA`, `_METADATA`.
pub(crate) const BALANCE_DATA: u64 = 1 << 0;
pub(crate) const BALANCE_METADATA: u64 = 1 << 2;
/// `BTRFS_BALANCE_RESUME`.
pub(crate) const BALANCE_RESUME: u64 = 1 << 4;
/// `BTRFS_BALANCE_ARGS_USAGE_RANGE`.
pub(crate) const BALANCE_ARGS_USAGE_RANGE: u64 = 1 << 10;
/// `BTRFS_BALANCE_ARGS_LIMIT`.
pub(crate) const BALANCE_ARGS_LIMIT: u64 = 1 << 5;
/// `BTRFS_BALANCE_STATE_RUNNING`, `_PAUSE_REQ`, `_CANCEL_REQ`.
pub(crate) const BALANCE_STATE_RUNNING: u64 = 1 << 0;
pub(crate) const BALANCE_STATE_PAUSE_REQ: u64 = 1 << 1;
pub(crate) const BALANCE_STATE_CANCEL_REQ: u64 = 1 << 2;
/// `BTRFS_BALANCE_CTL_PAUSE`, `_CANCEL`.
pub(crate) const BALANCE_CTL_PAUSE: i32 = 1;
pub(crate) const BALANCE_CTL_CANCEL: i32 = 2;
/// `BTRFS_SCRUB_READONLY`.
pub(crate) const SCRUB_READONLY: u64 = 1;
/// `BTRFS_QUOTA_CTL_ENABLE`, `_DISABLE`, `_ENABLE_SIMPLE_QUOTA` (Linux 6.7).
pub(crate) const QUOTA_CTL_ENABLE: u64 = 1;
pub(crate) const QUOTA_CTL_DISABLE: u64 = 2;
pub(crate) const QUOTA_CTL_ENABLE_SIMPLE: u64 = 4;
/// `BTRFS_QUOTA_TREE_OBJECTID` and the types of its items.
pub(crate) const QUOTA_TREE_OBJECTID: u64 = 8;
pub(crate) const QGROUP_INFO_KEY: u32 = 242;
pub(crate) const QGROUP_LIMIT_KEY: u32 = 244;
/// `BTRFS_QGROUP_LIMIT_MAX_RFER`, `_MAX_EXCL`.
pub(crate) const QGROUP_LIMIT_MAX_RFER: u64 = 1 << 0;
pub(crate) const QGROUP_LIMIT_MAX_EXCL: u64 = 1 << 1;

/// `struct btrfs_scrub_progress`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct ScrubProgress {
    pub(crate) data_extents_scrubbed: u64,
    pub(crate) tree_extents_scrubbed: u64,
    pub(crate) data_bytes_scrubbed: u64,
    pub(crate) tree_bytes_scrubbed: u64,
    pub(crate) read_errors: u64,
    pub(crate) csum_errors: u64,
    pub(crate) verify_errors: u64,
    pub(crate) no_csum: u64,
    pub(crate) csum_discards: u64,
    pub(crate) super_errors: u64,
    pub(crate) malloc_errors: u64,
    pub(crate) uncorrectable_errors: u64,
    pub(crate) corrected_errors: u64,
    pub(crate) last_physical: u64,
    pub(crate) unverified_errors: u64,
}

/// `struct btrfs_ioctl_scrub_args`.
#[repr(C)]
pub(super) struct ScrubArgs {
    devid: u64,
    start: u64,
    end: u64,
    flags: u64,
    progress: ScrubProgress,
    unused: [u64; 109],
}
const _: () = assert!(size_of::<ScrubArgs>() == 1024 && offset_of!(ScrubArgs, progress) == 32);

/// `struct btrfs_balance_args`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct BalanceArgs {
    pub(crate) profiles: u64,
    pub(crate) usage_min: u32,
    pub(crate) usage_max: u32,
    pub(crate) devid: u64,
    pub(crate) pstart: u64,
    pub(crate) pend: u64,
    pub(crate) vstart: u64,
    pub(crate) vend: u64,
    pub(crate) target: u64,
    pub(crate) flags: u64,
    pub(crate) limit: u64,
    pub(crate) stripes_min: u32,
    pub(crate) stripes_max: u32,
    unused: [u64; 6],
}
const _: () = assert!(size_of::<BalanceArgs>() == 136);

/// `struct btrfs_ioctl_balance_args`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct BalanceRequest {
    pub(crate) flags: u64,
    pub(crate) state: u64,
    pub(crate) data: BalanceArgs,
    pub(crate) meta: BalanceArgs,
    pub(crate) sys: BalanceArgs,
    /// `struct btrfs_balance_progress`: expected, considered, completed.
    pub(crate) stat: [u64; 3],
    unused: [u64; 72],
}
const _: () =
    assert!(size_of::<BalanceRequest>() == 1024 && offset_of!(BalanceRequest, stat) == 424);

impl Default for BalanceRequest {
    fn default() -> Self {
        Self {
            flags: 0,
            state: 0,
            data: BalanceArgs::default(),
            meta: BalanceArgs::default(),
            sys: BalanceArgs::default(),
            stat: [0; 3],
            unused: [0; 72],
        }
    }
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
pub(super) struct QuotaCtlArgs {
    cmd: u64,
    status: u64,
}

/// `struct btrfs_ioctl_quota_rescan_args`.
#[repr(C)]
pub(super) struct QuotaRescanArgs {
    flags: u64,
    progress: u64,
    reserved: [u64; 6],
}

/// `struct btrfs_ioctl_qgroup_assign_args`.
#[repr(C)]
pub(super) struct QgroupAssignArgs {
    assign: u64,
    src: u64,
    dst: u64,
}

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
pub(super) struct QgroupCreateArgs {
    create: u64,
    qgroupid: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`, with `struct btrfs_qgroup_limit`.
#[repr(C)]
pub(super) struct QgroupLimitArgs {
    qgroupid: u64,
    flags: u64,
    max_rfer: u64,
    max_excl: u64,
    rsv_rfer: u64,
    rsv_excl: u64,
}
const _: () = assert!(size_of::<QgroupLimitArgs>() == 48);

pub(super) const RESIZE: Request = request_code_write!(MAGIC, 3, size_of::<VolArgs>());
pub(super) const DEFAULT_SUBVOL: Request = request_code_write!(MAGIC, 19, size_of::<u64>());
pub(super) const SCRUB: Request = request_code_readwrite!(MAGIC, 27, size_of::<ScrubArgs>());
pub(super) const SCRUB_CANCEL: Request = request_code_none!(MAGIC, 28);
pub(super) const SCRUB_PROGRESS: Request =
    request_code_readwrite!(MAGIC, 29, size_of::<ScrubArgs>());
pub(super) const BALANCE_V2: Request =
    request_code_readwrite!(MAGIC, 32, size_of::<BalanceRequest>());
pub(super) const BALANCE_CTL: Request = request_code_write!(MAGIC, 33, size_of::<i32>());
pub(super) const BALANCE_PROGRESS: Request =
    request_code_read!(MAGIC, 34, size_of::<BalanceRequest>());
pub(super) const QUOTA_CTL: Request = request_code_readwrite!(MAGIC, 40, size_of::<QuotaCtlArgs>());
pub(super) const QGROUP_ASSIGN: Request =
    request_code_write!(MAGIC, 41, size_of::<QgroupAssignArgs>());
pub(super) const QGROUP_CREATE: Request =
    request_code_write!(MAGIC, 42, size_of::<QgroupCreateArgs>());
// Encoded as a read, though the kernel reads from it.
pub(super) const QGROUP_LIMIT: Request =
    request_code_read!(MAGIC, 43, size_of::<QgroupLimitArgs>());
pub(super) const QUOTA_RESCAN: Request =
    request_code_write!(MAGIC, 44, size_of::<QuotaRescanArgs>());
pub(super) const QUOTA_RESCAN_STATUS: Request =
    request_code_read!(MAGIC, 45, size_of::<QuotaRescanArgs>());

/// For `REQUESTS` of the tests beside this file.
#[cfg(test)]
pub(super) const REQUESTS: &[(&str, &str, Request, usize)] = &[
    (
        "BTRFS_IOC_RESIZE",
        "struct btrfs_ioctl_vol_args",
        RESIZE,
        size_of::<VolArgs>(),
    ),
    ("BTRFS_IOC_DEFAULT_SUBVOL", "__u64", DEFAULT_SUBVOL, 8),
    (
        "BTRFS_IOC_SCRUB",
        "struct btrfs_ioctl_scrub_args",
        SCRUB,
        size_of::<ScrubArgs>(),
    ),
    ("BTRFS_IOC_SCRUB_CANCEL", "", SCRUB_CANCEL, 0),
    (
        "BTRFS_IOC_SCRUB_PROGRESS",
        "struct btrfs_ioctl_scrub_args",
        SCRUB_PROGRESS,
        size_of::<ScrubArgs>(),
    ),
    (
        "BTRFS_IOC_BALANCE_V2",
        "struct btrfs_ioctl_balance_args",
        BALANCE_V2,
        size_of::<BalanceRequest>(),
    ),
    (
        "BTRFS_IOC_BALANCE_CTL",
        "int",
        BALANCE_CTL,
        size_of::<i32>(),
    ),
    (
        "BTRFS_IOC_BALANCE_PROGRESS",
        "struct btrfs_ioctl_balance_args",
        BALANCE_PROGRESS,
        size_of::<BalanceRequest>(),
    ),
    (
        "BTRFS_IOC_QUOTA_CTL",
        "struct btrfs_ioctl_quota_ctl_args",
        QUOTA_CTL,
        size_of::<QuotaCtlArgs>(),
    ),
    (
        "BTRFS_IOC_QGROUP_ASSIGN",
        "struct btrfs_ioctl_qgroup_assign_args",
        QGROUP_ASSIGN,
        size_of::<QgroupAssignArgs>(),
    ),
    (
        "BTRFS_IOC_QGROUP_CREATE",
        "struct btrfs_ioctl_qgroup_create_args",
        QGROUP_CREATE,
        size_of::<QgroupCreateArgs>(),
    ),
    (
        "BTRFS_IOC_QGROUP_LIMIT",
        "struct btrfs_ioctl_qgroup_limit_args",
        QGROUP_LIMIT,
        size_of::<QgroupLimitArgs>(),
    ),
    (
        "BTRFS_IOC_QUOTA_RESCAN",
        "struct btrfs_ioctl_quota_rescan_args",
        QUOTA_RESCAN,
        size_of::<QuotaRescanArgs>(),
    ),
    (
        "BTRFS_IOC_QUOTA_RESCAN_STATUS",
        "struct btrfs_ioctl_quota_rescan_args",
        QUOTA_RESCAN_STATUS,
        size_of::<QuotaRescanArgs>(),
    ),
];

/// Turns what a request returned, beside its errno, into an errno.
fn exclusive(value: i32) -> Result<(), Errno> {
    match value {
        0 => Ok(()),
        EXCL_RUN_IN_PROGRESS => Err(Errno::EBUSY),
        _ => Err(Errno::EINVAL),
    }
}

/// `BTRFS_IOC_RESIZE`: `text` is `DEVID:SIZE` or `DEVID:max`.
pub(crate) fn resize(fd: BorrowedFd<'_>, text: &str) -> Result<(), Errno> {
    let mut args = Box::new(VolArgs {
        fd: 0,
        name: [0; 4088],
    });
    put_name(&mut args.name, text.as_bytes())?;
    // SAFETY: the request reads one `VolArgs`, whose name ends in a NUL.
    exclusive(unsafe { call(fd, RESIZE, &raw mut *args) }?)
}

/// `BTRFS_IOC_DEFAULT_SUBVOL`.
pub(crate) fn default_subvol(fd: BorrowedFd<'_>, mut id: u64) -> Result<(), Errno> {
    // SAFETY: the request reads one u64.
    unsafe { call(fd, DEFAULT_SUBVOL, &raw mut id) }.map(drop)
}

fn scrub_args(devid: u64, flags: u64) -> Box<ScrubArgs> {
    Box::new(ScrubArgs {
        devid,
        start: 0,
        end: u64::MAX,
        flags,
        progress: ScrubProgress::default(),
        unused: [0; 109],
    })
}

/// `BTRFS_IOC_SCRUB`: blocks until the device is done. The counters are those
/// up to its end, whether that was regular or not.
pub(crate) fn scrub(
    fd: BorrowedFd<'_>,
    devid: u64,
    flags: u64,
) -> (ScrubProgress, Result<(), Errno>) {
    let mut args = scrub_args(devid, flags);
    // SAFETY: the request reads and writes one `ScrubArgs` of integers.
    let result = unsafe { call(fd, SCRUB, &raw mut *args) };
    (args.progress, result.map(drop))
}

/// `BTRFS_IOC_SCRUB_CANCEL`: `ENOTCONN` if none runs.
pub(crate) fn scrub_cancel(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the request takes no argument; the pointer is not looked at.
    unsafe { call(fd, SCRUB_CANCEL, std::ptr::null_mut::<u8>()) }.map(drop)
}

/// `BTRFS_IOC_SCRUB_PROGRESS`: `ENOTCONN` if none runs.
pub(crate) fn scrub_progress(fd: BorrowedFd<'_>, devid: u64) -> Result<ScrubProgress, Errno> {
    let mut args = scrub_args(devid, 0);
    // SAFETY: the request reads and writes one `ScrubArgs` of integers.
    unsafe { call(fd, SCRUB_PROGRESS, &raw mut *args) }?;
    Ok(args.progress)
}

/// `BTRFS_IOC_BALANCE_V2`: blocks until it is done, paused or cancelled.
pub(crate) fn balance(fd: BorrowedFd<'_>, request: &mut BalanceRequest) -> Result<(), Errno> {
    // SAFETY: the request reads and writes one `BalanceRequest` of integers.
    exclusive(unsafe { call(fd, BALANCE_V2, &raw mut *request) }?)
}

/// `BTRFS_IOC_BALANCE_CTL`.
pub(crate) fn balance_ctl(fd: BorrowedFd<'_>, command: i32) -> Result<(), Errno> {
    // By value, as the kernel takes it.
    let argument = std::ptr::without_provenance_mut::<u8>(command.unsigned_abs() as usize);
    // SAFETY: the kernel takes the argument itself, not what it would point to.
    unsafe { call(fd, BALANCE_CTL, argument) }.map(drop)
}

/// `BTRFS_IOC_BALANCE_PROGRESS`: `ENOTCONN` if none runs or is paused.
pub(crate) fn balance_progress(fd: BorrowedFd<'_>) -> Result<Box<BalanceRequest>, Errno> {
    let mut request = Box::new(BalanceRequest::default());
    // SAFETY: the request writes one `BalanceRequest` of integers.
    unsafe { call(fd, BALANCE_PROGRESS, &raw mut *request) }?;
    Ok(request)
}

/// `BTRFS_IOC_QUOTA_CTL`.
pub(crate) fn quota_ctl(fd: BorrowedFd<'_>, cmd: u64) -> Result<(), Errno> {
    let mut args = QuotaCtlArgs { cmd, status: 0 };
    // SAFETY: the request reads and writes one `QuotaCtlArgs`.
    unsafe { call(fd, QUOTA_CTL, &raw mut args) }.map(drop)
}

/// `BTRFS_IOC_QUOTA_RESCAN`.
pub(crate) fn quota_rescan(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut args = QuotaRescanArgs {
        flags: 0,
        progress: 0,
        reserved: [0; 6],
    };
    // SAFETY: the request reads one `QuotaRescanArgs`.
    unsafe { call(fd, QUOTA_RESCAN, &raw mut args) }.map(drop)
}

/// `BTRFS_IOC_QUOTA_RESCAN_STATUS`: true while one runs.
pub(crate) fn quota_rescan_running(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut args = QuotaRescanArgs {
        flags: 0,
        progress: 0,
        reserved: [0; 6],
    };
    // SAFETY: the request writes one `QuotaRescanArgs`.
    unsafe { call(fd, QUOTA_RESCAN_STATUS, &raw mut args) }?;
    Ok(args.flags != 0)
}

/// `BTRFS_IOC_QGROUP_CREATE`, to create or to destroy.
pub(crate) fn qgroup_create(fd: BorrowedFd<'_>, id: u64, create: bool) -> Result<(), Errno> {
    let mut args = QgroupCreateArgs {
        create: create.into(),
        qgroupid: id,
    };
    // SAFETY: the request reads one `QgroupCreateArgs`.
    unsafe { call(fd, QGROUP_CREATE, &raw mut args) }.map(drop)
}

/// `BTRFS_IOC_QGROUP_ASSIGN`. True: usage is inconsistent until a rescan.
pub(crate) fn qgroup_assign(
    fd: BorrowedFd<'_>,
    src: u64,
    dst: u64,
    assign: bool,
) -> Result<bool, Errno> {
    let mut args = QgroupAssignArgs {
        assign: assign.into(),
        src,
        dst,
    };
    // SAFETY: the request reads one `QgroupAssignArgs`.
    Ok(unsafe { call(fd, QGROUP_ASSIGN, &raw mut args) }? > 0)
}

/// `BTRFS_IOC_QGROUP_LIMIT`; `u64::MAX` removes a limit.
pub(crate) fn qgroup_limit(
    fd: BorrowedFd<'_>,
    qgroupid: u64,
    max_rfer: u64,
    max_excl: u64,
) -> Result<(), Errno> {
    let mut args = QgroupLimitArgs {
        qgroupid,
        flags: QGROUP_LIMIT_MAX_RFER | QGROUP_LIMIT_MAX_EXCL,
        max_rfer,
        max_excl,
        rsv_rfer: 0,
        rsv_excl: 0,
    };
    // SAFETY: the request reads one `QgroupLimitArgs`, whatever its number says.
    unsafe { call(fd, QGROUP_LIMIT, &raw mut args) }.map(drop)
}
