//! Receiving a stream: making the subvolumes that it describes.

mod apply;
mod decompress;

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{Mode, fstatat};

use crate::error::{Error, ErrorKind, Request, Result};
use crate::filesystem::sync;
use crate::list::{by_uuid, open_root};
use crate::progress::Progress;
use crate::stream::{self, Command, Reader, check, checksum};
use crate::subvolume::{Access, DIRECTORY, Subvolume, SubvolumeInfo, target, target_in};
use crate::types::{Bytes, Generation, SubvolId, Uuid, check_name};
use crate::uapi;

use apply::{Failed, Rules, Target};

const OP: &str = "receive";
/// Names of subvolumes that are not complete begin with this; the UUID follows.
const PARTIAL: &str = ".receiving-";
/// Extended attribute of a partial result: how far it got.
const STATE: &std::ffi::CStr = c"user.btrfs-ops.receive";

/// How to receive. By default everything that a stream can hold, under the
/// names that it gives, and nothing is left of a result that is not complete.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ReceiveOptions {
    name: Option<OsString>,
    rules: Rules,
    resume: bool,
    progress: Progress,
}

impl ReceiveOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the subvolume this name, and not the sender's. The stream must hold
    /// one subvolume only.
    pub fn name(mut self, name: impl AsRef<OsStr>) -> Self {
        self.name = Some(name.as_ref().to_owned());
        self
    }

    /// Refuses a stream with device nodes, for streams from somewhere else.
    pub fn without_devices(mut self) -> Self {
        self.rules.refuse_devices = true;
        self
    }

    /// Keeps a partial result when the stream ends early or is stopped, and goes
    /// on with one that is there: see [`receive`], "Going on".
    pub fn resume(mut self) -> Self {
        self.resume = true;
        self
    }

    /// Counts and stops through `progress`.
    pub fn progress(mut self, progress: &Progress) -> Self {
        self.progress = progress.clone();
        self
    }

    /// Decompresses even where the kernel would take compressed content.
    #[doc(hidden)]
    pub fn always_decompress(mut self) -> Self {
        self.rules.always_decompress = true;
        self
    }
}

/// What an incremental stream was built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReceivedOnto {
    /// The subvolume here that was taken for the sender's parent.
    pub id: SubvolId,
    /// It was received with just the transaction that the stream names, or is
    /// the sender's parent itself. False: it has the right origin, and came
    /// another way.
    pub exact: bool,
}

/// A subvolume that was received: complete, read-only, durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ReceivedSubvolume {
    /// Its name in the directory.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub name: OsString,
    /// Its id here.
    pub id: SubvolId,
    /// The UUID that it now has as received UUID.
    pub origin: Option<Uuid>,
    /// The sender's transaction.
    pub stransid: Generation,
    /// What it was built on; `None` for a full stream.
    pub parent: Option<ReceivedOnto>,
    /// Commands that were not done again, because a partial result had them.
    pub resumed_after: u64,
}

/// The result of [`receive`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Received {
    /// The subvolumes, in the order of the stream.
    pub subvolumes: Vec<ReceivedSubvolume>,
    /// Length of the stream.
    pub bytes: Bytes,
    /// Number of its commands.
    pub commands: u64,
    /// Compressed writes that were decompressed first, because the kernel did
    /// not take them.
    pub decompressed: u64,
    /// Commands without an effect (inode flags).
    pub ignored: u64,
}

/// A result that is not complete, from [`partial_receives`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Partial {
    /// Its name in the directory.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub name: OsString,
    /// The UUID of what was being received.
    pub origin: Option<Uuid>,
    /// It can be gone on with.
    pub resumable: bool,
    /// A receive holds it now.
    pub in_use: bool,
}

