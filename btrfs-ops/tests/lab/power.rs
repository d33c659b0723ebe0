//! The power goes while subvolumes are made, deleted, exchanged and received:
//! on the disk is what was there before or what was to be there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use btrfs_ops::stream::{Command as Item, Version, Writer};
use btrfs_ops::{
    Access, DeleteOptions, ErrorKind, Generation, ReceiveOptions, Scope, Subvolume, SubvolumeTree,
    Uuid, delete, exchange, list, partial_receives, receive, remove_partial_receives, sync,
};
use nix::mount::{MsFlags, mount, umount};
use uml_lab::{Disk, Lab, Node};

use crate::common::{DEADLINE, DEVICE, run};

const STORE: &str = "/mnt/power";
/// So many of each are there to be deleted, and to be made.
const MANY: u32 = 400;

#[test]
fn on_a_node() {
    cuts(1..3);
}

#[test]
#[ignore = "deep: many power cuts"]
fn deep_power_cuts() {
    cuts(100..120);
}

fn cuts(seeds: std::ops::Range<u64>) {
    let lab = Lab::builder()
        .name("btrfs-power")
        .packages(["btrfs-progs"])
        .node("node1", |n| n.disk(Disk::new("512M").power_cut()))
        .start_for_test();
    let Some(lab) = lab else { return };
    let node = lab.node("node1");
    for seed in seeds {
        let acknowledged = work_until_the_cut(&node, seed);
        eprintln!("seed {seed}: acknowledged {acknowledged:?}");
        node.boot().unwrap();
        node.run_test_with("power::look", |command| {
            let told = acknowledged.iter().fold(command, |command, (what, count)| {
                command.env(what, count.to_string())
            });
            told.deadline(DEADLINE)
        })
        .unwrap();
    }
}

/// How often each was acknowledged before the power went.
fn work_until_the_cut(node: &Node, seed: u64) -> BTreeMap<String, u32> {
    let exe = std::env::current_exe().unwrap();
    let arguments = ["--exact", "power::work", "--include-ignored", "--nocapture"];
    let command = uml_lab::Command::new(exe)
        .args(arguments)
        .deadline(DEADLINE);
    let program = node.spawn(command).unwrap();
    let mut lines = BufReader::new(program.stdout()).lines();
    let mut acknowledged = BTreeMap::new();
    let mut note = |line: &str| {
        let (what, count) = line.strip_prefix("done ")?.split_once(' ')?;
        acknowledged.insert(what.to_owned(), count.parse().ok()?);
        Some(())
    };
    let mut left = 5 + seed * 7 % 40;
    while left > 0 {
        let line = lines.next().expect("it works until the cut").unwrap();
        assert!(!line.contains("panicked"), "{line}");
        if note(&line).is_some() {
            left -= 1;
        }
    }
    node.power_cut(seed).unwrap();
    // What it said up to its end counts.
    for line in lines.map_while(Result::ok) {
        note(&line);
    }
    acknowledged
}

fn stream(number: u32) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), Version::V1).unwrap();
    let name = format!("received{number}");
    writer
        .put(&Item::Subvol {
            path: Path::new(&name),
            uuid: origin(number),
            ctransid: Generation(7),
        })
        .unwrap();
    for i in 0..4 {
        let name = format!("file{i}");
        let path = Path::new(&name);
        writer.put(&Item::Mkfile { path, ino: 257 + i }).unwrap();
        writer.put_content(path, 0, &content(number)).unwrap();
    }
    writer.finish().unwrap()
}

fn origin(number: u32) -> Option<Uuid> {
    let mut bytes = [9; 16];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Uuid::from_bytes(bytes)
}

fn content(number: u32) -> Vec<u8> {
    format!("content {number}").repeat(4000).into_bytes()
}

fn place(name: &str) -> PathBuf {
    Path::new(STORE).join(name)
}

fn mount_store() -> Subvolume {
    fs::create_dir_all(STORE).unwrap();
    let flags = MsFlags::empty();
    mount(Some(DEVICE), STORE, Some("btrfs"), flags, None::<&str>).unwrap();
    Subvolume::open(STORE).unwrap()
}

