#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::evidence::{Attestation, Power};
use crate::facts::{
    BackingDisk, ConfProblem, ConfVolume, ContainerFacts, ContainerState, Disk, Drbd, Link,
    OpenOperation, Replication, StoreMount, VolumeFacts,
};
use crate::finding::Severity;
use crate::placement::{Fence, Placement};
use crate::plan::Takeover;
use crate::sim::{Cluster, SimWorld};
use crate::world::World;

const PLACEMENT: &str = include_str!("../../examples/placement.toml");

fn resource() -> Resource {
    Placement::parse(PLACEMENT, "test")
        .unwrap()
        .resources
        .remove(0)
}

/// What node1 (serving) or node2 (not) sees when all is well.
fn healthy(node: &str) -> Facts {
    let cluster = Rc::new(RefCell::new(Cluster::serving(&resource())));
    let mut facts = SimWorld::new(&cluster, node).facts().unwrap();
    facts.bridges.insert("br0".into(), true);
    facts
}

fn errors(facts: &Facts, request: &Request) -> Vec<Code> {
    match plan(facts, &resource(), request) {
        Ok(_) => Vec::new(),
        Err(refusal) => refusal
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .map(|f| f.code)
            .collect(),
    }
}

fn warnings(facts: &Facts, request: &Request) -> Vec<Code> {
    plan(facts, &resource(), request)
        .unwrap()
        .findings
        .iter()
        .map(|f| f.code)
        .collect()
}

fn release() -> Request {
    Request::Release {
        peer_placement: None,
    }
}

fn handover() -> Request {
    Request::Handover {
        peer_placement: None,
    }
}

fn takeover() -> Request {
    Request::Takeover(Takeover {
        peer_power: Some(Power::Off),
        ..Takeover::default()
    })
}

/// node2 after node1 was lost: not connected, its own data current.
fn survivor() -> Facts {
    let mut facts = healthy("node2");
    let drbd = facts.drbd.as_mut().unwrap();
    drbd.link = Some(Link::Connecting);
    drbd.peer_role = Role::Unknown;
    for volume in drbd.volumes.values_mut() {
        volume.peer_disk = Disk::Unknown;
    }
    facts
}

fn drbd(facts: &mut Facts) -> &mut Drbd {
    facts.drbd.as_mut().unwrap()
}

fn volume(facts: &mut Facts) -> &mut VolumeFacts {
    drbd(facts).volumes.get_mut(&0).unwrap()
}

type Change = fn(&mut Facts);
type StoreChange = fn(&mut StoreMount);

#[test]
fn a_release_is_refused_before_anything_stops() {
    let cases: &[(Code, Change)] = &[
        (Code::NotPrivileged, |f| f.privileged = false),
        (Code::NodeNotInPlacement, |f| f.node = "node9".into()),
        (Code::ModuleNotLoaded, |f| f.module.loaded = false),
        (Code::ResourceDown, |f| f.drbd = None),
        (Code::IoSuspended, |f| {
            drbd(f).suspended = Some("no data".into())
        }),
        (Code::NotConnected, |f| {
            drbd(f).link = Some(Link::Connecting)
        }),
        (Code::SplitBrainSuspected, |f| {
            drbd(f).link = Some(Link::StandAlone)
        }),
        (Code::SplitBrainSuspected, |f| drbd(f).link = None),
        (Code::SplitBrain, |f| {
            drbd(f).link = Some(Link::Connecting);
            f.split_brain = Some("told".into());
        }),
        (Code::DiskNotUpToDate, |f| {
            volume(f).disk = Disk::Inconsistent
        }),
        (Code::PeerDiskNotUpToDate, |f| {
            volume(f).peer_disk = Disk::Inconsistent
        }),
        (Code::ResyncRunning, |f| {
            volume(f).replication = Replication::Busy
        }),
        (Code::MountHeld, |f| {
            f.mount.holders.push("process 7 (sh)".into())
        }),
        (Code::StoreMountedElsewhere, |f| {
            f.mount.elsewhere.push("/mnt".into())
        }),
        (Code::ContainerState, |f| {
            f.containers.insert(
                "web".into(),
                ContainerFacts::new(Some(ContainerState::Frozen)),
            );
        }),
        (Code::DrbdConfUnusable, |f| {
            f.conf.problem = Some(ConfProblem::Unusable(
                "/etc/drbd.conf:3:1: expected `;`".into(),
            ));
        }),
        (Code::DrbdConfPromotes, |f| f.conf.two_primaries = true),
        (Code::PlacementDisagreesWithDrbdConf, |f| {
            f.conf.peer = Some("nodeB".into())
        }),
        (Code::PlacementDisagreesWithDrbdConf, |f| {
            f.conf.peer_address = Some("10.0.254.3".into())
        }),
        (Code::PlacementDisagreesWithDrbdConf, |f| {
            f.conf.volumes.clear()
        }),
    ];
    assert_eq!(errors(&healthy("node1"), &release()), []);
    for (code, change) in cases {
        let mut facts = healthy("node1");
        change(&mut facts);
        assert_eq!(errors(&facts, &release()), [*code], "{code}");
    }
    let differs = Request::Release {
        peer_placement: Some("0000000000000000".into()),
    };
    assert_eq!(
        errors(&healthy("node1"), &differs),
        [Code::PlacementDiffers]
    );
    let mut idle = healthy("node2");
    drbd(&mut idle).peer_role = Role::Secondary;
    assert_eq!(errors(&idle, &release()), [Code::NotPrimary]);
}

