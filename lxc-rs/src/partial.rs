//! Creations that were cut off.
//!
//! While liblxc creates a container, its directory holds a file `partial`. If
//! the machine dies meanwhile the file stays, for instance on a replicated
//! file system that another node mounts, and from then on every start fails
//! with "ongoing creation", for ever: liblxc takes its own leftover for a
//! creation that is still going on. Opening such a container fails with
//! [`ErrorKind::PartialCreate`]; [`discard`] removes it, on request only.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};

use crate::container::{self, Container, exists, partial_file};
use crate::error::{Error, ErrorKind, Result};
use crate::path::{ContainerName, LxcPath};
use crate::state::Outcome;

/// A file `partial` in a container's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Partial {
    /// A process of this machine holds the lock: the creation goes on.
    Ongoing,
    /// Nobody on this machine creates it: it was cut off.
    Leftover,
}

/// Whether the directory of a container holds a creation under way or one that
/// was cut off.
///
/// The lock is this machine's: a creation on another machine looks cut off,
/// which is right for a file system that only one machine mounts at a time.
///
/// # Errors
///
/// [`ErrorKind::Io`] or [`ErrorKind::NoPermission`] if it cannot be told.
pub fn find(lxcpath: &LxcPath, name: &ContainerName) -> Result<Option<Partial>> {
    let file = partial_file(lxcpath, name);
    let failed = |error| {
        Error::io(
            "partial",
            format!("{} cannot be examined", file.display()),
            error,
        )
        .on(name.as_str(), lxcpath.as_path())
    };
    // liblxc makes it with mode 0000, so this takes root or its owner's chmod.
    let opened = match File::options().read(true).write(true).open(&file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(opened.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))
        .map_err(|error| failed(error.into()))?;
    let free = lock.l_type == libc::F_UNLCK as libc::c_short;
    Ok(Some(if free {
        Partial::Leftover
    } else {
        Partial::Ongoing
    }))
}

/// Removes what a creation that was cut off has left: configuration, root file
/// system, directory. Does nothing if there is no `partial` file.
///
/// # Errors
///
/// [`ErrorKind::PartialCreate`] if the creation is still going on;
/// [`ErrorKind::Refused`] or [`ErrorKind::Io`] if something cannot be removed.
///
/// # Privileges
///
/// Root, or the right to delete subvolumes.
pub fn discard(lxcpath: &LxcPath, name: &ContainerName, deadline: Duration) -> Result<Outcome> {
    let error = |kind, detail: &str| {
        Error::new(kind, "discard", detail).on(name.as_str(), lxcpath.as_path())
    };
    match find(lxcpath, name)? {
        None => return Ok(Outcome::Done(())),
        Some(Partial::Ongoing) => {
            return Err(error(
                ErrorKind::PartialCreate,
                "the creation is still going on",
            ));
        }
        Some(Partial::Leftover) => {}
    }
    let dir = lxcpath.container_dir(name);
    // liblxc removes a container whose configuration it can read; without the
    // marker it also opens it. The marker goes back if that fails.
    let (marker, aside) = (partial_file(lxcpath, name), dir.join("partial.discarded"));
    let moved = |from, to| {
        fs::rename(from, to)
            .map_err(|cause| error(ErrorKind::Io, "the marker cannot be moved").os(cause))
    };
    moved(&marker, &aside)?;
    let destroyed = Container::open_for("discard", lxcpath, name.clone())
        .and_then(|container| container.destroy(deadline));
    match destroyed {
        Ok(outcome) => {
            if exists(&dir) && !outcome.is_done() {
                moved(&aside, &marker)?;
            }
            Ok(outcome)
        }
        Err(cause) => {
            moved(&aside, &marker)?;
            // Cut off before there was a configuration: nothing that liblxc
            // could name. Empty subvolumes go like directories since Linux 4.18.
            if matches!(
                cause.kind(),
                ErrorKind::NotDefined | ErrorKind::ConfigRejected
            ) {
                fs::remove_dir_all(&dir).map_err(|cause| {
                    Error::io(
                        "discard",
                        format!("{} cannot be removed", dir.display()),
                        cause,
                    )
                    .on(name.as_str(), lxcpath.as_path())
                })?;
                return Ok(Outcome::Done(()));
            }
            Err(cause)
        }
    }
}

/// An error if there is a `partial` file.
pub(crate) fn refuse(call: &'static str, lxcpath: &LxcPath, name: &ContainerName) -> Result<()> {
    if !exists(&container::partial_file(lxcpath, name)) {
        return Ok(());
    }
    let detail = match find(lxcpath, name) {
        Ok(None) => return Ok(()),
        Ok(Some(Partial::Ongoing)) => "it is being created at this moment (file partial is locked)",
        Ok(Some(Partial::Leftover)) => {
            "its creation was cut off (file partial is there and nobody holds it): discard it and create it again"
        }
        Err(_) => "its creation has not ended (file partial is there)",
    };
    Err(Error::new(ErrorKind::PartialCreate, call, detail).on(name.as_str(), lxcpath.as_path()))
}
