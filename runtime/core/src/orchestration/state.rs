//! What is known of one instance, and what a turn changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::OpenWork;
use crate::Error;
use crate::effect::{ActivityTask, Effect, Timer};
use crate::history::{
    EncodedEvent, EventKind, ExecutionStarted, HistoryEvent, INBOUND_ID, ParentInstance,
};
use crate::id::{ExecutionId, InstanceId, Position};
use crate::message::{
    CarriedEvent, EpisodeTrace, FailureDetails, Fence, Message, NewInstance, Parent, TraceContext,
};
use crate::time::Timestamp;
use crate::wire;

/// Where an instance stands in its life (S-2.1, S-2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// An episode was committed, and more may come.
    Running,
    /// Ended with a result.
    Completed,
    /// Ended with a failure.
    Failed,
    /// Ended by the worker's word; no current SDK does.
    Canceled,
    /// Ended by a client or another instance.
    Terminated,
    /// No episode was committed yet.
    Pending,
    /// Nothing is dispatched until it is resumed.
    Suspended,
}

impl Status {
    /// Whether nothing more happens, short of rewind, restart and replacement.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Canceled | Self::Terminated
        )
    }

    /// The status of a protocol number; `None` for CONTINUED_AS_NEW, which is never stored, and for unknown numbers.
    pub fn from_wire(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Running),
            1 => Some(Self::Completed),
            3 => Some(Self::Failed),
            4 => Some(Self::Canceled),
            5 => Some(Self::Terminated),
            6 => Some(Self::Pending),
            7 => Some(Self::Suspended),
            _ => None,
        }
    }
}

/// What a suspension owes to history (S-9.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Suspension {
    /// `ExecutionSuspended` stands in the history; resuming adds its pair.
    Marked,
    /// An episode was out: the marker follows its commit.
    Owed(Option<String>),
    /// There was no history to mark.
    Unmarked,
}

/// A recursive termination under way, or one that passes through a finished instance (S-9.8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminating {
    /// Becomes the output.
    pub output: Option<String>,
    /// Children whose answer is missing.
    pub waits_for: BTreeSet<InstanceId>,
    /// Who is told when nothing below is active any more, each with the generation it asked from.
    pub answers: Vec<(InstanceId, ExecutionId)>,
}

/// Clock and cut of an episode that has to be handed out identically again (S-4.17).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Time of its `OrchestratorStarted`.
    pub clock: Timestamp,
    /// Carried events it holds.
    pub carried: u32,
    /// Messages it holds.
    pub messages: u32,
    /// The parent's generation as its `ExecutionStarted` names it; the parent may be rewound meanwhile.
    #[serde(default)]
    pub parent_execution_id: Option<ExecutionId>,
}

/// The state that is rewritten at every turn, therefore small: never input or history. Fields are only ever added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the orchestrator.
    pub name: String,
    /// Its version in this generation.
    pub version: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// The current generation.
    pub execution_id: ExecutionId,
    /// Numbers the generations under this id from 1; history chunks are keyed by it.
    pub generation: u32,
    /// When the record was created (S-2.6).
    pub created_at: Timestamp,
    /// When something last changed; never runs backwards (S-2.7).
    pub updated_at: Timestamp,
    /// Set exactly while terminal.
    pub completed_at: Option<Timestamp>,
    /// Time of the last `OrchestratorStarted` in any generation (S-3.6).
    pub clock: Option<Timestamp>,
    /// Time of the last `EventRaised` (S-3.11).
    pub raised_at: Option<Timestamp>,
    /// Who waits for the outcome.
    pub parent: Option<Parent>,
    /// What the last response of this generation said of its span (S-15.3).
    pub episode_trace: Option<EpisodeTrace>,
    /// As clients see it.
    pub custom_status: Option<String>,
    /// Its value at the end of the previous generation (S-3.23).
    pub inherited_custom_status: Option<String>,
    /// Result, or what a termination gave.
    pub output: Option<String>,
    /// Set only while failed.
    pub failure: Option<FailureDetails>,
    /// Activities, timers, children, calls and lock requests scheduled so far in this generation.
    pub schedulings: u32,
    /// Highest event id in this generation's history; -1 before the first.
    pub event_id_max: i32,
    /// Events in this generation's history.
    pub history_events: u32,
    /// Chunks of it. Kept by the host.
    pub history_chunks: u32,
    /// Encoded bytes of it. Kept by the host.
    pub history_bytes: u64,
    /// An episode of this instance was ever committed (S-2.4).
    pub has_run: bool,
    /// This generation's history holds `ExecutionStarted`.
    pub is_started: bool,
    /// How many of [`Start::carried`] are in history.
    pub carried_taken: u32,
    /// An episode is due although the mailbox may be empty: after a rewind (S-9.13), or since carried events are left (S-3.2).
    pub wants_episode: bool,
    /// Set exactly while suspended.
    pub suspension: Option<Suspension>,
    /// Set while a recursive termination is under way here.
    pub terminating: Option<Terminating>,
    /// Set while an episode is out that must not change (S-4.17).
    pub pinned: Option<Pin>,
    /// All messages up to here have left the mailbox. Kept by the host.
    pub mailbox_head: Position,
    /// Open schedulings of whose task id a younger scheduling has its outcome in history: there an outcome names the task id alone (S-4.13).
    #[serde(default)]
    pub overtaken: BTreeSet<u32>,
}

