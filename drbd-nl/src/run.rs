//! Carries operations out: which requests, in which order, and what an
//! answer means.
//!
//! The kernel's answer decides. State is read only to find out what a
//! request has to name, to tell "already so" from "taken by something else"
//! after a refusal, and where DRBD 9 does not tell at all.

use crate::dialect::Dialect;
use crate::dialect::request::Request;
use crate::dump::{self, Depth};
use crate::error::{Cause, Error, ErrorKind};
use crate::exchange::{Answer, Exchange, Failure};
use crate::model::{
    AddressPair, Connection, DiskState, Minor, NetOptions, NodeId, Resource, ResourceName, State,
    Text, Unsupported,
};
use crate::op::{ConnectionRef, Operation, Outcome, Report};
use crate::schema::{cmd, codes};
use crate::socket::Transport;
use crate::wire::Native;
use std::path::Path;

type Result<T> = std::result::Result<T, Failure>;

/// Runs one operation.
pub(crate) fn run<T: Transport>(x: &mut Exchange<T>, operation: &Operation) -> Result<Report> {
    let dialect = x.dialect();
    match operation {
        Operation::NewResource {
            resource,
            node_id,
            options,
        } => {
            supported(x, options.check(dialect))?;
            new_resource(x, resource, *node_id, options)
        }
        Operation::ChangeResourceOptions {
            resource,
            base,
            options,
        } => {
            supported(x, options.check(dialect))?;
            change(
                x,
                &Request::resource_options(dialect, resource, *base, options),
            )
        }
        Operation::DelResource { resource } => change(
            x,
            &Request::by_resource(dialect, cmd::DEL_RESOURCE, resource),
        ),
        Operation::NewMinor {
            resource,
            volume,
            minor,
        } => {
            let request = Request::new_minor(dialect, resource, *volume, *minor);
            let same = |state: &State| {
                state
                    .device(*minor)
                    .is_some_and(|(r, d)| r.name == *resource && d.volume == *volume)
            };
            create(
                x,
                &request,
                &[codes::ERR_MINOR_OR_VOLUME_EXISTS],
                Depth::Devices,
                same,
            )
        }
        Operation::DelMinor { minor } => {
            change(x, &Request::by_minor(dialect, cmd::DEL_MINOR, *minor))
        }
        Operation::Attach {
            minor,
            backing_dev,
            meta_disk,
            options,
        } => {
            supported(x, options.check(dialect))?;
            let request = Request::attach(dialect, *minor, backing_dev, meta_disk, options);
            attach(x, *minor, backing_dev, &request)
        }
        Operation::ChangeDiskOptions {
            minor,
            base,
            options,
        } => {
            supported(x, options.check(dialect))?;
            change(x, &Request::disk_options(dialect, *minor, *base, options))
        }
        Operation::Detach { minor } => change(x, &Request::detach(dialect, *minor)),
        Operation::Connect {
            connection,
            name,
            options,
        } => {
            supported(x, options.check(dialect))?;
            connect(x, connection, name.as_ref(), options, false)
        }
        Operation::ConnectDiscardingLocalData {
            connection,
            name,
            options,
        } => {
            supported(x, options.check(dialect))?;
            connect(x, connection, name.as_ref(), options, true)
        }
        Operation::ChangeNetOptions {
            connection,
            base,
            options,
        } => {
            supported(x, options.check(dialect))?;
            let request = match name_connection(x, connection)? {
                Some(Named::Addresses(pair)) => Request::net_options84(&pair, *base, options),
                Some(Named::Peer(peer)) => {
                    Request::net_options9(&connection.resource, peer, *base, options)
                }
                None => return Err(no_connection(x).into()),
            };
            change(x, &request)
        }
        Operation::Disconnect { connection } => disconnect(x, connection, cmd::DISCONNECT),
        Operation::DelConnection { connection } => {
            let command = match dialect {
                Dialect::V84 => cmd::DISCONNECT,
                Dialect::V9 => cmd::DEL_PEER,
            };
            disconnect(x, connection, command)
        }
        Operation::NewPeer {
            resource,
            peer_node_id,
            name,
            options,
        } => {
            only9(x)?;
            supported(x, options.check(dialect))?;
            let request = Request::new_peer9(resource, *peer_node_id, name, options);
            let same = |state: &State| {
                state.by_name(resource).is_some_and(|r| {
                    r.connections
                        .iter()
                        .any(|c| c.peer_node_id == Some(*peer_node_id))
                })
            };
            create(
                x,
                &request,
                &[codes::ERR_INVALID_REQUEST],
                Depth::Connections,
                same,
            )
        }
        Operation::NewPath {
            resource,
            peer_node_id,
            addresses,
        } => {
            only9(x)?;
            let request = Request::path9(cmd::NEW_PATH, resource, *peer_node_id, addresses);
            let same = |state: &State| has_path(state, resource, *peer_node_id, addresses);
            let taken = [
                codes::ERR_LOCAL_ADDR,
                codes::ERR_PEER_ADDR,
                codes::ERR_LOCAL_AND_PEER_ADDR,
                codes::ERR_ALREADY_EXISTS,
            ];
            create(x, &request, &taken, Depth::Connections, same)
        }
        Operation::DelPath {
            resource,
            peer_node_id,
            addresses,
        } => {
            only9(x)?;
            change(
                x,
                &Request::path9(cmd::DEL_PATH, resource, *peer_node_id, addresses),
            )
        }
        Operation::ChangePeerDeviceOptions {
            resource,
            peer_node_id,
            volume,
            base,
            options,
        } => {
            only9(x)?;
            supported(x, options.check(dialect))?;
            let request =
                Request::peer_device_options9(resource, *peer_node_id, *volume, *base, options);
            change(x, &request)
        }
        Operation::Primary { resource } => role(x, resource, cmd::PRIMARY, false),
        Operation::InitializeFromHere { resource }
        | Operation::DeclareDataCurrent { resource }
        | Operation::PromoteUnfenced { resource } => role(x, resource, cmd::PRIMARY, true),
        Operation::Secondary { resource } => role(x, resource, cmd::SECONDARY, false),
        Operation::DemoteFailingIo { resource } => {
            only9(x)?;
            role(x, resource, cmd::SECONDARY, true)
        }
        Operation::Down { resource } => {
            change(x, &Request::by_resource(dialect, cmd::DOWN, resource))
        }
    }
}

