//! A partition: the single writer of its slice of the key space. Starts activations on demand, groups their turns into commits,
//! performs what each commit allows, and fires timers.
//!
//! Everything of one partition runs on one thread: the actor, its activations and what they share. Nothing here waits for the disk;
//! the committer thread tells when a batch is durable.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message as ActorMessage, SpawnHandle};
use mainspring_core::id::{InstanceKey, PartitionId, Position};
use mainspring_core::orchestration::{Orchestration, Status, View};
use mainspring_store::query::{self, Due};
use mainspring_store::{Cache, Committer, Epoch, Store};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::activation::{ActivationActor, Input, Numbered};
use crate::clock::{self, RandomIds};
use crate::completion::CompletionClock;
use crate::config::HostConfig;
use crate::dispatch::Dispatch;
use crate::placement::{Placement, partition_of};
use crate::timers::TimerWindow;
use crate::turns::{After, Turns};

/// What all partitions of one scheduler share.
pub(crate) struct Services {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) committer: Committer,
    /// This process's ownership of each partition.
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) cache: Cache,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) placement: OnceLock<Arc<Placement>>,
    pub(crate) completed: CompletionClock,
    pub(crate) config: HostConfig,
    /// The runtime of the network side, for what comes due later.
    pub(crate) runtime: Handle,
}

impl Services {
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
    pub(crate) ids: RefCell<RandomIds>,
    /// Numbers of inputs routed to activations and not yet decided.
    undecided: RefCell<BTreeSet<u64>>,
    /// Barriers that wait for the inputs below their number.
    barriers: RefCell<VecDeque<(u64, oneshot::Sender<()>)>>,
    address: OnceLock<Addr<PartitionActor>>,
}

