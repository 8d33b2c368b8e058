//! Which workers get the batches of which entities.

use std::time::Duration;

use mainspring_proto::{GetWorkItemsRequest, WorkItemFilters};
use mainspring_tests::Peer;
use mainspring_tests::entity::{success, taking};
use tonic::Code;

use crate::hands::{stage, stage_without_entities};

#[tokio::test]
async fn filters_name_entities_in_any_case_and_hold_back_no_others() {
    // S-12.12, S-13.9, S-13.11, S-13.12.
    let (_scheduler, peer, mut orchestrations) = stage_without_entities().await;
    peer.signal("@nobodys@a", "waits", "").await;
    peer.signal("@counter@a", "1", "").await;
    let mut stream = peer.open_with(taking(&[], &["COUNTER", "counter"])).await;
    let batch = stream.batch().await;
    assert_eq!(batch.entity(), "@counter@a");
    peer.settle(&batch, vec![success("")], Some("1")).await;
    stream.nothing_for(Duration::from_millis(100)).await;
    // A filter without entities takes none (S-13.9).
    orchestrations.nothing_for(Duration::from_millis(50)).await;
    // What waited comes when somebody is there for it, and an empty filter takes everything, as .NET means it.
    let everything = GetWorkItemsRequest {
        work_item_filters: Some(WorkItemFilters::default()),
        ..Default::default()
    };
    let mut everything = peer.open_with(everything).await;
    assert_eq!(everything.batch().await.entity(), "@nobodys@a");
}

#[tokio::test]
async fn workers_that_swallow_entities_get_none() {
    // S-13.8: Java and Go state no limit and never answer; Java with entities states one.
    let (scheduler, peer, _orchestrations) = stage_without_entities().await;
    peer.signal("@counter@a", "1", "").await;
    for agent in ["app grpc-java-netty/1.60.0", "grpc-go/1.60.0"] {
        let connection = Peer::connect_as(&scheduler, agent, None).await;
        let mut stream = connection.open().await;
        stream.nothing_for(Duration::from_millis(100)).await;
    }
    let java = Peer::connect_as(&scheduler, "grpc-java-netty/1.75.0", None).await;
    let with_entities = GetWorkItemsRequest {
        max_concurrent_entity_work_items: 1,
        ..Default::default()
    };
    let mut stream = java.open_with(with_entities).await;
    let batch = stream.batch().await;
    java.settle(&batch, vec![success("")], Some("1")).await;
    assert_eq!(peer.entity_state("@counter@a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_stream_holds_no_more_batches_than_it_said() {
    // S-13.6, S-13.7; without a limit it gets many at once, as Python and JavaScript do.
    let (_scheduler, peer, _orchestrations) = stage_without_entities().await;
    for key in 0..20 {
        peer.signal(&format!("@counter@{key:02}"), "1", "").await;
    }
    let two = GetWorkItemsRequest {
        max_concurrent_entity_work_items: 2,
        ..taking(&[], &["counter"])
    };
    let mut limited = peer.open_with(two).await;
    let mut held = vec![limited.batch().await, limited.batch().await];
    limited.nothing_for(Duration::from_millis(100)).await;
    for _ in 0..3 {
        let batch = held.remove(0);
        peer.settle(&batch, vec![success("")], Some("1")).await;
        held.push(limited.batch().await);
        limited.nothing_for(Duration::from_millis(20)).await;
    }
    let mut unlimited = peer.open_with(taking(&[], &["counter"])).await;
    for _ in 0..15 {
        unlimited.batch().await;
    }
}

#[tokio::test]
async fn busy_entities_hold_back_neither_others_nor_orchestrations() {
    // S-13.12, S-13.15.
    let (_scheduler, peer, mut orchestrations, mut stream) = stage().await;
    peer.signal("@counter@slow", "1", "").await;
    let slow = stream.batch().await;
    for round in 0..20 {
        peer.signal("@counter@slow", "more", "").await;
        peer.signal("@counter@quick", "1", "").await;
        let quick = stream.batch().await;
        assert_eq!(quick.entity(), "@counter@quick");
        peer.settle(&quick, vec![success("")], Some("1")).await;
        peer.start("n", &format!("o{round}")).await;
        orchestrations.episode().await;
    }
    peer.settle(&slow, vec![success("")], Some("1")).await;
    assert_eq!(stream.batch().await.names(), ["more"; 20]);
}

#[tokio::test]
async fn batches_are_spread_over_streams() {
    // S-13.15.
    let (_scheduler, peer, _orchestrations) = stage_without_entities().await;
    let mut one = peer.open_with(taking(&[], &["counter"])).await;
    let mut two = peer.open_with(taking(&[], &["counter"])).await;
    assert!(two.message().await.unwrap().is_some(), "it is open");
    for key in 0..10 {
        peer.signal(&format!("@counter@{key}"), "1", "").await;
    }
    for _ in 0..5 {
        one.batch().await;
        two.batch().await;
    }
}

#[tokio::test]
async fn a_stop_ends_streams_and_keeps_what_waits() {
    // S-1.14: a batch in hand comes again after the next start.
    let (mut scheduler, peer, _orchestrations, mut stream) = stage().await;
    peer.signal("@counter@a", "1", "").await;
    let batch = stream.batch().await;
    scheduler.drain();
    let status = stream.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(scheduler.ended().await.success());
    scheduler.restart();
    let peer = Peer::connect(&scheduler).await;
    let mut stream = peer.open().await;
    let again = stream.batch().await;
    assert_eq!(again.request, batch.request);
}
