//! The virtual power switch: `/run/lab/power status|off|on NODE`.
//!
//! A program in a node connects to process 1, which asks the lab. Exit codes
//! are those of fence agents: 0 done (status: on), 2 off, 1 failed.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

pub(crate) const SOCKET: &str = "/run/lab/power.socket";

pub(crate) fn client(args: &[OsString]) -> i32 {
    let [verb, node] = args else {
        eprintln!("usage: power status|off|on NODE");
        return 1;
    };
    match ask(verb.as_bytes(), node.as_bytes()) {
        Ok((code, text)) => {
            if code == 1 {
                eprintln!("power {} {}: {text}", verb.display(), node.display());
            } else {
                println!("{text}");
            }
            i32::from(code)
        }
        Err(error) => {
            eprintln!("power {} {}: {error}", verb.display(), node.display());
            1
        }
    }
}

fn ask(verb: &[u8], node: &[u8]) -> std::io::Result<(u8, String)> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.write_all(&[verb, b" ", node, b"\n"].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.split_first() {
        Some((&code, text)) => Ok((code, String::from_utf8_lossy(text).into_owned())),
        None => Err(std::io::Error::other("the lab did not answer")),
    }
}
