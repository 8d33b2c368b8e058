//! Calls and signals of orchestrations, and the way of their outcomes.

use std::collections::BTreeMap;
use std::time::Duration;

use mainspring_proto::history_event::EventType;
use mainspring_proto::{
    OrchestrationStatus, RewindInstanceRequest, SuspendRequest, TaskFailureDetails,
};
use mainspring_tests::action::{call, complete, continue_as_new, fail, lock, signal};
use mainspring_tests::entity::{
    called, completed, failed, failure, failure_with, fresh_guid, success,
};
use mainspring_tests::kinds;

use crate::hands::{ends_as, entities, stage, stage_without_entities, start, terminate};

#[tokio::test]
async fn a_call_is_confirmed_executed_and_answered() {
    // S-12.42, S-12.21, S-3.7, S-4.11: the server says who calls, for .NET leaves it out.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let id = fresh_guid();
    peer.answer(&first, vec![call(7, &id, "@counter@a", "get", "\"in\"")])
        .await;
    let batch = stream.batch().await;
    let operation = &batch.operations()[0];
    assert_eq!(operation.request_id, id);
    assert_eq!(operation.input.as_deref(), Some("\"in\""));
    assert_eq!(
        operation.parent,
        Some(("a".to_owned(), first.execution_id().to_owned()))
    );
    peer.settle(&batch, vec![success("\"out\"")], Some("5"))
        .await;
    let second = orchestrations.episode().await;
    assert_eq!(
        second.new_kinds(),
        ["OrchestratorStarted", "EntityOperationCompleted"]
    );
    let answer = &second.request.new_events[1];
    assert_eq!(completed(answer), (id.as_str(), Some("\"out\"")));
    assert_eq!(answer.event_id, -1);
    assert!(answer.timestamp.is_some());
    peer.answer(&second, vec![complete(8, "5")]).await;
    ends_as(&peer, "a", OrchestrationStatus::Completed).await;

    let history = peer.history("a").await;
    assert_eq!(
        kinds(&history),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "EntityOperationCalled",
            "OrchestratorStarted",
            "EntityOperationCompleted",
            "ExecutionCompleted"
        ]
    );
    assert_eq!(history[2].event_id, 7);
    let call = called(&history[2]);
    assert_eq!(call.request_id, id);
    assert_eq!(call.target_instance_id.as_deref(), Some("@counter@a"));
    assert_eq!(call.scheduled_time, None, "S-4.12");
}

#[tokio::test]
async fn a_request_id_that_is_no_guid_is_answered_by_itself_and_shown_as_one() {
    // S-12.51, S-12.11: reading a batch checks the form. The history keeps what the worker sent.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let ids = ["request one", "", "{0}"];
    let calls = ids
        .iter()
        .zip(1..)
        .map(|(id, action)| call(action, id, "@counter@a", id, ""));
    peer.answer(&first, calls.collect()).await;
    let batch = stream.batch().await;
    let mut shown: Vec<_> = batch
        .operations()
        .into_iter()
        .map(|operation| operation.request_id)
        .collect();
    assert_eq!(batch.names(), ids);
    shown.sort();
    shown.dedup();
    assert_eq!(shown.len(), 3, "each has its own");
    peer.settle(
        &batch,
        vec![success("1"), failure("Refused", "2"), success("3")],
        Some("3"),
    )
    .await;
    let mut outcomes = Vec::new();
    while outcomes.len() < 3 {
        let episode = orchestrations.episode().await;
        for event in &episode.request.new_events[1..] {
            outcomes.push(match &event.event_type {
                Some(EventType::EntityOperationFailed(_)) => failed(event).0.to_owned(),
                _ => completed(event).0.to_owned(),
            });
        }
        peer.answer(&episode, Vec::new()).await;
    }
    assert_eq!(outcomes, ids);
    let history = peer.history("a").await;
    let confirmed: Vec<_> = history[2..5]
        .iter()
        .map(|event| &called(event).request_id)
        .collect();
    assert_eq!(confirmed, ids);
}

#[tokio::test]
async fn a_failed_call_brings_its_details_unchanged_and_the_others_their_results() {
    // S-12.43, S-12.15.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let ids = [fresh_guid(), fresh_guid(), fresh_guid()];
    let names = ["set", "boom", "get"];
    let calls = (0..3).map(|at| call(at as i32 + 1, &ids[at], "@counter@a", names[at], "9"));
    peer.answer(&first, calls.collect()).await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), names);
    let details = TaskFailureDetails {
        error_type: "Boom".to_owned(),
        error_message: "it burst\nin two lines".to_owned(),
        stack_trace: Some("at boom".to_owned()),
        inner_failure: Some(Box::new(TaskFailureDetails {
            error_type: "Spark".to_owned(),
            error_message: "a spark".to_owned(),
            ..Default::default()
        })),
        is_non_retriable: true,
        properties: BTreeMap::from([(
            "count".to_owned(),
            prost_types::Value {
                kind: Some(prost_types::value::Kind::NumberValue(2.5)),
            },
        )]),
    };
    peer.settle(
        &batch,
        vec![success("9"), failure_with(details.clone()), success("9")],
        Some("9"),
    )
    .await;
    let mut events = Vec::new();
    while events.len() < 3 {
        let episode = orchestrations.episode().await;
        events.extend(episode.request.new_events[1..].to_vec());
        peer.answer(&episode, Vec::new()).await;
    }
    assert_eq!(completed(&events[0]), (ids[0].as_str(), Some("9")));
    assert_eq!(failed(&events[1]), (ids[1].as_str(), &details));
    assert_eq!(completed(&events[2]), (ids[2].as_str(), Some("9")));
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("9"));
}

