//! What will be done, in order, before anything is done.
//!
//! A [`Plan`] is a value: it prints, serializes, compares. Its steps are
//! [`Action`]s with a deadline; what undoes them is data too, so that an undo
//! survives a crash of the program as well as the plan does.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::evidence::{Attestation, FenceEvidence};
use crate::finding::{Finding, Severity};

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
#[non_exhaustive]
pub enum Request {
    /// Load the module, create metadata on blank disks, configure as Secondary.
    Prepare,
    /// Configure as Secondary: apply the activity log if needed, attach, connect. Never promotes.
    Up,
    /// As [`Request::Up`], with the time that a peer needs which boots too.
    Boot,
    /// Take the resource out of the kernel.
    Down,
    /// Before day 0: one partition on each disk, for the volumes that drbd.conf puts on a partition.
    Partition {
        /// What is on the disks may be destroyed: who says so, and why.
        erase: Option<Attestation>,
    },
    /// Take larger disks into use, this node's part: partition, DRBD's device, file system.
    Grow {
        /// What the peer's disk offers for the store's volume, as its facts say, in bytes.
        peer_offers: Option<u64>,
        /// Wait until the peer has the new part too.
        wait_sync: bool,
    },
    /// Take over what other tools run, as it runs: this node's part. Stops and starts nothing.
    Adopt,
    /// Leave what runs to other tools, as it runs: this node's part. Stops and starts nothing.
    HandBack,
    /// Day 0, once: this node's empty disk becomes the data, with a file system on it.
    Initialize {
        /// Wait until the peer has it all.
        wait_sync: bool,
    },
    /// Serve what this node owns: promote if needed, mount, start the containers.
    Start,
    /// Stop serving: stop the containers, unmount, demote.
    Stop,
    /// Planned handover, the side that serves: stop, then wait for the peer or take back.
    Release {
        /// The digest of the peer's placement, to compare before anything stops.
        peer_placement: Option<String>,
    },
    /// Planned handover, the side that will serve: wait for the peer to let go, then serve.
    Handover {
        /// The digest of the peer's placement, to compare before anything stops.
        peer_placement: Option<String>,
    },
    /// Serve without the peer's consent, because it is proved to be off.
    Takeover(Takeover),
    /// After a split brain: this node's part of bringing the two together again.
    ResolveSplitBrain {
        /// The node whose changes since the split are given up.
        victim: String,
        /// On the victim: a directory of this node, outside the store, for what it would lose.
        keep: Option<PathBuf>,
        /// Who says that this node's changes may go, and why.
        accept: Attestation,
    },
    /// Keep a container as it is now.
    Snapshot {
        /// The container.
        container: String,
        /// The snapshot's name.
        name: String,
    },
    /// Make a new container of a snapshot.
    RestoreSnapshot {
        /// The container that was kept.
        container: String,
        /// The snapshot's name.
        name: String,
        /// The new container's name.
        into: String,
    },
    /// Delete a snapshot.
    DeleteSnapshot {
        /// The container that was kept.
        container: String,
        /// The snapshot's name.
        name: String,
    },
}

/// What an operator brings to a takeover beside the placement's fence method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Takeover {
    /// The operator's word that the peer is off, in place of fencing.
    pub attest: Option<Attestation>,
    /// Accept that acknowledged writes are lost, because the local data may be past.
    pub declare_data_current: Option<Attestation>,
    /// Accept that the kernel's own fencing policy is not satisfied.
    pub promote_unfenced: Option<Attestation>,
    /// The power state of the peer, as the fence agent told before planning.
    pub peer_power: Option<crate::evidence::Power>,
}

