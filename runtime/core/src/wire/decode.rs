//! The protocol's bytes as events. Fields that this version doesn't know are passed over.

use bytes::Bytes;

use super::encode::{field, other_field};
use super::reader::{Malformed, Reader, Value, each};
use crate::error::Error;
use crate::history::{
    ChildCreated, EventKind, ExecutionRewound, ExecutionStarted, HistoryEvent, OtherEvent,
    OtherKind, ParentInstance, TaskScheduled,
};
use crate::id::{ExecutionId, InstanceId};
use crate::message::FailureDetails;
use crate::orchestration::Status;
use crate::time::Timestamp;

/// Kinds that are kept as they are.
const OTHER_KINDS: [OtherKind; 11] = [
    OtherKind::OrchestratorCompleted,
    OtherKind::Generic,
    OtherKind::HistoryState,
    OtherKind::ContinueAsNew,
    OtherKind::EntityOperationSignaled,
    OtherKind::EntityOperationCalled,
    OtherKind::EntityOperationCompleted,
    OtherKind::EntityOperationFailed,
    OtherKind::EntityLockRequested,
    OtherKind::EntityLockGranted,
    OtherKind::EntityUnlockSent,
];

/// Decodes a chunk of framed past events, as [`frame_past`](super::frame_past) made it.
///
/// Errors: `Corrupt` if the chunk, or an event in it, cannot be read.
pub fn decode_chunk(chunk: &[u8]) -> Result<Vec<HistoryEvent>, Error> {
    let mut events = Vec::new();
    each(chunk, |_, value| {
        events.push(read_event(value.body()?)?);
        Ok(())
    })?;
    Ok(events)
}

/// Decodes one event's body.
///
/// Errors: `Corrupt` if it cannot be read.
pub fn decode(body: &[u8]) -> Result<HistoryEvent, Error> {
    Ok(read_event(body)?)
}

/// Error type and message of an encoded `TaskFailureDetails`, each empty where there is none.
pub fn error_type_and_message(failure: &[u8]) -> (String, String) {
    let (mut error_type, mut message) = (String::new(), String::new());
    let read = each(failure, |field, value| {
        match field {
            1 => error_type = value.string()?,
            2 => message = value.string()?,
            _ => {}
        }
        Ok(())
    });
    // Details that a peer garbled are still handed on; only their text is not known.
    read.map_or_else(|_| Default::default(), |()| (error_type, message))
}

/// Number of the body field of an encoded event; 0 if it has none.
pub(super) fn body_field(event: &[u8]) -> Result<u32, Malformed> {
    let mut reader = Reader::new(event);
    while let Some((field, _)) = reader.next()? {
        if field >= field::EXECUTION_STARTED {
            return Ok(field);
        }
    }
    Ok(0)
}

fn read_event(body: &[u8]) -> Result<HistoryEvent, Malformed> {
    let mut id = 0;
    // Ours always have a time; a worker's rewound history may not, and counts from the epoch.
    let mut at = Timestamp::new(0, 0);
    let mut kind = None;
    each(body, |field, value| {
        match field {
            1 => id = value.int32()?,
            2 => at = value.timestamp()?,
            _ => kind = Some((field, value.body()?)),
        }
        Ok(())
    })?;
    let (field, body) = kind.ok_or(Malformed("event without a type"))?;
    let kind = read_kind(field, body, at)?;
    Ok(HistoryEvent { id, at, kind })
}

