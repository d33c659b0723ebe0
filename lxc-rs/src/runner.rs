//! Running the helper process and talking to it until a deadline.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, mkdtemp};

use crate::error::{Error, ErrorKind, Result};
use crate::log::LogLine;
use crate::os::{pidfd_open, pidfd_send_signal, without_sigpipe};
use crate::path::{ContainerName, LxcPath};
use crate::wire::{self, Edit, Event, Filled, Request, Verb};

/// The compiled helper program.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lxc-rs-helper"));

/// Descriptors are moved up here before the helper's own numbers are filled,
/// so that no source is overwritten before it is used.
const ABOVE: RawFd = 32;

/// How much longer than its own deadline the helper lives: it knows the
/// deadline, too, and gives up first wherever it waits by itself.
const GRACE: Duration = Duration::from_secs(1);

/// What a question is given at least, whatever its deadline: to start the
/// helper on a machine that is busy, and to be answered by the monitor.
const BEGIN: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(10);

/// How long a helper that undoes its work is left alone.
const UNDO: Duration = Duration::from_secs(10);

/// A call to make.
pub(crate) struct Call<'a> {
    pub(crate) name: &'static str,
    pub(crate) lxcpath: &'a LxcPath,
    pub(crate) container: &'a ContainerName,
    pub(crate) edits: Vec<Edit>,
    pub(crate) verb: Verb,
    pub(crate) deadline: Duration,
}

impl Call<'_> {
    pub(crate) fn error(&self, kind: ErrorKind, detail: impl Into<String>) -> Error {
        Error::new(kind, self.name, detail).on(self.container.as_str(), self.lxcpath.as_path())
    }

    fn os_error(&self, detail: &str, error: io::Error) -> Error {
        Error::io(self.name, detail, error)
            .with_kind(ErrorKind::Helper)
            .on(self.container.as_str(), self.lxcpath.as_path())
    }

    /// Starts a helper on this call. `stdio` is for an attached command.
    pub(crate) fn begin(&self, stdio: Option<[OwnedFd; 3]>) -> Result<Helper> {
        let begun = Instant::now();
        let (ours, theirs) =
            UnixStream::pair().map_err(|error| self.os_error("no socket pair", error))?;
        let log = memfd_create(c"lxc-rs-log", MFdFlags::MFD_CLOEXEC)
            .map_err(|error| self.os_error("no memory file for the log", error.into()))?;
        let given = Given {
            socket: theirs.into(),
            log: log.try_clone(),
            stdio,
        };
        let arguments = [
            wire::PROGRAM.as_bytes(),
            self.name.as_bytes(),
            self.lxcpath.as_path().as_os_str().as_bytes(),
            self.container.as_str().as_bytes(),
        ];
        let pid = spawn(given, &arguments)
            .map_err(|error| self.os_error("the helper program cannot be executed", error))?;
        // The helper waits for its request, so it cannot have ended (and, in a
        // program that ignores SIGCHLD, been replaced) before this.
        let pidfd = match pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Without its socket it ends by itself.
                drop(ours);
                let _ = waitpid(pid, None);
                return Err(self.os_error("no handle on the helper process", error));
            }
        };
        let asks = matches!(self.verb, Verb::Wait { .. } | Verb::WaitGone);
        let mut helper = Helper {
            pid,
            pidfd,
            socket: ours,
            buffer: Vec::new(),
            log: File::from(log),
            dies: begun.checked_add(match asks {
                true => self.deadline.max(BEGIN),
                false => self.deadline.saturating_add(GRACE),
            }),
            answers: asks.then(|| self.deadline.max(ANSWER).saturating_add(GRACE)),
            undoes: self.verb == Verb::Create,
            ended: false,
        };
        let request = Request {
            library: self.lxcpath.library().file.as_bytes().to_vec(),
            lxcpath: self.lxcpath.as_path().as_os_str().as_bytes().to_vec(),
            name: self.container.as_str().as_bytes().to_vec(),
            millis: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX),
            edits: self.edits.clone(),
            verb: self.verb.clone(),
        };
        without_sigpipe(|| wire::send(&mut helper.socket, &request.encode()))
            .and_then(|()| helper.socket.set_nonblocking(true))
            .map_err(|error| self.os_error("the helper does not take its request", error))?;
        Ok(helper)
    }
}

