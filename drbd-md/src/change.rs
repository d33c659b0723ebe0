//! Changes of a superblock: one block, replaced at once.

use crate::Target;
use crate::create::{place, write_superblock};
use crate::device::{Access, Buffer, Device};
use crate::error::{Cause, Result};
use crate::layout::{BLOCK, Layout, Placement, bitmap_bytes, superblock_offset};
use crate::probe;
use crate::superblock::{DRBD_PEERS_MAX, Flags, Format, Peer, PeerFlags, Superblock};
use crate::units::{Sectors, Uuid};

struct Opened {
    device: Device,
    at: u64,
    sb: Superblock,
    layout: Layout,
}

fn open(target: &Target, op: &'static str) -> Result<Opened> {
    let device = Device::open(&target.path, Access::Exclusive, op)?;
    let at = superblock_offset(target.placement, device.size());
    let sb =
        probe::superblock(target, &device)?.ok_or_else(|| device.error(at, Cause::NoMetadata))?;
    let outside = "log or bitmap are outside of the device";
    let layout = Layout::of(&sb, target.placement, device.size())
        .ok_or_else(|| device.error(at, Cause::Corrupt(outside.into())))?;
    Ok(Opened {
        at: layout.superblock,
        device,
        sb,
        layout,
    })
}

impl Opened {
    /// Writes the changed superblock, as drbdmeta does: with no more size than there is.
    fn write(mut self) -> Result<Superblock> {
        self.sb.effective_size = Sectors(self.sb.effective_size.0.min(self.layout.usable));
        write_superblock(&self.device, self.at, &self.sb)?;
        Ok(self.sb)
    }

    fn state(&self, text: impl Into<String>) -> crate::Error {
        self.device.error(Some(self.at), Cause::State(text.into()))
    }
}

/// Marks the data as outdated: it must not be used while a peer may have newer data.
///
/// Returns the superblock as written.
///
/// # Errors
/// `WrongState` if the data is inconsistent, which is worse than outdated; `NoMetadata`, `Corrupt`,
/// `InUse` while the device is attached, and the errors of opening, reading and writing.
///
/// # Privileges
/// Permission to write the device.
pub fn outdate(target: &Target) -> Result<Superblock> {
    let mut o = open(target, "outdate")?;
    if !o.sb.flags.contains(Flags::CONSISTENT) {
        return Err(o.state("the data is inconsistent, which is worse than outdated"));
    }
    o.sb.flags -= Flags::WAS_UP_TO_DATE;
    o.write()
}

/// Marks the data as inconsistent: all of it has to be synchronised from a peer.
///
/// # Errors
/// `NoMetadata`, `Corrupt`, `InUse`, and the errors of opening, reading and writing.
///
/// # Privileges
/// Permission to write the device.
pub fn invalidate(target: &Target) -> Result<Superblock> {
    let mut o = open(target, "invalidate")?;
    o.sb.flags -= Flags::CONSISTENT | Flags::WAS_UP_TO_DATE;
    match o.sb.format {
        Format::V09 => {
            for peer in &mut o.sb.peers {
                peer.flags |= PeerFlags::FULL_SYNC.bits();
            }
        }
        _ => o.sb.flags |= Flags::FULL_SYNC,
    }
    o.write()
}

