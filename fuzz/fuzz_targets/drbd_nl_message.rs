//! Datagrams of DRBD's family, both dialects and both byte orders, into the
//! model, and what is asked of the model.
#![no_main]

use drbd_nl::codec::{Decoded, decode};
use drbd_nl::wire::{Big, Little};
use drbd_nl::{Dialect, EventKind, State, json, split_brain};
use libfuzzer_sys::fuzz_target;

/// The family's id in the seeds.
const FAMILY: u16 = 28;

// First byte: dialect and byte order.
fuzz_target!(|data: &[u8]| {
    let Some((choice, datagram)) = data.split_first() else {
        return;
    };
    let dialect = [Dialect::V84, Dialect::V9][usize::from(choice & 1)];
    let decoded = if choice & 2 == 0 {
        decode::<Little>(dialect, FAMILY, datagram)
    } else {
        decode::<Big>(dialect, FAMILY, datagram)
    };
    let decoded = match decoded {
        Ok(decoded) => decoded,
        Err(error) => return drop(error.to_string()),
    };
    let mut state = State::default();
    for item in decoded {
        drop(format!("{item:?}"));
        if let Decoded::Event(event) = item {
            if let EventKind::Helper(helper) = &event.kind {
                let _ = (helper.split_brain(), helper.exit_code());
            }
            state.apply(event);
        }
    }
    for resource in &state.resources {
        drop(resource.promotion_obstacles());
        let _ = resource.promotion_score();
        drop(resource.demotion_risks());
        drop(split_brain(resource, resource));
        for connection in &resource.connections {
            drop(connection.to_string());
            for peer in &connection.peer_devices {
                let _ = peer.progress();
            }
        }
    }
    drop(serde_json::to_string(&json::Status(&state)).unwrap());
    drop(serde_json::to_string(&json::Show::new(&state).reveal_secrets()).unwrap());
});
