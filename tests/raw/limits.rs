//! Payloads and messages that are too large.

use std::time::Duration;

use mainspring_proto::history_event::EventType;
use mainspring_proto::*;
use mainspring_tests::action::{complete, schedule};
use mainspring_tests::{Peer, Scheduler};
use tonic::Code;

/// The default limit of a payload (S-14.2).
const LIMIT: usize = 1 << 20;

fn create(id: &str, input: String) -> CreateInstanceRequest {
    CreateInstanceRequest {
        name: "n".to_owned(),
        instance_id: id.to_owned(),
        input: Some(input),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_client_may_send_a_payload_of_the_limit_and_not_one_byte_more() {
    // S-14.3: the message names the limit and the size. Bytes are counted, not characters.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let longest = "ü".repeat(LIMIT / 2);
    peer.create(create("a", longest.clone())).await.unwrap();
    assert_eq!(peer.get("a").await.input, Some(longest.clone()));

    let status = peer
        .create(create("b", format!("{longest}x")))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for number in [LIMIT, LIMIT + 1] {
        assert!(status.message().contains(&number.to_string()), "{status}");
    }
    assert_eq!(peer.find("b").await, None);

    let raise = RaiseEventRequest {
        instance_id: "a".to_owned(),
        name: "e".to_owned(),
        input: Some(format!("{longest}x")),
    };
    let status = peer.client().raise_event(raise).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[tokio::test]
async fn a_result_over_the_limit_fails_its_activity_instead_of_coming_back_for_ever() {
    // S-14.4.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let first = stream.episode().await;
    peer.answer(&first, vec![schedule(1, "work", "1")]).await;
    let activity = stream.activity().await;
    peer.finish(&activity, &"x".repeat(LIMIT + 1)).await;
    let second = stream.episode().await;
    let Some(EventType::TaskFailed(failed)) = &second.request.new_events[1].event_type else {
        panic!("expected TaskFailed, got {:?}", second.new_kinds());
    };
    let details = failed.failure_details.as_ref().unwrap();
    assert_eq!(
        (details.error_type.as_str(), details.is_non_retriable),
        ("PayloadTooLarge", true)
    );
    peer.answer(&second, vec![complete(2, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn an_output_over_the_limit_fails_its_orchestration() {
    // S-14.4.
    let scheduler = Scheduler::start(&["--payload-bytes-max", "64KiB"]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    peer.answer(&episode, vec![complete(1, &"x".repeat((64 << 10) + 1))])
        .await;
    let state = peer.wait("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Failed);
    assert_eq!(state.failure_details.unwrap().error_type, "PayloadTooLarge");
}

#[tokio::test]
async fn a_message_that_cannot_be_received_ends_the_streams_of_its_connection_and_frees_their_items()
 {
    // S-13.28: such a message names no lease, and its sender may never answer otherwise.
    let scheduler = Scheduler::start(&["--lease-grace", "100ms"]);
    let (peer, other) = (
        Peer::connect(&scheduler).await,
        Peer::connect(&scheduler).await,
    );
    let mut stream = peer.open().await;
    let mut bystander = other.open_with(only("elsewhere")).await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let too_large = episode.response(vec![complete(1, &"x".repeat(65 << 20))]);
    peer.respond(too_large).await.unwrap_err();
    assert_eq!(stream.end().await.code(), Code::Unavailable);

    let mut stream = peer.open().await;
    let again = stream.episode().await;
    assert_eq!(again.request.instance_id, "a");
    peer.answer(&again, vec![complete(1, "1")]).await;
    peer.wait("a").await;
    bystander.nothing_for(Duration::from_millis(50)).await;
}

/// Filters that let one orchestrator through and nothing else.
fn only(name: &str) -> GetWorkItemsRequest {
    let filter = OrchestrationFilter {
        name: name.to_owned(),
        versions: Vec::new(),
    };
    GetWorkItemsRequest {
        work_item_filters: Some(WorkItemFilters {
            orchestrations: vec![filter],
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_item_that_no_connected_worker_can_receive_fails_after_its_wait() {
    // S-13.20: sending it anyway would break the worker's stream again and again.
    let scheduler = Scheduler::start(&["--oversize-wait", "300ms"]);
    let peer = Peer::connect_as(&scheduler, "grpc-python/1.60", None).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    // Results of 1 MiB each: with the fourth, an item holds more than 4,000,000 bytes.
    for id in 1..=4 {
        let episode = stream.episode().await;
        peer.answer(&episode, vec![schedule(id, "work", "1")]).await;
        let activity = stream.activity().await;
        peer.finish(&activity, &"x".repeat(LIMIT)).await;
    }
    let state = peer.wait("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Failed);
    let details = state.failure_details.unwrap();
    assert_eq!(
        (details.error_type.as_str(), details.is_non_retriable),
        ("HistoryTooLarge", true)
    );
}
