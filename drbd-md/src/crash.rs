//! Every change, ended at every write it makes: what is left, and that repeating it completes it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{
    CreateOptions, Dump, ErrorKind, Flags, Format, Overwrite, Sectors, Superblock, Target,
    apply_activity_log, convert, create, dump_to_string, invalidate, move_after_grow, outdate,
    probe, read, wipe,
};

thread_local! {
    /// How many more writes are whole; the one after them is the last thing this thread does.
    static WRITES_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    /// Blocks that the last write got done.
    static TORN: Cell<usize> = const { Cell::new(0) };
}

/// What of a write reaches the device: all, or as many blocks as the crash lets through.
pub(crate) fn cut(bytes: &[u8]) -> &[u8] {
    match WRITES_LEFT.get() {
        Some(0) => &bytes[..bytes.len().min(TORN.get() * 4096)],
        _ => bytes,
    }
}

/// Ends the operation after its last write, as a kill would.
pub(crate) fn end() -> io::Result<()> {
    match WRITES_LEFT.get() {
        Some(0) => Err(io::Error::other("crash")),
        Some(n) => {
            WRITES_LEFT.set(Some(n - 1));
            Ok(())
        }
        None => Ok(()),
    }
}

const MIB: u64 = 1 << 20;

struct Image {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Image {
    fn new(size: u64) -> Image {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let dir = dir.unwrap();
        let path = dir.path().join("disk");
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        Image { _dir: dir, path }
    }
    fn target(&self) -> Target {
        Target::internal(&self.path)
    }
    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
    fn grow(&self, size: u64) {
        let file = fs::File::options().write(true).open(&self.path).unwrap();
        file.set_len(size).unwrap();
    }
}

/// Metadata that was in use: a size, generations, and a bitmap with a pattern in it.
fn used(image: &Image, options: &CreateOptions, clean: bool) -> Superblock {
    let created = create(&image.target(), options).unwrap();
    let mut sb = created.superblock;
    sb.effective_size = Sectors(created.usable.0 & !7);
    sb.device_uuid = 7;
    sb.current_uuid = Some(crate::Uuid(0x1234));
    sb.flags = Flags::CONSISTENT | Flags::WAS_UP_TO_DATE | Flags::AL_CLEAN;
    if !clean {
        sb.flags -= Flags::AL_CLEAN;
    }
    let file = fs::File::options().write(true).open(&image.path).unwrap();
    file.write_all_at(&sb.encode(), created.offset).unwrap();
    let bitmap = created
        .offset
        .checked_add_signed(i64::from(sb.bm_offset) * 512)
        .unwrap();
    let len = created
        .offset
        .checked_add_signed(i64::from(sb.al_offset) * 512)
        .unwrap()
        - bitmap;
    let in_use = crate::layout::bitmap_bytes(sb.effective_size.0, 4096, sb.max_peers).min(len);
    let pattern: Vec<u8> = (0..in_use).map(|i| ((i * i) >> 7) as u8).collect();
    file.write_all_at(&pattern, bitmap).unwrap();
    sb
}

/// Runs `change` on copies of `image`, ended at its first, second, … write, whole and torn; hands
/// each to `check` with what was left. Returns how many writes it makes.
fn at_every_write<T>(
    image: &Image,
    change: impl Fn(&Target) -> crate::Result<T>,
    mut check: impl FnMut(&Image, &str),
) -> u64 {
    let before = image.bytes();
    for n in 0.. {
        for torn in [0, 1, 7, usize::MAX >> 13] {
            let copy = Image::new(0);
            fs::write(&copy.path, &before).unwrap();
            WRITES_LEFT.set(Some(n));
            TORN.set(torn);
            let result = change(&copy.target());
            WRITES_LEFT.set(None);
            if result.is_ok() {
                return n;
            }
            check(
                &copy,
                &format!("ended at write {n}, {torn} blocks of it written"),
            );
        }
    }
    0
}

#[test]
fn a_new_superblock_replaces_the_old_one_at_once() {
    let image = Image::new(MIB);
    let clean = used(&image, &CreateOptions::default(), true);
    let v09 = Image::new(MIB);
    let clean9 = used(&v09, &CreateOptions::v09(1), true);
    type Change = fn(&Target) -> crate::Result<Superblock>;
    let changes: [(&str, &Image, &Superblock, Change); 6] = [
        ("outdate", &image, &clean, outdate),
        ("invalidate", &image, &clean, invalidate),
        ("invalidate v09", &v09, &clean9, invalidate),
        ("convert to v09", &image, &clean, |t| {
            convert(t, Format::V09)
        }),
        ("convert to v08", &v09, &clean9, |t| convert(t, Format::V08)),
        ("forget", &v09, &clean9, |t| crate::forget_peer(t, 3)),
    ];
    for (name, image, old, change) in changes {
        let copy = Image::new(0);
        fs::write(&copy.path, image.bytes()).unwrap();
        let new = change(&copy.target()).unwrap();
        let writes = at_every_write(image, change, |left, about| {
            let now = read(&left.target()).unwrap();
            assert!(now == *old || now == new, "{name}, {about}: {now:?}");
        });
        assert_eq!(writes, 1, "{name}");
    }
}

#[test]
fn create_over_old_metadata_leaves_it_or_says_so() {
    for (old, new) in [
        (CreateOptions::default(), CreateOptions::v09(5)),
        (CreateOptions::v09(5), CreateOptions::default()),
        (
            CreateOptions::default().activity_log(2, 8),
            CreateOptions::default(),
        ),
        (CreateOptions::v09(3), CreateOptions::v09(31)),
    ] {
        let image = Image::new(MIB);
        let sb = used(&image, &old, true);
        let name = format!("drbd-{}", sb.format);
        let change = |t: &Target| create(t, &new.clone().overwrite(Overwrite::named(&name)));
        let whole = Image::new(0);
        fs::write(&whole.path, image.bytes()).unwrap();
        change(&whole.target()).unwrap();
        let writes = at_every_write(&image, change, |left, about| {
            let now = read(&left.target()).unwrap();
            if now == sb {
                assert!(
                    left.bytes() == image.bytes(),
                    "{about}: the old bitmap was touched"
                );
                return;
            }
            if now.is_unfinished() {
                assert!(
                    now.needs_activity_log_applied(),
                    "the driver has to refuse it"
                );
                let found = probe(&left.target()).unwrap();
                assert_eq!(found.signatures[0].name, "drbd-unfinished", "{about}");
            }
            // Completed without leave to overwrite.
            if left.bytes() != whole.bytes() {
                create(&left.target(), &new).unwrap_or_else(|e| panic!("{about}: {e}"));
                assert!(left.bytes() == whole.bytes(), "{about}: not completed");
            }
        });
        assert!(writes > 2, "{writes}");
    }
}

#[test]
fn create_on_a_blank_device_leaves_nothing_or_says_so() {
    let (image, whole) = (Image::new(MIB), Image::new(MIB));
    // Where the metadata is at the end, and where it begins the device.
    let places: [fn(&Path) -> Target; 2] =
        [|p| Target::internal(p), |p| Target::flexible_external(p)];
    for target in places {
        let change = |path: &Path| create(&target(path), &CreateOptions::v09(7));
        fs::write(&whole.path, image.bytes()).unwrap();
        change(&whole.path).unwrap();
        let writes = at_every_write(
            &image,
            |t| change(t.path()),
            |left, about| {
                match read(&target(&left.path)) {
                    Ok(sb) => assert!(sb.is_unfinished() || sb.max_peers == 7, "{about}"),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::NoMetadata, "{about}: {e}");
                        assert!(left.bytes() == image.bytes(), "{about}: touched");
                    }
                }
                // Completed without leave to overwrite.
                if left.bytes() != whole.bytes() {
                    change(&left.path).unwrap_or_else(|e| panic!("{about}: {e}"));
                    assert!(left.bytes() == whole.bytes(), "{about}: not completed");
                }
            },
        );
        assert!(writes > 2, "{writes}");
    }
}

