//! Our requests are the bytes that drbdsetup sent for the same command.
//!
//! Both are put into canonical form first: sequence number and port id zero,
//! the attributes of a nest in the order of their numbers, the bits 0x4000
//! and 0x8000 of attribute types cleared. [`DIFFERENCES`] lists what then
//! remains.

use crate::load::{self, Family, Run};
use crate::replay::Replay;
use drbd_nl::schema::cmd;
use drbd_nl::{
    Address, AddressPair, Base, ConnectionRef, DeviceOptions, Dialect, DiskOptions, Drbd,
    InvalidateOptions, InvalidatePeerOptions, MetaDisk, Minor, NetOptions, NewUuidOptions, NodeId,
    Operation, PeerDeviceOptions, PeerDeviceRef, ResizeOptions, ResourceName, ResourceOptions,
    SuspendIoOptions, VerifyOptions, VolumeNumber,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// `NLM_F_EXCL` in the header flags: on 8.4 we ask to be refused when the
/// object exists, to tell "done" from "already there"; drbdsetup does not.
const DIFFERENCES: &[(Dialect, u8, u16)] = &[
    (Dialect::V84, cmd::NEW_RESOURCE, 0x200),
    (Dialect::V84, cmd::NEW_MINOR, 0x200),
];

#[test]
fn requests_are_drbdsetups() {
    let mut compared: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for family in load::all() {
        for run in &family.runs {
            let Some((operation, command)) = operation(family, run) else {
                continue;
            };
            let Some(theirs) = run.sent(command).next() else {
                continue;
            };
            // What the operation has to look up comes from a run beside it.
            let looks_up = match family.dialect {
                Dialect::V84 => [
                    cmd::PRIMARY,
                    cmd::SECONDARY,
                    cmd::DISCONNECT,
                    cmd::CHG_NET_OPTS,
                    cmd::START_OV,
                    cmd::INVAL_PEER,
                    cmd::PAUSE_SYNC,
                    cmd::RESUME_SYNC,
                ]
                .contains(&command),
                Dialect::V9 => command == cmd::CONNECT,
            };
            let replay = match around(family, run).filter(|_| looks_up) {
                Some(status) => Replay::of(status).with(run, command),
                None => Replay::of(run),
            };
            let sent = std::sync::Arc::clone(&replay.sent);
            let drbd = Drbd::with_connector(replay).unwrap();
            let result = drbd.run(&operation, Duration::from_secs(30));
            let sent = sent.lock().unwrap();
            let theirs = canonical(&theirs.bytes);
            let ours: Vec<Vec<u8>> = sent
                .iter()
                .filter(|bytes| bytes[16] == command && bytes[7] & 3 != 3)
                .map(|bytes| {
                    let mut bytes = canonical(bytes);
                    for (dialect, with, flag) in DIFFERENCES {
                        if (*dialect, *with) == (family.dialect, command) {
                            let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
                            assert_ne!(flags & flag, 0, "{operation}");
                            bytes[6..8].copy_from_slice(&(flags & !flag).to_le_bytes());
                        }
                    }
                    bytes
                })
                .collect();
            assert!(
                ours.contains(&theirs),
                "{}/{}: {operation}: {result:?}\nours   {ours:x?}\ntheirs {theirs:x?}",
                family.name,
                run.name
            );
            let name = if family.dialect == Dialect::V84 {
                "8.4"
            } else {
                "9"
            };
            *compared.entry((name, operation.name())).or_default() += 1;
        }
    }
    println!("{compared:?}");
    for (name, commands) in [
        (
            "8.4",
            &[
                "new-resource",
                "resource-options",
                "del-resource",
                "new-minor",
                "del-minor",
                "attach",
                "disk-options",
                "detach",
                "connect",
                "net-options",
                "disconnect",
                "primary",
                "declare-data-current",
                "secondary",
                "down",
                "resize",
                "invalidate",
                "invalidate-remote",
                "outdate",
                "new-current-uuid",
                "suspend-io",
                "resume-io",
                "verify",
                "pause-sync",
                "resume-sync",
            ][..],
        ),
        (
            "9",
            &[
                "new-resource",
                "resource-options",
                "del-resource",
                "new-minor",
                "del-minor",
                "attach",
                "disk-options",
                "detach",
                "new-peer",
                "new-path",
                "del-path",
                "connect",
                "connect-discarding-local-data",
                "net-options",
                "disconnect",
                "del-connection",
                "peer-device-options",
                "primary",
                "declare-data-current",
                "secondary",
                "demote-failing-io",
                "down",
                "detach-failing-io",
                "resize",
                "invalidate",
                "invalidate-remote",
                "outdate",
                "new-current-uuid",
                "suspend-io",
                "resume-io",
                "verify",
                "pause-sync",
                "resume-sync",
                "rename-resource",
                "forget-peer",
            ],
        ),
    ] {
        for command in commands {
            assert!(
                compared.contains_key(&(name, command)),
                "no {command} on {name}: {compared:?}"
            );
        }
    }
}

/// The dumps drbdsetup sends, without the filter, which we never send.
#[test]
fn dumps_are_drbdsetups() {
    for family in load::all() {
        let run = family
            .runs
            .iter()
            .filter(|run| run.args().get(1) == Some(&"status") && run.exit == Some(0))
            .find(|run| run.sent(cmd::GET_PEER_DEVICES).next().is_some())
            .unwrap();
        let replay = Replay::of(run);
        let sent = std::sync::Arc::clone(&replay.sent);
        let drbd = Drbd::with_connector(replay).unwrap();
        drbd.snapshot(Duration::from_secs(30)).unwrap();
        let sent = sent.lock().unwrap();
        for command in cmd::GET_RESOURCES..=cmd::GET_PEER_DEVICES {
            let theirs = &run.sent(command).next().unwrap().bytes;
            let ours = sent.iter().find(|bytes| bytes[16] == command).unwrap();
            let mut theirs = canonical(&theirs[..28]);
            theirs[..4].copy_from_slice(&28u32.to_le_bytes());
            assert_eq!(canonical(ours), theirs, "{} {command}", family.name);
        }
    }
}

/// A run that shows the state around this one: the fullest status.
fn around<'f>(family: &'f Family, run: &Run) -> Option<&'f Run> {
    family
        .runs
        .iter()
        .filter(|other| other.scenario == run.scenario && other.node == run.node)
        .filter(|other| other.args().get(1) == Some(&"status") && other.exit == Some(0))
        .filter(|other| other.sent(cmd::GET_PEER_DEVICES).next().is_some())
        .max_by_key(|other| other.received().map(|m| m.bytes.len()).sum::<usize>())
}

