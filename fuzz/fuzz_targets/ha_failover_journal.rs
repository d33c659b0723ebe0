//! The journal, the ledger and the record in the store.
#![no_main]

use ha_failover::journal::{Journal, open_operation};
use ha_failover::ledger::{OWNER_FILE, OwnerRecord, STORE_DIR, StateDir};
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::OnceLock;

fn dir() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = Some(Path::new("/dev/shm")).filter(|dir| dir.is_dir());
        let dir = dir.map_or_else(std::env::temp_dir, Path::to_owned);
        let dir = tempfile::tempdir_in(dir).unwrap();
        std::fs::create_dir(dir.path().join(STORE_DIR)).unwrap();
        dir
    });
    dir.path()
}

// First byte: which of them.
fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let dir = dir();
    match choice % 3 {
        0 => {
            std::fs::write(dir.join("journal.jsonl"), bytes).unwrap();
            let records = Journal::in_dir(dir).records().unwrap();
            drop(open_operation(&records));
            for record in records {
                let line = serde_json::to_vec(&record).unwrap();
                assert_eq!(
                    serde_json::from_slice::<ha_failover::journal::Record>(&line).unwrap(),
                    record
                );
            }
        }
        1 => {
            std::fs::write(dir.join("ledger.json"), bytes).unwrap();
            match StateDir::at(dir, "").ledger() {
                Ok(ledger) => drop(format!("{ledger:?}")),
                Err(error) => drop(error.to_string()),
            }
        }
        _ => {
            std::fs::write(dir.join(STORE_DIR).join(OWNER_FILE), bytes).unwrap();
            match OwnerRecord::read(dir) {
                Ok(record) => drop(format!("{record:?}")),
                Err(error) => drop(error.to_string()),
            }
        }
    }
});
