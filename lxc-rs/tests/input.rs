//! Bad input, which needs no node.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use lxc_rs::{Container, ErrorKind, LxcPath, list};

#[test]
fn an_lxcpath_is_an_existing_directory() {
    let error = LxcPath::new("/no/such/dir").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPath);
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert!(error.to_string().contains("/no/such/dir"), "{error}");
    let error = LxcPath::new("/etc/passwd").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPath);
    assert!(error.to_string().contains("is not a directory"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let newline = dir.path().join("a\nb");
    fs::create_dir(&newline).unwrap();
    assert_eq!(
        LxcPath::new(newline).unwrap_err().kind(),
        ErrorKind::InvalidPath
    );
}

#[test]
fn an_lxcpath_is_canonical() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let through = LxcPath::new(dir.path().join("real/../link/")).unwrap();
    assert_eq!(through, LxcPath::new(&real).unwrap());
    assert_eq!(through.as_path(), real.canonicalize().unwrap());
    assert!(through.liblxc_version().major >= 4);
}

#[test]
fn what_is_not_there_is_not_defined() {
    let dir = tempfile::tempdir().unwrap();
    let store = LxcPath::new(dir.path()).unwrap();
    assert!(list(&store).unwrap().is_empty());
    let error = Container::open(&store, "m1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotDefined);
    assert_eq!(
        (error.container(), error.path()),
        (Some("m1"), Some(store.as_path()))
    );
    for bad in ["a/b", "a\0b", ".", "", &"x".repeat(300)] {
        assert_eq!(
            Container::open(&store, bad).unwrap_err().kind(),
            ErrorKind::InvalidName
        );
    }
    // A directory without a configuration, and one in its place.
    fs::create_dir(dir.path().join("m2")).unwrap();
    assert_eq!(
        Container::open(&store, "m2").unwrap_err().kind(),
        ErrorKind::NotDefined
    );
    fs::create_dir_all(dir.path().join("m3/config")).unwrap();
    let error = Container::open(&store, "m3").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}
