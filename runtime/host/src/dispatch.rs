//! Hands work items to streams: queues of what is ready, leases of what is out, completion tokens, limits and filters.
//!
//! Never decides what an orchestration does and never touches the store. Everything here is rebuilt after a restart from what
//! instances say they have open, so a lost lease is a redelivery and nothing more.
//!
//! `instances` (orchestrations and entities) and `activities` are what items are of, `leases` is what becomes of those that are out, `queue` and `stream` are
//! what they are matched between, `rest` and `in_hand` look at all of it.

mod activities;
mod in_hand;
mod instances;
mod leases;
mod queue;
mod rest;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use mainspring_core::id::{FreshIds, HubId, InstanceKey};
use mainspring_core::message::Fence;
use tokio::runtime::Handle;

use crate::activation::Input;
use crate::api::{StreamOptions, WorkKind};
use crate::clock::{Clock, RandomIds};
use crate::config::HostConfig;
use crate::error::{Error, ErrorKind};
use crate::metrics::Metrics;

use activities::{Activity, ActivityId};
use instances::{Fenced, InstanceLease};
use leases::Expired;
use queue::Queue;
pub(crate) use queue::{Class, Size};
use stream::StreamState;
pub use stream::{Outgoing, StreamId, WorkItems};

/// Delays between redeliveries of an item that workers give back (S-13.17).
pub(crate) const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// Delay before the `attempts`-th redelivery of an item given back: 0, 1, 2, 4 … 60 s.
pub(crate) fn back_off(attempts: u32) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        n => Duration::from_secs(1 << (n - 2).min(6)).min(BACK_OFF_MAX),
    }
}

/// Proof of holding one dispatched work item: 128 unguessable bits (S-13.18).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token(u128);

impl Token {
    /// Draws one, for an item about to go out.
    pub(crate) fn fresh() -> Self {
        Self(RandomIds.next())
    }

    fn parse(text: &str) -> Option<Self> {
        (text.len() == 32)
            .then(|| u128::from_str_radix(text, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A place reserved on a stream, and what the stream is like, for whoever builds the item that goes out on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted {
    pub(crate) stream: StreamId,
    kind: WorkKind,
    pub(crate) can_stream_history: bool,
    pub(crate) receives_any_size: bool,
    /// Its worker keeps instances between their episodes.
    pub(crate) keeps_instances: bool,
    /// Redelivery to such a peer must be identical (S-4.17).
    pub(crate) is_without_tokens: bool,
}

enum Held {
    /// An episode of an orchestration, or a batch of an entity.
    Instance(InstanceKey),
    Activity(ActivityId),
}

#[derive(Default)]
struct HubQueues {
    streams: Vec<StreamId>,
    orchestrations: Queue<InstanceKey>,
    entities: Queue<InstanceKey>,
    activities: Queue<ActivityId>,
}

impl HubQueues {
    /// Instances of this kind that wait for a stream.
    fn instances(&mut self, kind: WorkKind) -> &mut Queue<InstanceKey> {
        match kind {
            WorkKind::Entity => &mut self.entities,
            WorkKind::Orchestration | WorkKind::Activity => &mut self.orchestrations,
        }
    }
}

#[derive(Default)]
struct State {
    hubs: HashMap<HubId, HubQueues>,
    streams: HashMap<StreamId, StreamState>,
    tokens: HashMap<Token, Held>,
    /// Instances that have an item out.
    leased: HashMap<InstanceKey, InstanceLease>,
    /// Instances whose next episode waits until a void one has come back (S-4.16).
    fenced: HashMap<InstanceKey, Fenced>,
    activities: HashMap<ActivityId, Activity>,
    activity_ids: BTreeMap<(InstanceKey, Fence), ActivityId>,
    /// Activities that peers without tokens hold, or may, by what they will name in their answer (S-4.5, S-5.10).
    unnamed: HashMap<(InstanceKey, i32), ActivityId>,
    /// Activities held back because a peer without tokens has one of the same name (S-5.10).
    held_back: HashMap<(InstanceKey, i32), Vec<ActivityId>>,
    /// Leases that ended without an answer, of streams that get nothing until one comes (S-13.24).
    expired: HashMap<Token, Expired>,
    next_activity: ActivityId,
    next_stream: u64,
    turn: usize,
    is_stopping: bool,
}

/// How the dispatcher reaches instances.
type Send = Box<dyn Fn(InstanceKey, Input) + std::marker::Send + Sync>;

/// The dispatcher of one scheduler. Every method takes one short lock and waits for nothing.
pub(crate) struct Dispatch {
    state: Mutex<State>,
    instances: OnceLock<Send>,
    runtime: Handle,
    lease_grace: Duration,
    oversize_wait: Duration,
    work_item_bytes_max: usize,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Itself, for work that comes due later.
    this: Weak<Self>,
}

impl Dispatch {
    pub(crate) fn new(runtime: Handle, config: &HostConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::default(),
            instances: OnceLock::new(),
            runtime,
            lease_grace: config.lease_grace,
            oversize_wait: config.oversize_wait,
            work_item_bytes_max: config.limits.work_item_bytes_max,
            clock: config.clock.clone(),
            metrics,
            this: this.clone(),
        })
    }

    /// Runs `work` after `delay`, unless the scheduler is gone by then.
    fn later(&self, delay: Duration, work: impl FnOnce(&Self) + std::marker::Send + 'static) {
        let this = self.this.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(dispatch) = this.upgrade() {
                work(&dispatch);
            }
        });
    }

