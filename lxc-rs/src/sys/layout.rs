//! The layout of `struct lxc_container`, asserted at compile time.
//!
//! The binary interface of liblxc is the offsets of these members. They have
//! only been appended to since 4.0.5; before that the order changed twice
//! under the same library name, hence the version gate in `library.rs`.

use std::mem::{offset_of, size_of};

use super::bindings::{
    bdev_specs, lxc_attach_options_t, lxc_console_log, lxc_container, lxc_log, lxc_snapshot,
    migrate_opts,
};

macro_rules! slots {
    ($($slot:ident),* $(,)?) => {
        /// Every function pointer of `struct lxc_container`, in order, with its offset.
        #[allow(dead_code, reason = "read by the test that compares it with the installed header")]
        pub(crate) const SLOTS: &[(&str, usize)] = &[$((stringify!($slot), offset_of!(lxc_container, $slot))),*];
    };
}

slots![
    is_defined,
    state,
    is_running,
    freeze,
    unfreeze,
    init_pid,
    load_config,
    start,
    startl,
    stop,
    want_daemonize,
    want_close_all_fds,
    config_file_name,
    wait,
    set_config_item,
    destroy,
    save_config,
    create,
    createl,
    rename,
    reboot,
    shutdown,
    clear_config,
    clear_config_item,
    get_config_item,
    get_running_config_item,
    get_keys,
    get_interfaces,
    get_ips,
    get_cgroup_item,
    set_cgroup_item,
    get_config_path,
    set_config_path,
    clone,
    console_getfd,
    console,
    attach,
    attach_run_wait,
    attach_run_waitl,
    snapshot,
    snapshot_list,
    snapshot_restore,
    snapshot_destroy,
    may_control,
    add_device_node,
    remove_device_node,
    attach_interface,
    detach_interface,
    checkpoint,
    restore,
    destroy_with_snapshots,
    snapshot_destroy_all,
    migrate,
    console_log,
    reboot2,
    mount,
    umount,
    seccomp_notify_fd,
    seccomp_notify_fd_active,
    init_pidfd,
    devpts_fd,
    set_timeout,
];

const _: () = assert!(SLOTS.len() == 62);

#[cfg(target_pointer_width = "64")]
const _: () = {
    // 61 pointers without a gap, then a private int, then set_timeout (6.0.0).
    let mut slot = 0;
    while slot < 61 {
        assert!(SLOTS[slot].1 == 80 + 8 * slot);
        slot += 1;
    }
    assert!(offset_of!(lxc_container, rcv_timeout) == 568);
    assert!(SLOTS[61].1 == 576);
    assert!(size_of::<lxc_container>() == 584);

    // What the caller allocates: always in the newest layout, because these
    // grew at their tails without telling the library their size.
    assert!(size_of::<lxc_attach_options_t>() == 96);
    assert!(size_of::<bdev_specs>() == 80);
    assert!(size_of::<migrate_opts>() == 80);
    assert!(size_of::<lxc_log>() == 48);
    assert!(size_of::<lxc_console_log>() == 24);
    assert!(size_of::<lxc_snapshot>() == 40);
};
