//! Reading the audit: back, and as it grows.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use futures::StreamExt;
use mesh_core::subject::{self, AuditOf};
use tokio::time::{Instant, sleep, timeout};

use super::{AuditError, AuditLog, AuditStored};
use crate::store::bucket::text;

/// How long reading back may take in all.
const READ: Duration = Duration::from_secs(10);

/// Messages that are asked for at once.
const BATCH: usize = 1_000;

/// How long a driver that has just begun may take to connect before it is said that it can't.
const BEGIN: Duration = Duration::from_secs(2);

impl AuditLog {
    async fn stream(&self) -> Result<Stream, AuditError> {
        let until = Instant::now() + BEGIN;
        loop {
            let stream = self.shared.stream().clone();
            match stream {
                Some(stream) => return Ok(stream),
                None if Instant::now() < until => sleep(Duration::from_millis(50)).await,
                None => {
                    return Err(unreadable("there is no connection to JetStream"));
                }
            }
        }
    }

    /// The place of the newest entry; 0: there is none.
    ///
    /// # Errors
    /// [`AuditError`] when the stream can't be reached.
    pub async fn newest(&self) -> Result<u64, AuditError> {
        let info = self.stream().await?.get_info().await;
        Ok(info.map_err(unreadable_for)?.state.last_sequence)
    }

    /// The first entry after a place that is about one of `of`; asks the leader, so that it is never
    /// old. `None`: there is none yet.
    ///
    /// # Errors
    /// [`AuditError`] when the stream can't be reached.
    pub async fn next(
        &self,
        of: &[AuditOf],
        after: u64,
    ) -> Result<Option<AuditStored>, AuditError> {
        let stream = self.stream().await?;
        let mut first: Option<AuditStored> = None;
        for of in of {
            let subject = subject::audit_filter(self.mesh(), of);
            let asked = stream.raw_message_builder().sequence(after + 1);
            match asked.next_by_subject(subject.to_string()).send().await {
                Ok(message) => {
                    let sequence = message.sequence;
                    if first.as_ref().is_none_or(|it| sequence < it.sequence) {
                        let payload = message.payload;
                        first = Some(AuditStored { sequence, payload });
                    }
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
                Err(error) => return Err(unreadable_for(error)),
            }
        }
        Ok(first)
    }

    /// The last `limit` entries that are about one of `of` and were stored since a time (milliseconds
    /// since 1970; 0: ever), oldest first.
    ///
    /// # Errors
    /// [`AuditError`] when the stream can't be reached.
    pub async fn read_back(
        &self,
        of: &[AuditOf],
        since_ms: u64,
        limit: usize,
    ) -> Result<Vec<AuditStored>, AuditError> {
        let stream = self.stream().await?;
        let mut entries = Vec::new();
        for of in of {
            let subject = subject::audit_filter(self.mesh(), of);
            let read = last_of(&stream, subject.to_string(), since_ms, limit);
            let read = timeout(READ, read).await;
            let read = read.map_err(|_| unreadable("reading it takes too long"))?;
            entries.extend(read.map_err(|why| unreadable(&why))?);
        }
        entries.sort_by_key(|entry| entry.sequence);
        entries.dedup();
        entries.drain(..entries.len().saturating_sub(limit));
        Ok(entries)
    }
}

async fn last_of(
    stream: &Stream,
    subject: String,
    since_ms: u64,
    limit: usize,
) -> Result<VecDeque<AuditStored>, String> {
    let since = i128::from(since_ms) * 1_000_000;
    let deliver_policy = match DateTime::from_unix_timestamp_nanos(since) {
        Ok(start_time) if since_ms > 0 => DeliverPolicy::ByStartTime { start_time },
        _ => DeliverPolicy::All,
    };
    let config = pull::Config {
        deliver_policy,
        ack_policy: AckPolicy::None,
        filter_subject: subject,
        inactive_threshold: Duration::from_secs(15),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(text)?;
    let read = drain(&consumer, limit).await;
    // It would go by itself, in a while.
    let name = &consumer.cached_info().name;
    let _ = stream.delete_consumer(name).await;
    read
}

/// All that a consumer has; of these the last ones.
async fn drain(consumer: &PullConsumer, limit: usize) -> Result<VecDeque<AuditStored>, String> {
    let mut entries = VecDeque::new();
    let mut pending = consumer.cached_info().num_pending;
    while pending > 0 {
        let fetch = consumer.fetch().max_messages(BATCH).messages();
        let mut messages = fetch.await.map_err(text)?;
        let mut came = false;
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| error.to_string())?;
            let info = message.info().map_err(|error| error.to_string())?;
            (came, pending) = (true, info.pending);
            entries.push_back(AuditStored {
                sequence: info.stream_sequence,
                payload: message.payload.clone(),
            });
            if entries.len() > limit {
                entries.pop_front();
            }
        }
        if !came {
            // What was there has become too old meanwhile, or a copy lags behind.
            break;
        }
    }
    Ok(entries)
}

fn unreadable(why: &str) -> AuditError {
    AuditError {
        why: why.to_owned(),
    }
}

fn unreadable_for(error: impl std::error::Error) -> AuditError {
    AuditError { why: text(error) }
}
