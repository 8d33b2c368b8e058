//! Orchestrations from start to end.

use std::time::{Duration, Instant};

use mainspring_core::orchestration::{ReusePolicy, Status};
use mainspring_host::{ErrorKind, Filter, Filters};
use mainspring_proto as proto;
use tokio::task::JoinSet;

use crate::scene::*;

/// S-2.4, S-11.5, S-3.13, S-17.6.
#[tokio::test(flavor = "multi_thread")]
async fn an_orchestration_with_activity_timer_and_child_completes() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started", "begun"]);
    assert_eq!(scene.status("a").await, Some(Status::Pending));
    let waiting = {
        let (host, hub) = (scene.host.clone(), scene.hub);
        tokio::spawn(async move { host.wait_started(hub, "a", false).await })
    };
    worker.answer(&episode, vec![task("Pay")]).await;
    assert_eq!(
        within(waiting).await.unwrap().unwrap().status,
        Status::Running
    );
    let activity = worker.activity().await;
    assert_eq!(activity.request.task_id, 1);
    worker.complete_activity(&activity, "paid").await;
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started", "task completed"]);
    let due = Duration::from_millis(30);
    let since = std::time::Instant::now();
    worker.answer(&episode, vec![timer(due)]).await;
    let episode = worker.episode().await;
    assert!(since.elapsed() >= due);
    assert_eq!(episode.new_events(), ["started", "timer fired"]);
    worker.answer(&episode, vec![child("a-child")]).await;
    let episode = worker.episode().await;
    assert_eq!(episode.id(), "a-child");
    worker.answer(&episode, vec![complete("7")]).await;
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started", "child completed"]);
    worker.answer(&episode, vec![complete("done")]).await;
    let view = scene.completed("a").await;
    assert_eq!(view.output.as_deref(), Some("done"));
    assert_eq!(
        scene.history("a").await,
        [
            "started",
            "begun",
            "task",
            "started",
            "task completed",
            "timer",
            "started",
            "timer fired",
            "child",
            "started",
            "child completed",
            "completed"
        ]
    );
}

/// S-8.1, S-8.2, S-8.4, S-8.6, S-3.5.
#[tokio::test(flavor = "multi_thread")]
async fn events_reach_an_instance_in_order_and_nobody_else() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.raise("a", "too early").await;
    scene.start("a").await;
    for name in ["one", "two", "three"] {
        scene.raise("a", name).await;
    }
    let mut raised = Vec::new();
    let mut last = worker.episode().await;
    loop {
        raised.extend(last.raised());
        if raised.len() == 3 {
            break;
        }
        worker.answer(&last, vec![]).await;
        last = worker.episode().await;
    }
    assert_eq!(raised, ["one", "two", "three"]);
    scene.raise("a", "late").await;
    worker
        .answer(&last, vec![complete(""), send("b", "x")])
        .await;
    scene.raise("a", "too late").await;
    assert_eq!(scene.status("a").await, Some(Status::Completed));
    scene.start("b").await;
    assert_eq!(worker.episode().await.new_events(), ["started", "begun"]);
}

/// S-8.2: between instances, whatever partitions they are in.
#[tokio::test(flavor = "multi_thread")]
async fn events_between_instances_keep_their_order() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    for target in 0..8 {
        let target = format!("target-{target}");
        scene.start(&target).await;
        let waiting = worker.episode().await;
        worker.answer(&waiting, vec![]).await;
        let sender = format!("sender-of-{target}");
        scene.start(&sender).await;
        let episode = worker.episode().await;
        let events = (0..50).map(|n| send(&target, &n.to_string()));
        worker
            .answer(&episode, events.chain([complete("")]).collect())
            .await;
        let mut raised = Vec::new();
        while raised.len() < 50 {
            let episode = worker.episode().await;
            raised.extend(episode.raised());
            worker.answer(&episode, vec![]).await;
        }
        let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        assert_eq!(raised, expected);
    }
}

