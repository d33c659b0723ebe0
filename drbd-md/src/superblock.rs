//! The superblock: one 4 KiB block, big endian. Bytes only.

use std::fmt;

use bitflags::bitflags;

use crate::layout::{BLOCK, Placement, SLOT, bitmap_bytes};
use crate::units::{Sectors, Uuid};

// drbd_meta_data.h and drbdmeta.c of drbd-utils 9.22.
const DRBD_MAGIC: u32 = 0x8374_0267;
const DRBD_MD_MAGIC_07: u32 = DRBD_MAGIC + 3;
const DRBD_MD_MAGIC_08: u32 = DRBD_MAGIC + 4;
const DRBD_MD_MAGIC_84_UNCLEAN: u32 = DRBD_MAGIC + 5;
const DRBD_MD_MAGIC_09: u32 = DRBD_MAGIC + 6;
const HISTORY_UUIDS: usize = 32;
pub(crate) const DRBD_PEERS_MAX: u32 = 32;

/// Most activity-log blocks that drbdmeta, and so this crate, handles (32 MiB).
pub(crate) const AL_BLOCKS_MAX: u64 = 32 * 1024 * 1024 / BLOCK;

bitflags! {
    /// State of the device as last written to the superblock (`MDF_*`, drbd.h).
    ///
    /// Bits this version has no name for are kept.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Flags: u32 {
        /// The data is consistent in itself.
        const CONSISTENT = 1 << 0;
        /// The node was primary.
        const PRIMARY_IND = 1 << 1;
        /// The peer was connected (8.4).
        const CONNECTED_IND = 1 << 2;
        /// Everything has to be synchronised (8.4).
        const FULL_SYNC = 1 << 3;
        /// The data was up to date.
        const WAS_UP_TO_DATE = 1 << 4;
        /// The peer is known to be outdated (8.4).
        const PEER_OUT_DATED = 1 << 5;
        /// The node went down while primary.
        const CRASHED_PRIMARY = 1 << 6;
        /// The activity log does not have to be applied.
        const AL_CLEAN = 1 << 7;
        /// Activity-log updates were switched off.
        const AL_DISABLED = 1 << 8;
        /// The primary lost quorum (9).
        const PRIMARY_LOST_QUORUM = 1 << 9;
        /// Quorum was held (9).
        const HAVE_QUORUM = 1 << 10;
        const _ = !0;
    }
}

/// Format of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// DRBD 0.7.
    V07,
    /// DRBD 8.0 to 8.4.
    V08,
    /// DRBD 9.
    V09,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::V07 => "v07",
            Format::V08 => "v08",
            Format::V09 => "v09",
        })
    }
}

bitflags! {
    /// What a v09 superblock says of one peer (`MDF_PEER_*`, drbd.h), in [`Peer::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PeerFlags: u32 {
        /// The peer was connected.
        const CONNECTED = 1 << 0;
        /// The peer is known to be outdated, or worse.
        const OUTDATED = 1 << 1;
        /// The peer was to be fenced.
        const FENCING = 1 << 2;
        /// Everything has to be synchronised with this peer.
        const FULL_SYNC = 1 << 3;
        /// The peer's device has been seen.
        const DEVICE_SEEN = 1 << 4;
        const _ = !0;
    }
}

/// What the superblock knows of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Node id of the peer. Format v08 has one peer and no ids: `None`.
    pub node_id: Option<u8>,
    /// Generation against which this peer's bitmap counts.
    pub bitmap_uuid: Option<Uuid>,
    /// Position in the write stream when the bitmap generation began (v09).
    pub bitmap_dagtag: u64,
    /// Peer flags (v09), as on disk; see [`PeerFlags`].
    pub flags: u32,
    /// Which bitmap slot belongs to this peer; `None` if it has none.
    pub bitmap_index: Option<u32>,
}

