//! Attributes (`struct nlattr`): a length, a type, a payload, padding to 4.

use super::{Endian, WireError, align};
use std::marker::PhantomData;

/// Bits of `nla_type` that are the number of the attribute
/// (`NLA_TYPE_MASK`). The two above are `NLA_F_NESTED` and, in DRBD, the
/// "mandatory" mark, neither of which a reader may rely on.
pub(crate) const NLA_TYPE_MASK: u16 = 0x3fff;
/// `NLA_F_NESTED`.
pub(crate) const NLA_F_NESTED: u16 = 0x8000;
const NLA_HDRLEN: usize = 4;

/// One attribute: its number without flag bits, and its payload.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'a, E> {
    /// Number, flag bits removed.
    pub number: u16,
    /// Bytes after the header, without padding.
    pub payload: &'a [u8],
    order: PhantomData<E>,
}

impl<'a, E: Endian> Attr<'a, E> {
    /// An attribute over bytes that are already cut out.
    #[must_use]
    pub fn new(number: u16, payload: &'a [u8]) -> Self {
        Self {
            number,
            payload,
            order: PhantomData,
        }
    }

    /// The payload as one byte.
    ///
    /// # Errors
    /// When the payload has another size.
    pub fn u8(&self) -> Result<u8, WireError> {
        match self.payload {
            [byte] => Ok(*byte),
            _ => Err(WireError {
                what: "u8 attribute",
                at: 0,
            }),
        }
    }

    /// The payload as a number of four bytes.
    ///
    /// # Errors
    /// When the payload has another size.
    pub fn u32(&self) -> Result<u32, WireError> {
        self.payload.try_into().map(E::u32).map_err(|_| WireError {
            what: "u32 attribute",
            at: 0,
        })
    }

    /// The payload as a signed number of four bytes.
    ///
    /// # Errors
    /// When the payload has another size.
    pub fn i32(&self) -> Result<i32, WireError> {
        Ok(i32::from_ne_bytes(self.u32()?.to_ne_bytes()))
    }

    /// The payload as a number of eight bytes.
    ///
    /// # Errors
    /// When the payload has another size.
    pub fn u64(&self) -> Result<u64, WireError> {
        self.payload.try_into().map(E::u64).map_err(|_| WireError {
            what: "u64 attribute",
            at: 0,
        })
    }

    /// The payload as a flag: DRBD sends one byte, 0 or not.
    ///
    /// # Errors
    /// When the payload has another size.
    pub fn bool(&self) -> Result<bool, WireError> {
        Ok(self.u8()? != 0)
    }

    /// The payload as a string, without its NUL.
    #[must_use]
    pub fn string(&self) -> &'a [u8] {
        let end = self
            .payload
            .iter()
            .position(|b| *b == 0)
            .unwrap_or(self.payload.len());
        &self.payload[..end]
    }

    /// The payload as a nest of attributes.
    #[must_use]
    pub fn nest(&self) -> Attrs<'a, E> {
        Attrs::new(self.payload)
    }
}

/// The attributes in a run of bytes, in order.
///
/// Padding attributes (number 0, which the kernel puts before a u64 on some
/// machines) are left out. Ends after the first error.
#[derive(Clone, Copy, Debug)]
pub struct Attrs<'a, E> {
    bytes: &'a [u8],
    at: usize,
    order: PhantomData<E>,
}

impl<'a, E: Endian> Attrs<'a, E> {
    /// The attributes in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            order: PhantomData,
        }
    }

    /// The last attribute with this number (a later one overrides, as in the kernel).
    ///
    /// # Errors
    /// When the run is malformed anywhere.
    pub fn find(&self, number: u16) -> Result<Option<Attr<'a, E>>, WireError> {
        let mut found = None;
        for attr in *self {
            let attr = attr?;
            if attr.number == number {
                found = Some(attr);
            }
        }
        Ok(found)
    }
}

impl<'a, E: Endian> Iterator for Attrs<'a, E> {
    type Item = Result<Attr<'a, E>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let start = self.at;
            let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
            let whole = rest.split_first_chunk().and_then(|(header, body)| {
                let [l0, l1, k0, k1] = *header;
                let len = usize::from(E::u16([l0, l1]));
                let payload = body.get(..len.checked_sub(NLA_HDRLEN)?)?;
                Some((len, E::u16([k0, k1]) & NLA_TYPE_MASK, payload))
            });
            let Some((len, number, payload)) = whole else {
                self.at = self.bytes.len();
                let what = "attribute length";
                return Some(Err(WireError { what, at: start }));
            };
            self.at = start + align(len);
            if number != 0 {
                return Some(Ok(Attr::new(number, payload)));
            }
        }
    }
}

/// Writes attributes at the end of a buffer.
///
/// Lengths that do not fit are remembered and reported by
/// [`MessageBuilder::finish`](super::MessageBuilder::finish).
#[derive(Debug)]
pub struct Nest<'b, E> {
    buf: &'b mut Vec<u8>,
    overflow: &'b mut bool,
    order: PhantomData<E>,
}

impl<'b, E: Endian> Nest<'b, E> {
    pub(crate) fn new(buf: &'b mut Vec<u8>, overflow: &'b mut bool) -> Self {
        Self {
            buf,
            overflow,
            order: PhantomData,
        }
    }

