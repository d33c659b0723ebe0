//! The placement file: what belongs together, and where it should run.
//!
//! One TOML file on each node, outside the replicated store, says which DRBD
//! resource carries which mount point, lxcpath and containers, which node is
//! meant to own it, how long each step may take and how a dead peer is fenced.
//! Everything in it except the table `[local]` must be the same on both nodes;
//! [`Resource::digest`] is what they compare.
//!
//! ```
//! let placement = ha_failover::Placement::parse(
//!     r#"
//!     version = 1
//!     [[resource]]
//!     name = "r0"
//!     mount = "/srv/store1"
//!     lxcpath = "/srv/store1/containers"
//!     owner = "node1"
//!     [resource.nodes]
//!     node1 = { address = "10.0.254.1" }
//!     node2 = { address = "10.0.254.2" }
//!     [[resource.container]]
//!     name = "app"
//!     "#,
//!     "placement.toml",
//! )?;
//! assert_eq!(placement.resource("r0")?.peer_of("node1")?, "node2");
//! # Ok::<(), ha_failover::Error>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::duration;
use crate::error::{Error, ErrorKind, Result};

/// Where the placement file is, unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/ha-failover/placement.toml";

/// A checked placement file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// Settings of this node alone.
    pub local: Local,
    /// The resources, in the order of the file.
    pub resources: Vec<Resource>,
}

/// `[local]`: what may differ between the nodes and is left out of the digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Local {
    /// Directory of ledger, journal and lock; on a local file system, never in a store.
    pub state_dir: PathBuf,
    /// This node's DRBD configuration.
    pub drbd_conf: PathBuf,
    /// Program the kernel calls for DRBD's handlers; the shipped `drbd-helper` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usermode_helper: Option<PathBuf>,
}

impl Default for Local {
    fn default() -> Self {
        Local {
            state_dir: "/var/lib/ha-failover".into(),
            drbd_conf: "/etc/drbd.conf".into(),
            usermode_helper: None,
        }
    }
}

/// `[[resource]]`: one DRBD resource and all that stands on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Resource {
    /// The resource's name in drbd.conf.
    pub name: String,
    /// Which volume of the resource carries the store.
    pub volume: u16,
    /// Where the store is mounted, the same on both nodes.
    pub mount: PathBuf,
    /// Btrfs mount options beside the policy's own.
    pub mount_options: Vec<String>,
    /// The directory of the containers, below [`Resource::mount`].
    pub lxcpath: PathBuf,
    /// The node that is meant to serve when both can.
    pub owner: String,
    /// The two nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// How the peer is proved to be off.
    pub fence: Fence,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// The containers, in start order.
    pub containers: Vec<ContainerSpec>,
}

/// A node of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Node {
    /// The address DRBD uses for it; must agree with drbd.conf.
    pub address: IpAddr,
}

/// How it is proved that the peer is off before its store is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "method")]
#[non_exhaustive]
pub enum Fence {
    /// Nothing can do it: only an operator's word counts (`takeover --attest`).
    Operator,
    /// A program with the exit codes of fence agents: status 0 = on, 2 = off.
    Command {
        /// Arguments that ask for the power state; `{node}` is replaced.
        status: Vec<String>,
        /// Arguments that switch the node off; `{node}` is replaced.
        off: Vec<String>,
        /// How long one run may take.
        #[serde(serialize_with = "duration::serialize")]
        deadline: Duration,
    },
}

