//! Send streams. The checksums of what comes in are put right first, else
//! nothing would get past them.
#![no_main]

use btrfs_ops::stream::{Commands, Reader, dump, verify};
use libfuzzer_sys::fuzz_target;

#[path = "../../btrfs-ops/tests/lab/sums.rs"]
mod sums;

fuzz_target!(|data: &[u8]| {
    let mut stream = data.to_vec();
    sums::repair(&mut stream);
    // Both readers see the same.
    let mut reader = Reader::new(&stream[..]);
    for borrowed in Commands::new(&stream) {
        match (borrowed, reader.next()) {
            (Ok(one), Ok(Some(other))) => assert_eq!(one, other),
            (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
            (one, other) => panic!("{one:?} and {other:?}"),
        }
    }
    let mut text = Vec::new();
    let dumped = dump(&stream[..], &mut text).map_err(|e| e.to_string());
    assert_eq!(dumped, verify(&stream[..]).map_err(|e| e.to_string()));
});
