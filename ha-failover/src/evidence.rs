//! Proof that the peer is off, as a value that cannot be made up by accident.
//!
//! A takeover promotes without the peer's consent. Nothing on the local node can
//! justify that, so [`Plan::with_evidence`](crate::Plan::with_evidence) asks for
//! a [`FenceEvidence`]. There are two ways to one: a fence agent switched the
//! node off and then *read back* that it is off, or an operator attests it in
//! writing. It serializes for the journal and cannot be deserialized.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::placement::Fence;

/// A node's power state as a fence agent tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Power {
    /// On (exit status 0).
    On,
    /// Off (exit status 2).
    Off,
    /// The agent did not say.
    Unknown(String),
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Power::On => f.write_str("on"),
            Power::Off => f.write_str("off"),
            Power::Unknown(why) => write!(f, "unknown ({why})"),
        }
    }
}

/// Words of an operator who takes a risk on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attestation(String);

impl Attestation {
    /// Takes the operator's words.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] when there are fewer than two words: who reads the
    /// journal afterwards must learn something from it.
    pub fn new(text: &str) -> Result<Self> {
        if text.split_whitespace().count() < 2 {
            return Err(
                Error::new(ErrorKind::Usage, format!("`{text}` says nothing")).remedy(
                    "write who says so and why, e.g. \"Ann: pulled both power cords of node1\"",
                ),
            );
        }
        Ok(Attestation(text.trim().to_owned()))
    }
}

impl fmt::Display for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// Proof that a node is off.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[must_use = "evidence proves nothing until a plan takes it"]
pub struct FenceEvidence {
    node: String,
    proof: Proof,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
enum Proof {
    Fenced { before: Power, agent: String },
    Attested { text: Attestation },
}

impl FenceEvidence {
    /// Switches `node` off by a fence agent and reads its power state back.
    ///
    /// Blocks for as long as the agent takes. Only "off" after the switch counts;
    /// an agent that reports success and a node that is still on is an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fence`].
    pub fn obtain(fencer: &mut dyn Fencer, node: &str) -> Result<Self> {
        let before = fencer.status(node)?;
        fencer.off(node)?;
        match fencer.status(node)? {
            Power::Off => Ok(FenceEvidence {
                node: node.to_owned(),
                proof: Proof::Fenced {
                    before,
                    agent: fencer.describe(),
                },
            }),
            still => Err(Error::new(
                ErrorKind::Fence,
                format!("node {node}: switched off, but its power state reads back as {still}"),
            )
            .remedy("do not take over; find out whether the node runs, then fence it by hand and use --attest")),
        }
    }

    /// Takes an operator's word that `node` is off.
    ///
    /// If the word is wrong, two nodes serve and their data diverges.
    pub fn attested(node: &str, text: Attestation) -> Self {
        FenceEvidence {
            node: node.to_owned(),
            proof: Proof::Attested { text },
        }
    }

    /// The same evidence for the thread that acts on it. Not `Clone`: users get none by copying.
    pub(crate) fn again(&self) -> Self {
        FenceEvidence {
            node: self.node.clone(),
            proof: self.proof.clone(),
        }
    }

    /// The node it is about.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether it is only somebody's word.
    #[must_use]
    pub fn is_attested(&self) -> bool {
        matches!(self.proof, Proof::Attested { .. })
    }
}

impl fmt::Display for FenceEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proof {
            Proof::Fenced { before, agent } => write!(
                f,
                "{} was {before}, switched off by {agent}, reads back off",
                self.node
            ),
            Proof::Attested { text } => write!(f, "{} is off, attested: {text}", self.node),
        }
    }
}

/// Something that knows and changes the power state of nodes.
pub trait Fencer {
    /// Asks for the power state. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fence`] when the agent cannot be run.
    fn status(&mut self, node: &str) -> Result<Power>;

    /// Switches the node off.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Fence`] when the agent cannot be run or says it failed.
    fn off(&mut self, node: &str) -> Result<()>;

    /// Names itself for the journal.
    fn describe(&self) -> String;
}

/// A fence agent that is a program: exit status 0 = on, 2 = off for `status`, 0 = done for `off`.
#[derive(Clone, Debug)]
pub struct CommandFencer {
    status: Vec<String>,
    off: Vec<String>,
    deadline: Duration,
}

