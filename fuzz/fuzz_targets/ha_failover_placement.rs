//! Placement files.
#![no_main]

use ha_failover::Placement;
use ha_failover::placement::{differences, parse_duration};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    drop(parse_duration(text));
    match Placement::parse(text, "fuzz.toml") {
        Ok(placement) => {
            for resource in &placement.resources {
                let canonical = resource.canonical();
                assert!(differences(&canonical, &canonical).is_empty());
                drop(resource.digest());
            }
        }
        Err(error) => drop(error.to_string()),
    }
});
