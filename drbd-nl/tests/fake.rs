//! The kernel that is not there: what a program that uses this crate can be
//! tested with, and that it behaves as DRBD does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use drbd_nl::socket::Connector;
use drbd_nl::testing::{FakeCluster, FakeNode, FakeSocket};
use drbd_nl::{
    AddressPair, Base, ConnectionRef, ConnectionState, DeviceOptions, Dialect, DiskOptions,
    DiskState, Drbd, ErrorKind, InvalidatePeerOptions, MetaDisk, Minor, NetOptions, NewUuidOptions,
    NodeId, Operation, Outcome, PeerDeviceRef, Relation, ReplicationState, ResizeOptions,
    ResourceName, ResourceOptions, Role, SuspendIoOptions, TimeoutType, Update, VerifyOptions,
    VolumeNumber, split_brain,
};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);
const SIZE: u64 = 131_072;
const BOTH: [Dialect; 2] = [Dialect::V84, Dialect::V9];

fn r0() -> ResourceName {
    ResourceName::new("r0").unwrap()
}

fn connection(node: u32) -> ConnectionRef {
    let address = |host: u32| format!("10.0.0.{}:7788", host + 1).parse().unwrap();
    ConnectionRef::only(r0())
        .peer_node_id(NodeId(1 - node))
        .addresses(AddressPair {
            local: address(node),
            remote: address(1 - node),
        })
}

fn connect(node: u32) -> Operation {
    Operation::Connect {
        connection: connection(node),
        name: Some(["node2", "node1"][node as usize].into()),
        options: Box::new(NetOptions::new().ko_count(3u32)),
    }
}

fn attach(minor: u32) -> Operation {
    Operation::Attach {
        minor: Minor(minor),
        backing_dev: format!("/dev/disk{minor}").into(),
        meta_disk: MetaDisk::Internal,
        options: Box::new(DiskOptions::new().al_extents(257u32)),
    }
}

struct Pair {
    cluster: FakeCluster,
    nodes: [Drbd<FakeNode>; 2],
}

impl Pair {
    fn new(dialect: Dialect) -> Self {
        let cluster = FakeCluster::new(dialect, ["node1", "node2"]);
        let nodes = ["node1", "node2"].map(|name| {
            cluster.add_disk(name, "/dev/disk0", SIZE);
            Drbd::with_connector(cluster.node(name)).unwrap()
        });
        Self { cluster, nodes }
    }

    fn done(&self, node: u32, operation: Operation) {
        let outcome = self.nodes[node as usize].run(&operation, TIMEOUT);
        assert_eq!(outcome.unwrap(), Outcome::Done, "{operation}");
    }

    fn configure(&self) {
        for node in [0, 1] {
            self.done(
                node,
                Operation::NewResource {
                    resource: r0(),
                    node_id: Some(NodeId(node)),
                    options: ResourceOptions::new(),
                },
            );
            self.done(
                node,
                Operation::NewMinor {
                    resource: r0(),
                    volume: VolumeNumber(0),
                    minor: Minor(0),
                    options: DeviceOptions::new(),
                },
            );
            self.done(node, attach(0));
            self.done(node, connect(node));
        }
    }

    /// Two nodes in sync, the first Primary.
    fn in_sync(dialect: Dialect) -> Self {
        let pair = Self::new(dialect);
        pair.configure();
        pair.nodes[0]
            .watch()
            .unwrap()
            .wait_for(TIMEOUT, |s| s.resource("r0").unwrap().day_zero().is_ok())
            .unwrap();
        pair.done(0, Operation::InitializeFromHere { resource: r0() });
        for node in &pair.nodes {
            node.watch().unwrap().wait_sync(&r0(), TIMEOUT).unwrap();
        }
        pair
    }
}

