//! The real module, in nodes: every operation does what drbdsetup would see,
//! our state is `drbdsetup status`, our events are `drbdsetup events2`.
//!
//! `LAB_KERNEL` and `LAB_MODULES` choose the kernel; nothing here assumes 8.4.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "common/json.rs"]
mod json;
#[path = "common/lines.rs"]
#[allow(dead_code, reason = "shared with the transcripts")]
mod lines;
#[path = "common/text.rs"]
#[allow(dead_code, reason = "shared with the transcripts")]
mod text;

use drbd_nl::{
    AddressPair, AfterSplitBrain, Base, ConnectionRef, ConnectionState, DeviceOptions, Dialect,
    DiskOptions, DiskState, Drbd, Error, ErrorKind, MetaDisk, Minor, NetOptions, NodeId, Operation,
    Outcome, Protocol, RawEvent, ResourceName, ResourceOptions, Role, Secret, State, VolumeNumber,
};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use uml_lab::Lab;

const TIMEOUT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(120);
const OUR_EVENTS: &str = "/tmp/our-events";
const STOP: &str = "/tmp/stop-events";

fn lab(name: &str) -> Option<Lab> {
    Lab::builder()
        .name(name)
        .packages(["drbd-utils"])
        .node("node1", |n| n.disk("64M").disk("32M"))
        .node("node2", |n| n.disk("64M").disk("32M"))
        .wire("repl", |w| {
            w.port("node1", "10.0.254.1/30")
                .port("node2", "10.0.254.2/30")
        })
        .start_for_test()
}

/// Two nodes from blank disks to a replicated device and back, by our calls
/// alone; after every step our state is drbdsetup's.
#[test]
fn life_cycle() {
    let Some(lab) = lab("drbd-nl-life-cycle") else {
        return;
    };
    let (one, two) = (lab.node("node1"), lab.node("node2"));
    for node in [&one, &two] {
        node.run_test("inner_module_missing").unwrap();
        node.load_module("drbd", ["usermode_helper=/bin/true"])
            .unwrap();
        node.run_test("inner_empty").unwrap();
    }
    let oracle = one
        .spawn(uml_lab::Command::new("drbdsetup").args([
            "events2",
            "--statistics",
            "--timestamps",
            "all",
        ]))
        .unwrap();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| one.run_test_with("inner_watch", |c| c.deadline(LONG * 3)));
        // Whatever happens, the watching is ended.
        let story = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&one, &two)));
        one.write_file(STOP, b"", 0o644).unwrap();
        watching.join().unwrap().unwrap();
        if let Err(panic) = story {
            std::panic::resume_unwind(panic);
        }
    });
    oracle.kill(15).unwrap();
    let theirs = oracle.wait(TIMEOUT).unwrap().stdout_text();
    compare_events(
        &theirs,
        &String::from_utf8(one.read_file(OUR_EVENTS).unwrap()).unwrap(),
    );
}

