#![allow(unsafe_code, reason = "the ioctl calls are here, and nowhere else")]
//! The kernel's side: structures, ioctl numbers and one thin call for each.
//!
//! Constants and layouts are those of `include/uapi/linux/btrfs.h` and
//! `btrfs_tree.h`, under their C names where they are constants. Every layout
//! is asserted when this file is compiled; numbers and sizes are compared with
//! the installed header by the test `numbers_match_the_header`.
//!
//! A structure that the kernel fills is zeroed first, so a kernel that knows
//! fewer fields leaves zeros and not old memory.

use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::{request_code_none, request_code_read, request_code_readwrite, request_code_write};

mod admin;
mod stream;

pub(crate) use admin::*;
pub(crate) use stream::*;

/// `BTRFS_IOCTL_MAGIC`.
const MAGIC: u8 = 0x94;
/// `BTRFS_SUPER_MAGIC`, linux/magic.h: what `statfs` reports.
pub(crate) const BTRFS_SUPER_MAGIC: u32 = 0x9123_683e;

/// `BTRFS_FIRST_FREE_OBJECTID`: inode of every subvolume's root directory, and
/// the least id of an ordinary subvolume.
pub(crate) const FIRST_FREE_OBJECTID: u64 = 256;
/// `BTRFS_LAST_FREE_OBJECTID` (-256).
pub(crate) const LAST_FREE_OBJECTID: u64 = 0u64.wrapping_sub(256);
/// `BTRFS_ROOT_TREE_OBJECTID`.
pub(crate) const ROOT_TREE_OBJECTID: u64 = 1;
/// `BTRFS_UUID_TREE_OBJECTID`, and the types of its items
/// (`BTRFS_UUID_KEY_SUBVOL`, `BTRFS_UUID_KEY_RECEIVED_SUBVOL`).
pub(crate) const UUID_TREE_OBJECTID: u64 = 9;
pub(crate) const UUID_KEY_SUBVOL: u32 = 251;
pub(crate) const UUID_KEY_RECEIVED_SUBVOL: u32 = 252;
/// `BTRFS_ORPHAN_OBJECTID` (-5): its items in the root tree name deleted
/// subvolumes that are not cleaned yet.
pub(crate) const ORPHAN_OBJECTID: u64 = 0u64.wrapping_sub(5);
/// `BTRFS_ORPHAN_ITEM_KEY`.
pub(crate) const ORPHAN_ITEM_KEY: u32 = 48;
/// `BTRFS_INODE_ITEM_KEY`.
pub(crate) const INODE_ITEM_KEY: u32 = 1;
/// `BTRFS_ROOT_ITEM_KEY`.
pub(crate) const ROOT_ITEM_KEY: u32 = 132;
/// `BTRFS_ROOT_BACKREF_KEY`.
pub(crate) const ROOT_BACKREF_KEY: u32 = 144;

/// `BTRFS_SUBVOL_RDONLY`: of `GETFLAGS`, `SETFLAGS` and a snapshot request.
pub(crate) const SUBVOL_RDONLY: u64 = 1 << 1;
/// `BTRFS_ROOT_SUBVOL_RDONLY`: the same state as stored in the root item, and
/// as `GET_SUBVOL_INFO` reports it.
pub(crate) const ROOT_SUBVOL_RDONLY: u64 = 1 << 0;
/// `BTRFS_SUBVOL_QGROUP_INHERIT`.
const SUBVOL_QGROUP_INHERIT: u64 = 1 << 2;
/// `BTRFS_SUBVOL_SPEC_BY_ID`.
const SUBVOL_SPEC_BY_ID: u64 = 1 << 4;
/// `BTRFS_SUBVOL_SYNC_COUNT`, Linux 6.13.
const SUBVOL_SYNC_COUNT: u32 = 2;
/// `BTRFS_FS_INFO_FLAG_GENERATION`.
pub(crate) const FS_INFO_FLAG_GENERATION: u64 = 1 << 1;
/// `BTRFS_DEV_STAT_VALUES_MAX`.
pub(crate) const DEV_STAT_VALUES_MAX: usize = 5;
/// Rows in one answer of `GET_SUBVOL_ROOTREF`.
const MAX_ROOTREF_BUFFER_NUM: usize = 255;

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    /// With `BTRFS_SUBVOL_QGROUP_INHERIT`: bytes at `inherit`, and where they are.
    inherit_size: u64,
    inherit: *const u64,
    unused: [u64; 2],
    /// A union in C: a name, or a subvolume id in its first eight bytes.
    name: [u8; 4040],
}
const _: () = assert!(
    size_of::<VolArgsV2>() == 4096
        && offset_of!(VolArgsV2, inherit_size) == 24
        && offset_of!(VolArgsV2, name) == 56
);

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}
const _: () = assert!(size_of::<VolArgs>() == 4096 && offset_of!(VolArgs, name) == 8);

/// `struct btrfs_ioctl_timespec`: 16 bytes here, 12 and unaligned on disk.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Timespec {
    pub(crate) sec: u64,
    pub(crate) nsec: u32,
    _pad: u32,
}
const _: () = assert!(size_of::<Timespec>() == 16);

