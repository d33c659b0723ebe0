//! The handle on DRBD: [`Drbd`].

use crate::dialect::{Dialect, Release};
use crate::dump::{self, Depth};
use crate::error::{Cause, Error, ErrorKind, Result};
use crate::events::{Filter, RawEvents};
use crate::exchange::{Exchange, Failure, Promise};
use crate::model::{ResourceName, State, TimeoutType};
use crate::op::{Operation, Outcome, PeerDeviceRef, Report};
use crate::run;
use crate::schema::{self, ctrl};
use crate::socket::{Connector, Deadline, Kernel, Received, Transport};
use crate::watch::Watcher;
use crate::wire::{
    Attrs, Control, GenlHeader, MessageBuilder, Messages, NLM_F_REQUEST, Native, WireError,
};
use crate::workers::Workers;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// DRBD on this machine, by generic netlink. No process is ever started.
///
/// The kernel carries out one DRBD request at a time, inside the system call
/// that sends it, and does not let go when it takes long. So every request
/// here runs on a thread of its own while the caller waits up to its
/// deadline; what outlives it is left behind and ends when the kernel lets go.
/// The thread of one that came to its end is kept for the next, and so is the
/// socket of a snapshot. Who waits without a limit ([`Duration::MAX`]) waits
/// for the kernel itself, without a thread.
///
/// # Examples
/// ```no_run
/// use drbd_nl::Drbd;
/// use std::time::Duration;
///
/// let drbd = Drbd::open()?;
/// for resource in drbd.snapshot(Duration::from_secs(5))?.resources {
///     println!("{} is {}", resource.name, resource.role);
/// }
/// # Ok::<(), drbd_nl::Error>(())
/// ```
#[derive(Debug)]
pub struct Drbd<C: Connector = Kernel> {
    connector: Arc<C>,
    family: Family,
    workers: Workers,
    reader: Reader<C::Transport>,
}

/// The socket of the last snapshot, which has nothing left to receive and has
/// left the events; none while one is at work.
type Reader<T> = Arc<Mutex<Option<T>>>;

/// DRBD's generic netlink family as the running kernel registered it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Family {
    /// Its id. Changes when the module is loaded again.
    pub id: u16,
    /// Its version: 1 in DRBD 8.4, 2 in DRBD 9.
    pub version: u32,
    /// Which interface that is.
    pub dialect: Dialect,
    /// Highest top level attribute the kernel knows.
    pub max_attr: u32,
    /// The module's release, where it is known.
    pub release: Option<Release>,
    events_group: u32,
    commands: Vec<u8>,
}

impl Family {
    /// Whether the kernel has a command.
    #[must_use]
    pub fn has(&self, command: u8) -> bool {
        self.commands.contains(&command)
    }

    pub(crate) fn events_group(&self) -> u32 {
        self.events_group
    }
}

impl Drbd {
    /// Looks the family up.
    ///
    /// # Errors
    /// [`ErrorKind::ModuleNotLoaded`] when there is no DRBD in the kernel;
    /// [`ErrorKind::Unsupported`] when it is one this crate does not speak.
    ///
    /// # Privileges
    /// None; reading needs none, changing does.
    pub fn open() -> Result<Self> {
        Self::with_connector(Kernel)
    }
}

impl<C: Connector> Drbd<C> {
    /// Looks the family up through another connector, as tests do.
    ///
    /// # Errors
    /// As [`Drbd::open`].
    pub fn with_connector(connector: C) -> Result<Self> {
        let transport = connector
            .open()
            .map_err(|source| socket_error("open", "", source))?;
        let mut family = find_family(transport)?;
        family.release = connector.release();
        Ok(Self {
            connector: Arc::new(connector),
            family,
            workers: Workers::default(),
            reader: Reader::default(),
        })
    }

    /// The family that was found.
    #[must_use]
    pub fn family(&self) -> &Family {
        &self.family
    }

    pub(crate) fn connect(&self, op: &str, target: &str) -> Result<C::Transport> {
        self.connector
            .open()
            .map_err(|source| socket_error(op, target, source))
    }

