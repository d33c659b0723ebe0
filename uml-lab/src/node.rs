//! One node: booting it, running programs in it, losing it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::builder::{NodeBuilder, parse_size};
use crate::cache::{host_error, make_dir};
use crate::command::{Child, Command, Input, Output};
use crate::disk::{Content, DiskFault, Faults};
use crate::error::{Error, ErrorKind, Result};
use crate::lab::{Inner, PortPlan, Software};
use crate::link::{Link, Share};
use crate::protocol::{
    Confine, DiskSetup, LINE_INPUT, Message, Port, Setup, Spawn, Start, Stdin, ToLab, ToNode,
    VERSION,
};
use crate::timeline::{Entry, console_entries};

/// Search path of programs in nodes.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The lab's program in a node.
const AGENT: &str = "/run/lab/agent";
/// The disk by which process 1 keeps the others going, in the node's directory.
const KICK: &str = "kick";
/// How long a power cut waits for the part of the caches that is to survive.
const DESTAGE: Duration = Duration::from_secs(30);
/// Lines of the console that errors show.
const CONSOLE_LINES: usize = 25;

/// A node of a lab.
///
/// A handle: clones are the same node. It does not keep the lab alive.
#[derive(Clone, Debug)]
pub struct Node {
    lab: Weak<Inner>,
    machine: Arc<Machine>,
}

/// What the lab knows of a node.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: String,
    dir: PathBuf,
    memory: String,
    kernel_args: Vec<String>,
    disks: Vec<MachineDisk>,
    /// Files outside the node's directory that it writes.
    foreign_disks: Vec<PathBuf>,
    ports: Vec<PortPlan>,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while booting or killing, so that these happen one after another.
    turn: Mutex<()>,
    share: Arc<Share>,
    /// What the node is told when it boots; disks and clock are filled in then.
    setup: Setup,
}

/// A disk and what it can do.
#[derive(Debug)]
struct MachineDisk {
    /// Its content.
    path: PathBuf,
    /// Its name below /dev.
    name: String,
    /// In bytes.
    size: u64,
    cached: bool,
    faults: Option<Mutex<Faults>>,
}

#[derive(Debug)]
struct State {
    /// Number of the current or last boot.
    boot: u32,
    phase: Phase,
    /// The kernel stands still.
    hung: bool,
    link: Option<Arc<Link>>,
    /// Milliseconds that the clock is ahead.
    clock_shift: i64,
    /// Where in the console each boot begins, and when it began.
    boots: Vec<(u64, Duration)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Not running, and why.
    Off(String),
    Booting,
    /// Booting, and the program in the node has spoken.
    SettingUp,
    Ready,
}

impl Machine {
    /// Makes the node's directory.
    pub(crate) fn prepare(
        name: &str,
        dir: PathBuf,
        node: &NodeBuilder,
        ports: Vec<PortPlan>,
        software: &Software,
        program: &Path,
    ) -> Result<Self> {
        for sub in ["boot/m", "boot/dev", "share", "keep", "mem"] {
            make_dir(&dir.join(sub))?;
        }
        let link = |from: &Path, to: &Path| {
            fs::hard_link(from, to)
                .map_err(|error| host_error(format!("make {}", to.display()), error))
        };
        link(program, &dir.join("boot/agent"))?;
        let kick = dir.join(KICK);
        fs::write(&kick, [0; 4096])
            .map_err(|error| host_error(format!("make {}", kick.display()), error))?;
        let mut keeps = Vec::new();
        for (n, keep) in node.keeps.iter().enumerate() {
            let host = dir.join("keep").join(n.to_string());
            make_dir(&host)?;
            keeps.push((bytes(keep), bytes(&host)));
        }
        let absolute = |path: &Path| {
            fs::canonicalize(path)
                .map(|path| bytes(&path))
                .map_err(|error| host_error(format!("find {}", path.display()), error))
        };
        let mut layers: Vec<_> = software.layers.iter().map(|layer| bytes(layer)).collect();
        let root = match &node.root {
            Some(root) => absolute(root)?,
            // The packages are of the host's distribution.
            None => {
                layers.extend(software.packages.iter().map(|layer| bytes(layer)));
                b"/".to_vec()
            }
        };
        let sees = node.sees.iter().map(|(host, inside)| {
            let host = absolute(host)?;
            Ok((bytes(inside), host))
        });
        let setup = Setup {
            host_name: name.as_bytes().to_vec(),
            root,
            layers,
            modules: bytes(&software.modules),
            share: bytes(&dir.join("share")),
            keeps,
            sees: sees.collect::<Result<_>>()?,
            ports: ports
                .iter()
                .enumerate()
                .map(|(n, port)| Port {
                    name: format!("vec{n}").into_bytes(),
                    address: port
                        .address
                        .map(|(address, prefix)| (address.to_string().into_bytes(), prefix)),
                })
                .collect(),
            disks: Vec::new(),
            clock_shift: 0,
        };
        let share = Arc::new(Share::new(dir.join("share")));
        let mut disks = Vec::new();
        let mut foreign_disks = Vec::new();
        for ((n, letter), disk) in (b'a'..).enumerate().zip(&node.disks) {
            let path = dir.join(format!("disk{n}"));
            let fail = |error| host_error(format!("make {}", path.display()), error);
            let (path, size) = match &disk.content {
                Content::New(size) => {
                    let size = parse_size(size)?;
                    let file = File::create_new(&path).map_err(fail)?;
                    file.set_len(size).map_err(fail)?;
                    (path, size)
                }
                Content::File(file) => {
                    let file = fs::canonicalize(file).map_err(fail)?;
                    std::os::unix::fs::symlink(&file, &path).map_err(fail)?;
                    foreign_disks.push(file.clone());
                    let size = fs::metadata(&file).map_err(fail)?.len();
                    (file, size)
                }
            };
            disks.push(MachineDisk {
                path,
                name: format!("ubd{}", char::from(letter)),
                size,
                cached: disk.cached,
                faults: disk.breakable.then(Mutex::default),
            });
        }
        Ok(Machine {
            name: name.to_owned(),
            dir,
            memory: node.memory.clone(),
            kernel_args: node.kernel_args.clone(),
            disks,
            foreign_disks,
            ports,
            state: Mutex::new(State {
                boot: 0,
                phase: Phase::Off("it was never booted".to_owned()),
                hung: false,
                link: None,
                clock_shift: 0,
                boots: Vec::new(),
            }),
            changed: Condvar::new(),
            turn: Mutex::default(),
            share,
            setup,
        })
    }