/// `struct btrfs_ioctl_get_subvol_info_args`.
#[repr(C)]
pub(crate) struct SubvolInfoArgs {
    pub(crate) treeid: u64,
    pub(crate) name: [u8; 256],
    pub(crate) parent_id: u64,
    pub(crate) dirid: u64,
    pub(crate) generation: u64,
    pub(crate) flags: u64,
    pub(crate) uuid: [u8; 16],
    pub(crate) parent_uuid: [u8; 16],
    pub(crate) received_uuid: [u8; 16],
    pub(crate) ctransid: u64,
    pub(crate) otransid: u64,
    pub(crate) stransid: u64,
    pub(crate) rtransid: u64,
    pub(crate) ctime: Timespec,
    pub(crate) otime: Timespec,
    pub(crate) stime: Timespec,
    pub(crate) rtime: Timespec,
    reserved: [u64; 8],
}
const _: () = assert!(
    size_of::<SubvolInfoArgs>() == 504
        && offset_of!(SubvolInfoArgs, parent_id) == 264
        && offset_of!(SubvolInfoArgs, uuid) == 296
        && offset_of!(SubvolInfoArgs, ctransid) == 344
        && offset_of!(SubvolInfoArgs, rtime) == 424
);

/// One row of `struct btrfs_ioctl_get_subvol_rootref_args`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct RootRef {
    pub(crate) treeid: u64,
    pub(crate) dirid: u64,
}

/// `struct btrfs_ioctl_get_subvol_rootref_args`.
#[repr(C)]
struct RootRefArgs {
    min_treeid: u64,
    rootref: [RootRef; MAX_ROOTREF_BUFFER_NUM],
    num_items: u8,
    align: [u8; 7],
}
const _: () =
    assert!(size_of::<RootRefArgs>() == 4096 && offset_of!(RootRefArgs, num_items) == 4088);

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InoLookupArgs {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}
const _: () = assert!(size_of::<InoLookupArgs>() == 4096);

/// `struct btrfs_ioctl_ino_lookup_user_args`.
#[repr(C)]
struct InoLookupUserArgs {
    dirid: u64,
    treeid: u64,
    name: [u8; 256],
    path: [u8; 3824],
}
const _: () =
    assert!(size_of::<InoLookupUserArgs>() == 4096 && offset_of!(InoLookupUserArgs, path) == 272);

/// `struct btrfs_ioctl_search_key`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct SearchKey {
    pub(crate) tree_id: u64,
    pub(crate) min_objectid: u64,
    pub(crate) max_objectid: u64,
    pub(crate) min_offset: u64,
    pub(crate) max_offset: u64,
    pub(crate) min_transid: u64,
    pub(crate) max_transid: u64,
    pub(crate) min_type: u32,
    pub(crate) max_type: u32,
    pub(crate) nr_items: u32,
    pub(crate) unused: u32,
    pub(crate) unused1: [u64; 4],
}
const _: () = assert!(size_of::<SearchKey>() == 104);

/// `struct btrfs_ioctl_search_args_v2` without its tail.
#[repr(C)]
struct SearchArgsV2 {
    key: SearchKey,
    buf_size: u64,
}
const _: () = assert!(size_of::<SearchArgsV2>() == 112);

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
pub(crate) struct FsInfoArgs {
    pub(crate) max_id: u64,
    pub(crate) num_devices: u64,
    pub(crate) fsid: [u8; 16],
    pub(crate) nodesize: u32,
    pub(crate) sectorsize: u32,
    pub(crate) clone_alignment: u32,
    pub(crate) csum_type: u16,
    pub(crate) csum_size: u16,
    pub(crate) flags: u64,
    pub(crate) generation: u64,
    pub(crate) metadata_uuid: [u8; 16],
    reserved: [u8; 944],
}
const _: () = assert!(
    size_of::<FsInfoArgs>() == 1024
        && offset_of!(FsInfoArgs, flags) == 48
        && offset_of!(FsInfoArgs, metadata_uuid) == 64
);

/// `struct btrfs_ioctl_dev_info_args`.
#[repr(C)]
pub(crate) struct DevInfoArgs {
    pub(crate) devid: u64,
    pub(crate) uuid: [u8; 16],
    pub(crate) bytes_used: u64,
    pub(crate) total_bytes: u64,
    unused: [u64; 379],
    pub(crate) path: [u8; 1024],
}
const _: () = assert!(size_of::<DevInfoArgs>() == 4096 && offset_of!(DevInfoArgs, path) == 3072);

/// `struct btrfs_ioctl_get_dev_stats`.
#[repr(C)]
struct DevStatsArgs {
    devid: u64,
    nr_items: u64,
    flags: u64,
    values: [u64; DEV_STAT_VALUES_MAX],
    unused: [u64; 121],
}
const _: () = assert!(size_of::<DevStatsArgs>() == 1032);

/// `struct btrfs_ioctl_space_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct SpaceInfo {
    pub(crate) flags: u64,
    pub(crate) total_bytes: u64,
    pub(crate) used_bytes: u64,
}

/// `struct btrfs_ioctl_space_args` without its tail.
#[repr(C)]
struct SpaceArgs {
    space_slots: u64,
    total_spaces: u64,
}
const _: () = assert!(size_of::<SpaceArgs>() == 16 && size_of::<SpaceInfo>() == 24);

