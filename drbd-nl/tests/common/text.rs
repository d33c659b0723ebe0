//! The state in drbdsetup's words and JSON, to compare the two.

use drbd_nl::{
    Address, Connection, ConnectionState, Device, DeviceStatistics, PeerDevice,
    PeerDeviceStatistics, ReplicationState, Resource, ResyncSuspended, Sectors, Suspended,
};
use serde_json::{Value, json};

/// What of theirs is also ours must be equal; how many values that was.
pub(crate) fn compare(path: &str, theirs: &Value, ours: &Value) -> usize {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let mut compared = 0;
            for (key, value) in theirs {
                // Rounded or derived for people; `percent-in-sync` stands for them.
                let derived = [
                    "want",
                    "db0/dt0 [MiB/s]",
                    "db1/dt1 [MiB/s]",
                    "db/dt [MiB/s]",
                    "estimated-seconds-to-finish",
                    "percent-resync-done",
                ];
                if derived.contains(&key.as_str()) {
                    continue;
                }
                let ours = ours
                    .get(key)
                    .unwrap_or_else(|| panic!("{path}: no {key} ({value})"));
                compared += compare(&format!("{path}.{key}"), value, ours);
            }
            compared
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            assert_eq!(theirs.len(), ours.len(), "{path}: {theirs:?} {ours:?}");
            // drbdsetup keeps the kernel's order, we sort by key.
            let key = |v: &Value| {
                ["volume", "peer-node-id"]
                    .iter()
                    .find_map(|k| v[*k].as_u64())
                    .map_or_else(|| v.to_string(), |n| format!("{n:08}"))
            };
            let mut theirs: Vec<_> = theirs.iter().collect();
            let mut ours: Vec<_> = ours.iter().collect();
            theirs.sort_by_key(|v| key(v));
            ours.sort_by_key(|v| key(v));
            theirs
                .iter()
                .zip(ours)
                .map(|(t, o)| compare(path, t, o))
                .sum()
        }
        _ => {
            assert_eq!(theirs, ours, "{path}");
            1
        }
    }
}

pub(crate) fn kib(sectors: Sectors) -> u64 {
    sectors.0 / 2
}

pub(crate) fn resource_json(r: &Resource) -> Value {
    json!({
        "name": r.name.to_string(),
        "node-id": r.node_id.map(|id| id.0),
        "role": r.role.to_string(),
        "suspended": r.suspended.any(),
        "suspended-user": r.suspended.user,
        "suspended-no-data": r.suspended.no_data,
        "suspended-fencing": r.suspended.fencing,
        "suspended-quorum": r.suspended.quorum,
        "force-io-failures": r.fail_io,
        "write-ordering": r.write_ordering.map(|w| w.to_string()),
        "devices": r.devices.iter().map(device_json).collect::<Vec<_>>(),
        "connections": r.connections.iter().map(|c| connection_json(r, c)).collect::<Vec<_>>(),
    })
}

pub(crate) fn device_json(d: &Device) -> Value {
    let s = &d.statistics;
    json!({
        "volume": d.volume.0,
        "minor": d.minor.0,
        "disk-state": d.disk_state.to_string(),
        "client": d.intentional_diskless,
        "open": d.open,
        "quorum": d.quorum,
        "backing_dev": d.backing_dev.as_ref().map_or("none".into(), |p| p.display().to_string()),
        "size": kib(s.size),
        "read": kib(s.read),
        "written": kib(s.written),
        "al-writes": s.al_writes,
        "bm-writes": s.bm_writes,
        "upper-pending": s.upper_pending,
        "lower-pending": s.lower_pending,
    })
}

pub(crate) fn connection_json(r: &Resource, c: &Connection) -> Value {
    json!({
        "peer-node-id": c.peer_node_id.map(|id| id.0),
        "name": c.name.as_ref().map(ToString::to_string),
        "connection-state": c.state.to_string(),
        "congested": c.statistics.congested,
        "peer-role": c.peer_role.to_string(),
        "tls": c.options.as_ref().and_then(|o| o.tls),
        "ap-in-flight": c.statistics.application_in_flight.map(|s| s.0),
        "rs-in-flight": c.statistics.resync_in_flight.map(|s| s.0),
        "paths": c.paths.iter().map(|p| json!({
            "this_host": address_json(&p.addresses.local),
            "remote_host": address_json(&p.addresses.remote),
            "established": p.established,
        })).collect::<Vec<_>>(),
        "peer_devices": c.peer_devices.iter().map(|p| {
            let size = r.device(p.volume).map_or(Sectors(0), |d| d.statistics.size);
            peer_device_json(p, size)
        }).collect::<Vec<_>>(),
    })
}

pub(crate) fn address_json(address: &Address) -> Value {
    let addr = address.socket_addr().unwrap();
    json!({
        "address": addr.ip().to_string(),
        "port": addr.port(),
        "family": if addr.is_ipv4() { "ipv4" } else { "ipv6" },
    })
}

