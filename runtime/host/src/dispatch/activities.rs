//! Activities: queued as they are scheduled, handed out, and off the books once their instance has their outcome.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainspring_core::effect::ActivityTask;
use mainspring_core::id::{ExecutionId, HubId, InstanceId, InstanceKey};
use mainspring_core::message::{FailureDetails, Fence};
use mainspring_core::wire;
use tokio::sync::oneshot;

use super::{Class, Dispatch, Held, Outgoing, Size, State, StreamId, Token, back_off};
use crate::activation::{Input, Outcome};
use crate::api::WorkKind;

const KIND: WorkKind = WorkKind::Activity;

/// Earlier deliveries of one activity whose tokens are still good (S-13.18).
const TOKENS_MAX: usize = 8;

/// Bytes of a work item besides the strings of its task.
const HEAD_ROOM: usize = 1_024;

pub(super) type ActivityId = u64;

/// Where an activity is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Queued,
    /// With a worker.
    Out {
        token: Token,
        stream: StreamId,
        since: Instant,
    },
    /// Between two deliveries.
    Resting,
    /// Behind another of the same name (S-5.10).
    HeldBack,
}

pub(super) struct Activity {
    pub(super) key: InstanceKey,
    pub(super) task: Arc<ActivityTask>,
    pub(super) place: Place,
    /// Since when it could be handed out.
    ready_since: Instant,
    /// Tokens of its latest deliveries: an older one is accepted while there is no outcome (S-13.18).
    tokens: VecDeque<Token>,
    pub(super) attempts: u32,
    /// Too large for ordinary channels: since when it waits for another.
    oversize_since: Option<Instant>,
}

/// An activity taken off the books for its outcome.
pub(crate) struct Answered {
    id: ActivityId,
    activity: Activity,
}

impl Answered {
    pub(crate) fn key(&self) -> &InstanceKey {
        &self.activity.key
    }

    pub(crate) fn fence(&self) -> &Fence {
        &self.activity.task.fence
    }

    pub(crate) fn task_id(&self) -> i32 {
        self.activity.task.task_id
    }
}

fn name(activity: &Activity) -> (InstanceKey, i32) {
    (activity.key.clone(), activity.task.task_id)
}

impl Dispatch {
    /// Queues an activity whose scheduling is durable. `is_restored`: it was scheduled before a restart, and a peer without tokens may have
    /// it still (S-5.10).
    pub(crate) fn schedule(&self, key: InstanceKey, task: ActivityTask, is_restored: bool) {
        let mut state = self.lock();
        let place = (key.clone(), task.fence.clone());
        if state.is_stopping || state.activity_ids.contains_key(&place) {
            return;
        }
        let id = state.next_activity;
        state.next_activity += 1;
        state.activity_ids.insert(place, id);
        let activity = Activity {
            key,
            task: Arc::new(task),
            place: Place::Resting,
            ready_since: Instant::now(),
            tokens: VecDeque::new(),
            attempts: 0,
            oversize_since: None,
        };
        if is_restored {
            state.unnamed.entry(name(&activity)).or_insert(id);
        }
        state.activities.insert(id, activity);
        self.offer_activity(&mut state, id, None);
    }

    fn class(&self, task: &ActivityTask) -> Class {
        let version = match task.version.as_deref() {
            None | Some("") => task.orchestration_version.as_deref(),
            version => version,
        };
        let tags: usize = task.tags.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
        let input = task.input.as_ref().map_or(0, String::len);
        let is_oversize = task.name.len() + input + tags + HEAD_ROOM > self.work_item_bytes_max;
        let size = if is_oversize {
            Size::Unlimited
        } else {
            Size::Ordinary
        };
        Class::new(&task.name, version, size)
    }

    fn offer_activity(&self, state: &mut State, id: ActivityId, avoid: Option<StreamId>) {
        let Some(activity) = state.activities.get_mut(&id) else {
            return;
        };
        let hub = activity.key.hub;
        let class = self.class(&activity.task);
        if let Some(stream) = Self::choose(state, hub, KIND, &class, None, avoid) {
            return self.lease_activity(state, id, stream);
        }
        let is_oversize = class.size == Size::Unlimited;
        if let Some(activity) = state.activities.get_mut(&id) {
            activity.place = Place::Queued;
            if is_oversize && activity.oversize_since.is_none() {
                activity.oversize_since = Some(Instant::now());
                self.later(self.oversize_wait, move |dispatch| {
                    dispatch.expire_oversize(id)
                });
            }
        }
        let queues = state.hubs.entry(hub).or_default();
        queues.activities.push(class, id);
    }

