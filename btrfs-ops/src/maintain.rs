//! Default subvolume, scrub, balance, quotas.

use std::fmt;
use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::error::{Error, ErrorKind, Request, Result};
use crate::filesystem::devices;
use crate::list::search_tree;
use crate::search::Key;
use crate::subvolume::target;
use crate::types::{Bytes, SubvolId};
use crate::uapi;

/// The subvolume that a mount without `subvol` or `subvolid` shows.
///
/// # Errors
///
/// [`ErrorKind::Permission`], [`ErrorKind::NotBtrfs`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
pub fn default_subvolume(fs: impl AsFd) -> Result<SubvolId> {
    let fs = fs.as_fd();
    // `BTRFS_ROOT_TREE_DIR_OBJECTID` and `BTRFS_DIR_ITEM_KEY`; the name is
    // "default", the only one there.
    let key = |offset| Key {
        objectid: 6,
        kind: 84,
        offset,
    };
    let mut found = None;
    let request = Request::DefaultSubvolume;
    let tree = uapi::ROOT_TREE_OBJECTID;
    search_tree(request, fs, tree, key(0), key(u64::MAX), &mut |item| {
        let id = item.data.get(..8)?.try_into().ok()?;
        if item.data.get(30..) == Some(b"default") {
            found = Some(u64::from_le_bytes(id));
        }
        Some(())
    })?;
    // None was ever set.
    Ok(found.map_or(SubvolId::TOP_LEVEL, SubvolId::from_kernel))
}

/// Changes what a mount without `subvol` or `subvolid` shows from now on.
/// Commits a transaction.
///
/// # Errors
///
/// [`ErrorKind::NotFound`], [`ErrorKind::Permission`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_DEFAULT_SUBVOL")]
pub fn set_default_subvolume(fs: impl AsFd, id: SubvolId) -> Result<()> {
    let fs = fs.as_fd();
    uapi::default_subvol(fs, id.get()).map_err(|errno| {
        let shown = format!("{} of {}", crate::error::id_target(id), target(fs));
        Error::ioctl(Request::DefaultSubvolume, shown, fs, errno)
    })
}

/// Counters of a scrub of one device (`struct btrfs_scrub_progress`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ScrubCounters {
    /// Content read.
    pub data: Bytes,
    /// Metadata read.
    pub metadata: Bytes,
    /// Blocks that could not be read.
    pub read_errors: u64,
    /// Blocks with a wrong checksum.
    pub csum_errors: u64,
    /// Metadata with a wrong header.
    pub verify_errors: u64,
    /// Super blocks that are wrong.
    pub super_errors: u64,
    /// Errors without a good copy.
    pub uncorrectable_errors: u64,
    /// Errors that were repaired from another copy.
    pub corrected_errors: u64,
    /// Where it is on the device.
    pub position: Bytes,
}

impl ScrubCounters {
    fn new(progress: &uapi::ScrubProgress) -> Self {
        Self {
            data: Bytes(progress.data_bytes_scrubbed),
            metadata: Bytes(progress.tree_bytes_scrubbed),
            read_errors: progress.read_errors,
            csum_errors: progress.csum_errors,
            verify_errors: progress.verify_errors,
            super_errors: progress.super_errors,
            uncorrectable_errors: progress.uncorrectable_errors,
            corrected_errors: progress.corrected_errors,
            position: Bytes(progress.last_physical),
        }
    }

    /// True if anything was wrong, repaired or not.
    #[must_use]
    pub fn any(&self) -> bool {
        let Self {
            read_errors,
            csum_errors,
            verify_errors,
            super_errors,
            ..
        } = *self;
        read_errors | csum_errors | verify_errors | super_errors != 0
    }
}

