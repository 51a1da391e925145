//! Write plugins for Plugmesh in a few lines.
//!
//! A plugin is a program that attaches to the agent of its host and says what it provides: tools,
//! resources and prompts in the sense of MCP, and services that other plugins call. The mesh does the
//! rest: it starts the plugin when what it needs is there, brings it calls, balances and fails over.
//!
//! ```no_run
//! use plugmesh_sdk::{Context, Plugin, Tool, ToolError};
//! use serde_json::json;
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct DivideArgs {
//!     /// What is divided
//!     a: f64,
//!     /// By what it is divided
//!     b: f64,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Plugin::new("calculator", env!("CARGO_PKG_VERSION"))
//!         .description("Arithmetic")
//!         .tool(
//!             Tool::new("divide").description("Divides two numbers").read_only(),
//!             async |args: DivideArgs, _: Context| {
//!                 if args.b == 0.0 {
//!                     return Err(ToolError::new("division by zero"));
//!                 }
//!                 Ok(json!({"quotient": args.a / args.b}))
//!             },
//!         )
//!         .main()
//! }
//! ```
//!
//! - [`Plugin`] puts a plugin together; [`Plugin::main`] runs it.
//! - A [`ChunkSender`] sends the messages of a streaming answer, a [`RequestStream`] takes those of a
//!   streaming request; both go no faster than the other end takes them.
//! - Handlers are async functions or closures. They get their arguments as a type, and a [`Context`]:
//!   calls to other plugins, progress, log, deadline, cancellation, configuration.
//! - All handlers of a plugin run on one thread, interleaved where they wait. What computes for long or
//!   blocks belongs into [`blocking`].
//! - A handler's failure is a [`ToolError`]; any error becomes one by `?`. A panic ends only its call.
//! - Events of `tracing` go to the mesh's log. With `OTEL_EXPORTER_OTLP_ENDPOINT` set, each call is a
//!   span of its caller's trace (feature `otel`, on by default).
//! - [`testing::TestHost`] runs a plugin in a test, by the real protocol and without a mesh.
//!
//! # Environment
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `PLUGMESH_AGENT` | the agent: `unix:///path` or `http://host:port` | `http://127.0.0.1:7410` |
//! | `PLUGMESH_LAUNCH_TOKEN` | set by an agent that starts the plugin itself | |
//! | `RUST_LOG` | what is logged, such as `info,my_plugin=debug` | `info` |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | where spans go, by OTLP over gRPC | none are made |

#[allow(
    dead_code,
    reason = "the protocol has messages that this SDK does not use yet"
)]
mod generated;

mod arguments;
mod attachment;
mod backoff;
mod calls;
mod check;
mod chunks;
mod code;
mod connect;
mod context;
mod definition;
mod describe;
mod error;
mod handler;
mod logging;
mod output;
mod payload;
mod plugin;
mod requests;
mod run;
mod schema;
mod session;
mod signals;
mod tasks;
mod telemetry;
pub mod testing;
mod uri_template;
mod wire;

pub use arguments::NoArgs;
pub use calls::{
    CallEvent, CallStream, Caller, LogLevel, LogLine, Progress, RequestSender, Target, TraceContext,
};
pub use chunks::ChunkSender;
pub use code::ErrorCode;
pub use context::Context;
pub use describe::{Orchestrator, Prompt, Resource, ResourceTemplate, Service, Tool};
pub use error::{CallError, Error, Place, ToolError};
pub use logging::LogLayer;
pub use output::{
    IntoPrompt, IntoResource, IntoToolOutput, PromptOutput, ResourceOutput, ToolOutput,
};
pub use payload::{FromPayload, IntoPayload, Json, Payload};
pub use plugin::Plugin;
pub use requests::RequestStream;
pub use tasks::blocking;
