//! A container from nothing to nothing: made of a directory tree, started, a
//! command run in it, stopped, a snapshot taken, everything destroyed.
//!
//! Needs root, a Btrfs with the directory /srv/store1/containers, and a tree
//! with a system in it, such as `mmdebstrap --include=systemd-sysv trixie
//! /srv/images/debian` makes (less its etc/hostname, which is that of the
//! machine it was made on). Leaves nothing behind. Prints:
//!
//! ```text
//! m1 is RUNNING: m1
//! snap0 in /srv/store1/containers/m1/snaps/snap0
//! ```

use lxc_rs::{
    AttachCommand, Container, ContainerName, CreateSpec, LxcPath, SnapshotOptions, StartOptions,
};
use std::time::Duration;

fn main() -> Result<(), lxc_rs::Error> {
    let long = Duration::from_secs(60);
    let store = LxcPath::new("/srv/store1/containers")?; // on Btrfs
    let spec = CreateSpec::new(ContainerName::new("m1")?).tree("/srv/images/debian");
    let m1 = Container::create(&store, spec, long)?.done()?;
    m1.start(&StartOptions::new(), long)?.done()?;
    let command = AttachCommand::new("hostname");
    let output = m1.attach_run(&command, long)?.done()?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{} is {}: {said}", m1.name(), m1.state()?);
    m1.shutdown(long)?.done()?; // monitor gone too: the file system can be unmounted
    let comment = SnapshotOptions::new().comment("first");
    let snapshot = m1.snapshot(&comment, long)?.done()?;
    println!("{} in {}", snapshot.name, snapshot.dir.display());
    m1.destroy_with_snapshots(long)?.done()
}
