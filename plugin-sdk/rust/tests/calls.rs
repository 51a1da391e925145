//! Calls between plugins: what travels with them, how they end, how large they may be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use plugmesh_sdk::testing::{self, TestHost};
use plugmesh_sdk::{
    CallEvent, ChunkSender, Context, ErrorCode, Json, LogLevel, NoArgs, Payload, Plugin, Target,
    ToolError,
};
use serde_json::json;
use tokio::sync::{Notify, mpsc};

type Tested = Result<(), Box<dyn Error>>;

/// Waits for a condition that is about to hold.
async fn eventually(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it never held");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sets a flag when it is dropped.
struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_nested_call_carries_caller_metadata_trace_and_the_time_that_is_left() -> Tested {
    testing::run(async {
        let outer =
            Plugin::new("outer", "1.0.0").service("outer.ask", async |_: Bytes, ctx: Context| {
                let target = Target::service("inner.tell").metadata("tenant", "acme");
                let call = ctx.call(target, ()).await?;
                Ok(call.finish().await?)
            });
        let inner =
            Plugin::new("inner", "1.0.0").service("inner.tell", async |_: Bytes, ctx: Context| {
                Ok(Json(json!({
                    "caller": ctx.caller().plugin,
                    "tenant": ctx.metadata().get("tenant"),
                    "left": ctx.time_left().as_secs_f64(),
                    "trace": ctx.trace().traceparent,
                })))
            });
        let host = TestHost::builder(outer).with(inner).start().await?;
        let target = Target::service("outer.ask").timeout(Duration::from_secs(5));
        let told = host.call(target, ()).await?.finish().await?;
        let told: serde_json::Value = told.parse()?;
        assert_eq!(told.get("caller"), Some(&json!("outer")));
        assert_eq!(told.get("tenant"), Some(&json!("acme")));
        assert_eq!(told.get("trace"), Some(&json!("")));
        let left = told
            .get("left")
            .and_then(serde_json::Value::as_f64)
            .unwrap();
        assert!((1.0..5.0).contains(&left), "{left}");
        Ok(())
    })
}

#[test]
fn a_cancelled_call_drops_its_handler_and_the_calls_that_it_made() -> Tested {
    testing::run(async {
        let dropped: [Arc<AtomicBool>; 2] = Default::default();
        let begun = Arc::new(Notify::new());
        let [outer_dropped, inner_dropped] = dropped.clone();
        let outer = Plugin::new("outer", "1.0.0").service(
            "outer.wait",
            async move |_: Bytes, ctx: Context| {
                let _guard = OnDrop(outer_dropped.clone());
                ctx.call_service::<_, Bytes>("inner.wait", ()).await?;
                Ok(())
            },
        );
        let beginning = begun.clone();
        let inner =
            Plugin::new("inner", "1.0.0").service("inner.wait", async move |_: Bytes, _| {
                let _guard = OnDrop(inner_dropped.clone());
                beginning.notify_one();
                std::future::pending::<Result<(), ToolError>>().await
            });
        let host = TestHost::builder(outer).with(inner).start().await?;
        let call = host.call(Target::service("outer.wait"), ()).await?;
        begun.notified().await;
        assert!(dropped.iter().all(|flag| !flag.load(Ordering::SeqCst)));
        drop(call);
        eventually(|| dropped.iter().all(|flag| flag.load(Ordering::SeqCst))).await;
        Ok(())
    })
}

#[test]
fn a_handler_that_watches_for_cancellation_ends_by_itself() -> Tested {
    testing::run(async {
        let (tell, mut told) = mpsc::unbounded_channel();
        let plugin = Plugin::new("tidy", "1.0.0").service(
            "tidy.work",
            async move |_: Bytes, ctx: Context| {
                tell.send("begun")?;
                ctx.cancelled().await;
                // A handler that was dropped would not come back from here.
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(ctx.is_cancelled());
                tell.send("tidied up")?;
                Ok(())
            },
        );
        let host = TestHost::start(plugin).await?;
        let call = host.call(Target::service("tidy.work"), ()).await?;
        assert_eq!(told.recv().await, Some("begun"));
        drop(call);
        assert_eq!(told.recv().await, Some("tidied up"));
        Ok(())
    })
}

#[test]
fn a_handler_that_misses_its_deadline_is_dropped_with_an_error() -> Tested {
    testing::run(async {
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = dropped.clone();
        let plugin = Plugin::new("slow", "1.0.0").service("slow.wait", async move |_: Bytes, _| {
            let _guard = OnDrop(flag.clone());
            std::future::pending::<Result<(), ToolError>>().await
        });
        let host = TestHost::start(plugin).await?;
        let target = Target::service("slow.wait").timeout(Duration::from_millis(50));
        let begun = Instant::now();
        let error = host.call(target, ()).await?.finish().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded);
        assert!(begun.elapsed() < Duration::from_secs(5));
        eventually(|| dropped.load(Ordering::SeqCst)).await;
        Ok(())
    })
}