    /// A socket that has joined groups.
    pub(crate) fn connect_member(&self, op: &str, groups: &[u32]) -> Result<C::Transport> {
        self.connector
            .open_member(groups)
            .map_err(|source| socket_error(op, "", source))
    }

    /// The raw stream of events.
    ///
    /// # Errors
    /// When a socket cannot be had, or the group cannot be joined.
    pub fn events(&self) -> Result<RawEvents<C::Transport>> {
        RawEvents::open(self)
    }

    /// Looks the family up again: its id changes when the module is loaded
    /// again ([`ErrorKind::ModuleNotLoaded`] says that it did).
    ///
    /// # Errors
    /// As [`Drbd::open`].
    pub fn reopen(&mut self) -> Result<()> {
        let mut family = find_family(self.connect("open", "")?)?;
        family.release = self.connector.release();
        self.family = family;
        self.reader = Reader::default();
        Ok(())
    }

    /// A model of some resources alone that follows the events.
    ///
    /// # Errors
    /// As [`Drbd::watch`].
    pub fn watch_only(
        &self,
        names: impl IntoIterator<Item = ResourceName>,
    ) -> Result<Watcher<C::Transport>> {
        Watcher::open(self, Filter::only(names))
    }

    /// A model that follows the events; waits for the initial state.
    ///
    /// # Errors
    /// As [`Drbd::events`]; [`ErrorKind::Timeout`] when the initial state
    /// did not come within a minute.
    pub fn watch(&self) -> Result<Watcher<C::Transport>> {
        Watcher::open(self, Filter::default())
    }
}

