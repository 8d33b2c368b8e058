//! Critical sections: how they are entered, what happens meanwhile, and how they are left.

use std::time::Duration;

use mainspring_proto::history_event::EventType;
use mainspring_proto::send_entity_message_action::EntityMessageType;
use mainspring_proto::{
    EntityQuery, EntityUnlockSentEvent, InstanceBatch, OrchestrationStatus,
    SkipGracefulOrchestrationTerminationsRequest, SuspendRequest,
};
use mainspring_tests::action::{call, complete, entity_message, lock, signal, unlock};
use mainspring_tests::entity::{completed, fresh_guid, success};
use mainspring_tests::{Peer, WorkStream, kinds};

use crate::hands::{
    ask, create, ends_as, entities, granted, orchestrations, stage, stage_without_entities, start,
};

const A: &str = "@counter@a";
const B: &str = "@counter@b";

/// Gives both entities a state, so that clients see who locks them.
async fn create_both(peer: &Peer, stream: &mut WorkStream) {
    for entity in [A, B] {
        create(peer, stream, entity).await;
    }
}

/// Who locks both entities.
async fn holders(peer: &Peer) -> (Option<String>, Option<String>) {
    (peer.locked_by(A).await, peer.locked_by(B).await)
}

fn by(id: &str) -> Option<String> {
    Some(id.to_owned())
}

#[tokio::test]
async fn a_section_over_two_entities_is_entered_used_and_left() {
    // S-12.45, S-12.25, S-12.35, S-12.36.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    ask(&peer, &mut orchestrations, "o", &[B, A]).await;
    let episode = granted(&mut orchestrations, "o").await;
    assert_eq!(holders(&peer).await, (by("o"), by("o")));

    // Others wait, and the holder overtakes them.
    peer.signal(A, "waits", "").await;
    stream.nothing_for(Duration::from_millis(100)).await;
    let id = fresh_guid();
    peer.answer(&episode, vec![call(2, &id, A, "held", "")])
        .await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["held"]);
    peer.settle(&batch, vec![success("1")], Some("1")).await;
    let episode = orchestrations.episode().await;
    assert_eq!(
        completed(&episode.request.new_events[1]),
        (id.as_str(), Some("1"))
    );
    stream.nothing_for(Duration::from_millis(100)).await;

    let ending = vec![
        unlock(3, "o", "o", A),
        unlock(4, "o", "o", B),
        complete(5, "1"),
    ];
    peer.answer(&episode, ending).await;
    let batch = stream.batch().await;
    assert_eq!(
        (batch.names(), batch.state()),
        (vec!["waits".to_owned()], Some("1"))
    );
    peer.settle(&batch, vec![success("2")], Some("2")).await;
    ends_as(&peer, "o", OrchestrationStatus::Completed).await;
    assert_eq!(holders(&peer).await, (None, None));
    let history = peer.history("o").await;
    assert_eq!(
        kinds(&history),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "EntityLockRequested",
            "OrchestratorStarted",
            "EntityLockGranted",
            "EntityOperationCalled",
            "OrchestratorStarted",
            "EntityOperationCompleted",
            "EntityUnlockSent",
            "EntityUnlockSent",
            "ExecutionCompleted"
        ]
    );
    let ids: Vec<i32> = history.iter().map(|event| event.event_id).collect();
    assert_eq!(ids, [-1, 0, 1, -1, -1, 2, -1, -1, 3, 4, 5]);
    let Some(EventType::EntityLockRequested(request)) = &history[2].event_type else {
        unreachable!("its kind was compared");
    };
    assert_eq!(request.lock_set, [B, A], "as it was sent");
}

