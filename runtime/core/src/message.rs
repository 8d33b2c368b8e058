//! All that may arrive at an instance.
//!
//! Messages that [wait](Message::waits) lie in the instance's mailbox until an episode takes
//! them; the others are decided by the instance's own turn as soon as they are seen. Both kinds
//! are durable in the mailbox of their target before their sender is told so, hence every type
//! here is persisted: new fields go to the end, with `#[serde(default)]`.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::entity::{Generation, LockRequest, Operation};
use crate::id::{ExecutionId, InstanceId};
use crate::time::Timestamp;
use crate::wire;

/// An encoded protobuf `TaskFailureDetails`, stored and handed on byte for byte: nested failures,
/// stack traces and properties are the SDKs' business (S-4.14, S-5.3, S-7.4).
#[derive(Clone, PartialEq, Eq)]
pub struct FailureDetails(Bytes);

impl FailureDetails {
    /// A failure that the scheduler itself reports, without stack trace or inner failure.
    pub fn new(error_type: &str, message: &str, is_non_retriable: bool) -> Self {
        Self(wire::failure_details(error_type, message, is_non_retriable))
    }

    /// Takes a message body that is already encoded. It is not looked into.
    pub fn from_encoded(encoded: Bytes) -> Self {
        Self(encoded)
    }

    /// The message body.
    pub fn encoded(&self) -> &Bytes {
        &self.0
    }

    /// Type and message, each empty where there is none or where the bytes cannot be read.
    pub fn error_type_and_message(&self) -> (String, String) {
        wire::error_type_and_message(&self.0)
    }
}

impl fmt::Debug for FailureDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (error_type, message) = self.error_type_and_message();
        write!(f, "FailureDetails({error_type}: {message})")
    }
}

impl Serialize for FailureDetails {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for FailureDetails {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_byte_buf(ByteVisitor)?;
        Ok(Self(bytes.into()))
    }
}

struct ByteVisitor;

impl<'de> Visitor<'de> for ByteVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    // Formats without a byte type store a list of numbers.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = items.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

/// W3C trace context, passed on verbatim and never required (S-15.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// `00-<32 hex>-<16 hex>-<2 hex>`.
    pub trace_parent: String,
    /// An older protocol's field; empty when unset.
    pub span_id: String,
    /// Vendor data, if any.
    pub trace_state: Option<String>,
}

/// The span that covers a generation, as its worker named it (S-15.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpisodeTrace {
    /// Never empty.
    pub span_id: String,
    /// When that span began.
    pub span_started_at: Option<Timestamp>,
}

/// What fences an outcome: results of former generations, and of former schedulings under the
/// same task id, must not be taken for this one's (S-0.3, S-4.13).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence {
    /// The generation in which it was scheduled.
    pub execution_id: ExecutionId,
    /// Counts, within that generation, the confirming events of kinds `TaskScheduled`,
    /// `SubOrchestrationInstanceCreated`, `TimerCreated`, `EntityOperationCalled` and
    /// `EntityLockRequested`; task ids may repeat, this doesn't.
    pub scheduling: u32,
}

/// A child's link to the instance that waits for it (S-7.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The parent.
    pub instance: InstanceId,
    /// Generation and scheduling in the parent that the outcome belongs to.
    pub fence: Fence,
    /// Id of the action that created the child.
    pub task_id: i32,
    /// Name of the parent's orchestrator.
    pub name: String,
    /// Version of the parent's orchestrator.
    pub version: Option<String>,
}

/// What an instance is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewInstance {
    /// The id it gets.
    pub instance: InstanceId,
    /// Name of its orchestrator; never empty.
    pub name: String,
    /// Version of its orchestrator; unset and empty are different (S-16.1).
    pub version: Option<String>,
    /// Input, opaque.
    pub input: Option<String>,
    /// Tags, verbatim.
    pub tags: BTreeMap<String, String>,
    /// Set only if it lies ahead when the instance is created (S-6.6).
    pub scheduled_start_at: Option<Timestamp>,
    /// An id that the creator wishes for the first generation; never empty (S-10.1).
    pub execution_id: Option<ExecutionId>,
    /// Set for children.
    pub parent: Option<Parent>,
    /// Becomes `ExecutionStarted.parentTraceContext` in every generation (S-15.2).
    pub trace: Option<TraceContext>,
}

/// An event that a continue-as-new hands to the next generation, ready for its history (S-3.19).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedEvent {
    /// Name of the event.
    pub name: String,
    /// Payload, opaque.
    pub input: Option<String>,
    /// Its time in history, different from that of every other event raised (S-3.11).
    pub at: Timestamp,
}