#[test]
fn from_blank_disks_to_a_handover() {
    for dialect in BOTH {
        let pair = Pair::in_sync(dialect);
        let [one, two] = &pair.nodes;
        assert_eq!(
            two.primary(&r0(), TIMEOUT).unwrap_err().kind(),
            ErrorKind::PeerIsPrimary
        );
        pair.cluster.set_open("node1", Minor(0), true);
        let error = one.secondary(&r0(), TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("opened by"), "{error}");
        pair.cluster.set_open("node1", Minor(0), false);
        let state = one.snapshot(TIMEOUT).unwrap();
        assert!(state.consistent);
        let resource = state.resource("r0").unwrap();
        assert!(resource.safe_to_demote(), "{:?}", resource.demotion_risks());
        assert_eq!(one.secondary(&r0(), TIMEOUT).unwrap(), Outcome::Done);
        let ready = |s: &drbd_nl::State| s.resource("r0").unwrap().may_promote();
        two.watch().unwrap().wait_for(TIMEOUT, ready).unwrap();
        assert_eq!(two.primary(&r0(), TIMEOUT).unwrap(), Outcome::Done);
        assert_eq!(two.primary(&r0(), TIMEOUT).unwrap(), Outcome::AlreadyThere);
        let state = one.snapshot(TIMEOUT).unwrap();
        assert_eq!(
            state.resource("r0").unwrap().connections[0].peer_role,
            Role::Primary
        );
        for (node, drbd) in pair.nodes.iter().enumerate().rev() {
            assert_eq!(drbd.down(&r0(), TIMEOUT).unwrap(), Outcome::Done, "{node}");
            assert_eq!(drbd.snapshot(TIMEOUT).unwrap().resources, []);
        }
    }
}

/// The watcher's model is at every moment what a fresh dump says, whatever
/// is lost, late or unknown on the way.
#[test]
fn a_watcher_is_right_in_the_end() {
    for dialect in BOTH {
        let pair = Pair::in_sync(dialect);
        let mut watcher = pair.nodes[0].watch().unwrap();
        watcher.set_patience(Duration::from_millis(50));
        let mut resynced = 0;
        for (round, fault) in ["", "overrun", "lose", "reorder", "strange"]
            .iter()
            .enumerate()
        {
            match *fault {
                "overrun" => pair.cluster.overrun("node1", 3),
                "lose" => pair.cluster.lose("node1", 2),
                "reorder" => pair.cluster.reorder("node1", 4),
                "strange" => pair.cluster.speak_strangely("node1"),
                _ => {}
            }
            pair.cluster.cut("node1", "node2");
            pair.cluster.write("node1", Minor(0), 1000);
            pair.cluster.heal("node1", "node2");
            while let Some(update) = watcher.next_update(Duration::from_millis(100)).unwrap() {
                if let Update::Resynced(_) = update {
                    resynced += 1;
                }
            }
            let mut fresh = pair.nodes[0].watch().unwrap();
            fresh.refresh().unwrap();
            watcher.refresh().unwrap();
            assert_eq!(watcher.state(), fresh.state(), "{dialect} round {round}");
            let is_in_sync = watcher.state().resource("r0").unwrap().is_in_sync();
            assert!(is_in_sync, "{dialect} {fault}");
        }
        assert!(resynced >= 2, "{dialect}: {resynced}");
    }
}

