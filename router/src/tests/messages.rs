//! Calls that send messages after their payload.

use std::task::Waker;

use mesh_bus::Upload;

use super::*;
use crate::{MessageSender, messages};

/// A node whose instances refuse every call, after they took so many of its messages.
struct Taking {
    messages: usize,
    begun: AtomicU64,
}

impl LocalHost for Taking {
    fn begin(
        &self,
        _instance: InstanceId,
        mut call: common::Call,
        input: CallInput,
        _deadline: Instant,
    ) -> Result<LocalCall, MeshError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let mut upload = Upload::begin(&mut call, input, 1, 64, || Waker::noop().clone()).unwrap();
        for _ in 0..self.messages {
            assert!(upload.next_chunk().is_some());
        }
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(failed(ErrorCode::Draining)).unwrap();
        Ok(LocalCall::new(receiver, || {}))
    }
}

async fn router(host: &Arc<Taking>) -> (Router, watch::Sender<Arc<Table>>) {
    let bus = BusConfig {
        urls: "nats://127.0.0.1:1".to_owned(),
        credentials: None,
        client_name: "test".to_owned(),
        mesh: MeshName::default(),
    };
    let (bus, _) = Bus::connect(bus).await.unwrap();
    let first = Table::default().apply(&table(2, 1)).unwrap();
    let table = watch::Sender::new(Arc::new(first));
    let config = RouterConfig::new(NodeId::new("own").unwrap());
    let (router, _) = Router::new(config, bus, table.subscribe(), Some(host.clone()));
    (router, table)
}

fn open(name: &str) -> (MessageSender, CallRequest) {
    let (sender, source) = messages(8);
    for message in ["one", "two"] {
        sender.try_send(message.into()).unwrap();
    }
    let mut request =
        CallRequest::new(service(name), Bytes::new()).with_timeout(Duration::from_millis(500));
    request.messages = Some(source);
    (sender, request)
}

#[tokio::test]
async fn a_call_is_tried_elsewhere_only_while_none_of_its_messages_was_taken() {
    for messages in [0, 1] {
        let host = Arc::new(Taking {
            messages,
            begun: AtomicU64::new(0),
        });
        let (router, _table) = router(&host).await;
        let (_sender, request) = open("again");
        let error = router.call(request).finish().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Draining);
        let begun = host.begun.load(Ordering::Relaxed);
        assert_eq!(begun > 1, messages == 0, "{begun}");
    }
}

#[tokio::test]
async fn messages_to_what_takes_none_are_refused_before_anything_is_sent() {
    let host = Arc::new(Taking {
        messages: 0,
        begun: AtomicU64::new(0),
    });
    let (router, _table) = router(&host).await;
    let (_sender, request) = open("once");
    let error = router.call(request).finish().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    assert!(error.message.contains("client_streaming"), "{error}");
    assert_eq!(error.place.plugin, "p");
    assert_eq!(host.begun.load(Ordering::Relaxed), 0);
}
