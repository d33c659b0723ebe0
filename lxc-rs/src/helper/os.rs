//! The few system calls that `std` has no function for.

use std::ffi::{CString, c_char, c_int, c_long, c_short, c_uint, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::wire;

unsafe extern "C" {
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
    fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int;
    fn write(fd: c_int, data: *const c_void, length: usize) -> isize;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn renameat2(
        from_dir: c_int,
        from: *const c_char,
        to_dir: c_int,
        to: *const c_char,
        flags: c_uint,
    ) -> c_int;
    #[link_name = "free"]
    fn c_free(memory: *mut c_void);
}

/// `struct pollfd`, poll.h.
#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

const F_SETFD: c_int = 2;
const FD_CLOEXEC: c_int = 1;
const O_CLOEXEC: c_int = 0o2_000_000;
const POLLIN: c_short = 1;
const SIGKILL: c_int = 9;
// These two numbers are the same on every architecture but alpha.
const SYS_PIDFD_OPEN: c_long = 434;
const SYS_CLOSE_RANGE: c_long = 436;
const CLOSE_RANGE_CLOEXEC: c_uint = 4;

const RENAME_EXCHANGE: c_uint = 2;

/// `struct btrfs_ioctl_vol_args_v2`, linux/btrfs.h.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

const _: () = assert!(size_of::<VolArgsV2>() == 4096);

/// `_IOW(0x94, nr, 4096 bytes)`: as most architectures write it, and as
/// those that have one direction bit more do.
const fn btrfs_write(nr: c_ulong) -> c_ulong {
    let direction = if cfg!(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "powerpc",
        target_arch = "powerpc64",
        target_arch = "sparc64"
    )) {
        4 << 29
    } else {
        1 << 30
    };
    direction | (4096 << 16) | (0x94 << 8) | nr
}

/// `BTRFS_IOC_SNAP_CREATE_V2`
const SNAP_CREATE_V2: c_ulong = btrfs_write(23);
/// `BTRFS_IOC_SNAP_DESTROY`, whose 4096 bytes are a descriptor and a name.
const SNAP_DESTROY: c_ulong = btrfs_write(15);

/// Frees what liblxc allocated.
pub(crate) fn free(memory: *mut c_void) {
    // SAFETY: callers pass memory that liblxc allocated for them, once.
    unsafe { c_free(memory) };
}

/// Lets what a template prints end up in the log.
pub(crate) fn log_output() {
    let log = format!("/proc/self/fd/{}", wire::LOG);
    let Ok(log) = File::options().append(true).open(log) else {
        return;
    };
    for number in 1..3 {
        // SAFETY: replaces standard output and error, which nothing here owns.
        unsafe { dup2(log.as_raw_fd(), number) };
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}

/// Splits a path into its directory, opened, and the name in it.
fn parent(path: &Path) -> io::Result<(File, &[u8])> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Ok((File::open(dir)?, name.as_encoded_bytes()))
}