#[test]
fn a_split_brain_is_found_and_solved() {
    for dialect in BOTH {
        let pair = Pair::in_sync(dialect);
        let [_, two] = &pair.nodes;
        let mut watcher = two.watch().unwrap();
        pair.cluster.cut("node1", "node2");
        assert!(pair.cluster.write("node1", Minor(0), 800));
        let promote = Operation::PromoteUnfenced { resource: r0() };
        pair.done(1, promote);
        assert!(pair.cluster.write("node2", Minor(0), 64));
        let [ours, theirs] = pair.nodes.each_ref().map(|n| n.snapshot(TIMEOUT).unwrap());
        let sides = [&ours, &theirs].map(|s| s.resource("r0").unwrap());
        if dialect == Dialect::V9 {
            assert_eq!(split_brain(sides[0], sides[1]), [VolumeNumber(0)]);
        }
        pair.cluster.heal("node1", "node2");
        let mut signals = Vec::new();
        while let Some(update) = watcher.try_update().unwrap() {
            if let Update::SplitBrain(signal) = update {
                assert_eq!(signal.resource, Some(r0()));
                signals.push(signal.unsolved);
            }
        }
        assert_eq!(signals, [false, true], "{dialect}");

        let state = two.snapshot(TIMEOUT).unwrap();
        let resource = state.resource("r0").unwrap();
        let plan = resource.discard_plan(&connection(1)).unwrap();
        let text = plan.to_string();
        assert!(text.contains("throw away for r0"), "{text}");
        assert!(text.contains("at least 32 KiB"), "{text}");
        assert!(plan.demote);
        // What is written after the plan was shown is not thrown away.
        pair.cluster.set_open("node2", Minor(0), true);
        let go = |plan: &drbd_nl::DiscardPlan| {
            let name = Some("node1".into());
            two.discard_local_data(plan, name, NetOptions::new(), TIMEOUT)
        };
        assert_eq!(go(&plan).unwrap_err().kind(), ErrorKind::Busy);
        pair.cluster.set_open("node2", Minor(0), false);
        let fresh = Operation::NewCurrentUuid {
            minor: Minor(0),
            options: NewUuidOptions::new(),
        };
        pair.done(1, fresh);
        assert_eq!(go(&plan).unwrap_err().kind(), ErrorKind::InvalidInput);
        let state = two.snapshot(TIMEOUT).unwrap();
        let plan = state.resource("r0").unwrap().discard_plan(&connection(1));
        assert_eq!(go(&plan.unwrap()).unwrap(), Outcome::Done);
        // The survivor stands alone as well.
        pair.done(0, connect(0));
        for node in &pair.nodes {
            node.watch().unwrap().wait_sync(&r0(), TIMEOUT).unwrap();
        }
        let [ours, theirs] = pair.nodes.each_ref().map(|n| n.snapshot(TIMEOUT).unwrap());
        let [ours, theirs] = [&ours, &theirs].map(|s| s.resource("r0").unwrap());
        let generations = |r: &drbd_nl::Resource| r.generations(VolumeNumber(0)).unwrap();
        assert_eq!(
            generations(ours).relation(&generations(theirs)),
            Relation::Same
        );
        let against = ours.discard_plan(&connection(0)).unwrap_err();
        assert!(against[0].contains("no split brain"), "{against:?}");
    }
}

