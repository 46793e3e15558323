//! Makes and registers metrics under the program's prefix.

use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// From half a millisecond to a minute, each step about double.
pub(super) const LATENCY_BUCKETS_SECONDS: [f64; 17] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 60.0];

pub(super) struct Made<'a>(pub(super) &'a Registry);

impl Made<'_> {
    fn registered<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect("a metric's name and labels are literals that a test has read");
        self.0.register(Box::new(collector.clone())).expect("each metric is declared once");
        collector
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.registered(IntGauge::with_opts(Opts::new(name, help).namespace("pgsluice")))
    }

    pub(super) fn real(&self, name: &str, help: &str) -> Gauge {
        self.registered(Gauge::with_opts(Opts::new(name, help).namespace("pgsluice")))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.registered(IntGaugeVec::new(Opts::new(name, help).namespace("pgsluice"), labels))
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.registered(IntCounter::with_opts(Opts::new(name, help).namespace("pgsluice")))
    }

    pub(super) fn real_counter(&self, name: &str, help: &str) -> Counter {
        self.registered(Counter::with_opts(Opts::new(name, help).namespace("pgsluice")))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.registered(IntCounterVec::new(Opts::new(name, help).namespace("pgsluice"), labels))
    }

    pub(super) fn latency(&self, name: &str, help: &str) -> Histogram {
        let options = HistogramOpts::new(name, help).namespace("pgsluice").buckets(LATENCY_BUCKETS_SECONDS.to_vec());
        self.registered(Histogram::with_opts(options))
    }
}
