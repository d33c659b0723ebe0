//! Larger disks taken into use: a partition and a device that grow under a running container, and disks
//! that grew while their node was off.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Cluster, PLACEMENT, WRITER, conf_with};
use serde_json::Value;

/// r0 on a partition that does not fill its disk, r1 on a device that can be given another size.
const CONF: &str = r#"
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
    on node1 { device /dev/drbd1; disk /dev/dm-0; address 10.0.254.1:7789; meta-disk internal; }
    on node2 { device /dev/drbd1; disk /dev/dm-0; address 10.0.254.2:7789; meta-disk internal; }
}
"#;

const SECOND: &str = r#"
[[resource]]
name = "r1"
mount = "/srv/store2"
lxcpath = "/srv/store2/containers"
owner = "node1"
nodes.node1.address = "10.0.254.1"
nodes.node2.address = "10.0.254.2"
deadlines = { drbd = "6s" }
"#;

const MIB: u64 = 1 << 20;

/// A device of r1 with so many MiB, made or changed under who uses it.
fn device(cluster: &Cluster, node: &str, mib: u64) {
    let script = format!(
        "set -e; table=\"0 {} linear /dev/ubdb 0\"; d='/sbin/dmsetup --noudevsync --noudevrules'\n\
         if [ -e /dev/dm-0 ]; then $d suspend elastic; $d reload elastic --table \"$table\"; $d resume elastic\n\
         else $d create elastic --table \"$table\"; fi\n",
        mib * 2048
    );
    let node = cluster.node(node);
    node.write_file("/run/device", script, 0o755).unwrap();
    node.run_ok(["/bin/busybox", "sh", "-e", "/run/device"])
        .unwrap();
}

/// What the kernel says of a device's size, in MiB.
fn kernel_size(cluster: &Cluster, node: &str, device: &str) -> u64 {
    let path = format!("/sys/class/block/{device}/size");
    let text = cluster.node(node).read_file(path).unwrap();
    let sectors: u64 = String::from_utf8(text).unwrap().trim().parse().unwrap();
    sectors / 2048
}

/// What `statfs` says of a store's size, in MiB.
fn statfs(cluster: &Cluster, node: &str, mount: &str) -> u64 {
    let command = ["/bin/busybox", "stat", "-f", "-c", "%b %S", mount];
    let text = cluster.node(node).run_ok(command).unwrap().stdout_text();
    let mut words = text.split_whitespace().map(|w| w.parse::<u64>().unwrap());
    words.next().unwrap() * words.next().unwrap() / MIB
}

fn backing(cluster: &Cluster, node: &str, resource: &str) -> Value {
    let run = cluster.failover(node, &["status", resource]).ok("status");
    run.events[0]["resources"][0]["facts"]["backing"]["0"].clone()
}

fn init_pid(cluster: &Cluster) -> Value {
    cluster.status("node1")["facts"]["containers"]["app"]["init_pid"].clone()
}

fn boot(name: &str) -> Option<Cluster> {
    let placement = format!(
        "{}{SECOND}",
        PLACEMENT.replace("demote = \"5s\"", "demote = \"5s\"\ndrbd = \"6s\"")
    );
    let cluster = Cluster::boot_on(name, CONF, &placement, &["384M", "384M"])?;
    for name in ["node1", "node2"] {
        let node = cluster.node(name);
        node.load_module::<&str>("dm_mod", []).unwrap();
        device(&cluster, name, 160);
        node.write_file(
            "/run/table",
            "label: dos\nstart=2048, size=327680, type=83\n",
            0o644,
        )
        .unwrap();
        node.run_ok([
            "/bin/busybox",
            "sh",
            "-c",
            "/sbin/sfdisk -q /dev/ubda < /run/table",
        ])
        .unwrap();
    }
    Some(cluster)
}

/// r1 without containers, served by node1.
fn serve_second(cluster: &Cluster) {
    cluster.on_both(&["prepare", "r1"]);
    cluster.await_connected("node1", "r1");
    let refused = cluster.failover("node1", &["grow", "r1"]);
    assert!(
        refused.codes().contains(&"not-primary".to_owned()),
        "{refused:#?}"
    );
    cluster
        .failover("node1", &["initialize", "r1", "--wait-sync"])
        .ok("initialize r1");
}

