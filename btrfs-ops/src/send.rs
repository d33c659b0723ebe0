//! Sending a snapshot: the kernel writes the stream, on a thread of its own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{pipe2, write};

use crate::error::{Error, ErrorKind, Request, Result};
use crate::progress::Progress;
use crate::stream::{Command, Reader, Version};
use crate::subvolume::{Access, Subvolume, target};
use crate::types::{Bytes, SubvolId};
use crate::uapi;

/// What to send, beside the snapshot itself. By default everything in it, in
/// version 1, which every receiver takes.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SendOptions {
    parent: Option<SubvolId>,
    clone_sources: Vec<SubvolId>,
    version: Version,
    compressed: bool,
    without_content: bool,
    progress: Progress,
}

impl SendOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends the difference to this snapshot, which the receiver must have,
    /// unchanged. It is a source for shared content as well. See
    /// [`incremental`](crate::incremental) for choosing it.
    pub fn parent(mut self, parent: SubvolId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Content that is shared with this snapshot is not sent but named; the
    /// receiver must have it, unchanged. May be called again.
    pub fn clone_source(mut self, source: SubvolId) -> Self {
        self.clone_sources.push(source);
        self
    }

    /// The version of the stream.
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Sends compressed content as it is on disk, in version 2.
    pub fn compressed(mut self) -> Self {
        self.version = Version::V2;
        self.compressed = true;
        self
    }

    /// Leaves out the content of files. The stream says what would be there,
    /// for an estimate or a list of changes; it cannot be received.
    pub fn without_content(mut self) -> Self {
        self.without_content = true;
        self
    }

    /// Counts and stops through `progress`.
    pub fn progress(mut self, progress: &Progress) -> Self {
        self.progress = progress.clone();
        self
    }
}

/// What a [`SendStream::copy_to`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Sent {
    /// Bytes of the stream.
    pub bytes: Bytes,
}

/// About how much a send will be, from [`Subvolume::estimate_send`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Estimate {
    /// Content of files that will be in the stream, before any compression.
    pub content: Bytes,
    /// Content that is shared with the parent or a clone source.
    pub cloned: Bytes,
    /// The whole stream, uncompressed, within about one percent.
    pub stream: Bytes,
    /// Number of commands.
    pub commands: u64,
}

/// A stream that the kernel is writing, to be read: [`Read`], or
/// [`copy_to`](Self::copy_to). The end of the file is reported only if the send
/// succeeded; if it fails, reading fails with what the kernel said, so a cut
/// stream is never taken for a whole one.
///
/// Dropping it stops the send, and waits for the kernel to notice.
#[derive(Debug)]
#[must_use = "dropping it stops the send"]
pub struct SendStream {
    // `None` once it is closed.
    pipe: Option<File>,
    thread: Option<JoinHandle<Result<()>>>,
    progress: Progress,
}

