//! Actions on the system.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use drbd_nl::{ConnectionRef, Dialect, Drbd, ErrorKind, Operation, Outcome, ResourceName, State};
use node_ops::mounts::{self, MountOptions, Overwrite};

use super::grow::grow_store;
use super::{FENCED_DIR, Node, drbd};
use crate::error::chain;
use crate::evidence::FenceEvidence;
use crate::facts::{Disk, Role};
use crate::ledger::{OwnerRecord, Tombstone};
use crate::placement::differences;
use crate::plan::Action;
use crate::world::{Done, Failure, FailureKind, World};

/// Peers that metadata of DRBD 9 has room for: one more than there are. With room for one alone DRBD writes
/// no activity log while it is Secondary of a Primary, and goes on taking the extents it then has in memory
/// for noted when it becomes Primary itself: what it writes there is not marked if it is lost, and the other
/// node is never given it.
const PEERS: u32 = 2;

/// A request to DRBD gets this much, however little time is left.
const LEAST: Duration = Duration::from_millis(100);

/// From one split brain to the next attempt to connect.
const RECONNECT: Duration = Duration::from_secs(1);

/// "Refusing to be Primary while peer is not outdated" (drbd_strings.c).
const SS_PRIMARY_NOP: i32 = -7;

pub(super) type Performed = std::result::Result<Done, Failure>;

pub(super) fn failed(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Failed, message)
}

fn host(error: &node_ops::Error) -> Failure {
    let failure = failed(chain(error));
    match error.kind() {
        node_ops::ErrorKind::Permission => failure.remedy("run it as root"),
        node_ops::ErrorKind::ModuleNotFound => {
            failure.remedy("install DRBD's kernel module for this kernel")
        }
        node_ops::ErrorKind::NotReady => {
            failure.remedy("the device is Secondary here; promote it first")
        }
        _ => failure,
    }
}

pub(super) fn outcome(outcome: Outcome, what: &str) -> Performed {
    match outcome {
        Outcome::Done => Ok(Done::now()),
        Outcome::AlreadyThere => Ok(Done::already()),
        Outcome::Unknown => Err(Failure::new(
            FailureKind::Unknown,
            format!("{what}: the kernel did not answer in time; it may still happen"),
        )
        .remedy("run the same command again; it looks first")),
    }
}

/// Growing pauses between tries.
pub(super) struct Retry {
    begun: Instant,
    limit: Duration,
    pause: Duration,
}

impl Retry {
    pub(super) fn within(limit: Duration) -> Self {
        Retry {
            begun: Instant::now(),
            limit,
            pause: Duration::from_millis(20),
        }
    }

    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.begun.elapsed())
    }

    /// Waits a little; `false` when there is no time left.
    pub(super) fn again(&mut self) -> bool {
        if self.left().is_zero() {
            return false;
        }
        std::thread::sleep(self.pause.min(self.left()));
        self.pause = (self.pause * 2).min(Duration::from_secs(1));
        true
    }
}

impl Node {
    /// What nobody waits for any more must not begin anything.
    pub(super) fn wanted(&self) -> std::result::Result<(), Failure> {
        if self.abandoned.load(Ordering::SeqCst) {
            return Err(failed("given up at its deadline"));
        }
        Ok(())
    }

    pub(super) fn with_drbd<T>(
        &self,
        work: impl FnOnce(&Drbd) -> drbd_nl::Result<T>,
    ) -> drbd_nl::Result<T> {
        let mut slot = self.drbd.borrow_mut();
        let drbd = match slot.take() {
            Some(drbd) => drbd,
            None => Drbd::open()?,
        };
        let result = work(&drbd);
        // The family's number changes when the module is loaded anew.
        if !matches!(&result, Err(e) if e.kind() == ErrorKind::ModuleNotLoaded) {
            *slot = Some(drbd);
        }
        result
    }