#[tokio::test]
async fn a_result_that_is_absent_stays_absent() {
    // S-0.5.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let id = fresh_guid();
    peer.answer(&first, vec![call(1, &id, "@counter@a", "get", "")])
        .await;
    let batch = stream.batch().await;
    let mut result = success("");
    if let Some(mainspring_proto::operation_result::ResultType::Success(done)) =
        &mut result.result_type
    {
        done.result = None;
    }
    peer.settle(&batch, vec![result], Some("")).await;
    let second = orchestrations.episode().await;
    assert_eq!(
        completed(&second.request.new_events[1]),
        (id.as_str(), None)
    );
}

#[tokio::test]
async fn what_an_orchestration_sends_to_an_entity_arrives_in_the_order_of_its_actions() {
    // S-12.22, S-12.23: signals and calls, across episodes too. Signals are not answered.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    peer.signal("@counter@a", "first", "").await;
    let first_batch = stream.batch().await;
    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let on = |id: i32, name: &str| signal(id, &fresh_guid(), "@counter@a", name, "", None);
    peer.answer(
        &first,
        vec![
            on(1, "1"),
            call(2, &fresh_guid(), "@counter@a", "2", ""),
            on(3, "3"),
            call(4, &fresh_guid(), "@other@a", "wake", ""),
        ],
    )
    .await;
    let wake = stream.batch().await;
    assert_eq!(wake.entity(), "@other@a");
    peer.settle(&wake, vec![success("")], Some("")).await;
    let second = orchestrations.episode().await;
    peer.answer(&second, vec![on(5, "4"), on(6, "5"), complete(7, "1")])
        .await;
    ends_as(&peer, "a", OrchestrationStatus::Completed).await;
    peer.settle(&first_batch, vec![success("")], Some("")).await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["1", "2", "3", "4", "5"]);
    let waiting: Vec<_> = batch
        .operations()
        .iter()
        .map(|operation| operation.parent.is_some())
        .collect();
    assert_eq!(waiting, [false, true, false, false, false]);
    let history = peer.history("a").await;
    assert_eq!(
        kinds(&history)[2..6],
        [
            "EntityOperationSignaled",
            "EntityOperationCalled",
            "EntityOperationSignaled",
            "EntityOperationCalled"
        ]
    );
}

#[tokio::test]
async fn operations_of_an_orchestration_that_has_ended_are_executed_and_answered_to_nobody() {
    // S-12.52, S-12.15, in every way of ending a generation.
    let (_scheduler, peer, mut orchestrations) = stage_without_entities().await;
    let send = || {
        vec![
            call(1, &fresh_guid(), "@counter@a", "call", ""),
            signal(2, &fresh_guid(), "@counter@a", "signal", "", None),
        ]
    };
    for (id, ending) in [
        ("completes", complete(3, "1")),
        ("fails", fail(3, "on purpose")),
        ("continues", continue_as_new(3, "1")),
    ] {
        start(&peer, id).await;
        let episode = orchestrations.episode().await;
        let mut actions = send();
        actions.push(ending);
        peer.answer(&episode, actions).await;
    }
    let next = orchestrations.episode().await;
    assert_eq!(next.request.instance_id, "continues");
    peer.answer(&next, Vec::new()).await;
    start(&peer, "is terminated").await;
    let episode = orchestrations.episode().await;
    peer.answer(&episode, send()).await;
    terminate(&peer, "is terminated").await;

    let mut stream = entities(&peer).await;
    let batch = stream.batch().await;
    assert_eq!(batch.names(), ["call", "signal"].repeat(4));
    let results = (0..8).map(|number| success(&number.to_string())).collect();
    peer.settle(&batch, results, Some("8")).await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("8"));
    // The second generation never learns what the first asked for.
    orchestrations.nothing_for(Duration::from_millis(200)).await;
    for id in ["completes", "fails", "is terminated"] {
        let history = kinds(&peer.history(id).await);
        assert!(
            !history.contains(&"EntityOperationCompleted".to_owned()),
            "{history:?}"
        );
    }
}

