//! The state we read out of a recorded dump is what drbdsetup printed for it.

use crate::load::{self, Run};
use crate::replay::Replay;
use crate::text::{compare, resource_json, text};
use drbd_nl::{Dialect, Drbd, State};
use serde_json::Value;
use std::time::Duration;

fn snapshot(run: &Run) -> State {
    let drbd = Drbd::with_connector(Replay::of(run)).unwrap();
    drbd.snapshot(Duration::from_secs(30)).unwrap()
}

/// `drbdsetup status --json` of DRBD 9, for every file that has one.
#[test]
fn status_json() {
    let mut compared = 0;
    for family in load::all().into_iter().filter(|f| f.dialect == Dialect::V9) {
        for run in &family.runs {
            let args = run.args();
            if !args.contains(&"status") || !args.contains(&"--json") {
                continue;
            }
            let Some(Value::Array(theirs)) = &run.json else {
                continue;
            };
            let state = snapshot(run);
            for their in theirs {
                let name = their["name"].as_str().unwrap();
                let ours = resource_json(state.resource(name).unwrap());
                let path = format!("{}/{}: {name}", family.name, run.name);
                compared += compare(&path, their, &ours);
            }
            // Without a name in the arguments it is all of them.
            if args.get(2).is_none_or(|arg| arg.starts_with("--")) {
                assert_eq!(theirs.len(), state.resources.len(), "{}", run.name);
            }
        }
    }
    assert!(compared > 10_000, "only {compared} values were compared");
}

/// `drbdsetup status` of DRBD 8.4, every file, every word.
#[test]
fn status_text_of_84() {
    let family = load::load("drbd84", Dialect::V84);
    let mut compared = 0;
    for run in &family.runs {
        let args = run.args();
        if args.get(1) != Some(&"status") || run.exit != Some(0) {
            continue;
        }
        let (verbose, statistics) = (args.contains(&"--verbose"), args.contains(&"--statistics"));
        let state = snapshot(run);
        let ours: Vec<String> = state
            .resources
            .iter()
            .flat_map(|r| text(r, verbose, statistics))
            .collect();
        // Where lines are wrapped is a matter of taste.
        let theirs: Vec<&str> = run
            .stdout
            .split_whitespace()
            .filter(|word| !word.starts_with('#'))
            .collect();
        assert_eq!(ours, theirs, "{}", run.name);
        compared += theirs.len();
    }
    assert!(compared > 500, "only {compared} words were compared");
}
