//! `kill -9` of `failover` at its steps, on both sides of a handover: running it again converges.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Cluster, Run};

const RELEASE: &[&str] = &[
    "stop-container",
    "unmount",
    "demote",
    "await-peer-primary",
    "record-peer-owns",
];
const HANDOVER: &[&str] = &[
    "await-peer-secondary",
    "promote",
    "mount",
    "verify-store",
    "check-containers",
    "claim",
    "start-container",
    "announce",
    "await-ready",
];

/// Which side dies, and where.
#[derive(Clone, Debug)]
struct Case {
    source: bool,
    at: String,
}

fn all() -> Vec<Case> {
    let side = |source: bool, steps: &[&str]| -> Vec<Case> {
        steps
            .iter()
            .flat_map(|step| {
                ["before", "after"].map(|when| Case {
                    source,
                    at: format!("{when}:{step}"),
                })
            })
            .collect()
    };
    [side(true, RELEASE), side(false, HANDOVER)].concat()
}

fn killed(run: &Run) -> bool {
    run.status.is_none()
}

/// One handover in which a side is killed, and what an operator does then: run it again.
fn play(cluster: &Cluster, case: &Case, from: &str, to: &str) {
    let die = ["--die-at", case.at.as_str()];
    let with = |command: &'static str, dies: bool| -> Vec<&str> {
        if dies {
            [&[command, "r0"][..], &die[..]].concat()
        } else {
            vec![command, "r0"]
        }
    };
    let mut target = cluster.spawn(to, &with("handover", !case.source));
    target.until("await-peer-secondary");
    let source = cluster.failover(from, &with("release", case.source));
    assert_eq!(killed(&source), case.source, "{case:?}: {source:#?}");
    if case.source {
        // The rerun carries on; the target is still armed, or has it already.
        let again = cluster
            .failover(from, &["release", "r0"])
            .ok("release again");
        eprintln!("{case:?}: the rerun of release did {:?}", again.steps());
        target.wait().ok("handover");
    } else {
        let target = target.wait();
        assert!(killed(&target), "{case:?}: {target:#?}");
        // At no time have both served, whatever the dead target left behind.
        assert!(
            cluster.serving().len() <= 1,
            "{case:?}: {:?}",
            cluster.serving()
        );
        if source.status == Some(4) {
            // It took the store back, because nobody came.
            cluster.assert_serves(from);
            let (source, target) = cluster.hand_over(from, to);
            source.ok("release again");
            target.ok("handover again");
        } else {
            source.ok("release");
            let again = cluster
                .failover(to, &["handover", "r0"])
                .ok("handover again");
            eprintln!("{case:?}: the rerun of handover did {:?}", again.steps());
        }
    }
    cluster.assert_serves(to);
    for node in [from, to] {
        let ledger = cluster.status(node)["facts"]["ledger"].clone();
        assert_eq!(ledger["owner"], to, "{case:?}: {node}: {ledger}");
        assert_eq!(ledger["serving"], to == node, "{case:?}: {node}: {ledger}");
        assert!(
            cluster.status(node)["facts"]["open"].is_null(),
            "{case:?}: {node}"
        );
    }
}

fn play_all(name: &str, cases: &[Case]) {
    let Some(cluster) = Cluster::boot(name) else {
        return;
    };
    cluster.serve();
    let (mut from, mut to) = ("node1", "node2");
    for case in cases {
        eprintln!("{case:?}: {from} to {to}");
        play(&cluster, case, from, to);
        (from, to) = (to, from);
    }
}

/// Two kill points of each side, chosen by a seed that is printed.
#[test]
fn a_rerun_converges_after_kill_9() {
    let seed = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("CRASH_SEED={seed}");
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut pick = |from: Vec<Case>| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let n = usize::try_from(random % from.len() as u64).unwrap();
        from[n].clone()
    };
    let cases: Vec<Case> = [true, false, true, false]
        .into_iter()
        .map(|source| pick(all().into_iter().filter(|c| c.source == source).collect()))
        .collect();
    play_all("failover-crash", &cases);
}

/// Every kill point of both sides.
#[test]
#[ignore = "deep"]
fn deep_a_rerun_converges_after_kill_9_everywhere() {
    play_all("failover-crash-all", &all());
}
