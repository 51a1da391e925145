//! Frames on their way to one plugin: a bounded queue that its stream is fed from.
//!
//! Overload: new calls are shed when the queue is past its soft bound (`super::held` has that of bytes);
//! answers to the plugin's own calls wait for room; frames that are owed (cancels, errors, credits) are always taken, because the
//! host stops reading from a plugin whose queue is past the hard bound.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mesh_proto::attach::HostMessage;
use mesh_proto::plugin::{HostFrame, host_frame};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::held::Held;

/// Past so many frames no new call is put into the queue.
const SOFT_FRAMES: usize = 4_096;

/// Past so many frames nothing more is read from the plugin.
const HARD_FRAMES: usize = 16_384;

/// What a frame costs beside its payload, in bytes, roughly.
const FRAME_BYTES: usize = 128;

/// Frames on their way to one plugin. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct OutQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// The id of the last call that was handed to the transport. Ids grow, and the queue keeps their
    /// order, so every call up to it may have reached the plugin.
    written: AtomicU64,
    room: Notify,
}

#[derive(Debug)]
struct Queue {
    frames: VecDeque<Outgoing>,
    bytes: usize,
    held: Held,
    /// Calls that were left out, and are not yet cancelled.
    unseen: Vec<u64>,
    waker: Option<Waker>,
    end: Option<Result<(), Status>>,
    closed: bool,
}

#[derive(Debug)]
struct Outgoing {
    frame: HostMessage,
    bytes: usize,
    /// For a call: when its time is over. The time left is written as late as possible.
    deadline: Option<Instant>,
}

impl Outgoing {
    /// Writes the time that a call has left, and that it is handed to the transport now. False: its
    /// time is over, so the plugin shall not see it at all.
    fn stamp_time_left(&mut self, written: &AtomicU64) -> bool {
        let Some(deadline) = self.deadline else {
            return true;
        };
        let left: Duration = deadline.saturating_duration_since(Instant::now());
        let micros = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return false;
        }
        match &mut self.frame {
            HostMessage::Invoke(call) => call.time_left_us = micros,
            HostMessage::Frame(frame) => {
                if let Some(host_frame::Body::Invoke(call)) = &mut frame.body {
                    call.time_left_us = micros;
                }
            }
        }
        written.store(self.frame.id(), Ordering::Relaxed);
        true
    }
}

impl Queue {
    /// Whether the plugin shall not see a frame: a call whose time is over, and what follows of it, the last
    /// of which is its Cancel.
    fn leaves_out(&mut self, next: &mut Outgoing, written: &AtomicU64) -> bool {
        let id = next.frame.id();
        if !next.stamp_time_left(written) {
            self.unseen.push(id);
            return true;
        }
        let unseen = !self.unseen.is_empty() && self.unseen.contains(&id);
        if unseen && is_cancel(&next.frame) {
            self.unseen.retain(|other| *other != id);
        }
        unseen
    }

    fn soft_room(&self) -> bool {
        self.frames.len() < SOFT_FRAMES && self.bytes < self.held.most_of_instance
    }

    /// Of this queue alone: reading from a plugin is what frees others, and only its own queue tells when
    /// it may go on.
    fn hard_room(&self) -> bool {
        self.frames.len() < HARD_FRAMES && !self.held.is_instance_hard_full(self.bytes)
    }

