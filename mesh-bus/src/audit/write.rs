//! Storing what is queued, in its order, until each part is acknowledged.
//!
//! Whoever tells something reads first what was told last on its subject, and stores it by
//! compare-and-set: two who tell the same, or one who tells it again, store it once.

use std::collections::HashSet;

use async_nats::header::{HeaderMap, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use async_nats::jetstream;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures::future::join_all;

use super::{AuditDriver, AuditShared, Notice};
use crate::stats::add;
use crate::store::bucket::text;

/// Entries that are on their way at once.
const BATCH: usize = 256;

/// What became of one that was sent.
enum Sent {
    Known,
    Waiting(PublishAckFuture),
    Failed(String),
}

impl AuditDriver {
    /// Ends well when the queue is closed and all is stored.
    pub(super) async fn store(
        &mut self,
        jetstream: &jetstream::Context,
        stream: &Stream,
    ) -> Result<(), String> {
        loop {
            if self.pending.is_empty() && self.queue.recv_many(&mut self.pending, BATCH).await == 0
            {
                return Ok(());
            }
            self.batch(jetstream, stream).await?;
        }
    }

    /// Stores what is pending until a subject comes a second time; what could not be stored stays.
    async fn batch(
        &mut self,
        jetstream: &jetstream::Context,
        stream: &Stream,
    ) -> Result<(), String> {
        let shared = &self.shared;
        let mut subjects = HashSet::new();
        let due: Vec<&Notice> = self
            .pending
            .iter()
            .take_while(|it| subjects.insert(it.subject.as_str()))
            .collect();
        let last = join_all(due.iter().map(|it| last(shared, stream, it))).await;
        // In their order: the broker numbers them as they come.
        let mut sent = Vec::with_capacity(due.len());
        for (notice, last) in due.into_iter().zip(last) {
            sent.push(match last {
                Ok(None) => Sent::Known,
                Ok(Some(last)) => send(jetstream, notice, last).await,
                Err(why) => Sent::Failed(why),
            });
        }
        // Whoever gives this up half way finds all of it pending; the broker knows what it has.
        let mut failed = None;
        let mut done = Vec::with_capacity(sent.len());
        for sent in sent {
            let failure = match sent {
                Sent::Known => {
                    add(&shared.counters.known, 1);
                    done.push(true);
                    continue;
                }
                Sent::Failed(why) => Some(why),
                Sent::Waiting(answer) => match answer.await {
                    Ok(_) => {
                        add(&shared.counters.stored, 1);
                        done.push(true);
                        continue;
                    }
                    // Another was faster: it is looked at again.
                    Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => None,
                    Err(error) => Some(text(error)),
                },
            };
            add(&shared.counters.retried, 1);
            done.push(false);
            failed = failure.or(failed);
        }
        let mut done = done.into_iter();
        self.pending.retain(|_| done.next() != Some(true));
        failed.map_or(Ok(()), Err)
    }
}

async fn send(jetstream: &jetstream::Context, notice: &Notice, last: u64) -> Sent {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
    let subject = notice.subject.to_string();
    let sent = jetstream.publish_with_headers(subject, headers, notice.payload.clone());
    match sent.await {
        Ok(answer) => Sent::Waiting(answer),
        Err(error) => Sent::Failed(text(error)),
    }
}

/// The sequence of what was told last on the subject, 0 when there is nothing; `None`: that says it
/// already.
async fn last(
    shared: &AuditShared,
    stream: &Stream,
    notice: &Notice,
) -> Result<Option<u64>, String> {
    let subject = notice.subject.as_str();
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(last) => {
            let covered = (shared.config.is_covered)(&last.payload, &notice.payload);
            Ok((!covered).then_some(last.sequence))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(Some(0)),
        Err(error) => Err(text(error)),
    }
}