    /// Tells the node's next boot what it has to set up.
    fn write_setup(&self) -> std::io::Result<()> {
        let mut setup = self.setup.clone();
        setup.disks = self.disks.iter().map(MachineDisk::setup).collect();
        setup.clock_shift = self.state().clock_shift;
        fs::write(self.dir.join("boot/setup"), setup.encode())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn console_path(&self) -> PathBuf {
        self.dir.join("console")
    }

    /// What the console said, boot by boot.
    pub(crate) fn console(&self) -> Vec<Entry> {
        // No console yet is an empty one.
        let text = fs::read(self.console_path()).unwrap_or_default();
        let boots = self.state().boots.clone();
        let ends = boots.iter().skip(1).map(|(at, _)| *at as usize);
        let parts = boots.iter().zip(ends.chain([text.len()]));
        parts
            .flat_map(|((start, at), end)| {
                let part = text.get(*start as usize..end).unwrap_or_default();
                console_entries(&self.name, *at, &String::from_utf8_lossy(part))
            })
            .collect()
    }

    /// Hears from the keeper that the kernel of a boot ended by itself.
    pub(crate) fn ended(&self, lab: &Inner, boot: u32, status: i32) {
        let why = format!(
            "its kernel ended by itself ({})",
            ExitStatus::from_raw(status)
        );
        self.off(lab, Some(boot), &why);
    }

    /// Marks the node as lost, whichever boot it is in.
    pub(crate) fn lost(&self, lab: &Inner, why: &str) {
        self.off(lab, None, why);
    }

    fn off(&self, lab: &Inner, boot: Option<u32>, why: &str) {
        let link = {
            let mut state = self.state();
            if boot.is_some_and(|boot| boot != state.boot) {
                return;
            }
            if !matches!(state.phase, Phase::Off(_)) {
                state.phase = Phase::Off(why.to_owned());
                lab.journal.note(&self.name, why);
            }
            state.hung = false;
            state.link.take()
        };
        for port in &self.ports {
            lab.switch.set_link(port.port, false);
        }
        if let Some(link) = link {
            link.close(why);
        }
        self.changed.notify_all();
    }

    /// The kernel's command line.
    fn command_line(&self, kernel: &Path) -> Vec<Vec<u8>> {
        let mut words = vec![bytes(kernel)];
        let mut word = |text: String| words.push(text.into_bytes());
        word(format!("mem={}", self.memory));
        word("root=/dev/root".into());
        word("rootfstype=hostfs".into());
        word(format!("rootflags={}", self.dir.join("boot").display()));
        word("ro".into());
        word("init=/agent".into());
        // For the time line.
        word("printk.time=1".into());
        word("con=null".into());
        word("con0=null,fd:1".into());
        word("ssl=null".into());
        word("ssl0=fd:3".into());
        // Relative to the node's directory, where the kernel starts.
        word("uml_dir=.".into());
        word("umid=uml".into());
        for (n, port) in self.ports.iter().enumerate() {
            let mac: Vec<String> = port.mac.iter().map(|byte| format!("{byte:02x}")).collect();
            let mac = mac.join(":");
            word(format!(
                "vec{n}:transport=fd,fd={},depth=128,mac={mac},mtu={}",
                4 + n,
                port.mtu
            ));
        }
        for (n, disk) in self.disks.iter().enumerate() {
            // d: the content is data even if it looks like a copy-on-write
            // header.
            word(format!("{}d=disk{n}", disk.name));
        }
        // Read now and then by process 1, which says why.
        word(format!("ubdprd={KICK}"));
        for arg in &self.kernel_args {
            word(arg.clone());
        }
        words
    }
}

impl MachineDisk {
    fn setup(&self) -> DiskSetup {
        DiskSetup {
            name: self.name.clone().into_bytes(),
            cached: self.cached,
            table: self.table().map(String::into_bytes),
        }
    }

