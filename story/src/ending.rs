//! How a story ended: the verdict, the downtimes and the timeline, as text, JSON and SVG.

use std::fmt;

use serde::Serialize;

use crate::play::Step;
use crate::verdict::Verdict;

/// Why a service gave no answer for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It was moved.
    Planned,
    /// It was moved by hand, with the commands of the post.
    ByHand,
    /// The node that served it was lost.
    NodeLoss,
}

/// The longest time without an answer around one event, as the client saw it.
#[derive(Clone, Debug, Serialize)]
pub struct Downtime {
    /// What happened.
    pub cause: Cause,
    /// Whose answers were missing.
    pub service: &'static str,
    /// For how many milliseconds.
    pub ms: u64,
}

/// How the story ended.
#[derive(Debug, Serialize)]
pub struct Ending {
    /// The verdict's columns.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The first planned handover's downtime.
    pub handover_downtime_ms: Option<u64>,
    /// The first downtime by loss of a node.
    pub takeover_downtime_ms: Option<u64>,
    /// All of them.
    pub downtimes: Vec<Downtime>,
    /// What a planned handover takes, `failover` beside the commands of the post.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Records that were sent and not answered when a node was lost last.
    pub unanswered_at_loss: Option<u64>,
    /// What was done, when, and what it took.
    pub steps: Vec<Step>,
}

/// Planned handovers of one service between the same nodes, by two ways, in turn.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// With `failover`.
    pub failover: Handovers,
    /// With the commands of the post.
    pub by_hand: Handovers,
    /// The first's downtime in terms of the second's, median by median.
    pub ratio: f64,
    /// The same without the time that the container took to stop and to start.
    pub ratio_of_the_rest: f64,
}

/// What handovers took, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Handovers {
    /// Downtimes as the client saw them, in ascending order.
    pub downtimes: Vec<u64>,
    /// Their median.
    pub median: u64,
    /// The median of what the container took to stop.
    pub stop: u64,
    /// The median of what it took to start.
    pub start: u64,
}

impl Handovers {
    /// `stop` and `start`: what these steps are called in the timeline.
    fn new(
        downtimes: &[Downtime],
        cause: Cause,
        steps: &[Step],
        [stop, start]: [&str; 2],
    ) -> Option<Self> {
        let of_cause = downtimes.iter().filter(|downtime| downtime.cause == cause);
        let mut all: Vec<u64> = of_cause.map(|downtime| downtime.ms).collect();
        let took = |name: &str| {
            let steps = steps
                .iter()
                .filter(|step| step.what.trim().starts_with(name));
            median(&mut steps.map(|step| step.ms).collect::<Vec<_>>())
        };
        Some(Self {
            median: median(&mut all)?,
            stop: took(stop)?,
            start: took(start)?,
            downtimes: all,
        })
    }

    /// What is neither stop nor start of the container.
    fn rest(&self) -> u64 {
        self.median.saturating_sub(self.stop + self.start).max(1)
    }
}

