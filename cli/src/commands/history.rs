//! `plugmesh history` and `plugmesh watch`: what happened, from the audit.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh_proto::admin::{HistoryEntry, ListHistoryRequest, WatchHistoryRequest};
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::args::{CoordinatorFlags, HistoryArgs};
use crate::exit::Failure;
use crate::output::{self, Output, printable};

/// Reads back what happened.
///
/// # Errors
/// What the coordinator says.
pub async fn run(args: HistoryArgs, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&args.ask).await?;
    let since_ms = args.since.map_or(0, |since| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = now.unwrap_or_default().saturating_sub(since.get());
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    let request = Admin::request(ListHistoryRequest {
        name: args.name.clone(),
        since_ms,
        limit: args.limit,
    });
    let answer = admin.client().list_history(request).await;
    let entries = answer
        .map_err(|status| admin.failure(&status))?
        .into_inner()
        .entries;
    if output == Output::Json {
        let entries: Vec<Value> = entries.iter().map(as_json).collect();
        return output::json(&json!({ "entries": entries }));
    }
    if entries.is_empty() {
        output::note(match args.name.as_str() {
            "" => "nothing is recorded".to_owned(),
            name => format!(
                "nothing is recorded of {name}; `plugmesh plugins` and `plugmesh nodes` list who is \
                 there"
            ),
        });
    }
    for entry in &entries {
        output::line(for_people(entry, "%Y-%m-%d %H:%M:%S"))?;
    }
    Ok(())
}

/// Follows what happens until interrupted.
///
/// # Errors
/// What the coordinator says, or that it ended.
pub async fn watch(ask: CoordinatorFlags, name: String, output: Output) -> Result<(), Failure> {
    let mut admin = Admin::connect(&ask).await?;
    let request = WatchHistoryRequest { name };
    let answer = admin.client().watch_history(request).await;
    let mut entries = answer
        .map_err(|status| admin.failure(&status))?
        .into_inner();
    loop {
        let next = entries.message().await;
        let next = next.map_err(|status| admin.failure(&status))?;
        let Some(next) = next else {
            let message = "the coordinator ended the stream; start `plugmesh watch` again";
            return Err(Failure::unavailable(message));
        };
        match (next.entry, output) {
            (None, _) => output::note("watching; Ctrl-C ends it"),
            (Some(entry), Output::Json) => output::json_line(&as_json(&entry))?,
            (Some(entry), _) => output::line(for_people(&entry, "%H:%M:%S%.3f"))?,
        }
    }
}

fn as_json(entry: &HistoryEntry) -> Value {
    let revision = entry.revision.unwrap_or_default();
    json!({
        "sequence": entry.sequence,
        "revision": format!("{}.{}", revision.epoch, revision.sequence),
        "at_ms": entry.at_ms,
        "kind": entry.kind,
        "plugin": entry.plugin,
        "version": entry.version,
        "node": entry.node,
        "instance": entry.instance,
        "from": entry.from,
        "to": entry.to,
        "by": { "kind": entry.by_kind, "name": entry.by },
        "reason": entry.reason,
        "cause": entry.cause,
        "found": entry.found,
    })
}

/// `10:00:00 instance calculator@1.0.0 on node-a: active -> degraded (why) by agent node-a`.
fn for_people(entry: &HistoryEntry, format: &str) -> String {
    let at = i64::try_from(entry.at_ms).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or_default();
    let at = at.to_zoned(jiff::tz::TimeZone::system());
    let who = match (entry.kind.as_str(), entry.plugin.as_str()) {
        ("instance", plugin) => {
            // The last part tells instances that were started together apart.
            let id = entry.instance.rsplit('-').next().unwrap_or_default();
            format!("{plugin}@{} {id} on {}", entry.version, entry.node)
        }
        (kind, "") if entry.node.is_empty() => kind.to_owned(),
        (kind, "") => format!("{kind} {}", entry.node),
        (kind, plugin) => format!("{kind} for {plugin}"),
    };
    let from = match entry.from.as_str() {
        "" => String::new(),
        from => format!("{from} -> "),
    };
    let reason = match entry.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    let by = match (entry.by_kind.as_str(), entry.by.as_str()) {
        ("graph", _) | (_, "") => String::new(),
        ("operator", by) => format!(" [{by}]"),
        (kind, by) => format!(" [{kind} {by}]"),
    };
    let at = at.strftime(format);
    printable(&format!("{at} {who} {from}{}{reason}{by}", entry.to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(entry: &HistoryEntry) -> String {
        for_people(entry, "at")
    }

    #[test]
    fn a_line_says_who_what_why_and_by_whom() {
        let instance = HistoryEntry {
            kind: "instance".into(),
            plugin: "time".into(),
            version: "1.0.0".into(),
            node: "node-a".into(),
            instance: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
            from: "blocked".into(),
            to: "active".into(),
            by_kind: "graph".into(),
            reason: "it takes calls".into(),
            ..HistoryEntry::default()
        };
        assert_eq!(
            said(&instance),
            "at time@1.0.0 b302099a8057 on node-a blocked -> active: it takes calls"
        );
        let wish = HistoryEntry {
            kind: "wish".into(),
            plugin: "time".into(),
            from: "enabled".into(),
            to: "disabled".into(),
            by_kind: "operator".into(),
            by: "ada at 127.0.0.1:5".into(),
            ..HistoryEntry::default()
        };
        assert_eq!(
            said(&wish),
            "at wish for time enabled -> disabled [ada at 127.0.0.1:5]"
        );
        let node = HistoryEntry {
            kind: "node".into(),
            node: "node-a".into(),
            to: "connected".into(),
            by_kind: "agent".into(),
            by: "node-a".into(),
            reason: "a\nb".into(),
            ..HistoryEntry::default()
        };
        assert_eq!(said(&node), "at node node-a connected: a b [agent node-a]");
    }
}
