//! Keeps a node's disks going.
//!
//! The kernel learns that disk requests are done from one socket, and now and
//! then misses it (seen on 6.1: in one of seven first syncs of DRBD; why, `link.rs`
//! tells). Everything that waits for a disk then stands still until the next
//! request of any disk is done: for seconds, or for ever. So there is a disk that
//! nobody uses but this module, which reads it now and then.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::Duration;

/// The disk; the lab gives the file for it to every node.
const DISK: &str = "/dev/ubdp";
/// Two readers take turns, so that one whose own answer is missed is helped by
/// the other.
const READERS: u32 = 2;
const PERIOD: Duration = Duration::from_millis(600);
/// `O_DIRECT` of x86_64: past the page cache, to the disk.
const O_DIRECT: i32 = 0o40_000;

#[repr(align(4096))]
struct Block([u8; 4096]);

/// Starts to read. Called once the signals of process 1 are blocked, which its
/// threads inherit. A kernel without the disk has to do without.
pub(crate) fn begin() {
    for n in 0..READERS {
        let Ok(disk) = OpenOptions::new()
            .read(true)
            .custom_flags(O_DIRECT)
            .open(DISK)
        else {
            return;
        };
        let reader = move || {
            thread::sleep(PERIOD * n / READERS);
            read_now_and_then(&disk);
        };
        let thread = thread::Builder::new().name("kick".into());
        if let Err(error) = thread.stack_size(64 << 10).spawn(reader) {
            eprintln!("uml-lab: disks are not watched: {error}");
        }
    }
}

fn read_now_and_then(disk: &File) {
    let mut block = Box::new(Block([0; 4096]));
    loop {
        // Nothing is wanted but that it ends.
        let _ = disk.read_at(&mut block.0, 0);
        thread::sleep(PERIOD);
    }
}