/// `struct btrfs_ioctl_subvol_wait`, Linux 6.13.
#[repr(C)]
struct SubvolWait {
    subvolid: u64,
    mode: u32,
    count: u32,
}
const _: () = assert!(size_of::<SubvolWait>() == 16);

/// The type of `ioctl`'s second argument differs between C libraries.
type Request = nix::sys::ioctl::ioctl_num_type;

const SYNC: Request = request_code_none!(MAGIC, 8);
const SNAP_DESTROY: Request = request_code_write!(MAGIC, 15, size_of::<VolArgs>());
const TREE_SEARCH_V2: Request = request_code_readwrite!(MAGIC, 17, size_of::<SearchArgsV2>());
const INO_LOOKUP: Request = request_code_readwrite!(MAGIC, 18, size_of::<InoLookupArgs>());
const SPACE_INFO: Request = request_code_readwrite!(MAGIC, 20, size_of::<SpaceArgs>());
const SNAP_CREATE_V2: Request = request_code_write!(MAGIC, 23, size_of::<VolArgsV2>());
const SUBVOL_CREATE_V2: Request = request_code_write!(MAGIC, 24, size_of::<VolArgsV2>());
const SUBVOL_GETFLAGS: Request = request_code_read!(MAGIC, 25, size_of::<u64>());
const SUBVOL_SETFLAGS: Request = request_code_write!(MAGIC, 26, size_of::<u64>());
const DEV_INFO: Request = request_code_readwrite!(MAGIC, 30, size_of::<DevInfoArgs>());
const FS_INFO: Request = request_code_read!(MAGIC, 31, size_of::<FsInfoArgs>());
const GET_FSLABEL: Request = request_code_read!(MAGIC, 49, size_of::<[u8; 256]>());
const SET_FSLABEL: Request = request_code_write!(MAGIC, 50, size_of::<[u8; 256]>());
const GET_DEV_STATS: Request = request_code_readwrite!(MAGIC, 52, size_of::<DevStatsArgs>());
const GET_SUBVOL_INFO: Request = request_code_read!(MAGIC, 60, size_of::<SubvolInfoArgs>());
const GET_SUBVOL_ROOTREF: Request = request_code_readwrite!(MAGIC, 61, size_of::<RootRefArgs>());
const INO_LOOKUP_USER: Request = request_code_readwrite!(MAGIC, 62, size_of::<InoLookupUserArgs>());
const SNAP_DESTROY_V2: Request = request_code_write!(MAGIC, 63, size_of::<VolArgsV2>());
const SUBVOL_SYNC_WAIT: Request = request_code_write!(MAGIC, 65, size_of::<SubvolWait>());

/// Calls `ioctl` with a pointer to `argument`.
///
/// # Safety
///
/// `T` is the structure that `request` encodes, with all memory the kernel may
/// read or write through it valid for the length of the call.
unsafe fn call<T>(fd: BorrowedFd<'_>, request: Request, argument: *mut T) -> Result<i32, Errno> {
    // SAFETY: the descriptor is open while it is borrowed; the rest is the
    // caller's promise.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) })
}

/// Copies a checked name into a kernel buffer that is zero beyond it.
fn put_name(buffer: &mut [u8], name: &[u8]) -> Result<(), Errno> {
    // The last byte stays zero: the kernel stops at it.
    let room = buffer.len().saturating_sub(1);
    match buffer.get_mut(..name.len()) {
        Some(place) if name.len() <= room => {
            place.copy_from_slice(name);
            Ok(())
        }
        _ => Err(Errno::ENAMETOOLONG),
    }
}

/// The bytes before the first NUL.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

fn vol_args(name: &[u8]) -> Result<Box<VolArgsV2>, Errno> {
    let mut args = Box::new(VolArgsV2 {
        fd: 0,
        transid: 0,
        flags: 0,
        inherit_size: 0,
        inherit: std::ptr::null(),
        unused: [0; 2],
        name: [0; 4040],
    });
    put_name(&mut args.name, name)?;
    Ok(args)
}

/// `struct btrfs_qgroup_inherit`: flags, three counts, a limit (nine words in
/// all), then the groups.
fn qgroup_inherit(qgroups: &[u64]) -> Vec<u64> {
    let mut words = vec![0, qgroups.len() as u64, 0, 0, 0, 0, 0, 0, 0];
    words.extend(qgroups);
    words
}

impl VolArgsV2 {
    /// `words` must outlive the request.
    fn inherit(&mut self, words: &[u64], qgroups: &[u64]) {
        // Without quotas the kernel would refuse even an empty list.
        if !qgroups.is_empty() {
            self.flags |= SUBVOL_QGROUP_INHERIT;
            self.inherit_size = size_of_val(words) as u64;
            self.inherit = words.as_ptr();
        }
    }
}

/// `BTRFS_IOC_SUBVOL_CREATE_V2`, as a member of these qgroups.
pub(crate) fn subvol_create(
    parent: BorrowedFd<'_>,
    name: &[u8],
    qgroups: &[u64],
) -> Result<(), Errno> {
    let mut args = vol_args(name)?;
    let words = qgroup_inherit(qgroups);
    args.inherit(&words, qgroups);
    // SAFETY: the request reads one `VolArgsV2`; it and what it points to,
    // `inherit_size` bytes, live until the end of this function.
    unsafe { call(parent, SUBVOL_CREATE_V2, &raw mut *args) }.map(drop)
}

