//! Checked, planned and resumable failover of LXC containers on Btrfs on DRBD.
//!
//! ```no_run
//! use ha_failover::{Node, Placement, Request, World, plan};
//!
//! let placement = Placement::load("/etc/ha-failover/placement.toml")?;
//! let mut node = Node::new(&placement, "r0", "node1", "/usr/lib/ha-failover/drbd-helper".as_ref())?;
//! let facts = node.facts()?;
//! match plan(&facts, node.resource(), &Request::Start) {
//!     Ok(plan) => println!("{plan}"),
//!     Err(refusal) => println!("{refusal}"), // all reasons at once, each with what to do
//! }
//! # Ok::<(), ha_failover::Error>(())
//! ```
//!
//! - [`Placement`] says what belongs together: resource, mount point, lxcpath,
//!   containers, nodes, deadlines, how the peer is fenced.
//! - [`Facts`] are one look at the system; [`plan()`] turns them into a [`Plan`] or
//!   a [`Refusal`] and touches nothing.
//! - [`Executor`] runs a [`Runnable`] plan on a [`World`]: intent, action, result,
//!   in a [`journal`] on disk; undone in reverse when a step fails. A rerun after
//!   a crash looks first and plans what is left.
//! - A plan that promotes without the peer's consent becomes runnable only with a
//!   [`FenceEvidence`] about that peer.
//! - [`Node`] is the world that is real; with the feature `testing`, the module
//!   `sim` has one that is not.
//!
//! The trap: DRBD's `UpToDate` is the opinion of one node. A node that was lost
//! as Primary and boots alone is `UpToDate`, and DRBD would promote it. The
//! [`ledger`] is there to know better.
//!
//! Not here: deciding by itself that a peer is dead, agreement of more than two
//! nodes, commands to the other node.

mod duration;
mod error;
pub mod evidence;
pub mod exec;
pub mod facts;
pub mod finding;
pub mod group;
pub mod journal;
pub mod ledger;
pub mod lock;
pub mod managers;
pub mod node;
pub mod placement;
pub mod plan;
pub mod planner;
#[cfg(any(test, feature = "testing"))]
pub mod sim;
pub mod world;

pub use error::{Error, ErrorKind, Result};
pub use evidence::{Attestation, CommandFencer, FenceEvidence, Fencer, Power};
pub use exec::{Control, Event, Executor, Observer, Outcome, Progress};
pub use facts::Facts;
pub use finding::{Code, Finding, Refusal, Severity};
pub use group::{GroupPlan, GroupRequest, plan_group};
pub use lock::Lock;
pub use node::{NewContainer, Node, SpaceReport};
pub use placement::{Placement, Resource};
pub use plan::{Action, Plan, Request, Runnable, Step, Takeover};
pub use planner::plan;
pub use world::{Done, Failure, FailureKind, World};

/// The README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
