//! Nothing stays behind, however the lab ends: processes, mounts, files and
//! sockets are compared before and after. And nothing is written outside.
//!
//! The lab that ends badly is this test program again, as a child.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uml_lab::{Disk, ErrorKind, Lab, LabBuilder};

/// All tests here look at the whole machine, so they take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What one cache directory's labs have on this machine.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
    sockets: BTreeSet<String>,
}

impl Traces {
    /// Other labs may be running, so only what mentions `cache` counts; for
    /// places without a name of ours, what mentions user-mode kernels.
    fn take(cache: &Path) -> Self {
        let name = cache.to_str().unwrap();
        let mut processes = BTreeSet::new();
        let mut sockets = BTreeSet::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if pid != std::process::id() && line.contains(name) {
                processes.insert(format!("{pid} {line}"));
            }
        }
        for fd in fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let target = fs::read_link(fd.path()).unwrap_or_default();
            if target.to_string_lossy().starts_with("socket:") {
                sockets.insert(target.display().to_string());
            }
        }
        let table = fs::read_to_string("/proc/net/unix").unwrap();
        sockets.extend(
            table
                .lines()
                .filter(|line| line.contains(name))
                .map(str::to_owned),
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut files = BTreeSet::new();
        collect(&cache.join("run"), &mut files);
        for place in ["/dev/shm", "/tmp"] {
            for entry in fs::read_dir(place).unwrap().flatten() {
                let path = entry.path();
                if path.to_string_lossy().contains("vm_file-")
                    || path.to_string_lossy().contains("uml")
                {
                    files.insert(path);
                }
            }
        }
        Traces {
            processes,
            mounts: mounts.lines().map(str::to_owned).collect(),
            files,
            sockets,
        }
    }

    /// Waits until everything is as before: a killed lab is cleaned up after
    /// by another process.
    fn expect_again(&self, cache: &Path) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let now = Traces::take(cache);
            if now == *self {
                return;
            }
            assert!(Instant::now() < until, "before: {self:#?}\nafter: {now:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn collect(dir: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        files.insert(entry.path());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), files);
        }
    }
}

/// A cache directory of this test alone, so that its processes and files can
/// be told from those of other labs; packages come from the usual one.
struct Place {
    dir: tempfile::TempDir,
    packages: PathBuf,
}

