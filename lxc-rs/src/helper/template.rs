//! The second role of the helper: liblxc has made a root file system and runs
//! us to fill it. The library does that, over the socket we inherited; if it
//! says no, or is not there any more, liblxc takes everything back.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::os;
use crate::wire::{self, Event, Filled, Owner};

pub(crate) struct Template {
    rootfs: PathBuf,
    /// The user and group that run the library, as they are called here: liblxc
    /// says so where it runs us as the root of a container of theirs.
    caller: Option<(u32, u32)>,
}

impl Template {
    /// `None` if this is not the template.
    pub(crate) fn from_arguments() -> Option<Self> {
        let arguments: Vec<_> = std::env::args_os().collect();
        let rootfs = arguments
            .iter()
            .find_map(|argument| argument.as_bytes().strip_prefix(b"--rootfs="))?;
        let number = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1)?.to_str()?.parse().ok()
        };
        Some(Self {
            rootfs: OsString::from_vec(rootfs.to_vec()).into(),
            caller: number("--mapped-uid").zip(number("--mapped-gid")),
        })
    }

    pub(crate) fn run(&self) -> ExitCode {
        match self.fill() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                let log = format!("/proc/self/fd/{}", wire::LOG);
                if let Ok(mut log) = File::options().append(true).open(log) {
                    // As liblxc writes it. Nobody else could be told.
                    let _ = writeln!(log, "lxc 0 ERROR template - helper:fill:0 - {error}");
                }
                ExitCode::FAILURE
            }
        }
    }

    fn fill(&self) -> io::Result<bool> {
        let mut socket = os::socket();
        let rootfs = &self.rootfs;
        if let Some((user, group)) = self.caller {
            lchown(rootfs, Some(user), Some(group)).map_err(at(rootfs))?;
        }
        let made = Event::Populate {
            rootfs: rootfs.as_os_str().as_bytes().to_vec(),
        };
        wire::send(&mut socket, &made.encode())?;
        let filled = Filled::decode(&wire::receive(&mut socket)?).unwrap_or_default();
        if filled.go_on && self.caller.is_some() {
            give(rootfs, &filled.owners)?;
        }
        Ok(filled.go_on)
    }
}

/// Gives all files to the root that we are here, but for those of others.
fn give(rootfs: &Path, owners: &[Owner]) -> io::Result<()> {
    let owners: HashMap<&[u8], &Owner> = owners
        .iter()
        .map(|owner| (&owner.path[..], owner))
        .collect();
    let mut todo = vec![rootfs.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).map_err(at(&path))?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path).map_err(at(&path))? {
                todo.push(entry.map_err(at(&path))?.path());
            }
        }
        let below = path.strip_prefix(rootfs).unwrap_or(&path);
        let owner = owners.get(below.as_os_str().as_bytes());
        let (user, group) = owner.map_or((0, 0), |owner| (owner.user, owner.group));
        lchown(&path, Some(user), Some(group)).map_err(at(&path))?;
        // The change of owner has taken these away.
        if meta.permissions().mode() & 0o6000 != 0 && !meta.is_symlink() {
            fs::set_permissions(&path, meta.permissions()).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Says which file it was.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