    /// Tells how instances are reached; once, before the first stream opens.
    pub(crate) fn connect(
        &self,
        send: impl Fn(InstanceKey, Input) + std::marker::Send + Sync + 'static,
    ) {
        let was_set = self.instances.set(Box::new(send));
        assert!(was_set.is_ok(), "instances are connected once");
    }

    /// For all that may change something.
    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.look();
        // Whoever is woken looks only once this guard is gone.
        self.clock.stir();
        state
    }

    fn look(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no panic while the dispatcher is locked")
    }

    fn tell(&self, key: InstanceKey, input: Input) {
        let send = self
            .instances
            .get()
            .expect("instances are connected before work is dispatched");
        send(key, input);
    }

    // ── streams ──

    pub(crate) fn open_stream(
        &self,
        hub: HubId,
        options: StreamOptions,
        ping_interval: Duration,
    ) -> Result<WorkItems, Error> {
        let mut state = self.lock();
        if state.is_stopping {
            return Err(Error::stopping());
        }
        let id = StreamId(state.next_stream);
        state.next_stream += 1;
        let (stream, pipe) = StreamState::new(hub, options);
        state.streams.insert(id, stream);
        state.hubs.entry(hub).or_default().streams.push(id);
        self.fill(&mut state, id);
        drop(state);
        Ok(WorkItems::new(id, pipe, self.this.clone(), ping_interval))
    }

    /// The client is gone: nothing more is sent, and what it holds stays reserved for the grace (S-13.19, S-13.23).
    pub(crate) fn close_stream(&self, id: StreamId) {
        let mut state = self.lock();
        let others = Self::shut(&mut state, id);
        let Some(stream) = state.streams.get(&id) else {
            return;
        };
        let holds_nothing =
            stream.leases.is_empty() && state.fenced.values().all(|f| f.stream != id);
        if holds_nothing || state.is_stopping {
            Self::forget_stream(&mut state, id);
        } else {
            self.later(self.lease_grace, move |dispatch| dispatch.expire_stream(id));
        }
        for other in others {
            self.fill(&mut state, other);
        }
    }

    fn forget_stream(state: &mut State, id: StreamId) -> Option<StreamState> {
        let stream = state.streams.remove(&id)?;
        if let Some(queues) = state.hubs.get_mut(&stream.hub) {
            queues.streams.retain(|s| *s != id);
        }
        if stream.is_silent {
            state.expired.retain(|_, e| e.stream != id);
        }
        Some(stream)
    }

    fn expire_stream(&self, id: StreamId) {
        let mut state = self.lock();
        if let Some(stream) = Self::forget_stream(&mut state, id) {
            for token in stream.leases {
                self.requeue(&mut state, token, Some(id), Duration::ZERO);
            }
        }
        self.lift_fences(&mut state, |fenced| fenced.stream == id);
    }

    /// Ends a stream from this side with an error and requeues at once what it holds (S-13.25, S-13.28).
    fn end_stream(&self, state: &mut State, id: StreamId) {
        if let Some(stream) = state.streams.get(&id) {
            let _ = stream.sender.send(Err(Error::new(
                ErrorKind::Unavailable,
                "the stream was ended after a failed completion; open another",
            )));
        }
        self.requeue_all(state, id);
    }

    /// Forgets a stream and requeues at once what it holds.
    fn requeue_all(&self, state: &mut State, id: StreamId) {
        let Some(stream) = Self::forget_stream(state, id) else {
            return;
        };
        for token in stream.leases {
            self.requeue(state, token, Some(id), Duration::ZERO);
        }
        if state.fenced.values().any(|f| f.stream == id) {
            self.later(self.lease_grace, move |dispatch| dispatch.expire_stream(id));
        }
    }

    /// The hub that a stream is subscribed to.
    pub(crate) fn hub_of(&self, id: StreamId) -> Option<HubId> {
        self.look().streams.get(&id).map(|s| s.hub)
    }

    /// A worker wants nothing more, and will answer what it has.
    pub(crate) fn close_to_work(&self, id: StreamId) {
        let mut state = self.lock();
        let others = Self::shut(&mut state, id);
        for other in others {
            self.fill(&mut state, other);
        }
    }

    /// A worker has given all the answers that it will give: what it still holds is delivered elsewhere.
    pub(crate) fn finish_stream(&self, id: StreamId) {
        let mut state = self.lock();
        if state.is_stopping {
            Self::forget_stream(&mut state, id);
        } else {
            self.requeue_all(&mut state, id);
        }
    }

    /// Nothing more is sent on a stream. Returns those that are left of its hub: what waited for this one may go to streams that get it
    /// only now (S-12.1).
    fn shut(state: &mut State, id: StreamId) -> Vec<StreamId> {
        let State {
            streams,
            hubs,
            is_stopping,
            ..
        } = state;
        let Some(stream) = streams.get_mut(&id) else {
            return Vec::new();
        };
        stream.is_open = false;
        let Some(queues) = hubs.get_mut(&stream.hub) else {
            return Vec::new();
        };
        queues.streams.retain(|s| *s != id);
        match is_stopping {
            true => Vec::new(),
            false => queues.streams.clone(),
        }
    }

    /// A message of this connection could not be decoded: all its streams end (S-13.28).
    pub(crate) fn connection_failed(&self, connection: u64) {
        let mut state = self.lock();
        let ids: Vec<_> = state
            .streams
            .iter()
            .filter(|(_, s)| s.peer.connection == connection)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.end_stream(&mut state, id);
        }
    }

    /// Ends all streams; nothing is dispatched from now on (S-1.14).
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        for stream in state.streams.values() {
            let _ = stream.sender.send(Err(Error::stopping()));
        }
        state.hubs.clear();
    }

    /// Streams of a hub stay subscribed to its next incarnation; the old one's work is void.
    pub(crate) fn replace_hub(&self, old: HubId, new: Option<HubId>) {
        let mut state = self.lock();
        let void: Vec<Token> = state
            .tokens
            .iter()
            .filter(|(_, held)| match held {
                Held::Instance(key) => key.hub == old,
                Held::Activity(id) => state.activities.get(id).is_none_or(|a| a.key.hub == old),
            })
            .map(|(token, _)| *token)
            .collect();
        for token in void {
            Self::take_lease(&mut state, token);
            state.tokens.remove(&token);
        }
        state.fenced.retain(|key, _| key.hub != old);
        state.activities.retain(|_, a| a.key.hub != old);
        state.activity_ids.retain(|(key, _), _| key.hub != old);
        state.unnamed.retain(|(key, _), _| key.hub != old);
        state.held_back.retain(|(key, _), _| key.hub != old);
        let queues = state.hubs.remove(&old).unwrap_or_default();
        for id in queues.streams {
            let Some(stream) = state.streams.get_mut(&id) else {
                continue;
            };
            match new {
                Some(new) => {
                    stream.hub = new;
                    state.hubs.entry(new).or_default().streams.push(id);
                    self.fill(&mut state, id);
                }
                None => {
                    stream.is_open = false;
                    let _ = stream
                        .sender
                        .send(Err(Error::not_found("the task hub was deleted")));
                }
            }
        }
    }

    /// A stream's pipe has drained below its byte limit.
    pub(crate) fn refill(&self, id: StreamId) {
        let mut state = self.lock();
        self.fill(&mut state, id);
    }

    /// Hands out what is ready while the stream has room.
    fn fill(&self, state: &mut State, id: StreamId) {
        for kind in WorkKind::ALL {
            while let Some(()) = self.fill_one(state, id, kind) {}
        }
    }

    fn fill_one(&self, state: &mut State, id: StreamId, kind: WorkKind) -> Option<()> {
        let State { streams, hubs, .. } = state;
        let stream = streams.get(&id).filter(|s| s.has_room(kind))?;
        let HubQueues {
            streams: open,
            orchestrations,
            entities,
            activities,
        } = hubs.get_mut(&stream.hub)?;
        match kind {
            WorkKind::Orchestration | WorkKind::Entity => {
                let takes = |class: &Class| {
                    stream.matches(kind, class)
                        && !(is_last_resort(stream, class)
                            && open
                                .iter()
                                .filter_map(|other| streams.get(other))
                                .any(|other| {
                                    other.matches(kind, class) && !is_last_resort(other, class)
                                }))
                };
                let waiting = match kind {
                    WorkKind::Entity => entities,
                    _ => orchestrations,
                };
                let ready = waiting.pop(takes)?;
                let stream = streams.get_mut(&id)?;
                stream.reserve(kind);
                let granted = granted(id, stream, kind);
                let waited = ready.since.elapsed();
                self.metrics.of(kind).waits.note_time(waited);
                self.tell(ready.item, Input::Granted(granted));
            }
            WorkKind::Activity => {
                let ready = activities.pop(|c| stream.matches(kind, c))?;
                self.lease_activity(state, ready.item, id);
            }
        }
        Some(())
    }

    /// The preferred stream if it has room for an item; else the least loaded that has, the one to avoid only if no other has (S-13.15,
    /// S-13.17).
    fn choose(
        state: &mut State,
        hub: HubId,
        kind: WorkKind,
        class: &Class,
        prefer: Option<StreamId>,
        avoid: Option<StreamId>,
    ) -> Option<StreamId> {
        if let Some(id) = prefer.filter(|id| avoid != Some(*id))
            && let Some(stream) = state.streams.get(&id).filter(|s| s.hub == hub)
            && stream.has_room(kind)
            && stream.matches(kind, class)
        {
            return Some(id);
        }
        state.turn = state.turn.wrapping_add(1);
        let turn = state.turn;
        let streams = &state.hubs.get(&hub)?.streams;
        let count = streams.len();
        let open = || {
            (0..count)
                .map(|at| streams[(at + turn) % count])
                .filter_map(|id| state.streams.get(&id).map(|s| (id, s)))
                .filter(|(_, s)| s.matches(kind, class))
        };
        let has_better = class.is_awkward && open().any(|(_, s)| !is_last_resort(s, class));
        open()
            .filter(|(_, s)| s.has_room(kind) && !(has_better && is_last_resort(s, class)))
            .min_by_key(|(id, s)| (avoid == Some(*id), s.load(kind)))
            .map(|(id, _)| id)
    }

    /// Whether some open stream may take items of this class, be it busy now.
    fn is_receivable(state: &State, hub: HubId, kind: WorkKind, class: &Class) -> bool {
        Self::takers(state, hub, kind, class).next().is_some()
    }

    /// Open streams that may take items of this class.
    fn takers<'a>(
        state: &'a State,
        hub: HubId,
        kind: WorkKind,
        class: &'a Class,
    ) -> impl Iterator<Item = &'a StreamState> {
        let ids = state.hubs.get(&hub).map(|q| &q.streams);
        ids.into_iter()
            .flatten()
            .filter_map(|id| state.streams.get(id))
            .filter(move |s| s.is_open && s.matches(kind, class))
    }
}

/// Whether a stream gets items of a class only when no other one may take them: its worker cannot read them (S-12.1).
fn is_last_resort(stream: &StreamState, class: &Class) -> bool {
    class.is_awkward && stream.peer.is_python()
}

/// What an instance has out: episodes or batches.
fn kind_of(key: &InstanceKey) -> WorkKind {
    match key.instance.is_entity() {
        true => WorkKind::Entity,
        false => WorkKind::Orchestration,
    }
}

fn granted(id: StreamId, stream: &StreamState, kind: WorkKind) -> Granted {
    Granted {
        stream: id,
        kind,
        can_stream_history: stream.can_stream_history,
        receives_any_size: stream.peer.receives_any_size(),
        keeps_instances: stream.keeps_instances,
        is_without_tokens: stream.is_without_tokens,
    }
}
