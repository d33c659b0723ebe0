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
mod builder;
mod cache;
mod command;
mod embedded;
mod error;
mod keeper;
mod lab;
mod link;
mod node;
mod packages;
mod protocol;
mod switch;
mod wire;

// The embedded program is compiled by build.rs; this lets its own tests and
// lints run.
#[cfg(any(test, clippy))]
#[allow(dead_code, unused_imports, reason = "a program of its own")]
mod agent;

pub use builder::{LabBuilder, NodeBuilder, WireBuilder};
pub use command::{Child, Command, DEFAULT_DEADLINE, Output, OutputReader};
pub use error::{Error, ErrorKind, Result};
pub use lab::{Lab, prerequisites};
pub use node::Node;
pub use wire::Wire;
