//! Sessions against a host that does as the test pleases: handshakes, frames out of order, leaving.

#![allow(clippy::indexing_slicing, reason = "a failed test may panic")]

use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, LocalBoxFuture};
use prost::Message;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::connect::Connector;
use crate::error::Error;
use crate::run::Runner;
use crate::signals::Stopper;
use crate::telemetry::Telemetry;
use crate::testing::server::{self, Arrival};
use crate::wire::{HostBody, HostFrame, PluginBody, PluginFrame, common, plugin};
use crate::{Context, Json, NoArgs, Plugin, ToolError};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A plugin that runs, and the host's end of its sessions.
struct Host {
    running: LocalBoxFuture<'static, Result<(), Error>>,
    arrivals: mpsc::Receiver<Arrival>,
    stopper: Stopper,
}

impl Host {
    fn of(plugin: Plugin) -> Self {
        let (connections, listener) = mpsc::channel(8);
        let (sender, arrivals) = mpsc::channel(8);
        let (stopper, stop) = Stopper::new();
        let log = plugin.sink();
        let definition = plugin.define();
        let runner = Runner {
            log,
            definition: Arc::new(definition.unwrap_or_else(|error| panic!("{error}"))),
            telemetry: Telemetry::default(),
            connector: Connector::Memory(connections),
            host: "the test".to_owned(),
            launch_token: "token".to_owned(),
            verbose: false,
        };
        let running = async move {
            tokio::select! {
                ended = runner.run(stop) => ended,
                () = server::serve_memory(listener, sender) => Ok(()),
            }
        };
        Self {
            running: running.boxed_local(),
            arrivals,
            stopper,
        }
    }

    /// Waits while the plugin runs.
    async fn wait<T>(&mut self, future: impl Future<Output = T>) -> T {
        tokio::select! {
            ended = &mut self.running => panic!("the plugin ended: {ended:?}"),
            got = timeout(PATIENCE, future) => got.unwrap_or_else(|_| panic!("it took too long")),
        }
    }

    /// The end of the plugin.
    async fn end(self) -> Result<(), Error> {
        timeout(PATIENCE, self.running)
            .await
            .unwrap_or_else(|_| panic!("it did not end"))
    }

    async fn arrival(&mut self) -> Arrival {
        let arrival = tokio::select! {
            ended = &mut self.running => panic!("the plugin ended: {ended:?}"),
            arrival = timeout(PATIENCE, self.arrivals.recv()) => arrival,
        };
        match arrival {
            Ok(Some(arrival)) => arrival,
            _ => panic!("nobody came"),
        }
    }

    /// The next frame of the plugin.
    async fn next(&mut self, arrival: &mut Arrival) -> PluginFrame {
        let frame = self.wait(arrival.inbound.message()).await;
        match frame {
            Ok(Some(frame)) => frame,
            other => panic!("no frame came: {other:?}"),
        }
    }

    async fn send(&mut self, arrival: &Arrival, id: u64, body: HostBody) {
        let frame = HostFrame {
            id,
            body: Some(body),
        };
        let sent = self.wait(arrival.outbound.send(frame)).await;
        assert!(sent.is_ok());
    }

    /// Goes through the handshake; gives the plugin's hello too.
    async fn attach(&mut self, limits: plugin::SessionLimits) -> (Arrival, plugin::Hello) {
        let mut arrival = self.arrival().await;
        let hello = match self.next(&mut arrival).await.body {
            Some(PluginBody::Hello(hello)) => *hello,
            other => panic!("{other:?} came first"),
        };
        let welcome = plugin::Welcome {
            instance: "instance-1".to_owned(),
            config: "{}".into(),
            protocol: 1,
            limits: Some(limits),
            node: "node-1".to_owned(),
            mesh: "mesh-1".to_owned(),
            ..plugin::Welcome::default()
        };
        self.send(&arrival, 0, HostBody::Welcome(welcome.into()))
            .await;
        let ready = self.next(&mut arrival).await;
        assert_eq!(
            (ready.id, ready.body),
            (0, Some(PluginBody::Ready(plugin::Ready {})))
        );
        (arrival, hello)
    }

