//! What follows from all statements together: what is inherited, and what has to agree.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::resource::{MIXED, empty_volume};
use super::{Builder, Draft, Mesh};
use crate::error::Problem;
use crate::lint;
use crate::model::{
    Connection, Host, HostName, MinorOf, Minors, PathEnd, Resource, Settings, Volume,
};
use crate::source::Span;

impl Builder {
    pub(super) fn complete(&mut self, draft: &mut Draft) {
        let Draft {
            resource,
            volumes,
            meshes,
            template,
        } = draft;
        if let Some((name, span)) = template {
            let text = format!("template-file {name} is not read by this version");
            self.warnings
                .push(Problem::warning(*span, "template-file", text));
        }
        for Mesh { hosts, net } in meshes.drain(..) {
            for (i, (a, at)) in hosts.iter().enumerate() {
                for (b, bt) in &hosts[i + 1..] {
                    let end = |host: &String, span: &Span| PathEnd {
                        host: host.clone(),
                        address: None,
                        port: None,
                        proxy: false,
                        span: *span,
                    };
                    resource.connections.push(Connection {
                        paths: vec![[end(a, at), end(b, bt)]],
                        net: net.clone(),
                        disk: Settings::default(),
                        volumes: Vec::new(),
                    });
                }
            }
        }
        // common → resource
        let common = &self.common;
        let sections = &mut resource.sections;
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
        sections.stacked_timeouts |= common.stacked_timeouts;

        let numbers = |h: &Host| h.volumes.iter().map(|v| v.number).collect::<Vec<_>>();
        for host in &mut resource.hosts {
            self.errors.extend(inherit_volumes(volumes, host));
            // resource → host's volume; then the volume of the resource, as drbdadm does it.
            for volume in &mut host.volumes {
                volume.options.inherit(&resource.sections.disk);
                if let Some(from) = volumes.iter().find(|v| v.number == volume.number) {
                    self.warnings
                        .extend(lint::ambiguous(&volume.options, &from.options));
                    volume.options.inherit(&from.options);
                }
            }
            self.errors.extend(incomplete(host));
        }
        if let Some((first, others)) = resource.hosts.split_first() {
            for host in others {
                if numbers(first) != numbers(host) {
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
        }
        for connection in &resource.connections {
            for end in connection.paths.iter().flatten() {
                let known = end.host.is_empty()
                    || resource.hosts.iter().any(|h| h.names().contains(&end.host));
                if !known {
                    let names: Vec<_> = resource.hosts.iter().map(Host::shown).collect();
                    let text = format!(
                        "no host \"{}\" in resource {}; it has: {}",
                        end.host,
                        resource.name,
                        names.join(", ")
                    );
                    self.errors
                        .push(Problem::error(end.span, "unknown-host", text));
                }
            }
        }
    }

    /// Minors and addresses have to be unique on each host.
    pub(super) fn check_across(&mut self, drafts: &[Draft]) -> Minors {
        let mut minors: HashMap<(String, u32), String> = HashMap::new();
        let mut addresses: HashMap<(String, SocketAddr), String> = HashMap::new();
        let mut all = Minors::default();
        let by_name: HashMap<&str, &Resource> = drafts
            .iter()
            .map(|d| (d.resource.name.as_str(), &d.resource))
            .collect();
        for draft in drafts {
            let r = &draft.resource;
            for host in &r.hosts {
                // What is stacked is on the hosts of the lower resource.
                let names = match &host.name {
                    HostName::StackedOnTopOf(lower) => {
                        let Some(lower) = by_name.get(lower.as_str()) else {
                            let text = format!("no resource \"{lower}\" to be stacked on");
                            self.errors
                                .push(Problem::error(host.span, "unknown-resource", text));
                            continue;
                        };
                        lower.hosts.iter().flat_map(Host::names).collect()
                    }
                    _ => host.names(),
                };
                if let Some(address) = &host.address {
                    let scopes = if address.is_local() {
                        names.clone()
                    } else {
                        vec![String::new()]
                    };
                    for scope in scopes {
                        let user = addresses.insert((scope, address.socket), r.name.clone());
                        if let Some(other) = user {
                            let text = format!(
                                "{address} is used by resource {other} already, and by {}",
                                r.name
                            );
                            self.errors.push(
                                Problem::error(host.span, "address-used-twice", text)
                                    .remedy("give each resource a port of its own"),
                            );
                            break;
                        }
                    }
                }
                for volume in &host.volumes {
                    let Some(minor) = volume.minor else { continue };
                    for name in &names {
                        let user = format!("{}/{}", r.name, volume.number);
                        all.0.push(MinorOf {
                            host: name.clone(),
                            resource: r.name.clone(),
                            volume: volume.number,
                            minor,
                        });
                        if let Some(other) = minors.insert((name.clone(), minor), user.clone()) {
                            let text = format!(
                                "minor {minor} is used on {name} by {other} already, and by {user}"
                            );
                            self.errors
                                .push(Problem::error(volume.span, "minor-used-twice", text));
                            break;
                        }
                    }
                }
            }
        }
        all
    }
}

/// Volumes of the resource complete those of the host.
fn inherit_volumes(from: &[Volume], host: &mut Host) -> Option<Problem> {
    for s in from {
        let at = match host.volumes.binary_search_by_key(&s.number, |v| v.number) {
            Ok(at) => at,
            Err(at) => {
                host.volumes
                    .insert(at, empty_volume(s.number, s.implicit, s.span));
                at
            }
        };
        let t = &mut host.volumes[at];
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
    let mixed =
        host.volumes.iter().any(|v| v.implicit) && host.volumes.iter().any(|v| v.number != 0);
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
            missing.push((v.span, "a \"disk\"", of.clone()));
        }
        if v.meta_disk.is_none() && !v.diskless && !stacked {
            missing.push((v.span, "a \"meta-disk\"", of));
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
