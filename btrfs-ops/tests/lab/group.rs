//! Several subvolumes at once: groups, nested ones, two that change places.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use btrfs_ops::{
    Access, DeleteOptions, ErrorKind, Freeze, Member, Method, Scope, SubvolId, Subvolume,
    SubvolumeTree, delete_nested, exchange, list, snapshot_group,
};

use crate::common::{DEADLINE, Store};

/// Counts, and fails where it is told to.
#[derive(Default)]
struct Freezer {
    calls: Vec<&'static str>,
    fail: Option<&'static str>,
}

impl Freezer {
    fn call(&mut self, name: &'static str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.calls.push(name);
        if self.fail == Some(name) {
            Err("as told".into())
        } else {
            Ok(())
        }
    }
}

impl Freeze for Freezer {
    fn freeze(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.call("freeze")
    }
    fn thaw(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.call("thaw")
    }
}

#[test]
#[ignore = "runs inside a node"]
fn groups() {
    let store = Store::new("group", &[], "");
    let root = store.root();
    let sources: Vec<_> = (0..4)
        .map(|i| Subvolume::create(&root, format!("source{i}")).unwrap())
        .collect();
    let parents: Vec<_> = (0..4)
        .map(|i| {
            fs::write(store.path.join(format!("source{i}/file")), "not synced").unwrap();
            fs::create_dir(store.path.join(format!("to{i}"))).unwrap();
            File::open(store.path.join(format!("to{i}"))).unwrap()
        })
        .collect();
    let members = |name: &str| -> Vec<Member<'_>> {
        let pairs = sources.iter().zip(&parents);
        pairs
            .map(|(source, parent)| Member {
                source,
                parent: parent.as_fd(),
                name: name.into(),
            })
            .collect()
    };
    let mut freezer = Freezer::default();
    let group = snapshot_group(&members("one"), Access::ReadOnly, &mut freezer).unwrap();
    assert_eq!(freezer.calls, ["freeze", "thaw"]);
    assert_eq!(group.snapshots.len(), 4);
    assert!(group.frozen > Duration::ZERO);
    for (i, snapshot) in group.snapshots.iter().enumerate() {
        let info = snapshot.info().unwrap();
        assert_eq!(info.otransid, group.transactions[i]);
        assert_eq!(info.parent_uuid, sources[i].info().unwrap().uuid);
        let text = fs::read_to_string(store.path.join(format!("to{i}/one/file"))).unwrap();
        assert_eq!(text, "not synced");
    }
    eprintln!(
        "transactions {:?}, frozen {:?}",
        group.transactions, group.frozen
    );

    // One of them cannot be made: none stays, and all go on.
    fs::create_dir(store.path.join("to2/two")).unwrap();
    let mut freezer = Freezer::default();
    let error = snapshot_group(&members("two"), Access::ReadOnly, &mut freezer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(freezer.calls, ["freeze", "thaw"]);
    for i in [0, 1, 3] {
        assert!(!store.path.join(format!("to{i}/two")).exists());
    }
    for (fail, made) in [("freeze", false), ("thaw", true)] {
        let mut freezer = Freezer {
            fail: Some(fail),
            ..Freezer::default()
        };
        let error = snapshot_group(&members("three"), Access::ReadOnly, &mut freezer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Freeze, "{error}");
        assert!(error.to_string().contains("as told"), "{error}");
        assert_eq!(freezer.calls, ["freeze", "thaw"]);
        assert_eq!(store.path.join("to0/three").exists(), made);
    }
}

