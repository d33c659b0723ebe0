//! Several resources in one plan: emptying a node, and going back to where the placement wants things.
//!
//! As with one resource, each node does its part: the side that will serve arms
//! and waits, the side that serves lets go. Both print the same whole.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::{Facts, Role};
use crate::finding::{Code, Finding, Refusal};
use crate::placement::Resource;
use crate::plan::{Plan, Request};
use crate::planner::plan;

/// What is asked for all resources at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
#[non_exhaustive]
pub enum GroupRequest {
    /// Nothing is to be served by this node any more.
    Evacuate {
        /// The node to be emptied.
        node: String,
    },
    /// Each resource is to be served by its owner in the placement.
    Balance,
}

impl GroupRequest {
    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            GroupRequest::Evacuate { .. } => "evacuate",
            GroupRequest::Balance => "balance",
        }
    }

    /// Where a resource is to be served; `None` when that does not matter.
    fn target<'a>(&self, resource: &'a Resource) -> Option<&'a str> {
        match self {
            GroupRequest::Evacuate { node } => resource.peer_of(node).ok(),
            GroupRequest::Balance => Some(&resource.owner),
        }
    }
}

impl fmt::Display for GroupRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupRequest::Evacuate { node } => write!(f, "evacuate {node}"),
            GroupRequest::Balance => f.write_str("balance"),
        }
    }
}

/// This node's part for all resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupPlan {
    /// What was asked for.
    pub group: GroupRequest,
    /// The node it runs on.
    pub node: String,
    /// What this node takes: all of them arm at once.
    pub takes: Vec<Plan>,
    /// What this node gives away: one after the other, so that one service at a time is down.
    pub gives: Vec<Plan>,
    /// The resources for which nothing is to do, and why.
    pub stays: Vec<(String, String)>,
}

impl GroupPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.takes.iter().chain(&self.gives).all(Plan::is_empty)
    }
}

impl fmt::Display for GroupPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan: {} on {}", self.group, self.node)?;
        for (resource, why) in &self.stays {
            write!(f, "\n  {resource}: {why}")?;
        }
        if self.takes.len() > 1 {
            write!(f, "\n  at the same time:")?;
        }
        for plan in &self.takes {
            write!(f, "\n{plan}")?;
        }
        if self.gives.len() > 1 {
            write!(f, "\n  one after the other:")?;
        }
        for plan in &self.gives {
            write!(f, "\n{plan}")?;
        }
        Ok(())
    }
}

/// Plans a request for all resources, or refuses it with the findings of all of them.
///
/// Pure. `peer_placement` gives the digest of the other node's placement of a
/// resource, where it is known.
///
/// # Errors
///
/// One [`Refusal`] for each resource that cannot be moved; nothing is planned then.
pub fn plan_group(
    looks: &[(&Facts, &Resource)],
    group: &GroupRequest,
    peer_placement: &dyn Fn(&str) -> Option<String>,
) -> Result<GroupPlan, Vec<Refusal>> {
    let node = looks
        .first()
        .map_or_else(String::new, |(facts, _)| facts.node.clone());
    let mut refusals = Vec::new();
    let (mut takes, mut gives, mut stays) = (Vec::new(), Vec::new(), Vec::new());
    let known = |name: &str| looks.iter().any(|(_, r)| r.nodes.contains_key(name));
    if let GroupRequest::Evacuate { node: empty } = group
        && !known(empty)
    {
        return Err(vec![Refusal {
            request: group.name().to_owned(),
            resource: empty.clone(),
            findings: vec![Finding::error(
                Code::NodeNotInPlacement,
                empty,
                "no resource of the placement has a node of this name",
                "correct the name",
            )],
        }]);
    }
    for (facts, resource) in looks {
        let Some(target) = group.target(resource) else {
            stays.push((resource.name.clone(), "not on that node".into()));
            continue;
        };
        let here = facts.node == target;
        let open = |request: &str| facts.open.as_ref().is_some_and(|o| o.request == request);
        let serves = facts.drbd.as_ref().is_some_and(|d| d.role == Role::Primary);
        let peer_serves = facts
            .drbd
            .as_ref()
            .is_some_and(|d| d.connected() && d.peer_role == Role::Primary);
        let digest = peer_placement(&resource.name);
        let request = if here && (peer_serves || open("handover")) {
            Request::Handover {
                peer_placement: digest,
            }
        } else if !here && (serves || open("release")) {
            Request::Release {
                peer_placement: digest,
            }
        } else if serves || peer_serves {
            stays.push((resource.name.clone(), format!("served by {target} already")));
            continue;
        } else {
            refusals.push(Refusal {
                request: group.name().to_owned(),
                resource: resource.name.clone(),
                findings: vec![Finding::error(
                    Code::NobodyServes,
                    &resource.name,
                    "as far as this node sees nobody serves it, so nothing can be handed over",
                    format!(
                        "`failover status {}` on both nodes; start it first",
                        resource.name
                    ),
                )],
            });
            continue;
        };
        match plan(facts, resource, &request) {
            Ok(plan) if here => takes.push(plan),
            Ok(plan) => gives.push(plan),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if refusals.is_empty() {
        Ok(GroupPlan {
            group: group.clone(),
            node,
            takes,
            gives,
            stays,
        })
    } else {
        Err(refusals)
    }
}
