//! The timers of a partition that come due next: a bounded window over those in the store.

use std::collections::BTreeMap;

use mainspring_core::id::InstanceKey;
use mainspring_core::time::Timestamp;
use mainspring_store::query::{Due, TimerEntry};

/// Timers up to a horizon are in memory; later ones are only in the store. Whatever fires is checked by its instance, so a timer that
/// was disarmed, or is loaded twice, does no harm.
pub(crate) struct TimerWindow {
    waiting: BTreeMap<(Timestamp, u64), (InstanceKey, Due)>,
    /// Everything due up to here is in `waiting`; later ones may be in the store alone.
    horizon: Timestamp,
    next: u64,
}

impl Default for TimerWindow {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            horizon: Timestamp::MIN,
            next: 0,
        }
    }
}

impl TimerWindow {
    /// Timers read from the store at once; twice as many are held at most. About 200 bytes each.
    pub(crate) const PAGE: usize = 10_000;

    pub(crate) fn arm(&mut self, due: Timestamp, key: InstanceKey, what: Due) {
        if due > self.horizon {
            return;
        }
        self.insert(due, key, what);
        if self.waiting.len() > 2 * Self::PAGE {
            let keep = self
                .waiting
                .keys()
                .nth(Self::PAGE)
                .copied()
                .expect("more than a page is waiting");
            self.waiting.split_off(&keep);
            self.horizon = self
                .waiting
                .last_key_value()
                .map_or(Timestamp::MIN, |((due, _), _)| *due);
        }
    }

    fn insert(&mut self, due: Timestamp, key: InstanceKey, what: Due) {
        self.waiting.insert((due, self.next), (key, what));
        self.next += 1;
    }

    /// Whether the store has to be asked: nothing in memory is waiting any more, and it may hold later ones.
    pub(crate) fn wants_more(&self) -> bool {
        self.waiting.is_empty() && self.horizon < Timestamp::MAX
    }

    /// Where the store is to be read from.
    pub(crate) fn horizon(&self) -> Timestamp {
        self.horizon
    }

    /// Takes in a page read from the horizon on; a short page was the last.
    pub(crate) fn load(&mut self, page: Vec<TimerEntry>) {
        self.horizon = match page.last() {
            Some(last) if page.len() >= Self::PAGE => last.due,
            _ => Timestamp::MAX,
        };
        for entry in page {
            self.insert(entry.due, entry.key, entry.what);
        }
    }

    /// Takes out what is due, in order of due time, then of arming (S-6.5).
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<(Timestamp, InstanceKey, Due)> {
        let mut due = Vec::new();
        while let Some(entry) = self.waiting.first_entry().filter(|e| e.key().0 <= now) {
            let ((at, _), (key, what)) = entry.remove_entry();
            due.push((at, key, what));
        }
        due
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use mainspring_core::id::{HubId, InstanceId};

    use super::*;

    fn key(instance: usize) -> InstanceKey {
        InstanceKey {
            hub: HubId(1),
            instance: InstanceId::from_stored(&instance.to_string()),
        }
    }

    fn at(seconds: usize) -> Timestamp {
        Timestamp::new(seconds as i64, 0)
    }

    const WHAT: Due = Due::Start { generation: 1 };

    fn fired(window: &mut TimerWindow, now: Timestamp) -> Vec<InstanceKey> {
        let due = window.due(now);
        due.into_iter().map(|(_, key, _)| key).collect()
    }

    #[test]
    fn timers_fire_when_due_and_those_due_together_in_the_order_of_arming() {
        // S-6.1, S-6.5
        let mut window = TimerWindow::default();
        window.load(Vec::new());
        for (seconds, instance) in [(20, 1), (10, 2), (20, 3), (30, 4)] {
            window.arm(at(seconds), key(instance), WHAT);
        }
        assert_eq!(window.next(), Some(at(10)));
        assert!(fired(&mut window, at(9)).is_empty());
        assert_eq!(fired(&mut window, at(20)), [key(2), key(1), key(3)]);
        assert_eq!(fired(&mut window, Timestamp::MAX), [key(4)]);
    }

    #[test]
    fn nothing_is_taken_in_before_the_store_was_read() {
        let mut window = TimerWindow::default();
        assert!(window.wants_more());
        window.arm(at(10), key(1), WHAT);
        assert_eq!(window.next(), None);
        window.load(Vec::new());
        assert!(!window.wants_more());
    }

    #[test]
    fn the_window_is_bounded_and_what_lies_behind_it_is_read_when_it_is_empty() {
        let mut window = TimerWindow::default();
        window.load(Vec::new());
        for seconds in 0..=2 * TimerWindow::PAGE {
            window.arm(at(seconds), key(seconds), WHAT);
        }
        assert_eq!(window.waiting.len(), TimerWindow::PAGE);
        assert_eq!(window.horizon(), at(TimerWindow::PAGE - 1));
        window.arm(at(TimerWindow::PAGE), key(0), WHAT);
        assert_eq!(window.waiting.len(), TimerWindow::PAGE, "left to the store");
        window.arm(at(3), key(7), WHAT);
        assert_eq!(window.waiting.len(), TimerWindow::PAGE + 1);
        assert!(!window.wants_more());
        fired(&mut window, Timestamp::MAX);
        assert!(window.wants_more());
    }
}