fn story(one: &uml_lab::Node, two: &uml_lab::Node) {
    wait_for_file(one, OUR_EVENTS);
    for (node, name) in [
        (one, "inner_configure"),
        (two, "inner_configure"),
        (one, "inner_first_sync"),
        (two, "inner_refusals_of_a_secondary"),
        (one, "inner_write_and_demote"),
        (two, "inner_promote_and_demote"),
        (one, "inner_disconnect_and_connect"),
        (two, "inner_change_settings"),
        (two, "inner_tear_down"),
        (one, "inner_tear_down"),
    ] {
        node.run_test_with(name, |c| c.deadline(LONG))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

fn wait_for_file(node: &uml_lab::Node, path: &str) {
    for _ in 0..600 {
        if node.read_file(path).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{path} did not appear");
}

/// Refusals, each with its kind and the object's name.
#[test]
fn refusals() {
    let Some(lab) = Lab::builder()
        .name("drbd-nl-refusals")
        .packages(["drbd-utils"])
        .node("node1", |n| n.disk("64M").disk("32M"))
        .start_for_test()
    else {
        return;
    };
    let node = lab.node("node1");
    node.load_module("drbd", ["usermode_helper=/bin/true"])
        .unwrap();
    node.run_test_with("inner_refusals", |c| c.deadline(LONG))
        .unwrap();
    node.run_test_with("inner_no_permission", |c| c.deadline(LONG))
        .unwrap();
}

/// Many changes behind a watcher that does not look: it reports the loss and
/// is right in the end.
#[test]
fn overrun() {
    let Some(lab) = Lab::builder()
        .name("drbd-nl-overrun")
        .packages(["drbd-utils"])
        .node("node1", |n| n.disk("16M"))
        .start_for_test()
    else {
        return;
    };
    let node = lab.node("node1");
    node.load_module("drbd", ["usermode_helper=/bin/true"])
        .unwrap();
    node.run_test_with("inner_overrun", |c| c.deadline(LONG * 3))
        .unwrap();
}

// ---- inside a node --------------------------------------------------------

fn drbd() -> Drbd {
    Drbd::open().unwrap()
}

fn r0() -> ResourceName {
    ResourceName::new("r0").unwrap()
}

fn is_node1() -> bool {
    std::env::var("UML_LAB_NODE").unwrap() == "node1"
}

fn done(drbd: &Drbd, operation: Operation) {
    let outcome = drbd.run(&operation, TIMEOUT).unwrap();
    assert_eq!(outcome, Outcome::Done, "{operation}");
    // The second time it is so already, where the kernel can tell.
    println!("{operation}: {outcome}");
}

fn refused(drbd: &Drbd, operation: Operation) -> Error {
    let error = drbd.run(&operation, TIMEOUT).unwrap_err();
    println!("{error}");
    assert_eq!(error.operation(), operation.name());
    assert!(error.to_string().contains(&operation.target()), "{error}");
    error
}

fn connection() -> ConnectionRef {
    let (local, remote) = if is_node1() { ("1", "2") } else { ("2", "1") };
    let address = |host: &str| format!("ipv4:10.0.254.{host}:7788").parse().unwrap();
    ConnectionRef::only(r0())
        .peer_node_id(NodeId(if is_node1() { 1 } else { 0 }))
        .addresses(AddressPair {
            local: address(local),
            remote: address(remote),
        })
}

fn net_options() -> NetOptions {
    NetOptions::new()
        .protocol(Protocol::C)
        .cram_hmac_alg("sha1")
        .shared_secret(Secret::new("s3cr3t"))
        .after_sb_0pri(AfterSplitBrain::DiscardZeroChanges)
        .max_buffers(4000u32)
}

fn connect() -> Operation {
    Operation::Connect {
        connection: connection(),
        name: Some(if is_node1() { "node2" } else { "node1" }.into()),
        options: Box::new(net_options()),
    }
}

fn attach(minor: u32) -> Operation {
    let fast = match drbd().family().dialect {
        Dialect::V84 => DiskOptions::new()
            .resync_rate(102_400u32)
            .c_plan_ahead(0u32),
        Dialect::V9 => DiskOptions::new(),
    };
    Operation::Attach {
        minor: Minor(minor),
        backing_dev: ["/dev/ubda", "/dev/ubdb"][minor as usize].into(),
        meta_disk: MetaDisk::Internal,
        options: Box::new(fast.al_extents(257u32)),
    }
}

fn create_metadata(dialect: Dialect, minor: u32) {
    let device = ["/dev/ubda", "/dev/ubdb"][minor as usize];
    let minor = minor.to_string();
    let mut command = Command::new("drbdmeta");
    command.args(["--force", &minor]);
    match dialect {
        Dialect::V84 => command.args(["v08", device, "internal", "create-md"]),
        Dialect::V9 => command.args(["v09", device, "internal", "create-md", "1"]),
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn drbdsetup(args: &[&str]) -> String {
    let output = Command::new("drbdsetup").args(args).output().unwrap();
    assert!(output.status.success(), "drbdsetup {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Our state and drbdsetup's are the same; counters move, so until two
/// readings in a row of theirs agree.
fn same_as_drbdsetup(drbd: &Drbd) -> State {
    let theirs = || match drbd.family().dialect {
        Dialect::V84 => drbdsetup(&["status", "--verbose", "--statistics"]),
        Dialect::V9 => drbdsetup(&["status", "--json", "--verbose", "--statistics"]),
    };
    for _ in 0..50 {
        let before = theirs();
        let state = drbd.snapshot(TIMEOUT).unwrap();
        if before != theirs() {
            continue;
        }
        assert!(state.consistent);
        match drbd.family().dialect {
            Dialect::V84 => {
                let ours: Vec<String> = state
                    .resources
                    .iter()
                    .flat_map(|r| text::text(r, true, true))
                    .collect();
                let theirs: Vec<&str> = before
                    .split_whitespace()
                    .filter(|word| !word.starts_with('#'))
                    .collect();
                assert_eq!(ours, theirs);
            }
            Dialect::V9 => {
                let theirs: serde_json::Value = serde_json::from_str(&before).unwrap();
                let ours = serde_json::to_value(drbd_nl::json::Status(&state)).unwrap();
                json::contains("status", &theirs, &ours);
            }
        }
        return state;
    }
    panic!("drbdsetup never said the same twice");
}

#[test]
#[ignore = "runs inside a node"]
fn inner_module_missing() {
    let error = Drbd::open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModuleNotLoaded, "{error}");
    assert!(error.to_string().contains("modprobe drbd"), "{error}");
}

#[test]
#[ignore = "runs inside a node"]
fn inner_empty() {
    let drbd = drbd();
    let family = drbd.family();
    println!("{family:?}");
    let proc = fs::read_to_string("/proc/drbd").unwrap();
    assert!(proc.contains(&format!("api:{}/", family.version)), "{proc}");
    assert_eq!(drbd.snapshot(TIMEOUT).unwrap().resources, []);
    assert_eq!(drbd.watch().unwrap().state().resources, []);
}

/// Writes what is announced, as lines, until told to stop.
#[test]
#[ignore = "runs inside a node"]
fn inner_watch() {
    let drbd = drbd();
    let mut events = drbd.events().unwrap();
    let mut names = lines::Names::new();
    let mut log = String::new();
    fs::write(OUR_EVENTS, "").unwrap();
    loop {
        match events.next_event(Duration::from_millis(200)).unwrap() {
            Some(RawEvent::Event(event)) => {
                if matches!(event.kind, drbd_nl::EventKind::Legacy(_)) {
                    continue;
                }
                let words = lines::line(drbd.family().dialect, &event, &mut names, true);
                log.push_str(&words.join(" "));
                log.push('\n');
            }
            Some(other) => panic!("{other:?}"),
            None if Path::new(STOP).exists() => break,
            None => {}
        }
    }
    fs::write(OUR_EVENTS, log).unwrap();
}

/// Every line of theirs is one of ours, in the order of its object; of ours,
/// only changes that show nothing new may be missing.
fn compare_events(theirs: &str, ours: &str) {
    let mut printed: Vec<&str> = theirs.lines().map(lines::unstamped).collect();
    let (mut compared, mut silent) = (0, 0);
    for line in ours.lines() {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let at = printed.iter().position(|their| {
            lines::same_object(their, &words)
                && their.split(' ').all(|word| {
                    words.iter().any(|w| w == word)
                        || word.starts_with("done:")
                        || word.starts_with("may_promote:")
                        || word.starts_with("promotion_score:")
                })
        });
        match at {
            Some(at) => {
                printed.remove(at);
                compared += 1;
            }
            None => {
                assert!(line.starts_with("change "), "not printed: {line}");
                silent += 1;
            }
        }
    }
    printed.retain(|their| !their.contains("may_promote"));
    assert!(printed.is_empty(), "not ours: {printed:#?}\nours:\n{ours}");
    println!("{compared} lines compared, {silent} not printed");
    assert!(compared > 30, "{compared}");
}

#[test]
#[ignore = "runs inside a node"]
fn inner_configure() {
    let drbd = drbd();
    let dialect = drbd.family().dialect;
    let new_resource = Operation::NewResource {
        resource: r0(),
        node_id: Some(NodeId(if is_node1() { 0 } else { 1 })),
        options: ResourceOptions::new().cpu_mask("1"),
    };
    done(&drbd, new_resource.clone());
    assert_eq!(
        drbd.run(&new_resource, TIMEOUT).unwrap(),
        Outcome::AlreadyThere
    );
    same_as_drbdsetup(&drbd);
    for minor in [0, 1] {
        let new_minor = Operation::NewMinor {
            resource: r0(),
            volume: VolumeNumber(minor),
            minor: Minor(minor),
            options: DeviceOptions::new(),
        };
        done(&drbd, new_minor.clone());
        assert_eq!(
            drbd.run(&new_minor, TIMEOUT).unwrap(),
            Outcome::AlreadyThere
        );
    }
    // The minor is there, but it is another volume.
    let error = refused(
        &drbd,
        Operation::NewMinor {
            resource: r0(),
            volume: VolumeNumber(7),
            minor: Minor(0),
            options: DeviceOptions::new(),
        },
    );
    assert!(
        matches!(
            error.kind(),
            ErrorKind::AlreadyExists | ErrorKind::InvalidInput
        ),
        "{error:?}"
    );
    same_as_drbdsetup(&drbd);
    for minor in [0, 1] {
        let error = refused(&drbd, attach(minor));
        assert_eq!(error.kind(), ErrorKind::Refused, "no metadata yet: {error}");
        create_metadata(dialect, minor);
        done(&drbd, attach(minor));
        assert_eq!(
            drbd.run(&attach(minor), TIMEOUT).unwrap(),
            Outcome::AlreadyThere
        );
    }
    let state = same_as_drbdsetup(&drbd);
    let device = state.device(Minor(0)).unwrap().1;
    assert_eq!(device.disk_state, DiskState::Inconsistent);
    assert_eq!(device.backing_dev.as_deref(), Some(Path::new("/dev/ubda")));
    assert_eq!(device.meta_disk, Some(MetaDisk::Internal));
    assert_eq!(device.options.as_ref().unwrap().al_extents, Some(257));
    assert!(state.resource("r0").unwrap().day_zero().is_err());
    // Nothing current, nobody connected.
    let error = refused(&drbd, Operation::Primary { resource: r0() });
    assert_eq!(
        (error.kind(), error.ret_code()),
        (ErrorKind::NoCurrentData, Some(-2))
    );
    assert_eq!(error.ret_code_name(), Some("SS_NO_UP_TO_DATE_DISK"));
    done(&drbd, connect());
    assert_eq!(
        drbd.run(&connect(), TIMEOUT).unwrap(),
        Outcome::AlreadyThere
    );
    let state = drbd.snapshot(TIMEOUT).unwrap();
    let connection = &state.resource("r0").unwrap().connections[0];
    let options = connection.options.as_ref().unwrap();
    assert_eq!(options.max_buffers, Some(4000));
    assert_eq!(*options.shared_secret.as_ref().unwrap().reveal(), "s3cr3t");
    assert!(!format!("{state:?}").contains("s3cr3t"));
    assert_eq!(
        connection.paths[0].addresses,
        crate::connection().addresses.unwrap()
    );
}

fn both_up_to_date(state: &State) -> bool {
    state.resource("r0").is_some_and(|r| {
        r.devices
            .iter()
            .all(|d| d.disk_state == DiskState::UpToDate)
            && r.connections.iter().all(|c| {
                c.peer_devices.len() == 2
                    && c.peer_devices.iter().all(|p| {
                        p.peer_disk_state == DiskState::UpToDate
                            && p.replication == drbd_nl::ReplicationState::Established
                    })
            })
            && !r.connections.is_empty()
    })
}

fn connected(state: &State) -> bool {
    state.resource("r0").is_some_and(|r| {
        r.connections
            .iter()
            .any(|c| c.state == ConnectionState::Connected)
    })
}

#[test]
#[ignore = "runs inside a node"]
fn inner_first_sync() {
    let drbd = drbd();
    let mut watcher = drbd.watch().unwrap();
    watcher
        .wait_for(LONG, |state| {
            state.resource("r0").is_some_and(|r| r.day_zero().is_ok())
        })
        .unwrap();
    let state = same_as_drbdsetup(&drbd);
    assert_eq!(state.resource("r0").unwrap().day_zero(), Ok(()));
    done(&drbd, Operation::InitializeFromHere { resource: r0() });
    watcher
        .wait_for(TIMEOUT, |state| {
            state.resource("r0").unwrap().role == Role::Primary
        })
        .unwrap();
    watcher.wait_for(LONG, both_up_to_date).unwrap();
    let state = same_as_drbdsetup(&drbd);
    assert!(both_up_to_date(&state));
    assert!(state.resource("r0").unwrap().day_zero().is_err());
    assert_eq!(
        drbd.primary(&r0(), TIMEOUT).unwrap(),
        Outcome::AlreadyThere,
        "Primary already"
    );
}

#[test]
#[ignore = "runs inside a node"]
fn inner_refusals_of_a_secondary() {
    let drbd = drbd();
    let error = refused(&drbd, Operation::Primary { resource: r0() });
    assert_eq!(
        (error.kind(), error.ret_code()),
        (ErrorKind::PeerIsPrimary, Some(-1))
    );
    assert_eq!(
        drbd.secondary(&r0(), TIMEOUT).unwrap(),
        Outcome::AlreadyThere
    );
    let state = same_as_drbdsetup(&drbd);
    let resource = state.resource("r0").unwrap();
    assert_eq!(resource.role, Role::Secondary);
    assert_eq!(resource.connections[0].peer_role, Role::Primary);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_write_and_demote() {
    use std::io::Write;
    let drbd = drbd();
    let mut device = fs::OpenOptions::new()
        .write(true)
        .open("/dev/drbd0")
        .unwrap();
    device.write_all(&vec![0x5a; 1 << 20]).unwrap();
    device.sync_all().unwrap();
    let error = refused(&drbd, Operation::Secondary { resource: r0() });
    assert_eq!(
        (error.kind(), error.ret_code()),
        (ErrorKind::Busy, Some(-12))
    );
    drop(device);
    assert_eq!(drbd.secondary(&r0(), TIMEOUT).unwrap(), Outcome::Done);
    same_as_drbdsetup(&drbd);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_promote_and_demote() {
    let drbd = drbd();
    assert_eq!(drbd.primary(&r0(), TIMEOUT).unwrap(), Outcome::Done);
    let state = same_as_drbdsetup(&drbd);
    assert_eq!(state.resource("r0").unwrap().role, Role::Primary);
    let written = fs::read("/dev/drbd0").unwrap();
    assert!(written[..1 << 20].iter().all(|byte| *byte == 0x5a));
    assert_eq!(drbd.secondary(&r0(), TIMEOUT).unwrap(), Outcome::Done);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_disconnect_and_connect() {
    let drbd = drbd();
    let mut watcher = drbd.watch().unwrap();
    watcher.wait_for(TIMEOUT, connected).unwrap();
    let disconnect = Operation::Disconnect {
        connection: connection(),
    };
    done(&drbd, disconnect.clone());
    watcher
        .wait_for(TIMEOUT, |state| !connected(state))
        .unwrap();
    same_as_drbdsetup(&drbd);
    assert_eq!(
        drbd.run(&disconnect, TIMEOUT).unwrap(),
        Outcome::AlreadyThere
    );
    done(&drbd, connect());
    watcher.wait_for(TIMEOUT, connected).unwrap();
    watcher.wait_for(TIMEOUT, both_up_to_date).unwrap();
    let ours = watcher.state().clone();
    let theirs = same_as_drbdsetup(&drbd);
    // Events carry no settings; roles and states are the same.
    for (a, b) in ours.resources.iter().zip(&theirs.resources) {
        assert_eq!((&a.name, a.role), (&b.name, b.role));
        for (a, b) in a.devices.iter().zip(&b.devices) {
            assert_eq!(
                (a.minor, a.volume, a.disk_state),
                (b.minor, b.volume, b.disk_state)
            );
        }
        assert_eq!(a.connections.len(), b.connections.len());
        for (a, b) in a.connections.iter().zip(&b.connections) {
            assert_eq!(
                (a.state, a.peer_role, &a.paths[0].addresses),
                (b.state, b.peer_role, &b.paths[0].addresses)
            );
        }
    }
}

#[test]
#[ignore = "runs inside a node"]
fn inner_change_settings() {
    let drbd = drbd();
    done(
        &drbd,
        Operation::ChangeResourceOptions {
            resource: r0(),
            base: Base::Defaults,
            options: ResourceOptions::new(),
        },
    );
    done(
        &drbd,
        Operation::ChangeDiskOptions {
            minor: Minor(0),
            base: Base::Current,
            options: Box::new(DiskOptions::new().disk_timeout(50u32)),
        },
    );
    done(
        &drbd,
        Operation::ChangeNetOptions {
            connection: connection(),
            base: Base::Current,
            options: Box::new(NetOptions::new().ping_int(11u32)),
        },
    );
    let state = same_as_drbdsetup(&drbd);
    let resource = state.resource("r0").unwrap();
    assert_eq!(resource.options.as_ref().unwrap().cpu_mask, Some("".into()));
    let disk = resource.devices[0].options.as_ref().unwrap();
    assert_eq!((disk.disk_timeout, disk.al_extents), (Some(50), Some(257)));
    let net = resource.connections[0].options.as_ref().unwrap();
    assert_eq!((net.ping_int, net.max_buffers), (Some(11), Some(4000)));
    // What one kernel lacks is refused before it is sent.
    let lacking = match drbd.family().dialect {
        Dialect::V84 => Operation::ChangeResourceOptions {
            resource: r0(),
            base: Base::Current,
            options: ResourceOptions::new().auto_promote(true),
        },
        Dialect::V9 => Operation::ChangeDiskOptions {
            minor: Minor(0),
            base: Base::Current,
            options: Box::new(DiskOptions::new().resync_rate(1u32)),
        },
    };
    assert_eq!(refused(&drbd, lacking).kind(), ErrorKind::Unsupported);
}

#[test]
#[ignore = "runs inside a node"]
fn inner_tear_down() {
    let drbd = drbd();
    let state = drbd.snapshot(TIMEOUT).unwrap();
    let there = state
        .resource("r0")
        .unwrap()
        .connections
        .first()
        .map(|c| c.reference(&r0()));
    if is_node1() {
        done(&drbd, Operation::Down { resource: r0() });
    } else {
        assert_eq!(
            refused(&drbd, Operation::DelMinor { minor: Minor(0) }).kind(),
            ErrorKind::Busy
        );
        done(
            &drbd,
            Operation::DelConnection {
                connection: there.unwrap(),
            },
        );
        for minor in [0, 1] {
            let detach = Operation::Detach {
                minor: Minor(minor),
            };
            done(&drbd, detach.clone());
            println!("{}", drbd.run(&detach, TIMEOUT).unwrap());
        }
        assert_eq!(
            refused(&drbd, Operation::DelResource { resource: r0() }).kind(),
            ErrorKind::Busy
        );
        same_as_drbdsetup(&drbd);
        for minor in [0, 1] {
            done(
                &drbd,
                Operation::DelMinor {
                    minor: Minor(minor),
                },
            );
        }
        done(&drbd, Operation::DelResource { resource: r0() });
    }
    assert_eq!(drbd.snapshot(TIMEOUT).unwrap().resources, []);
    assert_eq!(drbdsetup(&["status"]).trim(), "");
}

#[test]
#[ignore = "runs inside a node"]
fn inner_refusals() {
    let drbd = drbd();
    let nosuch = || ResourceName::new("nosuch").unwrap();
    for operation in [
        Operation::Primary { resource: nosuch() },
        Operation::Secondary { resource: nosuch() },
        Operation::DelResource { resource: nosuch() },
        Operation::NewMinor {
            resource: nosuch(),
            volume: VolumeNumber(0),
            minor: Minor(0),
            options: DeviceOptions::new(),
        },
        Operation::DelMinor { minor: Minor(99) },
        Operation::Detach { minor: Minor(99) },
        attach(0),
        Operation::Disconnect {
            connection: ConnectionRef::only(nosuch()),
        },
        Operation::Down { resource: nosuch() },
    ] {
        let error = refused(&drbd, operation);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
    done(
        &drbd,
        Operation::NewResource {
            resource: r0(),
            node_id: Some(NodeId(0)),
            options: ResourceOptions::new(),
        },
    );
    let out_of_range = |minor, volume| Operation::NewMinor {
        resource: r0(),
        volume: VolumeNumber(volume),
        minor: Minor(minor),
        options: DeviceOptions::new(),
    };
    assert_eq!(
        refused(&drbd, out_of_range(1 << 20, 0)).kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        refused(&drbd, out_of_range(0, 65_536)).kind(),
        ErrorKind::InvalidInput
    );
    done(&drbd, out_of_range(0, 0));
    let mut missing = attach(0);
    if let Operation::Attach { backing_dev, .. } = &mut missing {
        *backing_dev = "/dev/nosuch".into();
    }
    assert_eq!(refused(&drbd, missing).ret_code(), Some(104));
    if drbd.family().dialect == Dialect::V84 {
        assert_eq!(
            refused(&drbd, attach(0)).ret_code_name(),
            Some("ERR_MD_INVALID")
        );
    }
    let state = drbd.snapshot(TIMEOUT).unwrap();
    assert_eq!(state.resources.len(), 1);
    done(&drbd, Operation::Down { resource: r0() });
}

/// Another uid reads, and may not change anything.
#[test]
#[ignore = "runs inside a node"]
fn inner_no_permission() {
    let drbd = drbd();
    done(
        &drbd,
        Operation::NewResource {
            resource: r0(),
            node_id: Some(NodeId(0)),
            options: ResourceOptions::new(),
        },
    );
    nix::unistd::setgid(nix::unistd::Gid::from_raw(65_534)).unwrap();
    nix::unistd::setuid(nix::unistd::Uid::from_raw(65_534)).unwrap();
    let state = drbd.snapshot(TIMEOUT).unwrap();
    assert!(state.resource("r0").is_some());
    for operation in [
        Operation::Down { resource: r0() },
        Operation::NewMinor {
            resource: r0(),
            volume: VolumeNumber(0),
            minor: Minor(0),
            options: DeviceOptions::new(),
        },
    ] {
        let error = refused(&drbd, operation);
        assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
        assert_eq!(error.raw_os_error(), Some(1));
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }
}

#[test]
#[ignore = "runs inside a node"]
fn inner_overrun() {
    let drbd = drbd();
    let mut watcher = drbd.watch().unwrap();
    let name = |number: usize| ResourceName::new(&format!("many{number}")).unwrap();
    let new = |number: usize| Operation::NewResource {
        resource: name(number),
        node_id: Some(NodeId(0)),
        options: ResourceOptions::new(),
    };
    // The watcher does not look, and its small buffer overflows.
    watcher.set_receive_buffer(32 << 10);
    for round in 0..3 {
        for number in 0..100 {
            done(&drbd, new(number));
        }
        if round < 2 {
            for number in 0..100 {
                done(
                    &drbd,
                    Operation::DelResource {
                        resource: name(number),
                    },
                );
            }
        }
    }
    let mut resynced = 0;
    let mut updates = 0;
    while let Some(update) = watcher.next_update(Duration::from_secs(2)).unwrap() {
        updates += 1;
        if matches!(update, drbd_nl::Update::Resynced(_)) {
            resynced += 1;
        }
    }
    println!("{updates} updates, {resynced} of them after a loss");
    assert!(resynced > 0, "500 changes fit into the buffer");
    let names = |state: &State| {
        state
            .resources
            .iter()
            .map(|r| r.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(watcher.state()),
        names(&drbd.snapshot(TIMEOUT).unwrap())
    );
    assert_eq!(watcher.state().resources.len(), 100);
    for number in 0..100 {
        done(
            &drbd,
            Operation::DelResource {
                resource: name(number),
            },
        );
    }
    watcher
        .wait_for(TIMEOUT, |state| state.resources.is_empty())
        .unwrap();
}
