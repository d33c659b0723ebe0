//! The size of a file system on its devices, while it is mounted.

use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::error::{Error, Request, Result};
use crate::subvolume::target;
use crate::types::Bytes;
use crate::uapi;

/// The size that [`resize`] gives a file system on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Size {
    /// All of the device, as large as it is now.
    Max,
    /// This many bytes, rounded down to whole sectors.
    Bytes(Bytes),
}

/// What [`resize`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Resized {
    /// The size on this device before.
    pub before: Bytes,
    /// The size on this device now.
    pub after: Bytes,
}

/// Changes the size of the mounted file system of `fd` on the device `devid`
/// (1 where there is only one; see [`devices`](crate::devices)).
///
/// Growing is quick. Shrinking moves what is in the way, and blocks for as long
/// as that takes. Durable when it returns. Growing the block device below comes
/// first (for DRBD: on both nodes, then the resource); shrinking it, last.
///
/// # Errors
///
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for no such device;
/// [`ErrorKind::InvalidSize`](crate::ErrorKind::InvalidSize) below 256 MiB or
/// beyond the end of the device; [`ErrorKind::NoSpace`](crate::ErrorKind::NoSpace)
/// if what is there does not fit; [`ErrorKind::Busy`](crate::ErrorKind::Busy)
/// while a balance, a replacement or another resize runs.
///
/// # Privileges
///
/// `CAP_SYS_ADMIN`.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = std::fs::File::open("/srv/store1")?;
/// let resized = btrfs_ops::resize(&store, 1, btrfs_ops::Size::Max)?;
/// println!("{} -> {} bytes", resized.before, resized.after);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "BTRFS_IOC_RESIZE")]
pub fn resize(fd: impl AsFd, devid: u64, size: Size) -> Result<Resized> {
    let fd = fd.as_fd();
    let shown = || format!("device {devid} of {}", target(fd));
    let wrap = |errno| Error::ioctl(Request::Resize, shown(), fd, errno);
    let total = || uapi::dev_info(fd, devid).map(|args| Bytes(args.total_bytes));
    let before = total().map_err(wrap)?;
    let text = match size {
        Size::Max => format!("{devid}:max"),
        Size::Bytes(Bytes(bytes)) => format!("{devid}:{bytes}"),
    };
    match uapi::resize(fd, &text) {
        Ok(()) => {}
        // Already that large, on kernels that say so.
        Err(Errno::EINVAL) if size == Size::Bytes(before) => {}
        Err(errno) => return Err(wrap(errno)),
    }
    let after = total().map_err(wrap)?;
    Ok(Resized { before, after })
}
