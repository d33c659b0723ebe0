//! Plain files: what is found on them, what is refused, what is written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(unsafe_code, reason = "flock has no safe form in std before 1.89")]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use drbd_md::{
    CreateOptions, Error, ErrorKind, Flags, Format, Overwrite, Placement, Sectors, Target, Uuid,
    activity_log_state, apply_activity_log, create, move_after_grow, probe, read, read_before_grow,
};

const MIB: u64 = 1 << 20;

struct Image {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Image {
    fn new(size: u64) -> Image {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        Image { _dir: dir, path }
    }
    fn put(&self, at: u64, bytes: &[u8]) {
        fs::File::options()
            .write(true)
            .open(&self.path)
            .unwrap()
            .write_all_at(bytes, at)
            .unwrap();
    }
    /// The first and the last MiB; nothing here writes in between.
    fn ends(&self) -> Vec<u8> {
        let file = fs::File::open(&self.path).unwrap();
        let size = file.metadata().unwrap().len();
        let mut bytes = vec![0; 2 * MIB as usize];
        let (head, tail) = bytes.split_at_mut(MIB as usize);
        file.read_exact_at(head, 0).unwrap();
        file.read_exact_at(tail, size - MIB).unwrap();
        bytes
    }
    fn target(&self) -> Target {
        Target::internal(&self.path)
    }
    /// Runs a program with the image as its last argument, if the machine has it.
    fn made_by(&self, program: &str, args: &[&str], stdin: &str) -> bool {
        let find = |dir: &str| Path::new(dir).join(program);
        let Some(path) = ["/sbin", "/usr/sbin", "/bin", "/usr/bin"]
            .iter()
            .map(|d| find(d))
            .find(|p| p.is_file())
        else {
            return false;
        };
        let mut child = Command::new(path)
            .args(args)
            .arg(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{program}");
        true
    }
}

fn names(target: &Target) -> Vec<String> {
    probe(target)
        .unwrap()
        .signatures
        .into_iter()
        .map(|s| s.name)
        .collect()
}

#[test]
fn a_blank_file_gets_metadata() {
    let image = Image::new(64 * MIB);
    let target = image.target();
    assert!(probe(&target).unwrap().is_empty());
    assert_eq!(read(&target).unwrap_err().kind(), ErrorKind::NoMetadata);
    let created = create(&target, &CreateOptions::default()).unwrap();
    assert_eq!(created.offset, 64 * MIB - 4096);
    assert_eq!(created.usable, Sectors(64 * 2048 - 80));
    assert!(created.overwritten.is_empty());
    let sb = read(&target).unwrap();
    assert_eq!(sb, created.superblock);
    assert_eq!(sb.current_uuid, Some(Uuid::JUST_CREATED));
    assert_eq!(sb.flags, Flags::AL_CLEAN);
    assert!(!sb.needs_activity_log_applied());
    let found = probe(&target).unwrap();
    assert_eq!(found.metadata, Some(Format::V08));
    assert_eq!(names(&target), ["drbd-v08"]);

    // A clean device is left alone.
    let before = image.ends();
    assert!(!apply_activity_log(&target).unwrap().changed());
    assert_eq!(activity_log_state(&target).unwrap().transactions, 0);
    assert!(image.ends() == before);
}

/// Metadata of a device that was grown is read where it was, until it was moved.
#[test]
fn metadata_is_found_after_a_device_was_grown() {
    let image = Image::new(64 * MIB);
    let target = image.target();
    let created = create(&target, &CreateOptions::default()).unwrap();
    assert_eq!(
        read_before_grow(&target, 64 * MIB).unwrap(),
        None,
        "as large as it was"
    );
    let file = fs::File::options().write(true).open(&image.path).unwrap();
    file.set_len(96 * MIB).unwrap();
    assert_eq!(read(&target).unwrap_err().kind(), ErrorKind::NoMetadata);
    let found = read_before_grow(&target, 64 * MIB).unwrap();
    assert_eq!(found, Some(created.superblock));
    for wrong in [0, 4096, 63 * MIB, 64 * MIB + 4096, 96 * MIB, u64::MAX] {
        assert_eq!(read_before_grow(&target, wrong).unwrap(), None, "{wrong}");
    }
    let moved = move_after_grow(&target, 64 * MIB).unwrap();
    assert_eq!(
        Some(moved.usable),
        drbd_md::internal_usable(96 * MIB, 1, 32 << 10)
    );
    assert_eq!(read(&target).unwrap(), moved.superblock);
    assert_eq!(read_before_grow(&target, 64 * MIB).unwrap(), None);
}

#[test]
fn what_is_there_is_named_and_kept() {
    type Make = fn(&Image) -> bool;
    let cases: &[(&str, Make)] = &[
        ("ext4", |i| {
            i.made_by("mke2fs", &["-q", "-F", "-t", "ext4"], "")
        }),
        ("swap", |i| i.made_by("mkswap", &[], "")),
        ("btrfs", |i| i.made_by("mkfs.btrfs", &["-q", "-f"], "")),
        ("xfs", |i| i.made_by("mkfs.xfs", &["-q", "-f"], "")),
        ("gpt", |i| i.made_by("sfdisk", &["-q"], "label: gpt\n,,L\n")),
        ("dos", |i| {
            let mut mbr = [0; 512];
            mbr[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 9, 0, 0, 8, 0, 0, 0, 64, 0, 0]);
            mbr[510..].copy_from_slice(&[0x55, 0xaa]);
            i.put(0, &mbr);
            true
        }),
        ("crypto_LUKS", |i| {
            i.put(0, b"LUKS\xba\xbe\0\x01");
            true
        }),
        ("linux_raid_member", |i| {
            let mut sb = [0; 256];
            sb[..4].copy_from_slice(&0xa92b_4efcu32.to_le_bytes());
            sb[4] = 1;
            sb[144] = 8;
            i.put(4096, &sb);
            true
        }),
        ("LVM2_member", |i| {
            let mut label = [0; 512];
            label[..8].copy_from_slice(b"LABELONE");
            label[8] = 1;
            label[20] = 32;
            label[24..32].copy_from_slice(b"LVM2 001");
            label[32..64].copy_from_slice(b"aaaaaabbbbccccddddeeeeffffgggggg");
            // LVM's checksum over the rest of the sector.
            let mut crc = 0xf597_a6cfu32;
            for b in &label[20..] {
                crc ^= u32::from(*b);
                for _ in 0..8 {
                    crc = if crc & 1 == 1 {
                        (crc >> 1) ^ 0xedb8_8320
                    } else {
                        crc >> 1
                    };
                }
            }
            label[16..20].copy_from_slice(&crc.to_le_bytes());
            i.put(512, &label);
            true
        }),
        ("zfs_member", |i| {
            for n in 0..8 {
                i.put(128 * 1024 + n * 1024, &0x00ba_b10cu64.to_le_bytes());
            }
            true
        }),
        ("data", |i| {
            i.put(5000, b"something of somebody");
            true
        }),
    ];
    for (name, make) in cases {
        let image = Image::new(128 * MIB);
        if !make(&image) {
            println!("no program to make {name}");
            continue;
        }
        let before = image.ends();
        assert_eq!(names(&image.target()), [*name]);
        let e = create(&image.target(), &CreateOptions::default()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::WouldOverwrite, "{name}");
        assert!(
            e.to_string().contains(name) && e.to_string().contains(" at byte "),
            "{e}"
        );
        assert_eq!(e.found()[0].name, *name);
        let wrong = CreateOptions::default().overwrite(Overwrite::named("reiserfs"));
        let e = create(&image.target(), &wrong).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotThere, "{e}");
        assert!(image.ends() == before, "{name}: refused, but wrote");
        // By its name it is overwritten, and the metadata is what a blank device gets.
        let named = CreateOptions::default().overwrite(Overwrite::named(*name));
        let created = create(&image.target(), &named).unwrap();
        assert_eq!(created.overwritten[0].name, *name);
        let blank = Image::new(128 * MIB);
        assert_eq!(
            create(&blank.target(), &CreateOptions::default())
                .unwrap()
                .superblock,
            created.superblock
        );
        // Now both are there, and one name is not enough.
        let e = create(&image.target(), &named).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::WouldOverwrite);
        assert!(e.to_string().contains("drbd-v08"), "{e}");
    }
}

