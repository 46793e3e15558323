//! One frame.

use std::time::{Duration, Instant};

use indicatif::HumanCount;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Cell, Gauge, Paragraph, Row, Sparkline, Table},
};

use super::words::{bytes, rate, time};
use crate::{
    commands::instance::Address,
    failure::Failure,
    metrics::{
        status::{Copies, Copy, Position, Status},
        verdict::{Level, Verdict},
    },
    snapshot::control::State,
};

/// How many copies, and how many failures, take lines from the tables.
const COPIES_MAX: usize = 4;
const FAILURES_MAX: usize = 3;

/// What is shown.
pub(super) struct View {
    address: Address,
    /// What a key does, where there are keys.
    hint: &'static str,
    status: Option<Status>,
    answered: Option<Instant>,
    /// Why there was no answer to the last question.
    problem: Option<String>,
}

impl View {
    /// Before there is an answer.
    pub(super) fn unknown(address: Address, hint: &'static str) -> Self {
        Self { address, hint, status: None, answered: None, problem: None }
    }

    pub(super) fn take(&mut self, answer: Result<Status, Failure>) {
        match answer {
            Ok(status) => {
                (self.status, self.problem) = (Some(status), None);
                self.answered = Some(Instant::now());
            }
            Err(failure) => self.problem = Some(failure.found().to_owned()),
        }
    }

    /// What is true of the instance itself; where it does not answer, that.
    fn verdict(&self) -> Verdict {
        match (&self.problem, &self.status) {
            (Some(problem), status) => Verdict {
                level: Level::Problem,
                text: "The instance does not answer.".to_owned(),
                detail: Some(problem.clone()),
                advice: Some(if status.is_some() {
                    "What is below is what it said last. See whether the process runs, and what its log ends with."
                        .to_owned()
                } else {
                    "See whether the process runs, and whether http.listen, or --instance, is where it listens."
                        .to_owned()
                }),
                code: None,
            },
            (None, Some(status)) => status.verdict.clone(),
            (None, None) => Verdict {
                level: Level::Waiting,
                text: "Asking the instance.".to_owned(),
                detail: None,
                advice: None,
                code: None,
            },
        }
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let verdict = view.verdict();
    let lines = verdict_lines(&verdict, usize::from(frame.area().width.saturating_sub(SIGN_COLUMNS)));
    // In a low terminal the numbers come before the words.
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(frame.area().height / 3).max(1);
    let [top, told, _, below] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(height),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(frame.area());
    header(frame, top, view);
    let [sign, words] = Layout::horizontal([Constraint::Length(SIGN_COLUMNS), Constraint::Fill(1)]).areas(told);
    frame.render_widget(verdict_sign(verdict.level), sign);
    frame.render_widget(Paragraph::new(lines), words);
    if let Some(status) = &view.status {
        body(frame, below, status);
        if view.problem.is_some() {
            frame.buffer_mut().set_style(below, Style::new().fg(Color::DarkGray));
        }
    }
}

fn header(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let mut spans = vec![" pgsluice ".reversed().bold()];
    if let Some(status) = &view.status {
        spans.push(format!(" {} ", clean(&status.name)).bold());
        spans.push(format!("{}  up {}  ", status.version, time(since(status.now_ms, status.started_ms))).into());
    }
    spans.push(view.address.to_string().dim());
    frame.render_widget(Line::from(spans), area);
    let age = view.answered.map(|at| at.elapsed()).unwrap_or_default();
    let right = match (&view.problem, view.answered) {
        (Some(_), Some(_)) => format!("from {} s ago ", age.as_secs()).red().bold(),
        (Some(_), None) => "no answer ".red().bold(),
        (None, Some(_)) if age > Duration::from_secs(3) => format!("{} s old ", age.as_secs()).yellow(),
        (None, _) => view.hint.dim(),
    };
    let [_, right_area] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(width_of(&right))]).areas(area);
    frame.render_widget(right, right_area);
}

