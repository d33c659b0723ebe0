//! Running a command inside a container.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};

use crate::container::{Container, Ended, Nothing, broken, ended};
use crate::error::{ErrorKind, Result};
use crate::os::without_sigpipe;
use crate::runner::{Call, Helper, Next};
use crate::state::Outcome;
use crate::sys;
use crate::sys::Version;
use crate::wire::{Attach, Event, Reply, Verb};

/// A command to run inside a container.
///
/// By default it runs in all namespaces of the container, as its root, in its
/// root directory, with the limits, capabilities and security profile of the
/// container, an environment of its own (`PATH`, `container` and what the
/// configuration sets) and empty input.
///
/// liblxc can also run a function of the calling program in there. That is not
/// offered: it would run in a copy of a program whose other threads are gone,
/// where not even allocating memory is safe. A program that wants it can hand
/// its own executable into the container and attach to that.
#[derive(Clone, Debug)]
#[must_use]
pub struct AttachCommand {
    attach: Attach,
    stdin: Vec<u8>,
}

impl AttachCommand {
    /// The program, found inside the container along its `PATH`.
    pub fn new(program: impl Into<OsString>) -> Self {
        let argv = vec![program.into().into_vec()];
        let attach = Attach {
            argv,
            cwd: b"/".to_vec(),
            ..Attach::default()
        };
        Self {
            attach,
            stdin: Vec::new(),
        }
    }

    /// A line for the container's `sh`.
    pub fn shell(line: impl Into<OsString>) -> Self {
        Self::new("sh").arg("-c").arg(line)
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.attach.argv.push(argument.into().into_vec());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.attach.argv.extend(
            arguments
                .into_iter()
                .map(|argument| argument.into().into_vec()),
        );
        self
    }

    /// Sets a variable of the command's environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let mut entry = name.into();
        entry.push("=");
        entry.push(value.into());
        self.attach.env.push(entry.into_vec());
        self
    }

    /// Hands this process's environment into the container as well.
    pub fn inherit_env(mut self) -> Self {
        self.attach.keep_env = true;
        self
    }

    /// Hands single variables of this process's environment into the container.
    pub fn keep_env<N: Into<OsString>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names = names.into_iter().map(|name| name.into().into_vec());
        self.attach.keep.extend(names);
        self
    }

    /// The directory inside the container; the root directory where it does not exist.
    pub fn current_dir(mut self, dir: impl Into<OsString>) -> Self {
        self.attach.cwd = dir.into().into_vec();
        self
    }

    /// The user, as the container numbers them.
    pub fn uid(mut self, uid: u32) -> Self {
        self.attach.uid = Some(uid);
        self
    }

    /// The group, as the container numbers them.
    pub fn gid(mut self, gid: u32) -> Self {
        self.attach.gid = Some(gid);
        self
    }

    /// Supplementary groups, as the container numbers them. Needs liblxc 4.0.7.
    pub fn groups(mut self, groups: impl IntoIterator<Item = u32>) -> Self {
        self.attach.groups = Some(groups.into_iter().collect());
        self.attach.flags_on |= sys::LXC_ATTACH_SETGROUPS.cast_signed();
        self
    }

    /// Enters only these namespaces of the container and stays in the host's
    /// others: [`Namespace::Net`] alone runs a program of the host in the
    /// container's network.
    pub fn namespaces(mut self, namespaces: impl IntoIterator<Item = Namespace>) -> Self {
        let bits = namespaces.into_iter().map(Namespace::bit);
        self.attach.namespaces = Some(bits.fold(0, |all, bit| all | bit));
        self
    }

    /// The architecture the command sees, as personality(2) numbers it, instead
    /// of the container's.
    pub fn personality(mut self, personality: i64) -> Self {
        self.attach.personality = Some(personality);
        self
    }

    /// Keeps the capabilities that the container's configuration drops.
    pub fn keep_capabilities(self) -> Self {
        self.without(sys::LXC_ATTACH_DROP_CAPABILITIES)
    }

    /// Stays in this process's cgroup: the container's limits do not hold.
    pub fn outside_cgroup(self) -> Self {
        self.without(sys::LXC_ATTACH_MOVE_TO_CGROUP)
    }

    /// Does not take over the container's AppArmor or SELinux profile.
    pub fn outside_profile(self) -> Self {
        self.without(sys::LXC_ATTACH_LSM_EXEC)
    }

    /// Takes this AppArmor or SELinux label instead of the container's. Needs
    /// liblxc 4.0.7.
    pub fn label(mut self, label: impl Into<OsString>) -> Self {
        self.attach.label = Some(label.into().into_vec());
        self.attach.flags_on |= sys::LXC_ATTACH_LSM_LABEL.cast_signed();
        self
    }

    /// The command and what it executes cannot gain privileges (`no_new_privs`).
    pub fn no_new_privileges(mut self) -> Self {
        self.attach.flags_on |= sys::LXC_ATTACH_NO_NEW_PRIVS.cast_signed();
        self
    }

    /// Mounts /proc and /sys anew for the command, which only has a meaning
    /// where it enters some of the namespaces and not the mounts.
    pub fn remount_proc_sys(mut self) -> Self {
        self.attach.flags_on |= sys::LXC_ATTACH_REMOUNT_PROC_SYS.cast_signed();
        self
    }

    fn without(mut self, flag: u32) -> Self {
        self.attach.flags_off |= flag.cast_signed();
        self
    }

    /// What the command reads.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }
}

