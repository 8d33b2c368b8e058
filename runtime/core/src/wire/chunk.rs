//! Runs of encoded events: how history is stored, and how it goes out.
//!
//! A stored chunk is a run of events framed as `OrchestratorRequest.pastEvents`, so that a work
//! item takes it in as it is. Event bodies are never decoded here.

use bytes::{Bytes, BytesMut};

use super::decode::body_field;
use super::encode::field::EXECUTION_REWOUND;
use super::reader::{Malformed, Reader};
use super::writer::{Writer, framed_length, varint_bytes};
use crate::error::Error;
use crate::history::EncodedEvent;

/// Field number of `OrchestratorRequest.pastEvents`.
const PAST_EVENTS: u32 = 3;

/// Field number of `HistoryChunk.events`.
const CHUNK_EVENTS: u32 = 1;

/// Frames events as they are stored: `OrchestratorRequest.pastEvents`, one after the other.
pub fn frame_past(events: &[EncodedEvent]) -> Bytes {
    let mut writer = Writer::with_capacity(framed_bytes(events));
    for event in events {
        writer.body(PAST_EVENTS, event.bytes());
    }
    writer.finish()
}

/// Encoded size of events once they are framed, in bytes; the same in every message.
pub(super) fn framed_bytes(events: &[EncodedEvent]) -> usize {
    events.iter().map(|event| framed_length(event.len())).sum()
}

/// Splits a stored chunk into its events, without copying or decoding them.
///
/// Errors: `Corrupt` if it is no run of framed events.
pub fn split_chunk(chunk: &Bytes) -> Result<Vec<EncodedEvent>, Error> {
    let mut events = Vec::new();
    let mut reader = Reader::new(chunk);
    while let Some((_, value)) = reader.next()? {
        let body = chunk.slice_ref(value.body()?);
        events.push(EncodedEvent::from_encoded(body));
    }
    Ok(events)
}

/// Puts stored chunks into `HistoryChunk` messages, for clients: every event, in order.
///
/// Each message is given as parts to be sent back to back, together below `bytes_max` bytes,
/// unless a single event is larger: that one is a message of its own (S-3.27).
///
/// Errors: `Corrupt` if a chunk is no run of framed events.
pub fn history_chunks(chunks: &[Bytes], bytes_max: usize) -> Result<Vec<Vec<Bytes>>, Error> {
    let mut messages = Vec::new();
    let mut message = BytesMut::new();
    for chunk in chunks {
        let mut reader = Reader::new(chunk);
        while let Some((_, value)) = reader.next()? {
            let body = value.body()?;
            if !message.is_empty() && message.len() + framed_length(body.len()) >= bytes_max {
                messages.push(vec![message.split().freeze()]);
            }
            append(&mut message, body);
        }
    }
    if !message.is_empty() {
        messages.push(vec![message.freeze()]);
    }
    Ok(messages)
}

fn append(message: &mut BytesMut, body: &[u8]) {
    let mut frame = Writer::with_capacity(1 + varint_bytes(body.len() as u64));
    frame.open(CHUNK_EVENTS, body.len());
    message.extend_from_slice(&frame.finish());
    message.extend_from_slice(body);
}

/// As [`history_chunks`], for the worker that holds the work item: markers of rewinds, which some
/// SDKs cannot read, are left out (S-9.14).
///
/// Errors: `Corrupt` if a chunk is no run of framed events.
pub fn worker_history(chunks: &[Bytes], bytes_max: usize) -> Result<Vec<Vec<Bytes>>, Error> {
    let mut shown = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        without_rewound(chunk, &mut shown)?;
    }
    history_chunks(&shown, bytes_max)
}

