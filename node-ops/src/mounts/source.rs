//! What may be mounted: a block device, named by its path.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::table::DeviceNumber;
use crate::error::{Error, ErrorKind, Result};

/// Checks that `device` is the path of a block device, and not a label or UUID
/// in any disguise: below DRBD the backing disk has the same ones.
pub(crate) fn check_device(op: &'static str, device: &Path) -> Result<DeviceNumber> {
    let shown = || device.display().to_string();
    let bytes = device.as_os_str().as_bytes();
    let tagged = [
        &b"LABEL="[..],
        b"UUID=",
        b"PARTLABEL=",
        b"PARTUUID=",
        b"ID=",
    ]
    .iter()
    .any(|tag| bytes.len() >= tag.len() && bytes[..tag.len()].eq_ignore_ascii_case(tag));
    let by_tag = device.components().any(|part| {
        let part = part.as_os_str().as_bytes();
        [
            &b"by-uuid"[..],
            b"by-label",
            b"by-partuuid",
            b"by-partlabel",
        ]
        .contains(&part)
    });
    if tagged || by_tag {
        let text = "a label or UUID may mean the backing disk below DRBD; name the device itself";
        return Err(Error::message(ErrorKind::NotBlockDevice, op, shown(), text));
    }
    if !device.is_absolute() {
        let text = "not an absolute path";
        return Err(Error::message(ErrorKind::NotBlockDevice, op, shown(), text));
    }
    let stat = fs::metadata(device).map_err(Error::path(op, device))?;
    if stat.mode() & libc::S_IFMT != libc::S_IFBLK {
        let text = "not a block device";
        return Err(Error::message(ErrorKind::NotBlockDevice, op, shown(), text));
    }
    Ok(DeviceNumber::from_raw(stat.rdev()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_paths_of_block_devices() {
        for wrong in [
            "LABEL=store1",
            "uuid=0f8a",
            "PARTUUID=1",
            "/dev/disk/by-uuid/0f8a",
            "/dev/disk/by-label/store1",
            "drbd0",
            "",
            "/dev/null",
            "/etc",
        ] {
            let error = check_device("mount", Path::new(wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotBlockDevice, "{wrong}: {error}");
        }
        let error = check_device("mount", Path::new("/dev/none-such")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
