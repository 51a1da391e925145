//! A real nats-server for tests: on a free port, in a folder of its own, killed on drop.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running nats-server with JetStream.
pub struct Nats {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Nats {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (child, port) = launch(folder.path(), None);
        Self {
            child,
            folder,
            port,
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port and data.
    pub fn restart(&mut self) {
        self.child = launch(self.folder.path(), Some(self.port)).0;
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PLUGMESH_NATS_SERVER") {
        return path.into();
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nats-server");
    let mut found: Vec<(Vec<u64>, PathBuf)> = std::fs::read_dir(&tools)
        .expect("no nats-server: run scripts/fetch-nats-server.py or set PLUGMESH_NATS_SERVER")
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let version = name
                .split('.')
                .map(|part| part.parse().unwrap_or(0))
                .collect();
            (version, path.join("nats-server"))
        })
        .filter(|(_, path)| path.is_file())
        .collect();
    found.sort();
    found.pop().expect("no nats-server below .tools").1
}

fn launch(folder: &Path, port: Option<u16>) -> (Child, u16) {
    let ports = folder.join("ports");
    let _ = std::fs::remove_dir_all(&ports);
    std::fs::create_dir_all(&ports).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut child = Command::new(binary())
            .args(["-a", "127.0.0.1", "-js", "-p"])
            .arg(port.map_or("-1".to_owned(), |port| port.to_string()))
            .arg("-sd")
            .arg(folder.join("data"))
            .arg("--ports_file_dir")
            .arg(&ports)
            .env("GOMAXPROCS", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The port may still be held by the one before: then it ends, and is tried again.
        while child.try_wait().unwrap().is_none() {
            if let Some(port) = read_port(&ports) {
                return (child, port);
            }
            assert!(Instant::now() < deadline, "nats-server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Instant::now() < deadline, "nats-server does not start");
    }
}

fn read_port(ports: &Path) -> Option<u16> {
    let file = std::fs::read_dir(ports).ok()?.next()?.ok()?.path();
    let text = std::fs::read_to_string(file).ok()?;
    let url = text.split("nats://").nth(1)?;
    let port = url.split('"').next()?.rsplit(':').next()?;
    // Ready means that it answers.
    let port: u16 = port.parse().ok()?;
    std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    Some(port)
}
