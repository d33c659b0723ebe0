//! Subvolumes with others nested in them, and two that change places.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::delete::{DeleteOptions, Deleted, delete};
use crate::error::{Error, ErrorKind, Request, Result};
use crate::filesystem::filesystem_info;
use crate::list::{Scope, list};
use crate::subvolume::{Access, DIRECTORY, ReceivedUuid, Subvolume, target_in};
use crate::types::{Generation, SubvolId, check_name};

/// What [`Subvolume::snapshot_nested`] made.
#[derive(Debug)]
#[non_exhaustive]
pub struct NestedSnapshot {
    /// The snapshot of the subvolume itself.
    pub top: Subvolume,
    /// Number of snapshots, with those of nested ones.
    pub count: usize,
    /// The first and the last transaction that they were made in. Not one and
    /// the same: stop or freeze those who write, if it matters.
    pub transactions: (Generation, Generation),
}

/// Opens a directory below `root`, not through links.
fn below(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    if path.as_os_str().is_empty() {
        return openat(root, ".", DIRECTORY, Mode::empty());
    }
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let flags = DIRECTORY | OFlag::O_NOFOLLOW;
    openat2(root, path, OpenHow::new().flags(flags).resolve(resolve))
}

/// A path's directory and name.
fn parts(path: &Path) -> (&Path, &OsStr) {
    let name = path.file_name().unwrap_or_default();
    (path.parent().unwrap_or(Path::new("")), name)
}

impl Subvolume {
    /// Takes snapshots of this subvolume and of all nested in it, each in its
    /// place in the copy. Those that cannot be seen are an error.
    ///
    /// A nested snapshot takes two commits, and the copies are not of one
    /// moment. Those of read-only ones that were received lose their received
    /// UUID. If anything fails, what was made is deleted.
    ///
    /// # Errors
    ///
    /// As [`snapshot`](Self::snapshot); [`ErrorKind::Permission`] if a nested
    /// one cannot be opened.
    ///
    /// # Privileges
    ///
    /// As [`snapshot`](Self::snapshot), for each.
    ///
    /// # Kernel support
    ///
    /// Linux 5.6 (`openat2`).
    pub fn snapshot_nested(
        &self,
        parent: impl AsFd,
        name: impl AsRef<OsStr>,
        access: Access,
    ) -> Result<NestedSnapshot> {
        let (parent, name) = (parent.as_fd(), name.as_ref());
        let op = Request::Snapshot.op();
        // Before the copy is made: it may be inside of this subvolume.
        let mut listing = list(self, Scope::Below)?;
        if let Some(hidden) = listing.unreachable.pop() {
            return Err(hidden.error);
        }
        let mut nested = listing.subvolumes;
        nested.sort_by_key(|listed| listed.path.components().count());
        let top = self.snapshot(parent, name, Access::ReadWrite)?;
        let first = top.info()?.otransid;
        let mut last = first;
        let mut made = Vec::new();
        let mut copy = || -> Result<()> {
            for listed in &nested {
                let shown = || target_in(top.as_fd(), listed.path.as_os_str());
                let wrap = |errno| Error::os(op, shown(), errno);
                let (directory, name) = parts(&listed.path);
                let source = Subvolume::from_fd(below(self.as_fd(), &listed.path).map_err(wrap)?)?;
                let into = below(top.as_fd(), directory).map_err(wrap)?;
                unlinkat(&into, name, UnlinkatFlags::RemoveDir).map_err(wrap)?;
                let copy = source.snapshot(&into, name, Access::ReadWrite)?;
                last = last.max(copy.info()?.otransid);
                made.push(copy);
            }
            if access == Access::ReadOnly {
                // The inner ones first: nothing changes in a read-only one.
                for copy in made.iter().rev() {
                    copy.make_read_only()?;
                }
                top.make_read_only()?;
            }
            Ok(())
        };
        if let Err(error) = copy() {
            drop(made);
            drop(top);
            let options = DeleteOptions::new();
            return Err(match delete_nested(parent, name, &options) {
                Ok(_) => error,
                Err(left) => error.noted(format!("what was made is left: {left}")),
            });
        }
        Ok(NestedSnapshot {
            count: made.len() + 1,
            top,
            transactions: (first, last),
        })
    }
}

