//! What happens to the containers of an lxcpath, as it happens.
//!
//! Monitors write each change of state into a FIFO, for a daemon that hands it
//! on (`lxc-monitord`). If there is one, this listens to it; if not, this reads
//! the FIFO and hands on what it reads, so that `lxc-monitor` works meanwhile.
//! Nothing is asked again and again, however many containers there are.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::Mode;

use crate::container::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::list;
use crate::os::without_sigpipe;
use crate::path::LxcPath;
use crate::state::State;

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateEvent {
    /// It is in another state.
    Changed {
        /// Its name.
        container: String,
        /// The new state.
        state: State,
    },
    /// Its init has ended. [`StateEvent::Changed`] to stopped follows.
    Exited {
        /// Its name.
        container: String,
        /// How.
        status: ExitStatus,
    },
    /// The stream was interrupted: the daemon ended, or events came faster
    /// than they were taken. All containers were asked, and these are in
    /// another state than the last event said; what was in between is lost.
    Resynced {
        /// Names and new states.
        changed: Vec<(String, State)>,
    },
}

/// The states of the containers of an lxcpath, and their changes.
///
/// A thread takes what the monitors write, always and at once, for a monitor
/// that finds the FIFO full waits. Up to 4096 changes are kept until they are
/// asked for. A container whose monitor is killed, which then writes nothing,
/// is noticed by the end of its init.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use lxc_rs::{LxcPath, StateEvent, StateEvents};
///
/// let mut events = StateEvents::open(&LxcPath::new("/srv/store1/containers")?)?;
/// println!("{:?}", events.states());
/// loop {
///     match events.next(Duration::from_secs(3600))? {
///         Some(StateEvent::Changed { container, state }) => println!("{container} is {state}"),
///         other => println!("{other:?}"),
///     }
/// }
/// # Ok::<(), lxc_rs::Error>(())
/// ```
#[must_use = "dropping this ends the stream"]
pub struct StateEvents {
    lxcpath: LxcPath,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    known: BTreeMap<String, State>,
    /// Init of each container that is up.
    inits: BTreeMap<String, OwnedFd>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Readable while there is something in the queue.
    filled: EventFd,
    /// Readable once the thread is to end.
    stop: EventFd,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Record>,
    /// Something is missing before the first record.
    gap: bool,
}

/// More is a gap.
const MOST: usize = 4096;