    fn table(&self) -> Option<String> {
        let faults = self.faults.as_ref()?;
        let faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
        Some(faults.table(self.size))
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

impl Node {
    pub(crate) fn new(lab: &Arc<Inner>, index: usize) -> Self {
        Node {
            lab: Arc::downgrade(lab),
            machine: Arc::clone(&lab.machines[index]),
        }
    }

    /// The lab, while there is one.
    fn lab(&self, step: &str) -> Result<Arc<Inner>> {
        let lab = self.lab.upgrade();
        lab.filter(|lab| !lab.closed.load(Ordering::SeqCst))
            .ok_or_else(|| {
                self.error(ErrorKind::NodeDown, step)
                    .detail("the lab is over")
            })
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn note(&self, text: impl Into<String>) {
        if let Some(lab) = self.lab.upgrade() {
            lab.journal.note(self.name(), text);
        }
    }

    pub(crate) fn disk_count(&self) -> usize {
        self.machine().disks.len()
    }

    /// Returns the node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.machine().name
    }

    /// Says whether the node is up and takes programs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let state = self.machine().state();
        state.phase == Phase::Ready && !state.hung
    }

    /// Says whether the node stands still because of [`Node::hang`].
    #[must_use]
    pub fn is_hung(&self) -> bool {
        self.machine().state().hung
    }

    /// Returns the last lines of the node's console, over all its boots:
    /// kernel messages, and what programs wrote to /dev/console.
    #[must_use]
    pub fn console_tail(&self, lines: usize) -> Vec<String> {
        // A console line is rarely longer than 200 bytes.
        let most = (lines as u64 + 1) * 200;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.machine().console_path())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(text)
        };
        // No console yet is an empty one.
        let text = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text
            .lines()
            .map(|line| line.trim_end_matches('\r'))
            .collect();
        all[all.len().saturating_sub(lines)..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect()
    }

    /// Returns the file that holds the content of disk `n` (/dev/ubda is 0).
    /// Read it while the node is down.
    ///
    /// # Panics
    ///
    /// If the node has no such disk.
    #[must_use]
    pub fn disk_path(&self, n: usize) -> &Path {
        &self.machine().disks[n].path
    }

    /// Returns a handle of disk `n` (/dev/ubda is 0), to break it.
    ///
    /// # Panics
    ///
    /// If the node has no such disk.
    #[must_use]
    pub fn disk(&self, n: usize) -> NodeDisk {
        let count = self.machine().disks.len();
        assert!(n < count, "node {} has {count} disks", self.name());
        NodeDisk {
            node: self.clone(),
            n,
        }
    }

    /// Returns the directory on the host that holds the `n`th directory given
    /// to [`NodeBuilder::keep`].
    #[must_use]
    pub fn keep_path(&self, n: usize) -> PathBuf {
        self.machine().dir.join("keep").join(n.to_string())
    }

    /// The lines of the console that belong into an error: the last ones, and
    /// those since the kernel said that it gives up.
    fn console_end(&self) -> Vec<String> {
        let mut lines = self.console_tail(CONSOLE_LINES * 4);
        let last = lines.len().saturating_sub(CONSOLE_LINES);
        let panic = lines.iter().rposition(|line| line.contains("Kernel panic"));
        lines.drain(..panic.unwrap_or(last).min(last));
        lines
    }

    fn error(&self, kind: ErrorKind, step: impl Into<String>) -> Error {
        Error::new(kind, step).node(self.name())
    }

