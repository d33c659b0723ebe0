//! What is allowed and still not right.

use std::path::Path;

use crate::error::Problem;
use crate::model::{HostName, MetaDisk, Resource, Settings, Value};
use crate::source::Span;

/// Findings about all resources, after everything was inherited.
pub(crate) fn resources(resources: &[Resource]) -> Vec<Problem> {
    let mut out = Vec::new();
    for r in resources {
        device_differs(r, &mut out);
        fencing(r, &mut out);
        protocol(r, &mut out);
        split_brain(r, &mut out);
        authentication(r, &mut out);
        waiting(r, &mut out);
        two_primaries(r, &mut out);
        durability(r, &mut out);
        proxy(r, &mut out);
    }
    disk_used_twice(resources, &mut out);
    meta_disk_used_twice(resources, &mut out);
    out
}

/// `become-primary-on`: the init script promotes, whoever else decides about owners.
pub(crate) fn become_primary_on(span: Span) -> Problem {
    let text = "\"become-primary-on\" lets the start script promote, with data that may be old";
    Problem::warning(span, "become-primary-on", text)
        .remedy("remove it and let one place decide where a resource is primary")
}

/// A volume of the resource sets what its host or the resource sets otherwise.
pub(crate) fn ambiguous(of_host: &Settings, of_volume: &Settings) -> Vec<Problem> {
    let differs = |s: &&crate::Setting| of_host.get(s.name).is_some_and(|t| t.value != s.value);
    of_volume
        .iter()
        .filter(differs)
        .map(|s| {
            let text = format!(
                "\"{}\" of this volume has no effect: the resource, \"common\" or the host sets it, \
                 too (and DRBD 9 refuses that)",
                s.name
            );
            Problem::warning(s.span, "ambiguous-inheritance", text)
                .remedy("set it in the volume of each host, or only once")
        })
        .collect()
}

fn device_differs(r: &Resource, out: &mut Vec<Problem>) {
    let Some((first, others)) = r.hosts.split_first() else {
        return;
    };
    for host in others {
        for v in &host.volumes {
            let other = first.volumes.iter().find(|o| o.number == v.number);
            let Some(minor) = other.and_then(|o| o.minor) else {
                continue;
            };
            if v.minor.is_none_or(|m| m == minor) {
                continue;
            }
            let text = format!(
                "resource {} is minor {} on {} but minor {minor} on {}",
                r.name,
                v.minor.unwrap_or_default(),
                host.shown(),
                first.shown()
            );
            out.push(
                Problem::warning(v.span, "device-differs", text).remedy(format!(
                    "use the same device on each host, or mount by the device of the node: \
                 /dev/drbd{minor} does not exist on {} for this resource",
                    host.shown()
                )),
            );
        }
    }
}

fn fencing(r: &Resource, out: &mut Vec<Problem>) {
    // 8.4 has it in the disk section, 9 in net; 9 can have quorum instead.
    let set = |s: &Settings| s.text("fencing").is_some_and(|v| v != "dont-care");
    let quorum = r
        .sections
        .options
        .get("quorum")
        .is_some_and(|s| s.value != Value::Word("off"));
    let volumes = || {
        r.hosts
            .iter()
            .flat_map(|h| &h.volumes)
            .any(|v| set(&v.options))
    };
    if set(&r.sections.disk) || set(&r.sections.net) || quorum || volumes() {
        if r.sections.handlers.get("fence-peer").is_none() && !quorum {
            let text = format!("resource {} has fencing but no fence-peer handler", r.name);
            out.push(
                Problem::warning(r.span, "no-fence-handler", text)
                    .remedy("handlers { fence-peer \"…\"; }"),
            );
        }
        return;
    }
    let text = format!(
        "resource {} has no fencing: when the link between the nodes breaks, both can be promoted",
        r.name
    );
    out.push(Problem::warning(r.span, "no-fencing", text).remedy(
        "disk { fencing resource-only; } with a fence-peer handler (in DRBD 9: net), or promote \
         only with evidence that the peer is down",
    ));
}