/// Makes the subvolumes of `stream` in the directory `into`.
///
/// A subvolume is filled under the name `.receiving-UUID`. When all of it is
/// there it is written out, gets its received UUID, becomes read-only, and only
/// then gets its own name: what has that name is complete and durable. If
/// anything fails, the partial result is deleted; one that a crash left is
/// deleted by the next receive of the same snapshot, see also
/// [`partial_receives`].
///
/// # Confinement
///
/// Nothing outside of the new subvolumes is changed, whatever the stream says:
/// every path is resolved below the root of the subvolume that is being filled
/// (`openat2`), without `..`, symbolic links, magic links and mounts. Only
/// regular files are opened. What a stream may make inside (owners, modes,
/// devices, extended attributes) is what the caller may make;
/// [`ReceiveOptions::without_devices`] refuses device nodes.
///
/// # Incremental streams
///
/// The parent is found by its received UUID, else by its own, on the whole file
/// system and wherever it is mounted or not. Only read-only subvolumes count: a
/// writable one may have been changed.
///
/// # Going on
///
/// With [`ReceiveOptions::resume`] a partial result is kept when the stream ends
/// early, cannot be read or is stopped, and notes after which command. The same
/// stream, from its beginning, then goes on behind that command: what is there
/// is compared by a checksum and not done again. That saves writing, not the
/// transfer; a stream cannot be entered in the middle, because its names are
/// those that the commands before have made. A crash of the machine or the
/// process leaves no note, and the partial result is then begun anew.
///
/// # Errors
///
/// [`ErrorKind::BadStream`] for a stream that breaks the format or wants out;
/// [`ErrorKind::MissingParent`]; [`ErrorKind::AlreadyExists`] if the name is
/// taken, before anything is done; [`ErrorKind::Busy`] while another receive of
/// the same snapshot runs; [`ErrorKind::Cancelled`]; [`ErrorKind::NoSpace`],
/// [`ErrorKind::ReadOnly`] and others of the system calls, with the command.
/// Subvolumes that the stream completed before the error stay.
///
/// # Privileges
///
/// Root, in general: owners, devices, trusted attributes. Without it as far as
/// the stream asks for nothing that the caller may not do; incremental streams
/// need `CAP_SYS_ADMIN` and `CAP_DAC_READ_SEARCH` for finding the parent, and
/// deleting a partial result needs what [`delete`](crate::delete) needs.
///
/// # Kernel support
///
/// Linux 5.6 (`openat2`). `/proc` must be mounted.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use btrfs_ops::{ReceiveOptions, receive};
///
/// let into = std::fs::File::open("/srv/backup")?;
/// let stream = std::fs::File::open("/backup/app.1.stream")?;
/// for subvolume in receive(&into, stream, &ReceiveOptions::new())?.subvolumes {
///     println!("{} from {:?}", subvolume.name.display(), subvolume.origin);
/// }
/// # Ok(())
/// # }
/// ```
#[doc(
    alias = "BTRFS_IOC_SET_RECEIVED_SUBVOL",
    alias = "BTRFS_IOC_ENCODED_WRITE"
)]
pub fn receive(into: impl AsFd, stream: impl Read, options: &ReceiveOptions) -> Result<Received> {
    let into = into.as_fd();
    if let Some(name) = &options.name {
        check_name(OP, name)?;
    }
    match crate::is_btrfs(into) {
        Some(true) => {}
        _ => {
            let text = "not on a Btrfs file system";
            return Err(Error::message(ErrorKind::NotBtrfs, OP, target(into), text));
        }
    }
    let mut reader = Reader::new(stream);
    let mut received = Received::default();
    let mut session: Option<Session<'_>> = None;
    loop {
        let step = step(into, &mut reader, options, &mut received, &mut session);
        match step {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                return Err(match session.take() {
                    Some(session) => session.give_up(error, options.resume),
                    None => error,
                });
            }
        }
    }
    received.bytes = Bytes(reader.position());
    // The last names.
    sync(into)?;
    Ok(received)
}

