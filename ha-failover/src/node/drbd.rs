//! DRBD's state in the words of the facts, and its errors in those of failures.

use drbd_nl::{ConnectionState, DiskState, ErrorKind, ReplicationState, VolumeNumber};

use crate::facts::{Disk, Drbd, Link, Replication, Role, VolumeFacts};
use crate::world::{Failure, FailureKind};

/// Reduces a resource to what the facts keep: one peer.
pub(crate) fn facts(resource: &drbd_nl::Resource) -> Drbd {
    let mut drbd = Drbd::bare();
    drbd.role = role(resource.role);
    drbd.auto_promote = resource.options.as_ref().and_then(|o| o.auto_promote);
    let suspended = &resource.suspended;
    if suspended.any() {
        let reasons: Vec<_> = [
            (suspended.user, "by an operator"),
            (suspended.no_data, "no data"),
            (suspended.fencing, "the fence-peer handler has not answered"),
            (suspended.quorum == Some(true), "no quorum"),
        ]
        .into_iter()
        .filter_map(|(is, reason)| is.then_some(reason))
        .collect();
        drbd.suspended = Some(reasons.join(", "));
    }
    let connection = resource.connections.first();
    if let Some(connection) = connection {
        drbd.link = Some(match connection.state {
            ConnectionState::StandAlone => Link::StandAlone,
            ConnectionState::Connected => Link::Connected,
            _ => Link::Connecting,
        });
        drbd.peer_role = role(connection.peer_role);
    }
    for device in &resource.devices {
        let VolumeNumber(number) = device.volume;
        let Ok(number) = u16::try_from(number) else {
            continue;
        };
        let peer = connection.and_then(|c| c.peer_device(device.volume));
        let mut volume = VolumeFacts::new(
            device.minor.0,
            disk(device.disk_state),
            peer.map_or(Disk::Unknown, |p| disk(p.peer_disk_state)),
        );
        volume.replication = peer.map_or(Replication::Idle, |p| replication(p.replication));
        volume.out_of_sync_kib = peer.map(|p| p.out_of_sync().0 / 2);
        volume.current_uuid = device.statistics.current_uuid.map(|u| u.0);
        volume.size = device.statistics.size.to_bytes();
        drbd.volumes.insert(number, volume);
    }
    drbd
}

fn role(role: drbd_nl::Role) -> Role {
    match role {
        drbd_nl::Role::Primary => Role::Primary,
        drbd_nl::Role::Secondary => Role::Secondary,
        drbd_nl::Role::Unknown => Role::Unknown,
        other => Role::Other(other.into()),
    }
}

fn disk(disk: DiskState) -> Disk {
    match disk {
        DiskState::Diskless => Disk::Diskless,
        DiskState::Attaching => Disk::Attaching,
        DiskState::Detaching => Disk::Detaching,
        DiskState::Failed => Disk::Failed,
        DiskState::Negotiating => Disk::Negotiating,
        DiskState::Inconsistent => Disk::Inconsistent,
        DiskState::Outdated => Disk::Outdated,
        DiskState::DUnknown => Disk::Unknown,
        DiskState::Consistent => Disk::Consistent,
        DiskState::UpToDate => Disk::UpToDate,
        DiskState::Other(n) => Disk::Other(n),
        _ => Disk::Other(u32::MAX),
    }
}

fn replication(state: ReplicationState) -> Replication {
    match state {
        ReplicationState::Off | ReplicationState::Established => Replication::Idle,
        ReplicationState::SyncSource => Replication::SyncSource,
        ReplicationState::SyncTarget => Replication::SyncTarget,
        _ => Replication::Busy,
    }
}

/// What a refused request means for a step.
pub(crate) fn failure(error: &drbd_nl::Error) -> Failure {
    let kind = match error.kind() {
        ErrorKind::PeerIsPrimary => FailureKind::PeerPrimary,
        _ => FailureKind::Failed,
    };
    let failure = Failure::new(kind, crate::error::chain(error));
    match error.kind() {
        ErrorKind::ModuleNotLoaded => failure.remedy("run `failover up`; it loads the module"),
        ErrorKind::Permission => failure.remedy("run it as root"),
        ErrorKind::MetadataUnclean => {
            failure.remedy("the activity log must be applied first; run `failover up` again")
        }
        ErrorKind::NoCurrentData => {
            failure.remedy("the local data is not current; connect to the node that has it")
        }
        ErrorKind::PeerIsPrimary => {
            failure.remedy("the peer is alive and serves; hand over from there")
        }
        _ => failure,
    }
}