fn canonical(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes[..28].to_vec();
    out[8..16].fill(0);
    out.extend(sorted(&bytes[28..], true));
    out
}

fn sorted(bytes: &[u8], nests: bool) -> Vec<u8> {
    let mut attrs = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let len = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let kind = u16::from_le_bytes([bytes[at + 2], bytes[at + 3]]) & 0x3fff;
        let payload = &bytes[at + 4..at + len];
        let mut attr = bytes[at..at + 2].to_vec();
        attr.extend_from_slice(&kind.to_le_bytes());
        attr.extend(if nests {
            sorted(payload, false)
        } else {
            payload.to_vec()
        });
        attr.resize((len + 3) & !3, 0);
        attrs.push((kind, attr));
        at += (len + 3) & !3;
    }
    attrs.sort();
    attrs.into_iter().flat_map(|(_, attr)| attr).collect()
}

macro_rules! options {
    ($name:ident, $args:expr) => {{
        let mut options = $name::new();
        let mut base = Base::Current;
        for arg in $args {
            match arg.strip_prefix("--") {
                Some("set-defaults") => base = Base::Defaults,
                Some(arg) => {
                    let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
                    if !name.starts_with('_') && !["force", "discard-my-data"].contains(&name) {
                        options.set(name, value).ok()?;
                    }
                }
                None => {}
            }
        }
        (options, base)
    }};
}

