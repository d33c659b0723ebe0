//! What can be done to running nodes: power cut, disk faults, hang, a full file
//! system, a wrong clock, bad wires, schedules of all that; and what the time
//! line says of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use uml_lab::{Action, Command, Disk, DiskFault, ErrorKind, Lab, Menu, Node, Policy, Schedule};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 200;
const PLAIN: usize = 0;
const CACHED: usize = 1;
const BREAKABLE: usize = 2;
const BOTH: usize = 3;
const MIB: u64 = 1 << 20;

fn lab(name: &str) -> Option<Lab> {
    Lab::builder()
        .name(name)
        .packages(["btrfs-progs"])
        .node("node1", |n| {
            n.disk("64M")
                .disk(Disk::new("256M").power_cut())
                .disk(Disk::new("128M").faults())
                .disk(Disk::new("64M").power_cut().faults())
        })
        .node("node2", |n| n)
        .wire("wire", |w| {
            w.port("node1", "10.0.0.1/24").port("node2", "10.0.0.2/24")
        })
        .start_for_test()
}

#[test]
fn faults() {
    let Some(lab) = lab("faults") else { return };
    let node = lab.node("node1");
    a_plain_disk_takes_no_faults(&lab);
    what_was_flushed_survives_a_power_cut(&node, CACHED, 6..7);
    what_was_flushed_survives_a_power_cut(&node, BOTH, 2..3);
    what_was_not_is_lost_as_the_seed_says(&node);
    a_partition_has_the_cache_too(&node);
    a_file_system_survives_power_cuts(&node, 0..1);
    disks_fail_and_heal(&node);
    parts_of_disks_fail(&node);
    disks_lie(&node);
    disks_are_slow(&node);
    faults_stay_over_the_loss_of_the_node(&node);
    a_file_system_notices(&node);
    a_file_system_is_full(&node);
    a_node_hangs_and_goes_on(&lab);
    a_clock_is_wrong(&lab);
    wires_are_bad(&lab);
    schedules_are_played(&lab, 3, 4);
    the_time_line(&lab);
}

/// More of the same, over many seeds. `LAB_SEEDS` is how many.
#[test]
#[ignore = "deep: takes minutes"]
fn deep_power_cuts() {
    let Some(lab) = lab("deep-cuts") else { return };
    let seeds = std::env::var("LAB_SEEDS").map_or(40, |text| text.parse().unwrap());
    let node = lab.node("node1");
    what_was_flushed_survives_a_power_cut(&node, CACHED, 0..seeds);
    what_was_flushed_survives_a_power_cut(&node, BOTH, 0..seeds);
    a_file_system_survives_power_cuts(&node, 0..seeds);
}

/// Long schedules. `LAB_SEEDS` is how many.
#[test]
#[ignore = "deep: takes minutes"]
fn deep_schedules() {
    let Some(lab) = lab("deep-schedules") else {
        return;
    };
    let seeds = std::env::var("LAB_SEEDS").map_or(10, |text| text.parse().unwrap());
    for seed in 0..seeds {
        schedules_are_played(&lab, seed, 20);
    }
}

fn a_plain_disk_takes_no_faults(lab: &Lab) {
    let (node1, node2) = (lab.node("node1"), lab.node("node2"));
    assert_eq!(node2.power_cut(1).unwrap_err().kind(), ErrorKind::Invalid);
    for disk in [PLAIN, CACHED] {
        let error = node1.disk(disk).inject(DiskFault::Fail).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("Disk::faults"), "{error}");
    }
    let error = node1.disk(BREAKABLE).inject_at(0..7, DiskFault::Fail);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(node1.disk(BOTH).device().to_str(), Some("/dev/ubdd"));
    for (disk, size) in [(PLAIN, 64), (CACHED, 256), (BREAKABLE, 128), (BOTH, 64)] {
        let device = node1.disk(disk).device();
        let command = Command::new("blockdev").arg("--getsize64").arg(device);
        let size = format!("{}\n", size * MIB);
        assert_eq!(node1.run_ok(command).unwrap().stdout_text(), size);
        assert_eq!(node1.disk(disk).size().to_string(), size.trim());
    }
}

