//! The calls the verbs are made of.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ptr;

use crate::os;
use crate::sys::{self, Library, Object, call};
use crate::wire::{self, Edit, Failure, Reply};

pub(crate) struct Container(pub(crate) Object);

impl Container {
    pub(crate) fn open(library: Library, name: &CStr, lxcpath: &CStr) -> Result<Self, Failure> {
        Object::open(library, name, lxcpath)
            .map(Self)
            .ok_or(Failure::NotLoaded)
    }

    pub(crate) fn apply(&self, edits: &[Edit]) -> Result<(), Failure> {
        for (index, edit) in (0..).zip(edits) {
            let accepted = match edit {
                Edit::Set { key, value } => self
                    .0
                    .set_config_item(&crate::c_string(key)?, &crate::c_string(value)?),
                Edit::Clear { key } => self.0.clear_config_item(&crate::c_string(key)?),
            };
            if !accepted {
                return Err(Failure::Edit { index });
            }
        }
        Ok(())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.state() == b"STOPPED"
    }

    pub(crate) fn start(&self, argv: &[CString]) -> bool {
        call!(self.0, want_daemonize(true) else false);
        self.launch(argv)
    }

    /// Becomes the monitor; returns when the container has ended.
    pub(crate) fn run(&self, argv: &[CString]) -> Result<Reply, Failure> {
        call!(self.0, want_daemonize(false) else false);
        let ran = self.launch(argv);
        // Here, and only here, the number is a wait status, that of init; but
        // an init that was killed is put as one that was stopped.
        let status = match self.0.error_num() {
            stopped if stopped & 0xff == 0x7f => stopped >> 8,
            status => status,
        };
        match (ran, status) {
            (false, 0) => Err(Failure::Call { code: 0 }),
            (_, status) => Ok(Reply::Exited { status }),
        }
    }

    fn launch(&self, argv: &[CString]) -> bool {
        let pointers = crate::pointers(argv);
        // An empty array would be executed; null means the configured init.
        let argv = if argv.is_empty() {
            ptr::null()
        } else {
            pointers.as_ptr()
        };
        call!(self.0, start(0, argv.cast()) else false)
    }

    pub(crate) fn stop(&self) -> bool {
        call!(self.0, stop() else false)
    }

    /// Sends the halt signal; does not wait.
    pub(crate) fn halt(&self) -> bool {
        call!(self.0, shutdown(0) else false)
    }

    pub(crate) fn freeze(&self) -> bool {
        call!(self.0, freeze() else false)
    }

    pub(crate) fn unfreeze(&self) -> bool {
        call!(self.0, unfreeze() else false)
    }

    /// Sends the reboot signal; does not wait.
    pub(crate) fn reboot(&self) -> bool {
        call!(self.0, reboot2(0) else false)
    }

    pub(crate) fn destroy(&self) -> bool {
        call!(self.0, destroy() else false)
    }

    /// The snapshots and the container. liblxc refuses this for a container
    /// that never had a snapshot, and destroys nothing then.
    pub(crate) fn destroy_all(&self) -> bool {
        self.snapshot_destroy_all() && self.destroy()
    }

    fn snapshot_destroy_all(&self) -> bool {
        let mut list = ptr::null_mut();
        let count = call!(self.0, snapshot_list(&mut list) else -1);
        self.free_snapshots(list, count);
        count <= 0 || call!(self.0, snapshot_destroy_all() else false)
    }