#[test]
fn a_handover_is_refused_where_it_could_not_serve() {
    let cases: &[(Code, Change)] = &[
        (Code::MountPointMissing, |f| f.mount.point_exists = false),
        (Code::MountPointNotEmpty, |f| {
            f.mount.point_has_entries = true
        }),
        (Code::MountPointOccupied, |f| {
            f.mount.occupied_by = Some("tmpfs".into())
        }),
        (Code::StoreMountedElsewhere, |f| {
            f.mount.elsewhere.push("/mnt".into())
        }),
        (Code::BridgeMissing, |f| {
            f.bridges.insert("br0".into(), false);
        }),
        (Code::DiskNotUpToDate, |f| volume(f).disk = Disk::Outdated),
        (Code::NotConnected, |f| {
            drbd(f).link = Some(Link::Connecting)
        }),
    ];
    assert_eq!(errors(&healthy("node2"), &handover()), []);
    for (code, change) in cases {
        let mut facts = healthy("node2");
        change(&mut facts);
        assert_eq!(errors(&facts, &handover()), [*code], "{code}");
    }
    // Several at once are told at once.
    let mut facts = healthy("node2");
    for (_, change) in &cases[..5] {
        change(&mut facts);
    }
    let told = errors(&facts, &handover());
    assert!(told.len() >= 3, "{told:?}");
}

#[test]
fn a_mounted_store_must_be_the_right_one() {
    let cases: &[(Code, StoreChange)] = &[
        (Code::NotBtrfs, |s| s.fs_type = "ext4".into()),
        (Code::StoreReadOnly, |s| s.read_only = true),
        (Code::StoreIdDiffers, |s| s.fsid = Some("another".into())),
    ];
    for (code, change) in cases {
        let mut facts = healthy("node1");
        change(facts.mount.store.as_mut().unwrap());
        assert_eq!(errors(&facts, &Request::Start), [*code], "{code}");
    }
    let mut facts = healthy("node1");
    facts.containers.insert(
        "web".into(),
        ContainerFacts::new(Some(ContainerState::Missing)),
    );
    assert_eq!(errors(&facts, &Request::Start), [Code::ContainerMissing]);
    let mut facts = healthy("node1");
    facts.containers.get_mut("web").unwrap().problem = Some("unknown key lxc.betwork.type".into());
    facts.containers.get_mut("web").unwrap().autostart = true;
    assert_eq!(errors(&facts, &Request::Start), [Code::ContainerConfig]);
}