fn protocol(r: &Resource, out: &mut Vec<Problem>) {
    if let Some(s) = r.sections.net.get("protocol")
        && r.sections.net.text("protocol") != Some("C")
    {
        let text = format!(
            "resource {}: with protocol {} a write that was acknowledged can be lost with the node",
            r.name,
            s.raw()
        );
        out.push(Problem::warning(s.span, "weak-protocol", text).remedy("protocol C;"));
    }
}

fn split_brain(r: &Resource, out: &mut Vec<Problem>) {
    for (name, harmless) in [
        ("after-sb-0pri", &["disconnect", "discard-zero-changes"][..]),
        ("after-sb-1pri", &["disconnect", "consensus"]),
        ("after-sb-2pri", &["disconnect"]),
    ] {
        if let Some(s) = r.sections.net.get(name)
            && !harmless.contains(&s.raw())
        {
            let text = format!(
                "resource {}: {name} {} throws writes away without asking after a split brain",
                r.name,
                s.raw()
            );
            out.push(
                Problem::warning(s.span, "split-brain-automatic", text)
                    .remedy(format!("{name} disconnect;")),
            );
        }
    }
}

fn authentication(r: &Resource, out: &mut Vec<Problem>) {
    let net = &r.sections.net;
    if net.get("shared-secret").is_some() && net.get("cram-hmac-alg").is_none() {
        let span = net.get("shared-secret").map_or(r.span, |s| s.span);
        let text = format!(
            "resource {}: the secret is not used without cram-hmac-alg",
            r.name
        );
        out.push(
            Problem::warning(span, "no-peer-authentication", text).remedy("cram-hmac-alg sha1;"),
        );
    } else if net.get("cram-hmac-alg").is_none() {
        let text = format!(
            "resource {}: any host that reaches the port can be the peer",
            r.name
        );
        out.push(
            Problem::warning(r.span, "no-peer-authentication", text)
                .remedy("net { cram-hmac-alg sha1; shared-secret \"…\"; }"),
        );
    }
}

fn disk_used_twice(resources: &[Resource], out: &mut Vec<Problem>) {
    let mut seen: std::collections::HashMap<(&str, &Path), String> = Default::default();
    for r in resources {
        for host in &r.hosts {
            let HostName::On(names) = &host.name else {
                continue;
            };
            for v in &host.volumes {
                let Some(disk) = v.disk.as_deref() else {
                    continue;
                };
                for name in names.iter() {
                    let user = format!("{}/{}", r.name, v.number);
                    if let Some(other) = seen.insert((name, disk), user.clone()) {
                        let text = format!(
                            "disk {} on {name} is used by {other} already, and by {user}",
                            disk.display()
                        );
                        out.push(Problem::warning(v.span, "disk-used-twice", text));
                    }
                }
            }
        }
    }
}

/// At boot: the shorter the less is known. A wait without end is 0.
fn waiting(r: &Resource, out: &mut Vec<Problem>) {
    let order = ["outdated-wfc-timeout", "degr-wfc-timeout", "wfc-timeout"];
    let seconds = |name| match r.sections.startup.number(name) {
        Some(0) => Some(u64::MAX),
        other => other,
    };
    for pair in order.windows(2) {
        let (Some(short), Some(long)) = (seconds(pair[0]), seconds(pair[1])) else {
            continue;
        };
        if short > long
            && let Some(s) = r.sections.startup.get(pair[0])
        {
            let text = format!(
                "resource {}: {} waits longer than {}, although the peer is known to be gone",
                r.name, pair[0], pair[1]
            );
            out.push(
                Problem::warning(s.span, "wfc-order", text)
                    .remedy(format!("{} at most as long as {}", pair[0], pair[1])),
            );
        }
    }
    // Whatever the peer did meanwhile: after the wait the script promotes.
    if let (Some(at), Some(wait)) = (
        r.sections.become_primary_at,
        r.sections.startup.number("wfc-timeout").filter(|n| *n != 0),
    ) {
        let text = format!(
            "resource {}: after {wait} s without the peer the start script promotes, with data that \
             may be old",
            r.name
        );
        out.push(
            Problem::warning(at, "boot-promotion", text)
                .remedy("remove become-primary-on, or let the wait have no end: wfc-timeout 0;"),
        );
    }
}

