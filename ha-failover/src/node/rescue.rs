//! Keeping aside what the victim of a split brain has written: its store, as Btrfs streams in files.

use std::fs::{self, File};
use std::path::Path;

use btrfs_ops::{Access, DeleteOptions, SendOptions, Subvolume};
use node_ops::mounts::{self, MountOptions};
use serde_json::json;

use super::Node;
use crate::error::chain;
use crate::ledger::{read_json, write_json};
use crate::planner::rescue_mount;
use crate::world::{Done, Failure, FailureKind, World};

const RECORD: &str = "kept.json";
/// The read-only snapshots that are sent; they go with the store.
const SNAPSHOTS: &str = ".ha-failover-rescue";

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Failed, message)
}

fn btrfs(e: &btrfs_ops::Error) -> Failure {
    failed(chain(e))
}

fn host(e: &node_ops::Error) -> Failure {
    failed(chain(e))
}

impl Node {
    /// Mounts the store apart, and writes its top and every container into a file each.
    pub(super) fn keep_aside(&self, into: &Path) -> std::result::Result<Done, Failure> {
        let record = into.join(RECORD);
        let io = |e: std::io::Error| failed(format!("{}: {e}", into.display()));
        if read_json::<serde_json::Value>(&record)
            .map_err(|e| failed(e.chain()))?
            .is_some()
        {
            if self.open.as_deref() == Some("resolve-split-brain") {
                return Ok(Done::already().note(into.display().to_string()));
            }
            return Err(failed(format!(
                "{}: something was kept there before",
                into.display()
            ))
            .remedy("name another directory"));
        }
        fs::create_dir_all(into).map_err(io)?;
        let rescue = rescue_mount(&self.resource.name);
        fs::create_dir_all(&rescue).map_err(io)?;
        self.wanted()?;
        // Writable, for the log to be replayed and for snapshots to be made: all of it will be given up.
        mounts::mount_btrfs(&self.device(), &rescue, &MountOptions::new()).map_err(|e| host(&e))?;
        let kept = self.streams(&rescue, into);
        let unmounted = mounts::unmount(&rescue).map_err(|e| host(&e));
        let kept = kept?;
        unmounted?;
        let text = json!({"version": 1, "resource": self.resource.name, "node": self.name, "at": self.wall(), "streams": kept});
        write_json(&record, &text).map_err(|e| failed(e.chain()))?;
        Ok(Done::now().note(format!("{} streams in {}", kept.len(), into.display())))
    }

    fn streams(&self, store: &Path, into: &Path) -> std::result::Result<Vec<String>, Failure> {
        let below = self
            .resource
            .lxcpath
            .strip_prefix(&self.resource.mount)
            .unwrap_or(Path::new(""));
        let containers = store.join(below);
        // Configurations and all that lies beside the containers' trees are in the top.
        let mut sources = vec![("top".to_owned(), store.to_owned())];
        if let Ok(entries) = fs::read_dir(&containers) {
            for entry in entries.flatten() {
                let rootfs = entry.path().join("rootfs");
                if btrfs_ops::is_subvolume(&rootfs).unwrap_or(false) {
                    sources.push((
                        format!("container-{}", entry.file_name().to_string_lossy()),
                        rootfs,
                    ));
                }
            }
        }
        sources.sort();
        let snapshots = store.join(SNAPSHOTS);
        fs::create_dir_all(&snapshots)
            .map_err(|e| failed(format!("{}: {e}", snapshots.display())))?;
        let mut names = Vec::new();
        for (name, source) in sources {
            self.wanted()?;
            let at = snapshots.join(&name);
            btrfs_ops::delete_path(&at, &DeleteOptions::new().absent_is_success())
                .map_err(|e| btrfs(&e))?;
            let source = Subvolume::open(&source).map_err(|e| btrfs(&e))?;
            let snapshot = source
                .snapshot_path(&at, Access::ReadOnly)
                .map_err(|e| btrfs(&e))?;
            let path = into.join(format!("{name}.btrfs"));
            let shown = path.display().to_string();
            let mut file = File::create(&path).map_err(|e| failed(format!("{shown}: {e}")))?;
            let stream = snapshot.send(&SendOptions::new()).map_err(|e| btrfs(&e))?;
            stream.copy_to(&mut file).map_err(|e| {
                btrfs(&e).remedy("name a directory with more room; nothing was given up")
            })?;
            file.sync_all()
                .map_err(|e| failed(format!("{shown}: {e}")))?;
            names.push(name);
        }
        Ok(names)
    }
}