#[test]
fn under_a_running_container() {
    let Some(cluster) = boot("failover-grow") else {
        return;
    };
    cluster
        .node("node1")
        .write_file("/run/rootfs/rc", WRITER, 0o644)
        .unwrap();
    cluster.serve();
    serve_second(&cluster);
    let pid = init_pid(&cluster);
    let before = cluster.numbers("node1");

    // The partition can grow; nothing has grown under r1.
    for node in ["node1", "node2"] {
        let refused = cluster.failover(node, &["grow", "r1"]);
        assert_eq!(refused.codes(), ["nothing-to-grow"], "{refused:#?}");
    }
    let theirs = backing(&cluster, "node2", "r0")["offers"].to_string();
    let refused = cluster.failover("node1", &["grow", "r0", "--peer-offers", &theirs]);
    assert_eq!(refused.codes(), ["peer-disk-smaller"], "{refused:#?}");
    let table = |node: &str| {
        let dump = ["/sbin/sfdisk", "--dump", "/dev/ubda"];
        cluster.node(node).run_ok(dump).unwrap().stdout_text()
    };
    assert!(
        table("node1").contains("size=      327680"),
        "nothing was changed"
    );

    // Only here: DRBD stays as it is, and so does the service.
    let alone = cluster.failover("node1", &["grow", "r0"]);
    assert_eq!(
        (alone.status, alone.steps()),
        (
            Some(1),
            vec!["grow-partition".to_owned(), "grow-device".to_owned()]
        ),
        "{alone:#?}"
    );
    assert!(
        alone.end()["message"]
            .as_str()
            .unwrap()
            .contains("node2 offers no more")
    );
    assert!(
        table("node1").contains("size=      784384"),
        "{}",
        table("node1")
    );
    assert_eq!(kernel_size(&cluster, "node1", "ubda1"), 383);
    assert_eq!(kernel_size(&cluster, "node1", "drbd0"), 159);

    // The other side prepares its disk, however often it is killed meanwhile.
    for at in ["before:grow-partition", "after:grow-partition"] {
        let killed = cluster.failover("node2", &["grow", "r0", "--die-at", at]);
        assert_eq!(killed.status, None, "{at}: {killed:#?}");
    }
    let ready = cluster.failover("node2", &["grow", "r0"]).ok("grow, node2");
    assert!(ready.steps().is_empty(), "{ready:#?}");
    assert_eq!(kernel_size(&cluster, "node2", "ubda1"), 383);

    // Killed between DRBD and Btrfs, while the new part is synced.
    let theirs = backing(&cluster, "node2", "r0")["offers"].to_string();
    let grow = ["grow", "r0", "--peer-offers", &theirs];
    let killed = cluster.failover(
        "node1",
        &[&grow[..], &["--die-at", "after:grow-device"]].concat(),
    );
    assert_eq!(killed.status, None, "{killed:#?}");
    let rest = cluster
        .failover("node1", &["grow", "r0", "--wait-sync"])
        .ok("the rest")
        .show("grow r0");
    assert_eq!(rest.steps(), ["grow-store", "await-sync", "record-seen"]);
    cluster
        .failover("node2", &["wait-sync", "r0"])
        .ok("wait-sync");
    for node in ["node1", "node2"] {
        assert_eq!(kernel_size(&cluster, node, "drbd0"), 382, "{node}");
        let noted = backing(&cluster, node, "r0");
        assert_eq!(
            (&noted["noted"], &noted["size"]),
            (&(383 * MIB).into(), &(383 * MIB).into()),
            "{node}"
        );
    }
    assert_eq!(statfs(&cluster, "node1", "/srv/store1"), 382);
    assert_eq!(init_pid(&cluster), pid, "the container was not touched");
    assert!(cluster.numbers("node1") > before);
    let refused = cluster.failover("node1", &["grow", "r0"]);
    assert_eq!(refused.codes(), ["nothing-to-grow"], "{refused:#?}");

    // A device that grows while it is attached. Without the peer nothing is done.
    for node in ["node1", "node2"] {
        device(&cluster, node, 288);
    }
    cluster.failover("node2", &["down", "r1"]).ok("down");
    let refused = cluster.failover("node1", &["grow", "r1"]);
    assert!(
        refused.codes().contains(&"not-connected".to_owned()),
        "{refused:#?}"
    );
    // It grew while it was not attached there.
    let up = cluster.failover("node2", &["up", "r1"]).ok("up");
    eprintln!("up over a grown device: {:?}", up.steps());
    cluster.await_connected("node2", "r1");
    cluster
        .failover("node1", &["wait-sync", "r1"])
        .ok("wait-sync");
    cluster
        .failover("node1", &["grow", "r1"])
        .ok("grow r1")
        .show("grow r1");
    for node in ["node1", "node2"] {
        assert_eq!(kernel_size(&cluster, node, "drbd1"), 287, "{node}");
    }
    assert_eq!(statfs(&cluster, "node1", "/srv/store2"), 287);

    // More than the old device could hold, read from the other node's disk, and sound.
    let dd = "/bin/busybox dd if=/dev/urandom of=/srv/store1/fill bs=1M count=240 && /bin/busybox sync && /bin/busybox md5sum /srv/store1/fill";
    let sum = cluster
        .node("node1")
        .run_ok(["/bin/busybox", "sh", "-c", dd])
        .unwrap()
        .stdout_text();
    let (source, target) = cluster.hand_over("node1", "node2");
    source.ok("release");
    target.ok("handover");
    let again = ["/bin/busybox", "md5sum", "/srv/store1/fill"];
    assert_eq!(
        cluster.node("node2").run_ok(again).unwrap().stdout_text(),
        sum
    );
    let scrub = ["/bin/btrfs", "scrub", "start", "-B", "/srv/store1"];
    let scrubbed = cluster.node("node2").run_ok(scrub).unwrap().stdout_text();
    assert!(scrubbed.contains("no errors found"), "{scrubbed}");
    assert!(cluster.numbers("node2") > before);
    assert_eq!(statfs(&cluster, "node2", "/srv/store1"), 382);
}

