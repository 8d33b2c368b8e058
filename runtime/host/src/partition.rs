//! A partition: the single writer of its slice of the key space. Starts activations on demand, groups their turns into commits,
//! and fires timers.
//!
//! Everything of one partition runs on one thread: the actor, its activations and what they share. Nothing here waits for the disk;
//! the committer thread tells when a batch is durable.

mod rest;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message as ActorMessage,
    SpawnHandle, WrapFuture,
};
use mainspring_core::id::{HubId, InstanceId, InstanceKey, PartitionId};
use mainspring_core::message::Message;
use mainspring_core::orchestration::{Orchestration, Status, View};
use mainspring_core::time::Timestamp;
use mainspring_entities::Entity;
use mainspring_store::query::{self, Due};
use mainspring_store::{BATCH_MESSAGES_MAX, Cache, Committer, Epoch, Store};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::activation::{ActivationActor, EarlyMessages, Input, Numbered};
use crate::completion::CompletionClock;
use crate::config::HostConfig;
use crate::dispatch::{Dispatch, Granted};
use crate::entity::EntityActor;
use crate::error::{Error, ErrorKind};
use crate::hubs::Hubs;
use crate::metrics::Metrics;
use crate::perform::{Committed, Performer};
use crate::placement::{Placement, partition_of};
use crate::timers::TimerWindow;
use crate::turns::{After, Turns};
pub(crate) use rest::{Look, Looked, Rests, TimeMoved};

/// What all partitions of one scheduler share.
pub(crate) struct Services {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) committer: Committer,
    /// This process's ownership of each partition.
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) cache: Cache,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) placement: OnceLock<Arc<Placement>>,
    pub(crate) performer: OnceLock<Addr<Performer>>,
    pub(crate) completed: CompletionClock,
    pub(crate) config: HostConfig,
    /// The runtime of the network side, for what comes due later.
    pub(crate) runtime: Handle,
    pub(crate) hubs: OnceLock<Arc<Hubs>>,
    pub(crate) started_at: Instant,
    pub(crate) is_stopping: AtomicBool,
    /// Stops the process: what is in memory can no longer be trusted.
    pub(crate) fatal: Arc<dyn Fn(mainspring_store::Error) + Send + Sync>,
}

impl Services {
    fn performer(&self) -> &Addr<Performer> {
        self.performer
            .get()
            .expect("the performer starts before the first input")
    }

    /// A hub's name for logs; its number when it has none any more.
    pub(crate) fn hub_name(&self, hub: HubId) -> String {
        let name = self.hubs.get().and_then(|hubs| hubs.name_of(hub));
        name.unwrap_or_else(|| format!("#{}", hub.0))
    }

    /// A fault that is not one instance's alone.
    pub(crate) fn fail(&self, text: String) {
        (self.fatal)(mainspring_store::Error::Panicked(text));
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// The time by the scheduler's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    pub(crate) fn placement(&self) -> &Placement {
        self.placement
            .get()
            .expect("placement is set before the first input")
    }
}

/// What a wait is for (S-11.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Started,
    Completed,
}

impl Until {
    pub(crate) fn is_met_by(self, status: Status) -> bool {
        match self {
            Until::Started => status != Status::Pending,
            Until::Completed => status.is_terminal(),
        }
    }
}

/// Somebody waiting for an instance, which may not exist yet (S-11.6).
pub(crate) struct Waiter {
    pub(crate) until: Until,
    pub(crate) include_payloads: bool,
    pub(crate) reply: oneshot::Sender<View>,
}

/// What the activations of a partition share with it.
pub(crate) struct Shared {
    pub(crate) partition: PartitionId,
    pub(crate) services: Arc<Services>,
    pub(crate) turns: RefCell<Turns>,
    pub(crate) waiters: RefCell<HashMap<InstanceKey, Vec<Waiter>>>,
    /// Numbers of inputs routed to activations and not yet decided.
    undecided: RefCell<BTreeSet<u64>>,
    /// Barriers that wait for the inputs below their number.
    barriers: RefCell<VecDeque<(u64, oneshot::Sender<()>)>>,
    /// There are more activations than there should be: idle ones leave at once.
    pub(crate) is_crowded: Cell<bool>,
    /// Instances that wait out a back-off.
    pub(crate) rests: Rests,
    /// Messages that are with a worker before they are durable.
    pub(crate) early: RefCell<EarlyMessages>,
    address: OnceLock<Addr<PartitionActor>>,
}

