//! A wire, as a test holds it.

use std::sync::{Arc, Weak};

use crate::lab::Inner;

/// A wire of the lab: an Ethernet with a learning switch, which can be cut
/// between any two nodes, in either direction.
///
/// A cut is not seen as link loss in the node: frames just do not arrive.
#[derive(Clone, Debug)]
pub struct Wire {
    lab: Weak<Inner>,
    cable: Arc<Cable>,
}

/// Who is connected: names of nodes, and their ports of the switch.
#[derive(Debug)]
pub(crate) struct Cable {
    pub(crate) name: String,
    pub(crate) ports: Vec<(String, usize)>,
}

impl Wire {
    pub(crate) fn new(lab: &Arc<Inner>, cable: Arc<Cable>) -> Self {
        Wire {
            lab: Arc::downgrade(lab),
            cable,
        }
    }

    /// Cuts the direction from one node to another. On return no frame sent
    /// later arrives; what was delivered before may still be read.
    ///
    /// # Panics
    ///
    /// If a node is not on this wire.
    pub fn cut(&self, from: &str, to: &str) {
        self.set(from, to, true);
    }

    /// Heals the direction from one node to another.
    ///
    /// # Panics
    ///
    /// If a node is not on this wire.
    pub fn heal(&self, from: &str, to: &str) {
        self.set(from, to, false);
    }

    /// Cuts every direction.
    pub fn cut_all(&self) {
        self.set_all(true);
    }

    /// Heals every direction.
    pub fn heal_all(&self) {
        self.set_all(false);
    }

    /// Says whether the direction from one node to another is cut.
    ///
    /// # Panics
    ///
    /// If a node is not on this wire.
    #[must_use]
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        let pairs = self.pairs(from, to);
        let lab = self.lab.upgrade();
        lab.is_some_and(|lab| {
            pairs
                .iter()
                .all(|(from, to)| lab.switch.policy(*from, *to).cut)
        })
    }

    /// Returns how many frames went from one node to another so far.
    ///
    /// # Panics
    ///
    /// If a node is not on this wire.
    #[must_use]
    pub fn carried(&self, from: &str, to: &str) -> u64 {
        let pairs = self.pairs(from, to);
        let Some(lab) = self.lab.upgrade() else {
            return 0;
        };
        pairs
            .iter()
            .map(|(from, to)| lab.switch.carried(*from, *to))
            .sum()
    }

    fn set(&self, from: &str, to: &str, cut: bool) {
        self.set_pairs(&self.pairs(from, to), cut);
    }

    fn set_all(&self, cut: bool) {
        let ports = || self.cable.ports.iter().map(|(_, port)| *port);
        let pairs: Vec<_> = ports()
            .flat_map(|from| ports().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        self.set_pairs(&pairs, cut);
    }

    /// Without a lab there is nothing to cut.
    fn set_pairs(&self, pairs: &[(usize, usize)], cut: bool) {
        if let Some(lab) = self.lab.upgrade() {
            for (from, to) in pairs {
                lab.switch.set_policy(*from, *to, |policy| policy.cut = cut);
            }
        }
    }

    fn pairs(&self, from: &str, to: &str) -> Vec<(usize, usize)> {
        let to = self.ports(to);
        self.ports(from)
            .into_iter()
            .flat_map(|from| to.iter().map(move |to| (from, *to)))
            .filter(|(from, to)| from != to)
            .collect()
    }

    #[allow(
        clippy::panic,
        reason = "a name fixed in the caller's code, as with an index"
    )]
    fn ports(&self, node: &str) -> Vec<usize> {
        let ports: Vec<usize> = self
            .cable
            .ports
            .iter()
            .filter(|(name, _)| name == node)
            .map(|(_, port)| *port)
            .collect();
        if ports.is_empty() {
            panic!("node {node:?} is not on the wire {}", self.cable.name);
        }
        ports
    }
}
