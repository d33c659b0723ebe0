//! The lab's end of the channel to one booted node.
//!
//! A serial line of the node, its other end a socket in this process: it needs
//! no network in the node and survives every partition. One thread reads, one
//! writes, so nobody who uses the lab waits for a node that does not listen.
//!
//! The node's kernel is told once, at the edge, that the line has bytes to read
//! or room to write (`EPOLLET`, arch/um/os-Linux/irq.c), and keeps what it was
//! told in one array, which an interrupt that comes while another is handled
//! overwrites (`_sigio_handler`, arch/um/kernel/irq.c). The edge is lost then,
//! and both sides would wait for ever: seen with 6.1 in 5 of 370,000 answers of
//! nodes under load. A further byte makes another edge, for both
//! directions; so the lab never stays silent for long.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cache::host_error;
use crate::command::Output;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{
    Deframer, LINE_INPUT, LINE_LIMIT, LINE_WINDOW, Malformed, Message, Spawn, Stream, ToLab,
    ToNode, WINDOW,
};
use crate::timeline::Journal;

/// How long a node may take to say that it started a program, and a killed
/// program to be gone.
const REPLY: Duration = Duration::from_secs(60);
/// The lab is not silent towards a node for longer than this.
const NUDGE: Duration = Duration::from_millis(500);

/// A directory that lab and node both see, for bytes on their way to the node.
#[derive(Debug)]
pub(crate) struct Share {
    dir: PathBuf,
    next: AtomicU32,
}

impl Share {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Share {
            dir,
            next: AtomicU32::new(0),
        }
    }

    /// Puts bytes into a file of their own; returns its path in the node.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let name = format!("in-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let path = self.dir.join(&name);
        std::fs::write(&path, bytes)
            .map_err(|error| host_error(format!("write {}", path.display()), error))?;
        Ok(format!("/run/lab/host/{name}").into_bytes())
    }
}

/// The channel to a node, from one boot to its loss.
#[derive(Debug)]
pub(crate) struct Link {
    node: String,
    to_writer: Mutex<Option<Sender<Vec<u8>>>>,
    socket: UnixStream,
    running: Mutex<HashMap<u32, Weak<Running>>>,
    next: AtomicU32,
    /// Why the node is lost, once it is.
    lost: Mutex<Option<String>>,
    line: Mutex<Line>,
    acknowledged: Condvar,
    pub(crate) share: Arc<Share>,
    journal: Arc<Journal>,
}

/// The serial line towards the node.
#[derive(Debug, Default)]
struct Line {
    /// Bytes sent that the node has not said it read.
    under_way: usize,
    closed: bool,
}

impl Link {
    /// Makes a link over `socket`; [`Link::write`] has to run in a thread with
    /// the receiver.
    pub(crate) fn new(
        node: &str,
        socket: UnixStream,
        share: Arc<Share>,
        journal: Arc<Journal>,
    ) -> (Arc<Self>, Receiver<Vec<u8>>) {
        let (sender, receiver) = channel();
        let link = Link {
            node: node.to_owned(),
            to_writer: Mutex::new(Some(sender)),
            socket,
            running: Mutex::default(),
            next: AtomicU32::new(1),
            lost: Mutex::default(),
            line: Mutex::default(),
            acknowledged: Condvar::new(),
            share,
            journal,
        };
        (Arc::new(link), receiver)
    }

    /// Writes what [`Link::send`] is given, until the link closes.
    pub(crate) fn write(&self, receiver: &Receiver<Vec<u8>>) {
        // Nothing is sent before the node is ready; nor is it nudged.
        let mut next = receiver.recv().ok();
        while let Some(bytes) = next {
            if !self.write_one(&bytes) {
                return;
            }
            next = match receiver.recv_timeout(NUDGE) {
                Ok(bytes) => Some(bytes),
                Err(RecvTimeoutError::Timeout) => Some(framed(&ToNode::Nudge)),
                Err(RecvTimeoutError::Disconnected) => None,
            };
        }
    }