impl Shared {
    pub(crate) fn address(&self) -> &Addr<PartitionActor> {
        self.address.get().expect("the partition has started")
    }

    /// The time by the scheduler's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.services.now()
    }

    /// Adds to the open batch and sees to it that it is flushed. The flush is a message behind all that already waits here,
    /// so a busy partition batches by itself and an idle one commits at once.
    pub(crate) fn decide<T>(&self, decision: impl FnOnce(&mut Turns) -> T) -> T {
        let mut turns = self.turns.borrow_mut();
        let was_empty = turns.is_empty();
        let decided = decision(&mut turns);
        if was_empty && !turns.is_empty() {
            self.address().do_send(Flush);
        }
        decided
    }

    /// Makes a message durable in the mailbox of another instance, and tells it then.
    pub(crate) fn send(&self, hub: HubId, target: InstanceId, message: Message) {
        let target = InstanceKey {
            hub,
            instance: target,
        };
        let partition = partition_of(&target, self.services.placement().count());
        self.decide(|turns| {
            let index = turns
                .batch()
                .put_message(partition, &target, &message, true);
            turns.then(After::Deliver {
                target,
                index,
                message,
            });
        });
    }

    /// Makes a message durable in the mailbox of an instance of this partition, which asks for it itself, and hands it over then.
    pub(crate) fn receive_own(&self, key: &InstanceKey, message: Message) {
        self.decide(|turns| {
            let index = turns
                .batch()
                .put_message(self.partition, key, &message, false);
            turns.then(After::Arrive {
                key: key.clone(),
                index,
                message,
            });
        });
    }

    /// Hands an input to an instance when `delay` is over.
    pub(crate) fn later(&self, key: &InstanceKey, delay: Duration, input: Input) {
        let services = Arc::clone(&self.services);
        let key = key.clone();
        services.runtime.clone().spawn(async move {
            tokio::time::sleep(delay).await;
            services.placement().send(key, input);
        });
    }

    /// Whether the open batch holds whole turns only; after a panic that may be otherwise.
    pub(crate) fn is_whole(&self) -> bool {
        self.turns.try_borrow().is_ok_and(|turns| turns.is_whole())
    }

    /// Decides one input of an instance; `granted`: the place on a stream that came with it. False: it panicked, and the instance has to be
    /// loaded again. A panic that left half a turn in the open batch stops the process.
    pub(crate) fn guard(
        &self,
        key: &InstanceKey,
        granted: Option<Granted>,
        decide: impl FnOnce(),
    ) -> bool {
        self.make_room();
        self.turns.borrow_mut().mark_whole();
        if catch_unwind(AssertUnwindSafe(decide)).is_ok() {
            return true;
        }
        let (hub, instance) = (self.services.hub_name(key.hub), &key.instance);
        tracing::error!(hub, %instance, "an input could not be decided; the instance is loaded again");
        let forget = || self.services.dispatch.forget_instance(key, granted);
        let is_forgotten = catch_unwind(AssertUnwindSafe(forget)).is_ok();
        if !self.is_whole() || !is_forgotten {
            let text = format!("a turn of instance {instance} was left half-way");
            self.services.fail(text);
        }
        false
    }

    /// Before a turn: sees to it that the open batch can take all messages of one.
    fn make_room(&self) {
        if self.turns.borrow().messages() > BATCH_MESSAGES_MAX / 2 {
            self.flush();
        }
    }

    /// Submits the open batch.
    fn flush(&self) {
        let Some(batch) = self.turns.borrow_mut().flush() else {
            return;
        };
        let performer = self.services.performer().clone();
        let partition = self.partition;
        let done = move |commit| performer.do_send(Committed { partition, commit });
        self.services.committer.submit(batch, Box::new(done));
    }

    /// Answers once everything decided so far is durable; at once when it is.
    pub(crate) fn answer(&self, reply: impl FnOnce() + 'static) {
        if self.turns.borrow().is_settled() {
            reply();
        } else {
            self.decide(|turns| turns.then(After::Answer(Box::new(reply))));
        }
    }

    /// An activation has decided the input with this number.
    pub(crate) fn decided(&self, number: u64) {
        self.undecided.borrow_mut().remove(&number);
        self.release_barriers();
    }

    fn release_barriers(&self) {
        if self.barriers.borrow().is_empty() {
            return;
        }
        let first = self.undecided.borrow().first().copied().unwrap_or(u64::MAX);
        loop {
            let mut barriers = self.barriers.borrow_mut();
            if barriers.front().is_none_or(|(number, _)| *number > first) {
                return;
            }
            let reply = barriers.pop_front().map(|(_, reply)| reply);
            drop(barriers);
            if let Some(reply) = reply {
                self.answer(move || {
                    let _ = reply.send(());
                });
            }
        }
    }
}

