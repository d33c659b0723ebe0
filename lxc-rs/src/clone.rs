//! Copies of containers, and new names.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::config_file::ConfigFile;
use crate::container::{Container, exists, run};
use crate::error::{ErrorKind, Result};
use crate::layout;
use crate::partial;
use crate::path::{ContainerName, LxcPath};
use crate::rootfs::has_snapshots;
use crate::state::{Outcome, State};
use crate::sys;
use crate::wire::{self, Verb};

/// How a container is cloned.
///
/// By default the clone of a root file system on `btrfs:` is a Btrfs snapshot,
/// and the clone gets its own host name (its container name) and new hardware
/// addresses.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CloneOptions {
    lxcpath: Option<LxcPath>,
    keep_name: bool,
    keep_mac: bool,
    allow_running: bool,
    copy: bool,
    maybe_snapshot: bool,
    keep_backing: bool,
    backing: Option<Vec<u8>>,
    data: Option<Vec<u8>>,
    size: u64,
    hook_arguments: Vec<Vec<u8>>,
}

impl CloneOptions {
    /// A Btrfs snapshot with a name and addresses of its own, beside the original.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the clone into another lxcpath. A snapshot needs the same file system.
    pub fn lxcpath(mut self, lxcpath: &LxcPath) -> Self {
        self.lxcpath = Some(lxcpath.clone());
        self
    }

    /// Keeps the host name (`LXC_CLONE_KEEPNAME`).
    pub fn keep_host_name(mut self) -> Self {
        self.keep_name = true;
        self
    }

    /// Keeps the hardware addresses (`LXC_CLONE_KEEPMACADDR`): for a clone
    /// that takes the place of the original, not for one beside it.
    pub fn keep_hardware_addresses(mut self) -> Self {
        self.keep_mac = true;
        self
    }

    /// Allows a running original (`LXC_CLONE_ALLOW_RUNNING`). The clone is
    /// what the disk would be after a crash; freeze it and sync for more.
    pub fn allow_running(mut self) -> Self {
        self.allow_running = true;
        self
    }

    /// Copies file by file instead of taking a snapshot.
    pub fn copy(mut self) -> Self {
        self.copy = true;
        self
    }

    /// Takes a snapshot where the driver can and copies where it cannot
    /// (`LXC_CLONE_MAYBE_SNAPSHOT`); for drivers other than `btrfs:`.
    pub fn maybe_snapshot(mut self) -> Self {
        self.maybe_snapshot = true;
        self
    }

    /// Keeps the driver of the original (`LXC_CLONE_KEEPBDEVTYPE`).
    pub fn keep_backing(mut self) -> Self {
        self.keep_backing = true;
        self
    }

    /// The driver of the clone, for example `dir`, and what it needs to know.
    pub fn backing(mut self, driver: impl Into<OsString>, data: Option<OsString>) -> Self {
        self.backing = Some(driver.into().into_vec());
        self.data = data.map(OsString::into_vec);
        self
    }

    /// Size of the clone's block device in bytes, for drivers that have one.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = bytes;
        self
    }

    /// Adds an argument for the original's `lxc.hook.clone`.
    pub fn hook_argument(mut self, argument: impl Into<OsString>) -> Self {
        self.hook_arguments.push(argument.into().into_vec());
        self
    }

    pub(crate) fn lxcpath_or(&self, usually: &LxcPath) -> LxcPath {
        self.lxcpath.clone().unwrap_or_else(|| usually.clone())
    }

    fn flags(&self, snapshot: bool) -> i32 {
        let flags = [
            (snapshot, sys::LXC_CLONE_SNAPSHOT),
            (self.keep_name, sys::LXC_CLONE_KEEPNAME),
            (self.keep_mac, sys::LXC_CLONE_KEEPMACADDR),
            (self.allow_running, sys::LXC_CLONE_ALLOW_RUNNING),
            (self.maybe_snapshot, sys::LXC_CLONE_MAYBE_SNAPSHOT),
            (self.keep_backing, sys::LXC_CLONE_KEEPBDEVTYPE),
        ];
        let set = flags.into_iter().filter(|(set, _)| *set);
        set.fold(0, |all, (_, flag)| all | flag.cast_signed())
    }
}

impl Container {
    /// Makes another container of this one. Its clone hook is run.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyDefined`] if anything has that name;
    /// [`ErrorKind::AlreadyRunning`] unless allowed; [`ErrorKind::WrongDriver`]
    /// if the root file system is a subvolume named without `btrfs:` (its
    /// clone would be an overlay over the live original), or if the clone came
    /// out as something else than a subvolume; [`ErrorKind::Refused`]. What a
    /// failed clone left behind is named in the error.
    ///
    /// # Privileges
    ///
    /// Root.
    #[doc(alias = "lxc-copy")]
    pub fn clone_to(
        &self,
        name: ContainerName,
        options: &CloneOptions,
        deadline: Duration,
    ) -> Result<Outcome<Self>> {
        self.clone_for("clone", name, options, deadline)
    }