    pub(super) fn run(
        &self,
        operation: &Operation,
        deadline: Duration,
    ) -> std::result::Result<Outcome, Failure> {
        self.with_drbd(|drbd| drbd.run(operation, deadline))
            .map_err(|e| drbd::failure(&e))
    }

    fn resource_name(&self) -> std::result::Result<ResourceName, Failure> {
        ResourceName::new(&self.resource.name).map_err(|e| failed(e.to_string()))
    }

    pub(super) fn peer(&self) -> std::result::Result<String, Failure> {
        self.resource
            .peer_of(&self.name)
            .map(str::to_owned)
            .map_err(|e| failed(e.chain()))
    }

    /// The resource in the kernel, or a failure that it is not there.
    pub(super) fn observed(&self) -> std::result::Result<crate::facts::Drbd, Failure> {
        self.snapshot()
            .map_err(|e| failed(e.chain()))?
            .ok_or_else(|| {
                failed(format!(
                    "{}: not configured in the kernel",
                    self.resource.name
                ))
            })
    }

    pub(super) fn act(
        &mut self,
        action: &Action,
        evidence: Option<&FenceEvidence>,
        deadline: Duration,
    ) -> Performed {
        match action {
            Action::EnsureDirectory { path } => ensure_directory(path),
            Action::LoadModule { helper } => self.load_module(helper),
            Action::Partition { disk, .. } => {
                self.wanted()?;
                node_ops::partitions::create_single(disk, deadline)
                    .map(|made| {
                        Done::now().note(format!(
                            "{}, {} MiB",
                            made.device.display(),
                            made.size >> 20
                        ))
                    })
                    .map_err(|e| host(&e))
            }
            Action::SetHelper { helper } => set_helper(helper),
            Action::RecordAdopted { helper_before } => self.record(|ledger| {
                ledger.handed_back = false;
                ledger.helper_before.clone_from(helper_before);
            }),
            Action::RecordHandedBack => {
                self.leave_notes()?;
                self.record(crate::ledger::Ledger::hand_back)
            }
            Action::GrowPartition { disk, number, .. } => {
                self.wanted()?;
                node_ops::partitions::grow(disk, *number)
                    .map(|room| Done::now().note(format!("{} MiB", room.partition.size >> 20)))
                    .map_err(|e| host(&e))
            }
            Action::MoveMetadata { volume, disk, from } => self.move_metadata(*volume, disk, *from),
            Action::GrowDevice { volume, .. } => self.grow_device(*volume, deadline),
            Action::GrowStore { target } => grow_store(target),
            Action::PromoteToRescue { .. } => self.promote_to_rescue(deadline),
            Action::KeepAside { into } => self.keep_aside(into),
            Action::ConnectDiscarding => self.connect_discarding(deadline),
            Action::Snapshot { container, name } => self.take_snapshot(container, name),
            Action::RestoreSnapshot {
                container,
                name,
                into,
            } => self.restore_snapshot(container, name, into),
            Action::DeleteSnapshot { container, name } => self.delete_snapshot(container, name),
            Action::CreateMetadata { volume, disk } => {
                let target = self.target(*volume, disk)?;
                let options = match self.dialect()? {
                    Dialect::V84 => drbd_md::CreateOptions::default(),
                    Dialect::V9 => drbd_md::CreateOptions::v09(PEERS),
                };
                drbd_md::create(&target, &options)
                    .map(|_| Done::now())
                    .map_err(|e| failed(chain(&e)))
            }
            Action::ApplyActivityLog { volume, disk } => self.apply_activity_log(*volume, disk),
            Action::Attach => self.attach(deadline),
            Action::Connect => self.connect(deadline),
            Action::Disconnect => {
                let connection = ConnectionRef::only(self.resource_name()?);
                match self.with_drbd(|d| d.run(&Operation::Disconnect { connection }, deadline)) {
                    Ok(o) => outcome(o, "disconnect"),
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(Done::already()),
                    Err(e) => Err(drbd::failure(&e)),
                }
            }
            Action::Settle => self.settle(deadline),
            Action::AwaitVictim => self.await_victim(deadline),
            Action::TakeDown => self.take_down(deadline),
            Action::InitializeFromHere => self.initialize_from_here(deadline),
            Action::AwaitSync => self.await_sync(deadline),
            Action::MakeFilesystem { device } => self.make_filesystem(device, deadline),
            Action::Promote => self.promote(deadline),
            Action::PromoteFenced
            | Action::DeclareDataCurrent { .. }
            | Action::PromoteUnfenced { .. } => self.promote_on(action, evidence, deadline),
            Action::Demote => self.demote(deadline),
            Action::AwaitPeerSecondary => self.await_peer_secondary(deadline),
            Action::AwaitPeerPrimary => self.await_peer_primary(deadline),
            Action::Mount { device, target } => self.mount_store(device, target),
            Action::Unmount { target } => self.unmount_store(target, deadline),
            Action::VerifyStore => self.verify_store(),
            Action::Claim { takeover } => self.claim(*takeover, evidence),
            Action::CheckContainers => self.check_containers(),
            Action::StartContainer { name } => self.start_container(name, deadline),
            Action::AwaitReady { name } => self.await_ready(name, deadline),
            Action::Announce { name } => self.announce(name),
            Action::StopContainer { name } => self.stop_container(name, deadline),
            Action::VerifyGone { name } => self.verify_gone(name, deadline),
            Action::RecordReleased => self.record(|ledger| ledger.serving = false),
            Action::RecordPeerOwns => {
                let peer = self.peer()?;
                self.record(|ledger| {
                    if ledger.owner.as_deref() != Some(&peer) {
                        ledger.epoch += 1;
                        ledger.owner = Some(peer.clone());
                    }
                    ledger.serving = false;
                })?;
                self.record_seen()
            }
            Action::RecordSeen => self.record_seen(),
        }
    }