/// An instance in memory, of either kind.
enum Activation {
    Orchestration(Addr<ActivationActor>),
    Entity(Addr<EntityActor>),
}

impl Activation {
    fn start(key: &InstanceKey, shared: &Rc<Shared>) -> Self {
        let (key, shared) = (key.clone(), Rc::clone(shared));
        match key.instance.is_entity() {
            true => Self::Entity(EntityActor::new(key, shared).start()),
            false => Self::Orchestration(ActivationActor::new(key, shared).start()),
        }
    }

    fn send(&self, numbered: Numbered) {
        match self {
            Self::Orchestration(address) => address.do_send(numbered),
            Self::Entity(address) => address.do_send(numbered),
        }
    }
}

struct Slot {
    activation: Activation,
    /// Number of the last input routed to it.
    last_input: u64,
    touched: Instant,
    /// The passivation asked for and not answered yet: number of the input it was asked at.
    is_leaving: bool,
}

/// Pause after timers could not be read.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// The actor that owns a partition.
pub(crate) struct PartitionActor {
    shared: Rc<Shared>,
    activations: HashMap<InstanceKey, Slot>,
    timers: TimerWindow,
    next_input: u64,
    /// The timer that fires when the next due one does.
    alarm: Option<(Timestamp, SpawnHandle)>,
    /// A page of timers is about to be read.
    is_reloading: bool,
    /// Hub incarnations that are over: nothing of them is decided any more.
    retired: HashSet<HubId>,
}

impl PartitionActor {
    pub(crate) fn new(
        partition: PartitionId,
        services: Arc<Services>,
        retired: HashSet<HubId>,
    ) -> Self {
        let epoch = services.epochs[usize::from(partition.0)];
        let early = EarlyMessages::new(services.epochs.len());
        let shared = Shared {
            partition,
            services,
            turns: RefCell::new(Turns::new(partition, epoch)),
            waiters: RefCell::default(),
            undecided: RefCell::default(),
            barriers: RefCell::default(),
            is_crowded: Cell::new(false),
            rests: Rests::default(),
            early: RefCell::new(early),
            address: OnceLock::new(),
        };
        Self {
            shared: Rc::new(shared),
            activations: HashMap::new(),
            timers: TimerWindow::default(),
            next_input: 0,
            alarm: None,
            is_reloading: false,
            retired,
        }
    }

    /// What it shares with its activations and with the performer.
    pub(crate) fn shared(&self) -> Rc<Shared> {
        Rc::clone(&self.shared)
    }

    fn route(&mut self, key: InstanceKey, input: Input) {
        if self.retired.contains(&key.hub) {
            return input.fail(Error::new(
                ErrorKind::Unavailable,
                "the task hub was deleted or begun anew; nothing was applied",
            ));
        }
        let number = self.next_input;
        self.next_input += 1;
        self.shared.undecided.borrow_mut().insert(number);
        let shared = &self.shared;
        let slot = self.activations.entry(key).or_insert_with_key(|key| {
            shared.services.metrics.activations.add(1);
            Slot {
                activation: Activation::start(key, shared),
                last_input: number,
                touched: Instant::now(),
                is_leaving: false,
            }
        });
        slot.last_input = number;
        if !input.is_housekeeping() {
            slot.touched = Instant::now();
        }
        slot.activation.send(Numbered { number, input });
    }