fn supported<T: Transport>(
    x: &Exchange<T>,
    check: std::result::Result<(), Unsupported>,
) -> Result<()> {
    check.map_err(|error| x.error(Cause::from(error)).into())
}

fn only9<T: Transport>(x: &Exchange<T>) -> Result<()> {
    match x.dialect() {
        Dialect::V9 => Ok(()),
        Dialect::V84 => Err(x
            .local(
                ErrorKind::Unsupported,
                "this needs DRBD 9; this is DRBD 8.4",
            )
            .into()),
    }
}

fn report(answer: Answer) -> Report {
    let outcome = if answer.ret_code == codes::SS_NOTHING_TO_DO {
        Outcome::AlreadyThere
    } else {
        Outcome::Done
    };
    Report {
        outcome,
        info: answer.info,
    }
}

fn already_there() -> Report {
    Report {
        outcome: Outcome::AlreadyThere,
        info: Vec::new(),
    }
}

/// Several steps are one: something done makes it done.
fn join(a: Report, b: Report) -> Report {
    let outcome = if a.outcome == Outcome::AlreadyThere {
        b.outcome
    } else {
        a.outcome
    };
    let mut info: Vec<Text> = a.info;
    info.extend(b.info);
    Report { outcome, info }
}

fn change<T: Transport>(x: &mut Exchange<T>, request: &Request<Native>) -> Result<Report> {
    x.change(request).map(report)
}

fn look<T: Transport>(x: &mut Exchange<T>, depth: Depth) -> Result<State> {
    dump::read(x, depth).map(|(state, _)| state)
}

/// The error if a request was refused with one of these codes.
fn refused_with(failure: Failure, codes: &[i32]) -> Result<Error> {
    match failure {
        Failure::Error(error) if error.ret_code().is_some_and(|code| codes.contains(&code)) => {
            Ok(error)
        }
        other => Err(other),
    }
}

