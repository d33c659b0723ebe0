#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::exec::{Control, Event, Executor, Outcome, Progress};
use crate::finding::{Code, Refusal};
use crate::group::{GroupPlan, GroupRequest, plan_group};
use crate::placement::Placement;
use crate::plan::{Request, Runnable, Takeover};
use crate::planner::plan;

const PLACEMENT: &str = r#"
version = 1
[[resource]]
name = "r0"
mount = "/srv/store1"
lxcpath = "/srv/store1/containers"
owner = "node1"
nodes.node1.address = "10.0.254.1"
nodes.node2.address = "10.0.254.2"
deadlines = { handover = "40s", take_back = "10s" }
[resource.fence]
method = "command"
status = ["/power", "status", "{node}"]
off = ["/power", "off", "{node}"]
[[resource.container]]
name = "db"
[[resource.container]]
name = "web"
"#;

fn resource() -> Resource {
    Placement::parse(PLACEMENT, "test")
        .unwrap()
        .resources
        .remove(0)
}

fn cluster() -> Rc<RefCell<Cluster>> {
    Rc::new(RefCell::new(Cluster::serving(&resource())))
}

fn release() -> Request {
    Request::Release {
        peer_placement: None,
    }
}

fn handover() -> Request {
    Request::Handover {
        peer_placement: None,
    }
}

fn takeover() -> Request {
    Request::Takeover(Takeover {
        peer_power: Some(Power::Off),
        ..Takeover::default()
    })
}

fn planned(
    cluster: &Rc<RefCell<Cluster>>,
    node: &str,
    request: &Request,
) -> Result<Runnable, Refusal> {
    let facts = SimWorld::new(cluster, node).facts().unwrap();
    let plan = plan(&facts, &resource(), request)?;
    Ok(match &plan.evidence {
        None => plan.ready().unwrap(),
        Some(need) => {
            let evidence =
                FenceEvidence::obtain(&mut SimFencer::new(cluster), &need.node.clone()).unwrap();
            plan.with_evidence(evidence).unwrap()
        }
    })
}

fn run(cluster: &Rc<RefCell<Cluster>>, node: &str, request: &Request) -> Result<Outcome, Refusal> {
    let runnable = planned(cluster, node, request)?;
    let mut world = SimWorld::new(cluster, node);
    let mut executor = Executor::new(runnable, "op");
    let mut observer = |_: &Event| Control::Continue;
    for _ in 0..100_000 {
        if let Progress::Over(outcome) = executor.advance(&mut world, &mut observer).unwrap() {
            return Ok(outcome);
        }
    }
    panic!("{} does not end", request.name());
}

/// A small generator of numbers that a seed reproduces.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Runs both sides of a handover, interleaved by `rng`; each side may crash at an event.
fn both(
    cluster: &Rc<RefCell<Cluster>>,
    rng: &mut Rng,
    crash: [Option<usize>; 2],
) -> [Option<Outcome>; 2] {
    let sides = [("node2", handover()), ("node1", release())];
    let mut running: Vec<Option<Executor>> = sides
        .iter()
        .map(|(node, request)| {
            planned(cluster, node, request)
                .ok()
                .map(|r| Executor::new(r, format!("{node}-op")))
        })
        .collect();
    let mut outcomes = [None, None];
    let mut events = [0, 0];
    for _ in 0..200_000 {
        let alive: Vec<usize> = (0..2).filter(|i| running[*i].is_some()).collect();
        let Some(&i) = alive.get(rng.below(alive.len().max(1))) else {
            return outcomes;
        };
        let mut world = SimWorld::new(cluster, sides[i].0);
        let seen = &mut events[i];
        let mut observer = |_: &Event| {
            *seen += 1;
            if crash[i] == Some(*seen) {
                Control::Crash
            } else {
                Control::Continue
            }
        };
        let executor = running[i].as_mut().unwrap();
        if let Progress::Over(outcome) = executor.advance(&mut world, &mut observer).unwrap() {
            outcomes[i] = Some(outcome);
            running[i] = None;
        }
        cluster.borrow_mut().write();
    }
    panic!("no end");
}

