//! After a crash: the activity log becomes bits in the bitmap.

use crate::activity_log::{
    self, BM_BYTES_PER_AL_EXT, LogFormat, Replay, Unusable, initialized_block, replay_4k,
    replay_512,
};
use crate::create::{fill, write_superblock};
use crate::device::{Access, Device};
use crate::error::{Cause, Result};
use crate::layout::{BLOCK, Layout, Placement};
use crate::superblock::{Flags, Format, Superblock};
use crate::units::Sectors;
use crate::{Target, probe};

/// What the activity log says, and whether it has to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActivityLogState {
    /// The driver would refuse to attach (165, `ERR_MD_UNCLEAN`) until the log has been applied.
    pub attach_refused: bool,
    /// The node was primary, so the active extents will be marked out of sync.
    pub was_primary: bool,
    /// Layout of the log.
    pub format: LogFormat,
    /// Blocks in the ring (sectors, for the old format).
    pub blocks: u32,
    /// Positions in the ring whose checksum is wrong: a torn write, if it is one.
    pub broken: Vec<u32>,
    /// Valid transactions in the ring.
    pub transactions: u32,
    /// Number of the newest transaction.
    pub newest: Option<u32>,
    /// Extents (4 MiB each) that were active, ascending.
    pub active: Vec<u32>,
    /// Why the log cannot be replayed; then the fields above about its content are empty.
    pub unusable: Option<String>,
}

/// What [`apply_activity_log`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// Extents of 4 MiB marked out of sync; empty if the node was not primary.
    pub extents: Vec<u32>,
    /// Extents in the log that are past the end of the bitmap and were passed over.
    pub beyond_end: Vec<u32>,
    /// Storage newly marked out of sync; in v09 summed up over the peers there is room for.
    pub marked: Sectors,
    /// Positions in the log whose checksum was wrong and which were left out.
    pub broken: Vec<u32>,
    /// The log was written anew.
    pub log_initialized: bool,
    /// The superblock was written: it says "clean" now.
    pub superblock_written: bool,
}

impl Applied {
    /// Tells whether anything was written.
    pub fn changed(&self) -> bool {
        self.log_initialized || self.superblock_written
    }
}

/// Superblock, places, and content of the log of one device.
struct Opened {
    device: Device,
    sb: Superblock,
    layout: Layout,
    format: LogFormat,
    replay: Result<Replay, Unusable>,
}

fn open(target: &Target, access: Access, op: &'static str) -> Result<Opened> {
    let device = Device::open(&target.path, access, op)?;
    let at = crate::layout::superblock_offset(target.placement, device.size());
    let sb =
        probe::superblock(target, &device)?.ok_or_else(|| device.error(at, Cause::NoMetadata))?;
    let size = device.size();
    look(target.placement, device, sb, size)
}

/// Reads the log that belongs to a superblock, on a device that had this size when it was written.
fn look(placement: Placement, device: Device, sb: Superblock, size: u64) -> Result<Opened> {
    let at = crate::layout::superblock_offset(placement, size);
    if sb.bm_bytes_per_bit != 4096 {
        let text = format!(
            "{} bytes per bitmap bit (only 4096 are implemented)",
            sb.bm_bytes_per_bit
        );
        return Err(device.error(at, Cause::Unsupported(text)));
    }
    let layout = Layout::of(&sb, placement, size).ok_or_else(|| {
        device.error(
            at,
            Cause::Corrupt("log or bitmap are outside of the device".into()),
        )
    })?;
    let log = device.read(layout.al, (sb.al_blocks() * BLOCK) as usize)?;
    let (stripes, stripe) = (sb.al_stripes as usize, sb.al_stripe_size_4k as usize);
    let format = activity_log::format_of(
        &log,
        sb.format == Format::V09 || sb.unclean || (stripes, stripe) != (1, 8),
    );
    let replay = match format {
        LogFormat::Blocks4k => replay_4k(&log, stripes, stripe),
        LogFormat::Sectors512 => replay_512(&log, sb.al_nr_extents),
        LogFormat::PersistentMemory => {
            let text = "activity log in persistent-memory layout".into();
            return Err(device.error(Some(layout.al), Cause::Unsupported(text)));
        }
    };
    Ok(Opened {
        device,
        sb,
        layout,
        format,
        replay,
    })
}

/// Reads the activity log of a device, without changing anything.
///
/// While the device is attached the answer is a snapshot of a log that is being written.
///
/// # Errors
/// `NoMetadata`, `Corrupt` if the superblock contradicts itself, `Unsupported` for bitmaps
/// that are not of 4 KiB a bit and logs in persistent memory, and the errors of opening and reading. A log that cannot be replayed is not an error here, see
/// [`ActivityLogState::unusable`].
///
/// # Privileges
/// Permission to read the device.
pub fn activity_log_state(target: &Target) -> Result<ActivityLogState> {
    let o = open(target, Access::Read, "read activity log of")?;
    let mut state = ActivityLogState {
        attach_refused: o.sb.needs_activity_log_applied(),
        was_primary: o.sb.flags.contains(Flags::PRIMARY_IND),
        format: o.format,
        blocks: o.sb.al_blocks() as u32,
        broken: Vec::new(),
        transactions: 0,
        newest: None,
        active: Vec::new(),
        unusable: None,
    };
    match o.replay {
        Ok(replay) => {
            state.blocks = replay.blocks;
            state.broken = replay.broken;
            state.transactions = replay.updates;
            state.newest = replay.newest;
            state.active = replay.active;
        }
        Err(e) => state.unusable = Some(e.to_string()),
    }
    Ok(state)
}

