//! Faults by a script, or by a seed.

use std::fmt;
use std::time::{Duration, Instant};

use crate::disk::DiskFault;
use crate::error::{Error, ErrorKind, Result};
use crate::lab::Lab;
use crate::policy::Policy;
use crate::random::Random;

/// What to do to a lab, and when; played by [`Lab::play`].
///
/// Written by hand, or made from a seed and a [`Menu`]. Shown as text it is a
/// list that a failed test can print; with the feature `serde` it is data.
///
/// ```
/// use std::time::Duration;
/// use uml_lab::{Action, Menu, Policy, Schedule};
///
/// let second = Duration::from_secs(1);
/// let script = Schedule::new()
///     .at(second, Action::hang("node1"))
///     .at(5 * second, Action::resume("node1"))
///     .at(6 * second, Action::wire("repl", "node1", "node2", Policy::new().loss(0.3)));
/// assert_eq!(
///     script.to_string(),
///     "   1.000 node1: hang\n   5.000 node1: resume\n   6.000 repl, node1 to node2: loss 30 %\n"
/// );
///
/// let menu = Menu::new(second).kill("node1").hang("node2").wire("repl", "node1", "node2");
/// assert_eq!(Schedule::random(42, &menu, 10), Schedule::random(42, &menu, 10));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a schedule is played by `Lab::play`"]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Schedule {
    /// The seed it was made from, if it was.
    seed: Option<u64>,
    steps: Vec<(Duration, Action)>,
}

/// One step of a [`Schedule`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Action {
    /// [`Node::kill`](crate::Node::kill).
    Kill {
        /// The node's name.
        node: String,
    },
    /// [`Node::power_cut`](crate::Node::power_cut).
    PowerCut {
        /// The node's name.
        node: String,
        /// What survives.
        seed: u64,
    },
    /// [`Node::boot`](crate::Node::boot), if the node is down.
    Boot {
        /// The node's name.
        node: String,
    },
    /// [`Node::hang`](crate::Node::hang).
    Hang {
        /// The node's name.
        node: String,
    },
    /// [`Node::resume`](crate::Node::resume).
    Resume {
        /// The node's name.
        node: String,
    },
    /// [`Wire::set`](crate::Wire::set).
    Wire {
        /// The wire's name.
        wire: String,
        /// The sending node.
        from: String,
        /// The receiving node.
        to: String,
        /// What happens to the frames.
        policy: Policy,
    },
    /// [`NodeDisk::inject`](crate::NodeDisk::inject).
    Disk {
        /// The node's name.
        node: String,
        /// Which of its disks.
        disk: usize,
        /// What is wrong with it.
        fault: DiskFault,
    },
    /// [`NodeDisk::heal`](crate::NodeDisk::heal).
    HealDisk {
        /// The node's name.
        node: String,
        /// Which of its disks.
        disk: usize,
    },
    /// [`Node::shift_clock`](crate::Node::shift_clock).
    ShiftClock {
        /// The node's name.
        node: String,
        /// How far it is ahead.
        milliseconds: i64,
    },
}

impl Action {
    /// Loses a node.
    pub fn kill(node: &str) -> Self {
        let node = node.to_owned();
        Action::Kill { node }
    }

    /// Cuts a node's power.
    pub fn power_cut(node: &str, seed: u64) -> Self {
        let node = node.to_owned();
        Action::PowerCut { node, seed }
    }

    /// Boots a node that is down.
    pub fn boot(node: &str) -> Self {
        let node = node.to_owned();
        Action::Boot { node }
    }

    /// Makes a node stand still.
    pub fn hang(node: &str) -> Self {
        let node = node.to_owned();
        Action::Hang { node }
    }

    /// Lets a node go on.
    pub fn resume(node: &str) -> Self {
        let node = node.to_owned();
        Action::Resume { node }
    }

    /// Sets what happens to the frames of one direction.
    pub fn wire(wire: &str, from: &str, to: &str, policy: Policy) -> Self {
        let [wire, from, to] = [wire, from, to].map(str::to_owned);
        Action::Wire {
            wire,
            from,
            to,
            policy,
        }
    }

    /// Makes a disk faulty.
    pub fn disk(node: &str, disk: usize, fault: DiskFault) -> Self {
        let node = node.to_owned();
        Action::Disk { node, disk, fault }
    }

    /// Heals a disk.
    pub fn heal_disk(node: &str, disk: usize) -> Self {
        let node = node.to_owned();
        Action::HealDisk { node, disk }
    }

