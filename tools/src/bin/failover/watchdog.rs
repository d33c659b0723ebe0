//! Ends the program in time although the kernel does not let go of it.
//!
//! A process leaves only when each of its threads does, and a thread that
//! sleeps in `mount(2)` or inside a DRBD request cannot even be killed. So the
//! work is done by a child, and this process waits for its word. It passes on
//! what the child prints (a reader of our output must not wait for the child's
//! end), ends with the status the child announces, and gives the child up when
//! a step has outlived its deadline without a word.

#![allow(
    unsafe_code,
    reason = "fork: a second start of the program would be part of every downtime"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe2};
use tools::exit;

/// What the child gets beyond the deadline it named: its own words about it are better.
const GRACE: Duration = Duration::from_secs(5);

/// The task of who has only one.
pub(crate) const MAIN: &str = "-";

/// Where the worker announces what it does; nobody listens without a watchdog.
static WORD: Mutex<Option<File>> = Mutex::new(None);

/// Says what is begun now and how long it may take. `task` is a word; each has its own deadline.
pub(crate) fn begin(task: &str, what: &str, deadline: Duration) {
    let ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    tell(&format!("{ms} {task} {}\n", what.replace('\n', " ")));
}

/// Says that what was begun has ended, and a short pause between two steps follows.
pub(crate) fn between(task: &str) {
    begin(task, "write down what was done", Duration::from_secs(60));
}

/// Says that a task is over.
pub(crate) fn over(task: &str) {
    tell(&format!("over {task}\n"));
}

fn tell(line: &str) {
    let mut word = WORD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pipe) = word.as_mut() {
        // The one who listened is gone: so are we, in a moment.
        let _ = pipe.write_all(line.as_bytes());
    }
}

/// Runs `work` in a child and ends in time. Must be called before any thread is started.
pub(crate) fn run(json: bool, work: impl FnOnce() -> u8) -> ExitCode {
    let begun = Instant::now();
    match prepare() {
        // Without pipes or processes there is nothing to be safe with: just work.
        Err(_) => ExitCode::from(work()),
        Ok(pipes) => {
            let parent = getpid();
            // SAFETY: the program has one thread here, so the child may do all the parent could.
            match unsafe { fork() } {
                Err(_) => ExitCode::from(work()),
                Ok(ForkResult::Child) => {
                    become_worker(pipes, parent);
                    let status = work();
                    tell(&format!("exit {status}\n"));
                    ExitCode::from(status)
                }
                Ok(ForkResult::Parent { child }) => Watch::new(pipes, child, json, begun).run(),
            }
        }
    }
}

struct Pipes {
    word: (OwnedFd, OwnedFd),
    /// Only where ours is no terminal: a terminal is nobody who waits for an end.
    out: Option<(OwnedFd, OwnedFd)>,
    err: Option<(OwnedFd, OwnedFd)>,
}

fn prepare() -> nix::Result<Pipes> {
    let pipe = || pipe2(OFlag::O_CLOEXEC);
    Ok(Pipes {
        word: pipe()?,
        out: if std::io::stdout().is_terminal() {
            None
        } else {
            Some(pipe()?)
        },
        err: if std::io::stderr().is_terminal() {
            None
        } else {
            Some(pipe()?)
        },
    })
}

fn become_worker(pipes: Pipes, parent: Pid) {
    // Who kills the one process that is seen means this one too.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    if getppid() != parent {
        let _ = kill(getpid(), Signal::SIGKILL);
    }
    if let Some((_, write)) = pipes.out {
        let _ = nix::unistd::dup2_stdout(write);
    }
    if let Some((_, write)) = pipes.err {
        let _ = nix::unistd::dup2_stderr(write);
    }
    *WORD.lock().unwrap_or_else(PoisonError::into_inner) = Some(File::from(pipes.word.1));
}

struct Watch {
    child: Pid,
    json: bool,
    begun: Instant,
    word: File,
    out: Option<File>,
    err: Option<File>,
    /// What the child said and has not ended with a newline yet.
    said: Vec<u8>,
    /// What each task does, and until when it may.
    doing: BTreeMap<String, (String, Instant)>,
}

impl Watch {
    fn new(pipes: Pipes, child: Pid, json: bool, begun: Instant) -> Self {
        let read = |fd: OwnedFd| {
            let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
            let _ = nix::fcntl::fcntl(&fd, flags);
            File::from(fd)
        };
        Watch {
            child,
            json,
            begun,
            word: read(pipes.word.0),
            out: pipes.out.map(|(fd, _)| read(fd)),
            err: pipes.err.map(|(fd, _)| read(fd)),
            said: Vec::new(),
            doing: [(
                MAIN.into(),
                ("begin".into(), begun + Duration::from_secs(120)),
            )]
            .into(),
        }
    }

