//! Snapshots, clones, names.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use lxc_rs::{
    AttachCommand, CloneOptions, Container, ErrorKind, LxcPath, RestoreOptions, SnapshotOptions,
    State, layout,
};

use crate::common::*;

const MAC: &str = "00:16:3e:11:22:33";

fn with_address(store: &LxcPath, called: &str) -> Container {
    let spec = spec(&name(called))
        .config("lxc.net.1.type", "veth")
        .config("lxc.net.1.hwaddr", MAC)
        .config("lxc.uts.name", "keeps-its-name");
    Container::create(store, spec, LONG)
        .unwrap()
        .done()
        .unwrap()
}

fn subvolume(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.ino() == 256)
}

fn uuid(path: &Path) -> String {
    let shown = oracle("btrfs", &["subvolume", "show", path.to_str().unwrap()]);
    let mut lines = shown.lines().map(str::trim);
    lines
        .find(|line| line.starts_with("UUID:"))
        .unwrap()
        .to_owned()
}

fn make_subvolume(path: &Path) {
    oracle("btrfs", &["subvolume", "create", path.to_str().unwrap()]);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_snapshot() {
    let store = store("snapshot");
    let path = store.as_path().to_str().unwrap();
    let m1 = with_address(&store, "m1");
    assert_eq!(m1.snapshots().unwrap(), []);
    let plain = SnapshotOptions::new();

    // liblxc says nothing at all here.
    m1.start(&lxc_rs::StartOptions::new(), LONG)
        .unwrap()
        .done()
        .unwrap();
    let error = m1.snapshot(&plain, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning, "{error}");
    stop(&m1);

    let comment = b"before the upgrade\nsecond line".to_vec();
    let snap0 = m1.snapshot(&SnapshotOptions::new().comment(comment.clone()), LONG);
    let snap0 = snap0.unwrap().done().unwrap();
    assert_eq!((snap0.name.as_str(), snap0.number()), ("snap0", Some(0)));
    assert_eq!(snap0.comment.as_deref(), Some(&comment[..]));
    assert!(snap0.is_subvolume() && subvolume(&snap0.dir.join("rootfs")));
    assert_eq!(snap0.nested_subvolumes, 0);
    let rootfs = m1.dir().join("rootfs");
    make_subvolume(&rootfs.join("root/inside"));
    let snap1 = m1.snapshot(&plain, LONG).unwrap().done().unwrap();
    assert_eq!(snap1.nested_subvolumes, 1);
    assert!(!subvolume(&snap1.dir.join("rootfs/root/inside")));

    let found = m1.snapshots().unwrap();
    assert_eq!(found, layout::snapshots(&m1.dir()).unwrap());
    let names: Vec<_> = found
        .iter()
        .map(|snapshot| snapshot.name.as_str())
        .collect();
    assert_eq!(names, ["snap0", "snap1"]);
    // The same list by lxc-snapshot: name, place, time.
    let listed = oracle("lxc-snapshot", &["-P", path, "-n", "m1", "-L"]);
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort_unstable();
    let ours: Vec<_> = found
        .iter()
        .map(|snapshot| {
            let place = snapshot.dir.parent().unwrap().display();
            format!(
                "{} ({place}) {}",
                snapshot.name,
                snapshot.taken.as_deref().unwrap()
            )
        })
        .collect();
    assert_eq!(listed, ours);
    let shown = oracle("lxc-snapshot", &["-P", path, "-n", "m1", "-L", "-C"]);
    assert!(shown.contains("before the upgrade\nsecond line"), "{shown}");

    // Numbers are used again, and what is missing is said.
    m1.destroy_snapshot("snap0", LONG).unwrap().done().unwrap();
    assert!(!snap0.dir.exists());
    let error = m1.destroy_snapshot("snap0", LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SnapshotMissing, "{error}");
    assert_eq!(
        m1.snapshot(&plain, LONG).unwrap().done().unwrap().name,
        "snap0"
    );

    // A container with snapshots goes only with them.
    let again = Container::open(&store, "m1").unwrap();
    let error = again.destroy(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HasSnapshots, "{error}");
    let dir = m1.dir();
    m1.destroy_with_snapshots(LONG).unwrap().done().unwrap();
    assert!(!dir.exists());
    // liblxc refuses that where there never was one.
    let m2 = create(&store, "m2");
    let dir = m2.dir();
    m2.destroy_with_snapshots(LONG).unwrap().done().unwrap();
    assert!(!dir.exists());

    // A subvolume without its driver: the snapshot would be a copy.
    let m3 = create(&store, "m3");
    let text = fs::read_to_string(m3.config_file()).unwrap();
    fs::write(m3.config_file(), text.replace("btrfs:", "")).unwrap();
    let m3 = Container::open(&store, "m3").unwrap();
    let allowed = SnapshotOptions::new().allow_copy();
    for options in [&plain, &allowed] {
        let error = m3.snapshot(options, LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongDriver, "{error}");
    }
    assert!(!m3.dir().join("snaps").exists());
}

#[test]
#[ignore = "runs inside a node"]
fn inner_restore() {
    let store = store("restore");
    let m1 = with_address(&store, "m1");
    let rootfs = m1.dir().join("rootfs");
    let file = rootfs.join("etc/version");
    fs::write(&file, "old").unwrap();
    let snapshot = m1
        .snapshot(&SnapshotOptions::new(), LONG)
        .unwrap()
        .done()
        .unwrap();
    let config = fs::read_to_string(m1.config_file()).unwrap();
    fs::write(&file, "new").unwrap();
    fs::write(rootfs.join("etc/added"), "x").unwrap();
    let mut changed = Container::open(&store, "m1").unwrap();
    changed
        .set_config_item("lxc.environment", "LATER=1")
        .unwrap();
    changed.save_config().unwrap();
    let plain = RestoreOptions::new();

    let error = m1.restore_snapshot("snap7", &plain, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SnapshotMissing, "{error}");
    start(&changed);
    let error = m1.restore_snapshot("snap0", &plain, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning, "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    stop(&changed);
    // What no snapshot contains is not lost by accident.
    make_subvolume(&rootfs.join("root/inside"));
    fs::write(rootfs.join("root/inside/data"), "precious").unwrap();
    let error = m1.restore_snapshot("snap0", &plain, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NestedSubvolumes, "{error}");
    assert!(rootfs.join("root/inside/data").exists());

    // One that was cut off before left this behind.
    make_subvolume(&m1.dir().join(".rootfs.restore"));
    let lose = RestoreOptions::new().lose_nested_subvolumes();
    m1.restore_snapshot("snap0", &lose, LONG)
        .unwrap()
        .done()
        .unwrap();
    assert!(subvolume(&rootfs) && !m1.dir().join(".rootfs.restore").exists());
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert!(!rootfs.join("etc/added").exists());
    assert_ne!(uuid(&rootfs), uuid(&snapshot.dir.join("rootfs")));
    // Address, host name and everything else are as they were.
    let now = Container::open(&store, "m1").unwrap();
    assert_eq!(now.config_item("lxc.net.1.hwaddr").unwrap().unwrap(), MAC);
    assert_eq!(
        now.config_item("lxc.uts.name").unwrap().unwrap(),
        "keeps-its-name"
    );
    assert_eq!(now.config_item("lxc.environment").unwrap(), None);
    let items = |text: &str| {
        let mut lines: Vec<_> = text
            .lines()
            .filter(|line| line.contains('='))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(
        items(&fs::read_to_string(now.config_file()).unwrap()),
        items(&config)
    );
    let entries: Vec<_> = fs::read_dir(now.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(entries.len(), 3, "{entries:?}");
    start(&now);
    assert_eq!(sh(&now, "hostname"), "keeps-its-name");
    stop(&now);
    // The snapshot is still there, and a second time does the same.
    now.restore_snapshot("snap0", &plain, LONG)
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");

    // As a new container, with a name and an address of its own.
    let options = CloneOptions::new();
    let m2 = now
        .restore_snapshot_as("snap0", name("m2"), &options, LONG)
        .unwrap()
        .done()
        .unwrap();
    assert!(subvolume(&m2.dir().join("rootfs")));
    assert_eq!(m2.config_item("lxc.uts.name").unwrap().unwrap(), "m2");
    assert_ne!(m2.config_item("lxc.net.1.hwaddr").unwrap().unwrap(), MAC);
    assert_eq!(
        fs::read_to_string(m2.dir().join("rootfs/etc/version")).unwrap(),
        "old"
    );
    start(&m2);
    stop(&m2);
    let error = now
        .restore_snapshot_as("snap0", name("m2"), &options, LONG)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyDefined, "{error}");
}

#[test]
#[ignore = "runs inside a node"]
fn inner_clone() {
    let store = store("clone");
    let m1 = with_address(&store, "m1");
    let plain = CloneOptions::new();
    let m2 = m1
        .clone_to(name("m2"), &plain, LONG)
        .unwrap()
        .done()
        .unwrap();
    assert!(subvolume(&m2.dir().join("rootfs")));
    assert_eq!(
        m2.rootfs().unwrap().unwrap().driver.as_deref(),
        Some("btrfs")
    );
    assert_eq!(m2.config_item("lxc.uts.name").unwrap().unwrap(), "m2");
    assert_ne!(m2.config_item("lxc.net.1.hwaddr").unwrap().unwrap(), MAC);
    // The original is as it was.
    assert_eq!(m1.rootfs().unwrap().unwrap().path, m1.dir().join("rootfs"));

    let same = CloneOptions::new()
        .keep_host_name()
        .keep_hardware_addresses();
    let m3 = m1
        .clone_to(name("m3"), &same, LONG)
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(
        m3.config_item("lxc.uts.name").unwrap().unwrap(),
        "keeps-its-name"
    );
    assert_eq!(m3.config_item("lxc.net.1.hwaddr").unwrap().unwrap(), MAC);

    // Elsewhere on the same file system liblxc would copy by itself.
    let other = store.as_path().with_file_name("clone-other");
    let _ = fs::remove_dir_all(&other);
    fs::create_dir(&other).unwrap();
    let other = LxcPath::new(other).unwrap();
    let m4 = m1.clone_to(name("m1"), &CloneOptions::new().lxcpath(&other), LONG);
    let m4 = m4.unwrap().done().unwrap();
    assert_eq!(m4.dir(), other.as_path().join("m1"));
    assert!(subvolume(&m4.dir().join("rootfs")));
    let shown = oracle(
        "btrfs",
        &[
            "subvolume",
            "show",
            m4.dir().join("rootfs").to_str().unwrap(),
        ],
    );
    let parent = uuid(&m1.dir().join("rootfs"))
        .replace("UUID:", "")
        .trim()
        .to_owned();
    assert!(shown.contains(&parent), "{shown}");

    start(&m1);
    let error = m1.clone_to(name("m5"), &plain, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning, "{error}");
    assert!(!store.as_path().join("m5").exists());
    let m5 = m1.clone_to(name("m5"), &CloneOptions::new().allow_running(), LONG);
    let m5 = m5.unwrap().done().unwrap();
    assert_eq!(
        (m1.state().unwrap(), m5.state().unwrap()),
        (State::Running, State::Stopped)
    );
    start(&m5);
    stop(&m5);
    stop(&m1);
    let error = m1.clone_to(name("m2"), &plain, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyDefined, "{error}");

    // Not through a path that is no subvolume's any more.
    let text = fs::read_to_string(m3.config_file()).unwrap();
    fs::write(m3.config_file(), text.replace("btrfs:", "")).unwrap();
    let m3 = Container::open(&store, "m3").unwrap();
    let error = m3.clone_to(name("m6"), &plain, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongDriver, "{error}");
    fs::write(m3.config_file(), text).unwrap();

    // The hook of the original hears of it, and can say no.
    let hook = store.as_path().join("hook");
    fs::write(
        &hook,
        format!(
            "#!/bin/sh\necho \"$LXC_SRC_NAME $@\" >{}.said\ntest \"$LXC_NAME\" != no\n",
            hook.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut m3 = Container::open(&store, "m3").unwrap();
    m3.set_config_item("lxc.hook.clone", &hook).unwrap();
    m3.save_config().unwrap();
    let told = CloneOptions::new().hook_argument("extra");
    m3.clone_to(name("m7"), &told, LONG)
        .unwrap()
        .done()
        .unwrap();
    let said = fs::read_to_string(hook.with_extension("said")).unwrap();
    assert!(said.starts_with("m3 ") && said.contains("extra"), "{said}");
    let error = m3.clone_to(name("no"), &told, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(
        error.to_string().contains("is left behind"),
        store.as_path().join("no").exists(),
        "{error}"
    );
    // Not into the void.
    let missing = Command::new("rmdir")
        .arg(store.as_path().join("m7/nothing"))
        .status()
        .unwrap();
    assert!(!missing.success());
}

#[test]
#[ignore = "runs inside a node"]
fn inner_rename() {
    let store = store("rename");
    let m1 = create(&store, "m1");
    m1.snapshot(&SnapshotOptions::new(), LONG)
        .unwrap()
        .done()
        .unwrap();
    let before = uuid(&m1.dir().join("rootfs"));
    create(&store, "taken");
    start(&m1);
    let again = Container::open(&store, "m1").unwrap();
    let error = again.rename(name("web"), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyRunning, "{error}");
    stop(&m1);
    let again = Container::open(&store, "m1").unwrap();
    let error = again.rename(name("taken"), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyDefined, "{error}");

    let web = m1.rename(name("web"), LONG).unwrap().done().unwrap();
    assert_eq!(web.name().as_str(), "web");
    assert!(!store.as_path().join("m1").exists());
    // The very same subvolume, and the snapshot came along.
    assert_eq!(uuid(&web.dir().join("rootfs")), before);
    assert_eq!(web.config_item("lxc.uts.name").unwrap().unwrap(), "web");
    let snapshot = web.snapshots().unwrap().remove(0);
    assert!(snapshot.is_subvolume(), "{snapshot:?}");
    start(&web);
    let output = web
        .attach_run(&AttachCommand::new("hostname"), LONG)
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(output.stdout, b"web\n");
    stop(&web);
    web.restore_snapshot("snap0", &RestoreOptions::new(), LONG)
        .unwrap()
        .done()
        .unwrap();
    let web = Container::open(&store, "web").unwrap();
    assert_eq!(web.config_item("lxc.uts.name").unwrap().unwrap(), "web");
    start(&web);
    stop(&web);
    web.destroy_with_snapshots(LONG).unwrap().done().unwrap();
}
