//! Stands in the nodes of the demo for every program that the project replaces, so that "no
//! foreign tool was called" is an observation: it writes its own name and arguments, as one line,
//! to the record that outlives the node, and exits 127 as if the program were not there.

use std::fs::OpenOptions;
use std::io::Write;

/// A directory of the node that outlives it.
const RECORD: &str = "/var/lib/foreign-tools/called";

fn main() {
    let words: Vec<String> = std::env::args().map(|word| word.replace(['\n', '\\'], "?")).collect();
    let line = format!("{}\n", words.join(" "));
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(RECORD)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("recorder: {RECORD}: {error}");
        std::process::exit(126);
    }
    std::process::exit(127);
}
