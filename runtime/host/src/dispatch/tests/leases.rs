//! Items given back, lost and answered late, and readers that seem dead.

use super::*;

/// S-13.17.
#[tokio::test]
async fn an_item_given_back_goes_to_another_stream_and_then_waits_longer_and_longer() {
    assert_eq!(
        [1, 2, 3, 4, 9, 99].map(|n| back_off(n).as_secs()),
        [0, 1, 2, 4, 60, 60]
    );
    let bench = bench();
    let mut a = bench.open(from(PYTHON, 1));
    bench.schedule(task("g", 1, "A"));
    let (.., token) = activity(&mut a).unwrap();
    let mut b = bench.open(from(PYTHON, 2));
    bench.dispatch.abandon(HUB, WorkKind::Activity, &token);
    assert!(activity(&mut a).is_none());
    let (.., token) = activity(&mut b).unwrap();
    let since = Instant::now();
    bench.dispatch.abandon(HUB, WorkKind::Activity, &token);
    assert!(activity(&mut a).is_none() && activity(&mut b).is_none());
    activity_later(&mut a).await;
    assert!(since.elapsed() >= Duration::from_secs(1));
    // Unknown tokens and another hub's are fine.
    bench.dispatch.abandon(HUB, WorkKind::Activity, "x");
    bench.dispatch.abandon(HubId(9), WorkKind::Activity, &token);
}

/// S-13.17: the only stream that may have it gets it back, whatever else is connected.
#[tokio::test]
async fn an_item_given_back_comes_again_when_no_other_stream_may_have_it() {
    let bench = bench();
    let mut a = bench.open(from(PYTHON, 1));
    let mut other = bench.open(filtered(&[("B", &[])]));
    bench.schedule(task("g", 1, "A"));
    let (.., token) = activity(&mut a).unwrap();
    bench.dispatch.abandon(HUB, WorkKind::Activity, &token);
    assert!(activity(&mut a).is_some());
    assert!(activity(&mut other).is_none());
}

/// S-13.19, S-13.18.
#[tokio::test]
async fn what_a_closed_stream_held_is_kept_for_the_grace_and_an_older_token_is_good_after_it() {
    let bench = bench();
    let mut a = bench.open(from(PYTHON, 1));
    bench.schedule(task("g", 1, "A"));
    bench.schedule(task("g", 2, "A"));
    let (.., first) = activity(&mut a).unwrap();
    let (.., second) = activity(&mut a).unwrap();
    let since = Instant::now();
    drop(a);
    let mut b = bench.open(from(PYTHON, 2));
    assert!(bench.answer(&first), "within the grace");
    let (_, id, third) = activity_later(&mut b).await;
    assert!(since.elapsed() >= Duration::from_millis(100));
    assert_eq!(id, 2);
    assert_ne!(second, third);
    assert!(bench.answer(&second), "an older token of the same activity");
    assert!(!bench.answer(&third), "it has its outcome");
    assert!(!bench.answer(&second));
}

/// S-13.19: orchestrations, too; their older tokens are void (S-13.18).
#[tokio::test]
async fn an_episode_of_a_closed_stream_is_lost_when_the_grace_is_over() {
    let bench = bench();
    let items = bench.open(from(PYTHON, 1));
    let (_, token) = bench.hand_out("a").unwrap();
    let text = token.to_string();
    drop(items);
    assert!(bench.dispatch.find(HUB, "a", &text).is_some());
    assert!(bench.dispatch.find(HubId(2), "a", &text).is_none());
    let (_, told) = until(|| bench.told()).await;
    assert!(
        matches!(told, Input::LeaseLost { token: lost, is_given_back: false, .. } if lost == token)
    );
    assert!(bench.dispatch.find(HUB, "a", &text).is_none());
    assert!(bench.dispatch.lock().streams.is_empty());
}

/// S-13.28.
#[tokio::test]
async fn a_completion_answered_with_an_error_ends_its_lease_at_once_or_after_the_grace() {
    let bench = bench();
    let _items = bench.open(from(PYTHON, 1));
    let (_, token) = bench.hand_out("a").unwrap();
    bench.dispatch.refuse(token, false);
    let lost = |told: Option<(InstanceKey, Input)>, token| matches!(told, Some((_, Input::LeaseLost { token: lost, is_given_back: true, .. })) if lost == token);
    assert!(lost(bench.told(), token));
    let (_, token) = bench.hand_out("a").unwrap();
    bench.dispatch.refuse(token, true);
    assert!(bench.told().is_none());
    assert!(bench.dispatch.find(HUB, "a", &token.to_string()).is_some());
    let told = until(|| bench.told()).await;
    assert!(lost(Some(told), token));
}

/// S-13.28: what cannot be decoded names no lease.
#[tokio::test]
async fn all_streams_of_a_connection_end_when_a_message_of_it_cannot_be_read() {
    let bench = bench();
    let mut bad = bench.open(from(PYTHON, 1));
    bench.schedule(task("g", 1, "A"));
    activity(&mut bad).unwrap();
    let mut good = bench.open(from(PYTHON, 2));
    bench.dispatch.connection_failed(1);
    let ended = bad.next().await.unwrap().unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Unavailable);
    assert!(bad.next().await.is_none());
    assert!(activity(&mut good).is_some());
}

