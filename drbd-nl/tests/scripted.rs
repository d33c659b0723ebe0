//! A scripted kernel: what no well-behaved kernel does, and what a loaded
//! one does now and then.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use drbd_nl::schema::{NO_MINOR, NOTIFY_CONTINUES, cmd, ctrl, tla};
use drbd_nl::socket::{Connector, Datagram, Deadline, Received, Transport};
use drbd_nl::wire::{Attrs, MessageBuilder, Native, Nest};
use drbd_nl::{
    Action, AddressPair, ConnectionRef, DiskState, Drbd, ErrorKind, EventKind, Minor, NetOptions,
    Operation, Outcome, RawEvent, ResourceName, ResourceOptions, Role, Update, VolumeNumber,
};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FAMILY: u16 = 28;
const GROUP: u32 = 3;
const PORT: u32 = 4711;
const TIMEOUT: Duration = Duration::from_secs(30);

/// What comes back, in order; `None` is silence until the deadline.
#[derive(Clone, Debug)]
enum Step {
    /// From the kernel, sequence number and port of the last request put in.
    Reply(Vec<u8>),
    /// Exactly these bytes, from this port.
    Raw(Vec<u8>, u32),
    /// A datagram that did not fit.
    Truncated(Vec<u8>),
    Overrun,
    Silence,
    /// The same for ever.
    Endless(Vec<u8>),
}

type Behaviour = Arc<dyn Fn(&[u8], usize) -> Vec<Step> + Send + Sync>;

/// Answers requests as a closure says; knows how often it was asked.
#[derive(Clone)]
struct Script {
    behaviour: Behaviour,
    /// What an event socket sees besides answers.
    announced: Arc<Mutex<VecDeque<Step>>>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    /// What was asked for last.
    receive_buffer: Arc<AtomicUsize>,
    version: u32,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

#[derive(Debug)]
struct Socket {
    script: Script,
    queue: VecDeque<Step>,
    joined: bool,
    seq: [u8; 4],
}

fn script(
    behaviour: impl Fn(&[u8], usize) -> Vec<Step> + Send + Sync + 'static,
) -> (Drbd<Script>, Script) {
    script_of(1, behaviour)
}

fn script_of(
    version: u32,
    behaviour: impl Fn(&[u8], usize) -> Vec<Step> + Send + Sync + 'static,
) -> (Drbd<Script>, Script) {
    let script = Script {
        behaviour: Arc::new(behaviour),
        announced: Arc::default(),
        requests: Arc::default(),
        receive_buffer: Arc::default(),
        version,
    };
    (Drbd::with_connector(script.clone()).unwrap(), script)
}

impl Connector for Script {
    type Transport = Socket;

    fn open(&self) -> io::Result<Socket> {
        Ok(Socket {
            script: self.clone(),
            queue: VecDeque::new(),
            joined: false,
            seq: [0; 4],
        })
    }
}

impl Transport for Socket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.seq.copy_from_slice(&datagram[8..12]);
        let kind = u16::from_ne_bytes([datagram[4], datagram[5]]);
        let steps = if kind == ctrl::GENL_ID_CTRL && self.script.version != 0 {
            vec![Step::Reply(family(self.script.version))]
        } else if datagram[16] == cmd::GET_STATUS {
            // What a snapshot of 8.4 asks besides the dumps.
            vec![Step::Reply(answer(cmd::GET_STATUS, 127, &[]))]
        } else {
            let mut requests = self.script.requests.lock().unwrap();
            let asked = requests.iter().filter(|r| r[16] == datagram[16]).count();
            requests.push(datagram.to_vec());
            (self.script.behaviour)(datagram, asked)
        };
        // The sequence number of the request an answer is to.
        for step in steps {
            self.queue.push_back(match step {
                Step::Reply(mut bytes) => {
                    bytes[8..12].copy_from_slice(&self.seq);
                    bytes[12..16].copy_from_slice(&PORT.to_ne_bytes());
                    Step::Raw(bytes, 0)
                }
                other => other,
            });
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, deadline: Deadline) -> io::Result<Received> {
        let announced = || {
            if self.joined {
                self.script.announced.lock().unwrap().pop_front()
            } else {
                None
            }
        };
        let step = self
            .queue
            .pop_front()
            .or_else(announced)
            .unwrap_or(Step::Silence);
        let datagram = |sender, truncated| Ok(Received::Datagram(Datagram { sender, truncated }));
        match step {
            Step::Raw(bytes, sender) => {
                *buffer = bytes;
                datagram(sender, false)
            }
            Step::Reply(mut bytes) => {
                bytes[8..12].copy_from_slice(&self.seq);
                *buffer = bytes;
                datagram(0, false)
            }
            Step::Truncated(bytes) => {
                *buffer = bytes;
                datagram(0, true)
            }
            Step::Overrun => Ok(Received::Overrun),
            Step::Endless(bytes) => {
                self.queue.push_front(Step::Endless(bytes.clone()));
                *buffer = bytes;
                buffer[8..12].copy_from_slice(&self.seq);
                buffer[12..16].copy_from_slice(&PORT.to_ne_bytes());
                datagram(0, false)
            }
            Step::Silence => {
                std::thread::sleep(deadline.left().min(Duration::from_millis(50)));
                Ok(Received::TimedOut)
            }
        }
    }

    fn join(&mut self, group: u32) -> io::Result<()> {
        self.joined |= group == GROUP;
        Ok(())
    }

    fn port(&self) -> u32 {
        PORT
    }

    fn set_receive_buffer(&mut self, bytes: usize) {
        self.script.receive_buffer.store(bytes, Ordering::SeqCst);
    }
}

// ---- messages of a kernel -------------------------------------------------

fn family(version: u32) -> Vec<u8> {
    let mut b = MessageBuilder::<Native>::genl(ctrl::GENL_ID_CTRL, 0, ctrl::CTRL_CMD_NEWFAMILY, 2);
    b.attrs()
        .string(ctrl::CTRL_ATTR_FAMILY_NAME, b"drbd")
        .bytes(ctrl::CTRL_ATTR_FAMILY_ID, &FAMILY.to_ne_bytes())
        .u32(ctrl::CTRL_ATTR_VERSION, version)
        .u32(ctrl::CTRL_ATTR_HDRSIZE, 8)
        .nest(ctrl::CTRL_ATTR_MCAST_GROUPS, |groups| {
            groups.nest(1, |group| {
                group
                    .u32(ctrl::CTRL_ATTR_MCAST_GRP_ID, GROUP)
                    .string(ctrl::CTRL_ATTR_MCAST_GRP_NAME, b"events");
            });
        });
    b.finish(1, PORT).unwrap()
}

