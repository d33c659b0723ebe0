//! Where a subvolume is mounted, in every mount namespace that can be seen.
//!
//! The kernel deletes a subvolume that is mounted elsewhere without a word, and
//! detaches bind mounts on it. So [`delete`](crate::delete) looks first.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::MountedAt;

/// One line of `/proc/PID/mountinfo`, as far as it is needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) mount_id: u64,
    /// `major:minor` of the superblock: the same for all mounts of one file
    /// system, unlike `st_dev`, of which each subvolume has its own.
    device: Vec<u8>,
    /// Path of the mount's root below the top level.
    pub(crate) root: PathBuf,
    pub(crate) mount_point: PathBuf,
}

/// Parses a mount table; lines that do not have the documented form are left
/// out, as they cannot be compared with anything.
pub(crate) fn parse(table: &[u8]) -> Vec<Row> {
    table
        .split(|&b| b == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Row> {
    let mut fields = line.split(|&b| b == b' ');
    let mount_id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let _parent = fields.next()?;
    let device = fields.next()?.to_vec();
    let root = fields.next()?;
    let mount_point = fields.next()?;
    // The root of a mount whose directory is gone is not the path of anything.
    if root.ends_with(b"//deleted") {
        return None;
    }
    Some(Row {
        mount_id,
        device,
        root: unescape(root),
        mount_point: unescape(mount_point),
    })
}

/// Undoes the kernel's octal escapes of blank, tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let (b'\\', Some(&[a, b, c])) = (first, digits) {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = &tail[3..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    PathBuf::from(OsStr::from_bytes(&out))
}

/// A mount table and a process that sees it.
struct Table {
    pid: u32,
    own: bool,
    rows: Vec<Row>,
}

/// One table for each mount namespace; the caller's comes first.
///
/// Processes that end meanwhile, or that may not be looked at, are left out.
fn tables() -> io::Result<Vec<Table>> {
    let rows = parse(&fs::read("/proc/self/mountinfo")?);
    let mut tables = vec![Table {
        pid: std::process::id(),
        own: true,
        rows,
    }];
    let mut seen = HashSet::from([fs::read_link("/proc/self/ns/mnt")?]);
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(namespace) = fs::read_link(entry.path().join("ns/mnt")) else {
            continue;
        };
        if seen.contains(&namespace) {
            continue;
        }
        if let Ok(table) = fs::read(entry.path().join("mountinfo")) {
            seen.insert(namespace);
            tables.push(Table {
                pid,
                own: false,
                rows: parse(&table),
            });
        }
    }
    Ok(tables)
}

/// The id of the mount that `fd` was opened through.
fn mount_id(fd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()))
}

/// The path of `fd` below the top level, by the mount it was opened through.
/// For callers that may not search trees. `None`: it cannot be told.
pub(crate) fn path_below_top_level(fd: BorrowedFd<'_>) -> io::Result<Option<PathBuf>> {
    let Some(id) = mount_id(fd)? else {
        return Ok(None);
    };
    let table = parse(&fs::read("/proc/self/mountinfo")?);
    let Some(row) = table.iter().find(|row| row.mount_id == id) else {
        return Ok(None);
    };
    let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(path
        .strip_prefix(&row.mount_point)
        .ok()
        .map(|rest| row.root.join(rest)))
}

/// Mounts of the file system of `fd` that show `path` (below the top level) or
/// a directory inside it. `None`: the mount of `fd` is in no table, so the file
/// system cannot be recognised in them.
pub(crate) fn of_subvolume(fd: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Vec<MountedAt>>> {
    let Some(id) = mount_id(fd)? else {
        return Ok(None);
    };
    let tables = tables()?;
    let mut rows = tables.iter().flat_map(|table| &table.rows);
    let Some(device) = rows
        .find(|row| row.mount_id == id)
        .map(|row| row.device.clone())
    else {
        return Ok(None);
    };
    let path = Path::new("/").join(path);
    let mut found = Vec::new();
    for table in &tables {
        for row in table.rows.iter().filter(|row| row.device == device) {
            if row.root.starts_with(&path) {
                found.push(MountedAt {
                    mount_point: row.mount_point.clone(),
                    pid: table.pid,
                    own_namespace: table.own,
                });
            }
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn rows() {
        let table =
            b"36 35 0:41 /sub\\040vol /mnt/a\\134b rw,noatime shared:7 - btrfs /dev/drbd0 rw\n\
            37 35 0:41 /gone//deleted /mnt/c rw - btrfs /dev/drbd0 rw\n\
            short line\n\
            38 35 8:1 / /x\\04 rw - ext4 /dev/sda1 rw\n";
        let rows = parse(table);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].mount_id, 36);
        assert_eq!(rows[0].device, b"0:41");
        assert_eq!(rows[0].root, Path::new("/sub vol"));
        assert_eq!(rows[0].mount_point, Path::new("/mnt/a\\b"));
        assert_eq!(rows[1].mount_point, Path::new("/x\\04"));
    }

    #[test]
    fn every_cut_is_survived() {
        let line = b"36 35 0:41 /s\\040v /mnt rw - btrfs /dev/drbd0 rw";
        for cut in 0..line.len() {
            assert!(parse(&line[..cut]).len() <= 1);
        }
    }
}
