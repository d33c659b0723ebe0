//! What follows from all statements together: what is inherited, and what has to agree.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::resource::{MIXED, empty_volume};
use super::{Builder, Draft, Mesh};
use crate::error::Problem;
use crate::lint;
use crate::model::{
    Address, Connection, Host, HostName, MetaDisk, PathEnd, Proxy, Resource, Sections, Settings,
    Volume, VolumeOn, Volumes,
};
use crate::name::Name;
use crate::source::{Sources, Span};

impl Builder {
    /// Gives what is stacked the hosts of the resource it is stacked on.
    pub(super) fn stacked(&mut self, resources: &mut [Resource]) {
        if !self.refers {
            return;
        }
        let mut names: HashMap<Name, Vec<Name>> = HashMap::new();
        for r in &*resources {
            let hosts = r.hosts.iter().filter(|h| !h.is_stacked());
            let names_of = hosts.flat_map(|h| h.shared_names().to_vec());
            names.insert(r.name.clone(), names_of.collect());
        }
        let mut carrying = HashSet::new();
        for host in resources.iter_mut().flat_map(|r| &mut r.hosts) {
            let HostName::StackedOnTopOf(lower) = &host.name else {
                continue;
            };
            if !carrying.insert(lower.clone()) {
                let text = format!("another resource is stacked on \"{lower}\" already");
                self.errors.push(Problem::error(host.span, "stacked", text));
            }
            match names.get(lower) {
                Some(names) => host.lower.clone_from(names),
                None => {
                    let text = format!("no resource \"{lower}\" to be stacked on");
                    self.errors
                        .push(Problem::error(host.span, "unknown-resource", text));
                }
            }
        }
    }

    pub(super) fn complete(&mut self, resource: &mut Resource, draft: Draft) {
        let Draft {
            volumes,
            meshes,
            template,
            whole,
        } = draft;
        let explicit = resource.connections.len();
        for mesh in meshes {
            let connections = pairs(mesh);
            resource.connections.extend(connections);
        }
        // common → resource
        let common = template.as_deref().unwrap_or(&self.common);
        let sections = &mut resource.sections;
        inherit_sections(sections, common);

        // Of a host that says nothing of its own about volumes; the next such host has the same.
        let mut inherited: Option<Volumes> = None;
        for host in &mut resource.hosts {
            let nothing = host.volumes.is_empty();
            match &inherited {
                Some(volumes) if nothing => host.volumes.clone_from(volumes),
                _ => {
                    self.errors.extend(inherit_volumes(&volumes, host));
                    self.complete_volumes(&volumes, &sections.disk, host);
                }
            }
            if nothing {
                inherited.get_or_insert_with(|| host.volumes.clone());
            }
            self.errors.extend(incomplete(host));
        }
        let ends = resource.connections.iter_mut().flat_map(|c| &mut c.paths);
        let proxies = ends.flatten().filter_map(|end| end.proxy.as_mut());
        let proxies = proxies.chain(resource.hosts.iter_mut().filter_map(|h| h.proxy.as_mut()));
        for proxy in proxies {
            proxy.options.inherit(&sections.proxy);
            if proxy.plugins.is_empty() {
                proxy.plugins.clone_from(&sections.proxy_plugins);
            }
        }
        if let Some((first, others)) = resource.hosts.split_first() {
            let numbers = |h: &Host| h.volumes.iter().map(|v| v.number).collect::<Vec<_>>();
            let same = |h: &Host| {
                let pairs = h.volumes.iter().zip(&first.volumes);
                h.volumes.len() == first.volumes.len()
                    && pairs.into_iter().all(|(a, b)| a.number == b.number)
            };
            for host in others.iter().filter(|h| !same(h)) {
                let list = |h: &Host| {
                    let n: Vec<_> = numbers(h).iter().map(u32::to_string).collect();
                    if n.is_empty() {
                        "none".into()
                    } else {
                        n.join(", ")
                    }
                };
                let text = format!(
                    "volumes of {} ({}) are not those of {} ({})",
                    host.shown(),
                    list(host),
                    first.shown(),
                    list(first)
                );
                self.errors
                    .push(Problem::error(host.span, "volumes-differ", text));
            }
        }
        if whole {
            self.errors.extend(without_address(resource));
        }
        node_ids(resource, explicit, &self.sources);
    }