/// `BTRFS_IOC_SNAP_CREATE_V2`, as a member of these qgroups.
pub(crate) fn snap_create(
    parent: BorrowedFd<'_>,
    source: BorrowedFd<'_>,
    name: &[u8],
    read_only: bool,
    qgroups: &[u64],
) -> Result<(), Errno> {
    let mut args = vol_args(name)?;
    args.fd = i64::from(source.as_raw_fd());
    args.flags = if read_only { SUBVOL_RDONLY } else { 0 };
    let words = qgroup_inherit(qgroups);
    args.inherit(&words, qgroups);
    // SAFETY: the request reads one `VolArgsV2`; the descriptor in it is
    // borrowed for the call; it and what it points to, `inherit_size` bytes,
    // live until the end of this function.
    unsafe { call(parent, SNAP_CREATE_V2, &raw mut *args) }.map(drop)
}

/// `BTRFS_IOC_SNAP_DESTROY_V2` by name, or `BTRFS_IOC_SNAP_DESTROY` on a kernel
/// before 5.7.
pub(crate) fn snap_destroy(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let mut args = vol_args(name)?;
    // SAFETY: the request reads one `VolArgsV2`, alive until the end of this
    // function; flags are zero, so its union is a name that ends in a NUL.
    match unsafe { call(parent, SNAP_DESTROY_V2, &raw mut *args) } {
        Err(Errno::ENOTTY) => {
            let mut args = Box::new(VolArgs {
                fd: 0,
                name: [0; 4088],
            });
            put_name(&mut args.name, name)?;
            // SAFETY: as above, with the structure of the older request.
            unsafe { call(parent, SNAP_DESTROY, &raw mut *args) }.map(drop)
        }
        other => other.map(drop),
    }
}

/// `BTRFS_IOC_SNAP_DESTROY_V2` by id.
pub(crate) fn snap_destroy_by_id(fs: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    let mut args = vol_args(&[])?;
    args.flags = SUBVOL_SPEC_BY_ID;
    args.name[..8].copy_from_slice(&id.to_ne_bytes());
    // SAFETY: the request reads one `VolArgsV2`; with this flag its union is
    // the id just stored.
    unsafe { call(fs, SNAP_DESTROY_V2, &raw mut *args) }.map(drop)
}

/// `BTRFS_IOC_SUBVOL_GETFLAGS`.
pub(crate) fn subvol_getflags(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut flags = 0u64;
    // SAFETY: the request writes one u64.
    unsafe { call(fd, SUBVOL_GETFLAGS, &raw mut flags) }?;
    Ok(flags)
}

/// `BTRFS_IOC_SUBVOL_SETFLAGS`.
pub(crate) fn subvol_setflags(fd: BorrowedFd<'_>, mut flags: u64) -> Result<(), Errno> {
    // SAFETY: the request reads one u64.
    unsafe { call(fd, SUBVOL_SETFLAGS, &raw mut flags) }.map(drop)
}

/// `BTRFS_IOC_GET_SUBVOL_INFO`: of the subvolume that contains `fd`.
pub(crate) fn subvol_info(fd: BorrowedFd<'_>) -> Result<Box<SubvolInfoArgs>, Errno> {
    let mut args = Box::new(SubvolInfoArgs {
        treeid: 0,
        name: [0; 256],
        parent_id: 0,
        dirid: 0,
        generation: 0,
        flags: 0,
        uuid: [0; 16],
        parent_uuid: [0; 16],
        received_uuid: [0; 16],
        ctransid: 0,
        otransid: 0,
        stransid: 0,
        rtransid: 0,
        ctime: Timespec::default(),
        otime: Timespec::default(),
        stime: Timespec::default(),
        rtime: Timespec::default(),
        reserved: [0; 8],
    });
    // SAFETY: the request writes one `SubvolInfoArgs` of plain integers.
    unsafe { call(fd, GET_SUBVOL_INFO, &raw mut *args) }?;
    Ok(args)
}

/// `BTRFS_IOC_GET_SUBVOL_ROOTREF`: children of the subvolume that contains
/// `fd`, with ids from `min_treeid` on. True: there are more rows.
pub(crate) fn subvol_rootref(
    fd: BorrowedFd<'_>,
    min_treeid: u64,
) -> Result<(Vec<RootRef>, bool), Errno> {
    let mut args = Box::new(RootRefArgs {
        min_treeid,
        rootref: [RootRef::default(); MAX_ROOTREF_BUFFER_NUM],
        num_items: 0,
        align: [0; 7],
    });
    // SAFETY: the request reads and writes one `RootRefArgs` of integers.
    let more = match unsafe { call(fd, GET_SUBVOL_ROOTREF, &raw mut *args) } {
        Ok(_) => false,
        // Not a failure: the rows are valid and there are more of them.
        Err(Errno::EOVERFLOW) => true,
        Err(errno) => return Err(errno),
    };
    let rows = args
        .rootref
        .iter()
        .take(usize::from(args.num_items))
        .copied()
        .collect();
    Ok((rows, more))
}

