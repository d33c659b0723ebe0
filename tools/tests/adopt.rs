//! A cluster that runs under drbdadm and lxc-start is taken over, moved, and left to them again, and its
//! container never notices.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Cluster, PLACEMENT, WRITER, conf_with};

const LXCPATH: &str = "/srv/store1/containers";

/// The set-up as its operator made it, by the tools he knows.
const PREPARE: &str = "\
set -e
cd /
drbdadm create-md --force r0 </dev/null
drbdadm up r0
mkdir -p /srv/store1
";
const SERVE: &str = "\
set -e
drbdadm primary --force r0
/sbin/mkfs.btrfs -q /dev/drbd0
mount -t btrfs /dev/drbd0 /srv/store1
mkdir -p /srv/store1/containers/app
/bin/btrfs -q subvolume create /srv/store1/containers/app/rootfs
cp -a /run/rootfs/. /srv/store1/containers/app/rootfs/
cp /run/app.config /srv/store1/containers/app/config
echo 'lxc.rootfs.path = btrfs:/srv/store1/containers/app/rootfs' >> /srv/store1/containers/app/config
lxc-start -P /srv/store1/containers -n app
lxc-wait -P /srv/store1/containers -n app -s RUNNING -t 60
";

fn sh(cluster: &Cluster, node: &str, script: &str) -> String {
    let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH";
    let script = format!("{path}\n{script}");
    let command = uml_lab::Command::new("/bin/sh")
        .args(["-c", &script])
        .deadline(common::DEADLINE);
    cluster.node(node).run_ok(command).unwrap().stdout_text()
}

fn init_pid(cluster: &Cluster, node: &str) -> String {
    let text = sh(cluster, node, &format!("lxc-info -P {LXCPATH} -n app -pH"));
    assert!(text.trim().parse::<u32>().is_ok(), "{text}");
    text
}

fn helper(cluster: &Cluster, node: &str) -> String {
    let path = "/sys/module/drbd/parameters/usermode_helper";
    String::from_utf8(cluster.node(node).read_file(path).unwrap()).unwrap()
}

/// Nobody's file says that somebody else manages the store.
fn clear(cluster: &Cluster, node: &str) {
    // The nodes' root is the tree of the host, whatever that has enabled.
    sh(
        cluster,
        node,
        "rm -rf /etc/systemd/system/*.wants /etc/rc?.d; :> /etc/fstab",
    );
}