fn ensure(cluster: &Rc<RefCell<Cluster>>, at: &str, case: &str) {
    let cluster = cluster.borrow();
    assert!(
        cluster.violations().is_empty(),
        "{case}: {:?}",
        cluster.violations()
    );
    assert_eq!(cluster.serves(), [at], "{case}");
    assert_eq!(
        cluster.data_version("node1"),
        cluster.data_version("node2"),
        "{case}"
    );
}

#[test]
fn handover_and_back() {
    let cluster = cluster();
    let mut rng = Rng(7);
    assert_eq!(
        both(&cluster, &mut rng, [None, None]),
        [Some(Outcome::Done), Some(Outcome::Done)]
    );
    ensure(&cluster, "node2", "handover");
    for node in ["node1", "node2"] {
        let ledger = cluster.borrow().ledger(node).unwrap().clone();
        assert_eq!(
            (ledger.epoch, ledger.owner.as_deref()),
            (2, Some("node2")),
            "{node}"
        );
    }
    // Again: both say that there is nothing to do.
    for (node, request) in [("node1", release()), ("node2", handover())] {
        assert!(
            planned(&cluster, node, &request).unwrap().plan().is_empty(),
            "{node}"
        );
    }
}

#[test]
fn release_takes_back_when_nobody_comes() {
    let cluster = cluster();
    let outcome = run(&cluster, "node1", &release()).unwrap();
    assert!(
        matches!(&outcome, Outcome::Undone { step, .. } if step == "await-peer-primary"),
        "{outcome:?}"
    );
    ensure(&cluster, "node1", "taken back");
}

#[test]
fn a_busy_device_rolls_back_to_the_running_service() {
    for step in ["stop-container", "unmount", "demote"] {
        let cluster = cluster();
        cluster
            .borrow_mut()
            .fail_next("node1", step, FailureKind::Failed);
        let outcome = run(&cluster, "node1", &release()).unwrap();
        assert!(
            matches!(&outcome, Outcome::Undone { step: s, .. } if s == step),
            "{step}: {outcome:?}"
        );
        ensure(&cluster, "node1", step);
    }
}

#[test]
fn a_target_that_fails_lets_the_source_take_back() {
    for step in [
        "promote",
        "mount",
        "verify-store",
        "check-containers",
        "claim",
        "start-container",
    ] {
        let cluster = cluster();
        cluster
            .borrow_mut()
            .fail_next("node2", step, FailureKind::Failed);
        let mut rng = Rng(3);
        let [target, _] = both(&cluster, &mut rng, [None, None]);
        assert!(
            matches!(&target, Some(Outcome::Undone { step: s, .. }) if s == step),
            "{step}: {target:?}"
        );
        let serves = cluster.borrow().serves().join(" ");
        if serves.is_empty() {
            // The source had seen the peer as Primary and was done: a handover brings it back.
            assert_eq!(
                run(&cluster, "node1", &handover()).unwrap(),
                Outcome::Done,
                "{step}"
            );
        }
        ensure(&cluster, "node1", step);
    }
}

#[test]
fn an_unknown_outcome_stops_everything_and_a_rerun_carries_on() {
    let cluster = cluster();
    cluster
        .borrow_mut()
        .fail_next("node1", "unmount", FailureKind::Unknown);
    let outcome = run(&cluster, "node1", &release()).unwrap();
    assert!(
        matches!(&outcome, Outcome::Unknown { step, .. } if step == "unmount"),
        "{outcome:?}"
    );
    assert!(cluster.borrow().serves().is_empty());
    let open = SimWorld::new(&cluster, "node1")
        .facts()
        .unwrap()
        .open
        .unwrap();
    assert_eq!((open.request.as_str(), open.running.len()), ("release", 2));
    // Nobody comes: the rerun ends by bringing back the containers that the first run stopped.
    let outcome = run(&cluster, "node1", &release()).unwrap();
    assert!(matches!(outcome, Outcome::Undone { .. }), "{outcome:?}");
    ensure(&cluster, "node1", "after unknown");
}

