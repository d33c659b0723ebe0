//! Ours against `drbdmeta`, byte for byte, on plain files.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Log, Random, difference, drbdmeta, run_drbdmeta, run_drbdmeta_at, scratch};
use drbd_md::{
    CreateOptions, ErrorKind, Flags, Overwrite, Target, activity_log_state, apply_activity_log,
    create, read,
};

const MIB: u64 = 1 << 20;

fn blank(path: &Path, size: u64) {
    fs::File::create(path).unwrap().set_len(size).unwrap();
}

/// The end of an image, where the metadata is: its offset and bytes.
///
/// Images are sparse and can be large; nothing else in them is touched by anybody.
fn tail(image: &Path, len: u64) -> (usize, Vec<u8>) {
    let f = fs::File::open(image).unwrap();
    let size = f.metadata().unwrap().len();
    let mut bytes = vec![0; len.min(size) as usize];
    let from = size - bytes.len() as u64;
    f.read_exact_at(&mut bytes, from).unwrap();
    (from as usize, bytes)
}

fn put_tail(image: &Path, (from, bytes): &(usize, Vec<u8>)) {
    let f = fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(image)
        .unwrap();
    f.set_len((from + bytes.len()) as u64).unwrap();
    f.write_all_at(bytes, *from as u64).unwrap();
}

#[test]
fn created_metadata_is_drbdmetas() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let mut random = Random::new(1);
    // Odd sizes, sizes around the steps of the bitmap (128 MiB a block), and large sparse ones.
    let mut sizes = vec![
        69 * 1024,
        4 * MIB,
        4 * MIB + 512,
        64 * MIB,
        100 * MIB + 4095,
        128 * MIB,
        129 * MIB,
        256 * MIB,
        1024 * MIB,
        64 << 30,
        1 << 40,
    ];
    sizes.extend((0..40).map(|_| 69 * 1024 + random.below(300 * MIB)));
    for (i, size) in sizes.into_iter().enumerate() {
        let (stripes, stripe) = if i % 3 == 2 {
            random.pick(&[(2, 8), (4, 16), (1, 64), (3, 5)])
        } else {
            (1, 8)
        };
        let bio = if i % 5 == 4 { 1 << 17 } else { 0 };
        if size < MIB && stripes * stripe > 8 {
            continue;
        }
        blank(&ours, size);
        blank(&theirs, size);
        let options = CreateOptions::default()
            .activity_log(stripes, stripe)
            .peer_max_bio_size(bio);
        let created = create(&Target::internal(&ours), &options)
            .unwrap_or_else(|e| panic!("size {size}: {e}"));
        let out = run_drbdmeta(
            &drbdmeta,
            "v08",
            &theirs,
            &[
                "create-md",
                "--al-stripes",
                &stripes.to_string(),
                "--al-stripe-size-kB",
                &(stripe * 4).to_string(),
                "--peer-max-bio-size",
                &bio.to_string(),
            ],
        );
        assert!(
            out.status.success(),
            "size {size}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let len = created.superblock.md_size.bytes() + 64 * 1024;
        let (ours, theirs_tail) = (tail(&ours, len), tail(&theirs, len));
        assert_eq!(ours.0, theirs_tail.0, "size {size}: another length");
        if let Some(d) = difference(&ours.1, &theirs_tail.1) {
            panic!("size {size}, {stripes} stripes of {stripe}: {d}");
        }
        assert_eq!(
            read(&Target::internal(&theirs)).unwrap(),
            created.superblock
        );
    }
}