    /// What the plugin answers to an id, as text: `result: …` or `code: message`.
    async fn answer(&mut self, arrival: &mut Arrival, id: u64) -> String {
        let frame = self.next(arrival).await;
        assert_eq!(frame.id, id, "{frame:?}");
        match frame.body {
            Some(PluginBody::Result(result)) => {
                format!("result: {}", String::from_utf8_lossy(&result.payload))
            }
            Some(PluginBody::Error(error)) => {
                let error = crate::CallError::from(error);
                format!("{}: {}", error.code, error.message)
            }
            other => format!("{other:?}"),
        }
    }
}

fn echo() -> Plugin {
    Plugin::new("echo", "1.2.3")
        .service("echo.now", async |Json(text): Json<String>, _| Ok(text))
        .service("echo.never", async |Json(_): Json<String>, _| {
            std::future::pending::<Result<(), ToolError>>().await
        })
}

fn invoke(service: &str, text: &str) -> common::Call {
    common::Call {
        capability: Some(common::Capability {
            kind: common::CapabilityKind::Service.into(),
            name: service.to_owned(),
        }),
        payload: json!(text).to_string().into(),
        ..common::Call::default()
    }
}

fn part(text: &'static str, sequence: u64, last: bool) -> HostBody {
    HostBody::Chunk(common::Chunk {
        payload: text.into(),
        last,
        sequence,
        fragment: false,
    })
}

#[tokio::test]
async fn the_hello_says_who_the_plugin_is() {
    let mut host = Host::of(echo());
    let (_arrival, hello) = host.attach(plugin::SessionLimits::default()).await;
    let manifest = hello.manifest.unwrap_or_default();
    assert_eq!((hello.min_protocol, hello.max_protocol), (1, 1));
    assert_eq!(
        (manifest.name.as_str(), manifest.version.as_str()),
        ("echo", "1.2.3")
    );
    assert_eq!(manifest.capabilities.len(), 2);
    assert_eq!(hello.launch_token, "token");
    assert_eq!(hello.previous_instance, "");
    assert!(hello.sdk.starts_with("rust/"));
}

#[tokio::test]
async fn frames_out_of_order_get_an_error_for_their_id_and_harm_nobody_else() {
    let mut host = Host::of(echo());
    let (mut arrival, _) = host.attach(plugin::SessionLimits::default()).await;
    let hook = plugin::HookCall::default();
    let event = plugin::Event::default();
    let uploading = common::Call {
        more: true,
        payload: "\"a".into(),
        ..invoke("echo.now", "")
    };
    let nothing = common::Call::default();
    for (id, body, said) in [
        (
            3,
            HostBody::Invoke(invoke("echo.now", "x").into()),
            "protocol_violation: a host begins even ids from 2 on",
        ),
        (
            0,
            HostBody::Invoke(invoke("echo.now", "x").into()),
            "protocol_violation: a host begins even ids from 2 on",
        ),
        (
            2,
            HostBody::Invoke(invoke("echo.late", "x").into()),
            "no_provider: echo 1.2.3 does not provide service:echo.late",
        ),
        (
            4,
            HostBody::Invoke(nothing.into()),
            "no_provider: echo 1.2.3 does not provide unspecified:",
        ),
        (
            6,
            part("x", 0, true),
            "protocol_violation: a chunk came for a call that awaits none",
        ),
        (
            8,
            HostBody::Hook(hook.into()),
            "unsupported: this plugin runs no hooks",
        ),
        (
            10,
            HostBody::Event(event.into()),
            "unsupported: this plugin takes no events",
        ),
        (
            12,
            HostBody::Message(plugin::Message::default().into()),
            "unsupported: this plugin takes no messages",
        ),
        (
            0,
            HostBody::Welcome(plugin::Welcome::default().into()),
            "protocol_violation: a session has one Welcome",
        ),
        (
            14,
            HostBody::Invoke(invoke("echo.now", "still here").into()),
            "result: still here",
        ),
    ] {
        host.send(&arrival, id, body).await;
        assert_eq!(host.answer(&mut arrival, id).await, said);
    }
    // A body that this SDK does not know is no body to it.
    let unknown = HostFrame { id: 16, body: None };
    assert!(arrival.outbound.send(unknown).await.is_ok());
    assert_eq!(
        host.answer(&mut arrival, 16).await,
        "unsupported: this SDK does not know the frame's body"
    );
    // A gap in a payload ends its call only.
    host.send(&arrival, 18, HostBody::Invoke(uploading.clone().into()))
        .await;
    host.send(&arrival, 18, part("b", 1, true)).await;
    assert_eq!(
        host.answer(&mut arrival, 18).await,
        "protocol_violation: chunk 1 of the payload came where chunk 0 was due"
    );
    host.send(&arrival, 20, HostBody::Invoke(uploading.into()))
        .await;
    host.send(&arrival, 20, part("b", 0, false)).await;
    host.send(&arrival, 20, part("\"", 1, true)).await;
    assert_eq!(host.answer(&mut arrival, 20).await, "result: ab");
}

