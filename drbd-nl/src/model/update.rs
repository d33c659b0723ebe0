//! How the model changes: by what dumps and events say about an object.

use super::ids::NodeId;
use super::state::{
    Connection, ConnectionInfo, Device, DeviceInfo, PeerDevice, PeerDeviceInfo, Resource,
    ResourceInfo, State,
};

impl State {
    /// Puts everything into its documented order.
    pub(crate) fn sort(&mut self) {
        self.resources.sort_by(|a, b| a.name.cmp(&b.name));
        for resource in &mut self.resources {
            resource.devices.sort_by_key(|device| device.volume);
            resource
                .connections
                .sort_by_key(|connection| connection.peer_node_id);
            for connection in &mut resource.connections {
                connection.peer_devices.sort_by_key(|peer| peer.volume);
            }
        }
    }
}

/// Makes room for one more. Nearly all lists of the model have one item, and
/// would get room for four.
pub(crate) fn make_room<T>(list: &mut Vec<T>) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
}

/// Puts a value in its place; whether that makes a difference.
pub(crate) fn set<T: PartialEq>(place: &mut T, value: T) -> bool {
    let differs = *place != value;
    if differs {
        *place = value;
    }
    differs
}

impl Resource {
    pub(crate) fn update(&mut self, info: ResourceInfo) -> bool {
        set(&mut self.role, info.role)
            | set(&mut self.suspended, info.suspended)
            | set(&mut self.fail_io, info.fail_io)
    }

    /// The connection to this peer; on 8.4, which has no ids, the only one.
    pub(crate) fn connection_mut(&mut self, peer: Option<NodeId>) -> Option<&mut Connection> {
        self.connections
            .iter_mut()
            .find(|connection| connection.peer_node_id == peer)
    }
}

impl Device {
    pub(crate) fn update(&mut self, info: DeviceInfo) -> bool {
        set(&mut self.disk_state, info.disk_state)
            | set(&mut self.intentional_diskless, info.intentional_diskless)
            | set(&mut self.quorum, info.quorum)
            | set(&mut self.open, info.open)
            // 8.4 does not say it here; a dump may have said it before.
            | (info.backing_dev.is_some() && set(&mut self.backing_dev, info.backing_dev))
    }
}

impl Connection {
    pub(crate) fn update(&mut self, info: ConnectionInfo) -> bool {
        set(&mut self.state, info.state) | set(&mut self.peer_role, info.peer_role)
    }
}

impl PeerDevice {
    pub(crate) fn update(&mut self, info: PeerDeviceInfo) -> bool {
        set(&mut self.replication, info.replication)
            | set(&mut self.peer_disk_state, info.peer_disk_state)
            | set(&mut self.resync_suspended, info.resync_suspended)
            | set(
                &mut self.peer_intentional_diskless,
                info.peer_intentional_diskless,
            )
    }
}
