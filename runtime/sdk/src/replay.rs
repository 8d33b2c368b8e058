//! One orchestration in memory: history in, actions out. Does no I/O and reads no clock.
//!
//! Events are fed one by one, past ones and new ones alike. Each answer is handed to the future that waits for it, then the
//! orchestrator's own future is polled once, so that the order of history alone decides what the code sees. Each event that
//! confirms an action is compared with the action that the code asked for; the first difference is a [`Mismatch`].

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mainspring_proto::history_event::EventType;
use mainspring_proto::orchestrator_action::OrchestratorActionType as ActionType;
use mainspring_proto::send_entity_message_action::EntityMessageType;
use mainspring_proto::{
    CompleteOrchestrationAction, ExecutionStartedEvent, HistoryEvent, OrchestrationStatus,
    OrchestratorAction, TaskFailureDetails,
};
use prost_types::Timestamp;

use crate::convert::Payloads;
use crate::error::Failure;
use crate::handler::BoxFuture;
use crate::orchestration::{Key, OrchestrationContext, Origin, Outcome, Shared};
use crate::registry::Registry;

/// Polls in a row for futures that wake themselves, until the code counts as one that never waits.
const POLLS_MAX: u32 = 10_000;

/// The code did something else than its history says.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # mod example {
/// # use mainspring_sdk::{History, OrchestrationContext, Result, testing};
/// # async fn order(_: OrchestrationContext, _: ()) -> Result<()> { Ok(()) }
/// fn compare(history: &History) {
///     if let Err(mismatch) = testing::replay(order, history) {
///         println!("at event {}", mismatch.event);
///         println!("the history has {}", mismatch.expected);
///         println!("the code does {}", mismatch.found);
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Position of the event in the history of this generation, from 1; one more than there are: the code's end.
    pub event: usize,
    /// What the history says.
    pub expected: String,
    /// What the code did.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "event {} of the history: expected {}, found {}",
            self.event, self.expected, self.found
        )
    }
}

impl std::error::Error for Mismatch {}

/// Why an episode cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    Mismatch(Mismatch),
    /// Nothing is registered for it.
    Unknown {
        name: String,
        version: String,
    },
}

impl From<Mismatch> for Trouble {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

/// What an episode gave.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) actions: Vec<OrchestratorAction>,
    pub(crate) custom_status: Option<String>,
    /// The generation is over; nothing is kept of it.
    pub(crate) is_over: bool,
}

/// One generation of an orchestration in memory.
pub(crate) struct Instance {
    registry: Arc<Registry>,
    payloads: Payloads,
    life: Option<Life>,
    nudge: Arc<Nudge>,
    waker: Waker,
    /// Events of the history that it has seen, confirmations included.
    seen: usize,
    /// Where the last episode that it has seen begins in the history, from 0, and when it began.
    last_episode: Option<(usize, Option<Timestamp>)>,
    result: Option<Outcome>,
    /// Activities that failed were taken out of its history, to be asked for again (S-9.13).
    is_rewound: bool,
}

struct Life {
    shared: Arc<Shared>,
    /// `None`: it has ended.
    code: Option<BoxFuture<Outcome>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.shared.state().is_torn_down = true;
        self.code = None;
    }
}

/// Notes who wakes the code: we do while we feed it, and nobody else may.
#[derive(Default)]
struct Nudge {
    is_fed: AtomicBool,
    is_woken: AtomicBool,
    is_foreign: AtomicBool,
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_fed.load(Ordering::Acquire) {
            self.is_woken.store(true, Ordering::Release);
        } else {
            self.is_foreign.store(true, Ordering::Release);
        }
    }
}

/// Whether a history as clients see it is that of a rewound generation.
pub(crate) fn tells_of_rewind(history: &[HistoryEvent]) -> bool {
    let is_marker =
        |event: &HistoryEvent| matches!(event.event_type, Some(EventType::ExecutionRewound(_)));
    history.iter().any(is_marker)
}

