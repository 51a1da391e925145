//! Following the bucket: a snapshot, then each change as the bucket repeats it on a subject of ours.
//!
//! Changes are numbered without gaps, so a lost one shows with the next. A lost last one, and a
//! subscription that has gone deaf, show by asking the leader twice a second which change was the last.
//! Anything odd leads to a new snapshot. What can't be proven to be current for almost two seconds is
//! said to be lost, and followed over a new connection, to another server where there are several.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::header::{NATS_SEQUENCE, NATS_TIME_STAMP};
use async_nats::jetstream::stream::Info;
use async_nats::{Message, Subscriber, datetime};
use futures::StreamExt;
use futures::future::{Fuse, FusedFuture, FutureExt};
use std::pin::pin;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::bucket::{Bucket, is_deletion, millis, text};
use super::{StoreEvent, StoreShared};
use crate::connect::LinkEvents;

/// How often it is proven that nothing was missed.
const PROVE: Duration = Duration::from_millis(500);

/// How long the leader may take for its answer before it is asked again.
const ASK: Duration = Duration::from_millis(600);

/// How long a change that the leader knows of may take to arrive, while no other arrives.
const ARRIVE: Duration = Duration::from_millis(600);

/// How old the last proof may be. With the time of a question it stays below two seconds.
const STALE: Duration = Duration::from_millis(1_750);

/// How long a connection, the opening of the bucket, or a snapshot may take.
const CONNECT: Duration = Duration::from_secs(5);
const OPEN: Duration = Duration::from_secs(3);
const SNAPSHOT: Duration = Duration::from_secs(30);

/// Why following stopped.
enum Stop {
    /// Something was missed, or a follower joined, or a key is older than was told: a new snapshot will do.
    Again(String),
    /// The connection or the bucket is gone.
    Broken(String),
}

/// What followers were told.
struct Standing {
    /// Something since the last `Lost`.
    told: bool,
    /// By then it was all that there was.
    proven: Instant,
}

impl Standing {
    async fn lost(&mut self, shared: &StoreShared) {
        if std::mem::take(&mut self.told) {
            shared.tell(&StoreEvent::Lost).await;
        }
    }
}

/// One session, from the connection to whatever ends it; `turn` chooses the server. Returns why.
pub(super) async fn session(shared: &StoreShared, turn: usize) -> String {
    let events = Arc::new(LinkEvents::default());
    let connect = shared.connector.connect_now("-store", events.clone(), turn);
    let connect = timeout(CONNECT, connect);
    let client = match connect.await {
        Ok(Ok(client)) => client,
        Ok(Err(why)) => return why,
        Err(_) => return format!("no connection within {CONNECT:?}"),
    };
    let open = Bucket::open(client, &shared.mesh, shared.config.replicas);
    let bucket = match timeout(OPEN, open).await {
        Ok(Ok(bucket)) => bucket,
        Ok(Err(why)) => return format!("the bucket can't be opened (is JetStream on?): {why}"),
        Err(_) => return format!("the bucket can't be opened: no answer within {OPEN:?}"),
    };
    *shared.bucket() = Some(bucket.clone());
    let mut standing = Standing {
        told: false,
        proven: Instant::now(),
    };
    let why = tokio::select! {
        why = rounds(shared, &bucket, &mut standing) => why,
        () = events.broken() => "the connection was lost".to_owned(),
    };
    *shared.bucket() = None;
    standing.lost(shared).await;
    why
}

async fn rounds(shared: &StoreShared, bucket: &Bucket, standing: &mut Standing) -> String {
    loop {
        while shared.followers().is_empty() {
            shared.join.notified().await;
        }
        match round(shared, bucket, standing).await {
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
async fn round(shared: &StoreShared, bucket: &Bucket, standing: &mut Standing) -> Stop {
    let joined = shared.joined.load(Ordering::Acquire);
    let mut reading = pin!(read(bucket));
    let (live, snapshot) = loop {
        tokio::select! {
            read = &mut reading => match read {
                Ok(read) => break read,
                Err(why) => return Stop::Broken(why),
            },
            // What was told before grows old meanwhile.
            () = sleep_until(standing.proven + STALE), if standing.told => {
                standing.lost(shared).await;
            }
        }
    };
    standing.told = true;
    let epoch = snapshot.epoch;
    let last = snapshot.position;
    shared.tell(&StoreEvent::Reset { epoch, last }).await;
    for entry in &snapshot.entries {
        shared.tell(entry).await;
    }
    let now = Instant::now();
    standing.proven = now;
    let mut follow = Follow {
        shared,
        bucket,
        live,
        standing,
        epoch,
        position: last,
        heard: now,
        awaited: None,
        current: false,
        filled: !snapshot.entries.is_empty(),
    };
    follow.run(joined).await
}

/// Subscribes, and reads what there is.
async fn read(bucket: &Bucket) -> Result<(Subscriber, super::snapshot::Snapshot), String> {
    // Subscribed before the leader is asked for anything: on its way to the leader the question
    // passes nobody who does not know of the subscription by then.
    let live = bucket.client.subscribe(format!("{}>", bucket.changes));
    let live = live.await.map_err(text)?;
    match timeout(SNAPSHOT, bucket.snapshot()).await {
        Ok(Ok(snapshot)) => Ok((live, snapshot)),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("no snapshot within {SNAPSHOT:?}")),
    }
}

/// A question to the leader: when it was sent, and the answer.
type Answer = (Instant, Result<Info, String>);

async fn ask(bucket: &Bucket) -> Answer {
    let asked = Instant::now();
    let answer = match timeout(ASK, bucket.info()).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("the leader did not answer within {ASK:?}")),
    };
    (asked, answer)
}