#[test]
fn a_takeover_wants_good_data_and_a_dead_peer() {
    assert_eq!(errors(&survivor(), &takeover()), []);
    let cases: &[(Code, Change)] = &[
        (Code::DiskNotUpToDate, |f| volume(f).disk = Disk::Consistent),
        (Code::DiskNotUpToDate, |f| volume(f).disk = Disk::Outdated),
        (Code::DiskNotUpToDate, |f| {
            volume(f).disk = Disk::Inconsistent
        }),
        (Code::SplitBrainSuspected, |f| {
            drbd(f).link = Some(Link::StandAlone)
        }),
        (Code::DataMayBeStale, |f| f.boot_id = "another boot".into()),
        (Code::DataMayBeStale, |f| f.ledger.current = None),
        (Code::MountPointNotEmpty, |f| {
            f.mount.point_has_entries = true
        }),
    ];
    for (code, change) in cases {
        let mut facts = survivor();
        change(&mut facts);
        assert_eq!(errors(&facts, &takeover()), [*code], "{code}");
    }
    // Alive by DRBD, whatever the operator says; dead by the fence agent, whatever DRBD has not noticed yet.
    let attested = Request::Takeover(Takeover {
        attest: Some(Attestation::new("me: I believe so").unwrap()),
        ..Takeover::default()
    });
    let told = errors(&healthy("node2"), &attested);
    assert_eq!(told, [Code::PeerConnected, Code::PeerPrimary]);
    assert_eq!(errors(&healthy("node2"), &takeover()), []);
    // Without a fence agent only words can do.
    let mut resource = resource();
    resource.fence = Fence::Operator;
    let refusal = plan(&survivor(), &resource, &takeover()).unwrap_err();
    assert!(refusal.because_of(Code::NoFenceMethod), "{refusal}");
    assert!(plan(&survivor(), &resource, &attested).is_ok());
}

#[test]
fn the_dangerous_way_is_named_and_recorded() {
    let mut facts = survivor();
    facts.ledger.current = None;
    volume(&mut facts).disk = Disk::Outdated;
    let words = Attestation::new("Ann: the other disk burned").unwrap();
    let request = Request::Takeover(Takeover {
        declare_data_current: Some(words.clone()),
        peer_power: Some(Power::Off),
        ..Takeover::default()
    });
    let plan = plan(&facts, &resource(), &request).unwrap();
    assert!(plan.steps.iter().any(|s| s.action
        == Action::DeclareDataCurrent {
            accepted: words.clone()
        }));
    let text = plan.to_string();
    assert!(
        text.contains("DECLARING LOCAL DATA CURRENT") && text.contains("the other disk burned"),
        "{text}"
    );
    assert!(plan.findings.iter().any(|f| f.code == Code::DataMayBeStale));
    // It accepts a loss of data, not a second owner.
    let mut connected = facts.clone();
    drbd(&mut connected).link = Some(Link::Connected);
    let alive = Request::Takeover(Takeover {
        declare_data_current: Some(words),
        peer_power: Some(Power::On),
        ..Takeover::default()
    });
    assert!(errors(&connected, &alive).contains(&Code::PeerConnected));
}

#[test]
fn a_returned_owner_asks_before_it_serves() {
    // Lost while it served, booted alone: DRBD says UpToDate and would promote.
    let mut facts = healthy("node1");
    facts.mount.store = None;
    facts.containers.values_mut().for_each(|c| c.state = None);
    facts.boot_id = "another boot".into();
    let drbd = drbd(&mut facts);
    drbd.role = Role::Secondary;
    drbd.link = Some(Link::Connecting);
    assert_eq!(errors(&facts, &Request::Start), [Code::AskThePeer]);
    assert_eq!(errors(&facts, &takeover()), [Code::DataMayBeStale]);
    // Connected to the node that took over.
    let drbd = facts.drbd.as_mut().unwrap();
    drbd.link = Some(Link::Connected);
    drbd.peer_role = Role::Primary;
    assert_eq!(errors(&facts, &Request::Start), [Code::PeerPrimary]);
    // Recorded that the peer owns it, and the peer is idle.
    facts.ledger.owner = Some("node2".into());
    facts.drbd.as_mut().unwrap().peer_role = Role::Secondary;
    assert_eq!(errors(&facts, &Request::Start), [Code::OwnedByPeer]);
}

#[test]
fn a_promotion_by_hand_is_noticed() {
    let mut facts = survivor();
    drbd(&mut facts).role = Role::Primary;
    assert_eq!(
        errors(&facts, &Request::Start),
        [Code::PrimaryWithoutRecord]
    );
    assert_eq!(errors(&facts, &handover()), [Code::PrimaryWithoutRecord]);
}

