//! What the lab, the program inside a node and the keeper say to each other.
//!
//! Bytes only: no descriptor is seen here. The file is compiled twice, into
//! the library and into the embedded program, so it uses `std` alone.
//!
//! The channel between lab and node is a byte stream (a serial line), cut into
//! frames: length (`u32`, of what follows), then one message. The channel to
//! the keeper keeps message boundaries, so it carries messages without length.
//! Integers are little-endian.

#![allow(dead_code, reason = "each side uses its part")]

/// Longest message either side accepts.
pub(crate) const MAX_MESSAGE: usize = 256 * 1024;
/// Bytes of a program's output, or input, that may be under way unread.
pub(crate) const WINDOW: u32 = 512 * 1024;
/// Bytes towards a node that it has not yet said it read.
///
/// Linux's terminal layer asks a serial line to stop when 3968 of its 4096
/// bytes are taken, and the user-mode serial driver (seen with 6.1) never
/// listens again after it was stopped. So that must not happen.
pub(crate) const LINE_WINDOW: usize = 3072;
/// The same for single bytes, sent late because the node may have missed that
/// there is something to read.
pub(crate) const LINE_LIMIT: usize = 3840;
/// The node says so after this many bytes.
pub(crate) const LINE_ACK: usize = 1024;
/// More input than this goes into a file for the node to read: the serial
/// line is slow towards the node.
pub(crate) const LINE_INPUT: usize = 2048;
/// Data carried by one frame at most.
pub(crate) const CHUNK: usize = 32 * 1024;
/// Says that both ends speak the same protocol.
pub(crate) const VERSION: u32 = 3;

/// Bytes that are no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One of a program's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn index(self) -> usize {
        match self {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        }
    }

    pub(crate) fn from_index(index: usize) -> Option<Self> {
        match index {
            0 => Some(Stream::Stdout),
            1 => Some(Stream::Stderr),
            _ => None,
        }
    }
}

/// Where a program's standard input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// Nothing to read.
    Null,
    /// [`ToNode::Stdin`] messages.
    Pipe,
    /// A file in the node.
    File(Vec<u8>),
}

/// A program to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spawn {
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) cwd: Vec<u8>,
    pub(crate) stdin: Stdin,
}

/// From the lab to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToNode {
    Spawn {
        id: u32,
        spawn: Spawn,
    },
    /// Bytes for a program's standard input; empty means end of input.
    Stdin {
        id: u32,
        bytes: Vec<u8>,
    },
    /// The same with the bytes in a file, which the node removes.
    StdinFile {
        id: u32,
        path: Vec<u8>,
    },
    /// A signal to a program's process group.
    Kill {
        id: u32,
        signal: i32,
    },
    /// So many bytes of a program's output were consumed.
    Credit {
        id: u32,
        stream: Stream,
        bytes: u32,
    },
    /// Answers [`ToLab::Power`]: exit code and a line for people.
    PowerReply {
        id: u32,
        code: u8,
        text: Vec<u8>,
    },
    /// Nothing: bytes that make the node look at its line.
    Nudge,
}

/// From a node to the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToLab {
    /// The program in the node is alive and has opened the channel.
    Hello {
        version: u32,
    },
    /// The node is set up and takes commands.
    Ready,
    /// The node cannot be set up.
    Failed {
        step: Vec<u8>,
        errno: i32,
    },
    Started {
        id: u32,
        pid: u32,
    },
    NotStarted {
        id: u32,
        errno: i32,
    },
    Output {
        id: u32,
        stream: Stream,
        bytes: Vec<u8>,
    },
    /// The program ended with this wait status; no output follows.
    Exit {
        id: u32,
        status: i32,
    },
    /// So many bytes of standard input were taken.
    StdinCredit {
        id: u32,
        bytes: u32,
    },
    /// So many bytes of the channel were read.
    Ack {
        bytes: u32,
    },
    /// A program in the node uses the power switch.
    Power {
        id: u32,
        verb: Vec<u8>,
        node: Vec<u8>,
    },
}

