//! Prints every change as it happens; changes nothing. Ends with ^C.
//!
//! ```text
//! $ watch_events
//! 1 resource
//! Change resource r0
//! Change peer-device r0/0
//! helper before-resync-source called
//! ```

use drbd_nl::{Drbd, Update};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let drbd = Drbd::open()?;
    let mut watcher = drbd.watch()?;
    println!("{} resources", watcher.state().resources.len());
    loop {
        match watcher.next_update(Duration::from_secs(3600))? {
            Some(Update::Changed(changes)) => {
                for change in changes {
                    println!("{:?} {}", change.action, change.object);
                }
            }
            Some(Update::Resynced(changes)) => {
                println!("events were lost; {} objects differ", changes.len());
            }
            Some(Update::Helper(helper)) => match helper.exit_code() {
                Some(code) => println!("helper {} exited with {code}", helper.name),
                None => println!("helper {} called", helper.name),
            },
            Some(_) | None => {}
        }
    }
}
