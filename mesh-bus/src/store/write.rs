//! Writing a key by compare-and-set, to an answer that can be relied on.

use async_nats::header::{HeaderMap, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;

use super::StoreError;
use super::bucket::{Bucket, DELETED, OPERATION, is_deletion, text};

/// How often a write is sent at most.
const ATTEMPTS: u32 = 4;

/// How long deletions are kept, for those who may bring an old value. All followers have seen them
/// long before, and a snapshot without them says the same.
const DELETION_TTL: &str = "1h";

/// JetStream: the sequence is not the expected one.
const WRONG_SEQUENCE: u64 = 10_071;
/// The same, seen about once in 100,000 writes without any other writer on three copies; the write
/// succeeds when it is sent again.
const WRONG_SEQUENCE_CONSTANT: u64 = 10_164;

/// What one attempt came to.
enum Attempt {
    Stored(u64),
    WrongSequence,
    /// It was sent, and no answer came.
    NoAnswer(String),
    /// JetStream refused it.
    Refused(String),
}

/// The newest message of a key.
struct Newest {
    /// 0: there is none.
    sequence: u64,
    /// `None`: deleted, or there is none.
    value: Option<Bytes>,
}

impl Bucket {
    /// Writes a value, or deletes (`None`), if the key's sequence is `expected`.
    pub async fn write(
        &self,
        key: &str,
        expected: u64,
        value: Option<Bytes>,
    ) -> Result<u64, StoreError> {
        check(key, value.as_ref())?;
        let mut since = expected;
        let mut unanswered = false;
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            match self.attempt(key, since, value.as_ref()).await {
                Attempt::Stored(sequence) => return Ok(sequence),
                Attempt::Refused(why) if unanswered => return Err(unknown(key, why)),
                Attempt::Refused(why) => return Err(StoreError::Unavailable { why }),
                Attempt::WrongSequence => {}
                Attempt::NoAnswer(reason) => {
                    unanswered = true;
                    why = reason;
                }
            }
            // Never written again before it was read again, and read from the leader: copies
            // may lag behind.
            let newest = match self.newest(key).await {
                Ok(newest) => newest,
                Err(why) if unanswered => return Err(unknown(key, why)),
                Err(why) => return Err(StoreError::Unavailable { why }),
            };
            if newest.sequence == since {
                continue;
            }
            if unanswered && newest.sequence > expected && newest.value == value {
                // The attempt without an answer was stored (or another wrote the very same).
                return Ok(newest.sequence);
            }
            if expected == 0 && newest.value.is_none() {
                // "No such key" includes one that was deleted, or whose deletion has expired.
                since = newest.sequence;
                continue;
            }
            return Err(StoreError::Conflict {
                key: key.to_owned(),
                expected,
                current: newest.sequence,
            });
        }
        if unanswered {
            return Err(unknown(key, why));
        }
        let why = "the key changes faster than it can be written".to_owned();
        Err(StoreError::Unavailable { why })
    }

    async fn attempt(&self, key: &str, since: u64, value: Option<&Bytes>) -> Attempt {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, since.to_string());
        if value.is_none() {
            headers.insert(OPERATION, DELETED);
            headers.insert(NATS_MESSAGE_TTL, DELETION_TTL);
        }
        let subject = format!("{}{key}", self.keys);
        let payload = value.cloned().unwrap_or_default();
        let sent = self
            .jetstream
            .publish_with_headers(subject, headers, payload);
        let answer = match sent.await {
            Ok(answer) => answer.await,
            Err(error) => return Attempt::Refused(text(error)),
        };
        match answer {
            Ok(stored) => Attempt::Stored(stored.sequence),
            Err(error) => refusal(&error),
        }
    }

    /// The newest message of a key, by the leader.
    async fn newest(&self, key: &str) -> Result<Newest, String> {
        let subject = format!("{}{key}", self.keys);
        match self.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Newest {
                sequence: message.sequence,
                value: (!is_deletion(&message.headers)).then_some(message.payload),
            }),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(Newest {
                sequence: 0,
                value: None,
            }),
            Err(error) => Err(text(error)),
        }
    }
}

fn refusal(error: &PublishError) -> Attempt {
    let code = std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<async_nats::jetstream::Error>())
        .map(|cause| cause.error_code().0);
    match (error.kind(), code) {
        (PublishErrorKind::WrongLastSequence, _)
        | (_, Some(WRONG_SEQUENCE | WRONG_SEQUENCE_CONSTANT)) => Attempt::WrongSequence,
        (PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe, _) => {
            Attempt::NoAnswer(text(error))
        }
        _ => Attempt::Refused(text(error)),
    }
}

fn unknown(key: &str, why: String) -> StoreError {
    StoreError::Unknown {
        key: key.to_owned(),
        why,
    }
}

fn check(key: &str, value: Option<&Bytes>) -> Result<(), StoreError> {
    const LONGEST: usize = 200;
    const LARGEST: usize = 768 << 10;
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let why = if key.len() > LONGEST {
        "it is at most 200 bytes long"
    } else if !key
        .split('.')
        .all(|part| !part.is_empty() && part.bytes().all(inner))
    {
        "it is made of lowercase letters, digits and hyphens, in parts separated by dots"
    } else if value.is_some_and(|value| value.len() > LARGEST) {
        "a value has at most 768 KiB"
    } else {
        return Ok(());
    };
    Err(StoreError::Invalid {
        key: key.chars().take(80).collect(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_before_anything_is_sent() {
        for good in ["node.a", "instance.0190-ab", "wish.calculator", "x"] {
            assert_eq!(check(good, None), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            "A",
            "a b",
            "a*",
            "a.>",
            "é",
            &"x".repeat(201),
        ] {
            assert!(
                matches!(check(bad, None), Err(StoreError::Invalid { .. })),
                "{bad}"
            );
        }
        let large = Bytes::from(vec![0; (768 << 10) + 1]);
        assert!(check("a", Some(&large)).is_err());
    }
}
