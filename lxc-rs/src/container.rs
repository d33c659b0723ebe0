//! A container: its state, its life cycle and the ways to end it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{self, Stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::log::LogLine;
use crate::partial;
use crate::path::{ContainerName, LxcPath};
use crate::rootfs::{self, Rootfs};
use crate::runner::{Call, Helper, Next};
use crate::state::{Outcome, State, Unknown};
use crate::sys::Object;
use crate::tree;
use crate::wire::{Edit, Event, Failure, Reply, Verb};

/// A defined container of an [`LxcPath`].
///
/// The handle may be moved to and shared between threads. Queries take a lock
/// of the handle for the time of one call. Verbs that change something run in
/// a process of their own and do not hold it, so one thread may watch the
/// state while another waits for a shutdown; what two verbs at once do is up
/// to liblxc, which serialises them per container as far as it must.
///
/// Dropping it releases memory and nothing else: a running container goes on.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use lxc_rs::{Container, LxcPath, StartOptions};
///
/// let store = LxcPath::new("/srv/store1/containers")?;
/// let m1 = Container::open(&store, "m1")?;
/// m1.start(&StartOptions::new(), Duration::from_secs(30))?.done()?;
/// println!("{} is {}, init is {:?}", m1.name(), m1.state()?, m1.init_pid()?);
/// m1.shutdown(Duration::from_secs(60))?.done()?;
/// # Ok::<(), lxc_rs::Error>(())
/// ```
#[derive(Debug)]
pub struct Container {
    lxcpath: LxcPath,
    name: ContainerName,
    pub(crate) object: Mutex<Object>,
    /// Changes in memory that the file does not have. The helper opens the
    /// file and makes them again.
    pub(crate) edits: Vec<Edit>,
    /// The file as it was when it was read.
    pub(crate) stamp: Stamp,
}

impl Container {
    /// Opens a container that is defined, that is, has a configuration file.
    ///
    /// Does not fork. If liblxc rejects the configuration it prints one line
    /// on standard error by itself; the reason is in the error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotDefined`]; [`ErrorKind::PartialCreate`] if a creation
    /// was cut off (see [`partial`](crate::partial)); [`ErrorKind::ConfigRejected`]
    /// with the log line that names the key; [`ErrorKind::NoPermission`].
    pub fn open<N>(lxcpath: &LxcPath, name: N) -> Result<Self>
    where
        N: TryInto<ContainerName>,
        N::Error: Into<Error>,
    {
        let name = name.try_into().map_err(Into::into)?;
        Self::open_for("open", lxcpath, name)
    }

