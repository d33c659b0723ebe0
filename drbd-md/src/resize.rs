//! After the device was grown while it was not in use: internal metadata moves to the new end.
//!
//! If the new place overlaps the old one, the old superblock is kept in a journal at the new
//! superblock's place until everything else has moved. The journal is no superblock, so nobody
//! takes what is half moved for metadata.

use std::fmt;
use std::path::PathBuf;

use crate::Target;
use crate::activity_log::initialized_block;
use crate::apply::apply_at;
use crate::create::{fill, write_superblock};
use crate::device::{Access, Buffer, Device};
use crate::error::{Cause, Result};
use crate::layout::{BLOCK, Layout, Placement, SIZE_MAX, bitmap_bytes, superblock_offset};
use crate::probe;
use crate::superblock::Superblock;
use crate::units::Sectors;

/// What a move has done so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Journal {
    /// Size of the device when the superblock was written.
    old_size: u64,
    /// Bytes of the bitmap that have moved, counted from its end.
    done: u64,
    /// The superblock at its old place.
    sb: Superblock,
}

const JOURNAL_MAGIC: &[u8; 16] = b"drbd-md moving 1";
/// More than any superblock uses of its block.
const JOURNAL_SB: usize = 2048;
/// What changes as the move goes on is in the first sector alone, with a checksum of its own: a
/// power cut can tear a block between sectors.
const SECTOR: usize = 512;

impl Journal {
    /// Decodes a block; `None` if it is no journal, or not a whole one.
    pub(crate) fn decode(block: &[u8; BLOCK as usize]) -> Option<Journal> {
        let (head, body) = block.split_at(SECTOR);
        let whole = |part: &[u8]| {
            let (content, sum) = part.split_at(part.len() - 4);
            sum == crc32c::crc32c(content).to_be_bytes()
        };
        if !head.starts_with(JOURNAL_MAGIC) || !whole(head) || !whole(body) {
            return None;
        }
        let number = |at: usize| {
            let mut b = [0; 8];
            b.copy_from_slice(&head[at..at + 8]);
            u64::from_be_bytes(b)
        };
        let mut sb = [0; BLOCK as usize];
        sb[..JOURNAL_SB].copy_from_slice(&body[..JOURNAL_SB]);
        Some(Journal {
            old_size: number(16),
            done: number(24),
            sb: Superblock::decode(&sb)?,
        })
    }

    fn encode(&self) -> Buffer {
        let mut block = Buffer::zeroed(BLOCK as usize);
        let (head, body) = block.split_at_mut(SECTOR);
        head[..16].copy_from_slice(JOURNAL_MAGIC);
        head[16..24].copy_from_slice(&self.old_size.to_be_bytes());
        head[24..32].copy_from_slice(&self.done.to_be_bytes());
        body[..JOURNAL_SB].copy_from_slice(&self.sb.encode()[..JOURNAL_SB]);
        for part in [head, body] {
            let (content, sum) = part.split_at_mut(part.len() - 4);
            sum.copy_from_slice(&crc32c::crc32c(content).to_be_bytes());
        }
        block
    }
}

/// What [`move_after_grow`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// The superblock at its new place.
    pub superblock: Superblock,
    /// Size for data now.
    pub usable: Sectors,
    /// Where it was; `None` if it was at the right place already and nothing was done.
    pub from: Option<u64>,
    /// A move that had been cut short was completed.
    pub resumed: bool,
}

/// Moves internal metadata to the end of a device that was grown while DRBD did not use it.
///
/// `old_size` is the size of the device in bytes before it was grown; drbd-utils note it, see
/// [`LastKnown`]. The activity log is applied first if that is needed. Calling this when there is
/// nothing to move does nothing, and calling it again after it was cut short completes the move;
/// until then every other function refuses with `Interrupted`.
///
/// # Errors
/// `NoMetadata` if there is none at the old place either; `InvalidOption` if the metadata is not
/// internal, or the device was not larger than before; `Corrupt`, `TooLarge`, `InUse`, and the
/// errors of opening, reading and writing.
///
/// # Privileges
/// Permission to write the device.
pub fn move_after_grow(target: &Target, old_size: u64) -> Result<Moved> {
    let device = Device::open(&target.path, Access::Exclusive, "move metadata of")?;
    probe::check_size(&device)?;
    let size = device.size();
    let invalid = |text: &str| Err(device.error(None, Cause::InvalidOption(text.into())));
    let (Placement::Internal, Some(at)) =
        (target.placement, superblock_offset(target.placement, size))
    else {
        return invalid("only internal metadata has to be moved");
    };
    if size > SIZE_MAX {
        let limit = SIZE_MAX;
        return Err(device.error(None, Cause::TooLarge { size, limit }));
    }
    if let Some(journal) = Journal::decode(&device.read_block(at)?) {
        return carry_on(device, at, journal, true);
    }
    if let Some(superblock) = probe::superblock(target, &device)? {
        let layout = Layout::of(&superblock, target.placement, size);
        let usable = Sectors(layout.map_or(0, |l| l.usable));
        return Ok(Moved {
            superblock,
            usable,
            from: None,
            resumed: false,
        });
    }
    let old_at = superblock_offset(Placement::Internal, old_size).filter(|old| *old < at);
    let Some(old_at) = old_at else {
        return invalid("the device is not larger than it was");
    };
    let sb = Superblock::decode(&device.read_block(old_at)?)
        .ok_or_else(|| device.error(Some(old_at), Cause::NoMetadata))?;
    sb.check(Placement::Internal, old_size)
        .map_err(|what| device.error(Some(old_at), Cause::Corrupt(what)))?;
    let (device, sb) = apply_at(device, sb, old_size)?;
    let done = 0;
    carry_on(device, at, Journal { old_size, done, sb }, false)
}

