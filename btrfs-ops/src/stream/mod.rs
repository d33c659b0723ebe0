//! Send streams, versions 1 and 2: read, write, verify and dump them. Bytes
//! only: nothing here touches a file system.
//!
//! A stream is a header and commands, each with a checksum. A command has
//! attributes; in version 2 the content of files has no length of its own, so
//! that it can be longer than 64 KiB, and may be compressed as it is on disk.
//!
//! ```
//! use btrfs_ops::stream::{Command, Reader, Version, Writer};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut writer = Writer::new(Vec::new(), Version::V1)?;
//! writer.put(&Command::Subvol {
//!     path: Path::new("backup"),
//!     uuid: "0f8a1b2c-3d4e-5f60-7182-93a4b5c6d7e8".parse().ok(),
//!     ctransid: btrfs_ops::Generation(7),
//! })?;
//! writer.put(&Command::Mkfile { path: Path::new("file"), ino: 257 })?;
//! writer.put_content(Path::new("file"), 0, b"content")?;
//! let bytes = writer.finish()?;
//!
//! let mut reader = Reader::new(&bytes[..]);
//! while let Some(command) = reader.next()? {
//!     println!("{command}");
//! }
//! # Ok(())
//! # }
//! ```

mod decode;
mod reader;
mod summary;
mod writer;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::types::{Generation, Uuid};

pub use reader::{Commands, Reader};
pub(crate) use summary::check;
pub use summary::{StreamSubvolume, Summary, dump, verify};
pub use writer::Writer;

pub(crate) use reader::checksum;

/// `BTRFS_SEND_STREAM_MAGIC`, with its NUL.
const MAGIC: &[u8; 13] = b"btrfs-stream\0";
/// `struct btrfs_stream_header`.
const HEADER: usize = 17;
/// `struct btrfs_cmd_header`.
const COMMAND_HEADER: usize = 10;
/// `BTRFS_SEND_BUF_SIZE_V1`: a command with its header.
const MAX_V1: usize = 64 << 10;
/// Kernels write up to 144 KiB, and more where pages are larger than 4 KiB.
const MAX_V2: usize = 1 << 20;

/// The version of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Version {
    /// Every kernel's.
    #[default]
    V1,
    /// Linux 6.0: larger writes, compressed content, times of creation.
    V2,
}

impl Version {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The most bytes of a command with its header.
    fn max_command(self) -> usize {
        match self {
            Self::V1 => MAX_V1,
            Self::V2 => MAX_V2,
        }
    }
}

/// A point in time, as inodes have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub sec: i64,
    /// Nanoseconds after that second.
    pub nsec: u32,
}