    pub(crate) fn open_for(
        call: &'static str,
        lxcpath: &LxcPath,
        name: ContainerName,
    ) -> Result<Self> {
        let error = |kind, detail: String| {
            Error::new(kind, call, detail).on(name.as_str(), lxcpath.as_path())
        };
        partial::refuse(call, lxcpath, &name)?;
        let file = lxcpath.container_dir(&name).join("config");
        let stamp = Stamp::of(&file).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => error(
                ErrorKind::NotDefined,
                format!("there is no {}", file.display()),
            ),
            std::io::ErrorKind::PermissionDenied => error(
                ErrorKind::NoPermission,
                format!("{} cannot be read", file.display()),
            )
            .os(cause),
            _ => error(ErrorKind::Io, format!("{} cannot be read", file.display())).os(cause),
        })?;
        let object = Object::open(lxcpath.library().clone(), &name.to_c(), lxcpath.c_path());
        let Some(object) = object else {
            return Err(why_not_loaded(call, lxcpath, &name));
        };
        // Read before the configuration was: if it changed between, a later
        // save sees a difference and refuses, which is the safe side.
        Ok(Self {
            lxcpath: lxcpath.clone(),
            name,
            object: Mutex::new(object),
            edits: Vec::new(),
            stamp,
        })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &ContainerName {
        &self.name
    }

    /// Where it lives.
    #[must_use]
    pub fn lxcpath(&self) -> &LxcPath {
        &self.lxcpath
    }

    /// Its directory, `<lxcpath>/<name>`.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.lxcpath.container_dir(&self.name)
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir().join("config")
    }

    /// Whether the configuration file is (still) there.
    #[must_use]
    pub fn is_defined(&self) -> bool {
        self.lock().is_defined()
    }

    /// The state. Does not fork, and takes about 0.1 ms.
    ///
    /// A monitor that hangs (stopped, or stuck on a disk) makes this hang as
    /// well, unless [`Container::set_answer_timeout`] was called;
    /// [`Container::state_within`] does not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] if the state cannot be told, which liblxc's own
    /// `is_running` would call "running".
    pub fn state(&self) -> Result<State> {
        self.parse_state("state", self.lock().state())
    }

    /// The state, asked for by a process that is given up at the deadline.
    ///
    /// # Errors
    ///
    /// As [`Container::state`], and [`ErrorKind::Helper`].
    pub fn state_within(&self, deadline: Duration) -> Result<Outcome<State>> {
        let call = self.call("state", Verb::State, deadline);
        match run(&call)? {
            Ended::Reply(Reply::State { state }, _) => {
                Ok(Outcome::Done(self.parse_state("state", &state)?))
            }
            ended => self.outcome(&call, ended),
        }
    }

    /// Any query, with a deadline: asked in a thread of its own, which is given
    /// up at the deadline and ends when the monitor answers or ends.
    ///
    /// The container is opened anew for it, so changes of this handle that are
    /// not saved are not seen.
    ///
    /// # Errors
    ///
    /// Those of the query and of [`Container::open`]; [`ErrorKind::Helper`] if
    /// there can be no thread, or the query panics.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use lxc_rs::{Container, LxcPath};
    ///
    /// let m1 = Container::open(&LxcPath::new("/srv/store1/containers")?, "m1")?;
    /// let pid = m1.query_within(Duration::from_secs(5), Container::init_pid)?.done()?;
    /// println!("{pid:?}");
    /// # Ok::<(), lxc_rs::Error>(())
    /// ```
    pub fn query_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        query: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<Outcome<T>> {
        const CALL: &str = "query_within";
        let (lxcpath, name) = (self.lxcpath.clone(), self.name.clone());
        let (sender, receiver) = mpsc::channel();
        let ask = move || {
            let answer = Self::open_for(CALL, &lxcpath, name).and_then(|opened| query(&opened));
            // Nobody waits for a late one.
            let _ = sender.send(answer);
        };
        std::thread::Builder::new()
            .name("lxc-rs query".to_owned())
            .spawn(ask)
            .map_err(|error| self.error(CALL, ErrorKind::Helper, "no thread").os(error))?;
        match receiver.recv_timeout(deadline) {
            Ok(answer) => answer.map(Outcome::Done),
            Err(RecvTimeoutError::Timeout) => {
                let call = self.call(CALL, Verb::State, deadline);
                Ok(unknown(&call, None, Vec::new()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(self.error(CALL, ErrorKind::Helper, "the query panicked"))
            }
        }
    }

    /// Bounds how long [`Container::state`] of this handle waits for a monitor
    /// that does not answer, rounded up to seconds; `None` takes the bound
    /// away. liblxc 6.0 does so for the state alone: everything else that is
    /// asked of a running container goes on waiting, see
    /// [`Container::query_within`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] with liblxc before 6.0.
    #[doc(alias = "set_timeout")]
    pub fn set_answer_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        const CALL: &str = "set_answer_timeout";
        let seconds = match timeout {
            None => -1,
            // Zero would mean none as well.
            Some(time) => i32::try_from(time.as_millis().div_ceil(1000).max(1)).unwrap_or(i32::MAX),
        };
        match self.lock().set_timeout(seconds) {
            Some(true) => Ok(()),
            Some(false) => Err(self.error(CALL, ErrorKind::Refused, "liblxc says no")),
            None => {
                let version = self.lxcpath.liblxc_version();
                let detail = format!("needs liblxc 6.0, and this is {version}");
                Err(self.error(CALL, ErrorKind::Unsupported, detail))
            }
        }
    }

    /// Whether the container is up: running, frozen, or between the two.
    ///
    /// # Errors
    ///
    /// As [`Container::state`].
    pub fn is_up(&self) -> Result<bool> {
        self.state().map(State::is_up)
    }

    /// The process id of init, in this process's view; `None` if the container
    /// does not run. The number may be another process's by the time it is
    /// used; [`Container::init_pidfd`] cannot be. A monitor that hangs makes
    /// this, and whatever else is asked of a running container without a
    /// deadline, hang as well; see [`Container::query_within`].
    ///
    /// # Errors
    ///
    /// Never now; room for liblxc to say more.
    pub fn init_pid(&self) -> Result<Option<u32>> {
        Ok(u32::try_from(self.lock().init_pid())
            .ok()
            .filter(|pid| *pid > 0))
    }

    /// A handle on init, readable for `poll` once init has ended; `None` if
    /// the container does not run. Costs nothing while waiting, and notices a
    /// death that no monitor reports.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] with the errno liblxc returned.
    ///
    /// # Kernel support
    ///
    /// 5.3.
    pub fn init_pidfd(&self) -> Result<Option<OwnedFd>> {
        let fd = crate::os::owned(self.lock().init_pidfd());
        match fd {
            Ok(fd) => {
                // liblxc does not promise it.
                let flag = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
                nix::fcntl::fcntl(&fd, flag)
                    .map_err(|error| self.io("init_pidfd", "F_SETFD failed", error.into()))?;
                Ok(Some(fd))
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(self.io("init_pidfd", "liblxc gave no descriptor", error)),
        }
    }

    /// Where the root file system is, and by which driver; `None` if the
    /// configuration does not say. (The configuration *item* does not have the
    /// driver in it, so this reads the configuration's text.)
    ///
    /// # Errors
    ///
    /// As [`Container::config_text`].
    pub fn rootfs(&self) -> Result<Option<Rootfs>> {
        Ok(Rootfs::in_config(&self.config_text()?))
    }

    /// Starts the container in the background and waits until its init runs.
    ///
    /// The monitor, which stays until the container ends, is a small process
    /// of its own without this program's memory and descriptors. It has the
    /// environment, cgroup and mount namespace of the caller.
    ///
    /// Blocks until the start is over, at most a second longer than
    /// `deadline`; a start that outlives it is not taken back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyRunning`], [`ErrorKind::RootfsMissing`],
    /// [`ErrorKind::BridgeMissing`], [`ErrorKind::PartialCreate`],
    /// [`ErrorKind::WrongDriver`], [`ErrorKind::NotMapped`],
    /// [`ErrorKind::ConfigRejected`] for an item of the options,
    /// [`ErrorKind::NoPermission`], or [`ErrorKind::Refused`]; each with what
    /// liblxc logged.
    ///
    /// # Privileges
    ///
    /// Root, or what liblxc needs for unprivileged containers.
    #[doc(alias = "daemonize")]
    pub fn start(&self, options: &StartOptions, deadline: Duration) -> Result<Outcome> {
        self.check_start("start", options)?;
        let mut call = self.call(
            "start",
            Verb::Start {
                argv: options.argv.clone(),
            },
            deadline,
        );
        call.edits.extend(options.edits.iter().cloned());
        match run(&call)? {
            Ended::Reply(Reply::State { state }, log) => {
                // "Started" is also what liblxc says of an init that cannot be executed.
                match State::parse(&state) {
                    Some(State::Stopped | State::Aborting | State::Stopping) => {
                        let detail = "it was started and ended at once; does its init run?";
                        Err(self.explain(call.error(ErrorKind::Refused, detail).with_log(log)))
                    }
                    _ => Ok(Outcome::Done(())),
                }
            }
            ended => self.outcome(&call, ended),
        }
    }

    /// Refuses what would start on the host's own root, or on one that is
    /// nobody's inside.
    pub(crate) fn check_start(&self, call: &'static str, options: &StartOptions) -> Result<()> {
        partial::refuse(call, &self.lxcpath, &self.name)?;
        let names_rootfs =
            |edit: &Edit| matches!(edit, Edit::Set { key, .. } if key == b"lxc.rootfs.path");
        if !options.host_rootfs
            && !options.edits.iter().any(names_rootfs)
            && self.rootfs()?.is_none()
        {
            let detail = "its configuration names no root file system, and liblxc would run init on this \
                machine's own (is the file empty or cut off?)";
            return Err(self.error(call, ErrorKind::RootfsMissing, detail));
        }
        if !options.foreign_rootfs
            && let Some(detail) = config::foreign_rootfs(self)
        {
            return Err(self.error(call, ErrorKind::NotMapped, detail));
        }
        Ok(())
    }

    /// Sends init its halt signal (`lxc.signal.halt`) and waits until the
    /// container and its monitor are gone, so that its file system can be
    /// unmounted.
    ///
    /// An init that has only just started and does not hear the signal gets it
    /// again when it does. One that ignores it is [`Outcome::Unknown`] at the
    /// deadline; [`Container::stop`] is the way on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`] if it is stopped already; see
    /// [`Container::start`] for the others.
    pub fn shutdown(&self, deadline: Duration) -> Result<Outcome> {
        self.simple("shutdown", Verb::Shutdown, deadline)
    }

    /// Kills the container and waits until it and its monitor are gone.
    ///
    /// # Errors
    ///
    /// As [`Container::shutdown`].
    pub fn stop(&self, deadline: Duration) -> Result<Outcome> {
        self.simple("stop", Verb::Stop, deadline)
    }

    /// Waits until the container is in `state`; false if it is in another one
    /// at the deadline. Zero means "now" (liblxc's own wait would block for
    /// ever).
    ///
    /// The state is asked for at least once, whatever the deadline, and the
    /// answer is the truth: starting the question may take a minute on a
    /// machine that is very busy, and the monitor may take ten seconds to
    /// answer it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if the monitor does not answer in that time;
    /// [`ErrorKind::Helper`].
    pub fn wait(&self, state: State, deadline: Duration) -> Result<bool> {
        let verb = Verb::Wait {
            state: state.as_str().as_bytes().to_vec(),
        };
        self.ask(&self.call("wait", verb, deadline))
    }

    /// Waits until nothing of the container is left: state stopped, monitor
    /// process ended (it pins the file system longer than init does), no
    /// process in its cgroups. False if something is left at the deadline.
    ///
    /// [`Container::shutdown`] and [`Container::stop`] do this by themselves;
    /// this is for a container that was ended by somebody else. It looks at
    /// least once, as [`Container::wait`] does.
    ///
    /// # Errors
    ///
    /// As [`Container::wait`].
    pub fn wait_gone(&self, deadline: Duration) -> Result<bool> {
        self.ask(&self.call("wait_gone", Verb::WaitGone, deadline))
    }

    /// Yes, or no with a state seen; not to know is an error.
    fn ask(&self, call: &Call<'_>) -> Result<bool> {
        match self.outcome::<()>(call, run(call)?)? {
            Outcome::Done(()) => Ok(true),
            Outcome::Unknown(unknown) if unknown.last_state.is_some() => Ok(false),
            unknown => unknown.done().map(|()| true),
        }
    }

    /// Suspends all processes of the container.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`], [`ErrorKind::Refused`].
    pub fn freeze(&self, deadline: Duration) -> Result<Outcome> {
        self.simple("freeze", Verb::Freeze, deadline)
    }

    /// Lets a frozen container run on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`] (liblxc would call that a success),
    /// [`ErrorKind::Refused`].
    pub fn unfreeze(&self, deadline: Duration) -> Result<Outcome> {
        self.simple("unfreeze", Verb::Unfreeze, deadline)
    }

    /// Removes the container: its directory, configuration and root file
    /// system, subvolumes inside that included. There is no way back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyRunning`] if it is not stopped,
    /// [`ErrorKind::HasSnapshots`], [`ErrorKind::Refused`].
    ///
    /// # Privileges
    ///
    /// Root, or the user who created it; that user needs the file system
    /// mounted with `user_subvol_rm_allowed`, and is told so by
    /// [`ErrorKind::NoPermission`].
    pub fn destroy(self, deadline: Duration) -> Result<Outcome> {
        self.simple("destroy", Verb::Destroy, deadline)
    }

    pub(crate) fn simple(
        &self,
        name: &'static str,
        verb: Verb,
        deadline: Duration,
    ) -> Result<Outcome> {
        let call = self.call(name, verb, deadline);
        self.outcome(&call, run(&call)?)
    }

    pub(crate) fn call(&self, name: &'static str, verb: Verb, deadline: Duration) -> Call<'_> {
        Call {
            name,
            lxcpath: &self.lxcpath,
            container: &self.name,
            edits: self.edits.clone(),
            verb,
            deadline,
        }
    }

    /// What an end without a value of its own means.
    pub(crate) fn outcome<T: Nothing>(&self, call: &Call<'_>, ended: Ended) -> Result<Outcome<T>> {
        outcome(call, ended).map_err(|error| self.explain(error))
    }

    /// Finds what liblxc's refusal was about, by looking at the facts: the log
    /// is for people.
    pub(crate) fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Refused
            || !matches!(error.call(), "start" | "start_foreground" | "destroy")
        {
            return error;
        }
        let findings: Vec<(ErrorKind, String)> = match error.call() {
            "destroy" => self.keeps().into_iter().collect(),
            _ => config::unmet_needs(self),
        };
        let mut error = error;
        if let Some((kind, _)) = findings.first() {
            error = error.with_kind(*kind);
        }
        for (_, detail) in &findings {
            error.add_detail(detail);
        }
        error
    }

    /// What keeps the container from being destroyed.
    fn keeps(&self) -> Option<(ErrorKind, String)> {
        if rootfs::has_snapshots(&self.dir()) {
            return Some((ErrorKind::HasSnapshots, "it has snapshots".to_owned()));
        }
        let rootfs = self.rootfs().ok()??;
        (tree::ordinary_user() && rootfs.is_subvolume()).then(|| {
            let detail = "who is not root deletes subvolumes only where the file system is \
                mounted with user_subvol_rm_allowed";
            (ErrorKind::NoPermission, detail.to_owned())
        })
    }

    pub(crate) fn error(
        &self,
        call: &'static str,
        kind: ErrorKind,
        detail: impl Into<String>,
    ) -> Error {
        Error::new(kind, call, detail).on(self.name.as_str(), self.lxcpath.as_path())
    }

    pub(crate) fn io(&self, call: &'static str, detail: &str, error: std::io::Error) -> Error {
        Error::io(call, detail, error).on(self.name.as_str(), self.lxcpath.as_path())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Object> {
        // Nothing panics while it is held, and the object is liblxc's anyway.
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parse_state(&self, call: &'static str, state: &[u8]) -> Result<State> {
        State::parse(state).ok_or_else(|| {
            let detail = format!(
                "the state cannot be told ({:?})",
                String::from_utf8_lossy(state)
            );
            self.error(call, ErrorKind::Refused, detail)
        })
    }
}

/// What one start may change: nothing of it is saved.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct StartOptions {
    argv: Vec<Vec<u8>>,
    edits: Vec<Edit>,
    host_rootfs: bool,
    foreign_rootfs: bool,
}

impl StartOptions {
    /// A start as configured.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn argv(&self) -> &[Vec<u8>] {
        &self.argv
    }

    pub(crate) fn edits(&self) -> &[Edit] {
        &self.edits
    }

    /// Runs this instead of the configured init. An empty list means the
    /// configured one (handed to liblxc it would end the container at once).
    pub fn command<A: Into<OsString>>(mut self, argv: impl IntoIterator<Item = A>) -> Self {
        self.argv = argv
            .into_iter()
            .map(|argument| argument.into().into_vec())
            .collect();
        self
    }

    /// Allows a start without a root file system of its own, on this machine's:
    /// for an application in namespaces. Without this it is refused, because a
    /// configuration that was emptied by a crash looks just like that.
    pub fn host_rootfs(mut self) -> Self {
        self.host_rootfs = true;
        self
    }

    /// Allows a start of a container with `lxc.idmap` on a root file system
    /// whose owner is nobody inside, so that its root cannot change it. Without
    /// this it is refused: most often it is a tree that was not given to the
    /// ids outside ([`Container::create`] does that).
    pub fn foreign_rootfs(mut self) -> Self {
        self.foreign_rootfs = true;
        self
    }

    /// Adds a variable to the environment of init.
    pub fn env(self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let mut entry = name.into();
        entry.push("=");
        entry.push(value.into());
        self.config("lxc.environment", entry)
    }

    /// Sets a configuration item; keys that are lists are added to.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        let key = key.into().into_bytes();
        self.edits.push(Edit::Set {
            key,
            value: value.into().into_vec(),
        });
        self
    }
}

