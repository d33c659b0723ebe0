//! Bytes of netlink messages: headers, generic netlink headers, attributes.
//!
//! Nothing here knows DRBD or holds a file descriptor. Everything is generic
//! over the byte order ([`Endian`]), because netlink is host-endian: the
//! client uses [`Native`], tests read both orders on one machine.
//!
//! A reader never indexes past what it was given: every length is checked
//! and a broken message is a [`WireError`] that names the byte offset.

mod attr;
mod nlmsg;

pub(crate) use attr::NLA_F_NESTED;
pub use attr::{Attr, Attrs, Nest};
pub use nlmsg::{Control, DrbdHeader, GENL_HDRLEN, GenlHeader, MessageBuilder, Messages, NlMsg};
pub(crate) use nlmsg::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST};
#[cfg(feature = "testing")]
pub(crate) use nlmsg::{NLM_F_MULTI, NLMSG_DONE, NLMSG_ERROR};

use std::fmt;

/// Alignment of netlink messages and attributes (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
pub(crate) const ALIGN: usize = 4;

/// Rounds up to the alignment of netlink messages and attributes.
pub(crate) const fn align(len: usize) -> usize {
    len.saturating_add(ALIGN - 1) & !(ALIGN - 1)
}

/// Byte order of a netlink peer.
pub trait Endian: Copy + fmt::Debug + 'static {
    /// Whether the most significant byte comes first.
    const BIG: bool;

    /// Two bytes as a number.
    #[must_use]
    fn u16(bytes: [u8; 2]) -> u16 {
        if Self::BIG {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    /// Four bytes as a number.
    #[must_use]
    fn u32(bytes: [u8; 4]) -> u32 {
        if Self::BIG {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }

    /// Eight bytes as a number.
    #[must_use]
    fn u64(bytes: [u8; 8]) -> u64 {
        if Self::BIG {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        }
    }

    /// A number as two bytes.
    #[must_use]
    fn put16(value: u16) -> [u8; 2] {
        if Self::BIG {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    /// A number as four bytes.
    #[must_use]
    fn put32(value: u32) -> [u8; 4] {
        if Self::BIG {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    /// A number as eight bytes.
    #[must_use]
    fn put64(value: u64) -> [u8; 8] {
        if Self::BIG {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }
}

/// Least significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Little;

/// Most significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Big;

impl Endian for Little {
    const BIG: bool = false;
}

impl Endian for Big {
    const BIG: bool = true;
}

/// The byte order of this machine.
#[cfg(target_endian = "little")]
pub type Native = Little;

/// The byte order of this machine.
#[cfg(target_endian = "big")]
pub type Native = Big;

/// A message that breaks the format: what was being read, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// What was being read.
    pub what: &'static str,
    /// Byte offset, counted from the start of what was being read.
    pub at: usize,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for WireError {}

/// Reads `N` bytes at `at`, or says what is missing.
pub(crate) fn take<const N: usize>(
    bytes: &[u8],
    at: usize,
    what: &'static str,
) -> Result<[u8; N], WireError> {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end))
        .and_then(|slice| slice.try_into().ok())
        .ok_or(WireError { what, at })
}
