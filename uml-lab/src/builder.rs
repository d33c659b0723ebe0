//! Describing a lab.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::lab::Lab;
use crate::packages;

/// Describes a lab: its nodes, wires and packages. Made by [`Lab::builder`].
#[derive(Clone, Debug)]
#[must_use = "a lab starts with `start`"]
pub struct LabBuilder {
    pub(crate) name: String,
    pub(crate) packages: Vec<String>,
    pub(crate) nodes: Vec<(String, NodeBuilder)>,
    pub(crate) wires: Vec<(String, WireBuilder)>,
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) modules: Option<PathBuf>,
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) package_dir: Option<PathBuf>,
    pub(crate) boot_deadline: Duration,
    pub(crate) node_limit: Option<usize>,
    pub(crate) log_dir: Option<PathBuf>,
    /// The root of nodes that name none, if it is not the host's.
    pub(crate) root: Option<PathBuf>,
    /// What such nodes see of the host.
    pub(crate) sees: Vec<PathBuf>,
}

impl LabBuilder {
    pub(crate) fn new() -> Self {
        let path = |name| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        LabBuilder {
            name: "lab".to_owned(),
            packages: Vec::new(),
            nodes: Vec::new(),
            wires: Vec::new(),
            layers: Vec::new(),
            kernel: path("LAB_KERNEL"),
            modules: path("LAB_MODULES"),
            cache_dir: None,
            package_dir: None,
            boot_deadline: Duration::from_secs(90),
            node_limit: None,
            log_dir: path("LAB_LOG_DIR"),
            root: path("LAB_ROOT"),
            sees: std::env::var_os("LAB_SEE")
                .map(|dirs| std::env::split_paths(&dirs).collect())
                .unwrap_or_default(),
        }
    }

    /// Names the lab, for its run directory and for people.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds Debian packages that nodes need. Those the host lacks, and what
    /// they depend on, are fetched and unpacked once (not installed), and lie
    /// over the host's root in every node.
    pub fn packages<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.packages.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds a node. Names are host names: letters, digits and dashes.
    pub fn node(
        mut self,
        name: impl Into<String>,
        describe: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> Self {
        self.nodes.push((name.into(), describe(NodeBuilder::new())));
        self
    }

    /// Adds a wire, an Ethernet with a learning switch.
    pub fn wire(
        mut self,
        name: impl Into<String>,
        describe: impl FnOnce(WireBuilder) -> WireBuilder,
    ) -> Self {
        self.wires.push((
            name.into(),
            describe(WireBuilder {
                ports: Vec::new(),
                mtu: 1500,
            }),
        ));
        self
    }

    /// Lays a directory of the host over the root of every node, above the
    /// packages. The last one given lies on top. Read-only; nodes write to
    /// memory.
    pub fn layer(mut self, dir: impl Into<PathBuf>) -> Self {
        self.layers.push(dir.into());
        self
    }

    /// Sets the user-mode kernel. Default: `LAB_KERNEL` if set, else the
    /// package `user-mode-linux`, installed or unpacked.
    pub fn kernel(mut self, path: impl Into<PathBuf>) -> Self {
        self.kernel = Some(path.into());
        self
    }

    /// Sets the directory that holds `RELEASE/kernel/...` of the kernel's
    /// modules. Default: `LAB_MODULES` if set, else those of the package.
    pub fn modules(mut self, dir: impl Into<PathBuf>) -> Self {
        self.modules = Some(dir.into());
        self
    }

    /// Sets where unpacked packages and running labs are kept. Default:
    /// `uml-lab` in the Cargo target directory the running program is in, or
    /// else `/var/tmp/uml-lab-UID`.
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// Sets a directory to take unpacked packages from if it has the right
    /// ones: the `packages` directory of another cache, which may be
    /// read-only.
    pub fn package_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.package_dir = Some(dir.into());
        self
    }

    /// Sets how long a node may take to become ready. Default: 90 s.
    pub fn boot_deadline(mut self, deadline: Duration) -> Self {
        self.boot_deadline = deadline;
        self
    }

    /// Sets how many nodes may run at once in all labs of this user;
    /// [`LabBuilder::start`] waits for room, unless this thread has another lab
    /// already. A lab with more nodes runs alone. Default: two per processor,
    /// at least four.
    pub fn node_limit(mut self, nodes: usize) -> Self {
        self.node_limit = Some(nodes);
        self
    }