/// Types an outcome can carry when the helper only says "done".
pub(crate) trait Nothing: Sized {
    fn nothing() -> Option<Self> {
        None
    }
}

impl Nothing for () {
    fn nothing() -> Option<Self> {
        Some(())
    }
}

impl Nothing for State {}
impl Nothing for i32 {}
impl Nothing for Vec<Vec<u8>> {}

/// How a helper ended.
pub(crate) enum Ended {
    Reply(Reply, Vec<LogLine>),
    TimedOut(Vec<LogLine>),
    Died(String, Vec<LogLine>),
}

/// Runs a call whose helper has nothing to ask.
pub(crate) fn run(call: &Call<'_>) -> Result<Ended> {
    let mut helper = call.begin(None)?;
    match helper.next(&[]) {
        Ok(next) => Ok(ended(helper, next)),
        Err(error) => Err(broken(call, helper, error)),
    }
}

/// Ends a helper after its last event.
pub(crate) fn ended(helper: Helper, last: Next) -> Ended {
    match last {
        Next::Event(Event::Done { reply }) => Ended::Reply(reply, helper.finish(true)),
        Next::TimedOut => Ended::TimedOut(helper.finish(false)),
        Next::Died(how) => Ended::Died(how, helper.finish(true)),
        Next::Event(_) | Next::Ready => Ended::Died(
            "it asked what nobody can answer".to_owned(),
            helper.finish(false),
        ),
    }
}

