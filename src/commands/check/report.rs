//! What was found, for people and for machines.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::id::Id;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// The stream works, and something may go wrong later.
    Warning,
    /// The stream would not start, would stop, or would break something else.
    Error,
}

/// Where it was found. They are reported in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    Configuration,
    Postgres,
    Kafka,
    SchemaRegistry,
}

/// One check and what came of it. Machines read it in exactly this form.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    system: System,
    severity: Severity,
    id: Id,
    /// The table, topic or subject, where it is one's.
    about: Option<String>,
    found: String,
    why: Option<String>,
    fix: Option<String>,
}

/// Something to mend.
pub(super) struct Problem {
    pub(super) id: Id,
    /// What was found, without a full stop.
    pub(super) found: String,
    /// Why it matters.
    pub(super) why: String,
    /// The exact statement, command or setting that mends it.
    pub(super) fix: String,
}

/// What was found in one system.
#[derive(Debug)]
pub(super) struct Findings {
    system: System,
    list: Vec<Finding>,
}

/// What was found everywhere.
#[derive(Debug)]
pub(super) struct Report {
    findings: Vec<Finding>,
}

impl Findings {
    pub(super) fn new(system: System) -> Self {
        Self { system, list: Vec::new() }
    }

    /// Notes that something is as it should be.
    pub(super) fn ok(&mut self, id: impl Into<Id>, found: impl Into<String>) {
        self.note(Finding {
            system: self.system,
            severity: Severity::Ok,
            id: id.into(),
            about: None,
            found: printable(&found.into()),
            why: None,
            fix: None,
        });
    }

    /// Notes what may go wrong later.
    pub(super) fn warning(&mut self, problem: Problem) {
        self.problem(Severity::Warning, None, problem);
    }

    /// Notes what has to be mended.
    pub(super) fn error(&mut self, problem: Problem) {
        self.problem(Severity::Error, None, problem);
    }

    /// Notes a problem of one table, topic or subject, of which there may be several with one id.
    pub(super) fn about(&mut self, severity: Severity, about: impl fmt::Display, problem: Problem) {
        self.problem(severity, Some(about.to_string()), problem);
    }

    /// Whether a problem with this id was noted.
    pub(super) fn has(&self, id: impl Into<Id>) -> bool {
        let id = id.into();
        self.list.iter().any(|finding| finding.id == id && finding.severity != Severity::Ok)
    }

    fn problem(&mut self, severity: Severity, about: Option<String>, problem: Problem) {
        let Problem { id, found, why, fix } = problem;
        self.note(Finding {
            system: self.system,
            severity,
            id,
            about: about.map(|about| printable(&about)),
            found: printable(&found),
            why: Some(printable(&why)),
            fix: Some(printable(&fix)),
        });
    }

    fn note(&mut self, finding: Finding) {
        debug_assert!(finding.id.can_be(finding.severity), "{finding:?} is worse than its line in id.rs says");
        self.list.push(finding);
    }
}

impl Report {
    pub(super) fn new(systems: impl IntoIterator<Item = Findings>) -> Self {
        let mut findings: Vec<Finding> = systems.into_iter().flat_map(|findings| findings.list).collect();
        findings.sort_by_key(|finding| finding.system);
        Self { findings }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    pub(super) fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&self.findings)
    }

    /// A line for each check, grouped by system; under what is to be mended, why it matters and how to mend it.
    pub(super) fn to_text(&self, colour: bool) -> String {
        let id_width = self.findings.iter().map(|finding| finding.id.as_str().len()).max().unwrap_or(0);
        let indent = " ".repeat(2 + 7 + 2 + id_width + 2);
        let mut lines = Vec::new();
        let mut system = None;
        for finding in &self.findings {
            if system.replace(finding.system) != Some(finding.system) {
                let gap = if lines.is_empty() { "" } else { "\n" };
                lines.push(format!("{gap}{}", painted(finding.system.title(), "1", colour)));
            }
            let severity = painted(&format!("{:<7}", finding.severity.word()), finding.severity.paint(), colour);
            let about = finding.about.as_ref().map(|about| format!("{about}: ")).unwrap_or_default();
            lines.push(format!("  {severity}  {:<id_width$}  {about}{}", finding.id.as_str(), finding.found));
            for (word, words) in [("why", &finding.why), ("fix", &finding.fix)] {
                if let Some(words) = words {
                    lines.push(format!("{indent}{} {words}", painted(&format!("{word}:"), "2", colour)));
                }
            }
        }
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        lines.push(format!(
            "\n{}: {}, {}, {} ok. {}{}\n",
            plural(self.findings.len(), "check"),
            plural(errors, "error"),
            plural(warnings, "warning"),
            self.count(Severity::Ok),
            if errors == 0 { "`pgsluice run` can start." } else { "Mend the errors before `pgsluice run`." },
            if errors + warnings > 0 { " `pgsluice explain ID` says more." } else { "" },
        ));
        lines.join("\n")
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

impl System {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration",
            Self::Postgres => "PostgreSQL",
            Self::Kafka => "Kafka",
            Self::SchemaRegistry => "Schema registry",
        }
    }
}

