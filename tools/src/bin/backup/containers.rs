//! Containers: frozen for a snapshot, made again of one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use btrfs_ops::{
    Access, DeleteOptions, Freeze, Member, ReceiveOptions, SendOptions, Subvolume, delete_nested,
    filesystem_info, receive, snapshot_group,
};
use lxc_rs::{AttachCommand, ConfigFile, Container, LxcPath, StartOptions};
use serde_json::{Value, json};
use std::os::fd::AsFd;

use crate::cli::What;
use crate::store::{self, Entry, State};

/// Freezes what runs.
struct Freezer {
    containers: Vec<Container>,
    frozen: Vec<Container>,
    deadline: Duration,
}

type Hook = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Freeze for Freezer {
    fn freeze(&mut self) -> Hook {
        for container in std::mem::take(&mut self.containers) {
            let outcome = container.freeze(self.deadline);
            // One that may be frozen has to be thawed as well.
            self.frozen.push(container);
            outcome?.done()?;
        }
        Ok(())
    }

    fn thaw(&mut self) -> Hook {
        let mut result = Ok(());
        for container in &self.frozen {
            if let Err(error) = container
                .unfreeze(self.deadline)
                .and_then(|outcome| outcome.done())
            {
                result = Err(error.into());
            }
        }
        result
    }
}

pub(crate) fn snapshot(
    names: &[String],
    lxcpath: &Path,
    into: &Path,
    freeze: bool,
    deadline: Duration,
) -> Result<Value> {
    let lxcpath = LxcPath::new(lxcpath)?;
    let named = !names.is_empty();
    let names = if named {
        names.to_vec()
    } else {
        let all = lxc_rs::names(&lxcpath)?;
        all.iter().map(|name| name.as_str().to_owned()).collect()
    };
    let mut taken = Vec::new();
    let mut running = Vec::new();
    for name in &names {
        let container = Container::open(&lxcpath, name.as_str())?;
        let rootfs = container.rootfs()?.filter(|rootfs| rootfs.is_subvolume());
        let Some(rootfs) = rootfs else {
            ensure!(
                !named,
                "container {name}: its root file system is not a Btrfs subvolume"
            );
            continue;
        };
        let source = Subvolume::open(&rootfs.path)?;
        let directory = into.join(name);
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let parent = File::open(&directory).with_context(|| directory.display().to_string())?;
        let config = fs::read(container.config_file())
            .with_context(|| container.config_file().display().to_string())?;
        taken.push((name.clone(), source, directory, parent, config));
        if freeze && container.is_up()? {
            running.push(container);
        }
    }
    ensure!(!taken.is_empty(), "no container here has a Btrfs subvolume");
    let stamp = store::name_of(jiff::Timestamp::now());
    let members: Vec<_> = taken
        .iter()
        .map(|(_, source, _, parent, _)| Member {
            source,
            parent: parent.as_fd(),
            name: stamp.clone().into(),
        })
        .collect();
    let frozen = running.len();
    let mut freezer = Freezer {
        containers: running,
        frozen: Vec::new(),
        deadline,
    };
    let group = snapshot_group(&members, Access::ReadOnly, &mut freezer)?;
    for (_, _, directory, _, config) in &taken {
        store::write_whole(&store::config_path(&directory.join(&stamp)), config)?;
    }
    Ok(json!({
        "snapshot": stamp,
        "containers": taken.iter().map(|(name, ..)| name).collect::<Vec<_>>(),
        "frozen": frozen,
        "frozen_ms": group.frozen.as_secs_f64() * 1000.0,
        "transactions": group.transactions,
        "single_transaction": group.single_transaction(),
    }))
}

/// Takes away what a restore that failed has made.
struct Undo(Option<PathBuf>);

impl Undo {
    fn now(&mut self) -> Result<()> {
        let Some(dir) = self.0.take() else {
            return Ok(());
        };
        let fd = File::open(&dir).with_context(|| dir.display().to_string())?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if btrfs_ops::is_subvolume(entry.path())? {
                delete_nested(&fd, entry.file_name(), &DeleteOptions::new())?;
            }
        }
        fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let _ = self.now();
    }
}

