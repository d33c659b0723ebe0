//! Snapshots in directories: ours, a target's, and stream files.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use btrfs_ops::stream::{Command as Item, Reader, verify};
use btrfs_ops::{
    ReceiveOptions, SendOptions, Subvolume, SubvolumeInfo, Uuid, incremental, is_subvolume, receive,
};
use jiff::Timestamp;
use jiff::fmt::strtime;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli;

/// How snapshots are named, in UTC.
const NAME: &str = "%Y%m%dT%H%M%SZ";
const STREAM: &str = ".stream";

pub(crate) fn name_of(time: Timestamp) -> String {
    time.strftime(NAME).to_string()
}

pub(crate) fn time_of(name: &str) -> Option<Timestamp> {
    let time = strtime::parse(NAME, name).ok()?.to_datetime().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// A snapshot in a directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Subvolume(Box<SubvolumeInfo>),
    Stream {
        bytes: u64,
        uuid: Option<Uuid>,
        parent: Option<Uuid>,
    },
}

impl Entry {
    pub(crate) fn time(&self) -> Option<Timestamp> {
        time_of(&self.name)
    }

    /// The UUID that the sender's snapshot has, or that it was received from.
    pub(crate) fn origin(&self) -> Option<Uuid> {
        match &self.state {
            State::Subvolume(info) => btrfs_ops::origin(info),
            State::Stream { uuid, .. } => *uuid,
        }
    }
}

