//! Entities in memory: mailboxes, what is stored of each, batches that are out, a clock that is moved by hand, and ids that count.
//!
//! It carries out transitions as a host would: what a turn decided is stored at once, as far as the turn says that it changed. After each
//! turn it checks that an entity restored from what is stored is the one in memory ([`World::check`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mainspring_core::effect::Effect;
use mainspring_core::entity::{BatchResult, Generation, Operation, Sender};
use mainspring_core::id::{FreshIds, InstanceId, Position};
use mainspring_core::message::Message;
use mainspring_core::time::Timestamp;

use super::script::{entity, lock_request, unlock};

use crate::{Arrival, Batch, Decision, Entity, Limits, Transition, View};

mod stored;

/// Ids that count from 1.
#[derive(Default)]
pub(super) struct Counter(u128);

impl FreshIds for Counter {
    fn next(&mut self) -> u128 {
        self.0 += 1;
        self.0
    }
}

/// One entity, with what a host keeps for it.
#[derive(Default)]
pub(super) struct Node {
    /// In memory, if it is.
    pub(super) live: Option<Entity>,
    /// Its record as it is stored.
    pub(super) record: Option<Vec<u8>>,
    /// Its state as it is stored.
    pub(super) state: Option<String>,
    pub(super) mailbox: BTreeMap<Position, Message>,
    /// Messages of the mailbox that were not brought yet; true: its own.
    pub(super) coming: VecDeque<(Position, bool)>,
    /// Operations kept aside until they are due, in order of arrival.
    pub(super) delayed: BTreeMap<(Timestamp, u64), Operation>,
    /// The batch that is out.
    pub(super) lease: Option<Batch>,
}

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) ids: Counter,
    pub(super) limits: Limits,
    pub(super) nodes: BTreeMap<InstanceId, Node>,
    /// Messages to orchestrations, in order.
    pub(super) told: VecDeque<(InstanceId, Message)>,
    /// Generations that have ended.
    pub(super) over: BTreeSet<Generation>,
    /// Turns are slow to be stored: what they send on of locks comes later than what others decide meanwhile.
    pub(super) is_slow: bool,
    late: VecDeque<(InstanceId, Message)>,
    commit: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: Timestamp::new(1_700_000_000, 123_456_789),
            ids: Counter::default(),
            limits: Limits {
                payload_bytes_max: 1 << 20,
                state_bytes_max: 1 << 20,
                batch_operations_max: 100,
                work_item_bytes_max: 4_000_000,
            },
            nodes: BTreeMap::new(),
            told: VecDeque::new(),
            over: BTreeSet::new(),
            is_slow: false,
            late: VecDeque::new(),
            commit: 0,
        }
    }

    // ── what is asked ──

    /// A client's signal, delivered; false: it is a repetition.
    pub(super) fn signal(&mut self, id: &str, request_id: &str, name: &str) -> bool {
        let is_new = self.send_signal(id, request_id, name, None);
        self.deliver_all();
        is_new
    }

    /// A client's signal on its way, as a host takes it.
    pub(super) fn send_signal(
        &mut self,
        id: &str,
        request_id: &str,
        name: &str,
        scheduled_at: Option<Timestamp>,
    ) -> bool {
        let operation = self.operation(request_id, name, Sender::Client);
        let id = entity(id);
        if let Some(due) = scheduled_at.filter(|due| *due > self.now) {
            self.keep_aside(&id, due, operation.scheduled(scheduled_at));
            return true;
        }
        let is_new = self.require(&id).accept(request_id);
        if is_new {
            self.commit += 1;
            self.post(&id, Message::Operation(Box::new(operation)), 0, true);
        }
        is_new
    }

    pub(super) fn operation(&mut self, request_id: &str, name: &str, sender: Sender) -> Operation {
        let (request_id, name) = (request_id.to_owned(), name.to_owned());
        Operation::new(request_id, name, None, sender, self.now, &mut self.ids)
    }

    /// Sends to an entity what another instance's turn decided.
    pub(super) fn send(&mut self, id: &str, message: Message) {
        self.commit += 1;
        self.post(&entity(id), message, 0, false);
    }

    /// The same, delivered.
    pub(super) fn bring(&mut self, id: &str, message: Message) {
        self.send(id, message);
        self.deliver_all();
    }

    /// An orchestration's call, delivered; its scheduling is 7.
    pub(super) fn call(&mut self, id: &str, caller: &Generation, request_id: &str, name: &str) {
        let (caller, scheduling) = (caller.clone(), 7);
        let operation = self.operation(request_id, name, Sender::Call { caller, scheduling });
        self.bring(id, Message::Operation(Box::new(operation)));
    }

    /// An orchestration's signal, delivered.
    pub(super) fn signal_from(
        &mut self,
        id: &str,
        sender: &Generation,
        request_id: &str,
        name: &str,
    ) {
        let operation = self.operation(request_id, name, Sender::Signal(sender.clone()));
        self.bring(id, Message::Operation(Box::new(operation)));
    }

    /// A request for locks, delivered along its set as far as it gets.
    pub(super) fn lock(&mut self, holder: &Generation, critical_section: &str, listed: &[&str]) {
        let (target, request) = lock_request(holder, critical_section, listed);
        self.bring(target.as_str(), request);
    }

    pub(super) fn unlock(&mut self, holder: &Generation, critical_section: &str, id: &str) {
        self.bring(id, unlock(holder, critical_section));
    }

    /// A generation ends: it is over for all to read, and these entities are told.
    pub(super) fn end(&mut self, generation: &Generation, entities: &[&str]) {
        self.over.insert(generation.clone());
        for id in entities {
            self.bring(id, Message::ReleaseLocks(generation.clone()));
        }
    }

    // ── messages and time ──

    fn post(&mut self, target: &InstanceId, message: Message, index: u16, is_own: bool) {
        let commit = self.commit;
        let node = self.nodes.entry(target.clone()).or_default();
        let position = Position { commit, index };
        assert!(node.mailbox.insert(position, message).is_none());
        node.coming.push_back((position, is_own));
    }

    /// Brings an entity its next message; false if there is none.
    pub(super) fn deliver(&mut self, id: &InstanceId) -> bool {
        let Some(node) = self.nodes.get_mut(id) else {
            return false;
        };
        let Some((position, _)) = node.coming.pop_front() else {
            return false;
        };
        let mut transition = Transition::default();
        self.arrive(id, position, &mut transition);
        self.turn(id, transition);
        true
    }

    /// What was slow to be stored is.
    pub(super) fn catch_up(&mut self) {
        self.is_slow = false;
        while let Some((target, message)) = self.late.pop_front() {
            self.send(target.as_str(), message);
        }
    }

    pub(super) fn deliver_all(&mut self) {
        let next = |nodes: &BTreeMap<InstanceId, Node>| {
            let found = nodes.iter().find(|(_, n)| !n.coming.is_empty());
            found.map(|(id, _)| id.clone())
        };
        while let Some(id) = next(&self.nodes) {
            self.deliver(&id);
        }
    }

    fn arrive(&mut self, id: &InstanceId, position: Position, transition: &mut Transition) {
        let now = self.now;
        let message = self.nodes[id].mailbox[&position].clone();
        let kept = message.clone();
        match self.require(id).arrive(position, message, now, transition) {
            Arrival::Queued => {}
            Arrival::Done => transition.removed.push(position),
            Arrival::Delayed(due) => {
                let Message::Operation(operation) = kept else {
                    panic!("{kept:?} is delayed");
                };
                self.keep_aside(id, due, *operation);
                transition.removed.push(position);
            }
        }
    }

    fn keep_aside(&mut self, id: &InstanceId, due: Timestamp, operation: Operation) {
        self.commit += 1;
        let node = self.nodes.entry(id.clone()).or_default();
        node.delayed.insert((due, self.commit), operation);
    }

    /// Lets time pass; what is due goes to its mailbox.
    pub(super) fn advance(&mut self, duration: Duration) {
        self.now = self.now.plus(duration);
        let ids: Vec<InstanceId> = self.nodes.keys().cloned().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).unwrap();
            let rest = node.delayed.split_off(&(self.now, u64::MAX));
            for operation in std::mem::replace(&mut node.delayed, rest).into_values() {
                self.commit += 1;
                let message = Message::Operation(Box::new(operation.scheduled(None)));
                self.post(&id, message, 0, true);
            }
        }
    }

    /// Forgets what was done more than a minute ago, as a host does now and then.
    pub(super) fn forget(&mut self, id: &str) {
        let mut transition = Transition::default();
        let now = self.now;
        self.live(id).forget_recent(now, &mut transition);
        self.turn(&entity(id), transition);
    }

    // ── workers ──

    /// Hands out the next batch; its operations, or nothing if nothing is due.
    pub(super) fn lease(&mut self, id: &str) -> Option<Vec<Operation>> {
        let node = self.nodes.get_mut(&entity(id))?;
        assert!(node.lease.is_none(), "'{id}' is leased already");
        let live = node.live.as_ref()?;
        let batch = live.next_batch(&self.limits);
        assert_eq!(batch.is_some(), live.has_work(), "'{id}'");
        let batch = batch?;
        let operations: Vec<_> = live.operations(&batch).cloned().collect();
        assert_eq!(operations.len(), batch.positions.len(), "'{id}'");
        assert!(operations.len() <= live.ready_len(), "'{id}'");
        node.lease = Some(batch);
        Some(operations)
    }

    /// Names of the operations of the next batch.
    pub(super) fn leased(&mut self, id: &str) -> Vec<String> {
        let operations = self.lease(id).unwrap_or_default();
        operations.into_iter().map(|o| o.name).collect()
    }

    /// The worker is lost with its batch, or gives it back.
    pub(super) fn lose_lease(&mut self, id: &str) {
        let id = entity(id);
        self.nodes.get_mut(&id).unwrap().lease = None;
        self.turn(&id, Transition::default());
    }

    /// The worker's answer; whether anything was done.
    pub(super) fn answer(&mut self, id: &str, result: BatchResult) -> bool {
        let id = entity(id);
        let node = self.nodes.get_mut(&id).unwrap();
        let batch = node.lease.take().expect("a batch is out");
        let live = node.live.as_mut().unwrap();
        let decision = live.complete(&batch, result, &self.limits, self.now, &mut self.ids);
        let (transition, is_done) = match decision {
            Decision::Done(transition) => (transition, true),
            Decision::Retry | Decision::Divide => (Transition::default(), false),
        };
        self.turn(&id, transition);
        is_done
    }

    /// One batch, answered as `result` says, with what it sends delivered; the names of its operations.
    pub(super) fn run(&mut self, id: &str, result: BatchResult) -> Vec<String> {
        let names = self.leased(id);
        assert!(!names.is_empty(), "nothing to run for '{id}'");
        self.answer(id, result);
        self.deliver_all();
        names
    }

    // ── turns ──

    /// Carries out what a turn decided, as a host does.
    pub(super) fn turn(&mut self, id: &InstanceId, mut transition: Transition) {
        self.commit += 1;
        let now = self.now;
        let over = std::mem::take(&mut self.over);
        let node = self.nodes.get_mut(id).unwrap();
        let is_idle = node.lease.is_none();
        let Some(live) = &mut node.live else {
            self.over = over;
            return;
        };
        live.settle(is_idle, &mut |g| over.contains(g), now, &mut transition);
        live.mark_head(&transition.removed);
        for position in &transition.removed {
            assert!(node.mailbox.remove(position).is_some(), "{position:?}");
        }
        if transition.is_state_changed {
            node.state.clone_from(&live.state);
        }
        let is_written = transition.is_changed || !transition.removed.is_empty();
        let is_quiet = transition.own_messages.is_empty() && !node.coming.iter().any(|c| c.1);
        if live.is_disposable() && is_quiet && is_written {
            (node.live, node.record, node.state) = (None, None, None);
        } else if is_written {
            node.record = Some(rmp_serde::to_vec(&live.record).unwrap());
        }
        self.over = over;
        let mut index = 0;
        for effect in transition.effects {
            let Effect::Send { target, message } = effect else {
                panic!("an entity asks for {effect:?}");
            };
            assert_ne!(&target, id, "an entity sends to itself by an effect");
            if message.is_for_entity() {
                assert!(target.is_entity());
                match message {
                    Message::Lock(_) if self.is_slow => self.late.push_back((target, message)),
                    message => self.post(&target, message, index, false),
                }
            } else {
                assert!(!target.is_entity());
                self.told.push_back((target, message));
            }
            index += 1;
        }
        for message in transition.own_messages {
            self.post(id, message, index, true);
            index += 1;
        }
        self.check(id);
    }

    // ── what can be seen ──

    pub(super) fn live(&mut self, id: &str) -> &mut Entity {
        let node = self.nodes.get_mut(&entity(id)).unwrap();
        node.live.as_mut().unwrap()
    }

    /// What a client sees; `None`: it has no state.
    pub(super) fn view(&self, id: &str) -> Option<View> {
        let live = self.nodes.get(&entity(id))?.live.as_ref()?;
        live.record.has_state.then(|| live.view(true))
    }

    /// The state; `None`: it has none.
    pub(super) fn state(&self, id: &str) -> Option<String> {
        self.view(id)?.state
    }

    pub(super) fn is_known(&self, id: &str) -> bool {
        let node = self.nodes.get(&entity(id));
        node.is_some_and(|n| n.live.is_some())
    }

    pub(super) fn locked_by(&self, id: &str) -> Option<String> {
        let live = self.nodes.get(&entity(id))?.live.as_ref()?;
        let holder = live.view(false).locked_by?;
        Some(holder.as_str().to_owned())
    }

    pub(super) fn take_told(&mut self) -> Vec<(InstanceId, Message)> {
        self.told.drain(..).collect()
    }
}