#[tokio::test]
async fn what_belongs_to_no_call_is_dropped_without_a_word() {
    let mut host = Host::of(echo());
    let (mut arrival, _) = host.attach(plugin::SessionLimits::default()).await;
    for body in [
        HostBody::Result(common::Result::default()),
        HostBody::Error(common::Error::default().into()),
        HostBody::Progress(common::Progress::default()),
        HostBody::Log(common::Log::default().into()),
        HostBody::Credit(common::Credit::of(u32::MAX)),
        HostBody::Cancel(common::Cancel::default()),
        part("x", 0, false),
    ] {
        host.send(&arrival, 7, body).await;
    }
    let check = HostBody::HealthCheck(plugin::HealthCheck {});
    host.send(&arrival, 2, check).await;
    let answer = host.next(&mut arrival).await;
    assert_eq!(answer.id, 2);
    match answer.body {
        Some(PluginBody::Health(health)) => {
            assert_eq!(health.status(), plugin::HealthStatus::Healthy);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_id_that_is_taken_and_a_call_too_many_are_refused() {
    let mut host = Host::of(echo());
    let limits = plugin::SessionLimits {
        concurrency: 2,
        ..plugin::SessionLimits::default()
    };
    let (mut arrival, _) = host.attach(limits).await;
    for id in [2, 4] {
        host.send(
            &arrival,
            id,
            HostBody::Invoke(invoke("echo.never", "").into()),
        )
        .await;
    }
    host.send(&arrival, 4, HostBody::Invoke(invoke("echo.now", "").into()))
        .await;
    assert_eq!(
        host.answer(&mut arrival, 4).await,
        "protocol_violation: a call of this id is running"
    );
    host.send(&arrival, 6, HostBody::Invoke(invoke("echo.now", "").into()))
        .await;
    assert_eq!(
        host.answer(&mut arrival, 6).await,
        "overloaded: 2 calls are running, which is the limit"
    );
    host.send(&arrival, 2, HostBody::Cancel(common::Cancel::default()))
        .await;
    assert_eq!(
        host.answer(&mut arrival, 2).await,
        "cancelled: the caller cancelled the call"
    );
    host.send(
        &arrival,
        8,
        HostBody::Invoke(invoke("echo.now", "x").into()),
    )
    .await;
    assert_eq!(host.answer(&mut arrival, 8).await, "result: x");
}

#[tokio::test]
async fn a_cancelled_call_that_delivers_a_large_result_ends_at_once() {
    let whale = Plugin::new("whale", "1.0.0")
        .service("whale.give", async |Json(_): Json<String>, _| {
            Ok("x".repeat(1 << 20))
        });
    let mut host = Host::of(whale);
    let limits = plugin::SessionLimits {
        concurrency: 1,
        initial_credit: 2,
        ..plugin::SessionLimits::default()
    };
    let (mut arrival, _) = host.attach(limits).await;
    let call = invoke("whale.give", "");
    for id in [2, 4] {
        // It must not hold the only place any longer.
        host.send(&arrival, id, HostBody::Invoke(call.clone().into()))
            .await;
        for _ in 0..2 {
            let part = host.next(&mut arrival).await;
            let is_part = matches!(part.body, Some(PluginBody::Chunk(_)));
            assert!(is_part && part.id == id, "{:?}", part.id);
        }
        host.send(&arrival, id, HostBody::Cancel(common::Cancel::default()))
            .await;
        let end = host.answer(&mut arrival, id).await;
        assert!(end.starts_with("cancelled: "), "{end}");
    }
}

#[tokio::test]
async fn a_plugin_comes_back_as_the_instance_that_it_was() {
    let mut host = Host::of(echo());
    let (arrival, _) = host.attach(plugin::SessionLimits::default()).await;
    drop(arrival);
    let (_arrival, hello) = host.attach(plugin::SessionLimits::default()).await;
    assert_eq!(hello.previous_instance, "instance-1");
}

#[tokio::test]
async fn a_host_that_asks_to_attach_again_gets_that() {
    let mut host = Host::of(echo());
    let (mut arrival, _) = host.attach(plugin::SessionLimits::default()).await;
    let drain = plugin::Drain {
        reattach: true,
        ..plugin::Drain::default()
    };
    host.send(&arrival, 0, HostBody::Drain(drain)).await;
    let last = host.next(&mut arrival).await;
    assert_eq!(last.body, Some(PluginBody::Drained(plugin::Drained {})));
    drop(arrival);
    host.attach(plugin::SessionLimits::default()).await;
}

#[tokio::test]
async fn a_drained_plugin_ends_its_calls_refuses_new_ones_and_ends() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let slow = Plugin::new("slow", "1.0.0").tool("work", async move |_: NoArgs, _| {
        let mut gone = gone.clone();
        let _ = gone.wait_for(|go| *go).await;
        Ok("done")
    });
    let mut host = Host::of(slow);
    let (mut arrival, _) = host.attach(plugin::SessionLimits::default()).await;
    let work = |_| common::Call {
        capability: Some(common::Capability {
            kind: common::CapabilityKind::Tool.into(),
            name: "work".to_owned(),
        }),
        ..common::Call::default()
    };
    host.send(&arrival, 2, HostBody::Invoke(work(()).into()))
        .await;
    host.send(&arrival, 0, HostBody::Drain(plugin::Drain::default()))
        .await;
    host.send(&arrival, 4, HostBody::Invoke(work(()).into()))
        .await;
    assert_eq!(
        host.answer(&mut arrival, 4).await,
        "draining: the plugin is about to end"
    );
    go.send_replace(true);
    assert!(host.answer(&mut arrival, 2).await.starts_with("result: "));
    let last = host.next(&mut arrival).await;
    assert_eq!(last.body, Some(PluginBody::Drained(plugin::Drained {})));
    drop(arrival);
    assert!(host.end().await.is_ok());
}

#[tokio::test]
async fn a_plugin_that_is_told_to_stop_asks_first_and_serves_until_it_is_answered() {
    let mut host = Host::of(echo());
    let (mut arrival, _) = host.attach(plugin::SessionLimits::default()).await;
    host.stopper.stop("SIGTERM");
    match host.next(&mut arrival).await.body {
        Some(PluginBody::DrainRequest(request)) => assert_eq!(request.reason, "SIGTERM"),
        other => panic!("{other:?}"),
    }
    host.send(
        &arrival,
        2,
        HostBody::Invoke(invoke("echo.now", "x").into()),
    )
    .await;
    assert_eq!(host.answer(&mut arrival, 2).await, "result: x");
    host.send(&arrival, 0, HostBody::Drain(plugin::Drain::default()))
        .await;
    let last = host.next(&mut arrival).await;
    assert_eq!(last.body, Some(PluginBody::Drained(plugin::Drained {})));
    drop(arrival);
    assert!(host.end().await.is_ok());
}

#[tokio::test]
async fn a_plugin_whose_host_does_not_answer_leaves_by_itself() {
    let mut host = Host::of(echo());
    let (mut arrival, _) = host.attach(plugin::SessionLimits::default()).await;
    host.stopper.stop("SIGTERM");
    let asked = host.next(&mut arrival).await;
    assert!(matches!(asked.body, Some(PluginBody::DrainRequest(_))));
    let last = host.next(&mut arrival).await;
    assert_eq!(last.body, Some(PluginBody::Drained(plugin::Drained {})));
    assert!(host.end().await.is_ok());
}

#[tokio::test]
async fn a_plugin_whose_host_takes_nothing_any_more_leaves_too() {
    let plugin = Plugin::new("flood", "1.0.0").service("flood.give", async |_: bytes::Bytes, _| {
        Ok(bytes::Bytes::from(vec![0; 128 << 10]))
    });
    let mut host = Host::of(plugin);
    let limits = plugin::SessionLimits {
        concurrency: 10_000,
        ..plugin::SessionLimits::default()
    };
    let (arrival, _) = host.attach(limits).await;
    let call = common::Call {
        payload: "{}".into(),
        ..invoke("flood.give", "")
    };
    // More than the windows of the connection and the queue before it can hold.
    for number in 1..=1_200 {
        host.send(&arrival, number * 2, HostBody::Invoke(call.clone().into()))
            .await;
    }
    let drain = plugin::Drain {
        grace_ms: 100,
        ..plugin::Drain::default()
    };
    host.send(&arrival, 0, HostBody::Drain(drain)).await;
    let ended = timeout(PATIENCE / 2, host.running).await;
    assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
    drop(arrival);
}

#[tokio::test]
async fn a_refusal_for_good_ends_the_plugin_with_its_reason_and_another_does_not() {
    use crate::ErrorCode::{DependencyCycle, InvalidConfig, InvalidManifest};
    for (code, ends) in [
        (InvalidManifest, true),
        (DependencyCycle, true),
        (InvalidConfig, false),
    ] {
        let mut host = Host::of(echo());
        let mut arrival = host.arrival().await;
        host.next(&mut arrival).await;
        let error = crate::CallError::new(code, "a -> b -> a");
        host.send(&arrival, 0, HostBody::Error(error.into())).await;
        if ends {
            match host.end().await {
                Err(error) => {
                    assert_eq!(error.exit_code(), 65);
                    assert!(error.to_string().contains("a -> b -> a"), "{error}");
                }
                Ok(()) => panic!("{code} was no reason to end"),
            }
        } else {
            let left = timeout(Duration::from_millis(200), &mut host.running).await;
            assert!(left.is_err(), "{code} ended the plugin");
        }
    }
}

#[tokio::test]
async fn a_cycle_that_is_found_later_ends_the_plugin_too() {
    let mut host = Host::of(echo());
    let (arrival, _) = host.attach(plugin::SessionLimits::default()).await;
    let error = crate::CallError::new(crate::ErrorCode::DependencyCycle, "a -> b -> a");
    host.send(&arrival, 0, HostBody::Error(error.into())).await;
    assert!(matches!(host.end().await, Err(Error::Refused(_))));
}

#[test]
fn a_status_that_carries_an_error_of_the_mesh_is_a_refusal() {
    let error = common::Error {
        code: common::ErrorCode::InvalidManifest.into(),
        message: "version: \"x\"".to_owned(),
        ..common::Error::default()
    };
    let details = error.encode_to_vec().into();
    let status = tonic::Status::with_details(tonic::Code::InvalidArgument, "no", details);
    match super::handshake::refusal_or_loss(&status) {
        super::Ended::Refused { error, for_good } => {
            assert!(for_good);
            assert_eq!(error.message, "version: \"x\"");
        }
        _ => panic!("it was no refusal"),
    }
    let lost = super::handshake::refusal_or_loss(&tonic::Status::unavailable("gone"));
    assert!(matches!(lost, super::Ended::Lost(why) if why == "gone"));
}

#[tokio::test]
async fn calls_of_a_plugin_end_when_its_session_does() {
    let (told, mut ends) = mpsc::unbounded_channel();
    let caller =
        Plugin::new("caller", "1.0.0").tool("call", async move |_: NoArgs, ctx: Context| {
            let call = ctx.call(crate::Target::service("other.work"), ()).await?;
            let told = told.clone();
            // Goes on when the handler is dropped, as a task of the plugin's own would.
            tokio::spawn(async move { told.send(call.finish().await) });
            Ok("begun")
        });
    let mut host = Host::of(caller);
    let (mut arrival, _) = host.attach(plugin::SessionLimits::default()).await;
    let call = common::Call {
        capability: Some(common::Capability {
            kind: common::CapabilityKind::Tool.into(),
            name: "call".to_owned(),
        }),
        ..common::Call::default()
    };
    host.send(&arrival, 2, HostBody::Invoke(call.into())).await;
    let own = host.next(&mut arrival).await;
    assert!(matches!((own.id, own.body), (1, Some(PluginBody::Call(_)))));
    assert!(host.answer(&mut arrival, 2).await.starts_with("result: "));
    drop(arrival);
    let end = host.wait(ends.recv()).await;
    match end {
        Some(Err(error)) => assert_eq!(error.code, crate::ErrorCode::OutcomeUnknown),
        other => panic!("{other:?}"),
    }
}