/// A kind of namespace (`CLONE_NEW*`, sched.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Namespace {
    /// Mounts, and with them the root directory.
    Mount,
    /// Process numbers.
    Pid,
    /// Network devices, addresses, ports.
    Net,
    /// Host name.
    Uts,
    /// System V IPC and message queues.
    Ipc,
    /// Users and capabilities.
    User,
    /// The view of cgroups.
    Cgroup,
}

impl Namespace {
    fn bit(self) -> i32 {
        match self {
            Self::Mount => libc::CLONE_NEWNS,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Net => libc::CLONE_NEWNET,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::User => libc::CLONE_NEWUSER,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
        }
    }
}

/// What a command left.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachOutput {
    /// Its exit status or the signal it died of. Always the command's own: a
    /// failure to attach or to execute is an error.
    pub status: ExitStatus,
    /// What it wrote to standard output, until it ended.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, until it ended.
    pub stderr: Vec<u8>,
}

impl Nothing for AttachOutput {}

impl Container {
    /// Runs a command inside the container and collects its output.
    ///
    /// At the deadline the command is killed; processes it started may live
    /// on, in the container. What they write after the command has ended is
    /// not waited for. The output is kept in memory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::ExecFailed`] with the errno if
    /// the command cannot be executed; [`ErrorKind::InvalidInput`] for a
    /// command without a name; [`ErrorKind::Refused`] if attaching failed.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::{Duration, Instant};
    /// use lxc_rs::{AttachCommand, Container, LxcPath};
    ///
    /// let m1 = Container::open(&LxcPath::new("/var/lib/lxc")?, "m1")?;
    /// let uptime = AttachCommand::new("cat").arg("/proc/uptime");
    /// let output = m1.attach_run(&uptime, Duration::from_secs(5))?.done()?;
    /// print!("{}", String::from_utf8_lossy(&output.stdout));
    /// # Ok::<(), lxc_rs::Error>(())
    /// ```
    #[doc(alias = "attach_run_wait")]
    pub fn attach_run(
        &self,
        command: &AttachCommand,
        deadline: Duration,
    ) -> Result<Outcome<AttachOutput>> {
        let call = self.attach_call(command, deadline)?;
        let no_pipe = |error| self.io("attach", "no pipe", error);
        let (input, to_command) = io::pipe().map_err(no_pipe)?;
        let (from_command, output) = io::pipe().map_err(no_pipe)?;
        let (errors_from_command, errors) = io::pipe().map_err(no_pipe)?;
        let helper = call.begin(Some([input.into(), output.into(), errors.into()]))?;
        let mut streams = Streams {
            input: (!command.stdin.is_empty())
                .then_some((OwnedFd::from(to_command).into(), &command.stdin)),
            output: Stream::new(from_command),
            errors: Stream::new(errors_from_command),
        };
        let ended = streams.converse(&call, helper)?;
        let (stdout, stderr) = (streams.output.content, streams.errors.content);
        Ok(match self.exit(&call, &command.attach, ended)? {
            Outcome::Done(status) => Outcome::Done(AttachOutput {
                status,
                stdout,
                stderr,
            }),
            Outcome::Unknown(unknown) => Outcome::Unknown(unknown),
        })
    }

