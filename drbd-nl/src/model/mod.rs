//! What DRBD has configured, and in which state it is: one model for 8.4 and 9.
//!
//! What a kernel does not have, or does not say, is `None`.

mod address;
mod decide;
mod enums;
mod ids;
mod options;
mod state;
mod update;

pub use address::{Address, AddressPair, InvalidAddress};
pub use decide::{DemotionRisk, Generations, Obstacle, Relation, ResyncProgress, split_brain};
pub use enums::{
    AfterSplitBrain, ConnectionState, DiskState, FencingPolicy, OnCongestion, OnIoError, OnNoData,
    OnSuspendedPrimaryOutdated, Protocol, ReadBalancing, ReplicationState, Role, RrConflict,
    TimeoutType, UnknownWord, WriteOrdering,
};
pub use ids::{
    InvalidName, Minor, NodeId, ResourceName, Secret, Sectors, Text, Uuid, VolumeNumber,
};
#[cfg(feature = "serde")]
pub(crate) use options::Shown;
pub use options::{
    DeviceOptions, DiskOptions, InvalidateOptions, InvalidatePeerOptions, KeySerial, NetOptions,
    NewUuidOptions, OptionError, OptionInfo, PeerDeviceOptions, Quorum, Rejected, ResizeOptions,
    ResourceOptions, ResyncAfter, Setting, SuspendIoOptions, Unit, UnknownAttr, VerifyOptions,
};
pub use state::{
    Connection, ConnectionInfo, ConnectionStatistics, Device, DeviceInfo, DeviceStatistics,
    DiskFlags, MetaDisk, Path, PeerDevice, PeerDeviceFlags, PeerDeviceInfo, PeerDeviceStatistics,
    Resource, ResourceInfo, ResourceStatistics, ResyncSuspended, State, Suspended,
};
pub(crate) use update::{make_room, set};