/// What may arrive at an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Waits. An external event (S-8.1).
    EventRaised {
        /// Name, verbatim: SDKs match it.
        name: String,
        /// Payload, opaque.
        input: Option<String>,
        /// When it arrived.
        at: Timestamp,
    },
    /// Waits. An activity succeeded (S-5.3).
    ActivityCompleted {
        /// Which scheduling it answers.
        fence: Fence,
        /// Task id of that scheduling.
        task_id: i32,
        /// What the activity returned.
        result: Option<String>,
        /// When it was accepted.
        at: Timestamp,
    },
    /// Waits. An activity failed (S-5.3).
    ActivityFailed {
        /// Which scheduling it answers.
        fence: Fence,
        /// Task id of that scheduling.
        task_id: i32,
        /// Why.
        failure: FailureDetails,
        /// When it was accepted.
        at: Timestamp,
    },
    /// Waits. A timer fired (S-6.1).
    TimerFired {
        /// Which scheduling it answers.
        fence: Fence,
        /// Id of the action that created the timer.
        timer_id: i32,
        /// The time that was asked for, exactly.
        fire_at: Timestamp,
        /// When it fired.
        at: Timestamp,
    },
    /// Waits. A child completed (S-7.4).
    ChildCompleted {
        /// Which scheduling it answers.
        fence: Fence,
        /// Task id of that scheduling.
        task_id: i32,
        /// The child's output.
        result: Option<String>,
        /// When the child ended.
        at: Timestamp,
    },
    /// Waits. A child failed, was terminated, or could not be created (S-7.4, S-7.6).
    ChildFailed {
        /// Which scheduling it answers.
        fence: Fence,
        /// Task id of that scheduling.
        task_id: i32,
        /// Why.
        failure: FailureDetails,
        /// When the child ended.
        at: Timestamp,
    },
    /// Decided at once. A parent starts this instance as its child.
    Start(Box<NewInstance>),
    /// Decided at once. Another instance's terminate action, which does not wait (S-9.8).
    Terminate {
        /// Becomes the output.
        output: Option<String>,
        /// Whether children are terminated, too.
        recurse: bool,
    },
    /// Decided at once. The walk of a recursive termination reached this instance (S-9.8).
    TerminateTree {
        /// Becomes the output.
        output: Option<String>,
        /// The instance the walk came from.
        parent: InstanceId,
        /// The generation of it that created this instance.
        parent_execution_id: ExecutionId,
    },
    /// Decided at once. The answer to [`Message::TerminateTree`]: nothing below `child` is active.
    TreeTerminated {
        /// Who answers.
        child: InstanceId,
        /// As it was asked.
        parent_execution_id: ExecutionId,
    },
    /// Decided at once. The parent was rewound and has no outcome of this child (S-9.13).
    RewindChild {
        /// The link to the parent's new generation.
        parent: Parent,
        /// Why the parent was rewound.
        reason: Option<String>,
        /// How to create this instance anew when it is missing.
        again: Box<NewInstance>,
    },
    /// Waits. An entity completed a call (S-12.15).
    EntityCompleted {
        /// Which scheduling it answers.
        fence: Fence,
        /// The caller's id for the call.
        request_id: String,
        /// The operation's result.
        result: Option<String>,
        /// When the batch was accepted.
        at: Timestamp,
    },
    /// Waits. A call failed (S-12.15).
    EntityFailed {
        /// Which scheduling it answers.
        fence: Fence,
        /// The caller's id for the call.
        request_id: String,
        /// Why.
        failure: FailureDetails,
        /// When the batch was accepted.
        at: Timestamp,
    },
    /// Waits. All locks of a critical section are held (S-12.27).
    LocksGranted {
        /// Which scheduling it answers.
        fence: Fence,
        /// The section.
        critical_section: String,
        /// When the last lock was acquired.
        at: Timestamp,
    },
    /// For an entity. An operation to be done.
    Operation(Box<Operation>),
    /// For an entity. It is to be locked.
    Lock(Box<LockRequest>),
    /// For an entity. The holder gives its lock back, behind what it asked for before (S-12.30).
    Unlock {
        /// The section it was locked for.
        critical_section: String,
        /// Who held it.
        holder: InstanceId,
    },
    /// For an entity. This generation is over: its locks are free, its lock requests void (S-12.32).
    ReleaseLocks(Generation),
    /// Decided at once. An entity starts this instance (S-10.7).
    StartFromEntity(Box<NewInstance>),
}

