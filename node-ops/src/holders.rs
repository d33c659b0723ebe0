//! Who keeps a mount or a block device in use.
//!
//! Processes are matched by the number of the mount they came through, not by
//! `st_dev`: on Btrfs each subvolume has its own. Mounts are looked for in every
//! mount namespace that has a process. Nothing here opens a file on the file
//! systems it asks about, so a look at a dead one does not hang.
//!
//! What cannot be seen: descriptors in flight over a socket, mounts of
//! namespaces without a process, threads with a working directory of their own
//! (`unshare(CLONE_FS)`), and what the kernel itself holds, such as an NFS
//! export or a running send.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::error::{Error, ErrorKind, Result};
use crate::mounts::{
    DeviceNumber, Mount, NamespaceTable, all_namespaces, block_device, mount_id, unescape,
};
use crate::process;

/// Someone who keeps a mount, a file system or a block device in use.
///
/// `Display` names it in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Holder {
    /// A process.
    Process(ProcessHolder),
    /// A mount.
    Mount(MountHolder),
    /// A loop device on a file of this file system.
    Loop {
        /// The loop device.
        #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
        device: PathBuf,
        /// The file behind it.
        #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
        backing_file: PathBuf,
    },
    /// A swap file on this file system, or swapping to this device.
    Swap {
        /// The file or device.
        #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
        path: PathBuf,
    },
    /// A block device on top of this one: device mapper, md.
    StackedDevice {
        /// Its name in /sys/block.
        #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
        name: OsString,
    },
}

/// A process that holds something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ProcessHolder {
    /// Its id.
    pub pid: u32,
    /// Its name, at most 15 bytes.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub comm: OsString,
    /// If it is the monitor of an LXC container: which.
    pub lxc_monitor: Option<LxcMonitor>,
    /// What it holds; not empty.
    pub uses: Vec<Use>,
}

/// The process of liblxc that keeps a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LxcMonitor {
    /// The lxcpath of the container.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub lxcpath: PathBuf,
    /// Its name.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub container: OsString,
}

/// One thing that a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Use {
    /// By what.
    pub by: By,
    /// Which file, as the process sees it.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub path: PathBuf,
    /// True if it came through the mount that was asked about, and so keeps
    /// that from being unmounted; false if it came through another mount of the
    /// same file system, or holds the block device itself.
    pub through_this_mount: bool,
}

/// How a process holds a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum By {
    /// Its working directory.
    WorkingDirectory,
    /// Its root directory.
    RootDirectory,
    /// The program it runs.
    Executable,
    /// An open descriptor.
    Descriptor(u32),
    /// A file mapped into its memory.
    Mapping,
    /// An open descriptor of the block device itself.
    Device(u32),
}

/// A mount that holds something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MountHolder {
    /// How it is related.
    pub relation: Relation,
    /// The mount's line in its mount table.
    pub mount: Mount,
    /// A process in the mount namespace that has it.
    pub pid: u32,
    /// True if that is the namespace of the calling process.
    pub own_namespace: bool,
}

/// How a mount is related to what was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Relation {
    /// It is mounted on the mount in question, which therefore cannot go.
    OnTop,
    /// It is another mount of the same file system: a bind mount, another
    /// subvolume, or a copy in another namespace. The mount in question can go,
    /// but the file system and its device stay in use.
    SameFilesystem,
    /// An overlay with a layer in it.
    OverlayLayer,
}

