//! The client on the third node: runs there, is read live, and keeps every acknowledgement.

use std::io::{BufRead, BufReader};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use uml_lab::{Child, Command, Node};

use crate::verdict::{History, Report};

/// A running client; what it saw so far can be read at any time.
#[derive(Debug)]
pub struct Client {
    child: Child,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    history: Mutex<History>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Starts `workload client` on `node`: `writers` writers that send to `address`, and pause
    /// after each answer.
    pub fn start(
        node: &Node,
        workload: &str,
        address: &str,
        writers: u32,
        pause: Duration,
    ) -> Result<Self> {
        let command = Command::new(workload)
            .arg("client")
            .arg(address)
            .arg(writers.to_string())
            .arg(pause.as_millis().to_string());
        let child = node.spawn(command).context("starting the client")?;
        let stdout = child.stdout();
        let shared = Arc::<Shared>::default();
        let reader = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for line in BufReader::new(stdout).lines() {
                    let Ok(line) = line else { break };
                    if let Some(report) = Report::from_line(&line) {
                        shared.lock().push(report);
                        shared.changed.notify_all();
                    }
                }
            }
        });
        Ok(Self {
            child,
            shared,
            reader,
        })
    }

    /// A place in the history to come back to.
    #[must_use]
    pub fn mark(&self) -> usize {
        self.shared.lock().len()
    }

    /// Reads the history so far.
    pub fn look<T>(&self, read: impl FnOnce(&History) -> T) -> T {
        read(&self.shared.lock())
    }

    /// Waits until the history fulfils `condition`; an error that says `what` after `patience`.
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        condition: impl Fn(&History) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut history = self.shared.lock();
        while !condition(&history) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "the client did not see {what} within {} s",
                    patience.as_secs()
                );
            }
            history = self
                .shared
                .changed
                .wait_timeout(history, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(())
    }

    /// Waits for `count` more acknowledged records.
    pub fn more(&self, count: usize, patience: Duration) -> Result<()> {
        let goal = self.look(History::acknowledged) + count;
        self.wait_until(
            &format!("{count} more acknowledgements"),
            patience,
            |history| history.acknowledged() >= goal,
        )
    }

    /// Lets every writer finish its record, ends the client, and returns all that it saw.
    pub fn stop(self, patience: Duration) -> Result<History> {
        self.child
            .kill(libc::SIGTERM)
            .context("ending the client")?;
        self.child
            .wait(patience)
            .context("waiting for the client")?;
        if self.reader.join().is_err() {
            bail!("the reader of the client panicked");
        }
        Ok(std::mem::take(&mut *self.shared.lock()))
    }
}
