//! Just enough of Btrfs on a device to say what is there.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};

/// UUID of a Btrfs file system.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fsid([u8; 16]);

impl Fsid {
    /// Takes the 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes in the order they are printed in.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Fsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fsid({self})")
    }
}

/// What the first superblock of a Btrfs says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BtrfsOnDevice {
    /// UUID of the file system.
    pub fsid: Fsid,
    /// Transaction that wrote this superblock.
    pub generation: u64,
    /// Size of all its devices in bytes.
    pub total_bytes: u64,
    /// Number of its devices.
    pub devices: u64,
    /// Its label; empty if it has none.
    pub label: OsString,
}

/// Looks whether `device` holds a Btrfs, by its first superblock. `None` if it
/// does not. Reads from the device; it need not be mounted.
///
/// # Errors
///
/// [`ErrorKind::NotReady`](crate::ErrorKind::NotReady) for a DRBD device that
/// is Secondary, and what opening or reading it said.
///
/// # Source
///
/// `struct btrfs_super_block`, linux/btrfs_tree.h.
pub fn find_btrfs(device: &Path) -> Result<Option<BtrfsOnDevice>> {
    const OP: &str = "look for Btrfs on";
    let wrap = |error: io::Error| {
        let not_now = error.raw_os_error() == Some(libc::EMEDIUMTYPE);
        let error = Error::path(OP, device)(error);
        if not_now {
            error.with_text("a DRBD device opens only as Primary")
        } else {
            error
        }
    };
    let file = File::open(device).map_err(wrap)?;
    let mut block = vec![0u8; SUPERBLOCK_LEN];
    match file.read_exact_at(&mut block, SUPERBLOCK_AT) {
        Ok(()) => Ok(parse(&block)),
        // Too small to hold one.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(wrap(error)),
    }
}

/// `BTRFS_SUPER_INFO_OFFSET`.
const SUPERBLOCK_AT: u64 = 65536;
/// `BTRFS_SUPER_INFO_SIZE`.
const SUPERBLOCK_LEN: usize = 4096;
/// `BTRFS_MAGIC`.
const MAGIC: &[u8] = b"_BHRfS_M";

fn parse(block: &[u8]) -> Option<BtrfsOnDevice> {
    if block.get(64..72)? != MAGIC {
        return None;
    }
    let word = |at: usize| Some(u64::from_le_bytes(block.get(at..at + 8)?.try_into().ok()?));
    let label = block.get(299..299 + 256)?;
    let end = label.iter().position(|&b| b == 0).unwrap_or(label.len());
    Some(BtrfsOnDevice {
        fsid: Fsid(block.get(32..48)?.try_into().ok()?),
        generation: word(72)?,
        total_bytes: word(112)?,
        devices: word(136)?,
        label: OsStr::from_bytes(&label[..end]).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn fields() {
        let mut block = vec![0u8; SUPERBLOCK_LEN];
        assert_eq!(parse(&block), None);
        block[64..72].copy_from_slice(MAGIC);
        block[32..48].copy_from_slice(&[0xab; 16]);
        block[72..80].copy_from_slice(&7u64.to_le_bytes());
        block[112..120].copy_from_slice(&(1u64 << 30).to_le_bytes());
        block[136] = 1;
        block[299..304].copy_from_slice(b"store");
        let found = parse(&block).unwrap();
        assert_eq!(
            found.fsid.to_string(),
            "abababab-abab-abab-abab-abababababab"
        );
        assert_eq!(
            (found.generation, found.devices, found.total_bytes),
            (7, 1, 1 << 30)
        );
        assert_eq!(found.label, "store");
        for cut in 0..555 {
            assert_eq!(parse(&block[..cut]), None, "accepted {cut} bytes");
        }
    }
}