/// Starts a program that writes numbered blocks past all caches of its own and
/// says each number once it is written, or flushed.
fn writer(node: &Node, disk: usize, pass: u64, flush: bool) -> uml_lab::Child {
    let program = std::env::current_exe().unwrap();
    let command = Command::new(program)
        .args(["--exact", "inner_write", "--include-ignored", "--nocapture"])
        .env("DISK", node.disk(disk).device())
        .env("PASS", pass.to_string())
        .env("FLUSH", if flush { "yes" } else { "no" });
    node.spawn(command).unwrap()
}

#[test]
#[ignore = "runs inside a node"]
fn inner_write() {
    const O_DIRECT: i32 = 0o40000;
    let pass: u64 = std::env::var("PASS").unwrap().parse().unwrap();
    let flush = std::env::var("FLUSH").unwrap() == "yes";
    let disk = OpenOptions::new()
        .write(true)
        .custom_flags(O_DIRECT)
        .open(std::env::var("DISK").unwrap())
        .unwrap();
    // Only O_DIRECT asks for memory at such a place.
    let mut memory = vec![0; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    for n in 0..BLOCKS {
        let block = &mut memory[start..start + BLOCK];
        block.copy_from_slice(&content(pass, n));
        disk.write_all_at(block, n * BLOCK as u64).unwrap();
        if flush {
            disk.sync_data().unwrap();
        }
        println!("wrote {n}");
    }
    println!("wrote all");
    std::thread::sleep(Duration::from_secs(1000));
}

fn content(pass: u64, n: u64) -> Vec<u8> {
    let word = (pass << 32 | n)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .to_le_bytes();
    word.into_iter().cycle().take(BLOCK).collect()
}

/// Which of the first `count` blocks are not on the disk.
fn lost(node: &Node, disk: usize, pass: u64, count: u64) -> Vec<u64> {
    let file = File::open(node.disk_path(disk)).unwrap();
    let mut found = vec![0; BLOCK];
    (0..count)
        .filter(|n| {
            file.read_exact_at(&mut found, n * BLOCK as u64).unwrap();
            found != content(pass, *n)
        })
        .collect()
}

fn what_was_flushed_survives_a_power_cut(node: &Node, disk: usize, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let pass = seed + 1;
        let child = writer(node, disk, pass, true);
        let mut lines = BufReader::new(child.stdout()).lines();
        let wanted = format!("wrote {}", 20 + seed * 37 % 150);
        let mut seen = 0;
        // The program goes on writing while the power is cut.
        for line in lines.by_ref() {
            let line = line.unwrap();
            seen += u64::from(line.starts_with("wrote "));
            if line == wanted {
                break;
            }
        }
        node.power_cut(seed).unwrap();
        assert!(!node.is_running());
        // What it said before its end counts as well.
        seen += lines
            .map_while(Result::ok)
            .filter(|line| line.starts_with("wrote ") && line != "wrote all")
            .count() as u64;
        assert!(seen >= 20);
        assert_eq!(lost(node, disk, pass, seen), [0; 0], "seed {seed}");
        node.boot().unwrap();
    }
}

fn what_was_not_is_lost_as_the_seed_says(node: &Node) {
    // The seeds are such that nothing, a part, and all of it is kept.
    let cases = [(Some(6), 2), (Some(17), 4), (None, 0)];
    for (seed, quarters) in cases {
        // Nobody else takes the cache to the disk meanwhile; all but the first
        // page, which the kernel writes when it learns of the device.
        node.write_file("/proc/sys/vm/dirty_writeback_centisecs", "0", 0o644)
            .unwrap();
        let pass = 1000 + seed.unwrap_or(99);
        let child = writer(node, CACHED, pass, false);
        let mut lines = BufReader::new(child.stdout()).lines();
        assert!(lines.any(|line| line.unwrap() == "wrote all"));
        match seed {
            Some(seed) => node.power_cut(seed).unwrap(),
            None => node.kill().unwrap(),
        }
        let lost = lost(node, CACHED, pass, BLOCKS).len() as u64;
        let expected = match quarters {
            0 => BLOCKS - 8..=BLOCKS,
            4 => 0..=0,
            _ => BLOCKS / 10..=BLOCKS * 9 / 10,
        };
        assert!(
            expected.contains(&lost),
            "seed {seed:?}: lost {lost} of {BLOCKS}"
        );
        node.boot().unwrap();
    }
}

