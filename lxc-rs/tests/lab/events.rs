//! The stream of states, while things happen to containers, monitors and the daemon.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lxc_rs::{State, StateEvent, StateEvents, active, states};
use nix::sys::signal::{Signal, kill};

use crate::common::*;

/// Takes events until one of them is the one.
fn until(events: &mut StateEvents, is: impl Fn(&StateEvent) -> bool) -> Vec<StateEvent> {
    let mut seen = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        if let Some(event) = events.next(Duration::from_secs(1)).unwrap() {
            seen.push(event);
            if is(seen.last().unwrap()) {
                return seen;
            }
        }
    }
    panic!("it did not come: {seen:?}");
}

fn changed(container: &str, state: State) -> StateEvent {
    // The enum may grow; its present shape is what is compared.
    let container = container.to_owned();
    StateEvent::Changed { container, state }
}

#[test]
#[ignore = "runs inside a node"]
fn inner_events() {
    let store = store("events");
    let path = store.as_path().to_str().unwrap();
    let m1 = create(&store, "m1");
    let m2 = create(&store, "m2");
    start(&m2);
    let mut events = StateEvents::open(&store).unwrap();
    let known: Vec<_> = events.states().clone().into_iter().collect();
    assert_eq!(
        known,
        [
            ("m1".to_owned(), State::Stopped),
            ("m2".to_owned(), State::Running)
        ]
    );
    assert_eq!(events.next(Duration::ZERO).unwrap(), None);

    // A program of LXC's own listens through us meanwhile.
    let monitor = Command::new("lxc-monitor")
        .args(["-P", path, "-n", "m1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It says nothing until something happens: happen until it does.
    let mut monitor = monitor;
    let (heard, lines) = std::sync::mpsc::channel();
    let output = monitor.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(output)).map_while(Result::ok) {
            let _ = heard.send(line);
        }
    });
    let mut told = Vec::new();
    for _ in 0..20 {
        start(&m1);
        let seen = until(&mut events, |event| *event == changed("m1", State::Running));
        assert!(seen.contains(&changed("m1", State::Starting)), "{seen:?}");
        m1.freeze(LONG).unwrap().done().unwrap();
        until(&mut events, |event| *event == changed("m1", State::Frozen));
        m1.unfreeze(LONG).unwrap().done().unwrap();
        until(&mut events, |event| *event == changed("m1", State::Running));
        stop(&m1);
        let seen = until(&mut events, |event| *event == changed("m1", State::Stopped));
        let killed = |event: &StateEvent| {
            matches!(event, StateEvent::Exited { container, status }
                if container == "m1" && std::os::unix::process::ExitStatusExt::signal(status) == Some(9))
        };
        assert!(seen.iter().any(killed), "{seen:?}");
        told.extend(lines.try_iter());
        // It may have come in the middle of a life: a whole one is wanted.
        if told.iter().any(|line| line.contains("RUNNING")) {
            break;
        }
    }
    assert!(told.iter().any(|line| line.contains("RUNNING")), "{told:?}");
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    reader.join().unwrap();

    // A monitor that is killed says nothing; the end of its init does.
    start(&m1);
    until(&mut events, |event| *event == changed("m1", State::Running));
    kill(monitor_of(&m1), Signal::SIGKILL).unwrap();
    until(&mut events, |event| *event == changed("m1", State::Stopped));
    assert!(m1.wait_gone(LONG).unwrap());

    // And one that starts after it is heard as well.
    start(&m1);
    until(&mut events, |event| *event == changed("m1", State::Running));
    assert_eq!(active(&store).unwrap(), [name("m1"), name("m2")]);
    let all: Vec<_> = states(&store)
        .unwrap()
        .into_iter()
        .map(|(name, state)| (name.to_string(), state.unwrap()))
        .collect();
    assert_eq!(
        all,
        [
            ("m1".to_owned(), State::Running),
            ("m2".to_owned(), State::Running)
        ]
    );
    drop(events);

    // With a daemon that somebody else started, and that is killed: what
    // happens while nobody listens is found by asking.
    let mut daemon = Command::new("lxc-monitor")
        .args(["-P", path, "-n", "m1"])
        .spawn()
        .unwrap();
    let title = |line: &str| line.contains("lxc-monitord") && line.contains(path);
    let began = Instant::now();
    let listens = || {
        let table = std::fs::read_to_string("/proc/net/unix").unwrap();
        table
            .lines()
            .any(|line| line.contains("@lxc/") && line.ends_with(&format!("/{path}")))
    };
    let pid = loop {
        let daemon = processes().find(|(_, line)| title(line));
        if let (Some((pid, _)), true) = (daemon, listens()) {
            break pid;
        }
        assert!(began.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut events = StateEvents::open(&store).unwrap();
    m2.freeze(LONG).unwrap().done().unwrap();
    until(&mut events, |event| *event == changed("m2", State::Frozen));
    kill(pid, Signal::SIGKILL).unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    until(&mut events, |event| {
        matches!(event, StateEvent::Resynced { .. })
    });
    m2.unfreeze(LONG).unwrap().done().unwrap();
    until(&mut events, |event| match event {
        StateEvent::Resynced { changed } => changed.contains(&("m2".to_owned(), State::Running)),
        event => *event == changed("m2", State::Running),
    });
    stop(&m1);
    stop(&m2);
    until(&mut events, |event| *event == changed("m2", State::Stopped));
    drop(events);
    let before: BTreeSet<_> = descriptors();
    drop(StateEvents::open(&store).unwrap());
    assert_eq!(descriptors(), before);
}