#[test]
fn day_zero_is_proved() {
    let mut facts = healthy("node1");
    facts.ledger = crate::ledger::Ledger::default();
    facts.mount.store = None;
    facts.containers.values_mut().for_each(|c| c.state = None);
    let drbd = drbd(&mut facts);
    drbd.role = Role::Secondary;
    let volume = drbd.volumes.get_mut(&0).unwrap();
    volume.disk = Disk::Inconsistent;
    volume.peer_disk = Disk::Inconsistent;
    volume.current_uuid = Some(UUID_JUST_CREATED);
    let request = Request::Initialize { wait_sync: false };
    assert_eq!(errors(&facts, &request), []);
    let cases: &[Change] = &[
        |f| volume_of(f).current_uuid = Some(0x1234),
        |f| volume_of(f).current_uuid = None,
        |f| volume_of(f).disk = Disk::UpToDate,
        |f| volume_of(f).peer_disk = Disk::UpToDate,
        |f| volume_of(f).replication = Replication::SyncTarget,
        |f| f.ledger.epoch = 1,
    ];
    for (n, change) in cases.iter().enumerate() {
        let mut facts = facts.clone();
        change(&mut facts);
        assert_eq!(errors(&facts, &request), [Code::NotDayZero], "case {n}");
    }
    facts.missing_programs.push("mkfs.btrfs".into());
    assert_eq!(errors(&facts, &request), [Code::ProgramMissing]);
}

fn volume_of(facts: &mut Facts) -> &mut VolumeFacts {
    volume(facts)
}

#[test]
fn up_says_what_is_wrong_with_the_disk() {
    let mut facts = healthy("node1");
    facts.drbd = None;
    facts.mount.store = None;
    facts.ledger = crate::ledger::Ledger::default();
    facts.conf.volumes.insert(
        0,
        ConfVolume {
            minor: 0,
            device: "/dev/drbd0".into(),
            disk: "/dev/vda".into(),
            peer_minor: Some(1),
        },
    );
    facts.disks.insert(0, BackingDisk::Blank);
    assert_eq!(errors(&facts, &Request::Up), [Code::MetadataMissing]);
    assert!(
        warnings(&facts, &Request::Prepare).contains(&Code::DrbdConfAdvice),
        "the minors differ"
    );
    facts.disks.insert(
        0,
        BackingDisk::Other {
            what: "ext4 at byte 1080".into(),
        },
    );
    assert_eq!(errors(&facts, &Request::Prepare), [Code::DiskNotBlank]);
    facts.disks.insert(
        0,
        BackingDisk::Unusable {
            why: "no such device".into(),
        },
    );
    assert_eq!(errors(&facts, &Request::Up), [Code::DiskUnusable]);
    facts.disks.insert(
        0,
        BackingDisk::Metadata {
            just_created: false,
            needs_activity_log: true,
            current_uuid: 8,
            consistent: true,
        },
    );
    let plan = plan(&facts, &resource(), &Request::Up).unwrap();
    let names: Vec<_> = plan.steps.iter().map(|s| s.action.name()).collect();
    assert_eq!(
        names,
        [
            "apply-activity-log",
            "attach",
            "connect",
            "settle",
            "record-seen"
        ]
    );
    assert!(!names.iter().any(|n| n.contains("promote")));
    facts.module.wanted_helper = "/usr/lib/ha-failover/drbd-helper".into();
    facts.module.helper = Some("/sbin/drbdadm".into());
    assert_eq!(errors(&facts, &Request::Up), [Code::ModuleHelperDiffers]);
}

#[test]
fn down_never_takes_a_store_away_from_its_containers() {
    assert_eq!(errors(&healthy("node1"), &Request::Down), [Code::Serving]);
    assert_eq!(errors(&healthy("node2"), &Request::Down), []);
}

