//! Following the bucket: a snapshot, then each change as the bucket repeats it on a subject of ours.
//!
//! Changes are numbered without gaps, so a lost one shows with the next. A lost last one, and a
//! subscription that has gone deaf, show by asking the leader every two seconds which change was the
//! last. Anything odd leads to a new snapshot, anything worse to a new connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::header::{NATS_SEQUENCE, NATS_TIME_STAMP};
use async_nats::{Message, Subscriber, datetime};
use futures::StreamExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::bucket::{Bucket, is_deletion, millis, text};
use super::{StoreEvent, StoreShared};
use crate::connect::LinkEvents;

/// How often it is proven that nothing was missed.
const PROVE: Duration = Duration::from_secs(2);

/// How long a change that the leader knows of may take to arrive.
const ARRIVE: Duration = Duration::from_secs(2);

/// How long a connection, or a snapshot, may take.
const CONNECT: Duration = Duration::from_secs(5);
const SNAPSHOT: Duration = Duration::from_secs(30);

/// Questions to the leader that may go unanswered in a row: electing one takes seconds.
const MISSED_PROOFS: u32 = 2;

/// Why following stopped.
enum Stop {
    /// Something was missed, or a follower joined: a new snapshot will do.
    Again(String),
    /// The connection or the bucket is gone.
    Broken(String),
}

/// One session, from the connection to whatever ends it. Returns why.
pub(super) async fn session(shared: &StoreShared) -> String {
    let events = Arc::new(LinkEvents::default());
    let connect = timeout(CONNECT, shared.connector.connect_now(events.clone()));
    let client = match connect.await {
        Ok(Ok(client)) => client,
        Ok(Err(why)) => return why,
        Err(_) => return format!("no connection within {CONNECT:?}"),
    };
    let bucket = match Bucket::open(client, &shared.mesh, shared.config.replicas).await {
        Ok(bucket) => bucket,
        Err(why) => return format!("the bucket can't be opened (is JetStream on?): {why}"),
    };
    *shared.bucket() = Some(bucket.clone());
    let mut told = false;
    let why = tokio::select! {
        why = rounds(shared, &bucket, &mut told) => why,
        () = broken(&events) => "the connection was lost".to_owned(),
    };
    *shared.bucket() = None;
    if told {
        shared.tell(&StoreEvent::Lost).await;
    }
    why
}

/// Ends with the first disconnect of a connection that was made once.
async fn broken(events: &LinkEvents) {
    while events.disconnects.load(Ordering::Relaxed) == 0 {
        events.changed.notified().await;
    }
}

async fn rounds(shared: &StoreShared, bucket: &Bucket, told: &mut bool) -> String {
    loop {
        while shared.followers().is_empty() {
            shared.join.notified().await;
        }
        match round(shared, bucket, told).await {
            Stop::Again(why) => {
                tracing::debug!(%why, "the registry is read anew");
                // Whatever is odd may stay odd for a while.
                sleep(Duration::from_millis(fastrand::u64(20..=50))).await;
            }
            Stop::Broken(why) => return why,
        }
    }
}

/// A snapshot and the changes after it.
async fn round(shared: &StoreShared, bucket: &Bucket, told: &mut bool) -> Stop {
    let joined = shared.joined.load(Ordering::Acquire);
    // Subscribed before the leader is asked for anything: on its way to the leader the question
    // passes nobody who does not know of the subscription by then.
    let live = match bucket
        .client
        .subscribe(format!("{}>", bucket.changes))
        .await
    {
        Ok(live) => live,
        Err(error) => return Stop::Broken(text(error)),
    };
    let snapshot = match timeout(SNAPSHOT, bucket.snapshot()).await {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(why)) => return Stop::Broken(why),
        Err(_) => return Stop::Broken(format!("no snapshot within {SNAPSHOT:?}")),
    };
    *told = true;
    let epoch = snapshot.epoch;
    let last = snapshot.position;
    shared.tell(&StoreEvent::Reset { epoch, last }).await;
    for entry in &snapshot.entries {
        shared.tell(entry).await;
    }
    let mut follow = Follow {
        shared,
        bucket,
        live,
        epoch,
        position: last,
        awaited: None,
        current: false,
        missed: 0,
    };
    follow.run(joined).await
}

