//! This host, without policy: mounts, holders, links and bridges, ARP, kernel modules.