/// The entries of a directory, oldest first; of none if there is no directory.
pub(crate) fn entries(dir: &Path) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let names = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        names => names.with_context(|| dir.display().to_string())?,
    };
    for name in names {
        let name = name.with_context(|| dir.display().to_string())?.file_name();
        // Names of ours are text.
        let Some(name) = name.to_str() else { continue };
        let path = dir.join(name);
        if time_of(name).is_some() && is_subvolume(&path)? {
            let info = Subvolume::open(&path)?.info()?;
            let state = State::Subvolume(Box::new(info));
            found.push(Entry {
                name: name.to_owned(),
                state,
            });
        } else if let Some(stem) = name.strip_suffix(STREAM).filter(|s| time_of(s).is_some()) {
            found.push(Entry {
                name: stem.to_owned(),
                state: stream_state(&path)?,
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn stream_state(path: &Path) -> Result<State> {
    let shown = || path.display().to_string();
    let file = File::open(path).with_context(shown)?;
    let bytes = file.metadata().with_context(shown)?.len();
    let mut reader = Reader::new(file);
    let (uuid, parent) = match reader.next().with_context(shown)? {
        Some(Item::Subvol { uuid, .. }) => (uuid, None),
        Some(Item::Snapshot {
            uuid, clone_uuid, ..
        }) => (uuid, clone_uuid),
        _ => bail!("{}: no subvolume begins it", path.display()),
    };
    Ok(State::Stream {
        bytes,
        uuid,
        parent,
    })
}

/// The containers that have a directory in `dir`.
pub(crate) fn containers(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(name) = entry.file_name().to_str()
            && !name.starts_with('.')
        {
            found.push(name.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// Where snapshots are sent.
pub(crate) enum Target {
    Btrfs(PathBuf),
    Files(PathBuf),
    Via { program: Vec<String>, dir: PathBuf },
}

impl Target {
    pub(crate) fn new(target: &cli::Target) -> Result<Self> {
        Self::of(target.to.clone(), target.files, target.via.as_deref())
    }

    pub(crate) fn optional(target: &cli::OptionalTarget) -> Result<Option<Self>> {
        let to = target.to.clone();
        to.map(|to| Self::of(to, target.files, target.via.as_deref()))
            .transpose()
    }

    fn of(dir: PathBuf, files: bool, via: Option<&str>) -> Result<Self> {
        Ok(match via {
            Some(via) => {
                let program: Vec<_> = via.split_whitespace().map(str::to_owned).collect();
                ensure!(!program.is_empty(), "--via is empty");
                Self::Via { program, dir }
            }
            None if files => Self::Files(dir),
            None => Self::Btrfs(dir),
        })
    }

    /// What it has of a container.
    pub(crate) fn entries(&self, container: &str) -> Result<Vec<Entry>> {
        match self {
            Self::Btrfs(dir) | Self::Files(dir) => entries(&dir.join(container)),
            Self::Via { program, dir } => {
                let output = remote(program, &["--json", "list"], dir)
                    .stdin(Stdio::null())
                    .stderr(Stdio::inherit())
                    .output()
                    .with_context(|| program.join(" "))?;
                ensure!(
                    output.status.success(),
                    "{} list: {}",
                    program.join(" "),
                    output.status
                );
                let mut all: BTreeMap<String, Vec<Entry>> = serde_json::from_slice(&output.stdout)
                    .with_context(|| format!("{} list: what it printed", program.join(" ")))?;
                Ok(all.remove(container).unwrap_or_default())
            }
        }
    }
}

/// What runs this program on another machine. ssh makes one line of all
/// arguments, and a shell there reads it.
fn remote(program: &[String], arguments: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).args(arguments);
    if Path::new(&program[0]).file_name() == Some(OsStr::new("ssh")) {
        command.arg(quoted(dir.as_os_str()));
    } else {
        command.arg(dir);
    }
    command
}

/// As one word of a shell.
fn quoted(text: &OsStr) -> OsString {
    let mut word = b"'".to_vec();
    for &byte in text.as_bytes() {
        match byte {
            b'\'' => word.extend(b"'\\''"),
            byte => word.push(byte),
        }
    }
    word.push(b'\'');
    OsString::from_vec(word)
}

/// Sends all snapshots of a container that the target lacks, oldest first.
pub(crate) fn send(from: &Path, container: &str, target: &Target) -> Result<Vec<Value>> {
    let ours = entries(&from.join(container))?;
    let infos: Vec<_> = ours
        .iter()
        .filter_map(|entry| match &entry.state {
            State::Subvolume(info) => Some((**info).clone()),
            State::Stream { .. } => None,
        })
        .collect();
    let mut sent = Vec::new();
    for entry in &ours {
        let State::Subvolume(info) = &entry.state else {
            continue;
        };
        let theirs = target.entries(container)?;
        let there = as_infos(&infos, &theirs);
        let plan = incremental(info, &infos, &there);
        if plan.already.is_some() {
            continue;
        }
        ensure!(
            theirs.iter().all(|other| other.name != entry.name),
            "{container}/{}: the target has another snapshot of this name",
            entry.name
        );
        let path = from.join(container).join(&entry.name);
        let snapshot = Subvolume::open(&path)?;
        let mut options = SendOptions::new();
        if let Some(parent) = plan.parent {
            options = options.parent(parent.id);
        }
        let bytes = send_one(&snapshot, &path, &options, container, target)
            .with_context(|| format!("send {}", path.display()))?;
        let parent = plan.parent.and_then(|parent| {
            let name = |entry: &Entry| match &entry.state {
                State::Subvolume(info) if info.id == parent.id => Some(entry.name.clone()),
                _ => None,
            };
            ours.iter().find_map(name)
        });
        sent.push(json!({
            "container": container,
            "snapshot": entry.name,
            "parent": parent,
            "why": plan.parent.map(|parent| parent.relation),
            "bytes": bytes,
        }));
    }
    Ok(sent)
}

/// A target's entries as the planner takes them. A stream file stands for what
/// receiving it would give.
fn as_infos(ours: &[SubvolumeInfo], theirs: &[Entry]) -> Vec<SubvolumeInfo> {
    let of = |entry: &Entry| match &entry.state {
        State::Subvolume(info) => Some((**info).clone()),
        State::Stream { uuid, .. } => {
            let mut same = ours
                .iter()
                .find(|info| uuid.is_some() && btrfs_ops::origin(info) == *uuid)?
                .clone();
            (same.received_uuid, same.uuid) = (*uuid, None);
            Some(same)
        }
    };
    theirs.iter().filter_map(of).collect()
}

fn config_of(snapshot: &Path) -> Result<Vec<u8>> {
    let path = config_path(snapshot);
    fs::read(&path).with_context(|| path.display().to_string())
}

pub(crate) fn config_path(snapshot: &Path) -> PathBuf {
    let mut name = snapshot.as_os_str().to_owned();
    name.push(".config");
    name.into()
}

/// Writes a file that is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| path.display().to_string())
}

fn send_one(
    snapshot: &Subvolume,
    path: &Path,
    options: &SendOptions,
    container: &str,
    target: &Target,
) -> Result<u64> {
    let config = config_of(path)?;
    let name = path.file_name().unwrap_or_default();
    match target {
        Target::Btrfs(dir) => {
            let into = dir.join(container);
            fs::create_dir_all(&into).with_context(|| into.display().to_string())?;
            // Before the snapshot: what has a snapshot has its configuration.
            write_whole(&config_path(&into.join(name)), &config)?;
            let stream = snapshot.send(options)?;
            let fd = File::open(&into).with_context(|| into.display().to_string())?;
            Ok(receive(&fd, stream, &ReceiveOptions::new())?.bytes.0)
        }
        Target::Files(dir) => {
            let into = dir.join(container);
            fs::create_dir_all(&into).with_context(|| into.display().to_string())?;
            write_whole(&config_path(&into.join(name)), &config)?;
            let path = |suffix: &str| {
                let mut name = name.to_owned();
                name.push(suffix);
                into.join(name)
            };
            let (part, whole) = (path(".part"), path(STREAM));
            let result = stream_to_file(snapshot, options, &part, &whole);
            if result.is_err() {
                let _ = fs::remove_file(&part);
            }
            result
        }
        Target::Via { program, dir } => {
            let bytes = config.len().to_string();
            let name = name.to_str().context("a name that is no text")?;
            let arguments = [
                "receive",
                "--config-bytes",
                &bytes,
                "--name",
                name,
                "--into",
            ];
            let mut child = remote(program, &arguments, &dir.join(container))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .with_context(|| program.join(" "))?;
            let mut pipe = child.stdin.take().context("no pipe to the command")?;
            let sent = pipe
                .write_all(&config)
                .map_err(anyhow::Error::from)
                .and_then(|()| Ok(snapshot.send(options)?.copy_to(&mut pipe)?));
            drop(pipe);
            let status = child.wait()?;
            // Why the other side stopped, before that it did.
            ensure!(status.success(), "{} receive: {status}", program.join(" "));
            Ok(sent?.bytes.0)
        }
    }
}

fn stream_to_file(
    snapshot: &Subvolume,
    options: &SendOptions,
    part: &Path,
    whole: &Path,
) -> Result<u64> {
    let shown = || part.display().to_string();
    let file = File::create(part).with_context(shown)?;
    snapshot.send_to(&file, options)?;
    file.sync_all().with_context(shown)?;
    // What is not right now will not be right when it is needed.
    let summary = verify(File::open(part).with_context(shown)?)?;
    fs::rename(part, whole).with_context(shown)?;
    File::open(whole.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(summary.bytes.0)
}

/// The receiving end of [`Target::Via`].
pub(crate) fn receive_from(
    mut input: impl Read,
    into: &Path,
    name: &str,
    config_bytes: u64,
) -> Result<Value> {
    ensure!(time_of(name).is_some(), "{name}: not a snapshot's name");
    fs::create_dir_all(into).with_context(|| into.display().to_string())?;
    let mut config = Vec::new();
    ensure!(
        config_bytes <= 1 << 20,
        "a configuration of {config_bytes} bytes"
    );
    input.by_ref().take(config_bytes).read_to_end(&mut config)?;
    ensure!(
        config.len() as u64 == config_bytes,
        "the input ends in the configuration"
    );
    // Before the snapshot: what has a snapshot has its configuration.
    write_whole(&config_path(&into.join(name)), &config)?;
    let fd = File::open(into).with_context(|| into.display().to_string())?;
    let received = receive(&fd, input, &ReceiveOptions::new().name(name))?;
    Ok(serde_json::to_value(received)?)
}

/// The stream files that receiving `name` takes, in their order.
pub(crate) fn chain(all: &[Entry], name: &str) -> Result<Vec<String>> {
    let mut needed = vec![name.to_owned()];
    let mut at = name.to_owned();
    loop {
        let entry = all.iter().find(|entry| entry.name == at);
        let Some(Entry {
            state: State::Stream { parent, .. },
            ..
        }) = entry
        else {
            bail!("{at}: no such stream file");
        };
        let Some(parent) = parent else { break };
        let base = all.iter().find(|entry| entry.origin() == Some(*parent));
        let base = base.with_context(|| format!("{at} builds on {parent}, which is not here"))?;
        ensure!(
            !needed.contains(&base.name),
            "{at}: the stream files build on each other"
        );
        at.clone_from(&base.name);
        needed.push(at.clone());
    }
    needed.reverse();
    Ok(needed)
}

pub(crate) fn stream_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{STREAM}"))
}

/// All stream files below `path`, or `path` itself.
pub(crate) fn stream_files(path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    let mut names: Vec<_> = fs::read_dir(path)
        .with_context(|| path.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    for path in names {
        if path.is_dir() {
            stream_files(&path, found)?;
        } else if path
            .as_os_str()
            .as_encoded_bytes()
            .ends_with(STREAM.as_bytes())
        {
            found.push(path);
        }
    }
    Ok(())
}
