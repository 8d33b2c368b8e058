//! What clients ask about many instances, and what they do to them.

use std::time::Duration;

use mainspring_core::orchestration::{ReusePolicy, Status};
use mainspring_host::{ErrorKind, InstanceQuery, ListQuery, Purge, Purged};

use crate::scene::*;

async fn finish(scene: &Scene, worker: &mut Worker, id: &str) {
    run(scene, worker, id).await;
    scene.completed(id).await;
}

/// It has ended when this returns, as the accepted answer says.
async fn run(scene: &Scene, worker: &mut Worker, id: &str) {
    scene.start(id).await;
    let episode = worker.episode().await;
    assert_eq!(episode.id(), id);
    worker.answer(&episode, vec![complete("")]).await;
}

/// S-11.9 to S-11.13, S-0.6.
#[tokio::test(flavor = "multi_thread")]
async fn queries_page_through_all_instances_in_order_of_creation() {
    let scene = scene().await;
    let mut ids = Vec::new();
    for n in 0..21 {
        let id = format!("{}-{n}", if n % 2 == 0 { "even" } else { "odd" });
        scene.start(&id).await;
        ids.push(id);
    }
    let mut query = InstanceQuery {
        page_size: 5,
        ..InstanceQuery::default()
    };
    let mut found = Vec::new();
    let mut pages = 0;
    loop {
        let page = within(scene.host.query(scene.hub, query.clone()))
            .await
            .unwrap();
        pages += 1;
        found.extend(page.views.into_iter().map(|v| v.id.to_string()));
        query.token = page.token;
        if query.token.is_none() {
            break;
        }
        assert!(query.token.as_deref() != Some(""));
    }
    assert_eq!((pages, &found), (5, &ids));
    let of = |change: fn(&mut InstanceQuery)| {
        let mut query = InstanceQuery::default();
        change(&mut query);
        within(scene.host.query(scene.hub, query))
    };
    let odd = of(|q| q.prefix = Some("odd".to_owned())).await.unwrap();
    assert_eq!(odd.views.len(), 10);
    assert!(odd.views.iter().all(|v| v.input.is_none()));
    let running = of(|q| q.statuses = vec![0]).await.unwrap();
    assert!(running.views.is_empty() && running.token.is_none());
    let elsewhere = of(|q| q.hub_names = vec!["other".to_owned()])
        .await
        .unwrap();
    assert!(elsewhere.views.is_empty());
    let named = of(|q| q.hub_names = vec![" DEFAULT".to_owned()])
        .await
        .unwrap();
    assert_eq!(named.views.len(), 21);
    let garbage = of(|q| q.token = Some("garbage".to_owned())).await;
    assert_eq!(garbage.unwrap_err().kind(), ErrorKind::Invalid);
    let empty = of(|q| q.token = Some(String::new())).await.unwrap();
    assert_eq!(empty.views.len(), 21);
}

/// S-11.14 to S-11.17.
#[tokio::test(flavor = "multi_thread")]
async fn lists_give_finished_instances_and_a_key_on_every_page_that_is_not_empty() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    let list = |after: Option<String>, is_python| {
        let query = ListQuery {
            page_size: 2,
            after,
            is_python,
            ..ListQuery::default()
        };
        within(scene.host.list_ids(scene.hub, query))
    };
    let nothing = list(None, false).await.unwrap();
    assert!(nothing.ids.is_empty() && nothing.key.is_none());
    for n in 0..4 {
        finish(&scene, &mut worker, &format!("i{n}")).await;
    }
    scene.start("active").await;
    let first = list(Some(String::new()), false).await.unwrap();
    assert_eq!(first.ids, ["i0", "i1"]);
    assert!(first.key.as_deref().unwrap().ends_with("|i1"));
    let second = list(first.key.clone(), false).await.unwrap();
    assert_eq!(second.ids, ["i2", "i3"]);
    let third = list(second.key, false).await.unwrap();
    assert!(third.ids.is_empty() && third.key.is_none());
    let python = list(first.key, true).await.unwrap();
    assert_eq!((python.ids.len(), python.key), (2, None));
    let bare = list(Some("i0".to_owned()), false).await.unwrap();
    assert_eq!(bare.ids, ["i1", "i2"]);
    let gone = list(Some("nobody".to_owned()), false).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Invalid);
}