impl Subvolume {
    /// Begins to send this snapshot, which must be read-only.
    ///
    /// While it runs, the snapshot, its parent and the clone sources can be
    /// neither deleted nor made writable.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Permission`] if the snapshot is writable. What the kernel
    /// refuses comes when the stream is read: [`ErrorKind::Permission`] (a
    /// parent or clone source is writable), [`ErrorKind::Unsupported`] (the
    /// version), [`ErrorKind::NotFound`] (a parent or clone source).
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_ADMIN`.
    ///
    /// # Kernel support
    ///
    /// Linux 3.6; version 2 and compressed content 6.0.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use btrfs_ops::{SendOptions, Subvolume};
    ///
    /// let snapshot = Subvolume::open("/srv/store1/snapshots/app.1")?;
    /// let mut file = std::fs::File::create_new("/backup/app.1.stream")?;
    /// let sent = snapshot.send(&SendOptions::new())?.copy_to(&mut file)?;
    /// file.sync_all()?;
    /// println!("{} bytes", sent.bytes);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "BTRFS_IOC_SEND")]
    pub fn send(&self, options: &SendOptions) -> Result<SendStream> {
        self.require_read_only()?;
        let op = Request::Send.op();
        let failed = |errno| Error::os(op, target(self.as_fd()), errno);
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        // Fewer turns of the two threads; a smaller pipe works as well.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(1 << 20));
        let snapshot = self
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Error::io(op, target(self.as_fd()), error))?;
        let request = options.clone();
        let thread = thread::Builder::new()
            .name("btrfs-send".to_owned())
            .spawn(move || run(snapshot.as_fd(), write, &request))
            .map_err(|error| Error::io(op, target(self.as_fd()), error))?;
        Ok(SendStream {
            pipe: Some(File::from(read)),
            thread: Some(thread),
            progress: options.progress.clone(),
        })
    }

    /// Sends this snapshot into `to` (a file, a pipe, a socket), without a copy
    /// through this process where the kernel can do without, and blocks until
    /// that is done. What is written is not flushed to a disk.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and what `to` says: [`ErrorKind::Cancelled`] if
    /// the reader of a pipe went away, [`ErrorKind::NoSpace`].
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_ADMIN`.
    pub fn send_to(&self, to: impl AsFd, options: &SendOptions) -> Result<()> {
        let mut stream = self.send(options)?;
        let to = to.as_fd();
        // On a thread of its own, for its mask of signals.
        thread::scope(|scope| {
            let work = scope.spawn(|| stream.splice_to(to));
            work.join().unwrap_or_else(|_| Err(panicked(self.as_fd())))
        })
    }

    /// Finds out about how long the stream will be, by having the kernel go
    /// through all metadata without reading content. Blocks for that long.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Privileges
    ///
    /// `CAP_SYS_ADMIN`.
    pub fn estimate_send(&self, options: &SendOptions) -> Result<Estimate> {
        let version = options.version;
        let mut options = options.clone().without_content();
        options.compressed = false;
        let mut reader = Reader::new(self.send(&options)?);
        let mut estimate = Estimate::default();
        let mut writes = 0;
        let per_write = if version == Version::V1 {
            48 << 10
        } else {
            128 << 10
        };
        while let Some(command) = reader.next()? {
            estimate.commands += 1;
            match command {
                Command::UpdateExtent { path, len, .. } => {
                    estimate.content.0 += len;
                    // Each has the path and some forty bytes; one is counted.
                    let more = len.div_ceil(per_write).saturating_sub(1);
                    estimate.commands += more;
                    writes += more * (path.as_os_str().len() as u64 + 40);
                }
                Command::Clone { len, .. } => estimate.cloned.0 += len,
                _ => {}
            }
        }
        estimate.stream.0 = reader.position() + estimate.content.0 + writes;
        Ok(estimate)
    }

    fn require_read_only(&self) -> Result<()> {
        if self.access()? == Access::ReadOnly {
            return Ok(());
        }
        let text = "it is writable; send a read-only snapshot of it";
        let shown = target(self.as_fd());
        Err(Error::message(
            ErrorKind::Permission,
            Request::Send.op(),
            shown,
            text,
        ))
    }
}

fn panicked(snapshot: BorrowedFd<'_>) -> Error {
    let text = "the sending thread panicked";
    Error::message(ErrorKind::Other, Request::Send.op(), target(snapshot), text)
}

/// The kernel raises the signal in the thread that writes to a pipe without a
/// reader; the host program may not ignore it. It dies with this thread.
fn without_sigpipe() -> Result<(), Errno> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGPIPE);
    signals.thread_block()
}

/// Runs on a thread of its own.
fn run(snapshot: BorrowedFd<'_>, to: impl AsFd, options: &SendOptions) -> Result<()> {
    let failed = |errno| Error::ioctl(Request::Send, target(snapshot), snapshot, errno);
    without_sigpipe().map_err(failed)?;
    let mut flags = 0;
    if options.version != Version::V1 {
        flags |= uapi::SEND_FLAG_VERSION;
    }
    if options.compressed {
        flags |= uapi::SEND_FLAG_COMPRESSED;
    }
    if options.without_content {
        flags |= uapi::SEND_FLAG_NO_FILE_DATA;
    }
    let parent = options.parent.map_or(0, SubvolId::get);
    let sources: Vec<u64> = options
        .clone_sources
        .iter()
        .chain(&options.parent)
        .map(|id| id.get())
        .collect();
    let version = if flags & uapi::SEND_FLAG_VERSION == 0 {
        0
    } else {
        options.version.number()
    };
    uapi::send(snapshot, to.as_fd(), parent, &sources, flags, version).map_err(failed)
}

