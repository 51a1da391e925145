//! The plugin that the suites probe a mesh with. One program plays many plugins: `PROBE_NAME`,
//! `PROBE_VERSION` and `PROBE_DEPENDS` (such as `base^1.0,other>=2`, optional with a `?` at the end)
//! say which one,
//! `PROBE_CONCURRENCY` how many calls it takes at a time, `PROBE_BROKEN` that it can't tell its version.

use std::cell::Cell;
use std::process::ExitCode;
use std::time::Duration;

use harness::{load, streams};
use plugmesh_sdk::{
    ChunkSender, Context, Json, LogLevel, NoArgs, Payload, Plugin, Prompt, RequestStream, Resource,
    ResourceTemplate, Service, Target, Tool, ToolError, ToolOutput,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Echo {
    /// What comes back
    text: String,
}

#[derive(Deserialize, JsonSchema)]
struct Sleep {
    /// Milliseconds
    ms: u64,
}

#[derive(Deserialize, JsonSchema)]
struct Nest {
    /// The plugin that sleeps
    plugin: String,
    /// Milliseconds
    ms: u64,
    /// Milliseconds until it begins
    #[serde(default)]
    first_ms: u64,
}

#[derive(Deserialize, JsonSchema)]
struct Log {
    /// RFC 5424 level in small letters
    level: String,
    message: String,
}

#[derive(Deserialize, JsonSchema)]
struct Greet {
    /// Whom
    name: String,
}

#[derive(Deserialize, JsonSchema)]
struct Item {
    id: String,
}

#[derive(Deserialize, JsonSchema)]
struct Load {
    /// The plugin whose echo is called
    plugin: String,
    in_flight: usize,
    /// Milliseconds
    ms: u64,
    /// Size of the payload
    bytes: usize,
    /// Other processes whose time counts
    pids: Vec<u32>,
}

thread_local! {
    /// Calls of `sleep` that run now.
    static SLEEPING: Cell<u32> = const { Cell::new(0) };
}

/// Counts a call for as long as it runs, however it ends.
struct Sleeping;

impl Sleeping {
    fn begin() -> Self {
        SLEEPING.set(SLEEPING.get() + 1);
        Self
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        SLEEPING.set(SLEEPING.get() - 1);
    }
}

/// Sleeps and tells every 100 ms how far it is.
async fn sleep(args: Sleep, ctx: Context) -> Result<String, ToolError> {
    let _running = Sleeping::begin();
    let mut slept = 0;
    while slept < args.ms {
        let nap = (args.ms - slept).min(100);
        tokio::time::sleep(Duration::from_millis(nap)).await;
        slept += nap;
        ctx.progress(slept as f64, args.ms as f64, format!("{slept} ms"));
    }
    Ok(format!("slept {slept} ms"))
}

/// Sleeps in another plugin.
async fn nest(args: Nest, ctx: Context) -> Result<ToolOutput, ToolError> {
    let _running = Sleeping::begin();
    tokio::time::sleep(Duration::from_millis(args.first_ms)).await;
    let arguments = serde_json::json!({"ms": args.ms});
    Ok(ctx.call_tool(&args.plugin, "sleep", &arguments).await?)
}

/// The version of another plugin that answers this one's calls.
async fn version_of(args: Greet, ctx: Context) -> Result<ToolOutput, ToolError> {
    let none = serde_json::json!({});
    Ok(ctx.call_tool(&args.name, "version", &none).await?)
}

/// Takes its time and tells nobody.
async fn work(args: Sleep, _ctx: Context) -> Result<String, ToolError> {
    tokio::time::sleep(Duration::from_millis(args.ms)).await;
    Ok("worked".to_owned())
}

async fn log(args: Log, ctx: Context) -> Result<String, ToolError> {
    let level = match args.level.as_str() {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "notice" => LogLevel::Notice,
        "warning" => LogLevel::Warning,
        "error" => LogLevel::Error,
        "critical" => LogLevel::Critical,
        other => return Err(ToolError::new(format!("level: {other:?} is not known"))),
    };
    ctx.log(level, args.message);
    Ok("logged".to_owned())
}

/// Calls the echo of another plugin in a closed loop and tells what it saw.
async fn run_load(args: Load, ctx: Context) -> Result<ToolOutput, ToolError> {
    let payload = bytes::Bytes::from(vec![b'x'; args.bytes]);
    let time = Duration::from_millis(args.ms);
    let plugin = args.plugin;
    let figures = load::run(args.in_flight, time, &args.pids, move || {
        let (ctx, payload) = (ctx.clone(), payload.clone());
        let target = Target::service("probe.echo").plugin(plugin.clone());
        async move {
            let size = payload.len();
            let payload = Payload::new(payload, "application/octet-stream");
            let call = ctx
                .call(target, payload)
                .await
                .map_err(|error| error.to_string())?;
            let answer = call.finish().await.map_err(|error| error.to_string())?;
            if answer.bytes.len() == size {
                return Ok(());
            }
            Err(format!("{} bytes came back of {size}", answer.bytes.len()))
        }
    })
    .await;
    let figures =
        serde_json::to_value(figures).map_err(|error| ToolError::new(error.to_string()))?;
    Ok(ToolOutput::new().structured(figures))
}

fn main() -> ExitCode {
    let env =
        |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut plugin = Plugin::new(env("PROBE_NAME", "probe"), env("PROBE_VERSION", "1.0.0"))
        .description("What the suites probe a mesh with");
    if let Ok(calls) = env("PROBE_CONCURRENCY", "").parse() {
        plugin = plugin.concurrency(calls);
    }
    let depends = env("PROBE_DEPENDS", "");
    for dependency in depends.split(',').filter(|text| !text.is_empty()) {
        let optional = dependency.strip_suffix('?');
        let dependency = optional.unwrap_or(dependency);
        let end = dependency
            .find(['^', '~', '>', '<', '=', '*'])
            .unwrap_or(dependency.len());
        let (name, requirement) = dependency.split_at(end);
        let requirement = match requirement {
            "" => "*",
            some => some,
        };
        plugin = match optional {
            Some(_) => plugin.can_use(name, requirement),
            None => plugin.depends_on(name, requirement),
        };
    }
    let name = env("PROBE_NAME", "probe");
    if !env("PROBE_STREAMS", "").is_empty() {
        plugin = streams::with_streams(plugin);
    }
    plugin
        .tool(Tool::new("echo").read_only(), async |args: Echo, _| {
            Ok(args.text)
        })
        .tool(Tool::new("sleep"), sleep)
        .tool(Tool::new("nap").idempotent(), sleep)
        .tool(Tool::new("nest"), nest)
        .tool(Tool::new("work"), work)
        .tool(Tool::new("log"), log)
        .tool(Tool::new("load"), run_load)
        .tool(Tool::new("fail"), async |_: NoArgs, _| {
            Err::<String, _>(ToolError::new("it failed, as it was told to"))
        })
        .tool(
            Tool::new("version").read_only(),
            async |_: NoArgs, _| match std::env::var("PROBE_BROKEN") {
                Ok(_) => Err(ToolError::new("it is broken")),
                Err(_) => Ok(std::env::var("PROBE_VERSION").unwrap_or_default()),
            },
        )
        .tool(Tool::new("version_of").read_only(), version_of)
        .tool(Tool::new("pid").read_only(), async |_: NoArgs, _| {
            Ok(std::process::id().to_string())
        })
        .tool(Tool::new("running").read_only(), async |_: NoArgs, _| {
            Ok(SLEEPING.get().to_string())
        })
        .resource(
            Resource::new(format!("{name}://data"))
                .name("Data")
                .mime_type("application/json"),
            async |_| Ok(Json(serde_json::json!({"answer": 42}))),
        )
        .resource_template(
            ResourceTemplate::new(format!("{name}://item/{{id}}")).name("An item"),
            async |item: Item, _| Ok(format!("item {}", item.id)),
        )
        .prompt(
            Prompt::new("greet").description("Greets"),
            async |args: Greet, _| Ok(format!("Say hello to {}", args.name)),
        )
        .service(
            Service::new("probe.echo").idempotent(),
            async |payload: Payload, _| Ok(payload),
        )
        .service("probe.work", async |Json(args): Json<Sleep>, ctx| {
            work(args, ctx).await
        })
        .client_streaming_service(
            "probe.take",
            async |_: (), mut messages: RequestStream, _| {
                let mut taken = 0_u32;
                while messages.next().await?.is_some() {
                    taken += 1;
                }
                Ok(Json(taken))
            },
        )
        .streaming_service(
            "probe.count",
            async |Json(count): Json<u32>, mut chunks: ChunkSender, _| {
                for number in 0..count {
                    chunks.send(number.to_string()).await?;
                }
                Ok(())
            },
        )
        .main()
}
