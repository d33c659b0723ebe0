//! What is printed: text for people, or JSON.

use std::io::Write;
use std::time::{Duration, Instant};

use ha_failover::{Control, Event, Failure, FailureKind, GroupPlan, Plan, Refusal};
use serde_json::{Value, json};
use tools::exit;

use crate::watchdog;

/// Prints, and remembers what the last line needs.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    /// One of several resources that are worked on: named on each line.
    resource: Option<String>,
    begun: Instant,
    /// For tests: where to end as by `kill -9`.
    die_at: Option<String>,
    /// Steps of the running plan, and which of them are in the gap.
    in_gap: Vec<bool>,
    /// How long they may take, and those of the undo.
    deadlines: [Vec<Duration>; 2],
    gap: Option<(u64, u64)>,
    epoch: Option<u64>,
}

impl Output {
    pub(crate) fn new(json: bool, die_at: Option<String>) -> Self {
        Output {
            json,
            resource: None,
            begun: Instant::now(),
            die_at,
            in_gap: Vec::new(),
            deadlines: [Vec::new(), Vec::new()],
            gap: None,
            epoch: None,
        }
    }

    /// For one of several resources that are worked on at the same time.
    pub(crate) fn of(&self, resource: &str) -> Self {
        Output {
            resource: Some(resource.to_owned()),
            begun: self.begun,
            ..Output::new(self.json, self.die_at.clone())
        }
    }

    /// The word by which the watchdog knows this work.
    pub(crate) fn task(&self) -> &str {
        self.resource.as_deref().unwrap_or(watchdog::MAIN)
    }

    /// Announces what may hang, for the watchdog.
    pub(crate) fn begins(&self, what: &str, deadline: Duration) {
        watchdog::begin(self.task(), what, deadline);
    }

    /// What is to be printed for people; the resource stands before each line where there are several.
    fn lines(&self, text: &str) -> String {
        match &self.resource {
            None => text.to_owned(),
            Some(resource) => {
                let lines: Vec<_> = text.lines().map(|l| format!("{resource}: {l}")).collect();
                lines.join("\n")
            }
        }
    }

    /// A line about something that went wrong, for people.
    pub(crate) fn complain(&self, text: &str) {
        if !self.json {
            eprintln!("failover: {}", self.lines(text));
        }
    }

    pub(crate) fn group(&self, plan: &GroupPlan) {
        self.event(&json!({"event": "group", "plan": plan}));
        self.say(&plan.to_string());
    }

