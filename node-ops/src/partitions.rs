//! A disk with one partition: an `msdos` table, as small clusters have it.
//!
//! [`create_single`] destroys what the disk holds: asking whether that may be is
//! the caller's business, [`disk`] and [`crate::holders::of_device`] are for that.
//!
//! The trap: what an earlier use left behind the new partition's edges (a file
//! system's first block, DRBD metadata at the end) would be found again by the
//! next one who looks. So both ends of the disk are overwritten with zeros.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mbrman::{BOOT_INACTIVE, CHS, MBR, MBRPartitionEntry};
use nix::errno::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::{holders, sys};

const OP: &str = "partition";

/// Where the partition begins, and what its end is aligned to.
const ALIGNMENT: u64 = 1 << 20;
/// What is overwritten with zeros at either end.
const EDGE: u64 = 4 << 20;
/// The type of a Linux partition.
const LINUX: u8 = 0x83;

/// A whole disk as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disk {
    /// Its device node.
    pub device: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes in a logical sector.
    pub sector: u32,
    /// The kernel takes no writes for it.
    pub read_only: bool,
    /// The partitions the kernel has read from it, in order.
    pub partitions: Vec<Partition>,
}

/// A partition as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partition {
    /// Its device node.
    pub device: PathBuf,
    /// Its number.
    pub number: u32,
    /// Where it begins on the disk, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// Tells which disk a partition's name belongs to, and its number: `/dev/sdb1`
/// is the first of `/dev/sdb`, `/dev/nvme0n1p2` the second of `/dev/nvme0n1`.
///
/// Names only; neither has to exist. `None` for what is no partition's name.
#[must_use]
pub fn split_name(partition: &Path) -> Option<(PathBuf, u32)> {
    let name = partition.to_str()?;
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = name[stem.len()..].parse().ok().filter(|n| *n > 0)?;
    let short = stem
        .strip_suffix('p')
        .filter(|s| s.ends_with(|c: char| c.is_ascii_digit()));
    let disk = match short {
        Some(disk) => disk,
        // `nvme0n1` is a disk: where a number comes before the letter, a partition has a `p`.
        None => {
            let mut last = stem.chars().rev();
            let letter = last.next().is_some_and(|c| c.is_ascii_alphabetic());
            if !letter || last.next().is_some_and(|c| c.is_ascii_digit()) {
                return None;
            }
            stem
        }
    };
    (!disk.ends_with('/')).then(|| (disk.into(), number))
}

/// Looks at a whole disk.
///
/// # Errors
///
/// [`ErrorKind::NotFound`], [`ErrorKind::NotBlockDevice`] (also for a partition),
/// [`ErrorKind::Malformed`] for what /sys should not say.
pub fn disk(device: &Path) -> Result<Disk> {
    const LOOK: &str = "look at disk";
    let shown = || device.display().to_string();
    // /sys knows the kernel's name only, and /dev has others, such as those of udev's rules.
    let real = fs::canonicalize(device).map_err(Error::path(LOOK, device))?;
    let file_type = fs::metadata(&real)
        .map_err(Error::path(LOOK, device))?
        .file_type();
    let name = real.file_name().unwrap_or_default();
    let dir = Path::new("/sys/class/block").join(name);
    if !file_type.is_block_device() || dir.join("partition").exists() {
        let text = "not a whole block device";
        return Err(Error::message(
            ErrorKind::NotBlockDevice,
            LOOK,
            shown(),
            text,
        ));
    }
    let number = |path: PathBuf| -> Result<u64> {
        let text = fs::read_to_string(&path).map_err(Error::path(LOOK, &path))?;
        text.trim().parse().map_err(|_| {
            Error::message(
                ErrorKind::Malformed,
                LOOK,
                path.display().to_string(),
                "not a number",
            )
        })
    };
    let mut partitions = Vec::new();
    for entry in fs::read_dir(&dir).map_err(Error::path(LOOK, &dir))? {
        let path = entry.map_err(Error::path(LOOK, &dir))?.path();
        if !path.join("partition").exists() {
            continue;
        }
        partitions.push(Partition {
            device: Path::new("/dev").join(path.file_name().unwrap_or_default()),
            number: u32::try_from(number(path.join("partition"))?).unwrap_or(u32::MAX),
            start: number(path.join("start"))?.saturating_mul(512),
            size: number(path.join("size"))?.saturating_mul(512),
        });
    }
    partitions.sort_by_key(|p| p.number);
    Ok(Disk {
        device: device.to_owned(),
        size: number(dir.join("size"))?.saturating_mul(512),
        sector: u32::try_from(number(dir.join("queue/logical_block_size"))?).unwrap_or(512),
        read_only: number(dir.join("ro"))? != 0,
        partitions,
    })
}

