//! Metadata on a device: superblock, activity log, bitmap, and the text of it.
#![no_main]

use drbd_md::{Superblock, Target, activity_log_state, dump_to_string, read};
use libfuzzer_sys::fuzz_target;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

const BLOCK: usize = 4096;
const SIZE: u64 = 256 << 10;

/// A file in memory, and its path.
fn device() -> &'static (File, tempfile::TempPath) {
    static DEVICE: OnceLock<(File, tempfile::TempPath)> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let dir = Some(Path::new("/dev/shm")).filter(|dir| dir.is_dir());
        let dir = dir.map_or_else(std::env::temp_dir, Path::to_owned);
        tempfile::NamedTempFile::new_in(dir).unwrap().into_parts()
    })
}

// The superblock, then what lies before it, or behind it.
fuzz_target!(|data: &[u8]| {
    let mut block = [0; BLOCK];
    let head = data.len().min(BLOCK);
    block[..head].copy_from_slice(&data[..head]);
    let rest = &data[head..data.len().min(64 << 10)];
    let decoded = Superblock::decode(&block);
    let (file, path) = device();
    for internal in [true, false] {
        file.set_len(0).unwrap();
        file.set_len(SIZE).unwrap();
        let (target, at, behind) = if internal {
            let at = SIZE - BLOCK as u64;
            (Target::internal(path), at, at - rest.len() as u64)
        } else {
            (Target::flexible_external(path), 0, BLOCK as u64)
        };
        file.write_all_at(&block, at).unwrap();
        file.write_all_at(rest, behind).unwrap();
        if let Ok(superblock) = read(&target) {
            assert_eq!(Some(&superblock), decoded.as_ref());
            let _ = superblock.disk_state();
            let _ = activity_log_state(&target);
            if let Ok(text) = dump_to_string(&target) {
                let again = drbd_md::Dump::parse(&text);
                assert!(again.is_ok(), "{again:?}: {text}");
            }
        }
    }
});
