//! Write plugins for Plugmesh in a few lines.

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
pub use calls::{CallEvent, CallStream, Caller, LogLevel, LogLine, Progress, Target, TraceContext};
pub use chunks::ChunkSender;
pub use code::ErrorCode;
pub use context::Context;
pub use describe::{Prompt, Resource, ResourceTemplate, Service, Tool};
pub use error::{CallError, Error, Place, ToolError};
pub use logging::LogLayer;
pub use output::{
    IntoPrompt, IntoResource, IntoToolOutput, PromptOutput, ResourceOutput, ToolOutput,
};
pub use payload::{FromPayload, IntoPayload, Json, Payload};
pub use plugin::Plugin;
pub use tasks::blocking;