/// How a node's kernel is kept from writing outside its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Confine {
    /// Stays writable; everything else becomes read-only.
    pub(crate) writable: Vec<Vec<u8>>,
    /// Where the kernel's memory file goes: a tmpfs is mounted here.
    pub(crate) memory: Vec<u8>,
}

/// A kernel to start. Descriptors come beside it: console, channel, wires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) id: u32,
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) cwd: Vec<u8>,
    pub(crate) confine: Option<Confine>,
}

/// From the lab to its keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToKeeper {
    /// The descriptor beside it is the run directory's lock.
    Hold,
    Start(Start),
    /// Kills all processes of a node.
    Kill {
        id: u32,
    },
    /// Stops the main process of a node's kernel, or lets it go on.
    Hang {
        id: u32,
        hang: bool,
    },
    /// Kills everything, removes the run directory and ends.
    Shutdown,
}

/// From the keeper to the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FromKeeper {
    Started {
        id: u32,
        pid: u32,
    },
    NotStarted {
        id: u32,
        step: Vec<u8>,
        errno: i32,
    },
    /// The kernel process ended by itself.
    Exited {
        id: u32,
        status: i32,
    },
    /// No process of the node is left.
    Killed {
        id: u32,
    },
    /// The kernel stands still, or goes on; or it could not be told to.
    Hung {
        id: u32,
        errno: i32,
    },
}

/// A network port of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: Vec<u8>,
    /// Address in text and prefix length.
    pub(crate) address: Option<(Vec<u8>, u8)>,
}

/// A disk that is more than a file: what lies between it and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskSetup {
    /// The kernel's name of it, below /dev.
    pub(crate) name: Vec<u8>,
    /// Writes stay in memory until they are flushed.
    pub(crate) cached: bool,
    /// Table of the device mapper, if there is one.
    pub(crate) table: Option<Vec<u8>>,
}

/// What the program in a node needs to know before it can talk to the lab;
/// read from a file beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) host_name: Vec<u8>,
    /// Host directory that is the root: the host's own, or another tree.
    pub(crate) root: Vec<u8>,
    /// Host directories laid over the root, topmost first.
    pub(crate) layers: Vec<Vec<u8>>,
    /// Host directory that becomes /lib/modules.
    pub(crate) modules: Vec<u8>,
    /// Host directory that becomes /run/lab/host.
    pub(crate) share: Vec<u8>,
    /// Directories in the node, and the host directories that hold them.
    pub(crate) keeps: Vec<(Vec<u8>, Vec<u8>)>,
    /// The same, read-only.
    pub(crate) sees: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) ports: Vec<Port>,
    pub(crate) disks: Vec<DiskSetup>,
    /// Milliseconds that the clock is ahead of the host's.
    pub(crate) clock_shift: i64,
}

/// A message that can be written and read back.
pub(crate) trait Message: Sized {
    fn put(&self, to: &mut Encoder);
    fn take(from: &mut Cursor<'_>) -> Result<Self, Malformed>;

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        self.put(&mut encoder);
        encoder.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        let message = Self::take(&mut cursor)?;
        if cursor.0.is_empty() {
            Ok(message)
        } else {
            Err(Malformed)
        }
    }

    /// Appends length and message to a byte stream.
    fn frame(&self, to: &mut Vec<u8>) {
        let body = self.encode();
        let length = u32::try_from(body.len()).expect("messages are far below 4 GiB");
        to.extend_from_slice(&length.to_le_bytes());
        to.extend_from_slice(&body);
    }
}

/// Collects a byte stream and yields whole messages.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    buffer: Vec<u8>,
    start: usize,
}

impl Deframer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > MAX_MESSAGE {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    pub(crate) fn next<M: Message>(&mut self) -> Result<Option<M>, Malformed> {
        let rest = &self.buffer[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_MESSAGE {
            return Err(Malformed);
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = M::decode(body)?;
        self.start += 4 + length;
        Ok(Some(message))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("a field is far below 4 GiB"));
        self.0.extend_from_slice(value);
    }

    fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) {
        self.u32(u32::try_from(items.len()).expect("a list is far below 4 G items"));
        for item in items {
            put(self, item);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn u8(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        let (first, rest) = self.0.split_first_chunk::<4>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*first))
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(self.u32()?.cast_signed())
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        let (first, rest) = self.0.split_first_chunk::<8>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(i64::from_le_bytes(*first))
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        let length = self.u32()? as usize;
        if length > self.0.len() {
            return Err(Malformed);
        }
        let (value, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(value.to_vec())
    }

    fn list<T>(
        &mut self,
        mut take: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let length = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(take(self)?);
        }
        Ok(items)
    }

    fn stream(&mut self) -> Result<Stream, Malformed> {
        Stream::from_index(self.u8()?.into()).ok_or(Malformed)
    }

    fn pair(&mut self) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        Ok((self.bytes()?, self.bytes()?))
    }
}

fn put_pair(to: &mut Encoder, pair: &(Vec<u8>, Vec<u8>)) {
    to.bytes(&pair.0);
    to.bytes(&pair.1);
}

fn put_stream(to: &mut Encoder, stream: Stream) {
    to.u8(u8::try_from(stream.index()).expect("0 or 1"));
}

impl Message for ToNode {
    fn put(&self, to: &mut Encoder) {
        match self {
            ToNode::Spawn { id, spawn } => {
                to.u8(1);
                to.u32(*id);
                to.list(&spawn.argv, |to, item| to.bytes(item));
                to.list(&spawn.env, put_pair);
                to.bytes(&spawn.cwd);
                match &spawn.stdin {
                    Stdin::Null => to.u8(0),
                    Stdin::Pipe => to.u8(1),
                    Stdin::File(path) => {
                        to.u8(2);
                        to.bytes(path);
                    }
                }
            }
            ToNode::Stdin { id, bytes } => {
                to.u8(2);
                to.u32(*id);
                to.bytes(bytes);
            }
            ToNode::StdinFile { id, path } => {
                to.u8(6);
                to.u32(*id);
                to.bytes(path);
            }
            ToNode::Kill { id, signal } => {
                to.u8(3);
                to.u32(*id);
                to.i32(*signal);
            }
            ToNode::Credit { id, stream, bytes } => {
                to.u8(4);
                to.u32(*id);
                put_stream(to, *stream);
                to.u32(*bytes);
            }
            ToNode::PowerReply { id, code, text } => {
                to.u8(5);
                to.u32(*id);
                to.u8(*code);
                to.bytes(text);
            }
            ToNode::Nudge => to.u8(7),
        }
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            1 => ToNode::Spawn {
                id: from.u32()?,
                spawn: Spawn {
                    argv: from.list(Cursor::bytes)?,
                    env: from.list(Cursor::pair)?,
                    cwd: from.bytes()?,
                    stdin: match from.u8()? {
                        0 => Stdin::Null,
                        1 => Stdin::Pipe,
                        2 => Stdin::File(from.bytes()?),
                        _ => return Err(Malformed),
                    },
                },
            },
            2 => ToNode::Stdin {
                id: from.u32()?,
                bytes: from.bytes()?,
            },
            6 => ToNode::StdinFile {
                id: from.u32()?,
                path: from.bytes()?,
            },
            3 => ToNode::Kill {
                id: from.u32()?,
                signal: from.i32()?,
            },
            4 => ToNode::Credit {
                id: from.u32()?,
                stream: from.stream()?,
                bytes: from.u32()?,
            },
            5 => ToNode::PowerReply {
                id: from.u32()?,
                code: from.u8()?,
                text: from.bytes()?,
            },
            7 => ToNode::Nudge,
            _ => return Err(Malformed),
        })
    }
}

