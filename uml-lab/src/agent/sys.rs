//! The C calls the program needs and `std` does not have.

#![allow(unsafe_code, reason = "the one file of this program that calls C")]

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

// <sys/mount.h>, <linux/mount.h>
pub(crate) const MS_RDONLY: c_ulong = 1;
pub(crate) const MS_NOSUID: c_ulong = 2;
pub(crate) const MS_NODEV: c_ulong = 4;
pub(crate) const MS_NOEXEC: c_ulong = 8;
pub(crate) const MS_REMOUNT: c_ulong = 32;
pub(crate) const MS_NOATIME: c_ulong = 1024;
pub(crate) const MS_NODIRATIME: c_ulong = 2048;
pub(crate) const MS_BIND: c_ulong = 4096;
pub(crate) const MS_REC: c_ulong = 16384;
pub(crate) const MS_PRIVATE: c_ulong = 1 << 18;
pub(crate) const MS_RELATIME: c_ulong = 1 << 21;
pub(crate) const MNT_DETACH: c_int = 2;
const MOUNT_ATTR_RDONLY: u64 = 1;
const AT_FDCWD: c_int = -100;
const AT_RECURSIVE: c_uint = 0x8000;

// <signal.h>, <sys/signalfd.h>
pub(crate) const SIGHUP: c_int = 1;
pub(crate) const SIGINT: c_int = 2;
pub(crate) const SIGQUIT: c_int = 3;
pub(crate) const SIGKILL: c_int = 9;
pub(crate) const SIGUSR1: c_int = 10;
pub(crate) const SIGPIPE: c_int = 13;
pub(crate) const SIGTERM: c_int = 15;
pub(crate) const SIGCHLD: c_int = 17;
pub(crate) const SIGCONT: c_int = 18;
pub(crate) const SIGSTOP: c_int = 19;
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
const SIG_BLOCK: c_int = 0;
const SIG_SETMASK: c_int = 2;
const SFD_CLOEXEC: c_int = 0o2000000;
const SFD_NONBLOCK: c_int = 0o4000;

// <sys/prctl.h>, <linux/capability.h>, <linux/securebits.h>
const PR_SET_PDEATHSIG: c_int = 1;
const PR_CAPBSET_DROP: c_int = 24;
const PR_SET_SECUREBITS: c_int = 28;
const PR_SET_CHILD_SUBREAPER: c_int = 36;
const PR_SET_NO_NEW_PRIVS: c_int = 38;
const PR_CAP_AMBIENT: c_int = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: c_ulong = 4;
/// NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, all locked.
const SECUREBITS: c_ulong = 0b1110_1111;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

const CLONE_NEWNS: c_int = 0x0002_0000;
const RLIMIT_CORE: c_int = 4;
const WNOHANG: c_int = 1;
const WALL: c_int = 0x4000_0000;
const ECHILD: i32 = 10;
pub(crate) const EINTR: i32 = 4;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const ETIMEDOUT: i32 = 110;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENOSYS: i32 = 38;
pub(crate) const EPERM: i32 = 1;
pub(crate) const EPROTO: i32 = 71;

// <sys/mman.h>, <fcntl.h>, <time.h>
const PROT_READ: c_int = 1;
const MAP_SHARED: c_int = 1;
const SYNC_FILE_RANGE_ALL: c_uint = 7;
const CLOCK_REALTIME: c_int = 0;
pub(crate) const PAGE: usize = 4096;

// System call numbers of x86_64, the only machine with user-mode kernels.
const SYS_CAPSET: c_long = 126;
const SYS_PIVOT_ROOT: c_long = 155;
const SYS_FINIT_MODULE: c_long = 313;
const SYS_CLOSE_RANGE: c_long = 436;
const SYS_MOUNT_SETATTR: c_long = 442;

// <fcntl.h>, <poll.h>, <asm-generic/termbits.h>
const F_SETFD: c_int = 2;
const FD_CLOEXEC: c_int = 1;
const F_GETFL: c_int = 3;
const F_SETFL: c_int = 4;
const O_NONBLOCK: c_int = 0o4000;
const O_CLOEXEC: c_int = 0o2000000;
pub(crate) const POLLIN: i16 = 1;
pub(crate) const POLLOUT: i16 = 4;
const TCGETS: c_ulong = 0x5401;
const TCSETS: c_ulong = 0x5402;

