//! How often, and after what time, a failed task is tried again. Computed from numbers alone, so it is the same at every replay.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Failure;

/// When a failed activity, child or operation is tried again.
///
/// The orchestrator itself waits, with a durable timer, so a retry survives restarts of everything. A failure that says of
/// itself that it is not retriable is never tried again.
///
/// ```
/// use std::time::Duration;
/// use mainspring_sdk::RetryPolicy;
///
/// let policy = RetryPolicy::new(5, Duration::from_secs(1))
///     .coefficient(2.0)
///     .interval_max(Duration::from_secs(30))
///     .timeout(Duration::from_secs(300))
///     .retry_if(|failure| !failure.is("CardDeclined"));
/// ```
#[derive(Clone)]
pub struct RetryPolicy {
    attempts_max: u32,
    first_interval: Duration,
    coefficient: f64,
    interval_max: Duration,
    timeout: Option<Duration>,
    predicate: Option<Predicate>,
}

type Predicate = Arc<dyn Fn(&Failure) -> bool + Send + Sync>;

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RetryPolicy")
            .field("attempts_max", &self.attempts_max)
            .field("first_interval", &self.first_interval)
            .field("coefficient", &self.coefficient)
            .field("interval_max", &self.interval_max)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl RetryPolicy {
    /// At most `attempts_max` attempts in all, `first_interval` apart.
    pub fn new(attempts_max: u32, first_interval: Duration) -> Self {
        Self {
            attempts_max,
            first_interval,
            coefficient: 1.0,
            interval_max: Duration::from_secs(24 * 60 * 60),
            timeout: None,
            predicate: None,
        }
    }

    /// Each interval is this many times the one before; less than 1 counts as 1.
    #[must_use]
    pub fn coefficient(mut self, coefficient: f64) -> Self {
        self.coefficient = coefficient;
        self
    }

    /// No interval is longer; one day unless set.
    #[must_use]
    pub fn interval_max(mut self, interval_max: Duration) -> Self {
        self.interval_max = interval_max;
        self
    }

    /// No attempt begins later than this after the first one began.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Tries again only after failures for which `predicate` says so. It is run at every replay, so it may look at nothing else.
    #[must_use]
    pub fn retry_if(
        mut self,
        predicate: impl Fn(&Failure) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    /// How long to wait after failed attempt `attempt` (from 1), `elapsed` after the first one began; `None`: give up.
    pub(crate) fn next_interval(
        &self,
        attempt: u32,
        elapsed: Duration,
        failure: &Failure,
    ) -> Option<Duration> {
        if attempt >= self.attempts_max
            || !failure.is_retriable()
            || self.predicate.as_ref().is_some_and(|wants| !wants(failure))
        {
            return None;
        }
        let factor = self
            .coefficient
            .max(1.0)
            .powi(i32::try_from(attempt - 1).unwrap_or(i32::MAX));
        let longest = self.interval_max.as_secs_f64();
        let seconds = (self.first_interval.as_secs_f64() * factor).min(longest);
        let interval = Duration::try_from_secs_f64(seconds).unwrap_or(self.interval_max);
        match self.timeout {
            Some(timeout) if elapsed.saturating_add(interval) > timeout => None,
            _ => Some(interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(policy: &RetryPolicy) -> Vec<u64> {
        let failure = Failure::new("X", "x");
        let mut elapsed = Duration::ZERO;
        (1..20)
            .map_while(|attempt| {
                let interval = policy.next_interval(attempt, elapsed, &failure)?;
                elapsed += interval;
                Some(interval.as_secs())
            })
            .collect()
    }

    #[test]
    fn intervals_grow_by_the_coefficient_up_to_their_maximum() {
        let policy = RetryPolicy::new(6, Duration::from_secs(1))
            .coefficient(3.0)
            .interval_max(Duration::from_secs(20));
        assert_eq!(intervals(&policy), [1, 3, 9, 20, 20]);
    }

    #[test]
    fn no_attempt_begins_after_the_timeout() {
        let policy = RetryPolicy::new(100, Duration::from_secs(4)).timeout(Duration::from_secs(10));
        assert_eq!(intervals(&policy), [4, 4]);
    }

    #[test]
    fn a_failure_that_is_not_retriable_or_not_wanted_ends_it() {
        let policy =
            RetryPolicy::new(3, Duration::from_secs(1)).retry_if(|failure| failure.is("Busy"));
        let next = |failure: &Failure| policy.next_interval(1, Duration::ZERO, failure);
        assert!(next(&Failure::new("Busy", "")).is_some());
        assert!(next(&Failure::new("Busy", "").non_retriable()).is_none());
        assert!(next(&Failure::new("Declined", "")).is_none());
    }

    #[test]
    fn numbers_out_of_all_bounds_stay_within_the_maximum() {
        let policy = RetryPolicy::new(u32::MAX, Duration::from_secs(1)).coefficient(f64::INFINITY);
        let failure = Failure::new("X", "x");
        assert_eq!(
            policy.next_interval(1_000_000, Duration::ZERO, &failure),
            Some(Duration::from_secs(86_400))
        );
    }
}