/// S-3.18, S-3.2: what does not fit the first episode of a generation comes with the next, without anything else arriving.
#[tokio::test(flavor = "multi_thread")]
async fn carried_events_beyond_one_batch_come_in_further_episodes() {
    let scene = scene_with(|config| config.limits.batch_events_max = 10).await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    let event = |n: usize| proto::HistoryEvent {
        event_id: -1,
        timestamp: None,
        event_type: Some(proto::history_event::EventType::EventRaised(
            proto::EventRaisedEvent {
                name: n.to_string(),
                input: None,
            },
        )),
    };
    let carried = (0..25).map(event).collect();
    worker
        .answer(&episode, vec![continue_as_new(carried)])
        .await;
    let mut raised = Vec::new();
    while raised.len() < 25 {
        let episode = worker.episode().await;
        raised.extend(episode.raised());
        worker.answer(&episode, vec![]).await;
    }
    let expected: Vec<String> = (0..25).map(|n| n.to_string()).collect();
    assert_eq!(raised, expected);
}

/// S-3.21, S-0.3, S-3.20: an activity of an ended generation runs, and its result is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn results_of_an_ended_generation_are_dropped() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker
        .answer(&episode, vec![task("Slow"), continue_as_new(vec![])])
        .await;
    // The next episode does not wait for the disk; the activity does.
    let episode = worker.episode().await;
    let old = worker.activity().await;
    assert_ne!(
        episode.request.execution_id,
        old.request
            .orchestration_instance
            .clone()
            .unwrap()
            .execution_id
    );
    worker.answer(&episode, vec![task("Slow")]).await;
    let new = worker.activity().await;
    assert_eq!(new.request.task_id, old.request.task_id);
    worker.complete_activity(&old, "old").await;
    worker.complete_activity(&new, "new").await;
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started", "task completed"]);
    worker.answer(&episode, vec![complete("")]).await;
    scene.completed("a").await;
    assert!(worker.has_nothing());
}

/// S-9.2 to S-9.6.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_instance_gets_its_messages_when_it_is_resumed() {
    let scene = scene_with(|config| config.passivate_after = Duration::ZERO).await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker.answer(&episode, vec![]).await;
    scene.host.suspend(scene.hub, "a", None).await.unwrap();
    scene.raise("a", "x").await;
    scene.raise("a", "y").await;
    // Long enough to leave memory with its messages, and to be read again.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(scene.status("a").await, Some(Status::Suspended));
    assert!(worker.has_nothing());
    scene.host.resume(scene.hub, "a", None).await.unwrap();
    let mut raised = Vec::new();
    while raised.len() < 2 {
        let episode = worker.episode().await;
        raised.extend(episode.raised());
        worker.answer(&episode, vec![]).await;
    }
    assert_eq!(raised, ["x", "y"]);
    let history = scene.history("a").await;
    assert_eq!(history[2..4], ["suspended", "resumed"]);
}