/// One image as a primary leaves it that was killed, from a seed.
///
/// Returns the tail that holds all of the metadata.
fn killed_primary(image: &Path, seed: u64) -> (usize, Vec<u8>) {
    let mut r = Random::new(seed);
    let (stripes, stripe_blocks) = r.pick(&[(1, 8), (1, 8), (1, 8), (2, 8), (4, 3), (1, 24)]);
    // The largest has a bitmap of more than 1 MiB.
    let size = r.pick(&[8, 33, 64, 130, 400, 40 << 10]) * MIB + r.pick(&[0, 512, 4096, 100 * 1024]);
    let _ = fs::remove_file(image);
    blank(image, size);
    let options = CreateOptions::default().activity_log(stripes, stripe_blocks);
    let created = create(&Target::internal(image), &options).unwrap();
    let (from, mut bytes) = tail(image, created.superblock.md_size.bytes() + 64 * 1024);
    let at = created.offset as usize - from;
    let put32 = |b: &mut [u8], o: usize, v: u32| {
        b[at + o..at + o + 4].copy_from_slice(&v.to_be_bytes());
    };

    // Last agreed size: mostly all there is, sometimes less or more than that, or never attached.
    let usable = created.usable.0;
    let effective = match r.below(8) {
        0 => usable / 2,
        1 => usable + r.below(100_000),
        2 => 0,
        _ => usable & !7,
    };
    bytes[at..at + 8].copy_from_slice(&effective.to_be_bytes());
    let mut flags = Flags::CONSISTENT | Flags::WAS_UP_TO_DATE;
    flags.set(Flags::PRIMARY_IND, !r.chance(6));
    flags.set(Flags::CONNECTED_IND, r.chance(2));
    flags.set(Flags::AL_CLEAN, r.chance(12));
    put32(
        &mut bytes,
        0x38,
        flags.bits() | if r.chance(10) { 1 << 17 } else { 0 },
    );
    put32(
        &mut bytes,
        0x3c,
        if r.chance(8) {
            0x8374_026b
        } else {
            0x8374_026c
        },
    );
    for at_uuid in [0x08, 0x10, 0x18, 0x20, 0x28] {
        put32(&mut bytes, at_uuid, r.next() as u32);
        put32(&mut bytes, at_uuid + 4, r.next() as u32);
    }
    if r.chance(10) && (stripes, stripe_blocks) == (1, 8) {
        // Metadata older than 8.4.4, and something in a reserved field.
        put32(&mut bytes, 0x58, 0);
        put32(&mut bytes, 0x5c, 0);
        put32(&mut bytes, 0x100, 0xdead_beef);
    }
    // The bitmap is not empty.
    let bitmap = (at as i64 + i64::from(created.superblock.bm_offset) * 512) as usize;
    let bitmap_end = (at as i64 + i64::from(created.superblock.al_offset) * 512) as usize;
    for _ in 0..r.below(40) {
        bytes[bitmap + r.below((bitmap_end - bitmap) as u64) as usize] = r.next() as u8;
    }

    let extents = r.pick(&[67, 257, 919, 1237, 6007]) as usize;
    let blocks = (stripes * stripe_blocks) as usize;
    let mut log = Log::new(
        extents,
        stripes as usize,
        stripe_blocks as usize,
        bitmap_end,
    );
    if r.chance(5) {
        log.number = u32::MAX - r.below(2 * blocks as u64) as u32;
    }
    // None, a few, exactly one ring, or several.
    let count = match r.below(5) {
        0 => r.below(3),
        1 => blocks as u64,
        2 => r.below(blocks as u64),
        _ => r.below(4 * blocks as u64),
    };
    let last_extent = effective.div_ceil(8192);
    for _ in 0..count {
        let most = if r.chance(4) { 64 } else { 4 };
        let n = 1 + r.below(most);
        let updates: Vec<(usize, u32)> = (0..n)
            .map(|_| {
                let extent = match r.below(20) {
                    0 => u64::from(u32::MAX),
                    1 => last_extent.saturating_sub(1),
                    2 => last_extent + r.below(3),
                    _ => r.below(last_extent.max(1)),
                };
                (r.below(extents as u64) as usize, extent as u32)
            })
            .collect();
        log.transaction(&mut bytes, &updates);
    }
    // Torn: the newest, one in the middle, several, or the first block of an unused log.
    let mut tear = |number: u32, r: &mut Random| {
        let at = log.place(number) + 512 * r.below(8) as usize;
        let len = 1 + r.below(512) as usize;
        for b in &mut bytes[at..at + len] {
            *b = if r.chance(2) { 0 } else { r.next() as u8 };
        }
    };
    match r.below(8) {
        0 | 1 => tear(log.number.wrapping_sub(1), &mut r),
        2 => tear(r.next() as u32, &mut r),
        3 => (0..r.below(blocks as u64 + 4)).for_each(|_| tear(r.next() as u32, &mut r)),
        4 => tear(0, &mut r),
        _ => {}
    }
    if r.chance(25) {
        // Nothing usable at all.
        bytes[bitmap_end..at].fill(0);
    }
    if r.chance(12) {
        // Fields that are wrong although the checksum is right.
        let at = log.place(r.next() as u32);
        for _ in 0..1 + r.below(3) {
            let field = r.pick(&[4, 12, 14, 16, 18, 36, 40, 164, 168, 420, 424]);
            bytes[at + field..at + field + 2].copy_from_slice(&(r.next() as u16).to_be_bytes());
        }
        bytes[at + 8..at + 12].fill(0);
        let sum = common::crc32c_raw(&bytes[at..at + 4096]);
        bytes[at + 8..at + 12].copy_from_slice(&sum.to_be_bytes());
    }
    (from, bytes)
}

