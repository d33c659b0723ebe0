//! Deleting subvolumes, and waiting for it.
//!
//! Deletion is asynchronous twice: the name is gone at once but may come back
//! after a crash before the next commit, and the space is freed later, by the
//! kernel's cleaner. [`DeleteOptions`] says what to wait for.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::error::{Error, ErrorKind, Request, Result, id_target};
use crate::filesystem::{filesystem_info, sync, wait_cleaned_since};
use crate::list::path_of_id;
use crate::mounts;
use crate::subvolume::{self, DIRECTORY, Subvolume, What, target, target_in, what_is};
use crate::types::{SubvolId, check_name};
use crate::uapi;

/// How to delete: by default the subvolume must exist and not be mounted, and
/// nothing is waited for.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct DeleteOptions {
    absent_is_success: bool,
    while_mounted: bool,
    wait: Wait,
}

#[derive(Clone, Copy, Debug, Default)]
enum Wait {
    #[default]
    Nothing,
    Commit,
    Cleaned(Duration),
}

impl DeleteOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A subvolume that is not there is not an error: the result is
    /// [`Deleted::WasAbsent`]. For callers that repeat a step.
    pub fn absent_is_success(mut self) -> Self {
        self.absent_is_success = true;
        self
    }

    /// Deletes it even if it is mounted somewhere. The kernel allows that, and
    /// its users are left with a file system that is gone.
    pub fn even_while_mounted(mut self) -> Self {
        self.while_mounted = true;
        self
    }

    /// The same options without any waiting.
    pub(crate) fn without_waiting(&self) -> Self {
        Self {
            wait: Wait::Nothing,
            ..self.clone()
        }
    }

    /// Returns when the deletion is on disk, so that a crash cannot undo it.
    /// The space is not free yet.
    pub fn durable(mut self) -> Self {
        self.wait = Wait::Commit;
        self
    }

    /// Returns when the deletion is on disk and the cleaner has freed the
    /// space, or fails with [`ErrorKind::TimedOut`] after `timeout`; the
    /// deletion is durable then as well, and the cleaner goes on.
    ///
    /// The cleaner waits for the last file of the subvolume to be closed, a
    /// [`Subvolume`] of it that the caller still has included.
    pub fn cleaned(mut self, timeout: Duration) -> Self {
        self.wait = Wait::Cleaned(timeout);
        self
    }
}

/// What [`delete`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deleted {
    /// It was there, and is deleted.
    Done(SubvolId),
    /// There was nothing of this name or id; only with
    /// [`DeleteOptions::absent_is_success`].
    WasAbsent,
}

impl Deleted {
    /// The id of the subvolume that this call deleted.
    #[must_use]
    pub fn id(self) -> Option<SubvolId> {
        match self {
            Self::Done(id) => Some(id),
            Self::WasAbsent => None,
        }
    }
}

/// Deletes the subvolume `name` in the directory `parent`.
///
/// Before that, the mount tables of all mount namespaces that the caller can
/// see are searched, because the kernel deletes a mounted subvolume without a
/// word. That look can miss namespaces of processes that the caller may not
/// inspect, and a mount made at the same moment.
///
/// What is deleted is the subvolume that was looked at, by its id, even if the
/// name is exchanged meanwhile (by name before Linux 5.7).
///
/// # Errors
///
/// [`ErrorKind::NotFound`], [`ErrorKind::NotSubvolume`],
/// [`ErrorKind::Mounted`] (with [`Error::mounts`]), [`ErrorKind::NotEmpty`] if
/// subvolumes are nested in it, [`ErrorKind::Permission`] also for the default
/// subvolume and one that is being sent.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`, or ownership and mount option `user_subvol_rm_allowed`; a
/// read-only one must then be made writable first.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use btrfs_ops::{DeleteOptions, delete};
///
/// let store = std::fs::File::open("/srv/store1")?;
/// let options = DeleteOptions::new().absent_is_success().cleaned(Duration::from_secs(60));
/// delete(&store, "before-upgrade", &options)?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "BTRFS_IOC_SNAP_DESTROY_V2")]
pub fn delete(
    parent: impl AsFd,
    name: impl AsRef<OsStr>,
    options: &DeleteOptions,
) -> Result<Deleted> {
    let (parent, name) = (parent.as_fd(), name.as_ref());
    let op = Request::Delete.op();
    let bytes = check_name(op, name)?;
    let shown = || target_in(parent, name);
    let not_subvolume = || Error::message(ErrorKind::NotSubvolume, op, shown(), "not a subvolume");
    let child = match openat(parent, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()) {
        Ok(child) => child,
        Err(Errno::ENOENT) if options.absent_is_success => return Ok(Deleted::WasAbsent),
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(not_subvolume()),
        Err(errno) => return Err(Error::os(op, shown(), errno)),
    };
    match what_is(child.as_fd()).map_err(|errno| Error::os(op, shown(), errno))? {
        What::Subvolume => {}
        What::Inside => return Err(not_subvolume()),
        What::OtherFileSystem => {
            let text = "not on a Btrfs file system";
            return Err(Error::message(ErrorKind::NotBtrfs, op, shown(), text));
        }
    }
    // The name may be a mount point of something else: then this is not the
    // subvolume that has this name in `parent`.
    let id = subvolume::containing(&child)?;
    guard(parent, id, Some(child.as_fd()), options, &shown)?;
    let result = match uapi::snap_destroy_by_id(parent, id.get()) {
        // Before 5.7, and through an id-mapped mount.
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => uapi::snap_destroy(parent, bytes),
        other => other,
    };
    // The cleaner would wait for it.
    drop(child);
    finish(parent, id, result, options, shown)
}

