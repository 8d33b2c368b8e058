//! What single calls answer: hubs, ids, sizes, and what there is not.

use std::future::Future;

use mainspring_proto as proto;
use mainspring_proto::purge_instances_request::Request as PurgeRequest;
use tonic::{Code, Request, Response, Status};

use crate::running::{Client, Running};

fn in_hub<T>(hub: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("taskhub", hub.parse().unwrap());
    request
}

async fn refused<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Status {
    call.await.map(|_| ()).unwrap_err()
}

async fn code<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Code {
    refused(call).await.code()
}

fn start(id: &str) -> proto::CreateInstanceRequest {
    proto::CreateInstanceRequest {
        instance_id: id.to_owned(),
        name: "Order".to_owned(),
        ..Default::default()
    }
}

/// S-1.6: absent, empty, and in any case.
#[tokio::test]
async fn hello_answers_for_a_hub_that_exists() {
    let server =
        Running::with(|config| config.task_hubs = vec!["default".to_owned(), "Orders".to_owned()])
            .await;
    let mut client = server.client().await;
    client.hello(()).await.unwrap();
    for hub in ["", " default ", "ORDERS", "orders"] {
        client.hello(in_hub(hub, ())).await.unwrap();
    }
}

/// S-1.6.
#[tokio::test]
async fn without_a_fallback_a_call_has_to_name_its_hub() {
    let server = Running::with(|config| config.fallback_hub = None).await;
    let mut client = server.client().await;
    assert_eq!(code(client.hello(())).await, Code::InvalidArgument);
    client.hello(in_hub("default", ())).await.unwrap();
}

/// S-1.7.
#[tokio::test]
async fn every_call_names_the_hub_that_does_not_exist() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let unknown = [
        refused(client.clone().hello(in_hub("nowhere", ()))).await,
        refused(
            client
                .clone()
                .get_instance(in_hub("nowhere", proto::GetInstanceRequest::default())),
        )
        .await,
        refused(
            client
                .clone()
                .get_work_items(in_hub("nowhere", proto::GetWorkItemsRequest::default())),
        )
        .await,
        refused(
            client
                .clone()
                .complete_activity_task(in_hub("nowhere", proto::ActivityResponse::default())),
        )
        .await,
        refused(client.get_entity(in_hub("nowhere", proto::GetEntityRequest::default()))).await,
    ];
    for status in unknown {
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("nowhere"), "{status}");
    }
}

/// S-1.16.
#[tokio::test]
async fn with_hubs_on_demand_an_unknown_hub_is_an_empty_one() {
    let server = Running::with(|config| config.dynamic_task_hubs = true).await;
    let mut client = server.client().await;
    client.hello(in_hub("fresh", ())).await.unwrap();
    let got = client
        .get_instance(in_hub("other", proto::GetInstanceRequest::default()))
        .await
        .unwrap();
    assert!(!got.into_inner().exists);
}

/// Section 19.
#[tokio::test]
async fn hubs_are_changed_only_where_the_operator_allows_it() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let create = || in_hub("orders", proto::CreateTaskHubRequest::default());
    let delete = || in_hub("orders", proto::DeleteTaskHubRequest {});
    assert_eq!(
        code(client.create_task_hub(create())).await,
        Code::PermissionDenied
    );
    assert_eq!(
        code(client.delete_task_hub(delete())).await,
        Code::PermissionDenied
    );

    let server = Running::with(|config| config.allow_hub_admin = true).await;
    let mut client = server.client().await;
    client.create_task_hub(create()).await.unwrap();
    client.hello(in_hub("orders", ())).await.unwrap();
    client.delete_task_hub(delete()).await.unwrap();
    assert_eq!(
        code(client.hello(in_hub("orders", ()))).await,
        Code::NotFound
    );
}

/// S-12.1, S-12.39, S-12.40, S-4.4.
#[tokio::test]
async fn entity_calls_check_what_they_are_given() {
    let server = Running::start().await;
    let mut client = server.client().await;
    for id in [
        "",
        "counter",
        "@counter",
        "@@key",
        &format!("@c@{}", "x".repeat(98)),
    ] {
        let signal = proto::SignalEntityRequest {
            instance_id: id.to_owned(),
            name: "add".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            code(client.signal_entity(signal)).await,
            Code::InvalidArgument
        );
        let get = proto::GetEntityRequest {
            instance_id: id.to_owned(),
            include_state: true,
        };
        assert_eq!(code(client.get_entity(get)).await, Code::InvalidArgument);
    }
    let nameless = proto::SignalEntityRequest {
        instance_id: "@counter@a".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        code(client.signal_entity(nameless)).await,
        Code::InvalidArgument
    );
    let large = proto::SignalEntityRequest {
        instance_id: "@counter@a".to_owned(),
        name: "add".to_owned(),
        input: Some("x".repeat((1 << 20) + 1)),
        ..Default::default()
    };
    let refused = refused(client.signal_entity(large)).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("1048577"), "{refused}");
    let garbage = proto::QueryEntitiesRequest {
        query: Some(proto::EntityQuery {
            continuation_token: Some("garbage".to_owned()),
            ..Default::default()
        }),
    };
    assert_eq!(
        code(client.query_entities(garbage)).await,
        Code::InvalidArgument
    );
    let cleaned = client
        .clean_entity_storage(proto::CleanEntityStorageRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(cleaned, proto::CleanEntityStorageResponse::default());
    client
        .complete_entity_task(proto::EntityBatchResult::default())
        .await
        .unwrap();
    client
        .abandon_task_entity_work_item(proto::AbandonEntityTaskRequest::default())
        .await
        .unwrap();
}

