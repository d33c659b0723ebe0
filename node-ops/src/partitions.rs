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

/// A partition, and how large it could be where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// The partition as the kernel has it.
    pub partition: Partition,
    /// Its size in the table on the disk, in bytes.
    pub in_table: u64,
    /// The size it could have: up to the next partition, the end of the disk or what the table can say.
    pub possible: u64,
}

impl Room {
    /// Whether there is more than it has: an unaligned rest at the end does not count.
    #[must_use]
    pub fn is_more(&self) -> bool {
        self.possible > self.partition.size || self.in_table > self.partition.size
    }
}

/// Tells how large a partition of an `msdos` table could be. Changes nothing.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] when the disk has no such partition,
/// [`ErrorKind::Unsupported`] for another kind of table and for a logical
/// partition, and those of [`disk`].
///
/// # Privileges
///
/// Permission to read the disk.
pub fn room(device: &Path, number: u32) -> Result<Room> {
    const LOOK: &str = "look for room beside partition";
    let shown = || format!("{number} of {}", device.display());
    let seen = disk(device)?;
    let kernel = seen
        .partitions
        .iter()
        .find(|p| p.number == number)
        .cloned()
        .ok_or_else(|| {
            let text = "the kernel has no such partition";
            Error::message(ErrorKind::NotFound, LOOK, shown(), text)
        })?;
    let mut file = File::open(device).map_err(Error::path(LOOK, device))?;
    let table = Table::read(&mut file, seen.sector).map_err(|e| Error::io(LOOK, shown(), e))?;
    let Some(mut room) = table.room(number, seen.size) else {
        let text = "not a primary partition of an msdos table";
        return Err(Error::message(ErrorKind::Unsupported, LOOK, shown(), text));
    };
    if room.partition.start != kernel.start {
        let text = format!(
            "it begins at byte {} in the kernel and at {} in the table",
            kernel.start, room.partition.start
        );
        return Err(Error::message(ErrorKind::Malformed, LOOK, shown(), text));
    }
    room.partition = kernel;
    room.possible = room.possible.max(room.partition.size);
    Ok(room)
}

/// Makes a partition as large as it can be where it is, while it is in use.
///
/// The table is changed in one sector, on disk before the kernel is told; what
/// was cut short in between is completed by calling it again. Nothing that the
/// partition holds is touched.
///
/// # Errors
///
/// As [`room`]; [`ErrorKind::Busy`] when the kernel does not take the new size
/// (another partition is in the way), [`ErrorKind::ReadOnly`].
///
/// # Privileges
///
/// Permission to write the disk, and CAP_SYS_ADMIN.
///
/// # Kernel support
///
/// Linux 3.6.
#[doc(alias = "BLKPG_RESIZE_PARTITION")]
pub fn grow(device: &Path, number: u32) -> Result<Room> {
    const GROW: &str = "grow partition";
    let shown = || format!("{number} of {}", device.display());
    let before = room(device, number)?;
    if !before.is_more() {
        return Ok(before);
    }
    let io = |e: std::io::Error| Error::io(GROW, shown(), e);
    // Not exclusively: whoever uses the partition has the disk.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .map_err(io)?;
    let sector = disk(device)?.sector;
    let size = before.possible.max(before.in_table);
    if size != before.in_table {
        let mut table = Table::read(&mut file, sector).map_err(io)?;
        table.set_size(number, size);
        table.write(&mut file).map_err(io)?;
        file.sync_all().map_err(io)?;
    }
    sys::resize_partition(file.as_fd(), number, before.partition.start, size)
        .map_err(|errno| Error::os(GROW, shown(), errno))?;
    room(device, number)
}

/// The size of a block device in bytes, by any of its names.
///
/// # Errors
///
/// [`ErrorKind::NotFound`], [`ErrorKind::Malformed`].
pub fn size(device: &Path) -> Result<u64> {
    const LOOK: &str = "size of";
    let real = fs::canonicalize(device).map_err(Error::path(LOOK, device))?;
    let path = Path::new("/sys/class/block")
        .join(real.file_name().unwrap_or_default())
        .join("size");
    let text = fs::read_to_string(&path).map_err(Error::path(LOOK, &path))?;
    let sectors: u64 = text.trim().parse().map_err(|_| {
        let shown = path.display().to_string();
        Error::message(ErrorKind::Malformed, LOOK, shown, "not a number")
    })?;
    Ok(sectors.saturating_mul(512))
}

/// The first sector of a disk with an `msdos` table, as bytes: what is not understood stays as it is.
struct Table {
    sector: u64,
    bytes: [u8; 512],
}

