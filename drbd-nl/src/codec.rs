//! Reads any datagram of DRBD's family, without a socket.
//!
//! For captured traffic, for tests and for fuzzing; the client and the
//! watcher go through the same decoders.

use crate::dialect::Dialect;
use crate::dialect::decode::Message;
use crate::events::{Event, LegacyEvent};
use crate::model::{
    AddressPair, ConnectionInfo, ConnectionStatistics, DeviceInfo, DeviceOptions, DeviceStatistics,
    DiskOptions, MetaDisk, Minor, NetOptions, NodeId, Path, PeerDeviceInfo, PeerDeviceOptions,
    PeerDeviceStatistics, ResourceInfo, ResourceName, ResourceOptions, ResourceStatistics, Text,
    TimeoutType, VolumeNumber,
};
use crate::schema::cmd;
use crate::wire::{Control, Endian, Messages, WireError};
use std::path::PathBuf;

/// One message, read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "as for `EventKind`")]
pub enum Decoded {
    /// The end of a dump, an error, an acknowledgement.
    Control(Control),
    /// Of another family; the number is its id.
    Foreign(u16),
    /// A notification or part of the initial state.
    Event(Event),
    /// The answer to a request, or one object of a dump.
    Reply(Box<Reply>),
}

/// An answer: everything that may be in one, whatever the command.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the nests of a message, typed as in `model`"
)]
pub struct Reply {
    pub command: u8,
    pub minor: Option<Minor>,
    pub ret_code: i32,
    pub info: Vec<Text>,
    pub resource_name: Option<ResourceName>,
    pub volume: Option<VolumeNumber>,
    pub peer_node_id: Option<NodeId>,
    pub connection_name: Option<Text>,
    pub addresses: Option<AddressPair>,
    pub resource: Option<ResourceInfo>,
    pub resource_statistics: Option<ResourceStatistics>,
    pub resource_options: Option<ResourceOptions>,
    pub node_id: Option<NodeId>,
    pub device: Option<DeviceInfo>,
    pub device_statistics: Option<DeviceStatistics>,
    pub device_options: Option<DeviceOptions>,
    pub disk: Option<(PathBuf, MetaDisk, DiskOptions)>,
    pub connection: Option<ConnectionInfo>,
    pub connection_statistics: Option<ConnectionStatistics>,
    pub net_options: Option<NetOptions>,
    pub paths: Vec<Path>,
    pub path_established: Option<bool>,
    pub peer_device: Option<PeerDeviceInfo>,
    pub peer_device_statistics: Option<PeerDeviceStatistics>,
    pub peer_device_options: Option<PeerDeviceOptions>,
    pub timeout_type: Option<TimeoutType>,
    pub status84: Option<Box<LegacyEvent>>,
}

/// Reads every message in a datagram that came from a kernel of byte order
/// `E` whose DRBD family has this id.
///
/// # Errors
/// At the first byte that breaks the format. Unknown commands, attributes
/// and values are no errors.
pub fn decode<E: Endian>(
    dialect: Dialect,
    family: u16,
    datagram: &[u8],
) -> Result<Vec<Decoded>, WireError> {
    let mut decoded = Vec::new();
    for msg in Messages::<E>::new(datagram) {
        let msg = msg?;
        decoded.push(match msg.control::<E>()? {
            Some(control) => Decoded::Control(control),
            None if msg.kind != family => Decoded::Foreign(msg.kind),
            None => {
                let message = Message::<E>::read(dialect, &msg)?;
                if is_event(message.command) {
                    Decoded::Event(message.event()?)
                } else {
                    Decoded::Reply(Box::new(reply(&message)?))
                }
            }
        });
    }
    Ok(decoded)
}

fn is_event(command: u8) -> bool {
    matches!(
        command,
        cmd::EVENT | cmd::RESOURCE_STATE
            ..=cmd::PEER_DEVICE_STATE | cmd::HELPER | cmd::INITIAL_STATE_DONE | cmd::PATH_STATE
    )
}

fn reply<E: Endian>(message: &Message<'_, E>) -> Result<Reply, WireError> {
    let context = message.context()?;
    let (resource_options, node_id) = message.resource_options()?;
    Ok(Reply {
        command: message.command,
        minor: message.minor,
        ret_code: message.ret_code,
        info: message.info_texts()?,
        resource_name: context.resource,
        volume: context.volume,
        peer_node_id: context.peer_node_id,
        connection_name: context.name,
        addresses: context.addresses,
        resource: message.resource()?,
        resource_statistics: message.resource_statistics()?,
        resource_options,
        node_id,
        device: message.device()?,
        device_statistics: message.device_statistics()?,
        device_options: message.device_options()?,
        disk: message.disk()?,
        connection: message.connection()?,
        connection_statistics: message.connection_statistics()?,
        net_options: message.net_options()?,
        paths: message.paths()?,
        path_established: message.path_established()?,
        peer_device: message.peer_device()?,
        peer_device_statistics: message.peer_device_statistics()?,
        peer_device_options: message.peer_device_options()?,
        timeout_type: message.timeout_type()?.map(TimeoutType::from),
        status84: message.status84()?,
    })
}