impl Place {
    /// Starts a lab in the usual place first: packages are there then.
    fn new() -> Option<Self> {
        let lab = Lab::builder()
            .name("warm")
            .node("node1", |n| n)
            .start_for_test()?;
        let packages = lab.run_dir().ancestors().nth(2).unwrap().join("packages");
        drop(lab);
        let dir = tempfile::Builder::new()
            .prefix("lab-test-")
            .tempdir()
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // What the first lab in a cache directory makes for all.
        fs::create_dir_all(dir.path().join("run")).unwrap();
        fs::write(dir.path().join("run/lock"), "").unwrap();
        Some(Place { dir, packages })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn lab(&self) -> LabBuilder {
        place_lab(self.path(), &self.packages)
    }

    /// Starts `test` of this program as a process of its own; returns once it
    /// says that its lab is up.
    fn victim(&self, test: &str) -> Victim {
        let program = std::env::current_exe().unwrap();
        // Started from a script's background job, this program ignores SIGINT, and so would the
        // victim: give it back what a shell gives a command in the foreground.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=INT,TERM")
            .arg(program)
            .args(["--exact", test, "--include-ignored", "--nocapture"])
            .env("VICTIM_CACHE", self.path())
            .env("VICTIM_PACKAGES", &self.packages)
            .env("LAB_LOG_DIR", self.path().join("logs"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // As a shell does for a command in the foreground.
            .process_group(0);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("LAB IS UP") {
            line.clear();
            assert_ne!(
                lines.read_line(&mut line).unwrap(),
                0,
                "{test} did not get there"
            );
        }
        Victim {
            child,
            _lines: lines,
        }
    }
}

struct Victim {
    child: Child,
    _lines: BufReader<ChildStdout>,
}

impl Victim {
    /// Waits for its end; one that does not end is killed, and fails the test.
    fn end(&mut self) -> ExitStatus {
        for _ in 0..1200 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.child.kill().unwrap();
        panic!("the victim did not end within 120 s");
    }
}

fn place_lab(cache: &Path, packages: &Path) -> LabBuilder {
    Lab::builder()
        .name("victim")
        .cache_dir(cache)
        .package_dir(packages)
        .node("node1", |n| {
            n.disk(Disk::new("64M").power_cut().faults())
                .keep("/var/lib/kept")
        })
        .node("node2", |n| n)
        .wire("wire", |w| {
            w.port("node1", "10.0.0.1/24").port("node2", "10.0.0.2/24")
        })
}

/// The lab of a victim; both nodes are busy, one has locked a directory, the
/// other hangs.
fn victims_lab() -> Lab {
    let path = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let lab = place_lab(&path("VICTIM_CACHE"), &path("VICTIM_PACKAGES"))
        .start()
        .unwrap();
    let lock = "mkdir -p /var/lib/kept/a/b && chmod 0 /var/lib/kept/a";
    lab.node("node1").run_ok(["sh", "-c", lock]).unwrap();
    for node in lab.nodes() {
        drop(
            node.spawn(["sh", "-c", "sleep 1000 & while :; do :; done"])
                .unwrap(),
        );
    }
    lab.node("node2").hang().unwrap();
    println!("LAB IS UP");
    lab
}

#[test]
fn nothing_is_left_however_the_lab_ends() {
    let _turn = turn();
    let Some(place) = Place::new() else { return };
    let before = Traces::take(place.path());
    // The comparison sees what it should.
    let lab = place.lab().start().unwrap();
    let during = Traces::take(place.path());
    assert!(during.processes.len() > before.processes.len());
    assert!(during.files.len() > before.files.len());
    assert!(during.sockets.len() > before.sockets.len());
    let one = lab.node("node1");
    drop(lab);
    assert_eq!(Traces::take(place.path()), before, "after success, at once");
    // A handle outlives its lab and says so.
    assert_eq!(one.run("true").unwrap_err().kind(), ErrorKind::NodeDown);
    assert_eq!(one.boot().unwrap_err().kind(), ErrorKind::NodeDown);

    failed_starts(&place, &before);

    let mut victim = place.victim("victim_panics");
    assert!(!victim.end().success());
    before.expect_again(place.path());
    let mut logs = fs::read_dir(place.path().join("logs")).unwrap().flatten();
    let timeline = logs.find(|log| log.file_name().to_string_lossy().ends_with(".timeline"));
    let timeline = fs::read_to_string(timeline.unwrap().path()).unwrap();
    for text in [
        "node2      hangs",
        "node1      runs sh -c",
        "| Linux version",
    ] {
        assert!(timeline.contains(text), "{timeline}");
    }

    for (signal, group) in [
        (Signal::SIGINT, true),
        (Signal::SIGTERM, false),
        (Signal::SIGKILL, false),
        (Signal::SIGKILL, true),
    ] {
        let mut victim = place.victim("victim_waits");
        let pid = Pid::from_raw(victim.child.id().cast_signed());
        let to = if group {
            Pid::from_raw(-pid.as_raw())
        } else {
            pid
        };
        kill(to, signal).unwrap();
        let status = victim.end();
        assert_eq!(status.signal(), Some(signal as i32));
        before.expect_again(place.path());
    }
}

/// Labs that do not come up, at several steps.
fn failed_starts(place: &Place, before: &Traces) {
    let error = place.lab().kernel("/bin/false").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Boot);
    assert!(
        error
            .to_string()
            .contains("node node1: boot: its kernel ended"),
        "{error}"
    );
    assert_eq!(Traces::take(place.path()), *before);

    let error = place.lab().kernel("/etc/passwd").start().unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Boot, Some(13))
    );
    assert_eq!(Traces::take(place.path()), *before);

