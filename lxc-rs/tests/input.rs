//! Bad input, which needs no node.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::process::Command;

use lxc_rs::{
    Container, ErrorKind, LxcPath, State, StateEvents, active, global_config_item, list, states,
};

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
fn queries_need_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let store = LxcPath::new(dir.path()).unwrap();
    let text = "lxc.uts.name = m1\nlxc.environment = A=1\nlxc.environment = B=2\nlxc.rootfs.path = btrfs:/x/m1/rootfs\n";
    for name in ["m1", "m2"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("config"), text).unwrap();
    }
    let mut m1 = Container::open(&store, "m1").unwrap();
    assert_eq!(m1.state().unwrap(), State::Stopped);
    assert_eq!(
        (m1.init_pid().unwrap(), m1.init_pidfd().unwrap().is_some()),
        (None, false)
    );
    assert_eq!(m1.config_list("lxc.environment").unwrap(), ["A=1", "B=2"]);
    m1.set_config_item("lxc.uts.name", "other").unwrap();
    m1.clear_config_item("lxc.environment").unwrap();
    m1.save_config().unwrap();
    assert_eq!(
        m1.rootfs().unwrap().unwrap().to_value(),
        "btrfs:/x/m1/rootfs"
    );
    assert_eq!(
        m1.config_item("lxc.no.such").unwrap_err().kind(),
        ErrorKind::ConfigRejected
    );
    assert_eq!(
        m1.cgroup_item("pids.max").unwrap_err().kind(),
        ErrorKind::NotRunning
    );
    assert_eq!(m1.console(None).unwrap_err().kind(), ErrorKind::NotRunning);
    assert_eq!(m1.snapshots().unwrap(), []);
    let keys = store.config_keys();
    assert!(
        keys.len() > 50 && keys.iter().all(|key| store.knows_config_item(key)),
        "{keys:?}"
    );
    assert_eq!(list(&store).unwrap().len(), 2);
    let all = states(&store).unwrap();
    assert!(
        all.iter()
            .all(|(_, state)| matches!(state, Ok(State::Stopped)))
    );
    assert_eq!(active(&store).unwrap(), []);
    assert!(global_config_item("lxc.lxcpath").unwrap().is_some());
    assert_eq!(
        global_config_item("a\0b").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    if !nix::unistd::geteuid().is_root() {
        assert_eq!(
            StateEvents::open(&store).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }
}

/// Every call that runs in this process and needs no container that runs, watched for reads beyond the end and
/// for memory that nobody gives back.
#[test]
#[ignore = "deep: needs valgrind"]
fn deep_valgrind() {
    let output = Command::new("valgrind")
        .args(["-q", "--error-exitcode=99", "--leak-check=full"])
        .arg("--errors-for-leak-kinds=definite")
        .arg(concat!(
            "--suppressions=",
            env!("CARGO_MANIFEST_DIR"),
            "/tests/valgrind.supp"
        ))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "queries_need_no_node", "--test-threads=1"])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => panic!("valgrind cannot be run: {error}"),
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{output:?}"
    );
}
