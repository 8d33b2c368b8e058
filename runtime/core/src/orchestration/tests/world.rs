//! A world of orchestrations in memory: mailboxes, armed timers, queued activities, a clock that is moved by hand, and ids that count.
//!
//! It carries out transitions as a host would, and after each one checks what must hold for every instance at all times
//! ([`super::invariants`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::invariants;
use crate::Error;
use crate::action::{Action, EpisodeResult};
use crate::effect::{ActivityTask, Effect, Timer};
use crate::history::{EventKind, HistoryEvent};
use crate::id::{FreshIds, InstanceId};
use crate::message::{FailureDetails, Message, NewInstance};
use crate::orchestration::{
    Created, Episode, Limits, Orchestration, Origin, ReusePolicy, Status, Transition, create,
    receive,
};
use crate::time::Timestamp;
use crate::wire;

/// Ids that count from 1.
#[derive(Default)]
pub(super) struct Counter(u128);

impl FreshIds for Counter {
    fn next(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

/// One id, with what a host keeps for it.
#[derive(Default)]
pub(super) struct Node {
    pub(super) instance: Option<Orchestration>,
    pub(super) mailbox: VecDeque<Message>,
    /// History of the current generation, as it is stored.
    pub(super) chunks: Vec<Bytes>,
    /// The episode that is out.
    pub(super) lease: Option<Episode>,
    pub(super) timers: Vec<Timer>,
}

/// An activity that was scheduled and has no outcome.
#[derive(Debug, Clone)]
pub(super) struct Queued {
    pub(super) instance: String,
    pub(super) task: ActivityTask,
    /// A worker holds it.
    pub(super) is_leased: bool,
    pub(super) outlives: bool,
}

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) ids: Counter,
    pub(super) limits: Limits,
    pub(super) nodes: BTreeMap<String, Node>,
    /// Messages between instances, on their way.
    pub(super) transit: VecDeque<(InstanceId, Message)>,
    pub(super) activities: Vec<Queued>,
    /// Messages that reached entities, in order.
    pub(super) for_entities: Vec<(InstanceId, Message)>,
    /// What the last transition asked for.
    pub(super) effects: Vec<Effect>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: Timestamp::new(1_700_000_000, 123_456_789),
            ids: Counter::default(),
            limits: Limits::default(),
            nodes: BTreeMap::new(),
            transit: VecDeque::new(),
            activities: Vec::new(),
            for_entities: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// A world with one instance, "a", that was just created.
    pub(super) fn with_a() -> Self {
        let mut world = Self::new();
        world.start("a");
        world
    }

    /// The same, with its first episode committed.
    pub(super) fn running(actions: Vec<Action>) -> Self {
        let mut world = Self::with_a();
        world.run("a", actions);
        world
    }

    // ── clients ──

    pub(super) fn start(&mut self, id: &str) {
        self.create(new(id), Origin::Client(ReusePolicy::default()))
            .unwrap();
    }

    /// Creates as a host does; whether an instance was started.
    pub(super) fn create(&mut self, request: NewInstance, origin: Origin) -> Result<bool, Error> {
        let id = request.instance.as_str().to_owned();
        let node = self.nodes.entry(id.clone()).or_default();
        let created = create(&mut node.instance, request, origin, self.now, &mut self.ids)?;
        Ok(match created {
            Created::Started(transition) => {
                // The old inbox goes with the old instance (S-8.5).
                node.mailbox.clear();
                self.apply(&id, transition);
                true
            }
            Created::Refused(transition) => {
                self.apply(&id, transition);
                false
            }
            Created::Ignored => false,
        })
    }

    pub(super) fn raise(&mut self, id: &str, name: &str, input: Option<&str>) -> bool {
        let message = Message::EventRaised {
            name: name.into(),
            input: input.map(Into::into),
            at: self.now,
        };
        self.arrive(id, message)
    }

    pub(super) fn suspend(&mut self, id: &str) -> bool {
        let now = self.now;
        self.control(id, |i, is_leased| {
            i.suspend(Some("why".into()), is_leased, now)
        })
    }

    pub(super) fn resume(&mut self, id: &str) -> bool {
        let now = self.now;
        self.control(id, |i, is_leased| {
            i.resume(Some("on".into()), is_leased, now)
        })
    }

    pub(super) fn terminate(&mut self, id: &str, output: Option<&str>, recurse: bool) -> bool {
        let now = self.now;
        let output = output.map(Into::into);
        let ids = &mut Counter(1 << 64);
        self.control(id, |i, _| i.terminate(output, recurse, now, ids))
    }