/// The conversation itself failed.
pub(crate) fn broken(call: &Call<'_>, helper: Helper, error: std::io::Error) -> Error {
    let log = helper.finish(false);
    call.error(ErrorKind::Helper, "talking to the helper process failed")
        .os(error)
        .with_log(log)
}

/// What an end means where the helper has no value to give.
pub(crate) fn outcome<T: Nothing>(call: &Call<'_>, ended: Ended) -> Result<Outcome<T>> {
    let (reply, log) = match ended {
        Ended::Reply(reply, log) => (reply, log),
        Ended::TimedOut(log) => return Ok(unknown(call, None, log)),
        Ended::Died(how, log) => {
            let detail = format!("the helper process ended without an answer ({how})");
            return Err(call.error(ErrorKind::Helper, detail).with_log(log));
        }
    };
    let error = match reply {
        Reply::Done => match T::nothing() {
            Some(nothing) => return Ok(Outcome::Done(nothing)),
            None => call.error(ErrorKind::Helper, "the helper process gave no value"),
        },
        Reply::TimedOut { state } => return Ok(unknown(call, State::parse(&state), log)),
        Reply::Failed { failure } => failed(call, failure, &log),
        _ => call.error(ErrorKind::Helper, "the helper process gave a wrong answer"),
    };
    Err(error.with_log(log))
}