/// `kill -9` before and after every step of a growing device: running it again ends at the new size.
#[test]
#[ignore = "deep"]
fn deep_a_rerun_converges_after_kill_9() {
    let Some(cluster) = boot("failover-grow-crash") else {
        return;
    };
    serve_second(&cluster);
    let mut mib = 256;
    for step in ["grow-device", "grow-store", "record-seen"] {
        for when in ["before", "after"] {
            mib += 16;
            for node in ["node1", "node2"] {
                device(&cluster, node, mib);
            }
            let at = format!("{when}:{step}");
            let killed = cluster.failover("node1", &["grow", "r1", "--die-at", &at]);
            assert_eq!(killed.status, None, "{at}: {killed:#?}");
            let again = cluster.failover("node1", &["grow", "r1"]);
            eprintln!("{at}: the rerun did {:?}", again.steps());
            assert!(
                again.status == Some(0)
                    || (at == "after:record-seen" && again.codes() == ["nothing-to-grow"]),
                "{at}: {again:#?}"
            );
            cluster.on_both(&["wait-sync", "r1"]);
            for node in ["node1", "node2"] {
                assert_eq!(
                    kernel_size(&cluster, node, "drbd1"),
                    mib - 1,
                    "{at}: {node}"
                );
                assert_eq!(
                    backing(&cluster, node, "r1")["noted"],
                    mib * MIB,
                    "{at}: {node}"
                );
            }
            assert_eq!(statfs(&cluster, "node1", "/srv/store2"), mib - 1, "{at}");
        }
    }
}

/// A node comes back with a larger disk: its metadata is not where it belongs, and is moved there.
#[test]
fn while_a_node_was_off() {
    let conf = conf_with("");
    let Some(cluster) = Cluster::boot_on("failover-grow-off", &conf, PLACEMENT, &["160M"]) else {
        return;
    };
    cluster.serve();
    for node in ["node2", "node1"] {
        // node1 is lost while it serves: its activity log has to be applied before its metadata moves.
        cluster.node(node).kill().unwrap();
        let disk = std::fs::OpenOptions::new()
            .write(true)
            .open(cluster.node(node).disk_path(0))
            .unwrap();
        disk.set_len(288 * MIB).unwrap();
        cluster.node(node).boot().unwrap();
        cluster.furnish(node, &conf, PLACEMENT);
        assert_eq!(kernel_size(&cluster, node, "ubda"), 288, "{node}");
        for at in ["before:move-metadata", "after:move-metadata"] {
            let killed = cluster.failover(node, &["up", "r0", "--die-at", at]);
            if killed.status.is_some() {
                // Only the first of the two is needed if the move was done.
                assert_eq!(at, "after:move-metadata", "{node}: {killed:#?}");
            }
        }
        let up = cluster.failover(node, &["up", "r0"]).ok("up");
        eprintln!("{node}: {:?}", up.steps());
        assert!(
            !up.steps().contains(&"move-metadata".to_owned()),
            "{node}: moved once"
        );
        cluster.await_connected(node, "r0");
        cluster
            .failover("node2", &["wait-sync", "r0"])
            .ok("wait-sync");
    }
    cluster.failover("node1", &["start", "r0"]).ok("start");
    cluster.assert_serves("node1");
    assert_eq!(cluster.epochs("node1"), "node1 1\nnode1 1\n");
    cluster
        .failover("node1", &["grow", "r0", "--wait-sync"])
        .ok("grow")
        .show("grow");
    for node in ["node1", "node2"] {
        assert_eq!(kernel_size(&cluster, node, "drbd0"), 287, "{node}");
    }
    assert_eq!(statfs(&cluster, "node1", "/srv/store1"), 287);
}
