//! The files of one node.

use std::fs;
use std::path::{Path, PathBuf};

use drbd_conf::Config;
use ha_failover::managers::{Conflict, Store, conflicts};

use crate::Place;

/// One node's files, read.
pub(crate) struct Tree {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
    /// `etc/drbd.conf`, or what is wrong with it.
    pub(crate) drbd: Option<Result<Config, drbd_conf::Error>>,
    /// What `etc/network/interfaces` brings up.
    pub(crate) interfaces: Option<Lines>,
    pub(crate) fstab: Option<Lines>,
    /// Who else would act on a store.
    pub(crate) managers: Vec<Conflict>,
    pub(crate) modprobe: Vec<Lines>,
    /// `etc/lxc/default.conf` and every container's `config`.
    pub(crate) lxc: Vec<Lines>,
}

/// A text file and the lines in it that say something.
pub(crate) struct Lines {
    pub(crate) file: PathBuf,
    pub(crate) text: String,
}

impl Lines {
    fn read(file: PathBuf) -> Result<Option<Lines>, String> {
        match fs::read(&file) {
            Ok(bytes) => Ok(Some(Lines {
                text: String::from_utf8_lossy(&bytes).into_owned(),
                file,
            })),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("{}: {e}", file.display())),
        }
    }

    /// Lines that are neither empty nor a comment: number and text without white space around it.
    pub(crate) fn each(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines
            .map(|(n, l)| (n + 1, l.trim()))
            .filter(|(_, l)| !l.is_empty() && !l.starts_with('#'))
    }

    /// The place of `what` in a line.
    pub(crate) fn place(&self, line: usize, what: &str) -> Place {
        let text = self.text.lines().nth(line.saturating_sub(1)).unwrap_or("");
        let before = text.find(what).map_or(text, |at| &text[..at]);
        Place {
            file: self.file.display().to_string(),
            line,
            column: 1 + before.chars().count(),
            text: text.to_owned(),
        }
    }
}

/// `key = value` of LXC's configuration.
pub(crate) fn key_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    Some((key.trim(), value.trim()))
}

impl Tree {
    pub(crate) fn read(name: &str, root: &Path) -> Result<Tree, String> {
        if !root.is_dir() {
            return Err(format!("{}: not a directory", root.display()));
        }
        let drbd = root.join("etc/drbd.conf");
        let mut lxc = Vec::new();
        lxc.extend(Lines::read(root.join("etc/lxc/default.conf"))?);
        for dir in ["var/lib/lxc", "srv"] {
            configs(&root.join(dir), 0, &mut lxc)?;
        }
        let mut modprobe = Vec::new();
        for path in sorted(&root.join("etc/modprobe.d"))? {
            modprobe.extend(Lines::read(path)?);
        }
        Ok(Tree {
            name: name.to_owned(),
            root: root.to_owned(),
            drbd: drbd.is_file().then(|| Config::load(&drbd)),
            interfaces: Lines::read(root.join("etc/network/interfaces"))?,
            fstab: Lines::read(root.join("etc/fstab"))?,
            managers: conflicts(root, &Store::default()).map_err(|e| e.to_string())?,
            modprobe,
            lxc,
        })
    }
}

/// Collects `NAME/config`, at most four directories down: deeper is a container's own file system.
fn configs(dir: &Path, depth: u32, out: &mut Vec<Lines>) -> Result<(), String> {
    for path in sorted(dir)? {
        if path.is_dir() && depth < 4 && !path.is_symlink() {
            if !path.ends_with("rootfs") {
                configs(&path, depth + 1, out)?;
            }
        } else if path.ends_with("config") {
            out.extend(Lines::read(path)?);
        }
    }
    Ok(())
}

pub(crate) fn sorted(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(format!("{}: {e}", dir.display())),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|e| format!("{}: {e}", dir.display()))?.path());
    }
    paths.sort();
    Ok(paths)
}
