//! The one file that talks to the kernel.
//!
//! The receive path is our own: it keeps the sender's port, notices a
//! truncated datagram and tells an overrun from other errors, and it waits
//! no longer than it is told. The trait in front of it lets tests script a
//! kernel.

#![allow(
    unsafe_code,
    reason = "setsockopt of SOL_NETLINK, and recvmmsg into memory that stays as it is: nix covers neither"
)]

use crate::dialect::Release;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    send, setsockopt, socket, sockopt,
};
use std::fmt::{self, Debug};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Port id of the sender; 0 is the kernel.
    pub sender: u32,
    /// It was longer than the buffer.
    pub truncated: bool,
}

/// What a receive came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A datagram is in the buffer.
    Datagram(Datagram),
    /// `ENOBUFS`: at least one message was lost; the socket stays usable.
    Overrun,
    /// Nothing came before the deadline.
    TimedOut,
}

/// A moment up to which to wait.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Limit);

#[derive(Clone, Copy, Debug)]
enum Limit {
    /// Not at all. To know that takes no look at the clock, which is a system
    /// call where there is no vDSO.
    Passed,
    At(Instant),
    Never,
}

impl Deadline {
    /// One that has passed: for a look at what is there.
    pub const PASSED: Self = Self(Limit::Passed);

    /// This long from now; a time too far to be represented is no limit.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        if timeout.is_zero() {
            return Self::PASSED;
        }
        Self(
            Instant::now()
                .checked_add(timeout)
                .map_or(Limit::Never, Limit::At),
        )
    }

    /// The time left; zero when it has passed.
    #[must_use]
    pub fn left(&self) -> Duration {
        match self.0 {
            Limit::Passed => Duration::ZERO,
            Limit::At(at) => at.saturating_duration_since(Instant::now()),
            Limit::Never => Duration::MAX,
        }
    }

    /// Whether it never passes.
    #[must_use]
    pub fn never(&self) -> bool {
        matches!(self.0, Limit::Never)
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }

    /// This much later.
    pub(crate) fn later(self, time: Duration) -> Self {
        Self(match self.0 {
            Limit::Passed => return Self::after(time),
            Limit::At(at) => at.checked_add(time).map_or(Limit::Never, Limit::At),
            Limit::Never => Limit::Never,
        })
    }

    /// The earlier of this and `timeout` from now.
    #[must_use]
    pub fn or_after(&self, timeout: Duration) -> Self {
        Self::after(self.left().min(timeout))
    }
}

/// A netlink socket, or what stands in for one in a test.
pub trait Transport: Debug {
    /// Sends one datagram to the kernel.
    ///
    /// # Errors
    /// What the system call said.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;

    /// Receives one datagram into `buffer`, which is resized to it.
    ///
    /// # Errors
    /// What the system call said; not `EINTR`, `EAGAIN` or `ENOBUFS`.
    fn receive(&mut self, buffer: &mut Vec<u8>, deadline: Deadline) -> io::Result<Received>;

    /// Joins a multicast group.
    ///
    /// # Errors
    /// What the system call said.
    fn join(&mut self, group: u32) -> io::Result<()>;

    /// Leaves it again: what it announces from now on does not come. One that
    /// cannot is not kept for the next snapshot.
    ///
    /// # Errors
    /// What the system call said.
    fn leave(&mut self, group: u32) -> io::Result<()> {
        let _ = group;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The port id of this end.
    fn port(&self) -> u32;

    /// Asks for a receive buffer of this size; getting less is no error.
    fn set_receive_buffer(&mut self, bytes: usize) {
        let _ = bytes;
    }
}

/// Opens transports: one for each request that changes something.
pub trait Connector: Debug {
    /// What it opens.
    type Transport: Transport;

    /// Opens one.
    ///
    /// # Errors
    /// What the system call said.
    fn open(&self) -> io::Result<Self::Transport>;

    /// Opens one that has joined these groups, to read: the kernel need not
    /// explain itself on it.
    ///
    /// # Errors
    /// What the system call said.
    fn open_member(&self, groups: &[u32]) -> io::Result<Self::Transport> {
        let mut transport = self.open()?;
        for &group in groups {
            transport.join(group)?;
        }
        Ok(transport)
    }

    /// The release of the DRBD module behind it, where that can be known.
    fn release(&self) -> Option<Release> {
        None
    }
}

/// The kernel of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

impl Connector for Kernel {
    type Transport = Socket;

    fn open(&self) -> io::Result<Socket> {
        let socket = Socket::open(0)?;
        // Texts with errors, and errors without the request's copy: kernels
        // before 4.12 have neither, and answer without.
        let _ = socket.set(libc::NETLINK_EXT_ACK, 1);
        let _ = socket.set(libc::NETLINK_CAP_ACK, 1);
        Ok(socket)
    }

    fn open_member(&self, groups: &[u32]) -> io::Result<Socket> {
        // The first 32 are joined by the call that binds the socket.
        let bit = |group: u32| 1u32.checked_shl(group.wrapping_sub(1)).unwrap_or(0);
        let mut socket = Socket::open(groups.iter().fold(0, |bits, &group| bits | bit(group)))?;
        for &group in groups.iter().filter(|&&group| bit(group) == 0) {
            socket.join(group)?;
        }
        Ok(socket)
    }

    fn release(&self) -> Option<Release> {
        Release::parse(&std::fs::read_to_string("/sys/module/drbd/version").ok()?)
    }
}

/// A generic netlink socket. Close-on-exec, non-blocking.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    port: u32,
    batch: Batch,
}

