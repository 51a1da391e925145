//! What an import would do: from what is wanted now to what the file wants.

use std::fmt;

use mesh_proto::admin::SetWishRequest;
use serde_json::{Value, json};

use super::file::{Rollout, Rollouts, SplitWish, State, Wishes};

/// One change.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// `+` is new, `~` replaces something, `-` takes something back.
    sign: char,
    pub plugin: String,
    pub act: Act,
}

/// What is done.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    Enable,
    State(State, String),
    Split(SplitWish),
    ClearSplit,
}

/// The changes by kind and plugin; none when all is as wanted. Another reason for the same is no
/// change. What a rollout has left is changed by no file that does not name it, and nothing while it goes on.
pub fn plan(now: &Wishes, wanted: &Wishes, rollouts: &Rollouts) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = |sign, plugin: &str, act| {
        let plugin = plugin.to_owned();
        steps.push(Step { sign, plugin, act });
    };
    // What is taken back first: it may be what stands in the way.
    for plugin in now
        .plugin
        .keys()
        .filter(|it| !wanted.plugin.contains_key(*it))
    {
        step('-', plugin, Act::Enable);
    }
    for plugin in now
        .split
        .keys()
        .filter(|it| !wanted.split.contains_key(*it) && !rollouts.contains_key(*it))
    {
        step('-', plugin, Act::ClearSplit);
    }
    for (plugin, wish) in &wanted.plugin {
        let has = now.plugin.get(plugin);
        if has.map(|has| has.state) != Some(wish.state) {
            let sign = if has.is_some() { '~' } else { '+' };
            step(sign, plugin, Act::State(wish.state, wish.reason.clone()));
        }
    }
    for (plugin, split) in &wanted.split {
        let has = now.split.get(plugin);
        let goes_on = rollouts.get(plugin).is_some_and(|it| it.goes_on);
        if !goes_on && !has.is_some_and(|it| is_same(it, split)) {
            let sign = if has.is_some() { '~' } else { '+' };
            step(sign, plugin, Act::Split(split.clone()));
        }
    }
    steps
}

fn is_same(one: &SplitWish, other: &SplitWish) -> bool {
    (&one.shares, &one.groups) == (&other.shares, &other.groups)
}

/// What is left as it is though the file has it otherwise, one line each.
pub fn left_alone(now: &Wishes, wanted: &Wishes, rollouts: &Rollouts) -> Vec<String> {
    let otherwise = rollouts.iter().filter(|(plugin, rollout)| {
        match (now.split.get(*plugin), wanted.split.get(*plugin)) {
            (Some(has), Some(wants)) => rollout.goes_on && !is_same(has, wants),
            (has, wants) => has.is_some() || wants.is_some(),
        }
    });
    let line = |(plugin, rollout): (&String, &Rollout)| {
        let to = &rollout.to;
        if rollout.goes_on {
            format!(
                "split {plugin} is left as it is: a rollout to {to} is under way; import again when it \
                 is over, or abort it first (`plugmesh rollout abort {plugin}`)"
            )
        } else {
            format!(
                "split {plugin} is left as it is, as its rollout to {to} has left it and the file names \
                 none; `plugmesh split {plugin} --clear` takes it back"
            )
        }
    };
    otherwise.map(line).collect()
}

/// `2 to create, 1 to change, 0 to take back`.
pub fn summary(steps: &[Step], left: &[String]) -> String {
    if steps.is_empty() {
        let all = if left.is_empty() { "all" } else { "all else" };
        return format!("no changes: {all} is as the file wants it");
    }
    let count = |sign| steps.iter().filter(|step| step.sign == sign).count();
    let (create, change, remove) = (count('+'), count('~'), count('-'));
    format!("{create} to create, {change} to change, {remove} to take back")
}

impl Step {
    fn what(&self) -> (&'static str, String) {
        match &self.act {
            Act::Enable => ("plugin", "enabled".to_owned()),
            Act::State(State::Disabled, _) => ("plugin", "disabled".to_owned()),
            Act::State(State::Unloaded, _) => ("plugin", "unloaded".to_owned()),
            Act::ClearSplit => ("split", "none".to_owned()),
            Act::Split(split) => {
                let shares = split.shares.iter();
                let shares = shares.map(|(version, weight)| format!("{version}={weight}"));
                let groups = split.groups.iter();
                let groups = groups.map(|it| format!("{}={}:{}", it.header, it.value, it.version));
                let all: Vec<String> = shares.chain(groups).collect();
                ("split", all.join(" "))
            }
        }
    }

