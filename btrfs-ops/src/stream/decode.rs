//! One command from its bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Command, Time, Version, attr};
use crate::types::{Generation, Uuid};

/// What is wrong with a command.
pub(super) type Wrong = String;

/// The attributes of a command, each at most once.
struct Attributes<'a>([Option<&'a [u8]>; attr::COUNT]);

impl<'a> Attributes<'a> {
    fn parse(version: Version, mut rest: &'a [u8]) -> Result<Self, Wrong> {
        let mut all = [None; attr::COUNT];
        while let Some((kind, after)) = split_u16(rest) {
            // Content goes on to the end of the command in version 2.
            let (value, after) = if kind == attr::DATA && version >= Version::V2 {
                (after, &[][..])
            } else {
                split_u16(after)
                    .and_then(|(length, after)| after.split_at_checked(length.into()))
                    .ok_or_else(|| format!("attribute {kind} is cut off"))?
            };
            rest = after;
            // A later kernel's attribute is no reason to refuse the command.
            if let Some(place) = all.get_mut(usize::from(kind))
                && place.replace(value).is_some()
            {
                return Err(format!("attribute {kind} is there twice"));
            }
        }
        if rest.is_empty() {
            Ok(Self(all))
        } else {
            Err("an attribute is cut off".to_owned())
        }
    }

    fn bytes(&self, kind: u16) -> Result<&'a [u8], Wrong> {
        self.0
            .get(usize::from(kind))
            .copied()
            .flatten()
            .ok_or_else(|| format!("attribute {kind} is missing"))
    }

    fn array<const N: usize>(&self, kind: u16) -> Result<[u8; N], Wrong> {
        let bytes = self.bytes(kind)?;
        bytes
            .try_into()
            .map_err(|_| format!("attribute {kind} has {} bytes, not {N}", bytes.len()))
    }

    fn u64(&self, kind: u16) -> Result<u64, Wrong> {
        Ok(u64::from_le_bytes(self.array(kind)?))
    }

    fn u32(&self, kind: u16) -> Result<u32, Wrong> {
        Ok(u32::from_le_bytes(self.array(kind)?))
    }

    fn u32_or_zero(&self, kind: u16) -> Result<u32, Wrong> {
        match self.bytes(kind) {
            Ok(_) => self.u32(kind),
            Err(_) => Ok(0),
        }
    }

    fn transid(&self, kind: u16) -> Result<Generation, Wrong> {
        self.u64(kind).map(Generation)
    }

    fn uuid(&self, kind: u16) -> Result<Option<Uuid>, Wrong> {
        Ok(Uuid::from_bytes(self.array(kind)?))
    }

    fn time(&self, kind: u16) -> Result<Time, Wrong> {
        let bytes: [u8; 12] = self.array(kind)?;
        let (sec, nsec) = bytes.split_at(8);
        let sec = i64::from_le_bytes(sec.try_into().map_err(|_| "a time is cut off")?);
        let nsec = u32::from_le_bytes(nsec.try_into().map_err(|_| "a time is cut off")?);
        if nsec > 999_999_999 {
            return Err(format!("a time has {nsec} nanoseconds"));
        }
        Ok(Time { sec, nsec })
    }

    fn path(&self, kind: u16) -> Result<&'a Path, Wrong> {
        Ok(Path::new(self.name(kind)?))
    }

    /// Names have no NUL, whatever some writers put at their end.
    fn name(&self, kind: u16) -> Result<&'a OsStr, Wrong> {
        let bytes = self.bytes(kind)?;
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        if bytes.contains(&0) {
            return Err(format!("attribute {kind} contains a NUL byte"));
        }
        Ok(OsStr::from_bytes(bytes))
    }
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_at_checked(2)?;
    Some((u16::from_le_bytes(head.try_into().ok()?), rest))
}

