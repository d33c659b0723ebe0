//! Where containers live, and what they are called.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::{Library, LoadError, OLDEST, Object, Version};

/// A directory that holds containers, and the liblxc that runs them.
///
/// The identity of a running container is the *text* of its lxcpath and its
/// name: through a symbolic link to the same directory liblxc starts the same
/// container a second time, on the same root file system. So the path is made
/// canonical once, here, and everything else goes by that.
#[derive(Clone)]
pub struct LxcPath(Arc<Inner>);

struct Inner {
    /// Invariant: canonical, and free of NUL and newline.
    path: PathBuf,
    c_path: CString,
    library: Library,
}

impl LxcPath {
    /// Takes an existing directory. The system's default is
    /// [`LxcPath::system_default`], and is never taken by itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPath`] if there is no such directory (with the
    /// errno) or it is something else; [`ErrorKind::Unsupported`] if liblxc is
    /// older than 4.0.5, whose calls are laid out differently.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use lxc_rs::{LxcPath, list};
    ///
    /// let store = LxcPath::new("/srv/store1/containers")?;
    /// for entry in list(&store)? {
    ///     println!("{}", entry.name);
    /// }
    /// # Ok::<(), lxc_rs::Error>(())
    /// ```
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        Self::open(path.as_ref(), library()?)
    }

    /// The lxcpath that the system's lxc.conf names, usually `/var/lib/lxc`.
    ///
    /// # Errors
    ///
    /// As [`LxcPath::new`].
    pub fn system_default() -> Result<Self> {
        let library = library()?;
        let path = library.global_item(c"lxc.lxcpath").ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidPath,
                "lxcpath",
                "the system has no default lxcpath",
            )
        })?;
        Self::open(Path::new(OsStr::from_bytes(&path)), library)
    }

    fn open(path: &Path, library: Library) -> Result<Self> {
        const CALL: &str = "lxcpath";
        let invalid = |detail: &str| Error::new(ErrorKind::InvalidPath, CALL, detail).at(path);
        let canonical = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => invalid("cannot be reached")
                .with_kind(ErrorKind::NoPermission)
                .os(error),
            _ => invalid("cannot be reached").os(error),
        })?;
        if !canonical.is_dir() {
            return Err(invalid("is not a directory"));
        }
        let bytes = canonical.as_os_str().as_bytes();
        if bytes.contains(&b'\n') {
            return Err(invalid(
                "has a newline in it, which liblxc's files cannot express",
            ));
        }
        let c_path = CString::new(bytes).map_err(|_| invalid("has a NUL byte in it"))?;
        Ok(Self(Arc::new(Inner {
            path: canonical,
            c_path,
            library,
        })))
    }

    /// The canonical path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0.path
    }

    /// The directory of the container called `name`, there or not.
    #[must_use]
    pub fn container_dir(&self, name: &ContainerName) -> PathBuf {
        self.0.path.join(name.as_str())
    }

    /// The version of the liblxc in use.
    #[must_use]
    pub fn liblxc_version(&self) -> Version {
        self.0.library.version
    }

    /// Whether liblxc was built with the API extension `name`.
    #[must_use]
    pub fn has_api_extension(&self, name: &str) -> bool {
        CString::new(name).is_ok_and(|name| self.0.library.has_api_extension(&name))
    }

    /// Whether liblxc has a configuration item of exactly this name: true for
    /// `lxc.net` and `lxc.rootfs.path`, false for `lxc.net.0.type` (a part of
    /// an item), for a misspelt name and for one of a different release.
    #[must_use]
    pub fn knows_config_item(&self, name: &str) -> bool {
        CString::new(name).is_ok_and(|name| self.0.library.knows_item(&name))
    }

    /// All keys of liblxc's table, sorted.
    #[must_use]
    #[doc(alias = "get_keys")]
    pub fn config_keys(&self) -> Vec<String> {
        // The question needs an object; one that is not defined will do.
        let keys = Object::open(self.0.library.clone(), c"keys", &self.0.c_path)
            .and_then(|object| object.keys(None))
            .unwrap_or_default();
        let mut keys: Vec<String> = String::from_utf8_lossy(&keys)
            .lines()
            .map(str::to_owned)
            .collect();
        keys.sort();
        keys
    }

    /// Whether the directory is on a Btrfs file system.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the file system cannot be asked.
    pub fn is_btrfs(&self) -> Result<bool> {
        let info = statfs(self.as_path()).map_err(|error| {
            Error::io("lxcpath", "statfs failed", error.into()).at(self.as_path())
        })?;
        Ok(info.filesystem_type() == BTRFS_SUPER_MAGIC)
    }

    /// Another directory as an lxcpath of the same liblxc.
    pub(crate) fn sibling(&self, path: &Path) -> Result<Self> {
        Self::open(path, self.0.library.clone())
    }

    pub(crate) fn c_path(&self) -> &CString {
        &self.0.c_path
    }

    pub(crate) fn library(&self) -> &Library {
        &self.0.library
    }
}

