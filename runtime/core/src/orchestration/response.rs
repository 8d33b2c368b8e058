//! A worker's response before it is applied: what of it ends the instance, and why it may be refused as a whole.

use crate::action::{Action, Completion, End, EpisodeResult};
use crate::entity::{EntityEvent, lock_set};
use crate::id::InstanceId;
use crate::message::{FailureDetails, TURN_MESSAGES_MAX};
use crate::wire;

use super::{Limits, Status};

pub(super) fn fails(completion: &Completion) -> bool {
    matches!(
        completion.end,
        End::Finish {
            status: Status::Failed,
            ..
        }
    )
}

/// A response's actions, apart from those that end something.
pub(super) struct Closing {
    pub(super) completion: Option<Completion>,
    /// The instance terminates itself and its children, with this output (S-9.8). Excludes a completion.
    pub(super) own_termination: Option<Option<String>>,
    pub(super) actions: Vec<Action>,
}

/// Takes the completion out of the actions: the one with the smallest id counts (S-4.2). A worker that terminates its own instance
/// completes it, unless it has children to be terminated first.
pub(super) fn closing(actions: Vec<Action>, own: &InstanceId, has_children: bool) -> Closing {
    let mut completion: Option<(Completion, bool)> = None;
    let mut rest = Vec::with_capacity(actions.len());
    for action in actions {
        let (found, recurses) = match action {
            Action::Complete(found) => (*found, false),
            Action::Terminate {
                id,
                instance,
                reason,
                recurse,
            } if instance == own.as_str() => {
                let end = End::Finish {
                    status: Status::Terminated,
                    result: reason,
                    failure: None,
                };
                (Completion { id, end }, recurse && has_children)
            }
            action => {
                rest.push(action);
                continue;
            }
        };
        if completion.as_ref().is_none_or(|(c, _)| found.id < c.id) {
            completion = Some((found, recurses));
        }
    }
    let (completion, own_termination) = match completion {
        Some((
            Completion {
                end: End::Finish { result, .. },
                ..
            },
            true,
        )) => (None, Some(result)),
        other => (other.map(|(completion, _)| completion), None),
    };
    Closing {
        completion,
        own_termination,
        actions: rest,
    }
}

/// Why an instance fails whatever else its response says: it would wait for ever. Its other actions count.
pub(super) fn unsupported(actions: &[Action]) -> Option<FailureDetails> {
    actions.iter().find_map(|action| match action {
        Action::SendEvent {
            instance,
            name,
            input,
            ..
        } if instance.starts_with('@') && expects_answer(name, input) => {
            let message = format!(
                "the orchestration asked entity '{instance}' by an external event, as older hosts do; this server takes entity messages only"
            );
            Some(FailureDetails::new("EntityEventsNotSupported", &message, true))
        }
        Action::SendEntityMessage { event, .. } => match wire::entity_event(event) {
            Some(EntityEvent::LockRequested { lock_set: listed, .. }) => {
                let error = lock_set(&listed).err()?;
                let message = format!("the lock set of a critical section is illegal: {error}");
                Some(FailureDetails::new("InvalidArgument", &message, true))
            }
            _ => None,
        },
        _ => None,
    })
}

/// Whether an older host's message to an entity is a call or a lock request; others are dropped (S-12.50).
fn expects_answer(name: &str, input: &Option<String>) -> bool {
    let is_signal = || {
        let text: String = input
            .iter()
            .flat_map(|i| i.chars())
            .filter(|c| !c.is_whitespace())
            .collect();
        text.contains("\"signal\":true")
    };
    (name == "op" || name.starts_with("op@")) && !is_signal()
}

/// Why a response cannot be taken as it is (S-14.4).
///
/// `locked`: entities to be told if the generation ends.
pub(super) fn refusal(
    result: &EpisodeResult,
    locked: usize,
    limits: &Limits,
) -> Option<FailureDetails> {
    let messages = locked + result.actions.iter().map(messages).sum::<usize>();
    if messages > TURN_MESSAGES_MAX {
        let message = format!(
            "the response sends {messages} messages to other instances; at most {TURN_MESSAGES_MAX} are allowed"
        );
        return Some(FailureDetails::new("TooManyMessages", &message, true));
    }
    let limit = limits.payload_bytes_max;
    let (what, bytes) = payloads(result).find(|(_, bytes)| *bytes > limit)?;
    let message = format!("the {what} has {bytes} bytes; at most {limit} are allowed");
    Some(FailureDetails::new("PayloadTooLarge", &message, true))
}

/// Messages that an action sends; for locks, also those that give them back should the generation end.
fn messages(action: &Action) -> usize {
    match action {
        Action::CreateChild { .. } | Action::SendEvent { .. } | Action::Terminate { .. } => 1,
        Action::SendEntityMessage { event, .. } => match wire::entity_event(event) {
            Some(EntityEvent::LockRequested { lock_set, .. }) => 1 + lock_set.len(),
            _ => 1,
        },
        _ => 0,
    }
}

fn payloads(result: &EpisodeResult) -> impl Iterator<Item = (&'static str, usize)> + '_ {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let of_action = move |action: &Action| match action {
        Action::ScheduleTask { input, .. } => ("activity input", length(input)),
        Action::CreateChild { input, .. } => ("sub-orchestration input", length(input)),
        Action::SendEvent { input, .. } => ("event data", length(input)),
        Action::Terminate { reason, .. } => ("termination reason", length(reason)),
        Action::Complete(completion) => match &completion.end {
            End::Finish { result, .. } => ("orchestration output", length(result)),
            End::ContinueAsNew { input, carried, .. } => {
                let largest = carried.iter().map(|c| length(&c.input)).max().unwrap_or(0);
                ("orchestration input", length(input).max(largest))
            }
        },
        Action::SendEntityMessage { event, .. } => match wire::entity_event(event) {
            Some(EntityEvent::Called(asked) | EntityEvent::Signaled(asked)) => {
                ("entity operation input", length(&asked.input))
            }
            _ => ("entity message", 0),
        },
        Action::CreateTimer { .. } | Action::Rewind { .. } => ("timer", 0),
    };
    std::iter::once(("custom status", length(&result.custom_status)))
        .chain(result.actions.iter().map(of_action))
}

pub(super) fn too_long(most: u32) -> FailureDetails {
    let message = format!("the history has more than {most} events; continue as new before that");
    FailureDetails::new("HistoryTooLong", &message, true)
}
