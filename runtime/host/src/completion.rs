//! Completed times that rise strictly within a task hub, so that a listing's cursor never misses an instance (S-11.15).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainspring_core::id::HubId;
use mainspring_core::time::Timestamp;
use mainspring_store::{Store, query};

/// Draws completed times, in the order in which turns are decided.
pub(crate) struct CompletionClock {
    store: Arc<dyn Store>,
    last: Mutex<HashMap<HubId, Timestamp>>,
}

impl CompletionClock {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            last: Mutex::default(),
        }
    }

    /// The completed time of a turn decided now: later than any drawn before in this hub, also before a restart (a clock that stepped
    /// back: last + 1 µs).
    pub(crate) fn draw(&self, hub: HubId, now: Timestamp) -> Timestamp {
        let mut last = self.last.lock().expect("no panic while drawing a time");
        // Indexes sort by microseconds; finer differences would not be seen.
        let now = Timestamp::from_micros(now.micros_down());
        let before = last.get(&hub).copied().or_else(|| self.stored(hub));
        let drawn = match before {
            Some(before) if before >= now => before.plus(Duration::from_micros(1)),
            _ => now,
        };
        last.insert(hub, drawn);
        drawn
    }

    /// The last time drawn in this hub: what is completed up to it was decided before this call.
    pub(crate) fn last(&self, hub: HubId) -> Option<Timestamp> {
        let last = self
            .last
            .lock()
            .expect("no panic while drawing a time")
            .get(&hub)
            .copied();
        last.or_else(|| self.stored(hub))
    }

    fn stored(&self, hub: HubId) -> Option<Timestamp> {
        query::last_completed(&*self.store.read(), hub).unwrap_or_else(|error| {
            tracing::error!(%error, hub = hub.0, "the last completed time cannot be read");
            None
        })
    }
}
