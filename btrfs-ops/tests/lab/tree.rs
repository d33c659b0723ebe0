//! Random trees from a seed, and what is in a tree, for comparing two.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, copy_file_range, fallocate, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Numbers from a seed: the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = self.below(from.len() as u64);
        from.get(usize::try_from(at).unwrap())
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        // Compressible in part, so that compressed extents are there.
        let (seed, step) = (self.next(), 1 + self.below(40));
        (0..count)
            .map(|i| ((i / step).wrapping_mul(seed | 1) >> 16) as u8)
            .collect()
    }
}

/// A tree that is being changed at random.
pub(crate) struct Tree {
    root: PathBuf,
    random: Random,
    names: u64,
}

impl Tree {
    pub(crate) fn new(root: &Path, seed: u64) -> Self {
        Self {
            root: root.to_owned(),
            random: Random::new(seed),
            names: 0,
        }
    }

    /// All that is there, but for the root: directories, files, all.
    fn entries(&self) -> (Vec<PathBuf>, Vec<PathBuf>, Vec<PathBuf>) {
        let (mut directories, mut files, mut all) = (vec![self.root.clone()], vec![], vec![]);
        let mut at = 0;
        while let Some(directory) = directories.get(at).cloned() {
            at += 1;
            let mut names: Vec<_> = fs::read_dir(&directory)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            names.sort();
            for path in names {
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                if kind.is_dir() {
                    directories.push(path.clone());
                } else if kind.is_file() {
                    files.push(path.clone());
                }
                all.push(path);
            }
        }
        (directories, files, all)
    }

    fn name(&mut self) -> OsString {
        self.names += 1;
        let mut name = format!("n{}-{}", self.names, self.random.below(1000)).into_bytes();
        match self.random.below(8) {
            0 => name.resize(255, b'x'),
            1 => name.extend(b"\xff\xfe\x80"),
            2 => name.extend(b" \n\t'\"\\$"),
            3 => name.extend("\u{e9}\u{4e2d}".as_bytes()),
            _ => {}
        }
        OsString::from_vec(name)
    }

    /// One random change; those that are not possible just now do nothing.
    fn change(&mut self) {
        let (directories, files, all) = self.entries();
        let directory = self.random.pick(&directories).unwrap().clone();
        // Some way below the limit of a path.
        if directory.as_os_str().len() > 3000 {
            return;
        }
        let name = self.name();
        let new = directory.join(name);
        let file = self.random.pick(&files).cloned();
        let any = self.random.pick(&all).cloned();
        match (self.random.below(24), file, any) {
            (0..=2, _, _) => {
                let size = self.random.below(200_000);
                fs::write(&new, self.random.bytes(size)).unwrap();
            }
            (3, _, _) => fs::write(&new, self.random.bytes(100)).unwrap(),
            (4 | 5, _, _) => fs::create_dir(&new).unwrap(),
            (6, Some(file), _) => {
                let mut file = File::options().write(true).open(file).unwrap();
                file.seek(SeekFrom::Start(self.random.below(1 << 22)))
                    .unwrap();
                let size = 1 + self.random.below(50_000);
                file.write_all(&self.random.bytes(size)).unwrap();
            }
            (7, Some(file), _) => {
                let file = File::options().write(true).open(file).unwrap();
                file.set_len(self.random.below(1 << 19)).unwrap();
            }
            (8, Some(file), _) => {
                let file = File::options().write(true).open(file).unwrap();
                let mode =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                let at = i64::try_from(self.random.below(1 << 16)).unwrap();
                fallocate(&file, mode, at & !4095, 8192).unwrap();
            }
            // Shares all extents, or some.
            (9, Some(file), _) => {
                fs::copy(file, &new).unwrap();
            }
            (10, Some(file), _) => {
                let from = File::open(file).unwrap();
                let to = File::create_new(&new).unwrap();
                to.set_len(4096).unwrap();
                let (mut out, mut at) = (65536, 0);
                let _ = copy_file_range(&from, Some(&mut at), &to, Some(&mut out), 65536);
            }
            (11, Some(file), _) => fs::hard_link(file, &new).unwrap(),
            (12, _, Some(any)) => symlink(any.file_name().unwrap(), &new).unwrap(),
            (13, _, _) => {
                let target = vec![b'l'; 1 + self.random.below(1000) as usize];
                symlink(OsStr::from_bytes(&target), &new).unwrap();
            }
            (14, _, _) => {
                let (kind, device) = match self.random.below(4) {
                    0 => (SFlag::S_IFCHR, makedev(1, 3)),
                    1 => (SFlag::S_IFBLK, makedev(259, 70_000)),
                    2 => (SFlag::S_IFIFO, 0),
                    _ => (SFlag::S_IFSOCK, 0),
                };
                mknod(&new, kind, Mode::from_bits_truncate(0o640), device).unwrap();
            }
            // Renames, over others and of directories with all in them.
            (15 | 16, _, Some(any)) if !new.starts_with(&any) => {
                let to = match self.random.pick(&all).cloned() {
                    Some(other) if self.random.below(3) == 0 && !other.starts_with(&any) => other,
                    _ => new,
                };
                let _ = fs::rename(any, to);
            }
            (17, _, Some(any)) => {
                if let Some(other) = self.random.pick(&all).cloned() {
                    let flags = RenameFlags::RENAME_EXCHANGE;
                    let _ = renameat2(AT_FDCWD, &any, AT_FDCWD, &other, flags);
                }
            }
            (18, _, Some(any)) => {
                let _ = fs::remove_file(&any).or_else(|_| fs::remove_dir(&any));
            }
            (19, _, Some(any)) => {
                let id = |random: &mut Random| Some(1 + random.below(70_000) as u32);
                lchown(any, id(&mut self.random), id(&mut self.random)).unwrap();
            }
            (20, _, Some(any)) if !fs::symlink_metadata(&any).unwrap().is_symlink() => {
                let mode = 0o400 | self.random.below(0o10000) as u32;
                fs::set_permissions(&any, fs::Permissions::from_mode(mode)).unwrap();
            }
            (21, Some(file), Some(any)) => {
                let value = self.random.bytes(1 + self.random.0 % 900);
                match self.random.below(4) {
                    0 => {
                        // cap_net_raw+ep, and an owner who is not root.
                        chown(&file, Some(7), Some(8)).unwrap();
                        let mut capability = 0x0200_0001u32.to_le_bytes().to_vec();
                        capability.extend([0, 0x20, 0, 0]);
                        capability.extend([0; 12]);
                        xattr::set(&file, "security.capability", &capability).unwrap();
                    }
                    1 => xattr::set(&any, "trusted.thing", &value).unwrap(),
                    2 => {
                        if let Some(name) = xattr::list(&any).unwrap().next() {
                            let _ = xattr::remove(&any, name);
                        }
                    }
                    _ => xattr::set(&file, OsStr::from_bytes(b"user.\xff odd"), &value).unwrap(),
                }
            }
            (22, Some(file), _) => {
                xattr::set(file, "system.posix_acl_access", &acl(self.random.below(8))).unwrap();
                if self.random.below(2) == 0 {
                    let value = acl(self.random.below(8));
                    xattr::set(directory, "system.posix_acl_default", &value).unwrap();
                }
            }
            // Deep.
            (23, _, _) => {
                let mut path = new;
                for _ in 0..self.random.below(12) {
                    path = path.join("d");
                }
                if path.as_os_str().len() < 3000 {
                    fs::create_dir_all(&path).unwrap();
                    fs::write(path.join("deep"), "deep").unwrap();
                }
            }
            _ => {}
        }
    }

