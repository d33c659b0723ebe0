//! Two nodes with DRBD, and `failover` on them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "tests; each file uses its part"
)]

use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::Value;
use uml_lab::{Child, Command, Disk, Lab, Node};

/// Cargo names it to the tests of its own package only; the tests of the examples name it themselves.
pub(crate) const FAILOVER: &str = match option_env!("CARGO_BIN_EXE_failover") {
    Some(path) => path,
    None => match option_env!("FAILOVER_PROGRAM") {
        Some(path) => path,
        None => "failover",
    },
};
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) const PLACEMENT: &str = r#"
version = 1
[[resource]]
name = "r0"
mount = "/srv/store1"
lxcpath = "/srv/store1/containers"
owner = "node1"
nodes.node1.address = "10.0.254.1"
nodes.node2.address = "10.0.254.2"
[resource.fence]
method = "command"
status = ["/run/lab/power", "status", "{node}"]
off = ["/run/lab/power", "off", "{node}"]
[resource.deadlines]
connect = "5s"
handover = "60s"
take_back = "20s"
demote = "5s"
boot = "15s"
[[resource.container]]
name = "app"
stop_deadline = "10s"
ready.exec = ["/bin/busybox", "test", "-e", "/ready"]
address = [{ ip = "10.1.0.20", mac = "00:16:3e:00:00:14", bridge = "br0" }]
"#;

pub(crate) const DRBD_CONF: &str = r#"
global { usage-count no; }
resource r0 {
    protocol C;
    net { cram-hmac-alg sha1; shared-secret "lab"; }
    on node1 { device /dev/drbd0; disk /dev/ubda; address 10.0.254.1:7788; meta-disk internal; }
    on node2 { device /dev/drbd0; disk /dev/ubda; address 10.0.254.2:7788; meta-disk internal; }
}
"#;

/// What a container does in a test that looks for gaps: numbers without an end, each on disk before the next.
pub(crate) const WRITER: &str = "\
(n=$(/bin/busybox cat /log 2>/dev/null | /bin/busybox wc -l); while true; do n=$((n+1)); /bin/busybox echo $n | /bin/busybox dd of=/log oflag=append conv=notrunc,fsync 2>/dev/null; /bin/busybox sleep 0.1; done) &
/bin/busybox touch /ready
";

/// Busybox as init; the first thing it does is to note who started it, in which epoch.
const INITTAB: &str = "\
::sysinit:/bin/busybox sh /rc
::respawn:/bin/busybox sleep 1000
::shutdown:/bin/busybox rm /ready
";
const RC: &str = "/bin/busybox echo $FAILOVER_NODE $FAILOVER_EPOCH >> /epochs; /bin/busybox touch /ready; /bin/busybox sync\n";
const CONFIG: &str = "\
# a static busybox
lxc.uts.name = app
lxc.mount.auto = proc:mixed sys:ro
lxc.signal.halt = SIGUSR1
lxc.net.0.type = veth
lxc.net.0.link = br0
lxc.net.0.flags = up
lxc.net.0.hwaddr = 00:16:3e:00:00:14
lxc.net.0.ipv4.address = 10.1.0.20/24
";

/// [`DRBD_CONF`] with resyncs that are not throttled, and other settings of the disks.
pub(crate) fn conf_with(more: &str) -> String {
    let settings = format!(
        "protocol C;\n    disk {{ c-plan-ahead 0; c-min-rate 0; resync-rate 200M; {more} }}"
    );
    DRBD_CONF.replace("protocol C;", &settings)
}

pub(crate) struct Cluster {
    pub(crate) lab: Lab,
}

/// What one run of `failover --json` printed.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: Option<i32>,
    pub(crate) events: Vec<Value>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn end(&self) -> &Value {
        self.events.last().unwrap_or(&Value::Null)
    }

    pub(crate) fn ok(self, what: &str) -> Run {
        assert_eq!(self.status, Some(0), "{what}: {self:#?}");
        self
    }

    /// What each step took, for who reads the test's output.
    pub(crate) fn show(self, what: &str) -> Run {
        for e in self
            .events
            .iter()
            .filter(|e| e["event"] == "step" || e["event"] == "evidence")
        {
            eprintln!(
                "{what}: {:>6} ms  {}",
                e["ms"],
                e["text"].as_str().unwrap_or_default()
            );
        }
        eprintln!(
            "{what}: gap {} of {} ms",
            self.end()["gap_ms"],
            self.end()["ms"]
        );
        self
    }

    /// What it was refused for.
    pub(crate) fn codes(&self) -> Vec<String> {
        let refused = self.events.iter().filter(|e| e["event"] == "refused");
        codes(refused.map(|e| &e["findings"]), "error")
    }

    /// What the plans that were carried out warn of.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let plans = self.events.iter().filter(|e| e["event"] == "plan");
        codes(plans.map(|e| &e["plan"]["findings"]), "warning")
    }

    pub(crate) fn steps(&self) -> Vec<String> {
        self.events
            .iter()
            .filter(|e| e["event"] == "step")
            .map(|e| e["step"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    fn from(status: Option<i32>, stdout: &str, stderr: String) -> Run {
        let events = stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}; {stderr}"))
            })
            .collect();
        Run {
            status,
            events,
            stderr,
        }
    }
}

