//! Containers whose root is nobody outside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use lxc_rs::{
    CloneOptions, Container, CreateSpec, ErrorKind, LxcPath, RestoreOptions, SnapshotOptions,
    StartOptions, State,
};

use crate::common::*;

const IDS: [&str; 2] = ["u 0 100000 65536", "g 0 100000 65536"];

/// As the others, and with ids of its own.
fn mapped(called: &str) -> CreateSpec<'static> {
    let spec = spec(&name(called));
    IDS.iter()
        .fold(spec, |spec, ids| spec.config("lxc.idmap", *ids))
}

/// What only shows with real owners: a set-user-id file, capabilities, an
/// access list, a file of two names, a file of somebody else.
fn furnish(rootfs: &Path) -> std::io::Result<()> {
    minimal(rootfs)?;
    for file in ["su", "capable", "listed", "first", "seven"] {
        fs::copy("/bin/busybox", rootfs.join("root").join(file))?;
    }
    let root = rootfs.join("root");
    lchown(root.join("seven"), Some(7), Some(8))?;
    fs::hard_link(root.join("first"), root.join("second"))?;
    fs::set_permissions(root.join("su"), fs::Permissions::from_mode(0o4755))?;
    // cap_net_raw, effective; and a user 7 who may read.
    for (file, attribute, value) in [
        (
            "capable",
            "security.capability",
            "0x0100000200200000000000000000000000000000",
        ),
        (
            "listed",
            "system.posix_acl_access",
            "0x0200000001000600ffffffff020004000700000004000400ffffffff10000400ffffffff20000400ffffffff",
        ),
    ] {
        let set = ["-n", attribute, "-v", value];
        let set = Command::new("setfattr")
            .args(set)
            .arg(root.join(file))
            .status()?;
        assert!(set.success());
    }
    Ok(())
}

fn attribute(file: &Path, attribute: &str) -> String {
    let file = file.to_str().unwrap();
    let hex = oracle(
        "getfattr",
        &["--absolute-names", "-e", "hex", "-n", attribute, file],
    );
    hex.trim().rsplit('=').next().unwrap().to_owned()
}

#[test]
#[ignore = "runs inside a node"]
fn inner_unprivileged() {
    let store = store("unprivileged");
    let ranges = "root:100000:65536\n";
    fs::write("/etc/subuid", ranges).unwrap();
    fs::write("/etc/subgid", ranges).unwrap();
    let made = Container::create(&store, mapped("m1").populate(furnish), LONG);
    let m1 = made.unwrap().done().unwrap();
    assert_eq!(m1.config_list("lxc.idmap").unwrap(), IDS);
    let root = m1.dir().join("rootfs/root");
    let owner = |file: &str| {
        let meta = fs::symlink_metadata(root.join(file)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(owner("../sbin/init"), (100_000, 100_000, 0o777));
    assert_eq!(owner("su"), (100_000, 100_000, 0o4755));
    assert_eq!(owner("second"), (100_000, 100_000, 0o755));
    assert_eq!(owner("seven"), (100_007, 100_008, 0o755));
    // Its own root's capabilities, 100000, and user 100007.
    let capability = attribute(&root.join("capable"), "security.capability");
    assert_eq!(
        capability,
        "0x0100000300200000000000000000000000000000a0860100"
    );
    let listed = attribute(&root.join("listed"), "system.posix_acl_access");
    assert!(listed.contains("02000400a7860100"), "{listed}");

    start(&m1);
    let init = m1.init_pid().unwrap().unwrap();
    let map = fs::read_to_string(format!("/proc/{init}/uid_map")).unwrap();
    let map: Vec<_> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "100000", "65536"]);
    root_is_nobody_outside(&m1);
    assert_eq!(sh(&m1, "busybox stat -c %u /root/seven"), "7");
    assert_eq!(
        sh(
            &m1,
            "busybox mknod /dev/mine b 8 0 2>/dev/null && echo made; true"
        ),
        ""
    );
    let path = store.as_path().to_str().unwrap();
    let listed = oracle("lxc-ls", &["-P", path, "-f", "-F", "NAME,UNPRIVILEGED"]);
    assert_eq!(
        listed.split_whitespace().skip(2).collect::<Vec<_>>(),
        ["m1", "true"]
    );
    m1.freeze(LONG).unwrap().done().unwrap();
    assert_eq!(m1.state().unwrap(), State::Frozen);
    m1.unfreeze(LONG).unwrap().done().unwrap();
    m1.shutdown(LONG).unwrap().done().unwrap();

    // It is as one with everything that is done to a stopped one.
    let snapshot = m1
        .snapshot(&SnapshotOptions::new(), LONG)
        .unwrap()
        .done()
        .unwrap();
    assert!(snapshot.is_subvolume());
    fs::remove_file(root.join("seven")).unwrap();
    let plain = RestoreOptions::new();
    m1.restore_snapshot("snap0", &plain, LONG)
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(owner("seven").0, 100_007);
    let m2 = m1.clone_to(name("m2"), &CloneOptions::new(), LONG);
    let m2 = m2.unwrap().done().unwrap();
    start(&m2);
    assert_eq!(sh(&m2, "id -u; busybox stat -c %u /root/seven"), "0\n7");
    stop(&m2);
    m2.destroy(LONG).unwrap().done().unwrap();
    let m3 = m1.rename(name("m3"), LONG).unwrap().done().unwrap();
    start(&m3);
    stop(&m3);
    m3.destroy_with_snapshots(LONG).unwrap().done().unwrap();

    refusals(&store);
}