/// Reads the superblock of internal metadata at the place it had when the device was `old_size` bytes.
///
/// For a device that was grown since: [`read`](crate::read) looks at its end now. `None` when there is
/// none, or its numbers do not fit that size. Of a move that was cut short it is the one that is moved.
///
/// # Errors
/// `NotFound`, `PermissionDenied`, `NotADevice`, `TooSmall`, `Io`.
///
/// # Privileges
/// Permission to read the device.
pub fn read_before_grow(target: &Target, old_size: u64) -> Result<Option<Superblock>> {
    let device = Device::open(&target.path, Access::Read, "read metadata of")?;
    probe::check_size(&device)?;
    let fits = |sb: Superblock, size| sb.check(Placement::Internal, size).ok().map(|()| sb);
    if let Some(at) = superblock_offset(Placement::Internal, device.size())
        && let Some(journal) = Journal::decode(&device.read_block(at)?)
    {
        return Ok(fits(journal.sb, journal.old_size));
    }
    let old = superblock_offset(Placement::Internal, old_size).filter(|_| old_size < device.size());
    let Some(at) = old else { return Ok(None) };
    Ok(Superblock::decode(&device.read_block(at)?).and_then(|sb| fits(sb, old_size)))
}

/// Returns what internal metadata leaves for data on a device of `size` bytes, without looking at any.
///
/// `max_peers` and the length of the activity log are those of its [`Superblock`]; a bitmap bit stands
/// for 4 KiB. `None` for a size that is too small or too large.
pub fn internal_usable(size: u64, max_peers: u32, al_bytes: u64) -> Option<Sectors> {
    let bitmap = bitmap_bytes(size >> 9, 4096, max_peers);
    let at = superblock_offset(Placement::Internal, size.min(SIZE_MAX))?;
    let usable = at.checked_sub(al_bytes)?.checked_sub(bitmap)?;
    (size <= SIZE_MAX).then_some(Sectors(usable >> 9))
}

fn carry_on(device: Device, at: u64, mut journal: Journal, resumed: bool) -> Result<Moved> {
    let size = device.size();
    let corrupt = |text: &str| device.error(Some(at), Cause::Corrupt(text.into()));
    let outside = "the positions before and after do not fit each other";
    journal
        .sb
        .check(Placement::Internal, journal.old_size)
        .map_err(|what| device.error(Some(at), Cause::Corrupt(what)))?;
    let old = Layout::of(&journal.sb, Placement::Internal, journal.old_size)
        .ok_or_else(|| corrupt(outside))?;
    let mut sb = journal.sb.clone();
    sb.place(Placement::Internal, size)
        .ok_or_else(|| corrupt(outside))?;
    let new = Layout::of(&sb, Placement::Internal, size).ok_or_else(|| corrupt(outside))?;
    let len = bitmap_bytes(journal.old_size >> 9, sb.bm_bytes_per_bit, sb.max_peers);
    let Some(shift) = new.bitmap.checked_sub(old.bitmap) else {
        return Err(corrupt(outside));
    };
    if journal.done > len || !journal.done.is_multiple_of(BLOCK) || old.superblock >= at {
        return Err(corrupt(outside));
    }
    // Nothing of the old metadata is overwritten: its superblock stays good until the new one is.
    let apart = new.bitmap >= old.superblock + BLOCK;
    if !apart && !resumed {
        write_journal(&device, at, &journal)?;
    }
    // From the end to the start, never more than lies between source and destination, so that what
    // was being moved when we were ended is still whole at its source.
    while shift > 0 && journal.done < len {
        let n = (1 << 20).min(shift).min(len - journal.done);
        let from = len - journal.done - n;
        let chunk = device.read(old.bitmap + from, n as usize)?;
        device.write(new.bitmap + from, &chunk)?;
        device.flush_and_verify(new.bitmap + from, &chunk)?;
        journal.done += n;
        if !apart {
            write_journal(&device, at, &journal)?;
        }
    }
    // What was added has never been written to.
    let added = new.al.saturating_sub(new.bitmap + len);
    fill(
        &device,
        new.bitmap + len,
        &[0; BLOCK as usize],
        added / BLOCK,
    )?;
    fill(&device, new.al, &initialized_block(), sb.al_blocks())?;
    write_superblock(&device, at, &sb)?;
    if old.superblock < new.bitmap {
        let zeros = Buffer::zeroed(BLOCK as usize);
        device.write(old.superblock, &zeros)?;
        device.flush_and_verify(old.superblock, &zeros)?;
    }
    Ok(Moved {
        superblock: sb,
        usable: Sectors(new.usable),
        from: Some(old.superblock),
        resumed,
    })
}

