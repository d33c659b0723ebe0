//! The real module, in nodes: every operation does what drbdsetup would see,
//! our state is `drbdsetup status`, our events are `drbdsetup events2`.
//!
//! `LAB_KERNEL` and `LAB_MODULES` choose the kernel; nothing here assumes 8.4.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../examples/promote.rs"]
#[allow(dead_code, reason = "an example")]
mod promote_example;
#[path = "../examples/status.rs"]
#[allow(dead_code, reason = "an example")]
mod status_example;
#[path = "../examples/watch_events.rs"]
#[allow(dead_code, reason = "an example")]
mod watch_example;

#[path = "common/json.rs"]
mod json;
#[path = "common/lines.rs"]
#[allow(dead_code, reason = "shared with the transcripts")]
mod lines;
#[path = "common/text.rs"]
#[allow(dead_code, reason = "shared with the transcripts")]
mod text;

use drbd_nl::{
    AddressPair, AfterSplitBrain, Base, Connection, ConnectionRef, ConnectionState, DeviceOptions,
    Dialect, DiskOptions, DiskState, Drbd, Error, ErrorKind, InvalidateOptions,
    InvalidatePeerOptions, MetaDisk, Minor, NetOptions, NewUuidOptions, NodeId, Operation, Outcome,
    PeerDeviceRef, Protocol, RawEvent, ResizeOptions, ResourceName, ResourceOptions, Role, Secret,
    State, SuspendIoOptions, TimeoutType, Update, VerifyOptions, VolumeNumber,
};
use std::fs;
use std::io::BufRead;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uml_lab::{Disk, Lab};

const TIMEOUT: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(120);
const OUR_EVENTS: &str = "/tmp/our-events";
const STOP: &str = "/tmp/stop-events";

