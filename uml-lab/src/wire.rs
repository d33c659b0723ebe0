//! A wire, as a test holds it.

use std::sync::Arc;

use crate::lab::Inner;

/// A wire of the lab: an Ethernet with a learning switch, which can be cut
/// between any two nodes, in either direction.
///
/// A cut is not seen as link loss in the node: frames just do not arrive.
#[derive(Clone, Debug)]
pub struct Wire {
    lab: Arc<Inner>,
    index: usize,
}

/// Who is connected: pairs of node and port.
#[derive(Debug)]
pub(crate) struct Cable {
    pub(crate) name: String,
    pub(crate) ports: Vec<(usize, usize)>,
}

impl Wire {
    pub(crate) fn new(lab: Arc<Inner>, index: usize) -> Self {
        Wire { lab, index }
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
        let mut pairs = self.pairs(from, to);
        pairs.all(|(from, to)| self.lab.switch.policy(from, to).cut)
    }

    /// Returns how many frames went from one node to another so far.
    ///
    /// # Panics
    ///
    /// If a node is not on this wire.
    #[must_use]
    pub fn carried(&self, from: &str, to: &str) -> u64 {
        self.pairs(from, to)
            .map(|(from, to)| self.lab.switch.carried(from, to))
            .sum()
    }

    fn set(&self, from: &str, to: &str, cut: bool) {
        for (from, to) in self.pairs(from, to) {
            self.lab
                .switch
                .set_policy(from, to, |policy| policy.cut = cut);
        }
    }

    fn set_all(&self, cut: bool) {
        let ports = &self.lab.cable(self.index).ports;
        for (_, from) in ports {
            for (_, to) in ports.iter().filter(|(_, to)| to != from) {
                self.lab
                    .switch
                    .set_policy(*from, *to, |policy| policy.cut = cut);
            }
        }
    }

    fn pairs(&self, from: &str, to: &str) -> impl Iterator<Item = (usize, usize)> {
        let to = self.ports(to);
        self.ports(from)
            .into_iter()
            .flat_map(move |from| to.clone().into_iter().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
    }

    #[allow(
        clippy::panic,
        reason = "a name fixed in the caller's code, as with an index"
    )]
    fn ports(&self, node: &str) -> Vec<usize> {
        let cable = self.lab.cable(self.index);
        let ports: Vec<usize> = cable
            .ports
            .iter()
            .filter(|(index, _)| self.lab.machines[*index].name == node)
            .map(|(_, port)| *port)
            .collect();
        if ports.is_empty() {
            panic!("node {node:?} is not on the wire {}", cable.name);
        }
        ports
    }
}