/// Reads all that is on the device `devid` and compares checksums; repairs from
/// a good copy, unless `read_only`. Blocks until it is done: use a thread. To
/// scrub all devices at once, call it for each on a thread of its own.
///
/// # Errors
///
/// [`ErrorKind::Cancelled`] by [`scrub_cancel`]; [`ErrorKind::Busy`] while one
/// runs on this device; [`ErrorKind::NotFound`] for no such device.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_SCRUB")]
pub fn scrub(fs: impl AsFd, devid: u64, read_only: bool) -> Result<ScrubCounters> {
    let fs = fs.as_fd();
    let flags = if read_only { uapi::SCRUB_READONLY } else { 0 };
    let (progress, result) = uapi::scrub(fs, devid, flags);
    let shown = || format!("device {devid} of {}", target(fs));
    match result {
        Ok(()) => Ok(ScrubCounters::new(&progress)),
        Err(errno) => Err(Error::ioctl(Request::Scrub, shown(), fs, errno)),
    }
}

/// How far the running scrub of the device `devid` is; `None` if none runs.
///
/// # Errors
///
/// [`ErrorKind::Permission`], [`ErrorKind::NotBtrfs`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_SCRUB_PROGRESS")]
pub fn scrub_status(fs: impl AsFd, devid: u64) -> Result<Option<ScrubCounters>> {
    let fs = fs.as_fd();
    match uapi::scrub_progress(fs, devid) {
        Ok(progress) => Ok(Some(ScrubCounters::new(&progress))),
        Err(Errno::ENOTCONN) => Ok(None),
        Err(errno) => Err(Error::ioctl(Request::Scrub, target(fs), fs, errno)),
    }
}

/// Stops the scrubs of all devices and waits until they have stopped.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if none runs.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_SCRUB_CANCEL")]
pub fn scrub_cancel(fs: impl AsFd) -> Result<()> {
    let fs = fs.as_fd();
    uapi::scrub_cancel(fs).map_err(|errno| Error::ioctl(Request::Scrub, target(fs), fs, errno))
}

/// Which block groups to move: those of which at most so much is used, in
/// percent. The default moves none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct BalanceFilter {
    data: Option<(u8, u64)>,
    metadata: Option<(u8, u64)>,
}

impl BalanceFilter {
    /// Moves none.
    pub fn new() -> Self {
        Self::default()
    }

    /// Block groups of content used to at most `percent`, no more than `limit`
    /// of them (0: all). Start with 0 percent where space is scarce.
    pub fn data(mut self, percent: u8, limit: u64) -> Self {
        self.data = Some((percent, limit));
        self
    }

    /// The same for metadata, which is seldom useful.
    pub fn metadata(mut self, percent: u8, limit: u64) -> Self {
        self.metadata = Some((percent, limit));
        self
    }
}

/// A balance, running or paused, or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BalanceStatus {
    /// It runs; false: paused, or done.
    pub running: bool,
    /// A request to pause it is pending.
    pub pausing: bool,
    /// A request to cancel it is pending.
    pub cancelling: bool,
    /// Block groups that are to be moved, as far as known.
    pub expected: u64,
    /// Block groups looked at.
    pub considered: u64,
    /// Block groups moved.
    pub completed: u64,
}

impl BalanceStatus {
    fn new(request: &uapi::BalanceRequest) -> Self {
        let [expected, considered, completed] = request.stat;
        Self {
            running: request.state & uapi::BALANCE_STATE_RUNNING != 0,
            pausing: request.state & uapi::BALANCE_STATE_PAUSE_REQ != 0,
            cancelling: request.state & uapi::BALANCE_STATE_CANCEL_REQ != 0,
            expected,
            considered,
            completed,
        }
    }
}