    let error = place.lab().kernel("/no/such/kernel").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(error.to_string().contains("/no/such/kernel"), "{error}");
    assert_eq!(Traces::take(place.path()), *before);

    // No modules: the setup inside the node fails, and says where.
    // The console is kept where that was asked for.
    let empty = tempfile::tempdir().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let broken = place.lab().modules(empty.path()).log_dir(logs.path());
    let error = broken.start().unwrap_err();
    let log = logs
        .path()
        .join(format!("victim-{}-node1.console", std::process::id()));
    assert!(fs::read_to_string(log).unwrap().contains("Linux version"));
    assert_eq!(error.kind(), ErrorKind::Boot);
    assert!(error.to_string().contains("overlay.ko"), "{error}");
    assert!(!error.console_lines().is_empty());
    assert_eq!(Traces::take(place.path()), *before);

    let slow = place.lab().boot_deadline(Duration::from_millis(1));
    let error = slow.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Boot);
    assert!(error.to_string().contains("not ready after 1ms"), "{error}");
    assert_eq!(Traces::take(place.path()), *before);
}

#[test]
#[ignore = "a process of its own, which is to fail"]
fn victim_panics() {
    let _lab = victims_lab();
    panic!("on purpose");
}

#[test]
#[ignore = "a process of its own, which is killed"]
fn victim_waits() {
    let _lab = victims_lab();
    std::thread::sleep(Duration::from_secs(1000));
}

/// When lab and keeper are both killed at once, the kernels die with the
/// keeper, and the next lab removes the files.
#[test]
fn the_next_lab_cleans_up_when_even_the_keeper_is_killed() {
    let _turn = turn();
    let Some(place) = Place::new() else { return };
    let before = Traces::take(place.path());
    let mut victim = place.victim("victim_waits");
    let pid = victim.child.id();
    let keeper = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let keeper: Vec<i32> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|child: &i32| {
            let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains("agent keeper") && line.contains(place.path().to_str().unwrap())
        })
        .chain(keeper.split_whitespace().filter_map(|pid| pid.parse().ok()))
        .collect();
    let keeper = keeper[0];
    // Stopped, the lab cannot notice; both are dead before either acts.
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).unwrap();
    kill(Pid::from_raw(keeper), Signal::SIGKILL).unwrap();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    victim.end();
    let until = Instant::now() + Duration::from_secs(60);
    while Traces::take(place.path()).processes != before.processes {
        assert!(
            Instant::now() < until,
            "{:#?}",
            Traces::take(place.path()).processes
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    // A locked directory needs root to remove it; here that is the test.
    drop(place.lab().start().unwrap());
    before.expect_again(place.path());
}

/// Root in a node may mount any host directory; it must not be able to write
/// there.
#[test]
fn write_confinement() {
    let _turn = turn();
    let Some(lab) = Lab::builder()
        .name("confined")
        .node("node1", |n| n.keep("/var/lib/kept"))
        .start_for_test()
    else {
        return;
    };
    let node = lab.node("node1");
    // Outside the node's directory, in places the lab's user may write to.
    let victims = tempfile::tempdir().unwrap();
    fs::write(victims.path().join("file"), "whole").unwrap();
    let beside = lab.run_dir().join("written");
    let root = nix::unistd::geteuid().is_root();
    for dir in [
        victims.path(),
        lab.run_dir(),
        Path::new("/etc"),
        Path::new("/dev/shm"),
    ] {
        // An ordinary user's kernel may write what its user may.
        if !root && dir != Path::new("/etc") {
            continue;
        }
        let script = "mkdir -p /mnt/out && mount -t hostfs none /mnt/out -o rw,\"$0\" 2>&1; \
                      mount -t hostfs none /mnt/out -o \"$0\" 2>&1; \
                      echo >/mnt/out/written; rm -f /mnt/out/file; echo torn >/mnt/out/file; \
                      mkdir /mnt/out/made; mount | grep hostfs; umount /mnt/out";
        let output = node
            .run(["sh", "-c", script, dir.to_str().unwrap()])
            .unwrap();
        let said = format!("{}{}", output.stdout_text(), output.stderr_text());
        assert!(
            said.contains("Read-only file system") || said.contains("Permission denied"),
            "{said}"
        );
        assert!(
            said.contains(&format!("{dir:?}").replace('"', "")),
            "not mounted: {said}"
        );
        assert!(
            !dir.join("written").exists() && !dir.join("made").exists(),
            "{said}"
        );
    }
    assert_eq!(fs::read(victims.path().join("file")).unwrap(), b"whole");
    assert!(!beside.exists());
    if root {
        let kernel = kernels_of(lab.run_dir());
        assert!(!kernel.is_empty());
        for pid in kernel {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert!(
                    status.contains(&format!("{set}:\t0000000000000000")),
                    "{status}"
                );
            }
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        }
    }
    // What it may write.
    node.write_file("/var/lib/kept/x", "kept", 0o600).unwrap();
    assert_eq!(fs::read(node.keep_path(0).join("x")).unwrap(), b"kept");
}

