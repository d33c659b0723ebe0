//! A container's directory, read without liblxc.
//!
//! These functions need nothing but the right to read: no liblxc, no running
//! system, not even the machine that the container belongs to. A store that
//! was mounted for inspection can be looked at with them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config_file::ConfigFile;
use crate::error::{Error, ErrorKind, Result};
use crate::rootfs::Rootfs;

/// A snapshot of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// Its name, `snap0` and so on. Numbers of destroyed ones are used again.
    pub name: String,
    /// Its directory, which is laid out like a container's.
    pub dir: PathBuf,
    /// When it was taken, as liblxc wrote it: `YYYY:MM:DD HH:MM:SS` in the
    /// local time of the machine that took it, which is not recorded.
    pub taken: Option<String>,
    /// The comment, as it was given.
    pub comment: Option<Vec<u8>>,
    /// Its root file system.
    pub rootfs: Option<Rootfs>,
    /// How many subvolumes the original had inside its root file system at
    /// this moment: a Btrfs snapshot has empty directories in their place.
    /// Only told by [`Container::snapshot`](crate::Container::snapshot), else 0.
    pub nested_subvolumes: usize,
}

impl Snapshot {
    /// Whether its root file system is a Btrfs subvolume, named as one: only
    /// then is a restore a matter of a moment and of no space.
    #[must_use]
    pub fn is_subvolume(&self) -> bool {
        let rootfs = self.rootfs.as_ref();
        rootfs.is_some_and(|rootfs| rootfs.is_subvolume() && !rootfs.loses_btrfs())
    }

    /// The number in the name.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.name.strip_prefix("snap")?.parse().ok()
    }
}

/// The names of the containers in an lxcpath, sorted: directories with a
/// readable `config` whose names do not begin with a dot.
///
/// # Errors
///
/// [`ErrorKind::Io`] or [`ErrorKind::NoPermission`].
pub fn containers(lxcpath: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = entries(lxcpath)?
        .into_iter()
        .filter(|name| lxcpath.join(name).join("config").is_file())
        .collect();
    names.sort();
    Ok(names)
}

/// The snapshots of the container in the directory `container`, in the order
/// of their numbers.
///
/// liblxc keeps them in `snaps`, or, as its first releases did, in
/// `<lxcpath>snaps/<name>` if there is a directory `<lxcpath>snaps`.
///
/// # Errors
///
/// [`ErrorKind::Io`] or [`ErrorKind::NoPermission`].
pub fn snapshots(container: &Path) -> Result<Vec<Snapshot>> {
    let dir = snapshots_dir(container);
    let mut snapshots = Vec::new();
    for name in entries(&dir)? {
        let dir = dir.join(&name);
        if dir.join("config").is_file() {
            snapshots.push(snapshot(name, dir)?);
        }
    }
    snapshots.sort_by(|a, b| (a.number(), &a.name).cmp(&(b.number(), &b.name)));
    Ok(snapshots)
}

/// The directory that holds the snapshots of a container, there or not.
#[must_use]
pub fn snapshots_dir(container: &Path) -> PathBuf {
    if let (Some(lxcpath), Some(name)) = (container.parent(), container.file_name()) {
        let mut old = lxcpath.as_os_str().to_owned();
        old.push("snaps");
        if Path::new(&old).is_dir() {
            return Path::new(&old).join(name);
        }
    }
    container.join("snaps")
}

fn snapshot(name: String, dir: PathBuf) -> Result<Snapshot> {
    let taken = optional(&dir.join("ts"))?;
    let config = optional(&dir.join("config"))?.unwrap_or_default();
    Ok(Snapshot {
        taken: taken.map(|taken| String::from_utf8_lossy(&taken).trim_end().to_owned()),
        comment: optional(&dir.join("comment"))?,
        rootfs: Rootfs::in_config(&config),
        name,
        dir,
        nested_subvolumes: 0,
    })
}

/// The configuration of the container in the directory `container`, line by line.
///
/// # Errors
///
/// [`ErrorKind::NotDefined`] without one, [`ErrorKind::Io`], [`ErrorKind::NoPermission`].
pub fn config(container: &Path) -> Result<ConfigFile> {
    let file = container.join("config");
    match optional(&file)? {
        Some(text) => Ok(ConfigFile::parse(&text)),
        None => Err(Error::new(ErrorKind::NotDefined, "config", "there is no such file").at(&file)),
    }
}

