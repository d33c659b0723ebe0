//! What we read out of an event is what `drbdsetup events2` printed for it.

use crate::lines::{Names, compare, is_about, line, same_object, unstamped};
use crate::load;
use drbd_nl::codec::{Decoded, decode};
use drbd_nl::wire::Little;
use drbd_nl::{Action, EventKind};
use std::collections::BTreeMap;

/// Every line of every events2 run, word by word.
#[test]
fn events2_lines() {
    let (mut lines, mut words, mut silent) = (BTreeMap::<&str, usize>::new(), 0, 0);
    for family in load::all() {
        for run in &family.runs {
            let args = run.args();
            if args.get(1) != Some(&"events2") || args.contains(&"nosuch") {
                continue;
            }
            let full = args.contains(&"--full");
            let statistics = full || args.contains(&"--statistics");
            let mut names = Names::default();
            // The lines of one object, in order; of several, drbdsetup prints
            // them in an order of its own.
            let mut printed: Vec<&str> = run.stdout.lines().map(unstamped).collect();
            for message in run.received().filter(|m| m.kind() == run.family) {
                let decoded = decode::<Little>(family.dialect, run.family, &message.bytes).unwrap();
                for item in decoded {
                    let Decoded::Event(event) = item else {
                        continue;
                    };
                    if matches!(event.kind, EventKind::Legacy(_)) {
                        continue;
                    }
                    if let Some(only) = args.get(2).filter(|a| !a.starts_with("--") && **a != "all")
                        && !is_about(&event, only)
                    {
                        continue;
                    }
                    let ours = line(family.dialect, &event, &mut names, statistics);
                    let at = printed.iter().position(|their| same_object(their, &ours));
                    let differs = |at: usize| {
                        let context = format!("{}/{}\n{ours:?}", family.name, run.name);
                        compare(&context, printed[at], &ours, &event, full)
                    };
                    match at.map(|at| (at, differs(at))) {
                        Some((at, Ok(compared))) => {
                            printed.remove(at);
                            words += compared;
                            *lines.entry(family.name).or_default() += 1;
                        }
                        // A change that shows nothing new is not printed, and
                        // a run that was killed lacks its end.
                        _ if event.action == Action::Change || run.exit.is_none() => silent += 1,
                        other => panic!("{}/{}: {event:?} {other:?}", family.name, run.name),
                    }
                }
            }
            printed.retain(|their| !their.contains("may_promote"));
            assert!(
                printed.is_empty(),
                "{}/{}: {printed:#?}",
                family.name,
                run.name
            );
        }
    }
    println!("{lines:?} {words} words, {silent} not printed");
    assert!(
        lines["drbd84"] > 200 && lines["drbd9"] > 500 && lines["drbd93"] > 500,
        "{lines:?}"
    );
}