/// Instances leave memory and come back while messages arrive; none is lost, and none comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_instances_leave_memory_and_come_back() {
    let scene = scene_with(|config| {
        config.passivate_after = Duration::ZERO;
        config.activations_max = 0;
        config.cache_bytes_max = 1;
    })
    .await;
    let mut worker = scene.worker(PYTHON);
    const INSTANCES: usize = 20;
    const ROUNDS: usize = 30;
    for n in 0..INSTANCES {
        scene.start(&format!("i{n}")).await;
    }
    let raising = {
        let (host, hub) = (scene.host.clone(), scene.hub);
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                for n in 0..INSTANCES {
                    let id = format!("i{n}");
                    host.raise_event(hub, &id, round.to_string(), None)
                        .await
                        .unwrap();
                    // Reading loads it, at any moment between store and delivery.
                    host.get(hub, &format!("i{}", (n + 7) % INSTANCES), false)
                        .await
                        .unwrap();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    let mut got = vec![Vec::new(); INSTANCES];
    while got.iter().map(Vec::len).sum::<usize>() < INSTANCES * ROUNDS {
        let episode = worker.episode().await;
        let n: usize = episode.id()[1..].parse().unwrap();
        got[n].extend(episode.raised());
        worker.answer(&episode, vec![]).await;
    }
    within(raising).await.unwrap();
    let expected: Vec<String> = (0..ROUNDS).map(|n| n.to_string()).collect();
    assert!(got.iter().all(|raised| *raised == expected));
}

/// An instance that nobody may run waits without a place in memory, and runs when a worker comes (S-2.5).
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_waits_for_a_worker_may_leave_memory() {
    let scene = scene_with(|config| config.passivate_after = Duration::ZERO).await;
    scene.start("a").await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    scene.raise("a", "x").await;
    let mut worker = scene.worker(PYTHON);
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started", "begun", "raised"]);
    worker.answer(&episode, vec![complete("")]).await;
    scene.completed("a").await;
    assert!(worker.has_nothing(), "it was handed out once");
}

/// What reaches an instance while it is asked to leave memory finds it as it is, messages waiting or not.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_asked_to_leave_memory_is_there_for_what_comes_in_between() {
    const INSTANCES: usize = 20;
    let scene = scene_with(|config| config.passivate_after = Duration::ZERO).await;
    for n in 0..INSTANCES {
        scene.start(&format!("i{n}")).await;
        scene.raise(&format!("i{n}"), "x").await;
    }
    // All are asked once a second.
    let begun = Instant::now();
    let mut reads = JoinSet::new();
    for _ in 0..64 {
        let (host, hub) = (scene.host.clone(), scene.hub);
        reads.spawn(async move {
            while begun.elapsed() < Duration::from_millis(3_500) {
                for n in 0..INSTANCES {
                    let found = host.get(hub, &format!("i{n}"), false).await.unwrap();
                    assert!(found.is_some(), "i{n} is not there");
                }
            }
        });
    }
    within(reads.join_all()).await;
    let mut worker = scene.worker(PYTHON);
    for _ in 0..INSTANCES {
        let episode = worker.episode().await;
        assert_eq!(episode.new_events(), ["started", "begun", "raised"]);
        worker.answer(&episode, vec![complete("")]).await;
    }
}

/// S-13.12, S-10.3: an id that is used again is offered under its new name.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_instance_is_offered_under_its_new_name() {
    let scene = scene().await;
    scene.start("a").await;
    let mut other = new("a");
    other.name = "Other".to_owned();
    let replace = ReusePolicy {
        is_given: true,
        replaceable: vec![0, 1, 3, 4, 5, 6, 7],
        ..ReusePolicy::default()
    };
    within(scene.host.start_instance(scene.hub, other, replace))
        .await
        .unwrap();
    let only = |name: &str| Filters {
        orchestrations: vec![Filter {
            name: name.to_owned(),
            versions: vec![],
        }],
        ..Filters::default()
    };
    let mut old = scene.worker_with(PYTHON, |o| o.filters = Some(only("Order")));
    let mut new = scene.worker_with(PYTHON, |o| o.filters = Some(only("Other")));
    let episode = new.episode().await;
    new.answer(&episode, vec![complete("")]).await;
    scene.completed("a").await;
    assert!(old.has_nothing());
}

/// S-13.28, S-4.3, S-13.17.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_refused_ends_its_lease_and_the_episode_comes_again() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    let response = proto::OrchestratorResponse {
        instance_id: "a".to_owned(),
        actions: vec![proto::OrchestratorAction::default()],
        completion_token: episode.token.clone(),
        ..Default::default()
    };
    let error = worker.respond(response).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let again = worker.episode().await;
    assert_ne!(again.token, episode.token);
    worker.answer(&episode, vec![complete("stale")]).await;
    assert_eq!(scene.status("a").await, Some(Status::Pending));
    worker.answer(&again, vec![complete("good")]).await;
    assert_eq!(scene.completed("a").await.output.as_deref(), Some("good"));
    // S-4.6.
    scene.start("b").await;
    let mut episode = worker.episode().await;
    episode.request.instance_id = "a".to_owned();
    let error = worker.try_answer(&episode, vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(worker.episode().await.id(), "b");
}

