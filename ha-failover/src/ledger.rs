//! Who owns the store, in which epoch: this node's own record, and the one in the store.
//!
//! The ledger lives in the state directory on a local file system and survives
//! the loss of the node; [`OwnerRecord`] lives in the store itself, is
//! replicated with it, and is therefore as new as the data beside it. Epochs
//! order the changes of ownership; clocks of two nodes are never compared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The directory in the store that holds [`OwnerRecord`].
pub const STORE_DIR: &str = ".ha-failover";
/// The file name of [`OwnerRecord`] in [`STORE_DIR`].
pub const OWNER_FILE: &str = "owner.json";
/// The file beside it whose room the next record takes when the store is full.
const ROOM_FILE: &str = "room-for-the-next-owner";
const ROOM: i64 = 256 << 10;
const LEDGER_FILE: &str = "ledger.json";

/// What this node knows about the ownership of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Ledger {
    /// The format's version: 1.
    pub version: u32,
    /// The highest epoch this node has seen.
    pub epoch: u64,
    /// Who owned the resource in that epoch.
    pub owner: Option<String>,
    /// This node began to serve and has not recorded a clean stop since.
    pub serving: bool,
    /// Other tools run it since: nothing here acts on it before it is adopted again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub handed_back: bool,
    /// The program that the kernel called for DRBD's handlers before it was adopted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper_before: Option<String>,
    /// The store's file system id, once known.
    pub fsid: Option<String>,
    /// When this node's data was last known to be current.
    pub current: Option<Current>,
    /// What is known about the attached disks, by volume, so that metadata is found after a disk was grown.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub backing: BTreeMap<u16, Backing>,
    /// Set by a takeover: this node must not start before it has resynced from us.
    pub tombstone: Option<Tombstone>,
}

impl Ledger {
    /// Notes that other tools run the resource from now on. Epoch and file system id stay known.
    pub(crate) fn hand_back(&mut self) {
        self.handed_back = true;
        self.serving = false;
        self.owner = None;
        self.current = None;
        self.tombstone = None;
        self.helper_before = None;
    }
}

/// A backing device when its internal metadata was seen at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Backing {
    /// The device's size in bytes.
    pub size: u64,
    /// The peers that the metadata has room for.
    pub max_peers: u32,
    /// The length of its activity log in bytes.
    pub al_bytes: u64,
}

impl Backing {
    /// Makes a note of a device of this size with this metadata.
    #[must_use]
    pub fn new(size: u64, max_peers: u32, al_bytes: u64) -> Self {
        Backing {
            size,
            max_peers,
            al_bytes,
        }
    }
}

/// The last moment at which the local data was known to be current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Current {
    /// The boot during which it was seen; worth nothing in another boot.
    pub boot_id: String,
    /// Wall clock of this node, for people.
    pub at: String,
    /// The generation seen.
    pub uuid: Option<u64>,
}

impl Current {
    /// Current in this boot, now.
    #[must_use]
    pub fn new(boot_id: impl Into<String>, at: impl Into<String>, uuid: Option<u64>) -> Self {
        Current {
            boot_id: boot_id.into(),
            at: at.into(),
            uuid,
        }
    }
}

/// A node that lost the store by a takeover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tombstone {
    /// The node.
    pub node: String,
    /// The epoch that ended its ownership.
    pub epoch: u64,
    /// Wall clock, for people.
    pub at: String,
    /// What proved that it was off.
    pub evidence: String,
}

impl Tombstone {
    /// Makes a record of a takeover.
    #[must_use]
    pub fn new(node: &str, epoch: u64, at: &str, evidence: &str) -> Self {
        Tombstone {
            node: node.to_owned(),
            epoch,
            at: at.to_owned(),
            evidence: evidence.to_owned(),
        }
    }
}

/// The record in the store: who serves it, and under which placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OwnerRecord {
    /// The format's version: 1.
    pub version: u32,
    /// The node that serves, or served last.
    pub owner: String,
    /// Its epoch.
    pub epoch: u64,
    /// The file system's id.
    pub fsid: Option<String>,
    /// The digest of the placement it serves under.
    pub placement_digest: String,
    /// That placement, so that a difference can be named.
    pub placement: serde_json::Value,
    /// A takeover that has not been settled by a resync yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstone: Option<Tombstone>,
}

impl OwnerRecord {
    /// Makes a record.
    #[must_use]
    pub fn new(owner: &str, epoch: u64, placement: serde_json::Value) -> Self {
        OwnerRecord {
            version: 1,
            owner: owner.to_owned(),
            epoch,
            fsid: None,
            placement_digest: crate::placement::digest_of(&placement),
            placement,
            tombstone: None,
        }
    }

    /// Reads the record of a mounted store; `None` when it has none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::State`] when it cannot be read or parsed.
    pub fn read(mount: &Path) -> Result<Option<Self>> {
        read_json(&mount.join(STORE_DIR).join(OWNER_FILE))
    }