fn message(
    command: u8,
    minor: u32,
    ret_code: i32,
    fill: impl FnOnce(&mut Nest<'_, Native>),
) -> Vec<u8> {
    let mut b =
        MessageBuilder::<Native>::genl(FAMILY, 0, command, 1).drbd(minor, ret_code.cast_unsigned());
    fill(&mut b.attrs());
    b.finish(0, PORT).unwrap()
}

fn answer(command: u8, ret_code: i32, texts: &[&str]) -> Vec<u8> {
    message(command, NO_MINOR, ret_code, |top| {
        for text in texts {
            top.nest(tla::CFG_REPLY, |nest| {
                nest.string(1, text.as_bytes());
            });
        }
    })
}

fn netlink_error(errno: i32) -> Vec<u8> {
    let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0];
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&(-errno).to_ne_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes
}

fn done() -> Vec<u8> {
    let mut bytes = vec![20, 0, 0, 0, 3, 0, 2, 0];
    bytes.extend_from_slice(&[0; 12]);
    bytes
}

fn resource(command: u8, name: &str, role: u32, nh_type: Option<u32>) -> Vec<u8> {
    message(command, NO_MINOR, 101, |top| {
        top.nest(tla::CFG_CONTEXT, |nest| {
            nest.string(2, name.as_bytes());
        });
        if let Some(nh_type) = nh_type {
            top.nest(tla::NOTIFICATION_HEADER, |nest| {
                nest.u32(1, nh_type);
            });
        }
        top.nest(tla::RESOURCE_INFO, |nest| {
            nest.u32(1, role).u8(2, 0).u8(3, 0).u8(4, 0);
        });
    })
}

fn device(command: u8, name: &str, volume: u32, disk: u32, nh_type: Option<u32>) -> Vec<u8> {
    message(command, volume, 101, |top| {
        top.nest(tla::CFG_CONTEXT, |nest| {
            nest.string(2, name.as_bytes()).u32(1, volume);
        });
        if let Some(nh_type) = nh_type {
            top.nest(tla::NOTIFICATION_HEADER, |nest| {
                nest.u32(1, nh_type);
            });
        }
        top.nest(tla::DEVICE_INFO, |nest| {
            nest.u32(1, disk);
        });
    })
}

fn state_done() -> Vec<u8> {
    message(cmd::INITIAL_STATE_DONE, NO_MINOR, 101, |top| {
        top.nest(tla::NOTIFICATION_HEADER, |nest| {
            nest.u32(1, 0);
        });
    })
}

/// A live event with a sequence number of its own.
fn live(mut bytes: Vec<u8>, seq: u32) -> Step {
    bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
    bytes[12..16].copy_from_slice(&[0; 4]);
    Step::Raw(bytes, 0)
}

/// The call of a helper program.
fn helper(name: &str, seq: u32) -> Step {
    let message = message(cmd::HELPER, NO_MINOR, 101, |top| {
        top.nest(tla::NOTIFICATION_HEADER, |nest| {
            nest.u32(1, 4);
        });
        top.nest(tla::HELPER, |nest| {
            nest.string(1, name.as_bytes()).u32(2, 0);
        });
    });
    live(message, seq)
}

fn is_dump(request: &[u8]) -> bool {
    u16::from_ne_bytes([request[6], request[7]]) & 0x300 == 0x300
}

/// Dumps of one resource with two volumes, whose disk state is given.
fn dumps(request: &[u8], disk: u32) -> Vec<Step> {
    let mut steps = match request[16] {
        cmd::GET_RESOURCES => vec![Step::Reply(resource(cmd::GET_RESOURCES, "r0", 2, None))],
        cmd::GET_DEVICES => {
            let device = |volume| Step::Reply(device(cmd::GET_DEVICES, "r0", volume, disk, None));
            vec![device(0), device(1)]
        }
        _ => vec![],
    };
    steps.push(Step::Reply(done()));
    steps
}

fn initial_state(role: u32) -> Vec<Step> {
    vec![
        Step::Reply(resource(
            cmd::RESOURCE_STATE,
            "r0",
            role,
            Some(NOTIFY_CONTINUES),
        )),
        Step::Reply(device(cmd::DEVICE_STATE, "r0", 0, 8, Some(0))),
        Step::Reply(state_done()),
        Step::Reply(done()),
    ]
}

fn r0() -> ResourceName {
    ResourceName::new("r0").unwrap()
}

fn del() -> Operation {
    Operation::DelResource { resource: r0() }
}

// ---- requests --------------------------------------------------------------

#[test]
fn a_refusal_carries_every_text() {
    let (drbd, _) = script(|_, _| {
        vec![Step::Reply(answer(
            cmd::DEL_RESOURCE,
            159,
            &["first", "second\n", "third"],
        ))]
    });
    let error = drbd.run(&del(), TIMEOUT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(
        (error.ret_code(), error.ret_code_name()),
        (Some(159), Some("ERR_RES_IN_USE"))
    );
    let texts: Vec<_> = error.info().iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["first", "second\\n", "third"]);
    assert_eq!(
        error.to_string(),
        "del-resource r0: refused with code 159 (ERR_RES_IN_USE): the resource still has minors \
         or connections; drbd says: first; second; third"
    );
}

#[test]
fn a_success_carries_its_texts() {
    let (drbd, _) = script(|_, _| vec![Step::Reply(answer(cmd::DEL_RESOURCE, 101, &["slow"]))]);
    let report = drbd.run_reported(&del(), TIMEOUT).unwrap();
    assert_eq!(
        (report.outcome, report.info[0].to_string()),
        (Outcome::Done, "slow".into())
    );
}