impl StateEvents {
    /// Joins the stream, then asks every container for its state.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] for other users than root;
    /// [`ErrorKind::Io`] if neither the FIFO nor the daemon can be had.
    ///
    /// # Privileges
    ///
    /// Root.
    pub fn open(lxcpath: &LxcPath) -> Result<Self> {
        let failed =
            |error| Error::io("events", "the stream cannot be joined", error).at(lxcpath.as_path());
        if !nix::unistd::geteuid().is_root() {
            let detail = "the monitors' FIFO is root's";
            return Err(Error::new(ErrorKind::Unsupported, "events", detail).at(lxcpath.as_path()));
        }
        let eventfd = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: eventfd().map_err(|error| failed(error.into()))?,
            stop: eventfd().map_err(|error| failed(error.into()))?,
        });
        let place = Place::of(lxcpath.as_path());
        let source = place.join(Duration::from_secs(5)).map_err(failed)?;
        let reader = Reader {
            place,
            shared: shared.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("lxc-rs events".to_owned())
            .spawn(move || reader.run(source))
            .map_err(failed)?;
        let mut events = Self {
            lxcpath: lxcpath.clone(),
            shared,
            thread: Some(thread),
            known: BTreeMap::new(),
            inits: BTreeMap::new(),
        };
        events.resync()?;
        Ok(events)
    }

    /// The states as far as the events taken so far tell: of all defined
    /// containers, and of others that run.
    #[must_use]
    pub fn states(&self) -> &BTreeMap<String, State> {
        &self.known
    }

    /// Waits for the next event; `None` if there is none by the deadline.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn next(&mut self, deadline: Duration) -> Result<Option<StateEvent>> {
        let until = Instant::now().checked_add(deadline);
        loop {
            if std::mem::take(&mut self.shared.lock().gap) {
                return Ok(Some(StateEvent::Resynced {
                    changed: self.resync()?,
                }));
            }
            while let Some(record) = self.shared.take() {
                if let Some(event) = self.apply(record) {
                    return Ok(Some(event));
                }
            }
            if let Some(event) = self.ended()? {
                return Ok(Some(event));
            }
            let left = until.map_or(Duration::MAX, |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Ok(None);
            }
            self.sleep(left)?;
        }
    }

    /// Waits until there may be something.
    fn sleep(&self, left: Duration) -> Result<()> {
        let mut fds = vec![PollFd::new(self.shared.filled.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.inits
                .values()
                .map(|init| PollFd::new(init.as_fd(), PollFlags::POLLIN)),
        );
        let timeout = PollTimeout::try_from(left.saturating_add(Duration::from_millis(1)));
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(Error::io("events", "poll failed", error.into())),
        }
    }

    fn apply(&mut self, record: Record) -> Option<StateEvent> {
        match record {
            Record::Exited { container, status } => Some(StateEvent::Exited { container, status }),
            Record::State { container, state } => self
                .set(&container, state)
                .then_some(StateEvent::Changed { container, state }),
        }
    }

    /// Notes a state; whether it is another one.
    fn set(&mut self, container: &str, state: State) -> bool {
        if state == State::Stopped {
            self.inits.remove(container);
        } else if !self.inits.contains_key(container) && state.is_up() {
            let opened = Container::open(&self.lxcpath, container);
            if let Ok(Some(init)) = opened.and_then(|container| container.init_pidfd()) {
                self.inits.insert(container.to_owned(), init);
            }
        }
        self.known.insert(container.to_owned(), state) != Some(state)
    }

    /// A container whose init has ended and whose monitor says nothing, having
    /// been killed.
    fn ended(&mut self) -> Result<Option<StateEvent>> {
        let has_ended = |init: &OwnedFd| {
            let mut fds = [PollFd::new(init.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        };
        let ended = self.inits.iter().find(|(_, init)| has_ended(init));
        let Some(container) = ended.map(|(container, _)| container.clone()) else {
            return Ok(None);
        };
        self.inits.remove(&container);
        let state = match Container::open(&self.lxcpath, container.as_str()) {
            Ok(container) => container.state()?,
            Err(_) => State::Stopped,
        };
        let changed = self.set(&container, state);
        Ok(changed.then_some(StateEvent::Changed { container, state }))
    }

    /// Asks all; which are in another state.
    fn resync(&mut self) -> Result<Vec<(String, State)>> {
        let mut now = BTreeMap::new();
        for (name, state) in list::states(&self.lxcpath)? {
            // One that cannot be asked is as it was.
            let known = self.known.get(name.as_str()).copied();
            if let Some(state) = state.ok().or(known) {
                now.insert(name.as_str().to_owned(), state);
            }
        }
        for name in list::active(&self.lxcpath)? {
            now.entry(name.as_str().to_owned())
                .or_insert(State::Running);
        }
        let gone = self
            .known
            .iter()
            .filter(|(name, state)| !now.contains_key(*name) && **state != State::Stopped);
        let gone: Vec<_> = gone
            .map(|(name, _)| (name.clone(), State::Stopped))
            .collect();
        now.extend(gone);
        let mut changed = Vec::new();
        for (name, state) in now {
            if self.set(&name, state) {
                changed.push((name, state));
            }
        }
        Ok(changed)
    }
}

/// Readable when there may be an event. The end of an init whose monitor was
/// killed is not seen by it, but by [`StateEvents::next`].
impl AsFd for StateEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.filled.as_fd()
    }
}

impl std::fmt::Debug for StateEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateEvents")
            .field("lxcpath", &self.lxcpath)
            .field("states", &self.known)
            .finish_non_exhaustive()
    }
}

impl Drop for StateEvents {
    fn drop(&mut self) {
        let _ = self.shared.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic; if it did, it is gone as well.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Record> {
        let mut queue = self.lock();
        let record = queue.records.pop_front();
        if queue.records.is_empty() {
            // Nothing to read is fine: it was read before.
            let _ = self.filled.read();
        }
        record
    }

    fn put(&self, record: Record) {
        let mut queue = self.lock();
        if queue.records.len() >= MOST {
            queue.records.clear();
            queue.gap = true;
        }
        queue.records.push_back(record);
        let _ = self.filled.write(1);
    }

    fn gap(&self) {
        self.lock().gap = true;
        let _ = self.filled.write(1);
    }
}

/// A message of a monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Record {
    State {
        container: String,
        state: State,
    },
    Exited {
        container: String,
        status: ExitStatus,
    },
}

