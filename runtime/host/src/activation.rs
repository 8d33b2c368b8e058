//! An activation: one orchestration present in memory, with its state and what waits in its mailbox. One input at a time is decided by
//! the pure machine; what it decided goes into its partition's open batch, and is performed when that is durable.
//!
//! An activation never waits for anything and holds nothing that the store could not give back.

mod client;
mod early;
mod episode;
mod turn;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Message as ActorMessage};
use bytes::Bytes;
use mainspring_core::action::EpisodeResult;
use mainspring_core::effect::Timer;
use mainspring_core::entity::{BatchResult, Operation};
use mainspring_core::id::{InstanceId, InstanceKey, Position};
use mainspring_core::message::{FailureDetails, Fence, Message, NewInstance};
use mainspring_core::orchestration::{Orchestration, ReusePolicy, View};
use mainspring_core::time::Timestamp;
use mainspring_store::query;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::api::HistoryStream;
use crate::dispatch::{Class, Granted, StreamId, Token};
use crate::error::Error;
use crate::partition::{Passivated, Shared, Until, Warm};
use crate::resident::{Reload, Resident, Standing};
pub(crate) use early::EarlyMessages;
use episode::{Kept, Leased, Oversize, Pinning};

/// Where an answer goes; the caller may have given up meanwhile.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Outcome of an activity as a worker told it.
pub(crate) enum Outcome {
    Completed(Option<String>),
    Failed(FailureDetails),
}

/// Everything that can reach an activation.
pub(crate) enum Input {
    // Clients.
    Create {
        request: Box<NewInstance>,
        policy: ReusePolicy,
        reply: Reply<InstanceId>,
    },
    View {
        include_payloads: bool,
        reply: Reply<Option<View>>,
    },
    Wait {
        until: Until,
        include_payloads: bool,
        reply: oneshot::Sender<View>,
    },
    Raise {
        name: String,
        input: Option<String>,
        reply: Reply<()>,
    },
    Suspend {
        reason: Option<String>,
        reply: Reply<()>,
    },
    Resume {
        reason: Option<String>,
        reply: Reply<()>,
    },
    Terminate {
        output: Option<String>,
        is_recursive: bool,
        reply: Reply<()>,
    },
    /// Answers whether it was touched (S-9.11).
    SkipGraceful {
        reason: Option<String>,
        reply: Reply<bool>,
    },
    Rewind {
        reason: Option<String>,
        reply: Reply<()>,
    },
    Restart {
        reply: Reply<()>,
    },
    /// What a restart under `instance` would start.
    RestartRequest {
        instance: InstanceId,
        reply: Reply<NewInstance>,
    },
    /// Answers whether it was purged; `None` from a missing one. Active: a failed precondition.
    Purge {
        reply: Reply<Option<()>>,
    },
    /// Children of the current generation and whether the instance is terminal.
    Family {
        reply: Reply<Option<Family>>,
    },
    History {
        execution_id: Option<String>,
        for_worker: bool,
        reply: Reply<HistoryStream>,
    },

    // Clients, of entities.
    Signal {
        operation: Box<Operation>,
        reply: Reply<()>,
    },
    ViewEntity {
        include_state: bool,
        reply: Reply<Option<mainspring_entities::View>>,
    },
    /// Answers whether it was purged.
    PurgeEntity {
        reply: Reply<bool>,
    },

    // Workers.
    Granted(Granted),
    /// `bytes`: encoded size of the response. `is_named`: it brought the token itself; else the lease was found by the instance.
    /// `over`: the stream that it came over.
    Completed {
        token: Token,
        is_named: bool,
        over: Option<StreamId>,
        result: Box<EpisodeResult>,
        bytes: usize,
        reply: Reply<()>,
    },
    BatchDone {
        token: Token,
        result: Box<BatchResult>,
        reply: Reply<()>,
    },
    /// A lease ended without an answer, or with one that could not be taken.
    LeaseLost {
        token: Token,
        avoid: Option<StreamId>,
        is_given_back: bool,
    },
    ActivityDone {
        fence: Fence,
        task_id: i32,
        outcome: Outcome,
        /// Held until it is answered, unless the answer waits for a worker.
        credit: Option<OwnedSemaphorePermit>,
        reply: Reply<()>,
    },

