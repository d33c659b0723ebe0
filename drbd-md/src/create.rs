//! Fresh metadata.

use crate::activity_log::initialized_block;
use crate::device::{Access, Buffer, Device};
use crate::error::{Cause, Error, Result};
use crate::layout::{BLOCK, Layout, Placement, SIZE_MAX, bitmap_bytes, superblock_offset};
use crate::probe::{self, Found, Signature};
use crate::superblock::{AL_BLOCKS_MAX, Flags, Format, Peer, Superblock};
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

/// Options of [`create`]. The default is what `drbdmeta create-md` does without options.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct CreateOptions {
    overwrite: Overwrite,
    al_stripes: u32,
    al_stripe_size_4k: u32,
    peer_max_bio_size: u32,
}

impl Default for CreateOptions {
    fn default() -> Self {
        CreateOptions {
            overwrite: Overwrite::Nothing,
            al_stripes: 1,
            al_stripe_size_4k: 8,
            peer_max_bio_size: 0,
        }
    }
}

impl CreateOptions {
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

/// Creates metadata of format v08 (DRBD 8.4) on a block device or regular file.
///
/// The bytes are those of `drbdmeta create-md`. On return they are on stable storage and were read
/// back. The superblock is written last, after the log and the bitmap are durable, and a
/// superblock that was there before is erased first: a crash in between leaves a device without
/// metadata, never one with half of it.
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

    let zero_block = Buffer::zeroed(BLOCK as usize);
    for old in found
        .signatures
        .iter()
        .filter(|s| s.name.starts_with("drbd-"))
    {
        device.write(old.offset, &zero_block)?;
        device.flush_and_verify(old.offset, &zero_block)?;
    }
    fill(&device, layout.al, &initialized_block(), sb.al_blocks())?;
    let bitmap = bitmap_bytes(device.size() >> 9, sb.bm_bytes_per_bit, sb.max_peers);
    fill(&device, layout.bitmap, &[0; BLOCK as usize], bitmap / BLOCK)?;

    let mut block = Buffer::zeroed(BLOCK as usize);
    block.copy_from_slice(&sb.encode_v08());
    device.write(layout.superblock, &block)?;
    device.flush_and_verify(layout.superblock, &block)?;
    Ok(Created {
        superblock: sb,
        offset: layout.superblock,
        usable: Sectors(layout.usable),
        overwritten: found.signatures,
    })
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

fn refuse(device: &Device, found: &Found, overwrite: &Overwrite) -> Result<()> {
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
    if found.iter().any(|s| !named.contains(&s.name)) {
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
    let al_sectors = u64::from(o.al_stripes) * u64::from(o.al_stripe_size_4k) * 8;
    let bitmap_sectors = bitmap_bytes(size >> 9, 4096, 1) >> 9;
    let needed = (8 + al_sectors + bitmap_sectors) * 512;
    let at = superblock_offset(target.placement, size).unwrap_or(0);
    // Internal: one block of data at least has to be left.
    let room = match target.placement {
        Placement::Internal => at,
        Placement::FlexibleExternal => size.saturating_sub(BLOCK) + 1,
    };
    if room < needed - BLOCK + 1 {
        return Err(device.error(
            None,
            Cause::TooSmall {
                size,
                needed: needed + BLOCK,
            },
        ));
    }
    let (md_size, al_offset, bm_offset) = match target.placement {
        Placement::Internal => {
            let md_size = 8 + al_sectors + bitmap_sectors;
            (md_size, -(al_sectors as i64), 8 - md_size as i64)
        }
        Placement::FlexibleExternal => (size >> 9, 8, 8 + al_sectors as i64),
    };
    let too_large = || {
        device.error(
            None,
            Cause::TooLarge {
                size,
                limit: SIZE_MAX,
            },
        )
    };
    let sb = Superblock {
        format: Format::V08,
        unclean: false,
        effective_size: Sectors(0),
        current_uuid: Some(Uuid::JUST_CREATED),
        history_uuids: Vec::new(),
        device_uuid: 0,
        flags: Flags::AL_CLEAN,
        md_size: Sectors(u32::try_from(md_size).map_err(|_| too_large())?.into()),
        al_offset: i32::try_from(al_offset).map_err(|_| too_large())?,
        // What drbdmeta writes; the driver puts the configured number here on attach.
        al_nr_extents: 257,
        bm_offset: i32::try_from(bm_offset).map_err(|_| too_large())?,
        bm_bytes_per_bit: 4096,
        la_peer_max_bio_size: o.peer_max_bio_size,
        al_stripes: o.al_stripes,
        al_stripe_size_4k: o.al_stripe_size_4k,
        node_id: None,
        max_peers: 1,
        members: 0,
        peers: vec![Peer {
            node_id: None,
            bitmap_uuid: None,
            bitmap_dagtag: 0,
            flags: 0,
            bitmap_index: Some(0),
        }],
    };
    sb.check(target.placement, size)
        .map_err(|text| device.error(Some(at), Cause::Corrupt(text)))?;
    let layout = Layout::of(&sb, target.placement, size).ok_or_else(|| {
        device.error(
            None,
            Cause::TooSmall {
                size,
                needed: needed + BLOCK,
            },
        )
    })?;
    Ok((sb, layout))
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
