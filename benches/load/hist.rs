//! A latency histogram: constant memory, under one per cent of error, no allocation per value.

/// Sub-buckets for each power of two: 128 give at most 0.8 % of error.
const STEPS: usize = 128;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Counts of nanosecond values in log-linear buckets.
pub struct Hist {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Hist {
    /// An empty histogram.
    pub fn new() -> Hist {
        Hist {
            counts: vec![0; STEPS * (65 - STEP_BITS as usize)],
            total: 0,
            max: 0,
        }
    }

    /// Counts one value.
    pub fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.max = self.max.max(ns);
    }

    /// The value below which the share `q` of all values lies, in microseconds.
    pub fn quantile_us(&self, q: f64) -> f64 {
        let rank = ((self.total as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(index).min(self.max) as f64 / 1e3;
            }
        }
        0.0
    }

    /// The usual three, as JSON fields.
    pub fn report(&self, out: &mut serde_json::Map<String, serde_json::Value>) {
        for (name, q) in [
            ("p50_us", 0.5),
            ("p99_us", 0.99),
            ("p999_us", 0.999),
            ("max_us", 1.0),
        ] {
            out.insert(name.into(), self.quantile_us(q).into());
        }
        out.insert("latency_count".into(), self.total.into());
    }
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let shift = 63 - ns.leading_zeros() - STEP_BITS;
    // The top bit of the shifted value is always set: it stands for the octave, not for a step.
    (shift as usize + 1) * STEPS + ((ns >> shift) as usize - STEPS)
}

fn upper(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let shift = (bucket / STEPS - 1) as u32;
    let step = (bucket % STEPS + STEPS) as u64;
    (step << shift) + ((1 << shift) - 1)
}