#[test]
fn taken_over_and_handed_back_without_a_gap() {
    let conf = conf_with("");
    let packages = ["drbd-utils"];
    let Some(cluster) = Cluster::boot_among(
        "failover-adopt",
        &conf,
        PLACEMENT,
        &["160M".into()],
        &packages,
    ) else {
        return;
    };
    let both = ["node1", "node2"];
    for name in both {
        let node = cluster.node(name);
        node.load_module("drbd", ["usermode_helper=/bin/true"])
            .unwrap();
        clear(&cluster, name);
        sh(&cluster, name, PREPARE);
    }
    cluster
        .node("node1")
        .write_file("/run/rootfs/rc", WRITER, 0o644)
        .unwrap();
    let nobody = cluster.failover("node1", &["adopt", "r0"]);
    assert_eq!(nobody.status, Some(3), "{nobody:#?}");
    sh(&cluster, "node1", SERVE);
    cluster.await_more_numbers("node1", 0);
    let pid = init_pid(&cluster, "node1");

    // Before it is adopted nothing here acts on it.
    for command in ["start", "release", "handover"] {
        let refused = cluster.failover("node1", &[command, "r0"]);
        assert_eq!(refused.status, Some(3), "{command}: {refused:#?}");
    }
    // Who else would act on it is named, and so is what runs otherwise than the files say.
    sh(&cluster, "node1", "mkdir -p /etc/systemd/system/multi-user.target.wants /etc/drbd-reactor.d
        cd /etc/systemd/system/multi-user.target.wants; : > drbd.service; : > lxc.service; : > pacemaker.service
        echo '/dev/drbd0 /srv/store1 btrfs defaults 0 0' > /etc/fstab
        printf '[[promoter]]\\n[promoter.resources.r0]\\nstart = []\\n' > /etc/drbd-reactor.d/r0.toml
        echo 'lxc.start.auto = 1' >> /srv/store1/containers/app/config");
    cluster
        .node("node1")
        .write_file(
            "/etc/drbd.conf",
            conf.replace("resync-rate 200M", "resync-rate 100M"),
            0o600,
        )
        .unwrap();
    let refused = cluster.failover("node1", &["adopt", "r0"]);
    assert_eq!(refused.status, Some(3), "{refused:#?}");
    let codes = refused.codes();
    for code in [
        "drbd-service",
        "pacemaker",
        "fstab-automount",
        "drbd-reactor",
        "container-autostart",
        "resource-differs",
    ] {
        assert!(codes.contains(&code.to_owned()), "{code}: {codes:?}");
    }
    assert!(
        !codes.contains(&"lxc-service".to_owned()),
        "a warning: {codes:?}"
    );
    assert_eq!(
        helper(&cluster, "node1"),
        "/bin/true\n",
        "nothing was changed"
    );
    clear(&cluster, "node1");
    sh(
        &cluster,
        "node1",
        "rm /etc/drbd-reactor.d/r0.toml; sed -i '/start.auto/d' /srv/store1/containers/app/config",
    );
    cluster
        .node("node1")
        .write_file("/etc/drbd.conf", conf.as_str(), 0o600)
        .unwrap();
    assert_eq!(init_pid(&cluster, "node1"), pid);

    // Taken over, killed on the way, on both nodes.
    let before = cluster.numbers("node1");
    for at in ["after:set-helper", "after:claim"] {
        let killed = cluster.failover("node1", &["adopt", "r0", "--die-at", at]);
        assert_eq!(killed.status, None, "{at}: {killed:#?}");
    }
    let adopted = cluster
        .failover("node1", &["adopt", "r0"])
        .ok("adopt")
        .show("adopt");
    eprintln!("the rerun did {:?}", adopted.steps());
    cluster
        .failover("node2", &["adopt", "r0"])
        .ok("adopt, node2");
    for node in both {
        let again = cluster.failover(node, &["adopt", "r0"]).ok("again");
        assert!(again.steps().is_empty(), "{again:#?}");
        // drbdadm made metadata for one peer, with which DRBD 9 alone may skip its activity log.
        let version = "/sys/module/drbd/version";
        let version = cluster.node(node).read_file(version).unwrap();
        let warned = again
            .warnings()
            .iter()
            .any(|code| code == "activity-log-may-be-skipped");
        assert_eq!(warned, version.starts_with(b"9."), "{node}: {again:#?}");
        let ledger = cluster.status(node)["facts"]["ledger"].clone();
        assert_eq!(ledger["owner"], "node1", "{ledger}");
        assert_eq!(ledger["helper_before"], "/bin/true", "{ledger}");
        assert!(helper(&cluster, node).contains("drbd-helper"));
    }
    assert_eq!(
        init_pid(&cluster, "node1"),
        pid,
        "the container was not touched"
    );
    let record = "/srv/store1/.ha-failover/owner.json";
    let record = cluster.node("node1").read_file(record).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(
        (&record["owner"], &record["epoch"]),
        (&"node1".into(), &1.into())
    );
    cluster.await_more_numbers("node1", before);
    cluster.assert_serves("node1");

    // It is ours: moved by a handover, and lost and taken over as well as any.
    cluster.on_both(&["wait-sync", "r0"]);
    let (source, target) = cluster.hand_over("node1", "node2");
    source.ok("release").show("release");
    target.ok("handover").show("handover");
    cluster.assert_serves("node2");
    let pid = init_pid(&cluster, "node2");
    let before = cluster.numbers("node2");

    // Left to those who ran it.
    for at in ["before:set-helper", "before:record-handed-back"] {
        let killed = cluster.failover("node2", &["hand-back", "r0", "--die-at", at]);
        assert_eq!(killed.status, None, "{at}: {killed:#?}");
    }
    cluster.on_both(&["hand-back", "r0"]);
    for node in both {
        assert_eq!(helper(&cluster, node), "/bin/true\n");
        for command in ["start", "release", "up", "down"] {
            let refused = cluster.failover(node, &[command, "r0"]);
            assert_eq!(refused.codes(), ["handed-back"], "{command}: {refused:#?}");
        }
        let boot = cluster.failover(node, &["boot"]).ok("boot");
        assert!(boot.steps().is_empty(), "{boot:#?}");
        cluster.failover(node, &["shutdown"]).ok("shutdown");
        assert_eq!(
            sh(&cluster, node, "drbdadm -d adjust r0"),
            "",
            "nothing to adjust"
        );
        let note = sh(&cluster, node, "cat /var/lib/drbd/drbd-minor-0.lkbd");
        assert!(
            note.starts_with(&format!("{}\t/dev/ubda", 160 << 20)),
            "{note}"
        );
    }
    assert_eq!(
        init_pid(&cluster, "node2"),
        pid,
        "the container was not touched"
    );
    cluster.await_more_numbers("node2", before);
    let status = sh(
        &cluster,
        "node2",
        "drbdadm status r0 || drbdadm cstate r0; drbdadm role r0",
    );
    assert!(status.contains("Primary"), "{status}");
    let info = sh(
        &cluster,
        "node2",
        &format!("lxc-info -P {LXCPATH} -n app -sH"),
    );
    assert_eq!(info.trim(), "RUNNING");

    let before = cluster.numbers("node2");
    // They stop it, move it, and start it; and it can be adopted where they left it.
    sh(
        &cluster,
        "node2",
        &format!(
            "set -e; lxc-stop -P {LXCPATH} -n app -t 20; umount /srv/store1; drbdadm secondary r0"
        ),
    );
    sh(
        &cluster,
        "node1",
        &format!(
            "set -e; drbdadm primary r0; mount -t btrfs /dev/drbd0 /srv/store1; lxc-start -P {LXCPATH} -n app"
        ),
    );
    cluster.await_more_numbers("node1", before);
    cluster.on_both(&["adopt", "r0"]);
    cluster.assert_serves("node1");
    assert_eq!(cluster.status("node1")["facts"]["ledger"]["epoch"], 3);
}