impl CommandFencer {
    /// Takes the placement's fence commands; `None` when only an operator can attest.
    #[must_use]
    pub fn from_placement(fence: &Fence) -> Option<Self> {
        match fence {
            Fence::Operator => None,
            Fence::Command {
                status,
                off,
                deadline,
            } => Some(CommandFencer {
                status: status.clone(),
                off: off.clone(),
                deadline: *deadline,
            }),
        }
    }

    fn run(&self, template: &[String], node: &str) -> Result<Option<i32>> {
        let argv: Vec<String> = template.iter().map(|a| a.replace("{node}", node)).collect();
        let shown = argv.join(" ");
        let failed = |what: String| {
            Error::new(ErrorKind::Fence, format!("fence agent `{shown}`: {what}"))
                .remedy("check [resource.fence] in the placement file and run the agent by hand")
        };
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| failed("is empty".into()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| failed("cannot be run".into()).caused_by(e))?;
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status.code()),
                Ok(None) if begun.elapsed() >= self.deadline => {
                    // A late success is worth nothing: the verdict is dropped with the agent.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(format!(
                        "no answer within {} s, killed",
                        self.deadline.as_secs_f32()
                    )));
                }
                Ok(None) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(e) => return Err(failed("cannot be waited for".into()).caused_by(e)),
            }
        }
    }
}

impl Fencer for CommandFencer {
    fn status(&mut self, node: &str) -> Result<Power> {
        Ok(match self.run(&self.status, node)? {
            Some(0) => Power::On,
            Some(2) => Power::Off,
            Some(code) => Power::Unknown(format!("exit status {code}")),
            None => Power::Unknown("killed by a signal".into()),
        })
    }

    fn off(&mut self, node: &str) -> Result<()> {
        match self.run(&self.off, node)? {
            Some(0) => Ok(()),
            code => Err(Error::new(
                ErrorKind::Fence,
                format!(
                    "fence agent `{}` for {node}: {}",
                    self.describe(),
                    code.map_or("killed by a signal".into(), |c| format!("exit status {c}"))
                ),
            )
            .remedy("the node may still run; do not take over on this")),
        }
    }

    fn describe(&self) -> String {
        self.off.join(" ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn agent(status: &str, off: &str) -> CommandFencer {
        let sh = |script: &str| {
            ["/bin/sh", "-c", script, "{node}"]
                .map(str::to_owned)
                .to_vec()
        };
        CommandFencer {
            status: sh(status),
            off: sh(off),
            deadline: Duration::from_secs(20),
        }
    }

    #[test]
    fn only_a_read_back_counts() {
        let dir = tempfile::tempdir().unwrap();
        let flag = dir.path().join("off");
        let status = format!("test -e {} && exit 2; exit 0", flag.display());
        let off = format!("echo $0 > {}", flag.display());
        let evidence = FenceEvidence::obtain(&mut agent(&status, &off), "node1").unwrap();
        assert!(!evidence.is_attested());
        assert!(
            evidence
                .to_string()
                .starts_with("node1 was on, switched off by")
        );
        assert_eq!(std::fs::read_to_string(&flag).unwrap(), "node1\n");

        // An agent that lies: says it did, and the node stays on.
        let lie = FenceEvidence::obtain(&mut agent("exit 0", "exit 0"), "node1").unwrap_err();
        assert!(lie.to_string().contains("reads back as on"), "{lie}");
        // One that cannot tell.
        let shrug = FenceEvidence::obtain(&mut agent("exit 1", "exit 0"), "node1").unwrap_err();
        assert!(
            shrug.to_string().contains("unknown (exit status 1)"),
            "{shrug}"
        );
        // One that fails.
        assert!(FenceEvidence::obtain(&mut agent("exit 2", "exit 1"), "node1").is_err());
    }

    #[test]
    fn an_agent_that_hangs_is_dropped() {
        let mut slow = agent("exec sleep 600", "exit 0");
        slow.deadline = Duration::from_millis(50);
        let error = FenceEvidence::obtain(&mut slow, "node1").unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
    }

    #[test]
    fn words_must_say_something() {
        assert!(Attestation::new("yes").is_err());
        assert!(Attestation::new("Ann: power cords pulled").is_ok());
    }
}
