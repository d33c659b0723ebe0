//! What was meant and what came of it, one JSON line each, on disk before the next step.
//!
//! The journal is the post-mortem, and it is what a rerun asks for the few
//! things it cannot observe. It is never replayed: a rerun looks at the system
//! first. A last line that was torn by a crash is skipped.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::facts::OpenOperation;
use crate::plan::{Action, Plan};

const FILE: &str = "journal.jsonl";

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// The operation it belongs to.
    pub op: String,
    /// Monotonic milliseconds of this boot.
    pub mono_ms: u64,
    /// Wall clock of this node.
    pub wall: String,
    /// What is recorded.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a line of the journal says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "entry")]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, written and dropped"
)]
pub enum Entry {
    /// An operation begins.
    Begin {
        /// The whole plan.
        plan: Plan,
        /// The evidence, for a takeover.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<serde_json::Value>,
        /// The process.
        pid: u32,
    },
    /// A step is about to be done.
    Intent {
        /// Its number, from 1.
        n: usize,
        /// What is done.
        action: Action,
        /// It is part of the undo.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        undo: bool,
    },
    /// What came of it.
    Result {
        /// Its number, from 1.
        n: usize,
        /// `done`, `already`, `failed` or `unknown`.
        outcome: String,
        /// How long it took.
        ms: u64,
        /// What was told about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// It is part of the undo.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        undo: bool,
    },
    /// The operation ends.
    End {
        /// `done`, `undone`, `failed` or `unknown`.
        outcome: String,
    },
}

/// A resource's journal on a local file system.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
}

impl Journal {
    /// The journal in a state directory. Nothing is opened or made yet.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Journal {
            path: dir.join(FILE),
            file: None,
        }
    }

    /// Appends a record; flushed to disk when this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::State`], e.g. for a full file system.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let path = self.path.display().to_string();
        self.write(record).map_err(|e| {
            Error::io(ErrorKind::State, format!("journal {path}: cannot be written"), e)
                .remedy("nothing is done without a journal: make room on that file system and run the command again")
        })
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        let mut line = serde_json::to_vec(record).expect("own types always serialize");
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_data()?;
        self.file = Some(file);
        Ok(())
    }

    /// Reads all records; lines that cannot be read are skipped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::State`] when the file cannot be read.
    pub fn records(&self) -> Result<Vec<Record>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Vec::new());
            }
            Err(e) => {
                return Err(Error::io(
                    ErrorKind::State,
                    format!("journal {}: cannot be read", self.path.display()),
                    e,
                ));
            }
        };
        let mut records = Vec::new();
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let n = reader.read_until(b'\n', &mut line).map_err(|e| {
                Error::io(
                    ErrorKind::State,
                    format!("journal {}: cannot be read", self.path.display()),
                    e,
                )
            })?;
            if n == 0 {
                return Ok(records);
            }
            if let Ok(record) = serde_json::from_slice(&line) {
                records.push(record);
            }
        }
    }

    /// The operation that has a beginning and no end, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Journal::records`].
    pub fn open_operation(&self) -> Result<Option<OpenOperation>> {
        Ok(open_operation(&self.records()?))
    }
}

/// Finds the operation that has a beginning and no end. A later beginning replaces an earlier one.
///
/// Operations that do not change who serves (`prepare`, `up`, `down`) have nothing to carry on and
/// replace nothing.
#[must_use]
pub fn open_operation(records: &[Record]) -> Option<OpenOperation> {
    let begin = records
        .iter()
        .rposition(|r| matches!(&r.entry, Entry::Begin { plan, .. } if plan.request.serves()))?;
    let record = &records[begin];
    let Entry::Begin { plan, .. } = &record.entry else {
        return None;
    };
    let mut last = None;
    for record in records[begin..].iter().filter(|r| r.op == record.op) {
        match &record.entry {
            Entry::Begin { .. } => {}
            Entry::Intent { action, undo, .. } => {
                let word = if *undo { "undo " } else { "" };
                last = Some(format!("{word}{} (result unknown)", action.name()));
            }
            Entry::Result { outcome, .. } => {
                last = last.map(|l| l.replace("result unknown", outcome));
            }
            Entry::End { .. } => return None,
        }
    }
    Some(OpenOperation {
        id: record.op.clone(),
        request: plan.request.name().to_owned(),
        began: record.wall.clone(),
        last,
        running: plan.running.clone(),
    })
}

/// Opens for appending; a torn last line is closed first, so that it stays one line.
fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let len = file.seek(SeekFrom::End(0))?;
    if len > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(len - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    } else if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::plan::Request;

    fn record(op: &str, entry: Entry) -> Record {
        Record {
            op: op.into(),
            mono_ms: 1,
            wall: "then".into(),
            entry,
        }
    }

    fn begin() -> Entry {
        Entry::Begin {
            plan: Plan {
                request: Request::Stop,
                resource: "r0".into(),
                node: "node1".into(),
                evidence: None,
                findings: Vec::new(),
                steps: Vec::new(),
                undo: Vec::new(),
                running: vec!["app".into()],
                resumes: None,
                boot_id: "b".into(),
            },
            evidence: None,
            pid: 1,
        }
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::in_dir(dir.path());
        assert_eq!(journal.open_operation().unwrap(), None);
        journal.append(&record("a", begin())).unwrap();
        journal
            .append(&record(
                "a",
                Entry::Intent {
                    n: 1,
                    action: Action::Demote,
                    undo: false,
                },
            ))
            .unwrap();
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"op\":\"a\",\"mono");
        std::fs::write(&path, bytes).unwrap();

        let mut again = Journal::in_dir(dir.path());
        let open = again.open_operation().unwrap().unwrap();
        assert_eq!(open.last.as_deref(), Some("demote (result unknown)"));
        assert_eq!(open.running, ["app"]);
        again
            .append(&record(
                "a",
                Entry::End {
                    outcome: "done".into(),
                },
            ))
            .unwrap();
        assert_eq!(again.records().unwrap().len(), 3);
        assert_eq!(again.open_operation().unwrap(), None);
    }

    #[test]
    fn every_cut_of_a_journal_reads() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::in_dir(dir.path());
        journal.append(&record("a", begin())).unwrap();
        journal
            .append(&record(
                "a",
                Entry::End {
                    outcome: "done".into(),
                },
            ))
            .unwrap();
        let whole = std::fs::read(dir.path().join(FILE)).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(dir.path().join(FILE), &whole[..cut]).unwrap();
            let records = Journal::in_dir(dir.path()).records().unwrap();
            assert!(records.len() <= 2);
        }
    }
}
