//! Requests of send and receive, and what moves file content.

use std::ffi::CStr;
use std::io::IoSlice;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::{request_code_readwrite, request_code_write};

use super::{FIRST_FREE_OBJECTID, MAGIC, Request, Timespec, call};

/// `BTRFS_SEND_FLAG_NO_FILE_DATA`, `_OMIT_STREAM_HEADER`, `_OMIT_END_CMD`,
/// `_VERSION`, `_COMPRESSED`.
pub(crate) const SEND_FLAG_NO_FILE_DATA: u64 = 1 << 0;
pub(crate) const SEND_FLAG_VERSION: u64 = 1 << 3;
pub(crate) const SEND_FLAG_COMPRESSED: u64 = 1 << 4;

/// `struct btrfs_ioctl_send_args`.
#[repr(C)]
pub(super) struct SendArgs {
    send_fd: i64,
    clone_sources_count: u64,
    clone_sources: *const u64,
    parent_root: u64,
    flags: u64,
    version: u32,
    reserved: [u8; 28],
}
// 68 with 32-bit pointers, where the structure is padded differently.
const _: () = assert!(size_of::<SendArgs>() == 72 || cfg!(not(target_pointer_width = "64")));

/// `struct btrfs_ioctl_received_subvol_args`.
#[repr(C)]
pub(super) struct ReceivedSubvolArgs {
    uuid: [u8; 16],
    stransid: u64,
    rtransid: u64,
    stime: Timespec,
    rtime: Timespec,
    flags: u64,
    reserved: [u64; 16],
}
// 192 on 32-bit x86, where a u64 is aligned to four bytes.
const _: () = assert!(size_of::<ReceivedSubvolArgs>() == 200 || cfg!(target_arch = "x86"));

/// `struct btrfs_ioctl_encoded_io_args`.
#[repr(C)]
pub(super) struct EncodedArgs {
    iov: *const libc::iovec,
    iovcnt: libc::c_ulong,
    offset: i64,
    flags: u64,
    len: u64,
    unencoded_len: u64,
    unencoded_offset: u64,
    compression: u32,
    encryption: u32,
    reserved: [u8; 64],
}
const _: () = assert!(size_of::<EncodedArgs>() == 128 || cfg!(not(target_pointer_width = "64")));

/// `struct file_clone_range`, linux/fs.h.
#[repr(C)]
pub(super) struct CloneRange {
    src_fd: i64,
    src_offset: u64,
    src_length: u64,
    dest_offset: u64,
}
const _: () = assert!(size_of::<CloneRange>() == 32);

/// `struct file_handle` with the file id that Btrfs puts into it
/// (`FILEID_BTRFS_WITHOUT_PARENT`, linux/exportfs.h).
#[repr(C)]
struct Handle {
    handle_bytes: u32,
    handle_type: i32,
    /// objectid and tree, two words each, and the inode's generation.
    fid: [u32; 5],
}

pub(super) const CLONE_RANGE: Request = request_code_write!(MAGIC, 13, size_of::<CloneRange>());
pub(super) const SET_RECEIVED_SUBVOL: Request =
    request_code_readwrite!(MAGIC, 37, size_of::<ReceivedSubvolArgs>());
pub(super) const SEND: Request = request_code_write!(MAGIC, 38, size_of::<SendArgs>());
pub(super) const ENCODED_WRITE: Request = request_code_write!(MAGIC, 64, size_of::<EncodedArgs>());

/// For `REQUESTS` of the tests beside this file.
#[cfg(test)]
pub(super) const REQUESTS: &[(&str, &str, Request, usize)] = &[
    (
        "FICLONERANGE",
        "struct file_clone_range",
        CLONE_RANGE,
        size_of::<CloneRange>(),
    ),
    (
        "BTRFS_IOC_SET_RECEIVED_SUBVOL",
        "struct btrfs_ioctl_received_subvol_args",
        SET_RECEIVED_SUBVOL,
        size_of::<ReceivedSubvolArgs>(),
    ),
    (
        "BTRFS_IOC_SEND",
        "struct btrfs_ioctl_send_args",
        SEND,
        size_of::<SendArgs>(),
    ),
    (
        "BTRFS_IOC_ENCODED_WRITE",
        "struct btrfs_ioctl_encoded_io_args",
        ENCODED_WRITE,
        size_of::<EncodedArgs>(),
    ),
];

/// `BTRFS_IOC_SET_RECEIVED_SUBVOL`; a zero UUID forgets the origin. Returns the
/// transaction of the change.
pub(crate) fn set_received(
    fd: BorrowedFd<'_>,
    uuid: [u8; 16],
    stransid: u64,
) -> Result<u64, Errno> {
    let mut args = ReceivedSubvolArgs {
        uuid,
        stransid,
        rtransid: 0,
        stime: Timespec::default(),
        rtime: Timespec::default(),
        flags: 0,
        reserved: [0; 16],
    };
    // SAFETY: the request reads and writes one `ReceivedSubvolArgs`.
    unsafe { call(fd, SET_RECEIVED_SUBVOL, &raw mut args) }?;
    Ok(args.rtransid)
}