/// An item of the system's lxc.conf, for example `lxc.lxcpath` or
/// `lxc.default_config`; `None` if liblxc has no value for it.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] for a key that is no text of liblxc's;
/// [`ErrorKind::Unsupported`] without a usable liblxc.
#[doc(alias = "lxc_get_global_config_item")]
pub fn global_config_item(key: &str) -> Result<Option<OsString>> {
    let name = CString::new(key).map_err(|_| {
        let detail = format!("{key:?} cannot be a key");
        Error::new(ErrorKind::InvalidInput, "global_config_item", detail)
    })?;
    Ok(library()?.global_item(&name).map(OsString::from_vec))
}

fn library() -> Result<Library> {
    Library::open().map_err(|error| {
        let detail = match error {
            LoadError::Missing(text) => {
                format!("liblxc cannot be loaded (install liblxc1): {text}")
            }
            LoadError::Version(text) => {
                format!("liblxc is version {text}, but {OLDEST} or newer is needed")
            }
        };
        Error::new(ErrorKind::Unsupported, "load", detail)
    })
}

impl AsRef<Path> for LxcPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl fmt::Display for LxcPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_path().display().fmt(f)
    }
}

impl fmt::Debug for LxcPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LxcPath").field(&self.as_path()).finish()
    }
}

impl PartialEq for LxcPath {
    fn eq(&self, other: &Self) -> bool {
        self.as_path() == other.as_path()
    }
}

impl Eq for LxcPath {}

/// The name of a container, checked once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(String);

impl ContainerName {
    /// Longest name in bytes: a file name less what liblxc puts around it in
    /// the names of cgroups.
    pub const MAX: usize = 230;

    /// Longest host name in bytes (`HOST_NAME_MAX`, linux/limits.h).
    pub(crate) const HOST_NAME_MAX: usize = 64;

    /// Takes a name that can be a directory of its own in an lxcpath.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`] if it is empty, longer than
    /// [`ContainerName::MAX`], starts with a dot (liblxc's listings leave
    /// those out), or holds a slash, a space or a control character.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let problem = if name.is_empty() {
            "is empty"
        } else if name.len() > Self::MAX {
            "is longer than 230 bytes"
        } else if name.starts_with('.') {
            "starts with a dot"
        } else if name.contains('/') {
            "has a slash in it"
        } else if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            "has a space or control character in it"
        } else {
            return Ok(Self(name));
        };
        let detail = format!(
            "the name {:?} {problem}",
            name.chars().take(64).collect::<String>()
        );
        Err(Error::new(ErrorKind::InvalidName, "container name", detail))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host name that goes with it: as much of it as the kernel takes.
    pub(crate) fn host_name(&self) -> &str {
        let mut length = self.0.len().min(Self::HOST_NAME_MAX);
        while !self.0.is_char_boundary(length) {
            length -= 1;
        }
        &self.0[..length]
    }

    pub(crate) fn to_c(&self) -> CString {
        CString::new(self.0.as_str()).expect("a checked name has no control characters")
    }
}

impl FromStr for ContainerName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<&str> for ContainerName {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<String> for ContainerName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<&ContainerName> for ContainerName {
    type Error = Error;

    fn try_from(name: &ContainerName) -> Result<Self> {
        Ok(name.clone())
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AsRef<str> for ContainerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be() {
        let long = "x".repeat(300);
        for name in [
            "", ".", "..", ".hidden", "a/b", "a\0b", "a\nb", "a b", &long,
        ] {
            let error = ContainerName::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}");
        }
        for name in ["m1", "web-1.example", "Ünï", &"x".repeat(230)] {
            ContainerName::new(name).unwrap();
        }
        let long = ContainerName::new(format!("{}Ü{long}", "x".repeat(63))[..200].to_owned());
        assert_eq!(long.unwrap().host_name(), "x".repeat(63));
    }
}
