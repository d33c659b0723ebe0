//! What one node sees of one resource: values only, gathered in one go.
//!
//! Nothing here talks to the system, so a planner can be tested with facts that
//! no real node would show for long. `None` always means "not known", never a
//! default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ledger::{Ledger, OwnerRecord};
use crate::managers::Conflict;

/// Everything a plan is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Facts {
    /// This node's name.
    pub node: String,
    /// The resource.
    pub resource: String,
    /// The kernel's boot id: changes with each boot.
    pub boot_id: String,
    /// Whether the caller is root with the capabilities that are needed.
    pub privileged: bool,
    /// What drbd.conf says for this node.
    pub conf: Conf,
    /// The DRBD module.
    pub module: Module,
    /// The resource in the kernel; `None` when it is not configured there.
    pub drbd: Option<Drbd>,
    /// What would have to be done to the running resource to make it what drbd.conf says.
    pub differs: Vec<String>,
    /// Resources in the kernel that the placement does not have.
    pub strangers: Vec<String>,
    /// Resources of the placement that this node runs beside this one, by their ledgers.
    pub also_ours: Vec<String>,
    /// Who else would act on the store, by this node's files.
    pub managers: Vec<Conflict>,
    /// The backing devices that are not attached, by volume.
    pub disks: BTreeMap<u16, BackingDisk>,
    /// How large the backing devices are, attached or not, by volume.
    pub backing: BTreeMap<u16, BackingFacts>,
    /// The whole disks under the volumes that drbd.conf puts on a partition, by volume.
    pub whole_disks: BTreeMap<u16, WholeDisk>,
    /// Mount point and mount.
    pub mount: MountFacts,
    /// The snapshots in the store by container; only readable while it is mounted.
    pub snapshots: BTreeMap<String, Vec<SnapshotFacts>>,
    /// Containers in the lxcpath, of the placement or not; only readable while the store is mounted.
    pub lxcpath: Vec<String>,
    /// The containers of the placement, by name.
    pub containers: BTreeMap<String, ContainerFacts>,
    /// Whether the bridges that are needed are there, by name.
    pub bridges: BTreeMap<String, bool>,
    /// When DRBD told its handler of a split brain that has not been settled.
    pub split_brain: Option<String>,
    /// Needed programs that are not there.
    pub missing_programs: Vec<String>,
    /// This node's own record.
    pub ledger: Ledger,
    /// The record in the store; only readable while it is mounted.
    pub store: Option<OwnerRecord>,
    /// An operation of this node that was cut short.
    pub open: Option<OpenOperation>,
    /// Measured times of earlier runs in milliseconds, by step name.
    pub timings: BTreeMap<String, u64>,
}

/// What drbd.conf says about the resource for this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Conf {
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be used; everything below is empty then.
    pub problem: Option<ConfProblem>,
    /// The volumes, by number.
    pub volumes: BTreeMap<u16, ConfVolume>,
    /// The peer's name.
    pub peer: Option<String>,
    /// This node's replication address.
    pub address: Option<String>,
    /// The peer's replication address.
    pub peer_address: Option<String>,
    /// The replication protocol: `A`, `B` or `C`.
    pub protocol: Option<String>,
    /// The fencing policy.
    pub fencing: Option<String>,
    /// Whether two primaries are allowed.
    pub two_primaries: bool,
    /// The nodes named by `become-primary-on`.
    pub become_primary_on: Vec<String>,
    /// Warnings of the parser, with their place in the file.
    pub advice: Vec<String>,
}

/// Why drbd.conf cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "problem", content = "text")]
#[non_exhaustive]
pub enum ConfProblem {
    /// Missing, unreadable or not parsable; the text has file, line and column.
    Unusable(String),
    /// Has no such resource; the text names those it has.
    NoResource(String),
    /// Has no section for this host; the text names those it has.
    NoSuchNode(String),
}

/// A volume in drbd.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ConfVolume {
    /// The minor number.
    pub minor: u32,
    /// The device node, e.g. `/dev/drbd0`.
    pub device: PathBuf,
    /// The backing device.
    pub disk: PathBuf,
    /// The minor on the peer.
    pub peer_minor: Option<u32>,
}

/// The DRBD kernel module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Module {
    /// Whether the kernel answers DRBD requests.
    pub loaded: bool,
    /// The program the kernel calls for handlers now.
    pub helper: Option<String>,
    /// The program it should call.
    pub wanted_helper: PathBuf,
}

/// The resource as the kernel shows it, reduced to one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Drbd {
    /// This node's role.
    pub role: Role,
    /// Whether I/O is suspended, and by what.
    pub suspended: Option<String>,
    /// The volumes, by number.
    pub volumes: BTreeMap<u16, VolumeFacts>,
    /// The connection; `None` when it is not configured.
    pub link: Option<Link>,
    /// The peer's role as last told.
    pub peer_role: Role,
    /// Whether opening the device for writing promotes this node (9).
    #[serde(default)]
    pub auto_promote: Option<bool>,
}

