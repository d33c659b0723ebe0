//! Runs a plan: intent, action, result, one step after the other, and undoes it when one fails.

use std::time::Duration;

use crate::error::Result;
use crate::facts::OpenOperation;
use crate::journal::{Entry, Record};
use crate::plan::{Action, Plan, Runnable};
use crate::world::{Done, Failure, FailureKind, World};

/// What an [`Observer`] is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A step is about to be done; its intent is in the journal.
    Begun {
        /// Its number, from 1.
        n: usize,
        /// What is done.
        action: Action,
        /// It is part of the undo.
        undo: bool,
        /// Milliseconds since the operation began.
        at_ms: u64,
    },
    /// A step has ended; its result is in the journal.
    Ended {
        /// Its number, from 1.
        n: usize,
        /// What was done.
        action: Action,
        /// It is part of the undo.
        undo: bool,
        /// What came of it.
        result: std::result::Result<Done, Failure>,
        /// How long it took, in milliseconds.
        ms: u64,
        /// Milliseconds since the operation began.
        at_ms: u64,
    },
}

/// Whether an executor goes on after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Stop as a crash would: no undo, no end in the journal.
    Crash,
}

/// Watches an executor, and may stop it where a crash could.
pub trait Observer {
    /// Is told an event.
    fn event(&mut self, event: &Event) -> Control;
}

impl<F: FnMut(&Event) -> Control> Observer for F {
    fn event(&mut self, event: &Event) -> Control {
        self(event)
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All steps are done.
    Done,
    /// A step failed, and everything before it was undone.
    Undone {
        /// The step that failed, e.g. `demote`.
        step: String,
        /// Why.
        cause: Failure,
    },
    /// A step failed, and there was nothing to undo or undoing failed too.
    Failed {
        /// The step that failed.
        step: String,
        /// Why.
        cause: Failure,
        /// What could not be undone, and why.
        not_undone: Vec<(String, Failure)>,
    },
    /// A step outlived its deadline. Nothing more was done.
    Unknown {
        /// The step.
        step: String,
        /// What is known.
        cause: Failure,
    },
    /// Stopped by an observer, as by a crash.
    Crashed,
}

/// Runs one plan to its end.
///
/// It goes step by step, so that a program (or a simulator) can interleave
/// several: [`Executor::run`] loops over [`Executor::advance`]. Dropping it
/// leaves the operation open in the journal; the cluster is not touched.
#[derive(Debug)]
#[must_use = "an executor does nothing until it is advanced"]
pub struct Executor {
    runnable: Runnable,
    op: String,
    begun: Duration,
    phase: Phase,
    /// When the current step was begun, for worlds that answer "not yet".
    step_begun: Option<Duration>,
    /// The first failure, once there is one.
    failed: Option<(String, Failure)>,
    not_undone: Vec<(String, Failure)>,
    /// How many undo actions were tried.
    undone: usize,
    timings: Vec<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Forward(usize),
    /// Next undo action, and the last step (from 0) that had begun.
    Back(usize, usize),
    Over(Outcome),
}

/// Ends an operation that was cut short when there is nothing left to do for it.
///
/// # Errors
///
/// When the journal cannot be written.
pub fn close(world: &mut dyn World, open: &OpenOperation) -> Result<()> {
    let record = Record {
        op: open.id.clone(),
        mono_ms: millis(world.now()),
        wall: world.wall(),
        entry: Entry::End {
            outcome: "done".into(),
        },
    };
    world.journal(&record)
}

/// What came of one call of [`Executor::advance`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A step was done; there is more.
    Running,
    /// The current step waits for something; ask again later.
    Waiting,
    /// The operation ended.
    Over(Outcome),
}

impl Executor {
    /// Prepares to run a plan under an operation id of the caller's choice.
    pub fn new(runnable: Runnable, op: impl Into<String>) -> Self {
        Executor {
            runnable,
            op: op.into(),
            begun: Duration::ZERO,
            phase: Phase::Start,
            step_begun: None,
            failed: None,
            not_undone: Vec::new(),
            undone: 0,
            timings: Vec::new(),
        }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.runnable.plan()
    }

