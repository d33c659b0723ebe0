//! Disks that fail and file systems that are full: errors that say so, nothing
//! half made, and no harm to what was there.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;

use btrfs_ops::{
    Access, Alarm, BlockGroupKind, DeleteOptions, Error, ErrorKind, HealthProbe, ReceiveOptions,
    Scope, SendOptions, Subvolume, delete, delete_nested, exchange, list, partial_receives,
    receive, space, sync,
};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MsFlags, mount, umount};
use uml_lab::{Disk, DiskFault, Lab};

use crate::common::{DEADLINE, DEVICE, SECOND, Store, run};
use crate::tree::{Tree, assert_same, describe};

const STREAM: &str = "/tmp/stream";
const AT: &str = "/mnt/failing";
/// Content that can be found on the disk.
const MARKER: &[u8] = b"a block of content that will not be read again. ";

#[test]
fn on_a_node() {
    let lab = Lab::builder()
        .name("btrfs-faults")
        .packages(["btrfs-progs"])
        .node("node1", |n| n.disk(Disk::new("300M").faults()).disk("300M"))
        .start_for_test();
    let Some(lab) = lab else { return };
    let node = lab.node("node1");
    let step = |test: &str| {
        let test = format!("faults::{test}");
        node.run_test_with(&test, |command| command.deadline(DEADLINE))
            .unwrap();
    };
    let disk = node.disk(0);
    step("prepare");
    disk.inject(DiskFault::FailWrites).unwrap();
    step("writes_fail");
    disk.heal().unwrap();
    step("as_before");
    step("prepare");
    disk.inject(DiskFault::Fail).unwrap();
    step("all_fails");
    disk.heal().unwrap();
    step("as_before");
    step("prepare");
    let image = fs::read(node.disk_path(0)).unwrap();
    let mut blocks = image.chunks(4096);
    let bad = blocks.position(|block| block.starts_with(MARKER)).unwrap() as u64 * 4096;
    disk.inject_at(bad..bad + 4096, DiskFault::Fail).unwrap();
    step("a_block_fails");
    disk.heal().unwrap();
    step("as_before");
    step("metadata_is_full");
    step("data_is_full");
    step("read_only");
}

fn mount_it(device: &str, flags: MsFlags) -> Subvolume {
    fs::create_dir_all(AT).unwrap();
    mount(Some(device), AT, Some("btrfs"), flags, None::<&str>).unwrap();
    Subvolume::open(AT).unwrap()
}

fn at(name: &str) -> std::path::PathBuf {
    Path::new(AT).join(name)
}

/// A file system with something in it, nothing of it in the cache, and a stream
/// that makes another subvolume.
#[test]
#[ignore = "runs inside a node"]
fn prepare() {
    run(Command::new("mkfs.btrfs").args(["-q", "-f", DEVICE]));
    let root = mount_it(DEVICE, MsFlags::empty());
    let sub = Subvolume::create(&root, "sub").unwrap();
    Tree::new(&at("sub"), 5).grow(20);
    fs::write(at("sub/large"), MARKER.repeat(50_000)).unwrap();
    let frozen = sub.snapshot(&root, "frozen", Access::ReadOnly).unwrap();
    Subvolume::create(&root, "other").unwrap();
    fs::create_dir(at("into")).unwrap();
    let file = File::create(STREAM).unwrap();
    frozen.send_to(&file, &SendOptions::new()).unwrap();
    fs::write("/tmp/before", format!("{:?}", describe(Path::new(AT)))).unwrap();
    sync(&root).unwrap();
    drop((root, sub, frozen));
    umount(AT).unwrap();
    mount_it(DEVICE, MsFlags::empty());
}

fn receive_again(into: impl AsFd) -> Error {
    let options = ReceiveOptions::new().name("again");
    receive(into, File::open(STREAM).unwrap(), &options).unwrap_err()
}

/// What a file system says after a commit that failed.
fn says_that_it_failed(error: &Error, what: &str) {
    assert!(
        matches!(error.kind(), ErrorKind::Device | ErrorKind::ReadOnly),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains(what), "{text}");
}

