//! What cannot work is refused, or taken back, with the object named and nothing half done.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Cluster, DRBD_CONF, PLACEMENT, Run};
use serde_json::Value;
use uml_lab::Command;

fn evidence(run: &Run) -> String {
    run.events
        .iter()
        .filter(|e| e["event"] == "refused")
        .flat_map(|e| e["findings"].as_array().cloned().unwrap_or_default())
        .map(|f| format!("{}: {}; {}\n", f["subject"], f["evidence"], f["remedy"]))
        .collect()
}

fn error(run: &Run) -> String {
    run.events
        .iter()
        .filter(|e| e["event"] == "error")
        .map(|e| format!("{} {}", e["message"], e["remedy"]))
        .collect()
}

fn init_pid(cluster: &Cluster) -> Value {
    cluster.status("node1")["facts"]["containers"]["app"]["init_pid"].clone()
}

/// Before DRBD is there at all: files that are wrong, a module that is missing, a user who may not.
#[test]
fn before_day_zero() {
    let Some(cluster) = Cluster::boot("failover-files") else {
        return;
    };
    let node = cluster.node("node1");

    // The module is not loaded, and then not even installed.
    let refused = cluster.failover("node1", &["handover", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (
            Some(3),
            vec![
                "mount-point-missing".to_owned(),
                "module-not-loaded".to_owned()
            ]
        )
    );
    node.run_ok([
        "/bin/busybox",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/lib/modules",
    ])
    .unwrap();
    let failed = cluster.failover("node1", &["up", "r0"]);
    assert_eq!(
        failed.status,
        Some(3),
        "a blank disk is not brought up: {failed:#?}"
    );
    let failed = cluster.failover("node1", &["prepare", "r0"]);
    assert_eq!(failed.status, Some(1), "{failed:#?}");
    let said = failed.end()["message"].as_str().unwrap().to_owned();
    assert!(
        said.contains("drbd") && said.contains("no module of this name"),
        "{said}"
    );
    assert_eq!(
        failed.steps(),
        ["ensure-directory", "load-module"],
        "nothing after it: {failed:#?}"
    );
    node.run_ok(["/bin/busybox", "umount", "/lib/modules"])
        .unwrap();

    // No permission: found before anything is tried.
    node.run_test("without_privileges").unwrap();

    // A name that drbd.conf does not have, a name that the placement does not have.
    let refused = cluster.failover("node1", &["--node", "node9", "up", "r0"]);
    assert!(
        refused
            .codes()
            .contains(&"node-not-in-placement".to_owned()),
        "{refused:#?}"
    );
    node.write_file(
        "/etc/drbd.conf",
        DRBD_CONF.replace("on node1", "on nodeA"),
        0o600,
    )
    .unwrap();
    let refused = cluster.failover("node1", &["up", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["drbd-conf-no-such-node".to_owned()])
    );
    assert!(
        evidence(&refused).contains("node1") && evidence(&refused).contains("nodeA"),
        "{}",
        evidence(&refused)
    );

    // A syntax error: file, line, column, what was expected.
    node.write_file(
        "/etc/drbd.conf",
        DRBD_CONF.replace("protocol C;", "protocol C"),
        0o600,
    )
    .unwrap();
    let refused = cluster.failover("node1", &["up", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["drbd-conf-unusable".to_owned()])
    );
    assert!(
        evidence(&refused).contains("/etc/drbd.conf:5:")
            || evidence(&refused).contains("/etc/drbd.conf:4:"),
        "{}",
        evidence(&refused)
    );
    node.write_file(
        "/etc/drbd.conf",
        DRBD_CONF.replace("resource r0", "resource other"),
        0o600,
    )
    .unwrap();
    let refused = cluster.failover("node1", &["up", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["drbd-conf-no-resource".to_owned()])
    );

    // A placement that disagrees with it.
    node.write_file(
        "/etc/drbd.conf",
        DRBD_CONF.replace("10.0.254.2:7788", "10.0.254.3:7788"),
        0o600,
    )
    .unwrap();
    let refused = cluster.failover("node1", &["up", "r0"]);
    assert_eq!(refused.codes()[0], "placement-disagrees-with-drbd-conf");
    node.write_file("/etc/drbd.conf", DRBD_CONF, 0o600).unwrap();
    node.write_file(
        "/run/wrong.toml",
        PLACEMENT.replace("owner = ", "onwer = "),
        0o644,
    )
    .unwrap();
    let wrong = cluster.failover("node1", &["--placement", "/run/wrong.toml", "up", "r0"]);
    assert_eq!(wrong.status, Some(1));
    assert!(
        error(&wrong).contains("/run/wrong.toml:7:1: unknown field `onwer`"),
        "{}",
        error(&wrong)
    );
    let unknown = cluster.failover("node1", &["up", "r7"]);
    assert_eq!(unknown.status, Some(1));
    assert!(
        error(&unknown).contains("resource `r7`") && error(&unknown).contains("it has: r0"),
        "{}",
        error(&unknown)
    );

    // A disk that holds something is not touched.
    node.run_ok(["/sbin/mkfs.btrfs", "-q", "/dev/ubda"])
        .unwrap();
    let refused = cluster.failover("node1", &["prepare", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["disk-not-blank".to_owned()])
    );
    assert!(
        evidence(&refused).contains("btrfs"),
        "{}",
        evidence(&refused)
    );
    assert!(
        !cluster.status("node1")["facts"]["module"]["loaded"]
            .as_bool()
            .unwrap(),
        "nothing was done"
    );
}

/// Inside a node: the same program as an ordinary user.
#[test]
#[ignore = "runs inside a node"]
fn without_privileges() {
    use std::os::unix::process::CommandExt;
    let output = std::process::Command::new(common::FAILOVER)
        .args(["--json", "up", "r0"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("\"not-privileged\"") && text.contains("run it as root"),
        "{text}"
    );
}

/// While it serves: busy devices, containers that are not there, full file systems, placements that differ.
#[test]
fn while_serving() {
    let Some(cluster) = Cluster::boot("failover-busy") else {
        return;
    };
    let node = cluster.node("node1");
    cluster.serve();
    let pid = init_pid(&cluster);

    // Somebody stands in the store: named, and refused before anything stops.
    let shell = node
        .spawn(Command::new("/bin/busybox").args(["sh", "-c", "cd /srv/store1; sleep 1000; true"]))
        .unwrap();
    wait_until(|| {
        evidence(&cluster.failover("node1", &["plan", "release", "r0"]))
            .contains("working directory")
    });
    let refused = cluster.failover("node1", &["release", "r0"]);
    assert_eq!(refused.status, Some(3));
    assert!(
        refused.codes().iter().all(|c| c == "mount-held"),
        "{refused:#?}"
    );
    assert!(
        evidence(&refused).contains(&format!("process {} ", shell.id())),
        "{}",
        evidence(&refused)
    );
    shell.kill(9).unwrap();
    assert_eq!(init_pid(&cluster), pid, "nothing was stopped");

    // Somebody holds the device itself, which no mount shows: found by the demotion, rolled back.
    let shell = node
        .spawn(Command::new("/bin/busybox").args([
            "sh",
            "-c",
            "exec 3</dev/drbd0; exec sleep 1000",
        ]))
        .unwrap();
    wait_until(|| {
        node.run([
            "/bin/busybox",
            "readlink",
            &format!("/proc/{}/fd/3", shell.id()),
        ])
        .unwrap()
        .stdout_text()
        .contains("drbd0")
    });
    let undone = cluster.failover("node1", &["release", "r0"]);
    assert_eq!(undone.status, Some(4), "{undone:#?}");
    assert_eq!(undone.end()["step"], "demote");
    let said = undone.end()["message"].as_str().unwrap();
    assert!(
        said.contains(&format!("process {} ", shell.id())) && said.contains("/dev/drbd0"),
        "{said}"
    );
    shell.kill(9).unwrap();
    cluster.assert_serves("node1");
    assert_ne!(init_pid(&cluster), pid, "it was stopped, and runs again");

    // Nobody takes it: taken back.
    let undone = cluster
        .failover("node1", &["release", "r0"])
        .show("release that nobody takes");
    assert_eq!(
        (undone.status, &undone.end()["step"]),
        (Some(4), &Value::from("await-peer-primary"))
    );
    cluster.assert_serves("node1");

    // The other node's placement differs: refused by its digest, and by the record in the store.
    let other = PLACEMENT.replace("stop_deadline = \"10s\"", "stop_deadline = \"11s\"");
    cluster
        .node("node2")
        .write_file("/etc/ha-failover/placement.toml", other.clone(), 0o644)
        .unwrap();
    let digest = cluster.status("node2")["placement_digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let refused = cluster.failover(
        "node1",
        &["release", "r0", "--peer-placement-digest", &digest],
    );
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["placement-differs".to_owned()])
    );
    node.write_file("/run/other.toml", other, 0o644).unwrap();
    let refused = cluster.failover(
        "node1",
        &["release", "r0", "--peer-placement", "/run/other.toml"],
    );
    assert_eq!(refused.status, Some(1));
    assert!(
        error(&refused).contains("stop_deadline"),
        "{}",
        error(&refused)
    );
    let (_, target) = cluster.hand_over("node1", "node2");
    assert_eq!(
        (target.status, &target.end()["step"]),
        (Some(4), &Value::from("verify-store")),
        "{target:#?}"
    );
    assert!(
        target.end()["message"]
            .as_str()
            .unwrap()
            .contains("stop_deadline"),
        "{target:#?}"
    );
    assert!(cluster.serving().is_empty());
    cluster
        .node("node2")
        .write_file("/etc/ha-failover/placement.toml", PLACEMENT, 0o644)
        .unwrap();
    cluster.failover("node1", &["handover", "r0"]).ok("back");
    cluster.assert_serves("node1");

    // A container that the placement has and the store has not.
    let ghost = format!("{PLACEMENT}\n[[resource.container]]\nname = \"ghost\"\n");
    node.write_file("/run/ghost.toml", ghost, 0o644).unwrap();
    let refused = cluster.failover("node1", &["--placement", "/run/ghost.toml", "start", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["container-missing".to_owned()])
    );
    assert!(
        evidence(&refused).contains("container ghost"),
        "{}",
        evidence(&refused)
    );
    let create = |extra: &[&str]| {
        cluster.failover(
            "node1",
            &[
                &["--placement", "/run/ghost.toml", "create-container", "r0"][..],
                extra,
            ]
            .concat(),
        )
    };
    let unknown = create(&[
        "nobody",
        "--rootfs",
        "/run/rootfs",
        "--config",
        "/run/app.config",
    ]);
    assert_eq!(unknown.status, Some(2));
    assert!(
        error(&unknown).contains("container nobody is not in the placement"),
        "{}",
        error(&unknown)
    );
    let twice = create(&[
        "app",
        "--rootfs",
        "/run/rootfs",
        "--config",
        "/run/app.config",
    ]);
    assert_eq!(twice.status, Some(1));
    assert!(error(&twice).contains("there already"), "{}", error(&twice));

    // The store is full: nothing of the container is left.
    let full = create(&[
        "ghost",
        "--rootfs",
        "/usr/lib",
        "--config",
        "/run/app.config",
    ]);
    assert_eq!(full.status, Some(1), "{full:#?}");
    assert!(
        error(&full).to_lowercase().contains("no space left"),
        "{}",
        error(&full)
    );
    let left = node
        .run(["/bin/busybox", "ls", "/srv/store1/containers"])
        .unwrap()
        .stdout_text();
    assert_eq!(left, "app\n");

    // The state directory is full: nothing is done without a journal.
    node.run_ok(["/bin/busybox", "mkdir", "-p", "/run/full"])
        .unwrap();
    node.run_ok([
        "/bin/busybox",
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=16k",
        "none",
        "/run/full",
    ])
    .unwrap();
    let pid = init_pid(&cluster);
    let local = PLACEMENT.replacen(
        "version = 1",
        "version = 1\nlocal.state_dir = \"/run/full\"",
        1,
    );
    node.write_file("/run/full.toml", local, 0o644).unwrap();
    node.run_ok(["/bin/busybox", "mkdir", "-p", "/run/full/r0"])
        .unwrap();
    // It knows the store as its own, or there were another reason.
    let ledger = "/var/lib/ha-failover/r0/ledger.json";
    node.run_ok(["/bin/busybox", "cp", ledger, "/run/full/r0"])
        .unwrap();
    node.run([
        "/bin/busybox",
        "dd",
        "if=/dev/zero",
        "of=/run/full/fill",
        "bs=4k",
    ])
    .unwrap();
    let failed = cluster.failover("node1", &["--placement", "/run/full.toml", "release", "r0"]);
    assert_eq!(failed.status, Some(1), "{failed:#?}");
    assert!(
        error(&failed).contains("/run/full/r0"),
        "{}",
        error(&failed)
    );
    assert!(failed.steps().is_empty());
    assert_eq!(init_pid(&cluster), pid, "nothing was stopped");
}

