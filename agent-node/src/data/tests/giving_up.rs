//! Plugins that don't read and then read on: what ended as not processed never reaches them.

use std::process::Stdio;
use std::time::Duration;

use mesh_core::error::{ErrorCode, MeshError};
use mesh_core::state::InstanceState;
use mesh_proto::attach::PeerInfo;
use mesh_proto::plugin::host_frame;
use router::CallStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::harness::{Node, Plugin, SOON};

/// Longer than it takes until a plugin hangs of whose process nothing can be told.
const LONG: Duration = Duration::from_secs(60);

const CALLS: u8 = 80;

/// Far more than windows of HTTP/2 take; the payload tells each call's number.
fn flood(node: &Node) -> Vec<CallStream> {
    let calls = (0..CALLS).map(|number| {
        let request = node.request("work", vec![number; 120_000]);
        node.router.call(request.with_timeout(LONG))
    });
    calls.collect()
}

async fn codes(calls: Vec<CallStream>) -> Vec<ErrorCode> {
    let mut codes = Vec::new();
    for call in calls {
        codes.push(
            timeout(LONG, call.finish())
                .await
                .unwrap()
                .unwrap_err()
                .code,
        );
    }
    codes
}

/// Reads on, to the end or a word about states that says so: the numbers of all calls that came.
async fn read_on(plugin: &mut Plugin) -> Vec<usize> {
    let mut seen = Vec::new();
    while let Ok(Some(frame)) = timeout(SOON, plugin.host.message()).await.unwrap() {
        match frame.body {
            Some(host_frame::Body::Invoke(call)) => seen.push(usize::from(call.payload[0])),
            Some(host_frame::Body::StateChange(change)) if change.reason == "read on" => break,
            _ => {}
        }
    }
    seen
}

/// Each call is not known to be processed or not where the plugin saw it, and "not processed" else.
fn assert_honest(codes: &[ErrorCode], seen: &[usize]) {
    assert!(!seen.is_empty() && seen.len() < codes.len(), "{seen:?}");
    for (number, code) in codes.iter().enumerate() {
        // One that was handed to the transport need not have come.
        let allowed: &[_] = match seen.contains(&number) {
            true => &[ErrorCode::OutcomeUnknown],
            false => &[ErrorCode::InstanceGone, ErrorCode::OutcomeUnknown],
        };
        assert!(allowed.contains(code), "call {number}: {code:?}, {seen:?}");
    }
    assert!(codes.contains(&ErrorCode::InstanceGone), "{codes:?}");
}

#[tokio::test]
async fn a_plugin_that_hung_and_reads_on_sees_no_call_that_was_given_up_unseen() {
    let node = Node::start().await;
    let mut plugin = node.plugin("hung", &["work"]).await;
    // A process that stands still, as a stopped plugin does.
    let mut still = Command::new("sleep");
    still.arg("600").stdin(Stdio::null()).kill_on_drop(true);
    let still = still.spawn().unwrap();
    {
        let mut state = node.plane.lock();
        let session = state.sessions.of_instance(plugin.instance).unwrap();
        let pid = still.id();
        session.peer = PeerInfo::Unix { pid, uid: 0 };
    }
    let codes = codes(flood(&node)).await;
    let active = InstanceState::Active;
    node.plane.tell_state(plugin.instance, active, "read on");
    assert_honest(&codes, &read_on(&mut plugin).await);
    assert_eq!(node.plane.held(), nothing_held());
}

#[tokio::test]
async fn a_plugin_whose_stream_the_node_ends_sees_no_call_that_ended_unseen() {
    let node = Node::start().await;
    let mut plugin = node.plugin("slow", &["work"]).await;
    let calls = flood(&node);
    let refused = MeshError::new(ErrorCode::DependencyCycle, "slow → slow");
    assert!(node.plane.end_stream(plugin.instance, Some(&refused)));
    let codes = codes(calls).await;
    assert_honest(&codes, &read_on(&mut plugin).await);
    assert_eq!(node.plane.held(), nothing_held());
}

fn nothing_held() -> Vec<(&'static str, usize)> {
    let kinds = [
        "calls in flight",
        "bytes",
        "callers",
        "calls of sessions",
        "calls of plugins",
    ];
    kinds.map(|kind| (kind, 0)).to_vec()
}
