//! drbd.conf: parse, check, and resolve for one node.
//!
//! ```no_run
//! let config = drbd_conf::Config::load("/etc/drbd.conf")?;
//! for warning in config.warnings() {
//!     eprintln!("{warning}");
//! }
//! let view = config.require("r0")?.for_node("node1")?;
//! for volume in &view.volumes {
//!     println!("{} on {:?}", volume.device.display(), volume.disk);
//! }
//! # Ok::<(), drbd_conf::Error>(())
//! ```
//!
//! The grammar is that of drbd-utils for DRBD 8.4 and 9, old forms included. Every error and every
//! warning carries file, line and column, shows the line, and has a stable code. With the feature
//! `drbd-nl`, a resource becomes the list of operations that bring it up or take it down.
//!
//! The trap: a device's name is a matter of the node. The same volume may be `/dev/drbd1` here and
//! `/dev/drbd2` on the peer; take it from the [`NodeView`] of the node it is used on.
//!
//! Not here: talking to DRBD Proxy; a view says what it has to be told.

#[cfg(feature = "drbd-nl")]
mod adjust;
mod build;
mod dump;
mod edit;
mod error;
#[cfg(feature = "drbd-nl")]
mod expand;
mod lint;
mod model;
mod name;
mod schema;
mod source;
mod syntax;
#[cfg(feature = "drbd-nl")]
mod verbs;
mod view;

use std::path::Path;

#[cfg(feature = "drbd-nl")]
pub use adjust::{Running, RunningConnection, RunningVolume, adjust_all};
pub use edit::{Document, ResourceFile};
pub use error::{Diagnostic, Error, ErrorKind, Result, Severity};
#[cfg(feature = "drbd-nl")]
pub use expand::Step;
pub use model::{
    Address, After, Config, Connection, Family, Global, Host, HostName, MetaDisk, PathEnd, Proxy,
    Resource, Sections, Setting, Settings, Value, Volume, Volumes,
};
pub use name::Name;
pub use schema::{Section, Unit};
pub use source::Location;
pub use view::{NodeView, PeerView, SettingsOf, VolumeView};

/// A diagnostic about something that can be used as it is.
pub type Warning = Diagnostic;

impl Config {
    /// Reads a configuration file and everything it includes.
    ///
    /// Includes are relative to the file they stand in; patterns are expanded in alphabetical
    /// order; a file that was read already is not read again.
    ///
    /// # Errors
    /// `Io`, `Syntax`, `IncludeCycle` or `Invalid`; the error carries every diagnostic found.
    pub fn load(path: impl AsRef<Path>) -> Result<Config> {
        build::Builder::load(path.as_ref())
    }

    /// Reads a configuration from a string. `name` is what messages call it, and includes are
    /// relative to its directory.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, name: impl AsRef<Path>) -> Result<Config> {
        build::Builder::parse(text, name.as_ref())
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