/// Looks at a running container from both sides: its init, and a file that it makes.
fn root_is_nobody_outside(container: &Container) {
    let made = "id -u; echo x >/tmp/made; busybox stat -c %u /tmp/made";
    assert_eq!(sh(container, made), "0\n0");
    let init = container.init_pid().unwrap().unwrap();
    let rootfs = container.rootfs().unwrap().unwrap().path;
    for outside in [format!("/proc/{init}").into(), rootfs.join("tmp/made")] {
        assert_eq!(fs::metadata(outside).unwrap().uid(), 100_000);
    }
}

/// What liblxc lets run as it should not, or refuses without saying why.
fn refusals(store: &LxcPath) {
    let error = |spec| Container::create(store, spec, LONG).unwrap_err();
    for ids in ["u 0 many", "b 0 100000 65536"] {
        let bad = error(mapped("m1").config("lxc.idmap", ids));
        assert_eq!(bad.kind(), ErrorKind::ConfigRejected, "{bad}");
        assert!(bad.to_string().contains(ids), "{bad}");
    }
    let strange = |rootfs: &Path| {
        minimal(rootfs)?;
        lchown(rootfs.join("root"), Some(70_000), Some(0))
    };
    let bad = error(mapped("m1").populate(strange));
    assert_eq!(bad.kind(), ErrorKind::Populate, "{bad}");
    assert!(bad.to_string().contains("rootfs/root: ") && bad.to_string().contains("70000"));
    assert_eq!(fs::read_dir(store.as_path()).unwrap().count(), 0);

    // A tree whose owner is nobody inside.
    let m1 = create(store, "m1");
    let text = fs::read_to_string(m1.config_file()).unwrap();
    let [users, groups] = IDS.map(|ids| format!("lxc.idmap = {ids}\n"));
    let configured = |more: &str| {
        fs::write(m1.config_file(), format!("{text}{users}{groups}{more}")).unwrap();
        Container::open(store, "m1").unwrap()
    };
    let foreign = configured("");
    let error = foreign.start(&StartOptions::new(), LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotMapped, "{error}");
    assert!(error.to_string().contains("belongs to user 0"), "{error}");
    let options = StartOptions::new().foreign_rootfs();
    foreign.start(&options, LONG).unwrap().done().unwrap();
    assert_eq!(
        sh(
            &foreign,
            "busybox stat -c %u /; echo x 2>&- >/tmp/made || echo no"
        ),
        "65534\nno"
    );
    stop(&foreign);
    // liblxc maps ids of a mount for directories only.
    let options = "lxc.rootfs.options = idmap=container\n";
    let error = configured(options)
        .start(&StartOptions::new(), LONG)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongDriver, "{error}");
    assert!(
        error.to_string().contains("driver dir only, not for btrfs"),
        "{error}"
    );
    m1.destroy(LONG).unwrap().done().unwrap();
}

/// Somebody who is not root, and has a directory and ids of their own.
const KEEPER: u32 = 1000;