struct Follow<'a> {
    shared: &'a StoreShared,
    bucket: &'a Bucket,
    live: Subscriber,
    standing: &'a mut Standing,
    epoch: u64,
    /// The last change that was told.
    position: u64,
    /// When that was: who is slow to take many changes is not deaf.
    heard: Instant,
    /// A change that the leader knew of, when it was asked, and when it answered.
    awaited: Option<(u64, Instant, Instant)>,
    /// `Current` was said.
    current: bool,
    /// Something was told that the bucket holds.
    filled: bool,
}

impl Follow<'_> {
    async fn run(&mut self, joined: u64) -> Stop {
        let bucket = self.bucket;
        let mut question = pin!(Fuse::terminated());
        let mut next_question = Instant::now();
        let mut why = "the leader has not been asked yet".to_owned();
        loop {
            if self.shared.joined.load(Ordering::Acquire) != joined {
                return Stop::Again("a follower joined".to_owned());
            }
            let arrive_by = self.awaited.map(|(.., at)| at.max(self.heard) + ARRIVE);
            let stale = self.standing.proven.max(self.heard) + STALE;
            // What has arrived is looked at before the clock is.
            let result = tokio::select! {
                biased;
                answer = &mut question => {
                    next_question = Instant::now() + PROVE;
                    self.answered(answer, &mut why).await
                }
                () = sleep_until(next_question), if question.is_terminated() => {
                    question.set(ask(bucket).fuse());
                    Ok(())
                }
                message = self.live.next() => match message {
                    Some(message) => self.change(message).await,
                    None => Err(Stop::Broken("the subscription has ended".to_owned())),
                },
                () = self.shared.join.notified() => Ok(()),
                () = sleep_until(arrive_by.unwrap_or(stale)), if arrive_by.is_some() => {
                    Err(Stop::Again("a change did not arrive".to_owned()))
                }
                () = sleep_until(stale) => Err(Stop::Broken(format!(
                    "for {STALE:?} nothing has shown that the registry is current: {why}"
                ))),
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
        self.filled = true;
        self.shared
            .tell(&StoreEvent::Entry {
                key,
                value,
                sequence,
                at_ms,
            })
            .await;
        self.heard = Instant::now();
        self.arrived().await;
        Ok(())
    }

    /// Takes the leader's word which change was the last.
    async fn answered(&mut self, answer: Answer, unproven: &mut String) -> Result<(), Stop> {
        let (asked, info) = match answer {
            (asked, Ok(info)) => (asked, info),
            (_, Err(why)) => {
                *unproven = why;
                return Ok(());
            }
        };
        let last = info.state.last_sequence;
        if millis(info.created) != self.epoch || last < self.position {
            return Err(Stop::Broken("the bucket was made anew".to_owned()));
        }
        // What is purged is repeated to nobody.
        if info.state.messages == 0 && self.filled {
            return Err(Stop::Again("the bucket was emptied".to_owned()));
        }
        let answered = Instant::now();
        self.awaited.get_or_insert((last, asked, answered));
        self.arrived().await;
        Ok(())
    }

    /// Says `Current` once all is told that the leader knew of when it was asked.
    async fn arrived(&mut self) {
        let Some((_, asked, _)) = self.awaited.take_if(|(last, ..)| *last <= self.position) else {
            return;
        };
        self.standing.proven = asked;
        if !std::mem::replace(&mut self.current, true) {
            self.shared.tell(&StoreEvent::Current).await;
        }
    }
}
