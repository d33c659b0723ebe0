//! Which containers an lxcpath has.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::container::{Container, exists};
use crate::error::{Error, ErrorKind, Result};
use crate::path::{ContainerName, LxcPath};
use crate::state::State;

/// A defined container.
#[derive(Debug)]
#[non_exhaustive]
pub struct Listed {
    /// Its name.
    pub name: ContainerName,
    /// The container, or why it cannot be opened.
    pub container: Result<Container>,
}

/// All defined containers, that is, directories with a file `config`, sorted
/// by name. One that cannot be opened is listed with the reason: liblxc's own
/// listing of objects fails as a whole then, or leaves it out in silence.
///
/// # Errors
///
/// [`ErrorKind::Io`] or [`ErrorKind::NoPermission`] if the directory cannot be read.
#[doc(alias = "list_defined_containers")]
pub fn list(lxcpath: &LxcPath) -> Result<Vec<Listed>> {
    let open = |name: ContainerName| {
        let container = Container::open(lxcpath, &name);
        Listed { name, container }
    };
    Ok(names(lxcpath)?.into_iter().map(open).collect())
}

/// The names of all defined containers, sorted, without opening them.
///
/// # Errors
///
/// As [`list`].
pub fn names(lxcpath: &LxcPath) -> Result<Vec<ContainerName>> {
    let failed =
        |error| Error::io("list", "the directory cannot be read", error).at(lxcpath.as_path());
    let mut names = Vec::new();
    for entry in fs::read_dir(lxcpath.as_path()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // A name that is none cannot be addressed in liblxc either.
        let name = entry.file_name().into_string().ok().map(ContainerName::new);
        if let Some(Ok(name)) = name
            && exists(&entry.path().join("config"))
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The containers that have a monitor, sorted, whether they are (still)
/// defined or not. Looks for the monitors' sockets, in one file of the kernel:
/// no process is started and no container is asked.
///
/// liblxc's own listing takes sockets of other lxcpaths for this one's where
/// names are long; those containers are asked one by one here.
///
/// # Errors
///
/// [`ErrorKind::Io`] or [`ErrorKind::NoPermission`].
#[doc(alias = "list_active_containers")]
pub fn active(lxcpath: &LxcPath) -> Result<Vec<ContainerName>> {
    const TABLE: &str = "/proc/net/unix";
    let table = fs::read(TABLE)
        .map_err(|error| Error::io("list", "cannot be read", error).at(Path::new(TABLE)))?;
    let monitors = Monitors::parse(&table, lxcpath.as_path());
    let mut found: Vec<_> = monitors
        .names
        .into_iter()
        .filter_map(|name| ContainerName::new(name).ok())
        .collect();
    if monitors.hashed {
        for name in names(lxcpath)? {
            let up = || Container::open(lxcpath, &name)?.state();
            if !found.contains(&name) && up().is_ok_and(|state| state != State::Stopped) {
                found.push(name);
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The states of all defined containers, sorted by name. Only those that have
/// a monitor are opened and asked; the others are stopped.
///
/// # Errors
///
/// As [`active`]; a container whose state cannot be told has its own error.
pub fn states(lxcpath: &LxcPath) -> Result<Vec<(ContainerName, Result<State>)>> {
    // Names first: one that is defined and started in between is asked.
    let names = names(lxcpath)?;
    let active = active(lxcpath)?;
    let state = |name: &ContainerName| match active.binary_search(name) {
        Ok(_) => Container::open(lxcpath, name)?.state(),
        Err(_) => Ok(State::Stopped),
    };
    let with_state = |name: ContainerName| {
        let state = state(&name);
        (name, state)
    };
    Ok(names.into_iter().map(with_state).collect())
}

/// Monitors by their sockets, of which the kernel has a table.
struct Monitors {
    names: Vec<String>,
    /// Whether there are some whose names are too long to be seen.
    hashed: bool,
}

impl Monitors {
    fn parse(table: &[u8], lxcpath: &Path) -> Self {
        let mut found = Self {
            names: Vec::new(),
            hashed: false,
        };
        for line in table.split(|byte| *byte == b'\n') {
            // Seven fields, then the name, which may have spaces in it.
            let Some(at) = line.windows(2).position(|pair| pair == b" @") else {
                continue;
            };
            let name = line[at + 2..].trim_ascii_end();
            let Some(name) = name.strip_suffix(b"/command") else {
                continue;
            };
            found.hashed |= name.starts_with(b"lxc/");
            if let Some((dir, name)) = Path::new(OsStr::from_bytes(name))
                .parent()
                .zip(Path::new(OsStr::from_bytes(name)).file_name())
                && dir == lxcpath
                && let Some(name) = name.to_str()
            {
                found.names.push(name.to_owned());
            }
        }
        found
    }
}

/// Whether liblxc's listing would show this error's container at all.
impl Listed {
    /// Whether the container is there but unusable: its configuration is
    /// rejected or its creation was cut off.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(
            self.container.as_ref().map_err(Error::kind),
            Err(ErrorKind::ConfigRejected | ErrorKind::PartialCreate)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_are_seen_by_their_sockets() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 1 @/srv/a/m1/command\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 2 @/srv/a/m1/command\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 3 @/srv/ab/m2/command\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4 /run/a/m3/command\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 5\n";
        let monitors = Monitors::parse(table, Path::new("/srv/a"));
        assert_eq!(monitors.names, ["m1", "m1"]);
        assert!(!monitors.hashed);
        let table = b"0: 00000002 00000000 00010000 0001 01 4 @lxc/0123456789abcdef/command\n";
        assert!(Monitors::parse(table, Path::new("/srv/a")).hashed);
    }
}
