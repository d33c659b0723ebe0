//! Ours against `drbdmeta` in format v09, and what it does beside creating and applying.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use common::{Log, Random, cases, difference, drbdmeta, run_drbdmeta_at, scratch};
use drbd_md::{
    CreateOptions, Dump, ErrorKind, Flags, Format, Generations, Overwrite, PeerFlags, Placement,
    Sectors, Superblock, Target, Uuid, apply_activity_log, convert, create, dump_to_string,
    forget_peer, invalidate, outdate, read, set_generations, wipe,
};

const MIB: u64 = 1 << 20;

fn blank(path: &Path, size: u64) {
    let _ = fs::remove_file(path);
    fs::File::create(path).unwrap().set_len(size).unwrap();
}

/// A place in drbdmeta's words, and ours.
fn target(path: &Path, place: &str) -> Target {
    match place {
        "internal" => Target::internal(path),
        "flex-external" => Target::flexible_external(path),
        slot => Target::indexed(path, slot.parse().unwrap()),
    }
}

/// `len` bytes of metadata: those at the end for internal, else those at the slot.
fn window(image: &Path, target: &Target, len: u64) -> (u64, Vec<u8>) {
    let f = fs::File::open(image).unwrap();
    let size = f.metadata().unwrap().len();
    let from = match target.placement() {
        Placement::Indexed(slot) => u64::from(slot) * 128 * MIB,
        Placement::Internal => size - len.min(size),
        _ => 0,
    };
    let mut bytes = vec![0; len.min(size - from) as usize];
    f.read_exact_at(&mut bytes, from).unwrap();
    (from, bytes)
}

fn put(image: &Path, (from, bytes): &(u64, Vec<u8>)) {
    let f = fs::File::options().write(true).open(image).unwrap();
    f.write_all_at(bytes, *from).unwrap();
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn compare_created(
    drbdmeta: &Path,
    dir: &Path,
    size: u64,
    place: &str,
    peers: Option<u32>,
    stripes: (u32, u32),
) {
    let about = format!("size {size}, {place}, peers {peers:?}, stripes {stripes:?}");
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    blank(&ours, size);
    blank(&theirs, size);
    let options = match peers {
        Some(n) => CreateOptions::v09(n),
        None => CreateOptions::default(),
    };
    let options = options.activity_log(stripes.0, stripes.1);
    let place_of = target(&ours, place);
    let created = create(&place_of, &options).unwrap_or_else(|e| panic!("{about}: {e}"));
    let (a, b) = (stripes.0.to_string(), (4 * stripes.1).to_string());
    let n = peers.unwrap_or(1).to_string();
    let mut args = vec!["create-md", "--al-stripes", &a, "--al-stripe-size-kB", &b];
    args.extend(peers.is_some().then_some(n.as_str()));
    let format = if peers.is_some() { "v09" } else { "v08" };
    let out = run_drbdmeta_at(drbdmeta, format, &theirs, place, &args);
    assert!(out.status.success(), "{about}: {}", text(&out));
    let len = match place {
        "internal" => created.superblock.md_size.bytes() + 8192,
        _ => size.min(160 * MIB),
    };
    // The bitmap is zero in both, and can be larger than memory: its start and end are compared.
    if len > 256 * MIB {
        let at = created.offset - 4 * MIB;
        for from in [at, size - created.superblock.md_size.bytes() - MIB] {
            let mut both = [vec![0; 4 * MIB as usize], vec![0; 4 * MIB as usize]];
            for (bytes, path) in both.iter_mut().zip([&ours, &theirs]) {
                let file = fs::File::open(path).unwrap();
                file.read_exact_at(bytes, from).unwrap();
            }
            assert!(both[0] == both[1], "{about}");
        }
        let end = |p: &Path| window(p, &place_of, 8192).1;
        assert!(end(&ours) == end(&theirs), "{about}");
    } else if let Some(d) = difference(
        &window(&ours, &place_of, len).1,
        &window(&theirs, &place_of, len).1,
    ) {
        panic!("{about}: {d}");
    }
    assert_eq!(read(&target(&theirs, place)).unwrap(), created.superblock);
}

#[test]
fn created_metadata_is_drbdmetas() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let mut r = Random::new(9);
    for i in 0..24 {
        let place = ["internal", "internal", "flex-external", "0"][i % 4];
        let size = match place {
            "internal" => r.pick(&[4 * MIB, 64 * MIB, 129 * MIB + 512, 1 << 30, 20 << 30]),
            "0" => 128 * MIB + r.below(100) * 4096,
            _ => r.pick(&[MIB, 4 * MIB + 512]),
        };
        let peers = (i % 9 != 8).then(|| 1 + r.below(31) as u32);
        let stripes = if r.chance(3) { (3, 5) } else { (1, 8) };
        compare_created(&drbdmeta, dir.path(), size, place, peers, stripes);
    }
    // A slot that is not the first.
    compare_created(&drbdmeta, dir.path(), 400 * MIB, "2", Some(2), (1, 8));
}

