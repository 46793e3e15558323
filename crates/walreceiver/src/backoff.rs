//! How long to wait before the next try.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Waits that double from a base to a cap, each drawn at random between nothing and that: "full jitter". Many clients
/// that lost the same server then do not come back all at once.
///
/// It is pure: it says how long to wait, and does not wait.
///
/// ```
/// use std::time::Duration;
/// use walreceiver::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// assert!(backoff.next_wait() <= Duration::from_millis(100));
/// assert!(backoff.next_wait() <= Duration::from_millis(200));
/// backoff.reset();
/// assert!(backoff.next_wait() <= Duration::from_millis(100));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Waits of at most `base` at first, and of at most `cap` in the end.
    pub fn new(base: Duration, cap: Duration) -> Self {
        // The standard library seeds its hashers at random; no more than that is needed here.
        Self::with_seed(base, cap, RandomState::new().hash_one(0))
    }

    /// The same with a seed, so that the waits can be foretold.
    pub fn with_seed(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap, failures: 0, random: seed }
    }

    /// The wait before the next try, after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        let nanoseconds = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(match nanoseconds.checked_add(1) {
            Some(count) => self.next_random() % count,
            None => self.next_random(),
        })
    }

    /// How many failures there were since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts anew, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014).
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_spread_over_all_of_it() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(10));
        let mut longest = Duration::ZERO;
        let mut shortest = cap;
        let mut backoff = Backoff::with_seed(base, cap, 7);
        for failure in 0..1000_u32 {
            let wait = backoff.next_wait();
            assert!(wait <= cap);
            assert!(wait <= base * 2_u32.pow(failure.min(7)), "failure {failure}: {wait:?}");
            if failure > 7 {
                longest = longest.max(wait);
                shortest = shortest.min(wait);
            }
        }
        assert!(longest > cap * 9 / 10 && shortest < cap / 10, "{shortest:?} to {longest:?}");
    }

    #[test]
    fn two_clients_do_not_wait_alike() {
        let waits = |mut backoff: Backoff| (0..20).map(|_| backoff.next_wait()).collect::<Vec<_>>();
        let (base, cap) = (Duration::from_secs(1), Duration::from_mins(1));
        assert_ne!(waits(Backoff::new(base, cap)), waits(Backoff::new(base, cap)));
        assert_eq!(waits(Backoff::with_seed(base, cap, 1)), waits(Backoff::with_seed(base, cap, 1)));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        for _ in 0..100 {
            backoff.next_wait();
        }
        assert_eq!(Backoff::new(Duration::ZERO, Duration::MAX).next_wait(), Duration::ZERO);
    }
}