/// S-13.28: the instance could not take the outcome.
#[tokio::test]
async fn an_activity_whose_outcome_cannot_be_taken_is_delivered_again_and_its_token_stays_good() {
    let bench = bench();
    let mut items = bench.open(from(PYTHON, 1));
    bench.schedule(task("g", 1, "A"));
    let (.., token) = activity(&mut items).unwrap();
    let answered = bench.dispatch.take_activity(HUB, "i", 1, &token).unwrap();
    bench.dispatch.restore(answered, true);
    let answered = bench.dispatch.take_activity(HUB, "i", 1, &token).unwrap();
    bench.dispatch.restore(answered, false);
    let (.., again) = activity_later(&mut items).await;
    assert_ne!(again, token);
    assert!(bench.answer(&again));
}

/// S-13.24, S-5.8.
#[tokio::test]
async fn a_stream_whose_lease_ran_out_gets_nothing_until_a_late_answer_comes() {
    let bench = bench();
    let mut items = bench.open(from(PYTHON, 1));
    bench.schedule(task("g", 1, "A"));
    let (.., token) = activity(&mut items).unwrap();
    bench
        .dispatch
        .expire_leases(None, Some(Duration::from_secs(60)));
    bench.dispatch.expire_leases(None, Some(Duration::ZERO));
    bench.schedule(task("g", 2, "B"));
    assert!(activity(&mut items).is_none());
    let mut other = bench.open(from(PYTHON, 2));
    assert_eq!(names(&mut other), ["A", "B"]);
    bench.schedule(task("g", 3, "C"));
    assert_eq!(names(&mut other), ["C"]);
    assert!(bench.answer(&token), "an older token of the same activity");
    bench.schedule(task("g", 4, "D"));
    bench.schedule(task("g", 5, "E"));
    assert!(!names(&mut items).is_empty());
    assert!(bench.dispatch.lock().expired.is_empty());
}

/// S-13.24, S-13.19.
#[tokio::test]
async fn a_stale_answer_to_an_expired_episode_wakes_its_stream() {
    let bench = bench();
    let _items = bench.open(from(PYTHON, 1));
    let (_, token) = bench.hand_out("a").unwrap();
    bench.dispatch.expire_leases(Some(Duration::ZERO), None);
    assert!(matches!(
        bench.told(),
        Some((
            _,
            Input::LeaseLost {
                is_given_back: false,
                ..
            }
        ))
    ));
    assert!(bench.hand_out("a").is_none());
    assert!(bench.dispatch.find(HUB, "a", &token.to_string()).is_none());
    assert!(matches!(bench.told(), Some((_, Input::Granted(_)))));
}

/// S-13.24: a Java reader thread can die with its stream open.
#[tokio::test]
async fn an_older_java_stream_of_the_connection_is_left_alone_once_the_later_one_answers() {
    let bench = bench();
    let mut dead = bench.open(from(JAVA, 1));
    bench.schedule(task("g", 1, "A"));
    activity(&mut dead).unwrap();
    let mut later = bench.open(from(JAVA, 1));
    let mut apart = bench.open(from(JAVA, 2));
    bench.schedule(task("g", 2, "B"));
    bench.schedule(task("g", 3, "C"));
    let (.., token) = activity(&mut later).unwrap();
    activity(&mut apart).unwrap();
    let since = Instant::now();
    assert!(bench.answer(&token));
    for id in 4..8 {
        bench.schedule(task("g", id, "D"));
    }
    assert!(
        activity(&mut dead).is_none(),
        "nothing more is dispatched to it"
    );
    assert_eq!(names(&mut later).len() + names(&mut apart).len(), 4);
    let ids = until(|| {
        let again = activity(&mut later).or_else(|| activity(&mut apart))?;
        Some(again.1)
    });
    assert_eq!(ids.await, 1, "what it holds is delivered elsewhere");
    assert!(since.elapsed() < Duration::from_secs(5));
}

/// S-13.24: all other peers' streams are independent.
#[tokio::test]
async fn two_python_streams_of_one_connection_are_independent() {
    let bench = bench();
    let mut a = bench.open(from(PYTHON, 1));
    bench.schedule(task("g", 1, "A"));
    activity(&mut a).unwrap();
    let mut b = bench.open(from(PYTHON, 1));
    bench.schedule(task("g", 2, "A"));
    let (.., token) = activity(&mut b).unwrap();
    assert!(bench.answer(&token));
    let state = bench.dispatch.lock();
    assert!(state.streams.values().all(|s| !s.is_silent));
}

/// S-13.25.
#[tokio::test]
async fn an_error_to_a_java_worker_ends_the_stream_that_holds_the_lease_and_no_other() {
    let bench = bench();
    let mut a = bench.open(from(JAVA, 1));
    let (_, token) = bench.hand_out("a").unwrap();
    take(&mut a);
    let mut b = bench.open(from(JAVA, 1));
    bench.dispatch.refuse(token, true);
    assert!(a.next().await.unwrap().is_err());
    assert!(take(&mut b).is_none());
    assert!(matches!(
        bench.told(),
        Some((
            _,
            Input::LeaseLost {
                is_given_back: true,
                ..
            }
        ))
    ));
    assert_eq!(bench.dispatch.lock().streams.len(), 1);
}
