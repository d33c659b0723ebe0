//! Commands out of a stream.

use std::io::{ErrorKind as IoKind, Read};

use super::{COMMAND_HEADER, Command, HEADER, MAGIC, MAX_V2, Version, bad, cut, decode};
use crate::error::{Error, ErrorKind, Result};

/// The checksum of a command: CRC-32C from 0 and without the final inversion,
/// over the header with a zero in place of the checksum, and the payload.
pub(super) fn command_checksum(header: &[u8], payload: &[u8]) -> u32 {
    let inverted = crc32c::crc32c_append(!0, &header[..6]);
    let inverted = crc32c::crc32c_append(inverted, &[0; 4]);
    !crc32c::crc32c_append(inverted, payload)
}

/// Chains checksums, for telling whether two streams begin alike.
pub(crate) fn checksum(state: u64, command: u32) -> u64 {
    let low = crc32c::crc32c_append(state as u32, &command.to_le_bytes());
    let high = crc32c::crc32c_append((state >> 32) as u32, &low.to_be_bytes());
    u64::from(high) << 32 | u64::from(low)
}

/// The header of a command: length of the payload, number, checksum.
fn command_header(bytes: &[u8]) -> Option<(usize, u16, u32)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    let number = u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sum = u32::from_le_bytes(bytes.get(6..10)?.try_into().ok()?);
    Some((usize::try_from(length).ok()?, number, sum))
}

fn version(header: &[u8], at: u64) -> Result<Version> {
    if header.get(..MAGIC.len()) != Some(&MAGIC[..]) {
        return Err(bad(at, "this is not a send stream"));
    }
    match header.get(MAGIC.len()..HEADER) {
        Some([1, 0, 0, 0]) => Ok(Version::V1),
        Some([2, 0, 0, 0]) => Ok(Version::V2),
        other => {
            let number = other
                .and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)))
                .unwrap_or_default();
            Err(Error::message(
                ErrorKind::Unsupported,
                "stream",
                format!("at byte {at}"),
                format!("version {number} of the stream is unknown; 1 and 2 are known"),
            ))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the header of the first stream, or of one that follows.
    Header {
        first: bool,
    },
    Commands,
}

/// Reads the commands of a stream, or of several one behind the other, from a
/// file, pipe or socket. Reads ahead; commands borrow from its buffer.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    position: u64,
    version: Version,
    at: At,
}

impl<R: Read> Reader<R> {
    /// Reads from `source`; nothing is read before the first call of
    /// [`next`](Self::next).
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: vec![0; 256 << 10],
            start: 0,
            end: 0,
            position: 0,
            version: Version::V1,
            at: At::Header { first: true },
        }
    }

    /// The next command, in the end [`Command::End`] and then `None`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::BadStream`] for what breaks the format, with the place: a
    /// wrong checksum, a stream that ends early. Errors of the source. After
    /// one, do not go on.
    #[allow(
        clippy::should_implement_trait,
        reason = "commands borrow from the reader, which an Iterator cannot say"
    )]
    pub fn next(&mut self) -> Result<Option<Command<'_>>> {
        Ok(self.next_with_checksum()?.0)
    }

    /// The same with the checksum of the command.
    pub(crate) fn next_with_checksum(&mut self) -> Result<(Option<Command<'_>>, u32)> {
        if let At::Header { first } = self.at {
            let available = self.fill(HEADER)?;
            if available == 0 && !first {
                return Ok((None, 0));
            }
            if available < HEADER {
                return Err(cut(self.position, "the stream ends in its header"));
            }
            self.version = version(&self.buffer[self.start..self.start + HEADER], self.position)?;
            self.consume(HEADER);
            self.at = At::Commands;
        }
        if self.fill(COMMAND_HEADER)? < COMMAND_HEADER {
            return Err(cut(self.position, "the stream ends before its end command"));
        }
        let at = self.position;
        let header = &self.buffer[self.start..self.start + COMMAND_HEADER];
        let (length, number, sum) =
            command_header(header).ok_or_else(|| bad(at, "a command is cut off"))?;
        let whole = COMMAND_HEADER.saturating_add(length);
        let max = self.version.max_command();
        if whole > max {
            let text = format!("command {number} has {length} bytes, which is more than {max}");
            return Err(bad(at, text));
        }
        if self.fill(whole)? < whole {
            return Err(cut(at, format!("the stream ends in command {number}")));
        }
        let start = self.start;
        self.consume(whole);
        let (header, payload) = self.buffer[start..start + whole].split_at(COMMAND_HEADER);
        if command_checksum(header, payload) != sum {
            return Err(bad(
                at,
                format!("the checksum of command {number} is wrong"),
            ));
        }
        let command = decode::command(self.version, number, payload)
            .map_err(|text| bad(at, format!("command {number}: {text}")))?;
        if command == Command::End {
            self.at = At::Header { first: false };
        }
        Ok((Some(command), sum))
    }

    /// The version of the stream that is being read; 1 before the header.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Bytes of the stream up to the end of the last command.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }

    /// Reads until `count` bytes are there, or the source ends; returns how
    /// many there are.
    fn fill(&mut self, count: usize) -> Result<usize> {
        if self.end - self.start >= count {
            return Ok(count);
        }
        if self.start + count > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if count > self.buffer.len() {
                // At most one command, whose length is checked.
                self.buffer.resize(count.max(MAX_V2), 0);
            }
        }
        while self.end - self.start < count {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) => {
                    let shown = format!("at byte {}", self.position);
                    return Err(Error::from_reader(shown, error));
                }
            }
        }
        Ok((self.end - self.start).min(count))
    }
}

/// The commands of one or more streams that are in memory, for example mapped.
/// Nothing is copied.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    bytes: &'a [u8],
    position: usize,
    version: Version,
    at: Option<At>,
}

impl<'a> Commands<'a> {
    /// Reads `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            version: Version::V1,
            at: Some(At::Header { first: true }),
        }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(count)?;
        let taken = self.bytes.get(self.position..end)?;
        self.position = end;
        Some(taken)
    }

    fn read(&mut self, at: At) -> Result<Option<Command<'a>>> {
        if let At::Header { first } = at {
            if !first && self.position == self.bytes.len() {
                return Ok(None);
            }
            let from = self.position as u64;
            let header = self
                .take(HEADER)
                .ok_or_else(|| cut(from, "the stream ends in its header"))?;
            self.version = version(header, from)?;
        }
        let from = self.position as u64;
        let header = self
            .take(COMMAND_HEADER)
            .ok_or_else(|| cut(from, "the stream ends before its end command"))?;
        let (length, number, sum) =
            command_header(header).ok_or_else(|| bad(from, "a command is cut off"))?;
        let max = self.version.max_command();
        if COMMAND_HEADER.saturating_add(length) > max {
            let text = format!("command {number} has {length} bytes, which is more than {max}");
            return Err(bad(from, text));
        }
        let payload = self
            .take(length)
            .ok_or_else(|| cut(from, format!("the stream ends in command {number}")))?;
        if command_checksum(header, payload) != sum {
            return Err(bad(
                from,
                format!("the checksum of command {number} is wrong"),
            ));
        }
        decode::command(self.version, number, payload)
            .map(Some)
            .map_err(|text| bad(from, format!("command {number}: {text}")))
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>>;

    /// As [`Reader::next`]; ended by the first error.
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        match self.read(at) {
            Ok(Some(command)) => {
                self.at = Some(if command == Command::End {
                    At::Header { first: false }
                } else {
                    At::Commands
                });
                Some(Ok(command))
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl std::iter::FusedIterator for Commands<'_> {}
