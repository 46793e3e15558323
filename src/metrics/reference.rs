//! The metrics as a table, from the registry that counts them.

use std::{collections::BTreeSet, fmt::Write as _};

use encoder::Change;
use prometheus::proto::{MetricFamily, MetricType};

use super::Metrics;

impl Metrics {
    /// The metrics as a table in Markdown, for the documentation.
    pub fn reference_markdown() -> String {
        let mut text = String::from("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
        for family in families() {
            let labels: Vec<_> = family.get_metric().first().map_or_else(Vec::new, |metric| {
                metric.get_label().iter().map(|label| format!("`{}`", label.name())).collect()
            });
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            let (unit, labels, meaning) = (unit(family.name()), labels.join(", "), family.help());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| `{}` | {kind} | {unit} | {labels} | {meaning} |", family.name());
        }
        text
    }

    /// The names that can be asked for: those of the metrics, and of a histogram what Prometheus makes of it.
    pub fn series() -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for family in families() {
            let name = family.name();
            match family.get_field_type() {
                MetricType::HISTOGRAM => {
                    names.extend(["", "_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
                }
                _ => drop(names.insert(name.to_owned())),
            }
        }
        names
    }
}

/// Our own metrics, each with a sample: one without is not gathered.
fn families() -> Vec<MetricFamily> {
    let metrics = Metrics::new(0);
    metrics.table("", "").count(&Change::Truncate, 0);
    metrics.state("streaming");
    metrics.copies.sample();
    metrics.refused.sample();
    let families = metrics.registry.gather();
    families.into_iter().filter(|family| family.name().starts_with("pgsluice_")).collect()
}

/// What is counted, which the name says: names follow Prometheus's rules.
fn unit(name: &str) -> &'static str {
    let quantity = name.strip_suffix("_total").unwrap_or(name);
    let ends_with = |ends: &[&str]| ends.iter().any(|end| quantity.ends_with(end));
    if ends_with(&["_bytes"]) {
        "bytes"
    } else if ends_with(&["_milliseconds"]) {
        "milliseconds"
    } else if ends_with(&["_timestamp_seconds"]) {
        "seconds since 1970"
    } else if ends_with(&["_seconds"]) {
        "seconds"
    } else if ends_with(&["_lsn"]) {
        "position in the log, in bytes"
    } else if ends_with(&["_xid"]) {
        "a transaction id"
    } else if ends_with(&["_info", "_paused", "_ready", "_state", "_status", "_up"]) {
        "0 or 1"
    } else {
        "a count"
    }
}
