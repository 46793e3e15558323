//! What Kafka and the registry have refused, by their own codes: what `errors_total` has, by ours, is what came of it.
//!
//! The labels are bounded. librdkafka's names are those of its list; what a registry answers is whatever stands there, so that after so many of its
//! answers all others are one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use prometheus::IntCounterVec;
use publisher::{ErrorObserver, Reported};
use registry::RegistryError;

use super::{Metrics, made::Made, whole};

/// How many kinds of answers of a registry have a series.
const ANSWERS_MAX: usize = 100;
const OTHER: &str = "other";

#[derive(Clone)]
pub(super) struct Refused {
    kafka: IntCounterVec,
    registry: IntCounterVec,
    answers: Arc<Mutex<BTreeSet<[String; 3]>>>,
}

impl Refused {
    pub(super) fn new(made: &Made<'_>) -> Self {
        Self {
            kafka: made.counters(
                "kafka_client_errors_total",
                "Errors that librdkafka reported, by its own code and by where: client (it tries again by itself), record (that was not delivered), or transaction (a step of one).",
                &["reported", "code"],
            ),
            registry: made.counters(
                "registry_errors_total",
                "Requests to the schema registry that failed, by what was asked for, HTTP status (or, without an answer, the kind of failure) and the registry's error_code, 0 for none.",
                &["operation", "status", "error_code"],
            ),
            answers: Arc::default(),
        }
    }

    fn kafka(&self, reported: Reported, code: &str) {
        let reported = match reported {
            Reported::ByClient => "client",
            Reported::ForRecord => "record",
            Reported::ForTransaction => "transaction",
        };
        self.kafka.with_label_values(&[reported, code]).inc();
    }

    fn registry(&self, operation: &str, status: String, error_code: Option<i64>) {
        let answer = [operation.to_owned(), status, error_code.unwrap_or_default().to_string()];
        let mut answers = whole(&self.answers);
        let [operation, status, code] = if answers.contains(&answer) || answers.len() < ANSWERS_MAX {
            answers.insert(answer.clone());
            answer
        } else {
            [OTHER; 3].map(str::to_owned)
        };
        self.registry.with_label_values(&[operation, status, code]).inc();
    }

    /// One of each.
    pub(super) fn sample(&self) {
        self.kafka.with_label_values(&["", ""]);
        self.registry.with_label_values(&["", "", ""]);
    }
}

impl Metrics {
    /// Counts what librdkafka reports, for the settings of its clients.
    pub fn kafka_errors(&self) -> ErrorObserver {
        let refused = self.refused.clone();
        ErrorObserver::new(move |reported, code| refused.kafka(reported, code))
    }

    /// Counts what a registry refuses.
    pub fn registry_errors(&self) -> impl Fn(&RegistryError) + Send + Sync + 'static {
        let refused = self.refused.clone();
        move |error| {
            let status = error.status().map_or_else(|| error.kind().name().to_owned(), |status| status.to_string());
            refused.registry(error.operation(), status, error.code());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_cannot_make_series_without_end() {
        let metrics = Metrics::new(0);
        for number in 0..1000 {
            metrics.refused.registry("registering subject", "422".to_owned(), Some(number));
        }
        // One that is known goes on to be counted for itself.
        metrics.refused.registry("registering subject", "422".to_owned(), Some(7));
        let text = metrics.render();
        assert_eq!(text.matches("pgsluice_registry_errors_total{").count(), ANSWERS_MAX + 1);
        for line in [
            r#"pgsluice_registry_errors_total{error_code="other",operation="other",status="other"} 900"#,
            r#"pgsluice_registry_errors_total{error_code="7",operation="registering subject",status="422"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn what_was_said_is_counted_as_it_was_said() {
        let metrics = Metrics::new(0);
        let refused = &metrics.refused;
        refused.kafka(Reported::ForRecord, "MSG_SIZE_TOO_LARGE");
        for _ in 0..2 {
            refused.registry("registering subject", "unreachable".to_owned(), None);
        }
        let text = metrics.render();
        for line in [
            r#"pgsluice_kafka_client_errors_total{code="MSG_SIZE_TOO_LARGE",reported="record"} 1"#,
            r#"pgsluice_registry_errors_total{error_code="0",operation="registering subject",status="unreachable"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
