//! Copying a directory tree, with everything a root file system depends on, and
//! giving it to other owners.
#![allow(
    unsafe_code,
    reason = "extended attributes and the clone ioctl have no wrapper in nix"
)]

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{getegid, geteuid};

use crate::idmap::IdMap;
use crate::wire::Owner;

/// Copies what is in `from` into the existing directory `to`. Does not follow
/// symbolic links and does not cross into other file systems mounted below.
///
/// Who may not give files away gets back whose they are to be: those of root
/// and of the caller are not listed.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<Vec<Owner>> {
    let top = fs::metadata(from)?;
    let mut copy = Copy {
        to,
        device: top.dev(),
        linked: HashMap::new(),
        gives: !ordinary_user(),
        owners: Vec::new(),
    };
    copy.children(from, to)?;
    copy.attributes(from, to, &top)?;
    Ok(copy.owners)
}

/// Whether the caller is not root. liblxc asks this very question.
pub(crate) fn ordinary_user() -> bool {
    !geteuid().is_root()
}

struct Copy<'a> {
    to: &'a Path,
    /// Btrfs subvolumes below have device numbers of their own; they are
    /// skipped like mounts, as a snapshot of the original would skip them.
    device: u64,
    /// Copies of files with several names, by inode.
    linked: HashMap<u64, PathBuf>,
    gives: bool,
    owners: Vec<Owner>,
}

impl Copy<'_> {
    fn children(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from).map_err(at(from))? {
            let entry = entry.map_err(at(from))?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            self.entry(&from, &to).map_err(at(&from))?;
        }
        Ok(())
    }

    fn entry(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let meta = fs::symlink_metadata(from)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            fs::create_dir(to)?;
            if meta.dev() == self.device {
                self.children(from, to)?;
            }
            return self.attributes(from, to, &meta);
        }
        if meta.nlink() > 1 {
            if let Some(first) = self.linked.get(&meta.ino()) {
                fs::hard_link(first, to)?;
                if !self.gives {
                    self.remember(to, &meta);
                }
                return Ok(());
            }
            self.linked.insert(meta.ino(), to.to_owned());
        }
        if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
        } else if kind.is_file() {
            content(from, to)?;
        } else {
            let node = if kind.is_fifo() {
                SFlag::S_IFIFO
            } else if kind.is_block_device() {
                SFlag::S_IFBLK
            } else if kind.is_char_device() {
                SFlag::S_IFCHR
            } else {
                SFlag::S_IFSOCK
            };
            mknod(to, node, Mode::S_IRUSR, meta.rdev())?;
        }
        self.attributes(from, to, &meta)
    }

    /// Whose a file is to be that the caller cannot give away. The caller's own
    /// are root's inside, as all of root's.
    fn remember(&mut self, to: &Path, meta: &Metadata) {
        let unless = |id, own| if id == own { 0 } else { id };
        let user = unless(meta.uid(), geteuid().as_raw());
        let group = unless(meta.gid(), getegid().as_raw());
        if (user, group) != (0, 0) {
            let below = to.strip_prefix(self.to).unwrap_or(to);
            self.owners.push(Owner {
                path: below.as_os_str().as_bytes().to_vec(),
                user,
                group,
            });
        }
    }

    /// Owner, mode, extended attributes and times, in the order in which they do
    /// not undo each other.
    fn attributes(&mut self, from: &Path, to: &Path, meta: &Metadata) -> io::Result<()> {
        if self.gives {
            lchown(to, Some(meta.uid()), Some(meta.gid()))?;
        } else {
            self.remember(to, meta);
        }
        extended(from, to)?;
        if !meta.file_type().is_symlink() {
            fs::set_permissions(to, meta.permissions())?;
        }
        let time = |seconds, nanos| TimeSpec::new(seconds, nanos);
        let (read, written) = (
            time(meta.atime(), meta.atime_nsec()),
            time(meta.mtime(), meta.mtime_nsec()),
        );
        utimensat(
            nix::fcntl::AT_FDCWD,
            to,
            &read,
            &written,
            UtimensatFlags::NoFollowSymlink,
        )?;
        Ok(())
    }
}

fn content(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    // SAFETY: FICLONE takes a descriptor by value and touches no memory of ours.
    let shared = unsafe { libc::ioctl(target.as_raw_fd(), libc::FICLONE, source.as_raw_fd()) };
    if shared != 0 {
        io::copy(&mut source, &mut target)?;
    }
    Ok(())
}

fn extended(from: &Path, to: &Path) -> io::Result<()> {
    for (name, value) in attributes_of(from)? {
        set_attribute(to, &name, &value)?;
    }
    Ok(())
}

