//! An entity present in memory: its state, and what waits in its mailbox. One input at a time is decided by the pure machine; what it decided
//! goes into its partition's open batch, and is performed when that is durable.
//!
//! Like an orchestration's activation it never waits for anything and holds nothing that the store could not give back.

mod batch;
mod turn;
mod view;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use mainspring_core::entity::{Generation, Operation, Sender};
use mainspring_core::id::{InstanceKey, Position, execution_id};
use mainspring_core::message::Message;
use mainspring_core::time::Timestamp;
use mainspring_entities::{Arrival, Entity, Limits, Transition};
use mainspring_store::query;

use crate::activation::{Input, Numbered, Reply};
use crate::clock::{RandomIds, machine_time};
use crate::dispatch::{Class, Granted};
use crate::error::{Error, ErrorKind};
use crate::partition::{Passivated, Shared, Warm};
use crate::placement::partition_of;
use crate::resident::{Reload, Resident, Standing};
use batch::{Leased, Oversize};
use view::Viewer;

/// An entity with a state up to this many bytes stays in memory while it remembers requests.
const STAYS_BYTES_MAX: usize = 16 << 10;

/// When an entity that left memory has no request to remember any more, and its mailbox can be cleaned.
const REMEMBERED: Duration = Duration::from_secs(61);

/// Messages of a mailbox that are read at once.
const MAILBOX_PAGE: usize = 1_000;

/// Bytes of a work item that are left beside the largest state, for operations.
const OPERATION_ROOM: usize = 64 << 10;

/// One entity in memory.
pub(crate) struct EntityActor {
    key: InstanceKey,
    shared: Rc<Shared>,
    /// `None`: nothing is known of it (yet, or any more).
    entity: Option<Entity>,
    /// The last message found in the store when it was loaded: what is delivered up to here is known already.
    loaded: Position,
    /// Own messages decided and not yet durable.
    arriving: u32,
    /// Number of the batch with its last turn.
    last_turn: Option<u64>,
    /// The operations that are out.
    lease: Option<Leased>,
    standing: Standing,
    /// Its next operation is too large for ordinary streams.
    oversize: Option<Oversize>,
    /// Whether the store's list of what is to be looked at after a restart holds it.
    is_marked_busy: bool,
    /// Operations done so far.
    done: u64,
    /// Clients that wait for operations to be done (S-12.38).
    viewers: Vec<Viewer>,
    /// Number of the last operation that was kept aside.
    sequence: u64,
    /// Operations that became due and are still in the store: each with the number of the batch that removes it.
    due: VecDeque<(u64, Timestamp, u64)>,
}

impl EntityActor {
    pub(crate) fn new(key: InstanceKey, shared: Rc<Shared>) -> Self {
        Self {
            key,
            shared,
            entity: None,
            loaded: Position::default(),
            arriving: 0,
            last_turn: None,
            lease: None,
            standing: Standing::default(),
            oversize: None,
            is_marked_busy: false,
            done: 0,
            viewers: Vec::new(),
            sequence: 0,
            due: VecDeque::new(),
        }
    }

    fn limits(&self) -> Limits {
        let config = &self.shared.services.config;
        let limits = &config.limits;
        Limits {
            payload_bytes_max: limits.payload_bytes_max,
            state_bytes_max: limits
                .payload_bytes_max
                .min(limits.work_item_bytes_max.saturating_sub(OPERATION_ROOM)),
            batch_operations_max: config.entity_batch_max,
            work_item_bytes_max: limits.work_item_bytes_max,
        }
    }

    // ── what arrives ──

    /// A client's signal. It is in the mailbox, durable, before the client is told (S-12.37).
    fn signal(&mut self, operation: Operation, reply: Reply<()>) {
        let waiting = self.entity.as_ref().map_or(0, Entity::queue_len) + self.arriving as usize;
        let bytes = self.entity.as_ref().map_or(0, Entity::queue_bytes);
        let config = &self.shared.services.config;
        if waiting >= config.mailbox_messages_max || bytes >= config.entity_queue_bytes_max {
            let id = &self.key.instance;
            let message = format!(
                "entity '{id}' has {waiting} messages of {bytes} bytes waiting; it takes no more signals until it has worked on them"
            );
            return self.answer(reply, Err(Error::new(ErrorKind::Exhausted, message)));
        }
        if let Some(due) = operation
            .scheduled_at
            .filter(|due| *due > self.shared.now())
        {
            let kept = self.keep_aside_once(due, operation);
            return self.answer(reply, kept);
        }
        self.forget_recent();
        self.take_request(operation.scheduled(None));
        self.answer(reply, Ok(()));
    }

