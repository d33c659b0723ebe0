//! What the library and its helper process say to each other, as bytes.
//!
//! Both sides are built from this file in one go, so there is no version. A
//! frame is a `u32` length and that many bytes; numbers are little-endian.
#![allow(dead_code, reason = "each side writes what the other reads")]

use std::io::{self, Read, Write};

/// Longest frame either side accepts.
const LIMIT: usize = 64 << 20;

/// Something that goes over the wire.
trait Wire: Sized {
    fn put(&self, to: &mut Vec<u8>);
    fn take(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let (first, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_le_bytes(*first))
            }
        }
    )*};
}

numbers!(u8, u32, i32, u64, i64);

impl Wire for bool {
    fn put(&self, to: &mut Vec<u8>) {
        u8::from(*self).put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        u8::take(from).map(|byte| byte != 0)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(match bool::take(from)? {
            true => Some(T::take(from)?),
            false => None,
        })
    }
}

/// Bytes of a path, a name or a text.
pub(crate) type Bytes = Vec<u8>;

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).put(to);
        self.iter().for_each(|item| item.put(to));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let items = u32::take(from)?;
        (0..items).map(|_| T::take(from)).collect()
    }
}

macro_rules! wire_struct {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct $name {
            $($(#[$doc])* pub(crate) $field: $type,)*
        }

        impl Wire for $name {
            fn put(&self, to: &mut Vec<u8>) {
                $(self.$field.put(to);)*
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Wire::take(from)?,)* })
            }
        }
    };
}

/// An enum whose variants go as one byte and their fields.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $tag:literal $variant:ident $({ $($field:ident: $type:ty),* $(,)? })?,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$doc])* $variant $({ $($field: $type),* })?,)*
        }

        impl Wire for $name {
            fn put(&self, to: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $({ $($field),* })? => {
                        let tag: u8 = $tag;
                        tag.put(to);
                        $($($field.put(to);)*)?
                    })*
                }
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                Some(match u8::take(from)? {
                    $($tag => Self::$variant $({ $($field: Wire::take(from)?),* })?,)*
                    _ => return None,
                })
            }
        }
    };
}

wire_struct! {
    /// One call into liblxc.
    Request {
        /// File of the liblxc to load.
        library: Bytes,
        lxcpath: Bytes,
        name: Bytes,
        /// Milliseconds the helper gives itself where it waits.
        millis: u64,
        /// Changes to the configuration in memory, made before the call.
        edits: Vec<Edit>,
        verb: Verb,
    }
}

wire_enum! {
    /// A change to a container's configuration in memory.
    Edit {
        0 Set { key: Bytes, value: Bytes },
        1 Clear { key: Bytes },
    }
}

wire_enum! {
    /// What the helper is to do once it has the container.
    #[derive(Default)]
    Verb {
        /// Nothing more: only shows whether the configuration loads.
        #[default]
        0 Check,
        1 State,
        /// Daemonized start; no arguments means the configured init.
        2 Start { argv: Vec<Bytes> },
        /// Halt signal, then wait until the container is gone.
        3 Shutdown,
        /// Kill, then wait until the container is gone.
        4 Stop,
        5 Freeze,
        6 Unfreeze,
        7 Wait { state: Bytes },
        /// Wait until neither state nor monitor nor processes are left.
        8 WaitGone,
        9 Attach { attach: Attach },
        /// Makes a container on a new Btrfs subvolume.
        10 Create,
        11 Destroy,
        /// Snapshots first, then the container.
        12 DestroyAll,
        /// Reboot signal, then wait until another init runs.
        13 Reboot,
        /// Start in the foreground: the helper is the monitor until the end.
        14 Foreground { argv: Vec<Bytes> },
        15 Snapshot,
        16 SnapshotDestroy { snapshot: Bytes },
        17 Restore { restore: Restore },
        18 Clone { clone: Clone },
        19 Template { template: Template },
        20 CgroupSet { key: Bytes, value: Bytes },
        21 Interfaces,
        22 Addresses { interface: Option<Bytes>, family: Option<Bytes>, scope: i32 },
        23 AttachInterface { device: Bytes, inside: Option<Bytes> },
        24 DetachInterface { device: Bytes, outside: Option<Bytes> },
        25 AddDevice { device: Bytes },
        26 RemoveDevice { device: Bytes },
        27 Mount { mount: Mount },
        28 Umount { target: Bytes, flags: u64 },
        29 Checkpoint { dir: Bytes, stop: bool, verbose: bool },
        30 Resume { dir: Bytes, verbose: bool },
    }
}