/// Where the four entries begin, and how long one is.
const ENTRIES: usize = 446;
const ENTRY: usize = 16;
/// Types of entries that hold a chain of logical partitions, or guard a GPT.
const NOT_PLAIN: [u8; 4] = [0x05, 0x0f, 0x85, 0xee];

impl Table {
    fn read(file: &mut File, sector: u32) -> std::io::Result<Self> {
        let mut bytes = [0; 512];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut bytes)?;
        Ok(Table {
            sector: u64::from(sector),
            bytes,
        })
    }

    fn write(&self, file: &mut File) -> std::io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&self.bytes)
    }

    fn number(&self, at: usize) -> u64 {
        let mut four = [0; 4];
        four.copy_from_slice(&self.bytes[at..at + 4]);
        u64::from(u32::from_le_bytes(four))
    }

    /// Type, first byte and length in bytes of an entry that is in use.
    fn entry(&self, number: u32) -> Option<(u8, u64, u64)> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        if index >= 4 {
            return None;
        }
        let at = ENTRIES + index * ENTRY;
        let (kind, sectors) = (self.bytes[at + 4], self.number(at + 12));
        (kind != 0 && sectors != 0).then(|| {
            (
                kind,
                self.number(at + 8) * self.sector,
                sectors * self.sector,
            )
        })
    }

    /// What the table says about a partition on a disk of `size` bytes; `None` if it is not a plain one.
    fn room(&self, number: u32, size: u64) -> Option<Room> {
        if self.bytes[510..] != [0x55, 0xaa] {
            return None;
        }
        let (kind, start, in_table) = self.entry(number)?;
        if NOT_PLAIN.contains(&kind) || (1..=4).any(|n| self.entry(n).is_some_and(|e| e.0 == 0xee))
        {
            return None;
        }
        let next = (1..=4)
            .filter_map(|n| self.entry(n))
            .map(|(_, other, _)| other)
            .filter(|other| *other > start)
            .min();
        // What follows begins where it begins; the end of the disk is rounded as when it was made.
        let end = next.unwrap_or(size / ALIGNMENT * ALIGNMENT).min(size);
        let most = u64::from(u32::MAX) * self.sector;
        let possible = end.saturating_sub(start).min(most) / self.sector * self.sector;
        Some(Room {
            partition: Partition {
                device: PathBuf::new(),
                number,
                start,
                size: in_table,
            },
            in_table,
            possible: possible.max(in_table),
        })
    }

    fn set_size(&mut self, number: u32, bytes: u64) {
        let at = ENTRIES + (number as usize - 1) * ENTRY + 12;
        let sectors = u32::try_from(bytes / self.sector).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&sectors.to_le_bytes());
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

    #[test]
    fn rooms() {
        let mib = |n: u64| n << 20;
        let mut table = Table {
            sector: 512,
            bytes: [0; 512],
        };
        assert!(table.room(1, mib(64)).is_none(), "no table");
        let made = Layout::of(mib(64), 512).unwrap().table([1, 2, 3, 4]);
        table.bytes.copy_from_slice(&made);
        let room = table.room(1, mib(64)).unwrap();
        assert_eq!((room.in_table, room.possible), (mib(63), mib(63)));
        assert!(!room.is_more());
        let room = table.room(1, mib(100) + 4096).unwrap();
        assert_eq!(room.possible, mib(99), "the end is aligned");
        assert!(table.room(2, mib(100)).is_none());
        // A partition behind it is a limit, and can grow itself.
        table.bytes[462 + 4] = 0x83;
        table.bytes[462 + 8..462 + 12].copy_from_slice(&(80u32 << 11).to_le_bytes());
        table.bytes[462 + 12..462 + 16].copy_from_slice(&(4u32 << 11).to_le_bytes());
        assert_eq!(table.room(1, mib(100)).unwrap().possible, mib(79));
        assert_eq!(table.room(2, mib(100)).unwrap().possible, mib(20));
        table.set_size(2, mib(20));
        assert_eq!(table.room(2, mib(100)).unwrap().in_table, mib(20));
        // A disk that shrank, a table that can say no more, a GPT behind it, an extended one.
        assert!(!table.room(1, mib(10)).unwrap().is_more());
        assert_eq!(
            table.room(2, 5 << 40).unwrap().possible,
            u64::from(u32::MAX) * 512
        );
        assert!(table.room(0, mib(100)).is_none() && table.room(5, mib(100)).is_none());
        for kind in NOT_PLAIN {
            table.bytes[462 + 4] = kind;
            assert!(table.room(2, mib(100)).is_none(), "{kind:x}");
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