    fn record(&self, change: impl FnOnce(&mut crate::ledger::Ledger)) -> Performed {
        self.wanted()?;
        let error = |e: crate::error::Error| failed(e.chain());
        let mut ledger = self.state.ledger().map_err(error)?;
        change(&mut ledger);
        self.state.write_ledger(&ledger).map_err(error)?;
        Ok(Done::now())
    }

    fn record_seen(&mut self) -> Performed {
        let facts = self.gather().map_err(|e| failed(e.chain()))?;
        self.note(&facts).map_err(|e| failed(e.chain()))?;
        Ok(Done::now())
    }

    fn load_module(&self, helper: &Path) -> Performed {
        let Some(helper) = helper.to_str() else {
            return Err(failed(format!(
                "{}: not a path the kernel can be given",
                helper.display()
            )));
        };
        match node_ops::modules::load("drbd", &[("usermode_helper", helper)]) {
            Ok(node_ops::Outcome::AlreadyThere) => Ok(Done::already()),
            Ok(_) => Ok(Done::now()),
            Err(e) => Err(host(&e)),
        }
    }

    pub(super) fn target(
        &self,
        volume: u16,
        disk: &Path,
    ) -> std::result::Result<drbd_md::Target, Failure> {
        self.conf.targets.get(&volume).cloned().ok_or_else(|| {
            failed(format!(
                "{}: volume {volume} is not in drbd.conf",
                disk.display()
            ))
        })
    }

    fn apply_activity_log(&self, volume: u16, disk: &Path) -> Performed {
        let target = self.target(volume, disk)?;
        let applied = drbd_md::apply_activity_log(&target).map_err(|e| failed(chain(&e)))?;
        if !applied.changed() {
            return Ok(Done::already());
        }
        Ok(Done::now().note(format!(
            "{} extents, {} KiB marked out of sync",
            applied.extents.len(),
            applied.marked.bytes() / 1024
        )))
    }

    fn run_all(&self, operations: &[Operation], deadline: Duration) -> Performed {
        let begun = Instant::now();
        let mut already = true;
        for operation in operations {
            let left = deadline.saturating_sub(begun.elapsed());
            let done = outcome(self.run(operation, left)?, &operation.to_string())?;
            already &= done.already;
        }
        Ok(if already {
            Done::already()
        } else {
            Done::now()
        })
    }