/// Messages that one answer of a worker may send: half of what one commit can carry, since an answer is never spread over two.
pub const TURN_MESSAGES_MAX: usize = 30_000;

/// What a message weighs beside its strings: ids, times, and its key in the mailbox.
const FIXED_BYTES: usize = 64;

impl Message {
    /// Whether it lies in an orchestration's mailbox until an episode takes it.
    pub fn waits(&self) -> bool {
        match self {
            Self::EventRaised { .. }
            | Self::ActivityCompleted { .. }
            | Self::ActivityFailed { .. }
            | Self::TimerFired { .. }
            | Self::ChildCompleted { .. }
            | Self::ChildFailed { .. }
            | Self::EntityCompleted { .. }
            | Self::EntityFailed { .. }
            | Self::LocksGranted { .. } => true,
            Self::Start(_)
            | Self::StartFromEntity(_)
            | Self::Terminate { .. }
            | Self::TerminateTree { .. }
            | Self::TreeTerminated { .. }
            | Self::RewindChild { .. }
            | Self::Operation(_)
            | Self::Lock(_)
            | Self::Unlock { .. }
            | Self::ReleaseLocks(_) => false,
        }
    }

    /// Whether entities alone understand it.
    pub fn is_for_entity(&self) -> bool {
        matches!(
            self,
            Self::Operation(_) | Self::Lock(_) | Self::Unlock { .. } | Self::ReleaseLocks(_)
        )
    }

    /// Roughly how many bytes it takes, stored or in memory. For bounds, not for exact sums.
    pub fn bytes(&self) -> usize {
        let payload = match self {
            Self::EventRaised { name, input, .. } => name.len() + length(input),
            Self::ActivityCompleted { result, .. } | Self::ChildCompleted { result, .. } => {
                length(result)
            }
            Self::ActivityFailed { failure, .. } | Self::ChildFailed { failure, .. } => {
                failure.encoded().len()
            }
            Self::TimerFired { .. } | Self::TreeTerminated { .. } | Self::ReleaseLocks(_) => 0,
            Self::Start(new) | Self::StartFromEntity(new) => new.bytes(),
            Self::EntityCompleted {
                request_id, result, ..
            } => request_id.len() + length(result),
            Self::EntityFailed {
                request_id,
                failure,
                ..
            } => request_id.len() + failure.encoded().len(),
            Self::LocksGranted {
                critical_section, ..
            }
            | Self::Unlock {
                critical_section, ..
            } => critical_section.len(),
            Self::Operation(operation) => operation.bytes(),
            Self::Lock(request) => {
                let set: usize = request.lock_set.iter().map(|e| e.as_str().len()).sum();
                request.critical_section.len() + set
            }
            Self::Terminate { output, .. } | Self::TerminateTree { output, .. } => length(output),
            Self::RewindChild { reason, again, .. } => length(reason) + again.bytes(),
        };
        FIXED_BYTES + payload
    }
}

impl NewInstance {
    fn bytes(&self) -> usize {
        let tags: usize = self.tags.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.name.len() + length(&self.version) + length(&self.input) + tags
    }
}

