//! Solving a split brain by throwing the local data away, on purpose.

use crate::client::Drbd;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    DiskState, Minor, NetOptions, Resource, Role, Sectors, Text, Uuid, VolumeNumber,
};
use crate::op::{ConnectionRef, Operation, Outcome};
use crate::socket::{Connector, Deadline};
use std::fmt;
use std::time::Duration;

/// A decision to throw away what was written here since the two sides
/// parted, and to take the peer's data instead: made from what was seen,
/// shown to who decides, then carried out by [`Drbd::discard_local_data`].
///
/// It can only be made on the side that is not connected, and it is only
/// carried out while the data here is still what it names.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
#[must_use = "this is only a plan"]
pub struct DiscardPlan {
    /// The connection that is made again.
    pub connection: ConnectionRef,
    /// What will be gone.
    pub losses: Vec<Loss>,
    /// The resource is Primary and has to be demoted first: what uses it has
    /// to be ended.
    pub demote: bool,
}

/// What is thrown away of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Loss {
    /// The volume.
    pub volume: VolumeNumber,
    /// Its minor.
    pub minor: Minor,
    /// The generation that ends.
    pub generation: Option<Uuid>,
    /// How much was written since the two sides parted, at least; `None`
    /// where the kernel does not say.
    pub written: Option<Sectors>,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {} (minor {}", self.volume, self.minor)?;
        if let Some(generation) = self.generation {
            write!(f, ", generation {generation}")?;
        }
        match self.written {
            Some(written) => write!(f, "): at least {} KiB written here", written.0 / 2),
            None => f.write_str("): what was written here since the nodes parted"),
        }
    }
}

impl fmt::Display for DiscardPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = &self.connection.resource;
        write!(
            f,
            "throw away for {resource}, and take the peer's data instead:"
        )?;
        for loss in &self.losses {
            write!(f, "\n  {loss}")?;
        }
        if self.demote {
            write!(f, "\n{resource} is Primary here and is demoted first")?;
        }
        Ok(())
    }
}

impl Resource {
    /// What it would take to solve a split brain in favour of the peer.
    ///
    /// `connection` is the one to make again; its addresses are needed on
    /// 8.4, which forgets a connection that is StandAlone. Take a
    /// [`snapshot`](Drbd::snapshot): a watcher's model does not know how much
    /// an unconnected 8.4 has written.
    ///
    /// # Errors
    /// All that speaks against it: it is connected (so there is nothing to
    /// solve), or has no data to throw away.
    pub fn discard_plan(
        &self,
        connection: &ConnectionRef,
    ) -> std::result::Result<DiscardPlan, Vec<String>> {
        let mut against = Vec::new();
        if connection.resource != self.name {
            against.push(format!("{} is another resource", connection.resource));
        }
        let found =
            self.connections
                .iter()
                .find(|c| match (c.peer_node_id, connection.peer_node_id) {
                    (Some(is), Some(wanted)) => is == wanted,
                    _ => true,
                });
        if let Some(found) = found.filter(|found| found.is_connected()) {
            against.push(format!(
                "{} is Connected to {found}: there is no split brain to solve",
                self.name
            ));
        }
        let losses: Vec<_> = self
            .devices
            .iter()
            .filter(|device| device.disk_state != DiskState::Diskless)
            .map(|device| Loss {
                volume: device.volume,
                minor: device.minor,
                generation: device.statistics.current_uuid,
                written: found
                    .and_then(|c| c.peer_device(device.volume))
                    .map(|peer| peer.statistics.out_of_sync)
                    .or(device.out_of_sync),
            })
            .collect();
        if losses.is_empty() {
            against.push(format!("{} has no data here to throw away", self.name));
        }
        if !against.is_empty() {
            return Err(against);
        }
        Ok(DiscardPlan {
            connection: connection.clone(),
            losses,
            demote: self.role == Role::Primary,
        })
    }
}

impl<C: Connector + Send + Sync + 'static> Drbd<C>
where
    C::Transport: Send + 'static,
{
    /// Carries out a [`DiscardPlan`]: disconnects, demotes, connects again as
    /// the side whose data is thrown away. The peer has to be connecting (or
    /// StandAlone there, and then told to connect).
    ///
    /// `name` and `options` are those of
    /// [`Operation::ConnectDiscardingLocalData`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the data here is not what the plan
    /// names any more: nothing was done then. [`ErrorKind::Busy`] when it is
    /// Primary and in use: it is disconnected then. Otherwise as [`Drbd::run`].
    pub fn discard_local_data(
        &self,
        plan: &DiscardPlan,
        name: Option<Text>,
        options: NetOptions,
        timeout: Duration,
    ) -> Result<Outcome> {
        let deadline = Deadline::after(timeout);
        let resource = &plan.connection.resource;
        let refused = |text: String| {
            Error::local(
                "discard-local-data",
                resource.to_string(),
                ErrorKind::InvalidInput,
                text,
            )
        };
        let state = self.snapshot(timeout)?;
        let now = state
            .by_name(resource)
            .ok_or_else(|| refused("there is no such resource any more".into()))?
            .discard_plan(&plan.connection)
            .map_err(|against| refused(against.join("; ")))?;
        let named = |plan: &DiscardPlan| {
            let losses = plan.losses.iter();
            losses
                .map(|loss| (loss.minor, loss.generation))
                .collect::<Vec<_>>()
        };
        if named(&now) != named(plan) {
            let text = "the data here is not what the plan names any more: look again";
            return Err(refused(text.into()));
        }
        let connection = || plan.connection.clone();
        let disconnect = Operation::Disconnect {
            connection: connection(),
        };
        let secondary = Operation::Secondary {
            resource: resource.clone(),
        };
        let connect = Operation::ConnectDiscardingLocalData {
            connection: connection(),
            name,
            options: Box::new(options),
        };
        let mut last = Outcome::Unknown;
        for operation in [disconnect, secondary, connect] {
            last = self.run(&operation, deadline.left())?;
            if last == Outcome::Unknown {
                break;
            }
        }
        Ok(last)
    }
}
