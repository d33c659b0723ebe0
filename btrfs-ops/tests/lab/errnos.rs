//! What the kernel answers to what cannot be done, and what is made of it.

use std::fs::{self, File};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use btrfs_ops::stream::{Command as Item, Version, Writer};
use btrfs_ops::{
    Access, BalanceFilter, Bytes, DeleteOptions, Error, ErrorKind, Generation, QgroupId,
    ReceiveOptions, ReceivedUuid, SendOptions, Size, SubvolId, Subvolume, Uuid, balance,
    balance_cancel, balance_pause, balance_resume, delete, delete_by_id, delete_nested,
    enable_quotas, exchange, limit_qgroup, receive, resize, scrub, set_default_subvolume, sync,
};

use crate::common::{SECOND, Store, run};

#[test]
#[ignore = "runs inside a node"]
fn table() {
    let store = Store::new("errnos", &["-b", "300M"], "");
    let other = Store::on(SECOND, "other", &["--mixed", "-b", "64M"], "");
    let (root, elsewhere) = (store.root(), other.root());
    let sub = Subvolume::create(&root, "sub").unwrap();
    Subvolume::create(&sub, "nested").unwrap();
    let frozen = sub.snapshot(&root, "frozen", Access::ReadOnly).unwrap();
    let gone = Subvolume::create(&root, "gone").unwrap();
    let gone_id = gone.id().unwrap();
    let options = DeleteOptions::new();
    let anyway = DeleteOptions::new().even_while_mounted();
    delete(&root, "gone", &options).unwrap();
    fs::create_dir(store.path.join("directory")).unwrap();
    let uuid = Uuid::from_bytes([7; 16]).unwrap();
    // The kernel's number, what it is to a program, and a word for a reader.
    let cases: Vec<(Error, ErrorKind, Option<i32>, &str)> = vec![
        (
            sub.snapshot(&elsewhere, "x", Access::ReadOnly).unwrap_err(),
            ErrorKind::OtherFileSystem,
            Some(libc::EXDEV),
            "different file systems",
        ),
        (
            exchange(&root, "sub", &elsewhere, "x").unwrap_err(),
            ErrorKind::NotFound,
            Some(libc::ENOENT),
            "/mnt/other/x",
        ),
        (
            Subvolume::create(&root, "sub").unwrap_err(),
            ErrorKind::AlreadyExists,
            Some(libc::EEXIST),
            "/mnt/errnos/sub",
        ),
        (
            Subvolume::create(&frozen, "x").unwrap_err(),
            ErrorKind::ReadOnly,
            Some(libc::EROFS),
            "read-only subvolume",
        ),
        (
            frozen.set_received(uuid, Generation(1)).unwrap_err(),
            ErrorKind::ReadOnly,
            Some(libc::EROFS),
            "before the subvolume is made read-only",
        ),
        (
            Subvolume::create(&gone, "x").unwrap_err(),
            ErrorKind::NotFound,
            Some(libc::ENOENT),
            "create subvolume",
        ),
        (
            gone.info().unwrap_err(),
            ErrorKind::NotFound,
            Some(libc::ENOENT),
            "has been deleted",
        ),
        (
            btrfs_ops::info(File::open(store.path.join("frozen/nested")).unwrap()).unwrap_err(),
            ErrorKind::NotSubvolume,
            Some(libc::ENOTTY),
            "empty directory",
        ),
        (
            delete(&root, "sub", &options).unwrap_err(),
            ErrorKind::NotEmpty,
            Some(libc::ENOTEMPTY),
            "nested in it",
        ),
        (
            delete_by_id(&root, gone_id, &options).unwrap_err(),
            ErrorKind::NotFound,
            Some(libc::ENOENT),
            "id ",
        ),
        (
            delete_by_id(&root, SubvolId::TOP_LEVEL, &options).unwrap_err(),
            ErrorKind::Mounted,
            None,
            "/mnt/errnos",
        ),
        (
            delete_by_id(&root, SubvolId::TOP_LEVEL, &anyway).unwrap_err(),
            ErrorKind::NotSubvolume,
            Some(libc::EINVAL),
            "top level",
        ),
        (
            set_default_subvolume(&root, gone_id).unwrap_err(),
            ErrorKind::NotFound,
            Some(libc::ENOENT),
            "no subvolume has this id",
        ),
        (
            Subvolume::open_by_id(&root, gone_id).unwrap_err(),
            ErrorKind::NotFound,
            Some(libc::ENOENT),
            "id ",
        ),
        (
            sub.send(&SendOptions::new()).unwrap_err(),
            ErrorKind::Permission,
            None,
            "read-only snapshot",
        ),
        (
            resize(&root, 1, Size::Bytes(Bytes(1 << 50))).unwrap_err(),
            ErrorKind::InvalidSize,
            Some(libc::EFBIG),
            "end of the device",
        ),
        (
            scrub(&root, 9, true).unwrap_err(),
            ErrorKind::NotFound,
            Some(libc::ENODEV),
            "no such device",
        ),
    ];
    for (error, kind, errno, word) in &cases {
        let text = error.to_string();
        assert_eq!(
            (error.kind(), error.raw_os_error()),
            (*kind, *errno),
            "{text}"
        );
        assert!(text.contains(word), "{text}");
    }
    drop((cases, gone));
    swap_file(&store, &root);
    exclusive(&store, &root);
    quota(&root);
}