/// Applies the activity log of a device, so that it can be attached again.
///
/// If the node was primary when it went down, every extent that was active is marked out of sync
/// in the bitmap: its blocks may differ from the peer's. Then the log is initialised and the
/// superblock marked clean. What is written is, byte for byte, what `drbdmeta apply-al` writes; a
/// clean device is left untouched, so calling this before every attach is right and cheap.
///
/// The steps are durable in this order: bitmap, log, superblock; each is read back. A crash in
/// between is repaired by calling this again.
///
/// # Errors
/// `NoMetadata`; `Corrupt` if the superblock contradicts itself, or if the node was primary and
/// the log cannot be replayed (nothing was written then, and only a full resynchronisation
/// helps); `Unsupported` as for [`activity_log_state`]; `InUse` if the device is attached; `ReadOnly`;
/// `VerifyFailed`; and the errors of opening, reading and writing.
///
/// # Privileges
/// Permission to write the device.
///
/// # Source
/// `meta_apply_al` in drbd-utils v9.22.0, user/shared/drbdmeta.c.
pub fn apply_activity_log(target: &Target) -> Result<Applied> {
    apply(&mut open(
        target,
        Access::Exclusive,
        "apply activity log of",
    )?)
}

/// Applies the log that belongs to a superblock at the place it had on a device of `size` bytes.
pub(crate) fn apply_at(device: Device, sb: Superblock, size: u64) -> Result<(Device, Superblock)> {
    let mut o = look(Placement::Internal, device, sb, size)?;
    apply(&mut o)?;
    Ok((o.device, o.sb))
}

fn apply(o: &mut Opened) -> Result<Applied> {
    let was_primary = o.sb.flags.contains(Flags::PRIMARY_IND);
    let mut applied = Applied::default();

    // An old log is converted by writing a new one, whatever it contains.
    let mut initialize = o.format == LogFormat::Sectors512;
    match &o.replay {
        Ok(replay) => {
            applied.broken.clone_from(&replay.broken);
            if replay.updates > 0 {
                initialize = true;
                if was_primary {
                    mark(o, &replay.active, &mut applied)?;
                }
            }
        }
        Err(e) if was_primary => {
            return Err(o
                .device
                .error(Some(o.layout.al), Cause::Corrupt(e.to_string())));
        }
        // Nothing was active on a secondary: what the log lost does not matter.
        Err(_) => initialize = true,
    }
    let marked = matches!(&o.replay, Ok(r) if r.updates > 0) && was_primary;

    if initialize {
        fill(
            &o.device,
            o.layout.al,
            &initialized_block(),
            o.sb.al_blocks(),
        )?;
        applied.log_initialized = true;
    }
    if marked || o.sb.needs_activity_log_applied() {
        // PRIMARY_IND stays: the driver uses it to tell a crash from a stop.
        o.sb.unclean = false;
        o.sb.flags |= Flags::AL_CLEAN;
        o.sb.effective_size = Sectors(o.sb.effective_size.0.min(o.layout.usable));
        write_superblock(&o.device, o.layout.superblock, &o.sb)?;
        applied.superblock_written = true;
    }
    Ok(applied)
}

/// Sets the bits of all active extents, durably.
fn mark(o: &Opened, active: &[u32], applied: &mut Applied) -> Result<()> {
    /// Most bytes of bitmap in memory at once.
    const WINDOW: u64 = 1 << 20;
    let in_use = o.layout.bitmap_in_use(&o.sb);
    // The words of all peers lie side by side, and the write may be missing at each of them.
    let extent_len = BM_BYTES_PER_AL_EXT * u64::from(o.sb.max_peers);
    // How many bits the device has for each peer; its size is noted when it is attached first.
    let all = match o.sb.effective_size.0 {
        0 => o.layout.usable,
        noted => noted.min(o.layout.usable),
    }
    .div_ceil(8);
    let mut bits = 0;
    let mut rest = active;
    while let Some(first) = rest.first() {
        let start = u64::from(*first) * extent_len;
        if start >= in_use {
            applied.beyond_end.extend_from_slice(rest);
            break;
        }
        let window = start & !(BLOCK - 1);
        let end = (window + WINDOW).min(in_use);
        let n = rest.partition_point(|e| u64::from(*e) * extent_len < end);
        let (these, later) = rest.split_at(n);
        rest = later;
        // Only up to the last block that changes; the last extent may be smaller.
        let last = (u64::from(these[n - 1]) * extent_len + extent_len).min(in_use);
        let len = last.next_multiple_of(BLOCK) - window;
        let at = o.layout.bitmap + window;
        let mut bitmap = o.device.read(at, len as usize)?;
        for extent in these {
            let from = u64::from(*extent) * extent_len;
            let to = (from + extent_len).min(in_use);
            let bytes = &mut bitmap[(from - window) as usize..(to - window) as usize];
            for (at, byte) in (from..).zip(bytes) {
                // Words of 32 bits, one of each peer in turn. The last may reach beyond the end of
                // the device: these bits are set, as drbdmeta does, and stand for nothing.
                let first = at / 4 / u64::from(o.sb.max_peers) * 32 + at % 4 * 8;
                let of_device = (1u16 << all.saturating_sub(first).min(8)) - 1;
                bits += u64::from((u16::from(!*byte) & of_device).count_ones());
                *byte = 0xff;
            }
        }
        o.device.write(at, &bitmap)?;
        o.device.flush_and_verify(at, &bitmap)?;
        applied.extents.extend_from_slice(these);
    }
    applied.marked = Sectors(bits * 8);
    Ok(())
}