    fn poll_end(&mut self, context: &Context<'_>) -> Poll<Option<Result<HostMessage, Status>>> {
        match &mut self.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(end) => {
                let status = std::mem::replace(end, Ok(()));
                Poll::Ready(status.err().map(Err))
            }
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn push(&mut self, frame: HostMessage, deadline: Option<Instant>) {
        if self.closed || self.end.is_some() {
            return;
        }
        let bytes = FRAME_BYTES + payload_bytes(&frame);
        self.bytes += bytes;
        self.held.add(bytes);
        self.frames.push_back(Outgoing {
            frame,
            bytes,
            deadline,
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Bytes of what can be large in a frame.
fn payload_bytes(message: &HostMessage) -> usize {
    let frame = match message {
        HostMessage::Invoke(call) => return call.call.len(),
        HostMessage::Frame(frame) => frame,
    };
    match &frame.body {
        Some(host_frame::Body::Invoke(call)) => call.payload.len(),
        Some(host_frame::Body::Chunk(chunk)) => chunk.payload.len(),
        Some(host_frame::Body::Result(result)) => result.payload.len(),
        Some(host_frame::Body::Error(error)) => error.message.len() + error.details.len(),
        Some(host_frame::Body::Welcome(welcome)) => welcome.config.len(),
        Some(host_frame::Body::Log(log)) => log.message.len() + log.fields.len(),
        _ => 0,
    }
}

fn is_cancel(message: &HostMessage) -> bool {
    let HostMessage::Frame(frame) = message else {
        return false;
    };
    matches!(frame.body, Some(host_frame::Body::Cancel(_)))
}

impl OutQueue {
    /// A queue, and the stream that empties it. `gone` is cancelled when the stream is dropped.
    pub(crate) fn new(gone: CancellationToken, held: Held) -> (Self, OutStream) {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                frames: VecDeque::new(),
                bytes: 0,
                unseen: Vec::new(),
                held,
                waker: None,
                end: None,
                closed: false,
            }),
            written: AtomicU64::new(0),
            room: Notify::new(),
        });
        let queue = Self {
            shared: Arc::clone(&shared),
        };
        (queue, OutStream { shared, gone })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.shared.queue)
    }

