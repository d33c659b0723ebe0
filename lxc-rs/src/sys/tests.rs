//! The declarations against the installed header, and against libraries
//! whose objects are exactly as long as those of a release.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unsafe_code,
    reason = "tests of the C interface"
)]

use std::ffi::CString;
use std::fs;
use std::mem::{offset_of, size_of};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Library, LoadError, OLDEST, Object, SLOTS, Version};
use super::{
    bdev_specs, lxc_attach_options_t, lxc_console_log, lxc_container, lxc_log, lxc_mount,
    lxc_snapshot, migrate_opts,
};

/// What a machine lacks is a printed skip; in `./check` it is a failure.
fn skip(why: &str) {
    let required = std::env::var_os("LAB_REQUIRED").is_some_and(|value| value == "1");
    assert!(!required, "{why}");
    eprintln!("skipped: {why}");
}

/// Compiles C with the system's compiler; `None`, and a line, without one.
fn compile(dir: &Path, name: &str, source: &str, options: &[&str]) -> Option<PathBuf> {
    let (file, out) = (dir.join(format!("{name}.c")), dir.join(name));
    fs::write(&file, source).unwrap();
    let compiled = Command::new("cc")
        .args(options)
        .arg(&file)
        .arg("-o")
        .arg(&out)
        .output();
    match compiled {
        Ok(compiled) if compiled.status.success() => Some(out),
        Ok(compiled) => panic!("{}", String::from_utf8_lossy(&compiled.stderr)),
        Err(error) => {
            skip(&format!("cc cannot be run: {error}"));
            None
        }
    }
}

/// Where liblxc's headers are: `LXC_RS_HEADERS` may name those of another release.
fn headers() -> String {
    std::env::var("LXC_RS_HEADERS").unwrap_or_else(|_| "/usr/include".to_owned())
}

fn header_text() -> Option<String> {
    let file = format!("{}/lxc/lxccontainer.h", headers());
    let text = fs::read_to_string(&file).ok();
    if text.is_none() {
        skip(&format!("there is no {file}"));
    }
    text
}

