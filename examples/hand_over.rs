//! One side of a planned handover, inside a program of one's own: `take` on the node that will
//! serve, then `give` on the one that serves. Prints the plan, asks nothing, runs it.
//!
//! ```text
//! # hand_over give r0 node1
//! plan: release r0 on node1
//!   1. ! stop container app [at most 35s]
//! ...
//! stop container app: 443 ms
//! ...
//! Done
//! ```

use std::path::Path;

use ha_failover::{Control, Event, Executor, Node, Outcome, Placement, Request, World, plan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let peer_placement = None; // or the digest that the other node's `failover status --json` shows
    let (request, resource, name) = match &arguments[..] {
        [verb, resource, name] if verb == "take" => {
            (Request::Handover { peer_placement }, resource, name)
        }
        [verb, resource, name] if verb == "give" => {
            (Request::Release { peer_placement }, resource, name)
        }
        _ => return Err("usage: hand_over take|give RESOURCE NODE".into()),
    };
    let placement = Placement::load("/etc/ha-failover/placement.toml")?;
    let helper = Path::new("/usr/lib/ha-failover/drbd-helper");
    let mut node = Node::new(&placement, resource, name, helper)?;
    let _lock = node.lock(&format!("{} {resource}", request.name()))?;
    let facts = node.facts()?;
    // A refusal prints all its reasons, each with what to do.
    let plan = plan(&facts, node.resource(), &request).map_err(|refusal| refusal.to_string())?;
    println!("{plan}");
    let runnable = plan
        .ready()
        .map_err(|_| "a planned handover needs no evidence")?;
    node.note(&facts)?;
    let mut print = |event: &Event| {
        if let Event::Ended { action, ms, .. } = event {
            println!("{action}: {ms} ms");
        }
        Control::Continue
    };
    let operation = format!("hand-over-{}", std::process::id());
    let (outcome, _) = Executor::new(runnable, operation).run(&mut node, &mut print)?;
    println!("{outcome:?}");
    match outcome {
        Outcome::Done => Ok(()),
        // The journal has the rest; running this again carries it on.
        other => Err(format!("not done: {other:?}").into()),
    }
}