#[test]
#[ignore = "deep: bitmaps of gigabytes"]
fn deep_large_created_metadata_is_drbdmetas() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (size, peers) in [
        (1 << 40, Some(1)),
        (1 << 40, Some(31)),
        (4 << 40, None),
        (4 << 40, Some(7)),
    ] {
        compare_created(&drbdmeta, dir.path(), size, "internal", peers, (1, 8));
    }
    for peers in 1..=31 {
        for size in [4 * MIB, 200 * MIB, 3 << 30] {
            compare_created(&drbdmeta, dir.path(), size, "internal", Some(peers), (1, 8));
        }
    }
}

/// Metadata as a driver leaves it in use: generations, flags, peers, a bitmap.
fn used(image: &Path, place: &str, size: u64, peers: Option<u32>, r: &mut Random) -> Superblock {
    blank(image, size);
    let at = target(image, place);
    let (stripes, stripe) = r.pick(&[(1, 8), (1, 8), (2, 8), (4, 3)]);
    let options = match peers {
        Some(n) => CreateOptions::v09(n),
        None => CreateOptions::default(),
    };
    let created = create(&at, &options.activity_log(stripes, stripe)).unwrap();
    let sb = created.superblock;
    let len = match place {
        "internal" => sb.md_size.bytes() + 8192,
        _ => size,
    };
    let mut w = window(image, &at, len);
    let base = (created.offset - w.0) as usize;
    let usable = created.usable.0;
    let effective = match r.below(6) {
        0 => usable / 2,
        1 => usable + 5000,
        _ => usable & !7,
    };
    let bytes = &mut w.1;
    let put64 =
        |b: &mut Vec<u8>, at: usize, v: u64| b[at..at + 8].copy_from_slice(&v.to_be_bytes());
    let put32 =
        |b: &mut Vec<u8>, at: usize, v: u32| b[at..at + 4].copy_from_slice(&v.to_be_bytes());
    put64(bytes, base, effective);
    put64(bytes, base + 8, r.next());
    let flags = (r.below(1 << 9) as u32 & !(1 << 8)) | Flags::AL_CLEAN.bits();
    put32(bytes, base + 0x38, flags);
    if let Some(n) = peers {
        put64(bytes, base + 0x30, r.next());
        put32(bytes, base + 0x5c, r.below(32) as u32);
        for i in 0..32 {
            let at = base + 0x70 + 32 * i;
            put64(bytes, at, if r.chance(3) { r.next() } else { 0 });
            put64(bytes, at + 8, if r.chance(4) { r.next() } else { 0 });
            put32(
                bytes,
                at + 16,
                if r.chance(2) {
                    r.below(1 << 6) as u32
                } else {
                    1 << 16
                },
            );
            if r.chance(4) {
                put32(bytes, at + 20, r.below(n.into()) as u32);
            }
            put64(
                bytes,
                base + 0x470 + 8 * i,
                if r.chance(2) { r.next() } else { 0 },
            );
        }
    } else {
        put64(bytes, base + 0x10, r.next());
        put64(bytes, base + 0x18, r.next());
        put64(bytes, base + 0x28, r.next());
    }
    // The bitmap: noise, runs of ones, runs of a pattern.
    let bitmap = (base as i64 + i64::from(sb.bm_offset) * 512) as usize;
    let room = match place {
        "internal" => (base as i64 + i64::from(sb.al_offset) * 512) as usize - bitmap,
        _ => (bytes.len() - bitmap) & !4095,
    };
    for _ in 0..r.below(12) {
        let from = (r.below(room as u64) as usize) & !3;
        let to = (from + (r.below(room as u64) as usize >> r.below(12))).min(room);
        match r.below(4) {
            0 => bytes[bitmap + from..bitmap + to].fill(0xff),
            1 => bytes[bitmap + from..bitmap + to].fill(r.next() as u8),
            2 => bytes[bitmap + from] = r.next() as u8,
            _ => {
                for b in &mut bytes[bitmap + from..bitmap + to] {
                    *b = r.next() as u8;
                }
            }
        }
    }
    put(image, &w);
    read(&at).unwrap()
}

