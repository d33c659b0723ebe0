#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
//! On a node of the lab: a real Btrfs, with btrfs-progs as the other opinion.
//!
//! The tests marked "runs inside a node" are run there by the first one.

mod admin;
mod common;
mod errnos;
mod faults;
mod group;
mod hostile;
mod oracle;
mod power;
mod streams;
mod sums;
mod tree;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use btrfs_ops::{
    Access, BlockGroupKind, DeleteOptions, Deleted, ErrorKind, Listing, Method, ReceivedUuid,
    Scope, SubvolId, Subvolume, delete, delete_by_id, delete_nested, delete_path, device_stats,
    devices, filesystem_info, is_subvolume, label, list, list_by_walking, set_label, space, sync,
    wait_cleaned,
};
use common::{
    Background, DEADLINE, DEVICE, SECOND, Store, as_nobody, btrfs, or_dash, run, show, until,
};
use nix::mount::{MsFlags, mount, umount};
use oracle::{assert_as_libbtrfsutil, prepare_libbtrfsutil};

#[test]
fn on_a_node() {
    common::run_on_node(
        "btrfs-ops",
        &["1G", "64M"],
        &[
            "life_cycle",
            "wrong_names_and_places",
            "listing_equals_btrfs_progs",
            "without_privileges",
            "mounted_elsewhere",
            "received_uuid",
            "file_system",
            "full_and_read_only",
            "errnos::table",
            "oracle::system_calls",
        ],
    );
}

#[test]
#[ignore = "deep: ten thousand subvolumes"]
fn deep_listing_on_a_node() {
    common::run_deep_on_node("btrfs-listing", &["2G"], &["ten_thousand"]);
}

fn assert_info_is_as_shown(subvolume: &Subvolume, path: &Path) {
    // `show` reads what is committed; `info` what is.
    sync(subvolume).unwrap();
    let info = subvolume.info().unwrap();
    let shown = show(path);
    assert_eq!(shown["Name"], info.name.to_string_lossy());
    assert_eq!(shown["UUID"], or_dash(info.uuid));
    assert_eq!(shown["Parent UUID"], or_dash(info.parent_uuid));
    assert_eq!(shown["Received UUID"], or_dash(info.received_uuid));
    assert_eq!(shown["Subvolume ID"], info.id.to_string());
    assert_eq!(shown["Generation"], info.generation.to_string());
    assert_eq!(shown["Gen at creation"], info.otransid.to_string());
    assert_eq!(shown["Parent ID"], or_dash(info.parent));
    assert_eq!(
        shown["Send transid"],
        info.stransid.map_or(0, |t| t.0).to_string()
    );
    assert_eq!(
        shown["Receive transid"],
        info.rtransid.map_or(0, |t| t.0).to_string()
    );
    let flags = if info.access == Access::ReadOnly {
        "readonly"
    } else {
        "-"
    };
    assert_eq!(shown["Flags"], flags);
    assert_eq!(info.access, subvolume.access().unwrap());
    assert!(info.otime.is_some());
}