/// Forgets a peer (v09): its bitmap slot becomes free for another node.
///
/// The bits of the slot stay, as with drbdmeta; the driver sets them all before it uses the slot
/// for another peer. The generation taken over is that of a node id that never was a peer.
///
/// # Errors
/// `WrongState` in format v08, which knows one peer only; `InvalidOption` for a node id above 31
/// or this node's own; and those of [`invalidate`].
///
/// # Privileges
/// Permission to write the device.
pub fn forget_peer(target: &Target, node_id: u8) -> Result<Superblock> {
    let mut o = open(target, "forget peer on")?;
    if o.sb.format != Format::V09 {
        return Err(o.state(format!("format {} knows one peer only", o.sb.format)));
    }
    if o.sb.node_id == Some(node_id) {
        let text = format!("{node_id} is this node's own id");
        return Err(o.device.error(None, Cause::InvalidOption(text)));
    }
    let never =
        o.sb.peers
            .iter()
            .find(|p| p.node_id != o.sb.node_id && p.bitmap_index.is_none())
            .copied();
    let Some(peer) = o.sb.peers.iter_mut().find(|p| p.node_id == Some(node_id)) else {
        let text = format!("node id {node_id} (0 to 31 are possible)");
        return Err(o.device.error(None, Cause::InvalidOption(text)));
    };
    peer.bitmap_index = None;
    peer.flags = 0;
    peer.bitmap_uuid = never.and_then(|p| p.bitmap_uuid);
    peer.bitmap_dagtag = never.map_or(0, |p| p.bitmap_dagtag);
    o.write()
}

/// Generation identifiers to be set. What is `None` stays as it is.
///
/// These decide who overwrites whom when two nodes meet. A wrong value loses data in silence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Generations {
    /// Generation of the data.
    pub current: Option<Uuid>,
    /// Generation against which the peer's bitmap counts; `Some(None)` clears it.
    pub bitmap: Option<Option<Uuid>>,
    /// Former generations, newest first.
    pub history: Option<Vec<Uuid>>,
    /// State of the device.
    pub flags: Option<Flags>,
    /// State of the peer (v09).
    pub peer_flags: Option<PeerFlags>,
}

/// Sets generation identifiers. `peer` is the node id of the peer in v09, and `None` in v08.
///
/// # Errors
/// `InvalidOption` if the peer does not go with the format, or there are more former generations
/// than the format holds; and those of [`invalidate`].
///
/// # Privileges
/// Permission to write the device.
pub fn set_generations(target: &Target, peer: Option<u8>, to: &Generations) -> Result<Superblock> {
    let mut o = open(target, "set generation of")?;
    let most = if o.sb.format == Format::V09 { 32 } else { 2 };
    let invalid = |text: String| Err(o.device.error(None, Cause::InvalidOption(text)));
    if let Some(history) = to.history.as_ref().filter(|h| h.len() > most) {
        let text = format!("{} former generations, {most} are possible", history.len());
        return invalid(text);
    }
    if o.sb.format != Format::V09 && to.peer_flags.is_some() {
        return invalid("format v08 has no flags of a peer".into());
    }
    let Some(at) = o.sb.peers.iter().position(|p| p.node_id == peer) else {
        return invalid(match peer {
            Some(id) => format!("format {} has no peer with node id {id}", o.sb.format),
            None => "format v09 needs the node id of the peer".into(),
        });
    };
    if let Some(current) = to.current {
        o.sb.current_uuid = Some(current);
    }
    if let Some(bitmap) = to.bitmap {
        o.sb.peers[at].bitmap_uuid = bitmap;
    }
    if let Some(history) = &to.history {
        o.sb.history_uuids.clone_from(history);
    }
    if let Some(flags) = to.flags {
        o.sb.flags = flags;
    }
    if let Some(flags) = to.peer_flags {
        o.sb.peers[at].flags = flags.bits();
    }
    o.write()
}

/// Removes the superblock. What it said is lost; log and bitmap stay as bytes without meaning.
///
/// Returns the superblock as it was.
///
/// # Errors
/// `NoMetadata` if there is none, so that nothing else is erased by mistake; `Corrupt`, `InUse`,
/// and the errors of opening, reading and writing.
///
/// # Privileges
/// Permission to write the device.
pub fn wipe(target: &Target) -> Result<Superblock> {
    let o = open(target, "wipe metadata of")?;
    let zeros = Buffer::zeroed(BLOCK as usize);
    o.device.write(o.at, &zeros)?;
    o.device.flush_and_verify(o.at, &zeros)?;
    Ok(o.sb)
}

