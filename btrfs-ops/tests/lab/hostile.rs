//! Streams that want out, or that break: nothing outside of the destination
//! changes, and nothing is left in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use btrfs_ops::stream::{Command, Time, Version, Writer};
use btrfs_ops::{
    Access, ErrorKind, Generation, ReceiveOptions, Subvolume, Uuid, partial_receives, receive,
};

use crate::common::Store;
use crate::sums::repair;
use crate::tree::describe;

const OWN: [u8; 16] = [7; 16];

fn begin(name: &'static str) -> Command<'static> {
    Command::Subvol {
        path: Path::new(name),
        uuid: Uuid::from_bytes(OWN),
        ctransid: Generation(1),
    }
}

fn stream(commands: &[Command<'_>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), Version::V2).unwrap();
    for command in commands {
        writer.put(command).unwrap();
    }
    writer.finish().unwrap()
}

fn p(path: &'static str) -> &'static Path {
    Path::new(path)
}

#[test]
#[ignore = "runs inside a node"]
fn ways_out() {
    let store = Store::new("hostile", &[], "");
    let root = store.root();
    // What must stay as it is.
    let outside = Subvolume::create(&root, "outside").unwrap();
    let secret = store.path.join("outside/secret");
    fs::write(&secret, vec![b's'; 8192]).unwrap();
    fs::create_dir(store.path.join("outside/directory")).unwrap();
    symlink("secret", store.path.join("outside/link")).unwrap();
    let frozen = outside.snapshot(&root, "frozen", Access::ReadOnly).unwrap();
    let frozen_uuid = frozen.info().unwrap().uuid;
    fs::create_dir(store.path.join("into")).unwrap();
    let into = File::open(store.path.join("into")).unwrap();
    let ctime = |path: &Path| {
        fs::metadata(path)
            .map(|m| (m.ctime(), m.ctime_nsec()))
            .unwrap()
    };
    let before = (describe(&store.path.join("outside")), ctime(&secret));

    let time = Time { sec: 1, nsec: 1 };
    let link_out = Command::Symlink {
        path: p("link"),
        ino: 258,
        target: p("/mnt/hostile/outside"),
    };
    let link_file = Command::Symlink {
        path: p("file-link"),
        ino: 259,
        target: p("/mnt/hostile/outside/secret"),
    };
    let file = Command::Mkfile {
        path: p("file"),
        ino: 257,
    };
    let clone = |uuid, path: &'static str| Command::Clone {
        path: p("file"),
        offset: 0,
        len: 4096,
        clone_uuid: uuid,
        clone_ctransid: Generation(1),
        clone_path: p(path),
        clone_offset: 0,
    };
    let xattr = |path: &'static str| Command::SetXattr {
        path: p(path),
        name: OsStr::new("user.evil"),
        value: b"x",
    };
    let own = Uuid::from_bytes(OWN);
    let device = Command::Mknod {
        path: p("null"),
        ino: 260,
        mode: 0o20666,
        rdev: 0x103,
    };
    let cases: Vec<Vec<Command<'_>>> = vec![
        vec![Command::Mkfile {
            path: p("../outside/evil"),
            ino: 1,
        }],
        vec![Command::Mkfile {
            path: p("/mnt/hostile/outside/evil"),
            ino: 1,
        }],
        vec![Command::Mkdir {
            path: p("a/../../outside/evil"),
            ino: 1,
        }],
        vec![
            link_out,
            Command::Mkfile {
                path: p("link/evil"),
                ino: 1,
            },
        ],
        vec![
            link_out,
            Command::Mkdir {
                path: p("link/evil"),
                ino: 1,
            },
        ],
        vec![
            link_out,
            Command::Mkfifo {
                path: p("link/evil"),
                ino: 1,
                mode: 0,
                rdev: 0,
            },
        ],
        vec![
            link_out,
            Command::Symlink {
                path: p("link/evil"),
                ino: 1,
                target: p("x"),
            },
        ],
        vec![
            link_out,
            file,
            Command::Rename {
                path: p("file"),
                to: p("link/evil"),
            },
        ],
        vec![
            link_out,
            Command::Rename {
                path: p("link/secret"),
                to: p("stolen"),
            },
        ],
        vec![
            link_out,
            file,
            Command::Link {
                path: p("link/evil"),
                target: p("file"),
            },
        ],
        vec![
            link_out,
            Command::Link {
                path: p("stolen"),
                target: p("link/secret"),
            },
        ],
        vec![
            link_out,
            Command::Unlink {
                path: p("link/secret"),
            },
        ],
        vec![
            link_out,
            Command::Rmdir {
                path: p("link/directory"),
            },
        ],
        vec![link_out, xattr("link/secret")],
        vec![
            link_out,
            Command::Write {
                path: p("link/secret"),
                offset: 0,
                data: b"evil",
            },
        ],
        vec![
            link_file,
            Command::Write {
                path: p("file-link"),
                offset: 0,
                data: b"evil",
            },
        ],
        vec![
            link_out,
            Command::Truncate {
                path: p("link/secret"),
                size: 0,
            },
        ],
        vec![
            link_file,
            Command::Truncate {
                path: p("file-link"),
                size: 0,
            },
        ],
        vec![
            link_out,
            Command::Chmod {
                path: p("link/secret"),
                mode: 0o777,
            },
        ],
        vec![
            link_file,
            Command::Chmod {
                path: p("file-link"),
                mode: 0o777,
            },
        ],
        vec![
            link_out,
            Command::Chmod {
                path: p("link"),
                mode: 0o777,
            },
        ],
        vec![
            link_out,
            Command::Chown {
                path: p("link/secret"),
                uid: 1,
                gid: 1,
            },
        ],
        vec![
            link_out,
            Command::Utimes {
                path: p("link/secret"),
                atime: time,
                mtime: time,
                ctime: time,
                otime: None,
            },
        ],
        vec![link_out, file, clone(own, "link/secret")],
        vec![link_file, file, clone(own, "file-link")],
        vec![file, clone(own, "../outside/secret")],
        vec![file, clone(frozen_uuid, "../outside/secret")],
        vec![file, clone(frozen_uuid, "link")],
        vec![file, clone(frozen_uuid, "directory")],
        vec![file, clone(Uuid::from_bytes([9; 16]), "secret")],
        vec![file, clone(None, "secret")],
        // Devices are made, and never opened.
        vec![
            device,
            Command::Write {
                path: p("null"),
                offset: 0,
                data: b"evil",
            },
        ],
        vec![
            device,
            Command::Truncate {
                path: p("null"),
                size: 0,
            },
        ],
        vec![device, file, clone(own, "null")],
        vec![Command::Mknod {
            path: p("x"),
            ino: 1,
            mode: 0o100_600,
            rdev: 0,
        }],
        vec![Command::Mknod {
            path: p("x"),
            ino: 1,
            mode: 0o20600,
            rdev: u64::MAX,
        }],
        // Values that no inode can have.
        vec![
            file,
            Command::Chmod {
                path: p("file"),
                mode: 1 << 40,
            },
        ],
        vec![
            file,
            Command::Chown {
                path: p("file"),
                uid: u64::MAX,
                gid: 0,
            },
        ],
        vec![
            file,
            Command::Chown {
                path: p("file"),
                uid: 0,
                gid: u32::MAX.into(),
            },
        ],
        vec![
            file,
            Command::Truncate {
                path: p("file"),
                size: u64::MAX,
            },
        ],
        vec![
            file,
            Command::Write {
                path: p("file"),
                offset: u64::MAX - 1,
                data: b"xx",
            },
        ],
        vec![
            file,
            Command::Fallocate {
                path: p("file"),
                mode: 0,
                offset: u64::MAX,
                len: 1,
            },
        ],
        vec![
            file,
            Command::Fallocate {
                path: p("file"),
                mode: u32::MAX,
                offset: 0,
                len: 1,
            },
        ],
        vec![
            file,
            Command::EncodedWrite {
                path: p("file"),
                offset: 0,
                unencoded_file_len: u64::MAX,
                unencoded_len: 4096,
                unencoded_offset: 1,
                compression: 1,
                encryption: 0,
                data: b"not zlib",
            },
        ],
        vec![
            file,
            Command::EncodedWrite {
                path: p("file"),
                offset: 0,
                unencoded_file_len: 4096,
                unencoded_len: 4096,
                unencoded_offset: 0,
                compression: 77,
                encryption: 0,
                data: b"x",
            },
        ],
        vec![
            file,
            Command::UpdateExtent {
                path: p("file"),
                offset: 0,
                len: 4096,
            },
        ],
        vec![Command::Unlink { path: p("none") }],
        vec![Command::Rmdir { path: p("") }],
        vec![Command::Rename {
            path: p(""),
            to: p("x"),
        }],
        vec![Command::Truncate {
            path: p(""),
            size: 0,
        }],
        vec![file, file],
        vec![Command::Fileattr {
            path: p("../x"),
            attr: 0,
        }],
    ];
    for (i, case) in cases.iter().enumerate() {
        let mut commands = vec![begin("evil")];
        commands.extend(case);
        let shown = format!("case {i}: {}", case[case.len() - 1]);
        let result = receive(&into, &stream(&commands)[..], &ReceiveOptions::new());
        let error = result.expect_err(&shown);
        assert!(error.to_string().len() < 2000, "{shown}: {error}");
        let left: Vec<_> = fs::read_dir(store.path.join("into")).unwrap().collect();
        assert!(left.is_empty(), "{shown}: left {left:?}");
        assert_eq!(
            (describe(&store.path.join("outside")), ctime(&secret)),
            before,
            "{shown}"
        );
    }
    for name in ["../evil", "a/b", "..", "/evil", ""] {
        let result = receive(&into, &stream(&[begin(name)])[..], &ReceiveOptions::new());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::BadStream, "{name}");
    }
    // By policy.
    let options = ReceiveOptions::new().without_devices();
    let error = receive(&into, &stream(&[begin("s"), device])[..], &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadStream, "{error}");
    // A link may be in a stream; it is what is behind it that may not.
    receive(
        &into,
        &stream(&[begin("fine"), link_out, device])[..],
        &ReceiveOptions::new(),
    )
    .unwrap();
    assert!(
        fs::symlink_metadata(store.path.join("into/fine/link"))
            .unwrap()
            .is_symlink()
    );
    // The name is taken: nothing is done.
    let error = receive(&into, &stream(&[begin("fine")])[..], &ReceiveOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(partial_receives(&into).unwrap(), []);
    let error = receive(
        File::open("/tmp").unwrap(),
        &stream(&[begin("x")])[..],
        &ReceiveOptions::new(),
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotBtrfs);
    changed_bytes(&store, &into);
}

