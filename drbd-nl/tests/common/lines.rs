//! Events as lines of `drbdsetup events2`, to compare the two.

use crate::text::{
    blocked, device_statistics, peer_device_statistics, resync_suspended, suspended, yes,
};
use drbd_nl::{Action, Dialect, Event, EventKind, NodeId, PeerDeviceStatistics};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn unstamped(line: &str) -> &str {
    line.split_once(' ').map_or(
        line,
        |(stamp, rest)| {
            if stamp.contains('T') { rest } else { line }
        },
    )
}

/// The first words, up to the name, and the keys.
pub(crate) fn same_object(their: &str, ours: &[String]) -> bool {
    let keys = ["name:", "peer-node-id:", "volume:", "local:", "peer:"];
    let mut words = their.split(' ').enumerate();
    words.all(|(nr, word)| {
        (nr > 1 && !keys.iter().any(|key| word.starts_with(key))) || ours.iter().any(|o| o == word)
    })
}

pub(crate) fn is_about(event: &Event, name: &str) -> bool {
    match &event.kind {
        EventKind::Resource { resource, .. }
        | EventKind::Device { resource, .. }
        | EventKind::Connection { resource, .. }
        | EventKind::PeerDevice { resource, .. }
        | EventKind::Path { resource, .. } => *resource == *name,
        EventKind::Helper(helper) => helper.resource.as_ref().is_some_and(|r| *r == *name),
        _ => true,
    }
}

/// Derived by drbdsetup from several objects or rounded for people.
const DERIVED: &[&str] = &[
    "may_promote",
    "promotion_score",
    "done",
    "want",
    "eta",
    "dbdt",
    "dbdt0",
    "dbdt1",
];

/// How many words are equal, or the first difference.
pub(crate) fn compare(
    context: &str,
    their: &str,
    ours: &[String],
    event: &Event,
    full: bool,
) -> Result<usize, String> {
    let key = |word: &str| word.split(':').next().unwrap_or_default().to_owned();
    let words: Vec<&str> = their
        .split(' ')
        .filter(|word| !DERIVED.contains(&key(word).as_str()))
        .collect();
    let set: BTreeSet<&str> = ours.iter().map(String::as_str).collect();
    if let Some(word) = words.iter().find(|word| !set.contains(*word)) {
        return Err(format!("{word} is not ours: {context}\n{their}"));
    }
    // A change prints what differs; everything else prints everything. The
    // progress of a resync is printed while there is some, and drbd-utils
    // 9.22 does not know `open`.
    let whole = matches!(event.action, Action::Exists | Action::Create);
    if whole || (full && event.action == Action::Change) {
        let optional = ["rs-", "ov-", "open:", "blocked:"];
        let missing = set
            .iter()
            .filter(|word| !optional.iter().any(|o| word.starts_with(o)))
            .find(|word| !words.contains(word));
        if let Some(word) = missing {
            return Err(format!("{word} is not theirs: {context}\n{their}"));
        }
    }
    Ok(words.len())
}

/// Connection names: drbdsetup remembers them for events that lack them.
pub(crate) type Names = BTreeMap<(String, u32), String>;

