//! The loaded liblxc: its functions, its file and its version.
#![allow(unsafe_code, reason = "calls the dynamic linker and lxc_get_version")]
#![allow(
    dead_code,
    reason = "the library is linked or loaded; its helper always loads"
)]
#![allow(
    unreachable_pub,
    reason = "`Version` is public in the library, not in its helper"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr;

use super::bindings;
use super::bindings::{lxc_container, lxc_log};

/// Oldest liblxc whose object layout these bindings describe.
pub(crate) const OLDEST: Version = Version {
    major: 4,
    minor: 0,
    micro: 5,
};

#[link(name = "dl")]
unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn dlerror() -> *mut c_char;
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
}

/// `RTLD_NOW`, dlfcn.h.
const RTLD_NOW: c_int = 2;
/// What the dynamic linker looks for: the only soname liblxc ever had.
const SONAME: &CStr = c"liblxc.so.1";

/// `Dl_info`, dlfcn.h.
#[repr(C)]
struct DlInfo {
    file: *const c_char,
    base: *mut c_void,
    symbol: *const c_char,
    address: *mut c_void,
}

macro_rules! symbols {
    ($($name:ident: $type:ty),* $(,)?) => {
        /// The exported functions in use.
        #[derive(Clone, Copy)]
        pub(crate) struct Symbols {
            $(pub(crate) $name: $type,)*
        }

        // The types above are those of the generated declarations.
        const _: () = { $(let _: $type = bindings::$name;)* };

        impl Symbols {
            /// The functions of the library this program was linked with.
            #[cfg(lxc_linked)]
            const fn linked() -> Self {
                Self { $($name: bindings::$name,)* }
            }

            /// Looks every function up in a library loaded by `dlopen`.
            fn load(handle: *mut c_void) -> Result<Self, LoadError> {
                $(
                    let name = concat!(stringify!($name), "\0");
                    // SAFETY: `handle` came from dlopen and was not closed; the name ends in a NUL.
                    let address = unsafe { dlsym(handle, name.as_ptr().cast()) };
                    if address.is_null() {
                        return Err(LoadError::Missing(last_error(stringify!($name))));
                    }
                    // SAFETY: the address is not null and is the function of this name in
                    // liblxc, whose type is asserted above; a function pointer and a data
                    // pointer have the same size wherever dlsym exists.
                    let $name = unsafe { std::mem::transmute_copy::<*mut c_void, $type>(&address) };
                )*
                Ok(Self { $($name,)* })
            }
        }
    };
}

symbols! {
    lxc_container_new: unsafe extern "C" fn(*const c_char, *const c_char) -> *mut lxc_container,
    lxc_container_put: unsafe extern "C" fn(*mut lxc_container) -> c_int,
    lxc_get_version: unsafe extern "C" fn() -> *const c_char,
    lxc_get_global_config_item: unsafe extern "C" fn(*const c_char) -> *const c_char,
    lxc_config_item_is_supported: unsafe extern "C" fn(*const c_char) -> bool,
    lxc_has_api_extension: unsafe extern "C" fn(*const c_char) -> bool,
    lxc_log_init: unsafe extern "C" fn(*mut lxc_log) -> c_int,
}

/// A liblxc that passed the version gate. Never unloaded: liblxc keeps
/// process-wide and thread-local state.
#[derive(Clone)]
pub(crate) struct Library {
    pub(crate) symbols: Symbols,
    pub(crate) version: Version,
    /// The file it was loaded from, so that the helper takes the same one.
    pub(crate) file: CString,
}

impl Library {
    /// The liblxc of this process.
    #[cfg(lxc_linked)]
    pub(crate) fn open() -> Result<Self, LoadError> {
        Self::gate(Symbols::linked())
    }

    /// The liblxc of this process.
    #[cfg(not(lxc_linked))]
    pub(crate) fn open() -> Result<Self, LoadError> {
        Self::open_file(SONAME)
    }

    /// Loads the library from `file`.
    pub(crate) fn open_file(file: &CStr) -> Result<Self, LoadError> {
        // SAFETY: `file` is a C string; liblxc's constructors do nothing a loader could trip over.
        let handle = unsafe { dlopen(file.as_ptr(), RTLD_NOW) };
        if handle.is_null() {
            return Err(LoadError::Missing(last_error("dlopen")));
        }
        Self::gate(Symbols::load(handle)?)
    }

    fn gate(symbols: Symbols) -> Result<Self, LoadError> {
        // SAFETY: takes nothing and returns a static C string.
        let text = unsafe { CStr::from_ptr((symbols.lxc_get_version)()) }
            .to_string_lossy()
            .into_owned();
        let Some(version) = Version::parse(&text) else {
            return Err(LoadError::Version(text));
        };
        if version < OLDEST {
            return Err(LoadError::Version(text));
        }
        let file = file_of(symbols.lxc_get_version as *const c_void);
        Ok(Self {
            symbols,
            version,
            file,
        })
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("version", &self.version)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// The shared object that holds `address`; the soname where there is none to
/// be found, as in a statically linked program.
fn file_of(address: *const c_void) -> CString {
    let mut info = DlInfo {
        file: ptr::null(),
        base: ptr::null_mut(),
        symbol: ptr::null(),
        address: ptr::null_mut(),
    };
    // SAFETY: writes one `DlInfo`, laid out as dlfcn.h has it, and keeps nothing.
    let found = unsafe { dladdr(address, &mut info) };
    if found == 0 || info.file.is_null() {
        return SONAME.to_owned();
    }
    // SAFETY: not null, and a C string that lives as long as the object is loaded.
    let file = unsafe { CStr::from_ptr(info.file) };
    if file.to_bytes().windows(6).any(|part| part == b"liblxc") {
        file.to_owned()
    } else {
        SONAME.to_owned()
    }
}

fn last_error(what: &str) -> String {
    // SAFETY: returns null or a C string that stays valid until the next dl call of this thread.
    let message = unsafe { dlerror() };
    if message.is_null() {
        return format!("{what} failed");
    }
    // SAFETY: not null, see above, and copied before any other dl call.
    unsafe { CStr::from_ptr(message) }
        .to_string_lossy()
        .into_owned()
}

/// Why there is no usable liblxc.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The dynamic linker's words.
    Missing(String),
    /// The version the library gave, older than [`OLDEST`] or not a version.
    Version(String),
}

/// A release of liblxc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number, 0 if the library gave none.
    pub micro: u32,
}

impl Version {
    /// Reads `6.0.4`, `6.0` or `6.0.0-devel`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.split(['-', '+', '~']).next()?;
        let mut parts = numbers.split('.').map(str::parse);
        let version = Self {
            major: parts.next()?.ok()?,
            minor: parts.next()?.ok()?,
            micro: parts.next().unwrap_or(Ok(0)).ok()?,
        };
        Some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}
