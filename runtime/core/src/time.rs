//! Points in time, always handed in: nothing here knows what time it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const MICROS_PER_SECOND: u64 = 1_000_000;

/// A point in time, UTC, from the year 1 to the year 9999 (S-1.18), to the nanosecond.
///
/// Whatever lies outside is brought to the nearer end; a fraction outside 0…999,999,999 ns is
/// carried into the seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    // The order of the fields is what sorts.
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self {
        seconds: -62_135_596_800,
        nanos: 0,
    };

    /// The last nanosecond of the year 9999.
    pub const MAX: Self = Self {
        seconds: 253_402_300_799,
        nanos: 999_999_999,
    };

    /// The point `seconds` seconds and `nanos` nanoseconds after the Unix epoch; both may be
    /// negative.
    pub fn new(seconds: i64, nanos: i64) -> Self {
        let seconds = seconds.saturating_add(nanos.div_euclid(NANOS_PER_SECOND));
        // A remainder of 10^9 is within 0..10^9, so it fits.
        let nanos = nanos.rem_euclid(NANOS_PER_SECOND) as u32;
        Self { seconds, nanos }.clamp(Self::MIN, Self::MAX)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds since the last whole second, 0…999,999,999.
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// The point `duration` later, or [`Self::MAX`].
    pub fn plus(self, duration: Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self::new(
            self.seconds.saturating_add(seconds),
            i64::from(self.nanos) + i64::from(duration.subsec_nanos()),
        )
    }

    /// How much later this is than `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        if self <= earlier {
            return Duration::ZERO;
        }
        // Both lie within 10,000 years, so the difference fits.
        let seconds = (self.seconds - earlier.seconds) as u64;
        Duration::from_secs(seconds) + Duration::from_nanos(u64::from(self.nanos))
            - Duration::from_nanos(u64::from(earlier.nanos))
    }

    /// Microseconds since 0001-01-01, rounded up: a timer under this key is never early.
    pub fn micros_up(self) -> u64 {
        self.micros(self.nanos.div_ceil(1_000))
    }

    /// Microseconds since 0001-01-01, rounded down.
    pub fn micros_down(self) -> u64 {
        self.micros(self.nanos / 1_000)
    }

    fn micros(self, fraction: u32) -> u64 {
        // Never before the year 1, so the difference is not negative.
        let seconds = (self.seconds - Self::MIN.seconds) as u64;
        seconds * MICROS_PER_SECOND + u64::from(fraction)
    }

    /// The point `micros` microseconds after 0001-01-01, or [`Self::MAX`].
    pub fn from_micros(micros: u64) -> Self {
        // A 10^6th of a u64 is far below i64::MAX.
        let seconds = (micros / MICROS_PER_SECOND) as i64;
        let nanos = (micros % MICROS_PER_SECOND) as i64 * 1_000;
        Self::new(Self::MIN.seconds + seconds, nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-1.18: JS sends negative fractions for dates before 1970.
    #[test]
    fn a_fraction_out_of_range_is_carried_into_the_seconds() {
        for (seconds, nanos, expected) in [
            (5, 1_500_000_000, (6, 500_000_000)),
            (-1, -500_000_000, (-2, 500_000_000)),
            (0, -1, (-1, 999_999_999)),
            (7, 0, (7, 0)),
            (0, i64::MIN, (-9_223_372_037, 145_224_192)),
        ] {
            let time = Timestamp::new(seconds, nanos);
            assert_eq!((time.seconds(), time.nanos()), expected);
        }
    }

    /// S-1.18: .NET sends the first and the last instant there is.
    #[test]
    fn times_outside_the_years_1_to_9999_are_brought_to_the_nearer_end() {
        assert_eq!(Timestamp::new(i64::MIN, -1), Timestamp::MIN);
        assert_eq!(Timestamp::new(i64::MAX, i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_micros(u64::MAX), Timestamp::MAX);
        let last = Timestamp::new(253_402_300_799, 999_999_999);
        assert_eq!(last, Timestamp::MAX);
    }

    #[test]
    fn differences_and_sums_carry_the_fraction() {
        let earlier = Timestamp::new(10, 900_000_000);
        let later = earlier.plus(Duration::from_millis(1_200));
        assert_eq!(later, Timestamp::new(12, 100_000_000));
        assert_eq!(later.since(earlier), Duration::from_millis(1_200));
        assert_eq!(earlier.since(later), Duration::ZERO);
        let all = Timestamp::MAX.since(Timestamp::MIN);
        assert_eq!(Timestamp::MIN.plus(all), Timestamp::MAX);
    }

    /// S-6.1: rounding a due time up never lets it come early.
    #[test]
    fn microseconds_round_as_asked_and_keep_the_order() {
        let time = Timestamp::new(0, 1_001);
        assert_eq!(time.micros_up(), time.micros_down() + 1);
        assert_eq!(Timestamp::MIN.micros_down(), 0);
        assert!(Timestamp::from_micros(time.micros_up()) > time);
        assert!(Timestamp::from_micros(time.micros_down()) < time);
        let whole = Timestamp::new(-3, 5_000);
        assert_eq!(Timestamp::from_micros(whole.micros_up()), whole);
        assert_eq!(Timestamp::from_micros(whole.micros_down()), whole);
    }
}
