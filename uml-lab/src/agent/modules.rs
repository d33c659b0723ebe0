//! Loading the kernel modules that the node's own setup needs.
//!
//! Not through modprobe: a root of the user's may have none.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Error, Result};
use std::os::fd::AsFd;
use std::path::Path;

use super::sys;

/// Loads a module of /lib/modules and what it depends on. Loaded already, or
/// built into the kernel, is no error.
pub(crate) fn load(name: &str) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let dir = Path::new("/lib/modules").join(release.trim());
    let list = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path)
            .map_err(|error| Error::other(format!("{}: {error}", path.display())))
    };
    let dependencies = list("modules.dep")?;
    let known: HashMap<&str, (&str, &str)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (module_name(file), (file, needs)))
        .collect();
    let Some((file, needs)) = known.get(name) else {
        let builtin = list("modules.builtin")?;
        return if builtin.lines().any(|file| module_name(file) == name) {
            Ok(())
        } else {
            Err(Error::from_raw_os_error(sys::ENOENT))
        };
    };
    // What a module needs is listed before what that needs in turn.
    for file in needs.split_whitespace().rev().chain([*file]) {
        let loaded = File::open(dir.join(file)).and_then(|file| sys::load_module(file.as_fd(), ""));
        match loaded {
            Err(error) if sys::errno(&error) != sys::EEXIST => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn module_name(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".ko").unwrap_or(name)
}
