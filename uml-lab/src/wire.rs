//! A wire, as a test holds it.

use std::sync::{Arc, Weak};

use crate::lab::Inner;
use crate::policy::Policy;

/// A wire of the lab: an Ethernet with a learning switch, which can be cut,
/// slow or unreliable between any two nodes, in either direction.
///
/// Nothing of this is seen as link loss in the node: frames just do not arrive,
/// or late.
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
        self.set(from, to, Policy::new().cut());
    }

    /// Makes the direction from one node to another sound again. Frames under
    /// way arrive when they would have.
    ///
    /// # Panics
    ///
    /// If a node is not on this wire.
    pub fn heal(&self, from: &str, to: &str) {
        self.set(from, to, Policy::new());
    }

    /// Cuts every direction.
    pub fn cut_all(&self) {
        self.set_all(Policy::new().cut());
    }

    /// Makes every direction sound again.
    pub fn heal_all(&self) {
        self.set_all(Policy::new());
    }

    /// Sets what happens to the frames from one node to another that are sent
    /// from now on, instead of what was set before.
    ///
    /// # Panics
    ///
    /// If a node is not on this wire.
    pub fn set(&self, from: &str, to: &str, policy: Policy) {
        self.note(&format!("{from} to {to}: {policy}"));
        self.set_pairs(&self.pairs(from, to), policy);
    }

    /// Sets what happens to all frames of the wire. Each direction has its own
    /// random numbers.
    pub fn set_all(&self, policy: Policy) {
        self.note(&format!("every direction: {policy}"));
        let ports = || self.cable.ports.iter().map(|(_, port)| *port);
        let pairs: Vec<_> = ports()
            .flat_map(|from| ports().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        self.set_pairs(&pairs, policy);
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

    /// Returns how many frames arrived at one node from another so far, doubled
    /// ones twice.
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

    fn note(&self, text: &str) {
        if let Some(lab) = self.lab.upgrade() {
            lab.journal.note(&self.cable.name, text);
        }
    }

    /// Says whether a node is on this wire.
    pub(crate) fn joins(&self, node: &str) -> bool {
        self.cable.ports.iter().any(|(name, _)| name == node)
    }

    /// Without a lab there is nothing to cut.
    fn set_pairs(&self, pairs: &[(usize, usize)], policy: Policy) {
        if let Some(lab) = self.lab.upgrade() {
            for (from, to) in pairs {
                lab.switch.set_policy(*from, *to, policy);
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
