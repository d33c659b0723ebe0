//! What a configuration means on one node.

use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Address, After, Host, HostName, MetaDisk, Resource, Setting, Settings, Value};
use crate::schema::Section;

/// One resource as one of its nodes sees it: everything inherited and resolved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeView {
    /// Name of the resource.
    pub resource: String,
    /// The node it is seen from, as it was asked for.
    pub node: String,
    /// This node's id (9), if it is written down.
    pub node_id: Option<u32>,
    /// Settings of the resource.
    pub options: Settings,
    /// Settings for waiting at boot.
    pub startup: Settings,
    /// Commands the driver has run.
    pub handlers: Settings,
    /// This node's volumes, in the order of their numbers.
    pub volumes: Vec<VolumeView>,
    /// The peers this node is connected to.
    pub peers: Vec<PeerView>,
}

/// A volume on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeView {
    /// Its number.
    pub number: u32,
    /// Its minor on this node.
    pub minor: u32,
    /// Its device on this node.
    pub device: PathBuf,
    /// The disk; `None` if this node is diskless (9).
    pub disk: Option<PathBuf>,
    /// Where the metadata is; `None` if this node is diskless.
    pub meta_disk: Option<MetaDisk>,
    /// Settings of the disk.
    pub options: SettingsOf,
}

/// Settings that compare by name and value, wherever they were written.
#[derive(Clone, Debug, Default)]
pub struct SettingsOf(pub Settings);

impl PartialEq for SettingsOf {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |s: &Settings| {
            let mut v: Vec<_> = s.iter().map(|s| (s.name, s.value.clone())).collect();
            v.sort_by_key(|(name, _)| *name);
            v
        };
        sorted(&self.0) == sorted(&other.0)
    }
}

impl Eq for SettingsOf {}

impl std::ops::Deref for SettingsOf {
    type Target = Settings;
    fn deref(&self) -> &Settings {
        &self.0
    }
}

/// A peer of this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerView {
    /// Its name in the configuration.
    pub name: String,
    /// All names under which it may be known.
    pub names: Vec<String>,
    /// Its node id (9), if it is written down.
    pub node_id: Option<u32>,
    /// This node's end and the peer's, for each path; one in 8.4.
    pub paths: Vec<(Address, Address)>,
    /// Settings of the connection.
    pub net: Settings,
    /// Settings of each volume towards this peer (9).
    pub peer_devices: Vec<(u32, Settings)>,
    /// Device and minor of each volume on the peer.
    pub volumes: Vec<(u32, u32, PathBuf)>,
    /// The connection goes through DRBD Proxy.
    pub proxy: bool,
}

impl NodeView {
    /// Finds a volume by its number.
    pub fn volume(&self, number: u32) -> Option<&VolumeView> {
        self.volumes.iter().find(|v| v.number == number)
    }

    /// Returns the only peer.
    ///
    /// # Errors
    /// `Ambiguous` if there are several or none.
    pub fn peer(&self) -> Result<&PeerView> {
        match &self.peers[..] {
            [peer] => Ok(peer),
            _ => {
                let names: Vec<_> = self.peers.iter().map(|p| p.name.as_str()).collect();
                let text = format!(
                    "resource {} on {}: expected one peer, there are {} ({})",
                    self.resource,
                    self.node,
                    names.len(),
                    names.join(", ")
                );
                Err(Error::plain(
                    ErrorKind::Ambiguous,
                    "not-one-peer",
                    text,
                    None,
                ))
            }
        }
    }
}

fn device(v: &crate::Volume) -> Option<(u32, PathBuf)> {
    let minor = v.minor?;
    let device = v
        .device
        .clone()
        .unwrap_or_else(|| format!("/dev/drbd{minor}").into());
    Some((minor, device))
}

impl Resource {
    /// Returns the names of all nodes of this resource.
    pub fn nodes(&self) -> Vec<String> {
        self.hosts.iter().flat_map(Host::names).collect()
    }

    /// Resolves the resource for one node, named as in `on NAME`.
    ///
    /// A `floating` host is named by its address, with or without the port.
    ///
    /// # Errors
    /// `UnknownNode` if the resource has no such node; the message lists those it has.
    /// `Unsupported` for a resource that is stacked on top of another.
    pub fn for_node(&self, node: &str) -> Result<NodeView> {
        let is = |h: &&Host| h.names().iter().any(|n| n == node);
        let Some(me) = self.hosts.iter().find(is) else {
            if self
                .hosts
                .iter()
                .any(|h| matches!(h.name, HostName::StackedOnTopOf(_)))
            {
                let text = format!("resource {} is stacked on top of another", self.name);
                let remedy = Some("stacked resources are not resolved by this version".into());
                return Err(Error::plain(
                    ErrorKind::Unsupported,
                    "stacked",
                    text,
                    remedy,
                ));
            }
            let text = format!(
                "resource {} has no node \"{node}\"; {} has: {}",
                self.name,
                self.location,
                self.nodes().join(", ")
            );
            let remedy = Some("the name after \"on\" has to be what `uname -n` says".to_owned());
            return Err(Error::plain(
                ErrorKind::UnknownNode,
                "unknown-node",
                text,
                remedy,
            ));
        };
        let mut options = me.options.clone();
        options.inherit(&self.sections.options);
        let mut volumes = Vec::new();
        for v in &me.volumes {
            let Some((minor, device)) = device(v) else {
                continue;
            };
            volumes.push(VolumeView {
                number: v.number,
                minor,
                device,
                disk: v.disk.clone(),
                meta_disk: v.meta_disk.clone(),
                options: SettingsOf(self.resolve_after(&v.options, node)?),
            });
        }
        Ok(NodeView {
            resource: self.name.clone(),
            node: node.to_owned(),
            node_id: me.node_id,
            options,
            startup: self.sections.startup.clone(),
            handlers: self.sections.handlers.clone(),
            volumes,
            peers: self.peers(me)?,
        })
    }

