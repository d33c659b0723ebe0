//! Decisions as pure functions of the model: may this node be Primary, how
//! well would it do, is it safe to stop, did the two sides part, how long
//! will the resync take.

use super::enums::{ConnectionState, DiskState, ReplicationState, Role};
use super::ids::{Sectors, Uuid, VolumeNumber};
use super::state::{PeerDevice, Resource};
use std::fmt;
use std::time::Duration;

/// What keeps a node from being Primary.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Obstacle {
    /// The resource has no volumes.
    NoVolumes,
    /// It was demoted by force and fails I/O until its holders are gone.
    FailsIo,
    /// A volume has no quorum.
    NoQuorum(VolumeNumber),
    /// A volume has no current and stable data, here or at a peer.
    NoCurrentData(VolumeNumber),
    /// This node is Primary already.
    PrimaryHere,
    /// A peer is Primary.
    PrimaryThere(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVolumes => f.write_str("there are no volumes"),
            Self::FailsIo => f.write_str("I/O fails since it was demoted by force"),
            Self::NoQuorum(volume) => write!(f, "volume {volume} has no quorum"),
            Self::NoCurrentData(volume) => {
                write!(f, "volume {volume} has no current data, here or at a peer")
            }
            Self::PrimaryHere => f.write_str("this node is Primary already"),
            Self::PrimaryThere(peer) => write!(f, "{peer} is Primary"),
        }
    }
}

/// What speaks against making a Primary Secondary.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum DemotionRisk {
    /// A volume is open: DRBD would refuse.
    Open(VolumeNumber),
    /// I/O is frozen: who closes the device may wait for ever.
    Suspended,
    /// No peer is connected: the data exists here alone.
    NoPeer,
    /// A peer's copy is not current.
    PeerBehind {
        /// The volume.
        volume: VolumeNumber,
        /// The peer.
        peer: String,
        /// State of its disk.
        disk_state: DiskState,
    },
    /// A peer has not answered everything yet.
    InFlight {
        /// The volume.
        volume: VolumeNumber,
        /// The peer.
        peer: String,
        /// Requests.
        requests: u32,
    },
}

impl fmt::Display for DemotionRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(volume) => write!(f, "volume {volume} is open"),
            Self::Suspended => f.write_str("I/O is frozen"),
            Self::NoPeer => f.write_str("no peer is connected"),
            Self::PeerBehind {
                volume,
                peer,
                disk_state,
            } => write!(f, "volume {volume} is {disk_state} on {peer}"),
            Self::InFlight {
                volume,
                peer,
                requests,
            } => write!(
                f,
                "{peer} has not answered {requests} requests on volume {volume}"
            ),
        }
    }
}

/// `UUID_FLAG_STABLE`: the peer is not the target of a resync, nor does it
/// depend on one that is.
const UUID_FLAG_STABLE: u64 = 1 << 5;

impl PeerDevice {
    /// Whether the peer's data rests on itself; 8.4 does not say.
    #[must_use]
    pub fn peer_stable(&self) -> Option<bool> {
        let flags = self.statistics.uuid_flags?;
        Some(flags & UUID_FLAG_STABLE != 0)
    }

    /// Whether the peer has current data to offer.
    fn offers_data(&self) -> bool {
        self.peer_disk_state == DiskState::UpToDate && self.peer_stable() != Some(false)
    }
}

impl Resource {
    fn peer_devices(&self, volume: VolumeNumber) -> impl Iterator<Item = &PeerDevice> {
        self.connections
            .iter()
            .flat_map(|connection| &connection.peer_devices)
            .filter(move |peer| peer.volume == volume)
    }

    /// Whether this node could be made Primary now, as `drbdsetup events2`
    /// shows it (`may_promote`). DRBD has the last word.
    #[must_use]
    pub fn may_promote(&self) -> bool {
        self.promotion_obstacles().is_empty()
    }

