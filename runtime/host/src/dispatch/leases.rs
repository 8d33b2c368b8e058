//! What becomes of items that are out: answered, given back, lost, expired; and which readers seem dead.

use std::time::{Duration, Instant};

use mainspring_core::id::{HubId, InstanceKey};

use super::activities::Place;
use super::{Dispatch, Held, State, StreamId, Token, back_off, kind_of};
use crate::activation::Input;
use crate::api::WorkKind;

/// A lease that was taken off its stream.
pub(super) struct Taken {
    pub(super) stream: StreamId,
    pub(super) kind: WorkKind,
    /// When the item was handed out.
    pub(super) since: Instant,
}

/// A lease that ended without an answer: a late one still tells that its stream is alive (S-13.24).
pub(super) struct Expired {
    pub(super) stream: StreamId,
    key: InstanceKey,
    /// Set for activities.
    task_id: Option<i32>,
}

impl Dispatch {
    /// Takes a lease off its stream. What follows for the item is the caller's business.
    pub(super) fn take_lease(state: &mut State, token: Token) -> Option<Taken> {
        let taken = match state.tokens.get(&token)? {
            Held::Instance(key) => {
                let lease = state.leased.remove(key)?;
                let kind = kind_of(key);
                state.tokens.remove(&token);
                Taken {
                    stream: lease.stream,
                    kind,
                    since: lease.since,
                }
            }
            Held::Activity(id) => {
                let activity = state.activities.get_mut(id)?;
                let Place::Out {
                    token: out,
                    stream,
                    since,
                } = activity.place
                else {
                    return None;
                };
                if out != token {
                    return None;
                }
                activity.place = Place::Resting;
                Taken {
                    stream,
                    kind: WorkKind::Activity,
                    since,
                }
            }
        };
        if let Some(held) = state.streams.get_mut(&taken.stream) {
            held.leases.remove(&token);
            held.release(taken.kind);
        }
        Some(taken)
    }

    /// Which stream holds the lease, since when, and of what.
    fn lease_of(
        state: &State,
        token: Token,
    ) -> Option<(StreamId, Instant, InstanceKey, Option<i32>)> {
        match state.tokens.get(&token)? {
            Held::Instance(key) => {
                let lease = state.leased.get(key)?;
                Some((lease.stream, lease.since, key.clone(), None))
            }
            Held::Activity(id) => {
                let activity = state.activities.get(id)?;
                match activity.place {
                    Place::Out {
                        token: out,
                        stream,
                        since,
                    } if out == token => Some((
                        stream,
                        since,
                        activity.key.clone(),
                        Some(activity.task.task_id),
                    )),
                    _ => None,
                }
            }
        }
    }

    /// Ends one lease without an answer: the item is delivered again.
    pub(super) fn requeue(
        &self,
        state: &mut State,
        token: Token,
        avoid: Option<StreamId>,
        delay: Duration,
    ) {
        match state.tokens.get(&token) {
            Some(Held::Instance(key)) => {
                let key = key.clone();
                self.metrics.of(kind_of(&key)).returned.add(1);
                Self::take_lease(state, token);
                let is_given_back = false;
                self.tell(
                    key,
                    Input::LeaseLost {
                        token,
                        avoid,
                        is_given_back,
                    },
                );
            }
            Some(Held::Activity(id)) => {
                let id = *id;
                if Self::take_lease(state, token).is_some() {
                    self.metrics.of(WorkKind::Activity).returned.add(1);
                    self.requeue_activity(state, id, avoid, delay);
                }
            }
            None => {}
        }
    }

    /// The lease is void from now on, without a grace; the item is delivered again at once (S-3.34).
    pub(crate) fn lose(&self, token: Token) {
        let mut state = self.lock();
        let stream = Self::lease_of(&state, token).map(|(stream, ..)| stream);
        self.requeue(&mut state, token, None, Duration::ZERO);
        if let Some(stream) = stream {
            self.fill(&mut state, stream);
        }
    }

    // ── giving back ──