    /// What the steps took that were done by this run, for later predictions.
    #[must_use]
    pub fn timings(&self) -> &[(String, u64)] {
        &self.timings
    }

    /// Runs to the end. Blocks as long as the steps do.
    ///
    /// # Errors
    ///
    /// When the journal cannot be written; nothing further is done then, and a
    /// rerun carries on by observing.
    pub fn run(
        mut self,
        world: &mut dyn World,
        observer: &mut dyn Observer,
    ) -> Result<(Outcome, Vec<(String, u64)>)> {
        loop {
            match self.advance(world, observer)? {
                Progress::Running => {}
                Progress::Waiting => std::thread::sleep(Duration::from_millis(5)),
                Progress::Over(outcome) => return Ok((outcome, self.timings)),
            }
        }
    }

    /// Does one step.
    ///
    /// # Errors
    ///
    /// As [`Executor::run`].
    pub fn advance(
        &mut self,
        world: &mut dyn World,
        observer: &mut dyn Observer,
    ) -> Result<Progress> {
        match self.phase.clone() {
            Phase::Start => {
                self.begun = world.now();
                let entry = Entry::Begin {
                    plan: self.runnable.plan.clone(),
                    evidence: self
                        .runnable
                        .evidence
                        .as_ref()
                        .map(|e| serde_json::to_value(e).expect("own types always serialize")),
                    pid: std::process::id(),
                };
                self.record(world, entry)?;
                self.phase = Phase::Forward(0);
                Ok(Progress::Running)
            }
            Phase::Forward(i) => self.forward(world, observer, i),
            Phase::Back(next, last) => self.back(world, observer, next, last),
            Phase::Over(outcome) => Ok(Progress::Over(outcome)),
        }
    }

    fn forward(
        &mut self,
        world: &mut dyn World,
        observer: &mut dyn Observer,
        i: usize,
    ) -> Result<Progress> {
        let Some(step) = self.runnable.plan.steps.get(i).cloned() else {
            return self.over(world, Outcome::Done);
        };
        let result =
            match self.attempt(world, observer, i + 1, &step.action, step.deadline(), false)? {
                Attempt::Waiting => return Ok(Progress::Waiting),
                Attempt::Crashed => return Ok(self.crash()),
                Attempt::Result(result) => result,
            };
        match result {
            Ok(_) => self.phase = Phase::Forward(i + 1),
            Err(_) if step.optional => self.phase = Phase::Forward(i + 1),
            Err(cause) if cause.kind == FailureKind::Unknown => {
                // What may still happen cannot be undone; a rerun looks first.
                let step = step.action.name().to_owned();
                return self.over(world, Outcome::Unknown { step, cause });
            }
            Err(cause) => {
                self.failed = Some((step.action.name().to_owned(), cause));
                self.phase = Phase::Back(0, i);
            }
        }
        Ok(Progress::Running)
    }

    fn back(
        &mut self,
        world: &mut dyn World,
        observer: &mut dyn Observer,
        next: usize,
        last: usize,
    ) -> Result<Progress> {
        let Some(undo) = self.runnable.plan.undo.get(next).cloned() else {
            let (step, cause) = self
                .failed
                .clone()
                .expect("going back only after a failure");
            let not_undone = std::mem::take(&mut self.not_undone);
            let outcome = if self.undone > 0 && not_undone.is_empty() {
                Outcome::Undone { step, cause }
            } else {
                Outcome::Failed {
                    step,
                    cause,
                    not_undone,
                }
            };
            return self.over(world, outcome);
        };
        if undo.once_begun > last {
            self.phase = Phase::Back(next + 1, last);
            return Ok(Progress::Running);
        }
        let deadline = Duration::from_millis(undo.deadline_ms);
        let result = match self.attempt(world, observer, next + 1, &undo.action, deadline, true)? {
            Attempt::Waiting => return Ok(Progress::Waiting),
            Attempt::Crashed => return Ok(self.crash()),
            Attempt::Result(result) => result,
        };
        self.undone += 1;
        self.phase = Phase::Back(next + 1, last);
        match result {
            Ok(_) => {}
            Err(cause) if cause.kind == FailureKind::PeerPrimary && self.handed_over() => {
                // The peer was late, not absent: it has the store, and this side is done.
                let plan = &self.runnable.plan;
                let rest = plan
                    .steps
                    .iter()
                    .position(|s| s.action == Action::RecordPeerOwns)
                    .unwrap_or(plan.steps.len());
                self.failed = None;
                self.phase = Phase::Forward(rest);
            }
            Err(cause) if cause.kind == FailureKind::Unknown => {
                let step = format!("undo {}", undo.action.name());
                return self.over(world, Outcome::Unknown { step, cause });
            }
            Err(cause) => self.not_undone.push((undo.action.name().to_owned(), cause)),
        }
        Ok(Progress::Running)
    }