/// Bytes of a message: a number for its type, a name, a number.
const RECORD: usize = 264;

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        let (name, value) = rest.split_at_checked(256)?;
        let value = i32::from_ne_bytes(*value.first_chunk()?);
        let end = name.iter().position(|byte| *byte == 0)?;
        let container = String::from_utf8(name.get(..end)?.to_vec()).ok()?;
        match i32::from_ne_bytes(*kind) {
            0 => {
                let state = *State::ALL.get(usize::try_from(value).ok()?)?;
                Some(Self::State { container, state })
            }
            2 => {
                let status = ExitStatus::from_raw(value);
                Some(Self::Exited { container, status })
            }
            // Priorities, and what else there may be one day.
            _ => None,
        }
    }
}

/// Where the monitors of an lxcpath write, and where the daemon listens.
struct Place {
    fifo: PathBuf,
    /// Abstract; `None` if the lxcpath is too long for one.
    socket: Option<SocketAddr>,
}

/// Where messages come from.
enum Source {
    Fifo {
        fifo: File,
        listener: Option<UnixListener>,
        clients: Vec<UnixStream>,
    },
    Daemon(UnixStream),
}

impl Place {
    fn of(lxcpath: &Path) -> Self {
        let relative = lxcpath.strip_prefix("/").unwrap_or(lxcpath);
        let text = lxcpath.as_os_str().as_bytes();
        let hashed = [b"lxc/", text, b"/monitor-sock"].concat();
        let hash = format!("lxc/{:016x}/", fnv(&hashed));
        let socket = [hash.as_bytes(), text].concat();
        Self {
            fifo: Path::new("/run/lxc").join(relative).join("monitor-fifo"),
            // One byte less than fits is what liblxc allows itself.
            socket: (socket.len() <= 104)
                .then(|| SocketAddr::from_abstract_name(socket).ok())
                .flatten(),
        }
    }

