//! The state in drbdsetup's JSON, for readers of that: [`Status`] is
//! `drbdsetup status --json --verbose --statistics`, [`Show`] is
//! `drbdsetup show --json --show-defaults`. Both work on DRBD 8.4 too, whose
//! drbdsetup has no JSON; what a kernel does not say is left out.
//!
//! The model itself also serialises, under the names of its fields, with
//! more in it than these two together.
//!
//! ```no_run
//! # fn to_string(_: &impl serde::Serialize) -> String { String::new() }
//! let state = drbd_nl::Drbd::open()?.snapshot(std::time::Duration::from_secs(5))?;
//! println!("{}", to_string(&drbd_nl::json::Status(&state))); // serde_json::to_string
//! # Ok::<(), drbd_nl::Error>(())
//! ```

use crate::model::{
    Address, Connection, ConnectionState, Device, MetaDisk, Path, PeerDevice, ReplicationState,
    Resource, ResyncSuspended, Sectors, Shown, State,
};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::time::Duration;

/// `drbdsetup status --json --verbose --statistics`.
#[derive(Clone, Copy, Debug)]
pub struct Status<'a>(pub &'a State);

/// `drbdsetup show --json --show-defaults`.
///
/// A shared secret is shown as `(not shown)` unless asked for.
#[derive(Clone, Copy, Debug)]
pub struct Show<'a> {
    state: &'a State,
    secrets: bool,
}

impl<'a> Show<'a> {
    /// The settings, without the secrets.
    #[must_use]
    pub fn new(state: &'a State) -> Self {
        Self {
            state,
            secrets: false,
        }
    }

    /// With the secrets, as far as the kernel gave them.
    #[must_use]
    pub fn reveal_secrets(mut self) -> Self {
        self.secrets = true;
        self
    }
}

impl Serialize for Status<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.resources.iter().map(resource_status))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ResourceStatus<'a> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<u32>,
    role: String,
    suspended: bool,
    suspended_user: bool,
    suspended_no_data: bool,
    suspended_fencing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended_quorum: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    force_io_failures: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_ordering: Option<String>,
    devices: Vec<DeviceStatus>,
    connections: Vec<ConnectionStatus<'a>>,
}

fn resource_status(r: &Resource) -> ResourceStatus<'_> {
    ResourceStatus {
        name: r.name.to_string(),
        node_id: r.node_id.map(|id| id.0),
        role: r.role.to_string(),
        suspended: r.suspended.any(),
        suspended_user: r.suspended.user,
        suspended_no_data: r.suspended.no_data,
        suspended_fencing: r.suspended.fencing,
        suspended_quorum: r.suspended.quorum,
        force_io_failures: r.fail_io,
        write_ordering: r.write_ordering.map(|w| w.to_string()),
        devices: r.devices.iter().map(device_status).collect(),
        connections: r
            .connections
            .iter()
            .map(|c| connection_status(r, c))
            .collect(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DeviceStatus {
    volume: u32,
    minor: u32,
    disk_state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quorum: Option<bool>,
    #[serde(rename = "backing_dev")]
    backing_dev: String,
    size: u64,
    read: u64,
    written: u64,
    al_writes: u64,
    bm_writes: u64,
    upper_pending: u32,
    lower_pending: u32,
    al_suspended: bool,
    blocked: &'static str,
}

fn kib(sectors: Sectors) -> u64 {
    sectors.0 / 2
}

fn disk_name(d: &Device) -> String {
    d.backing_dev
        .as_ref()
        .map_or_else(|| "none".into(), |path| path.display().to_string())
}

fn device_status(d: &Device) -> DeviceStatus {
    let s = &d.statistics;
    DeviceStatus {
        volume: d.volume.0,
        minor: d.minor.0,
        disk_state: d.disk_state.to_string(),
        client: d.intentional_diskless,
        open: d.open,
        quorum: d.quorum,
        backing_dev: disk_name(d),
        size: kib(s.size),
        read: kib(s.read),
        written: kib(s.written),
        al_writes: s.al_writes,
        bm_writes: s.bm_writes,
        upper_pending: s.upper_pending,
        lower_pending: s.lower_pending,
        al_suspended: s.al_suspended,
        blocked: match (s.upper_blocked, s.lower_blocked) {
            (false, false) => "no",
            (true, false) => "upper",
            (false, true) => "lower",
            (true, true) => "upper,lower",
        },
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ConnectionStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_node_id: Option<u32>,
    name: String,
    connection_state: String,
    congested: bool,
    peer_role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ap_in_flight: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rs_in_flight: Option<u64>,
    paths: Vec<PathStatus<'a>>,
    #[serde(rename = "peer_devices")]
    peer_devices: Vec<PeerDeviceStatus>,
}

fn connection_status<'a>(r: &Resource, c: &'a Connection) -> ConnectionStatus<'a> {
    let s = &c.statistics;
    ConnectionStatus {
        peer_node_id: c.peer_node_id.map(|id| id.0),
        name: c.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        connection_state: c.state.to_string(),
        congested: s.congested,
        peer_role: c.peer_role.to_string(),
        tls: c.options.as_ref().and_then(|options| options.tls),
        ap_in_flight: s.application_in_flight.map(|n| n.0),
        rs_in_flight: s.resync_in_flight.map(|n| n.0),
        paths: c.paths.iter().map(path_status).collect(),
        peer_devices: c
            .peer_devices
            .iter()
            .map(|p| {
                let size = r.device(p.volume).map_or(Sectors(0), |d| d.statistics.size);
                peer_device_status(p, size)
            })
            .collect(),
    }
}

#[derive(Serialize)]
struct PathStatus<'a> {
    this_host: End<'a>,
    remote_host: End<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    established: Option<bool>,
}

