//! A plugin that floods its agent: with frames for calls that never were, lines of log, garbage and
//! frames over every limit, and, when it is called, with progress, lines and chunks for that call.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_proto::common::{Chunk, Log, Progress, Result as CallResult};
use mesh_proto::plugin::{HostFrame, Ready, host_frame, plugin_frame};
use serde_json::json;

use super::client::CALL_LIMIT;
use super::world::World;
use crate::attach::{RawPlugin, garbage, hello};
use crate::mesh::mcp_request;
use crate::process::{self, Process};

/// Frames of each kind before answers are read again.
const BATCH: u32 = 100;

/// Frames for each call.
const PER_CALL: u32 = 1_000;

/// Lets a plugin flood the agent of a node for a time, and calls it meanwhile: each call must end.
pub async fn from(world: &World, node: usize, time: Duration) {
    let args = ["rogue".to_owned(), world.mesh.attach_url(node)];
    let folder = world.mesh.folder.path();
    let _process = Process::start("rogue", folder, &process::binary("chaos"), &args, &[]);
    let end = Instant::now() + time;
    let call = |_| async {
        while Instant::now() < end {
            let params = json!({
                "name": "rogue_poke", "arguments": {},
                "_meta": {"progressToken": 1, "io.modelcontextprotocol/logLevel": "debug"},
            });
            let begun = Instant::now();
            let answer = mcp_request(&world.mesh.mcp_url(), "tools/call", params).await;
            let took = begun.elapsed();
            assert!(
                took < CALL_LIMIT,
                "a flooded call took {took:?}: {answer:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    futures::future::join_all((0..4).map(call)).await;
}

/// The program that floods, until it is killed.
pub async fn main(url: &str) {
    // Sent once for each stream, and ends it.
    let huge = Bytes::from(vec![b'x'; 17 * 1_024 * 1_024]);
    loop {
        let mut plugin = RawPlugin::connect(url).await;
        let body = plugin_frame::Body::Hello(hello("rogue", &["poke"]).into());
        plugin.send(0, body).await;
        plugin.send(0, plugin_frame::Body::Ready(Ready {})).await;
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            if flood(&mut plugin).await.is_none() {
                break;
            }
        }
        plugin.send_raw(huge.clone()).await;
        while plugin.receive().await.is_ok() {}
    }
}

/// One batch, and what came meanwhile. `None`: the stream has ended.
async fn flood(plugin: &mut RawPlugin) -> Option<()> {
    for number in 0..BATCH {
        // Even ids are the agent's, and these calls never were.
        let id = u64::from(number) * 2 + 1_000_000;
        plugin.send(0, log()).await;
        plugin.send(id, progress()).await;
        plugin.send(id, chunk(0)).await;
        plugin.send_raw(garbage(id + 1)).await;
    }
    // A frame of more than a frame may have, but not so much that it ends the stream.
    let mut oversize = vec![0x08, 17, 0x5a, 0x80, 0x80, 0x20];
    oversize.resize(600 * 1_024, b'x');
    plugin.send_raw(oversize).await;
    loop {
        let frame = tokio::time::timeout(Duration::from_millis(1), plugin.receive()).await;
        match frame {
            Err(_) => return Some(()),
            Ok(Err(_)) => return None,
            Ok(Ok(frame)) => answer(plugin, frame).await,
        }
    }
}

async fn answer(plugin: &mut RawPlugin, frame: HostFrame) {
    if !matches!(frame.body, Some(host_frame::Body::Invoke(_))) {
        return;
    }
    for number in 0..PER_CALL {
        plugin.send(frame.id, log()).await;
        plugin.send(frame.id, progress()).await;
        // Far more than the credits of the call.
        plugin.send(frame.id, chunk(number.into())).await;
    }
    let result = CallResult {
        payload: Bytes::from_static(br#"{"content":[{"type":"text","text":"done"}]}"#),
        ..CallResult::default()
    };
    plugin
        .send(frame.id, plugin_frame::Body::Result(result))
        .await;
}

fn log() -> plugin_frame::Body {
    let log = Log {
        message: "a flood of lines that nobody asked for".repeat(10),
        ..Log::default()
    };
    plugin_frame::Body::Log(log.into())
}

fn progress() -> plugin_frame::Body {
    plugin_frame::Body::Progress(Progress {
        progress: 1.0,
        ..Progress::default()
    })
}

fn chunk(sequence: u64) -> plugin_frame::Body {
    plugin_frame::Body::Chunk(Chunk {
        payload: Bytes::from_static(&[b'x'; 1_024]),
        sequence,
        ..Chunk::default()
    })
}
