//! The node, its store, and what goes into a container.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lxc_rs::{AttachCommand, Container, ContainerName, CreateSpec, LxcPath, StartOptions};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use uml_lab::{Lab, Node};

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// For [`allocated`]: else what the C library keeps for the next of its size
/// would count as used.
pub(crate) const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");

/// Runs inner tests in a node, all of them even if one fails. `LXC_RS_INNER`
/// names some of them, and the variables in `defaults` may be set otherwise.
pub(crate) fn in_node(tests: &[&str], defaults: &[(&str, &str)]) {
    let lab = Lab::builder()
        .name("lxc-rs")
        .packages(["attr", "btrfs-progs", "busybox-static", "lxc", "uidmap"])
        .node("node1", |node| node.disk("512M").memory("512M"))
        .start_for_test();
    if let Some(lab) = lab {
        run_inner(&lab.node("node1"), tests, defaults);
    }
}

pub(crate) fn run_inner(node: &Node, tests: &[&str], defaults: &[(&str, &str)]) {
    let only = std::env::var("LXC_RS_INNER").ok();
    let mut failed = Vec::new();
    for inner in tests {
        let named = |only: &str| only.split(',').any(|only| only == *inner);
        if only.as_deref().is_some_and(|only| !named(only)) {
            continue;
        }
        let begun = Instant::now();
        let ran = node.run_test_with(inner, |mut command| {
            command = command.env(TUNABLES.0, TUNABLES.1);
            for (name, value) in defaults {
                let value = std::env::var(name).unwrap_or_else(|_| (*value).to_owned());
                command = command.env(name, value);
            }
            command.deadline(Duration::from_secs(3600))
        });
        match ran {
            Ok(()) => println!("{inner} passed in {:?}", begun.elapsed()),
            Err(error) => {
                println!("{inner} failed: {error}");
                failed.push(inner);
            }
        }
    }
    assert!(failed.is_empty(), "failed inside the node: {failed:?}");
}

/// A count that a deep run raises.
pub(crate) fn count(name: &str, usually: usize) -> usize {
    std::env::var(name).map_or(usually, |count| count.parse().unwrap())
}

/// Where the Btrfs for the containers is mounted.
pub(crate) fn mounted() -> PathBuf {
    std::env::var_os("LXC_RS_MOUNT").map_or_else(|| "/srv/lxc-rs".into(), PathBuf::from)
}

/// The Btrfs of this node, mounted, with an lxcpath of its own for each test.
pub(crate) fn store(test: &str) -> LxcPath {
    let mounted = mounted();
    fs::create_dir_all(&mounted).unwrap();
    let is_btrfs = || statfs(&mounted).unwrap().filesystem_type() == BTRFS_SUPER_MAGIC;
    if !is_btrfs() {
        let disk = std::env::var_os("LXC_RS_DISK").unwrap_or_else(|| "/dev/ubda".into());
        // It knows how to mount a file as well.
        let try_mount = || {
            let mut mount = Command::new("mount");
            mount.args(["-t", "btrfs"]).arg(&disk).arg(&mounted);
            mount.output().unwrap().status.success()
        };
        if !try_mount() {
            let made = Command::new("mkfs.btrfs")
                .args(["-q", "-f"])
                .arg(&disk)
                .output()
                .unwrap();
            assert!(made.status.success(), "{made:?}");
            assert!(try_mount());
        }
    }
    end_leftovers(&mounted);
    let dir = mounted.join(test);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    LxcPath::new(dir).unwrap()
}

/// Ends the containers of an earlier test that failed, so that it fails alone.
pub(crate) fn end_leftovers(mounted: &Path) {
    // The second is that of a monitor that could not change its title.
    let titles = ["[lxc monitor]", "lxc-rs-helper start"];
    let titles = titles.map(|title| format!("{title} {}/", mounted.display()));
    let monitors: Vec<_> = processes()
        .filter(|(_, line)| titles.iter().any(|title| line.starts_with(title)))
        .map(|(pid, _)| pid)
        .collect();
    for pid in &monitors {
        // Init follows its monitor.
        kill(*pid, Signal::SIGKILL).unwrap();
    }
    let gone = |pid: &Pid| !Path::new(&format!("/proc/{pid}")).exists();
    let until = Instant::now() + LONG;
    while !monitors.iter().all(gone) {
        assert!(Instant::now() < until, "{monitors:?} do not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn processes() -> impl Iterator<Item = (Pid, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        Some((Pid::from_raw(pid), line.trim_end().to_owned()))
    })
}

