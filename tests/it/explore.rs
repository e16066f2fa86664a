//! What a generic client finds without any file of ours: the services, their messages, and whether they serve.

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb;

use crate::support::broker::TestBroker;

const SERVICES: [&str; 6] = [
    "riverrun.v1.Admin",
    "riverrun.v1.Fetch",
    "riverrun.v1.Group",
    "riverrun.v1.Produce",
    "riverrun.v1.Push",
    "riverrun.v1.Subscriptions",
];

/// Asks, by one version of the protocol, for the list of services and for the file that holds a symbol.
macro_rules! ask {
    ($version:ident, $channel:expr, $symbol:expr) => {{
        use pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = |message| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        };
        let asked = [
            request(MessageRequest::ListServices(String::new())),
            request(MessageRequest::FileContainingSymbol($symbol.to_owned())),
        ];
        let mut client = ServerReflectionClient::new($channel);
        let calls = client.server_reflection_info(tokio_stream::iter(asked)).await.unwrap();
        let mut answers = calls.into_inner();
        let mut answer = async || answers.next().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(listed) = answer().await else {
            panic!("services were asked for")
        };
        let MessageResponse::FileDescriptorResponse(file) = answer().await else {
            panic!("a file was asked for")
        };
        let names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
        (names, file.file_descriptor_proto.concat())
    }};
}

#[track_caller]
fn check((names, file): (Vec<String>, Vec<u8>)) {
    for service in SERVICES {
        assert!(names.iter().any(|name| name == service), "`{service}` is missing in {names:?}");
    }
    let field = b"durability_min";
    assert!(file.windows(field.len()).any(|bytes| bytes == field), "the file has its fields");
}

async fn status(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel.clone()).check(request).await.unwrap();
    answer.into_inner().status()
}

#[tokio::test]
async fn a_generic_client_finds_services_and_messages_by_either_version_of_reflection() {
    let broker = TestBroker::start().await;
    let channel = broker.channel().await;
    check(ask!(v1, channel.clone(), "riverrun.v1.AppendRequest"));
    check(ask!(v1alpha, channel.clone(), "riverrun.v1.AppendRequest"));
}

#[tokio::test]
async fn every_service_says_that_it_serves() {
    let broker = TestBroker::start().await;
    let channel = broker.channel().await;
    for service in SERVICES.iter().chain([&""]) {
        assert_eq!(status(&channel, service).await, ServingStatus::Serving, "`{service}`");
    }
}
