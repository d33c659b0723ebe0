//! The plot: the story as it is told, and the four ways in which it is broken on purpose.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;
use uml_lab::{Command, Lab};

use crate::client::Client;
use crate::play::{PATIENCE, Stage, Step};
use crate::stage::{CONFIG, Changes, RECORDER, ROOTFS, SERVICE, WORKLOAD, WORKLOAD_PATH};
use crate::verdict::{History, Verdict};

/// The nodes that can carry the store, and the addresses of their bridges.
const HOSTS: [(&str, &str); 2] = [("node1", "10.1.0.5/24"), ("node2", "10.1.0.6/24")];
const CLIENT: &str = "client";
/// Writers of the client: each sends its next record as soon as the one before was answered, so
/// that some record is on its way at any time.
const WRITERS: u32 = 4;
/// The files of the workload, as the node that serves sees them.
const DATA: &str = "/srv/store1/containers/app/rootfs/data";
/// Where the recorder writes, in a directory that outlives the node.
const FOREIGN: &str = "/var/lib/foreign-tools";

/// The programs that the project replaces; in the nodes of the story a recorder stands for each.
const REPLACED: [&str; 28] = [
    "usr/sbin/drbdadm",
    "usr/sbin/drbdsetup",
    "usr/sbin/drbdmeta",
    "usr/sbin/drbdmon",
    "usr/bin/btrfs",
    "usr/bin/btrfs-convert",
    "usr/bin/btrfstune",
    "usr/bin/lxc-attach",
    "usr/bin/lxc-autostart",
    "usr/bin/lxc-cgroup",
    "usr/bin/lxc-checkpoint",
    "usr/bin/lxc-config",
    "usr/bin/lxc-console",
    "usr/bin/lxc-copy",
    "usr/bin/lxc-create",
    "usr/bin/lxc-destroy",
    "usr/bin/lxc-device",
    "usr/bin/lxc-execute",
    "usr/bin/lxc-freeze",
    "usr/bin/lxc-info",
    "usr/bin/lxc-ls",
    "usr/bin/lxc-monitor",
    "usr/bin/lxc-snapshot",
    "usr/bin/lxc-start",
    "usr/bin/lxc-stop",
    "usr/bin/lxc-unfreeze",
    "usr/bin/lxc-update-config",
    "usr/bin/lxc-wait",
];

/// A promise that is broken on purpose, to show that the verdict can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// The workload acknowledges records that are not durable.
    NoFsync,
    /// The resource is replicated with protocol A, and the link dies just before the node does.
    ProtocolA,
    /// A node that missed the newest writes is made to take over.
    StaleTakeover,
    /// A node takes over because somebody swears that the other one is off, which it is not.
    TwoOwners,
}

/// How the story ended.
#[derive(Debug, Serialize)]
pub struct Ending {
    /// The verdict's columns.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The longest time without an answer around the planned handover, as the client saw it.
    pub handover_downtime_ms: Option<u64>,
    /// The same around the loss of the node that served.
    pub takeover_downtime_ms: Option<u64>,
    /// Records that were sent and not answered when that node was lost.
    pub unanswered_at_loss: Option<u64>,
    /// What was done, when, and what it took.
    pub steps: Vec<Step>,
}

/// Plays the story, or breaks it.
pub fn play(sabotage: Option<Sabotage>) -> Result<Ending> {
    let begin = Instant::now();
    let changes = Changes {
        protocol_a: sabotage == Some(Sabotage::ProtocolA),
        no_fsync: sabotage == Some(Sabotage::NoFsync),
    };
    let mut story = Story::begin(begin, changes)?;
    let played = match sabotage {
        None => story.whole(),
        Some(Sabotage::NoFsync) => story.no_fsync(),
        Some(Sabotage::ProtocolA) => story.protocol_a(),
        Some(Sabotage::StaleTakeover) => story.stale_takeover(),
        Some(Sabotage::TwoOwners) => story.two_owners(),
    };
    match played {
        Ok(()) => story.end(),
        Err(error) => {
            story.show_kernel_logs();
            Err(error)
        }
    }
}

