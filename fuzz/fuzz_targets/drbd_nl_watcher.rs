//! A watcher on a kernel that answers anything: it may fail, not hang, and
//! goes on.
#![no_main]

use drbd_nl::Drbd;
use drbd_nl::socket::{Connector, Datagram, Deadline, Received, Transport};
use drbd_nl::wire::{MessageBuilder, Native};
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The family's id in the seeds.
const FAMILY: u16 = 28;
const PORT: u32 = 4711;

/// The datagrams that are to come, each behind a byte that says how.
#[derive(Clone, Debug)]
struct Script(Arc<Mutex<VecDeque<(u8, Vec<u8>)>>>, u8);

#[derive(Debug)]
struct Socket(Script, [u8; 4], Option<Vec<u8>>);

impl Connector for Script {
    type Transport = Socket;

    fn open(&self) -> io::Result<Socket> {
        Ok(Socket(self.clone(), [0; 4], None))
    }
}

impl Transport for Socket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.1.copy_from_slice(&datagram[8..12]);
        // The question for the family.
        if datagram[4..6] == [16, 0] {
            self.2 = Some(family(u32::from(self.0.1 & 1) + 1, self.1));
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, _: Deadline) -> io::Result<Received> {
        if let Some(answer) = self.2.take() {
            *buffer = answer;
            let (sender, truncated) = (0, false);
            return Ok(Received::Datagram(Datagram { sender, truncated }));
        }
        let Some((how, mut bytes)) = self.0.0.lock().unwrap().pop_front() else {
            return Ok(Received::TimedOut);
        };
        if how & 8 != 0 {
            return Ok(Received::Overrun);
        }
        // As an answer to the last request.
        if how & 1 != 0 && bytes.len() >= 16 {
            bytes[8..12].copy_from_slice(&self.1);
            bytes[12..16].copy_from_slice(&PORT.to_ne_bytes());
        }
        *buffer = bytes;
        let (sender, truncated) = (u32::from(how & 2), how & 4 != 0);
        Ok(Received::Datagram(Datagram { sender, truncated }))
    }

    fn join(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn port(&self) -> u32 {
        PORT
    }
}

fn family(version: u32, seq: [u8; 4]) -> Vec<u8> {
    use drbd_nl::schema::ctrl;
    let mut builder = MessageBuilder::<Native>::genl(ctrl::GENL_ID_CTRL, 0, 1, 2);
    builder
        .attrs()
        .bytes(ctrl::CTRL_ATTR_FAMILY_ID, &FAMILY.to_ne_bytes())
        .u32(ctrl::CTRL_ATTR_VERSION, version)
        .u32(ctrl::CTRL_ATTR_HDRSIZE, 8)
        .nest(ctrl::CTRL_ATTR_MCAST_GROUPS, |groups| {
            groups.nest(1, |group| {
                group
                    .u32(ctrl::CTRL_ATTR_MCAST_GRP_ID, 3)
                    .string(ctrl::CTRL_ATTR_MCAST_GRP_NAME, b"events");
            });
        });
    builder.finish(u32::from_ne_bytes(seq), PORT).unwrap()
}

// First byte: dialect. Then datagrams: how it comes, its length in two bytes, its bytes.
fuzz_target!(|data: &[u8]| {
    let Some((choice, mut rest)) = data.split_first() else {
        return;
    };
    let mut datagrams = VecDeque::new();
    while let Some(([how, low, high], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (bytes, after) = after.split_at(length);
        datagrams.push_back((*how, bytes.to_vec()));
        rest = after;
    }
    let count = datagrams.len();
    let script = Script(Arc::new(Mutex::new(datagrams)), *choice);
    let drbd = Drbd::with_connector(script.clone()).unwrap();
    let mut watcher = match drbd.watch() {
        Ok(watcher) => watcher,
        Err(error) => return drop(error.to_string()),
    };
    watcher.set_patience(Duration::ZERO);
    // Every update, and every error, takes something from the script or uses up an earlier one.
    for _ in 0..20 * (count + 1) {
        match watcher.try_update() {
            Ok(None) if script.0.lock().unwrap().is_empty() => break,
            Ok(update) => drop(format!("{update:?}")),
            Err(error) => drop(error.to_string()),
        }
    }
    let _ = watcher.refresh();
});
