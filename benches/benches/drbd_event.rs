//! What does it cost to understand one event?
//!
//! Units: nanoseconds and allocations for one event, on the host: decoding the
//! message into typed values (`RawEvents` on a socket that is a copy of bytes), and bringing it into a model of 1 and of 1 000
//! resources. Rivals: taking apart the line that drbdsetup prints for it, into
//! the same typed values, as programs do that read `events2`; and decoding the
//! message with neli. Message and line were recorded together from DRBD
//! 9.2.18. The process that prints the lines is not counted.
//!
//! Aim: 3 times faster than the line.
//!
//! `cargo bench -p benches --bench drbd_event`

use benches::allocations::{Counting, allocations};
use benches::recorded::{EVENTS, Recorded};
use drbd_nl::codec::{Decoded, decode};
use drbd_nl::schema::{self, tla};
use drbd_nl::socket::{Connector, Datagram, Deadline, Received, Transport};
use drbd_nl::wire::Native;
use drbd_nl::{Dialect, DiskState, Drbd, EventKind, RawEvent, ReplicationState, State};
use neli::attr::Attribute;
use neli::genl::Genlmsghdr;
use neli::nl::Nlmsghdr;
use neli::{FromBytes, TypeSize};
use std::error::Error;
use std::hint::black_box;
use std::io::{self, Cursor};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A peer device in a resync (`drbdsetup events2 --full`), and its line.
const MESSAGE: &str = include_str!("data/peer-device-event.hex");
const LINE: &str = include_str!("data/peer-device-event.txt");
const AIM: f64 = 3.0;
/// Number of the resource r0 among those of [`Recorded`].
const R0: u16 = 972;

/// A kernel that announces the same again and again.
#[derive(Clone, Debug)]
struct Feed(Vec<u8>, Vec<u8>);

impl Connector for Feed {
    type Transport = Self;

    fn open(&self) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl Transport for Feed {
    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, _: Deadline) -> io::Result<Received> {
        buffer.clear();
        // The answer to the question for the family, once.
        if self.0.is_empty() {
            buffer.extend_from_slice(&self.1);
        } else {
            *buffer = std::mem::take(&mut self.0);
        }
        let (sender, truncated) = (0, false);
        Ok(Received::Datagram(Datagram { sender, truncated }))
    }

    fn join(&mut self, _: u32) -> io::Result<()> {
        self.0.clear();
        Ok(())
    }

    fn port(&self) -> u32 {
        0
    }
}

/// What the line says, in its own words.
#[derive(Debug, Default)]
struct Line {
    name: String,
    conn_name: String,
    peer_node_id: u32,
    volume: u32,
    replication: Option<ReplicationState>,
    peer_disk: Option<DiskState>,
    peer_client: bool,
    resync_suspended: bool,
    /// The counters, as far as a model has use for them.
    numbers: [u64; 14],
}

fn split(line: &str) -> Result<Line> {
    let mut words = line.split_whitespace();
    if (words.next(), words.next()) != (Some("change"), Some("peer-device")) {
        return Err("another event".into());
    }
    let mut read = Line::default();
    for (key, value) in words.filter_map(|word| word.split_once(':')) {
        let number = match key {
            "name" => {
                read.name = value.to_owned();
                continue;
            }
            "conn-name" => {
                read.conn_name = value.to_owned();
                continue;
            }
            "peer-node-id" => {
                read.peer_node_id = value.parse()?;
                continue;
            }
            "volume" => {
                read.volume = value.parse()?;
                continue;
            }
            "replication" => {
                read.replication = Some(value.parse()?);
                continue;
            }
            "peer-disk" => {
                read.peer_disk = Some(value.parse()?);
                continue;
            }
            "peer-client" => {
                read.peer_client = value != "no";
                continue;
            }
            "resync-suspended" => {
                read.resync_suspended = value != "no";
                continue;
            }
            "received" => 0,
            "sent" => 1,
            "out-of-sync" => 2,
            "pending" => 3,
            "unacked" => 4,
            "rs-total" => 5,
            "rs-dt-start-ms" => 6,
            "rs-paused-ms" => 7,
            "rs-dt0-ms" => 8,
            "rs-db0-sectors" => 9,
            "rs-dt1-ms" => 10,
            "rs-db1-sectors" => 11,
            "rs-failed" => 12,
            "rs-same-csum" => 13,
            // Worked out by drbdsetup from the others.
            _ => continue,
        };
        read.numbers[number] = value.parse()?;
    }
    Ok(read)
}

