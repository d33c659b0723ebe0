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

mod parse;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration;
use crate::error::{Error, ErrorKind, Result};
pub(crate) use parse::is_plain_name;
use parse::{RawPlacement, check, located};

/// Where the placement file is, unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/ha-failover/placement.toml";

/// What a killed container may take until nothing of it is left.
pub(crate) const KILL: Duration = Duration::from_secs(15);

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
    /// The containers, in start order: `after` first, then `priority`, then the order of the file.
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
    /// To find the peer after `up`, and to settle with it who has the newer data.
    #[serde(with = "duration")]
    pub connect: Duration,
    /// The same at boot, where the peer may take its time to boot too.
    #[serde(with = "duration")]
    pub boot: Duration,
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
            boot: s(120),
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
    /// Containers of the same resource that must serve before it is started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Among those that may be started, the highest is first. Default 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

impl ContainerSpec {
    /// What stopping it may take at most: to shut down, and to be gone after a kill.
    #[must_use]
    pub fn stop_within(&self) -> Duration {
        self.stop_deadline.saturating_add(KILL)
    }
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

#[cfg(test)]
mod tests;
