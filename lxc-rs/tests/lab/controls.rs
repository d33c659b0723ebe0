//! What the traps are without this crate: LXC's own programs in the same node.
//! When one of these fails, a release of liblxc has mended it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use lxc_rs::{Container, LxcPath, SnapshotOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::*;

fn program(program: &str, lxcpath: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["10", program, "-P"]).arg(lxcpath);
    command.args(arguments).output().unwrap()
}

fn info(lxcpath: &Path, what: &str) -> String {
    let output = program("lxc-info", lxcpath, &["-n", "m1", "-H", what]);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
#[ignore = "runs inside a node"]
fn inner_controls() {
    let store = store("controls");
    a_symbolic_link_starts_it_twice(&store);
    a_wait_of_zero_is_for_ever(&store);
    a_monitor_that_ignores_sigchld_does_not_notice_the_end(&store);
    one_bad_configuration_is_left_out(&store);
    a_leftover_mark_stops_every_start(&store);
    a_restore_changes_address_and_host_name(&store);
}

fn a_symbolic_link_starts_it_twice(store: &LxcPath) {
    let m1 = create(store, "m1");
    start(&m1);
    let link = store.as_path().with_file_name("controls-link");
    let _ = fs::remove_file(&link);
    symlink(store.as_path(), &link).unwrap();
    assert!(program("lxc-start", &link, &["-n", "m1"]).status.success());
    let first = m1.init_pid().unwrap().unwrap().to_string();
    let second = info(&link, "-p");
    assert!(
        second != first && second.parse::<u32>().is_ok(),
        "{first} {second}"
    );
    assert_eq!(info(store.as_path(), "-s"), "RUNNING");
    assert!(
        program("lxc-stop", &link, &["-n", "m1", "-k"])
            .status
            .success()
    );
    fs::remove_file(&link).unwrap();
    stop(&m1);
}

fn a_wait_of_zero_is_for_ever(store: &LxcPath) {
    let m1 = Container::open(store, "m1").unwrap();
    start(&m1);
    let arguments = ["-n", "m1", "-s", "STOPPED", "-t", "0"];
    let waited = program("lxc-wait", store.as_path(), &arguments);
    assert_eq!(waited.status.code(), Some(124), "{waited:?}");
    stop(&m1);
}

fn a_monitor_that_ignores_sigchld_does_not_notice_the_end(store: &LxcPath) {
    let m1 = Container::open(store, "m1").unwrap();
    let path = store.as_path().to_str().unwrap();
    let start = ["--ignore-signal=CHLD", "lxc-start", "-P", path, "-n", "m1"];
    oracle("env", &start);
    let (init, monitor) = (m1.init_pid().unwrap().unwrap(), monitor_of(&m1));
    kill(Pid::from_raw(init.try_into().unwrap()), Signal::SIGKILL).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(!Path::new(&format!("/proc/{init}")).exists());
    assert_eq!(info(store.as_path(), "-s"), "RUNNING");
    kill(monitor, Signal::SIGKILL).unwrap();
    assert!(m1.wait_gone(LONG).unwrap());
}

fn one_bad_configuration_is_left_out(store: &LxcPath) {
    let m2 = create(store, "m2");
    let text = fs::read_to_string(m2.config_file()).unwrap();
    fs::write(m2.config_file(), format!("{text}lxc.betwork.type = veth\n")).unwrap();
    let listed = program("lxc-ls", store.as_path(), &["-f", "-F", "NAME"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(
        listed.split_whitespace().collect::<Vec<_>>(),
        ["NAME", "m1"]
    );
    fs::write(m2.config_file(), text).unwrap();
    m2.destroy(LONG).unwrap().done().unwrap();
}

fn a_leftover_mark_stops_every_start(store: &LxcPath) {
    let m1 = Container::open(store, "m1").unwrap();
    let mark = m1.dir().join("partial");
    fs::write(&mark, "").unwrap();
    for _ in 0..2 {
        assert!(
            !program("lxc-start", store.as_path(), &["-n", "m1"])
                .status
                .success()
        );
        assert!(mark.exists());
    }
    fs::remove_file(mark).unwrap();
}

fn a_restore_changes_address_and_host_name(store: &LxcPath) {
    let mut m1 = Container::open(store, "m1").unwrap();
    let items = [
        ("lxc.net.1.type", "veth"),
        ("lxc.net.1.hwaddr", "00:16:3e:11:22:33"),
        ("lxc.uts.name", "keeps-its-name"),
    ];
    for (key, value) in items {
        m1.set_config_item(key, value).unwrap();
    }
    m1.save_config().unwrap();
    m1.snapshot(&SnapshotOptions::new(), LONG)
        .unwrap()
        .done()
        .unwrap();
    let restored = program(
        "lxc-snapshot",
        store.as_path(),
        &["-n", "m1", "-r", "snap0"],
    );
    assert!(restored.status.success(), "{restored:?}");
    let m1 = Container::open(store, "m1").unwrap();
    for (key, value) in &items[1..] {
        assert_ne!(m1.config_item(key).unwrap().unwrap(), *value, "{key}");
    }
    m1.destroy_with_snapshots(LONG).unwrap().done().unwrap();
}
