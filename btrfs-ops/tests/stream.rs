#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
//! The form of streams, without a file system.

use std::path::Path;

use btrfs_ops::stream::{Command, Commands, Reader, Version, Writer, dump, verify};
use btrfs_ops::{ErrorKind, Generation};

#[path = "lab/samples.rs"]
mod samples;
#[path = "lab/sums.rs"]
mod sums;
use samples::{all, uuid};
use sums::repair;

fn written(version: Version) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), version).unwrap();
    for command in all(version) {
        writer.put(&command).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn every_command_there_and_back() {
    for version in [Version::V1, Version::V2] {
        let bytes = written(version);
        let mut reader = Reader::new(&bytes[..]);
        for expected in all(version) {
            assert_eq!(reader.next().unwrap(), Some(expected), "{version:?}");
        }
        assert_eq!(reader.next().unwrap(), Some(Command::End));
        assert_eq!(reader.position(), bytes.len() as u64);
        assert_eq!(reader.version(), version);
        assert_eq!(reader.next().unwrap(), None);
        let borrowed: Vec<_> = Commands::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(borrowed[..borrowed.len() - 1], all(version));
        // Two streams, one behind the other, in reads of any size.
        let twice = [bytes.clone(), bytes.clone()].concat();
        assert_eq!(Commands::new(&twice).count(), 2 * borrowed.len());
        struct Slow<'a>(&'a [u8], usize);
        impl std::io::Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let count = self.1.min(buffer.len());
                std::io::Read::read(&mut self.0, &mut buffer[..count])
            }
        }
        let summary = verify(Slow(&twice, 777)).unwrap();
        assert_eq!(summary, verify(&twice[..]).unwrap());
        assert_eq!(summary.subvolumes.len(), 4);
        assert_eq!(
            summary.subvolumes[0].parent,
            Some((uuid(2).unwrap(), Generation(6)))
        );
        let mut text = Vec::new();
        dump(&twice[..], &mut text).unwrap();
        assert_eq!(
            text.iter().filter(|&&b| b == b'\n').count() as u64,
            summary.commands
        );
    }
}

/// Where each command begins; the last number is the end.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut at = vec![17];
    let mut reader = Reader::new(bytes);
    while reader.next().unwrap().is_some() {
        at.push(reader.position().try_into().unwrap());
    }
    at.dedup();
    at
}

#[test]
fn checksums_are_the_kernels() {
    let bytes = written(Version::V1);
    let mut repaired = bytes.clone();
    repair(&mut repaired);
    assert_eq!(repaired, bytes);
}

#[test]
fn every_cut_and_every_changed_byte_is_refused() {
    let mut bytes = written(Version::V2);
    // Not the long write, which is as all others.
    let at = boundaries(&bytes);
    bytes.drain(at[at.len() - 3]..at[at.len() - 2]);
    verify(&bytes[..]).unwrap();
    for cut in 0..bytes.len() {
        let error = verify(&bytes[..cut]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadStream, "{cut}: {error}");
        assert!(Commands::new(&bytes[..cut]).any(|c| c.is_err()));
    }
    for at in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            let error = verify(&changed[..]).unwrap_err();
            // A version that is not known is said to be that.
            let kinds = [ErrorKind::BadStream, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{at}: {error}");
        }
    }
}

/// Decoders survive anything: both ways of reading agree, and what is decoded
/// can be shown and written again.
fn survive(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let mut borrowed = Commands::new(bytes);
    loop {
        match (reader.next(), borrowed.next()) {
            (Ok(Some(one)), Some(Ok(other))) => {
                assert_eq!(one, other);
                let _ = one.to_string();
                let mut writer = Writer::new(Vec::new(), Version::V2).unwrap();
                writer.put(&one).unwrap();
                let again = writer.finish().unwrap();
                assert_eq!(Commands::new(&again).next().unwrap().unwrap(), other);
            }
            (Ok(None), None) => return,
            (Err(one), Some(Err(other))) => {
                assert_eq!(one.to_string(), other.to_string());
                return;
            }
            (one, other) => panic!("{one:?} and {other:?}"),
        }
    }
}