    /// Puts an operation into the own mailbox; not one of a client that was seen before.
    fn take_request(&mut self, operation: Operation) {
        let is_new = match operation.sender {
            Sender::Client => self.require_entity().accept(&operation.request_id),
            _ => true,
        };
        if is_new {
            self.receive_own(Message::Operation(Box::new(operation)));
            self.mark_busy();
        }
    }

    /// A request is recognised for a minute, however idle the entity is.
    fn forget_recent(&mut self) {
        let mut transition = Transition::default();
        if let Some(entity) = &mut self.entity {
            entity.forget_recent(self.shared.now(), &mut transition);
        }
        if !transition.removed.is_empty() {
            self.turn(transition);
        }
    }

    /// A message that another instance's commit put into the mailbox.
    fn delivered(&mut self, position: Position, message: Message) {
        // Its sender saw to that.
        self.is_marked_busy = true;
        self.came(position, message);
    }

    /// An own message is durable.
    fn arrived(&mut self, position: Position, message: Message) {
        self.arriving = self.arriving.saturating_sub(1);
        self.came(position, message);
    }

    fn came(&mut self, position: Position, message: Message) {
        let mut transition = Transition::default();
        // Otherwise it was found in the store already.
        if position > self.loaded {
            self.bring(position, message, &mut transition);
        }
        self.turn(transition);
        self.answer_viewers();
        self.consider(None);
    }

    fn bring(&mut self, position: Position, message: Message, transition: &mut Transition) {
        let now = self.shared.now();
        let delayed = match &message {
            Message::Operation(operation) if operation.scheduled_at.is_some() => {
                Some(operation.clone())
            }
            _ => None,
        };
        match self
            .require_entity()
            .arrive(position, message, now, transition)
        {
            Arrival::Queued => {}
            Arrival::Done => transition.removed.push(position),
            Arrival::Delayed(due) => {
                if let Some(operation) = delayed {
                    self.keep_aside(due, *operation);
                }
                transition.removed.push(position);
            }
        }
    }

    /// The entity, which begins with its first message.
    fn require_entity(&mut self) -> &mut Entity {
        let shared = &self.shared;
        let key = &self.key;
        self.entity.get_or_insert_with(|| {
            let execution_id = execution_id(&mut RandomIds);
            let entity = Entity::new(key.instance.clone(), execution_id, shared.now());
            shared.decide(|turns| turns.batch().put_entity(key, &entity.record));
            entity
        })
    }

    // ── what is not due yet ──

    /// A client's operation for later, unless it is a repetition.
    fn keep_aside_once(&mut self, due: Timestamp, operation: Operation) -> Result<(), Error> {
        let services = &self.shared.services;
        let read = services.store.read();
        let same_time = query::delayed_operations(&*read, self.shared.partition, &self.key, due)?;
        drop(read);
        let is_same = |kept: &Operation| {
            kept.sender == Sender::Client && kept.request_id == operation.request_id
        };
        if operation.request_id.is_empty() || !same_time.iter().any(is_same) {
            self.keep_aside(due, operation);
        }
        Ok(())
    }

    fn keep_aside(&mut self, due: Timestamp, operation: Operation) {
        self.sequence = (self.sequence + 1).max(machine_time().micros_down());
        let sequence = self.sequence;
        self.shared.decide(|turns| {
            turns
                .batch()
                .arm_operation(&self.key, due, sequence, &operation);
            turns.then(crate::turns::After::Arm {
                key: self.key.clone(),
                due,
                what: query::Due::Operation { sequence },
            });
        });
        self.note_turn();
    }