/// Every member that the installed header has is where the bindings have it,
/// and nothing the caller allocates is longer there than here.
#[test]
fn the_installed_header_is_a_part_of_the_bindings() {
    let Some(header) = header_text() else { return };
    let dir = tempfile::tempdir().unwrap();
    let has = |slot: &str| header.contains(&format!("(*{slot})("));
    let present: Vec<_> = SLOTS.iter().filter(|(slot, _)| has(slot)).collect();
    // Slots are only ever appended: what is missing is missing at the end.
    assert_eq!(
        present.as_slice(),
        SLOTS[..present.len()].iter().collect::<Vec<_>>()
    );
    assert!(
        present.len() >= 61,
        "only {} slots in the header",
        present.len()
    );
    let sizes: &[(&str, usize)] = &[
        ("struct lxc_container", size_of::<lxc_container>()),
        ("lxc_attach_options_t", size_of::<lxc_attach_options_t>()),
        ("struct bdev_specs", size_of::<bdev_specs>()),
        ("struct migrate_opts", size_of::<migrate_opts>()),
        ("struct lxc_log", size_of::<lxc_log>()),
        ("struct lxc_console_log", size_of::<lxc_console_log>()),
        ("struct lxc_snapshot", size_of::<lxc_snapshot>()),
        ("struct lxc_mount", size_of::<lxc_mount>()),
    ];
    let fields: &[(&str, &str, usize)] = &[
        (
            "lxc_attach_options_t",
            "attach_flags",
            offset_of!(lxc_attach_options_t, attach_flags),
        ),
        (
            "lxc_attach_options_t",
            "namespaces",
            offset_of!(lxc_attach_options_t, namespaces),
        ),
        (
            "lxc_attach_options_t",
            "personality",
            offset_of!(lxc_attach_options_t, personality),
        ),
        (
            "lxc_attach_options_t",
            "initial_cwd",
            offset_of!(lxc_attach_options_t, initial_cwd),
        ),
        (
            "lxc_attach_options_t",
            "uid",
            offset_of!(lxc_attach_options_t, uid),
        ),
        (
            "lxc_attach_options_t",
            "gid",
            offset_of!(lxc_attach_options_t, gid),
        ),
        (
            "lxc_attach_options_t",
            "env_policy",
            offset_of!(lxc_attach_options_t, env_policy),
        ),
        (
            "lxc_attach_options_t",
            "extra_env_vars",
            offset_of!(lxc_attach_options_t, extra_env_vars),
        ),
        (
            "lxc_attach_options_t",
            "stdin_fd",
            offset_of!(lxc_attach_options_t, stdin_fd),
        ),
        (
            "lxc_attach_options_t",
            "stderr_fd",
            offset_of!(lxc_attach_options_t, stderr_fd),
        ),
        (
            "lxc_attach_options_t",
            "log_fd",
            offset_of!(lxc_attach_options_t, log_fd),
        ),
        ("struct lxc_log", "file", offset_of!(lxc_log, file)),
        ("struct lxc_log", "level", offset_of!(lxc_log, level)),
        ("struct lxc_log", "quiet", offset_of!(lxc_log, quiet)),
        ("struct bdev_specs", "dir", offset_of!(bdev_specs, dir)),
    ];
    let mut source = String::from(
        "#include <lxc/lxccontainer.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n",
    );
    for (slot, _) in &present {
        source += &format!("printf(\"%zu\\n\", offsetof(struct lxc_container, {slot}));\n");
    }
    for (kind, _) in sizes {
        source += &format!("printf(\"%zu\\n\", sizeof({kind}));\n");
    }
    for (kind, field, _) in fields {
        source += &format!("printf(\"%zu\\n\", offsetof({kind}, {field}));\n");
    }
    source += "}\n";
    let options = ["-w", "-I", &headers()];
    let Some(probe) = compile(dir.path(), "probe", &source, &options) else {
        return;
    };
    let output = Command::new(probe).output().unwrap();
    let numbers = String::from_utf8(output.stdout).unwrap();
    let mut numbers = numbers.lines().map(|line| line.parse::<usize>().unwrap());
    for (slot, offset) in present {
        assert_eq!(numbers.next().unwrap(), *offset, "{slot}");
    }
    for (kind, size) in sizes {
        let installed = numbers.next().unwrap();
        assert!(
            installed <= *size,
            "{kind} is {installed} bytes there and {size} here"
        );
    }
    for (kind, field, offset) in fields {
        assert_eq!(numbers.next().unwrap(), *offset, "{kind}.{field}");
    }
}

/// A liblxc of some version whose objects end at the end of a page, with
/// nothing readable behind: `bytes` is their length.
fn stub(dir: &Path, version: &str, bytes: usize) -> Option<CString> {
    let slots: String = SLOTS
        .iter()
        .filter(|(_, offset)| offset + size_of::<usize>() <= bytes)
        .map(|(slot, offset)| match *slot {
            "state" => format!("put(c, {offset}, state);\n"),
            "is_defined" | "set_config_item" | "clear_config_item" | "save_config"
            | "set_timeout" => format!("put(c, {offset}, yes);\n"),
            "get_config_item" => format!("put(c, {offset}, item);\n"),
            "get_running_config_item" => format!("put(c, {offset}, nothing);\n"),
            "console_log" => format!("put(c, {offset}, log);\n"),
            _ => format!("put(c, {offset}, minus);\n"),
        })
        .collect();
    let source = format!(
        r#"#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
static bool yes(void) {{ return true; }}
static int minus(void) {{ return -1; }}
static void *nothing(void) {{ return 0; }}
struct console {{ bool clear, read; unsigned long *most; char *data; }};
static int log(void *c, struct console *log) {{
    (void)c;
    if (!log->read) return -61;
    log->data = malloc(*log->most);
    memset(log->data, 'x', *log->most);
    return 0;
}}
static const char *state(void *c) {{ (void)c; return "STOPPED"; }}
static int item(void *c, const char *key, char *out, int room) {{
    (void)c;
    if (strcmp(key, "known")) return -22;
    if (out) {{ strncpy(out, "value", room); out[room - 1] = 0; }}
    return 5;
}}
static void put(char *c, int at, void *what) {{ memcpy(c + at, &what, sizeof what); }}
const char *lxc_get_version(void) {{ return "{version}"; }}
void *lxc_container_new(const char *name, const char *path) {{
    (void)name; (void)path;
    char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page + 4096, 4096, PROT_NONE);
    char *c = page + 4096 - {bytes};
    {slots}
    return c;
}}
int lxc_container_put(void *c) {{ (void)c; return 1; }}
const char *lxc_get_global_config_item(const char *key) {{ (void)key; return 0; }}
bool lxc_config_item_is_supported(const char *key) {{ (void)key; return false; }}
bool lxc_has_api_extension(const char *key) {{ (void)key; return false; }}
int lxc_log_init(void *log) {{ (void)log; return 0; }}
"#
    );
    let name = format!("liblxc-{version}.so");
    let file = compile(dir, &name, &source, &["-w", "-shared", "-fPIC"])?;
    Some(CString::new(file.as_os_str().as_bytes()).unwrap())
}

