//! The activity log: which 4 MiB extents may have been written and not yet mirrored. Bytes only.
//!
//! The log is a ring of 4 KiB transactions. Each transaction says which extents moved into which
//! slots, and repeats a part of all slots as context, so that a ring full of transactions contains
//! the whole set. The set at the time of a crash is found by replaying from the oldest to the
//! newest transaction. A transaction that was being written when the power went away has a wrong
//! checksum and is left out: its extents had not been written to yet.

use crate::layout::BLOCK;

// drbd_meta_data.h of drbd-utils 9.22: struct al_transaction_on_disk.
const DRBD_AL_MAGIC: u32 = 0x69cb_65a2;
const DRBD_AL_PMEM_MAGIC: u32 = 0x6aa6_67a6;
const AL_TR_INITIALIZED: u16 = 0xffff;
const AL_UPDATES_PER_TRANSACTION: usize = 64;
const AL_CONTEXT_PER_TRANSACTION: usize = 919;
const AL_EXTENTS_MAX: usize = 65534;

// The 512-byte transactions of DRBD 0.7 to 8.3.
const DRBD_MAGIC: u32 = 0x8374_0267;
const AL_EXTENTS_PT: usize = 61;
const MD_AL_MAX_SECT_07: usize = 64;

/// Bytes of bitmap that one extent of 4 MiB covers, for one peer.
pub(crate) const BM_BYTES_PER_AL_EXT: u64 = 128;

const UNUSED: u32 = u32::MAX;

/// DRBD's checksum: CRC-32C, started with 0 and not inverted at the end.
fn crc(bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(u32::MAX, bytes)
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// Layout of the transactions found in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogFormat {
    /// Blocks of 4 KiB with CRC-32C (8.4 and 9).
    Blocks4k,
    /// Sectors of 512 bytes with an XOR sum (0.7 to 8.3); rewritten as blocks when applied.
    Sectors512,
    /// Persistent-memory layout (9); not handled here.
    PersistentMemory,
}

/// Why a log cannot be interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// No block has a valid checksum.
    NoValidBlock,
    /// Initialised blocks and broken ones, but no update: what was active is lost.
    NoUpdate { broken: u32 },
    /// A log of the old format that claims more sectors than there are.
    TooManyExtents(u32),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unusable::NoValidBlock => f.write_str("no valid block in the activity log"),
            Unusable::NoUpdate { broken } => write!(
                f,
                "the activity log has {broken} broken blocks and no valid update: \
                 which extents were active is lost"
            ),
            Unusable::TooManyExtents(n) => {
                write!(
                    f,
                    "activity log of the old format with {n} extents does not fit"
                )
            }
        }
    }
}

/// What replaying a log gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    /// Extents that were active, ascending, each once.
    pub(crate) active: Vec<u32>,
    /// Valid transactions that carry updates.
    pub(crate) updates: u32,
    /// Blocks (or sectors) of the ring.
    pub(crate) blocks: u32,
    /// Positions in the ring whose checksum is wrong.
    pub(crate) broken: Vec<u32>,
    /// Number of the newest transaction.
    pub(crate) newest: Option<u32>,
}

/// Says which format a log has; `ring_known_4k` if the superblock alone tells that it is 8.4's.
pub(crate) fn format_of(log: &[u8], ring_known_4k: bool) -> LogFormat {
    let magic = |i: usize| log.get(i * BLOCK as usize..).map(|b| be32(b, 0));
    if ring_known_4k || magic(0) == Some(DRBD_AL_MAGIC) || magic(1) == Some(DRBD_AL_MAGIC) {
        if magic(0) == Some(DRBD_AL_PMEM_MAGIC) {
            return LogFormat::PersistentMemory;
        }
        return LogFormat::Blocks4k;
    }
    LogFormat::Sectors512
}

/// Oldest and newest transaction seen so far: position in the ring and number.
#[derive(Clone, Copy)]
struct Span {
    oldest: (usize, u32),
    newest: (usize, u32),
}