/// `BTRFS_IOC_INO_LOOKUP` with tree 0 and objectid 256: the subvolume that
/// contains `fd`. Needs no privilege.
pub(crate) fn containing_tree(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut args = Box::new(InoLookupArgs {
        treeid: 0,
        objectid: FIRST_FREE_OBJECTID,
        name: [0; 4080],
    });
    // SAFETY: the request reads and writes one `InoLookupArgs`.
    unsafe { call(fd, INO_LOOKUP, &raw mut *args) }?;
    Ok(args.treeid)
}

/// `BTRFS_IOC_INO_LOOKUP`: path of a directory inside a tree; ends in `/`
/// unless it is empty.
pub(crate) fn ino_lookup(fs: BorrowedFd<'_>, treeid: u64, dirid: u64) -> Result<Vec<u8>, Errno> {
    let mut args = InoLookupArgs {
        treeid,
        objectid: dirid,
        name: [0; 4080],
    };
    // SAFETY: the request reads and writes one `InoLookupArgs`.
    unsafe { call(fs, INO_LOOKUP, &raw mut args) }?;
    Ok(until_nul(&args.name).to_vec())
}

/// `BTRFS_IOC_INO_LOOKUP_USER`: name of a child, and the path of the directory
/// that holds it below `fd` (ends in `/` unless it is empty).
pub(crate) fn ino_lookup_user(
    fd: BorrowedFd<'_>,
    treeid: u64,
    dirid: u64,
) -> Result<(Vec<u8>, Vec<u8>), Errno> {
    let mut args = Box::new(InoLookupUserArgs {
        dirid,
        treeid,
        name: [0; 256],
        path: [0; 3824],
    });
    // SAFETY: the request reads and writes one `InoLookupUserArgs`.
    unsafe { call(fd, INO_LOOKUP_USER, &raw mut *args) }?;
    Ok((
        until_nul(&args.name).to_vec(),
        until_nul(&args.path).to_vec(),
    ))
}

