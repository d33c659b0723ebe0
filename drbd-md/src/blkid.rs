//! libblkid, loaded at run time: which signatures are on a device.
//!
//! The library is asked rather than a table of our own, because knowing every file system, RAID,
//! volume manager and partition table, at every offset and with its checksums, is its whole job.
//! It is part of every util-linux installation, so it is there; its headers mostly are not, and
//! the existing bindings want them at build time. The functions used here have been in the
//! library since 2.20 (2011) under versioned symbols.
#![allow(unsafe_code, reason = "calls a C library")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

// blkid.h
const BLKID_SUBLKS_TYPE: c_int = 1 << 5;
const BLKID_SUBLKS_USAGE: c_int = 1 << 7;
const BLKID_SUBLKS_MAGIC: c_int = 1 << 9;
const BLKID_SUBLKS_BADCSUM: c_int = 1 << 10;
const BLKID_PARTS_FORCE_GPT: c_int = 1 << 1;
const BLKID_PARTS_MAGIC: c_int = 1 << 3;

type Probe = *mut c_void;

type NewProbe = unsafe extern "C" fn() -> Probe;
type FreeProbe = unsafe extern "C" fn(Probe);
type SetDevice = unsafe extern "C" fn(Probe, c_int, i64, i64) -> c_int;
type SetInt = unsafe extern "C" fn(Probe, c_int) -> c_int;
type DoProbe = unsafe extern "C" fn(Probe) -> c_int;
type LookupValue =
    unsafe extern "C" fn(Probe, *const c_char, *mut *const c_char, *mut usize) -> c_int;

/// Functions of the loaded library.
struct Library {
    new_probe: NewProbe,
    free_probe: FreeProbe,
    set_device: SetDevice,
    enable_superblocks: SetInt,
    set_superblocks_flags: SetInt,
    enable_partitions: SetInt,
    set_partitions_flags: SetInt,
    do_probe: DoProbe,
    lookup_value: LookupValue,
}

/// A signature as the library reports it.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) name: String,
    pub(crate) usage: Option<String>,
    pub(crate) offset: u64,
}

fn library() -> Result<&'static Library, &'static str> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref().map_err(String::as_str)
}

fn load() -> Result<Library, String> {
    // SAFETY: the name is a NUL-terminated literal. Loading runs the library's initialisers;
    // libblkid has none with side effects on this process.
    let handle = unsafe { libc::dlopen(c"libblkid.so.1".as_ptr(), libc::RTLD_NOW) };
    if handle.is_null() {
        // SAFETY: dlerror returns NULL or a string that is valid until the next dl call of this
        // thread; it is copied at once.
        let text = unsafe {
            let e = libc::dlerror();
            if e.is_null() {
                None
            } else {
                Some(CStr::from_ptr(e).to_string_lossy().into_owned())
            }
        };
        return Err(text.unwrap_or_else(|| "libblkid.so.1 cannot be loaded".into()));
    }
    macro_rules! symbol {
        ($name:literal, $type:ty) => {{
            // SAFETY: the handle is open and never closed, the name is a NUL-terminated literal.
            let p = unsafe { libc::dlsym(handle, $name.as_ptr()) };
            if p.is_null() {
                return Err(format!("libblkid.so.1 has no {}", $name.to_string_lossy()));
            }
            // SAFETY: the symbol has the type that blkid.h declares for it, which the
            // alias repeats; the library stays loaded for the life of the process.
            unsafe { std::mem::transmute::<*mut c_void, $type>(p) }
        }};
    }
    Ok(Library {
        new_probe: symbol!(c"blkid_new_probe", NewProbe),
        free_probe: symbol!(c"blkid_free_probe", FreeProbe),
        set_device: symbol!(c"blkid_probe_set_device", SetDevice),
        enable_superblocks: symbol!(c"blkid_probe_enable_superblocks", SetInt),
        set_superblocks_flags: symbol!(c"blkid_probe_set_superblocks_flags", SetInt),
        enable_partitions: symbol!(c"blkid_probe_enable_partitions", SetInt),
        set_partitions_flags: symbol!(c"blkid_probe_set_partitions_flags", SetInt),
        do_probe: symbol!(c"blkid_do_probe", DoProbe),
        lookup_value: symbol!(c"blkid_probe_lookup_value", LookupValue),
    })
}

struct Prober<'a> {
    lib: &'a Library,
    // Invariant: came from `new_probe`, is not NULL, and is ours to free.
    raw: Probe,
}

impl Drop for Prober<'_> {
    fn drop(&mut self) {
        // SAFETY: by the invariant on `raw`; it is not used after this.
        unsafe { (self.lib.free_probe)(self.raw) }
    }
}

impl Prober<'_> {
    fn value(&self, name: &CStr) -> Option<String> {
        let mut data: *const c_char = std::ptr::null();
        // SAFETY: the probe is live, the name is NUL-terminated, `data` is a live local that
        // receives a pointer owned by the probe; the length pointer may be NULL.
        let rc = unsafe {
            (self.lib.lookup_value)(self.raw, name.as_ptr(), &raw mut data, std::ptr::null_mut())
        };
        if rc != 0 || data.is_null() {
            return None;
        }
        // SAFETY: the values asked for here are NUL-terminated strings, valid until the next
        // call that probes; it is copied at once.
        Some(
            unsafe { CStr::from_ptr(data) }
                .to_string_lossy()
                .into_owned(),
        )
    }
}

/// Lists every signature on the device, in the order the library finds them.
///
/// `file` must not be opened for direct I/O.
pub(crate) fn signatures(file: &File) -> Result<Vec<Raw>, String> {
    let lib = library()?;
    // SAFETY: takes nothing, returns NULL or a new probe.
    let raw = unsafe { (lib.new_probe)() };
    if raw.is_null() {
        return Err("libblkid: out of memory".into());
    }
    let probe = Prober { lib, raw };
    // SAFETY: the probe is live; the descriptor stays open until after the probe is freed, since
    // `file` is borrowed for the whole call. Offset 0 and size 0 mean the whole device.
    let rc = unsafe {
        let rc = (lib.set_device)(probe.raw, file.as_raw_fd(), 0, 0);
        (lib.enable_superblocks)(probe.raw, 1);
        (lib.set_superblocks_flags)(
            probe.raw,
            BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_BADCSUM,
        );
        (lib.enable_partitions)(probe.raw, 1);
        (lib.set_partitions_flags)(probe.raw, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT);
        rc
    };
    if rc != 0 {
        return Err("libblkid cannot read the device".into());
    }
    let mut found = Vec::new();
    loop {
        // SAFETY: the probe is live and has a device.
        match unsafe { (lib.do_probe)(probe.raw) } {
            0 => {}
            1 => return Ok(found),
            _ => return Err("libblkid: error while probing".into()),
        }
        let (name, usage, at) = match probe.value(c"TYPE") {
            Some(name) => (name, probe.value(c"USAGE"), probe.value(c"SBMAGIC_OFFSET")),
            None => match probe.value(c"PTTYPE") {
                Some(name) => (
                    name,
                    Some("partition table".into()),
                    probe.value(c"PTMAGIC_OFFSET"),
                ),
                None => continue,
            },
        };
        let offset = at.and_then(|s| s.trim().parse().ok()).unwrap_or(0);
        found.push(Raw {
            name,
            usage,
            offset,
        });
    }
}
