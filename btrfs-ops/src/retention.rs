//! Which snapshots to keep. Pure: items, a policy and a time in, a verdict with
//! its reasons for each item out. Nothing is deleted here.
//!
//! Two policies: [`Schedule`] thins out by calendar, as btrbk does (so many
//! hourly, daily, weekly, monthly, yearly ones back from now, and everything
//! younger than a minimum). [`Limits`] keeps numbers, as snapper does (so many
//! of what exists, with ranges for when space is scarce).
//!
//! ```
//! use btrfs_ops::retention::{Item, Schedule};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now: jiff::Zoned = "2026-03-10T12:00:00+01:00[Europe/Berlin]".parse()?;
//! let items: Vec<_> = (0..100)
//!     .map(|day| Item::new(day, now.timestamp() - jiff::Span::new().hours(24 * day)))
//!     .collect();
//! let policy: Schedule = "min 2d, 7d 4w".parse()?;
//! let verdicts = policy.judge(&items, &now);
//! let kept: Vec<_> = verdicts.iter().filter(|v| v.keep()).map(|v| v.key).collect();
//! assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 9, 16, 23]);
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;

use jiff::civil::{DateTime, Weekday, date};
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::error::{Error, ErrorKind, Result};

/// Something that may be deleted one day.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item<K> {
    /// What it is to the caller.
    pub key: K,
    /// When it was taken.
    pub taken: Timestamp,
    /// Counted by the limits for important ones ([`Limits`] only).
    pub important: bool,
    /// Must be kept, and why.
    pub pin: Option<Pin>,
}

impl<K> Item<K> {
    /// An item that is neither important nor pinned.
    pub fn new(key: K, taken: Timestamp) -> Self {
        Self {
            key,
            taken,
            important: false,
            pin: None,
        }
    }

    /// The same item, counted as important.
    #[must_use]
    pub fn important(mut self) -> Self {
        self.important = true;
        self
    }

    /// The same item, to be kept whatever the policy says.
    #[must_use]
    pub fn pinned(mut self, pin: Pin) -> Self {
        self.pin = Some(pin);
        self
    }
}

/// Why an item must be kept whatever the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Pin {
    /// The last one that a target has too: without it, all has to be sent again.
    LastCommon,
    /// A bare mount of the file system shows it.
    DefaultSubvolume,
    /// It is mounted.
    Mounted,
    /// It is being sent.
    BeingSent,
    /// Somebody said so.
    ByHand,
}

/// Why a verdict is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Reason {
    /// Kept: pinned.
    Pinned(Pin),
    /// Kept: taken in the future, so the clock was or is wrong.
    InTheFuture,
    /// Kept: younger than the minimum.
    Young,
    /// Kept: the newest one.
    Latest,
    /// Kept: everything is.
    Everything,
    /// Kept: the first of an hour.
    Hourly,
    /// Kept: the first of a day.
    Daily,
    /// Kept: the first of a week.
    Weekly,
    /// Kept: the first of a month.
    Monthly,
    /// Kept: the first of a quarter ([`Limits`] only).
    Quarterly,
    /// Kept: the first of a year.
    Yearly,
    /// Kept: among the newest, by number.
    Number,
    /// Kept: among the newest important ones, by number.
    Important,
    /// To be deleted: nothing asks for it.
    NotAskedFor,
}

/// What a policy says of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Verdict<K> {
    /// The item's.
    pub key: K,
    /// All that asks for keeping it, or [`Reason::NotAskedFor`] alone.
    pub reasons: Vec<Reason>,
}

impl<K> Verdict<K> {
    /// Is it to be kept?
    pub fn keep(&self) -> bool {
        self.reasons != [Reason::NotAskedFor]
    }
}

/// How many periods back, the present one included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Count {
    /// None at all.
    #[default]
    None,
    /// This many: of days, 1 is today.
    Last(u32),
    /// However old.
    All,
}

impl Count {
    fn covers(self, back: i64) -> bool {
        match self {
            Self::None => false,
            Self::Last(count) => back < i64::from(count),
            Self::All => true,
        }
    }
}

/// The least that a [`Schedule`] keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Minimum {
    /// Everything: the schedule deletes nothing.
    #[default]
    All,
    /// The newest one.
    Latest,
    /// Nothing.
    No,
    /// Everything of the last so many hours.
    Hours(u32),
}