    /// A worker gives an item back: it is delivered again with a growing back-off, elsewhere if possible (S-13.17). An unknown token is fine.
    pub(crate) fn abandon(&self, hub: HubId, kind: WorkKind, token: &str) {
        let Some(token) = Token::parse(token) else {
            return;
        };
        let mut state = self.lock();
        let is_of_kind = match state.tokens.get(&token) {
            None => {
                self.late_token(&mut state, token);
                false
            }
            Some(Held::Instance(key)) => kind == kind_of(key) && key.hub == hub,
            Some(Held::Activity(id)) => {
                let activity = state.activities.get(id);
                kind == WorkKind::Activity && activity.is_some_and(|a| a.key.hub == hub)
            }
        };
        if is_of_kind {
            self.give_back(&mut state, token);
        }
    }

    fn give_back(&self, state: &mut State, token: Token) {
        let (key, id) = match state.tokens.get(&token) {
            Some(Held::Instance(key)) => (Some(key.clone()), None),
            Some(Held::Activity(id)) => (None, Some(*id)),
            None => return,
        };
        let Some(Taken { stream, kind, .. }) = Self::take_lease(state, token) else {
            return self.late_token(state, token);
        };
        self.metrics.of(kind).returned.add(1);
        self.heard_from(state, stream);
        let avoid = Some(stream);
        if let Some(key) = key {
            let is_given_back = true;
            self.tell(
                key,
                Input::LeaseLost {
                    token,
                    avoid,
                    is_given_back,
                },
            );
        } else if let Some(id) = id
            && let Some(activity) = state.activities.get_mut(&id)
        {
            activity.attempts += 1;
            let delay = back_off(activity.attempts);
            self.requeue_activity(state, id, avoid, delay);
        }
        self.fill(state, stream);
    }

    /// A completion was answered with an error, which ends its lease (S-13.28): at once, or, when the client will repeat it
    /// (`is_repeated`), after the grace, in which its token is still accepted. A Java worker's stream is ended with it (S-13.25).
    pub(crate) fn refuse(&self, token: Token, is_repeated: bool) {
        let mut state = self.lock();
        let Some((stream, ..)) = Self::lease_of(&state, token) else {
            return;
        };
        if state.streams.get(&stream).is_some_and(|s| s.peer.is_java()) {
            self.give_back(&mut state, token);
            self.end_stream(&mut state, stream);
        } else if is_repeated {
            self.later(self.lease_grace, move |dispatch| {
                dispatch.refuse(token, false)
            });
        } else {
            self.give_back(&mut state, token);
        }
    }

    /// The worker could not use the item as it was sent; it is sent again in another form.
    pub(crate) fn return_lease(&self, token: Token) {
        let mut state = self.lock();
        self.give_back(&mut state, token);
    }

    // ── readers that seem dead (S-13.24) ──

    /// An answer came from the worker behind this stream.
    pub(super) fn heard_from(&self, state: &mut State, id: StreamId) {
        let Some(stream) = state.streams.get_mut(&id) else {
            return;
        };
        stream.answered_at = Instant::now();
        let is_java = stream.peer.is_java();
        if std::mem::take(&mut stream.is_silent) {
            state.expired.retain(|_, e| e.stream != id);
        }
        if is_java {
            self.quiet_older(state, id);
        }
    }

    /// A Java worker answers on a stream: an older one of the same connection that has said nothing since this one was opened has lost
    /// its reader. It gets nothing more until it answers, and what it holds is delivered elsewhere.
    fn quiet_older(&self, state: &mut State, id: StreamId) {
        let Some(stream) = state.streams.get(&id) else {
            return;
        };
        let (connection, opened_at) = (stream.peer.connection, stream.opened_at);
        let older: Vec<StreamId> = state
            .streams
            .iter()
            .filter(|(other, s)| {
                **other < id
                    && s.peer.connection == connection
                    && s.peer.is_java()
                    && s.is_open
                    && !s.is_silent
                    && !s.leases.is_empty()
                    && s.answered_at < opened_at
            })
            .map(|(other, _)| *other)
            .collect();
        for other in older {
            self.silence(state, other);
        }
    }

