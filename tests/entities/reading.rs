//! What clients read and remove: single entities, pages of them, purges.

use std::time::Duration;

use mainspring_proto::purge_instances_request::Request as Selection;
use mainspring_proto::{
    CleanEntityStorageRequest, CleanEntityStorageResponse, EntityMetadata, EntityQuery,
    PurgeInstancesRequest,
};
use mainspring_tests::action::{complete, lock};
use mainspring_tests::entity::{signal_request, success, taking};
use mainspring_tests::{Peer, WorkStream};
use prost_types::Timestamp;
use tokio::time::Instant;
use tonic::Code;

use crate::hands::{ends_as, entities, stage, stage_without_entities, start};

/// How long a read waits at most for operations that it found waiting (S-12.38); the rest is for a loaded machine.
const READ_LIMIT: Duration = Duration::from_millis(600);

/// Gives an entity a state.
async fn set(peer: &Peer, stream: &mut WorkStream, entity: &str, state: &str) {
    peer.signal(entity, "set", state).await;
    let batch = stream.batch().await;
    assert_eq!(batch.entity(), entity);
    peer.settle(&batch, vec![success("")], Some(state)).await;
}

#[tokio::test]
async fn a_read_shows_what_its_client_signalled_before() {
    // S-12.38: Python reads at once after it signalled.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    for round in 1..=10 {
        peer.signal("@counter@a", "add", "1").await;
        let state = round.to_string();
        let execute = async {
            let batch = stream.batch().await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            peer.settle(&batch, vec![success("")], Some(&state)).await;
        };
        let (read, ()) = tokio::join!(peer.entity_state("@counter@a"), execute);
        assert_eq!(read, Some(round.to_string()));
    }
}

#[tokio::test]
async fn a_read_waits_neither_for_ever_nor_for_nothing() {
    // S-12.38: 200 ms at most, and not at all where nothing is queued, nobody may take it, a lock holds it back, or it is
    // not due.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    set(&peer, &mut stream, "@counter@a", "0").await;
    peer.signal("@counter@a", "add", "1").await;
    let batch = stream.batch().await;
    let begun = Instant::now();
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("0"));
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_millis(100) && waited < READ_LIMIT,
        "{waited:?}"
    );
    let found = peer.find_entity("@counter@a").await.unwrap();
    assert_eq!(found.backlog_queue_size, 1);
    peer.settle(&batch, vec![success("")], Some("1")).await;

    at_once(&peer, "@counter@a", Some("1")).await;
    peer.signal("@nobodys@a", "add", "1").await;
    at_once(&peer, "@nobodys@a", None).await;
    let mut later = signal_request("@counter@a", "add", "1");
    later.scheduled_time = Some((std::time::SystemTime::now() + Duration::from_secs(60)).into());
    peer.try_signal(later).await.unwrap();
    at_once(&peer, "@counter@a", Some("1")).await;
    start(&peer, "o").await;
    let episode = orchestrations.episode().await;
    peer.answer(&episode, vec![lock(1, "o", "s", &["@counter@a"])])
        .await;
    let episode = orchestrations.episode().await;
    peer.signal("@counter@a", "add", "1").await;
    at_once(&peer, "@counter@a", Some("1")).await;
    peer.answer(&episode, vec![complete(2, "1")]).await;
}

/// Reads a few times and expects at least one answer without any wait: others may be slow for other reasons.
async fn at_once(peer: &Peer, entity: &str, state: Option<&str>) {
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(peer.entity_state(entity).await.as_deref(), state);
        least = least.min(begun.elapsed());
    }
    assert!(least < Duration::from_millis(100), "{entity}: {least:?}");
}

/// All pages of a query, and how long each is.
async fn pages(peer: &Peer, mut query: EntityQuery) -> (Vec<EntityMetadata>, Vec<usize>) {
    let (mut found, mut lengths) = (Vec::new(), Vec::new());
    loop {
        let page = peer.query_entities(query.clone()).await.unwrap();
        lengths.push(page.entities.len());
        found.extend(page.entities);
        match page.continuation_token {
            None => return (found, lengths),
            Some(token) => {
                assert!(!token.is_empty(), "S-11.12, .NET would page for ever");
                query.continuation_token = Some(token);
            }
        }
    }
}

fn ids(found: &[EntityMetadata]) -> Vec<&str> {
    found
        .iter()
        .map(|entity| entity.instance_id.as_str())
        .collect()
}