    /// Why [`Resource::may_promote`] says no: all of it.
    #[must_use]
    pub fn promotion_obstacles(&self) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        if self.role == Role::Primary {
            obstacles.push(Obstacle::PrimaryHere);
        }
        for connection in &self.connections {
            if connection.peer_role == Role::Primary {
                obstacles.push(Obstacle::PrimaryThere(connection.to_string()));
            }
        }
        if self.fail_io == Some(true) {
            obstacles.push(Obstacle::FailsIo);
        }
        if self.devices.is_empty() {
            obstacles.push(Obstacle::NoVolumes);
        }
        for device in &self.devices {
            if device.quorum == Some(false) {
                obstacles.push(Obstacle::NoQuorum(device.volume));
            }
            let current = device.disk_state == DiskState::UpToDate
                || self
                    .peer_devices(device.volume)
                    .any(PeerDevice::offers_data);
            if !current {
                obstacles.push(Obstacle::NoCurrentData(device.volume));
            }
        }
        obstacles
    }

    /// How well this node would do as Primary, compared with another node's
    /// value: drbdsetup's `promotion_score`. A disk of its own for every
    /// volume counts 10000, each current one 100, current copies anywhere 1.
    /// 0 when a volume has no current copy at all, or no quorum.
    #[must_use]
    pub fn promotion_score(&self) -> u32 {
        let mut local = 0u32;
        let mut fewest = u32::MAX;
        let mut all_disks = true;
        for device in &self.devices {
            let here = u32::from(device.disk_state == DiskState::UpToDate);
            let there = self
                .peer_devices(device.volume)
                .filter(|peer| peer.peer_disk_state == DiskState::UpToDate)
                .count();
            let copies = here.saturating_add(u32::try_from(there).unwrap_or(u32::MAX));
            local += here;
            fewest = fewest.min(copies);
            all_disks &= matches!(
                device.disk_state,
                DiskState::Inconsistent | DiskState::Consistent | DiskState::UpToDate
            );
        }
        let quorum = self.devices.iter().all(|d| d.quorum != Some(false));
        if self.devices.is_empty() || fewest == 0 || !quorum {
            return 0;
        }
        10_000 * u32::from(all_disks) + 100 * local.min(99) + fewest.min(99)
    }

    /// What speaks against demoting this node: nothing, when the resource
    /// can be taken over elsewhere without loss. Empty on a Secondary.
    ///
    /// Whether a volume is open is known on DRBD 9.2.11 and later; before,
    /// DRBD's refusal tells.
    #[must_use]
    pub fn demotion_risks(&self) -> Vec<DemotionRisk> {
        let mut risks = Vec::new();
        if self.role != Role::Primary {
            return risks;
        }
        if self.suspended.any() {
            risks.push(DemotionRisk::Suspended);
        }
        for device in &self.devices {
            if device.open == Some(true) {
                risks.push(DemotionRisk::Open(device.volume));
            }
        }
        let connected = |state| state == ConnectionState::Connected;
        if !self.connections.iter().any(|c| connected(c.state)) {
            risks.push(DemotionRisk::NoPeer);
        }
        for connection in self.connections.iter().filter(|c| connected(c.state)) {
            for peer in &connection.peer_devices {
                // A client has no copy, and is none the worse for it.
                if peer.peer_intentional_diskless == Some(true) {
                    continue;
                }
                let (volume, name) = (peer.volume, connection.to_string());
                if peer.peer_disk_state != DiskState::UpToDate {
                    risks.push(DemotionRisk::PeerBehind {
                        volume,
                        peer: name,
                        disk_state: peer.peer_disk_state,
                    });
                } else if peer.statistics.pending > 0 {
                    risks.push(DemotionRisk::InFlight {
                        volume,
                        peer: name,
                        requests: peer.statistics.pending,
                    });
                }
            }
        }
        risks
    }

    /// Whether [`Resource::demotion_risks`] has nothing to say.
    #[must_use]
    pub fn safe_to_demote(&self) -> bool {
        self.demotion_risks().is_empty()
    }

    /// The data generations of a volume, towards its first peer; `None`
    /// without a disk.
    #[must_use]
    pub fn generations(&self, volume: VolumeNumber) -> Option<Generations> {
        let device = self.device(volume)?;
        let current = device.statistics.current_uuid?;
        let over_connection = self
            .peer_devices(volume)
            .find_map(|peer| peer.statistics.bitmap_uuid);
        Some(Generations {
            current,
            bitmap: over_connection.or(device.bitmap_uuid),
            history: device.statistics.history_uuids.clone(),
        })
    }
}

/// The data generations that one node has stored for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Generations {
    /// What its data is.
    pub current: Uuid,
    /// Since which generation the bitmap counts what the peer lacks.
    pub bitmap: Option<Uuid>,
    /// What its data was before, newest first.
    pub history: Vec<Uuid>,
}

