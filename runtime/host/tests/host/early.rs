//! Outcomes that go to a worker before they are durable.

use std::time::{Duration, Instant};

use mainspring_core::orchestration::Status;
use mainspring_host::WorkKind;
use tokio::task::JoinHandle;

use crate::kept::keeper;
use crate::scene::*;

/// An instance whose activity was answered, its worker with the episode that follows, and the wait for the answer's being durable.
async fn early(scene: &Scene) -> (Worker, Episode, JoinHandle<()>) {
    let mut worker = keeper(scene);
    scene.start("a").await;
    let episode = worker.episode().await;
    let (episode, told) = pay(&mut worker, &episode).await;
    assert_eq!(episode.kept, 3);
    assert_eq!(scene.history("a").await.len(), 3);
    (worker, episode, told)
}

/// Answers an episode with an activity, and tells its outcome.
async fn pay(worker: &mut Worker, episode: &Episode) -> (Episode, JoinHandle<()>) {
    worker.answer(episode, vec![task("Pay")]).await;
    let activity = worker.activity().await;
    let told = worker.completing(&activity, Ok("paid"));
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started", "task completed"]);
    assert!(!told.is_finished());
    (episode, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_commit_holds_the_outcome_and_the_answer_of_its_episode() {
    // S-0.6: neither is acknowledged before.
    let scene = scene().await;
    let (worker, episode, told) = early(&scene).await;
    worker.answer(&episode, vec![complete("done")]).await;
    told.await.unwrap();
    assert_eq!(scene.completed("a").await.status, Status::Completed);
    assert_eq!(scene.history("a").await.len(), 6);
    let scene = scene.restart().await;
    assert_eq!(scene.status("a").await, Some(Status::Completed));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_whose_episode_is_lost_or_given_back_is_kept_all_the_same() {
    // S-13.19.
    let scene = scene().await;
    let (worker, episode, told) = early(&scene).await;
    drop((worker, episode));
    told.await.unwrap();
    let scene = scene.restart().await;
    let mut worker = keeper(&scene);
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started", "task completed"]);
    worker.answer(&episode, vec![complete("done")]).await;
    scene.completed("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_stops_saves_an_outcome_whose_episode_is_out() {
    // S-1.13.
    let scene = scene().await;
    let (_worker, _episode, told) = early(&scene).await;
    let scene = scene.restart().await;
    told.await.unwrap();
    let mut worker = keeper(&scene);
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started", "task completed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_that_wait_for_their_episodes_hold_up_no_answer() {
    let scene = scene_with(|config| config.requests_max = 1).await;
    let (worker, episode, told) = early(&scene).await;
    worker.answer(&episode, vec![complete("done")]).await;
    told.await.unwrap();
    scene.completed("a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_does_not_wait_long_for_its_episode() {
    let scene = scene().await;
    let (mut worker, void, told) = early(&scene).await;
    let since = Instant::now();
    told.await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(20));
    let episode = worker.episode().await;
    assert_eq!(episode.kept, 0);
    assert_eq!(episode.new_events(), ["started", "task completed"]);
    // S-4.16.
    worker.answer(&void, vec![complete("void")]).await;
    worker.answer(&episode, vec![complete("done")]).await;
    let view = scene.completed("a").await;
    assert_eq!(view.output.as_deref(), Some("done"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_told_an_outcome_is_answered_when_its_instance_is_terminated() {
    let scene = scene().await;
    let (worker, episode, told) = early(&scene).await;
    within(scene.host.terminate(scene.hub, "a", None, false))
        .await
        .unwrap();
    told.await.unwrap();
    worker.answer(&episode, vec![complete("void")]).await;
    assert_eq!(scene.completed("a").await.status, Status::Terminated);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_meanwhile_keeps_its_place_behind() {
    // S-8.2: the message that came later has a position, the early one has none.
    let scene = scene().await;
    let (mut worker, episode, told) = early(&scene).await;
    scene.raise("a", "later").await;
    worker.answer(&episode, vec![]).await;
    told.await.unwrap();
    let episode = worker.episode().await;
    assert_eq!(episode.raised(), ["later"]);
    let (episode, told) = pay(&mut worker, &episode).await;

    // Saved after all, it stands behind what was durable before.
    scene.raise("a", "before").await;
    let given_back = scene.host.abandon(
        scene.hub,
        &worker.peer,
        WorkKind::Orchestration,
        &episode.token,
    );
    within(given_back).await.unwrap();
    told.await.unwrap();
    let scene = scene.restart().await;
    let mut worker = keeper(&scene);
    let episode = worker.episode().await;
    let expected = ["started", "raised", "task completed"];
    assert_eq!(episode.new_events(), expected);
}
