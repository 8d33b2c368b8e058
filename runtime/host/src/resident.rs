//! What instances in memory do alike, orchestrations and entities: take one input after the other, offer what they have to run, rest after it was
//! given back, and start anew from the store after a fault.
//!
//! An input that makes the machine panic concerns its instance alone. A turn writes into the partition's open batch only after the machine
//! has decided it. A panic after that would leave half a turn to be committed, so then the process stops; a restart finds the last whole one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message as ActorMessage};
use mainspring_core::id::InstanceKey;

use crate::activation::{Input, Numbered};
use crate::dispatch::{BACK_OFF_MAX, Class, Granted, StreamId, back_off};
use crate::error::{Error, ErrorKind};
use crate::partition::Shared;

/// Where an instance stands between the dispatcher and its own troubles.
#[derive(Default)]
pub(crate) struct Standing {
    /// What it waits as in the dispatcher's queue.
    pub(crate) queued: Option<Class>,
    /// The back-off it waits out.
    pub(crate) backing_off: Option<BackOff>,
    /// Numbers back-offs and waits, so that an old one's end is not taken for a new one's.
    waits: u64,
    /// Times in a row that workers gave back what it had out (S-13.17).
    attempts: u32,
    /// Why it cannot be used: its stored state is damaged.
    damage: Option<Error>,
    /// After a fault: what came until all that it had decided is durable and it can be loaded again.
    held: Option<Vec<Numbered>>,
    /// Faults so far; the next delivery waits the longer.
    faults: u32,
}

/// A back-off that is waited out.
pub(crate) struct BackOff {
    number: u64,
    /// Counts it, for those who wait until the scheduler rests.
    _counted: Rc<()>,
}

impl Standing {
    /// Whether it waits out the back-off with this number.
    fn is_backing_off(&self, number: u64) -> bool {
        self.backing_off
            .as_ref()
            .is_some_and(|b| b.number == number)
    }

    /// A number for a wait that begins.
    pub(crate) fn next_wait(&mut self) -> u64 {
        self.waits += 1;
        self.waits
    }

    /// A worker has answered what was out: it is neither given back nor faulty.
    pub(crate) fn answered(&mut self) {
        self.attempts = 0;
        self.faults = 0;
    }

    /// What an ended generation owes does not hold up the next.
    pub(crate) fn begin_anew(&mut self) {
        self.attempts = 0;
        self.backing_off = None;
    }

    /// It cannot be used until it can be loaded again.
    pub(crate) fn note_damage(&mut self, error: Error) {
        self.damage = Some(error);
    }
}

/// All that was decided before the fault is durable.
pub(crate) struct Reload;

impl ActorMessage for Reload {
    type Result = ();
}

/// An instance in memory.
pub(crate) trait Resident: Actor<Context = Context<Self>> + Handler<Reload> {
    /// What it is called in messages.
    const KIND: &'static str;

    fn anew(key: InstanceKey, shared: Rc<Shared>) -> Self;
    fn key(&self) -> &InstanceKey;
    fn shared(&self) -> &Rc<Shared>;
    fn standing(&mut self) -> &mut Standing;
    /// What every log line about it is said within.
    fn span(&self) -> tracing::Span;

    /// Takes the state from the warm cache, or from the store.
    fn load(&mut self) -> Result<(), Error>;
    /// Decides an input; the instance is sound.
    fn decide(&mut self, input: Input);
    /// Answers whether it may leave memory.
    fn passivate(&mut self, number: u64);

    /// Whether it has something to run now, and nothing out. Cheap: it is asked after every turn.
    fn has_work(&self) -> bool;
    /// The stream whose worker knows it already, if any.
    fn preferred(&self) -> Option<StreamId> {
        None
    }
    /// What it is offered as.
    fn next_class(&mut self) -> Option<Class>;
    fn hand_out(&mut self, granted: Granted);

    // ── inputs and faults ──

    /// Takes one input; a fault in it concerns this instance alone.
    fn take(&mut self, numbered: Numbered, context: &mut Context<Self>) {
        if let Some(held) = &mut self.standing().held {
            return held.push(numbered);
        }
        let Numbered { number, input } = numbered;
        let granted = match &input {
            Input::Granted(granted) => Some(*granted),
            _ => None,
        };
        let (shared, key) = (Rc::clone(self.shared()), self.key().clone());
        let is_sound = shared.guard(&key, granted, || match self.standing().damage.clone() {
            _ if matches!(input, Input::Passivate) => self.passivate(number),
            None => self.decide(input),
            Some(damage) => self.refuse(input, damage),
        });
        if !is_sound {
            self.standing().held = Some(Vec::new());
            let address = context.address();
            shared.answer(move || address.do_send(Reload));
        }
        shared.decided(number);
    }

    /// While its stored state is damaged.
    fn refuse(&mut self, input: Input, damage: Error) {
        match input {
            Input::Granted(granted) => self.shared().services.dispatch.decline(granted),
            // It has rested: perhaps it can be loaded now.
            Input::Retry { number, .. } if self.standing().is_backing_off(number) => {
                self.load_again();
                self.consider(None);
            }
            // Nothing else would fire it again before a restart.
            Input::TimerDue(_) | Input::StartDue { .. } | Input::OperationDue { .. } => {
                self.shared().later(self.key(), BACK_OFF_MAX, input);
            }
            input => input.fail(damage),
        }
    }