    pub(crate) fn grow(&mut self, changes: usize) {
        for _ in 0..changes {
            self.change();
        }
    }
}

/// `user::rw-,user:1001:PERM,group::r--,mask::rwx,other::r--`, as the kernel has it.
fn acl(permissions: u64) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (1u16, 6u16, u32::MAX),
        (2, permissions as u16, 1001),
        (4, 4, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 4, u32::MAX),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Everything about a tree that a stream carries, a line for each path.
pub(crate) fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut first_names = HashMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let path = root.join(&relative);
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let shown = relative.as_os_str().as_bytes().escape_ascii().to_string();
        let mut line = format!(
            "{:o} {}:{} mtime {}.{} rdev {:x}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.rdev(),
        );
        let mut names: Vec<_> = xattr::list(&path).unwrap().collect();
        names.sort();
        for name in names {
            let value = xattr::get(&path, &name).unwrap().unwrap_or_default();
            let value = value.escape_ascii().to_string().replace(' ', "\\x20");
            line += &format!(" {}={}", name.as_bytes().escape_ascii(), value);
        }
        if kind.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&path)
                .unwrap()
                .map(|entry| relative.join(entry.unwrap().file_name()))
                .collect();
            names.sort();
            names.reverse();
            open.extend(names);
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            line += &format!(" -> {}", target.as_os_str().as_bytes().escape_ascii());
        } else {
            let first = first_names
                .entry((metadata.dev(), metadata.ino()))
                .or_insert_with(|| shown.clone());
            line += &format!(" links {} as {first}", metadata.nlink());
            if kind.is_file() {
                let mut hasher = DefaultHasher::new();
                let mut content = Vec::new();
                File::open(&path)
                    .unwrap()
                    .read_to_end(&mut content)
                    .unwrap();
                content.hash(&mut hasher);
                line += &format!(" size {} content {:x}", content.len(), hasher.finish());
            } else {
                assert!(
                    kind.is_fifo()
                        || kind.is_socket()
                        || kind.is_char_device()
                        || kind.is_block_device()
                );
            }
        }
        lines.insert(shown, line);
    }
    lines
}

/// Fails with the first lines that differ.
pub(crate) fn assert_same(left: &Path, right: &Path) {
    compare(left, describe(left), right, describe(right));
}

/// The same for a result of `btrfs receive`, which has two defects: it lets new
/// inodes keep the ACL that they inherit from the directory they are made in,
/// and it leaves the root directory with the time of the last temporary name.
pub(crate) fn assert_same_as_theirs(original: &Path, theirs: &Path) {
    let without = |path: &Path| -> BTreeMap<String, String> {
        let mut lines = describe(path);
        for (path, line) in &mut lines {
            let words = line.split(' ');
            let acl = |word: &&str| !word.starts_with("system.posix_acl_");
            let skip = if path.is_empty() { 4 } else { 0 };
            *line = words.filter(acl).skip(skip).collect::<Vec<_>>().join(" ");
        }
        lines
    };
    compare(original, without(original), theirs, without(theirs));
}

fn compare(
    left: &Path,
    ours: BTreeMap<String, String>,
    right: &Path,
    theirs: BTreeMap<String, String>,
) {
    let mut differences = Vec::new();
    for (path, line) in &ours {
        match theirs.get(path) {
            Some(other) if other == line => {}
            other => differences.push(format!(
                "{path}\n  {}: {line}\n  {}: {}",
                left.display(),
                right.display(),
                other.map_or("(nothing)", String::as_str)
            )),
        }
    }
    for path in theirs.keys().filter(|path| !ours.contains_key(*path)) {
        differences.push(format!("{path}: in {} only", right.display()));
    }
    differences.truncate(8);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
