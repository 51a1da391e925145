//! What the times of good answers say: the rate, the longest gap, and when the rate was back.

use std::time::Duration;

/// A rate counts as back when it is at this share of what it was before.
const BACK: f64 = 0.8;

/// How far windows are moved.
const STEP: Duration = Duration::from_millis(25);

/// A window that shows a dip.
const DIP: Duration = Duration::from_millis(250);

/// The rate is back when the first and the whole of these windows hold it.
const FIRST: Duration = Duration::from_millis(100);
const WHOLE: Duration = Duration::from_millis(500);

/// Times of good answers, in order.
pub struct Ends(Vec<Duration>);

impl Ends {
    pub fn new(mut ends: Vec<Duration>) -> Self {
        ends.sort_unstable();
        Self(ends)
    }

    fn between(&self, from: Duration, to: Duration) -> &[Duration] {
        let at = |time| self.0.partition_point(|&end| end < time);
        &self.0[at(from)..at(to)]
    }

    /// Good answers per second.
    pub fn rate(&self, from: Duration, to: Duration) -> f64 {
        let time = to.saturating_sub(from).as_secs_f64().max(0.001);
        self.between(from, to).len() as f64 / time
    }

    /// The longest time without a good answer.
    pub fn longest_gap(&self, from: Duration, to: Duration) -> Duration {
        let mut last = from;
        let mut longest = Duration::ZERO;
        for &end in self.between(from, to).iter().chain([&to]) {
            longest = longest.max(end - last);
            last = end;
        }
        longest
    }

    /// The time from a fault until the rate was back; nothing when the fault made no dip in it.
    /// `None`: it was not back before `to`.
    pub fn recovery(&self, before: f64, fault: Duration, to: Duration) -> Option<Duration> {
        let goal = before * BACK;
        let steps = |from: Duration| std::iter::successors(Some(from), |time| Some(*time + STEP));
        let holds = |from: Duration, window: Duration| self.rate(from, from + window) >= goal;
        let dip = steps(fault)
            .take_while(|&from| from + DIP <= to)
            .find(|&from| !holds(from, DIP));
        let Some(dip) = dip else {
            return Some(Duration::ZERO);
        };
        steps(dip)
            .take_while(|&from| from + WHOLE <= to)
            .find(|&from| holds(from, FIRST) && holds(from, WHOLE))
            .map(|back| back - fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// An answer every 2 ms, but for the gaps.
    fn ends(gaps: &[(u64, u64)]) -> Ends {
        let all = (0..10_000).step_by(2);
        let missing = |time: &u64| gaps.iter().any(|gap| (gap.0..gap.1).contains(time));
        Ends::new(all.filter(|time| !missing(time)).map(millis).collect())
    }

    #[test]
    fn a_gap_is_found_and_the_rate_is_back_when_it_ends() {
        let ends = ends(&[(2_100, 3_000)]);
        assert_eq!(ends.rate(millis(1_000), millis(2_000)), 500.0);
        assert_eq!(ends.longest_gap(millis(2_000), millis(9_000)), millis(902));
        let back = ends.recovery(500.0, millis(2_000), millis(9_000));
        let back = back.expect("it is back").as_millis();
        assert!((975..=1_025).contains(&back), "{back}");
    }

    #[test]
    fn no_dip_is_no_recovery_and_a_long_one_is_none() {
        let none = ends(&[(2_100, 2_140)]);
        let back = none.recovery(500.0, millis(2_000), millis(9_000));
        assert_eq!(back, Some(Duration::ZERO));
        let lasting = ends(&[(2_100, 10_000)]);
        assert_eq!(lasting.recovery(500.0, millis(2_000), millis(9_000)), None);
    }
}
