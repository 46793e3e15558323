//! How far copies are, for people.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use indicatif::{HumanBytes, HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use crate::snapshot::control::{State, Status, TableStatus};

/// So many bars, of two lines each, fit into a terminal.
const BARS_MAX: usize = 10;

/// A table of tables: those that are named, or all.
pub(super) fn tables(status: &Status, named: &[String]) -> String {
    let mut text = String::new();
    if status.paused {
        text.push_str("copying is paused: `pgsluice snapshot resume` goes on\n\n");
    }
    if let Some(parallel) = status.parallel {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "connections until nothing is left to copy, as asked: {parallel}\n");
    }
    let shown: Vec<_> = status.tables.iter().filter(|table| named.is_empty() || named.contains(&table.table)).collect();
    if shown.is_empty() {
        text.push_str("no table is streamed\n");
        return text;
    }
    let width = shown.iter().map(|table| table.table.chars().count()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "{:width$}  {:<17} {:>14} {:>12}  LEFT", "TABLE", "STATE", "ROWS", "BYTES");
    for table in shown {
        let bytes = HumanBytes(table.bytes).to_string();
        let rows = HumanCount(table.rows).to_string();
        let left = left(table).map_or(String::new(), |left| format!("  {left}"));
        let state = match table.connections {
            Some(connections) => format!("{} by {connections}", table.state.words()),
            None => table.state.words().to_owned(),
        };
        let line = format!("{:width$}  {state:<17} {rows:>14} {bytes:>12}{left}", table.table);
        let _ = writeln!(text, "{}", line.trim_end());
        for (word, said) in [("where", &table.condition), ("", &table.problem)] {
            if let Some(said) = said {
                let _ = writeln!(text, "{:width$}  {}", "", format!("{word} {said}").trim_start());
            }
        }
    }
    text
}

/// How long it may take still, of rows that its statistics know.
fn left(table: &TableStatus) -> Option<String> {
    let (estimated, rate) = (table.rows_estimated?, table.rows_per_second?);
    let left = estimated.checked_sub(table.rows).filter(|left| *left > 0)?;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let seconds = left as f64 / rate;
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    Some(format!("about {:#} at {} rows/s", HumanDuration(duration), rounded(rate)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
fn rounded(rate: f64) -> HumanCount {
    HumanCount(rate.max(0.0) as u64)
}

/// Progress in a terminal: a bar for each table that is being copied, and one line for all. Where there is no terminal, nothing is drawn but
/// the end.
pub(super) struct Bars {
    all: MultiProgress,
    summary: ProgressBar,
    of_tables: BTreeMap<String, ProgressBar>,
}

impl Bars {
    pub(super) fn new() -> Self {
        let all = MultiProgress::new();
        let summary = all.add(ProgressBar::new_spinner());
        Self { all, summary, of_tables: BTreeMap::new() }
    }

    pub(super) fn show(&mut self, status: &Status) {
        let copying = |table: &&TableStatus| table.state == State::Copying;
        let shown: Vec<_> = status.tables.iter().filter(copying).take(BARS_MAX).collect();
        self.of_tables.retain(|name, bar| {
            let stays = shown.iter().any(|table| table.table == *name);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for table in shown {
            let bar = self.of_tables.entry(table.table.clone()).or_insert_with(|| {
                let bar = self.all.insert_before(&self.summary, ProgressBar::new(0));
                bar.set_style(style());
                bar.set_prefix(table.table.clone());
                bar
            });
            bar.set_length(table.rows_estimated.unwrap_or(table.rows).max(table.rows));
            bar.set_position(table.rows);
            bar.set_message(format!(
                "{}{}",
                HumanBytes(table.bytes),
                left(table).map_or(String::new(), |left| format!(", {left}"))
            ));
        }
        self.summary.set_message(summary(status));
    }

    pub(super) fn finish(self, status: &Status) {
        self.summary.finish_and_clear();
        println!("{}", summary(status));
    }
}

fn style() -> ProgressStyle {
    // In 80 columns a line has no room for a bar and all that is said beside it.
    ProgressStyle::with_template("{prefix:40!} {bar:30} {percent:>3}%\n  {human_pos} of about {human_len} rows, {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn summary(status: &Status) -> String {
    let count = |state| status.tables.iter().filter(|table| table.state == state).count();
    let mut text = if status.paused { "paused: ".to_owned() } else { String::new() };
    let _ = write!(text, "{} of {} tables copied", count(State::Copied), status.tables.len());
    for state in [State::Copying, State::Waiting, State::PutOff, State::Impossible, State::Stopped, State::NotCopied] {
        let number = count(state);
        if number > 0 {
            let _ = write!(text, ", {number} {}", state.words());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, state: State) -> TableStatus {
        TableStatus {
            table: name.into(),
            name: None,
            state,
            rows: 0,
            bytes: 0,
            rows_estimated: None,
            rows_per_second: None,
            connections: None,
            condition: None,
            started_at_ms: None,
            ended_at_ms: None,
            problem: None,
        }
    }

    #[test]
    fn the_status_is_this_text() {
        let copying = TableStatus {
            rows: 1_234_567,
            bytes: 345 << 20,
            rows_estimated: Some(5_000_000),
            rows_per_second: Some(200_000.0),
            connections: Some(4),
            condition: Some("placed > '2026-01-01'".into()),
            ..table("public.order_item", State::Copying)
        };
        let failing = TableStatus {
            problem: Some("postgres-refused: permission denied".into()),
            ..table("public.t", State::PutOff)
        };
        let status =
            Status { paused: false, parallel: None, tables: vec![copying, failing, table("public.x", State::Copied)] };
        assert_eq!(
            tables(&status, &[]),
            "TABLE              STATE                       ROWS        BYTES  LEFT\n\
             public.order_item  copying by 4           1,234,567   345.00 MiB  about 19s at 200,000 rows/s\n\
             \u{20}                  where placed > '2026-01-01'\n\
             public.t           tried again later              0          0 B\n\
             \u{20}                  postgres-refused: permission denied\n\
             public.x           copied                         0          0 B\n"
        );
        assert_eq!(summary(&status), "1 of 3 tables copied, 1 copying, 1 tried again later");
        let said = tables(&Status { parallel: Some(4), ..status.clone() }, &[]);
        assert!(said.starts_with("connections until nothing is left to copy, as asked: 4\n\nTABLE "), "{said}");
        assert!(tables(&Status { paused: true, ..status }, &["public.x".into()]).starts_with("copying is paused"));
    }
}
