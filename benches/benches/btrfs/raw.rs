#![allow(unsafe_code, reason = "the rival is the bare request")]
//! The requests of the kernel, with nothing around them.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

const READ: u64 = 2 << 30;
const WRITE: u64 = 1 << 30;

const fn number(direction: u64, number: u64, size: u64) -> u64 {
    direction | size << 16 | 0x94 << 8 | number
}

const TREE_SEARCH_V2: u64 = number(READ | WRITE, 17, 112);
const INO_LOOKUP: u64 = number(READ | WRITE, 18, 4096);
const SNAP_CREATE_V2: u64 = number(WRITE, 23, 4096);
const SUBVOL_CREATE_V2: u64 = number(WRITE, 24, 4096);
const GET_SUBVOL_INFO: u64 = number(READ, 60, 504);
const GET_SUBVOL_ROOTREF: u64 = number(READ | WRITE, 61, 4096);
const INO_LOOKUP_USER: u64 = number(READ | WRITE, 62, 4096);

fn ioctl(fd: BorrowedFd<'_>, number: u64, argument: &mut [u64]) -> nix::Result<()> {
    let size = usize::try_from(number >> 16 & 0x3fff).unwrap_or(usize::MAX);
    assert!(size <= size_of_val(argument), "the request's structure");
    // SAFETY: the structure that the number encodes fits into `argument`, as
    // just seen; TREE_SEARCH_V2 says itself how long its tail is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number, argument.as_mut_ptr()) };
    Errno::result(result).map(drop)
}

fn bytes(words: &[u64]) -> &[u8] {
    // SAFETY: initialised memory, eight bytes a word, and u8 has no alignment.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn half(bytes: &[u8], at: usize) -> usize {
    let mut half = [0; 4];
    half.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(half) as usize
}

fn name(argument: &mut [u64], at: usize, name: &str) {
    for (word, part) in argument[at / 8..].iter_mut().zip(name.as_bytes().chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..part.len()].copy_from_slice(part);
        *word = u64::from_le_bytes(bytes);
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

pub(crate) fn create(parent: BorrowedFd<'_>, as_name: &str) -> nix::Result<()> {
    let mut argument = [0; 512];
    name(&mut argument, 56, as_name);
    ioctl(parent, SUBVOL_CREATE_V2, &mut argument)
}

pub(crate) fn snapshot(
    parent: BorrowedFd<'_>,
    source: BorrowedFd<'_>,
    as_name: &str,
) -> nix::Result<()> {
    let mut argument = [0; 512];
    argument[0] = source.as_raw_fd() as u64;
    argument[2] = 2; // BTRFS_SUBVOL_RDONLY
    name(&mut argument, 56, as_name);
    ioctl(parent, SNAP_CREATE_V2, &mut argument)
}

/// The id in the answer.
pub(crate) fn info(fd: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut argument = [0; 63];
    ioctl(fd, GET_SUBVOL_INFO, &mut argument)?;
    Ok(argument[0])
}

/// Calls `each` with type, id, offset and content of the items of subvolumes: one
/// sweep over the tree of roots, past the forward references, of which a parent
/// has as many as children.
pub(crate) fn sweep(
    fs: BorrowedFd<'_>,
    mut each: impl FnMut(u64, u64, u64, &[u8]),
) -> nix::Result<()> {
    const HEAD: usize = 14;
    let mut buffer = vec![0; HEAD + (64 << 10) / 8];
    let (mut objectid, mut kind, mut offset) = (256, 132, 0);
    loop {
        buffer[..HEAD].copy_from_slice(&[
            1,
            objectid,
            0u64.wrapping_sub(256),
            offset,
            u64::MAX,
            0,
            u64::MAX,
            kind | 144 << 32,
            u32::MAX.into(),
            0,
            0,
            0,
            0,
            64 << 10,
        ]);
        ioctl(fs, TREE_SEARCH_V2, &mut buffer)?;
        let items = buffer[8] & 0xffff_ffff;
        if items == 0 {
            return Ok(());
        }
        let all = bytes(&buffer[HEAD..]);
        let mut at = 0;
        for _ in 0..items {
            (objectid, offset) = (word(all, at + 8), word(all, at + 16));
            kind = half(all, at + 24) as u64;
            let length = half(all, at + 28);
            each(kind, objectid, offset, &all[at + 32..at + 32 + length]);
            at += 32 + length;
        }
        match kind > 144 {
            true => (objectid, kind, offset) = (objectid + 1, 132, 0),
            false => offset += 1,
        }
    }
}

/// Ids and paths: the sweep, and one lookup for each directory that holds
/// subvolumes.
pub(crate) fn list(fs: BorrowedFd<'_>) -> nix::Result<Vec<(u64, Vec<u8>)>> {
    let mut found = Vec::new();
    sweep(fs, |kind, id, parent, item| {
        if kind == 144 {
            let (directory, length) = (word(item, 0), half(item, 16) & 0xffff);
            found.push((id, parent, directory, item[18..18 + length].to_vec()));
        }
    })?;
    // The ids of parents are smaller here.
    let mut paths: HashMap<u64, Vec<u8>> = HashMap::from([(5, Vec::new())]);
    let mut directories = HashMap::new();
    let mut listed = Vec::with_capacity(found.len());
    for (id, parent, directory, name) in found {
        let prefix = match directories.get(&(parent, directory)) {
            Some(prefix) => prefix,
            None => {
                let mut argument = [0; 512];
                (argument[0], argument[1]) = (parent, directory);
                if directory != 256 {
                    ioctl(fs, INO_LOOKUP, &mut argument)?;
                }
                let mut prefix = paths.get(&parent).ok_or(Errno::ENOENT)?.clone();
                if !prefix.is_empty() {
                    prefix.push(b'/');
                }
                prefix.extend(until_nul(&bytes(&argument)[16..]));
                directories.entry((parent, directory)).or_insert(prefix)
            }
        };
        let path = [prefix, &name[..]].concat();
        paths.insert(id, path.clone());
        listed.push((id, path));
    }
    Ok(listed)
}

/// Ids and paths without a search: what is nested, its name, its state, and
/// what is nested in that.
pub(crate) fn walk(
    fd: BorrowedFd<'_>,
    path: &[u8],
    found: &mut Vec<(u64, Vec<u8>)>,
) -> nix::Result<()> {
    let mut from = 0;
    loop {
        let mut rows = vec![0; 512];
        rows[0] = from;
        let more = match ioctl(fd, GET_SUBVOL_ROOTREF, &mut rows) {
            Err(Errno::EOVERFLOW) => true,
            other => other.map(|()| false)?,
        };
        let count = bytes(&rows)[4088].into();
        for row in rows[1..].chunks_exact(2).take(count) {
            let (id, directory) = (row[0], row[1]);
            let mut argument = [0; 512];
            (argument[0], argument[1]) = (directory, id);
            ioctl(fd, INO_LOOKUP_USER, &mut argument)?;
            let answer = bytes(&argument);
            let below = [until_nul(&answer[272..]), until_nul(&answer[16..272])].concat();
            let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let child: OwnedFd = openat(fd, &below[..], flags, Mode::empty())?;
            info(child.as_fd())?;
            let path = match path {
                [] => below,
                _ => [path, b"/", &below].concat(),
            };
            found.push((id, path.clone()));
            walk(child.as_fd(), &path, found)?;
            from = id + 1;
        }
        if !more {
            return Ok(());
        }
    }
}
