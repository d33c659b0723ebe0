//! Items of Btrfs trees as `TREE_SEARCH_V2` returns them: bytes only.
//!
//! Everything in a tree is little-endian and unaligned; the headers that the
//! kernel puts between the items are in the machine's order.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, SystemTime};

use crate::subvolume::{Access, SubvolumeInfo};
use crate::types::{Generation, SubvolId, Uuid};
use crate::uapi::{ROOT_SUBVOL_RDONLY, SearchKey};

/// A place in a tree: keys compare as (objectid, type, offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) objectid: u64,
    pub(crate) kind: u32,
    pub(crate) offset: u64,
}

impl Key {
    /// The next key that can exist; `None` after the last one.
    pub(crate) fn next(self) -> Option<Self> {
        // A type is a u8 on disk, so the carry comes after 255.
        if let Some(offset) = self.offset.checked_add(1) {
            Some(Self { offset, ..self })
        } else if self.kind < 255 {
            Some(Self {
                offset: 0,
                kind: self.kind + 1,
                ..self
            })
        } else {
            let objectid = self.objectid.checked_add(1)?;
            Some(Self {
                objectid,
                kind: 0,
                offset: 0,
            })
        }
    }

    /// Makes `search` go on at this key.
    pub(crate) fn start(self, search: &mut SearchKey) {
        search.min_objectid = self.objectid;
        search.min_type = self.kind;
        search.min_offset = self.offset;
    }
}

/// One item of a search result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) key: Key,
    pub(crate) data: &'a [u8],
}

