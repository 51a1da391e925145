//! Lines of a process's output, however long it makes them.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line in bytes; the rest of a longer one is thrown away.
const MAX_LINE: usize = 4 * 1024;

/// Splits bytes into lines of bounded length.
#[derive(Debug, Default)]
struct Splitter {
    line: Vec<u8>,
    /// The line is full: what follows up to its end is thrown away.
    full: bool,
}

impl Splitter {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        // The first part belongs to the line before; each further one begins a line.
        if let Some(first) = parts.next() {
            self.extend(first);
        }
        for part in parts {
            self.end(&mut line);
            self.extend(part);
        }
    }

    fn extend(&mut self, part: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.line.len());
        self.line
            .extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
        self.full |= part.len() > room;
    }

    fn end(&mut self, line: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end_matches('\r');
        if self.full {
            line(&format!("{text} … (cut)"));
        } else if !text.is_empty() {
            line(text);
        }
        self.line.clear();
        self.full = false;
    }
}

/// Reads a stream to its end and gives its lines.
pub(super) async fn read(mut stream: impl AsyncRead + Unpin, mut line: impl FnMut(&str)) {
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => splitter.push(buffer.get(..count).unwrap_or_default(), &mut line),
        }
    }
    splitter.end(&mut line);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        read(bytes, |line| found.push(line.to_owned())).await;
        found
    }

    #[tokio::test]
    async fn lines_come_whole_and_the_last_one_needs_no_end() {
        assert_eq!(lines(b"one\r\ntwo\n\nthree").await, ["one", "two", "three"]);
        assert!(lines(b"").await.is_empty());
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_and_the_next_one_is_whole() {
        let mut bytes = vec![b'x'; 1_000_000];
        bytes.extend_from_slice(b"\nnext\n");
        let lines = lines(&bytes).await;
        assert_eq!(lines.len(), 2);
        assert!(
            lines
                .first()
                .is_some_and(|line| line.ends_with("xx … (cut)") && line.len() < MAX_LINE + 20)
        );
        assert_eq!(lines.last().map(String::as_str), Some("next"));
    }
}
