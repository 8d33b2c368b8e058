//! Signals and calls that lie ahead (S-6.7).

use std::time::{Duration, SystemTime};

use mainspring_proto::history_event::EventType;
use mainspring_proto::operation_action::OperationActionType;
use mainspring_proto::send_entity_message_action::EntityMessageType;
use mainspring_proto::{
    EntityBatchResult, EntityOperationCalledEvent, EntityQuery, OperationAction, SendSignalAction,
};
use mainspring_tests::action::{complete, entity_message, signal};
use mainspring_tests::entity::{completed, fresh_guid, signal_request, success};
use mainspring_tests::{Peer, WorkStream};
use prost_types::Timestamp;

use crate::hands::{entities, stage, stage_without_entities, start};

/// So long after now.
fn after(delay: Duration) -> (SystemTime, Timestamp) {
    let time = SystemTime::now() + delay;
    (time, time.into())
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A signal of a client to `@counter@a` for a time.
async fn signal_at(peer: &Peer, operation: &str, time: Timestamp) {
    let mut request = signal_request("@counter@a", operation, "");
    request.scheduled_time = Some(time);
    peer.try_signal(request).await.unwrap();
}

/// Answers batches until so many operations came, and when each did.
async fn take(peer: &Peer, stream: &mut WorkStream, count: usize) -> Vec<(String, SystemTime)> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let batch = stream.batch().await;
        let results = batch.names().iter().map(|name| success(name)).collect();
        taken.extend(
            batch
                .names()
                .into_iter()
                .map(|name| (name, SystemTime::now())),
        );
        peer.settle(&batch, results, Some("1")).await;
    }
    taken
}

fn names(taken: &[(String, SystemTime)]) -> Vec<&str> {
    taken.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn signals_come_when_they_are_due_and_in_the_order_in_which_they_are() {
    // S-6.7, S-12.44: not before; those of one time in the order of arrival. Until then they make nothing exist.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let (early, at_early) = after(millis(500));
    let (late, at_late) = after(millis(900));
    signal_at(&peer, "late", at_late).await;
    for operation in ["early 1", "early 2", "early 3"] {
        signal_at(&peer, operation, at_early).await;
    }
    assert_eq!(peer.find_entity("@counter@a").await, None);
    let page = peer.query_entities(EntityQuery::default()).await.unwrap();
    assert_eq!(page.entities, []);
    peer.signal("@counter@a", "now", "").await;

    let taken = take(&peer, &mut stream, 5).await;
    assert_eq!(
        names(&taken),
        ["now", "early 1", "early 2", "early 3", "late"]
    );
    for (name, came) in &taken[1..] {
        let due = if name == "late" { late } else { early };
        assert!(*came >= due, "{name} came before its time");
        let by = came.duration_since(due).unwrap();
        assert!(by < Duration::from_secs(1), "{name} came {by:?} late");
    }
}

#[tokio::test]
async fn a_time_that_is_past_means_now() {
    // S-6.7, S-1.18: any year, and nanoseconds out of range.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    for (operation, seconds, nanos) in [
        ("first year", -62_135_596_800, 0),
        ("epoch", 0, 0),
        ("before 1970", -1, -5),
    ] {
        signal_at(&peer, operation, Timestamp { seconds, nanos }).await;
        assert_eq!(names(&take(&peer, &mut stream, 1).await), [operation]);
    }
    // The last year is legal, too, and comes no earlier.
    let never = Timestamp {
        seconds: 253_402_300_799,
        nanos: 999_999_999,
    };
    signal_at(&peer, "last year", never).await;
    stream.nothing_for(millis(100)).await;
}

#[tokio::test]
async fn delayed_signals_survive_a_crash_and_those_that_were_due_meanwhile_come_at_once() {
    // S-6.7, S-6.1.
    let (mut scheduler, peer, _orchestrations, stream) = stage().await;
    let (soon, at_soon) = after(millis(200));
    let (late, at_late) = after(millis(2_500));
    signal_at(&peer, "late", at_late).await;
    signal_at(&peer, "soon", at_soon).await;
    drop(stream);
    scheduler.kill();
    while SystemTime::now() < soon {
        tokio::time::sleep(millis(10)).await;
    }
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = entities(&peer).await;
    let taken = take(&peer, &mut stream, 2).await;
    assert_eq!(names(&taken), ["soon", "late"]);
    assert!(taken[1].1 >= late);
    stream.nothing_for(millis(100)).await;
}

