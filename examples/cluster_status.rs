//! Prints what this node sees of every resource of the placement; changes nothing.
//!
//! ```text
//! # cluster_status node1
//! r0: Primary, peer Secondary, in sync
//!   mounted at /srv/store1
//!   app: RUNNING
//!   epoch 4, owned by node1
//! ```

use std::path::Path;

use ha_failover::{Node, Placement, World};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args()
        .nth(1)
        .ok_or("usage: cluster_status NODE")?;
    let placement = Placement::load("/etc/ha-failover/placement.toml")?;
    let helper = Path::new("/usr/lib/ha-failover/drbd-helper");
    for resource in &placement.resources {
        let facts = Node::new(&placement, &resource.name, &name, helper)?.facts()?;
        match &facts.drbd {
            Some(drbd) => {
                let sync = match drbd.in_sync() {
                    true => "in sync",
                    false => "not in sync",
                };
                println!(
                    "{}: {}, peer {}, {sync}",
                    resource.name, drbd.role, drbd.peer_role
                );
            }
            None => println!("{}: not in the kernel", resource.name),
        }
        if facts.mount.store.is_some() {
            println!("  mounted at {}", resource.mount.display());
        }
        for (container, seen) in &facts.containers {
            match &seen.state {
                Some(state) => println!("  {container}: {state}"),
                None => println!("  {container}: not seen, the store is not mounted here"),
            }
        }
        let (epoch, owner) = (facts.ledger.epoch, facts.ledger.owner.as_deref());
        println!("  epoch {epoch}, owned by {}", owner.unwrap_or("nobody"));
    }
    Ok(())
}