/// Adds to `shown` the parts of a stored chunk around its `ExecutionRewound` events, without
/// copying them: the chunk as it is where there are none.
pub(super) fn without_rewound(chunk: &Bytes, shown: &mut Vec<Bytes>) -> Result<(), Malformed> {
    let mut reader = Reader::new(chunk);
    let (mut run_start, mut event_start) = (0, 0);
    while let Some((_, value)) = reader.next()? {
        let event_end = chunk.len() - reader.remaining();
        if body_field(value.body()?)? == EXECUTION_REWOUND {
            if run_start < event_start {
                shown.push(chunk.slice(run_start..event_start));
            }
            run_start = event_end;
        }
        event_start = event_end;
    }
    if run_start < chunk.len() {
        shown.push(chunk.slice(run_start..));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mainspring_proto::{HistoryChunk, OrchestratorRequest};
    use prost::Message as _;

    use super::*;
    use crate::error::ErrorKind;
    use crate::history::{EventKind, HistoryEvent};
    use crate::time::Timestamp;
    use crate::wire::fixtures::every_event;
    use crate::wire::{decode_chunk, encode};

    fn encoded(events: &[HistoryEvent]) -> Vec<EncodedEvent> {
        events.iter().map(encode).collect()
    }

    fn raised(size: usize) -> EncodedEvent {
        encode(&HistoryEvent {
            id: -1,
            at: Timestamp::new(1, 0),
            kind: EventKind::EventRaised {
                name: "go".into(),
                input: Some("x".repeat(size)),
            },
        })
    }

    fn rewound() -> EncodedEvent {
        encode(&HistoryEvent {
            id: -1,
            at: Timestamp::new(2, 0),
            kind: EventKind::ExecutionRewound(Box::default()),
        })
    }

    fn decode_messages(messages: &[Vec<Bytes>]) -> Vec<HistoryChunk> {
        messages
            .iter()
            .map(|parts| HistoryChunk::decode(parts.concat().as_slice()).unwrap())
            .collect()
    }

    #[test]
    fn a_framed_chunk_is_the_past_events_field_of_a_work_item() {
        let events = every_event();
        let chunk = frame_past(&encoded(&events));
        assert_eq!(chunk.len(), framed_bytes(&encoded(&events)));
        let request = OrchestratorRequest::decode(chunk.clone()).unwrap();
        assert_eq!(request.past_events.len(), events.len());
        assert_eq!(request.encode_to_vec(), chunk);
    }

    #[test]
    fn a_chunk_splits_into_the_events_it_was_made_of() {
        let events = encoded(&every_event());
        let chunk = frame_past(&events);
        assert_eq!(split_chunk(&chunk).unwrap(), events);
        assert_eq!(decode_chunk(&chunk).unwrap(), every_event());
        assert_eq!(split_chunk(&Bytes::new()).unwrap(), []);
    }

    #[test]
    fn a_chunk_that_is_cut_short_is_corrupt() {
        let chunk = frame_past(&[raised(10)]);
        let cut = chunk.slice(..chunk.len() - 1);
        for error in [
            split_chunk(&cut).unwrap_err(),
            decode_chunk(&cut).unwrap_err(),
            history_chunks(std::slice::from_ref(&cut), 100).unwrap_err(),
            worker_history(&[cut], 100).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }

    /// S-3.27: chunks stay below the limit, an event is never split, order is kept.
    #[test]
    fn history_goes_out_in_messages_below_the_limit() {
        let sizes = [10, 100, 400, 5, 2_000, 1, 300, 300];
        let events: Vec<_> = sizes.into_iter().map(raised).collect();
        let stored = [frame_past(&events[..3]), frame_past(&events[3..])];
        let messages = history_chunks(&stored, 600).unwrap();
        for parts in &messages {
            let bytes: usize = parts.iter().map(Bytes::len).sum();
            let alone = decode_messages(std::slice::from_ref(parts))[0].events.len() == 1;
            assert!(bytes < 600 || alone, "{bytes}");
        }
        let sent: Vec<_> = decode_messages(&messages)
            .into_iter()
            .flat_map(|message| message.events)
            .map(|event| EncodedEvent::from_encoded(event.encode_to_vec().into()))
            .collect();
        assert_eq!(sent, events);
        assert!(messages.len() < events.len());
    }

    /// S-3.29.
    #[test]
    fn an_empty_history_needs_no_message() {
        assert!(history_chunks(&[], 100).unwrap().is_empty());
        assert!(history_chunks(&[Bytes::new()], 100).unwrap().is_empty());
    }

    /// S-9.14: clients see the marker, workers don't.
    #[test]
    fn markers_of_rewinds_are_kept_from_workers_alone() {
        let [a, b, r] = [raised(1), raised(2), rewound()];
        for events in [
            vec![&a, &b],
            vec![&r],
            vec![&r, &a, &b],
            vec![&a, &r, &r, &b, &r],
        ] {
            let events: Vec<_> = events.into_iter().cloned().collect();
            let chunk = frame_past(&events);
            let mut shown = Vec::new();
            without_rewound(&chunk, &mut shown).unwrap();
            let expected: Vec<_> = events.iter().filter(|e| **e != r).cloned().collect();
            assert_eq!(shown.concat(), frame_past(&expected));

            let stored = [chunk];
            let to_worker = decode_messages(&worker_history(&stored, 1_000).unwrap());
            let to_client = decode_messages(&history_chunks(&stored, 1_000).unwrap());
            let count = |messages: &[HistoryChunk]| -> usize {
                messages.iter().map(|message| message.events.len()).sum()
            };
            assert_eq!(count(&to_worker), expected.len());
            assert_eq!(count(&to_client), events.len());
        }
    }

    #[test]
    fn a_chunk_without_markers_is_passed_on_whole() {
        let chunk = frame_past(&encoded(&every_event()[..3]));
        let mut shown = Vec::new();
        without_rewound(&chunk, &mut shown).unwrap();
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].as_ptr(), chunk.as_ptr());
    }
}