#[test]
#[ignore = "runs inside a node"]
fn work() {
    run(Command::new("mkfs.btrfs").args(["-q", "-f", DEVICE]));
    let root = mount_store();
    let source = Subvolume::create(&root, "source").unwrap();
    Subvolume::create(&root, "one").unwrap();
    Subvolume::create(&root, "other").unwrap();
    for name in ["one", "other"] {
        fs::write(place(name).join("state"), name).unwrap();
    }
    for i in 1..=MANY {
        Subvolume::create(&root, format!("deleted{i}")).unwrap();
    }
    fs::create_dir(place("into")).unwrap();
    let into = File::open(place("into")).unwrap();
    sync(&root).unwrap();
    let done = |what: &str, count: u32| {
        println!("done {what} {count}");
        std::io::stdout().flush().unwrap();
    };
    for i in 1..=MANY {
        fs::write(place("source/number"), i.to_string()).unwrap();
        // On disk when it returns.
        source
            .snapshot(&root, format!("snapshot{i}"), Access::ReadOnly)
            .unwrap();
        done("snapshots", i);
        let name = format!("deleted{i}");
        delete(&root, name, &DeleteOptions::new().durable()).unwrap();
        done("deletions", i);
        exchange(&root, "one", &root, "other").unwrap();
        sync(&root).unwrap();
        done("exchanges", i);
        receive(&into, &stream(i)[..], &ReceiveOptions::new()).unwrap();
        done("receives", i);
    }
    panic!("it is so fast that the power does not go before it is done");
}

#[test]
#[ignore = "runs inside a node"]
fn look() {
    let acknowledged =
        |what: &str| -> u32 { std::env::var(what).map_or(0, |count| count.parse().unwrap()) };
    // Nothing is wrong with what is on the disk, by another opinion.
    run(Command::new("btrfs").args(["check", "--readonly", DEVICE]));
    let root = mount_store();
    let tree = SubvolumeTree::read(&root).unwrap();
    assert_eq!(tree.all(), list(&root, Scope::Below).unwrap().subvolumes);

    // What was acknowledged is there, whole; the next one may be, whole, too.
    let snapshots = acknowledged("snapshots");
    for i in 1..=MANY {
        let path = place(&format!("snapshot{i}"));
        if i > snapshots && !path.exists() {
            continue;
        }
        assert!(i <= snapshots + 1, "snapshot {i} of {snapshots}");
        let text = fs::read_to_string(path.join("number")).unwrap();
        assert_eq!(text, i.to_string());
        let info = Subvolume::open(&path).unwrap().info().unwrap();
        assert_eq!(info.access, Access::ReadOnly);
    }
    let deletions = acknowledged("deletions");
    for i in 1..=MANY {
        let there = place(&format!("deleted{i}")).exists();
        assert!(!there || i > deletions, "deletion {i} of {deletions}");
        assert!(there || i <= deletions + 1, "deletion {i} of {deletions}");
    }
    let exchanges = acknowledged("exchanges");
    let state = |name: &str| fs::read_to_string(place(name).join("state")).unwrap();
    let after = |count: u32| {
        if count.is_multiple_of(2) {
            ("one".to_owned(), "other".to_owned())
        } else {
            ("other".to_owned(), "one".to_owned())
        }
    };
    let found = (state("one"), state("other"));
    assert!(
        found == after(exchanges) || found == after(exchanges + 1),
        "{found:?} after {exchanges}"
    );

    let receives = acknowledged("receives");
    let into = File::open(place("into")).unwrap();
    let mut next = None;
    for i in 1..=MANY {
        let path = place(&format!("into/received{i}"));
        if i > receives && !path.exists() {
            next = next.or(Some(i));
            continue;
        }
        assert!(i <= receives + 1, "receive {i} of {receives}");
        let info = Subvolume::open(&path).unwrap().info().unwrap();
        assert_eq!(
            (info.access, info.received_uuid),
            (Access::ReadOnly, origin(i))
        );
        for file in 0..4 {
            assert_eq!(
                fs::read(path.join(format!("file{file}"))).unwrap(),
                content(i)
            );
        }
    }
    // What was cut off is seen, and the next receive does not mind it.
    let partial = partial_receives(&into).unwrap();
    assert!(partial.len() <= 1, "{partial:?}");
    assert!(
        partial
            .iter()
            .all(|partial| !partial.resumable && !partial.in_use)
    );
    let others = fs::read_dir(place("into")).unwrap().count() - partial.len();
    assert!(others as u32 <= receives + 1);
    let next = next.unwrap();
    receive(&into, &stream(next)[..], &ReceiveOptions::new()).unwrap();
    assert_eq!(remove_partial_receives(&into).unwrap(), []);
    let error = receive(&into, &stream(next)[..], &ReceiveOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    eprintln!(
        "found {snapshots} snapshots, {deletions} deletions, {exchanges} exchanges, {receives} \
         receives; {} partial",
        partial.len()
    );
    drop((root, into));
    umount(STORE).unwrap();
}
