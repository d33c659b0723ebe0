//! Messages: `nlmsghdr`, then `genlmsghdr`, then DRBD's own header.

use super::{Attrs, Endian, Nest, WireError, align, take};
use std::marker::PhantomData;

const NLMSG_HDRLEN: usize = 16;
/// Size of `struct genlmsghdr`.
pub const GENL_HDRLEN: usize = 4;
/// Size of `struct drbd_genlmsghdr`.
pub(crate) const DRBD_HDRLEN: usize = 8;

/// `NLMSG_ERROR`: an errno, 0 for an acknowledgement.
pub(crate) const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(crate) const NLMSG_DONE: u16 = 3;
/// `NLMSG_MIN_TYPE`: below this are control messages.
pub(crate) const NLMSG_MIN_TYPE: u16 = 16;

/// `NLM_F_REQUEST`.
pub(crate) const NLM_F_REQUEST: u16 = 1;
/// `NLM_F_MULTI`.
#[cfg(feature = "testing")]
pub(crate) const NLM_F_MULTI: u16 = 2;
/// `NLM_F_DUMP_INTR`: the dump was disturbed.
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_CAPPED`: an error message without the request's body.
pub(crate) const NLM_F_CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow in an error message.
pub(crate) const NLM_F_ACK_TLVS: u16 = 0x200;
/// `NLM_F_EXCL` on a request: refuse if the object exists.
pub(crate) const NLM_F_EXCL: u16 = 0x200;
/// `NLM_F_DUMP`.
pub(crate) const NLM_F_DUMP: u16 = 0x300;

/// One netlink message: the fields of its header, and its body.
#[derive(Clone, Copy, Debug)]
pub struct NlMsg<'a> {
    /// Message type: a control number below 16, or a family id.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// Sequence number.
    pub seq: u32,
    /// Port id; 0 in events.
    pub pid: u32,
    /// Bytes after the header.
    pub body: &'a [u8],
}

/// A control message, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// `NLMSG_DONE`; the value is what the dump ended with, 0 or -errno.
    Done(i32),
    /// `NLMSG_ERROR`: -errno (0 is an acknowledgement) and the extended text.
    Error(i32, Option<Vec<u8>>),
    /// Something else: `NLMSG_NOOP` and reserved numbers.
    Other(u16),
}

impl NlMsg<'_> {
    /// Reads a control message; `None` for a message of a family.
    ///
    /// # Errors
    /// When the body is too short.
    pub fn control<E: Endian>(&self) -> Result<Option<Control>, WireError> {
        Ok(match self.kind {
            NLMSG_DONE => {
                // Very old kernels send an empty one.
                let code = take(self.body, 0, "dump end").map_or(0, |b| signed(E::u32(b)));
                Some(Control::Done(code))
            }
            NLMSG_ERROR => {
                let code = signed(E::u32(take(self.body, 0, "error number")?));
                Some(Control::Error(code, self.extack::<E>()?))
            }
            kind if kind < NLMSG_MIN_TYPE => Some(Control::Other(kind)),
            _ => None,
        })
    }

    /// `NLMSGERR_ATTR_MSG` (1) after the echoed request header.
    fn extack<E: Endian>(&self) -> Result<Option<Vec<u8>>, WireError> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return Ok(None);
        }
        let echoed = E::u32(take(self.body, 4, "echoed request")?);
        let skip = if self.flags & NLM_F_CAPPED != 0 {
            NLMSG_HDRLEN
        } else {
            align(usize::try_from(echoed).unwrap_or(usize::MAX))
        };
        let rest = 4usize
            .checked_add(skip)
            .and_then(|from| self.body.get(from..))
            .ok_or(WireError {
                what: "extended acknowledgement",
                at: 4,
            })?;
        Ok(Attrs::<E>::new(rest).find(1)?.map(|a| a.string().to_vec()))
    }
}

pub(crate) fn signed(value: u32) -> i32 {
    i32::from_ne_bytes(value.to_ne_bytes())
}

/// The messages in one datagram. Ends after the first error.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a, E> {
    bytes: &'a [u8],
    at: usize,
    order: PhantomData<E>,
}

impl<'a, E: Endian> Messages<'a, E> {
    /// The messages in `datagram`.
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Self {
        Self {
            bytes: datagram,
            at: 0,
            order: PhantomData,
        }
    }

    /// Those from the byte on that [`Messages::at`] gave.
    pub(crate) fn resume(datagram: &'a [u8], at: usize) -> Self {
        Self {
            at,
            ..Self::new(datagram)
        }
    }

    /// Where the next one begins.
    pub(crate) fn at(&self) -> usize {
        self.at
    }
}

impl<'a, E: Endian> Iterator for Messages<'a, E> {
    type Item = Result<NlMsg<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let start = self.at;
        let parsed = (|| {
            let b = self.bytes;
            let len = usize::try_from(E::u32(take(b, start, "message length")?)).map_err(|_| {
                WireError {
                    what: "message length",
                    at: start,
                }
            })?;
            let kind = E::u16(take(b, start + 4, "message type")?);
            let flags = E::u16(take(b, start + 6, "message flags")?);
            let seq = E::u32(take(b, start + 8, "message sequence number")?);
            let pid = E::u32(take(b, start + 12, "message port")?);
            let body = (len >= NLMSG_HDRLEN)
                .then(|| b.get(start + NLMSG_HDRLEN..start.checked_add(len)?))
                .flatten()
                .ok_or(WireError {
                    what: "message length",
                    at: start,
                })?;
            Ok((
                len,
                NlMsg {
                    kind,
                    flags,
                    seq,
                    pid,
                    body,
                },
            ))
        })();
        Some(match parsed {
            Ok((len, msg)) => {
                self.at = start + align(len);
                Ok(msg)
            }
            Err(error) => {
                self.at = self.bytes.len();
                Err(error)
            }
        })
    }
}

/// `struct genlmsghdr` and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct GenlHeader<'a> {
    /// Command of the family.
    pub command: u8,
    /// Version of the family's protocol.
    pub version: u8,
    /// Bytes after the header.
    pub body: &'a [u8],
}

impl<'a> GenlHeader<'a> {
    /// Reads the header from the body of a message.
    ///
    /// # Errors
    /// When the body is too short.
    pub fn read(body: &'a [u8]) -> Result<Self, WireError> {
        match body {
            [command, version, _, _, rest @ ..] => Ok(Self {
                command: *command,
                version: *version,
                body: rest,
            }),
            _ => Err(WireError {
                what: "generic netlink header",
                at: 0,
            }),
        }
    }
}

/// `struct drbd_genlmsghdr`: minor, and flags or return code.
#[derive(Clone, Copy, Debug)]
pub struct DrbdHeader<'a> {
    /// Minor the message is about, or `u32::MAX`.
    pub minor: u32,
    /// Flags in a request, return code in a reply.
    pub flags_or_code: u32,
    /// Top level attributes.
    pub body: &'a [u8],
}

impl<'a> DrbdHeader<'a> {
    /// Reads the header from what follows the generic netlink header.
    ///
    /// # Errors
    /// When the body is too short.
    pub fn read<E: Endian>(body: &'a [u8]) -> Result<Self, WireError> {
        Ok(Self {
            minor: E::u32(take(body, 0, "DRBD header")?),
            flags_or_code: E::u32(take(body, 4, "DRBD header")?),
            body: &body[DRBD_HDRLEN..],
        })
    }

    /// The return code of a reply.
    #[must_use]
    pub fn ret_code(&self) -> i32 {
        signed(self.flags_or_code)
    }
}

/// Builds one message.
#[derive(Debug)]
pub struct MessageBuilder<E> {
    buf: Vec<u8>,
    overflow: bool,
    order: PhantomData<E>,
}

impl<E: Endian> MessageBuilder<E> {
    /// Starts a generic netlink message of family `kind`.
    #[must_use]
    pub fn genl(kind: u16, flags: u16, command: u8, version: u8) -> Self {
        let mut buf = Vec::with_capacity(128);
        buf.extend_from_slice(&[0; 4]);
        buf.extend_from_slice(&E::put16(kind));
        buf.extend_from_slice(&E::put16(flags));
        buf.extend_from_slice(&[0; 8]);
        buf.extend_from_slice(&[command, version, 0, 0]);
        Self {
            buf,
            overflow: false,
            order: PhantomData,
        }
    }

    /// Appends DRBD's header.
    #[must_use]
    pub fn drbd(mut self, minor: u32, flags: u32) -> Self {
        self.buf.extend_from_slice(&E::put32(minor));
        self.buf.extend_from_slice(&E::put32(flags));
        self
    }

    /// Appends attributes.
    pub fn attrs(&mut self) -> Nest<'_, E> {
        Nest::new(&mut self.buf, &mut self.overflow)
    }

    /// The bytes, with sequence number and port filled in.
    ///
    /// # Errors
    /// When something was too long for its length field, or a string held a NUL.
    pub fn finish(mut self, seq: u32, pid: u32) -> Result<Vec<u8>, WireError> {
        let what = "request: a value is too long or has a NUL inside";
        let len = u32::try_from(self.buf.len()).map_err(|_| WireError { what, at: 0 })?;
        if self.overflow {
            return Err(WireError { what, at: 0 });
        }
        self.buf[0..4].copy_from_slice(&E::put32(len));
        self.buf[8..12].copy_from_slice(&E::put32(seq));
        self.buf[12..16].copy_from_slice(&E::put32(pid));
        Ok(self.buf)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::{Big, Little};
    use super::*;

    #[test]
    fn a_big_endian_reply() {
        // new-minor r0/0 minor 0 answered with 101 by a big-endian kernel.
        let bytes = [
            0, 0, 0, 48, 0, 28, 0, 0, 0, 0, 0, 9, 0, 0, 1, 0, // nlmsghdr
            5, 1, 0, 0, // genlmsghdr
            0, 0, 0, 0, 0, 0, 0, 101, // minor 0, NO_ERROR
            0, 20, 0x80, 2, 0, 7, 0, 2, b'r', b'0', 0, 0, 0, 8, 0, 1, 0, 0, 0, 0,
        ];
        let msg = Messages::<Big>::new(&bytes).next().unwrap().unwrap();
        assert_eq!((msg.kind, msg.seq, msg.pid), (28, 9, 256));
        let genl = GenlHeader::read(msg.body).unwrap();
        let drbd = DrbdHeader::read::<Big>(genl.body).unwrap();
        assert_eq!((genl.command, drbd.minor, drbd.ret_code()), (5, 0, 101));
        let mut built = MessageBuilder::<Big>::genl(28, 0, 5, 1).drbd(0, 101);
        built.attrs().nest(2, |n| {
            n.string(2, b"r0").u32(1, 0);
        });
        assert_eq!(built.finish(9, 256).unwrap(), bytes);
        for cut in 0..bytes.len() {
            assert!(
                Messages::<Big>::new(&bytes[..cut])
                    .next()
                    .is_none_or(|m| m.is_err()),
                "accepted {cut} bytes"
            );
        }
    }

    #[test]
    fn errors_carry_the_extended_text() {
        // -EINVAL, capped, one attribute: "no".
        let mut bytes = vec![44, 0, 0, 0, 2, 0, 0, 3, 7, 0, 0, 0, 1, 0, 0, 0];
        bytes.extend_from_slice(&(-22i32).to_le_bytes());
        bytes.extend_from_slice(&[40, 0, 0, 0, 28, 0, 1, 0, 7, 0, 0, 0, 1, 0, 0, 0]);
        bytes.extend_from_slice(&[7, 0, 1, 0, b'n', b'o', 0, 0]);
        let msg = Messages::<Little>::new(&bytes).next().unwrap().unwrap();
        assert_eq!(
            msg.control::<Little>().unwrap(),
            Some(Control::Error(-22, Some(b"no".to_vec())))
        );
    }
}
