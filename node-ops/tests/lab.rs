#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
//! On nodes of the lab: real mounts, links and modules.
//!
//! The tests marked "runs inside a node" are run there by the others.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use node_ops::holders::{self, By, Holder, ProcessHolder, Relation};
use node_ops::links::{self, MacAddress};
use node_ops::mounts::{
    self, Fsid, MountOptions, Overwrite, find_btrfs, mkfs_btrfs, mount_btrfs, unmount,
};
use node_ops::{ErrorKind, Outcome, arp, host, modules, netns, process};
use uml_lab::{Lab, Node};

const DEVICE: &str = "/dev/ubda";
const SECOND: &str = "/dev/ubdb";
const DEADLINE: Duration = Duration::from_secs(60);

fn run_all(node: Node, tests: &[&str]) {
    // Generous: the machine may be busy with other labs.
    let run = |test: &&str| {
        node.run_test_with(test, |command| command.deadline(Duration::from_secs(300)))
            .err()
    };
    let failed: Vec<_> = tests.iter().filter_map(run).collect();
    for error in &failed {
        eprintln!("{error}");
    }
    assert!(
        failed.is_empty(),
        "{} of {} tests failed",
        failed.len(),
        tests.len()
    );
}

#[test]
fn mounts_and_holders() {
    let lab = Lab::builder()
        .name("node-ops-mounts")
        .packages(["btrfs-progs", "busybox-static"])
        .node("node1", |n| n.disk("256M").disk("256M"))
        .start()
        .unwrap();
    let tests = [
        "making_a_file_system",
        "mounting",
        "refused_mounts",
        "same_uuid_on_two_devices",
        "processes_keep_a_mount",
        "mounts_keep_a_file_system",
        "devices_and_swap_keep_a_file_system",
        "a_device_is_held",
        "a_cgroup",
    ];
    run_all(lab.node("node1"), &tests);
}

#[test]
fn on_drbd() {
    let lab = Lab::builder()
        .name("node-ops-drbd")
        .packages(["drbd-utils", "btrfs-progs"])
        .node("node1", |n| n.disk("256M"))
        .wire("repl", |w| w.port("node1", "10.0.254.1/30"))
        .start()
        .unwrap();
    run_all(lab.node("node1"), &["a_drbd_device"]);
}

#[test]
fn module_loading() {
    let lab = Lab::builder()
        .name("node-ops-modules")
        .node("node1", |n| n)
        .start()
        .unwrap();
    run_all(
        lab.node("node1"),
        &["loading_drbd", "no_such_module", "without_an_index"],
    );
}

#[test]
fn links_and_arp() {
    let lab = Lab::builder()
        .name("node-ops-links")
        .node("node1", |n| n)
        .node("client", |n| n)
        .wire("service", |w| {
            w.port("node1", "").port("client", "10.1.0.3/24")
        })
        .start()
        .unwrap();
    let (node, client) = (lab.node("node1"), lab.node("client"));
    node.run_test("making_links").unwrap();
    let script = "echo $$ > /run/container.pid; exec sleep 100000";
    let _container = node
        .spawn(["unshare", "--net", "sh", "-c", script])
        .unwrap();
    node.run_test("a_container_on_a_bridge").unwrap();
    client.run_test("the_container_answers").unwrap();
    node.run_test("announcing_from_the_bridge").unwrap();
    client.run_test("the_client_believes_the_bridge").unwrap();
    node.run_test("announcing_from_the_container").unwrap();
    client
        .run_test("the_client_believes_the_container")
        .unwrap();
}

// ---- helpers inside a node --------------------------------------------------

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {errors}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process that prints a line when it is ready; killed when this is dropped.
struct Background(Child);

