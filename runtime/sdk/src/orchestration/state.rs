//! What an orchestrator's code and its replay share: actions on their way out, answers on their way in.
//!
//! One mutex around plain maps. Code and replay take turns on one thread, so it is never waited for; it is there because the
//! code's futures have to be `Send`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mainspring_proto::history_event::EventType;
use mainspring_proto::orchestrator_action::OrchestratorActionType as ActionType;
use mainspring_proto::{
    EventRaisedEvent, ExecutionStartedEvent, HistoryEvent, OrchestratorAction, TraceContext,
};
use prost_types::Timestamp;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use super::lock::Section;
use crate::convert::{Payload, Payloads};
use crate::error::{Failure, TaskError};

/// How something that was waited for ended: its payload, or why it failed.
pub(crate) type Outcome = Result<Option<String>, Failure>;

/// By which an answer finds who waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// An activity, child or timer, by the id of its action.
    Task(i32),
    /// An entity's answer, by the id of the request.
    Request(String),
    /// A lock's grant, by the id of the critical section.
    Section(String),
    /// A waiter for an event, by a number of our own.
    Event(u64),
}

/// What an instance is, told by its `ExecutionStarted`.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    pub(crate) instance: String,
    pub(crate) execution: String,
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) parent: Option<String>,
    pub(crate) trace: Option<TraceContext>,
}

impl Origin {
    pub(crate) fn new(instance: &str, execution: &str, started: &ExecutionStartedEvent) -> Self {
        Self {
            instance: instance.to_owned(),
            execution: execution.to_owned(),
            name: started.name.clone(),
            version: started.version.clone(),
            tags: started.tags.clone(),
            parent: started
                .parent_instance
                .as_ref()
                .and_then(|parent| parent.orchestration_instance.as_ref())
                .map(|parent| parent.instance_id.clone()),
            trace: started.parent_trace_context.clone(),
        }
    }
}

/// The next generation that the code asked for.
#[derive(Debug, Clone)]
pub(crate) struct Continuation {
    pub(crate) input: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) keeps_events: bool,
}