/// One command; false at the end of the stream.
fn step<'i, R: Read>(
    into: BorrowedFd<'i>,
    reader: &mut Reader<R>,
    options: &ReceiveOptions,
    received: &mut Received,
    session: &mut Option<Session<'i>>,
) -> Result<bool> {
    if options.progress.is_cancelled() {
        let text = "stopped by the caller";
        return Err(Error::message(ErrorKind::Cancelled, OP, target(into), text));
    }
    let at = reader.position();
    options.progress.set(at, received.commands);
    // The sum belongs to the command, which borrows from the reader.
    let (command, sum) = reader.next_with_checksum()?;
    let Some(command) = command else {
        return Ok(false);
    };
    check(&command, session.is_some() || command == Command::End)
        .map_err(|text| stream::bad(at, text))?;
    received.commands += 1;
    match command {
        Command::Subvol { .. } | Command::Snapshot { .. } | Command::End => {
            if let Some(done) = session.take() {
                received.finish(done)?;
            }
            if command == Command::End {
                return Ok(true);
            }
            if options.name.is_some() && !received.subvolumes.is_empty() {
                let text = "the stream has more than one subvolume, and one name was given";
                return Err(stream::bad(at, text));
            }
            *session = Some(Session::begin(into, &command, options, sum)?);
        }
        _ => {
            if let Some(session) = session {
                session.apply(&command, sum)?;
            }
        }
    }
    Ok(true)
}

impl Received {
    fn finish(&mut self, session: Session<'_>) -> Result<()> {
        let (decompressed, ignored) = (session.target.decompressed, session.target.ignored);
        self.subvolumes.push(session.finish()?);
        self.decompressed += decompressed;
        self.ignored += ignored;
        Ok(())
    }
}

/// How far a partial result got: the number of commands after the first one,
/// and their checksums chained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    commands: u64,
    chain: u64,
}

impl State {
    fn encode(self) -> [u8; 17] {
        let mut bytes = [1; 17];
        bytes[1..9].copy_from_slice(&self.commands.to_le_bytes());
        bytes[9..].copy_from_slice(&self.chain.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (1, rest) = bytes.split_first().map(|(first, rest)| (*first, rest))? else {
            return None;
        };
        let (commands, chain) = rest.split_at_checked(8)?;
        Some(Self {
            commands: u64::from_le_bytes(commands.try_into().ok()?),
            chain: u64::from_le_bytes(chain.try_into().ok()?),
        })
    }
}

/// One subvolume that is being received.
struct Session<'i> {
    into: BorrowedFd<'i>,
    name: OsString,
    partial: OsString,
    origin: Option<Uuid>,
    stransid: Generation,
    parent: Option<ReceivedOnto>,
    target: Target,
    /// Keeps others from taking the partial result for a leftover.
    _lock: Flock<OwnedFd>,
    state: State,
    /// What is there already, until it is reached.
    there: Option<State>,
    resumed_after: u64,
}

impl<'i> Session<'i> {
    fn begin(
        into: BorrowedFd<'i>,
        command: &Command<'_>,
        options: &ReceiveOptions,
        sum: u32,
    ) -> Result<Self> {
        let (path, origin, stransid, base) = match *command {
            Command::Subvol {
                path,
                uuid,
                ctransid,
            } => (path, uuid, ctransid, None),
            Command::Snapshot {
                path,
                uuid,
                ctransid,
                clone_uuid,
                clone_ctransid,
            } => (path, uuid, ctransid, Some((clone_uuid, clone_ctransid))),
            _ => return Err(stream::bad(0, "a subvolume should begin here")),
        };
        let name = options.name.as_deref().unwrap_or(path.as_os_str());
        check_name(OP, name)?;
        let shown = || target_in(into, name);
        match fstatat(into, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => {}
            Ok(_) => return Err(Error::os(OP, shown(), Errno::EEXIST)),
            Err(errno) => return Err(Error::os(OP, shown(), errno)),
        }
        let partial = partial_name(origin);
        let parent = match base {
            None => None,
            Some((uuid, transid)) => Some(find_parent(into, uuid, transid, &shown)?),
        };
        let left = left_over(into, &partial)?;
        let there = match &left {
            Some((fd, _)) if options.resume => uapi::xattr_of::<17>(fd.as_fd(), STATE)
                .ok()
                .and_then(|bytes| State::decode(&bytes)),
            _ => None,
        };
        let (root, lock) = match (left, there) {
            (Some(left), Some(_)) => left,
            (left, _) => {
                if left.is_some() {
                    drop(left);
                    remove(into, &partial)?;
                }
                let made = match &parent {
                    None => Subvolume::create(into, &partial)?,
                    Some((_, source)) => source.snapshot(into, &partial, Access::ReadWrite)?,
                };
                let (fd, lock) = left_over(into, &partial)?
                    .ok_or_else(|| Error::os(OP, target_in(into, &partial), Errno::ENOENT))?;
                drop(made);
                (fd, lock)
            }
        };
        let source = parent.as_ref().map(|(_, source)| source.as_fd());
        let target = Target::new(root, origin, source, options.rules);
        Ok(Self {
            into,
            name: name.to_owned(),
            partial,
            origin,
            stransid,
            parent: parent.map(|(parent, _)| parent),
            target,
            _lock: lock,
            state: State {
                commands: 0,
                chain: checksum(0, sum),
            },
            there,
            resumed_after: there.map_or(0, |state| state.commands),
        })
    }

