//! Freezing a container to disk, by CRIU.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::container::{Container, run};
use crate::error::{Error, ErrorKind, Result};
use crate::state::Outcome;
use crate::wire::Verb;

impl Container {
    /// Writes the processes of the running container into a directory, and
    /// ends it if `stop`. The file system is not in it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::Unsupported`] without the
    /// program `criu`, which liblxc runs, or if CRIU or the kernel cannot do
    /// it; [`ErrorKind::InvalidInput`] if the directory is not there.
    ///
    /// # Privileges
    ///
    /// Root.
    pub fn checkpoint(
        &self,
        dir: impl AsRef<Path>,
        stop: bool,
        deadline: Duration,
    ) -> Result<Outcome> {
        const CALL: &str = "checkpoint";
        let dir = self.images(CALL, dir.as_ref())?;
        let verb = Verb::Checkpoint {
            dir,
            stop,
            verbose: true,
        };
        let call = self.call(CALL, verb, deadline);
        self.outcome(&call, run(&call)?).map_err(needs_criu)
    }

    /// Starts the stopped container with the processes of a checkpoint.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyRunning`], and as [`Container::checkpoint`].
    ///
    /// # Privileges
    ///
    /// Root.
    #[doc(alias = "restore")]
    pub fn restore_checkpoint(&self, dir: impl AsRef<Path>, deadline: Duration) -> Result<Outcome> {
        const CALL: &str = "restore_checkpoint";
        let dir = self.images(CALL, dir.as_ref())?;
        let call = self.call(CALL, Verb::Resume { dir, verbose: true }, deadline);
        self.outcome(&call, run(&call)?).map_err(needs_criu)
    }

    fn images(&self, call: &'static str, dir: &Path) -> Result<Vec<u8>> {
        if dir.is_dir() {
            return Ok(dir.as_os_str().as_bytes().to_vec());
        }
        let detail = format!("{} is not a directory", dir.display());
        Err(self.error(call, ErrorKind::InvalidInput, detail))
    }
}

/// A refusal is told apart from an absence.
fn needs_criu(mut error: Error) -> Error {
    if error.kind() == ErrorKind::Refused && !has_criu() {
        error.add_detail("the program criu is not installed");
        return error.with_kind(ErrorKind::Unsupported);
    }
    error
}

fn has_criu() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("criu").is_file())
}
