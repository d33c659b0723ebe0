//! The record the workload writes: one line of text, checksummed.
//!
//! This file is shared, as source, by the demo (which reads records back and judges them) and by
//! the workload program inside the container (which is built on its own, linked statically).

use std::fmt;

/// One record of one writer, as it stands in the writer's file.
///
/// On disk it is a line `<n> <epoch> <node> <crc>`, where `crc` is the CRC-32 (IEEE 802.3) of the
/// text before it together with the number of the writer, as eight hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts from 1 for each writer, without gaps in what is sent.
    pub n: u64,
    /// Ownership epoch under which the container that wrote it was started.
    pub epoch: u64,
    /// Name of the node whose container wrote it.
    pub node: String,
}

impl Record {
    /// Returns the line to append to the file of `writer`, with its newline.
    #[must_use]
    pub fn to_line(&self, writer: u32) -> String {
        let body = self.to_string();
        let crc = crc32(format!("{writer} {body}").as_bytes());
        format!("{body} {crc:08x}\n")
    }

    /// Reads one line without its newline; `None` if it is torn: wrong shape or wrong checksum.
    #[must_use]
    pub fn from_line(writer: u32, line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let (body, crc) = line.rsplit_once(' ')?;
        if crc.len() != 8 || crc32(format!("{writer} {body}").as_bytes()) != hex(crc)? {
            return None;
        }
        let mut words = body.split(' ');
        let record = Self {
            n: words.next()?.parse().ok()?,
            epoch: words.next()?.parse().ok()?,
            node: words.next()?.to_owned(),
        };
        words.next().is_none().then_some(record)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.n, self.epoch, self.node)
    }
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

/// CRC-32 as in IEEE 802.3 (polynomial 0x04C11DB7, reflected), bit by bit: records are short.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn crc_has_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_line_reads_back_and_every_damage_is_seen() {
        let record = Record {
            n: 42,
            epoch: 3,
            node: "node1".into(),
        };
        let line = record.to_line(2);
        let bytes = line.trim_end().as_bytes();
        assert_eq!(Record::from_line(2, bytes).unwrap(), record);
        assert_eq!(
            Record::from_line(1, bytes),
            None,
            "another writer's record was accepted"
        );
        for cut in 0..bytes.len() {
            assert_eq!(
                Record::from_line(2, &bytes[..cut]),
                None,
                "accepted {cut} bytes"
            );
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert_eq!(
                Record::from_line(2, &damaged),
                None,
                "accepted damage at {at}"
            );
        }
    }
}
