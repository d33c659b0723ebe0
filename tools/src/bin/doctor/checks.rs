//! What can be wrong, one function a defect.

use std::collections::{BTreeMap, BTreeSet};

use drbd_conf::{Config, Diagnostic, Location};
use ha_failover::placement::{Fence, Placement};

use crate::commands::Command;
use crate::tree::{Lines, Tree, key_value};
use crate::{Finding, Place, Severity};

struct Doctor<'a> {
    trees: &'a BTreeMap<String, Tree>,
    placement: Option<&'a Placement>,
    commands: &'a [Command],
    findings: Vec<Finding>,
}

pub(crate) fn all(
    trees: &BTreeMap<String, Tree>,
    placement: Option<&Placement>,
    commands: &[Command],
) -> Vec<Finding> {
    let mut d = Doctor {
        trees,
        placement,
        commands,
        findings: Vec::new(),
    };
    d.configurations();
    d.owners();
    d.devices_of_commands();
    d.promoted_and_mounted();
    d.bridges();
    d.lxc_keys();
    d.copied_configurations();
    d.mounts();
    d.managers();
    d.autostart();
    d.lxcpaths();
    d.handlers();
    d.findings
}

fn place(at: &Location) -> Place {
    Place {
        file: at.file.display().to_string(),
        line: at.line,
        column: at.column,
        text: at.text.clone(),
    }
}