    /// Settings of a host's volumes: those of the resource; then, as drbdadm does it, those of its
    /// volume of the same number.
    fn complete_volumes(&mut self, from: &[Volume], disk: &Settings, host: &mut Host) {
        if host.volumes.is_empty() {
            return;
        }
        for volume in host.volumes.list() {
            volume.options.inherit(disk);
            if let Some(from) = from.iter().find(|v| v.number == volume.number)
                && !from.options.is_empty()
            {
                self.warnings
                    .extend(lint::ambiguous(&volume.options, &from.options));
                volume.options.inherit(&from.options);
            }
            if volume.diskless {
                volume.meta_disk = None;
            } else if volume.meta_disk.is_none() && volume.disk.is_some() {
                volume.meta_disk = Some(MetaDisk::Internal);
            }
        }
    }

    /// Minors and addresses have to be unique on each host.
    pub(super) fn check_across(&mut self, resources: &[Resource]) {
        let mut hosts: HashMap<Who<'_>, u32> = HashMap::new();
        let mut few: Vec<Who<'_>> = Vec::new();
        let mut number = |who| {
            // Most configurations have a few hosts, again and again.
            if let Some(at) = few.iter().position(|f| *f == who) {
                return at as u32;
            }
            if few.len() < 8 {
                few.push(who);
                return few.len() as u32 - 1;
            }
            let next = 8 + hosts.len() as u32;
            *hosts.entry(who).or_insert(next)
        };
        // Who uses what, in the order of the text; sorted, the same come together.
        let mut minors: Vec<((u32, u32), Who<'_>, &Resource, &Volume)> = Vec::new();
        let mut addresses: Vec<((u32, SocketAddr), &Resource, &Address, Span)> = Vec::new();
        let mut names = Vec::new();
        for r in resources {
            for host in &r.hosts {
                each_name(host, &mut |name| names.push((number(name), name)));
                for volume in &host.volumes {
                    let Some(minor) = volume.minor else { continue };
                    minors.extend(
                        names
                            .iter()
                            .map(|(at, name)| ((*at, minor), *name, r, volume)),
                    );
                }
                names.clear();
            }
            each_address(r, &mut |address, host, span| {
                // A link-local or loopback address is another one on each host.
                if address.is_local() {
                    let Some(host) = host else { return };
                    each_name(host, &mut |name| {
                        addresses.push(((number(name), address.socket), r, address, span));
                    });
                } else {
                    addresses.push(((u32::MAX, address.socket), r, address, span));
                }
            });
        }
        let mut said = HashSet::new();
        minors.sort_by_key(|(key, ..)| *key);
        for pair in minors.windows(2) {
            let ((a, _, first, other), (b, name, second, volume)) = (&pair[0], &pair[1]);
            if a == b && said.insert(volume.span) {
                let text = format!(
                    "minor {} is used on {name} by {}/{} already, and by {}/{}",
                    b.1, first.name, other.number, second.name, volume.number
                );
                self.errors
                    .push(Problem::error(volume.span, "minor-used-twice", text));
            }
        }
        addresses.sort_by_key(|(key, ..)| *key);
        for pair in addresses.windows(2) {
            let ((a, first, ..), (b, second, address, span)) = (&pair[0], &pair[1]);
            // The connections of one resource may share an address.
            let shared = std::ptr::eq(*first, *second) && !first.connections.is_empty();
            if a == b && !shared && said.insert(*span) {
                let text = format!(
                    "{address} is used by resource {} already, and by {}",
                    first.name, second.name
                );
                self.errors.push(
                    Problem::error(*span, "address-used-twice", text)
                        .remedy("give each resource a port of its own"),
                );
            }
        }
    }
}

/// Every two hosts of a mesh are connected.
fn pairs(mesh: Mesh) -> Vec<Connection> {
    let Mesh { hosts, net } = mesh;
    let mut connections = Vec::new();
    for (i, (a, at)) in hosts.iter().enumerate() {
        for (b, bt) in &hosts[i + 1..] {
            let end = |host: &String, span: &Span| PathEnd {
                host: host.clone(),
                address: None,
                port: None,
                proxy: None,
                outside_address: None,
                span: *span,
            };
            connections.push(Connection {
                paths: vec![[end(a, at), end(b, bt)]],
                net: net.clone(),
                disk: Settings::default(),
                volumes: Vec::new(),
                implicit: true,
                one_path: true,
            });
        }
    }
    connections
}

fn inherit_sections(sections: &mut Sections, common: &Sections) {
    sections.options.inherit(&common.options);
    sections.disk.inherit(&common.disk);
    sections.net.inherit(&common.net);
    sections.startup.inherit(&common.startup);
    sections.handlers.inherit(&common.handlers);
    sections.proxy.inherit(&common.proxy);
    if sections.become_primary_on.is_empty() {
        sections
            .become_primary_on
            .clone_from(&common.become_primary_on);
        sections.become_primary_at = common.become_primary_at;
    }
    if sections.proxy_plugins.is_empty() {
        sections.proxy_plugins.clone_from(&common.proxy_plugins);
    }
    sections.stacked_timeouts |= common.stacked_timeouts;
}

/// What has no address although it is connected, and ends that name no host.
fn without_address(r: &Resource) -> Vec<Problem> {
    let mut out = Vec::new();
    let missing = |span, who: String| {
        let text = format!("expected an \"address\" for {who}");
        Problem::error(span, "missing-statement", text).remedy("address 10.0.0.1:7788;")
    };
    if r.connections.is_empty() {
        let hosts = r.hosts.iter().filter(|h| h.address.is_none());
        out.extend(hosts.map(|h| missing(h.span, h.shown())));
    }
    for [a, b] in r.connections.iter().flat_map(|c| &c.paths) {
        if a.proxy.is_some() != b.proxy.is_some() {
            let text = "one end goes through a proxy, and the other one does not";
            out.push(Problem::error(b.span, "missing-statement", text));
        }
        let at = |end: &PathEnd| end.at(r.host_of(end)?);
        if let (Some(x), Some(y)) = (at(a), at(b))
            && x == y
            && !x.is_local()
        {
            let text = format!("{x} is used for both ends");
            out.push(Problem::error(b.span, "address-used-twice", text));
        }
    }
    for end in r.connections.iter().flat_map(|c| &c.paths).flatten() {
        match r.host_of(end) {
            None => {
                let names: Vec<_> = r.hosts.iter().map(Host::shown).collect();
                let named = match &end.address {
                    Some(a) if end.host.is_empty() => format!("with the address {a}"),
                    _ => format!("\"{}\"", end.host),
                };
                let text = format!(
                    "no host {named} in resource {}; it has: {}",
                    r.name,
                    names.join(", ")
                );
                out.push(Problem::error(end.span, "unknown-host", text));
            }
            Some(host) if end.address.is_none() && host.address.is_none() => {
                out.push(missing(end.span, host.shown()));
            }
            Some(_) => {}
        }
    }
    out
}

/// A node, as far as the configuration tells one from another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Who<'r> {
    Named(&'r str),
    At(IpAddr),
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Named(name) => f.write_str(name),
            Who::At(ip) => ip.fmt(f),
        }
    }
}

