//! The cluster of the story with what serves in it and who watches: what every plot is told with.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use uml_lab::{Command, Disk, Lab};

use crate::client::Client;
use crate::ending::{Cause, Downtime, Ending};
use crate::play::{PATIENCE, Stage};
use crate::stage::{Changes, DATABASE, RECORDER, Service, WORKLOAD, WORKLOAD_PATH};
use crate::verdict::{History, Verdict};

/// The nodes that can carry the stores, and the addresses of their bridges.
pub(crate) const HOSTS: [(&str, &str); 2] = [("node1", "10.1.0.5/24"), ("node2", "10.1.0.6/24")];
const CLIENT: &str = "client";
/// Writers of each client. In the short story each sends its next record as soon as the one before
/// was answered, so that some record is on its way at any time.
const WRITERS: u32 = 4;
/// In the full story, what three clients send must leave room for a resync beside it.
const PAUSE: Duration = Duration::from_millis(40);
/// Where the recorder writes, in a directory that outlives the node.
const FOREIGN: &str = "/var/lib/foreign-tools";

/// The commands of the post, for who moves a store by hand, and where they stand in a node.
const BY_HAND: &[u8] = include_bytes!("../rival/by-hand");
const BY_HAND_PATH: &str = "/opt/story/by-hand";

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

/// The resources, and the node that each belongs to while both live.
pub(crate) const RESOURCES: [(&str, &str); 2] = [("r0", HOSTS[0].0), ("r1", HOSTS[1].0)];

/// The records of each writer, as a store holds them.
type Records = BTreeMap<u32, Vec<u8>>;

/// A service with the client that writes to it.
struct Served {
    service: &'static Service,
    client: Client,
    /// What the store held when it was read in between.
    copies: Vec<Records>,
}

/// The nodes, who serves what, and what was seen.
pub(crate) struct Cluster {
    pub(crate) stage: Stage,
    /// The recorder's directory, which the nodes see for as long as they run.
    _layer: TempDir,
    changes: Changes,
    served: Vec<Served>,
    /// The node that serves each resource now.
    owner: BTreeMap<&'static str, &'static str>,
    verdict: Verdict,
    downtimes: Vec<Downtime>,
    unanswered: Option<u64>,
}

pub(crate) fn other(node: &str) -> &'static str {
    if node == HOSTS[0].0 {
        HOSTS[1].0
    } else {
        HOSTS[0].0
    }
}

impl Cluster {
    /// From blank disks to containers that answer their clients.
    pub(crate) fn begin(begin: Instant, changes: Changes) -> Result<Self> {
        println!(
            "booting three nodes: {}, {} and the client",
            HOSTS[0].0, HOSTS[1].0
        );
        let layer = recorder_layer()?;
        let lab = boot_all(layer.path(), changes)?;
        let mut stage = Stage::new(lab, begin)?;

        stage.act("the nodes as an operator finds them: blank disks, the files in /etc, a bridge");
        println!(
            "lab    * drbd.conf is the blog post's, slips included; corrected is what cannot work:"
        );
        println!(
            "lab    *   br0 is on both nodes (there: node1 only), or no container starts on node2;"
        );
        println!(
            "lab    *   lxc.net.0.type (there: lxc.betwork.type, a slip, and a key of LXC 1);"
        );
        println!(
            "lab    *   c-plan-ahead 0, c-min-rate 0: DRBD 8.4's controller would ignore the post's rate of 200M"
        );
        if !changes.by_hand {
            prove_recorder(&stage)?;
        }
        for (host, _) in HOSTS {
            dress(&mut stage, host, changes)?;
        }
        stage
            .lab
            .node(CLIENT)
            .write_file(WORKLOAD_PATH, WORKLOAD, 0o755)?;
        let mut cluster = Self {
            stage,
            _layer: layer,
            changes,
            served: Vec::new(),
            owner: BTreeMap::new(),
            verdict: Verdict::default(),
            downtimes: Vec::new(),
            unanswered: None,
        };
        for (resource, owner) in cluster.resources() {
            cluster.create_store(resource, owner)?;
        }
        cluster.start_clients()?;
        Ok(cluster)
    }

    /// The resources on this stage, each with the node it belongs to.
    pub(crate) fn resources(&self) -> Vec<(&'static str, &'static str)> {
        let carries = |resource| {
            self.changes
                .services()
                .iter()
                .any(|service| service.resource == resource)
        };
        RESOURCES
            .into_iter()
            .filter(|(resource, _)| carries(*resource))
            .collect()
    }

