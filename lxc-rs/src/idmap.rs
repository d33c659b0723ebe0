//! Ids inside a container and ids of the machine: the lines of `lxc.idmap`.

use std::fmt;

/// One line: `u 0 100000 65536`, that is whose ids, the first inside, the
/// first outside, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    users: bool,
    inside: u32,
    outside: u32,
    count: u32,
}

/// Which ids of the machine stand for the ids inside. Empty for a container
/// that has none of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdMap(Vec<Range>);

impl IdMap {
    /// Reads values of `lxc.idmap`; the first that is none is the error.
    pub(crate) fn parse<'a>(
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, InvalidRange> {
        let range = |value: &[u8]| {
            let text = String::from_utf8_lossy(value).into_owned();
            Range::parse(&text).ok_or(InvalidRange(text))
        };
        values
            .into_iter()
            .map(range)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The user outside that is `inside` inside; `None` if it is nobody's.
    pub(crate) fn user(&self, inside: u32) -> Option<u32> {
        self.outside(inside, true)
    }

    /// The group outside that is `inside` inside.
    pub(crate) fn group(&self, inside: u32) -> Option<u32> {
        self.outside(inside, false)
    }

    /// Whether the user of the machine is somebody inside.
    pub(crate) fn has_user(&self, outside: u32) -> bool {
        let mut users = self.0.iter().filter(|range| range.users);
        users.any(|range| {
            outside
                .checked_sub(range.outside)
                .is_some_and(|nth| nth < range.count)
        })
    }

    fn outside(&self, inside: u32, users: bool) -> Option<u32> {
        let mut ranges = self.0.iter().filter(|range| range.users == users);
        ranges.find_map(|range| {
            let nth = inside.checked_sub(range.inside)?;
            (nth < range.count).then(|| range.outside.checked_add(nth))?
        })
    }
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let users = match words.next()? {
            "u" => true,
            "g" => false,
            _ => return None,
        };
        let mut number = || words.next()?.parse().ok();
        let (inside, outside, count) = (number()?, number()?, number()?);
        words.next().is_none().then_some(Self {
            users,
            inside,
            outside,
            count,
        })
    }
}

/// A value that is no range of ids.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidRange(String);

impl fmt::Display for InvalidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(
            f,
            "{text:?} is no range of ids, such as \"u 0 100000 65536\""
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn ids_go_by_their_ranges() {
        let map = IdMap::parse([
            &b"u 0 100000 1000"[..],
            b"g  0 200000 1000",
            b"u 1000 1000 1",
            b"g 1000 1000 1",
            b"u 4294967290 4294967290 5",
        ]);
        let map = map.unwrap();
        assert_eq!((map.user(0), map.group(0)), (Some(100_000), Some(200_000)));
        assert_eq!((map.user(999), map.user(1001)), (Some(100_999), None));
        assert_eq!((map.user(1000), map.group(1000)), (Some(1000), Some(1000)));
        assert_eq!(map.user(u32::MAX - 2), Some(u32::MAX - 2));
        assert!(map.has_user(100_999) && map.has_user(1000));
        assert!(!map.has_user(0) && !map.has_user(101_000) && !map.has_user(200_000));
        assert!(!map.is_empty() && IdMap::default().is_empty());
        for bad in [
            "",
            "u 0 1",
            "b 0 1 2",
            "u 0 1 2 3",
            "u -1 1 2",
            "u 0 1 4294967296",
        ] {
            let error = IdMap::parse([bad.as_bytes()]).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
