//! For the tests of users: would this deployment break what is under way?

use std::collections::BTreeMap;
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

/// What an orchestration has asked for and not got by the end of this history, in words for people: `activity 'charge'`. What it waits for from
/// outside is in no history.
///
/// ```
/// # use mainspring_sdk::{History, testing};
/// fn nothing_is_left_open(history: &History) {
///     assert!(testing::open_tasks(history).is_empty());
/// }
/// ```
pub fn open_tasks(history: &History) -> Vec<String> {
    let mut open = BTreeMap::new();
    // Entities answer by names of their own.
    let mut asked = BTreeMap::new();
    for event in history.events() {
        let id = event.event_id;
        match &event.event_type {
            Some(EventType::TaskScheduled(task)) => {
                open.insert(id, format!("activity '{}'", task.name));
            }
            Some(EventType::SubOrchestrationInstanceCreated(child)) => {
                let text = format!("orchestration '{}' ('{}')", child.name, child.instance_id);
                open.insert(id, text);
            }
            Some(EventType::TimerCreated(_)) => {
                open.insert(id, "a timer".to_owned());
            }
            Some(EventType::EntityOperationCalled(call)) => {
                let entity = call.target_instance_id.as_deref().unwrap_or_default();
                asked.insert(call.request_id.clone(), id);
                open.insert(
                    id,
                    format!("operation '{}' of entity '{entity}'", call.operation),
                );
            }
            Some(EventType::EntityLockRequested(lock)) => {
                asked.insert(lock.critical_section_id.clone(), id);
                open.insert(id, format!("a lock of {}", lock.lock_set.join(", ")));
            }
            _ => {
                let got = match &event.event_type {
                    Some(EventType::TaskCompleted(task)) => Some(task.task_scheduled_id),
                    Some(EventType::TaskFailed(task)) => Some(task.task_scheduled_id),
                    Some(EventType::SubOrchestrationInstanceCompleted(child)) => {
                        Some(child.task_scheduled_id)
                    }
                    Some(EventType::SubOrchestrationInstanceFailed(child)) => {
                        Some(child.task_scheduled_id)
                    }
                    Some(EventType::TimerFired(timer)) => Some(timer.timer_id),
                    Some(EventType::EntityOperationCompleted(answer)) => {
                        asked.get(&answer.request_id).copied()
                    }
                    Some(EventType::EntityOperationFailed(answer)) => {
                        asked.get(&answer.request_id).copied()
                    }
                    Some(EventType::EntityLockGranted(lock)) => {
                        asked.get(&lock.critical_section_id).copied()
                    }
                    _ => None,
                };
                got.and_then(|id| open.remove(&id));
            }
        }
    }
    open.into_values().collect()
}