    /// Metadata, first sync, Btrfs and the containers of one resource, which `owner` serves then.
    fn create_store(&mut self, resource: &'static str, owner: &'static str) -> Result<()> {
        let stage = &mut self.stage;
        if self.changes.full {
            stage.act(&format!("{resource}: one aligned partition on each disk"));
            for (host, _) in HOSTS {
                stage.failover(host, &["partition", resource], 0)?;
            }
        }
        stage.act(&format!(
            "{resource}: metadata on blank disks, up on both nodes"
        ));
        let both = HOSTS.map(|(host, _)| stage.begin_failover(host, &["prepare", resource]));
        for running in both {
            stage.finish(running?, 0)?;
        }
        stage.act(&format!("{resource}: first sync, Btrfs, mount"));
        stage.failover(owner, &["initialize", resource, "--wait-sync"], 0)?;
        // The other node, too, has to have seen that its data is current: that is what it may
        // rely on when it is asked to take over.
        stage.failover(other(owner), &["wait-sync", resource], 0)?;
        stage.act(&format!(
            "{resource}: containers, each on a Btrfs subvolume"
        ));
        for service in self.changes.services() {
            if service.resource == resource {
                let (rootfs, config) = (service.rootfs(), service.config());
                let create = ["create-container", resource, service.name];
                let sources = ["--rootfs", &rootfs, "--config", &config];
                stage.failover(owner, &[&create[..], &sources].concat(), 0)?;
            }
        }
        stage.failover(owner, &["start", resource], 0)?;
        self.owner.insert(resource, owner);
        Ok(())
    }

    /// Whether the clients pause between records, so that none may be on its way.
    pub(crate) fn pauses(&self) -> bool {
        self.changes.full
    }

    fn start_clients(&mut self) -> Result<()> {
        self.stage.act(&format!(
            "a client for each service writes, {WRITERS} writers each"
        ));
        for service in self.changes.services() {
            let node = self.stage.lab.node(CLIENT);
            let pause = if self.changes.full {
                PAUSE
            } else {
                Duration::ZERO
            };
            let address = service.address();
            let client = Client::start(&node, WORKLOAD_PATH, &address, WRITERS, pause)?;
            self.served.push(Served {
                service,
                client,
                copies: Vec::new(),
            });
        }
        self.writes(400)
    }

