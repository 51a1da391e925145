//! Followers of the table.

use super::*;
use mesh_core::table::Table;
use mesh_proto::control::table_feed_client::TableFeedClient;
use mesh_proto::control::{
    Revision, TableFeedHello, TableFeedRequest, TableFeedResponse, table_feed_request,
};
use mesh_proto::convert::SentUpdate;

pub(super) struct Gateway {
    requests: mpsc::Sender<TableFeedRequest>,
    updates: Streaming<TableFeedResponse>,
}

impl Gateway {
    pub(super) async fn open(bench: &Bench, mesh: &str, table: Option<Revision>) -> Self {
        let hello = TableFeedHello {
            mesh: mesh.into(),
            table,
            ..TableFeedHello::default()
        };
        Self::open_with(bench, hello).await
    }

    async fn open_with(bench: &Bench, hello: TableFeedHello) -> Self {
        let (requests, receiver) = mpsc::channel(4);
        let mut client = TableFeedClient::new(bench.channel.clone());
        let updates = client
            .follow(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        let hello = table_feed_request::Body::Hello(TableFeedHello {
            name: "gateway".into(),
            ..hello
        });
        let gateway = Self { requests, updates };
        gateway.send(Some(hello)).await;
        gateway
    }

    async fn send(&self, body: Option<table_feed_request::Body>) {
        self.requests.send(TableFeedRequest { body }).await.unwrap();
    }

    pub(super) async fn next(&mut self) -> Result<control::TableUpdate, String> {
        let sent = self.next_sent().await?;
        Ok(sent.wire().expect("an update"))
    }

    async fn next_sent(&mut self) -> Result<SentUpdate, String> {
        match tokio::time::timeout(PATIENCE, self.updates.message())
            .await
            .expect("in time")
        {
            Ok(message) => Ok(message.expect("a message").into()),
            Err(error) => Err(status::from_status(&error).to_string()),
        }
    }
}

#[tokio::test]
async fn a_gateway_follows_from_nothing_and_goes_on_where_it_was() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    let mut gateway = Gateway::open(&bench, "default", None).await;
    let mut table = Table::default();
    while !table.instances().any(|route| route.state.takes_calls()) {
        table = table
            .apply(&gateway.next().await.unwrap().try_into().unwrap())
            .unwrap();
    }
    drop(gateway);
    agent.report(ready(2, "other", &[])).await;
    bench.until("other", InstanceState::Active).await;
    let mut gateway = Gateway::open(&bench, "default", Some(table.revision().into())).await;
    while table.instance_count() < 2 {
        let update = gateway.next().await.unwrap();
        assert!(update.from.is_some(), "only what is newer");
        table = table.apply(&update.try_into().unwrap()).unwrap();
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_gateway_that_has_something_else_by_the_same_revision_gets_the_whole_table() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    let mut gateway = Gateway::open(&bench, "default", None).await;
    let update = gateway.next().await.unwrap();
    let table = Table::default();
    let table = table.apply(&update.try_into().unwrap()).unwrap();
    let revision = Some(table.revision().into());
    let hello = |table_digest| TableFeedHello {
        mesh: "default".into(),
        table: revision,
        table_digest,
        ..TableFeedHello::default()
    };
    let mut same = Gateway::open_with(&bench, hello(table.digest())).await;
    assert_eq!(same.next().await.unwrap().from, revision);
    let mut other = Gateway::open_with(&bench, hello(table.digest() + 1)).await;
    assert_eq!(other.next().await.unwrap().from, None);
    bench.stop().await;
}

#[tokio::test]
async fn a_large_table_goes_packed_to_those_who_take_that_and_plain_to_the_others() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    let mut report = ready(1, "time", &[]);
    report.reason = "as it was before ".repeat(1000);
    report.phase = InstancePhase::Loaded.into();
    agent.announce(vec![report]).await;
    bench.until("time", InstanceState::Loaded).await;
    for packed in [true, false] {
        let hello = TableFeedHello {
            mesh: "default".into(),
            takes_packed: packed,
            ..TableFeedHello::default()
        };
        let mut gateway = Gateway::open_with(&bench, hello).await;
        let sent = gateway.next_sent().await.unwrap();
        assert_eq!(matches!(sent, SentUpdate::Packed(_)), packed);
        assert_eq!(sent.wire().unwrap().instances.len(), 1);
        let mut agent = Agent::open(bench.channel.clone()).await;
        agent
            .send(agent_frame::Body::Hello(AgentHello {
                mesh: "default".into(),
                node: Some(NodeRoute {
                    node: "b".into(),
                    generation: if packed { 1 } else { 2 },
                    ..NodeRoute::default()
                }),
                takes_packed: packed,
                ..AgentHello::default()
            }))
            .await;
        let came_packed = loop {
            match agent.next().await.unwrap() {
                coordinator_frame::Body::Table(_) => break false,
                coordinator_frame::Body::PackedTable(_) => break true,
                _ => {}
            }
        };
        assert_eq!(came_packed, packed);
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_gateway_that_is_ahead_of_a_store_that_went_back_is_not_left_behind() {
    let bench = Bench::start().await;
    let agent = bench.agent("a", 7).await;
    agent.announce(vec![ready(1, "time", &[])]).await;
    bench.until("time", InstanceState::Active).await;
    let ahead = Revision {
        epoch: 1,
        sequence: 1_000_000,
    };
    let mut gateway = Gateway::open(&bench, "default", Some(ahead)).await;
    let update = gateway.next().await.unwrap();
    assert_eq!((update.from, update.to.unwrap().epoch), (None, 2));
    assert_eq!(update.instances.len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn a_gateway_of_another_mesh_or_without_a_hello_is_refused() {
    let bench = Bench::start().await;
    let mut gateway = Gateway::open(&bench, "other", None).await;
    let error = gateway.next().await.unwrap_err();
    assert!(
        error.contains("this coordinator serves mesh \"default\", not \"other\""),
        "{error}"
    );
    let (requests, receiver) = mpsc::channel(4);
    requests
        .send(TableFeedRequest { body: None })
        .await
        .unwrap();
    let mut client = TableFeedClient::new(bench.channel.clone());
    let updates = client
        .follow(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    let mut gateway = Gateway { requests, updates };
    let error = gateway.next().await.unwrap_err();
    assert_eq!(error, "protocol_violation: the first message is a hello");
    bench.stop().await;
}

#[tokio::test]
async fn a_gateway_that_reads_nothing_holds_nobody_up() {
    let bench = Bench::start().await;
    let _deaf = Gateway::open(&bench, "default", None).await;
    let mut good = Gateway::open(&bench, "default", None).await;
    let agent = bench.agent("a", 7).await;
    let mut table = Table::default();
    for number in 0..200_u8 {
        let mut report = ready(number, "big", &[]);
        report.reason = "x".repeat(60_000);
        report.phase = InstancePhase::Loaded.into();
        agent.report(report).await;
    }
    while table.instance_count() < 200 {
        table = table
            .apply(&good.next().await.unwrap().try_into().unwrap())
            .unwrap();
    }
    bench.stop().await;
}

#[tokio::test]
async fn one_that_stops_reading_costs_a_bounded_number_of_messages_and_gets_a_snapshot_afterwards()
{
    const CHANGES: u32 = 500;
    let bench = Bench::start().await;
    let mut stopped = Gateway::open(&bench, "default", None).await;
    let agent = bench.agent("a", 7).await;
    let mut good = Gateway::open(&bench, "default", None).await;
    let (mut followed, mut newest) = (0, Revision::default());
    for number in 0..CHANGES {
        let mut report = ready(1, "busy", &[]);
        report.phase = InstancePhase::Loaded.into();
        report.reason = format!("{number} {}", "x".repeat(60_000));
        let wanted = report.reason.clone();
        agent.report(report).await;
        // The other one has each change before the next is made.
        loop {
            let update = good.next().await.unwrap();
            newest = update.to.unwrap();
            followed += 1;
            if update
                .instances
                .iter()
                .any(|it| it.reason.starts_with(&wanted))
            {
                break;
            }
        }
    }
    assert!(followed >= CHANGES, "{followed}");
    // Now it reads again: what was on its way, then the whole table instead of what it missed.
    let (mut table, mut taken, mut whole) = (Table::default(), 0, 0);
    while table.revision() != newest.into() {
        let update = stopped.next().await.unwrap();
        taken += 1;
        whole += u32::from(update.from.is_none());
        table = table.apply(&update.try_into().unwrap()).unwrap();
    }
    assert!(whole >= 1, "{taken} messages, none of them a snapshot");
    // The windows of HTTP/2 and the queue hold some fifty of these; the feed keeps 16 MiB of them, which
    // it has left behind.
    assert!(taken < CHANGES / 2, "{taken} messages");
    bench.stop().await;
}

#[tokio::test]
async fn health_and_reflection_are_there() {
    let bench = Bench::start().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(bench.channel.clone());
    for service in [
        "",
        "plugmesh.control.v1.AgentSessions",
        "plugmesh.admin.v1.MeshAdmin",
    ] {
        let request = tonic_health::pb::HealthCheckRequest {
            service: service.into(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "{service}");
    }
    bench.stop().await;
}
