#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::evidence::{Attestation, Power};
use crate::facts::{
    BackingDisk, ConfProblem, ConfVolume, ContainerFacts, ContainerState, Disk, OpenOperation,
    Replication, StoreMount, VolumeFacts,
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
