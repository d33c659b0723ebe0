//! A running lab.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::builder::{LabBuilder, parse_address};
use crate::cache::{Cache, Lock, RunDir, Slots, host_error};
use crate::embedded;
use crate::error::{Error, ErrorKind, Result};
use crate::keeper::Keeper;
use crate::node::{Machine, Node};
use crate::packages;
use crate::switch::Switch;
use crate::timeline::{Entry, Journal, Timeline};
use crate::wire::{Cable, Wire};

/// Lines of the time line that a failed test shows.
const TIMELINE_LINES: usize = 100;

/// What every node needs and a Debian host may lack: the kernel, and modprobe.
/// Each with a file that shows that it is there, however it came.
const BASE_PACKAGES: [(&str, &str); 2] = [("user-mode-linux", KERNEL), ("kmod", "sbin/modprobe")];
const KERNEL: &str = "usr/bin/linux.uml";
const MODULES: &str = "usr/lib/uml/modules";

/// Nodes, their wires, and the switch between them.
///
/// Dropping it kills all nodes and removes their files; when that happens
/// during a panic, the end of its [`Timeline`] goes to standard error first.
/// The same is done by another process when this one is killed.
#[must_use = "dropping this ends all nodes"]
#[derive(Debug)]
pub struct Lab {
    inner: Arc<Inner>,
}

/// Everything handles and threads share. Threads own it and handles do not, so
/// it ends with [`Lab::drop`], which ends the threads.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) machines: Vec<Arc<Machine>>,
    cables: Vec<Arc<Cable>>,
    pub(crate) switch: Switch,
    pub(crate) journal: Arc<Journal>,
    pub(crate) keeper: Keeper,
    pub(crate) kernel: PathBuf,
    pub(crate) boot_deadline: Duration,
    /// Each boot of each node has a number of its own.
    pub(crate) next_boot: AtomicU32,
    pub(crate) closed: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    run_dir: PathBuf,
    log_dir: Option<PathBuf>,
    name: String,
    /// What is to be given back at the end.
    held: Mutex<Option<(RunDirLock, Slots)>>,
}

type RunDirLock = Lock;

impl Lab {
    /// Describes a lab. `LAB_KERNEL` and `LAB_MODULES` are read here, as
    /// defaults.
    pub fn builder() -> LabBuilder {
        LabBuilder::new()
    }

    pub(crate) fn start(builder: LabBuilder) -> Result<Self> {
        let journal = Arc::new(Journal::new());
        let cache = Cache::open(builder.cache_dir.as_deref())?;
        let software = Software::find(&builder, &cache)?;
        let limit = builder.node_limit.unwrap_or_else(default_limit).max(1);
        let slots = Slots::take(builder.nodes.len(), limit)?;
        let RunDir {
            path: run_dir,
            lock,
        } = cache.run_dir(&builder.name)?;
        let program = run_dir.join("agent");
        let keeper = write_program(&program)
            .and_then(|()| Keeper::start(&program, &run_dir, lock.as_fd()))
            .inspect_err(|_| drop(fs::remove_dir_all(&run_dir)))?;
        // From here on the keeper cleans up, whatever happens.
        let plan = Plan::new(&builder)?;
        let switch = Switch::new(&plan.port_wires)?;
        let mut machines = Vec::new();
        for (n, (name, node)) in builder.nodes.iter().enumerate() {
            let dir = run_dir.join(name);
            let ports = plan.node_ports[n].clone();
            let machine = Machine::prepare(name, dir, node, ports, &software, &program)
                .map_err(|error| error.node(name))?;
            machines.push(Arc::new(machine));
        }
        let inner = Arc::new(Inner {
            machines,
            cables: plan.cables.into_iter().map(Arc::new).collect(),
            switch,
            journal,
            keeper,
            kernel: software.kernel,
            boot_deadline: builder.boot_deadline,
            next_boot: AtomicU32::new(1),
            closed: AtomicBool::new(false),
            threads: Mutex::default(),
            run_dir,
            log_dir: builder.log_dir,
            name: builder.name,
            held: Mutex::new(Some((lock, slots))),
        });
        let lab = Lab { inner };
        lab.start_threads()?;
        lab.boot_all().inspect_err(|_| lab.inner.save_logs())?;
        Ok(lab)
    }

    fn start_threads(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.inner.thread("switch", move || inner.switch.work())?;
        let inner = Arc::clone(&self.inner);
        self.inner.thread("keeper", move || {
            inner.keeper.listen(|boot, status| {
                for machine in &inner.machines {
                    machine.ended(&inner, boot, status);
                }
            });
            for machine in &inner.machines {
                machine.lost(&inner, "the keeper is gone");
            }
        })
    }

    fn boot_all(&self) -> Result<()> {
        let nodes: Vec<Node> = (0..self.inner.machines.len())
            .map(|n| self.node_at(n))
            .collect();
        for node in &nodes {
            node.begin_boot()?;
        }
        for node in &nodes {
            node.finish_boot()?;
        }
        Ok(())
    }

