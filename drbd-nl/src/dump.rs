//! Reads the state: one dump for each class of object, joined by key.

use crate::dialect::Dialect;
use crate::dialect::request::Request;
use crate::exchange::{Exchange, Failure};
use crate::model::{
    Connection, Device, DiskState, Path, PeerDevice, Resource, State, Uuid, make_room,
};
use crate::schema::cmd;
use crate::socket::Transport;

/// How much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Resources and their devices.
    Devices,
    /// Resources and their connections.
    Connections,
    /// Everything.
    Full,
}

/// Reads the state once. The second value tells whether an object referred
/// to one that was not there, which means that something moved in between.
pub(crate) fn read<T: Transport>(
    exchange: &mut Exchange<T>,
    depth: Depth,
) -> Result<(State, bool), Failure> {
    let mut state = State::empty();
    let mut dangling = false;
    exchange.dump(cmd::GET_RESOURCES, |message| {
        let Some(name) = message.context()?.resource else {
            return Ok(());
        };
        let mut resource = Resource::new(name);
        if let Some(info) = message.resource()? {
            resource.update(info);
        }
        if let Some(statistics) = message.resource_statistics()? {
            resource.write_ordering = statistics.write_ordering;
        }
        (resource.options, resource.node_id) = message.resource_options()?;
        state.resources.push(resource);
        Ok(())
    })?;
    state.resources.sort_by(|a, b| a.name.cmp(&b.name));
    if matches!(depth, Depth::Devices | Depth::Full) {
        devices(exchange, &mut state, &mut dangling)?;
    }
    if matches!(depth, Depth::Connections | Depth::Full) {
        connections(exchange, &mut state, &mut dangling)?;
    }
    if depth == Depth::Full {
        peer_devices(exchange, &mut state, &mut dangling)?;
        if exchange.family.has(cmd::GET_PATHS) {
            paths(exchange, &mut state, &mut dangling)?;
        }
        if exchange.dialect() == Dialect::V84 {
            status84(exchange, &mut state)?;
        }
    }
    state.sort();
    Ok((state, dangling))
}

/// What 8.4's dumps leave out: the bitmap of a volume that is not connected,
/// and how much there was to resync.
fn status84<T: Transport>(exchange: &mut Exchange<T>, state: &mut State) -> Result<(), Failure> {
    for resource in &mut state.resources {
        for device in &mut resource.devices {
            let volume = device.volume;
            let mut peers = resource.connections.iter_mut().flat_map(|connection| {
                connection
                    .peer_devices
                    .iter_mut()
                    .filter(move |p| p.volume == volume)
            });
            let peer = peers.next();
            let wanted = peer.as_ref().is_none_or(|peer| peer.progress().is_some());
            if device.disk_state == DiskState::Diskless || !wanted {
                continue;
            }
            let request = Request::by_minor(Dialect::V84, cmd::GET_STATUS, device.minor);
            let status = match exchange.change(&request) {
                Ok(answer) => answer.status84,
                // The volume is gone meanwhile.
                Err(Failure::Error(error)) if error.ret_code().is_some() => None,
                Err(failure) => return Err(failure),
            };
            let Some(status) = status else { continue };
            match peer {
                Some(peer) => peer.statistics.resync_total = status.resync_total,
                None => {
                    let bitmap = status.uuids.get(1).copied();
                    device.bitmap_uuid = bitmap.and_then(Uuid::from_wire);
                    device.out_of_sync = status.out_of_sync;
                }
            }
        }
    }
    Ok(())
}

fn devices<T: Transport>(
    exchange: &mut Exchange<T>,
    state: &mut State,
    dangling: &mut bool,
) -> Result<(), Failure> {
    exchange.dump(cmd::GET_DEVICES, |message| {
        let context = message.context()?;
        let (Some(name), Some(volume), Some(minor)) =
            (context.resource, context.volume, message.minor)
        else {
            return Ok(());
        };
        let Some(resource) = state.by_name_mut(&name) else {
            *dangling = true;
            return Ok(());
        };
        let mut device = Device::new(minor, volume);
        if let Some(info) = message.device()? {
            device.update(info);
        }
        if let Some(statistics) = message.device_statistics()? {
            device.statistics = statistics;
        }
        device.device_options = message.device_options()?;
        if let Some((backing, meta, options)) = message.disk()? {
            device.backing_dev = Some(backing);
            device.meta_disk = Some(meta);
            device.options = Some(options);
        }
        make_room(&mut resource.devices);
        resource.devices.push(device);
        Ok(())
    })
}

fn connections<T: Transport>(
    exchange: &mut Exchange<T>,
    state: &mut State,
    dangling: &mut bool,
) -> Result<(), Failure> {
    exchange.dump(cmd::GET_CONNECTIONS, |message| {
        let context = message.context()?;
        let Some(name) = context.resource else {
            return Ok(());
        };
        let Some(resource) = state.by_name_mut(&name) else {
            *dangling = true;
            return Ok(());
        };
        let mut connection = Connection::new(context.peer_node_id);
        connection.name = context.name;
        if let Some(info) = message.connection()? {
            connection.update(info);
        }
        if let Some(statistics) = message.connection_statistics()? {
            connection.statistics = statistics;
        }
        connection.options = message.net_options()?;
        connection.paths = match message.dialect {
            Dialect::V84 => context
                .addresses
                .map(|pair| Path::new(pair, None))
                .into_iter()
                .collect(),
            Dialect::V9 => message.paths()?,
        };
        make_room(&mut resource.connections);
        resource.connections.push(connection);
        Ok(())
    })
}

fn peer_devices<T: Transport>(
    exchange: &mut Exchange<T>,
    state: &mut State,
    dangling: &mut bool,
) -> Result<(), Failure> {
    exchange.dump(cmd::GET_PEER_DEVICES, |message| {
        let context = message.context()?;
        let (Some(name), Some(volume)) = (&context.resource, context.volume) else {
            return Ok(());
        };
        let connection = state
            .by_name_mut(name)
            .and_then(|r| r.connection_mut(context.peer_node_id));
        let Some(connection) = connection else {
            *dangling = true;
            return Ok(());
        };
        let mut peer = PeerDevice::new(volume);
        if let Some(info) = message.peer_device()? {
            peer.update(info);
        }
        if let Some(statistics) = message.peer_device_statistics()? {
            peer.statistics = statistics;
        }
        peer.options = message.peer_device_options()?;
        make_room(&mut connection.peer_devices);
        connection.peer_devices.push(peer);
        Ok(())
    })
}

/// Which of the paths are established; GET_CONNECTIONS listed them.
fn paths<T: Transport>(
    exchange: &mut Exchange<T>,
    state: &mut State,
    dangling: &mut bool,
) -> Result<(), Failure> {
    exchange.dump(cmd::GET_PATHS, |message| {
        let context = message.context()?;
        let (Some(name), Some(addresses)) = (&context.resource, context.addresses) else {
            return Ok(());
        };
        let path = state
            .by_name_mut(name)
            .and_then(|r| r.connection_mut(context.peer_node_id))
            .and_then(|c| c.paths.iter_mut().find(|path| path.addresses == addresses));
        match path {
            Some(path) => path.established = message.path_established()?,
            None => *dangling = true,
        }
        Ok(())
    })
}
