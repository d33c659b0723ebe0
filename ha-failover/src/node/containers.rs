//! The containers of the store.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lxc_rs::{AttachCommand, Container, ContainerName, CreateSpec, LxcPath, Outcome, StartOptions};

use super::Node;
use crate::error::{Error, ErrorKind, Result, chain};
use crate::facts::{ContainerFacts, ContainerState};
use crate::placement::{ContainerSpec, KILL, Ready};
use crate::world::{Done, Failure, FailureKind, World};

/// A container to be made in the store.
#[derive(Clone, Debug)]
pub struct NewContainer {
    /// Its name; must be in the placement.
    pub name: String,
    /// The tree that is copied into its root file system.
    pub rootfs: PathBuf,
    /// A file in liblxc's format; everything but `lxc.rootfs.*`.
    pub config: PathBuf,
}

impl NewContainer {
    /// Names what it is made from.
    #[must_use]
    pub fn new(name: &str, rootfs: &Path, config: &Path) -> Self {
        NewContainer {
            name: name.to_owned(),
            rootfs: rootfs.to_owned(),
            config: config.to_owned(),
        }
    }
}

impl Node {
    pub(super) fn container_facts(&self, mounted: bool) -> BTreeMap<String, ContainerFacts> {
        let lxcpath = mounted.then(|| LxcPath::new(&self.resource.lxcpath));
        let mut all = BTreeMap::new();
        for spec in &self.resource.containers {
            let facts = match &lxcpath {
                None => ContainerFacts::new(None),
                Some(Err(e)) => {
                    let mut facts = ContainerFacts::new(None);
                    facts.problem = Some(chain(e));
                    facts
                }
                Some(Ok(lxcpath)) => one(lxcpath, spec),
            };
            all.insert(spec.name.clone(), facts);
        }
        all
    }

    pub(super) fn spec(&self, name: &str) -> std::result::Result<&ContainerSpec, Failure> {
        self.resource
            .containers
            .iter()
            .find(|c| c.name == name)
            .ok_or_else(|| {
                Failure::new(
                    FailureKind::Failed,
                    format!("container {name} is not in the placement"),
                )
            })
    }

    fn open_container(&self, name: &str) -> std::result::Result<Container, Failure> {
        self.ensure_mounted()?;
        let lxcpath = LxcPath::new(&self.resource.lxcpath).map_err(|e| refused(&e))?;
        Container::open(&lxcpath, name).map_err(|e| refused(&e))
    }

    /// Nothing of liblxc is asked while the store is not there: a path below an
    /// empty mount point is another container.
    pub(super) fn ensure_mounted(&self) -> std::result::Result<(), Failure> {
        let target = &self.resource.mount;
        let device = self.device();
        let mounted = node_ops::mounts::table().is_ok_and(|table| {
            table
                .iter()
                .rev()
                .find(|m| m.mount_point == *target)
                .is_some_and(|m| m.source == device.as_os_str())
        });
        if mounted {
            Ok(())
        } else {
            Err(Failure::new(
                FailureKind::Failed,
                format!("{}: the store is not mounted", target.display()),
            ))
        }
    }

    pub(super) fn check_containers(&self) -> std::result::Result<Done, Failure> {
        self.ensure_mounted()?;
        let lxcpath = LxcPath::new(&self.resource.lxcpath).map_err(|e| refused(&e))?;
        if !lxcpath.is_btrfs().map_err(|e| refused(&e))? {
            return Err(Failure::new(
                FailureKind::Failed,
                format!("{}: not on Btrfs", self.resource.lxcpath.display()),
            ));
        }
        let links = node_ops::links::list()
            .map_err(|e| Failure::new(FailureKind::Failed, e.to_string()))?;
        let mut wrong = Vec::new();
        for spec in &self.resource.containers {
            let facts = one(&lxcpath, spec);
            if let Some(problem) = facts.problem {
                wrong.push(format!("container {}: {problem}", spec.name));
            }
            if facts.state == Some(ContainerState::Missing) {
                wrong.push(format!(
                    "container {}: it has no configuration below {}",
                    spec.name,
                    self.resource.lxcpath.display()
                ));
            }
            for bridge in facts.bridges {
                if !links
                    .iter()
                    .any(|l| l.name == bridge && l.kind.as_deref() == Some("bridge"))
                {
                    wrong.push(format!(
                        "container {}: this host has no bridge {bridge}",
                        spec.name
                    ));
                }
            }
        }
        if wrong.is_empty() {
            Ok(Done::now())
        } else {
            Err(Failure::new(FailureKind::Failed, wrong.join("; "))
                .remedy("correct that, then run the command again"))
        }
    }