impl Message for ToLab {
    fn put(&self, to: &mut Encoder) {
        match self {
            ToLab::Hello { version } => {
                to.u8(1);
                to.u32(*version);
            }
            ToLab::Ready => to.u8(2),
            ToLab::Failed { step, errno } => {
                to.u8(3);
                to.bytes(step);
                to.i32(*errno);
            }
            ToLab::Started { id, pid } => {
                to.u8(4);
                to.u32(*id);
                to.u32(*pid);
            }
            ToLab::NotStarted { id, errno } => {
                to.u8(5);
                to.u32(*id);
                to.i32(*errno);
            }
            ToLab::Output { id, stream, bytes } => {
                to.u8(6);
                to.u32(*id);
                put_stream(to, *stream);
                to.bytes(bytes);
            }
            ToLab::Exit { id, status } => {
                to.u8(7);
                to.u32(*id);
                to.i32(*status);
            }
            ToLab::StdinCredit { id, bytes } => {
                to.u8(8);
                to.u32(*id);
                to.u32(*bytes);
            }
            ToLab::Ack { bytes } => {
                to.u8(10);
                to.u32(*bytes);
            }
            ToLab::Power { id, verb, node } => {
                to.u8(9);
                to.u32(*id);
                to.bytes(verb);
                to.bytes(node);
            }
        }
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            1 => ToLab::Hello {
                version: from.u32()?,
            },
            2 => ToLab::Ready,
            3 => ToLab::Failed {
                step: from.bytes()?,
                errno: from.i32()?,
            },
            4 => ToLab::Started {
                id: from.u32()?,
                pid: from.u32()?,
            },
            5 => ToLab::NotStarted {
                id: from.u32()?,
                errno: from.i32()?,
            },
            6 => ToLab::Output {
                id: from.u32()?,
                stream: from.stream()?,
                bytes: from.bytes()?,
            },
            7 => ToLab::Exit {
                id: from.u32()?,
                status: from.i32()?,
            },
            8 => ToLab::StdinCredit {
                id: from.u32()?,
                bytes: from.u32()?,
            },
            9 => ToLab::Power {
                id: from.u32()?,
                verb: from.bytes()?,
                node: from.bytes()?,
            },
            10 => ToLab::Ack { bytes: from.u32()? },
            _ => return Err(Malformed),
        })
    }
}

impl Message for ToKeeper {
    fn put(&self, to: &mut Encoder) {
        match self {
            ToKeeper::Hold => to.u8(1),
            ToKeeper::Start(start) => {
                to.u8(2);
                to.u32(start.id);
                to.list(&start.argv, |to, item| to.bytes(item));
                to.list(&start.env, put_pair);
                to.bytes(&start.cwd);
                match &start.confine {
                    None => to.u8(0),
                    Some(confine) => {
                        to.u8(1);
                        to.list(&confine.writable, |to, item| to.bytes(item));
                        to.bytes(&confine.memory);
                    }
                }
            }
            ToKeeper::Kill { id } => {
                to.u8(3);
                to.u32(*id);
            }
            ToKeeper::Shutdown => to.u8(4),
            ToKeeper::Hang { id, hang } => {
                to.u8(5);
                to.u32(*id);
                to.u8(u8::from(*hang));
            }
        }
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            1 => ToKeeper::Hold,
            2 => ToKeeper::Start(Start {
                id: from.u32()?,
                argv: from.list(Cursor::bytes)?,
                env: from.list(Cursor::pair)?,
                cwd: from.bytes()?,
                confine: match from.u8()? {
                    0 => None,
                    1 => Some(Confine {
                        writable: from.list(Cursor::bytes)?,
                        memory: from.bytes()?,
                    }),
                    _ => return Err(Malformed),
                },
            }),
            3 => ToKeeper::Kill { id: from.u32()? },
            4 => ToKeeper::Shutdown,
            5 => ToKeeper::Hang {
                id: from.u32()?,
                hang: from.flag()?,
            },
            _ => return Err(Malformed),
        })
    }
}