#[tokio::test]
async fn a_delayed_signal_that_is_sent_again_comes_once() {
    // S-12.37: also after a crash.
    let (mut scheduler, peer, _orchestrations) = stage_without_entities().await;
    let mut request = signal_request("@counter@a", "once", "");
    request.scheduled_time = Some(after(millis(300)).1);
    peer.try_signal(request.clone()).await.unwrap();
    peer.try_signal(request.clone()).await.unwrap();
    scheduler.kill();
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    peer.try_signal(request.clone()).await.unwrap();
    let mut stream = entities(&peer).await;
    assert_eq!(names(&take(&peer, &mut stream, 1).await), ["once"]);
    peer.try_signal(request).await.unwrap();
    stream.nothing_for(millis(300)).await;
}

#[tokio::test]
async fn orchestrations_delay_signals_and_calls_and_find_the_exact_time_in_their_history() {
    // S-12.21, S-12.22, S-4.12: .NET compares it at replay.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    start(&peer, "a").await;
    let episode = orchestrations.episode().await;
    let (due, mut time) = after(millis(400));
    time.nanos = time.nanos / 1_000 * 1_000 + 123;
    let id = fresh_guid();
    let delayed_call = EntityOperationCalledEvent {
        request_id: id.clone(),
        operation: "call".to_owned(),
        scheduled_time: Some(time),
        target_instance_id: Some("@counter@a".to_owned()),
        ..Default::default()
    };
    let actions = vec![
        signal(1, &fresh_guid(), "@counter@a", "signal", "", Some(time)),
        entity_message(2, EntityMessageType::EntityOperationCalled(delayed_call)),
        signal(3, &fresh_guid(), "@counter@a", "now", "", None),
    ];
    peer.answer(&episode, actions).await;
    let taken = take(&peer, &mut stream, 3).await;
    assert_eq!(names(&taken), ["now", "signal", "call"]);
    // The time was cut to a microsecond before a few nanoseconds were added.
    let before = due - Duration::from_micros(1);
    assert!(taken[1].1 >= before && taken[2].1 >= before);

    let episode = orchestrations.episode().await;
    assert_eq!(
        completed(&episode.request.new_events[1]),
        (id.as_str(), Some("call"))
    );
    let times: Vec<_> = episode.request.past_events[2..]
        .iter()
        .map(|event| match &event.event_type {
            Some(EventType::EntityOperationSignaled(signal)) => signal.scheduled_time,
            Some(EventType::EntityOperationCalled(call)) => call.scheduled_time,
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(times, [Some(time), Some(time), None]);
    peer.answer(&episode, vec![complete(4, "1")]).await;
}

#[tokio::test]
async fn entities_delay_signals_to_others_and_to_themselves() {
    // S-6.7, S-17.2: scheduled tasks wake themselves so, in bursts.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    peer.signal("@counter@a", "begin", "").await;
    let batch = stream.batch().await;
    let (due, time) = after(millis(400));
    let send = |name: &str, scheduled_time| OperationAction {
        id: 0,
        operation_action_type: Some(OperationActionType::SendSignal(SendSignalAction {
            instance_id: "@Counter@a".to_owned(),
            name: name.to_owned(),
            scheduled_time,
            ..Default::default()
        })),
    };
    let answer = EntityBatchResult {
        actions: vec![
            send("later 1", Some(time)),
            send("later 2", Some(time)),
            send("now", None),
        ],
        ..batch.result(vec![success("")], Some("1"))
    };
    peer.end_batch(answer).await.unwrap();
    let taken = take(&peer, &mut stream, 3).await;
    assert_eq!(names(&taken), ["now", "later 1", "later 2"]);
    assert!(taken[1].1 >= due);
}