#[test]
#[ignore = "runs inside a node"]
fn writes_fail() {
    let root = Subvolume::open(AT).unwrap();
    let sub = Subvolume::open(at("sub")).unwrap();
    let frozen = Subvolume::open(at("frozen")).unwrap();
    let into = File::open(at("into")).unwrap();
    let mut probe = HealthProbe::new(AT).unwrap();
    // Only a commit writes: the first to need one is told.
    let error = sub.snapshot(&root, "new", Access::ReadOnly).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert!(error.to_string().contains("/mnt/failing/new"), "{error}");
    assert!(error.to_string().contains("device"), "{error}");
    // From now on the file system is read-only, and says so.
    let health = probe.look().unwrap();
    assert!(health.read_only);
    assert!(health.alarms.contains(&Alarm::BecameReadOnly), "{health:?}");
    assert!(
        health.alarms.contains(&Alarm::DeviceErrors(1)),
        "{health:?}"
    );
    assert!(health.counters[0].write_errors > 0, "{health:?}");
    let durable = DeleteOptions::new().durable();
    for (error, what) in [
        (Subvolume::create(&root, "x").unwrap_err(), "failing/x"),
        (
            sub.snapshot(&root, "x", Access::ReadWrite).unwrap_err(),
            "failing/x",
        ),
        (
            delete(&root, "frozen", &durable).unwrap_err(),
            "failing/frozen",
        ),
        (
            exchange(&root, "sub", &root, "other").unwrap_err(),
            "failing/other",
        ),
        (receive_again(&into), "failing/into"),
        (sub.make_read_only().unwrap_err(), "failing/sub"),
    ] {
        says_that_it_failed(&error, what);
    }
    // It cannot be sent any more; what was on disk before can be read.
    let stream = frozen.send(&SendOptions::new()).unwrap();
    says_that_it_failed(
        &stream.copy_to(&mut Vec::new()).unwrap_err(),
        "failing/frozen",
    );
    let path = format!("/proc/self/fd/{}/large", frozen.as_fd().as_raw_fd());
    assert_eq!(fs::read(path).unwrap(), MARKER.repeat(50_000));
    drop((root, sub, frozen, into));
    umount(AT).unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn all_fails() {
    let root = Subvolume::open(AT).unwrap();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let error = Subvolume::open(at("frozen")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    says_that_it_failed(&receive_again(&root), "failing/");
    let error = root.snapshot(&root, "new", Access::ReadOnly).unwrap_err();
    says_that_it_failed(&error, "failing/new");
    drop(root);
    umount(AT).unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn a_block_fails() {
    let frozen = Subvolume::open(at("frozen")).unwrap();
    let mut probe = HealthProbe::new(AT).unwrap();
    // Content cannot be read: not a stream that ends.
    let store = Store::on(SECOND, "small", &[], "");
    let stream = frozen.send(&SendOptions::new()).unwrap();
    let error = receive(store.root(), stream, &ReceiveOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    assert!(error.to_string().contains("failing/frozen"), "{error}");
    assert_eq!(partial_receives(store.root()).unwrap(), []);
    assert_eq!(fs::read_dir(&store.path).unwrap().count(), 0);
    // Into a file, too.
    let file = File::create("/tmp/cut").unwrap();
    let error = frozen.send_to(&file, &SendOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    // Nothing else is wrong.
    let health = probe.look().unwrap();
    assert_eq!(health.alarms, [Alarm::DeviceErrors(1)]);
    assert!(health.counters[0].read_errors > 0, "{health:?}");
    drop(frozen);
    umount(AT).unwrap();
}

/// Healed, and mounted again.
#[test]
#[ignore = "runs inside a node"]
fn as_before() {
    run(Command::new("btrfs").args(["check", "--readonly", DEVICE]));
    let root = mount_it(DEVICE, MsFlags::empty());
    assert_eq!(list(&root, Scope::Below).unwrap().subvolumes.len(), 3);
    let now = format!("{:?}", describe(Path::new(AT)));
    assert!(now == fs::read_to_string("/tmp/before").unwrap(), "{now}");
    let options = ReceiveOptions::new().name("again");
    receive(&root, File::open(STREAM).unwrap(), &options).unwrap();
    assert_same(&at("again"), &at("frozen"));
    drop(root);
    umount(AT).unwrap();
}

/// What is there, and that a file system without room says so and leaves no trace.
fn refuses_for_want_of_room(store: &Store, refused: &[Error]) {
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        let text = error.to_string();
        assert!(text.contains("delete the oldest snapshots"), "{text}");
        assert!(text.contains(store.path.to_str().unwrap()), "{text}");
    }
    assert_eq!(partial_receives(store.root()).unwrap(), []);
    assert!(!store.path.join("received").exists());
    // Not aborted: it can be written to when there is room again.
    assert!(
        !HealthProbe::new(&store.path)
            .unwrap()
            .look()
            .unwrap()
            .read_only
    );
}

/// A stream of a subvolume with many small files, or with large ones.
fn stream_of(files: usize, size: usize) -> Vec<u8> {
    let source = Store::on(SECOND, "source", &[], "");
    let work = Subvolume::create(source.root(), "work").unwrap();
    for i in 0..files {
        fs::write(source.path.join(format!("work/{i}")), vec![7; size]).unwrap();
    }
    let snapshot = work
        .snapshot(source.root(), "received", Access::ReadOnly)
        .unwrap();
    let mut bytes = Vec::new();
    let stream = snapshot.send(&SendOptions::new()).unwrap();
    stream.copy_to(&mut bytes).unwrap();
    bytes
}

#[test]
#[ignore = "runs inside a node"]
fn metadata_is_full() {
    let stream = stream_of(2000, 1500);
    let store = Store::new("full", &[], "");
    let root = store.root();
    let sub = Subvolume::create(&root, "sub").unwrap();
    sub.snapshot(&root, "old", Access::ReadOnly).unwrap();
    // Everything is allocated to content, and most of that is free again.
    let large = File::create(store.path.join("large")).unwrap();
    let mut size = 0;
    while fallocate(&large, FallocateFlags::empty(), size, 1 << 20).is_ok() {
        size += 1 << 20;
    }
    sync(&root).unwrap();
    large.set_len(size.cast_unsigned() / 2).unwrap();
    sync(&root).unwrap();
    fs::create_dir(store.path.join("fill")).unwrap();
    let mut filled = 0;
    let error = loop {
        let path = store.path.join(format!("fill/{filled}"));
        let file = File::create(&path).map(drop);
        match file.and_then(|()| xattr::set(&path, "user.fill", &[7; 15_000])) {
            Ok(()) => filled += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let free = |kind| {
        let groups = space(&root).unwrap().groups;
        let group = groups.iter().find(|group| group.kind == kind).unwrap();
        group.allocated.0 - group.used.0
    };
    assert!(free(BlockGroupKind::Data) > 20 << 20, "room for content");
    // Each takes some metadata, until there is none.
    let mut refused = Vec::new();
    let error = (0..1000)
        .find_map(|i| sub.snapshot(&root, format!("s{i}"), Access::ReadOnly).err())
        .expect("refused at last");
    refused.push(error);
    refused.push(receive(&root, &stream[..], &ReceiveOptions::new()).unwrap_err());
    refuses_for_want_of_room(&store, &refused);
    let alarms = HealthProbe::new(&store.path)
        .unwrap()
        .look()
        .unwrap()
        .alarms;
    assert!(
        alarms
            .iter()
            .any(|alarm| matches!(alarm, Alarm::MetadataNearlyFull(_) | Alarm::ReserveUsed(_))),
        "{alarms:?}"
    );
    // Deleting works, and helps.
    delete(&root, "old", &DeleteOptions::new().cleaned(DEADLINE)).unwrap();
    for i in 0..filled {
        fs::remove_file(store.path.join(format!("fill/{i}"))).unwrap();
    }
    drop(large);
    fs::remove_file(store.path.join("large")).unwrap();
    sync(&root).unwrap();
    receive(&root, &stream[..], &ReceiveOptions::new()).unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn data_is_full() {
    let stream = stream_of(40, 1 << 20);
    let store = Store::new("full", &[], "");
    let root = store.root();
    let sub = Subvolume::create(&root, "sub").unwrap();
    let mut file = File::create(store.path.join("sub/large")).unwrap();
    let block = vec![7; 1 << 20];
    let error = loop {
        if let Err(error) = file.write_all(&block).and_then(|()| file.sync_data()) {
            break error;
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let error = receive(&root, &stream[..], &ReceiveOptions::new()).unwrap_err();
    refuses_for_want_of_room(&store, &[error]);
    // There is room for what is not content.
    sub.snapshot(&root, "snapshot", Access::ReadOnly).unwrap();
    drop((sub, file));
    delete(&root, "snapshot", &DeleteOptions::new()).unwrap();
    delete(&root, "sub", &DeleteOptions::new().cleaned(DEADLINE)).unwrap();
    receive(&root, &stream[..], &ReceiveOptions::new()).unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn read_only() {
    prepare();
    umount(AT).unwrap();
    let root = mount_it(DEVICE, MsFlags::MS_RDONLY);
    let sub = Subvolume::open(at("sub")).unwrap();
    let options = DeleteOptions::new();
    for (error, what) in [
        (Subvolume::create(&root, "x").unwrap_err(), "failing/x"),
        (
            sub.snapshot(&root, "x", Access::ReadOnly).unwrap_err(),
            "failing/x",
        ),
        (
            sub.snapshot_nested(&root, "x", Access::ReadOnly)
                .unwrap_err(),
            "failing/x",
        ),
        (delete(&root, "sub", &options).unwrap_err(), "failing/sub"),
        (
            delete_nested(&root, "sub", &options).unwrap_err(),
            "failing/sub",
        ),
        (
            exchange(&root, "sub", &root, "other").unwrap_err(),
            "failing/other",
        ),
        (receive_again(&root), "failing/"),
        (sub.make_read_only().unwrap_err(), "failing/sub"),
    ] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    assert_eq!(list(&root, Scope::Below).unwrap().subvolumes.len(), 3);
    drop((root, sub));
    umount(AT).unwrap();
}