/// A store that is not Btrfs: containers need subvolumes.
#[test]
fn a_store_that_is_not_btrfs() {
    let Some(cluster) = Cluster::boot("failover-ext") else {
        return;
    };
    let node = cluster.node("node1");
    cluster.failover("node1", &["prepare", "r0"]).ok("prepare");
    cluster.failover("node2", &["prepare", "r0"]).ok("prepare");
    cluster.failover("node1", &["up", "r0"]).ok("up");
    node.run_test("primary_by_hand").unwrap();
    node.run_ok(["/bin/busybox", "mke2fs", "/dev/drbd0"])
        .unwrap();
    node.run_ok([
        "/bin/busybox",
        "mount",
        "-t",
        "ext4",
        "/dev/drbd0",
        "/srv/store1",
    ])
    .unwrap();
    node.run_ok(["/bin/busybox", "mkdir", "/srv/store1/containers"])
        .unwrap();
    let failed = cluster.failover(
        "node1",
        &[
            "create-container",
            "r0",
            "app",
            "--rootfs",
            "/run/rootfs",
            "--config",
            "/run/app.config",
        ],
    );
    assert_eq!(failed.status, Some(2));
    assert!(
        error(&failed).contains("/srv/store1/containers") && error(&failed).contains("not Btrfs"),
        "{}",
        error(&failed)
    );
    let refused = cluster.failover("node1", &["start", "r0"]);
    assert!(
        refused.codes().contains(&"not-btrfs".to_owned()),
        "{refused:#?}"
    );
}

/// Inside a node: what no command of `failover` would do.
#[test]
#[ignore = "runs inside a node"]
fn primary_by_hand() {
    use std::time::Duration;
    let drbd = drbd_nl::Drbd::open().unwrap();
    let resource = drbd_nl::ResourceName::new("r0").unwrap();
    let operation = drbd_nl::Operation::InitializeFromHere { resource };
    assert_eq!(
        drbd.run(&operation, Duration::from_secs(20)).unwrap(),
        drbd_nl::Outcome::Done
    );
}

fn wait_until(mut so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < common::DEADLINE);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