impl Shared {
    pub(crate) fn address(&self) -> &Addr<PartitionActor> {
        self.address.get().expect("the partition has started")
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

struct Slot {
    address: Addr<ActivationActor>,
    /// Number of the last input routed to it.
    last_input: u64,
    touched: Instant,
    /// The passivation asked for and not answered yet: number of the input it was asked at.
    is_leaving: bool,
}

/// Pause before the next page of due timers is read: the last page's firings reach the store meanwhile, and are not read again.
const RELOAD_PAUSE: Duration = Duration::from_millis(5);

/// The actor that owns a partition.
pub(crate) struct PartitionActor {
    shared: Rc<Shared>,
    activations: HashMap<InstanceKey, Slot>,
    timers: TimerWindow,
    next_input: u64,
    /// The timer that fires when the next due one does.
    alarm: Option<(mainspring_core::time::Timestamp, SpawnHandle)>,
}

impl PartitionActor {
    pub(crate) fn new(partition: PartitionId, services: Arc<Services>) -> Self {
        let epoch = services.epochs[usize::from(partition.0)];
        let shared = Shared {
            partition,
            services,
            turns: RefCell::new(Turns::new(partition, epoch)),
            waiters: RefCell::default(),
            ids: RefCell::default(),
            undecided: RefCell::default(),
            barriers: RefCell::default(),
            address: OnceLock::new(),
        };
        Self {
            shared: Rc::new(shared),
            activations: HashMap::new(),
            timers: TimerWindow::default(),
            next_input: 0,
            alarm: None,
        }
    }

    fn route(&mut self, key: InstanceKey, input: Input) {
        let number = self.next_input;
        self.next_input += 1;
        self.shared.undecided.borrow_mut().insert(number);
        let shared = &self.shared;
        let slot = self.activations.entry(key).or_insert_with_key(|key| Slot {
            address: ActivationActor::new(key.clone(), Rc::clone(shared)).start(),
            last_input: number,
            touched: Instant::now(),
            is_leaving: false,
        });
        slot.last_input = number;
        if !input.is_housekeeping() {
            slot.touched = Instant::now();
        }
        slot.address.do_send(Numbered { number, input });
    }

    fn perform(&mut self, after: After, commit: u64, context: &mut Context<Self>) {
        match after {
            After::Arm { key, due, what } => {
                self.timers.arm(due, key, what);
                self.set_alarm(context);
            }
            After::Deliver {
                target,
                index,
                message,
            } => {
                let input = Input::Delivered {
                    position: Position { commit, index },
                    message,
                };
                // The own partition's messages go the same way as others': behind what already waits.
                let services = &self.shared.services;
                if partition_of(&target, services.placement().count()) == self.shared.partition {
                    self.route(target, input);
                } else {
                    services.placement().send(target, input);
                }
            }
            After::Schedule { key, task } => self.shared.services.dispatch.schedule(key, task),
            After::Arrive {
                key,
                index,
                message,
            } => self.route(
                key,
                Input::Arrived {
                    position: Position { commit, index },
                    message,
                },
            ),
            After::Pinned { key } => self.route(key, Input::Pinned),
            After::Answer(answer) => answer(),
        }
    }

    fn fire_due(&mut self, context: &mut Context<Self>) {
        let now = clock::now();
        if self.timers.wants_more() {
            let partition = self.shared.partition;
            let from = query::TimerKey::first_at(partition, self.timers.horizon());
            let page = query::timers(
                &*self.shared.services.store.read(),
                partition,
                Some(&from),
                TimerWindow::PAGE,
            );
            match page {
                Ok(page) => self.timers.load(page),
                Err(error) => {
                    tracing::error!(%error, partition = self.shared.partition.0, "timers cannot be read")
                }
            }
        }
        for (at, key, what) in self.timers.due(now) {
            let input = match what {
                Due::Timer(timer) => Input::TimerDue(timer),
                Due::Start { generation } => Input::StartDue { at, generation },
            };
            self.route(key, input);
        }
        if self.timers.wants_more() {
            context.run_later(RELOAD_PAUSE, Self::fire_due);
        }
        self.set_alarm(context);
    }

    fn set_alarm(&mut self, context: &mut Context<Self>) {
        let Some(next) = self.timers.next() else {
            return;
        };
        if let Some((at, handle)) = self.alarm {
            if at <= next && at > clock::now() {
                return;
            }
            context.cancel_future(handle);
        }
        let wait = next.since(clock::now());
        let handle = context.run_later(wait, |actor, context| {
            actor.alarm = None;
            actor.fire_due(context);
        });
        self.alarm = Some((next, handle));
    }

    /// Once a second: idle activations are asked to leave, the timers' window is topped up, waiters whose callers gave up are dropped.
    fn sweep(&mut self, context: &mut Context<Self>) {
        let config = &self.shared.services.config;
        let is_crowded = self.activations.len() > config.activations_max;
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
        self.shared.waiters.borrow_mut().retain(|_, waiters| {
            waiters.retain(|w| !w.reply.is_closed());
            !waiters.is_empty()
        });
        self.fire_due(context);
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

    fn handle(&mut self, _: Flush, context: &mut Self::Context) {
        let Some(batch) = self.shared.turns.borrow_mut().flush() else {
            return;
        };
        let address = context.address();
        self.shared.services.committer.submit(
            batch,
            Box::new(move |result| address.do_send(Committed { commit: result })),
        );
    }
}

/// The oldest batch in flight is durable, or refused.
struct Committed {
    commit: Result<u64, mainspring_store::Error>,
}

impl ActorMessage for Committed {
    type Result = ();
}

impl Handler<Committed> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Committed { commit }: Committed, context: &mut Self::Context) {
        let after = self.shared.turns.borrow_mut().committed();
        match commit {
            Ok(commit) => {
                for after in after {
                    self.perform(after, commit, context);
                }
            }
            // Another owner has taken over: nothing of this is performed, and callers see their answers dropped as unavailable.
            Err(error) => {
                tracing::error!(%error, partition = self.shared.partition.0, "a commit was refused")
            }
        }
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
        self.shared
            .barriers
            .borrow_mut()
            .push_back((self.next_input, reply));
        self.shared.release_barriers();
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
        if let Warm::State(state, bytes) = warm {
            self.shared.services.cache.put_warm(key, state, bytes);
        }
    }
}