fn width_of(span: &Span<'_>) -> u16 {
    u16::try_from(span.width()).unwrap_or(u16::MAX)
}

/// The sign, and a space.
const SIGN_COLUMNS: u16 = 5;

fn verdict_sign(level: Level) -> Span<'static> {
    let (sign, colour) = match level {
        Level::Well => (" OK ", Color::Green),
        Level::Waiting => (" .. ", Color::Blue),
        Level::Warning => (" !  ", Color::Yellow),
        Level::Problem => (" !! ", Color::Red),
    };
    Span::styled(sign, Style::new().fg(colour).add_modifier(Modifier::REVERSED | Modifier::BOLD))
}

fn verdict_lines(verdict: &Verdict, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<_> = wrapped(&verdict.text, width).into_iter().map(|line| Line::from(line.bold())).collect();
    for said in [&verdict.detail, &verdict.advice].into_iter().flatten() {
        lines.extend(wrapped(said, width).into_iter().map(Line::from));
    }
    if let Some(code) = &verdict.code {
        lines.push(Line::from(format!("More: pgsluice explain {code}").dim()));
    }
    lines
}

/// Lines of whole words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in clean(text).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if Span::from(line.as_str()).width() + 1 + Span::from(word).width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn body(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let copying: Vec<_> =
        status.copies.iter().flat_map(|copies| &copies.tables).filter(|copy| copy.state.is_going_on()).collect();
    let is_high = area.height >= 30;
    let lines = |shown: usize, most: usize| match shown {
        0 => 0,
        shown => u16::try_from(shown.min(most) + 2).unwrap_or(u16::MAX),
    };
    // What matters more is given room first; the charts have what is left, and the tables what they leave.
    let mut left = area.height;
    let mut give = |wanted: u16| {
        let given = wanted.min(left);
        left -= given;
        given
    };
    let (numbers, _tables) = (give(4), give(3));
    let failures = give(lines(status.failures.len(), if is_high { FAILURES_MAX } else { 1 }));
    let copies = give(lines(copying.len(), if is_high { COPIES_MAX } else { 2 }));
    let positions_lines = give(5);
    let charts = match left {
        20.. => 10,
        12..20 => 7,
        5..12 => 5,
        _ => 0,
    };
    let lengths = [numbers, positions_lines, charts, copies, failures].map(Constraint::Length);
    let [numbers, where_it_is, charts, copies, failures, tables] =
        Layout::vertical(lengths.into_iter().chain([Constraint::Fill(1)])).areas(area);
    tiles(frame, numbers, status);
    positions(frame, where_it_is, status);
    history(frame, charts, status);
    if let Some(known) = &status.copies {
        progress(frame, copies, known, &copying);
    }
    newest_failures(frame, failures, status);
    busiest(frame, tables, status);
}

/// Columns of a label, a number and what is to be said of it.
fn columns(frame: &mut Frame<'_>, area: Rect, shown: Vec<[Span<'static>; 3]>) {
    let areas = Layout::horizontal(shown.iter().map(|_| Constraint::Fill(1))).spacing(1).split(area);
    for (area, spans) in areas.iter().zip(shown) {
        frame.render_widget(Paragraph::new(spans.map(Line::from).to_vec()), *area);
    }
}

