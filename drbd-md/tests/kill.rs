//! A process is killed while it changes metadata: what it left, and that the next one says so and
//! completes it. `src/crash.rs` ends every change at every write; here the kernel does it, anywhere.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Random, cases, scratch};
use drbd_md::{
    CreateOptions, Dump, ErrorKind, Flags, Format, Overwrite, Target, apply_activity_log, convert,
    create, dump_to_string, invalidate, move_after_grow, outdate, probe, read, wipe,
};

const MIB: u64 = 1 << 20;
/// The device before and after it grew: the places of its metadata overlap.
const SMALL: u64 = 2 << 30;
const GROWN: u64 = SMALL + 64 * 1024;
/// A device for metadata alone, which it fills.
const EXTERNAL: u64 = 24 * MIB;

/// A change, and the device it is made to.
#[derive(Clone, Copy)]
struct Change {
    name: &'static str,
    prepare: fn(&Path),
    run: fn(&Path) -> drbd_md::Result<()>,
    /// Where the metadata is.
    target: fn(&Path) -> Target,
}

fn external(path: &Path) -> Target {
    Target::flexible_external(path)
}

fn internal(path: &Path) -> Target {
    Target::internal(path)
}

fn blank(path: &Path, size: u64) {
    fs::File::create(path).unwrap().set_len(size).unwrap();
}

/// Metadata in use: generations, a pattern in the bitmap, and, if it is not clean, a log.
fn used(target: &Target, options: &CreateOptions, clean: bool) {
    let created = create(target, options).unwrap();
    let mut flags = Flags::CONSISTENT | Flags::WAS_UP_TO_DATE;
    if clean {
        flags |= Flags::AL_CLEAN;
    }
    let file = fs::File::options().write(true).open(target.path()).unwrap();
    let put = |bytes: &[u8], at: u64| file.write_all_at(bytes, at).unwrap();
    put(&0x1234u64.to_be_bytes(), created.offset + 0x08);
    put(&7u64.to_be_bytes(), created.offset + 0x30);
    put(&flags.bits().to_be_bytes(), created.offset + 0x38);
    let bitmap = i64::from(created.superblock.bm_offset) * 512;
    let pattern: Vec<u8> = (0..256 * 1024u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    put(&pattern, created.offset.checked_add_signed(bitmap).unwrap());
}

fn used_external(path: &Path) {
    blank(path, EXTERNAL);
    used(&external(path), &CreateOptions::v09(3), true);
}

fn used_small(path: &Path) {
    blank(path, MIB);
    used(&external(path), &CreateOptions::v09(1), true);
}

/// Another device's metadata, as a dump.
fn other_dump() -> Dump {
    let dir = scratch();
    let path = dir.path().join("other");
    blank(&path, EXTERNAL);
    used(&external(&path), &CreateOptions::v09(5), true);
    Dump::parse(&dump_to_string(&external(&path)).unwrap()).unwrap()
}

const CHANGES: &[Change] = &[
    Change {
        name: "create on a blank device",
        prepare: |p| blank(p, EXTERNAL),
        run: |p| create(&external(p), &CreateOptions::v09(31)).map(drop),
        target: external,
    },
    Change {
        name: "create over other metadata",
        prepare: used_external,
        run: |p| {
            let over = Overwrite::named("drbd-v09");
            create(&external(p), &CreateOptions::v09(31).overwrite(over)).map(drop)
        },
        target: external,
    },
    Change {
        name: "restore",
        prepare: used_external,
        run: |p| {
            let dump = other_dump();
            println!("\nGO");
            dump.restore(&external(p), &Overwrite::named("drbd-v09"))
                .map(drop)
        },
        target: external,
    },
    Change {
        name: "apply the log",
        prepare: |p| {
            blank(p, EXTERNAL);
            used(
                &external(p),
                &CreateOptions::v09(31).activity_log(16, 64),
                false,
            );
        },
        run: |p| apply_activity_log(&external(p)).map(drop),
        target: external,
    },
    Change {
        name: "move",
        prepare: |p| {
            blank(p, SMALL);
            used(&internal(p), &CreateOptions::v09(31), true);
            fs::File::options()
                .write(true)
                .open(p)
                .unwrap()
                .set_len(GROWN)
                .unwrap();
        },
        run: |p| move_after_grow(&internal(p), SMALL).map(drop),
        target: internal,
    },
    Change {
        name: "outdate",
        prepare: used_small,
        run: |p| outdate(&external(p)).map(drop),
        target: external,
    },
    Change {
        name: "invalidate",
        prepare: used_small,
        run: |p| invalidate(&external(p)).map(drop),
        target: external,
    },
    Change {
        name: "convert",
        prepare: used_small,
        run: |p| convert(&external(p), Format::V08).map(drop),
        target: external,
    },
    Change {
        name: "wipe",
        prepare: used_small,
        run: |p| wipe(&external(p)).map(drop),
        target: external,
    },
];

#[test]
#[ignore = "is killed"]
fn inner_change() {
    let name = std::env::var("CHANGE").unwrap();
    let path = PathBuf::from(std::env::var_os("IMAGE").unwrap());
    let change = CHANGES.iter().find(|c| c.name == name).unwrap();
    if name != "restore" {
        println!("\nGO");
    }
    let start = Instant::now();
    (change.run)(&path).unwrap();
    println!("\nDONE {}", start.elapsed().as_micros());
}

/// Starts the change in a process of its own; ends it after `delay`, or lets it end. Tells how long
/// it took, if it was not ended.
fn in_a_process(change: &Change, path: &Path, delay: Option<Duration>) -> Option<Duration> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "inner_change",
            "--include-ignored",
            "--nocapture",
        ])
        .env("CHANGE", change.name)
        .env("IMAGE", path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .by_ref()
        .map(Result::unwrap)
        .find(|l| l == "GO")
        .unwrap();
    if let Some(delay) = delay {
        std::thread::sleep(delay);
        // SIGKILL
        child.kill().unwrap();
    }
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let took = rest
        .iter()
        .find_map(|l| l.strip_prefix("DONE ")?.parse().ok());
    child.wait().unwrap();
    took.map(Duration::from_micros)
}

