//! `plugmesh dev`: a whole mesh on this machine, each role a process of its own, watched and stopped
//! in order.

mod args;
mod child;
mod console;
mod follow;
mod lock;
mod mesh;
pub mod nats;
mod plan;
mod plugins;
mod ports;
pub mod ready;
mod report;
mod signals;
pub mod state;

use std::fs;
use std::path::PathBuf;

pub use args::{DEFAULT_DATA, DevArgs};
use console::Console;
use mesh::Mesh;
use plan::Plan;

use crate::exit::Failure;
use crate::output::Output;

/// Starts a mesh, waits for Ctrl-C, stops it.
///
/// # Errors
/// What can't be found, taken, written or started; one clear line.
pub fn run(args: Box<DevArgs>, output: Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime: {error}; check `ulimit -n`")))?;
    let result = runtime.block_on(start(&args, output));
    runtime.shutdown_background();
    result
}

async fn start(args: &DevArgs, output: Output) -> Result<(), Failure> {
    let console = Console::new(output);
    let data = data_folder(args)?;
    let _lock = lock::take(&data)?;
    // Everything that can be wrong is looked at before anything is started.
    let examples = plugins::find(args)?;
    let server = nats::find().await?;
    let plan = Plan::make(args, &data, server, examples)?;
    plan.write()?;
    let mut mesh = Mesh::new(&plan, console, args.verbose)?;
    let ran = mesh.start_and_watch().await;
    let ended = mesh.stop().await;
    state::forget(&data);
    plan::forget_sockets(&data);
    ran.and(ended)
}

/// The folder of all that this mesh keeps, made if need be, as an absolute path.
fn data_folder(args: &DevArgs) -> Result<PathBuf, Failure> {
    let refused = |error: std::io::Error| {
        Failure::cant_create(format!(
            "the folder {} can't be written: {error}; choose another with --data",
            args.data.display()
        ))
    };
    fs::create_dir_all(&args.data).map_err(refused)?;
    let data = args.data.canonicalize().map_err(refused)?;
    if data.to_str().is_none() {
        return Err(Failure::cant_create(format!(
            "the folder {} has a name that is not UTF-8; choose another with --data",
            data.display()
        )));
    }
    for folder in [
        "logs",
        "nats",
        "coordinator",
        "agent-a",
        "agent-b",
        "gateway",
    ] {
        fs::create_dir_all(data.join(folder)).map_err(refused)?;
    }
    Ok(data)
}