impl Background {
    fn shell(script: &str) -> Self {
        Self::start(Command::new("bash").args(["-c", script]))
    }

    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut byte = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A fresh Btrfs on the first disk, mounted at /srv/NAME.
struct Store(PathBuf);

impl Store {
    fn new(name: &str) -> Self {
        wipe(DEVICE);
        mkfs_btrfs(Path::new(DEVICE), "", Overwrite::Nothing, DEADLINE).unwrap();
        let path = directory(name);
        mount_btrfs(Path::new(DEVICE), &path, &MountOptions::new()).unwrap();
        Self(path)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // After a failed test it may be busy.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn directory(name: &str) -> PathBuf {
    let path = Path::new("/srv").join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Removes what file systems are recognised by.
fn wipe(device: &str) {
    let file = fs::OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&vec![0; 1 << 20], 0).unwrap();
    // The second superblock.
    file.write_all_at(&vec![0; 4096], 64 << 20).unwrap();
    file.sync_all().unwrap();
}

// ---- mounts -----------------------------------------------------------------

#[test]
#[ignore = "runs inside a node"]
fn making_a_file_system() {
    let (device, second) = (Path::new(DEVICE), Path::new(SECOND));
    assert_eq!(find_btrfs(device).unwrap(), None);
    let made = mkfs_btrfs(device, "store one", Overwrite::Nothing, DEADLINE).unwrap();
    assert_eq!(
        (made.label.to_str(), made.total_bytes),
        (Some("store one"), 256 << 20)
    );
    assert_eq!(find_btrfs(device).unwrap(), Some(made.clone()));

    let error = mkfs_btrfs(device, "", Overwrite::Nothing, DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HasData, "{error}");
    assert!(
        error.to_string().contains(&made.fsid.to_string()),
        "{error}"
    );
    let other = Overwrite::Btrfs(Fsid::from_bytes([1; 16]));
    let error = mkfs_btrfs(device, "", other, DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HasData, "{error}");
    let error = mkfs_btrfs(second, "", other, DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongFileSystem, "{error}");
    assert_eq!(
        find_btrfs(device).unwrap(),
        Some(made.clone()),
        "nothing was changed"
    );
    let again = mkfs_btrfs(device, "", Overwrite::Btrfs(made.fsid), DEADLINE).unwrap();
    assert_ne!(again.fsid, made.fsid);
    assert_eq!(again.label, "");

    // Another file system, which only mkfs.btrfs knows.
    run(Command::new("mkfs.ext4").args(["-q", SECOND]));
    let error = mkfs_btrfs(second, "", Overwrite::Nothing, DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HasData, "{error}");
    assert!(error.to_string().contains("ext4"), "{error}");
    wipe(SECOND);

    let error = mkfs_btrfs(device, "x".repeat(256), Overwrite::Nothing, DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let error = mkfs_btrfs(Path::new("/etc/passwd"), "", Overwrite::Nothing, DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotBlockDevice, "{error}");
}

#[test]
#[ignore = "runs inside a node"]
fn mounting() {
    wipe(DEVICE);
    let device = Path::new(DEVICE);
    let made = mkfs_btrfs(device, "", Overwrite::Nothing, DEADLINE).unwrap();
    let target = directory("a target");
    let options = MountOptions::new();
    let mounted = mount_btrfs(device, &target, &options).unwrap();
    assert_eq!((mounted.outcome, mounted.fsid), (Outcome::Done, made.fsid));
    assert_eq!(
        (mounted.mount.root.as_path(), mounted.mount.fs_type.to_str()),
        (Path::new("/"), Some("btrfs"))
    );
    assert_eq!(
        (mounted.mount.source.to_str(), &mounted.mount.mount_point),
        (Some(DEVICE), &target)
    );
    assert!(!mounted.mount.is_read_only());
    fs::write(target.join("file"), "content").unwrap();
    run(Command::new("btrfs")
        .args(["subvolume", "create"])
        .arg(target.join("sub")));

    // The same again is no error, and no second mount.
    let again = mount_btrfs(device, &target, &options).unwrap();
    assert_eq!(again.outcome, Outcome::AlreadyThere);
    assert_eq!(again.mount.id, mounted.mount.id);
    for other in [
        options.clone().read_only(),
        options.clone().subvolume("sub"),
    ] {
        let error = mount_btrfs(device, &target, &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyMounted, "{error}");
        assert!(
            error
                .to_string()
                .contains("/ of btrfs /dev/ubda is mounted there"),
            "{error}"
        );
    }

    // A subvolume of it elsewhere, by a path with a link, read-only.
    symlink("/srv", "/tmp/link").unwrap();
    directory("sub");
    let link = Path::new("/tmp/link/sub");
    let read_only = options.clone().subvolume("/sub/").read_only().no_atime();
    let sub = mount_btrfs(device, link, &read_only);
    // The superblock is writable already, and Btrfs allows both.
    let sub = sub.unwrap();
    assert_eq!(sub.mount.mount_point, Path::new("/srv/sub"));
    assert_eq!(sub.mount.root, Path::new("/sub"));
    assert!(sub.mount.is_read_only() && !sub.mount.is_superblock_read_only());
    assert_eq!(
        mount_btrfs(device, link, &read_only).unwrap().outcome,
        Outcome::AlreadyThere
    );
    let rows = mounts::table().unwrap();
    let ours: Vec<_> = rows
        .iter()
        .filter(|row| row.superblock == mounted.mount.superblock)
        .collect();
    assert_eq!(ours.len(), 2);

    assert_eq!(unmount(link).unwrap(), Outcome::Done);
    assert_eq!(unmount(link).unwrap(), Outcome::AlreadyThere);
    assert_eq!(unmount(&target).unwrap(), Outcome::Done);
    assert!(!target.join("file").exists());
    assert_eq!(
        unmount(Path::new("/srv/none")).unwrap_err().kind(),
        ErrorKind::NotFound
    );

    // Options reach Btrfs, and the default subvolume does not matter.
    mount_btrfs(
        device,
        &target,
        &options.clone().option("commit", Some("7")),
    )
    .unwrap();
    let row = mounts::table()
        .unwrap()
        .into_iter()
        .find(|row| row.mount_point == target)
        .unwrap();
    assert!(
        row.super_options.to_str().unwrap().contains("commit=7"),
        "{row:?}"
    );
    let list = run(Command::new("btrfs")
        .args(["subvolume", "list"])
        .arg(&target));
    let id = list.split_whitespace().nth(1).unwrap();
    run(Command::new("btrfs")
        .args(["subvolume", "set-default", id])
        .arg(&target));
    unmount(&target).unwrap();
    mount_btrfs(device, &target, &options).unwrap();
    assert!(
        target.join("file").exists(),
        "the top level, not the default"
    );
    unmount(&target).unwrap();
    let read_only = mount_btrfs(device, &target, &options.read_only()).unwrap();
    assert!(read_only.mount.is_superblock_read_only());
    unmount(&target).unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn refused_mounts() {
    wipe(DEVICE);
    wipe(SECOND);
    let (device, second) = (Path::new(DEVICE), Path::new(SECOND));
    mkfs_btrfs(device, "store1", Overwrite::Nothing, DEADLINE).unwrap();
    let target = directory("refused");
    let options = MountOptions::new();
    let before = mounts::table().unwrap();
    let refused = |device: &Path, target: &Path, options: &MountOptions, kind, words: &str| {
        let error = mount_btrfs(device, target, options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(
            error.to_string().contains(words),
            "{words:?} is not in: {error}"
        );
    };
    use ErrorKind as K;
    refused(
        Path::new("LABEL=store1"),
        &target,
        &options,
        K::NotBlockDevice,
        "backing disk",
    );
    refused(
        Path::new("/dev/none"),
        &target,
        &options,
        K::NotFound,
        "/dev/none",
    );
    refused(
        Path::new("/dev/null"),
        &target,
        &options,
        K::NotBlockDevice,
        "/dev/null",
    );
    fs::create_dir_all("/tmp/by-uuid").unwrap();
    symlink(DEVICE, "/tmp/by-uuid/x").unwrap();
    refused(
        Path::new("/tmp/by-uuid/x"),
        &target,
        &options,
        K::NotBlockDevice,
        "UUID",
    );
    refused(
        second,
        &target,
        &options,
        K::WrongFileSystem,
        "there is no Btrfs on the device",
    );
    refused(
        device,
        Path::new("/srv/none"),
        &options,
        K::NotFound,
        "target directory does not exist",
    );
    fs::write("/tmp/file", "").unwrap();
    refused(
        device,
        Path::new("/tmp/file"),
        &options,
        K::NotDirectory,
        "/tmp/file",
    );
    refused(
        device,
        Path::new("/etc"),
        &options,
        K::NotEmpty,
        "not empty",
    );
    refused(
        device,
        Path::new("/proc"),
        &options,
        K::AlreadyMounted,
        "of proc",
    );
    refused(
        device,
        &target,
        &options.clone().subvolume("no/such"),
        K::NotFound,
        "no subvolume no/such",
    );
    refused(
        device,
        &target,
        &options.clone().subvolume("../x"),
        K::InvalidArgument,
        "..",
    );
    let wrong = options.clone().option("no_such_option", Some("1"));
    refused(device, &target, &wrong, K::Other, "os error 22");
    refused(
        device,
        &target,
        &options.clone().option("a\0b", None),
        K::InvalidArgument,
        "NUL",
    );
    assert_eq!(mounts::table().unwrap(), before, "nothing was mounted");

    fs::write(target.join("entry"), "").unwrap();
    refused(device, &target, &options, K::NotEmpty, "not empty");
    mount_btrfs(device, &target, &options.over_content()).unwrap();
    unmount(&target).unwrap();
    assert!(target.join("entry").exists());
}

/// What DRBD with internal metadata looks like: the disk below has the same
/// UUID as the device above.
#[test]
#[ignore = "runs inside a node"]
fn same_uuid_on_two_devices() {
    wipe(DEVICE);
    let (device, second) = (Path::new(DEVICE), Path::new(SECOND));
    let made = mkfs_btrfs(device, "", Overwrite::Nothing, DEADLINE).unwrap();
    run(Command::new("dd").args([
        "if=/dev/ubda",
        "of=/dev/ubdb",
        "bs=1M",
        "conv=fsync",
        "status=none",
    ]));
    assert_eq!(find_btrfs(second).unwrap().unwrap().fsid, made.fsid);
    let (one, two) = (directory("one"), directory("two"));
    let options = MountOptions::new();
    mount_btrfs(device, &one, &options).unwrap();
    let error = mount_btrfs(second, &two, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyMounted, "{error}");
    assert!(error.to_string().contains("same UUID"), "{error}");
    assert!(
        !mounts::table()
            .unwrap()
            .iter()
            .any(|row| row.mount_point == two),
        "{error}"
    );
    unmount(&one).unwrap();
    // Now it is the only one, and what is mounted is what was asked for.
    let mounted = mount_btrfs(second, &two, &options).unwrap();
    assert_eq!(mounted.mount.source.to_str(), Some(SECOND));
    unmount(&two).unwrap();
    wipe(SECOND);
}

const DRBD_CONF: &str = "\
resource r0 {
    device /dev/drbd0; disk /dev/ubda; meta-disk internal;
    on node1 { address 10.0.254.1:7788; }
    on node2 { address 10.0.254.2:7788; }
}
";

#[test]
#[ignore = "runs inside a node"]
fn a_drbd_device() {
    modules::load("drbd", &[("usermode_helper", "/bin/true")]).unwrap();
    fs::write("/etc/drbd.conf", DRBD_CONF).unwrap();
    let drbdadm = |arguments: &[&str]| run(Command::new("drbdadm").args(arguments));
    drbdadm(&["create-md", "--force", "r0"]);
    drbdadm(&["up", "r0"]);
    let (device, disk, target) = (
        Path::new("/dev/drbd0"),
        Path::new(DEVICE),
        directory("store1"),
    );
    let options = MountOptions::new();
    for error in [
        mount_btrfs(device, &target, &options).unwrap_err(),
        mkfs_btrfs(device, "", Overwrite::Nothing, DEADLINE).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
        assert!(
            error.to_string().contains("opens only as Primary"),
            "{error}"
        );
    }
    drbdadm(&["primary", "--force", "r0"]);
    let made = mkfs_btrfs(device, "store1", Overwrite::Nothing, DEADLINE).unwrap();
    let mounted = mount_btrfs(device, &target, &options).unwrap();
    assert_eq!(
        (mounted.fsid, mounted.mount.source.to_str()),
        (made.fsid, Some("/dev/drbd0"))
    );
    assert_eq!(
        mount_btrfs(device, &target, &options).unwrap().outcome,
        Outcome::AlreadyThere
    );

    // The disk below holds the same file system, and DRBD keeps it from being
    // mounted while it is up.
    assert_eq!(find_btrfs(disk).unwrap().unwrap().fsid, made.fsid);
    let error = mount_btrfs(disk, &directory("behind"), &options).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::AlreadyMounted | ErrorKind::Busy),
        "{error}"
    );
    // And what is at the target is not the disk, although it looks the same.
    let error = mount_btrfs(disk, &target, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyMounted, "{error}");

    let user = Background::shell("cd /srv/store1; echo; exec sleep 100000");
    let found = holders::of_device(device).unwrap();
    assert_eq!(
        mount_holders(&found),
        [(Relation::SameFilesystem, target.as_path(), true)]
    );
    process_holder(&found, user.pid());
    drop(user);
    until("it is idle", || unmount(&target).is_ok());
    assert_eq!(holders::of_device(device).unwrap(), []);
    drbdadm(&["secondary", "r0"]);
    drbdadm(&["down", "r0"]);
}

// ---- holders ----------------------------------------------------------------

fn process_holder(holders: &[Holder], pid: u32) -> &ProcessHolder {
    let found = holders.iter().find_map(|holder| match holder {
        Holder::Process(process) if process.pid == pid => Some(process),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("process {pid} is not among {holders:?}"))
}

#[test]
#[ignore = "runs inside a node"]
fn processes_keep_a_mount() {
    let store = Store::new("processes");
    let path = &store.0;
    run(Command::new("btrfs")
        .args(["subvolume", "create"])
        .arg(path.join("sub")));
    fs::copy("/bin/busybox", path.join("busybox")).unwrap();
    let libc = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = libc.lines().find_map(|line| {
        line.contains("/libc.so")
            .then(|| line.split_whitespace().last().unwrap())
    });
    fs::copy(libc.unwrap(), path.join("library.so")).unwrap();
    assert_eq!(holders::of_mount(path).unwrap(), []);

    let check = |process: Background, by: &[By], file: &Path| {
        let error = unmount(path).unwrap_err();
        assert_eq!(
            (error.kind(), error.raw_os_error()),
            (ErrorKind::Busy, Some(libc::EBUSY))
        );
        let [Holder::Process(holder)] = error.holders() else {
            panic!("{error}")
        };
        assert_eq!(holder.pid, process.pid());
        let uses: Vec<_> = holder.uses.iter().map(|item| item.by).collect();
        assert_eq!(uses, by, "{error}");
        assert!(
            holder.uses.iter().all(|item| item.through_this_mount),
            "{error}"
        );
        assert_eq!(holder.uses[0].path, file);
        let text = error.to_string();
        assert!(
            text.contains(&format!("held by process {} (", holder.pid)),
            "{text}"
        );
        assert!(
            mounts::table()
                .unwrap()
                .iter()
                .any(|row| row.mount_point == *path),
            "it stays"
        );
        drop(process);
        until("the process lets go", || {
            holders::of_mount(path).unwrap().is_empty()
        });
    };
    let wait = "echo; exec sleep 100000";
    // In a subvolume, which has a device number of its own.
    let sub = path.join("sub");
    check(
        Background::shell(&format!("cd {}; {wait}", sub.display())),
        &[By::WorkingDirectory],
        &sub,
    );
    let log = sub.join("log");
    check(
        Background::shell(&format!("exec 7>{}; {wait}", log.display())),
        &[By::Descriptor(7)],
        &log,
    );
    // These wait for their standard input, which is kept open.
    let script = ["sh", "-c", "echo; read _"];
    let program = path.join("busybox");
    let mut command = Command::new(&program);
    check(
        Background::start(command.args(script).stdin(Stdio::piped())),
        &[By::Executable],
        &program,
    );
    let mut command = Command::new("chroot");
    command
        .arg(path)
        .arg("/busybox")
        .args(script)
        .stdin(Stdio::piped());
    check(
        Background::start(&mut command),
        &[By::WorkingDirectory, By::RootDirectory, By::Executable],
        path,
    );
    let library = path.join("library.so");
    let mut command = Command::new("bash");
    command
        .args(["-c", "echo; read _"])
        .env("LD_PRELOAD", &library)
        .stdin(Stdio::piped());
    check(Background::start(&mut command), &[By::Mapping], &library);

    // A container's monitor is named as such.
    let title = "[lxc monitor] /srv/processes/lxc web1";
    let monitor = Background::shell(&format!(
        "cd {}; echo; exec -a '{title}' sleep 100000",
        path.display()
    ));
    until("the title is set", || {
        fs::read(format!("/proc/{}/cmdline", monitor.pid()))
            .unwrap()
            .starts_with(b"[lxc")
    });
    let error = unmount(path).unwrap_err();
    let found = process_holder(error.holders(), monitor.pid())
        .lxc_monitor
        .clone()
        .unwrap();
    assert_eq!(
        (found.lxcpath.as_path(), found.container.to_str()),
        (Path::new("/srv/processes/lxc"), Some("web1"))
    );
    assert!(
        error
            .to_string()
            .contains("monitor of LXC container web1 in /srv/processes/lxc"),
        "{error}"
    );
    drop(monitor);

    // The caller itself.
    let own = File::create(path.join("own")).unwrap();
    let error = unmount(path).unwrap_err();
    let uses = &process_holder(error.holders(), std::process::id()).uses;
    assert_eq!(uses[0].path, path.join("own"));
    drop(own);
    until("nobody is left", || {
        holders::of_mount(path).unwrap().is_empty()
    });
    assert_eq!(unmount(path).unwrap(), Outcome::Done);
}

fn mount_holders(holders: &[Holder]) -> Vec<(Relation, &Path, bool)> {
    holders
        .iter()
        .filter_map(|holder| match holder {
            Holder::Mount(m) => Some((m.relation, m.mount.mount_point.as_path(), m.own_namespace)),
            _ => None,
        })
        .collect()
}

#[test]
#[ignore = "runs inside a node"]
fn mounts_keep_a_file_system() {
    let store = Store::new("mounts");
    let path = &store.0;
    run(Command::new("btrfs")
        .args(["subvolume", "create"])
        .arg(path.join("sub")));
    fs::create_dir(path.join("dir")).unwrap();

    // Something mounted on it.
    let none = None::<&str>;
    mount(
        Some("tmpfs"),
        &path.join("dir"),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    let error = unmount(path).unwrap_err();
    assert_eq!(
        mount_holders(error.holders()),
        [(Relation::OnTop, path.join("dir").as_path(), true)]
    );
    unmount(&path.join("dir")).unwrap();

    // An overlay with a layer in it.
    for dir in ["lower", "upper", "work"] {
        fs::create_dir(path.join("dir").join(dir)).unwrap();
    }
    let merged = directory("merged");
    let p = path.display();
    let layers = format!("lowerdir={p}/dir/lower,upperdir={p}/dir/upper,workdir={p}/dir/work");
    mount(
        Some("overlay"),
        &merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(layers.as_str()),
    )
    .unwrap();
    let found = holders::of_mount(path).unwrap();
    assert_eq!(
        mount_holders(&found),
        [(Relation::OverlayLayer, merged.as_path(), true)]
    );
    unmount(&merged).unwrap();

    // Another subvolume of it: this mount can go, the device stays in use.
    let second = directory("second");
    let options = MountOptions::new().subvolume("sub");
    mount_btrfs(Path::new(DEVICE), &second, &options).unwrap();
    let user = Background::shell(&format!("cd {}; echo; exec sleep 100000", second.display()));
    let found = holders::of_mount(path).unwrap();
    assert_eq!(
        mount_holders(&found),
        [(Relation::SameFilesystem, second.as_path(), true)]
    );
    let holder = process_holder(&found, user.pid());
    assert!(!holder.uses[0].through_this_mount);
    assert!(
        found.iter().all(|holder| !holder.blocks_unmount()),
        "{found:?}"
    );
    unmount(path).unwrap();
    let found = holders::of_device(Path::new(DEVICE)).unwrap();
    assert_eq!(
        mount_holders(&found),
        [(Relation::SameFilesystem, second.as_path(), true)]
    );
    process_holder(&found, user.pid());
    mount_btrfs(Path::new(DEVICE), path, &MountOptions::new()).unwrap();
    drop(user);
    until("it is idle", || unmount(&second).is_ok());

    // A bind mount in another mount namespace, with a process in it.
    let script = format!(
        "mount --make-rprivate / && mkdir -p /srv/bound && mount --bind {p}/sub /srv/bound && \
         umount {p} && cd /srv/bound && echo && exec sleep 100000"
    );
    let other = Background::start(Command::new("unshare").args(["--mount", "bash", "-c", &script]));
    let found = holders::of_mount(path).unwrap();
    assert_eq!(
        mount_holders(&found),
        [(Relation::SameFilesystem, Path::new("/srv/bound"), false)]
    );
    let line = found[0].to_string();
    let expected = format!(
        "mount of /sub at /srv/bound in the mount namespace of process {}",
        other.pid()
    );
    assert_eq!(line, expected);
    process_holder(&found, other.pid());
    // It does not keep this mount; afterwards the device says who has it.
    unmount(path).unwrap();
    let found = holders::of_device(Path::new(DEVICE)).unwrap();
    assert_eq!(mount_holders(&found).len(), 1, "{found:?}");
    drop(other);
    until("the namespace is gone", || {
        holders::of_device(Path::new(DEVICE)).unwrap().is_empty()
    });
    mount_btrfs(Path::new(DEVICE), path, &MountOptions::new()).unwrap();
    assert_eq!(holders::of_mount(path).unwrap(), []);
}

#[test]
#[ignore = "runs inside a node"]
fn devices_and_swap_keep_a_file_system() {
    let store = Store::new("devices");
    let path = &store.0;
    modules::load("loop", &[]).unwrap();
    let image = path.join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let device = run(Command::new("losetup")
        .args(["--find", "--show"])
        .arg(&image));
    let device = Path::new(device.trim_end());
    let error = unmount(path).unwrap_err();
    let [
        Holder::Loop {
            device: found,
            backing_file,
        },
    ] = error.holders()
    else {
        panic!("{error}")
    };
    assert_eq!((found.as_path(), backing_file), (device, &image));
    run(Command::new("losetup").arg("--detach").arg(device));
    until("the loop device lets go", || {
        holders::of_mount(path).unwrap().is_empty()
    });

    let swap = path.join("swap file");
    run(Command::new("btrfs")
        .args(["filesystem", "mkswapfile", "--size", "8m"])
        .arg(&swap));
    run(Command::new("swapon").arg(&swap));
    let error = unmount(path).unwrap_err();
    assert_eq!(
        error.holders(),
        [Holder::Swap { path: swap.clone() }],
        "{error}"
    );
    run(Command::new("swapoff").arg(&swap));
    assert_eq!(unmount(path).unwrap(), Outcome::Done);
}

#[test]
#[ignore = "runs inside a node"]
fn a_device_is_held() {
    let device = Path::new(SECOND);
    assert_eq!(holders::of_device(device).unwrap(), []);
    let reader = Background::shell("exec 5</dev/ubdb; echo; exec sleep 100000");
    let found = holders::of_device(device).unwrap();
    let holder = process_holder(&found, reader.pid());
    assert_eq!(
        (holder.uses[0].by, holder.uses[0].path.as_path()),
        (By::Device(5), device)
    );
    assert_eq!(
        found[0].to_string(),
        format!("process {} (sleep): open device 5 /dev/ubdb", reader.pid())
    );
    drop(reader);
    // A loop device straight on it.
    modules::load("loop", &[]).unwrap();
    let on_top = run(Command::new("losetup").args(["--find", "--show", SECOND]));
    let found = holders::of_device(device).unwrap();
    assert!(
        matches!(&found[..], [Holder::Loop { backing_file, .. }] if backing_file == device),
        "{found:?}"
    );
    run(Command::new("losetup").args(["--detach", on_top.trim_end()]));
    let error = holders::of_device(Path::new("/dev/none")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
#[ignore = "runs inside a node"]
fn a_cgroup() {
    let group = Path::new("/sys/fs/cgroup/test-group");
    fs::create_dir_all(group.join("inner")).unwrap();
    assert_eq!(process::processes_in_cgroup(group).unwrap(), []);
    let processes: Vec<_> = ["", "inner"]
        .iter()
        .map(|sub| {
            let process = Background::shell("echo; exec sleep 100000");
            let procs = group.join(sub).join("cgroup.procs");
            fs::write(procs, process.pid().to_string()).unwrap();
            process
        })
        .collect();
    let mut pids: Vec<_> = processes.iter().map(Background::pid).collect();
    pids.sort_unstable();
    assert_eq!(process::processes_in_cgroup(group).unwrap(), pids);
    let held = process::Process::open(pids[0]).unwrap();
    drop(processes);
    assert!(held.wait(DEADLINE).unwrap());
    until("the group is empty", || {
        process::processes_in_cgroup(group).unwrap().is_empty()
    });
    fs::remove_dir(group.join("inner")).unwrap();
    fs::remove_dir(group).unwrap();
    assert_eq!(process::processes_in_cgroup(group).unwrap(), []);
    assert_eq!(host::hostname().unwrap(), "node1");
}

// ---- modules ------------------------------------------------------------------

#[test]
#[ignore = "runs inside a node"]
fn loading_drbd() {
    assert!(!modules::is_loaded("drbd").unwrap());
    let error = modules::parameter("drbd", "usermode_helper").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("the module is not loaded"),
        "{error}"
    );

    let error = modules::load("drbd", &[("minor_count", "no number")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(!modules::is_loaded("drbd").unwrap());

    let parameters = [("usermode_helper", "/bin/true"), ("minor_count", "4")];
    assert_eq!(modules::load("drbd", &parameters).unwrap(), Outcome::Done);
    assert!(modules::is_loaded("drbd").unwrap());
    assert!(modules::is_loaded("lru_cache").unwrap() && modules::is_loaded("lru-cache").unwrap());
    assert_eq!(
        modules::parameter("drbd", "usermode_helper").unwrap(),
        "/bin/true"
    );
    assert_eq!(modules::parameter("drbd", "minor_count").unwrap(), "4");
    assert!(
        run(&mut Command::new("lsmod"))
            .lines()
            .any(|line| line.starts_with("drbd "))
    );
    // Not applied to a loaded one.
    let other = [("usermode_helper", "/bin/false")];
    assert_eq!(
        modules::load("drbd", &other).unwrap(),
        Outcome::AlreadyThere
    );
    assert_eq!(
        modules::parameter("drbd", "usermode_helper").unwrap(),
        "/bin/true"
    );
    modules::set_parameter("drbd", "usermode_helper", "/bin/false").unwrap();
    assert_eq!(
        modules::parameter("drbd", "usermode_helper").unwrap(),
        "/bin/false"
    );
    let error = modules::set_parameter("drbd", "no_such", "1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    // Part of the kernel image.
    assert!(modules::is_loaded("btrfs").unwrap());
    assert_eq!(modules::load("btrfs", &[]).unwrap(), Outcome::AlreadyThere);
}

#[test]
#[ignore = "runs inside a node"]
fn no_such_module() {
    let error = modules::load("no_such-module", &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModuleNotFound);
    let release = host::kernel_release().unwrap();
    let text = error.to_string();
    assert_eq!(
        text,
        format!(
            "load module no_such_module: kernel {release} has no module of this name: it is not \
             in /lib/modules/{release}/modules.dep"
        )
    );
    let error = modules::load("../drbd", &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);

    // As nobody.
    let exe = std::env::current_exe().unwrap();
    let arguments = [
        "--exact",
        "loading_as_nobody",
        "--include-ignored",
        "--nocapture",
    ];
    let output = Command::new(exe)
        .args(arguments)
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "runs inside a node, as nobody"]
fn loading_as_nobody() {
    let error = modules::load("nlmon", &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    assert!(error.to_string().contains("nlmon"), "{error}");
}

#[test]
#[ignore = "runs inside a node"]
fn without_an_index() {
    let release = host::kernel_release().unwrap();
    let real = Path::new("/lib/modules").join(&release);
    let copy = Path::new("/tmp/modules")
        .join(&release)
        .join("kernel/some/where");
    fs::create_dir_all(&copy).unwrap();
    let index = fs::read_to_string(real.join("modules.dep")).unwrap();
    let line = index
        .lines()
        .find(|line| line.contains("/bridge.ko:"))
        .unwrap();
    for file in line.split([':', ' ']).filter(|file| !file.is_empty()) {
        let file = Path::new(file);
        fs::copy(real.join(file), copy.join(file.file_name().unwrap())).unwrap();
    }
    let none = None::<&str>;
    mount(
        Some("/tmp/modules"),
        "/lib/modules",
        none,
        MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    assert!(!modules::is_loaded("bridge").unwrap());
    assert_eq!(modules::load("bridge", &[]).unwrap(), Outcome::Done);
    assert!(modules::is_loaded("llc").unwrap());
    let error = modules::load("veth", &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModuleNotFound);
    assert!(
        error
            .to_string()
            .ends_with(&format!("it is not in /lib/modules/{release}")),
        "{error}"
    );
    umount2("/lib/modules", MntFlags::empty()).unwrap();
}

// ---- links and ARP --------------------------------------------------------------

const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 20);
const CONTAINER_MAC: MacAddress = MacAddress::new([0x00, 0x16, 0x3e, 0, 0, 0x14]);
const OTHER_MAC: MacAddress = MacAddress::new([0x00, 0x16, 0x3e, 0, 0, 0x99]);

#[test]
#[ignore = "runs inside a node"]
fn making_links() {
    modules::load("bridge", &[]).unwrap();
    modules::load("veth", &[]).unwrap();
    let done = Outcome::Done;
    let there = Outcome::AlreadyThere;
    for expected in [done, there] {
        assert_eq!(links::create_bridge("br1").unwrap(), expected);
        assert_eq!(links::create_veth("va", "vb", None).unwrap(), expected);
        assert_eq!(links::add_port("br1", "va").unwrap(), expected);
        assert_eq!(
            links::add_address("br1", "10.9.0.1/24".parse().unwrap()).unwrap(),
            expected
        );
        assert_eq!(
            links::add_address("br1", "fd00::1/64".parse().unwrap()).unwrap(),
            expected
        );
        assert_eq!(links::set_mac("vb", OTHER_MAC).unwrap(), expected);
        for name in ["va", "vb", "br1"] {
            assert_eq!(links::set_up(name).unwrap(), expected);
        }
    }
    let bridge = links::link("br1").unwrap();
    let (va, vb) = (links::link("va").unwrap(), links::link("vb").unwrap());
    assert_eq!(
        (bridge.kind.as_deref(), bridge.master),
        (Some("bridge"), None)
    );
    assert_eq!(
        (va.kind.as_deref(), va.master),
        (Some("veth"), Some(bridge.index))
    );
    assert_eq!((va.peer, vb.peer), (Some(vb.index), Some(va.index)));
    assert_eq!((vb.mac, vb.mtu, vb.up), (Some(OTHER_MAC), Some(1500), true));
    let addresses: Vec<_> = bridge.addresses.iter().map(ToString::to_string).collect();
    assert!(addresses.contains(&"10.9.0.1/24".into()) && addresses.contains(&"fd00::1/64".into()));
    // The kernel's own view, by another way.
    assert!(Path::new("/sys/class/net/br1/brif/va").exists());
    assert_eq!(
        fs::read_to_string("/sys/class/net/vb/address")
            .unwrap()
            .trim(),
        OTHER_MAC.to_string()
    );

    let error = links::create_bridge("va").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("veth link"), "{error}");
    let error = links::create_veth("va", "vc", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    links::create_bridge("br2").unwrap();
    let error = links::add_port("br2", "va").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    for error in [
        links::add_port("br1", "none").unwrap_err(),
        links::add_port("none", "va").unwrap_err(),
        links::set_up("none").unwrap_err(),
        links::create_veth("x", "y", Some(u32::MAX)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }

    let address = "10.9.0.1/24".parse().unwrap();
    for expected in [done, there] {
        assert_eq!(links::delete_address("br1", address).unwrap(), expected);
        assert_eq!(links::remove_port("va").unwrap(), expected);
        assert_eq!(links::set_down("va").unwrap(), expected);
    }
    for expected in [done, there] {
        for name in ["va", "br1", "br2"] {
            assert_eq!(links::delete_link(name).unwrap(), expected);
        }
    }
    let names: Vec<_> = links::list()
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect();
    assert!(
        ["va", "vb", "br1", "br2"]
            .iter()
            .all(|gone| !names.contains(&(*gone).into()))
    );
    let error = links::delete_link("lo").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

fn container() -> u32 {
    until("the container's namespace is there", || {
        fs::read_to_string("/run/container.pid").is_ok_and(|pid| pid.ends_with('\n'))
    });
    fs::read_to_string("/run/container.pid")
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[test]
#[ignore = "runs inside a node"]
fn a_container_on_a_bridge() {
    let pid = container();
    links::create_bridge("br0").unwrap();
    links::add_port("br0", "vec0").unwrap();
    links::create_veth("veth0", "eth0", Some(pid)).unwrap();
    links::add_port("br0", "veth0").unwrap();
    for name in ["vec0", "veth0", "br0"] {
        links::set_up(name).unwrap();
    }
    netns::in_network_namespace_of(pid, || {
        links::set_mac("eth0", CONTAINER_MAC).unwrap();
        links::add_address("eth0", "10.1.0.20/24".parse().unwrap()).unwrap();
        links::set_up("eth0").unwrap();
        assert!(links::link("br0").is_err(), "not in this namespace");
    })
    .unwrap();
    assert!(
        links::link("eth0").is_err(),
        "this thread has stayed where it was"
    );
    let error = netns::in_network_namespace_of(u32::MAX, || ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// The MAC of the container in the neighbour table.
fn neighbour() -> Option<String> {
    let table = fs::read_to_string("/proc/net/arp").unwrap();
    let row = table.lines().find(|line| line.starts_with("10.1.0.20 "))?;
    row.split_whitespace().nth(3).map(str::to_owned)
}

#[test]
#[ignore = "runs inside a node"]
fn the_container_answers() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    until("the container's MAC is known", || {
        // Refused by the container, or not answered yet.
        let _ = socket.send_to(b"x", (CONTAINER, 9));
        neighbour() == Some(CONTAINER_MAC.to_string())
    });
}

#[test]
#[ignore = "runs inside a node"]
fn announcing_from_the_bridge() {
    arp::announce("br0", CONTAINER, OTHER_MAC, 3).unwrap();
    links::create_bridge("br9").unwrap();
    let error = arp::announce("br9", CONTAINER, OTHER_MAC, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
    links::delete_link("br9").unwrap();
    std::io::stdout().flush().unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn the_client_believes_the_bridge() {
    until("the announcement is heard", || {
        neighbour() == Some(OTHER_MAC.to_string())
    });
}

#[test]
#[ignore = "runs inside a node"]
fn announcing_from_the_container() {
    let announce = || arp::announce("eth0", CONTAINER, CONTAINER_MAC, 3);
    netns::in_network_namespace_of(container(), announce)
        .unwrap()
        .unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn the_client_believes_the_container() {
    until("the announcement is heard", || {
        neighbour() == Some(CONTAINER_MAC.to_string())
    });
}