// <sys/socket.h>
const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;
const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
const MSG_NOSIGNAL: c_int = 0x4000;
pub(crate) const AF_INET: c_int = 2;
pub(crate) const AF_INET6: c_int = 10;
const SOCK_DGRAM: c_int = 2;
const SOCK_CLOEXEC: c_int = 0o2000000;

/// Descriptors that may come beside one message (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// `struct pollfd`, <poll.h>.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollFd {
    pub(crate) fd: c_int,
    pub(crate) events: i16,
    pub(crate) revents: i16,
}

/// `struct termios` of the kernel, <asm-generic/termbits.h>.
#[repr(C)]
struct Termios {
    iflag: u32,
    oflag: u32,
    cflag: u32,
    lflag: u32,
    line: u8,
    cc: [u8; 19],
}

/// `struct mount_attr`, <linux/mount.h>.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct Rlimit {
    cur: u64,
    max: u64,
}

#[repr(C)]
struct IoVec {
    base: *mut c_void,
    len: usize,
}

/// `struct msghdr` of glibc on 64-bit machines.
#[repr(C)]
struct MsgHdr {
    name: *mut c_void,
    namelen: c_uint,
    iov: *mut IoVec,
    iovlen: usize,
    control: *mut c_void,
    controllen: usize,
    flags: c_int,
}

/// `struct cmsghdr` and room for the descriptors behind it.
#[repr(C)]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    fds: [c_int; MAX_FDS + 1],
}

/// `struct statvfs` of glibc on 64-bit machines.
#[repr(C)]
struct StatVfs {
    bsize: u64,
    frsize: u64,
    blocks: u64,
    bfree: u64,
    bavail: u64,
    rest: [u64; 9],
}

#[repr(C)]
struct Timespec {
    sec: i64,
    nsec: i64,
}

/// `sigset_t` of glibc: 1024 bits.
#[repr(C)]
#[derive(Clone, Copy)]
struct SigSet([u64; 16]);

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn sethostname(name: *const c_char, len: usize) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn setsid() -> c_int;
    fn getppid() -> c_int;
    fn fork() -> c_int;
    fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char)
    -> c_int;
    fn _exit(status: c_int) -> !;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
    fn sigprocmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
    fn signalfd(fd: c_int, mask: *const SigSet, flags: c_int) -> c_int;
    fn setrlimit(resource: c_int, limit: *const Rlimit) -> c_int;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn recvmsg(fd: c_int, message: *mut MsgHdr, flags: c_int) -> isize;
    fn send(fd: c_int, bytes: *const c_void, len: usize, flags: c_int) -> isize;
    fn if_nametoindex(name: *const c_char) -> c_uint;
    fn mmap(
        address: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn munmap(address: *mut c_void, length: usize) -> c_int;
    fn mincore(address: *mut c_void, length: usize, residency: *mut u8) -> c_int;
    fn sync_file_range(fd: c_int, offset: i64, length: i64, flags: c_uint) -> c_int;
    fn syncfs(fd: c_int) -> c_int;
    fn posix_fallocate(fd: c_int, offset: i64, length: i64) -> c_int;
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
    fn clock_settime(clock: c_int, time: *const Timespec) -> c_int;
    fn statvfs(path: *const c_char, buffer: *mut StatVfs) -> c_int;
}

fn check(result: c_int) -> Result<c_int> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_long(result: c_long) -> Result<c_long> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::from_raw_os_error(EINVAL))
}

fn c_path(path: &Path) -> Result<CString> {
    c_string(path.as_os_str().as_bytes())
}

pub(crate) fn errno(error: &Error) -> i32 {
    error.raw_os_error().unwrap_or(EPROTO)
}

pub(crate) fn mount_fs(
    source: &Path,
    target: &Path,
    kind: &str,
    flags: c_ulong,
    data: &[u8],
) -> Result<()> {
    let source = c_path(source)?;
    let target = c_path(target)?;
    let kind = c_string(kind.as_bytes())?;
    let data = c_string(data)?;
    // SAFETY: all four pointers are NUL-terminated strings that live in locals
    // until the call returns; the kernel copies them.
    let result = unsafe {
        mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    check(result).map(drop)
}

pub(crate) fn detach(target: &Path) -> Result<()> {
    let target = c_path(target)?;
    // SAFETY: the path is a NUL-terminated local.
    check(unsafe { umount2(target.as_ptr(), MNT_DETACH) }).map(drop)
}

pub(crate) fn pivot_root(new: &Path, old: &Path) -> Result<()> {
    let new = c_path(new)?;
    let old = c_path(old)?;
    // SAFETY: pivot_root reads two NUL-terminated paths, which live in locals.
    check_long(unsafe { syscall(SYS_PIVOT_ROOT, new.as_ptr(), old.as_ptr()) }).map(drop)
}

pub(crate) fn load_module(file: BorrowedFd<'_>, parameters: &str) -> Result<()> {
    let parameters = c_string(parameters.as_bytes())?;
    // SAFETY: finit_module reads from an open descriptor and copies the
    // NUL-terminated parameter string, a local.
    check_long(unsafe {
        syscall(
            SYS_FINIT_MODULE,
            file.as_raw_fd(),
            parameters.as_ptr(),
            0 as c_int,
        )
    })
    .map(drop)
}

pub(crate) fn unshare_mounts() -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { unshare(CLONE_NEWNS) }).map(drop)
}

