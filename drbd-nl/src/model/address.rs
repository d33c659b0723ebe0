//! Addresses of connections: raw socket addresses on the wire.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// `AF_INET_SDP`, and the default of `AF_SSOCKS`.
const AF_SDP: u16 = 27;
const SIZE_V4: usize = 16;
const SIZE_V6: usize = 28;

/// One end of a connection: a socket address as DRBD stores it.
///
/// `Display` and `FromStr` use drbdsetup's form: `ipv4:10.0.0.1:7788`,
/// `ipv6:[fe80::1]:7788`, `sdp:10.0.0.1:7788`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// Another family with the layout of IPv4 (27 is SDP, by default also SSOCKS).
    Other4 {
        /// `sa_family`.
        family: u16,
        /// The address.
        addr: SocketAddrV4,
    },
    /// Something else, as received.
    Raw(Box<[u8]>),
}

impl Address {
    /// Reads the bytes of a socket address. The family is host-endian
    /// (`big` says which), port and address are big-endian.
    #[must_use]
    pub fn from_wire(bytes: &[u8], big: bool) -> Self {
        Self::parse_wire(bytes, big).unwrap_or_else(|| Self::Raw(bytes.into()))
    }

    fn parse_wire(bytes: &[u8], big: bool) -> Option<Self> {
        let family: [u8; 2] = bytes.get(..2)?.try_into().ok()?;
        let family = if big {
            u16::from_be_bytes(family)
        } else {
            u16::from_le_bytes(family)
        };
        let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
        match (family, bytes.len()) {
            (AF_INET6, SIZE_V6) => {
                let flow = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
                let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                let scope: [u8; 4] = bytes.get(24..28)?.try_into().ok()?;
                let scope = if big {
                    u32::from_be_bytes(scope)
                } else {
                    u32::from_le_bytes(scope)
                };
                Some(Self::Inet(SocketAddr::V6(SocketAddrV6::new(
                    ip.into(),
                    port,
                    flow,
                    scope,
                ))))
            }
            // What cannot be written back byte for byte stays as it is.
            (AF_INET | AF_SDP, SIZE_V4) if bytes.get(8..)? == [0; 8] => {
                let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
                let addr = SocketAddrV4::new(ip.into(), port);
                Some(if family == AF_INET {
                    Self::Inet(addr.into())
                } else {
                    Self::Other4 { family, addr }
                })
            }
            _ => None,
        }
    }

    /// The word before the address in drbd.conf: `ipv4`, `ipv6`.
    #[must_use]
    pub fn family_word(&self) -> String {
        let text = self.to_string();
        text.split(':').next().unwrap_or_default().to_owned()
    }

    /// The bytes of the socket address.
    #[must_use]
    pub fn to_wire(&self, big: bool) -> Vec<u8> {
        let family = |nr: u16| {
            if big {
                nr.to_be_bytes()
            } else {
                nr.to_le_bytes()
            }
        };
        let v4 = |nr: u16, addr: &SocketAddrV4| {
            let mut bytes = Vec::with_capacity(SIZE_V4);
            bytes.extend_from_slice(&family(nr));
            bytes.extend_from_slice(&addr.port().to_be_bytes());
            bytes.extend_from_slice(&addr.ip().octets());
            bytes.resize(SIZE_V4, 0);
            bytes
        };
        match self {
            Self::Inet(SocketAddr::V4(addr)) => v4(AF_INET, addr),
            Self::Other4 { family, addr } => v4(*family, addr),
            Self::Inet(SocketAddr::V6(addr)) => {
                let mut bytes = Vec::with_capacity(SIZE_V6);
                bytes.extend_from_slice(&family(AF_INET6));
                bytes.extend_from_slice(&addr.port().to_be_bytes());
                bytes.extend_from_slice(&addr.flowinfo().to_be_bytes());
                bytes.extend_from_slice(&addr.ip().octets());
                let scope = addr.scope_id();
                bytes.extend_from_slice(&if big {
                    scope.to_be_bytes()
                } else {
                    scope.to_le_bytes()
                });
                bytes
            }
            Self::Raw(bytes) => bytes.to_vec(),
        }
    }

    /// The IP address and port, whatever the family.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(addr) => Some(*addr),
            Self::Other4 { addr, .. } => Some((*addr).into()),
            Self::Raw(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Inet(addr)
    }
}

impl From<(Ipv4Addr, u16)> for Address {
    fn from((ip, port): (Ipv4Addr, u16)) -> Self {
        Self::Inet((ip, port).into())
    }
}

impl From<(Ipv6Addr, u16)> for Address {
    fn from((ip, port): (Ipv6Addr, u16)) -> Self {
        Self::Inet((ip, port).into())
    }
}

impl From<(IpAddr, u16)> for Address {
    fn from(pair: (IpAddr, u16)) -> Self {
        Self::Inet(pair.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(SocketAddr::V4(addr)) => write!(f, "ipv4:{addr}"),
            Self::Inet(SocketAddr::V6(addr)) => write!(f, "ipv6:{addr}"),
            Self::Other4 {
                family: AF_SDP,
                addr,
            } => write!(f, "sdp:{addr}"),
            Self::Other4 { family, addr } => write!(f, "af{family}:{addr}"),
            Self::Raw(bytes) => {
                f.write_str("raw:")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// Text that is not an address in drbdsetup's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAddress(String);

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not an address like ipv4:10.0.0.1:7788 or ipv6:[::1]:7788",
            self.0
        )
    }
}

impl std::error::Error for InvalidAddress {}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (family, rest) = match text.split_once(':') {
            Some((word @ ("ipv4" | "ipv6" | "sdp" | "ssocks"), rest)) => (word, rest),
            _ => ("", text),
        };
        let invalid = || InvalidAddress(text.to_owned());
        let addr: SocketAddr = rest.parse().map_err(|_| invalid())?;
        match (family, addr) {
            ("sdp" | "ssocks", SocketAddr::V4(addr)) => Ok(Self::Other4 {
                family: AF_SDP,
                addr,
            }),
            ("" | "ipv4", SocketAddr::V4(_)) | ("" | "ipv6", SocketAddr::V6(_)) => {
                Ok(Self::Inet(addr))
            }
            _ => Err(invalid()),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The two ends of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct AddressPair {
    /// This node's end.
    pub local: Address,
    /// The peer's end.
    pub remote: Address,
}

impl fmt::Display for AddressPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.local, self.remote)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn both_families_round_trip() {
        for text in [
            "ipv4:10.77.0.1:7000",
            "ipv6:[fd77::1]:7001",
            "ipv6:[fe80::1%3]:7001",
            "sdp:10.0.0.1:1",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            for big in [false, true] {
                assert_eq!(Address::from_wire(&address.to_wire(big), big), address);
            }
        }
        let wire = [2, 0, 0x1b, 0x58, 10, 77, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            Address::from_wire(&wire, false).to_string(),
            "ipv4:10.77.0.1:7000"
        );
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        for wire in [
            &[][..],
            &[1],
            &[2, 0, 1, 2, 3, 4, 5, 6, 9, 9, 9, 9, 9, 9, 9, 9],
        ] {
            let address = Address::from_wire(wire, false);
            assert_eq!(address, Address::Raw(wire.into()));
            assert_eq!(address.to_wire(false), wire);
        }
        assert!("ipv4:[::1]:1".parse::<Address>().is_err());
        assert!("ipv4:10.0.0.1".parse::<Address>().is_err());
    }
}
