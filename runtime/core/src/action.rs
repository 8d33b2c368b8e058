//! What an orchestrator asks for, as one response of its worker lists it.
//!
//! Actions are taken as they come: ids may repeat or be negative (S-3.8), targets may be illegal
//! (S-4.18). What becomes of them is decided in [`orchestration`](crate::orchestration).

use std::collections::BTreeMap;

use crate::history::{HistoryEvent, OtherEvent};
use crate::message::{EpisodeTrace, FailureDetails, TraceContext};
use crate::orchestration::Status;
use crate::time::Timestamp;

/// A worker's response to an episode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpisodeResult {
    /// In the worker's order, which means nothing for the completion (S-4.1).
    pub actions: Vec<Action>,
    /// Set and empty clears it, unset falls back (S-3.23).
    pub custom_status: Option<String>,
    /// How many of the episode's events were consumed; unset means all (S-3.30). Unset in chunks.
    pub events_processed: Option<u32>,
    /// The orchestration's span, if the worker made one (S-15.3).
    pub trace: Option<EpisodeTrace>,
    /// The worker could not run without the history: redeliver with it (S-3.32).
    pub requires_history: bool,
    /// Set if this is one of several responses that together answer the episode (S-3.31).
    pub chunk: Option<Chunk>,
}

/// Place of a response among those that together answer one episode (S-3.31).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Counts from 0.
    pub index: u32,
    /// No further chunk follows: all of them apply now.
    pub is_last: bool,
}

/// One thing that an orchestrator asks for. `id` becomes the confirming event's (S-3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run an activity.
    ScheduleTask {
        /// Action id.
        id: i32,
        /// Name of the activity.
        name: String,
        /// Its version.
        version: Option<String>,
        /// Its input.
        input: Option<String>,
        /// Tags.
        tags: BTreeMap<String, String>,
        /// Trace context.
        trace: Option<TraceContext>,
    },
    /// Start a child.
    CreateChild {
        /// Action id.
        id: i32,
        /// The child's id; empty asks for one (S-7.3). Not checked.
        instance: String,
        /// Name of its orchestrator.
        name: String,
        /// Its version.
        version: Option<String>,
        /// Its input.
        input: Option<String>,
        /// Tags.
        tags: BTreeMap<String, String>,
        /// Trace context.
        trace: Option<TraceContext>,
    },
    /// Wake up later.
    CreateTimer {
        /// Action id.
        id: i32,
        /// When; unset means now (S-4.12).
        fire_at: Option<Timestamp>,
    },
    /// Raise an event at an instance.
    SendEvent {
        /// Action id.
        id: i32,
        /// The target. Not checked.
        instance: String,
        /// Name of the event.
        name: String,
        /// Payload.
        input: Option<String>,
    },
    /// Signal, call, lock or unlock an entity.
    SendEntityMessage {
        /// Action id.
        id: i32,
        /// The confirming event, which has the action's own fields (S-4.8).
        event: OtherEvent,
    },
    /// Terminate another instance.
    Terminate {
        /// Action id.
        id: i32,
        /// The target. Not checked.
        instance: String,
        /// Becomes its output.
        reason: Option<String>,
        /// Whether its children are terminated, too.
        recurse: bool,
    },
    /// End this generation.
    Complete(Box<Completion>),
    /// Replace the history by a rewound one (S-9.15).
    Rewind {
        /// Action id.
        id: i32,
        /// All events of the new generation.
        history: Vec<HistoryEvent>,
    },
}

/// The end of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Action id.
    pub id: i32,
    /// How it ends.
    pub end: End,
}

/// How a generation ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The instance is finished.
    Finish {
        /// A terminal status.
        status: Status,
        /// The output.
        result: Option<String>,
        /// Why it failed.
        failure: Option<FailureDetails>,
    },
    /// The instance goes on in a new generation (S-3.17).
    ContinueAsNew {
        /// Its input; absent stays absent.
        input: Option<String>,
        /// Its version; unset keeps the old one.
        version: Option<String>,
        /// Events to hand over, in the worker's order (S-3.19).
        carried: Vec<CarryOver>,
    },
}

/// An event that the next generation shall see, as the worker listed it. Only raised events are
/// carried over; others in the worker's list are ignored (S-3.19).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarryOver {
    /// Name of the event.
    pub name: String,
    /// Payload.
    pub input: Option<String>,
    /// Its former time; unset where the worker sent none, or zero.
    pub at: Option<Timestamp>,
}
