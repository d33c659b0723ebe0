//! Nodes on directory trees that are not the host's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use uml_lab::{Disk, DiskFault, ErrorKind, Lab};

/// Copies programs of the host, and the libraries they need, into a tree.
fn make_tree(tree: &Path, programs: &[&str]) {
    let mut files = BTreeSet::new();
    for name in programs {
        let program = PathBuf::from("/bin").join(name);
        let listed = Command::new("ldd").arg(&program).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let words = listed.split_whitespace();
        files.extend(
            words
                .filter(|word| word.starts_with('/'))
                .map(PathBuf::from),
        );
        files.insert(program);
    }
    for file in files {
        let copy = tree.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(&file, copy).unwrap();
    }
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/os-release"), "ID=made\n").unwrap();
}

#[test]
fn a_made_tree() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, &["sh", "cat", "mkdir", "dd"]);
    let seen = dir.path().join("seen");
    fs::create_dir_all(&seen).unwrap();
    fs::write(seen.join("file"), "of the host").unwrap();
    let layer = dir.path().join("layer");
    fs::create_dir_all(layer.join("etc")).unwrap();
    fs::write(layer.join("etc/layered"), "above").unwrap();
    let Some(lab) = Lab::builder()
        .name("root")
        .layer(&layer)
        .node("own", |n| {
            n.root(&tree)
                .see(&seen, "/opt/seen")
                .keep("/var/lib/kept")
                .disk(Disk::new("8M").power_cut().faults())
        })
        .node("usual", |n| n)
        .wire("wire", |w| {
            w.port("own", "10.0.0.1/24").port("usual", "10.0.0.2/24")
        })
        .start_for_test()
    else {
        return;
    };
    let (own, usual) = (lab.node("own"), lab.node("usual"));
    let cat = |path: &str| own.run_ok(["cat", path]).unwrap().stdout_text();
    assert_eq!(cat("/etc/os-release"), "ID=made\n");
    assert_eq!(cat("/etc/layered"), "above");
    assert_ne!(usual.read_file("/etc/os-release").unwrap(), b"ID=made\n");
    // Nothing of the host is there.
    let error = own.run(["/usr/bin/env"]).unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Spawn, Some(2))
    );
    assert_eq!(
        own.read_file("/etc/passwd").unwrap_err().raw_os_error(),
        Some(2)
    );
    // But what it is to see, which it cannot change.
    assert_eq!(cat("/opt/seen/file"), "of the host");
    let error = own.write_file("/opt/seen/file", "new", 0o644).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(30), "{error}");
    // What it writes is its own.
    own.write_file("/etc/os-release", "ID=changed\n", 0o644)
        .unwrap();
    assert_eq!(cat("/etc/os-release"), "ID=changed\n");
    assert_eq!(fs::read(tree.join("etc/os-release")).unwrap(), b"ID=made\n");
    own.write_file("/var/lib/kept/x", "kept", 0o644).unwrap();
    // The lab's own needs are met without programs of the tree.
    own.disk(0).inject(DiskFault::Fail).unwrap();
    let read = [
        "dd",
        "if=/dev/ubda",
        "of=/dev/null",
        "count=1",
        "iflag=direct",
    ];
    assert!(!own.run(read).unwrap().status.success());
    own.disk(0).heal().unwrap();
    assert!(own.run(read).unwrap().status.success());
    own.power_cut(1).unwrap();
    own.boot().unwrap();
    assert_eq!(cat("/etc/os-release"), "ID=made\n");
    assert_eq!(cat("/var/lib/kept/x"), "kept");
}

/// A tree for every node that names none, as `LAB_ROOT` gives one: with what it has installed.
#[test]
fn a_tree_for_the_lab() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    make_tree(&tree, &["cat", "mkdir"]);
    let seen = dir.path().join("seen");
    fs::create_dir_all(&seen).unwrap();
    fs::write(seen.join("file"), "of the host").unwrap();
    let lab = || {
        let lab = Lab::builder().name("root-of-all").packages(["something"]);
        lab.root(&tree, [seen.clone()]).node("node1", |n| n)
    };
    let error = lab().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    let text = error.to_string();
    assert!(
        text.contains("something") && text.contains(tree.to_str().unwrap()),
        "{text}"
    );
    let status = "Package: something\nStatus: install ok installed\n";
    fs::create_dir_all(tree.join("var/lib/dpkg")).unwrap();
    fs::write(tree.join("var/lib/dpkg/status"), status).unwrap();
    let Some(lab) = lab().start_for_test() else {
        return;
    };
    let node = lab.node("node1");
    let cat = |path: &str| node.run_ok(["cat", path]).unwrap().stdout_text();
    assert_eq!(cat("/etc/os-release"), "ID=made\n");
    assert_eq!(cat(seen.join("file").to_str().unwrap()), "of the host");
}

/// A Debian 13 as mmdebstrap makes it, on whatever the host is.
#[test]
#[ignore = "deep: fetches a distribution; needs root and mmdebstrap"]
fn deep_a_debian_made_by_mmdebstrap() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let tree = dir.path().join("debian");
    let made = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--include=kmod,btrfs-progs", "trixie"])
        .arg(&tree)
        .stdout(Stdio::null())
        .status();
    let made = match made {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(
                Command::new("apt-get")
                    .args(["install", "-y", "-q", "mmdebstrap"])
                    .status()
                    .unwrap()
                    .success()
            );
            Command::new("mmdebstrap")
                .args(["--variant=minbase", "--include=kmod,btrfs-progs", "trixie"])
                .arg(&tree)
                .status()
                .unwrap()
        }
        made => made.unwrap(),
    };
    assert!(made.success());
    let Some(lab) = Lab::builder()
        .name("debian")
        .node("own", |n| n.root(&tree).disk("256M"))
        .start_for_test()
    else {
        return;
    };
    let own = lab.node("own");
    let version = own.read_file("/etc/debian_version").unwrap();
    assert!(version.starts_with(b"13"), "{version:?}");
    own.load_module("drbd", ["usermode_helper=/bin/true"])
        .unwrap();
    let script = "dpkg --audit && mkfs.btrfs -q /dev/ubda && mount /dev/ubda /mnt && \
                  btrfs subvolume create /mnt/a && perl -e 'print 6 * 7'";
    let output = own.run_ok(["sh", "-c", script]).unwrap().stdout_text();
    assert!(output.ends_with("42"), "{output}");
}
