//! What a real DRBD 9.3.3 said, repeated for as many resources as wanted.

use drbd_nl::codec::{Decoded, decode};
use drbd_nl::schema::{NO_MINOR, cmd, ctrl};
use drbd_nl::wire::{Attrs, Native};
use drbd_nl::{Action, Dialect};
use serde_json::Value;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The dumps that make a state.
pub const DUMPS: [u8; 5] = [
    cmd::GET_RESOURCES,
    cmd::GET_DEVICES,
    cmd::GET_CONNECTIONS,
    cmd::GET_PEER_DEVICES,
    cmd::GET_PATHS,
];
/// The events that tell of an object.
pub const EVENTS: [u8; 5] = [
    cmd::RESOURCE_STATE,
    cmd::DEVICE_STATE,
    cmd::CONNECTION_STATE,
    cmd::PEER_DEVICE_STATE,
    cmd::PATH_STATE,
];

/// What the kernel once said: the family, and one message of each kind about r0.
#[derive(Debug)]
pub struct Recorded {
    /// The answer to the question for the family.
    pub family: Vec<u8>,
    /// The family's id.
    pub id: u16,
    /// By command.
    pub messages: BTreeMap<u8, Vec<u8>>,
}

impl Recorded {
    /// Reads the transcript.
    ///
    /// # Errors
    /// When it is not there or not what it should be.
    pub fn load() -> Result<Self> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../drbd-nl/tests/data/drbd93.jsonl.zst");
        let mut text = String::new();
        ruzstd::decoding::StreamingDecoder::new(std::fs::File::open(path)?)?
            .read_to_string(&mut text)?;
        let (mut family, mut id, mut messages) = (Vec::new(), 0, BTreeMap::new());
        for line in text.lines() {
            let value: Value = serde_json::from_str(line)?;
            let Some(hex) = value["hex"].as_str().filter(|_| value["dir"] == "rx") else {
                continue;
            };
            let pairs = (0..hex.len()).step_by(2);
            let bytes: Vec<u8> = pairs
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16))
                .collect::<std::result::Result<_, _>>()?;
            let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
            if kind == ctrl::GENL_ID_CTRL && family.is_empty() {
                id = family_id(&bytes)?;
                family = bytes;
            } else if kind > ctrl::GENL_ID_CTRL
                && (name(&bytes).is_some() || bytes[16] == cmd::INITIAL_STATE_DONE)
            {
                // The fullest of its kind: with a disk, a peer, statistics.
                let kept = messages.get(&bytes[16]).map_or(0, Vec::len);
                if bytes.len() > kept && of_a_dump(&bytes, kind) {
                    messages.insert(bytes[16], bytes);
                }
            }
        }
        // The family had another id in other runs.
        for bytes in messages.values_mut() {
            bytes[4..6].copy_from_slice(&id.to_ne_bytes());
        }
        Ok(Self {
            family,
            id,
            messages,
        })
    }

    /// The message of this command, about one of 1 296 resources. Their names
    /// have two characters; 972 is r0.
    ///
    /// # Errors
    /// When there was none.
    pub fn about(&self, command: u8, number: u16) -> Result<Vec<u8>> {
        let digit = |n: u16| b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::from(n % 36)];
        let message = self.messages.get(&command);
        let mut bytes = message
            .ok_or("a kind of message was never recorded")?
            .clone();
        let at = name(&bytes).ok_or("no name")?;
        bytes[at..at + 2].copy_from_slice(&[digit(number / 36), digit(number)]);
        if bytes[20..24] != NO_MINOR.to_ne_bytes() {
            bytes[20..24].copy_from_slice(&u32::from(number).to_ne_bytes());
        }
        Ok(bytes)
    }
}

fn family_id(bytes: &[u8]) -> Result<u16> {
    let attrs = bytes.get(20..).ok_or("a short answer")?;
    let id = Attrs::<Native>::new(attrs).find(ctrl::CTRL_ATTR_FAMILY_ID)?;
    Ok(u16::from_ne_bytes(
        id.ok_or("no family id")?.payload.try_into()?,
    ))
}

/// Whether it is no announcement.
fn of_a_dump(bytes: &[u8], kind: u16) -> bool {
    match decode::<Native>(Dialect::V9, kind, bytes).as_deref() {
        Ok([Decoded::Event(event)]) => event.action == Action::Exists,
        Ok([Decoded::Reply(reply)]) => reply.ret_code == 0 || reply.ret_code == 101,
        _ => false,
    }
}

/// Where the name r0 is, in a message that has it in its context.
fn name(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .take(80)
        .position(|window| window == b"r0\0\0" || window == b"r0\0\x01")
}