    pub(crate) fn find_node(&self, name: &str) -> Option<Node> {
        self.inner.find(name).map(|index| self.node_at(index))
    }

    pub(crate) fn find_wire(&self, name: &str) -> Option<Wire> {
        let mut cables = self.inner.cables.iter();
        let cable = cables.find(|cable| cable.name == name)?;
        Some(Wire::new(&self.inner, Arc::clone(cable)))
    }

    fn node_at(&self, index: usize) -> Node {
        Node::new(&self.inner, index)
    }

    /// Returns a handle of a node.
    ///
    /// # Panics
    ///
    /// If the lab has no node of this name.
    #[must_use]
    #[allow(
        clippy::panic,
        reason = "a name fixed in the caller's code, as with an index"
    )]
    pub fn node(&self, name: &str) -> Node {
        match self.find_node(name) {
            Some(node) => node,
            None => panic!("the lab has no node named {name:?}"),
        }
    }

    /// Returns handles of all nodes, in the order they were described.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        (0..self.inner.machines.len())
            .map(|n| self.node_at(n))
            .collect()
    }

    /// Returns a handle of a wire.
    ///
    /// # Panics
    ///
    /// If the lab has no wire of this name.
    #[must_use]
    #[allow(
        clippy::panic,
        reason = "a name fixed in the caller's code, as with an index"
    )]
    pub fn wire(&self, name: &str) -> Wire {
        match self.find_wire(name) {
            Some(wire) => wire,
            None => panic!("the lab has no wire named {name:?}"),
        }
    }

    /// Writes a line into the time line.
    pub fn note(&self, text: impl Into<String>) {
        self.inner.journal.note("lab", text);
    }

    /// Returns what happened so far, with what the consoles of all nodes say.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.inner.timeline()
    }

    /// Returns the directory of this run; it goes away with the lab.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.inner.run_dir
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of the lab's time line, in seconds:");
            eprint!("{}", self.timeline().tail(TIMELINE_LINES));
            self.inner.save_logs();
        }
        self.inner.shut_down();
    }
}

impl Inner {
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.machines
            .iter()
            .position(|machine| machine.name == name)
    }

    /// Starts a thread that ends with the lab.
    pub(crate) fn thread(&self, what: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new()
            .name(format!("lab {what}"))
            .spawn(work)
            .map_err(|error| host_error("start a thread", error))?;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of earlier boots have ended long ago.
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    fn timeline(&self) -> Timeline {
        let consoles = self.machines.iter().flat_map(|machine| machine.console());
        let entries: Vec<Entry> = self.journal.events().into_iter().chain(consoles).collect();
        Timeline::new(entries)
    }

    /// Something else has failed already, so this only says what does.
    fn save_logs(&self) {
        let Some(dir) = &self.log_dir else {
            return;
        };
        let say = |path: PathBuf, kept: std::io::Result<()>| match kept {
            Ok(()) => eprintln!("uml-lab: kept {}", path.display()),
            Err(error) => eprintln!("uml-lab: {}: {error}", path.display()),
        };
        let head = format!("{}-{}", self.name, std::process::id());
        let path = dir.join(format!("{head}.timeline"));
        let made = fs::create_dir_all(dir);
        let written = made.and_then(|()| fs::write(&path, self.timeline().to_string()));
        say(path, written);
        for machine in &self.machines {
            let path = dir.join(format!("{head}-{}.console", machine.name));
            let copied = fs::copy(machine.console_path(), &path);
            say(path, copied.map(drop));
        }
    }

    fn shut_down(&self) {
        self.closed.store(true, std::sync::atomic::Ordering::SeqCst);
        self.keeper.shut_down();
        for machine in &self.machines {
            machine.lost(self, "the lab is over");
        }
        self.switch.stop();
        loop {
            // Joined without the lock: a thread may be starting another.
            let thread = self
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            match thread {
                Some(thread) if thread.thread().id() != std::thread::current().id() => {
                    // A thread that panicked has said so.
                    let _ = thread.join();
                }
                Some(_) => {}
                None => break,
            }
        }
        // Usually done by the keeper; not if somebody killed it.
        let _ = fs::remove_dir_all(&self.run_dir);
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

fn default_limit() -> usize {
    std::thread::available_parallelism()
        .map_or(4, |n| n.get() * 2)
        .max(4)
}

fn write_program(path: &Path) -> Result<()> {
    fs::write(path, embedded::PROGRAM)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| host_error(format!("write {}", path.display()), error))
}

/// Kernel, modules and layers.
#[derive(Debug)]
pub(crate) struct Software {
    kernel: PathBuf,
    pub(crate) modules: PathBuf,
    /// Those of the caller, topmost first.
    pub(crate) layers: Vec<PathBuf>,
    /// The unpacked packages, if there are any.
    pub(crate) packages: Option<PathBuf>,
}

impl Software {
    fn find(builder: &LabBuilder, cache: &Cache) -> Result<Self> {
        prerequisites()?;
        let given = builder.kernel.is_some() && builder.modules.is_some();
        let base = base_packages(given).map(str::to_owned);
        let names: Vec<String> = base.chain(builder.packages.iter().cloned()).collect();
        let layer = packages::layer(cache, builder.package_dir.as_deref(), &names)?;
        let find = |given: &Option<PathBuf>, name: &str, what: &str| {
            let unpacked = layer.iter().map(|layer| layer.join(name));
            let installed = Path::new("/").join(name);
            let found = match given {
                Some(given) => given
                    .exists()
                    .then(|| std::path::absolute(given).unwrap_or(given.clone())),
                None => unpacked.chain([installed]).find(|path| path.exists()),
            };
            found.ok_or_else(|| {
                let path = given.clone().unwrap_or_else(|| Path::new("/").join(name));
                Error::new(ErrorKind::Missing, format!("find {what}"))
                    .detail(format!("{} does not exist", path.display()))
            })
        };
        let kernel = find(&builder.kernel, KERNEL, "the user-mode kernel")?;
        let modules = find(&builder.modules, MODULES, "the kernel's modules")?;
        let mut layers = Vec::new();
        for layer in builder.layers.iter().rev() {
            let layer = std::path::absolute(layer);
            layers.push(layer.map_err(|error| host_error("find a layer", error))?);
        }
        Ok(Software {
            kernel,
            modules,
            layers,
            packages: layer,
        })
    }
}

/// The packages of the base set that this host lacks. Without its own kernel
/// where one is given.
fn base_packages(kernel_given: bool) -> impl Iterator<Item = &'static str> {
    BASE_PACKAGES
        .into_iter()
        .filter(|(_, file)| !Path::new("/").join(file).exists())
        .map(|(name, _)| name)
        .filter(move |name| !kernel_given || *name != BASE_PACKAGES[0].0)
}