/// What a generation started with; written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Input, opaque.
    pub input: Option<String>,
    /// Tags, verbatim.
    pub tags: BTreeMap<String, String>,
    /// Set if the start was scheduled ahead.
    pub scheduled_start_at: Option<Timestamp>,
    /// Becomes `ExecutionStarted.parentTraceContext`.
    pub trace: Option<TraceContext>,
    /// Time of `ExecutionStarted` (S-3.16).
    pub started_at: Timestamp,
    /// Events that a continue-as-new handed over, in order (S-3.18).
    pub carried: Vec<CarriedEvent>,
}

/// An instance in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orchestration {
    /// Its id.
    pub id: InstanceId,
    /// Rewritten each turn.
    pub record: Record,
    /// Written each generation.
    pub start: Arc<Start>,
    /// Folded from history.
    pub open: OpenWork,
}

/// What becomes durable together, and what may be done once it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// Appended to the history of the (possibly new) generation.
    pub history: Vec<EncodedEvent>,
    /// The generation is new: [`Start`] must be written.
    pub is_new_generation: bool,
    /// Number and chunks of the generation whose history goes.
    pub old_generation: Option<(u32, u32)>,
    /// Messages taken from the head of the mailbox.
    pub messages_taken: usize,
    /// Messages for the own mailbox, in order.
    pub own_messages: Vec<Message>,
    /// In the order in which they are to be performed.
    pub effects: Vec<Effect>,
}

/// What a client sees of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its id.
    pub id: InstanceId,
    /// Name of the orchestrator.
    pub name: String,
    /// Version, if any.
    pub version: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// The current generation.
    pub execution_id: ExecutionId,
    /// When it was created.
    pub created_at: Timestamp,
    /// When something last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Set if it was scheduled ahead.
    pub scheduled_start_at: Option<Timestamp>,
    /// Whose child it is.
    pub parent: Option<InstanceId>,
    /// Always there (S-2.8).
    pub tags: BTreeMap<String, String>,
    /// Whether the payloads below are to be shown (S-11.2).
    pub include_payloads: bool,
    /// Input of the current generation.
    pub input: Option<String>,
    /// Result.
    pub output: Option<String>,
    /// Custom status.
    pub custom_status: Option<String>,
    /// Failure.
    pub failure: Option<FailureDetails>,
}

impl View {
    /// About its encoded size, in bytes.
    pub fn bytes(&self) -> usize {
        let text = |t: &Option<String>| t.as_ref().map_or(0, String::len);
        let tags: usize = self.tags.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
        let failure = self.failure.as_ref().map_or(0, |f| f.encoded().len());
        300 + self.name.len()
            + tags
            + failure
            + text(&self.input)
            + text(&self.output)
            + text(&self.custom_status)
    }
}