/// Every crash point of both sides, each pair under an interleaving of its own: a rerun of both converges.
#[test]
fn a_rerun_converges_after_a_crash_at_every_event() {
    let mut cases = 0;
    for crash_target in 0..30 {
        for crash_source in 0..30 {
            let seed = crash_target as u64 * 31 + crash_source as u64 + 1;
            {
                let case = format!(
                    "target crashes at {crash_target}, source at {crash_source}, seed {seed}"
                );
                let cluster = cluster();
                let mut rng = Rng(seed * 0x9e37_79b9);
                let crash = [crash_target, crash_source].map(|n| (n > 0).then_some(n));
                both(&cluster, &mut rng, crash);
                assert!(cluster.borrow().violations().is_empty(), "{case}");
                let mut rounds = 0;
                while cluster.borrow().serves() != ["node2"] {
                    both(&cluster, &mut rng, [None, None]);
                    rounds += 1;
                    assert!(rounds < 4, "{case}: {:?}", cluster.borrow());
                }
                // What is left to record on either side.
                both(&cluster, &mut rng, [None, None]);
                ensure(&cluster, "node2", &case);
                for node in ["node1", "node2"] {
                    let ledger = cluster.borrow().ledger(node).unwrap().clone();
                    assert_eq!(ledger.owner.as_deref(), Some("node2"), "{case}: {node}");
                }
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 900);
}

#[test]
fn takeover_and_the_return_of_the_dead() {
    let cluster = cluster();
    cluster.borrow_mut().write();
    cluster.borrow_mut().power_off("node1");
    assert_eq!(run(&cluster, "node2", &takeover()).unwrap(), Outcome::Done);
    assert_eq!(cluster.borrow().serves(), ["node2"]);
    cluster.borrow_mut().write();

    // It comes back alone: link down. It must not serve, although DRBD would let it.
    cluster.borrow_mut().set_link(false);
    cluster.borrow_mut().power_on("node1");
    assert_eq!(run(&cluster, "node1", &Request::Up).unwrap(), Outcome::Done);
    let refusal = run(&cluster, "node1", &Request::Start).unwrap_err();
    assert!(refusal.because_of(Code::AskThePeer), "{refusal}");
    let refusal = run(&cluster, "node1", &takeover()).unwrap_err();
    assert!(refusal.because_of(Code::DataMayBeStale), "{refusal}");

    // Link up: it resyncs, and still does not serve; then it is handed back.
    cluster.borrow_mut().set_link(true);
    assert_eq!(run(&cluster, "node1", &Request::Up).unwrap(), Outcome::Done);
    let refusal = run(&cluster, "node1", &Request::Start).unwrap_err();
    assert!(refusal.because_of(Code::PeerPrimary), "{refusal}");
    ensure(&cluster, "node2", "returned");
}

#[test]
fn a_takeover_converges_after_a_crash_at_every_event() {
    for crash in 1..20 {
        let cluster = cluster();
        cluster.borrow_mut().power_off("node1");
        let mut executor = Executor::new(planned(&cluster, "node2", &takeover()).unwrap(), "op");
        let mut world = SimWorld::new(&cluster, "node2");
        let mut seen = 0;
        let mut observer = |_: &Event| {
            seen += 1;
            if seen == crash {
                Control::Crash
            } else {
                Control::Continue
            }
        };
        while !matches!(
            executor.advance(&mut world, &mut observer).unwrap(),
            Progress::Over(_)
        ) {}
        assert_eq!(
            run(&cluster, "node2", &takeover()).unwrap(),
            Outcome::Done,
            "crash {crash}"
        );
        assert_eq!(cluster.borrow().serves(), ["node2"], "crash {crash}");
        assert_eq!(
            cluster.borrow().ledger("node2").unwrap().epoch,
            2,
            "crash {crash}"
        );
    }
}

#[test]
fn a_living_peer_is_not_taken_from() {
    let cluster = cluster();
    let alive = Request::Takeover(Takeover {
        peer_power: Some(Power::On),
        ..Takeover::default()
    });
    let refusal = run(&cluster, "node2", &alive).unwrap_err();
    assert!(
        refusal.because_of(Code::PeerConnected) && refusal.because_of(Code::PeerPrimary),
        "{refusal}"
    );
    // A partition: the takeover fences first, so there is never a second owner.
    cluster.borrow_mut().set_link(false);
    assert_eq!(run(&cluster, "node2", &alive).unwrap(), Outcome::Done);
    assert!(cluster.borrow().violations().is_empty());
    assert_eq!(cluster.borrow().serves(), ["node2"]);
}

#[test]
fn a_wrong_attestation_is_what_makes_two_owners() {
    let cluster = cluster();
    cluster.borrow_mut().set_link(false);
    let facts = SimWorld::new(&cluster, "node2").facts().unwrap();
    let text = crate::evidence::Attestation::new("somebody: it is surely off").unwrap();
    let request = Request::Takeover(Takeover {
        attest: Some(text.clone()),
        ..Takeover::default()
    });
    let plan = plan(&facts, &resource(), &request).unwrap();
    assert!(plan.findings.iter().any(|f| f.code == Code::AttestedOnly));
    // The type asks for evidence about the right node.
    let plan = plan.ready().unwrap_err();
    let plan = plan
        .with_evidence(FenceEvidence::attested("node9", text.clone()))
        .unwrap_err();
    let runnable = plan
        .with_evidence(FenceEvidence::attested("node1", text))
        .unwrap();
    let mut executor = Executor::new(runnable, "op");
    let mut world = SimWorld::new(&cluster, "node2");
    let mut observer = |_: &Event| Control::Continue;
    while !matches!(
        executor.advance(&mut world, &mut observer).unwrap(),
        Progress::Over(_)
    ) {}
    assert!(
        !cluster.borrow().violations().is_empty(),
        "the simulator must see two owners"
    );
}

/// Two resources on the same two nodes, each with a cluster of its own.
fn stores() -> Vec<(Resource, Rc<RefCell<Cluster>>)> {
    [("r0", "node1"), ("r1", "node2")]
        .map(|(name, owner)| {
            let mut resource = resource();
            resource.name = name.into();
            resource.owner = owner.into();
            let cluster = Rc::new(RefCell::new(Cluster::serving(&resource)));
            (resource, cluster)
        })
        .into()
}

fn group_part(
    stores: &[(Resource, Rc<RefCell<Cluster>>)],
    node: &str,
    request: &GroupRequest,
) -> Result<GroupPlan, Vec<Refusal>> {
    let facts: Vec<_> = stores
        .iter()
        .map(|(_, cluster)| SimWorld::new(cluster, node).facts().unwrap())
        .collect();
    let looks: Vec<_> = facts.iter().zip(stores.iter().map(|(r, _)| r)).collect();
    plan_group(&looks, request, &|_| None)
}

/// Runs both nodes' parts: takes at the same time, gives one after the other; a node may crash.
fn move_all(
    stores: &[(Resource, Rc<RefCell<Cluster>>)],
    request: &GroupRequest,
    rng: &mut Rng,
    mut crash: [Option<usize>; 2],
) {
    struct Side {
        node: &'static str,
        takes: Vec<(usize, Executor)>,
        gives: Vec<(usize, Executor)>,
    }
    let store = |plan: &crate::plan::Plan| {
        stores
            .iter()
            .position(|(r, _)| r.name == plan.resource)
            .unwrap()
    };
    let mut sides: Vec<Side> = ["node1", "node2"]
        .into_iter()
        .filter_map(|node| {
            let plan = group_part(stores, node, request).ok()?;
            let executors = |plans: Vec<crate::plan::Plan>| -> Vec<(usize, Executor)> {
                plans
                    .into_iter()
                    .map(|p| (store(&p), Executor::new(p.ready().unwrap(), "op")))
                    .collect()
            };
            let mut gives = executors(plan.gives);
            gives.reverse();
            Some(Side {
                node,
                takes: executors(plan.takes),
                gives,
            })
        })
        .collect();
    for _ in 0..400_000 {
        sides.retain(|s| !s.takes.is_empty() || !s.gives.is_empty());
        if sides.is_empty() {
            return;
        }
        let n = rng.below(sides.len());
        let side = &mut sides[n];
        let give = side.takes.is_empty() || (!side.gives.is_empty() && rng.below(2) == 0);
        let list = if give {
            &mut side.gives
        } else {
            &mut side.takes
        };
        let at = if give {
            list.len() - 1
        } else {
            rng.below(list.len())
        };
        let (which, executor) = &mut list[at];
        let cluster = &stores[*which].1;
        let mut world = SimWorld::new(cluster, side.node);
        let left = &mut crash[usize::from(side.node == "node2")];
        let mut observer = |_: &Event| {
            if let Some(left) = left {
                *left -= 1;
                if *left == 0 {
                    return Control::Crash;
                }
            }
            Control::Continue
        };
        let progress = executor.advance(&mut world, &mut observer).unwrap();
        cluster.borrow_mut().write();
        match progress {
            Progress::Over(Outcome::Crashed) => {
                // The whole program ends.
                sides.remove(n);
            }
            Progress::Over(outcome) => {
                drop(list.remove(at));
                if give && outcome != Outcome::Done {
                    side.gives.clear();
                }
            }
            _ => {}
        }
    }
    panic!("no end");
}

fn served(stores: &[(Resource, Rc<RefCell<Cluster>>)]) -> Vec<String> {
    for (_, cluster) in stores {
        assert!(cluster.borrow().violations().is_empty(), "{cluster:?}");
    }
    let of = |c: &Rc<RefCell<Cluster>>| c.borrow().serves().join(" ");
    stores.iter().map(|(_, c)| of(c)).collect()
}

#[test]
fn evacuate_and_balance() {
    let stores = stores();
    let evacuate = GroupRequest::Evacuate {
        node: "node1".into(),
    };
    let plan = group_part(&stores, "node1", &evacuate).unwrap();
    assert_eq!(
        (plan.gives.len(), plan.takes.len(), plan.stays.len()),
        (1, 0, 1)
    );
    let text = plan.to_string();
    assert!(
        text.starts_with("plan: evacuate node1 on node1\n  r1: served by node2 already")
            && text.contains("plan: release r0 on node1"),
        "{text}"
    );
    let mut rng = Rng(5);
    move_all(&stores, &evacuate, &mut rng, [None, None]);
    assert_eq!(served(&stores), ["node2", "node2"]);
    assert!(group_part(&stores, "node1", &evacuate).unwrap().is_empty());
    assert!(group_part(&stores, "node2", &evacuate).unwrap().is_empty());
    move_all(&stores, &GroupRequest::Balance, &mut rng, [None, None]);
    assert_eq!(served(&stores), ["node1", "node2"]);
    // A node that nobody knows; a resource that nobody serves: all reasons at once.
    let nobody = GroupRequest::Evacuate {
        node: "node9".into(),
    };
    let refusals = group_part(&stores, "node1", &nobody).unwrap_err();
    assert!(refusals[0].because_of(Code::NodeNotInPlacement));
    for (resource, cluster) in &stores {
        let facts = SimWorld::new(cluster, &resource.owner).facts().unwrap();
        let stop = plan_one(&facts, resource);
        let mut world = SimWorld::new(cluster, &resource.owner);
        let mut observer = |_: &Event| Control::Continue;
        let executor = Executor::new(stop, "op");
        executor.run(&mut world, &mut observer).unwrap();
    }
    let refusals = group_part(&stores, "node2", &evacuate).unwrap_err();
    assert_eq!(refusals.len(), 2);
    assert!(refusals.iter().all(|r| r.because_of(Code::NobodyServes)));
}

fn plan_one(facts: &Facts, resource: &Resource) -> Runnable {
    plan(facts, resource, &Request::Stop)
        .unwrap()
        .ready()
        .unwrap()
}

/// Whichever side dies wherever: run again, all stores are where they should be, none was served twice.
#[test]
fn evacuate_converges_after_a_crash_at_every_event() {
    for crash in 1..40 {
        for side in 0..2 {
            let stores = stores();
            let mut rng = Rng(crash as u64 * 7919 + side as u64 + 1);
            let balance = crash % 2 == 0;
            let request = if balance {
                // Both stores are on the wrong node, so each side takes and gives.
                for (node, other) in [("node1", "node2"), ("node2", "node1")] {
                    let away = GroupRequest::Evacuate { node: node.into() };
                    let one = usize::from(other == "node1");
                    move_all(&stores[one..=one], &away, &mut rng, [None, None]);
                }
                assert_eq!(served(&stores), ["node2", "node1"]);
                GroupRequest::Balance
            } else {
                GroupRequest::Evacuate {
                    node: "node1".into(),
                }
            };
            let mut crashes = [None, None];
            crashes[side] = Some(crash);
            move_all(&stores, &request, &mut rng, crashes);
            served(&stores);
            let wanted = if balance {
                ["node1", "node2"]
            } else {
                ["node2", "node2"]
            };
            let mut rounds = 0;
            while served(&stores) != wanted {
                // A store that nobody serves is brought up by the side whose turn it is.
                move_all(&stores, &request, &mut rng, [None, None]);
                for (which, (resource, cluster)) in stores.iter().enumerate() {
                    if cluster.borrow().serves().is_empty() {
                        let facts = SimWorld::new(cluster, wanted[which]).facts().unwrap();
                        if let Ok(plan) = plan(&facts, resource, &handover()) {
                            let mut world = SimWorld::new(cluster, wanted[which]);
                            let executor = Executor::new(plan.ready().unwrap(), "op");
                            let mut observer = |_: &Event| Control::Continue;
                            executor.run(&mut world, &mut observer).unwrap();
                        }
                    }
                }
                rounds += 1;
                assert!(
                    rounds < 5,
                    "crash {crash} of side {side}: {:?}",
                    served(&stores)
                );
            }
        }
    }
}

#[test]
fn snapshots_are_in_the_store() {
    let cluster = cluster();
    let snapshot = |name: &str| Request::Snapshot {
        container: "db".into(),
        name: name.into(),
    };
    let delete = |name: &str| Request::DeleteSnapshot {
        container: "db".into(),
        name: name.into(),
    };
    let restore = |into: &str| Request::RestoreSnapshot {
        container: "db".into(),
        name: "monday".into(),
        into: into.into(),
    };
    let because = |node: &str, request: &Request, code: Code| {
        let refusal = planned(&cluster, node, request).unwrap_err();
        assert!(refusal.because_of(code), "{refusal}");
    };
    assert_eq!(
        run(&cluster, "node1", &snapshot("monday")).unwrap(),
        Outcome::Done
    );
    because("node1", &snapshot("monday"), Code::SnapshotExists);
    because("node1", &snapshot("../monday"), Code::BadName);
    because("node1", &restore("web"), Code::ContainerExists);
    because("node1", &restore(".hidden"), Code::BadName);
    because("node1", &delete("tuesday"), Code::SnapshotMissing);
    because("node2", &snapshot("tuesday"), Code::StoreNotMounted);
    // They move with the store.
    let mut rng = Rng(11);
    both(&cluster, &mut rng, [None, None]);
    because("node1", &delete("monday"), Code::StoreNotMounted);
    assert_eq!(
        run(&cluster, "node2", &restore("db-old")).unwrap(),
        Outcome::Done
    );
    because("node2", &restore("db-old"), Code::ContainerExists);
    assert_eq!(
        run(&cluster, "node2", &delete("monday")).unwrap(),
        Outcome::Done
    );
    because("node2", &restore("db-older"), Code::SnapshotMissing);
}

/// Both nodes lose power, one earlier than the other; whichever boots first, the newer data is served.
#[test]
fn a_cold_start_serves_the_newer_data() {
    for first in ["node1", "node2"] {
        let cluster = cluster();
        cluster.borrow_mut().power_off("node2");
        cluster.borrow_mut().write();
        let newest = cluster.borrow().data_version("node1");
        cluster.borrow_mut().power_off("node1");
        let second = if first == "node1" { "node2" } else { "node1" };
        cluster.borrow_mut().power_on(first);
        assert_eq!(run(&cluster, first, &Request::Boot).unwrap(), Outcome::Done);
        let refusal = planned(&cluster, first, &Request::Start).unwrap_err();
        let alone = [Code::AskThePeer, Code::OwnedByPeer];
        assert!(alone.iter().any(|c| refusal.because_of(*c)), "{refusal}");
        let refusal = planned(&cluster, first, &takeover()).unwrap_err();
        assert!(refusal.because_of(Code::DataMayBeStale), "{refusal}");
        cluster.borrow_mut().power_on(second);
        assert_eq!(
            run(&cluster, second, &Request::Boot).unwrap(),
            Outcome::Done
        );
        assert_eq!(run(&cluster, first, &Request::Boot).unwrap(), Outcome::Done);
        assert_eq!(
            run(&cluster, "node1", &Request::Start).unwrap(),
            Outcome::Done
        );
        ensure(&cluster, "node1", first);
        assert_eq!(cluster.borrow().data_version("node2"), newest);
    }
}

/// Two owners by a wrong word; the victim's changes are kept aside, the survivor serves on.
#[test]
fn a_split_brain_is_resolved_with_the_losers_changes_kept() {
    for crash in 0..30 {
        let cluster = cluster();
        cluster.borrow_mut().set_link(false);
        let word = crate::evidence::Attestation::new("somebody: it is surely off").unwrap();
        let request = Request::Takeover(Takeover {
            attest: Some(word.clone()),
            ..Takeover::default()
        });
        let facts = SimWorld::new(&cluster, "node2").facts().unwrap();
        let evidence = FenceEvidence::attested("node1", word.clone());
        let runnable = plan(&facts, &resource(), &request)
            .unwrap()
            .with_evidence(evidence)
            .unwrap();
        let mut world = SimWorld::new(&cluster, "node2");
        let mut observer = |_: &Event| Control::Continue;
        Executor::new(runnable, "op")
            .run(&mut world, &mut observer)
            .unwrap();
        cluster.borrow_mut().write();
        cluster.borrow_mut().write();
        cluster.borrow_mut().set_link(true);
        let refusal = planned(&cluster, "node1", &release()).unwrap_err();
        assert!(refusal.because_of(Code::SplitBrain), "{refusal}");

        let resolve = |keep: Option<&str>| Request::ResolveSplitBrain {
            victim: "node2".into(),
            keep: keep.map(Into::into),
            accept: word.clone(),
        };
        let refusal = planned(&cluster, "node2", &resolve(None)).unwrap_err();
        assert!(refusal.because_of(Code::NothingKept), "{refusal}");
        let inside = resolve(Some("/srv/store1/kept"));
        let refusal = planned(&cluster, "node2", &inside).unwrap_err();
        assert!(refusal.because_of(Code::NothingKept), "{refusal}");
        let lost = cluster.borrow().data_version("node2").unwrap();
        let kept = resolve(Some("/var/backups/kept"));
        // The victim's run dies somewhere and is run again.
        let mut seen = 0;
        let mut observer = |_: &Event| {
            seen += 1;
            if seen == crash {
                Control::Crash
            } else {
                Control::Continue
            }
        };
        let runnable = planned(&cluster, "node2", &kept).unwrap();
        Executor::new(runnable, "op")
            .run(&mut world, &mut observer)
            .unwrap();
        assert_eq!(
            run(&cluster, "node1", &resolve(None)).unwrap(),
            Outcome::Done
        );
        for _ in 0..3 {
            run(&cluster, "node2", &kept).unwrap();
        }
        assert!(
            cluster.borrow().kept("node2").contains(&lost),
            "crash {crash}"
        );
        assert_eq!(cluster.borrow().serves(), ["node1"], "crash {crash}");
        let cluster = cluster.borrow();
        assert_eq!(cluster.data_version("node1"), cluster.data_version("node2"));
    }
}
