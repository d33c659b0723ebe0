//! Two stores with several containers: from disks that hold something else to a node that is emptied
//! and filled again, and the start after both nodes have lost power.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Cluster, Run};
use serde_json::Value;

const DRBD_CONF: &str = r#"
global { usage-count no; }
resource r0 {
    protocol C;
    disk { c-plan-ahead 0; resync-rate 200M; }
    on node1 { device /dev/drbd0; disk /dev/ubda1; address 10.0.254.1:7788; meta-disk internal; }
    on node2 { device /dev/drbd0; disk /dev/ubda1; address 10.0.254.2:7788; meta-disk internal; }
}
resource r1 {
    protocol C;
    disk { c-plan-ahead 0; resync-rate 200M; }
    on node1 { device /dev/drbd1; disk /dev/ubdb1; address 10.0.254.1:7789; meta-disk internal; }
    on node2 { device /dev/drbd1; disk /dev/ubdb1; address 10.0.254.2:7789; meta-disk internal; }
}
"#;

const PLACEMENT: &str = r#"
version = 1
[[resource]]
name = "r0"
mount = "/srv/store1"
lxcpath = "/srv/store1/containers"
owner = "node1"
nodes.node1.address = "10.0.254.1"
nodes.node2.address = "10.0.254.2"
deadlines = { connect = "10s", boot = "15s", handover = "100s", take_back = "60s" }
fence = { method = "command", status = ["/run/lab/power", "status", "{node}"], off = ["/run/lab/power", "off", "{node}"] }
[[resource.container]]
name = "web"
after = ["db"]
[[resource.container]]
name = "db"
ready.exec = ["/bin/busybox", "test", "-e", "/ready"]
[[resource]]
name = "r1"
mount = "/srv/store2"
lxcpath = "/srv/store2/containers"
owner = "node2"
nodes.node1.address = "10.0.254.1"
nodes.node2.address = "10.0.254.2"
deadlines = { connect = "10s", boot = "15s", handover = "100s", take_back = "60s" }
[[resource.container]]
name = "mail"
"#;

/// Without a network of its own: the bridge has another test.
const CONFIG: &str = "\
lxc.uts.name = one
lxc.mount.auto = proc:mixed sys:ro
lxc.signal.halt = SIGUSR1
lxc.net.0.type = empty
";

fn boot(name: &str) -> Option<Cluster> {
    let cluster = Cluster::boot_on(name, DRBD_CONF, PLACEMENT, &["160M", "160M"])?;
    for node in ["node1", "node2"] {
        cluster
            .node(node)
            .write_file("/run/one.config", CONFIG, 0o644)
            .unwrap();
    }
    Some(cluster)
}

fn reboot(cluster: &Cluster, node: &str) {
    cluster.node(node).boot().unwrap();
    cluster.furnish(node, DRBD_CONF, PLACEMENT);
}

/// Both stores initialized where they belong, all containers made.
fn found(cluster: &Cluster) {
    for resource in ["r0", "r1"] {
        cluster.on_both(&["partition", resource]);
        cluster.on_both(&["prepare", resource]);
    }
    for (resource, node) in [("r0", "node1"), ("r1", "node2")] {
        cluster.await_connected(node, resource);
        cluster
            .failover(node, &["initialize", resource])
            .ok("initialize");
    }
    for (resource, node, name) in [
        ("r0", "node1", "db"),
        ("r0", "node1", "web"),
        ("r1", "node2", "mail"),
    ] {
        let from = ["--rootfs", "/run/rootfs", "--config", "/run/one.config"];
        let arguments = [&["create-container", resource, name], &from[..]].concat();
        cluster.failover(node, &arguments).ok("create-container");
    }
}

fn serves(cluster: &Cluster, node: &str, resource: &str) -> bool {
    let run = cluster.failover(node, &["status", resource]).ok("status");
    run.events[0]["resources"][0]["serving"] == true
}

fn assert_served(cluster: &Cluster, wanted: [(&str, &str); 2]) {
    for (resource, at) in wanted {
        for node in ["node1", "node2"] {
            assert_eq!(
                serves(cluster, node, resource),
                node == at,
                "{resource} on {node}"
            );
        }
    }
}