fn write_journal(device: &Device, at: u64, journal: &Journal) -> Result<()> {
    let block = journal.encode();
    device.write(at, &block)?;
    device.flush_and_verify(at, &block)
}

/// What drbd-utils note about a backing device each time they see it, so that metadata is found
/// again after the device was grown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastKnown {
    /// Size of the device, bytes.
    pub size: u64,
    /// Name of the device.
    pub device: Option<PathBuf>,
    /// Identity of the metadata on it, if it had one.
    pub device_uuid: Option<u64>,
}

impl LastKnown {
    /// What is to be noted about a device.
    pub fn new(size: u64, device: impl Into<PathBuf>, superblock: &Superblock) -> LastKnown {
        LastKnown {
            size,
            device: Some(device.into()),
            device_uuid: (superblock.device_uuid != 0).then_some(superblock.device_uuid),
        }
    }

    /// Returns where drbd-utils keep the note for a minor.
    pub fn path(minor: u32) -> PathBuf {
        PathBuf::from(format!("/var/lib/drbd/drbd-minor-{minor}.lkbd"))
    }

    /// Reads a note. `None` if the text is none.
    pub fn parse(text: &str) -> Option<LastKnown> {
        // Not `lines`: a carriage return may be part of a name.
        let mut lines = text.split('\n');
        let first = lines.next()?;
        let (size, device) = first.split_once('\t').unwrap_or((first, ""));
        let uuid = lines.next().and_then(|l| l.strip_prefix("uuid:"));
        let uuid = uuid.map(str::trim).map(|u| u.trim_start_matches("0x"));
        Some(LastKnown {
            size: size.trim().parse().ok()?,
            device: (!device.is_empty()).then(|| PathBuf::from(device)),
            device_uuid: uuid.and_then(|u| u64::from_str_radix(u, 16).ok()),
        })
    }
}

/// The text of the note, as drbd-utils write it.
impl fmt::Display for LastKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.as_deref().unwrap_or("".as_ref());
        writeln!(f, "{}\t{}", self.size, device.display())?;
        match self.device_uuid {
            Some(uuid) => writeln!(f, "uuid:\t{uuid:016X}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// As much as `create` says that it leaves.
    #[test]
    fn usable_is_what_create_leaves() {
        for (size, peers) in [
            (1 << 20, 1),
            (160 << 20, 1),
            ((160 << 20) + 700, 1),
            (1 << 40, 1),
            (1 << 36, 7),
        ] {
            let mut sb = crate::create::fresh_superblock(crate::Format::V08, peers);
            sb.place(Placement::Internal, size).unwrap();
            let layout = Layout::of(&sb, Placement::Internal, size).unwrap();
            assert_eq!(
                internal_usable(size, peers, sb.al_blocks() * BLOCK),
                Some(Sectors(layout.usable)),
                "{size} {peers}"
            );
        }
        assert_eq!(internal_usable(4096, 1, 32768), None);
        assert_eq!(internal_usable(SIZE_MAX + 1, 1, 32768), None);
    }

    #[test]
    fn notes_are_read_back() {
        let text = "67108864\t/dev/sdb1\nuuid:\t00C0FFEE00C0FFEE\n";
        let note = LastKnown::parse(text).unwrap();
        assert_eq!(note.size, 67_108_864);
        assert_eq!(note.device_uuid, Some(0x00c0_ffee_00c0_ffee));
        assert_eq!(note.to_string(), text);
        let text = "1\t/dev/x\r\n";
        assert_eq!(LastKnown::parse(text).unwrap().to_string(), text);
        assert_eq!(LastKnown::parse("x\ty"), None);
        assert_eq!(LastKnown::parse(""), None);
    }
}
