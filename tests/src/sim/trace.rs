//! What happens, a line each, and a number made of all lines.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Trace {
    keep: bool,
    lines: Vec<String>,
    digest: u64,
}

impl Trace {
    pub(super) fn new(keep: bool) -> Self {
        Self {
            keep,
            lines: Vec::new(),
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    pub(super) fn say(&mut self, at: Duration, text: &str) {
        let line = format!("{:>10.3} {text}", at.as_secs_f64() * 1_000.0);
        self.digest = line.bytes().fold(self.digest, |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        if self.keep {
            self.lines.push(line);
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }
}
