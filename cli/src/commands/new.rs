//! `plugmesh new NAME`: a plugin to start from, with a test.

use std::fs;
use std::path::{Path, PathBuf};

use mesh_core::id::PluginName;
use serde_json::json;

use crate::args::NewArgs;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Path within the new folder and text of each file of `template/`.
const TEMPLATE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/template.rs"));

/// Names that Cargo or Rust refuses for a package.
const RESERVED: &[&str] = &[
    "abstract",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "alloc",
    "build",
    "deps",
    "examples",
    "incremental",
];

/// Makes a plugin in ./NAME.
///
/// # Errors
/// A wrong name, a folder that is there already, or one that can't be written.
pub fn run(args: &NewArgs, output: Output) -> Result<(), Failure> {
    let name = check(&args.name)?;
    let folder = PathBuf::from(name.as_str());
    if folder.exists() {
        return Err(Failure::cant_create(format!(
            "./{name} is there already; choose another name, or remove it"
        )));
    }
    let sdk = sdk_dependency(args.sdk.as_deref())?;
    if let Err(failure) = write(&folder, &name, &sdk) {
        // Half a plugin is of no use, and the folder was not there before.
        let _ = fs::remove_dir_all(&folder);
        return Err(failure);
    }
    if output == Output::Json {
        let files: Vec<&str> = TEMPLATE.iter().map(|(path, _)| *path).collect();
        return output::json(&json!({ "name": name, "folder": folder, "files": files }));
    }
    output::line(format!(
        "made the plugin {name} in ./{name}; next:\n\n  cd {name}\n  cargo test\n  cargo run   \
         # attaches to the mesh of `plugmesh dev`"
    ))
}

fn check(text: &str) -> Result<PluginName, Failure> {
    let name = PluginName::new(text).map_err(|error| Failure::data(error.to_string()))?;
    let why = if RESERVED.contains(&text) {
        "it is a word that Rust or Cargo keeps for itself"
    } else if text.starts_with(|first: char| first.is_ascii_digit()) {
        "a Rust crate's name does not begin with a digit"
    } else {
        return Ok(name);
    };
    Err(Failure::data(format!(
        "plugin name {text:?} can't be used: {why}; choose another, such as my-{text}"
    )))
}

/// How the new crate names the SDK: by the path that was given, by that of the checkout which this
/// program was built in, or by version.
fn sdk_dependency(given: Option<&Path>) -> Result<String, Failure> {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-sdk/rust");
    let folder = match given {
        Some(folder) => folder.to_owned(),
        None if built_in.join("Cargo.toml").is_file() => built_in,
        None => return Ok(format!("{:?}", env!("CARGO_PKG_VERSION"))),
    };
    if !folder.join("Cargo.toml").is_file() {
        return Err(Failure::data(format!(
            "--sdk: {} is not the folder of a crate; give that of plugmesh-sdk, plugin-sdk/rust in a \
             checkout of Plugmesh",
            folder.display()
        )));
    }
    let folder = folder.canonicalize().map_err(|error| {
        Failure::data(format!(
            "--sdk: {} can't be used: {error}",
            folder.display()
        ))
    })?;
    // A JSON text is a TOML text.
    Ok(format!("{{ path = {} }}", json!(folder)))
}

fn write(folder: &Path, name: &PluginName, sdk: &str) -> Result<(), Failure> {
    if TEMPLATE.is_empty() {
        return Err(Failure::failed(
            "this program was built without the template of a plugin",
        ));
    }
    for (path, text) in TEMPLATE {
        let path = folder.join(path);
        let text = text
            .replace("{{name}}", name.as_str())
            .replace("{{crate_name}}", &name.as_str().replace('-', "_"))
            .replace("{{sdk_dependency}}", sdk);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| {
                Failure::cant_create(format!(
                    "{} can't be written: {error}; go to a folder that this user may write to",
                    path.display()
                ))
            })?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_can_be_no_plugin_or_crate_is_refused_with_the_rule() {
        for (name, why) in [
            ("Hello", "lowercase"),
            ("a_b", "hyphens"),
            ("", "1 to 63"),
            ("../up", "lowercase"),
            ("match", "keeps for itself"),
            ("7zip", "digit"),
        ] {
            let failure = check(name).unwrap_err();
            assert_eq!(failure.code, crate::exit::DATA, "{name}");
            assert!(failure.message.contains(why), "{failure:?}");
        }
        assert!(check("hello-2").is_ok());
    }

    #[test]
    fn no_placeholder_is_left_in_a_new_plugin() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = folder.path().join("my-plugin");
        write(&plugin, &"my-plugin".parse().unwrap(), "\"0.1\"").unwrap();
        let mut seen = 0;
        for (path, _) in TEMPLATE {
            let text = fs::read_to_string(plugin.join(path)).unwrap();
            assert!(!text.contains("{{"), "{path}");
            seen += 1;
        }
        assert!(seen > 0);
    }

    #[test]
    fn a_folder_that_is_no_crate_is_no_sdk() {
        let failure = sdk_dependency(Some(Path::new("/nowhere"))).unwrap_err();
        assert!(
            failure.message.starts_with("--sdk: /nowhere is not"),
            "{failure:?}"
        );
    }
}