#[test]
fn the_promise_is_stated() {
    let mut facts = healthy("node1");
    assert!(warnings(&facts, &release()).contains(&Code::WeakPromise));
    facts.conf.fencing = Some("resource-and-stonith".into());
    assert!(!warnings(&facts, &release()).contains(&Code::WeakPromise));
    facts.conf.protocol = Some("A".into());
    assert!(warnings(&facts, &release()).contains(&Code::WeakPromise));
    facts.conf.become_primary_on.push("node1".into());
    assert!(warnings(&facts, &release()).contains(&Code::DrbdConfPromotes));
    assert!(!warnings(&facts, &release()).contains(&Code::ActivityLogMayBeSkipped));
    let backing = crate::facts::BackingFacts {
        may_skip_log: true,
        ..Default::default()
    };
    facts.backing.insert(0, backing);
    assert!(warnings(&facts, &release()).contains(&Code::ActivityLogMayBeSkipped));
}

#[test]
fn a_rerun_plans_what_is_left_and_undoes_all() {
    let mut facts = healthy("node1");
    facts.open = Some(OpenOperation {
        id: "op".into(),
        request: "release".into(),
        began: "then".into(),
        last: Some("unmount (done)".into()),
        running: vec!["db".into(), "web".into()],
    });
    facts.mount.store = None;
    facts.containers.values_mut().for_each(|c| c.state = None);
    let plan = plan(&facts, &resource(), &release()).unwrap();
    let names: Vec<_> = plan.steps.iter().map(|s| s.action.name()).collect();
    assert_eq!(names, ["demote", "await-peer-primary", "record-peer-owns"]);
    let undo: Vec<_> = plan
        .undo
        .iter()
        .map(|u| (u.action.name(), u.once_begun))
        .collect();
    assert_eq!(
        undo,
        [
            ("promote", 0),
            ("mount", 0),
            ("start-container", 0),
            ("start-container", 0)
        ]
    );
    assert!(
        matches!(&plan.undo[2].action, Action::StartContainer { name } if name == "db"),
        "in start order"
    );
}

#[test]
fn a_plan_prints_and_serializes() {
    let mut facts = healthy("node1");
    facts.timings.extend(
        [("stop-container", 400), ("unmount", 30), ("demote", 20)]
            .map(|(n, ms)| (n.to_owned(), ms)),
    );
    let plan = plan(&facts, &resource(), &release()).unwrap();
    let text = plan.to_string();
    assert!(text.starts_with("plan: release r0 on node1\n"), "{text}");
    assert!(
        text.contains(" 1. ! stop container web [~400 ms, at most 45s]"),
        "{text}"
    );
    assert!(
        text.contains("this node's part was 850 ms in earlier runs"),
        "{text}"
    );
    assert!(text.contains("undone: become Primary, mount /dev/drbd0 at /srv/store1, start container db, start container web"), "{text}");
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    assert!(
        json.contains(r#""do":"stop-container","name":"web""#),
        "{json}"
    );
}

#[test]
fn a_disk_that_holds_something_is_not_partitioned() {
    let whole = |change: fn(&mut crate::facts::WholeDisk)| {
        let mut facts = healthy("node1");
        facts.drbd = None;
        let mut whole = crate::facts::WholeDisk {
            disk: "/dev/sdb".into(),
            partition: "/dev/sdb1".into(),
            number: 1,
            ..Default::default()
        };
        change(&mut whole);
        facts.whole_disks.insert(0, whole);
        facts
    };
    let request = |erase: bool| Request::Partition {
        erase: erase.then(|| Attestation::new("Ann: an old disk").unwrap()),
    };
    let steps = |facts: &Facts, erase| {
        plan(facts, &resource(), &request(erase))
            .unwrap()
            .steps
            .len()
    };
    assert_eq!(steps(&whole(|_| ()), false), 1);
    let holds = whole(|w| w.holds = vec!["ext4 (filesystem) at byte 1080".into()]);
    assert_eq!(errors(&holds, &request(false)), [Code::DiskNotBlank]);
    assert_eq!(steps(&holds, true), 1);
    // There already: nothing to do, unless asked for by name.
    let exists = whole(|w| w.exists = true);
    assert_eq!((steps(&exists, false), steps(&exists, true)), (0, 1));
    let other = whole(|w| w.number = 2);
    assert_eq!(errors(&other, &request(true)), [Code::DiskUnusable]);
    let broken = whole(|w| w.problem = Some("the kernel takes no writes for it".into()));
    assert_eq!(errors(&broken, &request(true)), [Code::DiskUnusable]);
    // A store was on it: no word is enough.
    let mut store = exists;
    store.disks.insert(
        0,
        BackingDisk::Metadata {
            just_created: false,
            needs_activity_log: false,
            current_uuid: 7,
            consistent: true,
        },
    );
    assert_eq!(errors(&store, &request(true)), [Code::DiskNotBlank]);
    // A whole disk in drbd.conf: nothing to do, and said so.
    assert_eq!(
        warnings(&healthy("node1"), &request(false))[0],
        Code::NothingToDo
    );
}

#[test]
fn the_owner_starts_while_the_peer_is_brought_up_to_date() {
    let mut facts = healthy("node1");
    drbd(&mut facts).role = Role::Secondary;
    facts.mount.store = None;
    volume(&mut facts).peer_disk = Disk::Inconsistent;
    volume(&mut facts).replication = Replication::SyncSource;
    assert!(warnings(&facts, &Request::Start).contains(&Code::PeerDiskNotUpToDate));
    volume(&mut facts).replication = Replication::Busy;
    assert!(errors(&facts, &Request::Start).contains(&Code::ResyncRunning));
    volume(&mut facts).replication = Replication::SyncTarget;
    volume(&mut facts).disk = Disk::Inconsistent;
    assert!(errors(&facts, &Request::Start).contains(&Code::DiskNotUpToDate));
}

#[test]
fn a_disk_with_errors_is_told_before_it_is_handed_over() {
    let mut facts = healthy("node1");
    facts.mount.store.as_mut().unwrap().device_errors = vec!["device 1: 3 failed writes".into()];
    assert!(warnings(&facts, &release()).contains(&Code::StoreErrors));
    assert!(warnings(&facts, &Request::Start).contains(&Code::StoreErrors));
}

/// What node1 (serving) or node2 (not) sees after its disk of 512 MiB was made 1 GiB.
fn larger(node: &str) -> Facts {
    let mut facts = healthy(node);
    volume(&mut facts).size = Some(511 << 20);
    if let Some(store) = &mut facts.mount.store {
        store.size = Some(511 << 20);
    }
    let backing = crate::facts::BackingFacts {
        size: 1024 << 20,
        noted: Some(512 << 20),
        offers: Some(1023 << 20),
        ..Default::default()
    };
    facts.backing.insert(0, backing);
    facts
}

fn steps(facts: &Facts, request: &Request) -> Vec<&'static str> {
    let plan = plan(facts, &resource(), request).unwrap();
    plan.steps.iter().map(|s| s.action.name()).collect()
}

