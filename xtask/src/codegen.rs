//! Generates the Rust bindings from `proto/`, and finds where the checked-in ones have drifted.
//!
//! The compiler is protox, so building the project or regenerating it needs no `protoc`. The output
//! is checked in: a reader sees it, and a build needs neither this crate nor the .proto files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use prost_types::FileDescriptorSet;

/// One crate that gets bindings.
struct Target {
    /// Holds generated files only: whatever else is in it is removed.
    folder: &'static str,
    /// The packages it gets; None is all.
    packages: Option<&'static [&'static str]>,
    server: bool,
    /// Whether it gets `descriptor.bin`, which gRPC reflection serves.
    descriptor: bool,
}

const TARGETS: &[Target] = &[
    Target {
        folder: "mesh-proto/src/generated",
        packages: None,
        server: true,
        descriptor: true,
    },
    // The SDK has its own copy because it depends on no crate of ours, and gets only what a plugin
    // may know.
    Target {
        folder: "plugin-sdk/rust/src/generated",
        packages: Some(&["plugmesh.common.v1", "plugmesh.plugin.v1"]),
        server: false,
        descriptor: false,
    },
];

/// Fields that are kept in a box: a frame is as large as the largest thing that it can hold, and every
/// frame of every call is moved several times.
const BOXED: &[&str] = &[
    ".plugmesh.plugin.v1.PluginFrame.body.hello",
    ".plugmesh.plugin.v1.PluginFrame.body.call",
    ".plugmesh.plugin.v1.PluginFrame.body.publish",
    ".plugmesh.plugin.v1.PluginFrame.body.message",
    ".plugmesh.plugin.v1.PluginFrame.body.error",
    ".plugmesh.plugin.v1.PluginFrame.body.log",
    ".plugmesh.plugin.v1.PluginFrame.body.storage",
    ".plugmesh.plugin.v1.HostFrame.body.welcome",
    ".plugmesh.plugin.v1.HostFrame.body.invoke",
    ".plugmesh.plugin.v1.HostFrame.body.event",
    ".plugmesh.plugin.v1.HostFrame.body.message",
    ".plugmesh.plugin.v1.HostFrame.body.hook",
    ".plugmesh.plugin.v1.HostFrame.body.error",
    ".plugmesh.plugin.v1.HostFrame.body.log",
    ".plugmesh.plugin.v1.HostFrame.body.storage",
    ".plugmesh.control.v1.NodeReply.body.error",
    ".plugmesh.control.v1.NodeReply.body.log",
];

const DESCRIPTOR: &str = "descriptor.bin";

const HEAD: &str = "//! Generated from `proto/` by `make codegen`: change it there, not here.

#![allow(
    missing_docs,
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    clippy::all,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = \"generated code follows its generator's taste\"
)]

";

const DESCRIPTOR_ITEM: &str = "
/// All of `proto/` as a serialized `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(\"descriptor.bin\");
";

/// File name to content.
type Files = BTreeMap<String, Vec<u8>>;

/// Brings every target's folder up to date.
pub fn write(root: &Path) -> Result<()> {
    for target in TARGETS {
        let folder = root.join(target.folder);
        let wanted = generate(root, target)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", target.folder))?;
        let present = read_folder(&folder)?;
        for name in present.keys().filter(|name| !wanted.contains_key(*name)) {
            fs::remove_file(folder.join(name))
                .with_context(|| format!("cannot remove {}/{name}", target.folder))?;
        }
        for (name, content) in &wanted {
            // A file left alone keeps its time, and cargo does not build it again.
            if present.get(name) != Some(content) {
                fs::write(folder.join(name), content)
                    .with_context(|| format!("cannot write {}/{name}", target.folder))?;
            }
        }
    }
    Ok(())
}

/// One line for each generated file that is not what `proto/` gives now.
pub fn drift(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for target in TARGETS {
        let wanted = generate(root, target)?;
        let present = read_folder(&root.join(target.folder))?;
        compare(target.folder, &wanted, &present, &mut found);
    }
    Ok(found)
}

fn compare(folder: &str, wanted: &Files, present: &Files, found: &mut Vec<String>) {
    for (name, content) in wanted {
        let what = match present.get(name) {
            None => "is missing",
            Some(other) if other != content => "is not what proto/ gives now",
            Some(_) => continue,
        };
        found.push(format!(
            "{folder}/{name}:1: {what}: run `make codegen` and commit it"
        ));
    }
    for name in present.keys().filter(|name| !wanted.contains_key(*name)) {
        found.push(format!(
            "{folder}/{name}:1: comes from no file in proto/: run `make codegen` and commit it"
        ));
    }
}

/// The files of a target's folder; empty when there is no such folder.
fn read_folder(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    let context = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, fs::read(entry.path()).with_context(context)?);
    }
    Ok(files)
}