impl Holder {
    /// Does it keep the mount from being unmounted? Others only keep the file
    /// system, and with it the device, in use after that.
    #[must_use]
    pub fn blocks_unmount(&self) -> bool {
        match self {
            Self::Process(process) => process.uses.iter().any(|item| item.through_this_mount),
            Self::Mount(mount) => mount.relation != Relation::SameFilesystem,
            Self::Loop { .. } | Self::Swap { .. } => true,
            Self::StackedDevice { .. } => false,
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkingDirectory => f.write_str("working directory"),
            Self::RootDirectory => f.write_str("root directory"),
            Self::Executable => f.write_str("program"),
            Self::Descriptor(number) => write!(f, "open file {number}"),
            Self::Mapping => f.write_str("mapped file"),
            Self::Device(number) => write!(f, "open device {number}"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(ProcessHolder {
                pid,
                comm,
                lxc_monitor,
                uses,
            }) => {
                write!(f, "process {pid} ({}", comm.display())?;
                if let Some(LxcMonitor { lxcpath, container }) = lxc_monitor {
                    let (name, path) = (container.display(), lxcpath.display());
                    write!(f, ", monitor of LXC container {name} in {path}")?;
                }
                f.write_str(")")?;
                const SHOWN: usize = 3;
                for (i, item) in uses.iter().take(SHOWN).enumerate() {
                    let comma = if i == 0 { ":" } else { "," };
                    write!(f, "{comma} {} {}", item.by, item.path.display())?;
                }
                if uses.len() > SHOWN {
                    write!(f, " and {} more", uses.len() - SHOWN)?;
                }
                Ok(())
            }
            Self::Mount(MountHolder {
                relation,
                mount,
                pid,
                own_namespace,
            }) => {
                let point = mount.mount_point.display();
                match relation {
                    Relation::OnTop => write!(f, "mount on top at {point}")?,
                    Relation::SameFilesystem => {
                        write!(f, "mount of {} at {point}", mount.root.display())?;
                    }
                    Relation::OverlayLayer => write!(f, "overlay at {point}")?,
                }
                if !own_namespace {
                    write!(f, " in the mount namespace of process {pid}")?;
                }
                Ok(())
            }
            Self::Loop {
                device,
                backing_file,
            } => {
                write!(
                    f,
                    "loop device {} on {}",
                    device.display(),
                    backing_file.display()
                )
            }
            Self::Swap { path } => write!(f, "swap on {}", path.display()),
            Self::StackedDevice { name } => write!(f, "block device {} on top", name.display()),
        }
    }
}

/// Everyone who keeps the file system mounted at `path` in use, the mount itself
/// left out. [`Holder::blocks_unmount`] tells those who keep this mount.
///
/// The caller is listed too if it holds something. Empty if nobody does.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such path;
/// [`ErrorKind::InvalidArgument`] if nothing is mounted there.
///
/// # Privileges
///
/// `CAP_SYS_PTRACE` to look at the processes of other users, which are left out
/// otherwise.
pub fn of_mount(path: &Path) -> Result<Vec<Holder>> {
    const OP: &str = "find holders of";
    let path = fs::canonicalize(path).map_err(Error::path(OP, path))?;
    let tables = all_namespaces()?;
    // The last one is on top.
    let own = tables.iter().find(|table| table.own);
    let rows = own.map_or(&[][..], |table| &table.mounts);
    let Some(target) = rows
        .iter()
        .rfind(|mount| mount.mount_point == path)
        .cloned()
    else {
        let text = "nothing is mounted there";
        let shown = path.display().to_string();
        return Err(Error::message(ErrorKind::InvalidArgument, OP, shown, text));
    };
    let same = |mount: &Mount| mount.superblock == target.superblock;
    let mut found = mounts(&tables, &same, Some(&target));
    let sought = Sought {
        mounts: ids(&tables, &same),
        superblocks: HashSet::from([target.superblock]),
        this_mount: Some(target.id),
        device: None,
    };
    found.extend(sought.processes()?);
    let points = mount_points(&tables, &same);
    found.extend(loops(&points, None)?);
    found.extend(swaps(&points, None)?);
    Ok(found)
}

/// Everyone who keeps a block device in use: all mounts of the file system on
/// it, in every mount namespace, and who holds those; processes that have the
/// device itself open; devices and swap on top of it.
///
/// # Errors
///
/// [`ErrorKind::NotFound`], [`ErrorKind::NotBlockDevice`].
///
/// # Privileges
///
/// As [`of_mount`].
pub fn of_device(device: &Path) -> Result<Vec<Holder>> {
    const OP: &str = "find holders of";
    fs::metadata(device).map_err(Error::path(OP, device))?;
    let Some(number) = block_device(device) else {
        let text = "not a block device";
        let shown = device.display().to_string();
        return Err(Error::message(ErrorKind::NotBlockDevice, OP, shown, text));
    };
    let tables = all_namespaces()?;
    // Btrfs numbers its superblocks by itself and names the device; others are
    // numbered like it. In another namespace the name may not lead to it, so a
    // superblock found by name in one is taken as found in all.
    let rows = || tables.iter().flat_map(|table| &table.mounts);
    let superblocks: HashSet<DeviceNumber> = rows()
        .filter(|row| row.superblock == number || row.source_device() == Some(number))
        .map(|row| row.superblock)
        .collect();
    let same = |mount: &Mount| superblocks.contains(&mount.superblock);
    let mut found = mounts(&tables, &same, None);
    let sought = Sought {
        mounts: ids(&tables, &same),
        superblocks: superblocks.clone(),
        this_mount: None,
        device: Some(number),
    };
    found.extend(sought.processes()?);
    let points = mount_points(&tables, &same);
    found.extend(loops(&points, Some(number))?);
    found.extend(swaps(&points, Some(number))?);
    found.extend(stacked(number)?);
    Ok(found)
}

fn ids(tables: &[NamespaceTable], same: &dyn Fn(&Mount) -> bool) -> HashSet<u64> {
    let rows = tables.iter().flat_map(|table| &table.mounts);
    rows.filter(|mount| same(mount))
        .map(|mount| mount.id)
        .collect()
}

/// Where the caller sees the file system.
fn mount_points(tables: &[NamespaceTable], same: &dyn Fn(&Mount) -> bool) -> Vec<PathBuf> {
    let own = tables
        .iter()
        .filter(|table| table.own)
        .flat_map(|table| &table.mounts);
    own.filter(|mount| same(mount))
        .map(|mount| mount.mount_point.clone())
        .collect()
}

fn mounts(
    tables: &[NamespaceTable],
    same: &dyn Fn(&Mount) -> bool,
    target: Option<&Mount>,
) -> Vec<Holder> {
    let points = mount_points(tables, same);
    let mut found = Vec::new();
    for table in tables {
        for mount in &table.mounts {
            let relation = if target.is_some_and(|target| target.id == mount.id) {
                continue;
            } else if target.is_some_and(|target| target.id == mount.parent) {
                Relation::OnTop
            } else if same(mount) {
                Relation::SameFilesystem
            } else if table.own && has_layer_in(mount, &points) {
                Relation::OverlayLayer
            } else {
                continue;
            };
            found.push(Holder::Mount(MountHolder {
                relation,
                mount: mount.clone(),
                pid: table.pid,
                own_namespace: table.own,
            }));
        }
    }
    found
}

/// Is it an overlay with a layer below one of these paths? By the text of its
/// options, which says how the layers were named when it was mounted.
fn has_layer_in(mount: &Mount, points: &[PathBuf]) -> bool {
    mount.fs_type == "overlay"
        && mount
            .super_options
            .as_bytes()
            .split(|&b| b == b',')
            .any(|option| {
                let Some(equals) = option.iter().position(|&b| b == b'=') else {
                    return false;
                };
                let (key, dirs) = (&option[..equals], &option[equals + 1..]);
                key.ends_with(b"dir")
                    && dirs.split(|&b| b == b':').any(|dir| {
                        let dir = Path::new(OsStr::from_bytes(dir));
                        points.iter().any(|point| dir.starts_with(point))
                    })
            })
}

/// What to look for in processes.
struct Sought {
    mounts: HashSet<u64>,
    superblocks: HashSet<DeviceNumber>,
    this_mount: Option<u64>,
    device: Option<DeviceNumber>,
}

impl Sought {
    fn processes(&self) -> Result<Vec<Holder>> {
        let mut found = Vec::new();
        for pid in process::all()? {
            let uses = self.uses_of(pid);
            if uses.is_empty() {
                continue;
            }
            let dir = PathBuf::from(format!("/proc/{pid}"));
            // One that has ended since holds nothing any more.
            let Ok(mut comm) = fs::read(dir.join("comm")) else {
                continue;
            };
            comm.truncate(comm.trim_ascii_end().len());
            let cmdline = fs::read(dir.join("cmdline")).unwrap_or_default();
            found.push(Holder::Process(ProcessHolder {
                pid,
                comm: OsString::from_vec(comm),
                lxc_monitor: lxc_monitor(&cmdline),
                uses,
            }));
        }
        Ok(found)
    }

