//! Process 1 at work: starts programs for the lab and carries their streams.
//!
//! One thread, one `poll`. Nothing here waits for a program or a file system:
//! pipes do not block, and a program whose output nobody consumes is left to
//! wait in its own `write` (each stream has a window the lab reopens).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::{kick, power, sys};
use crate::protocol::{
    CHUNK, Deframer, LINE_ACK, Malformed, Message, Spawn, Stdin, Stream, ToLab, ToNode, WINDOW,
};

/// While more than this waits for the channel, no pipe is read.
const BACKLOG: usize = 128 * 1024;

/// Writes one message, waiting as long as it takes: for the time before `main`.
pub(crate) fn say(channel: &mut File, message: &ToLab) {
    let mut bytes = Vec::new();
    message.frame(&mut bytes);
    if let Err(error) = channel.write_all(&bytes) {
        eprintln!("uml-lab: write to the lab: {error}");
    }
}

pub(crate) fn main(channel: File) -> ! {
    let result = Server::new(channel).and_then(|mut server| {
        kick::begin();
        server.send(&ToLab::Ready);
        loop {
            server.turn()?;
        }
    });
    let error: std::io::Error = match result {
        Ok(never) => never,
        Err(error) => error,
    };
    eprintln!("uml-lab: process 1 cannot go on: {error}");
    std::process::exit(1)
}

struct Server {
    channel: File,
    incoming: Deframer,
    /// Bytes of the channel read since the last [`ToLab::Ack`].
    unacknowledged: usize,
    outgoing: Vec<u8>,
    signals: File,
    listener: UnixListener,
    programs: BTreeMap<u32, Program>,
    /// Output pipes that outlived their program: emptied, so that whoever
    /// still writes to them (a daemon) is not stopped by a full pipe.
    leftovers: Vec<File>,
    requests: BTreeMap<u32, Request>,
    next_request: u32,
}

struct Program {
    pid: i32,
    stdin: Option<Input>,
    /// Standard output and standard error.
    outputs: [Output; 2],
    /// Wait status, once it has ended.
    ended: Option<i32>,
}

struct Input {
    pipe: File,
    waiting: Vec<u8>,
    /// Close the pipe once everything is written.
    last: bool,
}

struct Output {
    pipe: Option<File>,
    credit: usize,
    /// Nothing was left to read after the program had ended.
    empty: bool,
}

/// A use of the power switch, from connection to answer.
struct Request {
    stream: UnixStream,
    line: Vec<u8>,
    asked: bool,
}

/// Whose descriptor a poll entry is.
#[derive(Clone, Copy)]
enum Source {
    Channel,
    Signals,
    Listener,
    Input(u32),
    Output(u32, usize),
    Leftover(usize),
    Request(u32),
}

impl Server {
    fn new(channel: File) -> std::io::Result<Self> {
        sys::set_nonblocking(channel.as_fd())?;
        let listener = UnixListener::bind(power::SOCKET)?;
        listener.set_nonblocking(true)?;
        Ok(Server {
            channel,
            incoming: Deframer::default(),
            unacknowledged: 0,
            outgoing: Vec::new(),
            signals: File::from(sys::signal_fd(&[sys::SIGCHLD])?),
            listener,
            programs: BTreeMap::new(),
            leftovers: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 1,
        })
    }

    fn send(&mut self, message: &ToLab) {
        message.frame(&mut self.outgoing);
    }

    fn turn(&mut self) -> std::io::Result<()> {
        let (mut fds, sources) = self.interests();
        sys::poll_fds(&mut fds, -1)?;
        // Leftovers are taken out of their list by position, so from the back.
        for (fd, source) in fds.iter().zip(&sources).rev() {
            if fd.revents == 0 {
                continue;
            }
            match *source {
                Source::Channel => {
                    if fd.revents & !sys::POLLOUT != 0 {
                        self.receive()?;
                    }
                }
                Source::Signals => self.reap(),
                Source::Listener => self.accept(),
                Source::Input(id) => self.feed(id),
                Source::Output(id, index) => self.carry(id, index),
                Source::Leftover(index) => self.discard(index),
                Source::Request(id) => self.read_request(id),
            }
        }
        self.finish_ended();
        self.flush()
    }

