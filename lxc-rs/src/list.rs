//! Which containers an lxcpath has.

use std::fs;

use crate::container::{Container, exists};
use crate::error::{Error, ErrorKind, Result};
use crate::path::{ContainerName, LxcPath};

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
