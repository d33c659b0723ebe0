//! Mount tables: `/proc/PID/mountinfo`, all of it, as bytes.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// `major:minor` of a block device, or of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DeviceNumber {
    /// The driver's part.
    pub major: u32,
    /// The device's part.
    pub minor: u32,
}

impl DeviceNumber {
    /// Takes apart what `stat` reports.
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self {
            major: libc::major(raw),
            minor: libc::minor(raw),
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One line of a mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Mount {
    /// Number of this mount; no other mount of this host has it, in any
    /// namespace.
    pub id: u64,
    /// Number of the mount it is mounted on.
    pub parent: u64,
    /// The superblock. Equal for all mounts of one file system; on Btrfs it is
    /// neither the block device nor what `stat` says of a file.
    pub superblock: DeviceNumber,
    /// What of the file system is shown: the path of a subvolume or of the
    /// source of a bind mount.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub root: PathBuf,
    /// Where, seen from the root directory of the process.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub mount_point: PathBuf,
    /// Options of this mount.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub options: OsString,
    /// Propagation, such as `shared:1`.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub propagation: OsString,
    /// Type of the file system.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub fs_type: OsString,
    /// The device, for file systems that have one.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub source: OsString,
    /// Options of the superblock, which all its mounts share.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub super_options: OsString,
}

impl Mount {
    /// Can nothing be written through this mount? True if it or its superblock
    /// is read-only. Btrfs makes its superblock so after an error.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        has_option(&self.options, b"ro") || self.is_superblock_read_only()
    }

    /// Is the superblock read-only?
    #[must_use]
    pub fn is_superblock_read_only(&self) -> bool {
        has_option(&self.super_options, b"ro")
    }

    /// The block device this mount's source is a path of, if it is one here.
    #[must_use]
    pub fn source_device(&self) -> Option<DeviceNumber> {
        if self.source.as_bytes().first() != Some(&b'/') {
            return None;
        }
        block_device(Path::new(&self.source))
    }
}

/// The number of the block device at `path`; `None` if it is not one.
pub(crate) fn block_device(path: &Path) -> Option<DeviceNumber> {
    let stat = fs::metadata(path).ok()?;
    (stat.mode() & libc::S_IFMT == libc::S_IFBLK).then(|| DeviceNumber::from_raw(stat.rdev()))
}

fn has_option(options: &OsStr, wanted: &[u8]) -> bool {
    options
        .as_bytes()
        .split(|&b| b == b',')
        .any(|option| option == wanted)
}

/// The mount table of the calling process.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if /proc is not mounted, [`ErrorKind::Malformed`] if
/// a line does not have the documented form.
///
/// # Source
///
/// proc(5), `/proc/pid/mountinfo`.
pub fn table() -> Result<Vec<Mount>> {
    read(Path::new("/proc/self/mountinfo"))
}

/// The mount table of another process: of its namespace, from its root.
///
/// # Errors
///
/// As [`table`]; [`ErrorKind::NotFound`] if there is no such process,
/// [`ErrorKind::Permission`] if the caller may not look at it.
pub fn table_of(pid: u32) -> Result<Vec<Mount>> {
    read(&PathBuf::from(format!("/proc/{pid}/mountinfo")))
}

fn read(path: &Path) -> Result<Vec<Mount>> {
    const OP: &str = "read mount table";
    let bytes = fs::read(path).map_err(Error::path(OP, path))?;
    parse(&bytes).map_err(|line| {
        let text = format!(
            "not in the documented form: {}",
            String::from_utf8_lossy(line)
        );
        Error::message(ErrorKind::Malformed, OP, path.display().to_string(), text)
    })
}

/// The mount table of one mount namespace.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NamespaceTable {
    /// Inode number of the namespace, as `/proc/PID/ns/mnt` shows it.
    pub namespace: u64,
    /// A process in it.
    pub pid: u32,
    /// True for the namespace of the calling process.
    pub own: bool,
    /// Its mounts, as that process sees them.
    pub mounts: Vec<Mount>,
}