    fn operation_due(&mut self, due: Timestamp, sequence: u64) {
        let turns = self.shared.turns.borrow();
        self.due.retain(|(batch, ..)| !turns.is_durable(*batch));
        drop(turns);
        // A timer that was read from the store while it was armed fires twice.
        if self
            .due
            .iter()
            .any(|(_, at, number)| (*at, *number) == (due, sequence))
        {
            return;
        }
        let read = self.shared.services.store.read();
        let partition = self.shared.partition;
        let found = query::delayed_operation(&*read, partition, &self.key, due, sequence);
        drop(read);
        match found {
            Ok(found) => {
                // Without an operation the timer goes all the same: it would come back with every restart.
                self.shared.decide(|turns| {
                    turns.batch().disarm_operation(&self.key, due, sequence);
                });
                let batch = self.shared.turns.borrow().sequence();
                self.due.push_back((batch, due, sequence));
                let Some(operation) = found else {
                    return self.note_turn();
                };
                self.take_request(operation.scheduled(None));
                self.note_turn();
            }
            Err(error) => self
                .span()
                .in_scope(|| tracing::error!(%error, "a delayed operation cannot be read")),
        }
    }

    // ── leaving memory ──

    fn is_idle(&self) -> bool {
        self.lease.is_none()
            && self.standing.backing_off.is_none()
            && self.oversize.is_none()
            && self.arriving == 0
            && self.viewers.is_empty()
            && self
                .last_turn
                .is_none_or(|turn| self.shared.turns.borrow().is_durable(turn))
    }

    fn purge(&mut self, reply: Reply<bool>) {
        let is_free = self.lease.is_none() && self.arriving == 0;
        let exists = self
            .entity
            .as_ref()
            .is_some_and(|e| e.record.has_state || !e.is_queue_empty());
        let purged = match &mut self.entity {
            Some(entity) if is_free && exists => entity.purge(self.shared.now()),
            _ => None,
        };
        let was_purged = purged.is_some();
        if let Some(transition) = purged {
            self.turn(transition);
            self.answer_viewers();
        }
        self.answer(reply, Ok(was_purged));
    }

    /// Answers once all that was decided before is durable.
    fn answer<T: 'static>(&self, reply: Reply<T>, answer: Result<T, Error>) {
        self.shared.answer(move || drop(reply.send(answer)));
    }
}

/// Whether a generation is over, by what is committed of it (S-12.28).
fn is_over(shared: &Shared, key: &InstanceKey, generation: &Generation) -> bool {
    let holder = InstanceKey {
        hub: key.hub,
        instance: generation.instance.clone(),
    };
    let partition = partition_of(&holder, shared.services.placement().count());
    match query::record(&*shared.services.store.read(), partition, &holder) {
        Ok(Some(record)) => {
            record.status.is_terminal() || record.execution_id != generation.execution_id
        }
        Ok(None) => true,
        Err(error) => {
            tracing::error!(%error, instance = %holder.instance, "a holder of locks cannot be read");
            false
        }
    }
}

impl Actor for EntityActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.load_or_note_damage();
    }
}

impl Handler<Numbered> for EntityActor {
    type Result = ();

    fn handle(&mut self, numbered: Numbered, context: &mut Self::Context) {
        self.take(numbered, context);
    }
}

impl Resident for EntityActor {
    const KIND: &'static str = "entity";

    fn anew(key: InstanceKey, shared: Rc<Shared>) -> Self {
        Self::new(key, shared)
    }

    fn key(&self) -> &InstanceKey {
        &self.key
    }

    fn shared(&self) -> &Rc<Shared> {
        &self.shared
    }

    fn standing(&mut self) -> &mut Standing {
        &mut self.standing
    }

    fn span(&self) -> tracing::Span {
        let hub = self.shared.services.hub_name(self.key.hub);
        tracing::info_span!("entity", hub, instance = %self.key.instance)
    }

