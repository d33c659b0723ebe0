//! Snapshots of containers, in the store beside them.

use std::time::Duration;

use super::Planner;
use crate::facts::SnapshotFacts;
use crate::finding::Code;
use crate::placement::is_plain_name;
use crate::plan::Action;

/// Deleting and copying metadata of a large tree may take its time on a busy disk.
const TREE: Duration = Duration::from_secs(120);

impl<'a> Planner<'a> {
    /// Whether the store is here to be worked in.
    fn store_is_here(&mut self) -> bool {
        let name = self.name();
        let Some(store) = &self.facts.mount.store else {
            self.error(
                Code::StoreNotMounted,
                self.resource.mount.display().to_string(),
                format!("the store of {name} is not mounted here"),
                format!("run it on the node that serves it, or `failover start {name}`"),
            );
            return false;
        };
        self.mounted_store(store);
        true
    }

    fn kept(&self, container: &str, name: &str) -> Option<&'a SnapshotFacts> {
        self.facts
            .snapshots
            .get(container)?
            .iter()
            .find(|s| s.name == name)
    }

    fn named(&mut self, name: &str) {
        if !is_plain_name(name) {
            self.error(
                Code::BadName,
                format!("`{name}`"),
                "cannot be the name of a container or a snapshot",
                "use letters, digits, `.`, `_`, `-`, at most 64, not starting with `.` or `-`",
            );
        }
    }

    fn must_be_kept(&mut self, container: &str, name: &str) {
        let known = match self.kept(container, name) {
            Some(snapshot) => snapshot.taken.is_some(),
            None => false,
        };
        if !known {
            let has: Vec<_> = self
                .facts
                .snapshots
                .get(container)
                .into_iter()
                .flatten()
                .filter(|s| s.taken.is_some())
                .map(|s| s.name.as_str())
                .collect();
            self.error(
                Code::SnapshotMissing,
                format!("container {container}"),
                format!(
                    "it has no snapshot `{name}`; it has {}",
                    if has.is_empty() {
                        "none".to_owned()
                    } else {
                        has.join(", ")
                    }
                ),
                format!("`failover snapshots {}` lists them", self.resource.name),
            );
        }
    }

    pub(super) fn snapshot(&mut self, container: &str, name: &str) {
        self.named(name);
        if !self.store_is_here() {
            return;
        }
        if !self.facts.lxcpath.iter().any(|c| c == container) {
            self.error(
                Code::ContainerMissing,
                format!("container {container}"),
                format!(
                    "it has no configuration below {}",
                    self.resource.lxcpath.display()
                ),
                format!("there are: {}", self.facts.lxcpath.join(", ")),
            );
        }
        if let Some(SnapshotFacts {
            taken: Some(at), ..
        }) = self.kept(container, name)
        {
            self.error(
                Code::SnapshotExists,
                format!("container {container}"),
                format!("snapshot `{name}` was taken at {at}"),
                "choose another name, or delete that one first",
            );
        }
        self.step(
            Action::Snapshot {
                container: container.to_owned(),
                name: name.to_owned(),
            },
            TREE,
        );
    }

    pub(super) fn restore_snapshot(&mut self, container: &str, name: &str, into: &str) {
        self.named(into);
        if !self.store_is_here() {
            return;
        }
        self.must_be_kept(container, name);
        if self.facts.lxcpath.iter().any(|c| c == into) {
            self.error(
                Code::ContainerExists,
                format!("container {into}"),
                "it is there already",
                "choose another name: a container is never overwritten",
            );
        }
        let placed = self.resource.containers.iter().any(|c| c.name == into);
        if !placed {
            self.warn(
                Code::ContainerMissing,
                format!("container {into}"),
                "it is not in the placement: it moves with the store, and nothing here starts or stops it",
                "add it to the placement of both nodes if it should serve",
            );
        }
        self.warn(
            Code::ContainerAddress,
            format!("container {into}"),
            format!("it gets hardware addresses of its own; IP addresses are those of {container}"),
            "give it others before both run",
        );
        self.step(
            Action::RestoreSnapshot {
                container: container.to_owned(),
                name: name.to_owned(),
                into: into.to_owned(),
            },
            TREE,
        );
    }

    pub(super) fn delete_snapshot(&mut self, container: &str, name: &str) {
        if !self.store_is_here() {
            return;
        }
        // One whose taking was cut short may be deleted too.
        if self.kept(container, name).is_none() {
            self.must_be_kept(container, name);
        }
        self.step(
            Action::DeleteSnapshot {
                container: container.to_owned(),
                name: name.to_owned(),
            },
            TREE,
        );
    }
}