/// S-3.31, S-3.36.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_in_chunks_applies_as_a_whole() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    let chunk = |index: i32, is_partial, action| proto::OrchestratorResponse {
        instance_id: "a".to_owned(),
        actions: vec![proto::OrchestratorAction {
            id: index + 1,
            orchestrator_action_type: Some(action),
        }],
        completion_token: episode.token.clone(),
        num_events_processed: (index > 0).then_some(0),
        is_partial,
        chunk_index: Some(index),
        ..Default::default()
    };
    worker.respond(chunk(0, true, task("A"))).await.unwrap();
    worker.respond(chunk(0, true, task("A"))).await.unwrap();
    assert!(
        worker.has_nothing(),
        "nothing applies before the last chunk"
    );
    worker.respond(chunk(1, false, task("B"))).await.unwrap();
    assert_eq!(worker.activity().await.request.name, "A");
    assert_eq!(worker.activity().await.request.name, "B");
    worker.respond(chunk(1, false, task("B"))).await.unwrap();
    assert_eq!(scene.status("a").await, Some(Status::Running));
    assert!(worker.has_nothing());
}

/// S-13.20.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_too_large_for_every_connected_worker_fails_the_instance() {
    let scene = scene_with(|config| {
        config.limits.work_item_bytes_max = 20_000;
        config.oversize_wait = Duration::from_millis(100);
    })
    .await;
    let mut worker = scene.worker(PYTHON);
    grow(&scene, &mut worker, "a").await;
    let view = scene.completed("a").await;
    assert_eq!(view.status, Status::Failed);
    let (error_type, _) = view.failure.unwrap().error_type_and_message();
    assert_eq!(error_type, "HistoryTooLarge");
    assert!(worker.has_nothing(), "it was never sent");
}

/// S-13.20, S-3.26: a worker that fetches the history itself, or receives any size, gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_history_goes_to_workers_that_can_have_it() {
    let scene = scene_with(|config| config.limits.work_item_bytes_max = 20_000).await;
    for (id, user_agent, streams) in [("a", DOTNET, true), ("b", "grpc-node-js/1.10", false)] {
        let mut small = scene.worker(PYTHON);
        grow(&scene, &mut small, id).await;
        let mut large = scene.worker_with(user_agent, |o| o.can_stream_history = streams);
        let episode = large.episode().await;
        assert_eq!(episode.request.requires_history_streaming, streams);
        assert_eq!(episode.request.past_events.is_empty(), streams);
        large.answer(&episode, vec![complete("")]).await;
        scene.completed(id).await;
        assert!(small.has_nothing());
    }
}

/// Fills the history of an instance beyond 20,000 bytes, with one more event waiting.
async fn grow(scene: &Scene, worker: &mut Worker, id: &str) {
    scene.start(id).await;
    let mut episode = worker.episode().await;
    for _ in 0..3 {
        worker.answer(&episode, vec![]).await;
        let data = Some("x".repeat(5_000));
        within(scene.host.raise_event(scene.hub, id, "x".to_owned(), data))
            .await
            .unwrap();
        episode = worker.episode().await;
    }
    worker.answer(&episode, vec![]).await;
    let data = Some("x".repeat(6_000));
    within(scene.host.raise_event(scene.hub, id, "x".to_owned(), data))
        .await
        .unwrap();
}

/// S-3.34.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_history_stream_ends_the_lease_at_once_and_a_whole_one_does_not() {
    let scene = scene_with(|config| config.limits.work_item_bytes_max = 20_000).await;
    let mut worker = scene.worker_with(DOTNET, |o| o.can_stream_history = true);
    grow(&scene, &mut worker, "a").await;
    let first = worker.episode().await;
    assert!(first.request.requires_history_streaming);
    let history = || within(scene.host.history(scene.hub, "a", None, true));
    drop(history().await.unwrap());
    let second = worker.episode().await;
    assert_ne!(first.token, second.token);
    worker.answer(&first, vec![fail()]).await;
    let whole = history().await.unwrap();
    whole.guard.unwrap().finish();
    worker.answer(&second, vec![complete("")]).await;
    assert_eq!(scene.completed("a").await.status, Status::Completed);
}
