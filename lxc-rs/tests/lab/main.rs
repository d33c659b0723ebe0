//! Real containers on a real Btrfs, inside a node.
//!
//! The outer tests boot a node and run the inner ones there. An inner test
//! makes its own lxcpath on the node's disk and removes its containers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod controls;
mod deep;
mod events;
mod live;
mod oracles;
mod snapshots;
mod unprivileged;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use lxc_rs::partial::{self, Partial};
use lxc_rs::{
    AttachCommand, Container, CreateSpec, ErrorKind, LxcPath, Outcome, StartOptions, State, list,
};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

/// What runs inside the node, one after the other: each is a process of its
/// own, and some change what the others see.
const INNER: &[&str] = &[
    "inner_first_container",
    "inner_life",
    "inner_attach",
    "inner_config",
    "inner_traps",
    "inner_corrupt",
    "inner_partial",
    "inner_create",
    "inner_killed",
    "inner_sigchld",
    "inner_threads",
    "inner_leaks",
    "inner_stuck_monitor",
    "inner_shutdown_ignored",
    "inner_unmount",
    "inner_own_log_file",
    "inner_no_permission",
];

#[test]
fn real_containers() {
    in_node(INNER, &[]);
}

/// What came later, on a node of its own.
const MORE: &[&str] = &[
    "snapshots::inner_snapshot",
    "snapshots::inner_restore",
    "snapshots::inner_clone",
    "snapshots::inner_rename",
    "live::inner_cgroup_and_configuration",
    "live::inner_network",
    "live::inner_devices_and_mounts",
    "live::inner_console",
    "live::inner_reboot",
    "live::inner_foreground",
    "live::inner_attach_options",
    "live::inner_checkpoint",
    "live::inner_template",
    "live::inner_bad_input",
    "live::inner_odd_paths",
    "live::inner_seccomp",
    "events::inner_events",
    "oracles::inner_oracles",
    "unprivileged::inner_unprivileged",
    "unprivileged::inner_by_a_user",
];

#[test]
fn more_of_real_containers() {
    in_node(MORE, &[]);
}

// ---- inner tests

/// The program of the README, at the paths that it names.
#[test]
#[ignore = "runs inside a node"]
fn inner_first_container() {
    let store = store("first");
    let (place, image) = ("/srv/store1/containers", Path::new("/srv/images/debian"));
    fs::create_dir_all(place).unwrap();
    let (none, bind) = (None::<&str>, MsFlags::MS_BIND);
    mount(Some(store.as_path()), place, none, bind, none).unwrap();
    // A node may have a real one there.
    if !image.exists() {
        fs::create_dir_all(image).unwrap();
        minimal(image).unwrap();
        fs::remove_file(image.join("sbin/init")).unwrap();
        let init = "#!/bin/sh\ntrap 'exit 0' PWR\nsleep 100000 & wait\n";
        fs::write(image.join("sbin/init"), init).unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(image.join("sbin/init"), executable).unwrap();
    }
    let test = std::env::current_exe().unwrap();
    let example = test
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/first_container");
    let said = oracle(example.to_str().unwrap(), &[]);
    let source = include_str!("../../examples/first_container.rs");
    let promised = source.split("//! ```text\n").nth(1).unwrap();
    let promised = promised
        .split("//! ```")
        .next()
        .unwrap()
        .replace("//! ", "");
    assert_eq!(said, promised);
    assert_eq!(fs::read_dir(place).unwrap().count(), 0);
    umount(place).unwrap();
}

#[test]
fn the_readme_has_the_example() {
    let (readme, example) = (
        include_str!("../../README.md"),
        include_str!("../../examples/first_container.rs"),
    );
    let code = &example[example.find("\nuse ").unwrap()..];
    assert!(readme.contains(code), "{code}");
}

