//! Network links by rtnetlink: bridges, veth pairs, addresses.
//!
//! All functions work in the network namespace of the calling thread. Verbs that
//! find things as asked for say [`Outcome::AlreadyThere`]; a link of the same
//! name but another kind is an error. They block while the kernel holds its
//! lock for network configuration, and return when the change is made.

mod socket;
mod wire;

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::str::FromStr;

use nix::errno::Errno;

use self::wire::{ACK, CREATE, EXCL, Request, ifinfo, string, u32_of};
use crate::Outcome;
use crate::error::{Error, ErrorKind, Result};

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
// linux/veth.h
const VETH_INFO_PEER: u16 = 1;
// linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
// linux/if.h
const IFF_UP: u32 = 0x1;
const IFF_RUNNING: u32 = 0x40;
/// `IFNAMSIZ`, with the NUL.
const IFNAMSIZ: usize = 16;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// Takes the six bytes.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The six bytes in the order of the wire.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacAddress({self})")
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    /// Reads six groups of two hexadecimal digits with colons between them.
    fn from_str(text: &str) -> Result<Self> {
        let mut octets = [0; 6];
        let mut groups = text.split(':');
        let mut read = || {
            for octet in &mut octets {
                let group = groups.next()?;
                let digits = group.len() == 2 && group.bytes().all(|b| b.is_ascii_hexdigit());
                *octet = u8::from_str_radix(group, 16).ok().filter(|_| digits)?;
            }
            groups.next().is_none().then_some(())
        };
        match read() {
            Some(()) => Ok(Self(octets)),
            None => {
                let expected = "expected six groups of two hexadecimal digits, xx:xx:xx:xx:xx:xx";
                Err(Error::message(
                    ErrorKind::InvalidArgument,
                    "MAC address",
                    text,
                    expected,
                ))
            }
        }
    }
}

/// An address with the length of its network's prefix, such as `10.1.0.5/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Puts them together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] if the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            let text = format!("the prefix is longer than the address, which has {bits} bits");
            let shown = format!("{address}/{prefix}");
            return Err(Error::message(
                ErrorKind::InvalidArgument,
                "address",
                shown,
                text,
            ));
        }
        Ok(Self { address, prefix })
    }

    /// The address.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Bits of the network.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text
            .split_once('/')
            .and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
        match parsed {
            Some((address, prefix)) => Self::new(address, prefix),
            None => {
                let expected = "expected an address and its prefix, as in 10.1.0.5/24";
                Err(Error::message(
                    ErrorKind::InvalidArgument,
                    "address",
                    text,
                    expected,
                ))
            }
        }
    }
}

#[cfg(feature = "serde")]
mod serde_impl {
    use super::{Cidr, MacAddress};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
    use std::borrow::Cow;

    impl Serialize for MacAddress {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_str(self)
        }
    }
    impl<'de> Deserialize<'de> for MacAddress {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            <Cow<'de, str>>::deserialize(from)?
                .parse()
                .map_err(D::Error::custom)
        }
    }
    impl Serialize for Cidr {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_str(self)
        }
    }
    impl<'de> Deserialize<'de> for Cidr {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            <Cow<'de, str>>::deserialize(from)?
                .parse()
                .map_err(D::Error::custom)
        }
    }
}

/// Whether a link can carry packets (RFC 2863; `IF_OPER_*`, linux/if.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum OperState {
    /// The driver does not say (0), as for a loopback.
    Unknown,
    /// Not able to carry packets (2).
    Down,
    /// Waiting for the link below (3).
    LowerLayerDown,
    /// Waiting for something outside, such as authentication (5).
    Dormant,
    /// Able to carry packets (6).
    Up,
    /// A value without a name here, as received.
    Other(u8),
}

impl From<u8> for OperState {
    fn from(value: u8) -> Self {
        match value {
            0 => Self::Unknown,
            2 => Self::Down,
            3 => Self::LowerLayerDown,
            5 => Self::Dormant,
            6 => Self::Up,
            other => Self::Other(other),
        }
    }
}

/// A network link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// Has a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// What the driver says.
    pub oper_state: OperState,
    /// Its MAC; `None` for links of another kind.
    pub mac: Option<MacAddress>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// Kind of a virtual link: `bridge`, `veth`; `None` for hardware.
    pub kind: Option<String>,
    /// Number of the bridge, or other master, it is a port of.
    pub master: Option<u32>,
    /// Number of the link it is tied to: the other end of a veth, which may be
    /// in another namespace and have a number that means another link here.
    pub peer: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<Cidr>,
}

