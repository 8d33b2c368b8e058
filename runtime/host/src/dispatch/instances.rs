//! Episodes of orchestrations and batches of entities: offered by their instances, handed out one at a time, found again by what their answers name.

use std::time::Instant;

use mainspring_core::id::{HubId, InstanceId, InstanceKey};

use super::leases::Taken;
use super::{Class, Dispatch, Granted, Held, Outgoing, State, StreamId, Token, granted, kind_of};
use crate::activation::Input;

pub(super) struct InstanceLease {
    pub(super) token: Token,
    pub(super) stream: StreamId,
    pub(super) since: Instant,
}

/// A void episode that a peer without tokens still has: its late answer must not be taken for that of the next one (S-4.16).
pub(super) struct Fenced {
    pub(super) token: Token,
    pub(super) stream: StreamId,
    pub(super) since: Instant,
    /// The next episode, if it is ready.
    pub(super) waiting: Option<Class>,
}

impl Dispatch {
    /// An instance has an episode or a batch to run: a stream with room is reserved at once, or it waits for [`Input::Granted`]. `prefer`:
    /// the stream whose worker keeps it; nothing waits for that one.
    pub(crate) fn offer(
        &self,
        key: &InstanceKey,
        class: &Class,
        prefer: Option<StreamId>,
        avoid: Option<StreamId>,
    ) -> Option<Granted> {
        let mut state = self.lock();
        if state.is_stopping {
            return None;
        }
        if let Some(fenced) = state.fenced.get_mut(key) {
            fenced.waiting = Some(class.clone());
            return None;
        }
        let kind = kind_of(key);
        let chosen = Self::choose(&mut state, key.hub, kind, class, prefer, avoid);
        let queues = state.hubs.entry(key.hub).or_default();
        let Some(id) = chosen else {
            queues.instances(kind).push(class.clone(), key.clone());
            return None;
        };
        queues.instances(kind).remove(key);
        let stream = state.streams.get_mut(&id)?;
        stream.reserve(kind);
        self.metrics.of(kind).waits.note(0);
        Some(granted(id, stream, kind))
    }

    /// What was offered is not wanted any more.
    pub(crate) fn withdraw(&self, key: &InstanceKey) {
        let mut state = self.lock();
        if let Some(queues) = state.hubs.get_mut(&key.hub) {
            queues.instances(kind_of(key)).remove(key);
        }
        if let Some(fenced) = state.fenced.get_mut(key) {
            fenced.waiting = None;
        }
    }

    /// What an instance waits here as, if it does.
    pub(crate) fn waits_as(&self, key: &InstanceKey) -> Option<Class> {
        let mut state = self.lock();
        let state = &mut *state;
        let queued = state
            .hubs
            .get_mut(&key.hub)?
            .instances(kind_of(key))
            .class_of(key);
        let behind = || state.fenced.get(key)?.waiting.as_ref();
        queued.or_else(behind).cloned()
    }

    /// Whether some open stream may take what this instance has to run, be it busy now (S-13.20).
    pub(crate) fn is_instance_receivable(&self, key: &InstanceKey, class: &Class) -> bool {
        Self::is_receivable(&self.look(), key.hub, kind_of(key), class)
    }

    /// Gives back a reserved place that is not needed any more.
    pub(crate) fn decline(&self, granted: Granted) {
        let mut state = self.lock();
        if let Some(stream) = state.streams.get_mut(&granted.stream) {
            stream.release(granted.kind);
        }
        self.fill(&mut state, granted.stream);
    }

