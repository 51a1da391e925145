//! Outliers: an instance that fails calls where others do not is left out for a while.
//!
//! What counts as a failure is what the instance caused ([`Outcome`]). A slow instance is no outlier:
//! selection gives it fewer calls. Whoever keeps the watches asks [`may_eject`] first, so that never too
//! many of those who provide a capability are left out at once.

use std::time::Duration;

use crate::error::{ErrorCode, MeshError};

/// Failures in a row that make an outlier.
const IN_A_ROW: u32 = 5;

/// So many calls of a window, at the least, and the share of failures among them, make one, too.
const WINDOW: Duration = Duration::from_secs(10);
const WINDOW_CALLS: u32 = 20;
const WINDOW_PERCENT: u32 = 50;

/// The first time out; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// An instance that was well for so long begins anew with the first time out.
const FORGIVEN: Duration = Duration::from_secs(60);

/// The most instances of a capability that are left out at once, in percent.
const MOST_PERCENT: usize = 50;

/// A trial that has not ended after so long is not waited for: another call is a trial, too.
const TRIAL: Duration = Duration::from_secs(5);

/// A deadline that passed tells of the instance only if the call had so much time, at the least.
const FAIR_TIME: Duration = Duration::from_secs(1);

/// What the end of a call tells of the instance that it was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The instance works: it gave a result.
    Well,
    /// It works, too: it answered with an error of its own or of its caller's making. How soon it did says
    /// nothing of how long its calls take.
    Erred,
    /// The instance, or the way to it, failed the call.
    Failed,
    /// Nothing: it was too busy, was leaving, or the caller gave up.
    Neither,
}

impl Outcome {
    /// What an error tells, of a call that had so much time.
    #[must_use]
    pub fn of(error: &MeshError, time: Duration) -> Self {
        match error.code {
            ErrorCode::InstanceGone
            | ErrorCode::OutcomeUnknown
            | ErrorCode::Internal
            | ErrorCode::MalformedFrame
            | ErrorCode::ProtocolViolation
            | ErrorCode::Unavailable => Self::Failed,
            ErrorCode::DeadlineExceeded if time >= FAIR_TIME => Self::Failed,
            ErrorCode::PluginFailed
            | ErrorCode::InvalidArgument
            | ErrorCode::NotFound
            | ErrorCode::PermissionDenied
            | ErrorCode::Unsupported => Self::Erred,
            _ => Self::Neither,
        }
    }
}

/// A call that decides whether an instance comes back: until when it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial(Duration);

/// Watches one instance. Times count from any one moment.
#[derive(Debug, Default, Clone)]
pub struct Outlier {
    in_a_row: u32,
    /// Calls of the window and failures among them.
    calls: u32,
    failures: u32,
    window_end: Duration,
    /// Out until then, and after it until a trial has gone well.
    out_until: Option<Duration>,
    /// Times out that are not forgiven yet.
    times: u32,
    /// When it came back.
    back_at: Duration,
    /// Until then a trial that is on its way is waited for.
    trial: Option<Trial>,
}

impl Outlier {
    /// Whether calls are to go elsewhere: it is out, and its time is not over or a trial is on its way.
    #[must_use]
    pub fn is_out(&self, now: Duration) -> bool {
        self.out_until
            .is_some_and(|until| now < until || self.is_tried(now))
    }

    fn is_tried(&self, now: Duration) -> bool {
        self.trial.is_some_and(|Trial(until)| now < until)
    }

    /// Whether it has been left out and has not come back.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.out_until.is_some()
    }

    /// A call begins. It may be the trial that decides whether the instance comes back.
    pub fn begin(&mut self, now: Duration) -> Option<Trial> {
        let due = self.out_until.is_some() && !self.is_out(now);
        let trial = due.then_some(Trial(now + TRIAL));
        self.trial = trial.or(self.trial);
        trial
    }

    /// A call has ended, which may have been a trial. True: the instance is an outlier; it is to be ejected
    /// if it may be.
    #[must_use]
    pub fn ended(&mut self, trial: Option<Trial>, outcome: Outcome, now: Duration) -> bool {
        // One that took so long that another took its place decides nothing.
        if trial.is_some() && trial == self.trial {
            self.trial = None;
            match outcome {
                Outcome::Well | Outcome::Erred => self.come_back(now),
                Outcome::Failed => self.eject(now),
                Outcome::Neither => {}
            }
            return false;
        }
        if self.out_until.is_some() || outcome == Outcome::Neither {
            // What began before says nothing new of an instance that is out.
            return false;
        }
        if now >= self.window_end {
            (self.calls, self.failures) = (0, 0);
            self.window_end = now + WINDOW;
        }
        self.calls += 1;
        if outcome != Outcome::Failed {
            self.in_a_row = 0;
            return false;
        }
        self.in_a_row += 1;
        self.failures += 1;
        self.in_a_row >= IN_A_ROW
            || self.calls >= WINDOW_CALLS && self.failures * 100 >= self.calls * WINDOW_PERCENT
    }

    /// Leaves the instance out for a time.
    pub fn eject(&mut self, now: Duration) {
        if self.out_until.is_none() && now.saturating_sub(self.back_at) >= FORGIVEN {
            self.times = 0;
        }
        let time = FIRST.saturating_mul(1 << self.times.min(16)).min(LONGEST);
        self.times += 1;
        self.out_until = Some(now + time);
    }

    fn come_back(&mut self, now: Duration) {
        *self = Self {
            times: self.times,
            back_at: now,
            ..Self::default()
        };
    }
}