    fn free_snapshots(&self, list: *mut sys::lxc_snapshot, count: i32) {
        if list.is_null() {
            return;
        }
        for index in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: liblxc made an array of `count` snapshots, each with a
            // function that frees what it points to.
            unsafe {
                let snapshot = list.add(index);
                if let Some(free) = (*snapshot).free {
                    free(snapshot);
                }
            }
        }
        os::free(list.cast());
    }

    /// Takes a snapshot and says its number. A comment would be the path of a
    /// file to copy, which liblxc 6.0 does not open through `/proc/self/fd`.
    pub(crate) fn snapshot(&self) -> Result<Reply, Failure> {
        let number = call!(self.0, snapshot(ptr::null()) else -1);
        if number < 0 {
            return Err(Failure::Call { code: number });
        }
        Ok(Reply::Number { number })
    }

    pub(crate) fn snapshot_destroy(&self, name: &CStr) -> bool {
        call!(self.0, snapshot_destroy(name.as_ptr()) else false)
    }

    pub(crate) fn clone_to(&self, clone: &wire::Clone) -> Result<bool, Failure> {
        let name = crate::c_string(&clone.name)?;
        let lxcpath = crate::c_string(&clone.lxcpath)?;
        let (backing, data) = (
            crate::optional(&clone.backing)?,
            crate::optional(&clone.data)?,
        );
        let arguments = crate::strings(&clone.hook_arguments)?;
        let mut arguments = crate::pointers(&arguments);
        let arguments = match clone.hook_arguments.is_empty() {
            true => ptr::null_mut(),
            false => arguments.as_mut_ptr(),
        };
        let (backing, data) = (crate::pointer(&backing), crate::pointer(&data));
        let made = call!(self.0, clone(
            name.as_ptr(), lxcpath.as_ptr(), clone.flags, backing, data, clone.size, arguments
        ) else ptr::null_mut());
        // The new object is not needed; this program ends right after.
        Ok(!made.is_null())
    }

    /// Creates the container by a template, or without one.
    pub(crate) fn create_by(&self, template: &wire::Template) -> Result<bool, Failure> {
        let (name, backing) = (
            crate::optional(&template.template)?,
            crate::c_string(&template.backing)?,
        );
        let (dir, filesystem) = (
            crate::optional(&template.dir)?,
            crate::optional(&template.filesystem)?,
        );
        let (group, volume) = (
            crate::optional(&template.lvm_group)?,
            crate::optional(&template.lvm_volume)?,
        );
        let (pool, root) = (
            crate::optional(&template.lvm_pool)?,
            crate::optional(&template.zfs_root)?,
        );
        let argv = crate::strings(&template.argv)?;
        let argv = crate::pointers(&argv);
        // SAFETY: plain pointers and numbers, for which zero means "not given".
        let mut specs: sys::bdev_specs = unsafe { std::mem::zeroed() };
        specs.fstype = crate::pointer(&filesystem);
        specs.fssize = template.size;
        specs.dir = crate::pointer(&dir);
        specs.lvm.vg = crate::pointer(&group);
        specs.lvm.lv = crate::pointer(&volume);
        specs.lvm.thinpool = crate::pointer(&pool);
        specs.zfs.zfsroot = crate::pointer(&root);
        let (name, backing) = (crate::pointer(&name), backing.as_ptr());
        Ok(call!(self.0, create(name, backing, &mut specs, 0, argv.as_ptr().cast()) else false))
    }

    pub(crate) fn checkpoint(&self, dir: &CStr, stop: bool, verbose: bool) -> bool {
        call!(self.0, checkpoint(dir.as_ptr().cast_mut(), stop, verbose) else false)
    }

    pub(crate) fn resume(&self, dir: &CStr, verbose: bool) -> bool {
        call!(self.0, restore(dir.as_ptr().cast_mut(), verbose) else false)
    }

    /// Makes the container's directory and a Btrfs subvolume in it, and runs
    /// this very program to have it filled.
    pub(crate) fn create(&self, itself: &CStr) -> bool {
        // SAFETY: plain pointers and numbers, for which zero means "not given".
        let mut specs: sys::bdev_specs = unsafe { std::mem::zeroed() };
        let quiet = sys::LXC_CREATE_QUIET as i32;
        let (itself, store) = (itself.as_ptr(), c"btrfs".as_ptr());
        call!(self.0, create(itself, store, &mut specs, quiet, ptr::null()) else false)
    }

    /// The log file of its own that the configuration asks for.
    pub(crate) fn own_log(&self) -> Option<Tail> {
        let file = self
            .0
            .config_item(c"lxc.log.file")
            .filter(|file| !file.is_empty())?;
        let end = std::fs::metadata(crate::path(&file)).map_or(0, |file| file.len());
        Some(Tail { file, end })
    }
}

/// What is added to a log file from now on.
pub(crate) struct Tail {
    file: Vec<u8>,
    end: u64,
}

impl Tail {
    pub(crate) fn copy_to_log(&self) {
        const MOST: u64 = 256 << 10;
        let copy = || -> std::io::Result<()> {
            let mut from = File::open(crate::path(&self.file))?;
            from.seek(SeekFrom::Start(self.end))?;
            let mut lines = Vec::new();
            from.take(MOST).read_to_end(&mut lines)?;
            let log = format!("/proc/self/fd/{}", wire::LOG);
            File::options().append(true).open(log)?.write_all(&lines)
        };
        // Without the lines an error has less to say, which is no error itself.
        let _ = copy();
    }
}