#[test]
fn growing_is_one_plan_and_a_rerun_does_the_rest() {
    let grow = |peer_offers, wait_sync| Request::Grow {
        peer_offers,
        wait_sync,
    };
    let request = grow(None, false);
    let facts = larger("node1");
    assert_eq!(
        steps(&facts, &request),
        ["grow-device", "grow-store", "record-seen"]
    );
    assert!(warnings(&facts, &request).contains(&Code::PeerDiskNotUpToDate));
    assert_eq!(steps(&facts, &grow(None, true)).len(), 4);

    // What is done is not done again; the new part may still be synced then.
    let mut facts = larger("node1");
    volume(&mut facts).size = Some(1023 << 20);
    volume(&mut facts).peer_disk = Disk::Inconsistent;
    assert_eq!(steps(&facts, &request), ["grow-store", "record-seen"]);
    facts.mount.store.as_mut().unwrap().size = Some(1023 << 20);
    assert_eq!(steps(&facts, &request), ["record-seen"]);
    facts.backing.get_mut(&0).unwrap().noted = Some(1024 << 20);
    assert_eq!(errors(&facts, &request), [Code::NothingToGrow]);

    // The side that does not serve prepares its partition, and no more.
    let mut facts = larger("node2");
    assert_eq!(steps(&facts, &request), Vec::<&str>::new());
    assert!(warnings(&facts, &request).contains(&Code::NothingToDo));
    let whole = crate::facts::WholeDisk {
        number: 1,
        exists: true,
        room: Some((512 << 20, 1024 << 20)),
        ..Default::default()
    };
    facts.whole_disks.insert(0, whole.clone());
    assert_eq!(steps(&facts, &request), ["grow-partition", "record-seen"]);
    let mut facts = larger("node1");
    facts.backing.get_mut(&0).unwrap().size = 512 << 20;
    facts.backing.get_mut(&0).unwrap().offers = Some(511 << 20);
    facts.whole_disks.insert(0, whole);
    assert_eq!(
        steps(&facts, &request),
        ["grow-partition", "grow-device", "grow-store", "record-seen"]
    );
}