fn mutations(count: u64, seed: u64) {
    let mut state = seed | 1;
    let mut random = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % limit
    };
    for version in [Version::V1, Version::V2] {
        let mut original = written(version);
        if version == Version::V2 {
            let at = boundaries(&original);
            original.drain(at[at.len() - 3]..at[at.len() - 2]);
        }
        for _ in 0..count {
            let mut bytes = original.clone();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                match random(6) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] = 0,
                    2 => bytes[at] = 0xff,
                    3 => bytes[at] ^= 1 << random(8),
                    4 => {
                        bytes.remove(at);
                    }
                    _ => bytes.insert(at, random(256) as u8),
                }
            }
            repair(&mut bytes);
            survive(&bytes);
        }
    }
}

#[test]
fn mutated_streams_are_survived() {
    mutations(1000, 1);
}

#[test]
#[ignore = "deep: a million mutated streams"]
fn deep_mutated_streams_are_survived() {
    let count = std::env::var("STREAM_MUTATIONS").map_or(500_000, |count| count.parse().unwrap());
    mutations(count, 2);
}

#[test]
fn lengths_at_their_limits() {
    let path = Path::new("f");
    for (version, most) in [(Version::V1, 65536 - 10), (Version::V2, (1 << 20) - 10)] {
        // path: 4 + 1, offset: 4 + 8, content: 4, or 2 in version 2
        let header = 17 + if version == Version::V1 { 4 } else { 2 };
        let content = vec![0; most - header + 1];
        let mut writer = Writer::new(Vec::new(), version).unwrap();
        let fits = Command::Write {
            path,
            offset: 0,
            data: &content[..most - header],
        };
        writer.put(&fits).unwrap();
        let error = writer
            .put(&Command::Write {
                path,
                offset: 0,
                data: &content,
            })
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadStream, "{error}");
        let bytes = writer.finish().unwrap();
        assert_eq!(Commands::new(&bytes).next().unwrap().unwrap(), fits);
        // One byte more than a command can have, claimed.
        let mut longer = bytes.clone();
        let length = u32::try_from(most + 1).unwrap();
        longer[17..21].copy_from_slice(&length.to_le_bytes());
        let error = verify(&longer[..]).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
    }
    let mut writer = Writer::new(Vec::new(), Version::V1).unwrap();
    let error = writer
        .put(&Command::Fileattr { path, attr: 1 })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadStream);
}

#[test]
fn paths_that_lead_out_are_not_verified() {
    let long = "x".repeat(256);
    let deep = "d/".repeat(2100) + "d";
    let wrong = [
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/./b",
        ".",
        "a//b",
        "a/",
        &long,
        &deep,
    ];
    let with = |path: &str| {
        let mut writer = Writer::new(Vec::new(), Version::V1).unwrap();
        let begin = Command::Subvol {
            path: Path::new("s"),
            uuid: uuid(1),
            ctransid: Generation(1),
        };
        writer.put(&begin).unwrap();
        let to = Path::new("b");
        writer
            .put(&Command::Rename {
                path: to,
                to: Path::new(path),
            })
            .unwrap();
        verify(&writer.finish().unwrap()[..])
    };
    for path in wrong {
        let error = with(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadStream, "{path}: {error}");
    }
    with("a/b").unwrap();
    with("...").unwrap();
    with(&"x".repeat(255)).unwrap();
    for name in ["", "a/b", "/", "..", "/a"] {
        let mut writer = Writer::new(Vec::new(), Version::V1).unwrap();
        let begin = Command::Subvol {
            path: Path::new(name),
            uuid: uuid(1),
            ctransid: Generation(1),
        };
        writer.put(&begin).unwrap();
        let error = verify(&writer.finish().unwrap()[..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadStream, "{name}: {error}");
    }
    let mut writer = Writer::new(Vec::new(), Version::V1).unwrap();
    writer
        .put(&Command::Unlink {
            path: Path::new("x"),
        })
        .unwrap();
    let error = verify(&writer.finish().unwrap()[..]).unwrap_err();
    assert!(
        error.to_string().contains("no subvolume has begun"),
        "{error}"
    );
}