fn path_status(path: &Path) -> PathStatus<'_> {
    PathStatus {
        this_host: End(&path.addresses.local),
        remote_host: End(&path.addresses.remote),
        established: path.established,
    }
}

/// One end of a path.
struct End<'a>(&'a Address);

impl Serialize for End<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        match self.0.socket_addr() {
            Some(addr) => {
                map.serialize_entry("address", &addr.ip())?;
                map.serialize_entry("port", &addr.port())?;
            }
            None => map.serialize_entry("address", &self.0.to_string())?,
        }
        map.serialize_entry("family", &self.0.family_word())?;
        map.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PeerDeviceStatus {
    volume: u32,
    replication_state: String,
    peer_disk_state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_client: Option<bool>,
    resync_suspended: String,
    received: u64,
    sent: u64,
    out_of_sync: u64,
    pending: u32,
    unacked: u32,
    has_sync_details: bool,
    has_online_verify_details: bool,
    percent_in_sync: f64,
    #[serde(flatten)]
    details: Option<Details>,
    #[serde(flatten)]
    verify: Option<VerifyDetails>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Details {
    rs_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rs_dt_start_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rs_paused_ms: Option<u64>,
    rs_dt0_ms: u64,
    rs_db0_sectors: u64,
    rs_dt1_ms: u64,
    rs_db1_sectors: u64,
    rs_failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rs_same_csum: Option<u64>,
    want: f64,
    #[serde(rename = "db0/dt0 [MiB/s]")]
    recent: f64,
    #[serde(rename = "db1/dt1 [MiB/s]")]
    recent_long: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_seconds_to_finish: Option<u64>,
    #[serde(rename = "db/dt [MiB/s]")]
    average: f64,
    percent_resync_done: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct VerifyDetails {
    ov_start_sector: Option<u64>,
    /// Signed, as drbdsetup prints it: -1 is no end.
    ov_stop_sector: Option<i64>,
    ov_position: Option<u64>,
    ov_left: Option<u64>,
    ov_skipped: Option<u64>,
}

/// Two digits, as drbdsetup prints them.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[allow(
    clippy::cast_precision_loss,
    reason = "two digits need no more than f64 holds"
)]
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        rounded(100.0 * part as f64 / whole as f64)
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "two digits need no more than f64 holds"
)]
fn mib_per_second((millis, sectors): (u64, Sectors)) -> f64 {
    if millis == 0 {
        0.0
    } else {
        rounded(sectors.0 as f64 / 2048.0 / (millis as f64 / 1000.0))
    }
}