/// Makes a mount read-only or writable; with `all`, those below it too.
pub(crate) fn set_read_only(path: &Path, read_only: bool, all: bool) -> Result<()> {
    let path = c_path(path)?;
    let mut attr = MountAttr {
        attr_set: 0,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    if read_only {
        attr.attr_set = MOUNT_ATTR_RDONLY;
    } else {
        attr.attr_clr = MOUNT_ATTR_RDONLY;
    }
    let flags = if all { AT_RECURSIVE } else { 0 };
    // SAFETY: the path and `attr` are locals; the size passed is that of
    // `attr`, whose layout is the kernel's first version of the structure.
    check_long(unsafe {
        syscall(
            SYS_MOUNT_SETATTR,
            AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

pub(crate) fn set_host_name(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes of the slice.
    check(unsafe { sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

pub(crate) fn new_session() -> Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { setsid() }).map(drop)
}

pub(crate) fn parent() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { getppid() }
}

/// Asks for a signal when the parent ends.
pub(crate) fn die_with_parent(signal: c_int) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { prctl(PR_SET_PDEATHSIG, signal as c_ulong) }).map(drop)
}

pub(crate) fn adopt_orphans() -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { prctl(PR_SET_CHILD_SUBREAPER, 1 as c_ulong) }).map(drop)
}

pub(crate) fn no_new_privileges() -> Result<()> {
    let zero: c_ulong = 0;
    // SAFETY: takes integers only.
    check(unsafe { prctl(PR_SET_NO_NEW_PRIVS, 1 as c_ulong, zero, zero, zero) }).map(drop)
}

/// Gives up every capability, now and across any later exec.
pub(crate) fn drop_capabilities() -> Result<()> {
    let zero: c_ulong = 0;
    // SAFETY: takes integers only. Kernels without ambient capabilities say
    // EINVAL and have nothing to clear.
    unsafe { prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, zero, zero, zero) };
    for capability in 0..64 as c_ulong {
        // SAFETY: takes integers only.
        let result = check(unsafe { prctl(PR_CAPBSET_DROP, capability, zero, zero, zero) });
        match result {
            // Past the last capability this kernel knows.
            Err(error) if errno(&error) == EINVAL => break,
            other => other?,
        };
    }
    // SAFETY: takes integers only.
    check(unsafe { prctl(PR_SET_SECUREBITS, SECUREBITS, zero, zero, zero) })?;
    let header = CapHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let data = [const {
        CapData {
            effective: 0,
            permitted: 0,
            inheritable: 0,
        }
    }; 2];
    // SAFETY: version 3 reads one header and two data structures; both are
    // locals of exactly that size.
    check_long(unsafe { syscall(SYS_CAPSET, &raw const header, data.as_ptr()) }).map(drop)
}

pub(crate) fn no_core_dumps() -> Result<()> {
    let limit = Rlimit { cur: 0, max: 0 };
    // SAFETY: reads one `struct rlimit`, a local.
    check(unsafe { setrlimit(RLIMIT_CORE, &raw const limit) }).map(drop)
}

/// Which side of a fork this is.
pub(crate) enum Fork {
    Parent(i32),
    Child,
}

