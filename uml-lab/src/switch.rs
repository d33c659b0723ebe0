//! The wires: a learning switch in the lab process.
//!
//! Each port of a node is one end of a socket pair that carries Ethernet
//! frames as datagrams; one thread holds all other ends. It learns which
//! address is behind which port, as a real switch does, so that a test of
//! address takeover means something.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};

use crate::cache::host_error;
use crate::error::Result;
use crate::policy::{Direction, Policy};

/// Frames that wait for a node which does not take them; more are dropped.
const QUEUE: usize = 256;
/// Frames under way on all wires, delayed; more are dropped.
const UNDER_WAY: usize = 1 << 16;
/// Frames taken from one port before the next has its turn.
const BATCH: usize = 64;
/// Wanted size of socket buffers, in bytes; the host may grant less.
const BUFFER: usize = 4 << 20;

type Mac = [u8; 6];

/// All wires of a lab.
#[derive(Debug)]
pub(crate) struct Switch {
    ports: Vec<PortEnds>,
    state: Mutex<State>,
    stop: (OwnedFd, OwnedFd),
}

#[derive(Debug)]
struct PortEnds {
    wire: usize,
    ours: OwnedFd,
    /// Passed to each kernel the node boots; held here so that the port
    /// survives the loss of the node.
    theirs: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    /// By (from, to); those that never had a policy are not there.
    directions: HashMap<(usize, usize), Direction>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    /// Number of the last frame put under way.
    last: u64,
    carried: HashMap<(usize, usize), u64>,
    up: Vec<bool>,
    learned: HashMap<(usize, Mac), usize>,
    /// By receiving port: who sent it, and the frame.
    waiting: Vec<VecDeque<(usize, Vec<u8>)>>,
}

/// A frame on its way, in the order of arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due: Instant,
    /// Frames due at once arrive as they were sent.
    number: u64,
    from: usize,
    to: usize,
    frame: Vec<u8>,
}

