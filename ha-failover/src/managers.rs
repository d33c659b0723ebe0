//! Who else would act on a store: found in the node's own files, without running anything.
//!
//! A store has one manager. drbd-utils' start script, Pacemaker, drbd-reactor, a
//! line in fstab or an enabled mount unit act at boot, or when they think that
//! something failed, and know nothing of this one. [`conflicts`] reads what says
//! so below any root directory: `/`, or a copy of a node's files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::finding::{Code, Severity};

/// The store that is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store<'a> {
    /// The resource; `None` for any.
    pub resource: Option<&'a str>,
    /// Its device; `None` for any of DRBD's.
    pub device: Option<&'a Path>,
    /// Its mount point.
    pub mount: Option<&'a Path>,
}

/// Something that would act on a store without being asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Conflict {
    /// Its stable name.
    pub code: Code,
    /// How much it matters.
    pub severity: Severity,
    /// The file or link that says so.
    pub file: PathBuf,
    /// The line in it, from 1; 0 where the file's being there says it.
    pub line: usize,
    /// The column in that line, from 1.
    pub column: usize,
    /// That line.
    pub text: String,
    /// What it would do.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// Finds who else would act on a store, in the files below `root`. No file is no conflict.
///
/// # Errors
///
/// A file that is there and cannot be read.
pub fn conflicts(root: &Path, store: &Store<'_>) -> io::Result<Vec<Conflict>> {
    let mut found = Vec::new();
    fstab(root, store, &mut found)?;
    units(root, store, &mut found)?;
    start_scripts(root, &mut found)?;
    reactor(root, store, &mut found)?;
    found.sort();
    Ok(found)
}

/// Lines that are neither empty nor a comment, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let all = text.lines().enumerate().map(|(n, l)| (n + 1, l.trim()));
    all.filter(|(_, l)| !l.is_empty() && !l.starts_with(['#', ';']))
}

/// Where a word begins in a line of a text, in characters from 1.
fn column(text: &str, line: usize, word: &str) -> usize {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
    let before = line.find(word).and_then(|at| line.get(..at)).unwrap_or("");
    1 + before.chars().count()
}

fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", file.display()))),
    }
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
    let all = match fs::read_dir(dir) {
        Ok(all) => all,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(e) => return Err(named(e)),
    };
    let mut paths = Vec::new();
    for entry in all {
        paths.push(entry.map_err(named)?.path());
    }
    paths.sort();
    Ok(paths)
}

impl Store<'_> {
    /// Whether a device or a mount point of a line is this store's.
    fn is(&self, device: &str, mount: &str) -> bool {
        let device = match self.device {
            Some(ours) => Path::new(device) == ours,
            None => device.starts_with("/dev/drbd"),
        };
        device || self.mount.is_some_and(|ours| Path::new(mount) == ours)
    }
}

fn fstab(root: &Path, store: &Store<'_>, found: &mut Vec<Conflict>) -> io::Result<()> {
    let file = root.join("etc/fstab");
    let Some(text) = read(&file)? else {
        return Ok(());
    };
    for (line, entry) in lines(&text) {
        let mut words = entry.split_whitespace();
        let (device, mount) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let options = words.nth(1).unwrap_or("");
        if !store.is(device, mount) || options.split(',').any(|o| o == "noauto") {
            continue;
        }
        found.push(Conflict {
            code: Code::FstabAutomount,
            severity: Severity::Error,
            file: file.clone(),
            line,
            column: column(&text, line, device),
            text: text.lines().nth(line - 1).unwrap_or("").to_owned(),
            what: format!("{device} is mounted at boot, when it is not primary"),
            remedy: "remove the line, or add noauto: whoever promotes has to mount".into(),
        });
    }
    Ok(())
}

/// What is enabled in systemd: links below `*.wants` and `*.requires`.
fn units(root: &Path, store: &Store<'_>, found: &mut Vec<Conflict>) -> io::Result<()> {
    let dirs = ["etc/systemd/system", "run/systemd/system"];
    for dir in dirs.map(|dir| root.join(dir)) {
        for wants in entries(&dir)? {
            let kind = wants.extension().and_then(|e| e.to_str());
            if !matches!(kind, Some("wants" | "requires")) {
                continue;
            }
            for link in entries(&wants)? {
                enabled(&dir, &link, store, found)?;
            }
        }
    }
    Ok(())
}

