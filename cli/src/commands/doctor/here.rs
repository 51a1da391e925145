//! What can be seen on this machine alone: programs, folders, limits, ports.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::{Check, Subject};
use crate::dev::nats;

/// Fewer open files than this are too few for a mesh at rest.
const LEAST_FILES: u64 = 1_024;

/// With fewer than this a busy gateway runs out.
const GOOD_FILES: u64 = 4_096;

/// All of them.
pub async fn checks(subject: &Subject, dev_data: &Path) -> Vec<Check> {
    let mut checks = vec![nats_program().await, open_files()];
    let config = &subject.config;
    let mut folders = vec![dev_data];
    if !subject.dev {
        folders.extend([
            config.agent.data_dir.as_path(),
            config.gateway.data_dir.as_path(),
        ]);
    }
    checks.extend(folders.into_iter().map(folder));
    checks
}

/// Only `dev` needs it.
async fn nats_program() -> Check {
    match nats::find().await {
        Ok(server) => {
            let found = format!("{} at {}", server.version, server.path.display());
            Check::ok("nats-server", found)
        }
        Err(failure) => {
            let (found, remedy) = failure
                .message
                .split_once("; ")
                .unwrap_or((failure.message.as_str(), ""));
            Check::warn(
                "nats-server",
                format!("{found} (`plugmesh dev` needs it)"),
                remedy,
            )
        }
    }
}

fn open_files() -> Check {
    let limit = getrlimit(Resource::Nofile).current;
    let found = limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    let remedy = "run `ulimit -n 65536` before the mesh is started, or set LimitNOFILE in its unit";
    match limit {
        Some(limit) if limit < LEAST_FILES => Check::fail("open files", found, remedy),
        Some(limit) if limit < GOOD_FILES => Check::warn("open files", found, remedy),
        _ => Check::ok("open files", found),
    }
}

/// Whether the folder, or the nearest one above it that exists, can be written.
fn folder(folder: &Path) -> Check {
    let shown = folder.display();
    let remedy = "make it writable for this user, or name another folder";
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let Some(there) = whole.ancestors().find(|part| part.exists()) else {
        return Check::fail("folder", format!("{shown} can't be found"), remedy);
    };
    let name = format!(".plugmesh-doctor-{}", std::process::id());
    let probe = there.join(name);
    let tried = std::fs::write(&probe, "").and_then(|()| std::fs::remove_file(&probe));
    match tried {
        Ok(()) => Check::ok("folder", format!("{shown} can be written")),
        Err(error) => Check::fail(
            "folder",
            format!("{shown} can't be written: {error}"),
            remedy,
        ),
    }
}

/// Whether a port is taken by somebody; for services that do not answer.
pub fn is_taken(url: &str) -> bool {
    let address = url.strip_prefix("http://").unwrap_or(url);
    let Ok(address) = address.parse::<SocketAddr>() else {
        return false;
    };
    let bound = TcpListener::bind(address);
    bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_well_when_it_can_be_made() {
        let there = tempfile::tempdir().unwrap();
        assert_eq!(folder(&there.path().join("a/b")).status, Status::Ok);
        assert!(std::fs::read_dir(there.path()).unwrap().next().is_none());
        let file = there.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(folder(&file.join("a")).status, Status::Fail);
    }

    #[test]
    fn a_taken_port_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        assert!(is_taken(&url));
        drop(listener);
        assert!(!is_taken(&url));
    }
}
