//! Facts about this host.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// The host name of the calling thread's UTS namespace.
///
/// # Errors
///
/// None is known.
pub fn hostname() -> Result<OsString> {
    nix::unistd::gethostname().map_err(|e| Error::os("read", "host name", e))
}

/// The release of the running kernel, as `uname -r` prints it.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if /proc is not mounted.
pub fn kernel_release() -> Result<String> {
    read_line("/proc/sys/kernel/osrelease")
}

/// The id that the kernel made up when it booted. A different one means that the
/// node has been restarted.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if /proc is not mounted.
pub fn boot_id() -> Result<String> {
    read_line("/proc/sys/kernel/random/boot_id")
}

/// Bytes of memory that can be had without swapping (`MemAvailable`).
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if /proc is not mounted.
pub fn memory_available() -> Result<u64> {
    let path = Path::new("/proc/meminfo");
    let text = fs::read_to_string(path).map_err(Error::path("read", path))?;
    available(&text).ok_or_else(|| {
        Error::message(
            ErrorKind::Malformed,
            "read",
            "/proc/meminfo",
            "no MemAvailable in kB",
        )
    })
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn read_line(path: &str) -> Result<String> {
    let path = Path::new(path);
    let text = fs::read_to_string(path).map_err(Error::path("read", path))?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn meminfo() {
        let text = "MemTotal:  100 kB\nMemAvailable:      42 kB\nSwapTotal: 0 kB\n";
        assert_eq!(available(text), Some(42 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: x kB\n"), None);
        assert!(memory_available().unwrap() > 0);
    }

    #[test]
    fn names_are_not_empty() {
        assert!(!kernel_release().unwrap().is_empty());
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(!hostname().unwrap().is_empty());
    }
}