#[test]
#[ignore = "runs inside a node"]
fn life_cycle() {
    let store = Store::new("life", &[], "");
    let root = store.root();
    assert_eq!(root.id().unwrap(), SubvolId::TOP_LEVEL);
    assert_eq!(root.info().unwrap().parent, None);

    let rootfs = Subvolume::create(&root, "rootfs").unwrap();
    let path = store.path.join("rootfs");
    assert!(is_subvolume(&path).unwrap());
    assert_info_is_as_shown(&rootfs, &path);
    fs::write(path.join("file"), "one").unwrap();

    let frozen = rootfs.snapshot(&root, "frozen", Access::ReadOnly).unwrap();
    fs::write(path.join("file"), "two").unwrap();
    let copy = rootfs
        .snapshot_path(store.path.join("copy"), Access::ReadWrite)
        .unwrap();
    let read = |name: &str| fs::read_to_string(store.path.join(name).join("file")).unwrap();
    assert_eq!((read("frozen"), read("copy")), ("one".into(), "two".into()));
    assert_eq!(
        fs::write(store.path.join("frozen/file"), "x")
            .unwrap_err()
            .raw_os_error(),
        Some(libc::EROFS)
    );
    fs::write(store.path.join("copy/file"), "three").unwrap();
    assert_eq!(
        (read("rootfs"), read("copy")),
        ("two".into(), "three".into())
    );
    for (subvolume, name) in [(&frozen, "frozen"), (&copy, "copy")] {
        assert_info_is_as_shown(subvolume, &store.path.join(name));
        assert_eq!(
            subvolume.info().unwrap().parent_uuid,
            rootfs.info().unwrap().uuid
        );
    }
    let top = Subvolume::open(&store.path).unwrap();
    let inside = File::open(path.join("file")).unwrap();
    assert_eq!(btrfs_ops::info(&inside).unwrap().id, rootfs.id().unwrap());

    // A snapshot has an empty directory where a nested subvolume was.
    Subvolume::create_path(path.join("nested")).unwrap();
    rootfs.snapshot(&root, "outer", Access::ReadWrite).unwrap();
    let stub = store.path.join("outer/nested");
    assert!(!is_subvolume(&stub).unwrap());
    assert_eq!(
        Subvolume::open(&stub).unwrap_err().kind(),
        ErrorKind::NotSubvolume
    );
    assert_eq!(
        btrfs_ops::info(File::open(&stub).unwrap())
            .unwrap_err()
            .kind(),
        ErrorKind::NotSubvolume
    );

    // Deleting: by name, by id, by descriptor, again.
    let options = DeleteOptions::new();
    let error = delete(&root, "rootfs", &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotEmpty, "{error}");
    assert!(error.to_string().contains("/mnt/life/rootfs"), "{error}");
    let nested = delete_path(path.join("nested"), &options).unwrap();
    assert!(nested.id().is_some());
    assert!(!path.join("nested").exists());

    let id = copy.id().unwrap();
    assert_eq!(
        delete_by_id(&root, id, &options.clone().durable()).unwrap(),
        Deleted::Done(id)
    );
    assert!(!store.path.join("copy").exists());
    assert_eq!(copy.info().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(copy.id().unwrap(), id, "a deleted one still says its id");
    assert_eq!(
        delete_by_id(&root, id, &options).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        delete(&root, "copy", &options).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let again = options.clone().absent_is_success();
    assert_eq!(delete(&root, "copy", &again).unwrap(), Deleted::WasAbsent);
    assert_eq!(delete_by_id(&root, id, &again).unwrap(), Deleted::WasAbsent);

    // By descriptor it is found under its new name.
    fs::rename(store.path.join("frozen"), store.path.join("renamed")).unwrap();
    let id = frozen.id().unwrap();
    let cleaned = options.clone().cleaned(DEADLINE);
    assert_eq!(frozen.delete(&cleaned).unwrap(), Deleted::Done(id));
    assert!(!store.path.join("renamed").exists());

    // Until its space is free, a deleted one is pending.
    let id = rootfs.id().unwrap();
    let keep_open = File::open(path.join("file")).unwrap();
    delete(&root, "rootfs", &options).unwrap();
    let pending = |at: &Subvolume| {
        list(at, Scope::Filesystem)
            .unwrap()
            .pending_deletion
            .unwrap()
    };
    sync(&root).unwrap();
    assert!(pending(&root).contains(&id));
    let error = wait_cleaned(&root, id, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    drop((keep_open, rootfs, inside, copy, top));
    wait_cleaned(&root, id, Duration::MAX).unwrap();
    assert!(!pending(&root).contains(&id));
    let error = wait_cleaned(&root, SubvolId::TOP_LEVEL, DEADLINE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");

    Subvolume::create(&root, "short-lived").unwrap();
    let id = delete(&root, "short-lived", &options.cleaned(Duration::MAX))
        .unwrap()
        .id()
        .unwrap();
    assert!(!pending(&root).contains(&id));
    assert_eq!(
        btrfs(&[
            "subvolume".as_ref(),
            "list".as_ref(),
            "-d".as_ref(),
            store.path.as_ref()
        ]),
        ""
    );
}

#[test]
#[ignore = "runs inside a node"]
fn wrong_names_and_places() {
    let store = Store::new("wrong", &[], "");
    let root = store.root();
    let long = "x".repeat(256);
    for name in ["", ".", "..", "a/b", "/", "a\0b", &long] {
        let error = Subvolume::create(&root, name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}: {error}");
        let error = root.snapshot(&root, name, Access::ReadOnly).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}: {error}");
        let error = delete(&root, name, &DeleteOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}: {error}");
    }
    // `Path` would make "a" of these.
    for path in ["a/.", "a/..", "/"] {
        let error = Subvolume::create_path(store.path.join(path)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{path:?}: {error}");
    }
    assert!(
        fs::read_dir(&store.path).unwrap().next().is_none(),
        "nothing was made"
    );
    Subvolume::create_path(store.path.join("slashes//")).unwrap();
    let exact = OsString::from_vec([&[0xff; 254][..], b"\n"].concat());
    let odd = Subvolume::create(&root, &exact).unwrap();
    assert_eq!(odd.info().unwrap().name, exact);

    let error = Subvolume::create(&root, "slashes").unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::AlreadyExists, Some(libc::EEXIST))
    );
    assert!(error.to_string().contains("/mnt/wrong/slashes"), "{error}");
    let error = Subvolume::create_path(store.path.join("none/such")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    // Things that are no subvolumes.
    fs::create_dir(store.path.join("directory")).unwrap();
    fs::write(store.path.join("file"), "").unwrap();
    symlink("slashes", store.path.join("link")).unwrap();
    for name in ["directory", "file"] {
        let error = Subvolume::open(store.path.join(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotSubvolume, "{name}: {error}");
        assert!(!is_subvolume(store.path.join(name)).unwrap());
    }
    for name in ["directory", "file", "link"] {
        let error = delete(&root, name, &DeleteOptions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotSubvolume, "{name}: {error}");
    }
    assert!(is_subvolume(store.path.join("slashes")).unwrap());

    // Another file system.
    let error = Subvolume::create_path("/tmp/subvolume").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotBtrfs, "{error}");
    assert!(error.to_string().contains("/tmp/subvolume"), "{error}");
    let error = Subvolume::open("/tmp").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotBtrfs, "{error}");
    assert!(!is_subvolume("/tmp").unwrap());
    let tmp = File::open("/tmp").unwrap();
    for error in [
        root.snapshot(&tmp, "x", Access::ReadOnly).unwrap_err(),
        filesystem_info(&tmp).unwrap_err(),
        sync(&tmp).unwrap_err(),
        list(&tmp, Scope::Filesystem).unwrap_err(),
        list(&tmp, Scope::Below).unwrap_err(),
        space(&tmp).unwrap_err(),
        label(&tmp).unwrap_err(),
        btrfs_ops::info(&tmp).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotBtrfs, "{error}");
        assert!(error.to_string().contains("/tmp"), "{error}");
    }
    // One that has the same requests for its label.
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-L", "theirs", SECOND]));
    let ext4 = Path::new("/mnt/ext4");
    fs::create_dir_all(ext4).unwrap();
    mount(
        Some(SECOND),
        ext4,
        Some("ext4"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let theirs = File::open(ext4).unwrap();
    assert_eq!(label(&theirs).unwrap_err().kind(), ErrorKind::NotBtrfs);
    assert_eq!(
        set_label(&theirs, "x").unwrap_err().kind(),
        ErrorKind::NotBtrfs
    );
    assert_eq!(
        filesystem_info(&theirs).unwrap_err().kind(),
        ErrorKind::NotBtrfs
    );
    drop(theirs);
    umount(ext4).unwrap();
    let error = list(
        File::open(store.path.join("directory")).unwrap(),
        Scope::Below,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSubvolume);

    // A writable snapshot cannot be made in a read-only one.
    root.snapshot(&root, "frozen", Access::ReadOnly).unwrap();
    let error = Subvolume::create_path(store.path.join("frozen/x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    let error = root
        .snapshot_path(store.path.join("frozen/x"), Access::ReadOnly)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    let frozen = Subvolume::open(store.path.join("frozen")).unwrap();
    frozen.make_writable(ReceivedUuid::Refuse).unwrap();
    frozen.make_writable(ReceivedUuid::Refuse).unwrap();
    Subvolume::create_path(store.path.join("frozen/x")).unwrap();
    frozen.make_read_only().unwrap();
    assert_eq!(frozen.access().unwrap(), Access::ReadOnly);

    // The default subvolume cannot be deleted.
    let id = odd.id().unwrap().to_string();
    run(Command::new("btrfs")
        .args(["subvolume", "set-default", &id])
        .arg(&store.path));
    let error = delete(&root, &exact, &DeleteOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    assert!(error.to_string().contains("default subvolume"), "{error}");
}

#[test]
#[ignore = "runs inside a node"]
fn ten_thousand() {
    let store = Store::new("many", &[], "");
    let root = store.root();
    for directory in 0..100 {
        let path = store.path.join(format!("d{directory}"));
        fs::create_dir(&path).unwrap();
        let parent = File::open(&path).unwrap();
        for i in 0..99 {
            Subvolume::create(&parent, format!("s{i}")).unwrap();
        }
        Subvolume::create_path(path.join("s7/nested")).unwrap();
    }
    sync(&root).unwrap();
    let listing = list(&root, Scope::Below).unwrap();
    assert_eq!(listing.subvolumes.len(), 10_000);
    assert_eq!(as_oracle(&listing), oracle(&store.path));
    let walked = list_by_walking(&root).unwrap();
    assert_eq!(walked.subvolumes, listing.subvolumes);
    prepare_libbtrfsutil();
    assert_as_libbtrfsutil(&listing, &store.path);
    as_nobody("ten_thousand_by_nobody");
}

#[test]
#[ignore = "runs inside a node, as nobody"]
fn ten_thousand_by_nobody() {
    let path = Path::new("/mnt/many");
    let listing = list(Subvolume::open(path).unwrap(), Scope::Below).unwrap();
    assert_eq!(
        (listing.method, listing.subvolumes.len()),
        (Method::Walk, 10_000)
    );
    assert_as_libbtrfsutil(&listing, path);
}

/// Id, generation, parent, uuids and path, as `btrfs subvolume list` prints them.
fn oracle(store: &Path) -> Vec<String> {
    let text = run(Command::new("btrfs")
        .args(["subvolume", "list", "-pcuqR"])
        .arg(store));
    let mut lines: Vec<_> = text
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| line.escape_ascii().to_string())
        .collect();
    lines.sort();
    lines
}

fn as_oracle(listing: &Listing) -> Vec<String> {
    let mut lines: Vec<_> = listing
        .subvolumes
        .iter()
        .map(|listed| {
            let info = &listed.info;
            let parent = info.parent.unwrap();
            format!(
                "ID {} gen {} cgen {} parent {parent} top level {parent} parent_uuid {:<36} \
                 received_uuid {:<36} uuid {} path {}",
                info.id,
                info.generation,
                info.otransid,
                or_dash(info.parent_uuid),
                or_dash(info.received_uuid),
                or_dash(info.uuid),
                listed.path.as_os_str().as_bytes().escape_ascii(),
            )
        })
        .collect();
    lines.sort();
    lines
}

#[test]
#[ignore = "runs inside a node"]
fn listing_equals_btrfs_progs() {
    let mut store = Store::new("list", &[], "");
    let root = store.root();
    assert_eq!(list(&root, Scope::Below).unwrap().subvolumes, []);
    // In directories, nested, with odd names, more than fit in one answer.
    fs::create_dir_all(store.path.join("a dir/deeper")).unwrap();
    let outer = Subvolume::create_path(store.path.join("a dir/deeper/outer")).unwrap();
    fs::create_dir(store.path.join("a dir/deeper/outer/d")).unwrap();
    let inner = Subvolume::create_path(store.path.join("a dir/deeper/outer/d/inner")).unwrap();
    Subvolume::create(&inner, OsStr::from_bytes(b"caf\xe9")).unwrap();
    Subvolume::create(&inner, OsStr::from_bytes(&[0xfe; 255])).unwrap();
    let many = Subvolume::create(&root, "many").unwrap();
    for i in 0..300 {
        Subvolume::create(&many, format!("sub{i}")).unwrap();
    }
    fs::create_dir(store.path.join("many/d")).unwrap();
    for i in 0..20 {
        Subvolume::create_path(store.path.join(format!("many/d/sub{i}"))).unwrap();
    }
    outer.snapshot(&root, "snapshot", Access::ReadOnly).unwrap();
    let gone = delete(&many, "sub7", &DeleteOptions::new())
        .unwrap()
        .id()
        .unwrap();
    sync(&root).unwrap();

    let expected = oracle(&store.path);
    assert_eq!(expected.len(), 300 - 1 + 20 + 6);
    let listing = list(&root, Scope::Below).unwrap();
    assert_eq!(listing.method, Method::TreeSearch);
    assert_eq!(as_oracle(&listing), expected);
    assert!(listing.unreachable.is_empty());
    assert!(
        !listing
            .subvolumes
            .iter()
            .any(|listed| listed.info.id == gone)
    );
    let walked = list_by_walking(&root).unwrap();
    assert_eq!(walked.method, Method::Walk);
    assert!(walked.unreachable.is_empty(), "{:?}", walked.unreachable);
    assert_eq!(
        walked.subvolumes, listing.subvolumes,
        "two ways, one answer"
    );

    prepare_libbtrfsutil();
    assert_as_libbtrfsutil(&listing, &store.path);

    // From a nested subvolume: relative paths below it, all of them on demand.
    let below = list(&outer, Scope::Below).unwrap();
    let paths: Vec<_> = below
        .subvolumes
        .iter()
        .map(|listed| listed.path.as_path())
        .collect();
    assert_eq!(paths[0], Path::new("d/inner"));
    assert_eq!(paths[1], Path::new(OsStr::from_bytes(b"d/inner/caf\xe9")));
    assert_eq!(paths.len(), 3);
    assert_eq!(
        list_by_walking(&outer).unwrap().subvolumes,
        below.subvolumes
    );
    assert_eq!(
        list(&outer, Scope::Filesystem).unwrap().subvolumes,
        listing.subvolumes
    );

    // The same when the top level is not mounted here.
    let elsewhere = Path::new("/mnt/list-nested");
    store.mount(elsewhere, "subvol=a dir/deeper/outer");
    let nested = Subvolume::open(elsewhere).unwrap();
    assert_eq!(
        list(&nested, Scope::Below).unwrap().subvolumes,
        below.subvolumes
    );
    assert_eq!(
        list(&nested, Scope::Filesystem).unwrap().subvolumes,
        listing.subvolumes
    );
}

#[test]
#[ignore = "runs inside a node"]
fn without_privileges() {
    let mut store = Store::new("nobody", &[], "");
    let root = store.root();
    let theirs = Subvolume::create(&root, "theirs").unwrap();
    Subvolume::create(&theirs, "nested").unwrap();
    let hidden = Subvolume::create(&root, "hidden").unwrap();
    Subvolume::create(&hidden, "nested").unwrap();
    fs::create_dir(store.path.join("private")).unwrap();
    Subvolume::create_path(store.path.join("private/sub")).unwrap();
    for name in ["hidden", "private"] {
        fs::set_permissions(store.path.join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::create_dir(store.path.join("open")).unwrap();
    fs::set_permissions(store.path.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    drop((root, theirs, hidden));
    as_nobody("nobody_by_default");
    // The option belongs to the superblock: only a first mount sets it.
    let path = store.mounts.pop().unwrap();
    umount(&path).unwrap();
    store.mount(&path, "user_subvol_rm_allowed");
    as_nobody("nobody_may_delete");
}

#[test]
#[ignore = "runs inside a node, as nobody"]
fn nobody_by_default() {
    let path = Path::new("/mnt/nobody");
    let root = Subvolume::open(path).unwrap();
    let listing = list(&root, Scope::Below).unwrap();
    assert_eq!(listing.method, Method::Walk);
    assert_eq!(listing.pending_deletion, None);
    let paths: Vec<_> = listing
        .subvolumes
        .iter()
        .map(|l| l.path.to_str().unwrap())
        .collect();
    assert_eq!(paths, ["theirs", "theirs/nested"]);
    assert_as_libbtrfsutil(
        &list(Subvolume::open(path.join("theirs")).unwrap(), Scope::Below).unwrap(),
        &path.join("theirs"),
    );
    // One cannot be opened; of the other 6.1 does not even tell the path, 6.18
    // does.
    assert_eq!(listing.unreachable.len(), 2);
    assert!(
        listing
            .unreachable
            .iter()
            .all(|u| u.error.kind() == ErrorKind::Permission)
    );
    let paths: Vec<_> = listing
        .unreachable
        .iter()
        .map(|u| u.path.as_deref())
        .collect();
    assert_eq!(paths[0], Some(Path::new("hidden")));
    assert!(
        paths[1].is_none_or(|path| path == Path::new("private/sub")),
        "{paths:?}"
    );
    assert_eq!(list(&root, Scope::Filesystem).unwrap().subvolumes.len(), 2);
    let theirs = Subvolume::open(path.join("theirs")).unwrap();
    assert_eq!(
        list(&theirs, Scope::Filesystem).unwrap_err().kind(),
        ErrorKind::Permission
    );

    let open = File::open(path.join("open")).unwrap();
    let own = Subvolume::create(&open, "own").unwrap();
    own.snapshot(&open, "frozen", Access::ReadOnly).unwrap();
    own.make_read_only().unwrap();
    own.make_writable(ReceivedUuid::Refuse).unwrap();
    sync(&own).unwrap();
    filesystem_info(&own).unwrap();
    device_stats(&own).unwrap();
    space(&own).unwrap();
    for error in [
        theirs.snapshot(&open, "x", Access::ReadOnly).unwrap_err(),
        theirs.make_read_only().unwrap_err(),
        delete(&open, "own", &DeleteOptions::new()).unwrap_err(),
        delete_by_id(&open, own.id().unwrap(), &DeleteOptions::new()).unwrap_err(),
        Subvolume::create(&root, "x").unwrap_err(),
        set_label(&root, "x").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    }
}

#[test]
#[ignore = "runs inside a node, as nobody"]
fn nobody_may_delete() {
    let open = File::open("/mnt/nobody/open").unwrap();
    assert_eq!(
        delete(&open, "frozen", &DeleteOptions::new())
            .unwrap_err()
            .kind(),
        ErrorKind::ReadOnly
    );
    // Waiting needs a newer kernel than 6.1; it is deleted either way.
    match delete(&open, "own", &DeleteOptions::new().cleaned(DEADLINE)) {
        Ok(deleted) => assert!(deleted.id().is_some()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
            assert!(
                error.to_string().contains("deleted, but seeing when"),
                "{error}"
            );
        }
    }
    assert!(!Path::new("/mnt/nobody/open/own").exists());
    // With all that is nested, read-only and not.
    let app = Subvolume::create(&open, "app").unwrap();
    Subvolume::create(&app, "inner").unwrap();
    let frozen = Subvolume::create_path("/mnt/nobody/open/app/inner/frozen").unwrap();
    frozen.make_read_only().unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let copy = app.snapshot_nested(&open, "copy", access).unwrap();
        assert_eq!(copy.count, 3);
        let inner = Subvolume::open("/mnt/nobody/open/copy/inner/frozen").unwrap();
        assert_eq!(inner.access().unwrap(), access);
        let deleted = delete_nested(&open, "copy", &DeleteOptions::new()).unwrap();
        assert_eq!(deleted.len(), 3);
    }
    assert_eq!(
        delete_nested(&open, "app", &DeleteOptions::new())
            .unwrap()
            .len(),
        3
    );
    // What is not theirs stays, and whole.
    let store = File::open("/mnt/nobody").unwrap();
    let error = delete_nested(&store, "theirs", &DeleteOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    assert!(is_subvolume("/mnt/nobody/theirs/nested").unwrap());
}

#[test]
#[ignore = "runs inside a node"]
fn mounted_elsewhere() {
    let mut store = Store::new("guard", &[], "");
    let root = store.root();
    Subvolume::create(&root, "one").unwrap();
    let id = Subvolume::create(&root, "two").unwrap().id().unwrap();
    Subvolume::create(&root, "twofold").unwrap();
    fs::create_dir(store.path.join("two/directory")).unwrap();
    let at = Path::new("/mnt/guard one");
    store.mount(at, "subvol=one");

    let error = delete(&root, "one", &DeleteOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mounted, "{error}");
    let [mounted] = error.mounts() else {
        panic!("{error}")
    };
    assert_eq!(mounted.mount_point, at);
    assert!(mounted.own_namespace);
    assert!(
        error.to_string().ends_with("mounted at /mnt/guard one"),
        "{error}"
    );
    // By any name it has, and by its descriptor.
    fs::rename(store.path.join("one"), store.path.join("renamed")).unwrap();
    let one = Subvolume::open(store.path.join("renamed")).unwrap();
    assert_eq!(
        one.delete(&DeleteOptions::new()).unwrap_err().kind(),
        ErrorKind::Mounted
    );

    // A directory of it, bound in another mount namespace.
    let script = "mount --make-rprivate / && mkdir -p /mnt/bound && \
                  mount --bind /mnt/guard/two/directory /mnt/bound && echo ready && read _";
    let mut other = Background(
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut ready = [0; 6];
    std::io::Read::read_exact(other.0.stdout.as_mut().unwrap(), &mut ready).unwrap();
    for error in [
        delete(&root, "two", &DeleteOptions::new()).unwrap_err(),
        delete_by_id(&root, id, &DeleteOptions::new()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Mounted, "{error}");
        let [mounted] = error.mounts() else {
            panic!("{error}")
        };
        assert_eq!(mounted.mount_point, Path::new("/mnt/bound"));
        assert!(!mounted.own_namespace && mounted.pid == other.0.id());
    }
    // A name that begins alike is another subvolume.
    delete(&root, "twofold", &DeleteOptions::new()).unwrap();
    other.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    other.0.wait().unwrap();
    drop(other);
    delete(&root, "two", &DeleteOptions::new()).unwrap();

    delete(&root, "renamed", &DeleteOptions::new().even_while_mounted()).unwrap();
    until("the mount of a deleted subvolume is empty", || {
        fs::read_dir(at).is_err()
            || fs::read_dir(at).is_ok_and(|mut entries| entries.next().is_none())
    });
}

#[test]
#[ignore = "runs inside a node"]
fn received_uuid() {
    let store = Store::new("received", &[], "");
    let root = store.root();
    let source = Subvolume::create(&root, "source").unwrap();
    fs::write(store.path.join("source/file"), "content").unwrap();
    let sent = source.snapshot(&root, "sent", Access::ReadOnly).unwrap();
    fs::create_dir(store.path.join("backup")).unwrap();
    let (stream, from, to) = (
        Path::new("/tmp/stream"),
        store.path.join("sent"),
        store.path.join("backup"),
    );
    run(Command::new("btrfs")
        .args(["-q", "send", "-f"])
        .arg(stream)
        .arg(from));
    run(Command::new("btrfs")
        .args(["-q", "receive", "-f"])
        .arg(stream)
        .arg(to));
    fs::remove_file(stream).unwrap();

    let path = store.path.join("backup/sent");
    let received = Subvolume::open(&path).unwrap();
    let info = received.info().unwrap();
    assert_eq!(info.received_uuid, sent.info().unwrap().uuid);
    assert_eq!(info.stransid, Some(sent.info().unwrap().ctransid));
    assert!(info.rtransid.is_some() && info.stime.is_none());
    assert_info_is_as_shown(&received, &path);

    let error = received.make_writable(ReceivedUuid::Refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReceivedUuidSet, "{error}");
    assert_eq!(
        received.access().unwrap(),
        Access::ReadOnly,
        "nothing was done"
    );
    // Read-only snapshots of it keep the origin, writable ones do not.
    let kept = received.snapshot(&root, "kept", Access::ReadOnly).unwrap();
    assert_eq!(kept.info().unwrap().received_uuid, info.received_uuid);
    let fresh = received
        .snapshot(&root, "fresh", Access::ReadWrite)
        .unwrap();
    assert_eq!(fresh.info().unwrap().received_uuid, None);

    received.make_writable(ReceivedUuid::Clear).unwrap();
    let cleared = received.info().unwrap();
    assert_eq!((cleared.received_uuid, cleared.stransid), (None, None));
    assert_info_is_as_shown(&received, &path);
    fs::write(path.join("file"), "changed").unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn file_system() {
    let fsid = "0f8a1b2c-3d4e-4f60-8182-93a4b5c6d7e8";
    let store = Store::new("fs", &["-L", "store one", "-U", fsid], "");
    let root = store.root();
    fs::write(store.path.join("data"), vec![7u8; 3 << 20]).unwrap();
    sync(&root).unwrap();
    let before = filesystem_info(&root).unwrap();
    assert_eq!(before.fsid.to_string(), fsid);
    assert_eq!(before.label, "store one");
    assert_eq!(
        (before.devices, before.node_size.0, before.sector_size.0),
        (1, 16384, 4096)
    );
    Subvolume::create(&root, "sub").unwrap();
    sync(&root).unwrap();
    let after = filesystem_info(File::open(store.path.join("sub")).unwrap()).unwrap();
    assert!(after.generation > before.generation);
    assert_eq!(after.fsid, before.fsid, "the same for every subvolume");

    set_label(&root, OsStr::from_bytes(b"caf\xe9")).unwrap();
    assert_eq!(label(&root).unwrap(), OsStr::from_bytes(b"caf\xe9"));
    let shown = run(Command::new("btrfs")
        .args(["filesystem", "label"])
        .arg(&store.path));
    assert_eq!(shown, b"caf\xe9\n");
    for wrong in ["a\nb", &"x".repeat(256)] {
        assert_eq!(
            set_label(&root, wrong).unwrap_err().kind(),
            ErrorKind::InvalidName
        );
    }
    set_label(&root, "").unwrap();
    assert_eq!(label(&root).unwrap(), "");

    let [device] = &devices(&root).unwrap()[..] else {
        panic!("one device")
    };
    assert_eq!(
        (device.id, device.path.as_deref()),
        (1, Some(Path::new(DEVICE)))
    );
    let [stats] = &device_stats(&root).unwrap()[..] else {
        panic!("one device")
    };
    assert!(!stats.any());
    assert_eq!(stats.device, 1);

    // Every kind and profile with its numbers, as `filesystem df` has them.
    let space = space(&root).unwrap();
    let text = btrfs(
        &["filesystem", "df", "-b"]
            .map(OsStr::new)
            .iter()
            .copied()
            .chain([store.path.as_os_str()])
            .collect::<Vec<_>>(),
    );
    let shown: Vec<String> = space
        .groups
        .iter()
        .map(|group| {
            let kind = format!("{:?}", group.kind);
            let profile = match format!("{:?}", group.profile).as_str() {
                "Single" => "single".to_owned(),
                other => other.to_uppercase(),
            };
            format!(
                "{kind}, {profile}: total={}, used={}",
                group.allocated, group.used
            )
        })
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), shown);
    let data = space
        .groups
        .iter()
        .find(|group| group.kind == BlockGroupKind::Data)
        .unwrap();
    assert!(data.used.0 >= 3 << 20);
    assert_eq!(space.reserve_used().0, 0);
    let usage = btrfs(
        &["filesystem", "usage", "-b"]
            .map(OsStr::new)
            .iter()
            .copied()
            .chain([store.path.as_os_str()])
            .collect::<Vec<_>>(),
    );
    let number = |key: &str| {
        let line = usage
            .lines()
            .find(|line| line.trim().starts_with(key))
            .unwrap();
        line.split_whitespace()
            .last()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(space.total.0, number("Device size:"));
    assert_eq!(space.unallocated.0, number("Device unallocated:"));
}

#[test]
#[ignore = "runs inside a node"]
fn full_and_read_only() {
    // Data and metadata share their space, so a large file fills both.
    let mut store = Store::new("full", &["--mixed", "-b", "64M"], "");
    let root = store.root();
    let sub = Subvolume::create(&root, "sub").unwrap();
    sub.snapshot(&root, "s0", Access::ReadWrite).unwrap();
    let mut file = File::create(store.path.join("large")).unwrap();
    let block = vec![7u8; 64 << 10];
    let error = loop {
        if let Err(error) = file.write_all(&block).and_then(|()| file.sync_data()) {
            break error;
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let error = (1..10_000)
        .find_map(|i| {
            sub.snapshot(&root, format!("s{i}"), Access::ReadWrite)
                .err()
        })
        .expect("a full file system refuses at last");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(
        error.to_string().contains("delete the oldest snapshots"),
        "{error}"
    );
    // Deleting works still, and helps.
    drop(file);
    fs::remove_file(store.path.join("large")).unwrap();
    delete(&root, "s0", &DeleteOptions::new().cleaned(DEADLINE)).unwrap();
    Subvolume::create(&root, "again").unwrap();
    drop((sub, root));

    let path = store.mounts.pop().unwrap();
    umount(&path).unwrap();
    mount(
        Some(DEVICE),
        &path,
        Some("btrfs"),
        MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .unwrap();
    store.mounts.push(path);
    let root = store.root();
    for error in [
        Subvolume::create(&root, "x").unwrap_err(),
        root.snapshot(&root, "x", Access::ReadOnly).unwrap_err(),
        delete(&root, "sub", &DeleteOptions::new()).unwrap_err(),
        root.make_read_only().unwrap_err(),
        set_label(&root, "x").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    }
    let listing = list(&root, Scope::Below).unwrap();
    let last = listing.subvolumes.last().unwrap();
    assert_eq!(last.path, Path::new("again"));
}