impl<C: Connector + Send + Sync + 'static> Drbd<C>
where
    C::Transport: Send + 'static,
{
    /// Reads everything: resources, devices, connections, peer devices,
    /// paths, with settings and statistics.
    ///
    /// Blocks up to `timeout`. Several dumps make one state; see
    /// [`State::consistent`].
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], [`ErrorKind::ModuleNotLoaded`],
    /// [`ErrorKind::Malformed`], [`ErrorKind::Os`].
    ///
    /// # Privileges
    /// None; without CAP_SYS_ADMIN there are no secrets.
    pub fn snapshot(&self, timeout: Duration) -> Result<State> {
        let names = || ("snapshot".to_owned(), String::new());
        let reader = Arc::clone(&self.reader);
        let worker = self.worker(timeout, names(), move |connector, family, deadline| {
            snapshot(&*connector, &family, &reader, deadline, names())
        });
        match worker? {
            Some(Ok(state)) => Ok(state),
            Some(Err(Failure::Error(error))) => Err(error),
            Some(Err(Failure::Disturbed | Failure::NoAnswer)) | None => Err(Error::local(
                "snapshot",
                "",
                ErrorKind::Timeout,
                format!("no complete answer within {timeout:?}"),
            )),
        }
    }

    /// Runs an operation.
    ///
    /// Blocks up to `timeout`; what outlives it is [`Outcome::Unknown`]. A
    /// transient state is tried again until then.
    ///
    /// # Errors
    /// When DRBD refuses, with its code and texts; see [`ErrorKind`].
    ///
    /// # Privileges
    /// CAP_NET_ADMIN and CAP_SYS_ADMIN.
    pub fn run(&self, operation: &Operation, timeout: Duration) -> Result<Outcome> {
        self.run_reported(operation, timeout)
            .map(|report| report.outcome)
    }

    /// Like [`Drbd::run`], with the texts that came with the success.
    ///
    /// # Errors
    /// As [`Drbd::run`].
    pub fn run_reported(&self, operation: &Operation, timeout: Duration) -> Result<Report> {
        let names = || (operation.name().to_owned(), operation.target());
        let promise = Arc::new(Promise::default());
        let shared = Arc::clone(&promise);
        let task = operation.clone();
        let labels = names();
        let transport = self.connect(&labels.0, &labels.1)?;
        let worker = self.worker(timeout, names(), move |_, family, deadline| {
            let mut exchange = Exchange::new(transport, family, deadline, labels, shared);
            run::run(&mut exchange, &task)
        });
        match worker? {
            Some(Ok(report)) => Ok(report),
            Some(Err(Failure::Error(error))) => Err(error),
            // Nothing was sent that changes anything, so nothing is unknown.
            Some(Err(_)) | None if promise.abandon() => Err(Error::local(
                operation.name(),
                operation.target(),
                ErrorKind::Timeout,
                format!("nothing could be sent within {timeout:?}"),
            )),
            Some(Err(_)) | None => Ok(Report {
                outcome: Outcome::Unknown,
                info: Vec::new(),
            }),
        }
    }

    /// Which of drbd.conf's `startup` timeouts to take when waiting for the
    /// peer: it depends on how the device went down.
    ///
    /// # Errors
    /// As [`Drbd::run`]; [`ErrorKind::Timeout`] when there was no answer.
    ///
    /// # Privileges
    /// CAP_NET_ADMIN and CAP_SYS_ADMIN.
    pub fn timeout_type(
        &self,
        peer_device: &PeerDeviceRef,
        timeout: Duration,
    ) -> Result<TimeoutType> {
        let names = || ("get-timeout-type".to_owned(), peer_device.to_string());
        let (task, labels) = (peer_device.clone(), names());
        let transport = self.connect(&labels.0, &labels.1)?;
        let worker = self.worker(timeout, names(), move |_, family, deadline| {
            let mut exchange = Exchange::new(transport, family, deadline, labels, Arc::default());
            run::timeout_type(&mut exchange, &task)
        });
        match worker? {
            Some(Ok(kind)) => Ok(kind),
            Some(Err(Failure::Error(error))) => Err(error),
            Some(Err(_)) | None => {
                let (op, target) = names();
                let text = format!("no answer within {timeout:?}");
                Err(Error::local(op, target, ErrorKind::Timeout, text))
            }
        }
    }

    /// Makes this node Primary: [`Operation::Primary`].
    ///
    /// # Errors
    /// As [`Drbd::run`]; [`ErrorKind::NoCurrentData`], [`ErrorKind::PeerIsPrimary`].
    pub fn primary(&self, resource: &ResourceName, timeout: Duration) -> Result<Outcome> {
        self.run(
            &Operation::Primary {
                resource: resource.clone(),
            },
            timeout,
        )
    }

    /// Makes this node Secondary: [`Operation::Secondary`].
    ///
    /// # Errors
    /// As [`Drbd::run`]; [`ErrorKind::Busy`] while a volume is open.
    pub fn secondary(&self, resource: &ResourceName, timeout: Duration) -> Result<Outcome> {
        self.run(
            &Operation::Secondary {
                resource: resource.clone(),
            },
            timeout,
        )
    }

    /// Takes a resource down: [`Operation::Down`].
    ///
    /// # Errors
    /// As [`Drbd::run`].
    pub fn down(&self, resource: &ResourceName, timeout: Duration) -> Result<Outcome> {
        self.run(
            &Operation::Down {
                resource: resource.clone(),
            },
            timeout,
        )
    }

    /// Runs `task` on a thread of its own; `None` when it outlives the
    /// deadline. Without a limit there is nothing that a thread is needed for.
    fn worker<R: Send + 'static>(
        &self,
        timeout: Duration,
        (op, target): (String, String),
        task: impl FnOnce(Arc<C>, Family, Deadline) -> R + Send + 'static,
    ) -> Result<Option<R>> {
        let connector = Arc::clone(&self.connector);
        let family = self.family.clone();
        let deadline = Deadline::after(timeout);
        if deadline.never() {
            return Ok(Some(task(connector, family, deadline)));
        }
        let result = self
            .workers
            .start(move || task(connector, family, deadline))
            .map_err(|source| {
                let call = "thread";
                Error::new(op, target, Cause::System { call, source })
            })?;
        // A moment more than the worker has, so that its own answer wins.
        let more = Duration::from_millis(20);
        Ok(result.wait(timeout.saturating_add(more), deadline.later(more)))
    }
}