#[test]
fn restore_leaves_the_old_metadata_or_says_so() {
    let image = Image::new(MIB);
    let old = used(&image, &CreateOptions::v09(3), true);
    let other = Image::new(MIB);
    used(&other, &CreateOptions::v09(2), true);
    let dump = Dump::parse(&dump_to_string(&other.target()).unwrap()).unwrap();
    let overwrite = Overwrite::named("drbd-v09");
    let writes = at_every_write(
        &image,
        |t| dump.restore(t, &overwrite),
        |left, about| {
            let now = read(&left.target()).unwrap();
            if now == old {
                assert!(left.bytes() == image.bytes(), "{about}");
            } else if now.is_unfinished() {
                dump.restore(&left.target(), &Overwrite::Nothing).unwrap();
            } else {
                assert_eq!(now.max_peers, 2, "{about}");
            }
        },
    );
    assert!(writes > 2);
    dump.restore(&image.target(), &overwrite).unwrap();
    assert_eq!(
        dump_to_string(&image.target()).unwrap(),
        dump_to_string(&other.target()).unwrap()
    );
}

#[test]
fn wipe_leaves_all_or_nothing() {
    let image = Image::new(MIB);
    let old = used(&image, &CreateOptions::default(), true);
    at_every_write(&image, wipe, |left, about| match read(&left.target()) {
        Ok(sb) => assert_eq!(sb, old, "{about}"),
        Err(e) => assert_eq!(e.kind(), ErrorKind::NoMetadata, "{about}"),
    });
}

