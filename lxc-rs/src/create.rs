//! Creating a container on a Btrfs subvolume.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config;
use crate::container::{Container, Ended, Nothing, broken, ended, exists, outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::idmap::IdMap;
use crate::log::{LogLevel, LogLine};
use crate::partial;
use crate::path::{ContainerName, LxcPath};
use crate::rootfs;
use crate::runner::{Call, Next};
use crate::state::Outcome;
use crate::sys::Object;
use crate::tree;
use crate::wire::{Edit, Event, Filled, Owner, Reply, Verb};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Populate<'a> = Box<dyn FnOnce(&Path) -> std::result::Result<(), BoxError> + 'a>;

/// A container to create: its name, its configuration and what its root file
/// system holds.
#[must_use = "a specification creates nothing until it is given to `Container::create`"]
pub struct CreateSpec<'a> {
    name: ContainerName,
    config: Vec<(String, OsString)>,
    tree: Option<PathBuf>,
    populate: Option<Populate<'a>>,
}

impl<'a> CreateSpec<'a> {
    /// An empty root file system and no configuration but its place and the
    /// host name, which is the container's name, or the first 64 bytes of it.
    pub fn new(name: ContainerName) -> Self {
        Self {
            name,
            config: Vec::new(),
            tree: None,
            populate: None,
        }
    }

    /// Adds a configuration item; keys that are lists are added to. The
    /// system's default configuration is not used.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.config.push((key.into(), value.into()));
        self
    }

    /// Copies a directory tree into the root file system: all kinds of files
    /// with owner, mode, times, extended attributes and hard links; data is
    /// shared with the original where both are on the same Btrfs.
    pub fn tree(mut self, source: impl Into<PathBuf>) -> Self {
        self.tree = Some(source.into());
        self
    }

    /// Fills the root file system, after the tree if there is one. If it
    /// fails, everything is taken back.
    pub fn populate<E: Into<BoxError>>(
        mut self,
        with: impl FnOnce(&Path) -> std::result::Result<(), E> + 'a,
    ) -> Self {
        self.populate = Some(Box::new(|rootfs| with(rootfs).map_err(Into::into)));
        self
    }
}

impl fmt::Debug for CreateSpec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateSpec")
            .field("name", &self.name)
            .field("config", &self.config)
            .field("tree", &self.tree)
            .field("populate", &self.populate.is_some())
            .finish()
    }
}

impl Nothing for Container {}