    /// The task whose time is up first.
    fn next(&self) -> Option<(&str, Instant)> {
        let tasks = self
            .doing
            .values()
            .map(|(what, until)| (what.as_str(), *until));
        tasks.min_by_key(|(_, until)| *until)
    }

    fn run(mut self) -> ExitCode {
        loop {
            let left = match self.next() {
                None => GRACE,
                Some((_, until)) => until.saturating_duration_since(Instant::now()),
            };
            if left.is_zero() {
                return self.given_up();
            }
            let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            let mut fds = vec![PollFd::new(self.word.as_fd(), PollFlags::POLLIN)];
            for file in [&self.out, &self.err].into_iter().flatten() {
                fds.push(PollFd::new(file.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::from(millis)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return self.ended(),
            }
            // What was said before the last word is printed before it counts.
            let word = self.listen();
            self.pass_on();
            match word {
                Word::More => {}
                Word::Exit(status) => return ExitCode::from(status),
                Word::Closed => return self.ended(),
            }
        }
    }

    fn listen(&mut self) -> Word {
        let mut buffer = [0; 4096];
        loop {
            match self.word.read(&mut buffer) {
                Ok(0) => return Word::Closed,
                Ok(n) => self.said.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => return Word::Closed,
            }
        }
        while let Some(end) = self.said.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.said.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let (first, rest) = line.trim_end().split_once(' ').unwrap_or(("", ""));
            if first == "exit" {
                return Word::Exit(rest.parse().unwrap_or(exit::ERROR));
            }
            if first == "over" {
                self.doing.remove(rest);
                continue;
            }
            let (task, what) = rest.split_once(' ').unwrap_or((MAIN, rest));
            let deadline = Duration::from_millis(first.parse().unwrap_or(0));
            let now = Instant::now();
            let until = now
                .checked_add(deadline.saturating_add(GRACE))
                .unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
            self.doing.insert(task.to_owned(), (what.to_owned(), until));
        }
        Word::More
    }

    /// Passes on what the child printed, in the order it printed it.
    fn pass_on(&mut self) {
        let errors = self.err.as_mut().map(drain).unwrap_or_default();
        if let Some(file) = &mut self.out {
            // A reader that went away must not stop an operation half way.
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(&drain(file)).and_then(|()| out.flush());
        }
        let _ = std::io::stderr().write_all(&errors);
    }

    /// The child ended without a word: as it ended, so do we.
    fn ended(mut self) -> ExitCode {
        let how = loop {
            match waitpid(self.child, None) {
                Err(Errno::EINTR) => {}
                how => break how,
            }
        };
        self.pass_on();
        match how {
            Ok(WaitStatus::Exited(_, status)) => {
                ExitCode::from(u8::try_from(status).unwrap_or(exit::ERROR))
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                let _ = kill(getpid(), signal);
                ExitCode::from(exit::ERROR)
            }
            _ => ExitCode::from(exit::ERROR),
        }
    }

    fn given_up(mut self) -> ExitCode {
        self.pass_on();
        let _ = kill(self.child, Signal::SIGKILL);
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let doing = self
            .next()
            .map_or_else(String::new, |(what, _)| what.to_owned());
        let message = format!(
            "{doing}: no answer at its deadline; it hangs in the kernel (process {}) and may still happen",
            self.child
        );
        let remedy = "look at the kernel log for I/O that hangs, then run the same command again; it looks first";
        if self.json {
            let end = serde_json::json!({
                "event": "end", "outcome": "unknown", "exit": exit::UNKNOWN, "ms": ms,
                "step": doing, "message": message, "remedy": remedy,
            });
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{end}").and_then(|()| out.flush());
        } else {
            eprintln!("failover: {message}\n  {remedy}");
        }
        // Gone already if it could go.
        let _ = waitpid(self.child, Some(WaitPidFlag::WNOHANG));
        ExitCode::from(exit::UNKNOWN)
    }
}

enum Word {
    More,
    Exit(u8),
    Closed,
}

fn drain(file: &mut File) -> Vec<u8> {
    let mut all = Vec::new();
    // Ends with "would block", which is no error here.
    let _ = file.read_to_end(&mut all);
    all
}
