//! The plugin that keeps the ledger: before it works on a call it writes that it begins, and before it
//! answers that it has ended. Each line is one `write`, so what was written outlives a SIGKILL.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use plugmesh_sdk::{Context, LogLevel, Plugin, Tool, ToolError};
use schemars::JsonSchema;
use serde::Deserialize;

/// Where the folder of the ledger and the node's name are passed.
pub const FOLDER: &str = "LEDGER_FOLDER";
pub const NODE: &str = "LEDGER_NODE";

/// What the file `<node>.mode` may hold.
pub const SLOW: &str = "slow";
pub const FLOOD: &str = "flood";

/// How long a slow plugin takes for a call.
const SLOW_WORK: Duration = Duration::from_millis(1_500);

/// Lines of a flooding plugin for each call.
const FLOOD_LINES: u32 = 2_000;

#[derive(Deserialize, JsonSchema)]
struct Args {
    /// The call, the same in all tries
    id: u64,
    /// Which try of the client's
    attempt: u32,
    /// Milliseconds of work
    hold_ms: u64,
    /// Makes it large
    payload: String,
}

struct Ledger {
    file: File,
    mode: PathBuf,
}

impl Ledger {
    fn open() -> std::io::Result<Self> {
        let env = |name| std::env::var(name).map_err(std::io::Error::other);
        let (folder, node) = (PathBuf::from(env(FOLDER)?), env(NODE)?);
        let name = format!("{node}.{}.ledger", std::process::id());
        let file = File::options()
            .create(true)
            .append(true)
            .open(folder.join(name))?;
        let mode = folder.join(format!("{node}.mode"));
        Ok(Self { file, mode })
    }

    fn line(&self, text: String) -> Result<(), ToolError> {
        let written = (&self.file).write_all(text.as_bytes());
        written.map_err(|error| ToolError::new(format!("the ledger: {error}")))
    }

    async fn work(&self, kind: char, args: Args, ctx: Context) -> Result<String, ToolError> {
        let Args { id, attempt, .. } = args;
        drop(args.payload);
        self.line(format!("B {id} {attempt} {kind}\n"))?;
        match std::fs::read_to_string(&self.mode).as_deref() {
            Ok(SLOW) => tokio::time::sleep(SLOW_WORK).await,
            Ok(FLOOD) => {
                for number in 0..FLOOD_LINES {
                    ctx.log(LogLevel::Info, "a flood of lines that nobody asked for");
                    ctx.progress(number.into(), FLOOD_LINES.into(), "still flooding");
                }
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(args.hold_ms)).await;
        self.line(format!("E {id} {attempt} {kind}\n"))?;
        Ok(id.to_string())
    }
}

pub fn main() -> ExitCode {
    let ledger: &'static Ledger = match Ledger::open() {
        Ok(ledger) => Box::leak(Box::new(ledger)),
        Err(error) => {
            println!("the ledger can't be opened ({FOLDER}, {NODE}): {error}");
            return ExitCode::FAILURE;
        }
    };
    Plugin::new("ledger", "1.0.0")
        .description("Writes down what it does")
        .tool(
            Tool::new("safe").idempotent(),
            async move |args: Args, ctx| ledger.work('s', args, ctx).await,
        )
        .tool(Tool::new("once"), async move |args: Args, ctx| {
            ledger.work('o', args, ctx).await
        })
        .main()
}
