//! Counting how large things are, cheaply enough for every commit: no lock, no allocation, no name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often values of each size were met. Written by any thread, read by whoever reports.
///
/// A value costs a search in a short table and two relaxed additions. Values are whole numbers: for times, nanoseconds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    buckets: Box<[Bucket]>,
}

#[derive(Debug, Default)]
struct Bucket {
    count: AtomicU64,
    sum: AtomicU64,
}

/// What a [`Histogram`] had counted at one moment. Values that came while it was taken are in it or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Largest value of each bucket, rising; the last bucket has none.
    pub bounds: &'static [u64],
    /// Values in each bucket: one more than there are bounds.
    pub counts: Vec<u64>,
    /// Their sum, bucket by bucket.
    pub sums: Vec<u64>,
}

impl Histogram {
    /// An empty one. `bounds`: the largest value of each bucket, rising.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| Bucket::default()).collect(),
        }
    }

    /// Counts one value.
    pub fn note(&self, value: u64) {
        let bucket = &self.buckets[self.bounds.partition_point(|bound| *bound < value)];
        bucket.count.fetch_add(1, Ordering::Relaxed);
        bucket.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts one time, in nanoseconds.
    pub fn note_time(&self, time: Duration) {
        self.note(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was counted so far.
    pub fn read(&self) -> Distribution {
        let of = |part: fn(&Bucket) -> &AtomicU64| {
            let values = self.buckets.iter().map(part);
            values.map(|value| value.load(Ordering::Relaxed)).collect()
        };
        Distribution {
            bounds: self.bounds,
            counts: of(|bucket| &bucket.count),
            sums: of(|bucket| &bucket.sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21, 1_000] {
            histogram.note(value);
        }
        let read = histogram.read();
        assert_eq!(read.counts, [2, 2, 2]);
        assert_eq!(read.sums, [10, 31, 1_021]);
    }

    #[test]
    fn a_time_is_counted_in_nanoseconds() {
        let histogram = Histogram::new(&[1_000]);
        histogram.note_time(Duration::from_micros(1));
        histogram.note_time(Duration::from_micros(2));
        assert_eq!(histogram.read().sums, [1_000, 2_000]);
    }
}