    /// Boots a node that is down, on the disks it had; returns when it is
    /// ready to run programs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if it is up, [`ErrorKind::Boot`] if it does not
    /// come up.
    pub fn boot(&self) -> Result<()> {
        let _turn = self
            .machine()
            .turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.begin_boot()?;
        self.finish_boot()
    }

    /// Starts the kernel.
    pub(crate) fn begin_boot(&self) -> Result<()> {
        let machine = self.machine();
        let lab = self.lab("boot")?;
        if !matches!(machine.state().phase, Phase::Off(_)) {
            return Err(self
                .error(ErrorKind::Invalid, "boot")
                .detail("the node is up"));
        }
        let fail = |what: &str, error: std::io::Error| {
            self.error(ErrorKind::Host, format!("boot: {what}"))
                .os(error)
        };
        let console = OpenOptions::new()
            .append(true)
            .create(true)
            .open(machine.console_path())
            .map_err(|error| fail("open the console", error))?;
        // A kernel that was killed leaves its pid file, and the next would
        // take another name.
        let _ = fs::remove_dir_all(machine.dir.join("uml"));
        machine
            .write_setup()
            .map_err(|error| fail("write the node's setup", error))?;
        let (ours, theirs) = UnixStream::pair().map_err(|error| fail("make the channel", error))?;
        let (link, receiver) = Link::new(
            self.name(),
            ours,
            Arc::clone(&machine.share),
            Arc::clone(&lab.journal),
        );
        let begin = console
            .metadata()
            .map_err(|error| fail("look at the console", error))?
            .len();
        let boot = lab.next_boot.fetch_add(1, Ordering::Relaxed);
        {
            let mut state = machine.state();
            state.boot = boot;
            state.boots.push((begin, lab.journal.now()));
            state.phase = Phase::Booting;
            state.link = Some(Arc::clone(&link));
        }
        let writer = Arc::clone(&link);
        let started = lab
            .thread("writer", move || writer.write(&receiver))
            .and_then(|()| {
                let node = self.clone();
                let lab_of_reader = Arc::clone(&lab);
                lab.thread("reader", move || {
                    let why = link.read(|message| node.hear(boot, &link, message));
                    // The keeper knows better why, if the kernel died.
                    std::thread::sleep(Duration::from_millis(100));
                    node.machine().off(&lab_of_reader, Some(boot), &why);
                })
            });
        if let Err(error) = started {
            machine.off(&lab, Some(boot), "its threads did not start");
            return Err(error.node(self.name()));
        }
        lab.journal.note(self.name(), "boots");
        for port in &machine.ports {
            lab.switch.set_link(port.port, true);
        }
        let mut beside: Vec<BorrowedFd<'_>> = vec![console.as_fd(), theirs.as_fd()];
        beside.extend(
            machine
                .ports
                .iter()
                .map(|port| lab.switch.node_end(port.port)),
        );
        let launched = lab.keeper.launch(self.start_message(&lab, boot), &beside);
        launched.map(drop).map_err(|error| {
            machine.off(&lab, Some(boot), "its kernel did not start");
            error.node(self.name())
        })
    }

    fn start_message(&self, lab: &Inner, boot: u32) -> Start {
        let machine = self.machine();
        let mut env = vec![(b"PATH".to_vec(), PATH.as_bytes().to_vec())];
        let confine = nix::unistd::geteuid().is_root().then(|| {
            let memory = bytes(&machine.dir.join("mem"));
            env.push((b"TMPDIR".to_vec(), memory.clone()));
            let disks = machine.foreign_disks.iter().map(|disk| bytes(disk));
            Confine {
                writable: [bytes(&machine.dir)].into_iter().chain(disks).collect(),
                memory,
            }
        });
        Start {
            id: boot,
            argv: machine.command_line(&lab.kernel),
            env,
            cwd: bytes(&machine.dir),
            confine,
        }
    }

