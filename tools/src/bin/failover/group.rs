//! `failover evacuate` and `failover balance`: all resources in one plan.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use ha_failover::{Error, ErrorKind, Facts, GroupPlan, GroupRequest, Node, Plan, Resource, World};
use tools::exit;

use crate::cli::GroupCommand;
use crate::output::Output;
use crate::{Context, LOOK, Result, digest_in, execute, internal, watchdog};

/// Everything one resource needs.
struct Part {
    node: Node,
    facts: Facts,
}

pub(crate) fn plan_only(
    context: &Context,
    command: &GroupCommand,
    output: &mut Output,
) -> Result<u8> {
    let parts = look(context)?;
    match planned(context, command, &parts)? {
        Ok(plan) => {
            output.group(&plan);
            Ok(exit::DONE)
        }
        Err(refusals) => {
            for refusal in &refusals {
                output.refused(refusal);
            }
            Ok(exit::REFUSED)
        }
    }
}

pub(crate) fn operate(
    context: &Context,
    command: &GroupCommand,
    output: &mut Output,
) -> Result<u8> {
    // A shell that stands in a store would hold the mount through us.
    let _ = std::env::set_current_dir("/");
    let mut locks = Vec::new();
    for resource in &context.placement.resources {
        locks.push(
            context
                .node(&resource.name)?
                .lock(request_of(command).name())?,
        );
    }
    let mut parts = look(context)?;
    let plan = match planned(context, command, &parts)? {
        Ok(plan) => plan,
        Err(refusals) => {
            for refusal in &refusals {
                output.refused(refusal);
            }
            return Ok(output.end("refused", exit::REFUSED, None));
        }
    };
    output.group(&plan);
    watchdog::over(watchdog::MAIN);
    let mut take = |plan: Plan| -> Result<(Plan, Part)> {
        let part = parts.remove(&plan.resource);
        Ok((
            plan,
            part.ok_or_else(|| internal("a plan for an unknown resource"))?,
        ))
    };
    let takes = plan
        .takes
        .into_iter()
        .map(&mut take)
        .collect::<Result<Vec<_>>>()?;
    let gives = plan
        .gives
        .into_iter()
        .map(&mut take)
        .collect::<Result<Vec<_>>>()?;
    let shared = &*output;
    let statuses = thread::scope(|scope| {
        let arms: Vec<_> = takes
            .into_iter()
            .map(|(plan, part)| scope.spawn(move || run(plan, part, shared)))
            .collect();
        let mut statuses = Vec::new();
        for (plan, part) in gives {
            let status = run(plan, part, shared);
            statuses.push(status);
            if status != exit::DONE {
                // What is not begun yet keeps serving.
                break;
            }
        }
        for arm in arms {
            statuses.push(arm.join().unwrap_or(exit::ERROR));
        }
        statuses
    });
    drop(locks);
    let status = worst(&statuses);
    let word = match status {
        exit::DONE => "done",
        exit::UNDONE => "undone",
        exit::UNKNOWN => "unknown",
        exit::REFUSED => "refused",
        _ => "failed",
    };
    Ok(output.end(word, status, None))
}

/// The status that says most about what is left to do.
pub(crate) fn worst(statuses: &[u8]) -> u8 {
    [exit::UNKNOWN, exit::ERROR, exit::UNDONE, exit::REFUSED]
        .into_iter()
        .find(|s| statuses.contains(s))
        .unwrap_or(exit::DONE)
}

fn run(plan: Plan, mut part: Part, output: &Output) -> u8 {
    let mut output = output.of(&plan.resource);
    output.knows(&plan);
    output.begins("begin", LOOK);
    let request = plan.request.clone();
    let status = match execute(&mut part.node, part.facts, plan, &request, &mut output) {
        Ok(status) => status,
        Err(e) => {
            output.error(&e.chain(), e.how_to_go_on());
            output.end("error", exit::ERROR, None)
        }
    };
    watchdog::over(output.task());
    status
}

fn look(context: &Context) -> Result<BTreeMap<String, Part>> {
    let mut parts = BTreeMap::new();
    for resource in &context.placement.resources {
        watchdog::begin(watchdog::MAIN, "look at the system", LOOK);
        let mut node = context.node(&resource.name)?;
        let facts = node.facts()?;
        parts.insert(resource.name.clone(), Part { node, facts });
    }
    Ok(parts)
}

fn request_of(command: &GroupCommand) -> GroupRequest {
    match command {
        GroupCommand::Evacuate { empty, .. } => GroupRequest::Evacuate {
            node: empty.clone(),
        },
        GroupCommand::Balance { .. } => GroupRequest::Balance,
    }
}

fn planned(
    context: &Context,
    command: &GroupCommand,
    parts: &BTreeMap<String, Part>,
) -> Result<std::result::Result<GroupPlan, Vec<ha_failover::Refusal>>> {
    let peer_placement = match command {
        GroupCommand::Evacuate { peer_placement, .. }
        | GroupCommand::Balance { peer_placement, .. } => peer_placement.as_deref(),
    };
    let digests = digests(context, peer_placement)?;
    let looks: Vec<(&Facts, &Resource)> = context
        .placement
        .resources
        .iter()
        .filter_map(|r| parts.get(&r.name).map(|p| (&p.facts, r)))
        .collect();
    let digest = |resource: &str| digests.get(resource).cloned();
    let mut plan = match ha_failover::plan_group(&looks, &request_of(command), &digest) {
        Ok(plan) => plan,
        Err(refusals) => return Ok(Err(refusals)),
    };
    if let GroupCommand::Balance { take, give, .. } = command {
        let both = !plan.takes.is_empty() && !plan.gives.is_empty();
        if both && !take && !give {
            let names = |plans: &[Plan]| {
                plans
                    .iter()
                    .map(|p| p.resource.clone())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            return Err(Error::new(
                ErrorKind::Usage,
                format!("balance: this node has to take {} and to give {}", names(&plan.takes), names(&plan.gives)),
            )
            .remedy("run `failover balance --take` on both nodes, and when both are armed `failover balance --give` on both"));
        }
        let mut later = Vec::new();
        if *take {
            later.append(&mut plan.gives);
        }
        if *give {
            later.append(&mut plan.takes);
        }
        for part in later {
            plan.stays.push((
                part.resource,
                format!("{} is not asked for now", part.request.name()),
            ));
        }
    }
    Ok(Ok(plan))
}

fn digests(context: &Context, peer_placement: Option<&Path>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    if let Some(path) = peer_placement {
        for resource in &context.placement.resources {
            all.insert(
                resource.name.clone(),
                digest_in(context, &resource.name, path)?,
            );
        }
    }
    Ok(all)
}
