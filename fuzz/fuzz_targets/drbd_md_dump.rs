//! What drbdmeta writes as text, and the note about a device's last size.
#![no_main]

use drbd_md::{Dump, LastKnown};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match Dump::parse(text) {
        Ok(dump) => drop(format!("{:?}", dump.superblock())),
        Err(error) => assert!(error.line <= 1 + text.matches('\n').count(), "{error}"),
    }
    if let Some(note) = LastKnown::parse(text) {
        assert_eq!(LastKnown::parse(&note.to_string()), Some(note));
    }
});