fn lab(name: &str) -> Option<Lab> {
    Lab::builder()
        .name(name)
        .packages(["drbd-utils"])
        .node("node1", |n| n.disk("48M").disk(Disk::new("48M").faults()))
        .node("node2", |n| n.disk("48M").disk("48M"))
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
    // What it prints, as far as it has come.
    let printed = Arc::new(Mutex::new(String::new()));
    let (reader, text) = (oracle.stdout(), Arc::clone(&printed));
    let reading = std::thread::spawn(move || {
        for line in std::io::BufReader::new(reader)
            .lines()
            .map_while(Result::ok)
        {
            let mut text = text.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
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
    let ours = String::from_utf8(one.read_file(OUR_EVENTS).unwrap()).unwrap();
    // The end of r0 is the end of the story: then it has printed everything.
    let ends = |text: &str| text.matches("destroy resource name:r0\n").count();
    assert!(ends(&ours) > 0, "{ours}");
    for _ in 0..600 {
        if ends(&printed.lock().unwrap()) >= ends(&ours) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    oracle.kill(15).unwrap();
    oracle.wait(TIMEOUT).unwrap();
    reading.join().unwrap();
    compare_events(&printed.lock().unwrap(), &ours);
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
        (one, "inner_our_call_and_drbdsetups"),
        (one, "inner_part"),
        (two, "inner_part"),
        (one, "inner_survive"),
        (two, "inner_split_brain"),
        (one, "inner_survive"),
        (two, "inner_discard"),
        (one, "inner_sync_again"),
        (two, "inner_tear_down"),
        (one, "inner_tear_down"),
    ] {
        node.run_test_with(name, |c| c.deadline(LONG * 3))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        if name == "inner_sync_again" {
            // The disk of volume 1 fails under a Primary.
            one.disk(1).inject(uml_lab::DiskFault::Fail).unwrap();
            one.run_test_with("inner_io_error", |c| c.deadline(LONG))
                .unwrap();
            one.disk(1).heal().unwrap();
            one.run_test("inner_examples").unwrap();
        }
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
    node.run_test_with("inner_fake_is_like_the_kernel", |c| c.deadline(LONG))
        .unwrap();
    node.run_test_with("inner_module_goes_and_comes", |c| c.deadline(LONG))
        .unwrap();
    node.run_test_with("inner_no_permission", |c| c.deadline(LONG))
        .unwrap();
}

/// Many changes behind a watcher that does not look: it reports the loss and
/// is right in the end.
#[test]
fn overrun() {
    let Some((_lab, node)) = one_node("drbd-nl-overrun") else {
        return;
    };
    node.run_test_with("inner_overrun", |c| c.deadline(LONG * 3))
        .unwrap();
}

/// A node with the module, and a small disk.
fn one_node(name: &str) -> Option<(Lab, uml_lab::Node)> {
    let lab = Lab::builder()
        .name(name)
        .packages(["drbd-utils"])
        .node("node1", |n| n.disk("16M"))
        .start_for_test()?;
    let node = lab.node("node1");
    node.load_module("drbd", ["usermode_helper=/bin/true"])
        .unwrap();
    Some((lab, node))
}

/// The same, with as many changes as a day has.
#[test]
#[ignore = "deep: 10000 changes"]
fn deep_overrun() {
    let Some((_lab, node)) = one_node("drbd-nl-deep-overrun") else {
        return;
    };
    let changes = std::env::var("DRBD_NL_CHANGES").unwrap_or_else(|_| "10000".into());
    node.run_test_with("inner_overrun", |c| {
        c.env("DRBD_NL_CHANGES", changes)
            .deadline(Duration::from_secs(3600))
    })
    .unwrap();
}

/// Two hundred resources: our state is drbdsetup's.
#[test]
#[ignore = "deep: 200 resources"]
fn deep_many_resources() {
    let Some((_lab, node)) = one_node("drbd-nl-deep-many") else {
        return;
    };
    node.run_test_with("inner_many_resources", |c| {
        c.deadline(Duration::from_secs(3600))
    })
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
        .verify_alg("sha1")
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
/// only changes that show nothing new may be missing, and the ends of peer devices.
fn compare_events(theirs: &str, ours: &str) {
    let mut printed: Vec<&str> = theirs.lines().map(lines::unstamped).collect();
    // What drbdsetup concludes by itself, in lines of their own: no message says it.
    printed.retain(|their| {
        let mut news = their.split(' ').skip(2).filter(|w| !w.starts_with("name:"));
        !their.contains("may_promote:")
            || news.any(|w| !w.starts_with("may_promote:") && !w.starts_with("promotion_score:"))
    });
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
                        // Rates by drbdsetup's clock (9).
                        || word.starts_with("dbdt1:")
                        || word.starts_with("eta:")
                })
        });
        match at {
            Some(at) => {
                printed.remove(at);
                compared += 1;
            }
            None => {
                // drbdsetup of 9 never says that a peer device went, only that its connection did.
                let went = "destroy peer-device ";
                assert!(
                    line.starts_with("change ") || line.starts_with(went) && !theirs.contains(went),
                    "not printed: {line}"
                );
                silent += 1;
            }
        }
    }
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

/// A command of drbdsetup about a volume and its peer.
fn peer_device_command(dialect: Dialect, command: &str, volume: u32) -> Vec<String> {
    let words: &[&str] = match dialect {
        Dialect::V84 => &[command],
        Dialect::V9 => &[command, "r0", "1"],
    };
    let mut words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    words.push(volume.to_string());
    words
}

/// Volume 0, to which our call was made, and volume 1, to which drbdsetup's
/// was made, are alike.
fn alike(drbd: &Drbd, what: &str) -> State {
    let pick = |state: &State, volume: u32| {
        let r0 = state.resource("r0").unwrap();
        let device = r0.device(VolumeNumber(volume)).unwrap();
        let peer = r0
            .connections
            .first()
            .and_then(|c| c.peer_device(VolumeNumber(volume)))
            .map(|p| (p.replication, p.peer_disk_state, p.resync_suspended));
        let disk = (device.disk_state, device.statistics.size, device.quorum);
        (disk, device.meta_disk.clone(), device.options.clone(), peer)
    };
    let mut last = None;
    for _ in 0..600 {
        let state = drbd.snapshot(TIMEOUT).unwrap();
        if pick(&state, 0) == pick(&state, 1) {
            return state;
        }
        last = Some((pick(&state, 0), pick(&state, 1)));
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what}: not alike: {last:#?}");
}

/// Each command: our call on one volume and drbdsetup's on the other leave
/// the same behind.
#[test]
#[ignore = "runs inside a node"]
fn inner_our_call_and_drbdsetups() {
    let drbd = drbd();
    let dialect = drbd.family().dialect;
    let mut watcher = drbd.watch().unwrap();
    let peer_device = || PeerDeviceRef::only(r0(), VolumeNumber(0));
    let minor = Minor(0);
    let settle = |watcher: &mut drbd_nl::Watcher| {
        watcher.wait_sync(&r0(), LONG).unwrap();
    };
    // Settings of both disks alike, by our call and by drbdsetup's.
    let mut slow = DiskOptions::new().disk_timeout(70u32);
    slow.reset("md-flushes").unwrap();
    done(
        &drbd,
        Operation::ChangeDiskOptions {
            minor,
            base: Base::Current,
            options: Box::new(slow),
        },
    );
    drbdsetup(&["disk-options", "1", "--disk-timeout=70", "--md-flushes=yes"]);
    alike(&drbd, "disk-options");

    let theirs = |command: &str, more: &[&str]| {
        let words = peer_device_command(dialect, command, 1);
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.extend(more);
        drbdsetup(&words);
    };
    done(
        &drbd,
        Operation::PauseSync {
            peer_device: peer_device(),
        },
    );
    theirs("pause-sync", &[]);
    let state = alike(&drbd, "pause-sync");
    let peer = &state.resource("r0").unwrap().connections[0].peer_devices[0];
    assert!(peer.resync_suspended.user);
    let again = Operation::PauseSync {
        peer_device: peer_device(),
    };
    assert_eq!(drbd.run(&again, TIMEOUT).unwrap(), Outcome::AlreadyThere);
    done(
        &drbd,
        Operation::ResumeSync {
            peer_device: peer_device(),
        },
    );
    theirs("resume-sync", &[]);
    alike(&drbd, "resume-sync");
    done(
        &drbd,
        Operation::Verify {
            peer_device: peer_device(),
            options: VerifyOptions::new().start(0u64),
        },
    );
    theirs("verify", &["--start=0"]);
    settle(&mut watcher);
    alike(&drbd, "verify");
    done(
        &drbd,
        Operation::InvalidatePeer {
            peer_device: peer_device(),
            options: InvalidatePeerOptions::new(),
        },
    );
    // While it lasts, both kernels say how much there was.
    let state = drbd.snapshot(TIMEOUT).unwrap();
    let peer = &state.resource("r0").unwrap().connections[0].peer_devices[0];
    if let Some(progress) = peer.progress() {
        println!("{progress:?} {:?}", progress.percent());
        assert!(progress.total.is_some());
    }
    settle(&mut watcher);
    theirs("invalidate-remote", &[]);
    settle(&mut watcher);
    alike(&drbd, "invalidate-remote");
    done(
        &drbd,
        Operation::Invalidate {
            minor,
            options: InvalidateOptions::new(),
        },
    );
    settle(&mut watcher);
    drbdsetup(&["invalidate", "1"]);
    settle(&mut watcher);
    alike(&drbd, "invalidate");

    let suspended = |drbd: &Drbd| {
        let state = drbd.snapshot(TIMEOUT).unwrap();
        state.resource("r0").unwrap().suspended
    };
    let suspend = Operation::SuspendIo {
        minor,
        options: SuspendIoOptions::new(),
    };
    done(&drbd, suspend);
    let ours = suspended(&drbd);
    assert!(ours.user);
    done(&drbd, Operation::ResumeIo { minor });
    assert!(!suspended(&drbd).any());
    drbdsetup(&["suspend-io", "1"]);
    assert_eq!(suspended(&drbd), ours);
    drbdsetup(&["resume-io", "1"]);

    let new_uuid = Operation::NewCurrentUuid {
        minor,
        options: NewUuidOptions::new(),
    };
    let error = refused(&drbd, new_uuid.clone());
    assert_eq!(error.ret_code_name(), Some("ERR_CONNECTED"));
    assert_eq!(
        drbd.timeout_type(&peer_device(), TIMEOUT).unwrap(),
        TimeoutType::Default
    );
    // Larger and smaller; a size is wanted where it shrinks. One side has to
    // be Primary for that.
    let nobody = Operation::Resize {
        minor,
        options: ResizeOptions::new(),
    };
    if dialect == Dialect::V84 {
        assert_eq!(
            refused(&drbd, nobody.clone()).ret_code_name(),
            Some("ERR_NO_PRIMARY")
        );
    }
    assert_eq!(drbd.primary(&r0(), TIMEOUT).unwrap(), Outcome::Done);
    let size = alike(&drbd, "size")
        .device(minor)
        .unwrap()
        .1
        .statistics
        .size
        .0;
    for wanted in [size / 2 / 8 * 8, size] {
        done(
            &drbd,
            Operation::Resize {
                minor,
                options: ResizeOptions::new().size(wanted).assume_clean(true),
            },
        );
        settle(&mut watcher);
        drbdsetup(&[
            "resize",
            "1",
            &format!("--size={wanted}s"),
            "--assume-clean",
        ]);
        settle(&mut watcher);
        let state = alike(&drbd, "resize");
        assert_eq!(state.device(minor).unwrap().1.statistics.size.0, wanted);
    }
    println!("{}", drbd.run(&nobody, TIMEOUT).unwrap());
    drbdsetup(&["resize", "1"]);
    settle(&mut watcher);
    alike(&drbd, "resize to all there is");
    secondary(&drbd);
    let rename = Operation::RenameResource {
        resource: r0(),
        new_name: ResourceName::new("other").unwrap(),
    };
    match dialect {
        Dialect::V84 => {
            let error = refused(&drbd, rename);
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("needs DRBD 9.0.28"), "{error}");
        }
        Dialect::V9 => {
            done(&drbd, rename);
            drbdsetup(&["rename-resource", "other", "r0"]);
        }
    }
    // Alone: outdated, a new generation, detached, attached.
    done(
        &drbd,
        Operation::Disconnect {
            connection: connection(),
        },
    );
    watcher.wait_disconnect(&r0(), TIMEOUT).unwrap();
    done(&drbd, Operation::Outdate { minor });
    drbdsetup(&["outdate", "1"]);
    let state = alike(&drbd, "outdate");
    assert_eq!(
        state.device(minor).unwrap().1.disk_state,
        DiskState::Outdated
    );
    done(&drbd, Operation::Detach { minor });
    drbdsetup(&["detach", "1"]);
    alike(&drbd, "detach");
    // It was Primary before, so its activity log is in use.
    if let Err(error) = drbd.run(&attach(0), TIMEOUT) {
        assert_eq!(error.kind(), ErrorKind::MetadataUnclean, "{error}");
    }
    for minor in ["0", "1"] {
        let format = match dialect {
            Dialect::V84 => "v08",
            Dialect::V9 => "v09",
        };
        let disk = ["/dev/ubda", "/dev/ubdb"][usize::from(minor == "1")];
        let output = Command::new("drbdmeta")
            .args([minor, format, disk, "internal", "apply-al"])
            .output()
            .unwrap();
        println!("apply-al {minor}: {output:?}");
    }
    println!("{}", drbd.run(&attach(0), TIMEOUT).unwrap());
    match dialect {
        Dialect::V84 => drbdsetup(&[
            "attach",
            "1",
            "/dev/ubdb",
            "/dev/ubdb",
            "internal",
            "--resync-rate=102400k",
            "--c-plan-ahead=0",
            "--al-extents=257",
        ]),
        Dialect::V9 => drbdsetup(&[
            "attach",
            "1",
            "/dev/ubdb",
            "/dev/ubdb",
            "internal",
            "--al-extents=257",
        ]),
    };
    alike(&drbd, "attach");
    done(&drbd, connect());
    watcher.wait_sync(&r0(), LONG).unwrap();
    same_as_drbdsetup(&drbd);
}

/// Disconnects, and writes alone.
#[test]
#[ignore = "runs inside a node"]
fn inner_part() {
    use std::io::Write;
    let drbd = drbd();
    let disconnect = Operation::Disconnect {
        connection: connection(),
    };
    println!("{}", drbd.run(&disconnect, TIMEOUT).unwrap());
    done(&drbd, Operation::PromoteUnfenced { resource: r0() });
    let mut device = fs::OpenOptions::new()
        .write(true)
        .open("/dev/drbd0")
        .unwrap();
    device.write_all(&vec![0x77; 64 << 10]).unwrap();
    device.sync_all().unwrap();
    drop(device);
    secondary(&drbd);
}

/// Who looks at a new device (as udev does) may have it open for a moment.
fn secondary(drbd: &Drbd) {
    for _ in 0..600 {
        match drbd.secondary(&r0(), TIMEOUT) {
            Ok(_) => return,
            Err(error) if error.kind() == ErrorKind::Busy => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("somebody keeps /dev/drbd0 open");
}

/// Both call each other; DRBD says that there is a split brain.
#[test]
#[ignore = "runs inside a node"]
fn inner_split_brain() {
    let drbd = drbd();
    let mut watcher = drbd.watch_only([r0()]).unwrap();
    // node1 is waiting for this side.
    done(&drbd, connect());
    let mut signals = Vec::new();
    while !signals.contains(&true) {
        match watcher.next_update(LONG).unwrap() {
            Some(Update::SplitBrain(signal)) => {
                assert_eq!(signal.resource, Some(r0()));
                signals.push(signal.unsolved);
            }
            Some(_) => {}
            None => panic!("no split brain: {signals:?} {:?}", watcher.state()),
        }
    }
    println!("{signals:?}");
    watcher.wait_disconnect(&r0(), TIMEOUT).unwrap();
}

/// This side keeps its data, and waits for the other.
#[test]
#[ignore = "runs inside a node"]
fn inner_survive() {
    let drbd = drbd();
    // The other side may know of the split brain before this one has given up.
    let mut watcher = drbd.watch_only([r0()]).unwrap();
    let given_up = |state: &State| {
        let connections = &state.resource("r0").unwrap().connections;
        let alone = |c: &Connection| c.state == ConnectionState::StandAlone;
        connections.iter().all(alone)
    };
    watcher.wait_for(TIMEOUT, given_up).unwrap();
    done(&drbd, connect());
}

/// This side throws its data away, having named it.
#[test]
#[ignore = "runs inside a node"]
fn inner_discard() {
    let drbd = drbd();
    let state = drbd.snapshot(TIMEOUT).unwrap();
    let plan = state
        .resource("r0")
        .unwrap()
        .discard_plan(&connection())
        .unwrap();
    println!("{plan}");
    assert_eq!(plan.losses.len(), 2);
    let loss = &plan.losses[0];
    assert!(loss.generation.is_some());
    assert!(loss.written.unwrap().0 >= 128, "{loss}");
    let name = Some("node1".into());
    let outcome = drbd.discard_local_data(&plan, name, net_options(), TIMEOUT);
    assert_eq!(outcome.unwrap(), Outcome::Done);
    let mut watcher = drbd.watch().unwrap();
    watcher.wait_sync(&r0(), LONG).unwrap();
    let state = drbd.snapshot(TIMEOUT).unwrap();
    let against = state.resource("r0").unwrap().discard_plan(&connection());
    assert!(against.unwrap_err()[0].contains("no split brain"));
}

#[test]
#[ignore = "runs inside a node"]
fn inner_sync_again() {
    let drbd = drbd();
    drbd.watch().unwrap().wait_sync(&r0(), LONG).unwrap();
    same_as_drbdsetup(&drbd);
}

/// The disk of volume 1 fails: it goes, the data is still there over the wire.
#[test]
#[ignore = "runs inside a node"]
fn inner_io_error() {
    use std::io::Write;
    let drbd = drbd();
    let mut watcher = drbd.watch().unwrap();
    assert_eq!(drbd.primary(&r0(), TIMEOUT).unwrap(), Outcome::Done);
    let mut device = fs::OpenOptions::new()
        .write(true)
        .open("/dev/drbd1")
        .unwrap();
    device.write_all(&[0x11; 4096]).unwrap();
    device.sync_all().unwrap();
    drop(device);
    watcher
        .wait_for(LONG, |state| {
            state.device(Minor(1)).unwrap().1.disk_state == DiskState::Diskless
        })
        .unwrap();
    let state = same_as_drbdsetup(&drbd);
    let r0 = state.resource("r0").unwrap();
    assert_eq!(r0.role, Role::Primary);
    assert!(r0.demotion_risks().is_empty(), "{:?}", r0.demotion_risks());
    secondary(&drbd);
}

/// The examples do on a real kernel what they say.
#[test]
#[ignore = "runs inside a node"]
fn inner_examples() {
    let drbd = drbd();
    status_example::main().unwrap();
    // Volume 1 has its data at the peer.
    promote_example::promote("r0").unwrap();
    let role = |drbd: &Drbd| drbd.snapshot(TIMEOUT).unwrap().resource("r0").unwrap().role;
    assert_eq!(role(&drbd), Role::Primary);
    promote_example::promote("r0").unwrap();
    assert!(promote_example::promote("nosuch").is_err());
    // It watches until this process ends.
    let watching = std::thread::spawn(|| watch_example::main().map_err(|e| e.to_string()));
    secondary(&drbd);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!watching.is_finished());
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
    // 9 says so in a comment.
    let theirs = drbdsetup(&["status"]);
    let mut lines = theirs.lines().filter(|line| !line.is_empty());
    assert!(lines.all(|line| line.starts_with('#')), "{theirs}");
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
    let changes: usize = std::env::var("DRBD_NL_CHANGES").map_or(500, |text| text.parse().unwrap());
    // The watcher does not look, and its small buffer overflows; now and then
    // it looks once, as a slow reader does.
    watcher.set_receive_buffer(32 << 10);
    let rounds = (changes / 100) | 1;
    let mut resynced = 0;
    for round in 0..rounds {
        for number in 0..100 {
            let operation = if round % 2 == 0 {
                new(number)
            } else {
                Operation::DelResource {
                    resource: name(number),
                }
            };
            assert_eq!(drbd.run(&operation, TIMEOUT).unwrap(), Outcome::Done);
            if number % 50 == 7 && round > 20 {
                let update = watcher.try_update().unwrap();
                resynced += u32::from(matches!(update, Some(Update::Resynced(_))));
            }
        }
    }
    let mut updates = 0;
    while let Some(update) = watcher.next_update(Duration::from_secs(2)).unwrap() {
        updates += 1;
        resynced += u32::from(matches!(update, Update::Resynced(_)));
    }
    println!("{updates} updates in the end, {resynced} in all after a loss");
    assert!(resynced > 0, "{changes} changes fit into the buffer");
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

#[test]
#[ignore = "runs inside a node"]
fn inner_many_resources() {
    let drbd = drbd();
    for number in 0..200u32 {
        let name = ResourceName::new(&format!("many{number:03}")).unwrap();
        let operations = [
            Operation::NewResource {
                resource: name.clone(),
                node_id: Some(NodeId(0)),
                options: ResourceOptions::new(),
            },
            Operation::NewMinor {
                resource: name,
                volume: VolumeNumber(0),
                minor: Minor(number),
                options: DeviceOptions::new(),
            },
        ];
        for operation in operations {
            assert_eq!(drbd.run(&operation, TIMEOUT).unwrap(), Outcome::Done);
        }
    }
    let state = same_as_drbdsetup(&drbd);
    assert_eq!(state.resources.len(), 200);
    let watcher = drbd.watch().unwrap();
    assert_eq!(watcher.state().resources.len(), 200);
}

/// The kernel that is not there announces what this one does, call by call.
#[test]
#[ignore = "runs inside a node"]
fn inner_fake_is_like_the_kernel() {
    let drbd = drbd();
    let dialect = drbd.family().dialect;
    create_metadata(dialect, 0);
    let real = scenario(&drbd);
    let cluster = drbd_nl::testing::FakeCluster::new(dialect, ["node1"]);
    cluster.add_disk("node1", "/dev/ubda", 90_000);
    let fake = scenario(&Drbd::with_connector(cluster.node("node1")).unwrap());
    for (object, theirs) in &real {
        println!("{object}: {theirs:?}");
    }
    assert_eq!(real, fake);
}

/// What is announced about each object while one node is configured, used
/// alone, and taken down; its states, repetitions left out.
fn scenario<C>(drbd: &Drbd<C>) -> std::collections::BTreeMap<String, Vec<String>>
where
    C: drbd_nl::socket::Connector + Send + Sync + 'static,
    C::Transport: Send + 'static,
{
    let dialect = drbd.family().dialect;
    let mut events = drbd.events().unwrap();
    while events
        .next_event(Duration::from_millis(200))
        .unwrap()
        .is_some()
    {}
    let minor = Minor(0);
    let steps = [
        Operation::NewResource {
            resource: r0(),
            node_id: Some(NodeId(0)),
            options: ResourceOptions::new(),
        },
        Operation::NewMinor {
            resource: r0(),
            volume: VolumeNumber(0),
            minor,
            options: DeviceOptions::new(),
        },
        attach(0),
        Operation::DeclareDataCurrent { resource: r0() },
        Operation::Secondary { resource: r0() },
        Operation::Primary { resource: r0() },
        Operation::Secondary { resource: r0() },
        Operation::SuspendIo {
            minor,
            options: SuspendIoOptions::new(),
        },
        Operation::ResumeIo { minor },
        Operation::Outdate { minor },
        Operation::Detach { minor },
        Operation::Down { resource: r0() },
    ];
    for step in steps {
        for attempt in 0.. {
            match drbd.run(&step, TIMEOUT) {
                Ok(_) => break,
                // Who looks at a new device has it open for a moment.
                Err(error) if error.kind() == ErrorKind::Busy && attempt < 600 => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    let mut objects = std::collections::BTreeMap::<String, Vec<String>>::new();
    let mut names = lines::Names::new();
    while let Some(event) = events.next_event(Duration::from_secs(1)).unwrap() {
        let RawEvent::Event(event) = event else {
            panic!("{event:?}");
        };
        if matches!(
            event.kind,
            drbd_nl::EventKind::Legacy(_) | drbd_nl::EventKind::Helper(_)
        ) {
            continue;
        }
        let words = lines::line(dialect, &event, &mut names, false);
        // Whether somebody looks at the device is not the scenario's matter, nor whether the
        // name of a disk that is being detached is forgotten already (9).
        let detaching = words.iter().any(|w| w == "disk:Detaching");
        let aside =
            |w: &&String| w.starts_with("open:") || (detaching && w.starts_with("backing_dev:"));
        let words: Vec<_> = words.iter().filter(|w| !aside(w)).collect();
        let key = format!("{} {}", words[1], words[2]);
        let line = words
            .iter()
            .map(|w| w.as_str())
            .collect::<Vec<_>>()
            .join(" ");
        let list = objects.entry(key).or_default();
        if list.last() != Some(&line) {
            list.push(line);
        }
    }
    objects
}

/// The module is unloaded and loaded again under a watcher.
#[test]
#[ignore = "runs inside a node"]
fn inner_module_goes_and_comes() {
    let mut drbd = drbd();
    let mut watcher = drbd.watch().unwrap();
    let modprobe = |args: &[&str]| {
        let output = Command::new("/sbin/modprobe").args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    modprobe(&["-r", "drbd"]);
    let update = watcher.next_update(TIMEOUT).unwrap();
    assert!(
        matches!(update, Some(Update::ModuleUnloaded(_))),
        "{update:?}"
    );
    let error = drbd.snapshot(TIMEOUT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModuleNotLoaded);
    modprobe(&["drbd", "usermode_helper=/bin/true"]);
    let update = watcher.next_update(TIMEOUT).unwrap();
    assert!(
        matches!(update, Some(Update::ModuleLoaded(_))),
        "{update:?}"
    );
    drbd.reopen().unwrap();
    let new = Operation::NewResource {
        resource: r0(),
        node_id: Some(NodeId(0)),
        options: ResourceOptions::new(),
    };
    done(&drbd, new);
    watcher
        .wait_for(TIMEOUT, |state| state.resource("r0").is_some())
        .unwrap();
    done(&drbd, Operation::Down { resource: r0() });
}
