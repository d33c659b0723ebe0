//! The systemd units are what systemd takes.
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
