//! Requests of clients seen lately. Clients repeat a request when they missed its answer; it is done once (S-12.37).
//!
//! What was done stays in the mailbox for a while, so that it is recognised after a restart, too. Nothing is written for that: it is
//! only removed later.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mainspring_core::id::Position;
use mainspring_core::time::Timestamp;

/// How long a request is recognised.
const WINDOW: Duration = Duration::from_secs(60);

/// Requests recognised for one entity, at most; the oldest goes first.
const REQUESTS_MAX: usize = 100_000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recent {
    /// Accepted, waiting, or done lately.
    known: BTreeSet<Arc<str>>,
    /// Those that are done, oldest first, and still in the mailbox.
    done: VecDeque<(Timestamp, Position, Arc<str>)>,
}

impl Recent {
    /// Whether the request is new. One without an id always is.
    pub(crate) fn accept(&mut self, request_id: &str) -> bool {
        request_id.is_empty()
            || (!self.known.contains(request_id) && self.known.insert(Arc::from(request_id)))
    }

    /// A request is done. Those that make room for it leave the mailbox.
    pub(crate) fn done(
        &mut self,
        at: Timestamp,
        position: Position,
        request_id: String,
        removed: &mut Vec<Position>,
    ) {
        self.restore(at, position, request_id);
        while self.done.len() > REQUESTS_MAX {
            self.pop(removed);
        }
    }

    /// A request that was done is found in the mailbox.
    pub(crate) fn restore(&mut self, at: Timestamp, position: Position, request_id: String) {
        let request_id: Arc<str> = request_id.into();
        self.known.insert(Arc::clone(&request_id));
        self.done.push_back((at, position, request_id));
    }

    /// Forgets what is older than the window.
    pub(crate) fn forget(&mut self, now: Timestamp, removed: &mut Vec<Position>) {
        while self
            .done
            .front()
            .is_some_and(|(at, ..)| now.since(*at) >= WINDOW)
        {
            self.pop(removed);
        }
    }

    fn pop(&mut self, removed: &mut Vec<Position>) {
        if let Some((_, position, request_id)) = self.done.pop_front() {
            self.known.remove(&request_id);
            removed.push(position);
        }
    }

    /// The oldest that is done and still in the mailbox.
    pub(crate) fn first(&self) -> Option<Position> {
        self.done.front().map(|(_, position, _)| *position)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.done.is_empty()
    }
}
