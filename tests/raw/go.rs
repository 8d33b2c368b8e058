//! Habits of the Go SDK: no completion tokens, no child ids, actions in any order, an older reuse policy.

use std::time::Duration;

use mainspring_proto::orchestration_id_reuse_policy::CreateOrchestrationAction as Reuse;
use mainspring_proto::*;
use mainspring_tests::action::{child, complete, ends, fail, schedule};
use mainspring_tests::{Chance, Episode, Peer, Scheduler};
use tonic::Code;

const USER_AGENT: &str = "grpc-go/1.60.0";

/// An answer as Go sends it: without a token.
fn tokenless(episode: &Episode, actions: Vec<OrchestratorAction>) -> OrchestratorResponse {
    OrchestratorResponse {
        completion_token: String::new(),
        ..episode.response(actions)
    }
}

#[tokio::test]
async fn answers_without_tokens_find_their_items_by_instance_and_task() {
    // S-4.5.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let first = stream.episode().await;
    peer.respond(tokenless(
        &first,
        vec![schedule(0, "work", "0"), schedule(1, "work", "1")],
    ))
    .await
    .unwrap();
    // Nothing is leased for the instance now: such an answer is OK and ignored.
    peer.respond(tokenless(&first, vec![complete(2, "\"again\"")]))
        .await
        .unwrap();
    for _ in 0..2 {
        let activity = stream.activity().await;
        let input = activity.request.input.clone().unwrap();
        let response = ActivityResponse {
            completion_token: String::new(),
            ..activity.response(&input)
        };
        peer.report(response.clone()).await.unwrap();
        peer.report(response).await.unwrap();
    }
    let mut completed = 0;
    while completed < 2 {
        let episode = stream.episode().await;
        completed += episode
            .new_kinds()
            .iter()
            .filter(|kind| *kind == "TaskCompleted")
            .count();
        let actions = if completed == 2 {
            vec![complete(2, "\"both\"")]
        } else {
            Vec::new()
        };
        peer.respond(tokenless(&episode, actions)).await.unwrap();
    }
    assert_eq!(peer.wait("a").await.output.as_deref(), Some("\"both\""));
}

#[tokio::test]
async fn a_child_without_an_id_gets_one_made_of_its_parents_generation_and_action() {
    // S-7.3, S-7.1.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    peer.start("parent", "p").await;
    let parent = stream.episode().await;
    peer.respond(tokenless(&parent, vec![child(26, "", "child")]))
        .await
        .unwrap();
    let born = stream.episode().await;
    let expected = format!("{}:001a", parent.execution_id());
    assert_eq!(born.request.instance_id, expected);
    peer.respond(tokenless(&born, vec![complete(0, "\"child\"")]))
        .await
        .unwrap();
    let parent = stream.episode().await;
    assert_eq!(
        parent.new_kinds(),
        ["OrchestratorStarted", "SubOrchestrationInstanceCompleted"]
    );
    peer.respond(tokenless(&parent, vec![complete(27, "1")]))
        .await
        .unwrap();
    peer.wait("p").await;
}

