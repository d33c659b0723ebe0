//! File transfer between lab and node, over the programs' own pipes.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

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

fn report(path: &Path, result: io::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            // The caller wants the number, not the text.
            error
                .raw_os_error()
                .filter(|number| (1..128).contains(number))
                .unwrap_or(255)
        }
    }
}
