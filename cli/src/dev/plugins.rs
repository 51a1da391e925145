//! The plugins that `dev` starts: the examples, and those of `--plugin`.

use std::path::{Path, PathBuf};

use mesh_core::id::PluginName;
use serde_json::{Value, json};

use super::args::DevArgs;
use crate::exit::{self, Failure};
use crate::tied::own_path;

/// The agents, by name.
pub const AGENTS: [&str; 2] = ["agent-a", "agent-b"];

/// The examples and where they run: two beside each other, one on the other node.
const EXAMPLES: [(&str, &str); 3] = [
    ("agent-a", "calculator"),
    ("agent-b", "time"),
    ("agent-a", "planner"),
];

/// A plugin to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The agent that starts it.
    pub agent: String,
    /// Its name.
    pub name: PluginName,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// It comes with Plugmesh, and so is awaited at the start.
    pub example: bool,
}

impl Launch {
    /// As it stands in an agent's configuration.
    pub fn as_json(&self) -> Value {
        json!({ "name": self.name, "command": self.command })
    }
}

/// All plugins to start.
///
/// # Errors
/// An example that is not built; a wrong `--plugin`.
pub fn find(args: &DevArgs) -> Result<Vec<Launch>, Failure> {
    let mut found = Vec::new();
    if !args.no_plugins {
        let folder = folder(args.plugins_dir.as_deref())?;
        for (agent, name) in EXAMPLES {
            found.push(example(&folder, agent, name)?);
        }
    }
    for text in &args.plugin {
        found.push(read(text)?);
    }
    Ok(found)
}

fn folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let own = match given {
        Some(folder) => folder.to_owned(),
        None => Path::new(&own_path()?)
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default(),
    };
    // The agents run elsewhere than where a relative path was meant, should they ever.
    own.canonicalize().map_err(|error| {
        Failure::unavailable(format!(
            "--plugins-dir: {} can't be used: {error}; give the folder of the example plugins",
            own.display()
        ))
    })
}

fn example(folder: &Path, agent: &str, name: &str) -> Result<Launch, Failure> {
    let program = folder.join(name);
    if !program.is_file() {
        return Err(Failure::unavailable(format!(
            "the example plugin {name} is not in {}; build it with `cargo build --release`, give \
             its folder with --plugins-dir, or start without the examples with --no-plugins",
            folder.display()
        )));
    }
    let name = PluginName::new(name).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(Launch {
        agent: agent.to_owned(),
        name,
        command: vec![program.display().to_string()],
        example: true,
    })
}

/// `AGENT=COMMAND` or `AGENT/NAME=COMMAND`.
fn read(text: &str) -> Result<Launch, Failure> {
    let refused = |why: String| {
        let message = format!("--plugin: {text:?}: {why}; write for example agent-a=./my-plugin");
        Failure::new(exit::USAGE, message)
    };
    let Some((place, command)) = text.split_once('=') else {
        return Err(refused("it is not AGENT=COMMAND".to_owned()));
    };
    let (agent, name) = match place.split_once('/') {
        Some((agent, name)) => (agent, Some(name.to_owned())),
        None => (place, None),
    };
    if !AGENTS.contains(&agent) {
        let agents = AGENTS.join(" and ");
        return Err(refused(format!(
            "there is no agent {agent:?}, there are {agents}"
        )));
    }
    let command = words(command).map_err(|why| refused(why.to_owned()))?;
    let Some(program) = command.first() else {
        return Err(refused("the command is empty".to_owned()));
    };
    let own = || {
        let stem = Path::new(program).file_stem().unwrap_or_default();
        stem.to_string_lossy().to_lowercase().replace('_', "-")
    };
    let name = PluginName::new(&name.unwrap_or_else(own));
    let name = name.map_err(|error| refused(error.to_string()))?;
    Ok(Launch {
        agent: agent.to_owned(),
        name,
        command,
        example: false,
    })
}

/// Splits a command as a shell would, without anything but quotes.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let (mut found, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in text.chars() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => word.get_or_insert_default().push(character),
            None if character == '\'' || character == '"' => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            None if character.is_whitespace() => found.extend(word.take()),
            None => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    found.extend(word);
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_named_after_its_program_unless_a_name_is_given() {
        let launch = read("agent-b=/bin/My_Plugin.py --flag 'two words' \"\"").unwrap();
        assert_eq!(launch.name.as_str(), "my-plugin");
        assert_eq!(
            launch.command,
            ["/bin/My_Plugin.py", "--flag", "two words", ""]
        );
        assert_eq!(read("agent-a/other=x").unwrap().name.as_str(), "other");
    }

    #[test]
    fn what_is_no_plugin_is_refused_with_an_example() {
        for (text, why) in [
            ("./x", "not AGENT=COMMAND"),
            ("agent-c=./x", "there are agent-a and agent-b"),
            ("agent-a=", "empty"),
            ("agent-a='x", "quote"),
            ("agent-a/A=x", "lowercase"),
        ] {
            let failure = read(text).unwrap_err();
            assert_eq!(failure.code, exit::USAGE);
            assert!(failure.message.contains(why), "{failure:?}");
            assert!(
                failure.message.contains("for example agent-a="),
                "{failure:?}"
            );
        }
    }
}
