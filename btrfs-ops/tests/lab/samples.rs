//! Commands of streams: what the fuzz targets begin with, too.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use btrfs_ops::stream::{Command, Time, Version};
use btrfs_ops::{Generation, Uuid};

pub(crate) fn uuid(n: u8) -> Option<Uuid> {
    Uuid::from_bytes([n; 16])
}

/// One of each.
pub(crate) fn all(version: Version) -> Vec<Command<'static>> {
    let path = Path::new("dir/file");
    let time = |sec, nsec| Time { sec, nsec };
    let mut commands = vec![
        Command::Snapshot {
            path: Path::new("s1"),
            uuid: uuid(1),
            ctransid: Generation(7),
            clone_uuid: uuid(2),
            clone_ctransid: Generation(6),
        },
        Command::Subvol {
            path: Path::new("s2"),
            uuid: uuid(3),
            ctransid: Generation(8),
        },
        Command::Mkfile {
            path: Path::new("o257-7-0"),
            ino: 257,
        },
        Command::Mkdir {
            path: Path::new("dir"),
            ino: 258,
        },
        Command::Mknod {
            path,
            ino: 259,
            mode: 0o20600,
            rdev: 0x103,
        },
        Command::Mkfifo {
            path,
            ino: 260,
            mode: 0o10600,
            rdev: 0,
        },
        Command::Mksock {
            path,
            ino: 261,
            mode: 0o140600,
            rdev: 0,
        },
        Command::Symlink {
            path,
            ino: 262,
            target: Path::new("/etc/passwd"),
        },
        Command::Rename {
            path,
            to: Path::new(OsStr::from_bytes(b"\xff\n")),
        },
        Command::Link {
            path,
            target: Path::new("other"),
        },
        Command::Unlink { path },
        Command::Rmdir { path },
        Command::SetXattr {
            path,
            name: OsStr::new("user.x"),
            value: b"\0value\0",
        },
        Command::RemoveXattr {
            path,
            name: OsStr::new("user.x"),
        },
        Command::Write {
            path,
            offset: 4096,
            data: &[7; 100],
        },
        Command::Clone {
            path,
            offset: 0,
            len: 4096,
            clone_uuid: uuid(4),
            clone_ctransid: Generation(5),
            clone_path: Path::new("source"),
            clone_offset: 8192,
        },
        Command::Truncate {
            path,
            size: u64::MAX,
        },
        Command::Chmod {
            path: Path::new(""),
            mode: 0o755,
        },
        Command::Chown {
            path,
            uid: 1,
            gid: 2,
        },
        Command::Utimes {
            path,
            atime: time(-1, 999_999_999),
            mtime: time(0, 0),
            ctime: time(i64::MAX, 1),
            otime: (version == Version::V2).then_some(time(5, 5)),
        },
        Command::UpdateExtent {
            path,
            offset: 0,
            len: 1 << 40,
        },
    ];
    if version == Version::V2 {
        commands.extend([
            Command::Fallocate {
                path,
                mode: 3,
                offset: 4096,
                len: 8192,
            },
            Command::Fileattr { path, attr: 0x40 },
            Command::EncodedWrite {
                path,
                offset: 4096,
                unencoded_file_len: 8192,
                unencoded_len: 16384,
                unencoded_offset: 4096,
                compression: 2,
                encryption: 0,
                data: &[9; 200],
            },
            // Longer than an attribute of version 1 can be.
            Command::Write {
                path,
                offset: 0,
                data: &[1; 100_000],
            },
        ]);
    }
    commands
}