impl Instance {
    pub(crate) fn new(registry: Arc<Registry>, payloads: Payloads) -> Self {
        let nudge = Arc::new(Nudge::default());
        Self {
            registry,
            payloads,
            life: None,
            waker: Waker::from(Arc::clone(&nudge)),
            nudge,
            seen: 0,
            last_episode: None,
            result: None,
            is_rewound: false,
        }
    }

    /// The same for the history of a generation that began with a rewind, or with none.
    pub(crate) fn rewound(self, is_rewound: bool) -> Self {
        Self { is_rewound, ..self }
    }

    /// How many events of the history it has seen.
    pub(crate) fn seen(&self) -> usize {
        self.seen
    }

    /// Position, from 0, of the event with which the last episode that it has seen begins.
    pub(crate) fn last_episode(&self) -> Option<usize> {
        self.last_episode.map(|(position, _)| position)
    }

    /// Whether this is the event with which that episode begins. If the history has another one there, somebody else was given the
    /// episode, and what this instance made of it never happened.
    pub(crate) fn began_with(&self, event: &HistoryEvent) -> bool {
        let is_start = matches!(event.event_type, Some(EventType::OrchestratorStarted(_)));
        is_start && self.last_episode.map(|(_, at)| at) == Some(event.timestamp)
    }

    /// The last answer was taken as it was: all its actions are in the history now, which has this many events. False: it cannot be.
    pub(crate) fn accepted(&mut self, events: usize) -> bool {
        let Some(life) = &self.life else {
            return false;
        };
        let mut state = life.shared.state();
        if self.seen + state.actions.len() != events {
            return false;
        }
        state.actions.clear();
        self.seen = events;
        true
    }