    fn interests(&self) -> (Vec<sys::PollFd>, Vec<Source>) {
        let mut fds = Vec::new();
        let mut sources = Vec::new();
        let mut want = |fd: &dyn AsRawFd, events, source| {
            fds.push(sys::PollFd {
                fd: fd.as_raw_fd(),
                events,
                revents: 0,
            });
            sources.push(source);
        };
        let out = if self.outgoing.is_empty() {
            0
        } else {
            sys::POLLOUT
        };
        want(&self.channel, sys::POLLIN | out, Source::Channel);
        want(&self.signals, sys::POLLIN, Source::Signals);
        want(&self.listener, sys::POLLIN, Source::Listener);
        for (n, pipe) in self.leftovers.iter().enumerate() {
            want(pipe, sys::POLLIN, Source::Leftover(n));
        }
        for (id, request) in &self.requests {
            if !request.asked {
                want(&request.stream, sys::POLLIN, Source::Request(*id));
            }
        }
        let room = self.outgoing.len() < BACKLOG;
        for (id, program) in &self.programs {
            if let Some(input) = &program.stdin
                && !input.waiting.is_empty()
            {
                want(&input.pipe, sys::POLLOUT, Source::Input(*id));
            }
            for (index, output) in program.outputs.iter().enumerate() {
                if let Some(pipe) = &output.pipe
                    && room
                    && output.credit > 0
                {
                    want(pipe, sys::POLLIN, Source::Output(*id, index));
                }
            }
        }
        (fds, sources)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let mut done = 0;
        while done < self.outgoing.len() {
            match self.channel.write(&self.outgoing[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing.drain(..done);
        Ok(())
    }

    fn receive(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.channel.read(&mut buffer) {
            Ok(0) => return Err(std::io::Error::other("the lab closed the channel")),
            Ok(n) => {
                self.incoming.push(&buffer[..n]);
                self.unacknowledged += n;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if self.unacknowledged >= LINE_ACK {
            let bytes = u32::try_from(self.unacknowledged).unwrap_or(u32::MAX);
            self.unacknowledged -= bytes as usize;
            self.send(&ToLab::Ack { bytes });
        }
        loop {
            match self.incoming.next() {
                Ok(Some(message)) => self.obey(message),
                Ok(None) => return Ok(()),
                Err(Malformed) => {
                    return Err(std::io::Error::other("malformed message from the lab"));
                }
            }
        }
    }

    fn obey(&mut self, message: ToNode) {
        match message {
            ToNode::Spawn { id, spawn } => match start(spawn) {
                Ok(program) => {
                    let pid = program.pid.unsigned_abs();
                    self.programs.insert(id, program);
                    self.send(&ToLab::Started { id, pid });
                }
                Err(error) => {
                    self.send(&ToLab::NotStarted {
                        id,
                        errno: sys::errno(&error),
                    });
                }
            },
            ToNode::Stdin { id, bytes } => self.take_input(id, &bytes),
            ToNode::StdinFile { id, path } => {
                let path = os(path);
                match fs::read(&path).and_then(|bytes| fs::remove_file(&path).map(|()| bytes)) {
                    Ok(bytes) => self.take_input(id, &bytes),
                    // A hole in the input would be worse than its end.
                    Err(error) => {
                        eprintln!("uml-lab: {}: {error}", path.display());
                        self.take_input(id, b"");
                    }
                }
            }
            ToNode::Kill { id, signal } => {
                if let Some(program) = self.programs.get(&id) {
                    // Each program leads a process group of its own. Gone
                    // already is what was wanted.
                    let _ = sys::send_signal(-program.pid, signal);
                }
            }
            ToNode::Credit { id, stream, bytes } => {
                if let Some(program) = self.programs.get_mut(&id) {
                    program.outputs[stream.index()].credit += bytes as usize;
                }
            }
            ToNode::PowerReply { id, code, text } => {
                if let Some(mut request) = self.requests.remove(&id) {
                    // The asker may be gone; its problem.
                    let _ = request
                        .stream
                        .write_all(&[&[code], text.as_slice()].concat());
                }
            }
            ToNode::Nudge => {}
        }
    }

    /// Queues input for a program; none is the end of it.
    fn take_input(&mut self, id: u32, bytes: &[u8]) {
        let Some(program) = self.programs.get_mut(&id) else {
            return;
        };
        match &mut program.stdin {
            Some(input) if bytes.is_empty() => {
                input.last = true;
                if input.waiting.is_empty() {
                    program.stdin = None;
                }
            }
            Some(input) => {
                input.waiting.extend_from_slice(bytes);
                self.feed(id);
            }
            // It closed its input; whoever writes must not wait.
            None if bytes.is_empty() => {}
            None => self.credit_input(id, bytes.len()),
        }
    }

    fn credit_input(&mut self, id: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.send(&ToLab::StdinCredit { id, bytes });
    }

    /// Moves waiting input into a program's pipe.
    fn feed(&mut self, id: u32) {
        let Some(program) = self.programs.get_mut(&id) else {
            return;
        };
        let Some(input) = &mut program.stdin else {
            return;
        };
        let mut taken = 0;
        let mut broken = false;
        while taken < input.waiting.len() {
            match input.pipe.write(&input.waiting[taken..]) {
                Ok(n) => taken += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    broken = true;
                    taken = input.waiting.len();
                }
            }
        }
        input.waiting.drain(..taken);
        if broken || (input.last && input.waiting.is_empty()) {
            program.stdin = None;
        }
        if taken > 0 {
            self.credit_input(id, taken);
        }
    }

    /// Moves output of a program onto the channel. Returns when the pipe has
    /// nothing more, or once one chunk is taken.
    fn carry(&mut self, id: u32, index: usize) {
        let Some(program) = self.programs.get_mut(&id) else {
            return;
        };
        let ended = program.ended.is_some();
        let output = &mut program.outputs[index];
        let Some(pipe) = &mut output.pipe else { return };
        let mut buffer = [0; CHUNK];
        let room = output.credit.min(CHUNK);
        match pipe.read(&mut buffer[..room]) {
            Ok(0) => {
                output.pipe = None;
                output.empty = true;
            }
            Ok(n) => {
                output.credit -= n;
                let stream = if index == 0 {
                    Stream::Stdout
                } else {
                    Stream::Stderr
                };
                self.send(&ToLab::Output {
                    id,
                    stream,
                    bytes: buffer[..n].to_vec(),
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => output.empty = ended,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => {
                output.pipe = None;
                output.empty = true;
            }
        }
    }

    fn discard(&mut self, index: usize) {
        let mut buffer = [0; CHUNK];
        match self.leftovers[index].read(&mut buffer) {
            Ok(0) => drop(self.leftovers.swap_remove(index)),
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => drop(self.leftovers.swap_remove(index)),
        }
    }

    /// Takes leave of programs that ended and whose output is read.
    fn finish_ended(&mut self) {
        let ended: Vec<u32> = self
            .programs
            .iter()
            .filter(|(_, program)| program.ended.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            for index in 0..2 {
                while self.outgoing.len() < BACKLOG
                    && self
                        .programs
                        .get(&id)
                        .is_some_and(|p| !p.outputs[index].empty && p.outputs[index].credit > 0)
                {
                    self.carry(id, index);
                }
            }
            let Some(program) = self.programs.get(&id) else {
                continue;
            };
            if let Some(status) = program.ended
                && program.outputs.iter().all(|output| output.empty)
            {
                let program = self.programs.remove(&id);
                let outputs = program.into_iter().flat_map(|program| program.outputs);
                self.leftovers
                    .extend(outputs.filter_map(|output| output.pipe));
                self.send(&ToLab::Exit { id, status });
            }
        }
    }

    fn reap(&mut self) {
        // The descriptor only says that something happened; what, waitpid says.
        let mut buffer = [0; 1024];
        let _ = self.signals.read(&mut buffer);
        while let Some(Some((pid, status))) = sys::reap(-1, false) {
            if let Some(program) = self.programs.values_mut().find(|p| p.pid == pid) {
                program.ended = Some(status);
                program.stdin = None;
            }
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let id = self.next_request;
        self.next_request = self.next_request.wrapping_add(1);
        self.requests.insert(
            id,
            Request {
                stream,
                line: Vec::new(),
                asked: false,
            },
        );
    }

    fn read_request(&mut self, id: u32) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let mut buffer = [0; 512];
        match request.stream.read(&mut buffer) {
            Ok(n) if n > 0 && request.line.len() + n < 4096 => {
                request.line.extend_from_slice(&buffer[..n]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            _ => {
                self.requests.remove(&id);
                return;
            }
        }
        let Some(line) = request.line.strip_suffix(b"\n") else {
            return;
        };
        let at = line
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(line.len());
        let verb = line[..at].to_vec();
        let node = line.get(at + 1..).unwrap_or_default().to_vec();
        request.asked = true;
        self.send(&ToLab::Power { id, verb, node });
    }
}

fn os(bytes: Vec<u8>) -> OsString {
    OsString::from_vec(bytes)
}

fn start(spawn: Spawn) -> std::io::Result<Program> {
    let mut argv = spawn.argv.into_iter().map(os);
    let program = argv
        .next()
        .ok_or_else(|| std::io::Error::from_raw_os_error(sys::ENOENT))?;
    let mut command = Command::new(program);
    command
        .args(argv)
        .env_clear()
        .envs(spawn.env.into_iter().map(|(k, v)| (os(k), os(v))));
    command.current_dir(OsStr::from_bytes(&spawn.cwd));
    command.stdin(match spawn.stdin {
        Stdin::Null => Stdio::null(),
        Stdin::Pipe => Stdio::piped(),
        Stdin::File(path) => {
            let path = os(path);
            let file = File::open(&path)?;
            // The lab wrote it for this program alone.
            fs::remove_file(&path)?;
            file.into()
        }
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // A process group of its own, so that all of it can be signalled.
    command.process_group(0);
    let mut child = command.spawn()?;
    let stdin = child
        .stdin
        .take()
        .map(|pipe| File::from(OwnedFd::from(pipe)));
    let stdout = child
        .stdout
        .take()
        .map(|pipe| File::from(OwnedFd::from(pipe)));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| File::from(OwnedFd::from(pipe)));
    for pipe in [&stdin, &stdout, &stderr].into_iter().flatten() {
        sys::set_nonblocking(pipe.as_fd())?;
    }
    let output = |pipe| Output {
        pipe,
        credit: WINDOW as usize,
        empty: false,
    };
    Ok(Program {
        pid: child.id().cast_signed(),
        stdin: stdin.map(|pipe| Input {
            pipe,
            waiting: Vec::new(),
            last: false,
        }),
        outputs: [output(stdout), output(stderr)],
        ended: None,
    })
}
