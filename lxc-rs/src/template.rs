//! Creating a container by one of liblxc's templates, or on other storage.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::container::{Container, exists, outcome, run};
use crate::create::set;
use crate::error::{ErrorKind, Result};
use crate::partial;
use crate::path::{ContainerName, LxcPath};
use crate::runner::Call;
use crate::state::Outcome;
use crate::wire::{self, Edit, Verb};

/// What holds a root file system (`bdevtype` and `bdev_specs`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backing {
    /// A Btrfs subvolume, never anything else.
    #[default]
    Btrfs,
    /// A plain directory, in the container's own or at a path.
    Dir(Option<PathBuf>),
    /// A file with a file system in it, mounted through a loop device.
    Loop {
        /// What it is formatted with, or liblxc's default.
        filesystem: Option<String>,
        /// Its size, or liblxc's default.
        bytes: Option<u64>,
    },
    /// A logical volume.
    Lvm {
        /// Its group, or that of lxc.conf.
        group: Option<String>,
        /// Its name, or the container's.
        volume: Option<String>,
        /// The thin pool, or that of lxc.conf.
        pool: Option<String>,
        /// What it is formatted with, or liblxc's default.
        filesystem: Option<String>,
        /// Its size, or liblxc's default.
        bytes: Option<u64>,
    },
    /// A ZFS dataset.
    Zfs {
        /// The dataset it is made in, or that of lxc.conf.
        root: Option<String>,
    },
}

/// A container to create by a template program.
#[derive(Clone, Debug)]
#[must_use = "a template creates nothing until it is given to `Container::create_from_template`"]
pub struct Template {
    name: ContainerName,
    template: Option<Vec<u8>>,
    argv: Vec<Vec<u8>>,
    backing: Backing,
    edits: Vec<Edit>,
}

impl Template {
    /// A template of liblxc (`busybox`, `download`), or the path of a program
    /// that fills the directory given by `--rootfs=`.
    pub fn new(name: ContainerName, template: impl Into<OsString>) -> Self {
        Self {
            name,
            template: Some(template.into().into_vec()),
            argv: Vec::new(),
            backing: Backing::default(),
            edits: Vec::new(),
        }
    }

    /// No template and no root file system: only the configuration is written.
    pub fn none(name: ContainerName) -> Self {
        Self {
            template: None,
            ..Self::new(name, "")
        }
    }

    /// Adds an argument for the template.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.argv.push(argument.into().into_vec());
        self
    }

    /// Where the root file system is; without this a Btrfs subvolume.
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// Adds a configuration item; keys that are lists are added to.
    pub fn config(mut self, key: impl AsRef<str>, value: impl Into<OsString>) -> Self {
        self.edits.push(set(key.as_ref(), &value.into()));
        self
    }

    fn to_wire(&self) -> wire::Template {
        let text = |text: &Option<String>| text.clone().map(String::into_bytes);
        let mut given = wire::Template {
            template: self.template.clone(),
            argv: self.argv.clone(),
            ..wire::Template::default()
        };
        let driver = match &self.backing {
            Backing::Btrfs => "btrfs",
            Backing::Dir(path) => {
                given.dir = path.clone().map(|path| path.into_os_string().into_vec());
                "dir"
            }
            Backing::Loop { filesystem, bytes } => {
                (given.filesystem, given.size) = (text(filesystem), bytes.unwrap_or(0));
                "loop"
            }
            Backing::Lvm {
                group,
                volume,
                pool,
                filesystem,
                bytes,
            } => {
                (given.lvm_group, given.lvm_volume) = (text(group), text(volume));
                (given.lvm_pool, given.filesystem) = (text(pool), text(filesystem));
                given.size = bytes.unwrap_or(0);
                "lvm"
            }
            Backing::Zfs { root } => {
                given.zfs_root = text(root);
                "zfs"
            }
        };
        given.backing = driver.as_bytes().to_vec();
        given
    }
}

impl Container {
    /// Creates a container by a template program. [`Container::create`], which
    /// fills a subvolume by a copy or a closure, needs no programs at all.
    ///
    /// What the template prints is in the log of the error, if there is one.
    /// At the deadline the template is killed, and what it left is
    /// [`ErrorKind::PartialCreate`] from then on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyDefined`]; [`ErrorKind::NotBtrfs`] for
    /// [`Backing::Btrfs`] elsewhere; [`ErrorKind::ConfigRejected`];
    /// [`ErrorKind::Populate`] if the template or the storage failed, with what
    /// they said. After an error nothing is left, or it is named.
    ///
    /// # Privileges
    ///
    /// Root.
    pub fn create_from_template(
        lxcpath: &LxcPath,
        template: &Template,
        deadline: Duration,
    ) -> Result<Outcome<Self>> {
        const CALL: &str = "create_from_template";
        let call = Call {
            name: CALL,
            lxcpath,
            container: &template.name,
            edits: template.edits.clone(),
            verb: Verb::Template {
                template: template.to_wire(),
            },
            deadline,
        };
        let has_nul = |argument: &Vec<u8>| argument.contains(&0);
        if template.argv.iter().chain(&template.template).any(has_nul) {
            return Err(call.error(ErrorKind::InvalidInput, "an argument has a NUL byte in it"));
        }
        if template.backing == Backing::Btrfs && !lxcpath.is_btrfs()? {
            let detail = "the lxcpath is not on a Btrfs file system, so there can be no subvolume";
            return Err(call.error(ErrorKind::NotBtrfs, detail));
        }
        partial::refuse(CALL, lxcpath, &template.name)?;
        let dir = lxcpath.container_dir(&template.name);
        if exists(&dir) {
            let detail = format!("{} is there already", dir.display());
            return Err(call.error(ErrorKind::AlreadyDefined, detail));
        }
        let created = run(&call).and_then(|ended| outcome::<()>(&call, ended));
        match created {
            Ok(Outcome::Done(())) => {
                let made = Self::open_for(CALL, lxcpath, template.name.clone())?;
                made.flush(CALL)?;
                Ok(Outcome::Done(made))
            }
            Ok(Outcome::Unknown(unknown)) => Ok(Outcome::Unknown(unknown)),
            Err(mut error) => {
                if exists(&dir) {
                    error.add_detail(&format!("{} is left behind", dir.display()));
                }
                let said = error.log().iter().filter(|line| line.place.is_empty());
                let said: Vec<_> = said.map(|line| line.message.clone()).collect();
                if !said.is_empty() {
                    error.add_detail(&format!("the template said: {}", said.join("\n")));
                }
                Err(match error.kind() {
                    ErrorKind::Refused => error.with_kind(ErrorKind::Populate),
                    _ => error,
                })
            }
        }
    }
}
