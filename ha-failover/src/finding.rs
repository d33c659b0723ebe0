//! What stands against an operation, or should be known before it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Severity {
    /// The operation goes on; the operator should know.
    Warning,
    /// The operation is refused.
    Error,
}

/// One observation with its evidence and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// The stable code.
    pub code: Code,
    /// How much it weighs.
    pub severity: Severity,
    /// The object it is about, e.g. `r0`, `/srv/store1`, `container app`.
    pub subject: String,
    /// What was seen.
    pub evidence: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// A finding that refuses the operation.
    pub fn error(
        code: Code,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding {
            code,
            severity: Severity::Error,
            subject: subject.into(),
            evidence: evidence.into(),
            remedy: remedy.into(),
        }
    }

    /// A finding that lets the operation go on.
    pub fn warning(
        code: Code,
        subject: impl Into<String>,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding {
            severity: Severity::Warning,
            ..Finding::error(code, subject, evidence, remedy)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(
            f,
            "{weight} {}: {}: {}; {}",
            self.code, self.subject, self.evidence, self.remedy
        )
    }
}

/// Why an operation is not planned: all findings, not only the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusal {
    /// The operation that was asked for.
    pub request: String,
    /// The resource it was asked for.
    pub resource: String,
    /// Errors first, warnings after them.
    pub findings: Vec<Finding>,
}