#[tokio::test]
async fn the_outcome_waits_for_a_suspended_caller() {
    // S-9.3.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let id = fresh_guid();
    peer.answer(&first, vec![call(1, &id, "@counter@a", "get", "")])
        .await;
    let suspend = SuspendRequest {
        instance_id: "a".to_owned(),
        reason: None,
    };
    peer.client().suspend_instance(suspend).await.unwrap();
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("5")], Some("5")).await;
    orchestrations.nothing_for(Duration::from_millis(100)).await;
    let resume = mainspring_proto::ResumeRequest {
        instance_id: "a".to_owned(),
        reason: None,
    };
    peer.client().resume_instance(resume).await.unwrap();
    let second = orchestrations.episode().await;
    let last = second.request.new_events.last().unwrap();
    assert_eq!(completed(last), (id.as_str(), Some("5")));
    peer.answer(&second, vec![complete(2, "5")]).await;
    ends_as(&peer, "a", OrchestrationStatus::Completed).await;
}

#[tokio::test]
async fn illegal_targets_fail_calls_and_locks_and_never_reject_the_answer() {
    // S-4.18: endless redelivery would be worse.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    let overlong = format!("@counter@{}", "k".repeat(92));
    for (number, target) in ["", "nonsense", "@counter", "@@key", &overlong]
        .into_iter()
        .enumerate()
    {
        let id = format!("calls-{number}");
        start(&peer, &id).await;
        let first = orchestrations.episode().await;
        let request_id = fresh_guid();
        peer.answer(
            &first,
            vec![
                signal(1, &fresh_guid(), target, "add", "1", None),
                call(2, &request_id, target, "add", "1"),
            ],
        )
        .await;
        let second = orchestrations.episode().await;
        assert_eq!(
            kinds(&second.request.past_events)[2..],
            ["EntityOperationSignaled", "EntityOperationCalled"],
            "confirmed as they were sent"
        );
        let (failed_id, details) = failed(&second.request.new_events[1]);
        assert_eq!(failed_id, request_id);
        assert_eq!(
            (details.error_type.as_str(), details.is_non_retriable),
            ("InvalidArgument", true)
        );
        peer.answer(&second, vec![complete(3, "1")]).await;
        ends_as(&peer, &id, OrchestrationStatus::Completed).await;

        let id = format!("locks-{number}");
        start(&peer, &id).await;
        let first = orchestrations.episode().await;
        let actions = vec![lock(1, &id, "s", &["@counter@a", target]), complete(2, "1")];
        peer.answer(&first, actions).await;
        let state = peer.wait(&id).await;
        assert_eq!(state.orchestration_status(), OrchestrationStatus::Failed);
        assert_eq!(state.failure_details.unwrap().error_type, "InvalidArgument");
    }
    // Nothing is left of those lock sets.
    peer.signal("@counter@a", "add", "1").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("1")], Some("1")).await;
    assert_eq!(peer.locked_by("@counter@a").await, None);
}

#[tokio::test]
async fn a_rewound_orchestration_gets_the_outcome_of_a_call_that_it_still_waits_for() {
    // S-9.13: the call is sent again under its id, stamped with the new generation.
    let (_scheduler, peer, mut orchestrations) = stage_without_entities().await;
    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let id = fresh_guid();
    let actions = vec![
        call(1, &id, "@counter@a", "add", "1"),
        fail(2, "on purpose"),
    ];
    peer.answer(&first, actions).await;
    ends_as(&peer, "a", OrchestrationStatus::Failed).await;
    let rewind = RewindInstanceRequest {
        instance_id: "a".to_owned(),
        reason: None,
    };
    peer.client().rewind_instance(rewind).await.unwrap();
    let second = orchestrations.episode().await;
    assert_ne!(second.execution_id(), first.execution_id());
    peer.answer(&second, Vec::new()).await;

    let mut stream = entities(&peer).await;
    let mut parents = Vec::new();
    while parents.len() < 2 {
        let batch = stream.batch().await;
        let operations = batch.operations();
        let results = operations.iter().map(|_| success("\"out\"")).collect();
        parents.extend(operations.into_iter().filter_map(|done| done.parent));
        peer.settle(&batch, results, Some("1")).await;
    }
    let generations: Vec<_> = parents.iter().map(|(_, generation)| generation).collect();
    assert_eq!(
        generations,
        [first.execution_id(), second.execution_id()],
        "both are executed (S-12.52)"
    );
    let third = orchestrations.episode().await;
    assert_eq!(
        completed(&third.request.new_events[1]),
        (id.as_str(), Some("\"out\""))
    );
    peer.answer(&third, vec![complete(3, "1")]).await;
    ends_as(&peer, "a", OrchestrationStatus::Completed).await;
    let outcomes = kinds(&peer.history("a").await)
        .into_iter()
        .filter(|kind| kind == "EntityOperationCompleted")
        .count();
    assert_eq!(outcomes, 1, "one outcome (S-12.15)");
}