impl Request {
    /// Whether it changes who serves, so that a run that was cut short has to be carried on.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(
            self,
            Request::Initialize { .. }
                | Request::Start
                | Request::Stop
                | Request::Release { .. }
                | Request::Handover { .. }
                | Request::Takeover(_)
                | Request::ResolveSplitBrain { .. }
        )
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Request::Prepare => "prepare",
            Request::Up => "up",
            Request::Boot => "boot",
            Request::Partition { .. } => "partition",
            Request::Grow { .. } => "grow",
            Request::Adopt => "adopt",
            Request::HandBack => "hand-back",
            Request::ResolveSplitBrain { .. } => "resolve-split-brain",
            Request::Snapshot { .. } => "snapshot",
            Request::RestoreSnapshot { .. } => "restore-snapshot",
            Request::DeleteSnapshot { .. } => "delete-snapshot",
            Request::Down => "down",
            Request::Initialize { .. } => "initialize",
            Request::Start => "start",
            Request::Stop => "stop",
            Request::Release { .. } => "release",
            Request::Handover { .. } => "handover",
            Request::Takeover(_) => "takeover",
        }
    }
}

/// One thing a [`World`](crate::World) can do. Every action is idempotent: doing what is done is fine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
#[non_exhaustive]
pub enum Action {
    /// Make a directory that is missing.
    EnsureDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Load the DRBD module with its helper program.
    LoadModule {
        /// The program the kernel will call.
        helper: PathBuf,
    },
    /// Name another program for the kernel to call for DRBD's handlers.
    SetHelper {
        /// The program.
        helper: PathBuf,
    },
    /// Record that this tool runs the resource from now on.
    RecordAdopted {
        /// The program that the kernel called before.
        helper_before: Option<String>,
    },
    /// Record that other tools run the resource from now on, and leave them what they look for.
    RecordHandedBack,
    /// Destroy what a disk holds and make one partition on it.
    Partition {
        /// The volume.
        volume: u16,
        /// The whole disk.
        disk: PathBuf,
        /// The partition that drbd.conf names.
        partition: PathBuf,
    },
    /// Make a partition as large as it can be where it is, while it is in use.
    GrowPartition {
        /// The volume.
        volume: u16,
        /// The whole disk.
        disk: PathBuf,
        /// The partition's number.
        number: u32,
        /// The size it will have, in bytes.
        to: u64,
    },
    /// Move DRBD's metadata to the end of a disk that was grown while it was not attached.
    MoveMetadata {
        /// The volume.
        volume: u16,
        /// The backing device.
        disk: PathBuf,
        /// Its size when the metadata was written, in bytes.
        from: u64,
    },
    /// Have DRBD take the new size of both disks into use.
    GrowDevice {
        /// The volume.
        volume: u16,
        /// Its device.
        device: PathBuf,
    },
    /// Grow the mounted file system to the size of its device.
    GrowStore {
        /// The mount point.
        target: PathBuf,
    },
    /// Write DRBD metadata on a blank backing device.
    CreateMetadata {
        /// The volume.
        volume: u16,
        /// The backing device.
        disk: PathBuf,
    },
    /// Mark what the lost primary was writing as out of sync.
    ApplyActivityLog {
        /// The volume.
        volume: u16,
        /// The backing device.
        disk: PathBuf,
    },
    /// Configure the resource and attach its disks.
    Attach,
    /// Configure the connection.
    Connect,
    /// Give the connection up, so that a returning peer cannot meet us half way.
    Disconnect,
    /// Look for the peer; finding nobody is fine.
    Settle,
    /// Take the resource out of the kernel.
    TakeDown,
    /// Make this node's disk the source of the first sync, and this node Primary.
    InitializeFromHere,
    /// Wait until the peer has all data.
    AwaitSync,
    /// Make a Btrfs on the device.
    MakeFilesystem {
        /// The device.
        device: PathBuf,
    },
    /// Become Primary with the peer's consent.
    Promote,
    /// Become Primary on the evidence that the peer is off.
    PromoteFenced,
    /// Become Primary on evidence, declaring data current that may be past.
    DeclareDataCurrent {
        /// Who accepts the loss, and why.
        accepted: Attestation,
    },
    /// Become Primary on evidence, against the kernel's fencing policy.
    PromoteUnfenced {
        /// Who accepts it, and why.
        accepted: Attestation,
    },
    /// Become Secondary.
    Demote,
    /// Wait until the peer has let go.
    AwaitPeerSecondary,
    /// Wait until the peer has taken the store.
    AwaitPeerPrimary,
    /// Mount the store.
    Mount {
        /// The device.
        device: PathBuf,
        /// The mount point.
        target: PathBuf,
    },
    /// Unmount the store, never lazily.
    Unmount {
        /// The mount point.
        target: PathBuf,
    },
    /// Check that the mounted store is the recorded one, Btrfs, and takes writes.
    VerifyStore,
    /// Write the next epoch and this node as owner, into the store and the ledger.
    Claim {
        /// The peer lost it by a takeover.
        takeover: bool,
    },
    /// Load every container's configuration before the first is started.
    CheckContainers,
    /// Start a container and wait until it runs.
    StartContainer {
        /// Its name.
        name: String,
    },
    /// Wait until its probe answers.
    AwaitReady {
        /// Its name.
        name: String,
    },
    /// Tell the neighbours where its addresses are now.
    Announce {
        /// Its name.
        name: String,
    },
    /// Shut a container down; kill it when the deadline passes.
    StopContainer {
        /// Its name.
        name: String,
    },
    /// Check that nothing of a container is left.
    VerifyGone {
        /// Its name.
        name: String,
    },
    /// Become Primary while disconnected, only to read what will be given up.
    PromoteToRescue {
        /// Who gives it up, and why.
        accepted: Attestation,
    },
    /// Write the store's subvolumes into files of a directory, as Btrfs streams.
    KeepAside {
        /// The directory.
        into: PathBuf,
    },
    /// Connect as the one whose changes are given up.
    ConnectDiscarding,
    /// Look for the one whose changes are given up, and connect again when DRBD finds the split brain
    /// before that; finding nobody is fine.
    AwaitVictim,
    /// Keep a container as it is now, read-only, in the store.
    Snapshot {
        /// The container.
        container: String,
        /// The snapshot's name.
        name: String,
    },
    /// Make a new container of a snapshot.
    RestoreSnapshot {
        /// The container that was kept.
        container: String,
        /// The snapshot's name.
        name: String,
        /// The new container's name.
        into: String,
    },
    /// Delete a snapshot.
    DeleteSnapshot {
        /// The container that was kept.
        container: String,
        /// The snapshot's name.
        name: String,
    },
    /// Record that this node does not serve any more.
    RecordReleased,
    /// Record that the peer serves in the next epoch.
    RecordPeerOwns,
    /// Record what is known about the local data.
    RecordSeen,
}

