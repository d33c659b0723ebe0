//! The one file that reads and writes devices.
#![allow(unsafe_code, reason = "ioctl and flock have no safe form in std")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Cause, Error, Result};
use crate::layout::BLOCK;

// linux/fs.h; the numbers are the same on all architectures (_IO has no direction or size bits),
// except BLKGETSIZE64, which is built below.
const BLKROGET: libc::c_ulong = 0x125e;
const BLKFLSBUF: libc::c_ulong = 0x1261;
const BLKGETSIZE64: libc::c_ulong = {
    // _IOR(0x12, 114, size_t)
    let read = if cfg!(any(
        target_arch = "mips",
        target_arch = "mips64",
        target_arch = "powerpc",
        target_arch = "powerpc64",
        target_arch = "sparc64"
    )) {
        0x4000_0000
    } else {
        0x8000_0000
    };
    read | ((size_of::<usize>() as libc::c_ulong) << 16) | 0x1272
};

/// What the device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Looking; the device may be in use by others.
    Read,
    /// Changing; nobody else may hold the device.
    Exclusive,
}

/// An open block device or regular file.
#[derive(Debug)]
pub(crate) struct Device {
    file: File,
    path: PathBuf,
    size: u64,
    op: &'static str,
    locked: bool,
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.locked {
            // Closing would do, if it were the only descriptor; but a child that another thread
            // has just forked has a copy until it executes, and with it the lock.
            // SAFETY: flock takes an open descriptor and a number.
            unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) };
        }
    }
}