    /// Moves a node's clock ahead, or back.
    pub fn shift_clock(node: &str, milliseconds: i64) -> Self {
        let node = node.to_owned();
        Action::ShiftClock { node, milliseconds }
    }

    /// Refuses names that the lab does not have.
    fn check(&self, lab: &Lab) -> Result<()> {
        let unknown = |what: String| {
            Err(Error::new(ErrorKind::Invalid, format!("{self}")).detail(format!("no {what}")))
        };
        match self {
            Action::Kill { node }
            | Action::PowerCut { node, .. }
            | Action::Boot { node }
            | Action::Hang { node }
            | Action::Resume { node }
            | Action::ShiftClock { node, .. } => match lab.find_node(node) {
                Some(_) => Ok(()),
                None => unknown(format!("node {node}")),
            },
            Action::Disk { node, disk, .. } | Action::HealDisk { node, disk } => {
                match lab.find_node(node) {
                    Some(found) if found.disk_count() > *disk => Ok(()),
                    _ => unknown(format!("disk {disk} of {node}")),
                }
            }
            Action::Wire { wire, from, to, .. } => match lab.find_wire(wire) {
                Some(found) if found.joins(from) && found.joins(to) => Ok(()),
                _ => unknown(format!("wire {wire} from {from} to {to}")),
            },
        }
    }

    fn play(&self, lab: &Lab) -> Result<()> {
        match self {
            Action::Kill { node } => lab.node(node).kill(),
            Action::PowerCut { node, seed } => lab.node(node).power_cut(*seed),
            Action::Boot { node } if lab.node(node).is_running() => Ok(()),
            Action::Boot { node } => lab.node(node).boot(),
            Action::Hang { node } => lab.node(node).hang(),
            Action::Resume { node } => lab.node(node).resume(),
            Action::Wire {
                wire,
                from,
                to,
                policy,
            } => {
                lab.wire(wire).set(from, to, *policy);
                Ok(())
            }
            Action::Disk { node, disk, fault } => lab.node(node).disk(*disk).inject(*fault),
            Action::HealDisk { node, disk } => lab.node(node).disk(*disk).heal(),
            Action::ShiftClock { node, milliseconds } => lab.node(node).shift_clock(*milliseconds),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Kill { node } => write!(f, "{node}: node loss"),
            Action::PowerCut { node, seed } => write!(f, "{node}: power cut, seed {seed}"),
            Action::Boot { node } => write!(f, "{node}: boot"),
            Action::Hang { node } => write!(f, "{node}: hang"),
            Action::Resume { node } => write!(f, "{node}: resume"),
            Action::Wire {
                wire,
                from,
                to,
                policy,
            } => write!(f, "{wire}, {from} to {to}: {policy}"),
            Action::Disk { node, disk, fault } => write!(f, "{node}, disk {disk}: {fault}"),
            Action::HealDisk { node, disk } => write!(f, "{node}, disk {disk}: healed"),
            Action::ShiftClock { node, milliseconds } => {
                write!(f, "{node}: clock {milliseconds:+} ms")
            }
        }
    }
}

impl Schedule {
    /// An empty one.
    pub fn new() -> Self {
        Schedule::default()
    }

    /// Adds a step at this time after the beginning. Steps are played in the
    /// order of time; those of one time in the order they were added.
    pub fn at(mut self, at: Duration, action: Action) -> Self {
        self.steps.push((at, action));
        self.steps.sort_by_key(|(at, _)| *at);
        self
    }

    /// Makes a schedule of `count` faults from a menu. The same seed, menu and
    /// count give the same schedule. One fault at a time; each ends before the
    /// next begins, and at the end everything is sound and up.
    pub fn random(seed: u64, menu: &Menu, count: usize) -> Self {
        let mut random = Random::new(seed);
        let mut schedule = Schedule {
            seed: Some(seed),
            steps: Vec::new(),
        };
        let mut at = Duration::ZERO;
        if menu.dishes.is_empty() {
            return schedule;
        }
        let pause = {
            let pace = menu.pace;
            move |random: &mut Random| {
                let millis = (pace.as_millis() as f64 * (0.5 + random.unit())) as u64;
                Duration::from_millis(millis)
            }
        };
        for _ in 0..count {
            at += pause(&mut random);
            let dish = &menu.dishes[random.below(menu.dishes.len() as u64) as usize];
            let (begin, end) = dish.serve(&mut random, menu.pace);
            schedule
                .steps
                .extend(begin.into_iter().map(|act| (at, act)));
            at += pause(&mut random);
            schedule.steps.extend(end.into_iter().map(|act| (at, act)));
        }
        schedule
    }