struct Waiting {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

struct Raised {
    number: u64,
    name: String,
    input: Option<String>,
    timestamp: Option<Timestamp>,
}

/// Shared by the contexts of one orchestration and its replay.
pub(crate) struct Shared {
    pub(crate) origin: Origin,
    pub(crate) payloads: Payloads,
    state: Mutex<State>,
}

pub(crate) struct State {
    /// Time of the episode that is replayed or run.
    pub(crate) now: Timestamp,
    /// What is fed now has happened before.
    pub(crate) is_replaying: bool,
    /// Actions that no history event has confirmed yet, by id.
    pub(crate) actions: BTreeMap<i32, OrchestratorAction>,
    /// What the code last set; `None`: never.
    pub(crate) custom_status: Option<Option<String>>,
    pub(crate) continuation: Option<Continuation>,
    /// The critical section that the code is in.
    pub(crate) section: Option<Section>,
    /// The code is being put away, not finished: what it drops means nothing.
    pub(crate) is_torn_down: bool,
    next_action: i32,
    waiting: HashMap<Key, Waiting>,
    /// Events that nobody waited for, by lower-case name, oldest first.
    raised: HashMap<String, VecDeque<Raised>>,
    raised_count: u64,
    /// Who waits for events, by lower-case name, oldest first.
    listeners: HashMap<String, VecDeque<u64>>,
    listener_count: u64,
    drawn: u64,
}

impl Shared {
    pub(crate) fn new(origin: Origin, payloads: Payloads) -> Arc<Self> {
        Arc::new(Self {
            origin,
            payloads,
            state: Mutex::new(State {
                now: Timestamp::default(),
                is_replaying: true,
                actions: BTreeMap::new(),
                custom_status: None,
                continuation: None,
                section: None,
                is_torn_down: false,
                next_action: 1,
                waiting: HashMap::new(),
                raised: HashMap::new(),
                raised_count: 0,
                listeners: HashMap::new(),
                listener_count: 0,
                drawn: 0,
            }),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // The code may panic between two calls, never within one of ours.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::try_from(self.state().now).unwrap_or(UNIX_EPOCH)
    }

    /// Reads what `task` gave, its output or its payload.
    pub(crate) fn read<T: Payload>(
        &self,
        task: impl FnOnce() -> String,
        what: &str,
        text: Option<&str>,
    ) -> Result<T, TaskError> {
        self.payloads
            .decode(text)
            .map_err(|reason| TaskError::Payload {
                task: task(),
                reason: format!("{what} {reason}"),
            })
    }

    /// A number that is the same at every replay and different at every call.
    pub(crate) fn draw(&self) -> u64 {
        let mut state = self.state();
        state.drawn += 1;
        xxh3_64_with_seed(self.origin.execution.as_bytes(), state.drawn)
    }

    /// A GUID that is the same at every replay and different at every call, in every generation (RFC 9562, version 8).
    pub(crate) fn guid(&self) -> String {
        let mut seed = self.origin.instance.clone();
        seed.push('/');
        seed.push_str(&self.origin.execution);
        let mut state = self.state();
        state.drawn += 1;
        seed.push('/');
        seed.push_str(&state.drawn.to_string());
        drop(state);
        let bits = xxh3_128(seed.as_bytes());
        let bits = (bits & !(0xF << 76) & !(0x3 << 62)) | (0x8 << 76) | (0x2 << 62);
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (bits >> 96) as u32,
            (bits >> 80) as u16,
            (bits >> 64) as u16,
            (bits >> 48) as u16,
            bits as u64 & 0xFFFF_FFFF_FFFF
        )
    }

    /// Notes an action to be sent with the answer of this episode, and gives its id.
    pub(crate) fn act(&self, action: ActionType) -> i32 {
        self.state().act(action)
    }

    /// Notes who waits for an answer that some action asked for.
    pub(crate) fn wait(self: &Arc<Self>, key: Key) -> Pending {
        self.state().waiting.insert(
            key.clone(),
            Waiting {
                outcome: None,
                waker: None,
            },
        );
        Pending {
            shared: Arc::clone(self),
            key: Some(key),
            listens_to: None,
        }
    }

    /// Waits for an event by name, regardless of case: the oldest that nobody took, or the next one (S-8.1).
    pub(crate) fn listen(self: &Arc<Self>, name: &str) -> Result<Pending, Option<String>> {
        let lowered = name.to_lowercase();
        let mut state = self.state();
        if let Some(raised) = state.raised.get_mut(&lowered).and_then(VecDeque::pop_front) {
            return Err(raised.input);
        }
        state.listener_count += 1;
        let number = state.listener_count;
        state
            .listeners
            .entry(lowered)
            .or_default()
            .push_back(number);
        drop(state);
        let mut pending = self.wait(Key::Event(number));
        pending.listens_to = Some(name.to_owned());
        Ok(pending)
    }

    /// Hands an answer to who waits for it. False: nobody does any more.
    pub(crate) fn answer(&self, key: &Key, outcome: Outcome) -> bool {
        let waker = {
            let mut state = self.state();
            let Some(waiting) = state.waiting.get_mut(key) else {
                return false;
            };
            waiting.outcome = Some(outcome);
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Hands an event to the oldest waiter, or keeps it. False: it is kept.
    pub(crate) fn raise(&self, event: &EventRaisedEvent, timestamp: Option<Timestamp>) -> bool {
        let lowered = event.name.to_lowercase();
        let listener = {
            let mut state = self.state();
            let found = state
                .listeners
                .get_mut(&lowered)
                .and_then(VecDeque::pop_front);
            if found.is_none() {
                state.raised_count += 1;
                let number = state.raised_count;
                state.raised.entry(lowered).or_default().push_back(Raised {
                    number,
                    name: event.name.clone(),
                    input: event.input.clone(),
                    timestamp,
                });
            }
            found
        };
        listener.is_some_and(|number| self.answer(&Key::Event(number), Ok(event.input.clone())))
    }
}

impl State {
    pub(crate) fn act(&mut self, action: ActionType) -> i32 {
        let id = self.next_id();
        self.actions.insert(
            id,
            OrchestratorAction {
                id,
                orchestrator_action_type: Some(action),
            },
        );
        id
    }

    /// The id of the next action.
    pub(crate) fn next_id(&mut self) -> i32 {
        let id = self.next_action;
        self.next_action += 1;
        id
    }

    /// Whether the code waits for something that can still come.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting
            .values()
            .any(|waiting| waiting.outcome.is_none() && waiting.waker.is_some())
    }

    /// Events that nobody took, in the order in which they came, for the next generation.
    pub(crate) fn take_raised(&mut self) -> Vec<HistoryEvent> {
        let mut raised: Vec<Raised> = self.raised.drain().flat_map(|(_, events)| events).collect();
        raised.sort_by_key(|event| event.number);
        raised
            .into_iter()
            .map(|event| HistoryEvent {
                event_id: -1,
                timestamp: event.timestamp,
                event_type: Some(EventType::EventRaised(EventRaisedEvent {
                    name: event.name,
                    input: event.input,
                })),
            })
            .collect()
    }

    /// The episode's time and a span after it, as the wire writes times.
    pub(crate) fn after(&self, span: Duration) -> Timestamp {
        let mut at = self.now;
        at.seconds = at
            .seconds
            .saturating_add(i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
            .min(LATEST_SECOND);
        at.nanos += span.subsec_nanos() as i32;
        at.normalize();
        at
    }
}

/// The last second that the protocol's timestamps can tell: the end of the year 9999.
pub(crate) const LATEST_SECOND: i64 = 253_402_300_798;

/// Ready once the answer is there. Dropped before: nobody waits any more; an event that was handed over is given back.
pub(crate) struct Pending {
    shared: Arc<Shared>,
    /// `None`: the answer was taken.
    key: Option<Key>,
    listens_to: Option<String>,
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let key = self.key.clone().expect("not polled after it was ready");
        let mut state = self.shared.state();
        let waiting = state
            .waiting
            .get_mut(&key)
            .expect("stays until it was taken or dropped");
        match waiting.outcome.take() {
            Some(outcome) => {
                state.waiting.remove(&key);
                drop(state);
                self.key = None;
                Poll::Ready(outcome)
            }
            None => {
                match &mut waiting.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    empty => *empty = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else {
            return;
        };
        let mut state = self.shared.state();
        let waiting = state.waiting.remove(&key);
        let (Key::Event(number), Some(name)) = (&key, &self.listens_to) else {
            return;
        };
        let lowered = name.to_lowercase();
        if let Some(listeners) = state.listeners.get_mut(&lowered) {
            listeners.retain(|listener| listener != number);
        }
        if let Some(Ok(input)) = waiting.and_then(|waiting| waiting.outcome) {
            let timestamp = Some(state.now);
            state.raised.entry(lowered).or_default().push_front(Raised {
                // Before all others: it came first.
                number: 0,
                name: name.clone(),
                input,
                timestamp,
            });
        }
    }
}
