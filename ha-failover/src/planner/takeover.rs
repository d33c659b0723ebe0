//! Serving without the peer's consent.

use super::Planner;
use crate::evidence::Power;
use crate::facts::{Disk, Drbd, Role};
use crate::finding::Code;
use crate::placement::Fence;
use crate::plan::{Action, EvidenceNeed, Step, Takeover};

impl Planner<'_> {
    pub(super) fn takeover(&mut self, takeover: &Takeover) {
        let name = self.name();
        let peer = self.peer();
        let facts = self.facts;
        self.fit_to_serve();
        let Some(drbd) = self.running_resource() else {
            return;
        };
        let resuming = self.open_is("takeover");
        if drbd.role == Role::Primary {
            self.primary_with_reason(drbd, &["takeover", "start", "handover"]);
            if facts.ledger.owner.as_deref() == Some(&facts.node) && !resuming {
                self.warn(
                    Code::NothingToDo,
                    &name,
                    "this node serves it already",
                    format!("`failover start {name}` starts what does not run"),
                );
                return;
            }
        }
        // A link that still looks connected to a peer whose power is off is only not yet noticed.
        let dead = takeover.peer_power == Some(Power::Off) && takeover.attest.is_none();
        if drbd.connected() && !dead {
            self.error(
                Code::PeerConnected,
                &name,
                format!("{peer} is connected and {}", drbd.peer_role),
                format!("it is alive: run `failover handover {name}` here and `failover release {name}` there"),
            );
            if drbd.peer_role == Role::Primary {
                self.error(
                    Code::PeerPrimary,
                    &name,
                    format!("{peer} is Primary"),
                    "two owners destroy the data of one of them",
                );
            }
        }
        let declared = takeover.declare_data_current.as_ref();
        if drbd.role != Role::Primary {
            self.local_data(drbd, declared.is_some(), resuming);
        }
        match (&takeover.attest, &self.resource.fence) {
            (Some(text), _) => {
                self.warn(
                    Code::AttestedOnly,
                    &peer,
                    format!("only attested to be off: {text}"),
                    "if that is wrong two nodes serve, and the changes of one are lost; fence it instead where you can",
                );
                self.evidence = Some(EvidenceNeed { node: peer.clone(), from: format!("attested {text}") });
            }
            (None, Fence::Operator) => self.error(
                Code::NoFenceMethod,
                &peer,
                "the placement has no fence command, so nothing can prove that it is off",
                format!("switch {peer} off by hand and say so: `failover takeover {name} --attest \"who: what was done\"`"),
            ),
            (None, Fence::Command { off, .. }) => {
                if let Some(Power::Unknown(why)) = &takeover.peer_power {
                    self.warn(
                        Code::PeerWasPowered,
                        &peer,
                        format!("the fence agent cannot tell its power state ({why})"),
                        "the takeover ends if that stays so after fencing",
                    );
                }
                if takeover.peer_power == Some(Power::On) {
                    self.warn(
                        Code::PeerWasPowered,
                        &peer,
                        "it is powered now: if it served after the link was lost, what it acknowledged since is not here",
                        "where a living path exists, prefer `release` there; it will be switched off by the first step",
                    );
                }
                self.evidence = Some(EvidenceNeed {
                    node: peer.clone(),
                    from: format!("`{}`, then read back", off.join(" ").replace("{node}", &peer)),
                });
            }
        }
        let mut promote = None;
        if drbd.role != Role::Primary {
            let attested = takeover.attest.is_some();
            if attested && !drbd.given_up() {
                self.steps
                    .push(Step::new(Action::Disconnect, self.resource.deadlines.drbd).in_gap());
            }
            promote = Some(match (declared, &takeover.promote_unfenced) {
                (Some(accepted), _) if !drbd.all_disks(Disk::UpToDate) => {
                    Action::DeclareDataCurrent {
                        accepted: accepted.clone(),
                    }
                }
                (_, Some(accepted)) => Action::PromoteUnfenced {
                    accepted: accepted.clone(),
                },
                _ => Action::PromoteFenced,
            });
        }
        self.serve(promote, true);
        if drbd.given_up() || takeover.attest.is_some() {
            self.step(Action::Connect, self.resource.deadlines.drbd);
            if let Some(last) = self.steps.last_mut() {
                last.optional = true;
            }
        }
    }

    /// Whether the local data may be served without asking the peer.
    pub(super) fn local_data(&mut self, drbd: &Drbd, declared: bool, resuming: bool) {
        let name = self.name();
        let facts = self.facts;
        let accept = format!(
            "`failover takeover {name} --declare-data-current \"who: I accept losing what {} acknowledged since\"`",
            self.peer()
        );
        let findings_before = self.findings.len();
        if !drbd.all_disks(Disk::UpToDate) {
            let states: Vec<_> = drbd
                .volumes
                .iter()
                .map(|(n, v)| format!("volume {n} {}", v.disk))
                .collect();
            let inconsistent = drbd.volumes.values().any(|v| v.disk < Disk::Outdated);
            self.error(
                Code::DiskNotUpToDate,
                &name,
                format!(
                    "the local disk is not UpToDate: {}{}",
                    states.join(", "),
                    if inconsistent {
                        "; it is no point in time at all"
                    } else {
                        ""
                    }
                ),
                format!(
                    "find the node with the good data; the only way on here is dangerous: {accept}"
                ),
            );
        }
        if drbd.given_up() && facts.split_brain.is_some() && !resuming {
            self.split_brain();
        } else if drbd.given_up() && !resuming {
            self.error(
                Code::SplitBrainSuspected,
                &name,
                "the connection was given up (StandAlone), perhaps because the data diverged",
                format!("compare both nodes first; the way on without that: {accept}"),
            );
        }
        let current = drbd.in_sync()
            || facts
                .ledger
                .current
                .as_ref()
                .is_some_and(|c| c.boot_id == facts.boot_id && !c.boot_id.is_empty());
        if !current {
            let when = facts.ledger.current.as_ref().map_or_else(
                || "it was never seen to be".to_owned(),
                |c| {
                    format!(
                        "it was last seen to be at {}, before this node's last boot",
                        c.at
                    )
                },
            );
            self.error(
                Code::DataMayBeStale,
                &name,
                format!(
                    "nothing shows that the local data was current when the link was lost: {when}"
                ),
                format!("connect to the peer if its disk can still be read; otherwise {accept}"),
            );
        }
        if declared {
            // The named operation turns these into warnings; its words stand in the journal.
            for finding in &mut self.findings[findings_before..] {
                finding.severity = crate::finding::Severity::Warning;
                finding.remedy = "accepted by the operator".into();
            }
        }
    }
}