struct Story {
    stage: Stage,
    /// The recorder's directory, which the nodes see for as long as they run.
    _layer: TempDir,
    client: Client,
    changes: Changes,
    /// The node that serves now.
    owner: &'static str,
    /// How often two nodes were seen to serve at the same time.
    seen_two_owners: u64,
    handover_gap: Option<u64>,
    takeover_gap: Option<u64>,
    unanswered: Option<u64>,
    /// The files of the writers in each copy of the store that was read.
    copies: Vec<BTreeMap<u32, Vec<u8>>>,
}

fn other(node: &str) -> &'static str {
    if node == HOSTS[0].0 {
        HOSTS[1].0
    } else {
        HOSTS[0].0
    }
}

impl Story {
    /// From blank disks to a container that answers its client.
    fn begin(begin: Instant, changes: Changes) -> Result<Self> {
        println!(
            "booting three nodes: {}, {} and the client",
            HOSTS[0].0, HOSTS[1].0
        );
        let layer = tempfile::tempdir().context("making a directory for the recorder")?;
        for program in REPLACED {
            let path = layer.path().join(program);
            let directory = path.parent().context("a program has a directory")?;
            std::fs::create_dir_all(directory).context("making the recorder's directories")?;
            std::fs::write(&path, RECORDER).context("writing the recorder")?;
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, executable).context("making it executable")?;
        }
        let mut builder =
            Lab::builder()
                .name("story")
                .packages(["btrfs-progs", "liblxc1", "liblxc-common"]);
        builder = builder.layer(layer.path());
        for (host, _) in HOSTS {
            builder = builder.node(host, |node| {
                node.disk("192M")
                    .memory("320M")
                    .keep("/var/lib/ha-failover")
                    .keep(FOREIGN)
            });
        }
        let lab = builder
            .node(CLIENT, |node| node.memory("128M"))
            .wire("replication", |wire| {
                wire.port(HOSTS[0].0, "10.0.254.1/30")
                    .port(HOSTS[1].0, "10.0.254.2/30")
            })
            .wire("service", |wire| {
                wire.port(HOSTS[0].0, "")
                    .port(HOSTS[1].0, "")
                    .port(CLIENT, "10.1.0.20/24")
            })
            .start()?;
        let mut stage = Stage::new(lab, begin)?;

        stage.act("the nodes as an operator finds them: blank disks, the files in /etc, a bridge");
        println!(
            "lab    * drbd.conf is the blog post's, slips included; corrected is what cannot work:"
        );
        println!(
            "lab    *   br0 is on both nodes (there: node1 only), or no container starts on node2;"
        );
        println!("lab    *   lxc.net.0.type (there: lxc.betwork.type, a slip, and a key of LXC 1)");
        prove_recorder(&stage)?;
        for (host, _) in HOSTS {
            dress(&mut stage, host, changes)?;
        }
        stage
            .lab
            .node(CLIENT)
            .write_file(WORKLOAD_PATH, WORKLOAD, 0o755)?;

        stage.act("metadata on blank disks, resource up on both nodes");
        let both = HOSTS.map(|(host, _)| stage.begin_failover(host, &["prepare", "r0"]));
        for running in both {
            stage.finish(running?, 0)?;
        }
        let owner = HOSTS[0].0;
        stage.act("first sync, Btrfs, mount");
        stage.failover(owner, &["initialize", "r0", "--wait-sync"], 0)?;
        // The other node, too, has to have seen that its data is current: that is what it may
        // rely on when it is asked to take over.
        stage.failover(other(owner), &["wait-sync", "r0"], 0)?;
        stage.act("a container on a Btrfs subvolume");
        let create = [
            "create-container",
            "r0",
            "app",
            "--rootfs",
            ROOTFS,
            "--config",
            CONFIG,
        ];
        stage.failover(owner, &create, 0)?;
        stage.failover(owner, &["start", "r0"], 0)?;