    /// Replaces the resource named by `resync-after` by its minor on this node.
    fn resolve_after(&self, settings: &Settings, node: &str) -> Result<Settings> {
        let mut out = settings.clone();
        for s in &mut out.0 {
            let Value::After(After::Volume { resource, volume }) = &s.value else {
                continue;
            };
            let of: Vec<_> = self
                .minors
                .0
                .iter()
                .filter(|m| m.host == node && m.resource == *resource)
                .filter(|m| volume.is_none_or(|v| v == m.volume))
                .collect();
            let minor = match &of[..] {
                [one] => one.minor,
                _ => {
                    let text = format!(
                        "resource {}: resync-after {} names {} volumes on {node}",
                        self.name,
                        s.raw,
                        of.len()
                    );
                    let remedy = Some("name one as RESOURCE/VOLUME".to_owned());
                    return Err(Error::plain(
                        ErrorKind::Invalid,
                        "resync-after",
                        text,
                        remedy,
                    ));
                }
            };
            s.value = Value::After(After::Minor(minor));
            s.raw = minor.to_string();
        }
        Ok(out)
    }

    /// The hosts `me` is connected to.
    fn peers(&self, me: &Host) -> Result<Vec<PeerView>> {
        let mut peers = Vec::new();
        if self.connections.is_empty() {
            // Hosts without written connections are all connected; 8.4 has exactly two.
            for host in self.hosts.iter().filter(|h| !std::ptr::eq(*h, me)) {
                let paths = match (&me.address, &host.address) {
                    (Some(a), Some(b)) => vec![(a.clone(), b.clone())],
                    _ => Vec::new(),
                };
                peers.push(self.peer(me, host, paths, me.proxy || host.proxy, None));
            }
            return Ok(peers);
        }
        for connection in &self.connections {
            let mut found: Option<&Host> = None;
            let mut paths = Vec::new();
            let mut proxy = false;
            for [a, b] in &connection.paths {
                let host = |end: &crate::PathEnd| {
                    self.hosts.iter().find(|h| {
                        h.names().contains(&end.host)
                            || (end.host.is_empty() && h.address == end.address)
                    })
                };
                let (Some(ha), Some(hb)) = (host(a), host(b)) else {
                    continue;
                };
                let (mine, theirs, other) = if std::ptr::eq(ha, me) {
                    (a, b, hb)
                } else if std::ptr::eq(hb, me) {
                    (b, a, ha)
                } else {
                    continue;
                };
                let address = |end: &crate::PathEnd, host: &Host| {
                    let mut address = end.address.clone().or_else(|| host.address.clone())?;
                    if let Some(port) = end.port {
                        address.socket.set_port(port);
                    }
                    Some(address)
                };
                let (Some(from), Some(to)) = (address(mine, me), address(theirs, other)) else {
                    let text = format!(
                        "resource {}: no address for the connection of {} and {}",
                        self.name,
                        me.shown(),
                        other.shown()
                    );
                    return Err(Error::plain(
                        ErrorKind::Invalid,
                        "missing-statement",
                        text,
                        None,
                    ));
                };
                found = Some(other);
                proxy |= a.proxy || b.proxy;
                paths.push((from, to));
            }
            if let Some(host) = found {
                peers.push(self.peer(me, host, paths, proxy, Some(connection)));
            }
        }
        Ok(peers)
    }

    fn peer(
        &self,
        me: &Host,
        host: &Host,
        paths: Vec<(Address, Address)>,
        proxy: bool,
        connection: Option<&crate::Connection>,
    ) -> PeerView {
        let mut net = connection.map(|c| c.net.clone()).unwrap_or_default();
        net.inherit(&self.sections.net);
        let peer_devices = me
            .volumes
            .iter()
            .map(|v| {
                let own = connection.and_then(|c| c.volumes.iter().find(|(n, _)| *n == v.number));
                let mut settings = own.map(|(_, s)| s.clone()).unwrap_or_default();
                if let Some(c) = connection {
                    settings.inherit(&c.disk);
                }
                settings.inherit(&v.options);
                settings.0.retain(is_peer_device);
                // There is nothing to be compared with a peer that has no disk.
                let other = host.volumes.iter().find(|o| o.number == v.number);
                if other.is_some_and(|o| o.diskless) && settings.get("bitmap").is_none() {
                    settings.0.push(Setting {
                        section: Section::Disk,
                        name: "bitmap",
                        value: Value::Flag(false),
                        raw: "no".into(),
                        span: host.span,
                    });
                }
                (v.number, settings)
            })
            .collect();
        PeerView {
            name: host.names().into_iter().next().unwrap_or_default(),
            names: host.names(),
            node_id: host.node_id,
            paths,
            net,
            peer_devices,
            volumes: host
                .volumes
                .iter()
                .filter_map(|v| device(v).map(|(minor, device)| (v.number, minor, device)))
                .collect(),
            proxy,
        }
    }
}

/// Options of the `disk` section that belong to the minor itself in DRBD 9.
#[cfg(feature = "drbd-nl")]
pub(crate) fn is_device(s: &Setting) -> bool {
    s.section == Section::Disk
        && matches!(
            s.name,
            "max-bio-size" | "block-size" | "discard-granularity"
        )
}

/// Options of the `disk` section that belong to a volume towards a peer in DRBD 9.
pub(crate) fn is_peer_device(s: &Setting) -> bool {
    s.section == Section::Disk
        && (matches!(
            s.name,
            "resync-rate" | "bitmap" | "peer-tracking" | "resync-without-replication"
        ) || s.name.starts_with("c-"))
}
