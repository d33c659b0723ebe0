//! A container whose monitor is a child of this program.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::container::{Container, Ended, StartOptions, broken, ended};
use crate::error::{ErrorKind, Result};
use crate::runner::{Helper, Next};
use crate::state::{Outcome, State};
use crate::wire::{Reply, Verb};

/// How often the state is asked for while a container starts.
const POLL: Duration = Duration::from_millis(20);

impl Container {
    /// Starts the container with a monitor that is a child of this program,
    /// in a process of its own, and waits until init runs.
    ///
    /// liblxc's own start in the foreground turns the calling program into the
    /// monitor, and refuses if it has threads. Other than with
    /// [`Container::start`], the exit status of init comes back
    /// ([`Foreground::wait`]). Input is empty and output goes to the console,
    /// see [`Container::console_log`].
    ///
    /// # Errors
    ///
    /// As [`Container::start`]. A start that outlives the deadline is
    /// [`ErrorKind::Timeout`]; it goes on.
    pub fn start_foreground<'a>(
        &'a self,
        options: &StartOptions,
        deadline: Duration,
    ) -> Result<Foreground<'a>> {
        self.check_start("start_foreground", options)?;
        let verb = Verb::Foreground {
            argv: options.argv().to_vec(),
        };
        // The helper lives as long as the container.
        let mut call = self.call("start_foreground", verb, Duration::MAX);
        call.edits.extend(options.edits().iter().cloned());
        let mut helper = call.begin(None)?;
        call.deadline = deadline;
        let begun = Instant::now();
        loop {
            helper.until(Some(Instant::now() + POLL));
            match helper.next(&[]) {
                Ok(Next::TimedOut) => {}
                Ok(last) => return Err(self.start_failed(&call, ended(helper, last))),
                Err(error) => return Err(broken(&call, helper, error)),
            }
            // Not one that somebody else started: the helper will say so.
            let init = self.init_pid()?;
            if init.and_then(parent) == Some(helper.pid()) && self.state()?.is_up() {
                helper.until(None);
                return Ok(Foreground {
                    container: self,
                    helper: Some(helper),
                    status: None,
                });
            }
            if begun.elapsed() >= deadline {
                helper.detach();
                let detail = format!("it does not run after {deadline:?}");
                return Err(call.error(ErrorKind::Timeout, detail));
            }
        }
    }

    fn start_failed(&self, call: &crate::runner::Call<'_>, ended: Ended) -> crate::Error {
        let error = match ended {
            Ended::Reply(Reply::Exited { status }, log) => {
                let status = ExitStatus::from_raw(status);
                let detail =
                    format!("it was started and ended at once ({status}); does its init run?");
                call.error(ErrorKind::Refused, detail).with_log(log)
            }
            ended => match self.outcome::<State>(call, ended).and_then(Outcome::done) {
                Err(error) => error,
                Ok(_) => call.error(ErrorKind::Helper, "the helper process gave a wrong answer"),
            },
        };
        self.explain(error)
    }
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    let parent = lines.find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}

/// A running container whose monitor is a child of this program.
///
/// Dropping it leaves the container running; the child is collected when it ends.
#[must_use = "dropping this leaves the container running"]
pub struct Foreground<'a> {
    container: &'a Container,
    /// `None` once the status is known.
    helper: Option<Helper>,
    status: Option<ExitStatus>,
}

impl Foreground<'_> {
    /// Waits until the container has ended and gives the exit status of its
    /// init; `None` if it runs at the deadline. Zero means now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Helper`] if the monitor was killed, and the container with it.
    pub fn wait(&mut self, deadline: Duration) -> Result<Option<ExitStatus>> {
        let Some(mut helper) = self.helper.take() else {
            return Ok(self.status);
        };
        let call = self
            .container
            .call("start_foreground", Verb::Check, deadline);
        let now = Instant::now();
        helper.until(now.checked_add(deadline.max(Duration::from_millis(1))));
        let last = match helper.next(&[]) {
            Ok(Next::TimedOut) => {
                helper.until(None);
                self.helper = Some(helper);
                return Ok(None);
            }
            Ok(last) => ended(helper, last),
            Err(error) => return Err(broken(&call, helper, error)),
        };
        match last {
            Ended::Reply(Reply::Exited { status }, _) => {
                self.status = Some(ExitStatus::from_raw(status));
                Ok(self.status)
            }
            last => self
                .container
                .outcome::<State>(&call, last)?
                .done()
                .map(|_| None),
        }
    }
}

impl std::fmt::Debug for Foreground<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foreground")
            .field("container", self.container.name())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        if let Some(helper) = self.helper.take() {
            helper.detach();
        }
    }
}