    fn attach(&self, deadline: Duration) -> Performed {
        let operations = self.conf.attach(self.dialect()?).map_err(failed)?;
        self.run_all(&operations, deadline)
    }

    fn connect(&self, deadline: Duration) -> Performed {
        let operations = self.conf.connect(self.dialect()?).map_err(failed)?;
        self.run_all(&operations, deadline)
    }

    /// For reading only: nothing is served, and what is here will be given up.
    fn promote_to_rescue(&self, deadline: Duration) -> Performed {
        let seen = self.observed()?;
        if seen.connected() {
            return Err(failed(format!(
                "{}: connected again: there is nothing to rescue",
                self.resource.name
            )));
        }
        if seen.role == Role::Primary {
            return Ok(Done::already());
        }
        let operation = Operation::Primary {
            resource: self.resource_name()?,
        };
        self.wanted()?;
        outcome(self.run(&operation, deadline)?, &operation.to_string())
    }

    fn connect_discarding(&self, deadline: Duration) -> Performed {
        let operations = self.conf.connect(self.dialect()?).map_err(failed)?;
        let operations: Vec<_> = operations
            .into_iter()
            .map(|operation| match operation {
                Operation::Connect {
                    connection,
                    name,
                    options,
                } => Operation::ConnectDiscardingLocalData {
                    connection,
                    name,
                    options,
                },
                other => other,
            })
            .collect();
        self.run_all(&operations, deadline)
    }

    pub(super) fn dialect(&self) -> std::result::Result<Dialect, Failure> {
        self.with_drbd(|drbd| Ok(drbd.family().dialect))
            .map_err(|e| drbd::failure(&e))
    }