/// S-12.6, S-12.38, S-12.39: without a worker an entity has a backlog and no state.
#[tokio::test]
async fn a_signalled_entity_is_listed_before_it_exists() {
    let server = Running::start().await;
    let mut client = server.client().await;
    for _ in 0..2 {
        let signal = proto::SignalEntityRequest {
            instance_id: "@Counter@A".to_owned(),
            name: "add".to_owned(),
            request_id: "00000000-0000-0000-0000-000000000001".to_owned(),
            ..Default::default()
        };
        client.signal_entity(signal).await.unwrap();
    }
    let get = proto::GetEntityRequest {
        instance_id: "@counter@A".to_owned(),
        include_state: true,
    };
    assert!(!client.get_entity(get).await.unwrap().into_inner().exists);
    for (include_transient, prefix, found) in [
        (false, "", 0),
        (true, "", 1),
        (true, "COUNTER@A", 1),
        (true, "@counter@a", 0),
    ] {
        let query = proto::EntityQuery {
            include_transient,
            instance_id_starts_with: Some(prefix.to_owned()),
            ..Default::default()
        };
        let request = proto::QueryEntitiesRequest { query: Some(query) };
        let page = client.query_entities(request).await.unwrap().into_inner();
        assert_eq!(page.entities.len(), found, "{prefix}");
        assert!(page.continuation_token.is_none());
        for entity in page.entities {
            assert_eq!(entity.instance_id, "@counter@A");
            assert_eq!(
                entity.backlog_queue_size, 1,
                "a repeated signal counts once"
            );
            assert!(entity.last_modified_time.is_some() && entity.locked_by.is_none());
        }
    }
}

/// S-10.1, S-14.1.
#[tokio::test]
async fn illegal_ids_and_names_are_refused() {
    let server = Running::start().await;
    let mut client = server.client().await;
    for id in ["x".repeat(101), "@counter@a".to_owned(), "a\nb".to_owned()] {
        assert_eq!(
            code(client.start_instance(start(&id))).await,
            Code::InvalidArgument,
            "{id}"
        );
        let raise = proto::RaiseEventRequest {
            instance_id: id,
            name: "go".to_owned(),
            input: None,
        };
        assert_eq!(code(client.raise_event(raise)).await, Code::InvalidArgument);
    }
    let too_long = refused(client.start_instance(start(&"x".repeat(101)))).await;
    assert!(too_long.message().contains("100"), "{too_long}");
    let nameless = proto::CreateInstanceRequest {
        instance_id: "a".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        code(client.start_instance(nameless)).await,
        Code::InvalidArgument
    );
}

/// S-10.1, S-10.6.
#[tokio::test]
async fn an_instance_without_an_id_gets_one() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let first = client
        .start_instance(start(""))
        .await
        .unwrap()
        .into_inner()
        .instance_id;
    let second = client
        .start_instance(start(""))
        .await
        .unwrap()
        .into_inner()
        .instance_id;
    assert_ne!(first, second);
    assert!(
        first.len() == 32 && first.bytes().all(|b| b.is_ascii_hexdigit()),
        "{first}"
    );
}

/// S-14.2, S-14.3.
#[tokio::test]
async fn a_payload_one_byte_over_the_limit_is_refused_with_field_size_and_limit() {
    let server = Running::with(|config| config.payload_bytes_max = 2_000).await;
    let mut client = server.client().await;
    let with_input = |bytes| proto::CreateInstanceRequest {
        input: Some("x".repeat(bytes)),
        ..start("")
    };
    client.start_instance(with_input(2_000)).await.unwrap();
    let long = || Some("x".repeat(2_001));
    let id = || "a".to_owned();
    let answers = [
        (
            "input",
            refused(client.start_instance(with_input(2_001))).await,
        ),
        ("tags", {
            let tags = [("k".to_owned(), "x".repeat(2_000))].into();
            refused(client.start_instance(proto::CreateInstanceRequest { tags, ..start("") })).await
        }),
        (
            "input",
            refused(client.raise_event(proto::RaiseEventRequest {
                instance_id: id(),
                name: id(),
                input: long(),
            }))
            .await,
        ),
        ("output", {
            let request = proto::TerminateRequest {
                instance_id: id(),
                output: long(),
                recursive: false,
            };
            refused(client.terminate_instance(request)).await
        }),
        (
            "reason",
            refused(client.suspend_instance(proto::SuspendRequest {
                instance_id: id(),
                reason: long(),
            }))
            .await,
        ),
    ];
    for (field, status) in answers {
        assert_eq!(status.code(), Code::InvalidArgument);
        let text = status.message();
        assert!(
            text.contains(field) && text.contains("2001 bytes") && text.contains("2000 bytes"),
            "{text}"
        );
    }
}