fn peer_device_status(p: &PeerDevice, size: Sectors) -> PeerDeviceStatus {
    let s = &p.statistics;
    let verify = matches!(
        p.replication,
        ReplicationState::VerifyS | ReplicationState::VerifyT
    );
    let progress = p.progress();
    PeerDeviceStatus {
        volume: p.volume.0,
        replication_state: p.replication.to_string(),
        peer_disk_state: p.peer_disk_state.to_string(),
        peer_client: p.peer_intentional_diskless,
        resync_suspended: resync_suspended(&p.resync_suspended),
        received: kib(s.received),
        sent: kib(s.sent),
        out_of_sync: kib(s.out_of_sync),
        pending: s.pending,
        unacked: s.unacked,
        has_sync_details: progress.is_some(),
        has_online_verify_details: verify,
        percent_in_sync: percent(size.0.saturating_sub(s.out_of_sync.0), size.0),
        details: progress.and_then(|progress| {
            let total = progress.total?;
            let done = total.0.saturating_sub(progress.left.0);
            let (recent, recent_long) = (
                s.resync_recent.unwrap_or_default(),
                s.resync_recent_long.unwrap_or_default(),
            );
            let elapsed = s.resync_elapsed_ms.unwrap_or(0);
            let active = elapsed.saturating_sub(s.resync_paused_ms.unwrap_or(0));
            Some(Details {
                rs_total: total.0,
                rs_dt_start_ms: s.resync_elapsed_ms,
                rs_paused_ms: s.resync_paused_ms,
                rs_dt0_ms: recent.0,
                rs_db0_sectors: recent.1.0,
                rs_dt1_ms: recent_long.0,
                rs_db1_sectors: recent_long.1.0,
                rs_failed: s.resync_failed.0,
                rs_same_csum: s.resync_same_checksum,
                want: rounded(f64::from(s.resync_wanted_rate.unwrap_or(0)) / 1024.0),
                recent: mib_per_second(recent),
                recent_long: mib_per_second(recent_long),
                estimated_seconds_to_finish: progress
                    .remaining
                    .map(|t| t.saturating_add(Duration::from_millis(500)).as_secs()),
                average: mib_per_second((active, Sectors(done))),
                percent_resync_done: percent(done, total.0),
            })
        }),
        verify: verify.then(|| VerifyDetails {
            ov_start_sector: s.verify_start.map(|n| n.0),
            ov_stop_sector: s.verify_stop.map(|n| n.0.cast_signed()),
            ov_position: s.verify_position.map(|n| n.0),
            ov_left: s.verify_left.map(|n| n.0),
            ov_skipped: s.verify_skipped.map(|n| n.0),
        }),
    }
}

fn resync_suspended(s: &ResyncSuspended) -> String {
    let reasons: Vec<_> = [
        (s.user, "user"),
        (s.peer, "peer"),
        (s.dependency, "dependency"),
        (s.max_parallel == Some(true), "max-parallel"),
    ]
    .into_iter()
    .filter_map(|(is, reason)| is.then_some(reason))
    .collect();
    if reasons.is_empty() {
        "no".into()
    } else {
        reasons.join(",")
    }
}

impl Serialize for Show<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let resources = self.state.resources.iter();
        serializer.collect_seq(resources.map(|r| resource_show(r, self.secrets)))
    }
}

/// Settings by name, in drbdsetup's way: flags as such, numbers with their
/// unit as strings.
#[derive(Default)]
struct Settings(Vec<(&'static str, Shown)>);

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Word(word) => serializer.serialize_str(word),
        }
    }
}

#[derive(Serialize)]
struct ResourceShow<'a> {
    resource: String,
    options: Settings,
    #[serde(rename = "_this_host")]
    this_host: ThisHost,
    connections: Vec<ConnectionShow<'a>>,
}

#[derive(Serialize)]
struct ThisHost {
    #[serde(rename = "node-id", skip_serializing_if = "Option::is_none")]
    node_id: Option<u32>,
    volumes: Vec<VolumeShow>,
}

#[derive(Serialize)]
struct VolumeShow {
    volume_nr: u32,
    device_minor: u32,
    #[serde(rename = "backing-disk", skip_serializing_if = "Option::is_none")]
    backing_disk: Option<String>,
    #[serde(rename = "meta-disk", skip_serializing_if = "Option::is_none")]
    meta_disk: Option<String>,
    disk: Settings,
}