impl Container {
    /// Creates a container whose root file system is a new Btrfs subvolume.
    ///
    /// liblxc makes the directory, the subvolume and the configuration, and
    /// holds the mark of an unfinished creation while the root file system is
    /// filled. If filling fails, or this process dies meanwhile, liblxc takes
    /// everything back; if the machine dies, the mark stays and
    /// [`Container::open`] says so. When this returns, the root file system
    /// and the configuration are on disk.
    ///
    /// With `lxc.idmap` what fills the root file system sees ids as they are
    /// inside; then everything is given to those who stand for them outside.
    ///
    /// The deadline is looked at between the steps: what fills the root file
    /// system is not interrupted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotBtrfs`]; [`ErrorKind::AlreadyDefined`] if anything has
    /// that name; [`ErrorKind::ConfigRejected`]; [`ErrorKind::Populate`] with
    /// the cause as its source; [`ErrorKind::Unsupported`] for a root file
    /// system of one's own; [`ErrorKind::NotMapped`] for a user who is not root
    /// without `lxc.idmap`. After an error nothing is left.
    ///
    /// # Privileges
    ///
    /// Root; or a user with ids in `/etc/subuid` and `/etc/subgid` that the
    /// configuration maps by `lxc.idmap`, and the programs `newuidmap`,
    /// `newgidmap` (package uidmap) and `lxc-usernsexec`, which liblxc runs. What
    /// such a user puts into the root file system becomes that of the root
    /// inside; a tree keeps its owners. Users inside have to be let through to
    /// the lxcpath (`chmod a+x` on the way). Destroying it needs the mount option
    /// `user_subvol_rm_allowed`, and limits a cgroup that was given to the user.
    pub fn create(
        lxcpath: &LxcPath,
        spec: CreateSpec<'_>,
        deadline: Duration,
    ) -> Result<Outcome<Self>> {
        let CreateSpec {
            name,
            config,
            tree,
            populate,
        } = spec;
        let mut call = Call {
            name: "create",
            lxcpath,
            container: &name,
            edits: Vec::new(),
            verb: Verb::Create,
            deadline,
        };
        if !lxcpath.is_btrfs()? {
            let detail = "the lxcpath is not on a Btrfs file system, so there can be no subvolume";
            return Err(call.error(ErrorKind::NotBtrfs, detail));
        }
        let ordinary = tree::ordinary_user();
        partial::refuse("create", lxcpath, &name)?;
        let dir = lxcpath.container_dir(&name);
        if exists(&dir) {
            let detail = format!("{} is there already", dir.display());
            return Err(call.error(ErrorKind::AlreadyDefined, detail));
        }
        if !config.iter().any(|(key, _)| key == "lxc.uts.name") {
            call.edits
                .push(set("lxc.uts.name", OsStr::new(name.host_name())));
        }
        for (key, value) in &config {
            if key == "lxc.rootfs.path" {
                let detail = format!("a container cannot be created with {key} here");
                return Err(call.error(ErrorKind::Unsupported, detail));
            }
            if key.is_empty()
                || key.contains(['\0', '\n'])
                || value.as_bytes().iter().any(|byte| b"\0\n".contains(byte))
            {
                let detail = format!("{key:?} or its value has a NUL byte or newline in it");
                return Err(call.error(ErrorKind::InvalidInput, detail));
            }
            if key == "lxc.idmap" {
                // Asked for here and written later: with it liblxc would create
                // the container as those who stand for its users, which only
                // those have to bear who are not root.
                if !accepts(lxcpath, c"lxc.idmap", value) {
                    let detail = format!("liblxc rejects lxc.idmap = {}", value.display());
                    return Err(call.error(ErrorKind::ConfigRejected, detail));
                }
                if !ordinary {
                    continue;
                }
            }
            call.edits.push(set(key, value));
        }
        let ids = || config.iter().filter(|(key, _)| key == "lxc.idmap");
        let map = IdMap::parse(ids().map(|(_, value)| value.as_bytes()))
            .map_err(|error| call.error(ErrorKind::ConfigRejected, error.to_string()))?;
        if let Some(source) = &tree
            && !source.is_dir()
        {
            let detail = format!("{} is not a directory to copy", source.display());
            return Err(call.error(ErrorKind::InvalidInput, detail));
        }
        if ordinary && map.is_empty() {
            let detail =
                "who is not root needs lxc.idmap, with ids that /etc/subuid and /etc/subgid give";
            return Err(call.error(ErrorKind::NotMapped, detail));
        }
        let fill = |rootfs: &Path| -> std::result::Result<Vec<Owner>, BoxError> {
            let mut owners = Vec::new();
            if let Some(source) = &tree {
                owners = tree::copy(source, rootfs)?;
            }
            if let Some(populate) = populate {
                populate(rootfs)?;
            }
            if !ordinary && !map.is_empty() {
                tree::shift(rootfs, &map)?;
            }
            Ok(owners)
        };
        let created = conduct(&call, fill);
        let result = created.and_then(|outcome| match outcome {
            Outcome::Done(Configured(mut text)) => {
                for (_, value) in ids().filter(|_| !ordinary) {
                    text.extend([b"lxc.idmap = ", value.as_bytes(), b"\n"].concat());
                }
                // Without the comments about a template nobody chose, and on disk.
                config::replace_with(&dir.join("config"), &text)
                    .and_then(|()| File::open(lxcpath.as_path())?.sync_all())
                    .map_err(|error| {
                        call.error(ErrorKind::Io, "the configuration cannot be written")
                            .os(error)
                    })?;
                Self::open_for("create", lxcpath, name.clone()).map(Outcome::Done)
            }
            Outcome::Unknown(unknown) => Ok(Outcome::Unknown(unknown)),
        });
        result.map_err(|mut error| {
            // liblxc leaves it where it cannot give it to the root inside.
            let _ = fs::remove_dir(&dir);
            if let Some(why) = ordinary.then(|| without_ids(&error)).flatten() {
                error.add_detail(&why);
            }
            if exists(&dir) && error.kind() != ErrorKind::AlreadyDefined {
                error.add_detail(&format!("{} is left behind", dir.display()));
            }
            error
        })
    }
}