fn read_kind(field: u32, body: &[u8], at: Timestamp) -> Result<EventKind, Malformed> {
    Ok(match field {
        field::ORCHESTRATOR_STARTED => EventKind::OrchestratorStarted,
        field::EXECUTION_STARTED => EventKind::ExecutionStarted(Box::new(execution_started(body)?)),
        field::EXECUTION_COMPLETED => execution_completed(body)?,
        field::EXECUTION_TERMINATED => execution_terminated(body)?,
        field::EXECUTION_SUSPENDED => EventKind::ExecutionSuspended {
            input: input(body)?,
        },
        field::EXECUTION_RESUMED => EventKind::ExecutionResumed {
            input: input(body)?,
        },
        field::EXECUTION_REWOUND => EventKind::ExecutionRewound(Box::new(execution_rewound(body)?)),
        field::TASK_SCHEDULED => EventKind::TaskScheduled(Box::new(task_scheduled(body)?)),
        field::TASK_COMPLETED => {
            let (task_id, result) = completed(body)?;
            EventKind::TaskCompleted { task_id, result }
        }
        field::TASK_FAILED => {
            let (task_id, failure) = failed(body)?;
            EventKind::TaskFailed { task_id, failure }
        }
        field::CHILD_CREATED => EventKind::ChildCreated(Box::new(child_created(body)?)),
        field::CHILD_COMPLETED => {
            let (task_id, result) = completed(body)?;
            EventKind::ChildCompleted { task_id, result }
        }
        field::CHILD_FAILED => {
            let (task_id, failure) = failed(body)?;
            EventKind::ChildFailed { task_id, failure }
        }
        field::TIMER_CREATED => {
            let (fire_at, _) = timer(body)?;
            // As for the action: a timer without a time is due at once (S-4.12).
            let fire_at = fire_at.unwrap_or(at);
            EventKind::TimerCreated { fire_at }
        }
        field::TIMER_FIRED => {
            let (fire_at, timer_id) = timer(body)?;
            let fire_at = fire_at.unwrap_or(at);
            EventKind::TimerFired { fire_at, timer_id }
        }
        field::EVENT_SENT => event_sent(body)?,
        field::EVENT_RAISED => event_raised(body)?,
        _ => {
            let kind = OTHER_KINDS
                .into_iter()
                .find(|kind| other_field(*kind) == field)
                .ok_or(Malformed("event of an unknown type"))?;
            let body = Bytes::copy_from_slice(body);
            EventKind::Other(OtherEvent { kind, body })
        }
    })
}

/// The only field of the events that carry nothing but a reason.
fn input(body: &[u8]) -> Result<Option<String>, Malformed> {
    let mut input = None;
    each(body, |field, value| {
        if field == 1 {
            input = Some(value.text()?);
        }
        Ok(())
    })?;
    Ok(input)
}

