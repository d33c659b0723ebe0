//! Facts, plan, run, journal: checked and resumable failover of LXC on Btrfs on DRBD.