fn a_partition_has_the_cache_too(node: &Node) {
    // One partition of 8 MiB at 1 MiB, in a table of DOS.
    let table = r"dd if=/dev/zero of=/dev/ubdb bs=512 count=1 conv=notrunc;
        printf '\203\0\0\0\0\010\0\0\0\100\0\0' | dd of=/dev/ubdb bs=1 seek=450 conv=notrunc;
        printf '\125\252' | dd of=/dev/ubdb bs=1 seek=510 conv=notrunc,fsync;
        blockdev --rereadpt /dev/ubdb";
    node.run_ok(["sh", "-c", table]).unwrap();
    let write = "test $(blockdev --getsize64 /dev/ubdb1) = 8388608 && \
                 printf flushed | dd of=/dev/ubdb1 bs=4096 conv=notrunc,fsync && \
                 echo 0 >/proc/sys/vm/dirty_writeback_centisecs && \
                 tr '\\0' c </dev/zero | \
                 dd of=/dev/ubdb1 bs=4096 seek=1 count=64 iflag=fullblock conv=notrunc";
    node.run_ok(["sh", "-c", write]).unwrap();
    node.kill().unwrap();
    let disk = File::open(node.disk_path(CACHED)).unwrap();
    let mut found = [0; 7];
    disk.read_exact_at(&mut found, MIB).unwrap();
    assert_eq!(&found, b"flushed");
    let written = (1..=64).filter(|n| {
        disk.read_exact_at(&mut found, MIB + n * BLOCK as u64)
            .unwrap();
        &found == b"ccccccc"
    });
    assert!(written.count() < 32);
    node.boot().unwrap();
    let read = "readlink -f /dev/ubdb1 && head -c 7 /dev/ubdb1 && ls /dev/lab";
    let output = node.run_ok(["sh", "-c", read]).unwrap().stdout_text();
    assert!(output.contains("/dev/loop201p1\nflushed"), "{output}");
    assert!(output.contains("ubdb1"), "{output}");
}

/// Records in a file of a file system: those said to be synced are there.
fn a_file_system_survives_power_cuts(node: &Node, seeds: std::ops::Range<u64>) {
    let device = node.disk(CACHED).device();
    node.run_ok(Command::new("mkfs.btrfs").arg("-qf").arg(&device))
        .unwrap();
    let mount = Command::new("mount").args(["-t", "btrfs"]).arg(&device);
    let mount = mount.arg("/mnt");
    for seed in seeds {
        node.run_ok(mount.clone()).unwrap();
        let script = "rm -f /mnt/record; n=0; while :; do n=$((n+1)); \
                      echo $n >>/mnt/record; sync /mnt/record; echo $n; done";
        let child = node.spawn(["sh", "-c", script]).unwrap();
        let mut lines = BufReader::new(child.stdout()).lines();
        let mut said = String::new();
        for line in lines.by_ref() {
            said = line.unwrap();
            if said.parse::<u64>().unwrap() >= 5 + seed % 20 {
                break;
            }
        }
        node.power_cut(seed).unwrap();
        if let Some(last) = lines.map_while(Result::ok).last() {
            said = last;
        }
        node.boot().unwrap();
        node.run_ok(mount.clone()).unwrap();
        let record = String::from_utf8(node.read_file("/mnt/record").unwrap()).unwrap();
        let last: u64 = record.lines().last().unwrap().parse().unwrap();
        assert!(last >= said.parse().unwrap(), "seed {seed}: {last}, {said}");
        assert_eq!(record.lines().count() as u64, last, "seed {seed}");
        node.run_ok(["umount", "/mnt"]).unwrap();
    }
}