    pub(super) fn start_container(
        &self,
        name: &str,
        deadline: Duration,
    ) -> std::result::Result<Done, Failure> {
        let container = self.open_container(name)?;
        let epoch = self
            .state
            .ledger()
            .map_err(|e| Failure::new(FailureKind::Failed, e.chain()))?
            .epoch;
        let options = StartOptions::new()
            .env("FAILOVER_NODE", self.name.as_str())
            .env("FAILOVER_EPOCH", epoch.to_string());
        match container.start(&options, deadline) {
            Ok(Outcome::Done(())) => Ok(Done::now().note(format!("epoch {epoch}"))),
            Ok(Outcome::Unknown(unknown)) => Err(Failure::new(
                FailureKind::Unknown,
                format!(
                    "container {name}: its start is not over after {} s",
                    unknown.deadline.as_secs_f32()
                ),
            )),
            Err(e) if e.kind() == lxc_rs::ErrorKind::AlreadyRunning => Ok(Done::already()),
            Err(e) => Err(refused(&e)),
        }
    }

    /// Shutdown, and kill when only [`KILL`] is left. Nothing of it is left when this is done.
    pub(super) fn stop_container(
        &self,
        name: &str,
        deadline: Duration,
    ) -> std::result::Result<Done, Failure> {
        if self.ensure_mounted().is_err() {
            // Without the store nothing of it can run: its root file system is there.
            return Ok(Done::already());
        }
        let container = self.open_container(name)?;
        let deadline = deadline.saturating_sub(KILL);
        match container.shutdown(deadline) {
            Ok(Outcome::Done(())) => return Ok(Done::now()),
            Err(e) if e.kind() == lxc_rs::ErrorKind::NotRunning => return Ok(Done::already()),
            Ok(Outcome::Unknown(_)) => {}
            Err(e) => return Err(refused(&e)),
        }
        match container.stop(KILL) {
            Ok(Outcome::Done(())) => Ok(Done::now().note(format!(
                "did not shut down within {} s, killed",
                deadline.as_secs_f32()
            ))),
            Err(e) if e.kind() == lxc_rs::ErrorKind::NotRunning => Ok(Done::now()),
            Ok(Outcome::Unknown(_)) => Err(Failure::new(
                FailureKind::Unknown,
                format!(
                    "container {name}: killed, and still there after {} s",
                    KILL.as_secs()
                ),
            )
            .remedy("a task that cannot be killed waits for I/O: look at the kernel log")),
            Err(e) => Err(refused(&e)),
        }
    }

    pub(super) fn verify_gone(
        &self,
        name: &str,
        deadline: Duration,
    ) -> std::result::Result<Done, Failure> {
        if self.ensure_mounted().is_err() {
            return Ok(Done::already());
        }
        let container = self.open_container(name)?;
        match container.wait_gone(deadline) {
            Ok(true) => Ok(Done::now()),
            Ok(false) => Err(Failure::new(
                FailureKind::Failed,
                format!("container {name}: stopped, but something of it is still there"),
            )),
            Err(e) => Err(refused(&e)),
        }
    }