/// How long things may take. A step that outlives its deadline has an unknown outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Deadlines {
    /// To find the peer after `up`.
    #[serde(with = "duration")]
    pub connect: Duration,
    /// One DRBD request.
    #[serde(with = "duration")]
    pub drbd: Duration,
    /// To mount the store, log replay included.
    #[serde(with = "duration")]
    pub mount: Duration,
    /// To unmount it.
    #[serde(with = "duration")]
    pub unmount: Duration,
    /// For a promotion, with its retries while the kernel gives a passing reason.
    #[serde(with = "duration")]
    pub promote: Duration,
    /// For a demotion, with its retries while somebody passing holds the device.
    #[serde(with = "duration")]
    pub demote: Duration,
    /// `handover`: how long the target waits for the source to let go.
    #[serde(with = "duration")]
    pub handover: Duration,
    /// `release`: how long the source waits for the target before it takes the store back.
    #[serde(with = "duration")]
    pub take_back: Duration,
    /// `initialize`: how long the first sync may take when it is waited for.
    #[serde(with = "duration")]
    pub sync: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let s = Duration::from_secs;
        Deadlines {
            connect: s(20),
            drbd: s(20),
            mount: s(60),
            unmount: s(30),
            promote: s(30),
            demote: s(15),
            handover: s(300),
            take_back: s(30),
            sync: s(24 * 3600),
        }
    }
}

/// `[[resource.container]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ContainerSpec {
    /// Its name below the lxcpath.
    pub name: String,
    /// How long it may take until it runs.
    #[serde(serialize_with = "duration::serialize")]
    pub start_deadline: Duration,
    /// How long it may take to shut down before it is killed.
    #[serde(serialize_with = "duration::serialize")]
    pub stop_deadline: Duration,
    /// Addresses to announce on the segment after the start.
    pub addresses: Vec<Address>,
    /// What tells that it serves.
    pub ready: Option<Ready>,
}

/// `[[resource.container.address]]`: an address neighbours must learn again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Address {
    /// The container's address.
    pub ip: IpAddr,
    /// Its hardware address; must be fixed in the container's configuration.
    pub mac: MacAddress,
    /// The bridge of the host that carries it, present on both nodes.
    pub bridge: String,
}

/// `[resource.container.ready]`: a probe, tried until it answers or the deadline passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Ready {
    /// Somebody accepts a connection at this address.
    Tcp(SocketAddr),
    /// This command inside the container ends with 0.
    Exec(Vec<String>),
}

/// A hardware address, written `00:16:3e:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no hardware address; write e.g. \"00:16:3e:00:00:01\"");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        parts.next().map_or(Ok(MacAddress(bytes)), |_| Err(wrong()))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Placement {
    /// Reads and checks a placement file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Placement`] with file, line and column for a syntax error,
    /// an unknown key, a wrong type or a value that cannot be right;
    /// [`ErrorKind::Permission`] when the file may not be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|e| {
            Error::io(
                ErrorKind::Placement,
                format!("placement {}: cannot be read", path.display()),
                e,
            )
            .remedy(format!(
                "write the placement file (default {DEFAULT_PATH}) or name it with --placement FILE"
            ))
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Parses and checks the text of a placement file; `name` is used in messages.
    ///
    /// # Errors
    ///
    /// As [`Placement::load`].
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let raw: RawPlacement = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            located(name, text, at, e.message())
        })?;
        let version = *raw.version.get_ref();
        if version != 1 {
            return Err(located(
                name,
                text,
                raw.version.span().start,
                &format!("version {version} is not known; this program reads version 1"),
            ));
        }
        let mut resources: Vec<Resource> = Vec::new();
        for raw in raw.resource {
            let at = raw.name.span().start;
            let resource = check(raw).map_err(|(at, what)| located(name, text, at, &what))?;
            let clash = resources.iter().find_map(|other| {
                if other.name == resource.name {
                    Some(format!("resource `{}` is there twice", other.name))
                } else if other.mount == resource.mount {
                    Some(format!(
                        "resources `{}` and `{}` have the same mount point {}",
                        other.name,
                        resource.name,
                        other.mount.display()
                    ))
                } else {
                    None
                }
            });
            if let Some(what) = clash {
                return Err(located(name, text, at, &what));
            }
            resources.push(resource);
        }
        for resource in &resources {
            if raw.local.state_dir.starts_with(&resource.mount) {
                return Err(Error::new(
                    ErrorKind::Placement,
                    format!(
                        "placement {name}: local.state_dir {} lies in the store of `{}`",
                        raw.local.state_dir.display(),
                        resource.name
                    ),
                )
                .remedy("the state directory must be on a file system of this node alone"));
            }
        }
        Ok(Placement {
            local: raw.local,
            resources,
        })
    }

    /// Finds a resource by name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownResource`], naming the ones there are.
    pub fn resource(&self, name: &str) -> Result<&Resource> {
        self.resources
            .iter()
            .find(|r| r.name == name)
            .ok_or_else(|| {
                let names: Vec<_> = self.resources.iter().map(|r| r.name.as_str()).collect();
                Error::new(
                    ErrorKind::UnknownResource,
                    format!("resource `{name}` is not in the placement file"),
                )
                .remedy(if names.is_empty() {
                    "the file has no [[resource]] at all; add one".to_owned()
                } else {
                    format!("it has: {}", names.join(", "))
                })
            })
    }
}

