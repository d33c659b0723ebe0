//! Which file a module is in, and what must be loaded before it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::modinfo;
use crate::error::{Error, ErrorKind, Result};

/// Names of modules are compared with `_` for `-`: the kernel's own form.
pub(crate) fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The module's name in its file name; `None` if that is not of a module.
fn name_of(file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .find_map(|extension| name.strip_suffix(extension))?;
    Some(normal(stem))
}

/// The modules of one kernel: the directory `/lib/modules/RELEASE`.
pub(crate) struct Index {
    root: PathBuf,
    /// From `modules.dep`: file and files it depends on, as written there.
    modules: HashMap<String, (String, Vec<String>)>,
    /// Whether `modules.dep` was there.
    indexed: bool,
}

impl Index {
    /// Reads the index, or the names of all files if there is none.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let path = root.join("modules.dep");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self {
                root: root.into(),
                modules: parse(&text),
                indexed: true,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut modules = HashMap::new();
                walk(root, root, &mut modules);
                Ok(Self {
                    root: root.into(),
                    modules,
                    indexed: false,
                })
            }
            Err(error) => Err(Error::path("read", &path)(error)),
        }
    }

    /// Is it part of the kernel image?
    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        fs::read_to_string(self.root.join("modules.builtin")).is_ok_and(|text| {
            text.lines()
                .any(|line| name_of(line).as_deref() == Some(name))
        })
    }

    /// Files to load for a module, each after those it needs; the module itself
    /// is the last. `None`: there is no such module.
    pub(crate) fn files(&self, name: &str) -> Result<Option<Vec<PathBuf>>> {
        let mut files = Vec::new();
        if !self.add(name, &mut files, 0)? {
            return Ok(None);
        }
        Ok(Some(files))
    }

    fn add(&self, name: &str, files: &mut Vec<PathBuf>, depth: usize) -> Result<bool> {
        let Some((file, dependencies)) = self.modules.get(name) else {
            return Ok(false);
        };
        let path = self.root.join(file);
        if files.contains(&path) {
            return Ok(true);
        }
        if depth > 64 {
            let text = "its dependencies form a loop";
            return Err(Error::message(
                ErrorKind::Malformed,
                "resolve module",
                name,
                text,
            ));
        }
        if self.indexed {
            // All of them, direct and not; the last one is needed first.
            for dependency in dependencies.iter().rev() {
                let path = self.root.join(dependency);
                if !files.contains(&path) {
                    files.push(path);
                }
            }
        } else {
            for dependency in depends(&path)? {
                if !self.add(&dependency, files, depth + 1)?
                    && !self.is_builtin(&dependency)
                    && !super::is_loaded(&dependency)?
                {
                    let text = format!("it needs {dependency}, which is not there");
                    let op = "resolve module";
                    return Err(Error::message(ErrorKind::ModuleNotFound, op, name, text));
                }
            }
        }
        files.push(path);
        Ok(true)
    }
}

/// Dependencies by the module's own word.
fn depends(path: &Path) -> Result<Vec<String>> {
    const OP: &str = "read dependencies of";
    let bytes = fs::read(path).map_err(Error::path(OP, path))?;
    let Some(values) = modinfo::values(&bytes, "depends") else {
        let text = "compressed, or not an ELF file; run depmod to make an index";
        let shown = path.display().to_string();
        return Err(Error::message(ErrorKind::Unsupported, OP, shown, text));
    };
    let names = values.iter().flat_map(|value| value.split(|&b| b == b','));
    Ok(names
        .filter(|name| !name.is_empty())
        .map(|name| normal(&String::from_utf8_lossy(name)))
        .collect())
}

/// `modules.dep`: `FILE: DEPENDENCY DEPENDENCY ...`.
fn parse(text: &str) -> HashMap<String, (String, Vec<String>)> {
    let mut modules = HashMap::new();
    for line in text.lines() {
        let Some((file, dependencies)) = line.split_once(':') else {
            continue;
        };
        let Some(name) = name_of(file) else { continue };
        let dependencies = dependencies.split_whitespace().map(str::to_owned).collect();
        modules.insert(name, (file.to_owned(), dependencies));
    }
    modules
}

/// Finds module files. Directories that cannot be read are left out: what is in
/// them is then reported as not found, with the directory that was searched.
fn walk(root: &Path, dir: &Path, modules: &mut HashMap<String, (String, Vec<String>)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // Not through links: `build` and `source` lead to the kernel's source.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            walk(root, &path, modules);
        } else if let Some(relative) = path.strip_prefix(root).ok().and_then(Path::to_str)
            && let Some(name) = name_of(relative)
        {
            modules.insert(name, (relative.to_owned(), Vec::new()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn order_of_dependencies() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("modules.dep"),
            "kernel/a/drbd.ko.xz: kernel/b/lru_cache.ko kernel/b/libcrc32c.ko kernel/c/crc-t.ko\n\
             kernel/b/lru_cache.ko:\nkernel/c/crc-t.ko:\nnot a line\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("modules.builtin"),
            "kernel/fs/btrfs/btrfs.ko\n",
        )
        .unwrap();
        let index = Index::open(dir.path()).unwrap();
        let files = index.files("drbd").unwrap().unwrap();
        let names: Vec<_> = files
            .iter()
            .map(|f| f.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            ["crc-t.ko", "libcrc32c.ko", "lru_cache.ko", "drbd.ko.xz"]
        );
        assert_eq!(index.files("crc_t").unwrap().unwrap().len(), 1);
        assert_eq!(index.files("none").unwrap(), None);
        assert!(index.is_builtin("btrfs") && !index.is_builtin("drbd"));
    }

    #[test]
    fn without_an_index() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("kernel/x")).unwrap();
        fs::write(dir.path().join("kernel/x/a-b.ko"), "not elf").unwrap();
        let index = Index::open(dir.path()).unwrap();
        assert_eq!(
            index.files("a_b").unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        assert_eq!(index.files("none").unwrap(), None);
        let empty = Index::open(Path::new("/nonexistent")).unwrap();
        assert_eq!(empty.files("drbd").unwrap(), None);
    }
}