/// A small stream with one byte changed and the checksums right again.
fn changed_bytes(store: &Store, into: &File) {
    let time = Time { sec: 1, nsec: 1 };
    let original = stream(&[
        begin("small"),
        Command::Mkdir {
            path: p("d"),
            ino: 257,
        },
        Command::Mkfile {
            path: p("o258-7-0"),
            ino: 258,
        },
        Command::Rename {
            path: p("o258-7-0"),
            to: p("d/f"),
        },
        Command::Write {
            path: p("d/f"),
            offset: 0,
            data: b"content",
        },
        Command::SetXattr {
            path: p("d/f"),
            name: OsStr::new("user.a"),
            value: b"b",
        },
        Command::Symlink {
            path: p("d/l"),
            ino: 259,
            target: p("../../outside"),
        },
        Command::Link {
            path: p("d/g"),
            target: p("d/f"),
        },
        Command::Chown {
            path: p("d/f"),
            uid: 1,
            gid: 2,
        },
        Command::Chmod {
            path: p("d/f"),
            mode: 0o644,
        },
        Command::Utimes {
            path: p("d"),
            atime: time,
            mtime: time,
            ctime: time,
            otime: None,
        },
    ]);
    let every: usize = std::env::var("HOSTILE_EVERY").map_or(13, |n| n.parse().unwrap());
    let before = describe(&store.path.join("outside"));
    let (mut taken, mut refused) = (0, 0);
    for at in (0..original.len()).step_by(every) {
        for change in [0x01, 0x2f, 0xff] {
            let mut bytes = original.clone();
            bytes[at] ^= change;
            repair(&mut bytes);
            match receive(into, &bytes[..], &ReceiveOptions::new()) {
                Ok(received) => {
                    taken += 1;
                    for subvolume in received.subvolumes {
                        let options = btrfs_ops::DeleteOptions::new();
                        btrfs_ops::delete(into, &subvolume.name, &options).unwrap();
                    }
                }
                Err(_) => {
                    refused += 1;
                    // A change that makes an end of a command completes the
                    // subvolume; what follows is refused.
                    if let Ok(ended) = Subvolume::open(store.path.join("into/small")) {
                        let info = ended.info().unwrap();
                        assert_eq!(info.access, Access::ReadOnly, "byte {at}");
                        assert_eq!(info.received_uuid, Uuid::from_bytes(OWN), "byte {at}");
                        let options = btrfs_ops::DeleteOptions::new();
                        ended.delete(&options).unwrap();
                    }
                }
            }
            let mut left: Vec<_> = fs::read_dir(store.path.join("into"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            left.retain(|name| name != "fine");
            assert!(left.is_empty(), "byte {at}: left {left:?}");
        }
    }
    assert_eq!(describe(&store.path.join("outside")), before);
    eprintln!("changed bytes: {taken} streams were taken, {refused} refused");
    assert!(taken > 0 && refused > 0);
}