    fn control(
        &mut self,
        id: &str,
        decide: impl FnOnce(&mut Orchestration, bool) -> Option<Transition>,
    ) -> bool {
        let node = self.nodes.get_mut(id).unwrap();
        let is_leased = node.lease.is_some();
        match decide(node.instance.as_mut().unwrap(), is_leased) {
            None => false,
            Some(transition) => {
                self.apply(id, transition);
                true
            }
        }
    }

    pub(super) fn rewind(&mut self, id: &str) -> Result<(), Error> {
        let node = self.nodes.get_mut(id).unwrap();
        let chunks = node.chunks.clone();
        let instance = node.instance.as_mut().unwrap();
        let reason = Some("again".to_owned());
        let transition = instance.rewind(reason, &chunks, self.now, &mut self.ids)?;
        self.apply(id, transition);
        Ok(())
    }

    pub(super) fn restart(&mut self, id: &str) {
        let request = self.get(id).restart_request(InstanceId::from_stored(id));
        assert!(self.create(request, Origin::Restart).unwrap());
    }

    pub(super) fn fail(&mut self, id: &str, failure: FailureDetails) {
        let instance = self.nodes.get_mut(id).unwrap().instance.as_mut().unwrap();
        let transition = instance.fail(None, failure, self.now, &mut self.ids);
        self.apply(id, transition);
    }

    pub(super) fn purge(&mut self, id: &str) {
        self.nodes.insert(id.into(), Node::default());
    }

    // ── workers ──

    /// Hands out the next episode; its events, or nothing if nothing is due.
    pub(super) fn lease(&mut self, id: &str) -> Option<Vec<HistoryEvent>> {
        let node = self.nodes.get_mut(id).unwrap();
        assert!(node.lease.is_none(), "'{id}' is leased already");
        let instance = node.instance.as_ref()?;
        let episode = instance.next_episode(node.mailbox.iter(), self.now, &self.limits)?;
        // A host asks the record whether anything is due, not the history.
        let record = &instance.record;
        assert!(
            !record.is_started || record.wants_episode || !node.mailbox.is_empty(),
            "'{id}' does not say that an episode is due (S-3.5)"
        );
        let events = episode
            .events
            .iter()
            .map(|e| wire::decode(e.bytes()).unwrap())
            .collect();
        node.lease = Some(episode);
        Some(events)
    }

    /// The worker is lost with its episode.
    pub(super) fn lose_lease(&mut self, id: &str) {
        self.nodes.get_mut(id).unwrap().lease = None;
    }

    pub(super) fn respond(&mut self, id: &str, result: EpisodeResult) -> Result<(), Error> {
        let node = self.nodes.get_mut(id).unwrap();
        let episode = node.lease.clone().expect("an episode is out");
        let instance = node.instance.as_mut().unwrap();
        let transition =
            instance.complete(&episode, result, &self.limits, self.now, &mut self.ids)?;
        node.lease = None;
        self.apply(id, transition);
        Ok(())
    }

    /// One episode, answered with these actions; its new events.
    pub(super) fn run(&mut self, id: &str, actions: Vec<Action>) -> Vec<HistoryEvent> {
        let result = EpisodeResult {
            actions,
            ..EpisodeResult::default()
        };
        self.run_with(id, result)
    }

    pub(super) fn run_with(&mut self, id: &str, result: EpisodeResult) -> Vec<HistoryEvent> {
        let events = self
            .lease(id)
            .unwrap_or_else(|| panic!("nothing to run for '{id}'"));
        self.respond(id, result).unwrap();
        events
    }

    /// Raises an event to have something to run, then as [`Self::run`].
    pub(super) fn run_again(&mut self, id: &str, actions: Vec<Action>) -> Vec<HistoryEvent> {
        self.raise(id, "again", None);
        self.run(id, actions)
    }

    /// Whether an episode would be handed out now.
    pub(super) fn has_work(&self, id: &str) -> bool {
        let node = &self.nodes[id];
        let next = |i: &Orchestration| i.next_episode(node.mailbox.iter(), self.now, &self.limits);
        node.instance.as_ref().and_then(next).is_some()
    }

    /// The oldest activity of `id` with this task id succeeds; whether its outcome was taken.
    pub(super) fn succeed(&mut self, id: &str, task_id: i32, result: &str) -> bool {
        let fence = self.take_activity(id, task_id).fence;
        let message = Message::ActivityCompleted {
            fence,
            task_id,
            result: Some(result.into()),
            at: self.now,
        };
        self.arrive(id, message)
    }

    /// The oldest activity of `id` with this task id fails.
    pub(super) fn break_down(&mut self, id: &str, task_id: i32) -> bool {
        let fence = self.take_activity(id, task_id).fence;
        let message = Message::ActivityFailed {
            fence,
            task_id,
            failure: failure("Broken"),
            at: self.now,
        };
        self.arrive(id, message)
    }

