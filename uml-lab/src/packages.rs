//! Debian packages that nodes need and the host lacks, unpacked, not
//! installed.
//!
//! apt resolves what is missing and fetches it, dpkg-deb unpacks it, and the
//! result is merged into one directory that becomes a layer of every node's
//! root. Nothing on the host changes and no root is needed. It is done once:
//! later labs find the directory by the list of names and the state of the
//! host's package database.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache::{self, Cache, host_error};
use crate::error::{Error, ErrorKind, Result};

/// dpkg's list of what is installed, from the root.
pub(crate) const STATUS: &str = "var/lib/dpkg/status";

fn missing(package: &str) -> Error {
    Error::new(ErrorKind::Missing, format!("get the package {package}"))
}

/// Says whether the host has a package installed, without starting a process.
pub(crate) fn installed(name: &str) -> bool {
    installed_by(&Path::new("/").join(STATUS), name)
}

/// The same, by another list.
pub(crate) fn installed_by(status: &Path, name: &str) -> bool {
    let Ok(status) = fs::read_to_string(status) else {
        return false;
    };
    let head = format!("Package: {name}");
    status.split("\n\n").any(|paragraph| {
        paragraph.lines().next() == Some(head.as_str())
            && paragraph
                .lines()
                .any(|line| line == "Status: install ok installed")
    })
}

/// Returns the directory that holds `names`, and what they depend on, merged;
/// `None` if the host has all of it.
///
/// `ready` is a read-only place to look at first, `cache` the place to build.
pub(crate) fn layer(
    cache: &Cache,
    ready: Option<&Path>,
    names: &[String],
) -> Result<Option<PathBuf>> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | ':');
        if name.is_empty() || name.starts_with('-') || !name.chars().all(valid) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("package name {name:?}"),
            ));
        }
    }
    let lacking: Vec<&str> = names.into_iter().filter(|name| !installed(name)).collect();
    if lacking.is_empty() {
        return Ok(None);
    }
    let set = format!("{:016x}", key(&lacking));
    let dir = cache.packages();
    for place in ready.into_iter().chain([dir.as_path()]) {
        let root = place.join("sets").join(&set);
        if root.is_dir() {
            return Ok(Some(root));
        }
    }
    cache::make_dir(&dir.join("sets"))?;
    let _turn = cache::lock(&dir.join("lock"))?;
    let root = dir.join("sets").join(&set);
    if !root.is_dir() {
        build(&dir, &lacking, &root)?;
    }
    Ok(Some(root))
}

/// Names a set: the same packages on a host in the same state.
fn key(names: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    names.hash(&mut hasher);
    if let Ok(status) = fs::metadata(Path::new("/").join(STATUS)) {
        (status.mtime(), status.mtime_nsec(), status.size()).hash(&mut hasher);
    }
    hasher.finish()
}

fn build(dir: &Path, names: &[&str], root: &Path) -> Result<()> {
    eprintln!(
        "uml-lab: nodes need {}, which this host lacks",
        names.join(", ")
    );
    let apt = Apt::new(dir);
    let needed = match apt.provide(names, apt.own_lists().is_some()) {
        Ok(needed) => needed,
        Err(first) => {
            // No lists on this host, or old ones: the archive no longer has
            // what they name.
            eprintln!("uml-lab: {first}");
            apt.update()?;
            apt.provide(names, true)?
        }
    };
    let unpacking = root.with_extension("new");
    remove(&unpacking)?;
    cache::make_dir(&unpacking)?;
    for unpacked in &needed {
        merge(unpacked, Path::new(""), &unpacking)?;
    }
    fs::rename(&unpacking, root)
        .map_err(|error| host_error(format!("rename to {}", root.display()), error))
}

/// One package to fetch.
#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    architecture: String,
}

impl Package {
    /// Reads `name_version_arch.deb`, where apt wrote `:` as `%3a`.
    fn from_file_name(file: &str) -> Option<Self> {
        let mut parts = file.strip_suffix(".deb")?.splitn(3, '_');
        let name = parts.next()?.to_owned();
        let version = parts.next()?.replace("%3a", ":");
        Some(Package {
            name,
            version,
            architecture: parts.next()?.to_owned(),
        })
    }

    fn file_version(&self) -> String {
        self.version.replace(':', "%3a")
    }
}