fn attributes_of(path: &Path) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let path = c_path(path)?;
    let names = match grow(|buffer| {
        // SAFETY: a C string, and a buffer that is as long as is said.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    }) {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = names.split_inclusive(|byte| *byte == 0);
    names
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .map(|name| {
            let value = grow(|buffer| {
                let data = buffer.as_mut_ptr().cast();
                // SAFETY: two C strings, and a buffer that is as long as is said.
                unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), data, buffer.len()) }
            })?;
            Ok((name.to_owned(), value))
        })
        .collect()
}

fn set_attribute(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = c_path(path)?;
    let data = value.as_ptr().cast();
    // SAFETY: two C strings, and data that is as long as is said.
    let set = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), data, value.len(), 0) };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives all files of a tree, subvolumes inside included, to those who stand
/// for their owners outside: owners, groups, access lists and capabilities.
pub(crate) fn shift(root: &Path, map: &IdMap) -> io::Result<()> {
    let mut seen = HashSet::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).map_err(at(&path))?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path).map_err(at(&path))? {
                todo.push(entry.map_err(at(&path))?.path());
            }
        }
        // A file of several names is shifted once.
        if meta.nlink() > 1 && !meta.is_dir() && !seen.insert((meta.dev(), meta.ino())) {
            continue;
        }
        shift_one(&path, &meta, map).map_err(at(&path))?;
    }
    Ok(())
}

fn shift_one(path: &Path, meta: &Metadata, map: &IdMap) -> io::Result<()> {
    let unmapped = |id| io::Error::other(format!("lxc.idmap has nobody for its owner {id}"));
    let owner = map.user(meta.uid()).ok_or_else(|| unmapped(meta.uid()))?;
    let group = map.group(meta.gid()).ok_or_else(|| unmapped(meta.gid()))?;
    let attributes = attributes_of(path)?;
    // This takes set-user-id bits and capabilities away.
    lchown(path, Some(owner), Some(group))?;
    if !meta.file_type().is_symlink() {
        fs::set_permissions(path, meta.permissions())?;
    }
    for (name, mut value) in attributes {
        match name.to_bytes() {
            b"security.capability" => shift_capability(&mut value, map)?,
            b"system.posix_acl_access" | b"system.posix_acl_default" => {
                shift_access_list(&mut value, map)?;
            }
            _ => continue,
        }
        set_attribute(path, &name, &value)?;
    }
    Ok(())
}

/// `struct vfs_ns_cap_data`, linux/capability.h: capabilities that hold in the
/// namespace whose root is the user at the end.
fn shift_capability(value: &mut Vec<u8>, map: &IdMap) -> io::Result<()> {
    const REVISION: u32 = 0xff00_0000;
    const OF_ALL: u32 = 0x0200_0000;
    const OF_NAMESPACE: u32 = 0x0300_0000;
    let head = value.first_chunk().copied().map(u32::from_le_bytes);
    let Some(head) = head.filter(|head| head & REVISION == OF_ALL && value.len() == 20) else {
        return Err(io::Error::other("its capabilities are of another revision"));
    };
    let root = map.user(0).ok_or(io::ErrorKind::InvalidInput)?;
    let head = head & !REVISION | OF_NAMESPACE;
    value.splice(..4, head.to_le_bytes());
    value.extend(root.to_le_bytes());
    Ok(())
}

/// `struct posix_acl_xattr_entry`, linux/posix_acl_xattr.h, after four bytes of
/// version: tag, rights, and the id of a named user or group.
fn shift_access_list(value: &mut [u8], map: &IdMap) -> io::Result<()> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    let (entries, _) = value.get_mut(4..).unwrap_or_default().as_chunks_mut::<8>();
    for [tag0, tag1, _, _, id @ ..] in entries {
        let inside = u32::from_le_bytes(*id);
        let outside = match u16::from_le_bytes([*tag0, *tag1]) {
            USER => map.user(inside),
            GROUP => map.group(inside),
            _ => continue,
        };
        let outside = outside.ok_or_else(|| {
            io::Error::other(format!(
                "lxc.idmap has nobody for {inside} in its access list"
            ))
        })?;
        *id = outside.to_le_bytes();
    }
    Ok(())
}

/// Calls with a larger buffer until the answer fits.
fn grow(mut call: impl FnMut(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match usize::try_from(call(&mut buffer)) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ERANGE) || buffer.len() > 1 << 20 {
                    return Err(error);
                }
                buffer.resize(buffer.len() * 4, 0);
            }
        }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Says which file it was.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