#[tokio::test]
async fn locks_need_neither_a_worker_nor_a_state() {
    // S-12.27: they are visible to those who ask for entities without a state (S-12.39).
    let (_scheduler, peer, mut orchestrations) = stage_without_entities().await;
    ask(&peer, &mut orchestrations, "o", &[A]).await;
    let episode = granted(&mut orchestrations, "o").await;
    assert_eq!(peer.find_entity(A).await, None);
    let everything = EntityQuery {
        include_transient: true,
        ..Default::default()
    };
    let page = peer.query_entities(everything.clone()).await.unwrap();
    assert_eq!(page.entities.len(), 1);
    assert_eq!(page.entities[0].locked_by.as_deref(), Some("o"));
    peer.answer(&episode, vec![unlock(2, "o", "o", A), complete(3, "1")])
        .await;
    ends_as(&peer, "o", OrchestrationStatus::Completed).await;
    let page = peer.query_entities(everything).await.unwrap();
    assert!(
        page.entities
            .iter()
            .all(|entity| entity.locked_by.is_none())
    );
}

#[tokio::test]
async fn whoever_waits_goes_on_in_order_when_the_lock_is_given_back() {
    // S-12.46, S-12.24, S-12.31.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    ask(&peer, &mut orchestrations, "o1", &[A]).await;
    let first = granted(&mut orchestrations, "o1").await;
    peer.signal(A, "s1", "").await;
    ask(&peer, &mut orchestrations, "o2", &[A]).await;
    start(&peer, "o3").await;
    let caller = orchestrations.episode().await;
    peer.answer(&caller, vec![call(1, &fresh_guid(), A, "g8", "")])
        .await;
    assert_eq!(
        peer.find_entity(A).await.unwrap().backlog_queue_size,
        2,
        "operations that wait; a lock request is none"
    );
    peer.answer(&first, vec![call(2, &fresh_guid(), A, "g9", "")])
        .await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["g9"]);
    peer.settle(&batch, vec![success("")], Some("1")).await;
    let first = orchestrations.episode().await;
    peer.answer(&first, vec![unlock(3, "o1", "o1", A), complete(4, "1")])
        .await;

    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["s1"]);
    peer.settle(&batch, vec![success("")], Some("2")).await;
    let second = granted(&mut orchestrations, "o2").await;
    assert_eq!(peer.locked_by(A).await, by("o2"));
    stream.nothing_for(Duration::from_millis(100)).await;
    peer.answer(&second, vec![unlock(2, "o2", "o2", A), complete(3, "1")])
        .await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["g8"]);
    peer.settle(&batch, vec![success("")], Some("3")).await;
    let answered = orchestrations.episode().await;
    assert_eq!(answered.request.instance_id, "o3");
}

#[tokio::test]
async fn an_entity_is_locked_only_when_its_batch_is_answered() {
    // S-12.27: at the head of an unlocked and idle entity.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    peer.signal(A, "set", "0").await;
    let batch = stream.batch().await;
    ask(&peer, &mut orchestrations, "o", &[A]).await;
    orchestrations.nothing_for(Duration::from_millis(150)).await;
    peer.settle(&batch, vec![success("0")], Some("0")).await;
    granted(&mut orchestrations, "o").await;
}

#[tokio::test]
async fn a_set_that_names_an_entity_twice_is_granted_once_and_given_back_once() {
    // S-12.26: Java sends duplicates, and gives back as often as it named.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    ask(&peer, &mut orchestrations, "o", &[A, "@Counter@a", B, A]).await;
    let episode = granted(&mut orchestrations, "o").await;
    let actions = vec![
        unlock(2, "o", "o", A),
        unlock(3, "o", "o", "@COUNTER@a"),
        unlock(4, "o", "o", B),
        unlock(5, "o", "o", A),
        call(6, &fresh_guid(), A, "free", ""),
    ];
    peer.answer(&episode, actions).await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["free"]);
    assert_eq!(holders(&peer).await, (None, None));
    peer.settle(&batch, vec![success("")], Some("1")).await;
    let episode = orchestrations.episode().await;
    assert_eq!(
        kinds(&episode.request.past_events)[5..9],
        ["EntityUnlockSent"; 4],
        "one confirmation for each action (S-12.35)"
    );
}

