//! Larger disks: what they offer, where their metadata is, and taking them into use.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use btrfs_ops::Size;
use drbd_md::{LastKnown, Placement, Target};
use drbd_nl::Dialect;
use node_ops::partitions;

use super::Node;
use super::act::{Performed, Retry, failed, outcome};
use crate::error::chain;
use crate::facts::{BackingFacts, Disk, Facts};
use crate::ledger::{Backing, Ledger};
use crate::world::{Done, Failure, FailureKind};

impl Node {
    /// Sizes by the kernel's word; the disks themselves are not read, because they may hang.
    pub(super) fn backing(&self, ledger: &Ledger) -> BTreeMap<u16, BackingFacts> {
        let volumes = self.conf.facts.volumes.iter();
        volumes
            .filter_map(|(number, volume)| {
                let size = partitions::size(&volume.disk).ok()?;
                let noted = ledger.backing.get(number);
                let offers = match self.conf.targets.get(number)?.placement() {
                    Placement::Internal => noted.and_then(|b| {
                        drbd_md::internal_usable(size, b.max_peers, b.al_bytes).map(|s| s.bytes())
                    }),
                    _ => Some(size),
                };
                let may_skip_log = noted.is_some_and(|b| b.max_peers == 1)
                    && self.dialect().is_ok_and(|d| d == Dialect::V9);
                let noted = noted.map(|b| b.size);
                Some((
                    *number,
                    BackingFacts {
                        size,
                        noted,
                        offers,
                        may_skip_log,
                    },
                ))
            })
            .collect()
    }

    /// Notes attached disks whose metadata is at the end of another size than the one noted.
    pub(super) fn note_backing(&self, facts: &Facts, ledger: &mut Ledger) {
        for (number, backing) in &facts.backing {
            let volume = facts.drbd.as_ref().and_then(|d| d.volumes.get(number));
            let attached = volume.is_some_and(|v| v.disk > Disk::Failed);
            if !attached || backing.noted == Some(backing.size) {
                continue;
            }
            let Some(target) = self.conf.targets.get(number) else {
                continue;
            };
            // A disk that has grown and is not taken into use yet has none at its end.
            if target.placement() == Placement::Internal
                && let Ok(sb) = drbd_md::read(target)
            {
                let al = u64::from(sb.al_stripes) * u64::from(sb.al_stripe_size_4k) * 4096;
                let note = Backing::new(backing.size, sb.max_peers, al);
                ledger.backing.insert(*number, note);
            }
        }
    }

    /// Leaves drbd-utils the sizes of the disks, by which they find metadata after a disk was grown.
    pub(super) fn leave_notes(&self) -> std::result::Result<(), Failure> {
        let ledger = self.state.ledger().map_err(|e| failed(e.chain()))?;
        for (number, volume) in &self.conf.facts.volumes {
            let Some(backing) = ledger.backing.get(number) else {
                continue;
            };
            let Some(Ok(sb)) = self.conf.targets.get(number).map(drbd_md::read) else {
                continue;
            };
            let note = LastKnown::new(backing.size, &volume.disk, &sb);
            let path = LastKnown::path(volume.minor);
            let written = path.parent().map_or(Ok(()), fs::create_dir_all);
            written
                .and_then(|()| fs::write(&path, note.to_string()))
                .map_err(|e| failed(format!("{}: {e}", path.display())))?;
        }
        Ok(())
    }

    pub(super) fn move_metadata(&self, volume: u16, disk: &Path, from: u64) -> Performed {
        let target = self.target(volume, disk)?;
        self.wanted()?;
        let moved = drbd_md::move_after_grow(&target, from).map_err(|e| failed(chain(&e)))?;
        Ok(match moved.from {
            Some(_) => Done::now().note(format!("{} MiB for data", moved.usable.bytes() >> 20)),
            None => Done::already(),
        })
    }

    /// The kernel asks the peer for its size, which takes a moment; the request itself does not wait.
    pub(super) fn grow_device(&self, volume: u16, deadline: Duration) -> Performed {
        let size = || -> std::result::Result<u64, Failure> {
            let seen = self.observed()?;
            let volume = seen.volumes.get(&volume);
            volume.and_then(|v| v.size).ok_or_else(|| {
                failed(format!(
                    "{}: DRBD tells no size of the device",
                    self.resource.name
                ))
            })
        };
        let before = size()?;
        let ledger = self.state.ledger().map_err(|e| failed(e.chain()))?;
        let backing = self.backing(&ledger).remove(&volume);
        let offers = backing.and_then(|b| b.offers);
        if offers == Some(before) {
            return Ok(Done::already());
        }
        let operation = self.conf.resize(self.dialect()?, volume).map_err(failed)?;
        self.wanted()?;
        let mut retry = Retry::within(deadline);
        outcome(self.run(&operation, retry.left())?, &operation.to_string())?;
        loop {
            let now = size()?;
            if now > before {
                return Ok(Done::now().note(format!("{} -> {} MiB", before >> 20, now >> 20)));
            }
            if !retry.again() {
                let peer = self.peer()?;
                return Err(Failure::new(
                    FailureKind::Timeout,
                    format!(
                        "{}: it stays at {} MiB: the disk of {peer} offers no more",
                        self.resource.name,
                        before >> 20
                    ),
                )
                .remedy(format!(
                    "make the disk of {peer} larger, run `failover grow {}` there, then here again",
                    self.resource.name
                )));
            }
        }
    }
}

/// The size that a device had when it still ended where DRBD metadata is; `None` if there is none.
pub(super) fn size_before(target: &Target, noted: Option<u64>, minor: Option<u32>) -> Option<u64> {
    if target.placement() != Placement::Internal {
        return None;
    }
    // Who ran it before us may have left a note, too.
    let other = minor
        .and_then(|minor| fs::read_to_string(LastKnown::path(minor)).ok())
        .and_then(|text| LastKnown::parse(&text));
    let sizes = noted.into_iter().chain(other.map(|note| note.size));
    sizes
        .into_iter()
        .find(|size| matches!(drbd_md::read_before_grow(target, *size), Ok(Some(_))))
}

pub(super) fn grow_store(target: &Path) -> Performed {
    let named = |e: &dyn std::error::Error| failed(format!("{}: {}", target.display(), chain(e)));
    let store = fs::File::open(target).map_err(|e| named(&e))?;
    let devices = btrfs_ops::devices(&store).map_err(|e| named(&e))?;
    let [device] = &devices[..] else {
        return Err(failed(format!(
            "{}: a file system on {} devices, not on one",
            target.display(),
            devices.len()
        )));
    };
    let resized = btrfs_ops::resize(&store, device.id, Size::Max).map_err(|e| named(&e))?;
    let (before, after) = (resized.before.0, resized.after.0);
    Ok(if before == after {
        Done::already()
    } else {
        Done::now().note(format!("{} -> {} MiB", before >> 20, after >> 20))
    })
}