#[test]
fn a_netlink_error_is_an_errno() {
    let (drbd, _) = script(|_, _| vec![Step::Reply(netlink_error(1))]);
    let error = drbd.run(&del(), TIMEOUT).unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Permission, Some(1))
    );
    let (drbd, _) = script(|_, _| vec![Step::Reply(netlink_error(2))]);
    assert_eq!(
        drbd.run(&del(), TIMEOUT).unwrap_err().kind(),
        ErrorKind::ModuleNotLoaded
    );
    assert_eq!(
        drbd.snapshot(TIMEOUT).unwrap_err().kind(),
        ErrorKind::ModuleNotLoaded
    );
}

#[test]
fn silence_after_sending_is_unknown() {
    let (drbd, _) = script(|_, _| vec![]);
    let start = Instant::now();
    assert_eq!(
        drbd.run(&del(), Duration::from_millis(100)).unwrap(),
        Outcome::Unknown
    );
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// The kernel does the work inside the send; a caller must not hang with it.
#[test]
fn a_send_that_hangs_is_unknown() {
    #[derive(Debug)]
    struct Hangs(Socket);
    #[derive(Debug)]
    struct Opens(Script);
    impl Connector for Opens {
        type Transport = Hangs;
        fn open(&self) -> io::Result<Hangs> {
            self.0.open().map(Hangs)
        }
    }
    impl Transport for Hangs {
        fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
            if datagram[4..6] == FAMILY.to_ne_bytes() {
                std::thread::sleep(Duration::from_secs(3600));
            }
            self.0.send(datagram)
        }
        fn receive(&mut self, buffer: &mut Vec<u8>, d: Deadline) -> io::Result<Received> {
            self.0.receive(buffer, d)
        }
        fn join(&mut self, group: u32) -> io::Result<()> {
            self.0.join(group)
        }
        fn port(&self) -> u32 {
            PORT
        }
    }
    let (_, script) = script(|_, _| vec![]);
    let drbd = Drbd::with_connector(Opens(script)).unwrap();
    let soon = Duration::from_millis(100);
    assert_eq!(drbd.run(&del(), soon).unwrap(), Outcome::Unknown);
    assert_eq!(drbd.snapshot(soon).unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn a_lost_answer_is_unknown() {
    let (drbd, _) = script(|_, _| vec![Step::Overrun]);
    assert_eq!(drbd.run(&del(), TIMEOUT).unwrap(), Outcome::Unknown);
}

#[test]
fn transient_states_are_tried_again() {
    let (drbd, script) = script(|_, asked| {
        let code = [-18, 129, -18, 101][asked];
        vec![Step::Reply(answer(cmd::DEL_RESOURCE, code, &[]))]
    });
    assert_eq!(drbd.run(&del(), TIMEOUT).unwrap(), Outcome::Done);
    assert_eq!(script.requests.lock().unwrap().len(), 4);
}

#[test]
fn a_transient_state_that_stays_is_an_error() {
    let (drbd, _) = script(|_, _| vec![Step::Reply(answer(cmd::DEL_RESOURCE, -18, &[]))]);
    let error = drbd.run(&del(), Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
}

#[test]
fn the_code_below_minus_20_means_two_things() {
    let (drbd, script) = script(|_, _| vec![Step::Reply(answer(cmd::DEL_RESOURCE, -21, &[]))]);
    let error = drbd.run(&del(), TIMEOUT).unwrap_err();
    assert_eq!(error.ret_code_name(), Some("SS_OUTDATE_WO_CONN"));
    assert_eq!(script.requests.lock().unwrap().len(), 1);
    let (drbd, script) = script_of(2, |_, asked| {
        let code = if asked == 0 { -21 } else { 101 };
        vec![Step::Reply(answer(cmd::DEL_RESOURCE, code, &[]))]
    });
    assert_eq!(drbd.run(&del(), TIMEOUT).unwrap(), Outcome::Done);
    assert_eq!(script.requests.lock().unwrap().len(), 2);
}

#[test]
fn what_another_process_sends_is_ignored() {
    let (drbd, _) = script(|_, _| {
        vec![
            Step::Raw(answer(cmd::DEL_RESOURCE, 101, &[]), 1234),
            Step::Raw(vec![1, 2, 3], 1234),
            Step::Reply(answer(cmd::DEL_RESOURCE, 158, &[])),
        ]
    });
    assert_eq!(
        drbd.run(&del(), TIMEOUT).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn answers_that_break_the_protocol_are_errors() {
    let good = || answer(cmd::DEL_RESOURCE, 101, &[]);
    let mut wrong_seq = good();
    wrong_seq[8..16].copy_from_slice(&[99, 0, 0, 0, 0x67, 0x12, 0, 0]);
    let mut wrong_port = good();
    wrong_port[8..16].copy_from_slice(&[1, 0, 0, 0, 9, 9, 9, 9]);
    let mut wrong_family = good();
    wrong_family[4] = 99;
    let cut = good()[..20].to_vec();
    for (what, step) in [
        ("sequence", Step::Raw(wrong_seq, 0)),
        ("port", Step::Raw(wrong_port, 0)),
        ("type", Step::Reply(wrong_family)),
        ("command", Step::Reply(answer(cmd::NEW_MINOR, 101, &[]))),
        ("length", Step::Reply(cut)),
        ("truncated", Step::Truncated(good())),
    ] {
        let (drbd, _) = script(move |_, _| vec![step.clone()]);
        let error = drbd.run(&del(), TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{what}: {error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
}

#[test]
fn nothing_sent_is_a_timeout() {
    let (drbd, script) = script(|_, _| vec![]);
    // The role of 8.4 needs the minors, which are not told.
    let soon = Duration::from_millis(100);
    let error = drbd.primary(&r0(), soon).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(script.requests.lock().unwrap().iter().all(|r| is_dump(r)));
}

#[test]
fn a_promotion_that_fails_half_way_is_undone() {
    let (drbd, script) = script(|request, asked| {
        if is_dump(request) {
            return dumps(request, 8);
        }
        let code = match (request[16], asked) {
            (cmd::PRIMARY, 1) => -2,
            _ => 1,
        };
        vec![Step::Reply(answer(request[16], code, &[]))]
    });
    let error = drbd.primary(&r0(), TIMEOUT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoCurrentData);
    assert!(error.to_string().contains("volume 1 (minor 1)"), "{error}");
    assert!(
        error.to_string().contains("minor 0 was demoted again"),
        "{error}"
    );
    let requests = script.requests.lock().unwrap();
    let changes: Vec<_> = requests
        .iter()
        .filter(|r| !is_dump(r))
        .map(|r| (r[16], r[20]))
        .collect();
    assert_eq!(
        changes,
        [(cmd::PRIMARY, 0), (cmd::PRIMARY, 1), (cmd::SECONDARY, 0)]
    );
}

#[test]
fn a_second_attach_is_not_sent_to_drbd_9() {
    let (drbd, script) = script_of(2, |request, _| dumps(request, 9));
    let attach = Operation::Attach {
        minor: Minor(0),
        backing_dev: "/dev/sdb".into(),
        meta_disk: drbd_nl::MetaDisk::Internal,
        options: Box::default(),
    };
    assert_eq!(
        drbd.run(&attach, TIMEOUT).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert!(script.requests.lock().unwrap().iter().all(|r| is_dump(r)));
}

#[test]
fn what_a_kernel_lacks_is_not_sent() {
    let (drbd, script) = script(|_, _| vec![]);
    let new_path = Operation::NewPath {
        resource: r0(),
        peer_node_id: drbd_nl::NodeId(1),
        addresses: AddressPair {
            local: "10.0.0.1:1".parse().unwrap(),
            remote: "10.0.0.2:1".parse().unwrap(),
        },
    };
    let change = Operation::ChangeNetOptions {
        connection: ConnectionRef::only(r0()),
        base: drbd_nl::Base::Current,
        options: Box::new(NetOptions::new().tls(true)),
    };
    for operation in [
        new_path,
        change,
        Operation::DemoteFailingIo { resource: r0() },
    ] {
        let error = drbd.run(&operation, TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("DRBD 9"), "{error}");
    }
    assert!(script.requests.lock().unwrap().is_empty());
    // DRBD 9 needs what 8.4 does not.
    let (drbd, _) = script_of(2, |request, _| dumps(request, 0));
    let new = Operation::NewResource {
        resource: r0(),
        node_id: None,
        options: ResourceOptions::new(),
    };
    assert_eq!(
        drbd.run(&new, TIMEOUT).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let (drbd, script) = script(|_, _| vec![]);
    for mask in ["a\0b".to_owned(), "f".repeat(70_000)] {
        let new = Operation::NewResource {
            resource: r0(),
            node_id: None,
            options: ResourceOptions::new().cpu_mask(mask.as_str()),
        };
        assert_eq!(
            drbd.run(&new, TIMEOUT).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
    assert!(script.requests.lock().unwrap().is_empty());
}

// ---- finding the family ----------------------------------------------------

fn family_script(steps: Vec<Step>) -> Script {
    Script {
        behaviour: Arc::new(move |_, _| steps.clone()),
        announced: Arc::default(),
        requests: Arc::default(),
        receive_buffer: Arc::default(),
        version: 0,
    }
}

#[test]
fn the_family_may_be_missing_or_strange() {
    let error = Drbd::with_connector(family_script(vec![Step::Reply(netlink_error(2))]));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ModuleNotLoaded);
    let error = Drbd::with_connector(family_script(vec![Step::Reply(family(3))])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let mut cut = family(1);
    cut.truncate(24);
    for steps in [
        vec![Step::Truncated(family(1))],
        vec![Step::Reply(cut)],
        vec![Step::Raw(family(1), 77), Step::Reply(answer(1, 101, &[]))],
    ] {
        let error = Drbd::with_connector(family_script(steps)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    }
}

// ---- dumps -----------------------------------------------------------------

#[test]
fn a_snapshot_joins_the_dumps() {
    let (drbd, _) = script(|request, _| dumps(request, 8));
    let state = drbd.snapshot(TIMEOUT).unwrap();
    assert!(state.consistent);
    let resource = state.resource("r0").unwrap();
    assert_eq!(
        (resource.role, resource.devices.len()),
        (Role::Secondary, 2)
    );
    assert_eq!(
        state.device(Minor(1)).unwrap().1.disk_state,
        DiskState::UpToDate
    );
}

/// The kernel repeats the refusal of a dump without end.
#[test]
fn an_endless_refusal_ends() {
    let (drbd, _) = script(|request, _| {
        vec![Step::Endless(answer(
            request[16],
            158,
            &["unknown resource"],
        ))]
    });
    let error = drbd.snapshot(TIMEOUT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // And without a code it is ended by the deadline.
    let (drbd, _) = script(|request, _| vec![Step::Endless(answer(request[16], 101, &[]))]);
    let error = drbd.snapshot(Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[test]
fn an_interrupted_dump_is_taken_again() {
    let (drbd, _) = script(|request, asked| {
        let mut steps = dumps(request, 8);
        if request[16] == cmd::GET_DEVICES && asked == 0 {
            let Some(Step::Reply(first)) = steps.first_mut() else {
                panic!()
            };
            first[6] |= 0x10;
        }
        steps
    });
    let state = drbd.snapshot(TIMEOUT).unwrap();
    assert!(state.consistent);
    assert_eq!(state.resource("r0").unwrap().devices.len(), 2);
}

#[test]
fn a_state_that_moves_is_read_again() {
    let (drbd, _) = script(|_, _| panic!("replaced"));
    drop(drbd);
    // An event arrives during the first attempt only.
    let (drbd, script) = script(|request, asked| {
        // The disk is UpToDate from the second attempt on.
        dumps(request, if asked == 0 { 4 } else { 8 })
    });
    let change = resource(cmd::RESOURCE_STATE, "r0", 1, Some(2));
    script.announced.lock().unwrap().push_back(live(change, 7));
    let state = drbd.snapshot(TIMEOUT).unwrap();
    assert!(state.consistent);
    assert_eq!(
        state.device(Minor(0)).unwrap().1.disk_state,
        DiskState::UpToDate
    );
}

/// Where an event comes decides: before the first answer it is in all of
/// them, after it the dumps are taken again. Helpers change nothing.
#[test]
fn events_come_between_the_answers() {
    let change = || live(resource(cmd::RESOURCE_STATE, "r0", 1, Some(2)), 7);
    for (command, at, step, readings) in [
        (cmd::GET_RESOURCES, 0, change(), 1),
        (cmd::GET_RESOURCES, 1, change(), 2),
        (cmd::GET_DEVICES, 0, change(), 2),
        (cmd::GET_DEVICES, 1, helper("fence-peer", 8), 1),
        (cmd::GET_PEER_DEVICES, 0, change(), 2),
        (cmd::GET_PEER_DEVICES, 0, Step::Overrun, 2),
        (cmd::GET_DEVICES, 1, Step::Reply(netlink_error(105)), 2),
    ] {
        let what = format!("{command} {at} {step:?}");
        let (drbd, script) = script(move |request, asked| {
            let mut steps = dumps(request, 8);
            if request[16] == command && asked == 0 {
                steps.insert(at, step.clone());
            }
            steps
        });
        let state = drbd.snapshot(TIMEOUT).unwrap();
        assert!(state.consistent, "{what}");
        assert_eq!(state.resource("r0").unwrap().devices.len(), 2, "{what}");
        let requests = script.requests.lock().unwrap();
        let read = requests.iter().filter(|r| r[16] == cmd::GET_RESOURCES);
        assert_eq!(read.count(), readings, "{what}");
    }
}

/// Events may come faster than they can be read; a state there is all the same.
#[test]
fn a_flood_of_events_does_not_keep_the_state_away() {
    let (drbd, script) = script(|request, _| dumps(request, 8));
    script
        .announced
        .lock()
        .unwrap()
        .extend((0..40).map(|_| Step::Overrun));
    let state = drbd.snapshot(TIMEOUT).unwrap();
    assert!(!state.consistent);
    assert_eq!(state.resource("r0").unwrap().devices.len(), 2);
}

#[test]
fn a_state_that_never_rests_says_so() {
    let (drbd, script) = script(|request, _| dumps(request, 8));
    let change = || live(resource(cmd::RESOURCE_STATE, "r0", 1, Some(2)), 7);
    let steps = (0..40).map(|_| change());
    script.announced.lock().unwrap().extend(steps);
    let state = drbd.snapshot(TIMEOUT).unwrap();
    assert!(!state.consistent);
    assert_eq!(state.resources.len(), 1);
}

#[test]
fn a_device_without_its_resource_is_not_taken() {
    let (drbd, _) = script(|request, asked| {
        if request[16] == cmd::GET_RESOURCES && asked == 0 {
            return vec![Step::Reply(done())];
        }
        dumps(request, 8)
    });
    let state = drbd.snapshot(TIMEOUT).unwrap();
    assert!(state.consistent);
    assert_eq!(state.resource("r0").unwrap().devices.len(), 2);
}

// ---- events ----------------------------------------------------------------

/// 8.4 lists a connection that is not configured in the initial state only.
#[test]
fn an_unconfigured_connection_is_none() {
    let (drbd, script) = script(|_, _| {
        let connection = message(cmd::CONNECTION_STATE, NO_MINOR, 101, |top| {
            top.nest(tla::CFG_CONTEXT, |nest| {
                nest.string(2, b"r0");
            });
            top.nest(tla::CONNECTION_INFO, |nest| {
                nest.u32(1, 0).u32(2, 0);
            });
        });
        let mut steps = initial_state(2);
        steps.insert(1, Step::Reply(connection));
        steps
    });
    let watcher = drbd.watch().unwrap();
    assert_eq!(watcher.state().resource("r0").unwrap().connections, []);
    drop(script);
}

#[test]
fn raw_events_yield_overruns() {
    let (drbd, script) = script(|_, _| initial_state(2));
    script.announced.lock().unwrap().extend([
        live(resource(cmd::RESOURCE_STATE, "r0", 1, Some(2)), 7),
        Step::Overrun,
        Step::Raw(vec![9; 40], 555),
        live(resource(cmd::RESOURCE_STATE, "r0", 2, Some(2)), 9),
    ]);
    let mut events = drbd.events().unwrap();
    let mut seen = Vec::new();
    while let Some(event) = events.next_event(Duration::ZERO).unwrap() {
        seen.push(match event {
            RawEvent::Event(event) => match event.kind {
                EventKind::InitialStateDone => "done".to_owned(),
                _ => format!("{:?} {}", event.action, event.seq),
            },
            RawEvent::Overrun => "overrun".into(),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(
        seen,
        [
            "Exists 2", "Exists 2", "done", "Change 7", "overrun", "Change 9"
        ]
    );
}

#[test]
fn a_truncated_event_is_an_error_and_the_stream_goes_on() {
    let (drbd, script) = script(|_, _| vec![]);
    script.announced.lock().unwrap().extend([
        Step::Truncated(vec![0; 4]),
        live(resource(cmd::RESOURCE_STATE, "r0", 2, Some(2)), 9),
    ]);
    let mut events = drbd.events().unwrap();
    assert_eq!(
        events.next_event(TIMEOUT).unwrap_err().kind(),
        ErrorKind::Malformed
    );
    assert!(matches!(
        events.next_event(TIMEOUT).unwrap(),
        Some(RawEvent::Event(_))
    ));
}

fn updates<T: Transport>(watcher: &mut drbd_nl::Watcher<T>) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(update) = watcher.next_update(Duration::from_millis(60)).unwrap() {
        let list = |changes: &[drbd_nl::Change]| {
            changes
                .iter()
                .map(|c| format!("{:?} {}", c.action, c.object))
                .collect::<Vec<_>>()
        };
        seen.push(match update {
            Update::Changed(changes) => list(&changes).join(", "),
            Update::Resynced(changes) => format!("resynced: {}", list(&changes).join(", ")),
            other => format!("{other:?}"),
        });
    }
    seen
}

#[test]
fn a_watcher_puts_events_in_order() {
    let (drbd, script) = script(|_, _| initial_state(2));
    let mut watcher = drbd.watch().unwrap();
    assert_eq!(
        watcher.state().resource("r0").unwrap().role,
        Role::Secondary
    );
    let role = |role| resource(cmd::RESOURCE_STATE, "r0", role, Some(2));
    script.announced.lock().unwrap().extend([
        live(role(1), 10),
        // 12 before 11: Secondary must be last.
        live(role(2), 12),
        live(role(1), 11),
        live(resource(cmd::RESOURCE_STATE, "r1", 2, Some(1)), 13),
    ]);
    assert_eq!(
        updates(&mut watcher),
        [
            "Change resource r0",
            "Change resource r0",
            "Create resource r1"
        ]
    );
    assert_eq!(
        watcher.state().resource("r0").unwrap().role,
        Role::Secondary
    );
}

#[test]
fn the_receive_buffer_is_what_was_asked_for() {
    let (drbd, script) = script(|_, _| initial_state(2));
    let asked = || script.receive_buffer.load(Ordering::SeqCst);
    let mut watcher = drbd.watch().unwrap();
    assert_eq!(asked(), 1 << 20);
    watcher.set_receive_buffer(4096);
    assert_eq!(asked(), 4096);
    drbd.events().unwrap().set_receive_buffer(8192);
    assert_eq!(asked(), 8192);
}

#[test]
fn a_change_is_applied_when_it_is_whole() {
    let (drbd, script) = script(|_, _| initial_state(2));
    let mut watcher = drbd.watch().unwrap();
    let first = live(
        resource(cmd::RESOURCE_STATE, "r0", 1, Some(2 | NOTIFY_CONTINUES)),
        10,
    );
    script.announced.lock().unwrap().push_back(first);
    assert_eq!(updates(&mut watcher), [""; 0]);
    assert_eq!(
        watcher.state().resource("r0").unwrap().role,
        Role::Secondary
    );
    let second = live(device(cmd::DEVICE_STATE, "r0", 0, 5, Some(2)), 11);
    script.announced.lock().unwrap().push_back(second);
    assert_eq!(
        updates(&mut watcher),
        ["Change resource r0, Change device r0/0"]
    );
    let resource = watcher.state().resource("r0").unwrap();
    assert_eq!(resource.role, Role::Primary);
    assert_eq!(
        resource.device(VolumeNumber(0)).unwrap().disk_state,
        DiskState::Outdated
    );
}

#[test]
fn a_gap_and_an_overrun_are_read_again() {
    // The state is Primary from the second reading on.
    let (drbd, script) = script(|_, asked| initial_state(if asked == 0 { 2 } else { 1 }));
    let mut watcher = drbd.watch().unwrap();
    watcher.set_patience(Duration::from_millis(20));
    script.announced.lock().unwrap().extend([
        helper("first", u32::MAX - 1),
        helper("fourth", 2),
        helper("third", 1),
        // Older than what is read then.
        live(resource(cmd::RESOURCE_STATE, "r0", 2, Some(2)), 3),
        // What comes instead of the one that is missing is too late.
        Step::Silence,
    ]);
    let seen = updates(&mut watcher);
    let order = ["first", "third", "fourth", "resynced: Change resource r0"];
    assert_eq!(seen.len(), order.len(), "{seen:?}");
    for (seen, expected) in seen.iter().zip(order) {
        assert!(seen.contains(expected), "{seen}: not {expected}");
    }
    assert_eq!(watcher.state().resource("r0").unwrap().role, Role::Primary);
    script.announced.lock().unwrap().push_back(Step::Overrun);
    assert_eq!(updates(&mut watcher), ["resynced: "]);
}

/// What is left of the time before a loss is not brought into a state from
/// after it; and it is read first, so that the dump finds room and is the
/// only one. What is in no state is told all the same.
#[test]
fn a_loss_takes_one_dump() {
    let (drbd, script) = script(|_, asked| initial_state(if asked == 0 { 2 } else { 1 }));
    let mut watcher = drbd.watch().unwrap();
    let role = |role, seq| live(resource(cmd::RESOURCE_STATE, "r0", role, Some(2)), seq);
    script.announced.lock().unwrap().extend([
        role(1, 10),
        Step::Overrun,
        role(2, 12),
        helper("fence-peer", 13),
        // That was all, and the kernel announces again.
        Step::Silence,
        role(2, 20),
    ]);
    let seen = updates(&mut watcher);
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert_eq!(seen[0], "Change resource r0");
    assert!(seen[1].contains("fence-peer"), "{seen:?}");
    assert_eq!(seen[2], "resynced: ");
    assert_eq!(seen[3], "Change resource r0");
    let requests = script.requests.lock().unwrap();
    let dumps = requests.iter().filter(|r| r[16] == cmd::GET_INITIAL_STATE);
    assert_eq!(dumps.count(), 2, "one to begin with, one for the loss");
}

/// What may come among the answers to the question for the state, and how
/// often it is asked then.
#[test]
fn only_a_whole_dump_counts() {
    let exists = |name| resource(cmd::RESOURCE_STATE, name, 2, Some(NOTIFY_CONTINUES));
    let disk = |name| device(cmd::DEVICE_STATE, name, 0, 8, Some(0));
    let whole = || initial_state(2);
    let with = |at: usize, step: Step| {
        let mut steps = whole();
        steps.insert(at, step);
        steps
    };
    let of_another = || {
        let mut steps = whole();
        steps[2] = live(state_done(), 99);
        steps
    };
    let several = || {
        let mut steps = whole();
        let more = [
            exists("r9"),
            disk("r9"),
            exists("r2"),
            disk("r2"),
            device(cmd::DEVICE_STATE, "r9", 1, 8, Some(0)),
            exists("r9"),
        ];
        steps.splice(2..2, more.map(Step::Reply));
        steps
    };
    let busy = || vec![Step::Reply(netlink_error(16)), live(done(), 99)];
    for (what, steps, asked, names) in [
        ("nothing", whole(), 1, vec!["r0"]),
        ("a loss", with(1, Step::Overrun), 2, vec!["r0"]),
        (
            "no room",
            with(0, Step::Reply(netlink_error(105))),
            2,
            vec!["r0"],
        ),
        (
            "the end of another dump",
            with(1, live(done(), 99)),
            1,
            vec!["r0"],
        ),
        (
            "an object of another dump",
            with(1, live(exists("r7"), 99)),
            1,
            vec!["r0"],
        ),
        (
            "the last object of another dump",
            of_another(),
            2,
            vec!["r0"],
        ),
        ("another dump under way", busy(), 2, vec!["r0"]),
        (
            "several, not in order",
            several(),
            1,
            vec!["r0", "r2", "r9"],
        ),
    ] {
        let (drbd, script) = script(move |_, asked| match asked {
            0 => steps.clone(),
            _ => initial_state(2),
        });
        let watcher = drbd.watch().unwrap_or_else(|e| panic!("{what}: {e}"));
        let state = watcher.state();
        let seen: Vec<_> = state.resources.iter().map(|r| r.name.to_string()).collect();
        assert_eq!(seen, names, "{what}");
        for resource in &state.resources {
            let volumes = if resource.name == "r9" { 2 } else { 1 };
            assert_eq!(resource.devices.len(), volumes, "{what}: {}", resource.name);
        }
        assert_eq!(script.requests.lock().unwrap().len(), asked, "{what}");
    }
    let (drbd, _) = script(|_, _| vec![Step::Reply(netlink_error(5))]);
    assert_eq!(drbd.watch().unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn the_state_is_read_again_when_asked_for_or_needed() {
    let (drbd, script) = script(|_, asked| initial_state(if asked == 0 { 2 } else { 1 }));
    let mut watcher = drbd.watch().unwrap();
    let changes = watcher.refresh().unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].object.to_string(), "resource r0");
    assert_eq!(watcher.state().resource("r0").unwrap().role, Role::Primary);
    assert_eq!(watcher.refresh().unwrap(), []);
    // An object whose owner was never announced.
    let orphan = live(device(cmd::DEVICE_STATE, "r7", 0, 8, Some(2)), 10);
    script.announced.lock().unwrap().push_back(orphan);
    assert_eq!(updates(&mut watcher), ["resynced: "]);
    // One that is early waits for some time, which a poll loop has to know.
    assert_eq!(watcher.wakeup(), None);
    let role = |role, seq| live(resource(cmd::RESOURCE_STATE, "r0", role, Some(2)), seq);
    let steps = [role(2, 20), role(1, 22)];
    script.announced.lock().unwrap().extend(steps);
    assert!(matches!(watcher.next(), Some(Ok(Update::Changed(_)))));
    assert_eq!(watcher.try_update().unwrap(), None);
    let wakeup = watcher.wakeup().unwrap();
    assert!(!wakeup.is_zero() && wakeup <= Duration::from_millis(500));
    script.announced.lock().unwrap().push_back(role(1, 21));
    assert!(matches!(watcher.next(), Some(Ok(Update::Changed(_)))));
    assert_eq!(watcher.wakeup(), None);
}

#[test]
fn a_state_that_is_never_whole_is_given_up() {
    let (drbd, script) = script(|_, asked| {
        let mut steps = initial_state(2);
        if asked > 0 {
            steps.insert(1, Step::Overrun);
        }
        steps
    });
    let mut watcher = drbd.watch().unwrap();
    script.announced.lock().unwrap().push_back(Step::Overrun);
    // It takes a second, however little the caller has.
    let error = watcher.next_update(Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("come to rest"), "{error}");
}

/// Updates that do not help do not keep a wait busy when its time is over.
#[test]
fn a_wait_that_is_over_ends_among_updates() {
    let (drbd, script) = script(|_, _| initial_state(2));
    let mut watcher = drbd.watch().unwrap();
    let role = |seq| {
        live(
            resource(cmd::RESOURCE_STATE, "r0", 1 + seq % 2, Some(2)),
            seq,
        )
    };
    script.announced.lock().unwrap().extend((12..22).map(role));
    let error = watcher.wait_for(Duration::ZERO, |_| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(script.announced.lock().unwrap().len(), 8);
}

#[test]
fn events_during_the_dump_are_merged() {
    let (drbd, _) = script(|_, _| {
        vec![
            // Out of order, and about an object that the dump lacks.
            live(resource(cmd::RESOURCE_STATE, "r1", 2, Some(3)), 6),
            Step::Reply(state_done()),
            live(resource(cmd::RESOURCE_STATE, "r0", 1, Some(1)), 5),
            Step::Reply(done()),
        ]
    });
    let mut watcher = drbd.watch().unwrap();
    let _ = updates(&mut watcher);
    assert_eq!(watcher.state().resource("r0").unwrap().role, Role::Primary);
    assert!(watcher.state().resource("r1").is_none());
}

#[test]
fn waiting_ends() {
    let (drbd, script) = script(|_, _| initial_state(2));
    let mut watcher = drbd.watch().unwrap();
    let error = watcher
        .wait_for(Duration::from_millis(100), |state| {
            state.resources.is_empty()
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    watcher
        .wait_for(Duration::ZERO, |state| state.resource("r0").is_some())
        .unwrap();
    // What has been announced already is not waited for in its parts.
    let role = |role, seq| live(resource(cmd::RESOURCE_STATE, "r0", role, Some(2)), seq);
    let steps = [role(1, 3), role(2, 4)];
    script.announced.lock().unwrap().extend(steps);
    let error = watcher
        .wait_for(Duration::from_millis(100), |state| {
            state.resource("r0").unwrap().role == Role::Primary
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    // To hear nothing for a moment is not the end.
    let gone = live(resource(cmd::RESOURCE_STATE, "r0", 2, Some(3)), 5);
    let steps = [Step::Silence, Step::Silence, gone];
    script.announced.lock().unwrap().extend(steps);
    watcher
        .wait_for(TIMEOUT, |state| state.resources.is_empty())
        .unwrap();
}

/// They come besides the others, with numbers of their own.
#[test]
fn the_older_events_of_84_do_not_count() {
    let older = || {
        message(cmd::EVENT, 0, 101, |top| {
            top.nest(tla::CFG_CONTEXT, |nest| {
                nest.string(2, b"r0").u32(1, 0);
            });
            top.nest(tla::STATE_INFO, |nest| {
                nest.u32(1, 2).u32(2, 0);
            });
        })
    };
    let (drbd, script) = script(move |_, _| {
        let mut steps = initial_state(2);
        steps.insert(1, live(older(), 900));
        steps
    });
    let mut watcher = drbd.watch().unwrap();
    let role = |role, seq| live(resource(cmd::RESOURCE_STATE, "r0", role, Some(2)), seq);
    let steps = [role(1, 10), live(older(), 901), role(2, 11)];
    script.announced.lock().unwrap().extend(steps);
    assert_eq!(updates(&mut watcher), ["Change resource r0"; 2]);
    assert_eq!(script.requests.lock().unwrap().len(), 1);
}

/// The announcement that the module is gone.
fn unloaded() -> Step {
    let mut b = MessageBuilder::<Native>::genl(ctrl::GENL_ID_CTRL, 0, ctrl::CTRL_CMD_DELFAMILY, 2);
    b.attrs()
        .bytes(ctrl::CTRL_ATTR_FAMILY_ID, &FAMILY.to_ne_bytes());
    let bytes = b.finish(0, 0).unwrap();
    assert!(Attrs::<Native>::new(&bytes[20..]).all(|a| a.is_ok()));
    Step::Raw(bytes, 0)
}

#[test]
fn the_module_may_go_away_after_a_loss() {
    let (drbd, script) = script(|_, _| initial_state(2));
    let mut watcher = drbd.watch().unwrap();
    let steps = [Step::Overrun, unloaded()];
    script.announced.lock().unwrap().extend(steps);
    let update = watcher.next_update(TIMEOUT).unwrap();
    assert!(
        matches!(update, Some(Update::ModuleUnloaded(_))),
        "{update:?}"
    );
    assert!(watcher.state().resources.is_empty());
    assert_eq!(script.requests.lock().unwrap().len(), 1);
}

#[test]
fn the_module_may_go_away() {
    let (drbd, script) = script(|_, _| initial_state(2));
    let mut watcher = drbd.watch().unwrap();
    script.announced.lock().unwrap().push_back(unloaded());
    let update = watcher.next_update(TIMEOUT).unwrap();
    let Some(Update::ModuleUnloaded(changes)) = update else {
        panic!("{update:?}");
    };
    assert!(changes.iter().all(|c| c.action == Action::Destroy) && !changes.is_empty());
    assert!(watcher.state().resources.is_empty());
    let error = watcher.wait_for(TIMEOUT, |_| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModuleNotLoaded);
    assert_eq!(
        watcher.refresh().unwrap_err().kind(),
        ErrorKind::ModuleNotLoaded
    );
    // Loaded again, under another id, with the state that the script has.
    let mut announced = family(1);
    announced[16] = ctrl::CTRL_CMD_NEWFAMILY;
    script
        .announced
        .lock()
        .unwrap()
        .push_back(Step::Raw(announced, 0));
    let update = watcher.next_update(TIMEOUT).unwrap();
    assert!(
        matches!(update, Some(Update::ModuleLoaded(_))),
        "{update:?}"
    );
    assert_eq!(watcher.state().resources.len(), 1);
}

#[test]
fn a_split_brain_is_a_signal() {
    let (drbd, script) = script(|_, _| initial_state(2));
    let mut watcher = drbd.watch().unwrap();
    let helper = |name: &str, nh_type: u32, seq| {
        let mut b = MessageBuilder::<Native>::genl(FAMILY, 0, cmd::HELPER, 1).drbd(0, 101);
        let mut top = b.attrs();
        top.nest(tla::CFG_CONTEXT, |n| {
            n.string(2, b"r0").u32(1, 0);
        });
        top.nest(tla::NOTIFICATION_HEADER, |n| {
            n.u32(1, nh_type);
        });
        top.nest(tla::HELPER, |n| {
            n.string(1, name.as_bytes()).u32(2, 0);
        });
        live(b.finish(0, 0).unwrap(), seq)
    };
    script.announced.lock().unwrap().extend([
        helper("before-resync-source", 4, 7),
        helper("initial-split-brain", 4, 8),
        helper("initial-split-brain", 5, 9),
        helper("split-brain", 4, 10),
    ]);
    let mut signals = Vec::new();
    while let Some(update) = watcher.try_update().unwrap() {
        if let Update::SplitBrain(signal) = update {
            assert_eq!(signal.resource, Some(r0()));
            assert_eq!(signal.minor, Some(Minor(0)));
            signals.push(signal.unsolved);
        }
    }
    assert_eq!(signals, [false, true]);
}

#[test]
fn only_what_was_asked_for() {
    let (drbd, script) = script(|_, _| initial_state(2));
    let other = || ResourceName::new("other").unwrap();
    let mut watcher = drbd.watch_only([other()]).unwrap();
    assert!(watcher.state().resources.is_empty());
    let mut events = drbd.events().unwrap().only([other()]);
    let announce = |name, seq| live(resource(cmd::RESOURCE_STATE, name, 2, Some(1)), seq);
    let both = || {
        [
            announce("other", 5),
            announce("r0", 6),
            announce("other", 7),
        ]
    };
    script.announced.lock().unwrap().extend(both());
    assert!(matches!(
        watcher.next_update(TIMEOUT).unwrap(),
        Some(Update::Changed(changes)) if changes.len() == 1
    ));
    // What is not for it still counts in the order.
    assert_eq!(watcher.try_update().unwrap(), None);
    assert_eq!(watcher.state().resources.len(), 1);
    script.announced.lock().unwrap().extend(both());
    let mut seen = Vec::new();
    while let Some(RawEvent::Event(event)) = events.try_next().unwrap() {
        seen.extend(event.kind.resource().map(ToString::to_string));
    }
    assert_eq!(seen, ["other", "other"]);
}

/// Several resources may be as one likes; waiting names the one it is about.
#[test]
fn waiting_for_a_resource() {
    let (drbd, _) = script(|_, _| initial_state(2));
    let mut watcher = drbd.watch().unwrap();
    let nosuch = ResourceName::new("nosuch").unwrap();
    let error = watcher.wait_connect(&nosuch, TIMEOUT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = watcher
        .wait_sync(&r0(), Duration::from_millis(20))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().starts_with("wait-sync r0: "), "{error}");
    watcher.wait_disconnect(&r0(), TIMEOUT).unwrap();
}

#[test]
fn unknown_commands_actions_and_values_survive() {
    let (drbd, script) = script(|_, _| vec![]);
    script.announced.lock().unwrap().extend([
        live(resource(cmd::RESOURCE_STATE, "r0", 77, Some(99)), 5),
        live(message(200, 1, 101, |_| {}), 6),
    ]);
    let mut events = drbd.events().unwrap();
    let Some(RawEvent::Event(event)) = events.next_event(TIMEOUT).unwrap() else {
        panic!()
    };
    assert_eq!(event.action, Action::Other(99));
    let EventKind::Resource {
        info: Some(info), ..
    } = event.kind
    else {
        panic!()
    };
    assert_eq!(info.role, Role::Other(77));
    let Some(RawEvent::Event(event)) = events.next_event(TIMEOUT).unwrap() else {
        panic!()
    };
    assert_eq!(event.kind, EventKind::Unknown { command: 200 });
}
