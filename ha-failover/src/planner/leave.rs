//! The side that serves and stops: stop and release.

use super::{Planner, QUICK, SERVED, running};
use crate::facts::{ContainerState, Disk, Role};
use crate::finding::Code;
use crate::plan::{Action, Step};

impl Planner<'_> {
    /// Stop the containers, unmount, demote: what is left of it, and the way back.
    pub(super) fn leave(&mut self) {
        let facts = self.facts;
        let resource = self.resource;
        let deadlines = &resource.deadlines;
        let running = running(facts);
        let mut back = Vec::new();
        for container in resource.containers.iter().rev() {
            let name = container.name.clone();
            let state = facts.containers.get(&name).and_then(|c| c.state.clone());
            // Stopped by a run that was cut short: an undo still has to bring it back.
            let mut from = running.contains(&name).then_some(0);
            match state.clone() {
                Some(ContainerState::Running) => {
                    from = Some(self.steps.len());
                    self.steps.push(
                        Step::new(
                            Action::StopContainer { name: name.clone() },
                            container.stop_within(),
                        )
                        .in_gap(),
                    );
                }
                Some(ContainerState::Frozen) => self.error(
                    Code::ContainerState,
                    format!("container {name}"),
                    "FROZEN: it will not answer a shutdown",
                    "thaw it (lxc-unfreeze) and run the command again",
                ),
                Some(ContainerState::Other(word)) => self.error(
                    Code::ContainerState,
                    format!("container {name}"),
                    format!("{word}: between two states"),
                    "wait until it has settled and run the command again",
                ),
                _ => {}
            }
            if let Some(from) = from {
                if facts.mount.store.is_some() && state != Some(ContainerState::Running) {
                    self.steps
                        .push(Step::new(Action::VerifyGone { name: name.clone() }, QUICK).in_gap());
                }
                back.push((
                    from,
                    Action::StartContainer { name },
                    container.start_deadline,
                ));
            }
        }
        let device = self.device();
        let target = resource.mount.clone();
        let mut from = 0;
        if facts.mount.store.is_some() {
            from = self.steps.len();
            self.steps.push(
                Step::new(
                    Action::Unmount {
                        target: target.clone(),
                    },
                    deadlines.unmount,
                )
                .in_gap(),
            );
        }
        back.push((from, Action::Mount { device, target }, deadlines.mount));
        let mut from = 0;
        if self.is_primary() {
            from = self.steps.len();
            self.steps
                .push(Step::new(Action::Demote, deadlines.demote).in_gap());
        }
        back.push((from, Action::Promote, deadlines.promote));
        for (from, action, deadline) in back.into_iter().rev() {
            self.undo(from, action, deadline);
        }
    }

    pub(super) fn stop(&mut self) {
        let Some(drbd) = self.running_resource() else {
            return;
        };
        self.holders();
        self.primary_with_reason(drbd, &SERVED);
        if drbd.role != Role::Primary && self.facts.mount.store.is_none() {
            if self.facts.ledger.serving {
                self.step(Action::RecordReleased, QUICK);
            }
            return;
        }
        self.leave();
        self.step(Action::RecordReleased, QUICK);
    }

    pub(super) fn release(&mut self, peer_placement: Option<&str>) {
        let name = self.name();
        let peer = self.peer();
        let Some(drbd) = self.running_resource() else {
            return;
        };
        self.compare_placement(peer_placement);
        if drbd.role != Role::Primary {
            let ours = self.facts.ledger.owner.as_deref() == Some(&self.facts.node);
            if drbd.connected() && drbd.peer_role == Role::Primary {
                // The peer has it already: only the record is missing, if that.
                if ours || self.facts.ledger.serving {
                    self.step(Action::RecordPeerOwns, QUICK);
                }
                return;
            }
            if !self.open_is("release") {
                self.error(
                    Code::NotPrimary,
                    &name,
                    "this node does not serve it",
                    format!(
                        "nothing to release here; `failover status {name}` on both nodes shows who does",
                    ),
                );
                return;
            }
        }
        self.connected(drbd);
        let lost = drbd.connected() && drbd.all_disks(Disk::Diskless);
        if lost && drbd.all_peer_disks(Disk::UpToDate) {
            self.warn(
                Code::DiskNotUpToDate,
                &name,
                format!(
                    "the local disk is gone: all reads and writes are on the disk of {peer} alone"
                ),
                "handing it over is right; look at this disk afterwards",
            );
        } else {
            self.both_in_sync(drbd);
        }
        for (container, facts) in &self.facts.containers {
            if let Some(problem) = &facts.problem {
                self.error(
                    Code::ContainerConfig,
                    format!("container {container}"),
                    problem,
                    format!("{peer} could not start it: correct its configuration in the store; nothing has been stopped yet"),
                );
            }
        }
        if drbd.role == Role::Primary {
            self.primary_with_reason(drbd, &SERVED);
            self.holders();
            if let Some(store) = &self.facts.mount.store
                && !store.device_errors.is_empty()
            {
                self.warn(
                    Code::StoreErrors,
                    self.resource.mount.display().to_string(),
                    format!("its device has had errors: {}", store.device_errors.join(", ")),
                    "what was read wrong here is not wrong on the peer's disk; handing it over is right, look at this disk afterwards",
                );
            }
            if let Some(store) = &self.facts.mount.store
                && store.read_only
            {
                self.warn(
                    Code::StoreReadOnly,
                    self.resource.mount.display().to_string(),
                    "mounted read-only, perhaps after I/O errors",
                    "handing it over is right; look at the kernel log afterwards",
                );
            }
        }
        self.leave();
        self.steps
            .push(Step::new(Action::AwaitPeerPrimary, self.resource.deadlines.take_back).in_gap());
        self.step(Action::RecordPeerOwns, QUICK);
        if self
            .facts
            .conf
            .fencing
            .as_deref()
            .is_none_or(|f| f == "dont-care")
        {
            self.warn(
                Code::WeakPromise,
                &name,
                format!("fencing dont-care: every write acknowledged while connected to {peer} is on both disks; one acknowledged while disconnected is on one"),
                "`fencing resource-and-stonith` holds writes until the peer is fenced",
            );
        }
    }
}
