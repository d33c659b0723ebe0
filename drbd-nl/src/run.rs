//! Carries operations out: which requests, in which order, and what an
//! answer means.
//!
//! The kernel's answer decides. State is read only to find out what a
//! request has to name, to tell "already so" from "taken by something else"
//! after a refusal, and where DRBD 9 does not tell at all.

use crate::dialect::request::{Request, Wish};
use crate::dialect::{Dialect, Release};
use crate::dump::{self, Depth};
use crate::error::{Cause, Error, ErrorKind};
use crate::exchange::{Answer, Exchange, Failure};
use crate::model::{
    AddressPair, Connection, DiskState, InvalidateOptions, InvalidatePeerOptions, Minor,
    NetOptions, NewUuidOptions, NodeId, Rejected, ResizeOptions, Resource, ResourceName, State,
    SuspendIoOptions, Text, TimeoutType, VerifyOptions,
};
use crate::op::{Base, ConnectionRef, Operation, Outcome, PeerDeviceRef, Report};
use crate::schema::{self, MANDATORY, cmd, codes, tla};
use crate::socket::Transport;
use crate::wire::{Native, WireError};
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
            supported(x, options.check(dialect, x.family.release))?;
            new_resource(x, resource, *node_id, options)
        }
        Operation::ChangeResourceOptions {
            resource,
            base,
            options,
        } => {
            supported(x, options.check(dialect, x.family.release))?;
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
            options,
        } => {
            supported(x, options.check(dialect, x.family.release))?;
            let request = Request::new_minor(dialect, resource, *volume, *minor, options);
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
            supported(x, options.check(dialect, x.family.release))?;
            let request = Request::attach(dialect, *minor, backing_dev, meta_disk, options);
            attach(x, *minor, backing_dev, &request)
        }
        Operation::ChangeDiskOptions {
            minor,
            base,
            options,
        } => {
            supported(x, options.check(dialect, x.family.release))?;
            change(x, &Request::disk_options(dialect, *minor, *base, options))
        }
        Operation::Detach { minor } => change(x, &Request::by_minor(dialect, cmd::DETACH, *minor)),
        Operation::DetachFailingIo { minor } => {
            let request = Request::by_minor(dialect, cmd::DETACH, *minor)
                .flag(tla::DETACH_PARMS, schema::detach_parms::FORCE_DETACH);
            change(x, &request)
        }
        Operation::DetachForGood { minor } => {
            only9(x)?;
            let number = schema::detach_parms::INTENTIONAL_DISKLESS_DETACH;
            let request =
                Request::by_minor(dialect, cmd::DETACH, *minor).flag(tla::DETACH_PARMS, number);
            change(x, &request)
        }
        Operation::Resize { minor, options } => {
            supported(x, options.check(dialect, x.family.release))?;
            let request = Request::by_minor(dialect, cmd::RESIZE, *minor)
                .parameters(ResizeOptions::TLA, |nest| options.encode(dialect, nest));
            change(x, &request)
        }
        Operation::Invalidate { minor, options } => {
            supported(x, options.check(dialect, x.family.release))?;
            let request = Request::by_minor(dialect, cmd::INVALIDATE, *minor)
                .parameters(InvalidateOptions::TLA, |nest| options.encode(dialect, nest));
            change(x, &request)
        }
        Operation::Outdate { minor } => {
            change(x, &Request::by_minor(dialect, cmd::OUTDATE, *minor))
        }
        Operation::NewCurrentUuid { minor, options } => {
            supported(x, options.check(dialect, x.family.release))?;
            let request = Request::by_minor(dialect, cmd::NEW_C_UUID, *minor)
                .parameters(NewUuidOptions::TLA, |nest| options.encode(dialect, nest));
            change(x, &request)
        }
        Operation::SuspendIo { minor, options } => {
            supported(x, options.check(dialect, x.family.release))?;
            let request = Request::by_minor(dialect, cmd::SUSPEND_IO, *minor)
                .parameters(SuspendIoOptions::TLA, |nest| options.encode(dialect, nest));
            change(x, &request)
        }
        Operation::ResumeIo { minor } => {
            change(x, &Request::by_minor(dialect, cmd::RESUME_IO, *minor))
        }
        Operation::Verify {
            peer_device,
            options,
        } => {
            supported(x, options.check(dialect, x.family.release))?;
            let request = name_peer_device(x, cmd::START_OV, peer_device)?
                .parameters(VerifyOptions::TLA, |nest| options.encode(dialect, nest));
            change(x, &request)
        }
        Operation::InvalidatePeer {
            peer_device,
            options,
        } => {
            supported(x, options.check(dialect, x.family.release))?;
            let request = name_peer_device(x, cmd::INVAL_PEER, peer_device)?.parameters(
                InvalidatePeerOptions::TLA,
                |nest| {
                    options.encode(dialect, nest);
                },
            );
            change(x, &request)
        }
        Operation::PauseSync { peer_device } => {
            let request = name_peer_device(x, cmd::PAUSE_SYNC, peer_device)?;
            change_unless(x, &request, codes::ERR_PAUSE_IS_SET)
        }
        Operation::ResumeSync { peer_device } => {
            let request = name_peer_device(x, cmd::RESUME_SYNC, peer_device)?;
            change_unless(x, &request, codes::ERR_PAUSE_IS_CLEAR)
        }
        Operation::Connect {
            connection,
            name,
            options,
        } => {
            supported(x, options.check(dialect, x.family.release))?;
            connect(x, connection, name.as_ref(), options, Wish::None)
        }
        Operation::ConnectDiscardingLocalData {
            connection,
            name,
            options,
        } => {
            supported(x, options.check(dialect, x.family.release))?;
            connect(
                x,
                connection,
                name.as_ref(),
                options,
                Wish::DiscardLocalData,
            )
        }
        Operation::ConnectTentatively {
            connection,
            name,
            options,
        } => {
            supported(x, options.check(dialect, x.family.release))?;
            connect(x, connection, name.as_ref(), options, Wish::Tentative)
        }
        Operation::ChangeNetOptions {
            connection,
            base,
            options,
        } => {
            supported(x, options.check(dialect, x.family.release))?;
            let request = match name_connection(x, connection)? {
                Some(Named::Addresses(pair)) => Request::net_options84(&pair, *base, options),
                Some(Named::Peer(peer)) => {
                    let resource = &connection.resource;
                    // The name is one of 9's settings, and its default is none.
                    let name = match base {
                        Base::Defaults => connection_name(x, resource, peer)?,
                        Base::Current => None,
                    };
                    Request::net_options9(resource, peer, name, *base, options)
                }
                None => return Err(no_connection(x).into()),
            };
            change(x, &request)
        }
        Operation::Disconnect { connection } => disconnect(x, connection, cmd::DISCONNECT, false),
        Operation::DisconnectUnilaterally { connection } => {
            disconnect(x, connection, cmd::DISCONNECT, true)
        }
        Operation::DelConnection { connection } => {
            disconnect(x, connection, del_connection(dialect), false)
        }
        Operation::DelConnectionUnilaterally { connection } => {
            disconnect(x, connection, del_connection(dialect), true)
        }
        Operation::NewPeer {
            resource,
            peer_node_id,
            name,
            options,
        } => {
            only9(x)?;
            supported(x, options.check(dialect, x.family.release))?;
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
            one_family(x, addresses)?;
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
            supported(x, options.check(dialect, x.family.release))?;
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
        Operation::RenameResource { resource, new_name } => {
            has_command(x, cmd::RENAME_RESOURCE, Release::new(9, 0, 28))?;
            let request = Request::by_resource(dialect, cmd::RENAME_RESOURCE, resource).parameters(
                tla::RENAME_RESOURCE_PARMS,
                |nest| {
                    let number = schema::rename_resource_parms::NEW_RESOURCE_NAME;
                    nest.string(number | MANDATORY, new_name.as_bytes());
                },
            );
            change(x, &request)
        }
        Operation::ForgetPeer {
            resource,
            peer_node_id,
        } => {
            only9(x)?;
            let request = Request::by_resource(dialect, cmd::FORGET_PEER, resource).parameters(
                tla::FORGET_PEER_PARMS,
                |nest| {
                    let number = schema::forget_peer_parms::FORGET_PEER_NODE_ID;
                    nest.u32(number | MANDATORY, peer_node_id.0);
                },
            );
            change(x, &request)
        }
        Operation::Down { resource } => {
            change(x, &Request::by_resource(dialect, cmd::DOWN, resource))
        }
    }
}

