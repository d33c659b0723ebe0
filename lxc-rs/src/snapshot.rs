//! Snapshots of a container.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clone::CloneOptions;
use crate::config_file::ConfigFile;
use crate::container::{Container, Ended, Nothing, exists, run};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{self, Snapshot};
use crate::partial;
use crate::path::ContainerName;
use crate::rootfs::Rootfs;
use crate::state::Outcome;
use crate::tree;
use crate::wire::{Reply, Restore, Verb};

/// How a snapshot is taken.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SnapshotOptions {
    comment: Option<Vec<u8>>,
    allow_copy: bool,
}

impl SnapshotOptions {
    /// Without a comment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes to keep with the snapshot.
    pub fn comment(mut self, comment: impl Into<Vec<u8>>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Allows what liblxc does for a root file system that is no subvolume: a
    /// full copy, file by file. Without this it is refused.
    pub fn allow_copy(mut self) -> Self {
        self.allow_copy = true;
        self
    }
}

/// How a root file system is put back.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RestoreOptions {
    lose_nested: bool,
}

impl RestoreOptions {
    /// The careful way.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows to lose the subvolumes inside the present root file system (of
    /// container engines, for instance), which no snapshot contains. Without
    /// this a restore is refused if there are any.
    pub fn lose_nested_subvolumes(mut self) -> Self {
        self.lose_nested = true;
        self
    }
}

impl Nothing for Snapshot {}

impl Container {
    /// Takes a snapshot of the stopped container: root file system,
    /// configuration, comment.
    ///
    /// With `btrfs:` it is a writable Btrfs snapshot, which takes no space and
    /// a moment; this is checked afterwards. Subvolumes inside the root file
    /// system are not in it, see [`Snapshot::nested_subvolumes`]. On disk when
    /// this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyRunning`]: liblxc takes no snapshots of running
    /// containers (freeze it and use [`Container::clone_to`] with
    /// [`CloneOptions::allow_running`]). [`ErrorKind::WrongDriver`] if the root file system
    /// is not `btrfs:` and the snapshot would be a copy. [`ErrorKind::Refused`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use lxc_rs::{Container, LxcPath, RestoreOptions, SnapshotOptions};
    ///
    /// let m1 = Container::open(&LxcPath::new("/srv/store1/containers")?, "m1")?;
    /// let long = Duration::from_secs(60);
    /// let options = SnapshotOptions::new().comment("before the upgrade");
    /// let snapshot = m1.snapshot(&options, long)?.done()?;
    /// m1.restore_snapshot(&snapshot.name, &RestoreOptions::new(), long)?.done()?;
    /// # Ok::<(), lxc_rs::Error>(())
    /// ```
    pub fn snapshot(
        &self,
        options: &SnapshotOptions,
        deadline: Duration,
    ) -> Result<Outcome<Snapshot>> {
        const CALL: &str = "snapshot";
        partial::refuse(CALL, self.lxcpath(), self.name())?;
        let rootfs = self.rootfs()?;
        self.check_driver(CALL, rootfs.as_ref(), options.allow_copy)?;
        let nested = rootfs.and_then(|rootfs| rootfs.nested_subvolumes().ok());
        let call = self.call(CALL, Verb::Snapshot, deadline);
        let number = match run(&call)? {
            Ended::Reply(Reply::Number { number }, _) => number,
            ended => return self.outcome(&call, ended),
        };
        let mut snapshot = self.find_snapshot(CALL, &format!("snap{number}"))?;
        if let Some(comment) = &options.comment {
            let file = snapshot.dir.join("comment");
            std::fs::write(&file, comment).map_err(|error| {
                let detail = format!("the snapshot is there, but not {}", file.display());
                self.io(CALL, &detail, error)
            })?;
            snapshot.comment = Some(comment.clone());
        }
        if !options.allow_copy && !snapshot.is_subvolume() {
            let detail = format!("{} is no subvolume but a copy", snapshot.dir.display());
            return Err(self.error(CALL, ErrorKind::WrongDriver, detail));
        }
        self.flush(CALL)?;
        snapshot.nested_subvolumes = nested.unwrap_or(0);
        Ok(Outcome::Done(snapshot))
    }

