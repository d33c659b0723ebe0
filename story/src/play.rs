//! Playing: programs that run in nodes, their output shown as it comes, and what they took.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ha_failover::Plan;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uml_lab::{Child, Command, Lab};

/// How long one program may take before the demo gives up: generous, since a slow machine is no
/// failure.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// One thing that happened, for the timeline.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Milliseconds since the story began.
    pub at_ms: u64,
    /// What it took.
    pub ms: u64,
    /// Where: a node, or `lab`.
    pub place: String,
    /// What.
    pub what: String,
}

/// The stage with its nodes, and the clock of the story.
#[derive(Debug)]
pub struct Stage {
    /// The nodes and their wires.
    pub lab: Lab,
    begin: Instant,
    steps: Vec<Step>,
    failover: PathBuf,
    program: PathBuf,
}

/// A program that runs in a node.
#[derive(Debug)]
pub struct Running {
    child: Child,
    heard: Arc<Mutex<Heard>>,
    readers: Vec<JoinHandle<()>>,
    place: String,
    what: String,
    begin: Instant,
}

/// What a program has printed: text, or events if it prints those.
#[derive(Debug, Default)]
struct Heard {
    text: String,
    events: Vec<(Instant, Event)>,
}

/// A line that `failover --json` prints. What the demo has no use for is skipped.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
enum Event {
    Plan {
        plan: Box<Plan>,
    },
    Evidence {
        text: String,
    },
    Begin {
        step: String,
    },
    Step {
        text: String,
        ms: u64,
        outcome: String,
        #[serde(default)]
        undo: bool,
        note: Option<String>,
    },
    Refused {
        findings: Vec<Value>,
    },
    Error {
        message: String,
        remedy: Option<String>,
    },
    End {
        outcome: String,
        ms: u64,
        gap_ms: Option<u64>,
    },
    #[serde(other)]
    Other,
}

impl Stage {
    /// Takes the lab over. The program `failover` stands beside the running one.
    pub fn new(lab: Lab, begin: Instant) -> Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let failover = program.with_file_name("failover");
        if !failover.exists() {
            bail!(
                "{} is not there; build it with: cargo build -p tools",
                failover.display()
            );
        }
        let mut stage = Self {
            lab,
            begin,
            steps: Vec::new(),
            failover,
            program,
        };
        stage.note("lab", "boot all nodes", begin, begin.elapsed());
        Ok(stage)
    }

    /// Where the program `failover` is, on the host and in the nodes.
    #[must_use]
    pub fn failover_path(&self) -> &Path {
        &self.failover
    }

    /// Where this program is, on the host and in the nodes.
    #[must_use]
    pub fn program_path(&self) -> &Path {
        &self.program
    }

    /// Announces the next act.
    pub fn act(&self, title: &str) {
        println!("\n== {:6.1} s  {title}", self.begin.elapsed().as_secs_f64());
    }

    /// Does something with the lab itself, and notes it.
    pub fn lab_does<T>(
        &mut self,
        what: &str,
        act: impl FnOnce(&Lab) -> Result<T, uml_lab::Error>,
    ) -> Result<T> {
        let start = Instant::now();
        println!("lab    * {what}");
        let result = act(&self.lab).with_context(|| what.to_owned());
        self.note("lab", what, start, start.elapsed());
        result
    }

    /// Starts `failover` in a node.
    pub fn begin_failover(&self, node: &str, arguments: &[&str]) -> Result<Running> {
        self.begin(
            node,
            &self.failover,
            "failover",
            &[&["--json"], arguments].concat(),
        )
    }

    /// Runs `failover` in a node, and expects `exit`.
    pub fn failover(&mut self, node: &str, arguments: &[&str], exit: i32) -> Result<String> {
        let running = self.begin_failover(node, arguments)?;
        self.finish(running, exit)
    }

    /// Runs a script in a node.
    pub fn script(&mut self, node: &str, script: &str, arguments: &[&str]) -> Result<String> {
        let name = Path::new(script).file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let running = self.begin(node, Path::new(script), &name, arguments)?;
        self.finish(running, 0)
    }

    /// Runs this program itself in a node.
    pub fn in_node(&mut self, node: &str, arguments: &[&str]) -> Result<String> {
        let running = self.begin(
            node,
            &self.program,
            "story",
            &[&["in-node"], arguments].concat(),
        )?;
        self.finish(running, 0)
    }

    /// Waits for a program, expects `exit`, and notes the steps; returns what it printed.
    pub fn finish(&mut self, running: Running, exit: i32) -> Result<String> {
        let Running {
            child,
            heard,
            readers,
            place,
            what,
            begin,
        } = running;
        let output = child
            .wait(PATIENCE)
            .with_context(|| format!("{place}: {what}"))?;
        for reader in readers {
            // A reader that panicked has nothing more to say.
            let _ = reader.join();
        }
        let Heard { text, events } = std::mem::take(&mut *lock(&heard));
        self.note(&place, &what, begin, begin.elapsed());
        for (when, event) in events {
            if let Event::Step { text, ms, undo, .. } = event {
                let took = Duration::from_millis(ms);
                let what = if undo {
                    format!("  undo: {text}")
                } else {
                    format!("  {text}")
                };
                self.note(&place, &what, when.checked_sub(took).unwrap_or(when), took);
            }
        }
        if output.status.code() != Some(exit) {
            bail!(
                "{place}: {what}: expected exit status {exit}, got {:?}\n{text}",
                output.status
            );
        }
        Ok(text)
    }

    /// The steps so far, in the order in which they began.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = self.steps.clone();
        steps.sort_by_key(|step| step.at_ms);
        steps
    }

    fn begin(&self, node: &str, program: &Path, name: &str, arguments: &[&str]) -> Result<Running> {
        let what = format!("{name} {}", arguments.join(" ").replace("--json ", ""));
        println!("{node:<6} $ {what}");
        let begin = Instant::now();
        let child = self
            .lab
            .node(node)
            .spawn(Command::new(program).args(arguments).deadline(PATIENCE))
            .with_context(|| format!("{node}: {what}"))?;
        let heard = Arc::<Mutex<Heard>>::default();
        let readers = [child.stdout(), child.stderr()]
            .into_iter()
            .map(|stream| {
                let (heard, node) = (Arc::clone(&heard), node.to_owned());
                thread::spawn(move || listen(stream, &node, &heard))
            })
            .collect();
        Ok(Running {
            child,
            heard,
            readers,
            place: node.to_owned(),
            what,
            begin,
        })
    }

    fn note(&mut self, place: &str, what: &str, start: Instant, took: Duration) {
        self.steps.push(Step {
            at_ms: millis(start.saturating_duration_since(self.begin)),
            ms: millis(took),
            place: place.to_owned(),
            what: what.to_owned(),
        });
    }
}

