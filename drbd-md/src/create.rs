//! Fresh metadata.

use crate::activity_log::initialized_block;
use crate::device::{Access, Buffer, Device};
use crate::error::{Cause, Error, Result};
use crate::layout::{BLOCK, Layout, Placement, SIZE_MAX, SLOT, bitmap_bytes, superblock_offset};
use crate::probe::{self, Found, Signature, UNFINISHED};
use crate::superblock::{AL_BLOCKS_MAX, DRBD_PEERS_MAX, Flags, Format, Peer, Superblock};
use crate::units::{Sectors, Uuid};
use crate::{Target, error};

/// What may be lost by creating metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overwrite {
    /// Nothing: refuse if anything is found.
    #[default]
    Nothing,
    /// The things with these names, as [`Signature::name`](crate::Signature) gives them.
    ///
    /// The list has to match what is there: something else on the device is a refusal, and so is
    /// a name that is not there, since then the caller means another device.
    Named(Vec<String>),
}

impl Overwrite {
    /// Allows one thing to be overwritten.
    pub fn named(name: impl Into<String>) -> Self {
        Overwrite::Named(vec![name.into()])
    }
}

/// Options of [`create`]. The default is what `drbdmeta create-md` does without options, in format
/// v08; [`CreateOptions::v09`] is the other format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct CreateOptions {
    overwrite: Overwrite,
    format: Format,
    max_peers: u32,
    al_stripes: u32,
    al_stripe_size_4k: u32,
    peer_max_bio_size: u32,
}

impl Default for CreateOptions {
    fn default() -> Self {
        CreateOptions {
            overwrite: Overwrite::Nothing,
            format: Format::V08,
            max_peers: 1,
            al_stripes: 1,
            al_stripe_size_4k: 8,
            peer_max_bio_size: 0,
        }
    }
}

impl CreateOptions {
    /// Format v09 (DRBD 9), with room for the bitmaps of 1 to 31 peers.
    ///
    /// Room cannot be added later without creating the metadata anew.
    pub fn v09(max_peers: u32) -> Self {
        CreateOptions {
            format: Format::V09,
            max_peers,
            ..CreateOptions::default()
        }
    }

    /// Says what may be overwritten.
    pub fn overwrite(mut self, what: Overwrite) -> Self {
        self.overwrite = what;
        self
    }

    /// Sets the shape of the activity log: stripes, and size of one in blocks of 4 KiB.
    ///
    /// Together at least 8 and at most 8192 blocks.
    pub fn activity_log(mut self, stripes: u32, stripe_size_4k: u32) -> Self {
        self.al_stripes = stripes;
        self.al_stripe_size_4k = stripe_size_4k;
        self
    }

    /// Sets the largest request size to assume of the peer until it is known, bytes; 0 to 1 MiB.
    pub fn peer_max_bio_size(mut self, bytes: u32) -> Self {
        self.peer_max_bio_size = bytes;
        self
    }
}

/// What [`create`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Created {
    /// The superblock.
    pub superblock: Superblock,
    /// Byte offset of the superblock on the device.
    pub offset: u64,
    /// Size left for data.
    pub usable: Sectors,
    /// What was there before and is overwritten now.
    pub overwritten: Vec<Signature>,
}