impl SendStream {
    /// Writes the stream to `sink` until its end, and flushes it.
    ///
    /// # Errors
    ///
    /// The sink's, which go before what the kernel says about the end of the
    /// pipe; else as [`Subvolume::send`].
    pub fn copy_to(mut self, sink: &mut impl Write) -> Result<Sent> {
        let op = Request::Send.op();
        let mut buffer = vec![0; 256 << 10];
        let mut total = 0;
        loop {
            let count = self.read_some(&mut buffer)?;
            if count == 0 {
                break;
            }
            sink.write_all(&buffer[..count])
                .map_err(|error| Error::io(op, "to its sink", error))?;
            total += count as u64;
        }
        sink.flush()
            .map_err(|error| Error::io(op, "to its sink", error))?;
        Ok(Sent {
            bytes: Bytes(total),
        })
    }

    /// Moves the stream into `to` until its end. Runs on a thread of its own.
    fn splice_to(&mut self, to: BorrowedFd<'_>) -> Result<()> {
        let failed = |errno| Error::ioctl(Request::Send, target(to), to, errno);
        without_sigpipe().map_err(failed)?;
        let mut buffer = Vec::new();
        while self.wait()? {
            let Some(pipe) = &self.pipe else { break };
            let moved = splice(pipe, None, to, None, 1 << 20, SpliceFFlags::empty());
            match moved {
                Ok(0) => break,
                Ok(count) => self.progress.add_bytes(count as u64),
                Err(Errno::EINTR) => {}
                // It cannot take pages: a file open for appending, a terminal.
                Err(Errno::EINVAL) => {
                    buffer.resize(256 << 10, 0);
                    let count = self.read_some(&mut buffer)?;
                    let mut rest = &buffer[..count];
                    while !rest.is_empty() {
                        match write(to, rest) {
                            Ok(count) => rest = &rest[count..],
                            Err(Errno::EINTR) => {}
                            Err(errno) => return Err(failed(errno)),
                        }
                    }
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        self.stop().unwrap_or(Ok(()))
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let op = Request::Send.op();
        self.wait()?;
        let Some(pipe) = &mut self.pipe else {
            return Ok(0);
        };
        let count = loop {
            match pipe.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|error| Error::io(op, "stream", error))?,
            }
        };
        if count == 0 && !buffer.is_empty() {
            self.stop().unwrap_or(Ok(()))?;
        }
        self.progress.add_bytes(count as u64);
        Ok(count)
    }

    /// Waits until there is something to be read, or the end; false if that was
    /// read already.
    fn wait(&mut self) -> Result<bool> {
        let op = Request::Send.op();
        loop {
            let Some(pipe) = &self.pipe else {
                return Ok(false);
            };
            if self.progress.is_cancelled() {
                self.stop();
                let text = "stopped by the caller";
                return Err(Error::message(ErrorKind::Cancelled, op, "stream", text));
            }
            let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(100u8)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(Error::os(op, "stream", errno)),
            }
        }
    }

    /// Closes the pipe and waits for the thread: what the kernel said.
    fn stop(&mut self) -> Option<Result<()>> {
        drop(self.pipe.take());
        let thread = self.thread.take()?;
        let gone = || Error::message(ErrorKind::Other, "send", "stream", "its thread panicked");
        Some(thread.join().unwrap_or_else(|_| Err(gone())))
    }
}

impl Read for SendStream {
    /// As [`SendStream`] says. The error has an [`Error`] of this crate inside.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(io::Error::other)
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