/// S-11.18, S-11.19, S-11.21, S-11.24.
#[tokio::test(flavor = "multi_thread")]
async fn a_recursive_purge_takes_all_descendants_or_nothing() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("root").await;
    let root = worker.episode().await;
    worker.answer(&root, vec![child("x"), complete("")]).await;
    let x = worker.episode().await;
    worker.answer(&x, vec![child("x-x"), complete("")]).await;
    let last = worker.episode().await;
    let purge = |id: &str, is_recursive| {
        within(
            scene
                .host
                .purge(scene.hub, Purge::Id(id.to_owned()), is_recursive, true),
        )
    };
    let count = |purged: Purged| {
        assert!(purged.is_complete);
        purged.count
    };
    let refused = purge("root", true).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    assert!(scene.view("root").await.is_some() && scene.view("x").await.is_some());
    let batch = Purge::Batch(vec!["root".to_owned(), "nobody".to_owned()]);
    let skipped = within(scene.host.purge(scene.hub, batch, true, true))
        .await
        .unwrap();
    assert_eq!(count(skipped), 0);
    worker.answer(&last, vec![complete("")]).await;
    scene.completed("x-x").await;
    assert_eq!(count(purge("root", true).await.unwrap()), 3);
    for id in ["root", "x", "x-x"] {
        assert!(scene.view(id).await.is_none());
    }
    assert_eq!(count(purge("root", true).await.unwrap()), 0);
    let all = within(scene.host.query(scene.hub, InstanceQuery::default()));
    assert!(all.await.unwrap().views.is_empty());
    // The id is free.
    finish(&scene, &mut worker, "root").await;
    assert_eq!(scene.history("root").await.len(), 3);
    assert_eq!(count(purge("root", false).await.unwrap()), 1);
}

/// S-11.20, S-11.22.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_by_filter_takes_finished_instances_only_and_says_when_it_was_cut_short() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    for n in 0..5 {
        finish(&scene, &mut worker, &format!("i{n}")).await;
    }
    scene.start("active").await;
    let purge = |timeout| {
        let filter = Purge::Filter {
            created_from: None,
            created_to: None,
            statuses: vec![],
            timeout,
        };
        within(scene.host.purge(scene.hub, filter, false, true))
    };
    let cut = purge(Some(Duration::ZERO)).await.unwrap();
    assert_eq!((cut.count, cut.is_complete), (0, false));
    let purged = purge(None).await.unwrap();
    assert_eq!((purged.count, purged.is_complete), (5, true));
    assert_eq!(scene.status("active").await, Some(Status::Pending));
}

/// S-11.25.
#[tokio::test(flavor = "multi_thread")]
async fn finished_instances_go_when_the_retention_is_over() {
    let scene = scene_with(|config| config.retention = Some(Duration::ZERO)).await;
    let mut worker = scene.worker(PYTHON);
    for n in 0..10 {
        // It may be purged at once, and a wait for it would be one for an instance to come (S-11.6).
        run(&scene, &mut worker, &format!("i{n}")).await;
    }
    scene.start("active").await;
    until(async || {
        let page = within(scene.host.query(scene.hub, InstanceQuery::default()));
        let views = page.await.unwrap().views;
        (views.len() == 1).then_some(())
    })
    .await;
    assert!(scene.view("active").await.is_some());
}

/// S-9.12, S-9.13.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewound_instance_runs_its_failed_activity_again() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let rewind = |id| within(scene.host.rewind(scene.hub, id, None));
    let kind = |error: mainspring_host::Error| error.kind();
    assert_eq!(
        kind(rewind("a").await.unwrap_err()),
        ErrorKind::FailedPrecondition
    );
    assert_eq!(
        kind(rewind("nobody").await.unwrap_err()),
        ErrorKind::NotFound
    );
    let episode = worker.episode().await;
    worker
        .answer(&episode, vec![task("Good"), task("Bad")])
        .await;
    let good = worker.activity().await;
    let bad = worker.activity().await;
    worker.complete_activity(&good, "1").await;
    let episode = worker.episode().await;
    worker.answer(&episode, vec![]).await;
    worker.fail_activity(&bad).await;
    let episode = worker.episode().await;
    worker.answer(&episode, vec![fail()]).await;
    let failed = scene.completed("a").await;
    assert!(failed.failure.is_some());
    rewind("a").await.unwrap();
    let view = scene.view("a").await.unwrap();
    assert_eq!(
        (view.status, view.failure, view.completed_at),
        (Status::Running, None, None)
    );
    let episode = worker.episode().await;
    assert_eq!(episode.new_events(), ["started"]);
    let past: Vec<_> = episode.request.past_events.iter().map(kind_of).collect();
    assert!(!past.contains(&"task failed") && past.contains(&"task completed"));
    worker.answer(&episode, vec![complete("")]).await;
    assert_eq!(scene.completed("a").await.status, Status::Completed);
}

use crate::scene::kind as kind_of;