    /// A process that ends meanwhile, or may not be looked at, holds nothing.
    fn uses_of(&self, pid: u32) -> Vec<Use> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let mut uses = Vec::new();
        for (name, by) in [
            ("cwd", By::WorkingDirectory),
            ("root", By::RootDirectory),
            ("exe", By::Executable),
        ] {
            self.note(
                &mut uses,
                by,
                &dir.join(name),
                mount_of_link(&dir.join(name)),
            );
        }
        for entry in fs::read_dir(dir.join("fd")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let link = entry.path();
            let info = fs::read_to_string(dir.join("fdinfo").join(&name)).unwrap_or_default();
            self.note(
                &mut uses,
                By::Descriptor(number),
                &link,
                fdinfo_mount_id(&info),
            );
            if let Some(device) = self.device
                && is_device(&link, device)
            {
                let path = fs::read_link(&link).unwrap_or_default();
                uses.push(Use {
                    by: By::Device(number),
                    path,
                    through_this_mount: false,
                });
            }
        }
        self.mappings(&dir, &mut uses);
        uses
    }

    fn note(&self, uses: &mut Vec<Use>, by: By, link: &Path, mount: Option<u64>) {
        let Some(mount) = mount.filter(|id| self.mounts.contains(id)) else {
            return;
        };
        let path = fs::read_link(link).unwrap_or_default();
        uses.push(Use {
            by,
            path,
            through_this_mount: self.this_mount == Some(mount),
        });
    }