    /// Starts a command inside the container, on the caller's descriptors for
    /// its input, output and errors, and does not wait for its end. The
    /// command's own input ([`AttachCommand::stdin`]) is not used.
    ///
    /// Blocks until the command is about to be executed: one that cannot be is
    /// an error of [`AttachChild::wait`].
    ///
    /// # Errors
    ///
    /// As [`Container::attach_run`]; [`ErrorKind::Timeout`] if it was not
    /// started by the deadline, and will not be.
    #[doc(alias = "lxc_attach_run_command")]
    pub fn attach_spawn(
        &self,
        command: &AttachCommand,
        stdio: [OwnedFd; 3],
        deadline: Duration,
    ) -> Result<AttachChild<'_>> {
        // How long it may run is nobody's business but the caller's.
        let mut call = self.attach_call(command, Duration::MAX)?;
        let mut helper = call.begin(Some(stdio))?;
        call.deadline = deadline;
        helper.until(Instant::now().checked_add(deadline));
        match helper.next(&[]) {
            Ok(Next::Event(Event::Attached { pid })) => {
                helper.until(None);
                Ok(AttachChild {
                    container: self,
                    attach: command.attach.clone(),
                    pid: pid.cast_unsigned(),
                    helper: Some(helper),
                    status: None,
                })
            }
            Ok(last) => {
                let ended = self.exit(&call, &command.attach, ended(helper, last))?;
                let error = ended.done().map(|_| "it ended before it was started");
                Err(match error {
                    Err(error) => error,
                    Ok(detail) => call.error(ErrorKind::Helper, detail),
                })
            }
            Err(error) => Err(broken(&call, helper, error)),
        }
    }

    fn attach_call(&self, command: &AttachCommand, deadline: Duration) -> Result<Call<'_>> {
        let attach = &command.attach;
        let verb = Verb::Attach {
            attach: attach.clone(),
        };
        let call = self.call("attach", verb, deadline);
        if attach.argv.first().is_none_or(Vec::is_empty) {
            return Err(call.error(ErrorKind::InvalidInput, "the command has no name"));
        }
        let texts = attach.argv.iter().chain(&attach.env).chain(&attach.keep);
        if texts
            .chain([&attach.cwd])
            .chain(&attach.label)
            .any(|text| text.contains(&0))
        {
            return Err(call.error(ErrorKind::InvalidInput, "the command has a NUL byte in it"));
        }
        // An older library would not see these, and say nothing.
        let since = Version {
            major: 4,
            minor: 0,
            micro: 7,
        };
        let version = self.lxcpath().liblxc_version();
        if (attach.groups.is_some() || attach.label.is_some()) && version < since {
            let detail = format!("groups and label need liblxc {since}, and this is {version}");
            return Err(call.error(ErrorKind::Unsupported, detail));
        }
        Ok(call)
    }

    /// What the end of the helper says about the command.
    fn exit(&self, call: &Call<'_>, attach: &Attach, ended: Ended) -> Result<Outcome<ExitStatus>> {
        match ended {
            Ended::Reply(Reply::Exited { status }, _) => {
                Ok(Outcome::Done(ExitStatus::from_raw(status)))
            }
            Ended::Reply(Reply::ExecFailed { errno }, log) => {
                let program = attach
                    .argv
                    .first()
                    .map(|name| String::from_utf8_lossy(name));
                let detail = format!("{} cannot be executed", program.unwrap_or_default());
                let cause = io::Error::from_raw_os_error(errno);
                Err(call
                    .error(ErrorKind::ExecFailed, detail)
                    .os(cause)
                    .with_log(log))
            }
            ended => self.outcome(call, ended),
        }
    }
}

impl Nothing for ExitStatus {}