/// Moves block groups, so that those used little are freed. Blocks until it is
/// done: use a thread.
///
/// # Errors
///
/// [`ErrorKind::Cancelled`] by [`balance_pause`] or [`balance_cancel`];
/// [`ErrorKind::Busy`] while another exclusive operation runs;
/// [`ErrorKind::NoSpace`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_BALANCE_V2")]
pub fn balance(fs: impl AsFd, filter: &BalanceFilter) -> Result<BalanceStatus> {
    let mut request = uapi::BalanceRequest::default();
    let arguments = |(percent, limit): (u8, u64)| {
        let mut arguments = uapi::BalanceArgs::default();
        arguments.flags = uapi::BALANCE_ARGS_USAGE_RANGE;
        arguments.usage_max = percent.min(100).into();
        if limit > 0 {
            arguments.flags |= uapi::BALANCE_ARGS_LIMIT;
            arguments.limit = limit;
        }
        arguments
    };
    if let Some(data) = filter.data {
        request.flags |= uapi::BALANCE_DATA;
        request.data = arguments(data);
    }
    if let Some(metadata) = filter.metadata {
        request.flags |= uapi::BALANCE_METADATA;
        request.meta = arguments(metadata);
    }
    if request.flags == 0 {
        return Ok(BalanceStatus::new(&request));
    }
    run_balance(fs, request)
}

/// Goes on with a balance that was paused, by [`balance_pause`] or by mounting
/// with `skip_balance`. Blocks until it is done.
///
/// # Errors
///
/// As [`balance`]; [`ErrorKind::NotFound`] if none is paused.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
pub fn balance_resume(fs: impl AsFd) -> Result<BalanceStatus> {
    let mut request = uapi::BalanceRequest::default();
    request.flags = uapi::BALANCE_RESUME;
    run_balance(fs, request)
}

fn run_balance(fs: impl AsFd, mut request: uapi::BalanceRequest) -> Result<BalanceStatus> {
    let fs = fs.as_fd();
    uapi::balance(fs, &mut request)
        .map_err(|errno| Error::ioctl(Request::Balance, target(fs), fs, errno))?;
    Ok(BalanceStatus::new(&request))
}

/// The balance that runs or is paused; `None` if there is none.
///
/// # Errors
///
/// [`ErrorKind::Permission`], [`ErrorKind::NotBtrfs`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_BALANCE_PROGRESS")]
pub fn balance_status(fs: impl AsFd) -> Result<Option<BalanceStatus>> {
    let fs = fs.as_fd();
    match uapi::balance_progress(fs) {
        Ok(request) => Ok(Some(BalanceStatus::new(&request))),
        Err(Errno::ENOTCONN) => Ok(None),
        Err(errno) => Err(Error::ioctl(Request::Balance, target(fs), fs, errno)),
    }
}

/// Pauses the running balance, after the block group it is at.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if none runs.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
pub fn balance_pause(fs: impl AsFd) -> Result<()> {
    control_balance(fs, uapi::BALANCE_CTL_PAUSE)
}

/// Ends the balance that runs or is paused.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is none.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_BALANCE_CTL")]
pub fn balance_cancel(fs: impl AsFd) -> Result<()> {
    control_balance(fs, uapi::BALANCE_CTL_CANCEL)
}

fn control_balance(fs: impl AsFd, command: i32) -> Result<()> {
    let fs = fs.as_fd();
    uapi::balance_ctl(fs, command)
        .map_err(|errno| Error::ioctl(Request::Balance, target(fs), fs, errno))
}

/// Id of a qgroup: a level and a number. At level 0 the number is that of a
/// subvolume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QgroupId {
    /// The level.
    pub level: u16,
    /// The number; below 2^48.
    pub number: u64,
}

impl QgroupId {
    fn from_raw(raw: u64) -> Self {
        // Sixteen bits are left after the shift.
        Self {
            level: (raw >> 48) as u16,
            number: raw & ((1 << 48) - 1),
        }
    }

    pub(crate) fn raw(self) -> u64 {
        u64::from(self.level) << 48 | (self.number & ((1 << 48) - 1))
    }
}

impl From<SubvolId> for QgroupId {
    fn from(id: SubvolId) -> Self {
        Self {
            level: 0,
            number: id.get(),
        }
    }
}

