//! What entities are called, when they exist, and what they are not.

use std::time::Duration;

use mainspring_proto::{
    CleanEntityStorageRequest, CreateInstanceRequest, EntityQuery, QueryInstancesRequest,
};
use mainspring_tests::action::{call, complete};
use mainspring_tests::entity::{called, fresh_guid, signal_request, success};

use mainspring_tests::{Peer, Scheduler};
use tonic::Code;

use crate::hands::{stage, start};

#[tokio::test]
async fn a_signal_creates_an_entity_that_clients_see_when_its_state_is_set() {
    // S-12.41, S-12.4, S-12.6, S-12.9.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    assert_eq!(peer.find_entity("@counter@a").await, None);
    let signal = signal_request("@counter@a", "add", "5");
    let request_id = signal.request_id.clone();
    peer.try_signal(signal).await.unwrap();
    let first = stream.batch().await;
    assert_eq!((first.entity(), first.state()), ("@counter@a", None));
    let execution_id = first.request.execution_id.clone();
    assert!(
        execution_id.len() == 32 && execution_id.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{execution_id}"
    );
    let operations = first.operations();
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].request_id, request_id);
    assert_eq!(operations[0].name, "add");
    assert_eq!(operations[0].input.as_deref(), Some("5"));
    assert_eq!(operations[0].parent, None);
    peer.settle(&first, vec![success("5")], Some("5")).await;

    let found = peer.find_entity("@counter@a").await.unwrap();
    assert_eq!(found.instance_id, "@counter@a");
    assert_eq!(found.serialized_state.as_deref(), Some("5"));
    assert_eq!((found.locked_by, found.backlog_queue_size), (None, 0));
    let modified = found.last_modified_time.expect("S-12.38, always set");

    // Without the state on request; and the record keeps its execution.
    let found = peer.try_find_entity("@counter@a", false).await.unwrap();
    assert_eq!(found.unwrap().serialized_state, None);
    peer.signal("@counter@a", "add", "1").await;
    let second = stream.batch().await;
    assert_eq!(second.request.execution_id, execution_id);
    assert_eq!(second.state(), Some("5"));
    peer.settle(&second, vec![success("6")], Some("6")).await;
    let found = peer.find_entity("@counter@a").await.unwrap();
    let later = found.last_modified_time.unwrap();
    assert!((later.seconds, later.nanos) > (modified.seconds, modified.nanos));
}

#[tokio::test]
async fn states_that_other_languages_take_for_nothing_are_states() {
    // S-12.6, S-0.5.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    for state in ["0", "false", "\"\"", "null", "", " "] {
        peer.signal("@counter@a", "set", state).await;
        let batch = stream.batch().await;
        peer.settle(&batch, vec![success("")], Some(state)).await;
        assert_eq!(
            peer.entity_state("@counter@a").await.as_deref(),
            Some(state)
        );
    }
}

#[tokio::test]
async fn an_entity_is_deleted_by_an_operation_that_leaves_no_state_and_created_from_scratch_after()
{
    // S-12.7, S-12.17, S-12.49.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    peer.signal("@counter@a", "add", "5").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("5")], Some("5")).await;
    peer.signal("@counter@a", "delete", "").await;
    let batch = stream.batch().await;
    assert_eq!(batch.state(), Some("5"));
    peer.settle(&batch, vec![success("")], None).await;
    assert_eq!(peer.find_entity("@counter@a").await, None);
    let page = peer.query_entities(EntityQuery::default()).await.unwrap();
    assert_eq!(page.entities, []);

    peer.signal("@counter@a", "add", "1").await;
    let batch = stream.batch().await;
    assert_eq!(batch.state(), None);
    peer.settle(&batch, vec![success("1")], Some("1")).await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn malformed_and_overlong_ids_are_refused_by_name() {
    // S-12.1, S-1.15.
    let scheduler = Scheduler::start(&[]);
    let peer = Peer::connect(&scheduler).await;
    for id in ["", "counter", "@", "@@", "@@key", "@counter", "counter@key"] {
        let refused = peer.try_signal(signal_request(id, "add", "1")).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument, "{id}");
        let refused = peer.try_find_entity(id, true).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument, "{id}");
    }
    let longest = format!("@counter@{}", "k".repeat(91));
    peer.signal(&longest, "add", "1").await;
    let status = peer
        .try_signal(signal_request(&format!("{longest}k"), "add", "1"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("100"), "{status}");
}