/// Reads, writes, or writes and flushes 64 KiB at this place, past the node's
/// own caches; false for EIO.
fn io(node: &Node, disk: usize, verb: &str, at: u64) -> bool {
    let device = node.disk(disk).device();
    let device = device.display();
    let at = at / 65536;
    let line = match verb {
        "read" => format!("if={device} of=/dev/null skip={at} iflag=direct"),
        "write" => format!("if=/dev/zero of={device} seek={at} oflag=direct conv=notrunc"),
        _ => format!("if=/dev/zero of={device} seek={at} oflag=direct,dsync conv=notrunc"),
    };
    let dd = format!("dd bs=65536 count=1 {line}");
    let output = node.run(["sh", "-c", &dd]).unwrap();
    let said = output.stderr_text();
    assert_eq!(
        output.status.success(),
        !said.contains("Input/output error"),
        "{said}"
    );
    output.status.success()
}

fn disks_fail_and_heal(node: &Node) {
    for disk in [BREAKABLE, BOTH] {
        let handle = node.disk(disk);
        assert!(io(node, disk, "read", 0) && io(node, disk, "write", 0));
        handle.inject(DiskFault::Fail).unwrap();
        assert!(!io(node, disk, "read", 0) && !io(node, disk, "write", 0));
        handle.heal().unwrap();
        assert!(io(node, disk, "read", 0) && io(node, disk, "write", 0));
        handle.inject(DiskFault::FailWrites).unwrap();
        assert!(io(node, disk, "read", 0) && !io(node, disk, "write", 0));
        handle.heal().unwrap();
        assert!(io(node, disk, "flush", 0));
    }
}

fn parts_of_disks_fail(node: &Node) {
    let disk = node.disk(BREAKABLE);
    disk.inject_at(16 * MIB..17 * MIB, DiskFault::Fail).unwrap();
    assert!(io(node, BREAKABLE, "flush", 0) && !io(node, BREAKABLE, "flush", 16 * MIB));
    disk.inject_at(32 * MIB..33 * MIB, DiskFault::FailWrites)
        .unwrap();
    for (at, read, write) in [
        (0, true, true),
        (16 * MIB - 65536, true, true),
        (16 * MIB, false, false),
        (17 * MIB - 65536, false, false),
        (17 * MIB, true, true),
        (32 * MIB, true, false),
        (33 * MIB, true, true),
        (128 * MIB - 65536, true, true),
    ] {
        assert_eq!(io(node, BREAKABLE, "read", at), read, "at {at}");
        assert_eq!(io(node, BREAKABLE, "write", at), write, "at {at}");
        // A flush is for all of the disk.
        assert!(!io(node, BREAKABLE, "flush", at), "at {at}");
    }
    disk.heal().unwrap();
    assert!(io(node, BREAKABLE, "read", 16 * MIB) && io(node, BREAKABLE, "write", 32 * MIB));
}

fn disks_lie(node: &Node) {
    let write = |text: &str| {
        let script = format!("printf {text} | dd of=/dev/ubdc conv=notrunc,fsync 2>&1");
        node.run_ok(["sh", "-c", &script]).unwrap();
    };
    let read = || {
        let script = "dd if=/dev/ubdc bs=4096 count=1 iflag=direct 2>/dev/null | head -c 5";
        node.run_ok(["sh", "-c", script]).unwrap().stdout
    };
    write("first");
    node.disk(BREAKABLE).inject(DiskFault::LoseWrites).unwrap();
    write("other");
    node.disk(BREAKABLE).heal().unwrap();
    assert_eq!(read(), b"first");
    write("other");
    assert_eq!(read(), b"other");
}

fn disks_are_slow(node: &Node) {
    // Only a lower bound can be told on a busy machine.
    let second = Duration::from_secs(1);
    let fault = DiskFault::Slow {
        read: Duration::ZERO,
        write: second,
    };
    node.disk(BREAKABLE).inject(fault).unwrap();
    let start = Instant::now();
    assert!(io(node, BREAKABLE, "flush", 0));
    assert!(start.elapsed() >= second);
    node.disk(BREAKABLE).heal().unwrap();
}