    /// Writes the record into a mounted store and flushes it.
    ///
    /// In a store that is full it takes the room that an earlier record has kept
    /// for it (a file of 256 KiB beside it), so that a full store can still be
    /// handed over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::State`], e.g. for a full or read-only store.
    pub fn write(&self, mount: &Path) -> Result<()> {
        let dir = mount.join(STORE_DIR);
        make_dir(&dir, "store record")?;
        let (record, room) = (dir.join(OWNER_FILE), dir.join(ROOM_FILE));
        match write_json(&record, self) {
            Err(e) if full(&e) && give_room(&dir, &room).is_ok() => write_json(&record, self)?,
            written => written?,
        }
        // Kept when there is some: the next one may need it.
        let _ = keep_room(&room);
        Ok(())
    }
}

/// The state directory of one resource on this node.
#[derive(Clone, Debug)]
pub struct StateDir {
    dir: PathBuf,
}

impl StateDir {
    /// Opens (makes) `<state_dir>/<resource>`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::State`] or [`ErrorKind::Permission`].
    pub fn open(state_dir: &Path, resource: &str) -> Result<Self> {
        let dir = state_dir.join(resource);
        make_dir(&dir, "state directory")?;
        Ok(StateDir { dir })
    }

    /// The directory without making it, for readers.
    #[must_use]
    pub fn at(state_dir: &Path, resource: &str) -> Self {
        StateDir {
            dir: state_dir.join(resource),
        }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Reads the ledger; an empty one when there is none yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::State`] when it is there but cannot be read or parsed.
    pub fn ledger(&self) -> Result<Ledger> {
        Ok(read_json(&self.dir.join(LEDGER_FILE))?.unwrap_or_default())
    }

    /// Replaces the ledger; on disk when this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::State`].
    pub fn write_ledger(&self, ledger: &Ledger) -> Result<()> {
        let mut ledger = ledger.clone();
        ledger.version = 1;
        write_json(&self.dir.join(LEDGER_FILE), &ledger)
    }
}

fn make_dir(dir: &Path, what: &str) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| {
        Error::io(
            ErrorKind::State,
            format!("{what} {}: cannot be made", dir.display()),
            e,
        )
        .remedy("run as root, on a file system that can be written")
    })
}

/// Reads a small JSON file; `None` when it is not there.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(e) => {
            return Err(Error::io(
                ErrorKind::State,
                format!("{}: cannot be read", path.display()),
                e,
            ));
        }
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::new(
            ErrorKind::State,
            format!("{}: not what this program writes", path.display()),
        )
        .caused_by(e)
        .remedy("look at the file; move it away only if you know which node owns the store")
    })
}

/// Replaces a small JSON file: new file, flushed, renamed, directory flushed.
fn full(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
    cause.is_some_and(|e| e.raw_os_error() == Some(libc::ENOSPC))
}

/// Btrfs gives the room of a deleted file with its next transaction.
fn give_room(dir: &Path, room: &Path) -> io::Result<()> {
    fs::remove_file(room)?;
    Ok(nix::unistd::syncfs(File::open(dir)?)?)
}

fn keep_room(room: &Path) -> io::Result<()> {
    if room.exists() {
        return Ok(());
    }
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(room)?;
    if let Err(e) = nix::fcntl::posix_fallocate(&file, 0, ROOM) {
        fs::remove_file(room)?;
        return Err(e.into());
    }
    Ok(())
}

pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).expect("own types always serialize");
    text.push(b'\n');
    let new = path.with_extension("json.new");
    let write = || -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let dir = path.parent().expect("always a file in a directory");
        File::open(dir)?.sync_all()
    };
    write().map_err(|e| {
        let full = e.raw_os_error() == Some(libc::ENOSPC);
        let error = Error::io(
            ErrorKind::State,
            format!("{}: cannot be written", path.display()),
            e,
        );
        if full {
            error.remedy("the file system is full; make room and run the command again")
        } else {
            error
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn keeps_what_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path(), "r0").unwrap();
        assert_eq!(state.ledger().unwrap(), Ledger::default());
        let ledger = Ledger {
            version: 1,
            epoch: 7,
            owner: Some("node2".into()),
            current: Some(Current::new("boot", "now", Some(5))),
            ..Ledger::default()
        };
        state.write_ledger(&ledger).unwrap();
        assert_eq!(state.ledger().unwrap(), ledger);
        fs::write(state.path().join(LEDGER_FILE), "{").unwrap();
        assert_eq!(state.ledger().unwrap_err().kind(), ErrorKind::State);
    }

    #[test]
    fn store_record_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(OwnerRecord::read(dir.path()).unwrap(), None);
        let record = OwnerRecord::new("node1", 3, serde_json::json!({"name": "r0"}));
        record.write(dir.path()).unwrap();
        assert_eq!(OwnerRecord::read(dir.path()).unwrap(), Some(record));
    }
}
