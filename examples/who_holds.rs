//! Names everything that keeps a mount from being unmounted; changes nothing. Root sees all of it.
//!
//! ```text
//! # who_holds /srv/store1
//! process 812 (sleep): working directory /srv/store1/app
//! ```

use std::path::PathBuf;

use node_ops::holders;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: who_holds PATH")?;
    let all = holders::of_mount(&PathBuf::from(path))?;
    let mut blocking = all.iter().filter(|holder| holder.blocks_unmount());
    if let Some(first) = blocking.next() {
        println!("{first}");
        blocking.for_each(|holder| println!("{holder}"));
    } else {
        println!("nobody");
    }
    Ok(())
}
