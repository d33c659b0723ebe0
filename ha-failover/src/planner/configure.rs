//! Bringing a resource up and down, and day 0.

use std::time::Duration;

use super::{Planner, QUICK, UUID_JUST_CREATED};
use crate::facts::{BackingDisk, Disk, Drbd, Replication, Role};
use crate::finding::Code;
use crate::plan::Action;

impl Planner<'_> {
    /// One partition on each disk that drbd.conf uses by a partition.
    pub(super) fn partition(&mut self, erase: bool) {
        let facts = self.facts;
        let name = self.name();
        if facts.whole_disks.is_empty() && facts.conf.problem.is_none() {
            let disks: Vec<_> = facts
                .conf
                .volumes
                .values()
                .map(|v| v.disk.display().to_string())
                .collect();
            self.warn(
                Code::NothingToDo,
                &name,
                format!("drbd.conf uses no partition: {}", disks.join(", ")),
                "name a partition there (`disk /dev/sdb1`) if there should be one",
            );
        }
        for (&volume, whole) in &facts.whole_disks {
            let subject = whole.disk.display().to_string();
            if let Some(problem) = &whole.problem {
                self.error(
                    Code::DiskUnusable,
                    subject,
                    problem,
                    "check `disk` in drbd.conf and what uses the device",
                );
                continue;
            }
            if facts
                .drbd
                .as_ref()
                .and_then(|d| d.volumes.get(&volume))
                .is_some_and(|v| v.disk != Disk::Diskless)
            {
                self.warn(
                    Code::NothingToDo,
                    subject,
                    format!("{} is attached", whole.partition.display()),
                    "nothing is to do",
                );
                continue;
            }
            if whole.number != 1 {
                self.error(
                    Code::DiskUnusable,
                    subject,
                    format!(
                        "drbd.conf uses {}, and only the first partition can be made here",
                        whole.partition.display()
                    ),
                    "use the first partition in drbd.conf, or make the table by hand",
                );
                continue;
            }
            if let Some(BackingDisk::Metadata {
                just_created: false,
                current_uuid,
                ..
            }) = facts.disks.get(&volume)
            {
                self.error(
                    Code::DiskNotBlank,
                    whole.partition.display().to_string(),
                    format!("it holds DRBD metadata of generation {current_uuid:016X}: a store was on it"),
                    "if that is not needed any more, erase it by hand (`wipefs --all DEVICE`) and run the command again",
                );
                continue;
            }
            if whole.exists && !erase {
                self.warn(
                    Code::NothingToDo,
                    subject,
                    format!("{} is there", whole.partition.display()),
                    "`--erase \"who: why\"` would make it anew",
                );
                continue;
            }
            if !whole.holds.is_empty() && !erase {
                self.error(
                    Code::DiskNotBlank,
                    subject,
                    format!("it holds {}", whole.holds.join(", ")),
                    format!("if none of that is needed any more: `failover partition {name} --erase \"who: why\"`"),
                );
                continue;
            }
            if !whole.holds.is_empty() {
                self.warn(
                    Code::DiskNotBlank,
                    subject,
                    format!("it holds {}, which will be gone", whole.holds.join(", ")),
                    "accepted by the operator",
                );
            }
            self.step(
                Action::Partition {
                    volume,
                    disk: whole.disk.clone(),
                    partition: whole.partition.clone(),
                },
                Duration::from_secs(120),
            );
        }
    }

    /// Module, metadata, activity log, attach, connect; ends as Secondary.
    pub(super) fn configure(&mut self, create: bool, settle: Duration) {
        let facts = self.facts;
        let drbd_deadline = self.resource.deadlines.drbd;
        self.module();
        if facts.conf.problem.is_some() {
            return;
        }
        if !facts.mount.point_exists {
            let path = self.resource.mount.clone();
            self.step(Action::EnsureDirectory { path }, QUICK);
        }
        if !facts.module.loaded {
            let helper = facts.module.wanted_helper.clone();
            self.step(Action::LoadModule { helper }, Duration::from_secs(30));
        }
        let attached = facts.drbd.as_ref().is_some_and(Drbd::attached);
        if !attached {
            for (&number, conf) in &facts.conf.volumes {
                let disk = conf.disk.clone();
                let subject = disk.display().to_string();
                if facts
                    .drbd
                    .as_ref()
                    .and_then(|d| d.volumes.get(&number))
                    .is_some_and(|v| v.disk != Disk::Diskless)
                {
                    continue;
                }
                match facts.disks.get(&number) {
                    Some(BackingDisk::Blank) if create => {
                        self.step(Action::CreateMetadata { volume: number, disk }, Duration::from_secs(120));
                    }
                    Some(BackingDisk::Blank) => self.error(
                        Code::MetadataMissing,
                        subject,
                        format!("volume {number} of {} has no DRBD metadata", self.name()),
                        format!("if this disk is new, run `failover prepare {}`; otherwise find out what happened to it", self.name()),
                    ),
                    Some(BackingDisk::Metadata { needs_activity_log: true, .. }) => {
                        self.step(Action::ApplyActivityLog { volume: number, disk }, Duration::from_secs(120));
                    }
                    Some(BackingDisk::Metadata { .. }) => {}
                    Some(&BackingDisk::Grown { from }) => {
                        self.step(Action::MoveMetadata { volume: number, disk, from }, Duration::from_secs(120));
                    }
                    Some(BackingDisk::Other { what }) => self.error(
                        Code::DiskNotBlank,
                        subject,
                        format!("it holds {what}"),
                        "if that is not needed any more, erase it by hand (`wipefs --all DEVICE`) and run the command again",
                    ),
                    Some(BackingDisk::Unusable { why }) => self.error(Code::DiskUnusable, subject, why, "check `disk` in drbd.conf and what uses the device"),
                    None => {}
                }
            }
        }
        // Attached by somebody else, it may still promote whoever opens the device.
        let promotes = facts.drbd.as_ref().and_then(|d| d.auto_promote) == Some(true);
        if !attached || promotes {
            self.step(Action::Attach, drbd_deadline);
        }
        if facts.drbd.as_ref().is_none_or(Drbd::given_up) {
            self.step(Action::Connect, drbd_deadline);
        }
        if !facts.drbd.as_ref().is_some_and(Drbd::settled) {
            self.step(Action::Settle, settle);
        }
        self.step(Action::RecordSeen, QUICK);
    }

    pub(super) fn down(&mut self) {
        let name = self.name();
        if self.facts.mount.store.is_some() || !self.facts.mount.elsewhere.is_empty() {
            self.error(
                Code::Serving,
                &name,
                "its store is mounted",
                format!("run `failover stop {name}` first"),
            );
        } else if self.is_primary() {
            self.error(
                Code::Serving,
                &name,
                "this node is Primary",
                format!("run `failover stop {name}` first"),
            );
        }
        if self.facts.drbd.is_some() {
            self.step(Action::TakeDown, self.resource.deadlines.drbd);
        }
    }

    pub(super) fn initialize(&mut self, wait_sync: bool) {
        let name = self.name();
        let deadlines = self.resource.deadlines.clone();
        let Some(drbd) = self.running_resource() else {
            return;
        };
        self.connected(drbd);
        let resuming = self.open_is("initialize") && drbd.role == Role::Primary;
        let ledger = &self.facts.ledger;
        if !resuming {
            let fresh = drbd.all_disks(Disk::Inconsistent)
                && drbd.all_peer_disks(Disk::Inconsistent)
                && drbd.volumes.values().all(|v| {
                    v.current_uuid == Some(UUID_JUST_CREATED) && v.replication == Replication::Idle
                })
                && drbd.role == Role::Secondary
                && drbd.peer_role != Role::Primary
                && ledger.epoch == 0
                && ledger.fsid.is_none();
            if !fresh {
                let seen: Vec<_> = drbd
                    .volumes
                    .iter()
                    .map(|(n, v)| {
                        format!(
                            "volume {n} {}/{} generation {}",
                            v.disk,
                            v.peer_disk,
                            v.current_uuid
                                .map_or("unknown".into(), |u| format!("{u:016X}"))
                        )
                    })
                    .collect();
                self.error(
                    Code::NotDayZero,
                    &name,
                    format!("these are not two fresh disks: {}, epoch {}", seen.join(", "), ledger.epoch),
                    format!("if it was initialised before, use `failover start {name}` or `handover`; to begin anew, take it down on both nodes, wipe both metadata areas and remove both ledgers"),
                );
            }
        }
        if self
            .facts
            .missing_programs
            .iter()
            .any(|p| p == "mkfs.btrfs")
            && ledger.fsid.is_none()
        {
            self.error(
                Code::ProgramMissing,
                "mkfs.btrfs",
                "the program is not there",
                "install btrfs-progs",
            );
        }
        self.fit_to_mount_only();
        let device = self.device();
        if drbd.role != Role::Primary {
            self.step(Action::InitializeFromHere, deadlines.promote);
        }
        if ledger.fsid.is_none() && self.facts.mount.store.is_none() {
            self.step(
                Action::MakeFilesystem {
                    device: device.clone(),
                },
                Duration::from_secs(120),
            );
        }
        if self.facts.mount.store.is_none() {
            self.step(
                Action::Mount {
                    device,
                    target: self.resource.mount.clone(),
                },
                deadlines.mount,
            );
        }
        self.step(
            Action::EnsureDirectory {
                path: self.resource.lxcpath.clone(),
            },
            QUICK,
        );
        self.step(Action::VerifyStore, QUICK);
        self.step(Action::Claim { takeover: false }, QUICK);
        if wait_sync {
            self.step(Action::AwaitSync, deadlines.sync);
            self.step(Action::RecordSeen, QUICK);
        }
    }
}