    fn fire_due(&mut self, context: &mut Context<Self>) {
        let now = self.shared.now();
        for (at, key, what) in self.timers.due(now) {
            let lateness = &self.shared.services.metrics.lateness;
            lateness.note_time(now.since(at));
            let input = match what {
                Due::Timer(timer) => Input::TimerDue(timer),
                Due::Start { generation } => Input::StartDue { at, generation },
                Due::Operation { sequence } => Input::OperationDue { due: at, sequence },
            };
            self.route(key, input);
        }
        if self.timers.wants_more() && !self.is_reloading {
            self.is_reloading = true;
            // What was fired has left the store by then, and is not read again.
            let (reply, fired) = oneshot::channel();
            self.barrier(reply);
            let reload = async move { fired.await.is_ok() }.into_actor(self);
            context.spawn(reload.map(|_, actor, context| actor.reload(context)));
        }
        self.set_alarm(context);
    }

    /// Reads the next page of timers.
    fn reload(&mut self, context: &mut Context<Self>) {
        let partition = self.shared.partition;
        let from = query::TimerKey::first_at(partition, self.timers.horizon());
        let page = query::timers(
            &*self.shared.services.store.read(),
            partition,
            Some(&from),
            TimerWindow::PAGE,
        );
        match page {
            Ok(page) => {
                self.timers.load(page);
                self.is_reloading = false;
                self.fire_due(context);
            }
            Err(error) => {
                tracing::error!(%error, partition = partition.0, "timers cannot be read");
                context.run_later(RELOAD_PAUSE, Self::reload);
            }
        }
    }

    fn barrier(&mut self, reply: oneshot::Sender<()>) {
        self.shared
            .barriers
            .borrow_mut()
            .push_back((self.next_input, reply));
        self.shared.release_barriers();
    }

    fn set_alarm(&mut self, context: &mut Context<Self>) {
        let Some(next) = self.timers.next() else {
            return;
        };
        let now = self.shared.now();
        if let Some((at, handle)) = self.alarm {
            if at <= next && at > now {
                return;
            }
            context.cancel_future(handle);
            self.alarm = None;
        }
        let wait = next.since(now);
        // However long is slept, a virtual clock stands still: whoever moves it says so.
        if !wait.is_zero() && self.shared.services.config.clock.is_virtual() {
            return;
        }
        let handle = context.run_later(wait, |actor, context| {
            actor.alarm = None;
            actor.fire_due(context);
        });
        self.alarm = Some((next, handle));
    }

    /// Has early messages saved: all, or those that have waited for their episodes long enough.
    fn save_early(&mut self, are_all: bool) {
        let expired = self.shared.early.borrow_mut().expired(are_all);
        for key in expired {
            self.route(key, Input::EarlyExpired);
        }
    }

    /// Once a second: idle activations are asked to leave, early messages that have waited for a whole second are saved, the timers' window
    /// is topped up, waiters whose callers gave up are dropped.
    fn sweep(&mut self, context: &mut Context<Self>) {
        let config = &self.shared.services.config;
        let is_crowded = self.activations.len() > config.activations_max;
        self.shared.is_crowded.set(is_crowded);
        let idle: Vec<InstanceKey> = self
            .activations
            .iter()
            .filter(|(_, slot)| {
                !slot.is_leaving && (is_crowded || slot.touched.elapsed() >= config.passivate_after)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            if let Some(slot) = self.activations.get_mut(&key) {
                slot.is_leaving = true;
            }
            self.route(key, Input::Passivate);
        }
        self.save_early(false);
        self.shared.waiters.borrow_mut().retain(|_, waiters| {
            waiters.retain(|w| !w.reply.is_closed());
            !waiters.is_empty()
        });
        self.fire_due(context);
    }
}

impl Drop for PartitionActor {
    /// An actor ends before its time only by a panic. Its instances would be unreachable, and reads would wait for ever.
    fn drop(&mut self) {
        let services = &self.shared.services;
        if !services.is_stopping() {
            services.fail(format!("partition {} ended", self.shared.partition.0));
        }
    }
}

impl Actor for PartitionActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        assert!(
            self.shared.address.set(context.address()).is_ok(),
            "a partition starts once"
        );
        context.run_interval(Duration::from_secs(1), Self::sweep);
        self.fire_due(context);
    }
}