#[test]
fn applied_logs_are_drbdmetas() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let cases: u64 = std::env::var("DRBD_MD_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(300);
    let (mut marked, mut refused, mut clean) = (0, 0, 0);
    for seed in 1..=cases {
        let before = killed_primary(&ours, seed);
        put_tail(&ours, &before);
        let _ = fs::remove_file(&theirs);
        put_tail(&theirs, &before);
        let len = before.1.len() as u64;
        let target = Target::internal(&ours);
        let state = activity_log_state(&target).unwrap();
        assert!(
            tail(&ours, len) == before,
            "seed {seed}: looking changed the image"
        );
        let sb = read(&target).unwrap();
        let superblock = (before.0 as u64 + len) / 4096 * 4096 - 4096;
        let bitmap = superblock as i64 + 512 * i64::from(sb.bm_offset);
        let usable = bitmap as u64 / 512;
        let size = match sb.effective_size.0 {
            0 => usable,
            noted => noted.min(usable),
        };

        let out = run_drbdmeta(&drbdmeta, "v08", &theirs, &["apply-al"]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        let result = apply_activity_log(&target);
        assert_eq!(
            result.is_ok(),
            out.status.success(),
            "seed {seed}: ours {result:?}, theirs: {text}"
        );
        let after = tail(&ours, len);
        if let Some(d) = difference(&after.1, &tail(&theirs, len).1) {
            panic!("seed {seed}: {d}\n{result:?}\n{text}");
        }
        match result {
            Ok(applied) => {
                assert_eq!(
                    applied.changed(),
                    after != before || applied.log_initialized,
                    "seed {seed}"
                );
                let set = |(from, bytes): &(usize, Vec<u8>)| {
                    let bitmap = &bytes[bitmap as usize - from..];
                    (0..size.div_ceil(8) as usize)
                        .filter(|bit| bitmap[bit / 8] & (1 << (bit % 8)) != 0)
                        .count() as u64
                };
                assert_eq!(
                    applied.marked.0 / 8,
                    set(&after) - set(&before),
                    "seed {seed}: bits of the device"
                );
                if !applied.extents.is_empty() {
                    marked += 1;
                    assert!(state.was_primary, "seed {seed}");
                }
                if state.attach_refused {
                    assert!(applied.superblock_written, "seed {seed}");
                } else {
                    clean += 1;
                }
                let state = activity_log_state(&target).unwrap();
                assert!(!state.attach_refused, "seed {seed}");
                // A second run has nothing left to mark.
                assert!(
                    apply_activity_log(&target).unwrap().extents.is_empty(),
                    "seed {seed}"
                );
                assert!(tail(&ours, len) == after, "seed {seed}: not idempotent");
            }
            Err(e) => {
                refused += 1;
                assert_eq!(e.kind(), ErrorKind::Corrupt, "seed {seed}: {e}");
                assert!(after == before, "seed {seed}: refused, but wrote");
                assert!(state.unusable.is_some(), "seed {seed}");
            }
        }
    }
    println!("{cases} images: {marked} marked, {refused} refused, {clean} clean before");
    assert!(
        marked > cases / 3 && refused > 0 && clean > 0,
        "the generator lost its variety"
    );
}

#[test]
fn an_old_log_is_converted_as_drbdmeta_does() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    for seed in 1..=60 {
        let mut r = Random::new(seed);
        let _ = fs::remove_file(&ours);
        blank(&ours, 64 * MIB);
        let created = create(&Target::internal(&ours), &CreateOptions::default()).unwrap();
        let (from, mut bytes) = tail(&ours, 128 * 1024);
        let at = created.offset as usize - from;
        let al = (at as i64 + i64::from(created.superblock.al_offset) * 512) as usize;
        let effective = created.usable.0 & !7;
        bytes[at..at + 8].copy_from_slice(&effective.to_be_bytes());
        bytes[at + 0x38..at + 0x3c].copy_from_slice(&3u32.to_be_bytes());
        let nr_extents: u32 = r.pick(&[127, 257, 3833]);
        bytes[at + 0x48..at + 0x4c].copy_from_slice(&nr_extents.to_be_bytes());
        bytes[al..at].fill(0);
        let sectors = 1 + nr_extents.div_ceil(61) as usize;
        let mut number = if r.chance(4) { u32::MAX - 3 } else { 0 };
        for _ in 0..r.below(3 * sectors as u64) {
            let mut s = vec![0u8; 512];
            s[0..4].copy_from_slice(&0x8374_0267u32.to_be_bytes());
            s[4..8].copy_from_slice(&number.to_be_bytes());
            let mut sum = 0;
            for u in 0..62 {
                let extent = if r.chance(3) {
                    u32::MAX
                } else {
                    r.below(effective / 8192 + 2) as u32
                };
                sum ^= extent;
                s[8 + 8 * u..12 + 8 * u]
                    .copy_from_slice(&(r.below(u64::from(nr_extents)) as u32).to_be_bytes());
                s[12 + 8 * u..16 + 8 * u].copy_from_slice(&extent.to_be_bytes());
            }
            s[504..508].copy_from_slice(&(if r.chance(9) { 1 } else { sum }).to_be_bytes());
            let place = al + number as usize % sectors * 512;
            bytes[place..place + 512].copy_from_slice(&s);
            number = number.wrapping_add(1);
        }
        let before = (from, bytes);
        put_tail(&ours, &before);
        put_tail(&theirs, &before);
        let out = run_drbdmeta(&drbdmeta, "v08", &theirs, &["apply-al"]);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        let result = apply_activity_log(&Target::internal(&ours));
        assert_eq!(
            result.is_ok(),
            out.status.success(),
            "seed {seed}: {result:?} {text}"
        );
        let (after, theirs) = (tail(&ours, 128 * 1024), tail(&theirs, 128 * 1024));
        if let Some(d) = difference(&after.1, &theirs.1) {
            panic!("seed {seed}: {d}\n{result:?}\n{text}");
        }
    }
}

