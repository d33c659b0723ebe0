//! Kernel modules: loading them with what they need, and their parameters.

mod index;
mod modinfo;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use self::index::{Index, normal};
use crate::Outcome;
use crate::error::{Error, ErrorKind, Result};
use crate::{host, sys};

const LOAD: &str = "load module";

/// Is the module loaded, or part of the kernel image?
///
/// One that is still being loaded, or being removed, is not. Names are taken
/// with `-` or `_`.
///
/// # Errors
///
/// [`ErrorKind::InvalidArgument`] if it cannot be a name.
pub fn is_loaded(name: &str) -> Result<bool> {
    let name = check_name("look for module", name)?;
    let dir = directory(&name);
    match fs::read_to_string(dir.join("initstate")) {
        Ok(state) => Ok(state.trim_end() == "live"),
        // Parts of the kernel image have no state, and a directory only if they
        // have parameters or a version.
        Err(_) => {
            Ok(dir.join("parameters").exists() || dir.join("version").exists() || builtin(&name))
        }
    }
}

fn builtin(name: &str) -> bool {
    modules_directory()
        .ok()
        .and_then(|root| Index::open(&root).ok())
        .is_some_and(|i| i.is_builtin(name))
}

fn directory(name: &str) -> PathBuf {
    Path::new("/sys/module").join(name)
}

fn modules_directory() -> Result<PathBuf> {
    Ok(Path::new("/lib/modules").join(host::kernel_release()?))
}

/// Loads a module with the given parameters, and before it those it depends on.
///
/// A module that is loaded already, or part of the kernel image, is
/// [`Outcome::AlreadyThere`]: the parameters are not applied to it then, see
/// [`set_parameter`]. The kernel only warns, in its log, of a parameter that the
/// module does not have.
///
/// `/etc/modprobe.d` is not read, aliases are not resolved, and soft
/// dependencies are not loaded.
///
/// # Errors
///
/// [`ErrorKind::ModuleNotFound`] names the kernel release and the directory
/// that was searched. [`ErrorKind::Permission`];
/// [`ErrorKind::InvalidArgument`] if the module refuses a parameter or was
/// built for another kernel.
///
/// # Privileges
///
/// `CAP_SYS_MODULE`.
///
/// # Kernel support
///
/// Compressed module files: Linux 5.17, with `CONFIG_MODULE_DECOMPRESS`.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// node_ops::modules::load("drbd", &[("usermode_helper", "/bin/true")])?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "finit_module", alias = "modprobe")]
pub fn load(name: &str, parameters: &[(&str, &str)]) -> Result<Outcome> {
    let name = check_name(LOAD, name)?;
    let parameters = parameter_string(&name, parameters)?;
    if is_loaded(&name)? {
        return Ok(Outcome::AlreadyThere);
    }
    let root = modules_directory()?;
    let Some(files) = Index::open(&root)?.files(&name)? else {
        let release = host::kernel_release()?;
        let index = root.join("modules.dep");
        let text = format!(
            "kernel {release} has no module of this name: it is not in {}",
            if index.exists() {
                index.display()
            } else {
                root.display()
            }
        );
        return Err(Error::message(ErrorKind::ModuleNotFound, LOAD, name, text));
    };
    let (last, needed) = files
        .split_last()
        .expect("the module itself is among its files");
    for file in needed {
        insert(&name, file, c"")?;
    }
    insert(&name, last, &parameters)
}

/// Loads one file.
fn insert(name: &str, path: &Path, parameters: &std::ffi::CStr) -> Result<Outcome> {
    let shown = || format!("{name} ({})", path.display());
    let file = File::open(path).map_err(|error| Error::io(LOAD, shown(), error))?;
    let compressed = path.extension().is_some_and(|extension| extension != "ko");
    let flags = if compressed {
        sys::MODULE_INIT_COMPRESSED_FILE
    } else {
        0
    };
    match sys::finit_module(file.as_fd(), parameters, flags) {
        Ok(()) => Ok(Outcome::Done),
        // Loaded already, or by someone else just now.
        Err(Errno::EEXIST) => Ok(Outcome::AlreadyThere),
        Err(errno) => {
            let error = Error::os(LOAD, shown(), errno);
            Err(match errno {
                Errno::EPERM => {
                    error.with_text("needs CAP_SYS_MODULE, and loading must be enabled")
                }
                Errno::ENOEXEC => error
                    .with_kind(ErrorKind::InvalidArgument)
                    .with_text("not a module for this kernel; the kernel log says more"),
                Errno::EINVAL if compressed => error
                    .with_kind(ErrorKind::Unsupported)
                    .with_text("a parameter is wrong, or the kernel cannot decompress modules"),
                Errno::EINVAL => error
                    .with_kind(ErrorKind::InvalidArgument)
                    .with_text("a parameter is wrong; the kernel log says which"),
                Errno::ENOENT => error
                    .with_kind(ErrorKind::InvalidArgument)
                    .with_text("a symbol or parameter is unknown; the kernel log says which"),
                Errno::ENOKEY | Errno::EKEYREJECTED => error
                    .with_kind(ErrorKind::Permission)
                    .with_text("this kernel loads signed modules only"),
                _ => error,
            })
        }
    }
}

