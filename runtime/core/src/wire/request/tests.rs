//! Requests and responses in the shapes that SDKs send them.
#![allow(clippy::unwrap_used)]

use proto::orchestration_id_reuse_policy::CreateOrchestrationAction;

use super::*;
use crate::error::ErrorKind;
use crate::wire::fixtures::{deep_failure, every_pair, tags, trace as traces};

const NOW: Timestamp = Timestamp::MIN;

struct Counter(u128);

impl FreshIds for Counter {
    fn next(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

fn create(request: proto::CreateInstanceRequest) -> Result<(NewInstance, ReusePolicy), Error> {
    new_instance(request, false, Timestamp::new(1_000, 0), &mut Counter(0))
}

fn named(instance: &str) -> proto::CreateInstanceRequest {
    proto::CreateInstanceRequest {
        instance_id: instance.into(),
        name: "Order".into(),
        ..Default::default()
    }
}

fn respond(actions: Vec<OrchestratorActionType>) -> Result<EpisodeResult, Error> {
    episode_result(proto::OrchestratorResponse {
        actions: actions
            .into_iter()
            .enumerate()
            .map(|(index, kind)| proto::OrchestratorAction {
                id: index as i32 - 1,
                orchestrator_action_type: Some(kind),
            })
            .collect(),
        ..Default::default()
    })
}

fn one_action(kind: OrchestratorActionType) -> Action {
    respond(vec![kind]).unwrap().actions.remove(0)
}

fn complete(complete: proto::CompleteOrchestrationAction) -> End {
    match one_action(OrchestratorActionType::CompleteOrchestration(complete)) {
        Action::Complete(completion) => completion.end,
        other => panic!("not a completion: {other:?}"),
    }
}

/// S-1.18.
#[test]
fn times_from_the_wire_are_normalised_and_go_back_unchanged() {
    let odd = prost_types::Timestamp {
        seconds: -2,
        nanos: -1,
    };
    assert_eq!(timestamp(odd), Timestamp::new(-3, 999_999_999));
    for time in [Timestamp::MIN, Timestamp::MAX, Timestamp::new(-1, 5)] {
        assert_eq!(timestamp(proto_timestamp(time)), time);
    }
    let max = i64::MAX;
    let beyond = prost_types::Timestamp {
        seconds: max,
        nanos: i32::MAX,
    };
    assert_eq!(timestamp(beyond), Timestamp::MAX);
}

/// S-10.1, S-15.2.
#[test]
fn a_create_request_is_taken_over_field_by_field() {
    let (trace, wire_trace) = traces();
    let (new, policy) = create(proto::CreateInstanceRequest {
        version: Some(String::new()),
        input: Some("1".into()),
        scheduled_start_timestamp: Some(proto_timestamp(Timestamp::new(1_000, 1))),
        execution_id: Some("mine".into()),
        tags: tags(),
        parent_trace_context: Some(wire_trace),
        request_time: Some(proto_timestamp(NOW)),
        ..named("order-17")
    })
    .unwrap();
    let expected = NewInstance {
        instance: InstanceId::parse("order-17").unwrap(),
        name: "Order".into(),
        version: Some(String::new()),
        input: Some("1".into()),
        tags: tags(),
        scheduled_start_at: Some(Timestamp::new(1_000, 1)),
        execution_id: Some(ExecutionId::from_stored("mine")),
        parent: None,
        trace: Some(trace),
    };
    assert_eq!(new, expected);
    assert!(!policy.is_given && policy.replaceable.is_empty());
}

/// S-10.1.
#[test]
fn an_instance_without_an_id_gets_a_fresh_one() {
    let (new, _) = create(named("")).unwrap();
    assert_eq!(new.instance.as_str(), "00000000000000000000000000000001");
    let (new, _) = create(proto::CreateInstanceRequest {
        execution_id: Some(String::new()),
        ..named("a")
    })
    .unwrap();
    assert_eq!(new.execution_id, None);
}

/// S-10.1.
#[test]
fn a_create_request_without_a_name_or_with_an_illegal_id_is_invalid() {
    let nameless = proto::CreateInstanceRequest {
        name: String::new(),
        ..named("a")
    };
    for request in [
        nameless,
        named("@a@b"),
        named(&"x".repeat(101)),
        named("\0"),
    ] {
        assert_eq!(create(request).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let error = create(named(&"x".repeat(101))).unwrap_err();
    assert!(error.to_string().contains("100"), "{error}");
}

/// S-6.6: JS sends the epoch when the caller gave no time.
#[test]
fn a_start_time_that_does_not_lie_ahead_counts_as_not_given() {
    for (seconds, nanos) in [(0, 0), (999, 0), (1_000, 0)] {
        let (new, _) = create(proto::CreateInstanceRequest {
            scheduled_start_timestamp: Some(prost_types::Timestamp { seconds, nanos }),
            ..named("a")
        })
        .unwrap();
        assert_eq!(new.scheduled_start_at, None, "{seconds}");
    }
}

/// S-10.2, S-10.3: an absent policy, an empty one and Go's older layout all differ.
#[test]
fn reuse_policies_of_every_layout_are_told_apart() {
    let policy = |is_go_client, given: Option<proto::OrchestrationIdReusePolicy>| {
        let request = proto::CreateInstanceRequest {
            orchestration_id_reuse_policy: given,
            ..named("a")
        };
        let created = new_instance(request, is_go_client, NOW, &mut Counter(0));
        created.unwrap().1
    };
    let given = |action: CreateOrchestrationAction| proto::OrchestrationIdReusePolicy {
        replaceable_status: vec![1, 2, 3],
        action: action.into(),
    };
    for (is_go_client, sent, is_given, action) in [
        (false, None, false, LegacyAction::None),
        (true, None, false, LegacyAction::None),
        (
            false,
            Some(CreateOrchestrationAction::Error),
            true,
            LegacyAction::None,
        ),
        (
            true,
            Some(CreateOrchestrationAction::Error),
            true,
            LegacyAction::Error,
        ),
        (
            false,
            Some(CreateOrchestrationAction::Ignore),
            true,
            LegacyAction::Ignore,
        ),
        (
            true,
            Some(CreateOrchestrationAction::Terminate),
            true,
            LegacyAction::Terminate,
        ),
    ] {
        let policy = policy(is_go_client, sent.map(given));
        assert_eq!((policy.is_given, policy.legacy_action), (is_given, action));
        let listed: &[i32] = if is_given { &[1, 2, 3] } else { &[] };
        assert_eq!(policy.replaceable, listed);
    }
    let unknown = proto::CreateInstanceRequest {
        orchestration_id_reuse_policy: Some(proto::OrchestrationIdReusePolicy {
            replaceable_status: Vec::new(),
            action: 3,
        }),
        ..named("a")
    };
    assert_eq!(create(unknown).unwrap_err().kind(), ErrorKind::Invalid);
}

/// S-4.8, S-4.12, S-0.5.
#[test]
fn every_action_is_taken_over_field_by_field() {
    let (trace, wire_trace) = traces();
    let schedule = one_action(OrchestratorActionType::ScheduleTask(
        proto::ScheduleTaskAction {
            name: "Charge".into(),
            version: None,
            input: Some(String::new()),
            tags: tags(),
            parent_trace_context: Some(wire_trace.clone()),
        },
    ));
    let expected = Action::ScheduleTask {
        id: -1,
        name: "Charge".into(),
        version: None,
        input: Some(String::new()),
        tags: tags(),
        trace: Some(trace.clone()),
    };
    assert_eq!(schedule, expected);

    let child = one_action(OrchestratorActionType::CreateSubOrchestration(
        proto::CreateSubOrchestrationAction {
            instance_id: String::new(),
            name: "Ship".into(),
            version: Some("1".into()),
            input: None,
            parent_trace_context: Some(wire_trace),
            tags: tags(),
        },
    ));
    let expected = Action::CreateChild {
        id: -1,
        instance: String::new(),
        name: "Ship".into(),
        version: Some("1".into()),
        input: None,
        tags: tags(),
        trace: Some(trace),
    };
    assert_eq!(child, expected);

    let timer = |fire_at| {
        one_action(OrchestratorActionType::CreateTimer(
            proto::CreateTimerAction { fire_at },
        ))
    };
    let (id, at) = (-1, Timestamp::new(7, 123_456_789));
    let fire_at = Some(at);
    assert_eq!(
        timer(Some(proto_timestamp(at))),
        Action::CreateTimer { id, fire_at }
    );
    let fire_at = None;
    assert_eq!(timer(None), Action::CreateTimer { id, fire_at });

    let sent = one_action(OrchestratorActionType::SendEvent(proto::SendEventAction {
        instance: Some(proto::OrchestrationInstance {
            instance_id: "other".into(),
            execution_id: None,
        }),
        name: "go".into(),
        data: Some("1".into()),
    }));
    let expected = Action::SendEvent {
        id: -1,
        instance: "other".into(),
        name: "go".into(),
        input: Some("1".into()),
    };
    assert_eq!(sent, expected);

    let terminate = one_action(OrchestratorActionType::TerminateOrchestration(
        proto::TerminateOrchestrationAction {
            instance_id: "other".into(),
            reason: None,
            recurse: true,
        },
    ));
    let expected = Action::Terminate {
        id: -1,
        instance: "other".into(),
        reason: None,
        recurse: true,
    };
    assert_eq!(terminate, expected);
}

/// S-4.8: the confirming event carries the action's payload, whatever is in it.
#[test]
fn an_entity_action_becomes_the_body_of_its_confirming_event() {
    let called = proto::EntityOperationCalledEvent {
        request_id: "r".into(),
        target_instance_id: Some("@counter@a".into()),
        ..Default::default()
    };
    let action = one_action(OrchestratorActionType::SendEntityMessage(
        proto::SendEntityMessageAction {
            entity_message_type: Some(EntityMessageType::EntityOperationCalled(called.clone())),
        },
    ));
    let kind = OtherKind::EntityOperationCalled;
    let body = Bytes::from(called.encode_to_vec());
    let event = OtherEvent { kind, body };
    assert_eq!(action, Action::SendEntityMessage { id: -1, event });
}

/// S-4.3: a newer worker's action arrives with no type at all.
#[test]
fn a_response_with_an_action_of_no_known_type_is_invalid() {
    let untyped = proto::OrchestratorResponse {
        actions: vec![proto::OrchestratorAction::default()],
        ..Default::default()
    };
    let empty_entity = OrchestratorActionType::SendEntityMessage(Default::default());
    let running = OrchestratorActionType::CompleteOrchestration(Default::default());
    let unreadable =
        OrchestratorActionType::RewindOrchestration(proto::RewindOrchestrationAction {
            new_history: vec![proto::HistoryEvent::default()],
        });
    for error in [
        episode_result(untyped).unwrap_err(),
        respond(vec![empty_entity]).unwrap_err(),
        respond(vec![running]).unwrap_err(),
        respond(vec![unreadable]).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

/// S-4.14, S-2.2.
#[test]
fn a_finish_keeps_its_failure_details_verbatim() {
    let failed = complete(proto::CompleteOrchestrationAction {
        orchestration_status: 3,
        failure_details: Some(deep_failure()),
        ..Default::default()
    });
    let expected = End::Finish {
        status: Status::Failed,
        result: None,
        failure: Some(failure(deep_failure())),
    };
    assert_eq!(failed, expected);
    let canceled = complete(proto::CompleteOrchestrationAction {
        orchestration_status: 4,
        result: Some(String::new()),
        ..Default::default()
    });
    let expected = End::Finish {
        status: Status::Canceled,
        result: Some(String::new()),
        failure: None,
    };
    assert_eq!(canceled, expected);
}

/// S-3.17, S-3.19: Python sends a zero time on all of them.
#[test]
fn a_continue_as_new_carries_over_raised_events_alone() {
    let at = Timestamp::new(5, 6);
    let raised = |timestamp| proto::HistoryEvent {
        event_id: 9,
        timestamp,
        event_type: Some(EventType::EventRaised(proto::EventRaisedEvent {
            name: "go".into(),
            input: None,
        })),
    };
    let other = every_pair().remove(0).1;
    let end = complete(proto::CompleteOrchestrationAction {
        orchestration_status: 2,
        result: Some("next".into()),
        new_version: Some("2".into()),
        carryover_events: vec![
            raised(None),
            other,
            raised(Some(prost_types::Timestamp::default())),
            raised(Some(proto_timestamp(at))),
        ],
        ..Default::default()
    });
    let carried = |at| CarryOver {
        name: "go".into(),
        input: None,
        at,
    };
    let expected = End::ContinueAsNew {
        input: Some("next".into()),
        version: Some("2".into()),
        carried: vec![carried(None), carried(None), carried(Some(at))],
    };
    assert_eq!(end, expected);
}

/// S-9.15.
#[test]
fn a_rewound_history_is_read_event_by_event() {
    let (events, wire): (Vec<_>, Vec<_>) = every_pair().into_iter().unzip();
    let rewind = proto::RewindOrchestrationAction { new_history: wire };
    let action = one_action(OrchestratorActionType::RewindOrchestration(rewind));
    let (id, history) = (-1, events);
    assert_eq!(action, Action::Rewind { id, history });
}

/// S-3.30, S-3.31.
#[test]
fn chunks_are_numbered_and_whole_responses_are_not() {
    let sent = |is_partial, chunk_index, num_events_processed| {
        episode_result(proto::OrchestratorResponse {
            is_partial,
            chunk_index,
            num_events_processed,
            ..Default::default()
        })
    };
    let whole = sent(false, None, Some(2)).unwrap();
    assert_eq!((whole.chunk, whole.events_processed), (None, Some(2)));
    for (is_partial, index, processed, is_last) in [
        (true, 0, None, false),
        (true, 1, Some(0), false),
        (false, 2, Some(0), true),
    ] {
        let result = sent(is_partial, Some(index), processed).unwrap();
        let index = index as u32;
        assert_eq!(result.chunk, Some(Chunk { index, is_last }));
        assert_eq!(result.events_processed, None);
    }
    for (is_partial, index, processed) in [
        (true, None, None),
        (true, Some(-1), None),
        (false, None, Some(-1)),
    ] {
        let error = sent(is_partial, index, processed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

/// S-3.23, S-3.25, S-3.32, S-15.3: .NET always sends a trace context, empty without a span.
#[test]
fn custom_status_and_span_keep_unset_and_empty_apart() {
    let sent = |status: Option<&str>, span_id: Option<&str>| {
        episode_result(proto::OrchestratorResponse {
            custom_status: status.map(str::to_owned),
            orchestration_trace_context: Some(proto::OrchestrationTraceContext {
                span_id: span_id.map(str::to_owned),
                span_start_time: Some(proto_timestamp(NOW)),
            }),
            requires_history: true,
            ..Default::default()
        })
        .unwrap()
    };
    assert_eq!(sent(None, None).custom_status, None);
    assert_eq!(sent(Some(""), None).custom_status.as_deref(), Some(""));
    assert_eq!(
        sent(Some("\"\""), None).custom_status.as_deref(),
        Some("\"\"")
    );
    assert_eq!(sent(None, None).trace, None);
    assert_eq!(sent(None, Some("")).trace, None);
    let expected = EpisodeTrace {
        span_id: "abc".into(),
        span_started_at: Some(NOW),
    };
    assert_eq!(sent(None, Some("abc")).trace, Some(expected));
    assert!(sent(None, None).requires_history);
}