    fn take_down(&self, deadline: Duration) -> Performed {
        let resource = self.resource_name()?;
        let result = match self.with_drbd(|d| d.run(&Operation::Down { resource }, deadline)) {
            Ok(o) => outcome(o, "down"),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Done::already()),
            Err(e) => Err(self.busy(&e)),
        }?;
        self.record(|ledger| ledger.current = None)?;
        Ok(result)
    }

    /// A refusal because the device is in use names who uses it.
    fn busy(&self, e: &drbd_nl::Error) -> Failure {
        let mut failure = drbd::failure(e);
        if e.kind() == ErrorKind::Busy {
            let device = self.device();
            match node_ops::holders::of_device(&device) {
                Ok(holders) if !holders.is_empty() => {
                    for holder in holders {
                        failure
                            .message
                            .push_str(&format!("; {} is held by {holder}", device.display()));
                    }
                    failure.remedy = Some("end those, then run the command again".into());
                }
                _ => {
                    failure
                        .message
                        .push_str(&format!("; nobody was seen holding {}", device.display()));
                    failure.remedy = Some(
                        "somebody passing (udev, blkid) held it; run the command again".into(),
                    );
                }
            }
        }
        failure
    }

    /// Waits for the model to be as wanted. `None` from `wanted` means "not yet".
    fn watch<T>(
        &self,
        deadline: Duration,
        mut wanted: impl FnMut(Option<&crate::facts::Drbd>) -> Option<T>,
    ) -> std::result::Result<Option<T>, Failure> {
        let mut watcher = self
            .with_drbd(|drbd| drbd.watch())
            .map_err(|e| drbd::failure(&e))?;
        let mut found = None;
        let name = self.resource.name.clone();
        let waited = watcher.wait_for(deadline, |state: &State| {
            let seen = state.resource(&name).map(drbd::facts);
            found = wanted(seen.as_ref());
            found.is_some()
        });
        match waited {
            Ok(()) => Ok(found),
            Err(e) if e.kind() == ErrorKind::Timeout => Ok(None),
            Err(e) => Err(drbd::failure(&e)),
        }
    }

    /// Waits until the peer is found and both know what to do, or the deadline passes.
    fn settle(&self, deadline: Duration) -> Performed {
        let peer = self.peer()?;
        let connected = self.watch(deadline, |drbd| {
            let drbd = drbd?;
            drbd.settled()
                .then(|| format!("{peer} is {}, disks {}", drbd.peer_role, disks(drbd)))
        })?;
        Ok(match connected {
            Some(text) => Done::now().note(text),
            None if self.observed()?.connected() => Done::now().note(format!(
                "{peer} is there, and it is not settled whose data is newer"
            )),
            None => Done::now().note(format!("{peer} does not answer")),
        })
    }

    /// Waits for the peer whose changes are given up. As long as it has not begun to, it may meet this node
    /// with all it has written: DRBD finds the split brain again, and both ends are given up.
    fn await_victim(&self, deadline: Duration) -> Performed {
        let limit = Retry::within(deadline);
        loop {
            if self.observed()?.given_up() {
                self.connect(limit.left())?;
            }
            let known = self.watch(limit.left(), |drbd| {
                let drbd = drbd?;
                (drbd.settled() || drbd.given_up()).then_some(drbd.settled())
            })?;
            if known != Some(false) {
                return self.settle(limit.left());
            }
            std::thread::sleep(RECONNECT.min(limit.left()));
        }
    }

    fn initialize_from_here(&self, deadline: Duration) -> Performed {
        let resource = self.resource_name()?;
        let state = self
            .with_drbd(|drbd| drbd.snapshot(deadline))
            .map_err(|e| drbd::failure(&e))?;
        let Some(seen) = state.resource(&self.resource.name) else {
            return Err(failed(format!(
                "{}: not configured in the kernel",
                self.resource.name
            )));
        };
        if let Err(against) = seen.day_zero() {
            return Err(failed(format!(
                "these are not two fresh disks: {}",
                against.join("; ")
            )));
        }
        let operation = Operation::InitializeFromHere { resource };
        outcome(self.run(&operation, deadline)?, &operation.to_string())
    }

    fn await_sync(&self, deadline: Duration) -> Performed {
        let begun = Instant::now();
        let done = self.watch(deadline, |drbd| {
            let drbd = drbd?;
            if drbd.in_sync() {
                return Some(Ok(()));
            }
            drbd.given_up()
                .then(|| Err(failed("the connection was given up")))
        })?;
        match done {
            Some(Ok(())) => Ok(Done::now()),
            Some(Err(failure)) => Err(failure),
            None => Err(Failure::new(
                FailureKind::Timeout,
                format!("not in sync after {} s", begun.elapsed().as_secs()),
            )),
        }
    }

    fn make_filesystem(&self, device: &Path, deadline: Duration) -> Performed {
        let found = mounts::find_btrfs(device).map_err(|e| host(&e))?;
        let resumed = self.open.as_deref() == Some("initialize");
        let (fsid, done) = match found {
            // Made by the run that was cut short: the disk was proved fresh before it.
            Some(found) if resumed => (found.fsid, Done::already()),
            _ => {
                let made =
                    mounts::mkfs_btrfs(device, &self.resource.name, Overwrite::Nothing, deadline)
                        .map_err(|e| match e.kind() {
                        node_ops::ErrorKind::TimedOut => {
                            Failure::new(FailureKind::Unknown, chain(&e))
                        }
                        _ => host(&e),
                    })?;
                (made.fsid, Done::now())
            }
        };
        let fsid = fsid.to_string();
        self.record(|ledger| ledger.fsid = Some(fsid.clone()))?;
        Ok(done.note(format!("fsid {fsid}")))
    }

    /// Becomes Primary with the peer's consent: connected to it before and after.
    fn promote(&self, deadline: Duration) -> Performed {
        let seen = self.observed()?;
        if seen.role == Role::Primary {
            return Ok(Done::already());
        }
        let peer = self.peer()?;
        let alone = |when: &str| {
            failed(format!(
                "{}: not connected to {peer} {when}: promoting without its consent could make two owners",
                self.resource.name
            ))
            .remedy(format!(
                "bring the link up; if {peer} is off, `failover takeover {}`",
                self.resource.name
            ))
        };
        if !seen.connected() {
            return Err(alone("any more"));
        }
        let mut retry = Retry::within(deadline);
        loop {
            let operation = Operation::Primary {
                resource: self.resource_name()?,
            };
            self.wanted()?;
            match self.with_drbd(|d| d.run(&operation, retry.left().max(LEAST))) {
                Ok(o) => {
                    let done = outcome(o, &operation.to_string())?;
                    if self.observed()?.connected() {
                        return Ok(done);
                    }
                    // The link broke in between: who is right cannot be known from here.
                    self.wanted()?;
                    let _ = self.demote(Duration::from_secs(5));
                    return Err(alone("after the promotion, which was taken back"));
                }
                Err(e) if passing(&e) && retry.again() => {}
                Err(e) => return Err(drbd::failure(&e)),
            }
        }
    }

    /// Becomes Primary on evidence. The peer's role may still look like Primary
    /// for the time the kernel needs to notice that it is gone.
    fn promote_on(
        &self,
        action: &Action,
        evidence: Option<&FenceEvidence>,
        deadline: Duration,
    ) -> Performed {
        let peer = self.peer()?;
        let Some(evidence) = evidence.filter(|e| e.node() == peer) else {
            return Err(failed(format!("no evidence that {peer} is off")));
        };
        if self.observed()?.role == Role::Primary {
            return Ok(Done::already());
        }
        let resource = self.resource_name()?;
        let operation = match action {
            Action::DeclareDataCurrent { .. } => Operation::DeclareDataCurrent { resource },
            Action::PromoteUnfenced { .. } => Operation::PromoteUnfenced { resource },
            _ => Operation::Primary { resource },
        };
        let _word = FencedWord::leave(&self.resource.name, evidence);
        let mut retry = Retry::within(deadline);
        // The call that noticed the loss of the peer has used up the kernel's own tries when the
        // fence-peer handler has answered; the next one goes by that answer.
        let mut unfenced = 0;
        loop {
            self.wanted()?;
            match self.with_drbd(|d| d.run(&operation, retry.left().max(LEAST))) {
                Ok(o) => return outcome(o, &operation.to_string()),
                Err(e)
                    if (passing(&e) || e.kind() == ErrorKind::PeerIsPrimary) && retry.again() => {}
                Err(e) if e.ret_code() == Some(SS_PRIMARY_NOP) && unfenced < 2 => unfenced += 1,
                Err(e) => return Err(drbd::failure(&e)),
            }
        }
    }

    fn demote(&self, deadline: Duration) -> Performed {
        let resource = self.resource_name()?;
        let mut retry = Retry::within(deadline);
        loop {
            self.wanted()?;
            match self.with_drbd(|d| d.secondary(&resource, retry.left().max(LEAST))) {
                Ok(o) => return outcome(o, "secondary"),
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Done::already()),
                // Somebody passing: udev, blkid. Real holders are named when the time is up.
                Err(e) if (passing(&e) || e.kind() == ErrorKind::Busy) && retry.again() => {}
                Err(e) => return Err(self.busy(&e)),
            }
        }
    }

    fn await_peer_secondary(&self, deadline: Duration) -> Performed {
        let peer = self.peer()?;
        let seen = self.watch(deadline, |drbd| {
            let Some(drbd) = drbd else {
                return Some(Err("the resource was taken down".to_owned()));
            };
            if !drbd.connected() {
                return Some(Err(format!("the connection to {peer} was lost")));
            }
            if drbd.role == Role::Primary {
                return Some(Ok(()));
            }
            (drbd.peer_role == Role::Secondary && drbd.all_disks(Disk::UpToDate)).then_some(Ok(()))
        })?;
        match seen {
            Some(Ok(())) => Ok(Done::now()),
            Some(Err(why)) => Err(failed(why).remedy(format!(
                "nothing was changed here; if {peer} is dead, `failover takeover {}`",
                self.resource.name
            ))),
            None => Err(Failure::new(
                FailureKind::Timeout,
                format!("{peer} did not let go within {} s", deadline.as_secs_f32()),
            )
            .remedy(format!(
                "run `failover release {}` there",
                self.resource.name
            ))),
        }
    }

    fn await_peer_primary(&self, deadline: Duration) -> Performed {
        let peer = self.peer()?;
        let seen = self.watch(deadline, |drbd| {
            drbd.filter(|d| d.connected() && d.peer_role == Role::Primary)
                .map(|_| ())
        })?;
        match seen {
            Some(()) => Ok(Done::now()),
            None => Err(Failure::new(
                FailureKind::Timeout,
                format!(
                    "{peer} did not take the store within {} s",
                    deadline.as_secs_f32()
                ),
            )
            .remedy(format!(
                "run `failover handover {}` there first and wait until it is armed",
                self.resource.name
            ))),
        }
    }

    fn mount_store(&self, device: &Path, target: &Path) -> Performed {
        let seen = self.observed()?;
        if let Some(by) = &seen.suspended {
            return Err(failed(format!(
                "{}: its I/O is suspended ({by}); a mount would hang",
                self.resource.name
            )));
        }
        let mut options = MountOptions::new();
        for option in &self.resource.mount_options {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option.as_str(), None),
            };
            options = options.option(key, value);
        }
        let mounted = mounts::mount_btrfs(device, target, &options).map_err(|e| host(&e))?;
        Ok(match mounted.outcome {
            node_ops::Outcome::AlreadyThere => Done::already(),
            _ => Done::now(),
        })
    }

    fn unmount_store(&self, target: &Path, deadline: Duration) -> Performed {
        let mut retry = Retry::within(deadline.min(Duration::from_secs(2)));
        loop {
            match mounts::unmount(target) {
                Ok(node_ops::Outcome::AlreadyThere) => return Ok(Done::already()),
                Ok(_) => return Ok(Done::now()),
                Err(e) if e.kind() == node_ops::ErrorKind::Busy && retry.again() => {}
                Err(e) if e.kind() == node_ops::ErrorKind::Busy => {
                    return Err(failed(chain(&e))
                        .remedy("end those that hold it, then run the command again"));
                }
                Err(e) => return Err(host(&e)),
            }
        }
    }

    fn verify_store(&self) -> Performed {
        let error = |e: crate::error::Error| failed(e.chain());
        let mount = self.mount().map_err(error)?;
        let ledger = self.state.ledger().map_err(error)?;
        let point = self.resource.mount.display();
        let Some(store) = &mount.store else {
            return Err(failed(format!("{point}: the store is not mounted")));
        };
        if store.fs_type != "btrfs" {
            return Err(failed(format!("{point}: {} is not Btrfs", store.fs_type)));
        }
        if store.read_only {
            return Err(failed(format!("{point}: mounted read-only"))
                .remedy("look at the kernel log for I/O errors"));
        }
        let record = OwnerRecord::read(&self.resource.mount).map_err(error)?;
        let known = ledger
            .fsid
            .as_ref()
            .or(record.as_ref().and_then(|s| s.fsid.as_ref()));
        if let (Some(known), Some(now)) = (known, &store.fsid)
            && known != now
        {
            return Err(failed(format!(
                "{point}: the file system is {now}, recorded is {known}"
            ))
            .remedy("find out which disk this is before anything writes to it"));
        }
        if let Some(theirs) = &record
            && theirs.owner != self.name
        {
            let ours = self.resource.canonical();
            let differ = differences(&ours, &theirs.placement);
            if !differ.is_empty() {
                return Err(failed(format!(
                    "placement-differs: {} served under another placement than the one here: {}",
                    theirs.owner,
                    differ.join("; ")
                ))
                .remedy("make the placement files of both nodes equal (all but [local]), then run the command again"));
            }
        }
        if ledger.fsid.is_none() {
            let fsid = store.fsid.clone();
            self.record(|ledger| ledger.fsid = fsid)?;
        }
        Ok(Done::now())
    }

    /// Writes the next epoch into the store, then into the ledger. The write proves that the store takes writes.
    fn claim(&self, takeover: bool, evidence: Option<&FenceEvidence>) -> Performed {
        self.ensure_mounted()?;
        let error = |e: crate::error::Error| {
            let remedy = e.how_to_go_on().map(str::to_owned);
            let failure = failed(e.chain());
            match remedy {
                Some(remedy) => failure.remedy(remedy),
                None => failure,
            }
        };
        let mount = &self.resource.mount;
        let old = OwnerRecord::read(mount).map_err(error)?;
        let mut ledger = self.state.ledger().map_err(error)?;
        let canonical = self.resource.canonical();
        let ours = old.as_ref().is_some_and(|o| o.owner == self.name);
        if ours
            && ledger.owner.as_deref() == Some(&self.name)
            && ledger.serving
            && old
                .as_ref()
                .is_some_and(|o| o.epoch == ledger.epoch && o.placement == canonical)
        {
            return Ok(Done::already().note(format!("epoch {}", ledger.epoch)));
        }
        // Ours already, and nobody else served since: the same ownership goes on.
        let epoch = match &old {
            Some(o) if ours => o.epoch.max(ledger.epoch),
            old => old.as_ref().map_or(0, |o| o.epoch).max(ledger.epoch) + 1,
        };
        let mut record = OwnerRecord::new(&self.name, epoch, canonical);
        record.fsid.clone_from(&ledger.fsid);
        let peer = self.peer()?;
        let tombstone = takeover.then(|| {
            let evidence = evidence.map_or_else(|| "earlier run".to_owned(), ToString::to_string);
            Tombstone::new(&peer, epoch, &self.wall(), &evidence)
        });
        record.tombstone.clone_from(&tombstone);
        self.wanted()?;
        record.write(mount).map_err(error)?;
        ledger.epoch = epoch;
        ledger.owner = Some(self.name.clone());
        ledger.serving = true;
        ledger.tombstone = tombstone;
        self.state.write_ledger(&ledger).map_err(error)?;
        Ok(Done::now().note(format!("epoch {epoch}")))
    }
}