/// What a target's folder should hold.
fn generate(root: &Path, target: &Target) -> Result<Files> {
    let proto = root.join("proto");
    let mut sources = Vec::new();
    find_protos(&proto.join("plugmesh"), &mut sources)?;
    if sources.is_empty() {
        bail!("there is no .proto file in proto/plugmesh");
    }
    sources.sort();

    let mut compiler = protox::Compiler::new([&proto])?;
    compiler.include_imports(true).include_source_info(true);
    compiler
        .open_files(&sources)
        .map_err(|error| anyhow!("proto/{error:?}"))?; // its Display leaves the place out
    let mut set = compiler.file_descriptor_set();
    if let Some(packages) = target.packages {
        keep_packages(&mut set, packages)?;
    }

    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut config = tonic_prost_build::configure();
    for field in BOXED {
        config = config.boxed(field);
    }
    config
        .build_client(true)
        .build_server(target.server)
        .build_transport(false)
        .bytes(".")
        // Nearly all are empty, and then cost nothing to make.
        .btree_map(".")
        .include_file("mod.rs")
        .emit_rerun_if_changed(false)
        .out_dir(work.path())
        .compile_fds(set)
        .context("cannot generate Rust")?;

    let mut files = read_folder(work.path())?;
    let modules = files.remove("mod.rs").unwrap_or_default();
    let mut head = HEAD.as_bytes().to_vec();
    head.extend(modules);
    if target.descriptor {
        head.extend(DESCRIPTOR_ITEM.as_bytes());
        // Comments are for readers of the sources; reflection has no use for them.
        let descriptor = compiler.include_source_info(false);
        files.insert(
            DESCRIPTOR.to_owned(),
            descriptor.encode_file_descriptor_set(),
        );
    }
    files.insert("mod.rs".to_owned(), head);
    Ok(files)
}

/// Drops all packages but these, and refuses when one that stays needs one that goes.
fn keep_packages(set: &mut FileDescriptorSet, packages: &[&str]) -> Result<()> {
    let ours = |name: &str| name.starts_with("plugmesh/");
    let kept = |package: &str| packages.contains(&package);
    set.file
        .retain(|file| !ours(file.name()) || kept(file.package()));
    for file in &set.file {
        let absent = |name: &&String| ours(name) && !set.file.iter().any(|f| f.name() == *name);
        if let Some(import) = file.dependency.iter().find(absent) {
            bail!(
                "proto/{} imports {import}, which plugins may not know",
                file.name()
            );
        }
    }
    Ok(())
}

fn find_protos(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.is_dir() {
            find_protos(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! A small proto folder, generated, then made to drift.

    use super::*;

    const COMMON: &str = r#"syntax = "proto3";
package plugmesh.common.v1;
// A payload.
message Blob { bytes data = 1; }
"#;
    const PLUGIN: &str = r#"syntax = "proto3";
package plugmesh.plugin.v1;
import "plugmesh/common/v1/common.proto";
service PluginHost { rpc Attach(stream plugmesh.common.v1.Blob) returns (stream plugmesh.common.v1.Blob); }
"#;
    const CONTROL: &str = r#"syntax = "proto3";
package plugmesh.control.v1;
import "google/protobuf/duration.proto";
message Lease { google.protobuf.Duration left = 1; }
"#;

    fn planted() -> Result<tempfile::TempDir> {
        let (folder, _) = crate::tree::Tree::planted(&[
            ("proto/plugmesh/common/v1/common.proto", COMMON),
            ("proto/plugmesh/plugin/v1/plugin.proto", PLUGIN),
            ("proto/plugmesh/control/v1/control.proto", CONTROL),
        ])?;
        write(folder.path())?;
        Ok(folder)
    }

    #[test]
    fn what_was_just_written_has_not_drifted() -> Result<()> {
        let folder = planted()?;
        assert_eq!(drift(folder.path())?, Vec::<String>::new());
        let common = fs::read_to_string(
            folder
                .path()
                .join("mesh-proto/src/generated/plugmesh.common.v1.rs"),
        )?;
        assert!(common.contains("/// A payload."), "{common}");
        assert!(common.contains("bytes::Bytes"), "{common}");
        Ok(())
    }

    #[test]
    fn the_sdk_gets_no_server_and_no_package_but_its_own() -> Result<()> {
        let folder = planted()?;
        let generated = folder.path().join("plugin-sdk/rust/src/generated");
        let files = read_folder(&generated)?;
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["mod.rs", "plugmesh.common.v1.rs", "plugmesh.plugin.v1.rs"]
        );
        let plugin = fs::read_to_string(generated.join("plugmesh.plugin.v1.rs"))?;
        assert!(plugin.contains("plugin_host_client"));
        assert!(!plugin.contains("plugin_host_server"));
        Ok(())
    }

    #[test]
    fn every_drifting_file_is_named() -> Result<()> {
        let folder = planted()?;
        let generated = folder.path().join("mesh-proto/src/generated");
        fs::write(generated.join("plugmesh.common.v1.rs"), "edited")?;
        fs::write(generated.join("stray.rs"), "")?;
        fs::remove_file(generated.join("descriptor.bin"))?;
        let found = drift(folder.path())?.join("\n");
        for line in [
            "mesh-proto/src/generated/plugmesh.common.v1.rs:1: is not what proto/ gives now",
            "mesh-proto/src/generated/stray.rs:1: comes from no file in proto/",
            "mesh-proto/src/generated/descriptor.bin:1: is missing",
        ] {
            assert!(found.contains(line), "{found}");
        }
        write(folder.path())?;
        assert!(drift(folder.path())?.is_empty());
        Ok(())
    }

    #[test]
    fn the_plugin_protocol_may_not_import_the_control_protocol() -> Result<()> {
        let plugin = PLUGIN.replace("common/v1/common.proto\"", "control/v1/control.proto\"");
        let plugin = plugin.replace("plugmesh.common.v1.Blob", "plugmesh.control.v1.Lease");
        let (folder, _) = crate::tree::Tree::planted(&[
            ("proto/plugmesh/control/v1/control.proto", CONTROL),
            ("proto/plugmesh/plugin/v1/plugin.proto", &plugin),
        ])?;
        let error = drift(folder.path()).err().context("it was accepted")?;
        assert!(
            format!("{error:#}").contains("plugins may not know"),
            "{error:#}"
        );
        Ok(())
    }
}
