//! For the tests of users: would this deployment break what is under way?

use std::sync::Arc;

use mainspring_proto::history_event::EventType;

use crate::client::History;
use crate::convert::{Payload, Payloads};
use crate::handler::{Orchestration, named};
use crate::registry::Registry;
use crate::replay::{Instance, Mismatch, Trouble};

/// Runs code against the history of an instance that it, or a former version of it, has made. Nothing is called: activities,
/// timers and events are answered as the history tells.
///
/// Keep histories of what is typical in files, [`History::save`] writes them, and a test of one line tells whether changed code still
/// fits them.
///
/// ```
/// # use mainspring_sdk::{History, OrchestrationContext, Result, testing};
/// # async fn order(_: OrchestrationContext, _: ()) -> Result<()> { Ok(()) }
/// fn running_orders_survive_this_deployment(history: &History) {
///     testing::replay(order, history).unwrap();
/// }
/// ```
///
/// # Errors
///
/// The first difference: what the history says, and what the code did instead.
pub fn replay<F, I, O>(orchestration: F, history: &History) -> Result<(), Mismatch>
where
    F: Orchestration<I, O>,
    I: Payload,
    O: Payload,
{
    let events = history.events();
    let started = events.iter().find_map(|event| match &event.event_type {
        Some(EventType::ExecutionStarted(started)) => Some(started),
        _ => None,
    });
    let Some(started) = started else {
        return Err(Mismatch {
            event: events.len(),
            expected: "ExecutionStarted".to_owned(),
            found: "a history without it".to_owned(),
        });
    };
    let mut registry = Registry::default();
    // Under the name that it was started by, whatever the function is called now.
    registry.add_orchestration(named(started.name.clone(), orchestration));
    let mut instance = Instance::new(Arc::new(registry), Payloads::default());
    match instance.replay(events) {
        Ok(()) => {}
        Err(Trouble::Mismatch(mismatch)) => return Err(mismatch),
        Err(Trouble::Unknown { name, .. }) => unreachable!("'{name}' was registered above"),
    }
    let has_ended = events
        .iter()
        .any(|event| matches!(event.event_type, Some(EventType::ExecutionCompleted(_))));
    instance.rest(has_ended)
}
