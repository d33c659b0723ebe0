//! Commands into a stream.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::reader::command_checksum;
use super::{COMMAND_HEADER, Command, MAGIC, Time, Version, attr};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Generation, Uuid};

/// Writes a stream that `btrfs receive` and [`receive`](crate::receive) take.
/// It does not buffer: give it something that does.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    version: Version,
    buffer: Vec<u8>,
}

/// A command that is being put together.
struct Packet<'b> {
    buffer: &'b mut Vec<u8>,
    version: Version,
    /// An attribute was longer than its length can say.
    too_long: bool,
}

impl Packet<'_> {
    fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.buffer.extend(kind.to_le_bytes());
        if kind != attr::DATA || self.version < Version::V2 {
            let length = u16::try_from(value.len()).unwrap_or_else(|_| {
                self.too_long = true;
                0
            });
            self.buffer.extend(length.to_le_bytes());
        }
        self.buffer.extend(value);
        self
    }

    fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_le_bytes())
    }

    fn transid(&mut self, kind: u16, value: Generation) -> &mut Self {
        self.u64(kind, value.0)
    }

    fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_le_bytes())
    }

    fn uuid(&mut self, kind: u16, value: Option<Uuid>) -> &mut Self {
        self.bytes(kind, &value.map_or([0; 16], |uuid| *uuid.as_bytes()))
    }

    fn time(&mut self, kind: u16, value: Time) -> &mut Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&value.sec.to_le_bytes());
        bytes[8..].copy_from_slice(&value.nsec.to_le_bytes());
        self.bytes(kind, &bytes)
    }

    fn path(&mut self, kind: u16, value: &Path) -> &mut Self {
        self.name(kind, value.as_os_str())
    }

    fn name(&mut self, kind: u16, value: &OsStr) -> &mut Self {
        self.bytes(kind, value.as_bytes())
    }

    /// In the order of the kernel; content stands last.
    fn command(&mut self, command: &Command<'_>) {
        use Command as C;
        if let Some(path) = command.path() {
            self.path(attr::PATH, path);
        }
        match *command {
            C::End | C::Unlink { .. } | C::Rmdir { .. } => {}
            C::Subvol { uuid, ctransid, .. } => {
                self.uuid(attr::UUID, uuid)
                    .transid(attr::CTRANSID, ctransid);
            }
            C::Snapshot {
                uuid,
                ctransid,
                clone_uuid,
                clone_ctransid,
                ..
            } => {
                self.uuid(attr::UUID, uuid)
                    .transid(attr::CTRANSID, ctransid)
                    .uuid(attr::CLONE_UUID, clone_uuid)
                    .transid(attr::CLONE_CTRANSID, clone_ctransid);
            }
            C::Mkfile { ino, .. } | C::Mkdir { ino, .. } => {
                self.u64(attr::INO, ino);
            }
            C::Mknod {
                ino, mode, rdev, ..
            }
            | C::Mkfifo {
                ino, mode, rdev, ..
            }
            | C::Mksock {
                ino, mode, rdev, ..
            } => {
                self.u64(attr::INO, ino)
                    .u64(attr::RDEV, rdev)
                    .u64(attr::MODE, mode);
            }
            C::Symlink { ino, target, .. } => {
                self.u64(attr::INO, ino).path(attr::PATH_LINK, target);
            }
            C::Rename { to, .. } => {
                self.path(attr::PATH_TO, to);
            }
            C::Link { target, .. } => {
                self.path(attr::PATH_LINK, target);
            }
            C::SetXattr { name, value, .. } => {
                self.name(attr::XATTR_NAME, name)
                    .bytes(attr::XATTR_DATA, value);
            }
            C::RemoveXattr { name, .. } => {
                self.name(attr::XATTR_NAME, name);
            }
            C::Write { offset, data, .. } => {
                self.u64(attr::FILE_OFFSET, offset).bytes(attr::DATA, data);
            }
            C::Clone {
                offset,
                len,
                clone_uuid,
                clone_ctransid,
                clone_path,
                clone_offset,
                ..
            } => {
                self.u64(attr::FILE_OFFSET, offset)
                    .u64(attr::CLONE_LEN, len)
                    .uuid(attr::CLONE_UUID, clone_uuid)
                    .transid(attr::CLONE_CTRANSID, clone_ctransid)
                    .path(attr::CLONE_PATH, clone_path)
                    .u64(attr::CLONE_OFFSET, clone_offset);
            }
            C::Truncate { size, .. } => {
                self.u64(attr::SIZE, size);
            }
            C::Chmod { mode, .. } => {
                self.u64(attr::MODE, mode);
            }
            C::Chown { uid, gid, .. } => {
                self.u64(attr::UID, uid).u64(attr::GID, gid);
            }
            C::Utimes {
                atime,
                mtime,
                ctime,
                otime,
                ..
            } => {
                self.time(attr::ATIME, atime)
                    .time(attr::MTIME, mtime)
                    .time(attr::CTIME, ctime);
                if let Some(otime) = otime {
                    self.time(attr::OTIME, otime);
                }
            }
            C::UpdateExtent { offset, len, .. } => {
                self.u64(attr::FILE_OFFSET, offset).u64(attr::SIZE, len);
            }
            C::Fallocate {
                mode, offset, len, ..
            } => {
                self.u32(attr::FALLOCATE_MODE, mode)
                    .u64(attr::FILE_OFFSET, offset)
                    .u64(attr::SIZE, len);
            }
            C::Fileattr { attr, .. } => {
                self.u64(attr::FILEATTR, attr);
            }
            C::EncodedWrite {
                offset,
                unencoded_file_len,
                unencoded_len,
                unencoded_offset,
                compression,
                encryption,
                data,
                ..
            } => {
                self.u64(attr::FILE_OFFSET, offset)
                    .u64(attr::UNENCODED_FILE_LEN, unencoded_file_len)
                    .u64(attr::UNENCODED_LEN, unencoded_len)
                    .u64(attr::UNENCODED_OFFSET, unencoded_offset)
                    .u32(attr::COMPRESSION, compression)
                    .u32(attr::ENCRYPTION, encryption)
                    .bytes(attr::DATA, data);
            }
        }
    }
}