#[tokio::test]
async fn a_query_comes_in_pages_in_the_order_of_ids() {
    // S-12.39, S-11.12.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    let mut wanted = Vec::new();
    for key in ["c", "B", "", "a@b", "é", "10", "9"] {
        let id = format!("@counter@{key}");
        set(&peer, &mut stream, &id, &format!("\"{key}\"")).await;
        wanted.push(id);
    }
    wanted.sort();
    let by = |size: i32| EntityQuery {
        page_size: Some(size),
        include_state: true,
        ..Default::default()
    };
    for (size, lengths) in [
        (3, vec![3, 3, 1]),
        (7, vec![7]),
        (1_000_000, vec![7]),
        (6, vec![6, 1]),
    ] {
        let (found, pages) = pages(&peer, by(size)).await;
        assert_eq!(ids(&found), wanted);
        assert_eq!(pages, lengths, "by {size}");
        for entity in found {
            let key = entity.instance_id.strip_prefix("@counter@").unwrap();
            assert_eq!(entity.serialized_state, Some(format!("\"{key}\"")));
            assert!(entity.last_modified_time.is_some(), "S-1.18");
        }
    }
    let (found, _) = pages(&peer, EntityQuery::default()).await;
    assert!(found.iter().all(|entity| entity.serialized_state.is_none()));
}

#[tokio::test]
async fn a_page_goes_on_by_another_size_and_after_a_crash() {
    // S-11.11, S-11.12: a token says a place and nothing else; one that nobody gave is refused, and an empty one is none.
    let (mut scheduler, peer, _orchestrations, mut stream) = stage().await;
    for key in 0..6 {
        set(&peer, &mut stream, &format!("@counter@{key}"), "1").await;
    }
    let mut query = EntityQuery {
        page_size: Some(2),
        continuation_token: Some(String::new()),
        ..Default::default()
    };
    let page = peer.query_entities(query.clone()).await.unwrap();
    assert_eq!(ids(&page.entities), ["@counter@0", "@counter@1"]);
    scheduler.kill();
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    query.page_size = Some(3);
    query.continuation_token = page.continuation_token;
    let page = peer.query_entities(query.clone()).await.unwrap();
    assert_eq!(
        ids(&page.entities),
        ["@counter@2", "@counter@3", "@counter@4"]
    );
    for token in ["garbage", "counter", "0", "\u{1f980}", &"t".repeat(9_000)] {
        query.continuation_token = Some(token.to_owned());
        let refused = peer.query_entities(query.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{token}");
    }
}

#[tokio::test]
async fn a_page_has_a_hundred_entities_where_nobody_says_otherwise() {
    // S-12.39.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    for number in 0..105 {
        peer.signal(&format!("@counter@{number:03}"), "set", "1")
            .await;
    }
    for _ in 0..105 {
        let batch = stream.batch().await;
        peer.settle(&batch, vec![success("")], Some("1")).await;
    }
    let (_, lengths) = pages(&peer, EntityQuery::default()).await;
    assert_eq!(lengths, [100, 5]);
}

#[tokio::test]
async fn a_query_by_prefix_ignores_case_in_names_only() {
    // S-12.39, S-12.2: the at-sign may be missing; empty means no filter.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    for id in [
        "@counter@Key1",
        "@counter@Key2",
        "@counter@key1",
        "@other@Key1",
    ] {
        set(&peer, &mut stream, id, "1").await;
    }
    for (prefix, wanted) in [
        ("", 4),
        ("@", 4),
        ("counter", 3),
        ("@COUNTER", 3),
        ("@Counter@", 3),
        ("Counter@Key", 2),
        ("@counter@Key1", 1),
        ("@counter@KEY", 0),
        ("@oth", 1),
        ("@ther", 0),
        ("@counter@Key1x", 0),
    ] {
        let query = EntityQuery {
            instance_id_starts_with: Some(prefix.to_owned()),
            ..Default::default()
        };
        let (found, _) = pages(&peer, query).await;
        assert_eq!(found.len(), wanted, "'{prefix}': {found:?}");
    }
}