fn codes<'a>(lists: impl Iterator<Item = &'a Value>, severity: &str) -> Vec<String> {
    lists
        .flat_map(|list| list.as_array().cloned().unwrap_or_default())
        .filter(|f| f["severity"] == severity)
        .map(|f| f["code"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// `failover` that runs on while the test does something else.
pub(crate) struct Running {
    child: Child,
    reader: BufReader<uml_lab::OutputReader>,
    seen: String,
}

impl Running {
    /// Reads on until a step begins.
    pub(crate) fn until(&mut self, step: &str) {
        self.until_all(step, 1);
    }

    /// Reads on until a step has begun so many times, for as many resources.
    pub(crate) fn until_all(&mut self, step: &str, mut times: usize) {
        let mut line = String::new();
        loop {
            line.clear();
            let n = self.reader.read_line(&mut line).unwrap();
            assert!(n > 0, "ended before {step}: {}", self.seen);
            self.seen.push_str(&line);
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == "begin" && event["step"] == step {
                times -= 1;
                if times == 0 {
                    return;
                }
            }
        }
    }

    pub(crate) fn wait(mut self) -> Run {
        let mut line = String::new();
        while self.reader.read_line(&mut line).unwrap() > 0 {
            self.seen.push_str(&line);
            line.clear();
        }
        let output = self.child.wait(DEADLINE).unwrap();
        Run::from(output.status.code(), &self.seen, output.stderr_text())
    }
}

impl Cluster {
    /// Boots two nodes and prepares what is not `failover`'s: bridge, container tree, configuration files.
    pub(crate) fn boot(name: &str) -> Option<Cluster> {
        Self::boot_with(name, DRBD_CONF, PLACEMENT)
    }

    pub(crate) fn boot_with(name: &str, drbd_conf: &str, placement: &str) -> Option<Cluster> {
        Self::boot_on(name, drbd_conf, placement, &["192M"])
    }

    /// Two nodes with these disks each.
    pub(crate) fn boot_on(
        name: &str,
        drbd_conf: &str,
        placement: &str,
        disks: &[&str],
    ) -> Option<Cluster> {
        let disks: Vec<_> = disks.iter().map(|size| Disk::new(*size)).collect();
        Self::boot_among(name, drbd_conf, placement, &disks, &[])
    }

    /// Two nodes with these disks, where other packages are installed, too.
    pub(crate) fn boot_among(
        name: &str,
        drbd_conf: &str,
        placement: &str,
        disks: &[Disk],
        packages: &[&str],
    ) -> Option<Cluster> {
        let ours = ["btrfs-progs", "busybox-static", "dmsetup", "fdisk", "lxc"];
        let furnished = |mut n: uml_lab::NodeBuilder| {
            for disk in disks {
                n = n.disk(disk.clone());
            }
            n.keep("/var/lib/ha-failover")
        };
        let lab = Lab::builder()
            .name(name)
            .packages(ours.iter().chain(packages).copied())
            .node("node1", furnished)
            .node("node2", furnished)
            .wire("repl", |w| {
                w.port("node1", "10.0.254.1/30")
                    .port("node2", "10.0.254.2/30")
            })
            .start_for_test()?;
        let cluster = Cluster { lab };
        for node in ["node1", "node2"] {
            cluster.furnish(node, drbd_conf, placement);
        }
        Some(cluster)
    }

    pub(crate) fn node(&self, name: &str) -> Node {
        self.lab.node(name)
    }

    /// What a node has at boot and `failover` does not make.
    pub(crate) fn furnish(&self, node: &str, drbd_conf: &str, placement: &str) {
        let node = self.node(node);
        node.write_file("/etc/drbd.conf", drbd_conf, 0o600).unwrap();
        node.write_file("/etc/ha-failover/placement.toml", placement, 0o644)
            .unwrap();
        node.write_file("/run/app.config", CONFIG, 0o644).unwrap();
        node.write_file("/run/rootfs/etc/inittab", INITTAB, 0o644)
            .unwrap();
        node.write_file("/run/rootfs/rc", RC, 0o644).unwrap();
        node.run_test("common::furnish_node").unwrap();
    }

    /// Day 0: both prepared, node1 serves the container.
    pub(crate) fn serve(&self) {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                self.failover("node2", &["prepare", "r0"])
                    .ok("prepare node2")
            });
            self.failover("node1", &["prepare", "r0"])
                .ok("prepare node1");
            other.join().unwrap();
        });
        self.await_connected("node1", "r0");
        self.failover("node1", &["initialize", "r0"])
            .ok("initialize");
        self.failover(
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
        )
        .ok("create-container");
        self.failover("node1", &["start", "r0"]).ok("start");
        self.failover("node1", &["wait-sync", "r0"]).ok("wait-sync");
        self.failover("node2", &["wait-sync", "r0"]).ok("wait-sync");
    }

    pub(crate) fn failover(&self, node: &str, arguments: &[&str]) -> Run {
        let command = Command::new(FAILOVER)
            .arg("--json")
            .args(arguments)
            .deadline(DEADLINE);
        let output = self.node(node).run(command).unwrap();
        Run::from(
            output.status.code(),
            &output.stdout_text(),
            output.stderr_text(),
        )
    }

    /// The same command on both nodes at once.
    pub(crate) fn on_both(&self, arguments: &[&str]) {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| self.failover("node2", arguments).ok("node2"));
            self.failover("node1", arguments).ok("node1");
            other.join().unwrap();
        });
    }

    pub(crate) fn spawn(&self, node: &str, arguments: &[&str]) -> Running {
        let command = Command::new(FAILOVER).arg("--json").args(arguments);
        let child = self.node(node).spawn(command).unwrap();
        let reader = BufReader::new(child.stdout());
        Running {
            child,
            reader,
            seen: String::new(),
        }
    }

    /// A planned handover: both sides to their end.
    pub(crate) fn hand_over(&self, from: &str, to: &str) -> (Run, Run) {
        let mut target = self.spawn(to, &["handover", "r0"]);
        target.until("await-peer-secondary");
        let source = self.failover(from, &["release", "r0"]);
        (source, target.wait())
    }

    /// DRBD itself waits 10 s between two tries.
    pub(crate) fn await_connected(&self, node: &str, resource: &str) {
        let begun = std::time::Instant::now();
        loop {
            let status = self.failover(node, &["status", resource]).ok("status");
            let drbd = &status.events[0]["resources"][0]["facts"]["drbd"];
            if drbd["link"] == "Connected" {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{resource}: {drbd:#}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn status(&self, node: &str) -> Value {
        self.failover(node, &["status", "r0"]).ok("status").events[0]["resources"][0].clone()
    }

    /// The nodes where the container runs, by another path than `failover`'s: the kernel's process list.
    pub(crate) fn serving(&self) -> Vec<&'static str> {
        ["node1", "node2"]
            .into_iter()
            .filter(|name| self.node(name).is_running())
            .filter(|name| {
                let ps = self
                    .node(name)
                    .run_ok(["/bin/busybox", "ps"])
                    .unwrap()
                    .stdout_text();
                ps.contains("/bin/busybox sleep 1000")
            })
            .collect()
    }

    pub(crate) fn assert_serves(&self, node: &str) {
        let begun = std::time::Instant::now();
        loop {
            let serving = self.serving();
            if serving == [node] {
                break;
            }
            // An init that was just started has not started anything yet.
            assert!(
                serving.is_empty() && begun.elapsed() < DEADLINE,
                "served by {serving:?}, not by {node}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        let status = self.status(node);
        assert_eq!(status["serving"], true, "{status:#}");
    }

    /// Who started the container, and in which epoch, as its init wrote it.
    pub(crate) fn epochs(&self, node: &str) -> String {
        let bytes = self
            .node(node)
            .read_file("/srv/store1/containers/app/rootfs/epochs")
            .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Waits until what this node says of the resource is as wanted.
    pub(crate) fn await_status(&self, node: &str, what: &str, wanted: impl Fn(&Value) -> bool) {
        let begun = std::time::Instant::now();
        loop {
            let facts = self.status(node)["facts"].take();
            if wanted(&facts) {
                return;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "{node}: not {what}: {:#}",
                facts["drbd"]
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// How many numbers [`WRITER`] has written; each of them, in order.
    pub(crate) fn numbers(&self, node: &str) -> usize {
        let log = "/srv/store1/containers/app/rootfs/log";
        // Not there before the first.
        let bytes = self.node(node).read_file(log).unwrap_or_default();
        let text = String::from_utf8(bytes).unwrap();
        let whole: Vec<&str> = text.split_inclusive('\n').collect();
        for (n, line) in whole.iter().enumerate() {
            let number = (n + 1).to_string();
            assert!(
                line.trim_end() == number || (n + 1 == whole.len() && number.starts_with(line)),
                "line {n} is {line:?}"
            );
        }
        whole.len()
    }

    /// Waits until the container has written more than it had.
    pub(crate) fn await_more_numbers(&self, node: &str, than: usize) {
        let begun = std::time::Instant::now();
        while self.numbers(node) <= than {
            assert!(begun.elapsed() < DEADLINE, "{node}: nothing after {than}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// After the loss of a node: boot, and everything a node has at boot.
    pub(crate) fn reboot(&self, node: &str) {
        self.node(node).boot().unwrap();
        self.furnish(node, DRBD_CONF, PLACEMENT);
    }
}

/// Inside a node: the bridge, and the tree the container is made from.
#[test]
#[ignore = "runs inside a node"]
fn furnish_node() {
    use node_ops::links;
    links::create_bridge("br0").unwrap();
    links::set_up("br0").unwrap();
    let root = std::path::Path::new("/run/rootfs");
    for dir in ["bin", "sbin", "dev", "proc", "sys", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let _ = std::os::unix::fs::symlink("../bin/busybox", root.join("sbin/init"));
    let _ = std::os::unix::fs::symlink("busybox", root.join("bin/sh"));
}