/// The items in a result; `None` in place of one that the buffer cuts off.
pub(crate) fn items(mut bytes: &[u8], count: u32) -> impl Iterator<Item = Option<Item<'_>>> {
    (0..count).map(move |_| {
        let (header, rest) = bytes.split_at_checked(32)?;
        let word = |at: usize| Some(u64::from_ne_bytes(header.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let key = Key {
            objectid: word(8)?,
            offset: word(16)?,
            kind: half(24)?,
        };
        let (data, rest) = rest.split_at_checked(usize::try_from(half(28)?).ok()?)?;
        bytes = rest;
        Some(Item { key, data })
    })
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    bytes(data, at).map(u32::from_le_bytes)
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    bytes(data, at).map(u64::from_le_bytes)
}

/// A time stamp; zero means that there is none.
pub(crate) fn time(sec: u64, nsec: u32) -> Option<SystemTime> {
    if sec == 0 && nsec == 0 {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(sec, nsec.min(999_999_999)))
}

/// Decodes `struct btrfs_root_item`, the state of a subvolume, into `info`. The
/// references are zero for one that is deleted and not cleaned yet. `None` if it
/// is shorter than any kernel writes it.
pub(crate) fn root_item(data: &[u8], info: &mut SubvolumeInfo) -> Option<u32> {
    // Before it are the inode item and where its tree is; behind it, how far its
    // deletion is.
    let generation = u64_at(data, 160)?;
    let read_only = u64_at(data, 208)? & ROOT_SUBVOL_RDONLY != 0;
    let refs = u32_at(data, 216)?;
    let more = data.get(239..)?;
    info.generation = Generation(generation);
    info.access = Access::from_read_only(read_only);
    // Kernels before 3.6 wrote the item without what follows, or wrote it back
    // without keeping it up; then the second generation is not the first.
    if let Some(more) = more.first_chunk::<136>()
        && u64_at(more, 0) == Some(generation)
    {
        let some = |transid: u64| (transid != 0).then_some(Generation(transid));
        info.uuid = Uuid::from_bytes(bytes(more, 8)?);
        info.parent_uuid = Uuid::from_bytes(bytes(more, 24)?);
        info.received_uuid = Uuid::from_bytes(bytes(more, 40)?);
        info.ctransid = Generation(u64_at(more, 56)?);
        info.otransid = Generation(u64_at(more, 64)?);
        info.stransid = some(u64_at(more, 72)?);
        info.rtransid = some(u64_at(more, 80)?);
        let time = |at| Some(time(u64_at(more, at)?, u32_at(more, at + 8)?));
        info.ctime = time(88)?;
        info.otime = time(100)?;
        info.stime = time(112)?;
        info.rtime = time(124)?;
    }
    Some(refs)
}

/// Decodes `struct btrfs_root_ref` and the name behind it, found as a back
/// reference under `key`, into `info`: where a subvolume hangs. Returns the
/// subvolume and directory there.
pub(crate) fn back_ref(key: Key, data: &[u8], info: &mut SubvolumeInfo) -> Option<(SubvolId, u64)> {
    let parent = SubvolId::from_kernel(key.offset);
    let dir_id = u64_at(data, 0)?;
    // The sequence number is between them.
    let length = bytes(data, 16).map(u16::from_le_bytes)?;
    let name = data.get(18..)?.get(..usize::from(length))?;
    info.parent = Some(parent);
    info.dir_id = dir_id;
    info.name = OsString::from_vec(name.to_vec());
    Some((parent, dir_id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn keys_carry() {
        let key = Key {
            objectid: 256,
            kind: 132,
            offset: 0,
        };
        assert_eq!(key.next(), Some(Key { offset: 1, ..key }));
        let last = Key {
            offset: u64::MAX,
            ..key
        };
        assert_eq!(
            last.next(),
            Some(Key {
                objectid: 256,
                kind: 133,
                offset: 0
            })
        );
        let last = Key { kind: 255, ..last };
        assert_eq!(
            last.next(),
            Some(Key {
                objectid: 257,
                kind: 0,
                offset: 0
            })
        );
        assert_eq!(
            Key {
                objectid: u64::MAX,
                ..last
            }
            .next(),
            None
        );
    }

    #[test]
    fn cut_results_are_refused() {
        let mut bytes = Vec::new();
        bytes.extend(9u64.to_ne_bytes()); // transid
        bytes.extend(256u64.to_ne_bytes());
        bytes.extend(5u64.to_ne_bytes());
        bytes.extend(144u32.to_ne_bytes());
        bytes.extend(21u32.to_ne_bytes());
        bytes.extend(257u64.to_le_bytes());
        bytes.extend(7u64.to_le_bytes());
        bytes.extend(3u16.to_le_bytes());
        bytes.extend(b"a\xffb");
        let item = items(&bytes, 1).next().unwrap().unwrap();
        let mut info = SubvolumeInfo::blank(SubvolId::from_kernel(256));
        let place = back_ref(item.key, item.data, &mut info).unwrap();
        assert_eq!(place, (SubvolId::TOP_LEVEL, 257));
        assert_eq!((info.parent, info.dir_id), (Some(place.0), place.1));
        assert_eq!(info.name, OsString::from_vec(b"a\xffb".to_vec()));
        for cut in 0..bytes.len() {
            assert!(
                items(&bytes[..cut], 1).next().unwrap().is_none(),
                "accepted {cut} bytes"
            );
        }
        for cut in 0..item.data.len() {
            assert!(
                back_ref(item.key, &item.data[..cut], &mut info).is_none(),
                "accepted {cut} bytes"
            );
        }
    }

    #[test]
    fn root_items_of_both_lengths() {
        let mut data = vec![0u8; 439];
        data[160..168].copy_from_slice(&42u64.to_le_bytes());
        data[208..216].copy_from_slice(&1u64.to_le_bytes());
        data[216..220].copy_from_slice(&1u32.to_le_bytes());
        data[239..247].copy_from_slice(&42u64.to_le_bytes());
        data[247..263].copy_from_slice(&[7; 16]);
        data[295..303].copy_from_slice(&41u64.to_le_bytes());
        data[339..347].copy_from_slice(&1_700_000_000u64.to_le_bytes());
        let read = |data: &[u8]| {
            let mut info = SubvolumeInfo::blank(SubvolId::TOP_LEVEL);
            root_item(data, &mut info).map(|refs| (refs, info))
        };
        let (refs, info) = read(&data).unwrap();
        assert_eq!((refs, info.generation), (1, Generation(42)));
        assert_eq!(info.access, Access::ReadOnly);
        assert_eq!(info.uuid, Uuid::from_bytes([7; 16]));
        assert_eq!(info.received_uuid, None);
        assert_eq!(
            (info.ctransid, info.otransid),
            (Generation(41), Generation(0))
        );
        assert_eq!((info.stransid, info.rtransid), (None, None));
        assert_eq!(info.otime, time(1_700_000_000, 0));
        assert_eq!(info.ctime, None);
        // The form before 3.6 ends behind `level`.
        let (refs, old) = read(&data[..239]).unwrap();
        assert_eq!((refs, old.generation, old.uuid), (1, Generation(42), None));
        // A kernel that did not know the new fields wrote the item back.
        data[239] = 41;
        assert_eq!(read(&data).unwrap().1.uuid, None);
        for cut in 0..239 {
            assert!(read(&data[..cut]).is_none(), "accepted {cut} bytes");
        }
    }
}