        stage.act(&format!("the client writes, {WRITERS} writers"));
        let client = Client::start(&stage.lab.node(CLIENT), WORKLOAD_PATH, SERVICE, WRITERS)?;
        let mut story = Self {
            stage,
            _layer: layer,
            client,
            changes,
            owner,
            seen_two_owners: 0,
            handover_gap: None,
            takeover_gap: None,
            unanswered: None,
            copies: Vec::new(),
        };
        story.writes(400)?;
        Ok(story)
    }

    /// The story itself.
    fn whole(&mut self) -> Result<()> {
        let target = other(self.owner);
        self.stage
            .act(&format!("planned handover: {} -> {target}", self.owner));
        self.handover_gap = self.hand_over()?;

        let lost = self.owner;
        self.stage.act(&format!("{lost} is lost in mid-write"));
        let mark = self.client.mark();
        self.kill(lost)?;
        self.stage
            .act(&format!("takeover by {}, with evidence", other(lost)));
        self.take_over(&["takeover", "r0"])?;
        self.takeover_gap = self.client.look(|history| history.longest_gap(mark));
        let unknown = self.client.look(|history| history.unknown_since(mark)) as u64;
        ensure!(
            unknown > 0,
            "no record was on its way when {lost} was lost; nothing was shown"
        );
        self.unanswered = Some(unknown);

        self.stage.act(&format!(
            "{lost} returns: applies its log, resyncs, does not serve"
        ));
        self.boot(lost)?;
        self.stage.failover(lost, &["up", "r0"], 0)?;
        self.stage.failover(lost, &["wait-sync", "r0"], 0)?;
        self.stage.failover(lost, &["start", "r0"], 3)?;
        self.writes(300)?;

        self.stage.act(&format!("handover back to {lost}"));
        self.hand_over()?;
        self.writes(300)?;
        self.read_store()?;
        self.stage
            .act("once more, so that the other copy is read as well");
        self.hand_over()?;
        let enough = 2000_usize.saturating_sub(self.client.look(History::acknowledged));
        self.writes(enough.max(100))
    }

    /// The workload answers before the record is durable; a node loss shows it.
    fn no_fsync(&mut self) -> Result<()> {
        let lost = self.owner;
        self.stage
            .act(&format!("{lost} is lost; the workload had left fsync out"));
        self.kill(lost)?;
        self.take_over(&["takeover", "r0"])
    }

    /// With protocol A a write is acknowledged while the other node has not seen it.
    fn protocol_a(&mut self) -> Result<()> {
        let lost = self.owner;
        self.stage.act(&format!(
            "the replication link dies, then {lost}; protocol A"
        ));
        self.stage.lab_does("cut the replication wire", |lab| {
            lab.wire("replication").cut_all();
            Ok(())
        })?;
        self.writes(40)?;
        self.kill(lost)?;
        self.take_over(&["takeover", "r0"])
    }

    /// The other node misses writes, and is made to serve all the same.
    fn stale_takeover(&mut self) -> Result<()> {
        let (lost, stale) = (self.owner, other(self.owner));
        self.stage
            .act(&format!("{stale} is lost, {lost} goes on alone"));
        self.kill(stale)?;
        self.writes(300)?;
        self.stage
            .act(&format!("{lost} is lost too, {stale} boots alone"));
        self.kill(lost)?;
        self.boot(stale)?;
        self.stage.failover(stale, &["up", "r0"], 0)?;
        self.stage
            .act("a takeover must be refused, and is then forced by name");
        self.stage.failover(stale, &["takeover", "r0"], 3)?;
        self.take_over(&[
            "takeover",
            "r0",
            "--declare-data-current",
            "sabotage: the data is known to be old",
        ])
    }

    /// Somebody swears that a node is off while it serves.
    fn two_owners(&mut self) -> Result<()> {
        let (honest, second) = (self.owner, other(self.owner));
        self.stage.act("the replication link dies, both nodes live");
        self.stage.lab_does("cut the replication wire", |lab| {
            lab.wire("replication").cut_all();
            Ok(())
        })?;
        // DRBD notices by its own timeout.
        let deadline = Instant::now() + PATIENCE;
        while self.status(second)?["facts"]["drbd"]["link"] == "Connected" {
            ensure!(
                Instant::now() < deadline,
                "{second} still believes to be connected"
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        self.stage
            .act(&format!("{second} is told under oath that {honest} is off"));
        let oath = "sabotage: a false oath that the peer is off";
        self.stage
            .failover(second, &["takeover", "r0", "--attest", oath], 0)?;
        // Both answer to the same address now; which of them the client reaches is left to chance.
        self.writes(100)
    }

    /// The client stops, the store is read and everything is judged.
    fn end(self) -> Result<Ending> {
        self.stage
            .act("the client stops, the store is read and judged");
        let history = self.client.stop(PATIENCE)?;
        let last = read_copy(&self.stage.lab, self.owner)?;
        let mut verdict = Verdict::judge(&history, &last);
        for copy in &self.copies {
            // A copy that was read earlier lacks what was written later; it is judged for
            // damage, and for what the last copy does not have.
            let earlier = Verdict::judge(&history, copy);
            verdict.torn = verdict.torn.max(earlier.torn);
            verdict.phantom = verdict.phantom.max(earlier.phantom);
        }
        verdict.dual_owner += self.seen_two_owners;
        for (host, _) in HOSTS {
            if self.stage.lab.node(host).is_running() {
                verdict.foreign_tools +=
                    foreign_calls(&self.stage.lab, host)?.lines().count() as u64;
            }
        }
        Ok(Ending {
            verdict,
            handover_downtime_ms: self.handover_gap,
            takeover_downtime_ms: self.takeover_gap,
            unanswered_at_loss: self.unanswered,
            steps: self.stage.steps(),
        })
    }

    /// Moves the store to the other node, planned; the gap that the client saw.
    fn hand_over(&mut self) -> Result<Option<u64>> {
        let (source, target) = (self.owner, other(self.owner));
        let mark = self.client.mark();
        let armed = self.stage.begin_failover(target, &["handover", "r0"])?;
        armed.wait_for_step("await-peer-secondary")?;
        self.stage.failover(source, &["release", "r0"], 0)?;
        self.stage.finish(armed, 0)?;
        self.served_by(target)?;
        Ok(self.client.look(|history| history.longest_gap(mark)))
    }

    fn take_over(&mut self, arguments: &[&str]) -> Result<()> {
        let target = other(self.owner);
        self.stage.failover(target, arguments, 0)?;
        self.served_by(target)
    }

    /// The store has moved to `node`: the client must get answers from there, and only there.
    fn served_by(&mut self, node: &'static str) -> Result<()> {
        self.owner = node;
        let from = self.client.mark();
        self.client
            .wait_until(&format!("an answer from {node}"), PATIENCE, |history| {
                history.answered_by(node, from)
            })?;
        self.writes(200)
    }

    /// Lets the client write, then looks who serves.
    fn writes(&mut self, count: usize) -> Result<()> {
        self.client.more(count, PATIENCE)?;
        let mut serving = 0;
        for (host, _) in HOSTS {
            if self.stage.lab.node(host).is_running() && serves(&self.status(host)?) {
                serving += 1;
            }
        }
        if serving > 1 {
            println!("lab    * both nodes serve");
            self.seen_two_owners += 1;
        }
        let (acknowledged, epoch) = self
            .client
            .look(|history| (history.acknowledged(), history.epoch().unwrap_or(0)));
        println!("client | {acknowledged} records acknowledged, epoch {epoch}");
        Ok(())
    }

    fn status(&self, node: &str) -> Result<Value> {
        let output = self.stage.lab.node(node).run(
            Command::new(self.stage.failover_path())
                .args(["--json", "status", "r0"])
                .deadline(PATIENCE),
        )?;
        let document: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "{node}: failover status: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        match document["resources"].get(0) {
            Some(resource) => Ok(resource.clone()),
            None => bail!("{node}: failover status tells nothing about r0: {document}"),
        }
    }

    fn kill(&mut self, node: &str) -> Result<()> {
        self.stage
            .lab_does(&format!("node loss: {node}"), |lab| lab.node(node).kill())
    }

    fn boot(&mut self, node: &str) -> Result<()> {
        self.stage
            .lab_does(&format!("boot {node} again, on the same disks"), |lab| {
                lab.node(node).boot()
            })?;
        dress(&mut self.stage, node, self.changes)
    }

    /// Shows what the kernels said last; called when the story breaks off.
    fn show_kernel_logs(&self) {
        for (host, _) in HOSTS {
            let command = Command::new(self.stage.program_path()).args(["in-node", "kernel-log"]);
            let log = self.stage.lab.node(host).run(command);
            let text = log.map_or_else(|error| error.to_string(), |log| log.stdout_text());
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(25)..] {
                println!("{host:<6} kernel: {line}");
            }
        }
    }

    fn read_store(&mut self) -> Result<()> {
        self.copies.push(read_copy(&self.stage.lab, self.owner)?);
        Ok(())
    }
}