#[test]
#[ignore = "runs inside a node"]
fn nested() {
    let store = Store::new("nested", &[], "");
    let root = store.root();
    let app = Subvolume::create(&root, "app").unwrap();
    fs::create_dir_all(store.path.join("app/var/lib")).unwrap();
    Subvolume::create_path(store.path.join("app/var/lib/machines")).unwrap();
    Subvolume::create_path(store.path.join("app/var/lib/machines/inner")).unwrap();
    fs::write(store.path.join("app/var/lib/machines/inner/file"), "inner").unwrap();
    let frozen = Subvolume::create_path(store.path.join("app/frozen")).unwrap();
    frozen.make_read_only().unwrap();

    // Into itself, too.
    for (access, path) in [(Access::ReadOnly, "copy"), (Access::ReadWrite, "app/copy")] {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let parent = File::open(store.path.join(parent)).unwrap();
        let copy = app.snapshot_nested(&parent, name, access).unwrap();
        assert_eq!(copy.count, 4, "{path}");
        assert!(copy.transactions.0 <= copy.transactions.1);
        let inner = store.path.join(path).join("var/lib/machines/inner");
        assert_eq!(fs::read_to_string(inner.join("file")).unwrap(), "inner");
        assert_eq!(Subvolume::open(&inner).unwrap().access().unwrap(), access);
        assert_eq!(copy.top.access().unwrap(), access);
    }
    // What fails leaves nothing.
    fs::create_dir(store.path.join("taken")).unwrap();
    let error = app
        .snapshot_nested(&root, "taken", Access::ReadOnly)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");

    // The indexes say what a search through the list says.
    let listing = list(&root, Scope::Filesystem).unwrap().subvolumes;
    let tree = SubvolumeTree::read(&root).unwrap();
    assert_eq!(tree.all(), listing);
    assert_eq!(tree.method(), Method::TreeSearch);
    assert!(tree.unreachable().is_empty() && tree.pending_deletion().is_some());
    for listed in &listing {
        let info = &listed.info;
        assert_eq!(tree.id(info.id), Some(listed));
        assert_eq!(tree.at_path(&listed.path), Some(listed));
        assert_eq!(tree.uuid(info.uuid.unwrap()), Some(listed));
        let snapshots: Vec<_> = tree.snapshots_of(info.uuid.unwrap()).collect();
        let expected = listing
            .iter()
            .filter(|other| other.info.parent_uuid == info.uuid);
        assert_eq!(snapshots, expected.collect::<Vec<_>>());
        let children: Vec<_> = tree.children(info.id).collect();
        let expected = listing
            .iter()
            .filter(|other| other.info.parent == Some(info.id));
        assert_eq!(children, expected.collect::<Vec<_>>());
    }
    assert_eq!(tree.at_path("none"), None);
    assert_eq!(tree.id(SubvolId::TOP_LEVEL), None);

    let error = btrfs_ops::delete(&root, "app", &DeleteOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotEmpty);
    let options = DeleteOptions::new().cleaned(DEADLINE);
    drop((app, frozen));
    assert_eq!(delete_nested(&root, "app", &options).unwrap().len(), 8);
    assert_eq!(delete_nested(&root, "copy", &options).unwrap().len(), 4);
    assert!(list(&root, Scope::Below).unwrap().subvolumes.is_empty());
    let again = DeleteOptions::new().absent_is_success();
    assert_eq!(delete_nested(&root, "app", &again).unwrap(), []);
}

#[test]
#[ignore = "runs inside a node"]
fn exchanged() {
    let store = Store::new("exchange", &[], "");
    let root = store.root();
    let running = Subvolume::create(&root, "running").unwrap();
    fs::write(store.path.join("running/state"), "good").unwrap();
    fs::create_dir(store.path.join("past")).unwrap();
    let past = File::open(store.path.join("past")).unwrap();
    running
        .snapshot(&past, "monday", Access::ReadWrite)
        .unwrap();
    fs::write(store.path.join("running/state"), "bad").unwrap();
    let held = File::open(store.path.join("running/state")).unwrap();

    exchange(&root, "running", &past, "monday").unwrap();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(read(&store.path.join("running/state")), "good");
    assert_eq!(read(&store.path.join("past/monday/state")), "bad");
    assert_eq!(
        std::io::read_to_string(held).unwrap(),
        "bad",
        "what is open stays"
    );
    let id = |path: &str| {
        Subvolume::open(store.path.join(path))
            .unwrap()
            .id()
            .unwrap()
    };
    assert_eq!(id("past/monday"), running.id().unwrap());

    fs::create_dir(store.path.join("directory")).unwrap();
    for (name, kind) in [
        ("directory", ErrorKind::NotSubvolume),
        ("none", ErrorKind::NotFound),
        ("..", ErrorKind::InvalidName),
    ] {
        let error = exchange(&root, "running", &root, name).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}