    /// Nobody came who could receive the activity: it fails, rather than break a worker's channel again and again (S-1.11, S-14.4).
    fn expire_oversize(&self, id: ActivityId) {
        let mut state = self.lock();
        let Some(activity) = state.activities.get_mut(&id) else {
            return;
        };
        activity.oversize_since = None;
        if activity.place != Place::Queued {
            return;
        }
        let (hub, task) = (activity.key.hub, Arc::clone(&activity.task));
        if Self::is_receivable(&state, hub, KIND, &self.class(&task)) {
            if let Some(activity) = state.activities.get_mut(&id) {
                activity.oversize_since = Some(Instant::now());
            }
            return self.later(self.oversize_wait, move |dispatch| {
                dispatch.expire_oversize(id)
            });
        }
        let Some(activity) = self.forget_activity(&mut state, id) else {
            return;
        };
        let limit = self.work_item_bytes_max;
        let message = format!(
            "activity '{}' does not fit a work item of {limit} bytes, and no connected worker can receive a larger one",
            task.name
        );
        let failure = FailureDetails::new("PayloadTooLarge", &message, true);
        let (reply, _) = oneshot::channel();
        let done = Input::ActivityDone {
            fence: task.fence.clone(),
            task_id: task.task_id,
            outcome: Outcome::Failed(failure),
            credit: None,
            reply,
        };
        self.tell(activity.key, done);
    }

    pub(super) fn lease_activity(&self, state: &mut State, id: ActivityId, stream_id: StreamId) {
        let State {
            activities,
            streams,
            unnamed,
            held_back,
            tokens,
            ..
        } = state;
        let Some(activity) = activities.get_mut(&id) else {
            return;
        };
        let Some(stream) = streams.get_mut(&stream_id) else {
            return;
        };
        if stream.is_without_tokens {
            let holder = *unnamed.entry(name(activity)).or_insert(id);
            if holder != id {
                activity.place = Place::HeldBack;
                held_back.entry(name(activity)).or_default().push(id);
                return;
            }
        }
        let token = Token::fresh();
        let since = Instant::now();
        let work = self.metrics.of(KIND);
        work.dispatched.add(1);
        work.waits
            .note_time(since.duration_since(activity.ready_since));
        activity.place = Place::Out {
            token,
            stream: stream_id,
            since,
        };
        activity.tokens.push_back(token);
        if activity.tokens.len() > TOKENS_MAX
            && let Some(oldest) = activity.tokens.pop_front()
        {
            tokens.remove(&oldest);
        }
        tokens.insert(token, Held::Activity(id));
        stream.leases.insert(token);
        stream.reserve(KIND);
        // If the client is gone, its stream is about to be closed, and the lease lost with it.
        stream.send(Outgoing::whole(wire::activity_work_item(
            &activity.key.instance,
            &activity.task,
            &token.to_string(),
        )));
    }

    pub(super) fn requeue_activity(
        &self,
        state: &mut State,
        id: ActivityId,
        avoid: Option<StreamId>,
        delay: Duration,
    ) {
        if let Some(activity) = state.activities.get_mut(&id) {
            activity.ready_since = Instant::now() + delay;
        }
        if delay.is_zero() {
            return self.offer_activity(state, id, avoid);
        }
        self.later(delay, move |dispatch| {
            let mut state = dispatch.lock();
            let activity = state.activities.get(&id);
            if activity.is_some_and(|a| a.place == Place::Resting) {
                dispatch.offer_activity(&mut state, id, avoid);
            }
        });
    }

    /// Takes an activity off the books for its outcome: by any token it was handed out with, or by (instance, task id) from peers without
    /// tokens. `None`: it has its outcome, or never was (S-4.4). Once the outcome is durable nothing more is to be done; if it cannot be
    /// taken, [`Dispatch::restore`] puts the activity back.
    pub(crate) fn take_activity(
        &self,
        hub: HubId,
        instance: &str,
        task_id: i32,
        token: &str,
    ) -> Option<Answered> {
        let mut state = self.lock();
        let mut answering = None;
        let id = if token.is_empty() {
            let key = InstanceKey {
                hub,
                instance: InstanceId::from_stored(instance),
            };
            let Some(id) = Self::named(&state, &key, task_id) else {
                self.late_answer(&mut state, &key, Some(task_id));
                return None;
            };
            if let Some(Place::Out { stream, .. }) = state.activities.get(&id).map(|a| a.place)
                && let Some(stream) = state.streams.get_mut(&stream)
            {
                stream.is_without_tokens = true;
            }
            id
        } else {
            let token = Token::parse(token)?;
            let id = match state.tokens.get(&token) {
                Some(Held::Activity(id)) => Some(*id),
                _ => None,
            };
            answering = Some(token);
            if state.expired.contains_key(&token) || id.is_none() {
                self.late_token(&mut state, token);
            }
            id?
        };
        let activity = state.activities.get(&id).filter(|a| a.key.hub == hub)?;
        // An older delivery's answer does not come from the stream that has it now.
        if let Place::Out {
            stream,
            token,
            since,
        } = activity.place
            && answering.is_none_or(|answering| answering == token)
        {
            self.metrics.of(KIND).leases.note_time(since.elapsed());
            self.heard_from(&mut state, stream);
        }
        let activity = self.forget_activity(&mut state, id)?;
        Some(Answered { id, activity })
    }