fn enabled(
    dir: &Path,
    link: &Path,
    store: &Store<'_>,
    found: &mut Vec<Conflict>,
) -> io::Result<()> {
    let unit = link.file_name().unwrap_or_default().to_string_lossy();
    let (stem, kind) = unit.rsplit_once('.').unwrap_or((&unit, ""));
    let (template, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let ours = |name: &str| store.resource.is_none_or(|r| r == name);
    let mut add = |code, severity, what: String| {
        found.push(Conflict {
            code,
            severity,
            file: link.to_owned(),
            line: 0,
            column: 1,
            text: String::new(),
            what,
            remedy: format!("systemctl disable {unit} (what runs goes on)"),
        });
    };
    match (template, kind) {
        ("drbd", "service") if instance.is_empty() => add(
            Code::DrbdService,
            Severity::Error,
            "the start script of drbd-utils is enabled: it brings resources up and promotes without asking".into(),
        ),
        ("drbd" | "drbd-promote" | "drbd-lvchange", _) if ours(instance) => add(
            Code::DrbdService,
            Severity::Error,
            format!("a unit of drbd-utils for resource {instance} is enabled"),
        ),
        ("pacemaker" | "corosync", "service") => add(
            Code::Pacemaker,
            Severity::Error,
            "a cluster manager is enabled: it promotes, mounts and stops by its own rules".into(),
        ),
        ("drbd-reactor", "service") => {
            // Only what its snippets name is its own; those are errors.
            add(
                Code::DrbdReactor,
                Severity::Warning,
                    "drbd-reactor is enabled".into(),
            );
        }
        ("lxc", "service") if instance.is_empty() => add(
            Code::LxcService,
            Severity::Warning,
            "containers with lxc.start.auto are started at boot from the default lxcpath".into(),
        ),
        ("lxc", "service") => add(
            Code::LxcService,
            Severity::Error,
            format!("container {instance} is started at boot, wherever its store is"),
        ),
        ("lxc-net", "service") => add(
            Code::LxcNet,
            Severity::Warning,
            "a bridge of LXC's own is made at boot; containers of a store need one that leads to the service network".into(),
        ),
        (_, "mount" | "automount") => {
            // The link may lead out of a copied tree; the unit beside it is the same.
            let text = match read(&dir.join(&*unit))? {
                Some(text) => Some(text),
                None => read(link)?,
            };
            let text = text.unwrap_or_default();
            let value = |key: &str| {
                let mut all = lines(&text).filter_map(|(n, l)| Some((n, l.strip_prefix(key)?.trim())));
                all.next().unwrap_or((0, ""))
            };
            let (line, device) = value("What=");
            if store.is(device, value("Where=").1) {
                found.push(Conflict {
                    code: Code::MountUnit,
                    severity: Severity::Error,
                    file: dir.join(&*unit),
                    line,
                    column: column(&text, line, device),
                    text: text.lines().nth(line.saturating_sub(1)).unwrap_or("").to_owned(),
                    what: format!("{unit} mounts the store at boot, when it is not primary"),
                    remedy: format!("systemctl disable {unit} (what is mounted stays)"),
                });
            }
        }
        _ => {}
    }
    Ok(())
}

/// The same as links of a System V init.
fn start_scripts(root: &Path, found: &mut Vec<Conflict>) -> io::Result<()> {
    for level in 2..=5 {
        for link in entries(&root.join(format!("etc/rc{level}.d")))? {
            let name = link.file_name().unwrap_or_default().to_string_lossy();
            let Some(script) = name.strip_prefix('S').and_then(|n| n.get(2..)) else {
                continue;
            };
            let (code, what) = match script {
                "drbd" => (
                    Code::DrbdService,
                    "the start script of drbd-utils is enabled",
                ),
                "pacemaker" | "corosync" => (Code::Pacemaker, "a cluster manager is enabled"),
                _ => continue,
            };
            // systemd looks at these only where it has no unit of that name.
            if found.iter().any(|c| c.code == code) {
                continue;
            }
            found.push(Conflict {
                code,
                severity: Severity::Error,
                file: link.clone(),
                line: 0,
                column: 1,
                text: String::new(),
                what: what.into(),
                remedy: format!("update-rc.d {script} disable"),
            });
        }
    }
    Ok(())
}

/// Promoter snippets of drbd-reactor that name the resource.
fn reactor(root: &Path, store: &Store<'_>, found: &mut Vec<Conflict>) -> io::Result<()> {
    let mut files = entries(&root.join("etc/drbd-reactor.d"))?;
    files.push(root.join("etc/drbd-reactor.toml"));
    for file in files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "toml"))
    {
        let Some(text) = read(file)? else { continue };
        let Ok(table) = text.parse::<toml::Table>() else {
            continue;
        };
        let promoters = table.get("promoter").and_then(toml::Value::as_array);
        for promoter in promoters.into_iter().flatten() {
            let resources = promoter.get("resources").and_then(toml::Value::as_table);
            for name in resources.into_iter().flat_map(|r| r.keys()) {
                if store.resource.is_some_and(|ours| ours != name) {
                    continue;
                }
                let at = lines(&text).find(|(_, l)| l.contains(name.as_str()));
                let line = at.map_or(0, |(n, _)| n);
                found.push(Conflict {
                    code: Code::DrbdReactor,
                    severity: Severity::Error,
                    file: file.clone(),
                    line,
                    column: column(&text, line, name),
                    text: at.map_or("", |(_, l)| l).to_owned(),
                    what: format!(
                        "a promoter of drbd-reactor promotes {name} and starts what it names"
                    ),
                    remedy: "drbd-reactorctl disable, or move the snippet away (what runs goes on)"
                        .into(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    const STORE: Store<'_> = Store {
        resource: Some("r0"),
        device: None,
        mount: None,
    };

    fn codes(files: &[(&str, &str)], store: &Store<'_>) -> Vec<(String, Severity, usize)> {
        let dir = tree(files);
        let found = conflicts(dir.path(), store).unwrap();
        assert!(
            found
                .iter()
                .all(|c| !c.what.is_empty() && !c.remedy.is_empty())
        );
        let of = |c: Conflict| (c.code.to_string(), c.severity, c.line);
        found.into_iter().map(of).collect()
    }

    const WANTS: &str = "etc/systemd/system/multi-user.target.wants";

    #[test]
    fn each_manager_is_found_alone() {
        use Severity::{Error, Warning};
        let unit = |name: &str| format!("{WANTS}/{name}");
        for (name, code, severity) in [
            ("drbd.service", "drbd-service", Error),
            ("drbd@r0.service", "drbd-service", Error),
            ("drbd-promote@r0.service", "drbd-service", Error),
            ("pacemaker.service", "pacemaker", Error),
            ("corosync.service", "pacemaker", Error),
            ("drbd-reactor.service", "drbd-reactor", Warning),
            ("lxc.service", "lxc-service", Warning),
            ("lxc@app.service", "lxc-service", Error),
            ("lxc-net.service", "lxc-net", Warning),
        ] {
            assert_eq!(
                codes(&[(&unit(name), "")], &STORE),
                [(code.into(), severity, 0)],
                "{name}"
            );
        }
        for name in [
            "drbd@r1.service",
            "ssh.service",
            "drbd-graceful-shutdown.service",
        ] {
            assert_eq!(codes(&[(&unit(name), "")], &STORE), [], "{name}");
        }
        let fstab = "# a comment\n/dev/sda1 / ext4 defaults 0 1\n/dev/drbd0 /srv/store1 btrfs defaults 0 0\n";
        assert_eq!(
            codes(&[("etc/fstab", fstab)], &STORE),
            [("fstab-automount".into(), Error, 3)]
        );
        let noauto = fstab.replace("btrfs defaults", "btrfs noatime,noauto");
        assert_eq!(codes(&[("etc/fstab", &noauto)], &STORE), []);
        // By whatever name the device has: the mount point is the store's.
        let by_id = fstab.replace("/dev/drbd0", "UUID=1234");
        let place = Store {
            mount: Some(Path::new("/srv/store1")),
            ..STORE
        };
        assert_eq!(
            codes(&[("etc/fstab", &by_id)], &place),
            [("fstab-automount".into(), Error, 3)]
        );
        let other = Store {
            device: Some(Path::new("/dev/drbd1")),
            ..STORE
        };
        assert_eq!(codes(&[("etc/fstab", fstab)], &other), []);
        let mount = "[Mount]\nWhat=/dev/drbd0\nWhere=/srv/store1\n";
        let path = "etc/systemd/system/srv-store1.mount";
        assert_eq!(codes(&[(path, mount)], &STORE), [], "not enabled");
        let link = unit("srv-store1.mount");
        assert_eq!(
            codes(&[(path, mount), (&link, "")], &STORE),
            [("mount-unit".into(), Error, 2)]
        );
        let snippet =
            "[[promoter]]\nid = \"p\"\n[promoter.resources.r0]\nstart = [\"a.service\"]\n";
        let path = "etc/drbd-reactor.d/r0.toml";
        assert_eq!(
            codes(&[(path, snippet)], &STORE),
            [("drbd-reactor".into(), Error, 3)]
        );
        let other = snippet.replace("resources.r0", "resources.r1");
        assert_eq!(codes(&[(path, &other)], &STORE), []);
        assert_eq!(
            codes(&[("etc/drbd-reactor.d/r0.toml.disabled", snippet)], &STORE),
            []
        );
        assert_eq!(
            codes(
                &[("etc/rc2.d/S70drbd", ""), ("etc/rc0.d/K08drbd", "")],
                &STORE
            ),
            [("drbd-service".into(), Error, 0)]
        );
    }

    #[test]
    fn a_plain_node_has_none() {
        assert_eq!(codes(&[], &Store::default()), []);
        let dir = tree(&[("etc/fstab/not-a-file", "")]);
        let error = conflicts(dir.path(), &Store::default()).unwrap_err();
        assert!(error.to_string().contains("etc/fstab"), "{error}");
    }
}