/// How often a state that moved while it was read is read again.
const ATTEMPTS: usize = 5;

/// Reads the state until nothing was announced meanwhile. Events come on the
/// socket of the dumps, between their answers; the last attempt is without
/// them, so that they cannot disturb it.
fn snapshot<C: Connector>(
    connector: &C,
    family: &Family,
    reader: &Reader<C::Transport>,
    deadline: Deadline,
    names: (String, String),
) -> std::result::Result<State, Failure> {
    let mut last = None;
    for attempt in 1..=ATTEMPTS {
        let watching = attempt < ATTEMPTS;
        let groups = watching.then_some(family.events_group);
        let kept = lock(reader).take().and_then(|mut transport| {
            transport.join(groups?).ok()?;
            Some(transport)
        });
        // A socket for each: an attempt that ends early leaves a dump behind.
        let transport = match kept {
            Some(transport) => transport,
            None => connector
                .open_member(groups.as_slice())
                .map_err(|source| socket_error(&names.0, &names.1, source))?,
        };
        let (family, names) = (family.clone(), names.clone());
        let mut exchange = Exchange::new(transport, family, deadline, names, Arc::default());
        if watching {
            exchange = exchange.watching();
        }
        match dump::read(&mut exchange, Depth::Full) {
            Ok((mut state, dangling)) => {
                let still = match exchange.moved() {
                    Ok(moved) => !moved,
                    Err(Failure::Disturbed) => false,
                    Err(failure) => return Err(failure),
                };
                state.consistent = watching && still && !dangling;
                if state.consistent {
                    let group = exchange.family.events_group;
                    let mut transport = exchange.into_transport();
                    if transport.leave(group).is_ok() {
                        *lock(reader) = Some(transport);
                    }
                    return Ok(state);
                }
                last = Some(state);
            }
            Err(Failure::Disturbed) => {}
            Err(failure) => return Err(failure),
        }
        if deadline.passed() {
            break;
        }
    }
    last.ok_or(Failure::Disturbed)
}

fn lock<T>(reader: &Mutex<T>) -> MutexGuard<'_, T> {
    reader.lock().unwrap_or_else(PoisonError::into_inner)
}

fn socket_error(op: &str, target: &str, source: io::Error) -> Error {
    let call = "socket";
    Error::new(op, target, Cause::System { call, source })
}

