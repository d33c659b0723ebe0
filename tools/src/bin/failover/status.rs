//! `failover status`.

use std::path::Path;

use ha_failover::facts::{Disk, Facts, Role};
use ha_failover::{Error, ErrorKind, Node, Placement, Resource, Result, World};
use serde_json::json;
use tools::exit;

use crate::output::Output;

pub(crate) fn status(
    placement: &Placement,
    path: &Path,
    name: &str,
    only: Option<&str>,
    output: &Output,
    open: impl Fn(&str) -> Result<Node>,
) -> Result<u8> {
    let wanted: Vec<&Resource> = match only {
        Some(only) => vec![placement.resource(only)?],
        None => placement.resources.iter().collect(),
    };
    let mut entries = Vec::new();
    for resource in wanted {
        let facts = open(&resource.name)?.facts()?;
        if !facts.privileged {
            return Err(
                Error::new(ErrorKind::Permission, "status: only root sees what matters")
                    .remedy("run it as root"),
            );
        }
        let summary = summary(&facts, resource);
        if output.is_json() {
            entries.push(json!({
                "resource": resource.name,
                "placement_digest": resource.digest(),
                "serving": serving(&facts),
                "summary": summary,
                "facts": facts,
            }));
        } else {
            output.say(&text(&facts, resource, &summary));
        }
    }
    if output.is_json() {
        output.event(&json!({"node": name, "placement": path, "resources": entries}));
    }
    Ok(exit::DONE)
}

fn serving(facts: &Facts) -> bool {
    facts.drbd.as_ref().is_some_and(|d| d.role == Role::Primary)
        && facts.mount.store.is_some()
        && facts
            .containers
            .values()
            .all(ha_failover::facts::ContainerFacts::running)
}

fn summary(facts: &Facts, resource: &Resource) -> String {
    let peer = resource.peer_of(&facts.node).unwrap_or("the peer");
    let Some(drbd) = &facts.drbd else {
        return if facts.module.loaded {
            "down".into()
        } else {
            "down, module not loaded".into()
        };
    };
    let what = if serving(facts) {
        format!("serving in epoch {}", facts.ledger.epoch)
    } else if facts.mount.store.is_some() {
        format!("{}, mounted, not all containers run", drbd.role)
    } else {
        drbd.role.to_string()
    };
    let disks: Vec<_> = drbd
        .volumes
        .values()
        .map(|v| format!("{}/{}", v.disk, v.peer_disk))
        .collect();
    let link = match (drbd.connected(), drbd.link) {
        (true, _) => format!("peer {peer} connected as {}", drbd.peer_role),
        (false, Some(link)) => format!("peer {peer} not connected ({link})"),
        (false, None) => format!("not connecting to {peer}"),
    };
    format!("{what}; {link}; disks {}", disks.join(", "))
}

fn text(facts: &Facts, resource: &Resource, summary: &str) -> String {
    let mut lines = vec![format!("{} on {}: {summary}", resource.name, facts.node)];
    let ledger = &facts.ledger;
    lines.push(format!(
        "  owner {} in epoch {} by this node's ledger; placement {}",
        ledger.owner.as_deref().unwrap_or("unknown"),
        ledger.epoch,
        resource.digest()
    ));
    if let Some(drbd) = &facts.drbd {
        for (number, volume) in &drbd.volumes {
            let oos = match volume.out_of_sync_kib {
                Some(kib) if kib > 0 => format!(", {kib} KiB out of sync"),
                _ => String::new(),
            };
            lines.push(format!(
                "  volume {number}: minor {}, {}{oos}",
                volume.minor,
                if volume.disk == Disk::UpToDate {
                    "UpToDate".into()
                } else {
                    format!("{}: not usable alone", volume.disk)
                }
            ));
        }
    }
    if let Some(when) = &facts.split_brain {
        lines.push(format!(
            "  SPLIT BRAIN ({when}): both nodes have written on their own; decide whose changes are given up, then \
             `failover resolve-split-brain {} --victim NODE --keep DIR --accept TEXT` there, and on the other node too",
            resource.name
        ));
    }
    match &facts.mount.store {
        Some(store) => lines.push(format!(
            "  {} on {}{}",
            store.source.display(),
            resource.mount.display(),
            if store.read_only { ", READ-ONLY" } else { "" }
        )),
        None => lines.push(format!("  {} not mounted", resource.mount.display())),
    }
    for (name, container) in &facts.containers {
        let state = container
            .state
            .as_ref()
            .map_or_else(|| "not visible".to_owned(), ToString::to_string);
        lines.push(format!(
            "  container {name}: {state}{}",
            container
                .problem
                .as_ref()
                .map(|p| format!(": {p}"))
                .unwrap_or_default()
        ));
    }
    if let Some(open) = &facts.open {
        lines.push(format!(
            "  {} of {} was cut short after {}; run it again",
            open.request,
            open.began,
            open.last.as_deref().unwrap_or("no step")
        ));
    }
    lines.join("\n")
}
