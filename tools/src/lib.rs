//! What the programs share: exit statuses, manual pages.
//!
//! The programs themselves are described in the README: what they do, and what
//! their output means.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Exit statuses of `failover`.
pub mod exit {
    /// Done, or nothing to do.
    pub const DONE: u8 = 0;
    /// A step failed and there was nothing to undo, or undoing failed too; or an error before any step.
    pub const ERROR: u8 = 1;
    /// The command line makes no sense.
    pub const USAGE: u8 = 2;
    /// Refused: findings; nothing was changed.
    pub const REFUSED: u8 = 3;
    /// A step failed and everything before it was taken back.
    pub const UNDONE: u8 = 4;
    /// A step outlived its deadline: run the same command again.
    pub const UNKNOWN: u8 = 5;
}

/// Where a takeover leaves word for the kernel's fence-peer handler, for as long as it promotes.
///
/// The same as `ha_failover::node::FENCED_DIR`; `drbd-helper` must not need that crate's libraries,
/// because the kernel takes a handler that cannot start for one that has no answer.
pub const FENCED_DIR: &str = "/run/ha-failover/fenced";

/// Where the split-brain handler leaves word, in a file named as DRBD names the object.
///
/// The same as `ha_failover::node::SPLIT_BRAIN_DIR`.
pub const SPLIT_BRAIN_DIR: &str = "/run/ha-failover/split-brain";

/// What `drbd-helper` runs beside answering, for each event.
pub const HANDLERS: &str = "/etc/ha-failover/handlers.toml";

/// Set for what `drbd-helper` runs: DRBD waits for its handler, so nothing in it may wait for DRBD.
pub const INSIDE_HANDLER: &str = "FAILOVER_INSIDE_HANDLER";

/// Exit statuses of a `fence-peer` handler, as DRBD reads them.
pub mod fence_peer {
    /// Nothing is known and nothing was done: DRBD calls the handler broken and does not promote.
    pub const NOT_FENCED: u8 = 1;
    /// The peer is off.
    pub const FENCED: u8 = 7;
}

/// Writes the manual pages of a program, one for each of its commands, if its arguments are
/// `--man-pages DIR`; how it ended then.
///
/// Not an option like the others: it must not ask for what a run needs.
#[must_use]
pub fn man_pages(program: clap::Command) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != "--man-pages" {
        return None;
    }
    let rest: Vec<OsString> = arguments.collect();
    let [directory] = &rest[..] else {
        eprintln!("usage: {} --man-pages DIR", program.get_name());
        return Some(ExitCode::from(exit::USAGE));
    };
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(program, Path::new(directory)));
    Some(match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::from(exit::ERROR)
        }
    })
}