impl Span {
    /// Transaction numbers wrap at 2^32, so "before" is the sign of the difference.
    fn extend(this: Option<Span>, at: usize, number: u32) -> Option<Span> {
        let Some(mut s) = this else {
            return Some(Span {
                oldest: (at, number),
                newest: (at, number),
            });
        };
        if number.wrapping_sub(s.oldest.1).cast_signed() < 0 {
            s.oldest = (at, number);
        }
        if number.wrapping_sub(s.newest.1).cast_signed() > 0 {
            s.newest = (at, number);
        }
        Some(s)
    }

    /// Positions from oldest to newest, around the end of a ring of `len`.
    fn positions(self, len: usize) -> impl Iterator<Item = usize> {
        let end = if self.newest.0 < self.oldest.0 {
            self.newest.0 + len
        } else {
            self.newest.0
        };
        (self.oldest.0..=end).map(move |p| p % len)
    }
}

/// The slots of the log and the extent in each.
struct Slots(Vec<u32>);

impl Slots {
    fn new() -> Slots {
        Slots(vec![UNUSED; AL_EXTENTS_MAX])
    }
    /// A slot number out of range is passed over, as drbdmeta does.
    fn put(&mut self, slot: usize, extent: u32) {
        if let Some(s) = self.0.get_mut(slot) {
            *s = extent;
        }
    }
    fn active(mut self) -> Vec<u32> {
        self.0.retain(|e| *e != UNUSED);
        self.0.sort_unstable();
        self.0.dedup();
        self.0
    }
}

/// Returns where in the log the `t`-th block of the ring is: transactions go round the stripes.
fn block_of(t: usize, stripes: usize, stripe_blocks: usize) -> usize {
    (t % stripes) * stripe_blocks + t / stripes
}

/// A transaction block with a good checksum.
struct Transaction<'a>(&'a [u8]);

impl<'a> Transaction<'a> {
    fn valid(block: &'a [u8]) -> Option<Self> {
        // The checksum covers the block with its own field zero.
        let mut head = [0; 12];
        head.copy_from_slice(&block[..12]);
        head[8..].fill(0);
        let sum = !crc32c::crc32c_append(crc32c::crc32c_append(u32::MAX, &head), &block[12..]);
        (be32(block, 0) == DRBD_AL_MAGIC && be32(block, 8) == sum).then_some(Transaction(block))
    }
    fn number(&self) -> u32 {
        be32(self.0, 4)
    }
    fn is_update(&self) -> bool {
        be16(self.0, 12) != AL_TR_INITIALIZED
    }
    fn replay(&self, slots: &mut Slots) {
        let b = self.0;
        let n_updates = usize::from(be16(b, 14));
        let (context_size, context_start) = (usize::from(be16(b, 16)), usize::from(be16(b, 18)));
        // 36 bytes of header, then slot numbers, extent numbers, context.
        let (slot_at, extent_at, context_at) = (36, 36 + 128, 36 + 128 + 256);
        for i in 0..AL_CONTEXT_PER_TRANSACTION {
            let (slot, extent) = (context_start + i, be32(b, context_at + 4 * i));
            if extent == UNUSED && slot >= context_size {
                continue;
            }
            slots.put(slot, extent);
        }
        for i in 0..AL_UPDATES_PER_TRANSACTION {
            let slot = be16(b, slot_at + 2 * i);
            if i >= n_updates && slot == u16::MAX {
                continue;
            }
            slots.put(usize::from(slot), be32(b, extent_at + 4 * i));
        }
    }
}

const _: () = assert!(36 + 128 + 256 + 4 * AL_CONTEXT_PER_TRANSACTION == BLOCK as usize);

