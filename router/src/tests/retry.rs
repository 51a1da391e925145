//! Calls that are sent again, kept for a while, or kept away from who fails them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mesh_bus::CallEvent;
use mesh_core::error::{ErrorCode, MeshError};
use tokio::time::Instant;

use crate::flight::Report;

use super::{World, done, failed, id, impatient};

impl World {
    /// A number that is shown of the router.
    fn shown(&self, name: &str) -> u64 {
        let (counters, gauges) = (self.router.counters()(), self.router.gauges()());
        let mut all = counters.into_iter().chain(gauges);
        all.find(|one| one.0 == name).unwrap().2
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_is_kept_for_a_while_and_tried_again() {
    let mut config = impatient("own");
    config.patience = Duration::from_millis(500);
    let world = World::with(2, config).await;
    for n in 1..=2 {
        let times = AtomicU64::new(0);
        world.told(n, move |_| match times.fetch_add(1, Ordering::Relaxed) {
            0 => Err(MeshError::new(ErrorCode::InstanceGone, "as told")),
            1 => Ok(vec![failed(ErrorCode::Draining)]),
            _ => Ok(vec![done()]),
        });
    }
    world.call("once").await.unwrap();
    assert_eq!(world.begun().len(), 5);
    for n in 1..=2 {
        world.told(n, |_| Ok(vec![failed(ErrorCode::InstanceGone)]));
    }
    let begun = Instant::now();
    let mut request = World::request("once").with_timeout(Duration::from_millis(200));
    let error = world.router.call(request.clone()).finish().await;
    assert_eq!(error.unwrap_err().code, ErrorCode::InstanceGone);
    assert_eq!(begun.elapsed(), Duration::from_millis(200), "its own time");
    request.timeout = Duration::from_secs(9);
    let error = world.router.call(request).finish().await;
    assert_eq!(error.unwrap_err().code, ErrorCode::InstanceGone);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_and_may_be_repeated_waits_for_its_only_instance_to_come_back() {
    let mut config = impatient("own");
    config.patience = Duration::from_millis(500);
    let world = World::with(1, config).await;
    // However long it had run: patience begins with the loss.
    let long = Duration::from_secs(5);
    let losing = |losses: u64| {
        let times = AtomicU64::new(0);
        world.told(1, move |_| match times.fetch_add(1, Ordering::Relaxed) {
            time if time < losses => Ok(vec![]),
            _ => Ok(vec![done()]),
        });
    };
    let call = async |name: &str| {
        let call = world.router.call(World::request(name)).finish();
        let lose = async {
            loop {
                tokio::time::sleep(long).await;
                world.host.held.lock().unwrap().clear();
            }
        };
        tokio::select! {
            end = call => end,
            () = lose => unreachable!(),
        }
    };
    losing(1);
    call("again").await.unwrap();
    assert_eq!(world.begun().len(), 2);
    losing(2);
    call("again").await.unwrap();
    assert_eq!(world.begun().len(), 3);
    // It may be the call that its instances die of.
    losing(9);
    let error = call("again").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown);
    assert_eq!(world.begun().len(), 3);
    // What may not be repeated has nothing to wait for.
    losing(1);
    let error = call("once").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown);
    assert_eq!(world.begun().len(), 1);
    // Nobody takes it any more: that does not undo what may have been done.
    let times = AtomicU64::new(0);
    world.told(1, move |_| match times.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(vec![failed(ErrorCode::OutcomeUnknown)]),
        _ => Ok(vec![failed(ErrorCode::Draining)]),
    });
    let error = call("again").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OutcomeUnknown);
    assert!(world.begun().len() > 3);
}

#[tokio::test]
async fn a_call_that_may_have_run_is_not_called_unprocessed_because_its_repetition_was_not() {
    let world = World::with(2, impatient("own")).await;
    let times = Arc::new(AtomicU64::new(0));
    for n in 1..=2 {
        let times = times.clone();
        world.told(n, move |_| match times.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(vec![failed(ErrorCode::OutcomeUnknown)]),
            _ => Ok(vec![failed(ErrorCode::Overloaded)]),
        });
    }
    let error = world.call("again").await.unwrap_err();
    let begun = world.begun();
    assert_eq!(begun.len(), 2);
    assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error}");
    assert_eq!(error.place.instance, begun[0].to_string());
}