/// The mount tables of all mount namespaces that have a process the caller may
/// look at; the caller's own is the first.
///
/// Namespaces that are kept alive by a descriptor or a bind mount only cannot be
/// seen. Processes that end meanwhile are left out.
///
/// # Errors
///
/// As [`table`].
pub fn all_namespaces() -> Result<Vec<NamespaceTable>> {
    let own = Path::new("/proc/self/ns/mnt");
    let own_namespace = fs::metadata(own)
        .map_err(Error::path("read mount table", own))?
        .ino();
    let mut tables = vec![NamespaceTable {
        namespace: own_namespace,
        pid: std::process::id(),
        own: true,
        mounts: table()?,
    }];
    let mut seen = HashSet::from([own_namespace]);
    for pid in crate::process::all()? {
        // Reading a link's target does not need the right to follow it, but
        // looking at what it leads to does: either way it cannot be looked at.
        let Ok(namespace) = fs::metadata(format!("/proc/{pid}/ns/mnt")) else {
            continue;
        };
        let namespace = namespace.ino();
        if seen.contains(&namespace) {
            continue;
        }
        match table_of(pid) {
            Ok(mounts) if !mounts.is_empty() => {
                seen.insert(namespace);
                tables.push(NamespaceTable {
                    namespace,
                    pid,
                    own: false,
                    mounts,
                });
            }
            Err(error) if error.kind() == ErrorKind::Malformed => return Err(error),
            // Ended, about to end, or not ours to look at.
            _ => {}
        }
    }
    Ok(tables)
}

/// Parses a whole table; the error is the first line that is not of the form.
fn parse(table: &[u8]) -> Result<Vec<Mount>, &[u8]> {
    table
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| parse_line(line).ok_or(line))
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let superblock = DeviceNumber::parse(fields.next()?)?;
    let root = unescape(fields.next()?).into();
    let mount_point = unescape(fields.next()?).into();
    let options = unescape(fields.next()?);
    // Any number of optional fields, ended by a hyphen.
    let mut propagation: Vec<&[u8]> = Vec::new();
    loop {
        match fields.next()? {
            b"-" => break,
            field => propagation.push(field),
        }
    }
    Some(Mount {
        id,
        parent,
        superblock,
        root,
        mount_point,
        options,
        propagation: OsString::from_vec(propagation.join(&b' ')),
        fs_type: unescape(fields.next()?),
        source: unescape(fields.next()?),
        super_options: unescape(fields.next()?),
    })
}

/// Undoes the kernel's octal escapes (`\040` for a blank).
pub(crate) fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|d| {
            // Three octal digits of at most 255.
            d[0] <= b'3' && d.iter().all(|b| (b'0'..=b'7').contains(b))
        });
        if let (b'\\', Some(&[a, b, c])) = (first, digits) {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = &tail[3..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const LINE: &[u8] = b"36 35 0:41 /sub\\040vol /mnt/a\\134b\\011c ro,noatime shared:7 master:2 \
        - btrfs /dev/drbd0 rw,space_cache=v2,subvolid=256,subvol=/sub\\040vol";

    #[test]
    fn a_line() {
        let mount = &parse(LINE).unwrap()[0];
        assert_eq!((mount.id, mount.parent), (36, 35));
        assert_eq!(
            mount.superblock,
            DeviceNumber {
                major: 0,
                minor: 41
            }
        );
        assert_eq!(mount.root, Path::new("/sub vol"));
        assert_eq!(mount.mount_point, Path::new("/mnt/a\\b\tc"));
        assert_eq!(mount.propagation, "shared:7 master:2");
        assert_eq!(mount.fs_type, "btrfs");
        assert_eq!(mount.source, "/dev/drbd0");
        assert!(mount.is_read_only() && !mount.is_superblock_read_only());
    }

    #[test]
    fn bytes_are_kept() {
        let line = b"1 0 8:1 / /caf\xe9 rw - ext4 none rw,errors=remount-ro\n";
        let mount = &parse(line).unwrap()[0];
        assert_eq!(mount.mount_point.as_os_str().as_bytes(), b"/caf\xe9");
        assert!(!mount.is_read_only(), "errors=remount-ro is not ro");
        assert_eq!(mount.propagation, "");
        assert_eq!(mount.source_device(), None);
    }

    #[test]
    fn escapes() {
        for (field, expected) in [
            (&b"a\\040b"[..], &b"a b"[..]),
            (b"\\012", b"\n"),
            (b"\\04", b"\\04"),
            (b"\\08x", b"\\08x"),
            (b"\\777", b"\\777"),
            (b"\\", b"\\"),
            (b"\\377", b"\xff"),
        ] {
            assert_eq!(unescape(field).as_bytes(), expected);
        }
    }

    #[test]
    fn cut_lines_are_refused() {
        let last = LINE.iter().rposition(|&b| b == b' ').unwrap();
        for cut in 1..last {
            assert!(parse(&LINE[..cut]).is_err(), "accepted {cut} bytes");
        }
    }

    #[test]
    fn this_host() {
        assert!(
            table()
                .unwrap()
                .iter()
                .any(|mount| mount.mount_point == Path::new("/"))
        );
        let all = all_namespaces().unwrap();
        assert!(all[0].own && all[1..].iter().all(|table| !table.own));
        assert_eq!(table_of(u32::MAX).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