/// Deletes the subvolume `name` in the directory `parent` and all nested in it,
/// the inner ones first; returns their ids. What `options` say about waiting is
/// done once, at the end.
///
/// Nothing can be deleted from inside of a read-only one, so those that hold
/// others become writable first; without `CAP_SYS_ADMIN` all do.
///
/// # Errors
///
/// As [`delete`]. [`ErrorKind::Permission`] before anything is done if a nested
/// one cannot be seen.
///
/// # Privileges
///
/// As [`delete`], for each.
pub fn delete_nested(
    parent: impl AsFd,
    name: impl AsRef<OsStr>,
    options: &DeleteOptions,
) -> Result<Vec<SubvolId>> {
    let (parent, name) = (parent.as_fd(), name.as_ref());
    let op = Request::Delete.op();
    check_name(op, name)?;
    let mut deleted = Vec::new();
    // What cannot be opened is said better, or not at all, by what follows.
    if let Ok(fd) = openat(parent, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()) {
        let top = Subvolume::from_fd(fd)?;
        let mut listing = list(&top, Scope::Below)?;
        if let Some(hidden) = listing.unreachable.pop() {
            return Err(hidden.error);
        }
        let mut nested = listing.subvolumes;
        nested.sort_by_key(|listed| Reverse(listed.path.components().count()));
        let each = options.without_waiting();
        let open = |path: &Path| {
            let wrap = |errno| Error::os(op, target_in(top.as_fd(), path.as_os_str()), errno);
            Subvolume::from_fd(below(top.as_fd(), path).map_err(wrap)?)
        };
        let holders: HashSet<_> = nested
            .iter()
            .filter_map(|listed| listed.info.parent)
            .collect();
        if !nested.is_empty() {
            open(Path::new(""))?.make_writable(ReceivedUuid::Clear)?;
        }
        for listed in nested
            .iter()
            .filter(|listed| holders.contains(&listed.info.id))
        {
            open(&listed.path)?.make_writable(ReceivedUuid::Clear)?;
        }
        for listed in nested {
            let (directory, name) = parts(&listed.path);
            let shown = || target_in(top.as_fd(), listed.path.as_os_str());
            let from =
                below(top.as_fd(), directory).map_err(|errno| Error::os(op, shown(), errno))?;
            deleted.extend(delete_read_only(from.as_fd(), name, &each)?.id());
        }
    }
    if let Deleted::Done(id) = delete_read_only(parent, name, options)? {
        deleted.push(id);
    }
    Ok(deleted)
}

/// Deletes one that is read-only, too: without `CAP_SYS_ADMIN` it has to become
/// writable before.
fn delete_read_only(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    options: &DeleteOptions,
) -> Result<Deleted> {
    match delete(parent, name, options) {
        Err(error) if error.kind() == ErrorKind::ReadOnly => {
            let fd = openat(parent, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
            let writable = fd
                .map_err(|errno| Error::os(Request::Delete.op(), target_in(parent, name), errno))
                .and_then(|fd| Subvolume::from_fd(fd)?.make_writable(ReceivedUuid::Clear));
            // Else it is not that, and the first error says more.
            match writable {
                Ok(()) => delete(parent, name, options),
                Err(_) => Err(error),
            }
        }
        other => other,
    }
}

/// Makes two subvolumes change places, in one step: there is no moment at which
/// one of the names is missing or both are the same. For rolling back: exchange
/// the running one and a writable snapshot of its past, then delete.
///
/// Open descriptors and mounts go on showing what they showed. Durable after
/// [`sync`](crate::sync).
///
/// # Errors
///
/// [`ErrorKind::NotSubvolume`], [`ErrorKind::NotFound`],
/// [`ErrorKind::OtherFileSystem`]; [`ErrorKind::ReadOnly`] if a parent is.
///
/// # Privileges
///
/// Write permission on both directories.
#[doc(alias = "RENAME_EXCHANGE")]
pub fn exchange(
    parent: impl AsFd,
    name: impl AsRef<OsStr>,
    other_parent: impl AsFd,
    other_name: impl AsRef<OsStr>,
) -> Result<()> {
    const OP: &str = "exchange subvolumes";
    let (parent, name) = (parent.as_fd(), name.as_ref());
    let (other_parent, other_name) = (other_parent.as_fd(), other_name.as_ref());
    let open = |parent: BorrowedFd<'_>, name: &OsStr| {
        check_name(OP, name)?;
        let fd = openat(parent, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())
            .map_err(|errno| Error::os(OP, target_in(parent, name), errno))?;
        Subvolume::from_fd(fd)
    };
    let (one, other) = (open(parent, name)?, open(other_parent, other_name)?);
    let shown = || {
        format!(
            "{} and {}",
            target_in(parent, name),
            target_in(other_parent, other_name)
        )
    };
    if filesystem_info(&one)?.fsid != filesystem_info(&other)?.fsid {
        let text = "they are on different file systems";
        return Err(Error::message(
            ErrorKind::OtherFileSystem,
            OP,
            shown(),
            text,
        ));
    }
    renameat2(
        parent,
        name,
        other_parent,
        other_name,
        RenameFlags::RENAME_EXCHANGE,
    )
    .map_err(|errno| Error::os(OP, shown(), errno))
}
