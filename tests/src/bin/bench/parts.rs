//! Starts the bare parts, each as a process of its own.

use std::path::Path;
use std::time::Duration;

use harness::mesh::Mesh;
use harness::process::{self, Process};
use harness::{ports, wait};

use crate::clients::Call;

/// A gRPC responder.
pub struct Grpc {
    pub process: Process,
    /// Where it listens: the path of a Unix socket, or an URL.
    pub address: String,
}

impl Grpc {
    /// On a Unix socket.
    pub async fn start(folder: &Path) -> Self {
        let socket = folder.join(format!("grpc-{}", ports::free()));
        let address = socket.display().to_string();
        let process = serve(folder, &["grpc", &address]);
        wait::until("the bare part listens", Duration::from_secs(10), || async {
            tokio::net::UnixStream::connect(&address).await.map(drop)
        })
        .await;
        Self { process, address }
    }

    /// On a port of loopback.
    pub async fn start_tcp(folder: &Path) -> Self {
        let address = format!("127.0.0.1:{}", ports::free());
        let process = serve(folder, &["grpc", &address]);
        listens(&address).await;
        Self {
            process,
            address: format!("http://{address}"),
        }
    }
}

/// A process that forwards what comes by NATS over a gRPC stream to an echo, or to several.
pub struct Composition {
    middle: Process,
    echoes: Vec<Grpc>,
}

impl Composition {
    /// With so many echoes. It may not answer yet: see [`answers`].
    pub async fn start(folder: &Path, nats_url: &str, subject: &str, echoes: usize) -> Self {
        let mut all = Vec::new();
        for _ in 0..echoes {
            all.push(Grpc::start(folder).await);
        }
        let part = if echoes == 1 { "forward" } else { "share" };
        let mut words = vec![part, nats_url, subject];
        words.extend(all.iter().map(|echo| echo.address.as_str()));
        let middle = serve(folder, &words);
        Self {
            middle,
            echoes: all,
        }
    }

    /// All that takes part in a call: this process, the mesh's `nats-server`, and its own.
    pub fn pids(&self, mesh: &Mesh) -> Vec<u32> {
        let mut pids = vec![
            std::process::id(),
            mesh.nats.process.pid(),
            self.middle.pid(),
        ];
        pids.extend(self.echoes.iter().map(|echo| echo.process.pid()));
        pids
    }
}

/// Starts one bare part. It may not answer yet: see [`answers`].
pub fn serve(folder: &Path, words: &[&str]) -> Process {
    let args = [&["serve"], words].concat();
    let name = format!("bare-{}", words.first().copied().unwrap_or_default());
    Process::start(&name, folder, &process::binary("bench"), &args, &[])
}

/// Waits until a call is answered.
pub async fn answers(call: &Call) {
    wait::until("the bare part answers", Duration::from_secs(10), || call()).await;
}

/// Waits until a port is open.
pub async fn listens(address: &str) {
    wait::until("the bare part listens", Duration::from_secs(10), || async {
        tokio::net::TcpStream::connect(address).await.map(drop)
    })
    .await;
}
