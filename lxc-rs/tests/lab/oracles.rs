//! Our answers against those of LXC's own programs, in the same node.

use lxc_rs::{
    CloneOptions, Container, SnapshotOptions, State, active, global_config_item, layout, list,
    names, states,
};

use crate::common::*;

#[test]
#[ignore = "runs inside a node"]
fn inner_oracles() {
    let store = store("oracles");
    let path = store.as_path().to_str().unwrap();
    let grouped = spec(&name("web"))
        .config("lxc.start.auto", "1")
        .config("lxc.group", "onboot")
        .config("lxc.group", "front");
    let web = Container::create(&store, grouped, LONG).unwrap();
    let mut containers = vec![web.done().unwrap()];
    containers.extend(["db", "cache", "idle"].map(|called| create(&store, called)));
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

    // lxc-ls: what there is, what runs, in which state, with what else it shows.
    fn words_of(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }
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
    let columns = "NAME,STATE,PID,AUTOSTART,GROUPS,INTERFACE,IPV4,UNPRIVILEGED";
    let table = oracle("lxc-ls", &["-P", path, "-f", "-F", columns]);
    let listed = table.lines().skip(1);
    let mut listed: Vec<_> = listed.map(|line| words_of(line).join(" ")).collect();
    listed.sort();
    let mut ours = Vec::new();
    for (name, state) in states(&store).unwrap() {
        let container = Container::open(&store, &name).unwrap();
        let item = |key: &str| container.config_item(key).unwrap().unwrap_or_default();
        let or_none = |text: String| match text.is_empty() {
            true => "-".to_owned(),
            false => text,
        };
        let pid = container.init_pid().unwrap();
        let mut interfaces = match pid {
            Some(_) => container.interfaces(LONG).unwrap().done().unwrap(),
            None => Vec::new(),
        };
        interfaces.dedup();
        let groups = item("lxc.group").into_string().unwrap();
        ours.push(format!(
            "{name} {} {} {} {} {} - {}",
            state.unwrap(),
            or_none(pid.map(|pid| pid.to_string()).unwrap_or_default()),
            item("lxc.start.auto").into_string().unwrap(),
            or_none(groups.lines().collect::<Vec<_>>().join(", ")),
            or_none(interfaces.join(", ")),
            !container.config_list("lxc.idmap").unwrap().is_empty(),
        ));
    }
    assert_eq!(listed, ours);
    assert!(ours[1].starts_with("db FROZEN "), "{ours:?}");
    assert!(ours[3].contains(" 1 onboot, front lo - false"), "{ours:?}");

    // lxc-info: state, init, configuration, of each.
    let keys = [
        "lxc.uts.name",
        "lxc.mount.auto",
        "lxc.rootfs.path",
        "lxc.signal.halt",
        "lxc.net.0.type",
        "lxc.tty.max",
    ];
    for container in &containers {
        let name = container.name().as_str();
        let info = |arguments: &[&str]| {
            oracle("lxc-info", &[&["-P", path, "-n", name], arguments].concat())
        };
        let theirs = info(&["-H", "-s", "-p"]);
        let mut theirs = theirs
            .lines()
            .filter_map(|line| line.split_whitespace().last());
        assert_eq!(theirs.next(), Some(container.state().unwrap().as_str()));
        let pid = container.init_pid().unwrap().map(|pid| pid.to_string());
        assert_eq!(theirs.next().filter(|pid| *pid != "-1"), pid.as_deref());
        let mut ours = String::new();
        let mut arguments = Vec::new();
        for key in keys {
            let value = container.config_item(key).unwrap().unwrap_or_default();
            ours += &format!("{key} = {}\n", value.to_string_lossy());
            arguments.extend(["-c", key]);
        }
        assert_eq!(info(&arguments), ours, "{name}");
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

#[test]
#[ignore = "runs inside a node"]
fn inner_many() {
    let store = store("many");
    let path = store.as_path().to_str().unwrap();
    let (defined, running) = (count("LXC_RS_DEFINED", 4), count("LXC_RS_RUNNING", 2));
    let first = create(&store, "c000");
    let options = CloneOptions::new();
    for number in 1..defined {
        let cloned = first.clone_to(name(&format!("c{number:03}")), &options, LONG);
        cloned.unwrap().done().unwrap();
    }
    let containers: Vec<_> = list(&store)
        .unwrap()
        .into_iter()
        .map(|listed| listed.container.unwrap())
        .collect();
    assert_eq!(containers.len(), defined);
    for container in &containers[..running] {
        start(container);
    }
    let up = active(&store).unwrap();
    assert_eq!(up.len(), running);
    let listed = oracle("lxc-ls", &["-P", path, "-1", "--running"]);
    assert_eq!(
        listed.lines().map(str::trim).collect::<Vec<_>>(),
        up.iter().map(|name| name.as_str()).collect::<Vec<_>>()
    );
    let states = states(&store).unwrap();
    let states: Vec<_> = states
        .into_iter()
        .map(|(_, state)| state.unwrap())
        .collect();
    assert!(
        states[..running]
            .iter()
            .all(|state| *state == State::Running)
    );
    assert!(
        states[running..]
            .iter()
            .all(|state| *state == State::Stopped)
    );
    for container in containers {
        if container.is_up().unwrap() {
            stop(&container);
        }
        container.destroy(LONG).unwrap().done().unwrap();
    }
    assert_eq!(std::fs::read_dir(store.as_path()).unwrap().count(), 0);
}
