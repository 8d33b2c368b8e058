//! An input that makes the machine panic: the activation is loaded anew, and nothing of the failed turn is left.
//!
//! A turn writes into the partition's open batch only after the machine has decided it. A panic after that would leave half a turn to be
//! committed, so then the process stops; a restart finds the last whole one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use actix::{AsyncContext, Context, Handler, Message as ActorMessage};

use super::{ActivationActor, Input, Numbered};
use crate::dispatch::back_off;
use crate::error::{Error, ErrorKind};

/// All that was decided before the fault is durable.
struct Reload;

impl ActorMessage for Reload {
    type Result = ();
}

impl ActivationActor {
    /// Takes one input; a fault in it concerns this instance alone.
    pub(super) fn take(&mut self, numbered: Numbered, context: &mut Context<Self>) {
        let Numbered { number, input } = numbered;
        let granted = match &input {
            Input::Granted(granted) => Some(*granted),
            _ => None,
        };
        let (shared, key) = (Rc::clone(&self.shared), self.key.clone());
        let is_sound = shared.guard(&key, granted, || match input {
            Input::Passivate => self.passivate(number),
            input => self.decide(input),
        });
        if !is_sound {
            self.held = Some(Vec::new());
            let address = context.address();
            shared.answer(move || address.do_send(Reload));
        }
        shared.decided(number);
    }

    pub(super) fn load_or_note_damage(&mut self) {
        let loaded = catch_unwind(AssertUnwindSafe(|| self.load())).unwrap_or_else(|_| {
            let message = format!("instance '{}' cannot be loaded", self.key.instance);
            Err(Error::new(ErrorKind::Internal, message))
        });
        if let Err(error) = loaded {
            self.span()
                .in_scope(|| tracing::error!(%error, "an instance cannot be loaded"));
            self.damage = Some(error);
            self.faults += 1;
            self.rest(back_off(self.faults + 1), None);
        }
    }

    /// Starts anew from the store.
    fn load_again(&mut self) {
        let (faults, waits) = (self.faults, self.waits);
        *self = Self::new(self.key.clone(), Rc::clone(&self.shared));
        self.faults = faults;
        self.waits = waits;
        self.attempts = faults + 1;
        self.load_or_note_damage();
    }

    /// A damaged instance has rested: perhaps it can be loaded now.
    pub(super) fn retry_loading(&mut self) {
        self.load_again();
        self.consider(None);
    }
}

impl Handler<Reload> for ActivationActor {
    type Result = ();

    fn handle(&mut self, _: Reload, context: &mut Self::Context) {
        let held = self.held.take().unwrap_or_default();
        self.faults += 1;
        self.load_again();
        // What could not be decided now cannot be decided at once again either.
        if self.damage.is_none() {
            self.rest(back_off(self.attempts), None);
        }
        for numbered in held {
            self.handle(numbered, context);
        }
    }
}
