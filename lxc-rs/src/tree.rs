//! Copying a directory tree, with everything a root file system depends on.
#![allow(
    unsafe_code,
    reason = "extended attributes and the clone ioctl have no wrapper in nix"
)]

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

/// Copies what is in `from` into the existing directory `to`. Does not follow
/// symbolic links and does not cross into other file systems mounted below.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let top = fs::metadata(from)?;
    let mut copy = Copy {
        device: top.dev(),
        linked: HashMap::new(),
    };
    copy.children(from, to)?;
    attributes(from, to, &top)
}

struct Copy {
    /// Btrfs subvolumes below have device numbers of their own; they are
    /// skipped like mounts, as a snapshot of the original would skip them.
    device: u64,
    /// Copies of files with several names, by inode.
    linked: HashMap<u64, PathBuf>,
}

impl Copy {
    fn children(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from).map_err(at(from))? {
            let entry = entry.map_err(at(from))?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            self.entry(&from, &to).map_err(at(&from))?;
        }
        Ok(())
    }

    fn entry(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let meta = fs::symlink_metadata(from)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            fs::create_dir(to)?;
            if meta.dev() == self.device {
                self.children(from, to)?;
            }
            return attributes(from, to, &meta);
        }
        if meta.nlink() > 1 {
            if let Some(first) = self.linked.get(&meta.ino()) {
                return fs::hard_link(first, to);
            }
            self.linked.insert(meta.ino(), to.to_owned());
        }
        if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
        } else if kind.is_file() {
            content(from, to)?;
        } else {
            let node = if kind.is_fifo() {
                SFlag::S_IFIFO
            } else if kind.is_block_device() {
                SFlag::S_IFBLK
            } else if kind.is_char_device() {
                SFlag::S_IFCHR
            } else {
                SFlag::S_IFSOCK
            };
            mknod(to, node, Mode::S_IRUSR, meta.rdev())?;
        }
        attributes(from, to, &meta)
    }
}

fn content(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    // SAFETY: FICLONE takes a descriptor by value and touches no memory of ours.
    let shared = unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) };
    if shared != 0 {
        io::copy(&mut source, &mut target)?;
    }
    Ok(())
}

/// Owner, mode, extended attributes and times, in the order in which they do
/// not undo each other.
fn attributes(from: &Path, to: &Path, meta: &Metadata) -> io::Result<()> {
    lchown(to, Some(meta.uid()), Some(meta.gid()))?;
    extended(from, to)?;
    if !meta.file_type().is_symlink() {
        fs::set_permissions(to, meta.permissions())?;
    }
    let time = |seconds, nanos| TimeSpec::new(seconds, nanos);
    let (read, written) = (
        time(meta.atime(), meta.atime_nsec()),
        time(meta.mtime(), meta.mtime_nsec()),
    );
    utimensat(
        nix::fcntl::AT_FDCWD,
        to,
        &read,
        &written,
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

fn extended(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    let names = match grow(|buffer| {
        // SAFETY: a C string, and a buffer that is as long as is said.
        unsafe { libc::llistxattr(from.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    }) {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let value = grow(|buffer| {
            let data = buffer.as_mut_ptr().cast();
            // SAFETY: two C strings, and a buffer that is as long as is said.
            unsafe { libc::lgetxattr(from.as_ptr(), name.as_ptr(), data, buffer.len()) }
        })?;
        let data = value.as_ptr().cast();
        // SAFETY: two C strings, and data that is as long as is said.
        let set = unsafe { libc::lsetxattr(to.as_ptr(), name.as_ptr(), data, value.len(), 0) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Calls with a larger buffer until the answer fits.
fn grow(mut call: impl FnMut(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match usize::try_from(call(&mut buffer)) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ERANGE) || buffer.len() > 1 << 20 {
                    return Err(error);
                }
                buffer.resize(buffer.len() * 4, 0);
            }
        }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Says which file it was.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
