//! What the probe provides and calls to show how streams behave; on with `PROBE_STREAMS`.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use plugmesh_sdk::{
    CallError, CallEvent, CallStream, ChunkSender, Context, Json, NoArgs, Plugin, RequestStream,
    Target, Tool, ToolError, ToolOutput,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

thread_local! {
    /// Lines that the slow runs have sent since the program began.
    static SENT: Cell<u32> = const { Cell::new(0) };
    /// Runs and exchanges that are on their way.
    static RUNNING: Cell<u32> = const { Cell::new(0) };
}

/// A run of so many lines of so many bytes.
#[derive(Serialize, Deserialize)]
struct Run {
    lines: u32,
    bytes: usize,
}

#[derive(Deserialize, JsonSchema)]
struct Follow {
    /// The plugin whose run is followed
    plugin: String,
    lines: u32,
    bytes: usize,
    /// Milliseconds without reading after the first line
    pause: u64,
    /// The call is dropped after so many lines; 0: read to the end
    leave_after: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Exchange {
    plugin: String,
    messages: u32,
    bytes: usize,
    /// Milliseconds before the other side reads the first message
    delay: u64,
    /// Milliseconds between two messages
    every: u64,
}

#[derive(Deserialize, JsonSchema)]
struct Size {
    plugin: String,
    /// What is sent
    bytes: usize,
    /// What is asked for
    answer: usize,
}

struct Running;

impl Running {
    fn begin() -> Self {
        RUNNING.set(RUNNING.get() + 1);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(RUNNING.get() - 1);
    }
}

fn line(number: u32, bytes: usize) -> Bytes {
    let digits = number.to_string();
    let mut text = "0".repeat(bytes.saturating_sub(digits.len()));
    text.push_str(&digits);
    text.into()
}

async fn run(
    Json(run): Json<Run>,
    mut lines: ChunkSender,
    ctx: Context,
) -> Result<Json<u32>, ToolError> {
    let _running = Running::begin();
    for number in 0..run.lines {
        lines.send(line(number, run.bytes)).await?;
        if run.bytes > 100 {
            SENT.set(SENT.get() + 1);
        }
        ctx.progress(number.into(), run.lines.into(), "");
    }
    Ok(Json(run.lines))
}

async fn back(
    Json(delay): Json<u64>,
    mut requests: RequestStream,
    mut chunks: ChunkSender,
    _: Context,
) -> Result<Json<u32>, ToolError> {
    let _running = Running::begin();
    tokio::time::sleep(Duration::from_millis(delay)).await;
    let mut messages = 0;
    while let Some(message) = requests.next().await? {
        messages += 1;
        chunks.send(message).await?;
    }
    Ok(Json(messages))
}

/// What came of a call.
#[derive(Default)]
struct Came {
    lines: u32,
    in_order: bool,
    ends: Vec<String>,
}

fn end_of(end: &Result<plugmesh_sdk::Payload, CallError>) -> String {
    match end {
        Ok(payload) => String::from_utf8_lossy(&payload.bytes).into_owned(),
        Err(error) => error.code.name().to_owned(),
    }
}

/// Reads a call to its end, or so far.
async fn read(call: &mut CallStream, came: &mut Came, most: u32) {
    if came.lines == 0 {
        came.in_order = true;
    }
    while let Some(event) = call.next().await {
        match event {
            CallEvent::Chunk(text) => {
                let number = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
                came.in_order &= number == Some(came.lines);
                came.lines += 1;
                if came.lines == most {
                    return;
                }
            }
            CallEvent::End(end) => came.ends.push(end_of(&end)),
            _ => {}
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Follows a run that is read slowly, and a small one beside it that is not.
async fn follow(args: Follow, ctx: Context) -> Result<ToolOutput, ToolError> {
    let target = || Target::orchestrator("probe.run").plugin(args.plugin.as_str());
    let (lines, bytes) = (args.lines, args.bytes);
    let mut slow = ctx.call(target(), Json(Run { lines, bytes })).await?;
    let mut came = Came::default();
    read(&mut slow, &mut came, 1).await;
    let begun = Instant::now();
    let beside = async {
        let small = Run {
            lines: 2_000,
            bytes: 20,
        };
        let mut call = ctx.call(target(), Json(small)).await?;
        let mut came = Came::default();
        read(&mut call, &mut came, 0).await;
        Ok::<_, CallError>((came, millis(begun)))
    };
    let pause = tokio::time::sleep(Duration::from_millis(args.pause));
    let (beside, ()) = futures::future::join(beside, pause).await;
    let paused = Instant::now();
    if args.leave_after > 0 {
        read(&mut slow, &mut came, args.leave_after).await;
        drop(slow);
    } else {
        read(&mut slow, &mut came, 0).await;
    }
    let (beside, beside_ms) = beside?;
    Ok(ToolOutput::new().structured(json!({
        "lines": came.lines,
        "in_order": came.in_order,
        "ends": came.ends,
        "read_ms": millis(paused),
        "beside": { "lines": beside.lines, "ends": beside.ends, "ms": beside_ms },
    })))
}

/// Sends messages and reads them back at the same time.
async fn exchange(args: Exchange, ctx: Context) -> Result<ToolOutput, ToolError> {
    let target = Target::service("probe.back").plugin(args.plugin);
    let (mut requests, mut answers) = ctx.open(target, Json(args.delay)).await?;
    let send = async {
        for number in 0..args.messages {
            if requests.send(line(number, args.bytes)).await.is_err() {
                return number;
            }
            if args.every > 0 {
                tokio::time::sleep(Duration::from_millis(args.every)).await;
            }
        }
        requests.finish();
        args.messages
    };
    let mut came = Came::default();
    let receive = read(&mut answers, &mut came, 0);
    let (sent, ()) = futures::future::join(send, receive).await;
    Ok(ToolOutput::new().structured(json!({
        "sent": sent,
        "lines": came.lines,
        "in_order": came.in_order,
        "ends": came.ends,
    })))
}

/// Sends a payload of one size and asks for an answer of another.
async fn size(args: Size, ctx: Context) -> Result<ToolOutput, ToolError> {
    let target = Target::service("probe.size").plugin(args.plugin);
    let target = target.metadata("answer", args.answer.to_string());
    let call = ctx.call(target, Bytes::from(vec![b'x'; args.bytes])).await;
    let ended = match call {
        Ok(call) => call.finish().await,
        Err(error) => Err(error),
    };
    Ok(ToolOutput::new().structured(match ended {
        Ok(payload) => json!({ "bytes": payload.bytes.len(), "took": payload.content_type }),
        Err(error) => json!({ "code": error.code.name(), "message": error.message }),
    }))
}

/// Adds the streams to a plugin.
pub fn with_streams(plugin: Plugin) -> Plugin {
    plugin
        .orchestrator("probe.run", run)
        .duplex_service("probe.back", back)
        .service("probe.size", async |payload: Bytes, ctx: Context| {
            let answer = ctx.metadata().get("answer").map(|text| text.parse());
            let answer: usize = answer.transpose()?.unwrap_or_default();
            let took = format!("bytes/{}", payload.len());
            Ok(plugmesh_sdk::Payload::new(vec![b'y'; answer], took))
        })
        .tool("follow", follow)
        .tool("exchange", exchange)
        .tool("size", size)
        .tool(Tool::new("streams").read_only(), async |_: NoArgs, _| {
            Ok(json!({ "sent": SENT.get(), "running": RUNNING.get() }))
        })
}