/// apt, told not to touch the host.
struct Apt {
    dir: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn new(dir: &Path) -> Self {
        let own = dir.join("apt");
        let options = vec![
            format!("Dir::Cache={}", own.join("cache").display()),
            // As root, apt would fetch as the user _apt, who cannot write here.
            "APT::Sandbox::User=root".to_owned(),
            "Debug::NoLocking=1".to_owned(),
            "Acquire::Retries=2".to_owned(),
        ];
        Apt {
            dir: dir.to_owned(),
            options,
        }
    }

    /// Lists of our own, where they were fetched before.
    fn own_lists(&self) -> Option<PathBuf> {
        let lists = self.lists_dir();
        lists.join("complete").is_file().then_some(lists)
    }

    fn lists_dir(&self) -> PathBuf {
        self.dir.join("apt/lists")
    }

    fn command(&self, own_lists: bool) -> Command {
        let mut command = Command::new("apt-get");
        command.env("LC_ALL", "C").stdin(Stdio::null());
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        if own_lists {
            let lists = self.lists_dir();
            command
                .arg("-o")
                .arg(format!("Dir::State::lists={}", lists.display()));
        }
        command
    }

    /// Fetches and unpacks `names` and what they need; returns where.
    fn provide(&self, names: &[&str], own_lists: bool) -> Result<Vec<PathBuf>> {
        let mut places = Vec::new();
        for package in self.resolve(names, own_lists)? {
            let file_version = package.file_version();
            let unpacked = self.dir.join(format!("{}_{file_version}", package.name));
            if !unpacked.is_dir() {
                self.fetch(&package, &unpacked, own_lists)?;
            }
            places.push(unpacked);
        }
        Ok(places)
    }

