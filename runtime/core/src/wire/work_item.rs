//! Work items, written around what is encoded already.
//!
//! Each is given as parts to be sent back to back. Stored history is among them as it lies in the
//! store: it is neither copied nor decoded on its way to a worker.

use bytes::Bytes;

use super::chunk::{framed_bytes, without_rewound};
use super::writer::{Writer, framed_length};
use crate::effect::ActivityTask;
use crate::history::EncodedEvent;
use crate::id::{ExecutionId, InstanceId};
use crate::message::EpisodeTrace;
use crate::orchestration::{Episode, Orchestration};

// Field numbers of `WorkItem`.
const ORCHESTRATOR_REQUEST: u32 = 1;
const ACTIVITY_REQUEST: u32 = 2;
const HEALTH_PING: u32 = 4;
const COMPLETION_TOKEN: u32 = 10;

/// Field number of `OrchestratorRequest.newEvents`.
const NEW_EVENTS: u32 = 4;

/// Number of an instance's first generation, which no rewind can have led to.
const FIRST_GENERATION: u32 = 1;

/// An orchestrator work item.
///
/// `past` holds the stored chunks of the current generation, oldest first; it is not sent if
/// `stream_history` asks the worker to fetch the history instead (S-3.26). Markers of rewinds are
/// left out (S-9.14).
pub fn orchestrator_work_item(
    o: &Orchestration,
    past: &[Bytes],
    episode: &Episode,
    stream_history: bool,
    token: &str,
) -> Vec<Bytes> {
    Request::new(o, past, &episode.events, stream_history).parts(token)
}

/// Encoded size of [`orchestrator_work_item`] in bytes, without building it and apart from the
/// token's field, which takes the token's length and two bytes more (up to 127 bytes of token).
pub fn orchestrator_work_item_bytes(
    o: &Orchestration,
    past: &[Bytes],
    episode: &Episode,
    stream_history: bool,
) -> usize {
    framed_length(Request::new(o, past, &episode.events, stream_history).bytes())
}

/// An `OrchestratorRequest`, in the pieces of which it is put together.
struct Request<'a> {
    /// Fields 1 and 2, encoded.
    identity: Bytes,
    /// Field 3, encoded: runs of framed events.
    past: Vec<Bytes>,
    /// Field 4, to be framed.
    events: &'a [EncodedEvent],
    /// Fields 5 to 8, encoded.
    rest: Bytes,
}

impl<'a> Request<'a> {
    fn new(
        o: &Orchestration,
        past: &[Bytes],
        events: &'a [EncodedEvent],
        stream_history: bool,
    ) -> Self {
        let past = if stream_history {
            Vec::new()
        } else if o.record.generation <= FIRST_GENERATION {
            past.to_vec()
        } else {
            shown_to_worker(past)
        };
        Self {
            identity: identity(&o.id, &o.record.execution_id),
            past,
            events,
            rest: rest(stream_history, o.record.episode_trace.as_ref()),
        }
    }

    /// Encoded size, in bytes.
    fn bytes(&self) -> usize {
        let past: usize = self.past.iter().map(Bytes::len).sum();
        self.identity.len() + past + framed_bytes(self.events) + self.rest.len()
    }

    /// The `WorkItem` around it.
    fn parts(self, token: &str) -> Vec<Bytes> {
        let mut head = Writer::with_capacity(self.identity.len() + 16);
        head.open(ORCHESTRATOR_REQUEST, self.bytes());
        head.raw(&self.identity);

        let tail_bytes = framed_bytes(self.events) + self.rest.len() + token.len() + 16;
        let mut tail = Writer::with_capacity(tail_bytes);
        for event in self.events {
            tail.body(NEW_EVENTS, event.bytes());
        }
        tail.raw(&self.rest);
        tail.string(COMPLETION_TOKEN, token);

        let mut parts = Vec::with_capacity(self.past.len() + 2);
        parts.push(head.finish());
        parts.extend(self.past);
        parts.push(tail.finish());
        parts
    }
}