fn set_helper(helper: &Path) -> Performed {
    const NAME: &str = "usermode_helper";
    let Some(helper) = helper.to_str() else {
        return Err(failed(format!(
            "{}: not a path the kernel can be given",
            helper.display()
        )));
    };
    if node_ops::modules::parameter("drbd", NAME).is_ok_and(|now| now == helper) {
        return Ok(Done::already());
    }
    node_ops::modules::set_parameter("drbd", NAME, helper)
        .map(|()| Done::now())
        .map_err(|e| host(&e))
}

/// A reason that may pass by itself.
fn passing(e: &drbd_nl::Error) -> bool {
    e.kind() == ErrorKind::Transient
}

fn disks(drbd: &crate::facts::Drbd) -> String {
    let words: Vec<_> = drbd
        .volumes
        .values()
        .map(|v| format!("{}/{}", v.disk, v.peer_disk))
        .collect();
    words.join(", ")
}

fn ensure_directory(path: &Path) -> Performed {
    if path.is_dir() {
        return Ok(Done::already());
    }
    fs::create_dir_all(path)
        .map(|()| Done::now())
        .map_err(|e| failed(format!("directory {}: {e}", path.display())))
}

/// Word for the fence-peer handler, for as long as a promotion on evidence runs.
struct FencedWord(Option<std::path::PathBuf>);

impl FencedWord {
    fn leave(resource: &str, evidence: &FenceEvidence) -> Self {
        let path = Path::new(FENCED_DIR).join(resource);
        let written =
            fs::create_dir_all(FENCED_DIR).and_then(|()| fs::write(&path, format!("{evidence}\n")));
        FencedWord(written.ok().map(|()| path))
    }
}

impl Drop for FencedWord {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
