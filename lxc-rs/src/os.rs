//! The few system calls that nix has no function for.
#![allow(
    unsafe_code,
    reason = "pidfd_open and pidfd_send_signal have no wrapper in nix"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::Pid;

/// A handle on the process `pid`, closed on exec.
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers and reads no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to exactly the process behind `pidfd`.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means "as kill(2) would".
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as i32,
            info,
            0,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes ownership of a descriptor liblxc returned; a negative number is an errno.
pub(crate) fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: liblxc gives descriptors away: its documentation says the caller closes them.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes by `write` to a socket or pipe whose other end may be gone, without
/// a SIGPIPE for a program that has not set it to be ignored.
pub(crate) fn without_sigpipe<T>(write: impl FnOnce() -> T) -> T {
    let pipe: SigSet = [Signal::SIGPIPE].into_iter().collect();
    let Ok(before) = pipe.thread_swap_mask(SigmaskHow::SIG_BLOCK) else {
        return write();
    };
    let written = write();
    if !before.contains(Signal::SIGPIPE) {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // Blocked by us, so one that is pending came from the write (or, sent
        // to the whole process at this moment, from elsewhere, and is lost).
        // SAFETY: a signal set and a time, both alive during the call; no siginfo wanted.
        unsafe { libc::sigtimedwait(pipe.as_ref(), std::ptr::null_mut(), &now) };
    }
    // Cannot fail: the mask was read from this thread.
    let _ = before.thread_set_mask();
    written
}
