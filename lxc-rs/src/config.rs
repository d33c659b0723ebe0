//! A container's configuration: items, and a save that cannot tear the file.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::container::{Container, exists, outcome, run};
use crate::error::{Error, ErrorKind, Result};
use crate::idmap::IdMap;
use crate::rootfs::Rootfs;
use crate::wire::{Edit, Verb};

impl Container {
    /// The value of a configuration item; `None` if it is not set. Where the
    /// key is a list, one line per entry.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ConfigRejected`] if liblxc does not know the key, or there
    /// is no such network.
    pub fn config_item(&self, key: &str) -> Result<Option<OsString>> {
        let name = self.key("config_item", key)?;
        match self.lock().config_item(&name) {
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => Ok(Some(OsString::from_vec(value))),
            None => {
                let detail = format!("liblxc has no item {key} here");
                Err(self.error("config_item", ErrorKind::ConfigRejected, detail))
            }
        }
    }

    /// The entries of a configuration item that is a list.
    ///
    /// # Errors
    ///
    /// As [`Container::config_item`].
    pub fn config_list(&self, key: &str) -> Result<Vec<OsString>> {
        let value = self.config_item(key)?.unwrap_or_default();
        let lines = value
            .as_bytes()
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        Ok(lines
            .map(|line| OsStr::from_bytes(line).to_owned())
            .collect())
    }

    /// Sets a configuration item in memory; a list gets one more entry. It
    /// holds for calls on this handle, and for others after
    /// [`Container::save_config`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ConfigRejected`] with liblxc's reason;
    /// [`ErrorKind::WrongDriver`] for an `lxc.rootfs.path` that is a Btrfs
    /// subvolume but does not say `btrfs:` (see [`Rootfs::loses_btrfs`]).
    pub fn set_config_item(&mut self, key: &str, value: impl AsRef<OsStr>) -> Result<()> {
        const CALL: &str = "set_config_item";
        let value = value.as_ref();
        let name = self.key(CALL, key)?;
        let text = CString::new(value.as_bytes())
            .ok()
            .filter(|text| !text.as_bytes().contains(&b'\n'));
        let Some(text) = text else {
            let detail = format!("the value for {key} has a NUL byte or newline in it");
            return Err(self.error(CALL, ErrorKind::InvalidInput, detail));
        };
        if key == "lxc.rootfs.path" && Rootfs::parse(value).loses_btrfs() {
            let detail = format!(
                "{0} is a Btrfs subvolume; as a plain path its snapshots would be copies: say btrfs:{0}",
                Path::new(value).display()
            );
            return Err(self.error(CALL, ErrorKind::WrongDriver, detail));
        }
        let edit = Edit::Set {
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
        };
        if self.lock().set_config_item(&name, &text) {
            self.edits.push(edit);
            return Ok(());
        }
        Err(self.why_rejected(CALL, edit))
    }

    /// Takes a configuration item away, a list as a whole. Not saved, see
    /// [`Container::set_config_item`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ConfigRejected`].
    pub fn clear_config_item(&mut self, key: &str) -> Result<()> {
        const CALL: &str = "clear_config_item";
        let name = self.key(CALL, key)?;
        let edit = Edit::Clear {
            key: key.as_bytes().to_vec(),
        };
        if self.lock().clear_config_item(&name) {
            self.edits.push(edit);
            return Ok(());
        }
        Err(self.why_rejected(CALL, edit))
    }