    /// The snapshots, in the order of their numbers. Does not fork.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] or [`ErrorKind::NoPermission`].
    #[doc(alias = "snapshot_list")]
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        layout::snapshots(&self.dir())
    }

    /// Puts the stopped container back to a snapshot, which stays.
    ///
    /// The new root file system stands before the old one is touched, and they
    /// change places in one step; then the configuration is replaced by that
    /// of the snapshot, and the old root file system deleted. Hardware address
    /// and host name are those of the snapshot. (liblxc's own restore destroys
    /// the original first, so that a crash in between loses it, and draws new
    /// addresses and names.) Hooks for clones are not run.
    ///
    /// If the machine dies meanwhile, the container has the old or the new
    /// root file system, and the same restore again finishes the work. A
    /// handle opened before still has the old configuration in memory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SnapshotMissing`]; [`ErrorKind::AlreadyRunning`];
    /// [`ErrorKind::NestedSubvolumes`]; [`ErrorKind::WrongDriver`] unless
    /// container and snapshot are both on `btrfs:`; [`ErrorKind::Io`] with the
    /// path and the errno.
    ///
    /// # Privileges
    ///
    /// Root: Btrfs lets others take snapshots of their own subvolumes only.
    #[doc(alias = "snapshot_restore")]
    pub fn restore_snapshot(
        &self,
        snapshot: &str,
        options: &RestoreOptions,
        deadline: Duration,
    ) -> Result<Outcome> {
        const CALL: &str = "restore_snapshot";
        partial::refuse(CALL, self.lxcpath(), self.name())?;
        let snapshot = self.find_snapshot(CALL, snapshot)?;
        let rootfs = self.rootfs()?;
        self.check_driver(CALL, rootfs.as_ref(), false)?;
        let (Some(rootfs), Some(from)) = (rootfs, snapshot.rootfs.clone()) else {
            let detail = "there is no root file system to put back";
            return Err(self.error(CALL, ErrorKind::RootfsMissing, detail));
        };
        if !snapshot.is_subvolume() {
            let detail = format!("{} is no subvolume", from.path.display());
            return Err(self.error(CALL, ErrorKind::WrongDriver, detail));
        }
        if tree::ordinary_user() {
            let detail = "it takes a snapshot of a subvolume that belongs to somebody inside, \
                which only root may: make a new container of it, by restore_snapshot_as";
            return Err(self.error(CALL, ErrorKind::NoPermission, detail));
        }
        let nested = rootfs
            .nested_subvolumes()
            .map_err(|error| self.io(CALL, "the root file system cannot be examined", error))?;
        if nested > 0 && !options.lose_nested {
            let detail = format!(
                "{} has {nested} subvolumes inside, which are in no snapshot and would be lost",
                rootfs.path.display()
            );
            return Err(self.error(CALL, ErrorKind::NestedSubvolumes, detail));
        }
        let config = self.restored_config(CALL, &snapshot, &rootfs)?;
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let restore = Restore {
            from: bytes(&from.path),
            aside: bytes(&aside(&rootfs.path)),
            rootfs: bytes(&rootfs.path),
            config_file: bytes(&self.config_file()),
            config: config.to_bytes(),
        };
        let call = self.call(CALL, Verb::Restore { restore }, deadline);
        self.outcome(&call, run(&call)?)
    }

    /// Makes a new container of a snapshot. The options say whether it keeps
    /// host name and hardware addresses.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SnapshotMissing`], and as [`Container::clone_to`].
    pub fn restore_snapshot_as(
        &self,
        snapshot: &str,
        name: ContainerName,
        options: &CloneOptions,
        deadline: Duration,
    ) -> Result<Outcome<Self>> {
        const CALL: &str = "restore_snapshot_as";
        let snapshot = self.find_snapshot(CALL, snapshot)?;
        let Some(place) = snapshot.dir.parent() else {
            return Err(self.error(CALL, ErrorKind::SnapshotMissing, "it has no place"));
        };
        // A snapshot is laid out as a container whose lxcpath is the place.
        let place = self.lxcpath().sibling(place)?;
        let source = Self::open_for(CALL, &place, ContainerName::new(snapshot.name)?)?;
        let into = options.lxcpath_or(self.lxcpath());
        source.clone_for(CALL, name, &options.clone().lxcpath(&into), deadline)
    }

    /// Destroys a snapshot. There is no way back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SnapshotMissing`], [`ErrorKind::Refused`].
    #[doc(alias = "snapshot_destroy")]
    pub fn destroy_snapshot(&self, snapshot: &str, deadline: Duration) -> Result<Outcome> {
        const CALL: &str = "destroy_snapshot";
        let snapshot = self.find_snapshot(CALL, snapshot)?;
        let verb = Verb::SnapshotDestroy {
            snapshot: snapshot.name.into_bytes(),
        };
        let call = self.call(CALL, verb, deadline);
        self.outcome(&call, run(&call)?)
    }

    /// Destroys the stopped container and its snapshots. The snapshots go
    /// first: if the rest fails, they are gone already.
    ///
    /// # Errors
    ///
    /// As [`Container::destroy`], save [`ErrorKind::HasSnapshots`].
    pub fn destroy_with_snapshots(self, deadline: Duration) -> Result<Outcome> {
        let call = self.call("destroy_with_snapshots", Verb::DestroyAll, deadline);
        self.outcome(&call, run(&call)?)
    }

    fn find_snapshot(&self, call: &'static str, name: &str) -> Result<Snapshot> {
        let mut found = self.snapshots()?.into_iter();
        found.find(|snapshot| snapshot.name == name).ok_or_else(|| {
            let detail = format!("there is no snapshot {name:?}");
            self.error(call, ErrorKind::SnapshotMissing, detail)
        })
    }

    /// Refuses what would be a copy where a Btrfs snapshot is meant.
    pub(crate) fn check_driver(
        &self,
        call: &'static str,
        rootfs: Option<&Rootfs>,
        allow_copy: bool,
    ) -> Result<()> {
        let error = |kind, detail| Err(self.error(call, kind, detail));
        match rootfs {
            Some(rootfs) if rootfs.loses_btrfs() => {
                let path = rootfs.path.display();
                let detail = format!(
                    "its root file system is configured as {path} and would be copied: make it btrfs:{path}"
                );
                error(ErrorKind::WrongDriver, detail)
            }
            Some(rootfs) if !exists(&rootfs.path) && rootfs.driver.as_deref() == Some("btrfs") => {
                let detail = format!(
                    "its root file system {} is not there",
                    rootfs.path.display()
                );
                error(ErrorKind::RootfsMissing, detail)
            }
            Some(rootfs) if !allow_copy && rootfs.driver.as_deref() != Some("btrfs") => {
                let driver = rootfs.driver.as_deref().unwrap_or("dir");
                let detail = format!(
                    "its root file system is of driver {driver}, and would be copied file by file"
                );
                error(ErrorKind::WrongDriver, detail)
            }
            _ => Ok(()),
        }
    }

    /// The configuration of a snapshot, as the container's: paths in the
    /// snapshot's directory become paths in the container's.
    fn restored_config(
        &self,
        call: &'static str,
        snapshot: &Snapshot,
        rootfs: &Rootfs,
    ) -> Result<ConfigFile> {
        let file = snapshot.dir.join("config");
        let text = std::fs::read(&file)
            .map_err(|error| self.io(call, "the snapshot's configuration cannot be read", error))?;
        let text = layout::rebase(&text, &snapshot.dir, &self.dir());
        let mut config = ConfigFile::parse(&text);
        config.set("lxc.rootfs.path", rootfs.to_value());
        Ok(config)
    }

    /// What liblxc wrote beside the subvolume, on disk.
    pub(crate) fn flush(&self, call: &'static str) -> Result<()> {
        let dir = std::fs::File::open(self.lxcpath().as_path());
        dir.and_then(|dir| Ok(nix::unistd::syncfs(&dir)?))
            .map_err(|error: std::io::Error| {
                Error::io(call, "flushing failed", error).at(self.lxcpath().as_path())
            })
    }
}

/// Where a root file system grows and an old one goes away.
fn aside(rootfs: &Path) -> PathBuf {
    let mut name = OsStr::new(".").to_owned();
    name.push(rootfs.file_name().unwrap_or_default());
    name.push(".restore");
    rootfs.with_file_name(name)
}