/// Checks, without starting or fetching anything, what a lab needs of this
/// machine.
///
/// # Errors
///
/// [`ErrorKind::Missing`], saying what.
pub fn prerequisites() -> Result<()> {
    let missing = |what: &str| Err(Error::new(ErrorKind::Missing, what));
    if embedded::PROGRAM.is_empty() {
        return missing("user-mode kernels run on x86_64 Linux only");
    }
    let given = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let given = given("LAB_KERNEL") && given("LAB_MODULES");
    let base = base_packages(given).all(packages::installed);
    let in_path = |name: &str| {
        ["/usr/bin", "/bin"]
            .iter()
            .any(|dir| Path::new(dir).join(name).is_file())
    };
    let obtainable = in_path("apt-get") && in_path("dpkg-deb");
    if !base && !obtainable {
        return missing(
            "no user-mode kernel: neither the packages user-mode-linux and kmod, nor apt-get \
             and dpkg-deb to unpack them",
        );
    }
    Ok(())
}

/// Which port is on which node and wire.
struct Plan {
    /// By port of the switch: the wire.
    port_wires: Vec<usize>,
    /// By node: its ports, in the order of its interfaces.
    node_ports: Vec<Vec<PortPlan>>,
    cables: Vec<Cable>,
}

/// One port of a node.
#[derive(Clone, Debug)]
pub(crate) struct PortPlan {
    /// Its number in the switch.
    pub(crate) port: usize,
    pub(crate) mac: [u8; 6],
    pub(crate) address: Option<(std::net::IpAddr, u8)>,
    pub(crate) mtu: u32,
}

impl Plan {
    fn new(builder: &LabBuilder) -> Result<Self> {
        let mut plan = Plan {
            port_wires: Vec::new(),
            node_ports: vec![Vec::new(); builder.nodes.len()],
            cables: Vec::new(),
        };
        for (wire, (name, description)) in builder.wires.iter().enumerate() {
            let mut cable = Cable {
                name: name.clone(),
                ports: Vec::new(),
            };
            for (node, address) in &description.ports {
                let Some(index) = builder.nodes.iter().position(|(known, _)| known == node) else {
                    continue; // checked by the builder
                };
                let port = plan.port_wires.len();
                plan.port_wires.push(wire);
                cable.ports.push((node.clone(), port));
                let number = u16::try_from(port).unwrap_or(u16::MAX).to_be_bytes();
                let wire = u8::try_from(wire).unwrap_or(u8::MAX);
                plan.node_ports[index].push(PortPlan {
                    port,
                    // 52:54:00 is what virtual machines use.
                    mac: [0x52, 0x54, 0, wire, number[0], number[1]],
                    address: parse_address(address)?,
                    mtu: description.mtu,
                });
            }
            plan.cables.push(cable);
        }
        Ok(plan)
    }
}
