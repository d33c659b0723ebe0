//! One `struct lxc_container` of liblxc, owned.
#![allow(unsafe_code, reason = "calls the members of the C object")]
#![allow(dead_code, reason = "the library and its helper use different members")]

use std::ffi::{CStr, c_char};
use std::fmt;
use std::ptr;
use std::ptr::NonNull;

use super::bindings::{lxc_container, lxc_log};
use super::library::{Library, Version};

/// A reference to a container object.
pub(crate) struct Object {
    pub(crate) library: Library,
    // Invariant: came from `lxc_container_new`, and we own one reference.
    raw: NonNull<lxc_container>,
}

// SAFETY: the object is a heap allocation. What liblxc keeps per thread is the
// configuration that log lines go by, and every member sets it on entry and
// takes it back before it returns, so nothing of one thread stays behind in
// the object. Not `Sync`: two threads would share an unlocked configuration.
unsafe impl Send for Object {}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: by the invariant on `raw` we own this reference, and `self`
        // is gone after this, so the pointer is not used again.
        unsafe { (self.library.symbols.lxc_container_put)(self.raw.as_ptr()) };
    }
}

/// Calls a member of the object, or gives `$missing` if its pointer is null.
macro_rules! call {
    ($object:expr, $slot:ident($($argument:expr),*) else $missing:expr) => {{
        let raw = $object.as_ptr();
        // SAFETY: by the invariant on `raw` the object is alive. The version gate
        // guarantees that it is long enough to hold this member, which is read
        // alone, without a reference to the whole.
        let slot = unsafe { (&raw const (*raw).$slot).read() };
        match slot {
            // SAFETY: the function belongs to the object it is given; the other
            // arguments live in locals of the caller until it returns.
            Some(function) => unsafe { function(raw $(, $argument)*) },
            None => $missing,
        }
    }};
}
pub(crate) use call;

impl Object {
    /// `lxc_container_new`: loads the configuration if there is one. `None`
    /// means that it was rejected; liblxc then also prints a line on stderr.
    pub(crate) fn open(library: Library, name: &CStr, lxcpath: &CStr) -> Option<Self> {
        // SAFETY: two C strings, which the call copies.
        let raw = unsafe { (library.symbols.lxc_container_new)(name.as_ptr(), lxcpath.as_ptr()) };
        Some(Self {
            library,
            raw: NonNull::new(raw)?,
        })
    }

    pub(crate) fn as_ptr(&self) -> *mut lxc_container {
        self.raw.as_ptr()
    }

    pub(crate) fn is_defined(&self) -> bool {
        call!(self, is_defined() else false)
    }

    /// The state as text; empty if liblxc has none to give.
    pub(crate) fn state(&self) -> &'static [u8] {
        let state = call!(self, state() else ptr::null());
        if state.is_null() {
            return b"";
        }
        // SAFETY: not null, and a static string of a library that is never unloaded.
        unsafe { CStr::from_ptr(state) }.to_bytes()
    }

    /// -1 if the container does not run.
    pub(crate) fn init_pid(&self) -> i32 {
        call!(self, init_pid() else -1)
    }

    /// A new descriptor, or a negative errno.
    pub(crate) fn init_pidfd(&self) -> i32 {
        call!(self, init_pidfd() else -1)
    }

    pub(crate) fn set_config_item(&self, key: &CStr, value: &CStr) -> bool {
        call!(self, set_config_item(key.as_ptr(), value.as_ptr()) else false)
    }

    pub(crate) fn clear_config_item(&self, key: &CStr) -> bool {
        call!(self, clear_config_item(key.as_ptr()) else false)
    }

    /// The value, empty if the key is not set; `None` for a key liblxc does not know.
    pub(crate) fn config_item(&self, key: &CStr) -> Option<Vec<u8>> {
        let length = call!(self, get_config_item(key.as_ptr(), ptr::null_mut(), 0) else -1);
        let length = usize::try_from(length).ok()?;
        // The length does not count the NUL that is written after it.
        let mut buffer = vec![0_u8; length + 1];
        let room = i32::try_from(buffer.len()).ok()?;
        let text: *mut c_char = buffer.as_mut_ptr().cast();
        let stored = call!(self, get_config_item(key.as_ptr(), text, room) else -1);
        buffer.truncate(usize::try_from(stored).ok()?.min(length));
        Some(buffer)
    }

    /// Bounds how long the monitor may take to answer, in seconds; `None` if
    /// the running library is too old to have the member at all.
    pub(crate) fn set_timeout(&self, seconds: i32) -> Option<bool> {
        // It has no API extension to ask for, and reading it from the object of
        // an older library would be reading past the object.
        (self.library.version
            >= Version {
                major: 6,
                minor: 0,
                micro: 0,
            })
        .then(|| call!(self, set_timeout(seconds) else false))
    }

    /// Writes the configuration to `file`, in place and without a flush.
    pub(crate) fn save_config(&self, file: &CStr) -> bool {
        call!(self, save_config(file.as_ptr()) else false)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("raw", &self.raw)
            .finish_non_exhaustive()
    }
}

impl Library {
    /// Whether there is a configuration item with exactly this name in the
    /// library's table (`lxc.net` is, `lxc.net.0.type` is not).
    pub(crate) fn knows_item(&self, key: &CStr) -> bool {
        // SAFETY: reads a C string.
        unsafe { (self.symbols.lxc_config_item_is_supported)(key.as_ptr()) }
    }

    pub(crate) fn has_api_extension(&self, name: &CStr) -> bool {
        // SAFETY: reads a C string.
        unsafe { (self.symbols.lxc_has_api_extension)(name.as_ptr()) }
    }

    /// A value of the system's lxc.conf.
    pub(crate) fn global_item(&self, key: &CStr) -> Option<Vec<u8>> {
        // SAFETY: reads a C string.
        let value = unsafe { (self.symbols.lxc_get_global_config_item)(key.as_ptr()) };
        // SAFETY: checked not to be null; a string the library keeps, copied at once.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes().to_vec())
    }

    /// Lets liblxc log into `file`, and only there, in this whole process.
    pub(crate) fn log_to(&self, file: &CStr) {
        let mut log = lxc_log {
            name: ptr::null(),
            lxcpath: ptr::null(),
            file: file.as_ptr(),
            level: c"INFO".as_ptr(),
            prefix: c"lxc-rs".as_ptr(),
            quiet: true,
        };
        // SAFETY: the struct and its strings live during the call, which copies them.
        // If it fails there are no log lines, and the call goes on.
        unsafe { (self.symbols.lxc_log_init)(&mut log) };
    }
}