    /// Waits until the node is ready.
    pub(crate) fn finish_boot(&self) -> Result<()> {
        let lab = self.lab("boot")?;
        let machine = self.machine();
        let begun = Instant::now();
        let mut state = machine.state();
        loop {
            let left = lab.boot_deadline.saturating_sub(begun.elapsed());
            let why = match &state.phase {
                Phase::Ready => return Ok(()),
                Phase::Off(why) => Some(why.clone()),
                Phase::Booting | Phase::SettingUp if left.is_zero() => Some(format!(
                    "not ready after {:?}, {}",
                    lab.boot_deadline,
                    if state.phase == Phase::Booting {
                        "the kernel did not start its first program"
                    } else {
                        "its setup did not end"
                    }
                )),
                Phase::Booting | Phase::SettingUp => None,
            };
            if let Some(why) = why {
                let boot = state.boot;
                drop(state);
                // Killed even if it ended: what is left of it goes too.
                let _ = lab.keeper.kill(boot);
                machine.off(&lab, Some(boot), &why);
                return Err(self
                    .error(ErrorKind::Boot, "boot")
                    .detail(why)
                    .console(self.console_end()));
            }
            state = machine
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Takes a message that is not about a program.
    fn hear(&self, boot: u32, link: &Arc<Link>, message: ToLab) {
        let machine = self.machine();
        let mut state = machine.state();
        if state.boot != boot {
            return;
        }
        match message {
            ToLab::Hello { version } if version == VERSION => state.phase = Phase::SettingUp,
            ToLab::Hello { version } => {
                state.phase = Phase::Off(format!("its program speaks protocol {version}"));
            }
            ToLab::Ready => {
                state.phase = Phase::Ready;
                if let Some(lab) = self.lab.upgrade() {
                    lab.journal.note(self.name(), "ready");
                }
            }
            ToLab::Failed { step, errno } => {
                let error = std::io::Error::from_raw_os_error(errno);
                state.phase = Phase::Off(format!("{}: {error}", String::from_utf8_lossy(&step)));
            }
            ToLab::Power { id, verb, node } => {
                drop(state);
                self.answer_power(link, id, &verb, &node);
                return;
            }
            _ => return,
        }
        drop(state);
        machine.changed.notify_all();
    }

    /// Serves the power switch, in a thread of its own: a node may switch
    /// itself off.
    fn answer_power(&self, link: &Arc<Link>, id: u32, verb: &[u8], name: &[u8]) {
        let verb = String::from_utf8_lossy(verb).into_owned();
        let name = String::from_utf8_lossy(name).into_owned();
        let Ok(lab) = self.lab("power switch") else {
            return;
        };
        let lab_of_switch = Arc::clone(&lab);
        let link = Arc::clone(link);
        let work = move || {
            let (code, text) = power(&lab_of_switch, &verb, &name);
            link.send(&ToNode::PowerReply {
                id,
                code,
                text: text.into_bytes(),
            });
        };
        if let Err(error) = lab.thread("power", work) {
            eprintln!("uml-lab: power switch: {error}");
        }
    }

    /// Loses the node: all its processes are killed at once, as if its power
    /// failed, except that what it had handed to a plain disk is kept. A disk
    /// with a volatile cache ([`Disk::power_cut`]) keeps what was flushed. On
    /// return nothing of the node runs. No error if it is down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NodeDown`] if the lab is over, [`ErrorKind::Host`] if the
    /// keeper is gone.
    ///
    /// [`Disk::power_cut`]: crate::Disk::power_cut
    pub fn kill(&self) -> Result<()> {
        self.lose("kill", "it was killed")
    }

    fn lose(&self, step: &str, why: &str) -> Result<()> {
        let lab = self.lab(step)?;
        let machine = self.machine();
        let _turn = machine.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let boot = machine.state().boot;
        let killed = lab.keeper.kill(boot);
        machine.off(&lab, Some(boot), why);
        killed.map_err(|error| error.node(self.name()))
    }

    /// Cuts the node's power: its disks with a volatile cache
    /// ([`Disk::power_cut`]) keep what was flushed, and of the rest what the
    /// seed picks: nothing, a quarter, half, three quarters or all of it, in
    /// pieces of 4 KiB. Other disks keep everything they were given.
    ///
    /// The node runs on while the pieces are written (some 0.1 s), so the cut
    /// comes at the end of the call. A node that hangs or does not answer is
    /// cut at once and keeps nothing but what was flushed. No error if it is
    /// down: the caches are empty then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if it has no such disk, and those of
    /// [`Node::kill`].
    ///
    /// [`Disk::power_cut`]: crate::Disk::power_cut
    pub fn power_cut(&self, seed: u64) -> Result<()> {
        let disks = self.machine().disks.iter();
        let cached: Vec<&str> = disks
            .filter(|disk| disk.cached)
            .map(|disk| disk.name.as_str())
            .collect();
        if cached.is_empty() {
            return Err(self
                .error(ErrorKind::Invalid, "power cut")
                .detail("it has no disk with Disk::power_cut"));
        }
        if self.is_running() {
            let command = Command::new(AGENT)
                .arg("destage")
                .arg(seed.to_string())
                .args(cached);
            // Whatever comes of it, the power goes.
            let said = self.run(command.deadline(DESTAGE));
            let kept = said.map_or_else(|error| error.to_string(), |said| said.stdout_text());
            self.note(format!("power cut, seed {seed}: kept {}", kept.trim()));
        }
        self.lose("power cut", "its power was cut")
    }

    /// Makes the node stand still: its kernel's process is stopped. Peers see
    /// it fall silent; connections stay open until they time out. Programs are
    /// refused, running ones stay as they are.
    ///
    /// On return nothing happens in the node any more, except that a program
    /// that computes does so up to its next system call. No error if it hangs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NodeDown`] if it is not up, [`ErrorKind::Host`] if the host
    /// refuses.
    pub fn hang(&self) -> Result<()> {
        self.set_hung("hang", true)
    }

    /// Lets a node that hangs go on, as if nothing had been: its clocks jump
    /// to the time that it is. No error if it does not hang.
    ///
    /// # Errors
    ///
    /// As [`Node::hang`].
    pub fn resume(&self) -> Result<()> {
        self.set_hung("resume", false)
    }

    fn set_hung(&self, step: &str, hang: bool) -> Result<()> {
        let lab = self.lab(step)?;
        let machine = self.machine();
        let _turn = machine.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let boot = {
            let state = machine.state();
            if let Phase::Off(why) = &state.phase {
                return Err(self.error(ErrorKind::NodeDown, step).detail(why.clone()));
            }
            state.boot
        };
        let told = lab.keeper.hang(boot, hang);
        told.map_err(|error| error.node(self.name()))?;
        let mut state = machine.state();
        if !matches!(state.phase, Phase::Off(_)) {
            state.hung = hang;
        }
        drop(state);
        self.note(if hang { "hangs" } else { "goes on" });
        Ok(())
    }

    /// Moves the node's wall clock ahead (or back, if negative) of the host's
    /// by so many milliseconds; it stays so over its boots. Its monotonic
    /// clock is not touched. A node that is down boots with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] with errno if the node refuses, and those of
    /// [`Node::run`].
    pub fn shift_clock(&self, milliseconds: i64) -> Result<()> {
        let machine = self.machine();
        let _turn = machine.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = machine.state().clock_shift;
        if !matches!(machine.state().phase, Phase::Off(_)) {
            let by = milliseconds.saturating_sub(before).to_string();
            let command = Command::new(AGENT).arg("clock").arg(by);
            self.agent("shift the clock", command)?;
        }
        machine.state().clock_shift = milliseconds;
        self.note(format!("its clock is ahead by {milliseconds} ms"));
        Ok(())
    }

    /// Fills the file system that `dir` is on, but for `leave` bytes: a file
    /// in `dir` takes all room. Never with a directory that is in the node's
    /// memory, which is the root and everything below it that is no disk.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] with errno if the node refuses, and those of
    /// [`Node::run`].
    pub fn fill(&self, dir: impl AsRef<Path>, leave: u64) -> Result<()> {
        let dir = dir.as_ref();
        let command = Command::new(AGENT).arg("fill").arg(dir);
        let step = format!("fill {}", dir.display());
        self.agent(&step, command.arg(leave.to_string())).map(drop)
    }

    /// Gives the room back that [`Node::fill`] took.
    ///
    /// # Errors
    ///
    /// As [`Node::fill`].
    pub fn unfill(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let step = format!("empty {}", dir.display());
        let command = Command::new(AGENT).arg("unfill").arg(dir);
        self.agent(&step, command).map(drop)
    }

    fn link(&self, step: &str) -> Result<Arc<Link>> {
        let state = self.machine().state();
        match (&state.phase, &state.link) {
            (Phase::Ready, Some(link)) if !state.hung => Ok(Arc::clone(link)),
            (phase, _) => {
                let why = match phase {
                    Phase::Off(why) => why.clone(),
                    Phase::Ready => "it hangs".to_owned(),
                    _ => "it is booting".to_owned(),
                };
                drop(state);
                Err(self
                    .error(ErrorKind::NodeDown, step)
                    .detail(why)
                    .console(self.console_end()))
            }
        }
    }

    /// Adds the console to errors about a node that is gone.
    fn explain(&self, error: Error) -> Error {
        if matches!(error.kind(), ErrorKind::NodeDown) {
            error.console(self.console_end())
        } else {
            error
        }
    }

    /// Runs a program to its end and returns what it wrote.
    ///
    /// A program that fails is not an error here: look at
    /// [`Output::status`], or use [`Node::run_ok`]. Many may run at once, from
    /// as many threads.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Spawn`] if it cannot be started (with errno),
    /// [`ErrorKind::Deadline`] if it takes too long (its process group is
    /// killed, [`Error::output`] has what it wrote), [`ErrorKind::NodeDown`]
    /// if the node is down or lost meanwhile.
    pub fn run(&self, command: impl Into<Command>) -> Result<Output> {
        let command = command.into();
        let deadline = command.deadline;
        let child = self.spawn(command)?;
        child.wait(deadline).map_err(|error| self.explain(error))
    }

    /// Runs a program that is expected to succeed.
    ///
    /// # Errors
    ///
    /// As [`Node::run`], and [`ErrorKind::Failed`], with its output, if it
    /// ends with anything but exit code 0.
    pub fn run_ok(&self, command: impl Into<Command>) -> Result<Output> {
        let command = command.into();
        let name = command.name();
        let output = self.run(command)?;
        if output.status.success() {
            return Ok(output);
        }
        Err(self
            .error(ErrorKind::Failed, format!("run {name}"))
            .detail(output.status.to_string())
            .with_output(output))
    }

    /// Starts a program and returns while it runs. The command's deadline is
    /// not used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Spawn`] if it cannot be started (with errno),
    /// [`ErrorKind::NodeDown`] if the node is down or lost meanwhile.
    pub fn spawn(&self, command: impl Into<Command>) -> Result<Child> {
        let command = command.into();
        let name = command.name();
        let link = self.link(&format!("run {name}"))?;
        let (stdin, now) = match command.stdin {
            Input::Null => (Stdin::Null, None),
            Input::Piped => (Stdin::Pipe, None),
            Input::Bytes(bytes) if bytes.len() <= LINE_INPUT => (Stdin::Pipe, Some(bytes)),
            Input::Bytes(bytes) => (Stdin::File(link.share.put(&bytes)?), None),
        };
        let mut env = vec![
            (b"PATH".to_vec(), PATH.as_bytes().to_vec()),
            (b"HOME".to_vec(), b"/root".to_vec()),
            (b"LANG".to_vec(), b"C.UTF-8".to_vec()),
            (b"TERM".to_vec(), b"dumb".to_vec()),
            (b"UML_LAB_NODE".to_vec(), self.name().as_bytes().to_vec()),
        ];
        let added = command.env.iter();
        env.extend(added.map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())));
        let spawn = Spawn {
            argv: command
                .argv
                .iter()
                .map(|arg| arg.as_bytes().to_vec())
                .collect(),
            env,
            cwd: command.cwd.as_bytes().to_vec(),
            stdin,
        };
        if spawn.argv.iter().map(Vec::len).sum::<usize>() > 128 * 1024 {
            return Err(self.error(
                ErrorKind::Invalid,
                format!("run {name}: arguments too long"),
            ));
        }
        let running = link
            .spawn(spawn, name)
            .map_err(|error| self.explain(error))?;
        let child = Child { running };
        if let Some(bytes) = now {
            child.write_stdin(&bytes)?;
            child.close_stdin()?;
        }
        Ok(child)
    }

