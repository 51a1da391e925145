//! The standard gRPC services, asked as any tool would ask them.

use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn connect(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("an address");
    endpoint.connect().await.expect("the port answers")
}

/// The services that reflection lists.
pub async fn services(url: &str) -> Vec<String> {
    let mut client = ServerReflectionClient::new(connect(url).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .expect("reflection answers");
    let answer = answers.into_inner().message().await.expect("an answer");
    match answer.and_then(|answer| answer.message_response) {
        Some(MessageResponse::ListServicesResponse(list)) => list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        other => panic!("{other:?}"),
    }
}

/// Whether the health service says that the whole serves.
pub async fn is_serving(url: &str) -> bool {
    let mut client = HealthClient::new(connect(url).await);
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let answer = client.check(request).await.expect("health answers");
    answer.into_inner().status == 1
}
