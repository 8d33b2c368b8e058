//! Locks whose holder ends, in whatever way, and requests whose sender does not live to see them met.

use std::time::Duration;

use mainspring_proto::{
    CreateInstanceRequest, OrchestrationIdReusePolicy, OrchestrationStatus, OrchestratorAction,
    RewindInstanceRequest,
};
use mainspring_tests::action::{call, complete, continue_as_new, ends, fail, lock, unlock};
use mainspring_tests::entity::{fresh_guid, success};
use mainspring_tests::{Episode, Peer, WorkStream};
use tonic::Code;

use crate::hands::{ORCHESTRATOR, ask, create, ends_as, granted, stage, start, terminate};

const A: &str = "@counter@a";
const B: &str = "@counter@b";

/// An orchestration that holds both entities, one that waits for them, and operations that wait at both.
async fn contended(
    peer: &Peer,
    orchestrations: &mut WorkStream,
    stream: &mut WorkStream,
    holder: &str,
) -> Episode {
    for entity in [A, B] {
        create(peer, stream, entity).await;
    }
    ask(peer, orchestrations, holder, &[A, B]).await;
    let episode = granted(orchestrations, holder).await;
    for entity in [A, B] {
        peer.signal(entity, "waits", "").await;
    }
    ask(peer, orchestrations, "waiter", &[B, A]).await;
    stream.nothing_for(Duration::from_millis(50)).await;
    episode
}

/// Both locks are free of the holder: what waits at both goes on, in order.
async fn is_released(peer: &Peer, orchestrations: &mut WorkStream, stream: &mut WorkStream) {
    for _ in [A, B] {
        let batch = stream.batch().await;
        assert_eq!(batch.names(), ["waits"]);
        peer.settle(&batch, vec![success("")], Some("1")).await;
    }
    granted(orchestrations, "waiter").await;
    for entity in [A, B] {
        assert_eq!(peer.locked_by(entity).await.as_deref(), Some("waiter"));
    }
}

/// Ends the holder by its own answer.
async fn ends_by(actions: Vec<OrchestratorAction>, status: OrchestrationStatus) {
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let episode = contended(&peer, &mut orchestrations, &mut stream, "o").await;
    peer.answer(&episode, actions).await;
    // S-12.32: cleared before anybody who waits for the instance is answered.
    ends_as(&peer, "o", status).await;
    for entity in [A, B] {
        assert_ne!(peer.locked_by(entity).await.as_deref(), Some("o"));
    }
    is_released(&peer, &mut orchestrations, &mut stream).await;
}

#[tokio::test]
async fn locks_go_when_their_holder_completes() {
    // S-12.32: with the SDK's own unlocks, some of them, or none.
    ends_by(vec![complete(2, "1")], OrchestrationStatus::Completed).await;
    let unlocks = vec![
        complete(2, "1"),
        unlock(2, "o", "o", A),
        unlock(2, "o", "o", B),
    ];
    ends_by(unlocks, OrchestrationStatus::Completed).await;
    let one = vec![unlock(2, "o", "o", B), complete(3, "1")];
    ends_by(one, OrchestrationStatus::Completed).await;
}

#[tokio::test]
async fn locks_go_when_their_holder_fails_or_ends_itself_otherwise() {
    // S-12.32.
    ends_by(vec![fail(2, "on purpose")], OrchestrationStatus::Failed).await;
    for status in [
        OrchestrationStatus::Terminated,
        OrchestrationStatus::Canceled,
    ] {
        ends_by(vec![ends(2, status, None, None)], status).await;
    }
}