/// The operation that a command line of drbdsetup is, and its command.
fn operation(family: &Family, run: &Run) -> Option<(Operation, u8)> {
    let args = run.args();
    if args.first() != Some(&"drbdsetup") {
        return None;
    }
    let words: Vec<&str> = args[2..]
        .iter()
        .copied()
        .filter(|a| !a.starts_with("--"))
        .collect();
    let flags: Vec<&str> = args[2..]
        .iter()
        .copied()
        .filter(|a| a.starts_with("--"))
        .collect();
    let resource = |at: usize| ResourceName::new(words.get(at)?).ok();
    let number = |at: usize| words.get(at)?.parse::<u32>().ok();
    let pair = |at: usize| {
        Some(AddressPair {
            local: words.get(at)?.parse::<Address>().ok()?,
            remote: words.get(at + 1)?.parse().ok()?,
        })
    };
    let v84 = family.dialect == Dialect::V84;
    // In 8.4 minors 0 and 1 are r0's.
    let r0 = || ResourceName::new("r0").unwrap();
    let by_minor = |name: &str| {
        if v84 {
            number(0).map(|_| r0())
        } else {
            name.parse().ok()
        }
    };
    let force = flags
        .iter()
        .any(|flag| ["--force", "--force=yes"].contains(flag));
    Some(match *args.get(1)? {
        "new-resource" => (
            Operation::NewResource {
                resource: resource(0)?,
                node_id: number(1).map(NodeId),
                options: options!(ResourceOptions, &flags).0,
            },
            cmd::NEW_RESOURCE,
        ),
        "resource-options" => {
            let (options, base) = options!(ResourceOptions, &flags);
            (
                Operation::ChangeResourceOptions {
                    resource: resource(0)?,
                    base,
                    options,
                },
                cmd::RESOURCE_OPTS,
            )
        }
        "del-resource" => (
            Operation::DelResource {
                resource: resource(0)?,
            },
            cmd::DEL_RESOURCE,
        ),
        "new-minor" => (
            Operation::NewMinor {
                options: options!(DeviceOptions, &flags).0,
                resource: resource(0)?,
                minor: Minor(number(1)?),
                volume: VolumeNumber(number(2)?),
            },
            cmd::NEW_MINOR,
        ),
        "del-minor" => (
            Operation::DelMinor {
                minor: Minor(number(0)?),
            },
            cmd::DEL_MINOR,
        ),
        "attach" => (
            Operation::Attach {
                minor: Minor(number(0)?),
                backing_dev: words[1].into(),
                meta_disk: match words[3] {
                    "internal" => MetaDisk::Internal,
                    "flexible" => MetaDisk::Flexible(words[2].into()),
                    index => MetaDisk::Indexed(words[2].into(), index.parse().ok()?),
                },
                options: Box::new(options!(DiskOptions, &flags).0),
            },
            cmd::ATTACH,
        ),
        "disk-options" => {
            let (options, base) = options!(DiskOptions, &flags);
            let minor = Minor(number(0)?);
            let options = Box::new(options);
            (
                Operation::ChangeDiskOptions {
                    minor,
                    base,
                    options,
                },
                cmd::CHG_DISK_OPTS,
            )
        }
        "detach" => {
            let minor = Minor(number(0)?);
            let operation = if force {
                Operation::DetachFailingIo { minor }
            } else {
                Operation::Detach { minor }
            };
            (operation, cmd::DETACH)
        }
        "resize" => (
            Operation::Resize {
                minor: Minor(number(0)?),
                options: options!(ResizeOptions, &flags).0,
            },
            cmd::RESIZE,
        ),
        "invalidate" => (
            Operation::Invalidate {
                minor: Minor(number(0)?),
                options: options!(InvalidateOptions, &flags).0,
            },
            cmd::INVALIDATE,
        ),
        "outdate" => (
            Operation::Outdate {
                minor: Minor(number(0)?),
            },
            cmd::OUTDATE,
        ),
        "new-current-uuid" => (
            Operation::NewCurrentUuid {
                minor: Minor(number(0)?),
                options: options!(NewUuidOptions, &flags).0,
            },
            cmd::NEW_C_UUID,
        ),
        "suspend-io" => (
            Operation::SuspendIo {
                minor: Minor(number(0)?),
                options: options!(SuspendIoOptions, &flags).0,
            },
            cmd::SUSPEND_IO,
        ),
        "resume-io" => (
            Operation::ResumeIo {
                minor: Minor(number(0)?),
            },
            cmd::RESUME_IO,
        ),
        "verify" => (
            Operation::Verify {
                peer_device: peer_device(v84, &r0, &resource, &number)?,
                options: options!(VerifyOptions, &flags).0,
            },
            cmd::START_OV,
        ),
        "invalidate-remote" => (
            Operation::InvalidatePeer {
                peer_device: peer_device(v84, &r0, &resource, &number)?,
                options: options!(InvalidatePeerOptions, &flags).0,
            },
            cmd::INVAL_PEER,
        ),
        "pause-sync" => (
            Operation::PauseSync {
                peer_device: peer_device(v84, &r0, &resource, &number)?,
            },
            cmd::PAUSE_SYNC,
        ),
        "resume-sync" => (
            Operation::ResumeSync {
                peer_device: peer_device(v84, &r0, &resource, &number)?,
            },
            cmd::RESUME_SYNC,
        ),
        "rename-resource" => (
            Operation::RenameResource {
                resource: resource(0)?,
                new_name: resource(1)?,
            },
            cmd::RENAME_RESOURCE,
        ),
        "forget-peer" => (
            Operation::ForgetPeer {
                resource: resource(0)?,
                peer_node_id: NodeId(number(1)?),
            },
            cmd::FORGET_PEER,
        ),
        "connect" => {
            let options = Box::new(options!(NetOptions, &flags).0);
            let mut connection = ConnectionRef::only(resource(0)?);
            if v84 {
                connection = connection.addresses(pair(1)?);
            } else {
                connection = connection.peer_node_id(NodeId(number(1)?));
            }
            let operation = if flags.contains(&"--discard-my-data=yes") {
                Operation::ConnectDiscardingLocalData {
                    connection,
                    name: None,
                    options,
                }
            } else if flags.contains(&"--discard-my-data=no") {
                return None;
            } else {
                Operation::Connect {
                    connection,
                    name: None,
                    options,
                }
            };
            (operation, cmd::CONNECT)
        }
        "net-options" => {
            let (options, base) = options!(NetOptions, &flags);
            if flags.iter().any(|flag| flag.starts_with("--_name")) || run.exit != Some(0) {
                return None;
            }
            let options = Box::new(options);
            let connection = connection(v84, &words, &r0, &resource, &number, &pair)?;
            (
                Operation::ChangeNetOptions {
                    connection,
                    base,
                    options,
                },
                cmd::CHG_NET_OPTS,
            )
        }
        "disconnect" if run.exit == Some(0) => {
            let connection = connection(v84, &words, &r0, &resource, &number, &pair)?;
            // The recording beside it may be the other node's.
            if v84 && run.node != "n0" {
                return None;
            }
            (Operation::Disconnect { connection }, cmd::DISCONNECT)
        }
        "del-peer" if run.exit == Some(0) => {
            let connection = connection(v84, &words, &r0, &resource, &number, &pair)?;
            (Operation::DelConnection { connection }, cmd::DEL_PEER)
        }
        "new-peer" => {
            let name = flags
                .iter()
                .find_map(|flag| flag.strip_prefix("--_name="))?;
            let operation = Operation::NewPeer {
                resource: resource(0)?,
                peer_node_id: NodeId(number(1)?),
                name: name.into(),
                options: Box::new(options!(NetOptions, &flags).0),
            };
            (operation, cmd::NEW_PEER)
        }
        "new-path" => {
            let (resource, peer_node_id) = (resource(0)?, NodeId(number(1)?));
            (
                Operation::NewPath {
                    resource,
                    peer_node_id,
                    addresses: pair(2)?,
                },
                cmd::NEW_PATH,
            )
        }
        "del-path" => {
            let (resource, peer_node_id) = (resource(0)?, NodeId(number(1)?));
            (
                Operation::DelPath {
                    resource,
                    peer_node_id,
                    addresses: pair(2)?,
                },
                cmd::DEL_PATH,
            )
        }
        "peer-device-options" => {
            let (options, base) = options!(PeerDeviceOptions, &flags);
            (
                Operation::ChangePeerDeviceOptions {
                    resource: resource(0)?,
                    peer_node_id: NodeId(number(1)?),
                    volume: VolumeNumber(number(2)?),
                    base,
                    options,
                },
                cmd::CHG_PEER_DEVICE_OPTS,
            )
        }
        "primary" if number(0) != Some(99) => {
            let resource = by_minor(words.first()?)?;
            let operation = if force {
                Operation::DeclareDataCurrent { resource }
            } else {
                Operation::Primary { resource }
            };
            (operation, cmd::PRIMARY)
        }
        "secondary" => {
            let resource = by_minor(words.first()?)?;
            let operation = if force {
                Operation::DemoteFailingIo { resource }
            } else {
                Operation::Secondary { resource }
            };
            (operation, cmd::SECONDARY)
        }
        "down" => (
            Operation::Down {
                resource: resource(0)?,
            },
            cmd::DOWN,
        ),
        _ => return None,
    })
}

fn peer_device(
    v84: bool,
    r0: &impl Fn() -> ResourceName,
    resource: &impl Fn(usize) -> Option<ResourceName>,
    number: &impl Fn(usize) -> Option<u32>,
) -> Option<PeerDeviceRef> {
    Some(if v84 {
        PeerDeviceRef::only(r0(), VolumeNumber(number(0)?))
    } else {
        PeerDeviceRef::only(resource(0)?, VolumeNumber(number(2)?)).peer_node_id(NodeId(number(1)?))
    })
}

fn connection(
    v84: bool,
    words: &[&str],
    r0: &impl Fn() -> ResourceName,
    resource: &impl Fn(usize) -> Option<ResourceName>,
    number: &impl Fn(usize) -> Option<u32>,
    pair: &impl Fn(usize) -> Option<AddressPair>,
) -> Option<ConnectionRef> {
    let _ = words;
    Some(if v84 {
        ConnectionRef::only(r0()).addresses(pair(0)?)
    } else {
        ConnectionRef::only(resource(0)?).peer_node_id(NodeId(number(1)?))
    })
}
