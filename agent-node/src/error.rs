//! Why an agent could not start, or had to end.

use std::path::PathBuf;

use mesh_bus::BusError;
use mesh_runtime::grpc::{BindError, DescriptorError};
use mesh_runtime::tasks::ThreadError;
use router::TableStoreError;

/// Why an agent could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The folder for data can't be used.
    #[error("agent.data_dir: {}: {source}; give a folder that this user can write", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A TCP port can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Another agent listens on the socket.
    #[error(
        "{field}: {} is in use by another agent; stop it or give another path with --attach-unix or \
         PLUGMESH_AGENT__ATTACH_UNIX",
        path.display()
    )]
    SocketTaken {
        /// The setting that named the path.
        field: &'static str,
        /// The socket.
        path: PathBuf,
    },
    /// What stands at the socket's path is something else.
    #[error("{field}: {} is there already and is no socket; move it away or give another path", path.display())]
    NotASocket {
        /// The setting that named the path.
        field: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The socket can't be made.
    #[error("{field}: can't listen on {}: {source}; give a path that this user can write", path.display())]
    Socket {
        /// The setting that named the path.
        field: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bus can't be set up.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The table's snapshot can't be kept.
    #[error(transparent)]
    Table(#[from] TableStoreError),
    /// A part of this program is broken.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// A thread did not start, or panicked.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// The gRPC server ended.
    #[error("the attach server on {place} ended: {source}")]
    Server {
        /// Where it listened.
        place: String,
        /// Why.
        source: tonic::transport::Error,
    },
}