impl Drbd {
    /// A resource in the kernel with nothing attached and nobody connected.
    #[must_use]
    pub fn bare() -> Self {
        Drbd {
            role: Role::Secondary,
            suspended: None,
            volumes: BTreeMap::new(),
            link: None,
            peer_role: Role::Unknown,
            auto_promote: None,
        }
    }

    /// Whether the peer is connected, a resync included.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.link == Some(Link::Connected)
    }

    /// Whether all volumes' local disks are in this state; `false` without volumes.
    #[must_use]
    pub fn all_disks(&self, disk: Disk) -> bool {
        !self.volumes.is_empty() && self.volumes.values().all(|v| v.disk == disk)
    }

    /// Whether all volumes' disks of the peer are in this state; `false` without volumes.
    #[must_use]
    pub fn all_peer_disks(&self, disk: Disk) -> bool {
        !self.volumes.is_empty() && self.volumes.values().all(|v| v.peer_disk == disk)
    }

    /// Whether both nodes hold the same, complete data right now.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.connected() && self.all_disks(Disk::UpToDate) && self.all_peer_disks(Disk::UpToDate)
    }

    /// Whether the peer is connected and both know whose data is newer.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.connected()
            && self.volumes.values().all(|v| {
                v.replication != Replication::Busy
                    && !matches!(v.disk, Disk::Negotiating | Disk::Attaching)
                    && !matches!(v.peer_disk, Disk::Unknown | Disk::Negotiating)
            })
    }

    /// Whether nobody tries to reach the peer, as after a split brain.
    #[must_use]
    pub fn given_up(&self) -> bool {
        // Where DRBD 8.4 forgets the connection, 9 keeps it.
        matches!(self.link, None | Some(Link::StandAlone))
    }

    /// Whether a disk is attached.
    #[must_use]
    pub fn attached(&self) -> bool {
        !self.volumes.is_empty() && self.volumes.values().all(|v| v.disk != Disk::Diskless)
    }
}

/// A volume in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VolumeFacts {
    /// The minor number.
    pub minor: u32,
    /// The local disk.
    pub disk: Disk,
    /// The peer's disk as last told.
    pub peer_disk: Disk,
    /// What runs between the two disks.
    pub replication: Replication,
    /// Kibibytes out of sync, where known.
    pub out_of_sync_kib: Option<u64>,
    /// The current generation, where known.
    pub current_uuid: Option<u64>,
    /// The size in bytes.
    pub size: Option<u64>,
}

impl VolumeFacts {
    /// A volume with these states and nothing else known.
    #[must_use]
    pub fn new(minor: u32, disk: Disk, peer_disk: Disk) -> Self {
        VolumeFacts {
            minor,
            disk,
            peer_disk,
            replication: Replication::Idle,
            out_of_sync_kib: None,
            current_uuid: None,
            size: None,
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident,)* } other $other:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            /// Another state, by its number.
            $other(u32),
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($name::$variant => f.write_str(stringify!($variant)),)*
                    $name::$other(n) => write!(f, "{}({n})", stringify!($other)),
                }
            }
        }
    };
}

words! {
    /// A role.
    Role {
        /// Not known: no connection.
        Unknown,
        /// May be written.
        Primary,
        /// May not even be read.
        Secondary,
    } other Other
}

words! {
    /// A disk's state.
    Disk {
        /// Nothing attached.
        Diskless,
        /// Being attached.
        Attaching,
        /// Being detached.
        Detaching,
        /// Failed.
        Failed,
        /// Attached, not yet settled with the peer.
        Negotiating,
        /// No point in time at all.
        Inconsistent,
        /// A past point in time, known to be past.
        Outdated,
        /// Not known (the peer's, without a connection).
        Unknown,
        /// A point in time; whether the last one is not known.
        Consistent,
        /// Current, in this node's opinion.
        UpToDate,
    } other Other
}

words! {
    /// The connection to the peer, coarse.
    Link {
        /// Given up; nobody tries again.
        StandAlone,
        /// Looking for the peer, or between two states.
        Connecting,
        /// Connected, a resync included.
        Connected,
    } other Other
}

words! {
    /// What runs between two disks of a volume.
    Replication {
        /// Nothing: established, or off.
        Idle,
        /// This node sends a resync.
        SyncSource,
        /// This node receives a resync.
        SyncTarget,
        /// A verify, a paused resync, a handshake step.
        Busy,
    } other Other
}

