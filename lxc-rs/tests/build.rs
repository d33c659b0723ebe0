//! What building says and needs on machines without liblxc.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::{Command, Output};

/// Runs cargo on this crate where pkg-config finds nothing.
fn cargo(arguments: &[&str], set: &[(&str, &str)]) -> Output {
    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/build");
    Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--offline", "--lib", "--target-dir", target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PKG_CONFIG_LIBDIR", "/nonexistent")
        .env_remove("RUSTFLAGS")
        .envs(set.iter().copied())
        .output()
        .unwrap()
}

#[test]
#[ignore = "deep: builds the crate three times over"]
fn deep_builds_without_liblxc() {
    let linked = cargo(&["check"], &[]);
    let said = String::from_utf8_lossy(&linked.stderr);
    assert!(!linked.status.success(), "{said}");
    for word in [
        "lxc-rs needs liblxc 4.0.5 or newer",
        "install lxc-dev",
        "`dlopen`",
    ] {
        assert!(said.contains(word), "{said}");
    }
    // Those who build documentation have none, and need none.
    let documented = cargo(&["doc", "--no-deps"], &[("DOCS_RS", "1")]);
    let loaded = cargo(&["check", "--features", "dlopen"], &[]);
    for output in [documented, loaded] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}