fn shown_to_worker(past: &[Bytes]) -> Vec<Bytes> {
    let mut shown = Vec::with_capacity(past.len() + 2);
    for chunk in past {
        let length = shown.len();
        // Restoring the instance has read every chunk, so none is malformed. Should one be, the
        // worker gets it as it is and says so.
        if without_rewound(chunk, &mut shown).is_err() {
            shown.truncate(length);
            shown.push(chunk.clone());
        }
    }
    shown
}

/// The instance and its generation (S-3.3).
fn identity(id: &InstanceId, execution_id: &ExecutionId) -> Bytes {
    let mut writer = Writer::with_capacity(128);
    writer.string(1, id.as_str());
    writer.text(2, Some(execution_id.as_str()));
    writer.finish()
}

/// What follows the events.
fn rest(stream_history: bool, trace: Option<&EpisodeTrace>) -> Bytes {
    let mut writer = Writer::with_capacity(64);
    // Present, with a present and empty Duration: .NET takes less for "no entities" (S-3.4).
    writer.message(5, |writer| writer.body(1, &[]));
    writer.bool(6, stream_history);
    // Field 7, properties, is left empty (S-3.4). A context without a span id is never sent
    // (S-15.3).
    if let Some(trace) = trace.filter(|trace| !trace.span_id.is_empty()) {
        writer.message(8, |writer| {
            writer.text(1, Some(&trace.span_id));
            if let Some(time) = trace.span_started_at {
                writer.timestamp(2, time);
            }
        });
    }
    writer.finish()
}

/// An activity work item (S-5.1).
pub fn activity_work_item(instance: &InstanceId, task: &ActivityTask, token: &str) -> Vec<Bytes> {
    let input_bytes = task.input.as_ref().map_or(0, String::len);
    let mut writer = Writer::with_capacity(input_bytes + token.len() + 256);
    writer.message(ACTIVITY_REQUEST, |writer| {
        writer.string(1, &task.name);
        writer.text(2, task.version.as_deref());
        writer.text(3, task.input.as_deref());
        let execution_id = Some(task.fence.execution_id.as_str());
        writer.instance(4, instance.as_str(), execution_id);
        writer.int32(5, task.task_id);
        writer.trace(6, task.trace.as_ref());
        writer.tags(7, &task.tags);
    });
    writer.string(COMPLETION_TOKEN, token);
    vec![writer.finish()]
}