impl Action {
    /// The step's stable name, e.g. `stop-container`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Action::EnsureDirectory { .. } => "ensure-directory",
            Action::LoadModule { .. } => "load-module",
            Action::Partition { .. } => "partition",
            Action::SetHelper { .. } => "set-helper",
            Action::RecordAdopted { .. } => "record-adopted",
            Action::RecordHandedBack => "record-handed-back",
            Action::GrowPartition { .. } => "grow-partition",
            Action::MoveMetadata { .. } => "move-metadata",
            Action::GrowDevice { .. } => "grow-device",
            Action::GrowStore { .. } => "grow-store",
            Action::CreateMetadata { .. } => "create-metadata",
            Action::PromoteToRescue { .. } => "promote-to-rescue",
            Action::KeepAside { .. } => "keep-aside",
            Action::ConnectDiscarding => "connect-discarding",
            Action::AwaitVictim => "await-victim",
            Action::Snapshot { .. } => "snapshot",
            Action::RestoreSnapshot { .. } => "restore-snapshot",
            Action::DeleteSnapshot { .. } => "delete-snapshot",
            Action::ApplyActivityLog { .. } => "apply-activity-log",
            Action::Attach => "attach",
            Action::Connect => "connect",
            Action::Disconnect => "disconnect",
            Action::Settle => "settle",
            Action::TakeDown => "take-down",
            Action::InitializeFromHere => "initialize-from-here",
            Action::AwaitSync => "await-sync",
            Action::MakeFilesystem { .. } => "make-filesystem",
            Action::Promote => "promote",
            Action::PromoteFenced => "promote-fenced",
            Action::DeclareDataCurrent { .. } => "declare-data-current",
            Action::PromoteUnfenced { .. } => "promote-unfenced",
            Action::Demote => "demote",
            Action::AwaitPeerSecondary => "await-peer-secondary",
            Action::AwaitPeerPrimary => "await-peer-primary",
            Action::Mount { .. } => "mount",
            Action::Unmount { .. } => "unmount",
            Action::VerifyStore => "verify-store",
            Action::Claim { .. } => "claim",
            Action::CheckContainers => "check-containers",
            Action::StartContainer { .. } => "start-container",
            Action::AwaitReady { .. } => "await-ready",
            Action::Announce { .. } => "announce",
            Action::StopContainer { .. } => "stop-container",
            Action::VerifyGone { .. } => "verify-gone",
            Action::RecordReleased => "record-released",
            Action::RecordPeerOwns => "record-peer-owns",
            Action::RecordSeen => "record-seen",
        }
    }

    /// Whether it promotes without the peer's consent.
    #[must_use]
    pub fn needs_evidence(&self) -> bool {
        matches!(
            self,
            Action::PromoteFenced
                | Action::DeclareDataCurrent { .. }
                | Action::PromoteUnfenced { .. }
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::EnsureDirectory { path } => write!(f, "make directory {}", path.display()),
            Action::LoadModule { helper } => {
                write!(
                    f,
                    "load module drbd with usermode_helper={}",
                    helper.display()
                )
            }
            Action::Partition {
                disk, partition, ..
            } => write!(
                f,
                "make {} the one partition of {}, whatever that holds",
                partition.display(),
                disk.display()
            ),
            Action::SetHelper { helper } => write!(
                f,
                "have the kernel call {} for DRBD's handlers",
                helper.display()
            ),
            Action::RecordAdopted { .. } => {
                f.write_str("record that this tool runs it from now on")
            }
            Action::RecordHandedBack => f.write_str("record that other tools run it from now on"),
            Action::GrowPartition {
                disk, number, to, ..
            } => write!(
                f,
                "grow partition {number} of {} to {} MiB",
                disk.display(),
                to >> 20
            ),
            Action::MoveMetadata { disk, from, .. } => write!(
                f,
                "move DRBD's metadata to the end of {}, which was {} MiB",
                disk.display(),
                from >> 20
            ),
            Action::GrowDevice { device, .. } => {
                write!(f, "grow {} to what both disks offer", device.display())
            }
            Action::GrowStore { target } => {
                write!(f, "grow the file system on {}", target.display())
            }
            Action::PromoteToRescue { accepted } => write!(
                f,
                "become Primary while disconnected, to read what is given up; accepted by {accepted}"
            ),
            Action::KeepAside { into } => {
                write!(f, "keep what this node has written in {}", into.display())
            }
            Action::ConnectDiscarding => {
                f.write_str("connect, GIVING UP what this node has written since the split")
            }
            Action::AwaitVictim => {
                f.write_str("connect, until the peer gives up its changes (nobody there is fine)")
            }
            Action::Snapshot { container, name } => {
                write!(f, "keep container {container} as snapshot {name}")
            }
            Action::RestoreSnapshot {
                container,
                name,
                into,
            } => write!(f, "make container {into} of snapshot {name} of {container}"),
            Action::DeleteSnapshot { container, name } => {
                write!(f, "delete snapshot {name} of container {container}")
            }
            Action::CreateMetadata { volume, disk } => {
                write!(
                    f,
                    "create DRBD metadata on {} (volume {volume})",
                    disk.display()
                )
            }
            Action::ApplyActivityLog { volume, disk } => {
                write!(
                    f,
                    "apply the activity log on {} (volume {volume})",
                    disk.display()
                )
            }
            Action::Attach => f.write_str("configure the resource and attach its disks"),
            Action::Connect => f.write_str("connect to the peer"),
            Action::Disconnect => f.write_str("disconnect, so that a returning peer stays out"),
            Action::Settle => f.write_str("look for the peer (nobody there is fine)"),
            Action::TakeDown => f.write_str("take the resource down"),
            Action::InitializeFromHere => {
                f.write_str("make the local disk the source of the first sync, become Primary")
            }
            Action::AwaitSync => f.write_str("wait until the peer has all data"),
            Action::MakeFilesystem { device } => write!(f, "make a Btrfs on {}", device.display()),
            Action::Promote => f.write_str("become Primary"),
            Action::PromoteFenced => {
                f.write_str("become Primary on the evidence that the peer is off")
            }
            Action::DeclareDataCurrent { accepted } => write!(
                f,
                "become Primary on evidence, DECLARING LOCAL DATA CURRENT; loss accepted by {accepted}"
            ),
            Action::PromoteUnfenced { accepted } => write!(
                f,
                "become Primary on evidence, AGAINST DRBD's FENCING POLICY; accepted by {accepted}"
            ),
            Action::Demote => f.write_str("become Secondary"),
            Action::AwaitPeerSecondary => f.write_str("armed: wait until the peer lets go"),
            Action::AwaitPeerPrimary => f.write_str("wait until the peer has taken the store"),
            Action::Mount { device, target } => {
                write!(f, "mount {} at {}", device.display(), target.display())
            }
            Action::Unmount { target } => write!(f, "unmount {}", target.display()),
            Action::VerifyStore => f.write_str("verify the store: right one, Btrfs, writable"),
            Action::Claim { takeover: false } => {
                f.write_str("record this node as owner in the next epoch")
            }
            Action::Claim { takeover: true } => {
                f.write_str("record this node as owner in the next epoch, and the peer as lost")
            }
            Action::CheckContainers => f.write_str("load every container's configuration"),
            Action::StartContainer { name } => write!(f, "start container {name}"),
            Action::AwaitReady { name } => write!(f, "wait until container {name} answers"),
            Action::Announce { name } => write!(f, "announce the addresses of container {name}"),
            Action::StopContainer { name } => write!(f, "stop container {name}"),
            Action::VerifyGone { name } => {
                write!(f, "verify that nothing of container {name} is left")
            }
            Action::RecordReleased => f.write_str("record that this node serves no more"),
            Action::RecordPeerOwns => f.write_str("record the peer as owner in the next epoch"),
            Action::RecordSeen => f.write_str("record what is known about the local data"),
        }
    }
}

