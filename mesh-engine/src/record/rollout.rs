//! The record of a plugin's rollout: a new version beside the old ones, that gets their calls step by
//! step, and gives them back when it does not do well.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::id::{NodeId, PluginName};
use mesh_core::revision::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};

/// Most steps of a rollout.
const MOST_STEPS: usize = 32;
/// The longest time of a rollout's step, and of watching it: thirty days, in milliseconds.
const LONGEST_MS: u64 = 30 * 24 * 3_600_000;
/// So many parts are the whole.
const MILLION: u64 = 1_000_000;
/// Fewer calls than this say nothing of a version's errors.
const FEWEST_CALLS: u64 = 20;

/// What a rollout shall do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// The new version.
    pub to: Version,
    /// What it gets of the calls, step by step, in percent; the last is 100.
    pub steps: Vec<u32>,
    /// How long each step lasts at least, in milliseconds.
    pub interval_ms: u64,
    /// The most of its calls that may fail, in parts of a million.
    pub max_errors: u32,
    /// How long it is watched from its first call on, in milliseconds; at least all steps.
    pub within_ms: u64,
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// No instance of the new version is active yet; it gets nothing.
    Waiting,
    /// The new version gets its step's share.
    Shifting,
    /// The new version has everything.
    Done,
    /// The new version did not do well: the old ones have everything again.
    Returned,
    /// An operator ended it: the old ones have everything again.
    Aborted,
}

impl RolloutState {
    /// The state as written in tables and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Shifting => "shifting",
            Self::Done => "done",
            Self::Returned => "returned",
            Self::Aborted => "aborted",
        }
    }
}

/// Who brought a rollout to where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mover {
    /// An operator, as far as is known.
    Operator(String),
    /// A coordinator, by itself.
    Coordinator(NodeId),
}

/// A rollout. Its shares count, and not those of the plugin's split, until one is made after its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// The plugin.
    pub plugin: PluginName,
    /// What it does.
    pub plan: RolloutPlan,
    /// What the old versions had when it began, in relation to each other.
    pub before: BTreeMap<Version, u32>,
    /// Where it stands.
    pub state: RolloutState,
    /// The place in the plan's steps.
    pub step: usize,
    /// How long the new version had been watched when this was written, in milliseconds.
    pub watched_ms: u64,
    /// Old versions that take no calls any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub retired: BTreeSet<Version>,
    /// Why it stands there, for a person.
    pub reason: String,
    /// Who wants it, as far as is known.
    pub by: String,
    /// Why; may be empty.
    pub why: String,
    /// Who wrote it last.
    pub moved_by: Mover,
    /// The term of the office in which it was taken forward last; 0: it was not yet.
    pub term: u64,
    /// When it began, by the clock of the coordinator that took it.
    pub begun: Timestamp,
    /// Since when it stands there, by the clock of the coordinator that wrote it.
    pub since: Timestamp,
}

/// How the new version does, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doing {
    /// Its instances that are Active.
    pub active: usize,
    /// Its instances that broke, or whose health fails.
    pub failing: usize,
    /// What is said of one that is not Active.
    pub trouble: String,
    /// Its calls since the step began.
    pub calls: u64,
    /// Those of them that failed.
    pub errors: u64,
}

impl RolloutPlan {
    /// What is wrong with a plan that somebody asks for, as the field and the problem.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let rising = |pair: &[u32]| matches!(pair, [one, next] if one < next);
        let ends = self.steps.last() == Some(&100) && self.steps.first() != Some(&0);
        if !ends || self.steps.len() > MOST_STEPS || !self.steps.windows(2).all(rising) {
            let steps: Vec<String> = self.steps.iter().map(ToString::to_string).collect();
            let text = format!(
                "{} is no way to 100: name up to {MOST_STEPS} rising percentages, the last of them 100, \
                 such as 10,50,100",
                steps.join(",")
            );
            return Err(("steps", text));
        }
        let times = [("interval", self.interval_ms), ("within", self.within_ms)];
        if let Some((field, _)) = times.iter().find(|(_, ms)| *ms > LONGEST_MS) {
            return Err((field, "is longer than 30 days".to_owned()));
        }
        if u64::from(self.max_errors) > MILLION {
            let text = "is more than the whole: name a percentage from 0 to 100".to_owned();
            return Err(("max_error_rate", text));
        }
        Ok(())
    }
}