#[derive(Serialize)]
struct ConnectionShow<'a> {
    #[serde(rename = "_peer_node_id", skip_serializing_if = "Option::is_none")]
    peer_node_id: Option<u32>,
    paths: Vec<PathShow<'a>>,
    #[serde(rename = "path", skip_serializing_if = "Option::is_none")]
    old_path: Option<OldPath>,
    #[serde(rename = "_is_standalone", skip_serializing_if = "std::ops::Not::not")]
    is_standalone: bool,
    #[serde(rename = "_cstate")]
    cstate: String,
    net: Settings,
    volumes: Vec<PeerVolumeShow>,
}

#[derive(Serialize)]
struct PathShow<'a> {
    this_host: End<'a>,
    remote_host: End<'a>,
}

/// How drbd-utils before 9.25 shows the (last) path.
#[derive(Serialize)]
struct OldPath {
    #[serde(rename = "_this_host")]
    this_host: String,
    #[serde(rename = "_remote_host")]
    remote_host: String,
}

#[derive(Serialize)]
struct PeerVolumeShow {
    volume_nr: u32,
    disk: Settings,
}

fn resource_show(r: &Resource, secrets: bool) -> ResourceShow<'_> {
    let settings =
        |values: Option<Vec<(&'static str, Shown)>>| Settings(values.unwrap_or_default());
    ResourceShow {
        resource: r.name.to_string(),
        options: settings(r.options.as_ref().map(|options| options.shown(secrets))),
        this_host: ThisHost {
            node_id: r.node_id.map(|id| id.0),
            volumes: r.devices.iter().map(|d| volume_show(d, secrets)).collect(),
        },
        connections: r
            .connections
            .iter()
            .map(|c| {
                let mut net = settings(c.options.as_ref().map(|options| options.shown(secrets)));
                if let Some(name) = &c.name {
                    net.0.push(("_name", Shown::Word(name.to_string())));
                }
                ConnectionShow {
                    peer_node_id: c.peer_node_id.map(|id| id.0),
                    paths: c
                        .paths
                        .iter()
                        .map(|path| PathShow {
                            this_host: End(&path.addresses.local),
                            remote_host: End(&path.addresses.remote),
                        })
                        .collect(),
                    old_path: c.paths.last().map(|path| OldPath {
                        this_host: path.addresses.local.to_string().replacen(':', " ", 1),
                        remote_host: path.addresses.remote.to_string().replacen(':', " ", 1),
                    }),
                    is_standalone: c.state == ConnectionState::StandAlone,
                    cstate: c.state.to_string(),
                    net,
                    volumes: c
                        .peer_devices
                        .iter()
                        .map(|p| PeerVolumeShow {
                            volume_nr: p.volume.0,
                            disk: settings(p.options.as_ref().map(|o| o.shown(secrets))),
                        })
                        .collect(),
                }
            })
            .collect(),
    }
}

fn volume_show(d: &Device, secrets: bool) -> VolumeShow {
    let mut disk = Settings::default();
    if let Some(options) = &d.device_options {
        disk.0
            .extend(options.shown(secrets).into_iter().map(|(name, value)| {
                // drbdsetup prints this one flag as a word.
                match value {
                    Shown::Flag(flag) => {
                        let word = if flag { "yes" } else { "no" };
                        (name, Shown::Word(word.into()))
                    }
                    word @ Shown::Word(_) => (name, word),
                }
            }));
    }
    if let Some(options) = &d.options {
        disk.0.extend(options.shown(secrets));
    }
    VolumeShow {
        volume_nr: d.volume.0,
        device_minor: d.minor.0,
        backing_disk: d
            .backing_dev
            .as_ref()
            .map(|path| path.display().to_string()),
        meta_disk: d.meta_disk.as_ref().map(|meta| match meta {
            MetaDisk::Internal => "internal".to_owned(),
            MetaDisk::Flexible(path) => path.display().to_string(),
            MetaDisk::Indexed(path, index) => format!("{} [{index}]", path.display()),
            MetaDisk::Other(path, index) => format!("{} [{index}]", path.display()),
        }),
        disk,
    }
}
