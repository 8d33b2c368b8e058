//! The life of a work item that is not answered at once: abandoned, lost with its worker, late.

use std::time::Duration;

use mainspring_proto::*;
use mainspring_tests::action::{complete, schedule};
use mainspring_tests::{Activity, Episode, Peer, Scheduler};
use tokio::time::Instant;

/// The grace that these servers are told: long enough to answer within it, also on a loaded machine.
const GRACE: Duration = Duration::from_millis(1_500);

fn scheduler() -> Scheduler {
    Scheduler::start(&["--lease-grace", "1500ms"])
}

async fn abandon_episode(peer: &Peer, episode: &Episode) {
    let request = AbandonOrchestrationTaskRequest {
        completion_token: episode.token.clone(),
    };
    peer.client()
        .abandon_task_orchestrator_work_item(request)
        .await
        .unwrap();
}

async fn abandon_activity(peer: &Peer, activity: &Activity) {
    let request = AbandonActivityTaskRequest {
        completion_token: activity.token.clone(),
    };
    peer.client()
        .abandon_task_activity_work_item(request)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_abandoned_episode_comes_back_at_once_and_then_later_and_later() {
    // S-13.17: delays of 0, 1, 2 s; the instance shows nothing of it.
    let scheduler = scheduler();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let mut episode = stream.episode().await;
    let mut tokens = vec![episode.token.clone()];
    for least in [
        Duration::ZERO,
        Duration::from_secs(1),
        Duration::from_secs(2),
    ] {
        let abandoned = Instant::now();
        abandon_episode(&peer, &episode).await;
        episode = stream.episode().await;
        // A timer may tick a little early; what matters is that the delay grows.
        assert!(
            abandoned.elapsed() + Duration::from_millis(50) >= least,
            "{:?} < {least:?}",
            abandoned.elapsed()
        );
        assert_eq!(
            peer.get("a").await.orchestration_status(),
            OrchestrationStatus::Pending
        );
        tokens.push(episode.token.clone());
    }
    tokens.sort();
    tokens.dedup();
    assert_eq!(
        tokens.len(),
        4,
        "each delivery has a token of its own (S-13.18)"
    );
    peer.answer(&episode, vec![complete(1, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn success_ends_the_back_off() {
    // S-13.17: the count of attempts begins anew.
    let scheduler = scheduler();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let first = stream.episode().await;
    abandon_episode(&peer, &first).await;
    let first = stream.episode().await;
    peer.answer(&first, vec![schedule(1, "work", "1")]).await;
    let activity = stream.activity().await;
    abandon_activity(&peer, &activity).await;
    let again = stream.activity().await;
    assert_eq!(again.request, activity.request);
    peer.finish(&again, "1").await;
    let second = stream.episode().await;
    let abandoned = Instant::now();
    abandon_episode(&peer, &second).await;
    let second = stream.episode().await;
    assert!(
        abandoned.elapsed() < Duration::from_millis(900),
        "{:?}",
        abandoned.elapsed()
    );
    peer.answer(&second, vec![complete(2, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn an_abandoned_item_goes_to_another_stream_if_there_is_one() {
    // S-13.17.
    let scheduler = scheduler();
    let peer = Peer::connect(&scheduler).await;
    let mut one = peer.open().await;
    peer.start("n", "a").await;
    let episode = one.episode().await;
    let mut two = peer.open().await;
    assert!(
        two.message().await.unwrap().is_some(),
        "the stream is known to be open"
    );
    abandon_episode(&peer, &episode).await;
    let again = two.episode().await;
    assert_eq!(again.request.instance_id, "a");
}

#[tokio::test]
async fn items_of_a_lost_worker_are_handed_out_again_after_the_grace() {
    // S-13.19, S-5.5: at least once for activities, at most one lease at a time.
    let scheduler = scheduler();
    let peer = Peer::connect(&scheduler).await;
    let mut lost = peer.open().await;
    peer.start("n", "a").await;
    peer.start("n", "b").await;
    let first = lost.episode().await;
    peer.answer(&first, vec![schedule(1, "work", "1")]).await;
    // The activity and the other instance's episode are in the worker's hands when it dies.
    let mut in_hand = vec![lost.item().await, lost.item().await];
    in_hand.retain(|item| matches!(item.request, Some(work_item::Request::ActivityRequest(_))));
    assert_eq!(in_hand.len(), 1);
    let mut stream = Peer::connect(&scheduler).await.open().await;
    let died = Instant::now();
    drop(lost);

    let (mut episodes, mut activities) = (0, 0);
    for _ in 0..2 {
        let item = stream.item().await;
        let waited = died.elapsed();
        assert!(
            waited + Duration::from_millis(50) >= GRACE,
            "{waited:?} is within the grace"
        );
        assert_ne!(item.completion_token, in_hand[0].completion_token);
        match item.request {
            Some(work_item::Request::OrchestratorRequest(request)) => {
                assert_eq!(request.instance_id, "b");
                episodes += 1;
                let episode = Episode {
                    request,
                    token: item.completion_token,
                };
                peer.answer(&episode, vec![complete(1, "\"b\"")]).await;
            }
            Some(work_item::Request::ActivityRequest(request)) => {
                activities += 1;
                let activity = Activity {
                    request,
                    token: item.completion_token,
                };
                peer.finish(&activity, "\"a\"").await;
            }
            other => panic!("unexpected {other:?}"),
        }
        if (episodes, activities) == (1, 1) {
            break;
        }
    }
    let second = stream.episode().await;
    peer.answer(&second, vec![complete(2, "\"a\"")]).await;
    assert_eq!(peer.wait("a").await.output.as_deref(), Some("\"a\""));
    assert_eq!(peer.wait("b").await.output.as_deref(), Some("\"b\""));
}

#[tokio::test]
async fn an_answer_within_the_grace_counts_and_nothing_is_handed_out_twice() {
    // S-13.19: unary completions can arrive after their stream was reset.
    let scheduler = scheduler();
    let peer = Peer::connect(&scheduler).await;
    let mut lost = peer.open().await;
    peer.start("n", "a").await;
    let first = lost.episode().await;
    drop(lost);
    peer.answer(&first, vec![schedule(1, "work", "1")]).await;
    assert_eq!(
        peer.get("a").await.orchestration_status(),
        OrchestrationStatus::Running
    );

    let mut lost = peer.open().await;
    let activity = lost.activity().await;
    drop(lost);
    peer.finish(&activity, "\"late\"").await;

    let mut stream = peer.open().await;
    let second = stream.episode().await;
    assert_eq!(second.new_kinds(), ["OrchestratorStarted", "TaskCompleted"]);
    peer.answer(&second, vec![complete(2, "1")]).await;
    peer.wait("a").await;
    stream.nothing_for(GRACE + Duration::from_millis(300)).await;
}

#[tokio::test]
async fn an_activity_answered_with_its_older_token_is_taken_while_it_has_no_outcome() {
    // S-13.18: a worker that stops gracefully finishes what it holds after its stream is gone.
    let scheduler = Scheduler::start(&["--lease-grace", "100ms"]);
    let peer = Peer::connect(&scheduler).await;
    let mut lost = peer.open().await;
    peer.start("n", "a").await;
    let first = lost.episode().await;
    peer.answer(&first, vec![schedule(1, "work", "1")]).await;
    let old = lost.activity().await;
    drop(lost);
    let mut stream = peer.open().await;
    let new = stream.activity().await;
    assert_ne!(new.token, old.token);
    peer.finish(&old, "\"old\"").await;
    let second = stream.episode().await;
    peer.finish(&new, "\"new\"").await;
    peer.answer(&second, vec![complete(2, "1")]).await;
    peer.wait("a").await;
    let completions = mainspring_tests::kinds(&peer.history("a").await)
        .into_iter()
        .filter(|kind| kind == "TaskCompleted")
        .count();
    assert_eq!(completions, 1, "one outcome for each scheduling (S-5.5)");
}

#[tokio::test]
async fn a_lease_that_lasts_too_long_is_taken_back() {
    // S-13.19; S-13.24: a reader that let a lease expire gets nothing more until it answers.
    let scheduler = Scheduler::start(&[
        "--orchestration-lease-max",
        "500ms",
        "--lease-grace",
        "100ms",
    ]);
    let peer = Peer::connect(&scheduler).await;
    let mut dead = peer.open().await;
    peer.start("n", "a").await;
    let held = dead.episode().await;
    let mut alive = peer.open().await;
    let again = alive.episode().await;
    peer.answer(&again, vec![complete(1, "\"alive\"")]).await;
    peer.answer(&held, vec![complete(1, "\"dead\"")]).await;
    assert_eq!(peer.wait("a").await.output.as_deref(), Some("\"alive\""));
}

#[tokio::test]
async fn terminating_fences_the_episode_in_hand() {
    // S-9.7, S-4.16.
    let scheduler = scheduler();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let terminate = TerminateRequest {
        instance_id: "a".to_owned(),
        output: Some("\"stopped\"".to_owned()),
        recursive: false,
    };
    peer.client().terminate_instance(terminate).await.unwrap();
    peer.answer(&episode, vec![complete(1, "\"late\"")]).await;
    let state = peer.get("a").await;
    assert_eq!(
        state.orchestration_status(),
        OrchestrationStatus::Terminated
    );
    assert_eq!(state.output.as_deref(), Some("\"stopped\""));
    assert_eq!(
        mainspring_tests::kinds(&peer.history("a").await),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "ExecutionTerminated",
            "ExecutionCompleted"
        ],
    );
}