    /// Writes a file in the node, making the directories above it. The mode
    /// is the file's permission bits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] with errno if the node refuses, and those of
    /// [`Node::run`].
    pub fn write_file(
        &self,
        path: impl AsRef<Path>,
        content: impl Into<Vec<u8>>,
        mode: u32,
    ) -> Result<()> {
        let path = path.as_ref();
        let command = Command::new(AGENT)
            .arg("put")
            .arg(path)
            .arg(format!("{mode:o}"));
        let step = format!("write {}", path.display());
        self.agent(&step, command.stdin(content)).map(drop)
    }

    /// Reads a file of the node.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] with errno if the node refuses, and those of
    /// [`Node::run`].
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let command = Command::new(AGENT).arg("get").arg(path);
        self.agent(&format!("read {}", path.display()), command)
    }

    /// Runs the lab's own program, whose exit code is an errno.
    fn agent(&self, step: &str, command: Command) -> Result<Vec<u8>> {
        let output = self.run(command)?;
        match output.status.code() {
            Some(0) => Ok(output.stdout),
            code => {
                let error = self.error(ErrorKind::Failed, step);
                Err(match code {
                    Some(errno @ 1..128) => error.os(std::io::Error::from_raw_os_error(errno)),
                    _ => error.detail(output.stderr_text()),
                })
            }
        }
    }