fn tiles(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let total = status.latencies.stages.iter().find(|stage| stage.stage == "source_to_committed");
    let slot = status.slot.as_ref();
    let left = slot.map_or_else(String::new, |slot| match (slot.seconds_to_loss, slot.safe_bytes) {
        (Some(seconds), _) => format!("lost in {}", time(seconds * 1000.0)),
        (None, Some(safe)) => format!("{} left", bytes(real(safe.max(0)))),
        (None, None) => slot.kept_bytes.map_or_else(String::new, |kept| format!("{} kept", bytes(real(kept)))),
    });
    let dash = || "-".to_owned();
    let shown = [
        ("Lag", time(real(status.lag.ms)), format!("{} of log", bytes(real(status.lag.bytes)))),
        (
            "Events",
            status.rates.events_per_second.map_or_else(dash, rate),
            status.rates.bytes_per_second.map_or_else(String::new, |value| format!("{}/s", bytes(value))),
        ),
        (
            "Latency p50",
            total.and_then(|stage| stage.p50_ms).map_or_else(dash, time),
            total.and_then(|stage| stage.p99_ms).map_or_else(String::new, |value| format!("p99 {}", time(value))),
        ),
        (
            "Slot",
            slot.map_or_else(
                || "not seen".to_owned(),
                |slot| slot.status.clone().unwrap_or_else(|| "unknown".to_owned()),
            ),
            left,
        ),
        (
            "In flight",
            bytes(real(status.memory.queue_bytes)),
            format!("of {}", bytes(real(status.memory.queue_limit_bytes))),
        ),
    ];
    let spans = shown.map(|(label, value, more)| [Span::from(label).dim(), clean(&value).bold(), Span::from(more)]);
    columns(frame, area, spans.to_vec());
}

fn positions(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let known = &status.positions;
    let stops = [
        ("Server", &known.server),
        ("Received", &known.received),
        ("Published", &known.published),
        ("Committed", &known.committed),
        ("Confirmed", &known.confirmed),
    ];
    let [title, below] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    heading(frame, title, "Where the stream is");
    let gap = |before: Option<&Position>, here: Option<&Position>| {
        let (before, here) = (before?, here?);
        let gap = before.bytes.checked_sub(here.bytes).filter(|gap| *gap > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let gap = gap as f64;
        Some(format!("-{}", bytes(gap)))
    };
    let mut before = None;
    let shown = stops.map(|(label, position)| {
        let behind = gap(before, position.as_ref());
        before = position.as_ref();
        let lsn = position.as_ref().map_or_else(|| "not yet".to_owned(), |position| position.lsn.clone());
        [Span::from(label).dim(), Span::from(clean(&lsn)), Span::from(behind.unwrap_or_default()).yellow()]
    });
    columns(frame, below, shown.to_vec());
}

/// What it is called, its values, and how they are told.
type Chart = (&'static str, Vec<f64>, fn(f64) -> String);

fn history(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    if area.height == 0 {
        return;
    }
    let history = &status.history;
    let of_numbers = |values: &[i64]| values.iter().map(|value| real(*value)).collect::<Vec<_>>();
    let of_known = |values: &[Option<f64>]| values.iter().map(|value| value.unwrap_or_default()).collect::<Vec<_>>();
    let shown: [Chart; 3] = [
        ("Lag", of_numbers(&history.lag_ms), time),
        ("Events", history.events_per_second.clone(), rate),
        ("Latency p99", of_known(&history.source_to_committed_p99_ms), time),
    ];
    let areas = Layout::horizontal([Constraint::Fill(1); 3]).spacing(2).split(area);
    for (area, (label, values, words)) in areas.iter().zip(shown) {
        let [title, below, _] =
            Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(*area);
        let most = values.iter().copied().fold(0.0, f64::max);
        let told = vec![label.into(), format!("  max {}", words(most)).dim()];
        frame.render_widget(Line::from(told), title);
        let bars = squeezed(&values, usize::from(below.width), most);
        frame.render_widget(Sparkline::default().data(bars).max(RESOLUTION).style(Color::Blue), below);
    }
}

/// The highest bar.
const RESOLUTION: u64 = 1000;

/// The quarter of an hour in so many bars, each the most of its time, with the newest at the right.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "bars of a few steps"
)]
fn squeezed(values: &[f64], width: usize, most: f64) -> Vec<u64> {
    let per_bar = 180_usize.div_ceil(width.max(1)).max(1);
    let bars: Vec<_> = values
        .rchunks(per_bar)
        .map(|values| values.iter().copied().fold(0.0, f64::max))
        .map(|value| if most > 0.0 { (value / most * RESOLUTION as f64) as u64 } else { 0 })
        .take(width)
        .collect();
    std::iter::repeat_n(0, width - bars.len()).chain(bars.into_iter().rev()).collect()
}

