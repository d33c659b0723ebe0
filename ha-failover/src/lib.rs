//! Facts, plan, run, journal: checked and resumable failover of LXC on Btrfs on DRBD.
mod duration;
pub mod error;
pub mod evidence;
pub mod exec;
pub mod facts;
pub mod finding;
pub mod journal;
pub mod ledger;
pub mod lock;
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
pub use lock::Lock;
pub use node::{NewContainer, Node};
pub use placement::{Placement, Resource};
pub use plan::{Action, Plan, Request, Runnable, Step};
pub use planner::plan;
pub use world::{Done, Failure, FailureKind, World};