    /// Knows a plan that was printed as part of a whole.
    pub(crate) fn knows(&mut self, plan: &Plan) {
        self.in_gap = plan.steps.iter().map(|s| s.in_gap).collect();
        let ms = Duration::from_millis;
        self.deadlines = [
            plan.steps.iter().map(|s| s.deadline()).collect(),
            plan.undo.iter().map(|u| ms(u.deadline_ms)).collect(),
        ];
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One JSON value on a line of its own, at once.
    pub(crate) fn event(&self, value: &Value) {
        if self.json {
            let mut value = value.clone();
            if let (Some(resource), Some(fields)) = (&self.resource, value.as_object_mut()) {
                fields.insert("resource".into(), json!(resource));
            }
            let mut out = std::io::stdout().lock();
            // A reader that went away must not stop an operation half way.
            let _ = writeln!(out, "{value}").and_then(|()| out.flush());
        }
    }

    /// A line for people.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{}", self.lines(text)).and_then(|()| out.flush());
        }
    }

    pub(crate) fn plan(&mut self, plan: &Plan) {
        self.knows(plan);
        self.event(&json!({"event": "plan", "plan": plan}));
        self.say(&plan.to_string());
    }

    pub(crate) fn refused(&self, refusal: &Refusal) -> u8 {
        self.event(&json!({
            "event": "refused",
            "request": refusal.request,
            "resource": refusal.resource,
            "findings": refusal.findings,
        }));
        self.complain(&refusal.to_string());
        exit::REFUSED
    }

    pub(crate) fn error(&self, message: &str, remedy: Option<&str>) {
        self.event(&json!({"event": "error", "message": message, "remedy": remedy}));
        let remedy = remedy.map(|r| format!("\n  {r}")).unwrap_or_default();
        self.complain(&format!("{message}{remedy}"));
    }

    pub(crate) fn evidence(&self, node: &str, text: &str, ms: u64) {
        self.event(&json!({"event": "evidence", "node": node, "text": text, "ms": ms}));
        self.say(&format!("   0. {text} ({ms} ms)"));
    }

    /// A step of a running plan.
    pub(crate) fn step(&mut self, event: &Event) -> Control {
        let of = self.in_gap.len();
        match event {
            Event::Begun {
                n,
                action,
                undo,
                at_ms,
            } => {
                let deadlines = &self.deadlines[usize::from(*undo)];
                let deadline = deadlines.get(n - 1).copied().unwrap_or_default();
                self.begins(&action.to_string(), deadline);
                if !undo && self.in_gap.get(n - 1) == Some(&true) && self.gap.is_none() {
                    self.gap = Some((*at_ms, *at_ms));
                }
                self.event(&json!({
                    "event": "begin", "n": n, "of": of, "step": action.name(), "text": action.to_string(),
                    "undo": undo, "at": now(), "at_ms": at_ms,
                }));
                if matches!(action, ha_failover::Action::AwaitPeerSecondary) {
                    self.say("      armed");
                }
                self.die("before", action.name());
            }
            Event::Ended {
                n,
                action,
                undo,
                result,
                ms,
                at_ms,
            } => {
                watchdog::between(self.task());
                if (*undo || self.in_gap.get(n - 1) == Some(&true))
                    && let Some((_, end)) = &mut self.gap
                {
                    *end = *at_ms;
                }
                let (outcome, note) = match result {
                    Ok(done) if done.already => ("already", done.note.clone()),
                    Ok(done) => ("done", done.note.clone()),
                    Err(f) if f.kind == FailureKind::Unknown => {
                        ("unknown", Some(f.message.clone()))
                    }
                    Err(f) => ("failed", Some(f.message.clone())),
                };
                if let Some(epoch) = note.as_deref().and_then(|n| n.strip_prefix("epoch ")) {
                    self.epoch = epoch.parse().ok().or(self.epoch);
                }
                self.event(&json!({
                    "event": "step", "n": n, "of": of, "step": action.name(), "text": action.to_string(),
                    "undo": undo, "outcome": outcome, "ms": ms, "at": now(), "at_ms": at_ms, "note": note,
                }));
                let note = note.map(|n| format!(": {n}")).unwrap_or_default();
                let number = if *undo {
                    "undo".to_owned()
                } else {
                    format!("{n:4}.")
                };
                self.say(&format!("{number} {action} [{outcome}, {ms} ms]{note}"));
                self.die("after", action.name());
            }
            _ => {}
        }
        Control::Continue
    }

    fn die(&self, when: &str, step: &str) {
        if self.die_at.as_deref().and_then(|d| d.split_once(':')) == Some((when, step)) {
            let _ =
                nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// The last line.
    pub(crate) fn end(&self, outcome: &str, status: u8, failure: Option<(&str, &Failure)>) -> u8 {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut last = json!({"event": "end", "outcome": outcome, "exit": status, "ms": ms});
        if let Some((from, to)) = self.gap {
            last["gap_ms"] = json!(to - from);
        }
        if let Some(epoch) = self.epoch {
            last["epoch"] = json!(epoch);
        }
        if let Some((step, failure)) = failure {
            last["step"] = json!(step);
            last["message"] = json!(failure.message);
            last["remedy"] = json!(failure.remedy);
        }
        self.event(&last);
        status
    }
}

fn now() -> String {
    ha_failover::node::wall_clock()
}