struct Follow<'a> {
    shared: &'a StoreShared,
    bucket: &'a Bucket,
    live: Subscriber,
    epoch: u64,
    /// The last change that was told.
    position: u64,
    /// A change that the leader knows of, and by when it must have arrived.
    awaited: Option<(u64, Instant)>,
    /// `Current` was said.
    current: bool,
    missed: u32,
}

impl Follow<'_> {
    async fn run(&mut self, joined: u64) -> Stop {
        let mut next_proof = Instant::now();
        loop {
            if self.shared.joined.load(Ordering::Acquire) != joined {
                return Stop::Again("a follower joined".to_owned());
            }
            let arrive_by = self.awaited.map(|(_, by)| by);
            let result = tokio::select! {
                message = self.live.next() => match message {
                    Some(message) => self.change(message).await,
                    None => Err(Stop::Broken("the subscription has ended".to_owned())),
                },
                () = sleep_until(next_proof) => {
                    next_proof = Instant::now() + PROVE;
                    self.prove().await
                }
                () = sleep_until(arrive_by.unwrap_or(next_proof)), if arrive_by.is_some() => {
                    Err(Stop::Again("a change did not arrive".to_owned()))
                }
                () = self.shared.join.notified() => Ok(()),
            };
            if let Err(stop) = result {
                return stop;
            }
        }
    }

    async fn change(&mut self, message: Message) -> Result<(), Stop> {
        let odd = |what: &str| Stop::Again(format!("a change has {what}"));
        let headers = message.headers.as_ref().ok_or_else(|| odd("no headers"))?;
        let sequence: u64 = headers
            .get(NATS_SEQUENCE)
            .and_then(|sequence| sequence.as_str().parse().ok())
            .ok_or_else(|| odd("no sequence"))?;
        if sequence <= self.position {
            // In the snapshot already, or repeated after a change of leaders.
            return Ok(());
        }
        if sequence != self.position + 1 {
            return Err(odd(&format!("sequence {sequence} after {}", self.position)));
        }
        let key = message.subject.strip_prefix(&self.bucket.changes);
        let key = key.ok_or_else(|| odd("no key"))?.to_owned();
        let at_ms = headers
            .get(NATS_TIME_STAMP)
            .and_then(|time| datetime::parse_rfc3339(time.as_str()).ok())
            .map(millis)
            .ok_or_else(|| odd("no time"))?;
        let value = (!is_deletion(headers)).then(|| message.payload.clone());
        self.position = sequence;
        self.shared
            .tell(&StoreEvent::Entry {
                key,
                value,
                sequence,
                at_ms,
            })
            .await;
        self.arrived().await;
        Ok(())
    }

    /// Asks the leader which change was the last.
    async fn prove(&mut self) -> Result<(), Stop> {
        let info = match self.bucket.info().await {
            Ok(info) => info,
            Err(why) => {
                self.missed += 1;
                return if self.missed < MISSED_PROOFS {
                    Ok(())
                } else {
                    Err(Stop::Broken(why))
                };
            }
        };
        self.missed = 0;
        let last = info.state.last_sequence;
        if millis(info.created) != self.epoch || last < self.position {
            return Err(Stop::Broken("the bucket was made anew".to_owned()));
        }
        if self.awaited.is_none() {
            self.awaited = Some((last, Instant::now() + ARRIVE));
        }
        self.arrived().await;
        Ok(())
    }

    /// Says `Current` once all is told that the leader knew of when it was asked.
    async fn arrived(&mut self) {
        if self.awaited.is_some_and(|(last, _)| last <= self.position) {
            self.awaited = None;
            if !std::mem::replace(&mut self.current, true) {
                self.shared.tell(&StoreEvent::Current).await;
            }
        }
    }
}
