//! A plugin that is a program of its own, started by a test host.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::mesh::Mesh;
use super::server::{self, Arrival};
use crate::code::ErrorCode;
use crate::error::{CallError, Error};
use crate::signals::Stop;
use crate::wire::{HostBody, plugin};

/// Time that a program has to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Program {
    path: PathBuf,
    token: String,
    /// Holds the socket; removed with the program.
    folder: Folder,
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed lies in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Program {
    /// Makes a folder for the socket.
    pub(super) fn prepare(path: PathBuf, token: String) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plugmesh-test-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            path,
            token,
            folder: Folder(folder),
        })
    }

    /// Runs the program until it ends, which it shall do after `stop` and not before.
    pub(super) async fn run(
        self,
        mesh: Arc<Mesh>,
        arrivals: mpsc::Sender<Arrival>,
        mut stop: Stop,
    ) -> Result<(), Error> {
        let socket = self.folder.0.join("attach.sock");
        let listener = UnixListener::bind(&socket).map_err(|reason| Error::System {
            doing: "listen on a socket for the program",
            reason,
        })?;
        let mut child = tokio::process::Command::new(&self.path)
            .env("PLUGMESH_AGENT", format!("unix://{}", socket.display()))
            .env("PLUGMESH_LAUNCH_TOKEN", &self.token)
            .kill_on_drop(true)
            .spawn()
            .map_err(|reason| Error::System {
                doing: "start the program",
                reason,
            })?;
        let served = server::serve_socket(listener, arrivals);
        let ended = async {
            tokio::select! {
                status = child.wait() => return Err(self.ended(status)),
                _ = stop.requested() => {}
            }
            if let Some(link) = mesh.started_with(&self.token) {
                let drain = HostBody::Drain(plugin::Drain::default());
                // When it fails, the program is on its way out already.
                let _ = link.send(0, drain).await;
            }
            match tokio::time::timeout(PATIENCE, child.wait()).await {
                Ok(Ok(status)) if status.success() => Ok(()),
                Ok(status) => Err(self.ended(status)),
                Err(_) => Err(self.fault("did not end within 10 seconds of being told to")),
            }
        };
        tokio::select! {
            ended = ended => ended,
            () = served => Err(self.fault("cannot be served any more")),
        }
    }

    fn ended(&self, status: io::Result<std::process::ExitStatus>) -> Error {
        match status {
            Ok(status) => self.fault(&format!("ended by itself: {status}")),
            Err(reason) => Error::System {
                doing: "wait for the program",
                reason,
            },
        }
    }

    fn fault(&self, what: &str) -> Error {
        let text = format!("the program {} {what}", self.path.display());
        Error::Refused(CallError::new(ErrorCode::PluginFailed, text))
    }
}
