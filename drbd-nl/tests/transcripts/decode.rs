//! Every message of every transcript decodes, and no cut of one does.

use crate::load;
use drbd_nl::codec::{Decoded, decode};
use drbd_nl::wire::{Attrs, Big, Control, Little, Messages};
use drbd_nl::{Dialect, EventKind, State};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[test]
fn every_message_decodes() {
    for family in load::all() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for run in &family.runs {
            for message in run.received() {
                let decoded = decode::<Little>(family.dialect, run.family, &message.bytes)
                    .unwrap_or_else(|error| panic!("{}/{}: {error}", family.name, run.name));
                *counts.entry("datagrams").or_default() += 1;
                for item in decoded {
                    let kind = match &item {
                        Decoded::Control(Control::Done(0)) => "done",
                        Decoded::Control(Control::Error(..)) => "error",
                        Decoded::Control(_) => "dump refused",
                        Decoded::Foreign(_) => "of generic netlink",
                        Decoded::Event(event) => {
                            assert!(
                                !matches!(event.kind, EventKind::Unknown { .. }),
                                "{event:?}"
                            );
                            "event"
                        }
                        Decoded::Reply(reply) => {
                            assert_nothing_unknown(family, run, reply);
                            "reply"
                        }
                        _ => "unknown",
                    };
                    *counts.entry(kind).or_default() += 1;
                }
            }
        }
        let expected: &[(&str, usize)] = match family.name {
            "drbd84" => &[
                ("datagrams", 1020),
                ("done", 82),
                ("dump refused", 2),
                ("error", 6),
                ("event", 593),
                ("of generic netlink", 139),
                ("reply", 198),
            ],
            "drbd9" => &[
                ("datagrams", 4240),
                ("done", 561),
                ("error", 9),
                ("event", 1815),
                ("of generic netlink", 278),
                ("reply", 1577),
            ],
            _ => &[
                ("datagrams", 4469),
                ("done", 648),
                ("error", 9),
                ("event", 1816),
                ("of generic netlink", 278),
                ("reply", 1718),
            ],
        };
        assert_eq!(
            counts,
            expected.iter().copied().collect(),
            "{}",
            family.name
        );
    }
}

/// These kernels send nothing that the attribute tables lack.
fn assert_nothing_unknown(family: &load::Family, run: &load::Run, reply: &drbd_nl::codec::Reply) {
    let unknown = [
        reply.resource_options.as_ref().map(|o| &o.unknown),
        reply.net_options.as_ref().map(|o| &o.unknown),
        reply.disk.as_ref().map(|(_, _, o)| &o.unknown),
        reply.peer_device_options.as_ref().map(|o| &o.unknown),
    ];
    for unknown in unknown.into_iter().flatten() {
        assert!(
            unknown.is_empty(),
            "{}/{}: {unknown:?}",
            family.name,
            run.name
        );
    }
    let debug = format!("{reply:?}");
    assert!(
        !debug.contains("Other("),
        "{}/{}: {debug}",
        family.name,
        run.name
    );
    assert!(
        !debug.contains("s3cr3t"),
        "{}/{}: a secret shows",
        family.name,
        run.name
    );
}

#[test]
fn every_cut_is_refused() {
    for family in load::all() {
        let mut seen = std::collections::BTreeSet::new();
        for run in &family.runs {
            for message in run.received().filter(|m| m.kind() == run.family) {
                // One of each length of each command is enough.
                if !seen.insert((message.command(), message.bytes.len())) {
                    continue;
                }
                for cut in 1..message.bytes.len() {
                    let bytes = &message.bytes[..cut];
                    // A datagram of several messages may be cut between two.
                    let whole = Messages::<Little>::new(bytes).all(|m| m.is_ok());
                    let result = decode::<Little>(family.dialect, run.family, bytes);
                    assert_eq!(
                        result.is_ok(),
                        whole,
                        "{}/{} cut at {cut}",
                        family.name,
                        run.name
                    );
                    assert!(
                        result.is_err(),
                        "{}/{} accepted {cut} bytes",
                        family.name,
                        run.name
                    );
                }
            }
        }
    }
}