/// Lists all links of this network namespace, with their addresses.
///
/// A link that changes meanwhile makes the kernel say so, and it is asked again.
///
/// # Errors
///
/// [`ErrorKind::Malformed`] if an answer breaks the protocol.
#[doc(alias = "RTM_GETLINK", alias = "RTM_GETADDR")]
pub fn list() -> Result<Vec<Link>> {
    const OP: &str = "list links";
    let links = std::cell::RefCell::new(Vec::new());
    socket::dump(
        OP,
        RTM_GETLINK,
        &ifinfo(0, 0, 0),
        &mut |kind, body| {
            if kind == RTM_NEWLINK {
                links.borrow_mut().push(parse_link(body)?);
            }
            Some(())
        },
        &mut || links.borrow_mut().clear(),
    )?;
    let addresses = std::cell::RefCell::new(Vec::new());
    socket::dump(
        OP,
        RTM_GETADDR,
        // struct ifaddrmsg, of any family
        &[0; 8],
        &mut |kind, body| {
            if kind == RTM_NEWADDR {
                addresses.borrow_mut().extend(parse_address(body)?);
            }
            Some(())
        },
        &mut || addresses.borrow_mut().clear(),
    )?;
    let mut links: Vec<Link> = links.into_inner();
    for (index, address) in addresses.into_inner() {
        if let Some(link) = links.iter_mut().find(|link| link.index == index) {
            link.addresses.push(address);
        }
    }
    Ok(links)
}

/// The link of this name.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is none.
pub fn link(name: &str) -> Result<Link> {
    find("find link", name)
}

fn find(op: &'static str, name: &str) -> Result<Link> {
    check_name(op, name)?;
    list()?
        .into_iter()
        .find(|link| link.name == name)
        .ok_or_else(|| Error::os(op, name, Errno::ENODEV).with_text("there is no such link"))
}

/// Creates a bridge, down and without ports. The MAC of a bridge that was given
/// none changes with its ports.
///
/// # Errors
///
/// [`ErrorKind::AlreadyExists`] if the name is that of another kind of link;
/// [`ErrorKind::Unsupported`] if the kernel has no bridges: load the module
/// `bridge`.
///
/// # Privileges
///
/// `CAP_NET_ADMIN`, as for all changes here.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use node_ops::links;
/// links::create_bridge("br0")?;
/// links::add_port("br0", "eth0")?;
/// links::add_address("br0", "10.1.0.5/24".parse()?)?;
/// links::set_up("br0")?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "RTM_NEWLINK")]
pub fn create_bridge(name: &str) -> Result<Outcome> {
    const OP: &str = "create bridge";
    check_name(OP, name)?;
    let mut request = Request::new(RTM_NEWLINK, ACK | CREATE | EXCL, &ifinfo(0, 0, 0));
    request
        .string(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "bridge");
        });
    match socket::change(OP, name, request) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            match link(name)?.kind.as_deref() {
                Some("bridge") => Ok(Outcome::AlreadyThere),
                other => Err(of_kind(error, other)),
            }
        }
        other => other.map(|()| Outcome::Done),
    }
}

/// Creates a veth pair, both ends down. The end `peer` is put into the network
/// namespace of process `peer_namespace`, if one is given.
///
/// # Errors
///
/// [`ErrorKind::AlreadyExists`] if either name is taken, unless both are the
/// two ends of one veth here; [`ErrorKind::NotFound`] if there is no such
/// process.
///
/// # Privileges
///
/// `CAP_NET_ADMIN`, in the other namespace too.
pub fn create_veth(name: &str, peer: &str, peer_namespace: Option<u32>) -> Result<Outcome> {
    const OP: &str = "create veth";
    check_name(OP, name)?;
    check_name(OP, peer)?;
    let shown = format!("{name} and {peer}");
    let namespace = match peer_namespace {
        None => None,
        Some(pid) => {
            let path = format!("/proc/{pid}/ns/net");
            let file = File::open(&path).map_err(|error| {
                Error::io(OP, &shown, error).with_text(format!("namespace of process {pid}"))
            })?;
            Some(file)
        }
    };
    let mut request = Request::new(RTM_NEWLINK, ACK | CREATE | EXCL, &ifinfo(0, 0, 0));
    request
        .string(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "veth")
                .nest(IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |end| {
                        end.raw(&ifinfo(0, 0, 0)).string(IFLA_IFNAME, peer);
                        if let Some(file) = &namespace {
                            end.attr(IFLA_NET_NS_FD, &file.as_raw_fd().to_ne_bytes());
                        }
                    });
                });
        });
    match socket::change(OP, &shown, request) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            let links = list()?;
            let by_name = |name: &str| links.iter().find(|link| link.name == name);
            match (by_name(name), by_name(peer)) {
                (Some(a), Some(b))
                    if peer_namespace.is_none()
                        && a.kind.as_deref() == Some("veth")
                        && a.peer == Some(b.index)
                        && b.peer == Some(a.index) =>
                {
                    Ok(Outcome::AlreadyThere)
                }
                _ => Err(error),
            }
        }
        other => other.map(|()| Outcome::Done),
    }
}

