//! Messages in both directions: how they flow, how they end, what is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test may panic")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use plugmesh_sdk::testing::{self, TestHost};
use plugmesh_sdk::{
    CallEvent, ChunkSender, Context, ErrorCode, Json, Plugin, RequestStream, Target, ToolError,
};
use tokio::sync::{Notify, mpsc};

type Tested = Result<(), Box<dyn Error>>;

/// Sends back what it gets, and tells how much that was.
fn echo() -> Plugin {
    Plugin::new("echo", "1.0.0").duplex_service(
        "echo.back",
        async |first: Bytes, mut requests: RequestStream, mut chunks: ChunkSender, _| {
            let mut bytes = first.len();
            while let Some(message) = requests.next().await? {
                bytes += message.len();
                chunks.send(message).await?;
            }
            Ok(Json(bytes))
        },
    )
}

/// Hands a call on to the echo, both ways at once.
fn middle() -> Plugin {
    Plugin::new("middle", "1.0.0").duplex_service(
        "middle.pass",
        async |first: Bytes, mut requests: RequestStream, mut chunks: ChunkSender, ctx: Context| {
            let (mut sender, mut answers) = ctx.open(Target::service("echo.back"), first).await?;
            let send = async {
                while let Some(message) = requests.next().await? {
                    sender.send(message).await?;
                }
                sender.finish();
                Ok::<_, ToolError>(())
            };
            let receive = async {
                while let Some(event) = answers.next().await {
                    match event {
                        CallEvent::Chunk(message) => chunks.send(message).await?,
                        CallEvent::End(end) => return Ok::<_, ToolError>(end?),
                        _ => {}
                    }
                }
                Err(ToolError::new("no end came"))
            };
            let (_, answer) = futures::future::try_join(send, receive).await?;
            Ok(answer)
        },
    )
}

#[test]
fn thousands_of_messages_go_both_ways_through_two_plugins_after_a_large_payload() -> Tested {
    const MESSAGES: u32 = 3_000;
    testing::run(async {
        let host = TestHost::builder(middle()).with(echo()).start().await?;
        let first = vec![b'x'; 10 << 20];
        let target = Target::service("middle.pass").timeout(Duration::from_secs(60));
        let (mut requests, mut answers) = host.open(target, Bytes::from(first.clone())).await?;
        let send = async {
            for number in 0..MESSAGES {
                requests.send(number.to_string()).await?;
            }
            requests.finish();
            Ok::<_, plugmesh_sdk::CallError>(())
        };
        let receive = async {
            let mut next = 0;
            while let Some(event) = answers.next().await {
                match event {
                    CallEvent::Chunk(message) => {
                        assert_eq!(message, next.to_string().as_bytes());
                        next += 1;
                    }
                    CallEvent::End(end) => return end.map(|end| (next, end)),
                    other => panic!("{other:?}"),
                }
            }
            panic!("no end came")
        };
        let ((), (received, end)) = futures::future::try_join(send, receive).await?;
        assert_eq!(received, MESSAGES);
        let digits: usize = (0..MESSAGES).map(|number| number.to_string().len()).sum();
        assert_eq!(end.parse::<usize>()?, first.len() + digits);
        Ok(())
    })
}

#[test]
fn a_provider_that_does_not_read_holds_its_caller_up_within_the_credit() -> Tested {
    testing::run(async {
        let go = Arc::new(Notify::new());
        let begin = go.clone();
        let plugin = Plugin::new("slow", "1.0.0").client_streaming_service(
            "slow.take",
            async move |_: (), mut requests: RequestStream, _| {
                begin.notified().await;
                let mut messages = 0;
                while requests.next().await?.is_some() {
                    messages += 1;
                }
                Ok(Json(messages))
            },
        );
        let host = TestHost::start(plugin).await?;
        let (mut requests, answer) = host.open(Target::service("slow.take"), ()).await?;
        let mut sent = 0;
        let full = async {
            loop {
                requests.send("x").await?;
                sent += 1;
            }
        };
        let full: Result<Result<(), plugmesh_sdk::CallError>, _> =
            tokio::time::timeout(Duration::from_millis(300), full).await;
        assert!(full.is_err());
        assert_eq!(sent, 64);
        go.notify_one();
        for _ in sent..1_000 {
            requests.send("x").await?;
        }
        requests.finish();
        assert_eq!(answer.finish().await?.parse::<u32>()?, 1_000);
        Ok(())
    })
}

