//! Send and receive: the kernel and btrfs-progs as the other opinions.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use btrfs_ops::stream::{self, Command as Item, Commands, Reader, Version, Writer};
use btrfs_ops::{
    Access, ErrorKind, Progress, ReceiveOptions, ReceivedUuid, Scope, SendOptions, SubvolId,
    Subvolume, SubvolumeInfo, incremental, list, partial_receives, receive,
    remove_partial_receives, sync,
};

use nix::fcntl::{FcntlArg, fcntl};

use crate::common::{self, SECOND, Store, THIRD, run};
use crate::tree::{Tree, assert_same, assert_same_as_theirs};

#[test]
fn on_a_node() {
    common::run_on_node(
        "btrfs-streams",
        &["1G", "1G", "1G"],
        &[
            "streams::chains_equal_btrfs_receive",
            "streams::interruptions",
            "streams::parents",
            "streams::sending",
            "hostile::ways_out",
        ],
    );
}

#[test]
#[ignore = "deep: many chains of twenty snapshots"]
fn deep_chains_on_a_node() {
    common::run_deep_on_node(
        "btrfs-chains",
        &["4G", "4G", "4G"],
        &["streams::long_chains_equal_btrfs_receive"],
    );
}

#[test]
#[ignore = "deep: cut at every command, changed at every byte"]
fn deep_interruptions_on_a_node() {
    common::run_deep_on_node(
        "btrfs-cuts",
        &["2G", "2G", "2G"],
        &["streams::every_interruption", "streams::every_changed_byte"],
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
fn sharing(path: &Path, compressed: bool) -> Vec<String> {
    run(Command::new("sync").args(["-f"]).arg(path));
    let text = run(Command::new("btrfs")
        .args(["filesystem", "du", "-s", "--raw"])
        .arg(path));
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().last().unwrap().split_whitespace();
    // It takes compressed extents for as long on the disk as in the file: where
    // those lie near each other, what is shared is counted once or twice.
    let count = if compressed { 2 } else { 3 };
    line.take(count).map(str::to_owned).collect()
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
        assert_eq!(
            sharing(&mine, compressed),
            sharing(&theirs, compressed),
            "shared extents"
        );
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

        // Without the kernel's help.
        if compressed {
            let plain = stores.ours.path.join("plain");
            let _ = fs::create_dir(&plain);
            let options = ReceiveOptions::new().always_decompress();
            let again = receive(File::open(&plain).unwrap(), &bytes[..], &options).unwrap();
            assert_same(&plain.join(&name), &original);
            let encoded = summary.counts.get("encoded_write");
            assert_eq!(Some(&again.decompressed), encoded);
            assert!(again.decompressed > 0);
        }
        // Out of our own writer.
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
    let seeds = std::env::var(common::SEEDS).unwrap_or_default();
    let seeds = match seeds.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => 100..106,
    };
    for seed in seeds {
        let started = Instant::now();
        chain(seed, 20, 60);
        eprintln!("seed {seed}: {:.0} s", started.elapsed().as_secs_f64());
        assert!(started.elapsed() < Duration::from_secs(3600));
    }
}

/// A stream of a random tree, and its source.
fn sample(source: &Store, seed: u64, changes: usize) -> (Vec<u8>, PathBuf) {
    let root = source.root();
    let work = Subvolume::create(&root, "work").unwrap();
    Tree::new(&source.path.join("work"), seed).grow(changes);
    let snapshot = work.snapshot(&root, "sample", Access::ReadOnly).unwrap();
    let mut bytes = Vec::new();
    let stream = snapshot.send(&SendOptions::new()).unwrap();
    stream.copy_to(&mut bytes).unwrap();
    (bytes, source.path.join("sample"))
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Reads so much of a stream and goes away, in both ways of sending.
fn send_until(snapshot: &Subvolume, whole: &[u8], cut: usize) {
    let mut stream = snapshot.send(&SendOptions::new()).unwrap();
    let mut read = vec![0; cut];
    stream.read_exact(&mut read).unwrap();
    assert!(read == whole[..cut]);
    drop(stream);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            reader.read_exact(&mut read).unwrap();
            drop(reader);
        });
        snapshot.send_to(&writer, &SendOptions::new())
    });
    // What is left may have fit into the pipe before.
    if whole.len() - cut > 2 * usize::try_from(size).unwrap() {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.raw_os_error()),
            (ErrorKind::Cancelled, Some(libc::EPIPE)),
            "{error}"
        );
    }
}