pub(crate) fn peer_device_json(p: &PeerDevice, size: Sectors) -> Value {
    let s = &p.statistics;
    let verify = matches!(
        p.replication,
        ReplicationState::VerifyS | ReplicationState::VerifyT
    );
    let sync = (ReplicationState::SyncSource.into()..=u32::from(ReplicationState::PausedSyncT))
        .contains(&u32::from(p.replication));
    let in_sync = if size.0 == 0 {
        0.0
    } else {
        100.0 * (size.0.saturating_sub(s.out_of_sync.0)) as f64 / size.0 as f64
    };
    let window = |w: Option<(u64, Sectors)>| w.unwrap_or_default();
    json!({
        "volume": p.volume.0,
        "replication-state": p.replication.to_string(),
        "peer-disk-state": p.peer_disk_state.to_string(),
        "peer-client": p.peer_intentional_diskless,
        "resync-suspended": resync_suspended(&p.resync_suspended),
        "received": kib(s.received),
        "sent": kib(s.sent),
        "out-of-sync": kib(s.out_of_sync),
        "pending": s.pending,
        "unacked": s.unacked,
        "has-sync-details": sync,
        "has-online-verify-details": verify,
        "percent-in-sync": (in_sync * 100.0).round() / 100.0,
        "rs-total": s.resync_total.map(|s| s.0),
        "rs-dt-start-ms": s.resync_elapsed_ms,
        "rs-paused-ms": s.resync_paused_ms,
        "rs-dt0-ms": window(s.resync_recent).0,
        "rs-db0-sectors": window(s.resync_recent).1.0,
        "rs-dt1-ms": window(s.resync_recent_long).0,
        "rs-db1-sectors": window(s.resync_recent_long).1.0,
        "rs-failed": s.resync_failed.0,
        "rs-same-csum": s.resync_same_checksum,
        "ov-start-sector": s.verify_start.map(|s| s.0),
        // drbdsetup prints the end that is not set as a signed number.
        "ov-stop-sector": s.verify_stop.map(|s| s.0.cast_signed()),
        "ov-position": s.verify_position.map(|s| s.0),
        "ov-left": s.verify_left.map(|s| s.0),
        "ov-skipped": s.verify_skipped.map(|s| s.0),
    })
}

pub(crate) fn resync_suspended(s: &ResyncSuspended) -> String {
    let mut reasons = Vec::new();
    for (set, word) in [
        (s.user, "user"),
        (s.peer, "peer"),
        (s.dependency, "dependency"),
        (s.max_parallel == Some(true), "max-parallel"),
    ] {
        if set {
            reasons.push(word);
        }
    }
    if reasons.is_empty() {
        "no".into()
    } else {
        reasons.join(",")
    }
}

pub(crate) fn suspended(s: &Suspended) -> String {
    let mut reasons = Vec::new();
    for (set, word) in [
        (s.user, "user"),
        (s.no_data, "no-data"),
        (s.fencing, "fencing"),
        (s.quorum == Some(true), "quorum"),
    ] {
        if set {
            reasons.push(word);
        }
    }
    if reasons.is_empty() {
        "no".into()
    } else {
        reasons.join(",")
    }
}

pub(crate) fn blocked(s: &DeviceStatistics) -> &'static str {
    match (s.upper_blocked, s.lower_blocked) {
        (false, false) => "no",
        (true, false) => "upper",
        (false, true) => "lower",
        (true, true) => "upper,lower",
    }
}

pub(crate) fn text(r: &Resource, verbose: bool, statistics: bool) -> Vec<String> {
    let mut words = vec![r.name.to_string(), format!("role:{}", r.role)];
    if verbose || r.suspended.any() {
        words.push(format!("suspended:{}", suspended(&r.suspended)));
    }
    if statistics {
        words.push(format!("write-ordering:{}", r.write_ordering.unwrap()));
    }
    for d in &r.devices {
        words.push(format!("volume:{}", d.volume));
        if verbose {
            words.push(format!("minor:{}", d.minor));
        }
        words.push(format!("disk:{}", d.disk_state));
        if statistics {
            words.extend(device_statistics(&d.statistics));
            words.push(format!("al-suspended:{}", yes(d.statistics.al_suspended)));
        }
        if statistics || d.statistics.upper_blocked {
            words.push(format!("blocked:{}", blocked(&d.statistics)));
        }
    }
    for c in &r.connections {
        words.push("peer".into());
        if verbose || c.state != ConnectionState::Connected {
            words.push(format!("connection:{}", c.state));
        }
        if verbose || c.state == ConnectionState::Connected {
            words.push(format!("role:{}", c.peer_role));
        }
        if statistics {
            words.push(format!("congested:{}", yes(c.statistics.congested)));
        }
        for p in &c.peer_devices {
            let connected = p.replication != ReplicationState::Off;
            if !verbose && !connected {
                continue;
            }
            words.push(format!("volume:{}", p.volume));
            words.push(format!("replication:{}", p.replication));
            words.push(format!("peer-disk:{}", p.peer_disk_state));
            let value = peer_device_json(p, r.device(p.volume).unwrap().statistics.size);
            if u32::from(p.replication) > u32::from(ReplicationState::Established)
                && u32::from(p.replication) < u32::from(ReplicationState::Ahead)
            {
                words.push(format!(
                    "done:{:.2}",
                    value["percent-in-sync"].as_f64().unwrap()
                ));
            }
            let suspended = resync_suspended(&p.resync_suspended);
            if verbose || suspended != "no" {
                words.push(format!("resync-suspended:{suspended}"));
            }
            if statistics {
                words.extend(peer_device_statistics(&p.statistics));
            }
        }
    }
    words
}

pub(crate) fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

pub(crate) fn device_statistics(s: &DeviceStatistics) -> Vec<String> {
    vec![
        format!("size:{}", kib(s.size)),
        format!("read:{}", kib(s.read)),
        format!("written:{}", kib(s.written)),
        format!("al-writes:{}", s.al_writes),
        format!("bm-writes:{}", s.bm_writes),
        format!("upper-pending:{}", s.upper_pending),
        format!("lower-pending:{}", s.lower_pending),
    ]
}

pub(crate) fn peer_device_statistics(s: &PeerDeviceStatistics) -> Vec<String> {
    vec![
        format!("received:{}", kib(s.received)),
        format!("sent:{}", kib(s.sent)),
        format!("out-of-sync:{}", kib(s.out_of_sync)),
        format!("pending:{}", s.pending),
        format!("unacked:{}", s.unacked),
    ]
}