impl Switch {
    /// Makes the ports; `wires` says for each port which wire it is on.
    pub(crate) fn new(wires: &[usize]) -> Result<Self> {
        let ports = wires
            .iter()
            .map(|wire| PortEnds::new(*wire))
            .collect::<Result<Vec<_>>>()?;
        let state = State {
            up: vec![false; ports.len()],
            waiting: vec![VecDeque::new(); ports.len()],
            ..State::default()
        };
        let stop = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
            .map_err(|errno| host_error("make the switch", errno))?;
        Ok(Switch {
            ports,
            state: Mutex::new(state),
            stop,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a port that goes to the node.
    pub(crate) fn node_end(&self, port: usize) -> BorrowedFd<'_> {
        self.ports[port].theirs.as_fd()
    }

    /// Sets the link of a port. A port that goes down forgets its frames and
    /// the addresses behind it.
    pub(crate) fn set_link(&self, port: usize, up: bool) {
        let mut state = self.state();
        state.up[port] = up;
        state.waiting[port].clear();
        state
            .under_way
            .retain(|Reverse(frame)| frame.to != port && frame.from != port);
        state.learned.retain(|_, behind| *behind != port);
        let ends = &self.ports[port];
        let mut buffer = [0; 64];
        for end in [&ends.ours, &ends.theirs] {
            // What is under way between a node and the switch is lost with
            // the node.
            while recv(end.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
        }
    }

    /// Sets what happens to frames from one port to another. On return no frame
    /// is treated the old way any more.
    pub(crate) fn set_policy(&self, from: usize, to: usize, policy: Policy) {
        let mut state = self.state();
        let now = Instant::now();
        let direction = state
            .directions
            .entry((from, to))
            .or_insert_with(|| Direction::new(now));
        direction.set(policy, (from << 8 | to) as u64, now);
        if policy.cut {
            state.waiting[to].retain(|(sender, _)| *sender != from);
            state
                .under_way
                .retain(|Reverse(frame)| (frame.from, frame.to) != (from, to));
        }
    }

    pub(crate) fn policy(&self, from: usize, to: usize) -> Policy {
        let state = self.state();
        let direction = state.directions.get(&(from, to));
        direction.map(Direction::policy).unwrap_or_default()
    }

    /// How many frames went from one port to another.
    pub(crate) fn carried(&self, from: usize, to: usize) -> u64 {
        self.state().carried.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Ends [`Switch::work`].
    pub(crate) fn stop(&self) {
        // Fails only if the pipe is full of such bytes.
        let _ = nix::unistd::write(&self.stop.1, b"x");
    }

    /// Carries frames until stopped. Runs in a thread of its own.
    pub(crate) fn work(&self) {
        let mut buffer = vec![0; 65536];
        loop {
            let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(self.ports.len() + 1);
            let next = {
                let state = self.state();
                for (port, waiting) in self.ports.iter().zip(&state.waiting) {
                    let mut events = PollFlags::POLLIN;
                    if !waiting.is_empty() {
                        events |= PollFlags::POLLOUT;
                    }
                    fds.push(PollFd::new(port.ours.as_fd(), events));
                }
                state.under_way.peek().map(|Reverse(frame)| frame.due)
            };
            fds.push(PollFd::new(self.stop.0.as_fd(), PollFlags::POLLIN));
            let wait = next.map(|due| due.saturating_duration_since(Instant::now()).into());
            match ppoll(&mut fds, wait, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            let ready: Vec<PollFlags> = fds
                .iter()
                .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
                .collect();
            let mut state = self.state();
            self.arrive(&mut state);
            for (n, flags) in ready.iter().enumerate() {
                if n == self.ports.len() {
                    if !flags.is_empty() {
                        return;
                    }
                    continue;
                }
                if flags.contains(PollFlags::POLLOUT) {
                    self.send_waiting(&mut state, n);
                }
                if flags.contains(PollFlags::POLLIN) {
                    self.take(&mut state, n, &mut buffer);
                }
            }
        }
    }

    fn take(&self, state: &mut State, from: usize, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let socket = self.ports[from].ours.as_raw_fd();
            let Ok(length) = recv(socket, buffer, MsgFlags::MSG_DONTWAIT) else {
                return;
            };
            if state.up[from] {
                self.forward(state, from, &buffer[..length]);
            }
        }
    }

    fn forward(&self, state: &mut State, from: usize, frame: &[u8]) {
        let (Some(to), Some(sender)) = (mac(frame, 0), mac(frame, 6)) else {
            return;
        };
        let wire = self.ports[from].wire;
        if sender[0] & 1 == 0 {
            state.learned.insert((wire, sender), from);
        }
        // Broadcast and unknown addresses go to all ports of the wire.
        let known = state.learned.get(&(wire, to)).copied();
        for (n, port) in self.ports.iter().enumerate() {
            if port.wire != wire || n == from || known.is_some_and(|known| known != n) {
                continue;
            }
            if state.up[n] {
                self.judge(state, from, n, frame);
            }
        }
    }

    /// Lets the direction's policy decide on a frame.
    fn judge(&self, state: &mut State, from: usize, to: usize, frame: &[u8]) {
        let now = Instant::now();
        let Some(direction) = state.directions.get_mut(&(from, to)) else {
            self.hand_over(state, from, to, frame);
            return;
        };
        let Some(fate) = direction.judge(frame.len(), now) else {
            return;
        };
        for _ in 0..fate.copies {
            if fate.due <= now {
                self.hand_over(state, from, to, frame);
            } else if state.under_way.len() < UNDER_WAY {
                state.last += 1;
                state.under_way.push(Reverse(UnderWay {
                    due: fate.due,
                    number: state.last,
                    from,
                    to,
                    frame: frame.to_vec(),
                }));
            }
        }
    }

    /// Hands over the frames whose time has come.
    fn arrive(&self, state: &mut State) {
        let now = Instant::now();
        while let Some(Reverse(next)) = state.under_way.peek()
            && next.due <= now
            && let Some(Reverse(next)) = state.under_way.pop()
        {
            self.hand_over(state, next.from, next.to, &next.frame);
        }
    }

    /// Gives a frame to the node at the other end.
    fn hand_over(&self, state: &mut State, from: usize, to: usize, frame: &[u8]) {
        *state.carried.entry((from, to)).or_default() += 1;
        // Behind those that wait already, or frames would overtake.
        if !state.waiting[to].is_empty() || self.deliver(to, frame).is_err() {
            enqueue(&mut state.waiting[to], from, frame);
        }
    }

    fn send_waiting(&self, state: &mut State, to: usize) {
        while let Some((_, frame)) = state.waiting[to].front() {
            if self.deliver(to, frame).is_err() {
                return;
            }
            state.waiting[to].pop_front();
        }
    }

    /// Fails if the node has not made room yet.
    fn deliver(&self, to: usize, frame: &[u8]) -> std::result::Result<(), ()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.ports[to].ours.as_raw_fd(), frame, flags) {
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => Err(()),
            // Any other error loses the frame, as a wire may.
            _ => Ok(()),
        }
    }
}

impl PortEnds {
    fn new(wire: usize) -> Result<Self> {
        let fail = |errno: Errno| host_error("make a wire", errno);
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(fail)?;
        for end in [&ours, &theirs] {
            // The second is for root only; the first grants what it may.
            setsockopt(end, sockopt::SndBuf, &BUFFER).map_err(fail)?;
            let _ = setsockopt(end, sockopt::SndBufForce, &BUFFER);
        }
        Ok(PortEnds { wire, ours, theirs })
    }
}

/// A full queue drops, as a switch does.
fn enqueue(queue: &mut VecDeque<(usize, Vec<u8>)>, from: usize, frame: &[u8]) {
    if queue.len() < QUEUE {
        queue.push_back((from, frame.to_vec()));
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::time::Duration;

    use nix::poll::{PollTimeout, poll};

    use super::*;

    /// Ports 0, 1, 2 on one wire and 3 on another, all up.
    fn switch_for(test: impl FnOnce(&Switch)) {
        let switch = Switch::new(&[0, 0, 0, 1]).unwrap();
        for port in 0..4 {
            switch.set_link(port, true);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| switch.work());
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&switch)));
            switch.stop();
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn frame(to: u8, from: u8) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].fill(to);
        frame[6] = 0x52;
        frame[11] = from;
        frame
    }

    fn unicast(to: u8, from: u8) -> Vec<u8> {
        let mut frame = frame(0, from);
        frame[0] = 0x52;
        frame[5] = to;
        frame
    }

    fn put(switch: &Switch, port: usize, frame: &[u8]) {
        send(switch.node_end(port).as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    }

    fn got(switch: &Switch, port: usize, wait: u64) -> Option<Vec<u8>> {
        let end = switch.node_end(port);
        let mut fds = [PollFd::new(end, PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(Duration::from_millis(wait)).unwrap();
        if poll(&mut fds, wait).unwrap() == 0 {
            return None;
        }
        let mut buffer = [0; 2000];
        let length = recv(end.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        Some(buffer[..length].to_vec())
    }

    const LONG: u64 = 30_000;

    #[test]
    fn broadcast_reaches_the_wire_and_no_other() {
        switch_for(|switch| {
            put(switch, 0, &frame(0xff, 1));
            assert_eq!(got(switch, 1, LONG), Some(frame(0xff, 1)));
            assert_eq!(got(switch, 2, LONG), Some(frame(0xff, 1)));
            assert_eq!(got(switch, 0, 0), None);
            assert_eq!(got(switch, 3, 0), None);
        });
    }

    #[test]
    fn learned_addresses_move_with_their_sender() {
        switch_for(|switch| {
            put(switch, 1, &frame(0xff, 7));
            assert!(got(switch, 0, LONG).is_some() && got(switch, 2, LONG).is_some());
            put(switch, 0, &unicast(7, 1));
            assert_eq!(got(switch, 1, LONG), Some(unicast(7, 1)));
            assert_eq!(got(switch, 2, 0), None, "flooded a known address");
            // The address shows up on another port.
            put(switch, 2, &frame(0xff, 7));
            assert!(got(switch, 0, LONG).is_some() && got(switch, 1, LONG).is_some());
            put(switch, 0, &unicast(7, 1));
            assert_eq!(got(switch, 2, LONG), Some(unicast(7, 1)));
            assert_eq!(got(switch, 1, 0), None);
            // Link loss forgets it: flooded again.
            switch.set_link(2, false);
            put(switch, 0, &unicast(7, 1));
            assert_eq!(got(switch, 1, LONG), Some(unicast(7, 1)));
        });
    }

    #[test]
    fn a_cut_has_a_direction() {
        switch_for(|switch| {
            switch.set_policy(0, 1, Policy::new().cut());
            put(switch, 0, &frame(0xff, 1));
            assert!(got(switch, 2, LONG).is_some());
            assert_eq!(got(switch, 1, 0), None);
            put(switch, 1, &frame(0xff, 2));
            assert!(got(switch, 0, LONG).is_some(), "the way back is not cut");
            assert!(got(switch, 2, LONG).is_some());
            switch.set_policy(0, 1, Policy::new());
            put(switch, 0, &frame(0xff, 3));
            assert_eq!(got(switch, 1, LONG), Some(frame(0xff, 3)));
            assert_eq!(switch.carried(0, 1), 1);
        });
    }

    #[test]
    fn delayed_frames_arrive_later_in_order_and_not_after_a_cut() {
        switch_for(|switch| {
            let delay = Duration::from_millis(300);
            switch.set_policy(0, 1, Policy::new().delay(delay));
            let start = Instant::now();
            for n in 1..=50 {
                put(switch, 0, &frame(0xff, n));
            }
            // The other direction of the same frames is at once.
            assert_eq!(got(switch, 2, LONG), Some(frame(0xff, 1)));
            for n in 1..=50 {
                assert_eq!(got(switch, 1, LONG), Some(frame(0xff, n)));
            }
            assert!(start.elapsed() >= delay);
            assert_eq!(switch.carried(0, 1), 50);
            // A shorter delay does not let later frames overtake.
            put(switch, 0, &frame(0xff, 60));
            assert!((0..50).all(|_| got(switch, 2, LONG).is_some()));
            switch.set_policy(0, 1, Policy::new());
            put(switch, 0, &frame(0xff, 61));
            assert_eq!(got(switch, 1, LONG), Some(frame(0xff, 60)));
            assert_eq!(got(switch, 1, LONG), Some(frame(0xff, 61)));
            // What is under way when the wire is cut does not arrive.
            switch.set_policy(0, 1, Policy::new().delay(delay));
            put(switch, 0, &frame(0xff, 70));
            assert!((0..2).all(|_| got(switch, 2, LONG).is_some()));
            switch.set_policy(0, 1, Policy::new().cut());
            switch.set_policy(0, 1, Policy::new());
            put(switch, 0, &frame(0xff, 71));
            assert_eq!(got(switch, 1, LONG), Some(frame(0xff, 71)));
        });
    }

    #[test]
    fn a_duplicate_is_delivered_twice() {
        switch_for(|switch| {
            switch.set_policy(0, 1, Policy::new().duplicate(1.0));
            put(switch, 0, &frame(0xff, 1));
            assert_eq!(got(switch, 1, LONG), Some(frame(0xff, 1)));
            assert_eq!(got(switch, 1, LONG), Some(frame(0xff, 1)));
        });
    }

    #[test]
    fn a_port_without_link_neither_takes_nor_gives() {
        switch_for(|switch| {
            switch.set_link(1, false);
            put(switch, 0, &frame(0xff, 1));
            assert!(got(switch, 2, LONG).is_some());
            assert_eq!(got(switch, 1, 0), None);
            put(switch, 1, &frame(0xff, 2));
            put(switch, 2, &frame(0xff, 3));
            assert_eq!(got(switch, 0, LONG), Some(frame(0xff, 3)));
        });
    }

    #[test]
    fn a_burst_longer_than_the_socket_buffer_arrives_in_order() {
        switch_for(|switch| {
            // Below the queue's limit, so nothing may be lost.
            for n in 0..200 {
                let mut long = frame(0xff, 1);
                long.resize(1514, n);
                put(switch, 0, &long);
            }
            for n in 0..200 {
                assert_eq!(got(switch, 1, LONG).unwrap().last(), Some(&n));
            }
        });
    }
}
