//! What an instance has been through: the events of its current generation.
//!
//! History is append-only and travels as [`EncodedEvent`]s, bytes that the store and the host
//! never look into. The machine decodes them only where it must know what they say: when an
//! instance is activated, rewound, or needs its activities rebuilt.
//!
//! Which kind may stand where (S-3.2, S-3.7, S-3.12..14):
//!
//! ```text
//! generation = episode+ [ExecutionTerminated] [ExecutionCompleted]
//! episode    = OrchestratorStarted [ExecutionStarted] inbound* confirming*
//! inbound    = an outcome, EventRaised, TimerFired, or a marker; id -1
//! confirming = what an action led to; the action's id
//! ```
//!
//! `ExecutionStarted` stands in the first episode alone, with id 0; `ExecutionCompleted` is the
//! last event of every finished instance. Times don't rise throughout: an inbound event keeps the
//! time at which it arrived (S-3.10).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::id::{ExecutionId, InstanceId};
use crate::message::{FailureDetails, TraceContext};
use crate::orchestration::Status;
use crate::time::Timestamp;

/// Id of every event that no action led to (S-3.7).
pub const INBOUND_ID: i32 = -1;

/// Id of every `ExecutionStarted` (S-3.7).
pub const EXECUTION_STARTED_ID: i32 = 0;

/// One event of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEvent {
    /// The action's id for what confirms one, 0 for `ExecutionStarted`, else -1 (S-3.7).
    pub id: i32,
    /// When it arrived, or when it was committed (S-3.10).
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

/// What happened. Names, payloads, tags and trace contexts are verbatim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// Opens an episode; its time is the orchestrator's clock (S-3.6).
    OrchestratorStarted,
    /// What the generation was started with (S-3.16).
    ExecutionStarted(Box<ExecutionStarted>),
    /// The end; always the last event (S-3.14).
    ExecutionCompleted {
        /// A terminal status.
        status: Status,
        /// The output.
        result: Option<String>,
        /// Why it failed.
        failure: Option<FailureDetails>,
    },
    /// The instance was terminated from outside (S-9.7).
    ExecutionTerminated {
        /// The output that was asked for.
        input: Option<String>,
        /// Whether children were, too.
        recurse: bool,
    },
    /// Marker of a suspension (S-9.5).
    ExecutionSuspended {
        /// The reason.
        input: Option<String>,
    },
    /// Marker of its end (S-9.5).
    ExecutionResumed {
        /// The reason.
        input: Option<String>,
    },
    /// Marker of a rewind; stays in history and is never shown to a worker (S-9.13, S-9.14).
    ExecutionRewound(Box<ExecutionRewound>),
    /// Confirms an activity.
    TaskScheduled(Box<TaskScheduled>),
    /// An activity's result.
    TaskCompleted {
        /// Which one.
        task_id: i32,
        /// What it returned.
        result: Option<String>,
    },
    /// An activity's failure.
    TaskFailed {
        /// Which one.
        task_id: i32,
        /// Why. Events of our own making always have it (S-7.10).
        failure: Option<FailureDetails>,
    },
    /// Confirms a child.
    ChildCreated(Box<ChildCreated>),
    /// A child's output.
    ChildCompleted {
        /// Which one.
        task_id: i32,
        /// What it returned.
        result: Option<String>,
    },
    /// A child's failure.
    ChildFailed {
        /// Which one.
        task_id: i32,
        /// Why. Events of our own making always have it (S-7.10).
        failure: Option<FailureDetails>,
    },
    /// Confirms a timer.
    TimerCreated {
        /// The time that was asked for, exactly.
        fire_at: Timestamp,
    },
    /// A timer fired.
    TimerFired {
        /// The time that was asked for, exactly.
        fire_at: Timestamp,
        /// Which one.
        timer_id: i32,
    },
    /// Confirms an event sent to another instance (S-4.9).
    EventSent {
        /// The target as the action named it, which may be no legal id.
        instance: String,
        /// Name of the event.
        name: String,
        /// Payload.
        input: Option<String>,
    },
    /// An external event.
    EventRaised {
        /// Name of the event.
        name: String,
        /// Payload.
        input: Option<String>,
    },
    /// A kind that this machine only keeps and hands on.
    Other(OtherEvent),
}

