//! What libbtrfsutil and strace say.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use btrfs_ops::{Access, HealthProbe, Listing, Scope, Subvolume, Uuid, list};
use nix::unistd::getppid;

use crate::common::{Store, run};

/// A line for each subvolume below its argument, as libbtrfsutil sees them.
const LIST: &str = r#"
#include <btrfsutil.h>
#include <stdio.h>
#include <stdlib.h>
static void hex(const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) printf("%02x", ((const unsigned char *)bytes)[i]);
    printf(" ");
}
int main(int argc, char **argv) {
    struct btrfs_util_subvolume_iterator *all;
    struct btrfs_util_subvolume_info s;
    enum btrfs_util_error error = btrfs_util_create_subvolume_iterator(argv[1], 0, 0, &all);
    char *path;
    if (error) return 1;
    while (!(error = btrfs_util_subvolume_iterator_next_info(all, &path, &s))) {
        char *at = path;
        printf("%lu %lu %lu %lu %lu ", s.id, s.parent_id, s.dir_id, s.flags & 1, s.generation);
        hex(s.uuid, 16), hex(s.parent_uuid, 16), hex(s.received_uuid, 16);
        printf("%lu %lu %lu %lu ", s.ctransid, s.otransid, s.stransid, s.rtransid);
        printf("%ld.%ld %ld.%ld ", s.ctime.tv_sec, s.ctime.tv_nsec, s.otime.tv_sec, s.otime.tv_nsec);
        printf("%ld.%ld %ld.%ld ", s.stime.tv_sec, s.stime.tv_nsec, s.rtime.tv_sec, s.rtime.tv_nsec);
        while (*at) printf("%02x", (unsigned char)*at++);
        puts("");
        free(path);
    }
    btrfs_util_destroy_subvolume_iterator(all);
    return error != BTRFS_UTIL_ERROR_STOP_ITERATION;
}
"#;
const PROGRAM: &str = "/tmp/libbtrfsutil-list";

/// Compiles it in the node, where the library is.
pub(crate) fn prepare_libbtrfsutil() {
    let source = format!("{PROGRAM}.c");
    fs::write(&source, LIST).unwrap();
    run(Command::new("cc").args([&source, "-o", PROGRAM, "-lbtrfsutil"]));
}

pub(crate) fn assert_as_libbtrfsutil(listing: &Listing, below: &Path) {
    let text = String::from_utf8(run(Command::new(PROGRAM).arg(below))).unwrap();
    let mut theirs: Vec<_> = text.lines().collect();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let uuid = |uuid: Option<Uuid>| hex(&uuid.map_or([0; 16], |uuid| *uuid.as_bytes()));
    let time = |time: Option<SystemTime>| {
        let since = time.map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let since = since.unwrap_or_default();
        format!("{}.{}", since.as_secs(), since.subsec_nanos())
    };
    let mut ours: Vec<_> = listing
        .subvolumes
        .iter()
        .map(|listed| {
            let s = &listed.info;
            format!(
                "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}",
                s.id,
                s.parent.unwrap(),
                s.dir_id,
                u8::from(s.access == Access::ReadOnly),
                s.generation,
                uuid(s.uuid),
                uuid(s.parent_uuid),
                uuid(s.received_uuid),
                s.ctransid,
                s.otransid,
                s.stransid.map_or(0, |transid| transid.0),
                s.rtransid.map_or(0, |transid| transid.0),
                time(s.ctime),
                time(s.otime),
                time(s.stime),
                time(s.rtime),
                hex(listed.path.as_os_str().as_bytes()),
            )
        })
        .collect();
    theirs.sort_unstable();
    ours.sort_unstable();
    assert!(!theirs.is_empty());
    assert_eq!(ours, theirs);
}

const CALLS: &str = "/tmp/calls";

/// Counts what the kernel is asked for, by strace.
#[test]
#[ignore = "runs inside a node"]
fn system_calls() {
    let store = Store::new("calls", &[], "");
    let root = store.root();
    Subvolume::create(&root, "sub").unwrap();
    let exe = std::env::current_exe().unwrap();
    run(Command::new("strace")
        .args(["-f", "-o", CALLS])
        .arg(exe)
        .args(["--exact", "oracle::calls", "--include-ignored"]));
    let text = fs::read_to_string(CALLS).unwrap();
    // The thread that asks for its parent does so between the steps.
    let marked = text
        .lines()
        .find(|line| line.contains(" getppid("))
        .unwrap();
    let (thread, _) = marked.split_once(' ').unwrap();
    let mut steps: Vec<Vec<&str>> = vec![Vec::new()];
    for line in text.lines() {
        match line.split_once(' ') {
            Some((by, call)) if by == thread => {
                let call = call.trim_start();
                if call.starts_with("getppid(") {
                    steps.push(Vec::new());
                } else if !call.contains("F_GETFD") {
                    // That one is asked before each `close` by debug builds.
                    steps.last_mut().unwrap().push(call);
                }
            }
            _ => {}
        }
    }
    let [_, health, info, create, snapshot, listing, _] = &steps[..] else {
        panic!("{} steps", steps.len())
    };
    assert!(health.len() <= 10, "{health:#?}");
    let ioctls = |step: &[&str]| {
        step.iter()
            .filter(|call| call.starts_with("ioctl("))
            .count()
    };
    assert_eq!((info.len(), ioctls(info)), (1, 1), "{info:#?}");
    // The request, and what was made is opened and looked at.
    assert_eq!((create.len(), ioctls(create)), (4, 1), "{create:#?}");
    assert_eq!((snapshot.len(), ioctls(snapshot)), (4, 1), "{snapshot:#?}");
    assert!(ioctls(listing) <= 6, "{listing:#?}");
}

#[test]
#[ignore = "runs inside a node, under strace"]
fn calls() {
    let path = Path::new("/mnt/calls");
    let root = Subvolume::open(path).unwrap();
    let sub = Subvolume::open(path.join("sub")).unwrap();
    let into = File::open(path).unwrap();
    let mut probe = HealthProbe::new(path).unwrap();
    // Memory is asked for once.
    probe.look().unwrap();
    list(&root, Scope::Below).unwrap();
    getppid();
    probe.look().unwrap();
    getppid();
    sub.info().unwrap();
    getppid();
    let created = Subvolume::create(&into, "created").unwrap();
    getppid();
    let snapshot = sub.snapshot(&into, "snapshot", Access::ReadOnly).unwrap();
    getppid();
    list(&root, Scope::Below).unwrap();
    getppid();
    drop((created, snapshot));
}
