//! What a wire does to the frames of one direction.

use std::fmt;
use std::time::{Duration, Instant};

use crate::random::Random;

/// Bytes that wait for a wire with a rate; more are dropped.
const BACKLOG: f64 = 256.0 * 1500.0;

/// What happens to the frames from one node to another, for
/// [`Wire::set`](crate::Wire::set). The default is a sound wire.
///
/// ```
/// use std::time::Duration;
/// use uml_lab::Policy;
///
/// let satellite = Policy::new().delay(Duration::from_millis(250)).loss(0.01).seed(7);
/// let narrow = Policy::new().rate(125_000); // 1 Mbit/s
/// # drop((satellite, narrow));
/// ```
///
/// What happens to the first, second, third frame after the policy was set is
/// determined by its seed: with the same seed the same ones are lost, late or
/// doubled. Which frame is the first depends on the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[must_use = "a policy is given to `Wire::set`"]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct Policy {
    pub(crate) cut: bool,
    delay: Duration,
    jitter: Duration,
    loss: f64,
    duplicate: f64,
    reorder: f64,
    late: Duration,
    rate: u64,
    up: Duration,
    down: Duration,
    seed: u64,
}

impl Policy {
    /// A sound wire.
    pub fn new() -> Self {
        Policy::default()
    }

    /// Drops every frame.
    pub fn cut(mut self) -> Self {
        self.cut = true;
        self
    }

    /// Delivers each frame so much later.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Varies the delay by up to so much in either direction. Frames keep their
    /// order.
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// Drops frames with this probability, from 0 to 1.
    pub fn loss(mut self, probability: f64) -> Self {
        self.loss = probability;
        self
    }

    /// Delivers frames twice with this probability, from 0 to 1.
    pub fn duplicate(mut self, probability: f64) -> Self {
        self.duplicate = probability;
        self
    }

    /// Delivers frames later by `late` with this probability, from 0 to 1, so
    /// that those sent meanwhile overtake them.
    pub fn reorder(mut self, probability: f64, late: Duration) -> Self {
        self.reorder = probability;
        self.late = late;
        self
    }

    /// Carries so many bytes a second, headers included; 0 is no limit. What
    /// does not fit waits, up to 384 000 bytes, then it is dropped.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = bytes_per_second;
        self
    }

    /// Carries for the time `up`, drops for the time `down`, and so on, counted
    /// from when the policy is set. Without `down` it is always up.
    pub fn flap(mut self, up: Duration, down: Duration) -> Self {
        self.up = up;
        self.down = down;
        self
    }

    /// Sets the seed of everything that has a probability. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        let percent = |probability: f64| format!("{} %", probability * 100.0);
        if self.cut {
            words.push("cut".to_owned());
        }
        if !self.delay.is_zero() {
            words.push(format!("delay {:?}", self.delay));
        }
        if !self.jitter.is_zero() {
            words.push(format!("jitter {:?}", self.jitter));
        }
        if self.loss > 0.0 {
            words.push(format!("loss {}", percent(self.loss)));
        }
        if self.duplicate > 0.0 {
            words.push(format!("duplicate {}", percent(self.duplicate)));
        }
        if self.reorder > 0.0 {
            words.push(format!(
                "reorder {} by {:?}",
                percent(self.reorder),
                self.late
            ));
        }
        if self.rate > 0 {
            words.push(format!("rate {} bytes/s", self.rate));
        }
        if !self.down.is_zero() {
            words.push(format!("flap up {:?}, down {:?}", self.up, self.down));
        }
        if words.is_empty() {
            return f.write_str("sound");
        }
        if self.seed != 0 {
            words.push(format!("seed {}", self.seed));
        }
        f.write_str(&words.join(", "))
    }
}

/// One direction of a wire at work.
#[derive(Debug)]
pub(crate) struct Direction {
    policy: Policy,
    random: Random,
    since: Instant,
    /// When the wire has carried what it was given, if it has a rate.
    free: Instant,
    /// When the last frame that keeps the order is delivered.
    last: Instant,
}

/// When to deliver a frame, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) copies: usize,
    pub(crate) due: Instant,
}

impl Direction {
    /// A sound direction.
    pub(crate) fn new(now: Instant) -> Self {
        Direction {
            policy: Policy::default(),
            random: Random::new(0),
            since: now,
            free: now,
            last: now,
        }
    }

    /// Sets what happens from now on; frames under way keep their time. `salt`
    /// makes directions with one seed differ.
    pub(crate) fn set(&mut self, policy: Policy, salt: u64, now: Instant) {
        self.policy = policy;
        self.random = Random::new(policy.seed ^ salt << 48);
        self.since = now;
        self.free = self.free.min(now);
    }

    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// Decides on the next frame; `None` drops it.
    pub(crate) fn judge(&mut self, length: usize, now: Instant) -> Option<Fate> {
        // Always as many draws, so that one setting does not change the
        // decisions of another.
        let [loss, duplicate, reorder, jitter] = [(); 4].map(|()| self.random.unit());
        let policy = &self.policy;
        if policy.cut || self.is_down(now) || loss < policy.loss {
            return None;
        }
        let mut due = now;
        if policy.rate > 0 {
            let start = self.free.max(now);
            let backlog = (start - now).as_secs_f64() * policy.rate as f64;
            if backlog > BACKLOG {
                return None;
            }
            self.free = start + Duration::from_secs_f64(length as f64 / policy.rate as f64);
            due = self.free;
        }
        // A time that is beyond all clocks is never.
        due = due.checked_add(policy.delay)?;
        let by = policy.jitter.mul_f64((jitter - 0.5).abs() * 2.0);
        due = if jitter < 0.5 {
            due.checked_sub(by).unwrap_or(now).max(now)
        } else {
            due.checked_add(by)?
        };
        due = due.max(self.last);
        if reorder < policy.reorder {
            // Not `last`: those behind it do not wait for it.
            due = due.checked_add(policy.late)?;
        } else {
            self.last = due;
        }
        Some(Fate {
            copies: if duplicate < policy.duplicate { 2 } else { 1 },
            due,
        })
    }

