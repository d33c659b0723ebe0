//! Real nodes on one machine: boots user-mode kernels, wires them, breaks them.
//!
//! ```no_run
//! use uml_lab::Lab;
//!
//! fn main() -> Result<(), uml_lab::Error> {
//!     let lab = Lab::builder()
//!         .node("node1", |n| n.disk("256M"))
//!         .node("node2", |n| n.disk("256M"))
//!         .wire("repl", |w| w.port("node1", "10.0.254.1/30").port("node2", "10.0.254.2/30"))
//!         .start()?;
//!     let output = lab.node("node1").run(["/bin/uname", "-n"])?;
//!     assert_eq!(output.stdout, b"node1\n");
//!     lab.wire("repl").cut("node1", "node2"); // frames from node1 to node2 are lost
//!     lab.node("node2").kill()?; // node loss
//!     lab.node("node2").boot()?; // on the same disks
//!     Ok(())
//! }
//! ```
//!
//! For tests of software that needs several machines, their kernels and their
//! failures: replication, failover, cluster managers. Each node is a Linux
//! kernel of its own with its own devices, modules, mounts, network and
//! process 1. It sees the files of the host, so a test program runs in a node
//! under the path it has here ([`Node::run_test`]); what it writes stays in
//! its memory, on its disks, and in the directories it keeps.
//!
//! No root, no virtual machines, no containers, no images, no network of the
//! host, no shell scripts. As root it works too, see [Confinement](#confinement).
//!
//! # What a node is
//!
//! - **Root**: an overlay of the host's root, the unpacked packages, and the
//!   layers of [`LabBuilder::layer`], with a tmpfs for writes; or of any other
//!   tree ([`NodeBuilder::root`]). /run, /dev/shm,
//!   /proc, /sys and /dev are the node's own; there is no udev.
//! - **Disks**: /dev/ubda, /dev/ubdb and so on, sparse files that survive
//!   [`Node::kill`] and [`Node::boot`]; as a [`Disk`] with a volatile cache, or
//!   with faults.
//! - **Network**: `lo` and one `vecN` for each port of a wire, with addresses.
//!   Switches learn addresses as real ones do.
//! - **Programs** run over a serial line, not over the network, so a node that
//!   is cut off is still in the lab's hands. Arguments, environment, input,
//!   live output, status, deadline; many at once.
//! - **Power switch**: `/run/lab/power status|off|on NODE`, with the exit codes
//!   of fence agents (status: 0 on, 2 off), usable from every node.
//!
//! # Faults
//!
//! | fault | call | what the node sees | how it is done |
//! |---|---|---|---|
//! | node loss | [`Node::kill`], `power off` | nothing; boots with what its disks were given | SIGKILL to all processes of the kernel |
//! | power cut | [`Disk::power_cut`], [`Node::power_cut`] | nothing; boots with what was flushed, and some of the rest by a seed | the disk's cache is the node's memory (a buffered loop device); some of its pages are written before the kill |
//! | hang | [`Node::hang`], [`Node::resume`] | nothing, then its clocks jump; peers see silence | SIGSTOP to the kernel's process |
//! | disk fails | [`Disk::faults`], [`NodeDisk::inject`], [`NodeDisk::inject_at`] with [`DiskFault::Fail`], [`DiskFault::FailWrites`] | EIO, on all of the disk or on a part | tables of dm-error and dm-flakey, changed while in use |
//! | disk lies | the same with [`DiskFault::LoseWrites`] | nothing; writes and flushes are confirmed and gone | dm-flakey |
//! | disk is slow | the same with [`DiskFault::Slow`] | requests take longer | dm-delay |
//! | file system full | [`Node::fill`], [`Node::unfill`] | ENOSPC | a file that takes the room |
//! | wire cut | [`Wire::cut`], [`Wire::cut_all`] | frames do not arrive; no loss of link | the switch drops them, each direction by itself |
//! | wire bad | [`Wire::set`], [`Wire::set_all`] with [`Policy`]: delay, jitter, loss, duplicates, reordering, a rate, flapping | frames late, lost, twice, in another order | the switch, each direction by itself, by a seed |
//! | clock wrong | [`Node::shift_clock`] | another wall clock time, also after a boot | clock_settime in the node |
//!
//! [`Schedule`] plays several in time, by a script or made from a seed that
//! gives the same again.
//!
//! A fault stays until it is healed, over node loss and boot too; only node
//! loss, power cut and hang end by themselves or with the next boot.
//!
//! # When the lab ends
//!
//! Dropping the [`Lab`] kills all nodes and removes their files before it
//! returns. If the process dies instead (panic, ^C, `kill -9`), a keeper
//! process does the same: it is the parent of all kernels and waits for the
//! end of its socket to the lab. If somebody kills the keeper too, a guard
//! beside each kernel ends it, and the next lab removes the files. Tests
//! compare processes, mounts, files and sockets before and after, for each of
//! these ends (`tests/leftovers.rs`).
//!
//! # When a test fails
//!
//! Dropped by a panic, the lab prints the end of its [`Timeline`]: what was
//! done to nodes and wires, which programs ran, and the consoles of all nodes,
//! in the order of time. With [`LabBuilder::log_dir`], or `LAB_LOG_DIR` in the
//! environment, the whole of it and the consoles are kept there.
//! [`Lab::timeline`] returns it at any time, [`Lab::note`] adds a line.
//!
//! # Confinement
//!
//! Root in a node can mount any directory of the host, with the rights of its
//! kernel's process. For an ordinary user these are the user's own. When the
//! lab is run by root, each kernel runs without capabilities, cannot gain any,
//! and in a mount namespace where everything is read-only but the directory of
//! the node. That guards the host against accidents, as a test program run
//! with `sudo` would need; it is no prison for hostile code.
//!
//! # Decisions
//!
//! **A volatile cache instead of a log of writes.** Recording writes with
//! dm-log-writes and replaying them up to a flush needs the log to be whole at
//! the moment of the cut, and it is written behind the writes it tells of: a
//! flush may be confirmed before the log has it. A cache that goes with the
//! node has no such moment, needs no replay, and is what a real disk has. The
//! price: what survives of the unflushed is a set of pages and no prefix in
//! time, which a real disk does not promise either.
//!
//! **User-mode Linux**, because it is a real kernel that is an ordinary
//! process: the modules under test (DRBD, Btrfs, dm, bridge, veth) are the
//! real ones, a node is up in seconds, it is lost by a signal, and it runs
//! where there is no KVM, no root and no device to pass in, such as a CI
//! container. Containers share one kernel, so a replicated block device cannot
//! have two ends; virtual machines need images and time.
//!
//! **The program in the nodes is embedded** in this library: `build.rs`
//! compiles it, static and with `std` alone, and the lab writes it into the run
//! directory. The other way, executing the current program again through a
//! call at the start of `main`, is closed to test programs, which have no
//! `main` of their own. The price is some 1.5 MB in each program that uses the
//! lab, and static C library archives on the build machine (part of libc6-dev).
//!
//! **Programs run over a serial line** with flow control of our own. The
//! driver reads one byte at a time towards the node, so larger input goes
//! through a shared directory; and it stops listening for good once the
//! terminal layer throttles it, so the lab never lets it come to that.
//!
//! # What it does not do
//!
//! - Node loss keeps what the node wrote to a plain disk, flushed or not: a
//!   missing flush shows on a disk with [`Disk::power_cut`] only.
//! - One processor a node; system calls cost some 50 µs, starting a program
//!   some 50 ms: compare times within one node only.
//! - x86_64 Linux hosts; packages by name need Debian's apt and dpkg-deb.
//!   Elsewhere give a kernel with [`LabBuilder::kernel`] and
//!   [`LabBuilder::modules`] (or `LAB_KERNEL` and `LAB_MODULES`).
//! - Never set a `vecN` down inside a node: the driver does not bring it back.

mod builder;
mod cache;
mod command;
mod disk;
mod embedded;
mod error;
mod keeper;
mod lab;
mod link;
mod node;
mod packages;
mod policy;
mod protocol;
mod random;
mod schedule;
mod switch;
mod timeline;
mod wire;

// The embedded program is compiled by build.rs; this lets its own tests and
// lints run.
#[cfg(any(test, clippy))]
#[allow(dead_code, unused_imports, reason = "a program of its own")]
mod agent;

pub use builder::{LabBuilder, NodeBuilder, WireBuilder};
pub use command::{Child, Command, DEFAULT_DEADLINE, Output, OutputReader};
pub use disk::{Disk, DiskFault};
pub use error::{Error, ErrorKind, Result};
pub use lab::{Lab, prerequisites};
pub use node::{Node, NodeDisk};
pub use policy::Policy;
pub use schedule::{Action, Menu, Schedule};
pub use timeline::{Entry, Timeline};
pub use wire::Wire;

// The README's examples are compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
