//! drbd.conf, as far as it matters here.

use std::collections::BTreeMap;
use std::path::Path;

use drbd_conf::{Config, Diagnostic, ErrorKind, MetaDisk, NodeView, Step};
use drbd_md::Target;
use drbd_nl::{Base, Dialect, Operation, ResourceName, ResourceOptions};

use crate::error::chain;
use crate::facts::{Conf, ConfProblem, ConfVolume};

/// One resource of drbd.conf on this node.
#[derive(Debug, Default)]
pub(super) struct NodeConf {
    /// What the planner looks at.
    pub(super) facts: Conf,
    /// Where the metadata of each volume is.
    pub(super) targets: BTreeMap<u16, Target>,
    /// What becomes requests to the kernel.
    view: Option<NodeView>,
}

impl NodeConf {
    /// Reads a configuration; what is wrong with it is in [`Conf::problem`].
    pub(super) fn load(path: &Path, resource: &str, node: &str) -> Self {
        let mut conf = NodeConf {
            facts: Conf {
                path: path.to_owned(),
                ..Conf::default()
            },
            ..NodeConf::default()
        };
        let config = match Config::load(path) {
            Ok(config) => config,
            Err(e) => {
                conf.facts.problem = Some(ConfProblem::Unusable(text(&e)));
                return conf;
            }
        };
        let Some(found) = config.resource(resource) else {
            let names: Vec<_> = config.resources.iter().map(|r| r.name.as_str()).collect();
            conf.facts.problem = Some(ConfProblem::NoResource(format!(
                "no resource `{resource}`; it has: {}",
                names.join(", ")
            )));
            return conf;
        };
        let view = match found.for_node(node) {
            Ok(view) => view,
            Err(e) if e.kind() == ErrorKind::UnknownNode => {
                conf.facts.problem = Some(ConfProblem::NoSuchNode(text(&e)));
                return conf;
            }
            Err(e) => {
                conf.facts.problem = Some(ConfProblem::Unusable(text(&e)));
                return conf;
            }
        };
        let peer = match view.peer() {
            Ok(peer) => peer,
            Err(e) => {
                conf.facts.problem = Some(ConfProblem::Unusable(text(&e)));
                return conf;
            }
        };
        let facts = &mut conf.facts;
        facts
            .become_primary_on
            .clone_from(&found.sections.become_primary_on);
        facts.peer = Some(peer.name.to_string());
        if let Some((ours, theirs)) = peer.paths.first() {
            facts.address = Some(ours.socket.ip().to_string());
            facts.peer_address = Some(theirs.socket.ip().to_string());
        }
        // Where nothing is written the driver's default holds: C on 9, and 8.4 wants it written.
        facts.protocol = Some(peer.net.text("protocol").unwrap_or("C").to_owned());
        facts.two_primaries = peer.net.flag("allow-two-primaries").unwrap_or(false);
        facts.fencing = peer.net.text("fencing").map(str::to_owned);
        facts.advice = config
            .warnings()
            .iter()
            // Said in our own words, because it concerns who promotes.
            .filter(|w| !w.message.contains("become-primary-on"))
            .map(short)
            .collect();
        for volume in &view.volumes {
            let Ok(number) = u16::try_from(volume.number) else {
                continue;
            };
            if let Some(policy) = volume.options.text("fencing") {
                facts.fencing = Some(policy.to_owned());
            }
            let (Some(disk), Some(meta_disk)) = (&volume.disk, &volume.meta_disk) else {
                continue;
            };
            let peer_minor = peer
                .volumes
                .iter()
                .find(|(n, _, _)| *n == volume.number)
                .map(|(_, minor, _)| *minor);
            facts.volumes.insert(
                number,
                ConfVolume {
                    minor: volume.minor,
                    device: volume.device.to_path_buf(),
                    disk: disk.to_path_buf(),
                    peer_minor,
                },
            );
            let target = match meta_disk {
                MetaDisk::Internal => Target::internal(&**disk),
                MetaDisk::Flexible(path) => Target::flexible_external(path),
                other => {
                    facts.problem = Some(ConfProblem::Unusable(format!(
                        "{}: meta-disk {other} of volume {number} of {resource} is not supported; use `internal` or a whole device",
                        path.display()
                    )));
                    return conf;
                }
            };
            conf.targets.insert(number, target);
        }
        conf.view = Some(view);
        conf
    }

    /// The requests that configure the resource and attach its disks.
    pub(super) fn attach(&self, dialect: Dialect) -> Result<Vec<Operation>, String> {
        let view = self.view()?;
        let mut steps = view.create(dialect).map_err(|e| text(&e))?;
        if dialect == Dialect::V9 {
            // Nobody becomes Primary by merely opening the device.
            steps.insert(
                1,
                Step::Drbd(Operation::ChangeResourceOptions {
                    resource: ResourceName::new(&view.resource).map_err(|e| e.to_string())?,
                    base: Base::Current,
                    options: ResourceOptions::new().auto_promote(false),
                }),
            );
        }
        steps.extend(view.attach(dialect).map_err(|e| text(&e))?);
        Ok(operations(steps))
    }

    /// The requests that configure the connection.
    pub(super) fn connect(&self, dialect: Dialect) -> Result<Vec<Operation>, String> {
        self.view()?
            .connect(dialect)
            .map(operations)
            .map_err(|e| text(&e))
    }

    /// What `drbdadm adjust` would do to the running resource.
    pub(super) fn differences(&self, running: &drbd_nl::Resource, dialect: Dialect) -> Vec<String> {
        let Some(view) = &self.view else {
            return Vec::new();
        };
        match view.adjust(Some(&running.into()), dialect) {
            Ok(steps) => steps.iter().map(ToString::to_string).collect(),
            Err(e) => vec![text(&e)],
        }
    }

    /// The request that takes a volume's new size into use.
    pub(super) fn resize(&self, dialect: Dialect, volume: u16) -> Result<Operation, String> {
        let steps = self.view()?.resize(dialect).map_err(|e| text(&e))?;
        let minor = self.facts.volumes.get(&volume).map(|v| v.minor);
        let of =
            |o: &Operation| matches!(o, Operation::Resize { minor: m, .. } if Some(m.0) == minor);
        operations(steps)
            .into_iter()
            .find(of)
            .ok_or_else(|| format!("{}: no volume {volume}", self.facts.path.display()))
    }

    fn view(&self) -> Result<&NodeView, String> {
        self.view
            .as_ref()
            .ok_or_else(|| format!("{}: not usable", self.facts.path.display()))
    }
}

/// The activity log is a step of ours: planned, and only where it is needed.
fn operations(steps: Vec<Step>) -> Vec<Operation> {
    steps
        .into_iter()
        .filter_map(|step| match step {
            Step::Drbd(operation) => Some(operation),
            _ => None,
        })
        .collect()
}

fn text(error: &drbd_conf::Error) -> String {
    let lines: Vec<_> = error.diagnostics().iter().map(short).collect();
    if lines.is_empty() {
        chain(error)
    } else {
        lines.join("; ")
    }
}

/// One line: place, message, remedy.
fn short(diagnostic: &Diagnostic) -> String {
    let mut line = String::new();
    if let Some(at) = &diagnostic.location {
        line.push_str(&format!("{at}: "));
    }
    line.push_str(&diagnostic.message);
    if let Some(remedy) = &diagnostic.remedy {
        line.push_str(&format!(" ({remedy})"));
    }
    line
}