#[test]
fn every_other_command() {
    for dialect in BOTH {
        let pair = Pair::in_sync(dialect);
        let [one, _] = &pair.nodes;
        let peer_device = || PeerDeviceRef::only(r0(), VolumeNumber(0));
        let minor = Minor(0);
        for (operation, again) in [
            (
                Operation::PauseSync {
                    peer_device: peer_device(),
                },
                Outcome::AlreadyThere,
            ),
            (
                Operation::ResumeSync {
                    peer_device: peer_device(),
                },
                Outcome::AlreadyThere,
            ),
            (
                Operation::SuspendIo {
                    minor,
                    options: SuspendIoOptions::new(),
                },
                Outcome::Done,
            ),
            (Operation::ResumeIo { minor }, Outcome::Done),
            (
                Operation::Verify {
                    peer_device: peer_device(),
                    options: VerifyOptions::new(),
                },
                Outcome::Done,
            ),
            (
                Operation::Resize {
                    minor,
                    options: ResizeOptions::new().size(SIZE / 2),
                },
                Outcome::Done,
            ),
        ] {
            pair.done(0, operation.clone());
            assert_eq!(one.run(&operation, TIMEOUT).unwrap(), again, "{operation}");
        }
        let state = one.snapshot(TIMEOUT).unwrap();
        assert_eq!(state.device(minor).unwrap().1.statistics.size.0, SIZE / 2);
        assert_eq!(
            one.timeout_type(&peer_device(), TIMEOUT).unwrap(),
            TimeoutType::Default
        );
        // A resync that takes its time.
        pair.cluster.hold_resync();
        pair.done(
            0,
            Operation::InvalidatePeer {
                peer_device: peer_device(),
                options: InvalidatePeerOptions::new(),
            },
        );
        pair.cluster.resync(SIZE / 4);
        let state = one.snapshot(TIMEOUT).unwrap();
        let peer = &state.resource("r0").unwrap().connections[0].peer_devices[0];
        assert_eq!(peer.replication, ReplicationState::SyncSource);
        assert_eq!(peer.progress().unwrap().left.0, SIZE - SIZE / 4);
        pair.cluster.resync(u64::MAX);
        one.watch().unwrap().wait_sync(&r0(), TIMEOUT).unwrap();
        // A disk that fails, and what DRBD does not know of.
        pair.cluster.fail_disk("node2", minor);
        let state = one.snapshot(TIMEOUT).unwrap();
        let peer = &state.resource("r0").unwrap().connections[0].peer_devices[0];
        assert_eq!(peer.peer_disk_state, DiskState::Diskless);
        pair.cluster
            .decree("node1", &r0(), VolumeNumber(0), DiskState::Other(77));
        let state = one.snapshot(TIMEOUT).unwrap();
        assert_eq!(
            state.device(minor).unwrap().1.disk_state,
            DiskState::Other(77)
        );
        let change = Operation::ChangeResourceOptions {
            resource: r0(),
            base: Base::Defaults,
            options: ResourceOptions::new().cpu_mask("3"),
        };
        pair.done(0, change);
        // What goes back to defaults does not lose its name.
        let name_of = |d: &Drbd<FakeNode>| {
            let state = d.snapshot(TIMEOUT).unwrap();
            state.resource("r0").unwrap().connections[0].name.clone()
        };
        let name = name_of(one);
        assert_eq!(name.is_some(), dialect == Dialect::V9);
        let change = Operation::ChangeNetOptions {
            connection: connection(0),
            base: Base::Defaults,
            options: Box::new(NetOptions::new().ping_int(7u32)),
        };
        pair.done(0, change);
        assert_eq!(name_of(one), name);
        let rename = Operation::RenameResource {
            resource: r0(),
            new_name: ResourceName::new("other").unwrap(),
        };
        match dialect {
            Dialect::V84 => {
                let error = one.run(&rename, TIMEOUT).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(error.to_string().contains("needs DRBD 9.0.28"), "{error}");
            }
            Dialect::V9 => {
                let mut watcher = one.watch_only([r0()]).unwrap();
                pair.done(0, rename);
                let renamed = |s: &drbd_nl::State| s.resource("other").is_some();
                watcher.wait_for(TIMEOUT, renamed).unwrap();
            }
        }
    }
}

#[test]
fn scripted_faults() {
    let pair = Pair::in_sync(Dialect::V84);
    let [one, _] = &pair.nodes;
    let change = || Operation::ResumeIo { minor: Minor(0) };
    pair.cluster
        .refuse_next("node1", -18, ["busy with something"]);
    let mut attempts = Duration::from_millis(20);
    let error = one.run(&change(), attempts).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert_eq!(error.info(), ["busy with something"]);
    attempts = TIMEOUT;
    pair.cluster.refuse_next("node1", -18, []);
    assert_eq!(one.run(&change(), attempts).unwrap(), Outcome::Done);
    pair.cluster.fail_next("node1", 1);
    let error = one.run(&change(), TIMEOUT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission);
    pair.cluster.ignore_next("node1");
    assert_eq!(
        one.run(&change(), Duration::from_millis(50)).unwrap(),
        Outcome::Unknown
    );
    pair.cluster.delay_next("node1", Duration::from_millis(200));
    assert_eq!(
        one.run(&change(), Duration::from_millis(20)).unwrap(),
        Outcome::Unknown
    );
}

