//! A small random generator with a seed that a failing test prints.

/// SplitMix64: a few lines, good enough to choose where a stream is cut.
pub struct Rng(u64);

impl Rng {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The seed from `MIDGE_TEST_SEED`, to repeat a failure, or a fresh one.
    pub fn seed_from_env() -> u64 {
        if let Ok(text) = std::env::var("MIDGE_TEST_SEED") {
            return text.parse().expect("MIDGE_TEST_SEED is a number");
        }
        let since = std::time::UNIX_EPOCH.elapsed().expect("time is past 1970");
        since.as_nanos() as u64
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound - 1`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of the choices.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}