    /// The FIFO if nobody reads it, else the daemon that does. One that is
    /// just ending is waited for.
    fn join(&self, patience: Duration) -> io::Result<Source> {
        let until = Instant::now() + patience;
        loop {
            if let Some(source) = self.read_fifo()? {
                return Ok(source);
            }
            let refused = match &self.socket {
                None => io::Error::other(
                    "somebody else reads the FIFO, and the lxcpath is too long for a socket",
                ),
                Some(socket) => match UnixStream::connect_addr(socket) {
                    Ok(stream) => return Ok(Source::Daemon(stream)),
                    Err(error) => error,
                },
            };
            if Instant::now() >= until {
                return Err(refused);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Opens and locks the FIFO as the daemon does; `None` if it is locked.
    fn read_fifo(&self) -> io::Result<Option<Source>> {
        if let Some(dir) = self.fifo.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir)?;
        }
        match nix::unistd::mkfifo(&self.fifo, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // For reading and writing, so that it never ends.
        let fifo = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.fifo)?;
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(&fifo, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // A daemon that ended meanwhile took the name away.
        let is_same = |meta: fs::Metadata| Ok(meta.ino() == fifo.metadata()?.ino());
        if !fs::metadata(&self.fifo).and_then(is_same).unwrap_or(false) {
            return Ok(None);
        }
        // Room for more than usual; without it there is less.
        let _ = fcntl(&fifo, FcntlArg::F_SETPIPE_SZ(1 << 20));
        let listener = self.socket.as_ref().and_then(|socket| {
            let listener = UnixListener::bind_addr(socket).ok()?;
            listener.set_nonblocking(true).ok()?;
            Some(listener)
        });
        Ok(Some(Source::Fifo {
            fifo,
            listener,
            clients: Vec::new(),
        }))
    }
}

struct Reader {
    place: Place,
    shared: Arc<Shared>,
}

impl Reader {
    fn run(&self, mut source: Source) {
        while !self.read(&mut source) {
            // The daemon ended.
            self.shared.gap();
            loop {
                match self.place.join(Duration::ZERO) {
                    Ok(joined) => {
                        source = joined;
                        break;
                    }
                    Err(_) if self.stops(Duration::from_millis(100)) => return,
                    Err(_) => {}
                }
            }
            // Between the two nobody listened.
            self.shared.gap();
        }
    }

    fn stops(&self, within: Duration) -> bool {
        let mut fds = [PollFd::new(self.shared.stop.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO);
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Takes messages until it is told to stop (true) or the source ends.
    fn read(&self, source: &mut Source) -> bool {
        let mut buffer = Vec::new();
        loop {
            let mut fds = vec![PollFd::new(self.shared.stop.as_fd(), PollFlags::POLLIN)];
            match &*source {
                Source::Daemon(stream) => fds.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN)),
                Source::Fifo {
                    fifo,
                    listener,
                    clients,
                } => {
                    fds.push(PollFd::new(fifo.as_fd(), PollFlags::POLLIN));
                    let listener = listener.iter().map(|listener| listener.as_fd());
                    let others = listener.chain(clients.iter().map(AsFd::as_fd));
                    fds.extend(others.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
                }
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
            let ready = |index: usize| {
                let fd: Option<&PollFd<'_>> = fds.get(index);
                fd.and_then(PollFd::revents)
                    .is_some_and(|events| !events.is_empty())
            };
            let (stop, spoke) = (ready(0), ready(1));
            drop(fds);
            if stop {
                return true;
            }
            if let Source::Fifo {
                listener, clients, ..
            } = source
            {
                serve(listener.as_ref(), clients);
            }
            if spoke && !self.take(source, &mut buffer) {
                return false;
            }
        }
    }

    fn take(&self, source: &mut Source, buffer: &mut Vec<u8>) -> bool {
        let mut chunk = [0; 64 * RECORD];
        let read = match source {
            Source::Fifo { fifo, .. } => fifo.read(&mut chunk),
            Source::Daemon(stream) => stream.read(&mut chunk),
        };
        match read {
            Ok(0) => return false,
            Ok(length) => buffer.extend_from_slice(&chunk[..length]),
            Err(error) => {
                return matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                );
            }
        }
        let whole = buffer.len() - buffer.len() % RECORD;
        for record in buffer[..whole].chunks_exact(RECORD) {
            if let Source::Fifo { clients, .. } = source {
                // One that does not take it has lost its place.
                clients.retain_mut(|client| {
                    without_sigpipe(|| client.write(record)).is_ok_and(|written| written == RECORD)
                });
            }
            if let Some(record) = Record::parse(record) {
                self.shared.put(record);
            }
        }
        buffer.drain(..whole);
        true
    }
}

/// Lets others listen, and lets go of those who have left.
fn serve(listener: Option<&UnixListener>, clients: &mut Vec<UnixStream>) {
    while let Some(Ok((client, _))) = listener.map(UnixListener::accept) {
        // Root only, as the daemon has it.
        let root =
            nix::sys::socket::getsockopt(&client, nix::sys::socket::sockopt::PeerCredentials)
                .is_ok_and(|peer| peer.uid() == 0);
        if root && client.set_nonblocking(true).is_ok() {
            clients.push(client);
        }
    }
    clients.retain_mut(|client| {
        let mut word = [0; 16];
        match client.read(&mut word) {
            Ok(length) => length > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    });
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn record(kind: i32, name: &[u8], value: i32) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend_from_slice(name);
        bytes.resize(4 + 256, 0);
        bytes.extend_from_slice(&value.to_ne_bytes());
        bytes
    }

    #[test]
    fn messages_are_read() {
        assert_eq!(record(0, b"m1", 2).len(), RECORD);
        let running = Record::State {
            container: "m1".to_owned(),
            state: State::Running,
        };
        assert_eq!(Record::parse(&record(0, b"m1", 2)), Some(running));
        let killed = Record::Exited {
            container: "m1".to_owned(),
            status: ExitStatus::from_raw(9),
        };
        assert_eq!(Record::parse(&record(2, b"m1", 9)), Some(killed));
        for bad in [
            record(1, b"m1", 0),
            record(0, b"m1", 8),
            record(0, b"m1", -1),
            record(0, b"\xff", 0),
            record(0, &[b'x'; 256], 0),
            vec![0; 12],
        ] {
            assert_eq!(Record::parse(&bad), None);
        }
    }

    #[test]
    fn places_have_the_names_that_liblxc_uses() {
        // The parameters' published test values.
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
        let place = Place::of(Path::new("/srv/a"));
        assert_eq!(place.fifo, Path::new("/run/lxc/srv/a/monitor-fifo"));
        let name = place.socket.unwrap();
        let name = name.as_abstract_name().unwrap();
        assert!(
            name.starts_with(b"lxc/") && name.ends_with(b"//srv/a"),
            "{name:?}"
        );
        let long = format!("/{}", "x".repeat(100));
        assert!(Place::of(Path::new(&long)).socket.is_none());
    }

    #[test]
    fn too_many_are_a_gap() {
        let eventfd = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let shared = Shared {
            queue: Mutex::default(),
            filled: eventfd(),
            stop: eventfd(),
        };
        let one = Record::parse(&record(0, b"m1", 2)).unwrap();
        for _ in 0..=MOST {
            shared.put(one.clone());
        }
        assert!(shared.lock().gap);
        assert_eq!(shared.take(), Some(one));
        assert_eq!(shared.take(), None);
        assert!(shared.filled.read().is_err());
    }
}
