//! A snapshot of the bucket: the newest message of each key.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use futures::StreamExt;
use tokio::time::{Instant, sleep};

use super::StoreEvent;
use super::bucket::{Bucket, is_deletion, millis, text};

/// How long reading may take in all.
const READ: Duration = Duration::from_secs(20);

/// Messages that are asked for at once.
const BATCH: usize = 1_000;

/// A snapshot.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// When the bucket was made, in milliseconds since 1970.
    pub epoch: u64,
    /// All changes up to this one are in it.
    pub position: u64,
    /// By sequence.
    pub entries: Vec<StoreEvent>,
}

impl Bucket {
    /// Reads the bucket. A consumer may be served by a copy that lags behind its leader and would end
    /// early, so the leader is asked first which message must be reached.
    pub async fn snapshot(&self) -> Result<Snapshot, String> {
        let info = self.info().await?;
        let mut snapshot = Snapshot {
            epoch: millis(info.created),
            position: info.state.last_sequence,
            entries: Vec::new(),
        };
        let last = self.last_sequence().await?;
        if last == 0 {
            return Ok(snapshot);
        }
        let config = pull::Config {
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            filter_subject: format!("{}>", self.keys),
            inactive_threshold: Duration::from_secs(10),
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(text)?;
        let read = self.read(&consumer, last, &mut snapshot).await;
        // It would go by itself, in a while.
        let name = &consumer.cached_info().name;
        let _ = self.stream.delete_consumer(name).await;
        read.map(|()| snapshot)
    }

    async fn read(
        &self,
        consumer: &async_nats::jetstream::consumer::PullConsumer,
        last: u64,
        snapshot: &mut Snapshot,
    ) -> Result<(), String> {
        let deadline = Instant::now() + READ;
        let mut delivered = 0;
        while Instant::now() < deadline {
            let fetch = consumer.fetch().max_messages(BATCH).messages();
            let mut messages = fetch.await.map_err(text)?;
            while let Some(message) = messages.next().await {
                let message = message.map_err(|error| error.to_string())?;
                let info = message.info().map_err(|error| error.to_string())?;
                delivered += 1;
                if info.consumer_sequence != delivered {
                    return Err("a part of the snapshot was lost on the way".to_owned());
                }
                let (sequence, pending) = (info.stream_sequence, info.pending);
                let Some(key) = message.subject.strip_prefix(&self.keys) else {
                    continue;
                };
                let deleted = message.headers.as_ref().is_some_and(is_deletion);
                snapshot.entries.push(StoreEvent::Entry {
                    key: key.to_owned(),
                    value: (!deleted).then(|| message.payload.clone()),
                    sequence,
                    at_ms: millis(info.published),
                });
                if pending == 0 && sequence >= last {
                    snapshot.position = snapshot.position.max(sequence);
                    return Ok(());
                }
            }
            // The copy that serves the consumer has not caught up yet.
            sleep(Duration::from_millis(20)).await;
        }
        Err(format!("the snapshot was not complete within {READ:?}"))
    }

    /// The sequence of the newest message that still exists, by the leader; 0: there is none.
    async fn last_sequence(&self) -> Result<u64, String> {
        let all = format!("{}>", self.keys);
        match self.stream.get_last_raw_message_by_subject(&all).await {
            Ok(message) => Ok(message.sequence),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
            Err(error) => Err(text(error)),
        }
    }
}
