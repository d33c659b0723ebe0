//! Where a lab keeps things on the host: packages between runs, run
//! directories during one, and the gate that limits nodes on this machine.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, ErrorKind, Result};

/// An exclusive lock on a file, held until dropped.
pub(crate) type Lock = Flock<File>;

pub(crate) fn host_error(step: impl Into<String>, error: impl Into<std::io::Error>) -> Error {
    Error::new(ErrorKind::Host, step).os(error)
}

/// The directory under which everything of the lab lives.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(crate) fn open(root: Option<&Path>) -> Result<Self> {
        let root = match root {
            Some(root) => std::path::absolute(root).map_err(|e| host_error("cache dir", e))?,
            None => default_root()?,
        };
        // The kernel's command line is cut at white space, and its device
        // options at these characters.
        let text = root.to_str().unwrap_or("\n");
        if text.contains(|c: char| c.is_whitespace() || matches!(c, ',' | '"' | '\'' | '\\')) {
            return Err(Error::new(ErrorKind::Invalid, "cache dir").detail(format!(
                "{}: a user-mode kernel cannot be given a path with white space, comma, quote \
                 or backslash; choose another with LabBuilder::cache_dir",
                root.display()
            )));
        }
        make_dir(&root)?;
        Ok(Cache { root })
    }

    pub(crate) fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    /// Makes a run directory of our own, and removes those whose lab and
    /// keeper are both gone.
    pub(crate) fn run_dir(&self, name: &str) -> Result<RunDir> {
        let parent = self.root.join("run");
        make_dir(&parent)?;
        // One at a time, so that nobody takes a directory for stale between
        // its creation and its lock.
        let _turn = lock(&parent.join("lock"))?;
        let entries = fs::read_dir(&parent).map_err(|e| host_error(show(&parent), e))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() && try_lock(&path.join("lock")).is_ok_and(|lock| lock.is_some()) {
                // Not ours to fail over: the next start tries again.
                let _ = fs::remove_dir_all(&path);
            }
        }
        let pid = std::process::id();
        for n in 0.. {
            let path = parent.join(format!("{name}-{pid}-{n}"));
            match fs::DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => {
                    let lock = lock(&path.join("lock"))?;
                    return Ok(RunDir { path, lock });
                }
                Err(error) if error.kind() == IoKind::AlreadyExists => {}
                Err(error) => return Err(host_error(show(&path), error)),
            }
        }
        unreachable!("the loop has no end but return")
    }
}

thread_local! {
    /// Slots of labs that this thread started and that are still there.
    static MINE: Arc<AtomicUsize> = Arc::default();
}

/// Room for nodes, of which a user's labs have so much together, whatever
/// directory they are in. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Slots {
    count: usize,
    of_thread: Arc<AtomicUsize>,
    _locks: Vec<Lock>,
}

impl Slots {
    /// Waits until so many nodes may run beside the others. A thread that has
    /// a lab does not wait: it might wait for itself.
    pub(crate) fn take(nodes: usize, limit: usize) -> Result<Self> {
        let of_thread = MINE.with(Arc::clone);
        let locks = if of_thread.load(Ordering::SeqCst) == 0 {
            Slots::wait(&own_dir()?.join("slots"), nodes, limit)?
        } else {
            Vec::new()
        };
        of_thread.fetch_add(nodes, Ordering::SeqCst);
        Ok(Slots {
            count: nodes,
            of_thread,
            _locks: locks,
        })
    }

