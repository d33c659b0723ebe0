//! Bringing a resource up and down, and day 0.

use std::time::Duration;

use super::{Planner, QUICK, UUID_JUST_CREATED};
use crate::facts::{BackingDisk, Disk, Drbd, Link, Replication, Role};
use crate::finding::Code;
use crate::plan::Action;

impl Planner<'_> {
    pub(super) fn prepare(&mut self) {
        self.configure(true);
    }

    pub(super) fn up(&mut self) {
        self.configure(false);
    }

    /// Module, metadata, activity log, attach, connect; ends as Secondary.
    pub(super) fn configure(&mut self, create: bool) {
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
            self.step(Action::Attach, drbd_deadline);
        }
        let link = facts.drbd.as_ref().and_then(|d| d.link);
        if matches!(link, None | Some(Link::StandAlone)) {
            self.step(Action::Connect, drbd_deadline);
        }
        if link != Some(Link::Connected) {
            self.step(Action::Settle, self.resource.deadlines.connect);
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
