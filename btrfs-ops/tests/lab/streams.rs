//! Send and receive: the kernel and btrfs-progs as the other opinions.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use btrfs_ops::stream::{self, Commands, Version, Writer};
use btrfs_ops::{Access, ReceiveOptions, SendOptions, Subvolume, receive};

use crate::common::{self, SECOND, Store, THIRD, run};
use crate::tree::{Tree, assert_same, assert_same_as_theirs};

#[test]
fn on_a_node() {
    common::run_on_node(
        "btrfs-streams",
        &["1G", "1G", "1G"],
        &["streams::chains_equal_btrfs_receive"],
    );
}

#[test]
#[ignore = "deep: many chains of twenty snapshots"]
fn deep_chains_on_a_node() {
    common::run_on_node(
        "btrfs-chains",
        &["4G", "4G", "4G"],
        &["streams::long_chains_equal_btrfs_receive"],
    );
}

/// The three file systems: where it comes from, where we put it, where
/// `btrfs receive` puts it.
struct Stores {
    source: Store,
    ours: Store,
    theirs: Store,
}

impl Stores {
    fn new(options: &str) -> Self {
        Self {
            source: Store::new("source", &[], options),
            ours: Store::on(SECOND, "ours", &[], options),
            theirs: Store::on(THIRD, "theirs", &[], options),
        }
    }
}

fn btrfs_receive(stream: &Path, into: &Path) {
    run(Command::new("btrfs")
        .args(["-q", "receive", "-f"])
        .arg(stream)
        .arg(into));
}

/// Total, exclusive and shared bytes of content, as `btrfs filesystem du` counts.
fn sharing(path: &Path) -> Vec<String> {
    run(Command::new("sync").args(["-f"]).arg(path));
    let text = run(Command::new("btrfs")
        .args(["filesystem", "du", "-s", "--raw"])
        .arg(path));
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().last().unwrap().split_whitespace();
    line.take(3).map(str::to_owned).collect()
}

fn chain(seed: u64, snapshots: usize, changes: usize) {
    let compressed = seed % 3 == 2;
    let stores = Stores::new(if compressed {
        "compress-force=zstd"
    } else {
        ""
    });
    let root = stores.source.root();
    let work = Subvolume::create(&root, "work").unwrap();
    let mut tree = Tree::new(&stores.source.path.join("work"), seed);
    let mut options = match seed % 3 {
        0 => SendOptions::new(),
        1 => SendOptions::new().version(Version::V2),
        _ => SendOptions::new().compressed(),
    };
    let stream = PathBuf::from("/tmp/stream");
    for i in 0..snapshots {
        tree.grow(changes);
        let name = format!("s{i}");
        let snapshot = work.snapshot(&root, &name, Access::ReadOnly).unwrap();
        let sent = snapshot
            .send(&options)
            .unwrap()
            .copy_to(&mut File::create(&stream).unwrap())
            .unwrap();
        let length = fs::metadata(&stream).unwrap().len();
        assert_eq!(sent.bytes.0, length);
        // The same bytes without the copy, and in the parser.
        let direct = File::create("/tmp/direct").unwrap();
        snapshot.send_to(&direct, &options).unwrap();
        let bytes = fs::read(&stream).unwrap();
        assert_eq!(fs::read("/tmp/direct").unwrap(), bytes);
        let summary = stream::verify(&bytes[..]).unwrap();
        assert_eq!(summary.bytes.0, length);
        assert_eq!(summary.subvolumes.len(), 1);
        assert_eq!(summary.subvolumes[0].name, Path::new(&name));
        assert_eq!(summary.subvolumes[0].uuid, snapshot.info().unwrap().uuid);

        btrfs_receive(&stream, &stores.theirs.path);
        let into = File::open(&stores.ours.path).unwrap();
        let started = Instant::now();
        let received = receive(&into, &bytes[..], &ReceiveOptions::new()).unwrap();
        let took = started.elapsed();
        let [done] = &received.subvolumes[..] else {
            panic!("one subvolume")
        };
        assert_eq!(
            (done.name.to_str(), done.origin),
            (Some(&*name), snapshot.info().unwrap().uuid)
        );
        assert_eq!(done.parent.is_some(), i > 0);
        assert_eq!(received.commands, summary.commands);
        assert_eq!(received.bytes.0, length);
        let (mine, theirs) = (stores.ours.path.join(&name), stores.theirs.path.join(&name));
        let original = stores.source.path.join(&name);
        assert_same(&mine, &original);
        assert_same_as_theirs(&original, &theirs);
        assert_eq!(sharing(&mine), sharing(&theirs), "shared extents");
        let info = Subvolume::open(&mine).unwrap().info().unwrap();
        assert_eq!(info.access, Access::ReadOnly);
        assert_eq!(info.received_uuid, snapshot.info().unwrap().uuid);
        assert_eq!(info.stransid, Some(snapshot.info().unwrap().ctransid));
        eprintln!(
            "seed {seed} snapshot {i}: {} commands, {length} bytes, {:.2} s, {} decompressed",
            received.commands,
            took.as_secs_f64(),
            received.decompressed
        );

        // Without the kernel's help, and out of our own writer.
        let plain = stores.ours.path.join("plain");
        let _ = fs::create_dir(&plain);
        let options_plain = ReceiveOptions::new().always_decompress();
        let again = receive(File::open(&plain).unwrap(), &bytes[..], &options_plain).unwrap();
        assert_same(&plain.join(&name), &original);
        assert_eq!(
            again.decompressed,
            *summary.counts.get("encoded_write").unwrap_or(&0)
        );
        if i == 0 {
            let mut writer = Writer::new(Vec::new(), summary.version).unwrap();
            for command in Commands::new(&bytes) {
                let command = command.unwrap();
                if command != stream::Command::End {
                    writer.put(&command).unwrap();
                }
            }
            let copy = writer.finish().unwrap();
            fs::write("/tmp/copy", &copy).unwrap();
            let rewritten = stores.theirs.path.join("rewritten");
            fs::create_dir(&rewritten).unwrap();
            btrfs_receive(Path::new("/tmp/copy"), &rewritten);
            assert_same_as_theirs(&original, &rewritten.join(&name));
        }
        options = options.parent(snapshot.id().unwrap());
    }
    for file in ["/tmp/stream", "/tmp/direct", "/tmp/copy"] {
        fs::remove_file(file).unwrap();
    }
}

#[test]
#[ignore = "runs inside a node"]
fn chains_equal_btrfs_receive() {
    for seed in 0..3 {
        chain(seed, 2, 25);
    }
}

#[test]
#[ignore = "runs inside a node"]
fn long_chains_equal_btrfs_receive() {
    let seeds = std::env::var("BTRFS_SEEDS").map_or(6, |seeds| seeds.parse().unwrap());
    for seed in 100..100 + seeds {
        let started = Instant::now();
        chain(seed, 20, 60);
        eprintln!("seed {seed}: {:.0} s", started.elapsed().as_secs_f64());
        assert!(started.elapsed() < Duration::from_secs(3600));
    }
}
