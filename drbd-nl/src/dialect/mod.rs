//! The seam between the typed model and bytes: DRBD 8.4 and 9 differ here
//! and nowhere else.
//!
//! [`request`] builds requests, [`decode`] reads outcomes, dumps and events.
//! A third dialect would be a third arm in these two files and in the
//! attribute tables of the options.

pub(crate) mod decode;
pub(crate) mod request;

use std::fmt;

/// Which of DRBD's two interfaces a kernel speaks.
///
/// Told apart by the version of the generic netlink family: 1 or 2. A kernel
/// with DRBD 9 may offer the 8.4 interface as well; then it is treated as 8.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Dialect {
    /// DRBD 8.4: every mainline kernel.
    V84,
    /// DRBD 9.
    V9,
}

impl Dialect {
    /// The version that goes into the generic netlink header.
    #[must_use]
    pub fn version(self) -> u8 {
        match self {
            Self::V84 => 1,
            Self::V9 => 2,
        }
    }

    /// The dialect of a family version; `None` for one this crate does not speak.
    #[must_use]
    pub fn from_version(version: u32) -> Option<Self> {
        match version {
            1 => Some(Self::V84),
            2 => Some(Self::V9),
            _ => None,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V84 => "DRBD 8.4",
            Self::V9 => "DRBD 9",
        })
    }
}