    fn load_or_note_damage(&mut self) {
        let shared = Rc::clone(self.shared());
        shared.turns.borrow_mut().mark_whole();
        let loaded = catch_unwind(AssertUnwindSafe(|| self.load())).unwrap_or_else(|_| {
            let instance = &self.key().instance;
            if !shared.is_whole() {
                shared
                    .services
                    .fail(format!("a turn of instance {instance} was left half-way"));
            }
            let message = format!("{} '{instance}' cannot be loaded", Self::KIND);
            Err(Error::new(ErrorKind::Internal, message))
        });
        if let Err(error) = loaded {
            let kind = Self::KIND;
            self.span()
                .in_scope(|| tracing::error!(%error, kind, "an instance cannot be loaded"));
            let standing = self.standing();
            standing.damage = Some(error);
            standing.faults += 1;
            let delay = back_off(standing.faults + 1);
            self.rest(delay, None);
        }
    }

    /// Starts anew from the store.
    fn load_again(&mut self) {
        let (key, shared) = (self.key().clone(), Rc::clone(self.shared()));
        let Standing { faults, waits, .. } = *self.standing();
        *self = Self::anew(key, shared);
        *self.standing() = Standing {
            faults,
            waits,
            attempts: faults + 1,
            ..Standing::default()
        };
        self.load_or_note_damage();
    }

    /// All that was decided before a fault is durable: it is loaded again, and takes what came meanwhile.
    fn reload(&mut self, context: &mut Context<Self>) {
        let held = self.standing().held.take().unwrap_or_default();
        self.standing().faults += 1;
        self.load_again();
        // What could not be decided now cannot be decided at once again either.
        let standing = self.standing();
        if standing.damage.is_none() {
            let delay = back_off(standing.attempts);
            self.rest(delay, None);
        }
        for numbered in held {
            self.take(numbered, context);
        }
    }

    // ── work to be handed out ──

    /// Offers what is to run next to the dispatcher, if there is something and nothing of this instance is out already (S-0.1).
    fn consider(&mut self, avoid: Option<StreamId>) {
        // Whatever led here is decided and written.
        self.shared().turns.borrow_mut().mark_whole();
        if self.standing().backing_off.is_some() || !self.has_work() {
            return;
        }
        let Some(class) = self.next_class() else {
            return;
        };
        if self.standing().queued.as_ref() == Some(&class) {
            return;
        }
        let prefer = self.preferred();
        let dispatch = &self.shared().services.dispatch;
        let offered = dispatch.offer(self.key(), &class, prefer, avoid);
        match offered {
            Some(granted) => {
                self.standing().queued = None;
                self.hand_out(granted);
            }
            None => self.standing().queued = Some(class),
        }
    }

    /// What waits for a stream already, after a load.
    fn note_queued(&mut self) {
        if self.has_work() {
            let queued = self.shared().services.dispatch.waits_as(self.key());
            self.standing().queued = queued;
        }
    }

    /// After a turn: what is not to run now does not wait for a stream either.
    fn withdraw_unless_due(&mut self) {
        if !self.has_work() {
            self.withdraw();
        }
    }

    fn withdraw(&mut self) {
        if self.standing().queued.take().is_some() {
            self.shared().services.dispatch.withdraw(self.key());
        }
    }

    /// A stream has room for what waited in the queue.
    fn granted(&mut self, granted: Granted) {
        self.standing().queued = None;
        if self.standing().backing_off.is_some() || !self.has_work() {
            return self.shared().services.dispatch.decline(granted);
        }
        self.hand_out(granted);
    }

    /// The lease ended without an answer; given back, the next delivery waits out a growing back-off (S-13.17).
    fn offer_again(&mut self, avoid: Option<StreamId>, is_given_back: bool) {
        let standing = self.standing();
        standing.attempts += u32::from(is_given_back);
        let delay = match is_given_back {
            true => back_off(standing.attempts),
            false => Duration::ZERO,
        };
        if delay.is_zero() {
            self.consider(avoid);
        } else {
            self.rest(delay, avoid);
        }
    }

    /// Hands nothing out for a while.
    fn rest(&mut self, delay: Duration, avoid: Option<StreamId>) {
        let number = self.standing().next_wait();
        let attempts = self.standing().attempts;
        let counted = self.shared().rests.count(attempts);
        self.standing().backing_off = Some(BackOff {
            number,
            _counted: counted,
        });
        self.shared()
            .later(self.key(), delay, Input::Retry { number, avoid });
    }

    /// A back-off is over.
    fn rested(&mut self, number: u64, avoid: Option<StreamId>) {
        if self.standing().is_backing_off(number) {
            self.standing().backing_off = None;
            self.consider(avoid);
            self.shared().services.config.clock.stir();
        }
    }
}
