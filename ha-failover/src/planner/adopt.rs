//! Taking over what other tools run, and leaving it to them again. Nothing is stopped or started.

use super::{Planner, QUICK};
use crate::facts::Role;
use crate::finding::{Code, Finding, Severity};
use crate::plan::{Action, Request};

/// What drbd-utils have the kernel call.
const DRBDADM: &str = "/sbin/drbdadm";

impl Planner<'_> {
    /// Whether this tool runs the resource at all; `false` with a finding when it was handed back.
    pub(super) fn managed(&mut self, request: &Request) -> bool {
        let name = self.name();
        if !self.facts.ledger.handed_back || matches!(request, Request::Adopt | Request::HandBack) {
            return true;
        }
        self.error(
            Code::HandedBack,
            &name,
            "it was handed back to other tools, which run it since",
            format!("use those, or `failover adopt {name}` on both nodes"),
        );
        false
    }

    pub(super) fn adopt(&mut self) {
        let facts = self.facts;
        let name = self.name();
        let peer = self.peer();
        for manager in &facts.managers {
            let at = match manager.line {
                0 => String::new(),
                line => format!(" (line {line})"),
            };
            self.findings.push(Finding {
                severity: manager.severity,
                ..Finding::error(
                    manager.code,
                    format!("{}{at}", manager.file.display()),
                    &manager.what,
                    &manager.remedy,
                )
            });
        }
        self.helper_is_there();
        for other in &facts.strangers {
            self.warn(
                Code::OtherResources,
                other,
                "the placement does not have this resource, and the kernel calls one program for the handlers of all",
                "its handlers of drbd.conf are not called while this tool runs another one here",
            );
        }
        let Some(drbd) = self.running_resource() else {
            return;
        };
        for step in &facts.differs {
            self.error(
                Code::ResourceDiffers,
                &name,
                format!("what runs is not what drbd.conf says: `{step}` would make it so"),
                format!("`drbdadm adjust {name}`, or correct drbd.conf"),
            );
        }
        self.connected(drbd);
        let ours = facts.ledger.owner.as_deref() == Some(&facts.node) && facts.ledger.serving;
        let theirs = facts.ledger.owner.as_deref() == Some(&peer) && !facts.ledger.serving;
        let adopted = self.other_helper().is_none() && !facts.ledger.handed_back;
        match (drbd.role, drbd.peer_role) {
            (Role::Primary, Role::Primary) => self.error(
                Code::PeerPrimary,
                &name,
                format!("this node and {peer} are both Primary"),
                "make one of them Secondary first: a Btrfs cannot be mounted twice",
            ),
            (Role::Primary, _) if ours && adopted => self.nothing_to_adopt("this node serves it"),
            (Role::Primary, _) => {
                self.running_store();
                self.switch();
                self.step(Action::VerifyStore, QUICK);
                self.step(Action::Claim { takeover: false }, QUICK);
                self.step(Action::RecordSeen, QUICK);
            }
            (_, Role::Primary) if theirs && adopted => {
                self.nothing_to_adopt(&format!("{peer} serves it"));
            }
            (_, Role::Primary) => {
                self.switch();
                self.step(Action::RecordPeerOwns, QUICK);
            }
            _ if drbd.connected() => self.error(
                Code::NobodyServes,
                &name,
                "neither node is Primary: there is nothing that runs and could be adopted",
                format!("start it first where it belongs; or `failover start {name}` there, which does the same"),
            ),
            _ => {}
        }
    }

    fn nothing_to_adopt(&mut self, why: &str) {
        let name = self.name();
        self.warn(
            Code::NothingToDo,
            &name,
            format!("this tool runs it already: {why}"),
            format!("`failover hand-back {name}` leaves it to other tools"),
        );
    }

    /// What is mounted and runs must be what the placement says.
    fn running_store(&mut self) {
        let facts = self.facts;
        let point = self.resource.mount.display().to_string();
        if facts.mount.store.is_none() {
            let device = self.device().display().to_string();
            self.error(
                Code::StoreNotMounted,
                point,
                format!("{device} is not mounted there"),
                "mount it there, or correct `mount` in the placement",
            );
        }
        let before = self.findings.len();
        self.holders();
        for finding in &mut self.findings[before..] {
            // In the way of a handover, not of this.
            finding.severity = Severity::Warning;
            finding.remedy = "a handover will be refused while that is so".into();
        }
        self.fit_to_serve();
        for finding in &mut self.findings[before..] {
            if finding.code == Code::ContainerAutostart {
                finding.severity = Severity::Error;
            }
        }
        for (name, container) in &facts.containers {
            if facts.mount.store.is_some() && !container.running() && container.problem.is_none() {
                self.warn(
                    Code::ContainerState,
                    format!("container {name}"),
                    "it does not run, and is left so",
                    format!("`failover start {}` starts it", self.resource.name),
                );
            }
        }
    }

    /// What the kernel called before is recorded before it calls another one.
    fn switch(&mut self) {
        let before = self.other_helper();
        let helper_before = before
            .clone()
            .or_else(|| self.facts.ledger.helper_before.clone());
        self.step(Action::RecordAdopted { helper_before }, QUICK);
        if before.is_some() {
            let helper = self.facts.module.wanted_helper.clone();
            self.step(Action::SetHelper { helper }, QUICK);
        }
    }

    pub(super) fn hand_back(&mut self) {
        let facts = self.facts;
        let name = self.name();
        let ledger = &facts.ledger;
        let own_helper = facts.module.loaded && self.other_helper().is_none();
        if own_helper && facts.also_ours.is_empty() {
            let before = ledger.helper_before.clone();
            let helper = before.unwrap_or_else(|| DRBDADM.into()).into();
            self.step(Action::SetHelper { helper }, QUICK);
        } else if own_helper && !ledger.handed_back {
            self.warn(
                Code::OtherResources,
                &name,
                format!(
                    "the kernel goes on calling this tool's helper, which {} need",
                    facts.also_ours.join(", ")
                ),
                "it is set back when the last one is handed back",
            );
        }
        if !ledger.handed_back {
            self.step(Action::RecordHandedBack, QUICK);
        } else if self.steps.is_empty() {
            self.warn(
                Code::NothingToDo,
                &name,
                "it was handed back already",
                format!("`failover adopt {name}` takes it over again"),
            );
        }
    }
}