#[test]
fn metadata_of_both_formats_made_by_drbdmeta_is_read() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let image = dir.path().join("image");
    blank(&image, 64 * MIB);
    assert!(
        run_drbdmeta(&drbdmeta, "v09", &image, &["create-md", "7"])
            .status
            .success()
    );
    let target = Target::internal(&image);
    let sb = read(&target).unwrap();
    assert_eq!(sb.format.to_string(), "v09");
    assert_eq!((sb.max_peers, sb.peers.len(), sb.node_id), (7, 32, None));
    assert!(sb.peers.iter().all(|p| p.bitmap_index.is_none()));
    assert_eq!(sb.current_uuid, Some(drbd_md::Uuid::JUST_CREATED));

    // Fresh v08 over it only by its name.
    let refused = create(&target, &CreateOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldOverwrite);
    assert!(refused.to_string().contains("drbd-v09"), "{refused}");
    let options = CreateOptions::default().overwrite(Overwrite::named("drbd-v09"));
    assert_eq!(
        create(&target, &options)
            .unwrap()
            .superblock
            .format
            .to_string(),
        "v08"
    );
}

#[test]
fn external_metadata_is_drbdmetas() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let target = Target::flexible_external(&ours);
    let run = |args: &[&str]| {
        let out = run_drbdmeta_at(&drbdmeta, "v08", &theirs, "flex-external", args);
        (
            out.status.success(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    let same = |about: &str| {
        if let Some(d) = difference(&fs::read(&ours).unwrap(), &fs::read(&theirs).unwrap()) {
            panic!("{about}: {d}");
        }
    };
    for seed in 1..=40 {
        let mut r = Random::new(seed);
        let size = r.pick(&[128 * 1024, MIB, 4 * MIB + 512, 3 * MIB + 4096]);
        let (stripes, stripe) = r.pick(&[(1, 8), (2, 6)]);
        let _ = (fs::remove_file(&ours), fs::remove_file(&theirs));
        blank(&ours, size);
        blank(&theirs, size);
        let options = CreateOptions::default().activity_log(stripes, stripe);
        let created = create(&target, &options).unwrap();
        let (ok, text) = run(&[
            "create-md",
            "--al-stripes",
            &stripes.to_string(),
            "--al-stripe-size-kB",
            &(stripe * 4).to_string(),
        ]);
        assert!(ok, "seed {seed}: {text}");
        same(&format!("seed {seed}, created"));

        let mut bytes = fs::read(&ours).unwrap();
        // As much data as the bitmap can describe, or more than that.
        let effective = created.usable.0 - r.below(created.usable.0) + r.below(3) * 8192;
        bytes[..8].copy_from_slice(&effective.to_be_bytes());
        bytes[0x38..0x3c].copy_from_slice(&3u32.to_be_bytes());
        bytes[0x3c..0x40].copy_from_slice(&0x8374_026cu32.to_be_bytes());
        let mut log = Log::new(257, stripes as usize, stripe as usize, 4096);
        for _ in 0..r.below(30) {
            let extent = r.below(effective.div_ceil(8192) + 1) as u32;
            log.transaction(&mut bytes, &[(r.below(257) as usize, extent)]);
        }
        fs::write(&ours, &bytes).unwrap();
        fs::write(&theirs, &bytes).unwrap();
        let (ok, text) = run(&["apply-al"]);
        let result = apply_activity_log(&target);
        assert_eq!(result.is_ok(), ok, "seed {seed}: {result:?} {text}");
        same(&format!("seed {seed}, applied"));
    }
}
