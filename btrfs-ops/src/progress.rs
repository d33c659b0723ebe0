//! Counters of a transfer that runs, and a way to stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters that another thread may read while a send or a receive runs, and a
/// switch to stop it. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    commands: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the stream so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Commands applied so far; zero for a send, which does not look into the
    /// stream.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.0.commands.load(Ordering::Relaxed)
    }

    /// Asks the transfer to stop. It ends with
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) within about a
    /// tenth of a second, once the system call it is in returns.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Has [`cancel`](Self::cancel) been called?
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, bytes: u64, commands: u64) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
        self.0.commands.store(commands, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
