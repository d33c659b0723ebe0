//! The calls the verbs are made of.

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ptr;

use crate::sys::{self, Library, Object, call};
use crate::wire::{self, Edit, Failure};

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
                return Err(Failure::Edit(index));
            }
        }
        Ok(())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.0.state() == b"STOPPED"
    }

    pub(crate) fn start(&self, argv: &[CString]) -> bool {
        call!(self.0, want_daemonize(true) else false);
        let mut pointers: Vec<*mut c_char> = argv
            .iter()
            .map(|argument| argument.as_ptr().cast_mut())
            .collect();
        pointers.push(ptr::null_mut());
        // An empty array would be executed; null means the configured init.
        let argv = if argv.is_empty() {
            ptr::null()
        } else {
            pointers.as_ptr()
        };
        call!(self.0, start(0, argv) else false)
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

    pub(crate) fn destroy(&self) -> bool {
        call!(self.0, destroy() else false)
    }

    /// Makes the container's directory and a Btrfs subvolume in it, and runs
    /// this very program to have it filled.
    pub(crate) fn create(&self) -> bool {
        // SAFETY: plain pointers and numbers, for which zero means "not given".
        let mut specs: sys::bdev_specs = unsafe { std::mem::zeroed() };
        let quiet = sys::LXC_CREATE_QUIET as i32;
        let (itself, store) = (c"/proc/self/exe".as_ptr(), c"btrfs".as_ptr());
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
