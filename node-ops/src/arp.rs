//! Telling neighbours where an address is now.
//!
//! After a container moved to another node, the neighbours still have its old
//! place in their caches and switches in their tables. A gratuitous ARP from the
//! new place corrects both.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use crate::error::{Error, ErrorKind, Result};
use crate::links::MacAddress;
use crate::sys;

/// Time between two announcements.
const INTERVAL: Duration = Duration::from_millis(100);

/// Announces, `count` times, that `address` is at `mac`: broadcast frames out of
/// the interface `ifname`, from `mac`, with an ARP request for the address by
/// its owner (RFC 5227, section 3).
///
/// `mac` need not be that of `ifname`: with the container's address and MAC this
/// can be sent from the host, out of the bridge that has the container's veth as
/// a port, and all other ports see it. To send it from inside, use
/// [`in_network_namespace_of`](crate::netns::in_network_namespace_of).
///
/// Frames are 100 ms apart; the call returns after the last one. That they were
/// sent says nothing about who heard them. A neighbour that does not have the
/// address in its cache takes no notice, by Linux's default.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such interface;
/// [`ErrorKind::NotReady`] if it is down; [`ErrorKind::InvalidArgument`] for
/// an address that cannot be a host's, and for a group MAC.
///
/// # Privileges
///
/// `CAP_NET_RAW`.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// node_ops::arp::announce("br0", "10.1.0.20".parse()?, "00:16:3e:00:00:14".parse()?, 3)?;
/// # Ok(())
/// # }
/// ```
pub fn announce(ifname: &str, address: Ipv4Addr, mac: MacAddress, count: u32) -> Result<()> {
    const OP: &str = "announce";
    let shown = || format!("{address} at {mac} out of {ifname}");
    let refuse = |text| {
        Err(Error::message(
            ErrorKind::InvalidArgument,
            OP,
            shown(),
            text,
        ))
    };
    if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        return refuse("not the address of a host");
    }
    if mac.octets()[0] & 1 != 0 || mac.octets() == [0; 6] {
        return refuse("not the MAC of a host");
    }
    let index = if_nametoindex(ifname).map_err(|errno| {
        Error::os(OP, shown(), errno).with_text(format!("no interface {ifname}"))
    })?;
    let socket = sys::packet_socket().map_err(|errno| Error::os(OP, shown(), errno))?;
    let frame = frame(address, mac);
    for round in 0..count {
        if round > 0 {
            thread::sleep(INTERVAL);
        }
        sys::send_frame(socket.as_fd(), index, &frame).map_err(|errno| {
            let error = Error::os(OP, shown(), errno);
            if errno == nix::errno::Errno::ENETDOWN {
                return error.with_kind(ErrorKind::NotReady);
            }
            error
        })?;
    }
    Ok(())
}

/// An Ethernet frame with an ARP request for one's own address.
fn frame(address: Ipv4Addr, mac: MacAddress) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend([0xff; 6]); // to everyone
    frame.extend(mac.octets());
    frame.extend(0x0806u16.to_be_bytes()); // ARP
    frame.extend(1u16.to_be_bytes()); // hardware: Ethernet
    frame.extend(0x0800u16.to_be_bytes()); // protocol: IPv4
    frame.extend([6, 4]); // their lengths
    frame.extend(1u16.to_be_bytes()); // request
    frame.extend(mac.octets()); // sender
    frame.extend(address.octets());
    frame.extend([0; 6]); // target: unknown MAC, the same address
    frame.extend(address.octets());
    frame.resize(60, 0); // the least an Ethernet frame has
    frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn layout() {
        let mac = "02:00:5e:10:20:30".parse().unwrap();
        let frame = frame(Ipv4Addr::new(10, 1, 0, 20), mac);
        let expected = "ffffffffffff02005e1020300806000108000604000102005e1020300a010014\
                        0000000000000a010014";
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..84], expected);
        assert_eq!(hex[84..], "0".repeat(36));
    }

    #[test]
    fn what_cannot_be_a_host() {
        let mac: MacAddress = "02:00:5e:10:20:30".parse().unwrap();
        for address in [
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(224, 0, 0, 1),
        ] {
            let error = announce("lo", address, mac, 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        let group = "01:00:5e:10:20:30".parse().unwrap();
        let error = announce("lo", Ipv4Addr::new(10, 0, 0, 1), group, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = announce("none-such", Ipv4Addr::new(10, 0, 0, 1), mac, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