    /// Returns the seed it was made from, if it was.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Returns the steps in the order of time, which counts from the beginning.
    #[must_use]
    pub fn steps(&self) -> &[(Duration, Action)] {
        &self.steps
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seed) = self.seed {
            writeln!(f, "schedule of seed {seed}")?;
        }
        for (at, action) in &self.steps {
            writeln!(f, "{:>8.3} {action}", at.as_secs_f64())?;
        }
        Ok(())
    }
}

/// What a random [`Schedule`] may choose from. Something that is named twice is
/// chosen twice as often.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a menu is given to `Schedule::random`"]
pub struct Menu {
    pace: Duration,
    dishes: Vec<Dish>,
}

#[derive(Clone, Debug, PartialEq)]
enum Dish {
    Kill(String),
    PowerCut(String),
    Hang(String),
    Wire(String, String, String),
    Disk(String, usize),
    Clock(String),
}

impl Menu {
    /// An empty menu. Faults, and the pauses between them, last half to one and
    /// a half times `pace`.
    pub fn new(pace: Duration) -> Self {
        Menu {
            pace,
            dishes: Vec::new(),
        }
    }

    fn with(mut self, dish: Dish) -> Self {
        self.dishes.push(dish);
        self
    }

    /// A node may be lost, and boots again.
    pub fn kill(self, node: &str) -> Self {
        self.with(Dish::Kill(node.to_owned()))
    }

    /// A node's power may be cut, and it boots again; it needs a disk with
    /// [`Disk::power_cut`](crate::Disk::power_cut).
    pub fn power_cut(self, node: &str) -> Self {
        self.with(Dish::PowerCut(node.to_owned()))
    }

    /// A node may hang, and go on.
    pub fn hang(self, node: &str) -> Self {
        self.with(Dish::Hang(node.to_owned()))
    }

    /// The wire between two nodes may be cut, slow, unreliable or flapping, in
    /// either direction or both.
    pub fn wire(self, wire: &str, one: &str, other: &str) -> Self {
        let [wire, one, other] = [wire, one, other].map(str::to_owned);
        self.with(Dish::Wire(wire, one, other))
    }

    /// A disk may fail, fail writes, or be slow, and be healed; it needs
    /// [`Disk::faults`](crate::Disk::faults). It never lies.
    pub fn disk(self, node: &str, disk: usize) -> Self {
        self.with(Dish::Disk(node.to_owned(), disk))
    }

    /// A node's clock may be wrong by up to a day.
    pub fn clock(self, node: &str) -> Self {
        self.with(Dish::Clock(node.to_owned()))
    }
}

impl Dish {
    /// The steps that begin the fault, and those that end it.
    fn serve(&self, random: &mut Random, pace: Duration) -> (Vec<Action>, Vec<Action>) {
        match self {
            Dish::Kill(node) => (vec![Action::kill(node)], vec![Action::boot(node)]),
            Dish::PowerCut(node) => {
                let seed = random.below(1 << 32);
                (
                    vec![Action::power_cut(node, seed)],
                    vec![Action::boot(node)],
                )
            }
            Dish::Hang(node) => (vec![Action::hang(node)], vec![Action::resume(node)]),
            Dish::Disk(node, disk) => {
                let fault = match random.below(3) {
                    0 => DiskFault::Fail,
                    1 => DiskFault::FailWrites,
                    _ => DiskFault::Slow {
                        read: Duration::from_millis(random.below(200)),
                        write: Duration::from_millis(random.below(500)),
                    },
                };
                (
                    vec![Action::disk(node, *disk, fault)],
                    vec![Action::heal_disk(node, *disk)],
                )
            }
            Dish::Clock(node) => {
                const DAY: i64 = 86_400_000;
                let by = random.below(2 * DAY.unsigned_abs()).cast_signed() - DAY;
                (
                    vec![Action::shift_clock(node, by)],
                    vec![Action::shift_clock(node, 0)],
                )
            }
            Dish::Wire(wire, one, other) => {
                let policy = bad_wire(random, pace).seed(random.below(1 << 32));
                let directions = [(one, other), (other, one)];
                let directions = match random.below(4) {
                    0 => &directions[..1],
                    1 => &directions[1..],
                    _ => &directions[..],
                };
                let set = |policy| {
                    let actions = directions
                        .iter()
                        .map(|(from, to)| Action::wire(wire, from, to, policy));
                    actions.collect()
                };
                (set(policy), set(Policy::new()))
            }
        }
    }
}