/// Makes something. 8.4 was asked to refuse what exists, 9 does not tell
/// everywhere; in both cases `same` says whether what exists is what was meant.
fn create<T: Transport>(
    x: &mut Exchange<T>,
    request: &Request<Native>,
    taken: &[i32],
    depth: Depth,
    same: impl Fn(&State) -> bool,
) -> Result<Report> {
    let there = x.dialect() == Dialect::V9 && same(&look(x, depth)?);
    match x.change(request) {
        Ok(answer) if there => Ok(Report {
            outcome: Outcome::AlreadyThere,
            ..report(answer)
        }),
        Ok(answer) => Ok(report(answer)),
        Err(failure) => {
            let error = refused_with(failure, taken)?;
            if same(&look(x, depth)?) {
                Ok(already_there())
            } else {
                Err(error.into())
            }
        }
    }
}

fn new_resource<T: Transport>(
    x: &mut Exchange<T>,
    resource: &ResourceName,
    node_id: Option<NodeId>,
    options: &crate::model::ResourceOptions,
) -> Result<Report> {
    if x.dialect() == Dialect::V9 && node_id.is_none() {
        return Err(x
            .local(ErrorKind::InvalidInput, "DRBD 9 needs a node id")
            .into());
    }
    let request = Request::new_resource(x.dialect(), resource, node_id, options);
    let same = |state: &State| state.by_name(resource).is_some();
    create(
        x,
        &request,
        &[codes::ERR_INVALID_REQUEST],
        Depth::Devices,
        same,
    )
}

fn attach<T: Transport>(
    x: &mut Exchange<T>,
    minor: Minor,
    backing: &Path,
    request: &Request<Native>,
) -> Result<Report> {
    if !backing.is_absolute() {
        return Err(x
            .local(
                ErrorKind::InvalidInput,
                "the path of the disk is not absolute",
            )
            .into());
    }
    let attached = |state: &State| {
        state
            .device(minor)
            .filter(|(_, device)| device.disk_state != DiskState::Diskless)
            .map(|(_, device)| device.backing_dev.clone())
    };
    // A second attach is refused by every kernel, but 9.3.3 frees the live
    // bitmap while it refuses, and panics later.
    if x.dialect() == Dialect::V9
        && let Some(disk) = attached(&look(x, Depth::Devices)?)
    {
        if disk.as_deref() == Some(backing) {
            return Ok(already_there());
        }
        let text = match disk {
            Some(disk) => format!("{} is attached already", disk.display()),
            None => "a disk is attached already".to_owned(),
        };
        return Err(x.local(ErrorKind::AlreadyExists, text).into());
    }
    match x.change(request) {
        Ok(answer) => Ok(report(answer)),
        Err(failure) => {
            let error = refused_with(failure, &[codes::ERR_DISK_CONFIGURED])?;
            match attached(&look(x, Depth::Devices)?) {
                Some(Some(disk)) if disk == backing => Ok(already_there()),
                _ => Err(error.into()),
            }
        }
    }
}

/// A connection that exists.
struct Found {
    peer: Option<NodeId>,
    paths: Vec<AddressPair>,
}

fn no_connection<T: Transport>(x: &Exchange<T>) -> Error {
    x.local(ErrorKind::NotFound, "there is no such connection")
}

fn no_resource<T: Transport>(x: &Exchange<T>) -> Error {
    x.local(ErrorKind::NotFound, "there is no such resource")
}

fn matches(connection: &Connection, wanted: &ConnectionRef) -> bool {
    // 8.4 has no node ids; the wanted one says nothing there.
    if let (Some(wanted), Some(id)) = (wanted.peer_node_id, connection.peer_node_id) {
        return wanted == id;
    }
    wanted
        .addresses
        .as_ref()
        .is_none_or(|pair| connection.paths.iter().any(|path| path.addresses == *pair))
}