/// The snapshot that is meant, with all that are there.
fn chosen(what: &What) -> Result<(PathBuf, Vec<Entry>, Entry)> {
    let dir = what.from.join(&what.container);
    let all = store::entries(&dir)?;
    let entry = match &what.snapshot {
        Some(name) => all.iter().find(|entry| entry.name == *name),
        None => all.last(),
    };
    let entry = entry.cloned().with_context(|| {
        let name = what.snapshot.as_deref().unwrap_or("any");
        format!("{}: no such snapshot: {name}", dir.display())
    })?;
    Ok((dir, all, entry))
}

/// Makes the container and returns what takes it away again.
fn make(what: &What, name: &str, throw_away: bool) -> Result<(Undo, String)> {
    let (dir, all, entry) = chosen(what)?;
    let lxcpath = LxcPath::new(&what.lxcpath)?;
    lxc_rs::ContainerName::new(name)?;
    let home = lxcpath.as_path().join(name);
    fs::create_dir(&home).with_context(|| home.display().to_string())?;
    let undo = Undo(Some(home.clone()));
    let fd = File::open(&home)?;
    let snapshot = dir.join(&entry.name);
    match &entry.state {
        State::Subvolume(_) => {
            let source = Subvolume::open(&snapshot)?;
            if filesystem_info(&source)?.fsid == filesystem_info(&fd)?.fsid {
                source.snapshot(&fd, "rootfs", Access::ReadWrite)?;
            } else {
                let options = ReceiveOptions::new().name("restored");
                receive(&fd, source.send(&SendOptions::new())?, &options)?;
            }
        }
        State::Stream { .. } => {
            for step in store::chain(&all, &entry.name)? {
                let path = store::stream_path(&dir, &step);
                let file = File::open(&path).with_context(|| path.display().to_string())?;
                let last = if step == entry.name {
                    "restored"
                } else {
                    &step
                };
                receive(&fd, file, &ReceiveOptions::new().name(last))
                    .with_context(|| path.display().to_string())?;
            }
        }
    }
    let restored = home.join("restored");
    if restored.exists() {
        Subvolume::open(&restored)?.snapshot(&fd, "rootfs", Access::ReadWrite)?;
        for left in fs::read_dir(&home)? {
            let left = left?.file_name();
            if left != "rootfs" {
                delete_nested(&fd, left, &DeleteOptions::new())?;
            }
        }
    }
    let mut config = ConfigFile::read(store::config_path(&snapshot))?;
    let rootfs = format!("btrfs:{}", home.join("rootfs").display());
    config.set("lxc.rootfs.path", rootfs);
    config.set("lxc.uts.name", name);
    if throw_away {
        // It must not answer for the one that it is a copy of.
        let nets: Vec<_> = config
            .items()
            .map(|item| item.key.to_owned())
            .filter(|key| key.starts_with("lxc.net") || key.starts_with("lxc.start"))
            .collect();
        for key in nets {
            config.remove(&key);
        }
        config.set("lxc.net.0.type", "empty");
    }
    config.write(home.join("config"))?;
    Ok((undo, entry.name))
}

pub(crate) fn restore(what: &What, name: &str) -> Result<Value> {
    let (mut undo, snapshot) = make(what, name, false)?;
    undo.0 = None;
    Ok(json!({ "container": name, "snapshot": snapshot, "of": what.container }))
}

pub(crate) fn restore_test(what: &What, run: &str, deadline: Duration) -> Result<Value> {
    let began = Instant::now();
    let name = format!("{}-restore-test-{}", what.container, std::process::id());
    let (mut undo, snapshot) = make(what, &name, true)?;
    let restored = began.elapsed();
    let lxcpath = LxcPath::new(&what.lxcpath)?;
    let container = Container::open(&lxcpath, name.as_str())?;
    let tried = (|| -> Result<()> {
        container.start(&StartOptions::new(), deadline)?.done()?;
        let output = container
            .attach_run(&AttachCommand::shell(run), deadline)?
            .done()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!(
                "{run:?} in the restored container: {}: {text}",
                output.status
            );
        }
        Ok(())
    })();
    // Gone in any case; why it failed goes before that it could not be stopped.
    let stopped = container.stop(deadline).and_then(|outcome| outcome.done());
    drop(container);
    tried?;
    stopped?;
    undo.now()?;
    Ok(json!({
        "of": what.container,
        "snapshot": snapshot,
        "command": run,
        "restored_ms": restored.as_secs_f64() * 1000.0,
        "all_ms": began.elapsed().as_secs_f64() * 1000.0,
    }))
}
