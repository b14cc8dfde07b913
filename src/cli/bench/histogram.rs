//! Counts of durations in logarithmic buckets: small, exact to under one per cent, cheap to record.
//!
//! Values below 128 ns have a bucket each. Every further power of two is cut into 128 equal
//! buckets, so a bucket is never wider than 1/128 of its values. That is HdrHistogram's layout.

/// Bits of a value that tell the buckets of one power of two apart.
const PRECISION_BITS: u32 = 7;
const BUCKETS_PER_OCTAVE: usize = 1 << PRECISION_BITS;
/// One linear range, and one for each of the remaining powers of two of a `u64`.
const BUCKET_COUNT: usize = (u64::BITS - PRECISION_BITS + 1) as usize * BUCKETS_PER_OCTAVE;

/// Durations in nanoseconds; 58 KiB.
#[derive(Clone)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: vec![0; BUCKET_COUNT].into(),
            count: 0,
            sum_ns: 0,
            min_ns: u64::MAX,
            max_ns: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, ns: u64) {
        self.buckets[bucket_of(ns)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The shortest, exactly; 0 when there is none.
    pub fn min_ns(&self) -> u64 {
        self.min_ns.min(self.max_ns)
    }

    /// The longest, exactly.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The average; 0 when there is none.
    pub fn mean_ns(&self) -> u64 {
        (self.sum_ns / u128::from(self.count.max(1))) as u64
    }

    /// The duration that `fraction` of all do not exceed, rounded up to its bucket's end.
    pub fn quantile_ns(&self, fraction: f64) -> u64 {
        let wanted = (self.count as f64 * fraction).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket;
            if seen >= wanted {
                return last_of(index).clamp(self.min_ns(), self.max_ns);
            }
        }
        self.max_ns
    }
}

fn bucket_of(ns: u64) -> usize {
    if ns < BUCKETS_PER_OCTAVE as u64 {
        return ns as usize;
    }
    let shift = u64::BITS - 1 - ns.leading_zeros() - PRECISION_BITS;
    let within = (ns >> shift) as usize - BUCKETS_PER_OCTAVE;
    (shift as usize + 1) * BUCKETS_PER_OCTAVE + within
}

/// The largest value that falls into a bucket.
fn last_of(index: usize) -> u64 {
    if index < BUCKETS_PER_OCTAVE {
        return index as u64;
    }
    let shift = index / BUCKETS_PER_OCTAVE - 1;
    let within = (index % BUCKETS_PER_OCTAVE + BUCKETS_PER_OCTAVE) as u64;
    (within << shift) + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        for index in 1..BUCKET_COUNT {
            let first = last_of(index - 1) + 1;
            assert_eq!(
                (bucket_of(first), bucket_of(last_of(index))),
                (index, index)
            );
            let width = last_of(index) - first + 1;
            assert!(width == 1 || width <= first / BUCKETS_PER_OCTAVE as u64);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKET_COUNT - 1);
        assert_eq!(last_of(BUCKET_COUNT - 1), u64::MAX);
    }

    #[test]
    fn quantiles_of_a_known_series_are_within_one_per_cent() {
        let mut histogram = Histogram::default();
        (1..=100_000u64).for_each(|us| histogram.record(us * 1000));
        for (fraction, exact_ns) in [(0.5, 50e6), (0.9, 90e6), (0.99, 99e6), (0.999, 99.9e6)] {
            let found = histogram.quantile_ns(fraction) as f64;
            assert!(
                found >= exact_ns && found < exact_ns * 1.01,
                "{fraction}: {found}"
            );
        }
        assert_eq!(histogram.quantile_ns(1.0), 100_000_000);
        assert_eq!(histogram.min_ns(), 1000);
        assert_eq!(histogram.mean_ns(), 50_000_500);
    }

    #[test]
    fn merging_is_recording_in_one() {
        let (mut one, mut other, mut both) = <(Histogram, Histogram, Histogram)>::default();
        for ns in 0..1000 {
            let half = if ns % 3 == 0 { &mut one } else { &mut other };
            half.record(ns * ns);
            both.record(ns * ns);
        }
        one.merge(&other);
        assert_eq!(one.buckets, both.buckets);
        assert_eq!(
            (one.count(), one.min_ns(), one.max_ns()),
            (1000, 0, 998_001)
        );
        assert_eq!(one.mean_ns(), both.mean_ns());
    }

    #[test]
    fn an_empty_histogram_has_zeros() {
        let empty = Histogram::default();
        assert_eq!((empty.count(), empty.min_ns(), empty.max_ns()), (0, 0, 0));
        assert_eq!((empty.mean_ns(), empty.quantile_ns(0.5)), (0, 0));
    }
}
