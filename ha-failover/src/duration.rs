//! Durations as people write them in the placement file: `500ms`, `30s`, `2m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Parses `500ms`, `30s`, `2m` or `1h`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write e.g. \"500ms\", \"30s\" or \"2m\"");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    millis.map(Duration::from_millis).ok_or_else(wrong)
}

/// Prints a duration the way [`parse`] reads it.
pub(crate) fn show(value: Duration) -> String {
    let ms = value.as_millis();
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    parse(&text).map_err(serde::de::Error::custom)
}

pub(crate) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&show(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in ["0s", "500ms", "30s", "90s", "1500ms"] {
            assert_eq!(parse(text).map(show).as_deref(), Ok(text));
        }
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        for wrong in [
            "",
            "s",
            "30",
            "3.5s",
            "-1s",
            "99999999999999999999s",
            "18446744073709551615h",
            "3 s",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
