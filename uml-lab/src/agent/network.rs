//! Brings links up and gives them addresses.

#![allow(unsafe_code, reason = "ioctl structures")]

use std::ffi::{c_int, c_ulong};
use std::io::{Error, Result};
use std::net::IpAddr;
use std::os::fd::AsFd;

use super::sys;

// <linux/sockios.h>
const SIOCGIFFLAGS: c_ulong = 0x8913;
const SIOCSIFFLAGS: c_ulong = 0x8914;
const SIOCSIFADDR: c_ulong = 0x8916;
const SIOCSIFNETMASK: c_ulong = 0x891c;
// <linux/if.h>
const IFF_UP: u16 = 1;

/// `struct ifreq` with the member that holds flags.
#[repr(C)]
struct FlagsRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `struct ifreq` with the member that holds a `struct sockaddr_in`.
#[repr(C)]
struct AddressRequest {
    name: [u8; 16],
    family: u16,
    port: u16,
    address: [u8; 4],
    rest: [u8; 16],
}

/// `struct in6_ifreq`, <linux/ipv6.h>.
#[repr(C)]
struct Address6Request {
    address: [u8; 16],
    prefix: u32,
    index: c_int,
}

const _: () = assert!(size_of::<FlagsRequest>() == 40 && size_of::<AddressRequest>() == 40);
const _: () = assert!(size_of::<Address6Request>() == 24);

fn name_field(name: &[u8]) -> Result<[u8; 16]> {
    let mut field = [0; 16];
    if name.len() >= field.len() {
        return Err(Error::from_raw_os_error(sys::EINVAL));
    }
    field[..name.len()].copy_from_slice(name);
    Ok(field)
}

pub(crate) fn set_up(name: &[u8]) -> Result<()> {
    let socket = sys::datagram_socket(sys::AF_INET)?;
    let mut request = FlagsRequest {
        name: name_field(name)?,
        flags: 0,
        rest: [0; 22],
    };
    // SAFETY: this request fills in the flags of one `struct ifreq`, whose
    // size is checked above.
    unsafe { sys::ioctl_with(socket.as_fd(), SIOCGIFFLAGS, &mut request) }?;
    request.flags |= IFF_UP;
    // SAFETY: this request reads one `struct ifreq`.
    unsafe { sys::ioctl_with(socket.as_fd(), SIOCSIFFLAGS, &mut request) }
}

pub(crate) fn add_address(name: &[u8], address: IpAddr, prefix: u8) -> Result<()> {
    match address {
        IpAddr::V4(address) => {
            let socket = sys::datagram_socket(sys::AF_INET)?;
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            for (request, bytes) in [
                (SIOCSIFADDR, address.octets()),
                (SIOCSIFNETMASK, mask.to_be_bytes()),
            ] {
                let mut argument = AddressRequest {
                    name: name_field(name)?,
                    family: sys::AF_INET as u16,
                    port: 0,
                    address: bytes,
                    rest: [0; 16],
                };
                // SAFETY: both requests read one `struct ifreq` that holds a
                // `struct sockaddr_in`; the size is checked above.
                unsafe { sys::ioctl_with(socket.as_fd(), request, &mut argument) }?;
            }
            Ok(())
        }
        IpAddr::V6(address) => {
            let socket = sys::datagram_socket(sys::AF_INET6)?;
            let mut argument = Address6Request {
                address: address.octets(),
                prefix: prefix.into(),
                index: sys::interface_index(name)?.cast_signed(),
            };
            // SAFETY: on an IPv6 socket this request reads one `struct
            // in6_ifreq`; the size is checked above.
            unsafe { sys::ioctl_with(socket.as_fd(), SIOCSIFADDR, &mut argument) }
        }
    }
}