impl Running {
    /// Waits until the program has begun the step of this name.
    pub fn wait_for_step(&self, name: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let begun = |event: &Event| matches!(event, Event::Begin { step } if step == name);
            if lock(&self.heard)
                .events
                .iter()
                .any(|(_, event)| begun(event))
            {
                return Ok(());
            }
            if Instant::now() > deadline || self.readers.iter().all(JoinHandle::is_finished) {
                let text = lock(&self.heard).text.clone();
                bail!(
                    "{}: {}: did not come to the step {name}\n{text}",
                    self.place,
                    self.what
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Reads a program's output to its end, keeps it, and shows it.
fn listen(stream: impl Read, node: &str, heard: &Mutex<Heard>) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let when = Instant::now();
        let line = String::from_utf8_lossy(&line).into_owned();
        let event = serde_json::from_str::<Event>(&line).ok();
        for shown in event.as_ref().map_or_else(|| line.clone(), show).lines() {
            println!("{node:<6} | {shown}");
        }
        let mut heard = lock(heard);
        heard.text.push_str(&line);
        heard.text.push('\n');
        heard.events.extend(event.map(|event| (when, event)));
    }
}

/// An event as a person reads it.
fn show(event: &Event) -> String {
    match event {
        Event::Plan { plan } => plan.to_string(),
        Event::Evidence { text } => format!("evidence: {text}"),
        Event::Step {
            text,
            ms,
            outcome,
            undo,
            note,
        } => {
            let undo = if *undo { "undo: " } else { "" };
            let note = note
                .as_ref()
                .map_or(String::new(), |note| format!(" ({note})"));
            format!("{ms:>6} ms  {undo}{text}: {outcome}{note}")
        }
        Event::Refused { findings } => {
            let mut text = "refused:".to_owned();
            for finding in findings {
                let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
                // Writing to a String cannot fail.
                let _ = write!(
                    text,
                    "\n  {} [{}] {}: {}\n      -> {}",
                    word("severity"),
                    word("code"),
                    word("subject"),
                    word("evidence"),
                    word("remedy")
                );
            }
            text
        }
        Event::Error { message, remedy } => match remedy {
            Some(remedy) => format!("error: {message}\n  -> {remedy}"),
            None => format!("error: {message}"),
        },
        Event::End {
            outcome,
            ms,
            gap_ms,
        } => {
            let gap = gap_ms.map_or(String::new(), |gap| {
                format!(", {gap} ms of them without service")
            });
            format!("{outcome} in {ms} ms{gap}")
        }
        Event::Begin { .. } | Event::Other => String::new(),
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
