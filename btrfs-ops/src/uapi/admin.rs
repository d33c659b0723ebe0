//! Requests that change a whole file system.

use std::mem::size_of;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::request_code_write;

use super::{MAGIC, Request, VolArgs, call, put_name};

/// `BTRFS_ERROR_DEV_EXCL_RUN_IN_PROGRESS`: what a request *returns*, without an
/// errno, when another exclusive operation runs.
const EXCL_RUN_IN_PROGRESS: i32 = 8;

pub(super) const RESIZE: Request = request_code_write!(MAGIC, 3, size_of::<VolArgs>());
/// For `REQUESTS` of the tests beside this file.
#[cfg(test)]
pub(super) const REQUESTS: &[(&str, &str, Request, usize)] = &[(
    "BTRFS_IOC_RESIZE",
    "struct btrfs_ioctl_vol_args",
    RESIZE,
    size_of::<VolArgs>(),
)];

/// Turns what a request returned, beside its errno, into an errno.
fn exclusive(value: i32) -> Result<(), Errno> {
    match value {
        0 => Ok(()),
        EXCL_RUN_IN_PROGRESS => Err(Errno::EBUSY),
        _ => Err(Errno::EINVAL),
    }
}

/// `BTRFS_IOC_RESIZE`: `text` is `DEVID:SIZE` or `DEVID:max`.
pub(crate) fn resize(fd: BorrowedFd<'_>, text: &str) -> Result<(), Errno> {
    let mut args = Box::new(VolArgs {
        fd: 0,
        name: [0; 4088],
    });
    put_name(&mut args.name, text.as_bytes())?;
    // SAFETY: the request reads one `VolArgs`, whose name ends in a NUL.
    exclusive(unsafe { call(fd, RESIZE, &raw mut *args) }?)
}
