//! File transfer between lab and node, over the programs' own pipes; and a file
//! that takes all room.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::sys;

/// Copies a file to standard output.
pub(crate) fn get(path: &Path) -> i32 {
    let result = File::open(path).and_then(|mut file| {
        io::copy(&mut file, &mut io::stdout().lock())?;
        Ok(())
    });
    report(path, result)
}

/// Writes standard input to a file, making the directories above it.
///
/// The file is written in place rather than replaced: it may be a kernel
/// setting under /proc or /sys, or a device.
pub(crate) fn put(path: &Path, mode: &std::ffi::OsStr) -> i32 {
    let Some(mode) = mode
        .to_str()
        .and_then(|text| u32::from_str_radix(text, 8).ok())
    else {
        eprintln!("put: {}: not a mode", mode.display());
        return 64;
    };
    report(path, put_with_mode(path, mode))
}

fn put_with_mode(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    io::copy(&mut io::stdin().lock(), &mut file)?;
    if file.metadata()?.is_file() && !path.starts_with("/proc") && !path.starts_with("/sys") {
        // The mode given at creation passes through the umask.
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The file that fills a file system.
const FILLER: &str = ".uml-lab-filler";

/// Takes the room of a file system away but for `leave` bytes.
pub(crate) fn fill(dir: &Path, leave: &std::ffi::OsStr) -> i32 {
    let leave = leave.to_str().and_then(|text| text.parse().ok());
    let filled = leave
        .ok_or_else(|| io::Error::from_raw_os_error(sys::EINVAL))
        .and_then(|leave| take_room(dir, leave));
    report(dir, filled)
}

fn take_room(dir: &Path, leave: u64) -> io::Result<()> {
    let path = dir.join(FILLER);
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    // What is still to be written there counts as well.
    sys::sync_file_system(file.as_fd())?;
    let mut piece = 64 << 20;
    while piece >= 4096 {
        let free = sys::free_bytes(dir)?.saturating_sub(leave);
        if leave > 0 && free < 4096 {
            break;
        }
        let end = file.metadata()?.len().cast_signed();
        let now = if leave > 0 {
            piece.min((free & !4095).cast_signed())
        } else {
            piece
        };
        match sys::allocate(file.as_fd(), end, now) {
            Ok(()) => {}
            Err(error) if sys::errno(&error) == sys::ENOSPC => piece /= 2,
            Err(error) => return Err(error),
        }
    }
    if leave == 0 {
        // Reservations round; the last bytes are written.
        loop {
            match file
                .write_all(&[0x55; 4096])
                .and_then(|()| file.sync_data())
            {
                Ok(()) => {}
                Err(error) if sys::errno(&error) == sys::ENOSPC => break,
                Err(error) => return Err(error),
            }
        }
    }
    file.sync_all()
}

/// Gives the room back.
pub(crate) fn unfill(dir: &Path) -> i32 {
    let removed = std::fs::remove_file(dir.join(FILLER))
        .and_then(|()| sys::sync_file_system(File::open(dir)?.as_fd()));
    report(dir, removed)
}

pub(crate) fn report(what: impl AsRef<Path>, result: io::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}: {error}", what.as_ref().display());
            // The caller wants the number, not the text.
            error
                .raw_os_error()
                .filter(|number| (1..128).contains(number))
                .unwrap_or(255)
        }
    }
}