impl Resource {
    /// The other node, seen from `node`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Placement`] when `node` is not one of the two.
    pub fn peer_of(&self, node: &str) -> Result<&str> {
        if !self.nodes.contains_key(node) {
            let names: Vec<_> = self.nodes.keys().map(String::as_str).collect();
            return Err(Error::new(
                ErrorKind::Placement,
                format!("node `{node}` is not in `resource.nodes` of `{}`", self.name),
            )
            .remedy(format!(
                "this host calls itself `{node}`, the placement knows {}; correct the host name or the placement",
                names.join(" and ")
            )));
        }
        Ok(self
            .nodes
            .keys()
            .find(|name| *name != node)
            .expect("checked to be two nodes when parsed"))
    }

    /// The canonical form of what both nodes must agree on.
    ///
    /// It is written into the store by the node that serves, so that the next
    /// one can say what differs and not only that something does.
    #[must_use]
    pub fn canonical(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("strings, numbers, lists and tables only")
    }

    /// A short name of [`Resource::canonical`]: 16 hexadecimal digits (FNV-1a).
    ///
    /// It finds accidents, not forgeries.
    #[must_use]
    pub fn digest(&self) -> String {
        digest_of(&self.canonical())
    }
}

/// The digest of a canonical form.
pub(crate) fn digest_of(canonical: &serde_json::Value) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in canonical.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Reads a duration as the placement file writes it: `500ms`, `30s`, `2m`, `1h`.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text)
}

