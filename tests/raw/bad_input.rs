//! Requests that are wrong: unknown hubs and ids, illegal ids, forged and stale tokens, answers that fit nothing.

use mainspring_proto::purge_instances_request::Request as Selection;
use mainspring_proto::*;
use mainspring_tests::action::{complete, schedule, send_event};
use mainspring_tests::{Peer, Scheduler};
use tonic::{Code, Status};

/// The code of a call that has to fail.
fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.expect_err("the call has to fail").code()
}

#[tokio::test]
async fn an_unknown_hub_is_not_found_whatever_is_asked_of_it() {
    // S-1.7: the .NET worker tells a missing hub by exactly this code, on Hello and GetWorkItems, too.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect_as(&scheduler, "", Some("nowhere")).await;
    let mut client = peer.client();
    let id = || "a".to_owned();

    let missing = |answer: Result<(), Status>, rpc: &str| {
        let status = answer.expect_err(rpc);
        assert_eq!(status.code(), Code::NotFound, "{rpc}: {status}");
        assert!(status.message().contains("nowhere"), "{rpc}: {status}");
    };
    let get = GetInstanceRequest {
        instance_id: id(),
        get_inputs_and_outputs: true,
    };
    missing(client.hello(()).await.map(drop), "Hello");
    missing(
        peer.try_open(GetWorkItemsRequest::default())
            .await
            .map(drop),
        "GetWorkItems",
    );
    let create = CreateInstanceRequest {
        name: id(),
        ..Default::default()
    };
    missing(
        client.start_instance(create).await.map(drop),
        "StartInstance",
    );
    missing(
        client.get_instance(get.clone()).await.map(drop),
        "GetInstance",
    );
    missing(
        client.wait_for_instance_start(get.clone()).await.map(drop),
        "WaitForInstanceStart",
    );
    missing(
        client.wait_for_instance_completion(get).await.map(drop),
        "WaitForInstanceCompletion",
    );
    let raise = RaiseEventRequest {
        instance_id: id(),
        name: id(),
        input: None,
    };
    missing(client.raise_event(raise).await.map(drop), "RaiseEvent");
    let suspend = SuspendRequest {
        instance_id: id(),
        reason: None,
    };
    missing(
        client.suspend_instance(suspend).await.map(drop),
        "SuspendInstance",
    );
    let resume = ResumeRequest {
        instance_id: id(),
        reason: None,
    };
    missing(
        client.resume_instance(resume).await.map(drop),
        "ResumeInstance",
    );
    let terminate = TerminateRequest {
        instance_id: id(),
        ..Default::default()
    };
    missing(
        client.terminate_instance(terminate).await.map(drop),
        "TerminateInstance",
    );
    let rewind = RewindInstanceRequest {
        instance_id: id(),
        reason: None,
    };
    missing(
        client.rewind_instance(rewind).await.map(drop),
        "RewindInstance",
    );
    let restart = RestartInstanceRequest {
        instance_id: id(),
        ..Default::default()
    };
    missing(
        client.restart_instance(restart).await.map(drop),
        "RestartInstance",
    );
    missing(
        client
            .query_instances(QueryInstancesRequest::default())
            .await
            .map(drop),
        "QueryInstances",
    );
    missing(
        client
            .list_instance_ids(ListInstanceIdsRequest::default())
            .await
            .map(drop),
        "ListInstanceIds",
    );
    missing(
        client.purge_instances(purge_id("a")).await.map(drop),
        "PurgeInstances",
    );
    missing(
        peer.stream_history("a", None, false).await.map(drop),
        "StreamInstanceHistory",
    );
    let abandon = AbandonActivityTaskRequest {
        completion_token: id(),
    };
    missing(
        client
            .abandon_task_activity_work_item(abandon)
            .await
            .map(drop),
        "AbandonTaskActivityWorkItem",
    );
    let response = OrchestratorResponse {
        instance_id: id(),
        ..Default::default()
    };
    missing(
        client.complete_orchestrator_task(response).await.map(drop),
        "CompleteOrchestratorTask",
    );
    let response = ActivityResponse {
        instance_id: id(),
        ..Default::default()
    };
    missing(
        client.complete_activity_task(response).await.map(drop),
        "CompleteActivityTask",
    );
}