    fn load(&mut self) -> Result<(), Error> {
        let shared = Rc::clone(&self.shared);
        let (services, partition) = (&shared.services, shared.partition);
        let warm = services.cache.take_warm_entity(&self.key);
        let read = services.store.read();
        self.is_marked_busy = query::is_busy(&*read, partition, &self.key)?;
        self.entity = match warm {
            Some(warm) => {
                services.metrics.warm_hits.add(1);
                Some(Arc::unwrap_or_clone(warm))
            }
            None => match query::entity(&*read, partition, &self.key)? {
                None => None,
                Some(record) => {
                    services.metrics.warm_misses.add(1);
                    let state = query::entity_state(&*read, partition, &self.key)?;
                    if record.has_state != state.is_some() {
                        let message = format!(
                            "the stored state of entity '{}' does not go with its record",
                            self.key.instance
                        );
                        return Err(Error::new(ErrorKind::Internal, message));
                    }
                    let id = self.key.instance.clone();
                    Some(Entity::restore(id, record, state))
                }
            },
        };
        let before = self
            .entity
            .as_ref()
            .map_or(Position::default(), |e| e.record.mailbox_head);
        let mut transition = Transition::default();
        let mut after = before;
        loop {
            let page = query::mailbox(&*read, partition, &self.key, after, MAILBOX_PAGE)?;
            let is_last = page.len() < MAILBOX_PAGE;
            for (position, message) in page {
                after = position;
                self.loaded = position;
                self.bring(position, message, &mut transition);
            }
            if is_last {
                break;
            }
        }
        drop(read);
        self.turn(transition);
        self.note_queued();
        Ok(())
    }

    fn decide(&mut self, input: Input) {
        match input {
            Input::Signal { operation, reply } => self.signal(*operation, reply),
            Input::ViewEntity {
                include_state,
                reply,
            } => self.view(include_state, reply),
            Input::ViewExpired { number } => self.view_expired(number),
            Input::PurgeEntity { reply } => self.purge(reply),
            Input::Granted(granted) => self.granted(granted),
            Input::BatchDone {
                token,
                result,
                reply,
            } => self.batch_done(token, *result, reply),
            Input::LeaseLost {
                token,
                avoid,
                is_given_back,
            } => self.lease_lost(token, avoid, is_given_back),
            Input::Recover { .. } => {
                self.forget_recent();
                self.mark_busy();
                self.consider(None);
            }
            Input::Delivered { position, message } => self.delivered(position, message),
            Input::Arrived { position, message } => self.arrived(position, message),
            Input::OperationDue { due, sequence } => self.operation_due(due, sequence),
            Input::Retry { number, avoid } => self.rested(number, avoid),
            Input::OversizeExpired { waiting } => self.oversize_expired(waiting),
            Input::Passivate => {}
            other => other.fail(Error::invalid(format!(
                "'{}' is an entity, not an orchestration instance",
                self.key.instance
            ))),
        }
    }

    fn passivate(&mut self, number: u64) {
        self.forget_recent();
        let leaves = self.is_idle().then(|| match &self.entity {
            // Otherwise it is read anew, with its mailbox.
            Some(entity) if entity.is_queue_empty() && !entity.has_recent() => {
                let bytes = 512 + entity.state.as_ref().map_or(0, String::len);
                Warm::Entity(Arc::new(entity.clone()), bytes)
            }
            _ => Warm::Nothing,
        });
        let is_remembering = self.entity.as_ref().is_some_and(Entity::has_recent);
        let state_bytes = self
            .entity
            .as_ref()
            .map_or(0, |e| e.state.as_ref().map_or(0, String::len));
        // One that still remembers requests stays if it is small, so as not to be read again for each.
        let stays =
            is_remembering && !self.shared.is_crowded.get() && state_bytes <= STAYS_BYTES_MAX;
        let leaves = leaves.filter(|_| !stays);
        if is_remembering && leaves.is_some() {
            let until = 0;
            self.shared
                .later(&self.key, REMEMBERED, Input::Recover { until });
        }
        self.shared.address().do_send(Passivated {
            key: self.key.clone(),
            number,
            leaves,
        });
    }

    fn has_work(&self) -> bool {
        self.lease.is_none() && self.entity.as_ref().is_some_and(Entity::has_work)
    }

    fn next_class(&mut self) -> Option<Class> {
        self.forget_oversize_unless_next();
        Some(self.class())
    }

    fn hand_out(&mut self, granted: Granted) {
        self.hand_out_batch(granted);
    }
}

impl Handler<Reload> for EntityActor {
    type Result = ();

    fn handle(&mut self, _: Reload, context: &mut Self::Context) {
        self.reload(context);
    }
}