    /// An attribute of raw bytes; `kind` is the number with flag bits.
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let len = NLA_HDRLEN + payload.len();
        let Ok(short) = u16::try_from(len) else {
            *self.overflow = true;
            return self;
        };
        self.buf.extend_from_slice(&E::put16(short));
        self.buf.extend_from_slice(&E::put16(kind));
        self.buf.extend_from_slice(payload);
        self.buf.resize(self.buf.len() + align(len) - len, 0);
        self
    }

    /// One byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// Four bytes.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &E::put32(value))
    }

    /// Four bytes, signed.
    pub fn i32(&mut self, kind: u16, value: i32) -> &mut Self {
        self.u32(kind, u32::from_ne_bytes(value.to_ne_bytes()))
    }

    /// Eight bytes.
    pub fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &E::put64(value))
    }

    /// A string, with the NUL that DRBD counts in.
    pub fn string(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        if value.contains(&0) {
            *self.overflow = true;
        }
        let mut payload = value.to_vec();
        payload.push(0);
        self.bytes(kind, &payload)
    }

    /// A nest of attributes, marked `NLA_F_NESTED`.
    pub fn nest(&mut self, number: u16, fill: impl FnOnce(&mut Nest<'_, E>)) -> &mut Self {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; NLA_HDRLEN]);
        fill(&mut Nest::new(self.buf, self.overflow));
        match u16::try_from(self.buf.len() - start) {
            Ok(len) => {
                self.buf[start..start + 2].copy_from_slice(&E::put16(len));
                self.buf[start + 2..start + 4].copy_from_slice(&E::put16(number | NLA_F_NESTED));
            }
            Err(_) => *self.overflow = true,
        }
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::{Big, Little};
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Value {
        Byte(u8),
        Word(u32),
        Signed(i32),
        Long(u64),
        Text(Vec<u8>),
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<u8>().prop_map(Value::Byte),
            any::<u32>().prop_map(Value::Word),
            any::<i32>().prop_map(Value::Signed),
            any::<u64>().prop_map(Value::Long),
            proptest::collection::vec(1u8.., 0..40).prop_map(Value::Text),
        ]
    }

    fn round_trip<E: Endian>(values: &[(u16, Value)]) {
        let (mut buf, mut overflow) = (Vec::new(), false);
        let mut nest = Nest::<E>::new(&mut buf, &mut overflow);
        for (number, value) in values {
            match value {
                Value::Byte(v) => nest.u8(*number, *v),
                Value::Word(v) => nest.u32(*number, *v),
                Value::Signed(v) => nest.i32(*number, *v),
                Value::Long(v) => nest.u64(*number, *v),
                Value::Text(v) => nest.string(*number, v),
            };
        }
        assert!(!overflow);
        let mut got = Attrs::<E>::new(&buf);
        for (number, value) in values {
            let attr = got.next().unwrap().unwrap();
            assert_eq!(attr.number, *number);
            let back = match value {
                Value::Byte(_) => Value::Byte(attr.u8().unwrap()),
                Value::Word(_) => Value::Word(attr.u32().unwrap()),
                Value::Signed(_) => Value::Signed(attr.i32().unwrap()),
                Value::Long(_) => Value::Long(attr.u64().unwrap()),
                Value::Text(_) => Value::Text(attr.string().to_vec()),
            };
            assert_eq!(back, *value);
        }
        assert!(got.next().is_none());
    }

    proptest! {
        #[test]
        fn values_survive_both_byte_orders(
            values in proptest::collection::vec((1u16..=NLA_TYPE_MASK, value()), 0..20)
        ) {
            round_trip::<Little>(&values);
            round_trip::<Big>(&values);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for attr in Attrs::<Little>::new(&bytes).chain(Attrs::new(&bytes)).flatten() {
                let _ = (attr.u8(), attr.u32(), attr.i32(), attr.u64(), attr.bool(), attr.string());
                for inner in attr.nest() {
                    let _ = inner;
                }
            }
        }
    }

    #[test]
    fn big_endian_nest() {
        let (mut buf, mut overflow) = (Vec::new(), false);
        Nest::<Big>::new(&mut buf, &mut overflow).nest(2, |n| {
            n.string(0x4002, b"r0").u32(0x4001, 7);
        });
        assert_eq!(
            buf,
            [
                0, 20, 0x80, 2, // nest 2, 20 bytes
                0, 7, 0x40, 2, b'r', b'0', 0, 0, // "r0", one byte of padding
                0, 8, 0x40, 1, 0, 0, 0, 7, // volume 7
            ]
        );
        let nest = Attrs::<Big>::new(&buf).find(2).unwrap().unwrap().nest();
        assert_eq!(nest.find(1).unwrap().unwrap().u32(), Ok(7));
        assert_eq!(nest.find(2).unwrap().unwrap().string(), b"r0");
    }

    #[test]
    fn padding_is_skipped_and_cuts_are_refused() {
        let bytes = [4, 0, 0, 0, 8, 0, 1, 0, 9, 0, 0, 0];
        let all: Vec<_> = Attrs::<Little>::new(&bytes).map(Result::unwrap).collect();
        assert_eq!((all.len(), all[0].number, all[0].u32()), (1, 1, Ok(9)));
        for cut in 5..bytes.len() {
            assert!(
                Attrs::<Little>::new(&bytes[..cut]).any(|a| a.is_err()),
                "accepted {cut}"
            );
        }
    }

    #[test]
    fn too_long_a_payload_is_remembered() {
        let (mut buf, mut overflow) = (Vec::new(), false);
        Nest::<Little>::new(&mut buf, &mut overflow).bytes(1, &vec![0; 70_000]);
        assert!(overflow && buf.is_empty());
    }
}