impl Refusal {
    /// Tells whether a finding with this code is among the errors.
    #[must_use]
    pub fn because_of(&self, code: Code) -> bool {
        self.findings
            .iter()
            .any(|f| f.severity == Severity::Error && f.code == code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: refused", self.request, self.resource)?;
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Stable names of findings; `Display` and JSON give the same kebab-case word.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// Every code this version knows.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The word used in JSON and in messages.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// This host is not one of the resource's nodes in the placement file.
    NodeNotInPlacement = "node-not-in-placement",
    /// The placement file of the other node, or of the one that served last, says something else.
    PlacementDiffers = "placement-differs",
    /// drbd.conf and the placement file disagree.
    PlacementDisagreesWithDrbdConf = "placement-disagrees-with-drbd-conf",
    /// drbd.conf cannot be read or parsed.
    DrbdConfUnusable = "drbd-conf-unusable",
    /// drbd.conf has no such resource.
    DrbdConfNoResource = "drbd-conf-no-resource",
    /// drbd.conf has no `on` section for this host.
    DrbdConfNoSuchNode = "drbd-conf-no-such-node",
    /// drbd.conf has something that is accepted but should change.
    DrbdConfAdvice = "drbd-conf-advice",
    /// drbd.conf lets something other than this tool promote, or two nodes at once.
    DrbdConfPromotes = "drbd-conf-promotes",
    /// DRBD 9 metadata with room for one peer: what a new Primary writes may not be in its activity log.
    ActivityLogMayBeSkipped = "activity-log-may-be-skipped",
    /// The caller is not root.
    NotPrivileged = "not-privileged",
    /// The DRBD module is not loaded.
    ModuleNotLoaded = "module-not-loaded",
    /// The loaded module calls another program for its handlers.
    ModuleHelperDiffers = "module-helper-differs",
    /// A file or program that is needed is not there.
    ProgramMissing = "program-missing",
    /// The resource is not configured in the kernel.
    ResourceDown = "resource-down",
    /// The running resource is not what drbd.conf describes.
    ResourceDiffers = "resource-differs",
    /// No DRBD metadata on the backing device.
    MetadataMissing = "metadata-missing",
    /// The backing device holds something that would be destroyed.
    DiskNotBlank = "disk-not-blank",
    /// The backing device cannot be opened.
    DiskUnusable = "disk-unusable",
    /// The local disk is not UpToDate.
    DiskNotUpToDate = "disk-not-up-to-date",
    /// No connection to the peer.
    NotConnected = "not-connected",
    /// The connection is StandAlone: the nodes may have diverged.
    SplitBrainSuspected = "split-brain-suspected",
    /// DRBD has found that both nodes have written on their own.
    SplitBrain = "split-brain",
    /// It is not said where what is given up should be kept.
    NothingKept = "nothing-kept",
    /// The peer is connected, so nothing may be taken from it without its consent.
    PeerConnected = "peer-connected",
    /// The peer is Primary.
    PeerPrimary = "peer-primary",
    /// The peer is not Primary, so there is nothing to hand over.
    PeerNotPrimary = "peer-not-primary",
    /// The peer's disk is not UpToDate.
    PeerDiskNotUpToDate = "peer-disk-not-up-to-date",
    /// A resync or a verify is running.
    ResyncRunning = "resync-running",
    /// I/O is suspended; a mount would hang.
    IoSuspended = "io-suspended",
    /// This node is Primary and nothing recorded says that it should be.
    PrimaryWithoutRecord = "primary-without-record",
    /// This node is not Primary.
    NotPrimary = "not-primary",
    /// This node serves the resource.
    Serving = "serving",
    /// The disks are not both fresh, so a first initialisation would destroy data.
    NotDayZero = "not-day-zero",
    /// The mount point is not there or is no directory.
    MountPointMissing = "mount-point-missing",
    /// The mount point has entries that the mount would hide.
    MountPointNotEmpty = "mount-point-not-empty",
    /// Something else is mounted at the mount point.
    MountPointOccupied = "mount-point-occupied",
    /// The store is mounted at another place too.
    StoreMountedElsewhere = "store-mounted-elsewhere",
    /// The store is mounted read-only.
    StoreReadOnly = "store-read-only",
    /// The store is not mounted.
    StoreNotMounted = "store-not-mounted",
    /// The store has no room left.
    StoreFull = "store-full",
    /// The store's device has had errors.
    StoreErrors = "store-errors",
    /// The lxcpath is not on Btrfs.
    NotBtrfs = "not-btrfs",
    /// The store is not the one recorded: its file system id differs.
    StoreIdDiffers = "store-id-differs",
    /// A process outside the containers holds the mount.
    MountHeld = "mount-held",
    /// A container of the placement does not exist.
    ContainerMissing = "container-missing",
    /// A container's configuration cannot be loaded or lacks something.
    ContainerConfig = "container-config",
    /// A container would be started by something other than this tool.
    ContainerAutostart = "container-autostart",
    /// A container is in a state that neither runs nor is stopped.
    ContainerState = "container-state",
    /// The container is there already.
    ContainerExists = "container-exists",
    /// Two containers would have the same address.
    ContainerAddress = "container-address",
    /// No snapshot of this name.
    SnapshotMissing = "snapshot-missing",
    /// There is a snapshot of this name.
    SnapshotExists = "snapshot-exists",
    /// A name that cannot be given.
    BadName = "bad-name",
    /// Nobody serves the resource, so nothing can be handed over.
    NobodyServes = "nobody-serves",
    /// A bridge is not there.
    BridgeMissing = "bridge-missing",
    /// The recorded owner is the peer.
    OwnedByPeer = "owned-by-peer",
    /// This node served when it was lost and cannot ask whether the peer took over since.
    AskThePeer = "ask-the-peer",
    /// Nothing shows that the local data was current when the link was lost.
    DataMayBeStale = "data-may-be-stale",
    /// What is promised about acknowledged writes is less than both disks.
    WeakPromise = "weak-promise",
    /// Nothing in the placement can fence the peer.
    NoFenceMethod = "no-fence-method",
    /// The proof that the peer is off is only somebody's word.
    AttestedOnly = "attested-only",
    /// The peer was powered when it was fenced, so it may have served until then.
    PeerWasPowered = "peer-was-powered",
    /// An earlier operation was cut short.
    OperationOpen = "operation-open",
    /// The resource was handed back to other tools.
    HandedBack = "handed-back",
    /// Other resources in the kernel are not in the placement.
    OtherResources = "other-resources",
    /// A line of fstab mounts the store at boot.
    FstabAutomount = "fstab-automount",
    /// An enabled systemd unit mounts the store at boot.
    MountUnit = "mount-unit",
    /// The start script or a unit of drbd-utils is enabled.
    DrbdService = "drbd-service",
    /// Pacemaker or Corosync is enabled.
    Pacemaker = "pacemaker",
    /// drbd-reactor is enabled, or has a promoter for the resource.
    DrbdReactor = "drbd-reactor",
    /// LXC's own start at boot is enabled.
    LxcService = "lxc-service",
    /// LXC's own bridge is made at boot.
    LxcNet = "lxc-net",
    /// The disks offer no more than is used.
    NothingToGrow = "nothing-to-grow",
    /// The peer's disk offers no more than is used.
    PeerDiskSmaller = "peer-disk-smaller",
    /// The store would still be smaller than the file system can be resized to.
    StoreTooSmall = "store-too-small",
    /// A partition cannot be grown.
    PartitionNotGrowable = "partition-not-growable",
    /// There is nothing to do.
    NothingToDo = "nothing-to-do",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn json_and_display_use_one_word() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!(seen.insert(code.as_str()), "{code} twice");
        }
    }
}