#[test]
#[ignore = "runs inside a node"]
fn inner_life() {
    let store = store("life");
    assert!(store.is_btrfs().unwrap());
    let m1 = create(&store, "m1");
    assert_eq!(m1.state().unwrap(), State::Stopped);
    let rootfs = m1.rootfs().unwrap().unwrap();
    assert_eq!(rootfs.driver.as_deref(), Some("btrfs"));
    assert_eq!(rootfs.path, m1.dir().join("rootfs"));
    assert!(rootfs.is_subvolume() && !rootfs.loses_btrfs());
    assert_eq!(fs::metadata(&rootfs.path).unwrap().ino(), 256);
    assert_eq!(m1.init_pid().unwrap(), None);
    assert!(m1.init_pidfd().unwrap().is_none());
    assert!(!m1.dir().join("partial").exists());
    let text = fs::read_to_string(m1.config_file()).unwrap();
    assert!(!text.contains("Template"), "{text}");

    start(&m1);
    assert_eq!(m1.state().unwrap(), State::Running);
    assert_eq!(
        m1.state_within(LONG).unwrap().done().unwrap(),
        State::Running
    );
    let init = m1.init_pid().unwrap().unwrap();
    let pidfd = m1.init_pidfd().unwrap().unwrap();
    let path = store.as_path().to_str().unwrap();
    let info = |what| {
        oracle("lxc-info", &["-P", path, "-n", "m1", "-H", what])
            .trim()
            .to_owned()
    };
    assert_eq!(
        (info("-s"), info("-p")),
        ("RUNNING".to_owned(), init.to_string())
    );
    assert_eq!(
        oracle("lxc-ls", &["-P", path, "-1", "--running"]).trim(),
        "m1"
    );
    assert_eq!(sh(&m1, "hostname"), "m1");

    match m1.set_answer_timeout(Some(LONG)) {
        Ok(()) => assert!(store.liblxc_version().major >= 6),
        Err(error) => {
            assert!(store.liblxc_version().major < 6);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }

    m1.freeze(LONG).unwrap().done().unwrap();
    assert_eq!(m1.state().unwrap(), State::Frozen);
    assert!(m1.is_up().unwrap());
    m1.unfreeze(LONG).unwrap().done().unwrap();
    assert_eq!(m1.state().unwrap(), State::Running);

    let monitor = monitor_of(&m1);
    m1.shutdown(LONG).unwrap().done().unwrap();
    assert_eq!(m1.state().unwrap(), State::Stopped);
    // It has ended, whether or not its parent by then, process 1, has taken note of it.
    let stat = fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    let mut fds = [nix::poll::PollFd::new(
        std::os::fd::AsFd::as_fd(&pidfd),
        nix::poll::PollFlags::POLLIN,
    )];
    assert_eq!(
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO),
        Ok(1)
    );
    let error = m1.shutdown(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    assert_eq!(m1.stop(LONG).unwrap_err().kind(), ErrorKind::NotRunning);
    assert_eq!(m1.freeze(LONG).unwrap_err().kind(), ErrorKind::NotRunning);
    assert_eq!(m1.unfreeze(LONG).unwrap_err().kind(), ErrorKind::NotRunning);
    assert!(m1.wait_gone(LONG).unwrap());

    let dir = m1.dir();
    m1.destroy(LONG).unwrap().done().unwrap();
    assert!(!dir.exists());
    let error = Container::open(&store, "m1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotDefined);
    assert!(
        error
            .to_string()
            .starts_with(&format!("open m1 in {path}: ")),
        "{error}"
    );
}

#[test]
#[ignore = "runs inside a node"]
fn inner_attach() {
    let store = store("attach");
    let m1 = create(&store, "m1");
    let command = AttachCommand::new("true");
    assert_eq!(
        m1.attach_run(&command, LONG).unwrap_err().kind(),
        ErrorKind::NotRunning
    );
    start(&m1);

    let command = AttachCommand::new("sh")
        .args(["-c", "cat; echo \"$A $SECRET\" >&2; pwd >&2; exit 3"])
        .env("A", "b c")
        .current_dir("/tmp")
        .stdin("from outside\n");
    let output = m1.attach_run(&command, LONG).unwrap().done().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"from outside\n");
    assert_eq!(output.stderr, b"b c \n/tmp\n");

    // More than pipes hold, both ways at once.
    let much = vec![b'x'; 1 << 20];
    let command = AttachCommand::new("cat").stdin(much.clone());
    assert_eq!(
        m1.attach_run(&command, LONG)
            .unwrap()
            .done()
            .unwrap()
            .stdout,
        much
    );
    // A command that does not read it.
    let command = AttachCommand::new("true").stdin(much);
    assert!(
        m1.attach_run(&command, LONG)
            .unwrap()
            .done()
            .unwrap()
            .status
            .success()
    );

    let command = AttachCommand::new("sh").args(["-c", "kill -9 $$"]);
    let output = m1.attach_run(&command, LONG).unwrap().done().unwrap();
    assert_eq!(output.status.signal(), Some(9));
    // These are what liblxc uses for its own failures.
    for status in [1, 126, 127, 255] {
        let command = AttachCommand::new("sh").args(["-c", &format!("exit {status}")]);
        let output = m1.attach_run(&command, LONG).unwrap().done().unwrap();
        assert_eq!(output.status.code(), Some(status));
    }
    let command = AttachCommand::new("/no/such/program");
    let error = m1.attach_run(&command, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ExecFailed);
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let error = m1
        .attach_run(&AttachCommand::new("/etc/inittab"), LONG)
        .unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    let error = m1.attach_run(&AttachCommand::new(""), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let output = AttachCommand::new("id").uid(7).gid(8);
    let output = m1.attach_run(&output, LONG).unwrap().done().unwrap();
    assert!(output.stdout.starts_with(b"uid=7 gid=8"), "{output:?}");

    // Nothing of this process is open in there but the three streams.
    let open = sh(&m1, "ls /proc/self/fd | busybox wc -l");
    assert!(open.parse::<u32>().unwrap() <= 4, "{open}");

    // A daemon that keeps the streams open does not keep us.
    let begun = Instant::now();
    assert_eq!(sh(&m1, "sleep 1000 & echo done"), "done");
    assert!(begun.elapsed() < LONG);

    // At the deadline the command dies.
    let command = AttachCommand::new("sleep").arg("77777");
    let outcome = m1.attach_run(&command, Duration::from_millis(300)).unwrap();
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    let left = sh(&m1, "for p in /proc/[0-9]*; do cat $p/cmdline; echo; done");
    assert!(!left.contains("77777"), "{left:?}");
    stop(&m1);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_config() {
    let store = store("config");
    let mut m1 = create(&store, "m1");
    assert_eq!(m1.config_item("lxc.uts.name").unwrap().unwrap(), "m1");
    assert_eq!(m1.config_item("lxc.net.0.link").unwrap(), None);
    let error = m1.config_item("lxc.no.such").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigRejected);

    let error = m1.set_config_item("lxc.betwork.type", "veth").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigRejected, "{error}");
    assert!(error.to_string().contains("lxc.betwork.type"), "{error}");
    assert!(error.causes().next().is_some(), "{error:?}");
    let error = m1.set_config_item("lxc.uts.name", "a\nb").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    fs::write(m1.config_file(), {
        let mut text = fs::read_to_string(m1.config_file()).unwrap();
        text.push_str("# a remark\n");
        text
    })
    .unwrap();
    m1.set_config_item("lxc.environment", "A=1").unwrap();
    let error = m1.save_config().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigChanged, "{error}");

    let mut m1 = Container::open(&store, "m1").unwrap();
    let mode = fs::metadata(m1.config_file()).unwrap().mode();
    m1.set_config_item("lxc.environment", "A=1").unwrap();
    m1.set_config_item("lxc.environment", "B=2").unwrap();
    m1.set_config_item("lxc.uts.name", "other").unwrap();
    assert_eq!(m1.config_list("lxc.environment").unwrap(), ["A=1", "B=2"]);
    m1.save_config().unwrap();
    m1.save_config().unwrap();
    let text = fs::read_to_string(m1.config_file()).unwrap();
    assert!(
        text.contains("# a remark") && text.contains("lxc.uts.name = other"),
        "{text}"
    );
    assert_eq!(fs::metadata(m1.config_file()).unwrap().mode(), mode);
    let entries: BTreeSet<_> = fs::read_dir(m1.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(entries.iter().collect::<Vec<_>>(), ["config", "rootfs"]);
    let again = Container::open(&store, "m1").unwrap();
    assert_eq!(again.config_item("lxc.uts.name").unwrap().unwrap(), "other");
    assert_eq!(
        again.config_list("lxc.environment").unwrap(),
        ["A=1", "B=2"]
    );
    let dump = oracle(
        "lxc-info",
        &[
            "-P",
            store.as_path().to_str().unwrap(),
            "-n",
            "m1",
            "-c",
            "lxc.uts.name",
        ],
    );
    assert_eq!(dump.trim(), "lxc.uts.name = other");

    // What is set but not saved holds for a start by this handle, and only there.
    m1.clear_config_item("lxc.environment").unwrap();
    m1.set_config_item("lxc.uts.name", "unsaved").unwrap();
    let options = StartOptions::new().env("ONCE", "yes");
    m1.start(&options, LONG).unwrap().done().unwrap();
    assert_eq!(sh(&again, "hostname"), "unsaved");
    let environment = sh(&again, "cat /proc/1/environ");
    assert!(
        environment.contains("ONCE=yes") && !environment.contains("A=1"),
        "{environment:?}"
    );
    assert!(
        !fs::read_to_string(m1.config_file())
            .unwrap()
            .contains("unsaved")
    );
    stop(&m1);

    assert!(store.knows_config_item("lxc.rootfs.path"));
    assert!(!store.knows_config_item("lxc.network.type"));
}

#[test]
#[ignore = "runs inside a node"]
fn inner_traps() {
    let store = store("traps");
    let m1 = create(&store, "m1");
    let path = store.as_path();

    // A symbolic link to the same store: liblxc would start a second time.
    let link = path.with_file_name("traps-link");
    let _ = fs::remove_file(&link);
    symlink(path, &link).unwrap();
    start(&m1);
    let again = Container::open(&LxcPath::new(&link).unwrap(), "m1").unwrap();
    assert_eq!(again.lxcpath().as_path(), path);
    assert_eq!(again.state().unwrap(), State::Running);
    let error = again.start(&StartOptions::new(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning, "{error}");
    let error = again.destroy(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning, "{error}");
    fs::remove_file(&link).unwrap();

    // A wait of zero seconds: liblxc would block for ever.
    let busy = Busy::with(3);
    assert!(!m1.wait(State::Stopped, Duration::ZERO).unwrap());
    assert!(m1.wait(State::Running, Duration::ZERO).unwrap());
    assert!(!m1.wait_gone(Duration::ZERO).unwrap());
    drop(busy);
    stop(&m1);
    assert!(m1.wait(State::Stopped, Duration::ZERO).unwrap());
    assert!(!m1.wait(State::Running, Duration::from_millis(100)).unwrap());

    // No arguments: liblxc would execute nothing.
    m1.start(&StartOptions::new().command(Vec::<String>::new()), LONG)
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(m1.state().unwrap(), State::Running);
    stop(&m1);
    let options = StartOptions::new().command(["/bin/sleep", "1000"]);
    m1.start(&options, LONG).unwrap().done().unwrap();
    assert_eq!(
        sh(&m1, "cat /proc/1/cmdline | busybox tr '\\0' ' '"),
        "/bin/sleep 1000"
    );
    stop(&m1);
    let options = StartOptions::new().command(["/no/such/init"]);
    let error = m1.start(&options, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(m1.wait_gone(LONG).unwrap());

    // A subvolume named without its driver: snapshots would be copies.
    let mut m1 = m1;
    let error = m1
        .set_config_item("lxc.rootfs.path", m1.dir().join("rootfs"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongDriver, "{error}");
    let text = fs::read_to_string(m1.config_file()).unwrap();
    fs::write(m1.config_file(), text.replace("btrfs:", "")).unwrap();
    let plain = Container::open(&store, "m1").unwrap();
    assert!(plain.rootfs().unwrap().unwrap().loses_btrfs());

    // The store mounted at another place: paths in the file are absolute.
    fs::write(m1.config_file(), text.replace("/traps/", "/elsewhere/")).unwrap();
    let elsewhere = Container::open(&store, "m1").unwrap();
    let error = elsewhere.start(&StartOptions::new(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RootfsMissing, "{error}");
    assert!(error.to_string().contains("another mount point"), "{error}");

    // A bridge that this machine does not have.
    let text =
        format!("{text}lxc.net.1.type = veth\nlxc.net.1.link = nobr7\nlxc.net.1.flags = up\n");
    fs::write(m1.config_file(), &text).unwrap();
    let bridged = Container::open(&store, "m1").unwrap();
    let error = bridged.start(&StartOptions::new(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BridgeMissing, "{error}");
    assert!(error.to_string().contains("nobr7"), "{error}");
    assert!(
        error
            .causes()
            .all(|line| !line.message.contains("lxc.seccomp")),
        "{error}"
    );
    assert!(bridged.wait_gone(LONG).unwrap());

    // One bad configuration does not hide the others, and says what is bad.
    create(&store, "m2");
    fs::write(m1.config_file(), format!("{text}lxc.betwork.type = veth\n")).unwrap();
    let listed = list(&store).unwrap();
    let names: Vec<_> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["m1", "m2"]);
    let error = listed[0].container.as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigRejected, "{error}");
    assert!(error.to_string().contains("betwork"), "{error}");
    assert!(listed[0].is_broken() && listed[1].container.is_ok());
    fs::write(m1.config_file(), text).unwrap();

    // A container that somebody else destroys.
    let m2 = Container::open(&store, "m2").unwrap();
    Container::open(&store, "m2")
        .unwrap()
        .destroy(LONG)
        .unwrap()
        .done()
        .unwrap();
    assert!(!m2.is_defined());
    let error = m2.start(&StartOptions::new(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotDefined, "{error}");
    assert!(!m2.dir().exists());
}

#[test]
#[ignore = "runs inside a node"]
fn inner_corrupt() {
    let store = store("corrupt");
    let dir = store.as_path();
    let config = |name: &str, text: &[u8]| {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("config"), text).unwrap();
        Container::open(&store, name).unwrap_err()
    };
    let error = config("typo", b"lxc.uts.name = x\nlxc.betwork.type = veth\n");
    assert_eq!(error.kind(), ErrorKind::ConfigRejected, "{error}");
    assert!(error.to_string().contains("lxc.betwork.type"), "{error}");
    let error = config("legacy", b"lxc.network.type = veth\n");
    assert_eq!(error.kind(), ErrorKind::ConfigRejected, "{error}");
    assert!(error.to_string().contains("lxc.network.type"), "{error}");
    // Lines that do not begin with `lxc.` are nothing to liblxc.
    fs::create_dir(dir.join("noise")).unwrap();
    fs::write(
        dir.join("noise/config"),
        b"\xff\xfe\0 this is no configuration\n",
    )
    .unwrap();
    let noise = Container::open(&store, "noise").unwrap();
    assert_eq!(noise.rootfs().unwrap(), None);
    // But then there is no root file system, and init would run on the host's.
    let error = noise.start(&StartOptions::new(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RootfsMissing, "{error}");
    assert_eq!(noise.state().unwrap(), State::Stopped);
    let listed = list(&store).unwrap();
    assert_eq!(
        listed
            .iter()
            .map(|entry| entry.is_broken())
            .collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(name("typo"), listed[2].name);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_partial() {
    let store = store("partial");
    let m1 = create(&store, "m1");
    let marker = m1.dir().join("partial");
    fs::write(&marker, "").unwrap();
    fs::set_permissions(&marker, fs::Permissions::from_mode(0o0)).unwrap();
    assert_eq!(
        partial::find(&store, m1.name()).unwrap(),
        Some(Partial::Leftover)
    );
    let error = Container::open(&store, "m1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PartialCreate, "{error}");
    let error = m1.start(&StartOptions::new(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PartialCreate, "{error}");
    let listed = list(&store).unwrap();
    assert!(listed[0].is_broken());
    partial::discard(&store, m1.name(), LONG)
        .unwrap()
        .done()
        .unwrap();
    assert!(!m1.dir().exists());
    partial::discard(&store, m1.name(), LONG)
        .unwrap()
        .done()
        .unwrap();

    // Cut off before there was a configuration.
    let m2 = create(&store, "m2");
    fs::write(m2.dir().join("partial"), "").unwrap();
    fs::remove_file(m2.config_file()).unwrap();
    partial::discard(&store, m2.name(), LONG)
        .unwrap()
        .done()
        .unwrap();
    assert!(!m2.dir().exists());

    // One that goes on is left alone.
    let m3 = name("m3");
    let mut inside = None;
    let spec = CreateSpec::new(m3.clone()).populate(|_: &Path| {
        let found = partial::find(&store, &m3);
        let opened = Container::open(&store, &m3).map(drop);
        let discarded = partial::discard(&store, &m3, LONG).map(drop);
        inside = Some((found, opened, discarded));
        Ok::<_, std::io::Error>(())
    });
    Container::create(&store, spec, LONG)
        .unwrap()
        .done()
        .unwrap();
    let (found, opened, discarded) = inside.unwrap();
    assert_eq!(found.unwrap(), Some(Partial::Ongoing));
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::PartialCreate);
    assert_eq!(discarded.unwrap_err().kind(), ErrorKind::PartialCreate);
    Container::open(&store, "m3").unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn inner_create() {
    let store = store("create");
    let entries = || fs::read_dir(store.as_path()).unwrap().count();

    let error = Container::create(
        &store,
        spec(&name("m1")).populate(|_: &Path| Err::<(), _>("no space for it")),
        LONG,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Populate, "{error}");
    assert!(error.to_string().contains("no space for it"), "{error}");
    assert_eq!(entries(), 0);

    // More than the disk holds.
    let full = spec(&name("m1")).populate(|rootfs: &Path| {
        let file = fs::File::create(rootfs.join("large"))?;
        nix::fcntl::posix_fallocate(file, 0, 1 << 40)?;
        Ok::<_, std::io::Error>(())
    });
    let error = Container::create(&store, full, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Populate, "{error}");
    let cause = std::error::Error::source(&error).unwrap();
    let cause = cause.downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(cause.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(entries(), 0);

    let bad = spec(&name("m1")).config("lxc.betwork.type", "veth");
    let error = Container::create(&store, bad, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigRejected, "{error}");
    assert!(
        error.to_string().contains("lxc.betwork.type = veth"),
        "{error}"
    );
    assert_eq!(entries(), 0);

    let panicked = std::panic::catch_unwind(|| {
        let spec = CreateSpec::new(name("m1"))
            .populate(|_: &Path| -> std::io::Result<()> { panic!("on purpose") });
        Container::create(&store, spec, LONG).map(drop)
    });
    assert!(panicked.is_err());
    assert_eq!(entries(), 0);

    // Filling takes longer than the deadline, which is long enough for the rest.
    let begun = Instant::now();
    create(&store, "m1").destroy(LONG).unwrap().done().unwrap();
    let deadline = Duration::from_secs(2) + 3 * begun.elapsed();
    let slow = CreateSpec::new(name("m1")).populate(|_: &Path| {
        std::thread::sleep(deadline);
        Ok::<_, std::io::Error>(())
    });
    let error = Container::create(&store, slow, deadline).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(entries(), 0);

    // A tree with everything in it that a copy can lose.
    let source = store.as_path().with_file_name("create-source");
    let _ = fs::remove_dir_all(&source);
    fs::create_dir(&source).unwrap();
    minimal(&source).unwrap();
    fs::write(source.join("etc/one"), "linked").unwrap();
    fs::hard_link(source.join("etc/one"), source.join("etc/two")).unwrap();
    fs::set_permissions(
        source.join("bin/busybox"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    std::os::unix::fs::chown(source.join("etc/one"), Some(7), Some(8)).unwrap();
    let fifo = nix::sys::stat::Mode::from_bits_truncate(0o640);
    nix::unistd::mkfifo(&source.join("fifo"), fifo).unwrap();
    let set = Command::new("setfattr")
        .args(["-n", "user.note", "-v", "kept"])
        .arg(source.join("etc/inittab"))
        .status();
    let m1 = CreateSpec::new(name("m1"))
        .config("lxc.mount.auto", "proc:mixed sys:ro")
        .config("lxc.signal.halt", "SIGUSR1")
        .config("lxc.net.0.type", "empty")
        .tree(&source)
        .populate(|rootfs: &Path| fs::write(rootfs.join("etc/added"), "by the closure"));
    let m1 = Container::create(&store, m1, LONG).unwrap().done().unwrap();
    let rootfs = m1.dir().join("rootfs");
    let meta = |path: &str| fs::symlink_metadata(rootfs.join(path)).unwrap();
    assert_eq!(meta("bin/busybox").mode(), 0o104_755);
    assert_eq!((meta("etc/one").uid(), meta("etc/one").gid()), (7, 8));
    assert_eq!(meta("etc/one").ino(), meta("etc/two").ino());
    assert_eq!(meta("fifo").mode(), 0o010_640);
    assert_eq!(
        fs::read_link(rootfs.join("bin/sh")).unwrap(),
        Path::new("busybox")
    );
    let times = |root: &Path| {
        let meta = fs::metadata(root.join("etc/inittab")).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    assert_eq!(times(&rootfs), times(&source));
    if set.is_ok_and(|set| set.success()) {
        let read = oracle(
            "getfattr",
            &[
                "--only-values",
                "-n",
                "user.note",
                rootfs.join("etc/inittab").to_str().unwrap(),
            ],
        );
        assert_eq!(read, "kept");
    }
    start(&m1);
    assert_eq!(sh(&m1, "cat /etc/added"), "by the closure");

    // The name is taken, by a container or by anything else.
    for taken in ["m1", "m2"] {
        fs::create_dir_all(store.as_path().join(taken)).unwrap();
        let error = Container::create(&store, spec(&name(taken)), LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyDefined, "{error}");
    }
    assert_eq!(m1.state().unwrap(), State::Running);
    stop(&m1);

    // Not on Btrfs.
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let elsewhere = LxcPath::new(elsewhere.path()).unwrap();
    let error = Container::create(&elsewhere, spec(&name("m1")), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotBtrfs, "{error}");
    assert_eq!(fs::read_dir(elsewhere.as_path()).unwrap().count(), 0);
}

/// Runs in a process of its own, which `inner_killed` kills.
#[test]
#[ignore = "runs inside a node"]
fn inner_killed_victim() {
    let store = LxcPath::new(mounted().join("killed")).unwrap();
    let spec = spec(&name("m1")).populate(|rootfs: &Path| {
        minimal(rootfs)?;
        std::thread::sleep(LONG);
        Ok::<_, std::io::Error>(())
    });
    let _ = Container::create(&store, spec, LONG);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_killed() {
    let store = store("killed");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inner_killed_victim", "--include-ignored"])
        .spawn()
        .unwrap();
    let deadline = Instant::now() + LONG;
    while !store.as_path().join("m1/rootfs/etc/inittab").exists() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        partial::find(&store, &name("m1")).unwrap(),
        Some(Partial::Ongoing)
    );
    victim.kill().unwrap();
    victim.wait().unwrap();
    while store.as_path().join("m1").exists() {
        assert!(Instant::now() < deadline, "what it created is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "runs inside a node"]
fn inner_sigchld() {
    // SAFETY: sets a disposition, installs no handler.
    #[allow(unsafe_code, reason = "the disposition of this process is the subject")]
    unsafe {
        signal(Signal::SIGCHLD, SigHandler::SigIgn).unwrap();
    }
    let store = store("sigchld");
    let m1 = create(&store, "m1");
    start(&m1);
    assert_eq!(sh(&m1, "echo $((6 * 7))"), "42");
    // A monitor that ignored SIGCHLD would not notice this.
    let init = m1.init_pid().unwrap().unwrap();
    kill(Pid::from_raw(init.try_into().unwrap()), Signal::SIGKILL).unwrap();
    assert!(m1.wait(State::Stopped, LONG).unwrap());
    assert!(m1.wait_gone(LONG).unwrap());
    start(&m1);
    m1.shutdown(LONG).unwrap().done().unwrap();
    m1.destroy(LONG).unwrap().done().unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn inner_threads() {
    let store = store("threads");
    let shared = create(&store, "shared");
    std::thread::scope(|scope| {
        for number in 0..count("LXC_RS_THREADS", 4) {
            let store = &store;
            scope.spawn(move || {
                let mine = create(store, &format!("m{number}"));
                for _ in 0..count("LXC_RS_ROUNDS", 2) {
                    start(&mine);
                    assert_eq!(sh(&mine, "hostname"), format!("m{number}"));
                    stop(&mine);
                }
                mine.destroy(LONG).unwrap().done().unwrap();
            });
        }
        // The same container from four threads: one starts it, all see it.
        let started: Vec<_> = (0..4)
            .map(|_| {
                let shared = &shared;
                scope.spawn(move || match shared.start(&StartOptions::new(), LONG) {
                    Ok(outcome) => outcome.is_done(),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::AlreadyRunning, "{error}");
                        false
                    }
                })
            })
            .collect();
        let started = started.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(started.filter(|started| *started).count(), 1);
        let watchers: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..count("LXC_RS_QUERIES", 25) {
                        assert_eq!(shared.state().unwrap(), State::Running);
                        assert_eq!(
                            shared.config_item("lxc.uts.name").unwrap().unwrap(),
                            "shared"
                        );
                    }
                })
            })
            .collect();
        watchers
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    stop(&shared);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_leaks() {
    let store = store("leaks");
    let cycle = |nth: usize| {
        let mut m1 = create(&store, "m1");
        // Most are short, so that there can be many.
        let with_all = nth.is_multiple_of(20);
        if with_all {
            m1.set_config_item("lxc.environment", "A=1").unwrap();
            m1.save_config().unwrap();
            let _ = m1.set_config_item("lxc.no.such", "x").unwrap_err();
        }
        start(&m1);
        if with_all {
            sh(&m1, "true");
            drop(m1.init_pidfd().unwrap().unwrap());
            let sleep = AttachCommand::new("sleep").arg("1000");
            let _ = m1.attach_run(&sleep, Duration::from_millis(200)).unwrap();
            let _ = list(&store).unwrap();
        }
        stop(&m1);
        m1.destroy(LONG).unwrap().done().unwrap();
    };
    cycle(0);
    // Killed monitors of other tests have left some.
    let before = (descriptors(), cgroups());
    let had = allocated();
    (0..count("LXC_RS_ROUNDS", 100)).for_each(cycle);
    assert_eq!((descriptors(), cgroups()), before);
    // However many: what is kept once is kept after the first.
    let has = allocated();
    assert!(has < had + (16 << 10), "{had} bytes before, {has} now");
    no_children();
    // The compiler may be making one meanwhile, where this is not a node.
    let place = store.as_path().to_str().unwrap();
    let is_helper = |line: &str| line.starts_with("lxc-rs-helper") && line.contains(place);
    let helpers = processes().filter(|(_, line)| is_helper(line));
    assert_eq!(helpers.collect::<Vec<_>>(), []);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_stuck_monitor() {
    let store = store("stuck");
    let m1 = create(&store, "m1");
    start(&m1);
    let monitor = monitor_of(&m1);
    kill(monitor, Signal::SIGSTOP).unwrap();
    let short = Duration::from_secs(1);
    let unknown = |outcome: lxc_rs::Result<Outcome>| {
        let outcome = outcome.unwrap();
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
        let error = outcome.done().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    };
    let begun = Instant::now();
    let state = m1.state_within(short).unwrap();
    assert!(matches!(state, Outcome::Unknown(_)), "{state:?}");
    // Nor is anything else that is asked of it.
    let pid = m1.query_within(short, Container::init_pid).unwrap();
    assert!(matches!(pid, Outcome::Unknown(_)), "{pid:?}");
    let items = m1.query_within(LONG, |m1| m1.config_item("lxc.uts.name"));
    assert_eq!(items.unwrap().done().unwrap().unwrap(), "m1");
    // Since 6.0 liblxc itself can give up, though for the state alone.
    if store.liblxc_version().major >= 6 {
        m1.set_answer_timeout(Some(short)).unwrap();
        let error = m1.state().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        m1.set_answer_timeout(None).unwrap();
    }
    // Not to know is neither yes nor no.
    let error = m1.wait(State::Stopped, short).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    unknown(m1.freeze(short));
    unknown(m1.shutdown(short));
    unknown(m1.stop(short));
    assert!(begun.elapsed() < LONG);
    kill(monitor, Signal::SIGCONT).unwrap();
    // What was asked for meanwhile may or may not have reached it.
    if let Err(error) = m1.stop(LONG).and_then(Outcome::done) {
        assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    }
    assert!(m1.wait_gone(LONG).unwrap());
    no_children();
    let state = m1.query_within(LONG, Container::state).unwrap();
    assert_eq!(state.done().unwrap(), State::Stopped);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_shutdown_ignored() {
    let store = store("ignored");
    let m1 = create(&store, "m1");
    // A shell as init that does not react to the halt signal.
    let options =
        StartOptions::new().command(["/bin/sh", "-c", "trap '' USR1; while :; do sleep 1; done"]);
    m1.start(&options, LONG).unwrap().done().unwrap();
    match m1.shutdown(Duration::from_secs(1)).unwrap() {
        // On a busy machine the time may be over before it was asked.
        Outcome::Unknown(unknown) => {
            assert!(matches!(unknown.last_state, None | Some(State::Running)));
        }
        Outcome::Done(()) => panic!("it was to ignore the signal"),
    }
    stop(&m1);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_unmount() {
    let store = store("unmount");
    let m1 = create(&store, "m1");
    let path = store.as_path().to_owned();
    let mounted = path.parent().unwrap();
    let device = device_of(mounted);
    let remount = || {
        mount(
            Some(&device),
            mounted,
            Some("btrfs"),
            MsFlags::empty(),
            None::<&str>,
        )
    };
    let rounds = |rounds: std::ops::Range<usize>| {
        for round in rounds {
            start(&m1);
            if round % 2 == 0 {
                stop(&m1)
            } else {
                m1.shutdown(LONG).unwrap().done().unwrap()
            }
            umount(mounted)
                .unwrap_or_else(|error| panic!("round {round}: {error}{}", holders(mounted)));
            remount().unwrap();
        }
    };
    rounds(0..2);
    // On a machine where everybody has to wait.
    let busy = Busy::with(3);
    rounds(0..count("LXC_RS_ROUNDS", 2));
    drop(busy);
    // The same after somebody else ended it.
    start(&m1);
    oracle(
        "lxc-stop",
        &["-P", path.to_str().unwrap(), "-n", "m1", "-k"],
    );
    assert!(m1.wait_gone(LONG).unwrap());
    umount(mounted).unwrap();
    remount().unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn inner_own_log_file() {
    let store = store("log");
    let mut m1 = create(&store, "m1");
    let log = store.as_path().join("m1.log");
    m1.set_config_item("lxc.log.file", &log).unwrap();
    m1.set_config_item("lxc.log.level", "INFO").unwrap();
    m1.save_config().unwrap();
    start(&m1);
    stop(&m1);
    assert!(fs::read_to_string(&log).unwrap().contains("lxccontainer"));
    // And a failure still knows its causes.
    let options = StartOptions::new()
        .config("lxc.net.1.type", "veth")
        .config("lxc.net.1.link", "nobr7");
    let error = m1.start(&options, LONG).unwrap_err();
    assert!(
        error.causes().any(|line| line.message.contains("nobr7")),
        "{error:?}"
    );
}

#[test]
#[ignore = "runs inside a node"]
fn inner_no_permission() {
    let store = store("permission");
    let m1 = create(&store, "m1");
    // Another user, for good: this process does nothing else.
    nix::unistd::setgid(nix::unistd::Gid::from_raw(65534)).unwrap();
    nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).unwrap();
    let error = Container::open(&store, "m1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoPermission, "{error}");
    let error = m1.start(&StartOptions::new(), LONG).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ErrorKind::NoPermission | ErrorKind::NotDefined
        ),
        "{error}"
    );
}
