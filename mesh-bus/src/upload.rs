//! What follows a call's first frame: the rest of its payload, then its messages, as credit allows.

use std::task::Waker;

use bytes::Bytes;
use mesh_proto::common;

use crate::messages::MessageSource;

/// What a call carries to its callee.
#[derive(Debug, Clone, Default)]
pub struct CallInput {
    /// The payload, whole.
    pub payload: Bytes,
    /// The messages that follow it; `None`: none do.
    pub messages: Option<MessageSource>,
}

impl From<Bytes> for CallInput {
    fn from(payload: Bytes) -> Self {
        Self {
            payload,
            messages: None,
        }
    }
}

/// What follows a call's first frame.
#[derive(Debug)]
pub struct Upload {
    rest: Bytes,
    messages: Option<(MessageSource, Waker)>,
    part_bytes: usize,
    sequence: u64,
    credit: u64,
    over: bool,
}

impl Upload {
    /// Puts the first part of the payload into the call. Gives what follows it, if something does:
    /// `waker` is woken when there is a message after there was none.
    #[must_use]
    pub fn begin(
        call: &mut common::Call,
        input: CallInput,
        part_bytes: usize,
        credit: u32,
        waker: impl FnOnce() -> Waker,
    ) -> Option<Self> {
        let mut rest = input.payload;
        call.payload = rest.split_to(rest.len().min(part_bytes));
        call.more = !rest.is_empty();
        call.messages = input.messages.is_some();
        if !call.more && !call.messages {
            return None;
        }
        Some(Self {
            rest,
            messages: input.messages.map(|source| (source, waker())),
            part_bytes,
            sequence: 0,
            credit: credit.into(),
            over: false,
        })
    }

    /// Whether there are messages: once one was sent, the callee works on them.
    #[must_use]
    pub fn has_messages(&self) -> bool {
        self.messages.is_some()
    }

    /// The callee takes so many more chunks.
    pub fn grant(&mut self, chunks: u32) {
        self.credit = self.credit.saturating_add(chunks.into());
    }

    /// Whether the last chunk was given out.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The next chunk that there is credit for.
    pub fn next_chunk(&mut self) -> Option<common::Chunk> {
        if self.over {
            return None;
        }
        let fragment = !self.rest.is_empty();
        let (payload, last) = if fragment {
            if self.credit == 0 {
                return None;
            }
            let size = self.rest.len().min(self.part_bytes);
            let part = self.rest.split_to(size);
            let last = self.rest.is_empty();
            self.over = last && self.messages.is_none();
            (part, last)
        } else {
            let (source, waker) = self.messages.as_ref()?;
            let message = source.take(self.credit > 0, waker)?;
            self.over = message.is_none();
            (message.unwrap_or_default(), self.over)
        };
        let chunk = common::Chunk {
            payload,
            last,
            sequence: self.sequence,
            fragment,
        };
        self.sequence += 1;
        // The one that ends the messages takes none.
        self.credit = self.credit.saturating_sub(1);
        Some(chunk)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::messages::messages;

    fn begin(
        payload: &'static str,
        source: Option<MessageSource>,
    ) -> (common::Call, Option<Upload>) {
        let mut call = common::Call::default();
        let input = CallInput {
            payload: payload.into(),
            messages: source,
        };
        let upload = Upload::begin(&mut call, input, 2, 3, || Waker::noop().clone());
        (call, upload)
    }

    fn all(upload: &mut Upload) -> Vec<(String, u64, bool, bool)> {
        std::iter::from_fn(|| upload.next_chunk())
            .map(|chunk| {
                let text = String::from_utf8(chunk.payload.to_vec()).unwrap();
                (text, chunk.sequence, chunk.fragment, chunk.last)
            })
            .collect()
    }

    #[test]
    fn a_small_payload_has_nothing_to_follow_and_a_large_one_its_parts() {
        let (call, upload) = begin("ab", None);
        assert!(upload.is_none() && !call.more && !call.messages);
        let (call, upload) = begin("abcdefghi", None);
        let mut upload = upload.unwrap();
        assert!(call.more && call.payload == "ab");
        let part = |text: &str, sequence, last| (text.to_owned(), sequence, true, last);
        let first = [
            part("cd", 0, false),
            part("ef", 1, false),
            part("gh", 2, false),
        ];
        assert_eq!(all(&mut upload), first);
        upload.grant(5);
        assert_eq!(all(&mut upload), [part("i", 3, true)]);
        assert!(upload.is_over());
    }

    #[test]
    fn messages_follow_the_payload_in_one_sequence_and_the_end_waits_for_nothing() {
        let (sender, source) = messages(8);
        let (call, upload) = begin("abc", Some(source));
        let mut upload = upload.unwrap();
        assert!(call.more && call.messages);
        for text in ["x", "", "y"] {
            sender.try_send(text.into()).unwrap();
        }
        let row =
            |text: &str, sequence, fragment, last| (text.to_owned(), sequence, fragment, last);
        let first = [
            row("c", 0, true, true),
            row("x", 1, false, false),
            row("", 2, false, false),
        ];
        assert_eq!(all(&mut upload), first);
        upload.grant(1);
        assert_eq!(all(&mut upload), [row("y", 3, false, false)]);
        sender.finish();
        assert_eq!(all(&mut upload), [row("", 4, false, true)]);
        assert!(upload.is_over());
    }
}
