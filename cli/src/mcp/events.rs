//! Server-sent events (HTML Living Standard, section 9.2): the data of each event.

/// Collects bytes and gives whole events.
#[derive(Debug)]
pub struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    any: bool,
    after_cr: bool,
    largest: usize,
}

impl Events {
    /// `largest` bounds one event, in bytes.
    pub fn new(largest: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            any: false,
            after_cr: false,
            largest,
        }
    }

    /// Takes bytes, gives the data of the events that they complete.
    ///
    /// # Errors
    /// When an event is too large, for a person.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for &byte in bytes {
            // CR, LF and CR LF each end a line.
            let ends = byte == b'\r' || (byte == b'\n' && !self.after_cr);
            let second = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            if ends {
                found.extend(self.end_line());
            } else if !second {
                self.line.push(byte);
            }
        }
        if self.line.len() + self.data.len() > self.largest {
            return Err(format!(
                "an event of the answer is over {} bytes",
                self.largest
            ));
        }
        Ok(found)
    }

    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let any = std::mem::take(&mut self.any);
            let data = std::mem::take(&mut self.data);
            return any.then(|| String::from_utf8_lossy(&data).into_owned());
        }
        let value = line.strip_prefix(b"data:")?;
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if self.any {
            self.data.push(b'\n');
        }
        self.any = true;
        self.data.extend_from_slice(value);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_bytes_are_cut() {
        let text =
            ": hi\nevent: message\ndata: {\"a\":1}\nid: 1\n\ndata: x\r\ndata:y\r\n\r\nretry: 1\n\n";
        for cut in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            let mut events = Events::new(100);
            let mut found = events.push(first).unwrap_or_default();
            found.extend(events.push(second).unwrap_or_default());
            assert_eq!(found, ["{\"a\":1}", "x\ny"], "cut at {cut}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_refused_in_time() {
        let mut events = Events::new(10);
        assert!(events.push(b"data: 0123456789").is_err());
    }
}