/// A node, and the threads that opened sockets to it.
#[derive(Debug)]
struct Opened(FakeNode, Arc<Mutex<Vec<ThreadId>>>);

impl Connector for Opened {
    type Transport = FakeSocket;

    fn open(&self) -> io::Result<FakeSocket> {
        self.1.lock().unwrap().push(std::thread::current().id());
        self.0.open()
    }
}

#[test]
fn snapshots_keep_their_socket_and_take_a_thread_for_a_limit_alone() {
    let me = std::thread::current().id();
    for (limit, here) in [(TIMEOUT, false), (Duration::MAX, true)] {
        let pair = Pair::in_sync(Dialect::V84);
        let threads = Arc::default();
        let node = Opened(pair.cluster.node("node1"), Arc::clone(&threads));
        let mut drbd = Drbd::with_connector(node).unwrap();
        threads.lock().unwrap().clear();
        for extents in [300u32, 400, 500] {
            // What happens between two snapshots disturbs neither.
            let change = Operation::ChangeDiskOptions {
                minor: Minor(0),
                base: Base::Current,
                options: Box::new(DiskOptions::new().al_extents(extents)),
            };
            assert_eq!(pair.nodes[0].run(&change, TIMEOUT).unwrap(), Outcome::Done);
            let state = drbd.snapshot(limit).unwrap();
            assert!(state.consistent);
            assert_eq!(state.resources, pair.cluster.state("node1").resources);
        }
        let opened = threads.lock().unwrap().clone();
        assert_eq!(opened.len(), 1);
        assert_eq!(opened[0] == me, here);
        // After the module was loaded again its groups may have other numbers.
        drbd.reopen().unwrap();
        drbd.snapshot(limit).unwrap();
        assert_eq!(threads.lock().unwrap().len(), 3);
    }
}

#[test]
fn the_module_goes_and_comes() {
    let pair = Pair::in_sync(Dialect::V9);
    let mut drbd = Drbd::with_connector(pair.cluster.node("node1")).unwrap();
    let mut watcher = drbd.watch().unwrap();
    pair.cluster.unload_module("node1");
    assert_eq!(
        watcher.wait_for(TIMEOUT, |_| false).unwrap_err().kind(),
        ErrorKind::ModuleNotLoaded
    );
    assert_eq!(
        drbd.snapshot(TIMEOUT).unwrap_err().kind(),
        ErrorKind::ModuleNotLoaded
    );
    pair.cluster.load_module("node1");
    while watcher
        .next_update(Duration::from_millis(50))
        .unwrap()
        .is_some()
    {}
    assert_eq!(watcher.state().resources, []);
    drbd.reopen().unwrap();
    assert_eq!(drbd.snapshot(TIMEOUT).unwrap().resources, []);
    let new = Operation::NewResource {
        resource: r0(),
        node_id: Some(NodeId(0)),
        options: ResourceOptions::new(),
    };
    assert_eq!(drbd.run(&new, TIMEOUT).unwrap(), Outcome::Done);
    watcher
        .wait_for(TIMEOUT, |s| s.resource("r0").is_some())
        .unwrap();
}

/// A poll loop, as one without tokio writes it.
#[test]
fn a_poll_loop() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let pair = Pair::in_sync(Dialect::V84);
    let mut watcher = pair.nodes[1].watch().unwrap();
    let cluster = pair.cluster.clone();
    let cutter = std::thread::spawn(move || cluster.cut("node1", "node2"));
    let connecting = |s: &drbd_nl::State| {
        s.resource("r0").unwrap().connections[0].state == ConnectionState::Connecting
    };
    while !connecting(watcher.state()) {
        let mut fds = [PollFd::new(watcher.as_fd(), PollFlags::POLLIN)];
        assert_ne!(poll(&mut fds, PollTimeout::from(60_000u16)).unwrap(), 0);
        while watcher.try_update().unwrap().is_some() {}
    }
    cutter.join().unwrap();
}