/// What the next one is told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    Old,
    New,
    /// Neither, and it says so.
    Between,
}

/// Everything that says something: the device, or of a large one what the metadata says.
fn content(change: &Change, path: &Path) -> Vec<u8> {
    if fs::metadata(path).unwrap().len() <= EXTERNAL {
        return fs::read(path).unwrap();
    }
    let text = dump_to_string(&(change.target)(path)).unwrap();
    // Sizes and positions change with a move.
    let lines = text.lines().filter(|l| !l.starts_with("# "));
    lines.collect::<Vec<_>>().join("\n").into_bytes()
}

fn look(change: &Change, path: &Path, old: &[u8], new: &[u8]) -> Left {
    let target = (change.target)(path);
    let found = probe(&target).unwrap();
    let named = |name: &str| found.signatures.iter().any(|s| s.name == name);
    if named("drbd-unfinished") || named("drbd-moving") {
        if let Ok(sb) = read(&target) {
            assert!(
                sb.needs_activity_log_applied(),
                "the driver has to refuse it"
            );
        }
        return Left::Between;
    }
    match read(&target) {
        // The whole of either; the bitmap is written before what makes it count.
        Ok(_) if content(change, path) == new => Left::New,
        Ok(_) if content(change, path) == old => Left::Old,
        // Still unclean: what was applied so far will be applied again.
        Ok(sb) => {
            assert!(sb.needs_activity_log_applied(), "{}: {sb:?}", change.name);
            Left::Between
        }
        // Nothing, as before; or the old place of what was moved is still the one.
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::NoMetadata, "{}: {e}", change.name);
            match change.name {
                "wipe" => Left::New,
                _ => Left::Old,
            }
        }
    }
}

fn killed(rounds: u64) {
    let dir = scratch();
    let path = dir.path().join("disk");
    for change in CHANGES {
        // What it makes of the device, and how long that takes.
        (change.prepare)(&path);
        let moved = change.name == "move";
        let old = match moved {
            true => Vec::new(),
            false => fs::read(&path).unwrap(),
        };
        let whole = in_a_process(change, &path, None).expect("it was not killed");
        let new = content(change, &path);
        let mut seen = [0; 3];
        let r = &mut Random::new(whole.as_nanos() as u64);
        for round in 0..rounds {
            match moved {
                true => (change.prepare)(&path),
                false => fs::write(&path, &old).unwrap(),
            }
            let micros = r.below(whole.as_micros() as u64 * 5 / 4 + 100);
            let ended = in_a_process(change, &path, Some(Duration::from_micros(micros)));
            let left = look(change, &path, &old, &new);
            let about = format!(
                "{}, round {round}, after {micros} us: {left:?}",
                change.name
            );
            assert!(ended.is_none() || left == Left::New, "{about}");
            seen[left as usize] += 1;
            // The same once more completes it; what is done already may say so.
            if left != Left::New {
                let again = match change.name {
                    "create over other metadata" if left == Left::Between => {
                        create(&external(&path), &CreateOptions::v09(31)).map(drop)
                    }
                    "restore" if left == Left::Between => other_dump()
                        .restore(&external(&path), &Overwrite::Nothing)
                        .map(drop),
                    _ => (change.run)(&path),
                };
                again.unwrap_or_else(|e| panic!("{about}: {e}"));
                assert!(content(change, &path) == new, "{about}: not completed");
            }
        }
        println!(
            "{}: takes {whole:?}; old {}, new {}, between {}",
            change.name, seen[0], seen[1], seen[2]
        );
    }
}

#[test]
fn what_a_kill_leaves_is_old_or_new_or_says_so() {
    killed(cases(3));
}

#[test]
#[ignore = "deep: more of the same"]
fn deep_what_a_kill_leaves_is_old_or_new_or_says_so() {
    killed(cases(60));
}
