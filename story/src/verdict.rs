//! The judgement: what the client was promised against what the store holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::record::Record;

/// One line that the client printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The record was acknowledged.
    Ok {
        /// Which writer sent it.
        writer: u32,
        /// Its number.
        n: u64,
        /// The epoch that the server named.
        epoch: u64,
        /// The node that the server named.
        node: String,
        /// When, in microseconds of the client's own clock.
        at: u64,
    },
    /// The record was sent and nothing came back: it may or may not be in the store.
    Unknown {
        /// Which writer sent it.
        writer: u32,
        /// Its number.
        n: u64,
        /// When the client gave up, in microseconds of the client's own clock.
        at: u64,
    },
    /// The writer ended.
    End {
        /// Which writer.
        writer: u32,
        /// The last number it sent.
        sent: u64,
    },
}

impl Report {
    /// Reads one line of the client; `None` if it is not one.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        Some(match words.as_slice() {
            ["ok", writer, n, epoch, node, at] => Self::Ok {
                writer: writer.parse().ok()?,
                n: n.parse().ok()?,
                epoch: epoch.parse().ok()?,
                node: (*node).to_owned(),
                at: at.parse().ok()?,
            },
            ["unknown", writer, n, at] => Self::Unknown {
                writer: writer.parse().ok()?,
                n: n.parse().ok()?,
                at: at.parse().ok()?,
            },
            ["end", writer, sent] => Self::End {
                writer: writer.parse().ok()?,
                sent: sent.parse().ok()?,
            },
            _ => return None,
        })
    }
}

/// What one client saw, in the order in which it saw it.
#[derive(Clone, Debug, Default)]
pub struct History {
    reports: Vec<Report>,
}

impl History {
    /// Appends what the client printed next.
    pub fn push(&mut self, report: Report) {
        self.reports.push(report);
    }

    /// Number of lines so far; with [`History::longest_gap`], a place to come back to.
    #[must_use]
    pub fn len(&self) -> usize {
        self.reports.len()
    }

    /// Whether the client has printed nothing yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Number of acknowledged records.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.oks().count()
    }

    /// Number of records that were sent and not answered.
    #[must_use]
    pub fn unknown(&self) -> usize {
        self.reports
            .iter()
            .filter(|report| matches!(report, Report::Unknown { .. }))
            .count()
    }

    /// Number of records that were sent and not answered, from the report at `from` on.
    #[must_use]
    pub fn unknown_since(&self, from: usize) -> usize {
        let later = self.reports.iter().skip(from);
        later
            .filter(|report| matches!(report, Report::Unknown { .. }))
            .count()
    }

    /// Whether `node` has acknowledged a record, from the report at `from` on.
    #[must_use]
    pub fn answered_by(&self, node: &str, from: usize) -> bool {
        self.reports
            .iter()
            .skip(from)
            .any(|report| matches!(report, Report::Ok { node: by, .. } if by == node))
    }

    /// The highest epoch in which a record was acknowledged.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.oks().map(|ok| ok.2).max()
    }

    /// The epoch and the node that the newest acknowledgement named.
    #[must_use]
    pub fn served_as(&self) -> Option<(u64, String)> {
        self.oks().last().map(|ok| (ok.2, ok.3.to_owned()))
    }

    /// The longest time without any acknowledged record between the report at `from` and the
    /// newest one, in milliseconds: the downtime that a client sees.
    #[must_use]
    pub fn longest_gap(&self, from: usize) -> Option<u64> {
        // The last acknowledgement before `from` is where the gap may have begun.
        let before = self
            .reports
            .iter()
            .take(from)
            .filter_map(Report::ok_at)
            .next_back();
        let times: Vec<u64> = before
            .into_iter()
            .chain(self.reports.iter().skip(from).filter_map(Report::ok_at))
            .collect();
        times
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0]) / 1000)
            .max()
    }

    fn oks(&self) -> impl Iterator<Item = (u32, u64, u64, &str)> {
        self.reports.iter().filter_map(|report| match report {
            Report::Ok {
                writer,
                n,
                epoch,
                node,
                ..
            } => Some((*writer, *n, *epoch, node.as_str())),
            _ => None,
        })
    }
}