/// How the data of two nodes is related. Whether both wrote on their own is
/// what matters; a resync needs nothing else but a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Relation {
    /// Neither has ever held data.
    BothNew,
    /// The same generation.
    Same,
    /// Ours came out of theirs: they would be resynced.
    OursIsNewer,
    /// Theirs came out of ours: we would be resynced.
    TheirsIsNewer,
    /// **Both came out of the same one, and went on separately.**
    SplitBrain,
    /// They have nothing in common.
    Unrelated,
}

impl Generations {
    /// Compares what two nodes have, as DRBD does when they meet.
    #[must_use]
    pub fn relation(&self, theirs: &Self) -> Relation {
        match (
            self.current.is_just_created(),
            theirs.current.is_just_created(),
        ) {
            (true, true) => return Relation::BothNew,
            (true, false) => return Relation::TheirsIsNewer,
            (false, true) => return Relation::OursIsNewer,
            (false, false) => {}
        }
        if self.current.same_generation(theirs.current) {
            return Relation::Same;
        }
        let was = |side: &Self, uuid: Uuid| {
            side.bitmap
                .iter()
                .chain(&side.history)
                .any(|u| u.same_generation(uuid))
        };
        match (was(self, theirs.current), was(theirs, self.current)) {
            (true, false) => Relation::OursIsNewer,
            (false, true) => Relation::TheirsIsNewer,
            // Each believes that it went on from the other.
            (true, true) => Relation::SplitBrain,
            (false, false) => {
                let common = self
                    .bitmap
                    .iter()
                    .chain(&self.history)
                    .any(|u| was(theirs, *u));
                if common {
                    Relation::SplitBrain
                } else {
                    Relation::Unrelated
                }
            }
        }
    }
}

/// The volumes of a resource on which two nodes have parted, given how each
/// of them sees the resource.
#[must_use]
pub fn split_brain(ours: &Resource, theirs: &Resource) -> Vec<VolumeNumber> {
    ours.devices
        .iter()
        .filter_map(|device| {
            let here = ours.generations(device.volume)?;
            let there = theirs.generations(device.volume)?;
            (here.relation(&there) == Relation::SplitBrain).then_some(device.volume)
        })
        .collect()
}

/// How far a resync or verify is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ResyncProgress {
    /// What is left to do.
    pub left: Sectors,
    /// What there was at the start; `None` where the kernel does not say.
    pub total: Option<Sectors>,
    /// Sectors a second, of late; `None` where the kernel does not say (8.4),
    /// or nothing was done yet.
    pub rate: Option<Sectors>,
    /// When it will be done, if it goes on like that.
    pub remaining: Option<Duration>,
}

impl ResyncProgress {
    /// How much is done, 0 to 100; `None` when the total is not known.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "a percentage needs no more than f64 holds"
    )]
    pub fn percent(&self) -> Option<f64> {
        let total = self.total?.0;
        if total == 0 {
            return Some(100.0);
        }
        let left = self.left.0.min(total);
        Some(100.0 * (total - left) as f64 / total as f64)
    }

    /// Rate and remaining time from two readings, where the kernel gives
    /// none: `earlier` was taken `elapsed` before.
    #[must_use]
    pub fn since(mut self, earlier: &Self, elapsed: Duration) -> Self {
        let done = earlier.left.0.saturating_sub(self.left.0);
        let window = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        (self.rate, self.remaining) = pace(self.left, Some((window, Sectors(done))));
        self
    }
}

/// Rate and remaining time, from how much was done in how many ms.
fn pace(left: Sectors, window: Option<(u64, Sectors)>) -> (Option<Sectors>, Option<Duration>) {
    let Some((millis, Sectors(done))) = window.filter(|(millis, done)| *millis > 0 && done.0 > 0)
    else {
        return (None, None);
    };
    let (wide, millis) = (u128::from(done), u128::from(millis));
    let rate = u64::try_from(wide * 1000 / millis).unwrap_or(u64::MAX);
    let remaining = u64::try_from(millis * u128::from(left.0) / wide).unwrap_or(u64::MAX);
    (Some(Sectors(rate)), Some(Duration::from_millis(remaining)))
}

