//! Latencies, in a fixed amount of memory: 32 steps to each doubling, so that a quantile is off by 3 % at most.

const STEPS: usize = 32;
const STEPS_BITS: u32 = STEPS.ilog2();

/// How often which latency was seen.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    pub(crate) count: u64,
    pub(crate) max_us: i64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; STEPS * 64], count: 0, max_us: 0 }
    }

    pub(crate) fn record(&mut self, latency_us: i64) {
        // Two clock readings on one machine may be swapped by a step of its clock; such a latency counts as none.
        let latency_us = latency_us.max(0);
        self.counts[step(latency_us.unsigned_abs())] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(latency_us);
    }

    /// The latency that this share (0 to 1) of the events did not exceed.
    pub(crate) fn quantile_us(&self, share: f64) -> i64 {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut below = 0;
        for (step, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank && below > 0 {
                return upper_bound_us(step).min(self.max_us);
            }
        }
        self.max_us
    }
}

fn step(latency_us: u64) -> usize {
    let doubling = latency_us.max(1).ilog2();
    if doubling < STEPS_BITS {
        return usize::try_from(latency_us).unwrap_or_default();
    }
    let shift = doubling - STEPS_BITS;
    let within = usize::try_from(latency_us >> shift).unwrap_or_default() - STEPS;
    STEPS * (shift as usize + 1) + within
}

fn upper_bound_us(step: usize) -> i64 {
    let (shift, within) = (step / STEPS, step % STEPS);
    if shift == 0 {
        return i64::try_from(within).unwrap_or(i64::MAX);
    }
    let bound = ((STEPS + within + 1) as u128) << (shift - 1);
    i64::try_from(bound - 1).unwrap_or(i64::MAX)
}