/// Decodes a command from its number and its attributes.
pub(super) fn command(version: Version, number: u16, payload: &[u8]) -> Result<Command<'_>, Wrong> {
    use Command as C;
    if number == 0 || number > 25 || (number > 22 && version < Version::V2) {
        return Err(format!(
            "command {number} is unknown in version {}",
            version.number()
        ));
    }
    let a = Attributes::parse(version, payload)?;
    let path = || a.path(attr::PATH);
    let ino = || a.u64(attr::INO);
    Ok(match number {
        1 => C::Subvol {
            path: path()?,
            uuid: a.uuid(attr::UUID)?,
            ctransid: a.transid(attr::CTRANSID)?,
        },
        2 => C::Snapshot {
            path: path()?,
            uuid: a.uuid(attr::UUID)?,
            ctransid: a.transid(attr::CTRANSID)?,
            clone_uuid: a.uuid(attr::CLONE_UUID)?,
            clone_ctransid: a.transid(attr::CLONE_CTRANSID)?,
        },
        3 => C::Mkfile {
            path: path()?,
            ino: ino()?,
        },
        4 => C::Mkdir {
            path: path()?,
            ino: ino()?,
        },
        5 => C::Mknod {
            path: path()?,
            ino: ino()?,
            mode: a.u64(attr::MODE)?,
            rdev: a.u64(attr::RDEV)?,
        },
        6 => C::Mkfifo {
            path: path()?,
            ino: ino()?,
            mode: a.u64(attr::MODE)?,
            rdev: a.u64(attr::RDEV)?,
        },
        7 => C::Mksock {
            path: path()?,
            ino: ino()?,
            mode: a.u64(attr::MODE)?,
            rdev: a.u64(attr::RDEV)?,
        },
        8 => C::Symlink {
            path: path()?,
            ino: ino()?,
            target: a.path(attr::PATH_LINK)?,
        },
        9 => C::Rename {
            path: path()?,
            to: a.path(attr::PATH_TO)?,
        },
        10 => C::Link {
            path: path()?,
            target: a.path(attr::PATH_LINK)?,
        },
        11 => C::Unlink { path: path()? },
        12 => C::Rmdir { path: path()? },
        13 => C::SetXattr {
            path: path()?,
            name: a.name(attr::XATTR_NAME)?,
            value: a.bytes(attr::XATTR_DATA)?,
        },
        14 => C::RemoveXattr {
            path: path()?,
            name: a.name(attr::XATTR_NAME)?,
        },
        15 => C::Write {
            path: path()?,
            offset: a.u64(attr::FILE_OFFSET)?,
            data: a.bytes(attr::DATA)?,
        },
        16 => C::Clone {
            path: path()?,
            offset: a.u64(attr::FILE_OFFSET)?,
            len: a.u64(attr::CLONE_LEN)?,
            clone_uuid: a.uuid(attr::CLONE_UUID)?,
            clone_ctransid: a.transid(attr::CLONE_CTRANSID)?,
            clone_path: a.path(attr::CLONE_PATH)?,
            clone_offset: a.u64(attr::CLONE_OFFSET)?,
        },
        17 => C::Truncate {
            path: path()?,
            size: a.u64(attr::SIZE)?,
        },
        18 => C::Chmod {
            path: path()?,
            mode: a.u64(attr::MODE)?,
        },
        19 => C::Chown {
            path: path()?,
            uid: a.u64(attr::UID)?,
            gid: a.u64(attr::GID)?,
        },
        20 => C::Utimes {
            path: path()?,
            atime: a.time(attr::ATIME)?,
            mtime: a.time(attr::MTIME)?,
            ctime: a.time(attr::CTIME)?,
            otime: match a.bytes(attr::OTIME) {
                Ok(_) => Some(a.time(attr::OTIME)?),
                Err(_) => None,
            },
        },
        21 => C::End,
        22 => C::UpdateExtent {
            path: path()?,
            offset: a.u64(attr::FILE_OFFSET)?,
            len: a.u64(attr::SIZE)?,
        },
        23 => C::Fallocate {
            path: path()?,
            mode: a.u32(attr::FALLOCATE_MODE)?,
            offset: a.u64(attr::FILE_OFFSET)?,
            len: a.u64(attr::SIZE)?,
        },
        24 => C::Fileattr {
            path: path()?,
            attr: a.u64(attr::FILEATTR)?,
        },
        _ => C::EncodedWrite {
            path: path()?,
            offset: a.u64(attr::FILE_OFFSET)?,
            unencoded_file_len: a.u64(attr::UNENCODED_FILE_LEN)?,
            unencoded_len: a.u64(attr::UNENCODED_LEN)?,
            unencoded_offset: a.u64(attr::UNENCODED_OFFSET)?,
            compression: a.u32_or_zero(attr::COMPRESSION)?,
            encryption: a.u32_or_zero(attr::ENCRYPTION)?,
            data: a.bytes(attr::DATA)?,
        },
    })
}
