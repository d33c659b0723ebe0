//! What lab, node and keeper say to each other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{Deframer, FromKeeper, Message, Setup, ToKeeper, ToLab, ToNode};

#[path = "../../uml-lab/src/protocol.rs"]
mod protocol;

fn stream<M: Message + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let mut deframer = Deframer::default();
    for piece in data.chunks(97) {
        deframer.push(piece);
        while let Ok(Some(message)) = deframer.next::<M>() {
            assert_eq!(M::decode(&message.encode()), Ok(message));
        }
    }
    // There is one way to say a thing.
    if let Ok(message) = M::decode(data) {
        assert_eq!(message.encode(), data);
    }
}

// First byte: which kind of message.
fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    match choice % 5 {
        0 => stream::<ToNode>(data),
        1 => stream::<ToLab>(data),
        2 => stream::<ToKeeper>(data),
        3 => stream::<FromKeeper>(data),
        _ => stream::<Setup>(data),
    }
});
