//! How a server starts and stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainspring_proto as proto;
use mainspring_server::{Error, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::running::{Running, client, config};

fn get(id: &str) -> proto::GetInstanceRequest {
    proto::GetInstanceRequest {
        instance_id: id.to_owned(),
        get_inputs_and_outputs: true,
    }
}

fn start(id: &str) -> proto::CreateInstanceRequest {
    proto::CreateInstanceRequest {
        instance_id: id.to_owned(),
        name: "Order".to_owned(),
        ..Default::default()
    }
}

/// The first line of a plain HTTP answer.
async fn probe(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn the_health_port_answers_204_once_calls_are_answered() {
    let server = Running::start().await;
    server.client().await.hello(()).await.unwrap();
    assert!(probe(server.health, "GET /healthz").await.contains("204"));
    assert!(probe(server.health, "HEAD /healthz").await.contains("204"));
    assert!(probe(server.health, "GET /").await.contains("404"));
}

/// S-1.16: a JS worker whose first Hello is refused never tries again.
#[tokio::test]
async fn a_call_that_comes_before_the_store_is_open_is_held_and_answered() {
    let folder = TempDir::new().unwrap();
    let server = Server::bind(config(folder.path())).await.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc_addr())).unwrap();
    let early =
        tokio::spawn(async move { client(endpoint.connect().await.unwrap()).hello(()).await });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));
    early.await.unwrap().unwrap();
    drop(stop);
    serving.await.unwrap().unwrap();
}

/// S-1.10, S-1.14, S-11.7.
#[tokio::test]
async fn stopping_ends_streams_and_waits_with_unavailable_and_soon() {
    let server = Running::start().await;
    let mut worker = server.client().await;
    let mut items = worker
        .get_work_items(proto::GetWorkItemsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(items.message().await.unwrap().is_some());
    let mut waiting = server.client().await;
    let wait = tokio::spawn(async move {
        waiting
            .wait_for_instance_completion(get("missing"))
            .await
            .map(|_| ())
    });
    // The wait has to be there before the stop: it is once a later call of its connection's server is answered.
    worker.hello(()).await.unwrap();

    let since = Instant::now();
    server.stop().await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(10));
    assert_eq!(items.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(wait.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(
        worker.hello(()).await.unwrap_err().code(),
        Code::Unavailable
    );
}

/// A peer that never says a word, and one that watches the health service, hold nothing up.
#[tokio::test]
async fn idle_peers_do_not_delay_the_stop() {
    let server = Running::start().await;
    server.client().await.hello(()).await.unwrap();
    let _silent = TcpStream::connect(server.grpc).await.unwrap();
    let _silent_probe = TcpStream::connect(server.health).await.unwrap();
    let mut health = HealthClient::new(server.channel().await);
    let mut states = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    while states.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}

    let since = Instant::now();
    server.stop().await.unwrap();
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(
        states.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
}

/// S-0.6, S-10.8.
#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let server = Running::start().await;
    let folder = Arc::clone(&server.folder);
    server
        .client()
        .await
        .start_instance(start("order-17"))
        .await
        .unwrap();
    server.stop().await.unwrap();

    let server = Running::on(folder, |_| ()).await;
    let got = server
        .client()
        .await
        .get_instance(get("order-17"))
        .await
        .unwrap()
        .into_inner();
    assert!(got.exists);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused_naming_it() {
    let server = Running::start().await;
    server.client().await.hello(()).await.unwrap();
    let second = Server::bind(config(server.folder.path())).await.unwrap();
    let error = second.serve(std::future::pending()).await.unwrap_err();
    let folder = server.folder.path().to_string_lossy().into_owned();
    assert!(
        matches!(error, Error::Store(_)) && error.to_string().contains(&folder),
        "{error}"
    );
    server.client().await.hello(()).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_told_with_its_address() {
    let server = Running::start().await;
    let other = TempDir::new().unwrap();
    let mut taken = config(other.path());
    taken.grpc_addr = server.grpc;
    let error = Server::bind(taken).await.err().unwrap();
    assert!(
        error.to_string().contains(&server.grpc.to_string()),
        "{error}"
    );
    assert!(
        !other.path().join("data").exists(),
        "nothing is opened when a port is taken"
    );
}

#[tokio::test]
async fn settings_that_contradict_themselves_are_told_before_anything_is_bound() {
    let folder = TempDir::new().unwrap();
    let mut missing = config(folder.path());
    missing.tls_cert = Some(folder.path().join("cert.pem"));
    missing.tls_key = Some(folder.path().join("key.pem"));
    let error = Server::bind(missing).await.err().unwrap();
    assert!(
        matches!(
            error,
            Error::File {
                name: "tls_cert",
                ..
            }
        ),
        "{error}"
    );

    std::fs::write(folder.path().join("cert.pem"), "rubbish").unwrap();
    std::fs::write(folder.path().join("key.pem"), "rubbish").unwrap();
    let mut unusable = config(folder.path());
    unusable.tls_cert = Some(folder.path().join("cert.pem"));
    unusable.tls_key = Some(folder.path().join("key.pem"));
    let error = Server::bind(unusable).await.err().unwrap();
    assert!(matches!(error, Error::Tls(_)), "{error}");
}
