//! What does our own work on DRBD's state cost, without DRBD?
//!
//! Units: microseconds and allocations for one query, on the host. A thread
//! plays the kernel over a socketpair: it answers dumps with what DRBD 9.3.3
//! once said of a resource with a volume and a peer, repeated for 1, 100 and
//! 1 000 resources. Ours: `Drbd::snapshot` (five dumps) and `Watcher::refresh`
//! (one). Rival: a C loop that sends the same dumps and receives the bytes.
//! All of it on one processor, so that every bit of work counts, and none is
//! hidden behind that of the kernel's part.
//!
//! Aim: at most 1.3 times the C loop.
//!
//! `cargo bench -p benches --bench drbd_host`; needs `cc`.

use benches::allocations::{Counting, allocations};
use benches::recorded::{DUMPS, EVENTS, Recorded};
use benches::rival::{c_loop, samples_of, timed};
use drbd_nl::Drbd;
use drbd_nl::schema::{cmd, ctrl};
use drbd_nl::socket::{Connector, Datagram, Deadline, Received, Transport};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(60);
const PORT: u32 = 4711;
const SPACE: usize = 64 * 1024;

/// The answers to each dump for so many resources.
fn answers(recorded: &Recorded, count: u16) -> Result<BTreeMap<u8, Vec<Vec<u8>>>> {
    let mut answers = BTreeMap::new();
    for command in DUMPS {
        let all: Result<Vec<_>> = (0..count)
            .map(|number| recorded.about(command, number))
            .collect();
        answers.insert(command, all?);
    }
    let mut state = Vec::new();
    // One resource after the other, as the kernel does.
    for number in 0..count {
        for command in EVENTS {
            state.push(recorded.about(command, number)?);
        }
    }
    state.push(recorded.messages[&cmd::INITIAL_STATE_DONE].clone());
    answers.insert(cmd::GET_INITIAL_STATE, state);
    Ok(answers)
}

/// Answers dumps until the other end is closed. Allocates nothing.
fn play(socket: &OwnedFd, family: &mut [u8], answers: &mut BTreeMap<u8, Vec<Vec<u8>>>) {
    let mut request = [0; SPACE];
    let fd = socket.as_raw_fd();
    while let Ok(length @ 20..) = recv(fd, &mut request, MsgFlags::empty()) {
        let request = &request[..length];
        let reply = |bytes: &mut [u8]| {
            bytes[8..12].copy_from_slice(&request[8..12]);
            bytes[12..16].copy_from_slice(&PORT.to_ne_bytes());
            send(fd, bytes, MsgFlags::empty()).is_ok()
        };
        if u16::from_ne_bytes([request[4], request[5]]) == ctrl::GENL_ID_CTRL {
            reply(family);
            continue;
        }
        for bytes in answers.get_mut(&request[16]).into_iter().flatten() {
            if !reply(bytes) {
                return;
            }
        }
        let mut done = [0; 20];
        (done[0], done[4], done[6]) = (20, 3, 2);
        reply(&mut done);
    }
}

#[derive(Debug)]
struct Pair(Arc<OwnedFd>);

#[derive(Debug)]
struct Socket {
    fd: Arc<OwnedFd>,
    space: Box<[u8]>,
    /// An answer is to come; events there are none.
    asked: bool,
}

impl Connector for Pair {
    type Transport = Socket;

    fn open(&self) -> io::Result<Socket> {
        Ok(Socket {
            fd: Arc::clone(&self.0),
            space: vec![0; SPACE].into_boxed_slice(),
            asked: false,
        })
    }
}

impl Transport for Socket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.asked = true;
        send(self.fd.as_raw_fd(), datagram, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, _: Deadline) -> io::Result<Received> {
        if !self.asked {
            return Ok(Received::TimedOut);
        }
        let length = recv(self.fd.as_raw_fd(), &mut self.space, MsgFlags::empty())?;
        buffer.clear();
        buffer.extend_from_slice(&self.space[..length]);
        self.asked = buffer[4..6] != [3, 0];
        let (sender, truncated) = (0, false);
        Ok(Received::Datagram(Datagram { sender, truncated }))
    }

    fn join(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn port(&self) -> u32 {
        PORT
    }
}

/// The least, in microseconds: what others did meanwhile is not of interest.
fn least(times: Vec<f64>) -> f64 {
    times.into_iter().fold(f64::INFINITY, f64::min) * 1000.0
}

fn rival(program: &Path, fd: &OwnedFd, id: u16, samples: usize, dumps: &[u8]) -> Result<f64> {
    let mut command = Command::new(program);
    command
        .args([&id.to_string(), &samples.to_string(), "0", "1"])
        .args(dumps.iter().map(ToString::to_string))
        .stdin(Stdio::from(fd.try_clone()?));
    Ok(least(samples_of(&mut command)?))
}

fn main() -> Result<()> {
    let once = benches::once();
    let (samples, counts): (usize, &[u16]) = if once {
        (1, &[1, 10])
    } else {
        (101, &[1, 100, 1000])
    };
    let program = c_loop("drbd_rival_host")?;
    let all = sched_getaffinity(Pid::from_raw(0))?;
    let first = (0..CpuSet::count()).find(|&at| all.is_set(at).unwrap_or(false));
    let mut here = CpuSet::new();
    here.set(first.ok_or("no processor")?)?;
    sched_setaffinity(Pid::from_raw(0), &here)?;
    let recorded = Recorded::load()?;
    println!("least of {samples}");
    println!("resources  query       ours us  C loop us  ratio  us/resource  allocations/resource");
    for &count in counts {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let (mut family, mut answers) = (recorded.family.clone(), answers(&recorded, count)?);
        let kernel = std::thread::spawn(move || play(&theirs, &mut family, &mut answers));
        let ours = Arc::new(ours);
        let drbd = Drbd::with_connector(Pair(Arc::clone(&ours)))?;
        let mut watcher = drbd.watch()?;
        // Everything is there before anything is timed.
        let state = drbd.snapshot(LIMIT)?;
        // Else it would be read several times.
        assert!(state.consistent);
        for state in [&state, watcher.state()] {
            assert_eq!(state.resources.len(), usize::from(count));
            for resource in &state.resources {
                assert_eq!(resource.devices.len(), 1);
                let [connection] = &resource.connections[..] else {
                    return Err(format!("{resource:?}").into());
                };
                assert_eq!(connection.peer_devices.len(), 1);
                assert!(!connection.paths.is_empty());
            }
        }
        for (query, dumps) in [
            ("snapshot", &DUMPS[..]),
            ("refresh", &[cmd::GET_INITIAL_STATE]),
        ] {
            let mut run = || -> Result<()> {
                if query == "snapshot" {
                    drop(drbd.snapshot(LIMIT)?);
                } else {
                    drop(watcher.refresh()?);
                }
                Ok(())
            };
            let (allocated, result) = allocations(&mut run);
            result?;
            let time = least(timed(samples, run)?);
            let floor = rival(&program, &ours, recorded.id, samples, dumps)?;
            let each = f64::from(count);
            println!(
                "{count:>9}  {query:<9} {time:>9.0} {floor:>10.0} {:>6.2} {:>12.2} {:>21.1}",
                time / floor,
                time / each,
                allocated as f64 / each
            );
        }
        drop((drbd, watcher, ours));
        kernel.join().map_err(|_| "the kernel's part failed")?;
    }
    Ok(())
}