wire_struct! {
    /// A command to run inside a container; its stdio are the helper's
    /// [`STDIO`] descriptors.
    Attach {
        argv: Vec<Bytes>,
        env: Vec<Bytes>,
        keep_env: bool,
        /// Variables of the helper's environment that are kept if not all are.
        keep: Vec<Bytes>,
        cwd: Bytes,
        uid: Option<u32>,
        gid: Option<u32>,
        groups: Option<Vec<u32>>,
        /// Bits of `CLONE_NEW*`; all of the container's without.
        namespaces: Option<i32>,
        personality: Option<i64>,
        /// Taken from and added to `LXC_ATTACH_DEFAULT`.
        flags_off: i32,
        flags_on: i32,
        label: Option<Bytes>,
    }
}

wire_struct! {
    /// Puts a root file system back to a snapshot.
    Restore {
        /// Subvolume of the snapshot.
        from: Bytes,
        rootfs: Bytes,
        /// Where the new subvolume grows and the old one goes away.
        aside: Bytes,
        config_file: Bytes,
        config: Bytes,
    }
}

wire_struct! {
    /// Makes another container of this one.
    Clone {
        name: Bytes,
        lxcpath: Bytes,
        flags: i32,
        backing: Option<Bytes>,
        data: Option<Bytes>,
        size: u64,
        hook_arguments: Vec<Bytes>,
    }
}

wire_struct! {
    /// Creates a container by a template of liblxc.
    Template {
        template: Option<Bytes>,
        backing: Bytes,
        dir: Option<Bytes>,
        filesystem: Option<Bytes>,
        size: u64,
        lvm_group: Option<Bytes>,
        lvm_volume: Option<Bytes>,
        lvm_pool: Option<Bytes>,
        zfs_root: Option<Bytes>,
        argv: Vec<Bytes>,
    }
}

wire_struct! {
    /// What the library answers to [`Event::Populate`].
    Filled {
        /// Whether to go on; else everything is taken back.
        go_on: bool,
        /// Files that are not to belong to the root inside; used where liblxc
        /// runs the template among the ids of the container.
        owners: Vec<Owner>,
    }
}

wire_struct! {
    /// To whom a file of a new root file system is to belong inside.
    Owner {
        /// Below the root file system.
        path: Bytes,
        user: u32,
        group: u32,
    }
}