/// Converts between the formats of DRBD 8.4 (v08) and 9 (v09, with room for one peer).
///
/// Identifiers and flags are taken over; the node id is left to the driver's first attach. The
/// superblock is replaced in one block, so that a crash leaves one format or the other. Returns the
/// superblock as written. Nothing happens if the format is right already.
///
/// # Errors
/// `WrongState` if the activity log was not applied, or if blocks are marked out of sync in a v09
/// bitmap with room for several peers, which v08 does not have; `Unsupported` for other formats; and
/// those of [`invalidate`].
///
/// # Privileges
/// Permission to write the device.
pub fn convert(target: &Target, to: Format) -> Result<Superblock> {
    let mut o = open(target, "convert metadata of")?;
    if o.sb.format == to {
        return Ok(o.sb);
    }
    if o.sb.needs_activity_log_applied() {
        return Err(o.state("the activity log has to be applied first"));
    }
    let old = &mut o.sb;
    match to {
        Format::V09 => {
            let flag = |on: Flags, peer: PeerFlags| {
                if old.flags.contains(on) {
                    peer
                } else {
                    PeerFlags::empty()
                }
            };
            let flags = flag(Flags::CONNECTED_IND, PeerFlags::CONNECTED)
                | flag(Flags::FULL_SYNC, PeerFlags::FULL_SYNC)
                | flag(Flags::PEER_OUT_DATED, PeerFlags::OUTDATED);
            old.flags -= Flags::CONNECTED_IND | Flags::FULL_SYNC | Flags::PEER_OUT_DATED;
            old.peers = (0..DRBD_PEERS_MAX as u8)
                .map(|id| Peer {
                    node_id: Some(id),
                    bitmap_uuid: None,
                    bitmap_dagtag: 0,
                    flags: if id == 0 { flags.bits() } else { 0 },
                    bitmap_index: None,
                })
                .collect();
            old.node_id = None;
        }
        Format::V08 => {
            // The one bitmap will lie where the end of the others is now.
            let whole = bitmap_bytes(o.device.size() >> 9, old.bm_bytes_per_bit, old.max_peers);
            let whole = match target.placement {
                Placement::Internal => whole,
                _ => whole.min(o.layout.bitmap_room(old)),
            };
            if old.max_peers > 1 && !is_zero(&o.device, o.layout.bitmap, whole)? {
                let text = "blocks are marked out of sync in bitmaps for several peers";
                return Err(o.state(format!("{text}; synchronise them first")));
            }
            let flags = PeerFlags::from_bits_retain(old.peers.first().map_or(0, |p| p.flags));
            for (peer, own) in [
                (PeerFlags::CONNECTED, Flags::CONNECTED_IND),
                (PeerFlags::FULL_SYNC, Flags::FULL_SYNC),
                (PeerFlags::OUTDATED, Flags::PEER_OUT_DATED),
            ] {
                if flags.contains(peer) {
                    old.flags |= own;
                }
            }
            old.peers.truncate(1);
            for peer in &mut old.peers {
                (peer.node_id, peer.flags, peer.bitmap_index) = (None, 0, Some(0));
                peer.bitmap_dagtag = 0;
            }
            old.history_uuids.truncate(2);
            (old.members, old.node_id, old.max_peers) = (0, None, 1);
        }
        Format::V07 => {
            let text = "conversion to format v07".into();
            return Err(o.device.error(None, Cause::Unsupported(text)));
        }
    }
    o.sb.format = to;
    o.layout = place(target, &o.device, &mut o.sb)?;
    o.write()
}

/// Tells whether a range is all zero.
fn is_zero(device: &Device, from: u64, len: u64) -> Result<bool> {
    const AT_ONCE: u64 = 1 << 20;
    let mut at = from;
    while at < from + len {
        let n = AT_ONCE.min(from + len - at);
        if device.read(at, n as usize)?.iter().any(|b| *b != 0) {
            return Ok(false);
        }
        at += n;
    }
    Ok(true)
}
