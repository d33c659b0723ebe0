//! Takes a resource over by itself when the peer is gone: watches DRBD's own events, waits a grace
//! time, switches the peer off by the placement's fence agent, and serves. Ends when it serves.
//!
//! If only the link broke, the peer is switched off although it lives: that is what fencing is for.
//! Run it on the node that does not serve; both nodes may run it when the agents cannot both win.
//!
//! ```text
//! # automatic_takeover r0 node1 10
//! r0: watching
//! r0: peer lost, taking over in 10 s unless it returns
//! evidence: node2 was on, switched off by /usr/local/sbin/power, reads back off
//! Done
//! ```

use std::path::Path;
use std::time::Duration;

use drbd_nl::{ConnectionState, Drbd, Role, State};
use ha_failover::{
    CommandFencer, Control, Event, Executor, FenceEvidence, Fencer, Node, Placement, Power,
    Request, Takeover, World, plan,
};

/// Whether this node is Secondary and no peer is connected.
fn alone(state: &State, resource: &str) -> bool {
    state.resource(resource).is_some_and(|resource| {
        let connected = |c: &drbd_nl::Connection| c.state == ConnectionState::Connected;
        resource.role == Role::Secondary && !resource.connections.iter().any(connected)
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [resource, name, grace] = &arguments[..] else {
        return Err("usage: automatic_takeover RESOURCE NODE GRACE-SECONDS".into());
    };
    let grace = Duration::from_secs(grace.parse()?);
    let placement = Placement::load("/etc/ha-failover/placement.toml")?;
    let helper = Path::new("/usr/lib/ha-failover/drbd-helper");
    let mut node = Node::new(&placement, resource, name, helper)?;
    let peer = node.resource().peer_of(name)?.to_owned();
    let mut fencer =
        CommandFencer::from_placement(&node.resource().fence).ok_or("no fence agent")?;

    let mut watcher = Drbd::open()?.watch()?;
    println!("{resource}: watching");
    loop {
        let ever = Duration::from_secs(365 * 24 * 3600);
        watcher.wait_for(ever, |state| alone(state, resource))?;
        let seconds = grace.as_secs();
        println!("{resource}: peer lost, taking over in {seconds} s unless it returns");
        let returned = watcher.wait_for(grace, |state| !alone(state, resource));
        match returned {
            Err(error) if error.kind() == drbd_nl::ErrorKind::Timeout => break,
            returned => returned?,
        }
        println!("{resource}: not alone any more");
    }

    let _lock = node.lock(&format!("takeover {resource}"))?;
    // A first plan before anybody is switched off: it must not be refused for the data's sake.
    let mut takeover = Takeover::default();
    takeover.peer_power = Some(fencer.status(&peer)?);
    let request = Request::Takeover(takeover.clone());
    let refused = |refusal: ha_failover::Refusal| refusal.to_string();
    plan(&node.facts()?, node.resource(), &request).map_err(refused)?;

    let evidence = FenceEvidence::obtain(&mut fencer, &peer)?;
    println!("evidence: {evidence}");
    takeover.peer_power = Some(Power::Off);
    let facts = node.facts()?;
    let plan = plan(&facts, node.resource(), &Request::Takeover(takeover)).map_err(refused)?;
    let runnable = plan
        .with_evidence(evidence)
        .map_err(|_| "evidence about another node")?;
    node.note(&facts)?;
    let operation = format!("automatic-{}", std::process::id());
    let mut quiet = |_: &Event| Control::Continue;
    let (outcome, _) = Executor::new(runnable, operation).run(&mut node, &mut quiet)?;
    println!("{outcome:?}");
    Ok(())
}