/// Finds a connection by what is known of it.
fn find<T: Transport>(x: &mut Exchange<T>, wanted: &ConnectionRef) -> Result<Option<Found>> {
    let state = look(x, Depth::Connections)?;
    let Some(resource) = state.by_name(&wanted.resource) else {
        return Err(no_resource(x).into());
    };
    let mut found = resource.connections.iter().filter(|c| matches(c, wanted));
    let first = found.next();
    if found.next().is_some() {
        let text = "there is more than one connection: name the peer's node id";
        return Err(x.local(ErrorKind::InvalidInput, text).into());
    }
    Ok(first.map(|connection| {
        let paths: Vec<_> = connection
            .paths
            .iter()
            .map(|path| path.addresses.clone())
            .collect();
        Found {
            peer: connection.peer_node_id,
            paths,
        }
    }))
}

/// How a request names a connection.
enum Named {
    /// By its addresses (8.4).
    Addresses(AddressPair),
    /// By the peer's node id (9).
    Peer(NodeId),
}

/// 8.4 takes the address pair alone, and would do it to another resource
/// that has it; so whose it is is looked up first. 9 needs no look if the
/// node id is given.
fn name_connection<T: Transport>(
    x: &mut Exchange<T>,
    wanted: &ConnectionRef,
) -> Result<Option<Named>> {
    if let (Dialect::V9, Some(peer)) = (x.dialect(), wanted.peer_node_id) {
        return Ok(Some(Named::Peer(peer)));
    }
    Ok(find(x, wanted)?.and_then(|found| match x.dialect() {
        Dialect::V84 => found.paths.into_iter().next().map(Named::Addresses),
        Dialect::V9 => found.peer.map(Named::Peer),
    }))
}

fn has_path(state: &State, resource: &ResourceName, peer: NodeId, pair: &AddressPair) -> bool {
    state.by_name(resource).is_some_and(|r| {
        r.connections
            .iter()
            .any(|c| c.peer_node_id == Some(peer) && c.paths.iter().any(|p| p.addresses == *pair))
    })
}

fn connect<T: Transport>(
    x: &mut Exchange<T>,
    wanted: &ConnectionRef,
    name: Option<&Text>,
    options: &NetOptions,
    discard: bool,
) -> Result<Report> {
    match x.dialect() {
        Dialect::V84 => connect84(x, wanted, options, discard),
        Dialect::V9 => connect9(x, wanted, name, options, discard),
    }
}

fn connect84<T: Transport>(
    x: &mut Exchange<T>,
    wanted: &ConnectionRef,
    options: &NetOptions,
    discard: bool,
) -> Result<Report> {
    let Some(addresses) = &wanted.addresses else {
        return Err(x
            .local(ErrorKind::InvalidInput, "the addresses are missing")
            .into());
    };
    match x.change(&Request::connect84(
        &wanted.resource,
        addresses,
        discard,
        options,
    )) {
        Ok(answer) => Ok(report(answer)),
        Err(failure) => {
            let taken = [
                codes::ERR_LOCAL_ADDR,
                codes::ERR_PEER_ADDR,
                codes::ERR_NET_CONFIGURED,
            ];
            let error = refused_with(failure, &taken)?;
            match find(x, wanted) {
                Ok(Some(_)) => Ok(already_there()),
                _ => Err(error.into()),
            }
        }
    }
}

fn connect9<T: Transport>(
    x: &mut Exchange<T>,
    wanted: &ConnectionRef,
    name: Option<&Text>,
    options: &NetOptions,
    discard: bool,
) -> Result<Report> {
    let resource = &wanted.resource;
    let found = find(x, wanted)?;
    let Some(peer) = found.as_ref().and_then(|f| f.peer).or(wanted.peer_node_id) else {
        let text = "DRBD 9 needs the peer's node id to make a connection";
        return Err(x.local(ErrorKind::InvalidInput, text).into());
    };
    let mut done = already_there();
    if found.is_none() {
        let Some(name) = name else {
            let text = "DRBD 9 needs a name to make a connection (the peer's host name)";
            return Err(x.local(ErrorKind::InvalidInput, text).into());
        };
        done = join(
            done,
            change(x, &Request::new_peer9(resource, peer, name, options))?,
        );
    }
    if let Some(pair) = &wanted.addresses
        && !found.as_ref().is_some_and(|f| f.paths.contains(pair))
    {
        done = join(
            done,
            change(x, &Request::path9(cmd::NEW_PATH, resource, peer, pair))?,
        );
    }
    if found.is_some() && is_stand_alone(&look(x, Depth::Connections)?, resource, peer) {
        let mut settings = options.clone();
        (settings.transport, settings.load_balance_paths) = (None, None);
        if !settings.is_empty() {
            let base = crate::op::Base::Current;
            let request = Request::net_options9(resource, peer, base, &settings);
            done = join(done, change(x, &request)?);
        }
    }
    match x.change(&Request::connect9(resource, peer, discard)) {
        Ok(answer) => Ok(join(done, report(answer))),
        Err(failure) => {
            refused_with(failure, &[codes::ERR_NET_CONFIGURED])?;
            Ok(done)
        }
    }
}

