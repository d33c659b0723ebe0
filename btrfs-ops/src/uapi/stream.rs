//! Requests of send and receive, and what moves file content.

use std::mem::size_of;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::request_code_readwrite;

use super::{MAGIC, Request, Timespec, call};

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

pub(super) const SET_RECEIVED_SUBVOL: Request =
    request_code_readwrite!(MAGIC, 37, size_of::<ReceivedSubvolArgs>());

/// For `REQUESTS` of the tests beside this file.
#[cfg(test)]
pub(super) const REQUESTS: &[(&str, &str, Request, usize)] = &[(
    "BTRFS_IOC_SET_RECEIVED_SUBVOL",
    "struct btrfs_ioctl_received_subvol_args",
    SET_RECEIVED_SUBVOL,
    size_of::<ReceivedSubvolArgs>(),
)];

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