    /// Writes a message; false once the link is closed.
    fn write_one(&self, mut rest: &[u8]) -> bool {
        while !rest.is_empty() {
            let Some(room) = self.wait_for_room() else {
                return false;
            };
            let (now, later) = rest.split_at(room.min(rest.len()));
            // Counted before the node can acknowledge them.
            self.line().under_way += now.len();
            if (&self.socket).write_all(now).is_err() {
                return false;
            }
            rest = later;
        }
        true
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the serial line may take more; `None` once it is closed.
    fn wait_for_room(&self) -> Option<usize> {
        let mut line = self.line();
        loop {
            if line.closed {
                return None;
            }
            let room = LINE_WINDOW.saturating_sub(line.under_way);
            if room > 0 {
                return Some(room);
            }
            let waited = self.acknowledged.wait_timeout(line, NUDGE);
            let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            line = after;
            if timeout.timed_out() && line.under_way < LINE_LIMIT {
                return Some(1);
            }
        }
    }

    /// Reads until the node is gone; `other` gets what is not about programs.
    pub(crate) fn read(&self, mut other: impl FnMut(ToLab)) -> String {
        let mut buffer = vec![0; 64 * 1024];
        let mut incoming = Deframer::default();
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => return "it closed its channel".to_owned(),
                Ok(n) => incoming.push(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return format!("its channel failed: {error}"),
            }
            loop {
                match incoming.next() {
                    Ok(Some(message)) => {
                        if let Some(message) = self.dispatch(message) {
                            other(message);
                        }
                    }
                    Ok(None) => break,
                    Err(Malformed) => return "it sent a malformed message".to_owned(),
                }
            }
        }
    }

    fn dispatch(&self, message: ToLab) -> Option<ToLab> {
        match message {
            ToLab::Started { id, pid } => {
                self.with(id, |state| state.started = Some(Ok(pid)));
            }
            ToLab::NotStarted { id, errno } => {
                self.with(id, |state| state.started = Some(Err(errno)));
                self.forget(id);
            }
            ToLab::Output { id, stream, bytes } => {
                let known = self.with(id, |state| state.unread[stream.index()].extend(&bytes));
                if !known {
                    // Nobody will read it: let the program go on.
                    let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    self.send(&ToNode::Credit { id, stream, bytes });
                }
            }
            ToLab::Exit { id, status } => {
                let status = ExitStatus::from_raw(status);
                let running = self.table().get(&id).and_then(Weak::upgrade);
                if let Some(running) = running {
                    self.journal
                        .note(&self.node, format!("{status}: {}", running.name));
                }
                self.with(id, |state| state.ended = Some(status));
                self.forget(id);
            }
            ToLab::StdinCredit { id, bytes } => {
                self.with(id, |state| state.input_credit += bytes as usize);
            }
            ToLab::Ack { bytes } => {
                let mut line = self.line();
                line.under_way = line.under_way.saturating_sub(bytes as usize);
                drop(line);
                self.acknowledged.notify_all();
            }
            other => return Some(other),
        }
        None
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u32, Weak<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, id: u32, change: impl FnOnce(&mut State)) -> bool {
        let running = self.table().get(&id).and_then(Weak::upgrade);
        let Some(running) = running else { return false };
        change(&mut running.state());
        running.changed.notify_all();
        true
    }

    fn forget(&self, id: u32) {
        self.table().remove(&id);
    }

    pub(crate) fn send(&self, message: &ToNode) {
        if let Some(writer) = self
            .to_writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
        {
            // The writer ends with the node, which everybody hears of.
            let _ = writer.send(framed(message));
        }
    }

    /// Ends the link: whoever waits for the node hears why.
    pub(crate) fn close(&self, why: &str) {
        {
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            if lost.is_none() {
                *lost = Some(why.to_owned());
            }
        }
        *self
            .to_writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        self.line().closed = true;
        self.acknowledged.notify_all();
        // Fails when the other end is gone, which is the usual case.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let running: Vec<_> = self
            .table()
            .drain()
            .filter_map(|(_, weak)| weak.upgrade())
            .collect();
        for running in running {
            running.state().lost = Some(why.to_owned());
            running.changed.notify_all();
        }
    }

