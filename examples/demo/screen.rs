//! What the reader sees: narration, and one line an event.

use std::{
    io::IsTerminal,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::avro::{Column, Row};

/// When output goes to a file, and no terminal says how wide it is.
const WIDTH_DEFAULT: usize = 132;
/// A line may wrap in a narrow terminal, rather than hide what has changed.
const CHANGE_WIDTH_MIN: usize = 30;
const KEY_WIDTH: usize = 27;
/// A single value is cut so that the others find room.
const VALUE_WIDTH: usize = 28;
/// Everything on an event's line but the change: the blanks between, and the columns as `Screen::event` lays them out.
const FIXED_WIDTH: usize = 2 + 12 + 2 + 6 + 2 + 11 + 2 + KEY_WIDTH + 2 + 2 + 8;

/// How lines are dressed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    colour: bool,
    width: usize,
}

/// A colour, or another dress.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

/// What there is to say about an event.
pub(crate) struct EventLine<'a> {
    pub(crate) commit_unix_us: i64,
    pub(crate) operation: &'a str,
    pub(crate) table: &'a str,
    pub(crate) key: &'a Row,
    pub(crate) change: &'a str,
    pub(crate) latency_us: Option<i64>,
}

impl Screen {
    /// Colours only where somebody looks, and has not asked for none.
    pub(crate) fn detect() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let width = if terminal { terminal_width().unwrap_or(WIDTH_DEFAULT) } else { WIDTH_DEFAULT };
        Self { colour, width }
    }

    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Red => "31",
            Style::Green => "32",
            Style::Yellow => "33",
            Style::Cyan => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The headline of a step.
    pub(crate) fn step(self, number: u32, of: u32, text: &str) {
        println!("\n{}", self.paint(Style::Bold, &format!("[{number}/{of}] {text}")));
    }

    /// What happens now.
    pub(crate) fn tell(self, text: &str) {
        println!("  {}", self.paint(Style::Cyan, text));
    }

    /// Something that went well, or did not.
    pub(crate) fn verdict(self, good: bool, text: &str) {
        let mark = if good { self.paint(Style::Green, "ok  ") } else { self.paint(Style::Red, "FAIL") };
        println!("  {mark}  {text}");
    }

    /// The head of the columns of events.
    pub(crate) fn event_head(self) {
        let head = format!(
            "  {:<12}  {:<6}  {:<11}  {:<KEY_WIDTH$}  {:<change$}  {:>8}",
            "commit (UTC)",
            "event",
            "table",
            "key",
            "what changed (before → after)",
            "latency",
            change = self.change_width(),
        );
        println!("{}", self.paint(Style::Dim, &head));
    }

    /// One event.
    pub(crate) fn event(self, line: &EventLine<'_>) {
        let style = match line.operation {
            "create" => Style::Green,
            "read" => Style::Cyan,
            "delete" => Style::Red,
            _ => Style::Yellow,
        };
        println!(
            "  {}  {}  {:<11}  {}  {}  {}",
            self.paint(Style::Dim, &clock(line.commit_unix_us)),
            self.paint(style, &format!("{:<6}", line.operation)),
            line.table,
            fit(&row_text(line.key, "="), KEY_WIDTH),
            fit(line.change, self.change_width()),
            self.paint(Style::Dim, &format!("{:>8}", line.latency_us.map(duration).unwrap_or_default())),
        );
    }

    fn change_width(self) -> usize {
        self.width.saturating_sub(FIXED_WIDTH).max(CHANGE_WIDTH_MIN)
    }
}

/// Cut or filled up to a width.
fn fit(text: &str, width: usize) -> String {
    let text = cut(text, width);
    format!("{text:<width$}")
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// `name=value` for each column.
pub(crate) fn row_text(row: &Row, between: &str) -> String {
    let column = |(name, value): &Column| format!("{name}{between}{}", value_text(value.as_deref()));
    row.iter().map(column).collect::<Vec<_>>().join(" ")
}

/// A value, shortened: of a UUID the first digits tell enough.
pub(crate) fn value_text(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(value) if uuid::Uuid::try_parse(value).is_ok() => format!("{}…", &value[..8]),
        Some(value) => cut(value, VALUE_WIDTH),
    }
}

/// The time of the day, in UTC.
pub(crate) fn clock(unix_us: i64) -> String {
    let millis = unix_us.div_euclid(1000).rem_euclid(86_400_000);
    let (seconds, millis) = (millis / 1000, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A span of time with a fitting unit.
pub(crate) fn duration(micros: i64) -> String {
    match micros {
        ..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// A number with its thousands set apart.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let grouped: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    grouped.join(",")
}

/// Microseconds since 1970.
pub(crate) fn now_unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn terminal_width() -> Option<usize> {
    let size = Command::new("stty").arg("size").stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    let columns: usize = String::from_utf8(size.stdout).ok()?.split_whitespace().nth(1)?.parse().ok()?;
    (columns > 0).then_some(columns)
}
