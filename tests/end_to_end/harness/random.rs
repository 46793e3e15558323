//! Numbers that look random and can be had again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of a test run: `PGSLUICE_TEST_SEED`, or a fresh one. It is printed, so that a failure can be repeated.
    pub(crate) fn seed_of_run() -> u64 {
        let fresh = RandomState::new().hash_one("seed") % 1_000_000_007;
        let seed = super::setting("PGSLUICE_TEST_SEED", fresh);
        println!("PGSLUICE_TEST_SEED={seed}");
        seed
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number in the range.
    pub(crate) fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// True `percent` times of a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of the choices.
    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = self.below(choices.len() as u64);
        choices[usize::try_from(index).expect("it is small")]
    }

    /// A time in the range of milliseconds, to the microsecond.
    pub(crate) fn duration_ms(&mut self, range_ms: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.within(range_ms.start * 1000..range_ms.end * 1000))
    }

    /// A generator that goes another way.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