/// An input for one instance.
pub(crate) struct Routed {
    pub(crate) key: InstanceKey,
    pub(crate) input: Input,
}

impl ActorMessage for Routed {
    type Result = ();
}

impl Handler<Routed> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Routed { key, input }: Routed, _: &mut Self::Context) {
        self.route(key, input);
    }
}

/// Submit the open batch.
struct Flush;

impl ActorMessage for Flush {
    type Result = ();
}

impl Handler<Flush> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.shared.flush();
    }
}

/// A timer or a scheduled start that is durable now.
pub(crate) struct Arm {
    pub(crate) key: InstanceKey,
    pub(crate) due: Timestamp,
    pub(crate) what: Due,
}

impl ActorMessage for Arm {
    type Result = ();
}

impl Handler<Arm> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Arm { key, due, what }: Arm, context: &mut Self::Context) {
        self.timers.arm(due, key, what);
        self.set_alarm(context);
    }
}

/// Answers when all inputs routed before it are decided and durable (S-0.6).
pub(crate) struct Barrier {
    pub(crate) reply: oneshot::Sender<()>,
}

impl ActorMessage for Barrier {
    type Result = ();
}

impl Handler<Barrier> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Barrier { reply }: Barrier, _: &mut Self::Context) {
        if self.shared.services.is_stopping() {
            // No worker is waited for any more.
            self.save_early(true);
        }
        self.barrier(reply);
    }
}

/// A hub incarnation is over.
pub(crate) struct Retire {
    pub(crate) hub: HubId,
}

impl ActorMessage for Retire {
    type Result = ();
}

impl Handler<Retire> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Retire { hub }: Retire, _: &mut Self::Context) {
        self.retired.insert(hub);
        // What was routed to them is still decided; then their actors end.
        let before = self.activations.len();
        self.activations.retain(|key, _| key.hub != hub);
        let ended = before - self.activations.len();
        let metrics = &self.shared.services.metrics;
        metrics.activations.subtract(ended as u64);
        self.shared
            .waiters
            .borrow_mut()
            .retain(|key, _| key.hub != hub);
    }
}

/// An idle activation's answer to [`Input::Passivate`].
pub(crate) struct Passivated {
    pub(crate) key: InstanceKey,
    /// Number of the input it answers.
    pub(crate) number: u64,
    /// Its state, to be kept warm; `None` stays: it has something to do after all.
    pub(crate) leaves: Option<Warm>,
}

/// State that leaves memory with its actor.
pub(crate) enum Warm {
    /// There was no such instance.
    Nothing,
    State(Arc<Orchestration>, usize),
    Entity(Arc<Entity>, usize),
}

impl ActorMessage for Passivated {
    type Result = ();
}

impl Handler<Passivated> for PartitionActor {
    type Result = ();

    fn handle(
        &mut self,
        Passivated {
            key,
            number,
            leaves,
        }: Passivated,
        _: &mut Self::Context,
    ) {
        let Some(slot) = self.activations.get_mut(&key) else {
            return;
        };
        slot.is_leaving = false;
        let Some(warm) = leaves else {
            slot.touched = Instant::now();
            return;
        };
        // An input came in between: it stays, with the state it has.
        if slot.last_input != number {
            return;
        }
        // Dropping the last address stops the actor.
        self.activations.remove(&key);
        self.shared.services.metrics.activations.subtract(1);
        let cache = &self.shared.services.cache;
        match warm {
            Warm::Nothing => {}
            Warm::State(state, bytes) => cache.put_warm(key, state, bytes),
            Warm::Entity(entity, bytes) => cache.put_warm_entity(key, entity, bytes),
        }
    }
}
