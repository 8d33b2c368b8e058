//! Messages spliced from encoded parts decode to what the ordinary types encode.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use mainspring_proto::history_event::EventType;
use mainspring_proto::raw::{
    CHUNK_EVENTS_FIELD, NEW_EVENTS_FIELD, PAST_EVENTS_FIELD, frame_events, retag_events,
};
use mainspring_proto::{
    HistoryChunk, HistoryEvent, OrchestratorRequest, RawHistoryChunk, RawWorkItem,
    TaskScheduledEvent, WorkItem, lazy, v1, work_item,
};
use prost::Message;

/// An event with tags, an input of `id` bytes and a timestamp.
fn event(id: i32) -> HistoryEvent {
    HistoryEvent {
        event_id: id,
        timestamp: Some(prost_types::Timestamp {
            seconds: 1_700_000_000 + i64::from(id),
            nanos: id,
        }),
        event_type: Some(EventType::TaskScheduled(TaskScheduledEvent {
            name: format!("activity-{id}"),
            input: Some("x".repeat(usize::try_from(id).unwrap())),
            tags: [
                ("b".to_owned(), "2".to_owned()),
                ("a".to_owned(), "1".to_owned()),
            ]
            .into(),
            ..Default::default()
        })),
    }
}

fn framed(field: u32, ids: std::ops::Range<i32>) -> Bytes {
    let events: Vec<HistoryEvent> = ids.map(event).collect();
    let mut buffer = BytesMut::new();
    frame_events(field, &events, &mut buffer);
    buffer.freeze()
}

fn request(past: std::ops::Range<i32>) -> OrchestratorRequest {
    OrchestratorRequest {
        instance_id: "order-17".to_owned(),
        execution_id: Some("execution-1".to_owned()),
        past_events: past.map(event).collect(),
        new_events: vec![event(900)],
        ..Default::default()
    }
}

fn item(request: OrchestratorRequest, completion_token: &str) -> WorkItem {
    WorkItem {
        request: Some(work_item::Request::OrchestratorRequest(request)),
        completion_token: completion_token.to_owned(),
    }
}

#[test]
fn a_turn_spliced_from_stored_events_decodes_like_an_encoded_one() {
    let raw = RawWorkItem::orchestrator(
        &request(0..0),
        [
            framed(PAST_EVENTS_FIELD, 0..40),
            framed(PAST_EVENTS_FIELD, 40..300),
        ],
        "token-1",
    );
    let encoded = raw.encode_to_vec();
    assert_eq!(encoded.len(), raw.encoded_len());
    assert_eq!(
        WorkItem::decode(&encoded[..]).unwrap(),
        item(request(0..300), "token-1")
    );
}

#[test]
fn a_turn_without_past_events_and_token_has_the_ordinary_encoding() {
    let raw = RawWorkItem::orchestrator(&request(0..0), [], "");
    assert_eq!(raw.encode_to_vec(), item(request(0..0), "").encode_to_vec());
}

#[test]
fn past_events_of_the_request_come_before_the_spliced_ones() {
    let raw =
        RawWorkItem::orchestrator(&request(0..2), [framed(PAST_EVENTS_FIELD, 2..5)], "token-1");
    assert_eq!(
        WorkItem::decode(&raw.encode_to_vec()[..]).unwrap(),
        item(request(0..5), "token-1")
    );
}

#[test]
fn stored_events_can_be_sent_as_a_history_chunk() {
    let stored = framed(PAST_EVENTS_FIELD, 0..200);
    let chunk =
        RawHistoryChunk::from_parts(vec![retag_events(CHUNK_EVENTS_FIELD, stored).unwrap()]);
    assert_eq!(
        HistoryChunk::decode(&chunk.encode_to_vec()[..]).unwrap(),
        HistoryChunk {
            events: (0..200).map(event).collect()
        }
    );
}

#[test]
fn events_change_their_field_without_changing_their_bodies() {
    assert_eq!(
        retag_events(PAST_EVENTS_FIELD, framed(NEW_EVENTS_FIELD, 0..20)).unwrap(),
        framed(PAST_EVENTS_FIELD, 0..20)
    );
}

#[test]
fn a_cut_run_of_events_is_refused() {
    let stored = framed(PAST_EVENTS_FIELD, 5..6);
    let cut = stored.slice(..stored.len() - 1);
    assert!(retag_events(CHUNK_EVENTS_FIELD, cut).is_err());
}

#[test]
fn an_ordinary_message_survives_the_way_through_its_raw_form() {
    let message = item(request(0..3), "token-1");
    let raw = RawWorkItem::from(&message);
    assert_eq!(WorkItem::decode(&raw.encode_to_vec()[..]).unwrap(), message);

    let received = RawWorkItem::decode(&message.encode_to_vec()[..]).unwrap();
    assert_eq!(received.parts().len(), 2, "one part per field");
    assert_eq!(received.encode_to_vec(), message.encode_to_vec());
}

#[test]
fn a_lazy_work_item_holds_each_past_event_as_it_was_sent() {
    let message = item(request(0..50), "token-1");
    let encoded = Bytes::from(message.encode_to_vec());
    let lazy = lazy::WorkItem::decode(encoded.clone()).unwrap();
    assert_eq!(lazy.encode_to_vec(), encoded);
    let Some(lazy::work_item::Request::OrchestratorRequest(request)) = lazy.request else {
        panic!("the item is a turn");
    };
    assert_eq!(lazy.completion_token, "token-1");
    assert_eq!(request.new_events, [event(900)]);
    let past = request.past_events.into_iter();
    let decoded: Vec<_> = past
        .inspect(|past| {
            let memory = encoded.as_ptr_range();
            assert!(memory.contains(&past.as_ptr()), "an event was copied");
        })
        .map(|past| HistoryEvent::decode(past).unwrap())
        .collect();
    assert_eq!(decoded, (0..50).map(event).collect::<Vec<_>>());
}

#[test]
fn what_a_work_stream_sends_spliced_is_what_its_client_reads() {
    let raw = RawWorkItem::orchestrator(
        &request(0..0),
        [framed(PAST_EVENTS_FIELD, 0..40)],
        "token-1",
    );
    let receipt = v1::Receipt {
        number: 7,
        code: 3,
        message: "no".to_owned(),
    };
    let sent = v1::server::ToWorker {
        items: vec![v1::server::Item {
            item: Some(raw),
            kept_events: 9,
        }],
        receipts: vec![receipt.clone()],
    };
    let read = v1::ToWorker::decode(sent.encode_to_vec().as_slice()).unwrap();
    let whole = item(request(0..40), "token-1").encode_to_vec();
    assert_eq!(
        read,
        v1::ToWorker {
            items: vec![v1::Item {
                item: Some(lazy::WorkItem::decode(whole.as_slice()).unwrap()),
                kept_events: 9,
            }],
            receipts: vec![receipt],
        }
    );
}

#[test]
fn equal_messages_have_equal_encodings() {
    // Map fields are ordered by key, whatever the order of insertion.
    let mut other = event(1);
    let Some(EventType::TaskScheduled(scheduled)) = &mut other.event_type else {
        panic!("the event is a scheduled task");
    };
    scheduled.tags = [
        ("a".to_owned(), "1".to_owned()),
        ("b".to_owned(), "2".to_owned()),
    ]
    .into();
    assert_eq!(other.encode_to_vec(), event(1).encode_to_vec());
}
