//! This node: facts from the system, actions on it.
//!
//! [`Node`] is the [`World`] that is real. It talks to DRBD by `drbd-nl`, to
//! liblxc by `lxc-rs`, to Btrfs by `btrfs-ops`, to the host by `node-ops`; it
//! starts no program but `mkfs.btrfs` on day 0 and the placement's fence agent.

mod act;
mod conf;
mod containers;
mod drbd;
mod gather;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use drbd_nl::Drbd;

use crate::error::{Error, ErrorKind, Result};
use crate::evidence::FenceEvidence;
use crate::facts::Facts;
use crate::journal::{Journal, Record};
use crate::ledger::{Current, Ledger, StateDir, read_json, write_json};
use crate::lock::Lock;
use crate::placement::{Local, Placement, Resource};
use crate::plan::Action;
use crate::world::{Done, Failure, FailureKind, World};

pub use containers::NewContainer;

const TIMINGS: &str = "timings.json";

/// Where a takeover leaves word for the kernel's fence-peer handler; gone with the next boot.
pub const FENCED_DIR: &str = "/run/ha-failover/fenced";

/// One resource on this node.
#[derive(Debug)]
pub struct Node {
    name: String,
    local: Local,
    resource: Resource,
    state: StateDir,
    journal: Journal,
    helper: PathBuf,
    boot_id: String,
    conf: conf::NodeConf,
    drbd: RefCell<Option<Drbd>>,
    /// The request of the operation that was cut short, from the last facts.
    open: Option<String>,
}

impl Node {
    /// Looks at `resource` from this node, called `name`.
    ///
    /// `helper` is the program for the kernel's handlers where the placement
    /// names none. Reads drbd.conf; what is wrong with it becomes a finding.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownResource`] when the placement has no such resource;
    /// [`ErrorKind::Observe`] when the kernel tells no boot id.
    pub fn new(placement: &Placement, resource: &str, name: &str, helper: &Path) -> Result<Self> {
        let resource = placement.resource(resource)?.clone();
        let local = placement.local.clone();
        let boot_id = node_ops::host::boot_id().map_err(|e| {
            Error::new(ErrorKind::Observe, "this boot's id cannot be read").caused_by(e)
        })?;
        let state = StateDir::at(&local.state_dir, &resource.name);
        let journal = Journal::in_dir(state.path());
        let conf = conf::NodeConf::load(&local.drbd_conf, &resource.name, name);
        let helper = local
            .usermode_helper
            .clone()
            .unwrap_or_else(|| helper.to_owned());
        Ok(Node {
            name: name.to_owned(),
            local,
            resource,
            state,
            journal,
            helper,
            boot_id,
            conf,
            drbd: RefCell::new(None),
            open: None,
        })
    }

    /// Takes the lock for an operation, making the state directory if needed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Locked`], [`ErrorKind::State`], [`ErrorKind::Permission`].
    pub fn lock(&self, what: &str) -> Result<Lock> {
        StateDir::open(&self.local.state_dir, &self.resource.name)?;
        Lock::take(self.state.path(), what)
    }

    /// The resource's placement.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Records what facts say about the local data and its owner, if it is news.
    ///
    /// To be called with the lock held, when an operation begins.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::State`].
    pub fn note(&self, facts: &Facts) -> Result<()> {
        let Some(drbd) = &facts.drbd else {
            return Ok(());
        };
        let mut ledger = self.state.ledger()?;
        let before = ledger.clone();
        let peer = self.resource.peer_of(&self.name)?;
        if drbd.connected() && drbd.peer_role == crate::facts::Role::Primary {
            ledger.owner = Some(peer.to_owned());
            ledger.serving = false;
        }
        let serves = drbd.role == crate::facts::Role::Primary
            && drbd.all_disks(crate::facts::Disk::UpToDate)
            && ledger.owner.as_deref() == Some(&self.name);
        if drbd.in_sync() || serves {
            let uuid = drbd.volumes.values().find_map(|v| v.current_uuid);
            let same = ledger
                .current
                .as_ref()
                .is_some_and(|c| c.boot_id == self.boot_id && c.uuid == uuid);
            if !same {
                ledger.current = Some(Current::new(&self.boot_id, self.wall(), uuid));
            }
        }
        if ledger != before {
            self.state.write_ledger(&ledger)?;
        }
        Ok(())
    }

    /// This node's ledger.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::State`].
    pub fn ledger(&self) -> Result<Ledger> {
        self.state.ledger()
    }

    /// Keeps what steps took, for the predictions of later plans. Not durable.
    pub fn keep_timings(&self, timings: &[(String, u64)]) {
        let mut all = self.timings();
        all.extend(timings.iter().cloned());
        // A prediction is worth no error.
        let _ = write_json(&self.state.path().join(TIMINGS), &all);
    }

    fn timings(&self) -> BTreeMap<String, u64> {
        read_json(&self.state.path().join(TIMINGS))
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// The device that carries the store.
    fn device(&self) -> PathBuf {
        self.conf
            .facts
            .volumes
            .get(&self.resource.volume)
            .map(|v| v.device.clone())
            .unwrap_or_default()
    }
}

impl World for Node {
    fn facts(&mut self) -> Result<Facts> {
        let facts = self.gather()?;
        self.open = facts.open.as_ref().map(|open| open.request.clone());
        Ok(facts)
    }

    fn perform(
        &mut self,
        action: &Action,
        evidence: Option<&FenceEvidence>,
        deadline: Duration,
    ) -> std::result::Result<Done, Failure> {
        self.act(action, evidence, deadline)
    }

    fn journal(&mut self, record: &Record) -> Result<()> {
        self.journal.append(record)
    }

    fn now(&self) -> Duration {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .expect("this clock exists on every Linux");
        Duration::from(now)
    }

    fn wall(&self) -> String {
        wall_clock()
    }
}

/// The wall clock in RFC 3339, with milliseconds.
#[must_use]
pub fn wall_clock() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Runs what may block for ever on a thread of its own, and gives up waiting at the deadline.
fn within<T: Send + 'static>(
    what: &str,
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::result::Result<T, Failure> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(work());
    });
    receiver.recv_timeout(deadline).map_err(|_| {
        Failure::new(
            FailureKind::Unknown,
            format!(
                "{what}: not back after {} s; it may still happen",
                deadline.as_secs_f32()
            ),
        )
        .remedy("look at the kernel log for I/O that hangs, then run the same command again")
    })
}