impl<W: Write> Writer<W> {
    /// Begins a stream with its header.
    ///
    /// # Errors
    ///
    /// Those of `sink`.
    pub fn new(mut sink: W, version: Version) -> Result<Self> {
        let mut header = MAGIC.to_vec();
        header.extend(version.number().to_le_bytes());
        sink.write_all(&header).map_err(failed)?;
        Ok(Self {
            sink,
            version,
            buffer: Vec::with_capacity(version.max_command().min(256 << 10)),
        })
    }

    /// Writes one command.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::BadStream`] if it is longer than a command can be, or not
    /// one of this version. Errors of the sink.
    pub fn put(&mut self, command: &Command<'_>) -> Result<()> {
        let refuse = |text: &str| {
            let op = "write stream";
            Err(Error::message(
                ErrorKind::BadStream,
                op,
                command.name(),
                text,
            ))
        };
        if self.version < Version::V2 && command.number() > 22 {
            return refuse("version 1 of the stream does not have this command");
        }
        self.buffer.clear();
        self.buffer.resize(COMMAND_HEADER, 0);
        let mut packet = Packet {
            buffer: &mut self.buffer,
            version: self.version,
            too_long: false,
        };
        packet.command(command);
        if packet.too_long || self.buffer.len() > self.version.max_command() {
            return refuse("longer than a command can be");
        }
        // At most 1 MiB, by the check above.
        let length = (self.buffer.len() - COMMAND_HEADER) as u32;
        let (header, payload) = self.buffer.split_at_mut(COMMAND_HEADER);
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..6].copy_from_slice(&command.number().to_le_bytes());
        let sum = command_checksum(header, payload);
        header[6..].copy_from_slice(&sum.to_le_bytes());
        self.sink.write_all(&self.buffer).map_err(failed)
    }

    /// Writes content of a file, in as many commands as it takes.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn put_content(&mut self, path: &Path, mut offset: u64, data: &[u8]) -> Result<()> {
        // As kernels do: what leaves room for the longest path.
        let most = match self.version {
            Version::V1 => 48 << 10,
            Version::V2 => 128 << 10,
        };
        for data in data.chunks(most) {
            self.put(&Command::Write { path, offset, data })?;
            offset += data.len() as u64;
        }
        Ok(())
    }

    /// Ends the stream, flushes the sink and returns it.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn finish(mut self) -> Result<W> {
        self.put(&Command::End)?;
        self.sink.flush().map_err(failed)?;
        Ok(self.sink)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("write stream", "to its sink", error)
}