/// An action in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// When its outcome counts as unknown, in milliseconds.
    pub deadline_ms: u64,
    /// What an earlier run measured for it, in milliseconds.
    pub predicted_ms: Option<u64>,
    /// The service is down while it runs.
    pub in_gap: bool,
    /// Its failure is reported and does not end the operation.
    pub optional: bool,
}

impl Step {
    /// A step outside the gap in service.
    #[must_use]
    pub fn new(action: Action, deadline: Duration) -> Self {
        Step {
            action,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            predicted_ms: None,
            in_gap: false,
            optional: false,
        }
    }

    /// Says that the service is down while it runs.
    #[must_use]
    pub fn in_gap(mut self) -> Self {
        self.in_gap = true;
        self
    }

    /// Says that its failure does not end the operation.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// The deadline.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

/// Steps in order, with the findings that do not stand against them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// What was asked for.
    pub request: Request,
    /// The resource.
    pub resource: String,
    /// The node it runs on.
    pub node: String,
    /// The boot it was made in: monotonic times of its run belong to it.
    pub boot_id: String,
    /// The node that must be proved off, and how, before the first step.
    pub evidence: Option<EvidenceNeed>,
    /// What should be known beforehand; no errors among them.
    pub findings: Vec<Finding>,
    /// The steps.
    pub steps: Vec<Step>,
    /// What brings the service back when a step fails, in this order.
    pub undo: Vec<Undo>,
    /// The containers that ran when the operation began: what an undo brings back.
    pub running: Vec<String>,
    /// An operation that was cut short and that this plan carries on or replaces.
    pub resumes: Option<String>,
}