fn faults_stay_over_the_loss_of_the_node(node: &Node) {
    node.disk(BREAKABLE).inject(DiskFault::FailWrites).unwrap();
    node.kill().unwrap();
    // And may be set meanwhile.
    node.disk(BOTH).inject(DiskFault::Fail).unwrap();
    node.boot().unwrap();
    assert!(io(node, BREAKABLE, "read", 0) && !io(node, BREAKABLE, "write", 0));
    assert!(!io(node, BOTH, "read", 0));
    node.disk(BREAKABLE).heal().unwrap();
    node.disk(BOTH).heal().unwrap();
    assert!(io(node, BREAKABLE, "write", 0) && io(node, BOTH, "read", 0));
}

/// Btrfs turns read-only on a disk that stops taking writes, or only those of
/// its superblocks, and is whole afterwards.
fn a_file_system_notices(node: &Node) {
    let disk = node.disk(BREAKABLE);
    let make = "mkfs.btrfs -qf /dev/ubdc && mount -t btrfs /dev/ubdc /mnt && echo kept >/mnt/file \
                && sync /mnt/file";
    node.run_ok(["sh", "-c", make]).unwrap();
    for metadata in [false, true] {
        if metadata {
            for copy in [65536, 64 * MIB] {
                disk.inject_at(copy..copy + 4096, DiskFault::Fail).unwrap();
            }
        } else {
            disk.inject(DiskFault::FailWrites).unwrap();
        }
        let write = "echo more >/mnt/other; sync -f /mnt";
        drop(node.run(["sh", "-c", write]).unwrap());
        let output = node.run(["sh", "-c", "echo >/mnt/third"]).unwrap();
        assert!(!output.status.success());
        let mounts = node.read_file("/proc/mounts").unwrap();
        let mounts = String::from_utf8(mounts).unwrap();
        assert!(mounts.contains(" /mnt btrfs ro,"), "{mounts}");
        disk.heal().unwrap();
        let again = "umount /mnt && mount -t btrfs /dev/ubdc /mnt && cat /mnt/file";
        assert_eq!(node.run_ok(["sh", "-c", again]).unwrap().stdout, b"kept\n");
    }
    node.run_ok(["umount", "/mnt"]).unwrap();
}

fn a_file_system_is_full(node: &Node) {
    let make = "mkfs.btrfs -qf /dev/ubdc && mount -t btrfs /dev/ubdc /mnt";
    node.run_ok(["sh", "-c", make]).unwrap();
    let write = |bytes: &str| {
        let script = "head -c $0 /dev/urandom >/mnt/file && sync /mnt/file && rm /mnt/file";
        node.run(["sh", "-c", script, bytes]).unwrap()
    };
    assert!(write("10000000").status.success());
    node.fill("/mnt", 0).unwrap();
    let output = write("10000000");
    let said = output.stderr_text();
    assert!(said.contains("No space left on device"), "{said}");
    node.unfill("/mnt").unwrap();
    assert!(write("10000000").status.success());
    // With some room left.
    node.fill("/mnt", 16 * MIB).unwrap();
    assert!(write("1000000").status.success());
    assert!(!write("60000000").status.success());
    node.unfill("/mnt").unwrap();
    let error = node.unfill("/mnt").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(2));
    node.run_ok(["umount", "/mnt"]).unwrap();
}