/// The superblock of one device, in one form for all formats.
///
/// What a format does not have is `None`, empty or 0, as said at the field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Superblock {
    /// Format on disk.
    pub format: Format,
    /// The driver wrote "in use" and did not get to write "clean" (`DRBD_MD_MAGIC_84_UNCLEAN`).
    pub unclean: bool,
    /// Size of the replicated device as last agreed with the peers; 0 before the first attach.
    pub effective_size: Sectors,
    /// Generation of the data.
    pub current_uuid: Option<Uuid>,
    /// Former generations, newest first: two in v08, up to 32 in v09. `Uuid(0)` is a gap.
    pub history_uuids: Vec<Uuid>,
    /// Identity of this metadata; the driver sets it on first use.
    pub device_uuid: u64,
    /// State of the device.
    pub flags: Flags,
    /// Length of all metadata: superblock, activity log and bitmap.
    pub md_size: Sectors,
    /// Position of the activity log, in sectors from the superblock.
    pub al_offset: i32,
    /// Extents the activity log was set to hold (`al-extents`).
    pub al_nr_extents: u32,
    /// Position of the bitmap, in sectors from the superblock.
    pub bm_offset: i32,
    /// Bytes of storage per bitmap bit.
    pub bm_bytes_per_bit: u32,
    /// Largest request size last agreed with a peer, bytes; 0 unknown.
    pub la_peer_max_bio_size: u32,
    /// Stripes of the activity log.
    pub al_stripes: u32,
    /// Size of one stripe of the activity log, in blocks of 4 KiB.
    pub al_stripe_size_4k: u32,
    /// Own node id (v09), if set.
    pub node_id: Option<u8>,
    /// Peers the bitmap has room for; 1 in v08.
    pub max_peers: u32,
    /// Node ids that are or were members (v09), one bit each.
    pub members: u64,
    /// Peers: exactly one in v08; in v09 all 32 slots in order of node id.
    pub peers: Vec<Peer>,
}

/// Reads big-endian numbers at fixed offsets of one block.
struct Fields<'a>(&'a [u8; BLOCK as usize]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u32 {
        let mut b = [0; 4];
        b.copy_from_slice(&self.0[at..at + 4]);
        u32::from_be_bytes(b)
    }
    fn i32(&self, at: usize) -> i32 {
        self.u32(at).cast_signed()
    }
    fn u64(&self, at: usize) -> u64 {
        let mut b = [0; 8];
        b.copy_from_slice(&self.0[at..at + 8]);
        u64::from_be_bytes(b)
    }
}

struct FieldsMut([u8; BLOCK as usize]);

impl FieldsMut {
    fn u32(&mut self, at: usize, v: u32) {
        self.0[at..at + 4].copy_from_slice(&v.to_be_bytes());
    }
    fn i32(&mut self, at: usize, v: i32) {
        self.u32(at, v.cast_unsigned());
    }
    fn u64(&mut self, at: usize, v: u64) {
        self.0[at..at + 8].copy_from_slice(&v.to_be_bytes());
    }
}

impl Superblock {
    /// Reads the magic number of a block, without checking anything else.
    pub(crate) fn format_of(block: &[u8; BLOCK as usize]) -> Option<Format> {
        let f = Fields(block);
        match f.u32(0x3c) {
            DRBD_MD_MAGIC_08 | DRBD_MD_MAGIC_84_UNCLEAN => Some(Format::V08),
            DRBD_MD_MAGIC_09 => Some(Format::V09),
            // Format v07 keeps five more counters in front, so its magic is elsewhere.
            _ if f.u32(0x1c) == DRBD_MD_MAGIC_07 => Some(Format::V07),
            _ => None,
        }
    }