#[tokio::test]
async fn names_ignore_case_and_keys_do_not() {
    // S-12.2: wherever an id enters; the history keeps it as it was sent.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    peer.signal("@Counter@Key", "add", "1").await;
    let batch = stream.batch().await;
    assert_eq!(batch.entity(), "@counter@Key");
    peer.settle(&batch, vec![success("1")], Some("1")).await;
    let found = peer.find_entity("@COUNTER@Key").await.unwrap();
    assert_eq!(found.instance_id, "@counter@Key");
    assert_eq!(peer.find_entity("@counter@key").await, None);

    start(&peer, "a").await;
    let first = orchestrations.episode().await;
    let action = call(1, &fresh_guid(), "@COUNTER@Key", "get", "");
    peer.answer(&first, vec![action]).await;
    let batch = stream.batch().await;
    assert_eq!((batch.entity(), batch.state()), ("@counter@Key", Some("1")));
    peer.settle(&batch, vec![success("1")], Some("1")).await;
    let second = orchestrations.episode().await;
    let history = &second.request.past_events;
    assert_eq!(
        called(&history[2]).target_instance_id.as_deref(),
        Some("@COUNTER@Key")
    );
    peer.answer(&second, vec![complete(2, "1")]).await;
}

#[tokio::test]
async fn keys_may_be_empty_and_hold_the_separator() {
    // S-12.1.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    for (number, id) in ["@counter@", "@counter@@", "@counter@a@b", "@counter@a"]
        .iter()
        .enumerate()
    {
        peer.signal(id, "add", "1").await;
        let batch = stream.batch().await;
        assert_eq!((batch.entity(), batch.state()), (*id, None));
        let state = number.to_string();
        peer.settle(&batch, vec![success("1")], Some(&state)).await;
        assert_eq!(peer.entity_state(id).await, Some(state));
    }
}

#[tokio::test]
async fn a_key_that_python_cannot_read_goes_to_another_worker_if_there_is_one() {
    // S-12.1.
    let scheduler = Scheduler::start(&["--lease-grace", "100ms"]);
    let peer = Peer::connect(&scheduler).await;
    let python = Peer::connect_as(&scheduler, "grpc-python/1.78.0", None).await;
    let mut pythons = python.open().await;
    let mut others = peer.open().await;
    for _ in 0..4 {
        peer.signal("@counter@a@b", "add", "1").await;
        let batch = others.batch().await;
        peer.settle(&batch, vec![success("1")], Some("1")).await;
    }
    pythons.nothing_for(Duration::from_millis(50)).await;
    // What it can read is its work like anybody's, and without another worker it gets everything.
    drop(others);
    peer.signal("@counter@a@b", "add", "1").await;
    assert_eq!(pythons.batch().await.entity(), "@counter@a@b");
}

#[tokio::test]
async fn entities_are_no_orchestrations() {
    // S-12.3, S-11.1, S-11.9, S-10.1.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    peer.signal("@counter@a", "add", "5").await;
    let batch = stream.batch().await;
    peer.settle(&batch, vec![success("5")], Some("5")).await;
    assert_eq!(peer.find("@counter@a").await, None);
    let page = peer
        .client()
        .query_instances(QueryInstancesRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.orchestration_state, []);
    let create = CreateInstanceRequest {
        name: "n".to_owned(),
        instance_id: "@counter@a".to_owned(),
        ..Default::default()
    };
    let refused = peer.create(create).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn hubs_have_entities_of_their_own_and_an_unknown_hub_has_none() {
    // S-1.7, S-12.3.
    let scheduler = Scheduler::start(&["--task-hubs", "default,second"]);
    let peer = Peer::connect(&scheduler).await;
    let second = Peer::connect_as(&scheduler, "", Some("second")).await;
    let mut stream = peer.open().await;
    let mut seconds = second.open().await;
    for (peer, stream, state) in [
        (&peer, &mut stream, "\"default\""),
        (&second, &mut seconds, "\"second\""),
    ] {
        peer.signal("@counter@a", "set", state).await;
        let batch = stream.batch().await;
        assert_eq!(batch.state(), None);
        peer.settle(&batch, vec![success("")], Some(state)).await;
        assert_eq!(
            peer.entity_state("@counter@a").await.as_deref(),
            Some(state)
        );
    }

    let nobody = Peer::connect_as(&scheduler, "", Some("nowhere")).await;
    let refused = [
        nobody
            .try_signal(signal_request("@counter@a", "add", "1"))
            .await
            .unwrap_err(),
        nobody
            .try_find_entity("@counter@a", true)
            .await
            .unwrap_err(),
        nobody
            .query_entities(EntityQuery::default())
            .await
            .unwrap_err(),
        nobody
            .client()
            .clean_entity_storage(CleanEntityStorageRequest::default())
            .await
            .unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(status.message().contains("nowhere"), "{status}");
    }
}
