//! One `struct lxc_container` of liblxc, owned.
#![allow(unsafe_code, reason = "calls the members of the C object")]
#![allow(dead_code, reason = "the library and its helper use different members")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::ptr;
use std::ptr::NonNull;

use super::bindings::{lxc_console_log, lxc_container, lxc_log};
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

    /// As [`Self::init_pidfd`].
    pub(crate) fn devpts_fd(&self) -> i32 {
        call!(self, devpts_fd() else -1)
    }

    /// As [`Self::init_pidfd`].
    pub(crate) fn seccomp_notify_fd(&self) -> i32 {
        call!(self, seccomp_notify_fd() else -1)
    }

    /// As [`Self::init_pidfd`].
    pub(crate) fn seccomp_notify_fd_active(&self) -> i32 {
        call!(self, seccomp_notify_fd_active() else -1)
    }

    /// What liblxc calls an error number: after a start in the foreground the
    /// wait status of init, otherwise nothing that means anything.
    pub(crate) fn error_num(&self) -> i32 {
        let raw = self.raw.as_ptr();
        // SAFETY: by the invariant on `raw` the object is alive, and this
        // field stands before every member that a version could lack.
        unsafe { (&raw const (*raw).error_num).read() }
    }

    /// Two new descriptors, the connection and the terminal, and the number of
    /// the terminal; `number` -1 lets the monitor choose.
    pub(crate) fn console_getfd(&self, mut number: i32) -> Option<(i32, i32, i32)> {
        let mut terminal = -1;
        let connection = call!(self, console_getfd(&mut number, &mut terminal) else -1);
        (connection >= 0).then_some((connection, terminal, number))
    }

    /// The console's ring buffer, or a negative errno. Reads at most `most`
    /// bytes, and empties the buffer if told to.
    pub(crate) fn console_log(&self, most: u64, clear: bool) -> Result<Vec<u8>, i32> {
        let mut length = most;
        let mut log = lxc_console_log {
            clear,
            read: most > 0,
            read_max: &mut length,
            data: ptr::null_mut(),
        };
        let code = call!(self, console_log(&mut log) else -38);
        if code < 0 {
            return Err(code);
        }
        if log.data.is_null() {
            return Ok(Vec::new());
        }
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: not null; liblxc put `length` bytes there, without a NUL.
        let bytes = unsafe { std::slice::from_raw_parts(log.data.cast::<u8>(), length) }.to_vec();
        free_from_c(log.data);
        Ok(bytes)
    }

    /// The value that the monitor has; `None` if it does not run or has none.
    pub(crate) fn running_config_item(&self, key: &CStr) -> Option<Vec<u8>> {
        let value = call!(self, get_running_config_item(key.as_ptr()) else ptr::null_mut());
        if value.is_null() {
            return None;
        }
        // SAFETY: not null, a C string made for us.
        let bytes = unsafe { CStr::from_ptr(value) }.to_bytes().to_vec();
        free_from_c(value);
        Some(bytes)
    }

    /// A file of the container's cgroup, or `None`.
    pub(crate) fn cgroup_item(&self, key: &CStr) -> Option<Vec<u8>> {
        measured(|text, room| call!(self, get_cgroup_item(key.as_ptr(), text, room) else -1))
    }

    /// Which parts an item has, one per line.
    pub(crate) fn keys(&self, key: Option<&CStr>) -> Option<Vec<u8>> {
        let key = key.map_or(ptr::null(), CStr::as_ptr);
        measured(|text, room| call!(self, get_keys(key, text, room) else -1))
    }

    pub(crate) fn may_control(&self) -> bool {
        call!(self, may_control() else false)
    }

    pub(crate) fn set_config_item(&self, key: &CStr, value: &CStr) -> bool {
        call!(self, set_config_item(key.as_ptr(), value.as_ptr()) else false)
    }

    pub(crate) fn clear_config_item(&self, key: &CStr) -> bool {
        call!(self, clear_config_item(key.as_ptr()) else false)
    }

    /// The value, empty if the key is not set; `None` for a key liblxc does not know.
    pub(crate) fn config_item(&self, key: &CStr) -> Option<Vec<u8>> {
        measured(|text, room| call!(self, get_config_item(key.as_ptr(), text, room) else -1))
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

/// Calls for the length first, then for the text. The length does not count
/// the NUL that is written after it. A text that grew in between is asked for
/// again, because a buffer too short cuts it off without a word.
fn measured(call: impl Fn(*mut c_char, c_int) -> c_int) -> Option<Vec<u8>> {
    let mut length = usize::try_from(call(ptr::null_mut(), 0)).ok()?;
    loop {
        let mut buffer = vec![0_u8; length + 1];
        let room = c_int::try_from(buffer.len()).ok()?;
        let stored = usize::try_from(call(buffer.as_mut_ptr().cast(), room)).ok()?;
        if stored <= length {
            buffer.truncate(stored);
            return Some(buffer);
        }
        length = stored;
    }
}

unsafe extern "C" {
    fn free(memory: *mut c_void);
}

fn free_from_c(memory: *mut c_char) {
    // SAFETY: callers pass memory that liblxc allocated for them, once.
    unsafe { free(memory.cast()) };
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
