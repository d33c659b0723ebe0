//! What the library and its helper process say to each other, as bytes.
//!
//! Both sides are built from this file in one go, so there is no version. A
//! frame is a `u32` length and that many bytes; numbers are little-endian.
#![allow(dead_code, reason = "each side writes what the other reads")]

use std::io::{self, Read, Write};

/// Longest frame either side accepts.
const LIMIT: usize = 64 << 20;

/// One call into liblxc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// File of the liblxc to load.
    pub(crate) library: Vec<u8>,
    pub(crate) lxcpath: Vec<u8>,
    pub(crate) name: Vec<u8>,
    /// Milliseconds the helper gives itself where it waits.
    pub(crate) millis: u64,
    /// Changes to the configuration in memory, made before the call.
    pub(crate) edits: Vec<Edit>,
    pub(crate) verb: Verb,
}

/// A change to a container's configuration in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Set { key: Vec<u8>, value: Vec<u8> },
    Clear { key: Vec<u8> },
}

/// What the helper is to do once it has the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Nothing more: only shows whether the configuration loads.
    Check,
    State,
    /// Daemonized start; no arguments means the configured init.
    Start {
        argv: Vec<Vec<u8>>,
    },
    /// Halt signal, then wait until the container is gone.
    Shutdown,
    /// Kill, then wait until the container is gone.
    Stop,
    Freeze,
    Unfreeze,
    Wait {
        state: Vec<u8>,
    },
    /// Wait until neither state nor monitor nor processes are left.
    WaitGone,
    Attach(Attach),
    /// Makes a container on a new Btrfs subvolume.
    Create,
    Destroy,
}

/// A command to run inside a container; its stdio are the helper's
/// [`STDIO`] descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attach {
    pub(crate) argv: Vec<Vec<u8>>,
    pub(crate) env: Vec<Vec<u8>>,
    pub(crate) keep_env: bool,
    pub(crate) cwd: Vec<u8>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// The helper's end of the socket.
pub(crate) const SOCKET: i32 = 3;
/// The file liblxc logs to.
pub(crate) const LOG: i32 = 4;
/// Standard input, output and error of an attached command.
pub(crate) const STDIO: [i32; 3] = [5, 6, 7];
/// `argv[0]` of the helper; the verb, lxcpath and name follow, for people
/// who look at a process list.
pub(crate) const PROGRAM: &str = "lxc-rs-helper";

/// What the helper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// liblxc and the container are loaded: what takes time from now on is the
    /// call itself.
    Ready,
    /// `create` made the (empty) root file system; the helper waits for one
    /// byte: 1 to go on, anything else to undo.
    Populate { rootfs: Vec<u8> },
    /// The answer; the last thing said.
    Done(Reply),
}

/// How a call went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Done,
    /// A state, as liblxc spells it.
    State(Vec<u8>),
    /// Wait status of an attached command.
    Exited(i32),
    /// The attached command could not be executed; errno.
    ExecFailed(i32),
    /// The helper's own time was over. The state it saw last.
    TimedOut(Vec<u8>),
    Failed(Failure),
}