    /// Writes the time line to `dir/LAB-PID.timeline` and the nodes' consoles to
    /// `dir/LAB-PID-NODE.console` when the lab ends by a panic or does not come
    /// up. Default: `LAB_LOG_DIR` if set; else they go with the lab, and the
    /// last lines are shown.
    pub fn log_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.log_dir = Some(dir.into());
        self
    }

    /// Makes a directory tree the root of the nodes that name none by
    /// [`NodeBuilder::root`], and shows them directories of the host, in their
    /// place and read-only. The packages of the lab have to be installed in the
    /// tree. `/` stands for the host's own files, as they are without this.
    /// Default: `LAB_ROOT`, and the directories in `LAB_SEE`, with colons
    /// between them, if set: so a test suite runs on another distribution as it
    /// is. `LAB_SEE` then names what its tests look for: the directory with the
    /// programs, mostly.
    pub fn root(
        mut self,
        tree: impl Into<PathBuf>,
        sees: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        self.root = Some(tree.into());
        self.sees = sees.into_iter().collect();
        self
    }

    /// Boots all nodes at the same time; returns when each is ready to run
    /// programs.
    ///
    /// Prints to standard error before it fetches packages, and when it has to
    /// wait for other labs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a description that makes no sense,
    /// [`ErrorKind::Missing`] if this machine lacks what a lab needs,
    /// [`ErrorKind::Boot`] if a node does not come up (with its last console
    /// lines), [`ErrorKind::Host`] if the host refuses something. Nothing is
    /// left behind.
    ///
    /// # Privileges
    ///
    /// None. As root, the kernels run without capabilities in a mount
    /// namespace where only their own directory is writable, which takes
    /// CAP_SYS_ADMIN.
    pub fn start(mut self) -> Result<Lab> {
        self.give_roots()?;
        self.validate()?;
        Lab::start(self)
    }

    /// Starts the lab for a test: `None`, and a line on standard error, if
    /// this machine lacks what it needs. With `LAB_REQUIRED=1` in the
    /// environment that is a failure too.
    ///
    /// # Panics
    ///
    /// On any other error, and on a missing prerequisite if `LAB_REQUIRED=1`.
    #[must_use]
    pub fn start_for_test(self) -> Option<Lab> {
        let required = std::env::var_os("LAB_REQUIRED").is_some_and(|value| value == "1");
        match self.start() {
            Ok(lab) => Some(lab),
            Err(error) if error.kind() == ErrorKind::Missing && !required => {
                eprintln!("skipped, no lab: {error}");
                None
            }
            #[allow(clippy::panic, reason = "the documented way to fail a test")]
            Err(error) => panic!("start the lab: {error}"),
        }
    }

    /// Gives the nodes that name no root that of the lab.
    fn give_roots(&mut self) -> Result<()> {
        let foreign = |tree: &&PathBuf| tree.as_path() != Path::new("/");
        let Some(tree) = self.root.as_ref().filter(foreign) else {
            return Ok(());
        };
        let status = tree.join(packages::STATUS);
        let lacking = self.packages.iter();
        let lacking: Vec<_> = lacking
            .filter(|name| !packages::installed_by(&status, name))
            .map(String::as_str)
            .collect();
        if !lacking.is_empty() {
            let what = format!("find the packages {} in the tree", lacking.join(", "));
            return Err(Error::new(ErrorKind::Missing, what).detail(tree.display().to_string()));
        }
        for (_, node) in &mut self.nodes {
            if node.root.is_none() {
                node.root = Some(tree.clone());
                let sees = self.sees.iter();
                node.sees.extend(sees.map(|dir| (dir.clone(), dir.clone())));
            }
        }
        // They are in the tree.
        self.packages.clear();
        Ok(())
    }

    fn validate(&self) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if !is_name(&self.name) {
            return invalid(format!(
                "lab name {:?}: want letters, digits, dashes",
                self.name
            ));
        }
        if self.nodes.is_empty() {
            return invalid("a lab without nodes".to_owned());
        }
        for (n, (name, node)) in self.nodes.iter().enumerate() {
            if !is_name(name) {
                return invalid(format!("node name {name:?}: want letters, digits, dashes"));
            }
            if self.nodes[..n].iter().any(|(other, _)| other == name) {
                return invalid(format!("two nodes named {name}"));
            }
            node.validate().map_err(|error| error.node(name))?;
        }
        for (n, (name, wire)) in self.wires.iter().enumerate() {
            if self.wires[..n].iter().any(|(other, _)| other == name) {
                return invalid(format!("two wires named {name}"));
            }
            if !(576..=9000).contains(&wire.mtu) {
                return invalid(format!("wire {name}: mtu {}: want 576 to 9000", wire.mtu));
            }
            for (node, address) in &wire.ports {
                if self.nodes.iter().all(|(known, _)| known != node) {
                    return invalid(format!("wire {name}: no node named {node:?}"));
                }
                parse_address(address)
                    .map_err(|error| error.detail(format!("wire {name}, node {node}")))?;
            }
        }
        for layer in &self.layers {
            if !layer.is_dir() {
                return invalid(format!("layer {}: not a directory", layer.display()));
            }
        }
        Ok(())
    }
}