fn serves(status: &Value) -> bool {
    let running = status["facts"]["containers"]
        .as_object()
        .is_some_and(|containers| {
            containers
                .values()
                .any(|container| container["state"] == "running")
        });
    status["facts"]["drbd"]["role"] == "Primary" && running
}

fn dress(stage: &mut Stage, host: &str, changes: Changes) -> Result<()> {
    let address = HOSTS
        .iter()
        .find(|(name, _)| *name == host)
        .map(|(_, address)| *address);
    let mut arguments = vec!["dress", address.context("a host has an address")?];
    if changes.protocol_a {
        arguments.push("--protocol-a");
    }
    if changes.no_fsync {
        arguments.push("--no-fsync");
    }
    stage.in_node(host, &arguments)?;
    Ok(())
}

/// A recorder that records nothing would make every verdict look clean.
fn prove_recorder(stage: &Stage) -> Result<()> {
    for (host, _) in HOSTS {
        let node = stage.lab.node(host);
        let output = node.run(["drbdsetup", "status"])?;
        let seen = foreign_calls(&stage.lab, host)?;
        ensure!(
            output.status.code() == Some(127) && seen == "drbdsetup status\n",
            "{host}: the recorder does not work: {:?}, {seen:?}",
            output.status
        );
        node.write_file(format!("{FOREIGN}/called"), b"", 0o644)?;
    }
    println!("lab    * drbd*, lxc-* and btrfs are replaced by a recorder, which was tried");
    Ok(())
}