#[test]
fn payloads_larger_than_a_frame_travel_whole_in_both_directions() -> Tested {
    testing::run(async {
        let outer = Plugin::new("outer", "1.0.0").service(
            "outer.echo",
            async |bytes: Bytes, ctx: Context| {
                let answer: Bytes = ctx.call_service("inner.echo", bytes).await?;
                Ok(answer)
            },
        );
        let inner =
            Plugin::new("inner", "1.0.0").service("inner.echo", async |bytes: Bytes, _| Ok(bytes));
        let host = TestHost::builder(outer).with(inner).start().await?;
        // Just below and above one part, and more parts than the first credit allows.
        for size in [0, 131_071, 131_072, 131_073, 12 << 20] {
            let sent: Bytes = (0..size).map(|place| (place % 251) as u8).collect();
            let call = host
                .call(Target::service("outer.echo"), sent.clone())
                .await?;
            let answer = call.finish().await?;
            assert!(answer.bytes == sent, "{size} bytes came back otherwise");
            assert_eq!(answer.content_type, "application/octet-stream");
        }
        Ok(())
    })
}

#[test]
fn payloads_over_the_limit_are_refused_before_and_after_the_work() -> Tested {
    testing::run(async {
        let plugin = Plugin::new("large", "1.0.0").service("large.give", async |_: Bytes, _| {
            Ok(Bytes::from(vec![0; (64 << 20) + 1]))
        });
        let host = TestHost::start(plugin).await?;
        let too_much = Bytes::from(vec![0; (64 << 20) + 1]);
        let refused = host.call(Target::service("large.give"), too_much).await;
        let refused = refused.err().unwrap();
        assert_eq!(refused.code, ErrorCode::TooLarge);
        assert!(
            refused
                .message
                .contains("67108865 bytes, 67108864 is the most"),
            "{refused}"
        );

        let failed = host
            .call(Target::service("large.give"), ())
            .await?
            .finish()
            .await;
        let failed = failed.unwrap_err();
        assert_eq!(failed.code, ErrorCode::PluginFailed);
        assert!(
            failed
                .message
                .contains("67108865 bytes, 67108864 is the most"),
            "{failed}"
        );
        Ok(())
    })
}

