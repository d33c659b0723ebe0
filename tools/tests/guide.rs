//! docs/guide.md, done: its files on two nodes, its commands in its order.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::Path;

use common::{Cluster, DEADLINE, FAILOVER};
use uml_lab::{Child, Command};

const GUIDE: &str = include_str!("../../docs/guide.md");

/// What the machines of the guide have, and its files do not make: names of the disks, the power
/// switch, a root file system. Its init serves HTTP, and stops by a signal of its own.
const MACHINE: &str = r#"
set -e
ln -sf /dev/ubda /dev/sdb; ln -sf /dev/ubda1 /dev/sdb1
ln -sf /run/lab/power /usr/local/sbin/power
for program in failover backup; do ln -sf $PROGRAMS/$program /usr/local/sbin/$program; done
mkdir -p /srv/store1 /var/backups/web /srv/images/web/etc
cp -a /run/rootfs/. /srv/images/web
echo 'lxc.signal.halt = SIGUSR1' >>/root/web.config
ip address replace 10.1.0.5/24 dev br0
"#;
const INITTAB: &str = "\
::respawn:/bin/busybox httpd -f -p 80 -h /etc
::shutdown:/bin/busybox sync
";

/// The files of the guide: a line that ends in a path, and the block after it.
fn files() -> Vec<(&'static str, &'static str)> {
    let parts: Vec<&str> = GUIDE.split("```").collect();
    let mut files = Vec::new();
    for pair in parts.windows(2).step_by(2) {
        let Some(before) = pair[0].trim_end().strip_suffix("`:") else {
            continue;
        };
        let (_, path) = before.rsplit_once('`').unwrap();
        let (_, content) = pair[1].split_once('\n').unwrap();
        files.push((path, content));
    }
    files
}

/// The lines of its console blocks.
fn lines() -> impl Iterator<Item = &'static str> {
    let blocks = GUIDE.split("```console\n").skip(1);
    blocks.flat_map(|block| block.split("```").next().unwrap().lines())
}

fn furnish(cluster: &Cluster, node: &str) {
    let node_ = cluster.node(node);
    for (path, content) in files() {
        node_.write_file(path, content, 0o600).unwrap();
    }
    node_
        .write_file("/run/rootfs/etc/inittab", INITTAB, 0o644)
        .unwrap();
    node_.run_test("common::furnish_node").unwrap();
    let programs = Path::new(FAILOVER).parent().unwrap();
    let machine = Command::new("/bin/sh")
        .args(["-c", MACHINE])
        .env("PROGRAMS", programs)
        .deadline(DEADLINE);
    let output = node_.run(machine).unwrap();
    assert!(output.status.success(), "{}", output.stderr_text());
}

#[test]
fn the_guide() {
    assert_eq!(
        files().iter().map(|(path, _)| *path).collect::<Vec<_>>(),
        [
            "/etc/drbd.conf",
            "/etc/ha-failover/placement.toml",
            "/root/web.config"
        ]
    );
    let Some(cluster) = Cluster::boot_on("guide", "", "", &["192M"]) else {
        return;
    };
    for node in ["node1", "node2"] {
        furnish(&cluster, node);
    }
    let finish = |what: &str, child: Child| {
        let output = child.wait(DEADLINE).unwrap();
        let text = output.stdout_text() + &output.stderr_text();
        assert!(output.status.success(), "{what}: {text}");
        eprintln!("{what}\n{text}");
    };
    let mut waits: Option<(&str, Child)> = None;
    let mut done = 0;
    for line in lines() {
        if line == "(node1 loses power)" {
            cluster.node("node1").kill().unwrap();
        } else if line == "(node1 is switched on)" {
            cluster.node("node1").boot().unwrap();
            furnish(&cluster, "node1");
        } else {
            let (node, command) = line.split_once("# ").unwrap();
            let (command, comment) = command.split_once("  #").unwrap_or((command, ""));
            let words: Vec<&str> = command.split_whitespace().collect();
            let command = Command::new(Path::new("/usr/local/sbin").join(words[0]))
                .args(&words[1..])
                .deadline(DEADLINE);
            let child = cluster.node(node).spawn(command).unwrap();
            if comment.ends_with("waits for the next command") {
                waits = Some((line, child));
                continue;
            }
            finish(line, child);
            if let Some((first, child)) = waits.take() {
                finish(first, child);
            }
            done += 1;
        }
    }
    assert!(done >= 25, "only {done} commands of the guide were run");
    // Where the guide ends, by another path than the programs'.
    let mounted = |node: &str| {
        let mounts = cluster.node(node).read_file("/proc/mounts").unwrap();
        String::from_utf8(mounts).unwrap().contains(" /srv/store1 ")
    };
    assert!(mounted("node1") && !mounted("node2"));
}
