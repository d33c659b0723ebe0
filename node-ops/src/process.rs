//! Processes of a cgroup, and waiting for a process to end.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, ErrorKind, Result};
use crate::sys;

/// Ids of all processes in a cgroup and the cgroups below it, sorted.
///
/// `cgroup` is its directory, below `/sys/fs/cgroup`. A cgroup that does not
/// exist has no processes. Groups that end while this looks are left out; a
/// process that moves between two of them may be missed, so freeze the group if
/// the answer must be exact.
///
/// # Errors
///
/// [`ErrorKind::Permission`]; [`ErrorKind::InvalidArgument`] for a directory
/// that is not a cgroup; [`ErrorKind::Unsupported`] for a threaded one.
///
/// # Kernel support
///
/// Both hierarchies: the file `cgroup.procs` is the same in either.
pub fn processes_in_cgroup(cgroup: &Path) -> Result<Vec<u32>> {
    const OP: &str = "list processes of cgroup";
    let mut found = Vec::new();
    let mut open = vec![cgroup.to_owned()];
    while let Some(group) = open.pop() {
        let wrap = Error::path(OP, &group);
        let entries = match fs::read_dir(&group) {
            Ok(entries) => entries,
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(wrap(error)),
        };
        match fs::read_to_string(group.join("cgroup.procs")) {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
            Err(error) if gone(&error) && group.exists() => {
                let text = "there is no cgroup.procs: not a cgroup";
                let shown = group.display().to_string();
                return Err(Error::message(ErrorKind::InvalidArgument, OP, shown, text));
            }
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(wrap(error)),
        }
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if gone(&error) => break,
                Err(error) => return Err(wrap(error)),
            };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A group that is removed answers `ENOENT`, or `ENODEV` to who had it open.
fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Ids of all processes in `/proc`.
pub(crate) fn all() -> Result<Vec<u32>> {
    let proc = Path::new("/proc");
    let wrap = Error::path("list", proc);
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc).map_err(&wrap)? {
        let name = entry.map_err(&wrap)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// A process, held so that its id cannot come to mean another one.
///
/// Dropping it changes nothing. The descriptor becomes readable when the process
/// has ended.
#[derive(Debug)]
#[must_use = "dropping this forgets the process"]
pub struct Process {
    pid: u32,
    fd: OwnedFd,
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Process {
    /// Takes hold of a process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if there is none of this id;
    /// [`ErrorKind::InvalidArgument`] if it is the id of a thread.
    ///
    /// # Kernel support
    ///
    /// Linux 5.3.
    #[doc(alias = "pidfd_open")]
    pub fn open(pid: u32) -> Result<Self> {
        const OP: &str = "open process";
        match sys::pidfd_open(pid) {
            Ok(fd) => Ok(Self { pid, fd }),
            Err(errno @ Errno::EINVAL) => {
                let error = Error::os(OP, pid.to_string(), errno);
                Err(error
                    .with_kind(ErrorKind::InvalidArgument)
                    .with_text("not a process"))
            }
            Err(errno) => Err(Error::os(OP, pid.to_string(), errno)),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Waits until the process has ended. True: it has; false: `timeout` has
    /// passed. A child of the caller must still be waited for.
    ///
    /// # Errors
    ///
    /// None is known.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            // Rounded up, so that the loop does not spin in the last millisecond;
            // a longer wait than fits is cut in pieces.
            let step = left.map_or(i32::MAX, |left| {
                i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
            });
            let step = PollTimeout::try_from(step).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, step) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => {
                    return Err(Error::os("wait for process", self.pid.to_string(), errno));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_ends() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(!process.wait(Duration::from_millis(5)).unwrap());
        child.kill().unwrap();
        assert!(process.wait(Duration::from_secs(60)).unwrap());
        child.wait().unwrap();
        assert_eq!(
            Process::open(u32::MAX).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn no_cgroup_no_processes() {
        assert!(
            processes_in_cgroup(Path::new("/sys/fs/cgroup/none/such"))
                .unwrap()
                .is_empty()
        );
        let dir = tempfile::tempdir().unwrap();
        let error = processes_in_cgroup(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
