//! `plan(facts, placement, request)`: pure, and all findings at once.
//!
//! A plan is made from what is observed, so a rerun after a crash plans only
//! what is left: a container that is stopped already is not stopped again, a
//! store that is mounted already is not mounted again. The journal is asked only
//! for what cannot be observed, such as which containers ran when it all began.

mod adopt;
mod checks;
mod configure;
mod grow;
mod leave;
mod serve;
mod snapshots;
mod split;
mod takeover;

use std::path::PathBuf;
use std::time::Duration;

use crate::facts::{Facts, Role};
use crate::finding::{Code, Finding, Refusal};
use crate::placement::Resource;
use crate::plan::{Action, EvidenceNeed, Plan, Request, Step, Undo, settle};

pub(crate) use split::rescue_mount;

/// DRBD's current generation of metadata that was never used (`UUID_JUST_CREATED`).
pub(crate) const UUID_JUST_CREATED: u64 = 4;

/// Time for what takes no time unless the machine is very busy: records, a look, a packet.
const QUICK: Duration = Duration::from_secs(60);

/// The requests that, cut short, leave a node Primary for a good reason.
const SERVED: [&str; 6] = [
    "initialize",
    "start",
    "handover",
    "takeover",
    "release",
    "stop",
];

/// Plans a request, or refuses it with every reason at once.
///
/// Pure: the same arguments give the same plan.
///
/// # Errors
///
/// A [`Refusal`] when at least one finding is an error.
pub fn plan(facts: &Facts, resource: &Resource, request: &Request) -> Result<Plan, Refusal> {
    let mut planner = Planner {
        facts,
        resource,
        findings: Vec::new(),
        steps: Vec::new(),
        undo: Vec::new(),
        evidence: None,
    };
    if planner.everywhere() && planner.managed(request) {
        match request {
            Request::Prepare => planner.configure(true, resource.deadlines.connect),
            Request::Up => planner.configure(false, resource.deadlines.connect),
            Request::Boot => planner.configure(false, resource.deadlines.boot),
            Request::Partition { erase } => planner.partition(erase.is_some()),
            Request::ResolveSplitBrain {
                victim,
                keep,
                accept,
            } => planner.resolve_split_brain(victim, keep.as_deref(), accept),
            Request::Snapshot { container, name } => planner.snapshot(container, name),
            Request::RestoreSnapshot {
                container,
                name,
                into,
            } => planner.restore_snapshot(container, name, into),
            Request::DeleteSnapshot { container, name } => {
                planner.delete_snapshot(container, name);
            }
            Request::Grow {
                peer_offers,
                wait_sync,
            } => planner.grow(*peer_offers, *wait_sync),
            Request::Adopt => planner.adopt(),
            Request::HandBack => planner.hand_back(),
            Request::Down => planner.down(),
            Request::Initialize { wait_sync } => planner.initialize(*wait_sync),
            Request::Start => planner.start(),
            Request::Stop => planner.stop(),
            Request::Release { peer_placement } => planner.release(peer_placement.as_deref()),
            Request::Handover { peer_placement } => planner.handover(peer_placement.as_deref()),
            Request::Takeover(takeover) => planner.takeover(takeover),
        }
    }
    let resumes = facts.open.as_ref().map(|open| {
        format!(
            "{} {} of {}, cut short after {}",
            open.request,
            open.id,
            open.began,
            open.last.as_deref().unwrap_or("no step")
        )
    });
    let mut findings = planner.findings;
    if settle(&mut findings) {
        return Err(Refusal {
            request: request.name().to_owned(),
            resource: resource.name.clone(),
            findings,
        });
    }
    let mut steps = planner.steps;
    for step in &mut steps {
        step.predicted_ms = facts.timings.get(step.action.name()).copied();
    }
    Ok(Plan {
        request: request.clone(),
        resource: resource.name.clone(),
        node: facts.node.clone(),
        boot_id: facts.boot_id.clone(),
        evidence: planner.evidence,
        findings,
        steps,
        undo: planner.undo,
        running: running(facts),
        resumes,
    })
}

/// The containers that an undo brings back: those that ran when the operation began.
fn running(facts: &Facts) -> Vec<String> {
    match &facts.open {
        Some(open)
            if matches!(
                open.request.as_str(),
                "release" | "stop" | "resolve-split-brain"
            ) =>
        {
            open.running.clone()
        }
        _ => facts
            .containers
            .iter()
            .filter(|(_, c)| c.running())
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

struct Planner<'a> {
    facts: &'a Facts,
    resource: &'a Resource,
    findings: Vec<Finding>,
    steps: Vec<Step>,
    undo: Vec<Undo>,
    evidence: Option<EvidenceNeed>,
}

impl<'a> Planner<'a> {
    fn error(
        &mut self,
        code: Code,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings
            .push(Finding::error(code, subject, evidence, remedy));
    }

    fn warn(
        &mut self,
        code: Code,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings
            .push(Finding::warning(code, subject, evidence, remedy));
    }

    fn name(&self) -> String {
        self.resource.name.clone()
    }

    fn peer(&self) -> String {
        self.resource
            .peer_of(&self.facts.node)
            .map_or_else(|_| "the peer".into(), str::to_owned)
    }

    /// The device that carries the store.
    fn device(&self) -> PathBuf {
        self.facts
            .conf
            .volumes
            .get(&self.resource.volume)
            .map(|v| v.device.clone())
            .unwrap_or_default()
    }

    fn step(&mut self, action: Action, deadline: Duration) {
        self.steps.push(Step::new(action, deadline));
    }

    /// Adds to the undo, once the step added last has begun (or `from` has).
    fn undo(&mut self, from: usize, action: Action, deadline: Duration) {
        self.undo.push(Undo {
            action,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            once_begun: from,
        });
    }

    /// Whether this node serves: store mounted and Primary.
    fn is_primary(&self) -> bool {
        self.facts
            .drbd
            .as_ref()
            .is_some_and(|d| d.role == Role::Primary)
    }

    fn open_is(&self, request: &str) -> bool {
        self.facts
            .open
            .as_ref()
            .is_some_and(|open| open.request == request)
    }
}

#[cfg(test)]
mod tests;