impl RolloutRecord {
    /// Whether it goes on by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.state, RolloutState::Waiting | RolloutState::Shifting)
    }

    /// What the new version gets, in percent.
    #[must_use]
    pub fn percent(&self) -> u32 {
        match self.state {
            RolloutState::Shifting => {
                let step = self.plan.steps.get(self.step).copied();
                step.unwrap_or(0).min(100)
            }
            RolloutState::Done => 100,
            RolloutState::Waiting | RolloutState::Returned | RolloutState::Aborted => 0,
        }
    }

    /// What each version gets.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<Version, u32> {
        self.shares_at(self.percent())
    }

    /// What each version has in the end; while the rollout goes on, what each had before.
    #[must_use]
    pub fn settled(&self) -> BTreeMap<Version, u32> {
        let end = if self.is_running() { 0 } else { self.percent() };
        self.shares_at(end)
    }

    /// What each version gets when the new one has so many percent of the calls: whole percents, or else
    /// hundredths of them.
    fn shares_at(&self, new: u32) -> BTreeMap<Version, u32> {
        let old = u64::from(100 - new);
        let all: u64 = self.before.values().copied().map(u64::from).sum();
        let weights = || self.before.values().copied().map(u64::from);
        let exact = weights().all(|weight| (weight * old).checked_rem(all) == Some(0));
        let parts = if exact { 1 } else { 100 };
        let share = |weight: u32| {
            let share = (u64::from(weight) * old * parts)
                .checked_div(all)
                .unwrap_or(0);
            // None that had calls is left without.
            u32::try_from(share)
                .unwrap_or(u32::MAX)
                .max(u32::from(old > 0))
        };
        let before = self.before.iter();
        let shares = before.map(|(version, weight)| (version.clone(), share(*weight)));
        let new = (self.plan.to.clone(), new * parts as u32);
        shares.chain([new]).collect()
    }

    /// Why the new version must give everything back.
    #[must_use]
    pub fn failure(&self, doing: &Doing) -> Option<String> {
        let to = &self.plan.to;
        if doing.active == 0 {
            return Some(match doing.trouble.as_str() {
                "" => format!("no instance of {to} is left"),
                trouble => format!("no instance of {to} is active: {trouble}"),
            });
        }
        if doing.failing > doing.active {
            return Some(format!(
                "{} of {} instances of {to} fail: {}",
                doing.failing,
                doing.failing + doing.active,
                doing.trouble
            ));
        }
        let limit = u64::from(self.plan.max_errors);
        let many = doing.errors.saturating_mul(MILLION) > doing.calls.saturating_mul(limit);
        (doing.calls >= FEWEST_CALLS && many).then(|| {
            format!(
                "{} of {} calls of {to} failed, {} %; the limit is {} %",
                doing.errors,
                doing.calls,
                percentage(doing.errors.saturating_mul(MILLION) / doing.calls),
                percentage(limit)
            )
        })
    }

    /// What follows when it has stood there for so long: the record as it shall be then, but for who
    /// writes it, when, and the versions that retire. `leads`: this coordinator holds the office; whoever sees that the
    /// new version fails may take its calls away.
    #[must_use]
    pub fn next(&self, doing: &Doing, waited_ms: u64, leads: bool) -> Option<Self> {
        let (plan, to) = (&self.plan, &self.plan.to);
        let watched_ms = match self.state {
            RolloutState::Waiting => 0,
            _ => self.watched_ms.saturating_add(waited_ms),
        };
        let stands = |state, step, reason| Self {
            state,
            step,
            watched_ms,
            reason,
            ..self.clone()
        };
        let shift = |step: usize| {
            let percent = plan.steps.get(step)?;
            let reason = format!("{to} gets {percent} % of the calls");
            Some(stands(RolloutState::Shifting, step, reason))
        };
        match self.state {
            RolloutState::Waiting if leads && doing.active > 0 => shift(0),
            RolloutState::Shifting => {
                if let Some(why) = self.failure(doing) {
                    return Some(stands(RolloutState::Returned, self.step, why));
                }
                if !leads || waited_ms < plan.interval_ms {
                    return None;
                }
                if let Some(next) = shift(self.step + 1) {
                    return Some(next);
                }
                let reason = format!("{to} gets all calls");
                let over = watched_ms >= plan.within_ms;
                over.then(|| stands(RolloutState::Done, self.step, reason))
            }
            _ => None,
        }
    }
}

