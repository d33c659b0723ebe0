//! Prints every change as it happens; changes nothing. Ends with ^C.
//!
//! ```text
//! $ watch_events
//! 1 resources
//! Change resource r0
//! Change peer-device r0/0
//! helper before-resync-source
//! ```

use drbd_nl::{Drbd, Update};

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let watcher = Drbd::open()?.watch()?;
    println!("{} resources", watcher.state().resources.len());
    for update in watcher {
        match update? {
            Update::Changed(changes) | Update::Resynced(changes) => {
                for change in changes {
                    println!("{:?} {}", change.action, change.object);
                }
            }
            Update::Helper(helper) => println!("helper {}", helper.name),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
