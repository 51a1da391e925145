//! `plugmesh registry`: operators' wishes as a file, and back.

mod file;
mod plan;

use std::io::{IsTerminal, Write};

use mesh_proto::admin::{ListWishesRequest, SetWishRequest};
use mesh_proto::control::Revision;
use serde_json::json;

use self::file::{Stored, Wishes};
use self::plan::{Step, left_alone, plan};
use crate::admin::Admin;
use crate::args::{CoordinatorFlags, RegistryArgs, RegistryCommand};
use crate::exit::{self, Failure};
use crate::output::{self, Output};

/// Exports or imports.
///
/// # Errors
/// A bad file, a registry that changed meanwhile, or what the coordinator says.
pub async fn run(args: RegistryArgs, output: Output) -> Result<(), Failure> {
    match args.what {
        RegistryCommand::Export { ask, out } => export(&ask, out.as_deref()).await,
        RegistryCommand::Import { ask, file, yes } => import(&ask, &file, yes, output).await,
    }
}

async fn export(ask: &CoordinatorFlags, out: Option<&std::path::Path>) -> Result<(), Failure> {
    let mut admin = Admin::connect(ask).await?;
    let Stored {
        wishes, rollouts, ..
    } = stored(&mut admin).await?;
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC");
    let text = wishes.write(&now.to_string(), &rollouts)?;
    let Some(path) = out else {
        return output::line(text.trim_end());
    };
    std::fs::write(path, text)
        .map_err(|error| Failure::cant_create(format!("--out: {}: {error}", path.display())))?;
    output::note(format!("{} wishes in {}", wishes.len(), path.display()));
    Ok(())
}

async fn import(
    ask: &CoordinatorFlags,
    path: &std::path::Path,
    yes: bool,
    output: Output,
) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        let remedy = "name a file that `plugmesh registry export` wrote";
        Failure::data(format!("{path}: {error}: {remedy}"))
    })?;
    let wanted =
        Wishes::read(&text).map_err(|why| Failure::data(format!("{}: {why}", path.display())))?;
    let mut admin = Admin::connect(ask).await?;
    let before = stored(&mut admin).await?;
    let steps = plan(&before.wishes, &wanted, &before.rollouts);
    let left = left_alone(&before.wishes, &wanted, &before.rollouts);
    if output == Output::Json {
        let steps: Vec<_> = steps.iter().map(Step::as_json).collect();
        output::json(&json!({ "plan": steps, "left": left, "apply": yes }))?;
    } else {
        for step in &steps {
            output::line(step.to_string())?;
        }
        output::line(plan::summary(&steps, &left))?;
    }
    for line in &left {
        output::note(line);
    }
    if steps.is_empty() {
        return Ok(());
    }
    if !yes && !confirmed()? {
        return Err(Failure::failed("nothing was changed"));
    }
    let steps = steps.into_iter().map(|step| {
        let expected = before.revision(&step.plugin, step.is_split());
        (step, expected)
    });
    apply(&mut admin, steps.collect()).await
}

fn confirmed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        let message = "nobody can be asked here: add --yes to carry out the plan";
        return Err(Failure::new(exit::USAGE, message));
    }
    let _ = write!(std::io::stderr().lock(), "carry it out? (yes/no) ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::failed(format!("can't read from stdin: {error}")))?;
    Ok(answer.trim() == "yes")
}

/// What operators want now.
async fn stored(admin: &mut Admin) -> Result<Stored, Failure> {
    let request = Admin::request(ListWishesRequest {});
    let answer = admin.client().list_wishes(request).await;
    let answer = answer
        .map_err(|status| admin.failure(&status))?
        .into_inner();
    Stored::try_from(answer).map_err(|why| {
        Failure::failed(format!("the coordinator's answer is not understood: {why}"))
    })
}

/// Carries out all steps, each only if nobody has changed the same since the plan. One that others
/// stand in the way of is tried again after them.
async fn apply(admin: &mut Admin, steps: Vec<(Step, Revision)>) -> Result<(), Failure> {
    let all = steps.len();
    let mut left = steps;
    loop {
        let mut failed = Vec::new();
        let before = left.len();
        for (step, expected) in left {
            let request = Admin::request(SetWishRequest {
                expected: Some(expected),
                ..step.to_wire()
            });
            if let Err(status) = admin.client().set_wish(request).await {
                failed.push((step, expected, status));
            }
        }
        if failed.is_empty() {
            output::note(format!("{} carried out", output::count(all, "change")));
            return Ok(());
        }
        if failed.len() == before {
            let done = all - before;
            let lines = failed
                .iter()
                .map(|(step, _, status)| format!("{step}: {}", admin.failure(status).message));
            let mut lines: Vec<String> = lines.collect();
            lines.push(format!("{done} of {all} changes were carried out"));
            return Err(Failure::failed(lines.join("\n")));
        }
        let again = failed.into_iter();
        left = again.map(|(step, expected, _)| (step, expected)).collect();
    }
}
