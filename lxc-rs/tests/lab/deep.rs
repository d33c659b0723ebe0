//! What takes long, or other nodes than the usual ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lxc_rs::partial;
use lxc_rs::{
    CloneOptions, Container, ErrorKind, LxcPath, RestoreOptions, SnapshotOptions, State, active,
    list, names, states,
};
use uml_lab::{Disk, Lab};

use crate::common::*;
use crate::{INNER, MORE};

/// Hundreds of lives of a container; nothing may be left of any.
#[test]
#[ignore = "deep: hundreds of containers created, started, stopped, destroyed"]
fn deep_cycles() {
    in_node(&["inner_leaks"], &[("LXC_RS_ROUNDS", "250")]);
}

/// A thousand on this machine, where they take a third of the time.
#[test]
#[ignore = "deep: needs what deep_threads_on_this_machine needs"]
fn deep_cycles_on_this_machine() {
    on_this_machine("inner_leaks", &[("LXC_RS_ROUNDS", "1000")]);
}

const THREADS: &[(&str, &str)] = &[
    ("LXC_RS_THREADS", "16"),
    ("LXC_RS_ROUNDS", "4"),
    ("LXC_RS_QUERIES", "2000"),
];

/// Sixteen threads with a container each, for about a minute.
#[test]
#[ignore = "deep: sixteen threads for a minute"]
fn deep_threads() {
    in_node(&["inner_threads"], THREADS);
}

/// The same on this machine, which may have more processors than a node: with
/// its liblxc, its kernel and its cgroups.
#[test]
#[ignore = "deep: needs root, liblxc, busybox-static and a kernel with Btrfs; starts containers on this machine"]
fn deep_threads_on_this_machine() {
    let processors = std::thread::available_parallelism().unwrap().get();
    assert!(processors > 1, "there is one processor, as in a node");
    let mut set = THREADS.to_vec();
    // A node takes its time; here are many rounds in a minute.
    set.push(("LXC_RS_ROUNDS", "80"));
    on_this_machine("inner_threads", &set);
}

/// Runs an inner test as root of this machine, on a Btrfs in a file.
fn on_this_machine(test: &str, set: &[(&str, &str)]) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (disk, mounted) = (dir.path().join("disk"), dir.path().join("mounted"));
    fs::File::create(&disk).unwrap().set_len(2 << 30).unwrap();
    // What is mounted goes with the namespace; the loop device with the mount.
    let mut run = Command::new("unshare");
    run.arg("-m").arg(std::env::current_exe().unwrap());
    run.args(["--exact", test, "--include-ignored", "--nocapture"]);
    run.env("LXC_RS_DISK", &disk).env("LXC_RS_MOUNT", &mounted);
    run.env(TUNABLES.0, TUNABLES.1);
    for (name, value) in set {
        run.env(name, std::env::var(name).as_deref().unwrap_or(value));
    }
    assert!(run.status().unwrap().success());
    let left = format!(" {}/", mounted.display());
    let left = processes().filter(|(_, line)| line.contains(&left));
    assert_eq!(left.collect::<Vec<_>>(), []);
}

/// Every call that runs in the calling process, on a container that runs,
/// watched for reads beyond the end and for memory that nobody gives back.
#[test]
#[ignore = "deep: as the one before, and valgrind"]
fn deep_valgrind_of_a_running_container() {
    on_this_machine("deep::inner_watched", &[]);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_watched() {
    let store = store("watched");
    let spec = spec(&name("m1"))
        .config("lxc.tty.max", "2")
        .config("lxc.pty.max", "16")
        .config("lxc.console.buffer.size", "65536");
    let m1 = Container::create(&store, spec, LONG).unwrap();
    let m1 = m1.done().unwrap();
    start(&m1);
    sh(&m1, "echo printed >/dev/console");
    let output = Command::new("valgrind")
        .args(["-q", "--error-exitcode=99", "--leak-check=full"])
        .args([
            "--show-leak-kinds=definite",
            "--errors-for-leak-kinds=definite",
        ])
        .arg(concat!(
            "--suppressions=",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/valgrind.supp"
        ))
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "deep::inner_queries",
            "--include-ignored",
            "--test-threads=1",
        ])
        .env("LXC_RS_STORE", store.as_path())
        .output();
    let output = output.unwrap_or_else(|error| panic!("valgrind cannot be run: {error}"));
    stop(&m1);
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{wrong}"
    );
}

