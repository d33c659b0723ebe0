//! Items of Btrfs trees as `TREE_SEARCH_V2` returns them: bytes only.
//!
//! Everything in a tree is little-endian and unaligned; the headers that the
//! kernel puts between the items are in the machine's order.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, SystemTime};

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

/// A reader of little-endian fields that stops at the end of the item.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }
    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    fn uuid(&mut self) -> Option<Option<Uuid>> {
        Some(Uuid::from_bytes(self.take(16)?.try_into().ok()?))
    }
    fn time(&mut self) -> Option<Option<SystemTime>> {
        Some(time(self.u64()?, self.u32()?))
    }
}

/// A time stamp; zero means that there is none.
pub(crate) fn time(sec: u64, nsec: u32) -> Option<SystemTime> {
    if sec == 0 && nsec == 0 {
        return None;
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(sec, nsec.min(999_999_999)))
}

/// `struct btrfs_root_item`: the state of one subvolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootItem {
    pub(crate) generation: Generation,
    pub(crate) read_only: bool,
    /// 0 for a subvolume that is deleted and not cleaned yet.
    pub(crate) refs: u32,
    pub(crate) uuid: Option<Uuid>,
    pub(crate) parent_uuid: Option<Uuid>,
    pub(crate) received_uuid: Option<Uuid>,
    pub(crate) transids: [u64; 4],
    pub(crate) times: [Option<SystemTime>; 4],
}

/// Decodes a root item; `None` if it is shorter than any kernel writes it.
pub(crate) fn root_item(data: &[u8]) -> Option<RootItem> {
    let mut fields = Fields(data);
    fields.take(160)?; // the inode item
    let generation = fields.u64()?;
    fields.take(40)?; // root_dirid, bytenr, byte_limit, bytes_used, last_snapshot
    let flags = fields.u64()?;
    let refs = fields.u32()?;
    fields.take(17 + 2)?; // drop_progress, drop_level, level
    let mut item = RootItem {
        generation: Generation(generation),
        read_only: flags & ROOT_SUBVOL_RDONLY != 0,
        refs,
        uuid: None,
        parent_uuid: None,
        received_uuid: None,
        transids: [0; 4],
        times: [None; 4],
    };
    // Kernels before 3.6 wrote the item without what follows, or wrote it back
    // without keeping it up; then the second generation is not the first.
    let mut more = || {
        if fields.u64()? != generation {
            return None;
        }
        item.uuid = fields.uuid()?;
        item.parent_uuid = fields.uuid()?;
        item.received_uuid = fields.uuid()?;
        for transid in &mut item.transids {
            *transid = fields.u64()?;
        }
        for time in &mut item.times {
            *time = fields.time()?;
        }
        Some(())
    };
    let _ = more();
    Some(item)
}

/// `struct btrfs_root_ref` with its name: where a subvolume hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackRef {
    pub(crate) parent: SubvolId,
    pub(crate) dir_id: u64,
    pub(crate) name: OsString,
}

/// Decodes the back reference found under `key`.
pub(crate) fn back_ref(key: Key, data: &[u8]) -> Option<BackRef> {
    let mut fields = Fields(data);
    let dir_id = fields.u64()?;
    fields.u64()?; // sequence
    let length = fields.u16()?;
    let name = OsString::from_vec(fields.take(usize::from(length))?.to_vec());
    Some(BackRef {
        parent: SubvolId::from_kernel(key.offset),
        dir_id,
        name,
    })
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
        let found = back_ref(item.key, item.data).unwrap();
        assert_eq!(found.parent, SubvolId::TOP_LEVEL);
        assert_eq!(found.dir_id, 257);
        assert_eq!(found.name, OsString::from_vec(b"a\xffb".to_vec()));
        for cut in 0..bytes.len() {
            assert!(
                items(&bytes[..cut], 1).next().unwrap().is_none(),
                "accepted {cut} bytes"
            );
        }
        for cut in 0..item.data.len() {
            assert!(
                back_ref(item.key, &item.data[..cut]).is_none(),
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
        let item = root_item(&data).unwrap();
        assert_eq!(item.generation, Generation(42));
        assert!(item.read_only);
        assert_eq!(item.uuid, Uuid::from_bytes([7; 16]));
        assert_eq!(item.received_uuid, None);
        assert_eq!(item.transids, [41, 0, 0, 0]);
        assert_eq!(item.times[1], time(1_700_000_000, 0));
        // The form before 3.6 ends behind `level`.
        let old = root_item(&data[..239]).unwrap();
        assert_eq!((old.generation, old.uuid), (Generation(42), None));
        // A kernel that did not know the new fields wrote the item back.
        data[239] = 41;
        assert_eq!(root_item(&data).unwrap().uuid, None);
        for cut in 0..239 {
            assert!(root_item(&data[..cut]).is_none(), "accepted {cut} bytes");
        }
    }
}