fn median(all: &mut [u64]) -> Option<u64> {
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

impl Comparison {
    fn new(downtimes: &[Downtime], steps: &[Step]) -> Option<Self> {
        let handovers = |cause, names| Handovers::new(downtimes, cause, steps, names);
        let by_hand = handovers(Cause::ByHand, ["lxc-stop", "lxc-start"])?;
        let failover = handovers(Cause::Planned, ["stop container", "start container"])?;
        Some(Self {
            ratio: failover.median as f64 / by_hand.median.max(1) as f64,
            ratio_of_the_rest: failover.rest() as f64 / by_hand.rest() as f64,
            failover,
            by_hand,
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n  planned handover, medians   downtime   stop  start   rest  (least to most)"
        )?;
        for (way, took) in [
            ("failover", &self.failover),
            ("the commands of the post", &self.by_hand),
        ] {
            let [least, .., most] = took.downtimes[..] else {
                continue;
            };
            writeln!(
                f,
                "  {way:<25} {:>8} {:>6} {:>6} {:>6}  ({least} to {most}, {} times)",
                took.median,
                took.stop,
                took.start,
                took.rest(),
                took.downtimes.len()
            )?;
        }
        writeln!(
            f,
            "  in ms; failover takes {:.2} of the other's downtime, {:.2} of what is not stop and start",
            self.ratio, self.ratio_of_the_rest
        )
    }
}

impl Ending {
    pub(crate) fn new(
        verdict: Verdict,
        downtimes: Vec<Downtime>,
        unanswered_at_loss: Option<u64>,
        steps: Vec<Step>,
    ) -> Self {
        let first = |cause| {
            let mut all = downtimes.iter();
            all.find(|downtime| downtime.cause == cause)
                .map(|downtime| downtime.ms)
        };
        Self {
            verdict,
            handover_downtime_ms: first(Cause::Planned),
            takeover_downtime_ms: first(Cause::NodeLoss),
            comparison: Comparison::new(&downtimes, &steps),
            downtimes,
            unanswered_at_loss,
            steps,
        }
    }

    /// The timeline as a picture: a lane for each place, a bar for each step.
    #[must_use]
    pub fn to_svg(&self) -> String {
        const LEFT: f64 = 80.0;
        const WIDTH: f64 = 1500.0;
        const ROW: f64 = 16.0;
        let end = self.steps.iter().map(|step| step.at_ms + step.ms).max();
        let scale = WIDTH / (end.unwrap_or(0).max(1) as f64);
        let mut places: Vec<&str> = self.steps.iter().map(|step| step.place.as_str()).collect();
        places.sort_unstable();
        places.dedup();

        let mut body = String::new();
        let mut top = 30.0;
        for place in places {
            let steps = self.steps.iter().filter(|step| step.place == place);
            // A bar goes to the first row that is free when it begins.
            let mut rows: Vec<u64> = Vec::new();
            let begin = top;
            for step in steps {
                let free = rows.iter().position(|until| *until <= step.at_ms);
                let row = free.unwrap_or(rows.len());
                let until = step.at_ms + step.ms.max(1);
                match rows.get_mut(row) {
                    Some(taken) => *taken = until,
                    None => rows.push(until),
                }
                let x = LEFT + step.at_ms as f64 * scale;
                let y = begin + row as f64 * ROW;
                let width = (step.ms as f64 * scale).max(1.0);
                let fill = if step.what.starts_with("  ") {
                    "#9ecae1"
                } else {
                    "#3182bd"
                };
                body.push_str(&format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"12\" fill=\"{fill}\">\
                     <title>{:.2} s, {} ms: {}</title></rect>\n",
                    step.at_ms as f64 / 1000.0,
                    step.ms,
                    escape(step.what.trim())
                ));
            }
            body.push_str(&format!(
                "<text x=\"4\" y=\"{:.1}\">{}</text>\n",
                begin + 11.0,
                escape(place)
            ));
            top = begin + rows.len().max(1) as f64 * ROW + 10.0;
        }
        for second in (0..=end.unwrap_or(0) / 1000).step_by(10) {
            let x = LEFT + second as f64 * 1000.0 * scale;
            body.push_str(&format!(
                "<line x1=\"{x:.1}\" y1=\"22\" x2=\"{x:.1}\" y2=\"{top:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"16\">{second} s</text>\n"
            ));
        }
        let width = LEFT + WIDTH + 20.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{top:.0}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n{body}</svg>\n"
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "timeline")?;
        for step in &self.steps {
            let at = step.at_ms as f64 / 1000.0;
            writeln!(
                f,
                "{at:>8.2} s {:>7} ms  {:<7} {}",
                step.ms, step.place, step.what
            )?;
        }
        writeln!(f, "\nverdict\n{}", self.verdict)?;
        for downtime in &self.downtimes {
            let what = match downtime.cause {
                Cause::Planned => "downtime, planned",
                Cause::ByHand => "downtime, by hand",
                Cause::NodeLoss => "downtime, node loss",
            };
            writeln!(
                f,
                "  {what:<22} {:>8} ms  {}",
                downtime.ms, downtime.service
            )?;
        }
        if let Some(comparison) = &self.comparison {
            write!(f, "{comparison}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn step(at_ms: u64, ms: u64, place: &str, what: &str) -> Step {
        Step {
            at_ms,
            ms,
            place: place.into(),
            what: what.into(),
        }
    }

    #[test]
    fn the_picture_has_a_bar_for_each_step_and_no_markup_from_their_names() {
        let steps = vec![
            step(0, 1000, "lab", "boot <all> & wait"),
            step(1000, 500, "node1", "failover up r0"),
            step(1200, 100, "node1", "  attach"),
        ];
        let ending = Ending::new(Verdict::default(), Vec::new(), None, steps);
        let svg = ending.to_svg();
        assert_eq!(svg.matches("<rect").count(), 3, "{svg}");
        assert!(svg.contains("boot &lt;all&gt; &amp; wait"), "{svg}");
        // The two steps of node1 overlap, so they are in two rows.
        let rows: std::collections::BTreeSet<&str> = svg
            .lines()
            .filter(|line| line.starts_with("<rect"))
            .filter_map(|line| line.split(" y=\"").nth(1)?.split('"').next())
            .collect();
        assert_eq!(rows.len(), 3, "{svg}");
    }

    #[test]
    fn ways_to_hand_over_are_compared_by_their_medians() {
        let downtimes = [
            (Cause::Planned, 700),
            (Cause::Planned, 600),
            (Cause::ByHand, 1500),
            (Cause::ByHand, 1000),
            (Cause::NodeLoss, 9000),
            (Cause::Planned, 5000),
            (Cause::ByHand, 1400),
        ]
        .map(|(cause, ms)| Downtime {
            cause,
            service: "app",
            ms,
        });
        let steps = [
            step(0, 900, "node1", "failover release r0"),
            step(0, 200, "node1", "  stop container app"),
            step(200, 100, "node2", "  start container app"),
            step(900, 400, "node1", "  lxc-stop --name=app"),
            step(1300, 200, "node2", "  lxc-start --name=app"),
        ];
        let found = Comparison::new(&downtimes, &steps).unwrap();
        assert_eq!(found.failover.downtimes, [600, 700, 5000]);
        assert_eq!((found.failover.median, found.by_hand.median), (700, 1400));
        assert_eq!(found.ratio, 0.5);
        assert_eq!((found.failover.rest(), found.by_hand.rest()), (400, 800));
        assert_eq!(found.ratio_of_the_rest, 0.5);
        assert!(
            found.to_string().contains("0.50 of the other's downtime"),
            "{found}"
        );
        // Nothing to compare with.
        assert!(Comparison::new(&downtimes[..2], &steps).is_none());
    }

    #[test]
    fn the_first_downtimes_stand_for_themselves() {
        let downtime = |cause, ms| Downtime {
            cause,
            service: "app",
            ms,
        };
        let all = vec![
            downtime(Cause::Planned, 5),
            downtime(Cause::NodeLoss, 7),
            downtime(Cause::Planned, 9),
        ];
        let ending = Ending::new(Verdict::default(), all, None, Vec::new());
        assert_eq!(ending.handover_downtime_ms, Some(5));
        assert_eq!(ending.takeover_downtime_ms, Some(7));
    }
}