/// Sets up what the administrator has to, and lets a program of that user do
/// the rest.
#[test]
#[ignore = "runs inside a node"]
fn inner_by_a_user() {
    let place = store("keeper");
    let (runtime, cgroup) = ("/run/user/1000", "/sys/fs/cgroup/keeper");
    let append = |file: &str, line: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        if !text.contains(line) {
            fs::write(file, text + line + "\n").unwrap();
        }
    };
    append("/etc/passwd", "keeper:x:1000:1000::/run/user/1000:/bin/sh");
    append("/etc/group", "keeper:x:1000:");
    for ids in ["/etc/subuid", "/etc/subgid"] {
        fs::write(ids, "keeper:100000:65536\n").unwrap();
    }
    // Who unpacked the packages of a node may have been nobody special.
    for program in ["/usr/bin/newuidmap", "/usr/bin/newgidmap"] {
        lchown(program, Some(0), Some(0)).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o4755)).unwrap();
    }
    fs::create_dir_all(runtime).unwrap();
    fs::create_dir_all(cgroup).unwrap();
    // With the controllers that other tests have turned on come more files.
    let delegated = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    for file in [""].into_iter().chain(delegated.lines()) {
        let file = Path::new(cgroup).join(file);
        if file.exists() {
            lchown(file, Some(KEEPER), Some(KEEPER)).unwrap();
        }
    }
    for dir in [Path::new(runtime), place.as_path()] {
        lchown(dir, Some(KEEPER), Some(KEEPER)).unwrap();
    }
    let remount = |option: &str| {
        let option = format!("remount,{option}");
        let mounted = mounted();
        let mounted = mounted.to_str().unwrap();
        assert_eq!(oracle("mount", &["-o", &option, mounted]), "");
    };
    let own = std::process::id().to_string();
    let as_keeper = |test: &str, path: &str| {
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--include-ignored", "--nocapture"])
            .env("LXC_RS_STORE", place.as_path())
            .env("HOME", runtime)
            .env("PATH", path)
            .env("XDG_RUNTIME_DIR", runtime)
            .uid(KEEPER)
            .gid(KEEPER)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        let wrong = String::from_utf8_lossy(&ran.stderr);
        println!("{said}{wrong}");
        assert!(ran.status.success() && said.contains("1 passed"), "{test}");
    };
    // A tree as it comes from a distribution: of root, and of others.
    let image = Path::new("/srv/images/keeper");
    let _ = fs::remove_dir_all(image);
    fs::create_dir_all(image).unwrap();
    furnish_simply(image).unwrap();
    let root = image.join("root");
    lchown(root.join("seven"), Some(7), Some(8)).unwrap();
    lchown(root.join("own"), Some(KEEPER), Some(KEEPER)).unwrap();

    let usual = "/usr/sbin:/usr/bin:/sbin:/bin";
    as_keeper("unprivileged::inner_keeper_without_programs", "/nowhere");
    as_keeper("unprivileged::inner_keeper_refused", usual);
    let _ = fs::remove_dir_all(place.as_path().join("m1"));
    fs::write(format!("{cgroup}/cgroup.procs"), &own).unwrap();
    remount("user_subvol_rm_allowed");
    as_keeper("unprivileged::inner_keeper", usual);
    fs::write("/sys/fs/cgroup/cgroup.procs", &own).unwrap();
}

/// Files that show owners: one that sets the user, one of two names.
fn furnish_simply(rootfs: &Path) -> std::io::Result<()> {
    minimal(rootfs)?;
    let root = rootfs.join("root");
    for file in ["su", "seven", "own"] {
        fs::copy("/bin/busybox", root.join(file))?;
    }
    fs::hard_link(root.join("seven"), root.join("second"))?;
    fs::set_permissions(root.join("su"), fs::Permissions::from_mode(0o4755))
}

