//! Where on a device the parts of the metadata are. Arithmetic only.

use crate::superblock::Superblock;

/// All metadata I/O is done in blocks of this many bytes.
pub(crate) const BLOCK: u64 = 4096;

/// drbdmeta refuses anything smaller than this (it looks at that much for foreign data).
pub(crate) const SIZE_MIN: u64 = 68 * 1024;

/// Largest device the format describes: 1 PiB.
pub(crate) const SIZE_MAX: u64 = 1 << 50;

/// Bytes of one slot of indexed external metadata.
pub(crate) const SLOT: u64 = 128 << 20;

/// Where the metadata of a device is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Placement {
    /// At the end of the device that also holds the data (`meta-disk internal`).
    Internal,
    /// On a device of its own, which it fills (`meta-disk DEVICE`, "flexible external").
    FlexibleExternal,
    /// In one of the slots of 128 MiB of a device of its own (`meta-disk DEVICE[N]`).
    Indexed(u32),
}

/// Byte offsets of the parts of valid metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) superblock: u64,
    pub(crate) al: u64,
    pub(crate) bitmap: u64,
    /// Largest size the replicated device can have, in sectors.
    pub(crate) usable: u64,
}

/// Returns the byte offset of the superblock on a device of `size` bytes.
pub(crate) fn superblock_offset(placement: Placement, size: u64) -> Option<u64> {
    match placement {
        Placement::Internal => Some(size.checked_sub(BLOCK)? & !(BLOCK - 1)),
        Placement::FlexibleExternal => (size >= BLOCK).then_some(0),
        Placement::Indexed(slot) => {
            let at = u64::from(slot).checked_mul(SLOT)?;
            (at.checked_add(BLOCK)? <= size).then_some(at)
        }
    }
}

/// Returns how many bytes of bitmap a device of `sectors` needs.
///
/// One bit per `bytes_per_bit` of storage, in words of 64 bits for each peer, rounded up to
/// blocks of 4 KiB.
pub(crate) fn bitmap_bytes(sectors: u64, bytes_per_bit: u32, peers: u32) -> u64 {
    let bits = sectors
        .div_ceil(u64::from(bytes_per_bit >> 9).max(1))
        .next_multiple_of(64);
    (bits / 8 * u64::from(peers)).next_multiple_of(BLOCK)
}

impl Layout {
    /// Computes the places; `None` if they are not all on the device.
    pub(crate) fn of(sb: &Superblock, placement: Placement, size: u64) -> Option<Layout> {
        let superblock = superblock_offset(placement, size)?;
        let at = |sectors: i32| superblock.checked_add_signed(i64::from(sectors) * 512);
        let (al, bitmap) = (at(sb.al_offset)?, at(sb.bm_offset)?);
        let usable = match placement {
            Placement::Internal => superblock.min(al).min(bitmap) >> 9,
            Placement::FlexibleExternal | Placement::Indexed(_) => {
                let sectors = sb
                    .md_size
                    .0
                    .checked_sub(u64::try_from(sb.bm_offset).ok()?)?;
                sectors * 512 * 8 / 64 / u64::from(sb.max_peers)
                    * 64
                    * (u64::from(sb.bm_bytes_per_bit) / 512)
            }
        };
        let end = al.checked_add(sb.al_blocks() * BLOCK)?;
        (end <= size && bitmap < size).then_some(Layout {
            superblock,
            al,
            bitmap,
            usable,
        })
    }

    /// Returns how many bytes of bitmap there is room for outside of the data device.
    pub(crate) fn bitmap_room(&self, sb: &Superblock) -> u64 {
        let end = self.superblock + sb.md_size.0 * 512;
        end.saturating_sub(self.bitmap) & !(BLOCK - 1)
    }

    /// Returns how many bytes of the bitmap are in use for the size last agreed on.
    pub(crate) fn bitmap_in_use(&self, sb: &Superblock) -> u64 {
        bitmap_bytes(
            sb.effective_size.0.min(self.usable),
            sb.bm_bytes_per_bit,
            sb.max_peers,
        )
    }
}