/// Creates metadata on a block device or regular file.
///
/// The bytes are those of `drbdmeta create-md`. On return they are on stable storage and were read
/// back. First, in one block, comes a superblock that is [unfinished](Superblock::is_unfinished) and
/// that the driver refuses to attach: a crash leaves what was there (other metadata has to be named)
/// whole, or says that the creation has to be repeated. What is unfinished may be created again
/// without being named.
///
/// With [`Placement::Internal`] the data area is not touched; only what lies at the end of the
/// device is overwritten. Whether a file system there still fits is not checked: to keep one, use
/// [`Placement::FlexibleExternal`].
///
/// # Errors
/// `WouldOverwrite` if anything is found that is not named, `NotThere` if something named is not
/// found, `InUse`, `ReadOnly`, `TooSmall`, `TooLarge`, `InvalidOption`, `VerifyFailed`, and what
/// [`probe`](crate::probe()) gives. After an error of the first six kinds nothing was written.
///
/// # Privileges
/// Permission to write the device.
pub fn create(target: &Target, options: &CreateOptions) -> Result<Created> {
    let op = "create metadata on";
    check_options(target, options, op)?;
    let device = Device::open(&target.path, Access::Exclusive, op)?;
    let found = probe::look(target, &device)?;
    refuse(&device, &found, &options.overwrite)?;
    let (sb, layout) = fresh(target, &device, options)?;

    let old: Vec<u64> = found
        .signatures
        .iter()
        .filter(|s| s.name.starts_with("drbd-"))
        .map(|s| s.offset)
        .collect();
    let mut unfinished = sb.clone();
    unfinished.flags = Flags::empty();
    write_superblock(&device, layout.superblock, &unfinished)?;
    fill(&device, layout.al, &initialized_block(), sb.al_blocks())?;
    let bitmap = bitmap_bytes(device.size() >> 9, sb.bm_bytes_per_bit, sb.max_peers);
    let bitmap = match target.placement {
        Placement::Internal => bitmap,
        // drbdmeta sizes it after the device it is on, as if that were the data.
        _ => bitmap.min(layout.bitmap_room(&sb)),
    };
    fill(&device, layout.bitmap, &[0; BLOCK as usize], bitmap / BLOCK)?;
    write_superblock(&device, layout.superblock, &sb)?;
    // A superblock of another format elsewhere would come back to life under other tools.
    let zero_block = Buffer::zeroed(BLOCK as usize);
    for at in old.into_iter().filter(|at| *at != layout.superblock) {
        device.write(at, &zero_block)?;
        device.flush_and_verify(at, &zero_block)?;
    }
    Ok(Created {
        superblock: sb,
        offset: layout.superblock,
        usable: Sectors(layout.usable),
        overwritten: found.signatures,
    })
}

/// Writes one superblock durably and reads it back.
pub(crate) fn write_superblock(device: &Device, at: u64, sb: &Superblock) -> Result<()> {
    let mut block = Buffer::zeroed(BLOCK as usize);
    block.copy_from_slice(&sb.encode());
    device.write(at, &block)?;
    device.flush_and_verify(at, &block)
}

fn check_options(target: &Target, o: &CreateOptions, op: &'static str) -> error::Result<()> {
    let blocks = u64::from(o.al_stripes) * u64::from(o.al_stripe_size_4k);
    let text = if !(8..=AL_BLOCKS_MAX).contains(&blocks) {
        format!("an activity log of {blocks} blocks (8 to {AL_BLOCKS_MAX} are possible)")
    } else if o.peer_max_bio_size > 1 << 20 {
        format!(
            "peer-max-bio-size {} (0 to 1048576 are possible)",
            o.peer_max_bio_size
        )
    } else if !(1..DRBD_PEERS_MAX).contains(&o.max_peers) {
        format!("room for {} peers (1 to 31 are possible)", o.max_peers)
    } else {
        return Ok(());
    };
    Err(Error::new(
        op,
        &target.path,
        None,
        Cause::InvalidOption(text),
    ))
}

pub(crate) fn refuse(device: &Device, found: &Found, overwrite: &Overwrite) -> Result<()> {
    let named: &[String] = match overwrite {
        Overwrite::Nothing => &[],
        Overwrite::Named(names) => names,
    };
    let found = &found.signatures;
    if let Some(name) = named.iter().find(|n| !found.iter().any(|s| s.name == **n)) {
        let cause = Cause::NotThere {
            named: name.clone(),
            found: found.clone(),
        };
        return Err(device.error(None, cause));
    }
    let free = |s: &Signature| s.name == UNFINISHED || named.contains(&s.name);
    if !found.iter().all(free) {
        let cause = Cause::Occupied {
            found: found.clone(),
            named: named.to_vec(),
        };
        return Err(device.error(None, cause));
    }
    Ok(())
}

/// Makes the superblock for this device and checks that everything fits.
fn fresh(target: &Target, device: &Device, o: &CreateOptions) -> Result<(Superblock, Layout)> {
    let size = device.size();
    if size > SIZE_MAX {
        return Err(device.error(
            None,
            Cause::TooLarge {
                size,
                limit: SIZE_MAX,
            },
        ));
    }
    let mut sb = fresh_superblock(o.format, o.max_peers);
    (sb.al_stripes, sb.al_stripe_size_4k) = (o.al_stripes, o.al_stripe_size_4k);
    sb.la_peer_max_bio_size = o.peer_max_bio_size;
    let layout = place(target, device, &mut sb)?;
    Ok((sb, layout))
}

