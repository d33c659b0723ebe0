//! Real block devices in nodes: killed primaries, and devices that cannot be had.
//!
//! DRBD is driven with drbdsetup here, so that this crate is tested alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::{Random, difference, drbdmeta, run_drbdmeta};
use drbd_md::{
    CreateOptions, ErrorKind, Flags, Overwrite, Target, activity_log_state, apply_activity_log,
    create, probe, read,
};
use uml_lab::{Lab, Node};

/// One lab at a time: two cores do not get faster by more nodes.
static TURN: Mutex<()> = Mutex::new(());

const DISK: &str = "/dev/ubda";
const DRBD: &str = "/dev/drbd0";

fn sh(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

#[track_caller]
fn ok(program: &str, args: &[&str]) {
    let out = sh(program, args);
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Which DRBD the node has: 9 has one connection for each peer, set up in steps.
fn is_9() -> bool {
    let text = fs::read_to_string("/proc/drbd").unwrap();
    assert!(text.contains("version: "), "{text}");
    text.contains("version: 9.")
}

fn setup(args: &[&str]) -> Output {
    let program = if is_9() {
        "/sbin/drbdsetup"
    } else {
        "/lib/drbd/drbdsetup-84"
    };
    sh(program, args)
}

#[track_caller]
fn setup_ok(args: &[&str]) {
    let out = setup(args);
    assert!(
        out.status.success(),
        "drbdsetup {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waiting for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What there is to see, in the words of the driver: /proc/drbd in 8.4, the status in 9.
fn seen() -> String {
    if !is_9() {
        return fs::read_to_string("/proc/drbd").unwrap();
    }
    let out = setup(&["status", "r0", "--verbose", "--statistics"]);
    String::from_utf8(out.stdout).unwrap()
}

fn connected() -> bool {
    let text = seen();
    text.contains("cs:Connected") || text.contains("connection:Connected")
}

fn both_up_to_date() -> bool {
    let text = seen();
    text.contains("ds:UpToDate/UpToDate")
        || (text.contains(" disk:UpToDate") && text.contains("peer-disk:UpToDate"))
}

/// KiB that differ from the peer.
fn out_of_sync() -> u64 {
    let text = seen();
    let key = if is_9() { "out-of-sync:" } else { "oos:" };
    let at = text.find(key).unwrap_or_else(|| panic!("{text}")) + key.len();
    let digits: String = text[at..]
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap()
}

fn load_drbd(node: &Node) {
    node.load_module("drbd", ["usermode_helper=/bin/true"])
        .unwrap();
}

/// This node's id and address, and the peer's.
fn ends() -> [(&'static str, &'static str); 2] {
    let mut ends = [("0", "ipv4:10.0.254.1:7788"), ("1", "ipv4:10.0.254.2:7788")];
    if std::env::var("UML_LAB_NODE").unwrap() == "node2" {
        ends.reverse();
    }
    ends
}

/// A resync without its careful start.
const FAST: [&str; 3] = ["--c-plan-ahead=0", "--resync-rate=1G", "--c-min-rate=0"];

/// The resource and its volume; in 9 the peer as well, whom the bitmap is for.
fn configure() {
    let [(id, address), (peer, theirs)] = ends();
    if !is_9() {
        setup_ok(&["new-resource", "r0"]);
        setup_ok(&["new-minor", "r0", "0", "0"]);
        return;
    }
    setup_ok(&["new-resource", "r0", id]);
    setup_ok(&["new-minor", "r0", "0", "0"]);
    setup_ok(&["new-peer", "r0", peer, "--_name=peer", "--protocol=C"]);
    setup_ok(&["new-path", "r0", peer, address, theirs]);
    let settings = ["peer-device-options", "r0", peer, "0"];
    setup_ok(&[&settings[..], &FAST[..]].concat());
}

fn attach() -> Output {
    // A small log, so that it wraps soon.
    let attach = ["attach", "0", DISK, DISK, "internal", "--al-extents=67"];
    let more: &[&str] = if is_9() { &[] } else { &FAST };
    setup(&[&attach[..], more].concat())
}

/// `attach` and all that comes before, on either node.
#[test]
#[ignore = "runs inside a node"]
fn inner_up() {
    let options = if is_9() {
        CreateOptions::v09(1)
    } else {
        CreateOptions::default()
    };
    create(&Target::internal(DISK), &options).unwrap();
    configure();
    let out = attach();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    inner_connect();
}

#[test]
#[ignore = "runs inside a node"]
fn inner_connect() {
    let [(_, address), (peer, theirs)] = ends();
    if is_9() {
        setup_ok(&["connect", "r0", peer]);
    } else {
        setup_ok(&["connect", "r0", address, theirs, "--protocol", "C"]);
    }
}

/// Both sides declare that they are in sync, as one does with new disks that are all zero.
#[test]
#[ignore = "runs inside a node"]
fn inner_skip_first_sync() {
    wait("the connection", connected);
    setup_ok(&["new-current-uuid", "0", "--clear-bitmap"]);
    wait("both disks", both_up_to_date);
}

/// Writes all over the device until the node is killed; says so after a while.
#[test]
#[ignore = "runs inside a node"]
fn inner_write() {
    setup_ok(&["primary", if is_9() { "r0" } else { "0" }]);
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_SYNC)
        .open(DRBD)
        .unwrap();
    let size: u64 = {
        let sectors = fs::read_to_string("/sys/block/drbd0/size").unwrap();
        sectors.trim().parse::<u64>().unwrap() * 512
    };
    let seed = std::env::var("SEED").unwrap().parse().unwrap();
    let mut random = Random::new(seed);
    let mut block = [0u8; 4096];
    for n in 0u64.. {
        block[..8].copy_from_slice(&n.to_be_bytes());
        // Mostly all over, often at the very end, in an extent that is not whole.
        let at = if random.chance(15) {
            size - 4096
        } else {
            random.below(size / 4096) * 4096
        };
        device.write_all_at(&block, at).unwrap();
        if n == 20 + random.below(400) || n == 500 {
            println!("WRITING");
        }
    }
}

/// Ours and drbdmeta on copies of the dead node's disk.
fn compare(image: &Path, round: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let sb = read(&Target::internal(image)).unwrap();
    let size = fs::metadata(image).unwrap().len();
    let mut tail = vec![0; sb.md_size.bytes() as usize];
    let from = size - tail.len() as u64;
    fs::File::open(image)
        .unwrap()
        .read_exact_at(&mut tail, from)
        .unwrap();
    for copy in [&ours, &theirs] {
        let f = fs::File::create_new(copy).unwrap();
        f.set_len(size).unwrap();
        f.write_all_at(&tail, from).unwrap();
    }
    let state = activity_log_state(&Target::internal(image)).unwrap();
    println!(
        "round {round}: newest transaction {:?}, {} active, broken {:?}",
        state.newest,
        state.active.len(),
        state.broken
    );
    assert!(sb.flags.contains(Flags::PRIMARY_IND) && state.attach_refused && state.was_primary);
    let applied = apply_activity_log(&Target::internal(&ours)).unwrap();
    assert!(applied.superblock_written && applied.log_initialized);
    assert_eq!(applied.extents, state.active);
    if let Some(drbdmeta) = drbdmeta() {
        let format = sb.format.to_string();
        let out = run_drbdmeta(&drbdmeta, &format, &theirs, &["apply-al"]);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let end = |p: &Path| {
            let mut b = vec![0; tail.len()];
            fs::File::open(p)
                .unwrap()
                .read_exact_at(&mut b, from)
                .unwrap();
            if format == "v09" {
                // drbdmeta clears the field `members`.
                let superblock = b.len() - 4096;
                b[superblock + 0x10..superblock + 0x18].fill(0);
            }
            b
        };
        if let Some(d) = difference(&end(&ours), &end(&theirs)) {
            panic!("round {round}: {d}");
        }
    }
    applied.marked.0 / 2
}

/// A node that was lost as primary: refused with 165, then attached after the log was applied.
#[test]
#[ignore = "runs inside a node"]
fn inner_back() {
    configure();
    let refused = attach();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("(165)"),
        "{text}"
    );
    let marked: u64 = std::env::var("MARKED").unwrap().parse().unwrap();
    let target = Target::internal(DISK);
    assert_eq!(apply_activity_log(&target).unwrap().marked.0 / 2, marked);
    let out = attach();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    // The driver read the bits: KiB out of sync. Nothing else was, since the peer was connected.
    assert_eq!(out_of_sync(), marked);
    // Attached, it is in use.
    let e = apply_activity_log(&target).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InUse, "{e}");
    let e = create(&target, &CreateOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InUse, "{e}");
    // It can still be looked at.
    let state = activity_log_state(&target).unwrap();
    // 9 puts the log into use with the first write.
    assert!(state.attach_refused || is_9());
    assert!(probe(&target).unwrap().metadata.is_some());
    inner_connect();
    wait("the resync", both_up_to_date);
    assert_eq!(out_of_sync(), 0);
}

#[test]
fn a_killed_primary_attaches_after_its_log_was_applied() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    drbdmeta();
    let lab = Lab::builder()
        .name("drbd-md-kill")
        .packages(["drbd-utils"])
        .node("node1", |n| n.disk("1G"))
        .node("node2", |n| n.disk("1G"))
        .wire("repl", |w| {
            w.port("node1", "10.0.254.1/30")
                .port("node2", "10.0.254.2/30")
        });
    let Some(lab) = lab.start_for_test() else {
        return;
    };
    for name in ["node1", "node2"] {
        load_drbd(&lab.node(name));
        lab.node(name).run_test("inner_up").unwrap();
    }
    let node = lab.node("node1");
    node.run_test("inner_skip_first_sync").unwrap();
    let exe = std::env::current_exe().unwrap();
    for round in 1..=3u64 {
        let writer = uml_lab::Command::new(&exe)
            .arg("--exact")
            .arg("inner_write")
            .arg("--include-ignored")
            .arg("--nocapture")
            .env("SEED", round.to_string());
        let writer = node.spawn(writer).unwrap();
        wait_for(&mut writer.stdout(), "WRITING");
        node.kill().unwrap();
        let marked = compare(node.disk_path(0), round);
        assert!(marked > 0);
        node.boot().unwrap();
        load_drbd(&node);
        node.run_test_with("inner_back", |c| c.env("MARKED", marked.to_string()))
            .unwrap();
    }
}