/// Makes a writable Btrfs snapshot of `from` at `to`. On disk when it returns.
pub(crate) fn snapshot(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let (dir, name) = parent(to)?;
    let mut args = VolArgsV2 {
        fd: source.as_raw_fd().into(),
        transid: 0,
        flags: 0,
        unused: [0; 4],
        name: [0; 4040],
    };
    let room = args.name.get_mut(..name.len());
    room.ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(name);
    // SAFETY: reads one `VolArgsV2`, whose layout is asserted above; the name
    // is a file name, at most 255 bytes, and the rest of it is zero.
    match unsafe { ioctl(dir.as_raw_fd(), SNAP_CREATE_V2, &raw mut args) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets two paths change places.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let (one, other) = (c_path(one)?, c_path(other)?);
    // AT_FDCWD: both are absolute.
    let here = -100;
    // SAFETY: two C strings that live during the call.
    let done = unsafe { renameat2(here, one.as_ptr(), here, other.as_ptr(), RENAME_EXCHANGE) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Deletes a subvolume; with subvolumes in it, these and all files one by one.
/// Nothing there is fine.
pub(crate) fn delete_tree(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let (dir, name) = parent(path)?;
    let mut args = [0_u8; 4096];
    let room = args.get_mut(8..8 + name.len());
    room.ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(name);
    // SAFETY: reads 4096 bytes, a number (unused) and a name that ends in NUL.
    let done = unsafe { ioctl(dir.as_raw_fd(), SNAP_DESTROY, args.as_mut_ptr()) };
    match done {
        0 => Ok(()),
        _ => std::fs::remove_dir_all(path),
    }
}

/// Our end of the socket to the library.
pub(crate) fn socket() -> UnixStream {
    // SAFETY: the library put the socket at this number before it executed us,
    // and nothing else in this program takes it.
    unsafe { UnixStream::from_raw_fd(wire::SOCKET) }
}

/// Marks every descriptor from `first` on, so that nothing of the host
/// program's is handed to what we execute.
pub(crate) fn close_on_exec_from(first: RawFd) {
    // SAFETY: changes a flag of descriptors and reads no memory.
    let done = unsafe {
        syscall(
            SYS_CLOSE_RANGE,
            first as c_uint,
            c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        return;
    }
    // Before Linux 5.11 one by one.
    for entry in std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Some(fd) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            && fd >= first
        {
            // SAFETY: changes a flag; a number that is no descriptor is an error, not a hazard.
            unsafe { fcntl(fd, F_SETFD, FD_CLOEXEC) };
        }
    }
}

/// Takes the close-on-exec mark off.
pub(crate) fn keep_on_exec(fd: RawFd) {
    // SAFETY: changes a flag of a descriptor and reads no memory.
    unsafe { fcntl(fd, F_SETFD, 0) };
}

/// Closes descriptors that came by number.
pub(crate) fn close_numbers(fds: &[RawFd]) {
    for fd in fds {
        // SAFETY: these numbers were given to us at execution and no object here owns them.
        unsafe { close(*fd) };
    }
}

/// A pipe, both ends closed on exec.
pub(crate) fn pipe() -> io::Result<(File, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: writes two numbers into an array of two.
    if unsafe { pipe2(fds.as_mut_ptr(), O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are new and nothing else owns them.
    unsafe { Ok((File::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))) }
}

/// A handle on a process; `None` if it is gone.
pub(crate) fn pidfd(pid: i32) -> Option<OwnedFd> {
    // SAFETY: takes two numbers and reads no memory.
    let fd = unsafe { syscall(SYS_PIDFD_OPEN, pid, 0_u32) };
    let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: new, and nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until the process behind `pidfd` has ended; false when the time is over.
pub(crate) fn ended(pidfd: &OwnedFd, within: Duration) -> bool {
    ready([pidfd.as_raw_fd()], within)[0]
}

/// Waits until one of the descriptors is readable or closed; which ones are.
pub(crate) fn ready<const N: usize>(fds: [RawFd; N], within: Duration) -> [bool; N] {
    let mut fds = fds.map(|fd| PollFd {
        fd,
        events: POLLIN,
        revents: 0,
    });
    let millis = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: `N` of `pollfd`, laid out as poll.h has it, alive during the call.
    unsafe { poll(fds.as_mut_ptr(), N as c_ulong, millis) };
    fds.map(|fd| fd.revents != 0)
}

/// Sends a signal to our child `pid`.
pub(crate) fn signal_child(pid: i32, signal: i32) {
    // SAFETY: `pid` is a child of ours that was not waited for, so the number is still its own.
    unsafe { kill(pid, signal) };
}

/// Kills our child `pid`.
pub(crate) fn kill_child(pid: i32) {
    signal_child(pid, SIGKILL);
}

/// Collects our child `pid` and gives its wait status.
pub(crate) fn reap(pid: i32) -> io::Result<i32> {
    loop {
        let mut status = 0;
        // SAFETY: writes one number.
        if unsafe { waitpid(pid, &mut status, 0) } == pid {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Executes `argv`, found along PATH; returns only on failure, with errno.
///
/// # Safety
///
/// `argv` holds pointers to C strings and ends in a null one.
pub(crate) unsafe fn exec(argv: &[*const c_char]) -> i32 {
    // SAFETY: by the caller; there is at least the null pointer to read.
    unsafe { execvp(*argv.first().unwrap_or(&std::ptr::null()), argv.as_ptr()) };
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Writes to a descriptor by number, without allocating.
pub(crate) fn write_raw(fd: RawFd, data: &[u8]) {
    // SAFETY: reads `data`, which is borrowed for the call.
    unsafe { write(fd, data.as_ptr().cast(), data.len()) };
}