#[tokio::test]
async fn locks_go_when_their_holder_is_terminated_with_an_episode_in_hand() {
    // S-12.32, S-9.7.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let episode = contended(&peer, &mut orchestrations, &mut stream, "o").await;
    terminate(&peer, "o").await;
    for entity in [A, B] {
        assert_ne!(peer.locked_by(entity).await.as_deref(), Some("o"));
    }
    // What the fenced episode answers is ignored (S-4.16): no operation, and no unlock of somebody else's lock.
    let late = vec![
        call(2, &fresh_guid(), A, "late", ""),
        unlock(3, "o", "o", A),
        unlock(4, "o", "waiter", A),
    ];
    peer.answer(&episode, late).await;
    is_released(&peer, &mut orchestrations, &mut stream).await;
    stream.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn locks_go_when_their_holder_continues_as_new_and_the_next_generation_can_have_them_again() {
    // S-12.32, S-12.28: only the current generation holds locks.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let episode = contended(&peer, &mut orchestrations, &mut stream, "o").await;
    peer.answer(&episode, vec![continue_as_new(2, "1")]).await;
    // The waiter's section and the next generation come in any order.
    for _ in [A, B] {
        let batch = stream.batch().await;
        assert_eq!(batch.names(), ["waits"]);
        peer.settle(&batch, vec![success("")], Some("1")).await;
    }
    let (mut waiter, mut next) = (None, None);
    while waiter.is_none() || next.is_none() {
        let episode = orchestrations.episode().await;
        match episode.request.instance_id.as_str() {
            "waiter" => waiter = Some(episode),
            _ => next = Some(episode),
        }
    }
    assert_eq!(peer.locked_by(A).await.as_deref(), Some("waiter"));
    let again = vec![lock(1, "o", "o", &[A])];
    peer.answer(&next.unwrap(), again).await;
    orchestrations.nothing_for(Duration::from_millis(100)).await;
    peer.answer(&waiter.unwrap(), vec![complete(2, "1")]).await;
    granted(&mut orchestrations, "o").await;
    assert_eq!(peer.locked_by(A).await.as_deref(), Some("o"));
    assert_eq!(peer.locked_by(B).await, None);
}

#[tokio::test]
async fn locks_go_when_their_holder_is_replaced() {
    // S-12.32, S-10.5.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    contended(&peer, &mut orchestrations, &mut stream, "o").await;
    let replace = CreateInstanceRequest {
        name: ORCHESTRATOR.to_owned(),
        instance_id: "o".to_owned(),
        orchestration_id_reuse_policy: Some(OrchestrationIdReusePolicy {
            replaceable_status: (0..8).filter(|status| *status != 2).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    peer.create(replace).await.unwrap();
    let replacement = orchestrations.episode().await;
    assert_eq!(replacement.request.instance_id, "o");
    is_released(&peer, &mut orchestrations, &mut stream).await;
}

#[tokio::test]
async fn locks_do_not_come_back_by_a_rewind() {
    // S-9.16: refused where a lock was granted and not given back.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let episode = contended(&peer, &mut orchestrations, &mut stream, "o").await;
    peer.answer(&episode, vec![fail(2, "on purpose")]).await;
    ends_as(&peer, "o", OrchestrationStatus::Failed).await;
    let rewind = RewindInstanceRequest {
        instance_id: "o".to_owned(),
        reason: None,
    };
    let refused = peer.client().rewind_instance(rewind).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    is_released(&peer, &mut orchestrations, &mut stream).await;
}

#[tokio::test]
async fn locks_that_were_asked_for_together_with_the_end_are_not_kept() {
    // S-4.1, S-12.28: all actions count, the completion last.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create(&peer, &mut stream, A).await;
    start(&peer, "o").await;
    let episode = orchestrations.episode().await;
    peer.answer(&episode, vec![complete(2, "1"), lock(1, "o", "o", &[A, B])])
        .await;
    ends_as(&peer, "o", OrchestrationStatus::Completed).await;
    peer.signal(A, "free", "").await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["free"]);
    peer.settle(&batch, vec![success("")], Some("1")).await;
    ask(&peer, &mut orchestrations, "other", &[A, B]).await;
    granted(&mut orchestrations, "other").await;
}

#[tokio::test]
async fn a_lock_that_was_given_back_too_early_goes_with_its_holder_all_the_same() {
    // S-12.30: an unlock that comes before its lock is ignored. S-12.32: the lock that came after it must not stay for ever.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    for entity in [A, B] {
        create(&peer, &mut stream, entity).await;
    }
    start(&peer, "o").await;
    let episode = orchestrations.episode().await;
    // B is locked after A, and so after it was given back.
    let actions = vec![lock(1, "o", "o", &[A, B]), unlock(2, "o", "o", B)];
    peer.answer(&episode, actions).await;
    let episode = granted(&mut orchestrations, "o").await;
    peer.answer(&episode, vec![complete(3, "1")]).await;
    ends_as(&peer, "o", OrchestrationStatus::Completed).await;
    for entity in [A, B] {
        assert_eq!(peer.locked_by(entity).await, None, "{entity}");
    }
}

#[tokio::test]
async fn all_locks_of_two_requests_under_one_name_go_with_their_holder() {
    // S-12.32: names of critical sections are the worker's own, and nothing says that it uses each once.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    for entity in [A, B] {
        create(&peer, &mut stream, entity).await;
    }
    start(&peer, "o").await;
    let episode = orchestrations.episode().await;
    let actions = vec![lock(1, "o", "o", &[A]), lock(2, "o", "o", &[B])];
    peer.answer(&episode, actions).await;
    let episode = orchestrations.episode().await;
    assert_eq!(peer.locked_by(A).await.as_deref(), Some("o"));
    peer.answer(&episode, Vec::new()).await;
    terminate(&peer, "o").await;
    for entity in [A, B] {
        assert_eq!(peer.locked_by(entity).await, None, "{entity}");
    }
}

#[tokio::test]
async fn a_request_whose_sender_has_ended_locks_nothing_when_it_is_met() {
    // S-12.28, S-12.47: what it holds already is free, and its place in a queue is gone.
    for by_continuing in [false, true] {
        let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
        for entity in [A, B] {
            create(&peer, &mut stream, entity).await;
        }
        ask(&peer, &mut orchestrations, "holder", &[B]).await;
        let holder = granted(&mut orchestrations, "holder").await;
        start(&peer, "o").await;
        let episode = orchestrations.episode().await;
        if by_continuing {
            let actions = vec![lock(1, "o", "o", &[A, B]), continue_as_new(2, "1")];
            peer.answer(&episode, actions).await;
            orchestrations.episode().await;
        } else {
            peer.answer(&episode, vec![lock(1, "o", "o", &[A, B])])
                .await;
            orchestrations.nothing_for(Duration::from_millis(50)).await;
            assert_eq!(peer.locked_by(A).await.as_deref(), Some("o"));
            terminate(&peer, "o").await;
        }
        assert_eq!(peer.locked_by(A).await, None);
        peer.signal(A, "free", "").await;
        let batch = stream.batch().await;
        assert_eq!(
            (batch.entity(), batch.names()),
            (A, vec!["free".to_owned()])
        );
        peer.settle(&batch, vec![success("")], Some("1")).await;

        // Those behind the void request at B come next.
        ask(&peer, &mut orchestrations, "behind", &[B]).await;
        peer.signal(B, "waits", "").await;
        let ending = vec![unlock(2, "holder", "holder", B), complete(3, "1")];
        peer.answer(&holder, ending).await;
        let behind = granted(&mut orchestrations, "behind").await;
        assert_eq!(peer.locked_by(B).await.as_deref(), Some("behind"));
        peer.answer(&behind, vec![complete(2, "1")]).await;
        let batch = stream.batch().await;
        assert_eq!(
            (batch.entity(), batch.names()),
            (B, vec!["waits".to_owned()])
        );
        peer.settle(&batch, vec![success("")], Some("1")).await;
        assert_eq!(peer.locked_by(B).await, None);
    }
}

#[tokio::test]
async fn a_call_of_a_dead_holder_that_is_under_way_finishes_and_is_answered_to_nobody() {
    // S-12.47, S-12.52.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create(&peer, &mut stream, A).await;
    ask(&peer, &mut orchestrations, "o", &[A]).await;
    let episode = granted(&mut orchestrations, "o").await;
    peer.answer(&episode, vec![call(2, &fresh_guid(), A, "held", "")])
        .await;
    let under_way = stream.batch().await;
    peer.signal(A, "waits", "").await;
    terminate(&peer, "o").await;
    stream.nothing_for(Duration::from_millis(100)).await;
    peer.settle(&under_way, vec![success("")], Some("held"))
        .await;
    let batch = stream.batch().await;
    assert_eq!(
        (batch.names(), batch.state()),
        (vec!["waits".to_owned()], Some("held"))
    );
    assert_eq!(peer.locked_by(A).await, None);
    orchestrations.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn locks_of_a_holder_that_ended_just_before_a_crash_are_free_after_it() {
    // S-12.32: the release is part of the transaction that ends the holder.
    let (mut scheduler, peer, mut orchestrations, mut stream) = stage().await;
    contended(&peer, &mut orchestrations, &mut stream, "o").await;
    terminate(&peer, "o").await;
    scheduler.kill();
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = crate::hands::entities(&peer).await;
    let mut orchestrations = crate::hands::orchestrations(&peer).await;
    is_released(&peer, &mut orchestrations, &mut stream).await;
}
