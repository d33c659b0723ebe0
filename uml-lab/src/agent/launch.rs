//! From a fork of the keeper to a running kernel, which can write nowhere but
//! in its own directory.

#![allow(unsafe_code, reason = "rearranges descriptors before exec")]

use std::fs::{self, File};
use std::io::{Error, Read, Result, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::sys::{self, Fork};
use crate::protocol::{Confine, Start};

/// A kernel that could not be started.
pub(crate) struct Failed {
    pub(crate) step: String,
    pub(crate) errno: i32,
}

/// A started kernel.
pub(crate) struct Kernel {
    /// Child of the keeper; ends as the kernel ends.
    pub(crate) guard: i32,
    /// The kernel's main process, also its process group.
    pub(crate) main: i32,
}

/// Starts a kernel under a guard.
///
/// `beside` becomes descriptor 3 and up in the kernel, except the first, the
/// console, which becomes 1 and 2.
pub(crate) fn launch(start: &Start, beside: &[OwnedFd]) -> std::result::Result<Kernel, Failed> {
    let fail = |step: &str, error: &Error| Failed {
        step: step.into(),
        errno: sys::errno(error),
    };
    let (report_read, report_write) = sys::pipe().map_err(|error| fail("pipe", &error))?;
    let keeper = std::process::id().cast_signed();
    let guard = match sys::fork_process().map_err(|error| fail("fork", &error))? {
        Fork::Child => stand_guard(start, beside, report_write, keeper),
        Fork::Parent(guard) => guard,
    };
    drop(report_write);
    let mut report = Vec::new();
    let read = File::from(report_read).read_to_end(&mut report);
    let read = read.map_err(|error| fail("read the report of the launcher", &error));
    match read.and_then(|_| Report::read(&report)) {
        Ok(main) => Ok(Kernel { guard, main }),
        Err(failed) => {
            // It ends by itself, or has ended.
            let _ = sys::send_signal(guard, sys::SIGKILL);
            sys::reap(guard, true);
            Err(failed)
        }
    }
}

/// What guard and kernel write into the report pipe, in any order.
enum Report {
    Started(i32),
    Failed(Failed),
}

impl Report {
    fn write(&self, to: &mut impl Write) {
        let (number, text) = match self {
            Report::Started(pid) => (*pid, ""),
            Report::Failed(failed) => (failed.errno, failed.step.as_str()),
        };
        let length = u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
        let tag = [u8::from(matches!(self, Report::Failed(_)))];
        let record = [&tag[..], &number.to_le_bytes(), &length, text.as_bytes()].concat();
        // Nobody is left to tell if the keeper is gone.
        let _ = to.write_all(&record);
    }

    /// The kernel's process id, unless there is a failure. The pipe was closed
    /// by exec, so no failure means success.
    fn read(mut bytes: &[u8]) -> std::result::Result<i32, Failed> {
        let mut main = None;
        while let Some(([tag, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() {
            let number = i32::from_le_bytes([*a, *b, *c, *d]);
            let Some((length, rest)) = rest.split_first_chunk::<4>() else {
                break;
            };
            let length = u32::from_le_bytes(*length) as usize;
            let text = rest.get(..length).unwrap_or(rest);
            if *tag == 1 {
                return Err(Failed {
                    step: String::from_utf8_lossy(text).into_owned(),
                    errno: number,
                });
            }
            main = Some(number);
            bytes = rest.get(length..).unwrap_or_default();
        }
        main.ok_or_else(|| Failed {
            step: "the launcher ended without a word".into(),
            errno: sys::EPROTO,
        })
    }
}

/// The guard's process: forks the kernel and waits for its end.
///
/// A kernel whose main process is killed leaves its helpers running, and the
/// node's programs among them, no longer held by anyone. The keeper kills the
/// whole group; should the keeper itself be killed, the guard does.
fn stand_guard(start: &Start, beside: &[OwnedFd], report: OwnedFd, keeper: i32) -> ! {
    let mut report = File::from(report);
    let fail = |report: &mut File, step: &str, error: &Error| {
        let step = step.to_owned();
        Report::Failed(Failed {
            step,
            errno: sys::errno(error),
        })
        .write(report);
        sys::exit_now(127)
    };
    if let Err(error) = sys::die_with_parent(sys::SIGUSR1) {
        fail(&mut report, "ask to hear of the keeper's death", &error);
    }
    let guard = std::process::id().cast_signed();
    match sys::fork_process() {
        Err(error) => fail(&mut report, "fork", &error),
        Ok(Fork::Child) => {
            let failed = become_kernel(start, beside, report.as_raw_fd(), guard);
            Report::Failed(failed).write(&mut report);
            sys::exit_now(127)
        }
        Ok(Fork::Parent(kernel)) => {
            Report::Started(kernel).write(&mut report);
            drop(report);
            let watched = watch(kernel, keeper);
            // An error means that none is left.
            let _ = sys::send_signal(-kernel, sys::SIGKILL);
            match watched {
                Ok(status) => sys::end_like(status),
                Err(_) => {
                    // It may not lead a group yet.
                    let _ = sys::send_signal(kernel, sys::SIGKILL);
                    sys::exit_now(1)
                }
            }
        }
    }
}

/// Waits for the kernel's end, or fails when the keeper has ended.
fn watch(kernel: i32, keeper: i32) -> Result<i32> {
    let mut signals = File::from(sys::signal_fd(&[sys::SIGCHLD, sys::SIGUSR1])?);
    // The report pipe is closed, and nobody waits for the kernel's channels.
    let keep = signals.as_raw_fd();
    sys::close_all_but(keep)?;
    // The keeper may have ended before this process asked to be told.
    while sys::parent() == keeper {
        if let Some(Some((_, status))) = sys::reap(kernel, false) {
            return Ok(status);
        }
        let mut fds = [sys::PollFd {
            fd: keep,
            events: sys::POLLIN,
            revents: 0,
        }];
        sys::poll_fds(&mut fds, -1)?;
        // What happened is asked above.
        let _ = signals.read(&mut [0; 1024]);
    }
    Err(Error::other("the keeper is gone"))
}

fn become_kernel(start: &Start, beside: &[OwnedFd], report: RawFd, guard: i32) -> Failed {
    match try_become_kernel(start, beside, report, guard) {
        Ok(never) => match never {},
        Err(failed) => failed,
    }
}

enum Never {}

fn try_become_kernel(
    start: &Start,
    beside: &[OwnedFd],
    report: RawFd,
    guard: i32,
) -> std::result::Result<Never, Failed> {
    fn at<T>(step: &str, result: Result<T>) -> std::result::Result<T, Failed> {
        result.map_err(|error| Failed {
            step: step.into(),
            errno: sys::errno(&error),
        })
    }
    at("setsid", sys::new_session())?;
    at(
        "ask to die with the guard",
        sys::die_with_parent(sys::SIGKILL),
    )?;
    if sys::parent() != guard {
        return Err(Failed {
            step: "the guard is gone".into(),
            errno: sys::EPERM,
        });
    }
    at("forbid core dumps", sys::no_core_dumps())?;
    let null = at("open /dev/null", File::open("/dev/null"))?;
    if let Some(confine) = &start.confine {
        confine_writes(confine)?;
        at("drop capabilities", sys::drop_capabilities())?;
    }
    at("set no_new_privs", sys::no_new_privileges())?;
    let cwd = path(&start.cwd);
    at(
        "enter the node's directory",
        std::env::set_current_dir(&cwd),
    )?;
    sys::unblock_signals();

    let Some((console, others)) = beside.split_first() else {
        return Err(Failed {
            step: "find the console".into(),
            errno: sys::EINVAL,
        });
    };
    let mut fds = vec![null.as_raw_fd(), console.as_raw_fd(), console.as_raw_fd()];
    fds.extend(others.iter().map(AsRawFd::as_raw_fd));
    // The report pipe goes last; it closes by itself at exec.
    fds.push(report);
    let report_at = fds.len() - 1;
    // SAFETY: exec or exit follow; the owners are never dropped.
    at("place descriptors", unsafe { sys::place_fds(&fds) })?;
    let report_fd = RawFd::try_from(report_at).unwrap_or(RawFd::MAX);
    // SAFETY: the descriptor was just placed there and has no other owner.
    let mut report = unsafe { File::from(sys::inherited(report_fd)) };
    let (step, error) = match sys::close_on_exec(report.as_fd()) {
        Err(error) => ("mark the report pipe".to_owned(), error),
        Ok(()) => {
            let env: Vec<Vec<u8>> = start
                .env
                .iter()
                .map(|(k, v)| [k, b"=".as_slice(), v].concat())
                .collect();
            let program = start.argv.first().cloned().unwrap_or_default();
            let error = sys::exec(&program, &start.argv, &env);
            (format!("execute {}", path(&program).display()), error)
        }
    };
    // The descriptor the caller knows is closed by now.
    let errno = sys::errno(&error);
    Report::Failed(Failed { step, errno }).write(&mut report);
    sys::exit_now(127)
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()))
}

/// In a mount namespace of its own, makes everything read-only but what the
/// node owns.
///
/// Root inside a node can mount any host directory (hostfs), with the rights
/// of the kernel process. This is what those rights are cut down to.
fn confine_writes(confine: &Confine) -> std::result::Result<(), Failed> {
    fn at<T>(step: &str, path: &Path, result: Result<T>) -> std::result::Result<T, Failed> {
        result.map_err(|error| Failed {
            step: format!("confine: {step} {}", path.display()),
            errno: sys::errno(&error),
        })
    }
    let root = Path::new("/");
    let none = Path::new("none");
    at("unshare mounts at", root, sys::unshare_mounts())?;
    let flags = sys::MS_REC | sys::MS_PRIVATE;
    at(
        "make private",
        root,
        sys::mount_fs(none, root, "none", flags, b""),
    )?;
    let writable: Vec<PathBuf> = confine.writable.iter().map(|bytes| path(bytes)).collect();
    for place in &writable {
        at(
            "bind",
            place,
            sys::mount_fs(place, place, "none", sys::MS_BIND, b""),
        )?;
    }
    match sys::set_read_only(root, true, true) {
        Err(error) if sys::errno(&error) == sys::ENOSYS => {
            for (mount, flags) in at("list mounts of", root, mounts())? {
                let flags = flags | sys::MS_REMOUNT | sys::MS_BIND | sys::MS_RDONLY;
                at(
                    "make read-only",
                    &mount,
                    sys::mount_fs(none, &mount, "none", flags, b""),
                )?;
            }
            for place in &writable {
                let flags = sys::MS_REMOUNT | sys::MS_BIND;
                at(
                    "make writable",
                    place,
                    sys::mount_fs(none, place, "none", flags, b""),
                )?;
            }
        }
        other => {
            at("make read-only", root, other)?;
            for place in &writable {
                at(
                    "make writable",
                    place,
                    sys::set_read_only(place, false, false),
                )?;
            }
        }
    }
    let memory = path(&confine.memory);
    let flags = sys::MS_NOSUID | sys::MS_NODEV;
    let tmpfs = Path::new("tmpfs");
    // Sparse like the memory of the node: the kernel limits itself.
    let mounted = sys::mount_fs(tmpfs, &memory, "tmpfs", flags, b"size=100%,mode=700");
    at("mount a tmpfs on", &memory, mounted)
}

/// Mount points with the flags a remount must repeat; kernels before 5.12 have
/// no call for a whole tree.
fn mounts() -> Result<Vec<(PathBuf, std::ffi::c_ulong)>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let mut mounts = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else {
            continue;
        };
        let flags = options
            .split(|byte| *byte == b',')
            .fold(0, |flags, option| {
                flags
                    | match option {
                        b"nosuid" => sys::MS_NOSUID,
                        b"nodev" => sys::MS_NODEV,
                        b"noexec" => sys::MS_NOEXEC,
                        b"noatime" => sys::MS_NOATIME,
                        b"nodiratime" => sys::MS_NODIRATIME,
                        b"relatime" => sys::MS_RELATIME,
                        _ => 0,
                    }
            });
        mounts.push((unescape(point), flags));
    }
    Ok(mounts)
}

/// Undoes the octal escapes of /proc/self/mountinfo.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = octal {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn reports_come_in_any_order() {
        let failed = || {
            let step = "execute it".to_owned();
            Report::Failed(Failed { step, errno: 13 })
        };
        let mut success = Vec::new();
        Report::Started(77).write(&mut success);
        assert_eq!(Report::read(&success).ok(), Some(77));
        for started_first in [true, false] {
            let mut bytes = Vec::new();
            if started_first {
                Report::Started(77).write(&mut bytes);
            }
            failed().write(&mut bytes);
            if !started_first {
                Report::Started(77).write(&mut bytes);
            }
            let failed = Report::read(&bytes).err().unwrap();
            assert_eq!((failed.step.as_str(), failed.errno), ("execute it", 13));
        }
        assert_eq!(Report::read(&[]).err().unwrap().errno, sys::EPROTO);
        assert_eq!(
            Report::read(&success[..7]).err().unwrap().errno,
            sys::EPROTO
        );
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(br"/plain"), Path::new("/plain"));
        assert_eq!(unescape(br"/end\04"), Path::new(r"/end\04"));
    }
}
