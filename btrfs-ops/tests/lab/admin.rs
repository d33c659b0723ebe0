//! What an administrator does to a whole file system.

use std::fs::File;
use std::io::Write;
use std::process::Command;

use btrfs_ops::{Bytes, ErrorKind, Size, devices, resize, space, sync};

use crate::common::{self, DEVICE, Store, as_nobody, run};

#[test]
fn on_a_node() {
    common::run_on_node("btrfs-admin", &["1G"], &["admin::resizing"]);
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
    let mut file = File::create(store.path.join("large")).unwrap();
    for _ in 0..400 {
        file.write_all(&vec![7u8; 1 << 20]).unwrap();
    }
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
