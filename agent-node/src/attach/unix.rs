//! The Unix socket: bound for this user alone, and removed at the end.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::error::AgentError;

/// Read and write for the owner. To connect, one must be able to write.
const MODE: u32 = 0o600;

/// A bound socket.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    listener: UnixListener,
    path: SocketPath,
}

/// The socket's path; dropping it removes the socket, if it is still the one that was made.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl UnixSocket {
    pub(crate) fn path(&self) -> &Path {
        &self.path.path
    }

    pub(crate) fn into_parts(self) -> (UnixListener, SocketPath) {
        (self.listener, self.path)
    }
}

impl SocketPath {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // Another agent may have taken the place of a socket that somebody removed.
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nothing is lost when it stays: the next agent finds that nobody listens.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Listens on a path; a socket that nobody listens on is removed first. `field` is the setting that
/// named the path. Call it within a Tokio runtime.
///
/// # Errors
/// One line that names the setting and the remedy.
pub(crate) fn bind(path: &Path, field: &'static str) -> Result<UnixSocket, AgentError> {
    let failed = |source: io::Error| AgentError::Socket {
        field,
        path: path.to_owned(),
        source,
    };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(AgentError::NotASocket {
                field,
                path: path.to_owned(),
            });
        }
        Ok(_) => remove_stale(path, field, failed)?,
    }
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE)).map_err(failed)?;
    Ok(UnixSocket {
        listener,
        path: SocketPath {
            path: path.to_owned(),
            identity: identity(path),
        },
    })
}

fn remove_stale(
    path: &Path,
    field: &'static str,
    failed: impl Fn(io::Error) -> AgentError,
) -> Result<(), AgentError> {
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "nobody listens on the socket: it is removed");
            std::fs::remove_file(path).map_err(failed)
        }
        // It went in between.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(error)),
        // Somebody listens, or is too busy to answer.
        Ok(_) | Err(_) => Err(AgentError::SocketTaken {
            field,
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    const FIELD: &str = "agent.attach_unix";

    #[tokio::test]
    async fn the_socket_is_for_its_owner_alone_and_goes_with_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/attach.sock");
        let socket = bind(&path, FIELD).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attach.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = bind(&path, FIELD).unwrap();
        let error = bind(&path, FIELD).unwrap_err().to_string();
        assert!(error.starts_with("agent.attach_unix: "), "{error}");
        assert!(error.contains("in use by another agent"), "{error}");
        assert!(path.exists());
        drop(live);
    }

    #[tokio::test]
    async fn something_else_at_the_path_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attach.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = bind(&path, FIELD).unwrap_err().to_string();
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
