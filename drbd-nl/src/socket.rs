//! The one file that talks to the kernel.
//!
//! The receive path is our own: it keeps the sender's port, notices a
//! truncated datagram and tells an overrun from other errors, and it waits
//! no longer than it is told. The trait in front of it lets tests script a
//! kernel.

#![allow(
    unsafe_code,
    reason = "setsockopt of SOL_NETLINK, which nix does not cover"
)]

use crate::dialect::Release;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recvmsg, send, setsockopt, socket, sockopt,
};
use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
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
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// This long from now; a time too far to be represented is no limit.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// The time left; zero when it has passed.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.0.map_or(Duration::MAX, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.left().is_zero()
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
        Socket::open()
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
    /// Where datagrams arrive. Made once: to clear it costs more than to receive.
    space: Box<[u8]>,
}

/// More than the kernel ever puts into one datagram of a dump
/// (`NLMSG_GOODSIZE` is at most 8 KiB; 32 KiB is the limit of its dumps).
const BUFFER: usize = 64 * 1024;

impl Socket {
    fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkGeneric,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        let space = vec![0; BUFFER].into_boxed_slice();
        let socket = Self { fd, port, space };
        // Texts with errors, and errors without the request's copy: kernels
        // before 4.12 have neither, and answer without.
        let _ = socket.set(libc::NETLINK_EXT_ACK, 1);
        let _ = socket.set(libc::NETLINK_CAP_ACK, 1);
        Ok(socket)
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
            let mut slices = [IoSliceMut::new(&mut self.space)];
            let flags = MsgFlags::MSG_TRUNC;
            let result = recvmsg::<NetlinkAddr>(self.fd.as_raw_fd(), &mut slices, None, flags);
            match result {
                Ok(message) => {
                    let sender = message.address.map_or(u32::MAX, |address| address.pid());
                    let truncated =
                        message.flags.contains(MsgFlags::MSG_TRUNC) || message.bytes > BUFFER;
                    let length = message.bytes.min(BUFFER);
                    buffer.clear();
                    buffer.extend_from_slice(&self.space[..length]);
                    return Ok(Received::Datagram(Datagram { sender, truncated }));
                }
                Err(nix::Error::EINTR) => {}
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
