//! A stream looked at, and not applied.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use super::{Command, Reader, Version, bad, check_path, check_subvolume_name};
use crate::error::{Error, Result};
use crate::types::{Bytes, Generation, Uuid};

/// A subvolume of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StreamSubvolume {
    /// The name it will have.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub name: PathBuf,
    /// What it will carry as received UUID.
    pub uuid: Option<Uuid>,
    /// The sender's transaction.
    pub ctransid: Generation,
    /// What a receiver must have already: UUID and transaction of the parent.
    pub parent: Option<(Uuid, Generation)>,
}

/// What is in a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Summary {
    /// Of the last stream, if there are several one behind the other.
    pub version: Version,
    /// All of it.
    pub bytes: Bytes,
    /// Number of commands, with those that begin and end.
    pub commands: u64,
    /// Content of files as it is written, in whatever form.
    pub content: Bytes,
    /// Of that, content in compressed form.
    pub compressed: Bytes,
    /// Content of files that is shared with what a receiver has.
    pub cloned: Bytes,
    /// Content that was left out on request (`UpdateExtent`).
    pub left_out: Bytes,
    /// The subvolumes, in their order.
    pub subvolumes: Vec<StreamSubvolume>,
    /// How often each command is there.
    pub counts: BTreeMap<String, u64>,
}

impl Summary {
    fn count(&mut self, command: &Command<'_>) {
        self.commands += 1;
        let add = |sum: &mut Bytes, more: u64| sum.0 = sum.0.saturating_add(more);
        match self.counts.get_mut(command.name()) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(command.name().to_owned(), 1);
            }
        }
        match *command {
            Command::Subvol {
                path,
                uuid,
                ctransid,
            } => self.subvolumes.push(StreamSubvolume {
                name: path.to_owned(),
                uuid,
                ctransid,
                parent: None,
            }),
            Command::Snapshot {
                path,
                uuid,
                ctransid,
                clone_uuid,
                clone_ctransid,
            } => {
                self.subvolumes.push(StreamSubvolume {
                    name: path.to_owned(),
                    uuid,
                    ctransid,
                    parent: clone_uuid.map(|uuid| (uuid, clone_ctransid)),
                });
            }
            Command::Write { data, .. } => add(&mut self.content, data.len() as u64),
            Command::EncodedWrite { data, .. } => {
                add(&mut self.content, data.len() as u64);
                add(&mut self.compressed, data.len() as u64);
            }
            Command::Clone { len, .. } => add(&mut self.cloned, len),
            Command::UpdateExtent { len, .. } => add(&mut self.left_out, len),
            _ => {}
        }
    }
}

/// Reads a stream to its end and applies nothing: is it whole, are all
/// checksums right, does it stay inside of its subvolume?
///
/// # Errors
///
/// As [`Reader::next`]; [`ErrorKind::BadStream`](crate::ErrorKind::BadStream)
/// also for a path that leads elsewhere, and for a command before the first
/// subvolume.
pub fn verify(stream: impl Read) -> Result<Summary> {
    each(stream, |_| Ok(()))
}

/// As [`verify`], and writes a line for each command to `to`.
///
/// # Errors
///
/// As [`verify`], and those of `to`.
pub fn dump(stream: impl Read, mut to: impl Write) -> Result<Summary> {
    each(stream, |command| {
        writeln!(to, "{command}").map_err(|error| Error::io("dump stream", "to its sink", error))
    })
}

fn each(stream: impl Read, mut then: impl FnMut(&Command<'_>) -> Result<()>) -> Result<Summary> {
    let mut reader = Reader::new(stream);
    let mut summary = Summary::default();
    let mut at = 0;
    while let Some(command) = reader.next()? {
        check(&command, !summary.subvolumes.is_empty()).map_err(|text| bad(at, text))?;
        summary.count(&command);
        then(&command)?;
        at = reader.position();
        summary.version = reader.version();
    }
    summary.bytes = Bytes(at);
    Ok(summary)
}

/// What holds for every command that a receiver may follow.
pub(crate) fn check(command: &Command<'_>, inside: bool) -> Result<(), String> {
    let say = |text: &str| format!("{}: {text}", command.name());
    match command {
        Command::Subvol { path, .. } | Command::Snapshot { path, .. } => {
            check_subvolume_name(path).map_err(say)?;
        }
        Command::End => {}
        _ if !inside => return Err(say("no subvolume has begun")),
        _ => {
            for path in [command.path(), command.second_path()]
                .into_iter()
                .flatten()
            {
                check_path(path).map_err(say)?;
            }
        }
    }
    Ok(())
}
