//! What is done to a container that runs.

use std::ffi::{CStr, c_char};
use std::ptr;

use crate::container::Container;
use crate::os;
use crate::sys::{self, call};
use crate::wire::{Failure, Reply, Verb};
use crate::{c_string, optional, pointer, yes, zero};

pub(crate) fn run(container: &Container, verb: &Verb) -> Result<Reply, Failure> {
    let object = &container.0;
    match verb {
        Verb::CgroupSet { key, value } => {
            let (key, value) = (c_string(key)?, c_string(value)?);
            yes(call!(object, set_cgroup_item(key.as_ptr(), value.as_ptr()) else false))
        }
        Verb::Interfaces => Ok(list(call!(object, get_interfaces() else ptr::null_mut()))),
        Verb::Addresses {
            interface,
            family,
            scope,
        } => {
            let (interface, family) = (optional(interface)?, optional(family)?);
            let (interface, family) = (pointer(&interface), pointer(&family));
            Ok(list(
                call!(object, get_ips(interface, family, *scope) else ptr::null_mut()),
            ))
        }
        Verb::AttachInterface { device, inside } => {
            let (device, inside) = (c_string(device)?, optional(inside)?);
            let inside = pointer(&inside);
            yes(call!(object, attach_interface(device.as_ptr(), inside) else false))
        }
        Verb::DetachInterface { device, outside } => {
            let (device, outside) = (c_string(device)?, optional(outside)?);
            let outside = pointer(&outside);
            yes(call!(object, detach_interface(device.as_ptr(), outside) else false))
        }
        // With a path of its own inside, liblxc takes the numbers of what the
        // host has at that path: not offered.
        Verb::AddDevice { device } => {
            let device = c_string(device)?;
            yes(call!(object, add_device_node(device.as_ptr(), ptr::null()) else false))
        }
        Verb::RemoveDevice { device } => {
            let device = c_string(device)?;
            yes(call!(object, remove_device_node(device.as_ptr(), ptr::null()) else false))
        }
        Verb::Mount { mount } => {
            let (source, target) = (optional(&mount.source)?, c_string(&mount.target)?);
            let (kind, data) = (optional(&mount.kind)?, optional(&mount.data)?);
            let (source, kind, data) = (pointer(&source), pointer(&kind), pointer(&data));
            let mut version = sys::lxc_mount {
                version: sys::LXC_MOUNT_API_V1 as i32,
            };
            zero(
                call!(object, mount(source, target.as_ptr(), kind, mount.flags, data.cast(), &mut version) else -1),
            )
        }
        Verb::Umount { target, flags } => {
            let target = c_string(target)?;
            let mut version = sys::lxc_mount {
                version: sys::LXC_MOUNT_API_V1 as i32,
            };
            zero(call!(object, umount(target.as_ptr(), *flags, &mut version) else -1))
        }
        _ => Err(crate::internal("not a verb for a running container")),
    }
}

/// Copies an array of strings that ends in null, and frees it. Null is none.
fn list(strings: *mut *mut c_char) -> Reply {
    let mut list = Vec::new();
    if strings.is_null() {
        return Reply::List { list };
    }
    for index in 0.. {
        // SAFETY: liblxc made an array that ends in a null pointer, which is
        // where this stops.
        let string = unsafe { *strings.add(index) };
        if string.is_null() {
            break;
        }
        // SAFETY: not null, a C string of that array.
        list.push(unsafe { CStr::from_ptr(string) }.to_bytes().to_vec());
        os::free(string.cast());
    }
    os::free(strings.cast());
    Reply::List { list }
}