    // The partition.
    /// After a restart: decide what was not decided, hand out again what was open. `until`: the last commit before the restart.
    Recover {
        until: u64,
    },
    Delivered {
        position: Position,
        message: Message,
    },
    Arrived {
        position: Position,
        message: Message,
    },
    /// The batch with this number, which pinned an episode, is durable.
    Pinned {
        batch: u64,
    },
    TimerDue(Timer),
    StartDue {
        at: Timestamp,
        generation: u32,
    },
    /// An entity's operation that was kept aside.
    OperationDue {
        due: Timestamp,
        sequence: u64,
    },
    /// A client of an entity has waited long enough.
    ViewExpired {
        number: u64,
    },
    /// The back-off with this number is over.
    Retry {
        number: u64,
        avoid: Option<StreamId>,
    },
    OversizeExpired {
        waiting: u64,
    },
    /// An early message has waited long enough for the episode that it went out with.
    EarlyExpired,
    Passivate,
}

impl Input {
    /// Inputs that are no sign of life of the instance itself.
    pub(crate) fn is_housekeeping(&self) -> bool {
        matches!(self, Input::Passivate)
    }
}

/// Parent link and children as a recursive purge needs them (S-11.19).
pub(crate) struct Family {
    pub(crate) is_terminal: bool,
    pub(crate) execution_id: mainspring_core::id::ExecutionId,
    pub(crate) parent: Option<mainspring_core::message::Parent>,
    pub(crate) children: Vec<InstanceId>,
}

/// An input with the number by which barriers wait for it.
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) input: Input,
}

impl ActorMessage for Numbered {
    type Result = ();
}

/// A message that waits in the mailbox.
struct Waiting {
    /// Under which it is durable; `None`: it is early, see [`early`].
    position: Option<Position>,
    message: Message,
}

impl Waiting {
    fn durable(position: Position, message: Message) -> Self {
        Self {
            position: Some(position),
            message,
        }
    }
}

/// One instance in memory.
pub(crate) struct ActivationActor {
    key: InstanceKey,
    shared: Rc<Shared>,
    /// `None`: there is no such instance (yet, or any more).
    instance: Option<Orchestration>,
    mailbox: VecDeque<Waiting>,
    /// Who told the early message at the head of the mailbox, and waits for its being durable.
    early: Option<Reply<()>>,
    /// The worker that lost the episode of an early message: another gets it once the message is saved.
    avoided: Option<StreamId>,
    /// The last message found in the store when it was loaded: what is delivered up to here is known already.
    loaded: Position,
    /// Own messages decided and not yet durable.
    arriving: u32,
    /// How many of those belonged to an instance that was replaced or purged since.
    outdated: u32,
    /// Chunks of history decided and not yet durable, oldest first, each with the number of its batch.
    unsynced: VecDeque<(u64, Bytes)>,
    /// Number of the batch with its last turn.
    last_turn: Option<u64>,
    /// The episode that is out.
    lease: Option<Leased>,
    /// The episode whose cut is on its way to disk before it may go out (S-4.17).
    pinning: Option<Pinning>,
    standing: Standing,
    /// Its work item is too large for ordinary streams (S-13.20).
    oversize: Option<Oversize>,
    /// The worker asked for the history with the item (S-3.32).
    must_embed: bool,
    /// A worker that keeps it in memory.
    kept: Option<Kept>,
    /// Whether the store's list of what is to be looked at after a restart holds it.
    is_marked_busy: bool,
    /// Callers of a recursive termination (S-9.8).
    terminations: Vec<Reply<()>>,
}

impl ActivationActor {
    pub(crate) fn new(key: InstanceKey, shared: Rc<Shared>) -> Self {
        Self {
            key,
            shared,
            instance: None,
            mailbox: VecDeque::new(),
            early: None,
            avoided: None,
            loaded: Position::default(),
            arriving: 0,
            outdated: 0,
            unsynced: VecDeque::new(),
            last_turn: None,
            lease: None,
            pinning: None,
            standing: Standing::default(),
            oversize: None,
            must_embed: false,
            kept: None,
            is_marked_busy: false,
            terminations: Vec::new(),
        }
    }