fn unknown<T>(call: &Call<'_>, last_state: Option<State>, log: Vec<LogLine>) -> Outcome<T> {
    Outcome::Unknown(Unknown {
        call: call.name,
        container: call.container.as_str().to_owned(),
        deadline: call.deadline,
        last_state,
        log,
        path: call.lxcpath.as_path().to_owned(),
    })
}

fn failed(call: &Call<'_>, failure: Failure, log: &[LogLine]) -> Error {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let denied = || {
        let mut causes = log.iter().filter(|line| line.is_cause());
        let words = ["Operation not permitted", "Permission denied"];
        causes.any(|line| words.iter().any(|word| line.message.contains(word)))
    };
    match failure {
        Failure::Library { text: why } => {
            let detail = format!("the helper process cannot load liblxc: {}", text(why));
            call.error(ErrorKind::Unsupported, detail)
        }
        Failure::Edit { index } => {
            let edit = usize::try_from(index)
                .ok()
                .and_then(|index| call.edits.get(index));
            let detail = match edit {
                Some(Edit::Set { key, value }) => format!(
                    "liblxc rejects {} = {}",
                    String::from_utf8_lossy(key),
                    String::from_utf8_lossy(value)
                ),
                Some(Edit::Clear { key }) => {
                    format!("liblxc does not clear {}", String::from_utf8_lossy(key))
                }
                None => "liblxc rejects a change".to_owned(),
            };
            call.error(ErrorKind::ConfigRejected, detail)
        }
        Failure::NotDefined => {
            call.error(ErrorKind::NotDefined, "there is no such container any more")
        }
        Failure::Running { state } => call.error(
            ErrorKind::AlreadyRunning,
            format!("its state is {}", text(state)),
        ),
        Failure::NotRunning => call.error(ErrorKind::NotRunning, "it does not run"),
        // As root a denial is a consequence of something else.
        Failure::Call { .. } | Failure::NotLoaded
            if !nix::unistd::geteuid().is_root() && denied() =>
        {
            call.error(ErrorKind::NoPermission, "liblxc was denied something")
        }
        Failure::NotLoaded => call.error(
            ErrorKind::ConfigRejected,
            "liblxc rejects the configuration",
        ),
        Failure::Call { .. } => call.error(ErrorKind::Refused, "liblxc says no"),
        Failure::File { what, errno } => call
            .error(ErrorKind::Io, text(what))
            .os(std::io::Error::from_raw_os_error(errno)),
        Failure::Internal { text: why } => call.error(
            ErrorKind::Helper,
            format!("the helper process failed: {}", text(why)),
        ),
    }
}

/// `lxc_container_new` said nothing but no: asks the helper, which has a log.
fn why_not_loaded(name: &'static str, lxcpath: &LxcPath, container: &ContainerName) -> Error {
    let deadline = Duration::from_secs(10);
    let call = Call {
        name,
        lxcpath,
        container,
        edits: Vec::new(),
        verb: Verb::Check,
        deadline,
    };
    match run(&call).and_then(|ended| outcome::<()>(&call, ended)) {
        Err(error) => error,
        Ok(_) => call.error(
            ErrorKind::ConfigRejected,
            "liblxc rejects the configuration",
        ),
    }
}

/// The file that marks a creation under way.
pub(crate) fn partial_file(lxcpath: &LxcPath, name: &ContainerName) -> PathBuf {
    lxcpath.container_dir(name).join("partial")
}

/// Whether `path` exists, whatever it is.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_cross_threads() {
        fn crosses<T: Send + Sync>() {}
        crosses::<Container>();
        crosses::<LxcPath>();
        crosses::<Error>();
        crosses::<Outcome<State>>();
    }
}
