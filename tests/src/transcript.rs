//! What was tried and the exact line that came back, compared with what was written down before.
//!
//! A transcript lies in `tests/transcripts/<name>.txt`. After a wanted change of a text, run the test
//! with `UPDATE_TRANSCRIPTS=1` and read the difference before it is committed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Collects rows; what differs from run to run is replaced by its name.
pub struct Transcript {
    name: &'static str,
    replace: Vec<(String, &'static str)>,
    text: String,
}

impl Transcript {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            replace: Vec::new(),
            text: String::new(),
        }
    }

    /// Writes `with` wherever `what` stands.
    #[must_use]
    pub fn hide(mut self, what: impl ToString, with: &'static str) -> Self {
        self.replace.push((what.to_string(), with));
        self
    }

    /// One row: what was tried, and what came back.
    pub fn row(&mut self, tried: &str, came_back: &str) {
        let mut text = hide_ids(&format!("{}\n    -> {}\n", tried.trim(), came_back.trim()));
        for (what, with) in &self.replace {
            text = text.replace(what, with);
        }
        let _ = writeln!(self.text, "{text}");
        print!("{text}");
    }

    /// Compares all rows with the file.
    pub fn finish(self) {
        let file = path(self.name);
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            std::fs::write(&file, &self.text).expect("the transcript is written");
            return;
        }
        let wanted = std::fs::read_to_string(&file).unwrap_or_default();
        for (number, (got, wanted)) in self.text.lines().zip(wanted.lines()).enumerate() {
            assert_eq!(got, wanted, "{}:{}", file.display(), number + 1);
        }
        assert_eq!(self.text, wanted, "{} ends otherwise", file.display());
    }
}

fn path(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    folder.join(format!("{name}.txt"))
}

/// Replaces UUIDs, which differ from run to run.
fn hide_ids(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_uuid = |start: usize| {
        let Some(part) = bytes.get(start..start + 36) else {
            return false;
        };
        part.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let mut out = String::new();
    let mut rest = 0;
    for (start, _) in text.char_indices() {
        if start >= rest && is_uuid(start) {
            out.push_str(&text[rest..start]);
            out.push_str("<uuid>");
            rest = start + 36;
        }
    }
    out.push_str(&text[rest..]);
    out
}
