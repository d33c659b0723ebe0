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

/// Starts a kernel and returns its process id, also its process group.
///
/// `beside` becomes descriptor 3 and up in the kernel, except the first, the
/// console, which becomes 1 and 2.
pub(crate) fn launch(start: &Start, beside: &[OwnedFd]) -> std::result::Result<i32, Failed> {
    let fail = |step: &str, error: &Error| Failed {
        step: step.into(),
        errno: sys::errno(error),
    };
    let (report_read, report_write) = sys::pipe().map_err(|error| fail("pipe", &error))?;
    let keeper = std::process::id().cast_signed();
    match sys::fork_process().map_err(|error| fail("fork", &error))? {
        Fork::Child => {
            let failed = become_kernel(start, beside, report_write.as_raw_fd(), keeper);
            let text = [&failed.errno.to_le_bytes(), failed.step.as_bytes()].concat();
            let _ = File::from(report_write).write_all(&text);
            sys::exit_now(127)
        }
        Fork::Parent(pid) => {
            drop(report_write);
            let mut report = Vec::new();
            let read = File::from(report_read).read_to_end(&mut report);
            read.map_err(|error| fail("read the report of the launcher", &error))?;
            match report.split_first_chunk::<4>() {
                // The pipe closed by exec, without a word.
                None => Ok(pid),
                Some((errno, step)) => {
                    sys::reap(pid, true);
                    Err(Failed {
                        step: String::from_utf8_lossy(step).into_owned(),
                        errno: i32::from_le_bytes(*errno),
                    })
                }
            }
        }
    }
}

fn become_kernel(start: &Start, beside: &[OwnedFd], report: RawFd, keeper: i32) -> Failed {
    match try_become_kernel(start, beside, report, keeper) {
        Ok(never) => match never {},
        Err(failed) => failed,
    }
}

enum Never {}

fn try_become_kernel(
    start: &Start,
    beside: &[OwnedFd],
    report: RawFd,
    keeper: i32,
) -> std::result::Result<Never, Failed> {
    fn at<T>(step: &str, result: Result<T>) -> std::result::Result<T, Failed> {
        result.map_err(|error| Failed {
            step: step.into(),
            errno: sys::errno(&error),
        })
    }
    at("setsid", sys::new_session())?;
    at("ask to die with the keeper", sys::die_with_parent())?;
    if sys::parent() != keeper {
        return Err(Failed {
            step: "the keeper is gone".into(),
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
    let failed = match sys::close_on_exec(report.as_fd()) {
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
    let text = [&sys::errno(&failed.1).to_le_bytes(), failed.0.as_bytes()].concat();
    let _ = report.write_all(&text);
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
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(br"/plain"), Path::new("/plain"));
        assert_eq!(unescape(br"/end\04"), Path::new(r"/end\04"));
    }
}