/// S-14.1, S-11.21.
#[tokio::test]
async fn batches_of_more_than_500_ids_are_refused() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let ids = |count| proto::InstanceBatch {
        instance_ids: vec!["a".to_owned(); count],
    };
    let purge = |count| proto::PurgeInstancesRequest {
        request: Some(PurgeRequest::InstanceBatch(ids(count))),
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
        code(client.purge_instances(purge(501))).await,
        Code::InvalidArgument
    );
    let skip = proto::SkipGracefulOrchestrationTerminationsRequest {
        instance_batch: Some(ids(501)),
        reason: None,
    };
    assert_eq!(
        code(client.skip_graceful_orchestration_terminations(skip)).await,
        Code::InvalidArgument
    );
}

/// S-11.1, S-11.18, S-11.22, S-3.28, S-9.6, S-8.4: what each call says of an instance that is not there.
#[tokio::test]
async fn a_missing_instance_is_told_as_each_call_has_to() {
    let server = Running::start().await;
    let mut client: Client = server.client().await;
    let id = || "missing".to_owned();
    for id in ["missing", "@counter@a", ""] {
        let get = proto::GetInstanceRequest {
            instance_id: id.to_owned(),
            get_inputs_and_outputs: true,
        };
        let got = client.get_instance(get).await.unwrap().into_inner();
        assert!(!got.exists && got.orchestration_state.is_none());
    }
    for id in ["missing", "@counter@a"] {
        let purge = proto::PurgeInstancesRequest {
            request: Some(PurgeRequest::InstanceId(id.to_owned())),
            ..Default::default()
        };
        let purged = client.purge_instances(purge).await.unwrap().into_inner();
        assert_eq!(
            (purged.deleted_instance_count, purged.is_complete),
            (0, Some(true))
        );
    }
    let raise = proto::RaiseEventRequest {
        instance_id: id(),
        name: "go".to_owned(),
        input: None,
    };
    client.raise_event(raise).await.unwrap();
    let terminate = proto::TerminateRequest {
        instance_id: id(),
        ..Default::default()
    };
    client.terminate_instance(terminate).await.unwrap();
    let answers = [
        code(client.suspend_instance(proto::SuspendRequest {
            instance_id: id(),
            reason: None,
        }))
        .await,
        code(client.resume_instance(proto::ResumeRequest {
            instance_id: id(),
            reason: None,
        }))
        .await,
        code(client.rewind_instance(proto::RewindInstanceRequest {
            instance_id: id(),
            reason: None,
        }))
        .await,
        code(client.restart_instance(proto::RestartInstanceRequest {
            instance_id: id(),
            ..Default::default()
        }))
        .await,
        code(
            client.stream_instance_history(proto::StreamInstanceHistoryRequest {
                instance_id: id(),
                ..Default::default()
            }),
        )
        .await,
    ];
    assert_eq!(answers, [Code::NotFound; 5]);
}

/// S-11.12, S-11.16.
#[tokio::test]
async fn cursors_that_are_none_of_ours_are_refused_and_empty_ones_begin_at_the_start() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let query = |token: &str| proto::QueryInstancesRequest {
        query: Some(proto::InstanceQuery {
            continuation_token: Some(token.to_owned()),
            ..Default::default()
        }),
    };
    let page = client
        .query_instances(query(""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.continuation_token, None);
    assert_eq!(
        code(client.query_instances(query("rubbish"))).await,
        Code::InvalidArgument
    );
    let list = |key: &str| proto::ListInstanceIdsRequest {
        last_instance_key: Some(key.to_owned()),
        ..Default::default()
    };
    let page = client
        .list_instance_ids(list(""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((page.instance_ids.len(), page.last_instance_key), (0, None));
    assert_eq!(
        code(client.list_instance_ids(list("gone"))).await,
        Code::InvalidArgument
    );
}

/// S-4.4, S-13.17.
#[tokio::test]
async fn answers_with_tokens_that_nobody_knows_are_taken_for_stale() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let token = || "0123456789abcdef0123456789abcdef".to_owned();
    let activity = proto::ActivityResponse {
        completion_token: token(),
        ..Default::default()
    };
    client.complete_activity_task(activity).await.unwrap();
    let episode = proto::OrchestratorResponse {
        completion_token: token(),
        ..Default::default()
    };
    client.complete_orchestrator_task(episode).await.unwrap();
    client
        .abandon_task_activity_work_item(proto::AbandonActivityTaskRequest {
            completion_token: token(),
        })
        .await
        .unwrap();
    let abandon = proto::AbandonOrchestrationTaskRequest {
        completion_token: "no token".to_owned(),
    };
    client
        .abandon_task_orchestrator_work_item(abandon)
        .await
        .unwrap();
}