/// Writes an `msdos` table with one aligned Linux partition over the whole disk,
/// has the kernel read it, and waits until the partition's node is there.
///
/// What was at either end of the disk is overwritten with zeros, tables and
/// backups included. On disk when this returns.
///
/// # Errors
///
/// [`ErrorKind::Busy`], naming who uses the disk or a partition of it,
/// [`ErrorKind::InvalidArgument`] for a disk too small, or larger than such a
/// table can say (2 TiB with sectors of 512 bytes), [`ErrorKind::ReadOnly`],
/// [`ErrorKind::TimedOut`] when the node does not appear, and those of [`disk`].
///
/// # Privileges
///
/// Permission to write the disk, and CAP_SYS_ADMIN.
pub fn create_single(device: &Path, deadline: Duration) -> Result<Partition> {
    let begun = Instant::now();
    let shown = device.display().to_string();
    let seen = disk(device)?;
    if seen.read_only {
        let text = "the kernel takes no writes for it";
        return Err(Error::message(ErrorKind::ReadOnly, OP, shown, text));
    }
    let io = |e: std::io::Error| Error::io(OP, shown.clone(), e);
    let mut file = match OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(device)
    {
        Ok(file) => file,
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            let mut users = Vec::new();
            for used in std::iter::once(device).chain(seen.partitions.iter().map(|p| &*p.device)) {
                users.extend(holders::of_device(used).unwrap_or_default());
            }
            return Err(Error::io(OP, shown, e)
                .with_kind(ErrorKind::Busy)
                .with_holders(users));
        }
        Err(e) => return Err(io(e)),
    };
    let layout = Layout::of(seen.size, seen.sector)
        .map_err(|text| Error::message(ErrorKind::InvalidArgument, OP, shown.clone(), text))?;
    zero(&mut file, 0, EDGE).map_err(io)?;
    zero(&mut file, seen.size - EDGE, EDGE).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    file.write_all(&layout.table(random()?)).map_err(io)?;
    file.sync_all().map_err(io)?;
    loop {
        match sys::reread_partitions(file.as_fd()) {
            Ok(()) => break,
            // Somebody passing (udev, blkid) has a partition open.
            Err(Errno::EBUSY) if begun.elapsed() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(errno) => return Err(Error::os("re-read the partition table of", shown, errno)),
        }
    }
    drop(file);
    loop {
        if let Some(first) = disk(device)?.partitions.into_iter().next()
            && first.device.exists()
        {
            return Ok(first);
        }
        if begun.elapsed() >= deadline {
            let text = "the table is written, but the partition's device node did not appear";
            return Err(Error::message(ErrorKind::TimedOut, OP, shown, text));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn zero(file: &mut File, from: u64, bytes: u64) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    std::io::copy(&mut std::io::repeat(0).take(bytes), file).map(drop)
}

fn random() -> Result<[u8; 4]> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 4];
    let read = File::open(path).and_then(|mut f| f.read_exact(&mut bytes));
    read.map_err(Error::path(OP, path))?;
    Ok(bytes)
}