#[tokio::test]
async fn a_stream() {
    use tokio::task::spawn_blocking;
    let pair = Pair::in_sync(Dialect::V9);
    let mut updates = pair.nodes[1].watch().unwrap().into_stream().unwrap();
    let cluster = pair.cluster.clone();
    let cut = spawn_blocking(move || cluster.cut("node1", "node2"));
    let up = |s: &drbd_nl::State| s.resource("r0").unwrap().is_connected();
    updates.wait_for(TIMEOUT, |s| !up(s)).await.unwrap();
    cut.await.unwrap();
    // A gap wakes it up when patience is over, although nothing comes.
    pair.cluster.lose("node2", 1);
    pair.cluster.heal("node1", "node2");
    updates.wait_for(TIMEOUT, up).await.unwrap();
    let short = Duration::from_millis(50);
    let error = updates.wait_for(short, |_| false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let events = pair.nodes[1].events().unwrap().into_stream().unwrap();
    drop(events);
    assert!(up(updates.into_inner().state()));
}

/// What no DRBD takes is refused with its name, by us or by the kernel.
#[test]
fn bad_input_is_refused() {
    for name in [
        "",
        "all",
        "a b",
        "a/b",
        "\u{7f}",
        &"x".repeat(128),
        &"x".repeat(300),
    ] {
        assert!(ResourceName::new(name).is_err(), "{name:?}");
    }
    for dialect in BOTH {
        let pair = Pair::in_sync(dialect);
        let one = &pair.nodes[0];
        let minor = |minor, volume| Operation::NewMinor {
            resource: r0(),
            volume: VolumeNumber(volume),
            minor: Minor(minor),
            options: DeviceOptions::new(),
        };
        let huge = ResourceName::from_kernel(&[b'x'; 70_000]);
        let nul = ResourceName::from_kernel(b"r\0");
        for operation in [
            minor(1 << 20, 1),
            minor(1, 65_536),
            minor(u32::MAX, 1),
            Operation::ChangeDiskOptions {
                minor: Minor(0),
                base: Base::Current,
                options: Box::new(DiskOptions::new().al_extents(3u32)),
            },
            Operation::Down { resource: huge },
            Operation::Down { resource: nul },
        ] {
            let error = one.run(&operation, TIMEOUT).unwrap_err();
            let kind = error.kind();
            assert_eq!(kind, ErrorKind::InvalidInput, "{operation}: {error}");
        }
        // Addresses of two families do not make a path.
        let mixed = AddressPair {
            local: "10.0.0.9:1".parse().unwrap(),
            remote: "[::1]:1".parse().unwrap(),
        };
        let path = ConnectionRef::only(r0())
            .addresses(mixed)
            .peer_node_id(NodeId(40));
        let wrong = Operation::Connect {
            connection: path,
            name: Some("far".into()),
            options: Box::new(NetOptions::new()),
        };
        let error = one.run(&wrong, TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("10.0.0.9"), "{error}");
        // A name that is not UTF-8 is kept, and JSON of it is well-formed.
        let strange = ResourceName::from_kernel(b"r\xff\"\n");
        let new = Operation::NewResource {
            resource: strange.clone(),
            node_id: Some(NodeId(0)),
            options: ResourceOptions::new(),
        };
        assert_eq!(one.run(&new, TIMEOUT).unwrap(), Outcome::Done);
        let state = one.snapshot(TIMEOUT).unwrap();
        assert!(state.resources.iter().any(|r| r.name == strange));
        let json = serde_json::to_string(&drbd_nl::json::Status(&state)).unwrap();
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back.as_array().unwrap().len(), 2);
        assert_eq!(one.down(&strange, TIMEOUT).unwrap(), Outcome::Done);
    }
}
