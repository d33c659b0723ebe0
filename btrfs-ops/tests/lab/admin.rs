//! What an administrator does to a whole file system.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use btrfs_ops::{
    Access, Alarm, BalanceFilter, Bytes, Capabilities, ErrorKind, HealthProbe, QgroupId, Size,
    SubvolId, Subvolume, assign_qgroup, balance, balance_cancel, balance_resume, balance_status,
    create_qgroup, default_subvolume, delete, devices, disable_quotas, enable_quotas, limit_qgroup,
    qgroups, quota_rescan_runs, remove_qgroup, rescan_quotas, resize, scrub, scrub_all,
    scrub_cancel, scrub_status, set_default_subvolume, space, sync,
};

use crate::common::{self, DEVICE, Store, as_nobody, run, until};

#[test]
fn on_a_node() {
    common::run_on_node(
        "btrfs-admin",
        &["1G"],
        &[
            "admin::resizing",
            "admin::maintenance",
            "admin::quotas",
            "admin::health",
            "group::groups",
            "group::nested",
            "group::exchanged",
        ],
    );
}

fn number(store: &Store, key: &str) -> u64 {
    let text = run(Command::new("btrfs")
        .args(["filesystem", "usage", "-b"])
        .arg(&store.path));
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .find(|line| line.trim().starts_with(key))
        .unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
#[ignore = "runs inside a node"]
fn resizing() {
    let store = Store::new("resize", &["-b", "300M"], "");
    let root = store.root();
    let whole = File::open(DEVICE).unwrap();
    let disk = 1 << 30;
    let grown = resize(&root, 1, Size::Max).unwrap();
    assert_eq!((grown.before.0, grown.after.0), (300 << 20, disk));
    assert_eq!(number(&store, "Device size:"), disk);
    drop(whole);
    let again = resize(&root, 1, Size::Max).unwrap();
    assert_eq!(again.before, again.after);

    let size = Bytes(512 << 20);
    let shrunk = resize(&root, 1, Size::Bytes(size)).unwrap();
    assert_eq!((shrunk.before.0, shrunk.after), (disk, size));
    assert_eq!(devices(&root).unwrap()[0].total, size);
    assert_eq!(number(&store, "Device size:"), size.0);
    resize(&root, 1, Size::Bytes(size)).unwrap();

    for (devid, size, kind) in [
        (1, Size::Bytes(Bytes(disk + 4096)), ErrorKind::InvalidSize),
        (1, Size::Bytes(Bytes(1 << 20)), ErrorKind::InvalidSize),
        (7, Size::Max, ErrorKind::NotFound),
    ] {
        let error = resize(&root, devid, size).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("device {devid} of /mnt/resize")),
            "{text}"
        );
    }
    let error = resize(File::open("/tmp").unwrap(), 1, Size::Max).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotBtrfs, "{error}");

    // More than fits into the least size there is.
    let file = File::create(store.path.join("large")).unwrap();
    let size_of_file = 400 << 20;
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, size_of_file).unwrap();
    sync(&root).unwrap();
    let error = resize(&root, 1, Size::Bytes(Bytes(256 << 20))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(space(&root).unwrap().total, size, "as before");
    drop(root);
    as_nobody("admin::nobody_resizes");
}

#[test]
#[ignore = "runs inside a node, as nobody"]
fn nobody_resizes() {
    let error = resize(File::open("/mnt/resize").unwrap(), 1, Size::Max).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
}

