//! Stopping, and starting again on what is stored.

use std::time::Duration;

use mainspring_core::orchestration::Status;
use mainspring_host::ErrorKind;

use crate::scene::*;

/// S-13.21, S-4.4, S-6.1, S-7.4: what was open is handed out again, once.
#[tokio::test(flavor = "multi_thread")]
async fn everything_open_is_handed_out_again_once_after_a_restart() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("tasks").await;
    let episode = worker.episode().await;
    worker
        .answer(&episode, vec![task("A"), task("B"), task("C")])
        .await;
    let done = worker.activity().await;
    worker.activity().await;
    worker.activity().await;
    worker.complete_activity(&done, "1").await;
    let started = worker.episode().await;
    scene.start("timer").await;
    let episode = worker.episode().await;
    worker
        .answer(&episode, vec![timer(Duration::from_millis(600))])
        .await;
    scene.start("parent").await;
    let episode = worker.episode().await;
    worker.answer(&episode, vec![child("the-child")]).await;
    let child = worker.episode().await;
    assert_eq!(child.id(), "the-child");
    scene.start("fresh").await;

    drop(worker);
    let scene = scene.restart().await;
    let mut worker = scene.worker(PYTHON);
    // Tokens from before are void.
    worker.answer(&started, vec![fail()]).await;
    let mut episodes = Vec::new();
    let mut activities = Vec::new();
    for _ in 0..6 {
        match tokio::time::timeout(Duration::from_secs(20), worker.either()).await {
            Ok(Ok(episode)) => episodes.push(episode),
            Ok(Err(activity)) => activities.push(activity),
            Err(_) => panic!("only {} items came", episodes.len() + activities.len()),
        }
    }
    let mut ids: Vec<_> = episodes.iter().map(|e| e.id().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["fresh", "tasks", "the-child", "timer"]);
    let mut names: Vec<_> = activities.iter().map(|a| a.request.name.clone()).collect();
    names.sort();
    assert_eq!(names, ["B", "C"]);
    for episode in &episodes {
        worker.answer(episode, vec![complete("")]).await;
    }
    let parent = worker.episode().await;
    assert_eq!(parent.new_events(), ["started", "child completed"]);
    worker.answer(&parent, vec![complete("")]).await;
    for id in ["fresh", "tasks", "the-child", "timer", "parent"] {
        assert_eq!(scene.completed(id).await.status, Status::Completed);
    }
    for activity in &activities {
        worker.complete_activity(activity, "").await;
    }
    assert!(worker.has_nothing());
}

/// S-3.20, S-5.7: fire and forget survives, too, and nothing of it is left afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_activity_that_outlives_its_orchestration_survives_a_restart() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker.answer(&episode, vec![task("First")]).await;
    worker.activity().await;
    scene.raise("a", "go").await;
    let episode = worker.episode().await;
    worker
        .answer(&episode, vec![task("Last"), complete("")])
        .await;
    scene.completed("a").await;
    let last = worker.activity().await;
    assert_eq!(last.request.name, "Last");
    let scene = scene.restart().await;
    let mut worker = scene.worker(PYTHON);
    let mut names = Vec::new();
    for _ in 0..2 {
        let activity = worker.activity().await;
        worker.complete_activity(&activity, "").await;
        names.push(activity.request.name);
    }
    names.sort();
    assert_eq!(names, ["First", "Last"]);
    let scene = scene.restart().await;
    let mut worker = scene.worker(PYTHON);
    assert_eq!(scene.status("a").await, Some(Status::Completed));
    assert!(worker.has_nothing());
}

/// S-11.24: a purged instance's activities go with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_activities_that_outlived_the_instance() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    worker
        .answer(&episode, vec![task("Last"), complete("")])
        .await;
    let activity = worker.activity().await;
    let purge = mainspring_host::Purge::Id("a".to_owned());
    let purged = within(scene.host.purge(scene.hub, purge, false, true))
        .await
        .unwrap();
    assert_eq!(purged.count, 1);
    worker.complete_activity(&activity, "").await;
    let scene = scene.restart().await;
    let mut worker = scene.worker(PYTHON);
    assert!(scene.status("a").await.is_none());
    assert!(worker.has_nothing());
}

