//! The state in drbdsetup's words, to compare the two.

use drbd_nl::{
    ConnectionState, DeviceStatistics, PeerDeviceStatistics, ReplicationState, Resource,
    ResyncSuspended, Sectors, Suspended,
};

pub(crate) fn kib(sectors: Sectors) -> u64 {
    sectors.0 / 2
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
            if u32::from(p.replication) > u32::from(ReplicationState::Established)
                && u32::from(p.replication) < u32::from(ReplicationState::Ahead)
            {
                let size = r.device(p.volume).unwrap().statistics.size.0;
                let in_sync = size.saturating_sub(p.statistics.out_of_sync.0);
                words.push(format!("done:{:.2}", 100.0 * in_sync as f64 / size as f64));
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