impl<'a> Doctor<'a> {
    fn add(
        &mut self,
        code: &str,
        severity: Severity,
        node: Option<&str>,
        message: String,
        evidence: Vec<Place>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding {
            code: code.into(),
            severity,
            node: node.map(str::to_owned),
            message,
            evidence,
            remedy: remedy.into(),
        });
    }

    fn configs(&self) -> impl Iterator<Item = (&'a str, &'a Config)> + use<'a> {
        self.trees
            .values()
            .filter_map(|t| Some((t.name.as_str(), t.drbd.as_ref()?.as_ref().ok()?)))
    }

    /// The resource that has a minor on a node.
    fn resource_of(&self, node: &str, minor: u32) -> Option<&'a str> {
        let (_, config) = self.configs().find(|(name, _)| *name == node)?;
        let of = |r: &&drbd_conf::Resource| {
            let view = r.for_node(node);
            view.is_ok_and(|v| v.volumes.iter().any(|v| v.minor == minor))
        };
        config.resources.iter().find(of).map(|r| r.name.as_str())
    }

    /// Everything drbd-conf says by itself, weighed for nodes whose owner is decided elsewhere.
    fn configurations(&mut self) {
        let fenced = self.placement.is_some_and(|p| {
            p.resources
                .iter()
                .all(|r| !matches!(r.fence, Fence::Operator))
        });
        for tree in self.trees.values() {
            let diagnostics: Vec<(Diagnostic, bool)> = match &tree.drbd {
                None => {
                    let text = "no etc/drbd.conf in this tree".to_owned();
                    let node = Some(tree.name.as_str());
                    let remedy = "the same drbd.conf belongs on each node";
                    self.add(
                        "no-drbd-conf",
                        Severity::Error,
                        node,
                        text,
                        Vec::new(),
                        remedy,
                    );
                    continue;
                }
                Some(Err(e)) => e.diagnostics().iter().map(|d| (d.clone(), true)).collect(),
                Some(Ok(c)) => c.warnings().iter().map(|d| (d.clone(), false)).collect(),
            };
            for (d, fatal) in diagnostics {
                let severe = match d.code {
                    "no-fencing" => !fenced,
                    "boot-promotion" | "weak-protocol" | "split-brain-automatic" => true,
                    _ => fatal,
                };
                let severity = if severe {
                    Severity::Error
                } else {
                    Severity::Warning
                };
                let evidence = d.location.iter().map(place).collect();
                let remedy = d.remedy.unwrap_or_else(|| "see drbd.conf(5)".into());
                self.add(
                    d.code,
                    severity,
                    Some(&tree.name),
                    d.message,
                    evidence,
                    remedy,
                );
            }
            if let Some(Ok(config)) = &tree.drbd {
                for r in &config.resources {
                    if let Err(e) = r.for_node(&tree.name) {
                        let text = e.diagnostics()[0].message.clone();
                        let remedy = "the name after \"on\" has to be the node's host name";
                        let at = vec![place(&r.location())];
                        let node = Some(tree.name.as_str());
                        self.add("unknown-node", Severity::Error, node, text, at, remedy);
                    }
                }
            }
        }
        let mut views: Vec<(&str, String)> = Vec::new();
        for (name, config) in self.configs() {
            let shape = |r: &drbd_conf::Resource| {
                let nodes = r.nodes();
                let of = |n: &String| {
                    r.for_node(n)
                        .map(|v| format!("{:?}{:?}", v.volumes, v.peers))
                };
                format!(
                    "{}{:?}",
                    r.name,
                    nodes.iter().map(|n| of(n).ok()).collect::<Vec<_>>()
                )
            };
            views.push((name, config.resources.iter().map(shape).collect()));
        }
        if let [(a, first), rest @ ..] = &views[..] {
            for (b, other) in rest.iter().filter(|(_, o)| o != first) {
                let _ = other;
                let text = format!("drbd.conf says something else on {b} than on {a}");
                let remedy = "copy one of them to the other node";
                self.add(
                    "drbd-conf-differs",
                    Severity::Error,
                    Some(b),
                    text,
                    Vec::new(),
                    remedy,
                );
            }
        }
    }

    /// Who is to own a resource: the placement's word, or the last node that is told to promote it
    /// before anything fails.
    fn intended(&self, resource: &str) -> Option<(String, Option<Place>)> {
        if let Some(r) = self.placement.and_then(|p| p.resource(resource).ok()) {
            return Some((r.owner.clone(), None));
        }
        let made: Vec<usize> = (0..self.commands.len())
            .filter(|i| self.commands[*i].program().starts_with("mkfs"))
            .collect();
        let before = made.first().copied().unwrap_or(self.commands.len());
        let by = self.commands[..before]
            .iter()
            .rev()
            .find(|c| c.promotes() == Some(resource))?;
        Some((by.node.clone(), Some(by.place.clone())))
    }

    /// Defect 1: the start script promotes where the resource does not belong.
    fn owners(&mut self) {
        for (node, config) in self.configs() {
            for r in &config.resources {
                let Some(at) = config.become_primary_location(r) else {
                    continue;
                };
                let Some((owner, said)) = self.intended(&r.name) else {
                    continue;
                };
                let starts = &r.sections.become_primary_on;
                if starts.contains(&owner) && starts.len() == 1 {
                    continue;
                }
                let text = format!(
                    "resource {} belongs on {owner}, but the start script promotes it on {}",
                    r.name,
                    starts.join(", ")
                );
                let mut evidence = vec![place(&at)];
                evidence.extend(said);
                let remedy = "remove become-primary-on: the owner is decided in one place";
                self.add(
                    "startup-owner",
                    Severity::Error,
                    Some(node),
                    text,
                    evidence,
                    remedy,
                );
            }
        }
    }

    /// Defect 2: a command names a device that this node does not have.
    fn devices_of_commands(&mut self) {
        for c in self.commands {
            let Some(minor) = c.minor() else { continue };
            let known = self.configs().any(|(name, _)| name == c.node);
            if known && self.resource_of(&c.node, minor).is_none() {
                let text = format!("no resource is /dev/drbd{minor} on {}", c.node);
                let remedy = "use the device of the node, or one minor on both nodes";
                let at = vec![c.place.clone()];
                self.add(
                    "missing-device",
                    Severity::Error,
                    Some(&c.node),
                    text,
                    at,
                    remedy,
                );
            }
        }
    }

    /// Defect 3: one resource is promoted, and another one's device is used next.
    fn promoted_and_mounted(&mut self) {
        let mut primary: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        // A resource is primary where the last command about it made it so.
        for c in self.commands {
            if let Some(r) = c.promotes() {
                let names: Vec<&str> = match r {
                    "all" => self
                        .configs()
                        .flat_map(|(_, config)| &config.resources)
                        .map(|r| r.name.as_str())
                        .collect(),
                    _ => vec![r],
                };
                for name in names {
                    for set in primary.values_mut() {
                        set.remove(name);
                    }
                    primary.entry(&c.node).or_default().insert(name);
                }
            } else if c.program() == "drbdadm" && c.arguments().next() == Some("secondary") {
                let which = c.arguments().nth(1).unwrap_or("all");
                let set = primary.entry(&c.node).or_default();
                set.retain(|r| which != "all" && *r != which);
            } else if c.program() == "mount"
                && let Some(minor) = c.minor()
                && let Some(r) = self.resource_of(&c.node, minor)
                && !primary
                    .get(c.node.as_str())
                    .is_some_and(|set| set.contains(r))
            {
                let on: Vec<&str> = primary
                    .get(c.node.as_str())
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect();
                let on = if on.is_empty() {
                    "nothing".into()
                } else {
                    on.join(", ")
                };
                let text = format!(
                    "/dev/drbd{minor} is {r}, which is not primary on {}: {on} is",
                    c.node
                );
                let remedy =
                    format!("drbdadm primary {r}, or mount the device of what was promoted");
                let at = vec![c.place.clone()];
                self.add(
                    "not-promoted",
                    Severity::Error,
                    Some(&c.node),
                    text,
                    at,
                    remedy,
                );
            }
        }
    }

    /// What the containers' configurations and the placement want to be plugged into.
    fn bridges(&mut self) {
        let mut wanted: BTreeMap<String, Option<Place>> = BTreeMap::new();
        for tree in self.trees.values() {
            for file in &tree.lxc {
                for (n, line) in file.each() {
                    let Some((key, value)) = key_value(line) else {
                        continue;
                    };
                    if key.starts_with("lxc.net") && key.ends_with(".link") {
                        wanted
                            .entry(value.to_owned())
                            .or_insert(Some(file.place(n, value)));
                    }
                }
            }
        }
        let of_placement = self.placement.into_iter().flat_map(|p| &p.resources);
        for container in of_placement.flat_map(|r| &r.containers) {
            for address in &container.addresses {
                wanted.entry(address.bridge.clone()).or_insert(None);
            }
        }
        for (bridge, by) in wanted {
            for tree in self.trees.values() {
                let Some(file) = &tree.interfaces else {
                    continue;
                };
                let there = file.each().any(|(_, line)| {
                    let mut words = line.split_whitespace();
                    words.next() == Some("iface") && words.next() == Some(&bridge)
                });
                if there {
                    continue;
                }
                let text =
                    format!("there is no bridge {bridge}, and containers are plugged into it");
                let mut at: Vec<Place> = by.iter().cloned().collect();
                at.push(file.place(1, ""));
                let remedy = format!("define {bridge} on this node, as on the others");
                self.add(
                    "missing-bridge",
                    Severity::Error,
                    Some(&tree.name),
                    text,
                    at,
                    remedy,
                );
            }
        }
    }

    /// Defect 5: keys that liblxc does not take.
    fn lxc_keys(&mut self) {
        for tree in self.trees.values() {
            for file in &tree.lxc {
                for (n, line) in file.each() {
                    let Some((key, _)) = key_value(line) else {
                        continue;
                    };
                    let Some(now) = unknown_key(key) else {
                        continue;
                    };
                    let text = format!("liblxc does not take \"{key}\"");
                    let at = vec![file.place(n, key)];
                    self.add(
                        "bad-lxc-key",
                        Severity::Error,
                        Some(&tree.name),
                        text,
                        at,
                        now,
                    );
                }
            }
        }
    }

    /// Defect 6: a container's configuration in two places.
    fn copied_configurations(&mut self) {
        for c in self.commands {
            if !["scp", "cp", "rsync"].contains(&c.program()) {
                continue;
            }
            if c.arguments().any(|w| w.ends_with("/config")) {
                let text =
                    "a container's configuration is copied, and the copies will differ".to_owned();
                let remedy = "keep it on the replicated store only, and name the lxcpath";
                let at = vec![c.place.clone()];
                self.add(
                    "config-copied",
                    Severity::Error,
                    Some(&c.node),
                    text,
                    at,
                    remedy,
                );
            }
        }
        let mut seen: BTreeMap<String, (&str, &Lines)> = BTreeMap::new();
        for tree in self.trees.values() {
            for file in &tree.lxc {
                let Some(dir) = file.file.parent().filter(|_| file.file.ends_with("config")) else {
                    continue;
                };
                let name = dir
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if let Some((other, first)) = seen.insert(name.clone(), (&tree.name, file)) {
                    let text = format!("container {name} is configured on {other} and here");
                    let at = vec![first.place(1, ""), file.place(1, "")];
                    let remedy = "keep it on the replicated store only, and name the lxcpath";
                    self.add(
                        "config-copied",
                        Severity::Error,
                        Some(&tree.name),
                        text,
                        at,
                        remedy,
                    );
                }
            }
        }
    }

    /// Defect 9: a file system that nobody mounts, and one that is mounted too early.
    fn mounts(&mut self) {
        for (i, c) in self.commands.iter().enumerate() {
            if !c.program().starts_with("mkfs") {
                continue;
            }
            let Some(minor) = c.minor() else { continue };
            let later = self.commands[i + 1..].iter().filter(|l| l.node == c.node);
            let mounted = later
                .clone()
                .any(|l| l.program() == "mount" && l.minor() == Some(minor));
            let used = later
                .clone()
                .find(|l| ["du", "df", "lxc-create", "lxc-start"].contains(&l.program()));
            if mounted {
                continue;
            }
            let text = format!("the file system on /dev/drbd{minor} is made, and never mounted");
            let mut at = vec![c.place.clone()];
            at.extend(used.map(|u| u.place.clone()));
            let remedy = "mount it after the promotion, on the owner, each time; not from fstab";
            self.add(
                "not-mounted",
                Severity::Error,
                Some(&c.node),
                text,
                at,
                remedy,
            );
        }
    }

    /// Who else would act on the stores at boot, or by rules of his own.
    fn managers(&mut self) {
        for tree in self.trees.values() {
            for c in &tree.managers {
                let severity = match c.severity {
                    ha_failover::Severity::Error => Severity::Error,
                    _ => Severity::Warning,
                };
                let at = Place {
                    file: c.file.display().to_string(),
                    line: c.line.max(1),
                    column: c.column,
                    text: c.text.clone(),
                };
                let node = Some(tree.name.as_str());
                let (what, remedy) = (c.what.clone(), c.remedy.clone());
                self.add(c.code.as_str(), severity, node, what, vec![at], remedy);
            }
        }
    }

    fn autostart(&mut self) {
        for tree in self.trees.values() {
            for file in &tree.lxc {
                for (n, line) in file.each() {
                    if let Some(("lxc.start.auto", value)) = key_value(line)
                        && value != "0"
                    {
                        let text =
                            "the container starts at boot, before its store is mounted".to_owned();
                        let remedy = "lxc.start.auto = 0: whoever mounts has to start it";
                        let at = vec![file.place(n, "lxc.start.auto")];
                        self.add(
                            "autostart",
                            Severity::Error,
                            Some(&tree.name),
                            text,
                            at,
                            remedy,
                        );
                    }
                }
            }
        }
    }

    /// Defect 11: the default lxcpath is another one on each node.
    fn lxcpaths(&mut self) {
        for c in self.commands {
            let p = c.program();
            if p.starts_with("lxc-") && !c.has("-P", "--lxcpath") {
                let text = format!("{p} without -P takes this node's default lxcpath");
                let remedy = "name the store: -P /srv/…/containers";
                let at = vec![c.place.clone()];
                self.add(
                    "implicit-lxcpath",
                    Severity::Error,
                    Some(&c.node),
                    text,
                    at,
                    remedy,
                );
            }
        }
    }

    /// Handlers that are configured and switched off by a parameter of the module.
    fn handlers(&mut self) {
        for tree in self.trees.values() {
            let Some(Ok(config)) = &tree.drbd else {
                continue;
            };
            let configured = config
                .resources
                .iter()
                .any(|r| !r.sections.handlers.is_empty());
            for file in &tree.modprobe {
                for (n, line) in file.each() {
                    let mut words = line.split_whitespace();
                    if words.next() != Some("options") || words.next() != Some("drbd") {
                        continue;
                    }
                    let helper = words.find_map(|w| w.strip_prefix("usermode_helper="));
                    let Some(helper) = helper else { continue };
                    if configured && ["disabled", "/bin/true", "/usr/bin/true"].contains(&helper) {
                        let text = format!("usermode_helper={helper} switches all handlers off");
                        let remedy =
                            "remove the parameter, or name a program that runs the handlers";
                        let at = vec![file.place(n, "usermode_helper")];
                        self.add(
                            "handlers-off",
                            Severity::Error,
                            Some(&tree.name),
                            text,
                            at,
                            remedy,
                        );
                    }
                }
            }
        }
    }
}