/// One of the places and sizes, and whether it is v09.
fn some(r: &mut Random) -> (&'static str, u64, Option<u32>) {
    let place = r.pick(&["internal", "internal", "flex-external"]);
    let size = match place {
        "internal" => r.pick(&[4, 33, 64, 300]) * MIB + r.pick(&[0, 512, 4096]),
        _ => r.pick(&[128 * 1024, MIB, 2 * MIB + 4096]),
    };
    let peers = (!r.chance(4)).then(|| r.pick(&[1, 2, 3, 5, 7, 16, 31]));
    (place, size, peers)
}

#[test]
fn applied_logs_are_drbdmetas() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let (mut marked, mut refused) = (0, 0);
    let cases = cases(30);
    for seed in 1..=cases {
        let mut r = Random::new(seed);
        let (place, size, peers) = some(&mut r);
        let peers = Some(peers.unwrap_or(4));
        let sb = used(&ours, place, size, peers, &mut r);
        let at = target(&ours, place);
        let len = if place == "internal" {
            sb.md_size.bytes() + 8192
        } else {
            size
        };
        let mut w = window(&ours, &at, len);
        let base = if place == "internal" {
            ((size - 4096) & !4095) - w.0
        } else {
            0
        } as usize;
        let mut flags = sb.flags - Flags::AL_CLEAN;
        flags.set(Flags::PRIMARY_IND, !r.chance(5));
        flags.set(Flags::AL_CLEAN, r.chance(6));
        w.1[base + 0x38..base + 0x3c].copy_from_slice(&flags.bits().to_be_bytes());
        let log_at = (base as i64 + i64::from(sb.al_offset) * 512) as usize;
        let (stripes, stripe) = (sb.al_stripes as usize, sb.al_stripe_size_4k as usize);
        let mut log = Log::new(r.pick(&[67, 1237, 6007]), stripes, stripe, log_at);
        let last = sb.effective_size.0.div_ceil(8192);
        for _ in 0..r.below(4 * (stripes * stripe) as u64) {
            let extent = r.below(last + 2) as u32;
            log.transaction(&mut w.1, &[(r.below(67) as usize, extent)]);
        }
        match r.below(6) {
            0 => {
                let torn = log.place(log.number.wrapping_sub(1));
                w.1[torn + 100..torn + 400].fill(7);
            }
            1 if r.chance(3) => w.1[log_at..log_at + stripes * stripe * 4096].fill(0),
            _ => {}
        }
        put(&ours, &w);
        fs::copy(&ours, &theirs).unwrap();
        let out = run_drbdmeta_at(&drbdmeta, "v09", &theirs, place, &["apply-al"]);
        let result = apply_activity_log(&at);
        let about = format!("seed {seed}: {result:?}\n{}", text(&out));
        assert_eq!(result.is_ok(), out.status.success(), "{about}");
        if let Some(d) = difference(&window(&ours, &at, len).1, &window(&theirs, &at, len).1) {
            panic!("{d}\n{about}");
        }
        match result {
            Ok(applied) => marked += u64::from(!applied.extents.is_empty()),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corrupt, "{about}");
                refused += 1;
            }
        }
    }
    println!("{cases} images: {marked} marked, {refused} refused");
    assert!(marked > cases / 4);
}

/// A dump without the header that names the program, and without the one line of v08 in which
/// drbdmeta 9.22 shows the flags of a peer that v08 does not have.
fn comparable(text: &str, v08: bool) -> String {
    let start = text.find("version ").unwrap();
    let lines = text[start..].lines();
    let keep = |l: &&str| !(v08 && l.starts_with("    flags "));
    lines.filter(keep).collect::<Vec<_>>().join("\n")
}