    /// Lists what is to be fetched so that `names` can run on this host.
    fn resolve(&self, names: &[&str], own_lists: bool) -> Result<Vec<Package>> {
        cache::make_dir(&self.dir.join("apt/cache/archives/partial"))?;
        let mut command = self.command(own_lists);
        command.args(["install", "--print-uris", "-qq", "-y"]);
        command.arg("--no-install-recommends").args(names);
        let wanted = names.join(", ");
        let output = run(&mut command, &wanted)?;
        if !output.status.success() {
            return Err(missing(&wanted).detail(first_error(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().filter_map(package_of_uri_line).collect())
    }

    fn update(&self) -> Result<()> {
        let lists = self.lists_dir();
        eprintln!("uml-lab: fetching package lists into {}", lists.display());
        cache::make_dir(&lists.join("partial"))?;
        let output = run(self.command(true).args(["update", "-qq"]), "lists")?;
        if !output.status.success() {
            return Err(missing("lists").detail(first_error(&output.stderr)));
        }
        fs::write(lists.join("complete"), "")
            .map_err(|error| host_error("note that the package lists are complete", error))
    }

    /// Fetches and unpacks one package.
    fn fetch(&self, package: &Package, to: &Path, own_lists: bool) -> Result<()> {
        let wanted = format!("{}={}", package.name, package.version);
        eprintln!("uml-lab: fetching {wanted}");
        let archives = self.dir.join("apt/archives");
        cache::make_dir(&archives)?;
        let mut command = self.command(own_lists);
        command.args(["download", "-qq"]).arg(&wanted);
        let output = run(command.current_dir(&archives), &wanted)?;
        let archive = archives.join(format!(
            "{}_{}_{}.deb",
            package.name,
            package.file_version(),
            package.architecture
        ));
        if !output.status.success() || !archive.is_file() {
            return Err(missing(&wanted).detail(first_error(&output.stderr)));
        }
        let partial = to.with_extension("new");
        remove(&partial)?;
        let mut unpack = Command::new("dpkg-deb");
        unpack
            .arg("-x")
            .arg(&archive)
            .arg(&partial)
            .stdin(Stdio::null());
        let output = run(&mut unpack, &wanted)?;
        if !output.status.success() {
            return Err(missing(&wanted).detail(first_error(&output.stderr)));
        }
        fs::rename(&partial, to)
            .map_err(|error| host_error(format!("rename to {}", to.display()), error))?;
        remove(&archive)
    }
}

fn run(command: &mut Command, package: &str) -> Result<std::process::Output> {
    command.output().map_err(|error| {
        let program = command.get_program().to_string_lossy().into_owned();
        let hint = if error.kind() == IoKind::NotFound {
            "; packages are unpacked with Debian's tools. Elsewhere set LAB_KERNEL and \
             LAB_MODULES and install the programs that nodes run"
        } else {
            ""
        };
        missing(package).detail(format!("{program}: {error}{hint}"))
    })
}

fn first_error(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text
        .lines()
        .find(|line| line.starts_with("E:"))
        .or_else(|| text.lines().next());
    line.unwrap_or("no reason given").to_owned()
}

/// Reads a line of `apt-get --print-uris`: `'URI' FILE SIZE HASH`.
fn package_of_uri_line(line: &str) -> Option<Package> {
    let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    Package::from_file_name(rest.split(' ').next()?)
}

fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match result {
        Err(error) if error.kind() != IoKind::NotFound => {
            Err(host_error(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Where a package's path belongs on this host: packages may still ship /bin,
/// /sbin and /lib, which are links into /usr since Debian 12.
fn place_of(path: &Path) -> PathBuf {
    let mut parts = path.components();
    if let Some(first) = parts.next() {
        let first = Path::new(first.as_os_str());
        let movable = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"].map(OsStr::new);
        if movable.contains(&first.as_os_str())
            && fs::read_link(Path::new("/").join(first)).is_ok_and(|to| {
                to == Path::new("usr").join(first) || to == Path::new("/usr").join(first)
            })
        {
            return Path::new("usr").join(first).join(parts.as_path());
        }
    }
    path.to_owned()
}

/// Adds an unpacked package to a layer: directories are made, files linked.
fn merge(package: &Path, below: &Path, layer: &Path) -> Result<()> {
    let from = package.join(below);
    let entries = fs::read_dir(&from)
        .map_err(|error| host_error(format!("read {}", from.display()), error))?;
    for entry in entries {
        let entry = entry.map_err(|error| host_error(format!("read {}", from.display()), error))?;
        let path = below.join(entry.file_name());
        let to = layer.join(place_of(&path));
        let fail = |error| host_error(format!("add {} to the layer", path.display()), error);
        let kind = entry.file_type().map_err(fail)?;
        if kind.is_dir() {
            fs::create_dir_all(&to).map_err(fail)?;
            let mode = entry.metadata().map_err(fail)?.permissions().mode() | 0o700;
            fs::set_permissions(&to, fs::Permissions::from_mode(mode)).map_err(fail)?;
            merge(package, &path, layer)?;
        } else if !to.is_symlink() && !to.exists() {
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(fail)?;
            }
            if kind.is_symlink() {
                let target = fs::read_link(entry.path()).map_err(fail)?;
                std::os::unix::fs::symlink(target, &to).map_err(fail)?;
            } else {
                fs::hard_link(entry.path(), &to).map_err(fail)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn uri_lines_name_packages() {
        let line = "'http://mirror.example/debian/pool/main/l/lxc/lxc_5.0.2-1%2bdeb12u4_amd64.deb' \
                    lxc_1%3a5.0.2-1+deb12u4_amd64.deb 566000 SHA256:aa";
        let package = package_of_uri_line(line).unwrap();
        assert_eq!(package.name, "lxc");
        assert_eq!(package.version, "1:5.0.2-1+deb12u4");
        assert_eq!(package.architecture, "amd64");
        assert_eq!(package_of_uri_line("Reading package lists..."), None);
    }

    #[test]
    fn merging_follows_the_hosts_links() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("package");
        let layer = dir.path().join("layer");
        fs::create_dir_all(package.join("sbin")).unwrap();
        fs::create_dir_all(package.join("usr/share/x")).unwrap();
        fs::create_dir(&layer).unwrap();
        fs::write(package.join("sbin/tool"), "tool").unwrap();
        std::os::unix::fs::symlink("tool", package.join("sbin/alias")).unwrap();
        fs::write(package.join("usr/share/x/y"), "y").unwrap();
        merge(&package, Path::new(""), &layer).unwrap();
        // Twice: what is there stays.
        merge(&package, Path::new(""), &layer).unwrap();
        let sbin = if Path::new("/sbin").is_symlink() {
            "usr/sbin"
        } else {
            "sbin"
        };
        assert_eq!(fs::read(layer.join(sbin).join("tool")).unwrap(), b"tool");
        assert_eq!(
            fs::read_link(layer.join(sbin).join("alias")).unwrap(),
            Path::new("tool")
        );
        assert_eq!(fs::read(layer.join("usr/share/x/y")).unwrap(), b"y");
    }

    #[test]
    fn odd_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        for name in ["", "-o", "a b", "a;b"] {
            let error = layer(&cache, None, &[name.to_owned()]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name:?}");
        }
    }
}