/// A buffer whose usable part starts at a multiple of the block size, as direct I/O wants it.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    pub(crate) fn zeroed(len: usize) -> Buffer {
        let bytes = vec![0; len + BLOCK as usize];
        let start = bytes
            .as_ptr()
            .align_offset(BLOCK as usize)
            .min(BLOCK as usize);
        Buffer { bytes, start, len }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl Device {
    /// Opens `path` for the operation `op`.
    pub(crate) fn open(path: &Path, access: Access, op: &'static str) -> Result<Device> {
        let fail = |cause| Error::new(op, path, None, cause);
        let meta = std::fs::metadata(path).map_err(|e| Error::os(op, path, None, e))?;
        let kind = meta.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(fail(Cause::NotADevice));
        }
        let write = access == Access::Exclusive;
        // DRBD writes past the page cache, so what is cached here may be old: go past it as well.
        let mut flags = if kind.is_block_device() {
            libc::O_DIRECT
        } else {
            0
        };
        if write && kind.is_block_device() {
            flags |= libc::O_EXCL;
        }
        let open = |flags| {
            OpenOptions::new()
                .read(true)
                .write(write)
                .custom_flags(flags)
                .open(path)
        };
        let mut direct = flags & libc::O_DIRECT != 0;
        let opened = match open(flags) {
            Err(e) if direct && e.raw_os_error() == Some(libc::EINVAL) => {
                direct = false;
                open(flags & !libc::O_DIRECT)
            }
            other => other,
        };
        let file = opened.map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => fail(Cause::InUse(e)),
            Some(libc::EROFS) => fail(Cause::ReadOnly(e)),
            // A block device set read-only answers EACCES, which is also the answer to a lack
            // of permission: ask the device itself.
            Some(libc::EACCES | libc::EPERM) if write && set_read_only(path) => {
                fail(Cause::ReadOnly(e))
            }
            _ => Error::os(op, path, None, e),
        })?;
        let size = if kind.is_block_device() {
            if !direct {
                // SAFETY: BLKFLSBUF takes no argument; the descriptor is open. A refusal (no
                // privilege) leaves us with what the cache has, which is all that can be had.
                let _ = unsafe { libc::ioctl(file.as_raw_fd(), BLKFLSBUF as _, 0) };
            }
            block_size(&file).map_err(|e| Error::os(op, path, None, e))?
        } else {
            if write {
                // SAFETY: flock takes an open descriptor and a number.
                let rc = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
                if rc != 0 {
                    let e = io::Error::last_os_error();
                    return Err(match e.raw_os_error() {
                        Some(libc::EWOULDBLOCK) => fail(Cause::InUse(e)),
                        _ => Error::os(op, path, None, e),
                    });
                }
            }
            file.metadata()
                .map_err(|e| Error::os(op, path, None, e))?
                .len()
        };
        let locked = write && kind.is_file();
        Ok(Device {
            file,
            path: path.to_owned(),
            size,
            op,
            locked,
        })
    }

    /// Opens the device once more, for reads of any length through the page cache.
    ///
    /// What the cache holds may be older than what DRBD wrote past it, so it is dropped first.
    pub(crate) fn cached(&self) -> Result<File> {
        let file = File::open(&self.path).map_err(|e| Error::os(self.op, &self.path, None, e))?;
        // SAFETY: posix_fadvise takes an open descriptor and numbers. It is advice: pages that are
        // in use stay, and there is nothing to do about that.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        Ok(file)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Tells whether a sparse file has nothing at all in a range, so that it reads as zeros.
    pub(crate) fn is_hole(&self, offset: u64, len: u64) -> bool {
        let Ok(from) = libc::off_t::try_from(offset) else {
            return false;
        };
        // SAFETY: lseek takes an open descriptor and numbers. All other accesses name their
        // position, so that moving it disturbs nobody.
        let next = unsafe { libc::lseek(self.file.as_raw_fd(), from, libc::SEEK_DATA) };
        match u64::try_from(next) {
            Ok(next) => next >= offset + len,
            // Nothing but a hole up to the end. Block devices do not know holes.
            Err(_) => self.locked && io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO),
        }
    }

    /// Makes an error about this device.
    pub(crate) fn error(&self, offset: Option<u64>, cause: Cause) -> Error {
        Error::new(self.op, &self.path, offset, cause)
    }

    fn os(&self, offset: u64) -> impl FnOnce(io::Error) -> Error + '_ {
        move |e| match e.raw_os_error() {
            Some(libc::EROFS | libc::EPERM) => self.error(Some(offset), Cause::ReadOnly(e)),
            _ => Error::os(self.op, &self.path, Some(offset), e),
        }
    }

    /// Reads `len` bytes at `offset`; both are multiples of the block size.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Buffer> {
        debug_assert!(offset.is_multiple_of(BLOCK) && (len as u64).is_multiple_of(BLOCK));
        let mut buffer = Buffer::zeroed(len);
        self.file
            .read_exact_at(&mut buffer, offset)
            .map_err(self.os(offset))?;
        Ok(buffer)
    }

    /// Reads one block.
    pub(crate) fn read_block(&self, offset: u64) -> Result<[u8; BLOCK as usize]> {
        let mut block = [0; BLOCK as usize];
        block.copy_from_slice(&self.read(offset, BLOCK as usize)?);
        Ok(block)
    }

    /// Writes whole blocks at a multiple of the block size. Durable only after
    /// [`Device::flush`]. `bytes` lies in a [`Buffer`], so that direct I/O takes it.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        debug_assert!(offset.is_multiple_of(BLOCK) && (bytes.len() as u64).is_multiple_of(BLOCK));
        #[cfg(test)]
        let bytes = crate::crash::cut(bytes);
        self.file
            .write_all_at(bytes, offset)
            .map_err(self.os(offset))?;
        #[cfg(test)]
        crate::crash::end().map_err(self.os(offset))?;
        Ok(())
    }

    /// Flushes the device and its write cache, and compares what was written with what is there.
    pub(crate) fn flush_and_verify(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        self.verify(offset, bytes)
    }

    /// Compares what is on the device with `bytes`.
    pub(crate) fn verify(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.read(offset, bytes.len())?[..] != bytes[..] {
            return Err(self.error(Some(offset), Cause::Verify { wrote: bytes.len() }));
        }
        Ok(())
    }

    /// Waits until everything written is on stable storage.
    pub(crate) fn flush(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|e| Error::os(self.op, &self.path, None, e))
    }
}

fn block_size(file: &File) -> io::Result<u64> {
    let mut size = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 to the address given, which is a live local.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64 as _, &raw mut size) };
    if rc == 0 {
        Ok(size)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Tells whether the block device is set read-only.
fn set_read_only(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let mut read_only: libc::c_int = 0;
    // SAFETY: BLKROGET writes one int to the address given, which is a live local; on a file
    // that is no block device it fails and writes nothing.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), BLKROGET as _, &raw mut read_only) };
    rc == 0 && read_only != 0
}