#[tokio::test]
async fn when_too_many_calls_are_sent_again_the_others_keep_their_error_and_say_so() {
    let world = World::new(2).await;
    for n in 1..=2 {
        world.told(n, |_| Ok(vec![failed(ErrorCode::Overloaded)]));
    }
    let (mut once, mut twice) = (0_u32, 0_u32);
    for _ in 0..3_000 {
        let error = world.call("once").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Overloaded);
        match world.begun().len() {
            1 => {
                assert!(error.message.contains("not sent again"), "{error}");
                once += 1;
            }
            _ => twice += 1,
        }
    }
    // A thousand saved up, a fifth of the calls, ten a second.
    assert!((1_600..2_000).contains(&twice), "{twice} and {once}");
    assert_eq!(world.shown("retries"), u64::from(twice));
    assert_eq!(world.shown("retries_over_budget"), u64::from(once));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_fails_calls_is_left_out_and_tried_by_one_call_at_a_time() {
    let world = World::new(2).await;
    world.told(1, |_| Ok(vec![failed(ErrorCode::Internal)]));
    for _ in 0..50 {
        let _ = world.call("once").await;
    }
    let asked = || world.begun().iter().filter(|one| **one == id(1)).count();
    assert_eq!(asked(), 5);
    assert_eq!(world.shown("outlier_ejections"), 1);
    assert_eq!(world.shown("outliers"), 1);
    for _ in 0..50 {
        world.call("once").await.unwrap();
    }
    assert_eq!(asked(), 0);
    // Its time is over: many calls at once, and one of them is the trial.
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    world.told(1, |_| Ok(vec![]));
    world.told(2, |_| Ok(vec![]));
    let held: Vec<_> = (0..20)
        .map(|_| world.router.call(World::request("once")))
        .collect();
    assert_eq!(asked(), 1);
    drop(held);
    // A long stream is a trial, too: it is back with the first chunk.
    world.told(1, |_| Ok(vec![CallEvent::Chunk(Bytes::from_static(b"1"))]));
    world.told(2, |_| Ok(vec![done()]));
    let stream = loop {
        let mut call = world.router.call(World::request("once"));
        if let CallEvent::Chunk(_) = call.next().await {
            break call;
        }
    };
    world.told(2, |_| Ok(vec![]));
    world.begun();
    let held: Vec<_> = (0..20)
        .map(|_| world.router.call(World::request("once")))
        .collect();
    assert!(asked() > 5, "it is back");
    drop((stream, held));
    assert_eq!(world.shown("outlier_ejections"), 1);
    assert_eq!(world.shown("outlier_returns"), 1);
    assert_eq!(world.shown("outliers"), 0);
}

#[tokio::test]
async fn a_callers_mistakes_and_a_tools_own_errors_leave_nobody_out() {
    let world = World::new(2).await;
    world.told(1, |_| Ok(vec![failed(ErrorCode::PluginFailed)]));
    world.told(2, |_| Ok(vec![failed(ErrorCode::InvalidArgument)]));
    for _ in 0..100 {
        world.call("once").await.unwrap_err();
    }
    let begun = world.begun();
    let first = begun.iter().filter(|one| **one == id(1)).count();
    assert!((20..=80).contains(&first), "{first}");
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_and_may_be_repeated_waits_while_all_are_silent_and_not_for_ever() {
    let mut config = impatient("own");
    config.patience = Duration::from_secs(3);
    let world = World::with(4, config).await;
    let tell = |n, unresponsive| {
        let report = Report {
            unresponsive,
            ..Report::default()
        };
        world.router.inner.flights.heard(id(n), report);
    };
    for n in 1..=4 {
        tell(n, true);
        world.told(n, |_| Ok(vec![failed(ErrorCode::OutcomeUnknown)]));
    }
    let begun = Instant::now();
    let call = world.call("again");
    let heals = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.told(3, |_| Ok(vec![done()]));
        tell(3, false);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        end = call => drop(end.unwrap()),
        () = heals => unreachable!(),
    }
    assert!(begun.elapsed() < Duration::from_millis(1_400));
    let sent = world.begun();
    assert_eq!(
        (sent.len(), sent.last()),
        (2, Some(&id(3))),
        "lost but once"
    );
    // Nobody gives a sign of life: then there is nothing to lose.
    tell(3, true);
    let lost = Arc::new(AtomicU64::new(0));
    for n in 1..=4 {
        let lost = lost.clone();
        world.told(n, move |_| match lost.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(vec![failed(ErrorCode::OutcomeUnknown)]),
            _ => Ok(vec![done()]),
        });
    }
    let begun = Instant::now();
    world.call("again").await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(1));
    assert_eq!(world.begun().len(), 2);
}

#[tokio::test]
async fn a_refused_call_is_not_sent_to_who_gives_no_sign_of_life() {
    let world = World::new(2).await;
    world.told(1, |_| Ok(vec![failed(ErrorCode::Overloaded)]));
    let hangs = Report {
        unresponsive: true,
        ..Report::default()
    };
    world.router.inner.flights.heard(id(2), hangs);
    for name in ["once", "again"] {
        let error = world.call(name).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Overloaded);
        assert_eq!(world.begun(), [id(1)]);
    }
    // What may have been processed and may be repeated has nothing to lose.
    world.told(1, |_| Ok(vec![failed(ErrorCode::OutcomeUnknown)]));
    world.call("again").await.unwrap();
    // Nor has a call that only it can serve.
    let alone = World::new(1).await;
    alone.router.inner.flights.heard(id(1), hangs);
    alone.call("once").await.unwrap();
}