    /// Mapped files, each once. `maps` names the superblock, so only what is on
    /// the right one is looked at more closely.
    fn mappings(&self, dir: &Path, uses: &mut Vec<Use>) {
        let maps = fs::read(dir.join("maps")).unwrap_or_default();
        let mut seen = HashSet::new();
        for line in maps.split(|&b| b == b'\n') {
            let Some(map) = parse_map(line) else { continue };
            if !self.superblocks.contains(&map.superblock) || !seen.insert(map.path.clone()) {
                continue;
            }
            let link = dir.join("map_files").join(OsStr::from_bytes(map.range));
            // Without the right to look closer, the superblock is known.
            let mount = mount_of_link(&link);
            let this = mount.is_some() && mount == self.this_mount;
            let program = uses.iter().any(|item| {
                item.by == By::Executable && item.path.as_os_str().as_bytes() == map.path
            });
            if !program {
                let path = PathBuf::from(OsString::from_vec(map.path));
                uses.push(Use {
                    by: By::Mapping,
                    path,
                    through_this_mount: this,
                });
            }
        }
    }
}

/// The mount that a link of /proc leads through. Opens it without touching the
/// file system behind it.
fn mount_of_link(link: &Path) -> Option<u64> {
    let fd = open(link, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    mount_id(fd.as_fd()).ok()?
}

/// Is it an open descriptor of this block device?
fn is_device(link: &Path, device: DeviceNumber) -> bool {
    // Only names in /dev are followed: asking a file of a dead file system for
    // its kind would hang.
    fs::read_link(link).is_ok_and(|path| path.starts_with("/dev"))
        && fs::metadata(link).is_ok_and(|stat| {
            stat.mode() & libc::S_IFMT == libc::S_IFBLK
                && DeviceNumber::from_raw(stat.rdev()) == device
        })
}

/// `mnt_id` of `/proc/PID/fdinfo/N`.
pub(crate) fn fdinfo_mount_id(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// A line of `/proc/PID/maps` that is about a file.
struct Map<'a> {
    range: &'a [u8],
    superblock: DeviceNumber,
    path: Vec<u8>,
}

fn parse_map(line: &[u8]) -> Option<Map<'_>> {
    let mut fields = line.split(|&b| b == b' ').filter(|field| !field.is_empty());
    let range = fields.next()?;
    let (_permissions, _offset) = (fields.next()?, fields.next()?);
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let superblock = DeviceNumber {
        major: u32::from_str_radix(major, 16).ok()?,
        minor: u32::from_str_radix(minor, 16).ok()?,
    };
    let _inode = fields.next()?;
    // The path may contain blanks, and begins with a slash.
    let at = line.iter().position(|&b| b == b'/')?;
    Some(Map {
        range,
        superblock,
        path: line[at..].to_vec(),
    })
}

/// Recognises the title that liblxc gives its monitor:
/// `[lxc monitor] LXCPATH NAME`.
fn lxc_monitor(cmdline: &[u8]) -> Option<LxcMonitor> {
    let title = cmdline
        .split(|&b| b == 0)
        .next()?
        .strip_prefix(b"[lxc monitor] ")?;
    // A container's name has no blanks.
    let blank = title.iter().rposition(|&b| b == b' ')?;
    Some(LxcMonitor {
        lxcpath: PathBuf::from(OsStr::from_bytes(&title[..blank])),
        container: OsStr::from_bytes(&title[blank + 1..]).to_owned(),
    })
}