fn a_node_hangs_and_goes_on(lab: &Lab) {
    let (node1, node2) = (lab.node("node1"), lab.node("node2"));
    let program = std::env::current_exe().unwrap();
    let serve = ["--exact", "inner_echo", "--include-ignored", "--nocapture"];
    let _server = node2.spawn(Command::new(&program).args(serve)).unwrap();
    node1.run_test("inner_is_answered").unwrap();
    let counter = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done";
    let child = node2.spawn(["sh", "-c", counter]).unwrap();
    let mut lines = BufReader::new(child.stdout()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1");

    node2.hang().unwrap();
    node2.hang().unwrap();
    assert!(node2.is_hung() && !node2.is_running());
    let error = node2.run("true").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NodeDown);
    assert!(error.to_string().contains("it hangs"), "{error}");
    node1.run_test("inner_is_not_answered").unwrap();
    // To the power switch it is on, and it can be switched off.
    let status = node1.run(["/run/lab/power", "status", "node2"]).unwrap();
    assert_eq!(status.status.code(), Some(0));

    node2.resume().unwrap();
    node2.resume().unwrap();
    assert!(!node2.is_hung() && node2.is_running());
    node1.run_test("inner_is_answered").unwrap();
    // The program is the same one.
    let next: u64 = lines.next().unwrap().unwrap().parse().unwrap();
    assert_eq!(next, 2);
    node2.run_ok("true").unwrap();

    node2.hang().unwrap();
    node2.kill().unwrap();
    assert!(!node2.is_hung());
    assert_eq!(node2.hang().unwrap_err().kind(), ErrorKind::NodeDown);
    assert_eq!(node2.resume().unwrap_err().kind(), ErrorKind::NodeDown);
    node2.boot().unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn inner_echo() {
    let listener = TcpListener::bind("10.0.0.2:7000").unwrap();
    for stream in listener.incoming() {
        stream.unwrap().write_all(b"here\n").unwrap();
    }
}

fn answer(patience: Duration) -> Option<String> {
    let address = "10.0.0.2:7000".parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}

#[test]
#[ignore = "runs inside a node"]
fn inner_is_answered() {
    let until = Instant::now() + Duration::from_secs(100);
    while answer(Duration::from_secs(20)).as_deref() != Some("here\n") {
        assert!(Instant::now() < until, "no answer");
    }
}

#[test]
#[ignore = "runs inside a node"]
fn inner_is_not_answered() {
    assert_eq!(answer(Duration::from_secs(3)), None);
}

fn seconds(node: &Node) -> i64 {
    let output = node.run_ok(["date", "+%s"]).unwrap();
    output.stdout_text().trim().parse().unwrap()
}

fn a_clock_is_wrong(lab: &Lab) {
    let (node1, node2) = (lab.node("node1"), lab.node("node2"));
    let ahead = |node: &Node| seconds(node) - seconds(&node2);
    let about = |found: i64, wanted: i64| (found - wanted).abs() < 300;
    assert!(about(ahead(&node1), 0));
    node1.shift_clock(3_600_000).unwrap();
    assert!(about(ahead(&node1), 3600));
    node1.shift_clock(-7_200_000).unwrap();
    assert!(about(ahead(&node1), -7200));
    // As with a wrong hardware clock.
    node1.kill().unwrap();
    node1.boot().unwrap();
    assert!(about(ahead(&node1), -7200));
    node1.shift_clock(0).unwrap();
    assert!(about(ahead(&node1), 0));
}

/// Runs `inner` on node1, with datagrams or a stream to node2.
fn carried_meanwhile(lab: &Lab, inner: &str) -> u64 {
    let wire = lab.wire("wire");
    let before = wire.carried("node1", "node2");
    lab.node("node1").run_test(inner).unwrap();
    // The way back is sound; what was sent before has had its time.
    let back = wire.carried("node2", "node1");
    lab.node("node2").run_test("inner_send_back").unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while wire.carried("node2", "node1") < back + 10 {
        assert!(Instant::now() < until, "nothing comes back");
    }
    wire.carried("node1", "node2") - before
}

#[test]
#[ignore = "runs inside a node"]
fn inner_send_many() {
    send("10.0.0.255:7001", 200);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_send_back() {
    send("10.0.0.255:7001", 10);
}

fn send(to: &str, count: usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_broadcast(true).unwrap();
    for _ in 0..count {
        socket.send_to(b"ping", to).unwrap();
    }
}

fn wires_are_bad(lab: &Lab) {
    let wire = lab.wire("wire");
    assert!(carried_meanwhile(lab, "inner_send_many") >= 200);
    wire.set("node1", "node2", Policy::new().loss(0.5).seed(1));
    let carried = carried_meanwhile(lab, "inner_send_many");
    assert!((60..140).contains(&carried), "{carried} of 200");
    wire.set("node1", "node2", Policy::new().duplicate(1.0));
    assert!(carried_meanwhile(lab, "inner_send_many") >= 400);
    // TCP gets through all of it, and takes its time.
    let delay = Duration::from_millis(30);
    let bad = Policy::new()
        .delay(delay)
        .jitter(delay / 2)
        .loss(0.02)
        .duplicate(0.02)
        .reorder(0.05, delay)
        .rate(1_000_000)
        .seed(3);
    wire.set_all(bad);
    assert!(!wire.is_cut("node1", "node2"));
    std::thread::scope(|scope| {
        scope.spawn(|| lab.node("node2").run_test("inner_receive").unwrap());
        lab.node("node1").run_test("inner_stream").unwrap();
    });
    wire.heal_all();
    assert!(carried_meanwhile(lab, "inner_send_many") >= 200);
}

fn stream_bytes() -> Vec<u8> {
    (0..300_000_u32).map(|n| (n ^ n >> 8) as u8).collect()
}

#[test]
#[ignore = "runs inside a node"]
fn inner_receive() {
    let (mut stream, _) = TcpListener::bind("10.0.0.2:7002")
        .unwrap()
        .accept()
        .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes == stream_bytes());
}

#[test]
#[ignore = "runs inside a node"]
fn inner_stream() {
    let until = Instant::now() + Duration::from_secs(60);
    let mut stream = loop {
        match TcpStream::connect("10.0.0.2:7002") {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > until => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let start = Instant::now();
    stream.write_all(&stream_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    // At a megabyte a second.
    assert!(start.elapsed() >= Duration::from_millis(200));
}

fn schedules_are_played(lab: &Lab, seed: u64, count: usize) {
    let unknown = [
        Action::kill("node9"),
        Action::disk("node1", 9, DiskFault::Fail),
        Action::wire("wire", "node1", "node9", Policy::new()),
    ];
    for action in unknown {
        let schedule = Schedule::new()
            .at(Duration::ZERO, Action::kill("node1"))
            .at(Duration::ZERO, action);
        let error = lab.play(&schedule).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert!(
        lab.node("node1").is_running(),
        "played before it was checked"
    );
    let menu = Menu::new(Duration::from_millis(300))
        .kill("node2")
        .power_cut("node1")
        .hang("node2")
        .wire("wire", "node1", "node2")
        .disk("node1", BREAKABLE)
        .clock("node2");
    let schedule = Schedule::random(seed, &menu, count);
    println!("{schedule}");
    lab.play(&schedule).unwrap();
    for node in lab.nodes() {
        assert!(node.is_running(), "{}", lab.timeline());
    }
    assert!(io(&lab.node("node1"), BREAKABLE, "flush", 0));
    assert!(carried_meanwhile(lab, "inner_send_many") >= 200);
    let shown = lab.timeline().to_string();
    for (_, action) in schedule.steps() {
        assert!(shown.contains(&format!("schedule: {action}")), "{shown}");
    }
}

fn the_time_line(lab: &Lab) {
    lab.note("the end");
    let entries = lab.timeline().entries;
    assert!(entries.is_sorted_by_key(|entry| entry.at));
    let find = |who: &str, console: bool, text: &str| {
        let mut entries = entries.iter();
        let found = entries.position(|entry| {
            entry.who == who && entry.console == console && entry.text.contains(text)
        });
        found.unwrap_or_else(|| panic!("{who} {text}:\n{}", lab.timeline()))
    };
    for node in ["node1", "node2"] {
        let (boots, ready) = (find(node, false, "boots"), find(node, false, "ready"));
        let console = find(node, true, "Run /agent as init process");
        assert!(boots < console && console < ready, "{}", lab.timeline());
    }
    let boots = |console, text: &str| {
        let entries = entries.iter().filter(|entry| entry.who == "node1");
        entries
            .filter(|entry| entry.console == console && entry.text.starts_with(text))
            .count()
    };
    assert_eq!(boots(false, "boots"), boots(true, "Linux version"));
    assert!(find("node2", false, "hangs") < find("node2", false, "goes on"));
    find("node1", false, "power cut, seed 6: kept ");
    find("node1", false, "disk ubdc, all of it fails");
    find("wire", false, "node1 to node2: loss 50 %, seed 1");
    find("node1", false, "runs ");
    assert_eq!(find("lab", false, "the end"), entries.len() - 1);
}