/// Deletes a virtual link; with a veth its other end goes too, and the ports of
/// a bridge stay. One that is not there is not an error.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] for hardware.
#[doc(alias = "RTM_DELLINK")]
pub fn delete_link(name: &str) -> Result<Outcome> {
    const OP: &str = "delete link";
    check_name(OP, name)?;
    let mut request = Request::new(RTM_DELLINK, ACK, &ifinfo(0, 0, 0));
    request.string(IFLA_IFNAME, name);
    match socket::change(OP, name, request) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Outcome::AlreadyThere),
        other => other.map(|()| Outcome::Done),
    }
}

/// Makes `port` a port of `bridge`.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if one of them does not exist;
/// [`ErrorKind::AlreadyExists`] if `port` is a port of another bridge: taking
/// it away from there is [`remove_port`].
#[doc(alias = "IFLA_MASTER")]
pub fn add_port(bridge: &str, port: &str) -> Result<Outcome> {
    const OP: &str = "add port";
    let shown = format!("{port} to {bridge}");
    let bridge = find(OP, bridge)?;
    let port = find(OP, port)?;
    match port.master {
        Some(master) if master == bridge.index => return Ok(Outcome::AlreadyThere),
        Some(master) => {
            let text = format!("it is a port of the link with number {master}");
            return Err(Error::message(ErrorKind::AlreadyExists, OP, shown, text));
        }
        None => {}
    }
    set_master(OP, &shown, port.index, bridge.index)
}

/// Takes a port out of its bridge.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such link. One that is not a port of
/// anything is not an error.
pub fn remove_port(port: &str) -> Result<Outcome> {
    const OP: &str = "remove port";
    let link = find(OP, port)?;
    match link.master {
        None => Ok(Outcome::AlreadyThere),
        Some(_) => set_master(OP, port, link.index, 0),
    }
}

fn set_master(op: &'static str, shown: &str, port: u32, master: u32) -> Result<Outcome> {
    let mut request = Request::new(RTM_NEWLINK, ACK, &ifinfo(port, 0, 0));
    request.attr(IFLA_MASTER, &master.to_ne_bytes());
    socket::change(op, shown, request).map(|()| Outcome::Done)
}

/// Sets a link up.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such link.
pub fn set_up(name: &str) -> Result<Outcome> {
    set_flag("set up", name, true)
}

/// Sets a link down.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such link.
pub fn set_down(name: &str) -> Result<Outcome> {
    set_flag("set down", name, false)
}

fn set_flag(op: &'static str, name: &str, up: bool) -> Result<Outcome> {
    let link = find(op, name)?;
    if link.up == up {
        return Ok(Outcome::AlreadyThere);
    }
    let body = ifinfo(link.index, if up { IFF_UP } else { 0 }, IFF_UP);
    socket::change(op, name, Request::new(RTM_NEWLINK, ACK, &body)).map(|()| Outcome::Done)
}

/// Changes the MAC of a link.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such link, and what the driver said.
#[doc(alias = "IFLA_ADDRESS")]
pub fn set_mac(name: &str, mac: MacAddress) -> Result<Outcome> {
    const OP: &str = "set MAC of";
    let link = find(OP, name)?;
    if link.mac == Some(mac) {
        return Ok(Outcome::AlreadyThere);
    }
    let mut request = Request::new(RTM_NEWLINK, ACK, &ifinfo(link.index, 0, 0));
    request.attr(IFLA_ADDRESS, &mac.octets());
    socket::change(OP, name, request).map(|()| Outcome::Done)
}

/// Gives a link an address.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such link.
#[doc(alias = "RTM_NEWADDR")]
pub fn add_address(name: &str, address: Cidr) -> Result<Outcome> {
    const OP: &str = "add address";
    change_address(
        OP,
        RTM_NEWADDR,
        ACK | CREATE | EXCL,
        name,
        address,
        libc::EEXIST,
    )
}

/// Takes an address from a link. One that it does not have is not an error.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such link.
#[doc(alias = "RTM_DELADDR")]
pub fn delete_address(name: &str, address: Cidr) -> Result<Outcome> {
    const OP: &str = "delete address";
    change_address(OP, RTM_DELADDR, ACK, name, address, libc::EADDRNOTAVAIL)
}