/// A health ping, which carries no token (S-13.3).
pub fn health_ping() -> Vec<Bytes> {
    let mut writer = Writer::default();
    writer.body(HEALTH_PING, &[]);
    vec![writer.finish()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mainspring_proto as proto;
    use prost::Message as _;
    use proto::work_item;

    use super::*;
    use crate::history::{EventKind, HistoryEvent};
    use crate::id::FreshIds;
    use crate::message::{Fence, NewInstance};
    use crate::orchestration::{Limits, Origin, ReusePolicy, create};
    use crate::time::Timestamp;
    use crate::wire::fixtures::{every_pair, tags, trace};
    use crate::wire::{encode, frame_past, proto_timestamp};

    const TOKEN: &str = "0123456789abcdef";

    fn ids() -> (InstanceId, ExecutionId) {
        let instance = InstanceId::parse("order-17").unwrap();
        (instance, ExecutionId::from_stored("0af7651916cd43dd"))
    }

    fn request<'a>(
        past: Vec<Bytes>,
        events: &'a [EncodedEvent],
        stream_history: bool,
        trace: Option<&EpisodeTrace>,
    ) -> Request<'a> {
        let (instance, execution_id) = ids();
        Request {
            identity: identity(&instance, &execution_id),
            past,
            events,
            rest: rest(stream_history, trace),
        }
    }

    /// The ordinary construction of the same work item.
    fn ordinary(
        past: &[proto::HistoryEvent],
        new: &[proto::HistoryEvent],
        stream_history: bool,
        trace: Option<proto::OrchestrationTraceContext>,
    ) -> proto::WorkItem {
        let (instance, execution_id) = ids();
        proto::WorkItem {
            request: Some(work_item::Request::OrchestratorRequest(
                proto::OrchestratorRequest {
                    instance_id: instance.as_str().into(),
                    execution_id: Some(execution_id.as_str().into()),
                    past_events: past.to_vec(),
                    new_events: new.to_vec(),
                    entity_parameters: Some(proto::OrchestratorEntityParameters {
                        entity_message_reorder_window: Some(prost_types::Duration::default()),
                    }),
                    requires_history_streaming: stream_history,
                    properties: Default::default(),
                    orchestration_trace_context: trace,
                },
            )),
            completion_token: TOKEN.into(),
        }
    }

    fn encoded_pairs() -> (Vec<EncodedEvent>, Vec<proto::HistoryEvent>) {
        every_pair()
            .into_iter()
            .map(|(event, wire)| (encode(&event), wire))
            .unzip()
    }

    /// S-3.1, S-3.3, S-3.4: spliced bytes equal the ordinary encoding.
    #[test]
    fn a_spliced_work_item_equals_one_built_and_encoded_whole() {
        let (events, wire) = encoded_pairs();
        for past in [0, 1, 4, events.len()] {
            let chunks = vec![
                frame_past(&events[..past / 2]),
                frame_past(&events[past / 2..past]),
            ];
            let parts = request(chunks, &events[2..], false, None).parts(TOKEN);
            let expected = ordinary(&wire[..past], &wire[2..], false, None);
            assert!(parts.concat() == expected.encode_to_vec(), "past {past}");
            assert_eq!(
                proto::WorkItem::decode(parts.concat().as_slice()).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn stored_history_is_sent_without_being_copied() {
        let (events, _) = encoded_pairs();
        let chunk = frame_past(&events);
        let parts = request(vec![chunk.clone()], &events[..1], false, None).parts(TOKEN);
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[1].as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn the_size_is_known_before_the_item_is_built() {
        let (events, _) = encoded_pairs();
        for count in 1..events.len() {
            let request = request(
                vec![frame_past(&events[..count])],
                &events[..count],
                false,
                None,
            );
            let announced = framed_length(request.bytes());
            let built: usize = request.parts(TOKEN).iter().map(Bytes::len).sum();
            assert_eq!(built, announced + TOKEN.len() + 2);
        }
    }

    /// S-15.3: the span of the last response comes back; one without an id is not sent.
    #[test]
    fn the_orchestrations_span_is_echoed_only_if_it_has_an_id() {
        let (events, wire) = encoded_pairs();
        let at = Timestamp::new(5, 6);
        let span = |id: &str| EpisodeTrace {
            span_id: id.into(),
            span_started_at: Some(at),
        };
        let expected = proto::OrchestrationTraceContext {
            span_id: Some("b7ad6b7169203331".into()),
            span_start_time: Some(proto_timestamp(at)),
        };
        let parts = request(vec![], &events[..1], false, Some(&span("b7ad6b7169203331")));
        let item = ordinary(&[], &wire[..1], false, Some(expected));
        assert!(parts.parts(TOKEN).concat() == item.encode_to_vec());
        let parts = request(vec![], &events[..1], false, Some(&span("")));
        let item = ordinary(&[], &wire[..1], false, None);
        assert!(parts.parts(TOKEN).concat() == item.encode_to_vec());
    }

    /// S-9.14: Java and Go fail on the marker.
    #[test]
    fn markers_of_rewinds_are_not_sent_to_workers() {
        let (mut events, _) = encoded_pairs();
        events.truncate(2);
        let marker = encode(&HistoryEvent {
            id: -1,
            at: Timestamp::MIN,
            kind: EventKind::ExecutionRewound(Box::default()),
        });
        let shown = frame_past(&events);
        events.push(marker);
        assert_eq!(shown_to_worker(&[frame_past(&events)]).concat(), shown);
        let garbled = Bytes::from_static(b"\x1a\xff");
        assert_eq!(shown_to_worker(std::slice::from_ref(&garbled)), [garbled]);
    }

    /// An instance in its first episode.
    fn started() -> (Orchestration, Episode) {
        struct Counter(u128);
        impl FreshIds for Counter {
            fn next(&mut self) -> u128 {
                self.0 += 1;
                self.0
            }
        }
        let new = NewInstance {
            instance: ids().0,
            name: "Order".into(),
            version: None,
            input: None,
            tags: tags(),
            scheduled_start_at: None,
            execution_id: None,
            parent: None,
            trace: None,
        };
        let mut instance = None;
        let origin = Origin::Client(ReusePolicy::default());
        create(&mut instance, new, origin, Timestamp::MIN, &mut Counter(0)).unwrap();
        let instance = instance.unwrap();
        let limits = Limits {
            payload_bytes_max: 1_000,
            batch_events_max: 10,
            work_item_bytes_max: 10_000,
            ..Limits::default()
        };
        let episode = instance.next_episode([].iter(), Timestamp::MIN, &limits);
        let episode = episode.unwrap();
        (instance, episode)
    }

    fn decode(parts: &[Bytes]) -> proto::OrchestratorRequest {
        match proto::WorkItem::decode(parts.concat().as_slice())
            .unwrap()
            .request
        {
            Some(work_item::Request::OrchestratorRequest(request)) => request,
            other => panic!("not an orchestrator work item: {other:?}"),
        }
    }

    /// S-3.26: what is not embedded is not counted either.
    #[test]
    fn streamed_history_is_asked_for_and_left_out() {
        let (events, _) = encoded_pairs();
        let past = [frame_past(&events)];
        let (instance, episode) = started();
        for (stream_history, past_events) in [(false, events.len()), (true, 0)] {
            let parts = orchestrator_work_item(&instance, &past, &episode, stream_history, "");
            let bytes: usize = parts.iter().map(Bytes::len).sum();
            let announced =
                orchestrator_work_item_bytes(&instance, &past, &episode, stream_history);
            assert_eq!(bytes, announced);
            let request = decode(&parts);
            assert_eq!(request.requires_history_streaming, stream_history);
            assert_eq!(request.past_events.len(), past_events);
            assert_eq!(request.new_events.len(), 2);
            assert_eq!(request.instance_id, "order-17");
            let execution_id = instance.record.execution_id.as_str();
            assert_eq!(request.execution_id.as_deref(), Some(execution_id));
        }
    }

    /// S-9.14: every rewind leads to a new generation, so only later ones are searched.
    #[test]
    fn later_generations_are_searched_for_markers() {
        let (events, _) = encoded_pairs();
        let past = [frame_past(&events)];
        let (mut instance, episode) = started();
        instance.record.generation = 2;
        let parts = orchestrator_work_item(&instance, &past, &episode, false, "");
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let announced = orchestrator_work_item_bytes(&instance, &past, &episode, false);
        assert_eq!(bytes, announced);
        assert_eq!(decode(&parts).past_events.len(), events.len() - 1);
    }

    /// S-5.1: unset stays unset, and tags and trace context are the action's.
    #[test]
    fn an_activity_work_item_equals_one_built_and_encoded_whole() {
        let (instance, execution_id) = ids();
        let (trace, wire_trace) = trace();
        for (input, is_full) in [(None, false), (Some("y".repeat(70_000)), true)] {
            let task = ActivityTask {
                fence: Fence {
                    execution_id: execution_id.clone(),
                    scheduling: 9,
                },
                task_id: 4,
                name: "Charge".into(),
                version: is_full.then(String::new),
                input: input.clone(),
                tags: if is_full { tags() } else { Default::default() },
                trace: is_full.then(|| trace.clone()),
                orchestration_version: Some("2.0".into()),
            };
            let expected = proto::WorkItem {
                request: Some(work_item::Request::ActivityRequest(
                    proto::ActivityRequest {
                        name: "Charge".into(),
                        version: task.version.clone(),
                        input,
                        orchestration_instance: Some(proto::OrchestrationInstance {
                            instance_id: "order-17".into(),
                            execution_id: Some(execution_id.as_str().into()),
                        }),
                        task_id: 4,
                        parent_trace_context: is_full.then(|| wire_trace.clone()),
                        tags: task.tags.clone(),
                    },
                )),
                completion_token: TOKEN.into(),
            };
            let parts = activity_work_item(&instance, &task, TOKEN);
            assert!(parts.concat() == expected.encode_to_vec());
        }
    }

    /// S-13.3.
    #[test]
    fn a_health_ping_carries_nothing_else() {
        let expected = proto::WorkItem {
            request: Some(work_item::Request::HealthPing(proto::HealthPing {})),
            completion_token: String::new(),
        };
        assert_eq!(health_ping().concat(), expected.encode_to_vec());
    }
}
