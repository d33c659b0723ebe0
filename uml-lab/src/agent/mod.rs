//! The program inside a node, and the keeper beside the lab.
//!
//! One static executable with several faces, chosen by how it is called:
//!
//! - as process 1 of a node: sets the node up (`init`), then starts programs
//!   for the lab (`serve`);
//! - `power VERB NODE`: the virtual power switch, used by programs in a node;
//! - `put PATH MODE`, `get PATH`: file transfer, run like any other program so
//!   that a file system that hangs cannot hang process 1;
//! - `table NAME`, `destage SEED NAME...`: faults of disks;
//! - `fill DIR LEAVE`, `unfill DIR`: a full file system; `clock MS`: a wrong
//!   clock;
//! - `keeper RUN_DIR`: on the host, parent of all kernels of a lab. It outlives
//!   the lab by the moment it needs to kill them and to remove their files.
//!
//! Uses `std` and the C library, nothing else.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

mod disks;
mod dm;
mod files;
mod init;
mod keeper;
mod kick;
mod launch;
mod modules;
mod network;
mod power;
mod serve;
mod sys;

pub(crate) fn run() {
    if std::process::id() == 1 {
        init::main();
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args
        .first()
        .map(Path::new)
        .and_then(Path::file_name)
        .unwrap_or_default();
    let rest = args.get(1..).unwrap_or_default();
    let code = if name.as_bytes() == b"power" {
        power::client(rest)
    } else {
        match rest {
            [verb, rest @ ..] if verb == "power" => power::client(rest),
            [verb, dir] if verb == "keeper" => keeper::main(Path::new(dir)),
            [verb, path] if verb == "get" => files::get(Path::new(path)),
            [verb, path, mode] if verb == "put" => files::put(Path::new(path), mode),
            [verb, dir, leave] if verb == "fill" => files::fill(Path::new(dir), leave),
            [verb, dir] if verb == "unfill" => files::unfill(Path::new(dir)),
            [verb, name] if verb == "table" => files::report(name, disks::change_table(name)),
            [verb, seed, names @ ..] if verb == "destage" => {
                files::report(verb, disks::destage(seed, names))
            }
            [verb, by] if verb == "clock" => files::report(verb, shift_clock(by)),
            _ => {
                eprintln!("usage: see the lab's documentation; this is its program in a node");
                64
            }
        }
    };
    std::process::exit(code);
}

fn shift_clock(by: &std::ffi::OsStr) -> std::io::Result<()> {
    let by = by.to_str().and_then(|text| text.parse().ok());
    sys::shift_clock(by.ok_or_else(|| std::io::Error::from_raw_os_error(sys::EINVAL))?)
}
