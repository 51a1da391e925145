//! Holds what the clients saw against what the plugins wrote.

use mesh_core::error::Processed;
use serde::Serialize;

use super::client::{CALL_LIMIT, End, Record, Tool};
use super::ledger::{Entries, Entry};

/// What was wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// A call of the idempotent tool failed.
    Failed,
    /// A call of the other tool was begun twice.
    Double,
    /// The error says "not processed", and it was; or the answer has no whole entry.
    Dishonest,
    /// The answer came after the deadline and the second that it may be late, or never.
    Hung,
    /// The ledger has a call that no client made.
    Unknown,
}

/// A call that was not as it must be.
#[derive(Debug)]
pub struct Violation {
    pub id: u64,
    pub wrong: Wrong,
    pub what: String,
}

/// Looks at every call and at every entry.
pub fn check(records: &[Record], ledger: &Entries) -> Vec<Violation> {
    let mut found = Vec::new();
    for record in records {
        let entry = ledger.get(&record.id).copied().unwrap_or_default();
        let wrongs = wrongs(record, entry).into_iter().flatten();
        found.extend(wrongs.map(|wrong| Violation {
            id: record.id,
            wrong,
            what: format!("{record:?}; the ledger: {entry:?}"),
        }));
    }
    let made: std::collections::HashSet<u64> = records.iter().map(|record| record.id).collect();
    let strangers = ledger.iter().filter(|(id, _)| !made.contains(*id));
    found.extend(strangers.map(|(&id, entry)| Violation {
        id,
        wrong: Wrong::Unknown,
        what: format!("no client made it; the ledger: {entry:?}"),
    }));
    found
}

fn wrongs(record: &Record, entry: Entry) -> [Option<Wrong>; 3] {
    let failed = matches!(record.end, End::Failed { .. });
    let failure = (record.tool == Tool::Safe && failed).then_some(Wrong::Failed);
    let hung = (record.longest_try > CALL_LIMIT).then_some(Wrong::Hung);
    let ledger = match (record.tool, &record.end) {
        (Tool::Once, _) if entry.begins > 1 => Some(Wrong::Double),
        // Tries before the last one were refused as not processed, or never sent.
        (Tool::Once, End::Ok) => {
            (entry.ends != 1 || entry.attempt + 1 != record.tries).then_some(Wrong::Dishonest)
        }
        (Tool::Safe, End::Ok) => (entry.ends == 0).then_some(Wrong::Dishonest),
        (Tool::Once, End::Failed { processed, .. }) => {
            (*processed == Processed::No && entry.begins > 0).then_some(Wrong::Dishonest)
        }
        (Tool::Safe, End::Failed { .. }) => None,
    };
    [failure, hung, ledger]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(tool: Tool, tries: u32, end: End) -> Record {
        Record {
            id: 7,
            tool,
            begun: Duration::ZERO,
            ended: Duration::from_millis(1),
            longest_try: Duration::from_millis(1),
            tries,
            end,
        }
    }

    fn entry(begins: u16, ends: u16, attempt: u32) -> Entries {
        let entry = Entry {
            begins,
            ends,
            attempt,
        };
        Entries::from([(7, entry)])
    }

    fn failed(processed: Processed) -> End {
        let code = "x".into();
        End::Failed { code, processed }
    }

    fn found(record: Record, ledger: &Entries) -> Vec<Wrong> {
        let found = check(&[record], ledger);
        found.into_iter().map(|one| one.wrong).collect()
    }

    #[test]
    fn each_kind_of_wrong_is_found_and_nothing_else() {
        use Tool::{Once, Safe};
        let none = Entries::new();
        let rows = [
            (record(Once, 1, End::Ok), entry(1, 1, 0), vec![]),
            (record(Once, 2, End::Ok), entry(1, 1, 1), vec![]),
            (
                record(Once, 2, End::Ok),
                entry(1, 1, 0),
                vec![Wrong::Dishonest],
            ),
            (
                record(Once, 2, End::Ok),
                entry(2, 2, 1),
                vec![Wrong::Double],
            ),
            (
                record(Once, 1, End::Ok),
                entry(1, 0, 0),
                vec![Wrong::Dishonest],
            ),
            (
                record(Once, 1, End::Ok),
                none.clone(),
                vec![Wrong::Dishonest],
            ),
            (record(Once, 1, failed(Processed::No)), none.clone(), vec![]),
            (
                record(Once, 1, failed(Processed::No)),
                entry(1, 0, 0),
                vec![Wrong::Dishonest],
            ),
            (
                record(Once, 1, failed(Processed::Unknown)),
                none.clone(),
                vec![],
            ),
            (
                record(Once, 1, failed(Processed::Unknown)),
                entry(1, 0, 0),
                vec![],
            ),
            (
                record(Once, 1, failed(Processed::Unknown)),
                entry(2, 1, 0),
                vec![Wrong::Double],
            ),
            (record(Safe, 1, End::Ok), entry(3, 1, 0), vec![]),
            (
                record(Safe, 1, End::Ok),
                entry(1, 0, 0),
                vec![Wrong::Dishonest],
            ),
            (
                record(Safe, 1, failed(Processed::No)),
                none.clone(),
                vec![Wrong::Failed],
            ),
        ];
        for (record, ledger, wrong) in rows {
            let what = format!("{record:?} {ledger:?}");
            assert_eq!(found(record, &ledger), wrong, "{what}");
        }
        let mut late = record(Once, 1, End::Ok);
        late.longest_try = CALL_LIMIT + Duration::from_millis(1);
        assert_eq!(found(late, &entry(1, 1, 0)), [Wrong::Hung]);
        let found = check(&[], &entry(1, 1, 0));
        assert_eq!(found.first().map(|one| one.wrong), Some(Wrong::Unknown));
    }
}
