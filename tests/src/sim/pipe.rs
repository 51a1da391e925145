//! A plugin's connection to its agent: frames in order, each a little later than it was sent.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fastrand::Rng;
use futures::{Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::body::Frame;
use mesh_proto::attach::{AttachFrames, FrameCodec, MAX_MESSAGE_BYTES};
use mesh_proto::plugin::{HostFrame, PluginFrame};
use prost::Message;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::codec::Codec;
use tonic::{Status, Streaming};

/// Frames that the transport takes before whoever sends has to wait.
const ROOM: usize = 64;

/// Nothing passes an agent that is frozen.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<Mutex<Option<Instant>>>);

impl Gate {
    pub(super) fn close_until(&self, until: Instant) {
        *self.0.lock().unwrap() = Some(until);
    }

    pub(super) fn opens(&self, at: Instant) -> Instant {
        self.0.lock().unwrap().map_or(at, |until| until.max(at))
    }
}

/// Delays what passes, in order.
struct Delay<T> {
    items: VecDeque<(Instant, T)>,
    sleep: Option<Pin<Box<Sleep>>>,
    gate: Gate,
}

impl<T> Delay<T> {
    fn new(gate: Gate) -> Self {
        Self {
            items: VecDeque::new(),
            sleep: None,
            gate,
        }
    }

    fn put(&mut self, due: Instant, item: T) {
        let due = self.items.back().map_or(due, |(last, _)| due.max(*last));
        self.items.push_back((due, item));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        while let Some((due, _)) = self.items.front() {
            let due = self.gate.opens(*due);
            if due <= Instant::now() {
                self.sleep = None;
                if let Some((_, item)) = self.items.pop_front() {
                    return Poll::Ready(item);
                }
            }
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if sleep.deadline() != due {
                sleep.as_mut().reset(due);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        Poll::Pending
    }
}

struct Up {
    delay: Delay<Bytes>,
    rng: Rng,
    most: u64,
    reader: Option<Waker>,
    writers: Vec<Waker>,
    /// The plugin is gone: in order, or by a broken connection.
    ended: Option<Result<(), ()>>,
    /// The agent no longer reads.
    deaf: bool,
}

/// The plugin's end: it sends.
#[derive(Clone)]
pub(super) struct Uplink(Arc<Mutex<Up>>);

impl Uplink {
    fn lock(&self) -> MutexGuard<'_, Up> {
        self.0.lock().unwrap()
    }

    /// Sends without waiting for room.
    pub(super) fn push(&self, frame: &PluginFrame) {
        self.push_bytes(&frame.encode_to_vec());
    }

    /// Sends a message that need not be a frame.
    pub(super) fn push_bytes(&self, message: &[u8]) {
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap());
        framed.extend_from_slice(message);
        let mut up = self.lock();
        let most = up.most;
        let due = Instant::now() + Duration::from_micros(up.rng.u64(0..=most));
        up.delay.put(due, framed.freeze());
        if let Some(waker) = up.reader.take() {
            waker.wake();
        }
    }

    /// Sends when there is room.
    pub(super) async fn send(&self, frame: &PluginFrame) {
        poll_fn(|cx| {
            let mut up = self.lock();
            if up.delay.items.len() < ROOM || up.deaf {
                return Poll::Ready(());
            }
            up.writers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.push(frame);
    }

    /// Ends the stream: after what was sent, or as a connection that breaks.
    pub(super) fn end(&self, broken: bool) {
        let mut up = self.lock();
        if broken {
            up.delay.items.clear();
        }
        up.ended
            .get_or_insert(if broken { Err(()) } else { Ok(()) });
        if let Some(waker) = up.reader.take() {
            waker.wake();
        }
    }
}

/// The agent's end of what the plugin sends.
struct Reader(Uplink);

impl Stream for Reader {
    type Item = Result<Frame<Bytes>, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut up = self.0.lock();
        if let Poll::Ready(bytes) = up.delay.poll(cx) {
            for waker in up.writers.drain(..) {
                waker.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if up.delay.items.is_empty() {
            match up.ended {
                Some(Ok(())) => return Poll::Ready(None),
                Some(Err(())) => {
                    up.ended = Some(Ok(()));
                    return Poll::Ready(Some(Err(Status::unknown("connection reset"))));
                }
                None => {}
            }
        }
        up.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut up = self.0.lock();
        up.deaf = true;
        for waker in up.writers.drain(..) {
            waker.wake();
        }
    }
}

/// A connection: the plugin's end, and what the agent reads, through the product's own codec.
pub(super) fn uplink(mut rng: Rng, gate: &Gate) -> (Uplink, AttachFrames) {
    let most = *rng.choice(&[0, 500, 3_000]).unwrap();
    let uplink = Uplink(Arc::new(Mutex::new(Up {
        delay: Delay::new(gate.clone()),
        rng,
        most,
        reader: None,
        writers: Vec::new(),
        ended: None,
        deaf: false,
    })));
    let body = StreamBody::new(Reader(uplink.clone()));
    let decoder = FrameCodec::<PluginFrame, HostFrame>::default().decoder();
    let frames = Streaming::new_request(decoder, body, None, Some(MAX_MESSAGE_BYTES));
    (uplink, frames)
}

/// What the agent sends, as the plugin reads it.
pub(super) struct Downlink<S> {
    host: S,
    delay: Delay<Result<HostFrame, Status>>,
    rng: Rng,
    most: u64,
    ended: bool,
}

impl<S: Stream<Item = Result<HostFrame, Status>> + Unpin> Downlink<S> {
    pub(super) fn new(host: S, mut rng: Rng, gate: &Gate) -> Self {
        let most = *rng.choice(&[0, 500, 3_000]).unwrap();
        Self {
            host,
            delay: Delay::new(gate.clone()),
            rng,
            most,
            ended: false,
        }
    }

    /// The next frame; `None`: the stream has ended in order.
    pub(super) async fn next(&mut self) -> Option<Result<HostFrame, Status>> {
        poll_fn(|cx| {
            while !self.ended && self.delay.items.len() < ROOM {
                match self.host.poll_next_unpin(cx) {
                    Poll::Ready(Some(frame)) => {
                        let wait = Duration::from_micros(self.rng.u64(0..=self.most));
                        self.delay.put(Instant::now() + wait, frame);
                    }
                    Poll::Ready(None) => self.ended = true,
                    Poll::Pending => break,
                }
            }
            match self.delay.poll(cx) {
                Poll::Ready(frame) => Poll::Ready(Some(frame)),
                Poll::Pending if self.ended && self.delay.items.is_empty() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