    /// Writes the configuration to its file: all of it or nothing, and on disk
    /// when this returns. Comments and includes are kept, in liblxc's way.
    ///
    /// liblxc's own save truncates the file first and does not flush, so a
    /// machine that dies at the wrong moment has a container without
    /// configuration; this writes a new file beside it and renames.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ConfigChanged`] if somebody else changed the file since it
    /// was read (reopen, and make the changes again); [`ErrorKind::Refused`],
    /// [`ErrorKind::Io`], [`ErrorKind::NoPermission`].
    pub fn save_config(&mut self) -> Result<()> {
        const CALL: &str = "save_config";
        let file = self.config_file();
        let now = Stamp::of(&file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.error(
                CALL,
                ErrorKind::NotDefined,
                "there is no such container any more",
            ),
            _ => self.io(CALL, "the configuration file cannot be read", error),
        })?;
        if now != self.stamp {
            let detail = format!("{} changed since it was read", file.display());
            return Err(self.error(CALL, ErrorKind::ConfigChanged, detail));
        }
        let mut refused = false;
        let saved = replace(&file, |new| {
            let path = CString::new(new.as_os_str().as_bytes())?;
            refused = !self.lock().save_config(&path);
            if refused {
                Err(io::Error::other("liblxc says no"))
            } else {
                Ok(())
            }
        });
        if refused {
            return Err(self.error(CALL, ErrorKind::Refused, "liblxc does not write it"));
        }
        saved.map_err(|error| self.io(CALL, "the configuration file cannot be replaced", error))?;
        self.stamp = Stamp::of(&file)
            .map_err(|error| self.io(CALL, "the configuration file cannot be read", error))?;
        self.edits.clear();
        Ok(())
    }

    /// The configuration in memory as [`Container::save_config`] would write
    /// it: includes as includes, not what they include.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotDefined`] if the container is gone;
    /// [`ErrorKind::Refused`] if liblxc does not write it, [`ErrorKind::Io`].
    pub fn config_text(&self) -> Result<Vec<u8>> {
        const CALL: &str = "config_text";
        // liblxc's save makes the directory if there is none.
        if !exists(&self.config_file()) {
            let detail = "there is no such container any more";
            return Err(self.error(CALL, ErrorKind::NotDefined, detail));
        }
        let failed = |error| self.io(CALL, "no file in memory", error);
        let file = memfd_create(c"lxc-rs-config", MFdFlags::MFD_CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        let mut file = File::from(file);
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .expect("a number has no NUL byte");
        if !self.lock().save_config(&path) {
            return Err(self.error(CALL, ErrorKind::Refused, "liblxc does not write it"));
        }
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_end(&mut text))
            .map_err(failed)?;
        Ok(text)
    }

    pub(crate) fn key(&self, call: &'static str, key: &str) -> Result<CString> {
        CString::new(key)
            .ok()
            .filter(|key| !key.is_empty())
            .ok_or_else(|| {
                self.error(
                    call,
                    ErrorKind::InvalidInput,
                    format!("{key:?} cannot be a key"),
                )
            })
    }

    /// liblxc said nothing but no: makes the change again in the helper, which
    /// has a log.
    fn why_rejected(&self, name: &'static str, edit: Edit) -> Error {
        let mut call = self.call(name, Verb::Check, Duration::from_secs(10));
        call.edits.push(edit);
        match run(&call).and_then(|ended| outcome::<()>(&call, ended)) {
            Err(error) => error,
            Ok(_) => call.error(ErrorKind::ConfigRejected, "liblxc rejects it"),
        }
    }
}

/// What tells a file from one that was changed or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(file: &Path) -> io::Result<Self> {
        // Opened and not only looked at, to learn whether it can be read.
        let meta = File::open(file)?.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// Replaces `file` by one that `write` fills, given its temporary path. The
/// new one has the old one's mode and owner, and is on disk at the end.
pub(crate) fn replace(file: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let dir = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let old = fs::metadata(file)?;
    let (made, new) = create_beside(file, dir)?;
    fchown(&made, Some(old.uid()), Some(old.gid()))?;
    made.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
    write(&new.0)?;
    made.sync_all()?;
    fs::rename(&new.0, file)?;
    File::open(dir)?.sync_all()
}

/// Replaces `file` by one with this content.
pub(crate) fn replace_with(file: &Path, content: &[u8]) -> io::Result<()> {
    replace(file, |new| {
        File::options()
            .write(true)
            .truncate(true)
            .open(new)?
            .write_all(content)
    })
}