/// Whatever bytes a kernel puts where names and texts are: they are kept, they
/// print, and JSON of them is well-formed.
#[test]
fn strings_that_are_no_text_are_kept() {
    let (mut replaced, mut resources) = (0, 0);
    for family in load::all() {
        let mut seen = std::collections::BTreeSet::new();
        for run in &family.runs {
            let mut state = State::default();
            for message in run.received().filter(|m| m.kind() == run.family) {
                let mut bytes = message.bytes.clone();
                let strings: Vec<_> = strings(&message.bytes[28..]).collect();
                for range in &strings {
                    let string = &mut bytes[28..][range.clone()];
                    string.fill(0xff);
                    string[0] = b'"';
                }
                let decoded = decode::<Little>(family.dialect, run.family, &bytes);
                let decoded =
                    decoded.unwrap_or_else(|e| panic!("{}/{}: {e}", family.name, run.name));
                for item in decoded {
                    if seen.insert((message.command(), bytes.len())) {
                        let debug = format!("{item:?}");
                        assert!(strings.is_empty() || debug.contains(r#"\""#), "{debug}");
                        replaced += strings.len();
                    }
                    if let Decoded::Event(event) = item {
                        state.apply(event);
                    }
                }
            }
            for resource in &state.resources {
                assert_eq!(resource.name.as_bytes()[0], b'"');
                resources += 1;
            }
            let json = serde_json::to_string(&drbd_nl::json::Status(&state)).unwrap();
            let back: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(back.as_array().unwrap().len(), state.resources.len());
        }
    }
    assert!(replaced > 200 && resources > 20, "{replaced} {resources}");
}

/// Where strings are in the nests of a message: what ends in a NUL and is
/// letters before it.
fn strings(attrs: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let nests = Attrs::<Little>::new(attrs).filter_map(Result::ok);
    let inner = nests.flat_map(|nest| nest.nest().filter_map(Result::ok));
    inner.filter_map(|attr| {
        let (nul, letters) = attr.payload.split_last()?;
        let start = attr.payload.as_ptr().addr() - attrs.as_ptr().addr();
        (*nul == 0 && !letters.is_empty() && letters.iter().all(u8::is_ascii_graphic))
            .then(|| start..start + letters.len())
    })
}

/// A cut with the length of the message corrected: fewer attributes, or an
/// error, but no panic; the same for a byte changed anywhere.
#[test]
fn broken_messages_do_not_panic() {
    for family in load::all() {
        let mut seen = std::collections::BTreeSet::new();
        for run in &family.runs {
            for message in run.received().filter(|m| m.kind() == run.family) {
                if !seen.insert((message.command(), message.bytes.len())) {
                    continue;
                }
                for cut in 16..message.bytes.len() {
                    let mut bytes = message.bytes[..cut].to_vec();
                    bytes[..4].copy_from_slice(&u32::try_from(cut).unwrap().to_le_bytes());
                    let _ = decode::<Little>(family.dialect, run.family, &bytes);
                    let mut bytes = message.bytes.clone();
                    bytes[cut] ^= 0xff;
                    let _ = decode::<Little>(family.dialect, run.family, &bytes);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn random_datagrams_do_not_panic(
        head in 0u8..60,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut datagram = u32::try_from(bytes.len() + 28).unwrap().to_le_bytes().to_vec();
        datagram.extend_from_slice(&[28, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, head, 1, 0, 0]);
        datagram.extend_from_slice(&[0, 0, 0, 0, 101, 0, 0, 0]);
        datagram.extend_from_slice(&bytes);
        for dialect in [Dialect::V84, Dialect::V9] {
            let _ = decode::<Little>(dialect, 28, &datagram);
            let _ = decode::<Little>(dialect, 28, &bytes);
            let _ = decode::<Big>(dialect, 28, &bytes);
        }
    }
}

/// Reads mutations of every kind of message, `each` of one: whatever comes
/// out goes into a model.
fn mutate(each: u32) {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % (below.max(1) as u64)).unwrap()
    };
    let (mut read, mut refused) = (0u64, 0u64);
    for family in load::all() {
        let mut seen = std::collections::BTreeSet::new();
        let mut state = drbd_nl::State::default();
        for run in &family.runs {
            for message in run.received().filter(|m| m.kind() == run.family) {
                if !seen.insert((message.command(), message.bytes.len())) {
                    continue;
                }
                for _ in 0..each {
                    let mut bytes = message.bytes.clone();
                    for _ in 0..=next(4) {
                        let at = next(bytes.len());
                        match next(5) {
                            0 => bytes[at] ^= 1 << next(8),
                            1 => bytes[at] = [0, 1, 4, 0x3f, 0x7f, 0x80, 0xff][next(7)],
                            2 => bytes.truncate(at.max(20)),
                            3 => bytes.insert(at, u8::try_from(next(256)).unwrap()),
                            _ => {
                                let piece = bytes[at..(at + 12).min(bytes.len())].to_vec();
                                let to = next(bytes.len());
                                bytes.splice(to..to, piece);
                            }
                        }
                    }
                    // The length is right, so that the rest is looked at.
                    let length = u32::try_from(bytes.len()).unwrap();
                    bytes[..4].copy_from_slice(&length.to_le_bytes());
                    let _ = decode::<Big>(family.dialect, run.family, &bytes);
                    match decode::<Little>(family.dialect, run.family, &bytes) {
                        Ok(items) => {
                            read += 1;
                            for item in items {
                                if let Decoded::Event(event) = item {
                                    state.apply(event);
                                }
                            }
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
        }
        for resource in &state.resources {
            let _ = (resource.promotion_score(), resource.demotion_risks());
        }
        let _ = serde_json::to_string(&drbd_nl::json::Status(&state)).unwrap();
        let _ = serde_json::to_string(&drbd_nl::json::Show::new(&state)).unwrap();
    }
    println!("{read} read, {refused} refused");
    assert!(read > 0 && refused > 0);
}

#[test]
fn mutated_messages_do_not_panic() {
    mutate(10);
}

#[test]
#[ignore = "deep: more mutations"]
fn deep_mutated_messages_do_not_panic() {
    mutate(std::env::var("DRBD_NL_MUTATIONS").map_or(2000, |n| n.parse().unwrap()));
}