    pub(crate) fn clone_for(
        &self,
        call: &'static str,
        name: ContainerName,
        options: &CloneOptions,
        deadline: Duration,
    ) -> Result<Outcome<Self>> {
        partial::refuse(call, self.lxcpath(), self.name())?;
        let rootfs = self.rootfs()?;
        self.check_driver(call, rootfs.as_ref(), true)?;
        let btrfs = rootfs.is_some_and(|rootfs| rootfs.driver.as_deref() == Some("btrfs"));
        let snapshot = btrfs && !options.copy && options.backing.is_none();
        let lxcpath = options.lxcpath_or(self.lxcpath());
        let dir = lxcpath.container_dir(&name);
        if exists(&dir) {
            let detail = format!("{} is there already", dir.display());
            return Err(self.error(call, ErrorKind::AlreadyDefined, detail));
        }
        if !options.keep_name && name.as_str().len() > ContainerName::HOST_NAME_MAX {
            let detail = "liblxc makes it the host name as well, which has at most 64 bytes: \
                keep the host name, or take a shorter one";
            return Err(self.error(call, ErrorKind::InvalidName, detail));
        }
        if !options.allow_running {
            match self.state_within(deadline)? {
                Outcome::Done(State::Stopped) => {}
                Outcome::Done(state) => {
                    let detail = format!("its state is {state}");
                    return Err(self.error(call, ErrorKind::AlreadyRunning, detail));
                }
                Outcome::Unknown(unknown) => return Ok(Outcome::Unknown(unknown)),
            }
        }
        let clone = wire::Clone {
            name: name.as_str().as_bytes().to_vec(),
            lxcpath: lxcpath.as_path().as_os_str().as_bytes().to_vec(),
            flags: options.flags(snapshot),
            backing: options.backing.clone(),
            data: options.data.clone(),
            size: options.size,
            hook_arguments: options.hook_arguments.clone(),
        };
        let verb = self.call(call, Verb::Clone { clone }, deadline);
        let cloned = run(&verb).and_then(|ended| self.outcome::<()>(&verb, ended));
        let left_behind = |mut error: crate::Error| {
            if exists(&dir) {
                error.add_detail(&format!("{} is left behind", dir.display()));
            }
            error
        };
        match cloned.map_err(left_behind)? {
            Outcome::Unknown(unknown) => return Ok(Outcome::Unknown(unknown)),
            Outcome::Done(()) => {}
        }
        let made = Self::open_for(call, &lxcpath, name).map_err(left_behind)?;
        if snapshot
            && !made
                .rootfs()?
                .is_some_and(|rootfs| rootfs.is_subvolume() && !rootfs.loses_btrfs())
        {
            let detail = format!("{} is no subvolume but a copy", dir.display());
            return Err(self.error(call, ErrorKind::WrongDriver, detail));
        }
        made.flush(call)?;
        Ok(Outcome::Done(made))
    }

    /// Gives the stopped container another name, its snapshots included.
    ///
    /// The directory is renamed and the paths in the configurations follow; a
    /// host name that was the container's name does, too. The subvolumes stay
    /// the same ones, with their UUIDs, which incremental send streams depend
    /// on. (liblxc's own rename clones and destroys, loses them, and refuses
    /// containers with snapshots.)
    ///
    /// If the machine dies between the two, the container has the new name and
    /// the old paths, and its start says so; renaming it to the old name and
    /// back repairs that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyDefined`], [`ErrorKind::AlreadyRunning`],
    /// [`ErrorKind::Io`], [`ErrorKind::NoPermission`].
    pub fn rename(self, name: ContainerName, deadline: Duration) -> Result<Outcome<Self>> {
        const CALL: &str = "rename";
        partial::refuse(CALL, self.lxcpath(), self.name())?;
        match self.state_within(deadline)? {
            Outcome::Done(State::Stopped) => {}
            Outcome::Done(state) => {
                let detail = format!("its state is {state}");
                return Err(self.error(CALL, ErrorKind::AlreadyRunning, detail));
            }
            Outcome::Unknown(unknown) => return Ok(Outcome::Unknown(unknown)),
        }
        let (old, new) = (self.dir(), self.lxcpath().container_dir(&name));
        let old_snapshots = layout::snapshots_dir(&old);
        let moved = |from: &Path, to: &Path| {
            renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE).map_err(
                |error| match error {
                    Errno::EEXIST => {
                        let detail = format!("{} is there already", to.display());
                        self.error(CALL, ErrorKind::AlreadyDefined, detail)
                    }
                    Errno::ENOENT => self.error(
                        CALL,
                        ErrorKind::NotDefined,
                        "there is no such container any more",
                    ),
                    error => self.io(CALL, "the directory cannot be renamed", error.into()),
                },
            )
        };
        moved(&old, &new)?;
        // Snapshots of the first releases are elsewhere, by name as well.
        if !old_snapshots.starts_with(&old) && has_snapshots(&old) {
            moved(&old_snapshots, &layout::snapshots_dir(&new))?;
        }
        let rewrite = |dir: &Path| -> Result<()> {
            let file = dir.join("config");
            let text = fs::read(&file)
                .map_err(|error| self.io(CALL, "a configuration cannot be read", error))?;
            let text = layout::rebase(&text, &old_snapshots, &layout::snapshots_dir(&new));
            let mut config = ConfigFile::parse(&layout::rebase(&text, &old, &new));
            if config.get("lxc.uts.name") == Some(OsStr::new(self.name().host_name())) {
                config.set("lxc.uts.name", name.host_name());
            }
            config.write(&file)
        };
        rewrite(&new)?;
        for snapshot in layout::snapshots(&new)? {
            rewrite(&snapshot.dir)?;
        }
        File::open(self.lxcpath().as_path())
            .and_then(|dir| dir.sync_all())
            .map_err(|error| self.io(CALL, "the lxcpath cannot be flushed", error))?;
        Self::open_for(CALL, self.lxcpath(), name).map(Outcome::Done)
    }
}