    fn is_down(&self, now: Instant) -> bool {
        let period = self.policy.up.saturating_add(self.policy.down);
        let (period, up) = (period.as_nanos(), self.policy.up.as_nanos());
        !self.policy.down.is_zero() && (now - self.since).as_nanos() % period >= up
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Fates of frames sent one a millisecond, as delays in milliseconds.
    fn fates(policy: Policy, count: u32) -> Vec<Option<(usize, u128)>> {
        let start = Instant::now();
        let mut direction = Direction::new(start);
        direction.set(policy, 1, start);
        (0..count)
            .map(|n| {
                let now = start + MS * n;
                let fate = direction.judge(1000, now)?;
                Some((fate.copies, (fate.due - now).as_millis()))
            })
            .collect()
    }

    #[test]
    fn a_sound_wire_does_nothing() {
        assert!(fates(Policy::new(), 100).iter().all(|f| *f == Some((1, 0))));
        assert!(fates(Policy::new().cut(), 100).iter().all(Option::is_none));
        let (nan, never) = (f64::NAN, Duration::MAX);
        let odd = Policy::new().loss(nan).duplicate(-1.0).reorder(2.0, never);
        fates(odd.jitter(never).delay(never).flap(never, never), 100);
    }

    #[test]
    fn probabilities_are_kept_and_seeds_repeat() {
        let policy = Policy::new().loss(0.3).duplicate(0.2).seed(5);
        let all = fates(policy, 10_000);
        assert_eq!(all, fates(policy, 10_000));
        assert_ne!(all, fates(policy.seed(6), 10_000));
        let lost = all.iter().filter(|fate| fate.is_none()).count();
        let twice = all.iter().flatten().filter(|fate| fate.0 == 2).count();
        assert!((2700..3300).contains(&lost), "{lost}");
        assert!((1200..1600).contains(&twice), "{twice}");
        // Another setting does not change which ones are lost.
        let slow = fates(policy.delay(9 * MS).duplicate(0.0), 10_000);
        let lost = |fates: &[Option<_>]| fates.iter().map(Option::is_none).collect::<Vec<_>>();
        assert_eq!(lost(&all), lost(&slow));
        assert!(
            fates(Policy::new().loss(1.0), 100)
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn jitter_keeps_the_order_and_reorder_does_not() {
        let arrivals = |policy| {
            let fates = fates(policy, 1000);
            let sent = fates.into_iter().flatten().zip(0..);
            sent.map(|((_, late), n)| late + n).collect::<Vec<u128>>()
        };
        let ordered = arrivals(Policy::new().delay(20 * MS).jitter(15 * MS));
        assert!(ordered.is_sorted());
        let delays: Vec<u128> = ordered.iter().zip(0..).map(|(at, n)| at - n).collect();
        assert!(delays.iter().all(|late| (5..=35).contains(late)));
        assert!(delays.iter().any(|late| *late > 25) && delays.iter().any(|late| *late < 20));
        let mixed = arrivals(Policy::new().reorder(0.1, 5 * MS));
        let overtaken = mixed.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!((50..150).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn a_rate_is_kept_and_what_is_too_much_is_dropped() {
        // 1000 bytes a millisecond over a wire of half of that.
        let all = fates(Policy::new().rate(500_000), 10_000);
        assert_eq!(all[0], Some((1, 2)));
        assert!(all.iter().any(Option::is_none));
        let carried = all.iter().flatten().count();
        // Half of them, and what waits at the end.
        assert!((5_000..5_800).contains(&carried), "{carried}");
        let latest = all.iter().flatten().map(|fate| fate.1).max().unwrap();
        assert!(latest <= 384_000 / 500 + 4, "{latest}");
    }

    #[test]
    fn flapping_begins_with_up() {
        let all = fates(Policy::new().flap(30 * MS, 20 * MS), 200);
        for (n, fate) in all.iter().enumerate() {
            assert_eq!(fate.is_some(), n % 50 < 30, "{n}");
        }
        assert!(
            fates(Policy::new().flap(30 * MS, Duration::ZERO), 99)
                .iter()
                .all(Option::is_some)
        );
        assert!(
            fates(Policy::new().flap(Duration::ZERO, MS), 99)
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn a_policy_is_shown_in_words() {
        assert_eq!(Policy::new().to_string(), "sound");
        let policy = Policy::new().delay(20 * MS).loss(0.25).seed(3);
        assert_eq!(policy.to_string(), "delay 20ms, loss 25 %, seed 3");
    }
}