pub(crate) fn line(
    dialect: Dialect,
    event: &Event,
    names: &mut Names,
    statistics: bool,
) -> Vec<String> {
    let mut words: Vec<String> = vec![
        match event.action {
            Action::Exists => "exists",
            Action::Create => "create",
            Action::Change => "change",
            Action::Destroy => "destroy",
            Action::Call => "call",
            Action::Response => "response",
            Action::Rename => "rename",
            _ => "unknown",
        }
        .into(),
    ];
    let peer = |id: Option<NodeId>| format!("peer-node-id:{}", id.map_or(0, |id| id.0));
    let known = |names: &Names, resource: &dyn ToString, id: Option<NodeId>| {
        names
            .get(&(resource.to_string(), id.map_or(0, |id| id.0)))
            .map(|name| format!("conn-name:{name}"))
    };
    match &event.kind {
        EventKind::Resource {
            resource,
            info,
            statistics: s,
            new_name,
        } => {
            words.push("resource".into());
            words.push(format!("name:{resource}"));
            if let Some(new) = new_name {
                words.push(format!("new_name:{new}"));
                // Its connections keep their names.
                let (old, new) = (resource.to_string(), new.to_string());
                for ((_, peer), name) in names.clone().into_iter().filter(|((of, _), _)| *of == old)
                {
                    names.insert((new.clone(), peer), name);
                }
            }
            if let Some(info) = info {
                words.push(format!("role:{}", info.role));
                words.push(format!("suspended:{}", suspended(&info.suspended)));
                words.extend(
                    info.fail_io
                        .map(|fail| format!("force-io-failures:{}", yes(fail))),
                );
                if statistics {
                    let ordering = s.as_ref().and_then(|s| s.write_ordering);
                    words.extend(ordering.map(|o| format!("write-ordering:{o}")));
                }
            }
        }
        EventKind::Device {
            resource,
            volume,
            minor,
            info,
            statistics: s,
        } => {
            words.push("device".into());
            words.push(format!("name:{resource}"));
            words.push(format!("volume:{volume}"));
            words.extend(minor.map(|minor| format!("minor:{minor}")));
            if let Some(info) = info {
                if dialect == Dialect::V9 {
                    let disk = info.backing_dev.as_ref();
                    let disk = disk.map_or("none".into(), |p| p.display().to_string());
                    words.push(format!("backing_dev:{disk}"));
                }
                words.push(format!("disk:{}", info.disk_state));
                words.extend(
                    info.intentional_diskless
                        .map(|c| format!("client:{}", yes(c))),
                );
                words.extend(info.open.map(|open| format!("open:{}", yes(open))));
                words.extend(info.quorum.map(|quorum| format!("quorum:{}", yes(quorum))));
                if let Some(s) = s.as_ref().filter(|_| statistics) {
                    words.extend(device_statistics(s));
                    words.push(format!("al-suspended:{}", yes(s.al_suspended)));
                    words.push(format!("blocked:{}", blocked(s)));
                }
            }
        }
        EventKind::Connection {
            resource,
            peer_node_id,
            name,
            addresses,
            info,
            statistics: s,
        } => {
            words.push("connection".into());
            words.push(format!("name:{resource}"));
            words.push(peer(*peer_node_id));
            let key = (resource.to_string(), peer_node_id.map_or(0, |id| id.0));
            if let Some(name) = name {
                names.insert(key, name.to_string());
            } else if dialect == Dialect::V84 && addresses.is_some() {
                names.insert(key, "peer".into());
            }
            words.extend(known(names, resource, *peer_node_id));
            if let Some(info) = info {
                words.push(format!("connection:{}", info.state));
                words.push(format!("role:{}", info.peer_role));
                if let Some(s) = s.as_ref().filter(|_| statistics) {
                    words.push(format!("congested:{}", yes(s.congested)));
                    words.extend(
                        s.application_in_flight
                            .map(|n| format!("ap-in-flight:{}", n.0)),
                    );
                    words.extend(s.resync_in_flight.map(|n| format!("rs-in-flight:{}", n.0)));
                }
            }
        }
        EventKind::PeerDevice {
            resource,
            volume,
            peer_node_id,
            info,
            statistics: s,
        } => {
            words.push("peer-device".into());
            words.push(format!("name:{resource}"));
            words.push(peer(*peer_node_id));
            words.extend(known(names, resource, *peer_node_id));
            words.push(format!("volume:{volume}"));
            if let Some(info) = info {
                words.push(format!("replication:{}", info.replication));
                words.push(format!("peer-disk:{}", info.peer_disk_state));
                words.extend(
                    info.peer_intentional_diskless
                        .map(|c| format!("peer-client:{}", yes(c))),
                );
                let reasons = resync_suspended(&info.resync_suspended);
                words.push(format!("resync-suspended:{reasons}"));
                if let Some(s) = s.as_ref().filter(|_| statistics) {
                    words.extend(peer_device_statistics(s));
                    words.extend(sync_details(s));
                }
            }
        }
        EventKind::Path {
            resource,
            peer_node_id,
            addresses,
            established,
        } => {
            words.push("path".into());
            words.push(format!("name:{resource}"));
            words.push(peer(*peer_node_id));
            words.extend(known(names, resource, *peer_node_id));
            words.push(format!("local:{}", addresses.local));
            words.push(format!("peer:{}", addresses.remote));
            words.extend(established.map(|e| format!("established:{}", yes(e))));
        }
        EventKind::Helper(helper) => {
            words.push("helper".into());
            words.extend(helper.resource.as_ref().map(|r| format!("name:{r}")));
            words.push(peer(helper.peer_node_id));
            words.extend(
                helper
                    .resource
                    .as_ref()
                    .and_then(|r| known(names, r, helper.peer_node_id)),
            );
            words.extend(helper.volume.map(|v| format!("volume:{v}")));
            words.extend(helper.minor.map(|m| format!("minor:{m}")));
            words.push(format!("helper:{}", helper.name));
            words.extend(helper.exit_code().map(|code| format!("status:{code}")));
        }
        EventKind::InitialStateDone => words.push("-".into()),
        other => panic!("{other:?}"),
    }
    words
}

/// The raw numbers of a resync or verify.
pub(crate) fn sync_details(s: &PeerDeviceStatistics) -> Vec<String> {
    let mut words = Vec::new();
    let mut put = |key: &str, value: Option<u64>| {
        words.extend(value.map(|value| format!("{key}:{value}")));
    };
    put("rs-total", s.resync_total.map(|n| n.0));
    put("rs-dt-start-ms", s.resync_elapsed_ms);
    put("rs-paused-ms", s.resync_paused_ms);
    put("rs-dt0-ms", s.resync_recent.map(|w| w.0));
    put("rs-db0-sectors", s.resync_recent.map(|w| w.1.0));
    put("rs-dt1-ms", s.resync_recent_long.map(|w| w.0));
    put("rs-db1-sectors", s.resync_recent_long.map(|w| w.1.0));
    put("rs-failed", Some(s.resync_failed.0));
    put("rs-same-csum", s.resync_same_checksum);
    put("ov-start-sector", s.verify_start.map(|n| n.0));
    put("ov-stop-sector", s.verify_stop.map(|n| n.0));
    put("ov-position", s.verify_position.map(|n| n.0));
    put("ov-left", s.verify_left.map(|n| n.0));
    put("ov-skipped", s.verify_skipped.map(|n| n.0));
    words
}
