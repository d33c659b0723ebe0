//! Builds the two programs that run inside containers and nodes, each from one source file and
//! linked statically, and puts them where the demo embeds them from.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, exit};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    println!("cargo::rerun-if-changed=src/record.rs");
    for program in ["workload", "recorder"] {
        let source = format!("{program}/main.rs");
        println!("cargo::rerun-if-changed={source}");
        let status = Command::new(&rustc)
            .args([
                "--edition",
                "2024",
                "--crate-name",
                program,
                "--crate-type",
                "bin",
            ])
            .args([
                "-C",
                "opt-level=2",
                "-C",
                "panic=abort",
                "-C",
                "strip=symbols",
            ])
            .args(["-C", "target-feature=+crt-static", "-D", "warnings"])
            .args(["--target", &env::var("TARGET").expect("cargo sets TARGET")])
            .arg("-o")
            .arg(out.join(program))
            .arg(&source)
            .status();
        if !status.as_ref().is_ok_and(ExitStatus::success) {
            eprintln!("compiling {source}: {status:?}");
            exit(1);
        }
    }
}
