//! Where actions happen: the one seam between deciding and doing.
//!
//! Everything that has an effect is an [`Action`], so one trait with one verb is
//! enough for the system, for the simulator and for a recorder; who embeds the
//! planner in a program of his own implements [`World`] and keeps executor,
//! journal and tests.

use std::fmt;
use std::time::Duration;

use crate::error::Result;
use crate::evidence::FenceEvidence;
use crate::facts::Facts;
use crate::journal::Record;
use crate::plan::Action;

/// A node, seen from where a plan runs.
pub trait World {
    /// Gathers the facts, all of them, now.
    ///
    /// # Errors
    ///
    /// When something that must be known cannot be.
    fn facts(&mut self) -> Result<Facts>;

    /// Does one action. Doing what is done already is [`Done::already`].
    ///
    /// `evidence` is there for the actions that need it. When the action is not
    /// known to have ended at the deadline, that is [`FailureKind::Unknown`].
    ///
    /// # Errors
    ///
    /// A [`Failure`] that says whether anything may have changed.
    fn perform(
        &mut self,
        action: &Action,
        evidence: Option<&FenceEvidence>,
        deadline: Duration,
    ) -> std::result::Result<Done, Failure>;

    /// Appends a record to the journal; on disk when this returns.
    ///
    /// # Errors
    ///
    /// When it cannot be written: the executor then does nothing further.
    fn journal(&mut self, record: &Record) -> Result<()>;

    /// Monotonic time since an arbitrary moment.
    fn now(&self) -> Duration;

    /// Wall clock as text, for people.
    fn wall(&self) -> String;
}

/// An action that is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// It was so before.
    pub already: bool,
    /// What is worth telling, e.g. the epoch that was claimed.
    pub note: Option<String>,
}

impl Done {
    /// Done by this call.
    #[must_use]
    pub fn now() -> Self {
        Done::default()
    }

    /// Nothing had to be done.
    #[must_use]
    pub fn already() -> Self {
        Done {
            already: true,
            note: None,
        }
    }

    /// Adds what is worth telling.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.note = Some(text.into());
        self
    }
}

/// An action that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What may have changed.
    pub kind: FailureKind,
    /// What happened, naming the object.
    pub message: String,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
}

/// What a failed action leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// It was answered with no: what it should change is as before, or half of it.
    Failed,
    /// What was waited for did not happen. Nothing changed.
    Timeout,
    /// The peer is Primary. Nothing changed.
    PeerPrimary,
    /// It outlived its deadline: it may have happened, or may still happen.
    Unknown,
    /// Not yet: ask again. For worlds that must not block; the executor keeps the deadline.
    Pending,
}

impl Failure {
    /// Makes a failure.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            remedy: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
