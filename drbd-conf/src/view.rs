//! What a configuration means on one node.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Address, After, Host, HostName, MetaDisk, Proxy, Resource, Setting, Settings, Value, VolumeOn,
    Written,
};
use crate::name::Name;
use crate::schema::Section;

/// One resource as one of its nodes sees it: everything inherited and resolved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeView {
    /// Name of the resource.
    pub resource: Name,
    /// The node it is seen from, as it was asked for.
    pub node: Name,
    /// This node's id (9), if it is written down or, with two nodes, follows from the addresses.
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
    pub device: Arc<Path>,
    /// The disk; `None` if this node is diskless (9).
    pub disk: Option<Arc<Path>>,
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
        self.0.same(&other.0)
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
    pub name: Name,
    /// All names under which it may be known.
    pub names: Arc<[Name]>,
    /// The name the driver is told for the connection.
    pub connection: Name,
    /// Its node id (9), as [`NodeView::node_id`].
    pub node_id: Option<u32>,
    /// This node's end and where it connects to, for each path; one in 8.4. The latter is the peer's
    /// end, or this side's proxy.
    pub paths: Vec<(Address, Address)>,
    /// Settings of the connection.
    pub net: Settings,
    /// Settings of each volume towards this peer (9).
    pub peer_devices: Vec<(u32, Settings)>,
    /// Device and minor of each volume on the peer.
    pub volumes: Vec<(u32, u32, Arc<Path>)>,
    /// The proxies of each path that goes through DRBD Proxy, this side's first. They are told what
    /// to do by `drbd-proxy-ctl`, not by the driver; see [`NodeView::proxy_up`].
    pub proxies: Vec<[Proxy; 2]>,
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

impl NodeView {
    /// Returns what DRBD Proxy on `host` has to be told so that it carries the connections of this
    /// node: the words after `drbd-proxy-ctl -c`, as `drbdadm proxy-up` gives them.
    ///
    /// The proxy is no part of the driver, and bringing a resource up does not tell it anything: DRBD
    /// connects to it, and is not connected to the peer before both proxies were told. None if no
    /// proxy of this node runs on `host`.
    ///
    /// # Errors
    /// `Unsupported` if a connection has several paths, which the proxy cannot carry.
    pub fn proxy_up(&self, host: &str) -> Result<Vec<String>> {
        let mut commands = Vec::new();
        for (name, at, [mine, theirs]) in self.proxies(host)? {
            commands.push(format!(
                "add connection {name} {} {} {} {}",
                host_port(&mine.inside),
                host_port(&theirs.outside),
                host_port(&mine.outside),
                host_port(at)
            ));
            let set = |s: &Setting| format!("set {} {name} {}", s.name, s.raw());
            commands.extend(mine.options.iter().map(set));
            if mine.plugins.is_empty() {
                continue;
            }
            let lines = mine.plugins.iter().map(String::as_str).chain(["END"]);
            let lines = lines.enumerate();
            commands.extend(lines.map(|(n, line)| format!("set plugin {name} {n} {line}")));
        }
        Ok(commands)
    }

    /// Returns what DRBD Proxy on `host` has to be told to end what [`NodeView::proxy_up`] began
    /// (`drbdadm proxy-down`).
    ///
    /// # Errors
    /// As [`NodeView::proxy_up`].
    pub fn proxy_down(&self, host: &str) -> Result<Vec<String>> {
        let all = self.proxies(host)?.into_iter();
        Ok(all
            .map(|(name, ..)| format!("del connection {name}"))
            .collect())
    }