    /// Whether leaving memory now would lose nothing. One that waits in the dispatcher's queue may leave: it is woken by its turn there.
    fn is_idle(&self) -> bool {
        self.lease.is_none()
            && self.pinning.is_none()
            && self.standing.backing_off.is_none()
            && self.oversize.is_none()
            && self.arriving == 0
            && self.terminations.is_empty()
            && self
                .last_turn
                .is_none_or(|turn| self.shared.turns.borrow().is_durable(turn))
    }
}

/// Estimate of the memory a kept instance takes, in bytes.
fn warm_bytes(instance: &Orchestration) -> usize {
    let payloads = [
        &instance.start.input,
        &instance.record.output,
        &instance.record.custom_status,
    ];
    512 + payloads
        .iter()
        .filter_map(|p| p.as_ref().map(String::len))
        .sum::<usize>()
        + 64 * (instance.open_activities().len() + instance.children().len())
}

impl Actor for ActivationActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.load_or_note_damage();
    }
}

impl Handler<Numbered> for ActivationActor {
    type Result = ();

    fn handle(&mut self, numbered: Numbered, context: &mut Self::Context) {
        self.take(numbered, context);
    }
}

impl Resident for ActivationActor {
    const KIND: &'static str = "instance";

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
        let generation = self
            .instance
            .as_ref()
            .map_or("", |i| i.record.execution_id.as_str());
        tracing::info_span!("instance", hub, instance = %self.key.instance, generation)
    }

    fn load(&mut self) -> Result<(), Error> {
        let services = &self.shared.services;
        let partition = self.shared.partition;
        let warm = services.cache.take_warm(&self.key);
        let read = services.store.read();
        self.is_marked_busy = query::is_busy(&*read, partition, &self.key)?;
        self.instance = match warm {
            Some(warm) => {
                services.metrics.warm_hits.add(1);
                Some(Arc::unwrap_or_clone(warm))
            }
            None => match query::instance(&*read, partition, &self.key)? {
                None => None,
                Some((record, start)) => {
                    services.metrics.warm_misses.add(1);
                    let chunks = query::history(
                        &*read,
                        partition,
                        &self.key,
                        record.generation,
                        record.history_chunks,
                    )?;
                    Some(Orchestration::restore(
                        self.key.instance.clone(),
                        record,
                        start,
                        &chunks,
                    )?)
                }
            },
        };
        let head = self
            .instance
            .as_ref()
            .map_or(Position::default(), |i| i.record.mailbox_head);
        let waiting = query::mailbox(&*read, partition, &self.key, head, usize::MAX)?;
        drop(read);
        for (position, message) in waiting {
            self.loaded = position;
            // What does not wait is decided when it is delivered; after a crash, by `recover`.
            if !message.waits() {
                continue;
            }
            if self.instance.as_mut().is_some_and(|i| i.arrive(&message)) {
                self.mailbox.push_back(Waiting::durable(position, message));
            } else {
                self.shared
                    .decide(|turns| turns.batch().remove_message(&self.key, position));
            }
        }
        self.note_queued();
        Ok(())
    }

    fn decide(&mut self, input: Input) {
        match input {
            Input::Create {
                request,
                policy,
                reply,
            } => self.create(*request, policy, reply),
            Input::View {
                include_payloads,
                reply,
            } => self.view(include_payloads, reply),
            Input::Wait {
                until,
                include_payloads,
                reply,
            } => self.wait(until, include_payloads, reply),
            Input::Raise { name, input, reply } => self.raise(name, input, reply),
            Input::Suspend { reason, reply } => self.suspend(reason, reply),
            Input::Resume { reason, reply } => self.resume(reason, reply),
            Input::Terminate {
                output,
                is_recursive,
                reply,
            } => self.terminate(output, is_recursive, reply),
            Input::SkipGraceful { reason, reply } => self.skip_graceful(reason, reply),
            Input::Rewind { reason, reply } => self.rewind(reason, reply),
            Input::Restart { reply } => self.restart(reply),
            Input::RestartRequest { instance, reply } => self.restart_request(instance, reply),
            Input::Purge { reply } => self.purge(reply),
            Input::Family { reply } => self.family(reply),
            Input::History {
                execution_id,
                for_worker,
                reply,
            } => self.send_history(execution_id, for_worker, reply),
            Input::Granted(granted) => self.granted(granted),
            Input::Completed {
                token,
                is_named,
                over,
                result,
                bytes,
                reply,
            } => self.completed(token, is_named, over, *result, bytes, reply),
            Input::LeaseLost {
                token,
                avoid,
                is_given_back,
            } => self.lease_lost(token, avoid, is_given_back),
            Input::ActivityDone {
                fence,
                task_id,
                outcome,
                credit,
                reply,
            } => self.activity_done(fence, task_id, outcome, credit, reply),
            Input::Recover { until } => self.recover(until),
            Input::Delivered { position, message } => self.delivered(position, message),
            Input::Arrived { position, message } => self.arrived(position, message),
            Input::Pinned { batch } => self.pinned(batch),
            Input::TimerDue(timer) => self.timer_due(timer),
            Input::StartDue { at, generation } => self.start_due(at, generation),
            Input::Retry { number, avoid } => self.rested(number, avoid),
            Input::OversizeExpired { waiting } => self.oversize_expired(waiting),
            Input::EarlyExpired => self.early_expired(),
            Input::Passivate => {}
            other => other.fail(Error::invalid(format!(
                "'{}' is an orchestration instance, not an entity",
                self.key.instance
            ))),
        }
        self.save_early_unless_out();
    }

    fn passivate(&mut self, number: u64) {
        // It keeps its state until it is told to go: what came in between finds it as it was.
        let leaves = self.is_idle().then(|| match &self.instance {
            Some(instance) if self.mailbox.is_empty() => {
                Warm::State(Arc::new(instance.clone()), warm_bytes(instance))
            }
            // With messages waiting it is read anew, so that their arrival is noted once.
            _ => Warm::Nothing,
        });
        self.shared.address().do_send(Passivated {
            key: self.key.clone(),
            number,
            leaves,
        });
    }

    fn has_work(&self) -> bool {
        self.has_episode()
    }

    fn preferred(&self) -> Option<StreamId> {
        self.kept_by()
    }

    fn next_class(&mut self) -> Option<Class> {
        self.class()
    }

    fn hand_out(&mut self, granted: Granted) {
        self.hand_out_episode(granted);
    }
}

