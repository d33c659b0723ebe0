//! Running a command inside a container.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};

use crate::container::{Container, Ended, Nothing, broken, ended};
use crate::error::{ErrorKind, Result};
use crate::os::without_sigpipe;
use crate::runner::{Call, Helper, Next};
use crate::state::Outcome;
use crate::wire::{Attach, Reply, Verb};

/// A command to run inside a container.
///
/// By default it runs in all namespaces of the container, as its root, in its
/// root directory, with the limits, capabilities and security profile of the
/// container, an environment of its own (`PATH`, `container` and what the
/// configuration sets) and empty input.
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

    /// What the command reads.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
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
    /// use std::time::Duration;
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
        let call = self.call("attach", Verb::Attach(command.attach.clone()), deadline);
        if command.attach.argv.first().is_none_or(Vec::is_empty) {
            return Err(call.error(ErrorKind::InvalidInput, "the command has no name"));
        }
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
        match ended {
            Ended::Reply(Reply::Exited(status), _) => {
                let status = ExitStatus::from_raw(status);
                Ok(Outcome::Done(AttachOutput {
                    status,
                    stdout,
                    stderr,
                }))
            }
            Ended::Reply(Reply::ExecFailed(errno), log) => {
                let program = command
                    .attach
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
            ended => self.outcome(&call, ended),
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
            if !matches!(next, Next::Ready) {
                return Ok(next);
            }
            self.write();
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
