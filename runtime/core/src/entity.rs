//! What travels between orchestrations, clients, workers and entities.
//!
//! Entity ids are [`InstanceId`]s that begin with '@' (S-12.1), so that mailboxes and messages are the same for both kinds. The
//! machine that decides what an entity does with all this is not here, but in the entities crate.

use serde::{Deserialize, Serialize};

use crate::id::{ExecutionId, FreshIds, InstanceId};
use crate::message::{FailureDetails, TraceContext};
use crate::time::Timestamp;

/// One generation of an orchestration, as a sender of operations and a holder of locks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// The orchestration.
    pub instance: InstanceId,
    /// Its generation.
    pub execution_id: ExecutionId,
}

/// Who asked for an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sender {
    /// A client. It may send the same request id again when it missed the answer (S-12.37).
    Client,
    /// Another entity, or the entity itself.
    Entity,
    /// An orchestration that does not wait.
    Signal(Generation),
    /// An orchestration that waits for the outcome of this scheduling.
    Call {
        /// Who waits.
        caller: Generation,
        /// The scheduling that the outcome answers.
        scheduling: u32,
    },
}

impl Sender {
    /// The orchestration that sent it, if one did.
    pub fn generation(&self) -> Option<&Generation> {
        match self {
            Self::Client | Self::Entity => None,
            Self::Signal(generation)
            | Self::Call {
                caller: generation, ..
            } => Some(generation),
        }
    }
}

/// An operation on its way to an entity, and in its queue (S-12.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// As the sender named it: answered and de-duplicated by.
    pub request_id: String,
    /// What workers are told instead where `request_id` is no GUID (S-12.51).
    pub worker_request_id: Option<String>,
    /// Name of the operation.
    pub name: String,
    /// Input, opaque.
    pub input: Option<String>,
    /// Who sent it.
    pub sender: Sender,
    /// Not before this time (S-6.7).
    pub scheduled_at: Option<Timestamp>,
    /// When it was accepted.
    pub at: Timestamp,
}

impl Operation {
    /// An operation under a request id that is its sender's; one that no worker could parse gets a second one for workers.
    pub fn new(
        request_id: String,
        name: String,
        input: Option<String>,
        sender: Sender,
        at: Timestamp,
        ids: &mut dyn FreshIds,
    ) -> Self {
        let worker_request_id = (!is_guid(&request_id)).then(|| guid(ids));
        Self {
            request_id,
            worker_request_id,
            name,
            input,
            sender,
            scheduled_at: None,
            at,
        }
    }

    /// The same, held back until a time.
    pub fn scheduled(self, scheduled_at: Option<Timestamp>) -> Self {
        Self {
            scheduled_at,
            ..self
        }
    }

    /// The request id that a worker is told: always a GUID (S-12.11).
    pub fn shown_request_id(&self) -> &str {
        self.worker_request_id.as_ref().unwrap_or(&self.request_id)
    }

    /// Whether somebody waits for the outcome.
    pub fn is_call(&self) -> bool {
        matches!(self.sender, Sender::Call { .. })
    }

    /// Bytes of its texts.
    pub fn bytes(&self) -> usize {
        self.request_id.len() + self.name.len() + self.input.as_ref().map_or(0, String::len)
    }
}

/// A request for all locks of a critical section, on its way along the lock set (S-12.27).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRequest {
    /// Names the critical section.
    pub critical_section: String,
    /// The entities in the order in which they are locked, each once.
    pub lock_set: Vec<InstanceId>,
    /// Whose turn it is.
    pub position: u32,
    /// Who will hold the locks.
    pub holder: Generation,
    /// The scheduling that the grant answers.
    pub scheduling: u32,
}

/// What an orchestrator asks of an entity, or an entity tells it, as its event says. Targets are not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityEvent {
    /// A signal.
    Signaled(Asked),
    /// A call.
    Called(Asked),
    /// A call's result.
    Completed {
        /// Which call.
        request_id: String,
    },
    /// A call's failure.
    Failed {
        /// Which call.
        request_id: String,
    },
    /// A critical section is to be entered.
    LockRequested {
        /// Names it.
        critical_section: String,
        /// Its entities, as the worker listed them.
        lock_set: Vec<String>,
    },
    /// It is entered.
    LockGranted {
        /// Which one.
        critical_section: String,
    },
    /// One of its locks is given back.
    UnlockSent {
        /// Which section.
        critical_section: String,
        /// Which entity.
        target: String,
    },
}

