//! Stopping politely, and what is left afterwards.

use std::error::Error;
use std::time::Duration;

use mainspring_proto::*;
use mainspring_tests::action::{complete, schedule};
use mainspring_tests::{PATIENCE, Peer, Scheduler};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

/// Whether a call was answered `UNAVAILABLE`, or met a connection that was closed under it.
fn is_turned_away(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

#[tokio::test]
async fn draining_ends_streams_and_waits_with_unavailable_and_refuses_what_comes_after() {
    // S-1.10, S-1.14, S-11.7.
    let mut scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let _in_hand = stream.episode().await;
    let waiting = tokio::spawn({
        let mut client = peer.client();
        async move {
            let request = GetInstanceRequest {
                instance_id: "a".to_owned(),
                ..Default::default()
            };
            client.wait_for_instance_completion(request).await.map(drop)
        }
    });
    // The wait has to be there before the server drains; a call on the same connection goes in order behind it.
    peer.get("a").await;
    scheduler.drain();
    assert_eq!(stream.end().await.code(), Code::Unavailable);
    let hello = peer.client().hello(()).await.unwrap_err();
    assert!(is_turned_away(&hello), "{hello:?}");
    let open = peer
        .try_open(GetWorkItemsRequest::default())
        .await
        .unwrap_err();
    assert!(is_turned_away(&open), "{open:?}");
    let waited = timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(waited.code(), Code::Unavailable, "{waited}");
    let status = scheduler.ended().await;
    assert_eq!(status.code(), Some(0), "{}", scheduler.log());
}

#[tokio::test]
async fn what_was_accepted_before_a_stop_is_there_after_it_and_what_was_in_hand_comes_again() {
    // S-13.21, S-0.6.
    let mut scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let first = stream.episode().await;
    peer.answer(&first, vec![schedule(1, "work", "1")]).await;
    let activity = stream.activity().await;
    scheduler.stop().await;

    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    let again = stream.activity().await;
    assert_eq!(again.request, activity.request);
    assert_ne!(again.token, activity.token);
    peer.finish(&again, "\"done\"").await;
    let second = stream.episode().await;
    assert_eq!(second.execution_id(), first.execution_id());
    peer.answer(&second, vec![complete(2, "1")]).await;
    peer.wait("a").await;
    scheduler.stop().await;
    let folder = scheduler.data_dir();
    let (code, out, err) =
        Scheduler::run(&["store", "check", "--data-dir", &folder.to_string_lossy()]);
    assert_eq!(code, Some(0), "{out}{err}");
}

#[tokio::test]
async fn what_was_acknowledged_before_a_crash_is_there_after_it() {
    // S-0.2, S-0.6, S-6.1: kill -9 right behind each acknowledgement.
    let mut scheduler = Scheduler::start(&[]);
    let started = Instant::now();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    scheduler.kill();

    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    drop(stream);
    stream = peer.open().await;
    let first = stream.episode().await;
    let at =
        prost_types::Timestamp::from(std::time::SystemTime::now() + Duration::from_millis(300));
    peer.answer(
        &first,
        vec![
            mainspring_tests::action::timer(1, at),
            schedule(2, "work", "1"),
        ],
    )
    .await;
    scheduler.kill();

    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    stream = peer.open().await;
    // The timer may have fired meanwhile, so the order of the two is open.
    let mut results = Vec::new();
    while results.len() < 2 {
        let item = stream.item().await;
        match item.request {
            Some(work_item::Request::ActivityRequest(request)) => {
                let activity = mainspring_tests::Activity {
                    request,
                    token: item.completion_token,
                };
                peer.finish(&activity, "\"work\"").await;
            }
            Some(work_item::Request::OrchestratorRequest(request)) => {
                let episode = mainspring_tests::Episode {
                    request,
                    token: item.completion_token,
                };
                let kinds = episode.new_kinds();
                results.extend(
                    kinds
                        .into_iter()
                        .filter(|kind| kind != "OrchestratorStarted"),
                );
                let is_last = results.len() == 2;
                let actions = if is_last {
                    vec![complete(3, "1")]
                } else {
                    Vec::new()
                };
                peer.answer(&episode, actions).await;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    scheduler.kill();

    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    let state = peer.get("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Completed);
    results.sort();
    assert_eq!(results, ["TaskCompleted", "TimerFired"]);
    assert!(started.elapsed() < PATIENCE * 4);
}