#[tokio::test]
async fn a_request_that_is_sent_twice_does_not_queue_twice() {
    // S-12.34.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    start(&peer, "o").await;
    let episode = orchestrations.episode().await;
    let twice = vec![lock(1, "o", "o", &[A, B]), lock(2, "o", "o", &[A, B])];
    peer.answer(&episode, twice).await;
    let episode = granted(&mut orchestrations, "o").await;
    let ending = vec![unlock(3, "o", "o", A), unlock(4, "o", "o", B)];
    peer.answer(&episode, ending).await;
    orchestrations.nothing_for(Duration::from_millis(100)).await;
    assert_eq!(holders(&peer).await, (None, None));
    peer.signal(A, "free", "").await;
    assert_eq!(stream.batch().await.names(), ["free"]);
}

#[tokio::test]
async fn only_the_holder_gives_a_lock_back_and_only_by_its_section() {
    // S-12.30: everything else is ignored, and giving back twice is no error.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    ask(&peer, &mut orchestrations, "o", &[A]).await;
    let episode = granted(&mut orchestrations, "o").await;
    start(&peer, "thief").await;
    let thief = orchestrations.episode().await;
    let theft = vec![unlock(1, "thief", "o", A), unlock(2, "o", "o", A)];
    peer.answer(&thief, theft).await;
    peer.answer(&episode, vec![unlock(2, "o", "another section", A)])
        .await;
    peer.signal(A, "waits", "").await;
    stream.nothing_for(Duration::from_millis(100)).await;
    assert_eq!(peer.locked_by(A).await, by("o"));
    assert_eq!(peer.locked_by(B).await, None);
    orchestrations.nothing_for(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn an_unlock_takes_effect_behind_what_the_holder_asked_for_before() {
    // S-12.30, S-12.29: Java signals what it holds. Who the parent is, the server knows itself.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    ask(&peer, &mut orchestrations, "o", &[A]).await;
    let episode = granted(&mut orchestrations, "o").await;
    peer.signal(A, "client", "").await;
    let gives_back = EntityUnlockSentEvent {
        critical_section_id: "o".to_owned(),
        parent_instance_id: None,
        target_instance_id: Some(A.to_owned()),
    };
    let actions = vec![
        signal(2, &fresh_guid(), A, "held 1", "", None),
        call(3, &fresh_guid(), A, "held 2", ""),
        entity_message(4, EntityMessageType::EntityUnlockSent(gives_back)),
        signal(5, &fresh_guid(), A, "after", "", None),
        complete(6, "1"),
    ];
    peer.answer(&episode, actions).await;
    let mut names = Vec::new();
    while names.len() < 4 {
        let batch = stream.batch().await;
        let results = batch.names().iter().map(|name| success(name)).collect();
        peer.settle(&batch, results, Some("1")).await;
        names.extend(batch.names());
    }
    assert_eq!(names, ["held 1", "held 2", "client", "after"]);
    assert_eq!(peer.locked_by(A).await, None);
}

#[tokio::test]
async fn one_orchestration_enters_one_section_after_the_other() {
    // S-12.27: what it sent to an entity before it asked for the lock is executed before.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    start(&peer, "o").await;
    let mut episode = orchestrations.episode().await;
    for round in 0..5 {
        let section = format!("section {round}");
        let id = round * 10;
        let actions = vec![
            signal(id + 1, &fresh_guid(), A, "before", "", None),
            lock(id + 2, "o", &section, &[A, B]),
        ];
        peer.answer(&episode, actions).await;
        let batch = stream.batch().await;
        assert_eq!(batch.names(), ["before"]);
        peer.settle(&batch, vec![success("")], Some("1")).await;
        episode = orchestrations.episode().await;
        assert_eq!(
            episode.new_kinds(),
            ["OrchestratorStarted", "EntityLockGranted"]
        );
        let actions = vec![
            unlock(id + 3, "o", &section, A),
            unlock(id + 4, "o", &section, B),
            call(id + 5, &fresh_guid(), B, "after", ""),
        ];
        peer.answer(&episode, actions).await;
        let batch = stream.batch().await;
        assert_eq!(batch.names(), ["after"]);
        peer.settle(&batch, vec![success("")], Some("1")).await;
        episode = orchestrations.episode().await;
    }
    peer.answer(&episode, vec![complete(100, "1")]).await;
    ends_as(&peer, "o", OrchestrationStatus::Completed).await;
}

#[tokio::test]
async fn suspension_keeps_locks_and_holds_back_no_operation_of_the_holder() {
    // S-12.33, S-9.3.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    ask(&peer, &mut orchestrations, "o", &[A]).await;
    let episode = granted(&mut orchestrations, "o").await;
    let suspend = SuspendRequest {
        instance_id: "o".to_owned(),
        reason: None,
    };
    peer.client().suspend_instance(suspend).await.unwrap();
    peer.answer(&episode, vec![call(2, &fresh_guid(), A, "held", "")])
        .await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("1")], Some("1")).await;
    assert_eq!(peer.locked_by(A).await, by("o"));
    peer.signal(A, "waits", "").await;
    stream.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn locks_and_those_who_wait_for_them_survive_a_crash() {
    // S-12.27, S-0.2.
    let (mut scheduler, peer, mut orchestrations_before, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    ask(&peer, &mut orchestrations_before, "o1", &[A, B]).await;
    granted(&mut orchestrations_before, "o1").await;
    ask(&peer, &mut orchestrations_before, "o2", &[B, A]).await;
    peer.signal(B, "waits", "").await;
    scheduler.kill();
    scheduler.restart();

    let peer = Peer::connect(&scheduler).await;
    assert_eq!(holders(&peer).await, (by("o1"), by("o1")));
    let mut stream = entities(&peer).await;
    let mut orchestrations = orchestrations(&peer).await;
    let episode = granted(&mut orchestrations, "o1").await;
    let ending = vec![
        unlock(2, "o1", "o1", A),
        unlock(3, "o1", "o1", B),
        complete(4, "1"),
    ];
    peer.answer(&episode, ending).await;
    // The signal to B is older than the request that comes to B only now.
    let batch = stream.batch().await;
    assert_eq!(
        (batch.entity(), batch.names()),
        (B, vec!["waits".to_owned()])
    );
    peer.settle(&batch, vec![success("")], Some("1")).await;
    granted(&mut orchestrations, "o2").await;
    assert_eq!(holders(&peer).await, (by("o2"), by("o2")));
}

#[tokio::test]
async fn instances_that_hold_locks_are_left_alone_where_ends_are_not_graceful() {
    // S-9.11.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    create_both(&peer, &mut stream).await;
    ask(&peer, &mut orchestrations, "holder", &[A]).await;
    granted(&mut orchestrations, "holder").await;
    start(&peer, "free").await;
    orchestrations.episode().await;
    let request = SkipGracefulOrchestrationTerminationsRequest {
        instance_batch: Some(InstanceBatch {
            instance_ids: ["holder", "free", A].map(str::to_owned).to_vec(),
        }),
        reason: None,
    };
    let response = peer
        .client()
        .skip_graceful_orchestration_terminations(request)
        .await
        .unwrap()
        .into_inner();
    let mut untouched = response.unterminated_instance_ids;
    untouched.sort();
    assert_eq!(untouched, [A, "holder"]);
    ends_as(&peer, "free", OrchestrationStatus::Terminated).await;
    assert_eq!(
        peer.get("holder").await.orchestration_status(),
        OrchestrationStatus::Running
    );
    assert_eq!(peer.locked_by(A).await, by("holder"));
}