#[test]
fn growing_is_refused_where_it_cannot_work() {
    let request = Request::Grow {
        peer_offers: None,
        wait_sync: false,
    };
    let cases: &[(Code, Change)] = &[
        (Code::NotConnected, |f| {
            drbd(f).link = Some(Link::Connecting)
        }),
        (Code::NotPrimary, |f| drbd(f).role = Role::Secondary),
        (Code::StoreNotMounted, |f| f.mount.store = None),
        (Code::StoreReadOnly, |f| {
            f.mount.store.as_mut().unwrap().read_only = true;
        }),
        (Code::IoSuspended, |f| {
            drbd(f).suspended = Some("no data".into())
        }),
        (Code::ResourceDown, |f| f.drbd = None),
        (Code::DiskNotUpToDate, |f| {
            volume(f).disk = Disk::Inconsistent
        }),
        (Code::PeerDiskNotUpToDate, |f| {
            volume(f).peer_disk = Disk::Inconsistent;
        }),
        (Code::ResyncRunning, |f| {
            volume(f).replication = Replication::Busy
        }),
        (Code::StoreTooSmall, |f| {
            volume(f).size = Some(100 << 20);
            f.backing.get_mut(&0).unwrap().offers = Some(200 << 20);
        }),
    ];
    for (code, change) in cases {
        let mut facts = larger("node1");
        change(&mut facts);
        assert!(errors(&facts, &request).contains(code), "{code}");
    }
    let small = Request::Grow {
        peer_offers: Some(511 << 20),
        wait_sync: false,
    };
    assert_eq!(errors(&larger("node1"), &small), [Code::PeerDiskSmaller]);
    let mut facts = larger("node2");
    facts.backing.get_mut(&0).unwrap().offers = Some(511 << 20);
    assert_eq!(errors(&facts, &request), [Code::NothingToGrow]);
    facts.whole_disks.insert(
        0,
        crate::facts::WholeDisk {
            no_room: Some("not a primary partition of an msdos table".into()),
            ..Default::default()
        },
    );
    let refusal = plan(&facts, &resource(), &request).unwrap_err();
    let code = Code::PartitionNotGrowable;
    assert!(refusal.findings.iter().any(|f| f.code == code), "{refusal}");
}

/// Its metadata is where the disk ended when it was smaller: moved, never taken for something foreign.
#[test]
fn a_disk_that_grew_while_it_was_off_has_its_metadata_moved() {
    let mut facts = healthy("node1");
    facts.drbd = None;
    facts.mount.store = None;
    facts
        .disks
        .insert(0, BackingDisk::Grown { from: 512 << 20 });
    for request in [Request::Up, Request::Boot, Request::Prepare] {
        assert_eq!(steps(&facts, &request)[..2], ["move-metadata", "attach"]);
    }
}

/// What other tools run, seen from node1 (serving) or node2 (not).
fn not_ours(node: &str) -> Facts {
    let mut facts = healthy(node);
    facts.ledger = crate::ledger::Ledger::default();
    facts.module.helper = Some("/sbin/drbdadm".into());
    facts.module.wanted_helper = "/usr/lib/ha-failover/drbd-helper".into();
    facts
}