/// Who has something of `mounted` open, stands in it, or sees it in a mount
/// namespace of its own.
pub(crate) fn holders(mounted: &Path) -> String {
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    let mut found = String::new();
    for (pid, line) in processes() {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let fds = fs::read_dir(proc.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let links = ["cwd", "root", "exe"].map(|link| proc.join(link));
        let mut held: Vec<_> = fds
            .map(|entry| entry.path())
            .chain(links)
            .filter_map(|link| fs::read_link(link).ok())
            .filter(|target| target.starts_with(mounted))
            .collect();
        let namespace = fs::read_link(proc.join("ns/mnt")).ok();
        if namespace.is_some_and(|namespace| namespace != own) {
            let mounts = fs::read_to_string(proc.join("mountinfo")).unwrap_or_default();
            let inside = mounts.lines().filter(|line| line.contains("lxc-rs"));
            held.extend(inside.map(PathBuf::from));
        }
        if !held.is_empty() {
            found += &format!("\n{pid} {line}: {held:?}");
        }
    }
    found
}

/// Programs that want all the processor they can get.
pub(crate) struct Busy(Vec<std::process::Child>);

impl Busy {
    pub(crate) fn with(count: usize) -> Self {
        let spin = |_| {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
        };
        Self((0..count).map(spin).map(Result::unwrap).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// The smallest system that boots: busybox as everything.
pub(crate) fn minimal(rootfs: &Path) -> std::io::Result<()> {
    for dir in ["bin", "sbin", "dev", "proc", "sys", "tmp", "etc", "root"] {
        fs::create_dir(rootfs.join(dir))?;
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox"))?;
    for applet in [
        "sh", "cat", "sleep", "env", "pwd", "hostname", "id", "true", "false", "kill",
    ] {
        symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    symlink("../bin/busybox", rootfs.join("sbin/init"))?;
    fs::write(
        rootfs.join("etc/inittab"),
        "::respawn:/bin/busybox sleep 100000\n",
    )
}

pub(crate) fn name(name: &str) -> ContainerName {
    ContainerName::new(name).unwrap()
}

pub(crate) fn spec(name: &ContainerName) -> CreateSpec<'static> {
    CreateSpec::new(name.clone())
        .config("lxc.mount.auto", "proc:mixed sys:ro")
        .config("lxc.signal.halt", "SIGUSR1")
        .config("lxc.net.0.type", "empty")
        .populate(minimal)
}

pub(crate) fn create(store: &LxcPath, called: &str) -> Container {
    Container::create(store, spec(&name(called)), LONG)
        .unwrap()
        .done()
        .unwrap()
}

pub(crate) fn start(container: &Container) {
    container
        .start(&StartOptions::new(), LONG)
        .unwrap()
        .done()
        .unwrap();
}

pub(crate) fn stop(container: &Container) {
    container.stop(LONG).unwrap().done().unwrap();
}

pub(crate) fn sh(container: &Container, script: &str) -> String {
    let command = AttachCommand::new("sh").args(["-c", script]);
    let output = container
        .attach_run(&command, LONG)
        .unwrap()
        .done()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// The monitor: the parent of init.
pub(crate) fn monitor_of(container: &Container) -> Pid {
    let init = container.init_pid().unwrap().unwrap();
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap();
    Pid::from_raw(parent.trim().parse().unwrap())
}

pub(crate) fn oracle(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn device_of(mounted: &Path) -> PathBuf {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut lines = table
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines
        .find(|fields| Path::new(fields[1]) == mounted)
        .unwrap();
    line[0].into()
}

pub(crate) fn descriptors() -> BTreeSet<(String, PathBuf)> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            // The descriptor that this very listing uses.
            (!target.starts_with("/proc/") || !target.ends_with("fd"))
                .then(|| (entry.file_name().into_string().unwrap(), target))
        })
        .collect()
}

pub(crate) fn no_children() {
    assert_eq!(
        waitpid(
            Pid::from_raw(-1),
            Some(nix::sys::wait::WaitPidFlag::WNOHANG)
        ),
        Err(Errno::ECHILD)
    );
}

/// Bytes that this program has from the C library, which its Rust takes its
/// own from as well.
pub(crate) fn allocated() -> usize {
    // SAFETY: takes nothing and returns numbers.
    #[allow(unsafe_code, reason = "nobody wraps it")]
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// What liblxc made for containers and monitors and has not removed.
pub(crate) fn cgroups() -> Vec<String> {
    let entries = fs::read_dir("/sys/fs/cgroup").unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.starts_with("lxc."))
        .filter(|name| name != "lxc.pivot")
        .collect()
}