/// A running helper. Dropping one that was not finished kills it, after it had
/// time to undo a creation; a container it started lives on.
pub(crate) struct Helper {
    pid: Pid,
    pidfd: OwnedFd,
    socket: UnixStream,
    buffer: Vec<u8>,
    log: File,
    /// When it is killed; `None` for a deadline beyond the clock's range.
    dies: Option<Instant>,
    /// For a question: how long it may take once the helper is ready.
    answers: Option<Duration>,
    undoes: bool,
    ended: bool,
}

/// What came from the helper.
pub(crate) enum Next {
    Event(Event),
    /// The deadline passed.
    TimedOut,
    /// It ended without an answer.
    Died(String),
    /// One of the caller's own descriptors is ready.
    Ready,
}

impl Helper {
    /// Waits for the next event, or until one of `others` is ready.
    pub(crate) fn next(&mut self, others: &[PollFd<'_>]) -> io::Result<Next> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(Next::Event(event));
            }
            let left = match self.dies {
                Some(dies) => dies.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if left.is_zero() {
                return Ok(Next::TimedOut);
            }
            let mut fds = vec![
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(others.iter().map(again));
            // One millisecond more, so that the time is over when poll says so.
            let timeout = PollTimeout::try_from(left.saturating_add(Duration::from_millis(1)))
                .unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |index: usize| {
                fds.get(index)
                    .and_then(PollFd::revents)
                    .is_some_and(|events| !events.is_empty())
            };
            let (spoke, ended) = (ready(0), ready(1));
            let other = (2..fds.len()).any(ready);
            drop(fds);
            if spoke {
                self.read()?;
            }
            if let Some(event) = self.take()? {
                return Ok(Next::Event(event));
            }
            if ended {
                // What it said before it ended is read; there is nothing more.
                self.read()?;
                return Ok(match self.take()? {
                    Some(event) => Next::Event(event),
                    None => Next::Died(self.reap()),
                });
            }
            if other {
                return Ok(Next::Ready);
            }
        }
    }

    /// Answers [`Event::Populate`].
    pub(crate) fn filled(&mut self, filled: &Filled) -> io::Result<()> {
        // It may be long, and is read at once.
        self.socket.set_nonblocking(false)?;
        self.socket.set_write_timeout(Some(UNDO))?;
        without_sigpipe(|| wire::send(&mut self.socket, &filled.encode()))?;
        self.socket.set_nonblocking(true)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Changes when the helper is killed; `None` is never.
    pub(crate) fn until(&mut self, time: Option<Instant>) {
        self.dies = time;
    }

    /// Hands a signal to the attached command.
    pub(crate) fn signal(&mut self, number: u8) -> io::Result<()> {
        without_sigpipe(|| self.socket.write_all(&[number]))
    }

    /// Lets the helper go on alone, and collects it whenever it ends.
    pub(crate) fn detach(mut self) {
        self.leave();
    }

    /// Whether the helper would be killed by now.
    pub(crate) fn is_late(&self) -> bool {
        self.dies.is_some_and(|dies| Instant::now() + GRACE >= dies)
    }

    /// Gives a helper that undoes its work the time for it.
    pub(crate) fn extend(&mut self) {
        self.dies = Some(Instant::now() + UNDO);
    }

    /// Ends the helper, by force if it still runs, and gives the log.
    pub(crate) fn finish(mut self, answered: bool) -> Vec<LogLine> {
        if !self.ended {
            if answered && self.ends_within(GRACE) {
                self.reap();
            } else {
                self.kill();
            }
        }
        self.lines()
    }

    fn lines(&mut self) -> Vec<LogLine> {
        let mut text = Vec::new();
        let read = self.log.seek(SeekFrom::Start(0));
        // A log that cannot be read says nothing, which an error can live with.
        let _ = read.and_then(|_| (&self.log).take(1 << 20).read_to_end(&mut text));
        LogLine::parse_all(&String::from_utf8_lossy(&text))
    }

    fn take(&mut self) -> io::Result<Option<Event>> {
        while let Some(frame) = wire::split(&mut self.buffer)? {
            match Event::decode(&frame) {
                Some(Event::Ready) => {
                    if let Some(time) = self.answers {
                        self.dies = Instant::now().checked_add(time);
                    }
                }
                Some(event) => return Ok(Some(event)),
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(None)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset => return Ok(()),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    fn ends_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(ready) => return ready > 0,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Kills the helper and what it forked into its process group; a monitor
    /// has a session of its own and stays.
    fn kill(&mut self) {
        if !self.ends_within(Duration::ZERO) {
            // It lives, so the number is its own, also as a group's.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
        let _ = pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL);
        if self.ends_within(Duration::from_secs(2)) {
            self.reap();
            return;
        }
        // Stuck in the kernel, on a disk that does not answer.
        self.leave();
    }

    /// A thread collects the helper when it ends.
    fn leave(&mut self) {
        self.ended = true;
        if let Ok(pidfd) = self.pidfd.try_clone() {
            let wait = move || {
                // Whatever it says, the process is nobody's concern any more.
                let _ = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED);
            };
            let _ = std::thread::Builder::new()
                .name("lxc-rs reaper".to_owned())
                .spawn(wait);
        }
    }

    /// Collects the ended helper and says how it ended.
    fn reap(&mut self) -> String {
        self.ended = true;
        loop {
            return match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Ok(WaitStatus::Exited(_, status)) => format!("exit status {status}"),
                Ok(WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
                Ok(status) => format!("{status:?}"),
                Err(Errno::EINTR) => continue,
                // Somebody else collects this program's children, or it ignores SIGCHLD.
                Err(Errno::ECHILD) => "status taken by somebody else".to_owned(),
                Err(error) => format!("waitid: {error}"),
            };
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.undoes {
            // It reads the end of the socket as "take everything back".
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            if self.ends_within(UNDO) {
                self.reap();
                return;
            }
        }
        self.kill();
    }
}

/// What the helper gets, under the numbers of `wire`.
struct Given {
    socket: OwnedFd,
    log: io::Result<OwnedFd>,
    stdio: Option<[OwnedFd; 3]>,
}

fn spawn(given: Given, arguments: &[&[u8]]) -> io::Result<Pid> {
    let mut sources = vec![
        (up(&given.socket)?, wire::SOCKET),
        (up(&given.log?)?, wire::LOG),
    ];
    for (fd, number) in given.stdio.iter().flatten().zip(wire::STDIO) {
        sources.push((up(fd)?, number));
    }
    let mut actions = PosixSpawnFileActions::init()?;
    for number in 0..3 {
        actions.add_open(
            number,
            c"/dev/null",
            nix::fcntl::OFlag::O_RDWR,
            nix::sys::stat::Mode::empty(),
        )?;
    }
    for (source, number) in &sources {
        actions.add_dup2(source.as_raw_fd(), *number)?;
    }
    // Its own process group: a ^C meant for this program does not cut a call
    // in half, and at a deadline it goes with everything it forked.
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
    )?;
    let strings = |items: &mut dyn Iterator<Item = Vec<u8>>| -> io::Result<Vec<CString>> {
        items
            .map(|item| CString::new(item).map_err(io::Error::from))
            .collect()
    };
    let arguments = strings(&mut arguments.iter().map(|argument| argument.to_vec()))?;
    let environment = strings(&mut std::env::vars_os().map(|(name, value)| {
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        entry
    }))?;
    let run = |path: &Path| posix_spawn(path, &actions, &attributes, &arguments, &environment);

    let from_memory = program_in_memory().and_then(|program| {
        let program = up(&program)?;
        Ok(run(Path::new(&format!(
            "/proc/self/fd/{}",
            program.as_raw_fd()
        )))?)
    });
    match from_memory {
        Ok(pid) => Ok(pid),
        // Policy against executing from memory (vm.memfd_noexec), or no /proc.
        Err(_) => from_directory(run),
    }
}

/// The program in an anonymous file.
fn program_in_memory() -> io::Result<OwnedFd> {
    // MFD_EXEC says that it is meant to be executed; kernels before 6.3 do not know it.
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let file = memfd_create(c"lxc-rs-helper", MFdFlags::MFD_CLOEXEC | executable)
        .or_else(|_| memfd_create(c"lxc-rs-helper", MFdFlags::MFD_CLOEXEC))?;
    let mut file = File::from(file);
    file.write_all(PROGRAM)?;
    Ok(file.into())
}

/// Executes the program from a private directory that is gone right after.
fn from_directory(run: impl Fn(&Path) -> nix::Result<Pid>) -> io::Result<Pid> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for place in ["/run", "/dev/shm", "/tmp", "/var/tmp"] {
        let Ok(directory) = mkdtemp(&Path::new(place).join("lxc-rs-XXXXXX")) else {
            continue;
        };
        let directory = Temporary(directory);
        let file = directory.0.join("helper");
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&file)
            .and_then(|mut program| {
                program.write_all(PROGRAM)?;
                program.set_permissions(fs::Permissions::from_mode(0o500))
            });
        if let Err(error) = written {
            last = error;
            continue;
        }
        // Another thread's fork may hold our write descriptor for a moment.
        for _ in 0..100 {
            match run(&file) {
                Ok(pid) => return Ok(pid),
                Err(Errno::ETXTBSY) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => {
                    last = error.into();
                    break;
                }
            }
        }
    }
    Err(last)
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A duplicate with a number that the helper does not use.
fn up(fd: &impl AsFd) -> io::Result<OwnedFd> {
    crate::os::owned(fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE))?)
}

/// The same request once more, for as long as `fd` is borrowed.
fn again<'a>(fd: &'a PollFd<'_>) -> PollFd<'a> {
    PollFd::new(fd.as_fd(), fd.events())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    /// Runs the program by `start` without a socket, which it ends on at once.
    fn ends(start: impl FnOnce(&dyn Fn(&Path) -> nix::Result<Pid>) -> io::Result<Pid>) {
        let actions = PosixSpawnFileActions::init().unwrap();
        let attributes = PosixSpawnAttr::init().unwrap();
        let run = |path: &Path| {
            posix_spawn(
                path,
                &actions,
                &attributes,
                &[c"helper"],
                &Vec::<CString>::new(),
            )
        };
        let pid = start(&run).unwrap();
        let status = nix::sys::wait::waitpid(pid, None).unwrap();
        assert_eq!(status, WaitStatus::Exited(pid, 1));
    }

    #[test]
    fn the_program_runs_from_memory() {
        ends(|run| {
            let program = up(&program_in_memory()?)?;
            Ok(run(Path::new(&format!(
                "/proc/self/fd/{}",
                program.as_raw_fd()
            )))?)
        });
    }

    #[test]
    fn where_memory_is_not_executable_it_runs_from_a_private_directory() {
        ends(|run| {
            from_directory(|path| {
                let dir = path.parent().unwrap().metadata().unwrap();
                assert_eq!(dir.permissions().mode() & 0o777, 0o700);
                run(path)
            })
        });
        let left = fs::read_dir("/run").unwrap().flatten();
        let ours = |name: &str| name.starts_with("lxc-rs-");
        assert_eq!(
            left.filter(|entry| entry.file_name().to_str().is_some_and(ours))
                .count(),
            0
        );
    }
}