#[test]
#[ignore = "runs inside a node"]
fn maintenance() {
    let store = Store::new("maintain", &[], "");
    let root = store.root();
    // The default subvolume, as btrfs-progs sees it.
    assert_eq!(default_subvolume(&root).unwrap(), SubvolId::TOP_LEVEL);
    let sub = Subvolume::create(&root, "sub").unwrap();
    set_default_subvolume(&root, sub.id().unwrap()).unwrap();
    assert_eq!(default_subvolume(&root).unwrap(), sub.id().unwrap());
    let text = run(Command::new("btrfs")
        .args(["subvolume", "get-default"])
        .arg(&store.path));
    let expected = format!("ID {} ", sub.id().unwrap());
    assert!(String::from_utf8_lossy(&text).starts_with(&expected));
    let error = delete(&root, "sub", &btrfs_ops::DeleteOptions::new()).unwrap_err();
    assert!(error.to_string().contains("default subvolume"), "{error}");
    let error = set_default_subvolume(&root, SubvolId::new(9999).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    set_default_subvolume(&root, SubvolId::TOP_LEVEL).unwrap();

    fs::write(store.path.join("data"), vec![5u8; 4 << 20]).unwrap();
    sync(&root).unwrap();
    let counters = scrub(&root, 1, true).unwrap();
    assert!(!counters.any(), "{counters:?}");
    assert!(
        counters.data.0 >= 4 << 20 && counters.metadata.0 > 0,
        "{counters:?}"
    );
    assert_eq!(scrub_all(&root, false).unwrap()[0].0, 1);
    assert_eq!(scrub_status(&root, 1).unwrap(), None);
    assert_eq!(scrub_cancel(&root).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        scrub(&root, 7, true).unwrap_err().kind(),
        ErrorKind::NotFound
    );

    assert_eq!(balance_status(&root).unwrap(), None);
    let nothing = balance(&root, &BalanceFilter::new()).unwrap();
    assert_eq!(nothing.completed, 0);
    let done = balance(&root, &BalanceFilter::new().data(100, 0)).unwrap();
    assert!(done.completed > 0 && !done.running, "{done:?}");
    assert_eq!(
        balance_cancel(&root).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        balance_resume(&root).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
#[ignore = "runs inside a node"]
fn quotas() {
    let store = Store::new("quota", &[], "");
    let root = store.root();
    assert_eq!(qgroups(&root).unwrap(), None);
    assert_eq!(
        rescan_quotas(&root).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let sub = Subvolume::create(&root, "sub").unwrap();
    fs::write(store.path.join("sub/data"), vec![5u8; 3 << 20]).unwrap();
    enable_quotas(&root, false).unwrap();
    until("the first scan", || !quota_rescan_runs(&root).unwrap());
    sync(&root).unwrap();
    let group = QgroupId {
        level: 1,
        number: 7,
    };
    create_qgroup(&root, group).unwrap();
    assert_eq!(
        create_qgroup(&root, group).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let own = QgroupId::from(sub.id().unwrap());
    if assign_qgroup(&root, own, group, true).unwrap() {
        rescan_quotas(&root).unwrap();
        until("a scan", || !quota_rescan_runs(&root).unwrap());
    }
    limit_qgroup(&root, group, Some(Bytes(4 << 20)), None).unwrap();
    sync(&root).unwrap();
    let all = qgroups(&root).unwrap().unwrap();
    let find = |id| *all.iter().find(|group| group.id == id).unwrap();
    assert!(find(own).referenced.0 >= 3 << 20, "{all:?}");
    assert_eq!(find(group).referenced, find(own).referenced);
    assert_eq!(find(group).max_referenced, Some(Bytes(4 << 20)));
    assert_eq!(find(group).max_exclusive, None);
    // The same numbers as btrfs-progs has.
    let text = run(Command::new("btrfs")
        .args(["qgroup", "show", "--raw", "-r"])
        .arg(&store.path));
    let text = String::from_utf8_lossy(&text).into_owned();
    for group in &all {
        let expected = [
            group.id.to_string(),
            group.referenced.to_string(),
            group.exclusive.to_string(),
        ];
        let line = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(&expected[0]));
        let line: Vec<_> = line.unwrap().split_whitespace().take(3).collect();
        assert_eq!(line, expected);
    }
    let full = fs::write(store.path.join("sub/more"), vec![5u8; 3 << 20])
        .and_then(|()| File::open(store.path.join("sub/more"))?.sync_all());
    assert_eq!(full.unwrap_err().raw_os_error(), Some(libc::EDQUOT));
    // Members from their beginning; the sums are to be scanned anew then.
    let root_of = |path: &str| Subvolume::open(store.path.join(path)).unwrap();
    sub.snapshot_in_qgroups(&root, "member", Access::ReadOnly, &[group])
        .unwrap();
    Subvolume::create_in_qgroups(&root, "empty", &[group]).unwrap();
    let text = run(Command::new("btrfs")
        .args(["qgroup", "show", "-p"])
        .arg(&store.path));
    let text = String::from_utf8_lossy(&text).into_owned();
    for name in ["member", "empty"] {
        let own = QgroupId::from(root_of(name).id().unwrap()).to_string();
        let line = text.lines().find(|line| line.starts_with(&own)).unwrap();
        assert!(line.contains("1/7"), "{line}");
    }
    assert_eq!(
        remove_qgroup(&root, group).unwrap_err().kind(),
        ErrorKind::Busy
    );
    for name in ["sub", "member", "empty"] {
        let own = QgroupId::from(root_of(name).id().unwrap());
        assign_qgroup(&root, own, group, false).unwrap();
    }
    remove_qgroup(&root, group).unwrap();
    disable_quotas(&root).unwrap();
    assert_eq!(qgroups(&root).unwrap(), None);
}

#[test]
#[ignore = "runs inside a node"]
fn health() {
    let mut store = Store::new("health", &[], "");
    let root = store.root();
    let marker = b"find this block of content on the device".repeat(2000);
    fs::write(store.path.join("data"), &marker).unwrap();
    sync(&root).unwrap();
    let mut probe = HealthProbe::new(&store.path).unwrap();
    let fine = probe.look().unwrap();
    assert_eq!(fine.alarms, []);
    assert!(!fine.read_only && fine.exclusive_operation.is_none());
    assert_eq!(fine.space, space(&root).unwrap());
    let capabilities = Capabilities::probe(&root).unwrap();
    assert!(capabilities.tree_search && capabilities.send_version >= 1);

    // Nothing is held between two looks. Content that rots is counted.
    drop(root);
    let path = store.mounts.pop().unwrap();
    nix::mount::umount(&path).unwrap();
    let device = File::options().read(true).write(true).open(DEVICE).unwrap();
    let mut block = vec![0; 4096];
    let mut at = 0;
    loop {
        device
            .read_exact_at(&mut block, at)
            .expect("the content is on the device");
        if block.starts_with(&marker[..40]) {
            break;
        }
        at += 4096;
    }
    device.write_all_at(b"rotten", at).unwrap();
    device.sync_all().unwrap();
    drop(device);
    store.mount(&path, "");
    assert!(fs::read(store.path.join("data")).is_err());
    let rotten = probe.look().unwrap();
    assert_eq!(rotten.alarms, [Alarm::DeviceErrors(1)]);
    assert!(rotten.new_errors[&1] > 0 && rotten.counters[0].corruption_errors > 0);
    let again = probe.look().unwrap();
    assert_eq!(again.alarms, [], "told once");
    let counters = scrub(store.root(), 1, true).unwrap();
    assert!(counters.any() && counters.csum_errors > 0, "{counters:?}");

    // Read-only from now on.
    nix::mount::mount(
        None::<&str>,
        &path,
        None::<&str>,
        nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .unwrap();
    let flipped = probe.look().unwrap();
    assert!(flipped.read_only && flipped.alarms.contains(&Alarm::BecameReadOnly));
    let error = HealthProbe::new("/tmp").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotBtrfs, "{error}");
}
