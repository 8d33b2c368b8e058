//! What the transport does whatever the call: codes for what cannot be decoded, deadlines, tokens, TLS, health, reflection.

use std::time::{Duration, Instant};

use mainspring_proto as proto;
use mainspring_proto::purge_instances_request::Request as PurgeRequest;
use mainspring_server::{Bearer, INBOUND_BYTES_MAX};
use prost::Message;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::running::{Running, client};

fn get(id: &str) -> proto::GetInstanceRequest {
    proto::GetInstanceRequest {
        instance_id: id.to_owned(),
        get_inputs_and_outputs: false,
    }
}

/// S-11.7, S-1.14: never CANCELLED, which ends old Python workers.
#[tokio::test]
async fn a_call_that_outlives_its_deadline_says_so() {
    let server = Running::start().await;
    let message = get("missing").encode_to_vec();
    for time_out in ["100m", "50000u"] {
        let since = Instant::now();
        let status = server
            .raw("WaitForInstanceCompletion", &message, Some(time_out))
            .await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(since.elapsed() >= Duration::from_millis(45));
    }
}

/// S-11.22: a Java test purges with a deadline of 1 ns.
#[tokio::test]
async fn a_deadline_that_is_over_on_arrival_is_exceeded() {
    let server = Running::start().await;
    let filter = PurgeRequest::PurgeInstanceFilter(proto::PurgeInstanceFilter::default());
    let purge = proto::PurgeInstancesRequest {
        request: Some(filter),
        ..Default::default()
    };
    let status = server
        .raw("PurgeInstances", &purge.encode_to_vec(), Some("1n"))
        .await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

/// S-1.17.
#[tokio::test]
async fn a_thousand_waits_do_not_hold_up_the_calls_behind_them() {
    let server = Running::start().await;
    let client = server.client().await;
    let waits: Vec<_> = (0..1_000)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move {
                client
                    .wait_for_instance_start(get(&number.to_string()))
                    .await
                    .map(|_| ())
            })
        })
        .collect();
    // In a task, so that it takes its turn behind them.
    let behind = tokio::spawn(async move { client.clone().hello(()).await });
    tokio::time::timeout(Duration::from_secs(10), behind)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    server.stop().await.unwrap();
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
}

/// Section 19: malformed is INVALID_ARGUMENT, whoever notices it.
#[tokio::test]
async fn what_cannot_be_decoded_is_the_callers_mistake() {
    let server = Running::start().await;
    // A string that is cut, a number where a string belongs, a string that is no UTF-8, and an unknown group.
    for garbage in [
        &b"\x0a\x05ab"[..],
        b"\x08\x07",
        b"\x0a\x02\xff\xfe",
        b"\xff\xff",
    ] {
        for method in [
            "StartInstance",
            "GetInstance",
            "CompleteActivityTask",
            "CompleteOrchestratorTask",
            "StreamInstanceHistory",
        ] {
            let status = server.raw(method, garbage, None).await;
            assert_eq!(
                status.code(),
                Code::InvalidArgument,
                "{method} {garbage:?}: {status}"
            );
        }
    }
    assert_eq!(
        server.raw("NoSuchMethod", b"", None).await.code(),
        Code::Unimplemented
    );
    server.client().await.hello(()).await.unwrap();
}

/// S-1.11, S-13.28.
#[tokio::test]
async fn an_answer_too_large_to_read_ends_the_streams_of_its_connection_alone() {
    let server = Running::start().await;
    let mut failing = server.client().await;
    let mut other = server.client().await;
    let open = proto::GetWorkItemsRequest::default;
    let mut ended = failing.get_work_items(open()).await.unwrap().into_inner();
    let mut kept = other.get_work_items(open()).await.unwrap().into_inner();
    for stream in [&mut ended, &mut kept] {
        assert!(
            stream.message().await.unwrap().is_some(),
            "a ping comes first"
        );
    }

    let result = Some("x".repeat(INBOUND_BYTES_MAX));
    let answer = proto::ActivityResponse {
        instance_id: "a".to_owned(),
        result,
        ..Default::default()
    };
    let status = failing.complete_activity_task(answer).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(ended.message().await.unwrap_err().code(), Code::Unavailable);

    failing.hello(()).await.unwrap();
    tokio::time::timeout(Duration::from_millis(100), kept.message())
        .await
        .expect_err("the other connection's stream goes on");
}