    /// The node that serves `resource`.
    pub(crate) fn owner(&self, resource: &str) -> Result<&'static str> {
        let owner = self.owner.get(resource).copied();
        owner.with_context(|| format!("nobody serves {resource}"))
    }

    /// Moves a store to the other node, planned.
    pub(crate) fn hand_over(&mut self, resource: &'static str) -> Result<()> {
        let source = self.owner(resource)?;
        let target = other(source);
        let marks = self.marks();
        let armed = self.stage.begin_failover(target, &["handover", resource])?;
        armed.wait_for_step("await-peer-secondary")?;
        self.stage.failover(source, &["release", resource], 0)?;
        self.stage.finish(armed, 0)?;
        self.served_by(resource, target)?;
        self.note_gaps(&marks, Cause::Planned, &[resource]);
        Ok(())
    }

    /// Puts the script in both nodes that moves a store by hand.
    pub(crate) fn put_by_hand(&self) -> Result<()> {
        for (host, _) in HOSTS {
            let node = self.stage.lab.node(host);
            node.write_file(BY_HAND_PATH, BY_HAND, 0o755)?;
        }
        Ok(())
    }

    /// Moves a store to the other node, with the commands of the post.
    pub(crate) fn hand_over_by_hand(&mut self, resource: &'static str) -> Result<()> {
        let source = self.owner(resource)?;
        let target = other(source);
        let marks = self.marks();
        // Nobody counts epochs by hand: the service goes on under the name it had.
        let named = self
            .served_from(resource)
            .find_map(|served| served.client.look(History::served_as));
        let (epoch, node) = named.context("no answer yet")?;
        self.stage.script(source, BY_HAND_PATH, &["leave"])?;
        let take = ["take", &epoch.to_string(), &node];
        self.stage.script(target, BY_HAND_PATH, &take)?;
        self.owner.insert(resource, target);
        self.writes(200)?;
        self.note_gaps(&marks, Cause::ByHand, &[resource]);
        Ok(())
    }

    /// Takes stores over on `target`.
    pub(crate) fn take_over(
        &mut self,
        target: &'static str,
        resource: &'static str,
        options: &[&str],
    ) -> Result<()> {
        let arguments = [&["takeover", resource], options].concat();
        self.stage.failover(target, &arguments, 0)?;
        self.served_by(resource, target)
    }

    /// The store has moved to `node`: the clients must get answers from there.
    pub(crate) fn served_by(&mut self, resource: &'static str, node: &'static str) -> Result<()> {
        self.owner.insert(resource, node);
        for served in self.served_from(resource) {
            let from = served.client.mark();
            let what = format!("an answer of {} from {node}", served.service.name);
            served
                .client
                .wait_until(&what, PATIENCE, |history| history.answered_by(node, from))?;
        }
        self.writes(200)
    }

    fn served_from(&self, resource: &str) -> impl Iterator<Item = &Served> {
        self.served
            .iter()
            .filter(move |served| served.service.resource == resource)
    }

    /// A place in the history of each client to come back to.
    pub(crate) fn marks(&self) -> BTreeMap<&'static str, usize> {
        let mark = |served: &Served| (served.service.name, served.client.mark());
        self.served.iter().map(mark).collect()
    }

    /// Notes the longest time without an answer since `marks` of every service of `resources`.
    pub(crate) fn note_gaps(
        &mut self,
        marks: &BTreeMap<&'static str, usize>,
        cause: Cause,
        resources: &[&str],
    ) {
        for served in &self.served {
            let name = served.service.name;
            let Some(mark) = marks.get(name) else {
                continue;
            };
            if !resources.contains(&served.service.resource) {
                continue;
            }
            let gap = served.client.look(|history| history.longest_gap(*mark));
            self.downtimes.extend(gap.map(|ms| Downtime {
                cause,
                service: name,
                ms,
            }));
        }
    }

    /// Counts the records that were on their way since `marks` and got no answer.
    pub(crate) fn note_unanswered(&mut self, marks: &BTreeMap<&'static str, usize>) -> u64 {
        let since = |served: &Served| {
            let mark = marks.get(served.service.name).copied().unwrap_or(0);
            served.client.look(|history| history.unknown_since(mark)) as u64
        };
        let unanswered = self.served.iter().map(since).sum();
        self.unanswered = Some(unanswered);
        unanswered
    }

    /// Lets every client write, then looks who serves.
    pub(crate) fn writes(&mut self, count: usize) -> Result<()> {
        for served in &self.served {
            let more = served.client.more(count, PATIENCE);
            more.with_context(|| served.service.name)?;
        }
        self.count_owners()?;
        for served in &self.served {
            let (acknowledged, epoch) = served.client.look(|history| {
                let epoch = history.epoch().unwrap_or(0);
                (history.acknowledged(), epoch)
            });
            println!(
                "client | {}: {acknowledged} records acknowledged, epoch {epoch}",
                served.service.name
            );
        }
        Ok(())
    }

    /// Looks at both nodes: no store may be served by both.
    pub(crate) fn count_owners(&mut self) -> Result<()> {
        for (resource, _) in self.resources() {
            let mut serving = 0;
            for (host, _) in HOSTS {
                if self.stage.lab.node(host).is_running() && serves(&self.status(host, resource)?) {
                    serving += 1;
                }
            }
            if serving > 1 {
                println!("lab    * both nodes serve {resource}");
                self.verdict.dual_owner += 1;
            }
        }
        Ok(())
    }

    /// The records that all clients have acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let count = |served: &Served| served.client.look(History::acknowledged);
        self.served.iter().map(count).sum()
    }

    /// What `failover status` says about `resource` on `node`.
    pub(crate) fn status(&self, node: &str, resource: &str) -> Result<Value> {
        let output = self.stage.lab.node(node).run(
            Command::new(self.stage.failover_path())
                .args(["--json", "status", resource])
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
            None => bail!("{node}: failover status tells nothing about {resource}: {document}"),
        }
    }

    /// Waits until `failover status` on `node` shows what is wanted.
    pub(crate) fn await_status(
        &self,
        node: &str,
        resource: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(node, resource)?;
            if wanted(&status) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{node}: {resource}: no {what}: {status:#}"
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Cuts the wire between the nodes, and waits until DRBD on both has noticed.
    pub(crate) fn part_nodes(&mut self) -> Result<()> {
        self.stage.lab_does("cut the replication wire", |lab| {
            lab.wire("replication").cut_all();
            Ok(())
        })?;
        for (host, _) in HOSTS {
            for (resource, _) in self.resources() {
                self.await_status(host, resource, "loss of the link", |status| {
                    status["facts"]["drbd"]["link"] != "Connected"
                })?;
            }
        }
        Ok(())
    }

    /// Heals the wire, and waits until every resource is in sync again.
    pub(crate) fn join_nodes(&mut self) -> Result<()> {
        self.stage.lab_does("heal the replication wire", |lab| {
            lab.wire("replication").heal_all();
            Ok(())
        })?;
        for (resource, owner) in self.resources() {
            self.stage
                .failover(other(owner), &["wait-sync", resource], 0)?;
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self, node: &str) -> Result<()> {
        self.stage
            .lab_does(&format!("node loss: {node}"), |lab| lab.node(node).kill())
    }

    /// Gives both nodes, which are off, larger disks for `resource` with the same content.
    pub(crate) fn change_disks(&mut self, resource: &str, bytes: u64) -> Result<()> {
        let resources = self.resources();
        let number = resources.iter().position(|(name, _)| *name == resource);
        let number = number.context("no such resource")?;
        for (host, _) in HOSTS {
            let path = self.stage.lab.node(host).disk_path(number).to_owned();
            println!("lab    * a larger disk for {resource}: {host}");
            let disk = std::fs::OpenOptions::new().write(true).open(&path);
            disk.and_then(|disk| disk.set_len(bytes))
                .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    pub(crate) fn cut_power(&mut self, node: &str, seed: u64) -> Result<()> {
        self.stage.lab_does(&format!("power cut: {node}"), |lab| {
            lab.node(node).power_cut(seed)
        })
    }

    pub(crate) fn boot(&mut self, node: &str) -> Result<()> {
        self.stage
            .lab_does(&format!("boot {node} again, on the same disks"), |lab| {
                lab.node(node).boot()
            })?;
        dress(&mut self.stage, node, self.changes)
    }

    /// A node that was lost comes back: its resources go up as secondary and in sync.
    pub(crate) fn return_of(&mut self, node: &'static str) -> Result<()> {
        self.boot(node)?;
        for verb in ["up", "wait-sync"] {
            for (resource, _) in self.resources() {
                self.stage.failover(node, &[verb, resource], 0)?;
            }
        }
        Ok(())
    }

    /// Shows what the kernels said last; called when the story breaks off.
    pub(crate) fn show_kernel_logs(&self) {
        for (host, _) in HOSTS {
            let command = Command::new(self.stage.program_path()).args(["in-node", "kernel-log"]);
            let log = self.stage.lab.node(host).run(command);
            let text = log.map_or_else(|error| error.to_string(), |log| log.stdout_text());
            let lines: Vec<&str> = text.lines().collect();
            let blocked = lines
                .iter()
                .rposition(|line| line.contains("Show Blocked State"))
                .unwrap_or(lines.len());
            for line in &lines[blocked.saturating_sub(25)..] {
                println!("{host:<6} kernel: {line}");
            }
        }
    }

    /// Reads the records of every service where it is served now.
    pub(crate) fn read_stores(&mut self) -> Result<()> {
        for at in 0..self.served.len() {
            let service = self.served[at].service;
            let copy = self.read(service, self.owner(service.resource)?)?;
            self.served[at].copies.push(copy);
        }
        Ok(())
    }

    /// A container that was made of a snapshot of `name`: what it holds was once in `name`.
    pub(crate) fn restored(&self, resource: &str, name: &str, copy: &str) -> Result<()> {
        let mut served = self.served_from(resource);
        let served = served.find(|served| served.service.name == name);
        let service = served.context("nobody serves it")?.service;
        let owner = self.owner(resource)?;
        let now = self.read(service, owner)?;
        let then = self.read_in(service, owner, &service.data_of(copy))?;
        for (writer, lines) in &then {
            let all = now.get(writer).is_some_and(|all| all.starts_with(lines));
            ensure!(all, "{copy}: writer {writer}: not what {name} held");
        }
        let lines = then.values().flatten().filter(|byte| **byte == b'\n');
        let count = lines.count();
        ensure!(count > 0, "{copy} holds no records");
        println!("lab    * {copy} holds {count} records of {name}, each as it was");
        Ok(())
    }

    fn read(&self, service: &Service, node: &str) -> Result<Records> {
        self.read_in(service, node, &service.data())
    }

    fn read_in(&self, service: &Service, node: &str, data: &str) -> Result<Records> {
        let mut records = Records::new();
        if service.database {
            let database = format!("{data}/..{DATABASE}");
            let read = ["in-node", "read-database", &database];
            let command = Command::new(self.stage.program_path()).args(read);
            let output = self.stage.lab.node(node).run(command.deadline(PATIENCE))?;
            ensure!(
                output.status.success(),
                "{node}: {database}: {}",
                output.stderr_text()
            );
            for line in output.stdout_text().lines() {
                let (writer, line) = line.split_once(' ').context("a line names its writer")?;
                let record = records.entry(writer.parse()?).or_default();
                record.extend(format!("{line}\n").into_bytes());
            }
            return Ok(records);
        }
        for writer in 0..WRITERS {
            let path = format!("{data}/w{writer}.log");
            let content = self.stage.lab.node(node).read_file(&path);
            let content = content.with_context(|| format!("{node}: {path}"))?;
            records.insert(writer, content);
        }
        Ok(records)
    }

    /// The clients of `resource` stop, and what they saw is judged against the store.
    pub(crate) fn retire(&mut self, resource: &str) -> Result<()> {
        let owner = self.owner(resource)?;
        let (leaving, staying) = std::mem::take(&mut self.served)
            .into_iter()
            .partition(|served| served.service.resource == resource);
        self.served = staying;
        for Served {
            service,
            client,
            copies,
        } in leaving
        {
            let history = client.stop(PATIENCE)?;
            let last = self.read(service, owner)?;
            let mut verdict = Verdict::judge(&history, &last);
            for copy in &copies {
                // A copy that was read earlier lacks what was written later; it is judged for
                // damage, and for what the last copy does not have.
                let earlier = Verdict::judge(&history, copy);
                verdict.torn = verdict.torn.max(earlier.torn);
                verdict.phantom = verdict.phantom.max(earlier.phantom);
            }
            self.verdict.add(&verdict);
        }
        Ok(())
    }

    /// The clients stop, the stores are read and everything is judged.
    pub(crate) fn end(mut self) -> Result<Ending> {
        self.stage
            .act("the clients stop, the stores are read and judged");
        for (resource, _) in self.resources() {
            self.retire(resource)?;
        }
        for (host, _) in HOSTS {
            if self.stage.lab.node(host).is_running() && !self.changes.by_hand {
                let calls = foreign_calls(&self.stage.lab, host)?.lines().count() as u64;
                *self.verdict.foreign_tools.get_or_insert(0) += calls;
            }
        }
        Ok(Ending::new(
            self.verdict,
            self.downtimes,
            self.unanswered,
            self.stage.steps(),
        ))
    }
}

fn recorder_layer() -> Result<TempDir> {
    let layer = tempfile::tempdir().context("making a directory for the recorder")?;
    for program in REPLACED {
        let path = layer.path().join(program);
        let directory = path.parent().context("a program has a directory")?;
        std::fs::create_dir_all(directory).context("making the recorder's directories")?;
        std::fs::write(&path, RECORDER).context("writing the recorder")?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, executable).context("making it executable")?;
    }
    Ok(layer)
}

fn boot_all(layer: &Path, changes: Changes) -> Result<Lab> {
    let mut builder =
        Lab::builder()
            .name("story")
            .packages(["btrfs-progs", "liblxc1", "liblxc-common"]);
    builder = if changes.by_hand {
        builder.packages(["drbd-utils", "lxc"])
    } else {
        builder.layer(layer)
    };
    for (host, _) in HOSTS {
        builder = builder.node(host, |node| {
            let node = node.disk(disk(changes));
            let node = if changes.full {
                node.disk(disk(changes))
            } else {
                node
            };
            node.memory("320M")
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
    Ok(lab)
}

fn disk(changes: Changes) -> Disk {
    let disk = Disk::new("192M");
    if changes.power_cut {
        disk.power_cut()
    } else {
        disk
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
    for (set, option) in [
        (changes.protocol_a, "--protocol-a"),
        (changes.no_fsync, "--no-fsync"),
        (changes.full, "--full"),
    ] {
        arguments.extend(set.then_some(option));
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