wire_struct! {
    /// A mount inside a running container.
    Mount {
        source: Option<Bytes>,
        target: Bytes,
        kind: Option<Bytes>,
        flags: u64,
        data: Option<Bytes>,
    }
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

wire_enum! {
    /// What the helper says.
    Event {
        /// liblxc and the container are loaded: what takes time from now on is
        /// the call itself.
        0 Ready,
        /// `create` made the (empty) root file system; the helper waits for a
        /// [`Filled`].
        1 Populate { rootfs: Bytes },
        /// The attached command runs; from now on each byte is a signal for it.
        2 Attached { pid: i32 },
        /// The answer; the last thing said.
        3 Done { reply: Reply },
    }
}

wire_enum! {
    /// How a call went.
    Reply {
        0 Done,
        /// A state, as liblxc spells it.
        1 State { state: Bytes },
        /// Wait status of an attached command, or of a container's init.
        2 Exited { status: i32 },
        /// The attached command could not be executed; errno.
        3 ExecFailed { errno: i32 },
        /// The helper's own time was over. The state it saw last.
        4 TimedOut { state: Bytes },
        5 Failed { failure: Failure },
        /// What liblxc counted or listed.
        6 Number { number: i32 },
        7 List { list: Vec<Bytes> },
    }
}

wire_enum! {
    /// What did not work.
    Failure {
        /// liblxc could not be loaded, or is too old.
        0 Library { text: Bytes },
        /// `lxc_container_new` returned null.
        1 NotLoaded,
        /// The edit with this index was rejected.
        2 Edit { index: u32 },
        /// There is no such container.
        3 NotDefined,
        /// It runs, but must not; the state.
        4 Running { state: Bytes },
        /// It does not run, but must.
        5 NotRunning,
        /// The call said no; its value.
        6 Call { code: i32 },
        /// The helper itself met an error.
        7 Internal { text: Bytes },
        /// A system call on a file failed; errno.
        8 File { what: Bytes, errno: i32 },
    }
}

impl Request {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

impl Filled {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

impl Event {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }
}

fn encode(value: &impl Wire) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.put(&mut bytes);
    bytes
}

fn decode<T: Wire>(mut bytes: &[u8]) -> Option<T> {
    let value = T::take(&mut bytes)?;
    bytes.is_empty().then_some(value)
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

    /// Everything of the enum, by decoding each tag with fields that are zero.
    fn all<T: Wire>() -> Vec<T> {
        let each = |tag: u8| decode_prefix(&[&[tag][..], &[0; 256]].concat());
        (0..=u8::MAX).map_while(each).collect()
    }

    fn decode_prefix<T: Wire>(mut bytes: &[u8]) -> Option<T> {
        T::take(&mut bytes)
    }

    fn survives<T: Wire + PartialEq + std::fmt::Debug>(value: &T) {
        let bytes = encode(value);
        assert_eq!(decode(&bytes).as_ref(), Some(value));
        for cut in 0..bytes.len() {
            assert_eq!(
                decode::<T>(&bytes[..cut]),
                None,
                "accepted {cut} of {value:?}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode::<T>(&longer), None);
    }

    #[test]
    fn every_request_survives_and_no_cut_is_accepted() {
        let attach = Attach {
            argv: vec![b"/bin/sh".to_vec(), b"-c".to_vec()],
            keep_env: true,
            uid: Some(7),
            groups: Some(vec![1, 2]),
            personality: Some(-1),
            ..Attach::default()
        };
        let verbs = all::<Verb>();
        assert_eq!(verbs.len(), 31);
        for verb in verbs.into_iter().chain([
            Verb::Attach { attach },
            Verb::Start {
                argv: vec![b"/init".to_vec()],
            },
        ]) {
            survives(&request(verb));
        }
    }

    #[test]
    fn every_event_survives_and_no_cut_is_accepted() {
        all::<Event>().iter().for_each(survives);
        all::<Reply>().iter().for_each(survives);
        all::<Failure>().iter().for_each(survives);
        survives(&Reply::List {
            list: vec![b"eth0".to_vec(), Vec::new()],
        });
        survives(&Failure::Call { code: -1 });
        survives(&Filled {
            go_on: true,
            owners: vec![Owner {
                path: b"etc/shadow".to_vec(),
                user: 0,
                group: 42,
            }],
        });
    }

    #[test]
    fn frames_come_in_pieces() {
        let mut stream = Vec::new();
        send(&mut stream, b"one").unwrap();
        send(&mut stream, b"").unwrap();
        assert_eq!(receive(&mut &stream[..]).unwrap(), b"one");
        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        for byte in stream {
            buffer.push(byte);
            frames.extend(split(&mut buffer).unwrap());
        }
        assert_eq!(frames, [b"one".to_vec(), Vec::new()]);
        let mut much = u32::MAX.to_le_bytes().to_vec();
        assert!(split(&mut much).is_err());
        assert!(receive(&mut &much[..]).is_err());
    }
}
