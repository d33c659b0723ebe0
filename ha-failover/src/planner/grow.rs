//! Larger disks: partition, DRBD's device, file system.
//!
//! DRBD grows a device to what both disks offer, and only while one node is
//! Primary. So the side that does not serve only prepares its disk, and the side
//! that serves does the rest.

use std::time::Duration;

use super::{Planner, QUICK};
use crate::facts::{Disk, Role};
use crate::finding::Code;
use crate::plan::Action;

/// A file system ends at a whole sector of its own.
const SECTOR: u64 = 64 << 10;

/// What the kernel takes as a new size of a Btrfs at least.
const LEAST: u64 = 256 << 20;

impl Planner<'_> {
    pub(super) fn grow(&mut self, peer_offers: Option<u64>, wait_sync: bool) {
        let facts = self.facts;
        let name = self.name();
        let peer = self.peer();
        let Some(drbd) = self.running_resource() else {
            return;
        };
        self.connected(drbd);
        if drbd.role != Role::Primary && drbd.peer_role != Role::Primary {
            self.error(
                Code::NotPrimary,
                &name,
                "neither node is Primary, and DRBD grows a device only while one is",
                format!("`failover start {name}` on its owner first"),
            );
        }
        let serves = drbd.role == Role::Primary;
        let store = facts.mount.store.clone();
        if serves {
            match &store {
                None => self.error(
                    Code::StoreNotMounted,
                    self.resource.mount.display().to_string(),
                    "a file system can grow only while it is mounted",
                    format!("`failover start {name}` first"),
                ),
                Some(store) => self.mounted_store(store),
            }
        }
        let (mut larger, mut used) = (false, Vec::new());
        for (&number, conf) in &facts.conf.volumes {
            let Some(volume) = drbd.volumes.get(&number) else {
                continue;
            };
            let disk = conf.disk.display().to_string();
            let mut grows = false;
            if let Some(whole) = facts.whole_disks.get(&number) {
                match (whole.room, &whole.no_room) {
                    (Some((now, possible)), _) if possible > now => {
                        grows = true;
                        self.step(
                            Action::GrowPartition {
                                volume: number,
                                disk: whole.disk.clone(),
                                number: whole.number,
                                to: possible,
                            },
                            QUICK,
                        );
                    }
                    (None, Some(why)) => self.warn(
                        Code::PartitionNotGrowable,
                        &disk,
                        why,
                        "if its disk has room, grow the partition by other means, then run this again",
                    ),
                    _ => {}
                }
            }
            let backing = facts.backing.get(&number);
            let offers = backing.and_then(|b| b.offers);
            let size = volume.size.unwrap_or(0);
            // Not known what it offers: only a device that is larger than it was can offer more.
            grows |= match (offers, backing) {
                (Some(offers), _) => offers > size,
                (None, Some(backing)) => backing.noted.is_none() && backing.size > size,
                _ => false,
            };
            used.push(format!(
                "{disk} of volume {number} is used with {} MiB",
                size >> 20
            ));
            larger |= grows;
            if !grows || !serves {
                continue;
            }
            if number == self.resource.volume
                && let Some(theirs) = peer_offers.filter(|theirs| *theirs <= size)
            {
                self.error(
                    Code::PeerDiskSmaller,
                    &name,
                    format!(
                        "the disk of {peer} offers {} MiB, and {} MiB are in use: DRBD takes what both offer",
                        theirs >> 20,
                        size >> 20
                    ),
                    format!("make that disk larger, run `failover grow {name}` on {peer}, then here again"),
                );
            }
            self.step(
                Action::GrowDevice {
                    volume: number,
                    device: conf.device.clone(),
                },
                self.resource.deadlines.drbd,
            );
        }
        let grows_device = |s: &crate::plan::Step| matches!(s.action, Action::GrowDevice { .. });
        let device = self.steps.iter().any(grows_device);
        if device || !serves {
            self.both_in_sync(drbd);
        }
        if device {
            self.warn(
                Code::PeerDiskNotUpToDate,
                &name,
                format!("the new part is synced to {peer} afterwards; until that ends its disk is not UpToDate, and it cannot take over"),
                format!("choose the time; `failover wait-sync {name}` waits for it"),
            );
        }
        let size = drbd.volumes.get(&self.resource.volume).and_then(|v| v.size);
        let short = match (store.and_then(|s| s.size), size) {
            (Some(store), Some(size)) => size >= store + SECTOR,
            _ => false,
        };
        if serves && (device || short) {
            let of_store = self.resource.volume;
            let partition = self.steps.iter().find_map(|s| match s.action {
                Action::GrowPartition { volume, to, .. } if volume == of_store => Some(to),
                _ => None,
            });
            let backing = facts.backing.get(&of_store).filter(|_| device);
            let will_be = partition.or(backing.and_then(|b| b.offers)).or(size);
            if let Some(will_be) = will_be.filter(|s| *s < LEAST) {
                self.error(
                    Code::StoreTooSmall,
                    self.resource.mount.display().to_string(),
                    format!(
                        "it would have {} MiB, and Btrfs takes no new size below 256 MiB",
                        will_be >> 20
                    ),
                    "make the disks larger than that",
                );
            }
            let target = self.resource.mount.clone();
            self.step(Action::GrowStore { target }, Duration::from_secs(120));
        }
        let noted = facts.backing.iter().all(|(number, b)| {
            let volume = drbd.volumes.get(number);
            b.noted == Some(b.size) || volume.is_none_or(|v| v.disk == Disk::Diskless)
        });
        if !self.steps.is_empty() || (serves && !noted) {
            if wait_sync && serves {
                self.step(Action::AwaitSync, self.resource.deadlines.sync);
            }
            self.step(Action::RecordSeen, QUICK);
        } else if larger {
            self.warn(
                Code::NothingToDo,
                &name,
                "this node's disk offers more already",
                format!("run `failover grow {name}` on {peer}, which serves"),
            );
        } else {
            self.error(
                Code::NothingToGrow,
                &name,
                format!(
                    "the disk here offers no more than is used: {}",
                    used.join(", ")
                ),
                "make the disk larger first, on both nodes",
            );
        }
    }
}