impl PeerDevice {
    /// How far the running resync or verify is; `None` when there is none.
    ///
    /// 8.4 says how much there was at the start in a
    /// [`snapshot`](crate::Drbd::snapshot) only, and nothing about the rate:
    /// take two readings ([`ResyncProgress::since`]).
    #[must_use]
    pub fn progress(&self) -> Option<ResyncProgress> {
        let verify = matches!(
            self.replication,
            ReplicationState::VerifyS | ReplicationState::VerifyT
        );
        let sync = matches!(
            self.replication,
            ReplicationState::SyncSource
                | ReplicationState::SyncTarget
                | ReplicationState::PausedSyncS
                | ReplicationState::PausedSyncT
        );
        if !verify && !sync {
            return None;
        }
        let s = &self.statistics;
        let left = if verify {
            s.verify_left?
        } else {
            Sectors(s.out_of_sync.0.saturating_sub(s.resync_failed.0))
        };
        let (rate, remaining) = pace(left, s.resync_recent_long);
        Some(ResyncProgress {
            left,
            total: s.resync_total,
            rate,
            remaining,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::ids::{Minor, ResourceName};
    use super::super::state::{Connection, Device};
    use super::*;
    use proptest::prelude::*;

    fn generations(current: u64, bitmap: u64, history: &[u64]) -> Generations {
        Generations {
            current: Uuid(current),
            bitmap: Uuid::from_wire(bitmap),
            history: history.iter().map(|uuid| Uuid(*uuid)).collect(),
        }
    }

    #[test]
    fn relations() {
        let new = generations(4, 0, &[]);
        let old = generations(0x10, 0, &[0x8]);
        for (ours, theirs, relation) in [
            (&new, &new, Relation::BothNew),
            (&new, &old, Relation::TheirsIsNewer),
            (&old, &generations(0x11, 0, &[]), Relation::Same),
            (
                &generations(0x20, 0x10, &[0x8]),
                &old,
                Relation::OursIsNewer,
            ),
            (
                &old,
                &generations(0x20, 0, &[0x10]),
                Relation::TheirsIsNewer,
            ),
            // Both went on from 0x10.
            (
                &generations(0x20, 0x10, &[]),
                &generations(0x30, 0x11, &[]),
                Relation::SplitBrain,
            ),
            (
                &generations(0x20, 0, &[0x10]),
                &generations(0x30, 0x10, &[]),
                Relation::SplitBrain,
            ),
            (
                &generations(0x20, 0, &[0x12]),
                &generations(0x30, 0, &[]),
                Relation::Unrelated,
            ),
        ] {
            assert_eq!(ours.relation(theirs), relation, "{ours:?} {theirs:?}");
        }
    }

    fn resource(role: Role, disks: &[DiskState]) -> Resource {
        let mut resource = Resource::new(ResourceName::new("r0").unwrap());
        resource.role = role;
        for (volume, disk) in (0..).zip(disks) {
            let mut device = Device::new(Minor(volume), VolumeNumber(volume));
            device.disk_state = *disk;
            resource.devices.push(device);
        }
        resource
    }

    fn with_peer(mut resource: Resource, role: Role, disk: DiskState) -> Resource {
        let mut connection = Connection::new(None);
        connection.state = ConnectionState::Connected;
        connection.peer_role = role;
        for device in &resource.devices {
            let mut peer = PeerDevice::new(device.volume);
            peer.peer_disk_state = disk;
            connection.peer_devices.push(peer);
        }
        resource.connections.push(connection);
        resource
    }

    #[test]
    fn promotion() {
        use DiskState::{Diskless, Inconsistent, UpToDate};
        let alone = resource(Role::Secondary, &[UpToDate, UpToDate]);
        assert!(alone.may_promote());
        assert_eq!(alone.promotion_score(), 10_201);
        let client = with_peer(
            resource(Role::Secondary, &[Diskless]),
            Role::Secondary,
            UpToDate,
        );
        assert!(client.may_promote());
        assert_eq!(client.promotion_score(), 1);
        let mut target = client.clone();
        target.connections[0].peer_devices[0].statistics.uuid_flags = Some(0);
        assert_eq!(
            target.promotion_obstacles(),
            [Obstacle::NoCurrentData(VolumeNumber(0))]
        );
        let half = resource(Role::Secondary, &[UpToDate, Inconsistent]);
        assert!(!half.may_promote());
        assert_eq!(half.promotion_score(), 0);
        let served = with_peer(alone, Role::Primary, UpToDate);
        assert_eq!(
            served.promotion_obstacles()[0].to_string(),
            "the peer is Primary"
        );
        assert_eq!(
            resource(Role::Secondary, &[]).promotion_obstacles(),
            [Obstacle::NoVolumes]
        );
    }

    #[test]
    fn demotion() {
        use DiskState::{Inconsistent, UpToDate};
        let alone = resource(Role::Primary, &[UpToDate]);
        assert_eq!(alone.demotion_risks(), [DemotionRisk::NoPeer]);
        assert!(with_peer(alone.clone(), Role::Secondary, UpToDate).safe_to_demote());
        let mut behind = with_peer(alone, Role::Secondary, Inconsistent);
        behind.devices[0].open = Some(true);
        let words: Vec<_> = behind
            .demotion_risks()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            words,
            ["volume 0 is open", "volume 0 is Inconsistent on the peer"]
        );
        assert!(resource(Role::Secondary, &[Inconsistent]).safe_to_demote());
    }

    #[test]
    fn every_obstacle_is_named() {
        let mut r = with_peer(
            resource(
                Role::Primary,
                &[DiskState::Inconsistent, DiskState::UpToDate],
            ),
            Role::Primary,
            DiskState::Outdated,
        );
        r.connections[0].name = Some("n2".into());
        r.fail_io = Some(true);
        r.devices[0].quorum = Some(true);
        r.devices[1].quorum = Some(false);
        assert!(!r.may_promote());
        let words: Vec<_> = r
            .promotion_obstacles()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            words,
            [
                "this node is Primary already",
                "n2 is Primary",
                "I/O fails since it was demoted by force",
                "volume 0 has no current data, here or at a peer",
                "volume 1 has no quorum",
            ]
        );
        let empty = resource(Role::Secondary, &[]).promotion_obstacles();
        assert_eq!(empty[0].to_string(), "there are no volumes");
        r = resource(Role::Secondary, &[DiskState::UpToDate]);
        r.fail_io = Some(false);
        assert!(r.may_promote());
    }

    /// A peer that is current but rests on another one's data has none to
    /// offer; 8.4 does not say, and then it counts. Nor does another volume's.
    #[test]
    fn who_offers_data() {
        let mut r = with_peer(
            resource(Role::Secondary, &[DiskState::Diskless]),
            Role::Secondary,
            DiskState::UpToDate,
        );
        for (flags, stable) in [
            (None, None),
            (Some(0), Some(false)),
            (Some(1 << 5), Some(true)),
            (Some(!(1 << 5)), Some(false)),
            (Some(u64::MAX), Some(true)),
        ] {
            let peer = &mut r.connections[0].peer_devices[0];
            peer.statistics.uuid_flags = flags;
            assert_eq!(peer.peer_stable(), stable, "{flags:?}");
            assert_eq!(r.may_promote(), stable != Some(false), "{flags:?}");
        }
        r.connections[0].peer_devices[0].peer_disk_state = DiskState::Consistent;
        assert!(!r.may_promote());
        r.connections[0].peer_devices[0].peer_disk_state = DiskState::UpToDate;
        r.connections[0].peer_devices[0].volume = VolumeNumber(1);
        assert!(!r.may_promote());
        assert_eq!(r.promotion_score(), 0);
    }

    #[test]
    fn scores() {
        use DiskState::{Consistent, Diskless, Failed, Inconsistent, Outdated, UpToDate};
        let score = |here: &[DiskState], there: DiskState| {
            with_peer(resource(Role::Secondary, here), Role::Secondary, there).promotion_score()
        };
        assert_eq!(score(&[], UpToDate), 0);
        assert_eq!(score(&[UpToDate], UpToDate), 10_102);
        assert_eq!(score(&[UpToDate], Outdated), 10_101);
        assert_eq!(score(&[UpToDate, UpToDate], UpToDate), 10_202);
        assert_eq!(score(&[Inconsistent], UpToDate), 10_001);
        assert_eq!(score(&[Consistent], UpToDate), 10_001);
        for none in [Outdated, Diskless, Failed] {
            assert_eq!(score(&[none], UpToDate), 1, "{none}");
        }
        // The volume with the fewest copies counts, and every volume has to have a disk.
        assert_eq!(score(&[UpToDate, Diskless], UpToDate), 101);
        assert_eq!(score(&[UpToDate, Inconsistent], Inconsistent), 0);
        let mut without = resource(Role::Secondary, &[UpToDate, UpToDate]);
        without.devices[1].quorum = Some(true);
        assert_eq!(without.promotion_score(), 10_201);
        without.devices[1].quorum = Some(false);
        assert_eq!(without.promotion_score(), 0);
        assert_eq!(
            resource(Role::Secondary, &[UpToDate; 120]).promotion_score(),
            19_901
        );
    }

    #[test]
    fn every_risk_is_named() {
        let mut r = with_peer(
            resource(Role::Primary, &[DiskState::UpToDate; 3]),
            Role::Secondary,
            DiskState::UpToDate,
        );
        r.connections[0].name = Some("n2".into());
        r.devices[0].open = Some(false);
        assert!(r.safe_to_demote());
        r.suspended.no_data = true;
        r.devices[1].open = Some(true);
        let peers = &mut r.connections[0].peer_devices;
        peers[0].peer_disk_state = DiskState::Outdated;
        // Not counted twice.
        peers[0].statistics.pending = 2;
        peers[1].statistics.pending = 3;
        // A client has no copy.
        peers[2].peer_disk_state = DiskState::Diskless;
        peers[2].peer_intentional_diskless = Some(true);
        let words: Vec<_> = r.demotion_risks().iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "I/O is frozen",
                "volume 1 is open",
                "volume 0 is Outdated on n2",
                "n2 has not answered 3 requests on volume 1",
            ]
        );
        r.connections[0].peer_devices[2].peer_intentional_diskless = Some(false);
        assert_eq!(r.demotion_risks().len(), 5);
        // Who is not connected has nothing to say.
        r.connections[0].state = ConnectionState::Connecting;
        let words: Vec<_> = r.demotion_risks().iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            ["I/O is frozen", "volume 1 is open", "no peer is connected"]
        );
        assert!(!r.safe_to_demote());
        r.role = Role::Secondary;
        assert!(r.safe_to_demote());
    }

    /// A resource whose first volume has these generations.
    fn with_generations(current: u64, bitmap: u64, history: &[u64]) -> Resource {
        let mut r = with_peer(
            resource(Role::Secondary, &[DiskState::UpToDate, DiskState::UpToDate]),
            Role::Secondary,
            DiskState::UpToDate,
        );
        let statistics = &mut r.devices[0].statistics;
        statistics.current_uuid = Uuid::from_wire(current);
        statistics.history_uuids = history.iter().map(|uuid| Uuid(*uuid)).collect();
        r.connections[0].peer_devices[0].statistics.bitmap_uuid = Uuid::from_wire(bitmap);
        r
    }

    #[test]
    fn generations_of_a_volume() {
        let mut r = with_generations(0x20, 0x10, &[8]);
        let volume = VolumeNumber(0);
        assert_eq!(r.generations(volume), Some(generations(0x20, 0x10, &[8])));
        // What 8.4 says of a volume that is not connected.
        r.devices[0].bitmap_uuid = Some(Uuid(0x18));
        assert_eq!(r.generations(volume), Some(generations(0x20, 0x10, &[8])));
        r.connections.clear();
        assert_eq!(r.generations(volume), Some(generations(0x20, 0x18, &[8])));
        assert_eq!(r.generations(VolumeNumber(1)), None);
        assert_eq!(r.generations(VolumeNumber(7)), None);
    }

    #[test]
    fn volumes_that_have_parted() {
        let ours = with_generations(0x20, 0x10, &[]);
        let parted = with_generations(0x30, 0x10, &[]);
        assert_eq!(split_brain(&ours, &parted), [VolumeNumber(0)]);
        assert_eq!(split_brain(&ours, &ours), []);
        assert_eq!(split_brain(&ours, &with_generations(0x10, 0, &[])), []);
        assert_eq!(split_brain(&ours, &resource(Role::Secondary, &[])), []);
        // Each believes that it went on from the other.
        let (one, other) = (generations(0x20, 0x30, &[]), generations(0x30, 0x20, &[]));
        assert_eq!(one.relation(&other), Relation::SplitBrain);
    }

    #[test]
    fn progress_of_every_state() {
        use ReplicationState as R;
        let mut peer = PeerDevice::new(VolumeNumber(0));
        peer.statistics.out_of_sync = Sectors(300);
        peer.statistics.resync_failed = Sectors(100);
        peer.statistics.resync_total = Some(Sectors(400));
        for sync in [R::SyncSource, R::SyncTarget, R::PausedSyncS, R::PausedSyncT] {
            peer.replication = sync;
            let progress = peer.progress().unwrap();
            assert_eq!(
                (progress.left, progress.percent()),
                (Sectors(200), Some(50.0))
            );
        }
        for verify in [R::VerifyS, R::VerifyT] {
            peer.replication = verify;
            peer.statistics.verify_left = None;
            assert_eq!(peer.progress(), None);
            peer.statistics.verify_left = Some(Sectors(100));
            let progress = peer.progress().unwrap();
            assert_eq!(
                (progress.left, progress.percent()),
                (Sectors(100), Some(75.0))
            );
        }
        for idle in [R::Off, R::Established, R::WFBitMapS, R::Ahead, R::Behind] {
            peer.replication = idle;
            assert_eq!(peer.progress(), None, "{idle}");
        }
    }

    #[test]
    fn percents_and_paces() {
        let progress = |left, total: Option<u64>| ResyncProgress {
            left: Sectors(left),
            total: total.map(Sectors),
            rate: None,
            remaining: None,
        };
        assert_eq!(progress(1, None).percent(), None);
        assert_eq!(progress(0, Some(0)).percent(), Some(100.0));
        assert_eq!(progress(9, Some(8)).percent(), Some(0.0));
        assert_eq!(progress(2, Some(8)).percent(), Some(75.0));
        let window = |millis, done| pace(Sectors(600), Some((millis, Sectors(done))));
        assert_eq!(pace(Sectors(600), None), (None, None));
        assert_eq!(window(0, 5), (None, None));
        assert_eq!(window(5, 0), (None, None));
        let minute = Some(Duration::from_secs(60));
        assert_eq!(window(1000, 10), (Some(Sectors(10)), minute));
        assert_eq!(
            window(1, 1),
            (Some(Sectors(1000)), Some(Duration::from_millis(600)))
        );
        // Nothing was done in between, or it grew.
        let read = progress(20, None).since(&progress(10, None), Duration::from_secs(1));
        assert_eq!((read.rate, read.remaining), (None, None));
        let read = progress(10, None).since(&progress(30, None), Duration::from_secs(2));
        assert_eq!(read.rate, Some(Sectors(10)));
        assert_eq!(read.remaining, Some(Duration::from_secs(1)));
    }

    #[test]
    fn remaining_time() {
        let mut peer = PeerDevice::new(VolumeNumber(0));
        assert_eq!(peer.progress(), None);
        peer.replication = ReplicationState::SyncTarget;
        peer.statistics.out_of_sync = Sectors(3000);
        peer.statistics.resync_total = Some(Sectors(4000));
        let before = peer.progress().unwrap();
        assert_eq!((before.rate, before.remaining), (None, None));
        assert_eq!(before.percent(), Some(25.0));
        peer.statistics.resync_recent_long = Some((2000, Sectors(1000)));
        let now = peer.progress().unwrap();
        assert_eq!(now.rate, Some(Sectors(500)));
        assert_eq!(now.remaining, Some(Duration::from_secs(6)));
        peer.statistics.out_of_sync = Sectors(2000);
        peer.statistics.resync_recent_long = None;
        let read = peer
            .progress()
            .unwrap()
            .since(&before, Duration::from_secs(2));
        assert_eq!(read.remaining, Some(Duration::from_secs(4)));
    }

    proptest! {
        /// Seen from the other side it is the mirror image, whatever it is.
        #[test]
        fn a_relation_has_two_sides(
            a in (1u64..12, 0u64..12, proptest::collection::vec(1u64..12, 0..3)),
            b in (1u64..12, 0u64..12, proptest::collection::vec(1u64..12, 0..3)),
        ) {
            let a = generations(a.0, a.1, &a.2);
            let b = generations(b.0, b.1, &b.2);
            let mirrored = match b.relation(&a) {
                Relation::OursIsNewer => Relation::TheirsIsNewer,
                Relation::TheirsIsNewer => Relation::OursIsNewer,
                other => other,
            };
            prop_assert_eq!(a.relation(&b), mirrored);
        }

        #[test]
        fn no_numbers_break_the_pace(left: u64, millis: u64, done: u64) {
            let _ = pace(Sectors(left), Some((millis, Sectors(done))));
        }
    }
}