/// Whether one more may be left out, when `out` of the `all` who provide a capability are.
#[must_use]
pub fn may_eject(out: usize, all: usize) -> bool {
    (out + 1) * 100 <= all * MOST_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Fails it until it is an outlier; how many failures that took.
    fn fail(outlier: &mut Outlier, now: Duration) -> u32 {
        let mut failures = 1;
        while !outlier.ended(None, Outcome::Failed, now) {
            failures += 1;
        }
        failures
    }

    #[test]
    fn failures_in_a_row_or_half_of_a_window_make_an_outlier() {
        let now = Duration::from_secs(100);
        assert_eq!(fail(&mut Outlier::default(), now), 5);
        let mut mixed = Outlier::default();
        let mut calls = 0;
        loop {
            calls += 2;
            assert!(!mixed.ended(None, Outcome::Well, now));
            if mixed.ended(None, Outcome::Failed, now) {
                break;
            }
        }
        assert_eq!(calls, 20);
        // A third is not half, and a new window begins with nothing.
        let mut third = Outlier::default();
        for n in 0..3_000_u32 {
            let outcome = if n % 3 == 0 {
                Outcome::Failed
            } else {
                Outcome::Well
            };
            assert!(!third.ended(None, outcome, now + MS * n));
        }
        for n in 0..4 {
            assert!(!third.ended(None, Outcome::Failed, now + WINDOW * (2 * n + 2)));
        }
    }

    #[test]
    fn what_the_caller_or_the_plugins_own_code_did_never_counts() {
        let mut outlier = Outlier::default();
        for code in ErrorCode::ALL {
            let outcome = Outcome::of(&MeshError::new(*code, ""), Duration::from_secs(9));
            let failed = matches!(
                code,
                ErrorCode::InstanceGone
                    | ErrorCode::OutcomeUnknown
                    | ErrorCode::Internal
                    | ErrorCode::MalformedFrame
                    | ErrorCode::ProtocolViolation
                    | ErrorCode::Unavailable
                    | ErrorCode::DeadlineExceeded
            );
            assert_eq!(outcome == Outcome::Failed, failed, "{code}");
            if !failed {
                for _ in 0..50 {
                    assert!(!outlier.ended(None, outcome, Duration::ZERO), "{code}");
                }
            }
        }
        let hasty = MeshError::new(ErrorCode::DeadlineExceeded, "");
        assert_eq!(Outcome::of(&hasty, 10 * MS), Outcome::Neither);
    }

    #[test]
    fn it_comes_back_by_one_trial_at_a_time_and_stays_out_longer_each_time_that_one_fails() {
        let mut outlier = Outlier::default();
        let mut now = Duration::from_secs(100);
        fail(&mut outlier, now);
        outlier.eject(now);
        let mut out = FIRST;
        for _ in 0..8 {
            assert!(outlier.begin(now + out - MS).is_none() && outlier.is_out(now + out - MS));
            now += out;
            assert!(!outlier.is_out(now), "a trial is due");
            let trial = outlier.begin(now);
            assert!(trial.is_some() && outlier.is_out(now), "one at a time");
            assert!(outlier.begin(now).is_none());
            // Calls that began before it was left out change nothing.
            assert!(!outlier.ended(None, Outcome::Well, now) && outlier.is_ejected());
            assert!(!outlier.ended(trial, Outcome::Failed, now));
            out = (out * 2).min(LONGEST);
        }
        assert_eq!(out, LONGEST);
        now += out;
        // A trial that was given up tells nothing: the next call is one.
        let given_up = outlier.begin(now);
        assert!(given_up.is_some() && !outlier.ended(given_up, Outcome::Neither, now));
        let trial = outlier.begin(now);
        assert!(trial.is_some() && !outlier.ended(trial, Outcome::Well, now));
        assert!(!outlier.is_ejected() && !outlier.is_out(now));
        // Soon again: as long as before. After a while without: a second.
        outlier.eject(now);
        assert!(outlier.is_out(now + LONGEST - MS));
        now += LONGEST;
        let trial = outlier.begin(now);
        assert!(trial.is_some() && !outlier.ended(trial, Outcome::Well, now));
        now += FORGIVEN;
        outlier.eject(now);
        assert!(outlier.is_out(now + FIRST - MS) && !outlier.is_out(now + FIRST));
    }

    #[test]
    fn a_trial_that_takes_long_does_not_keep_it_out() {
        let mut outlier = Outlier::default();
        outlier.eject(Duration::ZERO);
        let slow = outlier.begin(FIRST);
        assert!(slow.is_some());
        let late = FIRST + TRIAL;
        assert!(outlier.is_out(late - MS) && outlier.begin(late - MS).is_none());
        assert!(!outlier.is_out(late), "another trial is due");
        let trial = outlier.begin(late);
        assert!(trial.is_some() && outlier.is_out(late), "one at a time");
        // The first one decides nothing any more.
        assert!(!outlier.ended(slow, Outcome::Failed, late));
        assert!(!outlier.ended(trial, Outcome::Well, late));
        assert!(!outlier.is_ejected());
        // The first one is a call like any other by now.
        assert!(!outlier.ended(slow, Outcome::Failed, late));
        assert!(!outlier.is_ejected());
    }

    #[test]
    fn never_more_than_half_of_them_are_left_out_and_never_the_only_one() {
        for all in 0..50 {
            let mut out = 0;
            while may_eject(out, all) {
                out += 1;
            }
            assert_eq!(out, all / 2);
        }
    }
}