/// What a dump says but for sizes and positions, which a move changes.
fn content(target: &Target) -> String {
    let text = dump_to_string(target).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with("# "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_move_is_completed_wherever_it_was_ended() {
    // Grown by one block (the places overlap), by a few, across a step of the bitmap, and by so
    // much that they do not overlap.
    for (peers, from, to) in [
        (1, MIB, MIB + 4096),
        (5, MIB, MIB + 3 * 4096),
        (31, 4 * MIB, 4 * MIB + 8192),
        (31, 4 * MIB, 4 * MIB + 4096),
        (31, 2 * MIB, 2 * MIB + 16 * 1024),
        (2, MIB, 4 * MIB),
        (3, MIB + 512, MIB + 4096 + 1024),
    ] {
        let about = format!("{peers} peers, {from} to {to}");
        let image = Image::new(from);
        let options = if peers == 1 {
            CreateOptions::default()
        } else {
            CreateOptions::v09(peers)
        };
        used(&image, &options, false);
        let plain = Image::new(0);
        fs::write(&plain.path, image.bytes()).unwrap();
        apply_activity_log(&plain.target()).unwrap();
        let wanted = content(&plain.target());
        image.grow(to);

        let mut resumed = 0;
        let writes = at_every_write(
            &image,
            |t| move_after_grow(t, from),
            |left, at| {
                // Nobody takes the half for the whole.
                match read(&left.target()) {
                    Ok(_) => {}
                    Err(e) => assert!(
                        [ErrorKind::NoMetadata, ErrorKind::Interrupted].contains(&e.kind()),
                        "{about}, {at}: {e}"
                    ),
                }
                let found = probe(&left.target()).unwrap().signatures;
                if found.iter().any(|s| s.name == "drbd-moving") {
                    let refused = create(&left.target(), &CreateOptions::default()).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::WouldOverwrite, "{at}");
                }
                let copy = Image::new(0);
                fs::write(&copy.path, left.bytes()).unwrap();
                if let Ok(moved) = move_after_grow(&copy.target(), from) {
                    resumed += u32::from(moved.resumed);
                    assert!(content(&copy.target()) == wanted, "{about}, {at}");
                } else {
                    panic!("{about}, {at}: {:?}", move_after_grow(&copy.target(), from));
                }
            },
        );
        assert!(writes > 2, "{about}: {writes}");
        assert!(
            resumed > 0 || to > 2 * from,
            "{about}: no journal was needed"
        );
        let moved = move_after_grow(&image.target(), from).unwrap();
        assert!(moved.from.is_some());
        assert!(content(&image.target()) == wanted, "{about}");
        assert_eq!(move_after_grow(&image.target(), from).unwrap().from, None);
    }
}

#[test]
fn an_applied_log_is_completed_wherever_it_was_ended() {
    let image = Image::new(12 * MIB);
    let mut sb = used(&image, &CreateOptions::v09(3), false);
    sb.flags |= Flags::PRIMARY_IND;
    let at = crate::layout::superblock_offset(crate::Placement::Internal, 12 * MIB).unwrap();
    let file = fs::File::options().write(true).open(&image.path).unwrap();
    file.write_all_at(&sb.encode(), at).unwrap();
    // One transaction: extents 1 and 2 in slots 0 and 1.
    let mut block = crate::activity_log::initialized_block();
    block[4..164].fill(0);
    block[14..16].copy_from_slice(&2u16.to_be_bytes());
    block[16..18].copy_from_slice(&257u16.to_be_bytes());
    for i in 0..64usize {
        let (slot, extent) = [(0u16, 1u32), (1, 2)]
            .get(i)
            .copied()
            .unwrap_or((u16::MAX, u32::MAX));
        block[36 + 2 * i..38 + 2 * i].copy_from_slice(&slot.to_be_bytes());
        block[164 + 4 * i..168 + 4 * i].copy_from_slice(&extent.to_be_bytes());
    }
    block[420..].fill(0xff);
    let sum = !crc32c::crc32c_append(u32::MAX, &block);
    block[8..12].copy_from_slice(&sum.to_be_bytes());
    let al = at
        .checked_add_signed(i64::from(sb.al_offset) * 512)
        .unwrap();
    file.write_all_at(&block, al).unwrap();

    let whole = Image::new(0);
    fs::write(&whole.path, image.bytes()).unwrap();
    let applied = apply_activity_log(&whole.target()).unwrap();
    assert_eq!(applied.extents, [1, 2]);
    let writes = at_every_write(&image, apply_activity_log, |left, about| {
        let refused = read(&left.target()).unwrap().needs_activity_log_applied();
        assert!(refused || left.bytes() == whole.bytes(), "{about}");
        apply_activity_log(&left.target()).unwrap();
        assert!(left.bytes() == whole.bytes(), "{about}");
    });
    assert!(writes >= 3, "{writes}");
}