fn kernels_of(run_dir: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.contains("mem=") && line.contains(run_dir.to_str().unwrap()) {
            pids.push(pid);
        }
    }
    pids
}

/// Root gives this program to an ordinary user, who starts a lab with it.
#[test]
fn an_ordinary_user_needs_no_rights() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: every other test shows it");
        return;
    }
    let _turn = turn();
    let Some(place) = Place::new() else { return };
    const NOBODY: u32 = 65534;
    // This program and the packages may lie where only root gets to.
    let program = place.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    copy_tree(
        &place.packages.join("sets"),
        &place.path().join("packages/sets"),
    );
    for dir in ["", "run"] {
        std::os::unix::fs::chown(place.path().join(dir), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::remove_file(place.path().join("run/lock")).unwrap();
    let output = Command::new(&program)
        .args([
            "--exact",
            "ordinary_users_lab",
            "--include-ignored",
            "--nocapture",
        ])
        .env("VICTIM_CACHE", place.path())
        .env("VICTIM_PACKAGES", place.path().join("packages"))
        .env("HOME", "/")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{errors}"
    );
    let left: Vec<_> = fs::read_dir(place.path().join("run"))
        .unwrap()
        .flatten()
        .collect();
    assert!(
        left.iter().all(|entry| entry.file_name() == "lock"),
        "{left:?}"
    );
}

#[test]
#[ignore = "runs as another user"]
fn ordinary_users_lab() {
    assert!(!nix::unistd::geteuid().is_root());
    let lab = victims_lab();
    let node = lab.node("node1");
    // Root inside, an ordinary user outside.
    assert_eq!(node.run(["id", "-u"]).unwrap().stdout, b"0\n");
    let script =
        "mkdir -p /mnt/etc && mount -t hostfs none /mnt/etc -o /etc && echo >/mnt/etc/written";
    let output = node.run(["sh", "-c", script]).unwrap();
    assert!(
        output.stderr_text().contains("Permission denied"),
        "{output:?}"
    );
    assert!(!Path::new("/etc/written").exists());
    node.write_file("/etc/own", "its own", 0o644).unwrap();
    node.write_file("/var/lib/kept/x", "kept", 0o600).unwrap();
    node.kill().unwrap();
    node.boot().unwrap();
    assert_eq!(node.read_file("/var/lib/kept/x").unwrap(), b"kept");
    node.load_module("loop", [""; 0]).unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &to);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), &to).unwrap();
        } else if entry.metadata().unwrap().mode() & 0o444 == 0o444 {
            let linked = fs::hard_link(entry.path(), &to);
            linked
                .or_else(|_| fs::copy(entry.path(), &to).map(drop))
                .unwrap();
        }
    }
}