    /// Loads a kernel module with modprobe, with parameters like
    /// `"usermode_helper=/bin/true"`. Loaded already is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] with what modprobe said, and those of
    /// [`Node::run`].
    pub fn load_module<S: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        parameters: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        self.run_ok(Command::new("/sbin/modprobe").arg(name).args(parameters))
            .map(drop)
    }

    /// Runs one test of the running test program inside the node.
    ///
    /// The node sees the host's files, so the executable is there. The inner
    /// test is an ordinary `#[test]`, marked `#[ignore]` so that it does not
    /// run on the host; it finds its node's name in `UML_LAB_NODE`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`], with its output, if it fails or if there is no
    /// test of this name, and those of [`Node::run`].
    pub fn run_test(&self, name: &str) -> Result<()> {
        self.run_test_with(name, |command| command)
    }

    /// Like [`Node::run_test`], with a chance to change environment, input or
    /// deadline.
    ///
    /// # Errors
    ///
    /// As [`Node::run_test`].
    pub fn run_test_with(&self, name: &str, change: impl FnOnce(Command) -> Command) -> Result<()> {
        let program =
            std::env::current_exe().map_err(|error| host_error("find this test", error))?;
        let mut command = Command::new(&program).args([
            "--exact",
            name,
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        if let Ok(dir) = std::env::current_dir() {
            command = command.current_dir(dir);
        }
        let output = self.run(change(command))?;
        let error = || self.error(ErrorKind::Failed, format!("test {name}"));
        if !output.status.success() {
            return Err(error()
                .detail(output.status.to_string())
                .with_output(output));
        }
        // A name that matches nothing is a success to the test harness.
        if !output.stdout_text().contains("running 1 test") {
            return Err(error()
                .detail("this test program has no such test")
                .with_output(output));
        }
        Ok(())
    }
}

/// A disk of a node, as a test holds it; made by [`Node::disk`].
///
/// Faults need [`Disk::faults`](crate::Disk::faults). They take effect while
/// the disk is in use, without a flush and without a word to whoever uses it;
/// requests under way end as they would have. They stay over the loss of the
/// node, and may be set while it is down.
#[derive(Clone, Debug)]
pub struct NodeDisk {
    node: Node,
    n: usize,
}

impl NodeDisk {
    fn disk(&self) -> &MachineDisk {
        &self.node.machine().disks[self.n]
    }

    /// Returns its path in the node: /dev/ubda for the first one.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.disk().name)
    }

    /// Returns its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.disk().size
    }

    /// Makes the whole disk faulty.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the disk cannot break,
    /// [`ErrorKind::Failed`] with errno if the node's kernel refuses, and
    /// those of [`Node::run`].
    pub fn inject(&self, fault: DiskFault) -> Result<()> {
        self.change(&format!("all of it {fault}"), |faults, size| {
            faults.add(None, fault, size)
        })
    }

    /// Makes a part of the disk faulty, a range of bytes that begins and ends
    /// with a sector (512 bytes). Where it overlaps an earlier one, this one
    /// counts.
    ///
    /// # Errors
    ///
    /// As [`NodeDisk::inject`], and [`ErrorKind::Invalid`] for a range that is
    /// not within the disk.
    pub fn inject_at(&self, range: std::ops::Range<u64>, fault: DiskFault) -> Result<()> {
        let what = format!("bytes {} to {}: {fault}", range.start, range.end);
        self.change(&what, |faults, size| faults.add(Some(range), fault, size))
    }

    /// Ends all faults of the disk. What was lost stays lost.
    ///
    /// # Errors
    ///
    /// As [`NodeDisk::inject`].
    pub fn heal(&self) -> Result<()> {
        self.change("healed", |faults, _| {
            faults.clear();
            Ok(())
        })
    }

    fn change(
        &self,
        what: &str,
        change: impl FnOnce(&mut Faults, u64) -> Result<()>,
    ) -> Result<()> {
        let disk = self.disk();
        let step = format!("disk {}, {what}", disk.name);
        let Some(faults) = &disk.faults else {
            return Err(self
                .node
                .error(ErrorKind::Invalid, step)
                .detail("it was not described with Disk::faults"));
        };
        let machine = self.node.machine();
        let _turn = machine.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = faults.clone();
        change(&mut changed, disk.size).map_err(|error| error.node(self.node.name()))?;
        if !matches!(machine.state().phase, Phase::Off(_)) {
            let command = Command::new(AGENT).arg("table").arg(&disk.name);
            let table = changed.table(disk.size);
            self.node.agent(&step, command.stdin(table))?;
        }
        *faults = changed;
        self.node.note(step);
        Ok(())
    }
}

/// Does what the power switch was asked to; exit code and text.
fn power(lab: &Arc<Inner>, verb: &str, name: &str) -> (u8, String) {
    let Some(index) = lab.find(name) else {
        return (1, format!("no node named {name:?}"));
    };
    let node = Node::new(lab, index);
    let result = match verb {
        "status" => {
            let off = matches!(node.machine().state().phase, Phase::Off(_));
            return if off {
                (2, "off".to_owned())
            } else {
                (0, "on".to_owned())
            };
        }
        "off" => node.kill(),
        "on" if !matches!(node.machine().state().phase, Phase::Off(_)) => Ok(()),
        "on" => node.boot(),
        _ => return (1, format!("no verb {verb:?}: want status, off or on")),
    };
    match result {
        Ok(()) => (0, verb.to_owned()),
        Err(error) => (1, error.to_string()),
    }
}
