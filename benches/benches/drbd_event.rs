//! What does it cost to understand one event, compared with taking apart the
//! line that drbdsetup prints for it?
//!
//! Unit: nanoseconds for one event, on the host: decoding the message into
//! typed values, bringing it into a model, and splitting drbdsetup's line
//! into words and numbers, as its readers do. Both were recorded together
//! from DRBD 9.2.18. The process that prints the lines is not counted.
//!
//! `cargo bench -p benches --bench drbd_event`

use drbd_nl::codec::{Decoded, decode};
use drbd_nl::wire::Little;
use drbd_nl::{Dialect, State};
use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

/// A peer device in a resync (`drbdsetup events2 --full`), and its line.
const MESSAGE: &str = include_str!("data/peer-device-event.hex");
const LINE: &str = include_str!("data/peer-device-event.txt");
const FAMILY: u16 = 28;

fn main() -> Result<(), Box<dyn Error>> {
    let once = !std::env::args().any(|arg| arg == "--bench")
        || std::env::args().any(|arg| arg == "--test");
    let rounds = if once { 10 } else { 200_000 };
    let mut message: Vec<u8> = Vec::new();
    let hex = MESSAGE.trim();
    for at in (0..hex.len()).step_by(2) {
        message.push(u8::from_str_radix(&hex[at..at + 2], 16)?);
    }
    message[4..6].copy_from_slice(&FAMILY.to_le_bytes());
    let read = || {
        let decoded = decode::<Little>(Dialect::V9, FAMILY, black_box(&message));
        match decoded.map(|mut items| items.remove(0)) {
            Ok(Decoded::Event(event)) => Ok(event),
            other => Err(format!("{other:?}")),
        }
    };
    let split = || {
        let mut words = BTreeMap::new();
        for word in black_box(LINE).trim().split(' ') {
            if let Some((key, value)) = word.split_once(':') {
                words.insert(key.to_owned(), value.to_owned());
            }
        }
        words
    };
    // Both say the same before they are compared.
    let event = read()?;
    assert_eq!(
        split()["name"],
        event.kind.resource().ok_or("no name")?.to_string()
    );

    let per_event = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..rounds {
            run();
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds)
    };
    let decoding = per_event(&mut || drop(black_box(read())));
    let mut state = State::default();
    let applying = per_event(&mut || drop(black_box(state.apply(event.clone()))));
    let splitting = per_event(&mut || drop(black_box(split())));
    println!("nanoseconds an event, {rounds} rounds");
    println!("     decode {decoding:>8.0}");
    println!("      apply {applying:>8.0}");
    println!(
        " split line {splitting:>8.0}  ({:.1} times decode)",
        splitting / decoding
    );
    Ok(())
}