    /// Whether it is about a split; else about a plugin's state.
    pub fn is_split(&self) -> bool {
        matches!(self.act, Act::Split(_) | Act::ClearSplit)
    }

    /// The step on the wire.
    pub fn to_wire(&self) -> SetWishRequest {
        let (state, split, reason) = match &self.act {
            Act::Enable => ("enabled", None, "imported"),
            Act::State(State::Disabled, reason) => ("disabled", None, reason.as_str()),
            Act::State(State::Unloaded, reason) => ("unloaded", None, reason.as_str()),
            Act::Split(split) => ("", Some(split.to_wire(&self.plugin)), split.reason.as_str()),
            Act::ClearSplit => ("", None, "imported"),
        };
        SetWishRequest {
            plugin: self.plugin.clone(),
            state: state.to_owned(),
            split,
            reason: reason.to_owned(),
            expected: None,
        }
    }

    pub fn as_json(&self) -> Value {
        let (kind, to) = self.what();
        json!({ "sign": self.sign.to_string(), "kind": kind, "plugin": self.plugin, "to": to })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, to) = self.what();
        write!(f, "{} {kind} {}: {to}", self.sign, self.plugin)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn lines(now: &str, wanted: &str) -> Vec<String> {
        let read = |text: &str| Wishes::read(&format!("format = 1\n{text}")).unwrap();
        let steps = plan(&read(now), &read(wanted), &Rollouts::new());
        steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plan_shows_what_is_new_what_changes_and_what_is_taken_back() {
        let now = "plugin.a.state = 'disabled'\nplugin.b.state = 'disabled'\n\
                   plugin.c.state = 'disabled'\nsplit.s.shares = {'1.0.0' = 1}";
        let wanted = "plugin.a.state = 'disabled'\nplugin.b.state = 'unloaded'\n\
                      plugin.d.state = 'disabled'\nsplit.t.shares = {'1.0.0' = 1}";
        assert_eq!(
            lines(now, wanted),
            [
                "- plugin c: enabled",
                "- split s: none",
                "~ plugin b: unloaded",
                "+ plugin d: disabled",
                "+ split t: 1.0.0=1",
            ]
        );
        assert_eq!(lines(now, now), [""; 0]);
        assert!(lines(now, "").iter().all(|line| line.starts_with('-')));
        assert_eq!(summary(&[], &[]), "no changes: all is as the file wants it");
    }

    #[test]
    fn what_a_rollout_says_is_left_alone_while_it_goes_on_and_by_a_file_that_says_nothing() {
        let read = |text: &str| Wishes::read(&format!("format = 1\n{text}")).unwrap();
        let now = read("split.s.shares = {'1.0.0' = 100, '2.0.0' = 0}");
        let other = read("split.s.shares = {'1.0.0' = 1}");
        let rollout = |goes_on| {
            let to = "2.0.0".to_owned();
            Rollouts::from([("s".to_owned(), Rollout { to, goes_on })])
        };
        for (goes_on, wanted, steps, left) in [
            (true, &now, 0, None),
            (true, &other, 0, Some("a rollout to 2.0.0 is under way")),
            (true, &read(""), 0, Some("a rollout to 2.0.0 is under way")),
            (false, &now, 0, None),
            (false, &other, 1, None),
            (
                false,
                &read(""),
                0,
                Some("its rollout to 2.0.0 has left it"),
            ),
        ] {
            let rollouts = rollout(goes_on);
            assert_eq!(plan(&now, wanted, &rollouts).len(), steps, "{wanted:?}");
            let lines = left_alone(&now, wanted, &rollouts);
            assert_eq!(lines.len(), usize::from(left.is_some()), "{lines:?}");
            assert!(
                left.is_none_or(|part| lines.concat().contains(part)),
                "{lines:?}"
            );
        }
    }
}