impl Message for FromKeeper {
    fn put(&self, to: &mut Encoder) {
        match self {
            FromKeeper::Started { id, pid } => {
                to.u8(1);
                to.u32(*id);
                to.u32(*pid);
            }
            FromKeeper::NotStarted { id, step, errno } => {
                to.u8(2);
                to.u32(*id);
                to.bytes(step);
                to.i32(*errno);
            }
            FromKeeper::Exited { id, status } => {
                to.u8(3);
                to.u32(*id);
                to.i32(*status);
            }
            FromKeeper::Killed { id } => {
                to.u8(4);
                to.u32(*id);
            }
            FromKeeper::Hung { id, errno } => {
                to.u8(5);
                to.u32(*id);
                to.i32(*errno);
            }
        }
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            1 => FromKeeper::Started {
                id: from.u32()?,
                pid: from.u32()?,
            },
            2 => FromKeeper::NotStarted {
                id: from.u32()?,
                step: from.bytes()?,
                errno: from.i32()?,
            },
            3 => FromKeeper::Exited {
                id: from.u32()?,
                status: from.i32()?,
            },
            4 => FromKeeper::Killed { id: from.u32()? },
            5 => FromKeeper::Hung {
                id: from.u32()?,
                errno: from.i32()?,
            },
            _ => return Err(Malformed),
        })
    }
}