impl Report {
    fn ok_at(&self) -> Option<u64> {
        match self {
            Self::Ok { at, .. } => Some(*at),
            _ => None,
        }
    }
}

/// The table at the end of the story.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Records that a client holds an acknowledgement for.
    pub acknowledged: u64,
    /// Acknowledged records that are not in the store.
    pub lost: u64,
    /// Records in the store that nobody sent.
    pub phantom: u64,
    /// Lines in the store that are not a whole record.
    pub torn: u64,
    /// Signs of two owners at a time: acknowledgements of an epoch that had ended, or of one epoch
    /// by two nodes, and observations of two nodes serving the same store.
    pub dual_owner: u64,
    /// Calls of programs that the project replaces; nothing where nobody watched for them.
    pub foreign_tools: Option<u64>,
    /// Records that were sent, not acknowledged, and are in the store: allowed.
    pub recovered: u64,
}

impl Verdict {
    /// Whether the promise was kept.
    #[must_use]
    pub fn kept(&self) -> bool {
        let foreign = self.foreign_tools.unwrap_or(0);
        self.lost + self.phantom + self.torn + self.dual_owner + foreign == 0
    }

    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.phantom += other.phantom;
        self.torn += other.torn;
        self.dual_owner += other.dual_owner;
        if let Some(calls) = other.foreign_tools {
            *self.foreign_tools.get_or_insert(0) += calls;
        }
        self.recovered += other.recovered;
    }

    /// Judges what `clients` saw against the files of the store, by number of the writer.
    ///
    /// Clients share the numbers of writers only if they share the records: the demo gives each
    /// client its own writers. `foreign_tools` and observations of two owners are added by the caller.
    #[must_use]
    pub fn judge(history: &History, files: &BTreeMap<u32, Vec<u8>>) -> Self {
        let mut verdict = Self::default();
        let mut stored: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for (writer, content) in files {
            let whole = content
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            // What follows the last newline was never acknowledged: the writer was stopped in it.
            for line in content[..whole].split_inclusive(|byte| *byte == b'\n') {
                match Record::from_line(*writer, &line[..line.len() - 1]) {
                    Some(record) => {
                        stored.entry(*writer).or_default().insert(record.n);
                    }
                    None => verdict.torn += 1,
                }
            }
        }

        let mut acknowledged: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        let mut sent: BTreeMap<u32, u64> = BTreeMap::new();
        let mut owner: BTreeMap<u64, &str> = BTreeMap::new();
        for report in &history.reports {
            let (writer, n) = match report {
                Report::Ok {
                    writer,
                    n,
                    epoch,
                    node,
                    ..
                } => {
                    acknowledged.entry(*writer).or_default().insert(*n);
                    let newest = owner.last_key_value().map_or(0, |(epoch, _)| *epoch);
                    if *epoch < newest || *owner.entry(*epoch).or_insert(node) != node {
                        verdict.dual_owner += 1;
                    }
                    (writer, n)
                }
                Report::Unknown { writer, n, .. } | Report::End { writer, sent: n } => (writer, n),
            };
            let last = sent.entry(*writer).or_default();
            *last = (*last).max(*n);
        }

        for (writer, numbers) in &acknowledged {
            verdict.acknowledged += numbers.len() as u64;
            let found = stored.get(writer);
            verdict.lost += numbers
                .iter()
                .filter(|n| found.is_none_or(|found| !found.contains(n)))
                .count() as u64;
        }
        for (writer, numbers) in &stored {
            let last = sent.get(writer).copied().unwrap_or(0);
            verdict.phantom += numbers.iter().filter(|n| **n == 0 || **n > last).count() as u64;
            let answered = acknowledged.get(writer);
            verdict.recovered += numbers
                .iter()
                .filter(|n| **n <= last && answered.is_none_or(|answered| !answered.contains(n)))
                .count() as u64;
        }
        verdict
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<22} {:>8}   (allowed: any)",
            "acknowledged", self.acknowledged
        )?;
        writeln!(
            f,
            "  {:<22} {:>8}   (allowed: any)",
            "unanswered but kept", self.recovered
        )?;
        for (name, count) in [
            ("lost", Some(self.lost)),
            ("phantom", Some(self.phantom)),
            ("torn", Some(self.torn)),
            ("dual owner", Some(self.dual_owner)),
            ("foreign tools called", self.foreign_tools),
        ] {
            let Some(count) = count else {
                continue;
            };
            let mark = if count == 0 { "ok" } else { "BROKEN" };
            writeln!(f, "  {name:<22} {count:>8}   (allowed: 0)  {mark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn history(text: &str) -> History {
        let mut history = History::default();
        for line in text.lines() {
            history.push(Report::from_line(line.trim()).unwrap());
        }
        history
    }

    fn file(writer: u32, records: &[(u64, u64, &str)]) -> BTreeMap<u32, Vec<u8>> {
        let text: String = records
            .iter()
            .map(|(n, epoch, node)| {
                Record {
                    n: *n,
                    epoch: *epoch,
                    node: (*node).into(),
                }
                .to_line(writer)
            })
            .collect();
        BTreeMap::from([(writer, text.into_bytes())])
    }

    const STORY: &str = "ok 0 1 1 node1 1000
        unknown 0 2 2000000
        ok 0 3 2 node2 2500000
        unknown 0 4 3000000
        end 0 4";

    #[test]
    fn a_kept_promise() {
        let verdict = Verdict::judge(
            &history(STORY),
            &file(0, &[(1, 1, "node1"), (2, 1, "node1"), (3, 2, "node2")]),
        );
        let expected = Verdict {
            acknowledged: 2,
            recovered: 1,
            ..Verdict::default()
        };
        assert_eq!(verdict, expected);
        assert!(verdict.kept());
    }

    #[test]
    fn every_column_can_fail() {
        let judge = |files| Verdict::judge(&history(STORY), &files);
        assert_eq!(
            judge(file(0, &[(1, 1, "node1")])).lost,
            1,
            "record 3 is missing"
        );
        assert_eq!(judge(BTreeMap::new()).lost, 2, "the file is missing");
        let invented = file(0, &[(1, 1, "node1"), (3, 2, "node2"), (5, 2, "node2")]);
        assert_eq!(judge(invented).phantom, 1, "record 5 was never sent");

        let mut torn = file(0, &[(1, 1, "node1"), (3, 2, "node2")]);
        torn.get_mut(&0).unwrap()[0] = b'9';
        let verdict = judge(torn);
        assert_eq!((verdict.torn, verdict.lost), (1, 1));
        assert!(!verdict.kept());

        let mut partial = file(0, &[(1, 1, "node1"), (3, 2, "node2")]);
        partial.get_mut(&0).unwrap().extend(b"4 2 nod");
        assert!(
            judge(partial).kept(),
            "a last record without its end was never acknowledged"
        );

        for two in [
            "ok 0 1 2 node2 1\nok 0 2 1 node1 2",
            "ok 0 1 1 node1 1\nok 0 2 1 node2 2",
        ] {
            let verdict =
                Verdict::judge(&history(two), &file(0, &[(1, 1, "node1"), (2, 1, "node1")]));
            assert_eq!((verdict.dual_owner, verdict.kept()), (1, false), "{two}");
        }
        assert!(
            !Verdict {
                foreign_tools: Some(1),
                ..Verdict::default()
            }
            .kept()
        );
    }

    #[test]
    fn the_gap_is_between_acknowledgements() {
        let history = history(STORY);
        assert_eq!(history.longest_gap(0), Some(2499));
        assert_eq!(
            history.longest_gap(1),
            Some(2499),
            "the one before the mark starts the gap"
        );
        assert_eq!(history.longest_gap(3), None);
        assert_eq!(
            (history.acknowledged(), history.unknown(), history.epoch()),
            (2, 2, Some(2))
        );
    }

    #[test]
    fn other_lines_are_not_reports() {
        for line in [
            "",
            "ok",
            "ok 0 1 1 node1",
            "ok x 1 1 node1 5",
            "end 0 1 2",
            "hello 1 2",
        ] {
            assert_eq!(Report::from_line(line), None, "{line:?}");
        }
    }
}
