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

/// A release of DRBD, such as 9.2.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Release {
    /// 8 or 9.
    pub major: u16,
    /// The branch.
    pub minor: u16,
    /// The number in the branch.
    pub patch: u16,
}

impl Release {
    /// A release.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Reads what the module calls itself: `8.4.11`, `9.3.0-rc.1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().splitn(3, '.').map(|part| {
            let digits = part.split(|c: char| !c.is_ascii_digit()).next();
            digits.and_then(|digits| digits.parse().ok())
        });
        Some(Self {
            major: numbers.next()??,
            minor: numbers.next()??,
            patch: numbers.next()??,
        })
    }

    /// Whether this release has what came with one of `since`, given one a
    /// branch: its own branch decides, a later branch has everything.
    #[must_use]
    pub fn has(self, since: &[Self]) -> bool {
        let branch = |release: &Self| (release.major, release.minor);
        match since.iter().find(|least| branch(least) == branch(&self)) {
            Some(least) => self >= *least,
            None => since.iter().max().is_none_or(|newest| self > *newest),
        }
    }

    /// `9.1.18 or 9.2.6`.
    pub(crate) fn list(releases: &[Self]) -> String {
        let words: Vec<_> = releases.iter().map(ToString::to_string).collect();
        words.join(" or ")
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Release {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_compared() {
        let parse = |text| Release::parse(text);
        assert_eq!(parse("8.4.11"), Some(Release::new(8, 4, 11)));
        assert_eq!(parse("9.3.0-rc.1\n"), Some(Release::new(9, 3, 0)));
        assert_eq!(parse("9.0.29-1"), Some(Release::new(9, 0, 29)));
        for bad in ["", "9", "9.2", "a.b.c", "9..1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let since = [Release::new(9, 0, 29), Release::new(9, 1, 2)];
        for (text, has) in [
            ("9.0.28", false),
            ("9.0.29", true),
            ("9.1.1", false),
            ("9.1.2", true),
            ("9.2.0", true),
        ] {
            assert_eq!(parse(text).unwrap().has(&since), has, "{text}");
        }
        assert!(parse("9.0.0").unwrap().has(&[]));
    }
}
