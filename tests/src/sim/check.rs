//! What must hold at the end of a run.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::error::{ErrorCode, Processed};
use tokio::time::{Instant, sleep};

use super::ledger::End;
use super::world::{Gateway, World};

/// By then nothing is left of any call: longer than the longest deadline.
const CALM: Duration = Duration::from_secs(150);

/// Nothing is left of calls that have ended: no slot, no entry, no work in a plugin.
pub(super) async fn leftovers(world: &World, gateways: &[Arc<Gateway>]) {
    let until = Instant::now() + CALM;
    loop {
        let left = left(world, gateways);
        if left.is_empty() {
            return;
        }
        if Instant::now() > until {
            for text in left {
                world.violation(format!("after all calls have ended there is still: {text}"));
            }
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

fn left(world: &World, gateways: &[Arc<Gateway>]) -> Vec<String> {
    let mut left = Vec::new();
    let mut note = |place: String, what: &str, count: usize| {
        if count > 0 {
            left.push(format!("{place}: {count} {what}"));
        }
    };
    for (number, gateway) in gateways.iter().enumerate() {
        let calls = gateway.bus.calls_in_flight();
        note(format!("gateway {number}"), "slots of calls", calls);
    }
    for agent in &world.agents {
        let Some(up) = agent.now() else {
            continue;
        };
        let place = || format!("agent {}", agent.number);
        note(place(), "slots of calls", up.bus.calls_in_flight());
        for (what, count) in up.agent.held() {
            note(place(), what, count);
        }
    }
    for plugin in &world.plugins {
        note(plugin.label(), "calls that it works on", plugin.working());
    }
    left
}

/// Every call has ended once, and as it was.
pub(super) fn ledger(world: &World) {
    let mut found = Vec::new();
    let ledger = world.ledger.lock().unwrap();
    for (key, record) in &ledger.calls {
        let script = &record.script;
        let Some((_, end)) = record.ends.first() else {
            // A call of a plugin that was never made.
            if !record.starts.is_empty() {
                found.push(format!("call {key} was begun and never ended"));
            }
            continue;
        };
        let refused = script.messages.as_ref().is_some_and(|one| one.unwanted);
        if refused && !record.starts.is_empty() {
            found.push(format!(
                "call {key} has messages for one who takes none, and was begun"
            ));
        }
        match end {
            End::Well if record.starts.is_empty() => {
                found.push(format!("call {key} ended well and was never begun"));
            }
            End::Failed(code, text) => {
                let begun = record.starts.len();
                if code.processed() == Processed::No && begun > 0 {
                    found.push(format!(
                        "call {key} is said not to be processed, and was begun at {}: {text}",
                        record.starts.join(", ")
                    ));
                }
                if code.processed() == Processed::Yes && begun == 0 {
                    found.push(format!(
                        "call {key} is said to be processed, and never was: {text}"
                    ));
                }
                let expired = matches!(code, ErrorCode::DeadlineExceeded | ErrorCode::Expired);
                if expired && !script.may_expire() {
                    found.push(format!(
                        "call {key} had {:?} and ended by its deadline: it must have hung: {text}",
                        script.timeout
                    ));
                }
                if *code == ErrorCode::Internal {
                    found.push(format!("call {key} met a bug: {text}"));
                }
            }
            End::Well | End::GivenUp => {}
        }
    }
    drop(ledger);
    for text in found {
        world.violation(text);
    }
}
