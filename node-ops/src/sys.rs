#![allow(
    unsafe_code,
    reason = "system calls without a safe wrapper in nix are here"
)]
//! System calls that nix does not wrap, each with one thin function.

use std::ffi::CStr;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::{request_code_none, request_code_read, sys::ioctl::ioctl_num_type};

/// Makes a descriptor of what a call returned.
fn descriptor(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = Errno::result(result)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// ---- the mount interface of Linux 5.2, include/uapi/linux/mount.h ----------

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
pub(crate) const MOUNT_ATTR_RDONLY: libc::c_uint = 0x01;
pub(crate) const MOUNT_ATTR_NOATIME: libc::c_uint = 0x10;

pub(crate) fn fsopen(fs_type: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: the string is NUL-terminated and lives for the call.
    descriptor(unsafe { libc::syscall(libc::SYS_fsopen, fs_type.as_ptr(), FSOPEN_CLOEXEC) })
}

/// `value` `None` sets a flag.
pub(crate) fn fsconfig_set(
    fs: BorrowedFd<'_>,
    key: &CStr,
    value: Option<&CStr>,
) -> Result<(), Errno> {
    let command = if value.is_some() {
        FSCONFIG_SET_STRING
    } else {
        FSCONFIG_SET_FLAG
    };
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: strings are NUL-terminated and live for the call; this command
    // takes a string, or none for a flag, and an aux of 0.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            command,
            key.as_ptr(),
            value,
            0,
        )
    })
    .map(drop)
}

pub(crate) fn fsconfig_create(fs: BorrowedFd<'_>) -> Result<(), Errno> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes no key, no value and an aux of 0.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            null,
            null,
            0,
        )
    })
    .map(drop)
}

/// A mount that is attached nowhere, as an `O_PATH` descriptor.
pub(crate) fn fsmount(fs: BorrowedFd<'_>, attributes: libc::c_uint) -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    descriptor(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            fs.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            attributes,
        )
    })
}

/// Attaches a mount to the directory `target`.
pub(crate) fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let empty = c"".as_ptr();
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both strings are static; the flags say to use the descriptors.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            empty,
            target.as_raw_fd(),
            empty,
            flags,
        )
    })
    .map(drop)
}

// ---- Btrfs, to check what was mounted -------------------------------------

/// `struct btrfs_ioctl_fs_info_args`, linux/btrfs.h, as far as it is read here.
#[repr(C)]
struct BtrfsFsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u8; 992],
}
const _: () = assert!(size_of::<BtrfsFsInfo>() == 1024 && offset_of!(BtrfsFsInfo, fsid) == 16);
/// `BTRFS_IOC_FS_INFO`.
const BTRFS_FS_INFO: ioctl_num_type = request_code_read!(0x94, 31, size_of::<BtrfsFsInfo>());

/// The UUID of the Btrfs that `fd` is on.
pub(crate) fn btrfs_fsid(fd: BorrowedFd<'_>) -> Result<[u8; 16], Errno> {
    let mut info = BtrfsFsInfo {
        max_id: 0,
        num_devices: 0,
        fsid: [0; 16],
        rest: [0; 992],
    };
    // SAFETY: the request writes one structure of 1024 bytes of integers.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), BTRFS_FS_INFO, &raw mut info) })?;
    Ok(info.fsid)
}

// ---- modules --------------------------------------------------------------

/// `MODULE_INIT_COMPRESSED_FILE`, linux/module.h, Linux 5.17.
pub(crate) const MODULE_INIT_COMPRESSED_FILE: libc::c_int = 4;

pub(crate) fn finit_module(
    file: BorrowedFd<'_>,
    parameters: &CStr,
    flags: libc::c_int,
) -> Result<(), Errno> {
    // SAFETY: the string is NUL-terminated and lives for the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            parameters.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

// ---- processes ------------------------------------------------------------

pub(crate) fn pidfd_open(pid: u32) -> Result<OwnedFd, Errno> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: no pointers. The kernel sets close-on-exec by itself.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

// ---- block devices, linux/fs.h ---------------------------------------------

const BLKRRPART: ioctl_num_type = request_code_none!(0x12, 95);

/// Has the kernel read a disk's partition table again.
pub(crate) fn reread_partitions(disk: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: this request takes no argument.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), BLKRRPART, 0) }).map(drop)
}

const BLKPG: ioctl_num_type = request_code_none!(0x12, 105);
/// `BLKPG_RESIZE_PARTITION`, linux/blkpg.h, Linux 3.6.
const BLKPG_RESIZE_PARTITION: libc::c_int = 3;

/// `struct blkpg_partition`: bytes, and names that nothing reads.
#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    names: [u8; 128],
}
const _: () =
    assert!(size_of::<BlkpgPartition>() == 152 && offset_of!(BlkpgPartition, number) == 16);

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArgument {
    op: libc::c_int,
    flags: libc::c_int,
    size: libc::c_int,
    data: *mut BlkpgPartition,
}

/// Tells the kernel another length of a partition, which may be in use. Where it begins must be as before.
pub(crate) fn resize_partition(
    disk: BorrowedFd<'_>,
    number: u32,
    start: u64,
    length: u64,
) -> Result<(), Errno> {
    let mut partition = BlkpgPartition {
        start: start.try_into().map_err(|_| Errno::EOVERFLOW)?,
        length: length.try_into().map_err(|_| Errno::EOVERFLOW)?,
        number: number.try_into().map_err(|_| Errno::EOVERFLOW)?,
        names: [0; 128],
    };
    let mut argument = BlkpgArgument {
        op: BLKPG_RESIZE_PARTITION,
        flags: 0,
        size: size_of::<BlkpgPartition>() as libc::c_int,
        data: &raw mut partition,
    };
    // SAFETY: both structures have the layouts of the header (checked above) and live for the
    // call; this operation only reads them.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw mut argument) }).map(drop)
}

// ---- sockets --------------------------------------------------------------

/// Asks the kernel to send its error texts along (`NETLINK_EXT_ACK`).
pub(crate) fn netlink_ext_ack(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int; the pointer and its size are of one that
    // lives for the call.
    Errno::result(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_EXT_ACK,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// A socket for whole Ethernet frames that receives none.
pub(crate) fn packet_socket() -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    descriptor(fd.into())
}

/// Sends one frame out of the interface.
pub(crate) fn send_frame(socket: BorrowedFd<'_>, ifindex: u32, frame: &[u8]) -> Result<(), Errno> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: libc::c_int::try_from(ifindex).map_err(|_| Errno::ENXIO)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    // SAFETY: frame and address live for the call, with their own lengths.
    let sent = Errno::result(unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })?;
    if usize::try_from(sent) == Ok(frame.len()) {
        Ok(())
    } else {
        Err(Errno::EMSGSIZE)
    }
}
