#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::exec::{Control, Event, Executor, Outcome, Progress};
use crate::finding::{Code, Refusal};
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