#[test]
fn everything_has_to_be_named() {
    let image = Image::new(64 * MIB);
    create(&image.target(), &CreateOptions::default()).unwrap();
    image.put(0, b"LUKS\xba\xbe\0\x01");
    let both = Overwrite::Named(vec!["crypto_LUKS".into(), "drbd-v08".into()]);
    assert!(create(&image.target(), &CreateOptions::default().overwrite(both)).is_ok());
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    for (size, kind) in [(0, ErrorKind::TooSmall), (65536, ErrorKind::TooSmall)] {
        let image = Image::new(size);
        let e = create(&image.target(), &CreateOptions::default()).unwrap_err();
        assert_eq!(e.kind(), kind, "{size}: {e}");
        assert_eq!(read(&image.target()).unwrap_err().kind(), kind);
    }
    // Large enough for the metadata's own rules, too small for this log.
    let image = Image::new(100 * 1024);
    let options = CreateOptions::default().activity_log(4, 16);
    let e = create(&image.target(), &options).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TooSmall, "{e}");
    for (stripes, size) in [(1, 7), (0, 8), (1025, 8), (u32::MAX, u32::MAX)] {
        let options = CreateOptions::default().activity_log(stripes, size);
        let e = create(&image.target(), &options).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidOption, "{e}");
    }
}