/// Cuts a stream behind every `step`th command, and in the middle of the next.
fn interrupt(step: usize) {
    let source = Store::new("source", &[], "");
    let ours = Store::on(SECOND, "ours", &[], "");
    let (bytes, original) = sample(&source, 77, 25);
    let mut cuts = Vec::new();
    let mut reader = Reader::new(&bytes[..]);
    while reader
        .next()
        .unwrap()
        .is_some_and(|command| command != Item::End)
    {
        cuts.push(usize::try_from(reader.position()).unwrap());
    }
    let into = File::open(&ours.path).unwrap();
    let snapshot = Subvolume::open(&original).unwrap();
    for (i, &cut) in cuts.iter().enumerate().step_by(step) {
        send_until(&snapshot, &bytes, cut);
        for cut in [cut, cut + 5] {
            let error = receive(&into, &bytes[..cut], &ReceiveOptions::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadStream, "{error}");
            assert!(names(&ours.path).is_empty(), "nothing is left");
        }
        let resume = ReceiveOptions::new().resume();
        let error = receive(&into, &bytes[..cut + 5], &resume).unwrap_err();
        assert!(error.to_string().contains("kept to go on with"), "{error}");
        let [partial] = &partial_receives(&into).unwrap()[..] else {
            panic!("one is kept")
        };
        assert!(partial.resumable && !partial.in_use);
        assert!(!ours.path.join("sample").exists(), "not under its name");
        let received = receive(&into, &bytes[..], &resume).unwrap();
        assert_eq!(received.subvolumes[0].resumed_after, i as u64);
        assert_same(&ours.path.join("sample"), &original);
        let options = btrfs_ops::DeleteOptions::new();
        btrfs_ops::delete(&into, "sample", &options).unwrap();
    }
    eprintln!("{} of {} commands", cuts.len().div_ceil(step), cuts.len());

    // Another stream of the same snapshot is not mixed in.
    let cut = cuts[cuts.len() / 2];
    let resume = ReceiveOptions::new().resume();
    receive(&into, &bytes[..cut], &resume).unwrap_err();
    let mut writer = Writer::new(Vec::new(), Version::V1).unwrap();
    for (i, command) in Commands::new(&bytes).enumerate() {
        match command.unwrap() {
            Item::Chown { path, uid, gid } if i < cuts.len() / 2 => {
                writer
                    .put(&Item::Chown {
                        path,
                        uid: uid + 1,
                        gid,
                    })
                    .unwrap();
            }
            Item::End => {}
            command => writer.put(&command).unwrap(),
        }
    }
    let other = writer.finish().unwrap();
    let error = receive(&into, &other[..], &resume).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadStream, "{error}");
    assert!(names(&ours.path).is_empty());
    // Without the wish to go on, what is there is replaced.
    receive(&into, &bytes[..cut], &resume).unwrap_err();
    let received = receive(&into, &bytes[..], &ReceiveOptions::new()).unwrap();
    assert_eq!(received.subvolumes[0].resumed_after, 0);
    assert_same(&ours.path.join("sample"), &original);
    btrfs_ops::delete(&into, "sample", &btrfs_ops::DeleteOptions::new()).unwrap();

    // Stopped by the caller, from the reading side; and one at a time.
    struct Stop<'a>(&'a [u8], Progress, Option<&'a File>, &'a [u8]);
    impl Read for Stop<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let most = buffer.len().min(1000);
            if self.1.commands() > 10 {
                if let Some(into) = self.2.take() {
                    let error = receive(into, self.3, &ReceiveOptions::new()).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                    assert!(partial_receives(into).unwrap()[0].in_use);
                }
                self.1.cancel();
            }
            self.0.read(&mut buffer[..most])
        }
    }
    let progress = Progress::new();
    let options = ReceiveOptions::new().progress(&progress).resume();
    let slow = Stop(&bytes, progress.clone(), Some(&into), &bytes);
    let error = receive(&into, slow, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(progress.commands() > 10 && progress.bytes() > 0);
    assert_eq!(remove_partial_receives(&into).unwrap().len(), 1);
    assert!(names(&ours.path).is_empty());
    // No send goes on that would hold it.
    drop(snapshot);
    btrfs_ops::delete(source.root(), "sample", &btrfs_ops::DeleteOptions::new()).unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn interruptions() {
    interrupt(37);
}

#[test]
#[ignore = "runs inside a node"]
fn every_interruption() {
    interrupt(1);
}

#[test]
#[ignore = "runs inside a node"]
fn every_changed_byte() {
    let exe = std::env::current_exe().unwrap();
    let arguments = [
        "--exact",
        "hostile::ways_out",
        "--include-ignored",
        "--nocapture",
    ];
    let output = run(Command::new(exe).args(arguments).env("HOSTILE_EVERY", "1"));
    assert!(String::from_utf8_lossy(&output).contains("1 passed"));
}

fn send(snapshot: &Subvolume, options: &SendOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.send(options).unwrap().copy_to(&mut bytes).unwrap();
    bytes
}

fn infos(store: &Store) -> Vec<SubvolumeInfo> {
    let all = list(store.root(), Scope::Filesystem).unwrap().subvolumes;
    all.into_iter().map(|listed| listed.info).collect()
}

#[test]
#[ignore = "runs inside a node"]
fn parents() {
    let source = Store::new("source", &[], "");
    let mut ours = Store::on(SECOND, "ours", &[], "");
    let root = source.root();
    let work = Subvolume::create(&root, "work").unwrap();
    let file = source.path.join("work/file");
    let mut snapshots = Vec::new();
    for i in 0..4 {
        fs::write(&file, format!("content {i}").repeat(3000)).unwrap();
        snapshots.push(
            work.snapshot(&root, format!("s{i}"), Access::ReadOnly)
                .unwrap(),
        );
    }
    let id = |i: usize| snapshots[i].id().unwrap();
    let info = |i: usize| snapshots[i].info().unwrap();
    Subvolume::create(ours.root(), "backup").unwrap();
    let into = File::open(ours.path.join("backup")).unwrap();

    // Nothing to build on.
    let plan = incremental(&info(1), &infos(&source), &infos(&ours));
    assert_eq!((plan.parent, plan.already), (None, None));
    let bytes = send(&snapshots[1], &SendOptions::new().parent(id(0)));
    let error = receive(&into, &bytes[..], &ReceiveOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingParent, "{error}");
    let uuid = info(0).uuid.unwrap().to_string();
    assert!(error.to_string().contains(&uuid), "{error}");
    assert!(names(&ours.path.join("backup")).is_empty());

    let bytes = send(&snapshots[0], &SendOptions::new());
    receive(&into, &bytes[..], &ReceiveOptions::new()).unwrap();
    // Into a mount that does not show the parent.
    Subvolume::create(ours.root(), "elsewhere").unwrap();
    let elsewhere = Path::new("/mnt/elsewhere");
    ours.mount(elsewhere, "subvol=elsewhere");
    let plan = incremental(&info(1), &infos(&source), &infos(&ours));
    assert_eq!(plan.parent.unwrap().id, id(0));
    let bytes = send(&snapshots[1], &plan.apply(SendOptions::new()));
    let received = receive(
        File::open(elsewhere).unwrap(),
        &bytes[..],
        &ReceiveOptions::new().name("other"),
    )
    .unwrap();
    assert!(received.subvolumes[0].parent.unwrap().exact);
    assert_same(&elsewhere.join("other"), &source.path.join("s1"));
    let already = incremental(&info(1), &infos(&source), &infos(&ours)).already;
    assert_eq!(already, Some(received.subvolumes[0].id));

    // One that was made writable is not built on, by either.
    let path = ours.path.join("backup/s0");
    let written = Subvolume::open(&path).unwrap();
    run(Command::new("btrfs")
        .args(["property", "set", "-f", "-ts"])
        .arg(&path)
        .args(["ro", "false"]));
    written
        .set_received(info(0).uuid.unwrap(), info(0).ctransid)
        .unwrap();
    let bytes = send(&snapshots[2], &SendOptions::new().parent(id(0)));
    let error = receive(&into, &bytes[..], &ReceiveOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingParent, "{error}");
    assert!(error.to_string().contains("made writable"), "{error}");
    written.make_writable(ReceivedUuid::Clear).unwrap();
    let plan = incremental(&info(2), &infos(&source), &infos(&ours));
    assert_eq!(plan.parent.unwrap().id, id(1));
    let bytes = send(&snapshots[2], &plan.apply(SendOptions::new()));
    receive(&into, &bytes[..], &ReceiveOptions::new()).unwrap();
    assert_same(&ours.path.join("backup/s2"), &source.path.join("s2"));

    // And back: the restored one is a parent for what follows.
    let back = Subvolume::open(ours.path.join("backup/s2")).unwrap();
    let bytes = send(&back, &SendOptions::new());
    let options = ReceiveOptions::new().name("restored");
    let restored = receive(&root, &bytes[..], &options).unwrap();
    assert_eq!(restored.subvolumes[0].origin, info(2).uuid);
    assert_same(&source.path.join("restored"), &source.path.join("s2"));
    // The receiver names what it builds on by the origin that both have.
    let next = back
        .snapshot(ours.root(), "next", Access::ReadWrite)
        .unwrap();
    fs::write(ours.path.join("next/file"), "next").unwrap();
    next.make_read_only().unwrap();
    let plan = incremental(&next.info().unwrap(), &infos(&ours), &infos(&source));
    assert_eq!(plan.parent.unwrap().id, back.id().unwrap());
    let bytes = send(&next, &plan.apply(SendOptions::new()));
    receive(&root, &bytes[..], &ReceiveOptions::new()).unwrap();
    assert_same(&source.path.join("next"), &ours.path.join("next"));

    // Content shared with another snapshot that both have.
    let copy = Subvolume::create(&root, "copy").unwrap();
    fs::copy(source.path.join("s2/file"), source.path.join("copy/file")).unwrap();
    sync(&copy).unwrap();
    let copy = copy.snapshot(&root, "copied", Access::ReadOnly).unwrap();
    let bytes = send(&copy, &SendOptions::new().clone_source(id(2)));
    let summary = stream::verify(&bytes[..]).unwrap();
    assert!(
        summary.cloned.0 > 0 && summary.content.0 == 0,
        "{summary:?}"
    );
    receive(&into, &bytes[..], &ReceiveOptions::new()).unwrap();
    assert_same(
        &ours.path.join("backup/copied"),
        &source.path.join("copied"),
    );
    let opened = Subvolume::open_by_id(&root, copy.id().unwrap()).unwrap();
    assert_eq!(opened.info().unwrap(), copy.info().unwrap());
    let none = SubvolId::new(99_999).unwrap();
    assert_eq!(
        Subvolume::open_by_id(&root, none).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
#[ignore = "runs inside a node"]
fn sending() {
    let source = Store::new("source", &[], "");
    let root = source.root();
    let work = Subvolume::create(&root, "work").unwrap();
    for i in 0..6 {
        fs::write(source.path.join(format!("work/f{i}")), vec![i; 1 << 20]).unwrap();
    }
    let snapshot = work.snapshot(&root, "snapshot", Access::ReadOnly).unwrap();
    for options in [SendOptions::new(), SendOptions::new().version(Version::V2)] {
        let estimate = snapshot.estimate_send(&options).unwrap();
        let length = send(&snapshot, &options).len() as u64;
        assert_eq!(estimate.content.0, 6 << 20);
        assert!(
            estimate.stream.0.abs_diff(length) * 100 < length,
            "{estimate:?} {length}"
        );
    }

    // Counted, and stopped.
    let progress = Progress::new();
    let options = SendOptions::new().progress(&progress);
    let whole = send(&snapshot, &options).len() as u64;
    assert_eq!(progress.bytes(), whole);
    let mut stream = snapshot.send(&options).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    progress.cancel();
    let error = stream.copy_to(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    // A reader that goes away: an error, and no signal.
    drop(snapshot.send(&SendOptions::new()).unwrap());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let error = snapshot.send_to(&writer, &SendOptions::new()).unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Cancelled, Some(libc::EPIPE))
    );
    // A sink that fails is what is told of.
    let full = &mut File::options().write(true).open("/dev/full").unwrap();
    let error = snapshot
        .send(&SendOptions::new())
        .unwrap()
        .copy_to(full)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");

    // Refusals.
    let refused = work.send(&SendOptions::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Permission, "{refused}");
    assert!(
        refused.to_string().contains("/mnt/source/work"),
        "{refused}"
    );
    for wrong in [work.id().unwrap(), SubvolId::new(4711).unwrap()] {
        for options in [
            SendOptions::new().parent(wrong),
            SendOptions::new().clone_source(wrong),
        ] {
            let result = snapshot.send(&options).unwrap().copy_to(&mut Vec::new());
            let kind = result.unwrap_err().kind();
            assert!(
                matches!(kind, ErrorKind::Permission | ErrorKind::NotFound),
                "{kind:?}"
            );
        }
    }
    // A stream without content cannot be received, and says so.
    let bytes = send(&snapshot, &SendOptions::new().without_content());
    let into = Subvolume::create(&root, "into").unwrap();
    let error = receive(&into, &bytes[..], &ReceiveOptions::new()).unwrap_err();
    assert!(error.to_string().contains("without content"), "{error}");
    // While it is sent it can be neither deleted nor made writable.
    let mut stream = snapshot.send(&SendOptions::new()).unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    let options = btrfs_ops::DeleteOptions::new();
    let error = btrfs_ops::delete(&root, "snapshot", &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    let error = snapshot.make_writable(ReceivedUuid::Refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    drop(stream);
    btrfs_ops::delete(&root, "snapshot", &options).unwrap();

    // Full: an error that says so, and nothing left.
    let small = Store::on(THIRD, "small", &["--mixed", "-b", "64M"], "");
    let large = Subvolume::create(&root, "large").unwrap();
    for i in 0..72u8 {
        fs::write(source.path.join(format!("large/f{i}")), vec![i; 1 << 20]).unwrap();
    }
    let large = large
        .snapshot(&root, "large-snapshot", Access::ReadOnly)
        .unwrap();
    let stream = large.send(&SendOptions::new()).unwrap();
    let error = receive(small.root(), stream, &ReceiveOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(
        error.to_string().contains("/mnt/small/large-snapshot"),
        "{error}"
    );
    assert!(names(&small.path).is_empty());
}
