//! The keeper: parent of every kernel of one lab.
//!
//! It is started first, in a process group of its own so that ^C does not
//! reach it, and holds one end of a socket pair. When the other end closes, for whatever
//! reason, it kills what it started, removes the run directory and ends. So a
//! lab that is killed leaves nothing behind.

#![allow(unsafe_code, reason = "takes over descriptor 0")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::launch::{self, Kernel};
use super::sys;
use crate::protocol::{FromKeeper, MAX_MESSAGE, Message, ToKeeper};

pub(crate) fn main(run_dir: &Path) -> i32 {
    // The keeper's work starts when the lab is gone, so what ends the lab must
    // not end it. The lab starts it in a process group of its own, which ^C in
    // the terminal does not reach.
    for signal in [
        sys::SIGHUP,
        sys::SIGINT,
        sys::SIGQUIT,
        sys::SIGTERM,
        sys::SIGPIPE,
    ] {
        sys::ignore_signal(signal);
    }
    if let Err(error) = Keeper::new().and_then(Keeper::work) {
        eprintln!("keeper: {error}");
    }
    // The kernels are gone; this is for what got away from them.
    kill_children();
    // The lock file proves that this is a run directory and not something else
    // somebody passed by mistake.
    if run_dir.join("lock").is_file() {
        remove_tree(run_dir);
    }
    0
}

struct Keeper {
    lab: OwnedFd,
    signals: fs::File,
    nodes: BTreeMap<u32, Kernel>,
    /// Keeps the run directory locked as long as this process lives.
    lock: Option<OwnedFd>,
}

impl Keeper {
    fn new() -> std::io::Result<Self> {
        sys::close_from(3)?;
        sys::adopt_orphans()?;
        std::env::set_current_dir("/")?;
        let signals = sys::signal_fd(&[sys::SIGCHLD])?.into();
        // SAFETY: descriptor 0 is the socket the lab passed; nothing in this
        // process reads standard input.
        let lab = unsafe { sys::inherited(0) };
        Ok(Keeper {
            lab,
            signals,
            nodes: BTreeMap::new(),
            lock: None,
        })
    }

    /// Returns when the lab is gone or says that it is done.
    fn work(mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let mut fds = [self.lab.as_raw_fd(), self.signals.as_raw_fd()].map(|fd| sys::PollFd {
                fd,
                events: sys::POLLIN,
                revents: 0,
            });
            sys::poll_fds(&mut fds, -1)?;
            if fds[1].revents != 0 {
                // The content does not matter; waitpid says what happened.
                let _ = self.signals.read(&mut [0; 1024]);
                self.reap();
            }
            if fds[0].revents == 0 {
                continue;
            }
            let (length, beside) = sys::receive_message(self.lab.as_fd(), &mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            let message = ToKeeper::decode(&buffer[..length])
                .map_err(|_| std::io::Error::other("malformed message from the lab"))?;
            match message {
                ToKeeper::Hold => self.lock = beside.into_iter().next(),
                ToKeeper::Start(start) => {
                    let id = start.id;
                    let answer = match launch::launch(&start, &beside) {
                        Ok(kernel) => {
                            let pid = kernel.main.unsigned_abs();
                            self.nodes.insert(id, kernel);
                            FromKeeper::Started { id, pid }
                        }
                        Err(failed) => FromKeeper::NotStarted {
                            id,
                            step: failed.step.into_bytes(),
                            errno: failed.errno,
                        },
                    };
                    self.tell(&answer);
                }
                ToKeeper::Kill { id } => {
                    if let Some(kernel) = self.nodes.remove(&id) {
                        kill_kernel(&kernel);
                    }
                    self.tell(&FromKeeper::Killed { id });
                }
                ToKeeper::Hang { id, hang } => {
                    let told = match self.nodes.get(&id) {
                        Some(kernel) => set_hung(kernel, hang),
                        None => Err(std::io::Error::from_raw_os_error(sys::ESRCH)),
                    };
                    let errno = told.map_or_else(|error| sys::errno(&error), |()| 0);
                    self.tell(&FromKeeper::Hung { id, errno });
                }
                ToKeeper::Shutdown => return Ok(()),
            }
        }
    }

    /// A lab that does not listen is about to close the socket.
    fn tell(&self, message: &FromKeeper) {
        let _ = sys::send_message(self.lab.as_fd(), &message.encode());
    }

    fn reap(&mut self) {
        while let Some(Some((pid, status))) = sys::reap(-1, false) {
            let mut nodes = self.nodes.iter();
            let node = nodes.find(|(_, kernel)| kernel.guard == pid);
            let Some(id) = node.map(|(id, _)| *id) else {
                continue;
            };
            if let Some(kernel) = self.nodes.remove(&id) {
                kill_kernel(&kernel);
            }
            self.tell(&FromKeeper::Exited { id, status });
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for kernel in self.nodes.values() {
            kill_kernel(kernel);
        }
    }
}

/// Kills a kernel with its guard and all its helper processes, and waits until
/// all are gone.
///
/// They become children of this process when their parents die before them (it
/// is a subreaper), so waiting for the group to be empty is possible.
fn kill_kernel(kernel: &Kernel) {
    // An error means that none is left.
    let _ = sys::send_signal(-kernel.main, sys::SIGKILL);
    let _ = sys::send_signal(kernel.guard, sys::SIGKILL);
    while let Some(Some(_)) = sys::reap(kernel.guard, true) {}
    while let Some(Some(_)) = sys::reap(-kernel.main, true) {}
}

/// Stops the main process of a kernel, or lets it go on.
///
/// Only that one: its helpers wait for it, and a kernel whose helpers were
/// stopped too takes their stops for faults when it goes on.
fn set_hung(kernel: &Kernel, hang: bool) -> std::io::Result<()> {
    if !hang {
        return sys::send_signal(kernel.main, sys::SIGCONT);
    }
    sys::send_signal(kernel.main, sys::SIGSTOP)?;
    // Whoever asked may rely on it that nothing happens in the node any more.
    for _ in 0..10_000 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", kernel.main))?;
        // The state comes behind the name, which is in parentheses.
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        match state.chars().next() {
            Some('T' | 't') => return Ok(()),
            Some('Z' | 'X') | None => return Err(std::io::Error::from_raw_os_error(sys::ESRCH)),
            _ => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    }
    // It waits for the host, uninterruptibly; the keeper has other nodes too.
    Err(std::io::Error::from_raw_os_error(sys::ETIMEDOUT))
}

/// Kills and reaps every child, whatever group it is in.
fn kill_children() {
    loop {
        let me = std::process::id();
        let children = fs::read_to_string(format!("/proc/self/task/{me}/children"));
        for pid in children.unwrap_or_default().split_whitespace() {
            if let Ok(pid) = pid.parse::<i32>() {
                let _ = sys::send_signal(-pid, sys::SIGKILL);
                let _ = sys::send_signal(pid, sys::SIGKILL);
            }
        }
        if sys::reap(-1, true).is_none_or(|reaped| reaped.is_none()) {
            return;
        }
    }
}

/// Removes a directory tree, also where a node left directories without
/// permissions. There is nobody to report an error to.
fn remove_tree(dir: &Path) {
    for _ in 0..3 {
        match fs::remove_dir_all(dir) {
            Ok(()) => return,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(_) => open_up(dir),
        }
    }
}

fn open_up(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
