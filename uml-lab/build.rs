//! Compiles the program that runs inside the nodes (and the keeper) into one
//! static executable, which `src/embedded.rs` carries as bytes.
//!
//! Cargo cannot give a library a finished executable of another member, so the
//! compiler is called here with the sources in `src/agent`, which use `std`
//! and nothing else.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/agent");
    println!("cargo::rerun-if-changed=src/protocol.rs");
    println!("cargo::rerun-if-changed=src/random.rs");

    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let program = out_dir.join("agent");
    // User-mode kernels exist for x86 only; elsewhere the crate builds and
    // `prerequisites()` says why no lab can start.
    let supported =
        variable("CARGO_CFG_TARGET_ARCH") == "x86_64" && variable("CARGO_CFG_TARGET_OS") == "linux";
    if supported {
        compile(&out_dir, &program);
    } else {
        write(&program, b"");
    }
}

fn compile(out_dir: &Path, program: &Path) {
    let sources = Path::new(&variable("CARGO_MANIFEST_DIR")).join("src");
    let root = out_dir.join("agent_main.rs");
    let text = format!(
        "#[path = {:?}]\nmod agent;\n#[path = {:?}]\nmod protocol;\n#[path = {:?}]\nmod random;\n\
         fn main() {{ agent::run() }}\n",
        sources.join("agent/mod.rs"),
        sources.join("protocol.rs"),
        sources.join("random.rs"),
    );
    write(&root, text.as_bytes());

    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--edition=2024", "--crate-name=agent", "--crate-type=bin"])
        .args([
            "-Copt-level=2",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ccodegen-units=4",
        ])
        .args(["-Ctarget-feature=+crt-static", "-Adead_code"])
        .arg("--target")
        .arg(variable("TARGET"))
        .arg("-o")
        .arg(program)
        .arg(&root);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    match rustc.status() {
        Ok(status) if status.success() => {}
        Ok(status) => stop(&format!("compiling the node program failed: {status}")),
        Err(error) => stop(&format!("{rustc:?}: {error}")),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| stop(&format!("cargo did not set {name}")))
}

fn write(path: &Path, bytes: &[u8]) {
    if let Err(error) = std::fs::write(path, bytes) {
        stop(&format!("{}: {error}", path.display()));
    }
}

fn stop(why: &str) -> ! {
    println!("cargo::error={why}");
    std::process::exit(1)
}
