//! One step of a list, ours or drbdadm's, in a form in which they can be compared.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use drbd_conf::Step;
use drbd_nl::{
    Base, Dialect, DiskOptions, MetaDisk, NetOptions, Operation, OptionError, PeerDeviceOptions,
    ResourceOptions,
};

use crate::common::words_of;

/// One operation in a form that both sides can be brought into.
#[derive(Debug, PartialEq)]
pub(crate) enum Plain {
    Resource(String, ResourceOptions),
    Disk(String, Box<DiskOptions>),
    Net(String, Box<NetOptions>),
    PeerDevice(String, PeerDeviceOptions),
    Other(String),
}

fn meta(disk: &Path, meta: &MetaDisk) -> String {
    match meta {
        MetaDisk::Internal => format!("{0} {0} internal", disk.display()),
        MetaDisk::Flexible(path) => format!("{} {} flexible", disk.display(), path.display()),
        MetaDisk::Indexed(path, i) => format!("{} {} {i}", disk.display(), path.display()),
        other => panic!("{other:?}"),
    }
}

fn defaults(base: Base) -> &'static str {
    match base {
        Base::Defaults => " --set-defaults",
        Base::Current => "",
    }
}

pub(crate) fn ours(step: Step, dialect: Dialect) -> Plain {
    let v9 = dialect == Dialect::V9;
    let step = match step {
        Step::ApplyActivityLog {
            minor,
            disk,
            meta_disk,
            ..
        } => {
            let words = meta(&disk, &MetaDisk::from(&meta_disk));
            let (_, where_) = words.split_once(' ').unwrap();
            return Plain::Other(format!("apply-al {minor} {where_}"));
        }
        Step::Drbd(operation) => operation,
        other => panic!("{other}"),
    };
    let other = |text: String| Plain::Other(text);
    match step {
        Operation::NewResource {
            resource,
            node_id,
            options,
        } => {
            let id = node_id.map(|id| format!(" {id}")).unwrap_or_default();
            Plain::Resource(format!("new-resource {resource}{id}"), options)
        }
        Operation::ChangeResourceOptions {
            resource,
            base,
            options,
        } => Plain::Resource(
            format!("resource-options {resource}{}", defaults(base)),
            options,
        ),
        Operation::NewMinor {
            resource,
            volume,
            minor,
            options,
        } => {
            let diskless = if options.diskless == Some(true) {
                " diskless"
            } else {
                ""
            };
            other(format!("new-minor {resource} {minor} {volume}{diskless}"))
        }
        Operation::DelMinor { minor } => other(format!("del-minor {minor}")),
        Operation::Detach { minor } => other(format!("detach {minor}")),
        Operation::Attach {
            minor,
            backing_dev,
            meta_disk,
            options,
        } => Plain::Disk(
            format!("attach {minor} {}", meta(&backing_dev, &meta_disk)),
            options,
        ),
        Operation::ChangeDiskOptions {
            minor,
            base,
            options,
        } => Plain::Disk(format!("disk-options {minor}{}", defaults(base)), options),
        Operation::Resize { minor, options } => {
            let size = options.size.map(|s| format!(" {s}")).unwrap_or_default();
            other(format!("resize {minor}{size}"))
        }
        Operation::NewPeer {
            resource,
            peer_node_id,
            name,
            options,
        } => Plain::Net(
            format!("new-peer {resource} {peer_node_id} {name}"),
            options,
        ),
        Operation::NewPath {
            resource,
            peer_node_id,
            addresses,
        } => other(format!("new-path {resource} {peer_node_id} {addresses}")),
        Operation::DelPath {
            resource,
            peer_node_id,
            addresses,
        } => other(format!("del-path {resource} {peer_node_id} {addresses}")),
        Operation::Connect {
            connection,
            options,
            ..
        } => {
            let who = match connection.addresses {
                Some(a) => format!("{} {a}", connection.resource),
                None => format!(
                    "{} {}",
                    connection.resource,
                    connection.peer_node_id.unwrap()
                ),
            };
            Plain::Net(format!("connect {who}"), options)
        }
        Operation::ChangeNetOptions {
            connection,
            base,
            options,
        } => {
            let who = match connection.peer_node_id {
                Some(id) => format!("{} {id}", connection.resource),
                None => connection.addresses.unwrap().to_string(),
            };
            Plain::Net(format!("net-options {who}{}", defaults(base)), options)
        }
        Operation::Disconnect { connection } => match connection.peer_node_id {
            Some(id) => other(format!("disconnect {} {id}", connection.resource)),
            None => other(format!("disconnect {}", connection.addresses.unwrap())),
        },
        Operation::DelConnection { connection } => {
            let id = connection.peer_node_id.unwrap();
            other(format!("del-peer {} {id}", connection.resource))
        }
        Operation::ChangePeerDeviceOptions {
            resource,
            peer_node_id,
            volume,
            base,
            options,
        } => {
            assert!(v9);
            // `up` and `adjust` print it differently and mean the same.
            let _ = base;
            Plain::PeerDevice(
                format!("peer-device-options {resource} {peer_node_id} {volume}"),
                options,
            )
        }
        more => panic!("{more}"),
    }
}