    fn apply(&mut self, command: &Command<'_>, sum: u32) -> Result<()> {
        let chain = checksum(self.state.chain, sum);
        if self.there.is_none_or(|there| there.commands == 0) {
            self.compare(self.state)?;
            self.do_it(command)?;
        } else {
            self.target.skip(command);
        }
        self.state = State {
            commands: self.state.commands + 1,
            chain,
        };
        if self
            .there
            .is_some_and(|there| there.commands == self.state.commands)
        {
            self.compare(self.state)?;
        }
        Ok(())
    }

    /// Has the stream been the one that the partial result is of?
    fn compare(&mut self, reached: State) -> Result<()> {
        match self.there.take() {
            Some(there) if there != reached => {
                let text = "the stream is not the one that the partial result is of; it is \
                            deleted, receive again";
                Err(Error::message(
                    ErrorKind::BadStream,
                    OP,
                    target_in(self.into, &self.name),
                    text,
                ))
            }
            _ => Ok(()),
        }
    }

    fn do_it(&mut self, command: &Command<'_>) -> Result<()> {
        let into = self.into;
        let mut find = |uuid: Uuid| {
            let none = || {
                let text = format!("content is shared with {uuid}, which is not here");
                Error::message(ErrorKind::MissingParent, OP, target(into), text)
            };
            let (id, _) = find_unchanged(into, uuid, None)?.ok_or_else(none)?;
            open_root(into, id)
        };
        self.target.apply(command, &mut find).map_err(|failed| {
            let shown = format!("{}: {command}", target_in(self.into, &self.name));
            match failed {
                Failed::Os(errno) => Error::os(OP, shown, errno).explained(),
                Failed::Refused(text) => Error::message(ErrorKind::BadStream, OP, shown, text),
            }
        })
    }

    /// Content first, so that a received UUID is never on disk without it.
    fn finish(self) -> Result<ReceivedSubvolume> {
        let Self {
            into,
            name,
            partial,
            origin,
            stransid,
            parent,
            target,
            there,
            ..
        } = self;
        let fail = |error: Error| {
            // Nothing to go on with: all commands are done.
            let note = remove(into, &partial)
                .err()
                .map(|_| left_note(into, &partial));
            match note {
                Some(note) => error.noted(note),
                None => error,
            }
        };
        let _lock = self._lock;
        let root = match target.finish() {
            Ok(root) => root,
            Err(errno) => {
                drop(_lock);
                return Err(fail(Error::os(OP, target_in(into, &name), errno)));
            }
        };
        let complete = || -> Result<SubvolId> {
            if there.is_some() {
                let text = "the stream is shorter than the one that the partial result is of";
                return Err(Error::message(
                    ErrorKind::BadStream,
                    OP,
                    target_in(into, &name),
                    text,
                ));
            }
            match uapi::remove_xattr_of(root.as_fd(), STATE) {
                Ok(()) | Err(Errno::ENODATA) => {}
                Err(errno) => return Err(Error::os(OP, target_in(into, &partial), errno)),
            }
            sync(&root)?;
            let uuid = origin.map_or([0; 16], |uuid| *uuid.as_bytes());
            uapi::set_received(root.as_fd(), uuid, stransid.0).map_err(|errno| {
                Error::ioctl(Request::SetReceived, target_in(into, &partial), into, errno)
            })?;
            let subvolume = Subvolume::from_fd(
                root.try_clone()
                    .map_err(|error| Error::io(OP, target_in(into, &partial), error))?,
            )?;
            subvolume.make_read_only()?;
            let flags = RenameFlags::RENAME_NOREPLACE;
            renameat2(into, partial.as_os_str(), into, name.as_os_str(), flags)
                .map_err(|errno| Error::os(OP, target_in(into, &name), errno))?;
            subvolume.id()
        };
        let id = match complete() {
            Ok(id) => id,
            Err(error) => {
                drop(root);
                drop(_lock);
                return Err(fail(error));
            }
        };
        Ok(ReceivedSubvolume {
            name,
            id,
            origin,
            stransid,
            parent,
            resumed_after: self.resumed_after,
        })
    }