#[tokio::test]
async fn a_query_by_time_includes_both_ends() {
    // S-12.39, S-1.18.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    for key in ["a", "b", "c"] {
        set(&peer, &mut stream, &format!("@counter@{key}"), "1").await;
    }
    let (all, _) = pages(&peer, EntityQuery::default()).await;
    let time = all[1].last_modified_time;
    let between = |from: Option<Timestamp>, to: Option<Timestamp>| EntityQuery {
        last_modified_from: from,
        last_modified_to: to,
        ..Default::default()
    };
    let earliest = Some(Timestamp {
        seconds: -62_135_596_800,
        nanos: 0,
    });
    let latest = Some(Timestamp {
        seconds: 253_402_300_799,
        nanos: 999_999_999,
    });
    for (query, wanted) in [
        (between(time, time), vec!["@counter@b"]),
        (between(None, time), vec!["@counter@a", "@counter@b"]),
        (between(time, None), vec!["@counter@b", "@counter@c"]),
        (
            between(earliest, latest),
            vec!["@counter@a", "@counter@b", "@counter@c"],
        ),
        (between(latest, None), vec![]),
    ] {
        let (found, _) = pages(&peer, query.clone()).await;
        assert_eq!(ids(&found), wanted, "{query:?}");
    }
}

#[tokio::test]
async fn entities_without_a_state_are_listed_only_on_request() {
    // S-12.39: a backlog or a lock makes a record, a delayed signal does not make an entity.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    set(&peer, &mut stream, "@counter@state", "1").await;
    for operation in ["1", "2"] {
        peer.signal("@nobodys@backlog", operation, "").await;
    }
    start(&peer, "o").await;
    let episode = orchestrations.episode().await;
    peer.answer(&episode, vec![lock(1, "o", "s", &["@counter@locked"])])
        .await;
    let granted = orchestrations.episode().await;

    let (found, _) = pages(&peer, EntityQuery::default()).await;
    assert_eq!(ids(&found), ["@counter@state"]);
    let everything = EntityQuery {
        include_transient: true,
        include_state: true,
        ..Default::default()
    };
    let (found, _) = pages(&peer, everything.clone()).await;
    assert_eq!(
        ids(&found),
        ["@counter@locked", "@counter@state", "@nobodys@backlog"]
    );
    let [locked, state, backlog] = &found[..] else {
        unreachable!("their ids were compared");
    };
    assert_eq!(locked.locked_by.as_deref(), Some("o"));
    assert_eq!(
        (&locked.serialized_state, locked.backlog_queue_size),
        (&None, 0)
    );
    assert_eq!(state.serialized_state.as_deref(), Some("1"));
    assert_eq!((&state.locked_by, state.backlog_queue_size), (&None, 0));
    assert_eq!(backlog.backlog_queue_size, 2);
    for entity in &found {
        assert!(entity.last_modified_time.is_some(), "S-1.18: {entity:?}");
    }

    peer.answer(&granted, vec![complete(2, "1")]).await;
    ends_as(&peer, "o", mainspring_proto::OrchestrationStatus::Completed).await;
    let (found, _) = pages(&peer, everything).await;
    assert!(
        found.iter().all(|entity| entity.locked_by.is_none()),
        "{found:?}"
    );
}

#[tokio::test]
async fn cleaning_removes_nothing_and_says_so() {
    // S-12.40: leftovers go by themselves.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    set(&peer, &mut stream, "@counter@a", "1").await;
    peer.signal("@nobodys@a", "add", "1").await;
    let request = CleanEntityStorageRequest {
        continuation_token: None,
        remove_empty_entities: true,
        release_orphaned_locks: true,
    };
    let response = peer.client().clean_entity_storage(request).await.unwrap();
    assert_eq!(response.into_inner(), CleanEntityStorageResponse::default());
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("1"));
    let mut nobodys = peer.open_with(taking(&[], &["nobodys"])).await;
    assert_eq!(nobodys.batch().await.names(), ["add"]);
}

/// Purges an id and returns how many records that removed.
async fn purge(peer: &Peer, id: &str, is_orchestration: bool) -> i32 {
    let request = PurgeInstancesRequest {
        request: Some(Selection::InstanceId(id.to_owned())),
        is_orchestration,
        ..Default::default()
    };
    let response = peer.client().purge_instances(request).await.unwrap();
    let response = response.into_inner();
    assert_eq!(response.is_complete, Some(true), "S-11.22");
    response.deleted_instance_count
}