fn is_stand_alone(state: &State, resource: &ResourceName, peer: NodeId) -> bool {
    state.by_name(resource).is_some_and(|r| {
        r.connections.iter().any(|c| {
            c.peer_node_id == Some(peer) && c.state == crate::model::ConnectionState::StandAlone
        })
    })
}

fn disconnect<T: Transport>(
    x: &mut Exchange<T>,
    wanted: &ConnectionRef,
    command: u8,
) -> Result<Report> {
    let request = match name_connection(x, wanted)? {
        Some(Named::Addresses(pair)) => Request::by_addresses84(command, &pair),
        Some(Named::Peer(peer)) => Request::by_peer9(command, &wanted.resource, peer),
        // On 8.4 a connection that is StandAlone is not there.
        None if x.dialect() == Dialect::V84 || command == cmd::DEL_PEER => {
            return Ok(already_there());
        }
        None => return Err(no_connection(x).into()),
    };
    match x.change(&request) {
        Ok(answer) => Ok(report(answer)),
        Err(failure) => {
            let gone = [codes::ERR_INVALID_REQUEST, codes::SS_ALREADY_STANDALONE];
            let error = refused_with(failure, &gone)?;
            let there = find(x, wanted)?.is_some();
            let standing = error.ret_code() == Some(codes::SS_ALREADY_STANDALONE);
            if standing || (!there && (x.dialect() == Dialect::V84 || command == cmd::DEL_PEER)) {
                Ok(already_there())
            } else {
                Err(error.into())
            }
        }
    }
}

fn role<T: Transport>(
    x: &mut Exchange<T>,
    resource: &ResourceName,
    command: u8,
    force: bool,
) -> Result<Report> {
    match x.dialect() {
        Dialect::V9 => change(x, &Request::role9(command, resource, force)),
        Dialect::V84 => role84(x, resource, command, force),
    }
}

/// In 8.4 each volume has a role. A promotion that fails half way is undone.
fn role84<T: Transport>(
    x: &mut Exchange<T>,
    resource: &ResourceName,
    command: u8,
    force: bool,
) -> Result<Report> {
    let state = look(x, Depth::Devices)?;
    let Some(Resource { devices, .. }) = state.by_name(resource) else {
        return Err(no_resource(x).into());
    };
    if devices.is_empty() {
        return Err(x
            .local(ErrorKind::InvalidInput, "the resource has no volumes")
            .into());
    }
    let mut done = already_there();
    let mut promoted: Vec<Minor> = Vec::new();
    for device in devices {
        match x.change(&Request::role84(command, device.minor, force)) {
            Ok(answer) => {
                let step = report(answer);
                if step.outcome == Outcome::Done && command == cmd::PRIMARY {
                    promoted.push(device.minor);
                }
                done = join(done, step);
            }
            Err(Failure::Error(error)) => {
                let mut error = if devices.len() > 1 {
                    error.note(format!(
                        "this was volume {} (minor {})",
                        device.volume, device.minor
                    ))
                } else {
                    error
                };
                for minor in promoted {
                    let undo = x.change(&Request::role84(cmd::SECONDARY, minor, false));
                    let word = if undo.is_ok() {
                        "was demoted again"
                    } else {
                        "is still Primary"
                    };
                    error = error.note(format!("minor {minor} {word}"));
                }
                return Err(error.into());
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(done)
}