/// S-6.6.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_start_waits_for_its_time_across_a_restart() {
    let scene = scene().await;
    let mut later = new("a");
    let at = scene.host.now().plus(Duration::from_millis(700));
    later.scheduled_start_at = Some(at);
    let policy = Default::default();
    within(scene.host.start_instance(scene.hub, later, policy))
        .await
        .unwrap();
    scene.raise("a", "x").await;
    let scene = scene.restart().await;
    let mut worker = scene.worker(PYTHON);
    assert_eq!(scene.status("a").await, Some(Status::Pending));
    let episode = worker.episode().await;
    assert!(scene.host.now() >= at);
    assert_eq!(episode.new_events(), ["started", "begun", "raised"]);
}

/// S-9.8: a restart resumes a recursive termination.
#[tokio::test(flavor = "multi_thread")]
async fn children_end_with_their_parent_when_that_is_asked_for() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("root").await;
    let root = worker.episode().await;
    worker.answer(&root, vec![child("x"), child("y")]).await;
    let mut finished = None;
    for _ in 0..2 {
        let episode = worker.episode().await;
        if episode.id() == "x" {
            // A finished child is passed through.
            worker
                .answer(&episode, vec![child("x-x"), complete("")])
                .await;
            finished = Some(());
        } else {
            worker.answer(&episode, vec![]).await;
        }
    }
    finished.unwrap();
    scene.completed("x").await;
    until(async || scene.status("x-x").await).await;
    let output = Some("stop".to_owned());
    within(scene.host.terminate(scene.hub, "root", output, true))
        .await
        .unwrap();
    for id in ["root", "y", "x-x"] {
        let view = scene.view(id).await.unwrap();
        assert_eq!(view.status, Status::Terminated, "{id}");
        assert_eq!(view.output.as_deref(), Some("stop"));
    }
    assert_eq!(scene.status("x").await, Some(Status::Completed));
    // Without the flag children go on.
    scene.start("other").await;
    let mut episode = worker.episode().await;
    while episode.id() != "other" {
        episode = worker.episode().await;
    }
    worker.answer(&episode, vec![child("z")]).await;
    until(async || scene.status("z").await).await;
    within(scene.host.terminate(scene.hub, "other", None, false))
        .await
        .unwrap();
    assert_eq!(scene.status("z").await, Some(Status::Pending));
}

/// S-1.10, S-1.14: what refuses a stream refuses the greeting.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_host_refuses_everything_with_one_code() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let episode = worker.episode().await;
    let waiting = {
        let (host, hub) = (scene.host.clone(), scene.hub);
        tokio::spawn(async move { host.wait_completed(hub, "a", false).await })
    };
    tokio::task::yield_now().await;
    within(scene.host.stop()).await;
    let kind = |error: mainspring_host::Error| error.kind();
    use futures_util::StreamExt;
    let ended = within(worker.items.next()).await.unwrap().unwrap_err();
    assert_eq!(kind(ended), ErrorKind::Unavailable);
    let waited = within(waiting).await.unwrap().unwrap_err();
    assert_eq!(kind(waited), ErrorKind::Unavailable);
    let hub = scene.host.hub(None).await.unwrap_err();
    assert_eq!(kind(hub), ErrorKind::Unavailable);
    let created = scene.create("b", Default::default()).await.unwrap_err();
    assert_eq!(kind(created), ErrorKind::Unavailable);
    let answered = worker.try_answer(&episode, vec![]).await.unwrap_err();
    assert_eq!(kind(answered), ErrorKind::Unavailable);
}

/// S-1.13: what was answered with "unavailable" while stopping was not applied, and what was applied was answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_leaves_no_doubt_about_what_was_applied() {
    let scene = scene().await;
    let mut starting = tokio::task::JoinSet::new();
    for n in 0..400 {
        let (host, hub) = (scene.host.clone(), scene.hub);
        starting.spawn(async move {
            let id = format!("i{n}");
            tokio::time::sleep(Duration::from_micros(50 * n)).await;
            let created = host.start_instance(hub, new(&id), Default::default()).await;
            (id, created.is_ok())
        });
    }
    tokio::time::sleep(Duration::from_millis(8)).await;
    let scene = scene.restart().await;
    let mut applied = 0;
    while let Some(started) = starting.join_next().await {
        let (id, was_ok) = started.unwrap();
        assert_eq!(scene.status(&id).await.is_some(), was_ok, "{id}");
        applied += usize::from(was_ok);
    }
    assert!(applied > 0);
}