/// S-9.19, S-0.6: a wait begun after a restart never sees the earlier end.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_instance_runs_anew_under_its_own_or_a_new_id() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    finish(&scene, &mut worker, "a").await;
    let first = scene.view("a").await.unwrap();
    let restart = |id, with_new| within(scene.host.restart(scene.hub, id, with_new));
    assert_eq!(restart("a", false).await.unwrap().as_str(), "a");
    assert_eq!(scene.status("a").await, Some(Status::Pending));
    let refused = restart("a", false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    let episode = worker.episode().await;
    worker.answer(&episode, vec![complete("2")]).await;
    let second = scene.completed("a").await;
    assert_eq!(second.output.as_deref(), Some("2"));
    assert!(second.completed_at > first.completed_at);
    let other = restart("a", true).await.unwrap();
    let episode = worker.episode().await;
    assert_eq!(episode.id(), other.as_str());
    assert_eq!(
        scene.view(other.as_str()).await.unwrap().input,
        second.input
    );
}

/// S-11.6, S-11.5.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_missing_instance_goes_on_until_it_has_come_and_ended() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    let (host, hub) = (scene.host.clone(), scene.hub);
    let waiting = tokio::spawn(async move { host.wait_completed(hub, "a", true).await });
    assert!(scene.view("a").await.is_none());
    finish(&scene, &mut worker, "a").await;
    let view = within(waiting).await.unwrap().unwrap();
    assert_eq!(view.status, Status::Completed);
}

/// S-10.3, S-10.5, S-4.16: replacing an active instance voids what is out.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_instance_ignores_what_its_predecessor_had_out() {
    let scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let old = worker.episode().await;
    let taken = scene.create("a", ReusePolicy::default()).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    let policy = ReusePolicy {
        is_given: true,
        replaceable: vec![0, 5, 6],
        ..ReusePolicy::default()
    };
    scene.create("a", policy).await.unwrap();
    let new = worker.episode().await;
    worker.answer(&old, vec![complete("old")]).await;
    worker.answer(&new, vec![complete("new")]).await;
    assert_eq!(scene.completed("a").await.output.as_deref(), Some("new"));
}

/// S-19, CreateTaskHub.
#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_begins_anew_is_empty_and_keeps_streams_and_waits() {
    let mut scene = scene().await;
    let mut worker = scene.worker(PYTHON);
    scene.start("a").await;
    let old = worker.episode().await;
    scene.start("b").await;
    let (host, hub) = (scene.host.clone(), scene.hub);
    let waiting = tokio::spawn(async move { host.wait_completed(hub, "a", true).await });
    worker.episode().await;
    within(scene.host.create_hub("default", false))
        .await
        .unwrap();
    assert!(scene.view("a").await.is_some());
    within(scene.host.create_hub("default", true))
        .await
        .unwrap();
    let stale = scene.host.get(scene.hub, "a", false);
    assert_eq!(
        within(stale).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    scene.hub = scene.host.hub(None).await.unwrap();
    assert!(scene.view("a").await.is_none() && scene.view("b").await.is_none());
    scene.start("a").await;
    let new = worker.episode().await;
    assert_ne!(new.request.execution_id, old.request.execution_id);
    // The worker's calls name the hub, which is another one now.
    let mut again = scene.worker(PYTHON);
    again.answer(&old, vec![complete("old")]).await;
    again.answer(&new, vec![complete("new")]).await;
    let view = within(waiting).await.unwrap().unwrap();
    assert_eq!(view.output.as_deref(), Some("new"));
    within(scene.host.delete_hub("default")).await.unwrap();
    let gone = scene.host.hub(None).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    use futures_util::StreamExt;
    let ended = within(again.items.next()).await;
    // A ping comes first on a stream that was not read before.
    let ended = match ended.unwrap() {
        Ok(_) => within(again.items.next()).await.unwrap(),
        error => error,
    };
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::NotFound);
}

/// S-1.7, S-1.16: callers that give up leave nothing half-done.
#[tokio::test(flavor = "multi_thread")]
async fn hubs_on_demand_are_different_hubs_even_when_callers_give_up() {
    let scene = scene_with(|config| config.dynamic_hubs = true).await;
    for n in 0..20 {
        let name = format!("given-up-{n}");
        let asking = scene.host.hub(Some(&name));
        tokio::time::timeout(Duration::from_micros(n * 20), asking)
            .await
            .ok();
    }
    let mut hubs = Vec::new();
    for n in 0..20 {
        let name = format!("given-up-{n}");
        hubs.push(within(scene.host.hub(Some(&name))).await.unwrap());
        let other = format!("other-{n}");
        hubs.push(within(scene.host.hub(Some(&other))).await.unwrap());
    }
    hubs.sort();
    hubs.dedup();
    assert_eq!(hubs.len(), 40);
}