#[test]
fn a_stream_goes_no_faster_than_it_is_read_and_ends_after_its_last_chunk() -> Tested {
    testing::run(async {
        let sent = Arc::new(AtomicU32::new(0));
        let counter = sent.clone();
        let outer = Plugin::new("outer", "1.0.0").streaming_service(
            "outer.count",
            async |Json(to): Json<u32>, mut chunks: ChunkSender, ctx: Context| {
                let mut call = ctx.call(Target::service("inner.count"), Json(to)).await?;
                while let Some(event) = call.next().await {
                    match event {
                        CallEvent::Chunk(bytes) => chunks.send(bytes).await?,
                        CallEvent::End(end) => return Ok(end?),
                        _ => {}
                    }
                }
                Err(ToolError::new("it had no end"))
            },
        );
        let inner = Plugin::new("inner", "1.0.0").streaming_service(
            "inner.count",
            async move |Json(to): Json<u32>, mut chunks: ChunkSender, _| {
                for number in 0..to {
                    chunks.send(Json(number)).await?;
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                Ok("counted")
            },
        );
        let host = TestHost::builder(outer).with(inner).start().await?;
        let mut call = host
            .call(Target::service("outer.count"), Json(1_000))
            .await?;
        // Each of the three hops holds at most its window.
        eventually(|| sent.load(Ordering::SeqCst) >= 64).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let ahead = sent.load(Ordering::SeqCst);
        assert!(ahead <= 4 * 64, "{ahead} were sent to nobody");
        for number in 0..1_000 {
            let chunk = Payload::json(&number).bytes;
            assert_eq!(call.next().await, Some(CallEvent::Chunk(chunk)));
        }
        let end = CallEvent::End(Ok(Payload::new("counted", "text/plain")));
        assert_eq!(call.next().await, Some(end));
        assert_eq!(call.next().await, None);
        Ok(())
    })
}

#[test]
fn a_message_of_a_stream_that_is_too_large_fails_at_its_sender() -> Tested {
    testing::run(async {
        let plugin = Plugin::new("wide", "1.0.0").streaming_service(
            "wide.send",
            async |_: Bytes, mut chunks: ChunkSender, _| {
                chunks.send(Bytes::from(vec![0; 131_073])).await?;
                Ok(())
            },
        );
        let host = TestHost::start(plugin).await?;
        let error = host
            .call(Target::service("wide.send"), ())
            .await?
            .finish()
            .await
            .unwrap_err();
        assert!(error.message.contains("at most 131072 bytes"), "{error}");
        Ok(())
    })
}

#[test]
fn progress_and_log_lines_reach_the_caller_that_wants_them_before_the_end() -> Tested {
    testing::run(async {
        let plugin =
            Plugin::new("chatty", "1.0.0").tool("talk", async |_: NoArgs, ctx: Context| {
                ctx.progress(1.0, 0.0, "begun");
                ctx.log(LogLevel::Notice, "of note");
                ctx.progress(2.0, 2.0, "done");
                Ok("said")
            });
        let host = TestHost::start(plugin).await?;
        for (target, wanted) in [
            (
                Target::tool("talk").want_progress(),
                vec!["progress", "log", "progress", "end"],
            ),
            (Target::tool("talk"), vec!["log", "end"]),
        ] {
            let mut call = host.call(target, Json(json!({}))).await?;
            let mut heard = Vec::new();
            while let Some(event) = call.next().await {
                heard.push(match event {
                    CallEvent::Progress(progress) => {
                        let known = progress.done > 1.0;
                        assert_eq!(progress.total, known.then_some(2.0));
                        "progress"
                    }
                    CallEvent::Log(line) => {
                        assert_eq!(
                            (line.level, line.message.as_str()),
                            (LogLevel::Notice, "of note")
                        );
                        "log"
                    }
                    CallEvent::End(_) => "end",
                    other => panic!("{other:?}"),
                });
            }
            assert_eq!(heard, wanted);
        }
        Ok(())
    })
}

#[test]
fn many_calls_run_at_a_time_and_one_that_waits_holds_up_none() -> Tested {
    testing::run(async {
        let all_here = Arc::new(tokio::sync::Barrier::new(500));
        let plugin = Plugin::new("busy", "1.0.0").service(
            "busy.meet",
            async move |Json(n): Json<u32>, _| {
                all_here.wait().await;
                Ok(Json(n))
            },
        );
        let host = TestHost::start(plugin).await?;
        let calls = (0..500).map(async |n: u32| {
            let call = host
                .call(Target::service("busy.meet"), Json(n))
                .await
                .unwrap();
            let answer: u32 = call.finish().await.unwrap().parse().unwrap();
            assert_eq!(answer, n);
        });
        futures::future::join_all(calls).await;
        Ok(())
    })
}

#[test]
fn blocking_work_leaves_the_plugin_free_for_other_calls() -> Tested {
    testing::run(async {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let plugin = Plugin::new("worker", "1.0.0")
            .tool("block", async move |_: NoArgs, _| {
                let wait = wait.clone();
                plugmesh_sdk::blocking(move || wait.lock().unwrap().recv()).await?;
                Ok("released")
            })
            .tool("quick", async |_: NoArgs, _| Ok("quick"));
        let host = TestHost::start(plugin).await?;
        let slow = host.call(Target::tool("block"), Json(json!({}))).await?;
        assert_eq!(
            host.call_tool("quick", json!({})).await?.text_content(),
            "quick"
        );
        release.send(())?;
        slow.finish().await?;
        Ok(())
    })
}

#[test]
fn stopping_waits_for_calls_that_run() -> Tested {
    testing::run(async {
        let (begin, mut begun) = mpsc::unbounded_channel();
        let plugin = Plugin::new("slow", "1.0.0").tool("work", async move |_: NoArgs, _| {
            begin.send(())?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok("done")
        });
        let host = TestHost::start(plugin).await?;
        let call = host.call(Target::tool("work"), Json(json!({}))).await?;
        begun.recv().await;
        let (stopped, finished) = tokio::join!(host.stop(), call.finish());
        stopped?;
        assert!(finished.is_ok(), "{finished:?}");
        Ok(())
    })
}