/// Fresh metadata, not placed yet.
pub(crate) fn fresh_superblock(format: Format, max_peers: u32) -> Superblock {
    let peer = |node_id: Option<u8>| Peer {
        node_id,
        bitmap_uuid: None,
        bitmap_dagtag: 0,
        flags: 0,
        bitmap_index: node_id.is_none().then_some(0),
    };
    Superblock {
        format,
        unclean: false,
        effective_size: Sectors(0),
        current_uuid: Some(Uuid::JUST_CREATED),
        history_uuids: Vec::new(),
        device_uuid: 0,
        flags: Flags::AL_CLEAN,
        md_size: Sectors(0),
        al_offset: 0,
        // What drbdmeta writes; the driver puts the configured number here on attach.
        al_nr_extents: 257,
        bm_offset: 0,
        bm_bytes_per_bit: 4096,
        la_peer_max_bio_size: 0,
        al_stripes: 1,
        al_stripe_size_4k: 8,
        node_id: None,
        max_peers,
        members: 0,
        peers: match format {
            Format::V09 => (0..DRBD_PEERS_MAX as u8).map(|id| peer(Some(id))).collect(),
            _ => vec![peer(None)],
        },
    }
}

/// Sets the positions for this device, and checks that everything fits on it.
pub(crate) fn place(target: &Target, device: &Device, sb: &mut Superblock) -> Result<Layout> {
    let size = device.size();
    let al_sectors = sb.al_blocks() * 8;
    let bitmap_sectors = bitmap_bytes(size >> 9, sb.bm_bytes_per_bit, sb.max_peers) >> 9;
    let needed = match target.placement {
        Placement::Indexed(slot) => (u64::from(slot) + 1) * SLOT,
        _ => (8 + al_sectors + bitmap_sectors) * 512,
    };
    let too_small = |needed| device.error(None, Cause::TooSmall { size, needed });
    let at = superblock_offset(target.placement, size).ok_or_else(|| too_small(needed))?;
    // Internal: one block of data at least has to be left.
    let room = match target.placement {
        Placement::Internal => at,
        Placement::FlexibleExternal => size.saturating_sub(BLOCK) + 1,
        Placement::Indexed(_) => size + 1,
    };
    if room < needed.saturating_sub(BLOCK) + 1 {
        return Err(too_small(needed + BLOCK));
    }
    let limit = SIZE_MAX;
    sb.place(target.placement, size)
        .ok_or_else(|| device.error(None, Cause::TooLarge { size, limit }))?;
    sb.check(target.placement, size)
        .map_err(|text| device.error(Some(at), Cause::Corrupt(text)))?;
    Layout::of(sb, target.placement, size).ok_or_else(|| too_small(needed + BLOCK))
}

/// Makes `count` copies of a block stand at `offset`, durably, and reads them back.
///
/// Goes back to front; what is there already is left alone, so that a sparse or thinly provisioned
/// device stays so.
pub(crate) fn fill(
    device: &Device,
    offset: u64,
    block: &[u8; BLOCK as usize],
    count: u64,
) -> Result<()> {
    const AT_ONCE: u64 = 256;
    let mut copies = Buffer::zeroed((count.min(AT_ONCE) * BLOCK) as usize);
    for b in copies.chunks_exact_mut(BLOCK as usize) {
        b.copy_from_slice(block);
    }
    let mut written = Vec::new();
    let zeros = block.iter().all(|b| *b == 0);
    if zeros && device.is_hole(offset, count * BLOCK) {
        return device.flush();
    }
    for i in (0..count.div_ceil(AT_ONCE)).rev() {
        let first = i * AT_ONCE;
        let (at, n) = (offset + first * BLOCK, (count - first).min(AT_ONCE));
        let len = (n * BLOCK) as usize;
        if device.read(at, len)?[..] != copies[..len] {
            device.write(at, &copies[..len])?;
            written.push((at, len));
        }
    }
    device.flush()?;
    for (at, len) in written {
        device.verify(at, &copies[..len])?;
    }
    Ok(())
}