impl fmt::Display for QgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.level, self.number)
    }
}

/// Usage and limits of a qgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Qgroup {
    /// Its id.
    pub id: QgroupId,
    /// All that it refers to.
    pub referenced: Bytes,
    /// What it alone refers to: what deleting it would free.
    pub exclusive: Bytes,
    /// The most it may refer to.
    pub max_referenced: Option<Bytes>,
    /// The most it alone may refer to.
    pub max_exclusive: Option<Bytes>,
}

/// Turns on quotas: usage is counted for every subvolume, after a rescan that
/// begins with this. With many snapshots, full quotas make deletion slow;
/// `simple` ones (Linux 6.7) count what each subvolume has written only.
///
/// # Errors
///
/// [`ErrorKind::Permission`], [`ErrorKind::Unsupported`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_QUOTA_CTL")]
pub fn enable_quotas(fs: impl AsFd, simple: bool) -> Result<()> {
    let command = if simple {
        uapi::QUOTA_CTL_ENABLE_SIMPLE
    } else {
        uapi::QUOTA_CTL_ENABLE
    };
    let done = quota(&fs, |fs| uapi::quota_ctl(fs, command));
    match done {
        Err(error) if simple && error.raw_os_error() == Some(libc::EINVAL) => {
            let text = "this kernel does not have simple quotas";
            let op = Request::Quota.op();
            Err(Error::message(
                ErrorKind::Unsupported,
                op,
                target(fs.as_fd()),
                text,
            ))
        }
        other => other,
    }
}

/// Turns quotas off and forgets all groups.
///
/// # Errors
///
/// [`ErrorKind::Permission`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
pub fn disable_quotas(fs: impl AsFd) -> Result<()> {
    quota(fs, |fs| uapi::quota_ctl(fs, uapi::QUOTA_CTL_DISABLE))
}

/// Begins to count usage anew. Returns at once.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if quotas are off; [`ErrorKind::Busy`] while a rescan
/// runs.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_QUOTA_RESCAN")]
pub fn rescan_quotas(fs: impl AsFd) -> Result<()> {
    quota(fs, |fs| match uapi::quota_rescan(fs) {
        Err(Errno::EINPROGRESS) => Err(Errno::EBUSY),
        Err(Errno::EINVAL) => Err(Errno::ENOTCONN),
        other => other,
    })
}

/// Is usage being counted anew?
///
/// # Errors
///
/// [`ErrorKind::Permission`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
pub fn quota_rescan_runs(fs: impl AsFd) -> Result<bool> {
    quota(fs, uapi::quota_rescan_running)
}

/// Creates a group; those of level 0 come with their subvolumes.
///
/// # Errors
///
/// [`ErrorKind::AlreadyExists`]; [`ErrorKind::NotFound`] if quotas are off.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_QGROUP_CREATE")]
pub fn create_qgroup(fs: impl AsFd, id: QgroupId) -> Result<()> {
    quota(fs, |fs| uapi::qgroup_create(fs, id.raw(), true))
}

/// Removes a group.
///
/// # Errors
///
/// [`ErrorKind::NotFound`]; [`ErrorKind::Busy`] while it has members.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
pub fn remove_qgroup(fs: impl AsFd, id: QgroupId) -> Result<()> {
    quota(fs, |fs| uapi::qgroup_create(fs, id.raw(), false))
}

/// Makes `member` part of `group`, of a higher level, or takes it out. True:
/// usage is wrong until a rescan.
///
/// # Errors
///
/// [`ErrorKind::NotFound`], [`ErrorKind::AlreadyExists`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_QGROUP_ASSIGN")]
pub fn assign_qgroup(
    fs: impl AsFd,
    member: QgroupId,
    group: QgroupId,
    assign: bool,
) -> Result<bool> {
    quota(fs, |fs| {
        uapi::qgroup_assign(fs, member.raw(), group.raw(), assign)
    })
}

