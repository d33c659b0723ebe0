//! How far a resync is: a bar on a terminal, lines elsewhere, events with `--json`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::output::Output;

/// The rate is that of the last seconds, as a resync changes its own.
const WINDOW: Duration = Duration::from_secs(10);

/// Watches what is left become less.
pub(crate) struct Progress {
    begun: Instant,
    bar: Option<ProgressBar>,
    /// The most that was left so far.
    total: u64,
    seen: Vec<(Instant, u64)>,
}

impl Progress {
    pub(crate) fn new(output: &Output) -> Self {
        let bar = (!output.is_json() && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Progress {
            begun: Instant::now(),
            bar,
            total: 0,
            seen: Vec::new(),
        }
    }

    /// Shows how many KiB are left, if that is news.
    pub(crate) fn shows(&mut self, left: u64, connected: bool, output: &Output) {
        let now = Instant::now();
        if self.seen.last().is_some_and(|(_, last)| *last == left) {
            return;
        }
        self.total = self.total.max(left);
        self.seen.push((now, left));
        self.seen
            .retain(|(at, _)| now.duration_since(*at) <= WINDOW);
        let rate = self
            .seen
            .first()
            .and_then(|(at, was)| rate(was.saturating_sub(left), now.duration_since(*at)));
        let eta = rate.filter(|r| *r > 0).map(|rate| left / rate);
        output.event(&json!({
            "event": "sync", "out_of_sync_kib": left, "connected": connected,
            "kib_per_s": rate, "eta_s": eta,
            "at_ms": u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        }));
        let mut text = format!("{left} KiB out of sync");
        if let Some(rate) = rate {
            text.push_str(&format!(", {rate} KiB/s"));
        }
        if let Some(eta) = eta {
            text.push_str(&format!(", {eta} s to go"));
        }
        match &self.bar {
            Some(bar) => {
                bar.set_length(self.total);
                bar.set_position(self.total - left);
                bar.set_message(text);
            }
            None => output.say(&text),
        }
    }

    pub(crate) fn ends(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// KiB a second; not known before some time has passed.
fn rate(kib: u64, time: Duration) -> Option<u64> {
    let ms = u64::try_from(time.as_millis())
        .ok()
        .filter(|ms| *ms >= 100)?;
    kib.checked_mul(1000).map(|k| k / ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate(1000, Duration::from_millis(99)), None);
        assert_eq!(rate(1000, Duration::from_millis(500)), Some(2000));
        assert_eq!(rate(0, Duration::from_secs(1)), Some(0));
        assert_eq!(rate(u64::MAX, Duration::from_secs(1)), None);
    }
}
