//! The messages that follow a call's payload, between whoever sends them and the call.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::Notify;

/// A queue for messages that follow a call's payload. At most `capacity` of them wait in it.
///
/// The call takes a message out only when it can be sent, so that a sender that waits for room goes no
/// faster than the callee.
#[must_use]
pub fn messages(capacity: usize) -> (MessageSender, MessageSource) {
    let queue = Arc::new(Queue {
        state: Mutex::default(),
        freed: Notify::new(),
        capacity,
    });
    let source = MessageSource {
        queue: Arc::clone(&queue),
    };
    (MessageSender { queue }, source)
}

struct Queue {
    state: Mutex<State>,
    freed: Notify,
    capacity: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Bytes>,
    ended: bool,
    /// A message was ever taken.
    touched: bool,
    /// Messages that were taken since the sender was told.
    taken: u32,
    /// The call that found nothing.
    reader: Option<Waker>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Queue")
            .field("waiting", &state.waiting.len())
            .field("ended", &state.ended)
            .finish_non_exhaustive()
    }
}

/// Where messages are put in, until [`MessageSender::finish`]. Dropping it ends nothing: what was given up
/// half-way must not look whole to the callee. Whoever drops it drops the call, too. One task waits on it
/// at a time.
#[derive(Debug)]
pub struct MessageSender {
    queue: Arc<Queue>,
}

impl MessageSender {
    /// Puts a message in.
    ///
    /// # Errors
    /// Gives the message back when there is no room.
    pub fn try_send(&self, message: Bytes) -> Result<(), Bytes> {
        let mut state = self.queue.lock();
        if state.waiting.len() >= self.queue.capacity {
            return Err(message);
        }
        state.waiting.push_back(message);
        wake(state);
        Ok(())
    }

    /// Puts a message in, waiting for room. Safe to cancel: then it was not put in. For ever when the call
    /// has ended: wait for that, too.
    pub async fn send(&self, message: Bytes) {
        let mut message = message;
        while let Err(back) = self.try_send(message) {
            message = back;
            self.queue.freed.notified().await;
        }
    }

    /// Waits until at least so many messages were taken since the last time; tells how many.
    pub async fn taken(&self, at_least: u32) -> u32 {
        loop {
            {
                let mut state = self.queue.lock();
                if state.taken >= at_least {
                    return std::mem::take(&mut state.taken);
                }
            }
            self.queue.freed.notified().await;
        }
    }

    /// No message follows.
    pub fn finish(&self) {
        let mut state = self.queue.lock();
        state.ended = true;
        wake(state);
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// Where a call takes its messages from. Clones take from the same queue: an attempt of a call after the
/// other, never two at once.
#[derive(Debug, Clone)]
pub struct MessageSource {
    queue: Arc<Queue>,
}

impl MessageSource {
    /// Whether no message was ever taken: then the call can still begin anew elsewhere.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        !self.queue.lock().touched
    }

    /// The next message, or `Some(None)` for the end; the end alone if there is no credit. `None`: nothing
    /// now, and the waker is woken when that changes.
    pub(crate) fn take(&self, credit: bool, waker: &Waker) -> Option<Option<Bytes>> {
        let mut state = self.queue.lock();
        if state.waiting.is_empty() {
            if state.ended {
                return Some(None);
            }
            state.reader = Some(waker.clone());
            return None;
        }
        if !credit {
            return None;
        }
        let message = state.waiting.pop_front();
        state.touched = true;
        state.taken = state.taken.saturating_add(1);
        drop(state);
        self.queue.freed.notify_one();
        Some(message)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use futures::FutureExt;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn messages_come_in_order_within_the_capacity_and_the_end_needs_no_credit() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let (sender, source) = messages(2);
        assert_eq!(source.take(true, &waker), None);
        sender.try_send("a".into()).unwrap();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        sender.try_send("b".into()).unwrap();
        assert!(sender.try_send("c".into()).is_err());
        assert!(sender.send("c".into()).now_or_never().is_none());
        assert_eq!(source.take(false, &waker), None);
        assert!(source.is_untouched());
        assert_eq!(source.take(true, &waker), Some(Some("a".into())));
        assert!(!source.is_untouched());
        assert!(sender.taken(2).now_or_never().is_none());
        assert_eq!(source.take(true, &waker), Some(Some("b".into())));
        assert_eq!(sender.taken(2).now_or_never(), Some(2));
        assert_eq!(source.take(false, &waker), None);
        sender.finish();
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert_eq!(source.take(false, &waker), Some(None));
    }

    #[test]
    fn messages_that_are_given_up_have_no_end() {
        let (sender, source) = messages(2);
        sender.try_send("a".into()).unwrap();
        assert!(source.take(true, Waker::noop()).is_some());
        drop(sender);
        assert_eq!(source.take(true, Waker::noop()), None);
    }

    #[tokio::test]
    async fn who_waits_for_room_goes_on_when_a_message_is_taken() {
        let (sender, source) = messages(1);
        sender.send("a".into()).await;
        let send = sender.send("b".into());
        let take = async {
            tokio::task::yield_now().await;
            source.take(true, Waker::noop())
        };
        let ((), taken) = tokio::join!(send, take);
        assert_eq!(taken, Some(Some("a".into())));
        assert_eq!(source.take(true, Waker::noop()), Some(Some("b".into())));
    }
}
