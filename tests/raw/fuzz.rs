//! Garbage: random bytes and damaged messages for every call, and bytes that are no gRPC at all.
//!
//! Verified: the server answers each within its time or holds it as its kind of call may, does not panic, lives on,
//! stops politely, keeps a sound store, and disturbs no orchestration of another hub. Not verified: which answer a
//! damaged message gets, since damage may leave a message that is right.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut};
use mainspring_proto::purge_instances_request::Request as Selection;
use mainspring_proto::*;
use mainspring_tests::action::{child, complete, continue_as_new, schedule, send_event, timer};
use mainspring_tests::{Activity, Chance, Episode, Peer, Scheduler, WorkStream, patiently};
use prost::Message;
use tokio::time::timeout;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::damage::damage;

const SEED: u64 = 20_260_101;

/// Each wave has fresh work in hand.
const WAVES: usize = 6;

/// Damaged messages for each call and wave.
const ROUNDS: usize = 12;

/// Items in hand in a wave.
const IN_HAND: usize = 20;

/// Calls under way at a time.
const LANES: usize = 8;

/// What has not answered by then is a call that may be held: a wait, or a stream without work.
const HELD_AFTER: Duration = Duration::from_millis(100);

/// Answers of these calls may take until something happens that nobody causes here.
const MAY_BE_HELD: [&str; 3] = [
    "WaitForInstanceStart",
    "WaitForInstanceCompletion",
    "GetWorkItems",
];