/// One command of a stream. Paths are relative to the subvolume that is being
/// sent; an empty one is its root directory. Nothing is checked beyond the
/// format: a path may be one that must not be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are those of the system calls named"
)]
pub enum Command<'a> {
    /// A new subvolume begins.
    Subvol {
        path: &'a Path,
        uuid: Option<Uuid>,
        ctransid: Generation,
    },
    /// A subvolume begins that is a changed snapshot of another one.
    Snapshot {
        path: &'a Path,
        uuid: Option<Uuid>,
        ctransid: Generation,
        clone_uuid: Option<Uuid>,
        clone_ctransid: Generation,
    },
    /// A new empty file.
    Mkfile { path: &'a Path, ino: u64 },
    /// `mkdir`.
    Mkdir { path: &'a Path, ino: u64 },
    /// `mknod` of a device.
    Mknod {
        path: &'a Path,
        ino: u64,
        mode: u64,
        rdev: u64,
    },
    /// `mkfifo`.
    Mkfifo {
        path: &'a Path,
        ino: u64,
        mode: u64,
        rdev: u64,
    },
    /// `mknod` of a socket.
    Mksock {
        path: &'a Path,
        ino: u64,
        mode: u64,
        rdev: u64,
    },
    /// `symlink`.
    Symlink {
        path: &'a Path,
        ino: u64,
        target: &'a Path,
    },
    /// `rename`.
    Rename { path: &'a Path, to: &'a Path },
    /// `link`: `path` is the new name.
    Link { path: &'a Path, target: &'a Path },
    /// `unlink`.
    Unlink { path: &'a Path },
    /// `rmdir`.
    Rmdir { path: &'a Path },
    /// `lsetxattr`.
    SetXattr {
        path: &'a Path,
        name: &'a OsStr,
        value: &'a [u8],
    },
    /// `lremovexattr`.
    RemoveXattr { path: &'a Path, name: &'a OsStr },
    /// `pwrite`.
    Write {
        path: &'a Path,
        offset: u64,
        data: &'a [u8],
    },
    /// Shares content of a file of this subvolume or of another one.
    Clone {
        path: &'a Path,
        offset: u64,
        len: u64,
        clone_uuid: Option<Uuid>,
        clone_ctransid: Generation,
        clone_path: &'a Path,
        clone_offset: u64,
    },
    /// `truncate`.
    Truncate { path: &'a Path, size: u64 },
    /// `chmod`.
    Chmod { path: &'a Path, mode: u64 },
    /// `lchown`.
    Chown { path: &'a Path, uid: u64, gid: u64 },
    /// `utimensat`; `otime` is in version 2 only and cannot be set.
    Utimes {
        path: &'a Path,
        atime: Time,
        mtime: Time,
        ctime: Time,
        otime: Option<Time>,
    },
    /// The end of the stream.
    End,
    /// In place of a `Write` when content was not asked for.
    UpdateExtent {
        path: &'a Path,
        offset: u64,
        len: u64,
    },
    /// `fallocate`, version 2.
    Fallocate {
        path: &'a Path,
        mode: u32,
        offset: u64,
        len: u64,
    },
    /// Inode flags, version 2. No kernel writes them yet.
    Fileattr { path: &'a Path, attr: u64 },
    /// A write of content in its compressed form, version 2.
    EncodedWrite {
        path: &'a Path,
        offset: u64,
        /// Bytes of the file that this stands for.
        unencoded_file_len: u64,
        /// Bytes that `data` decompresses to.
        unencoded_len: u64,
        /// Where the bytes of the file begin in those.
        unencoded_offset: u64,
        /// `BTRFS_ENCODED_IO_COMPRESSION_*`.
        compression: u32,
        encryption: u32,
        data: &'a [u8],
    },
}

/// Attribute numbers (`BTRFS_SEND_A_*`).
mod attr {
    pub(super) const UUID: u16 = 1;
    pub(super) const CTRANSID: u16 = 2;
    pub(super) const INO: u16 = 3;
    pub(super) const SIZE: u16 = 4;
    pub(super) const MODE: u16 = 5;
    pub(super) const UID: u16 = 6;
    pub(super) const GID: u16 = 7;
    pub(super) const RDEV: u16 = 8;
    pub(super) const CTIME: u16 = 9;
    pub(super) const MTIME: u16 = 10;
    pub(super) const ATIME: u16 = 11;
    pub(super) const OTIME: u16 = 12;
    pub(super) const XATTR_NAME: u16 = 13;
    pub(super) const XATTR_DATA: u16 = 14;
    pub(super) const PATH: u16 = 15;
    pub(super) const PATH_TO: u16 = 16;
    pub(super) const PATH_LINK: u16 = 17;
    pub(super) const FILE_OFFSET: u16 = 18;
    pub(super) const DATA: u16 = 19;
    pub(super) const CLONE_UUID: u16 = 20;
    pub(super) const CLONE_CTRANSID: u16 = 21;
    pub(super) const CLONE_PATH: u16 = 22;
    pub(super) const CLONE_OFFSET: u16 = 23;
    pub(super) const CLONE_LEN: u16 = 24;
    pub(super) const FALLOCATE_MODE: u16 = 25;
    pub(super) const FILEATTR: u16 = 26;
    pub(super) const UNENCODED_FILE_LEN: u16 = 27;
    pub(super) const UNENCODED_LEN: u16 = 28;
    pub(super) const UNENCODED_OFFSET: u16 = 29;
    pub(super) const COMPRESSION: u16 = 30;
    pub(super) const ENCRYPTION: u16 = 31;
    /// One more than the last attribute of version 2.
    pub(super) const COUNT: usize = 32;
}

impl<'a> Command<'a> {
    /// Its name, as the kernel's header has it (`BTRFS_SEND_C_*`).
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAMES[usize::from(self.number()) - 1]
    }

    /// The path it is about; `None` for the end.
    #[must_use]
    pub fn path(&self) -> Option<&'a Path> {
        use Command as C;
        match *self {
            C::Subvol { path, .. }
            | C::Snapshot { path, .. }
            | C::Mkfile { path, .. }
            | C::Mkdir { path, .. }
            | C::Mknod { path, .. }
            | C::Mkfifo { path, .. }
            | C::Mksock { path, .. }
            | C::Symlink { path, .. }
            | C::Rename { path, .. }
            | C::Link { path, .. }
            | C::Unlink { path }
            | C::Rmdir { path }
            | C::SetXattr { path, .. }
            | C::RemoveXattr { path, .. }
            | C::Write { path, .. }
            | C::Clone { path, .. }
            | C::Truncate { path, .. }
            | C::Chmod { path, .. }
            | C::Chown { path, .. }
            | C::Utimes { path, .. }
            | C::UpdateExtent { path, .. }
            | C::Fallocate { path, .. }
            | C::Fileattr { path, .. }
            | C::EncodedWrite { path, .. } => Some(path),
            C::End => None,
        }
    }

    /// The other path that a receiver would follow, if there is one. The target
    /// of a symbolic link is not followed.
    #[must_use]
    pub fn second_path(&self) -> Option<&'a Path> {
        match *self {
            Command::Rename { to, .. } => Some(to),
            Command::Link { target, .. } => Some(target),
            Command::Clone { clone_path, .. } => Some(clone_path),
            _ => None,
        }
    }

    /// `BTRFS_SEND_C_*`.
    fn number(&self) -> u16 {
        use Command as C;
        match self {
            C::Subvol { .. } => 1,
            C::Snapshot { .. } => 2,
            C::Mkfile { .. } => 3,
            C::Mkdir { .. } => 4,
            C::Mknod { .. } => 5,
            C::Mkfifo { .. } => 6,
            C::Mksock { .. } => 7,
            C::Symlink { .. } => 8,
            C::Rename { .. } => 9,
            C::Link { .. } => 10,
            C::Unlink { .. } => 11,
            C::Rmdir { .. } => 12,
            C::SetXattr { .. } => 13,
            C::RemoveXattr { .. } => 14,
            C::Write { .. } => 15,
            C::Clone { .. } => 16,
            C::Truncate { .. } => 17,
            C::Chmod { .. } => 18,
            C::Chown { .. } => 19,
            C::Utimes { .. } => 20,
            C::End => 21,
            C::UpdateExtent { .. } => 22,
            C::Fallocate { .. } => 23,
            C::Fileattr { .. } => 24,
            C::EncodedWrite { .. } => 25,
        }
    }
}

const NAMES: [&str; 25] = [
    "subvol",
    "snapshot",
    "mkfile",
    "mkdir",
    "mknod",
    "mkfifo",
    "mksock",
    "symlink",
    "rename",
    "link",
    "unlink",
    "rmdir",
    "set_xattr",
    "remove_xattr",
    "write",
    "clone",
    "truncate",
    "chmod",
    "chown",
    "utimes",
    "end",
    "update_extent",
    "fallocate",
    "fileattr",
    "encoded_write",
];

impl fmt::Display for Command<'_> {
    /// One line, with odd bytes of names escaped and content as its length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Command as C;
        let text = |bytes: &OsStr| bytes.as_bytes().escape_ascii().to_string();
        let uuid = |uuid: &Option<Uuid>| uuid.map_or_else(|| "-".into(), |uuid| uuid.to_string());
        let time = |time: &Time| format!("{}.{:09}", time.sec, time.nsec);
        f.write_str(self.name())?;
        if let Some(path) = self.path() {
            write!(f, " {}", text(Path::new("./").join(path).as_os_str()))?;
        }
        match self {
            C::Subvol {
                uuid: own,
                ctransid,
                ..
            } => {
                write!(f, " uuid={} transid={ctransid}", uuid(own))
            }
            C::Snapshot {
                uuid: own,
                ctransid,
                clone_uuid,
                clone_ctransid,
                ..
            } => write!(
                f,
                " uuid={} transid={ctransid} parent_uuid={} parent_transid={clone_ctransid}",
                uuid(own),
                uuid(clone_uuid),
            ),
            C::Mkfile { .. } | C::Mkdir { .. } | C::Unlink { .. } | C::Rmdir { .. } | C::End => {
                Ok(())
            }
            C::Mknod { mode, rdev, .. }
            | C::Mkfifo { mode, rdev, .. }
            | C::Mksock { mode, rdev, .. } => write!(f, " mode={mode:o} dev={rdev:#x}"),
            C::Symlink { target, .. } | C::Link { target, .. } => {
                write!(f, " dest={}", text(target.as_os_str()))
            }
            C::Rename { to, .. } => write!(f, " dest={}", text(to.as_os_str())),
            C::SetXattr { name, value, .. } => {
                write!(f, " name={} len={}", text(name), value.len())
            }
            C::RemoveXattr { name, .. } => write!(f, " name={}", text(name)),
            C::Write { offset, data, .. } => write!(f, " offset={offset} len={}", data.len()),
            C::Clone {
                offset,
                len,
                clone_uuid,
                clone_path,
                clone_offset,
                ..
            } => write!(
                f,
                " offset={offset} len={len} from={} clone_offset={clone_offset} of={}",
                text(clone_path.as_os_str()),
                uuid(clone_uuid),
            ),
            C::Truncate { size, .. } => write!(f, " size={size}"),
            C::Chmod { mode, .. } => write!(f, " mode={mode:o}"),
            C::Chown { uid, gid, .. } => write!(f, " uid={uid} gid={gid}"),
            C::Utimes {
                atime,
                mtime,
                ctime,
                ..
            } => write!(
                f,
                " atime={} mtime={} ctime={}",
                time(atime),
                time(mtime),
                time(ctime)
            ),
            C::UpdateExtent { offset, len, .. } => write!(f, " offset={offset} len={len}"),
            C::Fallocate {
                mode, offset, len, ..
            } => {
                write!(f, " mode={mode} offset={offset} len={len}")
            }
            C::Fileattr { attr, .. } => write!(f, " attr={attr:#x}"),
            C::EncodedWrite {
                offset,
                unencoded_file_len,
                unencoded_len,
                unencoded_offset,
                compression,
                data,
                ..
            } => write!(
                f,
                " offset={offset} len={} unencoded_file_len={unencoded_file_len} \
                 unencoded_len={unencoded_len} unencoded_offset={unencoded_offset} \
                 compression={compression}",
                data.len(),
            ),
        }
    }
}

/// A stream that breaks the format, at this byte.
pub(crate) fn bad(at: u64, text: impl Into<String>) -> Error {
    Error::message(
        ErrorKind::BadStream,
        "stream",
        format!("at byte {at}"),
        text,
    )
}

/// A stream that ends too early: what came before is right.
pub(crate) fn cut(at: u64, text: impl Into<String>) -> Error {
    bad(at, text).early_end()
}

/// Refuses paths that would lead out of the subvolume, or that no kernel sends.
/// The empty path is the subvolume's root.
pub(crate) fn check_path(path: &Path) -> Result<(), &'static str> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Ok(());
    }
    if bytes.len() >= 4096 {
        return Err("a path is longer than any path can be");
    }
    for name in bytes.split(|&b| b == b'/') {
        match name {
            b"" => return Err("a path is absolute or has an empty part"),
            b"." | b".." => return Err("a path has a part '.' or '..'"),
            _ if name.contains(&0) => return Err("a path contains a NUL byte"),
            _ if name.len() > 255 => return Err("a name is longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses a name for a subvolume that is not one plain name. Kernels send the
/// last part of the sender's path.
pub(crate) fn check_subvolume_name(path: &Path) -> Result<&OsStr, &'static str> {
    check_path(path)?;
    let name = path.as_os_str();
    if name.is_empty() || name.as_bytes().contains(&b'/') {
        return Err("the subvolume's name is not one plain name");
    }
    Ok(name)
}
