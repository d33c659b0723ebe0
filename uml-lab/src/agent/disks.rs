//! Disks that can break: a volatile cache, and a table of faults.
//!
//! The disk is moved from /dev/ubda to /dev/lab/ubda, and what stands before
//! it takes its name:
//!
//! - the *cache* is a loop device over the disk, buffered: a write is done once
//!   it is in the node's memory, a flush takes it to the disk. The node's end
//!   takes the memory with it, and so everything that was not flushed, unless
//!   the kernel had written it of itself, as a real disk may;
//! - the *faults* are a table of the device mapper.

#![allow(unsafe_code, reason = "ioctl structures")]

use std::ffi::{OsString, c_ulong};
use std::fs::{self, File};
use std::io::{Error, Read, Result};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{dm, modules, sys};
use crate::protocol::DiskSetup;
use crate::random::Random;

/// Where the disks themselves are.
const REAL: &str = "/dev/lab";
/// Number of the loop device of the first disk: the first ones are for the
/// user.
const FIRST_LOOP: usize = 200;

/// Names of partitions that a disk with a cache has.
const PARTITIONS: usize = 15;

// <linux/loop.h>
const LOOP_CTL_ADD: c_ulong = 0x4c80;
const LOOP_CONFIGURE: c_ulong = 0x4c0a;
const LO_FLAGS_PARTSCAN: u32 = 8;

/// `struct loop_config` with its `struct loop_info64`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// Device, inode, backing device, offset, size limit.
    numbers: [u64; 5],
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

/// Sets up a disk; `n` is its place in the order of disks.
pub(crate) fn set_up(n: usize, disk: &DiskSetup) -> Result<()> {
    if !disk.cached && disk.table.is_none() {
        return Ok(());
    }
    let name = String::from_utf8_lossy(&disk.name).into_owned();
    let named = Path::new("/dev").join(&name);
    let real = Path::new(REAL).join(&name);
    fs::create_dir_all(REAL)?;
    fs::rename(&named, &real)?;
    // The kernel has read the partition table: its partitions know nothing of
    // what stands before the disk.
    for entry in fs::read_dir("/dev")?.flatten() {
        let file = entry.file_name();
        let number = file.to_str().and_then(|file| file.strip_prefix(&name));
        if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            fs::rename(entry.path(), Path::new(REAL).join(file))?;
        }
    }
    let mut device = real.display().to_string();
    if disk.cached {
        device = add_cache(n, &real)?;
        if disk.table.is_none() {
            // They lead somewhere once there are partitions.
            for number in 1..=PARTITIONS {
                symlink(format!("{device}p{number}"), format!("/dev/{name}{number}"))?;
            }
        }
    }
    if let Some(table) = &disk.table {
        if !Path::new("/dev/mapper/control").exists() {
            modules::load("dm-mod")?;
        }
        // Loaded now: a fault should not have to read files first.
        for module in ["dm-flakey", "dm-delay"] {
            modules::load(module)?;
        }
        let below = Path::new(REAL).join(format!("{name}.below"));
        symlink(&device, below)?;
        let table = String::from_utf8_lossy(table);
        device = format!("/dev/dm-{}", dm::create(&name, &table, &device)?);
    }
    symlink(device, named)
}

fn add_cache(n: usize, real: &Path) -> Result<String> {
    if !Path::new("/dev/loop-control").exists() {
        modules::load("loop")?;
    }
    let number = FIRST_LOOP + n;
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    // SAFETY: takes an integer.
    unsafe { sys::ioctl_number(control.as_fd(), LOOP_CTL_ADD, number as c_ulong) }?;
    let path = format!("/dev/loop{number}");
    let device = File::options().read(true).write(true).open(&path)?;
    let backing = File::options().read(true).write(true).open(real)?;
    let mut config = LoopConfig {
        fd: backing.as_raw_fd().unsigned_abs(),
        block_size: 0,
        numbers: [0; 5],
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_PARTSCAN,
        names: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: the request reads one `struct loop_config`, whose size is checked
    // above.
    unsafe { sys::ioctl_with(device.as_fd(), LOOP_CONFIGURE, &mut config) }?;
    Ok(path)
}

/// `table NAME`: gives a disk the table on standard input.
pub(crate) fn change_table(name: &std::ffi::OsStr) -> Result<()> {
    let name = name.to_string_lossy();
    let mut table = String::new();
    std::io::stdin().read_to_string(&mut table)?;
    let below = fs::read_link(Path::new(REAL).join(format!("{name}.below")))?;
    dm::load(&name, &table, &below.to_string_lossy())
}

/// `destage SEED NAME...`: takes a part of what the caches hold to the disks,
/// chosen by the seed, and says how much.
pub(crate) fn destage(seed: &std::ffi::OsStr, names: &[OsString]) -> Result<()> {
    let seed: u64 = seed
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::from_raw_os_error(sys::EINVAL))?;
    let mut random = Random::new(seed);
    let (mut taken, mut cached) = (0, 0);
    for name in names {
        let disk = File::open(Path::new(REAL).join(name))?;
        let length = usize::try_from(size(&name.to_string_lossy())?)
            .map_err(|_| Error::from_raw_os_error(sys::EINVAL))?;
        let pages = sys::cached_pages(disk.as_fd(), length)?;
        for (first, count) in choose(&pages, &mut random) {
            sys::write_back(disk.as_fd(), first * sys::PAGE, count * sys::PAGE)?;
            taken += count;
        }
        cached += pages.iter().filter(|cached| **cached).count();
    }
    println!("{taken} of {cached} cached pages");
    Ok(())
}

/// Bytes of a disk.
fn size(name: &str) -> Result<u64> {
    let path = format!("/sys/class/block/{name}/size");
    let sectors = fs::read_to_string(&path)?;
    let sectors: Option<u64> = sectors.trim().parse().ok();
    sectors
        .and_then(|sectors| sectors.checked_mul(512))
        .ok_or_else(|| Error::other(format!("{path}: not a number")))
}

/// Runs of cached pages, as first and number: none, a quarter, half, three
/// quarters or all of them.
fn choose(pages: &[bool], random: &mut Random) -> Vec<(usize, usize)> {
    let quarters = random.below(5);
    let mut chosen = Vec::new();
    let mut at = 0;
    while at < pages.len() {
        if !pages[at] {
            at += 1;
            continue;
        }
        let most = 1 + random.below(8) as usize;
        let run = pages[at..].iter().take(most).take_while(|page| **page);
        let count = run.count();
        if random.below(4) < quarters {
            chosen.push((at, count));
        }
        at += count;
    }
    chosen
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn a_seed_chooses_the_same_cached_pages_each_time() {
        let pages: Vec<bool> = (0..1000).map(|n| n % 7 != 0).collect();
        let cached = pages.iter().filter(|page| **page).count();
        let mut counts = Vec::new();
        for seed in 0..64 {
            let chosen = choose(&pages, &mut Random::new(seed));
            assert_eq!(chosen, choose(&pages, &mut Random::new(seed)));
            for (first, count) in &chosen {
                assert!(pages[*first..first + count].iter().all(|page| *page));
            }
            counts.push(chosen.iter().map(|(_, count)| count).sum::<usize>());
        }
        assert!(counts.contains(&0) && counts.contains(&cached));
        assert!(counts.iter().any(|count| (1..cached).contains(count)));
    }
}