    /// The activity that an answer without a token speaks of.
    fn named(state: &State, key: &InstanceKey, task_id: i32) -> Option<ActivityId> {
        let was_sent = |id: &&ActivityId| {
            let activity = state.activities.get(id);
            activity.is_some_and(|a| a.task.task_id == task_id && !a.tokens.is_empty())
        };
        if let Some(id) = state.unnamed.get(&(key.clone(), task_id)).filter(was_sent) {
            return Some(*id);
        }
        let first = Fence {
            execution_id: ExecutionId::from_stored(""),
            scheduling: 0,
        };
        state
            .activity_ids
            .range((key.clone(), first)..)
            .take_while(|((of, _), _)| of == key)
            .map(|(_, id)| id)
            .filter(was_sent)
            .min()
            .copied()
    }

    /// The outcome of an activity could not be taken: it is delivered again, after its back-off and, when the client will repeat its
    /// answer (`is_repeated`), not before the grace is over. Its tokens stay good (S-13.28).
    pub(crate) fn restore(&self, answered: Answered, is_repeated: bool) {
        let Answered { id, mut activity } = answered;
        let mut state = self.lock();
        let place = (activity.key.clone(), activity.task.fence.clone());
        if state.is_stopping || state.activity_ids.contains_key(&place) {
            return;
        }
        activity.attempts += 1;
        let delay = back_off(activity.attempts);
        activity.place = Place::Resting;
        self.metrics.of(KIND).returned.add(1);
        for token in &activity.tokens {
            state.tokens.insert(*token, Held::Activity(id));
        }
        state.activity_ids.insert(place, id);
        state.unnamed.entry(name(&activity)).or_insert(id);
        state.activities.insert(id, activity);
        let least = if is_repeated {
            self.lease_grace
        } else {
            Duration::ZERO
        };
        self.requeue_activity(&mut state, id, None, delay.max(least));
    }

    fn forget_activity(&self, state: &mut State, id: ActivityId) -> Option<Activity> {
        if let Some(Place::Out { token, stream, .. }) = state.activities.get(&id).map(|a| a.place) {
            Self::take_lease(state, token);
            self.drop_activity(state, id)
                .inspect(|_| self.fill(state, stream))
        } else {
            self.drop_activity(state, id)
        }
    }

    fn drop_activity(&self, state: &mut State, id: ActivityId) -> Option<Activity> {
        let activity = state.activities.remove(&id)?;
        let place = (activity.key.clone(), activity.task.fence.clone());
        state.activity_ids.remove(&place);
        for token in &activity.tokens {
            state.tokens.remove(token);
        }
        if let Some(queues) = state.hubs.get_mut(&activity.key.hub) {
            queues.activities.remove(&id);
        }
        let name = name(&activity);
        if state.unnamed.get(&name) == Some(&id) {
            state.unnamed.remove(&name);
            for waiting in state.held_back.remove(&name).unwrap_or_default() {
                self.offer_activity(state, waiting, None);
            }
        }
        Some(activity)
    }

    /// Drops the activities of a generation that were not handed out yet (S-5.7).
    pub(crate) fn drop_activities(&self, key: &InstanceKey, execution_id: &ExecutionId) {
        let mut state = self.lock();
        let at = |scheduling| {
            let execution_id = execution_id.clone();
            (
                key.clone(),
                Fence {
                    execution_id,
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
            let place = state.activities.get(&id).map(|a| a.place);
            if !matches!(place, None | Some(Place::Out { .. })) {
                self.forget_activity(&mut state, id);
            }
        }
    }

    /// Drops all activities of an instance that is purged; returns their fences (S-11.24).
    pub(crate) fn purge_activities(&self, key: &InstanceKey) -> Vec<Fence> {
        let mut state = self.lock();
        let first = Fence {
            execution_id: ExecutionId::from_stored(""),
            scheduling: 0,
        };
        let found: Vec<(Fence, ActivityId)> = state
            .activity_ids
            .range((key.clone(), first)..)
            .take_while(|((of, _), _)| of == key)
            .map(|((_, fence), id)| (fence.clone(), *id))
            .collect();
        for (_, id) in &found {
            self.forget_activity(&mut state, *id);
        }
        found.into_iter().map(|(fence, _)| fence).collect()
    }
}
