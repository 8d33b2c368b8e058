//! The shape of the contract as Rust sees it: paths, empty requests, reflection.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use mainspring_proto::client::TaskHubSidecarServiceClient;
use mainspring_proto::{FILE_DESCRIPTOR_SET, server, v1};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::codegen::{Service, http};

/// The one file of a package that declares services.
fn file_of(package: &str) -> prost_types::FileDescriptorProto {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut own = set
        .file
        .into_iter()
        .filter(|file| file.package() == package && !file.service.is_empty())
        .collect::<Vec<_>>();
    assert_eq!(own.len(), 1, "one file declares services");
    own.remove(0)
}

fn own_file() -> prost_types::FileDescriptorProto {
    file_of("")
}

/// Answers every call with an empty response and notes the path that was asked for.
#[derive(Clone, Default)]
struct PathRecorder(Arc<Mutex<Vec<String>>>);

impl Service<http::Request<Body>> for PathRecorder {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.lock().unwrap().push(request.uri().path().to_owned());
        ready(Ok(http::Response::new(Body::empty())))
    }
}

#[tokio::test]
async fn calls_go_to_paths_without_a_package() {
    let recorder = PathRecorder::default();
    let mut client = TaskHubSidecarServiceClient::new(recorder.clone());
    let _ = client.hello(()).await;
    let _ = client
        .get_work_items(mainspring_proto::GetWorkItemsRequest::default())
        .await;
    let _ = client
        .stream_instance_history(mainspring_proto::StreamInstanceHistoryRequest::default())
        .await;
    assert_eq!(
        *recorder.0.lock().unwrap(),
        [
            "/TaskHubSidecarService/Hello",
            "/TaskHubSidecarService/GetWorkItems",
            "/TaskHubSidecarService/StreamInstanceHistory",
        ]
    );
    assert_eq!(server::SERVICE_NAME, "TaskHubSidecarService");
}

#[tokio::test]
async fn the_work_stream_has_a_path_of_its_own() {
    let recorder = PathRecorder::default();
    let mut client = v1::client::WorkStreamClient::new(recorder.clone());
    let _ = client
        .work(tonic::codegen::tokio_stream::empty::<v1::ToScheduler>())
        .await;
    assert_eq!(
        *recorder.0.lock().unwrap(),
        ["/mainspring.v1.WorkStream/Work"]
    );
    assert_eq!(v1::server::SERVICE_NAME, "mainspring.v1.WorkStream");
    let file = file_of("mainspring.v1");
    assert_eq!(file.service[0].name(), "WorkStream");
    assert!(file.service[0].method[0].client_streaming());
}

#[test]
fn the_descriptor_set_resolves_every_import() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let present: BTreeSet<&str> = set.file.iter().map(|file| file.name()).collect();
    for file in &set.file {
        for import in &file.dependency {
            assert!(present.contains(import.as_str()), "{import} is missing");
        }
    }
}

macro_rules! decode_from_nothing {
    ($($request:ident),* $(,)?) => {{
        let mut names = BTreeSet::from([".google.protobuf.Empty".to_owned()]);
        $(
            let decoded = mainspring_proto::$request::decode(&[][..]).unwrap();
            assert_eq!(decoded, mainspring_proto::$request::default());
            assert_eq!(decoded.encoded_len(), 0);
            names.insert(concat!(".", stringify!($request)).to_owned());
        )*
        names
    }};
}

#[test]
fn every_request_decodes_from_an_empty_buffer() {
    let tried = decode_from_nothing!(
        AbandonActivityTaskRequest,
        AbandonEntityTaskRequest,
        AbandonOrchestrationTaskRequest,
        ActivityResponse,
        CleanEntityStorageRequest,
        CreateInstanceRequest,
        CreateTaskHubRequest,
        DeleteTaskHubRequest,
        EntityBatchResult,
        GetEntityRequest,
        GetInstanceRequest,
        GetWorkItemsRequest,
        ListInstanceIdsRequest,
        OrchestratorResponse,
        PurgeInstancesRequest,
        QueryEntitiesRequest,
        QueryInstancesRequest,
        RaiseEventRequest,
        RestartInstanceRequest,
        ResumeRequest,
        RewindInstanceRequest,
        SignalEntityRequest,
        SkipGracefulOrchestrationTerminationsRequest,
        StreamInstanceHistoryRequest,
        SuspendRequest,
        TerminateRequest,
    );
    let declared: BTreeSet<String> = own_file().service[0]
        .method
        .iter()
        .map(|method| method.input_type().to_owned())
        .collect();
    assert_eq!(tried, declared);
}

#[test]
fn the_older_reuse_policy_layout_is_understood() {
    // S-10.3: older clients send field 2 with IGNORE = 1 or TERMINATE = 2.
    use mainspring_proto::OrchestrationIdReusePolicy;
    use mainspring_proto::orchestration_id_reuse_policy::CreateOrchestrationAction;

    let policy = OrchestrationIdReusePolicy::decode(&[0x0a, 0x01, 0x01, 0x10, 0x02][..]).unwrap();
    assert_eq!(policy.replaceable_status, [1]);
    assert_eq!(policy.action(), CreateOrchestrationAction::Terminate);
    assert_eq!(
        OrchestrationIdReusePolicy::default().action(),
        CreateOrchestrationAction::Error
    );
}
