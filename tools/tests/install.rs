//! What is installed beside the programs: systemd units, manual pages.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;

#[test]
fn systemd_takes_the_units() {
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() && std::env::var_os("LAB_REQUIRED").is_none() {
        eprintln!("skipped: no systemd-analyze on this host");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut seen = 0;
    for entry in std::fs::read_dir(units).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        // It looks whether the program is there; here it is where cargo put it.
        let text = text.replace(
            "/usr/lib/ha-failover/failover",
            env!("CARGO_BIN_EXE_failover"),
        );
        let copy = dir.path().join(path.file_name().unwrap());
        std::fs::write(&copy, text).unwrap();
        let output = Command::new(analyze)
            .args(["verify", "--man=no"])
            .arg(&copy)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !said.contains(copy.to_str().unwrap()),
            "{said}"
        );
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn every_command_has_its_manual_page() {
    for (name, program, commands) in [
        (
            "failover",
            env!("CARGO_BIN_EXE_failover"),
            &["-takeover", "-plan-takeover", "-create-container"][..],
        ),
        (
            "backup",
            env!("CARGO_BIN_EXE_backup"),
            &["-send", "-restore-test"],
        ),
        ("doctor", env!("CARGO_BIN_EXE_doctor"), &[]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(program)
            .arg("--man-pages")
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        for command in [&[""], commands].concat() {
            let page = std::fs::read_to_string(dir.path().join(format!("{name}{command}.1")));
            let page = page.unwrap_or_else(|e| panic!("{name}{command}: {e}"));
            assert!(page.contains(".SH SYNOPSIS"), "{name}{command}: {page}");
        }
        let refused = Command::new(program).arg("--man-pages").output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{name}: {refused:?}");
    }
}