/// An operation as an orchestrator asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The entity.
    pub target: String,
    /// The orchestrator's id for it.
    pub request_id: String,
    /// Name of the operation.
    pub name: String,
    /// Input.
    pub input: Option<String>,
    /// Not before this time.
    pub scheduled_at: Option<Timestamp>,
}

/// A worker's answer to a batch (S-12.13).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchResult {
    /// One outcome for each operation done, by position.
    pub outcomes: Vec<OperationOutcome>,
    /// What the operations asked for, in order.
    pub actions: Vec<OperationAction>,
    /// The state after the last operation done; unset deletes the entity (S-12.17).
    pub state: Option<String>,
    /// The worker could not run the batch at all (S-12.16).
    pub failure: Option<FailureDetails>,
    /// The worker wants the state sent again.
    pub requires_state: bool,
}

/// How one operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationOutcome {
    /// With a result.
    Success(Option<String>),
    /// With a failure; the worker has rolled it back.
    Failure(FailureDetails),
}

/// Something that an operation asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationAction {
    /// Signal an entity.
    SendSignal {
        /// The entity. Not checked.
        target: String,
        /// Name of the operation.
        name: String,
        /// Input.
        input: Option<String>,
        /// Not before this time.
        scheduled_at: Option<Timestamp>,
    },
    /// Start an orchestration (S-10.7).
    StartOrchestration {
        /// Its id; empty asks for one. Not checked.
        instance: String,
        /// Name of the orchestrator.
        name: String,
        /// Its version.
        version: Option<String>,
        /// Its input.
        input: Option<String>,
        /// Not before this time (S-6.8).
        scheduled_at: Option<Timestamp>,
        /// Trace context.
        trace: Option<TraceContext>,
    },
}

/// A lock set as it is used: every entity once, ordered by name and then key, whatever the worker's order (S-12.26).
///
/// Errors: the first id that no entity can have.
pub fn lock_set(listed: &[String]) -> Result<Vec<InstanceId>, crate::id::InvalidId> {
    let mut entities = listed
        .iter()
        .map(|id| InstanceId::parse_entity(id))
        .collect::<Result<Vec<_>, _>>()?;
    entities.sort_by(|a, b| a.entity_parts().cmp(&b.entity_parts()));
    entities.dedup();
    Ok(entities)
}

/// A fresh GUID in its usual form.
pub fn guid(ids: &mut dyn FreshIds) -> String {
    let hex = format!("{:032x}", ids.next());
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// Whether every SDK can read the text as a GUID: 32 hex digits, in groups of 8-4-4-4-12 or in one.
fn is_guid(text: &str) -> bool {
    let bytes = text.as_bytes();
    match bytes.len() {
        32 => bytes.iter().all(u8::is_ascii_hexdigit),
        36 => bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Counter(u128);
    impl FreshIds for Counter {
        fn next(&mut self) -> u128 {
            self.0 += 1;
            self.0
        }
    }

    fn set(listed: &[&str]) -> Vec<String> {
        let listed: Vec<String> = listed.iter().map(|id| (*id).to_owned()).collect();
        let entities = lock_set(&listed).unwrap();
        entities.iter().map(|e| e.as_str().to_owned()).collect()
    }

    /// S-12.26: a name with a character below '@' sorts differently as a whole string.
    #[test]
    fn lock_sets_are_ordered_by_name_and_key_and_hold_each_entity_once() {
        assert_eq!(
            set(&["@b@1", "@A@2", "@a@1", "@a@1", "@a-b@0", "@B@1"]),
            ["@a@1", "@a@2", "@a-b@0", "@b@1"]
        );
        assert!(set(&[]).is_empty());
        assert!(lock_set(&["@a@1".to_owned(), "plain".to_owned()]).is_err());
    }

    /// S-12.11, S-12.51.
    #[test]
    fn workers_are_told_guids_whatever_the_sender_calls_its_request() {
        let named = |request_id: &str| {
            Operation::new(
                request_id.to_owned(),
                "add".to_owned(),
                None,
                Sender::Client,
                Timestamp::MIN,
                &mut Counter(0),
            )
        };
        for guid in [
            "00000000-0000-0000-0000-00000000000A",
            "0af7651916cd43dd8448eb211c80319c",
        ] {
            assert_eq!(named(guid).shown_request_id(), guid);
        }
        for other in ["", "request 1", "g0000000-0000-0000-0000-000000000000"] {
            let operation = named(other);
            assert_eq!(operation.request_id, other);
            assert!(is_guid(operation.shown_request_id()));
        }
    }
}