impl Severity {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    const fn paint(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Warning => "33",
            Self::Error => "1;31",
        }
    }
}

/// At most `shown` of the items, and how many more there are.
pub(super) fn some_of<T: fmt::Display>(items: &[T], shown: usize) -> String {
    let text = items.iter().take(shown).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match items.len().checked_sub(shown) {
        None | Some(0) => text,
        Some(more) => format!("{text} and {more} more"),
    }
}

/// So many of something, in words.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The items that share a value, by value.
pub(super) fn grouped<K: Ord, V>(items: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, Vec<V>> {
    let mut groups: BTreeMap<K, Vec<V>> = BTreeMap::new();
    for (key, value) in items {
        groups.entry(key).or_default().push(value);
    }
    groups
}

/// Bytes in the unit that leaves them readable.
pub(super) fn bytes_text(bytes: i64) -> String {
    const UNITS: &[(i64, &str)] = &[(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

/// A duration as people say it.
pub(super) fn seconds_text(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

fn painted(text: &str, paint: &str, colour: bool) -> String {
    if colour { format!("\x1b[{paint}m{text}\x1b[0m") } else { text.to_owned() }
}

/// What a server has said may not forge lines of the report, nor move the terminal's cursor.
fn printable(text: &str) -> String {
    let spaced: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    spaced.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{commands::check::id::CheckId, failure::Code};

    fn report() -> Report {
        let mut kafka = Findings::new(System::Kafka);
        kafka.ok(CheckId::KafkaReachable, "1 broker");
        let mut postgres = Findings::new(System::Postgres);
        postgres.ok(CheckId::WalLevel, "logical");
        let problem = |id| Problem { id, found: "a\x1b[2Jb".into(), why: "c".into(), fix: "d\ne".into() };
        postgres.error(problem(Code::SlotLost.into()));
        postgres.about(Severity::Warning, "public.t", problem(CheckId::TableWithoutKey.into()));
        Report::new([kafka, postgres])
    }

    #[test]
    fn each_check_is_a_line_and_what_is_to_be_mended_has_two_more() {
        let expect = "\
PostgreSQL
  ok       wal-level          logical
  error    slot-lost          a [2Jb
                              why: c
                              fix: d e
  warning  table-without-key  public.t: a [2Jb
                              why: c
                              fix: d e

Kafka
  ok       kafka-reachable    1 broker

4 checks: 1 error, 1 warning, 2 ok. Mend the errors before `pgsluice run`. `pgsluice explain ID` says more.
";
        assert_eq!(report().to_text(false), expect);
        assert!(report().to_text(true).contains("\x1b[1;31merror  \x1b[0m"));
        assert!(report().has_errors());
    }

    #[test]
    fn machines_read_an_array_of_objects() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json().expect("it is written")).expect("JSON");
        assert_eq!(
            json[0],
            serde_json::json!({
                "system": "postgres", "severity": "ok", "id": "wal-level", "about": null, "found": "logical", "why": null, "fix": null
            })
        );
        assert_eq!(json[2]["about"], "public.t");
        assert_eq!(json[3]["system"], "kafka");
    }

    #[test]
    fn sizes_and_lists_are_short() {
        assert_eq!(bytes_text(1023), "1023 bytes");
        assert_eq!(bytes_text(1_610_612_736), "1.5 GiB");
        assert_eq!(some_of(&["a", "b", "c"], 2), "a, b and 1 more");
        assert_eq!(some_of(&["a"], 2), "a");
        assert_eq!(seconds_text(Duration::from_millis(2500)), "2500 ms");
    }
}