/// By calendar, in the time zone of "now". An item is hourly if it is the first
/// of its hour, daily if it is the first of its day, weekly if it is the first
/// daily one of its week, monthly if it is the first weekly one of its month,
/// yearly if it is the first monthly one of its year. The default keeps
/// everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Schedule {
    /// The least that is kept.
    pub minimum: Minimum,
    /// Hourly ones.
    pub hourly: Count,
    /// Daily ones.
    pub daily: Count,
    /// Weekly ones.
    pub weekly: Count,
    /// Monthly ones.
    pub monthly: Count,
    /// Yearly ones.
    pub yearly: Count,
    /// The hour that days begin at, 0 to 23.
    pub hour_of_day: i8,
    /// The day that weeks begin at, 0 for Monday to 6 for Sunday.
    pub day_of_week: i8,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            minimum: Minimum::All,
            hourly: Count::None,
            daily: Count::None,
            weekly: Count::None,
            monthly: Count::None,
            yearly: Count::None,
            hour_of_day: 0,
            day_of_week: 6,
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    /// Reads `min MINIMUM, COUNTS`: the minimum is `all`, `latest`, `no`, or a
    /// number with `h`, `d`, `w`, `m` or `y`; counts are numbers, or `*`, with
    /// the same letters. Either part may be left out; without a minimum it is
    /// `latest`. Example: `min 2d, 14d 8w *m`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |part: &str| {
            let text = format!("{part:?} is not like \"min 2d\" or \"14d 8w *m\"");
            Error::message(ErrorKind::InvalidName, "retention policy", part, text)
        };
        let mut schedule = Self {
            minimum: Minimum::Latest,
            ..Self::default()
        };
        let mut words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let mut any = false;
        while let Some(word) = words.next() {
            any = true;
            if word == "min" {
                let word = words.next().ok_or_else(|| wrong(text))?;
                schedule.minimum = match word {
                    "all" => Minimum::All,
                    "latest" => Minimum::Latest,
                    "no" => Minimum::No,
                    _ => {
                        let (count, unit) = counted(word).ok_or_else(|| wrong(word))?;
                        let Count::Last(count) = count else {
                            return Err(wrong(word));
                        };
                        let hours = match unit {
                            'h' => 1,
                            'd' => 24,
                            'w' => 24 * 7,
                            'm' => 24 * 31,
                            _ => 24 * 366,
                        };
                        Minimum::Hours(count.checked_mul(hours).ok_or_else(|| wrong(word))?)
                    }
                };
                continue;
            }
            let (count, unit) = counted(word).ok_or_else(|| wrong(word))?;
            let place = match unit {
                'h' => &mut schedule.hourly,
                'd' => &mut schedule.daily,
                'w' => &mut schedule.weekly,
                'm' => &mut schedule.monthly,
                _ => &mut schedule.yearly,
            };
            *place = count;
        }
        if any { Ok(schedule) } else { Err(wrong(text)) }
    }
}

impl fmt::Display for Schedule {
    /// The form that [`FromStr`] reads; without the hour and the day.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minimum {
            Minimum::All => f.write_str("min all")?,
            Minimum::Latest => f.write_str("min latest")?,
            Minimum::No => f.write_str("min no")?,
            Minimum::Hours(hours) => write!(f, "min {hours}h")?,
        }
        for (count, unit) in [
            (self.hourly, 'h'),
            (self.daily, 'd'),
            (self.weekly, 'w'),
            (self.monthly, 'm'),
            (self.yearly, 'y'),
        ] {
            match count {
                Count::None => {}
                Count::Last(count) => write!(f, " {count}{unit}")?,
                Count::All => write!(f, " *{unit}")?,
            }
        }
        Ok(())
    }
}

fn counted(word: &str) -> Option<(Count, char)> {
    let unit = word.chars().last().filter(|unit| "hdwmy".contains(*unit))?;
    // The unit is one byte.
    let count = match &word[..word.len() - 1] {
        "*" => Count::All,
        number => Count::Last(number.parse().ok()?),
    };
    Some((count, unit))
}

/// Which hour, day, week, month and year a time is in, counted from some start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Periods {
    hour: i64,
    day: i64,
    week: i64,
    month: i64,
    quarter: i64,
    year: i64,
}