fn supported<T: Transport>(
    x: &Exchange<T>,
    check: std::result::Result<(), Rejected>,
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

/// Refuses what came with a release that the kernel is not.
fn has_command<T: Transport>(x: &Exchange<T>, command: u8, since: Release) -> Result<()> {
    if x.family.has(command) {
        return Ok(());
    }
    let running = match x.family.release {
        Some(release) => format!("DRBD {release}"),
        None => x.dialect().to_string(),
    };
    let text = format!("this needs DRBD {since}; this is {running}");
    Err(x.local(ErrorKind::Unsupported, text).into())
}

/// What forgets a connection.
fn del_connection(dialect: Dialect) -> u8 {
    match dialect {
        Dialect::V84 => cmd::DISCONNECT,
        Dialect::V9 => cmd::DEL_PEER,
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

/// Like [`change`]; this refusal says that it was so before.
fn change_unless<T: Transport>(
    x: &mut Exchange<T>,
    request: &Request<Native>,
    already: i32,
) -> Result<Report> {
    match x.change(request) {
        Ok(answer) => Ok(report(answer)),
        Err(failure) => refused_with(failure, &[already]).map(|_| already_there()),
    }
}

/// Asks which of the timeouts to take when waiting for the peer.
pub(crate) fn timeout_type<T: Transport>(
    x: &mut Exchange<T>,
    peer_device: &PeerDeviceRef,
) -> Result<TimeoutType> {
    let request = name_peer_device(x, cmd::GET_TIMEOUT_TYPE, peer_device)?;
    match x.change(&request)?.timeout_type {
        Some(number) => Ok(number.into()),
        None => {
            let what = "answer: no timeout type";
            Err(x.error(Cause::Malformed(WireError { what, at: 0 })).into())
        }
    }
}

/// A request about a volume as seen over a connection: 8.4 wants its minor,
/// 9 the peer.
fn name_peer_device<T: Transport>(
    x: &mut Exchange<T>,
    command: u8,
    wanted: &PeerDeviceRef,
) -> Result<Request<Native>> {
    let PeerDeviceRef {
        resource, volume, ..
    } = wanted;
    if x.dialect() == Dialect::V84 {
        let state = look(x, Depth::Devices)?;
        let Some(found) = state.by_name(resource) else {
            return Err(no_resource(x).into());
        };
        let Some(device) = found.device(*volume) else {
            let text = "there is no such volume";
            return Err(x.local(ErrorKind::NotFound, text).into());
        };
        return Ok(Request::by_minor(Dialect::V84, command, device.minor));
    }
    let peer = match wanted.peer_node_id {
        Some(peer) => Some(peer),
        None => find(x, &ConnectionRef::only(resource.clone()))?.and_then(|found| found.peer),
    };
    let Some(peer) = peer else {
        return Err(no_connection(x).into());
    };
    Ok(Request::by_peer_device9(command, resource, peer, *volume))
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

fn connection_name<T: Transport>(
    x: &mut Exchange<T>,
    resource: &ResourceName,
    peer: NodeId,
) -> Result<Option<Text>> {
    let state = look(x, Depth::Connections)?;
    let connections = state
        .by_name(resource)
        .into_iter()
        .flat_map(|r| &r.connections);
    let mut found = connections.filter(|c| c.peer_node_id == Some(peer));
    Ok(found.next().and_then(|c| c.name.clone()))
}

fn has_path(state: &State, resource: &ResourceName, peer: NodeId, pair: &AddressPair) -> bool {
    state.by_name(resource).is_some_and(|r| {
        r.connections
            .iter()
            .any(|c| c.peer_node_id == Some(peer) && c.paths.iter().any(|p| p.addresses == *pair))
    })
}

/// Both ends of a path are of one family.
fn one_family<T: Transport>(x: &Exchange<T>, pair: &AddressPair) -> Result<()> {
    if pair.local.family_word() == pair.remote.family_word() {
        return Ok(());
    }
    let text = format!("{pair} are addresses of two families");
    Err(x.local(ErrorKind::InvalidInput, text).into())
}

fn connect<T: Transport>(
    x: &mut Exchange<T>,
    wanted: &ConnectionRef,
    name: Option<&Text>,
    options: &NetOptions,
    wish: Wish,
) -> Result<Report> {
    if let Some(pair) = &wanted.addresses {
        one_family(x, pair)?;
    }
    match x.dialect() {
        Dialect::V84 => connect84(x, wanted, options, wish),
        Dialect::V9 => connect9(x, wanted, name, options, wish),
    }
}

fn connect84<T: Transport>(
    x: &mut Exchange<T>,
    wanted: &ConnectionRef,
    options: &NetOptions,
    wish: Wish,
) -> Result<Report> {
    let Some(addresses) = &wanted.addresses else {
        return Err(x
            .local(ErrorKind::InvalidInput, "the addresses are missing")
            .into());
    };
    match x.change(&Request::connect84(
        &wanted.resource,
        addresses,
        wish,
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
    wish: Wish,
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
            let base = Base::Current;
            let request = Request::net_options9(resource, peer, None, base, &settings);
            done = join(done, change(x, &request)?);
        }
    }
    match x.change(&Request::connect9(resource, peer, wish)) {
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
    unilaterally: bool,
) -> Result<Report> {
    // DRBD 9 does not tell whether it stood alone before.
    let mut stood_alone = false;
    let mut request = match name_connection(x, wanted)? {
        Some(Named::Addresses(pair)) => Request::by_addresses84(command, &pair),
        Some(Named::Peer(peer)) => {
            if command == cmd::DISCONNECT {
                let state = look(x, Depth::Connections)?;
                stood_alone = is_stand_alone(&state, &wanted.resource, peer);
            }
            Request::by_peer9(command, &wanted.resource, peer)
        }
        // On 8.4 a connection that is StandAlone is not there.
        None if x.dialect() == Dialect::V84 || command == cmd::DEL_PEER => {
            return Ok(already_there());
        }
        None => return Err(no_connection(x).into()),
    };
    if unilaterally {
        let number = schema::disconnect_parms::FORCE_DISCONNECT;
        request = request.flag(tla::DISCONNECT_PARMS, number);
    }
    match x.change(&request) {
        Ok(answer) if stood_alone => Ok(Report {
            outcome: Outcome::AlreadyThere,
            ..report(answer)
        }),
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