#[test]
fn adopting_stops_and_starts_nothing() {
    assert_eq!(
        steps(&not_ours("node1"), &Request::Adopt),
        [
            "record-adopted",
            "set-helper",
            "verify-store",
            "claim",
            "record-seen"
        ]
    );
    assert_eq!(
        steps(&not_ours("node2"), &Request::Adopt),
        ["record-adopted", "set-helper", "record-peer-owns"]
    );
    for node in ["node1", "node2"] {
        assert!(steps(&healthy(node), &Request::Adopt).is_empty());
        assert!(warnings(&healthy(node), &Request::Adopt).contains(&Code::NothingToDo));
    }
    // Everything but that is refused before.
    assert!(errors(&not_ours("node1"), &Request::Up).contains(&Code::ModuleHelperDiffers));
    let cases: &[(Code, Change)] = &[
        (Code::ResourceDiffers, |f| f.differs.push("x".into())),
        (Code::NotConnected, |f| {
            drbd(f).link = Some(Link::Connecting)
        }),
        (Code::PeerPrimary, |f| drbd(f).peer_role = Role::Primary),
        (Code::NobodyServes, |f| drbd(f).role = Role::Secondary),
        (Code::StoreNotMounted, |f| f.mount.store = None),
        (Code::StoreReadOnly, |f| {
            f.mount.store.as_mut().unwrap().read_only = true
        }),
        (Code::ContainerAutostart, |f| {
            f.containers.values_mut().for_each(|c| c.autostart = true);
        }),
        (Code::ContainerMissing, |f| {
            f.containers
                .values_mut()
                .for_each(|c| c.state = Some(ContainerState::Missing));
        }),
        (Code::BridgeMissing, |f| {
            f.bridges.insert("br0".into(), false);
        }),
        (Code::ProgramMissing, |f| {
            f.missing_programs
                .push("/usr/lib/ha-failover/drbd-helper".into());
        }),
    ];
    for (code, change) in cases {
        let mut facts = not_ours("node1");
        change(&mut facts);
        assert!(errors(&facts, &Request::Adopt).contains(code), "{code}");
    }
    // In the way of a handover, not of this.
    let mut facts = not_ours("node1");
    facts.mount.holders.push("process 1".into());
    facts
        .containers
        .values_mut()
        .for_each(|c| c.state = Some(ContainerState::Stopped));
    facts.strangers.push("r7".into());
    let seen = warnings(&facts, &Request::Adopt);
    for code in [Code::MountHeld, Code::ContainerState, Code::OtherResources] {
        assert!(seen.contains(&code), "{code}");
    }
}

#[test]
fn what_was_handed_back_is_left_alone() {
    let mut facts = healthy("node1");
    facts.module.helper = Some("/usr/lib/ha-failover/drbd-helper".into());
    facts.module.wanted_helper = "/usr/lib/ha-failover/drbd-helper".into();
    let plan = plan(&facts, &resource(), &Request::HandBack).unwrap();
    assert_eq!(
        plan.steps[0].action,
        Action::SetHelper {
            helper: "/sbin/drbdadm".into()
        }
    );
    assert_eq!(plan.steps.len(), 2);
    facts.ledger.helper_before = Some("/bin/true".into());
    facts.also_ours.push("r1".into());
    assert_eq!(steps(&facts, &Request::HandBack), ["record-handed-back"]);
    facts.ledger.hand_back();
    assert_eq!(
        facts.ledger.epoch, 1,
        "the next owner is later than all before"
    );
    for request in [
        release(),
        handover(),
        takeover(),
        Request::Up,
        Request::Start,
        Request::Down,
    ] {
        assert_eq!(errors(&facts, &request), [Code::HandedBack]);
    }
    assert!(steps(&facts, &Request::HandBack).is_empty());
    assert_eq!(
        steps(&facts, &Request::Adopt),
        ["record-adopted", "verify-store", "claim", "record-seen"]
    );
}

#[test]
fn a_store_leaves_a_node_whose_disk_is_gone() {
    let mut facts = healthy("node1");
    volume(&mut facts).disk = Disk::Diskless;
    assert!(warnings(&facts, &release()).contains(&Code::DiskNotUpToDate));
    volume(&mut facts).peer_disk = Disk::Inconsistent;
    assert!(errors(&facts, &release()).contains(&Code::PeerDiskNotUpToDate));
    let mut facts = healthy("node2");
    volume(&mut facts).peer_disk = Disk::Diskless;
    assert!(warnings(&facts, &handover()).contains(&Code::PeerDiskNotUpToDate));
    volume(&mut facts).disk = Disk::Inconsistent;
    assert!(errors(&facts, &handover()).contains(&Code::DiskNotUpToDate));
    // A configuration that the other node could not load keeps the store where it runs.
    let mut facts = healthy("node1");
    facts
        .containers
        .values_mut()
        .for_each(|c| c.problem = Some("bad key".into()));
    assert!(errors(&facts, &release()).contains(&Code::ContainerConfig));
}