fn bad_wire(random: &mut Random, pace: Duration) -> Policy {
    let policy = Policy::new();
    let percent = |most, random: &mut Random| (1 + random.below(most)) as f64 / 100.0;
    match random.below(6) {
        0 | 1 => policy.cut(),
        2 => policy.loss(percent(60, random)),
        3 => {
            let delay = Duration::from_millis(5 + random.below(500));
            policy.delay(delay).jitter(delay.mul_f64(random.unit()))
        }
        4 => policy
            .reorder(
                percent(30, random),
                Duration::from_millis(1 + random.below(50)),
            )
            .duplicate(percent(30, random)),
        _ => {
            let part = pace.as_millis() as u64 / 5;
            let [up, down] =
                [(); 2].map(|()| Duration::from_millis(10 + random.below(part.max(1))));
            policy.flap(up, down)
        }
    }
}

impl Lab {
    /// Plays a schedule; returns after its last step. A step that takes longer
    /// than planned delays those behind it. To do something meanwhile, play it
    /// in a thread of its own ([`std::thread::scope`]).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] before the first step if one names what the lab
    /// does not have, else the error of the first step that fails; those behind
    /// it are not played.
    pub fn play(&self, schedule: &Schedule) -> Result<()> {
        for (_, action) in &schedule.steps {
            action.check(self)?;
        }
        let start = Instant::now();
        for (at, action) in &schedule.steps {
            std::thread::sleep(at.saturating_sub(start.elapsed()));
            self.note(format!("schedule: {action}"));
            action.play(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::collections::HashSet;

    use super::*;

    fn menu() -> Menu {
        Menu::new(Duration::from_secs(2))
            .kill("a")
            .power_cut("a")
            .hang("b")
            .wire("w", "a", "b")
            .disk("b", 1)
            .clock("a")
    }

    #[test]
    fn a_seed_gives_the_same_schedule_each_time() {
        let schedule = Schedule::random(7, &menu(), 50);
        assert_eq!(schedule, Schedule::random(7, &menu(), 50));
        assert_ne!(schedule, Schedule::random(8, &menu(), 50));
        assert_eq!(schedule.seed(), Some(7));
        assert!(schedule.to_string().starts_with("schedule of seed 7\n"));
        assert!(schedule.steps().is_sorted_by_key(|(at, _)| *at));
        let none = Schedule::random(7, &Menu::new(Duration::ZERO), 50);
        assert!(none.steps().is_empty());
    }

    #[test]
    fn every_fault_ends_before_the_next() {
        let schedule = Schedule::random(3, &menu(), 500);
        let mut kinds = HashSet::new();
        let mut open = 0;
        for (_, action) in schedule.steps() {
            let ends = match action {
                Action::Boot { .. } | Action::Resume { .. } | Action::HealDisk { .. } => true,
                Action::Wire { policy, .. } => *policy == Policy::new(),
                Action::ShiftClock { milliseconds, .. } => *milliseconds == 0,
                _ => false,
            };
            kinds.insert(std::mem::discriminant(action));
            if ends {
                open -= 1;
            } else {
                // Both directions of a wire begin together.
                assert!(
                    open == 0 || matches!(action, Action::Wire { .. }),
                    "{action}"
                );
                open += 1;
            }
        }
        assert_eq!((open, kinds.len()), (0, 9));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_schedule_is_data() {
        let schedule = Schedule::random(9, &menu(), 30);
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
        let script = Schedule::new().at(Duration::from_millis(1500), Action::kill("a"));
        let text =
            r#"{"seed":null,"steps":[[{"secs":1,"nanos":500000000},{"Kill":{"node":"a"}}]]}"#;
        assert_eq!(serde_json::to_string(&script).unwrap(), text);
        // What a policy does not say is sound.
        let text = r#"{"Wire":{"wire":"w","from":"a","to":"b","policy":{"loss":0.5}}}"#;
        let lossy = Action::wire("w", "a", "b", Policy::new().loss(0.5));
        assert_eq!(serde_json::from_str::<Action>(text).unwrap(), lossy);
    }

    #[test]
    fn steps_are_in_the_order_of_time() {
        let second = Duration::from_secs(1);
        let schedule = Schedule::new()
            .at(2 * second, Action::boot("a"))
            .at(second, Action::kill("a"))
            .at(2 * second, Action::shift_clock("b", -5));
        assert_eq!(
            schedule.to_string(),
            "   1.000 a: node loss\n   2.000 a: boot\n   2.000 b: clock -5 ms\n"
        );
    }
}
