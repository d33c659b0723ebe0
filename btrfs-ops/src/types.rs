//! Ids, transaction numbers, UUIDs and names, each a type of its own.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Id of a subvolume: the number of its tree (`subvolid` of mount options).
///
/// Stable while the subvolume lives and never used again by the same file
/// system. It says nothing across file systems: there, use the UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct SubvolId(u64);

impl SubvolId {
    /// The top level (`BTRFS_FS_TREE_OBJECTID`): parent of all the others.
    #[doc(alias = "BTRFS_FS_TREE_OBJECTID")]
    pub const TOP_LEVEL: Self = Self(5);

    /// Takes a number that came from a mount option, a file or an operator.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`] if no subvolume can have this id: only 5 and
    /// the range from 256 to -257 are subvolumes.
    pub fn new(id: u64) -> Result<Self> {
        if Self(id).is_possible() {
            Ok(Self(id))
        } else {
            Err(Error::message(
                ErrorKind::InvalidName,
                "subvolume id",
                format!("{id}"),
                "no subvolume has this number: ids are 5 (top level) and 256 or more",
            ))
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What the kernel answered, which may be anything.
    pub(crate) const fn from_kernel(id: u64) -> Self {
        Self(id)
    }

    const fn is_possible(self) -> bool {
        self.0 == Self::TOP_LEVEL.0
            || (self.0 >= crate::uapi::FIRST_FREE_OBJECTID
                && self.0 <= crate::uapi::LAST_FREE_OBJECTID)
    }
}

impl fmt::Display for SubvolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transaction number of one file system; later changes have larger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// UUID of a file system, a device or a subvolume. Never all zeros: the kernel
/// writes those for "none", and here that is `Option::None`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// Takes the 16 bytes; `None` if they are all zero.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// The 16 bytes in the order they are printed in.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Uuid {
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

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

impl FromStr for Uuid {
    type Err = Error;

    /// Reads the form that `Display` prints; upper case is accepted too.
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let text = text.as_bytes();
            if text.len() != 36 || ![8, 13, 18, 23].iter().all(|&at| text[at] == b'-') {
                return None;
            }
            let mut digits = text
                .iter()
                .enumerate()
                .filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23))
                .map(|(_, &byte)| char::from(byte).to_digit(16));
            let mut bytes = [0u8; 16];
            for byte in &mut bytes {
                let (high, low) = (digits.next()??, digits.next()??);
                // Two digits below 16.
                *byte = (high << 4 | low) as u8;
            }
            Self::from_bytes(bytes)
        };
        parse().ok_or_else(|| {
            Error::message(
                ErrorKind::InvalidName,
                "uuid",
                text.to_owned(),
                "expected 32 hexadecimal digits in the form 8-4-4-4-12, not all zero",
            )
        })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Uuid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Checks the name of one directory entry before the kernel sees it: its own
/// answers (`EACCES` for an empty name, `EEXIST` for `..`) would mislead.
pub(crate) fn check_name<'a>(op: &'static str, name: &'a OsStr) -> Result<&'a [u8]> {
    let bytes = name.as_bytes();
    let wrong = match bytes {
        b"" => "the name is empty",
        b"." | b".." => "this name is the directory itself or its parent",
        _ if bytes.contains(&b'/') => "a name is one path component and has no '/'",
        _ if bytes.contains(&0) => "the name contains a NUL byte",
        _ if bytes.len() > 255 => "the name is longer than 255 bytes",
        _ => return Ok(bytes),
    };
    Err(Error::message(
        ErrorKind::InvalidName,
        op,
        format!("{}", name.display()),
        wrong,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn uuid_round_trip() {
        let text = "0f8a1b2c-3d4e-5f60-7182-93a4b5c6d7e8";
        let uuid: Uuid = text.parse().unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!(uuid.as_bytes()[..4], [0x0f, 0x8a, 0x1b, 0x2c]);
        assert_eq!(text.to_uppercase().parse::<Uuid>().unwrap(), uuid);
        for wrong in [
            "",
            "0f8a1b2c3d4e5f60718293a4b5c6d7e8",
            "0f8a1b2c-3d4e-5f60-7182-93a4b5c6d7e",
            "0f8a1b2c-3d4e-5f60-7182-93a4b5c6d7eg",
            "0f8a1b2c-3d4e-5f60-7182-93a4b5c6d7é",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert!(wrong.parse::<Uuid>().is_err(), "accepted {wrong:?}");
        }
        assert_eq!(Uuid::from_bytes([0; 16]), None);
    }

    #[test]
    fn names() {
        for name in ["a", "...", " ", "x\n", &"é".repeat(127)] {
            assert!(
                check_name("test", OsStr::new(name)).is_ok(),
                "refused {name:?}"
            );
        }
        assert!(check_name("test", OsStr::from_bytes(b"\xff\xfe")).is_ok());
        for name in ["", ".", "..", "a/b", "/", "a\0b", &"a".repeat(256)] {
            let error = check_name("test", OsStr::new(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}");
        }
        assert!(check_name("test", OsStr::new(&"a".repeat(255))).is_ok());
    }

    #[test]
    fn subvolume_ids() {
        assert_eq!(SubvolId::new(5).unwrap(), SubvolId::TOP_LEVEL);
        assert_eq!(SubvolId::new(256).unwrap().get(), 256);
        for wrong in [0, 1, 4, 6, 255, u64::MAX] {
            assert!(SubvolId::new(wrong).is_err(), "accepted {wrong}");
        }
    }
}
