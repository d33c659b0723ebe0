//! Running containers, and what else there is.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lxc_rs::{
    AttachCommand, Backing, CloneOptions, Container, ErrorKind, LxcPath, Mount, Namespace, Outcome,
    RestoreOptions, SnapshotOptions, StartOptions, State, StateEvent, StateEvents, Template,
    active, layout, list, states,
};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;

use crate::common::*;

/// A container with more configuration than the others have.
fn configured(store: &LxcPath, called: &str, items: &[(&str, &str)]) -> Container {
    let spec = items
        .iter()
        .fold(spec(&name(called)), |spec, (key, value)| {
            spec.config(*key, *value)
        });
    Container::create(store, spec, LONG)
        .unwrap()
        .done()
        .unwrap()
}

fn done<T>(outcome: lxc_rs::Result<Outcome<T>>) -> T {
    outcome.unwrap().done().unwrap()
}

fn kind<T: std::fmt::Debug>(result: lxc_rs::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
#[ignore = "runs inside a node"]
fn inner_cgroup_and_configuration() {
    let store = store("cgroup");
    let mut m1 = create(&store, "m1");
    assert_eq!(kind(m1.cgroup_item("pids.max")), ErrorKind::NotRunning);
    assert_eq!(
        kind(m1.set_cgroup_item("pids.max", "9", LONG)),
        ErrorKind::NotRunning
    );
    assert_eq!(
        kind(m1.running_config_item("lxc.uts.name")),
        ErrorKind::NotRunning
    );
    start(&m1);
    // liblxc goes by controllers, of which a kernel may have any.
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    let limits = [
        ("pids", "pids.max", "77"),
        ("memory", "memory.high", "67108864"),
        ("cpu", "cpu.weight", "77"),
    ];
    let mut limits = limits
        .iter()
        .filter(|(controller, ..)| controllers.split_whitespace().any(|has| has == *controller));
    let (_, key, value) = limits
        .next()
        .unwrap_or_else(|| panic!("no controller of use in {controllers:?}"));
    done(m1.set_cgroup_item(key, value, LONG));
    assert_eq!(m1.cgroup_item(key).unwrap(), *value);
    let init = m1.init_pid().unwrap().unwrap();
    let cgroup = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    let cgroup = cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap()
        .to_owned();
    let file = format!("/sys/fs/cgroup{cgroup}/{key}");
    assert_eq!(fs::read_to_string(file).unwrap().trim(), *value);
    let error = m1.set_cgroup_item(key, "many", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(kind(m1.cgroup_item("no.such")), ErrorKind::NoCgroupItem);
    assert_eq!(
        kind(m1.set_cgroup_item("no.such", "1", LONG)),
        ErrorKind::NoCgroupItem
    );

    // What runs is not what the file says by now.
    m1.set_config_item("lxc.uts.name", "later").unwrap();
    m1.save_config().unwrap();
    assert_eq!(
        m1.running_config_item("lxc.uts.name").unwrap().unwrap(),
        "m1"
    );
    assert_eq!(m1.running_config_item("lxc.hook.stop").unwrap(), None);
    assert!(m1.may_control());
    stop(&m1);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_network() {
    let store = store("network");
    let ip = |arguments: &[&str]| oracle("ip", arguments);
    let _ = Command::new("ip").args(["link", "del", "out0"]).output();
    let _ = Command::new("ip").args(["link", "del", "lxcrs0"]).output();
    let made = Command::new("ip")
        .args(["link", "add", "lxcrs0", "type", "bridge"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let m1 = configured(
        &store,
        "m1",
        &[
            ("lxc.net.1.type", "veth"),
            ("lxc.net.1.link", "lxcrs0"),
            ("lxc.net.1.name", "eth0"),
            ("lxc.net.1.flags", "up"),
            ("lxc.net.1.ipv4.address", "10.9.8.7/24"),
            ("lxc.net.1.ipv6.address", "fd00::7/64"),
        ],
    );
    assert_eq!(kind(m1.interfaces(LONG)), ErrorKind::NotRunning);
    start(&m1);
    let mut interfaces = done(m1.interfaces(LONG));
    interfaces.sort();
    interfaces.dedup();
    assert!(
        interfaces.iter().any(|name| name == "eth0"),
        "{interfaces:?}"
    );
    let mut addresses: Vec<_> = done(m1.addresses(None, LONG))
        .iter()
        .map(ToString::to_string)
        .collect();
    addresses.sort();
    assert_eq!(addresses, ["10.9.8.7", "fd00::7"]);
    assert!(done(m1.addresses(Some("nothere"), LONG)).is_empty());
    let info = oracle(
        "lxc-info",
        &[
            "-P",
            store.as_path().to_str().unwrap(),
            "-n",
            "m1",
            "-H",
            "-i",
        ],
    );
    let mut theirs: Vec<_> = info.split_whitespace().collect();
    theirs.sort_unstable();
    assert_eq!(theirs, addresses);

    // A device of the host goes in, and out again.
    ip(&[
        "link", "add", "out0", "type", "veth", "peer", "name", "out1",
    ]);
    done(m1.attach_interface("out0", Some("in0"), LONG));
    assert!(!Path::new("/sys/class/net/out0").exists());
    assert!(done(m1.interfaces(LONG)).iter().any(|name| name == "in0"));
    done(m1.detach_interface("in0", Some("out0"), LONG));
    assert!(Path::new("/sys/class/net/out0").exists());
    let error = m1.attach_interface("nothere", None, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    for bad in ["", "a/b", "a b", "sixteen-letters-", "a\0"] {
        assert_eq!(
            kind(m1.attach_interface(bad, None, LONG)),
            ErrorKind::InvalidInput,
            "{bad:?}"
        );
    }
    stop(&m1);
    ip(&["link", "del", "out0"]);
    ip(&["link", "del", "lxcrs0"]);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_devices_and_mounts() {
    let store = store("devices");
    // As on hosts with systemd; mounts could not be handed in otherwise.
    let root = |flag| {
        mount(
            None::<&OsStr>,
            "/",
            None::<&OsStr>,
            MsFlags::MS_REC | flag,
            None::<&OsStr>,
        )
        .unwrap()
    };
    root(MsFlags::MS_SHARED);
    let m1 = configured(
        &store,
        "m1",
        &[
            ("lxc.autodev", "1"),
            ("lxc.mount.auto", "shmounts:/srv/lxc-rs/devices/shared"),
        ],
    );
    fs::create_dir(store.as_path().join("shared")).unwrap();
    assert_eq!(
        kind(m1.add_device("/dev/full", LONG)),
        ErrorKind::NotRunning
    );
    start(&m1);
    // Whether the kernel can filter devices of cgroups is its own matter.
    match m1.add_device("/dev/full", LONG) {
        Ok(outcome) => outcome.done().unwrap(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert!(error.to_string().contains("cgroup"), "{error}");
        }
    }
    assert_eq!(sh(&m1, "busybox stat -c %t:%T /dev/full"), "1:7");
    let _ = m1.remove_device("/dev/full", LONG);
    assert_eq!(sh(&m1, "test -e /dev/full || echo gone"), "gone");
    for bad in ["/etc/passwd", "/no/such/device"] {
        assert_eq!(
            kind(m1.add_device(bad, LONG)),
            ErrorKind::InvalidInput,
            "{bad}"
        );
    }

    let dir = store.as_path().join("data");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "from the host").unwrap();
    done(m1.mount(&Mount::bind(&dir, "/mnt/data"), LONG));
    assert_eq!(sh(&m1, "cat /mnt/data/file"), "from the host");
    done(m1.unmount("/mnt/data", 0, LONG));
    assert_eq!(sh(&m1, "test -e /mnt/data/file || echo gone"), "gone");
    let error = m1
        .mount(&Mount::new("no-such-fs", "/mnt/data"), LONG)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let error = m1.unmount("/mnt/data", 0, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(
        kind(m1.mount(&Mount::bind("/a\0b", "/mnt"), LONG)),
        ErrorKind::InvalidInput
    );
    assert_eq!(kind(m1.devpts_fd()), ErrorKind::Unsupported);
    stop(&m1);
    // Without a shared directory there is no way in.
    let m2 = configured(&store, "m2", &[("lxc.pty.max", "16")]);
    start(&m2);
    assert_eq!(
        kind(m2.mount(&Mount::bind(&dir, "/mnt"), LONG)),
        ErrorKind::Unsupported
    );

    assert_eq!(kind(m2.seccomp_notify_fd()), ErrorKind::Unsupported);
    let devpts = m2.devpts_fd().unwrap();
    assert!(
        fs::metadata(format!("/proc/self/fd/{}", devpts.as_raw_fd()))
            .unwrap()
            .is_dir()
    );
    stop(&m2);
    assert_eq!(kind(m2.devpts_fd()), ErrorKind::NotRunning);
    root(MsFlags::MS_PRIVATE);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_console() {
    let store = store("console");
    let m1 = configured(
        &store,
        "m1",
        &[("lxc.tty.max", "2"), ("lxc.console.buffer.size", "65536")],
    );
    assert_eq!(kind(m1.console(None)), ErrorKind::NotRunning);
    assert_eq!(kind(m1.console_log(100, false)), ErrorKind::NotRunning);
    start(&m1);
    let mut first = m1.console(Some(1)).unwrap();
    assert_eq!(first.number(), 1);
    sh(&m1, "echo to the terminal >/dev/tty1");
    let mut seen = Vec::new();
    let mut chunk = [0; 256];
    while !String::from_utf8_lossy(&seen).contains("to the terminal") {
        let length = first.read(&mut chunk).unwrap();
        seen.extend_from_slice(&chunk[..length]);
    }
    first.write_all(b"typed\n").unwrap();
    assert_eq!(sh(&m1, "read line </dev/tty1; echo $line"), "typed");
    // One at a time, and there are two.
    let second = m1.console(None).unwrap();
    assert_eq!(second.number(), 2);
    assert_eq!(kind(m1.console(None)), ErrorKind::Refused);
    assert_eq!(kind(m1.console(Some(1))), ErrorKind::Refused);
    drop(first);
    // The monitor hears of it in its own time.
    let begun = Instant::now();
    while m1.console(Some(1)).is_err() {
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    }

    sh(&m1, "echo on the console >/dev/console");
    let begun = Instant::now();
    let log = loop {
        let log = m1.console_log(4096, false).unwrap();
        if !log.is_empty() {
            break log;
        }
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(
        String::from_utf8_lossy(&log).contains("on the console"),
        "{log:?}"
    );
    // As much as is asked for, the rest later, nothing once it is emptied.
    assert_eq!(m1.console_log(4096, true).unwrap(), b"");
    sh(&m1, "echo 0123456789 >/dev/console");
    let begun = Instant::now();
    let mut log = Vec::new();
    while !log.ends_with(b"9\r\n") {
        let some = m1.console_log(5, false).unwrap();
        assert!(some.len() <= 5 && begun.elapsed() < LONG, "{log:?}");
        log.extend(some);
    }
    assert_eq!(log, b"0123456789\r\n");
    stop(&m1);
    let m2 = create(&store, "m2");
    start(&m2);
    assert_eq!(kind(m2.console_log(100, false)), ErrorKind::Unsupported);
    stop(&m2);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_reboot() {
    let store = store("reboot");
    let m1 = configured(&store, "m1", &[("lxc.signal.reboot", "SIGTERM")]);
    assert_eq!(kind(m1.reboot(LONG)), ErrorKind::NotRunning);
    start(&m1);
    let (init, monitor) = (m1.init_pid().unwrap(), monitor_of(&m1));
    // At once: an init that cannot hear it yet is asked again.
    done(m1.reboot(LONG));
    assert_ne!(m1.init_pid().unwrap(), init);
    assert_eq!(
        (m1.state().unwrap(), monitor_of(&m1)),
        (State::Running, monitor)
    );
    m1.shutdown(LONG).unwrap().done().unwrap();
    // One that ignores the signal.
    let options =
        StartOptions::new().command(["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
    done(m1.start(&options, LONG));
    match m1.reboot(Duration::from_secs(1)).unwrap() {
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
fn inner_foreground() {
    let store = store("foreground");
    let m1 = configured(&store, "m1", &[("lxc.console.buffer.size", "65536")]);
    let run = |script: &str| StartOptions::new().command(["/bin/sh", "-c", script]);
    let waits = "trap 'exit 7' USR1; sleep 100000 & wait";
    let mut running = m1.start_foreground(&run(waits), LONG).unwrap();
    assert_eq!(m1.state().unwrap(), State::Running);
    assert_eq!(running.wait(Duration::ZERO).unwrap(), None);
    assert_eq!(sh(&m1, "hostname"), "m1");
    let error = m1.start_foreground(&run(waits), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning, "{error}");
    done(m1.shutdown(LONG));
    let status = running.wait(LONG).unwrap().unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(running.wait(LONG).unwrap(), Some(status));
    drop(running);

    let mut running = m1.start_foreground(&run(waits), LONG).unwrap();
    stop(&m1);
    assert_eq!(running.wait(LONG).unwrap().unwrap().signal(), Some(9));
    drop(running);
    // Dropping it leaves the container alone.
    drop(m1.start_foreground(&run(waits), LONG).unwrap());
    assert_eq!(m1.state().unwrap(), State::Running);
    stop(&m1);

    let error = m1
        .start_foreground(&StartOptions::new().command(["/no/such/init"]), LONG)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.causes().next().is_some(), "{error:?}");
    assert!(m1.wait_gone(LONG).unwrap());
}

#[test]
#[ignore = "runs inside a node"]
fn inner_attach_options() {
    let store = store("options");
    let m1 = create(&store, "m1");
    start(&m1);
    let run = |command: &AttachCommand| {
        let output = done(m1.attach_run(command, LONG));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    // Only the network: the program and the files are the host's.
    let command = AttachCommand::new("/bin/cat").arg("/proc/sys/kernel/hostname");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(
        run(&command.clone().namespaces([Namespace::Net])),
        host.trim_end()
    );
    let own = |kind: &str| {
        fs::read_link(format!("/proc/self/ns/{kind}"))
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    let link =
        |kind: &str| AttachCommand::new("/bin/readlink").arg(format!("/proc/self/ns/{kind}"));
    assert_ne!(run(&link("net").namespaces([Namespace::Net])), own("net"));
    assert_eq!(run(&link("mnt").namespaces([Namespace::Net])), own("mnt"));
    assert_eq!(run(&AttachCommand::shell("hostname")), "m1");

    assert_eq!(
        run(&AttachCommand::shell("echo $CARGO_TEST_NOTHING$PATH_OF_US")),
        ""
    );
    let keeping = AttachCommand::shell("echo $HOME_OF_TEST").keep_env(["HOME_OF_TEST"]);
    // The variable is the helper's, and so this program's.
    let set = std::env::var("HOME_OF_TEST").unwrap_or_default();
    assert_eq!(run(&keeping), set);

    let groups = AttachCommand::new("id").uid(7).gid(8).groups([8, 21, 22]);
    assert!(run(&groups).contains("groups=8,21,22"), "{}", run(&groups));
    let status = |command: AttachCommand| run(&command.arg("/proc/self/status"));
    let field = |status: &str, field: &str| {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let no_new = status(AttachCommand::new("cat").no_new_privileges());
    assert_eq!(field(&no_new, "NoNewPrivs:"), "1");
    let cgroup = |command: AttachCommand| {
        run(&command
            .arg("/proc/self/cgroup")
            .namespaces([Namespace::Net]))
    };
    assert!(cgroup(AttachCommand::new("/bin/cat")).contains("lxc.payload"));
    assert!(!cgroup(AttachCommand::new("/bin/cat").outside_cgroup()).contains("lxc.payload"));
    stop(&m1);

    // Capabilities that the configuration drops, and keeps for this one.
    let m2 = configured(&store, "m2", &[("lxc.cap.drop", "sys_time")]);
    start(&m2);
    let bits = |command: AttachCommand| {
        let output = done(m2.attach_run(&command.arg("/proc/self/status"), LONG));
        let text = String::from_utf8(output.stdout).unwrap();
        u64::from_str_radix(&field(&text, "CapEff:"), 16).unwrap()
    };
    let sys_time = 1 << 25;
    assert_eq!(bits(AttachCommand::new("cat")) & sys_time, 0);
    assert_ne!(
        bits(AttachCommand::new("cat").keep_capabilities()) & sys_time,
        0
    );

    // One that goes on, on descriptors of the caller's.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let null = || std::os::fd::OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let script = "trap 'echo heard; exit 5' HUP; echo ready; sleep 100000 >/dev/null & wait";
    let mut child = m2
        .attach_spawn(
            &AttachCommand::shell(script),
            [null(), writer.into(), null()],
            LONG,
        )
        .unwrap();
    let mut line = [0; 6];
    reader.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");
    assert!(Path::new(&format!("/proc/{}", child.pid())).exists());
    assert_eq!(child.wait(Duration::ZERO).unwrap(), None);
    child.signal(Signal::SIGHUP as u8).unwrap();
    assert_eq!(child.wait(LONG).unwrap().unwrap().code(), Some(5));
    assert_eq!(kind(child.signal(9)), ErrorKind::NotRunning);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "heard\n");
    let mut child = m2
        .attach_spawn(
            &AttachCommand::new("/no/such"),
            [null(), null(), null()],
            LONG,
        )
        .unwrap();
    assert_eq!(kind(child.wait(LONG)), ErrorKind::ExecFailed);
    // Let go of, it lives until the container ends.
    let script = AttachCommand::shell("exec sleep 77778");
    let child = m2
        .attach_spawn(&script, [null(), null(), null()], LONG)
        .unwrap();
    let pid = child.pid();
    drop(child);
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    stop(&m2);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let error = m2
        .attach_run(&AttachCommand::shell("a\0b"), LONG)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
#[ignore = "runs inside a node"]
fn inner_checkpoint() {
    let store = store("checkpoint");
    let m1 = create(&store, "m1");
    let images = store.as_path().join("images");
    assert_eq!(
        kind(m1.checkpoint(&images, false, LONG)),
        ErrorKind::InvalidInput
    );
    fs::create_dir(&images).unwrap();
    assert_eq!(
        kind(m1.checkpoint(&images, false, LONG)),
        ErrorKind::NotRunning
    );
    start(&m1);
    assert_eq!(
        kind(m1.restore_checkpoint(&images, LONG)),
        ErrorKind::AlreadyRunning
    );
    // The node has no CRIU, and its kernel could not do it.
    let error = m1.checkpoint(&images, false, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("criu"), "{error}");
    assert_eq!(m1.state().unwrap(), State::Running);
    stop(&m1);
    assert_eq!(
        kind(m1.restore_checkpoint(&images, LONG)),
        ErrorKind::Unsupported
    );
}

#[test]
#[ignore = "runs inside a node"]
fn inner_template() {
    let store = store("template");
    let entries = || fs::read_dir(store.as_path()).unwrap().count();
    let script = |called: &str, text: &str| {
        let file = Path::new("/root").join(called);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    };
    let failing = script("failing", "echo this is why >&2; exit 3");
    let error = Container::create_from_template(&store, &Template::new(name("m1"), &failing), LONG)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Populate, "{error}");
    assert!(
        error.to_string().contains("the template said: this is why"),
        "{error}"
    );
    assert_eq!(entries(), 0);
    let missing = Template::new(name("m1"), "no-such-template");
    assert_eq!(
        kind(Container::create_from_template(&store, &missing, LONG)),
        ErrorKind::Populate
    );
    assert_eq!(entries(), 0);

    let filling = script(
        "filling",
        "for a; do case $a in --rootfs=*) r=${a#--rootfs=};; esac; done\n\
        cd $r && mkdir -p bin sbin dev proc sys etc && cp /bin/busybox bin/ && ln -s busybox bin/sh && ln -s ../bin/busybox sbin/init\n\
        echo '::respawn:/bin/busybox sleep 1000' >etc/inittab; echo \"$@\" >etc/arguments",
    );
    let template = Template::new(name("m1"), &filling)
        .arg("--of-mine")
        .config("lxc.signal.halt", "SIGUSR1")
        .config("lxc.net.0.type", "empty");
    let m1 = done(Container::create_from_template(&store, &template, LONG));
    let rootfs = m1.rootfs().unwrap().unwrap();
    assert!(rootfs.is_subvolume() && !rootfs.loses_btrfs());
    assert!(
        fs::read_to_string(rootfs.path.join("etc/arguments"))
            .unwrap()
            .contains("--of-mine")
    );
    start(&m1);
    done(m1.shutdown(LONG));
    assert_eq!(
        kind(Container::create_from_template(&store, &template, LONG)),
        ErrorKind::AlreadyDefined
    );

    // On a plain directory.
    let plain = Template::new(name("m2"), &filling).backing(Backing::Dir(None));
    let m2 = done(Container::create_from_template(&store, &plain, LONG));
    assert!(!m2.rootfs().unwrap().unwrap().is_subvolume());
    let empty = done(Container::create_from_template(
        &store,
        &Template::none(name("m3")),
        LONG,
    ));
    assert_eq!(empty.rootfs().unwrap(), None);
    assert_eq!(
        kind(empty.start(&StartOptions::new(), LONG)),
        ErrorKind::RootfsMissing
    );
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let elsewhere = LxcPath::new(elsewhere.path()).unwrap();
    assert_eq!(
        kind(Container::create_from_template(&elsewhere, &template, LONG)),
        ErrorKind::NotBtrfs
    );
}

#[test]
#[ignore = "runs inside a node"]
fn inner_bad_input() {
    let store = store("bad");
    let m1 = create(&store, "m1");
    create(&store, "m2");
    // Somebody takes the root file system away.
    fs::rename(m1.dir().join("rootfs"), store.as_path().join("taken")).unwrap();
    let error = m1.start(&StartOptions::new(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RootfsMissing, "{error}");
    let error = m1
        .snapshot(&lxc_rs::SnapshotOptions::new(), LONG)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RootfsMissing, "{error}");
    // The error says call, container, lxcpath, and what liblxc said.
    assert_eq!(
        (error.call(), error.container(), error.path()),
        ("snapshot", Some("m1"), Some(store.as_path()))
    );
    fs::rename(store.as_path().join("taken"), m1.dir().join("rootfs")).unwrap();

    // Somebody destroys the container: every call says so, none breaks.
    let gone = Container::open(&store, "m1").unwrap();
    done(m1.destroy(LONG));
    let options = lxc_rs::RestoreOptions::new();
    assert_eq!(
        kind(gone.start(&StartOptions::new(), LONG)),
        ErrorKind::NotDefined
    );
    assert_eq!(
        kind(gone.start_foreground(&StartOptions::new(), LONG)),
        ErrorKind::NotDefined
    );
    assert_eq!(kind(gone.stop(LONG)), ErrorKind::NotDefined);
    assert_eq!(kind(gone.reboot(LONG)), ErrorKind::NotDefined);
    assert_eq!(
        kind(gone.snapshot(&lxc_rs::SnapshotOptions::new(), LONG)),
        ErrorKind::NotDefined
    );
    assert_eq!(
        kind(gone.restore_snapshot("snap0", &options, LONG)),
        ErrorKind::SnapshotMissing
    );
    assert_eq!(
        kind(gone.attach_run(&AttachCommand::shell("true"), LONG)),
        ErrorKind::NotDefined
    );
    assert_eq!(kind(gone.interfaces(LONG)), ErrorKind::NotDefined);
    assert_eq!(
        kind(gone.cgroup_item("cgroup.procs")),
        ErrorKind::NotRunning
    );
    assert_eq!(
        kind(gone.clone_to(name("m3"), &lxc_rs::CloneOptions::new(), LONG)),
        ErrorKind::NotDefined
    );
    assert_eq!(kind(gone.config_text()), ErrorKind::NotDefined);
    assert_eq!(kind(gone.rename(name("m3"), LONG)), ErrorKind::NotDefined);

    // One bad configuration does not hide the others, which are asked.
    let m2 = Container::open(&store, "m2").unwrap();
    start(&m2);
    fs::create_dir(store.as_path().join("bad")).unwrap();
    fs::write(
        store.as_path().join("bad/config"),
        "lxc.betwork.type = veth\n",
    )
    .unwrap();
    let all: Vec<_> = states(&store)
        .unwrap()
        .into_iter()
        .map(|(name, state)| (name.to_string(), state.unwrap()))
        .collect();
    assert_eq!(
        all,
        [
            ("bad".to_owned(), State::Stopped),
            ("m2".to_owned(), State::Running)
        ]
    );
    let listed = list(&store).unwrap();
    assert!(listed[0].is_broken() && listed[1].container.is_ok());
    let findings = lxc_rs::layout::config(&store.as_path().join("bad"))
        .unwrap()
        .check(&store);
    assert_eq!(
        findings[0].to_string(),
        "line 1: lxc.betwork.type is no key; lxc.net.0.type is"
    );
    stop(&m2);

    // No cgroups at all, for this thread: a container starts all the same, and
    // what needs them says so.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(
        None::<&OsStr>,
        "/",
        None::<&OsStr>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&OsStr>,
    )
    .unwrap();
    nix::mount::umount2("/sys/fs/cgroup", nix::mount::MntFlags::MNT_DETACH).unwrap();
    match m2.start(&StartOptions::new(), LONG) {
        Ok(outcome) => {
            outcome.done().unwrap();
            assert_eq!(kind(m2.cgroup_item("pids.max")), ErrorKind::NoCgroupItem);
            assert_eq!(kind(m2.freeze(LONG)), ErrorKind::Refused);
            stop(&m2);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Refused, "{error}"),
    }
}

/// Paths and names that have in them what files and sockets are made of.
#[test]
#[ignore = "runs inside a node"]
fn inner_odd_paths() {
    let store = store("odd");
    // Too long for the names of sockets, which are hashed then.
    let long = format!("a b#c:d=e,f/{}/{}", "d".repeat(120), "e".repeat(60));
    let called = &format!("n:1,x=y#z{}", "n".repeat(90));
    let dir = store.as_path().join(long);
    fs::create_dir_all(&dir).unwrap();
    let store = LxcPath::new(&dir).unwrap();
    let mut events = StateEvents::open(&store).unwrap();
    let m1 = create(&store, called);
    assert!(m1.rootfs().unwrap().unwrap().is_subvolume());
    start(&m1);
    assert_eq!(m1.state().unwrap(), State::Running);
    assert_eq!(active(&store).unwrap(), [name(called)]);
    let seen = states(&store).unwrap();
    assert!(matches!(&seen[..], [(_, Ok(State::Running))]), "{seen:?}");
    assert_eq!(sh(&m1, "echo $((6 * 7))"), "42");
    let again = m1.start(&StartOptions::new(), LONG).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyRunning, "{again}");
    let event = events.next(LONG).unwrap();
    let ours = |event: &StateEvent| matches!(event, StateEvent::Changed { container, .. } if container == called);
    assert!(event.as_ref().is_some_and(ours), "{event:?}");
    drop(events);
    done(m1.shutdown(LONG));
    done(m1.snapshot(&SnapshotOptions::new().comment("x"), LONG));
    assert_eq!(layout::snapshots(&m1.dir()).unwrap().len(), 1);
    done(m1.restore_snapshot("snap0", &RestoreOptions::new(), LONG));
    let too_long = name(&"o".repeat(65));
    let error = m1.clone_to(too_long.clone(), &CloneOptions::new(), LONG);
    assert_eq!(kind(error), ErrorKind::InvalidName);
    let keeping = CloneOptions::new().keep_host_name();
    let clone = done(m1.clone_to(too_long, &keeping, LONG));
    assert!(clone.rootfs().unwrap().unwrap().is_subvolume());
    done(clone.destroy(LONG));
    let m1 = done(m1.rename(name(&"r".repeat(200)), LONG));
    start(&m1);
    assert_eq!(sh(&m1, "hostname"), "r".repeat(64));
    stop(&m1);
    done(m1.destroy_with_snapshots(LONG));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

nix::ioctl_readwrite!(take_question, b'!', 0, libc::seccomp_notif);
nix::ioctl_readwrite!(give_answer, b'!', 1, libc::seccomp_notif_resp);

/// A system call that this program decides about.
#[test]
#[ignore = "runs inside a node"]
#[allow(unsafe_code, reason = "two ioctls of seccomp")]
fn inner_seccomp() {
    let store = store("seccomp");
    let profile = store.as_path().join("profile");
    fs::write(&profile, "2\ndenylist\nswapoff notify\n").unwrap();
    let m1 = configured(
        &store,
        "m1",
        &[("lxc.seccomp.profile", profile.to_str().unwrap())],
    );
    let asks = "busybox swapoff /nothing 2>/root/said; sleep 100000";
    let options = StartOptions::new().command(["/bin/sh", "-c", asks]);
    done(m1.start(&options, LONG));
    let asked = m1.seccomp_notify_fd().unwrap();
    // SAFETY: numbers, for which zero is what the kernel wants to see.
    let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: reads and writes one value of this type.
    unsafe { take_question(asked.as_raw_fd(), &mut question) }.unwrap();
    assert_eq!(i64::from(question.data.nr), libc::SYS_swapoff);
    let mut answer = libc::seccomp_notif_resp {
        id: question.id,
        val: 0,
        error: -libc::EDOM,
        flags: 0,
    };
    // SAFETY: as above.
    unsafe { give_answer(asked.as_raw_fd(), &mut answer) }.unwrap();
    let begun = Instant::now();
    let said = || fs::read_to_string(m1.dir().join("rootfs/root/said")).unwrap_or_default();
    while said().is_empty() {
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        said().contains("Numerical argument out of domain"),
        "{}",
        said()
    );
    stop(&m1);
}