/// DRBD's own header, for neli.
#[derive(Debug)]
struct DrbdHeader {
    minor: u32,
}

impl TypeSize for DrbdHeader {
    fn type_size() -> usize {
        8
    }
}

impl neli::Size for DrbdHeader {
    fn unpadded_size(&self) -> usize {
        8
    }
}

impl FromBytes for DrbdHeader {
    fn from_bytes(
        buffer: &mut Cursor<impl AsRef<[u8]>>,
    ) -> std::result::Result<Self, neli::err::DeError> {
        let minor = u32::from_bytes(buffer)?;
        u32::from_bytes(buffer)?;
        Ok(Self { minor })
    }
}

type NeliMessage = Nlmsghdr<u16, Genlmsghdr<u8, u16, DrbdHeader>>;

/// The same with neli: headers, then every nest and every attribute in it.
fn with_neli(message: &[u8]) -> Result<Line> {
    let message = NeliMessage::from_bytes(&mut Cursor::new(message))?;
    let genl = message.get_payload().ok_or("no payload")?;
    if *genl.cmd() != schema::cmd::PEER_DEVICE_STATE {
        return Err("another event".into());
    }
    black_box(genl.header().minor);
    let mut read = Line::default();
    for nest in genl.attrs().iter() {
        let number = *nest.nla_type().nla_type();
        for attr in nest.get_attr_handle::<u16>()?.iter() {
            use schema::peer_device_statistics as nr;
            use schema::{cfg_context as ctx, peer_device_info as info};
            let text = || -> Result<String> {
                let bytes = attr.nla_payload().as_ref();
                Ok(String::from_utf8(
                    bytes.strip_suffix(b"\0").unwrap_or(bytes).to_vec(),
                )?)
            };
            let long = || attr.get_payload_as::<u64>();
            let short = || attr.get_payload_as::<u32>();
            match (number, *attr.nla_type().nla_type()) {
                (tla::CFG_CONTEXT, ctx::CTX_RESOURCE_NAME) => read.name = text()?,
                (tla::CFG_CONTEXT, ctx::CTX_CONN_NAME) => read.conn_name = text()?,
                (tla::CFG_CONTEXT, ctx::CTX_PEER_NODE_ID) => read.peer_node_id = short()?,
                (tla::CFG_CONTEXT, ctx::CTX_VOLUME) => read.volume = short()?,
                (tla::PEER_DEVICE_INFO, info::PEER_REPL_STATE) => {
                    read.replication = Some(short()?.into());
                }
                (tla::PEER_DEVICE_INFO, info::PEER_DISK_STATE) => {
                    black_box(short()?);
                }
                (tla::PEER_DEVICE_INFO, info::PEER_IS_INTENTIONAL_DISKLESS) => {
                    read.peer_client = attr.get_payload_as::<u8>()? != 0;
                }
                (tla::PEER_DEVICE_INFO, _) => read.resync_suspended |= short()? != 0,
                (tla::PEER_DEVICE_STATISTICS, nr::PEER_DEV_RECEIVED) => read.numbers[0] = long()?,
                (tla::PEER_DEVICE_STATISTICS, nr::PEER_DEV_SENT) => read.numbers[1] = long()?,
                (tla::PEER_DEVICE_STATISTICS, nr::PEER_DEV_OUT_OF_SYNC) => {
                    read.numbers[2] = long()?;
                }
                (tla::PEER_DEVICE_STATISTICS, nr::PEER_DEV_PENDING) => {
                    read.numbers[3] = short()?.into();
                }
                (tla::PEER_DEVICE_STATISTICS, nr::PEER_DEV_UNACKED) => {
                    read.numbers[4] = short()?.into();
                }
                (tla::PEER_DEVICE_STATISTICS, nr::PEER_DEV_RS_TOTAL) => read.numbers[5] = long()?,
                (tla::PEER_DEVICE_STATISTICS, other) => {
                    let at = usize::from(other) % 8 + 6;
                    if attr.nla_payload().as_ref().len() == 8 {
                        read.numbers[at] = long()?;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(read)
}

/// A model of so many resources, r0 with a peer n1 of node id 1 among them.
fn model(recorded: &Recorded, count: u16) -> Result<State> {
    let mut state = State::default();
    let others = (0..R0).chain(R0 + 1..).take(usize::from(count) - 1);
    let numbers: Vec<u16> = others.chain([R0]).collect();
    for command in EVENTS {
        for &number in &numbers {
            let bytes = recorded.about(command, number)?;
            for item in decode::<Native>(Dialect::V9, recorded.id, &bytes)? {
                if let Decoded::Event(event) = item {
                    state.apply(event);
                }
            }
        }
    }
    assert_eq!(state.resources.len(), usize::from(count));
    Ok(state)
}

fn main() -> Result<()> {
    let once = benches::once();
    let (rounds, times) = if once { (10, 1) } else { (10_000, 40) };
    let hex = MESSAGE.trim();
    let mut message = Vec::new();
    for at in (0..hex.len()).step_by(2) {
        message.push(u8::from_str_radix(&hex[at..at + 2], 16)?);
    }
    let recorded = Recorded::load()?;
    message[4..6].copy_from_slice(&recorded.id.to_ne_bytes());
    let mut family = recorded.family.clone();
    family[8..12].copy_from_slice(&1u32.to_ne_bytes());
    let mut events = Drbd::with_connector(Feed(family, message.clone()))?.events()?;
    // All say the same before they are compared.
    let Some(RawEvent::Event(event)) = events.try_next()? else {
        return Err("no event".into());
    };
    let EventKind::PeerDevice {
        resource,
        statistics: Some(statistics),
        ..
    } = &event.kind
    else {
        return Err(format!("{event:?}").into());
    };
    for read in [split(LINE)?, with_neli(&message)?] {
        assert_eq!(read.name, resource.to_string());
        assert_eq!((read.conn_name.as_str(), read.peer_node_id), ("n1", 1));
        assert_eq!(read.replication, Some(ReplicationState::SyncSource));
        // drbdsetup prints KiB where it does not print sectors.
        assert!([1, 2].contains(&(statistics.out_of_sync.0 / read.numbers[2])));
    }

    println!(
        "least of {times} times {rounds} rounds: what others did meanwhile is not of interest"
    );
    println!("                              ns/event  allocations/event");
    // One after the other in each turn, so that all have the same machine.
    let measure = |runs: &mut [(&str, &mut dyn FnMut())]| -> Vec<f64> {
        let mut best = vec![f64::INFINITY; runs.len()];
        for _ in 0..times {
            for ((_, run), best) in runs.iter_mut().zip(&mut best) {
                let start = Instant::now();
                for _ in 0..rounds {
                    run();
                }
                *best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds));
            }
        }
        for ((what, run), each) in runs.iter_mut().zip(&best) {
            let (allocated, ()) = allocations(run);
            println!("{what:<28} {each:>9.0} {allocated:>18}");
        }
        best
    };
    let bests = measure(&mut [
        ("decode", &mut || drop(black_box(events.try_next()))),
        ("split drbdsetup's line", &mut || {
            drop(black_box(split(black_box(LINE))))
        }),
        ("neli", &mut || {
            drop(black_box(with_neli(black_box(&message))))
        }),
    ]);
    let [ours, line, neli] = bests[..] else {
        return Err("not three".into());
    };
    for count in [1, 1000] {
        // One counter moves each time, so that there is something to do.
        let mut state = model(&recorded, count)?;
        let mut events = [event.clone(), event.clone()];
        if let EventKind::PeerDevice {
            statistics: Some(statistics),
            ..
        } = &mut events[1].kind
        {
            statistics.sent.0 += 8;
        }
        let mut turn = 0;
        measure(&mut [(&format!("apply, {count} resources"), &mut || {
            turn += 1;
            let changes = state.apply(events[turn % 2].clone());
            assert_eq!(changes.len(), 1);
        })]);
    }
    println!(
        "decode is {:.1} times faster than the line (aim {AIM}), {:.1} times faster than neli",
        line / ours,
        neli / ours
    );
    Ok(())
}
