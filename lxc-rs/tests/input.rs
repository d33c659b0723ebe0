//! Bad input, which needs no node.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::time::Duration;

use lxc_rs::{Container, ContainerName, ErrorKind, LxcPath, State, list};

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

#[test]
fn a_corrupt_configuration_says_which_line() {
    let dir = tempfile::tempdir().unwrap();
    let store = LxcPath::new(dir.path()).unwrap();
    let config = |name: &str, text: &[u8]| {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("config"), text).unwrap();
        Container::open(&store, name).unwrap_err()
    };
    let error = config("typo", b"lxc.uts.name = x\nlxc.betwork.type = veth\n");
    assert_eq!(error.kind(), ErrorKind::ConfigRejected, "{error}");
    assert!(error.to_string().contains("lxc.betwork.type"), "{error}");
    let error = config("legacy", b"lxc.network.type = veth\n");
    assert_eq!(error.kind(), ErrorKind::ConfigRejected, "{error}");
    assert!(error.to_string().contains("lxc.network.type"), "{error}");
    // Lines that do not begin with `lxc.` are nothing to liblxc.
    fs::create_dir(dir.path().join("noise")).unwrap();
    fs::write(
        dir.path().join("noise/config"),
        b"\xff\xfe\0 this is no configuration\n",
    )
    .unwrap();
    let noise = Container::open(&store, "noise").unwrap();
    assert_eq!(noise.rootfs().unwrap(), None);
    // But then there is no root file system, and init would run on the host's.
    let error = noise
        .start(&lxc_rs::StartOptions::new(), Duration::from_secs(60))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RootfsMissing, "{error}");
    assert_eq!(noise.state().unwrap(), State::Stopped);
    let listed = list(&store).unwrap();
    assert_eq!(
        listed
            .iter()
            .map(|entry| entry.is_broken())
            .collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(ContainerName::new("typo").unwrap(), listed[2].name);
}
