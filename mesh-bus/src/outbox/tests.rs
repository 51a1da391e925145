//! The outbox over a library that never gets a connection.

use futures::FutureExt;

use super::*;

/// An outbox whose library never gets a connection.
async fn stuck() -> Outbox {
    let options = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .client_capacity(LIBRARY_QUEUE);
    Outbox::new(options.connect("nats://127.0.0.1:1").await.unwrap().into())
}

fn frame(call_id: u64, size: usize) -> Frame {
    Frame {
        subject: "x".into(),
        reply: None,
        payload: vec![0; size].into(),
        sender: (call_id > 0).then_some(Sender {
            index: 0,
            call_id,
            begins: call_id == 1,
        }),
        credit: None,
    }
}

#[tokio::test]
async fn what_the_library_has_no_room_for_waits_and_can_be_taken_back() {
    let outbox = stuck().await;
    for _ in 0..LIBRARY_QUEUE {
        assert_eq!(outbox.send(frame(0, 1)), Ok(false));
    }
    for call in [1, 0, 2, 0] {
        assert_eq!(outbox.send(frame(call, 1)), Ok(true));
    }
    let back: Vec<u64> = outbox
        .take_back()
        .iter()
        .map(|sender| sender.call_id)
        .collect();
    assert_eq!(back, [1, 2]);
    assert_eq!(outbox.queue().waiting.len(), 2);
    assert_eq!(outbox.queue().bytes, 2);
}

#[tokio::test]
async fn many_frames_or_many_bytes_are_congestion() {
    let outbox = stuck().await;
    for _ in 0..LIBRARY_QUEUE + CONGESTED_FRAMES {
        assert!(!outbox.congested());
        outbox.send(frame(1, 1)).unwrap();
    }
    assert!(outbox.congested());
    outbox.take_back();
    for _ in 0..CONGESTED_BYTES / (1 << 20) {
        assert!(!outbox.congested());
        outbox.send(frame(1, 1 << 20)).unwrap();
    }
    assert!(outbox.congested());
}

#[tokio::test]
async fn credits_of_a_call_that_wait_are_one() {
    let outbox = stuck().await;
    for _ in 0..LIBRARY_QUEUE {
        outbox.send(frame(0, 1)).unwrap();
    }
    let (a, b) = ("a".into(), "b".into());
    let give = |to, call_id, chunks| {
        let credit = Credit { call_id, chunks };
        outbox.send_credit(to, credit).unwrap();
    };
    for _ in 0..10_000 {
        outbox.send(frame(1, 1)).unwrap();
        outbox.take_back();
        give(&a, 1, 3);
        give(&a, 2, 1);
        give(&b, 1, 0);
    }
    assert_eq!(outbox.queue().waiting.len(), 3);
    let take = || {
        outbox.queue().sending = None;
        outbox.take()
    };
    let first = take().unwrap();
    assert_eq!(first.payload, wire::credit_reply(1, 30_000));
    // What has left gets no more.
    give(&a, 1, 7);
    give(&a, 2, 5);
    let chunks = |frame: &Frame| frame.credit.unwrap().chunks;
    let left: Vec<u32> = std::iter::from_fn(take)
        .map(|frame| chunks(&frame))
        .collect();
    assert_eq!(left, [10_005, 0, 7]);
    assert_eq!(outbox.queue().bytes, 0);
    assert!(outbox.queue().credits.is_empty());
}

#[tokio::test]
async fn a_frame_that_waits_for_the_library_when_the_driver_stops_is_not_lost() {
    let outbox = stuck().await;
    for _ in 0..LIBRARY_QUEUE {
        outbox.send(frame(0, 1)).unwrap();
    }
    for size in [2, 3] {
        outbox.send(frame(0, size)).unwrap();
    }
    for _ in 0..3 {
        assert!(outbox.carry(|_| None).now_or_never().is_none());
    }
    assert_eq!(outbox.take().unwrap().payload.len(), 2);
    assert_eq!(outbox.queue().waiting.len(), 1);
}

#[tokio::test]
async fn a_crowd_is_far_below_congestion() {
    let outbox = stuck().await;
    for _ in 0..LIBRARY_QUEUE + CROWDED_FRAMES {
        assert!(!outbox.crowded());
        outbox.send(frame(1, 1)).unwrap();
    }
    assert!(outbox.crowded() && !outbox.congested());
    outbox.take_back();
    assert!(!outbox.crowded());
    outbox.send(frame(1, CROWDED_BYTES)).unwrap();
    assert!(outbox.crowded() && !outbox.full_of_bulk());
}

#[tokio::test]
async fn bulk_is_held_back_long_before_calls_are() {
    let outbox = stuck().await;
    assert!(outbox.room().now_or_never().is_some());
    for _ in 0..BULK_BYTES / (128 << 10) {
        assert!(!outbox.full_of_bulk());
        assert_eq!(outbox.send(frame(0, 128 << 10)), Ok(false));
    }
    assert!(outbox.full_of_bulk() && !outbox.congested());
    assert!(outbox.room().now_or_never().is_none());
}

#[test]
fn the_librarys_own_count_tells_what_is_left_in_its_queue() {
    let mut library = Library::default();
    for size in [10, 20, 30] {
        library.put(size);
    }
    library.settle(2);
    assert_eq!(library.bytes, 30);
    library.settle(2);
    assert_eq!(library.bytes, 30);
    // Taken out before it was put here: on two threads the two race.
    library.settle(4);
    library.put(40);
    library.settle(4);
    assert_eq!(library.bytes, 0);
}

#[tokio::test]
async fn a_frame_that_nats_would_not_take_is_refused_at_once() {
    let outbox = stuck().await;
    assert_eq!(outbox.send(frame(0, 2 << 20)), Err(Refused::TooLarge));
}
