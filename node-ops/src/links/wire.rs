//! Messages of rtnetlink as bytes. Fields are in the machine's order.

use std::ffi::CStr;

/// `struct nlmsghdr`, linux/netlink.h: length, type, flags, sequence, port.
pub(crate) const HEADER: usize = 16;

/// `NLM_F_REQUEST` and so on, linux/netlink.h.
pub(crate) const REQUEST: u16 = 0x01;
pub(crate) const ACK: u16 = 0x04;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
const DUMP_INTR: u16 = 0x10;
const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// `NLMSGERR_ATTR_MSG`.
const ERR_ATTR_MSG: u16 = 1;

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A request under construction.
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    pub(crate) fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend(body);
        bytes.resize(align(bytes.len()), 0);
        Self { bytes }
    }

    /// Adds an attribute. Values here are names and addresses, far below the
    /// 64 KiB that fit.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).expect("attribute values here are short");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// Adds a string with its NUL.
    pub(crate) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Adds an attribute made of others.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.attr(kind, &[]);
        fill(self);
        let length =
            u16::try_from(self.bytes.len() - start).expect("nested attributes here are short");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds a structure without a header of its own, as `VETH_INFO_PEER` wants.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    /// The message, with the given sequence number.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("messages here are short");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// `struct ifinfomsg`, linux/rtnetlink.h.
pub(crate) fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

/// A message received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// Part of an answer: its type and what follows the header.
    Part {
        kind: u16,
        body: &'a [u8],
        interrupted: bool,
    },
    /// The end of a dump, and whether it was interrupted.
    Done { errno: i32, interrupted: bool },
    /// Success (0), or an errno and what the kernel says about it.
    Answer { errno: i32, text: Option<String> },
    /// The kernel lost something.
    Overrun,
}

/// What does not have the form of a message; the byte it begins at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) usize);

/// Takes a datagram apart, leaving out answers to other requests.
pub(crate) fn messages(datagram: &[u8], sequence: u32) -> Result<Vec<Message<'_>>, Malformed> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < datagram.len() {
        let bytes = &datagram[at..];
        let header = bytes.get(..HEADER).ok_or(Malformed(at))?;
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = word(0) as usize;
        let body = bytes.get(HEADER..length).ok_or(Malformed(at))?;
        let (kind, flags) = (half(4), half(6));
        let interrupted = flags & DUMP_INTR != 0;
        if word(8) == sequence {
            found.push(match kind {
                NLMSG_ERROR => answer(body, flags).ok_or(Malformed(at))?,
                NLMSG_DONE => {
                    // Some kernels leave the number out.
                    let errno = body.get(..4).and_then(|b| b.try_into().ok());
                    Message::Done {
                        errno: -errno.map_or(0, i32::from_ne_bytes),
                        interrupted,
                    }
                }
                NLMSG_OVERRUN => Message::Overrun,
                kind => Message::Part {
                    kind,
                    body,
                    interrupted,
                },
            });
        }
        at += align(length);
    }
    Ok(found)
}

/// `struct nlmsgerr`: errno, then the request or its header, then attributes.
fn answer(body: &[u8], flags: u16) -> Option<Message<'static>> {
    let errno = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?).checked_neg()?;
    let mut text = None;
    if flags & ACK_TLVS != 0 {
        let echoed = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?) as usize;
        let skip = if flags & CAPPED != 0 || errno == 0 {
            HEADER
        } else {
            align(echoed)
        };
        for attr in attributes(body.get(4 + skip..)?) {
            let (kind, value) = attr?;
            if kind == ERR_ATTR_MSG {
                text = Some(string(value));
            }
        }
    }
    Some(Message::Answer { errno, text })
}

/// The attributes in a body: kinds without their flag bits, and values. `None`
/// in place of one that is cut off; it is the last.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    /// Without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let attr = (|| {
            let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
            let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & KIND;
            Some((kind, bytes.get(4..length)?, length))
        })();
        match attr {
            Some((kind, value, length)) => {
                bytes = bytes.get(align(length)..).unwrap_or_default();
                Some(Some((kind, value)))
            }
            None => {
                bytes = &[];
                Some(None)
            }
        }
    })
}

/// A string up to its NUL. Names of interfaces are bytes, but every tool treats
/// them as text; what is not UTF-8 is replaced.
pub(crate) fn string(value: &[u8]) -> String {
    let bytes = CStr::from_bytes_until_nul(value).map_or(value, CStr::to_bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn u32_of(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let mut request = Request::new(16, ACK, &ifinfo(7, 1, 1));
        request.string(3, "br0").nest(18, |info| {
            info.string(1, "bridge");
        });
        let bytes = request.finish(9);
        assert_eq!(bytes.len() % 4, 0);
        let messages = messages(&bytes, 9).unwrap();
        let [
            Message::Part {
                kind: 16,
                body,
                interrupted: false,
            },
        ] = messages[..]
        else {
            panic!("{messages:?}");
        };
        assert_eq!(body[4..8], 7u32.to_ne_bytes());
        let attrs: Vec<_> = attributes(&body[16..]).map(Option::unwrap).collect();
        assert_eq!(attrs[0], (3, &b"br0\0"[..]));
        assert_eq!(attrs[1].0, 18);
        let inner: Vec<_> = attributes(attrs[1].1).map(Option::unwrap).collect();
        assert_eq!(inner, [(1, &b"bridge\0"[..])]);
    }

    #[test]
    fn cuts_are_refused() {
        let mut request = Request::new(16, ACK, &ifinfo(7, 1, 1));
        request.string(3, "br0");
        let bytes = request.finish(1);
        for cut in 1..bytes.len() {
            assert!(messages(&bytes[..cut], 1).is_err(), "accepted {cut} bytes");
        }
        let attrs = &bytes[32..];
        for cut in 1..attrs.len() {
            assert!(
                attributes(&attrs[..cut]).any(|a| a.is_none()),
                "accepted {cut} bytes"
            );
        }
        // A length below that of a header would never end.
        assert!(messages(&[0; 16], 0).is_err());
        assert_eq!(attributes(&[0; 8]).collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn answers() {
        let message = |flags: u16, body: &[u8]| {
            let mut request = Request::new(2, flags, body);
            request.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
            request
        };
        let echoed = Request::new(16, ACK, &[]).finish(5);
        let mut body = (-17i32).to_ne_bytes().to_vec();
        body.extend(&echoed);
        let mut refused = message(ACK_TLVS, &body);
        refused.string(ERR_ATTR_MSG, "name taken");
        let refused = refused.finish(5);
        assert_eq!(
            messages(&refused, 5).unwrap(),
            [Message::Answer {
                errno: 17,
                text: Some("name taken".into())
            }]
        );
        assert_eq!(messages(&refused, 6).unwrap(), [], "another request's");
        let mut body = 0i32.to_ne_bytes().to_vec();
        body.extend(&echoed);
        let done = message(CAPPED, &body).finish(5);
        assert_eq!(
            messages(&done, 5).unwrap(),
            [Message::Answer {
                errno: 0,
                text: None
            }]
        );
    }
}