#[tokio::test]
async fn actions_count_wherever_the_completion_stands_among_them() {
    // S-4.1: Go returns its actions in the random order of a map.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    let mut chance = Chance::new(17);
    for round in 0..10 {
        let id = format!("a{round}");
        peer.start("n", &id).await;
        let episode = stream.episode().await;
        let mut actions = vec![
            complete(2, "\"done\""),
            schedule(0, "fire and forget", &id),
            child(1, &format!("{id}-child"), "child"),
        ];
        chance.shuffle(&mut actions);
        peer.respond(tokenless(&episode, actions)).await.unwrap();
        assert_eq!(
            peer.wait(&id).await.orchestration_status(),
            OrchestrationStatus::Completed
        );
        let history = mainspring_tests::kinds(&peer.history(&id).await);
        assert_eq!(history.len(), 5, "{history:?}");
        assert_eq!(
            history[4], "ExecutionCompleted",
            "always the last event (S-3.12)"
        );
        // Both still happen (S-5.7, S-7.7).
        for _ in 0..2 {
            let item = stream.item().await;
            match item.request {
                Some(work_item::Request::ActivityRequest(request)) => {
                    let activity = mainspring_tests::Activity {
                        request,
                        token: String::new(),
                    };
                    peer.finish(&activity, "1").await;
                }
                Some(work_item::Request::OrchestratorRequest(request)) => {
                    assert_eq!(request.instance_id, format!("{id}-child"));
                    let episode = Episode {
                        request,
                        token: String::new(),
                    };
                    peer.answer(&episode, vec![complete(0, "1")]).await;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn of_two_completions_the_one_with_the_smaller_id_counts() {
    // S-4.2.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let second = ends(5, OrchestrationStatus::Terminated, Some("\"second\""), None);
    peer.respond(tokenless(&episode, vec![second, complete(3, "\"first\"")]))
        .await
        .unwrap();
    let state = peer.wait("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Completed);
    assert_eq!(state.output.as_deref(), Some("\"first\""));
}

fn reuse(id: &str, statuses: &[OrchestrationStatus], action: Reuse) -> CreateInstanceRequest {
    CreateInstanceRequest {
        name: "n".to_owned(),
        instance_id: id.to_owned(),
        input: Some("\"new\"".to_owned()),
        orchestration_id_reuse_policy: Some(OrchestrationIdReusePolicy {
            replaceable_status: statuses.iter().map(|status| i32::from(*status)).collect(),
            action: action.into(),
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_older_reuse_policy_keeps_its_meaning() {
    // S-10.3, S-10.4.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    let ended = [OrchestrationStatus::Completed, OrchestrationStatus::Failed];
    let active = [OrchestrationStatus::Pending, OrchestrationStatus::Running];
    peer.start("n", "a").await;

    // The status is not among those named.
    let status = peer
        .create(reuse("a", &ended, Reuse::Terminate))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(
        status
            .message()
            .contains("orchestration instance already exists"),
        "{status}"
    );
    // Ignore: OK, and nothing changes.
    let before = peer.get("a").await;
    assert_eq!(
        peer.create(reuse("a", &active, Reuse::Ignore))
            .await
            .unwrap(),
        "a"
    );
    assert_eq!(peer.get("a").await, before);
    // Terminate: replaced, whatever its state.
    assert_eq!(
        peer.create(reuse("a", &active, Reuse::Terminate))
            .await
            .unwrap(),
        "a"
    );
    let after = peer.get("a").await;
    assert_ne!(after.execution_id, before.execution_id);
    assert_eq!(after.input.as_deref(), Some("\"new\""));
    // Error is 0 and so never on the wire: from Go, a policy without an action replaces nothing.
    let old = stream.episode().await;
    peer.respond(tokenless(&old, vec![fail(0, "no")]))
        .await
        .unwrap();
    if old.request.execution_id != after.execution_id {
        let new = stream.episode().await;
        peer.respond(tokenless(&new, vec![fail(0, "no")]))
            .await
            .unwrap();
    }
    assert_eq!(
        peer.wait("a").await.orchestration_status(),
        OrchestrationStatus::Failed
    );
    let status = peer
        .create(reuse("a", &ended, Reuse::Error))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    // From anybody else it is today's layout.
    let other = Peer::connect(&scheduler).await;
    other
        .create(reuse("a", &ended, Reuse::Error))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_episode_comes_again_as_it_was_whatever_arrived_since_and_whoever_restarted() {
    // S-4.17: so a late answer without a token does no harm.
    let mut scheduler = Scheduler::start(&["--lease-grace", "100ms"]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let first = stream.episode().await;
    let raise = |name: &str| RaiseEventRequest {
        instance_id: "a".to_owned(),
        name: name.to_owned(),
        input: None,
    };
    peer.client().raise_event(raise("one")).await.unwrap();
    drop(stream);
    stream = peer.open().await;
    let again = stream.episode().await;
    assert_eq!(
        again.request, first.request,
        "the same clock and the same events"
    );
    scheduler.kill();

    scheduler.restart();
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    peer.client().raise_event(raise("two")).await.unwrap();
    stream = peer.open().await;
    let after_restart = stream.episode().await;
    assert_eq!(after_restart.request, first.request);
    peer.respond(tokenless(&first, Vec::new())).await.unwrap();
    let second = stream.episode().await;
    assert_eq!(
        second.new_kinds(),
        ["OrchestratorStarted", "EventRaised", "EventRaised"]
    );
    peer.respond(tokenless(&second, vec![complete(0, "1")]))
        .await
        .unwrap();
    peer.wait("a").await;
}

#[tokio::test]
async fn a_worker_that_drops_its_listener_in_mid_episode_may_answer_from_a_new_one() {
    // S-13.19, with the reconnect after 2 s that Go's own tests make.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, USER_AGENT, None).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    drop(stream);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _stream = peer.open().await;
    peer.respond(tokenless(&episode, vec![complete(0, "1")]))
        .await
        .unwrap();
    peer.wait("a").await;
}