impl Handler<Reload> for ActivationActor {
    type Result = ();

    fn handle(&mut self, _: Reload, context: &mut Self::Context) {
        self.reload(context);
    }
}

impl Input {
    /// Answers whoever waits with an error.
    pub(crate) fn fail(self, error: Error) {
        match self {
            Input::Create { reply, .. } => drop(reply.send(Err(error))),
            Input::View { reply, .. } => drop(reply.send(Err(error))),
            Input::Raise { reply, .. }
            | Input::Suspend { reply, .. }
            | Input::Resume { reply, .. }
            | Input::Terminate { reply, .. }
            | Input::Rewind { reply, .. }
            | Input::Restart { reply }
            | Input::Completed { reply, .. }
            | Input::ActivityDone { reply, .. } => drop(reply.send(Err(error))),
            Input::SkipGraceful { reply, .. } => drop(reply.send(Err(error))),
            Input::RestartRequest { reply, .. } => drop(reply.send(Err(error))),
            Input::Purge { reply } => drop(reply.send(Err(error))),
            Input::Family { reply } => drop(reply.send(Err(error))),
            Input::History { reply, .. } => drop(reply.send(Err(error))),
            Input::Signal { reply, .. } | Input::BatchDone { reply, .. } => {
                drop(reply.send(Err(error)));
            }
            Input::ViewEntity { reply, .. } => drop(reply.send(Err(error))),
            Input::PurgeEntity { reply } => drop(reply.send(Err(error))),
            Input::Wait { .. }
            | Input::OperationDue { .. }
            | Input::ViewExpired { .. }
            | Input::Granted(_)
            | Input::LeaseLost { .. }
            | Input::Recover { .. }
            | Input::Delivered { .. }
            | Input::Arrived { .. }
            | Input::Pinned { .. }
            | Input::TimerDue(_)
            | Input::StartDue { .. }
            | Input::Retry { .. }
            | Input::OversizeExpired { .. }
            | Input::EarlyExpired
            | Input::Passivate => {}
        }
    }
}

impl ActivationActor {
    fn now(&self) -> Timestamp {
        self.shared.now()
    }
}
