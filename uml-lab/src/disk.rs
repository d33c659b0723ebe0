//! Disks of a node, and what can be wrong with them.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::builder::parse_size;
use crate::error::{Error, ErrorKind, Result};

const SECTOR: u64 = 512;

/// Describes a block device of a node, for [`NodeBuilder::disk`].
///
/// A size is a plain disk, so `n.disk("256M")` is enough where no fault of the
/// disk is to be played.
///
/// ```
/// use uml_lab::{Disk, Lab};
///
/// let lab = Lab::builder().node("node1", |n| {
///     n.disk("256M") // plain, at /dev/ubda
///         .disk(Disk::new("256M").power_cut()) // /dev/ubdb: can lose what was not flushed
///         .disk(Disk::new("64M").faults()) // /dev/ubdc: can fail, lie, be slow
/// });
/// # drop(lab);
/// ```
///
/// With [`Disk::power_cut`] or [`Disk::faults`] the name /dev/ubdX is a
/// symbolic link to the device that plays the fault (/dev/loopN or /dev/dm-N).
///
/// [`NodeBuilder::disk`]: crate::NodeBuilder::disk
#[derive(Clone, Debug)]
#[must_use = "a disk is given to `NodeBuilder::disk`"]
pub struct Disk {
    pub(crate) content: Content,
    pub(crate) cached: bool,
    pub(crate) breakable: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A sparse file of this size in the run directory.
    New(String),
    /// A file of the caller.
    File(PathBuf),
}

impl Disk {
    /// An empty disk of this size, such as `"256M"`. It survives the loss of
    /// the node and ends with the lab.
    pub fn new(size: impl Into<String>) -> Self {
        Disk::with(Content::New(size.into()))
    }

    /// A disk whose content is a file of the caller; it is written to and
    /// stays.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Disk::with(Content::File(path.into()))
    }

    fn with(content: Content) -> Self {
        Disk {
            content,
            cached: false,
            breakable: false,
        }
    }

    /// Gives the disk a volatile write cache, as most real ones have.
    ///
    /// A write is confirmed once it is in the cache; a flush (fsync, a barrier
    /// of a file system, FUA) takes it to the disk before it is confirmed. When
    /// the node is lost, the cache is: after [`Node::kill`] everything that
    /// was flushed is on the disk and nothing else has to be, and
    /// [`Node::power_cut`] lets a part of the rest survive, chosen by a seed.
    /// The smallest piece that survives or is lost is 4 KiB.
    ///
    /// Its partitions are /dev/ubda1 and so on, as of any disk; unless it has
    /// [`Disk::faults`] too.
    ///
    /// The cache is in the node's memory. Its kernel writes from it what is
    /// older than 30 s, or when it needs the memory.
    ///
    /// [`Node::kill`]: crate::Node::kill
    /// [`Node::power_cut`]: crate::Node::power_cut
    pub fn power_cut(mut self) -> Self {
        self.cached = true;
        self
    }

    /// Lets the disk take faults while it is in use, see [`NodeDisk`].
    ///
    /// A partition table on it is not read by the node's kernel. Describe a disk
    /// for each partition instead.
    ///
    /// [`NodeDisk`]: crate::NodeDisk
    pub fn faults(mut self) -> Self {
        self.breakable = true;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        match &self.content {
            Content::New(size) => parse_size(size).map(drop),
            Content::File(path) if !path.is_file() => Err(Error::new(
                ErrorKind::Invalid,
                format!("disk {}: not a file", path.display()),
            )),
            Content::File(_) => Ok(()),
        }
    }
}

impl From<&str> for Disk {
    fn from(size: &str) -> Self {
        Disk::new(size)
    }
}

impl From<String> for Disk {
    fn from(size: String) -> Self {
        Disk::new(size)
    }
}

impl From<&String> for Disk {
    fn from(size: &String) -> Self {
        Disk::new(size)
    }
}

/// What is wrong with a disk, or with a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum DiskFault {
    /// Every request fails with EIO: on a part of a disk reads and writes, as
    /// with a bad spot; on all of it flushes too.
    Fail,
    /// Writes and flushes fail with EIO, reads succeed. A flush is for the
    /// whole disk, so each one fails also if only a part of the disk does this.
    FailWrites,
    /// Writes and flushes are confirmed and thrown away.
    LoseWrites,
    /// Each read takes longer by the first, each write and flush by the
    /// second.
    Slow {
        /// Added to each read; whole milliseconds.
        read: Duration,
        /// Added to each write and flush; whole milliseconds.
        write: Duration,
    },
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskFault::Fail => f.write_str("fails"),
            DiskFault::FailWrites => f.write_str("fails writes"),
            DiskFault::LoseWrites => f.write_str("loses writes"),
            DiskFault::Slow { read, write } => {
                write!(f, "slow, read +{read:?}, write +{write:?}")
            }
        }
    }
}

