//! Hands work items to streams: queues of what is ready, leases of what is out, completion tokens, limits and filters.
//!
//! Never decides what an orchestration does and never touches the store. Everything here is rebuilt after a restart from what
//! instances say they have open, so a lost lease is a redelivery and nothing more.

mod queue;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainspring_core::effect::ActivityTask;
use mainspring_core::id::{ExecutionId, FreshIds, HubId, InstanceKey};
use mainspring_core::message::Fence;
use mainspring_core::wire;
use tokio::runtime::Handle;

use crate::activation::Input;
use crate::api::{Peer, StreamOptions, WorkKind};
use crate::clock::RandomIds;
use crate::error::Error;
use crate::placement::Placement;

pub(crate) use queue::Class;
use queue::Queue;
pub(crate) use stream::StreamId;
use stream::StreamState;
pub use stream::WorkItems;

/// Delays between redeliveries of an item that workers give back (S-13.17).
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

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

/// What a stream is like, for whoever builds the item that goes out on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted {
    pub(crate) stream: StreamId,
    pub(crate) can_stream_history: bool,
    pub(crate) receives_any_size: bool,
    /// Redelivery to such a peer must be identical (S-4.17).
    pub(crate) is_without_tokens: bool,
}

/// An accepted outcome's address.
pub(crate) struct ActivityAddress {
    pub(crate) key: InstanceKey,
    pub(crate) fence: Fence,
    pub(crate) task_id: i32,
}

type ActivityId = u64;

enum Held {
    Orchestration(InstanceKey),
    Activity(ActivityId),
}

struct OrchestrationLease {
    token: Token,
    stream: StreamId,
}

struct Activity {
    key: InstanceKey,
    task: Arc<ActivityTask>,
    /// The lease it is out on.
    lease: Option<(Token, StreamId)>,
    leased_at: Instant,
    /// In the queue, as opposed to out or waiting for its back-off.
    is_queued: bool,
    /// Tokens of all its deliveries: an older one is accepted while there is no outcome (S-13.18).
    tokens: Vec<Token>,
    attempts: u32,
}

#[derive(Default)]
struct HubQueues {
    streams: Vec<StreamId>,
    orchestrations: Queue<InstanceKey>,
    activities: Queue<ActivityId>,
}

#[derive(Default)]
struct State {
    hubs: HashMap<HubId, HubQueues>,
    streams: HashMap<StreamId, StreamState>,
    tokens: HashMap<Token, Held>,
    orchestrations: HashMap<InstanceKey, OrchestrationLease>,
    activities: HashMap<ActivityId, Activity>,
    activity_ids: BTreeMap<(InstanceKey, Fence), ActivityId>,
    /// Activities that peers without tokens hold, by what they will name in their answer (S-4.5, S-5.10).
    unnamed: HashMap<(InstanceKey, i32), ActivityId>,
    /// Activities held back because a peer without tokens has one of the same name (S-5.10).
    held_back: HashMap<(InstanceKey, i32), Vec<ActivityId>>,
    next_activity: ActivityId,
    next_stream: StreamId,
    turn: usize,
    ids: RandomIds,
    is_stopping: bool,
}

/// The dispatcher of one scheduler. Every method takes one short lock and waits for nothing.
pub(crate) struct Dispatch {
    state: Mutex<State>,
    placement: OnceLock<Arc<Placement>>,
    runtime: Handle,
    lease_grace: Duration,
    /// Itself, for work that comes due later.
    this: Weak<Self>,
}