/// What liblxc mentions, as no error, and then fails for want of.
fn without_ids(error: &Error) -> Option<String> {
    let programs = ["newuidmap", "newgidmap"];
    let missing = |line: &&LogLine| {
        line.level < LogLevel::Error && programs.iter().any(|name| line.message.starts_with(name))
    };
    let missing = error.log().iter().find(missing)?;
    Some(format!("{} (package uidmap)", missing.message))
}

/// The configuration as liblxc wrote it before the "template" ran.
struct Configured(Vec<u8>);

impl Nothing for Configured {}

pub(crate) fn set(key: &str, value: &OsStr) -> Edit {
    Edit::Set {
        key: key.as_bytes().to_vec(),
        value: value.as_bytes().to_vec(),
    }
}

/// Whether liblxc takes the item, asked of a container that is not defined.
fn accepts(lxcpath: &LxcPath, key: &CStr, value: &OsStr) -> bool {
    let object = Object::open(lxcpath.library().clone(), c"idmap", lxcpath.c_path());
    let value = CString::new(value.as_bytes());
    matches!((object, value), (Some(object), Ok(value)) if object.set_config_item(key, &value))
}

/// Runs the creation; when liblxc has made the subvolume, fills it.
fn conduct(
    call: &Call<'_>,
    fill: impl FnOnce(&Path) -> std::result::Result<Vec<Owner>, BoxError>,
) -> Result<Outcome<Configured>> {
    let mut helper = call.begin(None)?;
    let rootfs = match helper.next(&[]) {
        Ok(Next::Event(Event::Populate { rootfs })) => PathBuf::from(OsString::from_vec(rootfs)),
        Ok(last) => return outcome(call, ended(helper, last)),
        Err(error) => return Err(broken(call, helper, error)),
    };
    let filled = prepare(call, &rootfs).and_then(|text| {
        let owners = fill(&rootfs).map_err(|cause| {
            let detail = format!("filling the root file system failed: {cause}");
            call.error(ErrorKind::Populate, detail).because(cause)
        })?;
        flush(&rootfs).map_err(|error| {
            call.error(ErrorKind::Io, "flushing the root file system failed")
                .os(error)
        })?;
        Ok((text, owners))
    });
    let late = helper.is_late();
    let (filled, answer) = match filled {
        Ok((text, owners)) => {
            let go_on = !late;
            (Ok(text), Filled { go_on, owners })
        }
        Err(error) => (Err(error), Filled::default()),
    };
    // Whichever way, liblxc now needs time of its own to finish or take back.
    helper.extend();
    let last = match helper.filled(&answer).and_then(|()| helper.next(&[])) {
        Ok(last) => last,
        Err(error) => return Err(broken(call, helper, error)),
    };
    let ended = ended(helper, last);
    match (filled, ended) {
        (Ok(text), Ended::Reply(Reply::Done, _)) => Ok(Outcome::Done(Configured(text))),
        (Ok(_), Ended::Reply(Reply::Failed { .. }, log)) if late => {
            let detail =
                "filling the root file system took longer than the deadline; nothing is left";
            Err(call.error(ErrorKind::Timeout, detail).with_log(log))
        }
        (Ok(_), ended) => outcome(call, ended),
        (Err(error), _) => Err(error),
    }
}

/// Checks what liblxc made, and keeps the configuration it wrote.
fn prepare(call: &Call<'_>, root: &Path) -> Result<Vec<u8>> {
    let dir = call.lxcpath.container_dir(call.container);
    if root != dir.join("rootfs") || !rootfs::is_subvolume(root) {
        let detail = format!(
            "liblxc made {}, which is not the subvolume asked for",
            root.display()
        );
        return Err(call.error(ErrorKind::NotBtrfs, detail));
    }
    fs::read(dir.join("config")).map_err(|error| {
        Error::io("create", "the new configuration cannot be read", error)
            .on(call.container.as_str(), call.lxcpath.as_path())
    })
}

fn flush(rootfs: &Path) -> std::io::Result<()> {
    let dir = File::open(rootfs)?;
    nix::unistd::syncfs(&dir)?;
    Ok(())
}