/// `BTRFS_IOC_SEND`: blocks until the stream is written to `to`.
pub(crate) fn send(
    snapshot: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    parent: u64,
    clone_sources: &[u64],
    flags: u64,
    version: u32,
) -> Result<(), Errno> {
    let mut args = SendArgs {
        send_fd: i64::from(to.as_raw_fd()),
        clone_sources_count: clone_sources.len() as u64,
        clone_sources: clone_sources.as_ptr(),
        parent_root: parent,
        flags,
        version,
        reserved: [0; 28],
    };
    // SAFETY: the request reads one `SendArgs` and, through its pointer, as
    // many ids as it says; both are borrowed for the call.
    unsafe { call(snapshot, SEND, &raw mut args) }.map(drop)
}

/// What `BTRFS_IOC_ENCODED_WRITE` needs to know of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) unencoded_len: u64,
    pub(crate) unencoded_offset: u64,
    pub(crate) compression: u32,
    pub(crate) encryption: u32,
}

/// `BTRFS_IOC_ENCODED_WRITE`.
pub(crate) fn encoded_write(
    fd: BorrowedFd<'_>,
    encoding: Encoding,
    data: &[u8],
) -> Result<(), Errno> {
    let iov = [IoSlice::new(data)];
    let mut args = EncodedArgs {
        // `IoSlice` has the layout of an iovec, by its documentation.
        iov: iov.as_ptr().cast(),
        iovcnt: 1,
        offset: i64::try_from(encoding.offset).map_err(|_| Errno::EFBIG)?,
        flags: 0,
        len: encoding.len,
        unencoded_len: encoding.unencoded_len,
        unencoded_offset: encoding.unencoded_offset,
        compression: encoding.compression,
        encryption: encoding.encryption,
        reserved: [0; 64],
    };
    // SAFETY: the request reads one `EncodedArgs` and, through its pointer, one
    // iovec and the bytes of `data`; all are borrowed for the call.
    unsafe { call(fd, ENCODED_WRITE, &raw mut args) }.map(drop)
}

/// `FICLONERANGE`: shares the extents of a range.
pub(crate) fn clone_range(
    to: BorrowedFd<'_>,
    to_offset: u64,
    from: BorrowedFd<'_>,
    from_offset: u64,
    length: u64,
) -> Result<(), Errno> {
    let mut args = CloneRange {
        src_fd: i64::from(from.as_raw_fd()),
        src_offset: from_offset,
        src_length: length,
        dest_offset: to_offset,
    };
    // SAFETY: the request reads one `CloneRange`; the descriptor in it is
    // borrowed for the call.
    unsafe { call(to, CLONE_RANGE, &raw mut args) }.map(drop)
}

/// Opens the root directory of the subvolume `id` by file handle: no path to it
/// is needed. Needs `CAP_DAC_READ_SEARCH`. `generation` is that of the directory's
/// inode.
pub(crate) fn open_root_by_id(
    fs: BorrowedFd<'_>,
    id: u64,
    generation: u64,
) -> Result<OwnedFd, Errno> {
    const FILEID_BTRFS_WITHOUT_PARENT: i32 = 0x4d;
    let (low, high) = (|v: u64| v as u32, |v: u64| (v >> 32) as u32);
    let words = |v: u64| {
        if cfg!(target_endian = "little") {
            [low(v), high(v)]
        } else {
            [high(v), low(v)]
        }
    };
    let ([a, b], [c, d]) = (words(FIRST_FREE_OBJECTID), words(id));
    let mut handle = Handle {
        handle_bytes: 20,
        handle_type: FILEID_BTRFS_WITHOUT_PARENT,
        fid: [a, b, c, d, low(generation)],
    };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the kernel reads `handle_bytes` bytes behind the two integers at
    // the start of `Handle`, which is its whole size.
    let raw = Errno::result(unsafe {
        libc::open_by_handle_at(fs.as_raw_fd(), (&raw mut handle).cast(), flags)
    })?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// `lsetxattr`: of a symbolic link itself, if `path` is one.
pub(crate) fn set_xattr(path: &CStr, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: two strings with their NUL and a buffer with its length, all
    // borrowed for the call.
    let result = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// `fsetxattr`.
pub(crate) fn set_xattr_of(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: a string with its NUL and a buffer with its length, borrowed for
    // the call, as the descriptor is.
    let result = unsafe {
        libc::fsetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// `lremovexattr`.
pub(crate) fn remove_xattr(path: &CStr, name: &CStr) -> Result<(), Errno> {
    // SAFETY: two strings with their NUL, borrowed for the call.
    Errno::result(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

/// `fremovexattr`.
pub(crate) fn remove_xattr_of(fd: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    // SAFETY: a string with its NUL, borrowed for the call as the descriptor is.
    Errno::result(unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// `fgetxattr`, of a value of at most `N` bytes.
pub(crate) fn xattr_of<const N: usize>(fd: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>, Errno> {
    let mut buffer = [0u8; N];
    // SAFETY: a string with its NUL, and a buffer of the length that is given.
    let length = Errno::result(unsafe {
        libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), N)
    })?;
    // The kernel wrote at most `N` bytes and returned how many.
    Ok(buffer[..usize::try_from(length).unwrap_or(0).min(N)].to_vec())
}