/// Describes one node.
#[derive(Clone, Debug)]
#[must_use]
pub struct NodeBuilder {
    pub(crate) disks: Vec<Disk>,
    pub(crate) memory: String,
    pub(crate) keeps: Vec<PathBuf>,
    pub(crate) root: Option<PathBuf>,
    pub(crate) sees: Vec<(PathBuf, PathBuf)>,
    pub(crate) kernel_args: Vec<String>,
}

impl NodeBuilder {
    fn new() -> Self {
        NodeBuilder {
            disks: Vec::new(),
            memory: "384M".to_owned(),
            keeps: Vec::new(),
            root: None,
            sees: Vec::new(),
            kernel_args: Vec::new(),
        }
    }

    /// Adds a disk: an empty one of this size (`"256M"`, `"2G"`), or any
    /// [`Disk`]. Disks appear as /dev/ubda, /dev/ubdb and so on; they survive
    /// the loss of the node and end with the lab. A node has up to 15.
    pub fn disk(mut self, disk: impl Into<Disk>) -> Self {
        self.disks.push(disk.into());
        self
    }

    /// Adds a disk whose content is a file of the caller; it is written to and
    /// stays.
    pub fn disk_file(self, path: impl Into<PathBuf>) -> Self {
        self.disk(Disk::file(path))
    }

    /// Sets the size of the node's memory. Default: `"384M"`.
    pub fn memory(mut self, size: impl Into<String>) -> Self {
        self.memory = size.into();
        self
    }

    /// Keeps a directory of the node over its loss, as a local disk would. It
    /// starts empty, and ends with the lab. What was written there is safe
    /// from [`Node::kill`](crate::Node::kill) even without fsync, and files
    /// cannot change owner.
    pub fn keep(mut self, dir: impl Into<PathBuf>) -> Self {
        self.keeps.push(dir.into());
        self
    }

    /// Makes a directory tree of the host the node's root, instead of the
    /// host's own files: another distribution, or a tree made for the purpose.
    /// The node writes to memory, the tree stays as it is.
    ///
    /// Packages of the lab are not laid over it, layers are. What the node
    /// needs of it is nothing but the programs it is to run:
    /// [`Node::load_module`](crate::Node::load_module) runs its
    /// `/sbin/modprobe`, and [`Node::run_test`](crate::Node::run_test) needs
    /// the test program to be there ([`NodeBuilder::see`]) and its libraries.
    /// An ordinary user's lab reads of it what the user may read.
    pub fn root(mut self, tree: impl Into<PathBuf>) -> Self {
        self.root = Some(tree.into());
        self
    }

    /// Shows a directory of the host in the node, read-only.
    pub fn see(mut self, host: impl Into<PathBuf>, inside: impl Into<PathBuf>) -> Self {
        self.sees.push((host.into(), inside.into()));
        self
    }

    /// Adds a word to the kernel's command line.
    pub fn kernel_arg(mut self, arg: impl Into<String>) -> Self {
        self.kernel_args.push(arg.into());
        self
    }

    fn validate(&self) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if self.disks.len() > 15 {
            return invalid(format!("{} disks: a node takes 15", self.disks.len()));
        }
        for disk in &self.disks {
            disk.validate()?;
        }
        if parse_size(&self.memory)? < 64 << 20 {
            return invalid(format!("memory {}: a node needs 64M at least", self.memory));
        }
        for keep in &self.keeps {
            if !keep.is_absolute() || keep == Path::new("/") {
                return invalid(format!("keep {}: want an absolute path", keep.display()));
            }
        }
        let seen = self.sees.iter().map(|(host, _)| host);
        for dir in self.root.iter().chain(seen) {
            if !dir.is_dir() {
                return invalid(format!("{}: not a directory", dir.display()));
            }
        }
        for (_, inside) in &self.sees {
            if !inside.is_absolute() || inside == Path::new("/") {
                return invalid(format!("see {}: want an absolute path", inside.display()));
            }
        }
        for arg in &self.kernel_args {
            if arg.is_empty() || arg.contains(char::is_whitespace) {
                return invalid(format!("kernel argument {arg:?}: want one word"));
            }
        }
        Ok(())
    }
}

