//! A node of the lab, a file system in it, and btrfs-progs beside it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use btrfs_ops::Subvolume;
use nix::mount::{MsFlags, mount, umount};
use uml_lab::Lab;

pub(crate) const DEVICE: &str = "/dev/ubda";
pub(crate) const SECOND: &str = "/dev/ubdb";
pub(crate) const THIRD: &str = "/dev/ubdc";
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Which chains are made, such as `106..112`; not the usual ones.
pub(crate) const SEEDS: &str = "BTRFS_SEEDS";

/// Boots a node with these disks and runs these tests of this program there,
/// one after the other.
pub(crate) fn run_on_node(lab: &str, disks: &[&str], tests: &[&str]) {
    // Generous: the machine may be busy with other labs.
    run_within(Duration::from_secs(600), lab, disks, tests);
}

/// The same for tests that take long by themselves.
pub(crate) fn run_deep_on_node(lab: &str, disks: &[&str], tests: &[&str]) {
    run_within(Duration::from_secs(4 * 3600), lab, disks, tests);
}

fn run_within(deadline: Duration, lab: &str, disks: &[&str], tests: &[&str]) {
    let lab = Lab::builder()
        .name(lab)
        .packages(["btrfs-progs", "libbtrfsutil-dev", "strace"])
        .node("node1", |n| disks.iter().fold(n, |n, size| n.disk(*size)))
        .start_for_test();
    let Some(lab) = lab else { return };
    let node = lab.node("node1");
    let run = |test: &&str| {
        let began = Instant::now();
        let error = node
            .run_test_with(test, |command| {
                let seeds = std::env::var(SEEDS).unwrap_or_default();
                command.env(SEEDS, seeds).deadline(deadline)
            })
            .err();
        eprintln!("{test}: {:.1} s", began.elapsed().as_secs_f64());
        error
    };
    let failed: Vec<_> = tests.iter().filter_map(run).collect();
    for error in &failed {
        eprintln!("{error}");
    }
    assert!(
        failed.is_empty(),
        "{} of {} tests failed",
        failed.len(),
        tests.len()
    );
}

/// A fresh file system, mounted until this is dropped.
pub(crate) struct Store {
    device: String,
    pub(crate) path: PathBuf,
    pub(crate) mounts: Vec<PathBuf>,
}

impl Store {
    pub(crate) fn new(name: &str, mkfs: &[&str], options: &str) -> Self {
        Self::on(DEVICE, name, mkfs, options)
    }

    pub(crate) fn on(device: &str, name: &str, mkfs: &[&str], options: &str) -> Self {
        run(Command::new("mkfs.btrfs")
            .args(["-q", "-f"])
            .args(mkfs)
            .arg(device));
        let path = Path::new("/mnt").join(name);
        let mut store = Self {
            device: device.to_owned(),
            path: path.clone(),
            mounts: Vec::new(),
        };
        store.mount(&path, options);
        store
    }

    pub(crate) fn mount(&mut self, at: &Path, options: &str) {
        fs::create_dir_all(at).unwrap();
        mount(
            Some(self.device.as_str()),
            at,
            Some("btrfs"),
            MsFlags::empty(),
            Some(options),
        )
        .unwrap();
        self.mounts.push(at.into());
    }

    pub(crate) fn root(&self) -> Subvolume {
        Subvolume::open(&self.path).unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for path in self.mounts.iter().rev() {
            // A failed test may hold it; the node goes away with it.
            let _ = umount(path);
        }
    }
}

/// Runs a program that must succeed, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {text}",
        output.status
    );
    output.stdout
}

pub(crate) fn btrfs(arguments: &[&OsStr]) -> String {
    let bytes = run(Command::new("btrfs").args(arguments).env("TZ", "UTC"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The fields that `btrfs subvolume show` prints.
pub(crate) fn show(path: &Path) -> BTreeMap<String, String> {
    let text = btrfs(&["subvolume".as_ref(), "show".as_ref(), path.as_os_str()]);
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A process, killed when this is dropped.
pub(crate) struct Background(pub(crate) Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a test of this program as nobody.
pub(crate) fn as_nobody(test: &str) {
    let exe = std::env::current_exe().unwrap();
    let arguments = [
        "--exact",
        test,
        "--include-ignored",
        "--nocapture",
        "--test-threads=1",
    ];
    let output = Command::new(exe)
        .args(arguments)
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test}: {text}{errors}"
    );
}
