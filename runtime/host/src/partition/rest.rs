//! Whether a partition rests: nothing more happens in it by itself while the time stands still. Asked under virtual time alone.

use std::rc::Rc;

use actix::{Handler, Message as ActorMessage};
use tokio::sync::oneshot;

use super::PartitionActor;
use crate::virtual_time::is_hopeless;

/// Counts instances that wait out a back-off, in real time.
#[derive(Default)]
pub(crate) struct Rests {
    /// Those that will be offered again soon.
    awaited: Rc<()>,
    /// Those whose workers have given them back again and again.
    hopeless: Rc<()>,
}

impl Rests {
    /// Counts one until the answer is dropped; `attempts`: times in a row that it was given back.
    pub(crate) fn count(&self, attempts: u32) -> Rc<()> {
        match is_hopeless(attempts) {
            true => Rc::clone(&self.hopeless),
            false => Rc::clone(&self.awaited),
        }
    }
}

/// How a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Nothing is undecided, on its way to disk or due.
    pub(crate) is_still: bool,
    /// Rises with every input routed and every batch submitted: between two equal ones nothing came in between.
    handled: (u64, u64),
    /// Instances that wait out a back-off and will be offered again soon.
    pub(crate) resting: usize,
    /// Instances that were given back again and again.
    pub(crate) given_back: usize,
}

/// Asks how the partition stands.
pub(crate) struct Look {
    pub(crate) reply: oneshot::Sender<Looked>,
}

impl ActorMessage for Look {
    type Result = ();
}

impl Handler<Look> for PartitionActor {
    type Result = ();

    fn handle(&mut self, Look { reply }: Look, _: &mut Self::Context) {
        let shared = &self.shared;
        let now = shared.now();
        let turns = shared.turns.borrow();
        let is_due = self.timers.next().is_some_and(|next| next <= now);
        let looked = Looked {
            is_still: shared.undecided.borrow().is_empty()
                && turns.is_settled()
                && !self.is_reloading
                && !is_due,
            handled: (self.next_input, turns.sequence()),
            resting: Rc::strong_count(&shared.rests.awaited) - 1,
            given_back: Rc::strong_count(&shared.rests.hopeless) - 1,
        };
        // Whoever asked may have given up.
        let _ = reply.send(looked);
    }
}

/// A virtual clock was moved.
pub(crate) struct TimeMoved;

impl ActorMessage for TimeMoved {
    type Result = ();
}

impl Handler<TimeMoved> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _: TimeMoved, context: &mut Self::Context) {
        self.fire_due(context);
    }
}