/// A command that runs inside a container.
///
/// Dropping it lets the command go on; it ends with the container.
#[must_use = "dropping this leaves the command running"]
pub struct AttachChild<'a> {
    container: &'a Container,
    attach: Attach,
    pid: u32,
    /// `None` once the status is known.
    helper: Option<Helper>,
    status: Option<ExitStatus>,
}

impl AttachChild<'_> {
    /// The process id, in this process's view.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to the command, and to nothing else: not to a process
    /// that got its number later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`] if the command has ended.
    pub fn signal(&mut self, number: u8) -> Result<()> {
        let ended = || {
            let detail = "the command has ended";
            self.container
                .error("signal", ErrorKind::NotRunning, detail)
        };
        match &mut self.helper {
            Some(helper) => helper.signal(number).map_err(|_| ended()),
            None => Err(ended()),
        }
    }

    /// Waits until the command has ended; at the deadline it goes on, and may
    /// be waited for again. Zero means now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ExecFailed`] with the errno if it could not be executed,
    /// [`ErrorKind::Helper`].
    pub fn wait(&mut self, deadline: Duration) -> Result<Option<ExitStatus>> {
        let Some(mut helper) = self.helper.take() else {
            return Ok(self.status);
        };
        let call = self.container.call("attach", Verb::Check, deadline);
        let now = Instant::now();
        helper.until(now.checked_add(deadline.max(Duration::from_millis(1))));
        match helper.next(&[]) {
            Ok(Next::TimedOut) => {
                helper.until(None);
                self.helper = Some(helper);
                Ok(None)
            }
            Ok(last) => {
                let ended = ended(helper, last);
                let status = self.container.exit(&call, &self.attach, ended)?.done()?;
                self.status = Some(status);
                Ok(self.status)
            }
            Err(error) => Err(broken(&call, helper, error)),
        }
    }
}

impl std::fmt::Debug for AttachChild<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachChild")
            .field("pid", &self.pid)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Drop for AttachChild<'_> {
    fn drop(&mut self) {
        if let Some(helper) = self.helper.take() {
            helper.detach();
        }
    }
}

/// The three pipes of a command.
struct Streams<'a> {
    /// Until everything is written or nobody reads it.
    input: Option<(File, &'a [u8])>,
    output: Stream,
    errors: Stream,
}

impl Streams<'_> {
    fn converse(&mut self, call: &Call<'_>, mut helper: Helper) -> Result<Ended> {
        match self.exchange(&mut helper) {
            Ok(last) => Ok(ended(helper, last)),
            Err(error) => Err(broken(call, helper, error)),
        }
    }

    /// Moves data until the helper has said its last word.
    fn exchange(&mut self, helper: &mut Helper) -> io::Result<Next> {
        if let Some((pipe, _)) = &self.input {
            nonblocking(pipe)?;
        }
        nonblocking(&self.output.pipe)?;
        nonblocking(&self.errors.pipe)?;
        loop {
            let mut fds = Vec::with_capacity(3);
            if let Some((pipe, _)) = &self.input {
                fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
            }
            for stream in [&self.output, &self.errors]
                .into_iter()
                .filter(|stream| !stream.ended)
            {
                fds.push(PollFd::new(stream.pipe.as_fd(), PollFlags::POLLIN));
            }
            let next = helper.next(&fds)?;
            // Also after the last event: what the command wrote is in the pipes.
            self.output.read()?;
            self.errors.read()?;
            match next {
                Next::Event(Event::Attached { .. }) => {}
                Next::Ready => self.write(),
                last => return Ok(last),
            }
        }
    }

    fn write(&mut self) {
        while let Some((pipe, left)) = &mut self.input {
            match without_sigpipe(|| pipe.write(left)) {
                Ok(written) => *left = &left[written..],
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted => continue,
                    // The command does not want the rest, which is its business.
                    _ => *left = &[],
                },
            }
            if left.is_empty() {
                self.input = None;
            }
        }
    }
}

struct Stream {
    pipe: File,
    content: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn new(pipe: impl Into<OwnedFd>) -> Self {
        Self {
            pipe: pipe.into().into(),
            content: Vec::new(),
            ended: false,
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 << 10];
        while !self.ended {
            match self.pipe.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(length) => self.content.extend_from_slice(&chunk[..length]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}

fn nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