/// Without what the administrator has to set up, each is said by name.
#[test]
#[ignore = "runs inside a node"]
fn inner_keeper_refused() {
    let store = LxcPath::new(std::env::var_os("LXC_RS_STORE").unwrap()).unwrap();
    let error = |spec| Container::create(&store, spec, LONG).unwrap_err();
    let bad = error(spec(&name("m1")));
    assert_eq!(bad.kind(), ErrorKind::NotMapped, "{bad}");
    assert!(bad.to_string().contains("/etc/subuid"), "{bad}");
    let ids = ["u 0 300000 65536", "g 0 300000 65536"];
    let others = ids.iter().fold(spec(&name("m1")), |spec, ids| {
        spec.config("lxc.idmap", *ids)
    });
    let bad = error(others);
    let why = "uid range [0-1) -> [300000-300001) not allowed";
    assert!(bad.to_string().contains(why), "{bad}");
    assert_eq!(fs::read_dir(store.as_path()).unwrap().count(), 0);
    let m1 = Container::create(&store, mapped("m1"), LONG);
    let bad = m1.unwrap().done().unwrap().destroy(LONG).unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::NoPermission, "{bad}");
    assert!(bad.to_string().contains("user_subvol_rm_allowed"), "{bad}");
}

#[test]
#[ignore = "runs inside a node"]
fn inner_keeper_without_programs() {
    let store = LxcPath::new(std::env::var_os("LXC_RS_STORE").unwrap()).unwrap();
    let bad = Container::create(&store, mapped("m1"), LONG).unwrap_err();
    assert!(
        bad.to_string().contains("newuidmap binary is missing"),
        "{bad}"
    );
    assert_eq!(fs::read_dir(store.as_path()).unwrap().count(), 0);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_keeper() {
    assert_eq!(nix::unistd::geteuid().as_raw(), KEEPER);
    let store = LxcPath::new(std::env::var_os("LXC_RS_STORE").unwrap()).unwrap();
    let owner = |container: &Container, file: &str| {
        let meta = fs::symlink_metadata(container.dir().join("rootfs/root").join(file)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    let root = (100_000, 100_000, 0o755);
    let tree = mapped("m2").tree("/srv/images/keeper");
    let tree = tree.populate(|_: &Path| std::io::Result::Ok(()));
    let m2 = Container::create(&store, tree, LONG);
    let m2 = m2.unwrap().done().unwrap();
    for file in ["seven", "second"] {
        assert_eq!(owner(&m2, file), (100_007, 100_008, 0o755));
    }
    assert_eq!(owner(&m2, "own"), root);
    assert_eq!(owner(&m2, "su"), (100_000, 100_000, 0o4755));
    m2.destroy(LONG).unwrap().done().unwrap();

    let made = Container::create(&store, mapped("m1").populate(furnish_simply), LONG);
    let m1 = made.unwrap().done().unwrap();
    assert_eq!(owner(&m1, "seven"), root);
    assert_eq!(m1.config_list("lxc.idmap").unwrap(), IDS);
    let rootfs = m1.rootfs().unwrap().unwrap();
    assert!(rootfs.is_subvolume() && !rootfs.loses_btrfs());
    start(&m1);
    root_is_nobody_outside(&m1);
    let init = m1.init_pid().unwrap().unwrap();
    let cgroup = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    assert!(cgroup.contains("/keeper/lxc.payload.m1"), "{cgroup}");
    m1.freeze(LONG).unwrap().done().unwrap();
    assert_eq!(m1.state().unwrap(), State::Frozen);
    m1.unfreeze(LONG).unwrap().done().unwrap();
    stop(&m1);
    let snapshot = m1.snapshot(&SnapshotOptions::new(), LONG);
    assert!(snapshot.unwrap().done().unwrap().is_subvolume());
    let m3 = m1.clone_to(name("m3"), &CloneOptions::new(), LONG);
    let m3 = m3.unwrap().done().unwrap();
    assert_eq!(owner(&m3, "seven"), root);
    m3.destroy(LONG).unwrap().done().unwrap();
    let m4 = m1.rename(name("m4"), LONG).unwrap().done().unwrap();
    let plain = RestoreOptions::new();
    let bad = m4.restore_snapshot("snap0", &plain, LONG).unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::NoPermission, "{bad}");
    let options = CloneOptions::new();
    let m5 = m4.restore_snapshot_as("snap0", name("m5"), &options, LONG);
    let m5 = m5.unwrap().done().unwrap();
    assert_eq!(owner(&m5, "seven"), root);
    m5.destroy(LONG).unwrap().done().unwrap();
    m4.destroy_with_snapshots(LONG).unwrap().done().unwrap();
    assert_eq!(fs::read_dir(store.as_path()).unwrap().count(), 0);
}