    pub(super) fn await_ready(
        &self,
        name: &str,
        deadline: Duration,
    ) -> std::result::Result<Done, Failure> {
        let begun = Instant::now();
        let Some(ready) = self.spec(name)?.ready.clone() else {
            return Ok(Done::already());
        };
        let mut last;
        // What is sent before the container's interface is up is gone, and would be sent again after a
        // second.
        let mut patience = Duration::from_millis(50);
        loop {
            let left = deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(Failure::new(
                    FailureKind::Timeout,
                    format!(
                        "container {name}: its probe did not answer within {} s",
                        deadline.as_secs_f32()
                    ),
                ));
            }
            match &ready {
                Ready::Tcp(address) => {
                    match TcpStream::connect_timeout(address, left.min(patience)) {
                        Ok(_) => return Ok(Done::now()),
                        Err(e) => last = format!("{address}: {e}"),
                    }
                    patience = (patience * 2).min(Duration::from_secs(1));
                }
                Ready::Exec(argv) => {
                    let container = self.open_container(name)?;
                    let (program, arguments) = argv.split_first().expect("checked when parsed");
                    let command = AttachCommand::new(program).args(arguments);
                    match container.attach_run(&command, left) {
                        Ok(Outcome::Done(output)) if output.status.success() => {
                            return Ok(Done::now());
                        }
                        Ok(Outcome::Done(output)) => last = format!("{program}: {}", output.status),
                        Ok(Outcome::Unknown(_)) => last = format!("{program}: no answer"),
                        Err(e) => last = chain(&e),
                    }
                }
            }
            if begun.elapsed() >= deadline {
                return Err(Failure::new(
                    FailureKind::Timeout,
                    format!(
                        "container {name}: its probe did not answer within {} s: {last}",
                        deadline.as_secs_f32()
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn announce(&self, name: &str) -> std::result::Result<Done, Failure> {
        let mut told = Vec::new();
        for address in &self.spec(name)?.addresses {
            let std::net::IpAddr::V4(ip) = address.ip else {
                told.push(format!(
                    "{}: IPv6 neighbours are not told by this version",
                    address.ip
                ));
                continue;
            };
            let mac = node_ops::links::MacAddress::new(address.mac.0);
            node_ops::arp::announce(&address.bridge, ip, mac, 1)
                .map_err(|e| Failure::new(FailureKind::Failed, e.to_string()))?;
            told.push(format!("{ip} on {}", address.bridge));
        }
        Ok(Done::now().note(told.join(", ")))
    }

    /// Makes a container on a Btrfs subvolume of the mounted store.
    ///
    /// Blocks while the tree is copied. After an error nothing is left of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] for a container that the placement does not have, a
    /// configuration that names its own root file system, or a store that is not
    /// mounted here; [`ErrorKind::Observe`] with what liblxc said.
    ///
    /// # Privileges
    ///
    /// Root.
    pub fn create_container(&mut self, new: &NewContainer, deadline: Duration) -> Result<()> {
        let resource = &self.resource;
        let name = &new.name;
        let usage = |message: String, remedy: String| {
            Err(Error::new(ErrorKind::Usage, message).remedy(remedy))
        };
        if !resource.containers.iter().any(|c| c.name == *name) {
            return usage(
                format!(
                    "container {name} is not in the placement of {}",
                    resource.name
                ),
                format!(
                    "add [[resource.container]] name = \"{name}\" to the placement of both nodes first"
                ),
            );
        }
        let facts = self.facts()?;
        let resource = &self.resource;
        let Some(store) = &facts.mount.store else {
            return usage(
                format!(
                    "{}: the store of {} is not mounted here",
                    resource.mount.display(),
                    resource.name
                ),
                format!(
                    "run it on the node that serves it, or `failover start {}`",
                    resource.name
                ),
            );
        };
        if store.fs_type != "btrfs" {
            return usage(
                format!(
                    "{}: {} is {}, not Btrfs",
                    resource.lxcpath.display(),
                    store.source.display(),
                    store.fs_type
                ),
                "containers need subvolumes: mount the resource's Btrfs there".into(),
            );
        }
        let text = fs::read_to_string(&new.config).map_err(|e| {
            Error::io(
                ErrorKind::Usage,
                format!("{}: cannot be read", new.config.display()),
                e,
            )
        })?;
        if !new.rootfs.is_dir() {
            return usage(
                format!("{}: not a directory", new.rootfs.display()),
                "name the tree to copy into the container by --rootfs".into(),
            );
        }
        let failed = |e: lxc_rs::Error| {
            let error = Error::new(
                ErrorKind::Observe,
                format!("container {name} cannot be created"),
            )
            .caused_by(Chained(chain(&e)));
            match e.kind() {
                lxc_rs::ErrorKind::AlreadyDefined => {
                    error.remedy("it is there already; choose another name, or destroy it first")
                }
                lxc_rs::ErrorKind::ConfigRejected => {
                    error.remedy(format!("correct {}", new.config.display()))
                }
                lxc_rs::ErrorKind::NotBtrfs => {
                    error.remedy("containers need subvolumes: mount the resource's Btrfs there")
                }
                lxc_rs::ErrorKind::Populate => error.remedy(
                    "make room in the store, or choose a smaller tree; nothing is left of it",
                ),
                _ => error,
            }
        };
        let lxcpath = LxcPath::new(&resource.lxcpath).map_err(failed)?;
        let container_name = ContainerName::new(name.as_str()).map_err(failed)?;
        let mut spec = CreateSpec::new(container_name).tree(&new.rootfs);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = format!("{}:{}", new.config.display(), number + 1);
            let Some((key, value)) = line.split_once('=') else {
                return usage(
                    format!("{at}: `{line}` is not `key = value`"),
                    "correct the line".into(),
                );
            };
            let (key, value) = (key.trim(), value.trim());
            if key.starts_with("lxc.rootfs") {
                return usage(
                    format!("{at}: `{key}` is set by this program"),
                    "take the line out: the root file system is a subvolume of the store".into(),
                );
            }
            spec = spec.config(key, OsString::from(value));
        }
        match Container::create(&lxcpath, spec, deadline).map_err(failed)? {
            Outcome::Done(_) => Ok(()),
            Outcome::Unknown(_) => Err(Error::new(
                ErrorKind::Observe,
                format!(
                    "container {name}: not created after {} s",
                    deadline.as_secs()
                ),
            )
            .remedy("look whether it is there before creating it again")),
        }
    }
}

/// The text of an error of a lower crate, as a cause.
#[derive(Debug)]
struct Chained(String);

impl std::fmt::Display for Chained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Chained {}

fn one(lxcpath: &LxcPath, spec: &ContainerSpec) -> ContainerFacts {
    let container = match Container::open(lxcpath, spec.name.as_str()) {
        Ok(container) => container,
        Err(e) if e.kind() == lxc_rs::ErrorKind::NotDefined => {
            return ContainerFacts::new(Some(ContainerState::Missing));
        }
        Err(e) => {
            let mut facts = ContainerFacts::new(None);
            facts.problem = Some(chain(&e));
            return facts;
        }
    };
    let mut facts = match container.state() {
        Ok(state) => ContainerFacts::new(Some(ContainerState::from_lxc(state))),
        Err(e) => {
            let mut facts = ContainerFacts::new(None);
            facts.problem = Some(chain(&e));
            return facts;
        }
    };
    let item = |key: &str| container.config_item(key).ok().flatten();
    facts.autostart = item("lxc.start.auto").is_some_and(|v| v != "0");
    if item("lxc.ephemeral").is_some_and(|v| v != "0") {
        facts.problem = Some("it is ephemeral: it would delete itself when it is stopped".into());
    }
    match container.rootfs() {
        Ok(Some(rootfs)) if !rootfs.path.starts_with(lxcpath.as_path()) => {
            facts.problem = Some(format!(
                "its root file system {} is not in the store, so the other node would not have it",
                rootfs.path.display()
            ));
        }
        Ok(Some(rootfs)) if !rootfs.path.is_dir() => {
            facts.problem = Some(format!(
                "its root file system {} is not there",
                rootfs.path.display()
            ));
        }
        Ok(_) => {}
        Err(e) => facts.problem = Some(chain(&e)),
    }
    for n in 0..16 {
        match item(&format!("lxc.net.{n}.type")) {
            Some(kind) if kind == "veth" => {
                if let Some(link) = item(&format!("lxc.net.{n}.link")) {
                    facts.bridges.push(link.to_string_lossy().into_owned());
                }
            }
            Some(_) => {}
            None => break,
        }
    }
    if matches!(
        facts.state,
        Some(ContainerState::Running | ContainerState::Frozen | ContainerState::Other(_))
    ) {
        facts.init_pid = container
            .init_pid()
            .ok()
            .flatten()
            .and_then(|p| i32::try_from(p).ok());
    }
    facts
}

/// What liblxc's no means for a step.
fn refused(e: &lxc_rs::Error) -> Failure {
    let failure = Failure::new(FailureKind::Failed, chain(e));
    match e.kind() {
        lxc_rs::ErrorKind::Timeout => Failure {
            kind: FailureKind::Unknown,
            ..failure
        },
        lxc_rs::ErrorKind::NotDefined => failure.remedy("`failover create-container` makes it"),
        lxc_rs::ErrorKind::BridgeMissing => failure.remedy("make the bridge on this host"),
        lxc_rs::ErrorKind::NoPermission => failure.remedy("run it as root"),
        _ => failure,
    }
}
