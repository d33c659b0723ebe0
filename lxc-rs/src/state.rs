//! States of a container, and outcomes of calls with a deadline.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::log::LogLine;

/// State of a container, as its monitor gives it.
///
/// A container that is not defined, or that has no monitor, is `Stopped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "SCREAMING_SNAKE_CASE"))]
#[non_exhaustive]
pub enum State {
    /// No monitor.
    Stopped,
    /// The monitor prepares the container.
    Starting,
    /// Init runs.
    Running,
    /// Init has ended and the monitor cleans up.
    Stopping,
    /// A start failed and the monitor cleans up.
    Aborting,
    /// On the way to frozen.
    Freezing,
    /// All processes are suspended.
    Frozen,
    /// On the way from frozen to running.
    Thawed,
}

impl State {
    /// All states, in the order of liblxc's numbers.
    pub const ALL: [Self; 8] = [
        Self::Stopped,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Aborting,
        Self::Freezing,
        Self::Frozen,
        Self::Thawed,
    ];

    /// The word liblxc uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Aborting => "ABORTING",
            Self::Freezing => "FREEZING",
            Self::Frozen => "FROZEN",
            Self::Thawed => "THAWED",
        }
    }

    /// Whether the container has live processes that did their start: running,
    /// frozen, or between the two. Unlike `is_running` of liblxc this is not
    /// true while a start is being aborted.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(
            self,
            Self::Running | Self::Freezing | Self::Frozen | Self::Thawed
        )
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str().as_bytes() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text.as_bytes()).ok_or_else(|| {
            let detail = format!("{text:?} is not a container state");
            Error::new(ErrorKind::InvalidInput, "state", detail)
        })
    }
}

/// How a call with a deadline ended, if it did not fail.
#[derive(Debug)]
#[must_use = "a call may have outlived its deadline, and then its effect is unknown"]
pub enum Outcome<T = ()> {
    /// It was done before the deadline.
    Done(T),
    /// The deadline passed first. The call may yet take effect, or have taken
    /// effect already: observe before doing anything else.
    Unknown(Unknown),
}

/// What is known of a call that outlived its deadline.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unknown {
    /// The call.
    pub call: &'static str,
    /// The container's name.
    pub container: String,
    /// The deadline that passed.
    pub deadline: Duration,
    /// The state the container had last, if it could be asked.
    pub last_state: Option<State>,
    /// What liblxc logged until then.
    pub log: Vec<LogLine>,
    pub(crate) path: std::path::PathBuf,
}

impl<T> Outcome<T> {
    /// The value, or an error of kind [`ErrorKind::Timeout`] for a caller to
    /// whom "unknown" is no better than "failed".
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] for [`Outcome::Unknown`].
    pub fn done(self) -> Result<T> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Unknown(unknown) => {
                let detail = unknown.describe();
                Err(Error::new(ErrorKind::Timeout, unknown.call, detail)
                    .on(&unknown.container, &unknown.path)
                    .with_log(unknown.log))
            }
        }
    }

    /// Whether the call was done before its deadline.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

impl Unknown {
    fn describe(&self) -> String {
        let mut text = format!("not done after {:?}, outcome unknown", self.deadline);
        if let Some(state) = self.last_state {
            text.push_str(", state was ");
            text.push_str(state.as_str());
        }
        text
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.call, self.container, self.describe())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip() {
        for state in State::ALL {
            assert_eq!(state.to_string().parse::<State>().unwrap(), state);
        }
        // What liblxc says when the query failed.
        assert!("INVALID STATE".parse::<State>().is_err());
    }
}