/// Names of the entries of a directory that do not begin with a dot; none
/// where there is no directory.
fn entries(dir: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io("layout", "the directory cannot be read", error).at(dir);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is no text cannot be addressed by liblxc's users either.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.retain(|name| !name.starts_with('.'));
    Ok(names)
}

fn optional(file: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("layout", "cannot be read", error).at(file)),
    }
}

/// Writes paths below the directory `from` as paths below `to`, wherever they
/// stand in a configuration.
pub(crate) fn rebase(text: &[u8], from: &Path, to: &Path) -> Vec<u8> {
    let (from, to) = (from.as_os_str(), to.as_os_str());
    let mut moved = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find(rest, from.as_bytes()) {
        let (before, after) = rest.split_at(at);
        let after = &after[from.len()..];
        moved.extend_from_slice(before);
        // Not the beginning of a longer name, nor the end of a longer path.
        let ends = after
            .first()
            .is_none_or(|byte| b"/ \t\n:,\"'".contains(byte));
        let begins = moved
            .last()
            .is_none_or(|byte| b"= \t\n:,\"'".contains(byte));
        let with: &OsStr = if ends && begins { to } else { from };
        moved.extend_from_slice(with.as_bytes());
        rest = after;
    }
    moved.extend_from_slice(rest);
    moved
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn paths_move_and_their_likes_stay() {
        let text = b"lxc.rootfs.path = btrfs:/srv/m1/rootfs\nlxc.hook.start=/srv/m1/h a:/srv/m1\n\
            lxc.mount.entry = /srv/m10/x y /mnt/srv/m1/z\n";
        let moved = rebase(text, Path::new("/srv/m1"), Path::new("/srv/web"));
        assert_eq!(
            String::from_utf8(moved).unwrap(),
            "lxc.rootfs.path = btrfs:/srv/web/rootfs\nlxc.hook.start=/srv/web/h a:/srv/web\n\
            lxc.mount.entry = /srv/m10/x y /mnt/srv/m1/z\n"
        );
    }

    #[test]
    fn a_store_is_read_without_liblxc() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        for name in ["m2", "m1", ".hidden"] {
            fs::create_dir_all(store.join(name)).unwrap();
            fs::write(store.join(name).join("config"), "lxc.uts.name = x\n").unwrap();
        }
        fs::create_dir(store.join("no-config")).unwrap();
        assert_eq!(containers(&store).unwrap(), ["m1", "m2"]);
        let m1 = store.join("m1");
        assert_eq!(snapshots(&m1).unwrap(), []);
        for number in [10, 2] {
            let snap = m1.join(format!("snaps/snap{number}"));
            fs::create_dir_all(&snap).unwrap();
            let path = snap.join("rootfs");
            let config = format!("lxc.rootfs.path = btrfs:{}\n", path.display());
            fs::write(snap.join("config"), config).unwrap();
        }
        fs::create_dir_all(m1.join("snaps/cut-off")).unwrap();
        fs::write(m1.join("snaps/snap2/ts"), "2026:11:22 09:30:00").unwrap();
        fs::write(m1.join("snaps/snap2/comment"), b"before \xff\n").unwrap();
        let found = snapshots(&m1).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|snapshot| snapshot.name.as_str())
            .collect();
        assert_eq!(names, ["snap2", "snap10"]);
        assert_eq!(found[0].taken.as_deref(), Some("2026:11:22 09:30:00"));
        assert_eq!(found[0].comment.as_deref(), Some(&b"before \xff\n"[..]));
        assert_eq!(
            (found[1].taken.clone(), found[1].comment.clone()),
            (None, None)
        );
        assert!(!found[0].is_subvolume());
        // The way of the first releases.
        fs::create_dir_all(dir.path().join("storesnaps/m1")).unwrap();
        assert_eq!(snapshots(&m1).unwrap(), []);
        assert_eq!(config(&m1).unwrap().get("lxc.uts.name"), Some("x".as_ref()));
        assert_eq!(config(&store).unwrap_err().kind(), ErrorKind::NotDefined);
    }
}
