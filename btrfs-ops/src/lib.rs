//! Btrfs subvolumes and snapshots by ioctl.