/// A new file of a name that nobody uses, removed unless it is renamed.
fn create_beside(file: &Path, dir: &Path) -> io::Result<(File, Discarded)> {
    let base = file.file_name().unwrap_or_default().to_string_lossy();
    for number in 0..1000 {
        let path = dir.join(format!(".{base}.{}.{number}", std::process::id()));
        match File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
        {
            Ok(made) => return Ok((made, Discarded(path))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

struct Discarded(PathBuf);

impl Drop for Discarded {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What the configuration needs from this machine and does not get, the most
/// likely reason for a failed start first.
pub(crate) fn unmet_needs(container: &Container) -> Vec<(ErrorKind, String)> {
    let mut unmet = Vec::new();
    if let Ok(Some(rootfs)) = container.rootfs() {
        let directory = matches!(rootfs.driver.as_deref(), None | Some("btrfs" | "dir"));
        if directory && !exists(&rootfs.path) {
            let mut detail = format!(
                "its root file system {} is not there",
                rootfs.path.display()
            );
            let near = container.dir().join("rootfs");
            if exists(&near) {
                detail.push_str(&format!(
                    ", but {} is: paths in the configuration are absolute, was it written for another mount point?",
                    near.display()
                ));
            }
            unmet.push((ErrorKind::RootfsMissing, detail));
        }
        if let Some(driver) = &rootfs.driver
            && driver != "dir"
            && idmapped(container)
        {
            let detail = format!(
                "lxc.rootfs.options has idmap=, which liblxc does for driver dir only, not for {driver}: \
                 own the files of the root file system by the ids outside, as a creation with lxc.idmap does"
            );
            unmet.push((ErrorKind::WrongDriver, detail));
        }
    }
    for link in bridges(container) {
        if !exists(&Path::new("/sys/class/net").join(&link)) {
            let detail = format!("there is no bridge {}", link.to_string_lossy());
            unmet.push((ErrorKind::BridgeMissing, detail));
        }
    }
    unmet
}

/// Why the owner of the root file system is nobody inside: liblxc starts such
/// a container, whose root cannot write and has no home.
pub(crate) fn foreign_rootfs(container: &Container) -> Option<String> {
    let lines = container.config_list("lxc.idmap").ok()?;
    let map = IdMap::parse(lines.iter().map(|line| line.as_bytes())).ok()?;
    if map.is_empty() || idmapped(container) {
        return None;
    }
    let rootfs = container.rootfs().ok()??;
    let owner = fs::metadata(&rootfs.path).ok()?.uid();
    (!map.has_user(owner)).then(|| {
        format!(
            "its root file system {} belongs to user {owner}, who is nobody inside by its lxc.idmap",
            rootfs.path.display()
        )
    })
}

/// Whether liblxc is to map the ids of the root file system when it mounts it.
fn idmapped(container: &Container) -> bool {
    let options = container.config_item("lxc.rootfs.options");
    let options = options.ok().flatten().unwrap_or_default();
    options.as_bytes().windows(6).any(|part| part == b"idmap=")
}

/// The bridges that the networks of a container are plugged into.
fn bridges(container: &Container) -> BTreeSet<OsString> {
    // Numbers may have gaps; the list of networks tells how many there are.
    let networks = container
        .config_list("lxc.net")
        .map_or(0, |networks| networks.len());
    let mut found = BTreeSet::new();
    let mut seen = 0;
    for number in 0..1000 {
        if seen == networks {
            break;
        }
        let item = |name: &str| container.config_item(&format!("lxc.net.{number}.{name}"));
        let Ok(Some(kind)) = item("type") else {
            continue;
        };
        seen += 1;
        if kind == "veth"
            && let Ok(Some(link)) = item("link")
        {
            found.insert(link);
        }
    }
    found
}