/// Replays a log of 4 KiB transactions. `log` is `stripes` × `stripe_blocks` blocks.
pub(crate) fn replay_4k(
    log: &[u8],
    stripes: usize,
    stripe_blocks: usize,
) -> Result<Replay, Unusable> {
    let len = stripes * stripe_blocks;
    let block = |t| {
        let at = block_of(t, stripes, stripe_blocks) * BLOCK as usize;
        Transaction::valid(&log[at..at + BLOCK as usize])
    };
    let mut span = None;
    let (mut updates, mut broken) = (0, Vec::new());
    for t in 0..len {
        match block(t) {
            None => broken.push(t as u32),
            Some(b) if b.is_update() => {
                updates += 1;
                span = Span::extend(span, t, b.number());
            }
            Some(_) => {}
        }
    }
    if broken.len() == len {
        return Err(Unusable::NoValidBlock);
    }
    if span.is_none() && !broken.is_empty() && broken != [0] {
        // Only the very first transaction may be torn without any other being there.
        return Err(Unusable::NoUpdate {
            broken: broken.len() as u32,
        });
    }
    let mut slots = Slots::new();
    for t in span.into_iter().flat_map(|s| s.positions(len)) {
        if let Some(b) = block(t).filter(Transaction::is_update) {
            b.replay(&mut slots);
        }
    }
    Ok(Replay {
        active: slots.active(),
        updates,
        blocks: len as u32,
        broken,
        newest: span.map(|s| s.newest.1),
    })
}

/// Replays a log of 512-byte transactions, as 8.3 and older wrote it.
pub(crate) fn replay_512(log: &[u8], al_nr_extents: u32) -> Result<Replay, Unusable> {
    let len = 1 + (al_nr_extents as usize).div_ceil(AL_EXTENTS_PT);
    if len > MD_AL_MAX_SECT_07 || log.len() < len * 512 {
        return Err(Unusable::TooManyExtents(al_nr_extents));
    }
    let sector = |i: usize| {
        let s = &log[i * 512..(i + 1) * 512];
        let sum = (0..62).fold(0, |x, u| x ^ be32(s, 8 + 8 * u + 4));
        (be32(s, 0) == DRBD_MAGIC && be32(s, 504) == sum).then_some(s)
    };
    let mut span = None;
    let (mut updates, mut broken) = (0, Vec::new());
    for i in 0..len {
        match sector(i) {
            None => broken.push(i as u32),
            Some(s) => {
                updates += 1;
                span = Span::extend(span, i, be32(s, 4));
            }
        }
    }
    let mut slots = Slots::new();
    for i in span.into_iter().flat_map(|s: Span| s.positions(len)) {
        let Some(s) = sector(i) else { continue };
        // The one update stands first and wins over the context behind it.
        for u in (0..=AL_EXTENTS_PT).rev() {
            let (slot, extent) = (be32(s, 8 + 8 * u), be32(s, 8 + 8 * u + 4));
            if extent != UNUSED {
                slots.put(slot as usize, extent);
            }
        }
    }
    Ok(Replay {
        active: slots.active(),
        updates,
        blocks: len as u32,
        broken,
        newest: span.map(|s| s.newest.1),
    })
}

/// Returns the block with which a log is filled when nothing is active.
pub(crate) fn initialized_block() -> [u8; BLOCK as usize] {
    let mut b = [0; BLOCK as usize];
    b[..4].copy_from_slice(&DRBD_AL_MAGIC.to_be_bytes());
    b[12..14].copy_from_slice(&AL_TR_INITIALIZED.to_be_bytes());
    let sum = crc(&b);
    b[8..12].copy_from_slice(&sum.to_be_bytes());
    b
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn initialized_block_has_the_known_checksum() {
        // Seen in metadata made by drbdmeta 9.22.
        assert_eq!(initialized_block()[8..12], 0x709c_c651u32.to_be_bytes());
        assert!(Transaction::valid(&initialized_block()).is_some_and(|t| !t.is_update()));
    }

    #[test]
    fn stripes_are_visited_in_turn() {
        let order: Vec<usize> = (0..8).map(|t| block_of(t, 2, 4)).collect();
        assert_eq!(order, [0, 4, 1, 5, 2, 6, 3, 7]);
    }

    #[test]
    fn the_span_goes_round_the_end_of_the_numbers() {
        let mut span = None;
        for (at, number) in [(0, 1), (1, 2), (2, u32::MAX - 1), (3, u32::MAX), (4, 0)] {
            span = Span::extend(span, at, number);
        }
        let s = span.unwrap();
        assert_eq!(s.positions(5).collect::<Vec<_>>(), [2, 3, 4, 0, 1]);
    }
}
