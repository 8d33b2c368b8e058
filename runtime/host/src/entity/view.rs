//! What clients see of an entity. Clients poll it: it is answered from memory.

use std::time::Duration;

use mainspring_entities::View;

use super::EntityActor;
use crate::activation::{Input, Reply};
use crate::resident::Resident;

/// Longest that an answer waits for operations that were queued when it was asked for (S-12.38).
const WAIT_MAX: Duration = Duration::from_millis(200);

/// A client that waits for operations to be done.
pub(super) struct Viewer {
    number: u64,
    /// Answered when this many are done.
    until: u64,
    include_state: bool,
    reply: Reply<Option<View>>,
}

impl EntityActor {
    /// Without this wait a client would read the state from before its own earlier signal.
    pub(super) fn view(&mut self, include_state: bool, reply: Reply<Option<View>>) {
        let ready = self.entity.as_ref().map_or(0, |e| e.ready_len());
        let is_locked = self
            .entity
            .as_ref()
            .is_some_and(|e| e.record.lock.is_some());
        let waiting = match is_locked {
            true => ready,
            false => ready + self.arriving as usize,
        };
        let services = &self.shared.services;
        if waiting == 0
            || !services
                .dispatch
                .is_instance_receivable(&self.key, &self.class())
        {
            return self.show(include_state, reply);
        }
        let number = self.standing.next_wait();
        self.viewers.push(Viewer {
            number,
            until: self.done + waiting as u64,
            include_state,
            reply,
        });
        self.shared
            .later(&self.key, WAIT_MAX, Input::ViewExpired { number });
    }

    pub(super) fn view_expired(&mut self, number: u64) {
        if let Some(at) = self.viewers.iter().position(|v| v.number == number) {
            let viewer = self.viewers.swap_remove(at);
            self.show(viewer.include_state, viewer.reply);
        }
    }

    /// Those whose operations are done.
    pub(super) fn answer_viewers(&mut self) {
        let is_quiet = self.arriving == 0 && !self.has_work() && self.lease.is_none();
        let (met, unmet): (Vec<_>, Vec<_>) = std::mem::take(&mut self.viewers)
            .into_iter()
            .partition(|viewer| is_quiet || viewer.until <= self.done);
        self.viewers = unmet;
        for viewer in met {
            self.show(viewer.include_state, viewer.reply);
        }
    }

    /// What is shown is durable: at once, unless the last turn is still on its way to disk.
    fn show(&self, include_state: bool, reply: Reply<Option<View>>) {
        let entity = self.entity.as_ref().filter(|e| e.record.has_state);
        let view = entity.map(|e| e.view(include_state));
        let is_durable = self
            .last_turn
            .is_none_or(|turn| self.shared.turns.borrow().is_durable(turn));
        match is_durable {
            true => drop(reply.send(Ok(view))),
            false => self.answer(reply, Ok(view)),
        }
    }
}