/// Sets or removes limits of a group. Beyond them, writing fails with `EDQUOT`.
///
/// # Errors
///
/// [`ErrorKind::NotFound`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
#[doc(alias = "BTRFS_IOC_QGROUP_LIMIT")]
pub fn limit_qgroup(
    fs: impl AsFd,
    id: QgroupId,
    max_referenced: Option<Bytes>,
    max_exclusive: Option<Bytes>,
) -> Result<()> {
    let value = |limit: Option<Bytes>| limit.map_or(u64::MAX, |limit| limit.0);
    quota(fs, |fs| {
        uapi::qgroup_limit(fs, id.raw(), value(max_referenced), value(max_exclusive))
    })
}

fn quota<T>(
    fs: impl AsFd,
    request: impl FnOnce(std::os::fd::BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<T> {
    let fs = fs.as_fd();
    request(fs).map_err(|errno| Error::ioctl(Request::Quota, target(fs), fs, errno))
}

/// Lists all groups with usage as of the last commit; `None` if quotas are off.
///
/// # Errors
///
/// [`ErrorKind::Permission`], [`ErrorKind::NotBtrfs`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
pub fn qgroups(fs: impl AsFd) -> Result<Option<Vec<Qgroup>>> {
    let fs = fs.as_fd();
    let mut groups = std::collections::BTreeMap::new();
    let first = Key {
        objectid: 0,
        kind: uapi::QGROUP_INFO_KEY,
        offset: 0,
    };
    let last = Key {
        objectid: 0,
        kind: uapi::QGROUP_LIMIT_KEY,
        offset: u64::MAX,
    };
    let word = |data: &[u8], at: usize| {
        Some(u64::from_le_bytes(
            data.get(at * 8..at * 8 + 8)?.try_into().ok()?,
        ))
    };
    let tree = uapi::QUOTA_TREE_OBJECTID;
    let done = search_tree(Request::Quota, fs, tree, first, last, &mut |item| {
        let id = QgroupId::from_raw(item.key.offset);
        let group = groups.entry(id).or_insert(Qgroup {
            id,
            referenced: Bytes(0),
            exclusive: Bytes(0),
            max_referenced: None,
            max_exclusive: None,
        });
        match item.key.kind {
            // generation, rfer, rfer_cmpr, excl, excl_cmpr
            uapi::QGROUP_INFO_KEY => {
                group.referenced = Bytes(word(item.data, 1)?);
                group.exclusive = Bytes(word(item.data, 3)?);
            }
            // flags, max_rfer, max_excl, rsv_rfer, rsv_excl
            uapi::QGROUP_LIMIT_KEY => {
                let flags = word(item.data, 0)?;
                let limit = |flag, at| {
                    let value = word(item.data, at).filter(|value| *value != u64::MAX);
                    value.filter(|_| flags & flag != 0).map(Bytes)
                };
                group.max_referenced = limit(uapi::QGROUP_LIMIT_MAX_RFER, 1);
                group.max_exclusive = limit(uapi::QGROUP_LIMIT_MAX_EXCL, 2);
            }
            _ => {}
        }
        Some(())
    });
    match done {
        Ok(()) => Ok(Some(groups.into_values().collect())),
        // There is no such tree.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Scrubs all devices, each on a thread of its own, and adds up.
///
/// # Errors
///
/// As [`scrub`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
pub fn scrub_all(fs: impl AsFd, read_only: bool) -> Result<Vec<(u64, ScrubCounters)>> {
    let fs = fs.as_fd();
    let devices = devices(fs)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .map(|device| {
                (
                    device.id,
                    scope.spawn(move || scrub(fs, device.id, read_only)),
                )
            })
            .collect();
        let lost = || Error::message(ErrorKind::Other, "scrub", target(fs), "a thread panicked");
        threads
            .into_iter()
            .map(|(id, thread)| Ok((id, thread.join().unwrap_or_else(|_| Err(lost()))?)))
            .collect()
    })
}
