//! A disk that does not answer: every step ends at its deadline, and so does the program, although
//! the kernel keeps the thread that waits for the disk.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Cluster, DRBD_CONF, PLACEMENT, Run};
use uml_lab::Command;

/// The backing device of node2 as a device-mapper device, which can be made to wait.
const FREEZER: &str = "\
set -e
size=$(/bin/busybox cat /sys/block/ubda/size)
case $1 in
make) /sbin/dmsetup --noudevsync --noudevrules create frost --table \"0 $size linear /dev/ubda 0\" ;;
freeze) /sbin/dmsetup --noudevsync suspend --nolockfs --noflush frost ;;
thaw) /sbin/dmsetup --noudevsync resume frost ;;
esac
";

fn disk(cluster: &Cluster, what: &str) {
    cluster
        .node("node2")
        .run_ok(["/bin/busybox", "sh", "/run/freezer", what])
        .unwrap();
}

/// Runs a command on node2 with short deadlines, over a frozen disk.
fn hangs(cluster: &Cluster, arguments: &[&str]) -> Run {
    let short = [&["--placement", "/run/short.toml"], arguments].concat();
    cluster.failover("node2", &short)
}

/// Runs it again once the disk answers. The process that hung holds the lock until the kernel lets it go.
fn goes_on(cluster: &Cluster, arguments: &[&str]) -> Run {
    let begun = std::time::Instant::now();
    loop {
        let run = cluster.failover("node2", arguments);
        let locked = run.end()["outcome"] == "error"
            && run.events.iter().any(|e| {
                e["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("held by process"))
            });
        if !locked || begun.elapsed() > common::DEADLINE {
            return run;
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
}

fn last_result(cluster: &Cluster) -> (String, String) {
    let journal = cluster
        .node("node2")
        .read_file("/var/lib/ha-failover/r0/journal.jsonl")
        .unwrap();
    let journal = String::from_utf8(journal).unwrap();
    let records: Vec<serde_json::Value> = journal
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let result = records.iter().rev().find(|r| r["outcome"].is_string());
    let intent = records.iter().rev().find(|r| !r["action"].is_null());
    (
        intent.unwrap()["action"]["do"].as_str().unwrap().to_owned(),
        result.unwrap()["outcome"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn a_frozen_disk_outlives_no_deadline() {
    let conf = DRBD_CONF.replace(
        "on node2 { device /dev/drbd0; disk /dev/ubda;",
        "on node2 { device /dev/drbd0; disk /dev/dm-0;",
    );
    let Some(cluster) = Cluster::boot_with("failover-hang", &conf, PLACEMENT) else {
        return;
    };
    let node = cluster.node("node2");
    node.load_module::<&str>("dm_mod", []).unwrap();
    node.write_file("/run/freezer", FREEZER, 0o755).unwrap();
    let short = PLACEMENT.replace(
        "connect = \"5s\"",
        "connect = \"5s\"\npromote = \"4s\"\nmount = \"4s\"\nunmount = \"4s\"",
    );
    node.write_file("/run/short.toml", short, 0o644).unwrap();
    disk(&cluster, "make");
    cluster.serve();

    // The promotion writes DRBD's metadata.
    cluster.node("node1").kill().unwrap();
    disk(&cluster, "freeze");
    let run = hangs(&cluster, &["takeover", "r0"]);
    assert_eq!(run.status, Some(5), "{run:#?}");
    assert_eq!(run.end()["step"], "promote-fenced", "{run:#?}");
    assert_eq!(
        last_result(&cluster),
        ("promote-fenced".to_owned(), "unknown".to_owned())
    );
    disk(&cluster, "thaw");
    // Dies once it is Primary, whether this run or the one that hung made it so.
    let run = goes_on(&cluster, &["takeover", "r0", "--die-at", "before:mount"]);
    assert_eq!(run.status, None, "{run:#?}");

    // The mount reads from the store. Text for people, and a reader of it that is not kept waiting.
    disk(&cluster, "freeze");
    let command = Command::new(common::FAILOVER)
        .args(["--placement", "/run/short.toml", "takeover", "r0"])
        .deadline(common::DEADLINE);
    let output = node.run(command).unwrap();
    assert_eq!(
        output.status.code(),
        Some(5),
        "{}{}",
        output.stdout_text(),
        output.stderr_text()
    );
    assert!(
        output
            .stderr_text()
            .contains("mount /dev/drbd0 at /srv/store1: not back after 4 s"),
        "{}",
        output.stderr_text()
    );
    disk(&cluster, "thaw");
    goes_on(&cluster, &["takeover", "r0"]).ok("takeover");
    assert_eq!(cluster.serving(), ["node2"]);

    // The unmount writes to it.
    disk(&cluster, "freeze");
    let run = hangs(&cluster, &["stop", "r0"]);
    assert_eq!(run.status, Some(5), "{run:#?}");
    disk(&cluster, "thaw");
    goes_on(&cluster, &["stop", "r0"]).ok("stop");
    assert_eq!(
        cluster.status("node2")["facts"]["drbd"]["role"],
        "Secondary"
    );
}