fn started(run: &Run) -> Vec<String> {
    run.events
        .iter()
        .filter(|e| e["event"] == "step" && e["step"] == "start-container")
        .map(|e| e["text"].as_str().unwrap().to_owned())
        .collect()
}

fn subvolumes(cluster: &Cluster, node: &str) -> String {
    let list = ["/bin/btrfs", "subvolume", "list", "-r", "/srv/store1"];
    cluster.node(node).run_ok(list).unwrap().stdout_text()
}

#[test]
fn two_stores() {
    let Some(cluster) = boot("failover-stores") else {
        return;
    };
    // A disk that holds something: named, left alone, then given up by name.
    let node2 = cluster.node("node2");
    node2
        .run_ok(["/sbin/mkfs.btrfs", "-q", "/dev/ubda"])
        .unwrap();
    let refused = cluster.failover("node2", &["partition", "r0"]);
    assert_eq!(
        (refused.status, refused.codes()),
        (Some(3), vec!["disk-not-blank".to_owned()])
    );
    assert!(
        refused.events[0].to_string().contains("btrfs"),
        "{refused:#?}"
    );
    let erase = ["partition", "r0", "--erase", "the test: nothing of value"];
    cluster.failover("node2", &erase).ok("partition --erase");
    // The tool that everybody knows reads the same table.
    let table = node2
        .run_ok(["/sbin/sfdisk", "--dump", "/dev/ubda"])
        .unwrap()
        .stdout_text();
    assert!(table.contains("label: dos"), "{table}");
    assert!(
        table.contains("/dev/ubda1 : start=        2048, size=      325632, type=83"),
        "{table}"
    );
    let again = cluster
        .failover("node2", &["partition", "r0"])
        .ok("partition again");
    assert!(again.steps().is_empty(), "{again:#?}");

    found(&cluster);
    let refused = cluster.failover("node2", &erase);
    assert!(
        refused.steps().is_empty(),
        "an attached disk is left alone: {refused:#?}"
    );
    // `web` stands first in the file and is started after `db`.
    let start = cluster.failover("node1", &["start", "r0"]).ok("start r0");
    assert_eq!(
        started(&start),
        ["start container db", "start container web"]
    );
    cluster.failover("node2", &["start", "r1"]).ok("start r1");
    cluster.on_both(&["wait-sync", "r0"]);
    cluster.on_both(&["wait-sync", "r1"]);
    assert_served(&cluster, [("r0", "node1"), ("r1", "node2")]);

    // Snapshots: kept, seen by Btrfs's own tool, and made a container again.
    cluster
        .failover("node1", &["snapshot", "r0", "db", "--name", "monday"])
        .ok("snapshot");
    cluster
        .failover("node1", &["snapshot", "r0", "db"])
        .ok("snapshot named by the time");
    let refused = cluster.failover("node1", &["snapshot", "r0", "db", "--name", "monday"]);
    assert_eq!(refused.codes(), ["snapshot-exists"]);
    let refused = cluster.failover("node2", &["snapshot", "r0", "db"]);
    assert_eq!(refused.codes(), ["store-not-mounted"]);
    let list = cluster
        .failover("node1", &["snapshots", "r0", "db"])
        .ok("snapshots");
    let kept = list.events[0]["snapshots"]["db"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(
        (kept.len(), &kept[0]["name"], &kept[0]["epoch"]),
        (2, &"monday".into(), &1.into())
    );
    let seen = subvolumes(&cluster, "node1");
    assert!(
        seen.contains("path .ha-failover/snapshots/db/monday") && seen.lines().count() == 2,
        "{seen}"
    );
    let space = cluster.failover("node1", &["space", "r0"]).ok("space");
    assert_eq!(space.events[0]["space"]["snapshots"]["db"], 2, "{space:#?}");
    assert_eq!(
        space.events[0]["space"]["device_errors"],
        Value::Array(Vec::new())
    );

    // The node is emptied: what it serves goes, what it does not serve stays.
    let mut target = cluster.spawn("node2", &["evacuate", "node1"]);
    target.until("await-peer-secondary");
    let source = cluster
        .failover("node1", &["evacuate", "node1"])
        .ok("evacuate, source");
    assert_eq!(
        source.events[0]["plan"]["gives"].as_array().unwrap().len(),
        1
    );
    let target = target.wait().ok("evacuate, target");
    assert_eq!(
        started(&target),
        ["start container db", "start container web"]
    );
    assert_served(&cluster, [("r0", "node2"), ("r1", "node2")]);
    cluster
        .failover("node1", &["evacuate", "node1"])
        .ok("nothing left");
    // The snapshots have moved with the store; one becomes a container, which the placement does not have.
    let restore = ["restore-snapshot", "r0", "db", "monday", "--into", "db-old"];
    cluster.failover("node2", &restore).ok("restore-snapshot");
    assert_eq!(
        cluster.failover("node2", &restore).codes(),
        ["container-exists"]
    );
    let lxc = ["/bin/lxc-ls", "-P", "/srv/store1/containers", "-1"];
    let names = cluster.node("node2").run_ok(lxc).unwrap().stdout_text();
    assert_eq!(
        names.split_whitespace().collect::<Vec<_>>(),
        ["db", "db-old", "web"]
    );
    let run = [
        "/bin/lxc-start",
        "-P",
        "/srv/store1/containers",
        "-n",
        "db-old",
    ];
    cluster.node("node2").run_ok(run).unwrap();
    let stop = [
        "/bin/lxc-stop",
        "-P",
        "/srv/store1/containers",
        "-n",
        "db-old",
        "-k",
    ];
    cluster.node("node2").run_ok(stop).unwrap();
    for snapshot in &kept {
        let name = snapshot["name"].as_str().unwrap();
        cluster
            .failover("node2", &["delete-snapshot", "r0", "db", name])
            .ok("delete-snapshot");
    }
    assert_eq!(subvolumes(&cluster, "node2"), "");
    assert_eq!(
        cluster
            .failover("node2", &["delete-snapshot", "r0", "db", "monday"])
            .codes(),
        ["snapshot-missing"]
    );

    // And back to where the placement wants them.
    let mut target = cluster.spawn("node1", &["balance", "--take"]);
    target.until("await-peer-secondary");
    cluster
        .failover("node2", &["balance", "--give"])
        .ok("balance, source");
    target.wait().ok("balance, target");
    assert_served(&cluster, [("r0", "node1"), ("r1", "node2")]);
}

/// node2 dies first and misses writes, then node1 dies: whichever boots first, what node1 has is served.
fn cold_start(cluster: &Cluster, first: &str) {
    let second = if first == "node1" { "node2" } else { "node1" };
    cluster.node("node2").kill().unwrap();
    let mark = format!("written while node2 was off, before {first} boots");
    let node1 = cluster.node("node1");
    node1
        .write_file("/srv/store1/mark", mark.as_str(), 0o644)
        .unwrap();
    node1.run_ok(["/bin/busybox", "sync"]).unwrap();
    node1.kill().unwrap();

    reboot(cluster, first);
    let alone = cluster.failover(first, &["boot", "r0"]).ok("boot alone");
    assert!(!alone.steps().contains(&"promote".to_owned()), "{alone:#?}");
    let refused = cluster.failover(first, &["start", "r0"]);
    assert_eq!(refused.status, Some(3), "{refused:#?}");
    let refused = cluster.failover(first, &["takeover", "r0"]);
    assert!(
        refused.codes().contains(&"data-may-be-stale".to_owned()),
        "{refused:#?}"
    );
    reboot(cluster, second);
    cluster.on_both(&["boot", "r0"]);
    assert!(serves(cluster, "node1", "r0"), "{first} first");
    let read = node1.read_file("/srv/store1/mark").unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), mark, "{first} first");
    cluster.on_both(&["wait-sync", "r0"]);
}

#[test]
fn after_both_have_lost_power() {
    let Some(cluster) = boot("failover-cold") else {
        return;
    };
    found(&cluster);
    cluster.failover("node1", &["start", "r0"]).ok("start");
    cluster.on_both(&["wait-sync", "r0"]);
    for first in ["node2", "node1"] {
        cold_start(&cluster, first);
    }
}
