//! All subvolumes of a file system, with paths.
//!
//! With `CAP_SYS_ADMIN` one sweep over the tree of tree roots finds them all,
//! and a lookup for each directory that holds some gives the paths. Without it
//! each subvolume is asked for its children and opened. Which way is taken is
//! decided by trying the first: user ids say nothing inside a user namespace.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::error::{Error, ErrorKind, Request, Result, id_target};
use crate::search::{self, Item, Key};
use crate::subvolume::{self, DIRECTORY, SubvolumeInfo, What, target, what_is};
use crate::types::{SubvolId, Uuid};
use crate::uapi::{self, RootRef, SearchKey};

/// Which subvolumes to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those nested, at any depth, in the given subvolume; paths are relative
    /// to it. Works without privileges.
    Below,
    /// All of the file system; paths are relative to the top level, which need
    /// not be mounted.
    Filesystem,
}

/// How a listing was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Method {
    /// By searching the tree of roots: complete.
    TreeSearch,
    /// By walking from subvolume to subvolume: what the caller may read.
    Walk,
}

/// One subvolume of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Listed {
    /// Its path, as bytes, relative to where the [`Scope`] says.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub path: PathBuf,
    /// Its state.
    pub info: SubvolumeInfo,
}

/// A subvolume that exists but could not be listed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unreachable {
    /// Its id.
    pub id: SubvolId,
    /// The subvolume it is nested in.
    pub parent: SubvolId,
    /// Its path, if that could be found.
    pub path: Option<PathBuf>,
    /// Why it is here.
    pub error: Error,
}

/// The result of [`list`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Listing {
    /// Sorted by id, which is the order of creation. The top level is not in it.
    pub subvolumes: Vec<Listed>,
    /// What could not be listed. What is nested in those is missing as well.
    pub unreachable: Vec<Unreachable>,
    /// Deleted and not cleaned yet; `None` if the method does not show it.
    pub pending_deletion: Option<Vec<SubvolId>>,
    /// How it was made.
    pub method: Method,
}