/// First words of the keys of LXC 3 and later, after `lxc.`.
const SECTIONS: &[&str] = &[
    "apparmor",
    "arch",
    "autodev",
    "cap",
    "cgroup",
    "cgroup2",
    "console",
    "environment",
    "ephemeral",
    "execute",
    "group",
    "hook",
    "idmap",
    "include",
    "init",
    "keyring",
    "log",
    "lxcpath",
    "monitor",
    "mount",
    "namespace",
    "net",
    "no_new_privs",
    "personality",
    "prlimit",
    "proc",
    "pty",
    "rootfs",
    "sched",
    "seccomp",
    "selinux",
    "signal",
    "start",
    "sysctl",
    "time",
    "tty",
    "uts",
];

/// Keys of LXC 1 and 2 that have another name now.
const RENAMED: &[(&str, &str)] = &[
    ("lxc.utsname", "lxc.uts.name"),
    ("lxc.rootfs", "lxc.rootfs.path"),
    ("lxc.rootfs.backend", "lxc.rootfs.path = BACKEND:PATH"),
    ("lxc.mount", "lxc.mount.fstab"),
    ("lxc.id_map", "lxc.idmap"),
    ("lxc.tty", "lxc.tty.max"),
    ("lxc.pts", "lxc.pty.max"),
    ("lxc.devttydir", "lxc.tty.dir"),
    ("lxc.console", "lxc.console.path"),
    ("lxc.aa_profile", "lxc.apparmor.profile"),
    ("lxc.se_context", "lxc.selinux.context"),
    ("lxc.seccomp", "lxc.seccomp.profile"),
    ("lxc.kmsg", "remove it"),
    ("lxc.init_cmd", "lxc.init.cmd"),
    ("lxc.haltsignal", "lxc.signal.halt"),
    ("lxc.stopsignal", "lxc.signal.stop"),
    ("lxc.loglevel", "lxc.log.level"),
    ("lxc.logfile", "lxc.log.file"),
];

/// What to do about a key that liblxc (3 or later) refuses; `None` if it takes the key.
pub(crate) fn unknown_key(key: &str) -> Option<String> {
    if let Some((_, now)) = RENAMED.iter().find(|(old, _)| *old == key) {
        return Some(format!("write {now}"));
    }
    if let Some(rest) = key.strip_prefix("lxc.network.") {
        return Some(format!("write lxc.net.0.{rest}"));
    }
    let Some(rest) = key.strip_prefix("lxc.") else {
        return Some("keys begin with \"lxc.\"".into());
    };
    let (section, item) = rest.split_once('.').unwrap_or((rest, ""));
    if SECTIONS.contains(&section) {
        return None;
    }
    // A slip in "network" or "net" is the likeliest.
    if section.ends_with("twork") || section.ends_with("et") {
        return Some(format!("write lxc.net.0.{item}"));
    }
    Some("see lxc.container.conf(5)".into())
}