impl Periods {
    fn of(time: DateTime, hour_of_day: i8, day_of_week: i8) -> Self {
        let epoch = date(1970, 1, 1);
        let days = |time: DateTime| time.date().duration_since(epoch).as_hours().div_euclid(24);
        let shift = SignedDuration::from_hours(i64::from(hour_of_day.clamp(0, 23)));
        let shifted = time.checked_sub(shift).unwrap_or(time);
        let day = days(shifted);
        let month = i64::from(shifted.year()) * 12 + i64::from(shifted.month()) - 1;
        // The first day of 1970 was a Thursday, 3 days after a Monday.
        let monday = i64::from(Weekday::Thursday.since(Weekday::Monday));
        Self {
            hour: days(time) * 24 + i64::from(time.hour()),
            day,
            week: (day + monday - i64::from(day_of_week.clamp(0, 6))).div_euclid(7),
            month,
            quarter: month.div_euclid(3),
            year: i64::from(shifted.year()),
        }
    }
}

/// Items by age with a list of reasons each, which becomes the verdicts.
struct Ledger<'a, K> {
    items: &'a [Item<K>],
    /// Indexes into `items`, the oldest first; without those in the future.
    by_age: Vec<usize>,
    reasons: Vec<Vec<Reason>>,
}

impl<'a, K: Clone> Ledger<'a, K> {
    fn new(items: &'a [Item<K>], now: Timestamp) -> Self {
        let mut ledger = Self {
            items,
            by_age: Vec::new(),
            reasons: vec![Vec::new(); items.len()],
        };
        for (i, item) in items.iter().enumerate() {
            if let Some(pin) = item.pin {
                ledger.reasons[i].push(Reason::Pinned(pin));
            }
            if item.taken > now {
                ledger.reasons[i].push(Reason::InTheFuture);
            } else {
                ledger.by_age.push(i);
            }
        }
        ledger.by_age.sort_by_key(|&i| (items[i].taken, i));
        ledger
    }

    fn keep(&mut self, index: usize, reason: Reason) {
        if let Some(reasons) = self.reasons.get_mut(index) {
            reasons.push(reason);
        }
    }

    fn close(self) -> Vec<Verdict<K>> {
        let verdict = |(item, mut reasons): (&Item<K>, Vec<Reason>)| {
            if reasons.is_empty() {
                reasons.push(Reason::NotAskedFor);
            }
            Verdict {
                key: item.key.clone(),
                reasons,
            }
        };
        self.items.iter().zip(self.reasons).map(verdict).collect()
    }
}

/// The first of each period, in the order given.
fn firsts(order: &[usize], period: impl Fn(usize) -> i64) -> Vec<usize> {
    let mut seen = HashSet::new();
    order
        .iter()
        .copied()
        .filter(|&i| seen.insert(period(i)))
        .collect()
}

impl Schedule {
    /// Judges every item, in the order given. Ages are those of the calendar, in
    /// the time zone of `now`.
    #[must_use]
    pub fn judge<K: Clone>(&self, items: &[Item<K>], now: &Zoned) -> Vec<Verdict<K>> {
        let mut ledger = Ledger::new(items, now.timestamp());
        let of = |time: DateTime| Periods::of(time, self.hour_of_day, self.day_of_week);
        let zone = now.time_zone();
        let periods: Vec<_> = items
            .iter()
            .map(|item| of(zone.to_datetime(item.taken)))
            .collect();
        let present = of(now.datetime());
        let order = ledger.by_age.clone();
        let hourly = firsts(&order, |i| periods[i].hour);
        let daily = firsts(&order, |i| periods[i].day);
        let weekly = firsts(&daily, |i| periods[i].week);
        let monthly = firsts(&weekly, |i| periods[i].month);
        let yearly = firsts(&monthly, |i| periods[i].year);
        for (kept, count, reason, back) in [
            (
                &hourly,
                self.hourly,
                Reason::Hourly,
                (|a, b| a.hour - b.hour) as fn(Periods, Periods) -> i64,
            ),
            (&daily, self.daily, Reason::Daily, |a, b| a.day - b.day),
            (&weekly, self.weekly, Reason::Weekly, |a, b| a.week - b.week),
            (&monthly, self.monthly, Reason::Monthly, |a, b| {
                a.month - b.month
            }),
            (&yearly, self.yearly, Reason::Yearly, |a, b| a.year - b.year),
        ] {
            for &i in kept
                .iter()
                .filter(|&&i| count.covers(back(present, periods[i])))
            {
                ledger.keep(i, reason);
            }
        }
        match self.minimum {
            Minimum::No => {}
            Minimum::All => order
                .iter()
                .for_each(|&i| ledger.keep(i, Reason::Everything)),
            Minimum::Latest => {
                if let Some(&last) = order.last() {
                    ledger.keep(last, Reason::Latest);
                }
            }
            Minimum::Hours(hours) => {
                let limit = SignedDuration::from_hours(hours.into());
                for &i in &order {
                    if now.timestamp().duration_since(items[i].taken) < limit {
                        ledger.keep(i, Reason::Young);
                    }
                }
            }
        }
        ledger.close()
    }
}