    /// Deletes the partial result, or keeps it to go on with.
    fn give_up(self, error: Error, resume: bool) -> Error {
        // When it just ends early, what came was right.
        let keep = resume && (error.kind() != ErrorKind::BadStream || error.is_early_end());
        // While what is there has not been reached, its note still holds.
        let noted = keep
            && (self.there.is_some()
                || uapi::set_xattr_of(self.target.root(), STATE, &self.state.encode()).is_ok());
        let (into, partial) = (self.into, self.partial.clone());
        drop(self);
        if noted {
            return error.noted(format!("kept to go on with: {}", target_in(into, &partial)));
        }
        match remove(into, &partial) {
            Ok(()) => error,
            Err(_) => error.noted(left_note(into, &partial)),
        }
    }
}

fn left_note(into: BorrowedFd<'_>, partial: &OsStr) -> String {
    format!("a partial result is left: {}", target_in(into, partial))
}

fn partial_name(origin: Option<Uuid>) -> OsString {
    match origin {
        Some(uuid) => format!("{PARTIAL}{uuid}").into(),
        None => format!("{PARTIAL}unknown").into(),
    }
}

/// Opens and locks a partial result, if there is one.
fn left_over(into: BorrowedFd<'_>, partial: &OsStr) -> Result<Option<(OwnedFd, Flock<OwnedFd>)>> {
    let shown = || target_in(into, partial);
    let wrap = |errno| Error::os(OP, shown(), errno);
    let open = || openat(into, partial, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty());
    let fd = match open() {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(wrap(errno)),
    };
    let lock = open().map_err(wrap)?;
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            let text = "another receive of the same snapshot is at it";
            Error::message(ErrorKind::Busy, OP, shown(), text)
        } else {
            wrap(errno)
        }
    })?;
    Ok(Some((Subvolume::from_fd(fd)?.into(), lock)))
}

/// Deletes a partial result, which nobody can have mounted on purpose.
fn remove(into: BorrowedFd<'_>, partial: &OsStr) -> Result<()> {
    uapi::snap_destroy(into, partial.as_bytes())
        .map_err(|errno| Error::ioctl(Request::Delete, target_in(into, partial), into, errno))
}

/// The read-only subvolume that stands for the sender's `uuid`.
fn find_unchanged(
    fs: BorrowedFd<'_>,
    uuid: Uuid,
    transid: Option<Generation>,
) -> Result<Option<(SubvolId, bool)>> {
    let read_only = |found: Vec<SubvolumeInfo>| {
        let found = found.into_iter();
        found.filter(|info| info.access == Access::ReadOnly)
    };
    let received: Vec<_> = read_only(by_uuid(fs, uuid, true)?).collect();
    let exact = received
        .iter()
        .find(|info| transid.is_none_or(|transid| info.stransid == Some(transid)));
    if let Some(info) = exact {
        return Ok(Some((info.id, true)));
    }
    if let Some(info) = received.first() {
        return Ok(Some((info.id, false)));
    }
    let own = read_only(by_uuid(fs, uuid, false)?).next();
    Ok(own.map(|info| {
        let exact = transid.is_none_or(|transid| info.ctransid == transid);
        (info.id, exact)
    }))
}

