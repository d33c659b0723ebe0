//! The kernel that is not there announces what real ones announced for the
//! same story: connect, first sync, roles.

use crate::load;
use drbd_nl::codec::{Decoded, decode};
use drbd_nl::testing::FakeCluster;
use drbd_nl::wire::Little;
use drbd_nl::{
    AddressPair, ConnectionRef, ConnectionState, DeviceOptions, Dialect, DiskOptions, Drbd, Event,
    EventKind, MetaDisk, Minor, NetOptions, NodeId, Operation, RawEvent, ResourceName,
    ResourceOptions, VolumeNumber,
};
use std::collections::BTreeMap;
use std::time::Duration;

type Story = BTreeMap<String, Vec<String>>;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Adds the state an event shows to those of its object, repetitions left out.
fn tell(story: &mut Story, event: &Event) {
    let (object, state) = match &event.kind {
        EventKind::Resource { info: Some(i), .. } => ("resource".to_owned(), i.role.to_string()),
        EventKind::Device {
            volume,
            info: Some(i),
            ..
        } => (format!("device {volume}"), i.disk_state.to_string()),
        EventKind::Connection { info: Some(i), .. } => (
            "connection".to_owned(),
            format!("{} {}", i.state, i.peer_role),
        ),
        EventKind::PeerDevice {
            volume,
            info: Some(i),
            ..
        } => (
            format!("peer device {volume}"),
            format!("{} {}", i.replication, i.peer_disk_state),
        ),
        EventKind::Helper(helper) => (
            format!("helper {}", helper.volume.unwrap_or_default()),
            helper.name.to_string(),
        ),
        _ => return,
    };
    let states = story.entry(object).or_default();
    if states.last() != Some(&state) {
        states.push(state);
    }
}

/// Up to the moment the peer goes.
fn ends(event: &Event) -> bool {
    matches!(
        &event.kind,
        EventKind::Connection { info: Some(i), .. } if i.state == ConnectionState::TearDown
    )
}

#[test]
fn the_fake_tells_the_same_story() {
    for family in load::all() {
        let run = family
            .runs
            .iter()
            .find(|run| run.name.ends_with("events2-live-connect") && run.node == "n0")
            .unwrap_or_else(|| panic!("{}: no live run", family.name));
        let mut real = Story::new();
        'run: for message in run.received().filter(|m| m.kind() == run.family) {
            for item in decode::<Little>(family.dialect, run.family, &message.bytes).unwrap() {
                let Decoded::Event(event) = item else {
                    continue;
                };
                if ends(&event) {
                    break 'run;
                }
                tell(&mut real, &event);
            }
        }
        // What belongs to that end already.
        for (object, states) in &mut real {
            if object.starts_with("peer device") && states.ends_with(&["Off DUnknown".into()]) {
                states.pop();
            }
        }
        let fake = play(family.dialect);
        assert_eq!(real, fake, "{}", family.name);
    }
}

fn play(dialect: Dialect) -> Story {
    let cluster = FakeCluster::new(dialect, ["n0", "n1"]);
    let r0 = || ResourceName::new("r0").unwrap();
    let nodes = ["n0", "n1"].map(|name| {
        for volume in 0..2 {
            cluster.add_disk(name, format!("/dev/disk{volume}"), 40_000);
        }
        Drbd::with_connector(cluster.node(name)).unwrap()
    });
    let run = |node: usize, operation: Operation| {
        let _ = nodes[node].run(&operation, TIMEOUT).unwrap();
    };
    let address = |node: u32| format!("10.77.0.{}:7000", node + 1).parse().unwrap();
    let connection = |node: u32| {
        ConnectionRef::only(r0())
            .peer_node_id(NodeId(1 - node))
            .addresses(AddressPair {
                local: address(node),
                remote: address(1 - node),
            })
    };
    let connect = |node: u32| Operation::Connect {
        connection: connection(node),
        name: Some("peer".into()),
        options: Box::new(NetOptions::new()),
    };
    for node in 0..2u32 {
        let at = node as usize;
        run(
            at,
            Operation::NewResource {
                resource: r0(),
                node_id: Some(NodeId(node)),
                options: ResourceOptions::new(),
            },
        );
        for volume in 0..2 {
            run(
                at,
                Operation::NewMinor {
                    resource: r0(),
                    volume: VolumeNumber(volume),
                    minor: Minor(volume),
                    options: DeviceOptions::new(),
                },
            );
            run(
                at,
                Operation::Attach {
                    minor: Minor(volume),
                    backing_dev: format!("/dev/disk{volume}").into(),
                    meta_disk: MetaDisk::Internal,
                    options: Box::new(DiskOptions::new()),
                },
            );
        }
    }
    if dialect == Dialect::V9 {
        run(
            0,
            Operation::NewPeer {
                resource: r0(),
                peer_node_id: NodeId(1),
                name: "peer".into(),
                options: Box::new(NetOptions::new()),
            },
        );
    }
    let mut events = nodes[0].events().unwrap();
    run(1, connect(1));
    run(0, connect(0));
    run(0, Operation::InitializeFromHere { resource: r0() });
    run(0, Operation::Secondary { resource: r0() });
    run(1, Operation::Primary { resource: r0() });
    run(1, Operation::Secondary { resource: r0() });
    run(0, Operation::Primary { resource: r0() });
    let mut story = Story::new();
    while let Some(RawEvent::Event(event)) = events.try_next().unwrap() {
        tell(&mut story, &event);
    }
    story
}