    pub(super) fn take_activity(&mut self, id: &str, task_id: i32) -> ActivityTask {
        let place = self
            .activities
            .iter()
            .position(|q| q.instance == id && q.task.task_id == task_id)
            .unwrap_or_else(|| panic!("'{id}' has no activity {task_id} queued"));
        self.activities.remove(place).task
    }

    // ── time and messages ──

    /// Lets time pass and fires what is due.
    pub(super) fn advance(&mut self, duration: Duration) {
        self.now = self.now.plus(duration);
        self.fire_timers();
    }

    /// Fires the timers that are due: by due time, those of the same time as they were armed.
    pub(super) fn fire_timers(&mut self) {
        let now = self.now;
        let ids: Vec<String> = self.nodes.keys().cloned().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).unwrap();
            let (mut due, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut node.timers)
                .into_iter()
                .partition(|t| t.fire_at <= now);
            node.timers = kept;
            due.sort_by_key(|t| t.fire_at);
            for timer in due {
                self.arrive(&id, fired(timer, now));
            }
        }
    }

    /// Delivers the oldest message on its way; false if there is none.
    pub(super) fn deliver(&mut self) -> bool {
        let Some((target, message)) = self.transit.pop_front() else {
            return false;
        };
        if message.is_for_entity() {
            assert!(target.is_entity(), "{target} is sent {message:?}");
            self.for_entities.push((target, message));
            return true;
        }
        assert!(!target.is_entity(), "{target} is sent {message:?}");
        let id = target.as_str().to_owned();
        if message.waits() {
            if self.nodes.contains_key(&id) {
                self.arrive(&id, message);
            }
            return true;
        }
        let node = self.nodes.entry(id.clone()).or_default();
        let chunks = node.chunks.clone();
        let transition = receive(
            &mut node.instance,
            &target,
            message,
            &mut || Ok(chunks.clone()),
            self.now,
            &mut self.ids,
        )
        .unwrap();
        self.apply(&id, transition);
        true
    }

    /// Delivers until nothing is on its way.
    pub(super) fn settle(&mut self) {
        while self.deliver() {}
    }

    pub(super) fn arrive(&mut self, id: &str, message: Message) -> bool {
        let Some(node) = self.nodes.get_mut(id) else {
            return false;
        };
        let fits = node.instance.as_mut().is_some_and(|i| i.arrive(&message));
        if fits {
            node.mailbox.push_back(message);
            invariants::check(id, &self.nodes[id]);
        }
        fits
    }

    /// Carries out what a turn decided, as a host does.
    fn apply(&mut self, id: &str, transition: Transition) {
        let node = self.nodes.get_mut(id).unwrap();
        if transition.old_generation.is_some() {
            node.chunks.clear();
        }
        node.mailbox.drain(..transition.messages_taken);
        if let Some(instance) = node
            .instance
            .as_mut()
            .filter(|_| !transition.history.is_empty())
        {
            let chunk = wire::frame_past(&transition.history);
            instance.record.history_chunks += 1;
            instance.record.history_bytes += chunk.len() as u64;
            node.chunks.push(chunk);
        }
        self.effects = transition.effects.clone();
        for effect in transition.effects {
            self.perform(id, effect);
        }
        let node = self.nodes.get_mut(id).unwrap();
        for message in transition.own_messages {
            if node.instance.as_mut().is_some_and(|i| i.arrive(&message)) {
                node.mailbox.push_back(message);
            }
        }
        let instance = node.instance.as_ref();
        node.mailbox
            .retain(|m| instance.is_some_and(|i| i.keeps(m)));
        invariants::check(id, &self.nodes[id]);
    }

    fn perform(&mut self, id: &str, effect: Effect) {
        let node = self.nodes.get_mut(id).unwrap();
        match effect {
            Effect::RunActivity { task, outlives } => self.activities.push(Queued {
                instance: id.into(),
                task,
                is_leased: false,
                outlives,
            }),
            Effect::ArmTimer(timer) => node.timers.push(timer),
            Effect::DisarmTimer(timer) => node.timers.retain(|t| *t != timer),
            Effect::Send { target, message } => {
                assert_ne!(target.as_str(), id, "an instance sends to itself");
                self.transit.push_back((target, message));
            }
            Effect::DropActivities { execution_id } => self.activities.retain(|q| {
                q.instance != id || q.task.fence.execution_id != execution_id || q.is_leased
            }),
            Effect::ReleaseActivities {
                execution_id,
                schedulings,
            } => {
                for queued in &mut self.activities {
                    let fence = &queued.task.fence;
                    if queued.instance == id
                        && fence.execution_id == execution_id
                        && schedulings.contains(&fence.scheduling)
                    {
                        queued.outlives = true;
                    }
                }
            }
            Effect::StartAt(_) => {}
            Effect::FenceEpisode => node.lease = None,
        }
    }

    // ── what can be seen ──

    pub(super) fn get(&self, id: &str) -> &Orchestration {
        self.nodes[id].instance.as_ref().unwrap()
    }

    pub(super) fn status(&self, id: &str) -> Status {
        self.get(id).record.status
    }

    pub(super) fn history(&self, id: &str) -> Vec<HistoryEvent> {
        self.nodes[id]
            .chunks
            .iter()
            .flat_map(|c| wire::decode_chunk(c).unwrap())
            .collect()
    }

    /// The history's kinds, by the protocol's names.
    pub(super) fn kinds(&self, id: &str) -> Vec<&'static str> {
        kinds(&self.history(id))
    }

    /// Tasks queued for `id`: task id and name.
    pub(super) fn queued(&self, id: &str) -> Vec<(i32, String)> {
        self.activities
            .iter()
            .filter(|q| q.instance == id)
            .map(|q| (q.task.task_id, q.task.name.clone()))
            .collect()
    }

    /// Names of the messages on their way, each with its target.
    pub(super) fn sent(&self) -> Vec<(String, &'static str)> {
        self.transit
            .iter()
            .map(|(target, m)| (target.as_str().to_owned(), message_name(m)))
            .collect()
    }
}