#[test]
fn what_is_no_device_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let kind = |path: &Path| {
        let target = Target::internal(path);
        let e: Error = create(&target, &CreateOptions::default()).unwrap_err();
        assert!(e.to_string().contains(&path.display().to_string()), "{e}");
        assert_eq!(probe(&target).unwrap_err().kind(), e.kind());
        e.kind()
    };
    assert_eq!(kind(&dir.path().join("nothing")), ErrorKind::NotFound);
    assert_eq!(kind(dir.path()), ErrorKind::NotADevice);
    assert_eq!(kind(Path::new("/dev/null")), ErrorKind::NotADevice);
}

#[test]
fn two_at_once_are_kept_apart() {
    let image = Image::new(64 * MIB);
    let file = fs::File::open(&image.path).unwrap();
    // What this library holds on a plain file that it changes.
    // SAFETY: flock takes an open descriptor and a number.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0);
    let e = create(&image.target(), &CreateOptions::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InUse, "{e}");
    drop(file);
    create(&image.target(), &CreateOptions::default()).unwrap();
}

#[test]
fn a_superblock_that_does_not_fit_is_corrupt() {
    let image = Image::new(64 * MIB);
    let at = create(&image.target(), &CreateOptions::default())
        .unwrap()
        .offset;
    for (field, value) in [
        (0x40, 81u32),
        (0x44, 64),
        (0x4c, 0),
        (0x50, 0),
        (0x50, 5000),
        (0x58, 0),
        (0x58, u32::MAX),
        (0x5c, u32::MAX),
    ] {
        let mut old = [0; 4];
        let file = fs::File::open(&image.path).unwrap();
        file.read_exact_at(&mut old, at + field).unwrap();
        image.put(at + field, &value.to_be_bytes());
        for e in [
            read(&image.target()).unwrap_err(),
            activity_log_state(&image.target()).unwrap_err(),
            apply_activity_log(&image.target()).unwrap_err(),
        ] {
            assert_eq!(e.kind(), ErrorKind::Corrupt, "field {field:#x}: {e}");
            assert_eq!(e.offset(), Some(at), "{e}");
        }
        image.put(at + field, &old);
    }
    assert!(read(&image.target()).is_ok());
}

#[test]
fn external_metadata_fills_its_device() {
    let image = Image::new(128 * MIB);
    let target = Target::flexible_external(&image.path);
    assert_eq!(target.placement(), Placement::FlexibleExternal);
    let created = create(&target, &CreateOptions::default()).unwrap();
    assert_eq!(created.offset, 0);
    assert_eq!(
        (created.superblock.al_offset, created.superblock.bm_offset),
        (8, 72)
    );
    assert_eq!(read(&target).unwrap().md_size, Sectors(128 * 2048));
    assert_eq!(names(&target), ["drbd-v08"]);
    assert!(!apply_activity_log(&target).unwrap().changed());
}

#[test]
fn internal_metadata_of_07_elsewhere_is_seen() {
    let image = Image::new(300 * MIB);
    let mut sb = [0; 64];
    sb[0x1c..0x20].copy_from_slice(&0x8374_026au32.to_be_bytes());
    image.put(172 * MIB, &sb);
    assert_eq!(names(&image.target()), ["drbd-v07"]);
    let options = CreateOptions::default().overwrite(Overwrite::named("drbd-v07"));
    create(&image.target(), &options).unwrap();
    assert_eq!(names(&image.target()), ["drbd-v08"]);
}
