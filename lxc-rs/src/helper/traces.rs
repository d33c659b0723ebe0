//! What a container leaves behind for a moment when it ends: its monitor
//! process, which keeps the file system busy, and processes in its cgroups.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::os;
use crate::wire;

/// How often to look at what is no process.
const AFTER: Duration = Duration::from_millis(5);

pub(crate) struct Traces {
    /// Monitor and init. A process is reported as ended after its descriptors,
    /// directories and namespaces are closed, what they held up included.
    processes: Vec<OwnedFd>,
    cgroups: Vec<PathBuf>,
}

impl Traces {
    /// `init` is the container's init if it runs, else at most 0.
    pub(crate) fn find(lxcpath: &[u8], name: &[u8], init: i32) -> Self {
        let mut pids = titled(lxcpath, name);
        let mut cgroups = Vec::new();
        if init > 0 {
            // The monitor cloned init, so it is its parent.
            pids.extend(parent(init).filter(|parent| *parent > 1 && !pids.contains(parent)));
            pids.push(init);
            cgroups = payload_cgroups(init);
        }
        Self {
            processes: pids.into_iter().filter_map(os::pidfd).collect(),
            cgroups,
        }
    }

    /// Waits until one of the processes ends, or for what they leave; not longer than `within`.
    pub(crate) fn wait(&self, within: Duration) {
        let mut processes = self.processes.iter();
        match processes.find(|process| !os::ended(process, Duration::ZERO)) {
            Some(lives) => {
                os::ended(lives, within);
            }
            None => std::thread::sleep(within.min(AFTER)),
        }
    }

    pub(crate) fn gone(&self) -> bool {
        self.processes
            .iter()
            .all(|process| os::ended(process, Duration::ZERO))
            && self.cgroups.iter().all(|cgroup| is_empty(cgroup))
    }
}

/// Whether the process is there and has not ended.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may have any character.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.bytes().next());
    state.is_some_and(|state| !matches!(state, b'Z' | b'X'))
}

/// Whether `monitor` has a child that lives.
pub(crate) fn has_child(monitor: i32) -> bool {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.any(|pid| parent(pid) == Some(monitor) && lives(pid))
}

/// Whether no process is left in a cgroup and those below. The directory goes
/// with the monitor; one without processes is no trace.
fn is_empty(cgroup: &Path) -> bool {
    // `populated` also counts processes that are ending and still have files
    // open, which the list of processes leaves out. Version 1 has the list only.
    match fs::read_to_string(cgroup.join("cgroup.events")) {
        Ok(events) => !events.lines().any(|line| line == "populated 1"),
        Err(_) => fs::read(cgroup.join("cgroup.procs")).map_or(true, |list| list.is_empty()),
    }
}

/// Processes that call themselves the monitor of this container. One that
/// could not change its title still has the command line of the helper that
/// started it.
fn titled(lxcpath: &[u8], name: &[u8]) -> Vec<i32> {
    let title = [b"[lxc monitor] ".as_slice(), lxcpath, b" ", name].concat();
    let helper = [wire::PROGRAM.as_bytes(), b"\0start\0", lxcpath, b"\0", name].concat();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = line.trim_ascii_end();
        let end = line
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        *pid != own && (line[..end] == title || line[..end] == helper)
    })
    .collect()
}

pub(crate) fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

/// The directories of the cgroups that liblxc made for a container's processes.
fn payload_cgroups(init: i32) -> Vec<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts: Vec<Mount<'_>> = mounts
        .split(|byte| *byte == b'\n')
        .filter_map(Mount::parse)
        .collect();
    let of_init = fs::read(format!("/proc/{init}/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in of_init.split(|byte| *byte == b'\n') {
        // "hierarchy:controllers:path"; no controllers means the unified one.
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let ours = path
            .split(|byte| *byte == b'/')
            .any(|part| part.starts_with(b"lxc.payload"));
        if let Some(mount) = mounts.iter().find(|mount| mount.carries(controllers))
            && ours
            && let Some(below) =
                path.strip_prefix(mount.root.strip_suffix(b"/").unwrap_or(mount.root))
        {
            let below = below.strip_prefix(b"/").unwrap_or(below);
            found.push(Path::new(OsStr::from_bytes(mount.point)).join(OsStr::from_bytes(below)));
        }
    }
    found
}

/// A mounted cgroup hierarchy.
struct Mount<'a> {
    root: &'a [u8],
    point: &'a [u8],
    unified: bool,
    options: &'a [u8],
}

impl<'a> Mount<'a> {
    /// One line of mountinfo: "id parent dev root point options … - type source superoptions".
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = fields.by_ref().nth(3)?;
        let point = fields.next()?;
        let kind = fields.by_ref().skip_while(|field| *field != b"-").nth(1)?;
        let options = fields.nth(1)?;
        let unified = kind == b"cgroup2";
        (unified || kind == b"cgroup").then_some(Self {
            root,
            point,
            unified,
            options,
        })
    }

    fn carries(&self, controllers: &[u8]) -> bool {
        match controllers {
            b"" => self.unified,
            _ => {
                let first = controllers.split(|byte| *byte == b',').next();
                !self.unified
                    && self
                        .options
                        .split(|byte| *byte == b',')
                        .any(|option| Some(option) == first)
            }
        }
    }
}