/// What a client or a parent asks to start under this id.
pub(super) fn new(id: &str) -> NewInstance {
    NewInstance {
        instance: InstanceId::from_stored(id),
        name: "Main".into(),
        version: None,
        input: Some("in".into()),
        tags: BTreeMap::new(),
        scheduled_start_at: None,
        execution_id: None,
        parent: None,
        trace: None,
    }
}

pub(super) fn fired(timer: Timer, at: Timestamp) -> Message {
    Message::TimerFired {
        fence: timer.fence,
        timer_id: timer.timer_id,
        fire_at: timer.fire_at,
        at,
    }
}

pub(super) fn failure(error_type: &str) -> FailureDetails {
    FailureDetails::new(error_type, "it broke", false)
}

pub(super) fn kinds(events: &[HistoryEvent]) -> Vec<&'static str> {
    events.iter().map(|e| kind(&e.kind)).collect()
}

fn kind(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::OrchestratorStarted => "OrchestratorStarted",
        EventKind::ExecutionStarted(_) => "ExecutionStarted",
        EventKind::ExecutionCompleted { .. } => "ExecutionCompleted",
        EventKind::ExecutionTerminated { .. } => "ExecutionTerminated",
        EventKind::ExecutionSuspended { .. } => "ExecutionSuspended",
        EventKind::ExecutionResumed { .. } => "ExecutionResumed",
        EventKind::ExecutionRewound(_) => "ExecutionRewound",
        EventKind::TaskScheduled(_) => "TaskScheduled",
        EventKind::TaskCompleted { .. } => "TaskCompleted",
        EventKind::TaskFailed { .. } => "TaskFailed",
        EventKind::ChildCreated(_) => "SubOrchestrationInstanceCreated",
        EventKind::ChildCompleted { .. } => "SubOrchestrationInstanceCompleted",
        EventKind::ChildFailed { .. } => "SubOrchestrationInstanceFailed",
        EventKind::TimerCreated { .. } => "TimerCreated",
        EventKind::TimerFired { .. } => "TimerFired",
        EventKind::EventSent { .. } => "EventSent",
        EventKind::EventRaised { .. } => "EventRaised",
        EventKind::Other(_) => "other",
    }
}

fn message_name(message: &Message) -> &'static str {
    match message {
        Message::EventRaised { .. } => "EventRaised",
        Message::ActivityCompleted { .. } => "ActivityCompleted",
        Message::ActivityFailed { .. } => "ActivityFailed",
        Message::TimerFired { .. } => "TimerFired",
        Message::ChildCompleted { .. } => "ChildCompleted",
        Message::ChildFailed { .. } => "ChildFailed",
        Message::Start(_) => "Start",
        Message::Terminate { .. } => "Terminate",
        Message::TerminateTree { .. } => "TerminateTree",
        Message::TreeTerminated { .. } => "TreeTerminated",
        Message::RewindChild { .. } => "RewindChild",
        Message::EntityCompleted { .. } => "EntityCompleted",
        Message::EntityFailed { .. } => "EntityFailed",
        Message::LocksGranted { .. } => "LocksGranted",
        Message::Operation(_) => "Operation",
        Message::Lock(_) => "Lock",
        Message::Unlock { .. } => "Unlock",
        Message::ReleaseLocks(_) => "ReleaseLocks",
        Message::StartFromEntity(_) => "StartFromEntity",
    }
}