#[test]
fn a_library_older_than_the_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for version in ["4.0.4", "3.2.1", "1.0.0", "", "unknown"] {
        let Some(file) = stub(dir.path(), version, 552) else {
            return;
        };
        match Library::open_file(&file) {
            Err(LoadError::Version(text)) => assert_eq!(text, version),
            other => panic!("{version}: {other:?}"),
        }
    }
    let missing = dir.path().join("nothing.so");
    let missing = CString::new(missing.as_os_str().as_bytes()).unwrap();
    assert!(matches!(
        Library::open_file(&missing),
        Err(LoadError::Missing(_))
    ));
}

/// Nothing behind the end of an object is read, whatever the release: the
/// page after it would end this process.
#[test]
fn no_member_is_read_that_the_library_does_not_have() {
    let dir = tempfile::tempdir().unwrap();
    for (version, bytes) in [
        ("4.0.5", 568),
        ("4.0.7", 568),
        ("4.0.12", 568),
        ("5.0.2", 568),
        ("5.0.3", 568),
        ("6.0.0", 584),
        ("6.0.6", 584),
        ("7.0.0", 584),
        ("8.1.0-devel", 592),
    ] {
        let Some(file) = stub(dir.path(), version, bytes) else {
            return;
        };
        let library = Library::open_file(&file).unwrap();
        assert!(library.version >= OLDEST);
        assert_eq!(library.file, file);
        let object = Object::open(library, c"m1", c"/srv").unwrap();
        assert!(object.is_defined());
        assert_eq!(object.state(), b"STOPPED");
        assert_eq!(object.init_pid(), -1);
        assert_eq!(object.init_pidfd(), -1);
        assert!(object.set_config_item(c"a", c"b"));
        assert!(object.clear_config_item(c"a"));
        assert!(object.save_config(c"/dev/null"));
        assert_eq!(object.config_item(c"known").unwrap(), b"value");
        assert_eq!(object.config_item(c"unknown"), None);
        assert_eq!(object.cgroup_item(c"any"), None);
        assert_eq!(object.keys(None), None);
        assert_eq!(object.running_config_item(c"any"), None);
        assert_eq!(object.console_getfd(-1), None);
        assert_eq!(object.console_log(3, false).unwrap(), b"xxx");
        assert_eq!(object.console_log(0, true), Err(-61));
        assert_eq!((object.devpts_fd(), object.seccomp_notify_fd()), (-1, -1));
        assert_eq!(object.seccomp_notify_fd_active(), -1);
        assert_eq!(object.error_num(), 0);
        assert_eq!(
            object.set_timeout(1),
            (bytes > 568).then_some(true),
            "{version}"
        );
    }
}

#[test]
fn versions_are_read_and_compared() {
    let version = |major, minor, micro| {
        Some(Version {
            major,
            minor,
            micro,
        })
    };
    assert_eq!(Version::parse("5.0.2"), version(5, 0, 2));
    assert_eq!(Version::parse("6.0"), version(6, 0, 0));
    assert_eq!(Version::parse("7.0.0-devel"), version(7, 0, 0));
    assert_eq!(Version::parse("5"), None);
    assert_eq!(Version::parse("five.0.2"), None);
    assert!(version(4, 0, 12) > version(4, 0, 5));
}