/// Neither a snapshot of it nor its end, while it is swapped to.
fn swap_file(store: &Store, root: &Subvolume) {
    let swap = Subvolume::create(root, "swap").unwrap();
    let path = store.path.join("swap/file");
    File::create(&path).unwrap();
    run(Command::new("chattr").arg("+C").arg(&path));
    fs::write(&path, vec![0; 8 << 20]).unwrap();
    sync(&swap).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    run(Command::new("mkswap").arg("-q").arg(&path));
    run(Command::new("swapon").arg(&path));
    let error = swap.snapshot(root, "x", Access::ReadOnly).unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Busy, Some(libc::ETXTBSY)),
        "{error}"
    );
    assert!(error.to_string().contains("swap file"), "{error}");
    let error = delete(root, "swap", &DeleteOptions::new()).unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Permission, Some(libc::EPERM)),
        "{error}"
    );
    assert!(error.to_string().contains("swap file"), "{error}");
    run(Command::new("swapoff").arg(&path));
    drop(swap);
    delete(root, "swap", &DeleteOptions::new()).unwrap();
}

/// One operation keeps the others out.
fn exclusive(store: &Store, root: &Subvolume) {
    for i in 0..12 {
        fs::write(store.path.join(format!("sub/{i}")), vec![i; 8 << 20]).unwrap();
    }
    sync(root).unwrap();
    let done = AtomicBool::new(false);
    // It may be done before it can be paused.
    let paused = (0..20).any(|_| {
        thread::scope(|scope| {
            let running = scope.spawn(|| {
                let ended = balance(root, &BalanceFilter::new().data(100, 0).metadata(100, 0));
                done.store(true, Ordering::SeqCst);
                ended
            });
            while !done.load(Ordering::SeqCst) && balance_pause(root).is_err() {
                thread::yield_now();
            }
            let ended = running.join().unwrap();
            done.store(false, Ordering::SeqCst);
            ended.is_err_and(|error| error.kind() == ErrorKind::Cancelled)
        })
    });
    assert!(paused, "a balance can be paused");
    let error = resize(root, 1, Size::Max).unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Busy, Some(libc::EBUSY)),
        "{error}"
    );
    let error = balance(root, &BalanceFilter::new().data(100, 0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    // Ended either way.
    let _ = balance_cancel(root).or_else(|_| balance_resume(root).map(drop));
}

/// A quota that is used up, in all that makes something.
fn quota(root: &Subvolume) {
    let limited = Subvolume::create(root, "limited").unwrap();
    enable_quotas(root, false).unwrap();
    let group = QgroupId::from(limited.id().unwrap());
    limit_qgroup(root, group, Some(Bytes(4096)), None).unwrap();
    sync(root).unwrap();
    let mut writer = Writer::new(Vec::new(), Version::V1).unwrap();
    writer
        .put(&Item::Subvol {
            path: "received".as_ref(),
            uuid: Uuid::from_bytes([7; 16]),
            ctransid: Generation(1),
        })
        .unwrap();
    let stream = writer.finish().unwrap();
    for (what, error) in [
        ("create", Subvolume::create(&limited, "x").err()),
        (
            "snapshot",
            limited.snapshot(&limited, "y", Access::ReadOnly).err(),
        ),
        (
            "receive",
            receive(&limited, &stream[..], &ReceiveOptions::new()).err(),
        ),
    ] {
        let error = error.expect(what);
        assert_eq!(
            (error.kind(), error.raw_os_error()),
            (ErrorKind::NoSpace, Some(libc::EDQUOT)),
            "{error}"
        );
        assert!(error.to_string().contains("quota"), "{error}");
    }
    limited.make_writable(ReceivedUuid::Refuse).unwrap();
    delete_nested(root, "limited", &DeleteOptions::new()).unwrap();
}
