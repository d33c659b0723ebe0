//! Puts a root file system back to a snapshot.
//!
//! liblxc destroys the original first and draws a new hardware address; if it
//! is interrupted in between, nothing is left. Here the new subvolume stands
//! before the old one is touched, and they change places in one step.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::os;
use crate::path;
use crate::wire::{Failure, Reply, Restore};

pub(crate) fn run(restore: &Restore) -> Result<Reply, Failure> {
    let (from, rootfs, aside) = (
        path(&restore.from),
        path(&restore.rootfs),
        path(&restore.aside),
    );
    let at = |what: &Path| {
        let what = what.as_os_str().as_encoded_bytes().to_vec();
        |error: io::Error| Failure::File {
            what,
            errno: error.raw_os_error().unwrap_or(0),
        }
    };
    // From a restore that was cut off: a copy that was not finished, or the
    // old root file system after it was replaced.
    os::delete_tree(aside).map_err(at(aside))?;
    os::snapshot(from, aside).map_err(at(aside))?;
    os::exchange(aside, rootfs).map_err(at(rootfs))?;
    let file = path(&restore.config_file);
    replace(file, &restore.config).map_err(at(file))?;
    os::delete_tree(aside).map_err(at(aside))?;
    Ok(Reply::Done)
}

/// Writes a file anew: all of it or nothing, and on disk at the end.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let dir = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let new = dir.join(".config.restored");
    let mode = fs::metadata(file)?.permissions().mode();
    let mut made = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode & 0o7777)
        .open(&new)?;
    made.write_all(content)?;
    made.sync_all()?;
    fs::rename(&new, file)?;
    File::open(dir)?.sync_all()
}