    /// Sends nothing more on a stream until it answers; what it has held for longer than the grace is delivered elsewhere.
    fn silence(&self, state: &mut State, id: StreamId) {
        let Some(stream) = state.streams.get_mut(&id) else {
            return;
        };
        stream.is_silent = true;
        let held: Vec<Token> = stream.leases.iter().copied().collect();
        let mut is_holding = false;
        for token in held {
            match Self::lease_of(state, token) {
                Some((_, since, ..)) if since.elapsed() < self.lease_grace => is_holding = true,
                Some(_) => self.expire(state, token),
                None => {}
            }
        }
        if is_holding {
            self.later(self.lease_grace, move |dispatch| {
                let mut state = dispatch.lock();
                if state.streams.get(&id).is_some_and(|s| s.is_silent) {
                    dispatch.silence(&mut state, id);
                }
            });
        }
    }

    /// Ends a lease whose stream seems to have lost its reader.
    fn expire(&self, state: &mut State, token: Token) {
        let Some((id, _, key, task_id)) = Self::lease_of(state, token) else {
            return;
        };
        if let Some(stream) = state.streams.get_mut(&id) {
            stream.is_silent = true;
            let expired = Expired {
                stream: id,
                key,
                task_id,
            };
            state.expired.insert(token, expired);
        }
        self.requeue(state, token, Some(id), Duration::ZERO);
    }

    /// Ends leases and fences that have lasted longer than is allowed (S-13.19, S-5.8).
    pub(crate) fn expire_leases(&self, episodes: Option<Duration>, activities: Option<Duration>) {
        let mut state = self.lock();
        let longest = |token: &Token| match state.tokens.get(token)? {
            Held::Instance(_) => episodes,
            Held::Activity(_) => activities,
        };
        let expired: Vec<Token> = state
            .streams
            .values()
            .flat_map(|s| s.leases.iter())
            .filter(|token| {
                let since = Self::lease_of(&state, **token).map(|(_, since, ..)| since);
                longest(token)
                    .zip(since)
                    .is_some_and(|(longest, since)| since.elapsed() > longest)
            })
            .copied()
            .collect();
        for token in expired {
            self.expire(&mut state, token);
        }
        if let Some(longest) = episodes {
            self.lift_fences(&mut state, |f| f.since.elapsed() > longest);
        }
    }

    /// A token that proves nothing any more has come back: at least its reader is alive.
    pub(super) fn late_token(&self, state: &mut State, token: Token) {
        let fenced = state.fenced.values().find(|f| f.token == token);
        let stream = state
            .expired
            .get(&token)
            .map(|e| e.stream)
            .or(fenced.map(|f| f.stream));
        self.lift_fences(state, |f| f.token == token);
        self.late_from(state, stream);
    }

    /// The same from a peer that names the instance alone, or the activity.
    pub(super) fn late_answer(&self, state: &mut State, key: &InstanceKey, task_id: Option<i32>) {
        let fenced = state.fenced.get(key).filter(|_| task_id.is_none());
        let fence = fenced.map(|f| (f.token, f.stream));
        let expired = state.expired.values();
        let stream = expired
            .filter(|e| e.key == *key && e.task_id == task_id)
            .map(|e| e.stream)
            .next()
            .or(fence.map(|(_, stream)| stream));
        if let Some((token, _)) = fence {
            self.lift_fences(state, |f| f.token == token);
        }
        self.late_from(state, stream);
    }

    /// An answer that named an instance was meant for an earlier episode than the one that is out.
    pub(crate) fn answered_late(&self, key: &InstanceKey) {
        self.late_answer(&mut self.lock(), key, None);
    }

    fn late_from(&self, state: &mut State, stream: Option<StreamId>) {
        if let Some(stream) = stream {
            self.heard_from(state, stream);
            self.fill(state, stream);
        }
    }
}