/// Lists subvolumes. `fs` is the root directory of a subvolume for
/// [`Scope::Below`], and anything on the file system for
/// [`Scope::Filesystem`].
///
/// # Errors
///
/// [`ErrorKind::NotBtrfs`]; [`ErrorKind::NotSubvolume`] for [`Scope::Below`] on
/// something else; [`ErrorKind::Permission`] for [`Scope::Filesystem`] without
/// privileges, unless `fs` is the root directory of the top level. A subvolume
/// that may not be read is not an error but in [`Listing::unreachable`].
///
/// # Privileges
///
/// `CAP_SYS_ADMIN` for the faster and complete way; without it, read and search
/// permission on the way to each subvolume.
///
/// # Kernel support
///
/// Linux 3.16 with privileges, 5.6 without.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = std::fs::File::open("/srv/store1")?;
/// for subvolume in btrfs_ops::list(&store, btrfs_ops::Scope::Below)?.subvolumes {
///     println!("{} {}", subvolume.info.id, subvolume.path.display());
/// }
/// # Ok(())
/// # }
/// ```
#[doc(
    alias = "BTRFS_IOC_TREE_SEARCH_V2",
    alias = "BTRFS_IOC_GET_SUBVOL_ROOTREF"
)]
pub fn list(fs: impl AsFd, scope: Scope) -> Result<Listing> {
    let fs = fs.as_fd();
    if scope == Scope::Below {
        require_root(fs)?;
    }
    match sweep(fs) {
        Ok(roots) => {
            let top = match scope {
                Scope::Below => subvolume::containing(fs)?,
                Scope::Filesystem => SubvolId::TOP_LEVEL,
            };
            Ok(resolve(fs, roots, top))
        }
        Err(error) if error.kind() == ErrorKind::Permission => match scope {
            Scope::Below => walk(fs),
            Scope::Filesystem
                if what_is(fs) == Ok(What::Subvolume)
                    && subvolume::containing(fs)? == SubvolId::TOP_LEVEL =>
            {
                walk(fs)
            }
            Scope::Filesystem => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// The unprivileged way, for comparison and for tests as root.
#[doc(hidden)]
pub fn list_by_walking(fs: impl AsFd) -> Result<Listing> {
    require_root(fs.as_fd())?;
    walk(fs.as_fd())
}

fn require_root(fs: BorrowedFd<'_>) -> Result<()> {
    let op = Request::List.op();
    let (kind, text) = match what_is(fs).map_err(|errno| Error::os(op, target(fs), errno))? {
        What::Subvolume => return Ok(()),
        What::Inside => (
            ErrorKind::NotSubvolume,
            "not the root directory of a subvolume",
        ),
        What::OtherFileSystem => (ErrorKind::NotBtrfs, "not on a Btrfs file system"),
    };
    Err(Error::message(kind, op, target(fs), text))
}

// ---- by tree search -------------------------------------------------------

/// Calls `each` for the items of the tree of roots from `key` to the last of
/// `max_objectid`, of any type.
fn search_roots(
    fs: BorrowedFd<'_>,
    key: Key,
    max: Key,
    each: &mut dyn FnMut(Item<'_>) -> Option<()>,
) -> Result<()> {
    let step = after_in_roots;
    search_by(
        Request::List,
        fs,
        uapi::ROOT_TREE_OBJECTID,
        key,
        max,
        step,
        each,
    )
}

/// Where the next item of interest can be: of others there may be as many as
/// the subvolume has others nested in it.
fn after_in_roots(last: Key) -> Option<Key> {
    let wanted = uapi::ROOT_ITEM_KEY..=uapi::ROOT_BACKREF_KEY;
    if wanted.contains(&last.kind) || last.objectid == uapi::ORPHAN_OBJECTID {
        return last.next();
    }
    let objectid = match last.kind < uapi::ROOT_ITEM_KEY {
        true => last.objectid,
        false => last.objectid.checked_add(1)?,
    };
    Some(Key {
        objectid,
        kind: uapi::ROOT_ITEM_KEY,
        offset: 0,
    })
}

/// The same for all items of any tree.
pub(crate) fn search_tree(
    request: Request,
    fs: BorrowedFd<'_>,
    tree: u64,
    key: Key,
    max: Key,
    each: &mut dyn FnMut(Item<'_>) -> Option<()>,
) -> Result<()> {
    search_by(request, fs, tree, key, max, Key::next, each)
}

fn search_by(
    request: Request,
    fs: BorrowedFd<'_>,
    tree: u64,
    mut key: Key,
    max: Key,
    step: fn(Key) -> Option<Key>,
    each: &mut dyn FnMut(Item<'_>) -> Option<()>,
) -> Result<()> {
    let malformed = || {
        let text = format!("an item of tree {tree} is not what it should be");
        Error::message(ErrorKind::Malformed, request.op(), target(fs), text)
    };
    let (mut buffer, mut room) = (Vec::new(), 4 << 10);
    loop {
        let mut search = SearchKey {
            tree_id: tree,
            max_objectid: max.objectid,
            max_type: max.kind,
            max_offset: max.offset,
            max_transid: u64::MAX,
            nr_items: u32::MAX,
            ..SearchKey::default()
        };
        key.start(&mut search);
        // Few items are what is mostly asked for, and of what is stepped over
        // little shall come along.
        uapi::tree_search(fs, &mut search, &mut buffer, room)
            .map_err(|errno| Error::ioctl(request, target(fs), fs, errno))?;
        if search.nr_items == 0 {
            return Ok(());
        }
        let mut last = key;
        for item in search::items(uapi::search_items(&buffer), search.nr_items) {
            let item = item.ok_or_else(malformed)?;
            last = item.key;
            each(item).ok_or_else(malformed)?;
        }
        match step(last) {
            Some(next) if next <= max => key = next,
            _ => return Ok(()),
        }
        room = (room * 2).min(64 << 10);
    }
}

/// What one sweep over the tree of roots finds.
struct Roots {
    /// By id, without paths.
    live: Vec<Listed>,
    siblings: Vec<Siblings>,
    pending: Vec<SubvolId>,
}

/// Some that follow one another in the listing and are in the same directory.
/// They compare by where that is.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Siblings {
    parent: SubvolId,
    dir_id: u64,
    first: usize,
    end: usize,
}

fn sweep(fs: BorrowedFd<'_>) -> Result<Roots> {
    let first = Key {
        objectid: uapi::FIRST_FREE_OBJECTID,
        kind: uapi::ROOT_ITEM_KEY,
        offset: 0,
    };
    let last = Key {
        objectid: uapi::LAST_FREE_OBJECTID,
        kind: uapi::ROOT_BACKREF_KEY,
        offset: u64::MAX,
    };
    let mut live = Vec::new();
    let mut siblings: Vec<Siblings> = Vec::new();
    // A subvolume's item comes right before its back reference. Bounds compare
    // as tuples, so items of other types come along: the inodes of the old free
    // space cache, and forward references.
    let mut unplaced = None;
    search_roots(fs, first, last, &mut |item| {
        let id = SubvolId::from_kernel(item.key.objectid);
        match item.key.kind {
            uapi::ROOT_ITEM_KEY => {
                if unplaced.replace(id).is_some() {
                    live.pop();
                }
                // To double it, as it does by itself, copies three times as much.
                if live.len() == live.capacity() {
                    live.reserve(3 * live.len());
                }
                live.push(Listed {
                    path: PathBuf::new(),
                    info: SubvolumeInfo::blank(id),
                });
                if search::root_item(item.data, &mut live.last_mut()?.info)? == 0 {
                    unplaced = None;
                    live.pop();
                }
            }
            uapi::ROOT_BACKREF_KEY if unplaced.take_if(|of| *of == id).is_some() => {
                let end = live.len();
                let info = &mut live.last_mut()?.info;
                let (parent, dir_id) = search::back_ref(item.key, item.data, info)?;
                match siblings.last_mut() {
                    Some(last) if (last.parent, last.dir_id) == (parent, dir_id) => {
                        last.end = end;
                    }
                    _ => siblings.push(Siblings {
                        parent,
                        dir_id,
                        first: end - 1,
                        end,
                    }),
                }
            }
            _ => {}
        }
        Some(())
    })?;
    if unplaced.is_some() {
        live.pop();
    }
    let orphan = |offset| Key {
        objectid: uapi::ORPHAN_OBJECTID,
        kind: uapi::ORPHAN_ITEM_KEY,
        offset,
    };
    let mut pending = Vec::new();
    search_roots(fs, orphan(0), orphan(u64::MAX), &mut |item| {
        pending.push(SubvolId::from_kernel(item.key.offset));
        Some(())
    })?;
    Ok(Roots {
        live,
        siblings,
        pending,
    })
}

/// The path of a directory inside the tree that is at `prefix`. Both are empty,
/// or end in a slash.
fn directory(
    fs: BorrowedFd<'_>,
    tree: SubvolId,
    dir: u64,
    prefix: &[u8],
) -> Result<Vec<u8>, Errno> {
    if dir == uapi::FIRST_FREE_OBJECTID {
        return Ok(prefix.to_vec());
    }
    Ok([prefix, &uapi::ino_lookup(fs, tree.get(), dir)?].concat())
}

fn entry(directory: &[u8], name: &OsStr) -> PathBuf {
    let path = [directory, name.as_bytes()].concat();
    PathBuf::from(OsString::from_vec(path))
}

/// Gives every subvolume below `top` its path, and drops the others.
fn resolve(fs: BorrowedFd<'_>, found: Roots, top: SubvolId) -> Listing {
    let Roots {
        mut live,
        mut siblings,
        pending,
    } = found;
    // Each directory is asked for once.
    siblings.sort_unstable();
    let mut children: Vec<_> = siblings.chunk_by(|a, b| a.parent == b.parent).collect();
    let parents: Vec<_> = children.iter().map(|group| group[0].parent).collect();
    let (mut unreachable, mut reached) = (Vec::new(), 0);
    // From the top down: a parent's path is known before it is needed, and a
    // loop in a broken tree is not reached at all, or gone through once.
    let mut open = vec![(top, Vec::new())];
    while let Some((parent, prefix)) = open.pop() {
        let Ok(at) = parents.binary_search(&parent) else {
            continue;
        };
        for group in std::mem::take(&mut children[at]).chunk_by(|a, b| a.dir_id == b.dir_id) {
            let members = group.iter().flat_map(|some| some.first..some.end);
            match directory(fs, parent, group[0].dir_id, &prefix) {
                Ok(directory) => {
                    for at in members {
                        reached += 1;
                        let Listed { path, info } = &mut live[at];
                        *path = entry(&directory, &info.name);
                        if parents.binary_search(&info.id).is_ok() {
                            let prefix = [path.as_os_str().as_bytes(), b"/"].concat();
                            open.push((info.id, prefix));
                        }
                    }
                }
                // Deleted since the sweep.
                Err(Errno::ENOENT) => {}
                Err(errno) => unreachable.extend(members.map(|at| {
                    let id = live[at].info.id;
                    let shown = format!("{} of {}", id_target(id), target(fs));
                    Unreachable {
                        id,
                        parent,
                        path: None,
                        error: Error::ioctl(Request::List, shown, fs, errno),
                    }
                })),
            }
        }
    }
    if reached < live.len() {
        live.retain(|listed| !listed.path.as_os_str().is_empty());
    }
    Listing {
        subvolumes: live,
        unreachable,
        pending_deletion: Some(pending),
        method: Method::TreeSearch,
    }
}

/// The state of one subvolume, and its references.
fn search_one(fs: BorrowedFd<'_>, id: SubvolId) -> Result<Option<(SubvolumeInfo, u32)>> {
    let key = |kind, offset| Key {
        objectid: id.get(),
        kind,
        offset,
    };
    let mut found = None;
    let (first, last) = (
        key(uapi::ROOT_ITEM_KEY, 0),
        key(uapi::ROOT_BACKREF_KEY, u64::MAX),
    );
    search_roots(fs, first, last, &mut |item| {
        match (item.key.kind, &mut found) {
            (uapi::ROOT_ITEM_KEY, _) => {
                let mut info = SubvolumeInfo::blank(id);
                let refs = search::root_item(item.data, &mut info)?;
                found = Some((info, refs));
            }
            (uapi::ROOT_BACKREF_KEY, Some((info, _))) => {
                search::back_ref(item.key, item.data, info)?;
            }
            _ => {}
        }
        Some(())
    })?;
    Ok(found)
}

/// Whether a subvolume is live (true), deleted and not cleaned yet (false), or
/// gone (`None`). Needs `CAP_SYS_ADMIN`.
pub(crate) fn is_live_or_pending(fs: BorrowedFd<'_>, id: SubvolId) -> Result<Option<bool>> {
    Ok(search_one(fs, id)?.map(|(_, refs)| refs > 0))
}

/// Live subvolumes whose own UUID, or whose received UUID, is this one. Needs
/// `CAP_SYS_ADMIN`.
pub(crate) fn by_uuid(
    fs: BorrowedFd<'_>,
    uuid: Uuid,
    received: bool,
) -> Result<Vec<SubvolumeInfo>> {
    let (low, high) = uuid.as_bytes().split_at(8);
    let word = |half: &[u8]| half.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let key = Key {
        objectid: word(low),
        kind: if received {
            uapi::UUID_KEY_RECEIVED_SUBVOL
        } else {
            uapi::UUID_KEY_SUBVOL
        },
        offset: word(high),
    };
    let mut ids = Vec::new();
    let request = Request::List;
    let tree = uapi::UUID_TREE_OBJECTID;
    search_tree(request, fs, tree, key, key, &mut |item| {
        let words = item.data.chunks_exact(8);
        ids.extend(words.filter_map(|id| Some(u64::from_le_bytes(id.try_into().ok()?))));
        Some(())
    })?;
    let mut found = Vec::new();
    for id in ids {
        // The tree may name some that are gone.
        if let Some((info, refs)) = search_one(fs, SubvolId::from_kernel(id))?
            && refs > 0
            && Some(uuid)
                == match received {
                    true => info.received_uuid,
                    false => info.uuid,
                }
        {
            found.push(info);
        }
    }
    Ok(found)
}

/// Opens the root directory of the subvolume `id`, wherever it is. Needs
/// `CAP_SYS_ADMIN` and `CAP_DAC_READ_SEARCH`.
pub(crate) fn open_root(fs: BorrowedFd<'_>, id: SubvolId) -> Result<OwnedFd> {
    let key = Key {
        objectid: uapi::FIRST_FREE_OBJECTID,
        kind: uapi::INODE_ITEM_KEY,
        offset: 0,
    };
    let wrap = |errno| {
        let shown = format!("{} of {}", id_target(id), target(fs));
        Error::ioctl(Request::Open, shown, fs, errno)
    };
    let mut generation = None;
    search_tree(Request::Open, fs, id.get(), key, key, &mut |item| {
        let bytes = item.data.get(..8)?.try_into().ok()?;
        generation = Some(u64::from_le_bytes(bytes));
        Some(())
    })
    .map_err(|error| match error.kind() {
        // Says which one.
        ErrorKind::NotFound => wrap(Errno::ENOENT),
        _ => error,
    })?;
    let generation = generation.ok_or_else(|| wrap(Errno::ENOENT))?;
    uapi::open_root_by_id(fs, id.get(), generation).map_err(wrap)
}

/// The path of a subvolume below the top level; `None` if there is none of this
/// id. Needs `CAP_SYS_ADMIN`.
pub(crate) fn path_of_id(fs: BorrowedFd<'_>, id: SubvolId) -> Result<Option<PathBuf>> {
    let wrap = |errno| {
        Error::ioctl(
            Request::List,
            format!("{} of {}", id_target(id), target(fs)),
            fs,
            errno,
        )
    };
    let mut names = Vec::new();
    let mut at = id;
    while at != SubvolId::TOP_LEVEL {
        let Some((info, _)) = search_one(fs, at)? else {
            return Ok(None);
        };
        let Some(parent) = info.parent else {
            return Ok(None);
        };
        let directory = match directory(fs, parent, info.dir_id, b"") {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(wrap(errno)),
        };
        names.push(entry(&directory, &info.name));
        at = parent;
        // Deeper than any path can be: a loop in a broken tree.
        if names.len() > 4096 {
            return Err(wrap(Errno::ELOOP));
        }
    }
    Ok(Some(names.iter().rev().collect()))
}

// ---- by walking -----------------------------------------------------------

/// A subvolume whose children are being listed.
struct Frame {
    fd: OwnedFd,
    id: SubvolId,
    path: PathBuf,
    /// Children of the last answer that are not done yet, last one first.
    rows: Vec<RootRef>,
    /// Where the next answer begins; `None` after the last one.
    next: Option<u64>,
}

impl Frame {
    fn new(fd: OwnedFd, id: SubvolId, path: PathBuf) -> Self {
        Self {
            fd,
            id,
            path,
            rows: Vec::new(),
            next: Some(0),
        }
    }

    fn next_child(&mut self) -> Result<Option<RootRef>, Errno> {
        while self.rows.is_empty() {
            let Some(from) = self.next else {
                return Ok(None);
            };
            let (mut rows, more) = uapi::subvol_rootref(self.fd.as_fd(), from)?;
            let last = rows.last().map(|row| row.treeid);
            self.next = if more {
                last.and_then(|id| id.checked_add(1))
            } else {
                None
            };
            rows.reverse();
            self.rows = rows;
        }
        Ok(self.rows.pop())
    }
}

/// Depth first, so that no more descriptors are open than subvolumes nest.
fn walk(fs: BorrowedFd<'_>) -> Result<Listing> {
    let request = Request::List;
    let fd = fs
        .try_clone_to_owned()
        .map_err(|error| Error::io(request.op(), target(fs), error))?;
    let mut frames = vec![Frame::new(fd, subvolume::containing(fs)?, PathBuf::new())];
    let mut subvolumes = Vec::new();
    let mut unreachable = Vec::new();
    while let Some(frame) = frames.last_mut() {
        let child = match frame.next_child() {
            Ok(Some(child)) => child,
            Ok(None) => {
                frames.pop();
                continue;
            }
            Err(errno) => {
                let fd = frame.fd.as_fd();
                return Err(Error::ioctl(request, target(fd), fd, errno));
            }
        };
        let id = SubvolId::from_kernel(child.treeid);
        match open_child(frame.fd.as_fd(), child) {
            Ok((relative, Ok((fd, info)))) => {
                let path = frame.path.join(relative);
                subvolumes.push(Listed {
                    path: path.clone(),
                    info,
                });
                frames.push(Frame::new(fd, id, path));
            }
            Ok((relative, Err(error))) => {
                let (path, parent) = (Some(frame.path.join(relative)), frame.id);
                unreachable.push(Unreachable {
                    id,
                    parent,
                    path,
                    error,
                });
            }
            // Deleted since it was listed.
            Err(Errno::ENOENT) => {}
            Err(errno) => {
                let fd = frame.fd.as_fd();
                let shown = format!("{} below {}", id_target(id), target(fd));
                let error = Error::ioctl(request, shown, fd, errno);
                unreachable.push(Unreachable {
                    id,
                    parent: frame.id,
                    path: None,
                    error,
                });
            }
        }
    }
    subvolumes.sort_unstable_by_key(|listed: &Listed| listed.info.id);
    Ok(Listing {
        subvolumes,
        unreachable,
        pending_deletion: None,
        method: Method::Walk,
    })
}

/// The path of a child below `fd`, and the child itself if it can be opened and
/// is still the one that was asked for.
fn open_child(
    fd: BorrowedFd<'_>,
    child: RootRef,
) -> Result<(PathBuf, Result<(OwnedFd, SubvolumeInfo)>), Errno> {
    let (name, directory) = uapi::ino_lookup_user(fd, child.treeid, child.dirid)?;
    let path = Path::new(OsStr::from_bytes(&directory)).join(OsStr::from_bytes(&name));
    // Not through links, and not into something mounted on the way.
    let how = OpenHow::new().flags(DIRECTORY | OFlag::O_NOFOLLOW).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    let op = Request::List.op();
    let shown = || format!("{}/{}", target(fd), path.display());
    let opened = openat2(fd, &path, how)
        .map_err(|errno| match errno {
            Errno::EXDEV => {
                let text = "something is mounted on the way to it";
                Error::message(ErrorKind::Mounted, op, shown(), text)
            }
            errno => Error::os(op, shown(), errno),
        })
        .and_then(|fd| {
            let info = subvolume::info(&fd)?;
            if info.id.get() == child.treeid {
                Ok((fd, info))
            } else {
                let text = "renamed while it was being listed";
                Err(Error::message(ErrorKind::NotFound, op, shown(), text))
            }
        });
    Ok((path, opened))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_goes_past_what_is_no_subvolumes_state() {
        let key = |objectid, kind, offset| Key {
            objectid,
            kind,
            offset,
        };
        let after = |objectid, kind, offset| after_in_roots(key(objectid, kind, offset));
        let item = uapi::ROOT_ITEM_KEY;
        assert_eq!(after(256, item, 0), Some(key(256, item, 1)));
        let back = uapi::ROOT_BACKREF_KEY;
        assert_eq!(after(256, back, 5), Some(key(256, back, 6)));
        assert_eq!(after(256, back, u64::MAX), Some(key(256, back + 1, 0)));
        // A forward reference, and an inode of the old free space cache.
        assert_eq!(after(256, 156, 300), Some(key(257, item, 0)));
        assert_eq!(after(300, 1, 0), Some(key(300, item, 0)));
        let orphan = (uapi::ORPHAN_OBJECTID, uapi::ORPHAN_ITEM_KEY);
        assert_eq!(
            after(orphan.0, orphan.1, 7),
            Some(key(orphan.0, orphan.1, 8))
        );
        assert_eq!(after(u64::MAX, 255, 0), None);
    }
}
