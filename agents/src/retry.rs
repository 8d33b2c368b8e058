//! How often, and after what pause, a call is tried again. Numbers in, numbers out: the same at every replay.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a model call is tried again. The pauses are durable timers: they survive restarts of everything.
///
/// ```
/// use std::time::Duration;
/// use mainspring_agents::Retry;
///
/// let patient = Retry { attempts_max: 10, pause_max: Duration::from_secs(300), ..Retry::default() };
/// assert_eq!(patient.pause_first, Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts in all; 5 unless set, 1 at least.
    pub attempts_max: u32,
    /// The first pause; each one after it is twice as long as the one before. One second unless set.
    pub pause_first: Duration,
    /// No pause is longer, unless a provider asks for it. One minute unless set.
    pub pause_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            pause_first: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
        }
    }
}

/// However long a provider wants to be left alone, nobody waits for longer than that.
const ASKED_FOR_MAX: Duration = Duration::from_secs(3600);

impl Retry {
    /// The pause after failed attempt `attempt`, from 1. `chance` spreads those that failed together, by a quarter of the pause at most;
    /// what the provider asked for is kept to in any case.
    pub(crate) fn pause(&self, attempt: u32, asked_for: Option<Duration>, chance: u64) -> Duration {
        let doubled = 1u32
            .checked_shl(attempt.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let pause = self.pause_first.saturating_mul(doubled).min(self.pause_max);
        let spread = pause / 4 * u32::try_from(chance % 1000).unwrap_or(0) / 1000;
        let asked_for = asked_for.unwrap_or_default().min(ASKED_FOR_MAX);
        pause.max(asked_for) + spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_maximum() {
        let retry = Retry {
            pause_max: Duration::from_secs(5),
            ..Retry::default()
        };
        let pauses: Vec<u64> = (1..6).map(|n| retry.pause(n, None, 0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        assert_eq!(retry.pause(99, None, 0).as_secs(), 5);
    }

    #[test]
    fn what_the_provider_asks_for_is_kept_to_within_an_hour() {
        let retry = Retry::default();
        let pause = |seconds| {
            retry
                .pause(1, Some(Duration::from_secs(seconds)), 0)
                .as_secs()
        };
        assert_eq!(pause(90), 90);
        assert_eq!(pause(1_000_000), 3600);
    }

    #[test]
    fn those_that_failed_together_come_back_apart() {
        let retry = Retry::default();
        let latest = retry.pause(1, None, 999);
        assert!(latest > Duration::from_millis(1200) && latest < Duration::from_millis(1250));
    }
}