fn completed(body: &[u8]) -> Result<(i32, Option<String>), Malformed> {
    let (mut task_id, mut result) = (0, None);
    each(body, |field, value| {
        match field {
            1 => task_id = value.int32()?,
            2 => result = Some(value.text()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok((task_id, result))
}

fn failed(body: &[u8]) -> Result<(i32, Option<FailureDetails>), Malformed> {
    let (mut task_id, mut failure) = (0, None);
    each(body, |field, value| {
        match field {
            1 => task_id = value.int32()?,
            2 => failure = Some(failure_details(value)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok((task_id, failure))
}

fn failure_details(value: Value<'_>) -> Result<FailureDetails, Malformed> {
    let encoded = Bytes::copy_from_slice(value.body()?);
    Ok(FailureDetails::from_encoded(encoded))
}

fn timer(body: &[u8]) -> Result<(Option<Timestamp>, i32), Malformed> {
    let (mut fire_at, mut timer_id) = (None, 0);
    each(body, |field, value| {
        match field {
            1 => fire_at = Some(value.timestamp()?),
            2 => timer_id = value.int32()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((fire_at, timer_id))
}

fn execution_completed(body: &[u8]) -> Result<EventKind, Malformed> {
    let (mut number, mut result, mut failure) = (0, None, None);
    each(body, |field, value| {
        match field {
            1 => number = value.int32()?,
            2 => result = Some(value.text()?),
            3 => failure = Some(failure_details(value)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(EventKind::ExecutionCompleted {
        status: Status::from_wire(number).ok_or(Malformed("unknown status"))?,
        result,
        failure,
    })
}

fn execution_terminated(body: &[u8]) -> Result<EventKind, Malformed> {
    let (mut input, mut recurse) = (None, false);
    each(body, |field, value| {
        match field {
            1 => input = Some(value.text()?),
            2 => recurse = value.bool()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(EventKind::ExecutionTerminated { input, recurse })
}

fn event_sent(body: &[u8]) -> Result<EventKind, Malformed> {
    let (mut instance, mut name, mut input) = (String::new(), String::new(), None);
    each(body, |field, value| {
        match field {
            1 => instance = value.string()?,
            2 => name = value.string()?,
            3 => input = Some(value.text()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(EventKind::EventSent {
        instance,
        name,
        input,
    })
}

fn event_raised(body: &[u8]) -> Result<EventKind, Malformed> {
    let (mut name, mut input) = (String::new(), None);
    each(body, |field, value| {
        match field {
            1 => name = value.string()?,
            2 => input = Some(value.text()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(EventKind::EventRaised { name, input })
}

fn execution_started(body: &[u8]) -> Result<ExecutionStarted, Malformed> {
    let mut started = ExecutionStarted {
        name: String::new(),
        version: None,
        input: None,
        instance: InstanceId::from_stored(""),
        execution_id: ExecutionId::from_stored(""),
        parent: None,
        scheduled_start_at: None,
        trace: None,
        tags: Default::default(),
    };
    each(body, |field, value| {
        match field {
            1 => started.name = value.string()?,
            2 => started.version = Some(value.text()?),
            3 => started.input = Some(value.text()?),
            4 => {
                let (instance, execution_id) = instance(value)?;
                started.instance = instance;
                if let Some(execution_id) = execution_id {
                    started.execution_id = execution_id;
                }
            }
            5 => started.parent = Some(parent(value)?),
            6 => started.scheduled_start_at = Some(value.timestamp()?),
            7 => started.trace = Some(value.trace()?),
            9 => value.tag(&mut started.tags)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(started)
}

fn instance(value: Value<'_>) -> Result<(InstanceId, Option<ExecutionId>), Malformed> {
    let (mut id, mut execution_id) = (String::new(), None);
    each(value.body()?, |field, value| {
        match field {
            1 => id = value.string()?,
            2 => execution_id = Some(ExecutionId::from_stored(&value.text()?)),
            _ => {}
        }
        Ok(())
    })?;
    Ok((InstanceId::from_stored(&id), execution_id))
}

fn parent(value: Value<'_>) -> Result<ParentInstance, Malformed> {
    let mut parent = ParentInstance {
        task_id: 0,
        name: None,
        version: None,
        instance: InstanceId::from_stored(""),
        execution_id: None,
    };
    each(value.body()?, |field, value| {
        match field {
            1 => parent.task_id = value.int32()?,
            2 => parent.name = Some(value.text()?),
            3 => parent.version = Some(value.text()?),
            4 => (parent.instance, parent.execution_id) = instance(value)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(parent)
}

fn execution_rewound(body: &[u8]) -> Result<ExecutionRewound, Malformed> {
    let mut rewound = ExecutionRewound::default();
    each(body, |field, value| {
        match field {
            1 => rewound.reason = Some(value.text()?),
            2 => rewound.parent_execution_id = Some(value.text()?),
            3 => rewound.instance = Some(value.text()?),
            4 => rewound.trace = Some(value.trace()?),
            5 => rewound.name = Some(value.text()?),
            6 => rewound.version = Some(value.text()?),
            7 => rewound.input = Some(value.text()?),
            8 => rewound.parent = Some(parent(value)?),
            9 => value.tag(&mut rewound.tags)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(rewound)
}

fn task_scheduled(body: &[u8]) -> Result<TaskScheduled, Malformed> {
    let mut task = TaskScheduled {
        name: String::new(),
        version: None,
        input: None,
        trace: None,
        tags: Default::default(),
    };
    each(body, |field, value| {
        match field {
            1 => task.name = value.string()?,
            2 => task.version = Some(value.text()?),
            3 => task.input = Some(value.text()?),
            4 => task.trace = Some(value.trace()?),
            5 => value.tag(&mut task.tags)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(task)
}

fn child_created(body: &[u8]) -> Result<ChildCreated, Malformed> {
    let mut child = ChildCreated {
        instance: String::new(),
        name: String::new(),
        version: None,
        input: None,
        trace: None,
        tags: Default::default(),
    };
    each(body, |field, value| {
        match field {
            1 => child.instance = value.string()?,
            2 => child.name = value.string()?,
            3 => child.version = Some(value.text()?),
            4 => child.input = Some(value.text()?),
            5 => child.trace = Some(value.trace()?),
            6 => value.tag(&mut child.tags)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(child)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mainspring_proto as proto;
    use prost::Message as _;
    use proto::history_event::EventType;

    use super::*;
    use crate::error::ErrorKind;
    use crate::wire::encode;
    use crate::wire::fixtures::{deep_failure, every_pair};

    fn decode_wire(event_type: Option<EventType>) -> Result<HistoryEvent, Error> {
        let event = proto::HistoryEvent {
            event_id: 4,
            timestamp: None,
            event_type,
        };
        decode(&event.encode_to_vec())
    }

    /// S-0.5: absent and empty stay apart.
    #[test]
    fn every_event_is_read_back_as_it_was_written() {
        for (event, wire) in every_pair() {
            assert_eq!(decode(&wire.encode_to_vec()).unwrap(), event);
            assert_eq!(decode(encode(&event).bytes()).unwrap(), event);
        }
    }

    /// A chain of inner failures that the ordinary decoding would refuse once it is wrapped in
    /// an event must not make its instance unreadable.
    #[test]
    fn failures_nested_to_the_decoding_limit_are_still_read() {
        let mut failure = deep_failure();
        for _ in 0..95 {
            failure = proto::TaskFailureDetails {
                inner_failure: Some(Box::new(failure)),
                ..Default::default()
            };
        }
        let encoded = Bytes::from(failure.encode_to_vec());
        let event = decode_wire(Some(EventType::TaskFailed(proto::TaskFailedEvent {
            task_scheduled_id: 1,
            failure_details: Some(failure),
        })))
        .unwrap();
        let failure = Some(FailureDetails::from_encoded(encoded));
        let task_id = 1;
        assert_eq!(event.kind, EventKind::TaskFailed { task_id, failure });
    }

    /// S-4.12, for a history that a worker has rewritten.
    #[test]
    fn a_timer_without_a_time_is_due_at_its_events_time() {
        let event = decode_wire(Some(EventType::TimerCreated(Default::default()))).unwrap();
        assert_eq!(event.at, Timestamp::new(0, 0));
        let fire_at = event.at;
        assert_eq!(event.kind, EventKind::TimerCreated { fire_at });
    }

    /// S-2.2: no instance ends continued as new.
    #[test]
    fn events_that_mean_nothing_are_corrupt() {
        let continued = proto::ExecutionCompletedEvent {
            orchestration_status: 2,
            ..Default::default()
        };
        for error in [
            decode_wire(None).unwrap_err(),
            decode_wire(Some(EventType::ExecutionCompleted(continued))).unwrap_err(),
            decode(b"\xfa\x07\x00").unwrap_err(),
            decode(b"\x0a\x01a").unwrap_err(),
            decode(&[]).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().starts_with("malformed history: "));
        }
    }

    #[test]
    fn no_cut_of_an_event_makes_the_reader_panic() {
        for (_, wire) in every_pair() {
            let encoded = wire.encode_to_vec();
            for end in 0..encoded.len().min(400) {
                let _ = decode(&encoded[..end]);
                let _ = body_field(&encoded[..end]);
                let _ = error_type_and_message(&encoded[..end]);
            }
        }
    }

    #[test]
    fn type_and_message_of_a_failure_are_those_of_its_outermost_level() {
        let (error_type, message) = error_type_and_message(&deep_failure().encode_to_vec());
        assert_eq!(
            (error_type.as_str(), message.as_str()),
            ("Outer", "it broke")
        );
    }
}
