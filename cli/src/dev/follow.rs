//! `--verbose`: the logs of all processes, each line with the name of who wrote it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use super::console::Console;

/// How often the logs are looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// Most bytes of one log that are taken at a time.
const AT_ONCE: u64 = 1 << 20;

/// The logs and how far they were read.
#[derive(Debug)]
pub struct Follow {
    console: Console,
    logs: Vec<Log>,
}

#[derive(Debug)]
struct Log {
    name: String,
    path: PathBuf,
    position: u64,
    rest: Vec<u8>,
}

impl Follow {
    /// Begins at the present ends of the logs.
    pub fn new(console: Console, logs: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        let logs = logs.into_iter().map(|(name, path)| Log {
            position: std::fs::metadata(&path).map_or(0, |log| log.len()),
            name,
            path,
            rest: Vec::new(),
        });
        Self {
            console,
            logs: logs.collect(),
        }
    }

    /// Waits a little, then shows what is new. Never more than a little is lost when dropped.
    pub async fn step(&mut self) {
        tokio::time::sleep(PERIOD).await;
        self.show();
    }

    /// Shows what is new.
    pub fn show(&mut self) {
        for log in &mut self.logs {
            // A log that is not there yet has nothing to show.
            let lines = log.new_lines().unwrap_or_default();
            for line in lines {
                self.console.say(format!("{:<12} {line}", log.name));
            }
        }
    }
}

impl Log {
    fn new_lines(&mut self) -> std::io::Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        if file.metadata()?.len() < self.position {
            // It was put aside and begun anew.
            self.position = 0;
        }
        file.seek(SeekFrom::Start(self.position))?;
        let before = self.rest.len();
        file.take(AT_ONCE).read_to_end(&mut self.rest)?;
        self.position += (self.rest.len() - before) as u64;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let text = String::from_utf8_lossy(&whole);
        Ok(text.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_given_once_and_a_new_file_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::fs::write(&path, "one\ntw").unwrap();
        let mut log = Log {
            name: "a".to_owned(),
            path: path.clone(),
            position: 0,
            rest: Vec::new(),
        };
        assert_eq!(log.new_lines().unwrap(), ["one"]);
        std::fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(log.new_lines().unwrap(), ["two"]);
        assert_eq!(log.new_lines().unwrap(), Vec::<String>::new());
        std::fs::write(&path, "x\n").unwrap();
        assert_eq!(log.new_lines().unwrap(), ["x"]);
    }
}
