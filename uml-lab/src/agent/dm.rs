//! Tables of the device mapper, which stand between a disk and its faults.

#![allow(unsafe_code, reason = "ioctl structures")]

use std::ffi::c_ulong;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsFd;

use super::sys;

const CONTROL: &str = "/dev/mapper/control";

// <linux/dm-ioctl.h>
const DM_DEV_CREATE: c_ulong = request(3);
const DM_DEV_REMOVE: c_ulong = request(4);
const DM_DEV_SUSPEND: c_ulong = request(6);
const DM_TABLE_LOAD: c_ulong = request(9);
const DM_SKIP_LOCKFS_FLAG: u32 = 1 << 10;
const DM_NOFLUSH_FLAG: u32 = 1 << 11;

/// Longest table that [`load`] takes, in bytes as the kernel sees it.
const MOST: usize = 64 * 1024;
const HEADER: usize = 312;
const SPEC: usize = 40;

/// `struct dm_ioctl`, <linux/dm-ioctl.h>, and room for targets behind it.
#[repr(C)]
struct Request {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
    targets: [u8; MOST],
}

const _: () = assert!(std::mem::offset_of!(Request, targets) == HEADER);

const fn request(number: c_ulong) -> c_ulong {
    3 << 30 | (HEADER as c_ulong) << 16 | 0xfd << 8 | number
}

impl Request {
    fn new(name: &str) -> Result<Box<Self>> {
        let mut request = Box::new(Request {
            version: [4, 0, 0],
            data_size: size_of::<Request>() as u32,
            data_start: HEADER as u32,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name: [0; 128],
            uuid: [0; 129],
            data: [0; 7],
            targets: [0; MOST],
        });
        if name.len() >= request.name.len() {
            return Err(Error::from_raw_os_error(sys::EINVAL));
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn send(&mut self, number: c_ulong) -> Result<()> {
        let control = File::options().read(true).write(true).open(CONTROL)?;
        // SAFETY: all requests used here read and write a `struct dm_ioctl`
        // with `data_size` bytes altogether, the size of this structure.
        unsafe { sys::ioctl_with(control.as_fd(), number, self) }
    }

    /// Puts a table behind the header: lines of first sector, sectors, target
    /// and its parameters, where `@` is `device`.
    fn put_table(&mut self, table: &str, device: &str) -> Result<()> {
        let invalid = |line: &str| Error::new(ErrorKind::InvalidInput, format!("table: {line:?}"));
        let mut at = 0;
        for line in table.lines() {
            let mut words = line.splitn(4, ' ');
            let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
            let (Some(start), Some(length)) = (number(words.next()), number(words.next())) else {
                return Err(invalid(line));
            };
            let kind = words.next().unwrap_or_default();
            let parameters = words.next().unwrap_or_default().replace('@', device);
            // Each begins at a multiple of 8 and ends with a NUL at least.
            let size = (SPEC + parameters.len() + 8) & !7;
            let Some(spec) = self.targets.get_mut(at..at + size) else {
                return Err(Error::new(ErrorKind::InvalidInput, "table: too long"));
            };
            if kind.is_empty() || kind.len() > 15 {
                return Err(invalid(line));
            }
            // `struct dm_target_spec`: start, length, status, next, type.
            spec[..8].copy_from_slice(&start.to_ne_bytes());
            spec[8..16].copy_from_slice(&length.to_ne_bytes());
            spec[20..24].copy_from_slice(&(size as u32).to_ne_bytes());
            spec[24..24 + kind.len()].copy_from_slice(kind.as_bytes());
            spec[SPEC..SPEC + parameters.len()].copy_from_slice(parameters.as_bytes());
            at += size;
            self.target_count += 1;
        }
        Ok(())
    }
}

/// Makes a device with this table; returns its number in /dev/dm-N.
pub(crate) fn create(name: &str, table: &str, device: &str) -> Result<u64> {
    let mut request = Request::new(name)?;
    request.send(DM_DEV_CREATE)?;
    // As the kernel spreads a minor over a 32-bit device number.
    let minor = request.dev & 0xff | request.dev >> 12 & 0xfff00;
    load(name, table, device).inspect_err(|_| {
        // The first error is the one that counts.
        let _ = Request::new(name).and_then(|mut request| request.send(DM_DEV_REMOVE));
    })?;
    Ok(minor)
}

/// Changes the table of a device that may be in use: requests under way end by
/// the old one, later ones wait until the new one is there. Nothing is flushed
/// and no file system is asked to write, as little as a fault would.
pub(crate) fn load(name: &str, table: &str, device: &str) -> Result<()> {
    let mut request = Request::new(name)?;
    request.put_table(table, device)?;
    request.send(DM_TABLE_LOAD)?;
    let mut resume = Request::new(name)?;
    resume.flags = DM_SKIP_LOCKFS_FLAG | DM_NOFLUSH_FLAG;
    resume.send(DM_DEV_SUSPEND)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn request_numbers_are_those_of_the_header() {
        assert_eq!(DM_DEV_CREATE, 0xc138_fd03);
        assert_eq!(DM_TABLE_LOAD, 0xc138_fd09);
        assert_eq!(std::mem::offset_of!(Request, dev), 40);
        assert_eq!(std::mem::offset_of!(Request, uuid), 176);
    }

    #[test]
    fn tables_are_laid_out_for_the_kernel() {
        let mut request = Request::new("ubda").unwrap();
        let table = "0 8 linear @ 0\n8 16 error\n";
        request.put_table(table, "/dev/lab/ubda").unwrap();
        assert_eq!(request.target_count, 2);
        let next = u32::from_ne_bytes(request.targets[20..24].try_into().unwrap()) as usize;
        assert_eq!(next % 8, 0);
        assert_eq!(&request.targets[24..31], b"linear\0");
        assert_eq!(&request.targets[40..56], b"/dev/lab/ubda 0\0");
        assert_eq!(request.targets[next..next + 8], 8_u64.to_ne_bytes());
        assert_eq!(&request.targets[next + 24..next + 30], b"error\0");
        for bad in ["x 8 linear", "0 linear", "0 8", "0 8 a-name-of-sixteen"] {
            assert!(request.put_table(bad, "").is_err(), "{bad}");
        }
        assert!(request.put_table(&"0 8 error\n".repeat(2000), "").is_err());
    }
}