#[tokio::test]
async fn a_hub_is_found_without_regard_to_case_and_blanks() {
    // S-1.6.
    let scheduler = Scheduler::start(&["--task-hubs", "default,Orders"]);
    let named = Peer::connect_as(&scheduler, "", Some(" oRDERS ")).await;
    named.start("n", "here").await;
    assert!(
        Peer::connect_as(&scheduler, "", Some("Orders"))
            .await
            .find("here")
            .await
            .is_some()
    );
    assert!(Peer::connect(&scheduler).await.find("here").await.is_none());
}

fn purge_id(id: &str) -> PurgeInstancesRequest {
    PurgeInstancesRequest {
        request: Some(Selection::InstanceId(id.to_owned())),
        is_orchestration: true,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_missing_instance_is_answered_as_each_call_promises() {
    // Section 19; S-8.4, S-9.6, S-9.9, S-9.12, S-9.19, S-11.1, S-11.18, S-3.28.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut client = peer.client();
    let id = || "nobody".to_owned();

    let get = GetInstanceRequest {
        instance_id: id(),
        get_inputs_and_outputs: true,
    };
    let response = client.get_instance(get).await.unwrap().into_inner();
    assert_eq!(
        response,
        GetInstanceResponse::default(),
        "exists=false and no state"
    );
    let raise = RaiseEventRequest {
        instance_id: id(),
        name: "e".to_owned(),
        input: None,
    };
    client.raise_event(raise).await.unwrap();
    let terminate = TerminateRequest {
        instance_id: id(),
        ..Default::default()
    };
    client.terminate_instance(terminate).await.unwrap();
    let suspend = SuspendRequest {
        instance_id: id(),
        reason: None,
    };
    assert_eq!(code(client.suspend_instance(suspend).await), Code::NotFound);
    let resume = ResumeRequest {
        instance_id: id(),
        reason: None,
    };
    assert_eq!(code(client.resume_instance(resume).await), Code::NotFound);
    let rewind = RewindInstanceRequest {
        instance_id: id(),
        reason: None,
    };
    assert_eq!(code(client.rewind_instance(rewind).await), Code::NotFound);
    let restart = RestartInstanceRequest {
        instance_id: id(),
        ..Default::default()
    };
    assert_eq!(code(client.restart_instance(restart).await), Code::NotFound);
    assert_eq!(
        code(peer.stream_history("nobody", None, false).await),
        Code::NotFound
    );
    let purged = client
        .purge_instances(purge_id("nobody"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (purged.deleted_instance_count, purged.is_complete),
        (0, Some(true))
    );
    let skip = SkipGracefulOrchestrationTerminationsRequest {
        instance_batch: Some(InstanceBatch {
            instance_ids: vec![id()],
        }),
        reason: None,
    };
    let skipped = client
        .skip_graceful_orchestration_terminations(skip)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(skipped.unterminated_instance_ids, ["nobody"]);
}

#[tokio::test]
async fn an_illegal_id_or_name_is_refused_and_a_limit_is_named() {
    // S-10.1, S-8.8, S-11.1.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let create = |name: &str, id: &str| CreateInstanceRequest {
        name: name.to_owned(),
        instance_id: id.to_owned(),
        ..Default::default()
    };
    for (name, id) in [
        ("n", "@counter@a"),
        ("n", "line\nbreak"),
        ("n", "bell\u{7}"),
        ("", "a"),
    ] {
        assert_eq!(
            code(peer.create(create(name, id)).await),
            Code::InvalidArgument,
            "{name:?} {id:?}"
        );
    }
    let status = peer
        .create(create("n", &"x".repeat(101)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("100"), "{status}");
    // One hundred characters are counted as such, not as bytes.
    let longest = "ü".repeat(100);
    assert_eq!(peer.create(create("n", &longest)).await.unwrap(), longest);
    let generated = peer.create(create("n", "")).await.unwrap();
    assert_eq!(generated.len(), 32, "{generated}");
    assert!(
        generated
            .chars()
            .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)),
        "{generated}"
    );

    let mut client = peer.client();
    let raise = |id: &str, name: &str| {
        let request = RaiseEventRequest {
            instance_id: id.to_owned(),
            name: name.to_owned(),
            input: None,
        };
        let mut client = client.clone();
        async move { client.raise_event(request).await }
    };
    assert_eq!(code(raise("", "e").await), Code::InvalidArgument);
    assert_eq!(code(raise(&longest, "").await), Code::InvalidArgument);
    assert_eq!(code(raise("@counter@a", "e").await), Code::InvalidArgument);
    let get = GetInstanceRequest {
        instance_id: "@counter@a".to_owned(),
        get_inputs_and_outputs: false,
    };
    assert!(!client.get_instance(get).await.unwrap().into_inner().exists);
}

#[tokio::test]
async fn batches_of_more_than_500_ids_and_garbage_cursors_are_refused() {
    // S-11.21, S-9.11, S-11.12, S-11.16.
    let scheduler = Scheduler::start(&[]);
    let mut client = Peer::connect(&scheduler).await.client();
    let batch = |count: usize| InstanceBatch {
        instance_ids: (0..count).map(|n| n.to_string()).collect(),
    };
    let purge = |count| PurgeInstancesRequest {
        request: Some(Selection::InstanceBatch(batch(count))),
        ..Default::default()
    };
    assert_eq!(
        client
            .purge_instances(purge(500))
            .await
            .unwrap()
            .into_inner()
            .deleted_instance_count,
        0
    );
    assert_eq!(
        code(client.purge_instances(purge(501)).await),
        Code::InvalidArgument
    );
    let skip = SkipGracefulOrchestrationTerminationsRequest {
        instance_batch: Some(batch(501)),
        reason: None,
    };
    assert_eq!(
        code(client.skip_graceful_orchestration_terminations(skip).await),
        Code::InvalidArgument
    );

    let query = |token: &str| QueryInstancesRequest {
        query: Some(InstanceQuery {
            continuation_token: Some(token.to_owned()),
            ..Default::default()
        }),
    };
    assert_eq!(
        code(client.query_instances(query("garbage")).await),
        Code::InvalidArgument
    );
    let page = client
        .query_instances(query(""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.continuation_token, None);
    let list = ListInstanceIdsRequest {
        last_instance_key: Some("gone".to_owned()),
        ..Default::default()
    };
    assert_eq!(
        code(client.list_instance_ids(list).await),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn times_out_of_shape_are_normalised() {
    // S-1.18: .NET sends the ends of the calendar, JS negative nanos.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    peer.start("n", "a").await;
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let query = QueryInstancesRequest {
        query: Some(InstanceQuery {
            created_time_from: time(-62_135_596_800, 0),
            created_time_to: time(253_402_300_799, 999_999_999),
            ..Default::default()
        }),
    };
    let page = peer
        .client()
        .query_instances(query)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.orchestration_state.len(), 1);
    let query = QueryInstancesRequest {
        query: Some(InstanceQuery {
            created_time_from: time(-1, -5_000_000),
            ..Default::default()
        }),
    };
    let page = peer
        .client()
        .query_instances(query)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.orchestration_state.len(), 1);
    let past = CreateInstanceRequest {
        name: "n".to_owned(),
        instance_id: "b".to_owned(),
        scheduled_start_timestamp: time(-10, 2_000_000_000),
        ..Default::default()
    };
    peer.create(past).await.unwrap();
    assert_eq!(peer.get("b").await.scheduled_start_timestamp, None);
}

#[tokio::test]
async fn forged_used_and_superseded_tokens_are_answered_ok_and_change_nothing() {
    // S-4.4, S-4.7, S-13.17: an error would make Java leave its stream.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let first = stream.episode().await;

    let mut forged = first.response(vec![complete(1, "\"forged\"")]);
    forged.completion_token = "forged".to_owned();
    peer.respond(forged).await.unwrap();
    assert_eq!(
        peer.get("a").await.orchestration_status(),
        OrchestrationStatus::Pending
    );

    peer.answer(&first, vec![schedule(1, "work", "1")]).await;
    peer.answer(&first, vec![complete(1, "\"again\"")]).await;
    let activity = stream.activity().await;
    let mut forged = activity.response("\"forged\"");
    forged.completion_token = "00".repeat(16);
    peer.report(forged).await.unwrap();
    peer.finish(&activity, "\"right\"").await;
    peer.finish(&activity, "\"twice\"").await;

    let second = stream.episode().await;
    assert_eq!(second.new_kinds(), ["OrchestratorStarted", "TaskCompleted"]);
    peer.answer(&first, vec![complete(1, "\"stale\"")]).await;
    peer.answer(&second, vec![complete(2, "\"right\"")]).await;
    let state = peer.wait("a").await;
    assert_eq!(state.output.as_deref(), Some("\"right\""));
    peer.answer(&second, vec![complete(2, "\"late\"")]).await;
    peer.finish(&activity, "\"late\"").await;
    assert_eq!(
        peer.get("a").await,
        state,
        "nothing changes after the end (S-2.10)"
    );

    let mut client = peer.client();
    let token = || "forged".to_owned();
    client
        .abandon_task_activity_work_item(AbandonActivityTaskRequest {
            completion_token: token(),
        })
        .await
        .unwrap();
    client
        .abandon_task_orchestrator_work_item(AbandonOrchestrationTaskRequest {
            completion_token: token(),
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn an_answer_that_names_another_instance_is_refused_and_the_episode_comes_back() {
    // S-4.6, S-13.28.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let mut response = episode.response(vec![complete(1, "1")]);
    response.instance_id = "b".to_owned();
    assert_eq!(code(peer.respond(response).await), Code::InvalidArgument);
    let again = stream.episode().await;
    assert_ne!(again.token, episode.token);
    peer.answer(&again, vec![complete(1, "1")]).await;
    assert_eq!(
        peer.wait("a").await.orchestration_status(),
        OrchestrationStatus::Completed
    );
}

#[tokio::test]
async fn an_action_of_no_known_kind_is_refused_and_nothing_of_the_answer_is_applied() {
    // S-4.3.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let unknown = OrchestratorAction {
        id: 2,
        orchestrator_action_type: None,
    };
    let response = episode.response(vec![schedule(1, "work", "1"), unknown]);
    assert_eq!(code(peer.respond(response).await), Code::InvalidArgument);
    let again = stream.episode().await;
    assert!(again.request.past_events.is_empty());
    peer.answer(&again, vec![complete(1, "1")]).await;
    let history = peer.history("a").await;
    assert_eq!(
        mainspring_tests::kinds(&history),
        [
            "OrchestratorStarted",
            "ExecutionStarted",
            "ExecutionCompleted"
        ],
    );
}

#[tokio::test]
async fn an_action_with_an_illegal_target_never_rejects_its_answer() {
    // S-4.18: a rejected answer would be handed out for ever.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    let actions = vec![
        mainspring_tests::action::child(1, &"x".repeat(101), "c"),
        mainspring_tests::action::send_event(2, "b", "", "1"),
        mainspring_tests::action::send_event(3, &"x".repeat(101), "e", "1"),
    ];
    peer.answer(&episode, actions).await;
    let next = stream.episode().await;
    assert_eq!(
        next.new_kinds(),
        ["OrchestratorStarted", "SubOrchestrationInstanceFailed"]
    );
    assert_eq!(
        mainspring_tests::kinds(&next.request.past_events)[2..],
        ["SubOrchestrationInstanceCreated", "EventSent", "EventSent"],
    );
    peer.answer(&next, vec![complete(4, "1")]).await;
    peer.wait("a").await;
}

#[tokio::test]
async fn what_is_not_served_says_so_in_the_code_that_sdks_know() {
    // S-12.50: a call of an entity in the way of older hosts would otherwise be waited for, for ever.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    let refused = code(peer.client().delete_task_hub(DeleteTaskHubRequest {}).await);
    assert!(
        [Code::PermissionDenied, Code::Unimplemented].contains(&refused),
        "{refused}"
    );

    let mut stream = peer.open().await;
    peer.start("n", "a").await;
    let episode = stream.episode().await;
    peer.answer(&episode, vec![send_event(1, "@counter@a", "op", "{}")])
        .await;
    let state = peer.wait("a").await;
    assert_eq!(state.orchestration_status(), OrchestrationStatus::Failed);
    let message = state.failure_details.unwrap().error_message;
    assert!(message.contains("@counter@a"), "{message}");
}
