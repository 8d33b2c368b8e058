//! Peers that answer without tokens.

use super::*;

/// S-4.5.
#[tokio::test]
async fn an_answer_without_a_token_is_found_by_instance_and_task() {
    let bench = bench();
    let mut go = bench.open(from(GO, 1));
    assert!(bench.dispatch.find(HUB, "a", "").is_none());
    let (_, token) = bench.hand_out("a").unwrap();
    let (found, leased) = bench.dispatch.find(HUB, "a", "").unwrap();
    assert!(found == key("a") && leased == token);
    take(&mut go);
    bench.schedule(task("g", 4, "A"));
    assert!(bench.answer_named(5).is_none());
    assert!(bench.answer_named(4).is_some());
    assert!(bench.answer_named(4).is_none());
}

/// S-4.5, S-4.17: a peer that nothing marks is known by its first answer.
#[tokio::test]
async fn a_peer_that_answers_without_a_token_is_known_for_it_from_then_on() {
    let bench = bench();
    let _items = bench.open(from("unheard-of", 1));
    let granted = bench
        .dispatch
        .offer(&key("a"), &class("O"), None, None)
        .unwrap();
    assert!(!granted.is_without_tokens);
    bench.lease("a", granted);
    let (_, token) = bench.dispatch.find(HUB, "a", "").unwrap();
    bench.dispatch.answered(token);
    let granted = bench
        .dispatch
        .offer(&key("a"), &class("O"), None, None)
        .unwrap();
    assert!(granted.is_without_tokens);
}

/// S-5.10.
#[tokio::test]
async fn a_second_activity_of_the_same_name_waits_until_the_first_has_its_outcome() {
    let bench = bench();
    let mut go = bench.open(from(GO, 1));
    bench.schedule(task("old", 1, "A"));
    bench.schedule(task("new", 1, "B"));
    bench.schedule(task("new", 2, "C"));
    assert_eq!(names(&mut go), ["A", "C"]);
    assert_eq!(bench.answer_named(1).unwrap().as_str(), "old");
    assert_eq!(names(&mut go), ["B"]);
    assert_eq!(bench.answer_named(1).unwrap().as_str(), "new");
    assert!(bench.dispatch.lock().held_back.is_empty());
    assert!(bench.dispatch.lock().unnamed.keys().all(|(_, id)| *id == 2));
}

/// S-5.10: also across a lost lease, and for peers with tokens not at all.
#[tokio::test]
async fn the_name_stays_taken_when_the_lease_is_lost() {
    let bench = bench();
    let mut go = bench.open(from(GO, 1));
    bench.schedule(task("old", 1, "A"));
    assert_eq!(names(&mut go), ["A"]);
    drop(go);
    let mut go = bench.open(from(GO, 2));
    bench.schedule(task("new", 1, "B"));
    assert!(activity(&mut go).is_none());
    assert_eq!(activity_later(&mut go).await.0, "A");
    let mut python = bench.open(from(PYTHON, 3));
    bench.schedule(task("newer", 1, "D"));
    // Only a peer with tokens can tell them apart; the other's turn has not come.
    let got: Vec<_> = names(&mut python)
        .into_iter()
        .chain(names(&mut go))
        .collect();
    assert!(got.is_empty() || got == ["D"], "{got:?}");
    assert_eq!(bench.answer_named(1).unwrap().as_str(), "old");
}

/// S-5.10: after a restart nobody knows who has what.
#[tokio::test]
async fn after_a_restart_the_older_activity_of_a_name_comes_first() {
    let bench = bench();
    bench
        .dispatch
        .schedule(key("i"), task("old", 1, "Java"), true);
    bench
        .dispatch
        .schedule(key("i"), task("new", 1, "Go"), true);
    let mut go = bench.open(StreamOptions {
        filters: filtered(&[("Go", &[])]).filters,
        ..from(GO, 1)
    });
    assert!(activity(&mut go).is_none());
    let mut python = bench.open(from(PYTHON, 2));
    let (name, _, token) = activity(&mut python).unwrap();
    assert_eq!(name, "Java");
    assert!(bench.answer(&token));
    assert!(names(&mut go).iter().chain(&names(&mut python)).eq(["Go"]));
}

/// S-4.16: a late answer to a void episode must not be taken for that of the next one.
#[tokio::test]
async fn after_a_void_episode_the_next_waits_for_the_answer_of_a_peer_without_tokens() {
    let bench = bench();
    let _go = bench.open(from(GO, 1));
    let (_, token) = bench.hand_out("a").unwrap();
    bench.dispatch.fence(&key("a"), token);
    assert!(bench.hand_out("a").is_none());
    assert!(bench.hand_out("b").is_some(), "others do not wait");
    assert!(bench.dispatch.find(HUB, "a", "").is_none(), "ignored");
    let (granted, input) = bench.told().unwrap();
    assert!(granted == key("a") && matches!(input, Input::Granted(_)));
}

/// S-4.16: or until its stream ended a grace ago.
#[tokio::test]
async fn the_next_episode_waits_no_longer_than_the_grace_after_the_stream_ended() {
    let bench = bench();
    let go = bench.open(from(GO, 1));
    let (_, token) = bench.hand_out("a").unwrap();
    bench.dispatch.fence(&key("a"), token);
    assert!(bench.hand_out("a").is_none());
    let since = Instant::now();
    drop(go);
    let _python = bench.open(from(PYTHON, 2));
    let (_, told) = until(|| bench.told()).await;
    assert!(matches!(told, Input::Granted(_)));
    assert!(since.elapsed() >= Duration::from_millis(100));
    let state = bench.dispatch.lock();
    assert!(state.fenced.is_empty() && state.streams.len() == 1);
}

/// S-4.16: peers with tokens are told apart by them.
#[tokio::test]
async fn with_tokens_the_next_episode_goes_out_at_once() {
    let bench = bench();
    let _python = bench.open(from(PYTHON, 1));
    let (_, token) = bench.hand_out("a").unwrap();
    bench.dispatch.fence(&key("a"), token);
    assert!(bench.hand_out("a").is_some());
}