/// What drbdsetup makes of an address with an interface, by the same call of the C library.
fn resolved(word: &str) -> Option<String> {
    let (ip, port) = word.strip_prefix("ipv6:[")?.split_once("]:")?;
    let _ = ip.split_once('%')?;
    let found = (ip, port.parse().unwrap()).to_socket_addrs().unwrap();
    let found: Vec<SocketAddr> = found.collect();
    Some(format!("ipv6:{}", found[0]))
}

/// Reads one line of a dry run.
pub(crate) fn theirs(line: &str) -> Option<Plain> {
    fn collect<T: Default>(
        options: &[&str],
        set: impl Fn(&mut T, &str, &str) -> Result<(), OptionError>,
    ) -> T {
        let mut t = T::default();
        for o in options.iter().filter(|o| **o != "--set-defaults") {
            let (name, value) = o[2..].split_once('=').unwrap_or((&o[2..], "yes"));
            let upper = value.to_uppercase();
            let value = if name == "protocol" { &upper } else { value };
            if name != "_name" {
                set(&mut t, name, value).unwrap_or_else(|e| panic!("{e}"));
            }
        }
        t
    }
    let mut words = words_of(line);
    for word in &mut words {
        if let Some(address) = resolved(word) {
            *word = address;
        }
    }
    let program = words[0].rsplit('/').next().unwrap();
    let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    let (options, words): (Vec<&str>, Vec<&str>) =
        words.into_iter().partition(|w| w.starts_with("--"));
    if program.starts_with("drbdmeta") {
        let [minor, _, device, index, "apply-al"] = words[..] else {
            panic!("{line}");
        };
        let index = index
            .strip_prefix("flex-external")
            .map_or(index, |_| "flexible");
        return Some(Plain::Other(format!("apply-al {minor} {device} {index}")));
    }
    if words[0] == "check-resize" {
        return None;
    }
    let named = options.iter().find_map(|o| o.strip_prefix("--_name="));
    let mut label = words.join(" ");
    if words[0] == "new-peer" {
        let _ = write!(label, " {}", named.unwrap());
    }
    if words[0] == "new-minor" && options.contains(&"--diskless") {
        label.push_str(" diskless");
    }
    if words[0] != "peer-device-options" && options.contains(&"--set-defaults") {
        label.push_str(" --set-defaults");
    }
    Some(match words[0] {
        "new-resource" | "resource-options" => {
            Plain::Resource(label, collect(&options, ResourceOptions::set))
        }
        "attach" | "disk-options" => {
            Plain::Disk(label, Box::new(collect(&options, DiskOptions::set)))
        }
        "new-peer" | "connect" | "net-options" => {
            Plain::Net(label, Box::new(collect(&options, NetOptions::set)))
        }
        "peer-device-options" => {
            Plain::PeerDevice(label, collect(&options, PeerDeviceOptions::set))
        }
        "resize" => {
            let size = options.iter().find_map(|o| o.strip_prefix("--size="));
            let mut parsed = DiskOptions::default();
            if let Some(size) = size {
                parsed.set("size", size).unwrap();
                let _ = write!(label, " {}", parsed.size.unwrap());
            }
            Plain::Other(label)
        }
        _ => Plain::Other(label),
    })
}