/// Deletes the subvolume at `path`: [`delete`] in the directory part of `path`.
///
/// # Errors
///
/// As [`delete`]. With [`DeleteOptions::absent_is_success`] the directory must
/// still exist.
pub fn delete_path(path: impl AsRef<Path>, options: &DeleteOptions) -> Result<Deleted> {
    let (parent, name) = subvolume::split(Request::Delete.op(), path.as_ref())?;
    delete(parent, name, options)
}

/// Deletes the subvolume `id` of the file system of `fs`, wherever its name is.
///
/// # Errors
///
/// As [`delete`].
///
/// # Privileges
///
/// As [`delete`]; and `CAP_SYS_ADMIN` to find where it is mounted, unless
/// [`DeleteOptions::even_while_mounted`] is given.
///
/// # Kernel support
///
/// Linux 5.7.
#[doc(alias = "BTRFS_SUBVOL_SPEC_BY_ID")]
pub fn delete_by_id(fs: impl AsFd, id: SubvolId, options: &DeleteOptions) -> Result<Deleted> {
    let fs = fs.as_fd();
    let shown = || format!("{} of {}", id_target(id), target(fs));
    guard(fs, id, None, options, &shown)?;
    finish(
        fs,
        id,
        uapi::snap_destroy_by_id(fs, id.get()),
        options,
        shown,
    )
}

impl Subvolume {
    /// Deletes this subvolume, under whatever name it has now: see
    /// [`delete_by_id`].
    ///
    /// # Errors
    ///
    /// As [`delete`]; [`ErrorKind::Mounted`] also if its parent directory cannot
    /// be reached because it was opened through a mount of itself.
    pub fn delete(self, options: &DeleteOptions) -> Result<Deleted> {
        let op = Request::Delete.op();
        let id = self.id()?;
        let name = target(self.as_fd());
        let shown = || name.clone();
        guard(self.as_fd(), id, Some(self.as_fd()), options, &shown)?;
        // The cleaner waits until the last descriptor of it is closed, so the
        // waiting needs one of something else.
        let parent = openat(&self, "..", DIRECTORY, Mode::empty())
            .map_err(|errno| Error::os(op, shown(), errno))?;
        if filesystem_info(&parent).ok().map(|fs| fs.fsid) != Some(filesystem_info(&self)?.fsid) {
            let text = "it is the root of the mount it was opened through; delete it by id";
            return Err(Error::message(ErrorKind::Mounted, op, shown(), text));
        }
        let result = uapi::snap_destroy_by_id(self.as_fd(), id.get());
        drop(self);
        finish(parent.as_fd(), id, result, options, shown)
    }
}

/// Refuses a subvolume that is mounted.
fn guard(
    fs: BorrowedFd<'_>,
    id: SubvolId,
    root: Option<BorrowedFd<'_>>,
    options: &DeleteOptions,
    shown: &dyn Fn() -> String,
) -> Result<()> {
    if options.while_mounted {
        return Ok(());
    }
    let op = Request::Delete.op();
    let blind = |why: &str| {
        let text = format!("cannot tell where it is mounted ({why}), so it is not deleted");
        Error::message(ErrorKind::Mounted, op, shown(), text)
    };
    let path: Option<PathBuf> = match (path_of_id(fs, id), root) {
        (Ok(path), _) => path,
        (Err(error), Some(root)) if error.kind() == ErrorKind::Permission => Some(
            mounts::path_below_top_level(root)
                .map_err(|error| Error::io(op, shown(), error))?
                .ok_or_else(|| blind("the mount of this descriptor is in no mount table"))?,
        ),
        (Err(error), None) if error.kind() == ErrorKind::Permission => {
            return Err(Error::message(
                ErrorKind::Permission,
                op,
                shown(),
                "finding where a subvolume of this id is mounted needs CAP_SYS_ADMIN",
            ));
        }
        (Err(error), _) => return Err(error),
    };
    // No such subvolume: the kernel says so better.
    let Some(path) = path else { return Ok(()) };
    let mounts = mounts::of_subvolume(fs, &path)
        .map_err(|error| Error::io(op, shown(), error))?
        .ok_or_else(|| blind("the mount of this descriptor is in no mount table"))?;
    if mounts.is_empty() {
        Ok(())
    } else {
        Err(Error::mounted(op, shown(), mounts))
    }
}

fn finish(
    fs: BorrowedFd<'_>,
    id: SubvolId,
    result: Result<(), Errno>,
    options: &DeleteOptions,
    shown: impl Fn() -> String,
) -> Result<Deleted> {
    let done = match result {
        Ok(()) => Deleted::Done(id),
        // Someone else was faster; waiting is still what was asked for.
        Err(Errno::ENOENT) if options.absent_is_success => Deleted::WasAbsent,
        Err(errno) => return Err(Error::ioctl(Request::Delete, shown(), fs, errno)),
    };
    match options.wait {
        Wait::Nothing => {}
        Wait::Commit => sync(fs)?,
        Wait::Cleaned(timeout) => {
            let begun = Instant::now();
            sync(fs)?;
            wait_cleaned_since(fs, id, begun, timeout)?;
        }
    }
    Ok(done)
}
