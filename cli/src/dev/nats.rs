//! The private `nats-server`: finding it, its configuration, and whether it answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use semver::Version;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use crate::exit::Failure;
use crate::tied::own_path;

/// The variable that names the program.
const VARIABLE: &str = "PLUGMESH_NATS_SERVER";

/// The oldest that has everything that the mesh uses.
const OLDEST: Version = Version::new(2, 10, 0);

/// Since then a slow subscriber need not slow its producers.
const KNOWS_NO_STALL: Version = Version::new(2, 11, 0);

/// What to do when there is none, or only an old one.
const REMEDY: &str = "`make run` and `scripts/fetch-nats-server.py` of a checkout of Plugmesh fetch \
                      one; or put nats-server 2.10 or newer on PATH, or name it with \
                      PLUGMESH_NATS_SERVER";

/// A usable program.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// Finds the program: the one that the environment names, the one on PATH, the newest in
/// `.tools/nats-server` of this checkout.
///
/// # Errors
/// When there is none, or all are too old.
pub async fn find() -> Result<Server, Failure> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(named);
        let version = version(&path)
            .await
            .map_err(|why| Failure::unavailable(format!("{VARIABLE}: {why}; {REMEDY}")))?;
        if version < OLDEST {
            return Err(too_old(&path, &version));
        }
        return Ok(Server { path, version });
    }
    let mut old = None;
    for path in on_path().into_iter().chain(in_tools()) {
        match version(&path).await {
            Ok(version) if version >= OLDEST => return Ok(Server { path, version }),
            Ok(version) => old = Some((path, version)),
            Err(_) => {}
        }
    }
    Err(match old {
        Some((path, version)) => too_old(&path, &version),
        None => Failure::unavailable(format!("nats-server is not found; {REMEDY}")),
    })
}

fn too_old(path: &Path, version: &Version) -> Failure {
    Failure::unavailable(format!(
        "nats-server {version} at {} is too old; {REMEDY}",
        path.display()
    ))
}

fn on_path() -> Vec<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .map(|folder| folder.join("nats-server"))
        .filter(|path| path.is_file())
        .collect()
}

/// Those of the checkouts that hold the working folder or this program, newest first.
fn in_tools() -> Vec<PathBuf> {
    let own = own_path().map(PathBuf::from).unwrap_or_default();
    let working = std::env::current_dir().unwrap_or_default();
    let mut found: Vec<(Version, PathBuf)> = [working.as_path(), own.as_path()]
        .into_iter()
        .flat_map(Path::ancestors)
        .filter_map(|folder| std::fs::read_dir(folder.join(".tools/nats-server")).ok())
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("nats-server")))
        })
        .filter(|(_, path)| path.is_file())
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// What `nats-server --version` says.
async fn version(path: &Path) -> Result<Version, String> {
    let run = tokio::process::Command::new(path)
        .arg("--version")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(5), run)
        .await
        .map_err(|_| format!("{} --version does not end", path.display()))?
        .map_err(|error| format!("{} can't be run: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    read_version(&text).ok_or_else(|| {
        let text: String = text.trim().chars().take(80).collect();
        format!(
            "{} --version says {text:?}, which is no nats-server's",
            path.display()
        )
    })
}

/// `nats-server: v2.15.1`.
fn read_version(text: &str) -> Option<Version> {
    let (_, version) = text.trim().split_once(": v")?;
    version.parse().ok()
}

impl Server {
    /// The text of its configuration file.
    pub fn config(&self, address: SocketAddr, store: &Path) -> String {
        // JSON texts are texts of this format, too.
        let mut lines = vec![
            "# Written by `plugmesh dev` at each start.".to_owned(),
            "server_name: \"plugmesh-dev\"".to_owned(),
            format!("listen: {}", json!(address.to_string())),
            format!("jetstream {{ store_dir: {} }}", json!(store)),
            "# A client that does not read is cut off before it holds up others.".to_owned(),
            "write_deadline: \"2s\"".to_owned(),
        ];
        if self.version >= KNOWS_NO_STALL {
            lines.push("no_fast_producer_stall: true".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

/// What a server says of itself to who connects.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Its version.
    pub version: String,
    /// Whether it has JetStream.
    pub jetstream: bool,
}

/// Connects and reads the greeting.
///
/// # Errors
/// Why there is none, for a person.
pub async fn greet(address: impl tokio::net::ToSocketAddrs) -> Result<Greeting, String> {
    let greet = async {
        let stream = TcpStream::connect(address).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        Ok::<String, std::io::Error>(line)
    };
    let line = tokio::time::timeout(Duration::from_secs(3), greet)
        .await
        .map_err(|_| "no answer within 3 s".to_owned())?
        .map_err(|error| error.to_string())?;
    let info: Option<Value> = line
        .strip_prefix("INFO ")
        .and_then(|json| serde_json::from_str(json).ok());
    let Some(info) = info else {
        return Err("what listens there is no nats-server".to_owned());
    };
    let version = info.get("version").and_then(Value::as_str);
    Ok(Greeting {
        version: version.unwrap_or("of unknown version").to_owned(),
        jetstream: info.get("jetstream").and_then(Value::as_bool) == Some(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str) -> Option<Server> {
        let version = read_version(&format!("nats-server: v{version}\n"))?;
        let path = PathBuf::from("nats-server");
        Some(Server { path, version })
    }

    #[test]
    fn an_older_server_is_not_told_what_it_does_not_know() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4222));
        let config =
            |version| server(version).map(|server| server.config(address, Path::new("/a b/nats")));
        let old = config("2.10.25").unwrap_or_default();
        assert!(!old.contains("no_fast_producer_stall"), "{old}");
        assert!(old.contains("store_dir: \"/a b/nats\""), "{old}");
        let new = config("2.15.1").unwrap_or_default();
        assert!(new.contains("no_fast_producer_stall: true"), "{new}");
        assert!(server("banana").is_none());
    }
}
