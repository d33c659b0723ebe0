//! Names, numbers and units.

use smallvec::SmallVec;
use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[cfg_attr(feature = "serde", serde(transparent))]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number! {
    /// Minor number of a device: `/dev/drbdN`.
    Minor(u32)
}
number! {
    /// Number of a volume within its resource.
    VolumeNumber(u32)
}
number! {
    /// Node id of DRBD 9: 0 to 31. DRBD 8.4 has none.
    NodeId(u32)
}
number! {
    /// A number of 512-byte sectors.
    Sectors(u64)
}

impl Sectors {
    /// The same amount in bytes; `None` past 2^64.
    #[must_use]
    pub fn to_bytes(self) -> Option<u64> {
        self.0.checked_mul(512)
    }
}

impl Minor {
    /// The device node that devtmpfs and udev make for this minor.
    #[must_use]
    pub fn device_path(self) -> std::path::PathBuf {
        format!("/dev/drbd{}", self.0).into()
    }
}

/// A data generation identifier (`UUID` in DRBD's words), as stored in the
/// metadata. Bit 0 tells whether the node was Primary when it was written;
/// compare with [`Uuid::same_generation`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u64);

impl Uuid {
    /// `UUID_JUST_CREATED`: the generation of metadata that was never used.
    pub const JUST_CREATED: Self = Self(4);

    /// `None` for the zero that DRBD stores for "no generation".
    #[must_use]
    pub fn from_wire(value: u64) -> Option<Self> {
        (value != 0).then_some(Self(value))
    }

    /// Equal but for the Primary bit.
    #[must_use]
    pub fn same_generation(self, other: Self) -> bool {
        self.0 & !1 == other.0 & !1
    }

    /// Whether this is [`Uuid::JUST_CREATED`] (but for the Primary bit).
    #[must_use]
    pub fn is_just_created(self) -> bool {
        self.same_generation(Self::JUST_CREATED)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes that DRBD treats as a string: usually UTF-8, but nobody checks.
///
/// `Display` replaces what is not UTF-8 and escapes control characters;
/// [`Text::as_bytes`] has what is there.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(SmallVec<[u8; SHORT]>);

/// Names of up to this many bytes need no allocation; nearly all are shorter.
const SHORT: usize = 24;

impl Text {
    /// The bytes as they are.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The string, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lossy = String::from_utf8_lossy(&self.0);
        if !lossy.contains(char::is_control) {
            return f.pad(&lossy);
        }
        let escaped: String = lossy
            .chars()
            .flat_map(|c| {
                let (plain, escape) = if c.is_control() {
                    (None, Some(c.escape_default()))
                } else {
                    (Some(c), None)
                };
                plain.into_iter().chain(escape.into_iter().flatten())
            })
            .collect();
        f.pad(&escaped)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl From<&str> for Text {
    fn from(value: &str) -> Self {
        Self::from_bytes(value.as_bytes())
    }
}

impl From<String> for Text {
    fn from(value: String) -> Self {
        Self(SmallVec::from_vec(value.into_bytes()))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Name of a resource.
///
/// [`ResourceName::new`] takes what every DRBD accepts; a name that came
/// from a kernel is kept whatever it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct ResourceName(Text);

impl ResourceName {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 127;

    /// A name that DRBD accepts: 1 to 127 bytes, no `/`, no white space or
    /// control characters, not `all`.
    ///
    /// # Errors
    /// [`InvalidName`] says what is wrong with it.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let reason = if name.is_empty() {
            "is empty"
        } else if name.len() > Self::MAX_LEN {
            "is longer than 127 bytes"
        } else if name == "all" {
            "is the word drbd's tools use for every resource"
        } else if name.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'/') {
            "has white space, a control character or a slash"
        } else {
            return Ok(Self(name.into()));
        };
        Err(InvalidName {
            name: name.into(),
            reason,
        })
    }

    /// A name that a kernel gave.
    #[must_use]
    pub fn from_kernel(bytes: &[u8]) -> Self {
        Self(Text::from_bytes(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The name, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_str()
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for ResourceName {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl TryFrom<&str> for ResourceName {
    type Error = InvalidName;

    fn try_from(s: &str) -> Result<Self, Self::Error> {
        Self::new(s)
    }
}

impl PartialEq<str> for ResourceName {
    fn eq(&self, other: &str) -> bool {
        self.0 == *other
    }
}

impl PartialEq<&str> for ResourceName {
    fn eq(&self, other: &&str) -> bool {
        self.0 == **other
    }
}

/// A name that DRBD would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    name: Text,
    reason: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "resource name \"{}\" {}", self.name, self.reason)
    }
}

impl std::error::Error for InvalidName {}

/// A shared secret: never shown by `Debug`, `Display`, JSON or errors.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Text);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: impl Into<Text>) -> Self {
        Self(secret.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &Text {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once() {
        assert!(ResourceName::new("r0").is_ok());
        assert!(ResourceName::new(&"x".repeat(127)).is_ok());
        for bad in ["", "all", "a b", "a/b", "a\n", "\u{7f}", &"x".repeat(128)] {
            assert!(ResourceName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?} {secret}").contains("hunter2"));
        assert_eq!(*secret.reveal(), "hunter2");
    }

    #[test]
    fn text_shows_what_it_can() {
        let text = Text::from_bytes(b"a\xff\n");
        assert_eq!(text.to_string(), "a\u{fffd}\\n");
        assert_eq!(format!("{text:?}"), "\"a\\xff\\n\"");
        assert_eq!(text.as_str(), None);
    }

    #[test]
    fn uuids() {
        assert_eq!(Uuid::from_wire(0), None);
        assert!(Uuid(5).is_just_created());
        assert_eq!(Uuid(0xAB).to_string(), "00000000000000AB");
    }
}