/// What valgrind watches: the helper, which it could not run, is not used.
#[test]
#[ignore = "runs inside a node"]
fn inner_queries() {
    let store = LxcPath::new(std::env::var_os("LXC_RS_STORE").unwrap()).unwrap();
    let m1 = list(&store).unwrap().remove(0).container.unwrap();
    for _ in 0..3 {
        assert_eq!(m1.state().unwrap(), State::Running);
        assert!(m1.init_pid().unwrap().is_some() && m1.init_pidfd().unwrap().is_some());
        assert_eq!(
            m1.running_config_item("lxc.uts.name").unwrap().unwrap(),
            "m1"
        );
        assert_eq!(m1.running_config_item("lxc.hook.stop").unwrap(), None);
        assert!(m1.may_control() && m1.is_defined());
        // Which there are is the machine's to say.
        let items = ["cgroup.procs", "pids.current", "memory.stat", "cpu.stat"];
        assert!(items.iter().any(|key| m1.cgroup_item(key).is_ok()));
        assert_eq!(
            m1.cgroup_item("no.such").unwrap_err().kind(),
            ErrorKind::NoCgroupItem
        );
        assert_eq!(m1.console(None).unwrap().number(), 1);
        let _ = m1.console_log(3, false).unwrap();
        let _ = m1.console_log(4096, true).unwrap();
        drop(m1.devpts_fd().unwrap());
        let _ = m1.seccomp_notify_fd().unwrap_err();
        let _ = m1.set_answer_timeout(Some(LONG));
        assert_eq!(active(&store).unwrap().len(), 1);
        let states = states(&store).unwrap();
        assert!(matches!(states[..], [(_, Ok(State::Running))]));
    }
}

/// A hundred containers, thirty of them up.
#[test]
#[ignore = "deep: a hundred containers"]
fn deep_many() {
    in_node(
        &["oracles::inner_many"],
        &[("LXC_RS_DEFINED", "100"), ("LXC_RS_RUNNING", "30")],
    );
}

/// Unmounting right after the end, a hundred times where everybody has to wait.
#[test]
#[ignore = "deep: a hundred containers started and ended on a busy node"]
fn deep_unmount() {
    in_node(&["inner_unmount"], &[("LXC_RS_ROUNDS", "100")]);
}

const CONTROLS: &[&str] = &["controls::inner_controls"];

/// The traps are there.
#[test]
#[ignore = "deep: nothing of this crate"]
fn deep_controls() {
    in_node(CONTROLS, &[]);
}

/// Everything that is seen with the usual node's liblxc, with that of Debian 13,
/// and a Debian 13 as a container.
#[test]
#[ignore = "deep: fetches a distribution; needs root and mmdebstrap"]
fn deep_debian_13() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let tree = debian_13(dir.path());
    let exe = std::env::current_exe().unwrap();
    // Tests are in a directory of their own beside the examples.
    let programs = exe.ancestors().nth(2).unwrap();
    let lab = Lab::builder()
        .name("lxc-rs-13")
        .node("node1", |node| {
            node.root(&tree)
                .see(programs, programs)
                .see(env!("CARGO_MANIFEST_DIR"), env!("CARGO_MANIFEST_DIR"))
                .see(&tree, "/srv/images/debian")
                .disk("2G")
                .memory("768M")
        })
        .start_for_test();
    let Some(lab) = lab else { return };
    let node = lab.node("node1");
    let tests = [&["deep::inner_is_liblxc_6"], CONTROLS, INNER, MORE].concat();
    run_inner(&node, &tests, &[]);
}

/// A Debian 13 below `dir`, or the one that `LXC_RS_DEBIAN_13` names.
fn debian_13(dir: &Path) -> PathBuf {
    if let Some(tree) = std::env::var_os("LXC_RS_DEBIAN_13") {
        return tree.into();
    }
    let tree = dir.join("debian");
    let packages = "attr,btrfs-progs,busybox-static,iproute2,kmod,lxc,systemd-sysv,uidmap";
    let made = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase"])
        .arg(format!("--include={packages}"))
        .arg("trixie")
        .arg(&tree)
        .status();
    match made {
        Ok(made) => assert!(made.success(), "{made}"),
        Err(error) => panic!("mmdebstrap cannot be run: {error}"),
    }
    // It is that of this machine, and would be the container's.
    fs::remove_file(tree.join("etc/hostname")).unwrap();
    // The kernel of a node has no capabilities: it reads what it may.
    let readable = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(&tree)
        .status();
    assert!(readable.unwrap().success());
    tree
}

#[test]
#[ignore = "runs inside a node"]
fn inner_is_liblxc_6() {
    let version = store("version").liblxc_version();
    assert_eq!(version.major, 6, "{version}");
}