/// What did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// liblxc could not be loaded, or is too old.
    Library(Vec<u8>),
    /// `lxc_container_new` returned null.
    NotLoaded,
    /// The edit with this index was rejected.
    Edit(u32),
    /// There is no such container.
    NotDefined,
    /// It runs, but must not; the state.
    Running(Vec<u8>),
    /// It does not run, but must.
    NotRunning,
    /// The call said no; its value.
    Call(i32),
    /// The helper itself met an error.
    Internal(Vec<u8>),
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::default();
        to.bytes(&self.library)
            .bytes(&self.lxcpath)
            .bytes(&self.name)
            .u64(self.millis);
        to.u32(count(&self.edits));
        for edit in &self.edits {
            match edit {
                Edit::Set { key, value } => to.u8(0).bytes(key).bytes(value),
                Edit::Clear { key } => to.u8(1).bytes(key),
            };
        }
        match &self.verb {
            Verb::Check => to.u8(0),
            Verb::State => to.u8(1),
            Verb::Start { argv } => to.u8(2).list(argv),
            Verb::Shutdown => to.u8(3),
            Verb::Stop => to.u8(4),
            Verb::Freeze => to.u8(5),
            Verb::Unfreeze => to.u8(6),
            Verb::Wait { state } => to.u8(7).bytes(state),
            Verb::WaitGone => to.u8(8),
            Verb::Attach(attach) => to
                .u8(9)
                .list(&attach.argv)
                .list(&attach.env)
                .u8(attach.keep_env.into())
                .bytes(&attach.cwd)
                .option(attach.uid)
                .option(attach.gid),
            Verb::Create => to.u8(10),
            Verb::Destroy => to.u8(11),
        };
        to.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Decoder(bytes);
        let request = Self {
            library: from.bytes()?,
            lxcpath: from.bytes()?,
            name: from.bytes()?,
            millis: from.u64()?,
            edits: {
                let edits = from.u32()?;
                let edit = |from: &mut Decoder<'_>| {
                    Some(match from.u8()? {
                        0 => Edit::Set {
                            key: from.bytes()?,
                            value: from.bytes()?,
                        },
                        1 => Edit::Clear { key: from.bytes()? },
                        _ => return None,
                    })
                };
                (0..edits).map(|_| edit(&mut from)).collect::<Option<_>>()?
            },
            verb: match from.u8()? {
                0 => Verb::Check,
                1 => Verb::State,
                2 => Verb::Start { argv: from.list()? },
                3 => Verb::Shutdown,
                4 => Verb::Stop,
                5 => Verb::Freeze,
                6 => Verb::Unfreeze,
                7 => Verb::Wait {
                    state: from.bytes()?,
                },
                8 => Verb::WaitGone,
                9 => Verb::Attach(Attach {
                    argv: from.list()?,
                    env: from.list()?,
                    keep_env: from.u8()? != 0,
                    cwd: from.bytes()?,
                    uid: from.option()?,
                    gid: from.option()?,
                }),
                10 => Verb::Create,
                11 => Verb::Destroy,
                _ => return None,
            },
        };
        from.0.is_empty().then_some(request)
    }
}

impl Event {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::default();
        match self {
            Self::Populate { rootfs } => to.u8(0).bytes(rootfs),
            Self::Ready => to.u8(14),
            Self::Done(Reply::Done) => to.u8(1),
            Self::Done(Reply::State(state)) => to.u8(2).bytes(state),
            Self::Done(Reply::Exited(status)) => to.u8(3).i32(*status),
            Self::Done(Reply::ExecFailed(errno)) => to.u8(4).i32(*errno),
            Self::Done(Reply::TimedOut(state)) => to.u8(5).bytes(state),
            Self::Done(Reply::Failed(failure)) => match failure {
                Failure::Library(text) => to.u8(6).bytes(text),
                Failure::NotLoaded => to.u8(7),
                Failure::Edit(index) => to.u8(8).u32(*index),
                Failure::NotDefined => to.u8(9),
                Failure::Running(state) => to.u8(10).bytes(state),
                Failure::NotRunning => to.u8(11),
                Failure::Call(code) => to.u8(12).i32(*code),
                Failure::Internal(text) => to.u8(13).bytes(text),
            },
        };
        to.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Decoder(bytes);
        let event = match from.u8()? {
            0 => Self::Populate {
                rootfs: from.bytes()?,
            },
            1 => Self::Done(Reply::Done),
            2 => Self::Done(Reply::State(from.bytes()?)),
            3 => Self::Done(Reply::Exited(from.i32()?)),
            4 => Self::Done(Reply::ExecFailed(from.i32()?)),
            5 => Self::Done(Reply::TimedOut(from.bytes()?)),
            14 => Self::Ready,
            tag => Self::Done(Reply::Failed(match tag {
                6 => Failure::Library(from.bytes()?),
                7 => Failure::NotLoaded,
                8 => Failure::Edit(from.u32()?),
                9 => Failure::NotDefined,
                10 => Failure::Running(from.bytes()?),
                11 => Failure::NotRunning,
                12 => Failure::Call(from.i32()?),
                13 => Failure::Internal(from.bytes()?),
                _ => return None,
            })),
        };
        from.0.is_empty().then_some(event)
    }
}

/// Writes one frame.
pub(crate) fn send(to: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(payload.len() + 4);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    to.write_all(&frame)
}

/// Reads one frame.
pub(crate) fn receive(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let length = u32::from_le_bytes(head) as usize;
    if length > LIMIT {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(payload)
}

/// Takes the first whole frame off `buffer`; `Ok(None)` while there is none.
pub(crate) fn split(buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some((head, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*head) as usize;
    if length > LIMIT {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let Some(payload) = rest.get(..length) else {
        return Ok(None);
    };
    let payload = payload.to_vec();
    buffer.drain(..length + 4);
    Ok(Some(payload))
}

fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(count(value));
        self.0.extend_from_slice(value);
        self
    }

    fn list(&mut self, list: &[Vec<u8>]) -> &mut Self {
        self.u32(count(list));
        for item in list {
            self.bytes(item);
        }
        self
    }

    fn option(&mut self, value: Option<u32>) -> &mut Self {
        match value {
            None => self.u8(0),
            Some(value) => self.u8(1).u32(value),
        }
    }
}

struct Decoder<'a>(&'a [u8]);

