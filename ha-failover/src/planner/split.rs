//! Two nodes that have both written: bringing them together again.

use std::path::{Path, PathBuf};

use super::{Planner, QUICK};
use crate::evidence::Attestation;
use crate::finding::Code;
use crate::plan::Action;

/// Where the victim's store is mounted while it is read.
pub(crate) fn rescue_mount(resource: &str) -> PathBuf {
    Path::new("/run/ha-failover/rescue").join(resource)
}

impl Planner<'_> {
    pub(super) fn resolve_split_brain(
        &mut self,
        victim: &str,
        keep: Option<&Path>,
        accept: &Attestation,
    ) {
        let name = self.name();
        let facts = self.facts;
        let deadlines = self.resource.deadlines.clone();
        if !self.resource.nodes.contains_key(victim) {
            self.error(
                Code::NodeNotInPlacement,
                victim,
                format!("it is no node of {name}"),
                "name the node whose changes are given up",
            );
            return;
        }
        let Some(drbd) = self.running_resource() else {
            return;
        };
        if drbd.connected() {
            self.warn(
                Code::NothingToDo,
                &name,
                "the two nodes are connected: there is no split brain any more",
                format!("`failover wait-sync {name}` waits for the resync"),
            );
            return;
        }
        if facts.split_brain.is_none() {
            self.warn(
                Code::SplitBrainSuspected,
                &name,
                "DRBD has not told this node of a split brain (it tells when it finds one, and not again after a boot)",
                "if the nodes are only disconnected, `failover up` is enough and nothing is given up",
            );
        }
        if facts.node == victim {
            self.victim(keep, accept);
        } else {
            self.step(Action::AwaitVictim, deadlines.handover);
            self.step(Action::RecordSeen, QUICK);
        }
    }

    fn victim(&mut self, keep: Option<&Path>, accept: &Attestation) {
        let name = self.name();
        let facts = self.facts;
        let deadlines = self.resource.deadlines.clone();
        let Some(keep) = keep else {
            self.error(
                Code::NothingKept,
                &name,
                "what this node has written since the split would be gone",
                "name a directory of this node with room for it: `--keep DIRECTORY`",
            );
            return;
        };
        if !keep.is_absolute() || keep.starts_with(&self.resource.mount) {
            self.error(
                Code::NothingKept,
                keep.display().to_string(),
                "not an absolute path outside the store",
                "what is kept in the store is overwritten with it",
            );
        }
        let rescue = rescue_mount(&name);
        // Left by a run that was cut short.
        if facts.mount.elsewhere.contains(&rescue) {
            self.step(Action::Unmount { target: rescue }, deadlines.unmount);
        }
        if facts.mount.store.is_some() {
            self.holders();
        }
        if facts.mount.store.is_some() || self.is_primary() {
            self.leave();
            // There is no way back that would not make two owners again.
            self.undo.clear();
        }
        self.step(Action::Disconnect, deadlines.drbd);
        self.step(
            Action::PromoteToRescue {
                accepted: accept.clone(),
            },
            deadlines.promote,
        );
        let demote = self.steps.len();
        self.step(
            Action::KeepAside {
                into: keep.join(&name),
            },
            deadlines.sync,
        );
        self.undo(demote, Action::Demote, deadlines.demote);
        self.step(Action::Demote, deadlines.demote);
        self.step(Action::RecordReleased, QUICK);
        self.step(Action::ConnectDiscarding, deadlines.drbd);
        self.step(Action::Settle, deadlines.handover);
        self.step(Action::RecordSeen, QUICK);
    }
}