    /// Whether this side had let go completely and only waited for the peer.
    fn handed_over(&self) -> bool {
        self.failed
            .as_ref()
            .is_some_and(|(step, _)| step == Action::AwaitPeerPrimary.name())
    }

    fn attempt(
        &mut self,
        world: &mut dyn World,
        observer: &mut dyn Observer,
        n: usize,
        action: &Action,
        deadline: Duration,
        undo: bool,
    ) -> Result<Attempt> {
        let begun = match self.step_begun {
            Some(begun) => begun,
            None => {
                self.record(
                    world,
                    Entry::Intent {
                        n,
                        action: action.clone(),
                        undo,
                    },
                )?;
                let begun = world.now();
                self.step_begun = Some(begun);
                let event = Event::Begun {
                    n,
                    action: action.clone(),
                    undo,
                    at_ms: millis(begun.saturating_sub(self.begun)),
                };
                if observer.event(&event) == Control::Crash {
                    return Ok(Attempt::Crashed);
                }
                begun
            }
        };
        let mut result = world.perform(action, self.runnable.evidence.as_ref(), deadline);
        let took = world.now().saturating_sub(begun);
        if let Err(failure) = &mut result
            && failure.kind == FailureKind::Pending
        {
            if took < deadline {
                return Ok(Attempt::Waiting);
            }
            failure.kind = FailureKind::Timeout;
        }
        self.step_begun = None;
        let (outcome, note) = match &result {
            Ok(done) if done.already => ("already", done.note.clone()),
            Ok(done) => ("done", done.note.clone()),
            Err(failure) if failure.kind == FailureKind::Unknown => {
                ("unknown", Some(failure.message.clone()))
            }
            Err(failure) => ("failed", Some(failure.message.clone())),
        };
        let ms = millis(took);
        self.record(
            world,
            Entry::Result {
                n,
                outcome: outcome.into(),
                ms,
                note,
                undo,
            },
        )?;
        if !undo && outcome == "done" {
            self.timings.push((action.name().to_owned(), ms));
        }
        let event = Event::Ended {
            n,
            action: action.clone(),
            undo,
            result: result.clone(),
            ms,
            at_ms: millis(world.now().saturating_sub(self.begun)),
        };
        if observer.event(&event) == Control::Crash {
            return Ok(Attempt::Crashed);
        }
        Ok(Attempt::Result(result))
    }

    fn crash(&mut self) -> Progress {
        self.phase = Phase::Over(Outcome::Crashed);
        Progress::Over(Outcome::Crashed)
    }

    fn over(&mut self, world: &mut dyn World, outcome: Outcome) -> Result<Progress> {
        let word = match &outcome {
            Outcome::Done => Some("done"),
            Outcome::Undone { .. } => Some("undone"),
            // Left open on purpose: a rerun must know that it carries on.
            Outcome::Failed { not_undone, .. } if not_undone.is_empty() => Some("failed"),
            Outcome::Failed { .. } | Outcome::Unknown { .. } | Outcome::Crashed => None,
        };
        if let Some(word) = word {
            self.record(
                world,
                Entry::End {
                    outcome: word.into(),
                },
            )?;
        }
        self.phase = Phase::Over(outcome.clone());
        Ok(Progress::Over(outcome))
    }

    fn record(&self, world: &mut dyn World, entry: Entry) -> Result<()> {
        let record = Record {
            op: self.op.clone(),
            mono_ms: millis(world.now()),
            wall: world.wall(),
            entry,
        };
        world.journal(&record)
    }
}

enum Attempt {
    Waiting,
    Crashed,
    Result(std::result::Result<Done, Failure>),
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