fn length(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fence() -> Fence {
        Fence {
            execution_id: ExecutionId::from_stored("e"),
            scheduling: 3,
        }
    }

    fn child() -> NewInstance {
        NewInstance {
            instance: InstanceId::from_stored("child"),
            name: "n".repeat(100),
            version: Some(String::new()),
            input: Some("\"x\"".into()),
            tags: BTreeMap::from([("k".into(), "v".into())]),
            scheduled_start_at: Some(Timestamp::new(5, 6)),
            execution_id: None,
            parent: Some(parent()),
            trace: Some(TraceContext {
                trace_parent: "00-a-b-01".into(),
                span_id: String::new(),
                trace_state: Some(String::new()),
            }),
        }
    }

    fn parent() -> Parent {
        Parent {
            instance: InstanceId::from_stored("parent"),
            fence: fence(),
            task_id: 7,
            name: "Parent".into(),
            version: None,
        }
    }

    fn generation() -> Generation {
        Generation {
            instance: InstanceId::from_stored("parent"),
            execution_id: ExecutionId::from_stored("e"),
        }
    }

    fn operation() -> Operation {
        Operation {
            request_id: String::new(),
            worker_request_id: Some("g".into()),
            name: "add".into(),
            input: Some(String::new()),
            sender: crate::entity::Sender::Call {
                caller: generation(),
                scheduling: 3,
            },
            scheduled_at: Some(Timestamp::new(1, 2)),
            at: Timestamp::MIN,
        }
    }

    fn every_message() -> Vec<Message> {
        let at = Timestamp::new(1, 2);
        let failure = || FailureDetails::new("T", "message", true);
        vec![
            Message::EventRaised {
                name: "go".into(),
                input: Some(String::new()),
                at,
            },
            Message::ActivityCompleted {
                fence: fence(),
                task_id: 1,
                result: None,
                at,
            },
            Message::ActivityFailed {
                fence: fence(),
                task_id: -1,
                failure: failure(),
                at,
            },
            Message::TimerFired {
                fence: fence(),
                timer_id: 2,
                fire_at: at,
                at,
            },
            Message::ChildCompleted {
                fence: fence(),
                task_id: 3,
                result: Some("1".into()),
                at,
            },
            Message::ChildFailed {
                fence: fence(),
                task_id: 3,
                failure: failure(),
                at,
            },
            Message::Start(Box::new(child())),
            Message::Terminate {
                output: None,
                recurse: true,
            },
            Message::TerminateTree {
                output: Some("stop".into()),
                parent: InstanceId::from_stored("parent"),
                parent_execution_id: ExecutionId::from_stored("e"),
            },
            Message::TreeTerminated {
                child: InstanceId::from_stored("child"),
                parent_execution_id: ExecutionId::from_stored("e"),
            },
            Message::RewindChild {
                parent: parent(),
                reason: None,
                again: Box::new(child()),
            },
            Message::EntityCompleted {
                fence: fence(),
                request_id: "r".into(),
                result: Some(String::new()),
                at,
            },
            Message::EntityFailed {
                fence: fence(),
                request_id: "r".into(),
                failure: failure(),
                at,
            },
            Message::LocksGranted {
                fence: fence(),
                critical_section: "c".into(),
                at,
            },
            Message::Operation(Box::new(operation())),
            Message::Lock(Box::new(LockRequest {
                critical_section: "c".into(),
                lock_set: vec![InstanceId::from_stored("@a@1")],
                position: 0,
                holder: generation(),
                scheduling: 3,
            })),
            Message::Unlock {
                critical_section: "c".into(),
                holder: InstanceId::from_stored("parent"),
            },
            Message::ReleaseLocks(generation()),
            Message::StartFromEntity(Box::new(child())),
        ]
    }

    /// S-0.5: absent and empty stay apart in every field.
    #[test]
    fn every_message_is_read_back_as_it_was_stored() {
        for message in every_message() {
            let stored = rmp_serde::to_vec(&message).unwrap();
            let read: Message = rmp_serde::from_slice(&stored).unwrap();
            assert_eq!(read, message);
        }
    }

    #[test]
    fn outcomes_and_events_wait_and_commands_do_not() {
        let waiting = every_message().iter().filter(|m| m.waits()).count();
        assert_eq!(waiting, 9);
        assert!(every_message()[..6].iter().all(Message::waits));
        let for_entities = every_message().iter().filter(|m| m.is_for_entity()).count();
        assert_eq!(for_entities, 4);
    }

    #[test]
    fn a_messages_weight_follows_its_payload() {
        let event = |size: usize| Message::EventRaised {
            name: "go".into(),
            input: Some("x".repeat(size)),
            at: Timestamp::MIN,
        };
        assert_eq!(event(1_000).bytes() - event(0).bytes(), 1_000);
        assert!(Message::Start(Box::new(child())).bytes() > 100);
    }

    /// S-4.14: stored as a byte string, not as a list of numbers, and never re-encoded.
    #[test]
    fn failure_details_are_kept_byte_for_byte() {
        let odd = FailureDetails::from_encoded(Bytes::from_static(b"\xff\x00not protobuf"));
        let stored = rmp_serde::to_vec(&odd).unwrap();
        assert!(stored.len() <= odd.encoded().len() + 2);
        let read: FailureDetails = rmp_serde::from_slice(&stored).unwrap();
        assert_eq!(read, odd);
        assert_eq!(odd.error_type_and_message(), (String::new(), String::new()));
    }

    #[test]
    fn own_failures_name_their_type_and_message() {
        let failure = FailureDetails::new("HistoryTooLarge", "5 MB", true);
        let (error_type, message) = failure.error_type_and_message();
        assert_eq!(
            (error_type.as_str(), message.as_str()),
            ("HistoryTooLarge", "5 MB")
        );
    }
}
