//! What was measured in the last quarter of an hour, so that whoever opens the status page sees what was before.
//!
//! Every five seconds a task of its own reads the counters that there are anyway. Nothing is added where a row passes.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::{Histogram, core::Metric};
use tokio::time::MissedTickBehavior;

use super::{Metrics, made::LATENCY_BUCKETS_SECONDS};

/// How often a sample is taken.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// A quarter of an hour.
const SAMPLES_MAX: usize = 180;
/// A minute: over so many intervals the latencies of the present are taken.
const INTERVALS_OF_NOW: usize = 12;

/// How many stages are measured.
pub(super) const STAGES: usize = 5;
/// Which of them the history has.
pub(super) const RECEIVED_TO_COMMITTED: usize = 3;
pub(super) const SOURCE_TO_COMMITTED: usize = 4;

/// Takes samples for as long as the program runs.
pub async fn keep(metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.take_sample();
    }
}

/// The state of what only grows.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) stages: [Counts; STAGES],
}

/// The state of what goes up and down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    pub(super) at_ms: i64,
    pub(super) lag_ms: i64,
    pub(super) lag_bytes: i64,
    pub(super) kept_bytes: Option<i64>,
}

/// How many observations each bucket of a histogram has, those of the buckets before it among them; the last has all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts([u64; LATENCY_BUCKETS_SECONDS.len() + 1]);

/// The median and the 99th percentile of some observations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quantiles {
    pub(super) count: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// What was measured in one interval.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) levels: Levels,
    pub(super) events_per_second: f64,
    pub(super) bytes_per_second: f64,
    /// None where nothing was committed.
    pub(super) source_to_committed: Option<Quantiles>,
    pub(super) received_to_committed: Option<Quantiles>,
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// The oldest first.
    samples: VecDeque<Sample>,
    /// The last of them; the first of all is the beginning of the first interval.
    readings: VecDeque<Reading>,
}

impl Counts {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let metric = histogram.metric();
        let histogram = metric.get_histogram();
        let mut counts = Self::default();
        for (count, bucket) in counts.0.iter_mut().zip(histogram.get_bucket()) {
            *count = bucket.cumulative_count();
        }
        // The sum is read before the buckets and may miss what was observed in between.
        let all = counts.0.iter().copied().max().unwrap_or_default().max(histogram.get_sample_count());
        counts.0[LATENCY_BUCKETS_SECONDS.len()] = all;
        counts
    }

    /// Those that have come since; none if there are none.
    fn since(&self, before: &Self) -> Option<Quantiles> {
        let mut new = self.0;
        for (new, before) in new.iter_mut().zip(before.0) {
            *new = new.saturating_sub(before);
        }
        let count = new[LATENCY_BUCKETS_SECONDS.len()];
        (count > 0).then(|| Quantiles { count, p50_ms: quantile(&new, 0.5), p99_ms: quantile(&new, 0.99) })
    }
}

/// As Prometheus's `histogram_quantile` has it: even within a bucket, and the last bound for what lies beyond.
fn quantile(counts: &[u64; LATENCY_BUCKETS_SECONDS.len() + 1], quantile: f64) -> f64 {
    let rank = real(counts[LATENCY_BUCKETS_SECONDS.len()]) * quantile;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in LATENCY_BUCKETS_SECONDS.into_iter().zip(counts) {
        let count = real(*count);
        if count >= rank && count > below {
            return (lower + (bound - lower) * (rank - below) / (count - below)) * 1000.0;
        }
        (lower, below) = (bound, count);
    }
    lower * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "nobody needs it to the last digit")]
fn real(count: u64) -> f64 {
    count as f64
}

