//! The one place that talks to rtnetlink.
//!
//! The kernel works on a request while it is being sent, so an answer is there
//! when sending returns: no deadline is needed, and none would help, as waiting
//! for the kernel's lock happens inside `sendmsg`.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, sendto,
    socket,
};

use super::wire::{self, Message, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::sys;

/// How often an interrupted dump is begun again.
const DUMP_TRIES: usize = 10;

/// Sends a request that changes something, and returns the kernel's answer:
/// nothing, or an errno with its text.
pub(crate) fn change(op: &'static str, target: &str, request: Request) -> Result<()> {
    let fail = |errno| Error::os(op, target, errno);
    let socket = open().map_err(fail)?;
    send(&socket, &request.finish(1)).map_err(fail)?;
    let mut answer = None;
    while answer.is_none() {
        receive(op, target, &socket, 1, &mut |message| {
            match message {
                Message::Answer { errno, text } => answer = Some((errno, text)),
                Message::Overrun => return Err(Errno::ENOBUFS),
                // Echoes were not asked for.
                Message::Part { .. } | Message::Done { .. } => {}
            }
            Ok(())
        })?;
    }
    match answer {
        Some((0, _)) | None => Ok(()),
        Some((errno, text)) => {
            let error = fail(Errno::from_raw(errno));
            Err(match text {
                Some(text) => error.with_text(text),
                None => error,
            })
        }
    }
}

/// Asks for everything of a kind. `each` gets type and body of every message.
pub(crate) fn dump(
    op: &'static str,
    kind: u16,
    body: &[u8],
    each: &mut dyn FnMut(u16, &[u8]) -> Option<()>,
    restart: &mut dyn FnMut(),
) -> Result<()> {
    let target = "all";
    let fail = |errno| Error::os(op, target, errno);
    for _ in 0..DUMP_TRIES {
        restart();
        let socket = open().map_err(fail)?;
        send(&socket, &Request::new(kind, wire::DUMP, body).finish(1)).map_err(fail)?;
        let (mut ended, mut whole, mut wrong) = (false, true, false);
        while !ended {
            receive(op, target, &socket, 1, &mut |message| {
                match message {
                    Message::Part {
                        kind,
                        body,
                        interrupted,
                    } => {
                        whole &= !interrupted;
                        wrong |= each(kind, body).is_none();
                    }
                    Message::Done { errno, interrupted } => {
                        whole &= !interrupted;
                        ended = true;
                        if errno != 0 {
                            return Err(Errno::from_raw(errno));
                        }
                    }
                    Message::Answer { errno, .. } => {
                        ended = true;
                        if errno != 0 {
                            return Err(Errno::from_raw(errno));
                        }
                    }
                    Message::Overrun => whole = false,
                }
                Ok(())
            })?;
        }
        if wrong {
            return Err(malformed(op, target, "a message lacks a part of its body"));
        }
        if whole {
            return Ok(());
        }
        // Something changed meanwhile: entries may be missing or doubled.
    }
    let text = format!("links changed during each of {DUMP_TRIES} tries to list them");
    Err(Error::message(ErrorKind::Other, op, target, text))
}

fn malformed(op: &'static str, target: &str, text: impl Into<String>) -> Error {
    Error::message(ErrorKind::Malformed, op, target, text)
}

fn open() -> Result<OwnedFd, Errno> {
    let protocol = SockProtocol::NetlinkRoute;
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // Texts are a help; a kernel before 4.12 has none.
    let _ = sys::netlink_ext_ack(fd.as_fd());
    Ok(fd)
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let kernel = NetlinkAddr::new(0, 0);
    let sent = loop {
        match sendto(socket.as_raw_fd(), bytes, &kernel, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(Errno::EMSGSIZE)
    }
}

/// Receives one datagram from the kernel and hands out its messages.
fn receive(
    op: &'static str,
    target: &str,
    socket: &OwnedFd,
    sequence: u32,
    each: &mut dyn FnMut(Message<'_>) -> Result<(), Errno>,
) -> Result<()> {
    // The kernel fills at most 32 KiB at a time.
    let mut buffer = vec![0u8; 64 << 10];
    let length = loop {
        let mut space = [IoSliceMut::new(&mut buffer)];
        match recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut space, None, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::os(op, target, errno)),
            Ok(message) => {
                // Any process may send to this socket: only the kernel has port 0.
                if message.address.is_none_or(|from| from.pid() != 0) {
                    continue;
                }
                if message.flags.contains(MsgFlags::MSG_TRUNC) {
                    return Err(malformed(op, target, "an answer does not fit in 64 KiB"));
                }
                break message.bytes;
            }
        }
    };
    let messages = wire::messages(&buffer[..length], sequence).map_err(|wire::Malformed(at)| {
        malformed(
            op,
            target,
            format!("an answer breaks the protocol at byte {at}"),
        )
    })?;
    for message in messages {
        each(message).map_err(|errno| Error::os(op, target, errno))?;
    }
    Ok(())
}