/// Forks. Only for the keeper, which has a single thread.
pub(crate) fn fork_process() -> Result<Fork> {
    // SAFETY: the process has one thread, so the child may go on as usual.
    match check(unsafe { fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends the process at once, without running anything registered for exit.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes an integer and does not return.
    unsafe { _exit(code) }
}

/// Replaces the process; returns only with an error.
pub(crate) fn exec(path: &[u8], argv: &[Vec<u8>], env: &[Vec<u8>]) -> Error {
    fn strings(items: &[Vec<u8>]) -> Result<Vec<CString>> {
        items.iter().map(|item| c_string(item)).collect()
    }
    fn pointers(items: &[CString]) -> Vec<*const c_char> {
        items
            .iter()
            .map(|item| item.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    }
    let (path, argv, env) = match (c_string(path), strings(argv), strings(env)) {
        (Ok(path), Ok(argv), Ok(env)) => (path, argv, env),
        (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => return error,
    };
    let argv_pointers = pointers(&argv);
    let env_pointers = pointers(&env);
    // SAFETY: path and all strings are NUL-terminated and live in locals; both
    // pointer lists end with NULL.
    unsafe { execve(path.as_ptr(), argv_pointers.as_ptr(), env_pointers.as_ptr()) };
    Error::last_os_error()
}

/// Reaps one child of those `which` names (as waitpid does).
///
/// `None`: none has ended. Error ECHILD is turned into `Some(None)`: there is
/// no such child at all.
pub(crate) fn reap(which: i32, wait: bool) -> Option<Option<(i32, i32)>> {
    loop {
        let mut status = 0;
        let options = if wait { WALL } else { WALL | WNOHANG };
        // SAFETY: `status` is a local the kernel writes one int to.
        match check(unsafe { waitpid(which, &raw mut status, options) }) {
            Ok(0) => return None,
            Ok(pid) => return Some(Some((pid, status))),
            Err(error) if errno(&error) == EINTR => {}
            Err(error) => {
                debug_assert_eq!(errno(&error), ECHILD);
                return Some(None);
            }
        }
    }
}

pub(crate) fn send_signal(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { kill(pid, signal) }).map(drop)
}

pub(crate) fn ignore_signal(number: c_int) {
    // SAFETY: SIG_IGN installs no code of ours.
    unsafe { signal(number, SIG_IGN) };
}

/// Blocks signals and returns a descriptor that becomes readable by them.
pub(crate) fn signal_fd(numbers: &[c_int]) -> Result<OwnedFd> {
    let mut set = SigSet([0; 16]);
    for number in numbers {
        set.0[0] |= 1 << (number - 1);
    }
    // SAFETY: `set` is a local of glibc's size; no old mask is asked for.
    check(unsafe { sigprocmask(SIG_BLOCK, &raw const set, std::ptr::null_mut()) })?;
    // SAFETY: as above; -1 asks for a new descriptor.
    let fd = check(unsafe { signalfd(-1, &raw const set, SFD_CLOEXEC | SFD_NONBLOCK) })?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends this process as another ended, by its wait status.
pub(crate) fn end_like(status: i32) -> ! {
    let number = status & 0x7f;
    if number != 0 {
        unblock_signals();
        // SAFETY: the default action is no code of ours.
        unsafe { signal(number, SIG_DFL) };
        let _ = send_signal(std::process::id().cast_signed(), number);
    }
    exit_now(status >> 8 & 0xff)
}

pub(crate) fn unblock_signals() {
    let set = SigSet([0; 16]);
    // SAFETY: `set` is a local of glibc's size; no old mask is asked for.
    unsafe { sigprocmask(SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Waits for events; interrupted calls are repeated.
pub(crate) fn poll_fds(fds: &mut [PollFd], timeout_ms: c_int) -> Result<usize> {
    loop {
        // SAFETY: the kernel writes `revents` of as many structures as passed.
        match check(unsafe { poll(fds.as_mut_ptr(), fds.len() as c_ulong, timeout_ms) }) {
            Ok(ready) => return Ok(ready.unsigned_abs() as usize),
            Err(error) if errno(&error) == EINTR => {}
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: F_GETFL takes no third argument.
    let flags = check(unsafe { fcntl(fd.as_raw_fd(), F_GETFL) })?;
    // SAFETY: F_SETFL takes an integer.
    check(unsafe { fcntl(fd.as_raw_fd(), F_SETFL, flags | O_NONBLOCK) }).map(drop)
}

pub(crate) fn close_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: F_SETFD takes an integer.
    check(unsafe { fcntl(fd.as_raw_fd(), F_SETFD, FD_CLOEXEC) }).map(drop)
}

/// Makes a serial line pass bytes through unchanged.
pub(crate) fn set_raw(fd: BorrowedFd<'_>) -> Result<()> {
    let mut termios = Termios {
        iflag: 0,
        oflag: 0,
        cflag: 0,
        lflag: 0,
        line: 0,
        cc: [0; 19],
    };
    // SAFETY: TCGETS writes one `struct termios`, a local.
    check(unsafe { ioctl(fd.as_raw_fd(), TCGETS, &raw mut termios) })?;
    termios.iflag = 0;
    termios.oflag = 0;
    termios.lflag = 0;
    // Eight bits, receiver on, no modem lines.
    termios.cflag |= 0o60 | 0o200 | 0o4000;
    termios.cc[6] = 1; // VMIN
    termios.cc[5] = 0; // VTIME
    // SAFETY: TCSETS reads one `struct termios`, a local.
    check(unsafe { ioctl(fd.as_raw_fd(), TCSETS, &raw const termios) }).map(drop)
}

/// Moves descriptors to 0, 1, 2, ... and closes all others.
///
/// # Safety
///
/// The process must be about to call exec or exit: owned descriptors of the
/// caller are closed behind its back.
pub(crate) unsafe fn place_fds(fds: &[RawFd]) -> Result<()> {
    let base = 512;
    for (n, fd) in (0..).zip(fds) {
        // SAFETY: takes integers only.
        check(unsafe { dup2(*fd, base + n) })?;
    }
    for n in 0..fds.len() as c_int {
        // SAFETY: takes integers only.
        check(unsafe { dup2(base + n, n) })?;
    }
    close_from(fds.len() as c_uint)
}

pub(crate) fn close_from(first: c_uint) -> Result<()> {
    // SAFETY: takes integers only; the callers own no descriptor from `first`
    // on that they use afterwards.
    check_long(unsafe { syscall(SYS_CLOSE_RANGE, first, c_uint::MAX, 0 as c_uint) }).map(drop)
}

/// Closes all descriptors but one; the caller uses no other afterwards.
pub(crate) fn close_all_but(keep: RawFd) -> Result<()> {
    let keep = keep.unsigned_abs();
    if keep > 0 {
        // SAFETY: takes integers only; see the promise above.
        check_long(unsafe { syscall(SYS_CLOSE_RANGE, 0 as c_uint, keep - 1, 0 as c_uint) })?;
    }
    close_from(keep + 1)
}

pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the kernel writes two ints into the local array.
    check(unsafe { pipe2(fds.as_mut_ptr(), O_CLOEXEC) })?;
    // SAFETY: both descriptors were just made and nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Takes ownership of a descriptor the process was started with.
///
/// # Safety
///
/// Nobody else in the process may own it.
pub(crate) unsafe fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: by the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(crate) fn send_message(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes of the slice.
    let sent = unsafe {
        send(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            MSG_NOSIGNAL,
        )
    };
    if sent < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Receives one message and the descriptors beside it; no bytes mean the end.
pub(crate) fn receive_message(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control {
        len: 0,
        level: 0,
        kind: 0,
        fds: [-1; MAX_FDS + 1],
    };
    let mut iov = IoVec {
        base: buffer.as_mut_ptr().cast(),
        len: buffer.len(),
    };
    let mut header = MsgHdr {
        name: std::ptr::null_mut(),
        namelen: 0,
        iov: &raw mut iov,
        iovlen: 1,
        control: (&raw mut control).cast(),
        controllen: size_of::<Control>(),
        flags: 0,
    };
    let received = loop {
        // SAFETY: the header points at one buffer and one control area, both
        // alive and of the lengths given.
        let received = unsafe { recvmsg(fd.as_raw_fd(), &raw mut header, MSG_CMSG_CLOEXEC) };
        if received >= 0 {
            break received.unsigned_abs();
        }
        let error = Error::last_os_error();
        if errno(&error) != EINTR {
            return Err(error);
        }
    };
    let mut fds = Vec::new();
    let head = std::mem::offset_of!(Control, fds);
    if header.controllen >= head
        && control.level == SOL_SOCKET
        && control.kind == SCM_RIGHTS
        && control.len >= head
    {
        let count = ((control.len - head) / size_of::<c_int>()).min(MAX_FDS);
        for fd in &control.fds[..count] {
            // SAFETY: the kernel has just installed these descriptors for us.
            fds.push(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Ok((received, fds))
}

pub(crate) fn datagram_socket(domain: c_int) -> Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = check(unsafe { socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An ioctl that reads or writes one structure.
///
/// # Safety
///
/// `T` must be the structure that `request` is defined for.
pub(crate) unsafe fn ioctl_with<T>(
    fd: BorrowedFd<'_>,
    request: c_ulong,
    argument: &mut T,
) -> Result<()> {
    // SAFETY: by the caller's promise the kernel touches one `T`.
    check(unsafe { ioctl(fd.as_raw_fd(), request, &raw mut *argument) }).map(drop)
}

/// An ioctl that takes a number and answers with one.
///
/// # Safety
///
/// `request` must take an integer, not a pointer.
pub(crate) unsafe fn ioctl_number(
    fd: BorrowedFd<'_>,
    request: c_ulong,
    argument: c_ulong,
) -> Result<()> {
    // SAFETY: by the caller's promise no memory is touched.
    check(unsafe { ioctl(fd.as_raw_fd(), request, argument) }).map(drop)
}

pub(crate) fn interface_index(name: &[u8]) -> Result<u32> {
    let name = c_string(name)?;
    // SAFETY: the name is a NUL-terminated local.
    match unsafe { if_nametoindex(name.as_ptr()) } {
        0 => Err(Error::last_os_error()),
        index => Ok(index),
    }
}

/// Says for each page of a file whether it is in memory.
pub(crate) fn cached_pages(file: BorrowedFd<'_>, length: usize) -> Result<Vec<bool>> {
    let mut pages = vec![0_u8; length.div_ceil(PAGE)];
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let address = unsafe {
        mmap(
            std::ptr::null_mut(),
            length,
            PROT_READ,
            MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if address.addr() == usize::MAX {
        return Err(Error::last_os_error());
    }
    // SAFETY: the range is the mapping just made; the kernel writes one byte a
    // page, and the vector has as many.
    let asked = check(unsafe { mincore(address, length, pages.as_mut_ptr()) });
    // SAFETY: the mapping is ours, whole, and nobody refers to it.
    unsafe { munmap(address, length) };
    asked?;
    Ok(pages.into_iter().map(|page| page & 1 == 1).collect())
}

/// Writes what is changed in memory of a part of a file, and waits for it. No
/// flush of the disk below.
pub(crate) fn write_back(file: BorrowedFd<'_>, offset: usize, length: usize) -> Result<()> {
    let (offset, length) = (offset.cast_signed() as i64, length.cast_signed() as i64);
    // SAFETY: takes integers only.
    check(unsafe { sync_file_range(file.as_raw_fd(), offset, length, SYNC_FILE_RANGE_ALL) })
        .map(drop)
}

pub(crate) fn sync_file_system(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes an integer only.
    check(unsafe { syncfs(file.as_raw_fd()) }).map(drop)
}

/// Reserves room behind the end of a file.
pub(crate) fn allocate(file: BorrowedFd<'_>, offset: i64, length: i64) -> Result<()> {
    // SAFETY: takes integers only.
    match unsafe { posix_fallocate(file.as_raw_fd(), offset, length) } {
        0 => Ok(()),
        errno => Err(Error::from_raw_os_error(errno)),
    }
}

/// Bytes that a file system has for ordinary users.
pub(crate) fn free_bytes(path: &Path) -> Result<u64> {
    let path = c_path(path)?;
    let mut answer = StatVfs {
        bsize: 0,
        frsize: 0,
        blocks: 0,
        bfree: 0,
        bavail: 0,
        rest: [0; 9],
    };
    // SAFETY: the path is a NUL-terminated local; glibc fills in one `struct
    // statvfs`, whose size is checked below.
    check(unsafe { statvfs(path.as_ptr(), &raw mut answer) })?;
    Ok(answer.bavail.saturating_mul(answer.frsize))
}

const _: () = assert!(size_of::<StatVfs>() == 112);

/// Moves the wall clock by so many milliseconds.
pub(crate) fn shift_clock(by: i64) -> Result<()> {
    let mut now = Timespec { sec: 0, nsec: 0 };
    // SAFETY: writes one `struct timespec`, a local.
    check(unsafe { clock_gettime(CLOCK_REALTIME, &raw mut now) })?;
    let shifted =
        i128::from(now.sec) * 1_000_000_000 + i128::from(now.nsec) + i128::from(by) * 1_000_000;
    let einval = || Error::from_raw_os_error(EINVAL);
    let then = Timespec {
        sec: i64::try_from(shifted.div_euclid(1_000_000_000)).map_err(|_| einval())?,
        nsec: i64::try_from(shifted.rem_euclid(1_000_000_000)).map_err(|_| einval())?,
    };
    // SAFETY: reads one `struct timespec`, a local.
    check(unsafe { clock_settime(CLOCK_REALTIME, &raw const then) }).map(drop)
}
