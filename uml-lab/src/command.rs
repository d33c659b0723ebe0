//! Programs to run in a node, and what came of them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::link::Running;

/// How long [`Node::run`](crate::Node::run) lets a program run unless told
/// otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(120);

/// A program to run in a node: arguments, environment, input, deadline.
///
/// ```
/// use std::time::Duration;
/// use uml_lab::Command;
///
/// let command = Command::new("/usr/bin/sha256sum")
///     .arg("-")
///     .env("LC_ALL", "C")
///     .stdin("some bytes")
///     .deadline(Duration::from_secs(10));
/// # drop(command);
/// let same = Command::from(["/usr/bin/sha256sum", "-"]);
/// # drop(same);
/// ```
///
/// The program is searched in the node's `PATH` if it has no slash. Its
/// environment is a small fixed one (`PATH`, `HOME=/root`, `LANG=C.UTF-8`,
/// `TERM=dumb`, `UML_LAB_NODE` = the node's name) and what is added here; its
/// working directory is `/`.
#[derive(Clone, Debug)]
#[must_use = "a command does nothing until a node runs it"]
pub struct Command {
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: OsString,
    pub(crate) stdin: Input,
    pub(crate) deadline: Duration,
}

#[derive(Clone)]
pub(crate) enum Input {
    Null,
    Bytes(Vec<u8>),
    Piped,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Null => f.write_str("Null"),
            Input::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Input::Piped => f.write_str("Piped"),
        }
    }
}

impl Command {
    /// Describes a run of `program` without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Command {
            argv: vec![program.as_ref().to_owned()],
            env: Vec::new(),
            cwd: "/".into(),
            stdin: Input::Null,
            deadline: DEFAULT_DEADLINE,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory, a path in the node.
    pub fn current_dir(mut self, dir: impl AsRef<OsStr>) -> Self {
        self.cwd = dir.as_ref().to_owned();
        self
    }

    /// Gives the program these bytes as standard input, then its end. Without
    /// this, standard input is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    /// Lets [`Child::write_stdin`] provide the input while the program runs.
    pub fn stdin_piped(mut self) -> Self {
        self.stdin = Input::Piped;
        self
    }

    /// Sets how long [`Node::run`](crate::Node::run) waits, counted from the
    /// start of the program, before it kills the program's process group.
    /// Default: [`DEFAULT_DEADLINE`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What to call it in error texts.
    pub(crate) fn name(&self) -> String {
        let words: Vec<_> = self.argv.iter().map(|arg| arg.to_string_lossy()).collect();
        let line = words.join(" ");
        match line.char_indices().nth(200) {
            Some((end, _)) => format!("{} ...", &line[..end]),
            None => line,
        }
    }
}

impl From<&str> for Command {
    fn from(program: &str) -> Self {
        Command::new(program)
    }
}

impl<S: AsRef<OsStr>, const N: usize> From<[S; N]> for Command {
    fn from(argv: [S; N]) -> Self {
        Command::from(argv.as_slice())
    }
}

impl<S: AsRef<OsStr>> From<Vec<S>> for Command {
    fn from(argv: Vec<S>) -> Self {
        Command::from(argv.as_slice())
    }
}

impl<S: AsRef<OsStr>> From<&[S]> for Command {
    fn from(argv: &[S]) -> Self {
        match argv.split_first() {
            Some((program, args)) => Command::new(program).args(args),
            None => Command::new(""),
        }
    }
}

/// What a program left: exit status and everything it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Everything written to standard output and not read before.
    pub stdout: Vec<u8>,
    /// Everything written to standard error and not read before.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Returns standard output as text, invalid UTF-8 replaced.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Returns standard error as text, invalid UTF-8 replaced.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A program running in a node.
///
/// Dropping it lets the program go on; what it writes from then on is thrown
/// away.
#[must_use = "dropping this lets the program run on unobserved"]
#[derive(Debug)]
pub struct Child {
    pub(crate) running: Arc<Running>,
}

impl Child {
    /// Returns the process id, in the node. It is also the id of the process
    /// group, which the program leads.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.pid()
    }

    /// Waits for the end of the program and returns everything it wrote, but
    /// for a stream that has a reader: that one is the reader's, which must
    /// read it, or the program waits in its own write.
    ///
    /// Output of processes it left behind is not waited for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deadline`](crate::ErrorKind::Deadline) after `deadline`,
    /// counted from this call: the program's process group was killed then,
    /// and [`Error::output`](crate::Error::output) has what it had written.
    /// [`ErrorKind::NodeDown`](crate::ErrorKind::NodeDown) if the node is lost.
    pub fn wait(&self, deadline: Duration) -> Result<Output> {
        self.running.wait(deadline)
    }

    /// Returns the exit status if the program has ended and its output was
    /// read, without waiting.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NodeDown`](crate::ErrorKind::NodeDown) if the node is lost.
    pub fn try_status(&self) -> Result<Option<ExitStatus>> {
        self.running.try_status()
    }

    /// Sends a signal to the program's process group. No error if it has
    /// ended.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NodeDown`](crate::ErrorKind::NodeDown) if the node is lost.
    pub fn kill(&self, signal: i32) -> Result<()> {
        self.running.kill(signal)
    }

    /// Returns a reader of standard output, as it comes. While it lives,
    /// [`Child::wait`] takes nothing from it.
    #[must_use]
    pub fn stdout(&self) -> OutputReader {
        OutputReader::new(&self.running, 0)
    }

    /// Returns a reader of standard error, as it comes. While it lives,
    /// [`Child::wait`] takes nothing from it.
    #[must_use]
    pub fn stderr(&self) -> OutputReader {
        OutputReader::new(&self.running, 1)
    }

    /// Writes to the program's standard input; blocks while the program does
    /// not read. Needs [`Command::stdin_piped`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NodeDown`](crate::ErrorKind::NodeDown) if the node is lost.
    /// A program that closed its input or ended is no error: the bytes are
    /// lost, as it wished.
    pub fn write_stdin(&self, bytes: &[u8]) -> Result<()> {
        self.running.write_stdin(bytes)
    }

    /// Ends the program's standard input.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NodeDown`](crate::ErrorKind::NodeDown) if the node is lost.
    pub fn close_stdin(&self) -> Result<()> {
        self.running.close_stdin()
    }
}

/// Reads what a program writes while it runs; ends when the program has ended.
#[derive(Debug)]
pub struct OutputReader {
    running: Arc<Running>,
    index: usize,
}

impl OutputReader {
    fn new(running: &Arc<Running>, index: usize) -> Self {
        running.add_reader(index);
        OutputReader {
            running: Arc::clone(running),
            index,
        }
    }
}

impl Drop for OutputReader {
    fn drop(&mut self) {
        self.running.remove_reader(self.index);
    }
}

impl Read for OutputReader {
    /// Blocks until there is something to read. A lost node is an error of
    /// kind [`io::ErrorKind::ConnectionAborted`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.running.read(self.index, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_commands() {
        let command = Command::from(["/bin/echo", "a", "b"]);
        assert_eq!(command.argv, ["/bin/echo", "a", "b"]);
        assert_eq!(command.name(), "/bin/echo a b");
        assert_eq!(Command::from("true").argv, ["true"]);
        let long = Command::new("é".repeat(500));
        assert!(long.name().ends_with("é ..."));
    }
}
