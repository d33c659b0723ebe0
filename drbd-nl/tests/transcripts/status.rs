//! The state we read out of a recorded dump is what drbdsetup printed for it.

use crate::json::contains;
use crate::load::{self, Run};
use crate::replay::Replay;
use crate::text::text;
use drbd_nl::codec::{Decoded, decode};
use drbd_nl::wire::Little;
use drbd_nl::{Dialect, DiskOptions, Drbd, NetOptions, ResourceOptions, State};
use serde_json::Value;
use std::time::Duration;

fn snapshot(run: &Run) -> State {
    let drbd = Drbd::with_connector(Replay::of(run)).unwrap();
    drbd.snapshot(Duration::from_secs(30)).unwrap()
}

/// Runs of DRBD 9 with this word and `--json`.
fn runs_with_json(word: &str) -> impl Iterator<Item = (String, &'static Run, &'static Vec<Value>)> {
    let families = load::all().iter().filter(|f| f.dialect == Dialect::V9);
    families
        .flat_map(|family| family.runs.iter().map(move |run| (family, run)))
        .filter(move |(_, run)| {
            let args = run.args();
            args.contains(&word) && args.contains(&"--json")
        })
        .filter_map(|(family, run)| {
            let Some(Value::Array(theirs)) = &run.json else {
                return None;
            };
            Some((format!("{}/{}", family.name, run.name), run, theirs))
        })
}

/// `drbdsetup status --json` of DRBD 9, for every file that has one.
#[test]
fn status_json() {
    let mut compared = 0;
    for (path, run, theirs) in runs_with_json("status") {
        let state = snapshot(run);
        let ours = serde_json::to_value(drbd_nl::json::Status(&state)).unwrap();
        for their in theirs {
            let of = |r: &&Value| r["name"] == their["name"];
            let ours = ours.as_array().unwrap().iter().find(of).unwrap();
            compared += contains(&format!("{path} {}", their["name"]), their, ours);
        }
        // Without a name in the arguments it is all of them.
        if run.args().get(2).is_none_or(|arg| arg.starts_with("--")) {
            assert_eq!(theirs.len(), state.resources.len(), "{path}");
        }
    }
    assert!(compared > 10_000, "only {compared} values were compared");
}

/// `drbdsetup show --json` of DRBD 9, for every file that has one; with the
/// secrets where drbdsetup was given them, and none without asking.
#[test]
fn show_json() {
    let mut compared = 0;
    for (path, run, theirs) in runs_with_json("show") {
        let state = snapshot(run);
        let show = drbd_nl::json::Show::new(&state);
        let hidden = serde_json::to_string(&show).unwrap();
        let ours = serde_json::to_value(show.reveal_secrets()).unwrap();
        for their in theirs {
            let of = |r: &&Value| r["resource"] == their["resource"];
            let ours = ours.as_array().unwrap().iter().find(of).unwrap();
            compared += contains(&format!("{path} {}", their["resource"]), their, ours);
            for connection in their["connections"].as_array().into_iter().flatten() {
                let secret = connection["net"]["shared-secret"].as_str().unwrap_or("");
                assert!(secret.is_empty() || !hidden.contains(secret), "{path}");
            }
        }
    }
    assert!(compared > 5_000, "only {compared} values were compared");
}

/// `drbdsetup show` of DRBD 8.4: every setting it prints, with its value.
#[test]
fn show_of_84() {
    let family = &load::all()[0];
    let mut compared = 0;
    for run in &family.runs {
        let args = run.args();
        if args.get(1) != Some(&"show") || run.exit != Some(0) {
            continue;
        }
        let mut ours = std::collections::BTreeSet::new();
        macro_rules! take {
            ($name:ident, $options:expr) => {
                for info in $name::INFO {
                    ours.extend(
                        $options
                            .get(info.name)
                            .map(|v| format!("{} {v}", info.name)),
                    );
                }
            };
        }
        for message in run.received().filter(|m| m.kind() == run.family) {
            for item in decode::<Little>(family.dialect, run.family, &message.bytes).unwrap() {
                let Decoded::Reply(reply) = item else {
                    continue;
                };
                if let Some(options) = &reply.resource_options {
                    take!(ResourceOptions, options);
                }
                if let Some((_, _, options)) = &reply.disk {
                    take!(DiskOptions, options);
                }
                if let Some(options) = &reply.net_options {
                    take!(NetOptions, options);
                    ours.extend(
                        options
                            .shared_secret
                            .as_ref()
                            .map(|secret| format!("shared-secret {}", secret.reveal())),
                    );
                }
            }
        }
        for line in run.stdout.lines() {
            let line = line.split(';').next().unwrap_or_default().trim();
            let Some((name, value)) = line.split_once('\t') else {
                continue;
            };
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            let places = ["device", "disk", "meta-disk", "address"];
            if places.contains(&name) || value.ends_with('{') {
                continue;
            }
            let bare = value.trim_end_matches(['s', 'k']);
            let value = if bare.parse::<u64>().is_ok() {
                bare
            } else {
                value
            };
            assert!(
                ours.contains(&format!("{name} {value}")),
                "{}: {name} {value} is not in {ours:?}",
                run.name
            );
            compared += 1;
        }
    }
    assert!(compared > 50, "only {compared} settings were compared");
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
