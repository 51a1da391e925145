//! A real nats-server: on a free port, in a folder of its own, killed on drop.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Nats {
    child: Child,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Nats {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(binary())
            .args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"])
            .arg(folder.path())
            .env("GOMAXPROCS", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(port) = read_port(folder.path()) {
                return Self {
                    child,
                    _folder: folder,
                    port,
                };
            }
            let runs = child.try_wait().unwrap().is_none();
            assert!(
                runs && Instant::now() < deadline,
                "nats-server does not start"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
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
            let version = name.split('.').map(|part| part.parse().unwrap_or(0));
            (version.collect(), path.join("nats-server"))
        })
        .filter(|(_, path)| path.is_file())
        .collect();
    found.sort();
    found.pop().expect("no nats-server below .tools").1
}

fn read_port(folder: &Path) -> Option<u16> {
    let mut files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let file = files.find(|file| file.path().extension().is_some_and(|end| end == "ports"))?;
    let text = std::fs::read_to_string(file.path()).ok()?;
    let url = text.split("nats://").nth(1)?;
    let port: u16 = url.split('"').next()?.rsplit(':').next()?.parse().ok()?;
    // Ready means that it answers.
    std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    Some(port)
}