/// The nodes a host can be.
fn each_name<'r>(host: &'r Host, each: &mut impl FnMut(Who<'r>)) {
    let (names, address) = match &host.name {
        HostName::On(names) => (&names[..], None),
        HostName::StackedOnTopOf(_) => (&host.lower[..], None),
        HostName::Floating => (&[][..], host.address.as_ref()),
    };
    names.iter().for_each(|n| each(Who::Named(n)));
    address
        .into_iter()
        .for_each(|a| each(Who::At(a.socket.ip())));
}

/// All addresses DRBD would use for a resource.
fn each_address<'r>(r: &'r Resource, each: &mut impl FnMut(&'r Address, Option<&'r Host>, Span)) {
    if r.connections.is_empty() {
        for host in &r.hosts {
            if let Some(address) = &host.address {
                each(address, Some(host), host.span);
            }
        }
    }
    for end in r.connections.iter().flat_map(|c| &c.paths).flatten() {
        let host = r.host_of(end);
        match (&end.address, host.and_then(|h| h.address.as_ref())) {
            (Some(address), _) => each(address, host, end.span),
            // With a port of its own it is not the host's.
            (None, Some(address)) if end.port.is_none() => each(address, host, end.span),
            _ => {}
        }
    }
}

/// Two hosts without node ids get those that drbdadm gives them: by a hash of their addresses.
fn node_ids(r: &mut Resource, explicit: usize, sources: &Sources) {
    if explicit > 0 || r.connections.len() > 1 || r.hosts.iter().any(|h| h.node_id.is_some()) {
        return;
    }
    let [a, b] = &mut r.hosts[..] else { return };
    let hash = |at: Option<Span>| {
        let at = at?;
        let text = sources
            .text(at.file)
            .get(at.start as usize..at.end as usize)?;
        // drbdadm compares them as signed numbers.
        Some(crc32c(text.as_bytes()) as i32)
    };
    let outside = |h: &Host| h.proxy.as_deref().map(|p: &Proxy| p.outside_at);
    let mut pair = (hash(a.address_at), hash(b.address_at));
    if pair.0 == pair.1 {
        pair = (hash(outside(a)), hash(outside(b)));
    }
    let (Some(x), Some(y)) = pair else { return };
    if x != y {
        a.node_id = Some(u32::from(x < y));
        b.node_id = Some(u32::from(x > y));
    }
}