/// Whenever the power fails, a container is there as it was before or after
/// the call, or says that its creation was cut off.
#[test]
#[ignore = "deep: cuts the power of a node many times"]
fn deep_power_cuts() {
    let lab = Lab::builder()
        .name("lxc-rs-power")
        .packages(["btrfs-progs", "busybox-static", "lxc"])
        .node("node1", |node| {
            node.disk(Disk::new("512M").power_cut()).memory("512M")
        })
        .start_for_test();
    let Some(lab) = lab else { return };
    let node = lab.node("node1");
    node.run_test("deep::inner_before_power_cuts").unwrap();
    let exe = std::env::current_exe().unwrap();
    for seed in 0..count("LXC_RS_CUTS", 20) as u64 {
        let test = [
            "--exact",
            "deep::inner_until_power_cut",
            "--include-ignored",
        ];
        let victim = uml_lab::Command::new(&exe).args(test).arg("--nocapture");
        let victim = node.spawn(victim).unwrap();
        let mut said = String::new();
        let mut out = victim.stdout();
        while !said.contains("begins") {
            let mut chunk = [0; 1024];
            let length = std::io::Read::read(&mut out, &mut chunk).unwrap();
            assert_ne!(length, 0, "{said}");
            said += &String::from_utf8_lossy(&chunk[..length]);
        }
        // Some moment of a round, which takes a few seconds.
        std::thread::sleep(Duration::from_millis(seed * 377 % 4000));
        node.power_cut(seed).unwrap();
        node.boot().unwrap();
        node.run_test("deep::inner_after_power_cut").unwrap();
    }
}

const TWO: [&str; 2] = ["one", "two"];

/// A container in one of two conditions, each of which has a snapshot.
#[test]
#[ignore = "runs inside a node"]
fn inner_before_power_cuts() {
    let store = store("power");
    let mut m1 = create(&store, "m1");
    for version in TWO {
        let rootfs = m1.dir().join("rootfs");
        for file in 0..20 {
            fs::write(rootfs.join(format!("etc/file{file}")), version).unwrap();
        }
        m1.set_config_item("lxc.uts.name", version).unwrap();
        m1.save_config().unwrap();
        m1.snapshot(&SnapshotOptions::new(), LONG)
            .unwrap()
            .done()
            .unwrap();
    }
}

#[test]
#[ignore = "runs inside a node"]
fn inner_until_power_cut() {
    let store = mounted_store("power");
    let mut m1 = Container::open(&store, "m1").unwrap();
    println!("begins");
    for round in 0.. {
        let m2 = create(&store, "m2");
        m2.destroy(LONG).unwrap().done().unwrap();
        let m3 = m1.clone_to(name("m3"), &CloneOptions::new(), LONG);
        m3.unwrap()
            .done()
            .unwrap()
            .destroy(LONG)
            .unwrap()
            .done()
            .unwrap();
        for number in [round % 2, (round + 1) % 2] {
            let restored =
                m1.restore_snapshot(&format!("snap{number}"), &RestoreOptions::new(), LONG);
            restored.unwrap().done().unwrap();
            m1 = Container::open(&store, "m1").unwrap();
            m1.set_config_item("lxc.environment", format!("ROUND={round}"))
                .unwrap();
            m1.save_config().unwrap();
        }
    }
}

#[test]
#[ignore = "runs inside a node"]
fn inner_after_power_cut() {
    let store = mounted_store("power");
    for listed in list(&store).unwrap() {
        match &listed.container {
            Ok(container) => drop(container.rootfs().unwrap()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::PartialCreate, "{error}");
                println!("{error}");
            }
        }
    }
    for called in ["m2", "m3"] {
        if store.as_path().join(called).exists() {
            partial::discard(&store, &name(called), LONG)
                .unwrap()
                .done()
                .unwrap();
        }
        // What was complete is no leftover, and goes like any other.
        if names(&store).unwrap().contains(&name(called)) {
            let whole = Container::open(&store, called).unwrap();
            whole.destroy(LONG).unwrap().done().unwrap();
        }
        // A destruction that was cut off may leave the directory.
        let _ = fs::remove_dir_all(store.as_path().join(called));
    }
    let m1 = Container::open(&store, "m1").unwrap();
    let host_name = m1.config_item("lxc.uts.name").unwrap().unwrap();
    let content = |file: u32| fs::read_to_string(m1.dir().join(format!("rootfs/etc/file{file}")));
    let version = content(0).unwrap();
    println!("host name {}, files {version}", host_name.display());
    assert!(TWO.contains(&version.as_str()) && TWO.contains(&host_name.to_str().unwrap()));
    for file in 0..20 {
        assert_eq!(content(file).unwrap(), version);
    }
    start(&m1);
    stop(&m1);
    // Once more, and it is whole.
    for (number, version) in TWO.iter().enumerate() {
        let restored = m1.restore_snapshot(&format!("snap{number}"), &RestoreOptions::new(), LONG);
        restored.unwrap().done().unwrap();
        let m1 = Container::open(&store, "m1").unwrap();
        assert_eq!(m1.config_item("lxc.uts.name").unwrap().unwrap(), *version);
        assert_eq!(content(7).unwrap(), *version);
    }
    let entries: Vec<_> = fs::read_dir(m1.dir()).unwrap().collect();
    assert_eq!(entries.len(), 3, "{entries:?}");
}

/// What is there, without making it anew.
fn mounted_store(test: &str) -> LxcPath {
    let other = store("mounts");
    LxcPath::new(other.as_path().with_file_name(test)).unwrap()
}