/// The faults of one disk: the later one counts where two overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Vec<(Range<u64>, DiskFault)>);

impl Faults {
    /// Adds a fault for a range of bytes, or for the whole disk of `size`
    /// bytes.
    pub(crate) fn add(
        &mut self,
        range: Option<Range<u64>>,
        fault: DiskFault,
        size: u64,
    ) -> Result<()> {
        let size = size / SECTOR * SECTOR;
        let range = range.unwrap_or(0..size);
        let whole = range.start.is_multiple_of(SECTOR) && range.end.is_multiple_of(SECTOR);
        if range.is_empty() || range.end > size || !whole {
            return Err(
                Error::new(ErrorKind::Invalid, format!("bytes {range:?} of a disk"))
                    .detail(format!("want whole sectors of 512 bytes below {size}")),
            );
        }
        self.0.push((range, fault));
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The table of the device mapper for a disk of `size` bytes; `@` stands
    /// for the device below.
    pub(crate) fn table(&self, size: u64) -> String {
        let size = size / SECTOR;
        let sectors = |range: &Range<u64>| range.start / SECTOR..range.end / SECTOR;
        let mut edges: Vec<u64> = self
            .0
            .iter()
            .flat_map(|(range, _)| [sectors(range).start, sectors(range).end])
            .chain([0, size])
            .collect();
        edges.sort_unstable();
        edges.dedup();
        let fault_at = |at: u64| {
            let faults = self.0.iter().rev();
            faults
                .filter(|(range, _)| sectors(range).contains(&at))
                .map(|(_, fault)| *fault)
                .next()
        };
        // Neighbours with the same fault become one.
        let mut parts: Vec<(Range<u64>, Option<DiskFault>)> = Vec::new();
        for edge in edges.windows(2) {
            let fault = fault_at(edge[0]);
            match parts.last_mut() {
                Some((range, last)) if *last == fault => range.end = edge[1],
                _ => parts.push((edge[0]..edge[1], fault)),
            }
        }
        let mut table = String::new();
        for (range, fault) in parts {
            let (start, length) = (range.start, range.end - range.start);
            // Flakey is always in its bad time: none of every second is good.
            let target = match fault {
                None => format!("linear @ {start}"),
                Some(DiskFault::Fail) if length == size => format!("flakey @ {start} 0 1"),
                Some(DiskFault::Fail) => "error".to_owned(),
                Some(DiskFault::FailWrites) => format!("flakey @ {start} 0 1 1 error_writes"),
                Some(DiskFault::LoseWrites) => format!("flakey @ {start} 0 1 1 drop_writes"),
                Some(DiskFault::Slow { read, write }) => {
                    let (read, write) = (read.as_millis(), write.as_millis());
                    format!("delay @ {start} {read} @ {start} {write}")
                }
            };
            table.push_str(&format!("{start} {length} {target}\n"));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    const SIZE: u64 = 100 * SECTOR;

    fn table(faults: &[(Option<Range<u64>>, DiskFault)]) -> String {
        let mut all = Faults::default();
        for (range, fault) in faults {
            all.add(range.clone(), *fault, SIZE).unwrap();
        }
        all.table(SIZE)
    }

    #[test]
    fn tables() {
        let part = |start, end| Some(start * SECTOR..end * SECTOR);
        assert_eq!(table(&[]), "0 100 linear @ 0\n");
        assert_eq!(table(&[(None, DiskFault::Fail)]), "0 100 flakey @ 0 0 1\n");
        assert_eq!(
            table(&[(part(10, 20), DiskFault::Fail)]),
            "0 10 linear @ 0\n10 10 error\n20 80 linear @ 20\n"
        );
        // The later one lies above.
        let slow = DiskFault::Slow {
            read: Duration::from_millis(5),
            write: Duration::from_millis(7),
        };
        assert_eq!(
            table(&[(None, slow), (part(90, 100), DiskFault::FailWrites)]),
            "0 90 delay @ 0 5 @ 0 7\n90 10 flakey @ 90 0 1 1 error_writes\n"
        );
        assert_eq!(
            table(&[
                (part(0, 50), DiskFault::LoseWrites),
                (part(50, 100), DiskFault::LoseWrites)
            ]),
            "0 100 flakey @ 0 0 1 1 drop_writes\n"
        );
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges, reason = "what is refused")]
    fn parts_that_are_none_are_refused() {
        for bad in [0..0, 0..513, 1..512, 512..0, 0..SIZE + SECTOR] {
            let refused = Faults::default().add(Some(bad), DiskFault::Fail, SIZE);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
