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
mod grow;
mod rescue;
mod snapshots;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
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
pub use snapshots::{SpaceReport, SpaceRow};

const TIMINGS: &str = "timings.json";

/// Where a takeover leaves word for the kernel's fence-peer handler; gone with the next boot.
pub const FENCED_DIR: &str = "/run/ha-failover/fenced";

/// Where the kernel's split-brain handler leaves word; gone with the next boot, and once they are together again.
pub const SPLIT_BRAIN_DIR: &str = "/run/ha-failover/split-brain";

/// One resource on this node.
#[derive(Debug)]
pub struct Node {
    name: String,
    local: Local,
    resource: Resource,
    /// All resources of the placement.
    names: Arc<[String]>,
    state: StateDir,
    journal: Journal,
    helper: PathBuf,
    boot_id: String,
    conf: Arc<conf::NodeConf>,
    drbd: RefCell<Option<Drbd>>,
    /// The request of the operation that was cut short, from the last facts.
    open: Option<String>,
    /// Nobody waits for what this one does any more: it must not begin anything.
    abandoned: Arc<AtomicBool>,
}

/// Looking at everything takes no longer than this, or something hangs.
const LOOK: Duration = Duration::from_secs(90);

/// What a step gets beyond its deadline, so that its own words about it come first.
const GRACE: Duration = Duration::from_millis(500);

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
            names: placement.resources.iter().map(|r| r.name.clone()).collect(),
            state,
            journal,
            helper,
            boot_id,
            conf: Arc::new(conf),
            drbd: RefCell::new(None),
            open: None,
            abandoned: Arc::default(),
        })
    }

    /// The same node, for a thread that may have to be left behind.
    fn detached(&self) -> Self {
        Node {
            name: self.name.clone(),
            local: self.local.clone(),
            resource: self.resource.clone(),
            names: Arc::clone(&self.names),
            state: self.state.clone(),
            journal: Journal::in_dir(self.state.path()),
            helper: self.helper.clone(),
            boot_id: self.boot_id.clone(),
            conf: Arc::clone(&self.conf),
            drbd: RefCell::new(self.drbd.take()),
            open: self.open.clone(),
            abandoned: Arc::default(),
        }
    }

    /// Runs what may sleep in the kernel for ever on a thread of its own, and gives up waiting at the deadline.
    fn apart<T: Send + 'static>(
        &self,
        what: &str,
        deadline: Duration,
        work: impl FnOnce(&mut Node) -> T + Send + 'static,
    ) -> std::result::Result<T, Failure> {
        let mut node = self.detached();
        let abandoned = Arc::clone(&node.abandoned);
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new()
            .name("ha-step".into())
            .spawn(move || {
                let result = work(&mut node);
                // The one who waited may be gone.
                let _ = sender.send((result, node.drbd.take()));
            })
            .map_err(|e| Failure::new(FailureKind::Failed, format!("{what}: no thread: {e}")))?;
        match receiver.recv_timeout(deadline.saturating_add(GRACE)) {
            Ok((result, drbd)) => {
                self.drbd.replace(drbd);
                Ok(result)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Failure::new(
                FailureKind::Unknown,
                format!("{what}: ended without an answer"),
            )),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                abandoned.store(true, Ordering::SeqCst);
                Err(Failure::new(
                    FailureKind::Unknown,
                    format!(
                        "{what}: not back after {} s; it hangs in the kernel and may still happen",
                        deadline.as_secs_f32()
                    ),
                )
                .remedy("look at the kernel log for I/O that hangs, then run the same command again; it looks first"))
            }
        }
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
        let Some(drbd) = facts.drbd.as_ref().filter(|_| !facts.ledger.handed_back) else {
            return Ok(());
        };
        if drbd.connected() {
            for word in self.split_brain_words() {
                // Only there if there was one.
                let _ = std::fs::remove_file(word);
            }
        }
        let mut ledger = self.state.ledger()?;
        let before = ledger.clone();
        self.note_backing(facts, &mut ledger);
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

    /// What the handler may have been called with: 8.4 names the minor, 9 the resource.
    fn split_brain_words(&self) -> Vec<PathBuf> {
        let dir = Path::new(SPLIT_BRAIN_DIR);
        let minors = self.conf.facts.volumes.values();
        minors
            .map(|v| dir.join(format!("minor-{}", v.minor)))
            .chain([dir.join(&self.resource.name)])
            .collect()
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
        let gathered = self.apart("look at the system", LOOK, |node| node.gather());
        let facts = gathered.map_err(|hangs| {
            let error = Error::new(ErrorKind::Observe, hangs.message);
            match hangs.remedy {
                Some(remedy) => error.remedy(remedy),
                None => error,
            }
        })??;
        self.open = facts.open.as_ref().map(|open| open.request.clone());
        Ok(facts)
    }

    fn perform(
        &mut self,
        action: &Action,
        evidence: Option<&FenceEvidence>,
        deadline: Duration,
    ) -> std::result::Result<Done, Failure> {
        let (task, evidence) = (action.clone(), evidence.map(FenceEvidence::again));
        self.apart(&action.to_string(), deadline, move |node| {
            node.act(&task, evidence.as_ref(), deadline)
        })?
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
