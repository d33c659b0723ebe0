//! `failover snapshots` and `failover space`: what is in a store.

use ha_failover::{Error, ErrorKind, Node, Result, World};
use serde_json::json;
use tools::exit;

use crate::output::Output;

/// A name that sorts by time: `20261231T235959Z`.
pub(crate) fn name_of_now() -> String {
    let now = ha_failover::node::wall_clock();
    let digits: String = now
        .chars()
        .take(19)
        .filter(|c| c.is_ascii_alphanumeric())
        .collect();
    format!("{digits}Z")
}

pub(crate) fn list(mut node: Node, only: Option<&str>, output: &Output) -> Result<u8> {
    let facts = node.facts()?;
    if facts.mount.store.is_none() {
        let mount = node.resource().mount.display();
        return Err(Error::new(
            ErrorKind::Usage,
            format!(
                "{mount}: the store of {} is not mounted here",
                node.resource().name
            ),
        )
        .remedy("run it on the node that serves it"));
    }
    let mut snapshots = facts.snapshots;
    if let Some(only) = only {
        snapshots.retain(|container, _| container == only);
    }
    output.event(&json!({"resource": node.resource().name, "snapshots": snapshots}));
    for (container, all) in &snapshots {
        for snapshot in all {
            let about = match &snapshot.taken {
                Some(taken) => format!("{taken}  epoch {} on {}", snapshot.epoch, snapshot.node),
                None => "taking it was cut short; delete it".to_owned(),
            };
            output.say(&format!("{container}  {}  {about}", snapshot.name));
        }
    }
    Ok(exit::DONE)
}

pub(crate) fn space(mut node: Node, output: &Output) -> Result<u8> {
    let space = node.space()?;
    output.event(&json!({"resource": node.resource().name, "space": space}));
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    output.say(&format!(
        "{} in all, {} not given out yet",
        mib(space.total),
        mib(space.unallocated)
    ));
    for row in &space.groups {
        output.say(&format!(
            "  {}: {} of {}",
            row.kind,
            mib(row.used),
            mib(row.allocated)
        ));
    }
    if space.reserve_used > 0 {
        output.say(&format!(
            "  ALARM: {} of the metadata reserve are in use",
            mib(space.reserve_used)
        ));
    }
    for error in &space.device_errors {
        output.say(&format!("  ALARM: {error}"));
    }
    for (container, count) in &space.snapshots {
        output.say(&format!("  {container}: {count} snapshots"));
    }
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_sort_by_time() {
        let name = super::name_of_now();
        assert_eq!(
            (name.len(), name.as_bytes()[8], name.as_bytes()[15]),
            (16, b'T', b'Z'),
            "{name}"
        );
    }
}