#[test]
fn a_caller_that_goes_away_is_no_end_of_the_messages() -> Tested {
    testing::run(async {
        let (tell, mut told) = mpsc::unbounded_channel();
        let plugin = Plugin::new("sink", "1.0.0").client_streaming_service(
            "sink.take",
            async move |_: (), mut requests: RequestStream, ctx: Context| {
                let watched = std::pin::pin!(ctx.cancelled());
                tell.send("begun".to_owned())?;
                let read = async {
                    loop {
                        match requests.next().await {
                            Ok(Some(_)) => {}
                            Ok(None) => return "the messages ended".to_owned(),
                            Err(error) => return error.to_string(),
                        }
                    }
                };
                let (_, said) = futures::future::join(watched, read).await;
                tell.send(said)?;
                Ok(())
            },
        );
        let host = TestHost::start(plugin).await?;
        let (mut requests, answer) = host.open(Target::service("sink.take"), ()).await?;
        requests.send("one").await?;
        assert_eq!(told.recv().await.as_deref(), Some("begun"));
        drop(answer);
        assert_eq!(
            told.recv().await.as_deref(),
            Some("the caller cancelled the call")
        );
        let error = requests.send("two").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Cancelled);
        Ok(())
    })
}

#[test]
fn a_provider_may_answer_before_the_messages_end_and_late_ones_disturb_nobody() -> Tested {
    testing::run(async {
        let plugin = echo().client_streaming_service(
            "echo.first",
            async |_: (), mut requests: RequestStream, _| {
                Ok(requests.next().await?.unwrap_or_default())
            },
        );
        let host = TestHost::start(plugin).await?;
        let target = || Target::service("echo.first");
        let (mut requests, answer) = host.open(target(), ()).await?;
        let mut sent = 0;
        while requests.send("first").await.is_ok() && sent < 10_000 {
            sent += 1;
            tokio::task::yield_now().await;
        }
        assert!((1..=64).contains(&sent), "{sent}");
        assert_eq!(answer.finish().await?.bytes, "first");
        // The session goes on, and a call without messages sends none.
        let answer = host.call(target(), ()).await?.finish().await?;
        assert_eq!(answer.bytes, "");
        Ok(())
    })
}

#[test]
fn messages_to_what_takes_none_are_refused_and_so_are_those_that_are_too_large() -> Tested {
    testing::run(async {
        let plugin = echo().service("echo.once", async |all: Bytes, _| Ok(all));
        let host = TestHost::start(plugin).await?;
        let refused = host.open(Target::service("echo.once"), "x").await;
        let error = refused.map(|_| ()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert!(
            error.message.contains("declare client streaming"),
            "{error}"
        );

        let (mut requests, answers) = host.open(Target::service("echo.back"), "").await?;
        requests.send(Bytes::from(vec![0; 128 << 10])).await?;
        let error = requests
            .send(Bytes::from(vec![0; (128 << 10) + 1]))
            .await
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge);
        requests.finish();
        assert_eq!(answers.finish().await?.parse::<usize>()?, 128 << 10);
        Ok(())
    })
}

#[test]
fn an_orchestrator_sends_lines_and_progress_and_notices_that_its_caller_left() -> Tested {
    testing::run(async {
        let lines = Arc::new(AtomicU32::new(0));
        let sent = lines.clone();
        let (tell, mut told) = mpsc::unbounded_channel();
        let plugin = Plugin::new("build", "1.0.0").orchestrator(
            "build.run",
            async move |_: (), mut output: ChunkSender, ctx: Context| {
                ctx.progress(1.0, 2.0, "half way");
                let stopped = std::pin::pin!(ctx.cancelled());
                let work = async {
                    while output.send("a line").await.is_ok() {
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                };
                futures::future::select(stopped, std::pin::pin!(work)).await;
                tell.send(())?;
                Ok(())
            },
        );
        let host = TestHost::start(plugin).await?;
        let target = Target::orchestrator("build.run").want_progress();
        let mut run = host.call(target, ()).await?;
        assert!(matches!(run.next().await, Some(CallEvent::Progress(_))));
        assert_eq!(run.next().await, Some(CallEvent::Chunk("a line".into())));
        drop(run);
        assert_eq!(told.recv().await, Some(()));
        assert!(lines.load(Ordering::SeqCst) <= 128);
        Ok(())
    })
}