/// Describes one wire.
#[derive(Clone, Debug)]
#[must_use]
pub struct WireBuilder {
    pub(crate) ports: Vec<(String, String)>,
    pub(crate) mtu: u32,
}

impl WireBuilder {
    /// Connects a node: the port is the node's next interface (`vec0`, `vec1`,
    /// in the order of this lab's wires), up, with this address
    /// (`"10.0.0.1/24"`), or without one if the text is empty.
    ///
    /// Never set such an interface down inside the node: the driver does not
    /// bring it up again. Cut the wire instead.
    pub fn port(mut self, node: impl Into<String>, address: impl Into<String>) -> Self {
        self.ports.push((node.into(), address.into()));
        self
    }

    /// Sets the largest packet, in bytes, from 576 to 9000. Default: 1500.
    /// Large ones make a wire faster; all that is bridged to it has to take
    /// them.
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.mtu = bytes;
        self
    }
}

fn is_name(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Reads a size like `256M`.
pub(crate) fn parse_size(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => Some(0),
        "K" | "k" => Some(10),
        "M" | "m" => Some(20),
        "G" | "g" => Some(30),
        "T" | "t" => Some(40),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    number
        .zip(shift)
        .and_then(|(number, shift)| number.checked_mul(1 << shift))
        .filter(|bytes| bytes % 512 == 0 && *bytes <= i64::MAX.unsigned_abs())
        .ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("size {text:?}"))
                .detail("want a number and K, M, G or T, a multiple of 512 bytes")
        })
}

/// Reads `ADDRESS/PREFIX`; empty is no address.
pub(crate) fn parse_address(text: &str) -> Result<Option<(IpAddr, u8)>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let address: IpAddr = address.parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, prefix))
    });
    parsed.map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            format!("address {text:?}: want IP/PREFIX"),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("256M").unwrap(), 256 << 20);
        assert_eq!(parse_size("1024").unwrap(), 1024);
        assert_eq!(parse_size("2g").unwrap(), 2 << 30);
        for bad in [
            "",
            "M",
            "0M",
            "-1M",
            "1X",
            "1MB",
            "100",
            "99999999999T",
            "1 M",
        ] {
            assert_eq!(
                parse_size(bad).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(parse_address("").unwrap(), None);
        let (address, prefix) = parse_address("10.0.254.1/30").unwrap().unwrap();
        assert_eq!((address.to_string().as_str(), prefix), ("10.0.254.1", 30));
        assert!(parse_address("fd00::1/64").unwrap().is_some());
        for bad in [
            "10.0.0.1",
            "10.0.0.1/33",
            "fd00::1/129",
            "x/24",
            "10.0.0.1/",
        ] {
            assert_eq!(
                parse_address(bad).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn descriptions_without_sense_are_refused_before_anything_happens() {
        let base = || LabBuilder::new().cache_dir("/nonexistent/never/made");
        let one = |n: NodeBuilder| n;
        let refused = [
            base(),
            base().node("a", one).node("a", one),
            base().node("a b", one),
            base().name("a/b").node("a", one),
            base().node("a", |n| n.disk("many")),
            base().node("a", |n| n.disk_file("/nonexistent")),
            base().node("a", |n| n.memory("1M")),
            base().node("a", |n| n.keep("relative")),
            base().node("a", |n| n.kernel_arg("two words")),
            base().node("a", |n| n.root("/nonexistent")),
            base().node("a", |n| n.see("/nonexistent", "/x")),
            base().node("a", |n| n.see("/etc", "x")),
            base().node("a", one).wire("w", |w| w.port("b", "")),
            base().node("a", one).wire("w", |w| w.port("a", "nonsense")),
            base().node("a", one).wire("w", |w| w).wire("w", |w| w),
            base().node("a", one).wire("w", |w| w.mtu(10)),
            base().node("a", one).layer("/nonexistent"),
        ];
        for builder in refused {
            let text = format!("{builder:?}");
            assert_eq!(
                builder.start().unwrap_err().kind(),
                ErrorKind::Invalid,
                "{text}"
            );
        }
    }
}
