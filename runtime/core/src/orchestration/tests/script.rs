//! What scripted workers answer: one function for each action.

use std::collections::BTreeMap;

use crate::action::{Action, CarryOver, Completion, End, EpisodeResult};
use crate::message::FailureDetails;
use crate::orchestration::Status;
use crate::time::Timestamp;

pub(super) fn task(id: i32, name: &str) -> Action {
    Action::ScheduleTask {
        id,
        name: name.into(),
        version: None,
        input: Some(format!("input {id}")),
        tags: BTreeMap::new(),
        trace: None,
    }
}

pub(super) fn timer(id: i32, fire_at: Timestamp) -> Action {
    Action::CreateTimer {
        id,
        fire_at: Some(fire_at),
    }
}

pub(super) fn child(id: i32, instance: &str) -> Action {
    Action::CreateChild {
        id,
        instance: instance.into(),
        name: "Child".into(),
        version: None,
        input: Some("for the child".into()),
        tags: BTreeMap::new(),
        trace: None,
    }
}

pub(super) fn event(id: i32, instance: &str, name: &str) -> Action {
    Action::SendEvent {
        id,
        instance: instance.into(),
        name: name.into(),
        input: Some(format!("data {id}")),
    }
}

pub(super) fn terminate(id: i32, instance: &str, recurse: bool) -> Action {
    Action::Terminate {
        id,
        instance: instance.into(),
        reason: Some("stop".into()),
        recurse,
    }
}

pub(super) fn finish(id: i32, status: Status, result: Option<&str>) -> Action {
    ended(id, status, result, None)
}

pub(super) fn complete(id: i32, result: &str) -> Action {
    finish(id, Status::Completed, Some(result))
}

pub(super) fn fail(id: i32, failure: FailureDetails) -> Action {
    ended(id, Status::Failed, None, Some(failure))
}

fn ended(id: i32, status: Status, result: Option<&str>, failure: Option<FailureDetails>) -> Action {
    let end = End::Finish {
        status,
        result: result.map(Into::into),
        failure,
    };
    Action::Complete(Box::new(Completion { id, end }))
}

pub(super) fn renew(id: i32, input: Option<&str>) -> Action {
    renew_with(id, input, None, Vec::new())
}

pub(super) fn renew_with(
    id: i32,
    input: Option<&str>,
    version: Option<&str>,
    carried: Vec<CarryOver>,
) -> Action {
    let end = End::ContinueAsNew {
        input: input.map(Into::into),
        version: version.map(Into::into),
        carried,
    };
    Action::Complete(Box::new(Completion { id, end }))
}

pub(super) fn carry(name: &str, at: Option<Timestamp>) -> CarryOver {
    CarryOver {
        name: name.into(),
        input: None,
        at,
    }
}

/// A response with a custom status.
pub(super) fn saying(custom_status: &str, actions: Vec<Action>) -> EpisodeResult {
    EpisodeResult {
        actions,
        custom_status: Some(custom_status.into()),
        ..EpisodeResult::default()
    }
}

/// A response that consumed only the first events.
pub(super) fn processing(count: u32, actions: Vec<Action>) -> EpisodeResult {
    EpisodeResult {
        actions,
        events_processed: Some(count),
        ..EpisodeResult::default()
    }
}