/// A number, or a range of them: the lower end holds when space is scarce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Range {
    /// When space is scarce.
    pub least: u32,
    /// Otherwise.
    pub most: u32,
}

impl Range {
    /// The same number always.
    #[must_use]
    pub const fn exactly(number: u32) -> Self {
        Self {
            least: number,
            most: number,
        }
    }

    fn now(self, scarce: bool) -> usize {
        let number = if scarce {
            self.least.min(self.most)
        } else {
            self.most
        };
        usize::try_from(number).unwrap_or(usize::MAX)
    }
}

/// By number, counting what exists and not what the calendar has. The default
/// keeps nothing that is not pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Limits {
    /// The newest ones that are not important (`NUMBER_LIMIT`).
    pub number: Range,
    /// The newest important ones (`NUMBER_LIMIT_IMPORTANT`).
    pub important: Range,
    /// The newest ones that are the first of an hour (`TIMELINE_LIMIT_HOURLY`).
    pub hourly: Range,
    /// Of a day.
    pub daily: Range,
    /// Of a week, which begins on Monday.
    pub weekly: Range,
    /// Of a month.
    pub monthly: Range,
    /// Of a quarter.
    pub quarterly: Range,
    /// Of a year.
    pub yearly: Range,
    /// Nothing younger than this is deleted, in seconds (`..._MIN_AGE`).
    pub minimum_age: u64,
}