/// `BTRFS_IOC_TREE_SEARCH_V2`: items of `key`'s range, as many as fit, raw.
///
/// On return `key.nr_items` is the number of items and `buffer` holds them. It
/// has at least `room` bytes, more when the first item alone does not fit.
pub(crate) fn tree_search(
    fs: BorrowedFd<'_>,
    key: &mut SearchKey,
    buffer: &mut Vec<u64>,
    room: usize,
) -> Result<(), Errno> {
    const HEAD: usize = size_of::<SearchArgsV2>() / size_of::<u64>();
    let words = HEAD + room.div_ceil(size_of::<u64>());
    buffer.resize(words.max(buffer.len()), 0);
    loop {
        let room = ((buffer.len() - HEAD) * size_of::<u64>()) as u64;
        let head = buffer.as_mut_ptr().cast::<SearchArgsV2>();
        // SAFETY: `buffer` has HEAD words at least (above) and, being made
        // of u64, aligned for `SearchArgsV2`, which is all integers.
        unsafe {
            head.write(SearchArgsV2 {
                key: *key,
                buf_size: room,
            })
        };
        // SAFETY: the request reads the head, then writes it and at most
        // `buf_size` bytes behind it: exactly the rest of `buffer`.
        let result = unsafe { call(fs, TREE_SEARCH_V2, head) };
        // SAFETY: the head was written above and the kernel writes integers.
        let answer = unsafe { head.read() };
        match result {
            Ok(_) => {
                *key = answer.key;
                return Ok(());
            }
            Err(Errno::EOVERFLOW) if answer.buf_size > room && answer.buf_size <= 16 << 20 => {
                // The needed size was checked to be at most 16 MiB.
                buffer.resize(
                    HEAD + (answer.buf_size as usize).div_ceil(size_of::<u64>()),
                    0,
                );
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// The bytes behind the head of a buffer that [`tree_search`] filled.
pub(crate) fn search_items(buffer: &[u64]) -> &[u8] {
    const HEAD: usize = size_of::<SearchArgsV2>() / size_of::<u64>();
    let words = buffer.get(HEAD..).unwrap_or_default();
    // SAFETY: a slice of u64 is initialised memory of eight bytes a word, and
    // u8 has no alignment; the lifetime is that of `buffer`.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(words)) }
}

/// `BTRFS_IOC_FS_INFO`, asking for the fields of `flags`.
pub(crate) fn fs_info(fd: BorrowedFd<'_>, flags: u64) -> Result<Box<FsInfoArgs>, Errno> {
    let mut args = Box::new(FsInfoArgs {
        max_id: 0,
        num_devices: 0,
        fsid: [0; 16],
        nodesize: 0,
        sectorsize: 0,
        clone_alignment: 0,
        csum_type: 0,
        csum_size: 0,
        flags,
        generation: 0,
        metadata_uuid: [0; 16],
        reserved: [0; 944],
    });
    // SAFETY: the request reads and writes one `FsInfoArgs` of integers.
    unsafe { call(fd, FS_INFO, &raw mut *args) }?;
    Ok(args)
}

/// `BTRFS_IOC_DEV_INFO`.
pub(crate) fn dev_info(fd: BorrowedFd<'_>, devid: u64) -> Result<Box<DevInfoArgs>, Errno> {
    let mut args = Box::new(DevInfoArgs {
        devid,
        uuid: [0; 16],
        bytes_used: 0,
        total_bytes: 0,
        unused: [0; 379],
        path: [0; 1024],
    });
    // SAFETY: the request reads and writes one `DevInfoArgs` of integers.
    unsafe { call(fd, DEV_INFO, &raw mut *args) }?;
    Ok(args)
}

/// `BTRFS_IOC_GET_DEV_STATS`, without the reset flag.
pub(crate) fn dev_stats(
    fd: BorrowedFd<'_>,
    devid: u64,
) -> Result<[u64; DEV_STAT_VALUES_MAX], Errno> {
    let mut args = Box::new(DevStatsArgs {
        devid,
        nr_items: DEV_STAT_VALUES_MAX as u64,
        flags: 0,
        values: [0; DEV_STAT_VALUES_MAX],
        unused: [0; 121],
    });
    // SAFETY: the request reads and writes one `DevStatsArgs` of integers.
    unsafe { call(fd, GET_DEV_STATS, &raw mut *args) }?;
    Ok(args.values)
}

/// `BTRFS_IOC_SPACE_INFO`: one row for each kind of block group.
pub(crate) fn space_info(fd: BorrowedFd<'_>) -> Result<Vec<SpaceInfo>, Errno> {
    const HEAD: usize = size_of::<SpaceArgs>() / size_of::<u64>();
    const ROW: usize = size_of::<SpaceInfo>() / size_of::<u64>();
    // More than there are in general, so that one call is enough.
    let mut slots = 16usize;
    // The kernel answers how many rows it wrote. A full buffer may have cut some off, so it is made
    // larger than the answer.
    loop {
        let mut buffer = vec![0u64; HEAD + slots * ROW];
        buffer[0] = slots as u64;
        // SAFETY: the request reads the head, then writes it and at most
        // `space_slots` rows behind it: exactly the rest of `buffer`.
        unsafe { call(fd, SPACE_INFO, buffer.as_mut_ptr().cast::<SpaceArgs>()) }?;
        let rows = usize::try_from(buffer[1]).map_err(|_| Errno::EOVERFLOW)?;
        if rows < slots {
            return Ok(buffer[HEAD..]
                .chunks_exact(ROW)
                .take(rows)
                .map(|row| SpaceInfo {
                    flags: row[0],
                    total_bytes: row[1],
                    used_bytes: row[2],
                })
                .collect());
        }
        slots *= 2;
        // About ten in truth: the limit keeps a wild number from memory.
        if slots > 4096 {
            return Err(Errno::EOVERFLOW);
        }
    }
}

/// `BTRFS_IOC_GET_FSLABEL`.
pub(crate) fn get_label(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut label = [0u8; 256];
    // SAFETY: the request writes 256 bytes.
    unsafe { call(fd, GET_FSLABEL, &raw mut label) }?;
    Ok(until_nul(&label).to_vec())
}

/// `BTRFS_IOC_SET_FSLABEL`.
pub(crate) fn set_label(fd: BorrowedFd<'_>, label: &[u8]) -> Result<(), Errno> {
    let mut buffer = [0u8; 256];
    put_name(&mut buffer, label)?;
    // SAFETY: the request reads 256 bytes; the last of them is zero.
    unsafe { call(fd, SET_FSLABEL, &raw mut buffer) }.map(drop)
}

/// `BTRFS_IOC_SYNC`.
pub(crate) fn sync(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the request takes no argument; the pointer is not looked at.
    unsafe { call(fd, SYNC, std::ptr::null_mut::<u8>()) }.map(drop)
}

/// `BTRFS_IOC_SUBVOL_SYNC_WAIT` in count mode: deleted subvolumes that are not
/// cleaned yet. Does not block. `ENOTTY` before Linux 6.13.
pub(crate) fn pending_deletions(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut args = SubvolWait {
        subvolid: 0,
        mode: SUBVOL_SYNC_COUNT,
        count: 0,
    };
    // SAFETY: the request reads and writes one `SubvolWait`.
    unsafe { call(fd, SUBVOL_SYNC_WAIT, &raw mut args) }?;
    Ok(args.count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use std::collections::HashMap;
    use std::process::Command;

    /// C name of the request, of its structure ("" for none), number and size.
    const REQUESTS: &[(&str, &str, Request, usize)] = &[
        ("BTRFS_IOC_SYNC", "", SYNC, 0),
        (
            "BTRFS_IOC_SNAP_DESTROY",
            "struct btrfs_ioctl_vol_args",
            SNAP_DESTROY,
            size_of::<VolArgs>(),
        ),
        (
            "BTRFS_IOC_TREE_SEARCH_V2",
            "struct btrfs_ioctl_search_args_v2",
            TREE_SEARCH_V2,
            size_of::<SearchArgsV2>(),
        ),
        (
            "BTRFS_IOC_INO_LOOKUP",
            "struct btrfs_ioctl_ino_lookup_args",
            INO_LOOKUP,
            size_of::<InoLookupArgs>(),
        ),
        (
            "BTRFS_IOC_SPACE_INFO",
            "struct btrfs_ioctl_space_args",
            SPACE_INFO,
            size_of::<SpaceArgs>(),
        ),
        (
            "BTRFS_IOC_SNAP_CREATE_V2",
            "struct btrfs_ioctl_vol_args_v2",
            SNAP_CREATE_V2,
            size_of::<VolArgsV2>(),
        ),
        (
            "BTRFS_IOC_SUBVOL_CREATE_V2",
            "struct btrfs_ioctl_vol_args_v2",
            SUBVOL_CREATE_V2,
            size_of::<VolArgsV2>(),
        ),
        (
            "BTRFS_IOC_SUBVOL_GETFLAGS",
            "__u64",
            SUBVOL_GETFLAGS,
            size_of::<u64>(),
        ),
        (
            "BTRFS_IOC_SUBVOL_SETFLAGS",
            "__u64",
            SUBVOL_SETFLAGS,
            size_of::<u64>(),
        ),
        (
            "BTRFS_IOC_DEV_INFO",
            "struct btrfs_ioctl_dev_info_args",
            DEV_INFO,
            size_of::<DevInfoArgs>(),
        ),
        (
            "BTRFS_IOC_FS_INFO",
            "struct btrfs_ioctl_fs_info_args",
            FS_INFO,
            size_of::<FsInfoArgs>(),
        ),
        ("BTRFS_IOC_GET_FSLABEL", "", GET_FSLABEL, 0),
        ("BTRFS_IOC_SET_FSLABEL", "", SET_FSLABEL, 0),
        (
            "BTRFS_IOC_GET_DEV_STATS",
            "struct btrfs_ioctl_get_dev_stats",
            GET_DEV_STATS,
            size_of::<DevStatsArgs>(),
        ),
        (
            "BTRFS_IOC_GET_SUBVOL_INFO",
            "struct btrfs_ioctl_get_subvol_info_args",
            GET_SUBVOL_INFO,
            size_of::<SubvolInfoArgs>(),
        ),
        (
            "BTRFS_IOC_GET_SUBVOL_ROOTREF",
            "struct btrfs_ioctl_get_subvol_rootref_args",
            GET_SUBVOL_ROOTREF,
            size_of::<RootRefArgs>(),
        ),
        (
            "BTRFS_IOC_INO_LOOKUP_USER",
            "struct btrfs_ioctl_ino_lookup_user_args",
            INO_LOOKUP_USER,
            size_of::<InoLookupUserArgs>(),
        ),
        (
            "BTRFS_IOC_SNAP_DESTROY_V2",
            "struct btrfs_ioctl_vol_args_v2",
            SNAP_DESTROY_V2,
            size_of::<VolArgsV2>(),
        ),
        (
            "BTRFS_IOC_SUBVOL_SYNC_WAIT",
            "struct btrfs_ioctl_subvol_wait",
            SUBVOL_SYNC_WAIT,
            size_of::<SubvolWait>(),
        ),
    ];

    /// Constants, and the number of bytes before a member.
    const NUMBERS: &[(&str, u64)] = &[
        ("BTRFS_SUPER_MAGIC", BTRFS_SUPER_MAGIC as u64),
        ("BTRFS_FIRST_FREE_OBJECTID", FIRST_FREE_OBJECTID),
        ("BTRFS_LAST_FREE_OBJECTID", LAST_FREE_OBJECTID),
        ("BTRFS_ROOT_TREE_OBJECTID", ROOT_TREE_OBJECTID),
        ("BTRFS_UUID_TREE_OBJECTID", UUID_TREE_OBJECTID),
        ("BTRFS_UUID_KEY_SUBVOL", UUID_KEY_SUBVOL as u64),
        (
            "BTRFS_UUID_KEY_RECEIVED_SUBVOL",
            UUID_KEY_RECEIVED_SUBVOL as u64,
        ),
        ("BTRFS_ORPHAN_OBJECTID", ORPHAN_OBJECTID),
        ("BTRFS_ORPHAN_ITEM_KEY", ORPHAN_ITEM_KEY as u64),
        ("BTRFS_INODE_ITEM_KEY", INODE_ITEM_KEY as u64),
        ("offsetof(struct btrfs_inode_item, generation)", 0),
        ("BTRFS_ROOT_ITEM_KEY", ROOT_ITEM_KEY as u64),
        ("BTRFS_ROOT_BACKREF_KEY", ROOT_BACKREF_KEY as u64),
        ("BTRFS_SUBVOL_RDONLY", SUBVOL_RDONLY),
        ("BTRFS_ROOT_SUBVOL_RDONLY", ROOT_SUBVOL_RDONLY),
        ("BTRFS_SUBVOL_SPEC_BY_ID", SUBVOL_SPEC_BY_ID),
        ("BTRFS_SUBVOL_QGROUP_INHERIT", SUBVOL_QGROUP_INHERIT),
        (
            "offsetof(struct btrfs_ioctl_vol_args_v2, size)",
            offset_of!(VolArgsV2, inherit_size) as u64,
        ),
        (
            "offsetof(struct btrfs_ioctl_vol_args_v2, qgroup_inherit)",
            offset_of!(VolArgsV2, inherit) as u64,
        ),
        ("offsetof(struct btrfs_qgroup_inherit, num_qgroups)", 8),
        ("sizeof(struct btrfs_qgroup_inherit)", 72),
        ("BTRFS_FS_INFO_FLAG_GENERATION", FS_INFO_FLAG_GENERATION),
        ("BTRFS_DEV_STAT_VALUES_MAX", DEV_STAT_VALUES_MAX as u64),
        (
            "BTRFS_MAX_ROOTREF_BUFFER_NUM",
            MAX_ROOTREF_BUFFER_NUM as u64,
        ),
        (
            "sizeof(struct btrfs_ioctl_space_info)",
            size_of::<SpaceInfo>() as u64,
        ),
        ("sizeof(struct btrfs_ioctl_search_header)", 32),
        (
            "offsetof(struct btrfs_ioctl_get_subvol_info_args, rtime)",
            offset_of!(SubvolInfoArgs, rtime) as u64,
        ),
        (
            "offsetof(struct btrfs_ioctl_dev_info_args, path)",
            offset_of!(DevInfoArgs, path) as u64,
        ),
        (
            "offsetof(struct btrfs_ioctl_fs_info_args, generation)",
            offset_of!(FsInfoArgs, generation) as u64,
        ),
        (
            "offsetof(struct btrfs_ioctl_vol_args_v2, subvolid)",
            offset_of!(VolArgsV2, name) as u64,
        ),
        ("sizeof(struct btrfs_root_item)", 439),
        ("offsetof(struct btrfs_root_item, generation)", 160),
        ("offsetof(struct btrfs_root_item, flags)", 208),
        ("offsetof(struct btrfs_root_item, refs)", 216),
        ("offsetof(struct btrfs_root_item, generation_v2)", 239),
        ("offsetof(struct btrfs_root_item, ctransid)", 295),
        ("offsetof(struct btrfs_root_item, rtime)", 363),
        ("sizeof(struct btrfs_root_ref)", 18),
    ];

    #[test]
    #[allow(clippy::useless_conversion, reason = "with musl the number is a c_int")]
    fn numbers_match_the_header() {
        let mut program = String::from(
            "#include <stdio.h>\n#include <stddef.h>\n#include <linux/magic.h>\n\
             #include <linux/fs.h>\n#include <linux/btrfs.h>\n#include <linux/btrfs_tree.h>\nint main(void) {\n",
        );
        let requests = || {
            let all = [REQUESTS, super::admin::REQUESTS, super::stream::REQUESTS];
            all.into_iter().flatten()
        };
        for (name, kind, _, _) in requests() {
            // A header may be older than the request.
            program += &format!("#ifdef {name}\n");
            program += &format!("printf(\"{name} %llu\\n\", (unsigned long long){name});\n");
            if !kind.is_empty() {
                program += &format!("printf(\"size {name} %zu\\n\", sizeof({kind}));\n");
            }
            program += "#endif\n";
        }
        for (expression, _) in NUMBERS {
            program +=
                &format!("printf(\"{expression} %llu\\n\", (unsigned long long)({expression}));\n");
        }
        program += "return 0; }\n";
        let dir = tempfile::tempdir().unwrap();
        let (source, probe) = (dir.path().join("probe.c"), dir.path().join("probe"));
        std::fs::write(&source, program).unwrap();
        let compiled = Command::new("cc")
            .arg(&source)
            .arg("-o")
            .arg(&probe)
            .output()
            .unwrap();
        assert!(
            compiled.status.success(),
            "{}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        let output = Command::new(&probe).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let seen: HashMap<&str, u64> = text
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, number)| (name, number.parse().unwrap()))
            .collect();
        let mut checked = 0;
        for (name, kind, number, size) in requests() {
            let Some(&expected) = seen.get(name) else {
                assert_eq!(
                    *name, "BTRFS_IOC_SUBVOL_SYNC_WAIT",
                    "not in the header: {name}"
                );
                continue;
            };
            assert_eq!(u64::from(*number), expected, "{name}");
            if !kind.is_empty() {
                assert_eq!(
                    Some(&(*size as u64)),
                    seen.get(&*format!("size {name}")),
                    "{name}"
                );
            }
            checked += 1;
        }
        assert!(checked >= requests().count() - 1);
        for (expression, number) in NUMBERS {
            assert_eq!(seen.get(expression), Some(number), "{expression}");
        }
    }

    #[test]
    fn the_number_that_old_headers_lack() {
        // _IOW(0x94, 65, 16 bytes), Linux 6.13, include/uapi/linux/btrfs.h.
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            assert_eq!(SUBVOL_SYNC_WAIT, 0x4010_9441);
        }
    }

    #[test]
    fn names_keep_their_nul() {
        let mut buffer = [0u8; 4];
        assert_eq!(put_name(&mut buffer, b"abc"), Ok(()));
        assert_eq!(buffer, *b"abc\0");
        assert_eq!(put_name(&mut buffer, b"abcd"), Err(Errno::ENAMETOOLONG));
        assert_eq!(until_nul(&buffer), b"abc");
        assert_eq!(until_nul(b"abc"), b"abc");
    }
}
