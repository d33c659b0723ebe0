//! Running something in the network namespace of another process.

use std::fs::File;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::error::{Error, ErrorKind, Result};

/// Runs `work` on a new thread that has joined the network namespace of process
/// `pid`, and returns what it returns. The calling thread stays where it is.
///
/// Descriptors that `work` makes, such as sockets, keep belonging to that
/// namespace.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such process;
/// [`ErrorKind::Permission`].
///
/// # Panics
///
/// If `work` does.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN` here and in the user namespace that owns the other network
/// namespace.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let container_init = 4711;
/// let links = node_ops::netns::in_network_namespace_of(container_init, node_ops::links::list)??;
/// # Ok(())
/// # }
/// ```
pub fn in_network_namespace_of<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> Result<T> {
    const OP: &str = "enter network namespace of process";
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).map_err(|e| Error::io(OP, pid.to_string(), e))?;
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, || {
                match setns(&namespace, CloneFlags::CLONE_NEWNET) {
                    Ok(()) => Ok(work()),
                    Err(errno) => Err(Error::os(OP, pid.to_string(), errno)),
                }
            })
            .map_err(|e| Error::io("start thread", "netns", e).with_kind(ErrorKind::Other))?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