impl Limits {
    /// Judges every item, in the order given; `scarce` says that the lower ends
    /// of ranges hold.
    #[must_use]
    pub fn judge<K: Clone>(&self, items: &[Item<K>], now: &Zoned, scarce: bool) -> Vec<Verdict<K>> {
        let mut ledger = Ledger::new(items, now.timestamp());
        let zone = now.time_zone();
        let periods: Vec<_> = items
            .iter()
            .map(|item| Periods::of(zone.to_datetime(item.taken), 0, 0))
            .collect();
        let order = ledger.by_age.clone();
        for (range, reason, period) in [
            (
                self.hourly,
                Reason::Hourly,
                (|p| p.hour) as fn(Periods) -> i64,
            ),
            (self.daily, Reason::Daily, |p| p.day),
            (self.weekly, Reason::Weekly, |p| p.week),
            (self.monthly, Reason::Monthly, |p| p.month),
            (self.quarterly, Reason::Quarterly, |p| p.quarter),
            (self.yearly, Reason::Yearly, |p| p.year),
        ] {
            let first = firsts(&order, |i| period(periods[i]));
            for &i in first.iter().rev().take(range.now(scarce)) {
                ledger.keep(i, reason);
            }
        }
        let mut left = BTreeMap::from([
            (false, self.number.now(scarce)),
            (true, self.important.now(scarce)),
        ]);
        let age = SignedDuration::from_secs(i64::try_from(self.minimum_age).unwrap_or(i64::MAX));
        for &i in order.iter().rev() {
            let important = items[i].important;
            if let Some(left) = left.get_mut(&important).filter(|left| **left > 0) {
                *left -= 1;
                ledger.keep(
                    i,
                    if important {
                        Reason::Important
                    } else {
                        Reason::Number
                    },
                );
            }
            if now.timestamp().duration_since(items[i].taken) < age {
                ledger.keep(i, Reason::Young);
            }
        }
        ledger.close()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use jiff::ToSpan;
    use proptest::prelude::*;

    fn now() -> Zoned {
        "2026-03-31T10:30:00+02:00[Europe/Berlin]".parse().unwrap()
    }

    fn items(hours: &[i64]) -> Vec<Item<i64>> {
        let at = |&h: &i64| Item::new(h, now().timestamp() - h.hours());
        hours.iter().map(at).collect()
    }

    fn kept(verdicts: &[Verdict<i64>]) -> Vec<i64> {
        verdicts
            .iter()
            .filter(|v| v.keep())
            .map(|v| v.key)
            .collect()
    }

    #[test]
    fn by_calendar() {
        // Every six hours for 100 days.
        let all = items(&(0..400).map(|i| i * 6).collect::<Vec<_>>());
        let judge = |policy: &str| {
            let policy: Schedule = policy.parse().unwrap();
            kept(&policy.judge(&all, &now()))
        };
        // At 04:30 and every six hours after: the first of each day is at 04:30,
        // before the change of clocks on the 29th at 03:30.
        assert_eq!(judge("min no, 3d"), [6, 30, 54]);
        assert_eq!(judge("min latest, 1d"), [0, 6]);
        assert_eq!(judge("min 12h"), [0, 6]);
        assert_eq!(judge("min no, 2h"), [0]);
        assert_eq!(judge("min no, 7h"), [0, 6]);
        // Weeks begin on Sunday: the 29th, the 22nd, the 15th.
        assert_eq!(judge("min no, 3w"), [54, 222, 390]);
        // March begins with the weekly one of the 1st, February with that of the 1st.
        let monthly = judge("min no, 2m");
        let dates: Vec<_> = monthly
            .iter()
            .map(|h| (now() - h.hours()).date().to_string())
            .collect();
        assert_eq!(monthly.len(), 2, "{dates:?}");
        assert_eq!(dates, ["2026-03-01", "2026-02-01"]);
        assert_eq!(judge("min no, *y").len(), 2, "2025 and 2026");
        assert_eq!(judge("min all").len(), 400);
        assert!(judge("min no").is_empty());
    }

    #[test]
    fn pins_and_the_future() {
        let mut all = items(&[0, 1, -5]);
        all[1] = all[1].clone().pinned(Pin::LastCommon);
        let policy: Schedule = "min no".parse().unwrap();
        let verdicts = policy.judge(&all, &now());
        assert_eq!(verdicts[0].reasons, [Reason::NotAskedFor]);
        assert_eq!(verdicts[1].reasons, [Reason::Pinned(Pin::LastCommon)]);
        assert_eq!(verdicts[2].reasons, [Reason::InTheFuture]);
    }

    #[test]
    fn by_number() {
        let mut all = items(&[1, 2, 3, 4, 5, 6, 7, 8]);
        all[4] = all[4].clone().important();
        let limits = Limits {
            number: Range { least: 1, most: 3 },
            important: Range::exactly(2),
            minimum_age: 90 * 60,
            ..Limits::default()
        };
        assert_eq!(kept(&limits.judge(&all, &now(), false)), [1, 2, 3, 5]);
        assert_eq!(kept(&limits.judge(&all, &now(), true)), [1, 5]);
        let timeline = Limits {
            daily: Range::exactly(2),
            ..Limits::default()
        };
        // It skips days without any.
        let sparse = items(&[1, 2, 240, 241]);
        assert_eq!(kept(&timeline.judge(&sparse, &now(), false)), [2, 241]);
    }

    #[test]
    fn policies_are_read() {
        for text in ["min 48h 14d 8w *m", "min latest 1y", "min all", "min no *h"] {
            let policy: Schedule = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
        }
        assert_eq!("7d".parse::<Schedule>().unwrap().minimum, Minimum::Latest);
        for wrong in [
            "",
            " ,",
            "min",
            "min *d",
            "7",
            "d",
            "-1d",
            "7x",
            "4294967296d",
            "min 4294967295y",
            "é",
        ] {
            let error = wrong.parse::<Schedule>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{wrong:?}");
        }
    }

    fn count() -> impl Strategy<Value = Count> {
        prop_oneof![
            Just(Count::None),
            (0u32..20).prop_map(Count::Last),
            Just(Count::All)
        ]
    }

    fn schedule() -> impl Strategy<Value = Schedule> {
        let minimum = prop_oneof![
            Just(Minimum::No),
            Just(Minimum::Latest),
            (0u32..100).prop_map(Minimum::Hours)
        ];
        (
            minimum,
            [count(), count(), count(), count(), count()],
            0i8..24,
            0i8..7,
        )
            .prop_map(
                |(minimum, [hourly, daily, weekly, monthly, yearly], hour_of_day, day_of_week)| {
                    Schedule {
                        minimum,
                        hourly,
                        daily,
                        weekly,
                        monthly,
                        yearly,
                        hour_of_day,
                        day_of_week,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn schedules_hold(
            minutes in proptest::collection::vec(-100i64..2_000_000, 0..60),
            pins in proptest::collection::vec(any::<bool>(), 60),
            policy in schedule(),
        ) {
            let now = now();
            let all: Vec<_> = minutes.iter().zip(&pins).enumerate().map(|(i, (m, pin))| {
                let mut item = Item::new(i, now.timestamp() - m.minutes());
                item.pin = pin.then_some(Pin::ByHand);
                item
            }).collect();
            let verdicts = policy.judge(&all, &now);
            // One verdict each, in order, with a reason; pins and the future stay.
            prop_assert_eq!(verdicts.len(), all.len());
            for (item, verdict) in all.iter().zip(&verdicts) {
                prop_assert_eq!(item.key, verdict.key);
                prop_assert!(!verdict.reasons.is_empty());
                prop_assert!(verdict.keep() || !verdict.reasons.is_empty());
                prop_assert!(verdict.keep() || (item.pin.is_none() && item.taken <= now.timestamp()));
                prop_assert!(!verdict.reasons.contains(&Reason::NotAskedFor) || verdict.reasons.len() == 1);
            }
            // Deleting what it says and asking again deletes nothing more. (A pinned one that was not the
            // first of its week can become it, and stand for its month, when the first is gone.)
            let free: Vec<_> = all.iter().map(|i| Item { pin: None, ..i.clone() }).collect();
            let judged = policy.judge(&free, &now);
            let left: Vec<_> = free.iter().zip(&judged).filter(|(_, v)| v.keep()).map(|(i, _)| i.clone()).collect();
            prop_assert!(policy.judge(&left, &now).iter().all(Verdict::keep));
            // The order of the items does not matter.
            let mut turned = all.clone();
            turned.reverse();
            let mut again = policy.judge(&turned, &now);
            again.reverse();
            let same_times = minutes.iter().collect::<HashSet<_>>().len() < minutes.len();
            if !same_times {
                prop_assert_eq!(&again, &verdicts);
            }
            // More of everything never deletes what less of it keeps.
            let more = |count| match count { Count::Last(n) => Count::Last(n + 3), other => other };
            let wider = Schedule {
                hourly: more(policy.hourly), daily: more(policy.daily), weekly: more(policy.weekly),
                monthly: more(policy.monthly), yearly: more(policy.yearly), ..policy
            };
            for (narrow, wide) in verdicts.iter().zip(wider.judge(&all, &now)) {
                prop_assert!(!narrow.keep() || wide.keep());
            }
        }

        #[test]
        fn limits_hold(
            minutes in proptest::collection::vec(0i64..2_000_000, 0..60),
            numbers in proptest::array::uniform8(0u32..8),
            age in 0u64..100_000,
            scarce in any::<bool>(),
        ) {
            let now = now();
            let all: Vec<_> = minutes.iter().enumerate().map(|(i, m)| {
                let item = Item::new(i, now.timestamp() - m.minutes());
                if i % 3 == 0 { item.important() } else { item }
            }).collect();
            let [number, important, hourly, daily, weekly, monthly, quarterly, yearly] =
                numbers.map(|most| Range { least: most / 2, most });
            let limits = Limits { number, important, hourly, daily, weekly, monthly, quarterly, yearly, minimum_age: age };
            let verdicts = limits.judge(&all, &now, scarce);
            prop_assert_eq!(verdicts.len(), all.len());
            let by = |reason| verdicts.iter().filter(|v| v.reasons.contains(&reason)).count();
            for (range, reason) in [
                (number, Reason::Number), (important, Reason::Important), (hourly, Reason::Hourly),
                (daily, Reason::Daily), (weekly, Reason::Weekly), (monthly, Reason::Monthly),
                (quarterly, Reason::Quarterly), (yearly, Reason::Yearly),
            ] {
                prop_assert!(by(reason) <= range.now(scarce));
            }
            // Scarcity only takes away.
            let plenty = limits.judge(&all, &now, false);
            for (verdict, more) in verdicts.iter().zip(plenty) {
                prop_assert!(!verdict.keep() || more.keep());
            }
        }
    }
}