impl Orchestration {
    /// Rebuilds an instance from storage: folds the history of its current generation.
    ///
    /// Errors: `Corrupt` when the history cannot be read.
    pub fn restore(
        id: InstanceId,
        record: Record,
        start: Start,
        history: &[Bytes],
    ) -> Result<Self, Error> {
        let mut open = OpenWork::default();
        for chunk in history {
            for event in wire::decode_chunk(chunk)? {
                open.fold(&event, &record.overtaken);
            }
        }
        if record.status.is_terminal() {
            open.close();
        }
        Ok(Self {
            id,
            record,
            start: Arc::new(start),
            open,
        })
    }

    /// Schedulings of activities that have no outcome yet.
    pub fn open_activities(&self) -> Vec<u32> {
        self.open.activities()
    }

    /// The activities with these schedulings, read from the history of the current generation.
    pub fn activity_tasks(
        &self,
        history: &[Bytes],
        schedulings: &[u32],
    ) -> Result<Vec<ActivityTask>, Error> {
        Self::tasks_in(
            history,
            &self.record.execution_id,
            self.record.version.clone(),
            schedulings,
        )
    }

    /// The activities with these schedulings in any generation's history.
    pub fn tasks_in(
        history: &[Bytes],
        execution_id: &ExecutionId,
        version: Option<String>,
        schedulings: &[u32],
    ) -> Result<Vec<ActivityTask>, Error> {
        let mut tasks = Vec::with_capacity(schedulings.len());
        let mut scheduling = 0;
        for chunk in history {
            for event in wire::decode_chunk(chunk)? {
                if let EventKind::TaskScheduled(task) = &event.kind
                    && schedulings.contains(&scheduling)
                {
                    tasks.push(ActivityTask {
                        fence: Fence {
                            execution_id: execution_id.clone(),
                            scheduling,
                        },
                        task_id: event.id,
                        name: task.name.clone(),
                        version: task.version.clone(),
                        input: task.input.clone(),
                        tags: task.tags.clone(),
                        trace: task.trace.clone(),
                        orchestration_version: version.clone(),
                    });
                }
                scheduling += u32::from(OpenWork::is_scheduling(&event));
            }
        }
        Ok(tasks)
    }

    /// Timers that have not fired.
    pub fn open_timers(&self) -> Vec<Timer> {
        self.open
            .timers(self.record.generation, &self.record.execution_id)
    }

    /// Children of the current generation, finished ones too, each once. Illegal ids are none, nor is the own one (S-4.18).
    pub fn children(&self) -> Vec<InstanceId> {
        let children: BTreeSet<InstanceId> = self.open.children().cloned().collect();
        children
            .into_iter()
            .filter(|child| *child != self.id && InstanceId::parse(child.as_str()).is_ok())
            .collect()
    }

    /// Whether entities are locked for it, or are to be.
    pub fn has_locks(&self) -> bool {
        !self.open.locked().is_empty()
    }

    /// What a client sees.
    pub fn view(&self, include_payloads: bool) -> View {
        Self::stored_view(self.id.clone(), &self.record, &self.start, include_payloads)
    }

    /// The same, from what is stored.
    pub fn stored_view(
        id: InstanceId,
        record: &Record,
        start: &Start,
        include_payloads: bool,
    ) -> View {
        let shown = |text: &Option<String>| text.clone().filter(|_| include_payloads);
        View {
            id,
            name: record.name.clone(),
            version: record.version.clone(),
            status: record.status,
            execution_id: record.execution_id.clone(),
            created_at: record.created_at,
            updated_at: record.updated_at,
            completed_at: record.completed_at,
            scheduled_start_at: start.scheduled_start_at,
            parent: record.parent.as_ref().map(|p| p.instance.clone()),
            tags: start.tags.clone(),
            include_payloads,
            input: shown(&start.input),
            output: shown(&record.output),
            custom_status: shown(&record.custom_status),
            failure: record.failure.clone().filter(|_| include_payloads),
        }
    }

    /// Takes note of a waiting message that arrived, or is found in the mailbox when the instance is activated. False: it does not fit
    /// (another generation's, a second outcome, a finished instance) and is to be dropped (S-0.3, S-2.9, S-2.10).
    pub fn arrive(&mut self, message: &Message) -> bool {
        if self.record.status.is_terminal() {
            return false;
        }
        match outcome_of(message) {
            None => matches!(message, Message::EventRaised { .. }),
            Some(fence) => {
                fence.execution_id == self.record.execution_id && self.open.arrive(fence.scheduling)
            }
        }
    }