impl History {
    /// Takes note of one more interval.
    pub(super) fn take(&mut self, reading: Reading, levels: Levels) {
        if let Some(before) = self.readings.back() {
            let seconds = reading.at.duration_since(before.at).as_secs_f64();
            if seconds <= 0.0 {
                return;
            }
            let stage = |stage: usize| reading.stages[stage].since(&before.stages[stage]);
            let sample = Sample {
                levels,
                events_per_second: real(reading.events.saturating_sub(before.events)) / seconds,
                bytes_per_second: real(reading.bytes.saturating_sub(before.bytes)) / seconds,
                source_to_committed: stage(SOURCE_TO_COMMITTED),
                received_to_committed: stage(RECEIVED_TO_COMMITTED),
            };
            if self.samples.len() == SAMPLES_MAX {
                self.samples.pop_front();
            }
            self.samples.push_back(sample);
        }
        if self.readings.len() > INTERVALS_OF_NOW {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
    }

    pub(super) fn samples(&self) -> impl DoubleEndedIterator<Item = &Sample> {
        self.samples.iter()
    }

    /// The latencies of the last minute.
    pub(super) fn latencies(&self) -> [Option<Quantiles>; STAGES] {
        match (self.readings.front(), self.readings.back()) {
            (Some(first), Some(last)) => std::array::from_fn(|stage| last.stages[stage].since(&first.stages[stage])),
            _ => [None; STAGES],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant, events: u64, seconds: &[f64]) -> Reading {
        let options = prometheus::HistogramOpts::new("a", "b").buckets(LATENCY_BUCKETS_SECONDS.to_vec());
        let histogram = Histogram::with_opts(options).expect("a histogram");
        for observed in seconds {
            histogram.observe(*observed);
        }
        Reading { at, events, bytes: events * 100, stages: [Counts::of(&histogram); STAGES] }
    }

    const LEVELS: Levels = Levels { at_ms: 1, lag_ms: 2, lag_bytes: 3, kept_bytes: None };

    #[test]
    fn an_interval_has_what_has_come_in_it() {
        let start = Instant::now();
        let mut history = History::default();
        history.take(reading(start, 0, &[]), LEVELS);
        history.take(reading(start + INTERVAL, 50, &[0.003; 100]), LEVELS);
        history.take(reading(start + 2 * INTERVAL, 50, &[0.003; 100]), LEVELS);
        let samples: Vec<_> = history.samples().collect();
        assert!(
            (samples[0].events_per_second - 10.0).abs() < 1e-9 && (samples[0].bytes_per_second - 1000.0).abs() < 1e-9
        );
        // The bucket from 2 to 4 ms: half of its observations lie below its middle.
        let quantiles = samples[0].source_to_committed.expect("there are some");
        assert_eq!(quantiles.count, 100);
        assert!((quantiles.p50_ms - 3.0).abs() < 1e-9 && (quantiles.p99_ms - 3.98).abs() < 1e-9, "{quantiles:?}");
        assert!(samples[1].events_per_second.abs() < 1e-9 && samples[1].source_to_committed.is_none());
        assert_eq!(history.latencies()[0].map(|quantiles| quantiles.count), Some(100));
    }

    #[test]
    fn what_lies_beyond_the_last_bound_is_that_bound() {
        let start = Instant::now();
        let mut history = History::default();
        history.take(reading(start, 0, &[]), LEVELS);
        history.take(reading(start + INTERVAL, 0, &[1000.0]), LEVELS);
        let quantiles = history.latencies()[0].expect("there is one");
        assert!((quantiles.p50_ms - 60_000.0).abs() < 1e-9, "{quantiles:?}");
    }

    #[test]
    fn it_is_bounded() {
        let start = Instant::now();
        let mut history = History::default();
        history.take(reading(start, 0, &[]), LEVELS);
        for step in 1..=1000_u32 {
            let levels = Levels { at_ms: step.into(), ..LEVELS };
            history.take(reading(start + step * INTERVAL, step.into(), &vec![0.1; step as usize]), levels);
        }
        let samples: Vec<_> = history.samples().collect();
        assert_eq!((samples.len(), samples[0].levels.at_ms, samples[179].levels.at_ms), (180, 821, 1000));
        assert_eq!(history.readings.len(), INTERVALS_OF_NOW + 1);
        assert_eq!(
            history.latencies()[0].map(|quantiles| quantiles.count),
            Some(12),
            "one in each interval of the last minute"
        );
    }
}
