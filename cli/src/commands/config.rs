//! `plugmesh config`: check, show or describe the configuration.

use mesh_runtime::config::{markdown, schema};
use serde_json::{Value, json};

use crate::args::{ConfigArgs, ConfigCommand};
use crate::config::{CommonFlags, Config, Section};
use crate::exit::Failure;
use crate::output::{self, Output};

/// What stands before the generated reference.
const REFERENCE_HEAD: &str = "\
# Configuration

Every role reads one TOML file, `plugmesh.toml` in the working directory or the one named by `--config`
(or `PLUGMESH_CONFIG`). Later sources win: defaults, file, environment, flags. A role reads the section of
its name and the shared ones; the other sections may be there, so that one file serves all roles.

In the environment two underscores separate section and setting; lists are separated by commas, tables and
lists of tables are JSON; an empty value is no value. Durations are a whole number and `ms`, `s`, `m` or
`h`; sizes are a whole number and `B`, `KiB`, `MiB` or `GiB`.

`plugmesh config check` says every mistake at once, `plugmesh config show` what takes effect,
`plugmesh config schema` prints the JSON Schema, for editors.

Also read: `PLUGMESH_COORDINATOR` and `PLUGMESH_GATEWAY` (whom the operator's commands ask),
`PLUGMESH_NATS_SERVER` (the program that `plugmesh dev` starts), `OTEL_EXPORTER_OTLP_ENDPOINT` and the
other variables of OpenTelemetry for sampling and batches, `NO_COLOR`. A plugin reads `PLUGMESH_AGENT`,
the address that it attaches to.

This page is made from the schemas by `plugmesh config reference`; a test holds it to them.
";

/// Checks, shows or describes.
///
/// # Errors
/// [`crate::exit::CONFIG`] with a line for each mistake.
pub fn run(args: &ConfigArgs, output: Output) -> Result<(), Failure> {
    match &args.what {
        ConfigCommand::Check(flags) => check(flags, output),
        ConfigCommand::Show(flags) => show(flags, output),
        ConfigCommand::Schema => output::json(&schema::of::<Config>()),
        ConfigCommand::Reference => output::line(reference().trim_end()),
    }
}

fn check(flags: &CommonFlags, output: Output) -> Result<(), Failure> {
    flags.load(Section::All, Value::Null)?;
    let file = flags.file().map(|file| file.display().to_string());
    if output == Output::Json {
        return output::json(&json!({ "ok": true, "file": file }));
    }
    let sources = match file {
        Some(file) => format!("{file}, environment and flags"),
        None => "no file; environment and flags".to_owned(),
    };
    output::line(format!("the configuration has no mistakes ({sources})"))
}

fn show(flags: &CommonFlags, output: Output) -> Result<(), Failure> {
    let config = flags.load(Section::All, Value::Null)?;
    if output == Output::Json {
        return output::json(&config);
    }
    let text = toml::to_string_pretty(&config)
        .map_err(|error| Failure::failed(format!("the configuration can't be shown: {error}")))?;
    output::line(text.trim_end())
}

/// The text of `docs/configuration.md`.
fn reference() -> String {
    format!(
        "{REFERENCE_HEAD}{}",
        markdown::<Config>(&[("agent.node", "the machine's name")])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_docs_is_that_of_the_schemas() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            text == reference(),
            "docs/configuration.md is stale: run `cargo run -p cli -- config reference > \
             docs/configuration.md`"
        );
    }
}
