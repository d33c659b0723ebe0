//! A DRBD kernel that is not there: for tests of programs that use this
//! crate, without root and without modules.
//!
//! [`FakeCluster`] has nodes with disks and wires between them. A
//! [`FakeNode`] is a [`Connector`]: [`Drbd::with_connector`](crate::Drbd::with_connector)
//! makes the same handle of it that the real kernel gives. Requests and
//! answers are the bytes of the real thing; roles, connections, disks, data
//! generations and the events about them follow its rules, as far as
//! `tests/lab.rs` compares the two. What it does not do: time passes only
//! where a test lets it, a resync is done at once unless it is
//! [held](FakeCluster::hold_resync), and no byte of data is stored.
//!
//! ```
//! use drbd_nl::testing::FakeCluster;
//! use drbd_nl::{Dialect, Drbd, Operation, ResourceName, ResourceOptions};
//! use std::time::Duration;
//!
//! let cluster = FakeCluster::new(Dialect::V84, ["node1", "node2"]);
//! let drbd = Drbd::with_connector(cluster.node("node1"))?;
//! let r0 = ResourceName::new("r0").expect("a valid name");
//! let options = ResourceOptions::new();
//! let new = Operation::NewResource { resource: r0.clone(), node_id: None, options };
//! println!("{}", drbd.run(&new, Duration::from_secs(5))?);
//! cluster.refuse_next("node1", -12, ["held open by somebody"]);
//! assert!(drbd.down(&r0, Duration::from_secs(5)).is_err());
//! # Ok::<(), drbd_nl::Error>(())
//! ```

mod encode;
mod kernel;
mod socket;

use crate::dialect::Dialect;
use crate::model::{DiskState, Minor, ResourceName, State, Text, VolumeNumber};
use crate::socket::Connector;
use kernel::{Cluster, Fault};
pub use socket::FakeSocket;
use socket::Shared;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Nodes with DRBD modules, disks and wires, all of them made up.
///
/// A node or disk that was not made is a mistake of the test: the functions
/// that name one panic then.
#[derive(Clone, Debug)]
pub struct FakeCluster(Arc<Mutex<Cluster>>);

/// One node of a [`FakeCluster`].
#[derive(Clone, Debug)]
pub struct FakeNode {
    cluster: FakeCluster,
    node: usize,
}

impl FakeCluster {
    /// Nodes whose module is loaded, wired to each other, without disks.
    #[must_use]
    pub fn new<'a>(dialect: Dialect, nodes: impl IntoIterator<Item = &'a str>) -> Self {
        Self(Arc::new(Mutex::new(Cluster::new(dialect, nodes))))
    }

    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node, by its name.
    ///
    /// # Panics
    /// When there is none of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> FakeNode {
        FakeNode {
            cluster: self.clone(),
            node: self.lock().index(name),
        }
    }

    /// Puts a disk into a node, with metadata that was never used.
    pub fn add_disk(&self, node: &str, path: impl Into<PathBuf>, sectors: u64) {
        self.lock().add_disk(node, path.into(), sectors);
    }

    /// The application writes: on a Primary that has lost its peer this is
    /// what makes a new data generation. False where it could not.
    pub fn write(&self, node: &str, minor: Minor, sectors: u64) -> bool {
        self.lock().write(node, minor, sectors)
    }

    /// Somebody opens a device, or closes it: an open one cannot be demoted.
    pub fn set_open(&self, node: &str, minor: Minor, open: bool) {
        self.lock().set_open(node, minor, open);
    }

    /// The disk fails under its device: it becomes Diskless.
    pub fn fail_disk(&self, node: &str, minor: Minor) {
        self.lock().fail_disk(node, minor);
    }

    /// Cuts the wires between two nodes.
    pub fn cut(&self, one: &str, other: &str) {
        self.lock().cut(one, other);
    }

    /// Mends the wires between two nodes; their connections come back.
    pub fn heal(&self, one: &str, other: &str) {
        self.lock().heal(one, other);
    }

    /// Resyncs begin, and go on only by [`FakeCluster::resync`].
    pub fn hold_resync(&self) {
        self.lock().held = true;
    }

    /// Every resync that is under way does this much, or ends.
    pub fn resync(&self, sectors: u64) {
        self.lock().resync(sectors);
    }

    /// Unloads the module of a node, with all that was configured.
    pub fn unload_module(&self, node: &str) {
        self.lock().unload(node);
    }

    /// Loads it again: the family has another id then.
    pub fn load_module(&self, node: &str) {
        self.lock().load(node);
    }

    /// The next change asked of a node is refused.
    pub fn refuse_next<'a>(
        &self,
        node: &str,
        ret_code: i32,
        texts: impl IntoIterator<Item = &'a str>,
    ) {
        let texts = texts.into_iter().map(Text::from).collect();
        self.lock().fault(node, Fault::Refuse(ret_code, texts));
    }

    /// The next change asked of a node fails with this errno.
    pub fn fail_next(&self, node: &str, errno: i32) {
        self.lock().fault(node, Fault::Errno(errno));
    }

    /// The next change asked of a node is not answered, and not made.
    pub fn ignore_next(&self, node: &str) {
        self.lock().fault(node, Fault::Silence);
    }

    /// The next change asked of a node is answered, and made, this much later.
    pub fn delay_next(&self, node: &str, delay: Duration) {
        self.lock().fault(node, Fault::Delay(delay));
    }

    /// The next announcements of a node get lost by overflow.
    pub fn overrun(&self, node: &str, announcements: usize) {
        self.lock().lose(node, announcements, true);
    }

    /// The next announcements of a node get lost, and nobody says so: a gap
    /// in their numbers is all there is.
    pub fn lose(&self, node: &str, announcements: usize) {
        self.lock().lose(node, announcements, false);
    }

    /// The next announcements of a node arrive the other way round.
    pub fn reorder(&self, node: &str, announcements: usize) {
        self.lock().reorder(node, announcements);
    }

    /// From now on every nest of a node's messages has an attribute that
    /// nobody knows.
    pub fn speak_strangely(&self, node: &str) {
        self.lock().speak_strangely(node);
    }

    /// A device gets a state by decree, also one that no DRBD has
    /// ([`DiskState::Other`]).
    pub fn decree(
        &self,
        node: &str,
        resource: &ResourceName,
        volume: VolumeNumber,
        disk: DiskState,
    ) {
        self.lock().decree(node, resource, volume, disk);
    }

    /// What is configured on a node, without asking its kernel.
    #[must_use]
    pub fn state(&self, node: &str) -> State {
        self.lock().state(node)
    }
}

impl Connector for FakeNode {
    type Transport = FakeSocket;

    fn open(&self) -> io::Result<FakeSocket> {
        let shared = Arc::new(Shared::new()?);
        let port = self.cluster.lock().attach(self.node, &shared);
        FakeSocket::new(self.cluster.clone(), self.node, port, shared)
    }
}