fn change_address(
    op: &'static str,
    kind: u16,
    flags: u16,
    name: &str,
    address: Cidr,
    nothing_to_do: i32,
) -> Result<Outcome> {
    let link = find(op, name)?;
    let (family, bytes) = match address.address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    // struct ifaddrmsg: family, prefix length, flags, scope, link
    let family = u8::try_from(family).expect("these families are small numbers");
    let mut body = vec![family, address.prefix, 0, 0];
    body.extend(link.index.to_ne_bytes());
    let mut request = Request::new(kind, flags, &body);
    request.attr(IFA_LOCAL, &bytes).attr(IFA_ADDRESS, &bytes);
    match socket::change(op, &format!("{address} of {name}"), request) {
        Err(error) if error.raw_os_error() == Some(nothing_to_do) => Ok(Outcome::AlreadyThere),
        other => other.map(|()| Outcome::Done),
    }
}

fn of_kind(error: Error, kind: Option<&str>) -> Error {
    error.with_text(format!(
        "the name is that of a {} link",
        kind.unwrap_or("hardware")
    ))
}

/// The kernel cuts nothing off, but its answers to wrong names differ.
fn check_name(op: &'static str, name: &str) -> Result<()> {
    let wrong = match name {
        "" => "the name is empty",
        "." | ".." => "not a name for a link",
        _ if name.len() >= IFNAMSIZ => "the name is longer than 15 bytes",
        _ if name
            .bytes()
            .any(|b| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace()) =>
        {
            "a name has no '/', ':', blank or NUL"
        }
        _ => return Ok(()),
    };
    Err(Error::message(ErrorKind::InvalidArgument, op, name, wrong))
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let (head, attrs) = body.split_at_checked(16)?;
    let flags = u32_of(head.get(8..)?)?;
    let mut link = Link {
        index: u32_of(head.get(4..)?)?,
        name: String::new(),
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        oper_state: OperState::Unknown,
        mac: None,
        mtu: None,
        kind: None,
        master: None,
        peer: None,
        addresses: Vec::new(),
    };
    for attr in wire::attributes(attrs) {
        let (kind, value) = attr?;
        match kind {
            IFLA_IFNAME => link.name = string(value),
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddress),
            IFLA_MTU => link.mtu = Some(u32_of(value)?),
            IFLA_LINK => link.peer = Some(u32_of(value)?),
            IFLA_MASTER => link.master = Some(u32_of(value)?),
            IFLA_OPERSTATE => link.oper_state = (*value.first()?).into(),
            IFLA_LINKINFO => {
                for attr in wire::attributes(value) {
                    let (kind, value) = attr?;
                    if kind == IFLA_INFO_KIND {
                        link.kind = Some(string(value));
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}

/// `None`: it lacks a part. `Some(None)`: not an IP address.
#[expect(clippy::option_option, reason = "two answers that differ")]
fn parse_address(body: &[u8]) -> Option<Option<(u32, Cidr)>> {
    let (head, attrs) = body.split_at_checked(8)?;
    let (family, prefix) = (i32::from(head[0]), head[1]);
    let index = u32_of(&head[4..])?;
    let (mut local, mut address) = (None, None);
    for attr in wire::attributes(attrs) {
        let (kind, value) = attr?;
        match kind {
            IFA_LOCAL => local = Some(value),
            IFA_ADDRESS => address = Some(value),
            _ => {}
        }
    }
    // On a point-to-point link the other one is the far end's.
    let ip = |bytes: &[u8]| -> Option<IpAddr> {
        match family {
            libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
            libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
            _ => None,
        }
    };
    let address = local.or(address).and_then(ip);
    Some(address.map(|address| (index, Cidr { address, prefix })))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn mac_addresses() {
        let mac: MacAddress = "52:54:00:AB:cd:01".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
        for wrong in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:01:02",
            "52:54:00:ab:cd:+1",
            "5254:0",
        ] {
            assert!(wrong.parse::<MacAddress>().is_err(), "accepted {wrong}");
        }
    }

    #[test]
    fn addresses() {
        let cidr: Cidr = "10.1.0.5/24".parse().unwrap();
        assert_eq!(
            (cidr.to_string().as_str(), cidr.prefix()),
            ("10.1.0.5/24", 24)
        );
        assert!("fe80::1/64".parse::<Cidr>().is_ok());
        for wrong in [
            "10.1.0.5",
            "10.1.0.5/33",
            "10.1.0/24",
            "10.1.0.5/x",
            "::/129",
        ] {
            assert!(wrong.parse::<Cidr>().is_err(), "accepted {wrong}");
        }
    }

    #[test]
    fn names() {
        for wrong in ["", ".", "..", "a b", "a/b", "a:b", "sixteen-bytes-xx"] {
            assert_eq!(
                set_up(wrong).unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_loopback_is_there() {
        let links = list().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.index, lo.kind.as_deref()), (1, None));
        assert_eq!(link("none-such").unwrap_err().kind(), ErrorKind::NotFound);
    }
}
