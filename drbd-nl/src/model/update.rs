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

impl Resource {
    pub(crate) fn update(&mut self, info: &ResourceInfo) {
        self.role = info.role;
        self.suspended = info.suspended;
        self.fail_io = info.fail_io;
    }

    /// The connection to this peer; on 8.4, which has no ids, the only one.
    pub(crate) fn connection_mut(&mut self, peer: Option<NodeId>) -> Option<&mut Connection> {
        self.connections
            .iter_mut()
            .find(|connection| connection.peer_node_id == peer)
    }
}

impl Device {
    pub(crate) fn update(&mut self, info: &DeviceInfo) {
        self.disk_state = info.disk_state;
        self.intentional_diskless = info.intentional_diskless;
        self.quorum = info.quorum;
        self.open = info.open;
        // 8.4 does not say it here; a dump may have said it before.
        if info.backing_dev.is_some() {
            self.backing_dev.clone_from(&info.backing_dev);
        }
    }
}

impl Connection {
    pub(crate) fn update(&mut self, info: &ConnectionInfo) {
        self.state = info.state;
        self.peer_role = info.peer_role;
    }
}

impl PeerDevice {
    pub(crate) fn update(&mut self, info: &PeerDeviceInfo) {
        self.replication = info.replication;
        self.peer_disk_state = info.peer_disk_state;
        self.resync_suspended = info.resync_suspended;
        self.peer_intentional_diskless = info.peer_intentional_diskless;
    }
}
