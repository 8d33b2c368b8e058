//! For the tests of users: would this deployment break what is under way?

use std::collections::HashMap;
use std::sync::Arc;

use mainspring_proto::history_event::EventType;

use crate::client::History;
use crate::convert::{Payload, Payloads};
use crate::handler::{Orchestration, named};
use crate::orchestration::Key;
use crate::registry::Registry;
use crate::replay::{Input, Instance, Mismatch, Trouble, answered, tells_of_rewind};

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
    let mut instance =
        Instance::new(Arc::new(registry), Payloads::default()).rewound(tells_of_rewind(events));
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
    // By what their answers name; told in the order of their ids.
    let mut open = HashMap::new();
    for event in history.events() {
        let id = event.event_id;
        let (key, text) = match &event.event_type {
            Some(EventType::TaskScheduled(task)) => {
                (Key::Task(id), format!("activity '{}'", task.name))
            }
            Some(EventType::SubOrchestrationInstanceCreated(child)) => {
                let text = format!("orchestration '{}' ('{}')", child.name, child.instance_id);
                (Key::Task(id), text)
            }
            Some(EventType::TimerCreated(_)) => (Key::Task(id), "a timer".to_owned()),
            Some(EventType::EntityOperationCalled(call)) => {
                let entity = call.target_instance_id.as_deref().unwrap_or_default();
                let text = format!("operation '{}' of entity '{entity}'", call.operation);
                (Key::Request(call.request_id.clone()), text)
            }
            Some(EventType::EntityLockRequested(lock)) => {
                let text = format!("a lock of {}", lock.lock_set.join(", "));
                (Key::Section(lock.critical_section_id.clone()), text)
            }
            other => {
                if let Some(Input::Answer(key, _)) = other.as_ref().and_then(answered) {
                    open.remove(&key);
                }
                continue;
            }
        };
        open.insert(key, (id, text));
    }
    let mut left: Vec<_> = open.into_values().collect();
    left.sort();
    left.into_iter().map(|(_, text)| text).collect()
}
