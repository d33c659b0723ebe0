//! One operation at a time on a resource of a node.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, ErrorKind, Result};

/// The lock of a resource on this node, held until dropped. The kernel drops it with the process.
#[derive(Debug)]
#[must_use = "dropping this lets another process work on the resource"]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock in a state directory, without waiting. `what` tells others what we do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Locked`], naming who holds it; [`ErrorKind::State`].
    pub fn take(dir: &Path, what: &str) -> Result<Self> {
        let path = dir.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| {
                Error::io(
                    ErrorKind::State,
                    format!("lock {}: cannot be opened", path.display()),
                    e,
                )
            })?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // Only for people; the lock itself is the kernel's.
                let _ = file.set_len(0);
                let _ = writeln!(file, "process {}: {what}", std::process::id());
                Ok(Lock { _file: file })
            }
            Err((_, Errno::EWOULDBLOCK)) => Err(Error::new(
                ErrorKind::Locked,
                format!("{}: held by {}", path.display(), holder(&path)),
            )
            .remedy("wait until it ends; one operation at a time on a resource")),
            Err((_, errno)) => Err(Error::io(
                ErrorKind::State,
                format!("lock {}: cannot be taken", path.display()),
                errno.into(),
            )),
        }
    }
}

/// Who holds it, as it says itself. It does so right after it took the lock; until then nothing is there,
/// or the word of one that was killed.
fn holder(path: &Path) -> String {
    for _ in 0..40 {
        let text = fs::read_to_string(path).unwrap_or_default();
        let pid = text
            .strip_prefix("process ")
            .and_then(|t| t.split_once(':'));
        if pid.is_some_and(|(pid, _)| Path::new("/proc").join(pid).exists()) && text.ends_with('\n')
        {
            return text.trim().to_owned();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    "another process".to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path(), "release r0").unwrap();
        let second = Lock::take(dir.path(), "start r0").unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Locked);
        assert!(second.to_string().contains("release r0"), "{second}");
        drop(lock);
        drop(Lock::take(dir.path(), "start r0").unwrap());
    }

    #[test]
    fn the_holder_is_named_though_it_has_not_said_so_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = File::create(&path).unwrap();
        // One that was killed, and one that holds it now.
        fs::write(&path, "process 0: release r0\n").unwrap();
        let held = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                let text = format!("process {}: start r0\n", std::process::id());
                fs::write(&path, text).unwrap();
            });
            let error = Lock::take(dir.path(), "stop r0").unwrap_err();
            assert!(error.to_string().contains("start r0"), "{error}");
        });
        drop(held);
    }
}
