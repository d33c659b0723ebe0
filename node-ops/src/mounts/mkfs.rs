//! Making a Btrfs. The one place where this crate starts a program.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::btrfs::{BtrfsOnDevice, Fsid, find_btrfs};
use super::source::check_device;
use crate::error::{Error, ErrorKind, Result};
use crate::process::Process;

const OP: &str = "make Btrfs on";

/// What may be lost when a file system is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Nothing: a device that holds anything `mkfs.btrfs` recognises is refused.
    Nothing,
    /// The Btrfs of this UUID, and only that.
    Btrfs(Fsid),
}

/// Makes a Btrfs on `device` with the program `mkfs.btrfs`, and reads back what
/// it made. An empty `label` gives none.
///
/// With [`Overwrite::Nothing`] a device that holds a Btrfs is refused here, and
/// one that holds another file system or a partition table by the program, which
/// runs without `-f`.
///
/// # Errors
///
/// [`ErrorKind::HasData`], [`ErrorKind::NotBlockDevice`],
/// [`ErrorKind::NotReady`] for a DRBD device that is Secondary,
/// [`ErrorKind::InvalidArgument`] for a label that is too long,
/// [`ErrorKind::ProgramFailed`] with what the program wrote to stderr,
/// [`ErrorKind::TimedOut`]: the program was killed, and what the device holds
/// is undefined.
///
/// # Privileges
///
/// Write permission on the device.
pub fn mkfs_btrfs(
    device: &Path,
    label: impl AsRef<OsStr>,
    overwrite: Overwrite,
    timeout: Duration,
) -> Result<BtrfsOnDevice> {
    let label = label.as_ref();
    let shown = || device.display().to_string();
    if label.len() > 255 || label.as_bytes().iter().any(|b| matches!(b, 0 | b'\n')) {
        let text = "a label has at most 255 bytes, and no NUL or newline";
        return Err(Error::message(
            ErrorKind::InvalidArgument,
            OP,
            shown(),
            text,
        ));
    }
    check_device(OP, device)?;
    let force = match (find_btrfs(device)?, overwrite) {
        (None, Overwrite::Nothing) => false,
        (Some(found), Overwrite::Btrfs(named)) if found.fsid == named => true,
        (Some(found), _) => {
            let label = found.label.display();
            let text = format!("it holds a Btrfs, {} with label {label:?}", found.fsid);
            return Err(Error::message(ErrorKind::HasData, OP, shown(), text));
        }
        (None, Overwrite::Btrfs(named)) => {
            let text = format!("the Btrfs to overwrite, {named}, is not there");
            return Err(Error::message(
                ErrorKind::WrongFileSystem,
                OP,
                shown(),
                text,
            ));
        }
    };
    let mut arguments: Vec<OsString> = vec!["--quiet".into()];
    if force {
        arguments.push("--force".into());
    }
    if !label.is_empty() {
        arguments.extend(["--label".into(), label.to_owned()]);
    }
    arguments.extend(["--".into(), device.into()]);
    run(device, &arguments, timeout)?;
    find_btrfs(device)?.ok_or_else(|| {
        let text = "mkfs.btrfs succeeded, but there is no Btrfs on the device";
        Error::message(ErrorKind::WrongFileSystem, OP, shown(), text)
    })
}

/// Where the program is: not by PATH, which is the caller's.
fn program() -> Result<PathBuf> {
    let places = [
        "/usr/sbin/mkfs.btrfs",
        "/sbin/mkfs.btrfs",
        "/usr/bin/mkfs.btrfs",
    ];
    places
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or_else(|| {
            let text = format!("install btrfs-progs; looked at {}", places.join(", "));
            Error::message(ErrorKind::NotFound, "start", "mkfs.btrfs", text)
        })
}

fn run(device: &Path, arguments: &[OsString], timeout: Duration) -> Result<()> {
    let program = program()?;
    let shown = || device.display().to_string();
    let mut child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::path("start", &program))?;
    let mut stderr = child.stderr.take();
    // Read to the end beside waiting, so that the program is never blocked.
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(pipe) = &mut stderr {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut text);
        }
        text
    });
    let ended = Process::open(child.id()).and_then(|process| process.wait(timeout));
    let in_time = matches!(ended, Ok(true));
    if !in_time {
        // Fails only if it has ended just now.
        let _ = child.kill();
    }
    let status = child.wait().map_err(Error::path("wait for", &program))?;
    let text = reader.join().unwrap_or_default();
    ended?;
    if !in_time {
        let text = format!("{} was killed after {timeout:?}", program.display());
        return Err(Error::message(ErrorKind::TimedOut, OP, shown(), text));
    }
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text);
    let refused = text.contains("appears to contain");
    let kind = if refused {
        ErrorKind::HasData
    } else {
        ErrorKind::ProgramFailed
    };
    let text = format!(
        "{} ended with {status}: {}",
        program.display(),
        text.trim_end()
    );
    Err(Error::message(kind, OP, shown(), text))
}