#[tokio::test]
async fn a_purge_removes_an_idle_entity_with_its_state_and_backlog() {
    // S-11.23.
    let (_scheduler, peer, _orchestrations, mut stream) = stage().await;
    set(&peer, &mut stream, "@counter@a", "1").await;
    assert_eq!(purge(&peer, "@counter@a", true).await, 0);
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("1"));
    assert_eq!(purge(&peer, "@Counter@a", false).await, 1);
    assert_eq!(peer.find_entity("@counter@a").await, None);
    assert_eq!(purge(&peer, "@counter@a", false).await, 0);
    assert_eq!(purge(&peer, "@counter@never", false).await, 0);

    peer.signal("@nobodys@a", "lost", "").await;
    assert_eq!(purge(&peer, "@nobodys@a", false).await, 1);
    peer.signal("@nobodys@a", "kept", "").await;
    let mut stream = peer.open_with(taking(&[], &["nobodys"])).await;
    let batch = stream.batch().await;
    assert_eq!(
        (batch.names(), batch.state()),
        (vec!["kept".to_owned()], None)
    );
}

#[tokio::test]
async fn a_purge_leaves_locked_and_busy_entities_alone() {
    // S-11.23.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    for entity in ["@counter@locked", "@counter@busy"] {
        set(&peer, &mut stream, entity, "1").await;
    }
    start(&peer, "o").await;
    let episode = orchestrations.episode().await;
    peer.answer(&episode, vec![lock(1, "o", "s", &["@counter@locked"])])
        .await;
    orchestrations.episode().await;
    peer.signal("@counter@busy", "add", "1").await;
    let batch = stream.batch().await;
    for entity in ["@counter@locked", "@counter@busy"] {
        assert_eq!(purge(&peer, entity, false).await, 0, "{entity}");
    }
    peer.settle(&batch, vec![success("")], Some("2")).await;
    assert_eq!(
        peer.entity_state("@counter@busy").await.as_deref(),
        Some("2")
    );
    assert_eq!(
        peer.locked_by("@counter@locked").await.as_deref(),
        Some("o")
    );
}

#[tokio::test]
async fn a_purged_entity_stays_purged_over_a_crash() {
    // S-11.23, S-0.6.
    let (mut scheduler, peer, _orchestrations, mut stream) = stage().await;
    set(&peer, &mut stream, "@counter@a", "1").await;
    assert_eq!(purge(&peer, "@counter@a", false).await, 1);
    scheduler.kill();
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    assert_eq!(peer.find_entity("@counter@a").await, None);
    let (found, _) = pages(&peer, EntityQuery::default()).await;
    assert_eq!(found, []);
}

#[tokio::test]
async fn a_signal_that_is_sent_again_is_executed_once() {
    // S-12.37: by its request id and its entity, GUID or not, also after a crash and after it was executed.
    let (mut scheduler, peer, _orchestrations) = stage_without_entities().await;
    let signals: Vec<_> = ["@counter@a", "@counter@b"]
        .into_iter()
        .flat_map(|entity| {
            let guid = signal_request(entity, "guid", "1");
            let mut text = signal_request(entity, "text", "1");
            text.request_id = "no guid".to_owned();
            [guid, text]
        })
        .collect();
    for signal in signals.iter().chain(&signals) {
        peer.try_signal(signal.clone()).await.unwrap();
    }
    scheduler.kill();
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    for signal in &signals {
        peer.try_signal(signal.clone()).await.unwrap();
    }
    let mut stream = entities(&peer).await;
    for _ in 0..2 {
        let batch = stream.batch().await;
        assert_eq!(batch.names(), ["guid", "text"]);
        let results = vec![success(""), success("")];
        peer.settle(&batch, results, Some("1")).await;
    }
    for signal in &signals {
        peer.try_signal(signal.clone()).await.unwrap();
    }
    stream.nothing_for(Duration::from_millis(150)).await;
}

#[tokio::test]
async fn signals_without_a_request_id_are_all_executed() {
    // S-12.37: each gets an id of its own.
    let (_scheduler, peer, _orchestrations) = stage_without_entities().await;
    for operation in ["1", "2", "3"] {
        let mut signal = signal_request("@counter@a", operation, "");
        signal.request_id = String::new();
        peer.try_signal(signal).await.unwrap();
    }
    let mut stream = entities(&peer).await;
    assert_eq!(stream.batch().await.names(), ["1", "2", "3"]);
}