/// A backing device that is not attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "holds")]
#[non_exhaustive]
pub enum BackingDisk {
    /// Nothing that anything recognises.
    Blank,
    /// DRBD metadata of the version this kernel takes.
    Metadata {
        /// Never used: created, not yet synced with anybody.
        just_created: bool,
        /// Was primary when the node was lost: its activity log must be applied before attach.
        needs_activity_log: bool,
        /// The current generation.
        current_uuid: u64,
        /// Said to be consistent when last written.
        consistent: bool,
    },
    /// DRBD metadata where the device ended when it was smaller: it was grown while it was not attached.
    Grown {
        /// The size in bytes that the device had.
        from: u64,
    },
    /// Something else that would be destroyed.
    Other {
        /// What was recognised.
        what: String,
    },
    /// Cannot be opened.
    Unusable {
        /// Why.
        why: String,
    },
}

/// The size of a backing device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BackingFacts {
    /// Its size now, in bytes.
    pub size: u64,
    /// Its size when its metadata was last seen at its end.
    pub noted: Option<u64>,
    /// What it offers for data now, in bytes, where that is known.
    pub offers: Option<u64>,
    /// Its metadata has room for one peer, and DRBD is one that then writes no activity log while it is
    /// Secondary, nor all of it when it becomes Primary (9).
    pub may_skip_log: bool,
}

/// A disk of which drbd.conf uses a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct WholeDisk {
    /// The disk.
    pub disk: PathBuf,
    /// The partition that drbd.conf names.
    pub partition: PathBuf,
    /// Its number.
    pub number: u32,
    /// Whether that partition is there.
    pub exists: bool,
    /// What the disk holds, tables and partitions included.
    pub holds: Vec<String>,
    /// The partition's size in bytes, where it can be grown, and the one it could have.
    pub room: Option<(u64, u64)>,
    /// Why the partition cannot be grown.
    pub no_room: Option<String>,
    /// Why it cannot be partitioned.
    pub problem: Option<String>,
}

/// A snapshot of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SnapshotFacts {
    /// Its name.
    pub name: String,
    /// When it was taken, by the clock of the node that served; `None` when taking it was cut short.
    pub taken: Option<String>,
    /// The epoch in which it was taken.
    pub epoch: u64,
    /// The node that served then.
    pub node: String,
}

/// The mount point, and what is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct MountFacts {
    /// Whether the mount point is a directory.
    pub point_exists: bool,
    /// Whether it has entries of its own (asked only while nothing is mounted there).
    pub point_has_entries: bool,
    /// The store's mount at the mount point.
    pub store: Option<StoreMount>,
    /// What else is mounted at the mount point, by its source.
    pub occupied_by: Option<String>,
    /// Other places where the store's device is mounted.
    pub elsewhere: Vec<PathBuf>,
    /// Whether the lxcpath is there (asked only while the store is mounted).
    pub lxcpath_exists: bool,
    /// Processes outside the placement's containers that hold the mount.
    pub holders: Vec<String>,
}

/// The mounted store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StoreMount {
    /// The device.
    pub source: PathBuf,
    /// The file system type.
    pub fs_type: String,
    /// The file system's id.
    pub fsid: Option<String>,
    /// Whether it is read-only now.
    pub read_only: bool,
    /// Its size on its device in bytes, where known.
    pub size: Option<u64>,
    /// Bytes that can still be written, where known.
    pub free: Option<u64>,
    /// The errors its device has had, in words; empty when it had none.
    pub device_errors: Vec<String>,
}

/// A container of the placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContainerFacts {
    /// Its state; `None` while the store is not mounted.
    pub state: Option<ContainerState>,
    /// Why its configuration cannot be used.
    pub problem: Option<String>,
    /// Whether something else would start it at boot.
    pub autostart: bool,
    /// Bridges its configuration names.
    pub bridges: Vec<String>,
    /// Its init process while it runs, or is frozen.
    pub init_pid: Option<i32>,
}

impl ContainerFacts {
    /// A container of which only the state is known.
    #[must_use]
    pub fn new(state: Option<ContainerState>) -> Self {
        ContainerFacts {
            state,
            problem: None,
            autostart: false,
            bridges: Vec::new(),
            init_pid: None,
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn running(&self) -> bool {
        self.state == Some(ContainerState::Running)
    }
}

/// A container's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ContainerState {
    /// Has no configuration below the lxcpath.
    Missing,
    /// Stopped.
    Stopped,
    /// Running.
    Running,
    /// Frozen: will not answer a shutdown.
    Frozen,
    /// Anything in between, by liblxc's word.
    Other(String),
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ContainerState::Missing => "missing",
            ContainerState::Stopped => "STOPPED",
            ContainerState::Running => "RUNNING",
            ContainerState::Frozen => "FROZEN",
            ContainerState::Other(word) => word,
        })
    }
}

/// An operation that has a beginning in the journal and no end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OpenOperation {
    /// The operation's id.
    pub id: String,
    /// What was asked for, e.g. `release`.
    pub request: String,
    /// When it began.
    pub began: String,
    /// The last step with an intent, and its result if it has one.
    pub last: Option<String>,
    /// The containers that ran when it began.
    pub running: Vec<String>,
}