/// The body of an event that the machine doesn't look into, as the protocol encodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherEvent {
    /// What it is.
    pub kind: OtherKind,
    /// The encoded body.
    pub body: Bytes,
}

/// Kinds of events that the machine doesn't look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherKind {
    /// Closes an episode in other schedulers' histories; never written here (S-3.13).
    OrchestratorCompleted,
    /// Free text.
    Generic,
    /// A snapshot of an instance's state.
    HistoryState,
    /// The end of a generation in other schedulers' histories.
    ContinueAsNew,
    /// Confirms a signal to an entity.
    EntityOperationSignaled,
    /// Confirms a call of an entity.
    EntityOperationCalled,
    /// An entity's answer.
    EntityOperationCompleted,
    /// An entity's failure.
    EntityOperationFailed,
    /// Confirms a request for locks.
    EntityLockRequested,
    /// All locks were granted.
    EntityLockGranted,
    /// Confirms the release of a lock.
    EntityUnlockSent,
}

/// What a generation was started with (S-3.16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionStarted {
    /// Name of the orchestrator.
    pub name: String,
    /// Its version; unset if none was given.
    pub version: Option<String>,
    /// Input of this generation.
    pub input: Option<String>,
    /// The instance.
    pub instance: InstanceId,
    /// The generation.
    pub execution_id: ExecutionId,
    /// Set for children (S-7.1).
    pub parent: Option<ParentInstance>,
    /// Set if a start in the future was asked for.
    pub scheduled_start_at: Option<Timestamp>,
    /// The creator's trace context.
    pub trace: Option<TraceContext>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// A parent as its child's history names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentInstance {
    /// Id of the action that created the child.
    pub task_id: i32,
    /// Name of the parent's orchestrator.
    pub name: Option<String>,
    /// Version of the parent's orchestrator.
    pub version: Option<String>,
    /// The parent.
    pub instance: InstanceId,
    /// The parent's generation.
    pub execution_id: Option<ExecutionId>,
}

/// Marker of a rewind. The last five fields serve hosts that rebuild a purged child (S-9.18).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecutionRewound {
    /// Why.
    pub reason: Option<String>,
    /// The parent's new generation, where the rewind came from it.
    pub parent_execution_id: Option<String>,
    /// The rewound instance.
    pub instance: Option<String>,
    /// Trace context of the rewind.
    pub trace: Option<TraceContext>,
    /// Name of the orchestrator.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its input.
    pub input: Option<String>,
    /// Its parent.
    pub parent: Option<ParentInstance>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// Confirms an activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskScheduled {
    /// Name of the activity.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// Its input.
    pub input: Option<String>,
    /// The action's trace context.
    pub trace: Option<TraceContext>,
    /// The action's tags.
    pub tags: BTreeMap<String, String>,
}

/// Confirms a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildCreated {
    /// The child's id, generated if the action had none; as the action named it, which may be no
    /// legal id (S-4.18).
    pub instance: String,
    /// Name of its orchestrator.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// Its input.
    pub input: Option<String>,
    /// The action's trace context.
    pub trace: Option<TraceContext>,
    /// The action's tags.
    pub tags: BTreeMap<String, String>,
}

/// An encoded `HistoryEvent` body, without a field tag. Opaque to store and host.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedEvent(Bytes);

impl EncodedEvent {
    /// Takes a body that is already encoded.
    pub fn from_encoded(body: Bytes) -> Self {
        Self(body)
    }

    /// The body.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Encoded size of the body, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the body is empty, which no event of ours ever is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for EncodedEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match crate::wire::decode(&self.0) {
            Ok(event) => event.fmt(f),
            Err(error) => write!(f, "EncodedEvent({error})"),
        }
    }
}