/// Parts of a million as a percentage with at most two places.
fn percentage(parts: u64) -> String {
    let hundredths = parts / 100;
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn record() -> RolloutRecord {
        RolloutRecord {
            plugin: "a".parse().unwrap(),
            plan: RolloutPlan {
                to: Version::new(2, 0, 0),
                steps: vec![10, 50, 100],
                interval_ms: 1_000,
                max_errors: 50_000,
                within_ms: 5_000,
            },
            before: [(Version::new(1, 0, 0), 1), (Version::new(1, 1, 0), 3)].into(),
            state: RolloutState::Waiting,
            step: 0,
            watched_ms: 0,
            retired: BTreeSet::new(),
            reason: String::new(),
            by: String::new(),
            why: String::new(),
            moved_by: Mover::Operator(String::new()),
            term: 0,
            begun: Timestamp(1),
            since: Timestamp(1),
        }
    }

    fn well() -> Doing {
        Doing {
            active: 1,
            ..Doing::default()
        }
    }

    fn weights(record: &RolloutRecord) -> Vec<u32> {
        record.shares().into_values().collect()
    }

    #[test]
    fn it_waits_for_the_new_version_then_shifts_step_by_step_and_watches_to_the_end() {
        let waiting = record();
        assert_eq!(weights(&waiting), [25, 75, 0]);
        assert_eq!(waiting.next(&Doing::default(), 99_000, true), None);
        assert_eq!(waiting.next(&well(), 99_000, false), None);
        let ten = waiting.next(&well(), 99_000, true).unwrap();
        assert_eq!((ten.percent(), ten.watched_ms), (10, 0));
        assert_eq!(weights(&ten), [2250, 6750, 1000]);
        assert_eq!(ten.next(&well(), 999, true), None);
        assert_eq!(ten.next(&well(), 9_000, false), None, "it does not lead");
        let half = ten.next(&well(), 1_000, true).unwrap();
        assert_eq!((half.percent(), half.watched_ms), (50, 1_000));
        let all = half.next(&well(), 1_500, true).unwrap();
        assert_eq!((weights(&all), all.watched_ms), (vec![0, 0, 100], 2_500));
        assert_eq!(all.next(&well(), 2_499, true), None, "it is still watched");
        let done = all.next(&well(), 2_500, true).unwrap();
        assert_eq!((done.state, done.percent()), (RolloutState::Done, 100));
        assert_eq!(done.next(&Doing::default(), 99_000, true), None);
    }

    #[test]
    fn whoever_sees_that_it_fails_gives_everything_back() {
        let shifting = record().next(&well(), 0, true).unwrap();
        let doing = |active, failing, calls, errors| Doing {
            active,
            failing,
            trouble: "it broke".to_owned(),
            calls,
            errors,
        };
        for (doing, why) in [
            (
                doing(0, 0, 0, 0),
                "no instance of 2.0.0 is active: it broke",
            ),
            (
                doing(1, 2, 0, 0),
                "2 of 3 instances of 2.0.0 fail: it broke",
            ),
            (
                doing(1, 0, 80, 5),
                "5 of 80 calls of 2.0.0 failed, 6.25 %; the limit is 5 %",
            ),
        ] {
            let returned = shifting.next(&doing, 1, false).unwrap();
            assert_eq!(returned.state, RolloutState::Returned);
            assert_eq!(returned.reason, why);
            assert_eq!(weights(&returned), [25, 75, 0]);
        }
        for fine in [
            doing(1, 1, 0, 0),
            doing(2, 0, FEWEST_CALLS - 1, FEWEST_CALLS - 1),
            doing(1, 0, 100, 5),
        ] {
            assert_eq!(shifting.next(&fine, 1, true), None, "{fine:?}");
        }
    }

    #[test]
    fn a_plan_goes_up_to_100_in_bounded_time() {
        let plan = record().plan;
        assert_eq!(plan.check(), Ok(()));
        for steps in [
            &[][..],
            &[10, 50],
            &[0, 100],
            &[50, 10, 100],
            &[100, 200],
            &[50, 50, 100],
        ] {
            let wrong = RolloutPlan {
                steps: steps.to_vec(),
                ..plan.clone()
            };
            let (field, why) = wrong.check().unwrap_err();
            assert!(
                field == "steps" && why.contains("such as 10,50,100"),
                "{why}"
            );
        }
        let wrong = RolloutPlan {
            max_errors: 1_000_001,
            ..plan.clone()
        };
        assert_eq!(wrong.check().unwrap_err().0, "max_error_rate");
        let wrong = RolloutPlan {
            within_ms: u64::MAX,
            ..plan
        };
        assert_eq!(wrong.check().unwrap_err().0, "within");
        assert_eq!(
            [percentage(50_000), percentage(62_500), percentage(0)],
            ["5", "6.25", "0"]
        );
    }
}
