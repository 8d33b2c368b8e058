//! Habits of the .NET SDK: empty filters, streamed histories, answers in chunks.

use std::time::Duration;

use mainspring_proto::*;
use mainspring_tests::action::{complete, schedule};
use mainspring_tests::{Episode, Peer, Scheduler, WorkStream, kinds};
use tonic::Code;

const USER_AGENT: &str = "grpc-dotnet/2.67.0 (.NET 8.0; CLR 8.0; net8.0; linux; x64)";

/// What a .NET worker asks for: filters that are present and wholly empty.
fn ask() -> GetWorkItemsRequest {
    GetWorkItemsRequest {
        max_concurrent_orchestration_work_items: 100,
        max_concurrent_activity_work_items: 100,
        max_concurrent_entity_work_items: 100,
        capabilities: vec![WorkerCapability::HistoryStreaming.into()],
        work_item_filters: Some(WorkItemFilters::default()),
        ..Default::default()
    }
}

/// A server, and a .NET worker that got the first episode of instance `a`.
async fn first_episode(flags: &[&str]) -> (Scheduler, Peer, WorkStream, Episode) {
    let scheduler = Scheduler::start(flags);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open_with(ask()).await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    (scheduler, peer, stream, episode)
}

#[tokio::test]
async fn filters_that_are_wholly_empty_mean_everything() {
    // S-13.9: the default worker always sends the message.
    let (_scheduler, peer, mut stream, episode) = first_episode(&[]).await;
    peer.answer(&episode, vec![schedule(0, "work", "1")]).await;
    let activity = stream.activity().await;
    peer.finish(&activity, "1").await;
    let episode = stream.episode().await;
    peer.answer(&episode, vec![complete(1, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn every_episode_carries_an_empty_reorder_window() {
    // S-3.4: without it .NET takes entities for unsupported; without the Duration inside, it fails.
    let (_scheduler, _peer, _stream, episode) = first_episode(&[]).await;
    let parameters = episode.request.entity_parameters.as_ref().unwrap();
    assert_eq!(
        parameters.entity_message_reorder_window,
        Some(prost_types::Duration::default())
    );
    assert_eq!(episode.execution_id().len(), 32);
    for event in &episode.request.new_events {
        assert!(event.timestamp.is_some(), "{event:?} (S-3.10)");
    }
}

/// Part `index` of an answer.
fn chunk(
    episode: &Episode,
    index: i32,
    is_partial: bool,
    actions: Vec<OrchestratorAction>,
) -> OrchestratorResponse {
    OrchestratorResponse {
        is_partial,
        chunk_index: Some(index),
        num_events_processed: (index > 0).then_some(0),
        ..episode.response(actions)
    }
}

#[tokio::test]
async fn an_answer_in_chunks_is_applied_as_one_when_its_last_chunk_is_there() {
    // S-3.31: a repeated chunk is a retry, and nothing shows before the last.
    let (_scheduler, peer, mut stream, episode) = first_episode(&[]).await;
    peer.respond(chunk(&episode, 0, true, vec![schedule(0, "work", "0")]))
        .await
        .unwrap();
    peer.respond(chunk(&episode, 0, true, vec![schedule(0, "work", "0")]))
        .await
        .unwrap();
    peer.respond(chunk(&episode, 1, true, vec![schedule(1, "work", "1")]))
        .await
        .unwrap();
    assert_eq!(
        peer.get("a").await.orchestration_status(),
        OrchestrationStatus::Pending
    );
    stream.nothing_for(Duration::from_millis(200)).await;
    peer.respond(chunk(&episode, 2, false, vec![schedule(2, "work", "2")]))
        .await
        .unwrap();
    assert_eq!(
        kinds(&peer.history("a").await),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "TaskScheduled",
            "TaskScheduled",
            "TaskScheduled"
        ],
    );
    let mut inputs = Vec::new();
    for _ in 0..3 {
        let activity = stream.activity().await;
        inputs.push(activity.request.input.unwrap());
    }
    inputs.sort();
    assert_eq!(inputs, ["0", "1", "2"]);
    stream.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_and_the_episode_comes_back_whole() {
    // S-3.31, S-13.28.
    let (_scheduler, peer, mut stream, episode) = first_episode(&[]).await;
    peer.respond(chunk(&episode, 0, true, vec![schedule(0, "work", "0")]))
        .await
        .unwrap();
    let status = peer
        .respond(chunk(&episode, 2, false, vec![complete(1, "1")]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let again = stream.episode().await;
    assert!(again.request.past_events.is_empty());
    peer.answer(&again, vec![complete(0, "1")]).await;
    assert_eq!(
        kinds(&peer.history("a").await),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "ExecutionCompleted"
        ],
        "what was collected is gone",
    );
}

#[tokio::test]
async fn an_answer_without_chunks_replaces_the_chunks_so_far() {
    // S-3.36: large payload support turns a failing later chunk into such a failure.
    let (_scheduler, peer, _stream, episode) = first_episode(&[]).await;
    peer.respond(chunk(&episode, 0, true, vec![schedule(0, "work", "0")]))
        .await
        .unwrap();
    let mut failure = episode.response(vec![mainspring_tests::action::fail(-1, "too large")]);
    failure.num_events_processed = Some(0);
    peer.respond(failure).await.unwrap();
    peer.respond(chunk(&episode, 1, false, vec![complete(1, "1")]))
        .await
        .unwrap();
    let state = peer.wait("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Failed);
    assert_eq!(
        kinds(&peer.history("a").await),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "ExecutionCompleted"
        ],
    );
}

#[tokio::test]
async fn chunks_die_with_their_lease() {
    // S-3.31.
    let (_scheduler, peer, stream, episode) = first_episode(&["--lease-grace", "100ms"]).await;
    peer.respond(chunk(&episode, 0, true, vec![schedule(0, "work", "0")]))
        .await
        .unwrap();
    drop(stream);
    let mut stream = peer.open_with(ask()).await;
    let again = stream.episode().await;
    peer.respond(chunk(&episode, 1, false, vec![complete(1, "\"stale\"")]))
        .await
        .unwrap();
    peer.answer(&again, vec![complete(0, "\"whole\"")]).await;
    assert_eq!(peer.wait("a").await.output.as_deref(), Some("\"whole\""));
}

/// Runs activities with results of half a megabyte until the history is about `halves` of them long, and returns the
/// episode that follows.
async fn grow(peer: &Peer, stream: &mut WorkStream, mut episode: Episode, halves: i32) -> Episode {
    let result = "x".repeat(512 << 10);
    for id in 0..halves {
        peer.answer(&episode, vec![schedule(id, "work", "1")]).await;
        let activity = stream.activity().await;
        peer.finish(&activity, &result).await;
        episode = stream.episode().await;
    }
    episode
}

#[tokio::test]
async fn a_long_history_is_streamed_to_workers_that_can_and_embedded_below_one_mebibyte() {
    // S-3.26, S-3.27, S-3.35.
    let (_scheduler, peer, mut stream, episode) = first_episode(&[]).await;
    let short = grow(&peer, &mut stream, episode, 1).await;
    assert!(!short.request.requires_history_streaming);
    assert!(!short.request.past_events.is_empty());

    let long = grow(&peer, &mut stream, short, 4).await;
    assert!(long.request.requires_history_streaming);
    assert!(long.request.past_events.is_empty());
    assert_eq!(long.new_kinds(), ["OrchestratorStarted", "TaskCompleted"]);
    let execution_id = long.request.execution_id.clone();
    let chunks = peer
        .stream_history("a", execution_id.as_deref(), true)
        .await
        .unwrap();
    assert!(chunks.len() > 1, "{} chunks", chunks.len());
    for events in &chunks {
        let bytes = prost::Message::encoded_len(&HistoryChunk {
            events: events.clone(),
        });
        assert!(
            bytes < (1 << 20) || events.len() == 1,
            "a chunk of {bytes} bytes with {} events",
            events.len()
        );
    }
    let past = chunks.concat();
    assert_eq!(
        past,
        peer.history("a").await,
        "exactly what is committed, without the new events"
    );
    peer.answer(&long, vec![complete(9, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn a_long_history_is_embedded_for_workers_that_cannot_stream() {
    // S-3.26.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, "grpc-node-js/1.9", None).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let long = grow(&peer, &mut stream, episode, 4).await;
    assert!(!long.request.requires_history_streaming);
    assert_eq!(long.request.past_events, peer.history("a").await);
}

#[tokio::test]
async fn the_history_of_another_generation_is_not_found() {
    // S-3.27, S-3.28.
    let (_scheduler, peer, _stream, _episode) = first_episode(&[]).await;
    let status = peer
        .stream_history("a", Some(&"0".repeat(32)), false)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let events = peer.history("a").await;
    assert!(
        events.len() <= 1,
        "a pending instance has next to no history (S-3.29)"
    );
}

#[tokio::test]
async fn an_item_whose_history_stream_broke_is_handed_out_again_without_a_grace() {
    // S-3.34: .NET would turn the broken stream into a failed orchestration, so its answer must not count.
    let scheduler = Scheduler::start(&["--lease-grace", "20s"]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open_with(ask()).await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let long = grow(&peer, &mut stream, episode, 4).await;
    let request = StreamInstanceHistoryRequest {
        instance_id: "a".to_owned(),
        execution_id: long.request.execution_id.clone(),
        for_work_item_processing: true,
    };
    // Two mebibytes do not fit into the connection's window, so the server is in the middle when it is cut.
    let reader = Peer::connect_narrowly(&scheduler, USER_AGENT).await;
    let mut history = reader
        .client()
        .stream_instance_history(request)
        .await
        .unwrap()
        .into_inner();
    history.message().await.unwrap().unwrap();
    drop(history);
    let again = stream.episode().await;
    assert_ne!(again.token, long.token);
    peer.answer(
        &long,
        vec![mainspring_tests::action::fail(-1, "history stream")],
    )
    .await;
    peer.answer(&again, vec![complete(9, "\"whole\"")]).await;
    assert_eq!(peer.wait("a").await.output.as_deref(), Some("\"whole\""));
}

#[tokio::test]
async fn a_worker_that_asks_for_the_history_gets_the_episode_again_with_all_of_it() {
    // S-3.32.
    let (_scheduler, peer, mut stream, episode) = first_episode(&[]).await;
    let second = grow(&peer, &mut stream, episode, 1).await;
    let mut ask_for_history = second.response(vec![complete(9, "\"must not count\"")]);
    ask_for_history.requires_history = true;
    peer.respond(ask_for_history).await.unwrap();
    let again = stream.episode().await;
    assert_eq!(
        kinds(&again.request.past_events),
        ["OrchestratorStarted", "ExecutionStarted", "TaskScheduled"]
    );
    peer.answer(&again, vec![complete(9, "\"counts\"")]).await;
    assert_eq!(peer.wait("a").await.output.as_deref(), Some("\"counts\""));
}

#[tokio::test]
async fn events_that_an_answer_left_unprocessed_come_with_the_next_episode_in_order() {
    // S-3.30.
    let (_scheduler, peer, mut stream, episode) = first_episode(&[]).await;
    for name in ["one", "two", "three"] {
        let raise = RaiseEventRequest {
            instance_id: "a".to_owned(),
            name: name.to_owned(),
            input: None,
        };
        peer.client().raise_event(raise).await.unwrap();
    }
    peer.answer(&episode, Vec::new()).await;
    let second = stream.episode().await;
    assert_eq!(second.new_kinds().len(), 4);
    let mut partial = second.response(Vec::new());
    partial.num_events_processed = Some(2);
    peer.respond(partial).await.unwrap();
    let third = stream.episode().await;
    assert_eq!(
        third.new_kinds(),
        ["OrchestratorStarted", "EventRaised", "EventRaised"]
    );
    assert_eq!(
        third.request.new_events[1..],
        second.request.new_events[2..]
    );
    peer.answer(&third, vec![complete(1, "1")]).await;
    let raised = kinds(&peer.history("a").await)
        .into_iter()
        .filter(|kind| kind == "EventRaised")
        .count();
    assert_eq!(raised, 3);
}
