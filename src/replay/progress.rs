//! How far a replay is, in a terminal.

use std::collections::HashMap;

use indicatif::{ProgressBar, ProgressStyle};

use super::reading::Span;

/// A bar on standard error, which is drawn only where that is a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Where each partition is.
    next: HashMap<(String, i32), i64>,
}

impl Progress {
    /// One for these spans; of what has no end there is none.
    pub(crate) fn new(spans: &[Span], is_wanted: bool) -> Self {
        let length: Option<u64> = spans.iter().map(|span| Some((span.to? - span.from).max(0).unsigned_abs())).sum();
        let bar = match length {
            Some(length) if is_wanted => ProgressBar::new(length),
            _ => ProgressBar::hidden(),
        };
        let style = "{bar:30} {percent:>3}%  {human_pos} of {human_len} offsets, {per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let next = spans.iter().map(|span| ((span.topic.clone(), span.partition), span.from)).collect();
        Self { bar, next }
    }

    /// A record was read. Marks and what was compacted away have offsets too.
    pub(crate) fn read(&mut self, topic: &str, partition: i32, offset: i64) {
        if self.bar.is_hidden() {
            return;
        }
        if let Some(next) = self.next.get_mut(&(topic.to_owned(), partition)) {
            self.bar.inc((offset + 1 - *next).max(0).unsigned_abs());
            *next = offset + 1;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
