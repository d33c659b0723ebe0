//! What liblxc logged during one call: the only place where it says why.

use std::fmt;

/// How serious a log line is, as liblxc spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum LogLevel {
    /// `TRACE`
    Trace,
    /// `DEBUG`
    Debug,
    /// `INFO`
    Info,
    /// `NOTICE`
    Notice,
    /// `WARN`
    Warn,
    /// `ERROR`
    Error,
    /// `CRIT`, `ALERT` or `FATAL`
    Critical,
}

/// One line of liblxc's log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LogLine {
    /// How serious it is.
    pub level: LogLevel,
    /// The function in liblxc's source, as `file:function:line`; empty for what
    /// a program printed that liblxc ran.
    pub place: String,
    /// What it says.
    pub message: String,
}

impl LogLine {
    /// Reads `prefix name time LEVEL unit - file:function:line - message`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (head, rest) = line.split_once(" - ")?;
        let (place, message) = rest.split_once(" - ")?;
        // From the end: the unit, then the level. Names may hold spaces.
        let level = match head.split_ascii_whitespace().nth_back(1)? {
            "TRACE" => LogLevel::Trace,
            "DEBUG" => LogLevel::Debug,
            "INFO" => LogLevel::Info,
            "NOTICE" => LogLevel::Notice,
            "WARN" => LogLevel::Warn,
            "ERROR" => LogLevel::Error,
            "CRIT" | "ALERT" | "FATAL" => LogLevel::Critical,
            _ => return None,
        };
        Some(Self {
            level,
            place: place.to_owned(),
            message: message.to_owned(),
        })
    }

    /// All lines of a log. One that cannot be read continues the one before.
    pub(crate) fn parse_all(text: &str) -> Vec<Self> {
        let mut lines: Vec<Self> = Vec::new();
        for line in text.lines() {
            match (Self::parse(line), lines.last_mut()) {
                (Some(parsed), _) => lines.push(parsed),
                (None, Some(last)) => {
                    last.message.push('\n');
                    last.message.push_str(line);
                }
                // From a program that liblxc ran before it logged anything.
                (None, None) => lines.push(Self {
                    level: LogLevel::Info,
                    place: String::new(),
                    message: line.to_owned(),
                }),
            }
        }
        lines
    }

    /// Whether this can be why a call failed: an error, and not one that
    /// liblxc writes on calls that succeed, too.
    pub(crate) fn is_cause(&self) -> bool {
        // 5.0.x, at every start of a container without a seccomp profile.
        let seccomp = "Unsupported config key \"lxc.seccomp\"";
        // 6.0.x, at every clone of a container that none depends on.
        let dependants = "/lxc_rdepends";
        self.level >= LogLevel::Error
            && !self.message.starts_with(seccomp)
            && !self.message.ends_with(dependants)
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const LOG: &str = "\
lxc-rs m1 20261122091200.123 INFO     lxccontainer - lxccontainer.c:do_lxcapi_start:997 - Set process title to [lxc monitor] /srv - x m1
lxc-rs m1 20261122091200.124 ERROR    confile - confile.c:lxc_get_config:1 - Unsupported config key \"lxc.seccomp\"
lxc-rs 20261122091200.125 ERROR    network - network.c:netdev:660 - No such device - Failed to attach \"vethA\"
second line
";

    #[test]
    fn lines_are_read_and_noise_is_no_cause() {
        let lines = LogLine::parse_all(LOG);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].level, LogLevel::Info);
        assert_eq!(
            lines[0].message,
            "Set process title to [lxc monitor] /srv - x m1"
        );
        assert!(!lines[1].is_cause());
        assert!(lines[2].is_cause());
        assert_eq!(lines[2].place, "network.c:netdev:660");
        assert_eq!(
            lines[2].message,
            "No such device - Failed to attach \"vethA\"\nsecond line"
        );
    }
}
