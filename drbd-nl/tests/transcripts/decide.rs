//! Our decisions on the model are drbdsetup's, event by event.

use crate::load;
use drbd_nl::codec::{Decoded, decode};
use drbd_nl::wire::Little;
use drbd_nl::{Dialect, EventKind, State};
use std::collections::BTreeMap;

type Verdicts = BTreeMap<String, Vec<String>>;

/// `may_promote` and `promotion_score` in the order printed, of each resource.
fn theirs(stdout: &str) -> Verdicts {
    let mut verdicts = Verdicts::new();
    for line in stdout.lines() {
        let word = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key));
        if let (Some(may), Some(score)) = (word("may_promote:"), word("promotion_score:")) {
            let name = word("name:").unwrap().to_owned();
            push(&mut verdicts, name, format!("{may} {score}"));
        }
    }
    verdicts
}

fn push(verdicts: &mut Verdicts, name: String, verdict: String) {
    let list = verdicts.entry(name).or_default();
    if list.last() != Some(&verdict) {
        list.push(verdict);
    }
}

#[test]
fn promotion_is_drbdsetups() {
    let (mut compared, mut resources) = (0, 0);
    for family in load::all().iter().filter(|f| f.dialect == Dialect::V9) {
        for run in &family.runs {
            let args = run.args();
            if args.get(1) != Some(&"events2") || !run.stdout.contains("may_promote") {
                continue;
            }
            let mut state = State::default();
            let (mut ours, mut complete) = (Verdicts::new(), false);
            for message in run.received().filter(|m| m.kind() == run.family) {
                for item in decode::<Little>(family.dialect, run.family, &message.bytes).unwrap() {
                    let Decoded::Event(event) = item else {
                        continue;
                    };
                    complete |= matches!(event.kind, EventKind::InitialStateDone);
                    let continues = event.continues;
                    state.apply(event);
                    if !complete || continues {
                        continue;
                    }
                    for resource in &state.resources {
                        let may = if resource.may_promote() { "yes" } else { "no" };
                        let verdict = format!("{may} {}", resource.promotion_score());
                        push(&mut ours, resource.name.to_string(), verdict);
                    }
                }
            }
            for (name, theirs) in theirs(&run.stdout) {
                let ours = ours.remove(&name).unwrap_or_default();
                // A run that was ended may lack its last lines.
                let shown = if run.exit.is_none() {
                    ours.len().min(theirs.len())
                } else {
                    ours.len()
                };
                assert_eq!(
                    ours[..shown],
                    theirs,
                    "{}/{}: {name}",
                    family.name,
                    run.name
                );
                compared += theirs.len();
                resources += 1;
            }
        }
    }
    println!("{compared} verdicts on {resources} resources");
    assert!(compared > 100, "only {compared} verdicts were compared");
}