/// An action that is part of undoing a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Undo {
    /// What is done.
    pub action: Action,
    /// When its outcome counts as unknown, in milliseconds.
    pub deadline_ms: u64,
    /// It is part of the undo once this step (counted from 0) has begun.
    pub once_begun: usize,
}

/// The evidence a plan cannot run without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvidenceNeed {
    /// The node that must be off.
    pub node: String,
    /// Where the evidence will come from.
    pub from: String,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The gap in service that earlier runs predict for this node's part, where all its steps are known.
    ///
    /// Steps that wait for the other node are left out: their time is the other node's.
    #[must_use]
    pub fn predicted_gap_ms(&self) -> Option<u64> {
        let mut gap = self
            .steps
            .iter()
            .filter(|s| s.in_gap && !matches!(s.action, Action::AwaitPeerPrimary))
            .peekable();
        gap.peek()?;
        gap.map(|s| s.predicted_ms).sum()
    }

    /// The sum of the deadlines of all steps: the longest this plan can take without its undo.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        self.steps
            .iter()
            .map(|s| s.deadline_ms)
            .fold(0, u64::saturating_add)
    }

    /// Makes a plan that needs no evidence ready to run.
    ///
    /// # Errors
    ///
    /// Gives the plan back when it needs evidence.
    #[allow(clippy::result_large_err, reason = "the plan comes back to its owner")]
    pub fn ready(self) -> std::result::Result<Runnable, Plan> {
        if self.evidence.is_some() || self.steps.iter().any(|s| s.action.needs_evidence()) {
            return Err(self);
        }
        Ok(Runnable {
            plan: self,
            evidence: None,
        })
    }

    /// Makes a takeover ready to run, by evidence about the right node.
    ///
    /// # Errors
    ///
    /// Gives the plan back when the evidence is about another node, or when the
    /// plan needs none.
    #[allow(clippy::result_large_err, reason = "the plan comes back to its owner")]
    pub fn with_evidence(self, evidence: FenceEvidence) -> std::result::Result<Runnable, Plan> {
        match &self.evidence {
            Some(need) if need.node == evidence.node() => Ok(Runnable {
                plan: self,
                evidence: Some(evidence),
            }),
            _ => Err(self),
        }
    }

    /// The containers this plan stops.
    #[must_use]
    pub fn stops(&self) -> BTreeSet<&str> {
        self.steps
            .iter()
            .filter_map(|s| match &s.action {
                Action::StopContainer { name } => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }
}

/// A plan that may run: complete, with the evidence it needs.
#[derive(Debug)]
#[must_use = "a runnable plan does nothing until an Executor takes it"]
pub struct Runnable {
    pub(crate) plan: Plan,
    pub(crate) evidence: Option<FenceEvidence>,
}

impl Runnable {
    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The evidence, for a takeover.
    #[must_use]
    pub fn evidence(&self) -> Option<&FenceEvidence> {
        self.evidence.as_ref()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "plan: {} {} on {}",
            self.request.name(),
            self.resource,
            self.node
        )?;
        if let Some(what) = &self.resumes {
            write!(f, "\n  carries on: {what}")?;
        }
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        if self.steps.is_empty() {
            return write!(f, "\n  nothing to do");
        }
        if let Some(need) = &self.evidence {
            write!(f, "\n   0. prove that {} is off: {}", need.node, need.from)?;
        }
        for (i, step) in self.steps.iter().enumerate() {
            write!(
                f,
                "\n  {:2}. {} {}",
                i + 1,
                if step.in_gap { "!" } else { " " },
                step.action
            )?;
            let mut notes = Vec::new();
            if let Some(ms) = step.predicted_ms {
                notes.push(format!("~{ms} ms"));
            }
            notes.push(format!(
                "at most {}",
                crate::duration::show(Duration::from_millis(step.deadline_ms))
            ));
            if step.optional {
                notes.push("failure only reported".into());
            }
            write!(f, " [{}]", notes.join(", "))?;
        }
        if self.steps.iter().any(|s| s.in_gap) {
            write!(f, "\n  `!`: the service is down meanwhile")?;
            if let Some(ms) = self.predicted_gap_ms() {
                write!(f, "; this node's part was {ms} ms in earlier runs")?;
            }
        }
        if !self.undo.is_empty() {
            let words: Vec<_> = self.undo.iter().map(|u| u.action.to_string()).collect();
            write!(
                f,
                "\n  if a step fails, what was changed by then is undone: {}",
                words.join(", ")
            )?;
        }
        Ok(())
    }
}

/// Puts errors first and tells whether there are any.
pub(crate) fn settle(findings: &mut [Finding]) -> bool {
    findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    findings.iter().any(|f| f.severity == Severity::Error)
}
