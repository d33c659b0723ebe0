//! What happened in a lab, in the order of time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Events that are kept; older ones are forgotten.
const MOST: usize = 20_000;

/// The events of a lab and the consoles of its nodes on one time line; made by
/// [`Lab::timeline`](crate::Lab::timeline).
///
/// Shown as text, each line begins with the seconds since the lab was started
/// and with who says it; `|` stands before what a console said:
///
/// ```text
///    4.121 node1      ready
///    4.170 node1      runs sh -c sync
///    4.502 node2      hangs
///    7.930 node1      | drbd r0: PingAck did not arrive in time.
/// ```
///
/// A console line has the time its kernel gave it, to about 10 ms; one without
/// a time has that of the line before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeline {
    /// In the order of time.
    pub entries: Vec<Entry>,
}

/// One line of a [`Timeline`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Time since the lab was started.
    pub at: Duration,
    /// A node, a wire, or the lab.
    pub who: String,
    /// Whether a console said it.
    pub console: bool,
    /// What happened.
    pub text: String,
}

impl Timeline {
    pub(crate) fn new(mut entries: Vec<Entry>) -> Self {
        // Stable: what one of them said stays in its order.
        entries.sort_by_key(|entry| entry.at);
        Timeline { entries }
    }

    /// Keeps the last entries only.
    #[must_use]
    pub fn tail(mut self, count: usize) -> Self {
        let surplus = self.entries.len().saturating_sub(count);
        self.entries.drain(..surplus);
        self
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            let (at, who) = (entry.at.as_secs_f64(), &entry.who);
            let bar = if entry.console { "| " } else { "" };
            writeln!(f, "{at:>9.3} {who:<10} {bar}{}", entry.text)?;
        }
        Ok(())
    }
}

/// Collects what the lab does.
#[derive(Debug)]
pub(crate) struct Journal {
    start: Instant,
    events: Mutex<VecDeque<Entry>>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Journal {
            start: Instant::now(),
            events: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn note(&self, who: &str, text: impl Into<String>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == MOST {
            events.pop_front();
        }
        events.push_back(Entry {
            at: self.now(),
            who: who.to_owned(),
            console: false,
            // A line is a line.
            text: text.into().replace('\n', " "),
        });
    }

    pub(crate) fn events(&self) -> Vec<Entry> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().cloned().collect()
    }
}

/// Reads the console of one boot, which began at `boot`.
pub(crate) fn console_entries(who: &str, boot: Duration, text: &str) -> Vec<Entry> {
    let mut at = boot;
    text.lines()
        .map(|line| line.trim_end_matches('\r'))
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut text = line;
            if let Some((since, rest)) = stamp(line) {
                at = boot + since;
                text = rest;
            }
            Entry {
                at,
                who: who.to_owned(),
                console: true,
                text: text.to_owned(),
            }
        })
        .collect()
}

/// Takes `[   12.345678] ` from the beginning of a line.
fn stamp(line: &str) -> Option<(Duration, &str)> {
    let (inside, rest) = line.strip_prefix('[')?.split_once(']')?;
    let seconds: f64 = inside.trim().parse().ok()?;
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    Some((since, rest.strip_prefix(' ').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn consoles_and_events_meet_in_time() {
        let second = Duration::from_secs(1);
        let console = "[    0.500000] Linux version 6\r\nno time\n\n[    2.000000] late\n[x] odd\n";
        let mut entries = console_entries("node1", 10 * second, console);
        for (at, text) in [(11, "before"), (13, "after")] {
            entries.push(Entry {
                at: at * second,
                who: "lab".to_owned(),
                console: false,
                text: text.to_owned(),
            });
        }
        let timeline = Timeline::new(entries);
        assert_eq!(
            timeline.to_string(),
            "   10.500 node1      | Linux version 6\n\
             \u{20}  10.500 node1      | no time\n\
             \u{20}  11.000 lab        before\n\
             \u{20}  12.000 node1      | late\n\
             \u{20}  12.000 node1      | [x] odd\n\
             \u{20}  13.000 lab        after\n"
        );
        assert_eq!(timeline.tail(1).entries[0].text, "after");
    }

    #[test]
    fn only_so_many_events_are_kept() {
        let journal = Journal::new();
        for n in 0..MOST + 5 {
            journal.note("lab", n.to_string());
        }
        let events = journal.events();
        assert_eq!((events.len(), events[0].text.as_str()), (MOST, "5"));
    }
}