fn two_primaries(r: &Resource, out: &mut Vec<Problem>) {
    let net = &r.sections.net;
    let stonith = |s: &Settings| s.text("fencing") == Some("resource-and-stonith");
    if net.flag("allow-two-primaries") == Some(true)
        && !stonith(net)
        && !stonith(&r.sections.disk)
        && let Some(s) = net.get("allow-two-primaries")
    {
        let text = format!(
            "resource {}: two primaries without fencing that stops one of them",
            r.name
        );
        out.push(
            Problem::warning(s.span, "two-primaries", text)
                .remedy("allow-two-primaries no; or fencing resource-and-stonith;"),
        );
    }
}

/// DRBD connects to a proxy, which somebody else has to tell what to do.
fn proxy(r: &Resource, out: &mut Vec<Problem>) {
    let of_hosts = r.hosts.iter().filter_map(|h| h.proxy.as_deref());
    let ends = r.connections.iter().flat_map(|c| &c.paths).flatten();
    let proxies = of_hosts.chain(ends.filter_map(|end| end.proxy.as_deref()));
    let mut hosts: Vec<_> = proxies.flat_map(|p| &p.hosts).collect();
    hosts.sort();
    hosts.dedup();
    if !hosts.is_empty() {
        let hosts = hosts
            .iter()
            .map(|h| h.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let text = format!(
            "resource {} goes through DRBD Proxy, which bringing it up does not configure",
            r.name
        );
        out.push(Problem::warning(r.span, "proxy", text).remedy(format!(
            "drbdadm proxy-up {} on {hosts}; DRBD connects to the inside address of its proxy",
            r.name
        )));
    }
}

/// What makes an acknowledged write depend on the power.
fn durability(r: &Resource, out: &mut Vec<Problem>) {
    let volumes = r.hosts.iter().flat_map(|h| &h.volumes);
    let all = std::iter::once(&r.sections.disk).chain(volumes.map(|v| &v.options));
    let mut seen = Vec::new();
    for s in all.flat_map(Settings::iter) {
        let off = s.value == Value::Flag(false);
        let what = match s.name {
            "disk-flushes" | "md-flushes" if off => {
                "what is in the cache of the disk is lost with the power"
            }
            "al-updates" if off => "a crash needs a full synchronisation",
            _ => continue,
        };
        if seen.contains(&s.span) {
            continue;
        }
        seen.push(s.span);
        let text = format!("resource {}: without {} {what}", r.name, s.name);
        out.push(
            Problem::warning(s.span, "unsafe-disk", text)
                .remedy(format!("{} yes; unless the cache has a battery", s.name)),
        );
    }
}

fn meta_disk_used_twice(resources: &[Resource], out: &mut Vec<Problem>) {
    let mut seen: std::collections::HashMap<(&str, &MetaDisk), String> = Default::default();
    for r in resources {
        for host in &r.hosts {
            let HostName::On(names) = &host.name else {
                continue;
            };
            for v in &host.volumes {
                let Some(meta) = v.meta_disk.as_ref().filter(|m| **m != MetaDisk::Internal) else {
                    continue;
                };
                for name in names.iter() {
                    let user = format!("{}/{}", r.name, v.number);
                    if let Some(other) = seen.insert((name, meta), user.clone()) {
                        let text = format!(
                            "meta-disk {meta} on {name} is used by {other} already, and by {user}"
                        );
                        out.push(
                            Problem::warning(v.span, "meta-disk-used-twice", text)
                                .remedy("give each volume an index, or a device, of its own"),
                        );
                    }
                }
            }
        }
    }
}