    /// Starts a program in the node; `name` is for error texts.
    pub(crate) fn spawn(self: &Arc<Self>, spawn: Spawn, name: String) -> Result<Arc<Running>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let running = Arc::new(Running {
            link: Arc::clone(self),
            id,
            name,
            state: Mutex::new(State {
                input_credit: WINDOW as usize,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        self.journal
            .note(&self.node, format!("runs {}", running.name));
        self.table().insert(id, Arc::downgrade(&running));
        self.send(&ToNode::Spawn { id, spawn });
        // A link closed before the entry was there has not told it.
        if let Some(why) = self
            .lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
        {
            running.state().lost = Some(why);
        }
        let until = Instant::now() + REPLY;
        let mut state = running.state();
        loop {
            match state.started {
                Some(Ok(_)) => {
                    drop(state);
                    return Ok(running);
                }
                Some(Err(errno)) => {
                    drop(state);
                    return Err(running
                        .error(ErrorKind::Spawn)
                        .os(io::Error::from_raw_os_error(errno)));
                }
                None => {}
            }
            if let Some(why) = &state.lost {
                let why = why.clone();
                drop(state);
                return Err(running.error(ErrorKind::NodeDown).detail(why));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                return Err(running
                    .error(ErrorKind::Deadline)
                    .detail("the node does not answer"));
            }
            state = running.sleep(state, left);
        }
    }
}

fn framed(message: &ToNode) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.frame(&mut bytes);
    bytes
}

/// A program running in a node, seen from the lab.
pub(crate) struct Running {
    link: Arc<Link>,
    id: u32,
    name: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    started: Option<std::result::Result<u32, i32>>,
    unread: [VecDeque<u8>; 2],
    /// How many readers each stream has; what they have is left to them.
    readers: [usize; 2],
    /// Read, but not yet credited to the node.
    consumed: [usize; 2],
    /// Bytes of standard input the node will take now.
    input_credit: usize,
    ended: Option<ExitStatus>,
    lost: Option<String>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("node", &self.link.node)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Running {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, most)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, format!("run {}", self.name)).node(&self.link.node)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.state()
            .started
            .and_then(std::result::Result::ok)
            .unwrap_or(0)
    }

    /// Gives the node room for what was read.
    fn consume(&self, state: &mut State, index: usize, bytes: usize) {
        state.consumed[index] += bytes;
        // Often enough that the program need not wait, seldom enough not to
        // cost an interrupt per read.
        if state.consumed[index] >= WINDOW as usize / 4
            && state.ended.is_none()
            && let Some(stream) = Stream::from_index(index)
        {
            let bytes = u32::try_from(state.consumed[index]).unwrap_or(u32::MAX);
            state.consumed[index] -= bytes as usize;
            self.link.send(&ToNode::Credit {
                id: self.id,
                stream,
                bytes,
            });
        }
    }