/// Datagrams that one system call received: a dump of DRBD has a datagram for
/// each object.
struct Batch {
    /// `ROOM` bytes for each datagram. Allocated once, and not cleared.
    space: Box<[MaybeUninit<u8>]>,
    /// Sender and length of each.
    arrived: [(u32, usize); BATCH],
    /// The next one to hand out.
    next: usize,
    count: usize,
    /// The last call took all there was.
    emptied: bool,
}

impl Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} of {})", self.next, self.count)
    }
}

/// How many datagrams one system call receives at most.
const BATCH: usize = 32;
/// What the kernel puts into one datagram at most: `NLMSG_GOODSIZE` is less
/// than 8 KiB on every machine, and a dump takes that or what the reader
/// has room for.
const ROOM: usize = 8192;

impl Batch {
    fn new() -> Self {
        Self {
            space: Box::new_uninit_slice(BATCH * ROOM),
            arrived: [(0, 0); BATCH],
            next: 0,
            count: 0,
            emptied: false,
        }
    }

    /// Puts the next datagram into `buffer`, if there is one.
    fn take(&mut self, buffer: &mut Vec<u8>) -> Option<Datagram> {
        let &(sender, length) = self.arrived.get(..self.count)?.get(self.next)?;
        let from = self.next * ROOM;
        let kept = length.min(ROOM);
        self.next += 1;
        let bytes = &raw const self.space[from..from + kept];
        buffer.clear();
        // SAFETY: the slice is within `space`, and `receive` wrote `length`
        // bytes or all `ROOM` of this datagram.
        buffer.extend_from_slice(unsafe { &*(bytes as *const [u8]) });
        let truncated = length > ROOM;
        Some(Datagram { sender, truncated })
    }

    /// Receives what there is. Does not block on a non-blocking socket.
    fn receive(&mut self, fd: &OwnedFd) -> nix::Result<()> {
        (self.next, self.count) = (0, 0);
        // SAFETY: zeroes are a valid address.
        let mut from: [libc::sockaddr_nl; BATCH] = unsafe { std::mem::zeroed() };
        let mut parts = [libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: ROOM,
        }; BATCH];
        // SAFETY: zeroes are a valid `mmsghdr`: null pointers and no lengths.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let rooms = self.space.chunks_exact_mut(ROOM);
        for (((header, part), from), room) in
            headers.iter_mut().zip(&mut parts).zip(&mut from).zip(rooms)
        {
            part.iov_base = room.as_mut_ptr().cast();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut *from).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        }
        // SAFETY: each of the `BATCH` headers points to its own address and
        // to its own part, which points to `ROOM` bytes of `space`; all of
        // them outlive the call, and nothing else refers to them meanwhile.
        let count = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_TRUNC as _,
                ptr::null_mut(),
            )
        };
        let count = nix::errno::Errno::result(count)?;
        self.count = usize::try_from(count).unwrap_or(0).min(BATCH);
        self.emptied = self.count < BATCH;
        for ((arrived, header), from) in self.arrived.iter_mut().zip(&headers).zip(&from) {
            let whole = header.msg_hdr.msg_namelen as usize >= size_of::<libc::sockaddr_nl>();
            let sender = if whole { from.nl_pid } else { u32::MAX };
            *arrived = (sender, header.msg_len as usize);
        }
        Ok(())
    }
}

impl Socket {
    fn open(groups: u32) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkGeneric,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        let batch = Batch::new();
        Ok(Self { fd, port, batch })
    }

    fn set(&self, option: i32, value: u32) -> io::Result<()> {
        // SAFETY: the descriptor is open as long as `self` lives, and the
        // option reads exactly the four bytes of `value`, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const value).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Waits until there is something to read.
    fn wait(&self, deadline: Deadline) -> io::Result<bool> {
        loop {
            let left = deadline.left();
            // Rounded up, so that a wait does not end just before its time.
            let millis = u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
            let timeout = i32::try_from(millis)
                .ok()
                .and_then(|millis| PollTimeout::try_from(millis).ok())
                .unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) if deadline.passed() => return Ok(false),
                Ok(0) | Err(nix::Error::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Transport for Socket {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        // The answer is there when this returns.
        self.batch.emptied = false;
        loop {
            // Never blocks: the kernel takes the request in this call, which
            // for DRBD means that it also carries it out here.
            match send(self.fd.as_raw_fd(), datagram, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, deadline: Deadline) -> io::Result<Received> {
        loop {
            if let Some(datagram) = self.batch.take(buffer) {
                return Ok(Received::Datagram(datagram));
            }
            // What was all there is a moment ago probably still is: who may
            // wait is not to ask for that again.
            let look = matches!(deadline.0, Limit::Passed);
            if std::mem::take(&mut self.batch.emptied) && !look && !self.wait(deadline)? {
                return Ok(Received::TimedOut);
            }
            match self.batch.receive(&self.fd) {
                Ok(()) | Err(nix::Error::EINTR) => {}
                Err(nix::Error::ENOBUFS) => return Ok(Received::Overrun),
                Err(nix::Error::EAGAIN) => {
                    if deadline.passed() || !self.wait(deadline)? {
                        return Ok(Received::TimedOut);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn join(&mut self, group: u32) -> io::Result<()> {
        self.set(libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    fn leave(&mut self, group: u32) -> io::Result<()> {
        self.set(libc::NETLINK_DROP_MEMBERSHIP, group)
    }

    fn port(&self) -> u32 {
        self.port
    }

    fn set_receive_buffer(&mut self, bytes: usize) {
        // The second is capped by net.core.rmem_max, the first needs CAP_NET_ADMIN.
        if setsockopt(&self.fd, sockopt::RcvBufForce, &bytes).is_err() {
            let _ = setsockopt(&self.fd, sockopt::RcvBuf, &bytes);
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
