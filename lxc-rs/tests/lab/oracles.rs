//! Our answers against those of LXC's own programs, in the same node.

use std::collections::BTreeMap;

use lxc_rs::{SnapshotOptions, State, active, global_config_item, layout, names, states};

use crate::common::*;

#[test]
#[ignore = "runs inside a node"]
fn inner_oracles() {
    let store = store("oracles");
    let path = store.as_path().to_str().unwrap();
    let containers: Vec<_> = ["web", "db", "cache", "idle"]
        .map(|called| create(&store, called))
        .into();
    let [web, db, cache, idle] = &containers[..] else {
        panic!()
    };
    for container in [web, db, cache] {
        start(container);
    }
    db.freeze(LONG).unwrap().done().unwrap();
    idle.snapshot(&SnapshotOptions::new(), LONG)
        .unwrap()
        .done()
        .unwrap();

    // lxc-ls: what there is, what runs, in which state.
    let words = |text: String| -> Vec<String> {
        let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        words.sort();
        words
    };
    let text = |names: Vec<lxc_rs::ContainerName>| -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        words(oracle("lxc-ls", &["-P", path])),
        text(names(&store).unwrap())
    );
    assert_eq!(
        layout::containers(store.as_path()).unwrap(),
        text(names(&store).unwrap())
    );
    assert_eq!(
        words(oracle("lxc-ls", &["-P", path, "--active"])),
        text(active(&store).unwrap())
    );
    let table = oracle("lxc-ls", &["-P", path, "-f", "-F", "NAME,STATE"]);
    let listed: BTreeMap<_, _> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|words| (words[0].to_owned(), words[1].parse::<State>().unwrap()))
        .collect();
    let ours: BTreeMap<_, _> = states(&store)
        .unwrap()
        .into_iter()
        .map(|(name, state)| (name.to_string(), state.unwrap()))
        .collect();
    assert_eq!(listed, ours);
    assert_eq!(ours["db"], State::Frozen);

    // lxc-info: state, init, configuration, of each.
    for container in &containers {
        let name = container.name().as_str();
        let info = |arguments: &[&str]| {
            oracle(
                "lxc-info",
                &[&["-P", path, "-n", name, "-H"], arguments].concat(),
            )
            .trim()
            .to_owned()
        };
        assert_eq!(info(&["-s"]), container.state().unwrap().to_string());
        // Of one that does not run it says nothing, or -1.
        let pid = container.init_pid().unwrap();
        assert_eq!(
            info(&["-p"]).trim_start_matches("-1"),
            pid.map_or(String::new(), |pid| pid.to_string())
        );
        for key in [
            "lxc.uts.name",
            "lxc.mount.auto",
            "lxc.rootfs.path",
            "lxc.signal.halt",
            "lxc.net.0.type",
            "lxc.tty.max",
        ] {
            let theirs = oracle("lxc-info", &["-P", path, "-n", name, "-c", key]);
            let theirs = theirs
                .trim_end()
                .strip_prefix(&format!("{key} = "))
                .unwrap_or("")
                .to_owned();
            let ours = container.config_item(key).unwrap().unwrap_or_default();
            assert_eq!(theirs, ours.to_string_lossy(), "{key} of {name}");
        }
    }
    // lxc-config: the system's own.
    for key in ["lxc.lxcpath", "lxc.default_config", "lxc.bdev.zfs.root"] {
        let theirs = oracle("lxc-config", &[key]);
        let ours = global_config_item(key).unwrap().unwrap_or_default();
        assert_eq!(theirs.trim(), ours.to_string_lossy(), "{key}");
    }
    assert_eq!(global_config_item("lxc.no.such").unwrap(), None);
    db.unfreeze(LONG).unwrap().done().unwrap();
    for container in [web, db, cache] {
        stop(container);
    }
    assert_eq!(text(active(&store).unwrap()), [""; 0]);
}