/// Messages as bytes, in both directions.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Bytes;
    type Decoder = Bytes;

    fn encoder(&mut self) -> Bytes {
        Bytes
    }

    fn decoder(&mut self) -> Bytes {
        Bytes
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// Makes one call with these bytes in hub `fuzz` and reads the first answer.
async fn call(channel: Channel, method: &str, body: Vec<u8>) -> Result<(), Status> {
    let path: PathAndQuery = format!("/TaskHubSidecarService/{method}").parse().unwrap();
    let mut request = Request::new(body);
    request
        .metadata_mut()
        .insert("taskhub", "fuzz".parse().unwrap());
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    if ["GetWorkItems", "StreamInstanceHistory"].contains(&method) {
        let mut stream = grpc
            .server_streaming(request, path, Bytes)
            .await?
            .into_inner();
        // The ping, or the first chunk; more might never come.
        stream.message().await.map(drop)
    } else {
        grpc.unary(request, path, Bytes).await.map(drop)
    }
}

/// One well-formed message for each call, with the tokens and ids of work that is really in hand.
fn samples(token: &str, id: &str) -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| text.to_owned();
    let some = |text: &str| Some(text.to_owned());
    let now = prost_types::Timestamp {
        seconds: 1_900_000_000,
        nanos: 5,
    };
    let failure = TaskFailureDetails {
        error_type: text("E"),
        error_message: text("m"),
        inner_failure: Some(Box::default()),
        properties: [(
            text("k"),
            prost_types::Value {
                kind: Some(prost_types::value::Kind::NumberValue(1.0)),
            },
        )]
        .into(),
        ..Default::default()
    };
    let actions = vec![
        schedule(1, "work", "1"),
        timer(2, now),
        child(3, "kid", "child"),
        send_event(4, id, "e", "1"),
        continue_as_new(5, "1"),
        complete(6, "1"),
    ];
    let get = GetInstanceRequest {
        instance_id: text(id),
        get_inputs_and_outputs: true,
    };
    let create = CreateInstanceRequest {
        instance_id: text(id),
        name: text("n"),
        version: some("1"),
        input: some("{}"),
        scheduled_start_timestamp: Some(now),
        orchestration_id_reuse_policy: Some(OrchestrationIdReusePolicy {
            replaceable_status: vec![0, 1, 3, 5, 6, 7],
            action: 2,
        }),
        execution_id: some("x"),
        tags: [(text("a"), text("b"))].into(),
        parent_trace_context: Some(TraceContext::default()),
        request_time: Some(now),
    };
    let query = QueryInstancesRequest {
        query: Some(InstanceQuery {
            runtime_status: vec![0, 1],
            created_time_from: Some(now),
            max_instance_count: 5,
            continuation_token: some("t"),
            instance_id_prefix: some("a"),
            fetch_inputs_and_outputs: true,
            ..Default::default()
        }),
    };
    let list = ListInstanceIdsRequest {
        runtime_status: vec![1],
        completed_time_from: Some(now),
        page_size: 3,
        last_instance_key: some(""),
        ..Default::default()
    };
    let purge = PurgeInstancesRequest {
        request: Some(Selection::PurgeInstanceFilter(PurgeInstanceFilter {
            created_time_from: Some(now),
            runtime_status: vec![1, 3],
            timeout: Some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            }),
            ..Default::default()
        })),
        recursive: true,
        is_orchestration: true,
    };
    let items = GetWorkItemsRequest {
        max_concurrent_orchestration_work_items: 1,
        max_concurrent_activity_work_items: 1,
        max_concurrent_entity_work_items: 1,
        capabilities: vec![1, 2],
        work_item_filters: Some(WorkItemFilters {
            orchestrations: vec![OrchestrationFilter {
                name: text("n"),
                versions: vec![text("1")],
            }],
            ..Default::default()
        }),
        worker_instance_id: text("w"),
    };
    let activity = ActivityResponse {
        instance_id: text(id),
        task_id: 1,
        result: some("1"),
        failure_details: Some(failure),
        completion_token: text(token),
    };
    let orchestrator = OrchestratorResponse {
        instance_id: text(id),
        actions,
        custom_status: some("s"),
        completion_token: text(token),
        num_events_processed: Some(1),
        orchestration_trace_context: Some(OrchestrationTraceContext::default()),
        requires_history: false,
        is_partial: true,
        chunk_index: Some(0),
    };
    let batch = InstanceBatch {
        instance_ids: vec![text(id), text("b")],
    };
    let skip = SkipGracefulOrchestrationTerminationsRequest {
        instance_batch: Some(batch),
        reason: some("r"),
    };
    let history = StreamInstanceHistoryRequest {
        instance_id: text(id),
        execution_id: some("x"),
        for_work_item_processing: true,
    };
    let signal = SignalEntityRequest {
        instance_id: text("@c@a"),
        name: text("add"),
        ..Default::default()
    };
    let raise = RaiseEventRequest {
        instance_id: text(id),
        name: text("e"),
        input: some("1"),
    };
    let terminate = TerminateRequest {
        instance_id: text(id),
        output: some("1"),
        recursive: true,
    };
    let restart = RestartInstanceRequest {
        instance_id: text(id),
        restart_with_new_instance_id: true,
    };
    let entity = GetEntityRequest {
        instance_id: text("@c@a"),
        include_state: true,
    };
    vec![
        ("Hello", Vec::new()),
        ("StartInstance", create.encode_to_vec()),
        ("GetInstance", get.encode_to_vec()),
        ("WaitForInstanceStart", get.encode_to_vec()),
        ("WaitForInstanceCompletion", get.encode_to_vec()),
        (
            "RewindInstance",
            RewindInstanceRequest {
                instance_id: text(id),
                reason: some("r"),
            }
            .encode_to_vec(),
        ),
        ("RestartInstance", restart.encode_to_vec()),
        ("RaiseEvent", raise.encode_to_vec()),
        ("TerminateInstance", terminate.encode_to_vec()),
        (
            "SuspendInstance",
            SuspendRequest {
                instance_id: text(id),
                reason: some("r"),
            }
            .encode_to_vec(),
        ),
        (
            "ResumeInstance",
            ResumeRequest {
                instance_id: text(id),
                reason: some("r"),
            }
            .encode_to_vec(),
        ),
        ("QueryInstances", query.encode_to_vec()),
        ("ListInstanceIds", list.encode_to_vec()),
        ("PurgeInstances", purge.encode_to_vec()),
        ("GetWorkItems", items.encode_to_vec()),
        ("CompleteActivityTask", activity.encode_to_vec()),
        ("CompleteOrchestratorTask", orchestrator.encode_to_vec()),
        (
            "CompleteEntityTask",
            EntityBatchResult {
                completion_token: text(token),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        ("StreamInstanceHistory", history.encode_to_vec()),
        (
            "CreateTaskHub",
            CreateTaskHubRequest {
                recreate_if_exists: true,
            }
            .encode_to_vec(),
        ),
        ("DeleteTaskHub", Vec::new()),
        ("SignalEntity", signal.encode_to_vec()),
        ("GetEntity", entity.encode_to_vec()),
        (
            "QueryEntities",
            QueryEntitiesRequest {
                query: Some(EntityQuery::default()),
            }
            .encode_to_vec(),
        ),
        (
            "CleanEntityStorage",
            CleanEntityStorageRequest {
                remove_empty_entities: true,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "AbandonTaskActivityWorkItem",
            AbandonActivityTaskRequest {
                completion_token: text(token),
            }
            .encode_to_vec(),
        ),
        (
            "AbandonTaskOrchestratorWorkItem",
            AbandonOrchestrationTaskRequest {
                completion_token: text(token),
            }
            .encode_to_vec(),
        ),
        (
            "AbandonTaskEntityWorkItem",
            AbandonEntityTaskRequest {
                completion_token: text(token),
            }
            .encode_to_vec(),
        ),
        (
            "SkipGracefulOrchestrationTerminations",
            skip.encode_to_vec(),
        ),
    ]
}

/// An orchestration of hub `default` that takes one step after the other until it is told to end.
async fn victim(peer: Peer, is_over: Arc<AtomicBool>) -> i32 {
    let mut stream = peer.open().await;
    peer.start("victim", "victim").await;
    let mut steps = 0;
    loop {
        let episode = stream.episode().await;
        if is_over.load(Ordering::Relaxed) {
            peer.answer(&episode, vec![complete(steps, "\"unharmed\"")])
                .await;
            return steps;
        }
        peer.answer(&episode, vec![schedule(steps, "step", "1")])
            .await;
        let activity = stream.activity().await;
        peer.finish(&activity, "1").await;
        steps += 1;
    }
}

/// Work that is really in hand, so that damaged answers reach the machine and not only the search for their token:
/// tokens and instances of episodes and activities, whichever come.
async fn in_hand(target: &Peer, held: &mut WorkStream) -> Vec<(String, String)> {
    let mut in_hand = Vec::new();
    while in_hand.len() < IN_HAND {
        // An id that no damaged message can have taken.
        target.start("n", "").await;
        let item = held.item().await;
        match item.request {
            Some(work_item::Request::OrchestratorRequest(request)) if in_hand.len() % 2 == 0 => {
                in_hand.push((item.completion_token, request.instance_id));
            }
            Some(work_item::Request::OrchestratorRequest(request)) => {
                let episode = Episode {
                    request,
                    token: item.completion_token,
                };
                let step = episode.request.past_events.len() as i32;
                target
                    .answer(&episode, vec![schedule(1_000 + step, "work", "1")])
                    .await;
                in_hand.push((episode.token, episode.request.instance_id));
            }
            Some(work_item::Request::ActivityRequest(request)) => {
                let activity = Activity {
                    request,
                    token: item.completion_token,
                };
                in_hand.push((activity.token.clone(), activity.instance_id().to_owned()));
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    in_hand
}

/// Makes all calls, some at a time. A hang, and an error of the kind that means our own mistake, fail the test.
async fn make(scheduler: &Scheduler, calls: Vec<(&'static str, Vec<u8>)>) {
    let calls = Arc::new(calls);
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let (calls, address) = (
                Arc::clone(&calls),
                format!("http://{}", scheduler.address()),
            );
            tokio::spawn(async move {
                let channel = Channel::from_shared(address)
                    .unwrap()
                    .connect()
                    .await
                    .unwrap();
                for (method, body) in calls.iter().skip(lane).step_by(LANES) {
                    make_one(&channel, method, body).await;
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
}

async fn make_one(channel: &Channel, method: &str, body: &[u8]) {
    let attempt = call(channel.clone(), method, body.to_vec());
    match timeout(HELD_AFTER, attempt).await {
        Ok(Err(status))
            if [Code::Internal, Code::Unknown, Code::DataLoss].contains(&status.code()) =>
        {
            assert!(is_undecodable(&status), "{method} {body:02x?}: {status}");
        }
        Ok(_) => {}
        Err(_) if MAY_BE_HELD.contains(&method) => {}
        // A busy machine is slow; a hang is not.
        Err(_) => drop(patiently(method, call(channel.clone(), method, body.to_vec())).await),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_messages_disturb_nobody_else_and_leave_a_sound_store() {
    let mut scheduler =
        Scheduler::start(&["--task-hubs", "default,fuzz", "--lease-grace", "200ms"]);
    let peer = Peer::connect(&scheduler).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let victim = tokio::spawn(victim(peer.clone(), Arc::clone(&is_over)));

    let target = Peer::connect_as(&scheduler, "", Some("fuzz")).await;
    let mut chance = Chance::new(SEED);
    let mut total = 0;
    for _ in 0..WAVES {
        let mut held = target.open().await;
        let in_hand = in_hand(&target, &mut held).await;
        let mut calls = Vec::new();
        for _ in 0..ROUNDS {
            let (token, id) = chance.pick(&in_hand);
            for (method, message) in samples(token, id) {
                calls.push((method, damage(&mut chance, &message)));
            }
        }
        total += calls.len();
        make(&scheduler, calls).await;
    }

    assert!(scheduler.is_running(), "{}", scheduler.log());
    target.client().hello(()).await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    let steps = patiently("the victim's end", victim).await.unwrap();
    let state = peer.wait("victim").await;
    assert_eq!(state.output.as_deref(), Some("\"unharmed\""));
    println!("{total} damaged messages while the victim took {steps} steps");

    scheduler.stop().await;
    let folder = scheduler.data_dir();
    let (code, out, err) =
        Scheduler::run(&["store", "check", "--data-dir", &folder.to_string_lossy()]);
    assert_eq!(code, Some(0), "{out}{err}");
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    assert_eq!(peer.get("victim").await, state);
}

/// Bytes that are no message are refused by the transport itself, with its own words.
fn is_undecodable(status: &Status) -> bool {
    let message = status.message().to_lowercase();
    [
        "decod",
        "protobuf",
        "wire type",
        "varint",
        "delimit",
        "utf-8",
        "buffer underflow",
        "tag",
        "recursion",
    ]
    .iter()
    .any(|word| message.contains(word))
}

#[tokio::test]
async fn connections_that_speak_no_http_2_disturb_nobody() {
    let mut scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut chance = Chance::new(SEED);
    for address in [scheduler.address(), scheduler.health_address()] {
        for round in 0..40 {
            let mut socket = TcpStream::connect(address).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            let length = 1 + chance.below(2_000);
            let mut noise = chance.bytes(length);
            if round % 2 == 0 {
                // Noise behind a right preface reaches the reader of frames.
                noise.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            }
            // The server may have hung up before all was written or read.
            let _ = socket.write_all(&noise);
            let _ = socket.read(&mut [0; 64]);
        }
    }
    assert!(scheduler.is_running(), "{}", scheduler.log());
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    peer.answer(&episode, vec![complete(1, "1")]).await;
    peer.wait("a").await;
    scheduler.stop().await;
}