    fn wait(dir: &Path, nodes: usize, limit: usize) -> Result<Vec<Lock>> {
        make_dir(dir)?;
        let wanted = nodes.min(limit);
        // Whoever holds this takes all slots it needs before another starts
        // taking any: two labs cannot wait for each other.
        let gate = dir.join("lock");
        let patience = Instant::now() + Duration::from_secs(600);
        let mut said = false;
        let mut turn = None;
        let mut held = Vec::new();
        loop {
            if turn.is_none() {
                turn = try_lock(&gate)?;
            }
            if turn.is_some() {
                for n in 0..limit {
                    if held.len() == wanted {
                        return Ok(held.into_iter().map(|(_, lock)| lock).collect());
                    }
                    if held.iter().all(|(taken, _)| *taken != n)
                        && let Some(lock) = try_lock(&dir.join(n.to_string()))?
                    {
                        held.push((n, lock));
                    }
                }
                if held.len() == wanted {
                    return Ok(held.into_iter().map(|(_, lock)| lock).collect());
                }
            }
            if Instant::now() > patience {
                eprintln!("uml-lab: no room for {nodes} more nodes after 10 minutes; going on");
                return Ok(held.into_iter().map(|(_, lock)| lock).collect());
            }
            if !said {
                eprintln!("uml-lab: waiting for room for {nodes} nodes (at most {limit} at once)");
                said = true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.of_thread.fetch_sub(self.count, Ordering::SeqCst);
    }
}

/// A directory of one lab's run. The lock says that it is in use; the keeper
/// holds it too.
#[derive(Debug)]
pub(crate) struct RunDir {
    pub(crate) path: PathBuf,
    pub(crate) lock: Lock,
}

/// The `uml-lab` directory in the target directory the running program was
/// built in, or else one below /var/tmp.
fn default_root() -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(|e| host_error("find this program", e))?;
    let target = program
        .ancestors()
        .skip(1)
        .find(|dir| dir.join("CACHEDIR.TAG").is_file());
    if let Some(target) = target {
        return Ok(target.join("uml-lab"));
    }
    own_dir()
}

/// A directory of this user below /var/tmp.
fn own_dir() -> Result<PathBuf> {
    let uid = nix::unistd::geteuid();
    let root = PathBuf::from(format!("/var/tmp/uml-lab-{uid}"));
    make_dir(&root)?;
    let owner = fs::symlink_metadata(&root).map_err(|e| host_error(show(&root), e))?;
    // Anyone may make names in /var/tmp.
    if !owner.is_dir() || owner.uid() != uid.as_raw() {
        return Err(Error::new(ErrorKind::Host, show(&root))
            .detail("belongs to somebody else; choose another with LabBuilder::cache_dir"));
    }
    Ok(root)
}

pub(crate) fn show(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(|error| host_error(format!("make the directory {}", path.display()), error))
}

fn lock_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
        .map_err(|error| host_error(format!("open the lock {}", path.display()), error))
}

/// Takes a lock, waiting for it.
pub(crate) fn lock(path: &Path) -> Result<Lock> {
    let mut file = lock_file(path)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(host_error(format!("lock {}", path.display()), errno)),
        }
    }
}

/// Takes a lock if nobody has it.
fn try_lock(path: &Path) -> Result<Option<Lock>> {
    match Flock::lock(lock_file(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => Ok(None),
        Err((_, errno)) => Err(host_error(format!("lock {}", path.display()), errno)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn a_run_directory_without_holder_is_removed_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        let held = cache.run_dir("held").unwrap();
        let stale = cache.run_dir("stale").unwrap();
        fs::create_dir_all(stale.path.join("node1/boot")).unwrap();
        let RunDir { path, lock } = stale;
        drop(lock);
        let other = cache.run_dir("other").unwrap();
        assert!(!path.exists());
        assert!(held.path.is_dir() && other.path.is_dir());
    }

    #[test]
    fn slots_are_limited_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = Slots::wait(dir.path(), 3, 4).unwrap();
        assert_eq!(first.len(), 3);
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiting = dir.path().to_owned();
        let thread = std::thread::spawn(move || {
            let slots = Slots::wait(&waiting, 9, 4).unwrap();
            sender.send(slots.len()).unwrap();
        });
        assert!(
            receiver.recv_timeout(Duration::from_millis(200)).is_err(),
            "did not wait"
        );
        drop(first);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(30)), Ok(4));
        thread.join().unwrap();
    }

    #[test]
    fn a_path_the_kernel_cannot_take_is_refused() {
        let error = Cache::open(Some(Path::new("/tmp/with space"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