    /// Decodes a block of format v08 or v09; `None` if the block is neither.
    ///
    /// Only the block itself is looked at: whether the offsets fit a device is checked by
    /// [`read`](crate::read).
    pub fn decode(block: &[u8; BLOCK as usize]) -> Option<Superblock> {
        let f = Fields(block);
        let format = match Self::format_of(block)? {
            Format::V07 => return None,
            other => other,
        };
        let mut sb = Superblock {
            format,
            unclean: f.u32(0x3c) == DRBD_MD_MAGIC_84_UNCLEAN,
            effective_size: Sectors(f.u64(0x00)),
            current_uuid: Uuid::from_disk(f.u64(0x08)),
            history_uuids: Vec::new(),
            device_uuid: 0,
            flags: Flags::from_bits_retain(f.u32(0x38)),
            md_size: Sectors(u64::from(f.u32(0x40))),
            al_offset: f.i32(0x44),
            al_nr_extents: f.u32(0x48),
            bm_offset: f.i32(0x4c),
            bm_bytes_per_bit: f.u32(0x50),
            la_peer_max_bio_size: f.u32(0x54),
            al_stripes: 0,
            al_stripe_size_4k: 0,
            node_id: None,
            max_peers: 1,
            members: 0,
            peers: Vec::new(),
        };
        let history;
        if format == Format::V08 {
            sb.peers.push(Peer {
                node_id: None,
                bitmap_uuid: Uuid::from_disk(f.u64(0x10)),
                bitmap_dagtag: 0,
                flags: 0,
                bitmap_index: Some(0),
            });
            history = 0x18..0x28;
            sb.device_uuid = f.u64(0x28);
            (sb.al_stripes, sb.al_stripe_size_4k) = (f.u32(0x58), f.u32(0x5c));
            // Before 8.4.4 the log had one fixed size and these fields were reserved.
            if (sb.al_stripes, sb.al_stripe_size_4k) == (0, 0) {
                (sb.al_stripes, sb.al_stripe_size_4k) = (1, 8);
            }
        } else {
            sb.members = f.u64(0x10);
            sb.device_uuid = f.u64(0x30);
            sb.max_peers = f.u32(0x58);
            sb.node_id = u8::try_from(f.i32(0x5c)).ok();
            (sb.al_stripes, sb.al_stripe_size_4k) = (f.u32(0x60), f.u32(0x64));
            for id in 0..DRBD_PEERS_MAX as u8 {
                let at = 0x70 + 32 * usize::from(id);
                sb.peers.push(Peer {
                    node_id: Some(id),
                    bitmap_uuid: Uuid::from_disk(f.u64(at)),
                    bitmap_dagtag: f.u64(at + 8),
                    flags: f.u32(at + 16),
                    bitmap_index: u32::try_from(f.i32(at + 20)).ok(),
                });
            }
            history = 0x470..0x470 + 8 * HISTORY_UUIDS;
        }
        sb.history_uuids = history.step_by(8).map(|at| Uuid(f.u64(at))).collect();
        while sb.history_uuids.last() == Some(&Uuid(0)) {
            sb.history_uuids.pop();
        }
        Some(sb)
    }

    /// Encodes the block, byte for byte as drbdmeta writes it.
    ///
    /// What lies in reserved fields is not kept; `members` (v09), which drbdmeta clears, is.
    pub(crate) fn encode(&self) -> [u8; BLOCK as usize] {
        let mut f = FieldsMut([0; BLOCK as usize]);
        let history = |i: usize| Uuid::to_disk(self.history_uuids.get(i).copied());
        f.u64(0x00, self.effective_size.0);
        f.u64(0x08, Uuid::to_disk(self.current_uuid));
        f.u32(0x38, self.flags.bits());
        f.u32(
            0x40,
            u32::try_from(self.md_size.0).expect("the size came from 32 bits or was checked"),
        );
        f.i32(0x44, self.al_offset);
        f.u32(0x48, self.al_nr_extents);
        f.i32(0x4c, self.bm_offset);
        f.u32(0x50, self.bm_bytes_per_bit);
        f.u32(0x54, self.la_peer_max_bio_size);
        if self.format == Format::V09 {
            f.u32(0x3c, DRBD_MD_MAGIC_09);
            f.u64(0x10, self.members);
            f.u64(0x30, self.device_uuid);
            f.u32(0x58, self.max_peers);
            f.i32(0x5c, self.node_id.map_or(-1, i32::from));
            f.u32(0x60, self.al_stripes);
            f.u32(0x64, self.al_stripe_size_4k);
            for (i, p) in self.peers.iter().take(DRBD_PEERS_MAX as usize).enumerate() {
                let at = 0x70 + 32 * i;
                f.u64(at, Uuid::to_disk(p.bitmap_uuid));
                f.u64(at + 8, p.bitmap_dagtag);
                f.u32(at + 16, p.flags);
                f.i32(at + 20, p.bitmap_index.map_or(-1, u32::cast_signed));
            }
            for i in 0..HISTORY_UUIDS {
                f.u64(0x470 + 8 * i, history(i));
            }
            return f.0;
        }
        let magic = if self.unclean {
            DRBD_MD_MAGIC_84_UNCLEAN
        } else {
            DRBD_MD_MAGIC_08
        };
        f.u32(0x3c, magic);
        f.u64(
            0x10,
            Uuid::to_disk(self.peers.first().and_then(|p| p.bitmap_uuid)),
        );
        f.u64(0x18, history(0));
        f.u64(0x20, history(1));
        f.u64(0x28, self.device_uuid);
        f.u32(0x58, self.al_stripes);
        f.u32(0x5c, self.al_stripe_size_4k);
        f.0
    }

    /// Tells whether the metadata was being created, or restored, when the writer was ended.
    ///
    /// The driver refuses to attach it (165). Creating it anew, or restoring it again, completes
    /// the work and needs no leave to overwrite.
    pub fn is_unfinished(&self) -> bool {
        self.current_uuid == Some(Uuid::JUST_CREATED)
            && self.device_uuid == 0
            && self.flags.is_empty()
            && self.effective_size == Sectors(0)
    }

