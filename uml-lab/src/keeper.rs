//! The lab's side of the keeper: the process that is parent of all kernels and
//! cleans up when the lab cannot (see `agent/keeper.rs`).

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};

use crate::cache::host_error;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{FromKeeper, Message, Start, ToKeeper};

/// A running keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    socket: OwnedFd,
    answers: Mutex<Answers>,
    arrived: Condvar,
    child: Mutex<Option<Child>>,
}

#[derive(Debug, Default)]
struct Answers {
    started: HashMap<u32, std::result::Result<u32, (String, i32)>>,
    killed: HashMap<u32, ()>,
    /// By errno.
    hung: HashMap<u32, i32>,
    /// The keeper has closed its end.
    gone: bool,
}

impl Keeper {
    /// Starts `program` as keeper of `run_dir` and hands it the lock.
    pub(crate) fn start(program: &Path, run_dir: &Path, lock: BorrowedFd<'_>) -> Result<Self> {
        let fail = |error: io::Error| host_error("start the keeper", error);
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| fail(errno.into()))?;
        let spawn = || {
            Command::new(program)
                .arg("keeper")
                .arg(run_dir)
                .env_clear()
                .current_dir("/")
                .stdin(Stdio::from(theirs.try_clone()?))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // ^C in the terminal must not reach it, from the first moment on.
                .process_group(0)
                .spawn()
        };
        // Whatever another thread of this process started while `program` was being written
        // has it open for writing until its own exec: a moment, in which it cannot be run.
        let patience = Instant::now() + Duration::from_secs(10);
        let child = loop {
            match spawn() {
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy
                        && Instant::now() < patience =>
                {
                    thread::sleep(Duration::from_millis(5));
                }
                other => break other.map_err(fail)?,
            }
        };
        drop(theirs);
        let keeper = Keeper {
            socket: ours,
            answers: Mutex::default(),
            arrived: Condvar::new(),
            child: Mutex::new(Some(child)),
        };
        keeper.send(&ToKeeper::Hold, &[lock])?;
        Ok(keeper)
    }

    fn send(&self, message: &ToKeeper, beside: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = message.encode();
        let fds: Vec<RawFd> = beside.iter().map(AsRawFd::as_raw_fd).collect();
        let control = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() {
            &control[..0]
        } else {
            &control[..]
        };
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map(drop)
        .map_err(|errno| host_error("talk to the keeper", errno))
    }

    /// Starts a kernel and returns its process id.
    pub(crate) fn launch(&self, start: Start, beside: &[BorrowedFd<'_>]) -> Result<u32> {
        let id = start.id;
        self.send(&ToKeeper::Start(start), beside)?;
        self.wait_for(|answers| answers.started.remove(&id))?
            .map_err(|(step, errno)| {
                let kind = if step.starts_with("confine") {
                    ErrorKind::Missing
                } else {
                    ErrorKind::Boot
                };
                Error::new(kind, "start the kernel")
                    .detail(step)
                    .os(io::Error::from_raw_os_error(errno))
            })
    }

    /// Kills all processes of a node; returns when none is left.
    pub(crate) fn kill(&self, id: u32) -> Result<()> {
        self.send(&ToKeeper::Kill { id }, &[])?;
        self.wait_for(|answers| answers.killed.remove(&id))
    }

    /// Stops a kernel, or lets it go on; returns when that is done.
    pub(crate) fn hang(&self, id: u32, hang: bool) -> Result<()> {
        self.send(&ToKeeper::Hang { id, hang }, &[])?;
        match self.wait_for(|answers| answers.hung.remove(&id))? {
            0 => Ok(()),
            errno => {
                let step = if hang { "stop" } else { "continue" };
                let error = io::Error::from_raw_os_error(errno);
                Err(host_error(format!("{step} the kernel"), error))
            }
        }
    }

    fn wait_for<T>(&self, mut take: impl FnMut(&mut Answers) -> Option<T>) -> Result<T> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = take(&mut answers) {
                return Ok(answer);
            }
            if answers.gone {
                return Err(Error::new(ErrorKind::Host, "talk to the keeper").detail("it is gone"));
            }
            answers = self
                .arrived
                .wait(answers)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Receives until the keeper ends; `exited` hears of kernels that ended by
    /// themselves. Runs in a thread of its own.
    pub(crate) fn listen(&self, mut exited: impl FnMut(u32, i32)) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => 0,
            };
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            match FromKeeper::decode(&buffer[..length]) {
                Ok(FromKeeper::Started { id, pid }) => {
                    answers.started.insert(id, Ok(pid));
                }
                Ok(FromKeeper::NotStarted { id, step, errno }) => {
                    let step = String::from_utf8_lossy(&step).into_owned();
                    answers.started.insert(id, Err((step, errno)));
                }
                Ok(FromKeeper::Killed { id }) => {
                    answers.killed.insert(id, ());
                }
                Ok(FromKeeper::Hung { id, errno }) => {
                    answers.hung.insert(id, errno);
                }
                Ok(FromKeeper::Exited { id, status }) => {
                    drop(answers);
                    exited(id, status);
                }
                Err(_) => {
                    answers.gone = true;
                    self.arrived.notify_all();
                    return;
                }
            }
            self.arrived.notify_all();
        }
    }

    /// Lets the keeper kill everything, remove the run directory and end.
    pub(crate) fn shut_down(&self) {
        // A keeper that is gone already needs no telling.
        let _ = self.send(&ToKeeper::Shutdown, &[]);
        let child = self
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut child) = child {
            let _ = child.wait();
        }
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