    /// The connections that go through a proxy of this node on `host`: name, this node's end, proxies.
    fn proxies(&self, host: &str) -> Result<Vec<(String, &Address, &[Proxy; 2])>> {
        let mut all = Vec::new();
        for peer in &self.peers {
            let Some(pair @ [mine, theirs]) = peer.proxies.first() else {
                continue;
            };
            if !mine.hosts.iter().any(|h| h == host) {
                continue;
            }
            let [(at, _)] = &peer.paths[..] else {
                let text = format!(
                    "resource {}: the connection to {} has a proxy and {} paths; one is possible",
                    self.resource,
                    peer.name,
                    peer.paths.len()
                );
                let code = "proxy";
                return Err(Error::plain(ErrorKind::Unsupported, code, text, None));
            };
            let hosts = [theirs, mine].map(|p| p.hosts.join("_"));
            all.push((format!("{}-{}", self.resource, hosts.join("-")), at, pair));
        }
        Ok(all)
    }
}

/// An address in the proxy's words, which has no brackets.
fn host_port(a: &Address) -> String {
    let text = a.host_and_port();
    text.replace(['[', ']'], "")
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
    /// What is stacked on top of another resource is on all nodes of that one; its disks are the
    /// devices of that one on this node, and it can be brought up only where that one is primary.
    pub fn for_node(&self, node: &str) -> Result<NodeView> {
        let Some(me) = self.hosts.iter().find(|h| h.is_named(node)) else {
            let text = format!(
                "resource {} has no node \"{node}\"; {} has: {}",
                self.name,
                self.location(),
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
        let mut volumes = Vec::with_capacity(me.volumes.len());
        for v in &me.volumes {
            let Some((minor, device)) = v.device_and_minor() else {
                continue;
            };
            let (disk, meta_disk) = match &me.name {
                HostName::StackedOnTopOf(lower) => {
                    let below = self.volumes_of(lower, node);
                    let below = below.into_iter().find(|b| b.volume == v.number);
                    let disk = below.map(|b| Arc::clone(&b.device)).ok_or_else(|| {
                        let text = format!(
                            "resource {}: {lower} has no volume {} to be stacked on",
                            self.name, v.number
                        );
                        Error::plain(ErrorKind::Invalid, "volumes-differ", text, None)
                    })?;
                    (Some(disk), Some(MetaDisk::Internal))
                }
                _ => (v.disk.clone(), v.meta_disk.clone()),
            };
            volumes.push(VolumeView {
                number: v.number,
                minor,
                device,
                disk,
                meta_disk,
                options: SettingsOf(self.resolve_after(&v.options, node)?),
            });
        }
        let named = match &me.name {
            HostName::On(names) => names.iter().find(|n| **n == node),
            _ => None,
        };
        Ok(NodeView {
            resource: self.name.clone(),
            node: named.map_or_else(|| node.into(), Name::clone),
            node_id: me.node_id,
            options: self.sections.options.clone(),
            startup: self.sections.startup.clone(),
            handlers: self.sections.handlers.clone(),
            volumes,
            peers: self.peers(me, node)?,
        })
    }

    /// The volumes another resource has on a node.
    fn volumes_of(&self, resource: &str, node: &str) -> Vec<&VolumeOn> {
        let all = self.shared.volumes.get(resource).into_iter().flatten();
        all.filter(|v| v.host == node).collect()
    }

    /// Replaces the resource named by `resync-after` by its minor on this node.
    fn resolve_after(&self, settings: &Settings, node: &str) -> Result<Settings> {
        let mut out = settings.clone();
        let names = |s: &Setting| matches!(s.value, Value::After(After::Volume { .. }));
        if !settings.all().iter().any(names) {
            return Ok(out);
        }
        for s in out.change() {
            let Value::After(After::Volume { resource, volume }) = &s.value else {
                continue;
            };
            let mut of = self.volumes_of(resource, node);
            of.retain(|m| volume.is_none_or(|v| v == m.volume));
            let minor = match &of[..] {
                [one] => one.minor,
                _ => {
                    let text = format!(
                        "resource {}: resync-after {} names {} volumes on {node}",
                        self.name,
                        s.raw(),
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
            s.written = minor.to_string().as_bytes().into();
        }
        Ok(out)
    }

    /// The hosts `me` is connected to.
    fn peers(&self, me: &Host, node: &str) -> Result<Vec<PeerView>> {
        let mut peers = Vec::with_capacity(self.hosts.len().saturating_sub(1));
        if self.connections.is_empty() {
            // Hosts without written connections are all connected; 8.4 has exactly two.
            for host in self.hosts.iter().filter(|h| !std::ptr::eq(*h, me)) {
                let mut peer = self.peer(me, host, None);
                if let (Some(a), Some(b)) = (&me.address, &host.address) {
                    let proxies = (me.proxy.as_deref(), host.proxy.as_deref());
                    peer.path(a.clone(), b.clone(), proxies);
                }
                peers.push(peer);
            }
            return Ok(peers);
        }
        for connection in &self.connections {
            let mut found: Option<PeerView> = None;
            for [a, b] in &connection.paths {
                let host = |end| self.host_of(end);
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
                let peer = found.get_or_insert_with(|| self.peer(me, other, Some(connection)));
                // A path of what is stacked belongs to one of the lower hosts.
                if me.is_stacked()
                    && !connection.implicit
                    && !mine.host.is_empty()
                    && mine.host != node
                {
                    continue;
                }
                let (Some(from), Some(to)) = (mine.at(me), theirs.at(other)) else {
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
                let to = theirs.outside_address.clone().unwrap_or(to);
                let proxies = (mine.proxy.as_deref(), theirs.proxy.as_deref());
                peer.path(from, to, proxies);
            }
            peers.extend(found);
        }
        Ok(peers)
    }

    /// Settings of each volume towards the other one of two connected hosts.
    pub(crate) fn peer_devices(
        &self,
        me: &Host,
        host: &Host,
        connection: Option<&crate::Connection>,
    ) -> Vec<(u32, Settings)> {
        let of = |v: &crate::Volume| {
            let own = connection.and_then(|c| c.volumes.iter().find(|(n, _)| *n == v.number));
            let mut settings = own.map(|(_, s)| s.clone()).unwrap_or_default();
            if let Some(c) = connection {
                settings.inherit(&c.disk);
            }
            let other = host.volumes.iter().find(|o| o.number == v.number);
            // What only the volume on the peer sets holds for both.
            for v in std::iter::once(v).chain(other) {
                for s in v.options.iter().filter(|s| is_peer_device(s)) {
                    if settings.get(s.name).is_none() {
                        settings.push(s.clone());
                    }
                }
            }
            (v.number, settings)
        };
        me.volumes.iter().map(of).collect()
    }

    fn peer(&self, me: &Host, host: &Host, connection: Option<&crate::Connection>) -> PeerView {
        let mut peer_devices = self.peer_devices(me, host, connection);
        for (volume, settings) in &mut peer_devices {
            // There is nothing to be compared with a peer that has no disk, whatever is written.
            let other = host.volumes.iter().find(|o| o.number == *volume);
            if other.is_some_and(|o| o.diskless) {
                settings.push(Setting {
                    section: Section::Disk,
                    name: "bitmap",
                    value: Value::Flag(false),
                    written: Written::default(),
                    span: host.span,
                });
            }
        }
        let names = host.shared_names();
        PeerView {
            name: names.first().cloned().unwrap_or_default(),
            names,
            connection: host.connection_name(),
            node_id: host.node_id,
            paths: Vec::new(),
            net: self.net_of(connection),
            peer_devices,
            volumes: host
                .volumes
                .iter()
                .filter_map(|v| {
                    v.device_and_minor()
                        .map(|(minor, device)| (v.number, minor, device))
                })
                .collect(),
            proxies: Vec::new(),
        }
    }
}

impl PeerView {
    fn path(&mut self, from: Address, to: Address, proxies: (Option<&Proxy>, Option<&Proxy>)) {
        let to = proxies.0.map_or(to, |p| p.inside.clone());
        if self.paths.is_empty() {
            self.paths.reserve_exact(1);
        }
        self.paths.push((from, to));
        if let (Some(mine), Some(theirs)) = proxies {
            self.proxies.push([mine.clone(), theirs.clone()]);
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