fn heading(frame: &mut Frame<'_>, area: Rect, text: &str) {
    frame.render_widget(Line::from(text.to_owned().bold().underlined()), area);
}

fn progress(frame: &mut Frame<'_>, area: Rect, known: &Copies, copying: &[&Copy]) {
    if area.height == 0 {
        return;
    }
    let [title, rows, _] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    let paused = if known.paused { ", paused" } else { "" };
    heading(frame, title, &format!("Rows of before: {} of {} tables copied{paused}", known.copied, known.total));
    for (area, copy) in rows.rows().zip(copying) {
        let [name, bar, rows] =
            Layout::horizontal([Constraint::Fill(2), Constraint::Fill(2), Constraint::Fill(3)]).spacing(1).areas(area);
        frame.render_widget(Line::from(clean(&copy.table)), name);
        let speed = copy.rows_per_second.map_or_else(String::new, |value| format!(", {}", rate(value)));
        let told = match &copy.problem {
            Some(problem) => format!("{}: {}", copy.state.words(), clean(problem)),
            None => format!("{}, {} rows{speed}", copy.state.words(), HumanCount(copy.rows)),
        };
        frame.render_widget(Line::from(told), rows);
        if let (State::Copying, Some(estimated)) = (copy.state, copy.rows_estimated.filter(|rows| *rows > 0)) {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let share = (copy.rows as f64 / estimated as f64).min(1.0);
            frame.render_widget(Gauge::default().ratio(share).gauge_style(Color::Blue), bar);
        }
    }
}

fn newest_failures(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    if area.height == 0 {
        return;
    }
    let mut lines = vec![Line::from("Recent failures".bold().underlined())];
    for failure in status.failures.iter().take(usize::from(area.height.saturating_sub(2))) {
        let age = time(since(status.now_ms, failure.last_ms));
        let times = if failure.times > 1 { format!(", {} times", failure.times) } else { String::new() };
        lines.push(Line::from(vec![
            clean(&failure.code).red(),
            format!(" {age} ago{times}: ").dim(),
            Span::from(clean(&failure.text)),
        ]));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn busiest(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let tables = &status.tables;
    // Truncations are rare, and names are long.
    let is_wide = area.width >= 100;
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let rows = tables.busiest.iter().map(|table| {
        let operations = [table.insert, table.update, table.delete, table.dead_letter, table.truncate];
        let shown = if is_wide { &operations[..] } else { &operations[..4] };
        let numbers = std::iter::once(operations.iter().sum()).chain(shown.iter().copied());
        let name = Cell::from(clean(&format!("{}.{}", table.schema, table.table)));
        Row::new(std::iter::once(name).chain(numbers.map(|number| right(HumanCount(number).to_string()))))
    });
    let names = ["Events", "Inserts", "Updates", "Deletes", "Letters", "Truncates"];
    let names = if is_wide { &names[..] } else { &names[..5] };
    let widths = std::iter::once(Constraint::Fill(1)).chain(names.iter().map(|_| Constraint::Length(9)));
    let first = Cell::from(format!("Tables ({})", HumanCount(tables.total)));
    let header = Row::new(std::iter::once(first).chain(names.iter().map(|name| right((*name).to_owned()))));
    frame.render_widget(Table::new(rows, widths).header(header.style(Style::new().bold().underlined())), area);
}

/// Names come from whoever may create a table: nothing in them commands the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn since(now_ms: i64, then_ms: i64) -> f64 {
    real(now_ms.saturating_sub(then_ms).max(0))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn real(number: i64) -> f64 {
    number as f64
}
