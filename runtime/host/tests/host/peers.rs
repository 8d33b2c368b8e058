//! Workers that answer late, twice, or without tokens.

use std::time::Duration;

use mainspring_core::orchestration::{ReusePolicy, Status};

use crate::scene::*;

fn anonymous(episode: &Episode) -> Episode {
    Episode {
        token: String::new(),
        ..episode.clone()
    }
}

/// S-4.5.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_tokens_is_served_like_any_other() {
    let scene = scene().await;
    let mut worker = scene.worker(GO);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker.answer(&anonymous(&episode), vec![task("Pay")]).await;
    let mut activity = worker.activity().await;
    activity.token.clear();
    worker.complete_activity(&activity, "paid").await;
    worker.complete_activity(&activity, "paid twice").await;
    let episode = worker.episode().await;
    worker
        .answer(&anonymous(&episode), vec![complete("")])
        .await;
    worker.answer(&anonymous(&episode), vec![fail()]).await;
    assert_eq!(scene.completed("a").await.status, Status::Completed);
}

/// S-4.17: also across a restart, and to whomever.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_without_tokens_was_sent_is_sent_again_unchanged() {
    let scene = scene().await;
    let mut worker = scene.worker(GO);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker.answer(&anonymous(&episode), vec![]).await;
    scene.raise("a", "one").await;
    let first = worker.episode().await;
    assert_eq!(first.raised(), ["one"]);
    scene.raise("a", "two").await;
    drop(worker);
    let mut python = scene.worker(PYTHON);
    let second = python.episode().await;
    assert_eq!(second.request.new_events, first.request.new_events);
    let scene = scene.restart().await;
    let mut worker = scene.worker(GO);
    let third = worker.episode().await;
    assert_eq!(third.request.new_events, first.request.new_events);
    // A late answer to the first delivery is as good as any.
    worker.answer(&anonymous(&first), vec![]).await;
    assert_eq!(worker.episode().await.raised(), ["two"]);
}

/// S-4.16.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_without_a_token_is_not_taken_for_one_of_the_next_generation() {
    let scene = scene().await;
    let mut worker = scene.worker(GO);
    scene.start("a").await;
    let old = worker.episode().await;
    let policy = ReusePolicy {
        is_given: true,
        replaceable: vec![0, 5, 6],
        ..ReusePolicy::default()
    };
    scene.create("a", policy).await.unwrap();
    assert!(worker.has_nothing(), "the next generation waits");
    worker.answer(&anonymous(&old), vec![complete("old")]).await;
    let new = worker.episode().await;
    assert_ne!(new.request.execution_id, old.request.execution_id);
    assert_eq!(scene.status("a").await, Some(Status::Pending));
    worker.answer(&anonymous(&new), vec![complete("new")]).await;
    assert_eq!(scene.completed("a").await.output.as_deref(), Some("new"));
}

/// S-4.16: after a restart the grace stands for an answer nobody knows of.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_generation_waits_a_grace_after_a_restart() {
    let scene = scene_with(|config| config.lease_grace = Duration::from_millis(600)).await;
    let mut worker = scene.worker(GO);
    scene.start("a").await;
    let old = worker.episode().await;
    within(scene.host.terminate(scene.hub, "a", None, false))
        .await
        .unwrap();
    within(scene.host.restart(scene.hub, "a", false))
        .await
        .unwrap();
    let since = std::time::Instant::now();
    let scene = scene.restart().await;
    let mut worker = scene.worker(GO);
    scene.start("b").await;
    let other = worker.episode().await;
    assert_eq!(other.id(), "b", "instances without a past do not wait");
    worker.answer(&anonymous(&old), vec![complete("old")]).await;
    let new = worker.episode().await;
    assert!(since.elapsed() >= Duration::from_millis(500));
    assert_eq!(new.id(), "a");
}

/// S-13.18, S-13.19: a worker that stops gracefully answers after its stream is gone and its items are with another.
#[tokio::test(flavor = "multi_thread")]
async fn an_activity_finished_by_a_worker_that_left_need_not_run_twice() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker.answer(&episode, vec![task("Slow")]).await;
    let first = worker.activity().await;
    drop(std::mem::replace(&mut worker, scene.worker(PYTHON)));
    let second = worker.activity().await;
    assert_ne!(first.token, second.token);
    worker.complete_activity(&first, "first").await;
    worker.complete_activity(&second, "second").await;
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started", "task completed"]);
    worker.answer(&episode, vec![complete("")]).await;
    scene.completed("a").await;
    assert!(worker.has_nothing());
}

/// S-13.19: an episode answered within the grace counts; later it is with another worker, and the older token is void.
#[tokio::test(flavor = "multi_thread")]
async fn an_episode_of_a_lost_stream_can_be_answered_within_the_grace() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    drop(std::mem::replace(&mut worker, scene.worker(PYTHON)));
    worker.answer(&episode, vec![task("A")]).await;
    assert_eq!(worker.activity().await.request.name, "A");
    scene.raise("a", "x").await;
    let lost = worker.episode().await;
    drop(std::mem::replace(&mut worker, scene.worker(PYTHON)));
    let again = until(async || worker.either().await.ok()).await;
    worker.answer(&lost, vec![complete("lost")]).await;
    worker.answer(&again, vec![complete("again")]).await;
    assert_eq!(scene.completed("a").await.output.as_deref(), Some("again"));
}

/// S-5.5, S-13.17: thousands of activities, each run once while no worker is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_wide_fan_out_runs_every_activity_once() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    const WIDTH: usize = 1_000;
    let tasks = (0..WIDTH).map(|n| task(&format!("A{}", n % 7))).collect();
    worker.answer(&episode, tasks).await;
    let (mut ran, mut results) = (0, 0);
    while results < WIDTH {
        match worker.either().await {
            Err(activity) => {
                ran += 1;
                worker.complete_activity(&activity, "").await;
            }
            Ok(episode) => {
                results += episode.new_events().len() - 1;
                let actions = if results == WIDTH {
                    vec![complete("")]
                } else {
                    vec![]
                };
                worker.answer(&episode, actions).await;
            }
        }
    }
    assert_eq!(ran, WIDTH);
    scene.completed("a").await;
    assert!(worker.has_nothing());
}