fn foreign_calls(lab: &Lab, host: &str) -> Result<String> {
    let bytes = lab.node(host).read_file(format!("{FOREIGN}/called"))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    for line in text.lines() {
        println!("{host:<6} ! foreign tool called: {line}");
    }
    Ok(text)
}

fn read_copy(lab: &Lab, node: &str) -> Result<BTreeMap<u32, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for writer in 0..WRITERS {
        let path = format!("{DATA}/w{writer}.log");
        let content = lab
            .node(node)
            .read_file(&path)
            .with_context(|| format!("{node}: {path}"))?;
        files.insert(writer, content);
    }
    Ok(files)
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "timeline")?;
        for step in &self.steps {
            let at = step.at_ms as f64 / 1000.0;
            writeln!(
                f,
                "{at:>8.2} s {:>7} ms  {:<7} {}",
                step.ms, step.place, step.what
            )?;
        }
        writeln!(f, "\nverdict\n{}", self.verdict)?;
        let gap = |gap: Option<u64>| gap.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        writeln!(
            f,
            "  {:<22} {:>11}",
            "downtime, planned",
            gap(self.handover_downtime_ms)
        )?;
        writeln!(
            f,
            "  {:<22} {:>11}",
            "downtime, node loss",
            gap(self.takeover_downtime_ms)
        )
    }
}