impl Message for Setup {
    fn put(&self, to: &mut Encoder) {
        to.bytes(&self.host_name);
        to.bytes(&self.root);
        to.list(&self.layers, |to, item| to.bytes(item));
        to.bytes(&self.modules);
        to.bytes(&self.share);
        to.list(&self.keeps, put_pair);
        to.list(&self.sees, put_pair);
        to.list(&self.ports, |to, port| {
            to.bytes(&port.name);
            match &port.address {
                None => to.u8(0),
                Some((address, prefix)) => {
                    to.u8(1);
                    to.bytes(address);
                    to.u8(*prefix);
                }
            }
        });
        to.list(&self.disks, |to, disk| {
            to.bytes(&disk.name);
            to.u8(u8::from(disk.cached));
            match &disk.table {
                None => to.u8(0),
                Some(table) => {
                    to.u8(1);
                    to.bytes(table);
                }
            }
        });
        to.i64(self.clock_shift);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(Setup {
            host_name: from.bytes()?,
            root: from.bytes()?,
            layers: from.list(Cursor::bytes)?,
            modules: from.bytes()?,
            share: from.bytes()?,
            keeps: from.list(Cursor::pair)?,
            sees: from.list(Cursor::pair)?,
            ports: from.list(|from| {
                Ok(Port {
                    name: from.bytes()?,
                    address: match from.u8()? {
                        0 => None,
                        1 => Some((from.bytes()?, from.u8()?)),
                        _ => return Err(Malformed),
                    },
                })
            })?,
            disks: from.list(|from| {
                Ok(DiskSetup {
                    name: from.bytes()?,
                    cached: from.flag()?,
                    table: if from.flag()? {
                        Some(from.bytes()?)
                    } else {
                        None
                    },
                })
            })?,
            clock_shift: from.i64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
        let bytes = message.encode();
        assert_eq!(&M::decode(&bytes).unwrap(), message);
        for cut in 0..bytes.len() {
            assert!(
                M::decode(&bytes[..cut]).is_err(),
                "accepted {cut} bytes of {message:?}"
            );
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(
            M::decode(&longer).is_err(),
            "accepted a byte too many after {message:?}"
        );
    }

    #[test]
    fn messages_survive_and_cuts_are_refused() {
        round_trip(&ToNode::Spawn {
            id: 7,
            spawn: Spawn {
                argv: vec![b"/bin/echo".to_vec(), b"\xff".to_vec()],
                env: vec![(b"A".to_vec(), b"b".to_vec())],
                cwd: b"/".to_vec(),
                stdin: Stdin::File(b"/x".to_vec()),
            },
        });
        round_trip(&ToNode::Stdin {
            id: 1,
            bytes: vec![0, 1, 2],
        });
        round_trip(&ToNode::StdinFile {
            id: 1,
            path: b"/x".to_vec(),
        });
        round_trip(&ToNode::Kill { id: 1, signal: -9 });
        round_trip(&ToNode::Credit {
            id: 1,
            stream: Stream::Stderr,
            bytes: 9,
        });
        round_trip(&ToNode::PowerReply {
            id: 1,
            code: 2,
            text: b"off".to_vec(),
        });
        round_trip(&ToNode::Nudge);
        round_trip(&ToLab::Hello { version: VERSION });
        round_trip(&ToLab::Ready);
        round_trip(&ToLab::Failed {
            step: b"mount".to_vec(),
            errno: 5,
        });
        round_trip(&ToLab::Started { id: 3, pid: 44 });
        round_trip(&ToLab::NotStarted { id: 3, errno: 2 });
        round_trip(&ToLab::Output {
            id: 3,
            stream: Stream::Stdout,
            bytes: vec![9; 100],
        });
        round_trip(&ToLab::Exit { id: 3, status: 256 });
        round_trip(&ToLab::StdinCredit { id: 3, bytes: 1 });
        round_trip(&ToLab::Power {
            id: 3,
            verb: b"off".to_vec(),
            node: b"n".to_vec(),
        });
        round_trip(&ToLab::Ack { bytes: 7 });
        round_trip(&ToKeeper::Hold);
        round_trip(&ToKeeper::Start(Start {
            id: 1,
            argv: vec![b"linux".to_vec()],
            env: vec![],
            cwd: b"/run".to_vec(),
            confine: Some(Confine {
                writable: vec![b"/run".to_vec()],
                memory: b"/m".to_vec(),
            }),
        }));
        round_trip(&ToKeeper::Kill { id: 1 });
        round_trip(&ToKeeper::Shutdown);
        round_trip(&ToKeeper::Hang { id: 1, hang: true });
        round_trip(&FromKeeper::Started { id: 1, pid: 2 });
        round_trip(&FromKeeper::NotStarted {
            id: 1,
            step: b"exec".to_vec(),
            errno: 2,
        });
        round_trip(&FromKeeper::Exited { id: 1, status: 9 });
        round_trip(&FromKeeper::Killed { id: 1 });
        round_trip(&FromKeeper::Hung { id: 1, errno: 3 });
        round_trip(&Setup {
            host_name: b"node1".to_vec(),
            root: b"/".to_vec(),
            layers: vec![b"/a".to_vec()],
            modules: b"/m".to_vec(),
            share: b"/s".to_vec(),
            keeps: vec![(b"/var/x".to_vec(), b"/h".to_vec())],
            sees: vec![(b"/opt".to_vec(), b"/o".to_vec())],
            ports: vec![
                Port {
                    name: b"vec0".to_vec(),
                    address: Some((b"10.0.0.1".to_vec(), 24)),
                },
                Port {
                    name: b"vec1".to_vec(),
                    address: None,
                },
            ],
            disks: vec![
                DiskSetup {
                    name: b"ubda".to_vec(),
                    cached: true,
                    table: Some(b"0 8 linear @ 0".to_vec()),
                },
                DiskSetup {
                    name: b"ubdb".to_vec(),
                    cached: false,
                    table: None,
                },
            ],
            clock_shift: -3_600_000,
        });
    }

    #[test]
    fn a_stream_in_pieces_gives_the_same_messages() {
        let messages: Vec<ToLab> = (0..50)
            .map(|n| ToLab::Output {
                id: n,
                stream: Stream::Stdout,
                bytes: vec![n as u8; (n as usize * 331) % 5000],
            })
            .collect();
        let mut stream = Vec::new();
        for message in &messages {
            message.frame(&mut stream);
        }
        for piece in [1, 3, 7, 1000, 100_000] {
            let mut deframer = Deframer::default();
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                deframer.push(bytes);
                while let Some(message) = deframer.next::<ToLab>().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_refused() {
        let mut deframer = Deframer::default();
        deframer.push(&u32::MAX.to_le_bytes());
        assert_eq!(deframer.next::<ToLab>(), Err(Malformed));
    }
}