/// Reads a parameter of a loaded module, without the newline at its end.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if the module is not loaded or does not show such a
/// parameter.
pub fn parameter(module: &str, name: &str) -> Result<String> {
    const OP: &str = "read module parameter";
    let path = parameter_path(OP, module, name)?;
    let mut text = fs::read_to_string(&path).map_err(|error| explain(OP, module, &path, error))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Changes a parameter of a loaded module.
///
/// # Errors
///
/// As [`parameter`]; [`ErrorKind::Permission`] also if the module does not let
/// it be changed.
pub fn set_parameter(module: &str, name: &str, value: &str) -> Result<()> {
    const OP: &str = "set module parameter";
    let path = parameter_path(OP, module, name)?;
    // Opened, not created: a name that is not there is an error.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(|error| explain(OP, module, &path, error))?;
    io::Write::write_all(&mut file, value.as_bytes())
        .map_err(|error| explain(OP, module, &path, error))
}

fn parameter_path(op: &'static str, module: &str, name: &str) -> Result<PathBuf> {
    let module = check_name(op, module)?;
    let name = check_name(op, name)?;
    Ok(directory(&module).join("parameters").join(name))
}

fn explain(op: &'static str, module: &str, path: &Path, error: io::Error) -> Error {
    let missing = error.kind() == io::ErrorKind::NotFound;
    let error = Error::path(op, path)(error);
    if missing && !is_loaded(module).unwrap_or(true) {
        return error.with_text("the module is not loaded");
    }
    error
}

/// Names become part of paths and of a parameter string.
fn check_name(op: &'static str, name: &str) -> Result<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if name.is_empty() || name.len() > 63 || !name.bytes().all(allowed) {
        let text = "not a name: letters, digits, '_' and '-'";
        return Err(Error::message(ErrorKind::InvalidArgument, op, name, text));
    }
    Ok(normal(name))
}

/// The parameters as the kernel splits them: by blanks, outside of quotes.
fn parameter_string(module: &str, parameters: &[(&str, &str)]) -> Result<CString> {
    let mut line = String::new();
    for (name, value) in parameters {
        check_name(LOAD, name)?;
        if value.bytes().any(|b| matches!(b, b'"' | 0 | b'\n')) {
            let text = format!("value of {name} contains a quote, newline or NUL");
            return Err(Error::message(
                ErrorKind::InvalidArgument,
                LOAD,
                module,
                text,
            ));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        let quote = if value.contains(char::is_whitespace) {
            "\""
        } else {
            ""
        };
        line.push_str(&format!("{name}={quote}{value}{quote}"));
    }
    Ok(CString::new(line).expect("names and values were checked for NUL"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn parameters() {
        let line = parameter_string("m", &[("a", "1"), ("b", "x y"), ("c", "")]).unwrap();
        assert_eq!(line.to_str().unwrap(), "a=1 b=\"x y\" c=");
        for wrong in [("a", "x\"y"), ("a b", "x"), ("", "x"), ("a", "x\ny")] {
            let error = parameter_string("m", &[wrong]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{wrong:?}");
        }
    }

    #[test]
    fn names_stay_in_their_directory() {
        for wrong in ["", "../x", "a/b", "a b", "a.ko"] {
            assert_eq!(
                is_loaded(wrong).unwrap_err().kind(),
                ErrorKind::InvalidArgument
            );
            assert_eq!(
                parameter("x", wrong).unwrap_err().kind(),
                ErrorKind::InvalidArgument
            );
        }
    }
}