    /// Whether a new call may be put in.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().soft_room()
    }

    /// Puts in a new call. It must follow a look at [`OutQueue::has_room`].
    pub(crate) fn push_call(&self, call: HostMessage, deadline: Instant) {
        self.lock().push(call, Some(deadline));
    }

    /// Puts in a frame that is owed.
    pub(crate) fn push(&self, frame: HostFrame) {
        self.lock().push(frame.into(), None);
    }

    /// Puts in a part of a payload. False: there is no room even for that.
    pub(crate) fn push_part(&self, frame: HostFrame) -> bool {
        let mut queue = self.lock();
        if queue.held.is_hard_full(queue.bytes) {
            return false;
        }
        queue.push(frame.into(), None);
        true
    }

    /// Takes back all frames of a call that the plugin shall not see any more. False: it may have seen
    /// the call.
    pub(crate) fn take_back(&self, id: u64) -> bool {
        !self.was_written(id) && self.take_back_all(|other| other == id) < id
    }

    /// Takes back all frames of those of some calls that the plugin can't have seen. Gives the last id that
    /// it may have seen.
    pub(crate) fn take_back_all(&self, is_one: impl Fn(u64) -> bool) -> u64 {
        let mut queue = self.lock();
        let queue = &mut *queue;
        let written = self.shared.written.load(Ordering::Relaxed);
        let goes = |id| id > written && is_one(id);
        let before = queue.bytes;
        let bytes = &mut queue.bytes;
        queue.frames.retain(|waiting| {
            let goes = goes(waiting.frame.id());
            *bytes -= if goes { waiting.bytes } else { 0 };
            !goes
        });
        // No Cancel will follow.
        queue.unseen.retain(|id| !goes(*id));
        queue.held.sub(before - queue.bytes);
        self.shared.room.notify_waiters();
        written
    }

    /// Waits until a new call or an answer may be put in.
    pub(crate) async fn room(&self) {
        self.wait_until(Queue::soft_room).await;
    }

    /// Waits until more may be read from the plugin.
    pub(crate) async fn may_read(&self) {
        self.wait_until(Queue::hard_room).await;
    }

    async fn wait_until(&self, fits: impl Fn(&Queue) -> bool) {
        loop {
            // Registered before the look, so that no wake-up is missed between the two.
            let notified = self.shared.room.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            {
                let queue = self.lock();
                if queue.closed || queue.end.is_some() || fits(&queue) {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Ends the stream after what is in the queue: well, or with a status.
    pub(crate) fn finish(&self, end: Result<(), Status>) {
        let mut queue = self.lock();
        if queue.end.is_none() {
            queue.end = Some(end);
        }
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
        drop(queue);
        self.shared.room.notify_waiters();
    }

    /// Whether a call was handed to the transport and so may have reached the plugin.
    pub(crate) fn was_written(&self, id: u64) -> bool {
        id <= self.shared.written.load(Ordering::Relaxed)
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the transport takes frames from.
#[derive(Debug)]
pub(crate) struct OutStream {
    shared: Arc<Shared>,
    gone: CancellationToken,
}

impl Stream for OutStream {
    type Item = Result<HostMessage, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = lock(&self.shared.queue);
        let (had_room, was_readable) = (queue.soft_room(), queue.hard_room());
        let next = loop {
            let Some(mut next) = queue.frames.pop_front() else {
                break None;
            };
            queue.bytes = queue.bytes.saturating_sub(next.bytes);
            queue.held.sub(next.bytes);
            if !queue.leaves_out(&mut next, &self.shared.written) {
                break Some(next.frame);
            }
        };
        let freed = (queue.soft_room() && !had_room) || (queue.hard_room() && !was_readable);
        let polled = match next {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => queue.poll_end(context),
        };
        drop(queue);
        if freed {
            self.shared.room.notify_waiters();
        }
        polled
    }
}

impl Drop for OutStream {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        queue.frames.clear();
        let bytes = std::mem::take(&mut queue.bytes);
        queue.held.sub(bytes);
        drop(queue);
        self.shared.room.notify_waiters();
        self.gone.cancel();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};
    use mesh_proto::common;

    fn call(id: u64, bytes: usize) -> HostFrame {
        HostFrame {
            id,
            body: Some(host_frame::Body::Invoke(Box::new(common::Call {
                payload: vec![0; bytes].into(),
                ..common::Call::default()
            }))),
        }
    }

    fn held() -> Held {
        Held::new(256 << 20, 16 << 20)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_counts_as_written_once_the_transport_took_it_and_carries_the_time_left() {
        let (queue, mut stream) = OutQueue::new(CancellationToken::new(), held());
        queue.push_call(call(2, 1).into(), soon());
        queue.push_call(call(4, 1).into(), soon());
        assert!(!queue.was_written(2));
        tokio::time::advance(Duration::from_secs(2)).await;
        let frame = stream.next().await.unwrap().unwrap();
        match frame.into_frame().unwrap().body {
            Some(host_frame::Body::Invoke(call)) => assert_eq!(call.time_left_us, 3_000_000),
            other => panic!("{other:?}"),
        }
        assert!(queue.was_written(2));
        assert!(!queue.was_written(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_time_is_over_is_never_seen_by_the_plugin() {
        let (queue, mut stream) = OutQueue::new(CancellationToken::new(), held());
        queue.push_call(call(2, 1).into(), soon());
        queue.push_call(call(4, 1).into(), soon() + Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!queue.was_written(2));
        assert_eq!(stream.next().await.unwrap().unwrap().id(), 4);
        // Nor what follows of it, up to its Cancel.
        let cancel = |id| HostFrame {
            id,
            body: Some(host_frame::Body::Cancel(common::Cancel::default())),
        };
        let chunk = HostFrame {
            id: 2,
            body: Some(host_frame::Body::Chunk(common::Chunk::default())),
        };
        assert!(queue.push_part(chunk));
        queue.push(cancel(2));
        queue.push(cancel(4));
        assert_eq!(stream.next().await.unwrap().unwrap().id(), 4);
        assert!(lock(&queue.shared.queue).unseen.is_empty());
    }

    #[tokio::test]
    async fn a_plugin_that_does_not_read_gets_no_more_calls_until_it_reads() {
        let (queue, mut stream) = OutQueue::new(CancellationToken::new(), held());
        let mut id = 0;
        while queue.has_room() {
            id += 2;
            queue.push_call(call(id, 100_000).into(), soon());
        }
        assert!(id < 400, "{id}");
        assert!(queue.room().now_or_never().is_none());
        assert!(queue.may_read().now_or_never().is_some());
        let waiting = queue.clone();
        let waits = tokio::spawn(async move { waiting.room().await });
        tokio::task::yield_now().await;
        stream.next().await.unwrap().unwrap();
        stream.next().await.unwrap().unwrap();
        waits.await.unwrap();
        assert!(queue.has_room());
    }

    #[tokio::test]
    async fn parts_are_refused_past_the_hard_bound_and_nothing_more_is_read() {
        let (queue, _stream) = OutQueue::new(CancellationToken::new(), held());
        let mut taken = 0;
        while queue.push_part(call(2, 1 << 20)) {
            taken += 1;
        }
        assert!((100..200).contains(&taken), "{taken}");
        assert!(queue.may_read().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_call_that_was_given_up_before_it_was_written_holds_nothing() {
        let held = held();
        let (queue, mut stream) = OutQueue::new(CancellationToken::new(), held.clone());
        queue.push_call(call(2, 1_000).into(), soon());
        queue.push_call(call(4, 1_000).into(), soon());
        queue.push_part(call(4, 1_000));
        assert!(queue.take_back(4));
        assert!((1_000..2_000).contains(&held.bytes()));
        assert_eq!(stream.next().await.unwrap().unwrap().id(), 2);
        assert!(stream.next().now_or_never().is_none());
        assert!(!queue.take_back(2));
        assert_eq!(held.bytes(), 0);
    }

    #[tokio::test]
    async fn all_queues_of_an_agent_share_its_bytes() {
        let held = Held::new(1 << 20, 16 << 20);
        let (one, stream) = OutQueue::new(CancellationToken::new(), held.clone());
        let (other, mut other_stream) = OutQueue::new(CancellationToken::new(), held.clone());
        while one.push_part(call(2, 100_000)) {}
        assert!(held.bytes() >= 4 << 20);
        assert!(!other.push_part(call(2, 1)));
        drop(stream);
        assert_eq!(held.bytes(), 0);
        assert!(other.push_part(call(2, 1)));
        other_stream.next().await.unwrap().unwrap();
        assert_eq!(held.bytes(), 0);
    }

    #[tokio::test]
    async fn a_plugin_is_read_whatever_the_agent_holds_of_others() {
        let held = Held::new(1 << 20, 16 << 20);
        let (one, _stream) = OutQueue::new(CancellationToken::new(), held.clone());
        let (other, _other_stream) = OutQueue::new(CancellationToken::new(), held);
        while one.push_part(call(2, 100_000)) {}
        assert!(!other.push_part(call(2, 1)));
        assert!(other.may_read().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_a_call_that_was_left_out_and_then_taken_back() {
        let (queue, mut stream) = OutQueue::new(CancellationToken::new(), held());
        queue.push_call(call(2, 1).into(), soon());
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(stream.next().now_or_never().is_none());
        assert!(queue.take_back(2));
        assert!(lock(&queue.shared.queue).unseen.is_empty());
    }

    #[tokio::test]
    async fn what_is_in_the_queue_goes_out_before_the_end() {
        let (queue, mut stream) = OutQueue::new(CancellationToken::new(), held());
        queue.push(call(2, 1));
        queue.finish(Err(Status::aborted("enough")));
        queue.push(call(4, 1));
        assert_eq!(stream.next().await.unwrap().unwrap().id(), 2);
        assert_eq!(
            stream.next().await.unwrap().unwrap_err().message(),
            "enough"
        );
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_dropped_stream_is_noticed_and_frees_all_who_wait() {
        let gone = CancellationToken::new();
        let (queue, stream) = OutQueue::new(gone.clone(), held());
        while queue.has_room() {
            queue.push(call(2, 1 << 20));
        }
        drop(stream);
        assert!(gone.is_cancelled());
        assert!(queue.room().now_or_never().is_some());
    }
}