    /// Whether a message that arrived still belongs into the mailbox, after a turn that may have ended its generation.
    pub fn keeps(&self, message: &Message) -> bool {
        !self.record.status.is_terminal()
            && outcome_of(message).is_none_or(|f| f.execution_id == self.record.execution_id)
    }

    /// What a restart starts: name, version, tags and input of the current generation, without a parent (S-9.20).
    pub fn restart_request(&self, instance: InstanceId) -> NewInstance {
        NewInstance {
            instance,
            name: self.record.name.clone(),
            version: self.record.version.clone(),
            input: self.start.input.clone(),
            tags: self.start.tags.clone(),
            scheduled_start_at: None,
            execution_id: None,
            parent: None,
            trace: self.start.trace.clone(),
        }
    }

    /// `ExecutionStarted` of the current generation (S-3.16).
    pub(super) fn execution_started(&self) -> HistoryEvent {
        let mut parent = self.record.parent.as_ref().map(parent_instance);
        if let (Some(parent), Some(pin)) = (&mut parent, &self.record.pinned) {
            parent.execution_id = pin.parent_execution_id.clone();
        }
        let started = ExecutionStarted {
            name: self.record.name.clone(),
            version: self.record.version.clone(),
            input: self.start.input.clone(),
            instance: self.id.clone(),
            execution_id: self.record.execution_id.clone(),
            parent,
            scheduled_start_at: self.start.scheduled_start_at,
            trace: self.start.trace.clone(),
            tags: self.start.tags.clone(),
        };
        HistoryEvent {
            id: crate::history::EXECUTION_STARTED_ID,
            at: self.start.started_at,
            kind: EventKind::ExecutionStarted(Box::new(started)),
        }
    }

    pub(super) fn touch(&mut self, now: Timestamp) {
        self.record.updated_at = self.record.updated_at.max(now);
    }

    /// Adds an event to the turn's history and takes note of it.
    pub(super) fn record_event(
        &mut self,
        transition: &mut Transition,
        id: i32,
        at: Timestamp,
        kind: EventKind,
    ) {
        let event = HistoryEvent { id, at, kind };
        self.open.fold(&event, &self.record.overtaken);
        self.record.event_id_max = self.record.event_id_max.max(id);
        self.record.history_events += 1;
        self.record.schedulings = self.open.schedulings();
        transition.history.push(wire::encode(&event));
    }

    pub(super) fn record_inbound(
        &mut self,
        transition: &mut Transition,
        at: Timestamp,
        kind: EventKind,
    ) {
        self.record_event(transition, INBOUND_ID, at, kind);
    }
}

pub(super) fn parent_instance(parent: &Parent) -> ParentInstance {
    ParentInstance {
        task_id: parent.task_id,
        name: Some(parent.name.clone()),
        version: parent.version.clone(),
        instance: parent.instance.clone(),
        execution_id: Some(parent.fence.execution_id.clone()),
    }
}

/// The fence of an outcome; `None` for messages that are none.
pub(super) fn outcome_of(message: &Message) -> Option<&Fence> {
    match message {
        Message::ActivityCompleted { fence, .. }
        | Message::ActivityFailed { fence, .. }
        | Message::TimerFired { fence, .. }
        | Message::ChildCompleted { fence, .. }
        | Message::ChildFailed { fence, .. }
        | Message::EntityCompleted { fence, .. }
        | Message::EntityFailed { fence, .. }
        | Message::LocksGranted { fence, .. } => Some(fence),
        Message::EventRaised { .. }
        | Message::Operation(_)
        | Message::Lock(_)
        | Message::Unlock { .. }
        | Message::ReleaseLocks(_)
        | Message::StartFromEntity(_)
        | Message::Start(_)
        | Message::Terminate { .. }
        | Message::TerminateTree { .. }
        | Message::TreeTerminated { .. }
        | Message::RewindChild { .. } => None,
    }
}
