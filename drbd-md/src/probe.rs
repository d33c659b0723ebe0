//! What is on a device now.

use std::fmt;

use crate::device::{Access, Device};
use crate::error::{Cause, Result};
use crate::layout::{BLOCK, Placement, SIZE_MIN, superblock_offset};
use crate::superblock::{Format, Superblock};
use crate::{Target, blkid};

/// Something on a device that creating metadata would put at risk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Signature {
    /// Its name: `btrfs`, `ext4`, `LVM2_member`, `gpt`, … as libblkid calls it; `drbd-v08` and the
    /// like for metadata of DRBD (`drbd-unfinished` if its creation was cut short, `drbd-moving` if
    /// a move was); `data` for bytes that nobody recognises.
    pub name: String,
    /// What kind of thing it is, as libblkid says: `filesystem`, `raid`, `crypto`, `other`,
    /// `partition table`.
    pub usage: Option<String>,
    /// Byte offset on the device at which it was recognised.
    pub offset: u64,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(usage) = &self.usage {
            write!(f, " ({usage})")?;
        }
        write!(f, " at byte {}", self.offset)
    }
}

/// What [`probe`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// Size of the device in bytes.
    pub size: u64,
    /// Metadata of DRBD at its place for the target's placement.
    pub metadata: Option<Format>,
    /// Everything recognised, DRBD's metadata included.
    pub signatures: Vec<Signature>,
}

impl Found {
    /// Tells whether nothing at all was found, so that the device may be used as it is.
    pub fn is_empty(&self) -> bool {
        self.signatures.is_empty()
    }
}

/// Name of metadata whose creation was cut short.
pub(crate) const UNFINISHED: &str = "drbd-unfinished";
/// Name of what a move of metadata leaves at the new place until it is done.
pub(crate) const MOVING: &str = "drbd-moving";

/// The old fixed-size internal metadata of 0.7 starts this far from the end.
const MD_RESERVED_07: u64 = 128 * 1024 * 1024;

/// Looks at a device: DRBD metadata, and any other signature.
///
/// Does not write. The device may be in use; then the answer is a snapshot. Foreign signatures
/// are recognised by libblkid, which is loaded on first use. If nothing is recognised but the
/// first 68 KiB are not all zero, that is reported as `data`.
///
/// # Errors
/// `NotFound`, `PermissionDenied`, `NotADevice`, `TooSmall` (less than 68 KiB), `Io`;
/// `Unsupported` if libblkid.so.1 cannot be loaded.
///
/// # Privileges
/// Permission to read the device.
pub fn probe(target: &Target) -> Result<Found> {
    let device = Device::open(&target.path, Access::Read, "probe")?;
    look(target, &device)
}

pub(crate) fn check_size(device: &Device) -> Result<()> {
    if device.size() < SIZE_MIN {
        return Err(device.error(
            None,
            Cause::TooSmall {
                size: device.size(),
                needed: SIZE_MIN,
            },
        ));
    }
    Ok(())
}

/// Reads and checks the superblock at the target's place.
///
/// `Ok(None)`: no superblock there. `Err` of kind `Corrupt`: one whose numbers do not fit.
pub(crate) fn superblock(target: &Target, device: &Device) -> Result<Option<Superblock>> {
    check_size(device)?;
    let Some(at) = superblock_offset(target.placement, device.size()) else {
        return Ok(None);
    };
    let block = device.read_block(at)?;
    if crate::resize::Journal::decode(&block).is_some() {
        let text = "a move of metadata to this place was cut short; repeat it";
        return Err(device.error(Some(at), Cause::Interrupted(text)));
    }
    let Some(sb) = Superblock::decode(&block) else {
        return Ok(None);
    };
    sb.check(target.placement, device.size())
        .map_err(|what| device.error(Some(at), Cause::Corrupt(what)))?;
    Ok(Some(sb))
}

pub(crate) fn look(target: &Target, device: &Device) -> Result<Found> {
    check_size(device)?;
    let size = device.size();
    let mut signatures = Vec::new();
    let mut metadata = None;
    if let Some(at) = superblock_offset(target.placement, size) {
        let block = device.read_block(at)?;
        metadata = Superblock::format_of(&block);
        let mut signature = metadata.map(|format| drbd(format, at));
        if let Some(s) = &mut signature
            && Superblock::decode(&block).is_some_and(|sb| sb.is_unfinished())
        {
            s.name = UNFINISHED.into();
        }
        if crate::resize::Journal::decode(&block).is_some() {
            signature = Some(drbd_named(MOVING, at));
        }
        signatures.extend(signature);
    }
    // Internal metadata of 0.7 had its superblock elsewhere; a block left there would come back
    // to life under old tools, so it counts, too.
    if target.placement == Placement::Internal
        && let Some(at) = (size & !(BLOCK - 1)).checked_sub(MD_RESERVED_07)
        && Superblock::format_of(&device.read_block(at)?) == Some(Format::V07)
    {
        signatures.push(drbd(Format::V07, at));
    }
    // A second descriptor: libblkid reads odd lengths, which direct I/O does not allow.
    let foreign = blkid::signatures(&device.cached()?).map_err(|text| {
        let text = format!("cannot tell what is on the device: {text}");
        device.error(None, Cause::Unsupported(text))
    })?;
    for raw in foreign {
        // libblkid knows DRBD, too; ours says which format.
        if raw.name == "drbd" && signatures.iter().any(|s| s.name.starts_with("drbd-")) {
            continue;
        }
        let s = Signature {
            name: raw.name,
            usage: raw.usage,
            offset: raw.offset,
        };
        if !signatures.iter().any(|t| t.name == s.name) {
            signatures.push(s);
        }
    }
    if signatures.iter().all(|s| s.name.starts_with("drbd-")) {
        let head = device.read(0, SIZE_MIN as usize)?;
        let own = target.placement != Placement::Internal;
        let own = own && (metadata.is_some() || !signatures.is_empty());
        if let Some(at) = head.iter().position(|b| *b != 0).filter(|_| !own) {
            signatures.push(Signature {
                name: "data".into(),
                usage: None,
                offset: at as u64,
            });
        }
    }
    Ok(Found {
        size,
        metadata,
        signatures,
    })
}

fn drbd(format: Format, offset: u64) -> Signature {
    drbd_named(&format!("drbd-{format}"), offset)
}

fn drbd_named(name: &str, offset: u64) -> Signature {
    Signature {
        name: name.into(),
        usage: Some("metadata".into()),
        offset,
    }
}