impl Dispatch {
    pub(crate) fn new(runtime: Handle, lease_grace: Duration) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            state: Mutex::default(),
            placement: OnceLock::new(),
            runtime,
            lease_grace,
            this: this.clone(),
        })
    }

    /// Runs `work` after `delay`, unless the scheduler is gone by then.
    fn later(&self, delay: Duration, work: impl FnOnce(&Self) + Send + 'static) {
        let this = self.this.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(dispatch) = this.upgrade() {
                work(&dispatch);
            }
        });
    }

    /// Tells where instances live; once, before the first stream opens.
    pub(crate) fn connect(&self, placement: Arc<Placement>) {
        assert!(
            self.placement.set(placement).is_ok(),
            "placement is set once"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no panic while the dispatcher is locked")
    }

    fn placement(&self) -> &Placement {
        self.placement
            .get()
            .expect("placement is set before work is dispatched")
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
        let id = state.next_stream;
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
        let Some(stream) = state.streams.get_mut(&id) else {
            return;
        };
        stream.is_open = false;
        let hub = stream.hub;
        if let Some(queues) = state.hubs.get_mut(&hub) {
            queues.streams.retain(|s| *s != id);
        }
        let is_idle = state.streams.get(&id).is_some_and(|s| s.leases.is_empty());
        if is_idle || state.is_stopping {
            state.streams.remove(&id);
            return;
        }
        self.later(self.lease_grace, move |dispatch| dispatch.expire_stream(id));
    }

    fn expire_stream(&self, id: StreamId) {
        let mut state = self.lock();
        let Some(stream) = state.streams.remove(&id) else {
            return;
        };
        for token in stream.leases {
            self.requeue(&mut state, token, Some(id), Duration::ZERO);
        }
    }

    /// Ends a stream from this side with an error and requeues at once what it holds (S-13.25, S-13.28).
    fn end_stream(&self, state: &mut State, id: StreamId) {
        let Some(stream) = state.streams.remove(&id) else {
            return;
        };
        let _ = stream.sender.send(Err(Error::new(
            crate::ErrorKind::Unavailable,
            "the stream was ended after a failed completion; open another",
        )));
        if let Some(queues) = state.hubs.get_mut(&stream.hub) {
            queues.streams.retain(|s| *s != id);
        }
        for token in stream.leases {
            self.requeue(state, token, Some(id), Duration::ZERO);
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
        let queues = state.hubs.remove(&old).unwrap_or_default();
        for id in queues.streams {
            let Some(stream) = state.streams.get_mut(&id) else {
                continue;
            };
            match new {
                Some(new) => {
                    stream.hub = new;
                    state.hubs.entry(new).or_default().streams.push(id);
                }
                None => {
                    let _ = stream
                        .sender
                        .send(Err(Error::not_found("the task hub was deleted")));
                }
            }
        }
        let void: Vec<Token> = state
            .tokens
            .iter()
            .filter(|(_, held)| match held {
                Held::Orchestration(key) => key.hub == old,
                Held::Activity(id) => state.activities.get(id).is_none_or(|a| a.key.hub == old),
            })
            .map(|(token, _)| *token)
            .collect();
        for token in void {
            self.release_token(&mut state, token);
        }
        state.orchestrations.retain(|key, _| key.hub != old);
        state.activities.retain(|_, a| a.key.hub != old);
        state.activity_ids.retain(|(key, _), _| key.hub != old);
        state.unnamed.retain(|(key, _), _| key.hub != old);
        state.held_back.retain(|(key, _), _| key.hub != old);
    }

    /// A stream's pipe has drained below its byte limit.
    pub(crate) fn refill(&self, id: StreamId) {
        let mut state = self.lock();
        self.fill(&mut state, id);
    }

    /// Hands out what is ready while the stream has room.
    fn fill(&self, state: &mut State, id: StreamId) {
        for kind in [WorkKind::Orchestration, WorkKind::Activity] {
            while let Some(()) = self.fill_one(state, id, kind) {}
        }
    }

    fn fill_one(&self, state: &mut State, id: StreamId, kind: WorkKind) -> Option<()> {
        let State { streams, hubs, .. } = state;
        let stream = streams.get_mut(&id).filter(|s| s.has_room(kind))?;
        let queues = hubs.get_mut(&stream.hub)?;
        let is_alone = queues.streams.len() == 1;
        match kind {
            WorkKind::Orchestration => {
                let key = queues
                    .orchestrations
                    .pop(id, is_alone, |c| stream.matches(kind, c))?;
                stream.reserve(kind);
                let granted = granted(id, stream);
                self.placement().send(key, Input::Granted(granted));
            }
            WorkKind::Activity => {
                let activity = queues
                    .activities
                    .pop(id, is_alone, |c| stream.matches(kind, c))?;
                self.lease_activity(state, activity, id);
            }
        }
        Some(())
    }

    fn choose(
        state: &mut State,
        hub: HubId,
        kind: WorkKind,
        class: &Class,
        avoid: Option<StreamId>,
    ) -> Option<StreamId> {
        state.turn = state.turn.wrapping_add(1);
        let turn = state.turn;
        let queues = state.hubs.entry(hub).or_default();
        let count = queues.streams.len();
        (0..count)
            .map(|at| queues.streams[(at + turn) % count])
            .filter_map(|id| state.streams.get(&id).map(|s| (id, s)))
            .filter(|(_, s)| s.has_room(kind) && s.matches(kind, class))
            .filter(|(id, _)| count == 1 || avoid != Some(*id))
            .min_by_key(|(_, s)| s.load(kind))
            .map(|(id, _)| id)
    }

    // ── orchestrations ──

    /// An orchestration has an episode to run: a stream with room is reserved at once, or it waits for [`Input::Granted`].
    pub(crate) fn offer(
        &self,
        key: &InstanceKey,
        class: Class,
        avoid: Option<StreamId>,
    ) -> Option<Granted> {
        let mut state = self.lock();
        if state.is_stopping {
            return None;
        }
        let kind = WorkKind::Orchestration;
        if let Some(id) = Self::choose(&mut state, key.hub, kind, &class, avoid) {
            let stream = state.streams.get_mut(&id)?;
            stream.reserve(kind);
            return Some(granted(id, stream));
        }
        state
            .hubs
            .entry(key.hub)
            .or_default()
            .orchestrations
            .push(class, key.clone(), avoid);
        None
    }

    /// Gives back a reserved place that is not needed any more.
    pub(crate) fn decline(&self, granted: Granted) {
        let mut state = self.lock();
        if let Some(stream) = state.streams.get_mut(&granted.stream) {
            stream.release(WorkKind::Orchestration);
        }
        self.fill(&mut state, granted.stream);
    }

    /// Draws the token for an episode about to go out.
    pub(crate) fn token(&self) -> Token {
        Token(self.lock().ids.next())
    }

    /// Leases an episode to the stream that was reserved for it and sends it. False: the stream has gone, nothing is leased.
    pub(crate) fn lease(
        &self,
        key: &InstanceKey,
        token: Token,
        granted: Granted,
        parts: Vec<Bytes>,
    ) -> bool {
        let mut state = self.lock();
        let Some(stream) = state.streams.get_mut(&granted.stream).filter(|s| s.is_open) else {
            return false;
        };
        if !stream.send(parts) {
            stream.release(WorkKind::Orchestration);
            return false;
        }
        stream.leases.insert(token);
        state.tokens.insert(token, Held::Orchestration(key.clone()));
        state.orchestrations.insert(
            key.clone(),
            OrchestrationLease {
                token,
                stream: granted.stream,
            },
        );
        true
    }

    /// Which lease a response speaks of: by token, or, from peers that send none, by instance (S-4.5). `None`: none any more (S-4.4).
    pub(crate) fn find(
        &self,
        hub: HubId,
        instance: &str,
        token: &str,
    ) -> Option<(InstanceKey, Token)> {
        let mut state = self.lock();
        if token.is_empty() {
            let key = InstanceKey {
                hub,
                instance: mainspring_core::id::InstanceId::from_stored(instance),
            };
            let lease = state.orchestrations.get(&key)?;
            let (token, stream) = (lease.token, lease.stream);
            if let Some(stream) = state.streams.get_mut(&stream) {
                stream.is_without_tokens = true;
            }
            return Some((key, token));
        }
        let token = Token::parse(token)?;
        match state.tokens.get(&token)? {
            Held::Orchestration(key) if key.hub == hub => Some((key.clone(), token)),
            _ => None,
        }
    }

    /// The lease is over: answered, void or fenced. Its stream has room again.
    pub(crate) fn release(&self, token: Token) {
        let mut state = self.lock();
        if let Some(stream) = self.release_token(&mut state, token) {
            self.fill(&mut state, stream);
        }
    }

    fn release_token(&self, state: &mut State, token: Token) -> Option<StreamId> {
        let (stream, kind) = match state.tokens.remove(&token)? {
            Held::Orchestration(key) => (
                state.orchestrations.remove(&key)?.stream,
                WorkKind::Orchestration,
            ),
            Held::Activity(id) => (
                state
                    .activities
                    .get_mut(&id)?
                    .lease
                    .take_if(|(t, _)| *t == token)?
                    .1,
                WorkKind::Activity,
            ),
        };
        if let Some(held) = state.streams.get_mut(&stream) {
            held.leases.remove(&token);
            held.release(kind);
            held.is_silent = false;
        }
        Some(stream)
    }

    /// Ends one lease without an answer: the item is delivered again after `delay`.
    fn requeue(&self, state: &mut State, token: Token, avoid: Option<StreamId>, delay: Duration) {
        match state.tokens.get(&token) {
            Some(Held::Orchestration(key)) => {
                let key = key.clone();
                self.release_token(state, token);
                self.placement().send(
                    key,
                    Input::LeaseLost {
                        token,
                        avoid,
                        is_given_back: false,
                    },
                );
            }
            Some(Held::Activity(id)) => {
                let id = *id;
                if let Some(activity) = state.activities.get_mut(&id)
                    && let Some((_, stream)) = activity.lease.take_if(|(t, _)| *t == token)
                {
                    if let Some(held) = state.streams.get_mut(&stream) {
                        held.leases.remove(&token);
                        held.release(WorkKind::Activity);
                    }
                    self.requeue_activity(state, id, avoid, delay);
                }
            }
            None => {}
        }
    }

    // ── activities ──

    /// Queues an activity whose scheduling is durable.
    pub(crate) fn schedule(&self, key: InstanceKey, task: ActivityTask) {
        let mut state = self.lock();
        if state.is_stopping
            || state
                .activity_ids
                .contains_key(&(key.clone(), task.fence.clone()))
        {
            return;
        }
        let id = state.next_activity;
        state.next_activity += 1;
        state
            .activity_ids
            .insert((key.clone(), task.fence.clone()), id);
        let activity = Activity {
            key,
            task: Arc::new(task),
            lease: None,
            leased_at: Instant::now(),
            is_queued: false,
            tokens: Vec::new(),
            attempts: 0,
        };
        state.activities.insert(id, activity);
        self.offer_activity(&mut state, id, None);
    }

    fn offer_activity(&self, state: &mut State, id: ActivityId, avoid: Option<StreamId>) {
        let Some(activity) = state.activities.get_mut(&id) else {
            return;
        };
        activity.is_queued = true;
        let hub = activity.key.hub;
        let task = &activity.task;
        let version = match task.version.as_deref() {
            None | Some("") => task.orchestration_version.as_deref(),
            version => version,
        };
        let class = Class::new(&task.name, version, false);
        match Self::choose(state, hub, WorkKind::Activity, &class, avoid) {
            Some(stream) => self.lease_activity(state, id, stream),
            None => state
                .hubs
                .entry(hub)
                .or_default()
                .activities
                .push(class, id, avoid),
        }
    }

    fn lease_activity(&self, state: &mut State, id: ActivityId, stream_id: StreamId) {
        let State {
            activities,
            streams,
            unnamed,
            held_back,
            ids,
            tokens,
            ..
        } = state;
        // Answered, dropped or already out while it waited in the queue: there is nothing to hand out.
        let Some(activity) = activities
            .get_mut(&id)
            .filter(|a| a.is_queued && a.lease.is_none())
        else {
            return;
        };
        let Some(stream) = streams.get_mut(&stream_id) else {
            return;
        };
        let name = (activity.key.clone(), activity.task.task_id);
        if unnamed.get(&name).is_some_and(|holder| *holder != id) {
            activity.is_queued = false;
            held_back.entry(name).or_default().push(id);
            return;
        }
        if stream.is_without_tokens {
            unnamed.insert(name, id);
        }
        let token = Token(ids.next());
        activity.is_queued = false;
        activity.lease = Some((token, stream_id));
        activity.leased_at = Instant::now();
        activity.tokens.push(token);
        tokens.insert(token, Held::Activity(id));
        stream.leases.insert(token);
        stream.reserve(WorkKind::Activity);
        stream.send(wire::activity_work_item(
            &activity.key.instance,
            &activity.task,
            &token.to_string(),
        ));
    }

    /// Ends the leases of activities that have lasted longer than `longest` (S-5.8); their streams get nothing more until they answer (S-13.24).
    pub(crate) fn expire_activities(&self, longest: Duration) {
        let mut state = self.lock();
        let expired: Vec<_> = state
            .activities
            .values()
            .filter(|a| a.leased_at.elapsed() > longest)
            .filter_map(|a| a.lease)
            .collect();
        for (token, stream) in expired {
            if let Some(held) = state.streams.get_mut(&stream) {
                held.is_silent = true;
            }
            self.requeue(&mut state, token, Some(stream), Duration::ZERO);
        }
    }

    /// The lease of an episode ran out: its stream gets nothing more until it answers (S-13.24).
    pub(crate) fn expire(&self, token: Token) {
        let mut state = self.lock();
        if let Some(stream) = self.release_token(&mut state, token)
            && let Some(held) = state.streams.get_mut(&stream)
        {
            held.is_silent = true;
        }
    }

    fn requeue_activity(
        &self,
        state: &mut State,
        id: ActivityId,
        avoid: Option<StreamId>,
        delay: Duration,
    ) {
        if delay.is_zero() {
            return self.offer_activity(state, id, avoid);
        }
        self.later(delay, move |dispatch| dispatch.retry_activity(id, avoid));
    }

    /// The back-off of an activity is over.
    fn retry_activity(&self, id: ActivityId, avoid: Option<StreamId>) {
        let mut state = self.lock();
        if state
            .activities
            .get(&id)
            .is_some_and(|a| !a.is_queued && a.lease.is_none())
        {
            self.offer_activity(&mut state, id, avoid);
        }
    }

    /// Takes an activity off the books for its outcome: by any token it was handed out with, or by (instance, task id) from peers without
    /// tokens. `None`: it has its outcome, or never was (S-4.4).
    pub(crate) fn take_activity(
        &self,
        hub: HubId,
        instance: &str,
        task_id: i32,
        token: &str,
    ) -> Option<ActivityAddress> {
        let mut state = self.lock();
        let id = if token.is_empty() {
            let key = InstanceKey {
                hub,
                instance: mainspring_core::id::InstanceId::from_stored(instance),
            };
            let id = *state.unnamed.get(&(key.clone(), task_id)).or_else(|| {
                state
                    .activities
                    .iter()
                    .find(|(_, a)| {
                        a.key == key && a.task.task_id == task_id && !a.tokens.is_empty()
                    })
                    .map(|(id, _)| id)
            })?;
            let stream = state
                .activities
                .get(&id)
                .and_then(|a| a.lease)
                .map(|(_, stream)| stream);
            if let Some(stream) = stream.and_then(|stream| state.streams.get_mut(&stream)) {
                stream.is_without_tokens = true;
            }
            id
        } else {
            match state.tokens.get(&Token::parse(token)?)? {
                Held::Activity(id) => *id,
                Held::Orchestration(_) => return None,
            }
        };
        if state.activities.get(&id)?.key.hub != hub {
            return None;
        }
        let activity = self.forget_activity(&mut state, id)?;
        Some(ActivityAddress {
            task_id: activity.task.task_id,
            fence: activity.task.fence.clone(),
            key: activity.key,
        })
    }

    fn forget_activity(&self, state: &mut State, id: ActivityId) -> Option<Activity> {
        let activity = state.activities.remove(&id)?;
        state
            .activity_ids
            .remove(&(activity.key.clone(), activity.task.fence.clone()));
        for token in &activity.tokens {
            state.tokens.remove(token);
        }
        let name = (activity.key.clone(), activity.task.task_id);
        if state.unnamed.get(&name) == Some(&id) {
            state.unnamed.remove(&name);
            for waiting in state.held_back.remove(&name).unwrap_or_default() {
                self.offer_activity(state, waiting, None);
            }
        }
        if let Some((token, stream)) = activity.lease {
            if let Some(held) = state.streams.get_mut(&stream) {
                held.leases.remove(&token);
                held.release(WorkKind::Activity);
                held.is_silent = false;
            }
            self.fill(state, stream);
        }
        Some(activity)
    }

    /// Drops the activities of a generation that were not handed out yet (S-5.7).
    pub(crate) fn drop_activities(&self, key: &InstanceKey, execution_id: &ExecutionId) {
        let mut state = self.lock();
        let at = |scheduling| {
            (
                key.clone(),
                Fence {
                    execution_id: execution_id.clone(),
                    scheduling,
                },
            )
        };
        let ids: Vec<ActivityId> = state
            .activity_ids
            .range(at(0)..=at(u32::MAX))
            .map(|(_, id)| *id)
            .collect();
        for id in ids {
            if state.activities.get(&id).is_some_and(|a| a.lease.is_none()) {
                self.forget_activity(&mut state, id);
            }
        }
    }

    // ── giving back ──

    /// A worker gives an item back: it is redelivered with a growing back-off, elsewhere if possible (S-13.17). An unknown token is fine.
    pub(crate) fn abandon(&self, hub: HubId, kind: WorkKind, token: &str) {
        let mut state = self.lock();
        let Some(token) = Token::parse(token) else {
            return;
        };
        match (kind, state.tokens.get(&token)) {
            (WorkKind::Orchestration, Some(Held::Orchestration(key))) if key.hub == hub => {
                let key = key.clone();
                if let Some(stream) = self.release_token(&mut state, token) {
                    self.placement().send(
                        key,
                        Input::LeaseLost {
                            token,
                            avoid: Some(stream),
                            is_given_back: true,
                        },
                    );
                    self.fill(&mut state, stream);
                }
            }
            (WorkKind::Activity, Some(Held::Activity(id))) => {
                let id = *id;
                let Some(activity) = state.activities.get_mut(&id).filter(|a| a.key.hub == hub)
                else {
                    return;
                };
                let Some((_, stream)) = activity.lease.filter(|(t, _)| *t == token) else {
                    return;
                };
                activity.attempts += 1;
                let delay = back_off(activity.attempts);
                self.requeue(&mut state, token, Some(stream), delay);
                self.fill(&mut state, stream);
            }
            _ => {}
        }
    }

    /// A completion was answered with an error, which ends its lease (S-13.28); a Java worker's stream is ended with it (S-13.25).
    pub(crate) fn refuse(&self, hub: HubId, kind: WorkKind, peer: &Peer, token: Token) {
        self.abandon(hub, kind, &token.to_string());
        if peer.is_java() {
            self.connection_failed(peer.connection);
        }
    }
}

fn granted(id: StreamId, stream: &StreamState) -> Granted {
    Granted {
        stream: id,
        can_stream_history: stream.can_stream_history,
        receives_any_size: stream.peer.receives_any_size(),
        is_without_tokens: stream.is_without_tokens,
    }
}