/// CRC-32C as drbdadm starts it for this, without the usual inversion.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let crc = crc ^ u32::from(*byte);
        (0..8).fold(crc, |c, _| {
            (c >> 1) ^ (0x82f6_3b78 & (c & 1).wrapping_neg())
        })
    };
    bytes.iter().fold(0x1a65_6f21, step)
}

/// All volumes on all hosts, by resource.
pub(super) fn volumes_on_hosts(resources: &[Resource]) -> HashMap<Name, Vec<VolumeOn>> {
    let mut all = HashMap::new();
    for r in resources {
        let mut volumes = Vec::new();
        for host in &r.hosts {
            for v in &host.volumes {
                let Some((minor, device)) = v.device_and_minor() else {
                    continue;
                };
                volumes.extend(host.shared_names().iter().map(|host| VolumeOn {
                    host: host.clone(),
                    volume: v.number,
                    minor,
                    device: Arc::clone(&device),
                }));
            }
        }
        all.insert(r.name.clone(), volumes);
    }
    all
}

/// Volumes of the resource complete those of the host.
fn inherit_volumes(from: &[Volume], host: &mut Host) -> Option<Problem> {
    if from.is_empty() {
        return None;
    }
    let volumes = host.volumes.list();
    volumes.reserve_exact(from.len().saturating_sub(volumes.len()));
    for s in from {
        let at = match volumes.binary_search_by_key(&s.number, |v| v.number) {
            Ok(at) => at,
            Err(at) => {
                volumes.insert(at, empty_volume(s.number, s.implicit, s.span));
                at
            }
        };
        let t = &mut volumes[at];
        if t.disk.is_none() && !t.diskless {
            t.disk.clone_from(&s.disk);
            t.diskless = s.diskless;
        }
        if t.device.is_none() && t.minor.is_none() {
            t.device.clone_from(&s.device);
            t.minor = s.minor;
        }
        if t.meta_disk.is_none() {
            t.meta_disk.clone_from(&s.meta_disk);
        }
    }
    let mixed = volumes.iter().any(|v| v.implicit) && volumes.iter().any(|v| v.number != 0);
    mixed.then(|| Problem::error(host.span, "mixed-volumes", format!("both {MIXED}")))
}

/// Says what a host's volumes lack.
fn incomplete(host: &Host) -> Vec<Problem> {
    let mut missing = Vec::new();
    // What is stacked has the lower device as its disk, and internal metadata.
    let stacked = matches!(host.name, HostName::StackedOnTopOf(_));
    if host.volumes.is_empty() {
        missing.push((host.span, "a \"device\" or \"volume\"", String::new()));
    }
    for v in &host.volumes {
        let of = if v.implicit {
            String::new()
        } else {
            format!(" volume {}", v.number)
        };
        if v.minor.is_none() {
            missing.push((v.span, "a \"device\"", of.clone()));
        }
        if v.disk.is_none() && !v.diskless && !stacked {
            missing.push((v.span, "a \"disk\"", of));
        }
    }
    missing
        .into_iter()
        .map(|(span, what, of)| {
            let text = format!("expected {what} for {}{of}", host.shown());
            Problem::error(span, "missing-statement", text)
        })
        .collect()
}
