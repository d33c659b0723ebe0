//! Finds liblxc, and compiles the helper program that the library carries
//! inside itself (`src/helper/main.rs` says why it exists).

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(lxc_linked)");
    for input in ["build.rs", "src/helper", "src/sys", "src/wire.rs"] {
        println!("cargo::rerun-if-changed={input}");
    }
    println!("cargo::rerun-if-env-changed=DOCS_RS");

    // Without the link the library is loaded at run time, which is also what
    // building the documentation needs: no liblxc at all.
    let loaded = env::var_os("CARGO_FEATURE_DLOPEN").is_some() || env::var_os("DOCS_RS").is_some();
    if !loaded {
        link();
    }
    helper();
}

/// Links the system's liblxc, or ends the build with what to install.
fn link() {
    match pkg_config::Config::new()
        .atleast_version("4.0.5")
        .probe("lxc")
    {
        Ok(_) => println!("cargo::rustc-cfg=lxc_linked"),
        Err(cause) => fail(&format!(
            "lxc-rs needs liblxc 4.0.5 or newer and its pkg-config file: install lxc-dev (Debian, Ubuntu) or lxc-devel (Fedora), \
             or turn on the feature `dlopen`, which needs liblxc only at run time. pkg-config said: {}",
            cause.to_string().replace('\n', " ")
        )),
    }
}

/// Compiles the helper with the compiler that builds this crate. It uses
/// nothing but `std` and loads liblxc itself, so one file is all there is.
fn helper() {
    let out = PathBuf::from(variable("OUT_DIR")).join("lxc-rs-helper");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "lxc_rs_helper",
            "--crate-type",
            "bin",
        ])
        .args([
            "-C",
            "opt-level=s",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
            "-C",
            "lto=fat",
            "-C",
            "codegen-units=1",
        ])
        // A static program cannot load a library. Where static is the default
        // (musl), ask for the other one.
        .args(["-C", "target-feature=-crt-static"])
        .arg("--target")
        .arg(variable("TARGET"))
        .arg("-o")
        .arg(&out)
        .arg(Path::new(&variable("CARGO_MANIFEST_DIR")).join("src/helper/main.rs"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    match rustc.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            fail(&format!(
                "lxc-rs: compiling the helper program failed ({})",
                output.status
            ));
        }
        Err(cause) => fail(&format!(
            "lxc-rs: cannot run {:?}: {cause}",
            rustc.get_program()
        )),
    }
}

fn variable(name: &str) -> OsString {
    match env::var_os(name) {
        Some(value) => value,
        None => fail(&format!("lxc-rs: cargo did not set {name}")),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1)
}