    /// What the data on the disk is worth according to the metadata alone, in the driver's word:
    /// `UpToDate`, `Consistent`, `Outdated` or `Inconsistent`.
    ///
    /// `Consistent` means that only the peers can say whether it is current.
    pub fn disk_state(&self) -> &'static str {
        if !self.flags.contains(Flags::CONSISTENT) {
            "Inconsistent"
        } else if !self.flags.contains(Flags::WAS_UP_TO_DATE) {
            "Outdated"
        } else if self.flags.contains(Flags::PEER_OUT_DATED) {
            "UpToDate"
        } else {
            "Consistent"
        }
    }

    /// Returns how many 4 KiB blocks the activity log has.
    pub(crate) fn al_blocks(&self) -> u64 {
        u64::from(self.al_stripes) * u64::from(self.al_stripe_size_4k)
    }

    /// Tells whether the driver (8.4) would refuse to attach, with code 165
    /// (`ERR_MD_UNCLEAN`), until the activity log has been applied.
    pub fn needs_activity_log_applied(&self) -> bool {
        self.unclean || !self.flags.contains(Flags::AL_CLEAN)
    }

    /// Sets length and positions as they are for a device of `size` bytes.
    ///
    /// `None` if the format cannot describe that.
    pub(crate) fn place(&mut self, placement: Placement, size: u64) -> Option<()> {
        let al = self.al_blocks() * 8;
        let (md_size, al_offset, bm_offset) = match placement {
            Placement::Internal => {
                let bitmap = bitmap_bytes(size >> 9, self.bm_bytes_per_bit, self.max_peers) >> 9;
                let md_size = 8 + al + bitmap;
                (md_size, -(al as i64), 8 - i64::try_from(md_size).ok()?)
            }
            Placement::FlexibleExternal => (size >> 9, 8, 8 + al as i64),
            Placement::Indexed(_) => (SLOT >> 9, 8, 8 + al as i64),
        };
        // The superblock has 32 bits for it.
        self.md_size = Sectors(u64::from(u32::try_from(md_size).ok()?));
        self.al_offset = i32::try_from(al_offset).ok()?;
        self.bm_offset = i32::try_from(bm_offset).ok()?;
        Some(())
    }

    /// Checks that the numbers fit together and fit a device of `size` bytes.
    ///
    /// The rules are those by which drbdmeta and the driver accept a superblock, so that what one
    /// of us takes for metadata the others do, too.
    pub(crate) fn check(&self, placement: Placement, size: u64) -> Result<(), String> {
        let al_blocks = self.al_blocks();
        if al_blocks == 0 || al_blocks > AL_BLOCKS_MAX {
            return Err(format!(
                "activity log of {} stripes of {} blocks is out of bounds",
                self.al_stripes, self.al_stripe_size_4k
            ));
        }
        if !(1..DRBD_PEERS_MAX).contains(&self.max_peers) {
            return Err(format!(
                "room for {} peers is out of bounds",
                self.max_peers
            ));
        }
        if self.bm_bytes_per_bit < 4096 || !self.bm_bytes_per_bit.is_power_of_two() {
            return Err(format!("{} bytes per bitmap bit", self.bm_bytes_per_bit));
        }
        let al_sectors = (al_blocks * 8) as i64;
        match placement {
            Placement::Internal => {
                expect("position of the activity log", self.al_offset, -al_sectors)?;
                let bitmap = bitmap_bytes(size >> 9, self.bm_bytes_per_bit, self.max_peers);
                let md_size = (bitmap >> 9) as i64 + 8 + al_sectors;
                expect("position of the bitmap", self.bm_offset, 8 - md_size)?;
                if self.md_size.0 as i64 != md_size {
                    return Err(format!(
                        "length of the metadata: expected {md_size} sectors, found {}",
                        self.md_size.0
                    ));
                }
            }
            Placement::FlexibleExternal | Placement::Indexed(_) => {
                expect("position of the activity log", self.al_offset, 8)?;
                expect("position of the bitmap", self.bm_offset, 8 + al_sectors)?;
            }
        }
        Ok(())
    }
}

fn expect(what: &str, found: i32, expected: i64) -> Result<(), String> {
    if i64::from(found) == expected {
        return Ok(());
    }
    Err(format!("{what}: expected sector {expected}, found {found}"))
}