    /// Leases an item to the stream that was reserved for it and sends it. False: the stream has gone, nothing is leased.
    pub(crate) fn lease(
        &self,
        key: &InstanceKey,
        token: Token,
        granted: Granted,
        item: Outgoing,
    ) -> bool {
        let mut state = self.lock();
        let Some(stream) = state.streams.get_mut(&granted.stream) else {
            return false;
        };
        if !stream.is_open || !stream.send(item) {
            stream.release(granted.kind);
            return false;
        }
        stream.leases.insert(token);
        state.tokens.insert(token, Held::Instance(key.clone()));
        let lease = InstanceLease {
            token,
            stream: granted.stream,
            since: Instant::now(),
        };
        state.leased.insert(key.clone(), lease);
        self.metrics.of(granted.kind).dispatched.add(1);
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
                instance: InstanceId::from_stored(instance),
            };
            let Some(lease) = state.leased.get(&key) else {
                self.late_answer(&mut state, &key, None);
                return None;
            };
            let (token, stream) = (lease.token, lease.stream);
            if let Some(stream) = state.streams.get_mut(&stream) {
                stream.is_without_tokens = true;
            }
            return Some((key, token));
        }
        drop(state);
        let (key, token) = self.find_by_token(hub, Token::parse(token)?)?;
        (!key.instance.is_entity()).then_some((key, token))
    }

    fn find_by_token(&self, hub: HubId, token: Token) -> Option<(InstanceKey, Token)> {
        let mut state = self.lock();
        match state.tokens.get(&token) {
            Some(Held::Instance(key)) if key.hub == hub => Some((key.clone(), token)),
            Some(_) => None,
            None => {
                self.late_token(&mut state, token);
                None
            }
        }
    }

    /// Which lease an entity worker's answer speaks of; entity batches always have tokens. `None`: none any more (S-4.4).
    pub(crate) fn find_batch(&self, hub: HubId, token: &str) -> Option<(InstanceKey, Token)> {
        let (key, token) = self.find_by_token(hub, Token::parse(token)?)?;
        key.instance.is_entity().then_some((key, token))
    }

    /// The item was answered. Its stream has room again.
    pub(crate) fn answered(&self, token: Token) {
        let mut state = self.lock();
        if let Some(Taken {
            stream,
            kind,
            since,
        }) = Self::take_lease(&mut state, token)
        {
            self.metrics.of(kind).leases.note_time(since.elapsed());
            self.heard_from(&mut state, stream);
            self.fill(&mut state, stream);
        }
    }

    /// The generation of a leased episode is over. If a peer without tokens has it, the next episode waits for its answer (S-4.16).
    pub(crate) fn fence(&self, key: &InstanceKey, token: Token) {
        let mut state = self.lock();
        let Some(Taken { stream: id, .. }) = Self::take_lease(&mut state, token) else {
            return;
        };
        if state.streams.get(&id).is_some_and(|s| s.is_without_tokens) {
            let fenced = Fenced {
                token,
                stream: id,
                since: Instant::now(),
                waiting: None,
            };
            state.fenced.insert(key.clone(), fenced);
        }
        self.fill(&mut state, id);
    }

    /// Ends the fences that `is_over`: what waited behind them is handed out.
    pub(super) fn lift_fences(&self, state: &mut State, is_over: impl Fn(&Fenced) -> bool) {
        let lifted: Vec<_> = state.fenced.extract_if(|_, f| is_over(f)).collect();
        for (key, fenced) in lifted {
            let Some(class) = fenced.waiting.filter(|_| !state.is_stopping) else {
                continue;
            };
            let kind = kind_of(&key);
            match Self::choose(state, key.hub, kind, &class, None, None) {
                Some(id) => {
                    if let Some(stream) = state.streams.get_mut(&id) {
                        stream.reserve(kind);
                        self.tell(key, Input::Granted(granted(id, stream, kind)));
                    }
                }
                None => {
                    let queues = state.hubs.entry(key.hub).or_default();
                    queues.instances(kind).push(class, key);
                }
            }
        }
    }

    /// An instance starts anew after a fault: whatever it had out is void, and so is what it was granted.
    pub(crate) fn forget_instance(&self, key: &InstanceKey, granted: Option<Granted>) {
        let mut state = self.lock();
        let leased = state.leased.get(key).map(|l| l.token);
        let stream = match leased {
            // What was granted was leased, or is an older grant that was declined.
            Some(token) => Self::take_lease(&mut state, token).map(|taken| taken.stream),
            None => granted.map(|g| g.stream),
        };
        if let (None, Some(id)) = (leased, stream)
            && let Some(stream) = state.streams.get_mut(&id)
        {
            stream.release(kind_of(key));
        }
        if let Some(queues) = state.hubs.get_mut(&key.hub) {
            queues.instances(kind_of(key)).remove(key);
        }
        if let Some(stream) = stream {
            self.fill(&mut state, stream);
        }
    }
}