/// S-1.11.
#[tokio::test]
async fn a_client_that_sends_too_much_loses_nothing_but_its_call() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let mut items = client
        .get_work_items(proto::GetWorkItemsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(items.message().await.unwrap().is_some());
    let input = Some("x".repeat(INBOUND_BYTES_MAX));
    let start = proto::CreateInstanceRequest {
        name: "Order".to_owned(),
        input,
        ..Default::default()
    };
    let status = client.start_instance(start).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains(&INBOUND_BYTES_MAX.to_string()),
        "{status}"
    );
    client.hello(()).await.unwrap();
    tokio::time::timeout(Duration::from_millis(100), items.message())
        .await
        .expect_err("the stream goes on");
}

#[tokio::test]
async fn the_standard_health_service_tells_that_the_server_is_ready() {
    let server = Running::start().await;
    server.client().await.hello(()).await.unwrap();
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "TaskHubSidecarService"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let mut states = health.watch(request).await.unwrap().into_inner();
        // The first state may be that of a moment ago.
        while states.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    }
}

async fn reflected(channel: Channel) -> Result<Vec<String>, Status> {
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let request = v1::ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await?
        .into_inner();
    match answers.message().await?.unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Ok(list.service.into_iter().map(|s| s.name).collect())
        }
        other => panic!("{other:?}"),
    }
}

async fn reflected_alpha(channel: Channel) -> Vec<String> {
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    match answers.message().await.unwrap().unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|s| s.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// S-1.1: the service has no package.
#[tokio::test]
async fn reflection_lists_the_service_in_both_versions() {
    let server = Running::start().await;
    let channel = server.channel().await;
    for names in [
        reflected(channel.clone()).await.unwrap(),
        reflected_alpha(channel).await,
    ] {
        assert!(
            names.iter().any(|name| name == "TaskHubSidecarService"),
            "{names:?}"
        );
        assert!(
            names.iter().any(|name| name == "grpc.health.v1.Health"),
            "{names:?}"
        );
    }
}

/// S-1.8.
#[tokio::test]
async fn with_a_token_every_call_but_health_has_to_bring_it() {
    let server =
        Running::with(|config| config.bearer = Some(Bearer::Token("abc-123".to_owned()))).await;
    let channel = server.channel().await;
    let mut client = client(channel.clone());
    let bearing = |token: &str| {
        let mut request = Request::new(());
        request
            .metadata_mut()
            .insert("authorization", token.parse().unwrap());
        request
    };
    assert_eq!(
        client.hello(()).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(
        client
            .hello(bearing("Bearer abc-124"))
            .await
            .unwrap_err()
            .code(),
        Code::Unauthenticated
    );
    client.hello(bearing("Bearer abc-123")).await.unwrap();
    let stream = client
        .get_work_items(proto::GetWorkItemsRequest::default())
        .await;
    assert_eq!(stream.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(
        reflected(channel.clone()).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
}

/// S-1.8.
#[tokio::test]
async fn without_a_token_whatever_is_sent_as_one_is_ignored() {
    let server = Running::start().await;
    let mut request = Request::new(());
    request
        .metadata_mut()
        .insert("authorization", "Bearer whatever".parse().unwrap());
    server.client().await.hello(request).await.unwrap();
}

/// S-1.2, S-13.28: connections keep their numbers below TLS, too.
#[tokio::test]
async fn with_a_certificate_the_port_speaks_tls() {
    let folder = tempfile::TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = Running::with(|config| {
        config.tls_cert = Some(cert);
        config.tls_key = Some(key);
    })
    .await;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(made.cert.pem()))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", server.grpc))
        .unwrap()
        .tls_config(tls)
        .unwrap();
    let mut client = client(endpoint.connect().await.unwrap());
    client.hello(()).await.unwrap();

    let mut items = client
        .get_work_items(proto::GetWorkItemsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(items.message().await.unwrap().is_some());
    let result = Some("x".repeat(INBOUND_BYTES_MAX));
    client
        .complete_activity_task(proto::ActivityResponse {
            result,
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(items.message().await.unwrap_err().code(), Code::Unavailable);

    let mut plain = crate::running::client(
        Endpoint::from_shared(format!("http://{}", server.grpc))
            .unwrap()
            .connect_lazy(),
    );
    assert!(plain.hello(()).await.is_err());
}