    /// Runs through what has happened before.
    pub(crate) fn replay<'a>(
        &mut self,
        past: impl IntoIterator<Item = &'a HistoryEvent>,
    ) -> Result<(), Trouble> {
        for event in past {
            self.feed(event, true)?;
        }
        Ok(())
    }

    /// Runs through what is new, and gives what the code wants done.
    pub(crate) fn episode(&mut self, new: &[HistoryEvent]) -> Result<Answer, Trouble> {
        for event in new {
            self.feed(event, false)?;
        }
        self.finish()
    }

    /// Whether the code, too, has come to where its history ends.
    #[cfg(feature = "testing")]
    pub(crate) fn rest(&self, has_ended: bool) -> Result<(), Mismatch> {
        let asks = self.life.as_ref().and_then(|life| {
            let state = life.shared.state();
            state.actions.values().next().map(describe_action)
        });
        match (asks, self.result.is_some()) {
            (Some(action), _) => Err(self.mismatch("nothing more yet", action)),
            (None, true) if !has_ended => {
                Err(self.mismatch("code that goes on", "the code's end".to_owned()))
            }
            (None, false) if has_ended => {
                Err(self.mismatch("the code's end", "code that goes on".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn feed(&mut self, event: &HistoryEvent, is_replaying: bool) -> Result<(), Trouble> {
        self.seen += 1;
        if self.nudge.is_foreign.load(Ordering::Acquire) {
            return Err(self
                .foreign("was woken by something that is no part of its history")
                .into());
        }
        let Some(kind) = &event.event_type else {
            return Ok(());
        };
        if let EventType::ExecutionStarted(started) = kind {
            self.start(event, started)?;
            return self.run(is_replaying).map_err(Trouble::from);
        }
        if let EventType::OrchestratorStarted(_) = kind {
            self.last_episode = Some((self.seen - 1, event.timestamp));
            return self.begin_episode(event).map_err(Trouble::from);
        }
        let Some(life) = &self.life else {
            return Ok(());
        };
        if life.code.is_none() && !is_replaying {
            // What comes after the end is nobody's any more.
            return Ok(());
        }
        let shared = Arc::clone(&life.shared);
        self.nudge.is_fed.store(true, Ordering::Release);
        let is_awaited = match answered(kind) {
            Some(Input::Answer(key, outcome)) => shared.answer(&key, outcome),
            Some(Input::Event) => match kind {
                EventType::EventRaised(raised) => shared.raise(raised, event.timestamp),
                _ => false,
            },
            None => {
                self.confirm(&shared, event.event_id, kind)?;
                false
            }
        };
        if is_awaited {
            self.run(is_replaying)?;
        }
        self.nudge.is_fed.store(false, Ordering::Release);
        Ok(())
    }

    fn start(
        &mut self,
        event: &HistoryEvent,
        started: &ExecutionStartedEvent,
    ) -> Result<(), Trouble> {
        let identity = started.orchestration_instance.clone().unwrap_or_default();
        let execution = identity.execution_id.unwrap_or_default();
        let version = started.version.as_deref().unwrap_or_default();
        let Some(handler) = self.registry.orchestration(&started.name, version) else {
            return Err(Trouble::Unknown {
                name: started.name.clone(),
                version: version.to_owned(),
            });
        };
        let origin = Origin::new(&identity.instance_id, &execution, started);
        let shared = Shared::new(origin, self.payloads.clone());
        let mut now = event.timestamp.unwrap_or_default();
        if let Some(before) = &self.life {
            now = before.shared.state().now;
        }
        shared.state().now = now;
        let ctx = OrchestrationContext::new(Arc::clone(&shared));
        let code = handler.start(ctx, started.input.clone(), self.payloads.clone());
        self.life = Some(Life {
            shared,
            code: Some(code),
        });
        Ok(())
    }

    /// A new episode: time goes on, and everything that the one before asked for must have been confirmed.
    fn begin_episode(&mut self, event: &HistoryEvent) -> Result<(), Mismatch> {
        let Some(life) = &self.life else {
            // `ExecutionStarted` follows; until then the time is kept by a life without code.
            let shared = Shared::new(Origin::default(), self.payloads.clone());
            shared.state().now = event.timestamp.unwrap_or_default();
            self.life = Some(Life { shared, code: None });
            return Ok(());
        };
        let mut state = life.shared.state();
        state.now = event.timestamp.unwrap_or(state.now);
        let is_taken_out = |action: &OrchestratorAction| {
            let kind = action.orchestrator_action_type.as_ref();
            self.is_rewound && matches!(kind, Some(ActionType::ScheduleTask(_)))
        };
        let Some(action) = state.actions.values().find(|action| !is_taken_out(action)) else {
            return Ok(());
        };
        let found = describe_action(action);
        drop(state);
        Err(self.mismatch("no more actions of this episode", found))
    }

    /// Compares an action that history has with the one that the code asked for.
    fn confirm(&self, shared: &Shared, id: i32, kind: &EventType) -> Result<(), Mismatch> {
        let Some(expected) = confirmed(id, kind) else {
            return Ok(());
        };
        let action = shared.state().actions.remove(&id);
        match action {
            None => {
                let found = match (&self.result, shared.state().actions.values().next()) {
                    (Some(_), _) => "the code's end".to_owned(),
                    (None, Some(other)) => describe_action(other),
                    (None, None) => "no action".to_owned(),
                };
                Err(self.mismatch(expected, found))
            }
            Some(action) => {
                let found = describe_action(&action);
                if found == expected {
                    Ok(())
                } else {
                    Err(self.mismatch(expected, found))
                }
            }
        }
    }

    /// Polls the code until it waits or ends.
    fn run(&mut self, is_replaying: bool) -> Result<(), Mismatch> {
        let Some(life) = &mut self.life else {
            return Ok(());
        };
        life.shared.state().is_replaying = is_replaying;
        self.nudge.is_fed.store(true, Ordering::Release);
        for _ in 0..POLLS_MAX {
            let Some(code) = &mut life.code else {
                break;
            };
            self.nudge.is_woken.store(false, Ordering::Release);
            let mut context = Context::from_waker(&self.waker);
            let mut poll = || catch_unwind(AssertUnwindSafe(|| code.as_mut().poll(&mut context)));
            let polled = if is_replaying {
                // What happened before was logged then.
                tracing::dispatcher::with_default(&tracing::Dispatch::none(), poll)
            } else {
                poll()
            };
            match polled {
                Ok(Poll::Ready(outcome)) => {
                    life.code = None;
                    self.result = Some(outcome);
                }
                Ok(Poll::Pending) if self.nudge.is_woken.load(Ordering::Acquire) => {}
                Ok(Poll::Pending) => break,
                Err(panic) => {
                    life.code = None;
                    let message = panic_text(&*panic);
                    if is_about_a_runtime(&message) {
                        return Err(self.foreign(&format!(
                            "used something that needs an async runtime ({message})"
                        )));
                    }
                    self.result = Some(Err(Failure::new("Panic", message)));
                }
            }
        }
        self.nudge.is_fed.store(false, Ordering::Release);
        if self.nudge.is_woken.load(Ordering::Acquire) && self.is_running() {
            return Err(self.foreign("wakes itself over and over"));
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.code.is_some())
    }

    fn finish(&mut self) -> Result<Answer, Trouble> {
        let Some(life) = &self.life else {
            return Err(self
                .mismatch("ExecutionStarted", "a history without it".to_owned())
                .into());
        };
        if life.code.is_some() && !life.shared.state().is_waiting() {
            return Err(self
                .foreign("waits for something that is no part of its history")
                .into());
        }
        let mut state = life.shared.state();
        let mut actions: Vec<OrchestratorAction> = state.actions.values().cloned().collect();
        let custom_status = state.custom_status.clone().map(Option::unwrap_or_default);
        let is_over = self.result.is_some();
        if let Some(result) = &self.result {
            let continuation = state.continuation.take();
            let completion = match (continuation, result) {
                (Some(next), _) => CompleteOrchestrationAction {
                    orchestration_status: OrchestrationStatus::ContinuedAsNew as i32,
                    result: next.input,
                    new_version: next.version,
                    carryover_events: if next.keeps_events {
                        state.take_raised()
                    } else {
                        Vec::new()
                    },
                    ..Default::default()
                },
                (None, Ok(output)) => CompleteOrchestrationAction {
                    orchestration_status: OrchestrationStatus::Completed as i32,
                    result: output.clone(),
                    ..Default::default()
                },
                (None, Err(failure)) => CompleteOrchestrationAction {
                    orchestration_status: OrchestrationStatus::Failed as i32,
                    failure_details: Some(failure.clone().into_details()),
                    ..Default::default()
                },
            };
            actions.push(OrchestratorAction {
                id: state.next_id(),
                orchestrator_action_type: Some(ActionType::CompleteOrchestration(completion)),
            });
        }
        Ok(Answer {
            actions,
            custom_status,
            is_over,
        })
    }

    fn mismatch(&self, expected: impl Into<String>, found: String) -> Mismatch {
        Mismatch {
            event: self.seen,
            expected: expected.into(),
            found,
        }
    }

    fn foreign(&self, what: &str) -> Mismatch {
        let found =
            format!("code that {what}; an orchestrator may wait only for what its context gives");
        self.mismatch("a future of the orchestration's context", found)
    }
}

pub(crate) enum Input {
    Answer(Key, Outcome),
    Event,
}

/// What an inbound event answers; `None`: it is of another sort.
pub(crate) fn answered(kind: &EventType) -> Option<Input> {
    let failed = |details: &Option<TaskFailureDetails>| {
        Err(Failure::from_details(details.clone().unwrap_or_default()))
    };
    let (key, outcome) = match kind {
        EventType::TaskCompleted(e) => (Key::Task(e.task_scheduled_id), Ok(e.result.clone())),
        EventType::TaskFailed(e) => (Key::Task(e.task_scheduled_id), failed(&e.failure_details)),
        EventType::SubOrchestrationInstanceCompleted(e) => {
            (Key::Task(e.task_scheduled_id), Ok(e.result.clone()))
        }
        EventType::SubOrchestrationInstanceFailed(e) => {
            (Key::Task(e.task_scheduled_id), failed(&e.failure_details))
        }
        EventType::TimerFired(e) => (Key::Task(e.timer_id), Ok(None)),
        EventType::EntityOperationCompleted(e) => {
            (Key::Request(e.request_id.clone()), Ok(e.output.clone()))
        }
        EventType::EntityOperationFailed(e) => (
            Key::Request(e.request_id.clone()),
            failed(&e.failure_details),
        ),
        EventType::EntityLockGranted(e) => (Key::Section(e.critical_section_id.clone()), Ok(None)),
        EventType::EventRaised(_) => return Some(Input::Event),
        _ => return None,
    };
    Some(Input::Answer(key, outcome))
}

/// How an action reads in a report. Compared as text, so it names all that has to be the same at a replay.
fn describe_action(action: &OrchestratorAction) -> String {
    let id = action.id;
    match &action.orchestrator_action_type {
        Some(ActionType::ScheduleTask(a)) => activity(id, &a.name),
        Some(ActionType::CreateSubOrchestration(a)) => child(id, &a.name),
        Some(ActionType::CreateTimer(_)) => timer(id),
        Some(ActionType::SendEvent(a)) => {
            let target = a.instance.as_ref().map_or("", |i| i.instance_id.as_str());
            event(id, &a.name, target)
        }
        Some(ActionType::SendEntityMessage(a)) => match &a.entity_message_type {
            Some(EntityMessageType::EntityOperationSignaled(e)) => {
                operation(id, "signal", &e.operation, e.target_instance_id.as_deref())
            }
            Some(EntityMessageType::EntityOperationCalled(e)) => {
                operation(id, "call", &e.operation, e.target_instance_id.as_deref())
            }
            Some(EntityMessageType::EntityLockRequested(e)) => lock(id, &e.lock_set),
            Some(EntityMessageType::EntityUnlockSent(e)) => {
                unlock(id, e.target_instance_id.as_deref())
            }
            None => format!("an empty entity message (id {id})"),
        },
        Some(ActionType::CompleteOrchestration(_)) => format!("the end (id {id})"),
        Some(_) | None => format!("another action (id {id})"),
    }
}

/// The action that an event confirms, as [`describe_action`] would tell it; `None`: it confirms none.
fn confirmed(id: i32, kind: &EventType) -> Option<String> {
    Some(match kind {
        EventType::TaskScheduled(e) => activity(id, &e.name),
        EventType::SubOrchestrationInstanceCreated(e) => child(id, &e.name),
        EventType::TimerCreated(_) => timer(id),
        EventType::EventSent(e) => event(id, &e.name, &e.instance_id),
        EventType::EntityOperationSignaled(e) => {
            operation(id, "signal", &e.operation, e.target_instance_id.as_deref())
        }
        EventType::EntityOperationCalled(e) => {
            operation(id, "call", &e.operation, e.target_instance_id.as_deref())
        }
        EventType::EntityLockRequested(e) => lock(id, &e.lock_set),
        EventType::EntityUnlockSent(e) => unlock(id, e.target_instance_id.as_deref()),
        _ => return None,
    })
}

fn activity(id: i32, name: &str) -> String {
    format!("activity '{name}' (id {id})")
}

fn child(id: i32, name: &str) -> String {
    format!("child orchestration '{name}' (id {id})")
}

fn timer(id: i32) -> String {
    format!("a timer (id {id})")
}

fn event(id: i32, name: &str, target: &str) -> String {
    format!("event '{name}' to '{target}' (id {id})")
}

fn operation(id: i32, how: &str, operation: &str, target: Option<&str>) -> String {
    format!(
        "{how} '{operation}' of '{}' (id {id})",
        target.unwrap_or_default()
    )
}

fn lock(id: i32, entities: &[String]) -> String {
    format!("lock of {} (id {id})", entities.join(", "))
}

fn unlock(id: i32, target: Option<&str>) -> String {
    format!("unlock of '{}' (id {id})", target.unwrap_or_default())
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "the code panicked".to_owned())
}

/// Tokio's words when its timers, sockets or tasks are used outside of a runtime, where orchestrators run.
fn is_about_a_runtime(message: &str) -> bool {
    message.contains("there is no reactor running") || message.contains("Tokio 1.x")
}

#[cfg(test)]
mod tests;
