//! The few system calls that `std` has no function for.

use std::ffi::{c_char, c_int, c_long, c_short, c_uint, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
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
    let mut fds = PollFd {
        fd: pidfd.as_raw_fd(),
        events: POLLIN,
        revents: 0,
    };
    let millis = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: one `pollfd`, laid out as poll.h has it, alive during the call.
    unsafe { poll(&mut fds, 1, millis) > 0 }
}

/// Kills our child `pid`.
pub(crate) fn kill_child(pid: i32) {
    // SAFETY: `pid` is a child of ours that was not waited for, so the number is still its own.
    unsafe { kill(pid, SIGKILL) };
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