fn find_parent(
    into: BorrowedFd<'_>,
    uuid: Option<Uuid>,
    transid: Generation,
    shown: &dyn Fn() -> String,
) -> Result<(ReceivedOnto, Subvolume)> {
    let missing = |text: String| Error::message(ErrorKind::MissingParent, OP, shown(), text);
    let uuid = uuid.ok_or_else(|| missing("the stream's parent has no uuid".to_owned()))?;
    let Some((id, exact)) = find_unchanged(into, uuid, Some(transid))? else {
        let writable = by_uuid(into, uuid, true)?.first().map(|info| info.id);
        return Err(missing(match writable {
            Some(id) => format!(
                "the parent {uuid} is subvolume {id}, which was made writable and may have changed"
            ),
            None => format!("no subvolume has or was received from the parent's uuid {uuid}"),
        }));
    };
    let fd = open_root(into, id)?;
    Ok((ReceivedOnto { id, exact }, Subvolume::from_fd(fd)?))
}

/// Lists results in the directory `into` that are not complete: of a receive
/// that runs, was stopped with [`ReceiveOptions::resume`], or died.
///
/// # Errors
///
/// Those of reading the directory.
pub fn partial_receives(into: impl AsFd) -> Result<Vec<Partial>> {
    let into = into.as_fd();
    let wrap = |errno| Error::os("list partial results", target(into), errno);
    let mut directory = Dir::openat(into, ".", DIRECTORY, Mode::empty()).map_err(wrap)?;
    let mut found = Vec::new();
    for entry in directory.iter() {
        let entry = entry.map_err(wrap)?;
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        let Some(origin) = name.to_str().and_then(|name| name.strip_prefix(PARTIAL)) else {
            continue;
        };
        let (resumable, in_use) = match left_over(into, &name) {
            Ok(Some((fd, _lock))) => (uapi::xattr_of::<17>(fd.as_fd(), STATE).is_ok(), false),
            Ok(None) => continue,
            Err(error) if error.kind() == ErrorKind::Busy => (false, true),
            Err(error) if error.kind() == ErrorKind::NotSubvolume => continue,
            Err(error) => return Err(error),
        };
        found.push(Partial {
            origin: origin.parse().ok(),
            name,
            resumable,
            in_use,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Deletes results in the directory `into` that are not complete, but for those
/// that are in use; returns what was deleted.
///
/// # Errors
///
/// As [`partial_receives`] and [`delete`](crate::delete).
pub fn remove_partial_receives(into: impl AsFd) -> Result<Vec<Partial>> {
    let into = into.as_fd();
    let mut removed = partial_receives(into)?;
    removed.retain(|partial| !partial.in_use);
    for partial in &removed {
        remove(into, &partial.name)?;
    }
    Ok(removed)
}

/// What a subvolume is on its sender's side: the UUID that a later stream names
/// when it builds on it.
#[must_use]
pub fn origin(info: &SubvolumeInfo) -> Option<Uuid> {
    info.received_uuid.or(info.uuid)
}

impl Subvolume {
    /// Opens the subvolume `id` of the file system of `fs`. No path to it is
    /// needed: it may be outside of what is mounted.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`].
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_ADMIN` and `CAP_DAC_READ_SEARCH`.
    #[doc(alias = "open_by_handle_at")]
    pub fn open_by_id(fs: impl AsFd, id: SubvolId) -> Result<Self> {
        Self::from_fd(open_root(fs.as_fd(), id)?)
    }

    /// Notes where this subvolume comes from, as a receive does. The subvolume
    /// must be writable. For relinking a copy that was made by other means and
    /// is known to be equal.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReadOnly`].
    ///
    /// # Privileges
    ///
    /// The owner of the subvolume, or `CAP_FOWNER`.
    #[doc(alias = "BTRFS_IOC_SET_RECEIVED_SUBVOL")]
    pub fn set_received(&self, origin: Uuid, stransid: Generation) -> Result<()> {
        let fd = self.as_fd();
        uapi::set_received(fd, *origin.as_bytes(), stransid.0)
            .map(drop)
            .map_err(|errno| Error::ioctl(Request::SetReceived, target(fd), fd, errno))
    }
}