    pub(crate) fn wait(&self, deadline: Duration) -> Result<Output> {
        let (mut begun, mut limit) = (Instant::now(), deadline);
        let mut killed = false;
        let mut collected = [Vec::new(), Vec::new()];
        let mut state = self.state();
        loop {
            for (index, all) in collected.iter_mut().enumerate() {
                if state.readers[index] > 0 {
                    continue;
                }
                let bytes: Vec<u8> = state.unread[index].drain(..).collect();
                self.consume(&mut state, index, bytes.len());
                all.extend_from_slice(&bytes);
            }
            let output = |status, collected: &mut [Vec<u8>; 2]| Output {
                status,
                stdout: std::mem::take(&mut collected[0]),
                stderr: std::mem::take(&mut collected[1]),
            };
            let killed_status = ExitStatus::from_raw(Signal::SIGKILL as i32);
            let late = |output| {
                self.error(ErrorKind::Deadline)
                    .detail(format!("not done after {deadline:?}, killed"))
                    .with_output(output)
            };
            if let Some(status) = state.ended {
                let output = output(status, &mut collected);
                return if killed {
                    Err(late(output))
                } else {
                    Ok(output)
                };
            }
            if let Some(why) = state.lost.clone() {
                drop(state);
                return Err(self
                    .error(ErrorKind::NodeDown)
                    .detail(why)
                    .with_output(output(killed_status, &mut collected)));
            }
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                if killed {
                    return Err(late(output(killed_status, &mut collected)));
                }
                killed = true;
                (begun, limit) = (Instant::now(), REPLY);
                let signal = Signal::SIGKILL as i32;
                self.link.send(&ToNode::Kill {
                    id: self.id,
                    signal,
                });
                continue;
            }
            state = self.sleep(state, left);
        }
    }

    pub(crate) fn try_status(&self) -> Result<Option<ExitStatus>> {
        let state = self.state();
        match (&state.ended, &state.lost) {
            (Some(status), _) => Ok(Some(*status)),
            (None, Some(why)) => Err(self.error(ErrorKind::NodeDown).detail(why.clone())),
            (None, None) => Ok(None),
        }
    }

    /// One reader more, or one less, of a stream.
    pub(crate) fn add_reader(&self, index: usize) {
        self.state().readers[index] += 1;
    }

    pub(crate) fn remove_reader(&self, index: usize) {
        let mut state = self.state();
        state.readers[index] = state.readers[index].saturating_sub(1);
        // Somebody who waits for the end takes over from here.
        self.changed.notify_all();
    }

    pub(crate) fn read(&self, index: usize, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut state = self.state();
        loop {
            if !state.unread[index].is_empty() {
                let read = state.unread[index].read(buffer)?;
                self.consume(&mut state, index, read);
                return Ok(read);
            }
            if state.ended.is_some() {
                return Ok(0);
            }
            if let Some(why) = &state.lost {
                let text = format!("node {}: {why}", self.link.node);
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn write_stdin(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let mut state = self.state();
            while state.input_credit == 0 && state.ended.is_none() && state.lost.is_none() {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.ended.is_some() {
                return Ok(());
            }
            if let Some(why) = &state.lost {
                return Err(self.error(ErrorKind::NodeDown).detail(why.clone()));
            }
            let now = bytes.len().min(state.input_credit);
            state.input_credit -= now;
            drop(state);
            let (first, rest) = bytes.split_at(now);
            let id = self.id;
            self.link.send(&if first.len() > LINE_INPUT {
                ToNode::StdinFile {
                    id,
                    path: self.link.share.put(first)?,
                }
            } else {
                ToNode::Stdin {
                    id,
                    bytes: first.to_vec(),
                }
            });
            bytes = rest;
        }
        Ok(())
    }

    pub(crate) fn close_stdin(&self) -> Result<()> {
        self.alive()?;
        self.link.send(&ToNode::Stdin {
            id: self.id,
            bytes: Vec::new(),
        });
        Ok(())
    }

    pub(crate) fn kill(&self, signal: i32) -> Result<()> {
        self.alive()?;
        self.link.send(&ToNode::Kill {
            id: self.id,
            signal,
        });
        Ok(())
    }

    fn alive(&self) -> Result<()> {
        match &self.state().lost {
            Some(why) => Err(self.error(ErrorKind::NodeDown).detail(why.clone())),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // From here on the node's output is credited as it comes; what was
        // buffered here is credited now, or the program would wait for ever.
        self.link.forget(self.id);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.ended.is_some() || state.lost.is_some() {
            return;
        }
        for index in 0..2 {
            let bytes = state.unread[index].len() + state.consumed[index];
            if bytes > 0
                && let Some(stream) = Stream::from_index(index)
                && let Ok(bytes) = u32::try_from(bytes)
            {
                self.link.send(&ToNode::Credit {
                    id: self.id,
                    stream,
                    bytes,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;
    use crate::protocol::{LINE_ACK, Stdin};

    /// A node that missed the edge of everything it was sent looks at its line
    /// again only when something more arrives.
    #[test]
    fn a_node_that_missed_an_edge_gets_another() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(REPLY / 2)).unwrap();
        let share = Arc::new(Share::new(PathBuf::new()));
        let (link, receiver) = Link::new("node1", ours, share, Arc::new(Journal::new()));
        std::thread::scope(|scope| {
            let link = &link;
            scope.spawn(move || link.write(&receiver));
            scope.spawn(move || link.read(|_| {}));
            scope.spawn(move || {
                // The line is full, and nothing of it acknowledged.
                let mut bytes = vec![0; LINE_WINDOW];
                (&theirs).read_exact(&mut bytes).unwrap();
                bytes.push(0);
                (&theirs).read_exact(&mut bytes[LINE_WINDOW..]).unwrap();
                let answer = |message: ToLab| {
                    let mut bytes = Vec::new();
                    message.frame(&mut bytes);
                    (&theirs).write_all(&bytes).unwrap();
                };
                answer(ToLab::Ack {
                    bytes: u32::try_from(bytes.len()).unwrap(),
                });
                // The same with all of the message read.
                let mut incoming = Deframer::default();
                let mut id = None;
                incoming.push(&bytes);
                loop {
                    match incoming.next().unwrap() {
                        Some(ToNode::Spawn { id: asked, .. }) => id = Some(asked),
                        Some(ToNode::Nudge) => break,
                        Some(other) => panic!("{other:?}"),
                        None => {
                            let n = (&theirs).read(&mut bytes).unwrap();
                            incoming.push(&bytes[..n]);
                        }
                    }
                }
                answer(ToLab::Started {
                    id: id.unwrap(),
                    pid: 2,
                });
            });
            let spawn = Spawn {
                argv: vec![vec![b'x'; LINE_WINDOW + LINE_ACK]],
                env: Vec::new(),
                cwd: Vec::new(),
                stdin: Stdin::Null,
            };
            let running = link.spawn(spawn, "x".to_owned());
            link.close("the test is over");
            assert_eq!(running.unwrap().pid(), 2);
        });
    }
}