/// Loop devices on files below `points` or on `device`.
fn loops(points: &[PathBuf], device: Option<DeviceNumber>) -> Result<Vec<Holder>> {
    let block = Path::new("/sys/block");
    let mut found = Vec::new();
    let entries = match fs::read_dir(block) {
        Ok(entries) => entries,
        // A kernel without block devices, or no sysfs: no loop devices.
        Err(_) => return Ok(found),
    };
    for entry in entries {
        let entry = entry.map_err(Error::path("list", block))?;
        let Ok(mut file) = fs::read(entry.path().join("loop/backing_file")) else {
            continue;
        };
        if file.last() == Some(&b'\n') {
            file.pop();
        }
        let file = PathBuf::from(OsString::from_vec(file));
        let on_device = || device.is_some() && block_device(&file) == device;
        if points.iter().any(|point| file.starts_with(point)) || on_device() {
            let device = Path::new("/dev").join(entry.file_name());
            found.push(Holder::Loop {
                device,
                backing_file: file,
            });
        }
    }
    Ok(found)
}

/// Swap files below `points`, and swap on `device`.
fn swaps(points: &[PathBuf], device: Option<DeviceNumber>) -> Result<Vec<Holder>> {
    let table = Path::new("/proc/swaps");
    let bytes = match fs::read(table) {
        Ok(bytes) => bytes,
        // A kernel without swap.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::path("read", table)(error)),
    };
    let paths = bytes.split(|&b| b == b'\n').skip(1).filter_map(|line| {
        let end = line.iter().position(|b| b.is_ascii_whitespace())?;
        Some(PathBuf::from(unescape(&line[..end])))
    });
    let ours = |path: &PathBuf| {
        points.iter().any(|point| path.starts_with(point))
            || (device.is_some() && block_device(path) == device)
    };
    Ok(paths
        .filter(ours)
        .map(|path| Holder::Swap { path })
        .collect())
}

/// Block devices that the kernel stacked on `device`.
fn stacked(device: DeviceNumber) -> Result<Vec<Holder>> {
    let dir = PathBuf::from(format!("/sys/dev/block/{device}/holders"));
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).into_iter().flatten() {
        let name = entry.map_err(Error::path("list", &dir))?.file_name();
        found.push(Holder::StackedDevice { name });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn monitors_of_containers() {
        let found = lxc_monitor(b"[lxc monitor] /srv/store 1/lxc web1\0\0\0").unwrap();
        assert_eq!(found.lxcpath, Path::new("/srv/store 1/lxc"));
        assert_eq!(found.container, "web1");
        assert_eq!(lxc_monitor(b"lxc-start\0-n\0web1\0"), None);
        assert_eq!(lxc_monitor(b""), None);
    }

    #[test]
    fn maps() {
        let line = b"7f00-7f01 r-xp 00001000 00:2a 257                 /srv/a b/lib.so";
        let map = parse_map(line).unwrap();
        assert_eq!(map.range, b"7f00-7f01");
        assert_eq!(
            map.superblock,
            DeviceNumber {
                major: 0,
                minor: 42
            }
        );
        assert_eq!(map.path, b"/srv/a b/lib.so");
        assert!(parse_map(b"7f00-7f01 rw-p 00000000 00:00 0 [heap]").is_none());
        assert!(parse_map(b"7f00-7f01 rw-p 00000000 00:00 0").is_none());
        assert!(parse_map(b"").is_none());
    }

    #[test]
    fn descriptors() {
        assert_eq!(
            fdinfo_mount_id("pos:\t0\nflags:\t02\nmnt_id:\t29\nino:\t3\n"),
            Some(29)
        );
        assert_eq!(fdinfo_mount_id("pos:\t0\n"), None);
    }

    #[test]
    fn one_line_each() {
        let holder = Holder::Process(ProcessHolder {
            pid: 42,
            comm: "sleep".into(),
            lxc_monitor: None,
            uses: vec![
                Use {
                    by: By::WorkingDirectory,
                    path: "/srv/store1".into(),
                    through_this_mount: true,
                },
                Use {
                    by: By::Descriptor(3),
                    path: "/srv/store1/x".into(),
                    through_this_mount: true,
                },
            ],
        });
        assert_eq!(
            holder.to_string(),
            "process 42 (sleep): working directory /srv/store1, open file 3 /srv/store1/x"
        );
        assert!(holder.blocks_unmount());
    }

    #[test]
    fn this_process_holds_the_root() {
        let found = of_mount(Path::new("/")).unwrap();
        let me = std::process::id();
        assert!(
            found
                .iter()
                .any(|holder| matches!(holder, Holder::Process(p) if p.pid == me
                && p.uses.iter().any(|u| u.by == By::RootDirectory && u.through_this_mount))),
            "{found:?}"
        );
        let error = of_mount(Path::new("/proc/self")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = of_device(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotBlockDevice);
    }
}