/// Lists where two canonical forms differ, as `path: ours, theirs`.
#[must_use]
pub fn differences(ours: &serde_json::Value, theirs: &serde_json::Value) -> Vec<String> {
    fn walk(path: &str, a: &serde_json::Value, b: &serde_json::Value, out: &mut Vec<String>) {
        use serde_json::Value::{Array, Null, Object};
        match (a, b) {
            (Object(a), Object(b)) => {
                let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
                for key in keys {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    walk(
                        &path,
                        a.get(key).unwrap_or(&Null),
                        b.get(key).unwrap_or(&Null),
                        out,
                    );
                }
            }
            (Array(a), Array(b)) => {
                for i in 0..a.len().max(b.len()) {
                    walk(
                        &format!("{path}[{i}]"),
                        a.get(i).unwrap_or(&Null),
                        b.get(i).unwrap_or(&Null),
                        out,
                    );
                }
            }
            (a, b) if a != b => out.push(format!("{path}: {a} here, {b} there")),
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", ours, theirs, &mut out);
    out
}

/// An error at a byte offset of the file, shown as line and column with the line itself.
fn located(name: &str, text: &str, at: usize, what: &str) -> Error {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let column = before[start..].chars().count() + 1;
    let shown = text[start..].lines().next().unwrap_or("").trim_end();
    Error::new(
        ErrorKind::Placement,
        format!(
            "placement {name}:{line}:{column}: {}: `{}`",
            what.trim_end(),
            shown.trim()
        ),
    )
    .remedy("correct the file; examples/placement.toml shows every key")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlacement {
    version: Spanned<i64>,
    #[serde(default)]
    local: Local,
    #[serde(default)]
    resource: Vec<RawResource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResource {
    name: Spanned<String>,
    #[serde(default)]
    volume: u16,
    mount: Spanned<PathBuf>,
    #[serde(default)]
    mount_options: Vec<Spanned<String>>,
    lxcpath: Spanned<PathBuf>,
    owner: Spanned<String>,
    nodes: Spanned<BTreeMap<String, Node>>,
    fence: Option<Spanned<RawFence>>,
    #[serde(default)]
    deadlines: Deadlines,
    #[serde(default)]
    container: Vec<RawContainer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFence {
    method: FenceMethod,
    #[serde(default)]
    status: Vec<String>,
    #[serde(default)]
    off: Vec<String>,
    #[serde(default = "fence_deadline", deserialize_with = "duration::deserialize")]
    deadline: Duration,
}

fn fence_deadline() -> Duration {
    Duration::from_secs(60)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FenceMethod {
    Operator,
    Command,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawContainer {
    name: Spanned<String>,
    #[serde(
        default = "container_deadline",
        deserialize_with = "duration::deserialize"
    )]
    start_deadline: Duration,
    #[serde(
        default = "container_deadline",
        deserialize_with = "duration::deserialize"
    )]
    stop_deadline: Duration,
    #[serde(default)]
    address: Vec<Address>,
    ready: Option<Spanned<RawReady>>,
}

fn container_deadline() -> Duration {
    Duration::from_secs(30)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReady {
    tcp: Option<SocketAddr>,
    exec: Option<Vec<String>>,
}

type Wrong = (usize, String);

/// Turns what the file says into a resource, or says where it cannot be right.
fn check(raw: RawResource) -> Result<Resource, Wrong> {
    let name = plain_name(&raw.name, "resource")?;
    let mount = plain_path(&raw.mount, "mount")?;
    if mount == Path::new("/") {
        return Err((raw.mount.span().start, "mount cannot be `/`".into()));
    }
    let lxcpath = plain_path(&raw.lxcpath, "lxcpath")?;
    if !lxcpath.starts_with(&mount) || lxcpath == mount {
        return Err((
            raw.lxcpath.span().start,
            format!(
                "lxcpath {} must be a directory below the mount point {}",
                lxcpath.display(),
                mount.display()
            ),
        ));
    }
    let mut mount_options = Vec::new();
    for option in raw.mount_options {
        let word = option.get_ref().split('=').next().unwrap_or("");
        if [
            "ro",
            "degraded",
            "usebackuproot",
            "nologreplay",
            "rescue",
            "subvol",
            "subvolid",
            "device",
        ]
        .contains(&word)
        {
            return Err((
                option.span().start,
                format!("mount option `{word}` is not accepted for a store that serves"),
            ));
        }
        mount_options.push(option.into_inner());
    }
    let nodes_at = raw.nodes.span().start;
    let nodes = raw.nodes.into_inner();
    if nodes.len() != 2 {
        return Err((
            nodes_at,
            format!(
                "resource `{name}` needs exactly two nodes, the file has {}",
                nodes.len()
            ),
        ));
    }
    for node in nodes.keys() {
        if !is_plain_name(node) {
            return Err((nodes_at, format!("`{node}` cannot be the name of a node")));
        }
    }
    if !nodes.contains_key(raw.owner.get_ref()) {
        return Err((
            raw.owner.span().start,
            format!("owner `{}` is not one of the nodes", raw.owner.get_ref()),
        ));
    }
    let mut containers: Vec<ContainerSpec> = Vec::new();
    for container in raw.container {
        let at = container.name.span().start;
        let name = plain_name(&container.name, "container")?;
        if containers.iter().any(|c| c.name == name) {
            return Err((at, format!("container `{name}` is there twice")));
        }
        containers.push(ContainerSpec {
            name,
            start_deadline: container.start_deadline,
            stop_deadline: container.stop_deadline,
            addresses: container.address,
            ready: container.ready.map(check_ready).transpose()?,
        });
    }
    Ok(Resource {
        name,
        volume: raw.volume,
        mount,
        mount_options,
        lxcpath,
        owner: raw.owner.into_inner(),
        nodes,
        fence: raw.fence.map_or(Ok(Fence::Operator), check_fence)?,
        deadlines: raw.deadlines,
        containers,
    })
}

fn check_fence(raw: Spanned<RawFence>) -> Result<Fence, Wrong> {
    let at = raw.span().start;
    let raw = raw.into_inner();
    match raw.method {
        FenceMethod::Operator if raw.status.is_empty() && raw.off.is_empty() => Ok(Fence::Operator),
        FenceMethod::Operator => Err((
            at,
            "`status` and `off` belong to method = \"command\"".into(),
        )),
        FenceMethod::Command => {
            for (key, argv) in [("status", &raw.status), ("off", &raw.off)] {
                if argv.first().is_none_or(|program| !program.starts_with('/')) {
                    return Err((
                        at,
                        format!("fence.{key} must start with the absolute path of a program"),
                    ));
                }
                if !argv.iter().any(|arg| arg.contains("{node}")) {
                    return Err((
                        at,
                        format!("fence.{key} must name the node to act on by {{node}}"),
                    ));
                }
            }
            Ok(Fence::Command {
                status: raw.status,
                off: raw.off,
                deadline: raw.deadline,
            })
        }
    }
}

fn check_ready(raw: Spanned<RawReady>) -> Result<Ready, Wrong> {
    let at = raw.span().start;
    match raw.into_inner() {
        RawReady {
            tcp: Some(address),
            exec: None,
        } => Ok(Ready::Tcp(address)),
        RawReady {
            tcp: None,
            exec: Some(argv),
        } if !argv.is_empty() => Ok(Ready::Exec(argv)),
        _ => Err((at, "ready needs either `tcp` or a non-empty `exec`".into())),
    }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(['.', '-'])
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn plain_name(name: &Spanned<String>, what: &str) -> Result<String, Wrong> {
    if is_plain_name(name.get_ref()) {
        Ok(name.get_ref().clone())
    } else {
        Err((
            name.span().start,
            format!(
                "`{}` cannot be the name of a {what}: letters, digits, `.`, `_`, `-`, at most 64, not starting with `.` or `-`",
                name.get_ref()
            ),
        ))
    }
}

fn plain_path(path: &Spanned<PathBuf>, what: &str) -> Result<PathBuf, Wrong> {
    let value = path.get_ref();
    let plain = value.is_absolute()
        && value
            .components()
            .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if plain {
        Ok(value.components().collect())
    } else {
        Err((
            path.span().start,
            format!(
                "{what} {} must be an absolute path without `..`",
                value.display()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GOOD: &str = r#"
version = 1

[[resource]]
name = "r0"
mount = "/srv/store1/"
lxcpath = "/srv/store1/containers"
owner = "node1"
nodes.node1.address = "10.0.254.1"
nodes.node2.address = "10.0.254.2"

[resource.fence]
method = "command"
status = ["/run/lab/power", "status", "{node}"]
off = ["/run/lab/power", "off", "{node}"]

[[resource.container]]
name = "app"
stop_deadline = "10s"
address = [{ ip = "10.1.0.20", mac = "00:16:3e:00:00:14", bridge = "br0" }]
ready.tcp = "10.1.0.20:7000"
"#;

    fn refusal(text: &str) -> String {
        Placement::parse(text, "p.toml").unwrap_err().to_string()
    }

    #[test]
    fn reads_a_whole_file() {
        let placement = Placement::parse(GOOD, "p.toml").unwrap();
        let r0 = placement.resource("r0").unwrap();
        assert_eq!(r0.mount, Path::new("/srv/store1"));
        assert_eq!(r0.peer_of("node2").unwrap(), "node1");
        assert_eq!(
            r0.containers[0].addresses[0].mac.to_string(),
            "00:16:3e:00:00:14"
        );
        assert_eq!(placement.local.drbd_conf, Path::new("/etc/drbd.conf"));
        let unknown = placement.resource("r7").unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::UnknownResource);
        assert_eq!(unknown.how_to_go_on(), Some("it has: r0"));
        assert_eq!(
            r0.peer_of("node9").unwrap_err().kind(),
            ErrorKind::Placement
        );
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let text = include_str!("../examples/placement.toml");
        let placement = Placement::parse(text, "examples/placement.toml").unwrap();
        let r0 = placement.resource("r0").unwrap();
        assert_eq!(placement.local, Local::default());
        assert_eq!(r0.deadlines, Deadlines::default());
        assert!(
            matches!(&r0.fence, Fence::Command { deadline, .. } if *deadline == fence_deadline())
        );
        assert_eq!(r0.containers.len(), 2);
    }

    #[test]
    fn says_where_it_is_wrong() {
        let at = refusal(&GOOD.replace("owner = \"node1\"", "onwer = \"node1\""));
        assert!(
            at.starts_with("placement p.toml:8:1: unknown field `onwer`"),
            "{at}"
        );
        let at = refusal(&GOOD.replace("owner = \"node1\"", "owner = \"node3\""));
        assert!(
            at.starts_with("placement p.toml:8:9: owner `node3` is not one of the nodes"),
            "{at}"
        );
        let at = refusal(&GOOD.replace("version = 1", "version = 2"));
        assert!(at.contains("p.toml:2:11"), "{at}");
        let at = refusal(&GOOD.replace("\"10s\"", "\"10 sec\""));
        assert!(
            at.contains("p.toml:19:") && at.contains("no duration"),
            "{at}"
        );
        let at = refusal("version = 1\n[[resource]\n");
        assert!(at.contains("p.toml:2:"), "{at}");
    }

    #[test]
    fn refuses_what_cannot_be_right() {
        for (from, to, what) in [
            (
                "/srv/store1/containers",
                "/srv/store2/containers",
                "below the mount point",
            ),
            ("lxcpath = \"/srv", "lxcpath = \"srv", "absolute path"),
            (
                "name = \"app\"",
                "name = \"../app\"",
                "cannot be the name of a container",
            ),
            ("\"status\", \"{node}\"", "\"status\"", "{node}"),
            (
                "nodes.node2.address = \"10.0.254.2\"",
                "",
                "exactly two nodes",
            ),
            (
                "ready.tcp = \"10.1.0.20:7000\"",
                "ready = {}",
                "either `tcp`",
            ),
            ("00:16:3e:00:00:14", "00:16:3e:00:00", "no hardware address"),
            (
                "owner =",
                "mount_options = [\"degraded\"]\nowner =",
                "mount option `degraded`",
            ),
            (
                "version = 1",
                "version = 1\nlocal.state_dir = \"/srv/store1/state\"",
                "lies in the store",
            ),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let said = refusal(&GOOD.replace(from, to));
            assert!(said.contains(what), "{to}: {said}");
        }
    }

    #[test]
    fn digest_names_what_both_nodes_share() {
        let one = Placement::parse(GOOD, "a").unwrap();
        let local = format!("local.state_dir = \"/elsewhere\"\n{GOOD}");
        let two = Placement::parse(&local, "b").unwrap();
        assert_eq!(one.resources[0].digest(), two.resources[0].digest());
        let other = Placement::parse(&GOOD.replace("\"10s\"", "\"20s\""), "c").unwrap();
        assert_ne!(one.resources[0].digest(), other.resources[0].digest());
        assert_eq!(
            differences(
                &one.resources[0].canonical(),
                &other.resources[0].canonical()
            ),
            ["containers[0].stop_deadline: \"10s\" here, \"20s\" there"]
        );
    }
}