/// What can be restored: not the count, in which half words past the last bit take part.
fn lasting(text: &str) -> String {
    let lines = text.lines().filter(|l| !l.starts_with("# bits-set"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn dumps_are_drbdmetas_and_restore() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    for seed in 1..=cases(30) {
        let mut r = Random::new(seed);
        let (place, size, peers) = some(&mut r);
        let sb = used(&ours, place, size, peers, &mut r);
        let v08 = peers.is_none();
        let format = if v08 { "v08" } else { "v09" };
        let at = target(&ours, place);
        let mine = dump_to_string(&at).unwrap();
        let out = run_drbdmeta_at(&drbdmeta, format, &ours, place, &["dump-md"]);
        assert!(out.status.success(), "seed {seed}: {}", text(&out));
        let them = String::from_utf8(out.stdout).unwrap();
        if comparable(&mine, v08) != comparable(&them, v08) {
            let (a, b) = (comparable(&mine, v08), comparable(&them, v08));
            let (n, (x, y)) = a
                .lines()
                .zip(b.lines())
                .enumerate()
                .find(|(_, (x, y))| x != y)
                .unwrap_or((0, ("lengths", "differ")));
            panic!("seed {seed} {place} {size} {peers:?}, line {n}:\nours   {x}\ntheirs {y}");
        }
        // Ours is restored by them, and theirs by us, on a blank device.
        let dump = Dump::parse(&mine).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        blank(&theirs, size);
        let there = target(&theirs, place);
        dump.restore(&there, &Overwrite::Nothing).unwrap();
        assert!(
            lasting(&dump_to_string(&there).unwrap()) == lasting(&mine),
            "seed {seed}: restored differs"
        );
        let file = dir.path().join("dump");
        fs::write(&file, &mine).unwrap();
        let other = dir.path().join("other");
        blank(&other, size);
        let args = ["restore-md", file.to_str().unwrap()];
        let out = run_drbdmeta_at(&drbdmeta, format, &other, place, &args);
        assert!(out.status.success(), "seed {seed}: {}", text(&out));
        let restored = read(&target(&other, place)).unwrap();
        assert_eq!(restored.current_uuid, sb.current_uuid, "seed {seed}");
        // Otherwise half a word is left over at the end, where drbdmeta loses count.
        if peers.is_some_and(u32::is_power_of_two) {
            assert!(
                lasting(&dump_to_string(&target(&other, place)).unwrap()) == lasting(&mine),
                "seed {seed}: drbdmeta understood our dump otherwise"
            );
        }
        if let Ok(dump) = Dump::parse(&them) {
            blank(&theirs, size);
            let sb = dump.restore(&there, &Overwrite::Nothing).unwrap();
            assert_eq!(sb.effective_size, restored.effective_size, "seed {seed}");
        } else {
            panic!("seed {seed}: {:?}", Dump::parse(&them));
        }
    }
}

#[test]
fn changes_are_drbdmetas() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let mut done = [0; 6];
    for seed in 1..=cases(60) {
        let mut r = Random::new(seed);
        let (place, size, peers) = some(&mut r);
        let sb = used(&ours, place, size, peers, &mut r);
        let at = target(&ours, place);
        fs::copy(&ours, &theirs).unwrap();
        let format = if peers.is_none() { "v08" } else { "v09" };
        let (which, args, result) = match (r.below(5), peers) {
            (0, _) => (0, vec!["outdate".to_owned()], outdate(&at)),
            (1, _) => (1, vec!["invalidate".to_owned()], invalidate(&at)),
            (2, _) => (2, vec!["wipe-md".to_owned()], wipe(&at)),
            (3, Some(_)) => {
                let id = (sb.node_id.unwrap_or(0) + 1 + r.below(31) as u8) % 32;
                let args = ["forget-peer", "--node-id", &id.to_string()];
                (3, args.map(str::to_owned).to_vec(), forget_peer(&at, id))
            }
            _ => {
                let id = r.below(32) as u8;
                let uuids = [r.next(), r.next(), r.next(), r.next()];
                let bits: Vec<u32> = (0..12).map(|_| r.below(2) as u32).collect();
                let mut gi = uuids.map(|u| format!("{u:016X}")).join(":");
                let known = if peers.is_some() { 12 } else { 7 };
                for b in &bits[..known] {
                    gi.push_str(&format!(":{b}"));
                }
                let mut args = vec!["set-gi".to_owned(), gi];
                let mut flags = sb.flags;
                let mut peer_flags = None;
                if peers.is_some() {
                    args.extend(["--node-id".to_owned(), id.to_string()]);
                    let order = [0, 4, 1, 6, 7, 8, 9];
                    for (bit, on) in order.into_iter().zip(&bits) {
                        flags.set(Flags::from_bits_retain(1 << bit), *on == 1);
                    }
                    let mut p = PeerFlags::from_bits_retain(sb.peers[usize::from(id)].flags);
                    for (bit, on) in [0, 1, 2, 3, 4].into_iter().zip(&bits[7..]) {
                        p.set(PeerFlags::from_bits_retain(1 << bit), *on == 1);
                    }
                    peer_flags = Some(p);
                } else {
                    for (bit, on) in [0, 4, 1, 2, 3, 5, 6].into_iter().zip(&bits) {
                        flags.set(Flags::from_bits_retain(1 << bit), *on == 1);
                    }
                }
                let mut history = sb.history_uuids.clone();
                history.resize(history.len().max(2), Uuid(0));
                (history[0], history[1]) = (Uuid(uuids[2]), Uuid(uuids[3]));
                let to = Generations {
                    current: Some(Uuid(uuids[0])),
                    bitmap: Some(Some(Uuid(uuids[1]))),
                    history: Some(history),
                    flags: Some(flags),
                    peer_flags,
                };
                let peer = peers.map(|_| id);
                (4, args, set_generations(&at, peer, &to))
            }
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = run_drbdmeta_at(&drbdmeta, format, &theirs, place, &args);
        let about = format!("seed {seed}: {args:?} {result:?}\n{}", text(&out));
        assert_eq!(result.is_ok(), out.status.success(), "{about}");
        let len = if place == "internal" {
            sb.md_size.bytes() + 8192
        } else {
            size
        };
        if let Some(d) = difference(&window(&ours, &at, len).1, &window(&theirs, &at, len).1) {
            panic!("{d}\n{about}");
        }
        done[which] += 1;
    }
    assert!(done[..5].iter().all(|n| *n > 3), "{done:?}");
}

#[test]
fn conversions_are_drbdmetas() {
    let Some(drbdmeta) = drbdmeta() else { return };
    let dir = scratch();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let mut refused = 0;
    for seed in 1..=cases(30) {
        let mut r = Random::new(seed);
        let (place, size, peers) = some(&mut r);
        let peers = if r.chance(2) { peers.map(|_| 1) } else { peers };
        let before = used(&ours, place, size, peers, &mut r);
        let at = target(&ours, place);
        fs::copy(&ours, &theirs).unwrap();
        let (to, format) = match peers {
            None => (Format::V09, "v09"),
            Some(_) => (Format::V08, "v08"),
        };
        let len = before.md_size.bytes() + 8192;
        let len = if place == "internal" { len } else { size };
        let untouched = window(&ours, &at, len);
        let sb = match convert(&at, to) {
            Ok(sb) => sb,
            Err(e) => {
                // Bits of several peers cannot become those of one; drbdmeta does not look.
                assert_eq!(e.kind(), ErrorKind::WrongState, "seed {seed}: {e}");
                assert!(peers.is_some_and(|n| n > 1), "seed {seed}: {e}");
                assert!(window(&ours, &at, len) == untouched, "seed {seed}");
                refused += 1;
                continue;
            }
        };
        // It sets one field by an option, whatever was there.
        let bio = before.la_peer_max_bio_size.to_string();
        let mut args = vec!["create-md", "--peer-max-bio-size", &bio];
        args.extend(peers.is_none().then_some("1"));
        let out = run_drbdmeta_at(&drbdmeta, format, &theirs, place, &args);
        let about = format!("seed {seed}: {}", text(&out));
        assert!(out.status.success(), "{about}");
        let mut them = window(&theirs, &at, len);
        let clipped = sb.effective_size != before.effective_size;
        if clipped {
            // drbdmeta cuts it to what there is when the metadata is next used.
            let at = if place == "internal" {
                ((size - 4096) & !4095) - them.0
            } else {
                0
            } as usize;
            them.1[at..at + 8].copy_from_slice(&sb.effective_size.0.to_be_bytes());
        }
        if let Some(d) = difference(&window(&ours, &at, len).1, &them.1) {
            panic!("{d}\n{about}");
        }
    }
    println!("{refused} refused");
}

#[test]
fn a_log_that_was_not_applied_is_in_the_way() {
    let dir = scratch();
    let image = dir.path().join("image");
    let sb = used(&image, "internal", 8 * MIB, Some(2), &mut Random::new(3));
    let at = target(&image, "internal");
    let to = Generations {
        flags: Some(sb.flags - Flags::AL_CLEAN),
        ..Generations::default()
    };
    set_generations(&at, Some(1), &to).unwrap();
    for e in [
        convert(&at, Format::V08).unwrap_err(),
        dump_to_string(&at).unwrap_err(),
    ] {
        assert_eq!(e.kind(), ErrorKind::WrongState);
        assert!(e.to_string().contains("applied first"), "{e}");
    }
    let e = set_generations(&at, None, &to).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidOption);
    assert_eq!(
        forget_peer(&at, sb.node_id.unwrap()).unwrap_err().kind(),
        ErrorKind::InvalidOption
    );
    assert_eq!(
        forget_peer(&at, 32).unwrap_err().kind(),
        ErrorKind::InvalidOption
    );
    wipe(&at).unwrap();
    assert_eq!(wipe(&at).unwrap_err().kind(), ErrorKind::NoMetadata);
    assert_eq!(
        create(&at, &CreateOptions::v09(32)).unwrap_err().kind(),
        ErrorKind::InvalidOption
    );
    assert_eq!(
        create(&Target::indexed(&image, 1), &CreateOptions::default())
            .unwrap_err()
            .kind(),
        ErrorKind::TooSmall
    );
    assert_eq!(sb.effective_size, Sectors(sb.effective_size.0));
}

/// Whatever the bytes are: an answer, and nothing written by those that look.
#[test]
fn mutated_metadata_is_answered() {
    let dir = scratch();
    let image = dir.path().join("image");
    let mut kinds = std::collections::HashMap::new();
    for seed in 1..=cases(60) {
        let mut r = Random::new(seed);
        let (place, size, peers) = some(&mut r);
        let sb = used(&image, place, size, peers, &mut r);
        let at = target(&image, place);
        let len = if place == "internal" {
            sb.md_size.bytes() + 8192
        } else {
            size
        };
        let mut w = window(&image, &at, len);
        let base = if place == "internal" {
            ((size - 4096) & !4095) - w.0
        } else {
            0
        } as usize;
        for _ in 0..1 + r.below(6) {
            let from = base
                + r.pick(&[
                    0, 8, 0x38, 0x40, 0x44, 0x48, 0x4c, 0x50, 0x54, 0x58, 0x5c, 0x60, 0x64, 0x84,
                ]);
            let value = r.pick(&[0, 1, 7, 255, 1 << 31, u64::from(u32::MAX), 4096]);
            let value = if r.chance(2) { value } else { r.next() } as u32;
            w.1[from..from + 4].copy_from_slice(&value.to_be_bytes());
        }
        put(&image, &w);
        let before = w;
        for error in [
            read(&at).err(),
            drbd_md::probe(&at).err(),
            drbd_md::activity_log_state(&at).err(),
            dump_to_string(&at).err(),
        ] {
            let kind = error.map(|e| format!("{:?}", e.kind()));
            *kinds.entry(kind).or_insert(0) += 1;
        }
        assert!(
            window(&image, &at, len) == before,
            "seed {seed}: looking wrote"
        );
        for change in [outdate, invalidate, |t: &Target| convert(t, Format::V09)] {
            let _ = change(&at);
        }
        let _ = (apply_activity_log(&at), forget_peer(&at, 1), wipe(&at));
    }
    println!("{kinds:?}");
    assert!(kinds.len() >= 3, "{kinds:?}");
}

#[test]
fn mutated_dumps_are_answered() {
    let dir = scratch();
    let image = dir.path().join("image");
    for seed in 1..=8 {
        let mut r = Random::new(seed);
        let (place, size, peers) = some(&mut r);
        used(&image, place, size.min(33 * MIB), peers, &mut r);
        let text = dump_to_string(&target(&image, place)).unwrap();
        for cut in [text.len() / 2, text.len() / 3, 10] {
            let e = Dump::parse(&text[..cut]).unwrap_err();
            assert!(e.line >= 1 && !e.to_string().is_empty());
        }
        for _ in 0..40 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..1 + r.below(4) {
                let at = r.below(bytes.len() as u64) as usize;
                let new = b"{}[];#x0f -9\"\n"[r.below(14) as usize];
                match r.below(3) {
                    0 => bytes[at] = new,
                    1 => bytes.insert(at, new),
                    _ => drop(bytes.remove(at)),
                }
            }
            let _ = Dump::parse(&String::from_utf8(bytes).unwrap());
        }
    }
}
