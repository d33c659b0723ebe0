//! The side that will serve: start and handover.

use super::{Planner, QUICK, SERVED};
use crate::facts::{Disk, Role};
use crate::finding::Code;
use crate::plan::{Action, Step};

impl Planner<'_> {
    /// Promote by `promote`, mount, verify, claim, start: what is left of it, and its undo.
    pub(super) fn serve(&mut self, promote: Option<Action>, takeover: bool) {
        let facts = self.facts;
        let resource = self.resource;
        let deadlines = &resource.deadlines;
        let target = resource.mount.clone();
        // What an earlier run that was cut short has done is undone with the rest.
        let resuming = ["handover", "takeover", "start"]
            .iter()
            .any(|r| self.open_is(r));
        let mut undo = Vec::new();
        if let Some(action) = promote {
            undo.push((self.steps.len(), Action::Demote, deadlines.demote));
            self.steps
                .push(Step::new(action, deadlines.promote).in_gap());
        } else if resuming {
            undo.push((0, Action::Demote, deadlines.demote));
        }
        if facts.mount.store.is_none() {
            undo.push((
                self.steps.len(),
                Action::Unmount {
                    target: target.clone(),
                },
                deadlines.unmount,
            ));
            let device = self.device();
            self.steps
                .push(Step::new(Action::Mount { device, target }, deadlines.mount).in_gap());
        } else if resuming {
            undo.push((0, Action::Unmount { target }, deadlines.unmount));
        }
        self.steps
            .push(Step::new(Action::VerifyStore, QUICK).in_gap());
        self.steps
            .push(Step::new(Action::CheckContainers, QUICK).in_gap());
        let claim = self.steps.len();
        self.steps
            .push(Step::new(Action::Claim { takeover }, QUICK).in_gap());
        for container in &resource.containers {
            let name = container.name.clone();
            let running = facts
                .containers
                .get(&name)
                .is_some_and(crate::facts::ContainerFacts::running);
            if running {
                if resuming {
                    undo.push((
                        0,
                        Action::StopContainer { name: name.clone() },
                        container.stop_within(),
                    ));
                }
            } else {
                undo.push((
                    self.steps.len(),
                    Action::StopContainer { name: name.clone() },
                    container.stop_within(),
                ));
                self.steps.push(
                    Step::new(
                        Action::StartContainer { name: name.clone() },
                        container.start_deadline,
                    )
                    .in_gap(),
                );
                // Announced before the probe: the probe may come from outside.
                if !container.addresses.is_empty() {
                    self.steps.push(
                        Step::new(Action::Announce { name: name.clone() }, QUICK)
                            .in_gap()
                            .optional(),
                    );
                }
            }
            if container.ready.is_some() {
                self.steps.push(
                    Step::new(Action::AwaitReady { name }, container.start_deadline).in_gap(),
                );
            }
        }
        let claimed = if resuming { 0 } else { claim };
        for (from, action, deadline) in undo.into_iter().rev() {
            self.undo(from, action, deadline);
        }
        if !self.undo.is_empty() {
            self.undo(claimed, Action::RecordReleased, QUICK);
        }
    }

    pub(super) fn start(&mut self) {
        let name = self.name();
        let peer = self.peer();
        let ledger = &self.facts.ledger;
        let Some(drbd) = self.running_resource() else {
            return;
        };
        if drbd.connected() && drbd.peer_role == Role::Primary {
            self.error(
                Code::PeerPrimary,
                &name,
                format!("{peer} is Primary and serves"),
                format!(
                    "run `failover handover {name}` here and `failover release {name}` on {peer}"
                ),
            );
            return;
        }
        if drbd.role != Role::Primary {
            if ledger.owner.as_deref() == Some(&peer) {
                self.error(
                    Code::OwnedByPeer,
                    &name,
                    format!("{peer} owns it since epoch {}", ledger.epoch),
                    format!("start it there, or run `failover handover {name}` here while both are connected"),
                );
            }
            if drbd.connected() {
                self.newest_here(drbd);
            } else if drbd.given_up() {
                self.connected(drbd);
            } else {
                let evidence = if ledger.serving {
                    format!(
                        "this node served in epoch {} when it was lost, and {peer} does not answer: it may have taken over since, and this data may be past",
                        ledger.epoch
                    )
                } else {
                    format!(
                        "{peer} does not answer, so nobody can tell whether it took over since epoch {}",
                        ledger.epoch
                    )
                };
                self.error(
                    Code::AskThePeer,
                    &name,
                    evidence,
                    format!("bring {peer} or the link up and run `failover up {name}`; if {peer} is off for good, `failover takeover {name}` says what it needs"),
                );
            }
        } else {
            self.primary_with_reason(drbd, &SERVED);
        }
        self.fit_to_serve();
        self.serve(
            (drbd.role != Role::Primary).then_some(Action::Promote),
            false,
        );
    }

    pub(super) fn handover(&mut self, peer_placement: Option<&str>) {
        let name = self.name();
        let peer = self.peer();
        self.compare_placement(peer_placement);
        self.fit_to_serve();
        let Some(drbd) = self.running_resource() else {
            return;
        };
        if drbd.role == Role::Primary {
            self.primary_with_reason(drbd, &["handover", "takeover"]);
            if self.facts.ledger.owner.as_deref() == Some(&self.facts.node)
                && !self.open_is("handover")
            {
                self.warn(
                    Code::NothingToDo,
                    &name,
                    "this node serves it already",
                    format!("`failover start {name}` starts what does not run"),
                );
                return;
            }
            self.serve(None, false);
            return;
        }
        self.connected(drbd);
        let lost = drbd.connected() && drbd.all_peer_disks(Disk::Diskless);
        if lost && drbd.all_disks(Disk::UpToDate) {
            self.warn(
                Code::PeerDiskNotUpToDate,
                &name,
                format!("the disk of {peer} is gone: every write is on this disk alone"),
                format!("serving here is right; look at the disk of {peer} afterwards"),
            );
        } else {
            self.both_in_sync(drbd);
        }
        self.step(Action::AwaitPeerSecondary, self.resource.deadlines.handover);
        self.serve(Some(Action::Promote), false);
        if drbd.connected() && drbd.peer_role == Role::Secondary {
            self.warn(
                Code::PeerNotPrimary,
                &name,
                format!("{peer} does not serve it now"),
                "this node will serve at once",
            );
        }
    }
}