/// CTRL_CMD_GETFAMILY. Generic netlink answers at once, so a long wait means
/// that another request holds its lock.
fn find_family<T: Transport>(mut transport: T) -> Result<Family> {
    const OP: &str = "open";
    let system = |call| move |source| Error::new(OP, "", Cause::System { call, source });
    let wire = |error| Error::new(OP, "", Cause::Malformed(error));
    let mut builder = MessageBuilder::<Native>::genl(
        ctrl::GENL_ID_CTRL,
        NLM_F_REQUEST,
        ctrl::CTRL_CMD_GETFAMILY,
        1,
    );
    builder
        .attrs()
        .string(ctrl::CTRL_ATTR_FAMILY_NAME, schema::FAMILY.as_bytes());
    let request = builder.finish(1, transport.port()).map_err(wire)?;
    transport.send(&request).map_err(system("send"))?;
    let deadline = Deadline::after(Duration::from_secs(120));
    let mut buffer = Vec::new();
    loop {
        match transport
            .receive(&mut buffer, deadline)
            .map_err(system("receive"))?
        {
            Received::Datagram(datagram) if datagram.sender != 0 && !deadline.passed() => continue,
            Received::Datagram(datagram) if datagram.truncated => {
                return Err(wire(WireError {
                    what: "datagram: truncated",
                    at: 0,
                }));
            }
            Received::Datagram(_) => {}
            Received::TimedOut | Received::Overrun => {
                return Err(Error::local(
                    OP,
                    "",
                    ErrorKind::Timeout,
                    "generic netlink is silent",
                ));
            }
        }
        for msg in Messages::<Native>::new(&buffer) {
            let msg = msg.map_err(wire)?;
            if msg.seq != 1 {
                return Err(wire(WireError {
                    what: "answer: unexpected sequence number",
                    at: 8,
                }));
            }
            match msg.control::<Native>().map_err(wire)? {
                Some(Control::Error(code, _)) if code.wrapping_neg() == libc::ENOENT => {
                    return Err(Error::local(
                        OP,
                        "",
                        ErrorKind::ModuleNotLoaded,
                        "the DRBD kernel module is not loaded: load it (modprobe drbd), with \
                         usermode_helper= set to a program that exists and answers",
                    ));
                }
                Some(Control::Error(code, _)) if code != 0 => {
                    let source = io::Error::from_raw_os_error(code.wrapping_neg());
                    return Err(Error::new(
                        OP,
                        "",
                        Cause::Netlink {
                            source,
                            extack: None,
                        },
                    ));
                }
                Some(_) => {}
                None if msg.kind == ctrl::GENL_ID_CTRL => {
                    return read_family(GenlHeader::read(msg.body).map_err(wire)?.body)
                        .map_err(wire)?
                        .map_err(|text| Error::local(OP, "", ErrorKind::Unsupported, text));
                }
                None => {
                    let what = "answer: unexpected message type";
                    return Err(wire(WireError { what, at: 4 }));
                }
            }
        }
    }
}

/// The family in a CTRL_CMD_NEWFAMILY, or why it is of no use.
pub(crate) fn read_family(
    attrs: &[u8],
) -> std::result::Result<std::result::Result<Family, String>, WireError> {
    let (mut id, mut version, mut header, mut max_attr) = (0, 0, 0, 0);
    let (mut group, mut commands) = (None, Vec::new());
    for attr in Attrs::<Native>::new(attrs) {
        let attr = attr?;
        match attr.number {
            ctrl::CTRL_ATTR_FAMILY_ID => {
                let bytes = attr.payload.try_into().map_err(|_| WireError {
                    what: "family id",
                    at: 0,
                })?;
                id = u16::from_ne_bytes(bytes);
            }
            ctrl::CTRL_ATTR_VERSION => version = attr.u32()?,
            ctrl::CTRL_ATTR_HDRSIZE => header = attr.u32()?,
            ctrl::CTRL_ATTR_MAXATTR => max_attr = attr.u32()?,
            ctrl::CTRL_ATTR_OPS => {
                for op in attr.nest() {
                    if let Some(id) = op?.nest().find(ctrl::CTRL_ATTR_OP_ID)? {
                        commands.extend(u8::try_from(id.u32()?));
                    }
                }
            }
            ctrl::CTRL_ATTR_MCAST_GROUPS => {
                for entry in attr.nest() {
                    let entry = entry?.nest();
                    let name = entry.find(ctrl::CTRL_ATTR_MCAST_GRP_NAME)?;
                    let number = entry.find(ctrl::CTRL_ATTR_MCAST_GRP_ID)?;
                    if name.is_some_and(|n| n.string() == schema::GROUP_EVENTS.as_bytes()) {
                        group = number.map(|number| number.u32()).transpose()?;
                    }
                }
            }
            _ => {}
        }
    }
    let Some(dialect) = Dialect::from_version(version) else {
        return Ok(Err(format!(
            "this kernel's DRBD speaks version {version} of its interface; known are 1 (DRBD 8.4) \
             and 2 (DRBD 9)"
        )));
    };
    if header != 8 {
        return Ok(Err(format!(
            "this kernel's DRBD has a header of {header} bytes instead of 8"
        )));
    }
    let Some(events_group) = group else {
        return Ok(Err("this kernel's DRBD announces no events".into()));
    };
    Ok(Ok(Family {
        id,
        version,
        dialect,
        max_attr,
        release: None,
        events_group,
        commands,
    }))
}