/// The one partition, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    sector: u32,
    first: u32,
    sectors: u32,
}

impl Layout {
    fn of(size: u64, sector: u32) -> std::result::Result<Self, String> {
        if sector < 512 || !sector.is_power_of_two() || u64::from(sector) > ALIGNMENT {
            return Err(format!("sectors of {sector} bytes"));
        }
        let end = size / ALIGNMENT * ALIGNMENT;
        if end < 3 * EDGE {
            return Err(format!("{size} bytes is too small for a store"));
        }
        let sectors = (end - ALIGNMENT) / u64::from(sector);
        Ok(Layout {
            sector,
            first: (ALIGNMENT / u64::from(sector)) as u32,
            sectors: u32::try_from(sectors).map_err(|_| {
                format!("{size} bytes is more than an msdos table can say; use the whole disk in drbd.conf")
            })?,
        })
    }

    /// The first sector of the disk.
    fn table(self, signature: [u8; 4]) -> Vec<u8> {
        let mut sector = std::io::Cursor::new(vec![0; 4096]);
        let mut mbr = MBR::new_from(&mut sector, self.sector.min(4096), signature)
            .expect("room for one sector is given");
        mbr[1] = MBRPartitionEntry {
            boot: BOOT_INACTIVE,
            first_chs: CHS::empty(),
            sys: LINUX,
            last_chs: CHS::empty(),
            starting_lba: self.first,
            sectors: self.sectors,
        };
        let mut header = std::io::Cursor::new(Vec::new());
        mbr.header
            .write_into(&mut header)
            .expect("a vector takes all writes");
        header.into_inner()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names() {
        let of = |name: &str| {
            split_name(Path::new(name)).map(|(disk, n)| (disk.display().to_string(), n))
        };
        assert_eq!(of("/dev/sdb1"), Some(("/dev/sdb".into(), 1)));
        assert_eq!(of("/dev/ubda12"), Some(("/dev/ubda".into(), 12)));
        assert_eq!(of("/dev/nvme0n1p2"), Some(("/dev/nvme0n1".into(), 2)));
        assert_eq!(of("/dev/mmcblk0p1"), Some(("/dev/mmcblk0".into(), 1)));
        for none in [
            "/dev/sdb",
            "/dev/sdb0",
            "/dev/dm-3",
            "/dev/nvme0n1",
            "/dev/loop0",
            "/dev/1",
            "",
            "/dev/sdb99999999999",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn layouts() {
        let mib = |n: u64| n << 20;
        let layout = Layout::of(mib(64) + 700_000, 512).unwrap();
        assert_eq!((layout.first, layout.sectors), (2048, 63 * 2048));
        let large = Layout::of(mib(64), 4096).unwrap();
        assert_eq!((large.first, large.sectors), (256, 63 * 256));
        for (size, sector) in [
            (0, 512),
            (mib(11), 512),
            (mib(64), 0),
            (mib(64), 511),
            (3 << 40, 512),
            (u64::MAX, 4096),
        ] {
            assert!(Layout::of(size, sector).is_err(), "{size} {sector}");
        }
    }

    /// The bytes as the format has them, not as the library that writes them.
    #[test]
    fn table() {
        let bytes = Layout::of(64 << 20, 512).unwrap().table([1, 2, 3, 4]);
        assert_eq!(bytes.len(), 512);
        assert_eq!(bytes[..440], [0; 440]);
        assert_eq!(bytes[440..446], [1, 2, 3, 4, 0, 0]);
        assert_eq!(bytes[446], 0, "not active");
        assert_eq!(bytes[450], 0x83);
        assert_eq!(bytes[454..458], 2048u32.to_le_bytes());
        assert_eq!(bytes[458..462], (63u32 * 2048).to_le_bytes());
        assert_eq!(bytes[462..510], [0; 48]);
        assert_eq!(bytes[510..], [0x55, 0xaa]);
    }
}