impl Decoder<'_> {
    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.u32()? as usize;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first.to_vec())
    }

    fn list(&mut self) -> Option<Vec<Vec<u8>>> {
        let items = self.u32()?;
        (0..items).map(|_| self.bytes()).collect()
    }

    fn option(&mut self) -> Option<Option<u32>> {
        match self.u8()? {
            0 => Some(None),
            _ => Some(Some(self.u32()?)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn request(verb: Verb) -> Request {
        Request {
            library: b"/usr/lib/liblxc.so.1".to_vec(),
            lxcpath: b"/srv/lxc".to_vec(),
            name: b"m1".to_vec(),
            millis: 1500,
            edits: vec![
                Edit::Set {
                    key: b"lxc.uts.name".to_vec(),
                    value: b"m1".to_vec(),
                },
                Edit::Clear {
                    key: b"lxc.net".to_vec(),
                },
            ],
            verb,
        }
    }

    #[test]
    fn every_request_survives_and_no_cut_is_accepted() {
        let attach = Attach {
            argv: vec![b"/bin/sh".to_vec(), b"-c".to_vec()],
            env: vec![b"A=b".to_vec()],
            keep_env: true,
            cwd: b"/".to_vec(),
            uid: Some(7),
            gid: None,
        };
        let verbs = [
            Verb::Check,
            Verb::State,
            Verb::Start {
                argv: vec![b"/init".to_vec()],
            },
            Verb::Shutdown,
            Verb::Stop,
            Verb::Freeze,
            Verb::Unfreeze,
            Verb::Wait {
                state: b"STOPPED".to_vec(),
            },
            Verb::WaitGone,
            Verb::Attach(attach),
            Verb::Create,
            Verb::Destroy,
        ];
        for verb in verbs {
            let request = request(verb);
            let bytes = request.encode();
            assert_eq!(Request::decode(&bytes).as_ref(), Some(&request));
            for cut in 0..bytes.len() {
                assert_eq!(
                    Request::decode(&bytes[..cut]),
                    None,
                    "accepted {cut} bytes of {request:?}"
                );
            }
        }
    }

    #[test]
    fn every_event_survives_and_no_cut_is_accepted() {
        let failures = [
            Failure::Library(b"no".to_vec()),
            Failure::NotLoaded,
            Failure::Edit(3),
            Failure::NotDefined,
            Failure::Running(b"RUNNING".to_vec()),
            Failure::NotRunning,
            Failure::Call(-1),
            Failure::Internal(b"?".to_vec()),
        ];
        let replies = [
            Reply::Done,
            Reply::State(b"FROZEN".to_vec()),
            Reply::Exited(256),
            Reply::ExecFailed(2),
            Reply::TimedOut(b"RUNNING".to_vec()),
        ];
        let replies = replies
            .into_iter()
            .chain(failures.into_iter().map(Reply::Failed))
            .map(Event::Done);
        for event in replies.chain([
            Event::Ready,
            Event::Populate {
                rootfs: b"/srv/lxc/m1/rootfs".to_vec(),
            },
        ]) {
            let bytes = event.encode();
            assert_eq!(Event::decode(&bytes).as_ref(), Some(&event));
            for cut in 0..bytes.len() {
                assert_eq!(
                    Event::decode(&bytes[..cut]),
                    None,
                    "accepted {cut} bytes of {event:?}"
                );
            }
        }
    }

    #[test]
    fn frames_split_where_they_end() {
        let mut buffer = Vec::new();
        send(&mut buffer, b"one").unwrap();
        send(&mut buffer, b"").unwrap();
        buffer.extend_from_slice(&[9, 0, 0, 0, 1]);
        assert_eq!(split(&mut buffer).unwrap().unwrap(), b"one");
        assert_eq!(split(&mut buffer).unwrap().unwrap(), b"");
        assert_eq!(split(&mut buffer).unwrap(), None);
        assert_eq!(buffer.len(), 5);
        let mut huge = u32::MAX.to_le_bytes().to_vec();
        assert!(split(&mut huge).is_err());
    }
}