fn wait_for(output: &mut impl std::io::Read, word: &str) {
    let mut text = Vec::new();
    let mut buffer = [0; 256];
    while !String::from_utf8_lossy(&text).contains(word) {
        let n = output.read(&mut buffer).unwrap();
        assert!(n > 0, "ended: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..n]);
    }
}

#[test]
#[ignore = "runs inside a node"]
fn inner_unavailable() {
    let target = Target::internal(DISK);
    // Read-only.
    ok("blockdev", &["--setro", DISK]);
    let e = create(&target, &CreateOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ReadOnly, "{e}");
    assert!(e.to_string().contains(DISK), "{e}");
    assert!(probe(&target).unwrap().is_empty());
    ok("blockdev", &["--setrw", DISK]);

    // Too small: 64 KiB.
    let e = create(&Target::internal("/dev/ubdb"), &CreateOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TooSmall, "{e}");

    // A file system: named, kept, and in use while mounted.
    ok("mkfs.btrfs", &["-q", DISK]);
    let e = create(&target, &CreateOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::WouldOverwrite);
    assert!(
        e.to_string().contains("btrfs (filesystem) at byte 65600"),
        "{e}"
    );
    fs::create_dir_all("/mnt").unwrap();
    ok("mount", &[DISK, "/mnt"]);
    let named = CreateOptions::default().overwrite(Overwrite::named("btrfs"));
    let e = create(&target, &named).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InUse, "{e}");
    ok("umount", &["/mnt"]);
    let created = create(&target, &named).unwrap();
    assert_eq!(created.overwritten[0].name, "btrfs");

    // A partition table.
    let mut mbr = [0; 512];
    mbr[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 9, 0, 0, 8, 0, 0, 0, 64, 0, 0]);
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let disk = fs::File::options().write(true).open("/dev/ubdc").unwrap();
    disk.write_all_at(&mbr, 0).unwrap();
    drop(disk);
    let e = create(&Target::internal("/dev/ubdc"), &CreateOptions::default()).unwrap_err();
    assert!(e.to_string().contains("dos (partition table)"), "{e}");
}

#[test]
fn devices_that_cannot_be_had() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::builder()
        .name("drbd-md-devices")
        .packages(["btrfs-progs"])
        .node("node1", |n| n.disk("128M").disk("64K").disk("64M"));
    let Some(lab) = lab.start_for_test() else {
        return;
    };
    lab.node("node1").run_test("inner_unavailable").unwrap();
}
