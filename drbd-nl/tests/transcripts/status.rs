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
    for family in load::all().iter().filter(|f| f.dialect == Dialect::V9) {
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
    let family = &load::all()[0];
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

/// The JSON of a state: words for states, no secret.
#[cfg(feature = "serde")]
#[test]
fn state_as_json() {
    let family = &load::all()[0];
    let run = family
        .runs
        .iter()
        .find(|run| run.name == "074-status-verbose-stats")
        .unwrap();
    let json = serde_json::to_value(snapshot(run)).unwrap();
    let r0 = &json["resources"][0];
    assert_eq!(r0["name"], "r0");
    assert_eq!(r0["role"], "Primary");
    assert_eq!(r0["devices"][0]["disk_state"], "UpToDate");
    assert_eq!(r0["devices"][0]["meta_disk"], "Internal");
    assert_eq!(r0["devices"][0]["statistics"]["size"], 130_992);
    assert_eq!(
        r0["devices"][0]["statistics"]["current_uuid"],
        "D67B9B695426F057"
    );
    let connection = &r0["connections"][0];
    assert_eq!(connection["state"], "Connected");
    assert_eq!(
        connection["paths"][0]["addresses"]["remote"],
        "ipv4:10.77.0.2:7000"
    );
    assert_eq!(connection["options"]["max_buffers"], 8000);
    assert_eq!(connection["options"]["protocol"], "C");
    assert_eq!(connection["peer_devices"][1]["replication"], "Established");
    assert!(!json.to_string().contains("s3cr3t"));
}
