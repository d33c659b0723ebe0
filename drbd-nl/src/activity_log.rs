//! The activity log of a node that has been Secondary.

use crate::client::Drbd;
use crate::dialect::Dialect;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{DiskOptions, Minor, ResourceName};
use crate::op::{Base, Operation, Outcome};
use crate::schema::codes;
use crate::socket::{Connector, Deadline};
use std::time::Duration;

impl<C: Connector + Send + Sync + 'static> Drbd<C>
where
    C::Transport: Send + 'static,
{
    /// Empties the activity log of each disk of a resource that is to become
    /// Primary, so that its writes are noted there.
    ///
    /// DRBD 9 with room for one peer in its metadata notes nothing on disk
    /// while it is Secondary of a Primary ("Disabling local AL-updates
    /// (optimization)"), and goes on taking what it has in memory for noted
    /// when it becomes Primary itself. If it then dies, what it wrote into
    /// those extents is not marked out of sync, the other node is not given
    /// it, and the copies differ without anybody knowing. Seen on 9.2.18; the
    /// source of 9.3.3 is the same. This changes `al-extents` and changes it
    /// back, at which the driver starts an empty log. DRBD 8.4 has no such
    /// optimization, and nothing is done there.
    ///
    /// Call it before [`Operation::Primary`], when the peer is no longer
    /// Primary. The driver wants the disk to be idle; it is asked again until
    /// `timeout`.
    ///
    /// # Errors
    /// As [`Drbd::run`]; [`ErrorKind::NotFound`] when there is no such
    /// resource.
    ///
    /// # Privileges
    /// CAP_NET_ADMIN and CAP_SYS_ADMIN.
    pub fn renew_activity_log(&self, resource: &ResourceName, timeout: Duration) -> Result<()> {
        const OP: &str = "renew-activity-log";
        if self.family().dialect == Dialect::V84 {
            return Ok(());
        }
        let deadline = Deadline::after(timeout);
        let state = self.snapshot(timeout)?;
        let Some(found) = state.by_name(resource) else {
            let text = "there is no such resource";
            return Err(Error::local(
                OP,
                resource.to_string(),
                ErrorKind::NotFound,
                text,
            ));
        };
        for device in &found.devices {
            let Some(extents) = device.options.as_ref().and_then(|o| o.al_extents) else {
                continue;
            };
            // What it was comes last.
            for extents in [other_size(extents), extents] {
                self.resize_activity_log(device.minor, extents, &deadline)?;
            }
        }
        Ok(())
    }

    fn resize_activity_log(&self, minor: Minor, extents: u32, deadline: &Deadline) -> Result<()> {
        loop {
            let operation = Operation::ChangeDiskOptions {
                minor,
                base: Base::Current,
                options: Box::new(DiskOptions::new().al_extents(extents)),
            };
            match self.run(&operation, deadline.left()) {
                Ok(Outcome::Unknown) => {
                    let text = "the kernel did not answer in time";
                    let target = operation.target();
                    return Err(Error::local(
                        operation.name(),
                        target,
                        ErrorKind::Timeout,
                        text,
                    ));
                }
                Ok(_) => return Ok(()),
                // ERR_NOMEM: requests are under way.
                // Requests are under way.
                Err(error) if error.ret_code() == Some(codes::ERR_NOMEM) && !deadline.passed() => {
                    std::thread::sleep(deadline.left().min(Duration::from_millis(20)));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Another number of extents that every log has room for.
fn other_size(extents: u32) -> u32 {
    if extents > 67 {
        extents - 1
    } else {
        extents + 1
    }
}
